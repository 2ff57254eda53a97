/* session_settle.c - state and log brought together at a takeover (K8, K10).
 *
 * Three things must agree (K8): CURRENT's manifest, the state inside it, and the seals in the log.
 * Where the log knows more than the state,
 *   the state is an ancestor   each seal after the state's k names the one before it, the first of
 *                              them the state itself (`adtally recover --from checkpoint` does
 *                              that): what lies between is processed again with its outputs
 *                              suppressed (K10);
 *   the directory is empty     refused; told so by recover_from_log (`adtally recover --from log`)
 *                              the state is rebuilt likewise, from the first record still held;
 *   anything else              refused: DF_ESCHEMA.
 */
#include "session_private.h"

static int refuse(const struct df_session *s, uint64_t log_k, const char *why, struct df_error *err)
{
        const struct df_source *me = &s->config.source;

        return df_fail(err, DF_ESCHEMA,
                       "%s/%u: %s: the state directory has checkpoint %llu, the log %llu; `adtally "
                       "recover --partition %u --from log` (K8, K10)",
                       me->stream, me->partition, why, (unsigned long long)df_task_k(s->task),
                       (unsigned long long)log_k, me->partition);
}

/* The next checkpoint ends where an output already has it. */
static void follow_ahead(struct df_session *s, const struct dfi_readback *back, uint64_t k)
{
        if (back->ahead.any && back->ahead.k == k + 1)
                dfi_task_fix_cut(s->task, back->ahead.seal.to_offset, back->ahead.seal.digest);
}

static int check_replay(const struct df_session *s, const struct dfi_readback *back,
                        struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        const struct dfi_seen *newest = back->ahead.any ? &back->ahead : &back->last;
        uint64_t k = back->last.any && back->last.k > df_task_k(s->task) ? back->last.k
                                                                         : df_task_k(s->task);

        if (back->ahead.any && back->ahead.k > k + 1)
                return refuse(s, back->ahead.k,
                              "the outputs hold checkpoints that do not follow "
                              "each other",
                              err);
        if (newest->seal.config != s->config.config)
                return df_fail(err, DF_ESCHEMA,
                               "%s/%u: checkpoint %llu in the log was counted under another grace, "
                               "horizon, cap, grouping list or pricing: put the old settings back "
                               "(K14)",
                               me->stream, me->partition, (unsigned long long)newest->k);
        if (newest->seal.to_offset > back->end)
                return df_fail(
                        err, DF_ESCHEMA,
                        "%s/%u: checkpoint %llu in the log ends at offset %llu, the topic at "
                        "%llu: it was put back or created again (K14)",
                        me->stream, me->partition, (unsigned long long)newest->k,
                        (unsigned long long)newest->seal.to_offset, (unsigned long long)back->end);
        return 0;
}

static bool ancestor(const struct df_session *s, const struct dfi_readback *back)
{
        const struct dfi_seen *ahead = &back->ahead;
        struct df_hash128 digest = dfi_task_digest(s->task);
        uint64_t k = df_task_k(s->task);

        if (back->last.any && back->last.k > k) {
                k = back->last.k;
                digest = back->last.seal.digest;
        }
        return back->linked &&
               (!ahead->any || ahead->k <= k ||
                (ahead->seal.parent_k == k && df_hash128_eq(ahead->seal.parent_digest, digest)));
}

static void suppress(struct df_session *s, const struct dfi_seen *last,
                     const struct df_clock *clock, uint64_t offset, bool exact)
{
        df_task_suppress(s->task, last->k, &last->seal, clock, offset);
        s->expect_clock = exact && df_task_suppressed(s->task);
        s->expected = (struct df_clock){.max_append_ms = last->seal.max_append_ms,
                                        .max_receive_ms = last->seal.max_receive_ms,
                                        .watermark_ms = last->seal.watermark_ms};
}

/* K10 from an older checkpoint: on from where it is. */
static int replay_on(struct df_session *s, const struct dfi_readback *back, struct df_error *err)
{
        struct df_clock clock = *df_task_clock(s->task);
        uint64_t k = df_task_k(s->task);
        int rc = dfi_session_step(s, "recover", NULL, err);

        if (rc < 0)
                return rc;
        if (back->last.any && back->last.k > k) {
                suppress(s, &back->last, &clock, df_task_position(s->task), true);
                k = back->last.k;
        }
        follow_ahead(s, back, k);
        df_task_committed(s->task); /* later ones are in the log, so these are (K4) */
        return 0;
}

/* K10 without a checkpoint: from the first record that the log still holds, with the maxima of the
 * last seal before it (D1); where there is none, from the first seal on. */
static int replay_anew(struct df_session *s, const struct dfi_readback *back, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        const struct dfi_seen *at = back->before.any ? &back->before : &back->after;
        uint64_t offset = back->first, generation = me->generation;
        bool begun = false, exact = true;
        struct df_clock clock;
        int rc = dfi_session_step(s, "recover", NULL, err);

        if (rc < 0)
                return rc;
        df_clock_init(&clock);
        if (back->last.any && back->first > back->last.seal.to_offset)
                return df_fail(err, DF_EOFFSET,
                               "%s/%u: the last seal ends at offset %llu, the log begins at %llu: "
                               "records were deleted before they were counted (K14)",
                               me->stream, me->partition,
                               (unsigned long long)back->last.seal.to_offset,
                               (unsigned long long)back->first);
        if (back->first > 0 && at->any) {
                clock = (struct df_clock){.max_append_ms = at->seal.max_append_ms,
                                          .max_receive_ms = at->seal.max_receive_ms,
                                          .watermark_ms = at->seal.watermark_ms};
                if (at->seal.to_offset > offset)
                        offset = at->seal.to_offset;
                exact = at->seal.to_offset == offset;
                generation = at->source.generation;
                begun = true;
        }
        dfi_task_start(s->task, offset, &clock, generation, begun);
        if (back->last.any)
                suppress(s, &back->last, &clock, offset, exact);
        follow_ahead(s, back, back->last.any ? back->last.k : 0);
        return 0;
}

