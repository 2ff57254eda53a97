/* dirs.c - what state directories and checkpoint stores hold, and what happens to their disks. */
#include "sim_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct dfi_sim_dir *dfi_sim_dir_find(struct df_sim *sim, const char *name)
{
        struct dfi_sim_dir *d;

        for (size_t i = 0; i < sim->dir_count; i++)
                if (strcmp(sim->dirs[i]->name, name) == 0)
                        return sim->dirs[i];
        df_check(strlen(name) < DFI_SIM_NAME_MAX);
        d = dfi_sim_alloc(sizeof(*d));
        (void)snprintf(d->name, sizeof(d->name), "%s", name);
        sim->dirs = dfi_sim_grow(sim->dirs, sim->dir_count, &sim->dir_cap, sizeof(*sim->dirs));
        sim->dirs[sim->dir_count++] = d;
        return d;
}

struct dfi_sim_checkpoint *dfi_sim_checkpoint_find(struct dfi_sim_dir *d, uint64_t id)
{
        for (size_t i = 0; i < d->count; i++)
                if (d->checkpoints[i].id == id)
                        return &d->checkpoints[i];
        return NULL;
}

struct dfi_sim_checkpoint *dfi_sim_checkpoint_add(struct dfi_sim_dir *d)
{
        struct dfi_sim_checkpoint *p;

        d->checkpoints = dfi_sim_grow(d->checkpoints, d->count, &d->cap, sizeof(*d->checkpoints));
        p = &d->checkpoints[d->count++];
        *p = (struct dfi_sim_checkpoint){0};
        return p;
}

struct dfi_sim_checkpoint *dfi_sim_checkpoint_put(struct dfi_sim_dir *d,
                                                  const struct dfi_sim_checkpoint *p)
{
        struct dfi_sim_checkpoint *copy = dfi_sim_checkpoint_find(d, p->id);

        if (copy)
                dfi_sim_checkpoint_release(copy);
        else
                copy = dfi_sim_checkpoint_add(d);
        *copy = *p;
        copy->table = (struct dfi_sim_table){0};
        copy->note = (struct df_buf){0};
        dfi_sim_table_copy(&copy->table, &p->table);
        df_buf_append(&copy->note, p->note.data, p->note.len);
        df_check(!copy->note.failed);
        return copy;
}

void dfi_sim_checkpoint_release(struct dfi_sim_checkpoint *p)
{
        dfi_sim_table_release(&p->table);
        df_buf_release(&p->note);
}

/* 32 bytes out of two 128-bit hashes: not cryptographic, and no library. */
void dfi_sim_checkpoint_digest(const struct dfi_sim_checkpoint *p, uint8_t ret[32])
{
        struct df_buf b = {0};
        struct df_hash128 h[2];

        df_put_u64be(&b, p->k);
        df_put_u64be(&b, p->epoch);
        df_put_u64be(&b, p->parent_id);
        df_put_lstr(&b, df_buf_bytes(&p->note));
        dfi_sim_table_dump(&p->table, &b);
        h[0] = df_hash128(df_buf_bytes(&b));
        df_put_u8(&b, 1);
        df_check(!b.failed);
        h[1] = df_hash128(df_buf_bytes(&b));
        memcpy(ret, h, sizeof(h));
        df_buf_release(&b);
}

bool dfi_sim_checkpoint_whole(const struct dfi_sim_checkpoint *p)
{
        uint8_t digest[32];

        dfi_sim_checkpoint_digest(p, digest);
        return memcmp(digest, p->digest, sizeof(digest)) == 0;
}

void dfi_sim_checkpoint_name(const struct dfi_sim_checkpoint *p, char ret[DF_CKPT_NAME_MAX + 1])
{
        (void)snprintf(ret, DF_CKPT_NAME_MAX + 1, "ck-%" PRIu64 "-%" PRIu64 "-%016" PRIx64, p->k,
                       p->epoch, p->id);
}

