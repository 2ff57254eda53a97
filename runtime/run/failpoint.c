/* failpoint.c - fail points, read from the environment (df/run.h). */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "df/trace.h"
#include "run_private.h"

#ifdef ADTALLY_FAILPOINTS

#define POINTS_MAX 32
#define NAME_MAX_BYTES 96

enum action { OFF, ABORT, ERROR, PAUSE, DELAY };

struct point {
        char name[NAME_MAX_BYTES];
        bool any_rest; /* the name ended with a star */
        enum action action;
        int code;         /* of ERROR */
        long ms;          /* of DELAY */
        long from, times; /* from the from-th on, so many; 0 = for ever */
        atomic_long seen;
};

static struct point points[POINTS_MAX];
static size_t point_count;
static const char *only, *once;

static const struct {
        const char *code;
        int value;
} codes[] = {
#define X(name, value, action, code, text) {code, value},
        DF_ERR_MAP(X)
#undef X
};

static int bad(const char *text, const char *why, struct df_error *err)
{
        return df_fail(err, DF_EINVAL, "DF_FAIL: \"%s\": %s (df/run.h says the form)", text, why);
}

static int parse_action(const char *text, struct point *p, char *arg, struct df_error *err)
{
        static const char *const names[] = {"off", "abort", "error", "pause", "delay"};
        char *open = strchr(arg, '('), *close = open ? strchr(open, ')') : NULL;
        size_t i = 0;

        if (open && (!close || close[1] != '\0'))
                return bad(text, "a bracket is missing", err);
        if (open)
                *open = *close = '\0';
        while (i < 5 && strcmp(arg, names[i]) != 0)
                i++;
        if (i == 5)
                return bad(text, "no such action", err);
        p->action = (enum action)i;
        p->code = DF_EIO;
        if (p->action == DELAY && (!open || (p->ms = strtol(open + 1, NULL, 10)) <= 0))
                return bad(text, "delay needs (MILLISECONDS)", err);
        if (p->action != ERROR || !open)
                return 0;
        for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
                if (strcmp(codes[i].code, open + 1) == 0) {
                        p->code = codes[i].value;
                        return 0;
                }
        return bad(text, "no such error code", err);
}

static int parse_point(const char *text, struct df_error *err)
{
        struct point *p = &points[point_count];
        char copy[2 * NAME_MAX_BYTES], *equal, *at, *star;
        size_t n;

        if (point_count == POINTS_MAX)
                return bad(text, "too many points", err);
        if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
                return bad(text, "too long", err);
        equal = strchr(copy, '=');
        if (!equal || equal == copy || (size_t)(equal - copy) >= NAME_MAX_BYTES)
                return bad(text, "NAME=ACTION is missing", err);
        *equal = '\0';
        p->from = p->times = 1;
        star = strchr(equal + 1, '*');
        if (star) {
                *star = '\0';
                p->times = strtol(star + 1, NULL, 10);
        }
        at = strchr(equal + 1, '@');
        if (at) {
                *at = '\0';
                p->from = strtol(at + 1, NULL, 10);
        }
        n = strlen(copy);
        p->any_rest = copy[n - 1] == '*';
        memcpy(p->name, copy, n + 1);
        if (p->any_rest)
                p->name[n - 1] = '\0';
        point_count++;
        return parse_action(text, p, equal + 1, err);
}

int dfi_failpoints_read(struct df_error *err)
{
        const char *text = getenv("DF_FAIL");
        char *copy, *rest, *one;
        int rc = 0;

        only = getenv("DF_FAIL_ONLY");
        once = getenv("DF_FAIL_ONCE");
        if (!text || !*text)
                return 0;
        copy = strdup(text);
        if (!copy)
                return df_fail(err, DF_ENOMEM, "DF_FAIL");
        for (rest = copy; rc == 0 && (one = strsep(&rest, ";"));)
                if (*one)
                        rc = parse_point(one, err);
        free(copy);
        return rc;
}

/* DF_FAIL_ONCE: over all lives of the process, so that a restart gets past the point. */
static bool struck_before(const struct point *p)
{
        char path[4096];
        int fd;

        if (!once || !*once)
                return false;
        (void)snprintf(path, sizeof(path), "%s/%zu", once, (size_t)(p - points));
        fd = open(path, O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd >= 0)
                (void)close(fd);
        return fd < 0;
}

static int strike(const struct point *p, const char *task, const char *step, struct df_error *err)
{
        struct timespec t = {p->ms / 1000, p->ms % 1000 * 1000000};

        if (p->action == OFF)
                return 0;
        df_trace(DF_WARN, "failpoint", "task=%s step=%s action=%d", task, step, (int)p->action);
        switch (p->action) {
        case ABORT:
                (void)kill(getpid(), SIGKILL);
                _exit(DF_EXIT_SOFTWARE);
        case PAUSE:
                (void)raise(SIGSTOP);
                return 0;
        case DELAY:
                (void)nanosleep(&t, NULL); /* an early end is harmless */
                return 0;
        case ERROR:
                return df_fail(err, p->code, "fail point %s of %s", step, task);
        case OFF:
                break;
        }
        return 0;
}

int df_failpoint(const char *task, const char *step, struct df_error *err)
{
        if (only && *only && !strstr(task, only))
                return 0;
        for (size_t i = 0; i < point_count; i++) {
                struct point *p = &points[i];
                long n;

                if (p->any_rest ? strncmp(step, p->name, strlen(p->name)) != 0
                                : strcmp(step, p->name) != 0)
                        continue;
                n = atomic_fetch_add(&p->seen, 1) + 1;
                if (n >= p->from && (p->times == 0 || n < p->from + p->times) && !struck_before(p))
                        return strike(p, task, step, err);
        }
        return 0;
}

#else

int dfi_failpoints_read(struct df_error *err)
{
        const char *text = getenv("DF_FAIL");

        if (text && *text)
                return df_fail(err, DF_EINVAL,
                               "DF_FAIL is set, but this build has no fail points: "
                               "meson configure -Dfailpoints=true");
        return 0;
}

int df_failpoint(const char *task, const char *step, struct df_error *err)
{
        return 0;
}

#endif
