/* segment.c - `adtally segment`: files of the raw archive, offline (A1, docs/ARCHIVE.md). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "df/arena.h"
#include "df/segment.h"
#include "df/sha256.h"
#include "jobs/adtally/command.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "proto/wire.h"

#define RECORDS 64
#define ARENA_BYTES (64u << 20)

static const char usage[] =
        "adtally segment: files of the raw archive, also copies on another machine\n"
        "Usage: adtally segment stat FILE...    what each holds, by its footer, a line a file\n"
        "       adtally segment verify FILE...  read all of it: hash, frames, records, counts\n"
        "       adtally segment cat FILE...     its events, a line of JSON each; records that\n"
        "                                       hold none (heartbeats) have a line of their own\n"
        "`zstd -dc FILE` gives the records as they are: docs/ARCHIVE.md.\n";
static const char *const shared[] = {"quiet", NULL};

struct segment {
        const char *path;
        struct df_segment_file *file;
        struct df_segment_reader *reader;
};

static int open_segment(const char *path, struct segment *ret, struct df_error *err)
{
        struct df_segment_source source;
        int rc;

        *ret = (struct segment){.path = path};
        rc = df_segment_file_open(path, &ret->file, &source, err);
        return rc < 0 ? rc : df_segment_open(&source, &ret->reader, err);
}

static void close_segment(struct segment *s)
{
        df_segment_close(s->reader);
        df_segment_file_close(s->file);
}

static int print_stat(struct segment *s, struct df_error *err)
{
        const struct df_segment_info *i = df_segment_info(s->reader);
        char hash[DF_SHA256_HEX_SIZE], from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];

        (void)err;
        df_hex(i->sha256, sizeof(i->sha256), hash);
        (void)ad_time_text(i->min_append_ms, from);
        (void)ad_time_text(i->max_append_ms, to);
        printf("%s: %s/%u generation %016" PRIx64 " offsets %" PRIu64 " to %" PRIu64 ", %" PRIu64
               " records appended %s to %s, %" PRIu64 " bytes (%" PRIu64 " raw), sha256 %s\n",
               s->path, i->id.topic, i->id.partition, i->id.generation, i->first, i->end,
               i->records, from, to, i->bytes, i->raw_bytes, hash);
        return 0;
}

static int verify(struct segment *s, struct df_error *err)
{
        const struct df_segment_info *i = df_segment_info(s->reader);
        int rc = df_segment_verify(s->reader, err);

        if (rc == 0)
                printf("%s: %" PRIu64 " records intact, offsets %" PRIu64 " to %" PRIu64 "\n",
                       s->path, i->records, i->first, i->end);
        return rc;
}

/* ---- cat ---- */

static void put_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        (void)ad_time_text(ms, text);
        ad_json_put_text(j, key, text);
}

static void put_string(struct ad_json *j, const char *key, struct df_bytes s)
{
        if (s.len > 0)
                ad_json_put_bytes(j, key, s);
}

static void put_micros(struct ad_json *j, const char *key, int64_t nanos)
{
        if (nanos)
                ad_json_put_int(j, key, nanos / 1000);
}

void ad_segment_put_event(struct ad_json *j, const struct ad_event *ev)
{
        static const char *const types[] = {"", "impression", "click", "conversion"};

        put_string(j, "tenant_id", ev->tenant_id);
        put_string(j, "event_id", ev->event_id);
        ad_json_put_text(j, "type", ev->type <= AD_CONVERSION ? types[ev->type] : "unknown");
        put_time(j, "event_time", ev->event_ms);
        put_time(j, "receive_time", ev->receive_ms);
        for (int d = 0; d < AD_DIM_COUNT; d++)
                put_string(j, ad_dim_names[d], ev->dims[d]);
        if (ev->flags & AD_EV_USER_SEALED) {
                char hex[2 * AD_SEALED_ID_MAX + 1];

                df_hex(ev->user_id.data, ev->user_id.len, hex);
                ad_json_put_text(j, "user_id_sealed", hex);
        } else {
                put_string(j, "user_id", ev->user_id);
        }
        put_string(j, "click_id", ev->click_id);
        put_string(j, "source", ev->source);
        put_string(j, "currency", ev->currency);
        put_micros(j, "cost_micros", ev->cost_nanos);
        put_micros(j, "payout_micros", ev->payout_nanos);
        put_micros(j, "conversion_value_micros", ev->value_nanos);
        put_string(j, "conversion_value_currency", ev->value_currency);
        ad_json_put_int(j, "labels", ev->labels);
}

