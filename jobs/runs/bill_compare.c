/* bill_compare.c - what realtime's rules give, against what realtime wrote (R2, R3).
 *
 * The run's own minute rows, of the chain that realtime runs, and the newest rows in `rollups` must
 * be equal in every window that was final at the run's end: nothing can be added to it later. Where
 * they are not, in a partition that realtime has read up to there, but for records without events,
 * the difference is unexplained; in one that it has not, it is not yet processed. Rows of windows
 * that may have left the log (--keep-log) are not compared, and counted as such.
 *
 * Rows lie in a store on disk: 'v' cell generation partition side. One that is kept from vector to
 * vector has beside them how far both topics were read ('r' and 'w' with the partition), and only
 * the cells that are not settled: of windows that are not final, of partitions that are behind, and
 * those that differ. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/rocksdb.h"
#include "jobs/common/raw_scan.h"
#include "jobs/runs/fold.h"

#define COLLECT_BYTES (256u << 20)
#define READ_RECORDS 256
#define LOOK_MS 200
#define COMMIT_EVERY 20000      /* deletions */
#define QUIET_RECORDS_MAX 10000 /* that are looked at for events */
#define MINUTE_MS 60000LL
#define MINUTES_PER_QUARTER 15

enum side { REPLAYED, WRITTEN };

/* How far `rollups` was read in a partition. */
struct written {
        uint64_t k, offset, generation;
        uint64_t reached; /* of realtime, by its seals */
        int64_t from_ms;  /* rows of windows before it may be gone */
        bool any;
};

struct compare {
        struct df_log *log;
        const struct ad_replay *run;
        const struct ad_compare_options *options;
        struct ad_bill_result *result;
        struct df_kv *kv;
        uint32_t partition;
        uint64_t generation; /* of the source being read: an import has several */
        enum side side;
        struct ad_replay_mark replayed; /* of the partition being read */
        struct written written[DF_PARTITIONS_MAX];
        struct df_buf key, value;
        struct df_buf cell_key, cell_row; /* the cell being compared */
        struct ad_cell cell[2];
        uint32_t cell_partition;
        size_t deleted;
};

/* ---- collecting ---- */

static bool is_told(const struct compare *f, const struct ad_row *row)
{
        uint64_t quarter = row->minute / MINUTES_PER_QUARTER;

        return row->grouping == 0 && quarter >= f->result->from && quarter < f->result->to;
}

static int take_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct compare *f = arg;
        int rc;

        if (!is_told(f, row))
                return 0;
        df_buf_clear(&f->key);
        df_buf_clear(&f->value);
        df_put_u8(&f->key, 'v');
        df_put_u64be(&f->key, row->minute);
        ad_put_ordered(&f->key, row->tenant_id);
        for (uint32_t d = 0; d < row->dim_count; d++)
                ad_put_ordered(&f->key, row->dims[d]);
        ad_put_ordered(&f->key, row->currency);
        df_put_u64be(&f->key, f->generation);
        df_put_u32be(&f->key, f->partition);
        df_put_u8(&f->key, (uint8_t)f->side);
        ad_wire_row(&f->value, row);
        rc = df_buf_check(&f->key, err);
        if (rc == 0)
                rc = df_buf_check(&f->value, err);
        if (rc == 0) /* later ones replace it (W3) */
                df_store_put(df_kv_store(f->kv), df_buf_bytes(&f->key), df_buf_bytes(&f->value));
        return rc;
}

/* Rows and place in one write. */
static int take_rows(struct compare *f, const struct df_collection *c, char kind, const void *place,
                     size_t size, struct df_error *err)
{
        struct df_store *kv = df_kv_store(f->kv);
        int rc = 0;

        f->generation = c->origin.source.generation;
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                rc = ad_wire_rows_decode(c->payloads[i], take_row, f, err);
        df_buf_clear(&f->key);
        df_put_u8(&f->key, (uint8_t)kind);
        df_put_u32be(&f->key, f->partition);
        if (rc == 0)
                rc = df_buf_check(&f->key, err);
        if (rc < 0) {
                df_store_rollback(kv);
                return rc;
        }
        df_store_put(kv, df_buf_bytes(&f->key), df_bytes(place, size));
        return df_store_commit(kv, err);
}

static int read_place(struct compare *f, char kind, void *ret, size_t size, struct df_error *err)
{
        bool found = false;
        int rc;

        df_buf_clear(&f->key);
        df_put_u8(&f->key, (uint8_t)kind);
        df_put_u32be(&f->key, f->partition);
        rc = df_kv_get(f->kv, NULL, df_buf_bytes(&f->key), &f->value, &found, err);
        if (rc < 0 || !found)
                return rc;
        if (f->value.len != size)
                return df_fail(err, DF_ECORRUPT, "the store of rows: a place of another length");
        memcpy(ret, f->value.data, size);
        return 0;
}

