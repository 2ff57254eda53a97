/* test_fold.c - what a reconcile run found, kept between its vectors (jobs/runs/fold.h): step by
 * step and through damage the rows are those of a fold from the start, and the targets are those of
 * a recount of the cells that changed. */
#include "unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "df/filelog.h"
#include "jobs/runs/fold.h"

#include "dice.h"

#define PARTITIONS 2
#define CELLS 12 /* that rows are of */
#define CAUSES 4 /* of rows: none, late, duplicate, conflict */
#define STEPS 30
#define FILE_MAX (1u << 22)

/* One fold's truth. */
struct naive {
        struct ad_cell billed[CELLS][CAUSES], realtime[CELLS][CAUSES];
        bool has[CELLS][CAUSES];
        int64_t odd[CELLS]
                   [2]; /* differences: clicks that realtime has beyond; pending, unexplained */
        bool has_odd[CELLS][2];
        bool dirty[CELLS];
};
struct topic {
        struct ad_replay run;
        struct naive naive;
        uint64_t k[PARTITIONS], to[PARTITIONS];
        struct df_log_writer *writer;
};
struct rig {
        char dir[64];
        struct df_log *log;
        struct topic topics[2]; /* events, an import */
        bool damaged;           /* since the last post */
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        (void)st;
        (void)flag;
        (void)f;
        return remove(path);
}

static void open_topic(struct rig *r, struct topic *t, const char *name, const char *id)
{
        struct ad_replay_names names;

        t->run = (struct ad_replay){.kind = &ad_run_reconcile, .lock_fd = -1, .done = true};
        (void)snprintf(t->run.id, sizeof(t->run.id), "%s", id);
        (void)snprintf(t->run.dir, sizeof(t->run.dir), "%s/%s", r->dir, id);
        (void)snprintf(t->run.pin.topic.name, sizeof(t->run.pin.topic.name), "%s", name);
        t->run.pin.topic.generation = 7;
        t->run.pin.topic.partitions = PARTITIONS;
        ok(df_mkdirs(t->run.dir, &err));
        ad_replay_names(&t->run, &names);
        ok(df_log_topic_create(r->log, names.topic[AD_OUT_BILL], PARTITIONS, &err));
        ok(df_log_writer_open(r->log, names.topic[AD_OUT_BILL], &t->writer, &err));
}

static void rig_open(struct rig *r)
{
        struct df_filelog_options o = {.reserve_bytes = 4096, .min_free_bytes = 1};
        char path[80];

        memset(r, 0, sizeof(*r));
        (void)snprintf(r->dir, sizeof(r->dir), "/tmp/test-fold-XXXXXX");
        assert_non_null(mkdtemp(r->dir));
        (void)snprintf(path, sizeof(path), "%s/log", r->dir);
        ok(df_mkdirs(path, &err));
        ok(df_filelog_open(path, &o, &r->log, &err));
        open_topic(r, &r->topics[0], "events", "00000000000000aa");
        open_topic(r, &r->topics[1], "import.x", "00000000000000bb");
}

