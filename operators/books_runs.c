/* books_runs.c - which run is newer, and what is known of runs.
 *
 * The vector of a run has the offsets of its sources, the corrections and the price table. A run is
 * behind another one in any component that is smaller or missing. The *tip* is the last run that
 * was applied: it was not behind the tip before it, so tips grow in every component, and a run
 * behind the tip is stale. A row is therefore as new as the tip, or as the run that set it where
 * that one is ahead of the tip. So of all runs only those are kept that are being read, that are
 * ahead of the tip, or that some run being read may have overlapped with.
 *
 * Chains: runs of one chain go on from each other, and only a whole one says what its chain makes
 * of every row. Where a whole run begins (unless it is stale), its chain takes over: runs of other
 * chains are refused from then on, as their changes would stand among rows of another
 * configuration. So are changes to a chain that has a gap: its whole run did not come to its end,
 * or a run of it lacked targets.
 */
#include <stdlib.h>

#include "operators/books_private.h"

static void run_free(struct adi_run *run)
{
        df_buf_release(&run->bytes);
        df_arena_release(&run->arena);
        free(run);
}

void adi_runs_release(struct adi_runs *r)
{
        for (size_t i = 0; i < r->count; i++)
                run_free(r->list[i]);
        free(r->list);
        df_buf_release(&r->chain);
        df_buf_release(&r->gap);
        df_buf_release(&r->dead);
}

static int set(struct df_buf *b, struct df_bytes to, struct df_error *err)
{
        df_buf_clear(b);
        df_buf_append(b, to.data, to.len);
        return df_buf_check(b, err);
}

/* ---- vectors ---- */

static int by_source(const void *x, const void *y)
{
        const struct ad_vector_part *a = x, *b = y;
        int c = df_bytes_cmp(a->stream, b->stream);

        if (c)
                return c;
        if (a->generation != b->generation)
                return a->generation < b->generation ? -1 : 1;
        return (a->partition > b->partition) - (a->partition < b->partition);
}

static bool compare(const struct adi_run *a, const struct adi_run *b)
{
        if (a->begin.corrections_to < b->begin.corrections_to ||
            a->begin.price_version < b->begin.price_version)
                return true;
        for (size_t i = 0, j = 0; j < b->begin.vector_count; j++) {
                while (i < a->begin.vector_count && by_source(&a->sorted[i], &b->sorted[j]) < 0)
                        i++;
                if (i == a->begin.vector_count || by_source(&a->sorted[i], &b->sorted[j]) != 0 ||
                    a->sorted[i].to < b->sorted[j].to)
                        return true;
        }
        return false;
}

bool adi_run_behind(struct adi_run *a, const struct adi_run *b)
{
        if (a->behind_of != b->index) {
                a->behind_of = b->index;
                a->behind = compare(a, b);
        }
        return a->behind;
}

bool adi_run_stale(const struct adi_runs *r, struct adi_run *run)
{
        if (r->tip == 0 || r->tip == run->index)
                return false;
        if (run->stale_of != r->tip) {
                run->stale_of = r->tip;
                run->stale = compare(run, adi_runs_at(r, r->tip));
        }
        return run->stale;
}

/* ---- the list ---- */

struct adi_run *adi_runs_at(const struct adi_runs *r, uint64_t index)
{
        size_t low = 0, high = r->count;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (r->list[mid]->index == index)
                        return r->list[mid];
                if (r->list[mid]->index < index)
                        low = mid + 1;
                else
                        high = mid;
        }
        return NULL;
}

struct adi_run *adi_runs_reading(const struct adi_runs *r, struct df_bytes run)
{
        for (size_t i = 0; i < r->count; i++)
                if (r->list[i]->ended == 0 && df_bytes_eq(r->list[i]->begin.run, run))
                        return r->list[i];
        return NULL;
}

