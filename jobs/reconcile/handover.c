/* handover.c - what one leader leaves to the next (job.h).
 *
 *   topic `runs`            which runs were posted, and which RunRequests they answer
 *   STORE/reconcile-<run>/  the state of a chain, a directory a partition
 *   STORE/reconcile-leader  the instance that led last
 *
 * Its own disk has what it knew when it led last. If another led since, the runs there, with what
 * was added up from their topics, may be of ends that are passed and of topics that were dropped
 * and made again. So they go: the states come from the store, sums from the topics. The next run is
 * whole: what the others posted since is not known here. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/kafka.h"
#include "df/trace.h"
#include "jobs/common/places.h"
#include "jobs/reconcile/job.h"

#define LEADER_FILE "reconcile-leader"

static int leader_path(const struct df_config *c, char *ret, size_t size, struct df_error *err)
{
        char store[PATH_MAX];
        int rc = ad_store(c, store, err);

        ret[0] = '\0';
        if (rc < 0 || !store[0])
                return rc;
        if (snprintf(ret, size, "%s/" LEADER_FILE, store) < (int)size)
                return 0;
        return df_fail(err, DF_EINVAL, "--checkpoint-store %s: the path is too long", store);
}

/* *ret_other: the store says that another instance led last. Nobody led with a store that says
 * nothing: then the runs here are as they were left. */
static int last_leader(const char *path, const char *instance, bool *ret_other,
                       struct df_error *err)
{
        struct df_buf b = {0};
        int rc = df_read_file(path, AD_INSTANCE_MAX, &b, err);

        *ret_other = rc == DF_ELIMIT ||
                     (rc == 0 && !df_bytes_eq(df_buf_bytes(&b), df_bytes_str(instance)));
        df_buf_release(&b);
        return rc == DF_ENOENT || rc == DF_ELIMIT ? 0 : rc;
}

static int forget_run(void *arg, const struct ad_replay *run, struct df_error *err)
{
        (void)arg;
        return ad_job_owns(run) ? df_remove_tree(run->dir, err) : 0;
}

static int take_runs(struct ad_job *j, bool *ret_other, struct df_error *err)
{
        const char *instance = df_config_text(j->config, "instance");
        char path[PATH_MAX];
        int rc = leader_path(j->config, path, sizeof(path), err);

        *ret_other = false;
        if (rc < 0 || !path[0])
                return rc;
        rc = last_leader(path, instance, ret_other, err);
        if (rc == 0 && *ret_other)
                rc = ad_replay_list(j->config, &ad_run_reconcile, forget_run, NULL, err);
        return rc == 0 ? df_write_file(path, df_bytes_str(instance), true, err) : rc;
}

int ad_handover_take(struct ad_job *j, struct df_error *err)
{
        bool kafka = df_kafka_is(j->logs.log), other = false, posted = false;
        uint64_t commands = 0;
        int rc = kafka ? take_runs(j, &other, err) : 0;

        if (rc == 0 && (kafka || !j->state.known))
                rc = ad_commands_handled(j->logs.log, &j->state.runs, &commands, &posted, err);
        if (rc < 0)
                return rc;
        if (commands > j->state.commands)
                j->state.commands = commands;
        if (other || posted)
                j->state.chain[0] = '\0';
        if (j->state.known && (other || posted))
                df_trace(DF_INFO, "lead", "another process led since: the next run is whole");
        return 0;
}

static bool is_chain(const char *name, const char **ret_id)
{
        size_t n = strlen(AD_TOPIC_RECONCILE_PREFIX);

        *ret_id = name + n;
        return strncmp(name, AD_TOPIC_RECONCILE_PREFIX, n) == 0 &&
               strlen(*ret_id) == AD_RUN_ID_MAX &&
               strspn(*ret_id, "0123456789abcdef") == AD_RUN_ID_MAX;
}

int ad_handover_each_chain(const struct df_config *c,
                           int (*fn)(void *arg, const char *id, struct df_error *err), void *arg,
                           struct df_error *err)
{
        struct dirent **names = NULL;
        char store[PATH_MAX];
        const char *id;
        int n, rc = ad_store(c, store, err);

        if (rc < 0 || !store[0])
                return rc;
        n = scandir(store, &names, NULL, alphasort);
        if (n < 0)
                return df_fail_errno(err, DF_EIO, "list %s", store);
        for (int i = 0; i < n; i++) {
                if (rc == 0 && is_chain(names[i]->d_name, &id))
                        rc = fn(arg, id, err);
                free(names[i]);
        }
        free(names);
        return rc;
}
