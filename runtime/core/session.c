/* session.c - a task and its ports: takeover (K8, K10), poll, and the commit on the file log (K4).
 *
 * Steps, by the names that df_session_ports.step gets before each:
 *   open    takeover  restore  scan:<topic>...  [recover]  append:<topic>...  read
 *   commit  cut  persist  publish  append:<topic>...  retire  [release]
 * What a crash leaves:
 *   before publish   CURRENT names k-1: the records after it are processed again, k is cut again;
 *   after publish    CURRENT names k: open writes the collections that the log lacks, whole, under
 * the new epoch; the outbox they come from is part of the checkpoint. The note kept in a
 * checkpoint's manifest: the meta's digest, which must be that of the store (K8), and where each
 * output partition ended before k was appended, so that open scans only from there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core_private.h"

#define SCAN_RECORDS 256
#define SCAN_BYTES_MAX (4u * DF_OUTBOX_MAX) /* unsealed output of all sources of a partition */
#define RELEASE_EVERY 16                    /* commits; each is a durable write */
#define SILENT_RECORDS 100000               /* K10: between checkpoints that bound memory */

enum { NOTE_DIGEST = 1, NOTE_END };

struct df_session {
        struct df_task_config config;
        struct df_session_ports ports;
        struct df_task *task;
        struct df_log_reader *reader;
        uint64_t epoch;
        bool broken; /* a step failed in the middle: close it and open again */
        struct df_record *records;
        size_t record_cap, have, used; /* polled, and given to the task */
        uint64_t commits, parent_offset;
        uint64_t silent_records;
        struct df_append *appends;
        size_t append_cap;
};

static int at_step(const struct df_session *s, const char *name, const char *topic,
                   struct df_error *err)
{
        char text[16 + DF_TOPIC_NAME_MAX];

        if (!s->ports.step)
                return 0;
        (void)snprintf(text, sizeof(text), "%s%s%s", name, topic ? ":" : "", topic ? topic : "");
        return s->ports.step(s->ports.step_arg, text, err);
}

/* ---- the manifest's note ---- */

static int make_note(const struct df_session *s, struct df_buf *ret, struct df_error *err)
{
        struct df_hash128 digest = dfi_task_digest(s->task);
        const struct df_collection_info *c;
        size_t count, m;

        m = df_pb_begin(ret, NOTE_DIGEST);
        df_pb_fixed64(ret, 1, digest.lo);
        df_pb_fixed64(ret, 2, digest.hi);
        df_pb_end(ret, m);
        c = df_task_collections(s->task, &count);
        for (size_t i = 0; i < count; i++) {
                const char *topic = s->config.outputs[c[i].output].topic;
                uint64_t first, end;
                int rc = df_log_bounds(s->ports.log, topic, c[i].partition, &first, &end, err);

                if (rc < 0)
                        return rc;
                m = df_pb_begin(ret, NOTE_END);
                df_pb_uint(ret, 1, end);
                df_pb_end(ret, m);
        }
        return df_buf_check(ret, err);
}

/* ends: one for each collection, in their order; missing ones stay 0 (scan everything). */
static int read_note(struct df_session *s, uint64_t *ends, size_t count, struct df_error *err)
{
        struct df_hash128 want = dfi_task_digest(s->task), have = {0, 0};
        struct df_pb_field f, g;
        struct df_bytes note;
        struct df_reader r, m;
        size_t n = 0;
        int rc = s->ports.ckpt->ops->note(s->ports.ckpt, &note, err);

        if (rc < 0)
                return rc;
        r = df_reader(note);
        while (df_pb_next(&r, &f)) {
                m = df_reader(f.bytes);
                while (df_pb_next(&m, &g)) {
                        if (f.number == NOTE_DIGEST && g.number == 1)
                                have.lo = g.u;
                        else if (f.number == NOTE_DIGEST && g.number == 2)
                                have.hi = g.u;
                        else if (f.number == NOTE_END && g.number == 1 && n < count)
                                ends[n] = g.u;
                }
                n += f.number == NOTE_END;
        }
        if (r.bad || !df_hash128_eq(want, have))
                return df_fail(
                        err, DF_ESCHEMA,
                        "%s/%u: the manifest of checkpoint %llu and the state inside disagree: "
                        "`adtally recover --partition %u` (K8)",
                        s->config.source.stream, s->config.source.partition,
                        (unsigned long long)df_task_k(s->task), s->config.source.partition);
        return 0;
}

