/* bench_print.c - a result: figures, and what one must know to compare them with others. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "jobs/adtally/bench.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define CPUINFO_MAX (4u << 20)

static void put_cpu(struct ad_json *j)
{
        static const char name[] = "model name";
        struct df_buf b = {0};
        const char *p = NULL;
        size_t len = 0;

        if (df_read_file("/proc/cpuinfo", CPUINFO_MAX, &b, NULL) == 0)
                df_put_u8(&b, 0);
        if (b.len > 0 && !b.failed)
                p = strstr((const char *)b.data, name);
        if (p)
                p = strchr(p, ':');
        if (p) {
                p += 1 + (p[1] == ' ');
                len = strcspn(p, "\n");
        }
        ad_json_put_bytes(j, "cpu", df_bytes(p ? p : "unknown", p ? len : strlen("unknown")));
        df_buf_release(&b);
}

static void put_place(struct ad_json *j, const struct ad_bench *b)
{
        char date[AD_TIME_TEXT_MAX], broker[AD_BENCH_VERSION_MAX];
        struct utsname u;

        (void)ad_time_text(df_wall_ms(), date);
        ad_json_put_text(j, "date", date);
        ad_json_put_text(j, "kernel", uname(&u) == 0 ? u.release : "unknown");
        put_cpu(j);
        ad_json_put_int(j, "cores", sysconf(_SC_NPROCESSORS_ONLN));
        ad_json_put_text(j, "librdkafka", AD_RDKAFKA_VERSION); /* built with */
        ad_json_put_text(j, "rocksdb", AD_ROCKSDB_VERSION);
        if (!ad_bench_on_kafka(b))
                return;
        ad_bench_broker_version(ad_bench_broker(b), broker);
        ad_json_put_text(j, "broker", broker[0] ? broker : "unknown");
}

/* What has to do with the figures: not where things are, nor what is secret. */
static bool matters(const char *name)
{
        static const char *const others[] = {"json", "quiet",     "results",      "work",
                                             "data", "log",       "kafka-prefix", "kafka.*",
                                             "keys", "log-level", "seed"};

        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
                if (strcmp(name, others[i]) == 0)
                        return false;
        return true;
}

static void put_settings(struct ad_json *j, const struct ad_bench *b,
                         const struct df_setting *table, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                const char *name = table[i].name;

                if (matters(name) && !df_config_is_default(b->config, name) &&
                    df_config_value(b->config, name))
                        ad_json_put_text(j, name, df_config_value(b->config, name));
        }
}

static int render(const struct ad_bench *b, const char *name, struct df_buf *out,
                  struct df_error *err)
{
        struct ad_json *j = ad_json_begin(out);

        ad_json_open(j);
        ad_json_put_text(j, "bench", name);
        ad_json_put_text(j, "version", ADTALLY_VERSION);
        ad_json_put_int(j, "seed", (int64_t)b->seed);
        ad_json_put_text(j, "log", ad_bench_on_kafka(b) ? "kafka" : "file");
        put_place(j, b);
        ad_json_key(j, "settings");
        ad_json_open(j);
        put_settings(j, b, b->own, b->own_count);
        put_settings(j, b, ad_settings, ad_setting_count);
        ad_json_close(j);
        for (size_t i = 0; i < b->figure_count; i++) {
                double v = b->figures[i].value;

                ad_json_key(j, b->figures[i].name);
                if (v == (double)(int64_t)v || v > 1000)
                        ad_json_int(j, (int64_t)v);
                else
                        ad_json_double(j, v);
        }
        ad_json_close(j);
        if (ad_json_end(j, out, err) < 0)
                return err->code;
        df_put_u8(out, '\n');
        return df_buf_check(out, err);
}

/* One write: lines of concurrent runs do not mix. */
static int append(const char *path, const struct df_buf *line, struct df_error *err)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644), rc = 0;

        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "--results %s", path);
        if (write(fd, line->data, line->len) != (ssize_t)line->len)
                rc = df_fail_errno(err, DF_EIO, "--results %s", path);
        close(fd);
        return rc;
}

int ad_bench_print(const struct ad_bench *b, const char *name, struct df_error *err)
{
        const char *results = df_config_text(b->config, "results");
        struct df_buf out = {0};
        int rc = render(b, name, &out, err);

        if (rc == 0 && df_config_bool(b->config, "json"))
                printf("%.*s", (int)out.len, (const char *)out.data);
        for (size_t i = 0; rc == 0 && !df_config_bool(b->config, "json") && i < b->figure_count;
             i++)
                printf("%-44s %18.6g\n", b->figures[i].name, b->figures[i].value);
        if (rc == 0 && results)
                rc = append(results, &out, err);
        df_buf_release(&out);
        return rc;
}
