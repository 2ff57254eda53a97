/* books.c - the books: the one owner of what is posted (R4, docs/BILLING.md).
 *
 * In:   topic `runs` (RunRecord). Runs state what the bill is for each cell, absolute.
 * Out:  topic `billing` (BooksBatch): what changed (Posting), what became of each run (Applied) and
 *       of each close (Closed), in the order of their effects.
 *
 * A target replaces the row, unless a newer run set it (books_runs.c); in a closed period the
 * difference is an adjustment (books_post.c); a whole run sets rows that it does not name to zero;
 * a close says until when an account's rows are closed (books_close.c). Targets are absolute and a
 * row knows its run, so runs may come twice, overlap, or die half way: nothing is posted twice.
 *
 * A record that cannot be decoded or that belongs to no run is counted as poison; the run that
 * lacks its targets is refused at its end, with the reason in Applied.
 *
 * Rows are keyed by tenant, advertiser, quarter hour, campaign, publisher, currency, in byte order.
 * Memory: what changed since the last checkpoint, some 200 bytes a row (a run that names every cell
 * touches every row), the closed periods, and the runs that rows may still be compared with.
 * Disk: some 150 bytes a row, and its names.
 * State, under ns: 'C' rows; 'R', 'S' runs; 'A' accounts; 'Q' records that wait for room in the
 * outbox; 'H' the rest.
 */
#include <stdlib.h>

#include "operators/books_private.h"

#define OUT_BYTES (64u << 10) /* of an emitted payload, before its last entry */
/* A posting is some kilobytes at most, what ends a record below 1 MiB (books.h). */
#define ROOM_BYTES (2u << 20)

static struct books *books_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_books);
        return (struct books *)op;
}
_Static_assert(offsetof(struct books, op) == 0, "op is the first member");

static int books_open(struct df_operator *op, struct df_error *err)
{
        struct books *b = books_of(op);

        df_arena_init(&b->record, 0);
        df_arena_init(&b->unit, 0);
        return adi_rows_init(&b->rows, op->ctx.store, op->ctx.ns, err);
}

static void books_close(struct df_operator *op)
{
        struct books *b = books_of(op);

        adi_rows_release(&b->rows);
        adi_runs_release(&b->runs);
        adi_accounts_release(&b->accounts);
        for (size_t i = 0; i < b->queued; i++)
                free(b->queue[i].bytes);
        free(b->queue);
        df_buf_release(&b->work.cursor);
        df_buf_release(&b->out);
        df_buf_release(&b->key);
        df_buf_release(&b->value);
        df_arena_release(&b->record);
        df_arena_release(&b->unit);
}

/* ---- rows ---- */

int adi_books_row(struct books *b, struct df_bytes key, struct df_bytes value, struct adi_row *ret,
                  struct df_error *err)
{
        struct df_reader k = df_reader(key), v = df_reader(value);
        struct ad_target *t = &ret->target;
        int rc;

        df_arena_reset(&b->unit);
        ret->run = df_get_varint(&v);
        if (v.bad)
                return df_fail(err, DF_ECORRUPT, "books: a row of the state is damaged");
        rc = ad_wire_target_decode(df_bytes(v.p, df_reader_left(&v)), &b->unit, t, err);
        if (rc < 0)
                return rc;
        if (!ad_get_ordered(&k, ret->room[0], AD_ID_MAX, &t->tenant_id) ||
            !ad_get_ordered(&k, ret->room[1], AD_ID_MAX, &t->advertiser_id))
                return df_fail(err, DF_ECORRUPT, "books: a row's key is damaged");
        t->quarter = df_get_u64be(&k);
        if (!ad_get_ordered(&k, ret->room[2], AD_ID_MAX, &t->campaign_id) ||
            !ad_get_ordered(&k, ret->room[3], AD_ID_MAX, &t->publisher_id) ||
            !ad_get_ordered(&k, ret->room[4], AD_ID_MAX, &t->currency))
                return df_fail(err, DF_ECORRUPT, "books: a row's key is damaged");
        return 0;
}

/* The key says which cell it is: of the target only the causes are kept. */
int adi_books_put_row(struct books *b, struct df_bytes key, uint64_t run, const struct ad_target *t,
                      struct df_error *err)
{
        struct ad_target cells = {.causes = t->causes, .cause_count = t->cause_count};
        int rc;