/* ---- what the log holds of this task ---- */

struct found {
        bool any;            /* a complete collection of this task */
        uint64_t k;          /* the newest one's */
        struct df_seal seal; /* of k; its note is not kept */
        struct df_clock
                before; /* K10: maxima of the last seal that ends at or before `first_held` */
        uint64_t before_to;
};

static bool same_task(const struct df_session *s, const struct df_source *source)
{
        const struct df_source *me = &s->config.source;

        /* Imports: one stream has many generations, and k goes on. */
        return source->partition == me->partition && strcmp(source->stream, me->stream) == 0 &&
               (s->config.control || source->generation == me->generation);
}

static void take_seal(struct found *f, const struct df_collection *c, uint64_t first_held)
{
        const struct df_seal *seal = &c->seal;

        if (!f->any || c->origin.k >= f->k) {
                f->any = true;
                f->k = c->origin.k;
                f->seal = *seal;
                f->seal.note = df_bytes(NULL, 0);
        }
        if (seal->to_offset <= first_held && seal->to_offset >= f->before_to && !seal->closed) {
                f->before_to = seal->to_offset;
                f->before = (struct df_clock){.max_append_ms = seal->max_append_ms,
                                              .max_receive_ms = seal->max_receive_ms,
                                              .watermark_ms = seal->watermark_ms};
        }
}

/* Complete collections of this task in one output partition, from offset on. */
static int scan_output(struct df_session *s, const char *topic, uint32_t partition, uint64_t from,
                       uint64_t first_held, struct found *ret, struct df_error *err)
{
        struct df_collector *collector = NULL;
        struct df_log_reader *reader = NULL;
        struct df_record records[SCAN_RECORDS];
        uint64_t first, end;
        size_t n = 1;
        int rc = df_log_bounds(s->ports.log, topic, partition, &first, &end, err);

        if (rc == 0)
                rc = df_collector_create(SCAN_BYTES_MAX, &collector, err);
        if (rc == 0)
                rc = df_log_reader_open(s->ports.log, topic, partition, from > first ? from : first,
                                        NULL, &reader, err);
        while (rc == 0 && n > 0) {
                rc = df_log_poll(reader, records, SCAN_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++) {
                        struct df_collection c;
                        enum df_collect what;

                        rc = df_collector_add(collector, &records[i], &what, &c, err);
                        if (rc == 0 &&
                            (what == DF_COLLECT_COMPLETE || what == DF_COLLECT_REPEATED) &&
                            same_task(s, &c.origin.source))
                                take_seal(ret, &c, first_held);
                }
        }
        df_log_reader_close(reader);
        df_collector_destroy(collector);
        return rc;
}

/* ---- append ---- */

static int append(struct df_session *s, const struct df_collection_info *c, struct df_error *err)
{
        const char *topic = s->config.outputs[c->output].topic;
        const struct df_bytes *records;
        size_t count;
        int rc = at_step(s, "append", topic, err);

        if (rc == 0)
                rc = df_task_publish(s->task, c, s->epoch, &records, &count, err);
        if (rc < 0)
                return rc;
        if (count > s->append_cap) {
                struct df_append *grown = realloc(s->appends, count * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "%zu output records", count);
                s->appends = grown;
                s->append_cap = count;
        }
        for (size_t i = 0; i < count; i++)
                s->appends[i] = (struct df_append){.partition = c->partition, .value = records[i]};
        rc = df_log_append(s->ports.writers[c->output], s->appends, count, err);
        return rc < 0 ? df_wrap(err, "append checkpoint %llu to %s/%u",
                                (unsigned long long)df_task_k(s->task), topic, c->partition)
                      : 0;
}

