/* topic.c - creating, finding and naming topics.
 *
 * A topic appears by one rename of a complete, synced directory; a half-made one (.new-<name>) is
 * never seen, and removed by the next creation of the same name. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filelog_private.h"

#define TOPIC_TEXT_MAX 256

bool dfi_name_ok(const char *name)
{
        size_t n = strlen(name);

        if (n == 0 || n > DF_TOPIC_NAME_MAX)
                return false;
        for (size_t i = 0; i < n; i++) {
                char c = name[i];
                bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

                if (!word && (i == 0 || (c != '.' && c != '_' && c != '-')))
                        return false;
        }
        return true;
}

static int check_name(const char *topic, struct df_error *err)
{
        if (dfi_name_ok(topic))
                return 0;
        return df_fail(err, DF_EINVAL, "topic name \"%.80s\" is not [a-z0-9][a-z0-9._-]{0,%d}",
                       topic, DF_TOPIC_NAME_MAX - 1);
}

/* The whole text must be what we would have written. */
static int parse_topic(const char *path, const char *text, struct df_topic_info *info,
                       struct df_error *err)
{
        char again[TOPIC_TEXT_MAX];

        if (sscanf(text, "adtally-topic 1\npartitions %" SCNu32 "\ngeneration %" SCNx64,
                   &info->partitions, &info->generation) != 2)
                return df_fail(err, DF_ECORRUPT, "%s is not a topic description", path);
        (void)snprintf(again, sizeof(again),
                       "adtally-topic 1\npartitions %" PRIu32 "\ngeneration %016" PRIx64 "\n",
                       info->partitions, info->generation);
        if (strcmp(again, text) != 0 || info->partitions == 0 ||
            info->partitions > DF_PARTITIONS_MAX || info->generation == 0)
                return df_fail(err, DF_ECORRUPT, "%s is not a topic description", path);
        return 0;
}

int dfi_topic_load(const struct dfi_log *log, const char *topic, struct dfi_topic *ret,
                   struct df_error *err)
{
        char path[DFI_PATH_MAX], text[TOPIC_TEXT_MAX];
        struct dfi_topic t = {0};
        size_t len;
        int rc = check_name(topic, err);

        if (rc)
                return rc;
        memcpy(t.info.name, topic, strlen(topic) + 1);
        dfi_path(t.dir, "%s/topics/%s", log->dir, topic);
        dfi_path(path, "%s/TOPIC", t.dir);
        rc = dfi_file_read(path, text, sizeof(text), &len, err);
        if (rc == DF_ENOENT)
                return df_fail(err, DF_ENOENT, "no topic %s in %s", topic, log->dir);
        if (rc == 0)
                rc = parse_topic(path, text, &t.info, err);
        if (rc == 0)
                *ret = t;
        return rc;
}

int dfi_topic_part(const struct dfi_topic *topic, uint32_t partition, struct dfi_part *ret,
                   struct df_error *err)
{
        if (partition >= topic->info.partitions)
                return df_fail(err, DF_EINVAL, "topic %s has partitions 0 to %u, not %u",
                               topic->info.name, topic->info.partitions - 1, partition);
        *ret = (struct dfi_part){.topic = topic, .index = partition};
        return 0;
}

/* A half-made topic: two levels, only names that we make. */
static void remove_tree(const char *path, int depth)
{
        DIR *dir = opendir(path);
        struct dirent *e;

        while (dir && (e = readdir(dir))) {
                char sub[DFI_PATH_MAX];

                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;
                dfi_path(sub, "%.700s/%.255s", path, e->d_name);
                if (unlink(sub) != 0 && depth > 0)
                        remove_tree(sub, depth - 1);
        }
        if (dir)
                (void)closedir(dir);
        (void)rmdir(path); /* if it stays, the creation that follows says so */
}

static int new_generation(uint64_t *ret, struct df_error *err)
{
        uint64_t g = 0;

        while (g == 0)
                if (getrandom(&g, sizeof(g), 0) != (ssize_t)sizeof(g) && errno != EINTR)
                        return df_fail_errno(err, DF_EIO, "cannot get random bytes");
        *ret = g;
        return 0;
}

static int build_topic(const char *dir, uint32_t partitions, struct df_error *err)
{
        char path[DFI_PATH_MAX], text[TOPIC_TEXT_MAX];
        uint64_t generation = 0;
        int n, rc;

        rc = new_generation(&generation, err);
        if (rc == 0)
                rc = dfi_mkdir(dir, err);
        if (rc)
                return rc;
        dfi_path(path, "%s/consumers", dir);
        rc = dfi_mkdir(path, err);
        for (uint32_t i = 0; i < partitions && rc == 0; i++) {
                dfi_path(path, "%s/%u", dir, i);
                rc = dfi_mkdir(path, err);
                if (rc == 0)
                        rc = dfi_end_create(path, generation, err);
        }
        if (rc)
                return rc;
        n = snprintf(text, sizeof(text),
                     "adtally-topic 1\npartitions %" PRIu32 "\ngeneration %016" PRIx64 "\n",
                     partitions, generation);
        return dfi_file_replace(dir, ".TOPIC.tmp", "TOPIC", text, (size_t)n, err);
}

