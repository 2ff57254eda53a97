/* sim_main.c - the whole realtime job in a simulated world, seed after seed.
 *
 *   sim_main --seeds N [--first S]     seeds S to S + N - 1 (S = 1)
 *   sim_main --seed S [--steps]        one seed; --steps prints every step and port call
 *   sim_main --regressions FILE        the seeds of a file that once found a bug
 *
 * For each seed: a world (world.h) is processed while its records are still being appended, with
 * polls, cuts, crashes, DF_EIO and DF_ENOSPC at random port calls and between random steps, state
 * directories lost and damaged, and a second owner at the door; then read back and compared with
 * the recount (oracle.h), and with runs over the same records that were cut elsewhere.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/job.h"
#include "tests/sim/served.h"

struct totals {
        uint64_t seeds, takeovers, crashes, faults, commits, steps, lost, folded;
        uint64_t outcomes[DF_OUTCOMES_MAX];
};

struct options {
        bool verbose;
        struct totals *totals;
};

static void print_line(void *arg, const char *line)
{
        (void)arg;
        printf("  %s\n", line);
}

/* ---- the log's writer: process 1 ---- */

struct feed {
        const struct world *world;
        struct df_sim *sim;
        struct df_log *log;
        struct df_log_writer *writer;
        size_t next;
};

static void feed_open(struct feed *f, const struct world *w, struct df_sim *sim)
{
        *f = (struct feed){.world = w, .sim = sim, .log = df_sim_log_open(sim, 1)};
        df_check(df_log_writer_open(f->log, "events", &f->writer, NULL) == 0);
}

static bool feed_one(struct feed *f)
{
        const struct world_record *r;
        struct df_append item = {0};

        if (f->next == f->world->record_count)
                return false;
        r = &f->world->records[f->next];
        item.partition = r->partition;
        item.value = r->value;
        df_sim_faults_pause(f->sim, true);
        if (r->clock_restart)
                df_sim_clock_restart(f->sim);
        df_sim_set_now_ms(f->sim, r->append_ms);
        df_check(df_log_append(f->writer, &item, 1, NULL) == 0);
        df_sim_faults_pause(f->sim, false);
        f->next++;
        return true;
}

static void feed_close(struct feed *f)
{
        df_log_writer_close(f->writer);
        df_log_close(f->log);
}

/* ---- what may go wrong ---- */

/* Two owners of one directory: the second is refused, the first does not notice (K8). */
static void second_owner(struct job *j, uint32_t p)
{
        struct df_takeover t;
        struct df_ckpt *c;
        int rc;

        if (!j->tasks[p].session)
                return;
        df_sim_faults_pause(j->sim, true);
        c = df_sim_ckpt_open(j->sim, 2, j->tasks[p].dir);
        rc = df_ckpt_takeover(c, &t, NULL);
        df_sim_faults_pause(j->sim, false);
        df_ckpt_close(c);
        if (rc != DF_EFENCED)
                sim_fail(j->seed, "two owners of %s", j->tasks[p].dir);
}

/* The newest k whose seal stands in this partition of an output topic; 0 = none. */
static uint64_t sealed_k(struct df_sim *sim, const char *topic, uint32_t p)
{
        uint64_t k = 0;
        size_t count;
        const struct df_record *r = df_sim_records(sim, topic, p, &count);

        for (size_t i = 0; i < count; i++) {
                struct df_output o;

                if (df_output_decode(r[i].value, &o, NULL) == 0 && o.is_seal && o.origin.k > k)
                        k = o.origin.k;
        }
        return k;
}

/* Without being told to, a session refuses a directory that is empty although the log holds seals
 * (K8: never "start from latest"). */
static void open_unaware(struct job *j, uint32_t p)
{
        struct df_session *s = NULL;
        struct df_session_ports ports;
        int rc;

        job_ports(j, p, &ports);
        if (!ports.log || !ports.writers[AD_OUT_ROLLUPS])
                return;
        ports.ckpt = df_sim_ckpt_open(j->sim, j->process, j->tasks[p].dir);
        rc = df_session_open(&j->tasks[p].config, &ports, &s, NULL);
        if (rc == 0)
                df_session_close(s);
        df_ckpt_close(ports.ckpt);
        if (rc != DF_ESCHEMA)
                sim_fail(j->seed, "a lost state directory is not refused: %s (K8)",
                         df_err_code(rc));
}

