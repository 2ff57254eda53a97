/* import_run.c - the two passes of an import (import.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "jobs/adtally/import.h"

#define MINUTE_MS 60000LL
#define PROBLEMS_SHOWN 10
#define LOOK_EVERY 1024 /* rows between looks at the stop signal */

enum row_class { ROW_BAD, ROW_KNOWN, ROW_FRESH, ROW_OVERLAP };

/* What a pass over the file works with. */
struct pass {
        const struct ad_import_options *o;
        const struct ad_import_place *place;
        struct ad_import_reader *reader;
        struct ad_import_map *map;
        struct ad_ids *known;
        struct ad_ids *seen; /* in this pass: occurrences of a row, or fingerprint of an id */
        const struct ad_import_ranges *ranges; /* NULL: overlaps were judged before */
        struct df_arena arena;
        size_t bound; /* columns that the map knows */
        int64_t receive_ms;
        char id[33];
        struct ad_event ev; /* of the row at hand */
        const struct ad_import_range *hit;
        struct df_error why;      /* of a bad row */
        struct df_hash128 digest; /* of the fresh rows so far */
};

static void pass_end(struct pass *p)
{
        ad_import_reader_close(p->reader);
        ad_import_map_destroy(p->map);
        ad_ids_close(p->seen);
        df_arena_release(&p->arena);
}

static int pass_begin(struct pass *p, struct df_error *err)
{
        char dir[4096];
        bool fresh;
        int rc;

        (void)snprintf(dir, sizeof(dir), "%.*s/imports", 4000, p->place->data);
        df_arena_init(&p->arena, 0);
        p->digest = (struct df_hash128){0};
        p->bound = 0;
        rc = ad_import_reader_open(p->o->file, &p->reader, err);
        if (rc == 0)
                rc = ad_import_map_create(&p->o->map, &p->map, err);
        if (rc == 0)
                rc = ad_ids_open(dir, NULL, &p->seen, &fresh, err);
        if (rc < 0)
                pass_end(p);
        return rc;
}

static int bind(struct pass *p, struct df_error *err)
{
        bool csv = ad_import_reader_format(p->reader) == AD_IMPORT_CSV;
        const struct df_bytes *columns;
        size_t count = ad_import_reader_columns(p->reader, &columns);

        if (p->bound > 0 && p->bound == count)
                return 0;
        p->bound = count;
        return ad_import_map_bind(p->map, columns, count, csv, err);
}

/* The id of a row without one: of its content, and of how many equal rows came before. */
static int derive_id(struct pass *p, const struct df_bytes *cells, size_t count,
                     struct df_error *err)
{
        const struct df_bytes *columns;
        struct df_buf b = {0};
        struct df_hash128 h;
        uint64_t *n;

        (void)ad_import_reader_columns(p->reader, &columns);
        h = ad_import_row_hash(columns, cells, count);
        n = ad_ids_put(p->seen, h, err);
        if (!n)
                return err->code;
        df_put_u64be(&b, h.lo);
        df_put_u64be(&b, h.hi);
        df_put_u64be(&b, ++*n);
        h = df_hash128(df_buf_bytes(&b));
        df_buf_release(&b);
        (void)snprintf(p->id, sizeof(p->id), "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
        p->ev.event_id = df_bytes(p->id, 32);
        p->ev.flags |= AD_EV_KEY_DERIVED;
        return 0;
}

static void stamp(struct pass *p)
{
        p->ev.tenant_id = p->place->tenant;
        p->ev.source = df_bytes_str("import");
        p->ev.receive_ms = p->receive_ms;
        p->ev.schema_version = AD_SCHEMA_VERSION;
        p->ev.fingerprint = ad_event_fingerprint(&p->ev);
}

/* An id of the file's own that came before in the file. */
static int judge_repeat(struct pass *p, struct df_hash128 key, enum row_class *ret,
                        struct df_error *err)
{
        uint64_t *v = ad_ids_find(p->seen, key);

        if (v && *v == p->ev.fingerprint) {
                *ret = ROW_KNOWN;
        } else if (v) {
                *ret = ROW_BAD;
                (void)df_fail(&p->why, DF_EINVAL,
                              "event_id \"%.*s\" stands in the file before, with other content",
                              (int)p->ev.event_id.len, (const char *)p->ev.event_id.data);
        } else {
                v = ad_ids_put(p->seen, key, err);
                if (!v)
                        return err->code;
                *v = p->ev.fingerprint;
        }
        return 0;
}

static int judge(struct pass *p, const struct df_bytes *cells, size_t count, enum row_class *ret,
                 struct df_error *err)
{
        struct df_hash128 key;
        const uint64_t *known;
        bool own_id;
        int rc;

