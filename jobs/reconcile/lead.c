/* lead.c - which of the reconcile processes of a log makes the runs (job.h).
 *
 * The broker decides: all are members of one consumer group on the topic `commands`, which has one
 * partition, and whoever is assigned it leads. A thread follows the group, since a run takes the
 * main thread for hours.
 *
 * The group takes the partition from its member whenever any member comes or goes, and mostly gives
 * it back at once. So a leader that is asked for it is in doubt, and posts nothing, until the next
 * assignment says whose it is. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/kafka.h"
#include "df/trace.h"
#include "jobs/reconcile/job.h"

#define POLL_MS 200
#define RETRY_MS 1000

struct ad_lead {
        struct df_group *group;
        pthread_t thread;
        bool started;
        atomic_bool ending;
        _Atomic enum ad_lead_state state;
        struct df_error failed; /* of the thread, read after it ended */
};

static const char *const states[] = {
        [AD_LEAD_WAITS] = "waits",
        [AD_LEAD_LEADS] = "leads",
        [AD_LEAD_DOUBT] = "doubt",
        [AD_LEAD_LOST] = "lost",
};

enum ad_lead_state ad_lead_after(enum ad_lead_state s, enum df_group_change change, size_t assigned)
{
        bool had = s == AD_LEAD_LEADS || s == AD_LEAD_DOUBT;

        if (s == AD_LEAD_LOST)
                return s;
        switch (change) {
        case DF_GROUP_ASSIGN:
                return assigned ? AD_LEAD_LEADS : had ? AD_LEAD_LOST : AD_LEAD_WAITS;
        case DF_GROUP_REVOKE:
                return had ? AD_LEAD_DOUBT : AD_LEAD_WAITS;
        case DF_GROUP_LOST:
                return had ? AD_LEAD_LOST : AD_LEAD_WAITS;
        case DF_GROUP_NONE:
                break;
        }
        return s;
}

/* A change that takes the lead is not answered: the member would come back, and perhaps be given
 * the lead for a process that ends. */
static void follow(struct ad_lead *l, const struct df_group_event *e)
{
        enum ad_lead_state before = atomic_load(&l->state);
        enum ad_lead_state after = ad_lead_after(before, e->change, e->count);

        atomic_store(&l->state, after);
        if (after != before)
                df_trace(after == AD_LEAD_LOST ? DF_WARN : DF_INFO, "lead", "state=%s before=%s",
                         states[after], states[before]);
        if (after == AD_LEAD_LOST)
                df_process_stop();
        else
                df_group_done(l->group);
}

static void *serve(void *arg)
{
        struct ad_lead *l = arg;

        while (!atomic_load(&l->ending) && atomic_load(&l->state) != AD_LEAD_LOST) {
                struct df_group_event e;
                struct df_error err = {0};
                int rc = df_group_poll(l->group, POLL_MS, &e, &err);

                if (rc == 0 && e.change != DF_GROUP_NONE)
                        follow(l, &e);
                if (rc == DF_EFENCED) {
                        l->failed = err;
                        df_process_stop();
                        break;
                }
                if (rc < 0) {
                        df_trace(DF_WARN, "lead", "code=%s: %s", df_err_code(rc), err.text);
                        (void)poll(NULL, 0, RETRY_MS);
                }
        }
        return NULL;
}

int ad_lead_open(const struct df_config *c, struct df_log *log, struct ad_lead **ret,
                 struct df_error *err)
{
        const char *topic = AD_TOPIC_COMMANDS;
        struct ad_lead *l;
        char instance[96];
        int rc;

        *ret = NULL;
        if (!df_kafka_is(log))
                return 0;
        l = calloc(1, sizeof(*l));
        if (!l)
                return df_fail(err, DF_ENOMEM, "lead");
        (void)snprintf(instance, sizeof(instance), "%s-reconcile", df_config_text(c, "instance"));
        rc = df_kafka_group_open(log, AD_GROUP_RECONCILE, instance, &l->group, err);
        if (rc == 0)
                rc = df_group_subscribe(l->group, &topic, 1, err);
        if (rc == 0 && pthread_create(&l->thread, NULL, serve, l) != 0)
                rc = df_fail(err, DF_EAGAIN, "the thread of the lead");
        l->started = rc == 0;
        if (rc < 0)
                (void)ad_lead_close(l, NULL);
        else
                *ret = l;
        return rc;
}

static void pause_a_moment(void)
{
        struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

        (void)poll(&p, 1, POLL_MS); /* an early wake-up is harmless */
}

bool ad_lead_leads(const struct ad_lead *l)
{
        return !l || atomic_load(&l->state) == AD_LEAD_LEADS;
}

int ad_lead_confirm(const struct ad_lead *l, struct df_error *err)
{
        enum ad_lead_state s;

        if (!l)
                return 0;
        while ((s = atomic_load(&l->state)) == AD_LEAD_DOUBT && !df_process_stopping())
                pause_a_moment();
        return s == AD_LEAD_LEADS ? 0
                                  : df_fail(err, DF_EAGAIN, "another process makes the runs now");
}

int ad_lead_close(struct ad_lead *l, struct df_error *err)
{
        struct df_error failed;
        bool lost;

        if (!l)
                return 0;
        atomic_store(&l->ending, true);
        if (l->started)
                (void)pthread_join(l->thread, NULL);
        df_group_close(l->group);
        failed = l->failed;
        lost = atomic_load(&l->state) == AD_LEAD_LOST;
        free(l);
        if (failed.code)
                return df_fail(err, failed.code, "%s", failed.text);
        return lost ? df_fail(err, DF_EAGAIN,
                              "another process makes the runs now: this one starts again, to wait")
                    : 0;
}
