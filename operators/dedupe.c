/* dedupe.c - each event once (D1, D2, D3).
 *
 * An event with receive hour h is a duplicate iff an earlier occurrence of its id in the log has a
 * receive hour in [h - H, h + 1]; it is a conflict if its fingerprint differs from that of the
 * occurrence greatest by (receive hour, log order). Every event that guard let pass is recorded,
 * duplicates and conflicts too: so (hour, id) holds the fingerprint of the last occurrence in that
 * hour. Repeating it within its hour adds nothing; in another hour it does.
 *
 * dedupe_billing (D4) stands in its place in a reconcile run and gives two verdicts on each event
 * that guard let pass: realtime's, which is the one above, and the bill's, over the billing horizon
 * and by content alone (ad_event_content: a copy with another event time is a duplicate), which
 * goes to bill_outcome and ends none. The map is one, of the longer horizon, with both
 * fingerprints: dedupe_both.c says why the shorter one can be asked of it. These files are compiled
 * twice (dedupe_private.h); where they say 24 bytes an id, it is 32 there.
 *
 * H = 0 (imports): one bucket for ever; any earlier occurrence makes a duplicate, and the last in
 * log order is compared with.
 *
 * The set holds the ids of the open hours: that of the greatest receive hour so far, and the one
 * before it (T2 lets receive times lag 1 h). When it is full, an hour closes, or a quarter of what
 * it may hold is new at a snapshot, ids leave it in sorted runs, by way of memory into the store in
 * the next snapshot; what is less is written as a delta. A question goes to the set,
 * then to the filter, and only on a hit there to runs, from the greatest hour down. Hours below max
 * hour - 1 - H end: when the greatest receive hour grows, at that event, whatever the batch. After
 * a clock reset (T2) the greatest receive hour starts again; later hours stay until they are
 * reached, and what had ended before stays ended.
 *
 * Capacity of a partition: ids = rate x (H + 2 h), counting distinct (hour, id).
 *
 *   disk:    24 bytes an id, at most four times that with what checkpoints still link and RocksDB
 *            has not yet compacted (tests/unit/test_dedupe_days.c, which also holds what is
 *            written: 20 times).
 *   memory:  5 to 13.5 bytes an id for the filter (most while the rate grows) and indexes (0.9),
 *            but 17 for each of dedupe_open_ids at least where a quarter of them came at once;
 *            64 to 128 bytes for each of dedupe_open_ids, and 6 for deltas; 24 to 48 for each id
 *            of a run that waits for the next checkpoint, and for those of the latest runs, which
 *            with it are dedupe_open_ids at most; what is merged into a short run
 *            (ADI_LONG_BLOCKS) waits in the open batch. What it gives back the process keeps for
 *            the next table, of all partitions together up to 256 MiB (df/pages.h); merges read
 *            ahead, with 384 KiB an input and 64 MiB together (DFI_AHEAD_MAX); a run that is
 *            being written takes 512 KiB.
 *
 * What one event can set off, at most: a spill of dedupe_open_ids, one pass over the set and the
 * filter in the order of keys, some 25 ns an id (26 ms by default); at the turn of an hour the same
 * for what the last hour left, and three range deletions for each hour that ends. Merges are paid
 * for by the events that pass, 8 ids each.
 *
 * 1,000 events/s and H = 24 h: 94 M ids, 2.2 to 9 GB of disk, 0.5 to 1.2 GB of memory. A sustained
 * 1 M/s is 94 G ids: 2.2 TB, shared by the partitions.
 *
 * State, under ns: 'H' header; the rest in dedupe_stored.c.
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"
#include "proto/bill.h"

#define HOUR_MS 3600000
#define AHEAD 8 /* events between prefetch and use: some 24 lines, all that a core has under way */

static struct adi_dedupe *dedupe_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ADI_DEDUPE_OPS);
        return (struct adi_dedupe *)op;
}
_Static_assert(offsetof(struct adi_dedupe, op) == 0, "op is the first member");

