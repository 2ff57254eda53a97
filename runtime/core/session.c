/* session.c - a task and its ports: takeover (K8, K10), poll, and the commit (K3, K4).
 *
 * Steps, by the names that df_session_ports.step gets before each; [] = not always:
 *   open    takeover  restore  scan:<topic>...  [recover]  [append:<topic>...]  read
 *   poll    [silent_cut]
 *   commit  cut  persist  publish  append:<topic>...  retire  [release]
 * With transactions (session_txn.c), where TXN is begin  produce:<topic>...  offsets  commit:
 *   open    fence  takeover  restore  scan:<topic>...  [recover]  [TXN]  read
 *   commit  cut  persist  TXN  publish  retire  [release]
 * What a crash leaves (without transactions):
 *   before publish  CURRENT names k-1: the records after it are processed again, k is cut again;
 *   after publish   CURRENT names k: open writes the collections that the log lacks, whole, under
 *                   the new epoch; the outbox they come from is part of the checkpoint.
 * scan and append come once for each output, in publishing order: the collections of an output,
 * one a partition, leave in one append.
 *
 * After an error: while nothing but publishing, deleting and releasing is left of a commit, an
 * error
 * that df_err_action calls DF_RETRY leaves the session in order, and the next commit goes on where
 * this one stopped. Every other error leaves it broken: further calls repeat it (DF_EIO in place of
 * one that invites to retry), and df_session_close and open again are the way on (K7).
 */
#include <stdio.h>
#include <stdlib.h>

#include "session_private.h"

#define SILENT_BYTES (256u << 20) /* K10: of records, between checkpoints that bound memory */

int dfi_session_step(struct df_session *s, const char *name, const char *topic,
                     struct df_error *err)
{
        char text[16 + DF_TOPIC_NAME_MAX];

        dfi_charge_step(&s->meter, &s->steps, name);
        if (!s->ports.step)
                return 0;
        (void)snprintf(text, sizeof(text), "%s%s%s", name, topic ? ":" : "", topic ? topic : "");
        return s->ports.step(s->ports.step_arg, text, err);
}

/* ---- errors ---- */

static int break_off(struct df_session *s, int rc, struct df_error *err)
{
        struct df_error reason = {.code = rc};

        if (err)
                reason = *err;
        (void)df_fail(&s->broken, df_err_action(rc) == DF_RETRY ? DF_EIO : rc,
                      "take over again, after %s: %.400s", df_err_code(rc), reason.text);
        return rc;
}

static int check_in_order(const struct df_session *s, struct df_error *err)
{
        if (s->broken.code == 0)
                return 0;
        return df_fail(err, s->broken.code, "%s", s->broken.text);
}

/* ---- append ---- */

int dfi_reserve_appends(struct df_session *s, size_t count, struct df_error *err)
{
        struct df_append *grown;

        if (count <= s->append_cap)
                return 0;
        grown = realloc(s->appends, count * sizeof(*grown));
        if (!grown)
                return df_fail(err, DF_ENOMEM, "%zu output records", count);
        s->appends = grown;
        s->append_cap = count;
        return 0;
}

/* The collections of an output that the log lacks, whole: their records into s->out. */
int dfi_rebuild_output(struct df_session *s, uint32_t output, struct df_error *err)
{
        size_t count;
        const struct df_collection_info *c = df_task_collections(s->task, &count);
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < count; i++)
                if (c[i].output == output && !s->present[i])
                        rc = dfi_task_rebuild(s->task, &c[i], s->epoch, &s->out, err);
        return rc;
}

void dfi_fill_appends(struct df_session *s, uint32_t output, size_t *n)
{
        size_t count;
        const struct df_collection_info *c = df_task_collections(s->task, &count);

        for (size_t i = 0; i < count; i++) {
                if (c[i].output != output || s->present[i])
                        continue;
                for (uint32_t j = 0; j <= c[i].rows; j++, (*n)++)
                        s->appends[*n] = (struct df_append){.partition = c[i].partition,
                                                            .value = dfi_record_at(&s->out, *n)};
        }
}

void dfi_note_appended(struct df_session *s, uint32_t output, size_t *n)
{
        size_t count;
        const struct df_collection_info *c = df_task_collections(s->task, &count);

        for (size_t i = 0; i < count; i++) {
                if (c[i].output != output || s->present[i])
                        continue;
                *n += (size_t)c[i].rows + 1;
                s->present[i] = true;
                s->search_from[i] = s->appends[*n - 1].ret_offset + 1;
        }
}