static int take_replayed(void *arg, const struct df_collection *c, struct df_error *err)
{
        struct compare *f = arg;

        return take_rows(f, c, 'r', &f->replayed, sizeof(f->replayed), err);
}

static bool is_ours(const struct compare *f, const struct df_source *s)
{
        return strcmp(s->stream, f->run->pin.topic.name) == 0 && s->partition == f->partition &&
               (s->generation == f->run->pin.topic.generation || ad_topic_is_import(s->stream));
}

/* The first seal that is still held says since when all rows are. */
static int take_written(struct compare *f, const struct df_collection *c, uint64_t floor,
                        struct df_error *err)
{
        struct written *w = &f->written[f->partition];

        if (!is_ours(f, &c->origin.source))
                return 0;
        if (!w->any && c->seal.from_offset > f->run->pin.span[f->partition].from)
                w->from_ms = c->seal.max_receive_ms + AD_FUTURE_MAX_MS;
        w->any = true;
        w->k = c->origin.k;
        w->generation = c->origin.source.generation;
        w->offset = floor;
        w->reached = c->seal.to_offset;
        return take_rows(f, c, 'w', w, sizeof(*w), err);
}

/* ---- waiting for realtime (R2) ---- */

struct follow {
        struct df_log_reader *reader;
        struct df_collector *collector;
        int64_t moved_ms;
        bool looked; /* for events behind the last seal */
};

static int read_some(struct compare *f, struct follow *w, size_t *ret_count, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        int rc = df_log_poll(w->reader, records, READ_RECORDS, ret_count, err);

        for (size_t i = 0; rc == 0 && i < *ret_count; i++) {
                enum df_collect what = DF_COLLECT_MORE;
                struct df_collection c;

                rc = df_collector_add(w->collector, &records[i], &what, &c, err);
                if (rc == 0 && what == DF_COLLECT_DAMAGED)
                        return df_fail(err, DF_ECORRUPT,
                                       AD_TOPIC_ROLLUPS "/%u: offset %" PRIu64
                                                        " ends a damaged collection: realtime's "
                                                        "rows cannot be compared",
                                       f->partition, records[i].offset);
                if (rc == 0 && what == DF_COLLECT_COMPLETE) {
                        uint64_t before = f->written[f->partition].reached;

                        rc = take_written(f, &c,
                                          df_collector_floor(w->collector, records[i].offset + 1),
                                          err);
                        if (f->written[f->partition].reached > before) {
                                w->moved_ms = df_monotonic_ms();
                                w->looked = false;
                        }
                }
        }
        return rc;
}

static int on_event(void *arg, const struct ad_event *ev, struct df_error *err)
{
        (void)arg;
        (void)ev;
        (void)err;
        return 1;
}

static bool stopping(void *arg)
{
        (void)arg;
        return df_process_stopping();
}

/* A partition in which only heartbeats come commits every 30 s alone (K12). What holds no event
 * adds nothing to rows: realtime is as far as if it had read it. */
static int pass_heartbeats(struct compare *f, struct df_error *err)
{
        const struct ad_replay_span *span = &f->run->pin.span[f->partition];
        struct written *w = &f->written[f->partition];
        struct ad_raw_scan scan = {
                .log = f->log,
                .topic = f->run->pin.topic.name,
                .partition = f->partition,
                .from = w->reached > span->from ? w->reached : span->from,
                .to = span->to,
                .stop = stopping,
                .fn = on_event,
        };
        int rc;

        if (ad_topic_is_import(scan.topic) || scan.to - scan.from > QUIET_RECORDS_MAX)
                return 0;
        rc = ad_raw_scan(&scan, err);
        if (rc == 0)
                w->reached = scan.to;
        return rc > 0 || rc == DF_EOFFSET || rc == DF_EAGAIN ? 0 : rc; /* it is waited for */
}

static int follow_partition(struct compare *f, struct follow *w, struct df_error *err)
{
        uint64_t to = f->run->pin.span[f->partition].to;

        w->moved_ms = df_monotonic_ms();
        for (;;) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};
                size_t n = 0;
                int rc = read_some(f, w, &n, err);

                if (rc == 0 && n == 0 && !w->looked && f->written[f->partition].reached < to) {
                        w->looked = true;
                        rc = pass_heartbeats(f, err);
                }
                if (rc < 0 || f->written[f->partition].reached >= to)
                        return rc;
                if (df_process_stopping())
                        return df_fail(err, DF_EAGAIN, "stopped: the same command goes on");
                if (n == 0 && df_monotonic_ms() - w->moved_ms >= f->options->wait_ms) {
                        f->result->behind[f->result->behind_count++] = f->partition;
                        return 0;
                }
                if (n == 0)
                        (void)poll(&p, 1, LOOK_MS); /* an early wake-up is harmless */
        }
}

