/* generate_send.c - batches of the plan to a server or a file; the truth learns what was taken.
 *
 * Threads take batch numbers in order. A batch is posted until it is answered; only then its events
 * count. Waiting never locks up: a batch waits for earlier ones alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/net.h"
#include "df/run.h"
#include "jobs/adtally/generate.h"
#include "jobs/ingest/json.h"

#define RING 1024      /* batches that are remembered */
#define RING_AHEAD 512 /* how far a batch may be ahead of the oldest one without an answer */
#define BACKOFF_MIN_MS 20
#define BACKOFF_MAX_MS 1000
#define POST_TIMEOUT_MS 30000
#define MINUTE_MS 60000

struct sender {
        const struct ad_gen_plan *plan;
        const struct ad_gen_options *o;
        struct ad_gen_truth *truth;
        struct ad_gen_result *result;
        const char *url, *key;
        int64_t retry_for_ms, started_ms; /* monotonic */
        struct df_progress progress;
        pthread_mutex_t lock; /* of everything below, the truth and the result */
        pthread_cond_t answered;
        uint64_t batches, next, done; /* all; to be taken; answered without a hole */
        bool acked[RING];
        int64_t base_ms[RING]; /* when the batch was sent, for event times */
        struct df_error error; /* the first one; stops all */
};

static int64_t ring_base(void *arg, uint64_t batch)
{
        struct sender *s = arg;
        int64_t ms;

        pthread_mutex_lock(&s->lock);
        ms = s->base_ms[batch % RING];
        pthread_mutex_unlock(&s->lock);
        return ms;
}

static bool stopping(const struct sender *s)
{
        return s->error.code != 0 || df_process_stopping();
}

/* The next batch and the time its events carry; false: nothing left. Sleeps to keep the rate. */
static bool take(struct sender *s, uint64_t *ret_batch)
{
        int64_t now = df_wall_ms(), due = now;
        bool more;

        pthread_mutex_lock(&s->lock);
        while (!stopping(s) && s->next < s->batches && s->next - s->done >= RING_AHEAD)
                pthread_cond_wait(&s->answered, &s->lock);
        more = !stopping(s) && s->next < s->batches;
        if (more) {
                *ret_batch = s->next++;
                now = df_wall_ms();
                if (s->o->rate > 0)
                        due = s->o->began_ms +
                              (int64_t)((double)*ret_batch * s->o->batch * 1000 / s->o->rate);
                s->base_ms[*ret_batch % RING] = due > now ? due : now;
                s->acked[*ret_batch % RING] = false;
        }
        pthread_mutex_unlock(&s->lock);
        while (more && (now = df_wall_ms()) < due && !df_process_stopping())
                (void)usleep((useconds_t)(due - now < 50 ? due - now : 50) * 1000);
        return more;
}

/* Build the batch's body; *ret_count items. A conflict needs its original's batch answered. */
static uint64_t build(struct sender *s, uint64_t batch, struct ad_gen_item *items,
                      struct df_buf *body)
{
        uint64_t first = batch * s->o->batch, count = s->o->events - first, needs = 0;

        if (count > s->o->batch)
                count = s->o->batch;
        df_buf_clear(body);
        for (uint64_t i = 0; i < count; i++) {
                ad_gen_item(s->plan, first + i, ring_base, s, &items[i]);
                ad_gen_line(s->plan, &items[i], body);
                if (items[i].kind == AD_GEN_CONFLICT && items[i].origin < first &&
                    items[i].origin / s->o->batch + 1 > needs)
                        needs = items[i].origin / s->o->batch + 1;
        }
        pthread_mutex_lock(&s->lock);
        while (needs > 0 && s->done < needs && s->error.code == 0)
                pthread_cond_wait(&s->answered, &s->lock);
        pthread_mutex_unlock(&s->lock);
        return count;
}

/* ---- the answer ---- */