/* What may happen to a state directory. False: it was not possible. */
static bool harm(struct job *j, uint32_t p)
{
        const char *dir = j->tasks[p].dir;
        struct df_takeover t;
        struct df_ckpt *c;
        bool harmed = true, keep_epoch = df_sim_random_chance(j->random, 500);
        const uint64_t x = df_sim_random_below(j->random, 3);

        if (x == 0) { /* a disk error: refused by name, then set aside */
                c = df_sim_ckpt_open(j->sim, j->process, dir);
                harmed = df_sim_ckpt_damage(j->sim, dir);
                if (harmed && df_ckpt_takeover(c, &t, NULL) != DF_ECORRUPT)
                        sim_fail(j->seed, "a damaged checkpoint is accepted");
                df_ckpt_close(c);
                keep_epoch = true;
        }
        if (x == 1) /* an older state put back */
                harmed = df_sim_ckpt_fallback(j->sim, dir);
        else if (harmed)
                df_sim_ckpt_lose(j->sim, dir, keep_epoch);
        return harmed;
}

/* Told so, a session rebuilds from the log (K10), whatever the moment: also when some outputs of a
 * checkpoint are in the log and others are not. An older state put back goes on by itself. */
static void lose(struct job *j, uint32_t p, struct totals *totals)
{
        job_close_task(j, p);
        df_sim_faults_pause(j->sim, true);
        if (harm(j, p)) {
                totals->lost++;
                if (sealed_k(j->sim, "rollups", p) > 0 &&
                    df_sim_ckpt_k(j->sim, j->tasks[p].dir) == 0)
                        open_unaware(j, p);
                if (df_sim_ckpt_k(j->sim, j->tasks[p].dir) == 0)
                        j->tasks[p].recover = true;
        }
        df_sim_faults_pause(j->sim, false);
}

static void disturb(struct job *j, struct totals *t)
{
        const uint32_t p = (uint32_t)df_sim_random_below(j->random, j->task_count);
        const uint64_t x = df_sim_random_below(j->random, 1000);

        if (x < 120) {
                job_plan_fault(j);
        } else if (x < 200) {
                job_plan_step_fault(j);
        } else if (x < 210) {
                second_owner(j, p);
        } else if (x < 214) {
                lose(j, p, t);
        }
}

/* ---- the properties ---- */

struct run {
        struct df_sim *sim;
        uint64_t generation; /* of the topic `events` */
        struct df_sim_random random;
        struct job job;
        struct feed feed;
        struct served served;
        struct df_buf final;
};

static void make_topics(struct df_sim *sim, const struct world *w)
{
        static const char *const topics[] = {"events", "late", "quarantine", "rollups"};
        struct df_log *log = df_sim_log_open(sim, 1);

        for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++)
                df_check(df_log_topic_create(log, topics[i], w->partitions, NULL) == 0);
        df_log_close(log);
}

static void run_open(struct run *r, const struct world *w, uint64_t salt, bool verbose)
{
        *r = (struct run){.sim = df_sim_create(w->seed ^ salt)};
        df_sim_random_init(&r->random, w->seed * 31 + salt);
        make_topics(r->sim, w);
        r->generation = df_sim_generation(r->sim, "events");
        feed_open(&r->feed, w, r->sim);
        job_init(&r->job, w->seed, r->sim, &r->random, 0);
        for (uint32_t p = 0; p < w->partitions; p++) {
                struct df_task_config config;

                world_task_config(w, p, &config);
                config.source.generation = r->generation;
                job_add(&r->job, &config);
        }
        r->job.to = verbose ? stdout : NULL;
        if (verbose)
                df_sim_set_trace(r->sim, print_line, NULL);
}

static void run_finish(struct run *r, size_t max_records)
{
        for (uint32_t p = 0; p < r->job.task_count; p++)
                job_finish(&r->job, p, max_records);
}

