/* ckpt.c - state directories in memory. A checkpoint is a copy of the store's contents with a
 * digest over all of it, checked at takeover as the real one checks each file. */
#include "sim_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NOTE_MAX (1u << 20)

struct dfi_sim_ckpt {
        struct df_ckpt base;
        struct dfi_sim_at at;
        struct dfi_sim_dir *dir;
        struct dfi_sim_store *store; /* live; NULL = not the owner */
        uint64_t epoch;
        uint64_t candidate; /* id; 0 = none */
        bool doubt;         /* a publish failed: CURRENT may be either */
        struct df_bytes lent;
};

static const struct df_ckpt_ops ckpt_ops;

static struct dfi_sim_ckpt *ckpt_of(struct df_ckpt *base)
{
        df_check(base->ops == &ckpt_ops);
        return (struct dfi_sim_ckpt *)base;
}

static struct dfi_sim_dir *find_dir(struct df_sim *sim, const char *name)
{
        struct dfi_sim_dir *d;

        for (size_t i = 0; i < sim->dir_count; i++)
                if (strcmp(sim->dirs[i]->name, name) == 0)
                        return sim->dirs[i];
        df_check(strlen(name) < DFI_SIM_NAME_MAX);
        d = dfi_sim_alloc(sizeof(*d));
        (void)snprintf(d->name, sizeof(d->name), "%s", name);
        d->next_id = 1;
        sim->dirs = dfi_sim_grow(sim->dirs, sim->dir_count, &sim->dir_cap, sizeof(*sim->dirs));
        sim->dirs[sim->dir_count++] = d;
        return d;
}

struct df_ckpt *df_sim_ckpt_open(struct df_sim *sim, uint32_t process, const char *dir)
{
        struct dfi_sim_ckpt *c = dfi_sim_alloc(sizeof(*c));

        c->base.ops = &ckpt_ops;
        c->at = dfi_sim_here(sim, process);
        c->dir = find_dir(sim, dir);
        sim->handles++;
        return &c->base;
}

static struct dfi_sim_checkpoint *find_checkpoint(struct dfi_sim_dir *d, uint64_t id)
{
        for (size_t i = 0; i < d->count; i++)
                if (d->checkpoints[i].id == id)
                        return &d->checkpoints[i];
        return NULL;
}

static void checkpoint_release(struct dfi_sim_checkpoint *p)
{
        dfi_sim_table_release(&p->table);
        df_buf_release(&p->note);
}

/* Delete all checkpoints but these three; with chance: each of them only perhaps. */
static void delete_others(struct dfi_sim_dir *d, uint64_t a, uint64_t b, uint64_t c,
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
                        checkpoint_release(&d->checkpoints[i]);
        }
        d->count = kept;
}

/* 32 bytes out of two 128-bit hashes: not cryptographic, and no library. */
static void digest_of(const struct dfi_sim_checkpoint *p, uint8_t ret[32])
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

static void take_back(struct dfi_sim_ckpt *c)
{
        dfi_sim_free((void *)(uintptr_t)c->lent.data, c->lent.len);
        c->lent = (struct df_bytes){0};
}

static void unlock(struct dfi_sim_ckpt *c)
{
        if (c->dir->owner == c)
                c->dir->owner = NULL;
}

static int take_over(struct dfi_sim_ckpt *c, const struct dfi_sim_strike *s,
                     struct df_takeover *ret, struct df_error *err)
{
        struct dfi_sim_dir *d = c->dir;
        struct dfi_sim_checkpoint *current = find_checkpoint(d, d->current);
        uint8_t digest[32];
        int rc;

        c->epoch = ++d->epoch;
        if (dfi_sim_midway(s))
                return dfi_sim_leave(&c->at, s, err);
        if (current) {
                digest_of(current, digest);
                if (memcmp(digest, current->digest, sizeof(digest)) != 0)
                        return df_fail(err, DF_ECORRUPT,
                                       "%s: checkpoint %" PRIu64 " is not as it was written; "
                                       "`adtally recover`",
                                       d->name, current->k);
        }
        delete_others(d, d->current, current ? current->parent_id : 0, 0, NULL);
        current = find_checkpoint(d, d->current);
        rc = dfi_sim_leave(&c->at, s, err);
        if (rc)
                return rc;
        c->store = dfi_sim_store_open(c->at, current ? &current->table : NULL);
        *ret = (struct df_takeover){
                .store = dfi_sim_store_base(c->store),
                .epoch = c->epoch,
                .fresh = current == NULL,
                .k = current ? current->k : 0,
        };
        if (current)
                memcpy(ret->digest, current->digest, sizeof(ret->digest));
        return 0;
}

