/* err.h - errors: a code that says what to do, and a text that says what, where and what now.
 *
 * Every fallible function returns 0 or a negative enum df_err and, on failure, fills the caller's
 * struct df_error. Nothing is allocated on an error path. Library code never logs an error; the
 * loop that decides what to do logs it once.
 * Thread: an error object belongs to one thread.
 */
#ifndef DF_ERR_H
#define DF_ERR_H

#include <stdarg.h>
#include <stddef.h>

enum df_action {
        DF_RETRY,   /* nothing was done: call again after a back-off */
        DF_RESTART, /* drop live state and take over again from the last checkpoint */
        DF_STOP,    /* stop this partition (or process); a person must look */
};

/* X(NAME, value, action, "code", "what it means"). Values and codes appear in logs, metrics and
 * runbooks: never reuse one. */
#define DF_ERR_MAP(X)                                                                              \
        X(ENOMEM, -1, DF_RESTART, "no_memory", "out of memory")                                    \
        X(EIO, -2, DF_RESTART, "io_error", "input or output failed")                               \
        X(EAGAIN, -3, DF_RETRY, "try_again", "not now; try again")                                 \
        X(ECORRUPT, -4, DF_STOP, "corrupt", "stored data is damaged")                              \
        X(EFENCED, -5, DF_STOP, "fenced", "another owner holds this resource")                     \
        X(ENOSPC, -6, DF_RETRY, "disk_full", "no space left on the device")                        \
        X(EINVAL, -7, DF_STOP, "invalid", "a value is not acceptable")                             \
        X(ELIMIT, -8, DF_STOP, "limit", "a documented limit was exceeded")                         \
        X(ENOENT, -9, DF_STOP, "not_found", "it does not exist")                                   \
        X(EEXIST, -10, DF_STOP, "exists", "it exists already")                                     \
        X(ESCHEMA, -11, DF_STOP, "state_mismatch", "stored state does not fit this configuration") \
        X(EOFFSET, -12, DF_STOP, "offset_gone", "the log no longer holds this offset")             \
        X(EPARSE, -13, DF_STOP, "parse", "it cannot be parsed")                                    \
        X(ECRASH, -14, DF_STOP, "simulated_crash", "the simulator stopped the process here")       \
        X(ECLOCK, -15, DF_RETRY, "clock_jump", "the clock moved in a way it must not")             \
        X(ECLOSED, -16, DF_STOP, "closed", "it is closed")                                         \
        X(ELOST, -17, DF_RESTART, "ownership_lost", "another owner may hold this partition")       \
        X(EDOUBT, -18, DF_RETRY, "in_doubt", "it may have been done or not")

enum df_err {
        DF_OK = 0,
#define X(name, value, action, code, text) DF_##name = (value),
        DF_ERR_MAP(X)
#undef X
};

#define DF_ERROR_TEXT_MAX 512

struct df_error {
        int code; /* 0 or an enum df_err */
        char text[DF_ERROR_TEXT_MAX];
};

/* Set err to code and a formatted text; returns code, so `return df_fail(err, ...)`.
 * err may be NULL. The text says what, where (path, topic, offset) and what to do. */
int df_fail(struct df_error *err, int code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

/* df_fail with ": strerror(errno)" appended; ENOSPC and EDQUOT become DF_ENOSPC whatever code is.
 */
int df_fail_errno(struct df_error *err, int code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

/* Put "<formatted>: " before the text that is there. Returns err's code; DF_EINVAL when err is NULL
 * (the code is lost then, the failure is not). */
int df_wrap(struct df_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *df_err_code(int code); /* "corrupt"; "ok" for 0; "unknown" otherwise */
enum df_action df_err_action(int code);

/* Programming errors. Always on, in every build; one condition each. Prints the condition and
 * aborts: the supervisor restarts the process from its last checkpoint. */
#define df_check(cond)                                                                             \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        df_check_failed(#cond, __FILE__, __LINE__);                                \
        } while (0)
_Noreturn void df_check_failed(const char *cond, const char *file, int line);

#endif
