/* state.c - DATA/reconcile/JOB: what the job knows from life to life (job.h). */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/trace.h"
#include "jobs/reconcile/job.h"

#define FILE_MAX 4096
#define HEAD "adtally-reconcile-job 1"

static int place(const char *data, char ret[PATH_MAX], struct df_error *err)
{
        if (snprintf(ret, PATH_MAX, "%s/reconcile/JOB", data) < PATH_MAX)
                return 0;
        return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data);
}

static bool is_id(const char *s)
{
        return strlen(s) == AD_RUN_ID_MAX && strspn(s, "0123456789abcdef") == AD_RUN_ID_MAX;
}

static bool parse_line(char *line, struct ad_job_state *s)
{
        char *value = strchr(line, ' ');

        if (!value)
                return false;
        *value++ = '\0';
        if (strcmp(line, "chain") == 0 && is_id(value))
                memcpy(s->chain, value, sizeof(s->chain));
        else if (strcmp(line, "run") == 0 && is_id(value))
                memcpy(s->run, value, sizeof(s->run));
        else if (strcmp(line, "commands") == 0)
                s->commands = strtoull(value, NULL, 10);
        else if (strcmp(line, "runs") == 0)
                s->runs = strtoull(value, NULL, 10);
        else if (strcmp(line, "compared") == 0)
                s->compared_ms = strtoll(value, NULL, 10);
        else if (strcmp(line, "unexplained") == 0)
                s->unexplained = strtoull(value, NULL, 10);
        else if (strcmp(line, "pending") == 0)
                s->pending = strtoull(value, NULL, 10);
        else
                return false;
        return true;
}

static bool parse(char *text, struct ad_job_state *s)
{
        char *save = NULL, *line = strtok_r(text, "\n", &save);
        bool ok = line && strcmp(line, HEAD) == 0;

        while (ok && (line = strtok_r(NULL, "\n", &save)))
                ok = parse_line(line, s);
        s->known = ok;
        return ok;
}

int ad_job_state_read(const char *data, struct ad_job_state *ret, struct df_error *err)
{
        char path[PATH_MAX];
        struct df_buf b = {0};
        int rc = place(data, path, err);

        *ret = (struct ad_job_state){0};
        if (rc == 0)
                rc = df_read_file(path, FILE_MAX, &b, err);
        df_put_u8(&b, 0);
        if (rc == 0)
                rc = df_buf_check(&b, err);
        if (rc == 0 && !parse((char *)b.data, ret)) {
                df_trace(DF_WARN, "state", "%s is damaged: it is made anew", path);
                *ret = (struct ad_job_state){0};
        }
        df_buf_release(&b);
        return rc == DF_ENOENT || rc == DF_ELIMIT ? 0 : rc;
}

int ad_job_state_write(const char *data, const struct ad_job_state *s, struct df_error *err)
{
        char path[PATH_MAX];
        struct df_buf b = {0};
        int rc = place(data, path, err);

        df_buf_printf(&b, HEAD "\n");
        if (s->chain[0])
                df_buf_printf(&b, "chain %s\n", s->chain);
        if (s->run[0])
                df_buf_printf(&b, "run %s\n", s->run);
        df_buf_printf(&b,
                      "commands %" PRIu64 "\nruns %" PRIu64 "\ncompared %" PRId64
                      "\nunexplained %" PRIu64 "\npending %" PRIu64 "\n",
                      s->commands, s->runs, s->compared_ms, s->unexplained, s->pending);
        if (rc == 0)
                rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_write_file(path, df_buf_bytes(&b), true, err);
        df_buf_release(&b);
        return rc;
}
