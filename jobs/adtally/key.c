/* key.c - `adtally key`: an API key, and its line for the keys file; which other key is meant. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jobs/adtally/command.h"
#include "jobs/adtally/key.h"
#include "jobs/common/access.h"

static const char usage[] =
        "adtally key: make an API key, or the key that signs closed periods\n"
        "Usage: adtally key create --class CLASS [--tenant T] [--origins A,B] [--name TEXT] "
        "[--keys FILE]\n"
        "       adtally key create --signing [--rotate] [--data DIR]\n"
        "       adtally key list [--data DIR]          signing keys, oldest first\n"
        "       adtally key public [ID] [--data DIR]   a public signing key, as PEM\n\n"
        "An API key is printed once; only its hash is kept. With --keys the line is appended to "
        "the\n"
        "file, and running jobs accept the key within a second; without, the line is printed too.\n"
        "Classes: public (sends events without money from its origins), server (sends events), "
        "read\n"
        "(numbers), finance (also periods and corrections), admin.\n"
        "Signing keys (Ed25519) are in DATA/keys: signing.key, and ID.pub of every key there ever "
        "was.\n";
static const struct df_setting own[] = {
        {"class", DF_CHOICE, NULL, .choices = "public|server|read|finance|admin",
         .help = "what it may do"},
        {"tenant", DF_TEXT, "default", .arg = "T", .help = "whose events and numbers"},
        {"origins", DF_TEXT, NULL, .arg = "A,B", .help = "public keys: the pages it works from"},
        {"name", DF_TEXT, NULL, .arg = "TEXT", .help = "for people"},
        {"signing", DF_BOOL, "false", .help = "make the key that signs, not an API key"},
        {"rotate", DF_BOOL, "false",
         .help = "with --signing: put a new key in the old one's place"},
};
static const char *const shared[] = {"keys", "data", NULL};

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

/* Why the command line cannot be meant, or NULL. */
static const char *wrong(const struct ad_command_line *l)
{
        static const char *const of_api[] = {"class", "tenant", "origins", "name"};
        const char *what = l->arg_count > 0 ? l->args[0] : "";
        bool is_create = strcmp(what, "create") == 0, is_public = strcmp(what, "public") == 0;
        bool is_signing = df_config_bool(l->config, "signing") || !is_create;

        if (!is_create && !is_public && strcmp(what, "list") != 0)
                return "expected `create`, `list` or `public`";
        if (l->arg_count > (is_public ? 2 : 1))
                return "too many arguments";
        if (df_config_bool(l->config, "rotate") && !(is_create && is_signing))
                return "--rotate goes with `create --signing`";
        for (size_t i = 0; is_signing && i < sizeof(of_api) / sizeof(of_api[0]); i++)
                if (!df_config_is_default(l->config, of_api[i]))
                        return "--class, --tenant, --origins and --name are of API keys";
        if (!is_signing && !df_config_text(l->config, "class"))
                return "expected `create --class CLASS`, or `create --signing`";
        return NULL;
}

static int run(const struct ad_command_line *l, struct df_error *err)
{
        if (strcmp(l->args[0], "list") == 0)
                return ad_key_signing_list(l->config, err);
        if (strcmp(l->args[0], "public") == 0)
                return ad_key_signing_public(l->config, l->arg_count == 2 ? l->args[1] : NULL, err);
        if (df_config_bool(l->config, "signing"))
                return ad_key_signing_create(l->config, err);
        return create(l->config, err);
}

int ad_command_key(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        const char *why;
        int code;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        why = wrong(&l);
        if (why)
                code = ad_command_usage("key", "%s", why);
        else
                code = run(&l, &err) < 0 ? ad_command_fail("key", &err) : DF_EXIT_OK;
        ad_command_release(&l);
        return code;
}
