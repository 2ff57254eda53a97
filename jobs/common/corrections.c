/* corrections.c - from commands to the set of corrections that apply (corrections.h). */
#include "jobs/common/corrections.h"

#include <inttypes.h>
#include <stdlib.h>

#define TABLE_MIN 256u
#define NO_CORRECTION UINT32_MAX

struct given { /* a correction */
        uint64_t offset;
        struct df_buf bytes; /* of its command; released when it is cancelled */
        bool cancelled;
};
struct known { /* the id of a command */
        struct df_hash128 key;
        uint32_t given; /* NO_CORRECTION: another kind of command, or cancelled */
        bool used;
};
struct ad_correction_log {
        struct given *given;
        size_t count, cap;
        struct known *ids;
        size_t id_count, id_mask;
        struct df_hash128 digest;
        uint64_t to;
        struct df_arena scratch; /* of one command */
        struct df_arena kept;    /* of the set */
        struct ad_corrections *set;
};

/* ---- ids ---- */

static struct known *find_id(const struct ad_correction_log *l, struct df_hash128 key)
{
        size_t at = key.lo & l->id_mask;

        while (l->ids[at].used && !df_hash128_eq(l->ids[at].key, key))
                at = (at + 1) & l->id_mask;
        return &l->ids[at];
}

static int grow_ids(struct ad_correction_log *l, struct df_error *err)
{
        size_t slots = l->ids ? 2 * (l->id_mask + 1) : TABLE_MIN, old_slots = slots / 2;
        struct known *old = l->ids, *ids = calloc(slots, sizeof(*ids));

        if (!ids)
                return df_fail(err, DF_ENOMEM, "ids of commands");
        l->ids = ids;
        l->id_mask = slots - 1;
        for (size_t i = 0; old && i < old_slots; i++)
                if (old[i].used)
                        *find_id(l, old[i].key) = old[i];
        free(old);
        return 0;
}

/* *ret is the id's place; *ret_new false: a command before it has the id. */
static int take_id(struct ad_correction_log *l, const struct ad_command *c, struct known **ret,
                   bool *ret_new, struct df_error *err)
{
        struct df_hash128 key = ad_event_key(c->tenant_id, c->id);
        int rc = 2 * (l->id_count + 1) > l->id_mask ? grow_ids(l, err) : 0;

        if (rc < 0)
                return rc;
        *ret = find_id(l, key);
        *ret_new = !(*ret)->used;
        if (*ret_new) {
                **ret = (struct known){key, NO_CORRECTION, true};
                l->id_count++;
        }
        return 0;
}

/* ---- commands ---- */

static void moved(struct ad_correction_log *l, uint64_t offset, struct df_bytes command)
{
        l->digest = df_digest_add(l->digest, command);
        l->to = offset + 1;
}

static int give(struct ad_correction_log *l, struct known *id, uint64_t offset,
                struct df_bytes command, struct df_error *err)
{
        struct given *g;

        if (l->count == l->cap) {
                size_t cap = l->cap ? 2 * l->cap : 64;
                struct given *all = realloc(l->given, cap * sizeof(*all));

                if (!all)
                        return df_fail(err, DF_ENOMEM, "corrections");
                l->given = all;
                l->cap = cap;
        }
        g = &l->given[l->count];
        *g = (struct given){.offset = offset};
        df_buf_append(&g->bytes, command.data, command.len);
        id->given = (uint32_t)l->count++;
        moved(l, offset, command);
        return df_buf_check(&g->bytes, err);
}

static void cancel(struct ad_correction_log *l, const struct ad_command *c, uint64_t offset,
                   struct df_bytes command)
{
        struct known *of = find_id(l, ad_event_key(c->tenant_id, c->cancel));

        if (!of->used || of->given == NO_CORRECTION)
                return;
        df_buf_release(&l->given[of->given].bytes);
        l->given[of->given].cancelled = true;
        of->given = NO_CORRECTION;
        moved(l, offset, command);
}

