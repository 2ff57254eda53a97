/* broker_test.h - the model broker with two topics, and what a reader of one sees. */
#ifndef BROKER_TEST_H
#define BROKER_TEST_H

#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/sim/broker_private.h"

#define SEED 7

static const struct df_sim_net quiet = {0};

struct fixture {
        struct df_sim *sim;
        struct dfi_broker *broker;
        struct df_log *log; /* of process 0 */
};

static inline void set_up(struct fixture *f)
{
        f->sim = df_sim_create(SEED);
        f->log = df_sim_kafka_log_open(f->sim, 0);
        f->broker = f->sim->broker;
        assert_int_equal(df_log_topic_create(f->log, "in", 2, NULL), 0);
        assert_int_equal(df_log_topic_create(f->log, "out", 1, NULL), 0);
}

static inline void tear_down(struct fixture *f)
{
        df_log_close(f->log);
        df_sim_destroy(f->sim);
}

/* What read_committed sees of out/0, as one text; its end. */
static inline const char *seen(struct fixture *f, uint64_t *ret_end)
{
        static char text[64];
        struct df_log_reader *r = NULL;
        struct df_record records[8];
        uint64_t first;
        size_t n, len = 0;

        text[0] = '\0';
        assert_int_equal(df_log_bounds(f->log, "out", 0, &first, ret_end, NULL), 0);
        assert_int_equal(df_log_reader_open(f->log, "out", 0, 0, NULL, &r, NULL), 0);
        do {
                assert_int_equal(df_log_poll(r, records, 8, &n, NULL), 0);
                for (size_t i = 0; i < n; i++)
                        len += (size_t)snprintf(text + len, sizeof(text) - len, "%.*s",
                                                (int)records[i].value.len,
                                                (const char *)records[i].value.data);
        } while (n > 0);
        assert_int_equal(df_log_position(r), *ret_end);
        df_log_reader_close(r);
        return text;
}

#endif