static int ckpt_takeover(struct df_ckpt *base, struct df_takeover *ret, struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        struct dfi_sim_strike s;
        int rc;

        df_check(c->store == NULL);
        take_back(c);
        rc = dfi_sim_enter(&c->at, true, &s, err, "takeover %s", c->dir->name);
        if (rc)
                return rc;
        if (c->dir->owner && c->dir->owner != c && dfi_sim_alive(&c->dir->owner->at))
                return df_fail(err, DF_EFENCED, "%s is owned by process %u", c->dir->name,
                               c->dir->owner->at.process);
        c->dir->owner = c;
        c->doubt = false;
        c->candidate = 0;
        rc = take_over(c, &s, ret, err);
        if (rc)
                unlock(c);
        return rc;
}

static int check_usable(struct dfi_sim_ckpt *c, struct df_error *err)
{
        int rc;

        if (!dfi_sim_alive(&c->at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", c->at.process);
        if (!c->store)
                return df_fail(err, DF_ECLOSED, "%s was not taken over", c->dir->name);
        if (c->doubt)
                return df_fail(err, DF_EIO, "%s: publishing failed before; take over again",
                               c->dir->name);
        rc = dfi_sim_store_alive(c->store, err);
        return rc;
}

static struct dfi_sim_checkpoint *add_checkpoint(struct dfi_sim_ckpt *c, uint64_t k,
                                                 struct df_bytes note)
{
        struct dfi_sim_dir *d = c->dir;
        struct dfi_sim_checkpoint *p;

        d->checkpoints = dfi_sim_grow(d->checkpoints, d->count, &d->cap, sizeof(*d->checkpoints));
        p = &d->checkpoints[d->count++];
        *p = (struct dfi_sim_checkpoint){
                .k = k, .epoch = c->epoch, .id = d->next_id++, .parent_id = d->current};
        dfi_sim_table_copy(&p->table, dfi_sim_store_table(c->store));
        df_buf_append(&p->note, note.data, note.len);
        df_check(!p->note.failed);
        digest_of(p, p->digest);
        return p;
}

static int ckpt_persist(struct df_ckpt *base, uint64_t k, struct df_bytes note,
                        struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        const struct dfi_sim_checkpoint *current;
        struct dfi_sim_checkpoint *p;
        struct dfi_sim_strike s;
        int rc = check_usable(c, err);

        if (rc)
                return rc;
        current = find_checkpoint(c->dir, c->dir->current);
        if (k == 0 || (current && k <= current->k))
                return df_fail(err, DF_EINVAL, "%s: checkpoint %" PRIu64 " after %" PRIu64,
                               c->dir->name, k, current ? current->k : 0);
        if (note.len > NOTE_MAX)
                return df_fail(err, DF_ELIMIT, "a note of %zu bytes; the limit is %u", note.len,
                               NOTE_MAX);
        rc = dfi_sim_enter(&c->at, true, &s, err, "persist %s k=%" PRIu64, c->dir->name, k);
        if (rc)
                return dfi_sim_store_kill(c->store, rc);
        p = add_checkpoint(c, k, note);
        take_back(c);
        c->candidate = 0;
        if (dfi_sim_midway(&s) && p->note.len > 0)
                p->note.len--; /* half written: it must never be looked at */
        rc = dfi_sim_leave(&c->at, &s, err);
        if (rc)
                return dfi_sim_store_kill(c->store, rc);
        c->candidate = p->id;
        return 0;
}

static int ckpt_publish(struct df_ckpt *base, uint64_t k, struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        const struct dfi_sim_checkpoint *p;
        struct dfi_sim_strike s;
        int rc = check_usable(c, err);

        if (rc)
                return rc;
        take_back(c);
        p = find_checkpoint(c->dir, c->candidate);
        if (!p || p->k != k)
                return df_fail(err, DF_EINVAL, "%s: there is no candidate %" PRIu64 " to publish",
                               c->dir->name, k);
        rc = dfi_sim_enter(&c->at, true, &s, err, "publish %s k=%" PRIu64, c->dir->name, k);
        if (rc == 0) {
                if (!dfi_sim_midway(&s) || df_sim_random_chance(&c->at.sim->random, 500))
                        c->dir->current = p->id;
                rc = dfi_sim_leave(&c->at, &s, err);
        }
        if (rc)
                c->doubt = true;
        else
                c->candidate = 0;
        return rc;
}

static int ckpt_note(struct df_ckpt *base, struct df_bytes *ret, struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        const struct dfi_sim_checkpoint *p;

        take_back(c);
        if (!dfi_sim_alive(&c->at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", c->at.process);
        if (!c->store)
                return df_fail(err, DF_ECLOSED, "%s was not taken over", c->dir->name);
        p = find_checkpoint(c->dir, c->dir->current);
        if (!p)
                return df_fail(err, DF_ENOENT, "%s has no checkpoint yet", c->dir->name);
        c->lent = df_bytes(dfi_sim_copy(df_buf_bytes(&p->note)), p->note.len);
        *ret = c->lent;
        return 0;
}

static int ckpt_retire(struct df_ckpt *base, struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        const struct dfi_sim_checkpoint *current;
        struct dfi_sim_strike s;
        int rc = check_usable(c, err);

        if (rc)
                return rc;
        take_back(c);
        rc = dfi_sim_enter(&c->at, true, &s, err, "retire %s", c->dir->name);
        if (rc)
                return rc;
        current = find_checkpoint(c->dir, c->dir->current);
        delete_others(c->dir, c->dir->current, current ? current->parent_id : 0, c->candidate,
                      dfi_sim_midway(&s) ? &c->at.sim->random : NULL);
        return dfi_sim_leave(&c->at, &s, err);
}

static void ckpt_drop_live(struct df_ckpt *base)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);

        take_back(c);
        dfi_sim_store_close(c->store);
        c->store = NULL;
        c->candidate = 0;
}

static void ckpt_close(struct df_ckpt *base)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);

        ckpt_drop_live(base);
        unlock(c);
        c->at.sim->handles--;
        dfi_sim_free(c, sizeof(*c));
}

