/* quarantine_release.c - entries of quarantine that go to ingest again (quarantine.h).
 *
 * Released is what guard refused (time and clock): it was not recorded by dedupe and moved nothing.
 * The same event is sent, with its event_id, fingerprint and sealed user id, and a new receive
 * time. Its source says which entry it is: the lineage. An event_id counts once within the dedupe
 * horizon only, so nothing is sent of which another copy passed, whenever within the bill's
 * horizon: then nothing is missing in the bill, and realtime might count it twice.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/quarantine.h"
#include "jobs/common/json.h"
#include "jobs/common/raw_scan.h"
#include "jobs/ingest/parse.h"

#define BATCH 100
#define TIMEOUT_MS 30000
#define RETRY_MS 60000
#define PAUSE_US 200000
#define HOUR_MS 3600000LL
#define TEXT_MAX 256

static const struct {
        uint32_t reason;
        bool releasable;
        const char *advice;
} codes[] = {
        {AD_CLOCK, true, "mend the time synchronisation of the ingest machine, then release it"},
        {AD_STALE_RECEIVE, true,
         "see why ingest held it for so long, then release it; if its window is settled it will be "
         "`late` and is billed by the next reconcile"},
        {AD_FUTURE_EVENT, true,
         "mend the sender's clock; release it once its event_time is at most 5 minutes ahead"},
        {AD_TOO_OLD, true,
         "import it (`adtally import`); or release it where ingest and realtime have an "
         "--accepted-age that lets it pass"},
        {AD_CONFLICT, false,
         "its event_id was seen before with other content, and that copy stands: find out which "
         "sender reuses ids; what the bill should say instead is a correction"},
        {AD_POISON, false,
         "the record cannot be decoded, there is no event to release: see who writes to the topic"},
        {AD_WRONG_PARTITION, false,
         "another writer, or another --partitions, put it there: send the event to POST /events"},
        {AD_INVALID, false, "a field breaks its limits: mend it and send it to POST /events"},
        {AD_PRICE_MISSING, false,
         "its event_id is recorded, so it would be a duplicate: add a line to the price table "
         "(`adtally prices load`), and the next reconcile bills it"},
        {AD_OVERFLOW, false,
         "its event_id is recorded, so it would be a duplicate: amounts of its cell are wrong by "
         "many orders of magnitude; mend the sender, and correct the bill"},
};
#define CODES (sizeof(codes) / sizeof(codes[0]))

static size_t code_of(uint32_t reason)
{
        size_t i = 0;

        while (i < CODES && codes[i].reason != reason)
                i++;
        return i;
}

const char *ad_quarantine_advice(uint32_t reason)
{
        size_t i = code_of(reason);

        return i < CODES ? codes[i].advice : "written by a later version: use that one";
}

bool ad_quarantine_releasable(uint32_t reason)
{
        size_t i = code_of(reason);

        return i < CODES && codes[i].releasable;
}

/* ---- which may go ---- */

struct candidate {
        struct ad_held *h;
        bool passed; /* another copy */
        uint64_t passed_offset;
        uint32_t passed_index;
        const char *code; /* why it is refused; NULL: it is not */
        char text[TEXT_MAX];
        struct df_bytes event; /* encoded, to be sent */
};

struct release {
        const struct ad_release_options *o;
        struct ad_held_list *l;
        struct candidate *list; /* by partition, key, place */
        size_t count;
        struct df_progress progress;
        const struct ad_raw_scan *scan;
        size_t first, end; /* of the partition at hand */
        struct df_http_client *http;
        struct ad_json_parser *parser;
        size_t sent, refused;
};

