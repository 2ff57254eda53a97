/* exchange_main.c - the toy graph (toy.h) under crashes: its result equals a naive recount.
 *
 *   exchange_main [--kafka] --seeds N [--first S] | --seed S [--steps] | --regressions FILE
 *
 * --kafka: on the model broker, by workers of a group (kworker.h). Stage two then reads a topic
 * that others write in transactions, several at a time: offsets have holes, also at the end.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/job.h"
#include "tests/sim/kworker.h"
#include "tests/sim/toy.h"

#define CLICKS_PARTITIONS_MAX 3
#define WRITER 15 /* the process that writes clicks */
#define CAMPAIGNS 9
#define RECORDS_MAX 200

static const struct df_operator_ops *const stage_one[] = {&toy_rekey};
static const struct df_operator_ops *const stage_two[] = {&toy_collect, &toy_count};

struct graph {
        uint64_t seed;
        struct df_sim *sim;
        struct df_sim_random random;
        uint32_t clicks_partitions;
        struct toy_params params;
        struct job job;
        bool kafka; /* then k, not job */
        struct kworld k;
        uint64_t recount[CAMPAIGNS]; /* every click, as it is appended */
        struct df_log *log;          /* of WRITER */
        struct df_log_writer *clicks;
};

static void print_line(void *arg, const char *line)
{
        (void)arg;
        printf("  %s\n", line);
}

static void add_stage(struct graph *g, const char *topic, uint32_t partitions,
                      const struct df_operator_ops *const *chain, size_t length,
                      struct df_output_config output)
{
        struct df_task_config c = {
                .source = {.generation = df_sim_generation(g->sim, topic)},
                .partitions = partitions,
                .chain = chain,
                .chain_length = length,
                .params = &g->params,
                .outputs = {output},
                .output_count = 1,
                .config = 1,
                .binary_version = "sim",
        };

        (void)snprintf(c.source.stream, sizeof(c.source.stream), "%s", topic);
        for (uint32_t p = 0; p < partitions; p++) {
                c.source.partition = p;
                if (g->kafka)
                        g->k.tasks[g->k.task_count++] = c;
                else
                        job_add(&g->job, &c);
        }
}

struct options {
        bool verbose, kafka;
        uint64_t crashes;
        struct kcounts counts;
};

static void graph_open(struct graph *g, uint64_t seed, struct options *opt)
{
        uint32_t q;

        *g = (struct graph){.seed = seed, .kafka = opt->kafka, .sim = df_sim_create(seed)};
        g->k = (struct kworld){.seed = seed, .sim = g->sim, .counts = &opt->counts};
        df_sim_random_init(&g->k.random, seed * 31 + 11);
        df_sim_random_init(&g->random, seed);
        g->clicks_partitions = 1 + (uint32_t)df_sim_random_below(&g->random, CLICKS_PARTITIONS_MAX);
        q = g->params.exchange_partitions = 1 + (uint32_t)df_sim_random_below(&g->random, 4);
        g->log = g->kafka ? df_sim_kafka_log_open(g->sim, WRITER) : df_sim_log_open(g->sim, WRITER);
        df_check(df_log_topic_create(g->log, "clicks", g->clicks_partitions, NULL) == 0);
        df_check(df_log_topic_create(g->log, "by-campaign", q, NULL) == 0);
        df_check(df_log_topic_create(g->log, "counts", q, NULL) == 0);
        df_check(df_log_writer_open(g->log, "clicks", &g->clicks, NULL) == 0);
        job_init(&g->job, seed, g->sim, &g->random, 0);
        add_stage(g, "clicks", g->clicks_partitions, stage_one, 1,
                  (struct df_output_config){"by-campaign", true, q});
        add_stage(g, "by-campaign", q, stage_two, 2, (struct df_output_config){"counts", false, q});
        g->k.to = g->job.to = opt->verbose ? stdout : NULL;
        if (opt->verbose)
                df_sim_set_trace(g->sim, print_line, NULL);
        if (g->kafka)
                kworld_open(&g->k);
}

static void graph_close(struct graph *g)
{
        if (g->kafka)
                kworld_close(&g->k);
        job_close(&g->job);
        df_log_writer_close(g->clicks);
        df_log_close(g->log);
        df_sim_destroy(g->sim);
}

static void click(struct graph *g)
{
        const uint64_t campaign = df_sim_random_below(&g->random, CAMPAIGNS);
        const char name[2] = {'c', (char)('0' + campaign)};
        struct df_append item = {
                .partition = (uint32_t)df_sim_random_below(&g->random, g->clicks_partitions),
                .value = df_bytes(name, sizeof(name))};

        df_sim_faults_pause(g->sim, true);
        df_check(df_log_append(g->clicks, &item, 1, NULL) == 0);
        df_sim_faults_pause(g->sim, false);
        g->recount[campaign]++;
}

