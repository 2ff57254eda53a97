/* recover.c - `adtally recover`: the way out of every refusal of a partition (K10, K11), and of a
 * clock that jumped (T2). Nothing is deleted: what is replaced is renamed and kept. */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "df/rocksdb.h"
#include "df/task.h"
#include "jobs/adtally/command.h"
#include "jobs/common/places.h"
#include "jobs/ingest/pack.h"

static const char usage[] =
        "adtally recover: mend a refused partition, or a clock that jumped\n"
        "Usage: adtally recover --partition N                    its checkpoints, and what is "
        "wrong\n"
        "       adtally recover --partition N --from checkpoint  go back to the newest intact one\n"
        "       adtally recover --partition N --from log         rebuild its state from the raw "
        "log\n"
        "       adtally recover --clock                          accept this machine's clock as it "
        "is\n\n"
        "--dry-run tells what would be done. Numbers stay exact: what the log holds is counted "
        "again up\n"
        "to where the last seal was, with outputs suppressed, and then goes on (K10). A running "
        "`adtally\n"
        "up` takes the partition over again by itself; the other partitions never stop. --clock "
        "needs\n"
        "`adtally up` to be stopped.\n";
static const struct df_setting own[] = {
        {"topic", DF_TEXT, AD_TOPIC_EVENTS, .arg = "NAME", .help = "the partition's topic"},
        {"partition", DF_INTEGER, "-1", -1, DF_PARTITIONS_MAX - 1, .arg = "N", .help = "which one"},
        {"from", DF_CHOICE, NULL, .choices = "checkpoint|log", .help = "what to recover from"},
        {"clock", DF_BOOL, "false", .help = "restart the maxima of append and receive time"},
        {"dry-run", DF_BOOL, "false", .help = "change nothing"},
};
static const char *const shared[] = {
        "data", "log", "kafka-prefix", "kafka.*", "instance", "checkpoint-store", NULL};

static int print_checkpoint(void *arg, const struct df_rocksdb_ckpt_info *i, struct df_error *err)
{
        size_t *count = arg;

        (void)err;
        (*count)++;
        printf("%s k=%" PRIu64 " epoch=%" PRIu64 " %zu files, %" PRIu64 " bytes: %s%s%s\n", i->name,
               i->k, i->epoch, i->files, i->bytes,
               i->verified ? "intact" : "DAMAGED: ", i->verified ? "" : i->problem,
               i->is_current ? " (current)" : "");
        return 0;
}

/* A running realtime job looks at these files about twice a second. */
static int ask_for_takeover(const struct df_config *c, struct df_error *err)
{
        char path[PATH_MAX], store[PATH_MAX];
        int rc = ad_data_path(c, "run", path, err);

        if (rc == 0)
                rc = df_mkdirs(path, err);
        if (rc == 0)
                rc = ad_data_path(c, AD_RECOVERED_FILE, path, err);
        if (rc == 0)
                rc = df_write_file(path, df_bytes("", 0), false, err);
        if (rc == 0)
                rc = ad_store(c, store, err);
        if (rc == 0 && *store) {
                if (snprintf(path, sizeof(path), "%s/" AD_RECOVERED_STORE_FILE, store) >=
                    (int)sizeof(path))
                        return df_fail(err, DF_EINVAL, "%s: the path is too long", store);
                rc = df_write_file(path, df_bytes("", 0), false, err);
        }
        return rc;
}

/* ---- one partition ---- */

struct place {
        const char *topic;
        uint32_t partition;
        bool dry_run, kafka;
        char dir[PATH_MAX], store[PATH_MAX], mark[PATH_MAX];
        struct df_committed committed; /* on Kafka */
};

static const char *group_of(const char *topic)
{
        return strcmp(topic, AD_TOPIC_RUNS) == 0 ? AD_GROUP_BOOKS : AD_GROUP_REALTIME;
}

static int find_place(const struct df_config *c, struct place *ret, struct df_error *err)
{
        struct df_log *log = NULL;
        int rc;

        ret->topic = df_config_text(c, "topic");
        ret->partition = (uint32_t)df_config_integer(c, "partition");
        ret->dry_run = df_config_bool(c, "dry-run");
        ret->kafka = !ad_log_is_file(c);
        rc = ad_instance_check(df_config_text(c, "instance"), err);
        if (rc == 0)
                rc = ad_store_check(c, err);
        if (rc == 0)
                rc = ad_state_dir(c, ret->topic, ret->partition, ret->dir, err);
        if (rc == 0)
                rc = ad_store_dir(c, ret->topic, ret->partition, ret->store, err);
        if (rc == 0)
                rc = ad_rebuild_mark(c, ret->topic, ret->partition, ret->mark, err);
        if (rc < 0 || !ret->kafka || !df_config_text(c, "from"))
                return rc;
        rc = ad_open_log(c, &log, err);
        if (rc == 0)
                rc = df_kafka_committed(log, group_of(ret->topic), ret->topic, ret->partition,
                                        &ret->committed, err);
        df_log_close(log);
        return rc;
}

static int list(const struct place *p, struct df_error *err)
{
        const char *const dirs[] = {p->dir, p->store};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < 2; i++) {
                size_t count = 0;

                if (!dirs[i][0])
                        continue;
                printf("%s:\n", dirs[i]);
                rc = df_rocksdb_ckpt_list(dirs[i], true, print_checkpoint, &count, err);
                if (rc == DF_ENOENT)
                        rc = 0;
                if (rc == 0 && count == 0)
                        printf("no checkpoint\n");
        }
        return rc;
}

