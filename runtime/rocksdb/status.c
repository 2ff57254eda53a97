#include "rocksdb_private.h"

int dfi_status_code(const char *message)
{
        if (strstr(message, "No space left on device") || strstr(message, "Disk quota exceeded") ||
            strstr(message, "NoSpace"))
                return DF_ENOSPC;
        if (strncmp(message, "Corruption", 10) == 0)
                return DF_ECORRUPT;
        /* A lock of another process, or of this one. */
        if (strstr(message, "lock hold by current process") || strstr(message, "While lock file") ||
            strstr(message, "lock file:"))
                return DF_EFENCED;
        if (strncmp(message, "Invalid argument", 16) == 0 ||
            strncmp(message, "Not implemented", 15) == 0)
                return DF_EINVAL;
        return DF_EIO;
}

int dfi_status_fail(struct df_error *err, char *message, const char *what, const char *path)
{
        df_check(message);
        int code = dfi_status_code(message);

        (void)df_fail(err, code, "%s%s%s: RocksDB: %.300s", what, path ? " " : "", path ? path : "",
                      message);
        rocksdb_free(message);
        return code;
}
