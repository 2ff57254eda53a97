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

/* W2: small groupings leave once the watermark has passed a window's end. */
static bool waits_for_end(const struct ad_query *q, const struct found *x, int64_t watermark_ms)
{
        return q->grouping > 0 && (x->last + 1) * MINUTE_MS > watermark_ms &&
               q->to_ms > watermark_ms;
}

/* Of a tenant that has rows. */
static const char *missed(const struct ad_query *q, const struct found *x, int64_t watermark_ms,
                          char *text, size_t size)
{
        char first[AD_ZONE_TEXT_MAX], last[AD_ZONE_TEXT_MAX];

        (void)ad_zone_text(q->zone, x->first * MINUTE_MS, first);
        (void)ad_zone_text(q->zone, (x->last + 1) * MINUTE_MS, last);
        if (x->last * MINUTE_MS < q->from_ms || x->first * MINUTE_MS >= q->to_ms) {
                (void)snprintf(text, size, "This tenant has rows from %s to %s, outside the range.",
                               first, last);
                return "outside_range";
        }
        if (waits_for_end(q, x, watermark_ms)) {
                (void)snprintf(text, size,
                               "Numbers by these dimensions appear when their minute has ended "
                               "(watermark); by advertiser_id and campaign_id they appear at "
                               "once.");
                return "window_open";
        }
        if (has_filter(q)) {
                (void)snprintf(text, size, "No row in this range matches the filters.");
                return "no_match";
        }
        (void)snprintf(text, size,
                       "Nothing was counted in this range; this tenant has rows from %s to %s.",
                       first, last);
        return "no_rows_in_range";
}

/* Of one that has none. */
static const char *nothing(const struct ad_query_context *c, const struct found *x, char *text,
                           size_t size)
{
        if (x->others && c->any_tenant) {
                (void)snprintf(text, size,
                               "Nothing was counted for this tenant, but for others: "
                               "ask with tenant=NAME.");
                return "other_tenant";
        }
        if (x->late || x->quarantined) {
                (void)snprintf(text, size, "Nothing was counted for this tenant yet.");
                return x->quarantined > x->late ? "quarantined" : "late";
        }
        (void)snprintf(text, size,
                       "Nothing was counted for this tenant yet. Events become visible "
                       "some seconds after POST /events answered 202.");
        return "no_data";
}

void adi_hint(const struct ad_query_context *c, const struct ad_query *q, const struct ad_status *s,
              struct ad_result *r)
{
        char text[400];
        struct df_bytes copy;
        struct found x;
        size_t n;

        look(s, q->tenant_id, &x);
        r->hint_code = x.rows ? missed(q, &x, r->watermark_ms, text, sizeof(text))
                              : nothing(c, &x, text, sizeof(text));
        n = strlen(text);
        if (x.late || x.quarantined)
                (void)snprintf(text + n, sizeof(text) - n,
                               " %llu events were late and %llu quarantined: see /quality.",
                               (unsigned long long)x.late, (unsigned long long)x.quarantined);
        copy = df_arena_copy(&r->arena, df_bytes(text, strlen(text) + 1));
        r->hint = (const char *)copy.data; /* NULL without memory: then there is only the code */
}
