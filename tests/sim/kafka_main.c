/* kafka_main.c - the realtime job on the model broker (K1 to K9, K13), seed after seed.
 *
 *   kafka_main --seeds N [--first S]     seeds S to S + N - 1 (S = 1)
 *   kafka_main --seed S [--steps]        one seed; --steps prints every step and request
 *   kafka_main --regressions FILE        the seeds of a file that once found a bug
 *   kafka_main --reckless --seeds N      with a broken commit (df_sim_kafka_reckless): ends well
 *                                        only if one of the seeds shows a wrong number
 *
 * For each seed a world (world.h) is processed by two to four workers of a group (kworker.h) while
 * its records are still being appended. At the end the outputs, read as the serving view does, are
 * those of the recount (check.c); and whoever only adds up what read_committed shows counts the
 * same (kworld_check).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/kworker.h"
#include "tests/sim/served.h"

#define FEEDER 15 /* the process that appends events */

static const char *const outputs[AD_OUT_COUNT] = {
        [AD_OUT_LATE] = "late", [AD_OUT_QUARANTINE] = "quarantine", [AD_OUT_ROLLUPS] = "rollups"};

struct options {
        bool verbose, reckless;
        uint64_t wrong; /* seeds with a wrong number */
        struct kcounts counts;
};

static void print_line(void *arg, const char *line)
{
        (void)arg;
        printf("  %s\n", line);
}

/* ---- the events: no trouble on this network ---- */

struct feed {
        struct df_log *log;
        struct df_log_writer *writer;
        size_t next;
};

static void feed_open(struct feed *f, const struct world *w, struct df_sim *sim)
{
        *f = (struct feed){.log = df_sim_kafka_log_open(sim, FEEDER)};
        df_check(df_log_topic_create(f->log, "events", w->partitions, NULL) == 0);
        for (size_t i = 0; i < AD_OUT_COUNT; i++)
                df_check(df_log_topic_create(f->log, outputs[i], w->partitions, NULL) == 0);
        df_check(df_log_writer_open(f->log, "events", &f->writer, NULL) == 0);
}

static bool feed_one(struct feed *f, const struct world *w, struct df_sim *sim)
{
        const struct world_record *r = &w->records[f->next];
        struct df_append item = {0};

        if (f->next == w->record_count)
                return false;
        item.partition = r->partition;
        item.value = r->value;
        df_sim_faults_pause(sim, true);
        if (r->clock_restart)
                df_sim_clock_restart(sim);
        df_sim_set_now_ms(sim, r->append_ms);
        df_check(df_log_append(f->writer, &item, 1, NULL) == 0);
        df_sim_faults_pause(sim, false);
        f->next++;
        return true;
}

/* ---- the properties ---- */

static void check_served(const struct kworld *k, const struct world *w, const struct oracle *o)
{
        struct served v;

        served_read(&v, w, k->sim, df_sim_generation(k->sim, "events"));
        served_check(&v, o);
        served_release(&v);
}

/* ---- a seed ---- */

static void run_job(struct kworld *k, const struct world *w, struct feed *f)
{
        for (bool more = true; more && !k->refused;) {
                for (uint64_t n = df_sim_random_below(&k->random, 3); more && !k->down && n > 0;
                     n--)
                        more = feed_one(f, w, k->sim);
                for (uint64_t n = df_sim_random_below(&k->random, 6); n > 0; n--)
                        kworld_act(k);
        }
        for (int i = 0; i < 20; i++)
                kworld_act(k);
        kworld_finish(k);
}

static void run_seed(void *arg, uint64_t seed)
{
        struct options *opt = arg;
        struct world w;
        struct oracle o;
        struct feed f;
        struct kworld k = {.seed = seed, .counts = &opt->counts};

        sim_seed("kafka_main", seed);
        world_make(&w, seed);
        oracle_recount(&o, &w);
        k.sim = df_sim_create(seed ^ 0x6b61666b61);
        k.reckless = opt->reckless;
        df_sim_random_init(&k.random, seed * 31 + 7);
        if (opt->verbose) {
                k.to = stdout;
                df_sim_set_trace(k.sim, print_line, NULL);
        }
        feed_open(&f, &w, k.sim);
        for (uint32_t p = 0; p < w.partitions; p++) {
                world_task_config(&w, p, &k.tasks[p]);
                k.tasks[p].source.generation = df_sim_generation(k.sim, "events");
        }
        k.task_count = w.partitions;
        kworld_open(&k);
        run_job(&k, &w, &f);
        if (!kworld_check(&k))
                opt->wrong++;
        else if (!k.refused)
                check_served(&k, &w, &o);
        kworld_close(&k);
        df_log_writer_close(f.writer);
        df_log_close(f.log);
        df_sim_destroy(k.sim);
        oracle_release(&o);
        world_release(&w);
        opt->counts.seeds++;
}

static int usage(void)
{
        (void)fputs("usage: kafka_main [--reckless] --seeds N [--first S] | --seed S [--steps] | "
                    "--regressions FILE\n",
                    stderr);
        return 64;
}

int main(int argc, char **argv)
{
        struct options opt = {0};
        uint64_t first = 1, count = 0;

        for (int i = 1; i < argc; i++) {
                const char *value = i + 1 < argc ? argv[i + 1] : NULL;

                if (strcmp(argv[i], "--steps") == 0) {
                        opt.verbose = true;
                        continue;
                }
                if (strcmp(argv[i], "--reckless") == 0) {
                        opt.reckless = true;
                        continue;
                }
                if (!value)
                        return usage();
                if (strcmp(argv[i], "--seeds") == 0)
                        count = strtoull(value, NULL, 10);
                else if (strcmp(argv[i], "--regressions") == 0)
                        sim_each_seed(value, run_seed, &opt);
                else if (strcmp(argv[i], "--first") == 0 || strcmp(argv[i], "--seed") == 0)
                        first = strtoull(value, NULL, 10);
                else
                        return usage();
                if (strcmp(argv[i], "--seed") == 0)
                        count = 1;
                i++;
        }
        if (count == 0 && opt.counts.seeds == 0)
                return usage();
        for (uint64_t s = first; s < first + count && opt.wrong == 0; s++)
                run_seed(&opt, s);
        kcounts_print(&opt.counts);
        return opt.reckless ? opt.wrong == 0 : kcounts_check(&opt.counts);
}
