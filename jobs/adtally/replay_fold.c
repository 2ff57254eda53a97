/* replay_fold.c - from a run's rollups to its rows (replay.h).
 *
 * Rows go through a store on disk, keyed so that its order is the canonical one: a range may have
 * more cells than memory. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/rocksdb.h"
#include "df/sha256.h"
#include "jobs/adtally/replay.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define MINUTES_PER_DAY 1440
#define MINUTE_MS 60000LL

struct fold {
        const struct ad_replay *run;
        struct df_kv *kv;
        struct ad_replay_result *result;
        uint32_t partition; /* being read */
        struct df_buf key, value;
        /* The cell being summed, and where its line goes. */
        FILE *file;
        struct df_buf cell_key, cell_row, line;
        struct ad_cell sum;
};

/* ---- reading ---- */

static int take_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct fold *f = arg;
        int rc;

        df_buf_clear(&f->key);
        df_buf_clear(&f->value);
        df_put_u64be(&f->key, row->minute);
        df_put_u8(&f->key, (uint8_t)row->grouping);
        ad_put_ordered(&f->key, row->tenant_id);
        for (uint32_t d = 0; d < row->dim_count; d++)
                ad_put_ordered(&f->key, row->dims[d]);
        ad_put_ordered(&f->key, row->currency);
        df_put_u32be(&f->key, f->partition);
        ad_wire_row(&f->value, row);
        rc = df_buf_check(&f->key, err);
        if (rc == 0)
                rc = df_buf_check(&f->value, err);
        if (rc == 0) /* later ones replace it (W3) */
                df_store_put(df_kv_store(f->kv), df_buf_bytes(&f->key), df_buf_bytes(&f->value));
        return rc;
}

static int take_collection(void *arg, const struct df_collection *c, struct df_error *err)
{
        struct fold *f = arg;
        struct ad_replay_result *r = f->result;
        int rc = 0;

        r->records += c->seal.records;
        r->poison_records += c->seal.poison_records;
        r->heartbeats += c->seal.heartbeats;
        r->events += c->seal.events;
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                r->outcomes[i] += c->seal.outcomes[i];
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                rc = ad_wire_rows_decode(c->payloads[i], take_row, f, err);
        return rc == 0 ? df_store_commit(df_kv_store(f->kv), err) : rc;
}

/* ---- writing ---- */

static struct ad_replay_day *day_of(struct ad_replay_result *r, int64_t day,
                                    struct df_bytes currency)
{
        struct ad_replay_day *d;

        for (size_t i = r->day_count; i > 0 && r->days[i - 1].day == day; i--)
                if (df_bytes_eq(df_bytes_str(r->days[i - 1].currency), currency))
                        return &r->days[i - 1];
        if (r->day_count == r->day_cap) {
                size_t cap = r->day_cap ? r->day_cap * 2 : 64;
                struct ad_replay_day *days = realloc(r->days, cap * sizeof(*days));

                if (!days)
                        return NULL;
                r->days = days;
                r->day_cap = cap;
        }
        d = &r->days[r->day_count++];
        *d = (struct ad_replay_day){.day = day};
        (void)snprintf(d->currency, sizeof(d->currency), "%.*s", (int)currency.len,
                       (const char *)currency.data);
        return d;
}

/* One line for the cell that was summed. */
static int write_cell(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct fold *f = arg;
        const struct ad_grouping *g = row->grouping < ad_groupings_default.count
                                              ? &ad_groupings_default.list[row->grouping]
                                              : NULL;
        char start[AD_TIME_TEXT_MAX];
        struct ad_json *j;
        int rc;

        if (!g || g->dim_count != row->dim_count)
                return df_fail(err, DF_ECORRUPT, "run %s: a row of grouping %u", f->run->id,
                               row->grouping);
        (void)ad_time_text((int64_t)row->minute * MINUTE_MS, start);
        df_buf_clear(&f->line);
        j = ad_json_begin(&f->line);
        ad_json_open(j);
        ad_json_put_text(j, "window_start", start);
        ad_json_put_int(j, "grouping", row->grouping);
        ad_json_put_bytes(j, "tenant_id", row->tenant_id);
        for (uint32_t d = 0; d < row->dim_count; d++)
                ad_json_put_bytes(j, ad_dim_names[g->dims[d]], row->dims[d]);
        ad_json_put_bytes(j, "currency", row->currency);
        ad_replay_put_cell(j, &f->sum);
        ad_json_close(j);
        rc = ad_json_end(j, &f->line, err);
        df_put_u8(&f->line, '\n');
        if (rc == 0)
                rc = df_buf_check(&f->line, err);
        if (rc == 0 && fwrite(f->line.data, 1, f->line.len, f->file) != f->line.len)
                rc = df_fail_errno(err, DF_EIO, "write the rows");
        f->result->rows++;
        if (rc == 0 && row->grouping == 0) {
                struct ad_replay_day *d =
                        day_of(f->result, (int64_t)(row->minute / MINUTES_PER_DAY), row->currency);

                if (!d)
                        rc = df_fail(err, DF_ENOMEM, "days");
                else if (!ad_cell_add(&d->sum, &f->sum))
                        rc = df_fail(err, DF_ELIMIT, "a day's sum exceeds 128 bits");
        }
        return rc;
}

