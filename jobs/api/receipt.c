/* receipt.c - finding the copies of an event, and judging them (receipt.h). */
#include "jobs/api/receipt.h"

#include <stdio.h>
#include <stdlib.h>

#include "jobs/common/raw_scan.h"
#include "jobs/common/settings.h"
#include "jobs/common/times.h"

#define HOUR_MS 3600000LL
#define DEFAULT_RANGE_MS (24 * HOUR_MS)
#define ARENA_BYTES (64u << 20)

/* ---- parameters ---- */

static int read_time(struct df_bytes text, const char *name, int64_t *ret_ms, struct ad_fault *f)
{
        if (ad_time_parse(text, ret_ms))
                return 0;
        return ad_fault_set(f, 400, "bad_time", name,
                            "%s is RFC 3339 with an offset, as 2026-11-24T10:00:00Z", name);
}

int ad_receipt_parse(struct df_bytes from, struct df_bytes to, struct df_bytes event_id,
                     int64_t now_ms, struct ad_receipt_query *ret, struct ad_fault *f)
{
        *ret = (struct ad_receipt_query){.event_id = event_id};
        if (event_id.len > AD_EVENT_ID_MAX)
                return ad_fault_set(f, 400, "too_long", "event_id",
                                    "an event_id has at most %d bytes", AD_EVENT_ID_MAX);
        if (to.data && read_time(to, "to", &ret->to_ms, f) < 0)
                return -1;
        if (!from.data)
                ret->from_ms = (to.data ? ret->to_ms : now_ms) - DEFAULT_RANGE_MS;
        else if (read_time(from, "from", &ret->from_ms, f) < 0)
                return -1;
        return to.data && ret->from_ms >= ret->to_ms
                       ? ad_fault_set(f, 400, "empty_range", "from", "from is not before to")
                       : 0;
}

/* ---- judging ---- */

static int64_t hour_of(int64_t ms)
{
        return ms / HOUR_MS - (ms % HOUR_MS < 0);
}

/* What guard refused is not recorded by dedupe: as if it had not been there. */
static bool is_guards(uint32_t reason)
{
        return reason == AD_WRONG_PARTITION || reason == AD_CLOCK || reason == AD_STALE_RECEIVE ||
               reason == AD_FUTURE_EVENT || reason == AD_TOO_OLD || reason == AD_INVALID;
}

/* D1: the occurrence greatest by (receive hour, log order) among those before copies[i] with a
 * receive hour in [h - H, h + 1]. *ret_sure: no copy whose outcome is unknown could be it. */
static const struct ad_copy *decider(const struct ad_copy *copies, size_t i, uint32_t horizon,
                                     bool *ret_sure)
{
        int64_t h = hour_of(copies[i].ev.receive_ms), best_hour = INT64_MIN;
        const struct ad_copy *best = NULL;

        *ret_sure = true;
        for (size_t j = 0; j < i; j++) {
                int64_t hj = hour_of(copies[j].ev.receive_ms);

                if (hj < h - (int64_t)horizon || hj > h + 1)
                        continue;
                if (copies[j].lost)
                        *ret_sure = false;
                else if (!is_guards(copies[j].entry) && hj >= best_hour) {
                        best = &copies[j];
                        best_hour = hj;
                }
        }
        return best;
}

static void judge_one(struct ad_copy *copies, size_t i, uint32_t horizon, int64_t known_ms)
{
        const uint32_t both = 1u << AD_OUT_LATE | 1u << AD_OUT_QUARANTINE;
        struct ad_copy *c = &copies[i];
        int64_t least = (hour_of(c->ev.receive_ms) - (int64_t)horizon) * HOUR_MS;
        const struct ad_copy *d;
        bool sure;

        c->outcome = AD_NONE;
        c->against = NULL;
        if (c->lost || c->sealed != both) {
                c->state = c->lost ? AD_COPY_EXPIRED : AD_COPY_PENDING;
                return;
        }
        c->state = AD_COPY_SEALED;
        c->outcome = c->entry;
        if (c->entry != AD_NONE && c->entry != AD_CONFLICT)
                return;
        d = decider(copies, i, horizon, &sure);
        c->against = d;
        if (c->entry == AD_CONFLICT)
                return;
        if (d) {
                c->outcome = AD_DUPLICATE;
                if ((sure && d->ev.fingerprint != c->ev.fingerprint) || c->alone)
                        c->state = AD_COPY_INCONSISTENT;
        } else if ((sure && known_ms <= least) || c->alone) {
                c->outcome = AD_COUNTED;
        } else {
                c->state = AD_COPY_EARLIER;
        }
}

