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

void df_progress_whole(struct df_progress *p, uint64_t done, uint64_t all)
{
        if (!p->other)
                p->other_before = done;
        p->other = true;
        p->other_done = done;
        p->other_all = all;
}

static double share_of(const struct df_progress *p, uint64_t done)
{
        double share = p->all ? (double)done / (double)p->all : 0;

        if (p->other)
                share = p->other_all ? (double)p->other_done / (double)p->other_all : 1;
        return share > 1 ? 1 : share;
}

/* 0: unknown, or done. */
static double seconds_left(const struct df_progress *p, uint64_t done, double seconds)
{
        uint64_t all = p->other ? p->other_all - p->other_before : p->all;
        uint64_t now = p->other ? p->other_done - p->other_before : done;

        return now == 0 || now >= all ? 0 : (double)(all - now) * seconds / (double)now;
}

static void draw(const struct df_progress *p, uint64_t done, int64_t now)
{
        double seconds = (double)(now - p->started_ms) / 1000.0;
        double rate = seconds > 0 ? (double)done / seconds : 0;
        double share = share_of(p, done), left = seconds_left(p, done, seconds);

        if (!p->tty) {
                fprintf(stderr, "%s: %" PRIu64 " %s", p->what, done, p->unit);
                if (p->all)
                        fprintf(stderr, " of %" PRIu64, p->all);
                if (p->all || p->other)
                        fprintf(stderr, " (%.0f %%)", share * 100);
                fprintf(stderr, ", %.0f %s/s", rate, p->unit);
                if (p->other && left > 0)
                        fprintf(stderr, ", %.0f s left", left);
                fputc('\n', stderr);
                return;
        }
        fprintf(stderr, "\r\033[K%s ", p->what);
        if (p->all || p->other) {
                char bar[BAR_WIDTH + 1];
                size_t full = (size_t)(share * BAR_WIDTH);

                memset(bar, '.', BAR_WIDTH);
                memset(bar, '#', full);
                bar[BAR_WIDTH] = '\0';
                fprintf(stderr, "[%s] %3.0f %% ", bar, share * 100);
        }
        fprintf(stderr, "%" PRIu64 " %s, %.0f/s", done, p->unit, rate);
        if (left > 0)
                fprintf(stderr, ", %.0f s left", left);
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
