/* zone_load.c - zones by name: files of the system's tz database, read once. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/api/zone_private.h"

#define ZONE_DIR "/usr/share/zoneinfo"

struct entry {
        struct ad_zone *zone;
        struct entry *next;
};

struct ad_zones {
        pthread_mutex_t lock;
        char dir[512];
        char version[AD_TZ_VERSION_MAX + 1];
        struct ad_zone utc;
        struct entry *loaded; /* only names that exist: bounded by the directory */
};

bool ad_zone_name_valid(const char *name)
{
        size_t len = strlen(name);

        if (len == 0 || len > AD_ZONE_NAME_MAX || name[0] == '/' || name[len - 1] == '/')
                return false;
        for (size_t i = 0; i < len; i++) {
                char c = name[i];
                bool known = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '_' || c == '/';

                if (!known || (c == '/' && name[i + 1] == '/'))
                        return false;
        }
        return true;
}

/* Up to max bytes of a regular file. */
static int read_regular(const char *path, size_t max, struct df_buf *ret, struct df_error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        uint8_t part[4096];
        struct stat st;
        ssize_t n;

        if (fd < 0)
                return df_fail(err, DF_ENOENT, "there is no %s", path);
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                (void)close(fd); /* nothing was written */
                return df_fail(err, DF_ENOENT, "%s is not a file", path);
        }
        while ((n = read(fd, part, sizeof(part))) > 0 && ret->len < max)
                df_buf_append(ret, part, (size_t)n);
        (void)close(fd);
        if (n < 0)
                return df_fail_errno(err, DF_EIO, "read %s", path);
        return df_buf_check(ret, err);
}

/* "# version 2025b" in tzdata.zi, or the whole of +VERSION. */
static void find_version(struct ad_zones *z)
{
        static const char *const files[] = {"+VERSION", "tzdata.zi"};
        struct df_error ignored;

        (void)snprintf(z->version, sizeof(z->version), "unknown");
        for (int i = 0; i < 2; i++) {
                struct df_buf b = {0};
                char path[640], text[64];
                size_t n;

                (void)snprintf(path, sizeof(path), "%s/%s", z->dir, files[i]);
                if (read_regular(path, 1, &b, &ignored) == 0 && b.len > 0) {
                        n = b.len < sizeof(text) - 1 ? b.len : sizeof(text) - 1;
                        memcpy(text, b.data, n);
                        text[n] = '\0';
                        text[strcspn(text, "\r\n")] = '\0';
                        (void)sscanf(text,
                                     i == 0 ? "%31[A-Za-z0-9.-]" : "# version %31[A-Za-z0-9.-]",
                                     z->version);
                }
                df_buf_release(&b);
        }
}

int ad_zones_create(const char *dir, struct ad_zones **ret, struct df_error *err)
{
        struct ad_zones *z = calloc(1, sizeof(*z));

        if (!z)
                return df_fail(err, DF_ENOMEM, "zones");
        if (snprintf(z->dir, sizeof(z->dir), "%s", dir ? dir : ZONE_DIR) >= (int)sizeof(z->dir)) {
                free(z);
                return df_fail(err, DF_EINVAL, "the path of the time zones is too long");
        }
        pthread_mutex_init(&z->lock, NULL);
        (void)snprintf(z->utc.name, sizeof(z->utc.name), "UTC");
        find_version(z);
        *ret = z;
        return 0;
}

static int load(struct ad_zones *z, const char *name, const struct ad_zone **ret,
                struct df_error *err)
{
        struct entry *e = calloc(1, sizeof(*e));
        struct df_buf b = {0};
        char path[640];
        int r = 0;

        if (!e)
                return df_fail(err, DF_ENOMEM, "zone %s", name);
        (void)snprintf(path, sizeof(path), "%s/%s", z->dir, name);
        r = read_regular(path, AD_ZONE_FILE_MAX, &b, err);
        if (r == DF_ENOENT)
                r = df_fail(err, DF_ENOENT, "there is no time zone %s (tz database: %s)", name,
                            z->version);
        if (r == 0)
                r = ad_zone_parse(name, df_buf_bytes(&b), &e->zone, err);
        df_buf_release(&b);
        if (r < 0) {
                free(e);
                return r;
        }
        e->next = z->loaded;
        z->loaded = e;
        *ret = e->zone;
        return 0;
}

int ad_zones_get(struct ad_zones *z, const char *name, const struct ad_zone **ret,
                 struct df_error *err)
{
        int r = 0;

        if (!ad_zone_name_valid(name))
                return df_fail(err, DF_EINVAL, "not the name of a time zone");
        if (strcmp(name, "UTC") == 0) {
                *ret = &z->utc;
                return 0;
        }
        pthread_mutex_lock(&z->lock);
        struct entry *e = z->loaded;
        while (e && strcmp(e->zone->name, name) != 0)
                e = e->next;
        if (e)
                *ret = e->zone;
        else
                r = load(z, name, ret, err);
        pthread_mutex_unlock(&z->lock);
        return r;
}

const char *ad_zones_version(const struct ad_zones *z)
{
        return z->version;
}

void ad_zones_destroy(struct ad_zones *z)
{
        if (!z)
                return;
        while (z->loaded) {
                struct entry *next = z->loaded->next;

                ad_zone_destroy(z->loaded->zone);
                free(z->loaded);
                z->loaded = next;
        }
        pthread_mutex_destroy(&z->lock);
        free(z);
}