static int decode(struct adi_run *run, struct df_error *err)
{
        struct ad_run_record record;
        struct ad_vector_part *sorted;
        size_t size;
        int rc = ad_wire_run_record_decode(df_buf_bytes(&run->bytes), &run->arena, &record, err);

        if (rc < 0)
                return rc;
        run->begin = record.begin;
        size = record.begin.vector_count * sizeof(*sorted);
        sorted = df_arena_alloc(&run->arena, size + 1);
        if (!sorted)
                return df_fail(err, DF_ENOMEM, "books: the vector of a run");
        if (size > 0) {
                memcpy(sorted, record.begin.vector, size);
                qsort(sorted, record.begin.vector_count, sizeof(*sorted), by_source);
        }
        run->sorted = sorted;
        return 0;
}

static int add(struct adi_runs *r, uint64_t index, struct df_bytes bytes, struct adi_run **ret,
               struct df_error *err)
{
        struct adi_run *run;
        int rc;

        if (r->count == r->cap) {
                size_t cap = r->cap ? 2 * r->cap : 8;
                struct adi_run **list = realloc(r->list, cap * sizeof(struct adi_run *));

                if (!list)
                        return df_fail(err, DF_ENOMEM, "books: %zu runs", cap);
                r->list = list;
                r->cap = cap;
        }
        run = calloc(1, sizeof(*run));
        if (!run)
                return df_fail(err, DF_ENOMEM, "books: a run");
        run->index = index;
        df_arena_init(&run->arena, 0);
        df_buf_append(&run->bytes, bytes.data, bytes.len);
        r->list[r->count++] = run; /* indices grow */
        rc = df_buf_check(&run->bytes, err);
        if (rc == 0)
                rc = decode(run, err);
        *ret = run;
        return rc;
}

/* Whether a run that is being read may still meet rows of this one and has to tell which is newer;
 * one that is stale posts nothing, whatever it meets. */
static bool is_needed(const struct adi_runs *r, const struct adi_run *run)
{
        if (run->ended == 0 || r->tip == 0 || run->index == r->tip ||
            compare(adi_runs_at(r, r->tip), run))
                return true;
        for (size_t i = 0; i < r->count; i++)
                if (r->list[i]->ended == 0 && r->list[i]->begun < run->ended &&
                    !adi_run_stale(r, r->list[i]))
                        return true;
        return false;
}

static void prune(struct adi_runs *r)
{
        size_t kept = 0;

        for (size_t i = 0; i < r->count; i++)
                r->list[i]->keep = is_needed(r, r->list[i]);
        for (size_t i = 0; i < r->count; i++) {
                struct adi_run *run = r->list[i];

                if (run->keep) {
                        r->list[kept++] = run;
                        continue;
                }
                if (run->stored)
                        df_put_u64be(&r->dead, run->index);
                run_free(run);
        }
        r->count = kept;
}

/* ---- begin and end ---- */

/* What makes it this run, whenever and by whom it was written. */
static bool same_run(const struct ad_run_begin *a, const struct ad_run_begin *b)
{
        struct ad_run_record x = {.kind = AD_RUN_BEGIN, .begin = *a}, y = x;
        struct df_buf bytes[2] = {{0}, {0}};
        bool same;

        y.begin = *b;
        y.begin.at_ms = x.begin.at_ms;
        y.begin.asked_by = x.begin.asked_by;
        ad_wire_run_record(&bytes[0], &x);
        ad_wire_run_record(&bytes[1], &y);
        same = !bytes[0].failed && !bytes[1].failed &&
               df_bytes_eq(df_buf_bytes(&bytes[0]), df_buf_bytes(&bytes[1]));
        df_buf_release(&bytes[0]);
        df_buf_release(&bytes[1]);
        return same;
}

/* The run that is being read, if this is its begin once more: somebody died, or two write it at
 * once. Otherwise one of this id is given up, as is the oldest where too many are being read. */
static struct adi_run *find_again(struct adi_runs *r, const struct ad_run_begin *begin)
{
        struct adi_run *again = NULL, *oldest = NULL;
        size_t reading = 0;

