/* receipt.c - finding the copies of an event (receipt.h). */
#include "jobs/api/receipt.h"

#include <stdio.h>
#include <stdlib.h>

#include "jobs/common/raw_scan.h"
#include "jobs/common/settings.h"
#include "jobs/common/times.h"

#define DEFAULT_RANGE_MS (24 * ADI_RECEIPT_HOUR_MS)
#define ARENA_BYTES (64u << 20)

/* ---- parameters ---- */

static int read_time(struct df_bytes text, const char *name, int64_t *ret_ms, struct ad_fault *f)
{
        if (ad_time_parse(text, ret_ms))
                return 0;
        return ad_fault_set(f, 400, "bad_time", name,
                            "%s is RFC 3339 with an offset, as 2026-11-24T10:00:00Z", name);
}

/* TOPIC/OFFSET/INDEX */
static int read_place(struct df_bytes text, struct ad_receipt_place *ret, struct ad_fault *f)
{
        const char *at = (const char *)text.data;
        size_t topic = 0, used = 0;
        char numbers[48];
        unsigned long long offset;
        unsigned index;

        while (topic < text.len && at[topic] != '/')
                topic++;
        if (topic > 0 && topic < text.len && text.len - topic < sizeof(numbers)) {
                int n = 0;

                memcpy(numbers, at + topic, text.len - topic);
                numbers[text.len - topic] = '\0';
                if (strspn(numbers, "/0123456789") == text.len - topic &&
                    sscanf(numbers, "/%19llu/%9u%n", &offset, &index, &n) == 2)
                        used = (size_t)n;
        }
        if (used == 0 || used != text.len - topic)
                return ad_fault_set(f, 400, "bad_place", "at",
                                    "at is TOPIC/OFFSET/INDEX, as `more_at` of a receipt says it");
        *ret = (struct ad_receipt_place){df_bytes(text.data, topic), offset, index};
        return 0;
}

int ad_receipt_parse(const struct ad_receipt_params *p, struct df_bytes event_id, int64_t now_ms,
                     struct ad_receipt_query *ret, struct ad_fault *f)
{
        *ret = (struct ad_receipt_query){.event_id = event_id};
        if (event_id.len > AD_EVENT_ID_MAX)
                return ad_fault_set(f, 400, "too_long", "event_id",
                                    "an event_id has at most %d bytes", AD_EVENT_ID_MAX);
        if (p->to.data && read_time(p->to, "to", &ret->to_ms, f) < 0)
                return -1;
        if (!p->from.data)
                ret->from_ms = (p->to.data ? ret->to_ms : now_ms) - DEFAULT_RANGE_MS;
        else if (read_time(p->from, "from", &ret->from_ms, f) < 0)
                return -1;
        if (p->to.data && ret->from_ms >= ret->to_ms)
                return ad_fault_set(f, 400, "empty_range", "from",
                                    "from is not before to: the range is [from, to)");
        if (!p->at.data)
                return 0;
        if (!p->from.data)
                return ad_fault_set(f, 400, "bad_place", "at",
                                    "at goes with from: `more_at` and `more_from` of a receipt");
        return read_place(p->at, &ret->at, f);
}

/* ---- which topics, and where in them ---- */

/* `events`, then imports by name. */
static int order_topics(struct df_bytes a, struct df_bytes b)
{
        const struct df_bytes events = df_bytes_str(AD_TOPIC_EVENTS);
        bool first = df_bytes_eq(a, events);

        return first != df_bytes_eq(b, events) ? (first ? -1 : 1) : df_bytes_cmp(a, b);
}

static int order_places(const struct ad_receipt_place *a, const struct ad_receipt_place *b)
{
        int c = order_topics(a->topic, b->topic);

        c = c ? c : (a->offset > b->offset) - (a->offset < b->offset);
        return c ? c : (a->index > b->index) - (a->index < b->index);
}

