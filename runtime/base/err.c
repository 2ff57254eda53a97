#include "df/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
        int value;
        enum df_action action;
        const char *code;
} errors[] = {
#define X(name, value, action, code, text) {value, action, code},
        DF_ERR_MAP(X)
#undef X
};

static void set_text(struct df_error *err, int code, const char *fmt, va_list ap)
{
        err->code = code;
        (void)vsnprintf(err->text, sizeof(err->text), fmt, ap); /* cut when too long */
}

int df_fail(struct df_error *err, int code, const char *fmt, ...)
{
        va_list ap;

        df_check(code < 0);
        if (!err)
                return code;
        va_start(ap, fmt);
        set_text(err, code, fmt, ap);
        va_end(ap);
        return code;
}

int df_fail_errno(struct df_error *err, int code, const char *fmt, ...)
{
        int saved = errno;
        char reason[128];
        size_t len;
        va_list ap;

        df_check(code < 0);
        if (saved == ENOSPC || saved == EDQUOT)
                code = DF_ENOSPC;
        if (!err)
                return code;
        va_start(ap, fmt);
        set_text(err, code, fmt, ap);
        va_end(ap);
        len = strlen(err->text);
        (void)snprintf(err->text + len, sizeof(err->text) - len, ": %s",
                       strerror_r(saved, reason, sizeof(reason)));
        errno = saved;
        return code;
}

int df_wrap(struct df_error *err, const char *fmt, ...)
{
        char inner[DF_ERROR_TEXT_MAX];
        size_t len;
        va_list ap;

        if (!err)
                return DF_EINVAL;
        df_check(err->code < 0);
        memcpy(inner, err->text, sizeof(inner));
        inner[sizeof(inner) - 1] = '\0';
        va_start(ap, fmt);
        (void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
        len = strlen(err->text);
        (void)snprintf(err->text + len, sizeof(err->text) - len, ": %s", inner);
        return err->code;
}

const char *df_err_code(int code)
{
        if (code == 0)
                return "ok";
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
                if (errors[i].value == code)
                        return errors[i].code;
        return "unknown";
}

enum df_action df_err_action(int code)
{
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
                if (errors[i].value == code)
                        return errors[i].action;
        return DF_STOP;
}

void df_check_failed(const char *cond, const char *file, int line)
{
        fprintf(stderr, "%s:%d: check failed: %s\n", file, line, cond);
        abort();
}
