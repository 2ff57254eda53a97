#include "jobs/common/places.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "df/run.h"
#include "jobs/common/settings.h"

#define OWN_STORE "checkpoints" /* under DATA */

int ad_instance_check(const char *name, struct df_error *err)
{
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_");

        if (n > 0 && n <= AD_INSTANCE_MAX && name[n] == '\0')
                return 0;
        return df_fail(err, DF_EINVAL, "--instance %.64s: 1 to %d of a-z, 0-9, - and _", name,
                       AD_INSTANCE_MAX);
}

static bool is_main(const struct df_config *c)
{
        return strcmp(df_config_text(c, "instance"), AD_INSTANCE_MAIN) == 0;
}

int ad_state_dir(const struct df_config *c, const char *topic, uint32_t partition, char *ret,
                 struct df_error *err)
{
        const char *data = df_config_text(c, "data");
        int n;

        if (is_main(c))
                n = snprintf(ret, PATH_MAX, "%s/state/%s/%u", data, topic, partition);
        else
                n = snprintf(ret, PATH_MAX, "%s/instances/%s/state/%s/%u", data,
                             df_config_text(c, "instance"), topic, partition);
        if (n >= 0 && n < PATH_MAX - 64)
                return 0;
        return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data);
}

/* Once there, it stays the store: with one process again, checkpoints of the others are in it. */
int ad_store(const struct df_config *c, char *ret, struct df_error *err)
{
        const char *store = df_config_text(c, "checkpoint-store");
        int rc;

        ret[0] = '\0';
        if (store) {
                if (snprintf(ret, PATH_MAX, "%s", store) < PATH_MAX)
                        return 0;
                return df_fail(err, DF_EINVAL, "--checkpoint-store: the path is too long");
        }
        if (ad_log_is_file(c))
                return 0;
        rc = ad_data_path(c, OWN_STORE, ret, err);
        if (rc < 0 || (access(ret, F_OK) < 0 && errno == ENOENT))
                ret[0] = '\0';
        return rc;
}

int ad_store_make(const struct df_config *c, struct df_error *err)
{
        char path[PATH_MAX];
        int rc;

        if (df_config_text(c, "checkpoint-store"))
                return 0;
        rc = ad_data_path(c, OWN_STORE, path, err);
        return rc == 0 ? df_mkdirs(path, err) : rc;
}

int ad_store_dir(const struct df_config *c, const char *topic, uint32_t partition, char *ret,
                 struct df_error *err)
{
        char store[PATH_MAX];
        int n, rc = ad_store(c, store, err);

        ret[0] = '\0';
        if (rc < 0 || !*store)
                return rc;
        n = snprintf(ret, PATH_MAX, "%s/%s/%u", store, topic, partition);
        if (n >= 0 && n < PATH_MAX - 64)
                return 0;
        return df_fail(err, DF_EINVAL, "--checkpoint-store %s: the path is too long", store);
}

int ad_rebuild_mark(const struct df_config *c, const char *topic, uint32_t partition, char *ret,
                    struct df_error *err)
{
        const char *name = "/REBUILD";
        int rc = ad_store_dir(c, topic, partition, ret, err);

        if (rc == 0 && !ret[0]) {
                name = ".rebuild";
                rc = ad_state_dir(c, topic, partition, ret, err);
        }
        if (rc == 0) /* both leave 64 bytes */
                memcpy(ret + strlen(ret), name, strlen(name) + 1);
        return rc;
}

int ad_store_check(const struct df_config *c, struct df_error *err)
{
        char store[PATH_MAX];
        int rc = ad_store(c, store, err);

        if (rc < 0 || !*store || access(store, R_OK | W_OK | X_OK) == 0)
                return rc;
        return df_fail(err, DF_EINVAL,
                       "--checkpoint-store %s: %s: mount it, or create it if it is new", store,
                       strerror(errno));
}

void ad_status_name(const struct df_config *c, char *ret)
{
        if (is_main(c))
                (void)snprintf(ret, 64, "realtime");
        else
                (void)snprintf(ret, 64, "realtime-%s", df_config_text(c, "instance"));
}