static int settle_fresh(struct df_session *s, const struct dfi_readback *back, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        uint64_t log_k = back->ahead.any ? back->ahead.k : back->last.k;
        int rc;

        if (!s->ports.recover_from_log && (back->last.any || back->ahead.any))
                return refuse(s, log_k, "the state directory is new, or was lost", err);
        if (s->config.range.given && back->first > s->config.range.from)
                return df_fail(err, DF_EOFFSET,
                               "%s/%u: the range begins at offset %llu, the log now at %llu: its "
                               "first records were deleted (K14)",
                               me->stream, me->partition, (unsigned long long)s->config.range.from,
                               (unsigned long long)back->first);
        if (!s->config.range.given && !s->ports.recover_from_log && back->first > 0)
                return df_fail(err, DF_EOFFSET,
                               "%s/%u: nothing of this topic was counted, and its records before "
                               "offset %llu are gone: `adtally recover --partition %u --from log` "
                               "goes on without them (K14)",
                               me->stream, me->partition, (unsigned long long)back->first,
                               me->partition);
        if (!back->last.any && !back->ahead.any) {
                struct df_clock clock;

                df_clock_init(&clock);
                dfi_task_start(s->task, s->config.range.given ? s->config.range.from : back->first,
                               &clock, me->generation, false);
                return 0;
        }
        rc = check_replay(s, back, err);
        return rc < 0 ? rc : replay_anew(s, back, err);
}

/* What the log lacks of the state's checkpoint leaves now. With transactions that is all of a
 * candidate, and nothing of a committed one: whatever else is seen is no work of this program. */
static int publish_rest(struct df_session *s, struct df_error *err)
{
        size_t present = 0;

        s->next_output = 0;
        if (!s->ports.txn)
                return dfi_append_all(s, err);
        for (size_t i = 0; i < s->collection_count; i++)
                present += s->present[i];
        if (s->candidate && present == 0)
                return dfi_transact(s, err);
        if (s->candidate)
                return refuse(
                        s, df_task_k(s->task),
                        "the outputs hold parts of a checkpoint that is not committed: a torn "
                        "transaction",
                        err);
        if (present < s->collection_count) /* or another producer's transaction is still open */
                return df_fail(err, DF_EAGAIN,
                               "%s/%u: checkpoint %llu is committed, and %zu of its %zu output "
                               "collections cannot be read yet",
                               s->config.source.stream, s->config.source.partition,
                               (unsigned long long)df_task_k(s->task),
                               s->collection_count - present, s->collection_count);
        df_task_committed(s->task);
        return 0;
}

/* K10 with transactions: what lies between the state and the last seal is processed again without
 * its outputs, so the last seal must be seen. In a partition that other tasks write too, their open
 * transactions may hide it. */
static int check_last_seen(const struct df_session *s, const struct dfi_readback *back,
                           struct df_error *err)
{
        const uint64_t committed_k = dfi_txn_committed_k(s);
        bool shared = false;

        for (size_t i = 0; i < s->config.output_count; i++)
                shared |= s->config.outputs[i].spread;
        if (!shared || committed_k <= df_task_k(s->task) ||
            (back->last.any && back->last.k >= committed_k))
                return 0;
        return df_fail(
                err, DF_EAGAIN,
                "%s/%u: checkpoint %llu is committed, and its outputs can be read up to "
                "%llu only: another task's transaction is still open, or an output topic was "
                "created again",
                s->config.source.stream, s->config.source.partition,
                (unsigned long long)committed_k,
                (unsigned long long)(back->last.any ? back->last.k : 0));
}

int dfi_settle(struct df_session *s, bool fresh, struct df_error *err)
{
        struct dfi_readback back;
        uint64_t k = df_task_k(s->task), newest;
        int rc = fresh ? 0 : dfi_note_check(s, err);

        if (rc == 0)
                rc = dfi_read_back(s, fresh, &back, err);
        if (rc == 0)
                rc = check_last_seen(s, &back, err);
        if (rc < 0)
                return rc;
        if (fresh)
                return settle_fresh(s, &back, err);
        newest = back.ahead.any ? back.ahead.k : back.last.k;
        if (back.last.any && back.last.k == k &&
            !df_hash128_eq(back.last.seal.digest, dfi_task_digest(s->task)))
                return refuse(s, k, "foreign state: both have this checkpoint, with other contents",
                              err);
        if (newest <= k)
                return publish_rest(s, err);
        if (!ancestor(s, &back))
                return refuse(s, newest, "the log does not continue this state", err);
        rc = check_replay(s, &back, err);
        return rc < 0 ? rc : replay_on(s, &back, err);
}
