/* close_commands.c - closes in the topic `commands`, and which of them are done (close.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/trace.h"
#include "jobs/reconcile/close_private.h"

#define READ_RECORDS 256
#define STALL_MS 30000
#define MARK_BYTES 16

/* Of two commands of a tenant with the same id the first one counts: so the mark is the id's. */
static int mark_path(const struct ad_closer *c, const struct ad_command *command, char *ret,
                     size_t size, struct df_error *err)
{
        char hex[DF_SHA256_HEX_SIZE];
        uint8_t digest[DF_SHA256_SIZE];
        struct df_buf id = {0};
        int n, rc;

        df_put_lstr(&id, command->tenant_id);
        df_put_lstr(&id, command->id);
        rc = df_buf_check(&id, err);
        if (rc == 0)
                rc = df_sha256(df_buf_bytes(&id), digest, err);
        df_buf_release(&id);
        if (rc < 0)
                return rc;
        df_hex(digest, MARK_BYTES, hex);
        n = snprintf(ret, size, "%s/reconcile/closes/%s", df_config_text(c->o.config, "data"), hex);
        return n < (int)size ? 0 : df_fail(err, DF_EINVAL, "--data: the path is too long");
}

int adi_close_mark(struct ad_closer *c, struct adi_pending *p, struct df_error *err)
{
        char path[4096];
        int rc = mark_path(c, &p->command, path, sizeof(path), err);

        if (rc == 0) {
                *strrchr(path, '/') = '\0';
                rc = df_mkdirs(path, err);
        }
        if (rc == 0)
                rc = mark_path(c, &p->command, path, sizeof(path), err);
        if (rc == 0)
                rc = df_write_file(path, p->command.id, true, err);
        if (rc == 0) {
                pthread_mutex_lock(&c->lock);
                p->over = true;
                pthread_mutex_unlock(&c->lock);
        }
        return rc;
}

static bool same_id(const struct ad_command *a, struct df_bytes tenant, struct df_bytes id)
{
        return df_bytes_eq(a->tenant_id, tenant) && df_bytes_eq(a->id, id);
}

static struct adi_pending *find(const struct ad_closer *c, struct df_bytes tenant,
                                struct df_bytes id)
{
        for (size_t i = 0; i < c->count; i++)
                if (same_id(&c->list[i]->command, tenant, id))
                        return c->list[i];
        return NULL;
}

static int add(struct ad_closer *c, uint64_t offset, struct df_bytes bytes, struct df_error *err)
{
        struct adi_pending *p = calloc(1, sizeof(*p));
        struct df_bytes copy;
        int rc;

        if (c->count == c->cap && p) {
                size_t cap = c->cap ? 2 * c->cap : 16;
                struct adi_pending **list = realloc(c->list, cap * sizeof(struct adi_pending *));

                if (list) {
                        c->list = list;
                        c->cap = cap;
                }
        }
        if (!p || c->count == c->cap) {
                free(p);
                return df_fail(err, DF_ENOMEM, "closes");
        }
        p->offset = offset;
        df_arena_init(&p->arena, 0);
        copy = df_arena_copy(&p->arena, bytes);
        rc = copy.data ? ad_wire_command_decode(copy, &p->arena, &p->command, err)
                       : df_fail(err, DF_ENOMEM, "closes");
        if (rc < 0) {
                df_arena_release(&p->arena);
                free(p);
                return rc;
        }
        c->list[c->count++] = p;
        return 0;
}

static int take_close(struct ad_closer *c, uint64_t offset, struct df_bytes bytes,
                      const struct ad_command *command, struct df_error *err)
{
        char path[4096];
        int rc = mark_path(c, command, path, sizeof(path), err);

        if (rc < 0 || access(path, F_OK) == 0 || find(c, command->tenant_id, command->id))
                return rc;
        pthread_mutex_lock(&c->lock);
        rc = add(c, offset, bytes, err);
        pthread_mutex_unlock(&c->lock);
        return rc;
}

static int take(struct ad_closer *c, const struct df_record *r, struct df_error *err)
{
        struct adi_pending *cancelled = NULL;
        struct ad_command command;
        struct df_error bad = {0};
        struct df_arena arena;
        int rc = 0;

        df_arena_init(&arena, 0);
        if (ad_wire_command_decode(r->value, &arena, &command, &bad) < 0)
                df_trace(DF_ERROR, "close", "commands offset=%" PRIu64 " code=%s: %s; left out",
                         r->offset, df_err_code(bad.code), bad.text);
        else if (command.kind == AD_COMMAND_CLOSE)
                rc = take_close(c, r->offset, r->value, &command, err);
        else if (command.kind == AD_COMMAND_CANCEL)
                cancelled = find(c, command.tenant_id, command.cancel);
        if (cancelled && !cancelled->over)
                rc = adi_close_mark(c, cancelled, err);
        df_arena_release(&arena);
        return rc;
}

int adi_close_follow(struct ad_closer *c, struct df_error *err)
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

int adi_close_each_command(struct ad_closer *c, uint64_t to,
                           int (*fn)(void *arg, uint64_t offset, struct df_bytes bytes,
                                     const struct ad_command *command, struct df_error *err),
                           void *arg, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        struct df_log_reader *r = NULL;
        int64_t until = df_monotonic_ms() + STALL_MS;
        struct df_arena arena;
        int rc = to ? df_log_reader_open(c->o.log, AD_TOPIC_COMMANDS, 0, 0, NULL, &r, err) : 0;

        df_arena_init(&arena, 0);
        while (rc == 0 && r && df_log_position(r) < to) {
                size_t n = 0;

                rc = df_log_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n && records[i].offset < to; i++) {
                        struct ad_command command;
                        bool good;

                        df_arena_reset(&arena);
                        good = ad_wire_command_decode(records[i].value, &arena, &command, NULL) ==
                               0;
                        rc = fn(arg, records[i].offset, records[i].value, good ? &command : NULL,
                                err);
                }
                if (n == 0 && df_monotonic_ms() > until)
                        rc = df_fail(err, DF_EAGAIN, "the topic commands cannot be read");
                else if (n == 0)
                        (void)usleep(1000);
        }
        df_log_reader_close(r);
        df_arena_release(&arena);
        return rc;
}
