/* import_overlap.c - where rows may not be added by an import (R6): the tenant's live data, and
 * what other datasets declared.
 *
 * Live data is the time from its first to its last minute with rows, also when hours between are
 * empty: rows for such hours go through --as-backfill. The view knows it for ever (GET /quality,
 * `spans`). Without a server the topic `rollups` says the same as long as it still begins at offset
 * 0, and what of `events` is not counted yet is read too.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "df/net.h"
#include "df/seal.h"
#include "jobs/adtally/import.h"
#include "jobs/common/settings.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000LL
#define TIMEOUT_MS 10000
#define RECORDS 256

static int add(struct ad_import_ranges *r, int64_t from_ms, int64_t to_ms, const char *what,
               struct df_error *err)
{
        if (from_ms >= to_ms)
                return 0;
        if (r->count == AD_RANGES_MAX)
                return df_fail(err, DF_ELIMIT, "more than %d datasets", AD_RANGES_MAX);
        r->list[r->count].from_ms = from_ms;
        r->list[r->count].to_ms = to_ms;
        (void)snprintf(r->list[r->count++].what, sizeof(r->list[0].what), "%s", what);
        return 0;
}

const struct ad_import_range *ad_import_ranges_hit(const struct ad_import_ranges *r, int64_t ms)
{
        for (size_t i = 0; i < r->count; i++)
                if (ms >= r->list[i].from_ms && ms < r->list[i].to_ms)
                        return &r->list[i];
        return NULL;
}

struct live {
        struct df_bytes tenant;
        int64_t from_ms, to_ms;
        uint64_t counted[DF_PARTITIONS_MAX]; /* of `events`: where the last seal ends */
        struct df_arena *arena;
};

static void widen(struct live *l, int64_t from_ms, int64_t to_ms)
{
        if (from_ms < l->from_ms)
                l->from_ms = from_ms;
        if (to_ms > l->to_ms)
                l->to_ms = to_ms;
}

/* ---- a running server ---- */

static bool is(const struct ad_json_node *n, const char *key)
{
        return df_bytes_eq(n->key, df_bytes_str(key));
}

static void read_span(const struct ad_json_node *n, uint32_t at, struct live *l)
{
        int64_t from = 0, to = 0;
        bool mine = false;

        for (uint32_t i = at + 1; i < n[at].next; i = n[i].next) {
                if (is(&n[i], "tenant"))
                        mine = df_bytes_eq(n[i].text, l->tenant);
                if (is(&n[i], "from") && !ad_time_parse(n[i].text, &from))
                        mine = false;
                if (is(&n[i], "to") && !ad_time_parse(n[i].text, &to))
                        mine = false;
        }
        if (mine && from < to)
                widen(l, from, to);
}

static void read_source(const struct ad_json_node *n, uint32_t at, struct live *l)
{
        bool live = false;

        for (uint32_t i = at + 1; i < n[at].next; i = n[i].next) {
                if (is(&n[i], "stream")) /* comes before the spans */
                        live = df_bytes_eq(n[i].text, df_bytes_str(AD_TOPIC_EVENTS));
                for (uint32_t s = i + 1; live && is(&n[i], "spans") && s < n[i].next; s = n[s].next)
                        read_span(n, s, l);
        }
}

static int read_quality(const struct ad_json_node *n, size_t count, struct live *l,
                        struct df_error *err)
{
        bool seen = false;

        for (uint32_t i = 1; count > 0 && i < n[0].next; i = n[i].next) {
                if (is(&n[i], "tenant"))
                        seen = seen || df_bytes_eq(n[i].text, l->tenant);
                if (is(&n[i], "all_tenants"))
                        seen = seen || n[i].i;
                for (uint32_t s = i + 1; is(&n[i], "sources") && s < n[i].next; s = n[s].next)
                        read_source(n, s, l);
        }
        return seen ? 0
                    : df_fail(err, DF_EINVAL,
                              "the server does not show the data of tenant %.*s to this key: give "
                              "--key of that tenant, or of class admin",
                              (int)l->tenant.len, (const char *)l->tenant.data);
}

static int ask(const char *url, const char *key, struct live *l, struct df_error *err)
{
        struct ad_json_parser *parser = ad_json_create();
        struct df_http_client *http = NULL;
        const struct ad_json_node *n;
        struct df_buf body = {0};
        const char *why = "";
        size_t count;
        int status = 0, rc = parser ? 0 : df_fail(err, DF_ENOMEM, "JSON parser");

        if (rc == 0)
                rc = df_http_client_create(url, key, TIMEOUT_MS, &http, err);
        if (rc == 0)
                rc = df_http_fetch(http, "/v1/quality", NULL, df_bytes(NULL, 0), &status, &body,
                                   err);
        if (rc == 0 && status != 200)
                rc = df_fail(err, DF_EINVAL, "GET %s/quality answers %d: %.*s", url, status,
                             (int)(body.len < 300 ? body.len : 300), (const char *)body.data);
        if (rc == 0 && ad_json_parse(parser, df_buf_bytes(&body), &n, &count, &why) != AD_JSON_OK)
                rc = df_fail(err, DF_EPARSE, "GET %s/quality answers no JSON: %s", url, why);
        if (rc == 0)
                rc = read_quality(n, count, l, err);
        df_http_client_destroy(http);
        ad_json_destroy(parser);
        df_buf_release(&body);
        return rc;
}