/* A page begins where the one before it ended. */
static int go_on(const struct ad_receipt_context *c, const struct ad_receipt *r,
                 struct ad_receipt_topic *t, struct df_error *err)
{
        const struct ad_receipt_query *q = &r->query;
        int order = q->at.topic.len ? order_topics(df_bytes_str(t->info.name), q->at.topic) : 1;

        if (order < 0) /* all that were taken then were told */
                return df_log_offset_at(c->source, t->info.name, r->partition, q->from_ms + 1,
                                        &t->from_offset, err);
        if (order == 0 && t->from_offset <= q->at.offset) {
                t->from_offset = q->at.offset;
                t->from_index = q->at.index;
        }
        return 0;
}

/* Where the range lies, and from where on earlier copies can matter: of an import from its first
 * record on. */
static int locate(const struct ad_receipt_context *c, const struct ad_receipt *r,
                  struct ad_receipt_topic *t, struct df_error *err)
{
        const struct ad_receipt_query *q = &r->query;
        int64_t since = (adi_receipt_hour(q->from_ms) - 1 - (int64_t)c->horizon_hours) *
                        ADI_RECEIPT_HOUR_MS;
        uint64_t first = 0, end = 0;
        int rc = df_log_bounds(c->source, t->info.name, r->partition, &first, &end, err);

        t->to_offset = end;
        t->read_offset = first;
        t->known_ms = t->is_import ? INT64_MIN : since;
        if (rc == 0)
                rc = df_log_offset_at(c->source, t->info.name, r->partition, q->from_ms,
                                      &t->from_offset, err);
        if (rc == 0)
                rc = go_on(c, r, t, err);
        if (rc == 0 && q->to_ms)
                rc = df_log_offset_at(c->source, t->info.name, r->partition, q->to_ms,
                                      &t->to_offset, err);
        if (rc == 0 && !t->is_import)
                rc = df_log_offset_at(c->source, t->info.name, r->partition,
                                      since - AD_RECEIVE_AHEAD_MAX_MS, &t->read_offset, err);
        if (rc < 0)
                return rc;
        if (t->to_offset > end)
                t->to_offset = end;
        if (t->from_offset > t->to_offset) {
                t->from_offset = t->to_offset;
                t->from_index = 0;
        }
        if (t->read_offset < first)
                t->read_offset = first;
        t->cut = t->read_offset == first;
        if (t->read_offset > t->from_offset) { /* the clock was put back (T2): who knows */
                t->read_offset = t->from_offset;
                t->known_ms = INT64_MAX;
        }
        return 0;
}

struct finding {
        const struct ad_receipt_context *context;
        struct ad_receipt *r;
        struct ad_receipt_topic *t; /* at hand */
        uint64_t in_range;          /* records, of all topics */
        struct df_error *err;
};

/* A dataset is of one tenant. Not known: its first seal is still to come. */
static bool is_of_another(const struct finding *x, const char *topic)
{
        const struct ad_status *s = x->context->status;

        for (size_t i = 0; s && i < s->source_count; i++)
                if (s->sources[i].is_import && strcmp(s->sources[i].name.stream, topic) == 0)
                        return !df_bytes_eq(df_bytes_str(s->sources[i].tenant),
                                            x->r->query.tenant_id);
        return false;
}

static int add_topic(struct finding *x, const struct df_topic_info *info, bool is_import)
{
        struct ad_receipt_topic *t = df_arena_zalloc(&x->r->arena, sizeof(*t));
        struct ad_receipt_topic **place = &x->r->topics;
        int rc;

        if (!t)
                return df_fail(x->err, DF_ENOMEM, "topics of imports");
        t->info = *info;
        t->is_import = is_import;
        rc = locate(x->context, x->r, t, x->err);
        if (rc < 0 || (is_import && t->from_offset == t->to_offset))
                return rc;
        x->in_range += t->to_offset - t->from_offset;
        x->r->import_count += is_import;
        while (*place &&
               order_topics(df_bytes_str((*place)->info.name), df_bytes_str(info->name)) < 0)
                place = &(*place)->next;
        t->next = *place;
        *place = t;
        return 0;
}