static int read_written(struct compare *f, struct df_error *err)
{
        struct written *w = &f->written[f->partition];
        struct df_source source = {.partition = f->partition};
        struct follow follow = {0};
        uint64_t first, end;
        int rc;

        *w = (struct written){.from_ms = INT64_MIN};
        f->side = WRITTEN;
        rc = read_place(f, 'w', w, sizeof(*w), err);
        if (rc == 0 && w->any && w->reached >= f->run->pin.span[f->partition].to)
                return 0; /* an import that is over: its rows may have left the log since */
        if (rc == 0)
                rc = df_log_bounds(f->log, AD_TOPIC_ROLLUPS, f->partition, &first, &end, err);
        if (rc == 0)
                rc = df_log_reader_open(f->log, AD_TOPIC_ROLLUPS, f->partition,
                                        w->any ? w->offset : first, NULL, &follow.reader, err);
        if (rc == 0)
                rc = df_collector_create(COLLECT_BYTES, &follow.collector, err);
        (void)snprintf(source.stream, sizeof(source.stream), "%s", f->run->pin.topic.name);
        source.generation = w->generation;
        if (rc == 0 && w->any)
                rc = df_collector_applied(follow.collector, &source, w->k, err);
        if (rc == 0)
                rc = follow_partition(f, &follow, err);
        df_collector_destroy(follow.collector);
        df_log_reader_close(follow.reader);
        return rc;
}

/* ---- comparing ---- */

static bool equal(const struct ad_cell *a, const struct ad_cell *b)
{
        return memcmp(a, b, sizeof(*a)) == 0; /* no padding: 6 words and 3 sums of two */
}
_Static_assert(sizeof(struct ad_cell) == 6 * 8 + 3 * 16, "compared as bytes");

/* Both sides hold it, so it is no difference in all; but the bill names its campaigns. */
static int note_folded(struct compare *f, const struct ad_row *row, struct df_error *err)
{
        struct ad_bill_total *t;

        if (row->dim_count == 0 || !df_bytes_eq(row->dims[0], df_bytes_str(AD_OTHER)))
                return 0;
        t = ad_bill_total(f->result, AD_CAUSE_UNFOLDED, row->currency);
        if (!t || !ad_cell_add(&t->billed, &f->cell[REPLAYED]) ||
            !ad_cell_add(&t->realtime, &f->cell[REPLAYED]))
                return df_fail(err, DF_ELIMIT, "the folded amounts exceed what a total holds");
        t->cells++;
        return 0;
}

/* Nothing can change it any more. */
static void settle(struct compare *f)
{
        struct df_store *kv = df_kv_store(f->kv);

        if (!f->options->keep)
                return;
        for (uint8_t side = REPLAYED; side <= WRITTEN; side++) {
                f->cell_key.data[f->cell_key.len - 1] = side;
                df_store_del(kv, df_buf_bytes(&f->cell_key));
                f->deleted++;
        }
}

static int tell(struct compare *f, const struct ad_row *row, uint32_t cause, struct df_error *err)
{
        struct ad_bill_row difference = {
                .quarter = row->minute / MINUTES_PER_QUARTER,
                .tenant_id = row->tenant_id,
                .advertiser_id = row->dims[0],
                .campaign_id = row->dims[1],
                .currency = row->currency,
                .cause = cause,
                .realtime = f->cell[WRITTEN],
        };

        if (!f->options->difference)
                return 0;
        if (!ad_cell_subtract(&difference.realtime, &f->cell[REPLAYED]))
                return df_fail(err, DF_ELIMIT, "a difference exceeds 128 bits, or 64 of a count");
        return f->options->difference(f->options->arg, &difference, err);
}

static int judge(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct compare *f = arg;
        const struct written *w = &f->written[f->cell_partition];
        bool behind = w->reached < f->run->pin.span[f->cell_partition].to;
        uint32_t cause = behind ? AD_CAUSE_PENDING : AD_CAUSE_UNEXPLAINED;
        struct ad_bill_total *t;
        int rc;

        if ((int64_t)(row->minute + 1) * MINUTE_MS > f->result->final_through_ms[f->cell_partition])
                return 0;
        rc = note_folded(f, row, err);
        if (rc < 0)
                return rc;
        if ((int64_t)row->minute * MINUTE_MS < w->from_ms) {
                f->result->skipped++;
                settle(f);
                return 0;
        }
        f->result->compared++;
        if (equal(&f->cell[REPLAYED], &f->cell[WRITTEN])) {
                if (!behind)
                        settle(f);
                return 0;
        }
        t = ad_bill_total(f->result, cause, row->currency);
        if (!t)
                return df_fail(err, DF_ELIMIT, "more than %d totals", AD_BILL_TOTALS_MAX);
        t->cells++;
        if (!ad_cell_add(&t->billed, &f->cell[REPLAYED]) ||
            !ad_cell_add(&t->realtime, &f->cell[WRITTEN]))
                return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
        return tell(f, row, cause, err);
}

