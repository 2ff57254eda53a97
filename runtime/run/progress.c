#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "df/run.h"

#define BAR_WIDTH 30
#define TTY_PERIOD_MS 200
#define PLAIN_PERIOD_MS 5000

void df_progress_start(struct df_progress *p, const char *what, const char *unit, uint64_t all,
                       bool quiet)
{
        int64_t now = df_monotonic_ms();

        *p = (struct df_progress){
                .what = what,
                .unit = unit,
                .all = all,
                .started_ms = now,
                .shown_ms = now,
                .tty = isatty(STDERR_FILENO) == 1,
                .quiet = quiet,
        };
}

static void draw(const struct df_progress *p, uint64_t done, int64_t now)
{
        double seconds = (double)(now - p->started_ms) / 1000.0;
        double rate = seconds > 0 ? (double)done / seconds : 0;
        double share = p->all ? (double)done / (double)p->all : 0;

        if (share > 1)
                share = 1;
        if (!p->tty) {
                fprintf(stderr, "%s: %" PRIu64 " %s", p->what, done, p->unit);
                if (p->all)
                        fprintf(stderr, " of %" PRIu64 " (%.0f %%)", p->all, share * 100);
                fprintf(stderr, ", %.0f %s/s\n", rate, p->unit);
                return;
        }
        fprintf(stderr, "\r\033[K%s ", p->what);
        if (p->all) {
                char bar[BAR_WIDTH + 1];
                size_t full = (size_t)(share * BAR_WIDTH);

                memset(bar, '.', BAR_WIDTH);
                memset(bar, '#', full);
                bar[BAR_WIDTH] = '\0';
                fprintf(stderr, "[%s] %3.0f %% ", bar, share * 100);
        }
        fprintf(stderr, "%" PRIu64 " %s, %.0f/s", done, p->unit, rate);
        if (p->all && rate > 0 && done < p->all)
                fprintf(stderr, ", %.0f s left", (double)(p->all - done) / rate);
        fflush(stderr);
}

void df_progress_show(struct df_progress *p, uint64_t done)
{
        int64_t now;

        if (p->quiet)
                return;
        now = df_monotonic_ms();
        if (now - p->shown_ms < (p->tty ? TTY_PERIOD_MS : PLAIN_PERIOD_MS))
                return;
        p->shown_ms = now;
        p->shown = true;
        draw(p, done, now);
}

void df_progress_end(struct df_progress *p, uint64_t done)
{
        if (p->quiet || (!p->shown && !p->tty))
                return;
        draw(p, done, df_monotonic_ms());
        if (p->tty)
                fputc('\n', stderr);
}
