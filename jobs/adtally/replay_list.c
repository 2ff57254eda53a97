/* replay_list.c - --list and --drop of a command that makes runs (replay.h). */
#include <stdio.h>
#include <stdlib.h>

#include "jobs/adtally/replay.h"

static int print_run(void *arg, const struct ad_replay *r, struct df_error *err)
{
        size_t *count = arg;
        const char *state = r->locked ? "running" : r->done ? "done" : "unfinished";

        (void)err;
        (*count)++;
        if (r->kind->open)
                printf("%s  %s\n", r->id, state);
        else
                printf("%s  %-10s  %s from %s to %s\n", r->id, state, r->pin.topic.name, r->from,
                       r->to);
        return 0;
}

int ad_replay_tell_all(const struct df_config *c, const struct ad_run_kind *kind,
                       struct df_error *err)
{
        size_t count = 0;
        int rc = ad_replay_list(c, kind, print_run, &count, err);

        if (rc == 0 && count == 0)
                printf("no runs in %s\n", df_config_text(c, "data"));
        return rc;
}

int ad_replay_drop_named(const struct df_config *c, const struct ad_run_kind *kind,
                         struct df_log *log, struct df_error *err)
{
        struct ad_replay *r = calloc(1, sizeof(*r));
        int rc = r ? ad_replay_find(c, kind, df_config_text(c, "drop"), r, err)
                   : df_fail(err, DF_ENOMEM, "run");

        if (rc == 0) {
                rc = ad_replay_drop(r, log, err);
                if (rc == 0)
                        printf("run %s is deleted\n", r->id);
                ad_replay_end(r);
        }
        free(r);
        return rc;
}