void dfi_sim_checkpoints_drop(struct dfi_sim_dir *d, uint64_t a, uint64_t b, uint64_t c,
                              struct df_sim_random *chance)
{
        size_t kept = 0;

        for (size_t i = 0; i < d->count; i++) {
                const uint64_t id = d->checkpoints[i].id;
                const bool keep = id == a || id == b || id == c ||
                                  (chance && df_sim_random_chance(chance, 500));

                if (keep)
                        d->checkpoints[kept++] = d->checkpoints[i];
                else
                        dfi_sim_checkpoint_release(&d->checkpoints[i]);
        }
        d->count = kept;
}

static void clear_dir(struct dfi_sim_dir *d)
{
        dfi_sim_checkpoints_drop(d, 0, 0, 0, NULL);
        d->current = d->fallback_to = 0;
        d->fallback_from[0] = '\0';
        d->reset = false;
        d->reset_for[0] = '\0';
}

void dfi_sim_dir_free(struct dfi_sim_dir *d)
{
        clear_dir(d);
        free(d->checkpoints);
        dfi_sim_free(d, sizeof(*d));
}

/* ---- disks ---- */

bool df_sim_ckpt_damage(struct df_sim *sim, const char *dir)
{
        struct dfi_sim_dir *d = dfi_sim_dir_find(sim, dir);
        struct dfi_sim_checkpoint *p = dfi_sim_checkpoint_find(d, d->current);
        struct df_bytes *b;

        if (!p || p->table.count == 0)
                return false;
        b = &p->table.entries[df_sim_random_below(&sim->random, p->table.count)].key;
        ((uint8_t *)(uintptr_t)b->data)[df_sim_random_below(&sim->random, b->len)] ^= 0x10;
        return true;
}

static void lose_dir(struct dfi_sim_dir *d, bool keep_epoch)
{
        df_check(!d->owner || !dfi_sim_alive(&d->owner->at));
        clear_dir(d);
        d->reset = keep_epoch;
        if (!keep_epoch)
                d->epoch = 0;
}

/* "d" stands for "d@0", "d@1" and so on, what each process has of a shared one. */
static bool is_local_part(const struct dfi_sim_dir *d, const char *dir)
{
        const size_t len = strlen(dir);

        return d->store && strncmp(d->name, dir, len) == 0 && d->name[len] == '@';
}

void df_sim_ckpt_lose(struct df_sim *sim, const char *dir, bool keep_epoch)
{
        bool shared = false;

        for (size_t i = 0; i < sim->dir_count; i++)
                if (is_local_part(sim->dirs[i], dir)) {
                        lose_dir(sim->dirs[i], keep_epoch);
                        shared = true;
                }
        if (!shared)
                lose_dir(dfi_sim_dir_find(sim, dir), keep_epoch);
}

bool df_sim_ckpt_fallback(struct df_sim *sim, const char *dir)
{
        struct dfi_sim_dir *d = dfi_sim_dir_find(sim, dir);
        const struct dfi_sim_checkpoint *current = dfi_sim_checkpoint_find(d, d->current);
        const struct dfi_sim_checkpoint *parent =
                current ? dfi_sim_checkpoint_find(d, current->parent_id) : NULL;

        df_check(!d->owner || !dfi_sim_alive(&d->owner->at));
        if (current && !parent && d->store)
                parent = dfi_sim_checkpoint_find(d->store, current->parent_id);
        if (!parent)
                return false;
        dfi_sim_checkpoint_name(current, d->fallback_from);
        d->fallback_to = d->current = parent->id;
        dfi_sim_checkpoints_drop(d, d->current, 0, 0, NULL);
        return true;
}

uint64_t df_sim_ckpt_k(struct df_sim *sim, const char *dir)
{
        struct dfi_sim_dir *d = dfi_sim_dir_find(sim, dir);
        const struct dfi_sim_checkpoint *current = dfi_sim_checkpoint_find(d, d->current);

        return current ? current->k : 0;
}

uint64_t df_sim_ckpt_count(struct df_sim *sim, const char *dir)
{
        return dfi_sim_dir_find(sim, dir)->count;
}
