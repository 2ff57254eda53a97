#include "jobs/common/raw_scan.h"

#include <string.h>
#include <unistd.h>

#include "df/run.h"

#define READ_RECORDS 256
#define STALL_MS 60000
#define IDLE_US 1000
#define ARENA_BYTES (64u << 20)

static bool holds(struct df_bytes record, struct df_bytes needle)
{
        return needle.len == 0 || memmem(record.data, record.len, needle.data, needle.len) != NULL;
}

static int take(struct ad_raw_scan *s, const struct df_record *r, struct df_arena *arena,
                struct df_error *err)
{
        struct ad_batch b;
        struct df_error poison = {0};
        int rc;

        if (s->ret_records++ == 0)
                s->ret_first_append_ms = r->append_ms;
        if (s->record)
                return s->record(s->arg, r, err);
        if (!holds(r->value, s->needle))
                return 0;
        df_arena_reset(arena);
        rc = ad_wire_batch_decode(r->value, AD_RECORD_EVENTS_MAX, arena, &b, &poison);
        if (rc == DF_ENOMEM)
                return df_fail(err, rc, "%s", poison.text);
        if (rc < 0)
                return 0;
        for (size_t i = 0; rc == 0 && i < b.count; i++) {
                struct ad_event *ev = &b.events[i];

                ev->offset = r->offset;
                ev->index = (uint32_t)i;
                ev->append_ms = r->append_ms;
                ev->price_version = b.price_version;
                rc = s->fn(s->arg, ev, err);
        }
        return rc;
}

static int read_all(struct ad_raw_scan *s, struct df_log_reader *r, struct df_arena *arena,
                    struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        int64_t moved_ms = df_monotonic_ms();
        int rc = 0;

        while (rc == 0 && df_log_position(r) < s->to) {
                size_t n = 0;

                if (s->stop && s->stop(s->arg))
                        return df_fail(err, DF_EAGAIN, "stopped");
                rc = df_log_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n && records[i].offset < s->to; i++)
                        rc = take(s, &records[i], arena, err);
                if (n > 0)
                        moved_ms = df_monotonic_ms();
                else if (rc == 0 && df_monotonic_ms() - moved_ms > STALL_MS)
                        rc = df_fail(err, DF_EAGAIN, "%s/%u cannot be read", s->topic,
                                     s->partition);
                else if (df_log_position(r) < s->to)
                        (void)usleep(IDLE_US);
        }
        return rc;
}

int ad_raw_scan(struct ad_raw_scan *s, struct df_error *err)
{
        struct df_log_reader *r = NULL;
        struct df_arena arena;
        int rc = 0;

        s->ret_records = 0;
        s->ret_first_append_ms = 0;
        if (s->from >= s->to)
                return 0;
        df_arena_init(&arena, ARENA_BYTES);
        rc = df_log_reader_open(s->log, s->topic, s->partition, s->from, NULL, &r, err);
        if (rc == 0)
                rc = read_all(s, r, &arena, err);
        df_log_reader_close(r);
        df_arena_release(&arena);
        return rc;
}

struct find {
        const char *topic;
        struct df_topic_info *ret;
        bool found;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct find *f = arg;

        if (strcmp(info->name, f->topic) != 0)
                return 0;
        *f->ret = *info;
        f->found = true;
        return 0;
}

int ad_topic_find(struct df_log *log, const char *topic, struct df_topic_info *ret,
                  struct df_error *err)
{
        struct find f = {.topic = topic, .ret = ret};
        int rc = df_log_topic_list(log, topic, on_topic, &f, err);

        if (rc == 0 && !f.found)
                rc = df_fail(err, DF_ENOENT, "there is no topic %s", topic);
        return rc;
}
