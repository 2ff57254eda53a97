/* commit_test.h - a process with sessions over the simulated ports, for test_commit.c,
 * test_takeover.c and test_rebuild.c: process 0 runs the tasks, process 1 writes the log. */
#ifndef ADTALLY_TESTS_COMMIT_TEST_H
#define ADTALLY_TESTS_COMMIT_TEST_H

#include "tests/unit/core_test.h"

#define PARTITIONS 2

struct rig {
        uint64_t seed;
        struct df_sim *sim;
        struct df_sim_random random;
        struct df_log *feed_log, *log;
        struct df_log_writer *feed, *writers[OUTPUTS];
        struct df_ckpt *ckpts[PARTITIONS];
        struct df_session *sessions[PARTITIONS];
        struct toy_params params;
        struct df_task_config configs[PARTITIONS];
        bool recover;
        struct df_txn *txn; /* NULL: outputs are appended */
        int64_t now_ms;
        struct reading readings[PARTITIONS];
        /* steps */
        char steps[4096]; /* their names, one behind the other */
        uint64_t step_count;
        int64_t fail_at; /* this step fails; negative = none */
        int fail_code;
        uint64_t failures;
};

static inline uint64_t topic_generation(struct rig *r, const char *topic)
{
        return df_sim_generation(r->sim, topic);
}

static inline void rig_open(struct rig *r, uint64_t seed)
{
        *r = (struct rig){
                .seed = seed, .sim = df_sim_create(seed), .now_ms = BASE_MS, .fail_at = -1};
        df_sim_random_init(&r->random, seed);
        r->feed_log = df_sim_log_open(r->sim, 1);
        ok(df_log_topic_create(r->feed_log, "toys", PARTITIONS, err));
        ok(df_log_topic_create(r->feed_log, "exchange", PARTITIONS, err));
        ok(df_log_topic_create(r->feed_log, "rows", PARTITIONS, err));
        ok(df_log_writer_open(r->feed_log, "toys", &r->feed, err));
        for (uint32_t p = 0; p < PARTITIONS; p++)
                toy_config(&r->configs[p], &r->params, p, PARTITIONS, topic_generation(r, "toys"));
}

static inline void rig_close_session(struct rig *r, uint32_t p)
{
        df_session_close(r->sessions[p]);
        df_ckpt_close(r->ckpts[p]);
        r->sessions[p] = NULL;
        r->ckpts[p] = NULL;
}

static inline void rig_close_process(struct rig *r)
{
        for (uint32_t p = 0; p < PARTITIONS; p++)
                rig_close_session(r, p);
        for (int i = 0; i < OUTPUTS; i++) {
                df_log_writer_close(r->writers[i]);
                r->writers[i] = NULL;
        }
        df_log_close(r->log);
        r->log = NULL;
}

static inline void rig_close(struct rig *r)
{
        rig_close_process(r);
        df_log_writer_close(r->feed);
        df_log_close(r->feed_log);
        df_sim_destroy(r->sim);
}

static inline void rig_append(struct rig *r, uint32_t p, struct df_buf *b)
{
        struct df_append item = {.partition = p, .value = df_buf_bytes(b)};

        df_sim_faults_pause(r->sim, true);
        df_sim_set_now_ms(r->sim, r->now_ms);
        ok(df_log_append(r->feed, &item, 1, err));
        df_sim_faults_pause(r->sim, false);
        df_buf_release(b);
}

static inline void rig_feed(struct rig *r, uint32_t p, size_t events)
{
        struct df_buf b = {0};

        toy_data(&b, &r->random, events, &r->now_ms);
        rig_append(r, p, &b);
}

static inline void rig_feed_event(struct rig *r, uint32_t p, uint8_t key, int64_t ms)
{
        struct df_buf b = {0};

        r->now_ms = ms > r->now_ms ? ms : r->now_ms;
        df_put_u8(&b, 'D');
        df_put_u8(&b, key);
        df_put_u64be(&b, (uint64_t)ms);
        rig_append(r, p, &b);
}

static inline int rig_step(void *arg, const char *name, struct df_error *err)
{
        struct rig *r = arg;
        size_t len = strlen(r->steps);

        (void)snprintf(r->steps + len, sizeof(r->steps) - len, "%s ", name);
        if ((int64_t)r->step_count++ != r->fail_at)
                return 0;
        r->failures++;
        r->fail_at = -1;
        if (r->fail_code == DF_ECRASH)
                return df_sim_crash(r->sim, 0, err);
        return df_fail(err, r->fail_code, "injected at %s", name);
}