        rc = ad_import_map_row(p->map, cells, count, &p->arena, &p->ev, &p->why);
        if (rc < 0) {
                *ret = ROW_BAD;
                return rc == DF_EINVAL ? 0 : df_fail(err, rc, "%s", p->why.text);
        }
        own_id = p->ev.event_id.len > 0;
        rc = own_id ? 0 : derive_id(p, cells, count, err);
        if (rc < 0)
                return rc;
        stamp(p);
        *ret = ROW_FRESH;
        key = ad_event_key(p->ev.tenant_id, p->ev.event_id);
        if (own_id)
                rc = judge_repeat(p, key, ret, err);
        known = rc == 0 && *ret == ROW_FRESH ? ad_ids_find(p->known, key) : NULL;
        if (known && *known == p->ev.fingerprint) {
                *ret = ROW_KNOWN;
        } else if (known) {
                *ret = ROW_BAD;
                (void)df_fail(&p->why, DF_EINVAL,
                              "this row was imported before with other content (another mapping?)");
        } else if (*ret == ROW_FRESH && p->ranges) {
                p->hit = ad_import_ranges_hit(p->ranges, p->ev.event_ms);
                if (p->hit)
                        *ret = ROW_OVERLAP;
        }
        return rc;
}

static void digest_row(struct pass *p)
{
        struct df_buf b = {0};

        df_put_lstr(&b, p->ev.event_id);
        df_put_u64be(&b, p->ev.fingerprint);
        df_check(!b.failed);
        p->digest = df_digest_add(p->digest, df_buf_bytes(&b));
        df_buf_release(&b);
}

/* The next row and what it is. Only what concerns the file as a whole is an error. */
static int next_row(struct pass *p, enum row_class *ret, bool *ret_more, struct df_error *err)
{
        const struct df_bytes *cells;
        size_t count = 0;
        int rc;

        df_arena_reset(&p->arena);
        rc = ad_import_reader_next(p->reader, &cells, &count, ret_more, &p->why);
        if (rc == DF_EPARSE) {
                *ret = ROW_BAD;
                return 0;
        }
        if (rc < 0)
                return df_fail(err, rc, "%s: %s", p->o->file, p->why.text);
        if (!*ret_more)
                return 0;
        rc = bind(p, err);
        if (rc == 0)
                rc = judge(p, cells, count, ret, err);
        if (rc == 0 && *ret == ROW_FRESH)
                digest_row(p);
        return rc;
}

static int check_stop(uint64_t rows, struct df_error *err)
{
        if (rows % LOOK_EVERY || !df_process_stopping())
                return 0;
        return df_fail(err, DF_EAGAIN,
                       "stopped: run the same command again to go on, or with --abort to drop it");
}

/* ---- the first pass ---- */

static void count_row(struct pass *p, enum row_class c, struct ad_import_summary *s)
{
        uint64_t line = ad_import_reader_line(p->reader);

        s->rows++;
        switch (c) {
        case ROW_BAD:
                if (s->bad++ < PROBLEMS_SHOWN)
                        df_buf_printf(&s->problems, "  line %" PRIu64 ": %s\n", line, p->why.text);
                return;
        case ROW_KNOWN:
                s->known++;
                return;
        case ROW_OVERLAP:
                if (s->overlap++ < PROBLEMS_SHOWN)
                        df_buf_printf(&s->problems, "  line %" PRIu64 ": its time lies in %s\n",
                                      line, p->hit->what);
                return;
        case ROW_FRESH:
                break;
        }
        if (s->fresh++ == 0 || p->ev.event_ms < s->from_ms)
                s->from_ms = p->ev.event_ms / MINUTE_MS * MINUTE_MS;
        if (p->ev.event_ms >= s->to_ms)
                s->to_ms = (p->ev.event_ms / MINUTE_MS + 1) * MINUTE_MS;
}

static int first_pass(struct pass *p, struct ad_import_summary *s, struct df_error *err)
{
        struct df_progress progress;
        bool more = true;
        int rc = pass_begin(p, err);

        if (rc < 0)
                return rc;
        df_progress_start(&progress, "check", "bytes", ad_import_reader_size(p->reader),
                          p->o->quiet);
        rc = bind(p, err);
        while (rc == 0 && more) {
                enum row_class c = ROW_BAD;

                rc = next_row(p, &c, &more, err);
                if (rc == 0 && more) {
                        count_row(p, c, s);
                        rc = check_stop(s->rows, err);
                }
                df_progress_show(&progress, ad_import_reader_bytes(p->reader));
        }
        df_progress_end(&progress, ad_import_reader_bytes(p->reader));
        pass_end(p);
        return rc == 0 ? df_buf_check(&s->problems, err) : rc;
}

static int refuse(const struct ad_import_options *o, const struct ad_import_summary *s,
                  struct df_error *err)
{
        if (s->bad && !o->skip_bad)
                return df_fail(err, DF_EPARSE,
                               "%" PRIu64 " of %" PRIu64
                               " rows are bad; nothing was written (--skip-bad leaves them out)",
                               s->bad, s->rows);
        if (s->overlap && !o->as_backfill)
                return df_fail(
                        err, DF_EEXIST,
                        "import_overlaps: %" PRIu64 " of %" PRIu64
                        " rows are new, but lie where other data is already counted; nothing "
                        "was written. If they are not in that data, --as-backfill sends them "
                        "like live events (--accepted-age applies)",
                        s->overlap, s->rows);
        return 0;
}

/* ---- the second pass ---- */

static uint64_t generation_of(const struct ad_import_place *p, struct df_hash128 digest,
                              const struct ad_import_begin *b)
{
        struct df_buf x = {0};
        uint64_t g;

        df_put_lstr(&x, p->tenant);
        df_put_lstr(&x, p->dataset);
        df_put_u64be(&x, digest.lo);
        df_put_u64be(&x, digest.hi);
        df_put_u64be(&x, (uint64_t)b->from_ms);
        df_put_u64be(&x, (uint64_t)b->to_ms);
        df_put_u64be(&x, (uint64_t)b->receive_ms);
        df_check(!x.failed);
        g = df_hash64(df_buf_bytes(&x));
        df_buf_release(&x);
        return g ? g : 1;
}

/* Send what overlaps; before the generation begins, so that going on after a crash need not judge
 * overlaps again. */
static int backfill_pass(struct pass *p, struct ad_import_summary *s, struct df_error *err)
{
        struct ad_backfill *b = NULL;
        struct df_progress progress;
        uint64_t rows = 0;
        bool more = true;
        int rc;

        if (!p->o->url)
                return df_fail(err, DF_EINVAL, "--as-backfill needs a running server (--url)");
        rc = pass_begin(p, err);
        if (rc < 0)
                return rc;
        df_progress_start(&progress, "backfill", "rows", s->rows, p->o->quiet);
        rc = ad_backfill_open(p->place, p->o->url, p->o->key, &b, err);
        if (rc == 0)
                rc = bind(p, err);
        while (rc == 0 && more) {
                enum row_class c = ROW_BAD;

                rc = next_row(p, &c, &more, err);
                if (rc == 0 && more && c == ROW_OVERLAP)
                        rc = ad_backfill_add(b, &p->ev, ad_import_reader_line(p->reader), err);
                if (rc == 0 && more)
                        rc = check_stop(++rows, err);
                df_progress_show(&progress, rows);
        }
        if (rc == 0)
                rc = ad_backfill_end(b, &s->backfilled, &s->refused, err);
        df_progress_end(&progress, rows);
        if (rc == 0 && s->refused)
                rc = df_fail(err, DF_EPARSE,
                             "the server took %" PRIu64
                             " of the overlapping rows and refused %" PRIu64
                             "; the rest of the file was not written",
                             s->backfilled, s->refused);
        ad_backfill_close(b);
        pass_end(p);
        return rc;
}

static int write_rows(struct pass *p, struct ad_import_writer *w, struct ad_import_summary *s,
                      struct df_hash128 expected, struct df_error *err)
{
        struct df_progress progress;
        uint64_t rows = 0;
        bool more = true;
        int rc = bind(p, err);

