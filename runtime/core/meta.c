#include <stdlib.h>

#include "core_private.h"

enum {
        M_K = 1,
        M_PARENT_K,
        M_PARENT_DIGEST,
        M_FROM,
        M_TO,
        M_STREAM,
        M_GENERATION,
        M_PARTITION,
        M_CLOSED,
        M_MAX_APPEND,
        M_MAX_RECEIVE,
        M_WATERMARK,
        M_FINAL_THROUGH,
        M_OUTCOMES,
        M_RECORDS,
        M_POISON,
        M_HEARTBEATS,
        M_EVENTS,
        M_PRICE_VERSION,
        M_LABEL_VERSION,
        M_NOTE,
        M_COLLECTION,
        M_OPERATOR,
        M_CONFIG,
        M_PARTITIONS,
        M_BINARY_VERSION,
        M_TOPIC_GENERATION,
        M_ADOPTED,
};

void dfi_put_hash(struct df_buf *b, uint32_t field, struct df_hash128 h)
{
        size_t m = df_pb_begin(b, field);

        df_pb_fixed64(b, 1, h.lo);
        df_pb_fixed64(b, 2, h.hi);
        df_pb_end(b, m);
}

struct df_hash128 dfi_get_hash(struct df_bytes bytes, bool *bad)
{
        struct df_reader r = df_reader(bytes);
        struct df_hash128 h = {0, 0};
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        h.lo = f.u;
                else if (f.number == 2)
                        h.hi = f.u;
        }
        *bad |= r.bad;
        return h;
}

static bool is_adopted(const struct dfi_meta *m)
{
        return m->adopted.lo != 0 || m->adopted.hi != 0;
}

static void put_collections(const struct dfi_meta *m, struct df_buf *b)
{
        for (size_t i = 0; i < m->collection_count; i++) {
                const struct df_collection_info *c = &m->collections[i];
                size_t at = df_pb_begin(b, M_COLLECTION);

                df_pb_uint(b, 1, c->output);
                df_pb_uint(b, 2, c->partition);
                df_pb_uint(b, 3, c->rows);
                dfi_put_hash(b, 4, c->digest);
                df_pb_end(b, at);
        }
}

void dfi_meta_encode(const struct dfi_meta *m, const struct df_task_config *config,
                     struct df_buf *b)
{
        df_pb_uint(b, M_K, m->k);
        df_pb_uint(b, M_PARENT_K, m->parent_k);
        dfi_put_hash(b, M_PARENT_DIGEST, m->parent_digest);
        df_pb_uint(b, M_FROM, m->from_offset);
        df_pb_uint(b, M_TO, m->to_offset);
        df_pb_str(b, M_STREAM, m->source.stream);
        df_pb_fixed64(b, M_GENERATION, m->source.generation);
        df_pb_uint(b, M_PARTITION, m->source.partition);
        df_pb_bool(b, M_CLOSED, m->closed);
        df_pb_sint(b, M_MAX_APPEND, m->clock.max_append_ms);
        df_pb_sint(b, M_MAX_RECEIVE, m->clock.max_receive_ms);
        df_pb_sint(b, M_WATERMARK, m->clock.watermark_ms);
        df_pb_sint(b, M_FINAL_THROUGH, m->final_through_ms);
        for (uint32_t i = 0; i < DF_OUTCOMES_MAX; i++) {
                size_t at = df_pb_begin(b, M_OUTCOMES);

                df_pb_uint(b, 1, i);
                df_pb_uint(b, 2, m->outcomes[i]);
                df_pb_end(b, at);
        }
        df_pb_uint(b, M_RECORDS, m->records);
        df_pb_uint(b, M_POISON, m->poison_records);
        df_pb_uint(b, M_HEARTBEATS, m->heartbeats);
        df_pb_uint(b, M_EVENTS, m->events);
        df_pb_uint(b, M_PRICE_VERSION, m->price_version);
        df_pb_uint(b, M_LABEL_VERSION, m->label_version);
        df_pb_bytes(b, M_NOTE, df_buf_bytes(&m->note));
        put_collections(m, b);
        for (size_t i = 0; i < config->chain_length; i++) {
                size_t at = df_pb_begin(b, M_OPERATOR);

                df_pb_str(b, 1, config->chain[i]->name);
                df_pb_uint(b, 2, config->chain[i]->state_version);
                df_pb_end(b, at);
        }
        df_pb_fixed64(b, M_CONFIG, config->config);
        df_pb_uint(b, M_PARTITIONS, config->partitions);
        df_pb_str(b, M_BINARY_VERSION, m->binary_version);
        df_pb_fixed64(b, M_TOPIC_GENERATION, config->source.generation);
        if (is_adopted(m))
                dfi_put_hash(b, M_ADOPTED, m->adopted);
}

