/* test_err.c - codes, actions, texts; failed checks abort; log lines are one line each. */
#include "df/err.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "df/trace.h"
#include "unit.h"

/* Codes stand in logs, metrics and runbooks: this copy of the table notices a change. */
static void codes_never_change(void **state)
{
        static const struct {
                int value;
                const char *code;
                enum df_action action;
        } table[] = {
                {-1, "no_memory", DF_RESTART},    {-2, "io_error", DF_RESTART},
                {-3, "try_again", DF_RETRY},      {-4, "corrupt", DF_STOP},
                {-5, "fenced", DF_STOP},          {-6, "disk_full", DF_RETRY},
                {-7, "invalid", DF_STOP},         {-8, "limit", DF_STOP},
                {-9, "not_found", DF_STOP},       {-10, "exists", DF_STOP},
                {-11, "state_mismatch", DF_STOP}, {-12, "offset_gone", DF_STOP},
                {-13, "parse", DF_STOP},          {-14, "simulated_crash", DF_STOP},
                {-15, "clock_jump", DF_RETRY},    {-16, "closed", DF_STOP},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                assert_string_equal(df_err_code(table[i].value), table[i].code);
                assert_int_equal(df_err_action(table[i].value), table[i].action);
        }
        assert_string_equal(df_err_code(0), "ok");
        assert_string_equal(df_err_code(1), "unknown");
        assert_string_equal(df_err_code(-1000), "unknown");
        assert_int_equal(df_err_action(-1000), DF_STOP); /* unknown: a person must look */
}

static void fail_sets_code_and_text(void **state)
{
        struct df_error err = {0};

        (void)state;
        assert_int_equal(df_fail(&err, DF_ECORRUPT, "%s at %d", "events-3", 17), DF_ECORRUPT);
        assert_int_equal(err.code, DF_ECORRUPT);
        assert_string_equal(err.text, "events-3 at 17");
        assert_int_equal(df_fail(NULL, DF_ELIMIT, "x"), DF_ELIMIT);
}

static void errno_is_said_and_kept(void **state)
{
        struct df_error err = {0};

        (void)state;
        errno = EACCES;
        assert_int_equal(df_fail_errno(&err, DF_EIO, "open %s", "/x"), DF_EIO);
        assert_string_equal(err.text, "open /x: Permission denied");
        assert_int_equal(errno, EACCES);
        errno = ENOSPC;
        assert_int_equal(df_fail_errno(&err, DF_EIO, "write"), DF_ENOSPC);
        assert_int_equal(err.code, DF_ENOSPC);
        errno = EDQUOT;
        assert_int_equal(df_fail_errno(NULL, DF_EIO, "write"), DF_ENOSPC);
}

static void wrap_puts_the_place_first(void **state)
{
        struct df_error err = {0};

        (void)state;
        (void)df_fail(&err, DF_EPARSE, "no comma");
        assert_int_equal(df_wrap(&err, "line %d", 7), DF_EPARSE);
        assert_int_equal(df_wrap(&err, "%s", "prices.csv"), DF_EPARSE);
        assert_string_equal(err.text, "prices.csv: line 7: no comma");
        /* `return df_wrap(err, ...)` stays a failure when the caller wants no text. */
        assert_true(df_wrap(NULL, "line %d", 7) < 0);
}

/* Texts of every length around the limit: cut, never beyond it. */
static void long_texts_are_cut(void **state)
{
        struct {
                struct df_error err;
                char guard[16];
        } box;
        char text[DF_ERROR_TEXT_MAX + 10];

        (void)state;
        for (int len = DF_ERROR_TEXT_MAX - 10; len < DF_ERROR_TEXT_MAX + 9; len++) {
                memset(&box, '#', sizeof(box));
                memset(text, 'a', sizeof(text));
                text[len] = '\0';
                (void)df_fail(&box.err, DF_EIO, "%s", text);
                assert_int_equal(strlen(box.err.text),
                                 len < DF_ERROR_TEXT_MAX ? len : DF_ERROR_TEXT_MAX - 1);
                (void)df_wrap(&box.err, "%s", "where");
                assert_memory_equal(box.err.text, "where: aaa", 10);
                (void)df_wrap(&box.err, "%s", text);
                errno = EIO;
                (void)df_fail_errno(&box.err, DF_EIO, "%s", text);
                assert_true(strlen(box.err.text) < DF_ERROR_TEXT_MAX);
                assert_memory_equal(box.guard, "################", 16);
        }
}

/* Run f in a child; returns its wait status, and what it wrote to stderr in ret. */
static int run_child(void (*f)(void), char *ret, size_t size)
{
        size_t len = 0;
        int fds[2], status;
        ssize_t n;
        pid_t pid;

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void)dup2(fds[1], STDERR_FILENO);
                close(fds[0]);
                close(fds[1]);
                (void)signal(SIGABRT, SIG_DFL);
                f();
                _exit(0);
        }
        close(fds[1]);
        while ((n = read(fds[0], ret + len, size - 1 - len)) > 0)
                len += (size_t)n;
        ret[len] = '\0';
        close(fds[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static void check_two(void)
{
        int two = 2;

        df_check(two == 2);
        df_check(two == 3);
}

static void failed_check_aborts(void **state)
{
        char text[1024];
        int status = run_child(check_two, text, sizeof(text));

        (void)state;
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
        assert_non_null(strstr(text, "test_err.c"));
        assert_non_null(strstr(text, "two == 3"));
        assert_null(strstr(text, "two == 2"));
}

static void fail_with_zero(void)
{
        (void)df_fail(NULL, 0, "no failure");
}

static void success_is_no_failure_code(void **state)
{
        char text[1024];

        (void)state;
        assert_true(WIFSIGNALED(run_child(fail_with_zero, text, sizeof(text))));
}

static void write_lines(void)
{
        char text[5000];

        memset(text, 'b', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        (void)setenv("ADTALLY_LOG_LEVEL", "warn", 1);
        df_trace_init("realtime");
        df_trace(DF_DEBUG, "task", "not shown");
        df_trace(DF_INFO, "task", "not shown");
        df_trace(DF_WARN, "task", "partition=%d\nforged=1\x1b[0m", 3);
        df_trace(DF_ERROR, text, "%s", text);
}

static void log_lines_are_one_line_each(void **state)
{
        static const char pattern[] =
                "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "
                "warn  realtime\\.task partition=3 forged=1 \\[0m$";
        char text[8192], *second;
        regex_t regex;

        (void)state;
        assert_int_equal(run_child(write_lines, text, sizeof(text)), 0);
        second = strchr(text, '\n');
        assert_non_null(second);
        *second++ = '\0';
        assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
        if (regexec(&regex, text, 0, NULL, 0) != 0)
                fail_msg("\"%s\"", text);
        regfree(&regex);
        assert_ptr_equal(strchr(second, '\n'), second + strlen(second) - 1); /* cut, and ended */
        assert_non_null(strstr(second, "Z error realtime.bbb"));
        assert_true(strlen(second) > 2000 && strlen(second) <= 2048);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(codes_never_change),
                cmocka_unit_test(fail_sets_code_and_text),
                cmocka_unit_test(errno_is_said_and_kept),
                cmocka_unit_test(wrap_puts_the_place_first),
                cmocka_unit_test(long_texts_are_cut),
                cmocka_unit_test(failed_check_aborts),
                cmocka_unit_test(success_is_no_failure_code),
                cmocka_unit_test(log_lines_are_one_line_each),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
