/* bench_send.c - clients of POST /events: threads that send batches at one rate together, or as
 * fast as answers come.
 *
 * The batches are numbered; each thread takes the next number, waits until that batch is due, and
 * sends it until it is accepted, always with the same ids. A body is made once and only its ids,
 * campaigns and ads are written over: the sender's CPU is a part of what the machine has. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/bench.h"

#define BATCH AD_BENCH_BATCH
#define NAP_NS 20000000LL /* the longest sleep: a stop is seen so soon */
#define AGAIN_US 50000
#define GIVE_UP_MS 30000
#define ID_DIGITS 16
#define CAMPAIGN_DIGITS 4

static const char event_text[] =
        "{\"event_id\":\"0000000000000000\",\"type\":\"impression\",\"advertiser_id\":\"acme\","
        "\"campaign_id\":\"c0000\",\"ad_id\":\"a0\",\"country\":\"DE\",\"cost_micros\":1500,"
        "\"currency\":\"EUR\"}";
#define EVENT_BYTES (sizeof(event_text) - 1)

struct sender {
        struct ad_bench_senders *all;
        struct df_http_client *http;
        struct df_buf body;
        pthread_t thread;
        int64_t cpu_ns;
        struct df_error err;
        bool started;
};

struct ad_bench_senders {
        uint64_t first, seed, rate; /* rate 0: no pace */
        int64_t began_ns;
        atomic_uint_fast64_t next, sent, late,
                again; /* sent: events accepted; the others batches */
        atomic_bool stop, failed;
        unsigned count;
        struct sender list[AD_BENCH_SENDERS_MAX];
};

static void write_number(char *at, unsigned digits, uint64_t v, unsigned base)
{
        static const char figures[] = "0123456789abcdef";

        for (unsigned i = digits; i-- > 0; v /= base)
                at[i] = figures[v % base];
}

static void write_batch(const struct ad_bench_senders *s, char *body, uint64_t batch)
{
        const size_t id = (size_t)(strstr(event_text, "0000000000000000") - event_text);
        const size_t campaign = (size_t)(strstr(event_text, "c0000") + 1 - event_text);
        const size_t ad = (size_t)(strstr(event_text, "a0\"") + 1 - event_text);

        for (uint64_t i = 0; i < BATCH; i++) {
                uint64_t n = s->first + batch * BATCH + i;
                char *at = body + 1 + i * (EVENT_BYTES + 1);

                write_number(at + id, ID_DIGITS, n * 0x9e3779b97f4a7c15ULL + s->seed, 16);
                write_number(at + campaign, CAMPAIGN_DIGITS, n % 1000, 10);
                write_number(at + ad, 1, n % 10, 10);
        }
}

static int make_body(struct df_buf *b, struct df_error *err)
{
        for (unsigned i = 0; i < BATCH; i++) {
                df_buf_append(b, i ? "," : "[", 1);
                df_buf_append(b, event_text, EVENT_BYTES);
        }
        df_buf_append(b, "]", 1);
        return df_buf_check(b, err);
}

/* Until it is accepted: 503 and no answer are answered by the same batch again. */
static int post(struct sender *me, struct df_error *err)
{
        struct ad_bench_senders *s = me->all;
        int64_t until = df_monotonic_ms() + GIVE_UP_MS;

        for (;;) {
                struct df_buf answer = {0};
                int status = 0;
                int rc = df_http_fetch(me->http, "/v1/events", "application/json",
                                       df_buf_bytes(&me->body), &status, &answer, err);

                if (rc == 0 && status != 202)
                        rc = df_fail(err, status == 503 ? DF_EAGAIN : DF_EINVAL,
                                     "POST /events answers %d: %.*s", status,
                                     (int)(answer.len < 200 ? answer.len : 200),
                                     (const char *)answer.data);
                df_buf_release(&answer);
                if (rc != DF_EAGAIN || df_monotonic_ms() > until)
                        return rc;
                atomic_fetch_add(&s->again, 1);
                *err = (struct df_error){0}; /* what the next answer cures is no failure */
                (void)usleep(AGAIN_US);
        }
}