void ad_receipt_judge(struct ad_copy *copies, size_t count, uint32_t horizon_hours,
                      int64_t known_ms)
{
        for (size_t i = 0; i < count; i++)
                judge_one(copies, i, horizon_hours, known_ms);
}

/* ---- finding ---- */

struct finding {
        const struct ad_receipt_context *context;
        struct ad_receipt *r;
};

static bool stopped(void *arg)
{
        const struct finding *x = arg;

        return x->context->stop && x->context->stop(x->context->stop_arg);
}

/* Of a flood of copies before the range the newest matter: the older half is forgotten. */
static void forget_half(struct ad_receipt *r)
{
        size_t half = r->before / 2;

        r->known_ms = r->copies[half - 1].ev.append_ms + AD_RECEIVE_AHEAD_MAX_MS + 1;
        r->before -= half;
        memmove(r->copies, r->copies + half, r->before * sizeof(*r->copies));
}

static bool is_asked(const struct ad_receipt *r, const struct ad_event *ev)
{
        return df_bytes_eq(ev->event_id, r->query.event_id) &&
               df_bytes_eq(ev->tenant_id, r->query.tenant_id);
}

/* Of the ones before only what D1 compares is kept. */
static int on_earlier(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct ad_receipt *r = ((struct finding *)arg)->r;

        (void)err;
        if (!is_asked(r, ev))
                return 0;
        if (r->before == AD_RECEIPT_COPIES_MAX)
                forget_half(r);
        r->copies[r->before++] = (struct ad_copy){.ev = {.offset = ev->offset,
                                                         .index = ev->index,
                                                         .append_ms = ev->append_ms,
                                                         .receive_ms = ev->receive_ms,
                                                         .fingerprint = ev->fingerprint}};
        return 0;
}

static int on_copy(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct ad_receipt *r = ((struct finding *)arg)->r;
        struct ad_copy *c = &r->copies[AD_RECEIPT_COPIES_MAX + r->count];
        struct df_bytes raw;
        int rc;

        if (!is_asked(r, ev))
                return 0;
        if (r->count == AD_RECEIPT_COPIES_MAX) {
                r->more_from_ms = ev->append_ms;
                return 1;
        }
        raw = df_arena_copy(&r->arena, ev->raw);
        if (!raw.data)
                return df_fail(err, DF_ENOMEM, "copies of an event");
        *c = (struct ad_copy){0};
        rc = ad_wire_event_decode(raw, &c->ev, err);
        if (rc < 0)
                return rc;
        c->ev.offset = ev->offset;
        c->ev.index = ev->index;
        c->ev.append_ms = ev->append_ms;
        c->ev.price_version = ev->price_version;
        r->count++;
        return 0;
}

/* Where the range lies, and from where on earlier copies can matter. */
static int locate(const struct ad_receipt_context *c, struct ad_receipt *r, bool *ret_cut,
                  struct df_error *err)
{
        const struct ad_receipt_query *q = &r->query;
        int64_t since = (hour_of(q->from_ms) - 1 - (int64_t)c->horizon_hours) * HOUR_MS;
        uint64_t first, end;
        int rc = df_log_bounds(c->source, AD_TOPIC_EVENTS, r->partition, &first, &end, err);

        r->to_offset = end;
        r->known_ms = since;
        since -= AD_RECEIVE_AHEAD_MAX_MS;
        if (rc == 0)
                rc = df_log_offset_at(c->source, AD_TOPIC_EVENTS, r->partition, q->from_ms,
                                      &r->from_offset, err);
        if (rc == 0 && q->to_ms)
                rc = df_log_offset_at(c->source, AD_TOPIC_EVENTS, r->partition, q->to_ms,
                                      &r->to_offset, err);
        if (rc == 0)
                rc = df_log_offset_at(c->source, AD_TOPIC_EVENTS, r->partition, since,
                                      &r->read_offset, err);
        if (rc < 0)
                return rc;
        if (r->to_offset > end)
                r->to_offset = end;
        if (r->from_offset > r->to_offset)
                r->from_offset = r->to_offset;
        if (r->read_offset < first)
                r->read_offset = first;
        *ret_cut = r->read_offset == first;
        if (r->read_offset > r->from_offset) { /* the clock was put back (T2): who knows */
                r->read_offset = r->from_offset;
                r->known_ms = INT64_MAX;
        }
        if (r->to_offset - r->read_offset > AD_RECEIPT_RECORDS_MAX &&
            r->to_offset - r->from_offset <= AD_RECEIPT_RECORDS_MAX) {
                r->read_offset = r->to_offset - AD_RECEIPT_RECORDS_MAX;
                *ret_cut = true;
        }
        if (r->read_offset == 0) { /* nothing is before it */
                r->known_ms = INT64_MIN;
                *ret_cut = false;
        }
        return 0;
}