/* The last total of each campaign, from every partition of counts, under K5 again. */
static void read_counts(struct graph *g, uint64_t totals[CAMPAIGNS])
{
        for (uint32_t p = 0; p < g->params.exchange_partitions; p++) {
                struct df_collector *collector = NULL;
                size_t count;
                const struct df_record *records = df_sim_records(g->sim, "counts", p, &count);

                df_check(df_collector_create(1u << 20, &collector, NULL) == 0);
                for (size_t i = 0; i < count; i++) {
                        struct df_collection c;
                        enum df_collect what;

                        df_check(df_collector_add(collector, &records[i], &what, &c, NULL) == 0);
                        if (what == DF_COLLECT_DAMAGED)
                                sim_fail(g->seed, "counts/%u: a damaged collection", p);
                        for (size_t k = 0; what == DF_COLLECT_COMPLETE && k < c.count; k++) {
                                struct df_bytes campaign;
                                uint64_t total;

                                df_check(toy_get_total(c.payloads[k], &campaign, &total));
                                if (toy_partition(campaign, g->params.exchange_partitions) != p)
                                        sim_fail(g->seed, "counts/%u: a campaign of another place",
                                                 p);
                                totals[campaign.data[1] - '0'] = total;
                        }
                }
                df_collector_destroy(collector);
        }
}

static void check(struct graph *g)
{
        uint64_t totals[CAMPAIGNS] = {0};

        read_counts(g, totals);
        for (size_t i = 0; i < CAMPAIGNS; i++)
                if (totals[i] != g->recount[i])
                        sim_fail(g->seed, "campaign c%zu: %" PRIu64 " clicks, recounted %" PRIu64,
                                 i, totals[i], g->recount[i]);
}

static void act(struct graph *g)
{
        if (g->kafka) {
                kworld_act(&g->k);
                return;
        }
        if (df_sim_random_chance(&g->random, 120))
                job_plan_fault(&g->job);
        if (df_sim_random_chance(&g->random, 80))
                job_plan_step_fault(&g->job);
        job_act(&g->job);
}

static void finish(struct graph *g)
{
        if (g->kafka) {
                kworld_finish(&g->k);
                (void)kworld_check(&g->k);
        }
        for (uint32_t t = 0; t < g->job.task_count; t++) /* stage one comes first */
                job_finish(&g->job, t, 1 + df_sim_random_below(&g->random, 50));
}

static void run_seed(void *arg, uint64_t seed)
{
        struct options *opt = arg;
        struct graph g;
        uint64_t clicks;

        sim_seed(opt->kafka ? "exchange_main --kafka" : "exchange_main", seed);
        graph_open(&g, seed, opt);
        clicks = df_sim_random_below(&g.random, RECORDS_MAX);
        while (clicks > 0) {
                for (uint64_t n = 1 + df_sim_random_below(&g.random, 5);
                     clicks > 0 && n > 0 && !g.k.down; n--, clicks--)
                        click(&g);
                for (uint64_t n = df_sim_random_below(&g.random, 8); n > 0; n--)
                        act(&g);
        }
        finish(&g);
        check(&g);
        opt->crashes += g.job.crashes;
        opt->counts.seeds++;
        graph_close(&g);
}

int main(int argc, char **argv)
{
        uint64_t first = 1, count = 0;
        struct options opt = {0};

        for (int i = 1; i < argc; i++) {
                const char *value = i + 1 < argc ? argv[i + 1] : "";

                if (strcmp(argv[i], "--steps") == 0)
                        opt.verbose = true;
                else if (strcmp(argv[i], "--kafka") == 0)
                        opt.kafka = true;
                else if (strcmp(argv[i], "--seeds") == 0)
                        count = strtoull(value, NULL, 10);
                else if (strcmp(argv[i], "--regressions") == 0)
                        sim_each_seed(value, run_seed, &opt);
                else if (strcmp(argv[i], "--first") == 0 || strcmp(argv[i], "--seed") == 0)
                        first = strtoull(value, NULL, 10);
                if (strcmp(argv[i], "--seed") == 0)
                        count = 1;
        }
        if (count == 0 && opt.counts.seeds == 0) {
                (void)fputs("usage: exchange_main [--kafka] --seeds N [--first S] | --seed S "
                            "[--steps] | --regressions FILE\n",
                            stderr);
                return 64;
        }
        for (uint64_t s = first; s < first + count; s++)
                run_seed(&opt, s);
        if (opt.kafka) {
                kcounts_print(&opt.counts);
                return kcounts_check(&opt.counts);
        }
        printf("%" PRIu64 " seeds, %" PRIu64 " crashes\n", opt.counts.seeds, opt.crashes);
        return 0;
}
