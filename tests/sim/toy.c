#include "tests/sim/toy.h"

#include <stdlib.h>

uint32_t toy_partition(struct df_bytes campaign, uint32_t partitions)
{
        return (uint32_t)(df_hash64(campaign) % partitions);
}

void toy_put_total(struct df_buf *b, struct df_bytes campaign, uint64_t total)
{
        df_put_lstr(b, campaign);
        df_put_varint(b, total);
}

bool toy_get_total(struct df_bytes payload, struct df_bytes *ret_campaign, uint64_t *ret_total)
{
        struct df_reader r = df_reader(payload);

        *ret_campaign = df_get_lstr(&r);
        *ret_total = df_get_varint(&r);
        return !r.bad && df_reader_left(&r) == 0;
}

/* ---- rekey: no state ---- */

struct rekey {
        struct df_operator op;
};

static int rekey_open(struct df_operator *op, struct df_error *err)
{
        (void)op;
        (void)err;
        return 0;
}

static int rekey_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        const struct toy_params *p = op->ctx.params;
        const struct df_record *records = batch->items;
        int rc = 0;

        df_check(batch->kind == DF_KIND_RECORDS);
        for (size_t i = 0; rc == 0 && i < batch->count; i++)
                rc = df_out_emit(out, 0, toy_partition(records[i].value, p->exchange_partitions),
                                 records[i].value, err);
        df_out_count(out, 1, batch->count);
        df_out_count_records(out, batch->count, 0, 0);
        return rc;
}

static void rekey_close(struct df_operator *op)
{
        (void)op;
}

const struct df_operator_ops toy_rekey = {
        .name = "toy_rekey",
        .state_version = 1,
        .size = sizeof(struct rekey),
        .open = rekey_open,
        .process = rekey_process,
        .close = rekey_close,
};

/* ---- collect: K5 as an operator ---- */

#define SOURCES_MAX 8

struct gathering { /* of one source */
        struct df_source source;
        uint64_t applied;  /* highest k that was complete */
        uint64_t k, epoch; /* of the open collection; k = 0: none */
        bool broken;
        uint32_t count;
        struct df_hash128 digest;
        struct df_buf payloads; /* each length-prefixed */
};

struct collect {
        struct df_operator op;
        struct gathering sources[SOURCES_MAX];
        size_t source_count;
};

static struct collect *collect_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &toy_collect);
        return (struct collect *)op;
}

static int collect_open(struct df_operator *op, struct df_error *err)
{
        (void)op;
        (void)err;
        return 0;
}

static int collect_restore_one(void *arg, struct df_bytes key, struct df_bytes value,
                               struct df_error *err)
{
        struct collect *c = arg;
        struct gathering *g = &c->sources[c->source_count++];
        struct df_reader r = df_reader(value);
        struct df_bytes stream, payloads;

        (void)key;
        df_check(c->source_count <= SOURCES_MAX);
        stream = df_get_lstr(&r);
        g->source.generation = df_get_u64be(&r);
        g->source.partition = df_get_u32be(&r);
        g->applied = df_get_u64be(&r);
        g->k = df_get_u64be(&r);
        g->epoch = df_get_u64be(&r);
        g->broken = df_get_u8(&r) != 0;
        g->count = df_get_u32be(&r);
        g->digest.lo = df_get_u64be(&r);
        g->digest.hi = df_get_u64be(&r);
        payloads = df_get_lstr(&r);
        if (r.bad || stream.len > DF_TOPIC_NAME_MAX)
                return df_fail(err, DF_ECORRUPT, "toy_collect: state is damaged");
        memcpy(g->source.stream, stream.data, stream.len);
        df_buf_append(&g->payloads, payloads.data, payloads.len);
        return df_buf_check(&g->payloads, err);
}

static int collect_restore(struct df_operator *op, struct df_error *err)
{
        const uint8_t prefix = op->ctx.ns;

        return df_store_scan(op->ctx.store, df_bytes(&prefix, 1), collect_restore_one,
                             collect_of(op), err);
}

