#include "df/trace.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static enum df_trace_level least = DF_INFO;
static bool stated; /* by df_trace_level */
static char process[32] = "adtally";
static const char *const names[] = {"debug", "info", "warn", "error"};

void df_trace_level(const char *name)
{
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(name, names[i]) == 0) {
                        least = (enum df_trace_level)i;
                        stated = true;
                }
}

void df_trace_init(const char *name)
{
        const char *level = getenv("ADTALLY_LOG_LEVEL");

        (void)snprintf(process, sizeof(process), "%s", name);
        if (level && !stated)
                df_trace_level(level);
}

void df_trace(enum df_trace_level level, const char *area, const char *fmt, ...)
{
        char line[LINE_MAX_BYTES];
        struct timespec now;
        struct tm tm;
        size_t len;
        va_list ap;

        if (level < least)
                return;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        len = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
        (void)snprintf(line + len, sizeof(line) - len, ".%03ldZ %-5s %s.%.64s ",
                       now.tv_nsec / 1000000, names[level], process, area);
        len = strlen(line);
        va_start(ap, fmt);
        (void)vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap); /* cut when too long */
        va_end(ap);
        len = strlen(line);
        for (size_t i = 0; i < len; i++) /* one line an event, whatever a text holds */
                if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
                        line[i] = ' ';
        line[len++] = '\n';
        (void)!write(STDERR_FILENO, line, len); /* nobody is left to tell */
}
