/* key.c - `adtally key create`: an API key, and its line for the keys file. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jobs/adtally/command.h"
#include "jobs/common/access.h"

static const char usage[] =
        "adtally key: make an API key\n"
        "Usage: adtally key create --class CLASS [--tenant T] [--origins A,B] [--name TEXT] "
        "[--keys FILE]\n\n"
        "Prints the key once; only its hash is kept. With --keys the line is appended to the file, "
        "and\n"
        "running jobs accept the key within a second; without, the line is printed too.\n"
        "Classes: public (sends events without money from its origins), server (sends events), "
        "read\n"
        "(numbers), finance (also periods and corrections), admin.\n";
static const struct df_setting own[] = {
        {"class", DF_CHOICE, NULL, .choices = "public|server|read|finance|admin",
         .help = "what it may do"},
        {"tenant", DF_TEXT, "default", .arg = "T", .help = "whose events and numbers"},
        {"origins", DF_TEXT, NULL, .arg = "A,B", .help = "public keys: the pages it works from"},
        {"name", DF_TEXT, NULL, .arg = "TEXT", .help = "for people"},
};
static const char *const shared[] = {"keys", NULL};

static int append(const char *path, struct df_bytes line, struct df_error *err)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), rc = 0;

        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "open %s", path);
        if (write(fd, line.data, line.len) != (ssize_t)line.len || fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "append to %s", path);
        close(fd);
        return rc;
}

static int create(const struct df_config *c, struct df_error *err)
{
        struct ad_key_options o = {
                .tenant = df_config_text(c, "tenant"),
                .origins = df_config_text(c, "origins"),
                .name = df_config_text(c, "name"),
        };
        const char *file = df_config_text(c, "keys");
        char token[AD_KEY_TOKEN_SIZE];
        struct df_buf line = {0};
        int rc = 0;

        if (!ad_key_class_parse(df_bytes_str(df_config_text(c, "class")), &o.key_class))
                rc = df_fail(err, DF_EINVAL, "--class");
        if (rc == 0)
                rc = ad_access_make_key(&o, &line, token, err);
        if (rc == 0 && file)
                rc = append(file, df_buf_bytes(&line), err);
        if (rc == 0 && !file)
                printf("line for the keys file: %.*s", (int)line.len, (const char *)line.data);
        if (rc == 0)
                printf("key: %s\n", token);
        df_buf_release(&line);
        return rc;
}

int ad_command_key(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        if (l.arg_count != 1 || strcmp(l.args[0], "create") != 0 ||
            !df_config_text(l.config, "class")) {
                ad_command_release(&l);
                return ad_command_usage("key", "expected `create --class CLASS`");
        }
        rc = create(l.config, &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("key", &err) : DF_EXIT_OK;
}