static void rig_close(struct rig *r)
{
        for (int i = 0; i < 2; i++)
                df_log_writer_close(r->topics[i].writer);
        df_log_close(r->log);
        (void)nftw(r->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- what a run writes ---- */

static void name_cell(int cell, struct ad_bill_row *row)
{
        static const char *const campaigns[] = {"a", "a\0b", "b"};

        row->quarter = 100 + (uint64_t)cell / 6;
        row->tenant_id = df_bytes_str(cell % 2 ? "t2" : "t");
        row->advertiser_id = df_bytes_str("adv");
        row->campaign_id =
                cell % 3 == 1 ? df_bytes(campaigns[1], 3) : df_bytes_str(campaigns[cell % 3]);
        row->publisher_id = df_bytes_str("");
        row->currency = df_bytes_str("EUR");
}

static struct ad_cell draw_cell(void)
{
        return (struct ad_cell){.impressions = dice(5),
                                .clicks = dice(1000),
                                .invalid = {0, dice(3), 0},
                                .spend = (df_nanos)dice(1u << 30) * (dice(9) ? 1 : -1),
                                .payout = (df_nanos)dice(1u << 20) << 60};
}

static void append(struct topic *t, uint32_t partition, const struct df_buf *b)
{
        struct df_append a = {.partition = partition, .value = df_buf_bytes(b)};

        assert_false(b->failed);
        ok(df_log_append(t->writer, &a, 1, &err));
}

static void draw_row(struct naive *n, struct df_buf *payload)
{
        int cell = (int)dice(CELLS);
        struct ad_bill_row row = {.cause = (uint32_t)dice(CAUSES), .billed = draw_cell()};

        name_cell(cell, &row);
        row.realtime = row.cause == AD_CAUSE_NONE ? row.billed : draw_cell();
        ad_wire_bill_row(payload, &row);
        assert_true(ad_cell_add(&n->billed[cell][row.cause], &row.billed));
        assert_true(ad_cell_add(&n->realtime[cell][row.cause], &row.realtime));
        n->has[cell][row.cause] = n->dirty[cell] = true;
}

/* A checkpoint: its rows in 0 to 3 payloads; now and then as an owner before wrote it, too. */
static void write_checkpoint(struct topic *t, uint32_t p)
{
        struct df_origin o = {
                .source = {.generation = 7, .partition = p}, .k = ++t->k[p], .epoch = 1 + dice(2)};
        struct df_seal seal = {.parent_k = o.k - 1, .from_offset = t->to[p], .events = 0};
        struct df_buf payload = {0}, b = {0};

        (void)snprintf(o.source.stream, sizeof(o.source.stream), "%s", t->run.pin.topic.name);
        for (uint64_t i = dice(4); i > 0; i--) {
                df_buf_clear(&payload);
                df_buf_clear(&b);
                for (uint64_t rows = 1 + dice(4); rows > 0; rows--)
                        draw_row(&t->naive, &payload);
                df_output_encode(&b, &o, df_buf_bytes(&payload));
                append(t, p, &b);
                seal.rows_digest = df_digest_add(seal.rows_digest, df_buf_bytes(&payload));
                o.n = ++seal.rows;
        }
        t->to[p] += 1 + dice(10);
        seal.to_offset = t->to[p];
        seal.digest = (struct df_hash128){o.k, p + 1};
        seal.final_through_ms = (int64_t)o.k;
        (void)snprintf(seal.binary_version, sizeof(seal.binary_version), "test");
        df_buf_clear(&b);
        df_output_encode_seal(&b, &o, &seal);
        append(t, p, &b);
        df_buf_release(&payload);
        df_buf_release(&b);
        t->run.pin.span[p].to = t->to[p];
        t->run.pin.span[p].k = t->k[p];
}

static void go_on(struct topic *t)
{
        for (uint32_t p = 0; p < PARTITIONS; p++)
                for (uint64_t n = dice(3) + (t->k[p] == 0); n > 0; n--)
                        write_checkpoint(t, p);
}

/* ---- rows ---- */

static void read_file(const char *path, struct df_buf *ret)
{
        df_buf_clear(ret);
        ok(df_read_file(path, FILE_MAX, ret, &err));
}

static void check_rows(struct rig *r, struct topic *t, struct ad_fold *fold)
{
        static struct ad_bill_result kept, anew;
        char dir[128], a[160], b[160], digest[65];
        struct df_buf x = {0}, y = {0};
        struct ad_fold *fresh = NULL;
        uint64_t rows = 0, want = 0;

        (void)snprintf(dir, sizeof(dir), "%s/fresh", r->dir);
        (void)snprintf(a, sizeof(a), "%s/kept.jsonl", r->dir);
        (void)snprintf(b, sizeof(b), "%s/anew.jsonl", r->dir);
        ok(df_remove_tree(dir, &err));
        kept = anew = (struct ad_bill_result){.to = UINT64_MAX};
        ok(ad_fold_rows(fold, a, &kept, &err));
        ok(ad_fold_open(&t->run, dir, &fresh, &err));
        ok(ad_fold_take(fresh, r->log, &anew, &err));
        ok(ad_fold_rows(fresh, b, &anew, &err));
        read_file(a, &x);
        read_file(b, &y);
        for (int c = 0; c < CELLS; c++)
                for (int cause = 0; cause < CAUSES; cause++)
                        want += t->naive.has[c][cause];
        if (!df_bytes_eq(df_buf_bytes(&x), df_buf_bytes(&y)) || kept.rows != want ||
            strcmp(kept.digest, anew.digest) != 0)
                fail_msg("seed %" PRIu64 ": %" PRIu64 " rows kept, %" PRIu64 " anew, %" PRIu64
                         " wanted",
                         dice_seed, kept.rows, anew.rows, want);
        assert_true(ad_fold_summary(fold, &rows, digest));
        assert_true(rows == want && strcmp(digest, anew.digest) == 0);
        for (uint32_t p = 0; p < PARTITIONS; p++)
                assert_int_equal(anew.final_through_ms[p], t->k[p]);
        ad_fold_close(fresh);
        df_buf_release(&x);
        df_buf_release(&y);
}

/* ---- differences and targets ---- */

static void compare(struct topic *t, struct ad_fold *fold)
{
        struct naive *n = &t->naive;

        ok(ad_fold_differences_begin(fold, &err));
        for (int c = 0; c < CELLS; c++)
                for (int i = 0; i < 2; i++) {
                        bool has = dice(6) == 0;
                        int64_t odd = has ? (int64_t)dice(3) - 1 : 0, left = odd;
                        struct ad_bill_row row = {.cause = i ? AD_CAUSE_UNEXPLAINED
                                                             : AD_CAUSE_PENDING};

                        name_cell(c, &row);
                        for (int parts = 2; has && parts > 0; parts--) { /* two minutes of it */
                                int64_t part = parts == 1 ? left : (int64_t)dice(100) - 50;

                                left -= part;
                                row.realtime.clicks = (uint64_t)part;
                                row.realtime.spend = part * 3;
                                ok(ad_fold_difference(fold, &row, &err));
                        }
                        if (has != n->has_odd[c][i] || odd != n->odd[c][i])
                                n->dirty[c] = true;
                        n->has_odd[c][i] = has;
                        n->odd[c][i] = odd;
                }
        ok(ad_fold_differences_end(fold, &err));
}

struct seen {
        const struct rig *r;
        bool cells[CELLS];
        int last; /* canonical order: of the cell's place */
        size_t count;
};

static int cell_of(const struct ad_target *t)
{
        for (int c = 0; c < CELLS; c++) {
                struct ad_bill_row row = {0};

                name_cell(c, &row);
                if (row.quarter == t->quarter && df_bytes_eq(row.tenant_id, t->tenant_id) &&
                    df_bytes_eq(row.advertiser_id, t->advertiser_id) &&
                    df_bytes_eq(row.campaign_id, t->campaign_id) &&
                    df_bytes_eq(row.publisher_id, t->publisher_id) &&
                    df_bytes_eq(row.currency, t->currency))
                        return c;
        }
        fail_msg("seed %" PRIu64 ": a target of no cell", dice_seed);
        return -1;
}

static int check_target(void *arg, const struct ad_target *t, struct df_error *e)
{
        struct seen *s = arg;
        int c = cell_of(t);
        size_t at = 0;

        (void)e;
        assert_false(s->cells[c]);
        s->cells[c] = true;
        s->count++;
        for (uint32_t cause = 0; cause < AD_CAUSE_COUNT; cause++) {
                struct ad_cell billed = {0}, realtime = {0};
                bool has = false;

                for (int i = 0; i < 2; i++) {
                        const struct naive *n = &s->r->topics[i].naive;
                        int odd = cause == AD_CAUSE_PENDING       ? 0
                                  : cause == AD_CAUSE_UNEXPLAINED ? 1
                                                                  : -1;

                        if (cause < CAUSES && n->has[c][cause]) {
                                has = true;
                                assert_true(ad_cell_add(&billed, &n->billed[c][cause]));
                                assert_true(ad_cell_add(&realtime, &n->realtime[c][cause]));
                        } else if (odd >= 0 && n->has_odd[c][odd]) {
                                has = true;
                                realtime.clicks += (uint64_t)n->odd[c][odd];
                                realtime.spend += n->odd[c][odd] * 3;
                        }
                }
                if (!has)
                        continue;
                if (at == t->cause_count || t->causes[at].cause != cause ||
                    !ad_cell_eq(&t->causes[at].billed, &billed) ||
                    !ad_cell_eq(&t->causes[at].realtime, &realtime))
                        fail_msg("seed %" PRIu64 ": cell %d, cause %s", dice_seed, c,
                                 ad_cause_code(cause));
                at++;
        }
        assert_int_equal(at, t->cause_count);
        return 0;
}

/* Whether the cell is in any fold at all: a cell whose only difference is over is not, but its
 * target is wanted once more. */
static bool there_is(const struct rig *r, int c)
{
        bool is = false;

        for (int i = 0; i < 2; i++)
                for (int cause = 0; cause < CAUSES; cause++)
                        is |= r->topics[i].naive.has[c][cause] ||
                              (cause < 2 && r->topics[i].naive.has_odd[c][cause]);
        return is;
}

static void post(struct rig *r, struct ad_fold *const folds[2], bool dies)
{
        bool whole = !ad_fold_was_posted(folds[0]) || !ad_fold_was_posted(folds[1]);
        struct seen s = {.r = r};

        ok(ad_fold_targets(folds, 2, whole, check_target, &s, &err));
        for (int c = 0; c < CELLS; c++) {
                bool dirty = r->topics[0].naive.dirty[c] || r->topics[1].naive.dirty[c];
                bool wanted = whole ? there_is(r, c) : dirty;

                /* A whole post may name cells of before, too: they are zero. A store that was cut
                 * may be an older one, which does not know of the last post: it names more. */
                if (wanted != s.cells[c] && !(s.cells[c] && ((whole && dirty) || r->damaged)))
                        fail_msg("seed %" PRIu64 ": cell %d: wanted %d, whole %d", dice_seed, c,
                                 wanted, whole);
        }
        if (dies)
                return;
        ok(ad_fold_posted(folds, 2, &err));
        r->damaged = false;
        for (int i = 0; i < 2; i++)
                memset(r->topics[i].naive.dirty, 0, sizeof(r->topics[i].naive.dirty));
}

/* Its newest table, or what names its files: cut in the middle. */
static int cut_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        const char *name = path + f->base;

        if (flag == FTW_F && st->st_size > 8 &&
            (strstr(name, ".sst") || strncmp(name, "MANIFEST", 8) == 0))
                (void)!truncate(path, st->st_size / 2);
        return 0;
}

static void damage(struct topic *t)
{
        char dir[700];

        (void)snprintf(dir, sizeof(dir), "%s/fold", t->run.dir);
        (void)nftw(dir, cut_one, 16, FTW_PHYS);
        memset(t->naive.has_odd, 0, sizeof(t->naive.has_odd)); /* until it is compared again */
        memset(t->naive.odd, 0, sizeof(t->naive.odd));
}

static void test_steps_are_the_whole(void **state)
{
        static struct ad_bill_result result;
        struct rig r;

        (void)state;
        rig_open(&r);
        for (int step = 0; step < STEPS; step++) {
                struct ad_fold *folds[2] = {0};

                if (step > 3 && dice(8) == 0) {
                        damage(&r.topics[dice(2)]);
                        r.damaged = true;
                }
                for (int i = 0; i < 2; i++) {
                        struct topic *t = &r.topics[i];

                        go_on(t);
                        ok(ad_fold_open(&t->run, NULL, &folds[i], &err));
                        ok(ad_fold_take(folds[i], r.log, &result, &err));
                        if (dice(3) > 0)
                                check_rows(&r, t, folds[i]);
                        compare(t, folds[i]);
                }
                if (dice(4) > 0)
                        post(&r, folds, dice(3) == 0);
                for (int i = 0; i < 2; i++)
                        ad_fold_close(folds[i]);
        }
        rig_close(&r);
}

/* The store says more than the topic has: it is made again from the topic. */
static void test_a_topic_made_anew(void **state)
{
        static struct ad_bill_result result;
        struct ad_replay_names names;
        struct ad_fold *fold = NULL;
        struct rig r;
        struct topic *t = &r.topics[0];

        (void)state;
        rig_open(&r);
        for (int i = 0; i < 20; i++)
                write_checkpoint(t, 0);
        write_checkpoint(t, 1);
        ok(ad_fold_open(&t->run, NULL, &fold, &err));
        ok(ad_fold_take(fold, r.log, &result, &err));
        ok(ad_fold_posted(&fold, 1, &err));
        ad_replay_names(&t->run, &names);
        df_log_writer_close(t->writer);
        ok(df_log_topic_delete(r.log, names.topic[AD_OUT_BILL], &err));
        ok(df_log_topic_create(r.log, names.topic[AD_OUT_BILL], PARTITIONS, &err));
        ok(df_log_writer_open(r.log, names.topic[AD_OUT_BILL], &t->writer, &err));
        memset(&t->naive, 0, sizeof(t->naive));
        memset(t->k, 0, sizeof(t->k));
        memset(t->to, 0, sizeof(t->to));
        write_checkpoint(t, 0);
        write_checkpoint(t, 1);
        ok(ad_fold_take(fold, r.log, &result, &err));
        assert_false(ad_fold_was_posted(fold));
        check_rows(&r, t, fold);
        ad_fold_close(fold);
        rig_close(&r);
}

/* As many causes and currencies as there is room for, and one more. */
static void test_totals_max(void **state)
{
        static struct ad_bill_result result;
        struct ad_fold *fold = NULL;
        int mine = 0; /* totals of the rows that there are */
        struct rig r;
        struct topic *t = &r.topics[0];

        (void)state;
        rig_open(&r);
        for (int i = 0; i < 10; i++)
                write_checkpoint(t, 0);
        write_checkpoint(t, 1);
        ok(ad_fold_open(&t->run, NULL, &fold, &err));
        ok(ad_fold_take(fold, r.log, &result, &err));
        for (int cause = 0; cause < CAUSES; cause++) {
                bool has = false;

                for (int c = 0; c < CELLS; c++)
                        has |= t->naive.has[c][cause];
                mine += has;
        }
        for (int over = 0; over < 2; over++) {
                char currency[4];

                result = (struct ad_bill_result){.to = UINT64_MAX};
                for (int i = 0; i < AD_BILL_TOTALS_MAX - mine + over; i++) {
                        (void)snprintf(currency, sizeof(currency), "%03d", i / AD_CAUSE_COUNT);
                        assert_non_null(ad_bill_total(&result, (uint32_t)(i % AD_CAUSE_COUNT),
                                                      df_bytes_str(currency)));
                }
                if (over)
                        fails(ad_fold_rows(fold, NULL, &result, &err), DF_ELIMIT,
                              "more than 2000 totals");
                else
                        ok(ad_fold_rows(fold, NULL, &result, &err));
                assert_int_equal(result.total_count, AD_BILL_TOTALS_MAX);
        }
        ad_fold_close(fold);
        rig_close(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_steps_are_the_whole),
                cmocka_unit_test(test_a_topic_made_anew),
                cmocka_unit_test(test_totals_max),
        };

        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
