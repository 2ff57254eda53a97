/* books.c - the view of the bill: opening, applying collections, one write a commit. */
#include "jobs/api/books.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "jobs/api/books_private.h"
#include "jobs/api/view_private.h"

#define SCHEMA 1
#define WRITE_BUFFER_BYTES (16u << 20)
#define CACHE_BYTES (32u << 20)
#define SCRATCH_BYTES (64u << 20) /* of one entry: a close and its manifest is the largest */

static int no_memory(struct df_error *err)
{
        return df_fail(err, DF_ENOMEM, "the view of the bill");
}

/* ---- open ---- */

static int load(struct ad_billing *b, uint64_t generation, bool *ret_fits, struct df_error *err)
{
        struct df_bytes value;
        bool found;
        int rc;

        df_buf_clear(&b->value);
        df_put_u32be(&b->value, SCHEMA);
        df_put_u64be(&b->value, generation);
        rc = df_buf_check(&b->value, err);
        if (rc == 0)
                rc = df_store_get(b->store, df_bytes("m", 1), &value, &found, err);
        if (rc < 0)
                return rc;
        *ret_fits = !found || df_bytes_eq(value, df_buf_bytes(&b->value));
        if (!found) {
                df_store_put(b->store, df_bytes("m", 1), df_buf_bytes(&b->value));
                return df_store_commit(b->store, err);
        }
        rc = df_store_get(b->store, df_bytes("c", 1), &value, &found, err);
        if (rc == 0 && *ret_fits && found && !adi_books_counters_decode(value, &b->counters))
                rc = adi_books_damaged(err);
        return rc;
}

static int open_store(struct ad_billing *b, const char *dir, uint64_t generation, bool *ret_fits,
                      struct df_error *err)
{
        struct df_rocksdb_options o = {.write_buffer_bytes = WRITE_BUFFER_BYTES,
                                       .block_cache_bytes = CACHE_BYTES};
        int rc = df_kv_open(dir, &o, &b->kv, err);

        if (rc < 0)
                return rc;
        b->store = df_kv_store(b->kv);
        return load(b, generation, ret_fits, err);
}

static void close_store(struct ad_billing *b)
{
        df_kv_close(b->kv);
        b->kv = NULL;
        b->store = NULL;
}

/* The store as it is; when it cannot be used, an empty one. */
static int open_any(struct ad_billing *b, const char *dir, uint64_t generation, char why[256],
                    struct df_error *err)
{
        bool fits = true;
        int rc = open_store(b, dir, generation, &fits, err);

        if (rc == 0 && fits)
                return 0;
        close_store(b);
        if (rc < 0 && rc != DF_ECORRUPT)
                return rc;
        if (rc < 0)
                (void)snprintf(why, 256, "%.250s", err->text);
        else
                (void)snprintf(why, 256, "it was built from another topic, or by another version");
        rc = ad_billing_discard(dir, err);
        return rc < 0 ? rc : open_store(b, dir, generation, &fits, err);
}

static void forget_batch(struct ad_billing *b)
{
        df_arena_reset(&b->memory);
        ad_map_clear(&b->newest);
        ad_map_clear(&b->sums);
        b->pending = 0;
}

int ad_billing_open(const char *dir, uint64_t generation, struct ad_billing **ret, char why[256],
                    struct df_error *err)
{
        struct ad_billing *b = calloc(1, sizeof(*b));
        int rc;

        if (!b)
                return no_memory(err);
        df_arena_init(&b->memory, 0);
        df_arena_init(&b->scratch, SCRATCH_BYTES);
        ad_map_init(&b->newest, &b->memory, sizeof(struct df_bytes));
        ad_map_init(&b->sums, &b->memory, sizeof(struct adi_drift));
        why[0] = '\0';
        rc = open_any(b, dir, generation, why, err);
        if (rc < 0) {
                ad_billing_close(b);
                return rc;
        }
        *ret = b;
        return 0;
}

int ad_billing_discard(const char *dir, struct df_error *err)
{
        return adi_discard(dir, err);
}

void ad_billing_close(struct ad_billing *b)
{
        if (!b)
                return;
        close_store(b);
        df_arena_release(&b->memory);
        df_arena_release(&b->scratch);
        df_buf_release(&b->key);
        df_buf_release(&b->value);
        free(b);
}

/* ---- what was read ---- */

uint64_t ad_billing_position(const struct ad_billing *b)
{
        return b->counters.position;
}

size_t ad_billing_pending(const struct ad_billing *b)
{
        return b->pending;
}

struct sources {
        int (*fn)(void *arg, const struct df_source *source, uint64_t k, struct df_error *err);
        void *arg;
};

