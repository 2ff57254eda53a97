/* watchdog.c - a process that hangs in a call ends, instead of holding its partitions (K13). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "df/trace.h"
#include "kafka_private.h"

#define LOOK_MS 200
#define EXIT_TEMPFAIL 75

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct dfk_watch *watched;
static bool running;

int64_t dfk_now_ms(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void dfk_pause(int ms)
{
        const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

        (void)nanosleep(&t, NULL); /* an early end is harmless */
}

static void *look(void *arg)
{
        (void)arg;
        for (;;) {
                const char *hung = NULL;

                dfk_pause(LOOK_MS);
                pthread_mutex_lock(&lock);
                for (const struct dfk_watch *w = watched; w; w = w->next)
                        if (dfk_now_ms() > w->deadline_ms)
                                hung = w->what;
                pthread_mutex_unlock(&lock);
                if (!hung)
                        continue;
                df_trace(
                        DF_ERROR, "kafka",
                        "%s does not return: the process ends and starts again; what was committed "
                        "the log says (K13)",
                        hung);
                _exit(EXIT_TEMPFAIL);
        }
        return NULL;
}

void dfk_watch_begin(struct dfk_watch *w, const char *what, int64_t limit_ms)
{
        w->what = what;
        w->deadline_ms = dfk_now_ms() + limit_ms;
        pthread_mutex_lock(&lock);
        if (!running) {
                pthread_t t;

                running = pthread_create(&t, NULL, look, NULL) == 0;
                if (running)
                        (void)pthread_detach(t);
        }
        w->next = watched;
        watched = w;
        pthread_mutex_unlock(&lock);
}

void dfk_watch_end(struct dfk_watch *w)
{
        struct dfk_watch **at = &watched;

        pthread_mutex_lock(&lock);
        while (*at && *at != w)
                at = &(*at)->next;
        if (*at)
                *at = w->next;
        pthread_mutex_unlock(&lock);
}
