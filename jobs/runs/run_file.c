/* run_file.c - the file RUN: the pin of a run as lines of text (runs.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/runs/runs_private.h"

#define RUN_FILE_MAX (1u << 16)

/* ---- writing ---- */

void ad_replay_put(const struct ad_replay *r, struct df_buf *b)
{
        df_buf_printf(b, "adtally-replay 1\ntopic %s\ngeneration %016" PRIx64 "\npartitions %u\n",
                      r->pin.topic.name, r->pin.topic.generation, r->pin.topic.partitions);
        df_buf_printf(b, "log %s\n", r->log);
        df_buf_printf(b, "config %016" PRIx64 "\nversion %s\nfrom %s\nto %s\ndone %d\n", r->config,
                      r->version, r->from, r->to, r->done);
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++)
                df_buf_printf(b, "span %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                              r->pin.span[p].first, r->pin.span[p].from, r->pin.span[p].to,
                              r->pin.span[p].k);
}

int adi_run_write(const struct ad_replay *r, struct df_error *err)
{
        struct df_buf b = {0};
        char path[ADI_RUN_PATH_MAX];
        int rc;

        ad_replay_put(r, &b);
        (void)snprintf(path, sizeof(path), "%s/RUN", r->dir);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_write_file(path, df_buf_bytes(&b), true, err);
        df_buf_release(&b);
        return rc;
}

/* ---- reading ---- */

/* The rest of the line behind "name ", cut off there; NULL: another line. */
static char *line_value(char **at, const char *name)
{
        size_t n = strlen(name);
        char *value = *at, *end;

        if (strncmp(value, name, n) != 0 || value[n] != ' ')
                return NULL;
        value += n + 1;
        end = strchr(value, '\n');
        if (!end)
                return NULL;
        *end = '\0';
        *at = end + 1;
        return value;
}

static bool parse_head(char **at, struct ad_replay *r)
{
        const char *topic, *generation, *partitions, *log, *config, *version, *from, *to, *done;

        if (!line_value(at, "adtally-replay") || !(topic = line_value(at, "topic")) ||
            !(generation = line_value(at, "generation")) ||
            !(partitions = line_value(at, "partitions")) || !(log = line_value(at, "log")) ||
            !(config = line_value(at, "config")) || !(version = line_value(at, "version")) ||
            !(from = line_value(at, "from")) || !(to = line_value(at, "to")) ||
            !(done = line_value(at, "done")))
                return false;
        (void)snprintf(r->pin.topic.name, sizeof(r->pin.topic.name), "%s", topic);
        (void)snprintf(r->version, sizeof(r->version), "%s", version);
        (void)snprintf(r->log, sizeof(r->log), "%s", log);
        r->pin.topic.generation = strtoull(generation, NULL, 16);
        r->pin.topic.partitions = (uint32_t)strtoul(partitions, NULL, 10);
        r->config = strtoull(config, NULL, 16);
        r->done = strcmp(done, "1") == 0;
        r->from = strdup(from);
        r->to = strdup(to);
        return r->from && r->to && r->pin.topic.partitions > 0 &&
               r->pin.topic.partitions <= DF_PARTITIONS_MAX;
}

/* An open run is the same whatever its end is by now. */
void adi_run_own_id(const struct ad_replay *r, char id[AD_REPLAY_ID_MAX + 1])
{
        struct ad_replay_pin *pin = r->kind->open ? malloc(sizeof(*pin)) : NULL;

        if (pin) {
                *pin = r->pin;
                for (uint32_t p = 0; p < pin->topic.partitions; p++)
                        pin->span[p].to = UINT64_MAX;
        }
        ad_replay_id(pin ? pin : &r->pin, r->config, r->version, id);
        free(pin);
}

/* What was read must give the id that the directory has. */
static bool parse_run(char *text, struct ad_replay *r)
{
        char id[AD_REPLAY_ID_MAX + 1], *at = text, *span;

        if (!parse_head(&at, r))
                return false;
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++) {
                struct ad_replay_span *s = &r->pin.span[p];

                span = line_value(&at, "span");
                if (!span || sscanf(span, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &s->first,
                                    &s->from, &s->to, &s->k) < 3)
                        return false;
        }
        adi_run_own_id(r, id);
        return strcmp(id, r->id) == 0;
}

bool ad_replay_parse(const struct ad_run_kind *kind, const char *id, char *text,
                     struct ad_replay *ret)
{
        *ret = (struct ad_replay){.kind = kind, .lock_fd = -1};
        (void)snprintf(ret->id, sizeof(ret->id), "%s", id);
        return parse_run(text, ret);
}

int adi_run_read(struct ad_replay *r, struct df_error *err)
{
        struct df_buf b = {0};
        char path[ADI_RUN_PATH_MAX];
        int rc;

        (void)snprintf(path, sizeof(path), "%s/RUN", r->dir);
        rc = df_read_file(path, RUN_FILE_MAX, &b, err);
        df_put_u8(&b, 0);
        if (rc == 0)
                rc = df_buf_check(&b, err);
        if (rc == 0 && !parse_run((char *)b.data, r))
                rc = df_fail(err, DF_ECORRUPT, "%s is damaged: `adtally %s --drop %s`", path,
                             r->kind->name, r->id);
        df_buf_release(&b);
        return rc;
}