static void surprise(struct sender *s, uint64_t index, const char *expected, const char *got)
{
        pthread_mutex_lock(&s->lock);
        if (s->result->surprises++ == 0)
                (void)snprintf(s->result->surprise, sizeof(s->result->surprise),
                               "event %" PRIu64 ": expected %s, the server says %s", index,
                               expected, got);
        pthread_mutex_unlock(&s->lock);
}

/* Marks what the answer rejects: codes[i], or AD_NONE. False: not an answer of POST /events. */
static bool read_answer(struct ad_json_parser *parser, struct df_bytes body, uint64_t count,
                        uint8_t *codes)
{
        const struct ad_json_node *n;
        const char *why;
        size_t nodes;
        bool seen = false;

        memset(codes, 0, count);
        if (ad_json_parse(parser, body, &n, &nodes, &why) != AD_JSON_OK || nodes == 0 ||
            n[0].kind != AD_JSON_OBJECT)
                return false;
        for (uint32_t i = 1; i < n[0].next; i = n[i].next) {
                if (!df_bytes_eq(n[i].key, df_bytes_str("rejected")))
                        continue;
                seen = n[i].kind == AD_JSON_ARRAY;
                for (uint32_t e = i + 1; seen && e < n[i].next; e = n[e].next) {
                        uint64_t index = UINT64_MAX;
                        char code[40] = "";

                        for (uint32_t m = e + 1; m < n[e].next; m = n[m].next) {
                                if (df_bytes_eq(n[m].key, df_bytes_str("index")))
                                        index = (uint64_t)n[m].i;
                                if (df_bytes_eq(n[m].key, df_bytes_str("code")))
                                        (void)snprintf(code, sizeof(code), "%.*s",
                                                       (int)n[m].text.len,
                                                       (const char *)n[m].text.data);
                        }
                        if (index < count)
                                codes[index] = (uint8_t)ad_reason_by_code(code);
                }
        }
        return seen;
}

static void compare_answer(struct sender *s, const struct ad_gen_item *items, uint64_t count,
                           const uint8_t *codes)
{
        for (uint64_t i = 0; i < count; i++)
                if (codes[i] != items[i].rejected)
                        surprise(s, items[i].index,
                                 items[i].rejected ? ad_reason_info(items[i].rejected)->code
                                                   : "accepted",
                                 codes[i] ? ad_reason_info(codes[i])->code : "accepted");
}

/* Whether nothing the server could know of time makes it late (generate.h). */
static bool surely_on_time(const struct ad_gen_options *o, const struct ad_gen_item *it,
                           int64_t now)
{
        if (it->kind != AD_GEN_PLAIN && it->kind != AD_GEN_OUT_OF_ORDER)
                return true;
        return now - o->out_of_orderness_ms <
               (it->event_ms / MINUTE_MS + 1) * MINUTE_MS + o->grace_ms;
}

static void note_answered(struct sender *s, uint64_t batch, const struct ad_gen_item *items,
                          uint64_t count)
{
        int64_t now = df_wall_ms();

        pthread_mutex_lock(&s->lock);
        for (uint64_t i = 0; i < count && s->error.code == 0; i++) {
                s->result->unsure += !surely_on_time(s->o, &items[i], now);
                (void)ad_gen_truth_add(s->truth, &items[i], &s->error);
        }
        s->result->batches++;
        s->acked[batch % RING] = true;
        while (s->done < s->next && s->acked[s->done % RING]) {
                s->acked[s->done % RING] = false;
                s->done++;
        }
        df_progress_show(&s->progress, ad_gen_truth_sums(s->truth)->events);
        pthread_cond_broadcast(&s->answered);
        pthread_mutex_unlock(&s->lock);
}

static void stop_with(struct sender *s, const struct df_error *err)
{
        pthread_mutex_lock(&s->lock);
        if (s->error.code == 0)
                s->error = *err;
        pthread_cond_broadcast(&s->answered);
        pthread_mutex_unlock(&s->lock);
}

/* ---- posting ---- */

