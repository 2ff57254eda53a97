/* ckpt.c - state directories in memory. A checkpoint is a copy of the store's contents with a
 * digest over all of it, checked at takeover as the real one checks each file. */
#include "sim_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NOTE_MAX (1u << 20)

static const struct df_ckpt_ops ckpt_ops;

static struct dfi_sim_ckpt *ckpt_of(struct df_ckpt *base)
{
        df_check(base->ops == &ckpt_ops);
        return (struct dfi_sim_ckpt *)base;
}

struct df_ckpt *df_sim_ckpt_open(struct df_sim *sim, uint32_t process, const char *dir)
{
        struct dfi_sim_ckpt *c = dfi_sim_alloc(sizeof(*c));

        c->base.ops = &ckpt_ops;
        c->at = dfi_sim_here(sim, process);
        c->dir = dfi_sim_dir_find(sim, dir);
        sim->handles++;
        return &c->base;
}

struct df_ckpt *df_sim_ckpt_open_shared(struct df_sim *sim, uint32_t process, const char *dir)
{
        char local[DFI_SIM_NAME_MAX], shared[DFI_SIM_NAME_MAX];
        struct dfi_sim_ckpt *c;
        int n = snprintf(local, sizeof(local), "%s@%u", dir, process);

        df_check(n > 0 && (size_t)n < sizeof(local));
        n = snprintf(shared, sizeof(shared), "%s@store", dir);
        df_check(n > 0 && (size_t)n < sizeof(shared));
        c = (struct dfi_sim_ckpt *)df_sim_ckpt_open(sim, process, local);
        c->dir->store = dfi_sim_dir_find(sim, shared);
        return &c->base;
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

/* Unique over all that share a store, and growing (K5). */
static void count_epoch(struct dfi_sim_ckpt *c)
{
        struct dfi_sim_dir *d = c->dir;

        if (d->store) {
                if (d->store->epoch < d->epoch)
                        d->store->epoch = d->epoch;
                d->epoch = d->store->epoch++;
        }
        c->epoch = ++d->epoch;
}

static int refuse_damaged(const struct dfi_sim_ckpt *c, uint64_t k, struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT,
                       "%s: checkpoint %" PRIu64 " is not as it was written; `adtally recover`",
                       c->dir->name, k);
}

static void open_live(struct dfi_sim_ckpt *c, const struct dfi_sim_checkpoint *from,
                      struct df_takeover *ret)
{
        c->live = dfi_sim_store_open(c->at, from ? &from->table : NULL);
        c->opened = from ? from->id : 0;
        *ret = (struct df_takeover){
                .store = dfi_sim_store_base(c->live),
                .epoch = c->epoch,
                .fresh = from == NULL,
                .k = from ? from->k : 0,
        };
        if (!from)
                return;
        dfi_sim_checkpoint_name(from, ret->name);
        memcpy(ret->digest, from->digest, sizeof(ret->digest));
}

static int take_over(struct dfi_sim_ckpt *c, const struct dfi_sim_strike *s,
                     struct df_takeover *ret, struct df_error *err)
{
        struct dfi_sim_dir *d = c->dir;
        const struct dfi_sim_checkpoint *current = dfi_sim_checkpoint_find(d, d->current);
        int rc;

        count_epoch(c);
        if (dfi_sim_midway(s))
                return dfi_sim_leave(&c->at, s, err);
        if (current && !dfi_sim_checkpoint_whole(current))
                return refuse_damaged(c, current->k, err);
        dfi_sim_checkpoints_drop(d, d->current, current ? current->parent_id : 0, 0, NULL);
        current = dfi_sim_checkpoint_find(d, d->current);
        rc = dfi_sim_leave(&c->at, s, err);
        if (rc == 0)
                open_live(c, current, ret);
        return rc;
}

/* ---- at a named checkpoint ---- */

static struct dfi_sim_checkpoint *find_named(struct dfi_sim_dir *d, const char *name)
{
        char is[DF_CKPT_NAME_MAX + 1];

        for (size_t i = 0; d && i < d->count; i++) {
                dfi_sim_checkpoint_name(&d->checkpoints[i], is);
                if (strcmp(is, name) == 0)
                        return &d->checkpoints[i];
        }
        return NULL;
}

