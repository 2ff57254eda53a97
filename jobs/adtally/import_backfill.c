/* import_backfill.c - rows that overlap live data, sent like any client's events (--as-backfill).
 *
 * Then the rules of live events hold: --accepted-age, lateness, the price table. What the server
 * took is written down as known before the next batch; a crash between sends a batch again, which
 * dedupe absorbs within its horizon.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/import.h"
#include "jobs/common/json.h"

#define BATCH 500
#define TIMEOUT_MS 30000
#define RETRY_MS 60000
#define PAUSE_US 200000
#define EXPLAINED_MAX 10

struct ad_backfill {
        const struct ad_import_place *place;
        struct df_http_client *http;
        struct ad_json_parser *parser;
        struct df_arena arena; /* of the batch */
        struct ad_event events[BATCH];
        uint64_t lines[BATCH];
        size_t count;
        uint64_t taken, refused;
};

int ad_backfill_open(const struct ad_import_place *p, const char *url, const char *key,
                     struct ad_backfill **ret, struct df_error *err)
{
        struct ad_backfill *b = calloc(1, sizeof(*b));
        int rc;

        if (!b)
                return df_fail(err, DF_ENOMEM, "backfill");
        df_arena_init(&b->arena, 0);
        b->place = p;
        b->parser = ad_json_create();
        rc = b->parser ? df_http_client_create(url, key, TIMEOUT_MS, &b->http, err)
                       : df_fail(err, DF_ENOMEM, "JSON parser");
        if (rc < 0) {
                ad_backfill_close(b);
                return rc;
        }
        *ret = b;
        return 0;
}

void ad_backfill_close(struct ad_backfill *b)
{
        if (!b)
                return;
        df_http_client_destroy(b->http);
        ad_json_destroy(b->parser);
        df_arena_release(&b->arena);
        free(b);
}

static void put_text(struct ad_json *j, const char *key, struct df_bytes v)
{
        if (v.len)
                ad_json_put_bytes(j, key, v);
}

static void put_attributes(struct ad_json *j, struct df_bytes encoded)
{
        struct df_reader r = df_reader(encoded);
        struct df_pb_field f, part;

        if (encoded.len == 0)
                return;
        ad_json_key(j, "attributes");
        ad_json_open(j);
        while (df_pb_next(&r, &f)) {
                struct df_reader e = df_reader(f.bytes);
                struct df_bytes kv[2] = {{0}};

                while (df_pb_next(&e, &part))
                        if (part.number == 1 || part.number == 2)
                                kv[part.number - 1] = part.bytes;
                ad_json_bytes(j, kv[0]); /* the key: it may hold no NUL, but has no end either */
                ad_json_bytes(j, kv[1]);
        }
        ad_json_close(j);
}

static int put_event(const struct ad_event *ev, struct df_buf *body, struct df_error *err)
{
        static const char *const types[] = {"", "impression", "click", "conversion"};
        struct ad_json *j = ad_json_begin(body);

        ad_json_open(j);
        ad_json_put_bytes(j, "event_id", ev->event_id);
        ad_json_put_text(j, "type", types[ev->type]);
        ad_json_put_int(j, "event_time", ev->event_ms);
        for (int d = 0; d < AD_DIM_COUNT; d++)
                put_text(j, ad_dim_names[d], ev->dims[d]);
        put_text(j, "user_id", ev->user_id);
        put_text(j, "click_id", ev->click_id);
        if (ev->flags & AD_EV_HAS_COST)
                ad_json_put_int(j, "cost_micros", ev->cost_nanos / DF_NANOS_PER_MICRO);
        if (ev->flags & AD_EV_HAS_PAYOUT)
                ad_json_put_int(j, "payout_micros", ev->payout_nanos / DF_NANOS_PER_MICRO);
        if (ev->flags & AD_EV_HAS_VALUE)
                ad_json_put_int(j, "conversion_value_micros", ev->value_nanos / DF_NANOS_PER_MICRO);
        put_text(j, "currency", ev->currency);
        put_text(j, "conversion_value_currency", ev->value_currency);
        put_attributes(j, ev->attributes);
        ad_json_close(j);
        if (ad_json_end(j, body, err) < 0)
                return DF_ENOMEM;
        df_put_u8(body, '\n');
        return df_buf_check(body, err);
}

static int post(struct ad_backfill *b, struct df_bytes body, struct df_buf *answer,
                struct df_error *err)
{
        int64_t until = df_monotonic_ms() + RETRY_MS;

        for (;;) {
                int status = 0, rc;

                df_buf_clear(answer);
                rc = df_http_fetch(b->http, "/v1/events", "application/x-ndjson", body, &status,
                                   answer, err);
                if (rc == 0 && (status == 202 || status == 422))
                        return 0;
                if (rc == 0)
                        rc = df_fail(err, status == 503 || status == 429 ? DF_EAGAIN : DF_EINVAL,
                                     "POST /events answers %d: %.*s", status,
                                     (int)(answer->len < 300 ? answer->len : 300),
                                     (const char *)answer->data);
                if (rc != DF_EAGAIN || df_monotonic_ms() > until || df_process_stopping())
                        return rc;
                (void)usleep(PAUSE_US);
        }
}

