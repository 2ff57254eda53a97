/* http_job.h - a server with a few routes, and a thread that answers some of the requests later. */
#ifndef ADTALLY_TESTS_HTTP_JOB_H
#define ADTALLY_TESTS_HTTP_JOB_H

#include "http_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

static struct df_error err;

#define LATER_MAX 256

static struct job {
        pthread_mutex_t lock;
        pthread_cond_t wake;
        struct df_http_request *later[LATER_MAX];
        size_t count;
        bool hold; /* the thread answers nothing */
        bool stop;
        atomic_uint_fast64_t handled, admitted;
        pthread_t thread;
} job = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void echo(struct df_http_request *r)
{
        df_http_reply(r, &(struct df_http_reply){
                                 .status = 200, .content_type = "text/plain", .body = r->body});
}

static void *answer_later(void *arg)
{
        pthread_mutex_lock(&job.lock);
        while (!job.stop || job.count > 0) {
                struct df_http_request *r;

                if (job.count == 0 || (job.hold && !job.stop)) {
                        pthread_cond_wait(&job.wake, &job.lock);
                        continue;
                }
                r = job.later[--job.count];
                pthread_mutex_unlock(&job.lock);
                echo(r);
                pthread_mutex_lock(&job.lock);
        }
        pthread_mutex_unlock(&job.lock);
        return NULL;
}

static inline void set_hold(bool hold)
{
        pthread_mutex_lock(&job.lock);
        job.hold = hold;
        pthread_cond_broadcast(&job.wake);
        pthread_mutex_unlock(&job.lock);
}

static inline size_t waiting(void)
{
        size_t n;

        pthread_mutex_lock(&job.lock);
        n = job.count;
        pthread_mutex_unlock(&job.lock);
        return n;
}

static inline void wait_for(size_t count)
{
        int64_t until = now_ms() + WAIT_MS;

        while (waiting() < count && now_ms() < until)
                sleep_ms(1);
        assert_true(waiting() >= count);
}

static inline void wait_answered(void)
{
        int64_t until = now_ms() + WAIT_MS;

        while (waiting() > 0 && now_ms() < until)
                sleep_ms(1);
        assert_int_equal(waiting(), 0);
}

static void handle_echo(void *arg, struct df_http_request *r)
{
        job.handled++;
        echo(r);
}

static void handle_later(void *arg, struct df_http_request *r)
{
        pthread_mutex_lock(&job.lock);
        df_check(job.count < LATER_MAX);
        job.later[job.count++] = r;
        pthread_cond_broadcast(&job.wake);
        pthread_mutex_unlock(&job.lock);
}

/* What the handler sees, as text. */
static void handle_show(void *arg, struct df_http_request *r)
{
        struct df_buf b = {0};
        struct df_bytes x = df_http_header(r, "x-test");

        df_buf_printf(&b, "%d %.*s tail=%.*s peer=%s loopback=%d x=%s%.*s", (int)r->method,
                      (int)r->path.len, (const char *)r->path.data, (int)r->tail.len,
                      (const char *)r->tail.data, r->peer, r->peer_loopback, x.data ? "" : "none",
                      (int)x.len, (const char *)x.data);
        for (size_t i = 0; i < r->param_count; i++)
                df_buf_printf(&b, " %.*s=%.*s", (int)r->params[i].name.len,
                              (const char *)r->params[i].name.data, (int)r->params[i].value.len,
                              (const char *)r->params[i].value.data);
        df_http_reply(r, &(struct df_http_reply){.status = 200,
                                                 .content_type = "text/plain",
                                                 .headers = "X-Extra: 1\r\n",
                                                 .body = df_buf_bytes(&b)});
        df_buf_release(&b);
}

static int admit_key(void *arg, struct df_http_request *r)
{
        job.admitted++;
        df_check(r->body.len == 0);
        if (!df_http_header(r, "authorization").data) {
                df_http_fail(r, 401, "unauthorized", NULL, false, 0, "no key");
                return 1;
        }
        r->user = &job;
        return 0;
}