/* The newest whole child of the named one. The id is the last word of a name. */
static struct dfi_sim_checkpoint *find_child(struct dfi_sim_dir *d, const char *parent)
{
        const char *last = strrchr(parent, '-');
        const uint64_t parent_id = last ? strtoull(last + 1, NULL, 16) : 0;
        struct dfi_sim_checkpoint *best = NULL;

        for (size_t i = 0; parent_id && d && i < d->count; i++) {
                struct dfi_sim_checkpoint *p = &d->checkpoints[i];

                if (p->parent_id == parent_id && dfi_sim_checkpoint_whole(p) &&
                    (!best || p->epoch > best->epoch ||
                     (p->epoch == best->epoch && p->id > best->id)))
                        best = p;
        }
        return best;
}

static bool is_wanted(const struct dfi_sim_checkpoint *p, const struct df_ckpt_ref *ref)
{
        return p && memcmp(p->digest, ref->digest, sizeof(ref->digest)) == 0 &&
               dfi_sim_checkpoint_whole(p);
}

static int find_wanted(struct dfi_sim_ckpt *c, const struct df_ckpt_ref *ref,
                       const struct dfi_sim_checkpoint **ret, struct df_error *err)
{
        struct dfi_sim_dir *d = c->dir;
        const struct dfi_sim_checkpoint *local = find_named(d, ref->name);
        const struct dfi_sim_checkpoint *stored = find_named(d->store, ref->name);

        if (is_wanted(local, ref))
                *ret = local;
        else if (is_wanted(stored, ref))
                *ret = dfi_sim_checkpoint_put(d, stored);
        else if (local || stored)
                return refuse_damaged(c, local ? local->k : stored->k, err);
        else
                return df_fail(err, DF_ENOENT,
                               "checkpoint %s is neither in %s nor in the store; `adtally recover "
                               "--partition N --from checkpoint|log`",
                               ref->name, d->name);
        return 0;
}

/* `recover --from log` holds until the committed offset is another than it was then. */
static bool obey_reset(struct dfi_sim_dir *d, const struct df_ckpt_wanted *wanted)
{
        const char *name = wanted->any ? wanted->ref.name : "-";

        if (d->reset && d->reset_for[0] == '\0')
                (void)snprintf(d->reset_for, sizeof(d->reset_for), "%s", name);
        return d->reset && strcmp(d->reset_for, name) == 0;
}

static int choose(struct dfi_sim_ckpt *c, const struct df_ckpt_wanted *wanted, bool *ret_candidate,
                  const struct dfi_sim_checkpoint **ret, struct df_error *err)
{
        struct dfi_sim_dir *d = c->dir;

        *ret = NULL;
        if (obey_reset(d, wanted) || (wanted->rebuild && !d->current))
                return 0;
        if (!wanted->any && (d->current || (d->store && d->store->current)))
                return df_fail(err, DF_ESCHEMA,
                               "%s: the committed offset of this partition was deleted; `adtally "
                               "recover --partition N --from log` (K14)",
                               d->name);
        if (!wanted->any)
                return 0;
        if (d->fallback_to && strcmp(d->fallback_from, wanted->ref.name) == 0) {
                *ret = dfi_sim_checkpoint_find(d, d->fallback_to);
                if (*ret && !dfi_sim_checkpoint_whole(*ret))
                        return refuse_damaged(c, (*ret)->k, err);
                if (*ret)
                        return 0;
        }
        *ret = find_child(d, wanted->ref.name);
        if (!*ret) {
                *ret = find_child(d->store, wanted->ref.name);
                if (*ret)
                        *ret = dfi_sim_checkpoint_put(d, *ret);
        }
        *ret_candidate = *ret != NULL;
        return *ret ? 0 : find_wanted(c, &wanted->ref, ret, err);
}

static int take_over_at(struct dfi_sim_ckpt *c, const struct df_ckpt_wanted *wanted,
                        const struct dfi_sim_strike *s, struct df_takeover *ret,
                        struct df_error *err)
{
        const struct dfi_sim_checkpoint *from = NULL;
        bool candidate = false;
        int rc;

