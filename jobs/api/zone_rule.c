/* zone_rule.c - POSIX TZ rules ("CET-1CEST,M3.5.0,M10.5.0/3"), with the extensions of RFC 8536:
 * names in <>, times from -167 to 167 hours, negative daylight saving. */
#include "jobs/api/zone_private.h"
#include "jobs/common/times.h"

#define DAY_S 86400LL

static bool peek(const struct df_reader *r, char *ret)
{
        if (df_reader_left(r) == 0)
                return false;
        *ret = (char)*r->p;
        return true;
}

static bool take(struct df_reader *r, char want)
{
        char c;

        if (!peek(r, &c) || c != want)
                return false;
        r->p++;
        return true;
}

static bool is_alpha(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool name(struct df_reader *r)
{
        bool quoted = take(r, '<');
        size_t n = 0;
        char c;

        while (peek(r, &c) && (is_alpha(c) || (quoted && c != '>'))) {
                r->p++;
                n++;
        }
        return n >= 3 && (!quoted || take(r, '>'));
}

static bool number(struct df_reader *r, int max, int *ret)
{
        int v = 0, digits = 0;
        char c;

        while (peek(r, &c) && c >= '0' && c <= '9' && digits < 4) {
                v = v * 10 + (c - '0');
                digits++;
                r->p++;
        }
        *ret = v;
        return digits > 0 && v <= max;
}

/* [+-]hh[:mm[:ss]] */
static bool duration(struct df_reader *r, int max_hours, int32_t *ret_s)
{
        int sign = take(r, '-') ? -1 : 1, h, m = 0, s = 0;

        if (sign > 0)
                (void)take(r, '+');
        if (!number(r, max_hours, &h))
                return false;
        if (take(r, ':') && (!number(r, 59, &m) || (take(r, ':') && !number(r, 59, &s))))
                return false;
        *ret_s = sign * (h * 3600 + m * 60 + s);
        return true;
}

static bool date(struct df_reader *r, struct adi_rule_date *d)
{
        bool ok;

        *d = (struct adi_rule_date){.kind = 'D', .time_s = 2 * 3600};
        if (take(r, 'M')) {
                d->kind = 'M';
                ok = number(r, 12, &d->m) && take(r, '.') && number(r, 5, &d->w) && take(r, '.') &&
                     number(r, 6, &d->d) && d->m >= 1 && d->w >= 1;
        } else if (take(r, 'J')) {
                d->kind = 'J';
                ok = number(r, 365, &d->d) && d->d >= 1;
        } else {
                ok = number(r, 365, &d->d);
        }
        return ok && (!take(r, '/') || duration(r, 167, &d->time_s));
}

bool adi_rule_parse(struct df_bytes text, struct adi_rule *ret)
{
        struct df_reader r = df_reader(text);
        struct adi_rule rule = {0};
        int32_t west;
        char c;

        if (text.len == 0) {
                *ret = rule;
                return true;
        }
        if (!name(&r) || !duration(&r, 24, &west))
                return false;
        rule.present = true;
        rule.std_s = -west;
        if (df_reader_left(&r) > 0) {
                rule.has_dst = true;
                rule.dst_s = rule.std_s + 3600;
                if (!name(&r))
                        return false;
                if (peek(&r, &c) && c != ',') {
                        if (!duration(&r, 24, &west))
                                return false;
                        rule.dst_s = -west;
                }
                if (!take(&r, ',') || !date(&r, &rule.start) || !take(&r, ',') ||
                    !date(&r, &rule.end) || df_reader_left(&r) > 0)
                        return false;
        }
        *ret = rule;
        return true;
}

static bool leap_year(int64_t y)
{
        return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Local seconds since the epoch of the date's time in that year. */
static int64_t local_s(const struct adi_rule_date *d, int64_t year)
{
        int64_t first = ad_days_from_civil(year, 1, 1), day, next;
        int weekday;

        if (d->kind == 'D') {
                day = first + d->d;
        } else if (d->kind == 'J') {
                day = first + d->d - 1 + (leap_year(year) && d->d >= 60);
        } else {
                first = ad_days_from_civil(year, (unsigned)d->m, 1);
                next = d->m == 12 ? ad_days_from_civil(year + 1, 1, 1)
                                  : ad_days_from_civil(year, (unsigned)d->m + 1, 1);
                weekday = (int)(((first + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
                day = first + (d->d - weekday + 7) % 7 + 7 * (d->w - 1);
                if (day >= next)
                        day -= 7; /* week 5 = the last one */
        }
        return day * DAY_S + d->time_s;
}

static int64_t year_of(int64_t s)
{
        int64_t year, day = s / DAY_S - (s % DAY_S < 0);
        unsigned m, d;

        ad_civil_from_days(day, &year, &m, &d);
        return year;
}

int32_t adi_rule_offset_s(const struct adi_rule *r, int64_t t_s)
{
        int64_t year = year_of(t_s + r->std_s), start, end;
        bool dst;

        if (!r->has_dst)
                return r->std_s;
        start = local_s(&r->start, year) - r->std_s;
        end = local_s(&r->end, year) - r->dst_s;
        dst = start < end ? t_s >= start && t_s < end : t_s >= start || t_s < end;
        return dst ? r->dst_s : r->std_s;
}

int64_t adi_rule_next_s(const struct adi_rule *r, int64_t t_s)
{
        int64_t year = year_of(t_s + r->std_s), best = INT64_MAX;

        if (!r->has_dst || r->dst_s == r->std_s)
                return INT64_MAX;
        for (int64_t y = year - 1; y <= year + 1; y++) {
                int64_t at[2] = {local_s(&r->start, y) - r->std_s, local_s(&r->end, y) - r->dst_s};

                for (int i = 0; i < 2; i++)
                        if (at[i] > t_s && at[i] < best &&
                            adi_rule_offset_s(r, at[i]) != adi_rule_offset_s(r, at[i] - 1))
                                best = at[i];
        }
        return best;
}