static int dedupe_open(struct df_operator *op, struct df_error *err)
{
        struct adi_dedupe *d = dedupe_of(op);
        const struct ad_params *p = op->ctx.params;
        size_t limit = p->dedupe_open_ids ? p->dedupe_open_ids : ADI_OPEN_IDS;
#ifdef ADI_BILLING
        uint32_t horizon = p->billing_horizon_hours;

        if (horizon > ADI_HORIZON_MAX || horizon < p->horizon_hours ||
            (horizon == 0) != (p->horizon_hours == 0))
                return df_fail(err, DF_EINVAL,
                               "%s: horizon of %u hours; at most %d, and no less than realtime's, "
                               "%u; 0 only with 0",
                               op->ops->name, horizon, ADI_HORIZON_MAX, p->horizon_hours);
        adi_both_open(d, p->horizon_hours);
#else
        uint32_t horizon = p->horizon_hours;

        if (horizon > ADI_HORIZON_MAX)
                return df_fail(err, DF_EINVAL, "%s: horizon of %u hours; at most %d", op->ops->name,
                               horizon, ADI_HORIZON_MAX);
#endif
        if (limit > ADI_OPEN_IDS_MAX)
                return df_fail(err, DF_EINVAL, "dedupe: %zu open ids; at most %u", limit,
                               ADI_OPEN_IDS_MAX);
        d->horizon_hours = horizon;
        d->block_ids = limit < 16 * ADI_BLOCK_IDS ? (uint32_t)limit / 16 + 1 : ADI_BLOCK_IDS;
        d->header_dirty = true;
        adi_tags_init(&d->tags, d->horizon_hours, limit);
        return adi_set_open(&d->set, limit, err);
}

/* Ids of hours outside [from, to] leave the set: into a run of their hour, or, when the hour ended,
 * for good (expire first). */
static int spill(struct adi_dedupe *d, int64_t from, int64_t to, struct df_error *err)
{
        for (size_t i = 0; i < d->bucket_count; i++) {
                struct adi_bucket *b = d->buckets[i];
                int rc;

                if (b->open_ids == 0 || (b->hour >= from && b->hour <= to))
                        continue;
                rc = adi_bucket_spill(d, b, err);
                if (rc < 0)
                        return rc;
        }
        return adi_set_keep(&d->set, from, to, err);
}

static int spill_all(struct adi_dedupe *d, struct df_error *err)
{
        return spill(d, 1, 0, err);
}

static int reach_hour(struct adi_dedupe *d, int64_t hour, struct df_error *err)
{
        d->has_max = true;
        d->max_hour = hour;
        d->header_dirty = true;
        d->merge.look = true;
        if (d->horizon_hours > 0)
                adi_buckets_expire(d, adi_place(hour - 1 - d->horizon_hours, 0));
#ifdef ADI_BILLING
        adi_both_reach(d, hour);
#endif
        return spill(d, adi_place(hour - 1, 0), adi_place(hour + 1, -1), err);
}

/* at: where the seek for it ended. */
static int set_add(struct adi_dedupe *d, struct adi_bucket *b, const struct adi_id *id,
                   struct adi_slot *at, struct df_error *err)
{
        int rc = 0;

        if (adi_set_full(&d->set)) {
                rc = spill_all(d, err);
                at = NULL;
        }
        if (rc == 0)
                rc = adi_set_add(&d->set, id, b->hour, at, err);
        if (rc == 0)
                b->open_ids++;
        return rc;
}

static int record(struct adi_dedupe *d, const struct adi_id *id, int64_t place,
                  const struct adi_seen *seen, struct df_error *err)
{
        struct adi_bucket *b;
        int rc;

        if (seen->own && adi_id_says(&seen->own->id, id))
                return 0;
        if (!seen->own && seen->found && seen->hour == place && adi_id_says(&seen->id, id))
                return 0;
        rc = adi_bucket_get(d, place, &b, err);
        if (rc == 0 && seen->own)
                seen->own->id = *id;
        else if (rc == 0)
                rc = set_add(d, b, id, seen->end, err);
        if (rc == 0)
                adi_delta_append(d, b, id);
        return rc;
}

static int64_t hour_of(const struct adi_dedupe *d, int64_t receive_ms)
{
        if (d->horizon_hours == 0)
                return 0;
        return receive_ms / HOUR_MS - (receive_ms % HOUR_MS < 0);
}

