/* migrate.c - the command (migrate.h). */
#include "jobs/adtally/migrate.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/kafka.h"
#include "jobs/adtally/command.h"
#include "jobs/realtime/tasks.h"

#define HOUR_MS 3600000LL

static const char usage[] =
        "adtally migrate: move from the embedded log to Kafka\n"
        "Usage: adtally migrate --to kafka:HOST:PORT,... [--from file:DIR] [--dry-run] [SETTINGS]\n"
        "\n"
        "Copies every topic with its generation, offsets, times and bytes, reads it back and "
        "compares,\n"
        "then commits where each task stands. Afterwards `adtally up --data DATA --log kafka:...` "
        "goes on\n"
        "exactly where the file log stopped; the file log stays, and is not written any more.\n"
        "`adtally up` must be stopped. Give the same settings as to `adtally up`. Interrupted, it "
        "is run\n"
        "again and goes on; until the last step the file log can be used as before.\n";
static const struct df_setting own[] = {
        {"from", DF_TEXT, NULL, .arg = "file:DIR", .help = "the log to move (default: --log)"},
        {"to", DF_TEXT, NULL, .arg = "kafka:HOST:PORT,...", .help = "the cluster to move it to"},
        {"dry-run", DF_BOOL, "false", .help = "show sizes and what would be done"},
};
static const char *const shared[] = {"data",
                                     "log",
                                     "kafka-prefix",
                                     "kafka-replication",
                                     "kafka.*",
                                     "instance",
                                     "checkpoint-store",
                                     "keep-log",
                                     "partitions",
                                     "quiet",
                                     NULL};

/* ---- places ---- */

static int open_from(struct ad_move *m, struct df_error *err)
{
        const char *from = df_config_text(m->config, "from"), *dir;
        char path[PATH_MAX];
        int rc = 0;

        if (!from && ad_log_is_file(m->config))
                from = df_config_text(m->config, "log");
        if (from && strncmp(from, "file:", 5) != 0)
                return df_fail(err, DF_EINVAL, "--from %s: expected file:DIR", from);
        dir = from ? from + 5 : path;
        if (!from)
                rc = ad_data_path(m->config, "log", path, err);
        /* Opening would make it, and a misspelt one would look empty. */
        if (rc == 0 && access(dir, F_OK) < 0)
                rc = df_fail(err, DF_ENOENT, "there is no file log %s", dir);
        return rc < 0 ? rc : ad_open_log_at(m->config, from, &m->from, err);
}

static int open_to(struct ad_move *m, struct df_error *err)
{
        const char *to = df_config_text(m->config, "to");
        int n;

        if (strncmp(to, "kafka:", 6) != 0)
                return df_fail(err, DF_EINVAL, "--to %s: expected kafka:HOST:PORT,...", to);
        n = snprintf(m->target, sizeof(m->target), "--log %s --kafka-prefix %s", to,
                     df_config_text(m->config, "kafka-prefix"));
        if (n < 0 || n >= (int)sizeof(m->target))
                return df_fail(err, DF_ELIMIT, "--to: longer than %d bytes", DF_FILELOG_MOVED_MAX);
        return ad_open_log_at(m->config, to, &m->to, err);
}

/* ---- retention (K10) ---- */

static int check_keep_log(const struct ad_move *m, struct df_error *err)
{
        int64_t need_ms = (df_config_integer(m->config, "dedupe-horizon") + 3) * HOUR_MS;

        if (df_config_ms(m->config, "keep-log") < need_ms)
                return df_fail(err, DF_EINVAL,
                               "--keep-log must be at least --dedupe-horizon + 3 h = %lld h (K10)",
                               (long long)(need_ms / HOUR_MS));
        return 0;
}

/* The brokers delete by the times that the records carry. */
static int check_retention(const struct ad_move *m, struct df_error *err)
{
        int64_t keep_ms = df_config_ms(m->config, "keep-log");

        for (size_t i = 0; i < m->topic_count; i++)
                for (uint32_t p = 0; p < m->topics[i].info.partitions; p++) {
                        const struct ad_move_part *part = &m->topics[i].parts[p];
                        int64_t age_ms = m->now_ms - part->oldest_ms;

                        if (part->records > 0 && age_ms >= keep_ms)
                                return df_fail(
                                        err, DF_EINVAL,
                                        "%s/%u holds records of %lld h ago, Kafka would delete "
                                        "them after --keep-log = %lld h: migrate with --keep-log "
                                        "%lldh, lower the topics' retention.ms later (K10)",
                                        m->topics[i].info.name, p, (long long)(age_ms / HOUR_MS),
                                        (long long)(keep_ms / HOUR_MS),
                                        (long long)(age_ms / HOUR_MS + 24));
                }
        return 0;
}

/* ---- what is said ---- */

