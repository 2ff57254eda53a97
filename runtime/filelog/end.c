/* end.c - END, the durable end of a partition in memory shared between processes.
 *
 * Two slots and a sequence number. The writer fills the slot that no reader looks at, then
 * publishes it by advancing the sequence: a writer killed at any instruction leaves a whole slot
 * behind, and readers never wait. The checksums matter after a power loss only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/hash.h"
#include "filelog_private.h"

#define END_MAGIC 0x31444e4541444c46ull
#define END_BYTES 4096
#define READ_TRIES 1000 /* the writer would have to publish in the middle of each */

struct slot {
        uint64_t seq;
        uint64_t offset;
        uint64_t seg_base;
        uint64_t pos;
        uint64_t append_ms;
        uint64_t crc;
};

struct dfi_end_file {
        uint64_t magic;
        uint64_t generation;
        uint64_t boot; /* of the last start of a writer; 0 = none yet */
        uint64_t seq;
        struct slot slots[2];
};

static uint64_t slot_crc(const struct slot *s)
{
        return df_crc32c(0, df_bytes(s, offsetof(struct slot, crc)));
}

static uint64_t load(const uint64_t *p)
{
        return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store(uint64_t *p, uint64_t v)
{
        __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

bool dfi_end_read(const struct dfi_end_map *map, struct dfi_end *ret)
{
        const struct dfi_end_file *f = map->file;

        for (int i = 0; i < READ_TRIES; i++) {
                uint64_t seq = __atomic_load_n(&f->seq, __ATOMIC_ACQUIRE);
                const struct slot *from = &f->slots[seq & 1];
                struct slot s = {.seq = load(&from->seq),
                                 .offset = load(&from->offset),
                                 .seg_base = load(&from->seg_base),
                                 .pos = load(&from->pos),
                                 .append_ms = load(&from->append_ms),
                                 .crc = __atomic_load_n(&from->crc, __ATOMIC_ACQUIRE)};

                if (s.seq == seq && s.crc == slot_crc(&s)) {
                        *ret = (struct dfi_end){.offset = s.offset,
                                                .seg_base = s.seg_base,
                                                .pos = s.pos,
                                                .append_ms = (int64_t)s.append_ms};
                        return true;
                }
        }
        return false;
}

void dfi_end_write(struct dfi_end_map *map, const struct dfi_end *end)
{
        struct dfi_end_file *f = map->file;
        uint64_t seq = load(&f->seq) + 1;
        struct slot *to = &f->slots[seq & 1];
        struct slot s = {.seq = seq,
                         .offset = end->offset,
                         .seg_base = end->seg_base,
                         .pos = end->pos,
                         .append_ms = (uint64_t)end->append_ms};

        store(&to->seq, s.seq);
        store(&to->offset, s.offset);
        store(&to->seg_base, s.seg_base);
        store(&to->pos, s.pos);
        store(&to->append_ms, s.append_ms);
        store(&to->crc, slot_crc(&s));
        __atomic_store_n(&f->seq, seq, __ATOMIC_RELEASE);
}

bool dfi_end_exact(const struct dfi_end_map *map)
{
        uint64_t boot = dfi_boot_id();

        return boot != 0 && load(&map->file->boot) == boot;
}

void dfi_end_mark_exact(struct dfi_end_map *map)
{
        store(&map->file->boot, dfi_boot_id());
}

/* Real bytes, not a hole: a store into a mapped hole of a full disk would be a SIGBUS. */
static void image(uint8_t out[END_BYTES], uint64_t generation)
{
        struct dfi_end_file f = {.magic = END_MAGIC, .generation = generation};

        f.slots[0].crc = slot_crc(&f.slots[0]);
        memset(out, 0, END_BYTES);
        memcpy(out, &f, sizeof(f));
}

int dfi_end_create(const char *part_dir, uint64_t generation, struct df_error *err)
{
        uint8_t bytes[END_BYTES];

        image(bytes, generation);
        return dfi_file_replace(part_dir, ".END.tmp", "END", bytes, sizeof(bytes), err);
}

static bool header_ok(const struct dfi_end_file *f, const struct dfi_part *part)
{
        return load(&f->magic) == END_MAGIC && load(&f->generation) == part->topic->info.generation;
}

/* *ret_short: the file is missing or too short to be mapped. */
static int map_file(const struct dfi_part *part, bool writable, struct dfi_end_map *ret,
                    bool *ret_short, struct df_error *err)
{
        int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
        char path[DFI_PATH_MAX];
        struct stat st;
        void *p;
        int fd, rc = 0;

        dfi_path(path, "%s/%u/END", part->topic->dir, part->index);
        *ret_short = false;
        fd = open(path, flags);
        if (fd < 0) {
                *ret_short = errno == ENOENT;
                return *ret_short ? 0 : dfi_fail_open(err, path);
        }
        if (fstat(fd, &st) != 0) {
                rc = df_fail_errno(err, DF_EIO, "cannot stat %s", path);
                goto out;
        }
        if (st.st_size < END_BYTES) {
                *ret_short = true;
                goto out;
        }
        p = mmap(NULL, END_BYTES, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
                rc = df_fail_errno(err, DF_EIO, "cannot map %s", path);
                goto out;
        }
        *ret = (struct dfi_end_map){.file = p, .inode = (uint64_t)st.st_ino};
out:
        (void)close(fd);
        return rc;
}

int dfi_end_open(const struct dfi_part *part, struct dfi_end_map *ret, struct df_error *err)
{
        struct dfi_end_map map = {0};
        struct dfi_end end;
        bool too_short;
        int rc = map_file(part, false, &map, &too_short, err);

        if (rc)
                return rc;
        if (too_short || !header_ok(map.file, part) || !dfi_end_read(&map, &end)) {
                dfi_end_close(&map);
                return df_fail(err, DF_EAGAIN,
                               "topic %s partition %u: %s/%u/END is missing or damaged; it is "
                               "rebuilt when the writer of the topic starts",
                               part->topic->info.name, part->index, part->topic->dir, part->index);
        }
        *ret = map;
        return 0;
}

int dfi_end_open_writer(const struct dfi_part *part, struct dfi_end_map *ret,
                        struct dfi_end *ret_end, bool *ret_known, struct df_error *err)
{
        struct dfi_end_map map = {0};
        char dir[DFI_PATH_MAX];
        bool too_short;
        int rc = map_file(part, true, &map, &too_short, err);

        if (rc == 0 && too_short) {
                dfi_part_dir(part, dir);
                rc = dfi_end_create(dir, part->topic->info.generation, err);
                if (rc == 0)
                        rc = map_file(part, true, &map, &too_short, err);
                if (rc == 0 && !map.file)
                        rc = df_fail(err, DF_EIO, "%s/END vanished", dir);
                if (rc)
                        return rc;
                *ret_known = false;
        } else if (rc == 0) {
                *ret_known = header_ok(map.file, part) && dfi_end_read(&map, ret_end);
        }
        if (rc)
                return rc;
        if (!*ret_known) {
                uint8_t bytes[END_BYTES];

                image(bytes, part->topic->info.generation);
                memcpy(map.file, bytes, sizeof(bytes));
        }
        *ret = map;
        return 0;
}

void dfi_end_close(struct dfi_end_map *map)
{
        if (map->file)
                (void)munmap(map->file, END_BYTES);
        *map = (struct dfi_end_map){0};
}

bool dfi_end_replaced(const struct dfi_part *part, const struct dfi_end_map *map)
{
        char path[DFI_PATH_MAX];
        struct stat st;

        dfi_path(path, "%s/%u/END", part->topic->dir, part->index);
        return stat(path, &st) != 0 || (uint64_t)st.st_ino != map->inode;
}