static inline const char *rig_dir(uint32_t p)
{
        return p ? "dir-1" : "dir-0";
}

static inline int rig_try_open(struct rig *r, uint32_t p, struct df_error *err)
{
        struct df_session_ports ports = {.consumer = "tasks",
                                         .recover_from_log = r->recover,
                                         .step = rig_step,
                                         .step_arg = r};
        static const char *const topics[OUTPUTS] = {"exchange", "rows"};
        int rc = 0;

        if (!r->log)
                r->log = df_sim_log_open(r->sim, 0);
        for (int i = 0; rc == 0 && i < OUTPUTS; i++)
                if (!r->writers[i])
                        rc = df_log_writer_open(r->log, topics[i], &r->writers[i], err);
        if (rc < 0 || r->sessions[p])
                return rc;
        if (!r->ckpts[p])
                r->ckpts[p] = df_sim_ckpt_open(r->sim, 0, rig_dir(p));
        ports.log = r->log;
        ports.ckpt = r->ckpts[p];
        ports.txn = r->txn;
        memcpy(ports.writers, r->writers, sizeof(r->writers));
        return df_session_open(&r->configs[p], &ports, &r->sessions[p], err);
}

static inline struct df_task *rig_task(struct rig *r, uint32_t p)
{
        return df_session_task(r->sessions[p]);
}

/* Until everything is counted and committed; without faults. */
static inline void rig_finish(struct rig *r)
{
        for (uint32_t p = 0; p < PARTITIONS; p++) {
                ok(rig_try_open(r, p, err));
                for (size_t n = 1; n > 0 || df_session_lag(r->sessions[p]) > 0;) {
                        ok(df_session_poll(r->sessions[p], 7, &n, err));
                        if (df_task_wants_cut(rig_task(r, p)))
                                ok(df_session_commit(r->sessions[p], err));
                }
                ok(df_session_commit(r->sessions[p], err));
        }
}

/* Feed one record and make one checkpoint of it. */
static inline void rig_checkpoint(struct rig *r, uint32_t p, size_t events)
{
        size_t n;

        rig_feed(r, p, events);
        ok(rig_try_open(r, p, err));
        do
                ok(df_session_poll(r->sessions[p], 9, &n, err));
        while (n > 0);
        ok(df_session_commit(r->sessions[p], err));
}

static inline void rig_lose(struct rig *r, uint32_t p, bool keep_epoch)
{
        rig_close_session(r, p);
        df_sim_ckpt_lose(r->sim, rig_dir(p), keep_epoch);
}

/* ---- reading ---- */

static inline void rig_read_partition(struct rig *r, uint32_t output, uint32_t partition)
{
        const char *topic = output == OUT_ROWS ? "rows" : "exchange";
        struct df_collector *c = NULL;
        const struct df_record *records;
        size_t count;

        records = df_sim_records(r->sim, topic, partition, &count);
        ok(df_collector_create(1u << 27, &c, err));
        for (size_t i = 0; i < count; i++) {
                struct df_collection got;
                enum df_collect what;

                ok(df_collector_add(c, &records[i], &what, &got, err));
                if (what == DF_COLLECT_DAMAGED)
                        fail_msg("seed %llu: %s/%u offset %zu is damaged",
                                 (unsigned long long)r->seed, topic, partition, i);
                if (what == DF_COLLECT_REPEATED) {
                        struct df_output out;
                        ok(df_output_decode(records[i].value, &out, err));
                        r->readings[out.origin.source.partition].repeated++;
                }
                if (what == DF_COLLECT_COMPLETE)
                        read_collection(&r->readings[got.origin.source.partition], output, &got);
        }
        df_collector_destroy(c);
}

static inline void rig_read(struct rig *r)
{
        memset(r->readings, 0, sizeof(r->readings));
        for (uint32_t p = 0; p < PARTITIONS; p++) {
                rig_read_partition(r, OUT_EXCHANGE, p);
                rig_read_partition(r, OUT_ROWS, p);
        }
}

/* What readers see is what a naive recount of the log says, each event once. */
static inline void rig_compare(struct rig *r)
{
        rig_read(r);
        for (uint32_t p = 0; p < PARTITIONS; p++) {
                struct recount n = {0};
                size_t count;
                const struct df_record *records = df_sim_records(r->sim, "toys", p, &count);

                recount(&n, records, count, false);
                compare(&r->readings[p], &n, r->seed);
        }
}

#endif