static void handle_guarded(void *arg, struct df_http_request *r)
{
        df_check(r->user == &job);
        handle_echo(arg, r);
}

static void handle_fail(void *arg, struct df_http_request *r)
{
        df_http_fail(r, 429, "quota", "a\"b", true, 7,
                     "tab\there \"quoted\" \\ \x01 bad:\xff\xc3 \xc3\xa4");
}

static void handle_close(void *arg, struct df_http_request *r)
{
        df_http_reply(r, &(struct df_http_reply){.status = 204, .close = true});
}

static char big[2 << 20];

static void handle_big(void *arg, struct df_http_request *r)
{
        df_http_reply(r, &(struct df_http_reply){.status = 200,
                                                 .content_type = "text/plain",
                                                 .body = df_bytes(big, sizeof(big))});
}

static const struct df_http_route routes[] = {
        {"/echo", DF_HTTP_POST, 1 << 20, NULL, handle_echo},
        {"/later", DF_HTTP_POST | DF_HTTP_GET, 1 << 20, NULL, handle_later},
        {"/show", DF_HTTP_GET | DF_HTTP_HEAD, 0, NULL, handle_show},
        {"/show/*", DF_HTTP_GET | DF_HTTP_POST | DF_HTTP_OPTIONS | DF_HTTP_DELETE, 0, NULL,
         handle_show},
        {"/show/*/more", DF_HTTP_GET, 0, NULL, handle_show},
        {"/show/exact", DF_HTTP_GET, 0, NULL, handle_fail},
        {"/guarded", DF_HTTP_POST | DF_HTTP_GET, 100, admit_key, handle_guarded},
        {"/fail", DF_HTTP_GET, 0, NULL, handle_fail},
        {"/close", DF_HTTP_GET, 0, NULL, handle_close},
        {"/big", DF_HTTP_GET, 0, NULL, handle_big},
};

static inline struct df_http_server *start(struct df_http_options o)
{
        struct df_http_server *s = NULL;

        o.name = "test";
        o.listen_fd = -1;
        o.peer_fd = -1;
        o.address = "127.0.0.1:0";
        o.routes = routes;
        o.route_count = sizeof(routes) / sizeof(routes[0]);
        if (df_http_server_start(&o, &s, &err) != 0)
                fail_msg("%s", err.text);
        assert_true(df_http_server_port(s) != 0);
        return s;
}

static inline void connect_to(struct client *c, struct df_http_server *s)
{
        client_open(c, df_http_server_port(s));
}

/* The value of a line of the metrics. */
static inline uint64_t metric(struct df_http_server *s, const char *line)
{
        struct df_buf b = {0};
        const char *at;
        uint64_t v;

        df_http_server_render(s, &b);
        df_put_u8(&b, 0);
        at = strstr((char *)b.data, line);
        if (!at)
                fail_msg("no %s in %s", line, (char *)b.data);
        v = strtoull(at + strlen(line), NULL, 10);
        df_buf_release(&b);
        return v;
}

static inline void wait_metric(struct df_http_server *s, const char *line, uint64_t want)
{
        int64_t until = now_ms() + WAIT_MS;

        while (metric(s, line) != want && now_ms() < until)
                sleep_ms(1);
        assert_int_equal(metric(s, line), want);
}

#define IN_FLIGHT "adtally_http_in_flight_bytes{name=\"test\"} "
#define CONNECTIONS "adtally_http_connections{name=\"test\"} "

static inline int begin_job(void **state)
{
        memset(big, 'x', sizeof(big));
        return pthread_create(&job.thread, NULL, answer_later, NULL);
}

static inline int end_job(void **state)
{
        pthread_mutex_lock(&job.lock);
        job.stop = true;
        pthread_cond_broadcast(&job.wake);
        pthread_mutex_unlock(&job.lock);
        return pthread_join(job.thread, NULL);
}

#endif
