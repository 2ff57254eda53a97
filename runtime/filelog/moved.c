/* moved.c - the mark of a log that goes on elsewhere (df/filelog.h). */
#include <stdio.h>

#include "filelog_private.h"

#define MARK "adtally-moved 1\n"

int df_filelog_mark_moved(struct df_log *base, const char *to, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        char text[sizeof(MARK) + DF_FILELOG_MOVED_MAX + 1];
        size_t len = strlen(to);
        int n;

        if (len == 0 || len > DF_FILELOG_MOVED_MAX || strchr(to, '\n'))
                return df_fail(err, DF_ELIMIT, "where %s moved: %zu bytes, not 1 to %d", log->dir,
                               len, DF_FILELOG_MOVED_MAX);
        n = snprintf(text, sizeof(text), MARK "%s\n", to);
        return dfi_file_replace(log->dir, ".MOVED.tmp", "MOVED", text, (size_t)n, err);
}

int df_filelog_moved(struct df_log *base, char ret_to[DF_FILELOG_MOVED_MAX + 1],
                     struct df_error *err)
{
        const struct dfi_log *log = dfi_log_of(base);
        char path[DFI_PATH_MAX], text[sizeof(MARK) + DF_FILELOG_MOVED_MAX + 1];
        size_t len = 0, head = strlen(MARK);
        int rc;

        ret_to[0] = '\0';
        dfi_path(path, "%s/MOVED", log->dir);
        rc = dfi_file_read(path, text, sizeof(text), &len, err);
        if (rc == DF_ENOENT)
                return 0;
        if (rc < 0)
                return rc;
        if (len < head + 2 || memcmp(text, MARK, head) != 0 || text[len - 1] != '\n')
                return df_fail(err, DF_ECORRUPT,
                               "%s is damaged: it said to which cluster this log was moved", path);
        memcpy(ret_to, text + head, len - head - 1);
        ret_to[len - head - 1] = '\0';
        return 0;
}

void df_filelog_finish_move(struct df_log *log)
{
        dfi_log_of(log)->finish_move = true;
}

int dfi_check_not_moved(const struct dfi_log *log, struct df_error *err)
{
        char to[DF_FILELOG_MOVED_MAX + 1];
        int rc;

        if (log->finish_move)
                return 0;
        rc = df_filelog_moved((struct df_log *)(uintptr_t)&log->base, to, err);
        if (rc == 0 && to[0])
                rc = df_fail(err, DF_ESCHEMA,
                             "the log %s was moved and is not written any more: start with %.300s "
                             "(docs/RUNBOOK.md, Move to Kafka)",
                             log->dir, to);
        return rc;
}
