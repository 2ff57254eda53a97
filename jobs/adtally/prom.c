/* prom.c - the status files of the jobs, read back. */
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/adtally/command.h"

#define FILE_MAX (8u << 20)

const char *const ad_job_names[] = {"ingest", "realtime", "api", "archive", "reconcile", NULL};

static int add_sample(struct ad_samples *s, const struct ad_sample *sample, struct df_error *err)
{
        if (s->count == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 256;
                struct ad_sample *list = realloc(s->list, cap * sizeof(*list));

                if (!list)
                        return df_fail(err, DF_ENOMEM, "metrics");
                s->list = list;
                s->cap = cap;
        }
        s->list[s->count++] = *sample;
        return 0;
}

/* "name{labels} value", split in place. False: not a sample. */
static bool parse_line(char *line, const char *job, struct ad_sample *ret)
{
        char *space = strrchr(line, ' '), *brace = strchr(line, '{');

        if (!space || !isalpha((unsigned char)*line))
                return false;
        *space = '\0';
        *ret = (struct ad_sample){.job = job, .instance = "", .name = line, .labels = ""};
        ret->value = strtod(space + 1, NULL);
        if (brace && space > brace && space[-1] == '}') {
                *brace = '\0';
                space[-1] = '\0';
                ret->labels = brace + 1;
        }
        return true;
}

/* Which files there are: of realtime, one an instance. */
static int list_files(const char *data_dir, struct ad_samples *s, struct df_error *err)
{
        struct ad_instances all;
        int rc = ad_instances_list(data_dir, &all, err);

        for (size_t i = 0; rc == 0 && ad_job_names[i]; i++) {
                bool realtime = strcmp(ad_job_names[i], "realtime") == 0;

                for (size_t n = 0; n < (realtime ? all.count : 1); n++) {
                        struct ad_job_file *f = &s->jobs[s->job_count++];

                        *f = (struct ad_job_file){.job = ad_job_names[i]};
                        if (realtime)
                                memcpy(f->instance, all.names[n], sizeof(f->instance));
                }
        }
        s->several = rc == 0 && all.count > 1;
        return rc;
}

static int read_file(const char *data_dir, const struct ad_job_file *f, struct df_buf *text,
                     struct df_error *err)
{
        char path[PATH_MAX];
        int rc = 0;

        if (*f->instance)
                rc = ad_instance_file(data_dir, f->instance, path, err);
        else
                (void)snprintf(path, sizeof(path), "%s/run/%s.prom", data_dir, f->job);
        if (rc == 0)
                rc = df_read_file(path, text->len + FILE_MAX, text, err);
        df_put_u8(text, 0);
        return rc == DF_ENOENT ? 0 : rc; /* empty: it is no status file then */
}

static int parse_file(struct ad_samples *s, const struct ad_job_file *f, char *text,
                      struct df_error *err)
{
        char *save = NULL;

        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                struct ad_sample sample;
                int rc = 0;