static int get_collection(struct df_bytes bytes, struct dfi_meta *m, bool *bad,
                          struct df_error *err)
{
        struct df_collection_info *grown =
                realloc(m->collections, (m->collection_count + 1) * sizeof(*grown));
        struct df_reader r = df_reader(bytes);
        struct df_collection_info *c;
        struct df_pb_field f;

        if (!grown)
                return df_fail(err, DF_ENOMEM, "checkpoint's collections");
        m->collections = grown;
        c = &grown[m->collection_count++];
        *c = (struct df_collection_info){0};
        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        c->output = (uint32_t)f.u;
                else if (f.number == 2)
                        c->partition = (uint32_t)f.u;
                else if (f.number == 3)
                        c->rows = (uint32_t)f.u;
                else if (f.number == 4)
                        c->digest = dfi_get_hash(f.bytes, bad);
        }
        *bad |= r.bad;
        return 0;
}

static int check_operator(struct df_bytes bytes, const struct df_task_config *config, size_t at,
                          struct df_error *err)
{
        struct df_reader r = df_reader(bytes);
        struct df_bytes name = {0};
        uint32_t version = 0;
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        name = f.bytes;
                else if (f.number == 2)
                        version = (uint32_t)f.u;
        }
        if (at >= config->chain_length ||
            !df_bytes_eq(name, df_bytes_str(config->chain[at]->name)) ||
            version != config->chain[at]->state_version)
                return df_fail(err, DF_ESCHEMA,
                               "state of operator %zu is \"%.*s\" version %u, this program has "
                               "\"%s\" version %u: run the program that wrote it, or `adtally "
                               "recover --from log` (K14)",
                               at, (int)name.len, (const char *)name.data, version,
                               at < config->chain_length ? config->chain[at]->name : "none",
                               at < config->chain_length ? config->chain[at]->state_version : 0);
        return 0;
}

/* What the state was written for. */
struct origin {
        struct df_bytes stream;
        uint64_t topic_generation, partitions, config;
        size_t operators;
};

static int check_origin(const struct dfi_meta *m, const struct origin *o,
                        const struct df_task_config *config, struct df_error *err)
{
        if (!df_bytes_eq(o->stream, df_bytes_str(config->source.stream)) ||
            m->source.partition != config->source.partition)
                return df_fail(err, DF_ESCHEMA,
                               "state belongs to %.*s/%u, not to %s/%u: foreign state directory "
                               "(K14)",
                               (int)o->stream.len, (const char *)o->stream.data,
                               m->source.partition, config->source.stream,
                               config->source.partition);
        if (o->partitions != config->partitions)
                return df_fail(err, DF_ESCHEMA,
                               "state was written for %llu partitions, the topic has %u (K14)",
                               (unsigned long long)o->partitions, config->partitions);
        if (o->config != config->config)
                return df_fail(err, DF_ESCHEMA,
                               "state was written under another grace, horizon, cap, grouping list "
                               "or pricing: put the old settings back, or begin a new generation "
                               "(K14)");
        if (o->operators != config->chain_length)
                return df_fail(err, DF_ESCHEMA,
                               "state of %zu operators, this program has %zu (K14)", o->operators,
                               config->chain_length);
        if (o->topic_generation != config->source.generation)
                return df_fail(err, DF_ESCHEMA,
                               "the topic %s was created again since this state was written (K14)",
                               config->source.stream);
        return 0;
}