        count_epoch(c);
        if (dfi_sim_midway(s))
                return dfi_sim_leave(&c->at, s, err);
        rc = choose(c, wanted, &candidate, &from, err);
        if (rc == 0)
                rc = dfi_sim_leave(&c->at, s, err);
        if (rc)
                return rc;
        open_live(c, from, ret);
        ret->candidate = candidate;
        if (candidate)
                c->candidate = from->id; /* so that it can be published */
        else if (from)
                c->dir->current = from->id;
        return 0;
}

/* wanted NULL: CURRENT decides. */
static int begin(struct df_ckpt *base, const struct df_ckpt_wanted *wanted, struct df_takeover *ret,
                 struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        struct dfi_sim_strike s;
        int rc;

        df_check(c->live == NULL);
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
        rc = wanted ? take_over_at(c, wanted, &s, ret, err) : take_over(c, &s, ret, err);
        if (rc)
                unlock(c);
        return rc;
}

static int ckpt_takeover(struct df_ckpt *base, struct df_takeover *ret, struct df_error *err)
{
        return begin(base, NULL, ret, err);
}

static int ckpt_takeover_at(struct df_ckpt *base, const struct df_ckpt_wanted *wanted,
                            struct df_takeover *ret, struct df_error *err)
{
        return begin(base, wanted, ret, err);
}