        df_buf_clear(&b->value);
        df_put_varint(&b->value, run);
        ad_wire_target_value(&b->value, &cells);
        rc = df_buf_check(&b->value, err);
        return rc < 0 ? rc : adi_rows_put(&b->rows, key, df_buf_bytes(&b->value), err);
}

/* ---- entries ---- */

bool adi_books_room(const struct books *b, const struct df_out *out)
{
        return df_out_room(out) >= b->out.len + ROOM_BYTES;
}

int adi_books_flush(struct books *b, struct df_out *out, struct df_error *err)
{
        int rc = df_buf_check(&b->out, err);

        if (rc == 0 && b->out.len > 0)
                rc = df_out_emit(out, AD_OUT_BOOKS, b->op.ctx.partition, df_buf_bytes(&b->out),
                                 err);
        df_buf_clear(&b->out);
        return rc;
}

int adi_books_emit(struct books *b, const struct ad_books_entry *e, struct df_out *out,
                   struct df_error *err)
{
        ad_wire_books_entry(&b->out, e);
        return b->out.len < OUT_BYTES ? df_buf_check(&b->out, err) : adi_books_flush(b, out, err);
}

/* ---- records ---- */

static int take(struct books *b, struct df_bytes bytes, struct df_out *out, bool *ret_done,
                struct df_error *err)
{
        struct ad_run_record r;
        struct df_error damage = {0};

        *ret_done = true;
        df_arena_reset(&b->record);
        switch (ad_wire_run_record_decode(bytes, &b->record, &r, &damage)) {
        case 0:
                break;
        case DF_ENOMEM:
                return df_fail(err, DF_ENOMEM, "%s", damage.text);
        default:
                return 1;
        }
        switch (r.kind) {
        case AD_RUN_BEGIN:
                return adi_runs_begin(&b->runs, bytes, &r.begin, err);
        case AD_RUN_TARGETS:
                return adi_books_targets(b, &r.targets, out, ret_done, err);
        case AD_RUN_END:
                return adi_books_end(b, &r.end, out, ret_done, err);
        case AD_RUN_CLOSE:
                return adi_books_close(b, &r.close, out, ret_done, err);
        case AD_RUN_NONE:
                break;
        }
        return 1;
}

/* *ret_done false: the record goes on where b->work says, in the next checkpoint. */
static int take_one(struct books *b, struct df_bytes bytes, struct df_out *out, bool *ret_done,
                    struct df_error *err)
{
        int rc = take(b, bytes, out, ret_done, err);

        if (rc < 0 || !*ret_done)
                return rc;
        df_out_count_records(out, rc == 0, rc == 1, 0);
        b->work.done = 0;
        df_buf_clear(&b->work.cursor);
        return 0;
}

static int put_off(struct books *b, struct df_bytes bytes, struct df_error *err)
{
        uint8_t *copy = malloc(bytes.len + 1);

        if (b->queued == b->queue_cap) {
                size_t cap = b->queue_cap ? 2 * b->queue_cap : 16;
                struct adi_queued *queue = realloc(b->queue, cap * sizeof(*queue));

                if (queue) {
                        b->queue = queue;
                        b->queue_cap = cap;
                }
        }
        if (!copy || b->queued == b->queue_cap) {
                free(copy);
                return df_fail(err, DF_ENOMEM, "books: %zu records wait", b->queued);
        }
        if (bytes.len > 0)
                memcpy(copy, bytes.data, bytes.len);
        b->queue[b->queued++] = (struct adi_queued){copy, bytes.len};
        return 0;
}

static int books_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        struct books *b = books_of(op);
        const struct df_record *records = batch->items;
        int rc = 0;

        df_check(batch->kind == DF_KIND_RECORDS);
        for (size_t i = 0; rc == 0 && i < batch->count; i++) {
                bool done = false;

                if (b->queued == 0)
                        rc = take_one(b, records[i].value, out, &done, err);
                if (rc == 0 && !done)
                        rc = put_off(b, records[i].value, err);
        }
        return rc;
}