static void get_number(const struct df_pb_field *f, struct dfi_meta *m)
{
        switch (f->number) {
        case M_K:
                m->k = f->u;
                break;
        case M_PARENT_K:
                m->parent_k = f->u;
                break;
        case M_FROM:
                m->from_offset = f->u;
                break;
        case M_TO:
                m->to_offset = f->u;
                break;
        case M_GENERATION:
                m->source.generation = f->u;
                break;
        case M_PARTITION:
                m->source.partition = (uint32_t)f->u;
                break;
        case M_CLOSED:
                m->closed = f->u != 0;
                break;
        case M_MAX_APPEND:
                m->clock.max_append_ms = df_pb_zigzag(f->u);
                break;
        case M_MAX_RECEIVE:
                m->clock.max_receive_ms = df_pb_zigzag(f->u);
                break;
        case M_WATERMARK:
                m->clock.watermark_ms = df_pb_zigzag(f->u);
                break;
        case M_FINAL_THROUGH:
                m->final_through_ms = df_pb_zigzag(f->u);
                break;
        case M_RECORDS:
                m->records = f->u;
                break;
        case M_POISON:
                m->poison_records = f->u;
                break;
        case M_HEARTBEATS:
                m->heartbeats = f->u;
                break;
        case M_EVENTS:
                m->events = f->u;
                break;
        case M_PRICE_VERSION:
                m->price_version = (uint32_t)f->u;
                break;
        case M_LABEL_VERSION:
                m->label_version = (uint32_t)f->u;
                break;
        default:
                break;
        }
}

static void get_outcome(struct df_bytes bytes, struct dfi_meta *m, bool *bad)
{
        struct df_reader r = df_reader(bytes);
        uint64_t outcome = 0, count = 0;
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        outcome = f.u;
                else
                        count = f.u;
        }
        *bad |= r.bad || outcome >= DF_OUTCOMES_MAX;
        if (!*bad)
                m->outcomes[outcome] = count;
}

static void get_version(struct df_bytes bytes, struct dfi_meta *m, bool *bad)
{
        *bad |= bytes.len > DF_VERSION_MAX;
        if (bytes.len > 0 && bytes.len <= DF_VERSION_MAX)
                memcpy(m->binary_version, bytes.data, bytes.len);
}

int dfi_meta_decode(struct df_bytes bytes, const struct df_task_config *config,
                    struct dfi_meta *ret, struct df_error *err)
{
        struct df_reader r = df_reader(bytes);
        struct origin o = {0};
        struct df_pb_field f;
        bool bad = false;
        int rc = 0;

        memset(ret, 0, sizeof(*ret));
        while (rc == 0 && df_pb_next(&r, &f)) {
                if (f.number == M_STREAM)
                        o.stream = f.bytes;
                else if (f.number == M_PARENT_DIGEST)
                        ret->parent_digest = dfi_get_hash(f.bytes, &bad);
                else if (f.number == M_ADOPTED)
                        ret->adopted = dfi_get_hash(f.bytes, &bad);
                else if (f.number == M_OUTCOMES)
                        get_outcome(f.bytes, ret, &bad);
                else if (f.number == M_NOTE)
                        df_buf_append(&ret->note, f.bytes.data, f.bytes.len);
                else if (f.number == M_COLLECTION)
                        rc = get_collection(f.bytes, ret, &bad, err);
                else if (f.number == M_OPERATOR)
                        rc = check_operator(f.bytes, config, o.operators++, err);
                else if (f.number == M_CONFIG)
                        o.config = f.u;
                else if (f.number == M_PARTITIONS)
                        o.partitions = f.u;
                else if (f.number == M_TOPIC_GENERATION)
                        o.topic_generation = f.u;
                else if (f.number == M_BINARY_VERSION)
                        get_version(f.bytes, ret, &bad);
                else
                        get_number(&f, ret);
        }
        if (rc == 0 && (r.bad || bad))
                rc = df_fail(err, DF_ECORRUPT, "the checkpoint's meta is damaged");
        if (rc == 0)
                rc = df_buf_check(&ret->note, err);
        if (rc == 0)
                rc = check_origin(ret, &o, config, err);
        if (rc < 0) {
                dfi_meta_release(ret);
                return rc;
        }
        memcpy(ret->source.stream, config->source.stream, sizeof(ret->source.stream));
        return 0;
}

struct df_hash128 dfi_meta_digest(const struct dfi_meta *m, struct df_bytes encoded)
{
        return is_adopted(m) ? m->adopted : df_hash128(encoded);
}

void dfi_meta_release(struct dfi_meta *m)
{
        df_buf_release(&m->note);
        free(m->collections);
        m->collections = NULL;
        m->collection_count = 0;
}