        for (size_t i = 0; i < r->count; i++) {
                struct adi_run *run = r->list[i];

                if (run->ended > 0)
                        continue;
                if (df_bytes_eq(run->begin.run, begin->run)) {
                        if (same_run(&run->begin, begin))
                                again = run;
                        else
                                run->ended = ++r->moments;
                        continue;
                }
                reading++;
                if (!oldest || run->begun < oldest->begun)
                        oldest = run;
        }
        if (reading == ADI_RUNS_READING_MAX)
                oldest->ended = ++r->moments;
        return again;
}

/* The latest begin says when it was pinned and who asked. */
static int begin_again(struct adi_run *run, struct df_bytes bytes, struct df_error *err)
{
        int rc = set(&run->bytes, bytes, err);

        df_arena_reset(&run->arena);
        run->current = false;
        return rc < 0 ? rc : decode(run, err);
}

static int judge_chain(struct adi_runs *r, struct adi_run *run, struct df_error *err)
{
        const struct ad_run_begin *b = &run->begin;
        int rc;

        run->refusal = ADI_RUN_FINE;
        if (adi_run_stale(r, run))
                return 0; /* it posts nothing */
        if (!b->whole) {
                if (!df_bytes_eq(b->chain, df_buf_bytes(&r->chain)))
                        run->refusal = ADI_RUN_CHAIN_OVER;
                else if (r->gap.len > 0 && !df_bytes_eq(b->run, df_buf_bytes(&r->gap)))
                        run->refusal = ADI_RUN_CHAIN_GAP;
                return 0;
        }
        rc = set(&r->chain, b->chain, err);
        if (rc == 0)
                rc = set(&r->gap, b->run, err);
        for (size_t i = 0; i < r->count; i++)
                if (r->list[i]->ended == 0 && !df_bytes_eq(r->list[i]->begin.chain, b->chain))
                        r->list[i]->refusal = ADI_RUN_CHAIN_OVER;
        return rc;
}

int adi_runs_begin(struct adi_runs *r, struct df_bytes bytes, const struct ad_run_begin *begin,
                   struct df_error *err)
{
        struct adi_run *run = find_again(r, begin);
        int rc;

        if (run)
                rc = begin_again(run, bytes, err);
        else
                rc = add(r, ++r->last_index, bytes, &run, err);
        if (rc < 0)
                return rc;
        run->begun = ++r->moments;
        return judge_chain(r, run, err);
}

bool adi_runs_is_tip(const struct adi_runs *r, struct df_bytes run)
{
        const struct adi_run *tip = adi_runs_at(r, r->tip);

        return tip && df_bytes_eq(tip->begin.run, run);
}

int adi_runs_end(struct adi_runs *r, struct adi_run *run, bool complete, struct df_error *err)
{
        bool takes = run->refusal == ADI_RUN_FINE && !adi_run_stale(r, run);
        int rc = 0;

        run->ended = ++r->moments;
        if (takes && complete) {
                r->tip = run->index;
                if (run->begin.whole || df_bytes_eq(run->begin.run, df_buf_bytes(&r->gap)))
                        df_buf_clear(&r->gap);
        } else if (takes) {
                rc = set(&r->gap, run->begin.run, err);
        }
        prune(r);
        return rc;
}

/* ---- state: 'R' a begin, 'S' how far it is ---- */

static void key_of(uint8_t ns, uint8_t kind, uint64_t index, uint8_t ret[10])
{
        ret[0] = ns;
        ret[1] = kind;
        for (int i = 0; i < 8; i++)
                ret[2 + i] = (uint8_t)(index >> (56 - 8 * i));
}

static void put_counts(struct df_store *store, uint8_t ns, const struct adi_run *run,
                       struct df_buf *b)
{
        uint8_t key[10];