static void refuse(struct candidate *c, const char *code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
static void refuse(struct candidate *c, const char *code, const char *fmt, ...)
{
        va_list ap;

        if (c->code)
                return;
        c->code = code;
        va_start(ap, fmt);
        (void)vsnprintf(c->text, sizeof(c->text), fmt, ap);
        va_end(ap);
}

static int key_order(struct df_hash128 a, struct df_hash128 b)
{
        if (a.hi != b.hi)
                return a.hi < b.hi ? -1 : 1;
        return a.lo == b.lo ? 0 : a.lo < b.lo ? -1 : 1;
}

static int order(const void *a, const void *b)
{
        const struct ad_held *x = ((const struct candidate *)a)->h;
        const struct ad_held *y = ((const struct candidate *)b)->h;

        if (x->partition != y->partition)
                return x->partition < y->partition ? -1 : 1;
        if (!df_hash128_eq(x->key, y->key))
                return key_order(x->key, y->key);
        if (x->offset != y->offset)
                return x->offset < y->offset ? -1 : 1;
        return x->index == y->index ? 0 : x->index < y->index ? -1 : 1;
}

static int choose(struct release *r, struct df_error *err)
{
        r->list = calloc(r->l->selected + 1, sizeof(*r->list));
        if (!r->list)
                return df_fail(err, DF_ENOMEM, "%zu entries", r->l->selected);
        for (size_t i = 0; i < r->l->count; i++) {
                struct ad_held *h = &r->l->list[i];
                struct candidate *c = &r->list[r->count];

                if (!h->selected)
                        continue;
                c->h = h;
                r->count++;
                if (!ad_quarantine_releasable(h->reason))
                        refuse(c, "not_releasable", "%s", ad_quarantine_advice(h->reason));
                else if (!h->live)
                        refuse(c, "not_live",
                               "it is of %.*s, not of events as it is now: import it again",
                               (int)h->stream.len, (const char *)h->stream.data);
        }
        qsort(r->list, r->count, sizeof(*r->list), order);
        for (size_t i = 1; i < r->count; i++) {
                const struct ad_held *h = r->list[i].h, *before = r->list[i - 1].h;

                if (!r->list[i].code && h->partition == before->partition &&
                    df_hash128_eq(h->key, before->key))
                        refuse(&r->list[i], "duplicate",
                               "its event_id is released with the entry at offset %" PRIu64
                               " index %u",
                               before->offset, before->index);
        }
        return 0;
}

/* ---- copies that passed ---- */

/* Refused by guard too, as far as quarantine still says so. */
static bool is_held(const struct release *r, uint32_t partition, const struct ad_event *ev)
{
        const struct ad_held *h = ad_held_at(r->l, partition, ev->offset, ev->index);

        return h && (ad_quarantine_releasable(h->reason) || h->reason == AD_WRONG_PARTITION ||
                     h->reason == AD_INVALID);
}

static int on_event(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct release *r = arg;
        struct df_hash128 key = ad_event_key(ev->tenant_id, ev->event_id);
        size_t low = r->first, high = r->end;

        (void)err;
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (key_order(r->list[middle].h->key, key) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low == r->end || !df_hash128_eq(r->list[low].h->key, key) ||
            is_held(r, r->list[low].h->partition, ev))
                return 0;
        for (; low < r->end && df_hash128_eq(r->list[low].h->key, key); low++) {
                r->list[low].passed = true;
                r->list[low].passed_offset = ev->offset;
                r->list[low].passed_index = ev->index;
        }
        return 0;
}

static bool looked(void *arg)
{
        struct release *r = arg;

        df_progress_show(&r->progress, r->scan->ret_records);
        return df_process_stopping();
}

static int look_in(struct release *r, struct df_error *err)
{
        uint32_t partition = r->list[r->first].h->partition;
        int64_t back = df_config_integer(r->o->config, "billing-horizon") * HOUR_MS;
        struct ad_raw_scan s = {.log = r->o->source,
                                .topic = AD_TOPIC_EVENTS,
                                .partition = partition,
                                .stop = looked,
                                .fn = on_event,
                                .arg = r};
        int64_t since = INT64_MAX;
        uint64_t held, from = 0, to = 0;
        size_t open = 0;
        int rc;

        for (size_t i = r->first; i < r->end; i++) {
                const struct candidate *c = &r->list[i];

                if (c->code)
                        continue;
                if (c->h->append_ms < since)
                        since = c->h->append_ms;
                s.needle = open++ == 0 ? c->h->event_id : df_bytes(NULL, 0);
        }
        if (open == 0)
                return 0;
        rc = df_log_bounds(r->o->source, AD_TOPIC_EVENTS, partition, &held, &to, err);
        if (rc == 0)
                rc = df_log_offset_at(r->o->source, AD_TOPIC_EVENTS, partition, since - back, &from,
                                      err);
        s.from = from > held ? from : held;
        s.to = to;
        r->scan = &s;
        df_progress_start(&r->progress, "looking for copies", "records",
                          to > s.from ? to - s.from : 0, r->o->quiet);
        if (rc == 0)
                rc = ad_raw_scan(&s, err);
        df_progress_end(&r->progress, s.ret_records);
        return rc;
}

static int look_for_copies(struct release *r, struct df_error *err)
{
        int rc = 0;

        for (r->first = 0; rc == 0 && r->first < r->count; r->first = r->end) {
                uint32_t p = r->list[r->first].h->partition;

                for (r->end = r->first; r->end < r->count && r->list[r->end].h->partition == p;)
                        r->end++;
                rc = look_in(r, err);
        }
        for (size_t i = 0; i < r->count; i++)
                if (r->list[i].passed)
                        refuse(&r->list[i], "duplicate",
                               "a copy of it at offset %" PRIu64
                               " index %u passed, or is on its way: nothing is missing",
                               r->list[i].passed_offset, r->list[i].passed_index);
        return rc;
}

/* ---- to ingest ---- */

/* The same event, with the entry as its source. */
static int encode(struct release *r, struct candidate *c, struct df_error *err)
{
        const struct ad_held *h = c->h;
        char source[AD_ID_MAX];
        struct df_error why = {0};
        struct df_buf b = {0};
        struct df_bytes raw;
        struct ad_event ev;
        int rc = ad_held_bytes(r->o->source, r->l, h, &raw, &why);

        if (rc == DF_ENOENT) {
                refuse(c, "raw_expired", "%s", why.text);
                return 0;
        }
        if (rc < 0)
                return df_fail(err, rc, "%s", why.text);
        if (ad_wire_event_decode(raw, &ev, &why) < 0) {
                refuse(c, "poison", "%s", why.text);
                return 0;
        }
        (void)snprintf(source, sizeof(source), AD_SOURCE_RELEASE "%u/%" PRIu64 "/%u", h->partition,
                       h->offset, h->index);
        ev.source = df_bytes_str(source);
        ad_wire_event(&b, &ev);
        rc = df_buf_check(&b, err);
        if (rc == 0) {
                c->event = df_arena_copy(&r->l->arena, df_buf_bytes(&b));
                if (!c->event.data)
                        rc = df_fail(err, DF_ENOMEM, "%zu events", r->count);
        }
        df_buf_release(&b);
        return rc;
}

static int post(struct release *r, struct df_bytes body, struct df_buf *answer,
                struct df_error *err)
{
        int64_t until = df_monotonic_ms() + RETRY_MS;

        for (;;) {
                bool listed;
                int status = 0, rc;

                df_buf_clear(answer);
                rc = df_http_fetch(r->http, "/v1/quarantine/release", "application/x-protobuf",
                                   body, &status, answer, err);
                df_put_u8(answer, 0);
                listed = !answer->failed && strstr((const char *)answer->data, "\"rejected\":[{");
                if (rc == 0 && (status == 202 || listed)) {
                        answer->len--;
                        return 0;
                }
                if (rc == 0)
                        rc = df_fail(err, status == 503 || status == 429 ? DF_EAGAIN : DF_EEXIST,
                                     "POST /quarantine/release answers %d: %.300s", status,
                                     answer->failed ? "" : (const char *)answer->data);
                if (rc != DF_EAGAIN || df_monotonic_ms() > until || df_process_stopping())
                        return rc;
                (void)usleep(PAUSE_US);
        }
}

/* Copies: what is parsed next takes the parser's memory. */
static void read_rejection(const struct ad_json_node *n, uint32_t e, struct candidate **batch,
                           size_t count)
{
        static const enum ad_reason last = AD_OVERLOADED;
        struct df_bytes code = {0};
        int64_t index = -1;
        unsigned reason = AD_BAD_JSON;

        for (uint32_t m = e + 1; m < n[e].next; m = n[m].next) {
                if (df_bytes_eq(n[m].key, df_bytes_str("index")))
                        index = n[m].i;
                if (df_bytes_eq(n[m].key, df_bytes_str("code")))
                        code = n[m].text;
        }
        if (index < 0 || (size_t)index >= count)
                return;
        while (reason < last && !df_bytes_eq(code, df_bytes_str(ad_reason_info(reason)->code)))
                reason++;
        refuse(batch[index], ad_reason_info(reason)->code, "ingest refuses it: %s",
               ad_reason_info(reason)->text);
}

static int read_answer(struct release *r, struct df_bytes body, struct candidate **batch,
                       size_t count, struct df_error *err)
{
        const struct ad_json_node *n;
        const char *why = "";
        size_t nodes;

        if (ad_json_parse(r->parser, body, &n, &nodes, &why) != AD_JSON_OK || nodes == 0)
                return df_fail(err, DF_EPARSE, "POST /quarantine/release answers no JSON: %s", why);
        for (uint32_t i = 1; i < n[0].next; i = n[i].next)
                if (df_bytes_eq(n[i].key, df_bytes_str("rejected")))
                        for (uint32_t e = i + 1; e < n[i].next; e = n[e].next)
                                read_rejection(n, e, batch, count);
        return 0;
}

static int print_line(const struct candidate *c, bool dry_run, struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        ad_json_open(j);
        ad_json_put_int(j, "partition", c->h->partition);
        ad_json_put_int(j, "offset", c->h->offset);
        ad_json_put_int(j, "index", c->h->index);
        ad_json_put_bytes(j, "tenant_id", c->h->tenant_id);
        ad_json_put_bytes(j, "event_id", c->h->event_id);
        ad_json_put_text(j, "result", c->code ? "refused" : dry_run ? "would_be_sent" : "sent");
        if (c->code) {
                ad_json_put_text(j, "code", c->code);
                ad_json_put_text(j, "message", c->text);
        }
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0 && (fwrite(b.data, 1, b.len, stdout) != b.len || putchar('\n') == EOF))
                rc = df_fail_errno(err, DF_EIO, "write to standard output");
        df_buf_release(&b);
        return rc;
}

