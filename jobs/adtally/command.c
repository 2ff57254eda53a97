#include "jobs/adtally/command.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "df/trace.h"

static const struct df_setting *shared_setting(const char *name)
{
        for (size_t i = 0; i < ad_setting_count; i++)
                if (strcmp(ad_settings[i].name, name) == 0)
                        return &ad_settings[i];
        df_check(!"a shared setting exists");
        return NULL;
}

static void print_help(const char *usage, const struct df_setting *own, size_t own_count,
                       const char *const *shared)
{
        printf("%s\n", usage);
        if (own_count)
                printf("Options:\n");
        if (own_count)
                df_config_help(own, own_count, stdout);
        if (shared && *shared)
                printf("Settings (also ADTALLY_NAME in the environment, or name = value in "
                       "--config "
                       "FILE):\n");
        for (; shared && *shared; shared++)
                df_config_help(shared_setting(*shared), 1, stdout);
}

bool ad_command_read(int argc, char **argv, const char *usage, const struct df_setting *own,
                     size_t own_count, const char *const *shared, struct ad_command_line *ret,
                     int *ret_exit)
{
        size_t count = ad_setting_count + own_count;
        struct df_setting *table = calloc(count, sizeof(*table));
        const char **args = calloc((size_t)argc + 1, sizeof(*args));
        struct df_error err = {0};
        bool help = false;
        int n = 0, rc;

        memset(ret, 0, sizeof(*ret));
        *ret_exit = DF_EXIT_SOFTWARE;
        if (!table || !args)
                goto out;
        memcpy(table, ad_settings, ad_setting_count * sizeof(*table));
        if (own_count)
                memcpy(table + ad_setting_count, own, own_count * sizeof(*table));
        rc = df_config_load(table, count, argc, argv, &ret->config, args, &n, &help, &err);
        if (rc == 0 && help) {
                print_help(usage, own, own_count, shared);
                *ret_exit = DF_EXIT_OK;
        } else if (rc == 0 && n > AD_COMMAND_ARGS_MAX) {
                rc = df_fail(&err, DF_EINVAL, "more than %d arguments", AD_COMMAND_ARGS_MAX);
        }
        if (rc < 0) {
                fprintf(stderr, "adtally: %s\n", err.text);
                *ret_exit = DF_EXIT_USAGE;
        }
        if (rc < 0 || help) {
                df_config_release(ret->config);
                ret->config = NULL;
                goto out;
        }
        df_trace_level(df_config_text(ret->config, "log-level"));
        for (int i = 0; i < n; i++)
                ret->args[i] = args[i];
        ret->arg_count = n;
        ret->table = table;
        table = NULL;
out:
        free(table);
        free(args);
        return ret->config != NULL;
}

void ad_command_release(struct ad_command_line *l)
{
        df_config_release(l->config);
        free(l->table);
        l->config = NULL;
        l->table = NULL;
}

int ad_command_fail(const char *command, const struct df_error *err)
{
        fprintf(stderr, "adtally %s: %s (%s)\n", command, err->text, df_err_code(err->code));
        return df_exit_code(err->code);
}

int ad_command_usage(const char *command, const char *fmt, ...)
{
        va_list ap;

        fprintf(stderr, "adtally %s: ", command);
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fprintf(stderr, "; see `adtally %s --help`\n", command);
        return DF_EXIT_USAGE;
}

int ad_command_find_job(const char *name, char *ret, struct df_error *err)
{
        char self[PATH_MAX / 2];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        int dir;

        if (n <= 0 || n == (ssize_t)sizeof(self) - 1)
                return df_fail_errno(err, DF_EIO, "find this program's path");
        self[n] = '\0';
        dir = (int)(strrchr(self, '/') - self);
        (void)snprintf(ret, PATH_MAX, "%.*s/../libexec/adtally/adtally-%s", dir, self, name);
        if (access(ret, X_OK) == 0)
                return 0;
        (void)snprintf(ret, PATH_MAX, "%.*s/../%s/adtally-%s", dir, self, name, name);
        if (access(ret, X_OK) == 0)
                return 0;
        return df_fail(
                err, DF_ENOENT,
                "adtally-%s is neither in %.*s/../libexec/adtally nor in the build directory: "
                "install or build it",
                name, dir, self);
}

static int hand_down(const char *prefix, const char *name, const char *value, struct df_error *err)
{
        char *variable = NULL;
        int rc;

        if (asprintf(&variable, "%s%s", prefix, name) < 0)
                return df_fail(err, DF_ENOMEM, "%s", name);
        for (char *p = variable; *p; p++)
                *p = *p == '.' || *p == '-' ? '_' : (char)toupper((unsigned char)*p);
        rc = setenv(variable, value, 1);
        free(variable);
        return rc < 0 ? df_fail_errno(err, DF_ENOMEM, "%s", name) : 0;
}

int ad_command_hand_down_secrets(const struct df_config *c, struct df_error *err)
{
        const char *name, *value;
        int rc = 0;

        for (size_t i = 0; rc == 0 && (value = df_config_member(c, "kafka.*", i, &name)); i++)
                rc = hand_down("ADTALLY_KAFKA__", name, value, err);
        for (size_t i = 0; rc == 0 && i < ad_setting_count; i++)
                if (ad_settings[i].secret && (value = df_config_value(c, ad_settings[i].name)))
                        rc = hand_down("ADTALLY_", ad_settings[i].name, value, err);
        return rc;
}

int ad_command_lock_data(const struct df_config *c, int *ret_fd, struct df_error *err)
{
        char path[PATH_MAX], owner[32] = "";
        int fd, rc = df_mkdirs(df_config_text(c, "data"), err);

        if (rc == 0)
                rc = ad_data_path(c, "LOCK", path, err);
        if (rc < 0)
                return rc;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "open %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                ssize_t n = read(fd, owner, sizeof(owner) - 1);

                owner[n > 0 ? strcspn(owner, "\n") : 0] = '\0';
                close(fd);
                return df_fail(
                        err, DF_EFENCED,
                        "%s is in use by another `adtally up` (pid %s): stop that one, or give "
                        "this one its own --data DIR",
                        df_config_text(c, "data"), owner);
        }
        (void)snprintf(owner, sizeof(owner), "%d\n", (int)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, owner, strlen(owner), 0) < 0) {
                close(fd);
                return df_fail_errno(err, DF_EIO, "write %s", path);
        }
        *ret_fd = fd;
        return 0;
}
