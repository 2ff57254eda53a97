/* bench_beside.c - `adtally reconcile` beside another benchmark: one after the other, each from the
 * first event on, at a low priority, as a reconcile job is run. */
#include <stdio.h>
#include <sys/resource.h>

#include "jobs/adtally/bench.h"

#define NICE 10
#define HORIZON_HOURS 768 /* that of the settings; each run after the first has one hour more */

/* Each has a horizon of its own: with another one it is another run (R1), which begins anew. */
static int start(struct ad_bench *b, struct ad_bench_beside *s, struct df_error *err)
{
        char horizon[48];
        const char *args[] = {"--json", "--quiet", "--wait=0ms", horizon, NULL};
        int rc;

        (void)snprintf(horizon, sizeof(horizon), "--billing-horizon=%u", HORIZON_HOURS + s->runs);
        rc = ad_bench_start(b, "reconcile", args, -1, &s->child, err);
        if (rc == 0 && setpriority(PRIO_PROCESS, (id_t)s->child.pid, NICE) < 0)
                rc = df_fail_errno(err, DF_EIO, "priority of a reconcile run");
        return rc;
}

int ad_bench_beside_step(struct ad_bench *b, struct ad_bench_beside *s, struct df_error *err)
{
        int rc;

        if (s->child.pid <= 0)
                return start(b, s, err);
        if (!ad_bench_ended(&s->child))
                return 0;
        rc = ad_bench_stop(&s->child, err);
        s->cpu_ns += s->child.cpu_ns;
        s->runs++;
        return rc;
}

void ad_bench_beside_end(struct ad_bench *b, struct ad_bench_beside *s, int64_t elapsed_ns)
{
        bool running = s->child.pid > 0;

        ad_bench_kill(&s->child);
        if (running)
                s->cpu_ns += s->child.cpu_ns;
        ad_bench_figure(b, "reconcile_runs", s->runs);
        ad_bench_figure(b, "reconcile_cores", (double)s->cpu_ns / (double)elapsed_ns);
}