static int end_cell(struct fold *f, struct df_error *err)
{
        if (f->cell_row.len == 0)
                return 0;
        return ad_wire_rows_decode(df_buf_bytes(&f->cell_row), write_cell, f, err);
}

static int add_cell(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct fold *f = arg;

        if (ad_cell_add(&f->sum, &row->cell))
                return 0;
        return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
}

/* Rows of one cell stand together, one a source. */
static int on_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct fold *f = arg;
        struct df_bytes cell = df_bytes(key.data, key.len - sizeof(uint32_t));
        int rc = 0;

        if (!df_bytes_eq(cell, df_buf_bytes(&f->cell_key))) {
                rc = end_cell(f, err);
                df_buf_clear(&f->cell_key);
                df_buf_clear(&f->cell_row);
                df_buf_append(&f->cell_key, cell.data, cell.len);
                df_buf_append(&f->cell_row, value.data, value.len);
                f->sum = (struct ad_cell){0};
        }
        if (rc == 0)
                rc = df_buf_check(&f->cell_row, err);
        return rc == 0 ? ad_wire_rows_decode(value, add_cell, f, err) : rc;
}

static int by_day(const void *x, const void *y)
{
        const struct ad_replay_day *a = x, *b = y;

        if (a->day != b->day)
                return a->day < b->day ? -1 : 1;
        return strcmp(a->currency, b->currency);
}

/* All rows in canonical order, and the digest of what was written. */
static int write_rows(struct fold *f, const char *path, struct df_error *err)
{
        struct df_bytes all = {0};
        uint8_t digest[DF_SHA256_SIZE];
        uint64_t size;
        int rc;

        f->file = fopen(path, "we");
        if (!f->file)
                return df_fail_errno(err, DF_EIO, "write %s", path);
        rc = df_kv_range(f->kv, NULL, all, all, on_row, f, err);
        if (rc == 0)
                rc = end_cell(f, err);
        if (fclose(f->file) != 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        if (rc == 0)
                rc = df_sha256_file(path, digest, &size, err);
        if (rc == 0)
                df_hex(digest, sizeof(digest), f->result->digest);
        if (f->result->day_count)
                qsort(f->result->days, f->result->day_count, sizeof(*f->result->days), by_day);
        return rc;
}

static int check_ledger(const struct fold *f, struct df_error *err)
{
        const struct ad_replay_result *r = f->result;
        uint64_t ended = 0;

        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                ended += r->outcomes[i];
        if (ended == r->events)
                return 0;
        return df_fail(err, DF_ECORRUPT, "run %s: %" PRIu64 " events have %" PRIu64 " outcomes",
                       f->run->id, r->events, ended);
}

static int fold(struct fold *f, struct df_log *log, const char *path, bool quiet,
                struct df_error *err)
{
        uint32_t partitions = f->run->pin.topic.partitions;
        struct ad_replay_names names;
        struct df_progress progress;
        int rc = 0;

        ad_replay_names(f->run, &names);
        df_progress_start(&progress, "fold", "partitions", partitions, quiet);
        for (f->partition = 0; rc == 0 && f->partition < partitions; f->partition++) {
                struct ad_replay_mark mark;

                ad_replay_mark_start(f->run, f->partition, &mark);
                rc = ad_replay_read(log, f->run, names.topic[AD_OUT_ROLLUPS], f->partition, &mark,
                                    take_collection, f, err);
                df_progress_show(&progress, f->partition + 1);
        }
        df_progress_end(&progress, f->partition);
        if (rc == 0)
                rc = check_ledger(f, err);
        return rc == 0 ? write_rows(f, path, err) : rc;
}

int ad_replay_fold(struct df_log *log, const struct ad_replay *r, const char *out, bool quiet,
                   struct ad_replay_result *ret, struct df_error *err)
{
        struct fold f = {.run = r, .result = ret};
        char store[640], path[4096];
        int rc, n;

        *ret = (struct ad_replay_result){0};
        (void)snprintf(store, sizeof(store), "%s/fold", r->dir);
        n = snprintf(path, sizeof(path), "%s%s", out ? out : r->dir, out ? ".part" : "/rows");
        rc = n < (int)sizeof(path) ? df_remove_tree(store, err)
                                   : df_fail(err, DF_EINVAL, "--out: the path is too long");
        if (rc == 0)
                rc = df_kv_open(store, NULL, &f.kv, err);
        if (rc == 0)
                rc = fold(&f, log, path, quiet, err);
        if (f.kv)
                df_kv_close(f.kv);
        if (rc == 0)
                rc = df_remove_tree(store, err);
        if (rc == 0 && out && rename(path, out) < 0)
                rc = df_fail_errno(err, DF_EIO, "rename %s to %s", path, out);
        if (!out || rc < 0)
                (void)unlink(path); /* mostly there */
        df_buf_release(&f.key);
        df_buf_release(&f.value);
        df_buf_release(&f.cell_key);
        df_buf_release(&f.cell_row);
        df_buf_release(&f.line);
        return rc;
}

void ad_replay_result_release(struct ad_replay_result *r)
{
        free(r->days);
        *r = (struct ad_replay_result){0};
}