static int on_import(void *arg, const struct df_topic_info *info)
{
        struct finding *x = arg;
        const struct ad_receipt_context *c = x->context;

        if (c->stop && c->stop(c->stop_arg))
                return df_fail(x->err, DF_EAGAIN, "stopped");
        return is_of_another(x, info->name) || x->r->partition >= info->partitions
                       ? 0
                       : add_topic(x, info, true);
}

static int find_topics(struct finding *x)
{
        const struct ad_receipt_query *q = &x->r->query;
        struct df_log *log = x->context->log;
        struct df_topic_info events;
        int rc = ad_topic_find(log, AD_TOPIC_EVENTS, &events, x->err);

        if (rc < 0)
                return rc;
        x->r->partition =
                ad_event_partition(ad_event_key(q->tenant_id, q->event_id), events.partitions);
        rc = add_topic(x, &events, false);
        return rc == 0 ? df_log_topic_list(log, AD_TOPIC_IMPORT_PREFIX, on_import, x, x->err) : rc;
}

/* ---- the copies of a topic ---- */

static bool stopped(void *arg)
{
        const struct finding *x = arg;

        return x->context->stop && x->context->stop(x->context->stop_arg);
}

/* Of a flood of copies before the range the newest matter: the older half is forgotten. */
static void forget_half(struct ad_receipt_topic *t)
{
        size_t half = t->before / 2;

        t->known_ms = t->is_import ? INT64_MAX
                                   : t->copies[half - 1].ev.append_ms + AD_RECEIVE_AHEAD_MAX_MS + 1;
        t->before -= half;
        memmove(t->copies, t->copies + half, t->before * sizeof(*t->copies));
}

static bool is_asked(const struct ad_receipt *r, const struct ad_event *ev)
{
        return df_bytes_eq(ev->event_id, r->query.event_id) &&
               df_bytes_eq(ev->tenant_id, r->query.tenant_id);
}

/* The generation of an import that the record belongs to, as far as seals have come. */
static const struct ad_source *import_of(const struct finding *x, uint64_t offset)
{
        const struct ad_status *s = x->context->status;

        for (size_t i = 0; s && x->t->is_import && i < s->source_count; i++) {
                const struct ad_source *o = &s->sources[i];

                if (o->is_import && o->name.partition == x->r->partition &&
                    offset >= o->from_offset && offset < o->to_offset &&
                    strcmp(o->name.stream, x->t->info.name) == 0)
                        return o;
        }
        return NULL;
}

/* Whether it is before the range: a page may begin in the middle of a record. */
static bool is_before(const struct ad_receipt_topic *t, const struct ad_event *ev)
{
        return ev->offset < t->from_offset ||
               (ev->offset == t->from_offset && ev->index < t->from_index);
}

static struct ad_receipt_more more_at(const struct ad_receipt_topic *t, const struct ad_event *ev)
{
        return (struct ad_receipt_more){ev->append_ms,
                                        {df_bytes_str(t->info.name), ev->offset, ev->index}};
}

/* Of the ones before only what D1 compares is kept. */
static int on_earlier(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct finding *x = arg;
        struct ad_receipt_topic *t = x->t;

        (void)err;
        if (!is_asked(x->r, ev) || !is_before(t, ev))
                return 0;
        if (t->before == AD_RECEIPT_COPIES_MAX)
                forget_half(t);
        t->copies[t->before++] = (struct ad_copy){.ev = {.offset = ev->offset,
                                                         .index = ev->index,
                                                         .append_ms = ev->append_ms,
                                                         .receive_ms = ev->receive_ms,
                                                         .fingerprint = ev->fingerprint},
                                                  .in = t,
                                                  .import = import_of(x, ev->offset)};
        return 0;
}

