/* supervise.h - run jobs as child processes: restart the killed, drain on stop.
 *
 * Children run in their own process groups (a Ctrl-C reaches the supervisor alone, which stops them
 * in order) and die with the supervisor. A child that ends while it should run is started again
 * after a back-off (100 ms, doubling to 5 s; back to 100 ms after 10 s of life), except with
 * DF_EXIT_CONFIG or DF_EXIT_USAGE, which no restart mends: then everything stops with this code.
 * Thread: the main thread, alone.
 */
#ifndef DF_SUPERVISE_H
#define DF_SUPERVISE_H

#include "df/run.h"

#define DF_CHILDREN_MAX 12

struct df_child {
        const char *name;
        const char *const *argv; /* argv[0] is the path; NULL-terminated; borrowed */
        const int *keep_fds;     /* descriptors it inherits, same numbers; -1 ends the list */
        int pid;                 /* filled in; 0 = not running */
        uint64_t starts;         /* filled in */
        int64_t started_ms;      /* monotonic */
        int64_t retry_ms;
        int64_t backoff_ms;
};

/* Start all children in order, keep them running until df_process_stopping(), then SIGTERM them one
 * after the other in reverse order of the list, each given drain_ms before SIGKILL. tick is called
 * about every 100 ms (NULL = none). Returns the exit code for the process. */
int df_supervise(struct df_child *children, size_t count, int64_t drain_ms, void (*tick)(void *arg),
                 void *arg);

#endif
