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