static int check_usable(struct dfi_sim_ckpt *c, struct df_error *err)
{
        int rc;

        if (!dfi_sim_alive(&c->at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", c->at.process);
        if (!c->live)
                return df_fail(err, DF_ECLOSED, "%s was not taken over", c->dir->name);
        if (c->doubt)
                return df_fail(err, DF_EIO, "%s: publishing failed before; take over again",
                               c->dir->name);
        rc = dfi_sim_store_alive(c->live, err);
        return rc;
}

static struct dfi_sim_checkpoint *make_checkpoint(struct dfi_sim_ckpt *c, uint64_t k,
                                                  struct df_bytes note)
{
        struct dfi_sim_checkpoint *p = dfi_sim_checkpoint_add(c->dir);

        p->k = k;
        p->epoch = c->epoch;
        p->id = ++c->at.sim->last_checkpoint_id;
        p->parent_id = c->opened;
        dfi_sim_table_copy(&p->table, dfi_sim_store_table(c->live));
        df_buf_append(&p->note, note.data, note.len);
        df_check(!p->note.failed);
        dfi_sim_checkpoint_digest(p, p->digest);
        return p;
}

/* The upload comes last: midway it is whole in the store, or nowhere there. */
static void finish_persist(struct dfi_sim_ckpt *c, struct dfi_sim_checkpoint *p, bool midway)
{
        struct dfi_sim_dir *store = c->dir->store;

        if (store && (!midway || df_sim_random_chance(&c->at.sim->random, 500)))
                (void)dfi_sim_checkpoint_put(store, p);
        else if (midway && p->note.len > 0)
                p->note.len--; /* half written: it must never be looked at */
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
        current = dfi_sim_checkpoint_find(c->dir, c->opened);
        if (k == 0 || (current && k <= current->k))
                return df_fail(err, DF_EINVAL, "%s: checkpoint %" PRIu64 " after %" PRIu64,
                               c->dir->name, k, current ? current->k : 0);
        if (note.len > NOTE_MAX)
                return df_fail(err, DF_ELIMIT, "a note of %zu bytes; the limit is %u", note.len,
                               NOTE_MAX);
        rc = dfi_sim_enter(&c->at, true, &s, err, "persist %s k=%" PRIu64, c->dir->name, k);
        if (rc)
                return dfi_sim_store_kill(c->live, rc);
        p = make_checkpoint(c, k, note);
        take_back(c);
        c->candidate = 0;
        finish_persist(c, p, dfi_sim_midway(&s));
        rc = dfi_sim_leave(&c->at, &s, err);
        if (rc)
                return dfi_sim_store_kill(c->live, rc);
        c->candidate = p->id;
        dfi_sim_checkpoint_name(p, c->made.name);
        memcpy(c->made.digest, p->digest, sizeof(c->made.digest));
        return 0;
}

static void ckpt_candidate(struct df_ckpt *base, struct df_ckpt_ref *ret)
{
        *ret = ckpt_of(base)->made;
}

static void set_current(struct dfi_sim_dir *d, uint64_t id)
{
        d->current = id;
        d->reset = false;
        d->reset_for[0] = '\0';
        d->fallback_to = 0;
        if (d->store)
                d->store->current = id;
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
        p = dfi_sim_checkpoint_find(c->dir, c->candidate);
        if (!p || p->k != k)
                return df_fail(err, DF_EINVAL, "%s: there is no candidate %" PRIu64 " to publish",
                               c->dir->name, k);
        rc = dfi_sim_enter(&c->at, true, &s, err, "publish %s k=%" PRIu64, c->dir->name, k);
        if (rc == 0) {
                if (!dfi_sim_midway(&s) || df_sim_random_chance(&c->at.sim->random, 500))
                        set_current(c->dir, p->id);
                rc = dfi_sim_leave(&c->at, &s, err);
        }
        if (rc) {
                c->doubt = true;
                return rc;
        }
        c->opened = p->id;
        c->candidate = 0;
        return 0;
}

static int ckpt_note(struct df_ckpt *base, struct df_bytes *ret, struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        const struct dfi_sim_checkpoint *p;

        take_back(c);
        if (!dfi_sim_alive(&c->at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", c->at.process);
        if (!c->live)
                return df_fail(err, DF_ECLOSED, "%s was not taken over", c->dir->name);
        p = dfi_sim_checkpoint_find(c->dir, c->opened);
        if (!p)
                return df_fail(err, DF_ENOENT, "%s has no checkpoint yet", c->dir->name);
        c->lent = df_bytes(dfi_sim_copy(df_buf_bytes(&p->note)), p->note.len);
        *ret = c->lent;
        return 0;
}

/* K7: an owner that was replaced, and does not know, deletes nothing that its successor may need:
 * nothing of a later epoch, and nothing at all once there is one. */
static void retire_store(struct dfi_sim_ckpt *c, const struct dfi_sim_checkpoint *opened,
                         struct df_sim_random *chance)
{
        struct dfi_sim_dir *store = c->dir->store;
        const struct dfi_sim_checkpoint *parent =
                dfi_sim_checkpoint_find(store, opened ? opened->parent_id : 0);
        const uint64_t oldest_k = parent ? parent->k : opened ? opened->k : 0;
        const uint64_t parent_id = opened ? opened->parent_id : 0;
        size_t kept = 0;

        if (store->epoch != c->epoch)
                return;
        for (size_t i = 0; i < store->count; i++) {
                struct dfi_sim_checkpoint *p = &store->checkpoints[i];

                if (p->id == c->opened || p->id == parent_id || p->id == c->candidate ||
                    (p->epoch == c->epoch && p->k >= oldest_k) ||
                    (chance && df_sim_random_chance(chance, 500)))
                        store->checkpoints[kept++] = *p;
                else
                        dfi_sim_checkpoint_release(p);
        }
        store->count = kept;
}

static int ckpt_retire(struct df_ckpt *base, struct df_error *err)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);
        const struct dfi_sim_checkpoint *opened;
        struct df_sim_random *chance;
        struct dfi_sim_strike s;
        int rc = check_usable(c, err);

        if (rc)
                return rc;
        take_back(c);
        rc = dfi_sim_enter(&c->at, true, &s, err, "retire %s", c->dir->name);
        if (rc)
                return rc;
        chance = dfi_sim_midway(&s) ? &c->at.sim->random : NULL;
        opened = dfi_sim_checkpoint_find(c->dir, c->opened);
        if (c->dir->store)
                retire_store(c, opened, chance);
        dfi_sim_checkpoints_drop(c->dir, c->opened, opened ? opened->parent_id : 0, c->candidate,
                                 chance);
        return dfi_sim_leave(&c->at, &s, err);
}

static void ckpt_drop_live(struct df_ckpt *base)
{
        struct dfi_sim_ckpt *c = ckpt_of(base);

        take_back(c);
        dfi_sim_store_close(c->live);
        c->live = NULL;
        c->opened = 0;
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

static const struct df_ckpt_ops ckpt_ops = {
        .takeover = ckpt_takeover,
        .takeover_at = ckpt_takeover_at,
        .candidate = ckpt_candidate,
        .persist = ckpt_persist,
        .publish = ckpt_publish,
        .note = ckpt_note,
        .retire = ckpt_retire,
        .drop_live = ckpt_drop_live,
        .close = ckpt_close,
};