static int on_source(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct sources *s = arg;
        struct df_source source = {0};
        struct df_reader k = df_reader(df_bytes(key.data + 1, key.len - 1));
        struct df_reader v = df_reader(value);
        struct df_bytes stream;
        uint64_t applied = df_get_u64be(&v);

        source.generation = df_get_u64be(&k);
        source.partition = df_get_u32be(&k);
        stream = df_get_bytes(&k, df_reader_left(&k));
        if (k.bad || v.bad || stream.len > DF_TOPIC_NAME_MAX)
                return adi_books_damaged(err);
        memcpy(source.stream, stream.data, stream.len);
        return s->fn(s->arg, &source, applied, err);
}

int ad_billing_sources(struct ad_billing *b,
                       int (*fn)(void *arg, const struct df_source *source, uint64_t k,
                                 struct df_error *err),
                       void *arg, struct df_error *err)
{
        struct sources s = {fn, arg};

        return df_store_scan(b->store, df_bytes("s", 1), on_source, &s, err);
}

/* ---- apply ---- */

static void put(struct ad_billing *b)
{
        df_store_put(b->store, df_buf_bytes(&b->key), df_buf_bytes(&b->value));
        b->pending++;
}

/* The entry into b->value, behind what is there. */
static int encode(struct ad_billing *b, const struct ad_books_entry *e, struct df_error *err)
{
        ad_wire_books_entry(&b->value, e);
        return df_buf_check(&b->value, err);
}

struct newest {
        struct ad_billing *b;
        struct ad_books_entry entry;
        bool found;
};

static int on_newest(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct newest *n = arg;
        struct df_bytes copy = df_arena_copy(&n->b->scratch, value);
        int rc = copy.data || !value.len ? 0 : no_memory(err);

        if (rc == 0)
                rc = adi_books_entry(copy, AD_BOOKS_POSTING, &n->b->scratch, &n->entry, err);
        n->found = rc == 0;
        return rc < 0 ? rc : 1;
}

/* The newest posting of the cell whose key is in b->key, from before this batch. */
static int find_newest(struct ad_billing *b, struct newest *ret, struct df_error *err)
{
        struct df_buf to = {0};
        int rc;

        *ret = (struct newest){.b = b};
        adi_books_after(&b->key, &to);
        rc = df_buf_check(&to, err);
        if (rc == 0)
                rc = df_kv_range(b->kv, NULL, df_buf_bytes(&b->key), df_buf_bytes(&to), on_newest,
                                 ret, err);
        df_buf_release(&to);
        return rc;
}

/* The target that t replaces, or *ret_found false; then t is the newest of the batch. */
static int replace(struct ad_billing *b, const struct ad_target *t, struct ad_target *ret,
                   bool *ret_found, struct df_error *err)
{
        struct newest n = {0};
        struct df_bytes *kept;
        struct df_buf text = {0};
        bool fresh;
        int rc = 0;

        adi_books_cell_key(&b->key, t);
        kept = b->key.failed ? NULL : ad_map_put(&b->newest, df_buf_bytes(&b->key), &fresh);
        if (!kept)
                return no_memory(err);
        if (fresh)
                rc = find_newest(b, &n, err);
        else
                rc = ad_wire_target_decode(*kept, &b->scratch, ret, err);
        *ret_found = !fresh || n.found;
        if (n.found)
                *ret = n.entry.posting.target;
        ad_wire_target_value(&text, t);
        if (rc == 0)
                rc = df_buf_check(&text, err);
        if (rc == 0)
                *kept = df_arena_copy(&b->memory, df_buf_bytes(&text));
        if (rc == 0 && !kept->data && text.len)
                rc = no_memory(err);
        df_buf_release(&text);
        return rc;
}

static void put_adjustment(struct ad_billing *b, const struct ad_posting *p)
{
        adi_books_key(
                &b->key, 'a',
                (struct df_bytes[]){p->target.tenant_id, p->posted_period, p->target.advertiser_id},
                3);
        df_put_u64be(&b->key, p->seq);
        put(b);
        b->counters.adjustments++;
}

static int add_posting(struct ad_billing *b, const struct ad_books_entry *e, struct df_error *err)
{
        const struct ad_posting *p = &e->posting;
        struct ad_target before;
        bool found = false;
        int rc = replace(b, &p->target, &before, &found, err);

        if (rc == 0)
                rc = adi_books_drift_add(b, found ? &before : NULL, &p->target, err);
        df_buf_clear(&b->value);
        if (rc == 0)
                rc = encode(b, e, err);
        if (rc < 0)
                return rc;
        adi_books_cell_key(&b->key, &p->target);
        df_put_u64be(&b->key, ~p->seq);
        put(b);
        if (p->posted_period.len && p->delta_count)
                put_adjustment(b, p);
        if (!found) {
                adi_books_key(&b->key, 'd',
                              (struct df_bytes[]){p->target.tenant_id, p->target.advertiser_id}, 2);
                df_store_put(b->store, df_buf_bytes(&b->key), p->target.advertiser_id);
        }
        b->counters.gaps += p->seq != b->counters.seq + 1;
        b->counters.seq = p->seq > b->counters.seq ? p->seq : b->counters.seq;
        b->counters.postings++;
        return 0;
}

