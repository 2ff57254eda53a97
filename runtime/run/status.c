#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "df/run.h"
#include "df/trace.h"

#define PERIOD_MS 1000

struct df_status {
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
        char job[32];
        char path[PATH_MAX];
        int64_t started_ms;
        void (*render)(void *arg, struct df_buf *b);
        void *arg;
};

static void write_once(struct df_status *s)
{
        struct df_buf b = {0};
        struct df_error err = {0};

        df_buf_printf(&b, "# adtally %s pid=%d started_ms=%lld written_ms=%lld\n", s->job,
                      (int)getpid(), (long long)s->started_ms, (long long)df_wall_ms());
        df_metric(&b, "adtally_process_resident_bytes", "", (double)df_rss_bytes());
        df_metric(&b, "adtally_process_cpu_seconds_total", "", (double)df_cpu_ns() / 1e9);
        s->render(s->arg, &b);
        if (df_buf_check(&b, &err) == 0 &&
            df_write_file(s->path, df_buf_bytes(&b), false, &err) < 0)
                df_trace(DF_WARN, "status", "%s", err.text);
        df_buf_release(&b);
}

static void *status_main(void *arg)
{
        struct df_status *s = arg;
        bool stop = false;

        while (!stop) {
                struct timespec until;
                int64_t at;

                write_once(s);
                at = df_monotonic_ms() + PERIOD_MS;
                until = (struct timespec){at / 1000, at % 1000 * 1000000};
                pthread_mutex_lock(&s->lock);
                if (!s->stop)
                        (void)pthread_cond_timedwait(&s->wake, &s->lock, &until);
                stop = s->stop;
                pthread_mutex_unlock(&s->lock);
        }
        write_once(s);
        return NULL;
}

int df_status_start(const char *data_dir, const char *job,
                    void (*render)(void *arg, struct df_buf *b), void *arg, struct df_status **ret,
                    struct df_error *err)
{
        struct df_status *s = calloc(1, sizeof(*s));
        pthread_condattr_t attr;
        char dir[PATH_MAX];
        int rc;

        if (!s)
                return df_fail(err, DF_ENOMEM, "status");
        s->render = render;
        s->arg = arg;
        s->started_ms = df_wall_ms();
        (void)snprintf(s->job, sizeof(s->job), "%s", job);
        if (snprintf(dir, sizeof(dir), "%s/run", data_dir) >= (int)sizeof(dir) ||
            snprintf(s->path, sizeof(s->path), "%s/run/%s.prom", data_dir, job) >=
                    (int)sizeof(s->path))
                rc = df_fail(err, DF_EINVAL, "path %s is too long", data_dir);
        else
                rc = df_mkdirs(dir, err);
        if (rc == 0) {
                pthread_mutex_init(&s->lock, NULL);
                pthread_condattr_init(&attr);
                pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* the wall may be set back */
                pthread_cond_init(&s->wake, &attr);
                pthread_condattr_destroy(&attr);
                if (pthread_create(&s->thread, NULL, status_main, s) != 0)
                        rc = df_fail(err, DF_EAGAIN, "status thread");
        }
        if (rc < 0) {
                free(s);
                return rc;
        }
        *ret = s;
        return 0;
}

void df_status_stop(struct df_status *s)
{
        if (!s)
                return;
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        (void)pthread_join(s->thread, NULL);
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->wake);
        free(s);
}

void df_metric(struct df_buf *b, const char *name, const char *labels, double value)
{
        df_buf_printf(b, "%s%s%s%s ", name, *labels ? "{" : "", labels, *labels ? "}" : "");
        if (value == floor(value) && fabs(value) < 1e15)
                df_buf_printf(b, "%.0f\n", value);
        else
                df_buf_printf(b, "%.9g\n", value);
}
