#include "tests/sim/job.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define TRIES_MAX 200 /* calls of a task in a row that fail */

/* ---- failures name their seed ---- */

static const char *current_program = "sim_main";
static uint64_t current_seed;

static void say_rerun(void)
{
        (void)fflush(stdout);
        (void)fprintf(stderr, "FAILED seed %" PRIu64 "; rerun: %s --seed %" PRIu64 " --steps\n",
                      current_seed, current_program, current_seed);
}

static void on_abort(int signal_number)
{
        (void)signal_number;
        say_rerun();
        _exit(1);
}

void __asan_on_error(void); /* AddressSanitizer calls it, when it is linked */
void __asan_on_error(void)
{
        say_rerun();
}

void sim_seed(const char *program, uint64_t seed)
{
        current_program = program;
        current_seed = seed;
        (void)signal(SIGABRT, on_abort);
}

void sim_each_seed(const char *path, void (*fn)(void *arg, uint64_t seed), void *arg)
{
        FILE *f = fopen(path, "r");
        char line[256];

        if (!f) {
                (void)fprintf(stderr, "cannot open %s\n", path);
                exit(66);
        }
        while (fgets(line, sizeof(line), f))
                if (line[0] >= '0' && line[0] <= '9')
                        fn(arg, strtoull(line, NULL, 10));
        (void)fclose(f);
}

void sim_fail(uint64_t seed, const char *fmt, ...)
{
        va_list args;

        (void)fflush(stdout);
        (void)fprintf(stderr, "seed %" PRIu64 ": ", seed);
        va_start(args, fmt);
        (void)vfprintf(stderr, fmt, args);
        va_end(args);
        (void)fputc('\n', stderr);
        say_rerun();
        _exit(1); /* no leak report: everything is still open */
}

/* ---- the process ---- */

void job_init(struct job *j, uint64_t seed, struct df_sim *sim, struct df_sim_random *random,
              uint32_t process)
{
        *j = (struct job){.seed = seed,
                          .sim = sim,
                          .random = random,
                          .process = process,
                          .step_countdown = -1};
}

static size_t topic_index(struct job *j, const char *topic)
{
        for (size_t i = 0; i < j->topic_count; i++)
                if (strcmp(j->topics[i].topic, topic) == 0)
                        return i;
        df_check(j->topic_count < JOB_TOPICS_MAX);
        j->topics[j->topic_count].topic = topic;
        return j->topic_count++;
}

void job_add(struct job *j, const struct df_task_config *config)
{
        struct job_task *t = &j->tasks[j->task_count++];

        df_check(j->task_count <= JOB_TASKS_MAX);
        *t = (struct job_task){.config = *config};
        (void)snprintf(t->dir, sizeof(t->dir), "%s-%u", config->source.stream,
                       config->source.partition);
        for (size_t o = 0; o < config->output_count; o++)
                (void)topic_index(j, config->outputs[o].topic);
}

void job_close_task(struct job *j, uint32_t task)
{
        struct job_task *t = &j->tasks[task];

        df_session_close(t->session);
        df_ckpt_close(t->ckpt);
        t->session = NULL;
        t->ckpt = NULL;
}

void job_close(struct job *j)
{
        for (uint32_t i = 0; i < j->task_count; i++)
                job_close_task(j, i);
        for (size_t i = 0; i < j->topic_count; i++) {
                df_log_writer_close(j->topics[i].writer);
                j->topics[i].writer = NULL;
        }
        df_log_close(j->log);
        j->log = NULL;
}

static void begin_again(struct job *j)
{
        job_close(j);
        df_sim_restart(j->sim, j->process);
        if (j->to)
                (void)fprintf(j->to, "  -- process %u begins again\n", j->process);
}

void job_crash(struct job *j)
{
        j->crashes++;
        (void)df_sim_crash(j->sim, j->process, NULL);
        begin_again(j);
}

/* Always false: the call failed. */
static bool failed(struct job *j, uint32_t task, const char *call, const struct df_error *err)
{
        struct job_task *t = &j->tasks[task];

        if (j->to)
                (void)fprintf(j->to, "  !! %s %s: %s\n     %s\n", call, t->dir,
                              df_err_code(err->code), err->text);
        if (err->code == DF_ECRASH) {
                job_crash(j);
                return false;
        }
        if (df_err_action(err->code) == DF_STOP)
                sim_fail(j->seed, "%s of %s is refused: %s: %s", call, t->dir,
                         df_err_code(err->code), err->text);
        if (++t->failures > TRIES_MAX)
                sim_fail(j->seed, "%s of %s never succeeds: %s: %s", call, t->dir,
                         df_err_code(err->code), err->text);
        if (df_err_action(err->code) == DF_RETRY && t->session &&
            df_sim_random_chance(j->random, 500))
                return false; /* the same call, later */
        j->restarts++;
        job_close_task(j, task);
        if (t->failures % 3 == 0) /* L1: a broken writer needs a new process */
                begin_again(j);
        return false;
}