static int append_output(struct df_session *s, uint32_t output, struct df_error *err)
{
        const char *topic = s->config.outputs[output].topic;
        size_t n = 0, done = 0;
        int rc;

        dfi_records_clear(&s->out);
        rc = dfi_rebuild_output(s, output, err);
        if (rc == 0 && s->out.count == 0)
                return 0;
        if (rc == 0)
                rc = dfi_session_step(s, "append", topic, err);
        if (rc == 0)
                rc = dfi_reserve_appends(s, s->out.count, err);
        if (rc < 0)
                return rc;
        dfi_fill_appends(s, output, &n);
        rc = df_log_append(s->ports.writers[output], s->appends, n, err);
        if (rc < 0) {
                (void)df_wrap(err, "checkpoint %llu of %s/%u to %s",
                              (unsigned long long)df_task_k(s->task), s->config.source.stream,
                              s->config.source.partition, topic);
                return rc;
        }
        dfi_note_appended(s, output, &done);
        return 0;
}

/* Everything that the log lacks of checkpoint k. */
int dfi_append_all(struct df_session *s, struct df_error *err)
{
        for (; s->next_output < s->config.output_count; s->next_output++) {
                int rc = append_output(s, s->next_output, err);

                if (rc < 0)
                        return rc;
        }
        df_task_committed(s->task);
        return 0;
}

/* ---- open ---- */

struct find_topic {
        const char *name;
        struct df_topic_info info;
        bool found;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct find_topic *f = arg;

        if (strcmp(info->name, f->name) == 0) {
                f->info = *info;
                f->found = true;
        }
        return 0;
}

/* K14: the topic is the one that the caller configured. */
static int check_topic(const struct df_session *s, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        struct find_topic f = {.name = me->stream};
        int rc = df_log_topic_list(s->ports.log, me->stream, on_topic, &f, err);

        if (rc < 0)
                return rc;
        if (!f.found)
                return df_fail(err, DF_ENOENT, "there is no topic %s", me->stream);
        if (f.info.partitions != s->config.partitions)
                return df_fail(err, DF_ESCHEMA,
                               "topic %s has %u partitions, configured are %u (K14)", me->stream,
                               f.info.partitions, s->config.partitions);
        if (f.info.generation != me->generation)
                return df_fail(err, DF_ESCHEMA, "topic %s was created again (K14)", me->stream);
        return 0;
}

static int open_reader(struct df_session *s, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        uint64_t first, end, at = df_task_position(s->task);
        int rc = dfi_session_step(s, "read", NULL, err);

        if (rc == 0)
                rc = df_log_bounds(s->ports.log, me->stream, me->partition, &first, &end, err);
        if (rc < 0)
                return rc;
        if (at < first)
                return df_fail(err, DF_EOFFSET,
                               "%s/%u: the state goes on at offset %llu, the log begins at %llu: "
                               "records were deleted before they were counted (K14)",
                               me->stream, me->partition, (unsigned long long)at,
                               (unsigned long long)first);
        if (at > end)
                return df_fail(err, DF_ESCHEMA,
                               "%s/%u: the state goes on at offset %llu, the log ends at %llu: it "
                               "was put back or created again (K14)",
                               me->stream, me->partition, (unsigned long long)at,
                               (unsigned long long)end);
        return df_log_reader_open(s->ports.log, me->stream, me->partition, at, s->ports.consumer,
                                  &s->reader, err);
}

static int reserve_collections(struct df_session *s, struct df_error *err)
{
        for (size_t i = 0; i < s->config.output_count; i++)
                s->collection_count +=
                        s->config.outputs[i].spread ? s->config.outputs[i].partitions : 1;
        s->present = calloc(s->collection_count + 1, sizeof(*s->present));
        s->search_from = calloc(s->collection_count + 1, sizeof(*s->search_from));
        if (s->present && s->search_from)
                return 0;
        return df_fail(err, DF_ENOMEM, "%zu output collections", s->collection_count);
}

static int take_over(struct df_session *s, struct df_error *err)
{
        struct df_ckpt_wanted wanted;
        struct df_takeover t = {0};
        int rc = check_topic(s, err);

        if (rc == 0)
                rc = reserve_collections(s, err);
        if (rc == 0 && s->ports.txn)
                rc = dfi_txn_fence(s, &wanted, err);
        if (rc == 0)
                rc = dfi_session_step(s, "takeover", NULL, err);
        if (rc == 0)
                rc = s->ports.txn ? df_ckpt_takeover_at(s->ports.ckpt, &wanted, &t, err)
                                  : df_ckpt_takeover(s->ports.ckpt, &t, err);
        if (rc == 0)
                rc = dfi_session_step(s, "restore", NULL, err);
        if (rc < 0)
                return rc;
        s->epoch = t.epoch;
        memcpy(s->ref.name, t.name, sizeof(s->ref.name));
        memcpy(s->ref.digest, t.digest, sizeof(s->ref.digest));
        rc = df_task_create(&s->config, t.store, &s->task, err);
        if (rc == 0 && df_task_k(s->task) != t.k)
                rc = df_fail(err, DF_ESCHEMA,
                             "%s/%u: the checkpoint's name says %llu, the state inside %llu (K8)",
                             s->config.source.stream, s->config.source.partition,
                             (unsigned long long)t.k, (unsigned long long)df_task_k(s->task));
        if (rc == 0 && s->ports.txn)
                rc = dfi_txn_check(s, &t, err);
        if (rc == 0)
                rc = dfi_settle(s, t.fresh, err);
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
        s->meter.ticks_ns = config->ticks_ns;
        s->meter.weight = 1;
        rc = take_over(s, err);
        dfi_charge_step(&s->meter, &s->steps, NULL);
        if (rc < 0 && s->ports.txn)
                rc = dfi_txn_confirm(s, rc, err);
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
        df_ckpt_drop_live(s->ports.ckpt);
        dfi_records_release(&s->out);
        free(s->records);
        free(s->appends);
        free(s->present);
        free(s->search_from);
        free(s);
}

