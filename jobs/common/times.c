#include "jobs/common/times.h"

#include <stdio.h>

#define DAY_MS 86400000LL

/* Both conversions count years from March, so that the leap day is a year's last; an era is 400
 * years = 146,097 days. */
int64_t ad_days_from_civil(int64_t year, unsigned month, unsigned day)
{
        int64_t era, yoe, doy;

        year -= month <= 2;
        era = (year >= 0 ? year : year - 399) / 400;
        yoe = year - era * 400;
        doy = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + (int64_t)day - 1;
        return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

void ad_civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day)
{
        int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
        int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
        int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

        *ret_day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
        *ret_month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
        *ret_year = yoe + era * 400 + (*ret_month <= 2);
}

/* Exactly `digits` digits at *at; -1 otherwise. */
static int number(struct df_bytes t, size_t *at, size_t digits)
{
        int v = 0;

        for (size_t i = 0; i < digits; i++, (*at)++) {
                if (*at >= t.len || t.data[*at] < '0' || t.data[*at] > '9')
                        return -1;
                v = v * 10 + (t.data[*at] - '0');
        }
        return v;
}

static bool literal(struct df_bytes t, size_t *at, const char *any)
{
        return *at < t.len && t.data[*at] && strchr(any, t.data[*at]) && ++*at;
}

static bool fraction(struct df_bytes t, size_t *at, int *ret_ms)
{
        int scale = 100, digits = 0;

        *ret_ms = 0;
        if (*at >= t.len || t.data[*at] != '.')
                return true;
        for (++*at; *at < t.len && t.data[*at] >= '0' && t.data[*at] <= '9'; ++*at, digits++) {
                *ret_ms += (t.data[*at] - '0') * scale;
                scale /= 10;
        }
        return digits > 0 && digits <= 9;
}

static bool offset(struct df_bytes t, size_t *at, int *ret_minutes)
{
        int sign, h, m;

        *ret_minutes = 0;
        if (literal(t, at, "Zz"))
                return true;
        if (*at >= t.len || (t.data[*at] != '+' && t.data[*at] != '-'))
                return false;
        sign = t.data[(*at)++] == '-' ? -1 : 1;
        h = number(t, at, 2);
        if (!literal(t, at, ":"))
                return false;
        m = number(t, at, 2);
        *ret_minutes = sign * (h * 60 + m);
        return h >= 0 && h < 24 && m >= 0 && m < 60;
}

static bool valid_date(int y, int mo, int d)
{
        static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

        return y >= 1970 && mo >= 1 && mo <= 12 && d >= 1 && d <= days[mo - 1] &&
               (mo != 2 || d < 29 || (y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)));
}

bool ad_time_parse(struct df_bytes t, int64_t *ret_ms)
{
        size_t at = 0;
        int y, mo, d, h, mi, s, ms, minutes;
        bool ok;

        y = number(t, &at, 4);
        ok = literal(t, &at, "-");
        mo = ok ? number(t, &at, 2) : -1;
        ok = ok && literal(t, &at, "-");
        d = ok ? number(t, &at, 2) : -1;
        ok = ok && literal(t, &at, "Tt ");
        h = ok ? number(t, &at, 2) : -1;
        ok = ok && literal(t, &at, ":");
        mi = ok ? number(t, &at, 2) : -1;
        ok = ok && literal(t, &at, ":");
        s = ok ? number(t, &at, 2) : -1;
        if (!ok || !valid_date(y, mo, d) || h < 0 || h > 23 || mi < 0 || mi > 59 || s < 0 || s > 60)
                return false;
        if (!fraction(t, &at, &ms) || !offset(t, &at, &minutes) || at != t.len)
                return false;
        *ret_ms = ad_days_from_civil(y, (unsigned)mo, (unsigned)d) * DAY_MS +
                  ((h * 60 + mi - minutes) * 60LL + s) * 1000 + ms;
        return true;
}

int ad_time_text(int64_t ms, char ret[AD_TIME_TEXT_MAX])
{
        int64_t days = ms / DAY_MS, rest = ms % DAY_MS, year;
        unsigned month, day;
        int n;

        if (rest < 0) {
                rest += DAY_MS;
                days--;
        }
        ad_civil_from_days(days, &year, &month, &day);
        n = snprintf(ret, AD_TIME_TEXT_MAX, "%04d-%02u-%02uT%02d:%02d:%02d", (int)(year % 10000),
                     month, day, (int)(rest / 3600000), (int)(rest / 60000 % 60),
                     (int)(rest / 1000 % 60));
        if (rest % 1000)
                n += snprintf(ret + n, AD_TIME_TEXT_MAX - (size_t)n, ".%03d", (int)(rest % 1000));
        n += snprintf(ret + n, AD_TIME_TEXT_MAX - (size_t)n, "Z");
        return n;
}