static void explain(struct ad_backfill *b, size_t index, struct df_bytes code, struct df_bytes text)
{
        if (b->refused++ < EXPLAINED_MAX)
                fprintf(stderr, "line %" PRIu64 ": the server refuses it: %.*s: %.*s\n",
                        b->lines[index], (int)code.len, (const char *)code.data, (int)text.len,
                        (const char *)text.data);
}

/* Takes what the answer rejects out of the batch. */
static int read_answer(struct ad_backfill *b, struct df_bytes body, struct df_error *err)
{
        bool rejected[BATCH] = {false}, seen = false;
        const struct ad_json_node *n;
        const char *why = "";
        size_t nodes, kept = 0;

        if (ad_json_parse(b->parser, body, &n, &nodes, &why) != AD_JSON_OK || nodes == 0)
                return df_fail(err, DF_EPARSE, "POST /events answers no JSON: %s", why);
        for (uint32_t i = 1; i < n[0].next; i = n[i].next) {
                bool list = df_bytes_eq(n[i].key, df_bytes_str("rejected"));

                seen = seen || list;
                for (uint32_t e = i + 1; list && e < n[i].next; e = n[e].next) {
                        struct df_bytes code = {0}, text = {0};
                        int64_t index = -1;

                        for (uint32_t m = e + 1; m < n[e].next; m = n[m].next) {
                                if (df_bytes_eq(n[m].key, df_bytes_str("index")))
                                        index = n[m].i;
                                if (df_bytes_eq(n[m].key, df_bytes_str("code")))
                                        code = n[m].text;
                                if (df_bytes_eq(n[m].key, df_bytes_str("message")))
                                        text = n[m].text;
                        }
                        if (index < 0 || (size_t)index >= b->count)
                                continue;
                        rejected[index] = true;
                        explain(b, (size_t)index, code, text);
                }
        }
        if (!seen)
                return df_fail(err, DF_EPARSE, "POST /events answers without `rejected`");
        for (size_t i = 0; i < b->count; i++)
                if (!rejected[i])
                        b->events[kept++] = b->events[i];
        b->count = kept;
        return 0;
}

static int flush(struct ad_backfill *b, struct df_error *err)
{
        struct df_buf body = {0}, answer = {0};
        int rc = 0;

        if (b->count == 0)
                return 0;
        for (size_t i = 0; rc == 0 && i < b->count; i++)
                rc = put_event(&b->events[i], &body, err);
        if (rc == 0)
                rc = post(b, df_buf_bytes(&body), &answer, err);
        if (rc == 0)
                rc = read_answer(b, df_buf_bytes(&answer), err);
        if (rc == 0 && b->count)
                rc = ad_import_known_backfilled(b->place, b->events, b->count, err);
        b->taken += rc == 0 ? b->count : 0;
        b->count = 0;
        df_arena_reset(&b->arena);
        df_buf_release(&body);
        df_buf_release(&answer);
        return rc;
}

/* A sum of money that JSON's whole micros cannot state may not be rounded away. */
static bool whole_micros(const struct ad_event *ev)
{
        return ev->cost_nanos % DF_NANOS_PER_MICRO == 0 &&
               ev->payout_nanos % DF_NANOS_PER_MICRO == 0 &&
               ev->value_nanos % DF_NANOS_PER_MICRO == 0;
}

int ad_backfill_add(struct ad_backfill *b, const struct ad_event *ev, uint64_t line,
                    struct df_error *err)
{
        struct df_buf copy = {0};
        struct df_bytes kept;
        int rc;

        if (!whole_micros(ev))
                return df_fail(err, DF_EPARSE,
                               "line %" PRIu64
                               ": an amount below a micro cannot be sent as backfill",
                               line);
        ad_wire_event(&copy, ev);
        rc = df_buf_check(&copy, err);
        kept = rc == 0 ? df_arena_copy(&b->arena, df_buf_bytes(&copy)) : (struct df_bytes){0};
        df_buf_release(&copy);
        if (rc == 0 && !kept.data)
                rc = df_fail(err, DF_ENOMEM, "backfill");
        if (rc == 0)
                rc = ad_wire_event_decode(kept, &b->events[b->count], err);
        if (rc < 0)
                return rc;
        b->lines[b->count++] = line;
        return b->count == BATCH ? flush(b, err) : 0;
}

int ad_backfill_end(struct ad_backfill *b, uint64_t *ret_taken, uint64_t *ret_refused,
                    struct df_error *err)
{
        int rc = flush(b, err);

        *ret_taken = b->taken;
        *ret_refused = b->refused;
        return rc;
}
