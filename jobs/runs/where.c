/* where.c - from words to a pinned range (runs.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/common/times.h"
#include "jobs/runs/runs.h"

/* ---- words ---- */

static bool read_number(const char **at, uint64_t max, uint64_t *ret)
{
        const char *p = *at;
        uint64_t v = 0;

        if (*p < '0' || *p > '9')
                return false;
        for (; *p >= '0' && *p <= '9'; p++) {
                uint64_t digit = (uint64_t)(*p - '0');

                if (v > (max - digit) / 10)
                        return false;
                v = v * 10 + digit;
        }
        *at = p;
        *ret = v;
        return true;
}

/* "3=100,5=0": each partition once. */
static bool read_pairs(const char *at, struct ad_where *ret)
{
        for (;;) {
                uint64_t p, offset;

                if (!read_number(&at, DF_PARTITIONS_MAX - 1, &p) || *at++ != '=' ||
                    !read_number(&at, INT64_MAX, &offset) || ret->given[p])
                        return false;
                ret->given[p] = true;
                ret->offset[p] = offset;
                if (*at == '\0')
                        return true;
                if (*at++ != ',')
                        return false;
        }
}

static bool read_offsets(const char *text, struct ad_where *ret)
{
        const char *at = text;

        ret->kind = AD_WHERE_OFFSETS;
        ret->every = read_number(&at, INT64_MAX, &ret->offset[0]) && *at == '\0';
        return ret->every || read_pairs(text, ret);
}

int ad_where_parse(const char *text, struct ad_where *ret, struct df_error *err)
{
        bool ok = true;

        *ret = (struct ad_where){0};
        if (strcmp(text, "start") == 0)
                ret->kind = AD_WHERE_START;
        else if (strcmp(text, "end") == 0)
                ret->kind = AD_WHERE_END;
        else if (strncmp(text, "offset:", 7) == 0)
                ok = read_offsets(text + 7, ret);
        else if (ad_time_parse(df_bytes_str(text), &ret->append_ms))
                ret->kind = AD_WHERE_TIME;
        else
                ok = false;
        return ok ? 0
                  : df_fail(err, DF_EINVAL,
                            "\"%.100s\" is not start, end, offset:N, offset:PARTITION=N,... or an "
                            "RFC 3339 time",
                            text);
}

/* ---- the pin ---- */

struct search {
        const char *name;
        struct df_topic_info *info;
        bool found;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct search *s = arg;

        if (strcmp(info->name, s->name) == 0) {
                *s->info = *info;
                s->found = true;
        }
        return 0;
}

static int find_topic(struct df_log *log, const char *topic, struct df_topic_info *ret,
                      struct df_error *err)
{
        struct search s = {.name = topic, .info = ret};
        int rc = df_log_topic_list(log, topic, on_topic, &s, err);

        if (rc < 0 || s.found)
                return rc;
        return df_fail(err, DF_ENOENT, "there is no topic %s; see `adtally log list`", topic);
}

static int check_partitions(const struct ad_where *w, const struct df_topic_info *topic,
                            struct df_error *err)
{
        for (uint32_t p = topic->partitions; p < DF_PARTITIONS_MAX; p++)
                if (w->given[p])
                        return df_fail(err, DF_EINVAL,
                                       "topic %s has %u partitions, no partition %u", topic->name,
                                       topic->partitions, p);
        return 0;
}

/* rest: where a partition that the words do not name stands. */
static int resolve(struct df_log *log, const char *topic, uint32_t p, const struct ad_where *w,
                   uint64_t first, uint64_t end, uint64_t rest, uint64_t *ret, struct df_error *err)
{
        switch (w->kind) {
        case AD_WHERE_START:
                *ret = first;
                return 0;
        case AD_WHERE_END:
                *ret = end;
                return 0;
        case AD_WHERE_TIME: {
                int rc = df_log_offset_at(log, topic, p, w->append_ms, ret, err);

                if (rc == 0 && *ret > end)
                        *ret = end; /* appended since */
                if (rc == 0 && *ret < first)
                        *ret = first;
                return rc;
        }
        case AD_WHERE_OFFSETS:
                break;
        }
        *ret = w->every ? w->offset[0] : w->given[p] ? w->offset[p] : rest;
        if (*ret >= first && *ret <= end)
                return 0;
        return df_fail(err, DF_EINVAL,
                       "offset %" PRIu64 " is outside %s/%u, which holds [%" PRIu64 ", %" PRIu64
                       ")",
                       *ret, topic, p, first, end);
}

int ad_replay_pin_range(struct df_log *log, const char *topic, const struct ad_where *from,
                        const struct ad_where *to, struct ad_replay_pin *ret, struct df_error *err)
{
        int rc = find_topic(log, topic, &ret->topic, err);

        if (rc == 0)
                rc = check_partitions(from, &ret->topic, err);
        if (rc == 0)
                rc = check_partitions(to, &ret->topic, err);
        for (uint32_t p = 0; rc == 0 && p < ret->topic.partitions; p++) {
                struct ad_replay_span *s = &ret->span[p];
                uint64_t end = 0;

                rc = df_log_bounds(log, topic, p, &s->first, &end, err);
                if (rc == 0)
                        rc = resolve(log, topic, p, from, s->first, end, s->first, &s->from, err);
                if (rc == 0)
                        rc = resolve(log, topic, p, to, s->first, end, end, &s->to, err);
                if (rc == 0 && s->from > s->to)
                        rc = df_fail(err, DF_EINVAL,
                                     "--from is behind --to: %s/%u from offset %" PRIu64
                                     " to %" PRIu64,
                                     topic, p, s->from, s->to);
        }
        return rc;
}

void ad_replay_id(const struct ad_replay_pin *pin, uint64_t config, const char *version,
                  char ret[AD_REPLAY_ID_MAX + 1])
{
        struct df_buf b = {0};

        df_put_lstr(&b, df_bytes_str(pin->topic.name));
        df_put_u64be(&b, pin->topic.generation);
        df_put_u32be(&b, pin->topic.partitions);
        for (uint32_t p = 0; p < pin->topic.partitions; p++) {
                df_put_u64be(&b, pin->span[p].from);
                df_put_u64be(&b, pin->span[p].to);
        }
        df_put_u64be(&b, config);
        df_put_lstr(&b, df_bytes_str(version));
        df_check(!b.failed);
        (void)snprintf(ret, AD_REPLAY_ID_MAX + 1, "%016" PRIx64, df_hash64(df_buf_bytes(&b)));
        df_buf_release(&b);
}