static int not_found(const struct ad_receipt *r, struct ad_fault *f)
{
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX] = "now";

        (void)ad_time_text(r->query.from_ms, from);
        if (r->query.to_ms)
                (void)ad_time_text(r->query.to_ms, to);
        return ad_fault_set(f, 404, "not_found", NULL,
                            "no copy of it was taken from %s to %s (partition %u, offsets %llu to "
                            "%llu of events): ask with from and to for another time; what was "
                            "refused with a code is not in the log, imported rows are not "
                            "searched",
                            from, to, r->partition, (unsigned long long)r->from_offset,
                            (unsigned long long)r->to_offset);
}

/* The copies of the range; then, if there are any, those before it. */
static int scan(const struct ad_receipt_context *c, struct ad_receipt *r, bool cut,
                struct ad_fault *f)
{
        struct finding x = {.context = c, .r = r};
        struct ad_raw_scan s = {.log = c->source,
                                .topic = AD_TOPIC_EVENTS,
                                .partition = r->partition,
                                .from = r->from_offset,
                                .to = r->to_offset,
                                .needle = r->query.event_id,
                                .stop = stopped,
                                .fn = on_copy,
                                .arg = &x};
        struct df_error err = {0};
        int64_t first_ms;
        int rc = ad_raw_scan(&s, &err);

        if (rc >= 0 && r->count == 0)
                return not_found(r, f);
        r->records = s.ret_records;
        first_ms = s.ret_first_append_ms;
        s.from = r->read_offset;
        s.to = r->from_offset;
        s.fn = on_earlier;
        if (rc >= 0)
                rc = ad_raw_scan(&s, &err);
        if (rc < 0)
                return ad_fault_error(f, &err);
        if (s.ret_records > 0)
                first_ms = s.ret_first_append_ms;
        r->records += s.ret_records;
        /* What is before the first record read was taken no later than it, and received at most 10
         * s later than that (T2). */
        if (cut && first_ms + AD_RECEIVE_AHEAD_MAX_MS >= r->known_ms)
                r->known_ms = first_ms + AD_RECEIVE_AHEAD_MAX_MS + 1;
        memmove(r->copies + r->before, r->copies + AD_RECEIPT_COPIES_MAX,
                r->count * sizeof(*r->copies));
        r->count += r->before;
        return 0;
}

int ad_receipt_find(const struct ad_receipt_context *c, const struct ad_receipt_query *q,
                    struct ad_receipt *ret, struct ad_fault *f)
{
        struct df_topic_info topic;
        struct df_error err = {0};
        bool cut = false;
        int rc;

        *ret = (struct ad_receipt){.query = *q};
        df_arena_init(&ret->arena, ARENA_BYTES);
        ret->copies = calloc((size_t)2 * AD_RECEIPT_COPIES_MAX, sizeof(*ret->copies));
        rc = ret->copies ? ad_topic_find(c->log, AD_TOPIC_EVENTS, &topic, &err)
                         : df_fail(&err, DF_ENOMEM, "receipt");
        if (rc < 0)
                return ad_fault_error(f, &err);
        ret->generation = topic.generation;
        ret->partition =
                ad_event_partition(ad_event_key(q->tenant_id, q->event_id), topic.partitions);
        if (locate(c, ret, &cut, &err) < 0)
                return ad_fault_error(f, &err);
        if (ret->to_offset - ret->from_offset > AD_RECEIPT_RECORDS_MAX)
                return ad_fault_set(
                        f, 400, "range_too_large", "from",
                        "partition %u holds %llu records from then to then, and at most "
                        "%d are read for a receipt: ask for a shorter time, with from "
                        "and to near the event's receipt",
                        ret->partition, (unsigned long long)(ret->to_offset - ret->from_offset),
                        AD_RECEIPT_RECORDS_MAX);
        if (scan(c, ret, cut, f) < 0)
                return -1;
        if (adi_receipt_outcomes(c, ret, &err) < 0)
                return ad_fault_error(f, &err);
        ad_receipt_judge(ret->copies, ret->count, c->horizon_hours, ret->known_ms);
        return 0;
}

void ad_receipt_release(struct ad_receipt *r)
{
        free(r->copies);
        df_arena_release(&r->arena);
        *r = (struct ad_receipt){0};
}
