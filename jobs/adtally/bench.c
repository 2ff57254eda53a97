/* bench.c - `adtally bench`: which benchmarks there are, their children, and how results are
 * printed. */
#include "jobs/adtally/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "df/trace.h"

#define PREFIX_MAX 100

static const char usage[] =
        "adtally bench: measure what each stage costs on this machine\n"
        "Usage: adtally bench NAME [OPTIONS] [SETTINGS] [--json] [--results FILE]\n\n"
        "  operators  the whole chain alone, records from memory, one core\n"
        "  log        append and read back records with a checksum: what any job has at most\n"
        "  realtime   the job over a backlog in the log: dedupe, windows, checkpoints, rows\n"
        "  reconcile  raw events in segments: both rule sets, rows by cell and cause\n"
        "  ingest     POST /events until the log has acknowledged (--batch N events a request)\n"
        "  metrics    GET /metrics over a view of --events rows\n"
        "  freshness  everything: from receipt to a visible number, at --rate events a second\n\n"
        "Each makes its input itself, from --seed, and removes it, also after Ctrl-C. All but "
        "operators\n"
        "and reconcile take --log kafka:HOST:PORT: topics of a prefix that is drawn for the run, "
        "on a broker "
        "that has\n"
        "nothing else to do. Other settings are handed to the jobs. Compare ratios of one machine "
        "and one\n"
        "day, and run nothing else meanwhile: tests/bench/README.md.\n";
static const struct df_setting own[] = {
        {"events", DF_INTEGER, "0", 0, 1LL << 40, .help = "0 = 4 M; ingest 2 M, metrics 1 M rows"},
        {"seed", DF_INTEGER, "1", 1, INT64_MAX, .help = "of the input"},
        {"batch", DF_INTEGER, "500", 1, AD_BATCH_EVENTS_MAX, .help = "ingest: events a request"},
        {"connections", DF_INTEGER, "64", 1, 4096, .help = "ingest, metrics: clients"},
        {"users", DF_INTEGER, "0", 0, 100000000,
         .help = "ingest: different user ids, Zipf; 0 = events state none"},
        {"per-record", DF_INTEGER, "100", 1, AD_RECORD_EVENTS_MAX,
         .help = "operators, log, realtime, reconcile: events a log record"},
        {"campaigns", DF_INTEGER, "1000", 1, 10000000, .help = "different ones, Zipf"},
        {"ads", DF_INTEGER, "10", 1, 1000000, .help = "of each campaign"},
        {"countries", DF_INTEGER, "20", 1, 676, .help = "different ones"},
        {"event-rate", DF_INTEGER, "100000", 1, 1LL << 40,
         .help = "events in a second of simulated time: few spread them over days"},
        {"rate", DF_INTEGER, "20000", 0, 100000000,
         .help = "freshness: events a second; 0 = half of the most that is counted, found first"},
        {"senders", DF_INTEGER, "2", 1, AD_BENCH_SENDERS_MAX, .help = "freshness: clients"},
        {"probe", DF_INTEGER, "20", 3, 3600,
         .help = "freshness with --rate 0: seconds at full speed"},
        {"recompute", DF_BOOL, "false",
         .help = "freshness: reconcile runs beside it, each from the first event"},
        {"request-rate", DF_INTEGER, "0", 0, 10000000,
         .help = "ingest, metrics: requests a second; 0 = as fast as answers come"},
        {"seconds", DF_INTEGER, "20", 1, 86400,
         .help = "freshness, and metrics with --request-rate: how long"},
        {"results", DF_TEXT, NULL, .arg = "FILE",
         .help = "append the result as a line of JSON, whatever is printed"},
        {"work", DF_TEXT, NULL, .arg = "DIR", .help = "where data goes (default TMPDIR or /tmp)"},
};
static const char *const shared[] = {"log",
                                     "kafka-prefix",
                                     "kafka.*",
                                     "partitions",
                                     "workers",
                                     "http-threads",
                                     "dedupe-horizon",
                                     "cell-cap",
                                     "json",
                                     "quiet",
                                     NULL};

#define FOR_ALL "seed results work"
#define FOR_INPUT "campaigns ads countries event-rate per-record"
static const struct benchmark {
        const char *name;
        uint64_t events;
        bool kafka;
        const char *takes; /* of its own settings */
        int (*run)(struct ad_bench *b, struct df_error *err);
} benchmarks[] = {
        {"operators", 4000000, false, FOR_ALL " events " FOR_INPUT, ad_bench_operators},
        {"log", 4000000, true, FOR_ALL " events " FOR_INPUT, ad_bench_log},
        {"realtime", 4000000, true, FOR_ALL " events " FOR_INPUT, ad_bench_realtime},
        {"reconcile", 4000000, false, FOR_ALL " events " FOR_INPUT, ad_bench_reconcile},
        {"ingest", 2000000, true, FOR_ALL " events batch connections users request-rate",
         ad_bench_ingest},
        {"metrics", 1000000, true, FOR_ALL " events connections request-rate seconds",
         ad_bench_metrics},
        {"freshness", 0, true, FOR_ALL " rate seconds senders probe recompute", ad_bench_freshness},
};

void ad_bench_figure(struct ad_bench *b, const char *name, double value)
{
        df_check(b->figure_count < AD_FIGURES_MAX);
        (void)snprintf(b->figures[b->figure_count].name, AD_FIGURE_NAME_MAX, "%s", name);
        b->figures[b->figure_count++].value = value;
}