static void run_check(struct run *r, const struct world *w, const struct oracle *o)
{
        for (uint32_t p = 0; p < r->job.task_count; p++)
                if (df_sim_ckpt_count(r->sim, r->job.tasks[p].dir) > 2)
                        sim_fail(w->seed, "%s keeps old checkpoints (K7)", r->job.tasks[p].dir);
        served_release(&r->served);
        df_buf_clear(&r->final);
        served_read(&r->served, w, r->sim, r->generation);
        served_check(&r->served, o);
        served_final_text(&r->served, &r->final);
}

static void run_close(struct run *r)
{
        job_close(&r->job);
        feed_close(&r->feed);
        served_release(&r->served);
        df_buf_release(&r->final);
        df_sim_destroy(r->sim);
}

static void same_final(const struct world *w, const struct run *a, const struct run *b,
                       const char *what)
{
        if (!df_bytes_eq(df_buf_bytes(&a->final), df_buf_bytes(&b->final)))
                sim_fail(w->seed, "final cells differ: %s\n--- one\n%.*s--- other\n%.*s", what,
                         (int)a->final.len, (const char *)a->final.data, (int)b->final.len,
                         (const char *)b->final.data);
}

/* Crashes and faults wherever the seed says. */
static void run_disturbed(struct run *r, struct totals *t)
{
        for (bool more = true; more;) {
                for (uint64_t n = df_sim_random_below(&r->random, 3); more && n > 0; n--)
                        more = feed_one(&r->feed);
                for (uint64_t n = df_sim_random_below(&r->random, 4); n > 0; n--) {
                        disturb(&r->job, t);
                        job_act(&r->job);
                }
        }
        for (int i = 0; i < 10; i++) {
                disturb(&r->job, t);
                job_act(&r->job);
        }
        run_finish(r, 1 + df_sim_random_below(&r->random, 40));
}

/* Every state directory lost at the end: the rebuilt one serves the same (K10), and goes on. */
static void run_rebuilt(struct run *r, const struct world *w, const struct oracle *o)
{
        struct run before = {.final = r->final};

        r->final = (struct df_buf){0};
        for (uint32_t p = 0; p < w->partitions; p++) {
                job_close_task(&r->job, p);
                df_sim_ckpt_lose(r->sim, r->job.tasks[p].dir,
                                 df_sim_random_chance(&r->random, 500));
                r->job.tasks[p].recover = true;
        }
        for (int i = 0; i < 6; i++) {
                job_plan_fault(&r->job);
                job_act(&r->job);
        }
        run_finish(r, 1 + df_sim_random_below(&r->random, 20));
        run_check(r, w, o);
        same_final(w, &before, r, "state directories lost and rebuilt from the log (K10)");
        df_buf_release(&before.final);
}

/* Everything is there before the first poll; one cut, at the end (or after each record). */
static void run_undisturbed(struct run *r, bool cut_each_record)
{
        while (feed_one(&r->feed))
                ;
        for (uint32_t p = 0; cut_each_record && p < r->job.task_count; p++) {
                size_t n = 1;

                while (n > 0 && job_poll(&r->job, p, 1, &n))
                        (void)job_commit(&r->job, p);
        }
        run_finish(r, 1000);
}

/* T2: one producer with a clock a day ahead harms only its own events. */
static void check_ahead(const struct oracle *with, const struct world *w)
{
        struct world control;
        struct oracle o;
        struct run r;
        size_t k = 0;

        world_make_without_ahead(&control, w->seed);
        oracle_recount(&o, &control);
        for (size_t i = 0; i < with->event_count; i++) {
                const struct oracle_event *e = &with->events[i];

                if (e->ahead && e->outcome != AD_CLOCK && e->outcome != AD_INVALID)
                        sim_fail(w->seed, "an event a day ahead is %s",
                                 ad_reason_info(e->outcome)->code);
                if (e->ahead)
                        continue;
                if (k == o.event_count || o.events[k].offset != e->offset ||
                    o.events[k].outcome != e->outcome)
                        sim_fail(w->seed, "a clock a day ahead changed event %u/%" PRIu64 "/%u",
                                 e->partition, e->offset, e->index);
                k++;
        }
        run_open(&r, &control, 5, false);
        run_undisturbed(&r, false);
        run_check(&r, &control, &o);
        run_close(&r);
        oracle_release(&o);
        world_release(&control);
}