static int on_step(void *arg, const char *name, struct df_error *err)
{
        struct job *j = arg;

        j->steps++;
        if (j->to)
                (void)fprintf(j->to, "  -- step %s\n", name);
        if (j->step_countdown < 0 || j->step_countdown-- > 0)
                return 0;
        if (j->step_code == DF_ECRASH)
                return df_sim_crash(j->sim, j->process, err);
        return df_fail(err, j->step_code, "injected at step %s", name);
}

void job_plan_fault(struct job *j)
{
        const struct df_sim_fault fault = {
                .countdown = (int64_t)df_sim_random_below(j->random, 30),
                .n = 1 + (uint32_t)df_sim_random_below(j->random, 2),
                .moment = (enum df_sim_moment)df_sim_random_below(j->random, 3),
        };

        df_sim_fault_set(j->sim,
                         (enum df_sim_fault_kind)df_sim_random_below(j->random, DF_SIM_FAULT_KINDS),
                         fault);
}

void job_plan_step_fault(struct job *j)
{
        static const int codes[] = {DF_ECRASH, DF_ECRASH, DF_EIO, DF_ENOSPC};

        j->step_countdown = (int64_t)df_sim_random_below(j->random, 12);
        j->step_code = codes[df_sim_random_below(j->random, 4)];
}

/* ---- calls ---- */

static int open_process(struct job *j, struct df_error *err)
{
        int rc = 0;

        if (!j->log)
                j->log = df_sim_log_open(j->sim, j->process);
        for (size_t i = 0; rc == 0 && i < j->topic_count; i++)
                if (!j->topics[i].writer)
                        rc = df_log_writer_open(j->log, j->topics[i].topic, &j->topics[i].writer,
                                                err);
        return rc;
}

void job_ports(const struct job *j, uint32_t task, struct df_session_ports *ret)
{
        const struct df_task_config *c = &j->tasks[task].config;

        *ret = (struct df_session_ports){.log = j->log, .consumer = "job"};
        for (size_t o = 0; o < c->output_count; o++)
                for (size_t i = 0; i < j->topic_count; i++)
                        if (strcmp(j->topics[i].topic, c->outputs[o].topic) == 0)
                                ret->writers[o] = j->topics[i].writer;
}

bool job_open(struct job *j, uint32_t task)
{
        struct job_task *t = &j->tasks[task];
        struct df_session_ports ports;
        struct df_error err = {0};
        int rc = open_process(j, &err);

        if (rc < 0)
                return failed(j, task, "process start", &err);
        if (t->session)
                return true;
        df_check(t->ckpt == NULL);
        t->ckpt = df_sim_ckpt_open(j->sim, j->process, t->dir);
        job_ports(j, task, &ports);
        ports.ckpt = t->ckpt;
        ports.recover_from_log = t->recover;
        ports.step = on_step;
        ports.step_arg = j;
        rc = df_session_open(&t->config, &ports, &t->session, &err);
        if (rc < 0) {
                t->session = NULL;
                return failed(j, task, "open", &err);
        }
        j->takeovers++;
        return true;
}

bool job_poll(struct job *j, uint32_t task, size_t max_records, size_t *ret_processed)
{
        struct job_task *t = &j->tasks[task];
        struct df_error err = {0};

        *ret_processed = 0;
        if (!job_open(j, task))
                return false;
        j->polls++;
        if (df_session_poll(t->session, max_records, ret_processed, &err) < 0)
                return failed(j, task, "poll", &err);
        t->failures = 0;
        if (df_task_wants_cut(df_session_task(t->session)))
                return job_commit(j, task);
        return true;
}

bool job_commit(struct job *j, uint32_t task)
{
        struct job_task *t = &j->tasks[task];
        struct df_error err = {0};

        if (!job_open(j, task))
                return false;
        if (df_session_commit(t->session, &err) < 0)
                return failed(j, task, "commit", &err);
        j->commits++;
        t->failures = 0;
        return true;
}

void job_act(struct job *j)
{
        const uint32_t task = (uint32_t)df_sim_random_below(j->random, j->task_count);
        const uint64_t x = df_sim_random_below(j->random, 1000);
        size_t n;

        if (x < 650)
                (void)job_poll(j, task, 1 + df_sim_random_below(j->random, 6), &n);
        else if (x < 950)
                (void)job_commit(j, task);
        else if (x < 980)
                job_close_task(j, task); /* without a commit: what was not cut is lost */
        else
                job_crash(j);
}

void job_finish(struct job *j, uint32_t task, size_t max_records)
{
        df_sim_faults_clear(j->sim);
        j->step_countdown = -1;
        for (unsigned tries = 0;; tries++) {
                size_t n = 0;

                if (tries > 10000)
                        sim_fail(j->seed, "%s does not come to its end", j->tasks[task].dir);
                if (!job_poll(j, task, max_records, &n) || n > 0)
                        continue;
                if (df_session_lag(j->tasks[task].session) == 0)
                        break;
        }
        while (!job_commit(j, task))
                ;
}
