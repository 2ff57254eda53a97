/* store.c - the state store port in memory: a sorted array, and a batch of operations. */
#include "sim_private.h"

#include <stdio.h>
#include <stdlib.h>

#define STORE_MAGIC 0x51570e01u

enum op_kind { OP_PUT, OP_DEL, OP_DEL_RANGE };
struct op {
        enum op_kind kind;
        size_t order;             /* of writing: the later wins */
        struct df_bytes key, arg; /* owned; arg: value, or the range's end */
};

struct dfi_sim_store {
        struct df_store base;
        uint32_t magic;
        struct dfi_sim_at at;
        struct dfi_sim_table table;
        struct op *batch;
        size_t batch_count, batch_cap;
        struct op *open_runs; /* puts of the blocks of runs that have not ended */
        size_t open_count, open_cap;
        int limit;            /* a put broke a limit: what commit returns */
        int dead;             /* the error that made the store unusable */
        struct df_bytes lent; /* what the last get handed out; owned */
};

static const struct df_store_ops store_ops;

static struct dfi_sim_store *store_of(struct df_store *base)
{
        struct dfi_sim_store *s = (struct dfi_sim_store *)base;

        df_check(base->ops == &store_ops);
        df_check(s->magic == STORE_MAGIC);
        return s;
}

static void bytes_free(struct df_bytes b)
{
        dfi_sim_free((void *)(uintptr_t)b.data, b.len);
}

static struct df_bytes bytes_copy(struct df_bytes b)
{
        return df_bytes(dfi_sim_copy(b), b.len);
}

/* ---- tables ---- */

void dfi_sim_table_release(struct dfi_sim_table *t)
{
        for (size_t i = 0; i < t->count; i++) {
                bytes_free(t->entries[i].key);
                bytes_free(t->entries[i].value);
        }
        free(t->entries);
        *t = (struct dfi_sim_table){0};
}

void dfi_sim_table_copy(struct dfi_sim_table *to, const struct dfi_sim_table *from)
{
        *to = (struct dfi_sim_table){.count = from->count, .cap = from->count};
        to->entries = dfi_sim_alloc(from->count * sizeof(*to->entries));
        for (size_t i = 0; i < from->count; i++) {
                to->entries[i].key = bytes_copy(from->entries[i].key);
                to->entries[i].value = bytes_copy(from->entries[i].value);
        }
}

void dfi_sim_table_dump(const struct dfi_sim_table *t, struct df_buf *ret)
{
        for (size_t i = 0; i < t->count; i++) {
                df_put_lstr(ret, t->entries[i].key);
                df_put_lstr(ret, t->entries[i].value);
        }
}