static struct adi_id id_of(const struct ad_event *ev)
{
        return (struct adi_id){
                .hi = ev->key.hi,
                .lo = ev->key.lo,
                .fingerprint = ev->fingerprint,
#ifdef ADI_BILLING
                .content = ad_event_content(ev),
#endif
        };
}

static enum ad_reason verdict(const struct adi_seen *seen, uint64_t is, uint64_t was)
{
        return !seen->found ? AD_NONE : is == was ? AD_DUPLICATE : AD_CONFLICT;
}

/* seen: the occurrence that counts, in the whole map. */
static int give_verdict(struct adi_dedupe *d, struct ad_event *ev, const struct adi_id *id,
                        const struct adi_hits *hits, int64_t hour, const struct adi_seen *seen,
                        struct df_out *out, struct df_error *err)
{
        const struct adi_seen *realtime = seen;
        enum ad_reason v;
#ifdef ADI_BILLING
        struct adi_seen known;

        ev->bill_outcome = verdict(seen, id->content, seen->id.content);
        if (seen->found) {
                int rc = adi_both_seek(d, ev->key, hits, hour, seen, &known, err);

                if (rc < 0)
                        return rc;
                realtime = &known;
        }
#else
        (void)d;
        (void)hits;
        (void)hour;
        (void)err;
#endif
        v = verdict(realtime, id->fingerprint, realtime->id.fingerprint);
        if (v != AD_NONE)
                ad_end(out, ev, v);
        return 0;
}

static int judge(struct adi_dedupe *d, struct ad_event *ev, struct df_out *out,
                 struct df_error *err)
{
        int64_t hour = hour_of(d, ev->receive_ms), place = hour, from = hour, to = hour;
        struct adi_id id = id_of(ev);
        struct adi_hits hits;
        struct adi_seen seen;
        int rc = 0;

        if (!d->has_max || hour > d->max_hour)
                rc = reach_hour(d, hour, err);
#ifdef ADI_BILLING
        if (rc == 0)
                rc = adi_both_place(d, hour, &place, err);
#endif
        if (d->horizon_hours > 0) {
                from = adi_place(hour - d->horizon_hours, 0);
                to = adi_place(hour + 2, -1);
        }
        adi_set_seek(&d->set, ev->key, place, from, to, &seen);
        if (rc == 0 && adi_tags_test(&d->tags, ev->key, &hits))
                rc = adi_runs_seek(d, ev->key, &hits, from, to, &seen, err);
        if (rc == 0)
                rc = give_verdict(d, ev, &id, &hits, hour, &seen, out, err);
        return rc == 0 ? record(d, &id, place, &seen, err) : rc;
}

/* Did guard let it pass? Of what it refused, billing only notes that. */
static bool is_to_judge(struct ad_event *ev)
{
#ifdef ADI_BILLING
        ev->bill_outcome = ev->outcome;
#endif
        return ev->outcome == AD_NONE;
}

static void prefetch(const struct adi_dedupe *d, const struct ad_event *ev)
{
        adi_set_prefetch(&d->set, ev->key);
        adi_tags_prefetch(&d->tags, ev->key);
}

static int process_one(struct adi_dedupe *d, struct ad_event *ev, uint64_t *judged,
                       struct df_out *out, struct df_error *err)
{
        if ((ev->flags & AD_EV_MARK) && (ev->flags & AD_EV_CLOCK_RESET)) {
                d->header_dirty |= d->has_max;
                d->has_max = false;
        }
        if ((ev->flags & AD_EV_MARK) || !is_to_judge(ev))
                return 0;
        (*judged)++;
        return judge(d, ev, out, err);
}

static int dedupe_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                          struct df_error *err)
{
        struct adi_dedupe *d = dedupe_of(op);
        struct ad_event *events = batch->items;
        uint64_t judged = 0;
        int rc = 0;

        df_check(batch->kind == AD_KIND_EVENTS);
        for (size_t i = 0; i < AHEAD && i < batch->count; i++)
                prefetch(d, &events[i]);
        for (size_t i = 0; rc == 0 && i < batch->count; i++) {
                if (i + AHEAD < batch->count)
                        prefetch(d, &events[i + AHEAD]);
                rc = process_one(d, &events[i], &judged, out, err);
        }
        if (rc == 0)
                rc = adi_merge_step(d, judged * ADI_MERGE_IDS, err);
        return rc < 0 ? rc : df_out_forward(out, batch, err);
}

