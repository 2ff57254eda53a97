/* job.h - tasks over the simulated ports, as one process: the log, a writer a topic, a session a
 * task. It does what df/task.h asks after an error: DF_RETRY the same call later, or (as after
 * DF_RESTART) close the task and take over again; refuse on DF_STOP (here: fail); after a crash the
 * whole process begins again.
 */
#ifndef SIM_JOB_H
#define SIM_JOB_H

#include <stdio.h>

#include "df/sim.h"
#include "df/task.h"

#define JOB_TASKS_MAX 8
#define JOB_TOPICS_MAX 8

struct job_task {
        struct df_task_config config;
        char dir[DF_TOPIC_NAME_MAX + 16]; /* its state directory */
        struct df_ckpt *ckpt;
        struct df_session *session;
        bool recover; /* K10: its state directory was lost */
        unsigned failures;
};

struct job {
        uint64_t seed;                /* for messages */
        struct df_sim *sim;           /* borrowed */
        struct df_sim_random *random; /* borrowed */
        uint32_t process;
        struct df_log *log; /* NULL = the process does not run */
        struct {
                const char *topic;
                struct df_log_writer *writer;
        } topics[JOB_TOPICS_MAX];
        size_t topic_count;
        struct job_task tasks[JOB_TASKS_MAX];
        uint32_t task_count;
        /* A crash, or a failure, between the steps of the protocol. */
        int64_t step_countdown; /* negative = off */
        int step_code;
        FILE *to; /* steps and failures are written to it; NULL = none */
        /* What happened. */
        uint64_t crashes, restarts, commits, polls, steps, takeovers;
};

void job_init(struct job *j, uint64_t seed, struct df_sim *sim, struct df_sim_random *random,
              uint32_t process);
void job_add(struct job *j, const struct df_task_config *config);
/* One random call of one random task; opens what is closed. */
void job_act(struct job *j);
/* Fault plans, drawn by the job's random numbers: at a port call; between two steps. */
void job_plan_fault(struct job *j);
void job_plan_step_fault(struct job *j);
/* A call of this task, with the errors handled. False when it failed. */
bool job_open(struct job *j, uint32_t task);
bool job_poll(struct job *j, uint32_t task, size_t max_records, size_t *ret_processed);
bool job_commit(struct job *j, uint32_t task);
void job_close_task(struct job *j, uint32_t task);
void job_crash(struct job *j);
/* No more faults: the task has processed and committed all that its topic holds. */
void job_finish(struct job *j, uint32_t task, size_t max_records);
void job_close(struct job *j);
/* Ports for this task, without a state directory; the process must run. */
void job_ports(const struct job *j, uint32_t task, struct df_session_ports *ret);

/* Print what failed and how to see it again, and end the program. */
_Noreturn void sim_fail(uint64_t seed, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Which seed runs: said by every failure, also of df_check and of a sanitizer. program: for the
 * line that says how to run it again. */
void sim_seed(const char *program, uint64_t seed);
/* For each line of a regression list that begins with a seed. A list that cannot be read ends the
 * program. */
void sim_each_seed(const char *path, void (*fn)(void *arg, uint64_t seed), void *arg);

#endif