/* A run that was refused is listed, but no point at which the books are read. */
static int add_applied(struct ad_billing *b, const struct ad_books_entry *e, struct df_error *err)
{
        const struct ad_applied *a = &e->applied;
        struct adi_books_counters *c = &b->counters;
        int rc;

        if (!a->why.len) {
                c->at_ms = a->begin.at_ms > c->at_ms ? a->begin.at_ms : c->at_ms;
                c->run_seq = c->seq;
        }
        c->runs++;
        df_buf_clear(&b->value);
        df_put_u64be(&b->value, (uint64_t)c->at_ms);
        df_put_u64be(&b->value, c->seq);
        rc = encode(b, e, err);
        if (rc < 0)
                return rc;
        adi_books_run_key(&b->key, c->runs);
        put(b);
        adi_books_key(&b->key, 'i', &a->begin.run, 1);
        df_buf_clear(&b->value);
        df_put_u64be(&b->value, c->runs);
        put(b);
        return 0;
}

/* It counts from the run before it, although what it posted itself (adjustments of what lies before
 * the first period) has later numbers: books are read at runs. */
static int add_closed(struct ad_billing *b, const struct ad_books_entry *e, struct df_error *err)
{
        const struct ad_period_close *c = &e->closed.close;
        int rc;

        df_buf_clear(&b->value);
        rc = encode(b, e, err);
        if (rc < 0)
                return rc;
        adi_books_key(&b->key, 'p',
                      (struct df_bytes[]){c->account.tenant_id, c->account.advertiser_id, c->period,
                                          c->asked_by},
                      4);
        put(b);
        b->counters.closes++;
        if (e->closed.refused)
                return 0;
        adi_books_key(&b->key, 'z',
                      (struct df_bytes[]){c->account.tenant_id, c->account.advertiser_id}, 2);
        df_put_u64be(&b->key, c->to_quarter);
        df_buf_clear(&b->value);
        df_put_u64be(&b->value, c->to_quarter);
        df_put_u64be(&b->value, e->closed.seq);
        df_put_u64be(&b->value, b->counters.run_seq);
        df_put_u64be(&b->value, (uint64_t)c->at_ms);
        df_put_u8(&b->value, c->account.advertiser_id.len == 0);
        df_buf_append(&b->value, e->closed.open_period.data, e->closed.open_period.len);
        put(b);
        return 0;
}

static int on_entry(void *arg, const struct ad_books_entry *e, struct df_error *err)
{
        struct ad_billing *b = arg;
        int rc = 0;

        if (e->kind == AD_BOOKS_POSTING)
                rc = add_posting(b, e, err);
        else if (e->kind == AD_BOOKS_APPLIED)
                rc = add_applied(b, e, err);
        else if (e->kind == AD_BOOKS_CLOSED)
                rc = add_closed(b, e, err);
        else
                rc = df_fail(err, DF_ESCHEMA,
                             "the topic billing holds an entry that this version does not know: "
                             "run the version that wrote it");
        return rc == 0 && b->key.failed ? no_memory(err) : rc;
}

int ad_billing_add(struct ad_billing *b, const struct df_collection *c, struct df_error *err)
{
        const struct df_source *s = &c->origin.source;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < c->count; i++) {
                df_arena_reset(&b->scratch);
                rc = ad_wire_books_decode(c->payloads[i], &b->scratch, on_entry, b, err);
        }
        if (rc < 0)
                return rc;
        adi_books_key(&b->key, 's', NULL, 0);
        df_put_u64be(&b->key, s->generation);
        df_put_u32be(&b->key, s->partition);
        df_buf_append(&b->key, s->stream, strlen(s->stream));
        df_buf_clear(&b->value);
        df_put_u64be(&b->value, c->origin.k);
        if (b->key.failed || b->value.failed)
                return no_memory(err);
        put(b);
        return 0;
}

int ad_billing_commit(struct ad_billing *b, uint64_t position, struct df_error *err)
{
        int rc;

        if (b->pending == 0 && position == b->counters.position)
                return 0;
        rc = adi_books_drift_put(b, err);
        b->counters.position = position;
        adi_books_counters_encode(&b->value, &b->counters);
        if (rc == 0)
                rc = df_buf_check(&b->value, err);
        if (rc < 0)
                return rc;
        df_store_put(b->store, df_bytes("c", 1), df_buf_bytes(&b->value));
        rc = df_store_commit(b->store, err);
        forget_batch(b);
        return rc;
}
