#include "tests/sim/job.h"

#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/served.h"

#define TRIES_MAX 200 /* calls in a row that fail without a fault being set */

static const char *const topics[AD_OUT_COUNT] = {
        [AD_OUT_LATE] = "late", [AD_OUT_QUARANTINE] = "quarantine", [AD_OUT_ROLLUPS] = "rollups"};

void job_dir(uint32_t partition, char ret[32])
{
        (void)snprintf(ret, 32, "events-%u", partition);
}

void job_topics(struct df_sim *sim, const struct world *w, uint64_t *ret_generation)
{
        struct df_log *log = df_sim_log_open(sim, DF_SIM_PROCESSES_MAX - 1);

        df_check(df_log_topic_create(log, "events", w->partitions, NULL) == 0);
        for (int i = 0; i < AD_OUT_COUNT; i++)
                df_check(df_log_topic_create(log, topics[i], w->partitions, NULL) == 0);
        df_log_close(log);
        *ret_generation = df_sim_generation(sim, "events");
}

void job_init(struct job *j, const struct world *w, struct df_sim *sim,
              struct df_sim_random *random, uint32_t process)
{
        *j = (struct job){.world = w,
                          .sim = sim,
                          .random = random,
                          .process = process,
                          .generation = df_sim_generation(sim, "events"),
                          .step_countdown = -1};
}

/* ---- after an error ---- */

void job_close_partition(struct job *j, uint32_t p)
{
        df_session_close(j->parts[p].session);
        df_ckpt_close(j->parts[p].ckpt);
        j->parts[p].session = NULL;
        j->parts[p].ckpt = NULL;
}

void job_close(struct job *j)
{
        for (uint32_t p = 0; p < j->world->partitions; p++)
                job_close_partition(j, p);
        for (int i = 0; i < AD_OUT_COUNT; i++) {
                df_log_writer_close(j->writers[i]);
                j->writers[i] = NULL;
        }
        df_log_close(j->log);
        j->log = NULL;
}

void job_crash(struct job *j)
{
        j->crashes++;
        (void)df_sim_crash(j->sim, j->process, NULL);
        job_close(j);
        df_sim_restart(j->sim, j->process);
        if (j->verbose)
                printf("  -- process %u begins again\n", j->process);
}

/* Always false: the call failed. */
static bool failed(struct job *j, uint32_t p, const char *call, const struct df_error *err)
{
        if (j->verbose)
                printf("  !! %s %u: %s: %s\n", call, p, df_err_code(err->code), err->text);
        if (err->code == DF_ECRASH) {
                job_crash(j);
                return false;
        }
        if (++j->parts[p].failures > TRIES_MAX)
                sim_fail(j->world->seed, "%s of partition %u never succeeds: %s: %s", call, p,
                         df_err_code(err->code), err->text);
        if (df_err_action(err->code) == DF_STOP)
                sim_fail(j->world->seed, "%s of partition %u is refused: %s: %s", call, p,
                         df_err_code(err->code), err->text);
        j->restarts++;
        job_close_partition(j, p);
        if (j->parts[p].failures % 3 == 0) { /* L1: a broken writer needs a new process */
                job_close(j);
                df_sim_restart(j->sim, j->process);
        }
        return false;
}

static int on_step(void *arg, const char *name, struct df_error *err)
{
        struct job *j = arg;

        j->steps++;
        if (j->verbose)
                printf("  -- step %s\n", name);
        if (j->step_countdown < 0 || j->step_countdown-- > 0)
                return 0;
        if (j->step_code == DF_ECRASH)
                return df_sim_crash(j->sim, j->process, err);
        return df_fail(err, j->step_code, "injected at step %s", name);
}

/* ---- calls ---- */

static int open_process(struct job *j, struct df_error *err)
{
        int rc = 0;

        if (!j->log)
                j->log = df_sim_log_open(j->sim, j->process);
        for (int i = 0; rc == 0 && i < AD_OUT_COUNT; i++)
                if (!j->writers[i])
                        rc = df_log_writer_open(j->log, topics[i], &j->writers[i], err);
        return rc;
}

bool job_open(struct job *j, uint32_t p)
{
        struct df_session_ports ports = {.consumer = "realtime",
                                         .recover_from_log = j->parts[p].recover,
                                         .step = on_step,
                                         .step_arg = j};
        struct df_task_config config;
        struct df_error err = {0};
        char dir[32];
        int rc = open_process(j, &err);

        if (rc < 0)
                return failed(j, p, "process start", &err);
        if (j->parts[p].session)
                return true;
        job_dir(p, dir);
        world_task_config(j->world, p, &config);
        config.source.generation = j->generation;
        if (!j->parts[p].ckpt)
                j->parts[p].ckpt = df_sim_ckpt_open(j->sim, j->process, dir);
        ports.log = j->log;
        ports.ckpt = j->parts[p].ckpt;
        memcpy(ports.writers, j->writers, sizeof(j->writers));
        rc = df_session_open(&config, &ports, &j->parts[p].session, &err);
        if (rc < 0) {
                j->parts[p].session = NULL;
                if (err.code != DF_ECRASH) { /* as runtime/run does: a fresh one each time */
                        df_ckpt_close(j->parts[p].ckpt);
                        j->parts[p].ckpt = NULL;
                }
                return failed(j, p, "open", &err);
        }
        j->takeovers++;
        return true;
}

bool job_poll(struct job *j, uint32_t p, size_t max_records, size_t *ret_processed)
{
        struct df_error err = {0};

        *ret_processed = 0;
        if (!job_open(j, p))
                return false;
        j->polls++;
        if (df_session_poll(j->parts[p].session, max_records, ret_processed, &err) < 0)
                return failed(j, p, "poll", &err);
        j->parts[p].failures = 0;
        if (df_task_wants_cut(df_session_task(j->parts[p].session)))
                return job_commit(j, p);
        return true;
}

bool job_commit(struct job *j, uint32_t p)
{
        struct df_error err = {0};

        if (!job_open(j, p))
                return false;
        if (df_task_suppressed(df_session_task(j->parts[p].session)))
                return true; /* K10: nothing to commit yet */
        if (df_session_commit(j->parts[p].session, &err) < 0)
                return failed(j, p, "commit", &err);
        j->commits++;
        j->parts[p].failures = 0;
        return true;
}

void job_act(struct job *j)
{
        const uint32_t p = (uint32_t)df_sim_random_below(j->random, j->world->partitions);
        const uint64_t x = df_sim_random_below(j->random, 1000);
        size_t n;

        if (x < 650)
                (void)job_poll(j, p, 1 + df_sim_random_below(j->random, 6), &n);
        else if (x < 950)
                (void)job_commit(j, p);
        else if (x < 980)
                job_close_partition(j, p); /* without a commit: what was not cut is lost */
        else
                job_crash(j);
}

static void finish_partition(struct job *j, uint32_t p, size_t max_records)
{
        for (unsigned tries = 0;; tries++) {
                size_t n = 0;

                if (tries > 10000)
                        sim_fail(j->world->seed, "partition %u does not come to its end", p);
                if (!job_poll(j, p, max_records, &n) || n > 0)
                        continue;
                if (df_session_lag(j->parts[p].session) == 0)
                        break;
        }
        while (!job_commit(j, p))
                ;
}

void job_finish(struct job *j, size_t max_records)
{
        df_sim_faults_clear(j->sim);
        j->step_countdown = -1;
        for (uint32_t p = 0; p < j->world->partitions; p++)
                finish_partition(j, p, max_records);
}
