/* query_hint.c - why an answer is empty, in words. */
#include <stdio.h>

#include "jobs/api/query_private.h"

#define MINUTE_MS 60000LL

struct found {
        bool rows, others; /* of the tenant, of other tenants */
        uint32_t first, last;
        uint64_t late, quarantined;
};

static bool is_void(const struct ad_status *s, uint32_t source)
{
        return s->sources[source].aborted;
}

static void look(const struct ad_status *s, struct df_bytes tenant, struct found *ret)
{
        *ret = (struct found){.first = UINT32_MAX};
        for (size_t i = 0; i < s->span_count; i++) {
                const struct ad_span *p = &s->spans[i];

                if (is_void(s, p->source))
                        continue;
                if (!df_bytes_eq(df_bytes_str(p->tenant), tenant)) {
                        ret->others = true;
                        continue;
                }
                ret->rows = true;
                ret->first = p->first_minute < ret->first ? p->first_minute : ret->first;
                ret->last = p->last_minute > ret->last ? p->last_minute : ret->last;
        }
        for (size_t i = 0; i < s->source_count; i++) {
                ret->late += ad_source_class(&s->sources[i], AD_CLASS_LATE);
                ret->quarantined += ad_source_class(&s->sources[i], AD_CLASS_QUARANTINED);
        }
}

static bool has_filter(const struct ad_query *q)
{
        for (int d = 0; d < AD_DIM_COUNT; d++)
                if (q->filters[d].count)
                        return true;
        return false;
}

void adi_hint(const struct ad_query_context *c, const struct ad_query *q,
              const struct ad_status *s, struct ad_result *r)
{
        struct found x;
        char text[400], first[AD_ZONE_TEXT_MAX], last[AD_ZONE_TEXT_MAX], aside[120] = "";
        struct df_bytes copy;

        look(s, q->tenant_id, &x);
        if (x.late || x.quarantined)
                (void)snprintf(aside, sizeof(aside),
                               " %llu events were late and %llu quarantined: see /quality.",
                               (unsigned long long)x.late, (unsigned long long)x.quarantined);
        if (x.rows) {
                (void)ad_zone_text(q->zone, x.first * MINUTE_MS, first);
                (void)ad_zone_text(q->zone, (x.last + 1) * MINUTE_MS, last);
        }
        if (x.rows && (x.last * MINUTE_MS < q->from_ms || x.first * MINUTE_MS >= q->to_ms)) {
                r->hint_code = "outside_range";
                (void)snprintf(text, sizeof(text),
                               "This tenant has rows from %s to %s, outside the range.%s", first,
                               last, aside);
        } else if (x.rows && has_filter(q)) {
                r->hint_code = "no_match";
                (void)snprintf(text, sizeof(text), "No row in this range matches the filters.%s",
                               aside);
        } else if (x.rows) {
                r->hint_code = "no_rows_in_range";
                (void)snprintf(text, sizeof(text),
                               "Nothing was counted in this range; this tenant has rows from %s to "
                               "%s.%s",
                               first, last, aside);
        } else if (x.others && c->any_tenant) {
                r->hint_code = "other_tenant";
                (void)snprintf(text, sizeof(text),
                               "Nothing was counted for this tenant, but for others: ask with "
                               "tenant=NAME.%s",
                               aside);
        } else if (x.late || x.quarantined) {
                r->hint_code = x.quarantined > x.late ? "quarantined" : "late";
                (void)snprintf(text, sizeof(text), "Nothing was counted for this tenant yet.%s",
                               aside);
        } else {
                r->hint_code = "no_data";
                (void)snprintf(text, sizeof(text),
                               "Nothing was counted for this tenant yet. Events become visible some "
                               "seconds after POST /events answered 202.");
        }
        copy = df_arena_copy(&r->arena, df_bytes(text, strlen(text) + 1));
        r->hint = (const char *)copy.data; /* NULL without memory: then there is only the code */
}