int dfi_topic_create(struct df_log *base, const char *topic, uint32_t partitions,
                     struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        char topics[DFI_PATH_MAX], fresh[DFI_PATH_MAX], lock[DFI_PATH_MAX];
        struct dfi_topic t;
        int fd = -1;
        int rc = check_name(topic, err);

        if (rc)
                return rc;
        if (partitions == 0 || partitions > DF_PARTITIONS_MAX)
                return df_fail(err, DF_ELIMIT, "topic %s: %u partitions are not within 1 to %d",
                               topic, partitions, DF_PARTITIONS_MAX);
        rc = dfi_check_not_moved(log, err);
        if (rc)
                return rc;
        dfi_path(topics, "%s/topics", log->dir);
        dfi_path(lock, "%s/.create", topics);
        dfi_path(fresh, "%s/.new-%s", topics, topic);
        rc = dfi_lock(lock, true, &fd, err);
        if (rc)
                return rc;
        rc = dfi_topic_load(log, topic, &t, err);
        if (rc == 0 && t.info.partitions != partitions)
                rc = df_fail(err, DF_ESCHEMA,
                             "topic %s has %u partitions, not %u; the number is fixed when a "
                             "topic is created",
                             topic, t.info.partitions, partitions);
        if (rc != DF_ENOENT)
                goto out;
        remove_tree(fresh, 2);
        rc = build_topic(fresh, partitions, err);
        dfi_path(t.dir, "%s/%s", topics, topic);
        if (rc == 0 && rename(fresh, t.dir) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot rename %s to %s", fresh, t.dir);
        if (rc == 0)
                rc = dfi_sync_dir(topics, err);
out:
        (void)dfi_close(fd);
        return rc;
}

/* Hidden by one rename first, so that it is there whole or not at all. */
int dfi_topic_delete(struct df_log *base, const char *topic, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        char topics[DFI_PATH_MAX], gone[DFI_PATH_MAX], lock[DFI_PATH_MAX];
        struct dfi_topic t;
        int fd = -1, writer = -1, rc;

        dfi_path(topics, "%s/topics", log->dir);
        dfi_path(lock, "%s/.create", topics);
        dfi_path(gone, "%s/.new-%s", topics, topic);
        rc = dfi_lock(lock, true, &fd, err);
        if (rc)
                return rc;
        remove_tree(gone, 3); /* what an interrupted call left */
        rc = dfi_topic_load(log, topic, &t, err);
        if (rc == 0) {
                dfi_path(lock, "%.1000s/LOCK", t.dir);
                rc = dfi_lock(lock, false, &writer, err);
                if (rc == 0 && rename(t.dir, gone) != 0)
                        rc = df_fail_errno(err, DF_EIO, "cannot rename %s to %s", t.dir, gone);
                if (rc == 0)
                        rc = dfi_sync_dir(topics, err);
                if (rc == 0)
                        remove_tree(gone, 3);
        } else if (rc == DF_ENOENT) {
                rc = 0;
        }
        (void)dfi_close(writer);
        (void)dfi_close(fd);
        return rc;
}

static int compare_name(const void *a, const void *b)
{
        return strcmp(((const struct df_topic_info *)a)->name,
                      ((const struct df_topic_info *)b)->name);
}

int dfi_topic_list(struct df_log *base, const char *prefix,
                   int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                   struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        struct df_buf found = {0};
        char path[DFI_PATH_MAX];
        struct df_topic_info *infos;
        struct dirent *e;
        size_t count;
        DIR *dir;
        int rc = 0;

        dfi_path(path, "%s/topics", log->dir);
        dir = opendir(path);
        if (!dir)
                return dfi_fail_open(err, path);
        while (rc == 0 && (e = readdir(dir))) {
                struct dfi_topic t;

                if (!dfi_name_ok(e->d_name) || strncmp(e->d_name, prefix, strlen(prefix)) != 0)
                        continue;
                rc = dfi_topic_load(log, e->d_name, &t, err);
                if (rc == 0)
                        df_buf_append(&found, &t.info, sizeof(t.info));
                else if (rc == DF_ENOENT)
                        rc = 0; /* being removed, or somebody else's directory */
        }
        (void)closedir(dir);
        if (rc == 0)
                rc = df_buf_check(&found, err);
        infos = (void *)found.data;
        count = found.len / sizeof(*infos);
        if (rc == 0 && count > 1)
                qsort(infos, count, sizeof(*infos), compare_name);
        for (size_t i = 0; i < count && rc == 0; i++) {
                rc = fn(arg, &infos[i]);
                if (rc && err && err->code != rc)
                        (void)df_fail(err, rc, "the caller stopped the list of topics");
        }
        df_buf_release(&found);
        return rc;
}