static int finish(struct release *r, struct candidate **batch, size_t count, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < count; i++) {
                *(batch[i]->code ? &r->refused : &r->sent) += 1;
                rc = print_line(batch[i], r->o->dry_run, err);
        }
        (void)fflush(stdout); /* what was sent is said, whatever comes */
        return rc;
}

static int send_batch(struct release *r, struct candidate **batch, size_t count,
                      struct df_error *err)
{
        struct df_buf body = {0}, answer = {0};
        int rc = 0;

        for (size_t i = 0; i < count; i++)
                ad_wire_batch_entry(&body, batch[i]->event);
        rc = df_buf_check(&body, err);
        if (rc == 0 && count > 0 && !r->o->dry_run)
                rc = post(r, df_buf_bytes(&body), &answer, err);
        if (rc == 0 && count > 0 && !r->o->dry_run)
                rc = read_answer(r, df_buf_bytes(&answer), batch, count, err);
        if (rc == 0)
                rc = finish(r, batch, count, err);
        df_buf_release(&body);
        df_buf_release(&answer);
        return rc;
}

static int send_all(struct release *r, struct df_error *err)
{
        struct candidate *batch[BATCH];
        size_t n = 0;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < r->count; i++) {
                struct candidate *c = &r->list[i];

                if (!c->code)
                        rc = encode(r, c, err);
                if (rc == 0 && c->code)
                        rc = finish(r, &c, 1, err);
                else if (rc == 0)
                        batch[n++] = c;
                if (rc == 0 && (n == BATCH || i + 1 == r->count)) {
                        rc = send_batch(r, batch, n, err);
                        n = 0;
                }
                if (rc == 0 && df_process_stopping())
                        rc = df_fail(err, DF_EAGAIN, "stopped: the same command goes on");
        }
        return rc;
}

