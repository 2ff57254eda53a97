/* session_log.c - what a takeover reads: the manifest's note, and which collections of this task
 * the output topics hold, complete, with their seals (K5, K8).
 *
 * Each checkpoint's note says, for each collection, from which offset on the one that it publishes
 * must be searched: behind this task's seal before it. So a restart reads little; only a state
 * directory without a checkpoint makes it read the outputs from their beginning.
 */
#include <stdlib.h>

#include "session_private.h"

#define SCAN_RECORDS 256
#define SCAN_IDLE_MAX 1000 /* polls in a row that bring nothing: some 10 s on Kafka */

enum { NOTE_K = 1, NOTE_DIGEST, NOTE_COLLECTION };
enum { NOTE_TOPIC = 1, NOTE_PARTITION, NOTE_ROWS, NOTE_ROWS_DIGEST, NOTE_SEARCH };

/* ---- the manifest's note ---- */

int dfi_note_encode(const struct df_session *s, struct df_buf *ret, struct df_error *err)
{
        const struct df_collection_info *c;
        size_t count;

        df_pb_uint(ret, NOTE_K, df_task_k(s->task));
        dfi_put_hash(ret, NOTE_DIGEST, dfi_task_digest(s->task));
        c = df_task_collections(s->task, &count);
        for (size_t i = 0; i < count; i++) {
                size_t m = df_pb_begin(ret, NOTE_COLLECTION);

                df_pb_str(ret, NOTE_TOPIC, s->config.outputs[c[i].output].topic);
                df_pb_uint(ret, NOTE_PARTITION, c[i].partition);
                df_pb_uint(ret, NOTE_ROWS, c[i].rows);
                dfi_put_hash(ret, NOTE_ROWS_DIGEST, c[i].digest);
                df_pb_uint(ret, NOTE_SEARCH, s->search_from[i]);
                df_pb_end(ret, m);
        }
        return df_buf_check(ret, err);
}

/* False when this is not the collection that the state lists in this place. */
static bool check_collection(struct df_session *s, struct df_bytes bytes,
                             const struct df_collection_info *c, uint64_t *ret_search)
{
        struct df_reader r = df_reader(bytes);
        struct df_hash128 digest = {0, 0};
        struct df_bytes topic = {0};
        uint64_t partition = 0, rows = 0;
        struct df_pb_field f;
        bool bad = false;

        *ret_search = 0;
        while (df_pb_next(&r, &f)) {
                if (f.number == NOTE_TOPIC)
                        topic = f.bytes;
                else if (f.number == NOTE_PARTITION)
                        partition = f.u;
                else if (f.number == NOTE_ROWS)
                        rows = f.u;
                else if (f.number == NOTE_ROWS_DIGEST)
                        digest = dfi_get_hash(f.bytes, &bad);
                else if (f.number == NOTE_SEARCH)
                        *ret_search = f.u;
        }
        return !r.bad && !bad && partition == c->partition && rows == c->rows &&
               df_hash128_eq(digest, c->digest) &&
               df_bytes_eq(topic, df_bytes_str(s->config.outputs[c->output].topic));
}

int dfi_note_check(struct df_session *s, struct df_error *err)
{
        struct df_hash128 digest = {0, 0};
        const struct df_collection_info *c;
        struct df_pb_field f;
        struct df_bytes note;
        struct df_reader r;
        size_t count, n = 0;
        uint64_t k = 0;
        bool bad = false;
        int rc = df_ckpt_note(s->ports.ckpt, &note, err);

        if (rc < 0)
                return rc;
        c = df_task_collections(s->task, &count);
        r = df_reader(note);
        while (df_pb_next(&r, &f)) {
                if (f.number == NOTE_K)
                        k = f.u;
                else if (f.number == NOTE_DIGEST)
                        digest = dfi_get_hash(f.bytes, &bad);
                else if (f.number != NOTE_COLLECTION)
                        continue;
                else if (n == count || !check_collection(s, f.bytes, &c[n], &s->search_from[n]))
                        bad = true;
                else
                        n++;
        }
        if (!r.bad && !bad && n == count && k == df_task_k(s->task) &&
            df_hash128_eq(digest, dfi_task_digest(s->task)))
                return 0;
        return df_fail(err, DF_ESCHEMA,
                       "%s/%u: the manifest of checkpoint %llu and the state inside it disagree: "
                       "`adtally recover --partition %u --from checkpoint` (K8)",
                       s->config.source.stream, s->config.source.partition,
                       (unsigned long long)df_task_k(s->task), s->config.source.partition);
}