/* ev NULL: what the record is instead. */
static int print_line(const struct df_record *r, size_t index, const struct ad_event *ev,
                      const char *what, struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        ad_json_open(j);
        ad_json_put_int(j, "offset", r->offset);
        put_time(j, "append_time", r->append_ms);
        if (ev)
                ad_json_put_int(j, "index", (__int128)index);
        if (ev)
                ad_segment_put_event(j, ev);
        else
                ad_json_put_text(j, "record", what);
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0 && (fwrite(b.data, 1, b.len, stdout) != b.len || putchar('\n') == EOF))
                rc = df_fail_errno(err, DF_EIO, "write to standard output");
        df_buf_release(&b);
        return rc;
}

static int print_record(const struct df_record *r, struct df_arena *arena, struct df_error *err)
{
        struct ad_batch batch;
        struct df_error why = {0};
        int rc = ad_wire_batch_decode(r->value, AD_RECORD_EVENTS_MAX, arena, &batch, &why);

        if (rc == DF_ENOMEM)
                return df_fail(err, rc, "%s", why.text);
        if (rc < 0) /* E2: as realtime will say of it */
                return print_line(r, 0, NULL, "poison", err);
        for (size_t i = 0; rc == 0 && i < batch.count; i++)
                rc = print_line(r, i, &batch.events[i], NULL, err);
        if (rc == 0 && batch.count == 0)
                rc = print_line(r, 0, NULL, batch.has_heartbeat ? "heartbeat" : "mark", err);
        return rc;
}

static int cat(struct segment *s, struct df_error *err)
{
        struct df_record records[RECORDS];
        struct df_arena arena;
        size_t n = 1;
        int rc = df_segment_verify(s->reader, err);

        df_arena_init(&arena, ARENA_BYTES);
        while (rc == 0 && n > 0) {
                rc = df_segment_next(s->reader, records, RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++) {
                        df_arena_reset(&arena);
                        rc = print_record(&records[i], &arena, err);
                }
        }
        df_arena_release(&arena);
        return rc;
}

/* Each file, also behind a damaged one; the first damage is the exit code. */
static int run_all(const struct ad_command_line *l, int (*run)(struct segment *, struct df_error *),
                   struct df_error *err)
{
        int first = 0;

        for (int i = 1; i < l->arg_count; i++) {
                struct df_error one = {0};
                struct segment s;
                int rc = open_segment(l->args[i], &s, &one);

                if (rc == 0)
                        rc = run(&s, &one);
                close_segment(&s);
                if (rc == 0)
                        continue;
                if (first == 0) {
                        first = rc;
                        *err = one;
                } else {
                        (void)ad_command_fail("segment", &one);
                }
        }
        return first;
}

int ad_command_segment(int argc, char **argv)
{
        int (*run)(struct segment *, struct df_error *) = NULL;
        struct ad_command_line l;
        struct df_error err = {0};
        int code;

        if (!ad_command_read(argc, argv, usage, NULL, 0, shared, &l, &code))
                return code;
        if (l.arg_count > 1)
                run = strcmp(l.args[0], "stat") == 0     ? print_stat
                      : strcmp(l.args[0], "verify") == 0 ? verify
                      : strcmp(l.args[0], "cat") == 0    ? cat
                                                         : NULL;
        if (!run)
                code = ad_command_usage("segment", "expected `stat`, `verify` or `cat`, and files");
        else
                code = run_all(&l, run, &err) < 0 ? ad_command_fail("segment", &err) : DF_EXIT_OK;
        ad_command_release(&l);
        return code;
}