static struct gathering *gathering_of(struct collect *c, const struct df_source *source)
{
        for (size_t i = 0; i < c->source_count; i++)
                if (df_source_eq(&c->sources[i].source, source))
                        return &c->sources[i];
        df_check(c->source_count < SOURCES_MAX);
        c->sources[c->source_count] = (struct gathering){.source = *source};
        return &c->sources[c->source_count++];
}

static int forward_payloads(struct collect *c, const struct gathering *g, struct df_out *out,
                            struct df_error *err)
{
        struct df_reader r = df_reader(df_buf_bytes(&g->payloads));
        struct df_bytes *items = df_arena_alloc(c->op.ctx.arena, (g->count + 1) * sizeof(*items));
        struct df_batch batch = {TOY_KIND_CAMPAIGNS, items, g->count};

        if (!items)
                return df_fail(err, DF_ENOMEM, "toy_collect");
        for (uint32_t i = 0; i < g->count; i++) {
                items[i] = df_arena_copy(c->op.ctx.arena, df_get_lstr(&r));
                if (!items[i].data)
                        return df_fail(err, DF_ENOMEM, "toy_collect");
        }
        df_check(!r.bad);
        return df_out_forward(out, &batch, err);
}

static int collect_record(struct collect *c, const struct df_record *record, struct df_out *out,
                          struct df_error *err)
{
        struct df_output o;
        struct gathering *g;
        int rc = df_output_decode(record->value, &o, err);

        if (rc < 0)
                return rc;
        g = gathering_of(c, &o.origin.source);
        if (g->k != o.origin.k || g->epoch != o.origin.epoch) { /* the one before got no seal */
                g->k = o.origin.k;
                g->epoch = o.origin.epoch;
                g->broken = false;
                g->count = 0;
                g->digest = (struct df_hash128){0, 0};
                df_buf_clear(&g->payloads);
        }
        if (!o.is_seal) {
                g->broken |= o.origin.n != g->count;
                g->count++;
                g->digest = df_digest_add(g->digest, o.payload);
                df_put_lstr(&g->payloads, o.payload);
                return df_buf_check(&g->payloads, err);
        }
        if (!g->broken && o.origin.n == g->count && o.seal.rows == g->count &&
            df_hash128_eq(o.seal.rows_digest, g->digest) && g->k > g->applied) {
                g->applied = g->k;
                rc = forward_payloads(c, g, out, err);
        }
        g->k = 0;
        return rc;
}

static int collect_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                           struct df_error *err)
{
        const struct df_record *records = batch->items;
        int rc = 0;

        df_check(batch->kind == DF_KIND_RECORDS);
        for (size_t i = 0; rc == 0 && i < batch->count; i++)
                rc = collect_record(collect_of(op), &records[i], out, err);
        return rc;
}

static int collect_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct collect *c = collect_of(op);
        int rc = 0;

        (void)k;
        for (size_t i = 0; rc == 0 && i < c->source_count; i++) {
                const struct gathering *g = &c->sources[i];
                const uint8_t key[2] = {op->ctx.ns, (uint8_t)i};
                struct df_buf b = {0};

                df_put_lstr(&b, df_bytes_str(g->source.stream));
                df_put_u64be(&b, g->source.generation);
                df_put_u32be(&b, g->source.partition);
                df_put_u64be(&b, g->applied);
                df_put_u64be(&b, g->k);
                df_put_u64be(&b, g->epoch);
                df_put_u8(&b, g->broken);
                df_put_u32be(&b, g->count);
                df_put_u64be(&b, g->digest.lo);
                df_put_u64be(&b, g->digest.hi);
                df_put_lstr(&b, df_buf_bytes(&g->payloads));
                rc = df_buf_check(&b, err);
                if (rc == 0)
                        df_store_put(op->ctx.store, df_bytes(key, 2), df_buf_bytes(&b));
                df_buf_release(&b);
        }
        return rc;
}

static void collect_close(struct df_operator *op)
{
        struct collect *c = (struct collect *)op;

        for (size_t i = 0; i < c->source_count; i++)
                df_buf_release(&c->sources[i].payloads);
}