static int on_copy(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct finding *x = arg;
        struct ad_receipt_topic *t = x->t;
        struct ad_copy *c;
        struct df_bytes raw;
        int rc;

        if (!is_asked(x->r, ev) || is_before(t, ev))
                return 0;
        if (t->count == AD_RECEIPT_COPIES_MAX) {
                t->more = more_at(t, ev);
                return 1;
        }
        if (!t->copies)
                t->copies = calloc((size_t)2 * AD_RECEIPT_COPIES_MAX, sizeof(*t->copies));
        raw = df_arena_copy(&x->r->arena, ev->raw);
        if (!t->copies || !raw.data)
                return df_fail(err, DF_ENOMEM, "copies of an event");
        c = &t->copies[AD_RECEIPT_COPIES_MAX + t->count];
        rc = ad_wire_event_decode(raw, &c->ev, err);
        if (rc < 0)
                return rc;
        c->ev.offset = ev->offset;
        c->ev.index = ev->index;
        c->ev.append_ms = ev->append_ms;
        c->ev.price_version = ev->price_version;
        c->in = t;
        c->import = import_of(x, ev->offset);
        t->count++;
        return 0;
}

/* From where on what is before the range is read, and what that leaves unknown. */
static void begin_earlier(struct ad_receipt_topic *t, uint64_t *left)
{
        if (t->from_offset - t->read_offset > *left) {
                t->read_offset = t->from_offset - *left;
                t->cut = true;
        }
        *left -= t->from_offset - t->read_offset;
        if (t->read_offset == 0) /* nothing is before it */
                t->known_ms = INT64_MIN;
        else if (t->is_import)
                t->known_ms = INT64_MAX;
        t->cut = t->cut && t->read_offset > 0 && !t->is_import;
}

/* The copies of the range; then, if there are any, those before it, as far as records may still be
 * read. */
static int scan(struct finding *x, uint64_t *left, struct df_error *err)
{
        struct ad_receipt_topic *t = x->t;
        struct ad_raw_scan s = {.log = x->context->source,
                                .topic = t->info.name,
                                .partition = x->r->partition,
                                .from = t->from_offset,
                                .to = t->to_offset,
                                .needle = x->r->query.event_id,
                                .stop = stopped,
                                .fn = on_copy,
                                .arg = x};
        int64_t first_ms;
        int rc = ad_raw_scan(&s, err);

        x->r->records += s.ret_records;
        if (rc < 0 || t->count == 0)
                return rc;
        first_ms = s.ret_first_append_ms;
        begin_earlier(t, left);
        s.from = t->read_offset;
        s.to = t->from_offset + (t->from_index > 0);
        s.fn = on_earlier;
        rc = ad_raw_scan(&s, err);
        if (rc < 0)
                return rc;
        x->r->records += s.ret_records;
        if (s.ret_records > 0)
                first_ms = s.ret_first_append_ms;
        /* What is before the first record read was taken no later than it, and received at most 10
         * s later than that (T2). */
        if (t->cut && first_ms + AD_RECEIVE_AHEAD_MAX_MS >= t->known_ms)
                t->known_ms = first_ms + AD_RECEIVE_AHEAD_MAX_MS + 1;
        memmove(t->copies + t->before, t->copies + AD_RECEIPT_COPIES_MAX,
                t->count * sizeof(*t->copies));
        t->count += t->before;
        return 0;
}

static int find_copies(struct finding *x, struct df_error *err)
{
        const struct ad_receipt_context *c = x->context;
        uint64_t left = AD_RECEIPT_RECORDS_MAX - x->in_range;
        int rc = 0;

        for (x->t = x->r->topics; rc == 0 && x->t; x->t = x->t->next) {
                rc = scan(x, &left, err);
                if (rc == 0 && x->t->count)
                        rc = adi_receipt_outcomes(c, x->r->partition, x->t, err);
                if (rc == 0)
                        ad_receipt_judge(x->t->copies, x->t->count,
                                         x->t->is_import ? 0 : c->horizon_hours, x->t->known_ms);
        }
        return rc;
}