/* ---- the log ---- */

static int each_record(struct df_log *log, const char *topic, uint32_t partition, uint64_t from,
                       int (*fn)(struct live *l, const struct df_record *rec, struct df_error *err),
                       struct live *l, struct df_error *err)
{
        struct df_record *records = calloc(RECORDS, sizeof(*records));
        struct df_log_reader *r = NULL;
        size_t n = 1;
        int rc = records ? 0 : df_fail(err, DF_ENOMEM, "records");

        if (rc == 0)
                rc = df_log_reader_open(log, topic, partition, from, NULL, &r, err);
        while (rc == 0 && n > 0) {
                rc = df_log_poll(r, records, RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = fn(l, &records[i], err);
        }
        df_log_reader_close(r);
        free(records);
        return rc;
}

static int on_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct live *l = arg;

        (void)err;
        if (df_bytes_eq(row->tenant_id, l->tenant))
                widen(l, (int64_t)row->minute * MINUTE_MS, ((int64_t)row->minute + 1) * MINUTE_MS);
        return 0;
}

static int on_rollup(struct live *l, const struct df_record *rec, struct df_error *err)
{
        struct df_output o;
        int rc = df_output_decode(rec->value, &o, err);

        if (rc < 0 || strcmp(o.origin.source.stream, AD_TOPIC_EVENTS) != 0)
                return rc;
        if (o.is_seal && o.seal.to_offset > l->counted[o.origin.source.partition])
                l->counted[o.origin.source.partition] = o.seal.to_offset;
        return o.is_seal ? 0 : ad_wire_rows_decode(o.payload, on_row, l, err);
}

static int on_events(struct live *l, const struct df_record *rec, struct df_error *err)
{
        struct ad_batch b;

        (void)err;
        df_arena_reset(l->arena);
        if (ad_wire_batch_decode(rec->value, AD_RECORD_EVENTS_MAX, l->arena, &b, NULL) < 0)
                return 0; /* poison: it is quarantined, not counted */
        for (size_t i = 0; i < b.count; i++)
                if (df_bytes_eq(b.events[i].tenant_id, l->tenant))
                        widen(l, b.events[i].event_ms, b.events[i].event_ms + 1);
        return 0;
}

static int exists(void *arg, const struct df_topic_info *info)
{
        bool *found = arg;

        *found = *found || strcmp(info->name, AD_TOPIC_ROLLUPS) == 0;
        return 0;
}

static int read_log(const struct ad_import_place *p, struct live *l, struct df_error *err)
{
        bool found = false;
        int rc = df_log_topic_list(p->log, AD_TOPIC_ROLLUPS, exists, &found, err);

        if (rc < 0 || !found)
                return rc; /* nothing ever ran here */
        for (uint32_t i = 0; rc == 0 && i < p->partitions; i++) {
                uint64_t first, end;

                rc = df_log_bounds(p->log, AD_TOPIC_ROLLUPS, i, &first, &end, err);
                if (rc == 0 && first > 0)
                        return df_fail(
                                err, DF_EAGAIN,
                                "no server answers, and the log alone no longer says where "
                                "the live data begins: start `adtally up`, or give its --url");
                if (rc == 0)
                        rc = each_record(p->log, AD_TOPIC_ROLLUPS, i, 0, on_rollup, l, err);
        }
        for (uint32_t i = 0; rc == 0 && i < p->partitions; i++)
                rc = each_record(p->log, AD_TOPIC_EVENTS, i, l->counted[i], on_events, l, err);
        return rc;
}

/* ---- together ---- */

struct found {
        struct ad_import_ranges *ranges;
        struct df_error *err;
};

static int on_range(void *arg, struct df_bytes dataset, int64_t from_ms, int64_t to_ms)
{
        struct found *f = arg;
        char what[200];

        (void)snprintf(what, sizeof(what), "dataset %.*s", (int)dataset.len,
                       (const char *)dataset.data);
        for (size_t i = 0; i < f->ranges->count; i++) {
                struct ad_import_range *r = &f->ranges->list[i];

                if (strcmp(r->what, what) != 0)
                        continue;
                r->from_ms = from_ms < r->from_ms ? from_ms : r->from_ms;
                r->to_ms = to_ms > r->to_ms ? to_ms : r->to_ms;
                return 0;
        }
        return add(f->ranges, from_ms, to_ms, what, f->err);
}

int ad_import_ranges_find(const struct ad_import_place *p, const char *url, const char *key,
                          struct ad_import_ranges *ret, struct df_error *err)
{
        struct live *l = calloc(1, sizeof(*l));
        struct found f = {ret, err};
        struct df_arena arena;
        int rc;

        ret->count = 0;
        if (!l)
                return df_fail(err, DF_ENOMEM, "ranges");
        df_arena_init(&arena, 0);
        l->arena = &arena;
        l->tenant = p->tenant;
        l->from_ms = INT64_MAX;
        l->to_ms = INT64_MIN;
        rc = url ? ask(url, key, l, err) : DF_EAGAIN;
        if (rc == DF_EAGAIN)
                rc = read_log(p, l, err);
        if (rc == 0)
                rc = add(ret, l->from_ms, l->to_ms, "live data", err);
        if (rc == 0)
                rc = ad_import_each_range(p, on_range, &f, err);
        df_arena_release(&arena);
        free(l);
        return rc;
}