/* ---- what the log holds of this task ---- */

struct scan { /* of one output partition */
        struct df_session *s;
        struct dfi_readback *back;
        size_t index;  /* of the collection */
        bool is_last;  /* the output that readers trust, its first partition */
        bool shared;   /* other tasks' transactions go into this partition, too */
        uint64_t ours; /* k of the state; 0 = none */
        struct dfi_seen newest;
        /* the link of the chain so far */
        uint64_t prev_k;
        struct df_hash128 prev_digest;
        /* what may become a complete collection: owners follow each other, so one is enough */
        bool open, bad;
        struct df_origin origin;
        uint32_t count;
        struct df_hash128 digest;
};

static bool same_task(const struct df_session *s, const struct df_source *source)
{
        const struct df_source *me = &s->config.source;

        /* Imports: one stream has many generations, and k goes on. */
        return source->partition == me->partition && strcmp(source->stream, me->stream) == 0 &&
               (s->config.control || source->generation == me->generation);
}

static struct dfi_seen seen_of(const struct df_output *out)
{
        struct dfi_seen seen = {
                .any = true, .k = out->origin.k, .source = out->origin.source, .seal = out->seal};

        seen.seal.note = df_bytes(NULL, 0);
        return seen;
}

static void take_complete(struct scan *c, const struct df_output *out)
{
        const struct df_seal *seal = &out->seal;
        struct dfi_readback *back = c->back;

        if (out->origin.k == c->ours && df_hash128_eq(seal->digest, dfi_task_digest(c->s->task)))
                c->s->present[c->index] = true;
        if (!c->newest.any || out->origin.k >= c->newest.k)
                c->newest = seen_of(out);
        if (!c->is_last)
                return;
        if (out->origin.k > c->prev_k) { /* not a repeat */
                back->linked &= seal->parent_k == c->prev_k &&
                                df_hash128_eq(seal->parent_digest, c->prev_digest);
                c->prev_k = out->origin.k;
                c->prev_digest = seal->digest;
        }
        if (seal->to_offset <= back->first)
                back->before = seen_of(out);
        else if (!back->after.any)
                back->after = seen_of(out);
}

static void take_output(struct scan *c, const struct df_output *out, uint64_t offset)
{
        const struct df_origin *o = &out->origin;
        bool whole;

        if (!c->open || o->k != c->origin.k || o->epoch != c->origin.epoch ||
            o->source.generation != c->origin.source.generation) {
                c->open = true;
                c->bad = false;
                c->origin = *o;
                c->count = 0;
                c->digest = (struct df_hash128){0, 0};
        }
        if (!out->is_seal) {
                c->bad |= o->n > c->count;
                if (o->n == c->count) {
                        c->digest = df_digest_add(c->digest, out->payload);
                        c->count++;
                }
                return;
        }
        whole = !c->bad && c->count == o->n && c->count == out->seal.rows &&
                df_hash128_eq(c->digest, out->seal.rows_digest);
        c->open = false;
        if (!whole)
                return;
        c->s->search_from[c->index] = offset + 1;
        take_complete(c, out);
}

static int scan_records(struct scan *c, struct df_log_reader *reader, uint64_t end,
                        struct df_error *err)
{
        struct df_record records[SCAN_RECORDS];
        uint32_t idle = 0;
        int rc = 0;

