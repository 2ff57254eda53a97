#include "jobs/common/archive.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/run.h"

#define OFF "none"
#define OWN "archive" /* under DATA */

bool ad_archive_is_off(const struct df_config *c)
{
        const char *place = df_config_text(c, "archive");

        return place && strcmp(place, OFF) == 0;
}

int ad_archive_place(const struct df_config *c, char *ret, struct df_error *err)
{
        const char *place = df_config_text(c, "archive"), *data = df_config_text(c, "data");
        char whole[PATH_MAX];
        int rc;

        if (place) {
                if (snprintf(ret, PATH_MAX, "%s", place) < PATH_MAX)
                        return 0;
                return df_fail(err, DF_EINVAL, "--archive: the text is too long");
        }
        rc = df_mkdirs(data, err);
        if (rc < 0)
                return rc;
        if (!realpath(data, whole))
                return df_fail_errno(err, DF_EIO, "find %s", data);
        if (snprintf(ret, PATH_MAX, "dir:%s/" OWN, whole) < PATH_MAX)
                return 0;
        return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data);
}

static int check_secrets(const struct df_config *c, struct df_error *err)
{
        static const char *const secrets[] = {"s3-access-key", "s3-secret-key", "s3-session-token"};

        for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
                if (strcmp(df_config_origin(c, secrets[i]), "flag") == 0)
                        return df_fail(err, DF_EINVAL,
                                       "--%s: everybody on this machine can read a command line: "
                                       "give it in the file of --config or in the environment",
                                       secrets[i]);
        return 0;
}

int ad_archive_open_store(const struct df_config *c, struct df_objects **ret, struct df_error *err)
{
        struct df_objects_options o = {
                .s3_endpoint = df_config_text(c, "s3-endpoint"),
                .s3_region = df_config_text(c, "s3-region"),
                .s3_access_key = df_config_text(c, "s3-access-key"),
                .s3_secret_key = df_config_text(c, "s3-secret-key"),
                .s3_session_token = df_config_text(c, "s3-session-token"),
                .s3_key_source = "s3-access-key and s3-secret-key",
        };
        char place[PATH_MAX];
        int rc;

        *ret = NULL;
        if (ad_archive_is_off(c))
                return df_fail(err, DF_EINVAL,
                               "--archive " OFF ": there is no archive; name its place");
        rc = check_secrets(c, err);
        if (rc == 0)
                rc = ad_archive_place(c, place, err);
        o.place = place;
        return rc == 0 ? df_objects_open(&o, ret, err) : rc;
}