void ad_bench_main_figures(struct ad_bench *b, uint64_t events, int64_t elapsed_ns, int64_t cpu_ns,
                           uint64_t peak_rss_bytes)
{
        ad_bench_figure(b, "events", (double)events);
        ad_bench_figure(b, "events_per_s", (double)events * 1e9 / (double)elapsed_ns);
        ad_bench_figure(b, "cpu_ns_per_event", (double)cpu_ns / (double)events);
        ad_bench_figure(b, "peak_rss_bytes", (double)peak_rss_bytes);
}

/* ---- running one ---- */

static int run(const struct benchmark *m, const struct df_config *c, struct df_error *err)
{
        struct ad_bench b = {
                .config = c,
                .own = own,
                .own_count = sizeof(own) / sizeof(own[0]),
                .events = (uint64_t)df_config_integer(c, "events"),
                .seed = (uint64_t)df_config_integer(c, "seed"),
                .quiet = df_config_bool(c, "quiet"),
        };
        struct df_error removal = {0};
        int rc = ad_bench_place_make(&b, err);

        if (b.events == 0)
                b.events = m->events;
        if (rc == 0)
                rc = m->run(&b, err);
        if (rc == 0)
                rc = ad_bench_print(&b, m->name, err);
        if (ad_bench_place_remove(&b, rc == 0, &removal) < 0) {
                if (rc == 0)
                        return df_fail(err, removal.code, "%s", removal.text);
                fprintf(stderr, "adtally bench: %s\n", removal.text);
        }
        return rc;
}

static bool holds_word(const char *words, const char *word)
{
        size_t len = strlen(word);

        for (const char *p = strstr(words, word); p; p = strstr(p + 1, word))
                if ((p == words || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
                        return true;
        return false;
}

/* A flag that does nothing would be taken for one that did. */
static int check_own(const struct benchmark *m, const struct df_config *c, struct df_error *err)
{
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
                if (!holds_word(m->takes, own[i].name) && !df_config_is_default(c, own[i].name))
                        return df_fail(err, DF_EINVAL, "--%s is not for %s, which takes: %s",
                                       own[i].name, m->name, m->takes);
        if (!df_config_is_default(c, "probe") && df_config_integer(c, "rate") != 0)
                return df_fail(err, DF_EINVAL,
                               "--probe is for --rate 0, which looks for the rate; this one is "
                               "given");
        return 0;
}

static int choose(const struct ad_command_line *l, const struct benchmark **ret,
                  struct df_error *err)
{
        const char *log = df_config_text(l->config, "log");

        *ret = NULL;
        for (size_t i = 0; l->arg_count == 1 && i < sizeof(benchmarks) / sizeof(benchmarks[0]); i++)
                if (strcmp(benchmarks[i].name, l->args[0]) == 0)
                        *ret = &benchmarks[i];
        if (!*ret)
                return df_fail(err, DF_EINVAL,
                               "expected one of operators, log, realtime, ingest, metrics, "
                               "freshness");
        if (log && ad_log_is_file(l->config))
                return df_fail(err, DF_EINVAL,
                               "--log %s: a benchmark makes its file log itself, under --work; "
                               "without --log it does, and --log kafka:HOST:PORT is the other "
                               "choice",
                               log);
        if (log && !(*ret)->kafka)
                return df_fail(err, DF_EINVAL, "--log: %s has nothing to do with a log",
                               (*ret)->name);
        return check_own(*ret, l->config, err);
}

/* On Kafka a run has topics and a group of its own, whose names begin with what the caller chose:
 * the same command line once more, with the prefix of this run. */
static bool read_with_prefix(int argc, char **argv, struct ad_command_line *l, int *ret_exit)
{
        char flag[PREFIX_MAX];
        char **all = calloc((size_t)argc + 1, sizeof(*all));
        uint64_t random = 0;
        bool ok;

        if (!all || getrandom(&random, sizeof(random), 0) != sizeof(random)) {
                free(all);
                *ret_exit = DF_EXIT_SOFTWARE;
                return false;
        }
        (void)snprintf(flag, sizeof(flag), "--kafka-prefix=%.60s%012llx.",
                       df_config_is_default(l->config, "kafka-prefix")
                               ? "bench-"
                               : df_config_text(l->config, "kafka-prefix"),
                       (unsigned long long)random >> 16);
        memcpy(all, argv, (size_t)argc * sizeof(*all));
        all[argc] = flag;
        ad_command_release(l);
        ok = ad_command_read(argc + 1, all, usage, own, sizeof(own) / sizeof(own[0]), shared, l,
                             ret_exit);
        free(all);
        return ok;
}

int ad_command_bench(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        const struct benchmark *m = NULL;
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        if (!ad_log_is_file(l.config) && !read_with_prefix(argc, argv, &l, &code))
                return code;
        if (df_config_is_default(l.config, "log-level"))
                df_trace_level("error"); /* between lines of progress */
        rc = choose(&l, &m, &err);
        if (rc < 0) {
                ad_command_release(&l);
                return ad_command_usage("bench", "%s", err.text);
        }
        rc = df_process_start("bench", false, &err);
        if (rc == 0)
                rc = ad_command_hand_down_secrets(l.config, &err);
        if (rc == 0)
                rc = run(m, l.config, &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("bench", &err) : DF_EXIT_OK;
}
