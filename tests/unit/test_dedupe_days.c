/* test_dedupe_days.c - D1 to D3, K2: days of receive time through dedupe on RocksDB.
 *
 * A naive list of every occurrence says how each event ends (D1). On the way it is measured, and
 * held to the bounds below: bytes written, disk, memory, and work in one call of process. Nothing
 * asserted depends on time; ns an event are printed.
 *
 *   test_dedupe_days          three days at a small rate
 *   test_dedupe_days long     seven days, a larger rate, horizons of 1, 24 and 168 hours
 */
#include "unit.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "df/rocksdb.h"
#include "operators/dedupe_private.h"
#include "runtime/core/core_private.h"
#include "tests/unit/dedupe_test.h"
#include "tests/unit/state_test.h"

#define MINUTE 60000ll
/* Bytes of all files written for each byte of recorded ids: delta, run, merges, compactions. */
#define WRITTEN_FACTOR_MAX 20
/* Files' bytes for each byte of live ids: two checkpoints and the live store share theirs. */
#define DISK_FACTOR_MAX 4
#define FILTER_BYTES_MAX 13    /* for each live id: an old table goes only with its last hour */
#define FIXED_BYTES (2u << 20) /* of files, and of memory, that do not grow with ids */

struct shape {
        const char *name;
        uint32_t horizon, hours, cuts_an_hour, events_a_cut;
        size_t open_ids;
        uint64_t seed;
};

struct occurrence {
        int64_t hour;
        uint32_t fingerprint, before; /* index + 1 of the id's occurrence before it */
};

struct days {
        const struct shape *s;
        struct world w;
        struct df_ckpt *ckpt;
        char dir[256];
        struct random r;
        struct occurrence *seen; /* log order */
        uint32_t *last;          /* by id: index + 1 */
        size_t seen_count, id_count;
        uint64_t *recorded; /* by hour since BASE_HOUR: distinct (hour, id, fingerprint) or so */
        int64_t now_ms, max_hour;
        uint64_t k, process_ns, events, written_at_start;
        uint64_t disk_max_milli, memory_max_milli;
};

/* ---- what is measured ---- */

static uint64_t bytes_written(void)
{
        FILE *f = fopen("/proc/self/io", "r");
        char line[128];
        uint64_t n = 0;

        if (!f)
                skip(); /* the kernel does not count */
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "wchar: %" SCNu64, &n) == 1)
                        break;
        (void)fclose(f);
        return n;
}

#define INODES_MAX 8192
struct disk {
        ino_t inodes[INODES_MAX];
        size_t count;
        uint64_t bytes;
};

static void add_file(struct disk *d, const struct stat *st)
{
        for (size_t i = 0; i < d->count; i++)
                if (d->inodes[i] == st->st_ino)
                        return;
        assert_true(d->count < INODES_MAX);
        d->inodes[d->count++] = st->st_ino;
        d->bytes += (uint64_t)st->st_size;
}

static void add_tree(struct disk *d, const char *path)
{
        DIR *dir = opendir(path);
        struct dirent *e;

        while (dir && (e = readdir(dir))) {
                char sub[1024];
                struct stat st;

                if (e->d_name[0] == '.')
                        continue;
                assert_true(snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name) <
                            (int)sizeof(sub));
                if (lstat(sub, &st) < 0) /* a compaction removed it meanwhile */
                        continue;
                if (S_ISDIR(st.st_mode))
                        add_tree(d, sub);
                else
                        add_file(d, &st);
        }
        if (dir)
                (void)closedir(dir);
}

static uint64_t disk_bytes(const char *path)
{
        struct disk *d = calloc(1, sizeof(*d));
        uint64_t n;

        assert_non_null(d);
        add_tree(d, path);
        n = d->bytes;
        free(d);
        return n;
}

static const struct adi_dedupe *dedupe_in(const struct world *w)
{
        return (const struct adi_dedupe *)w->task->ops[1];
}