static void clear_dir(struct dfi_sim_dir *d)
{
        delete_others(d, 0, 0, 0, NULL);
        d->current = 0;
}

void dfi_sim_dir_free(struct dfi_sim_dir *d)
{
        clear_dir(d);
        free(d->checkpoints);
        dfi_sim_free(d, sizeof(*d));
}

bool df_sim_ckpt_damage(struct df_sim *sim, const char *dir)
{
        struct dfi_sim_dir *d = find_dir(sim, dir);
        struct dfi_sim_checkpoint *p = find_checkpoint(d, d->current);
        struct df_bytes *b;

        if (!p || p->table.count == 0)
                return false;
        b = &p->table.entries[df_sim_random_below(&sim->random, p->table.count)].key;
        ((uint8_t *)(uintptr_t)b->data)[df_sim_random_below(&sim->random, b->len)] ^= 0x10;
        return true;
}

void df_sim_ckpt_lose(struct df_sim *sim, const char *dir, bool keep_epoch)
{
        struct dfi_sim_dir *d = find_dir(sim, dir);

        df_check(!d->owner || !dfi_sim_alive(&d->owner->at));
        clear_dir(d);
        if (!keep_epoch)
                d->epoch = 0;
}

bool df_sim_ckpt_fallback(struct df_sim *sim, const char *dir)
{
        struct dfi_sim_dir *d = find_dir(sim, dir);
        const struct dfi_sim_checkpoint *current = find_checkpoint(d, d->current);
        const struct dfi_sim_checkpoint *parent =
                current ? find_checkpoint(d, current->parent_id) : NULL;

        df_check(!d->owner || !dfi_sim_alive(&d->owner->at));
        if (!parent)
                return false;
        d->current = parent->id;
        delete_others(d, d->current, 0, 0, NULL);
        return true;
}

uint64_t df_sim_ckpt_k(struct df_sim *sim, const char *dir)
{
        struct dfi_sim_dir *d = find_dir(sim, dir);
        const struct dfi_sim_checkpoint *current = find_checkpoint(d, d->current);

        return current ? current->k : 0;
}

uint64_t df_sim_ckpt_count(struct df_sim *sim, const char *dir)
{
        return find_dir(sim, dir)->count;
}

static const struct df_ckpt_ops ckpt_ops = {
        .takeover = ckpt_takeover,
        .persist = ckpt_persist,
        .publish = ckpt_publish,
        .note = ckpt_note,
        .retire = ckpt_retire,
        .drop_live = ckpt_drop_live,
        .close = ckpt_close,
};
