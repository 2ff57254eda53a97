/* bench_follow.c - how far the realtime job is, by the seals that can be read in `rollups`. */
#include <string.h>

#include "jobs/adtally/bench.h"
#include "jobs/adtally/bench_follow.h"

#define POLL_RECORDS 256
#define COLLECT_MAX (256u << 20)

int ad_follower_open(struct ad_follower *f, struct df_log *log, struct df_error *err)
{
        for (uint32_t p = 0; p < f->partitions; p++) {
                int rc = df_log_reader_open(log, AD_TOPIC_ROLLUPS, p, 0, NULL, &f->reader[p], err);

                if (rc == 0)
                        rc = df_collector_create(COLLECT_MAX, &f->collector[p], err);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

void ad_follower_close(struct ad_follower *f)
{
        for (uint32_t p = 0; p < f->partitions; p++) {
                df_log_reader_close(f->reader[p]);
                df_collector_destroy(f->collector[p]);
        }
}

static int count_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        (void)row;
        (void)err;
        ((struct ad_follower *)arg)->rows++;
        return 0;
}

static int take(struct ad_follower *f, const struct df_collection *c, struct df_error *err)
{
        f->events += c->seal.events;
        f->checkpoints++;
        for (size_t i = 0; i < DF_OUTCOMES_MAX; i++)
                f->outcomes[i] += c->seal.outcomes[i];
        for (size_t i = 0; i < c->count; i++) {
                int rc = ad_wire_rows_decode(c->payloads[i], count_row, f, err);

                if (rc < 0)
                        return rc;
                f->rows_bytes += c->payloads[i].len;
        }
        return 0;
}

int ad_follow(struct ad_follower *f, bool *ret_idle, struct df_error *err)
{
        struct df_record records[POLL_RECORDS];

        *ret_idle = true;
        for (uint32_t p = 0; p < f->partitions; p++) {
                size_t n;
                int rc = df_log_poll(f->reader[p], records, POLL_RECORDS, &n, err);

                for (size_t i = 0; rc == 0 && i < n; i++) {
                        struct df_collection c;
                        enum df_collect what;

                        rc = df_collector_add(f->collector[p], &records[i], &what, &c, err);
                        if (rc == 0 && what == DF_COLLECT_COMPLETE)
                                rc = take(f, &c, err);
                }
                if (rc < 0)
                        return rc;
                *ret_idle &= n == 0;
        }
        return 0;
}