/* ---- the answer ---- */

/* The first of them is told with the next page. */
static void take_more(struct ad_receipt *r, const struct ad_receipt_more *m)
{
        const struct ad_receipt_more *first = &r->more;

        if (m->from_ms && (!first->from_ms || m->from_ms < first->from_ms ||
                           (m->from_ms == first->from_ms && order_places(&m->at, &first->at) < 0)))
                r->more = *m;
}

/* Merges the topics by append time. */
static int tell(struct ad_receipt *r, struct df_error *err)
{
        const struct ad_copy **told =
                df_arena_alloc(&r->arena, (size_t)2 * AD_RECEIPT_COPIES_MAX * sizeof(*told));

        if (!told)
                return df_fail(err, DF_ENOMEM, "copies of an event");
        r->told = told;
        for (const struct ad_receipt_topic *t = r->topics; t; t = t->next) {
                for (size_t i = t->before, at = 0; i < t->count; i++, at++) {
                        const struct ad_copy *c = &t->copies[i];

                        while (at < r->told_count && told[at]->ev.append_ms <= c->ev.append_ms)
                                at++;
                        memmove(&told[at + 1], &told[at], (r->told_count - at) * sizeof(*told));
                        told[at] = c;
                        r->told_count++;
                }
                take_more(r, &t->more);
                if (r->told_count > AD_RECEIPT_COPIES_MAX) {
                        const struct ad_copy *c = told[AD_RECEIPT_COPIES_MAX];
                        struct ad_receipt_more m = more_at(c->in, &c->ev);

                        take_more(r, &m);
                        r->told_count = AD_RECEIPT_COPIES_MAX;
                }
        }
        return 0;
}

static int too_large(const struct finding *x, struct ad_fault *f)
{
        return ad_fault_set(f, 400, "range_too_large", "from",
                            "partition %u of events and of %zu imports holds %llu records from "
                            "then to then, and at most %d are read for a receipt: ask for a "
                            "shorter time, with from and to near the event's receipt",
                            x->r->partition, x->r->import_count, (unsigned long long)x->in_range,
                            AD_RECEIPT_RECORDS_MAX);
}

static int not_found(const struct ad_receipt *r, struct ad_fault *f)
{
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX] = "now";

        (void)ad_time_text(r->query.from_ms, from);
        if (r->query.to_ms)
                (void)ad_time_text(r->query.to_ms, to);
        return ad_fault_set(f, 404, "not_found", NULL,
                            "no copy of it was taken from %s to %s (partition %u, offsets %llu to "
                            "%llu of events, and %zu imports): ask with from and to for another "
                            "time; an imported event was taken when its import ran; what was "
                            "refused with a code is not in the log",
                            from, to, r->partition, (unsigned long long)r->topics->from_offset,
                            (unsigned long long)r->topics->to_offset, r->import_count);
}

int ad_receipt_find(const struct ad_receipt_context *c, const struct ad_receipt_query *q,
                    struct ad_receipt *ret, struct ad_fault *f)
{
        struct df_error err = {0};
        struct finding x = {.context = c, .r = ret, .err = &err};

        *ret = (struct ad_receipt){.query = *q};
        df_arena_init(&ret->arena, ARENA_BYTES);
        if (find_topics(&x) < 0)
                return ad_fault_log(f, &err);
        if (x.in_range > AD_RECEIPT_RECORDS_MAX)
                return too_large(&x, f);
        if (find_copies(&x, &err) < 0 || tell(ret, &err) < 0)
                return ad_fault_log(f, &err);
        return ret->told_count ? 0 : not_found(ret, f);
}

void ad_receipt_release(struct ad_receipt *r)
{
        for (struct ad_receipt_topic *t = r->topics; t; t = t->next)
                free(t->copies);
        df_arena_release(&r->arena);
        *r = (struct ad_receipt){0};
}