        while (rc == 0 && df_log_position(reader) < end) {
                size_t n = 0;

                rc = df_log_poll(reader, records, SCAN_RECORDS, &n, err);
                idle = n > 0 ? 0 : idle + 1;
                if (rc == 0 && idle > SCAN_IDLE_MAX)
                        rc = df_fail(err, DF_EAGAIN, "the log does not answer");
                for (size_t i = 0; rc == 0 && i < n; i++) {
                        struct df_output out;

                        /* What cannot be read is in no complete collection. */
                        if (df_output_decode(records[i].value, &out, NULL) == 0 &&
                            same_task(c->s, &out.origin.source))
                                take_output(c, &out, records[i].offset);
                }
        }
        return rc;
}

/* The durable end stops at the first open transaction, whosever it is; ours have ended. */
static int refuse_end(const struct scan *c, const char *topic, uint32_t partition, uint64_t end,
                      struct df_error *err)
{
        const struct df_source *me = &c->s->config.source;

        return df_fail(err, c->shared ? DF_EAGAIN : DF_ESCHEMA,
                       "%s/%u ends at offset %llu, but checkpoint %llu of %s/%u was written up to "
                       "%llu: %sthe topic was put back or created again (K8)",
                       topic, partition, (unsigned long long)end, (unsigned long long)c->ours,
                       me->stream, me->partition, (unsigned long long)c->s->search_from[c->index],
                       c->shared ? "another task's transaction is still open, or " : "");
}

static int scan_partition(struct scan *c, const char *topic, uint32_t partition, bool fresh,
                          struct df_error *err)
{
        struct df_session *s = c->s;
        uint64_t *from = &s->search_from[c->index], first, end;
        struct df_log_reader *reader = NULL;
        int rc = df_log_bounds(s->ports.log, topic, partition, &first, &end, err);

        if (rc < 0)
                return rc;
        if (*from > end)
                return refuse_end(c, topic, partition, end, err);
        if (*from < first)
                *from = first; /* retention keeps what has no complete reader yet */
        rc = df_log_reader_open(s->ports.log, topic, partition, *from, NULL, &reader, err);
        if (rc == 0)
                rc = scan_records(c, reader, end, err);
        df_log_reader_close(reader);
        if (rc == 0 && fresh && !c->newest.any)
                *from = end;
        return rc;
}

/* The last output holds k whole when each of its partitions does. */
static void join_last(struct dfi_readback *back, const struct dfi_seen *newest, bool first)
{
        if (first || !newest->any || (back->last.any && newest->k < back->last.k))
                back->last = *newest;
}

int dfi_read_back(struct df_session *s, bool fresh, struct dfi_readback *ret, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        struct dfi_seen *newest = calloc(s->collection_count + 1, sizeof(*newest));
        uint32_t output = 0, last = (uint32_t)s->config.output_count - 1;
        size_t i = 0;
        int rc;

        *ret = (struct dfi_readback){.linked = true};
        if (!newest)
                return df_fail(err, DF_ENOMEM, "%zu output collections", s->collection_count);
        rc = df_log_bounds(s->ports.log, me->stream, me->partition, &ret->first, &ret->end, err);
        for (; rc == 0 && output < s->config.output_count; output++) {
                const struct df_output_config *o = &s->config.outputs[output];
                uint32_t n = o->spread ? o->partitions : 1;

                rc = dfi_session_step(s, "scan", o->topic, err);
                for (uint32_t p = 0; rc == 0 && p < n; p++, i++) {
                        struct scan c = {.s = s,
                                         .back = ret,
                                         .index = i,
                                         .is_last = output == last && p == 0,
                                         .shared = s->ports.txn && o->spread,
                                         .ours = df_task_k(s->task),
                                         .prev_k = df_task_k(s->task),
                                         .prev_digest = dfi_task_digest(s->task)};

                        rc = scan_partition(&c, o->topic, o->spread ? p : me->partition, fresh,
                                            err);
                        newest[i] = c.newest;
                        if (output == last)
                                join_last(ret, &c.newest, p == 0);
                }
        }
        for (i = 0; i < s->collection_count; i++)
                if (newest[i].any && (!ret->last.any || newest[i].k > ret->last.k) &&
                    (!ret->ahead.any || newest[i].k > ret->ahead.k))
                        ret->ahead = newest[i];
        free(newest);
        return rc;
}
