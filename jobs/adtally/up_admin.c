/* up_admin.c - the admin endpoint of `adtally up`: Prometheus metrics, health, readiness.
 *
 * It serves what the jobs write about themselves each second (DATA/run/<job>.prom; of several
 * realtime processes each its own, with a label `instance`), so a job that
 * hangs shows as stale, and adds what only the supervisor knows: restarts, disk, bytes by holder.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "jobs/adtally/up.h"
#include "jobs/common/json.h"

#define STARTS_OK_AFTER_MS 5000

static void metric_up(const struct ad_up *up, const struct ad_samples *s, struct df_buf *b)
{
        int64_t now = df_wall_ms();
        char l[128];

        df_buf_printf(b, "# TYPE adtally_job_up gauge\n");
        for (size_t i = 0; ad_job_names[i]; i++) {
                if (s->several && strcmp(ad_job_names[i], "realtime") == 0)
                        continue;
                if (ad_job_is_optional(ad_job_names[i]) &&
                    !ad_job_missing(s, ad_job_names[i], now) &&
                    !ad_job_any_alive(s, ad_job_names[i], now))
                        continue;
                (void)snprintf(l, sizeof(l), "job=\"%s\"", ad_job_names[i]);
                df_metric(b, "adtally_job_up", l, ad_job_any_alive(s, ad_job_names[i], now));
        }
        for (size_t i = 0; s->several && i < s->job_count; i++) {
                if (!*s->jobs[i].instance)
                        continue;
                (void)snprintf(l, sizeof(l), "job=\"%s\",instance=\"%s\"", s->jobs[i].job,
                               s->jobs[i].instance);
                df_metric(b, "adtally_job_up", l, ad_job_alive(&s->jobs[i], now));
        }
        df_buf_printf(b, "# TYPE adtally_job_starts_total counter\n");
        for (size_t i = 0; i < up->child_count; i++) {
                const char *instance = s->several ? up->instances[i] : NULL;

                (void)snprintf(l, sizeof(l), "job=\"%s\"%s%s%s",
                               up->instances[i] ? "realtime" : up->children[i].name,
                               instance ? ",instance=\"" : "", instance ? instance : "",
                               instance ? "\"" : "");
                df_metric(b, "adtally_job_starts_total", l, (double)up->children[i].starts);
        }
}

static int metric_held(void *arg, const char *topic, const char *holder, uint64_t bytes)
{
        char l[256];

        (void)snprintf(l, sizeof(l), "topic=\"%s\",holder=\"%s\"", topic, holder);
        df_metric(arg, "adtally_log_bytes", l, (double)bytes);
        return 0;
}

static void metric_disk(const struct ad_up *up, struct df_buf *b)
{
        struct statvfs v;

        if (statvfs(df_config_text(up->config, "data"), &v) == 0) {
                df_buf_printf(b, "# TYPE adtally_disk_free_bytes gauge\n");
                df_metric(b, "adtally_disk_free_bytes", "",
                          (double)v.f_bavail * (double)v.f_frsize);
                df_buf_printf(b, "# TYPE adtally_disk_size_bytes gauge\n");
                df_metric(b, "adtally_disk_size_bytes", "",
                          (double)v.f_blocks * (double)v.f_frsize);
        }
        if (df_kafka_is(up->log))
                return;
        df_buf_printf(b, "# TYPE adtally_log_bytes gauge\n");
        (void)df_filelog_usage(up->log, metric_held, b, NULL); /* topics may not exist yet */
}

static void handle_metrics(void *arg, struct df_http_request *r)
{
        struct ad_up *up = arg;
        struct ad_samples s;
        struct df_buf b = {0};
        struct df_error err = {0};
        int rc = ad_samples_read(df_config_text(up->config, "data"), &s, &err);

        if (rc == 0) {
                ad_samples_render(&s, &b);
                metric_up(up, &s, &b);
                metric_disk(up, &b);
                ad_samples_release(&s);
                rc = df_buf_check(&b, &err);
        }
        if (rc < 0)
                df_http_fail(r, 503, df_err_code(rc), NULL, true, 1, "%s", err.text);
        else
                df_http_reply(r, &(struct df_http_reply){
                                         .status = 200,
                                         .content_type = "text/plain; version=0.0.4; charset=utf-8",
                                         .body = df_buf_bytes(&b)});
        df_buf_release(&b);
}

static void handle_health(void *arg, struct df_http_request *r)
{
        (void)arg;
        df_http_reply(r, &(struct df_http_reply){.status = 200,
                                                 .content_type = "text/plain",
                                                 .body = df_bytes_str("ok\n")});
}