const struct df_operator_ops toy_collect = {
        .name = "toy_collect",
        .state_version = 1,
        .size = sizeof(struct collect),
        .open = collect_open,
        .restore = collect_restore,
        .process = collect_process,
        .snapshot = collect_snapshot,
        .close = collect_close,
};

/* ---- count ---- */

#define CAMPAIGNS_MAX 64

struct campaign {
        uint8_t name[TOY_CAMPAIGN_MAX];
        size_t len;
        uint64_t total;
        bool changed; /* since the last cut; always false in a snapshot */
        bool unsaved;
};

struct count {
        struct df_operator op;
        struct campaign list[CAMPAIGNS_MAX];
        size_t count;
};

static struct count *count_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &toy_count);
        return (struct count *)op;
}

static int count_open(struct df_operator *op, struct df_error *err)
{
        (void)op;
        (void)err;
        return 0;
}

static struct campaign *campaign_of(struct count *c, struct df_bytes name)
{
        struct campaign *n;

        for (size_t i = 0; i < c->count; i++)
                if (df_bytes_eq(df_bytes(c->list[i].name, c->list[i].len), name))
                        return &c->list[i];
        df_check(c->count < CAMPAIGNS_MAX);
        df_check(name.len > 0 && name.len <= TOY_CAMPAIGN_MAX);
        n = &c->list[c->count++];
        *n = (struct campaign){.len = name.len};
        memcpy(n->name, name.data, name.len);
        return n;
}

static int count_restore_one(void *arg, struct df_bytes key, struct df_bytes value,
                             struct df_error *err)
{
        struct df_reader r = df_reader(value);

        campaign_of(arg, df_bytes(key.data + 1, key.len - 1))->total = df_get_u64be(&r);
        return r.bad ? df_fail(err, DF_ECORRUPT, "toy_count: state is damaged") : 0;
}

static int count_restore(struct df_operator *op, struct df_error *err)
{
        const uint8_t prefix = op->ctx.ns;

        return df_store_scan(op->ctx.store, df_bytes(&prefix, 1), count_restore_one, count_of(op),
                             err);
}

static int count_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        const struct df_bytes *items = batch->items;

        (void)err;
        df_check(batch->kind == TOY_KIND_CAMPAIGNS);
        for (size_t i = 0; i < batch->count; i++) {
                struct campaign *n = campaign_of(count_of(op), items[i]);

                n->total++;
                n->changed = n->unsaved = true;
        }
        df_out_count(out, 1, batch->count);
        df_out_count_records(out, batch->count, 0, 0);
        return 0;
}

static int count_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        struct count *c = count_of(op);
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < c->count; i++) {
                struct campaign *n = &c->list[i];
                struct df_buf b = {0};

                if (!n->changed && !*op->ctx.resend_all)
                        continue;
                toy_put_total(&b, df_bytes(n->name, n->len), n->total);
                rc = df_buf_check(&b, err);
                if (rc == 0)
                        rc = df_out_emit(out, 0, op->ctx.partition, df_buf_bytes(&b), err);
                df_buf_release(&b);
                n->changed = false;
        }
        return rc;
}

static int count_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct count *c = count_of(op);

        (void)k;
        (void)err;
        for (size_t i = 0; i < c->count; i++) {
                uint8_t key[1 + TOY_CAMPAIGN_MAX] = {op->ctx.ns}, value[8];

                if (!c->list[i].unsaved)
                        continue;
                memcpy(key + 1, c->list[i].name, c->list[i].len);
                for (int b = 0; b < 8; b++)
                        value[b] = (uint8_t)(c->list[i].total >> (56 - 8 * b));
                df_store_put(op->ctx.store, df_bytes(key, 1 + c->list[i].len),
                             df_bytes(value, sizeof(value)));
                c->list[i].unsaved = false;
        }
        return 0;
}

static void count_close(struct df_operator *op)
{
        (void)op;
}

const struct df_operator_ops toy_count = {
        .name = "toy_count",
        .state_version = 1,
        .size = sizeof(struct count),
        .open = count_open,
        .restore = count_restore,
        .process = count_process,
        .on_cut = count_on_cut,
        .snapshot = count_snapshot,
        .close = count_close,
};