                if (parse_line(line, f->job, &sample)) {
                        sample.instance = s->several ? f->instance : "";
                        rc = add_sample(s, &sample, err);
                }
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* What a process that is gone said last counts only while no other one of its job lives. */
static bool counts(const struct ad_samples *s, const struct ad_job_file *f, int64_t now_ms)
{
        return !s->several || !*f->instance || ad_job_alive(f, now_ms) ||
               !ad_job_any_alive(s, f->job, now_ms);
}

static int parse_all(struct ad_samples *s, size_t starts[AD_JOBS_MAX], struct df_error *err)
{
        int64_t now = df_wall_ms();
        size_t kept = 0;
        int rc = 0;

        for (size_t i = 0; i < s->job_count; i++) {
                struct ad_job_file f = s->jobs[i];

                if (!ad_job_stamp_read((const char *)s->text.data + starts[i], &f.stamp))
                        continue;
                starts[kept] = starts[i];
                s->jobs[kept++] = f;
        }
        s->job_count = kept;
        for (size_t i = 0; rc == 0 && i < s->job_count; i++)
                if (counts(s, &s->jobs[i], now))
                        rc = parse_file(s, &s->jobs[i], (char *)s->text.data + starts[i], err);
        return rc;
}

/* All files into one buffer first: samples point into it, so it must not move afterwards. */
int ad_samples_read(const char *data_dir, struct ad_samples *ret, struct df_error *err)
{
        size_t starts[AD_JOBS_MAX] = {0};
        int rc;

        memset(ret, 0, sizeof(*ret));
        rc = list_files(data_dir, ret, err);
        for (size_t i = 0; rc == 0 && i < ret->job_count; i++) {
                starts[i] = ret->text.len;
                rc = read_file(data_dir, &ret->jobs[i], &ret->text, err);
        }
        if (rc == 0)
                rc = df_buf_check(&ret->text, err);
        if (rc == 0)
                rc = parse_all(ret, starts, err);
        if (rc < 0)
                ad_samples_release(ret);
        return rc;
}

void ad_samples_release(struct ad_samples *s)
{
        df_buf_release(&s->text);
        free(s->list);
        memset(s, 0, sizeof(*s));
}

bool ad_sample_label(const struct ad_sample *s, const char *label, char *ret, size_t size)
{
        size_t len = strlen(label);

        for (const char *p = s->labels; p && *p;) {
                const char *value = strchr(p, '"'), *end = value ? strchr(value + 1, '"') : NULL;

                if (!end)
                        return false;
                if ((size_t)(value - p) == len + 1 && strncmp(p, label, len) == 0) {
                        if ((size_t)(end - value) > size)
                                return false;
                        memcpy(ret, value + 1, (size_t)(end - value - 1));
                        ret[end - value - 1] = '\0';
                        return true;
                }
                p = end[1] == ',' ? end + 2 : NULL;
        }
        return false;
}

const struct ad_sample *ad_sample_find(const struct ad_samples *s, const char *job,
                                       const char *name)
{
        for (size_t i = 0; i < s->count; i++)
                if ((!job || strcmp(s->list[i].job, job) == 0) &&
                    strcmp(s->list[i].name, name) == 0)
                        return &s->list[i];
        return NULL;
}

static bool same_label(const struct ad_sample *a, const struct ad_sample *b, const char *label)
{
        char x[128], y[128];

        return ad_sample_label(a, label, x, sizeof(x)) && ad_sample_label(b, label, y, sizeof(y)) &&
               strcmp(x, y) == 0;
}

double ad_sample_beside(const struct ad_samples *s, const struct ad_sample *of, const char *name,
                        double otherwise)
{
        for (size_t i = 0; i < s->count; i++) {
                const struct ad_sample *m = &s->list[i];

                if (strcmp(m->name, name) == 0 && strcmp(m->instance, of->instance) == 0 &&
                    same_label(m, of, "stream") && same_label(m, of, "partition"))
                        return m->value;
        }
        return otherwise;
}

bool ad_sample_counts(const struct ad_samples *s, const struct ad_sample *of)
{
        bool runs = ad_sample_beside(s, of, "adtally_task_running", 0) != 0;
        double epoch = ad_sample_beside(s, of, "adtally_task_epoch", 0);

        for (size_t i = 0; s->several && i < s->count; i++) {
                const struct ad_sample *m = &s->list[i];

                if (strcmp(m->name, "adtally_task_running") == 0 && m->value != 0 &&
                    strcmp(m->instance, of->instance) != 0 && same_label(m, of, "stream") &&
                    same_label(m, of, "partition") &&
                    (!runs || ad_sample_beside(s, m, "adtally_task_epoch", 0) > epoch))
                        return false;
        }
        return true;
}

bool ad_job_alive(const struct ad_job_file *f, int64_t now_ms)
{
        return ad_job_stamp_alive(&f->stamp, now_ms);
}

bool ad_job_any_alive(const struct ad_samples *s, const char *job, int64_t now_ms)
{
        bool alive = false;

        for (size_t i = 0; i < s->job_count; i++)
                alive |= strcmp(s->jobs[i].job, job) == 0 && ad_job_alive(&s->jobs[i], now_ms);
        return alive;
}

double ad_archive_lag_share(const struct ad_samples *s, const struct ad_sample *lag)
{
        const struct ad_sample *limit =
                ad_sample_find(s, "archive", "adtally_archive_lag_limit_seconds");

        return limit && limit->value > 0 ? lag->value / limit->value : 0;
}

bool ad_job_is_optional(const char *job)
{
        return strcmp(job, "archive") == 0 || strcmp(job, "reconcile") == 0;
}

bool ad_job_missing(const struct ad_samples *s, const char *job, int64_t now_ms)
{
        bool wanted = !ad_job_is_optional(job);

        for (size_t i = 0; i < s->job_count; i++)
                wanted |= strcmp(s->jobs[i].job, job) == 0;
        return wanted && !ad_job_any_alive(s, job, now_ms);
}

static int by_name(const void *a, const void *b)
{
        const struct ad_sample *x = a, *y = b;
        int c = strcmp(x->name, y->name);

        c = c ? c : strcmp(x->job, y->job);
        c = c ? c : strcmp(x->instance, y->instance);
        return c ? c : strcmp(x->labels, y->labels);
}

static const char *family_type(const char *name)
{
        size_t len = strlen(name);

        return len > 6 && strcmp(name + len - 6, "_total") == 0 ? "counter" : "gauge";
}

void ad_samples_render(struct ad_samples *s, struct df_buf *b)
{
        if (s->count)
                qsort(s->list, s->count, sizeof(*s->list), by_name);
        for (size_t i = 0; i < s->count; i++) {
                const struct ad_sample *m = &s->list[i];
                struct df_buf labels = {0};

                if (i == 0 || strcmp(m->name, s->list[i - 1].name) != 0)
                        df_buf_printf(b, "# TYPE %s %s\n", m->name, family_type(m->name));
                df_buf_printf(&labels, "job=\"%s\"", m->job);
                if (*m->instance)
                        df_buf_printf(&labels, ",instance=\"%s\"", m->instance);
                df_buf_printf(&labels, "%s%s", *m->labels ? "," : "", m->labels);
                df_put_u8(&labels, 0);
                if (!labels.failed)
                        df_metric(b, m->name, (const char *)labels.data, m->value);
                df_buf_release(&labels);
        }
}