/* Whether the server may or may not have taken what it was sent. */
static bool retryable(int rc, int status)
{
        return rc == DF_EAGAIN || status == 503 || status == 429 || status == 502 || status == 504;
}

static void note_retry(struct sender *s, int rc, int status, uint64_t count)
{
        pthread_mutex_lock(&s->lock);
        s->result->retries++;
        if (rc < 0 || status != 429) /* a 429 was surely not stored */
                s->result->resent += count;
        pthread_mutex_unlock(&s->lock);
}

/* Post until answered. 0: *answer is that of POST /events. */
static int post(struct sender *s, struct df_http_client *http, struct df_bytes body, uint64_t count,
                struct df_buf *answer, struct df_error *err)
{
        int64_t began = df_monotonic_ms(), backoff = BACKOFF_MIN_MS;

        for (;;) {
                uint64_t repeats = df_http_client_repeats(http);
                int status = 0, rc;

                df_buf_clear(answer);
                rc = df_http_fetch(http, "/v1/events", "application/x-ndjson", body, &status,
                                   answer, err);
                pthread_mutex_lock(&s->lock);
                s->result->requests++;
                s->result->resent += df_http_client_repeats(http) > repeats ? count : 0;
                pthread_mutex_unlock(&s->lock);
                if (rc < 0 && rc != DF_EAGAIN)
                        return rc;
                if (!retryable(rc, status)) {
                        if (status == 202 || status == 422 || status == 400 || status == 403)
                                return 0;
                        return df_fail(err, DF_EINVAL, "POST /events answers %d: %.*s", status,
                                       (int)(answer->len < 300 ? answer->len : 300),
                                       (const char *)answer->data);
                }
                if (rc == 0)
                        (void)df_fail(err, DF_EAGAIN, "POST /events answers %d", status);
                if (df_monotonic_ms() - began > s->retry_for_ms)
                        return df_wrap(err, "no success for %" PRId64 " s (--retry-for)",
                                       s->retry_for_ms / 1000);
                note_retry(s, rc, status, count);
                (void)usleep((useconds_t)backoff * 1000);
                backoff = backoff * 2 < BACKOFF_MAX_MS ? backoff * 2 : BACKOFF_MAX_MS;
        }
}

struct bench { /* what one thread works with */
        struct df_http_client *http;
        struct ad_json_parser *parser;
        struct ad_gen_item *items;
        uint8_t *codes;
        struct df_buf body, answer;
};

static int send_batch(struct sender *s, struct bench *w, uint64_t batch, struct df_error *err)
{
        uint64_t count = build(s, batch, w->items, &w->body);
        int rc = df_buf_check(&w->body, err);

        if (rc == 0 && s->error.code)
                return s->error.code;
        if (rc == 0)
                rc = post(s, w->http, df_buf_bytes(&w->body), count, &w->answer, err);
        if (rc < 0)
                return rc;
        if (!read_answer(w->parser, df_buf_bytes(&w->answer), count, w->codes))
                return df_fail(err, DF_EINVAL, "POST /events refuses the batch: %.*s",
                               (int)(w->answer.len < 300 ? w->answer.len : 300),
                               (const char *)w->answer.data);
        compare_answer(s, w->items, count, w->codes);
        note_answered(s, batch, w->items, count);
        return 0;
}

static void *run_thread(void *arg)
{
        struct sender *s = arg;
        struct df_error err = {0};
        struct bench w = {
                .parser = ad_json_create(),
                .items = calloc(s->o->batch, sizeof(*w.items)),
                .codes = calloc(s->o->batch, 1),
        };
        uint64_t batch;
        int rc = w.parser && w.items && w.codes ? 0 : df_fail(&err, DF_ENOMEM, "a sender");

        if (rc == 0)
                rc = df_http_client_create(s->url, s->key, POST_TIMEOUT_MS, &w.http, &err);
        while (rc == 0 && take(s, &batch))
                rc = send_batch(s, &w, batch, &err);
        if (rc < 0)
                stop_with(s, &err);
        df_http_client_destroy(w.http);
        ad_json_destroy(w.parser);
        free(w.items);
        free(w.codes);
        df_buf_release(&w.body);
        df_buf_release(&w.answer);
        return NULL;
}

