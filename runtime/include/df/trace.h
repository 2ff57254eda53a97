/* trace.h - log lines: one line an event, "time level area message key=value ...", to stderr.
 *
 * Only loops that decide (jobs/, runtime/run) log; library code returns errors. The level is
 * debug, info (the default), warn or error: the setting log-level, or before any setting was read
 * ADTALLY_LOG_LEVEL.
 * Thread: any; a line is written by one write call.
 */
#ifndef DF_TRACE_H
#define DF_TRACE_H

enum df_trace_level { DF_DEBUG, DF_INFO, DF_WARN, DF_ERROR };

void df_trace_init(const char *process); /* copied */
void df_trace_level(const char *name);   /* before threads; an unknown name changes nothing */
void df_trace(enum df_trace_level level, const char *area, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

#endif