        df_progress_start(&progress, "import", "rows", s->rows, p->o->quiet);
        while (rc == 0 && more) {
                enum row_class c = ROW_BAD;

                rc = next_row(p, &c, &more, err);
                if (rc == 0 && more && c == ROW_FRESH) {
                        s->user_ids_left_out += p->ev.user_id.len && p->place->drops_user_ids;
                        rc = ad_import_writer_add(w, &p->ev, err);
                }
                if (rc == 0 && more)
                        rc = check_stop(++rows, err);
                df_progress_show(&progress, rows);
        }
        df_progress_end(&progress, rows);
        if (rc == 0 && !df_hash128_eq(p->digest, expected))
                rc = df_fail(err, DF_ECORRUPT,
                             "%s changed while it was imported: drop what was written with --abort",
                             p->o->file);
        return rc < 0 ? rc : ad_import_writer_end(w, s->fresh, err);
}

static int write_pass(struct pass *p, struct ad_import_state *state, struct ad_import_summary *s,
                      struct df_hash128 digest, struct df_error *err)
{
        struct ad_import_begin begin = {
                .tenant_id = p->place->tenant,
                .dataset = p->place->dataset,
                .from_ms = s->from_ms,
                .to_ms = s->to_ms,
                .receive_ms = state->open ? state->begin.receive_ms : p->o->now_ms,
        };
        struct ad_import_writer *w = NULL;
        int rc;

