/* commands.c - the RunRequests of the topic `commands`, in its order (job.h). */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/arena.h"
#include "df/trace.h"
#include "jobs/reconcile/job.h"

#define READ_RECORDS 256
#define LOOK_MS 10

struct asked {
        uint64_t offset;
        char id[AD_COMMAND_ID_MAX + 1];
};

struct ad_commands {
        struct df_log *log;
        struct df_log_reader *reader;
        struct df_arena arena;
        uint64_t from;
        struct asked *list; /* those from `first` on wait */
        size_t first, count, cap;
};

static int ask(struct ad_commands *c, uint64_t offset, struct df_bytes id, struct df_error *err)
{
        struct asked *a;

        if (c->first == c->count)
                c->first = c->count = 0;
        if (c->count == c->cap) {
                size_t cap = c->cap ? 2 * c->cap : 16;
                struct asked *list = realloc(c->list, cap * sizeof(*list));

                if (!list)
                        return df_fail(err, DF_ENOMEM, "commands");
                c->list = list;
                c->cap = cap;
        }
        a = &c->list[c->count++];
        a->offset = offset;
        (void)snprintf(a->id, sizeof(a->id), "%.*s", (int)id.len, (const char *)id.data);
        return 0;
}

static int take(struct ad_commands *c, const struct df_record *r, struct df_error *err)
{
        struct ad_command command;
        struct df_error bad = {0};

        if (r->offset < c->from)
                return 0;
        df_arena_reset(&c->arena);
        if (ad_wire_command_decode(r->value, &c->arena, &command, &bad) < 0) {
                df_trace(DF_ERROR, "commands", "offset=%" PRIu64 " code=%s: %s; it is left out",
                         r->offset, df_err_code(bad.code), bad.text);
                return 0;
        }
        return command.kind == AD_COMMAND_RUN ? ask(c, r->offset, command.id, err) : 0;
}

int ad_commands_open(struct df_log *log, uint64_t from, struct ad_commands **ret,
                     struct df_error *err)
{
        struct ad_commands *c = calloc(1, sizeof(*c));
        uint64_t first = 0, end = 0;
        int rc;

        *ret = NULL;
        if (!c)
                return df_fail(err, DF_ENOMEM, "commands");
        c->log = log;
        c->from = from;
        df_arena_init(&c->arena, 0);
        rc = df_log_bounds(log, AD_TOPIC_COMMANDS, 0, &first, &end, err);
        if (rc == 0)
                rc = df_log_reader_open(log, AD_TOPIC_COMMANDS, 0, first, NULL, &c->reader, err);
        if (rc < 0)
                ad_commands_close(c);
        else
                *ret = c;
        return rc;
}

int ad_commands_follow(struct ad_commands *c, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        size_t n = 1;
        int rc = 0;

        while (rc == 0 && n > 0) {
                rc = df_log_poll(c->reader, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = take(c, &records[i], err);
        }
        return rc;
}

bool ad_commands_first(const struct ad_commands *c, const char **ret_id, uint64_t *ret_offset)
{
        if (c->first == c->count)
                return false;
        *ret_id = c->list[c->first].id;
        *ret_offset = c->list[c->first].offset;
        return true;
}

size_t ad_commands_waiting(const struct ad_commands *c)
{
        return c->count - c->first;
}

void ad_commands_done(struct ad_commands *c)
{
        if (c->first < c->count)
                c->first++;
}

void ad_commands_close(struct ad_commands *c)
{
        if (!c)
                return;
        df_log_reader_close(c->reader);
        df_arena_release(&c->arena);
        free(c->list);
        free(c);
}

/* ---- what `runs` says was handled ---- */

struct handled {
        struct df_arena arena;
        char begun[AD_COMMAND_ID_MAX + 1], done[AD_COMMAND_ID_MAX + 1];
        uint64_t after;
        bool any;
};

/* From *at, or the first record, to the end, which *at becomes. */
static int read_all(struct df_log *log, const char *topic, uint64_t *at, struct handled *h,
                    int (*fn)(struct handled *h, const struct df_record *r), struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        struct df_log_reader *r = NULL;
        uint64_t first = 0, end = 0;
        int rc = df_log_bounds(log, topic, 0, &first, &end, err);

        if (rc == 0)
                rc = df_log_reader_open(log, topic, 0, *at > first ? *at : first, NULL, &r, err);
        *at = end;
        while (rc == 0 && df_log_position(r) < end) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};
                size_t n = 0;

                rc = df_log_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = fn(h, &records[i]);
                if (rc == 0 && df_process_stopping())
                        rc = df_fail(err, DF_EAGAIN, "stopped");
                if (rc == 0 && n == 0)
                        (void)poll(&p, 1, LOOK_MS);
        }
        df_log_reader_close(r);
        return rc;
}

static int look_at_run(struct handled *h, const struct df_record *r)
{
        struct ad_run_record record;

        h->any = true;
        df_arena_reset(&h->arena);
        if (ad_wire_run_record_decode(r->value, &h->arena, &record, NULL) < 0)
                return 0; /* the books count it as poison */
        if (record.kind == AD_RUN_BEGIN)
                (void)snprintf(h->begun, sizeof(h->begun), "%.*s", (int)record.begin.asked_by.len,
                               (const char *)record.begin.asked_by.data);
        else if (record.kind == AD_RUN_END && h->begun[0])
                memcpy(h->done, h->begun, sizeof(h->done));
        return 0;
}

static int look_at_command(struct handled *h, const struct df_record *r)
{
        struct ad_command c;

        df_arena_reset(&h->arena);
        if (ad_wire_command_decode(r->value, &h->arena, &c, NULL) == 0 &&
            df_bytes_eq(c.id, df_bytes_str(h->done)))
                h->after = r->offset + 1;
        return 0;
}

int ad_commands_handled(struct df_log *log, uint64_t *runs, uint64_t *ret_after, bool *ret_any,
                        struct df_error *err)
{
        struct handled h = {0};
        uint64_t commands = 0;
        int rc;

        df_arena_init(&h.arena, 0);
        rc = read_all(log, AD_TOPIC_RUNS, runs, &h, look_at_run, err);
        if (rc == 0 && h.done[0])
                rc = read_all(log, AD_TOPIC_COMMANDS, &commands, &h, look_at_command, err);
        df_arena_release(&h.arena);
        *ret_after = h.after;
        *ret_any = h.any;
        return rc;
}