static int connect_to(struct release *r, struct df_error *err)
{
        const struct df_config *c = r->o->config;
        const char *url = df_config_text(c, "url");
        char own[512];

        if (r->o->dry_run)
                return 0;
        (void)snprintf(own, sizeof(own), "http://%s", df_config_text(c, "listen"));
        r->parser = ad_json_create();
        if (!r->parser)
                return df_fail(err, DF_ENOMEM, "JSON parser");
        return df_http_client_create(url ? url : own, df_config_text(c, "key"), TIMEOUT_MS,
                                     &r->http, err);
}

int ad_quarantine_release(const struct ad_release_options *o, struct ad_held_list *l,
                          size_t *ret_refused, struct df_error *err)
{
        struct release r = {.o = o, .l = l};
        int rc = choose(&r, err);

        if (rc == 0)
                rc = look_for_copies(&r, err);
        if (rc == 0)
                rc = connect_to(&r, err);
        if (rc == 0)
                rc = send_all(&r, err);
        if (rc == 0)
                printf("{\"selected\":%zu,\"%s\":%zu,\"refused\":%zu}\n", r.count,
                       o->dry_run ? "would_be_sent" : "sent", r.sent, r.refused);
        *ret_refused = r.refused;
        df_http_client_destroy(r.http);
        ad_json_destroy(r.parser);
        free(r.list);
        return rc;
}