/* ---- open: K8 ---- */

static int refuse_ahead(const struct df_session *s, uint64_t log_k, struct df_error *err)
{
        return df_fail(
                err, DF_ESCHEMA,
                "%s/%u: the log holds checkpoint %llu of this partition, its state directory "
                "%s %llu: state was lost or put back; `adtally recover --partition %u --from log` "
                "(K8, K10)",
                s->config.source.stream, s->config.source.partition, (unsigned long long)log_k,
                df_task_k(s->task) ? "only" : "is empty, k =",
                (unsigned long long)df_task_k(s->task), s->config.source.partition);
}

/* Compare state and log; publish what CURRENT lists and the log lacks. */
static int settle_outputs(struct df_session *s, struct df_error *err)
{
        const struct df_collection_info *c;
        uint64_t *ends, k = df_task_k(s->task);
        size_t count;
        int rc;

        c = df_task_collections(s->task, &count);
        ends = calloc(count ? count : 1, sizeof(*ends));
        rc = ends ? read_note(s, ends, count, err) : df_fail(err, DF_ENOMEM, "outputs");
        for (size_t i = 0; rc == 0 && i < count; i++) {
                const char *topic = s->config.outputs[c[i].output].topic;
                struct found f = {0};

                rc = at_step(s, "scan", topic, err);
                if (rc == 0)
                        rc = scan_output(s, topic, c[i].partition, ends[i], 0, &f, err);
                if (rc == 0 && f.any && f.k > k) {
                        rc = refuse_ahead(s, f.k, err);
                        break;
                }
                if (rc == 0 && f.any && f.k == k &&
                    !df_hash128_eq(f.seal.digest, dfi_task_digest(s->task)))
                        rc = df_fail(err, DF_ESCHEMA,
                                     "%s/%u: checkpoint %llu in %s is not the one in the state "
                                     "directory: "
                                     "foreign state (K8)",
                                     s->config.source.stream, s->config.source.partition,
                                     (unsigned long long)k, topic);
                if (rc == 0 && !(f.any && f.k == k))
                        rc = append(s, &c[i], err);
        }
        free(ends);
        if (rc == 0)
                df_task_committed(s->task);
        return rc;
}

/* The newest seal of this task in the topic that readers trust (the last output). */
static int last_seal(struct df_session *s, uint64_t first_held, struct found *ret,
                     struct df_error *err)
{
        const struct df_output_config *o;
        int rc;

        memset(ret, 0, sizeof(*ret));
        df_clock_init(&ret->before);
        if (s->config.output_count == 0)
                return 0;
        o = &s->config.outputs[s->config.output_count - 1];
        rc = at_step(s, "scan", o->topic, err);
        for (uint32_t p = 0; rc == 0 && p < (o->spread ? o->partitions : 1); p++)
                rc = scan_output(s, o->topic, o->spread ? p : s->config.source.partition, 0,
                                 first_held, ret, err);
        return rc;
}

/* K10: the state is older than the log, or gone: process again what lies between, in silence. */
static int recover_from_log(struct df_session *s, const struct found *f, uint64_t first_held,
                            uint64_t end, struct df_error *err)
{
        int rc = at_step(s, "recover", NULL, err);

        if (rc < 0)
                return rc;
        if (f->seal.to_offset > end)
                return df_fail(err, DF_ESCHEMA,
                               "%s/%u: the last seal ends at offset %llu, the log at %llu: the log "
                               "was put "
                               "back or created again (K14)",
                               s->config.source.stream, s->config.source.partition,
                               (unsigned long long)f->seal.to_offset, (unsigned long long)end);
        if (df_task_k(s->task) == 0)
                df_task_suppress(s->task, f->k, &f->seal, &f->before,
                                 first_held < f->seal.to_offset ? first_held : f->seal.to_offset);
        else
                df_task_suppress(s->task, f->k, &f->seal, df_task_clock(s->task),
                                 df_task_position(s->task));
        return 0;
}

