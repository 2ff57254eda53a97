/* log.c - `adtally log` and `adtally consumers`: what the embedded log holds, for whom, and whether
 * it is intact (L1, L2). All of it works beside running jobs: nothing here writes a topic. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "jobs/adtally/command.h"

static const char log_usage[] =
        "adtally log: the embedded log\n"
        "Usage: adtally log list                       topics, partitions, offsets\n"
        "       adtally log verify [TOPIC [PARTITION]] check every frame against its checksum\n";
static const char consumers_usage[] =
        "adtally consumers: readers that hold back deletion\n"
        "Usage: adtally consumers list             what each of them alone keeps on disk\n"
        "       adtally consumers drop TOPIC NAME  forget one (its lease would lapse after 7 "
        "days)\n";
static const char *const shared[] = {"data", "log", "kafka-prefix", "kafka.*", "quiet", NULL};

static int print_topic(void *arg, const struct df_topic_info *info)
{
        struct df_log *log = arg;

        printf("%s: %u partitions, generation %016" PRIx64 "\n", info->name, info->partitions,
               info->generation);
        for (uint32_t p = 0; p < info->partitions; p++) {
                uint64_t first, end;
                struct df_error err = {0};

                if (df_log_bounds(log, info->name, p, &first, &end, &err) == 0)
                        printf("  %u: offsets %" PRIu64 " to %" PRIu64 " (%" PRIu64 " records)\n",
                               p, first, end, end - first);
                else
                        printf("  %u: %s\n", p, err.text);
        }
        return 0;
}

static int print_usage(void *arg, const char *topic, const char *holder, uint64_t bytes)
{
        (void)arg;
        printf("%-24s %-28s %12" PRIu64 " bytes\n", topic, holder, bytes);
        return 0;
}

struct verification {
        struct df_log *log;
        const char *topic; /* NULL = all */
        int64_t partition; /* -1 = all */
        bool quiet;
        uint32_t done; /* partitions */
        int rc;        /* of the first damaged partition; the rest is verified too */
        struct df_error *err;
};

static void show(void *arg, uint64_t done, uint64_t all)
{
        struct df_progress *p = arg;

        p->all = all;
        df_progress_show(p, done);
}

static int verify_topic(void *arg, const struct df_topic_info *info)
{
        struct verification *v = arg;

        if (v->topic && strcmp(v->topic, info->name) != 0)
                return 0;
        for (uint32_t p = 0; p < info->partitions; p++) {
                struct df_progress progress;
                struct df_error err = {0};
                uint64_t records = 0;
                char what[96];
                int rc;

                if (v->partition >= 0 && v->partition != p)
                        continue;
                v->done++;
                (void)snprintf(what, sizeof(what), "%s/%u", info->name, p);
                df_progress_start(&progress, what, "bytes", 0, v->quiet);
                rc = df_filelog_verify(v->log, info->name, p, show, &progress, &records, &err);
                df_progress_end(&progress, progress.all);
                if (rc == 0) {
                        printf("%s: %" PRIu64 " records intact\n", what, records);
                        continue;
                }
                printf("%s: %s\n", what, err.text);
                if (v->rc == 0) {
                        v->rc = rc;
                        *v->err = err;
                }
        }
        return 0;
}

static int run_log(const struct ad_command_line *l, struct df_log *log, struct df_error *err)
{
        struct verification v = {
                .log = log,
                .topic = l->arg_count > 1 ? l->args[1] : NULL,
                .partition = -1,
                .quiet = df_config_bool(l->config, "quiet"),
                .err = err,
        };
        int rc;

        if (strcmp(l->args[0], "list") == 0)
                return df_log_topic_list(log, "", print_topic, log, err);
        if (df_kafka_is(log))
                return df_fail(err, DF_EINVAL,
                               "`adtally log verify` reads the file log's frames; on Kafka every "
                               "record is checked when it is read");
        if (l->arg_count > 2) {
                rc = df_parse_integer(l->args[2], &v.partition, err);
                if (rc < 0)
                        return rc;
        }
        rc = df_log_topic_list(log, "", verify_topic, &v, err);
        if (rc == 0 && v.done == 0 && v.topic)
                return df_fail(err, DF_ENOENT, "there is no topic %s%s%s; see `adtally log list`",
                               v.topic, l->arg_count > 2 ? " with a partition " : "",
                               l->arg_count > 2 ? l->args[2] : "");
        return rc < 0 ? rc : v.rc;
}

static int run_consumers(const struct ad_command_line *l, struct df_log *log, struct df_error *err)
{
        int rc;

        if (df_kafka_is(log))
                return df_fail(err, DF_EINVAL,
                               "consumers are registered with the file log alone; on Kafka ask "
                               "kafka-consumer-groups.sh --describe --all-groups");
        if (strcmp(l->args[0], "list") == 0)
                return df_filelog_usage(log, print_usage, NULL, err);
        rc = df_filelog_consumer_drop(log, l->args[1], l->args[2], err);
        if (rc == 0)
                printf("dropped consumer %s of %s\n", l->args[2], l->args[1]);
        return rc;
}

static int with_log(const char *command, struct ad_command_line *l,
                    int (*run)(const struct ad_command_line *, struct df_log *, struct df_error *))
{
        const char *data = df_config_text(l->config, "data");
        struct df_log *log = NULL;
        struct df_error err = {0};
        int rc = 0;

        /* Opening would make the directory, and a misspelt one would look like an empty log. */
        if (!df_config_text(l->config, "log") && access(data, F_OK) < 0)
                rc = df_fail(&err, DF_ENOENT, "there is no data directory %s", data);
        if (rc == 0)
                rc = ad_open_log(l->config, &log, &err);
        if (rc == 0)
                rc = run(l, log, &err);
        df_log_close(log);
        ad_command_release(l);
        return rc < 0 ? ad_command_fail(command, &err) : DF_EXIT_OK;
}

int ad_command_log(int argc, char **argv)
{
        struct ad_command_line l;
        int code;

        if (!ad_command_read(argc, argv, log_usage, NULL, 0, shared, &l, &code))
                return code;
        if (l.arg_count == 0 || l.arg_count > 3 ||
            (strcmp(l.args[0], "list") != 0 && strcmp(l.args[0], "verify") != 0) ||
            (strcmp(l.args[0], "list") == 0 && l.arg_count > 1)) {
                ad_command_release(&l);
                return ad_command_usage("log", "expected `list` or `verify [TOPIC [PARTITION]]`");
        }
        return with_log("log", &l, run_log);
}

int ad_command_consumers(int argc, char **argv)
{
        struct ad_command_line l;
        int code;

        if (!ad_command_read(argc, argv, consumers_usage, NULL, 0, shared, &l, &code))
                return code;
        if (l.arg_count == 0 || (strcmp(l.args[0], "list") == 0 && l.arg_count != 1) ||
            (strcmp(l.args[0], "drop") == 0 && l.arg_count != 3) ||
            (strcmp(l.args[0], "list") != 0 && strcmp(l.args[0], "drop") != 0)) {
                ad_command_release(&l);
                return ad_command_usage("consumers", "expected `list` or `drop TOPIC NAME`");
        }
        return with_log("consumers", &l, run_consumers);
}
