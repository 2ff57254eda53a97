#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/hash.h"
#include "filelog_private.h"

#define SEG_NAME_LEN 24 /* 20 digits and ".seg" */
#define WALK_BYTES (64u << 10)

void dfi_seg_path(const struct dfi_part *part, uint64_t base, char out[DFI_PATH_MAX])
{
        dfi_path(out, "%s/%u/%020" PRIu64 ".seg", part->topic->dir, part->index, base);
}

static bool parse_name(const char *name, uint64_t *ret)
{
        uint64_t v = 0;

        if (strlen(name) != SEG_NAME_LEN || strcmp(name + 20, ".seg") != 0)
                return false;
        for (int i = 0; i < 20; i++) {
                if (name[i] < '0' || name[i] > '9')
                        return false;
                if (__builtin_mul_overflow(v, 10u, &v) ||
                    __builtin_add_overflow(v, (uint64_t)(name[i] - '0'), &v))
                        return false;
        }
        *ret = v;
        return true;
}

static int compare_base(const void *a, const void *b)
{
        uint64_t x = ((const struct dfi_seg_entry *)a)->base;
        uint64_t y = ((const struct dfi_seg_entry *)b)->base;

        return (x > y) - (x < y);
}

static int list_add(struct dfi_seg_list *list, struct dfi_seg_entry entry, struct df_error *err)
{
        if ((list->count & (list->count - 1)) == 0) { /* full at each power of two */
                size_t cap = list->count ? list->count * 2 : 1;
                struct dfi_seg_entry *items = realloc(list->items, cap * sizeof(*items));

                if (!items)
                        return df_fail(err, DF_ENOMEM, "no memory to list %zu segments", cap);
                list->items = items;
        }
        list->items[list->count++] = entry;
        return 0;
}

int dfi_seg_list(const struct dfi_part *part, struct dfi_seg_list *ret, struct df_error *err)
{
        struct dfi_seg_list list = {0};
        char dir_path[DFI_PATH_MAX];
        struct dirent *e;
        DIR *dir;
        int rc = 0;

        dfi_part_dir(part, dir_path);
        dir = opendir(dir_path);
        if (!dir)
                return dfi_fail_open(err, dir_path);
        while (rc == 0 && (e = readdir(dir))) {
                struct dfi_seg_entry entry;
                struct stat st;

                if (!parse_name(e->d_name, &entry.base))
                        continue;
                if (fstatat(dirfd(dir), e->d_name, &st, 0) != 0) {
                        if (errno == ENOENT)
                                continue; /* retention was faster */
                        rc = df_fail_errno(err, DF_EIO, "cannot stat %s/%s", dir_path, e->d_name);
                        break;
                }
                entry.bytes = (uint64_t)st.st_size;
                rc = list_add(&list, entry, err);
        }
        (void)closedir(dir);
        if (rc) {
                dfi_seg_list_release(&list);
                return rc;
        }
        if (list.count)
                qsort(list.items, list.count, sizeof(*list.items), compare_base);
        *ret = list;
        return 0;
}

void dfi_seg_list_release(struct dfi_seg_list *list)
{
        free(list->items);
        *list = (struct dfi_seg_list){0};
}

int dfi_seg_open(struct dfi_seg *s, const struct dfi_part *part, uint64_t base,
                 struct df_error *err)
{
        char path[DFI_PATH_MAX];

        dfi_seg_path(part, base, path);
        dfi_seg_close(s);
        s->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (s->fd < 0)
                return dfi_fail_open(err, path);
        s->base = base;
        return 0;
}

void dfi_seg_close(struct dfi_seg *s)
{
        s->fd = dfi_close(s->fd);
        s->win_len = 0;
}

void dfi_seg_release(struct dfi_seg *s)
{
        dfi_seg_close(s);
        free(s->win);
        s->win = NULL;
        s->win_cap = 0;
}

int dfi_seg_size(const struct dfi_seg *s, uint64_t *ret, struct df_error *err)
{
        struct stat st;

        if (fstat(s->fd, &st) != 0)
                return df_fail_errno(err, DF_EIO, "cannot stat segment %020" PRIu64 ".seg",
                                     s->base);
        *ret = (uint64_t)st.st_size;
        return 0;
}

/* Make [pos, pos + len) readable at *ret; len is within limit. *ret = NULL when the file ends
 * before. The window never reaches beyond limit: what follows may still change. */
static int window(struct dfi_seg *s, uint64_t pos, size_t len, uint64_t limit, const uint8_t **ret,
                  struct df_error *err)
{
        size_t want;
        ssize_t n;

        if (pos >= s->win_pos && pos + len <= s->win_pos + s->win_len) {
                *ret = s->win + (pos - s->win_pos);
                return 0;
        }
        want = len > s->chunk ? len : s->chunk;
        if (want > limit - pos)
                want = (size_t)(limit - pos);
        if (want > s->win_cap) {
                size_t cap = s->win_cap ? s->win_cap : 4096;
                uint8_t *win;

                while (cap < want)
                        cap *= 2;
                win = malloc(cap);
                if (!win)
                        return df_fail(err, DF_ENOMEM, "no memory for a window of %zu bytes", cap);
                free(s->win);
                s->win = win;
                s->win_cap = cap;
        }
        s->win_len = 0;
        n = dfi_pread_all(s->fd, s->win, want, pos);
        if (n < 0)
                return df_fail_errno(err, DF_EIO,
                                     "cannot read segment %020" PRIu64 ".seg at byte %" PRIu64,
                                     s->base, pos);
        s->win_pos = pos;
        s->win_len = (size_t)n;
        *ret = (size_t)n >= len ? s->win : NULL;
        return 0;
}