/* ---- poll ---- */

static int refill(struct df_session *s, size_t max, struct df_error *err)
{
        int rc;

        s->used = s->have = 0;
        if (max > s->record_cap) {
                struct df_record *grown = realloc(s->records, max * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "%zu records", max);
                s->records = grown;
                s->record_cap = max;
        }
        rc = df_log_poll(s->reader, s->records, max, &s->have, err);
        if (rc < 0)
                s->have = 0;
        return rc;
}

/* The replay went over the same records as the run that wrote the last seal. */
static int check_clock(struct df_session *s, struct df_error *err)
{
        const struct df_clock *is = df_task_clock(s->task), *want = &s->expected;

        if (!s->expect_clock || df_task_suppressed(s->task))
                return 0;
        s->expect_clock = false;
        if (is->max_append_ms == want->max_append_ms &&
            is->max_receive_ms == want->max_receive_ms && is->watermark_ms == want->watermark_ms)
                return 0;
        return df_fail(err, DF_ESCHEMA,
                       "%s/%u: processed again up to checkpoint %llu, the watermark is %lld, its "
                       "seal says %lld: the log or the program is another (K10)",
                       s->config.source.stream, s->config.source.partition,
                       (unsigned long long)df_task_k(s->task), (long long)is->watermark_ms,
                       (long long)want->watermark_ms);
}

static int process(struct df_session *s, size_t max, size_t *ret_used, struct df_error *err)
{
        size_t left = s->have - s->used, used = 0;
        int rc =
                df_task_process(s->task, s->records + s->used, left < max ? left : max, &used, err);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < used && df_task_suppressed(s->task); i++)
                s->silent_bytes += s->records[s->used + i].value.len;
        s->used += used;
        rc = check_clock(s, err);
        if (rc == 0 && s->silent_bytes >= SILENT_BYTES && df_task_suppressed(s->task)) {
                s->silent_bytes = 0;
                rc = dfi_session_step(s, "silent_cut", NULL, err);
                if (rc == 0)
                        rc = df_task_checkpoint_silently(s->task, err);
                dfi_charge_step(&s->meter, &s->steps, NULL);
        }
        *ret_used = used;
        return rc;
}

/* The range ends where the reader's position has come to its end (R1): behind it may be markers,
 * aborted records, or records of the time after. */
static int follow_range(struct df_session *s, struct df_error *err)
{
        const struct df_range *r = &s->config.range;

        while (s->have > s->used && s->records[s->have - 1].offset >= r->to)
                s->have--;
        if (s->used < s->have || df_log_position(s->reader) < r->to)
                return 0;
        s->paused = r->open;
        return r->open ? dfi_task_pause(s->task, r->to, err) : dfi_task_end(s->task, r->to, err);
}

static bool range_is_over(const struct df_session *s)
{
        const struct df_range *r = &s->config.range;

        if (!r->given)
                return false;
        if (!r->open)
                return s->task->closed;
        return s->paused || (df_task_k(s->task) > 0 && s->task->last.to_offset >= r->to);
}

int df_session_poll(struct df_session *s, size_t max_records, size_t *ret_processed,
                    struct df_error *err)
{
        int rc = check_in_order(s, err);

        *ret_processed = 0;
        if (rc < 0 || df_task_wants_cut(s->task) || range_is_over(s))
                return rc;
        /* Behind a range nothing is read: it may not be there. */
        if (s->used == s->have &&
            !(s->config.range.given && df_log_position(s->reader) >= s->config.range.to)) {
                rc = refill(s, max_records, err);
                if (rc < 0) /* a poll that may be tried again has moved nothing */
                        return df_err_action(rc) == DF_RETRY ? rc : break_off(s, rc, err);
        }
        if (s->config.range.given)
                rc = follow_range(s, err);
        if (rc == 0 && s->used < s->have)
                rc = process(s, max_records, ret_processed, err);
        return rc < 0 ? break_off(s, rc, err) : 0;
}