static int take(struct ad_correction_log *l, const struct ad_command *c, uint64_t offset,
                struct df_bytes command, struct df_error *err)
{
        struct known *id = NULL;
        bool is_new = false;
        int rc;

        if (c->kind == AD_COMMAND_NONE ||
            (c->kind == AD_COMMAND_CORRECTION && c->correction.action == AD_CORRECT_NONE))
                return df_fail(err, DF_ESCHEMA,
                               "it is of a later version, and without it the bill may be wrong: "
                               "update this one");
        rc = c->kind == AD_COMMAND_CORRECTION ? ad_correction_check(&c->correction, err) : 0;
        if (rc == 0)
                rc = take_id(l, c, &id, &is_new, err);
        if (rc < 0 || !is_new)
                return rc;
        if (c->kind == AD_COMMAND_CORRECTION)
                return give(l, id, offset, command, err);
        if (c->kind == AD_COMMAND_CANCEL)
                cancel(l, c, offset, command);
        return 0;
}

int ad_correction_log_add(struct ad_correction_log *l, uint64_t offset, struct df_bytes command,
                          struct df_error *err)
{
        struct ad_command c;
        int rc;

        df_check(!l->set);
        df_arena_reset(&l->scratch);
        rc = ad_wire_command_decode(command, &l->scratch, &c, err);
        if (rc == 0)
                rc = take(l, &c, offset, command, err);
        if (rc < 0)
                (void)df_wrap(err, "commands, offset %" PRIu64, offset);
        return rc;
}

/* ---- the set ---- */

int ad_correction_log_create(struct ad_correction_log **ret, struct df_error *err)
{
        struct ad_correction_log *l = calloc(1, sizeof(*l));
        int rc;

        if (!l)
                return df_fail(err, DF_ENOMEM, "corrections");
        df_arena_init(&l->scratch, 0);
        df_arena_init(&l->kept, 0);
        rc = grow_ids(l, err);
        if (rc < 0)
                ad_correction_log_destroy(l);
        else
                *ret = l;
        return rc;
}

static int decode_item(struct ad_correction_log *l, struct given *g, struct ad_correction_item *ret,
                       struct df_error *err)
{
        struct ad_command c;
        int rc = ad_wire_command_decode(df_buf_bytes(&g->bytes), &l->kept, &c, err);

        *ret = (struct ad_correction_item){c.tenant_id, c.correction};
        return rc;
}

int ad_correction_log_finish(struct ad_correction_log *l, struct df_error *err)
{
        struct ad_correction_item *items = calloc(l->count + 1, sizeof(*items));
        size_t n = 0;
        int rc = items ? 0 : df_fail(err, DF_ENOMEM, "%zu corrections", l->count);

        for (size_t i = 0; rc == 0 && i < l->count; i++)
                if (!l->given[i].cancelled)
                        rc = decode_item(l, &l->given[i], &items[n++], err);
        if (rc == 0)
                rc = ad_corrections_create(items, n, &l->set, err);
        free(items);
        return rc;
}

void ad_correction_log_destroy(struct ad_correction_log *l)
{
        if (!l)
                return;
        ad_corrections_destroy(l->set);
        for (size_t i = 0; i < l->count; i++)
                df_buf_release(&l->given[i].bytes);
        free(l->given);
        free(l->ids);
        df_arena_release(&l->scratch);
        df_arena_release(&l->kept);
        free(l);
}

const struct ad_corrections *ad_correction_log_set(const struct ad_correction_log *l)
{
        return l->set;
}

uint64_t ad_correction_log_digest(const struct ad_correction_log *l)
{
        return l->digest.lo ^ l->digest.hi;
}

uint64_t ad_correction_log_to(const struct ad_correction_log *l)
{
        return l->to;
}

int ad_correction_log_each(const struct ad_correction_log *l,
                           int (*fn)(void *arg, uint64_t offset, struct df_bytes command,
                                     struct df_error *err),
                           void *arg, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < l->count; i++)
                if (!l->given[i].cancelled)
                        rc = fn(arg, l->given[i].offset, df_buf_bytes(&l->given[i].bytes), err);
        return rc;
}
