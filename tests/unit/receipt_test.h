/* receipt_test.h - a log with copies of events, the seals of `late` and `quarantine`, and receipts
 * of it. */
#ifndef RECEIPT_TEST_H
#define RECEIPT_TEST_H

#include "unit.h"

#include "df/archive.h"
#include "df/filelog.h"
#include "jobs/api/receipt.h"
#include "jobs/common/settings.h"
#include "state_test.h"

#define IMPORT AD_TOPIC_IMPORT_PREFIX "00000000000000aa"
#define HOUR 3600000LL
#define T0 (490000 * HOUR)
#define H 3

static char dir[256];
static struct df_log *log_;
static struct df_log_writer *events, *late, *quarantine;
static uint64_t generation;
static int64_t clock_now;
static uint64_t duplicates;                  /* that seals count */
static const char *sealed = AD_TOPIC_EVENTS; /* the topic that seals are of */
static const struct ad_status *known;

static inline int64_t clock_ms(void *arg)
{
        return clock_now;
}

static inline int on_topic(void *arg, const struct df_topic_info *info)
{
        if (strcmp(info->name, AD_TOPIC_EVENTS) == 0)
                generation = info->generation;
        return 0;
}

static inline int setup(void **state)
{
        struct df_filelog_options o = {.clock_ms = clock_ms,
                                       .segment_bytes = 4096,
                                       .reserve_bytes = 4096,
                                       .min_free_bytes = 1};

        clock_now = T0;
        duplicates = 1;
        sealed = AD_TOPIC_EVENTS;
        known = NULL;
        ok(df_filelog_open(temp_dir(dir), &o, &log_, err));
        ok(ad_create_topics(log_, 1, err));
        ok(df_log_topic_list(log_, AD_TOPIC_EVENTS, on_topic, NULL, err));
        ok(df_log_writer_open(log_, AD_TOPIC_EVENTS, &events, err));
        ok(df_log_writer_open(log_, AD_TOPIC_LATE, &late, err));
        ok(df_log_writer_open(log_, AD_TOPIC_QUARANTINE, &quarantine, err));
        return 0;
}

static inline int teardown(void **state)
{
        df_log_writer_close(events);
        df_log_writer_close(late);
        df_log_writer_close(quarantine);
        df_log_close(log_);
        remove_dir(dir);
        return 0;
}

/* ---- writing ---- */

static inline void append(struct df_log_writer *w, struct df_buf *b)
{
        struct df_append a = {.value = df_buf_bytes(b)};

        assert_false(b->failed);
        ok(df_log_append(w, &a, 1, err));
        df_buf_release(b);
}

/* So many copies, received when they are appended. */
static inline void put_into(struct df_log_writer *w, const char *id, int cost, int count)
{
        static struct df_append list[AD_RECEIPT_COPIES_MAX];
        struct ad_event ev = {.event_id = df_bytes_str(id),
                              .tenant_id = df_bytes_str("t"),
                              .type = AD_CLICK,
                              .flags = AD_EV_HAS_COST,
                              .cost_nanos = cost,
                              .event_ms = clock_now,
                              .receive_ms = clock_now};
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf one = {0}, record = {0};

        ev.fingerprint = (uint64_t)cost;
        ad_wire_event(&one, &ev);
        ad_wire_batch_entry(&record, df_buf_bytes(&one));
        ad_wire_batch_header(&record, &header);
        for (int i = 0; i < count; i++)
                list[i] = (struct df_append){.value = df_buf_bytes(&record)};
        ok(df_log_append(w, list, (size_t)count, err));
        df_buf_release(&record);
        df_buf_release(&one);
}

static inline void put_many(const char *id, int cost, int count)
{
        put_into(events, id, cost, count);
}

static inline void put(const char *id, int cost)
{
        put_many(id, cost, 1);
}

/* A collection of checkpoint k: payload may be NULL. */
static inline void seal(struct df_log_writer *w, uint64_t k, uint64_t from, uint64_t to,
                        struct df_buf *payload, bool damaged)
{
        struct df_origin o = {.source = {.generation = generation}, .k = k, .epoch = 1};
        struct df_seal s = {.from_offset = from, .to_offset = to, .max_append_ms = clock_now};

        (void)snprintf(o.source.stream, sizeof(o.source.stream), "%s", sealed);
        s.outcomes[AD_DUPLICATE] = duplicates;
        struct df_buf b = {0};

        if (payload) {
                df_output_encode(&b, &o, df_buf_bytes(payload));
                append(w, &b);
                s.rows = 1;
                s.rows_digest = df_digest_add(s.rows_digest, df_buf_bytes(payload));
                o.n = 1;
                df_buf_release(payload);
        }
        s.rows_digest.lo ^= damaged;
        b = (struct df_buf){0};
        df_output_encode_seal(&b, &o, &s);
        append(w, &b);
}

static inline void seal_both(uint64_t k, uint64_t from, uint64_t to)
{
        seal(late, k, from, to, NULL, false);
        seal(quarantine, k, from, to, NULL, false);
}

static inline void quarantined(struct df_buf *b, uint64_t offset, enum ad_reason reason)
{
        struct ad_quarantined q = {.offset = offset, .reason = reason};

        ad_wire_quarantined(b, &q);
}

/* ---- asking ---- */

static inline struct ad_receipt_context context(void)
{
        return (struct ad_receipt_context){
                .log = log_, .source = log_, .horizon_hours = H, .status = known};
}

static inline struct ad_receipt ask(const char *id, int64_t from_ms, int status)
{
        struct ad_receipt_context c = context();
        struct ad_receipt_query q = {
                .tenant_id = df_bytes_str("t"), .event_id = df_bytes_str(id), .from_ms = from_ms};
        struct ad_receipt r;
        struct ad_fault f = {.status = 200};

        (void)ad_receipt_find(&c, &q, &r, &f);
        if (f.status != status)
                fail_msg("%s: %d %s %s", id, f.status, f.code, f.message);
        return r;
}

static inline void refused(const char *id, int64_t from_ms, int status)
{
        struct ad_receipt r = ask(id, from_ms, status);

        ad_receipt_release(&r);
}

static inline void expect(const char *id, int64_t from_ms, size_t which, enum ad_copy_state state,
                          uint32_t outcome)
{
        struct ad_receipt r = ask(id, from_ms, 200);
        const struct ad_copy *c = which < r.told_count ? r.told[which] : NULL;

        if (!c || c->state != state || (state == AD_COPY_SEALED && c->outcome != outcome))
                fail_msg("%s, copy %zu of %zu: state %d, outcome %u; wanted %d, %u", id, which,
                         r.told_count, c ? (int)c->state : -1, c ? c->outcome : 0, (int)state,
                         outcome);
        ad_receipt_release(&r);
}

static inline struct df_log_writer *import_open(void)
{
        struct df_log_writer *w = NULL;

        ok(df_log_topic_create(log_, IMPORT, 1, err));
        ok(df_log_writer_open(log_, IMPORT, &w, err));
        return w;
}

#endif