static int from_checkpoint(const struct place *p, struct df_error *err)
{
        struct df_rocksdb_fallback f;
        struct df_ckpt_ref wanted;
        int rc;

        if (!p->kafka)
                rc = df_rocksdb_ckpt_fallback(p->dir, p->dry_run, &f, err);
        else if (df_committed_ref(&p->committed, &wanted))
                rc = df_rocksdb_ckpt_fallback_at(p->dir, p->store[0] ? p->store : NULL, &wanted,
                                                 p->dry_run, &f, err);
        else
                rc = df_fail(err, DF_ESCHEMA,
                             "%s/%u: the committed offset names no checkpoint of this program "
                             "(\"%.160s\"): put the offset back, or use --from log",
                             p->topic, p->partition, p->committed.metadata);
        if (rc < 0)
                return rc;
        printf("%s: %s\n%s %s (k=%" PRIu64 ")\n", f.from[0] ? f.from : "CURRENT", f.problem,
               p->dry_run ? "would go back to" : "goes back to", f.to, f.k);
        return 0;
}

/* What there is of the state goes aside; a directory that was lost whole is no obstacle. */
static int set_aside(const struct place *p, struct df_error *err)
{
        char moved[4096];
        int rc = access(p->dir, F_OK) == 0 ? df_rocksdb_ckpt_reset(p->dir, p->dry_run, moved, err)
                                           : DF_ENOENT;

        if (rc == 0)
                printf("%s %s to %s; its state %s rebuilt from the log\n",
                       p->dry_run ? "would move" : "moved", p->dir, moved,
                       p->dry_run ? "would be" : "is");
        if (rc != DF_ENOENT)
                return rc;
        printf("%s holds no state; it %s rebuilt from the log\n", p->dir,
               p->dry_run ? "would be" : "is");
        return 0;
}

static int from_log(const struct place *p, struct df_error *err)
{
        char text[DF_COMMITTED_TEXT_MAX] = "", *slash;
        char parent[PATH_MAX];
        struct df_ckpt_ref ref;
        int rc = set_aside(p, err);

        if (rc < 0 || p->dry_run)
                return rc;
        if (p->store[0] && df_committed_ref(&p->committed, &ref))
                rc = df_rocksdb_ckpt_set_aside(p->store, ref.name, err);
        if (p->kafka)
                df_committed_text(&p->committed, text);
        (void)snprintf(parent, sizeof(parent), "%s", p->mark);
        slash = strrchr(parent, '/');
        *slash = '\0';
        if (rc == 0 || rc == DF_ENOENT)
                rc = df_mkdirs(parent, err);
        return rc < 0 ? rc : df_write_file(p->mark, df_bytes_str(text), true, err);
}

static int recover_partition(const struct df_config *c, struct df_error *err)
{
        const char *from = df_config_text(c, "from");
        struct place *p = calloc(1, sizeof(*p));
        int rc;

        if (!p)
                return df_fail(err, DF_ENOMEM, "recover");
        rc = find_place(c, p, err);
        if (rc == 0 && !from)
                rc = list(p, err);
        else if (rc == 0)
                rc = strcmp(from, "log") == 0 ? from_log(p, err) : from_checkpoint(p, err);
        if (rc == 0 && from && !p->dry_run)
                rc = ask_for_takeover(c, err);
        free(p);
        return rc;
}

static void no_ticket(void *arg, void *ticket, int rc)
{
        (void)arg;
        (void)ticket;
        (void)rc;
}

/* T2: one record in every partition from which the maxima of append and receive time restart. */
static int recover_clock(const struct df_config *c, struct df_error *err)
{
        struct df_log *log = NULL;
        struct ad_pack_options o = {.partitions = (uint32_t)df_config_integer(c, "partitions"),
                                    .done = no_ticket};
        struct ad_pack *pack = NULL;
        int rc = ad_open_log(c, &log, err);

        if (rc == 0 && !ad_log_is_file(c))
                rc = df_fail(err, DF_EINVAL,
                             "on Kafka the brokers stamp the records: set their clocks right");
        if (rc == 0)
                rc = df_log_writer_open(log, AD_TOPIC_EVENTS, &o.writer, err);
        if (rc == DF_EFENCED)
                rc = df_fail(err, DF_EFENCED, "ingest is running: stop `adtally up` first");
        if (rc == 0) {
                int64_t last = df_filelog_last_append_ms(o.writer), now = df_wall_ms();

                printf("last append time %s this machine's clock by %" PRId64 " ms\n",
                       last > now ? "is ahead of" : "is behind",
                       last > now ? last - now : now - last);
        }
        if (rc == 0 && !df_config_bool(c, "dry-run")) {
                df_filelog_clock_restart(o.writer);
                rc = ad_pack_create(&o, &pack, err);
                if (rc == 0) {
                        ad_pack_clock_reset(pack, df_wall_ms());
                        ad_pack_flush(pack);
                        if (ad_pack_last_append_ms(pack) == 0)
                                rc = df_fail(err, DF_EIO, "append to %s", AD_TOPIC_EVENTS);
                }
                ad_pack_destroy(pack);
                if (rc == 0)
                        printf("the clock restarts at this machine's time; start `adtally up` "
                               "again\n");
        }
        df_log_writer_close(o.writer);
        df_log_close(log);
        return rc;
}

int ad_command_recover(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        bool clock, partition;
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        clock = df_config_bool(l.config, "clock");
        partition = df_config_integer(l.config, "partition") >= 0;
        if (l.arg_count > 0 || clock == partition) {
                ad_command_release(&l);
                return ad_command_usage("recover", "expected --partition N or --clock");
        }
        rc = clock ? recover_clock(l.config, &err) : recover_partition(l.config, &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("recover", &err) : DF_EXIT_OK;
}
