/* currency.c - the active codes of ISO 4217, and XXX. Left out are funds (CLF, USN ...), metals
 * (XAU ...) and XTS: nobody is paid in them. Codes withdrawn lately (ANG, BGN) stay: imports of
 * history carry them.
 */
#include "df/money.h"

/* Sorted. */
static const char codes[][4] = {
        "AED", "AFN", "ALL", "AMD", "ANG", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT",
        "BGN", "BHD", "BIF", "BMD", "BND", "BOB", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD",
        "CDF", "CHF", "CLP", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DJF", "DKK", "DOP", "DZD",
        "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GNF", "GTQ",
        "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IQD", "IRR", "ISK", "JMD", "JOD",
        "JPY", "KES", "KGS", "KHR", "KMF", "KPW", "KRW", "KWD", "KYD", "KZT", "LAK", "LBP", "LKR",
        "LRD", "LSL", "LYD", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR",
        "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "OMR", "PAB", "PEN",
        "PGK", "PHP", "PKR", "PLN", "PYG", "QAR", "RON", "RSD", "RUB", "RWF", "SAR", "SBD", "SCR",
        "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB",
        "TJS", "TMT", "TND", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "UGX", "USD", "UYU", "UZS",
        "VED", "VES", "VND", "VUV", "WST", "XAF", "XCD", "XCG", "XOF", "XPF", "XXX", "YER", "ZAR",
        "ZMW", "ZWG",
};

/* Three letters as one number, in the order of the letters. */
static uint32_t pack(const void *code)
{
        const uint8_t *c = code;

        return (uint32_t)c[0] << 16 | (uint32_t)c[1] << 8 | c[2];
}

bool df_currency_known(struct df_bytes code)
{
        size_t low = 0, high = sizeof(codes) / sizeof(codes[0]);
        uint32_t want;

        if (code.len != 3)
                return false;
        want = pack(code.data);
        while (high - low > 1) {
                size_t mid = (low + high) / 2;

                if (pack(codes[mid]) <= want)
                        low = mid;
                else
                        high = mid;
        }
        return pack(codes[low]) == want;
}

/* Decimals of the minor unit where it is not 2. Sorted. MGA and MRU divide by five, yet ISO 4217
 * gives them two decimals, and LBP, IRR and the like keep theirs although nobody coins them. */
static const struct {
        char code[4];
        uint8_t digits;
} minor[] = {
        {"BHD", 3}, {"BIF", 0}, {"CLP", 0}, {"DJF", 0}, {"GNF", 0}, {"IQD", 3},
        {"ISK", 0}, {"JOD", 3}, {"JPY", 0}, {"KMF", 0}, {"KRW", 0}, {"KWD", 3},
        {"LYD", 3}, {"OMR", 3}, {"PYG", 0}, {"RWF", 0}, {"TND", 3}, {"UGX", 0},
        {"VND", 0}, {"VUV", 0}, {"XAF", 0}, {"XOF", 0}, {"XPF", 0},
};

uint32_t df_currency_digits(struct df_bytes code)
{
        for (size_t i = 0; i < sizeof(minor) / sizeof(minor[0]); i++)
                if (df_bytes_eq(code, df_bytes(minor[i].code, 3)))
                        return minor[i].digits;
        return 2;
}