/* ---- commit: K3, K4 ---- */

static int do_cut(struct df_session *s, struct df_error *err)
{
        int rc = dfi_session_step(s, "cut", NULL, err);

        return rc < 0 ? rc : df_task_cut(s->task, err);
}

static int do_persist(struct df_session *s, struct df_error *err)
{
        struct df_buf note = {0};
        int rc = dfi_session_step(s, "persist", NULL, err);

        if (rc == 0)
                rc = dfi_note_encode(s, &note, err);
        if (rc == 0)
                rc = df_ckpt_persist(s->ports.ckpt, df_task_k(s->task), df_buf_bytes(&note), err);
        df_buf_release(&note);
        if (rc < 0)
                return rc;
        if (s->ports.txn)
                df_ckpt_candidate(s->ports.ckpt, &s->ref);
        s->next_output = 0;
        memset(s->present, 0, s->collection_count * sizeof(*s->present));
        return 0;
}

static int do_publish(struct df_session *s, struct df_error *err)
{
        int rc = dfi_session_step(s, "publish", NULL, err);

        return rc < 0 ? rc : df_ckpt_publish(s->ports.ckpt, df_task_k(s->task), err);
}

static int do_retire(struct df_session *s, struct df_error *err)
{
        int rc = dfi_session_step(s, "retire", NULL, err);

        return rc < 0 ? rc : df_ckpt_retire(s->ports.ckpt, err);
}

/* The checkpoint before this one may still be gone back to: records from its end on are kept. What
 * was polled and not yet processed lives until the next call on the reader, so it goes first. */
static int do_release(struct df_session *s, struct df_error *err)
{
        int rc;

        if (!s->ports.consumer || s->used < s->have)
                return 0;
        rc = dfi_session_step(s, "release", NULL, err);
        if (rc == 0)
                rc = df_log_release(s->reader, s->task->last.from_offset, err);
        return rc;
}

struct stage {
        int (*run)(struct df_session *s, struct df_error *err);
        bool resumes; /* after DF_RETRY the next commit goes on with it */
};
enum { STAGE_COUNT = 6 };

static const struct stage append_stages[STAGE_COUNT] = {
        {do_cut, false},        {do_persist, false}, {do_publish, false},
        {dfi_append_all, true}, {do_retire, true},   {do_release, true},
};
static const struct stage txn_stages[STAGE_COUNT] = {
        {do_cut, false},     {do_persist, false}, {dfi_transact, true},
        {do_publish, false}, {do_retire, true},   {do_release, true},
};

static int commit_once(struct df_session *s, struct df_error *err)
{
        const struct stage *stages = s->ports.txn ? txn_stages : append_stages;

        for (; s->stage < STAGE_COUNT; s->stage++) {
                int rc = stages[s->stage].run(s, err);

                if (rc < 0 && (!stages[s->stage].resumes || df_err_action(rc) != DF_RETRY))
                        return break_off(s, rc, err);
                if (rc < 0)
                        return rc;
        }
        s->stage = 0;
        return 0;
}

int df_session_commit(struct df_session *s, struct df_error *err)
{
        bool resumed = s->stage > 0;
        int rc = check_in_order(s, err);

        if (rc < 0)
                return rc;
        if (dfi_task_held(s->task))
                return 0; /* K10: what was processed so far is in the log already */
        rc = commit_once(s, err);
        if (rc == 0 && resumed && df_task_dirty(s->task))
                rc = commit_once(s, err); /* what was processed in the meantime */
        while (rc == 0 && dfi_task_owes_cut(s->task))
                rc = commit_once(s, err);
        dfi_charge_step(&s->meter, &s->steps, NULL);
        return rc;
}

void df_session_profile(const struct df_session *s, struct df_profile *sum)
{
        df_profile_add(sum, df_task_profile(s->task));
        df_profile_add(sum, &s->steps);
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
        const struct df_source *me = &s->config.source;
        uint64_t end, at = df_task_position(s->task);

        /* What was read is processed: the reader may have passed what holds no record. */
        if (s->used == s->have && df_log_position(s->reader) > at)
                at = df_log_position(s->reader);
        if (df_log_seen_end(s->reader, me->stream, me->partition, &end, NULL) < 0)
                return DF_LAG_UNKNOWN;
        if (s->config.range.given && end > s->config.range.to)
                end = s->config.range.to;
        return end > at ? end - at : 0;
}

bool df_session_done(const struct df_session *s)
{
        return range_is_over(s) && s->stage == 0 && s->broken.code == 0 && !df_task_dirty(s->task);
}