static int spill_long_deltas(struct adi_dedupe *d, struct df_error *err)
{
        bool any = false;

        for (size_t i = 0; i < d->bucket_count; i++)
                any |= d->buckets[i]->spills;
        return any ? spill_all(d, err) : 0;
}

static int dedupe_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct adi_dedupe *d = dedupe_of(op);
        uint8_t key[2] = {op->ctx.ns, 'H'};
        int rc;

        (void)k;
        if (d->header_dirty) {
                struct df_buf *b = &d->scratch;

                df_buf_clear(b);
                df_put_u32be(b, d->horizon_hours);
                df_put_u8(b, d->has_max);
                df_put_u64be(b, d->has_max ? (uint64_t)d->max_hour : 0);
#ifdef ADI_BILLING
                adi_both_put(d, b);
#endif
                rc = df_buf_check(b, err);
                if (rc < 0)
                        return rc;
                df_store_put(op->ctx.store, df_bytes(key, sizeof(key)), df_buf_bytes(b));
                d->header_dirty = false;
        }
        adi_merge_settle(d);
        rc = spill_long_deltas(d, err);
        return rc < 0 ? rc : adi_buckets_snapshot(d, err);
}

/* An id of a delta: the later one wins. */
static int restore_id(struct adi_dedupe *d, struct adi_bucket *b, const struct adi_id *id,
                      struct df_error *err)
{
        struct df_hash128 key = {.lo = id->lo, .hi = id->hi};
        struct adi_seen seen;

        adi_set_seek(&d->set, key, b->hour, b->hour, b->hour, &seen);
        if (!seen.own)
                return set_add(d, b, id, seen.end, err);
        seen.own->id = *id;
        return 0;
}

static int dedupe_restore(struct df_operator *op, struct df_error *err)
{
        struct adi_dedupe *d = dedupe_of(op);
        uint8_t key[2] = {op->ctx.ns, 'H'};
        struct df_bytes value;
        struct df_reader r;
        uint32_t horizon;
        bool found = false;
        int rc = df_store_get(op->ctx.store, df_bytes(key, sizeof(key)), &value, &found, err);

        if (rc < 0 || !found)
                return rc;
        r = df_reader(value);
        horizon = df_get_u32be(&r);
        d->has_max = df_get_u8(&r) != 0;
        d->max_hour = (int64_t)df_get_u64be(&r);
#ifdef ADI_BILLING
        if (!adi_both_get(d, &r))
                r.bad = true;
#endif
        if (r.bad || df_reader_left(&r))
                return df_fail(err, DF_ECORRUPT, "dedupe: the header of the state is damaged");
        if (horizon != d->horizon_hours)
                return df_fail(err, DF_ESCHEMA,
                               "dedupe: the state has a horizon of %u hours, the configuration %u; "
                               "a horizon changes with a new generation only",
                               horizon, d->horizon_hours);
        d->header_dirty = false;
        d->merge.look = true;
        return adi_buckets_restore(d, restore_id, err);
}

static void dedupe_close(struct df_operator *op)
{
        struct adi_dedupe *d = (struct adi_dedupe *)op;

        d->merge.out.in_files = false; /* the store is not asked any more */
        adi_merge_abort(d);
        for (size_t i = 0; i < d->bucket_count; i++)
                adi_bucket_destroy(d->buckets[i]);
        free(d->buckets);
        df_buf_release(&d->scratch);
        adi_tags_release(&d->tags);
        adi_set_release(&d->set);
        d->buckets = NULL;
        d->bucket_count = 0;
}

const struct df_operator_ops ADI_DEDUPE_OPS = {
        .name = ADI_DEDUPE_NAME,
        .state_version = ADI_DEDUPE_VERSION,
        .size = sizeof(struct adi_dedupe),
        .open = dedupe_open,
        .restore = dedupe_restore,
        .process = dedupe_process,
        .snapshot = dedupe_snapshot,
        .close = dedupe_close,
};