static int books_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        struct books *b = books_of(op);
        size_t taken = 0;
        bool done = true;
        int rc = 0;

        while (rc == 0 && done && taken < b->queued) {
                const struct adi_queued *q = &b->queue[taken];

                rc = take_one(b, df_bytes(q->bytes, q->len), out, &done, err);
                taken += done;
        }
        for (size_t i = 0; i < taken; i++)
                free(b->queue[i].bytes);
        if (taken > 0) /* there may be no queue yet */
                memmove(b->queue, b->queue + taken, (b->queued - taken) * sizeof(*b->queue));
        b->queued -= taken;
        if (b->queued > 0)
                df_out_more(out);
        return rc < 0 ? rc : adi_books_flush(b, out, err);
}

/* ---- state ---- */

static void queue_key(const struct books *b, uint64_t n, uint8_t ret[10])
{
        ret[0] = b->op.ctx.ns;
        ret[1] = 'Q';
        for (int i = 0; i < 8; i++)
                ret[2 + i] = (uint8_t)(n >> (56 - 8 * i));
}

static void snapshot_queue(struct books *b)
{
        uint8_t key[10];

        for (uint64_t n = 0; n < b->queued || n < b->stored; n++) {
                queue_key(b, n, key);
                if (n < b->queued)
                        df_store_put(b->op.ctx.store, df_bytes(key, sizeof(key)),
                                     df_bytes(b->queue[n].bytes, b->queue[n].len));
                else
                        df_store_del(b->op.ctx.store, df_bytes(key, sizeof(key)));
        }
        b->stored = b->queued;
}

static int books_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct books *b = books_of(op);
        uint8_t ns = op->ctx.ns, key[2] = {ns, 'H'};
        int rc = adi_rows_snapshot(&b->rows, err);

        (void)k;
        if (rc == 0)
                rc = adi_runs_snapshot(&b->runs, op->ctx.store, ns, err);
        if (rc == 0)
                rc = adi_accounts_snapshot(&b->accounts, op->ctx.store, ns, err);
        snapshot_queue(b);
        df_buf_clear(&b->value);
        df_put_varint(&b->value, b->seq);
        df_put_varint(&b->value, b->work.done);
        df_put_lstr(&b->value, df_buf_bytes(&b->work.cursor));
        adi_runs_put_header(&b->runs, &b->value);
        if (rc == 0)
                rc = df_buf_check(&b->value, err);
        df_store_put(op->ctx.store, df_bytes(key, sizeof(key)), df_buf_bytes(&b->value));
        return rc;
}

static int restore_queued(void *arg, struct df_bytes key, struct df_bytes value,
                          struct df_error *err)
{
        struct books *b = arg;

        (void)key;
        b->stored++;
        return put_off(b, value, err);
}

static int books_restore(struct df_operator *op, struct df_error *err)
{
        struct books *b = books_of(op);
        struct df_store *store = op->ctx.store;
        uint8_t ns = op->ctx.ns, key[2] = {ns, 'Q'};
        struct df_bytes value, cursor;
        struct df_reader r;
        bool found = false;
        int rc = df_store_scan(store, df_bytes(key, sizeof(key)), restore_queued, b, err);

        if (b->queued > 0)
                *op->ctx.more = true;
        if (rc == 0)
                rc = adi_runs_restore(&b->runs, store, ns, err);
        if (rc == 0)
                rc = adi_accounts_restore(&b->accounts, store, ns, err);
        key[1] = 'H';
        if (rc == 0)
                rc = df_store_get(store, df_bytes(key, sizeof(key)), &value, &found, err);
        if (rc < 0)
                return rc;
        if (!found)
                return df_fail(err, DF_ECORRUPT, "books: the state has no header");
        r = df_reader(value);
        b->seq = df_get_varint(&r);
        b->work.done = df_get_varint(&r);
        cursor = df_get_lstr(&r);
        df_buf_append(&b->work.cursor, cursor.data, cursor.len);
        return adi_runs_get_header(&b->runs, &r, err);
}

const struct df_operator_ops ad_op_books = {
        .name = "books",
        .state_version = 1,
        .size = sizeof(struct books),
        .open = books_open,
        .restore = books_restore,
        .process = books_process,
        .on_cut = books_on_cut,
        .snapshot = books_snapshot,
        .close = books_close,
};