static int end_cell(struct compare *f, struct df_error *err)
{
        int rc = 0;

        if (f->cell_row.len)
                rc = ad_wire_rows_decode(df_buf_bytes(&f->cell_row), judge, f, err);
        if (rc == 0 && f->deleted >= COMMIT_EVERY) {
                f->deleted = 0;
                rc = df_store_commit(df_kv_store(f->kv), err);
        }
        return rc;
}

static int keep(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct compare *f = arg;

        (void)err;
        f->cell[f->side] = row->cell;
        return 0;
}

/* Both sides of a cell of one partition stand together. */
static int on_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct compare *f = arg;
        struct df_bytes cell = df_bytes(key.data, key.len - 1);
        int rc = 0;

        if (f->cell_key.len == 0 ||
            !df_bytes_eq(cell, df_bytes(f->cell_key.data, f->cell_key.len - 1))) {
                struct df_reader r = df_reader(df_bytes(cell.data + cell.len - 4, 4));

                rc = end_cell(f, err);
                df_buf_clear(&f->cell_key);
                df_buf_clear(&f->cell_row);
                df_buf_append(&f->cell_key, key.data, key.len);
                df_buf_append(&f->cell_row, value.data, value.len);
                f->cell[REPLAYED] = f->cell[WRITTEN] = (struct ad_cell){0};
                f->cell_partition = df_get_u32be(&r);
        }
        f->side = (enum side)key.data[key.len - 1];
        if (rc == 0)
                rc = df_buf_check(&f->cell_key, err);
        if (rc == 0)
                rc = df_buf_check(&f->cell_row, err);
        return rc == 0 ? ad_wire_rows_decode(value, keep, f, err) : rc;
}

static int read_both(struct compare *f, struct df_error *err)
{
        uint32_t partitions = f->run->pin.topic.partitions;
        struct ad_replay_names names;
        struct df_progress progress;
        int rc = 0;

        ad_replay_names(f->run, &names);
        df_progress_start(&progress, "compare with realtime", "partitions", partitions,
                          f->options->quiet);
        for (f->partition = 0; rc == 0 && f->partition < partitions; f->partition++) {
                f->side = REPLAYED;
                ad_replay_mark_start(f->run, f->partition, &f->replayed);
                rc = read_place(f, 'r', &f->replayed, sizeof(f->replayed), err);
                if (rc == 0)
                        rc = ad_replay_read(f->log, f->run, names.topic[AD_OUT_ROLLUPS],
                                            f->partition, &f->replayed, take_replayed, f, err);
                if (rc == 0)
                        rc = read_written(f, err);
                df_progress_show(&progress, f->partition + 1);
        }
        df_progress_end(&progress, f->partition);
        return rc;
}

static int compare_all(struct compare *f, struct df_error *err)
{
        struct df_bytes from = df_bytes("v", 1), to = df_bytes("w", 1);
        int rc = df_kv_range(f->kv, NULL, from, to, on_row, f, err);

        if (rc == 0)
                rc = end_cell(f, err);
        return rc == 0 ? df_store_commit(df_kv_store(f->kv), err) : rc;
}

static int compare_in(struct compare *f, const char *dir, struct df_error *err)
{
        int rc = df_kv_open(dir, NULL, &f->kv, err);

        if (rc == 0)
                rc = read_both(f, err);
        if (rc == 0)
                rc = compare_all(f, err);
        if (f->kv)
                df_kv_close(f->kv);
        f->kv = NULL;
        return rc;
}

int ad_bill_compare(struct df_log *log, const struct ad_replay *run,
                    const struct ad_compare_options *o, struct ad_bill_result *ret,
                    struct df_error *err)
{
        struct compare *f = calloc(1, sizeof(*f));
        char store[640];
        int rc = f ? 0 : df_fail(err, DF_ENOMEM, "compare");

        (void)snprintf(store, sizeof(store), "%s/compare%s", run->dir, o->keep ? "d" : "");
        if (rc == 0 && (!o->keep || o->all))
                rc = df_remove_tree(store, err);
        if (rc < 0) {
                free(f);
                return rc;
        }
        f->log = log;
        f->run = run;
        f->options = o;
        f->result = ret;
        rc = compare_in(f, store, err);
        if (!o->keep && rc == 0)
                rc = df_remove_tree(store, err);
        df_buf_release(&f->key);
        df_buf_release(&f->value);
        df_buf_release(&f->cell_key);
        df_buf_release(&f->cell_row);
        free(f);
        return rc;
}
