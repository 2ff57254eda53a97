#include "jobs/common/instances.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRESH_MS 5000 /* a job writes its file every second */

static const char main_file[] = "realtime.prom", prefix[] = "realtime-", suffix[] = ".prom";

/* The instance whose status file this is; false: another file. */
static bool instance_of(const char *file, char ret[AD_INSTANCE_MAX + 1])
{
        size_t len = strlen(file), n;

        if (strcmp(file, main_file) == 0) {
                memcpy(ret, AD_INSTANCE_MAIN, sizeof(AD_INSTANCE_MAIN));
                return true;
        }
        if (len <= strlen(prefix) + strlen(suffix) || strncmp(file, prefix, strlen(prefix)) != 0 ||
            strcmp(file + len - strlen(suffix), suffix) != 0)
                return false;
        n = len - strlen(prefix) - strlen(suffix);
        if (n > AD_INSTANCE_MAX)
                return false;
        memcpy(ret, file + strlen(prefix), n);
        ret[n] = '\0';
        return ad_instance_check(ret, NULL) == 0;
}

static int main_first(const void *a, const void *b)
{
        bool x = strcmp(a, AD_INSTANCE_MAIN) == 0, y = strcmp(b, AD_INSTANCE_MAIN) == 0;

        return x != y ? (int)y - (int)x : strcmp(a, b);
}

int ad_instances_list(const char *data_dir, struct ad_instances *ret, struct df_error *err)
{
        char path[PATH_MAX], name[AD_INSTANCE_MAX + 1];
        struct dirent *e;
        DIR *d;
        int rc = 0;

        ret->count = 0;
        if (snprintf(path, sizeof(path), "%s/run", data_dir) >= (int)sizeof(path))
                return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data_dir);
        d = opendir(path);
        if (!d)
                return errno == ENOENT ? 0 : df_fail_errno(err, DF_EIO, "open %s", path);
        while (rc == 0 && (e = readdir(d))) {
                if (!instance_of(e->d_name, name))
                        continue;
                if (ret->count == AD_INSTANCES_MAX)
                        rc = df_fail(err, DF_ELIMIT,
                                     "%s: status files of more than %d realtime processes: remove "
                                     "those of processes that are gone",
                                     path, AD_INSTANCES_MAX);
                else
                        memcpy(ret->names[ret->count++], name, sizeof(name));
        }
        (void)closedir(d); /* only read */
        if (rc == 0)
                qsort(ret->names, ret->count, sizeof(ret->names[0]), main_first);
        return rc;
}

int ad_instance_file(const char *data_dir, const char *instance, char *ret, struct df_error *err)
{
        bool is_main = strcmp(instance, AD_INSTANCE_MAIN) == 0;
        int n = is_main ? snprintf(ret, PATH_MAX, "%s/run/%s", data_dir, main_file)
                        : snprintf(ret, PATH_MAX, "%s/run/%s%s%s", data_dir, prefix, instance,
                                   suffix);

        if (n >= 0 && n < PATH_MAX)
                return 0;
        return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data_dir);
}

bool ad_job_stamp_read(const char *text, struct ad_job_stamp *ret)
{
        long long started = 0, written = 0;

        *ret = (struct ad_job_stamp){0};
        if (sscanf(text, "# adtally %*s pid=%d started_ms=%lld written_ms=%lld", &ret->pid,
                   &started, &written) != 3)
                return false;
        ret->started_ms = started;
        ret->written_ms = written;
        return true;
}

bool ad_job_stamp_alive(const struct ad_job_stamp *s, int64_t now_ms)
{
        return s->pid > 0 && (kill(s->pid, 0) == 0 || errno == EPERM) &&
               now_ms - s->written_ms < FRESH_MS;
}
