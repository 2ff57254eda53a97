/* prom.c - the status files of the jobs, read back. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/adtally/command.h"

#define FILE_MAX (8u << 20)
#define FRESH_MS 5000 /* a job writes its file every second */

const char *const ad_job_names[] = {"ingest", "realtime", "api", NULL};

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
        *ret = (struct ad_sample){.job = job, .name = line, .labels = ""};
        ret->value = strtod(space + 1, NULL);
        if (brace && space > brace && space[-1] == '}') {
                *brace = '\0';
                space[-1] = '\0';
                ret->labels = brace + 1;
        }
        return true;
}

static int parse_file(struct ad_samples *s, const char *job, char *text, struct df_error *err)
{
        struct ad_job_file *f = &s->jobs[s->job_count];
        long long started = 0, written = 0;
        char *save = NULL;

        *f = (struct ad_job_file){.job = job};
        if (sscanf(text, "# adtally %*s pid=%d started_ms=%lld written_ms=%lld", &f->pid, &started,
                   &written) == 3) {
                f->started_ms = started;
                f->written_ms = written;
                s->job_count++;
        }
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                struct ad_sample sample;
                int rc = parse_line(line, job, &sample) ? add_sample(s, &sample, err) : 0;

                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* All files into one buffer first: samples point into it, so it must not move afterwards. */
int ad_samples_read(const char *data_dir, struct ad_samples *ret, struct df_error *err)
{
        size_t starts[AD_JOBS_MAX] = {0};
        bool there[AD_JOBS_MAX] = {false};
        int rc = 0;

        memset(ret, 0, sizeof(*ret));
        for (size_t i = 0; rc == 0 && ad_job_names[i]; i++) {
                char path[PATH_MAX];

                (void)snprintf(path, sizeof(path), "%s/run/%s.prom", data_dir, ad_job_names[i]);
                starts[i] = ret->text.len;
                rc = df_read_file(path, ret->text.len + FILE_MAX, &ret->text, err);
                there[i] = rc == 0;
                df_put_u8(&ret->text, 0);
                if (rc == DF_ENOENT)
                        rc = 0;
        }
        if (rc == 0)
                rc = df_buf_check(&ret->text, err);
        for (size_t i = 0; rc == 0 && ad_job_names[i]; i++)
                if (there[i])
                        rc = parse_file(ret, ad_job_names[i], (char *)ret->text.data + starts[i],
                                        err);
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

bool ad_job_alive(const struct ad_job_file *f, int64_t now_ms)
{
        return f->pid > 0 && (kill(f->pid, 0) == 0 || errno == EPERM) &&
               now_ms - f->written_ms < FRESH_MS;
}

static int by_name(const void *a, const void *b)
{
        const struct ad_sample *x = a, *y = b;
        int c = strcmp(x->name, y->name);

        c = c ? c : strcmp(x->job, y->job);
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
                df_buf_printf(&labels, "job=\"%s\"%s%s", m->job, *m->labels ? "," : "", m->labels);
                df_put_u8(&labels, 0);
                if (!labels.failed)
                        df_metric(b, m->name, (const char *)labels.data, m->value);
                df_buf_release(&labels);
        }
}