/* False: stopped. A batch that is a tenth of a second behind its time is late: the machine cannot
 * hold the rate. */
static bool wait_until_due(struct ad_bench_senders *s, uint64_t batch)
{
        int64_t due = s->began_ns;

        if (s->rate > 0)
                due += (int64_t)((unsigned __int128)batch * BATCH * 1000000000u / s->rate);
        while (!atomic_load(&s->stop)) {
                int64_t left = due - df_monotonic_ns();
                struct timespec nap = {.tv_nsec = left < NAP_NS ? left : NAP_NS};

                if (left <= 0) {
                        if (s->rate > 0 && left < -100000000)
                                atomic_fetch_add(&s->late, 1);
                        return true;
                }
                (void)nanosleep(&nap, NULL);
        }
        return false;
}

static void *send_all(void *arg)
{
        struct sender *me = arg;
        struct ad_bench_senders *s = me->all;
        struct timespec cpu;

        while (!atomic_load(&s->stop)) {
                uint64_t batch = atomic_fetch_add(&s->next, 1);

                if (!wait_until_due(s, batch))
                        break;
                write_batch(s, (char *)me->body.data, batch);
                if (post(me, &me->err) < 0) {
                        atomic_store(&s->failed, true);
                        break;
                }
                atomic_fetch_add(&s->sent, BATCH);
        }
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
        me->cpu_ns = cpu.tv_sec * 1000000000LL + cpu.tv_nsec;
        return NULL;
}

int ad_bench_senders_start(const struct ad_bench_load *load, struct ad_bench_senders **ret,
                           struct df_error *err)
{
        struct ad_bench_senders *s = calloc(1, sizeof(*s));
        int rc = 0;

        *ret = NULL;
        if (!s)
                return df_fail(err, DF_ENOMEM, "senders");
        df_check(load->senders > 0 && load->senders <= AD_BENCH_SENDERS_MAX);
        s->first = load->first;
        s->seed = load->seed;
        s->rate = load->rate;
        s->began_ns = df_monotonic_ns();
        for (; rc == 0 && s->count < load->senders; s->count++) {
                struct sender *me = &s->list[s->count];

                me->all = s;
                rc = make_body(&me->body, err);
                if (rc == 0)
                        rc = df_http_client_create(load->base, NULL, 30000, &me->http, err);
                if (rc == 0 && pthread_create(&me->thread, NULL, send_all, me) != 0)
                        rc = df_fail(err, DF_ENOMEM, "thread of sender %u", s->count);
                me->started = rc == 0;
        }
        *ret = s;
        if (rc < 0) {
                struct ad_bench_sent nothing;

                (void)ad_bench_senders_stop(s, &nothing, NULL);
                *ret = NULL;
        }
        return rc;
}

uint64_t ad_bench_senders_sent(struct ad_bench_senders *s)
{
        return atomic_load(&s->sent);
}

bool ad_bench_senders_failed(struct ad_bench_senders *s)
{
        return atomic_load(&s->failed);
}

int ad_bench_senders_stop(struct ad_bench_senders *s, struct ad_bench_sent *ret,
                          struct df_error *err)
{
        int rc = 0;

        atomic_store(&s->stop, true);
        *ret = (struct ad_bench_sent){0};
        for (unsigned i = 0; i < s->count; i++) {
                struct sender *me = &s->list[i];

                if (me->started)
                        (void)pthread_join(me->thread, NULL);
                if (rc == 0 && me->err.code < 0)
                        rc = df_fail(err, me->err.code, "%s", me->err.text);
                ret->cpu_ns += me->cpu_ns;
                df_http_client_destroy(me->http);
                df_buf_release(&me->body);
        }
        ret->events = atomic_load(&s->sent);
        ret->late_batches = atomic_load(&s->late);
        ret->repeated_batches = atomic_load(&s->again);
        ret->numbers = atomic_load(&s->next) * BATCH;
        free(s);
        return rc;
}