        begin.generation = generation_of(p->place, digest, &begin);
        if (state->open && begin.generation != state->begin.generation)
                return df_fail(err, DF_EFENCED,
                               "another file (or other options) of this dataset is half imported: "
                               "run that command again to finish it, or this one with --abort to "
                               "drop it");
        p->receive_ms = begin.receive_ms;
        rc = pass_begin(p, err);
        if (rc < 0)
                return rc;
        rc = ad_import_writer_open(p->place, state, &begin, p->o->hook, p->o->hook_arg, &w, err);
        if (rc == 0) {
                s->resumed = ad_import_writer_skipped(w);
                s->generation = begin.generation;
                rc = write_rows(p, w, s, digest, err);
        }
        s->wrote = rc == 0;
        ad_import_writer_close(w);
        pass_end(p);
        return rc;
}

/* ---- together ---- */

static int run(struct pass *p, struct ad_import_state *state, struct ad_import_summary *s,
               struct df_error *err)
{
        struct ad_import_ranges *ranges = calloc(1, sizeof(*ranges));
        struct df_hash128 digest;
        int rc = 0;

        if (!ranges)
                return df_fail(err, DF_ENOMEM, "ranges");
        (void)snprintf(s->topic, sizeof(s->topic), "%s", state->topic);
        if (state->open && state->aborting)
                rc = df_fail(err, DF_EFENCED,
                             "an --abort of this dataset was cut off: run it again");
        if (rc == 0 && !state->open) { /* else they were judged when it began */
                rc = ad_import_ranges_find(p->place, p->o->url, p->o->key, ranges, err);
                p->ranges = ranges;
        }
        if (rc == 0)
                rc = first_pass(p, s, err);
        digest = p->digest;
        if (rc == 0)
                rc = refuse(p->o, s, err);
        if (rc == 0 && !p->o->dry_run && s->overlap)
                rc = backfill_pass(p, s, err);
        if (rc == 0 && !p->o->dry_run && (s->fresh || state->open))
                rc = write_pass(p, state, s, digest, err);
        free(ranges);
        return rc;
}

int ad_import_dataset(const struct ad_import_options *o, char ret[AD_DATASET_MAX + 1],
                      struct df_error *err)
{
        struct ad_import_reader *r = NULL;
        struct ad_import_map *m = NULL;
        const struct df_bytes *columns;
        struct df_buf b = {0};
        struct df_hash128 d;
        int rc = ad_import_map_create(&o->map, &m, err);

        if (rc == 0)
                rc = ad_import_reader_open(o->file, &r, err);
        if (rc == 0) {
                size_t n = ad_import_reader_columns(r, &columns);

                d = ad_import_map_digest(m);
                df_put_u64be(&b, d.lo);
                df_put_u64be(&b, d.hi);
                for (size_t i = 0; i < n; i++) /* NDJSON has no header: its mapping alone */
                        df_put_lstr(&b, columns[i]);
                rc = df_buf_check(&b, err);
                (void)snprintf(ret, AD_DATASET_MAX + 1, "file-%016" PRIx64,
                               df_hash64(df_buf_bytes(&b)));
        }
        ad_import_reader_close(r);
        ad_import_map_destroy(m);
        df_buf_release(&b);
        return rc;
}

int ad_import_run(const struct ad_import_options *o, struct ad_import_summary *ret,
                  struct df_error *err)
{
        struct ad_import_state *state = calloc(1, sizeof(*state));
        struct ad_import_place place = o->place;
        struct pass p = {.o = o, .place = &place, .receive_ms = o->now_ms};
        int lock = -1, rc = 0;

        memset(ret, 0, sizeof(*ret));
        if (!state)
                return df_fail(err, DF_ENOMEM, "state");
        if (place.dataset.len)
                (void)snprintf(ret->dataset, sizeof(ret->dataset), "%.*s", (int)place.dataset.len,
                               (const char *)place.dataset.data);
        else
                rc = ad_import_dataset(o, ret->dataset, err);
        place.dataset = df_bytes_str(ret->dataset);
        if (rc == 0)
                rc = ad_import_lock(&place, &lock, err);
        if (rc == 0)
                rc = ad_import_known_open(&place, &p.known, state, err);
        if (rc == 0)
                rc = run(&p, state, ret, err);
        ad_ids_close(p.known);
        p.known = NULL;
        if (rc == 0 && ret->wrote) { /* so that the next run is quick */
                rc = ad_import_known_open(&place, &p.known, state, err);
                ad_ids_close(p.known);
        }
        if (lock >= 0)
                close(lock);
        free(state);
        return rc;
}
