/* zone_private.h - between zone.c, zone_tzif.c and zone_rule.c. */
#ifndef ADI_ZONE_PRIVATE_H
#define ADI_ZONE_PRIVATE_H

#include "jobs/api/zone.h"

/* A POSIX TZ rule: what holds after the last listed transition. */
struct adi_rule_date {
        char kind;      /* 'M' month.week.day, 'J' day 1..365 without 29 February, 'D' day 0..365 */
        int m, w, d;    /* 'J' and 'D' use d */
        int32_t time_s; /* local, may be negative or above a day */
};
struct adi_rule {
        bool present, has_dst;
        int32_t std_s, dst_s; /* east of Greenwich */
        struct adi_rule_date start, end;
};

struct ad_zone {
        char name[AD_ZONE_NAME_MAX + 1];
        int64_t *times_s; /* transitions, ascending */
        int32_t *after_s; /* offset from times_s[i] on */
        size_t count;
        int32_t before_s; /* offset before the first transition */
        uint64_t digest;
        struct adi_rule rule;
};

bool adi_rule_parse(struct df_bytes text, struct adi_rule *ret);
int32_t adi_rule_offset_s(const struct adi_rule *r, int64_t t_s);
/* First instant after t_s at which the rule changes the offset; INT64_MAX when none. */
int64_t adi_rule_next_s(const struct adi_rule *r, int64_t t_s);

#endif