static void print_table(const struct ad_move *m, const char *equal)
{
        printf("%-32s %10s %12s %16s  %s\n", "topic", "partitions", "records", "bytes",
               "digest equal");
        for (size_t i = 0; i < m->topic_count; i++) {
                const struct ad_move_topic *t = &m->topics[i];
                uint64_t records = 0, bytes = 0;

                for (uint32_t p = 0; p < t->info.partitions; p++) {
                        records += t->parts[p].records;
                        bytes += t->parts[p].bytes;
                }
                printf("%-32s %10u %12" PRIu64 " %16" PRIu64 "  %s\n", t->info.name,
                       t->info.partitions, records, bytes, equal);
        }
}

static void print_plan(const struct ad_move *m)
{
        print_table(m, "-");
        for (size_t i = 0; i < m->topic_count; i++)
                if (m->topics[i].begun)
                        printf("%s: a copy is begun there, it would be gone on with\n",
                               m->topics[i].info.name);
        printf("would copy this to %s, compare, and commit where each task stands\n", m->target);
}

static void say_moved(const struct ad_move *m, const char *how)
{
        printf("%s. Start now: adtally up --data %s %s\n", how, df_config_text(m->config, "data"),
               m->target);
}

/* ---- the steps ---- */

static bool all_finished(const struct ad_move *m)
{
        for (size_t i = 0; i < m->topic_count; i++)
                if (!m->topics[i].finished)
                        return false;
        return true;
}

/* An earlier run came to its mark: is anything left of it? */
static int look_moved(struct ad_move *m, bool *ret_done, struct df_error *err)
{
        char to[DF_FILELOG_MOVED_MAX + 1];
        int rc = df_filelog_moved(m->from, to, err);

        *ret_done = false;
        if (rc < 0 || !to[0])
                return rc;
        rc = ad_move_look(m, err);
        if (rc == 0 && !m->topics[m->topic_count - 1].begun)
                return df_fail(err, DF_ESCHEMA,
                               "this file log was moved already, with %.300s: what is there is no "
                               "copy of it",
                               to);
        *ret_done = rc == 0 && all_finished(m);
        df_filelog_finish_move(m->from);
        return rc;
}

static int move(struct ad_move *m, struct df_error *err)
{
        int rc = ad_move_settle(m, err);

        if (rc == 0) /* what it appended is part of the log */
                rc = ad_move_scan(m, err);
        if (rc == 0)
                rc = check_retention(m, err);
        if (rc == 0)
                rc = ad_move_look(m, err);
        if (rc == 0)
                rc = ad_move_copy(m, err);
        if (rc == 0)
                rc = ad_move_compare(m, err);
        if (rc == 0)
                rc = ad_move_switch(m, err);
        if (rc == 0) {
                print_table(m, "yes");
                say_moved(m, "moved");
        }
        return rc;
}

static int show(struct ad_move *m, struct df_error *err)
{
        int rc = ad_move_scan(m, err);

        if (rc == 0)
                rc = check_retention(m, err);
        if (rc == 0)
                rc = ad_move_look(m, err);
        if (rc == 0)
                print_plan(m);
        return rc;
}

static int run(struct ad_move *m, int *lock_fd, struct df_error *err)
{
        bool done = false;
        int rc = check_keep_log(m, err);

        if (rc == 0)
                rc = open_from(m, err);
        if (rc == 0)
                rc = open_to(m, err);
        if (rc == 0)
                rc = ad_move_topics(m, err);
        if (rc == 0)
                rc = look_moved(m, &done, err);
        if (rc == 0 && done) {
                say_moved(m, "this file log is moved already; nothing is left to do");
                return 0;
        }
        if (rc == 0)
                rc = ad_command_lock_data(m->config, lock_fd, err);
        if (rc == DF_EFENCED)
                return df_fail(err, rc, "%s is in use: stop `adtally up` first",
                               df_config_text(m->config, "data"));
        if (rc == 0)
                rc = ad_move_lock(m, err);
        if (rc < 0)
                return rc;
        rc = df_config_bool(m->config, "dry-run") ? show(m, err) : move(m, err);
        /* A broker that is gone for a while, a signal: nothing is half done. */
        return rc == DF_EAGAIN ? df_wrap(err, "go on by running it again") : rc;
}

static void release(struct ad_move *m, int lock_fd)
{
        for (size_t i = 0; i < m->topic_count; i++) {
                df_log_writer_close(m->topics[i].writer);
                free(m->topics[i].parts);
        }
        free(m->topics);
        free(m->positions);
        ad_tasks_destroy(m->tasks);
        df_log_close(m->to);
        df_log_close(m->from);
        if (lock_fd >= 0)
                close(lock_fd);
}

int ad_command_migrate(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        struct ad_move m = {.now_ms = df_wall_ms()};
        int code, rc, lock_fd = -1;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        if (l.arg_count > 0 || !df_config_text(l.config, "to")) {
                ad_command_release(&l);
                return ad_command_usage("migrate", "expected --to kafka:HOST:PORT,...");
        }
        m.config = l.config;
        m.quiet = df_config_bool(l.config, "quiet");
        rc = df_process_start("migrate", false, &err);
        if (rc == 0)
                rc = run(&m, &lock_fd, &err);
        release(&m, lock_fd);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("migrate", &err) : DF_EXIT_OK;
}