static void check_jobs(const struct ad_samples *s, struct df_buf *why)
{
        int64_t now = df_wall_ms();

        for (size_t i = 0; ad_job_names[i]; i++)
                if (ad_job_missing(s, ad_job_names[i], now))
                        df_buf_printf(why, "job %s does not run or does not report\n",
                                      ad_job_names[i]);
}

static void check_samples(const struct ad_samples *s, struct df_buf *why)
{
        size_t running = 0;

        for (size_t i = 0; i < s->count; i++) {
                const struct ad_sample *m = &s->list[i];

                if (strcmp(m->name, "adtally_partition_refused") == 0) {
                        if (ad_sample_counts(s, m))
                                df_buf_printf(why, "partition refused: %s\n", m->labels);
                } else if (strcmp(m->name, "adtally_view_missing_partition") == 0 && s->several)
                        df_buf_printf(why, "no realtime process runs: %s\n", m->labels);
                else if (strcmp(m->name, "adtally_ledger_imbalance") == 0 && m->value != 0)
                        df_buf_printf(why, "ledger imbalance: %s: %.0f\n", m->labels, m->value);
                else if (strcmp(m->name, "adtally_ingest_ledger_imbalance") == 0 && m->value != 0)
                        df_buf_printf(why, "edge ledger imbalance: %.0f\n", m->value);
                else if (strcmp(m->name, "adtally_view_partition_failed") == 0 && m->value != 0)
                        df_buf_printf(why, "the view cannot read a partition: %s\n", m->labels);
                else if (strcmp(m->name, "adtally_ingest_ready") == 0 && m->value == 0)
                        df_buf_printf(why, "ingest refuses events (clock or disk)\n");
                else if (strcmp(m->name, "adtally_view_ready") == 0 && m->value == 0)
                        df_buf_printf(why, "the view is being built\n");
                else if (strcmp(m->name, "adtally_billing_failed") == 0 && m->value != 0)
                        df_buf_printf(why, "the bill cannot be read (log lines of api, books)\n");
                else if (strcmp(m->name, "adtally_billing_ready") == 0 && m->value == 0)
                        df_buf_printf(why, "the view of the bill is being built\n");
                else if (strcmp(m->name, "adtally_archive_refused") == 0 && m->value != 0)
                        df_buf_printf(why, "a partition is not archived: %s\n", m->labels);
                else if (strcmp(m->name, "adtally_archive_lag_seconds") == 0 &&
                         ad_archive_lag_share(s, m) > AD_ARCHIVE_LAG_FAILS)
                        df_buf_printf(why, "the archive is %.0f s behind (A3): %s\n", m->value,
                                      m->labels);
                else if (strcmp(m->name, "adtally_task_running") == 0 &&
                         strcmp(m->job, "realtime") == 0)
                        running += m->value != 0;
        }
        if (running == 0)
                df_buf_printf(why, "no partition is being processed yet\n");
}

int ad_up_not_ready(const struct ad_up *up, struct df_buf *ret, struct df_error *err)
{
        struct ad_samples s;
        int rc = ad_samples_read(df_config_text(up->config, "data"), &s, err);

        if (rc < 0)
                return rc;
        check_jobs(&s, ret);
        check_samples(&s, ret);
        ad_samples_release(&s);
        return df_buf_check(ret, err);
}

static void handle_ready(void *arg, struct df_http_request *r)
{
        struct df_buf why = {0};
        struct df_error err = {0};
        int rc = ad_up_not_ready(arg, &why, &err);
        bool ready = rc == 0 && why.len == 0;

        if (rc < 0)
                df_buf_printf(&why, "%s\n", err.text);
        df_http_reply(r, &(struct df_http_reply){.status = ready ? 200 : 503,
                                                 .content_type = "text/plain; charset=utf-8",
                                                 .headers = ready ? NULL : "Retry-After: 1\r\n",
                                                 .body = ready ? df_bytes_str("ready\n")
                                                               : df_buf_bytes(&why)});
        df_buf_release(&why);
}

static const struct df_http_route routes[] = {
        {"/metrics", DF_HTTP_GET | DF_HTTP_HEAD, 0, NULL, handle_metrics},
        {"/healthz", DF_HTTP_GET | DF_HTTP_HEAD, 0, NULL, handle_health},
        {"/readyz", DF_HTTP_GET | DF_HTTP_HEAD, 0, NULL, handle_ready},
};

int ad_up_admin_start(struct ad_up *up, struct df_error *err)
{
        struct df_http_options o = {
                .name = "admin",
                .listen_fd = -1,
                .address = df_config_text(up->config, "admin"),
                .peer_fd = -1,
                .routes = routes,
                .route_count = sizeof(routes) / sizeof(routes[0]),
                .arg = up,
                .connections_max = 256,
        };

        return df_http_server_start(&o, &up->admin, err);
}
