/* job.h - the realtime job over the simulated ports: a process that opens its log and writers, one
 * session a partition, and does what runtime/run does after an error: close the partition and take
 * over again, refuse on DF_STOP (here: fail); after a crash the whole process begins again.
 */
#ifndef SIM_JOB_H
#define SIM_JOB_H

#include "tests/sim/world.h"

struct job {
        const struct world *world;
        struct df_sim *sim; /* borrowed */
        struct df_sim_random *random;
        uint32_t process;
        uint64_t generation; /* of the topic `events` */
        struct df_log *log;
        struct df_log_writer *writers[AD_OUT_COUNT];
        struct {
                struct df_ckpt *ckpt;
                struct df_session *session;
                bool recover; /* K10: was lost */
                unsigned failures;
        } parts[WORLD_PARTITIONS_MAX];
        /* A crash, or a failure, between the steps of the protocol. */
        int64_t step_countdown; /* negative = off */
        int step_code;
        bool verbose;
        /* What happened. */
        uint64_t crashes, restarts, commits, polls, steps, takeovers;
};

void job_init(struct job *j, const struct world *w, struct df_sim *sim,
              struct df_sim_random *random, uint32_t process);
/* One random call of one random partition; opens what is closed. */
void job_act(struct job *j);
/* A call of this partition, with the errors handled. False when it failed. */
bool job_open(struct job *j, uint32_t partition);
bool job_poll(struct job *j, uint32_t partition, size_t max_records, size_t *ret_processed);
bool job_commit(struct job *j, uint32_t partition);
void job_close_partition(struct job *j, uint32_t partition);
void job_crash(struct job *j);
/* No more faults: everything processed and committed. */
void job_finish(struct job *j, size_t max_records);
void job_close(struct job *j);
void job_dir(uint32_t partition, char ret[32]); /* name of a partition's state directory */
void job_topics(struct df_sim *sim, const struct world *w, uint64_t *ret_generation);

#endif
