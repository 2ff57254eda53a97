/* import_ids.c - an open hash table of 128-bit keys in a memory-mapped file (import.h).
 *
 * A page of head, then slots of 24 bytes. It grows by writing a file twice as large and renaming it
 * over the old one. A file is trusted only if its head says that it was completed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jobs/adtally/import.h"

#define MAGIC 0x31736469796c6174u /* "talyids1" */
#define HEAD_BYTES 8192
#define CAP_FIRST (1u << 12)

struct slot {
        uint64_t lo, hi; /* both 0 = empty: a key of zeros is stored as {1, 0} */
        uint64_t value;
};

struct head {
        uint64_t magic, complete, cap, count;
        uint8_t note[AD_IDS_NOTE_MAX];
};

struct ad_ids {
        char path[PATH_MAX]; /* "" = a file without a name */
        char dir[PATH_MAX];
        int fd;
        struct head *head;
        struct slot *slots;
        size_t bytes;
};

static int map(struct ad_ids *t, uint64_t cap, struct df_error *err)
{
        void *p;

        t->bytes = HEAD_BYTES + (size_t)cap * sizeof(struct slot);
        p = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);
        if (p == MAP_FAILED)
                return df_fail_errno(err, DF_ENOMEM, "map %zu bytes of %s", t->bytes, t->dir);
        t->head = p;
        t->slots = (struct slot *)((char *)p + HEAD_BYTES);
        return 0;
}

/* A new empty file: without a name, or beside path. Its blocks are reserved: a full disk shows here
 * and not as a fault of a mapped page. */
static int create(struct ad_ids *t, uint64_t cap, struct df_error *err)
{
        char path[PATH_MAX + 8];
        size_t bytes = HEAD_BYTES + (size_t)cap * sizeof(struct slot);
        int rc;

        (void)snprintf(path, sizeof(path), "%s.new", t->path);
        t->fd = t->path[0] ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
                           : open(t->dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
        if (t->fd < 0)
                return df_fail_errno(err, DF_EIO, "create %s", t->path[0] ? path : t->dir);
        rc = posix_fallocate(t->fd, 0, (off_t)bytes);
        if (rc != 0) {
                errno = rc;
                return df_fail_errno(err, DF_EIO, "%zu bytes for ids in %s", bytes, t->dir);
        }
        rc = map(t, cap, err);
        if (rc == 0) {
                t->head->magic = MAGIC;
                t->head->cap = cap;
        }
        if (rc == 0 && t->path[0] && rename(path, t->path) < 0)
                rc = df_fail_errno(err, DF_EIO, "rename %s", path);
        return rc;
}

static bool sound(const struct head *h, off_t size)
{
        return h->magic == MAGIC && h->complete == 1 && h->cap >= CAP_FIRST &&
               (h->cap & (h->cap - 1)) == 0 && h->count < h->cap &&
               (uint64_t)size == HEAD_BYTES + h->cap * sizeof(struct slot);
}

static bool read_head(int fd, struct head *h)
{
        return pread(fd, h, sizeof(*h), 0) == (ssize_t)sizeof(*h) &&
               sound(h, lseek(fd, 0, SEEK_END));
}

bool ad_ids_peek(const char *path, void *ret_note)
{
        struct head *h = malloc(sizeof(*h));
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        bool ok = h && fd >= 0 && read_head(fd, h);

        if (ok)
                memcpy(ret_note, h->note, AD_IDS_NOTE_MAX);
        if (fd >= 0)
                close(fd);
        free(h);
        return ok;
}

int ad_ids_open(const char *dir, const char *path, struct ad_ids **ret, bool *ret_fresh,
                struct df_error *err)
{
        struct ad_ids *t = calloc(1, sizeof(*t));
        struct head *h = malloc(sizeof(*h));
        int rc = 0;

        *ret_fresh = true;
        if (!t || !h) {
                free(t);
                free(h);
                return df_fail(err, DF_ENOMEM, "a table of ids");
        }
        (void)snprintf(t->dir, sizeof(t->dir), "%s", dir);
        (void)snprintf(t->path, sizeof(t->path), "%s", path ? path : "");
        t->fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        if (t->fd >= 0 && read_head(t->fd, h)) {
                *ret_fresh = false;
                rc = map(t, h->cap, err);
        } else {
                if (t->fd >= 0)
                        close(t->fd);
                rc = create(t, CAP_FIRST, err);
        }
        free(h);
        if (rc < 0) {
                ad_ids_close(t);
                return rc;
        }
        *ret = t;
        return 0;
}

void ad_ids_close(struct ad_ids *t)
{
        if (!t)
                return;
        if (t->head)
                (void)munmap(t->head, t->bytes);
        if (t->fd >= 0)
                close(t->fd);
        free(t);
}

static struct slot *find(const struct ad_ids *t, struct df_hash128 key)
{
        uint64_t mask = t->head->cap - 1;

        if (key.lo == 0 && key.hi == 0)
                key.lo = 1;
        for (uint64_t i = key.hi & mask;; i = (i + 1) & mask) {
                struct slot *s = &t->slots[i];

                if ((s->lo == 0 && s->hi == 0) || (s->lo == key.lo && s->hi == key.hi))
                        return s;
        }
}

uint64_t *ad_ids_find(const struct ad_ids *t, struct df_hash128 key)
{
        struct slot *s = find(t, key);

        return s->lo || s->hi ? &s->value : NULL;
}

static int grow(struct ad_ids *t, struct df_error *err)
{
        struct ad_ids old = *t;
        int rc = create(t, old.head->cap * 2, err);

        if (rc < 0) {
                if (t->fd >= 0 && t->fd != old.fd)
                        close(t->fd);
                *t = old;
                return rc;
        }
        for (uint64_t i = 0; i < old.head->cap; i++) {
                const struct slot *s = &old.slots[i];

                if (s->lo || s->hi)
                        *find(t, (struct df_hash128){s->lo, s->hi}) = *s;
        }
        t->head->count = old.head->count;
        memcpy(t->head->note, old.head->note, AD_IDS_NOTE_MAX);
        (void)munmap(old.head, old.bytes);
        close(old.fd);
        return 0;
}

uint64_t *ad_ids_put(struct ad_ids *t, struct df_hash128 key, struct df_error *err)
{
        struct slot *s = find(t, key);

        if (s->lo || s->hi)
                return &s->value;
        if ((t->head->count + 1) * 4 > t->head->cap * 3) {
                if (grow(t, err) < 0)
                        return NULL;
                s = find(t, key);
        }
        s->lo = key.lo || key.hi ? key.lo : 1;
        s->hi = key.hi;
        t->head->count++;
        return &s->value;
}

uint64_t ad_ids_count(const struct ad_ids *t)
{
        return t->head->count;
}

void *ad_ids_note(struct ad_ids *t)
{
        return t->head->note;
}

int ad_ids_begin(struct ad_ids *t, struct df_error *err)
{
        t->head->complete = 0;
        if (msync(t->head, HEAD_BYTES, MS_SYNC) < 0)
                return df_fail_errno(err, DF_EIO, "sync %s", t->path);
        return 0;
}

int ad_ids_complete(struct ad_ids *t, struct df_error *err)
{
        if (msync(t->head, t->bytes, MS_SYNC) < 0 || fsync(t->fd) < 0)
                return df_fail_errno(err, DF_EIO, "sync %s", t->path);
        t->head->complete = 1;
        if (msync(t->head, HEAD_BYTES, MS_SYNC) < 0)
                return df_fail_errno(err, DF_EIO, "sync %s", t->path);
        return 0;
}