int ad_gen_send(const struct ad_gen_plan *p, struct ad_gen_truth *t, const char *url,
                const char *key, int64_t retry_for_ms, bool quiet, struct ad_gen_result *ret,
                struct df_error *err)
{
        const struct ad_gen_options *o = ad_gen_plan_options(p);
        struct sender *s = calloc(1, sizeof(*s));
        pthread_t threads[AD_GEN_CONNECTIONS_MAX];
        uint32_t running = 0;
        int64_t began = df_monotonic_ms();
        int rc;

        if (!s)
                return df_fail(err, DF_ENOMEM, "senders");
        s->plan = p;
        s->o = o;
        s->truth = t;
        s->result = ret;
        s->url = url;
        s->key = key;
        s->retry_for_ms = retry_for_ms;
        s->batches = (o->events + o->batch - 1) / o->batch;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->answered, NULL);
        df_progress_start(&s->progress, "generate", "events", o->events, quiet);
        for (; running < o->connections; running++)
                if (pthread_create(&threads[running], NULL, run_thread, s) != 0)
                        break;
        if (running == 0)
                (void)df_fail(&s->error, DF_ENOMEM, "no thread can be started");
        for (uint32_t i = 0; i < running; i++)
                (void)pthread_join(threads[i], NULL);
        df_progress_end(&s->progress, ad_gen_truth_sums(t)->events);
        ret->elapsed_ms = df_monotonic_ms() - began;
        rc = s->error.code;
        if (rc < 0)
                *err = s->error;
        pthread_cond_destroy(&s->answered);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return rc;
}

/* ---- to a file ---- */

static int64_t file_base(void *arg, uint64_t batch)
{
        (void)batch;
        return ((const struct ad_gen_options *)arg)->began_ms;
}

static int write_lines(const struct ad_gen_plan *p, struct ad_gen_truth *t, FILE *f,
                       struct df_progress *progress, struct df_error *err)
{
        struct ad_gen_options o = *ad_gen_plan_options(p);
        struct df_buf b = {0};
        int rc = 0;

        for (uint64_t i = 0; rc == 0 && i < o.events && !df_process_stopping(); i++) {
                struct ad_gen_item item;

                ad_gen_item(p, i, file_base, &o, &item);
                ad_gen_line(p, &item, &b);
                rc = ad_gen_truth_add(t, &item, err);
                if (rc == 0 && (b.len > 1 << 16 || i + 1 == o.events)) {
                        rc = df_buf_check(&b, err);
                        if (rc == 0 && fwrite(b.data, 1, b.len, f) != b.len)
                                rc = df_fail_errno(err, DF_EIO, "write events");
                        df_buf_clear(&b);
                        df_progress_show(progress, i);
                }
        }
        if (rc == 0 && b.len > 0 && fwrite(b.data, 1, b.len, f) != b.len)
                rc = df_fail_errno(err, DF_EIO, "write events");
        df_buf_release(&b);
        return rc;
}

int ad_gen_write(const struct ad_gen_plan *p, struct ad_gen_truth *t, const char *path, bool quiet,
                 struct ad_gen_result *ret, struct df_error *err)
{
        bool to_stdout = strcmp(path, "-") == 0;
        FILE *f = to_stdout ? stdout : fopen(path, "we");
        struct df_progress progress;
        int64_t began = df_monotonic_ms();
        int rc;

        if (!f)
                return df_fail_errno(err, DF_EIO, "create %s", path);
        df_progress_start(&progress, "generate", "events", ad_gen_plan_options(p)->events, quiet);
        rc = write_lines(p, t, f, &progress, err);
        if (fflush(f) != 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        if (!to_stdout && fclose(f) != 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        df_progress_end(&progress, ad_gen_truth_sums(t)->events);
        ret->elapsed_ms = df_monotonic_ms() - began;
        return rc;
}