        df_buf_clear(b);
        df_put_varint(b, run->begun);
        df_put_varint(b, run->ended);
        df_put_varint(b, run->read);
        df_put_varint(b, run->posted);
        df_put_varint(b, run->adjusted);
        df_put_varint(b, run->superseded);
        df_put_varint(b, run->refusal);
        key_of(ns, 'S', run->index, key);
        df_store_put(store, df_bytes(key, sizeof(key)), df_buf_bytes(b));
}

int adi_runs_snapshot(struct adi_runs *r, struct df_store *store, uint8_t ns, struct df_error *err)
{
        struct df_reader dead = df_reader(df_buf_bytes(&r->dead));
        struct df_buf b = {0};
        uint8_t key[10];
        int rc = df_buf_check(&r->dead, err);

        while (rc == 0 && df_reader_left(&dead) > 0) {
                uint64_t index = df_get_u64be(&dead);

                key_of(ns, 'R', index, key);
                df_store_del(store, df_bytes(key, sizeof(key)));
                key_of(ns, 'S', index, key);
                df_store_del(store, df_bytes(key, sizeof(key)));
        }
        df_buf_clear(&r->dead);
        for (size_t i = 0; rc == 0 && i < r->count; i++) {
                struct adi_run *run = r->list[i];

                key_of(ns, 'R', run->index, key);
                if (!run->current)
                        df_store_put(store, df_bytes(key, sizeof(key)), df_buf_bytes(&run->bytes));
                run->stored = run->current = true;
                put_counts(store, ns, run, &b);
                rc = df_buf_check(&b, err);
        }
        df_buf_release(&b);
        return rc;
}

static int restore_begin(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct df_reader k = df_reader(df_bytes(key.data + 2, key.len - 2));
        struct adi_run *run;
        int rc = add(arg, df_get_u64be(&k), value, &run, err);

        if (rc == 0)
                run->stored = run->current = true;
        return rc;
}

static int restore_counts(void *arg, struct df_bytes key, struct df_bytes value,
                          struct df_error *err)
{
        struct df_reader k = df_reader(df_bytes(key.data + 2, key.len - 2)), v = df_reader(value);
        struct adi_run *run = adi_runs_at(arg, df_get_u64be(&k));

        if (!run)
                return df_fail(err, DF_ECORRUPT, "books: a run of the state is damaged");
        run->begun = df_get_varint(&v);
        run->ended = df_get_varint(&v);
        run->read = df_get_varint(&v);
        run->posted = df_get_varint(&v);
        run->adjusted = df_get_varint(&v);
        run->superseded = df_get_varint(&v);
        run->refusal = (uint32_t)df_get_varint(&v);
        return v.bad ? df_fail(err, DF_ECORRUPT, "books: a run of the state is damaged") : 0;
}

int adi_runs_restore(struct adi_runs *r, struct df_store *store, uint8_t ns, struct df_error *err)
{
        uint8_t key[2] = {ns, 'R'};
        int rc = df_store_scan(store, df_bytes(key, sizeof(key)), restore_begin, r, err);

        key[1] = 'S';
        if (rc == 0)
                rc = df_store_scan(store, df_bytes(key, sizeof(key)), restore_counts, r, err);
        return rc;
}

void adi_runs_put_header(const struct adi_runs *r, struct df_buf *to)
{
        df_put_varint(to, r->last_index);
        df_put_varint(to, r->moments);
        df_put_varint(to, r->tip);
        df_put_lstr(to, df_buf_bytes(&r->chain));
        df_put_lstr(to, df_buf_bytes(&r->gap));
}

int adi_runs_get_header(struct adi_runs *r, struct df_reader *from, struct df_error *err)
{
        int rc;

        r->last_index = df_get_varint(from);
        r->moments = df_get_varint(from);
        r->tip = df_get_varint(from);
        rc = set(&r->chain, df_get_lstr(from), err);
        if (rc == 0)
                rc = set(&r->gap, df_get_lstr(from), err);
        if (rc == 0 && (from->bad || (r->tip && !adi_runs_at(r, r->tip))))
                rc = df_fail(err, DF_ECORRUPT, "books: the header of the state is damaged");
        return rc;
}