/* By the formula at the head of operators/dedupe.c; checked right after a cut. */
static uint64_t memory_bytes(const struct adi_dedupe *d)
{
        uint64_t n = d->set.table.bytes + adi_tags_bytes(&d->tags) + d->scratch.cap;

        for (size_t i = 0; i < d->bucket_count; i++) {
                const struct adi_bucket *b = d->buckets[i];

                n += sizeof(*b) + b->tail.cap + b->run_cap * sizeof(*b->runs);
                for (uint32_t j = 0; j < b->run_count; j++)
                        n += b->runs[j].memory.bytes + adi_index_bytes(d, b->runs[j].blocks);
        }
        return n;
}

static uint64_t cpu_ns(void)
{
        struct timespec t;

        assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the oracle (D1), and what it is asked ---- */

static uint32_t expected(const struct days *x, const struct toy *e)
{
        int64_t hour = e->receive_ms / HOUR;
        const struct occurrence *best = NULL;

        for (uint32_t at = x->last[e->id]; at; at = x->seen[at - 1].before) {
                const struct occurrence *o = &x->seen[at - 1]; /* newest in the log first */

                if (o->hour < hour - x->s->horizon || o->hour > hour + 1)
                        continue;
                if (!best || o->hour > best->hour)
                        best = o;
        }
        if (!best)
                return AD_NONE;
        return best->fingerprint == e->fingerprint ? AD_DUPLICATE : AD_CONFLICT;
}

static void note(struct days *x, const struct toy *e)
{
        int64_t hour = e->receive_ms / HOUR;

        x->recorded[hour - BASE_HOUR]++;
        x->seen[x->seen_count] = (struct occurrence){hour, e->fingerprint, x->last[e->id]};
        x->last[e->id] = (uint32_t)++x->seen_count;
}

/* Mostly new ids; one in 20 again, of any age up to a bit beyond the horizon; one in 50 up to an
 * hour behind (T2). */
static struct toy next_event(struct days *x)
{
        uint64_t an_hour = (uint64_t)x->s->cuts_an_hour * x->s->events_a_cut;
        uint64_t back = (x->s->horizon + 4) * an_hour;
        struct toy e = {.receive_ms = x->now_ms};

        if (random_below(&x->r, 50) == 0 && x->now_ms > (BASE_HOUR + 1) * HOUR)
                e.receive_ms -= (int64_t)random_below(&x->r, HOUR);
        if (x->id_count > 100 && random_below(&x->r, 20) == 0) {
                if (back > x->id_count)
                        back = x->id_count;
                if (random_below(&x->r, 2)) /* most repeats come soon */
                        back = back < 1000 ? back : 1000;
                e.id = (uint32_t)(x->id_count - 1 - random_below(&x->r, back));
                e.fingerprint = random_below(&x->r, 10) == 0;
        } else {
                e.id = (uint32_t)x->id_count++;
        }
        return e;
}

/* ---- the run ---- */

static uint64_t live_ids(const struct days *x)
{
        int64_t from = x->max_hour - 1 - x->s->horizon;
        uint64_t n = 0;

        for (int64_t h = from > BASE_HOUR ? from : BASE_HOUR; h <= x->max_hour; h++)
                n += x->recorded[h - BASE_HOUR];
        return n;
}

static void cut(struct days *x)
{
        struct df_error err = {0};

        world_cut(&x->w);
        x->k = df_task_k(x->w.task);
        if (df_ckpt_persist(x->ckpt, x->k, df_bytes_str("n"), &err) < 0 ||
            df_ckpt_publish(x->ckpt, x->k, &err) < 0 || df_ckpt_retire(x->ckpt, &err) < 0)
                fail_msg("%s, seed %" PRIu64 ": %s", x->s->name, x->s->seed, err.text);
}

/* One call does at most: ADI_MERGE_IDS ids of merging an event, written as whole blocks; one read
 * for each block of those, and a few for each event. */
static void hold_work(const struct days *x, size_t n, size_t put_bytes, uint64_t gets)
{
        uint64_t merged = n * ADI_MERGE_IDS;

        if (put_bytes > (merged + ADI_BLOCK_IDS) * ADI_ID_BYTES)
                fail_msg("%s, seed %" PRIu64 ": %zu bytes merged in a call of %zu events",
                         x->s->name, x->s->seed, put_bytes, n);
        if (gets > 2 * n + merged / dedupe_in(&x->w)->block_ids + ADI_MERGE_RUNS_MAX + n / 64)
                fail_msg("%s, seed %" PRIu64 ": %" PRIu64 " reads in a call of %zu events",
                         x->s->name, x->s->seed, gets, n);
}

static void step(struct days *x)
{
        static struct toy events[4096];
        static uint32_t want[4096];
        struct world *w = &x->w;
        const uint64_t countdown = 1ull << 60;
        size_t n = x->s->events_a_cut;
        uint64_t ns;

        assert_true(n <= 4096);
        for (size_t i = 0; i < n; i++) {
                events[i] = next_event(x);
                want[i] = expected(x, &events[i]);
                note(x, &events[i]);
                x->now_ms += HOUR / (int64_t)(n * x->s->cuts_an_hour);
        }
        x->max_hour = (x->now_ms - 1) / HOUR;
        w->processed = 0;
        memset(w->known, 0, n * sizeof(*w->known));
        w->spy.put_bytes = 0;
        w->spy.fail_get_in = countdown;
        ns = cpu_ns();
        world_process(w, events, n, 100);
        x->process_ns += cpu_ns() - ns;
        hold_work(x, n, w->spy.put_bytes, countdown - w->spy.fail_get_in);
        w->spy.fail_get_in = 0;
        for (size_t i = 0; i < n; i++)
                if (w->outcomes[i] != want[i])
                        fail_msg("%s, seed %" PRIu64 ": D1: event %" PRIu64 " (id %u, %" PRId64
                                 " ms) ended as %u, not %u",
                                 x->s->name, x->s->seed, x->events + i, events[i].id,
                                 events[i].receive_ms, w->outcomes[i], want[i]);
        x->events += n;
        cut(x);
}

/* Memory: 128 bytes an open id, the filter, an index, and the buffers of a run. */
static void hold_space(struct days *x)
{
        uint64_t live = live_ids(x), disk = disk_bytes(x->dir);
        uint64_t memory = memory_bytes(dedupe_in(&x->w));
        uint64_t disk_most = DISK_FACTOR_MAX * live * ADI_ID_BYTES + FIXED_BYTES;
        uint64_t memory_most = 128 * x->s->open_ids + 48 * x->s->open_ids +
                               live * FILTER_BYTES_MAX + live / 8 + (FIXED_BYTES >> 2);

        if (disk > disk_most)
                fail_msg("%s, seed %" PRIu64 ", hour %" PRId64 ": %" PRIu64 " bytes of disk for "
                         "%" PRIu64 " ids; at most %" PRIu64,
                         x->s->name, x->s->seed, x->max_hour - BASE_HOUR, disk, live, disk_most);
        if (memory > memory_most)
                fail_msg("%s, seed %" PRIu64 ", hour %" PRId64 ": %" PRIu64 " bytes of memory for "
                         "%" PRIu64 " ids; at most %" PRIu64,
                         x->s->name, x->s->seed, x->max_hour - BASE_HOUR, memory, live,
                         memory_most);
        if (disk * 1000 / (live * ADI_ID_BYTES) > x->disk_max_milli &&
            x->max_hour - BASE_HOUR > x->s->horizon)
                x->disk_max_milli = disk * 1000 / (live * ADI_ID_BYTES);
        if (memory * 1000 / memory_most > x->memory_max_milli)
                x->memory_max_milli = memory * 1000 / memory_most;
}

static void open_days(struct days *x, const struct shape *s)
{
        size_t most = (size_t)s->hours * s->cuts_an_hour * s->events_a_cut + 4096;
        struct df_takeover t;
        struct df_error err = {0};

        memset(x, 0, sizeof(*x));
        x->s = s;
        x->r.x = s->seed;
        x->now_ms = BASE_HOUR * HOUR;
        x->seen = calloc(most, sizeof(*x->seen));
        x->last = calloc(most, sizeof(*x->last));
        x->recorded = calloc(s->hours + 4096, sizeof(*x->recorded));
        assert_true(x->seen && x->last && x->recorded);
        (void)temp_dir(x->dir);
        if (df_rocksdb_ckpt_open(x->dir, NULL, &x->ckpt, &err) < 0 ||
            df_ckpt_takeover(x->ckpt, &t, &err) < 0)
                fail_msg("%s", err.text);
        x->w.params = (struct toy_params){
                .base = {.horizon_hours = s->horizon, .dedupe_open_ids = s->open_ids},
                .world = &x->w};
        x->w.spy = (struct spy){.base = {.ops = &spy_ops}, .under = t.store};
        x->w.store = &x->w.spy.base;
        if (world_create(&x->w, &err) < 0)
                fail_msg("%s", err.text);
        x->written_at_start = bytes_written();
}

static void close_days(struct days *x)
{
        df_task_destroy(x->w.task);
        df_ckpt_close(x->ckpt);
        remove_dir(x->dir);
        free(x->seen);
        free(x->last);
        free(x->recorded);
        free(x);
}

/* D2: what expired leaves the disk: after a silence longer than the horizon a few checkpoints are
 * enough, for range tombstones must not wait for the next full compaction. */
static void hold_expiry(struct days *x)
{
        uint64_t disk;

        x->now_ms += (x->s->horizon + 10) * HOUR;
        step(x);
        /* Compaction has its own thread: ends as soon as it is done, 20 s at most. */
        disk = disk_bytes(x->dir);
        for (int i = 0; i < 200 && disk > FIXED_BYTES; i++) {
                (void)nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
                cut(x);
                disk = disk_bytes(x->dir);
        }
        if (disk > FIXED_BYTES)
                fail_msg("%s, seed %" PRIu64 ": %" PRIu64 " bytes stay after everything expired",
                         x->s->name, x->s->seed, disk);
        (void)printf("%s: %" PRIu64 " KiB after everything expired\n", x->s->name, disk >> 10);
}

static void run_days(const struct shape *s)
{
        struct days *x = malloc(sizeof(*x));
        uint64_t written, ids;

        assert_non_null(x);
        open_days(x, s);
        for (uint32_t h = 0; h < s->hours; h++) {
                for (uint32_t i = 0; i < s->cuts_an_hour; i++) {
                        step(x);
                        if (i % 4 == 0)
                                hold_space(x);
                }
        }
        written = bytes_written() - x->written_at_start;
        ids = x->events * ADI_ID_BYTES;
        (void)printf("%s: horizon %u h, %" PRIu64 " events, %" PRIu64
                     " ns of CPU each in process; written %.1f, disk %.2f times the ids' bytes; "
                     "memory %" PRIu64 " %% of the formula\n",
                     s->name, s->horizon, x->events, x->process_ns / x->events,
                     (double)written / (double)ids, (double)x->disk_max_milli / 1000,
                     x->memory_max_milli / 10);
        (void)fflush(stdout);
        if (written > ids * WRITTEN_FACTOR_MAX)
                fail_msg("%s, seed %" PRIu64 ": %" PRIu64 " bytes written for %" PRIu64
                         " of ids; at most %d times",
                         s->name, s->seed, written, ids, WRITTEN_FACTOR_MAX);
        hold_expiry(x);
        close_days(x);
}

static void test_three_days(void **state)
{
        static const struct shape s = {"three days", 24, 72, 12, 500, 2048, 20251};

        (void)state;
        run_days(&s);
}

/* Runs of 1,152 ids and more lie in files, in parts of 18,432. */
static void test_a_day_in_files(void **state)
{
        static const struct shape s = {"a day in files", 3, 24, 12, 2500, 128, 20255};

        (void)state;
        run_days(&s);
}

static void test_seven_days(void **state)
{
        static const struct shape s[] = {
                {"seven days", 1, 168, 20, 1000, 8192, 20252},
                {"seven days", 24, 168, 20, 1000, 8192, 20253},
                {"seven days", 168, 176, 20, 1000, 8192, 20254},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(s) / sizeof(s[0]); i++)
                run_days(&s[i]);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest quick[] = {cmocka_unit_test(test_three_days),
                                           cmocka_unit_test(test_a_day_in_files)};
        const struct CMUnitTest slow[] = {cmocka_unit_test(test_seven_days)};

        if (argc > 1 && strcmp(argv[1], "long") == 0)
                return cmocka_run_group_tests(slow, NULL, NULL);
        return cmocka_run_group_tests(quick, NULL, NULL);
}