/* Position of the first key that is not below this one. */
static size_t lower_bound(const struct dfi_sim_table *t, struct df_bytes key)
{
        size_t low = 0, high = t->count;

        while (low < high) {
                const size_t mid = low + (high - low) / 2;

                if (df_bytes_cmp(t->entries[mid].key, key) < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

static void remove_range(struct dfi_sim_table *t, struct df_bytes from, struct df_bytes to)
{
        const size_t a = lower_bound(t, from), b = lower_bound(t, to);

        if (a >= b)
                return;
        for (size_t i = a; i < b; i++) {
                bytes_free(t->entries[i].key);
                bytes_free(t->entries[i].value);
        }
        memmove(&t->entries[a], &t->entries[b], (t->count - b) * sizeof(*t->entries));
        t->count -= b - a;
}

static int compare_ops(const void *a, const void *b)
{
        const struct op *x = a, *y = b;
        const int c = df_bytes_cmp(x->key, y->key);

        return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* Merge puts and deletes, sorted by key and order, into the table; takes their memory. */
static void merge(struct dfi_sim_table *t, struct op *ops, size_t count)
{
        struct dfi_sim_table next = {.cap = t->count + count};
        size_t at = 0;

        qsort(ops, count, sizeof(*ops), compare_ops);
        next.entries = dfi_sim_alloc(next.cap * sizeof(*next.entries));
        for (size_t i = 0; i < count; i++) {
                int c = -1;

                while (at < t->count && (c = df_bytes_cmp(t->entries[at].key, ops[i].key)) < 0)
                        next.entries[next.count++] = t->entries[at++];
                if (i + 1 < count && df_bytes_eq(ops[i].key, ops[i + 1].key)) {
                        bytes_free(ops[i].key); /* a later one wins */
                        bytes_free(ops[i].arg);
                        continue;
                }
                if (at < t->count && c == 0) {
                        bytes_free(t->entries[at].key);
                        bytes_free(t->entries[at].value);
                        at++;
                }
                if (ops[i].kind == OP_PUT) {
                        next.entries[next.count++] = (struct dfi_sim_entry){ops[i].key, ops[i].arg};
                } else {
                        bytes_free(ops[i].key);
                        bytes_free(ops[i].arg);
                }
        }
        while (at < t->count)
                next.entries[next.count++] = t->entries[at++];
        free(t->entries);
        *t = next;
}

/* Apply in the order of writing; a range delete reaches only what was written before it. */
static void apply_batch(struct dfi_sim_store *s)
{
        size_t from = 0;

        for (size_t i = 0; i <= s->batch_count; i++) {
                if (i < s->batch_count && s->batch[i].kind != OP_DEL_RANGE)
                        continue;
                if (i > from)
                        merge(&s->table, s->batch + from, i - from);
                if (i < s->batch_count) {
                        remove_range(&s->table, s->batch[i].key, s->batch[i].arg);
                        bytes_free(s->batch[i].key);
                        bytes_free(s->batch[i].arg);
                }
                from = i + 1;
        }
        s->batch_count = 0;
}

/* ---- the port ---- */

static void take_back(struct dfi_sim_store *s)
{
        bytes_free(s->lent);
        s->lent = (struct df_bytes){0};
}

int dfi_sim_store_alive(struct dfi_sim_store *s, struct df_error *err)
{
        if (!dfi_sim_alive(&s->at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", s->at.process);
        if (s->dead)
                return df_fail(err, s->dead, "the store failed before: take over again");
        return 0;
}

int dfi_sim_store_kill(struct dfi_sim_store *s, int code)
{
        if (code == DF_EIO || code == DF_ENOSPC || code == DF_ECORRUPT)
                s->dead = code;
        return code;
}

static int store_get(struct df_store *base, struct df_bytes key, struct df_bytes *ret_value,
                     bool *ret_found, struct df_error *err)
{
        struct dfi_sim_store *s = store_of(base);
        struct dfi_sim_strike strike;
        struct df_bytes lent = {0};
        size_t i;
        int rc = dfi_sim_store_alive(s, err);

        if (rc == 0)
                rc = dfi_sim_enter(&s->at, false, &strike, err, "get");
        if (rc == 0)
                rc = dfi_sim_leave(&s->at, &strike, err);
        if (rc)
                return dfi_sim_store_kill(s, rc);
        i = lower_bound(&s->table, key);
        *ret_found = i < s->table.count && df_bytes_eq(s->table.entries[i].key, key);
        if (*ret_found)
                lent = bytes_copy(s->table.entries[i].value);
        take_back(s); /* after the last use of key, which may point into it */
        s->lent = lent;
        *ret_value = lent;
        return 0;
}

static bool has_prefix(struct df_bytes key, struct df_bytes prefix)
{
        return key.len >= prefix.len &&
               (prefix.len == 0 || memcmp(key.data, prefix.data, prefix.len) == 0);
}

static int store_scan(struct df_store *base, struct df_bytes prefix,
                      int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *),
                      void *arg, struct df_error *err)
{
        struct dfi_sim_store *s = store_of(base);
        struct dfi_sim_strike strike;
        int rc = dfi_sim_store_alive(s, err);
        size_t first, end;

        if (rc == 0)
                rc = dfi_sim_enter(&s->at, false, &strike, err, "scan");
        if (rc == 0)
                rc = dfi_sim_leave(&s->at, &strike, err);
        if (rc)
                return dfi_sim_store_kill(s, rc);
        first = lower_bound(&s->table, prefix);
        for (end = first; end < s->table.count; end++)
                if (!has_prefix(s->table.entries[end].key, prefix))
                        break;
        take_back(s);
        for (size_t i = first; rc == 0 && i < end; i++) {
                struct df_bytes key = bytes_copy(s->table.entries[i].key);
                struct df_bytes value = bytes_copy(s->table.entries[i].value);

                rc = fn(arg, key, value, err);
                bytes_free(key);
                bytes_free(value);
        }
        return rc < 0 ? rc : 0;
}

static void add_op(struct dfi_sim_store *s, enum op_kind kind, struct df_bytes key,
                   struct df_bytes arg)
{
        const struct op op = {kind, s->batch_count, bytes_copy(key), bytes_copy(arg)};

        take_back(s); /* after copying: what was lent may be what is written */
        s->batch = dfi_sim_grow(s->batch, s->batch_count, &s->batch_cap, sizeof(*s->batch));
        s->batch[s->batch_count++] = op;
}

static bool within_limits(struct dfi_sim_store *s, size_t key_len, size_t value_len)
{
        if (key_len > 0 && key_len <= DF_STORE_KEY_MAX && value_len <= DF_STORE_VALUE_MAX)
                return true;
        s->limit = DF_ELIMIT;
        return false;
}

static void store_put(struct df_store *base, struct df_bytes key, struct df_bytes value)
{
        struct dfi_sim_store *s = store_of(base);

        if (within_limits(s, key.len, value.len))
                add_op(s, OP_PUT, key, value);
}

static void store_del(struct df_store *base, struct df_bytes key)
{
        struct dfi_sim_store *s = store_of(base);

        if (within_limits(s, key.len, 0))
                add_op(s, OP_DEL, key, df_bytes(NULL, 0));
}

static void store_del_range(struct df_store *base, struct df_bytes from, struct df_bytes to)
{
        struct dfi_sim_store *s = store_of(base);

        if (df_bytes_cmp(from, to) < 0 && within_limits(s, from.len ? from.len : 1, 0) &&
            within_limits(s, to.len, 0))
                add_op(s, OP_DEL_RANGE, from, to);
}

/* ---- runs: a block is a key, the run's and its number; those of open ones wait aside ---- */

static struct df_bytes block_key(struct df_bytes run, uint32_t number,
                                 uint8_t ret[DF_RUN_KEY_MAX + 4])
{
        df_check(run.len > 0 && run.len <= DF_RUN_KEY_MAX);
        memcpy(ret, run.data, run.len);
        for (size_t i = 0; i < 4; i++)
                ret[run.len + i] = (uint8_t)(number >> (24 - 8 * i));
        return df_bytes(ret, run.len + 4);
}

static bool is_of(struct df_bytes block, struct df_bytes run)
{
        return block.len == run.len + 4 && has_prefix(block, run);
}

static void store_run_append(struct df_store *base, struct df_bytes key, struct df_bytes block)
{
        struct dfi_sim_store *s = store_of(base);
        uint8_t room[DF_RUN_KEY_MAX + 4];
        uint32_t number = 0;

        df_check(block.len > 0 && block.len <= DF_RUN_BLOCK_MAX);
        for (size_t i = 0; i < s->open_count; i++)
                number += is_of(s->open_runs[i].key, key);
        s->open_runs =
                dfi_sim_grow(s->open_runs, s->open_count, &s->open_cap, sizeof(*s->open_runs));
        s->open_runs[s->open_count++] = (struct op){.kind = OP_PUT,
                                                    .key = bytes_copy(block_key(key, number, room)),
                                                    .arg = bytes_copy(block)};
}

/* Take the blocks of an open run out; into the batch, or away. */
static bool close_run(struct dfi_sim_store *s, struct df_bytes run, bool keep)
{
        size_t kept = 0, count = s->open_count;

        for (size_t i = 0; i < count; i++) {
                struct op o = s->open_runs[i];

                if (!is_of(o.key, run)) {
                        s->open_runs[kept++] = o;
                        continue;
                }
                if (keep)
                        add_op(s, OP_PUT, o.key, o.arg);
                bytes_free(o.key);
                bytes_free(o.arg);
        }
        s->open_count = kept;
        return kept < count;
}

static void store_run_end(struct df_store *base, struct df_bytes key)
{
        df_check(close_run(store_of(base), key, true));
}

static int store_run_read(struct df_store *base, struct df_bytes key, uint32_t number,
                          struct df_bytes *ret_block, bool *ret_found, struct df_error *err)
{
        uint8_t room[DF_RUN_KEY_MAX + 4];

        return store_get(base, block_key(key, number, room), ret_block, ret_found, err);
}

static void store_run_del(struct df_store *base, struct df_bytes key)
{
        struct dfi_sim_store *s = store_of(base);
        uint8_t from[DF_RUN_KEY_MAX + 4], to[DF_RUN_KEY_MAX + 4];

        if (!close_run(s, key, false))
                add_op(s, OP_DEL_RANGE, block_key(key, 0, from), block_key(key, UINT32_MAX, to));
}

struct run_call {
        int (*fn)(void *arg, struct df_bytes key, struct df_error *err);
        void *arg;
};

static int scan_block(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        static const uint8_t first[4] = {0};
        const struct run_call *c = arg;

        (void)value;
        if (key.len <= 4 || memcmp(key.data + key.len - 4, first, 4) != 0)
                return 0;
        return c->fn(c->arg, df_bytes(key.data, key.len - 4), err);
}

static int store_run_scan(struct df_store *base, struct df_bytes prefix,
                          int (*fn)(void *, struct df_bytes, struct df_error *), void *arg,
                          struct df_error *err)
{
        struct run_call c = {fn, arg};

        return store_scan(base, prefix, scan_block, &c, err);
}

static void free_ops(struct op *ops, size_t *count)
{
        for (size_t i = 0; i < *count; i++) {
                bytes_free(ops[i].key);
                bytes_free(ops[i].arg);
        }
        *count = 0;
}

static void clear_batch(struct dfi_sim_store *s)
{
        take_back(s);
        free_ops(s->batch, &s->batch_count);
        s->limit = 0;
}

static void store_rollback(struct df_store *base)
{
        struct dfi_sim_store *s = store_of(base);

        clear_batch(s);
        free_ops(s->open_runs, &s->open_count);
}

static int store_commit(struct df_store *base, struct df_error *err)
{
        struct dfi_sim_store *s = store_of(base);
        struct dfi_sim_strike strike;
        int rc = dfi_sim_store_alive(s, err);

        if (rc == 0 && s->limit)
                rc = df_fail(err, s->limit,
                             "a key or value is beyond its limit: nothing was written");
        if (rc == 0)
                rc = dfi_sim_enter(&s->at, true, &strike, err, "commit %zu", s->batch_count);
        if (rc == 0) {
                if (!dfi_sim_midway(&strike)) /* K1: the whole batch or nothing */
                        apply_batch(s);
                rc = dfi_sim_leave(&s->at, &strike, err);
        }
        if (rc)
                store_rollback(base);
        else
                clear_batch(s);
        return dfi_sim_store_kill(s, rc);
}

struct dfi_sim_store *dfi_sim_store_open(struct dfi_sim_at at, const struct dfi_sim_table *table)
{
        struct dfi_sim_store *s = dfi_sim_alloc(sizeof(*s));

        s->base.ops = &store_ops;
        s->magic = STORE_MAGIC;
        s->at = at;
        if (table)
                dfi_sim_table_copy(&s->table, table);
        return s;
}

struct df_store *dfi_sim_store_base(struct dfi_sim_store *s)
{
        return &s->base;
}

const struct dfi_sim_table *dfi_sim_store_table(const struct dfi_sim_store *s)
{
        return &s->table;
}

void dfi_sim_store_close(struct dfi_sim_store *s)
{
        if (!s)
                return;
        store_rollback(&s->base);
        free(s->batch);
        free(s->open_runs);
        dfi_sim_table_release(&s->table);
        dfi_sim_free(s, sizeof(*s));
}

/* ---- a store alone ---- */

struct df_store *df_sim_store_create(struct df_sim *sim)
{
        return &dfi_sim_store_open(dfi_sim_here(sim, 0), NULL)->base;
}

struct df_store *df_sim_store_clone(struct df_store *s)
{
        return &dfi_sim_store_open(store_of(s)->at, &store_of(s)->table)->base;
}

void df_sim_store_destroy(struct df_store *s)
{
        if (s)
                dfi_sim_store_close(store_of(s));
}

void df_sim_store_dump(struct df_store *s, struct df_buf *ret)
{
        dfi_sim_table_dump(&store_of(s)->table, ret);
}

size_t df_sim_store_keys(struct df_store *s)
{
        return store_of(s)->table.count;
}

static const struct df_store_ops store_ops = {
        .get = store_get,
        .scan = store_scan,
        .put = store_put,
        .del = store_del,
        .del_range = store_del_range,
        .commit = store_commit,
        .rollback = store_rollback,
        .run_append = store_run_append,
        .run_end = store_run_end,
        .run_read = store_run_read,
        .run_next = store_run_read,
        .run_del = store_run_del,
        .run_scan = store_run_scan,
};
