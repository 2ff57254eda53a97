#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "df/trace.h"
#include "run_private.h"

#define KEEP_BYTES (1 << 30)
#define MAPPED_BYTES (32 << 20) /* the most that malloc takes */
#define MALLOC_ARENAS 2

static atomic_bool stopping;
static int stop_fd = -1;

static void on_signal(int sig)
{
        int saved = errno;

        (void)sig;
        df_process_stop();
        errno = saved;
}

int df_process_start(const char *job, bool under_supervisor, struct df_error *err)
{
        struct sigaction sa = {.sa_handler = on_signal};

        df_trace_init(job);
        stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (stop_fd < 0)
                return df_fail_errno(err, DF_EIO, "eventfd");
        sigemptyset(&sa.sa_mask);
        if (sigaction(SIGTERM, &sa, NULL) < 0 || sigaction(SIGINT, &sa, NULL) < 0)
                return df_fail_errno(err, DF_EIO, "signal handlers");
        sa.sa_handler = SIG_IGN;
        if (sigaction(SIGPIPE, &sa, NULL) < 0)
                return df_fail_errno(err, DF_EIO, "signal handlers");
        if (under_supervisor) {
                pid_t parent = getppid();

                if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
                        return df_fail_errno(err, DF_EIO, "parent death signal");
                if (parent == 1 || getppid() != parent)
                        df_process_stop();
        }
        return dfi_failpoints_read(err);
}

void df_process_keep_memory(void)
{
        (void)mallopt(M_ARENA_MAX, MALLOC_ARENAS);
        (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
        (void)mallopt(M_TRIM_THRESHOLD, KEEP_BYTES); /* only slower without: no result matters */
}

bool df_process_stopping(void)
{
        return atomic_load_explicit(&stopping, memory_order_acquire);
}

int df_process_stop_fd(void)
{
        return stop_fd;
}

void df_process_stop(void)
{
        uint64_t one = 1;

        atomic_store_explicit(&stopping, true, memory_order_release);
        if (stop_fd >= 0)
                (void)!write(stop_fd, &one, sizeof(one)); /* a full counter is readable too */
}

static int64_t clock_ns(clockid_t id)
{
        struct timespec ts;

        (void)clock_gettime(id, &ts); /* cannot fail for these clocks */
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t df_wall_ms(void)
{
        return clock_ns(CLOCK_REALTIME) / 1000000;
}

int64_t df_monotonic_ms(void)
{
        return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t df_monotonic_ns(void)
{
        return clock_ns(CLOCK_MONOTONIC);
}

int64_t df_boottime_ms(void)
{
        return clock_ns(CLOCK_BOOTTIME) / 1000000;
}

uint64_t df_ticks_ns(void)
{
        return (uint64_t)clock_ns(CLOCK_MONOTONIC);
}

int64_t df_cpu_ns(void)
{
        return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t df_rss_bytes(void)
{
        unsigned long all, resident = 0;
        FILE *f = fopen("/proc/self/statm", "re");

        if (!f)
                return 0;
        if (fscanf(f, "%lu %lu", &all, &resident) != 2)
                resident = 0;
        fclose(f);
        return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t df_peak_rss_bytes(void)
{
        struct rusage ru;

        return getrusage(RUSAGE_SELF, &ru) == 0 ? (uint64_t)ru.ru_maxrss * 1024 : 0;
}

int df_exit_code(int code)
{
        switch (code) {
        case 0:
                return DF_EXIT_OK;
        case DF_EEXIST:
                return DF_EXIT_FAILURE;
        case DF_EINVAL:
        case DF_ESCHEMA:
                return DF_EXIT_CONFIG;
        case DF_ECORRUPT:
        case DF_EPARSE:
        case DF_ENOENT:
        case DF_EOFFSET:
                return DF_EXIT_DATA;
        case DF_EAGAIN:
        case DF_ENOSPC:
        case DF_EFENCED:
        case DF_EDOUBT:
                return DF_EXIT_TEMPFAIL;
        case DF_EIO:
                return DF_EXIT_IO;
        default:
                return DF_EXIT_SOFTWARE;
        }
}