static void add_totals(struct totals *t, const struct run *r, const struct oracle *o)
{
        t->seeds++;
        t->takeovers += r->job.takeovers;
        t->crashes += r->job.crashes;
        t->commits += r->job.commits;
        t->steps += r->job.steps;
        for (size_t k = 0; k < DF_SIM_FAULT_KINDS; k++)
                t->faults += df_sim_struck(r->sim, (enum df_sim_fault_kind)k);
        for (size_t i = 0; i < o->event_count; i++)
                t->outcomes[o->events[i].outcome]++;
        for (size_t i = 0; i < o->cell_count; i++)
                t->folded += o->cells[i].is_other;
}

static void print_totals(const struct totals *t)
{
        printf("%" PRIu64 " seeds: %" PRIu64 " takeovers, %" PRIu64 " crashes, %" PRIu64
               " faults, %" PRIu64 " commits, %" PRIu64 " steps, %" PRIu64
               " state directories lost\nevents:",
               t->seeds, t->takeovers, t->crashes, t->faults, t->commits, t->steps, t->lost);
        for (uint32_t i = 0; i < DF_OUTCOMES_MAX; i++)
                if (t->outcomes[i])
                        printf(" %" PRIu64 " %s", t->outcomes[i], ad_reason_info(i)->code);
        printf("; %" PRIu64 " cells folded\n", t->folded);
}

static void run_seed(void *arg, uint64_t seed)
{
        const struct options *opt = arg;
        struct world w;
        struct oracle o;
        struct run disturbed, whole, each;

        sim_seed("sim_main", seed);
        if (opt->verbose)
                printf("seed %" PRIu64 "\n", seed);
        world_make(&w, seed);
        oracle_recount(&o, &w);

        run_open(&disturbed, &w, 1, opt->verbose);
        run_disturbed(&disturbed, opt->totals);
        run_check(&disturbed, &w, &o);

        run_open(&whole, &w, 2, false);
        run_undisturbed(&whole, false);
        run_check(&whole, &w, &o);
        same_final(&w, &disturbed, &whole, "crashes against one cut (W6)");

        if (seed % 4 == 0) {
                run_open(&each, &w, 3, false);
                run_undisturbed(&each, true);
                run_check(&each, &w, &o);
                same_final(&w, &each, &whole, "a cut after each record against one (W5, W6)");
                run_close(&each);
        }
        if (seed % 4 == 1)
                run_rebuilt(&disturbed, &w, &o);
        if (seed % 4 == 2)
                check_ahead(&o, &w);
        add_totals(opt->totals, &disturbed, &o);
        run_close(&disturbed);
        run_close(&whole);
        oracle_release(&o);
        world_release(&w);
}

static int usage(void)
{
        (void)fputs("usage: sim_main --seeds N [--first S] | --seed S [--steps] | "
                    "--regressions FILE\n",
                    stderr);
        return 64;
}

int main(int argc, char **argv)
{
        struct totals t = {0};
        struct options opt = {.totals = &t};
        uint64_t first = 1, count = 0;

        for (int i = 1; i < argc; i++) {
                const char *value = i + 1 < argc ? argv[i + 1] : NULL;

                if (strcmp(argv[i], "--steps") == 0) {
                        opt.verbose = true;
                        continue;
                }
                if (!value)
                        return usage();
                if (strcmp(argv[i], "--seeds") == 0) {
                        count = strtoull(value, NULL, 10);
                } else if (strcmp(argv[i], "--first") == 0) {
                        first = strtoull(value, NULL, 10);
                } else if (strcmp(argv[i], "--seed") == 0) {
                        first = strtoull(value, NULL, 10);
                        count = 1;
                } else if (strcmp(argv[i], "--regressions") == 0) {
                        sim_each_seed(value, run_seed, &opt);
                } else {
                        return usage();
                }
                i++;
        }
        if (count == 0 && t.seeds == 0)
                return usage();
        for (uint64_t s = first; s < first + count; s++)
                run_seed(&opt, s);
        print_totals(&t);
        return 0;
}