int dfi_seg_frame(struct dfi_seg *s, const struct dfi_part *part, const struct dfi_seg_at *at,
                  struct dfi_frame *ret, const uint8_t **ret_payload, const char **ret_why,
                  struct df_error *err)
{
        const uint8_t *p;
        struct dfi_frame f;
        size_t whole;
        int rc;

        *ret_why = "the file ends inside a frame";
        if (at->limit - at->pos < DFI_FRAME_HEADER)
                return 0;
        rc = window(s, at->pos, DFI_FRAME_HEADER, at->limit, &p, err);
        if (rc || !p)
                return rc;
        *ret_why = "the frame header is damaged";
        if (!dfi_frame_get(p, part->topic->info.generation, &f))
                return 0;
        *ret_why = "the frame belongs to another offset";
        if (f.base != at->offset)
                return 0;
        whole = DFI_FRAME_HEADER + (size_t)f.stored_len;
        *ret_why = "the file ends inside a frame";
        if (at->limit - at->pos < whole)
                return 0;
        if (!at->header_only) {
                rc = window(s, at->pos, whole, at->limit, &p, err);
                if (rc || !p)
                        return rc;
                *ret_why = "the checksum of a frame is wrong";
                if (df_crc32c(0, df_bytes(p + DFI_FRAME_HEADER, f.stored_len)) != f.payload_crc)
                        return 0;
                *ret_payload = p + DFI_FRAME_HEADER;
        }
        *ret = f;
        *ret_why = NULL;
        return 0;
}

int dfi_seg_resync(struct dfi_seg *s, const struct dfi_part *part, uint64_t pos, uint64_t offset,
                   struct dfi_frame *ret, bool *ret_found, struct df_error *err)
{
        uint64_t size;
        int rc = dfi_seg_size(s, &size, err);

        while (rc == 0 && pos + DFI_FRAME_HEADER <= size) {
                size_t len = size - pos < WALK_BYTES ? (size_t)(size - pos) : WALK_BYTES;
                const uint8_t *p, *at;
                struct dfi_frame f;

                rc = window(s, pos, len, size, &p, err);
                if (rc || !p)
                        break;
                for (at = p; at + DFI_FRAME_HEADER <= p + len; at++) {
                        at = memchr(at, 'A', (size_t)(p + len - at));
                        if (!at || at + DFI_FRAME_HEADER > p + len)
                                break;
                        if (!dfi_frame_get(at, part->topic->info.generation, &f) || f.base < offset)
                                continue;
                        *ret = f;
                        *ret_found = true;
                        return 0;
                }
                pos += len - (DFI_FRAME_HEADER - 1);
        }
        *ret_found = false;
        return rc;
}

int dfi_corrupt(const struct dfi_part *part, struct dfi_seg *s, const struct dfi_seg_at *at,
                const char *why, struct df_error *err)
{
        char next[80] = "nothing after it can be read";
        struct dfi_seg_list list = {0};
        struct dfi_frame f;
        bool found = false;

        /* Best effort: the damage itself is the error. */
        (void)dfi_seg_resync(s, part, at->pos, at->offset + 1, &f, &found, NULL);
        if (!found && dfi_seg_list(part, &list, NULL) == 0) {
                for (size_t i = 0; i < list.count && !found; i++) {
                        f.base = list.items[i].base;
                        found = f.base > at->offset;
                }
        }
        dfi_seg_list_release(&list);
        if (found)
                (void)snprintf(next, sizeof(next), "the log reads again from offset %" PRIu64,
                               f.base);
        return df_fail(err, DF_ECORRUPT,
                       "topic %s partition %u: %s in segment %020" PRIu64 ".seg at byte %" PRIu64
                       ", first lost offset %" PRIu64 "; %s. Way out: restore the file from a "
                       "copy; nothing skips records (docs/RUNBOOK.md)",
                       part->topic->info.name, part->index, why, s->base, at->pos, at->offset,
                       next);
}

int dfi_corrupt_missing(const struct dfi_part *part, uint64_t base, struct df_error *err)
{
        struct dfi_seg_list list = {0};
        char next[80] = "nothing after it is held";

        if (dfi_seg_list(part, &list, NULL) == 0)
                for (size_t i = 0; i < list.count; i++)
                        if (list.items[i].base > base) {
                                (void)snprintf(next, sizeof(next),
                                               "the next segment begins at offset %" PRIu64,
                                               list.items[i].base);
                                break;
                        }
        dfi_seg_list_release(&list);
        return df_fail(err, DF_ECORRUPT,
                       "topic %s partition %u: segment %020" PRIu64 ".seg is missing (or the one "
                       "before it was cut), byte 0, first lost offset %" PRIu64 "; %s. Way out: "
                       "restore the file from a copy; nothing skips records (docs/RUNBOOK.md)",
                       part->topic->info.name, part->index, base, base, next);
}