static int settle(struct df_session *s, bool fresh, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        uint64_t first, end;
        struct found f;
        int rc = df_log_bounds(s->ports.log, me->stream, me->partition, &first, &end, err);

        if (rc < 0)
                return rc;
        if (!fresh && !s->ports.recover_from_log)
                return settle_outputs(s, err);
        rc = last_seal(s, first, &f, err);
        if (rc < 0)
                return rc;
        if (!fresh && (!f.any || f.k <= df_task_k(s->task)))
                return settle_outputs(s, err);
        if (f.any && !s->ports.recover_from_log)
                return refuse_ahead(s, f.k, err);
        if (f.any)
                return recover_from_log(s, &f, first, end, err);
        dfi_task_start_at(s->task, first);
        return 0;
}

static int open_reader(struct df_session *s, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        uint64_t first, end, at = df_task_position(s->task);
        int rc = at_step(s, "read", NULL, err);

        if (rc == 0)
                rc = df_log_bounds(s->ports.log, me->stream, me->partition, &first, &end, err);
        if (rc < 0)
                return rc;
        if (at < first)
                return df_fail(
                        err, DF_EOFFSET,
                        "%s/%u: the state goes on at offset %llu, the log begins at %llu: records "
                        "were deleted before they were counted (K14)",
                        me->stream, me->partition, (unsigned long long)at,
                        (unsigned long long)first);
        if (at > end)
                return df_fail(
                        err, DF_ESCHEMA,
                        "%s/%u: the state goes on at offset %llu, the log ends at %llu: the log "
                        "was put back or created again (K14)",
                        me->stream, me->partition, (unsigned long long)at, (unsigned long long)end);
        s->parent_offset = at;
        return df_log_reader_open(s->ports.log, me->stream, me->partition, at, s->ports.consumer,
                                  &s->reader, err);
}

static int take_over(struct df_session *s, struct df_error *err)
{
        struct df_takeover t;
        int rc = at_step(s, "takeover", NULL, err);

        if (rc == 0)
                rc = df_ckpt_takeover(s->ports.ckpt, &t, err);
        if (rc == 0)
                rc = at_step(s, "restore", NULL, err);
        if (rc < 0)
                return rc;
        s->epoch = t.epoch;
        rc = df_task_create(&s->config, t.store, &s->task, err);
        if (rc == 0 && df_task_k(s->task) != t.k)
                rc = df_fail(err, DF_ESCHEMA,
                             "%s/%u: CURRENT names checkpoint %llu, the state inside is %llu (K8)",
                             s->config.source.stream, s->config.source.partition,
                             (unsigned long long)t.k, (unsigned long long)df_task_k(s->task));
        if (rc == 0)
                rc = settle(s, t.fresh, err);
        return rc == 0 ? open_reader(s, err) : rc;
}

int df_session_open(const struct df_task_config *config, const struct df_session_ports *ports,
                    struct df_session **ret, struct df_error *err)
{
        struct df_session *s = calloc(1, sizeof(*s));
        int rc;

        if (!s)
                return df_fail(err, DF_ENOMEM, "session");
        s->config = *config;
        s->ports = *ports;
        rc = take_over(s, err);
        if (rc < 0) {
                df_session_close(s);
                return rc;
        }
        *ret = s;
        return 0;
}

void df_session_close(struct df_session *s)
{
        if (!s)
                return;
        df_log_reader_close(s->reader);
        df_task_destroy(s->task);
        s->ports.ckpt->ops->drop_live(s->ports.ckpt);
        free(s->records);
        free(s->appends);
        free(s);
}

