/* pack_test.h - shared by the tests of ingest's group commit: a pack over a real file log, and its
 * tickets. */
#ifndef PACK_TEST_H
#define PACK_TEST_H

#include <pthread.h>
#include <stdatomic.h>

#include "filelog_test.h"

#include "df/run.h"
#include "jobs/ingest/pack.h"

#define PARTITIONS 4
#define TOPIC "events"

struct ticket {
        atomic_int reports;
        atomic_int rc;
        size_t events;
};

static struct df_log *test_log;
static struct df_log_writer *writer;
static struct ad_pack *pack;
static atomic_size_t reported;
static atomic_int failures, failed_code;
static atomic_llong appended_max_ms;
static int before_rc; /* what must be durable before an append: fails with it */
static atomic_size_t befores;
static int64_t give_up_ms;             /* 0 = the default */
static struct df_log_writer *in_front; /* the pack's, in front of writer; NULL = writer */

static inline void done(void *arg, void *ticket, int rc)
{
        struct ticket *t = ticket;

        assert_ptr_equal(arg, &reported);
        atomic_store(&t->rc, rc);
        atomic_fetch_add(&t->reports, 1);
        atomic_fetch_add(&reported, 1);
}

static inline void failed(void *arg, const struct df_error *err)
{
        atomic_fetch_add(&failures, 1);
        atomic_store(&failed_code, err->code);
}

static inline void appended(void *arg, const struct ad_pack_append *a)
{
        assert_true(a->send_ms <= a->ack_ms);
        assert_true(a->append_min_ms <= a->append_max_ms);
        atomic_store(&appended_max_ms, a->append_max_ms);
}

static inline int before(void *arg, struct df_error *err)
{
        assert_ptr_equal(arg, &reported);
        atomic_fetch_add(&befores, 1);
        return before_rc ? df_fail(err, before_rc, "the test says so") : 0;
}

static inline uint32_t price_version(void *arg)
{
        return 7;
}

static inline void open_pack(int64_t delay_ms)
{
        struct ad_pack_options o = {.partitions = PARTITIONS,
                                    .delay_ms = delay_ms,
                                    .give_up_ms = give_up_ms,
                                    .done = done,
                                    .appended = appended,
                                    .failed = failed,
                                    .before = before,
                                    .arg = &reported,
                                    .price_version = price_version};

        ok(df_log_topic_create(test_log, TOPIC, PARTITIONS, &err));
        writer = open_writer(test_log, TOPIC);
        o.writer = in_front ? in_front : writer;
        ok(ad_pack_create(&o, &pack, &err));
        atomic_store(&reported, 0);
        atomic_store(&failures, 0);
        atomic_store(&failed_code, 0);
        atomic_store(&befores, 0);
}

static inline void close_pack(void)
{
        ad_pack_destroy(pack);
        df_log_writer_close(writer);
        pack = NULL;
}

static inline int setup(void **state)
{
        if (setup_dir(state) != 0)
                return -1;
        test_log = open_log(NULL);
        return 0;
}

static inline int teardown(void **state)
{
        df_log_close(test_log);
        return teardown_dir(state);
}

static inline struct ad_event make_event(char id[32], uint64_t n)
{
        struct ad_event ev = {
                .event_id = df_bytes(id, (size_t)snprintf(id, 32, "event-%" PRIu64, n)),
                .tenant_id = df_bytes_str("t"),
                .type = AD_CLICK,
                .event_ms = 1,
                .receive_ms = 2,
        };

        ev.dims[AD_DIM_CAMPAIGN] = df_bytes_str("c");
        return ev;
}

/* Events first, first + 1, ... as one request. */
static inline int add_request(struct ticket *t, uint64_t first, size_t count)
{
        struct ad_event *events = calloc(count, sizeof(*events));
        char(*ids)[32] = calloc(count, sizeof(*ids));
        int rc;

        assert_non_null(events);
        assert_non_null(ids);
        for (size_t i = 0; i < count; i++)
                events[i] = make_event(ids[i], first + i);
        t->events = count;
        rc = ad_pack_add(pack, events, count, 0, t, NULL);
        free(events);
        free(ids);
        return rc;
}

static inline void check_ledger(uint64_t accepted, uint64_t rejected, uint64_t unanswered)
{
        struct ad_pack_stats s;

        ad_pack_stats(pack, &s);
        assert_int_equal(s.edge.accepted, accepted);
        assert_int_equal(s.edge.rejected, rejected);
        assert_int_equal(s.edge.unanswered, unanswered);
        assert_int_equal(s.edge.received, accepted + rejected + unanswered);
}

#endif