/* ---- poll ---- */

static int refill(struct df_session *s, size_t max, struct df_error *err)
{
        if (s->used < s->have)
                return 0;
        s->used = s->have = 0;
        if (max > s->record_cap) {
                struct df_record *grown = realloc(s->records, max * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "%zu records", max);
                s->records = grown;
                s->record_cap = max;
        }
        return df_log_poll(s->reader, s->records, max, &s->have, err);
}

int df_session_poll(struct df_session *s, size_t max_records, size_t *ret_processed,
                    struct df_error *err)
{
        size_t used = 0;
        int rc;

        df_check(!s->broken);
        *ret_processed = 0;
        if (df_task_wants_cut(s->task))
                return 0;
        rc = refill(s, max_records, err);
        if (rc == 0 && s->used < s->have)
                rc = df_task_process(s->task, s->records + s->used, s->have - s->used, &used, err);
        if (rc == 0 && df_task_suppressed(s->task) &&
            (s->silent_records += used) >= SILENT_RECORDS) {
                s->silent_records = 0;
                rc = df_task_checkpoint_silently(s->task, err);
        }
        s->used += used;
        if (rc < 0)
                s->broken = true;
        else
                *ret_processed = used;
        return rc;
}

/* ---- commit: K4 ---- */

static int release(struct df_session *s, uint64_t parent_offset, struct df_error *err)
{
        int rc;

        if (!s->ports.consumer || s->commits++ % RELEASE_EVERY != 0)
                return 0;
        rc = at_step(s, "release", NULL, err);
        return rc == 0 ? df_log_release(s->reader, parent_offset, err) : rc;
}

static int commit_once(struct df_session *s, struct df_error *err)
{
        const struct df_collection_info *c;
        struct df_buf note = {0};
        size_t count = 0;
        int rc = at_step(s, "cut", NULL, err);

        if (rc == 0)
                rc = df_task_cut(s->task, err);
        if (rc == 0)
                rc = at_step(s, "persist", NULL, err);
        if (rc == 0)
                rc = make_note(s, &note, err);
        if (rc == 0)
                rc = df_ckpt_persist(s->ports.ckpt, df_task_k(s->task), df_buf_bytes(&note), err);
        if (rc == 0)
                rc = at_step(s, "publish", NULL, err);
        if (rc == 0)
                rc = df_ckpt_publish(s->ports.ckpt, df_task_k(s->task), err);
        c = df_task_collections(s->task, &count);
        for (size_t i = 0; rc == 0 && i < count; i++)
                rc = append(s, &c[i], err);
        df_buf_release(&note);
        if (rc < 0)
                return rc;
        df_task_committed(s->task);
        rc = at_step(s, "retire", NULL, err);
        if (rc == 0)
                rc = df_ckpt_retire(s->ports.ckpt, err);
        return rc;
}

int df_session_commit(struct df_session *s, struct df_error *err)
{
        int rc;

        df_check(!s->broken);
        df_check(!df_task_suppressed(s->task));
        do {
                uint64_t parent_offset = s->parent_offset;

                s->parent_offset = df_task_position(s->task);
                rc = commit_once(s, err);
                if (rc == 0)
                        rc = release(s, parent_offset, err);
        } while (rc == 0 && df_task_wants_cut(s->task));
        if (rc < 0)
                s->broken = true;
        return rc;
}

struct df_task *df_session_task(struct df_session *s)
{
        return s->task;
}

uint64_t df_session_epoch(const struct df_session *s)
{
        return s->epoch;
}

uint64_t df_session_lag(struct df_session *s)
{
        uint64_t first, end, at = df_task_position(s->task);

        if (df_log_bounds(s->ports.log, s->config.source.stream, s->config.source.partition, &first,
                          &end, NULL) < 0)
                return 0;
        return end > at ? end - at : 0;
}
