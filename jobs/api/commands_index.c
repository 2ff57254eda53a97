/* commands_index.c - all commands in memory, by offset and by id. */
#include <stdlib.h>

#include "df/hash.h"
#include "df/trace.h"
#include "jobs/api/commands_private.h"

/* ---- an entry: one allocation for it, its bytes and its list of event ids ---- */

static struct ad_asked_for *make_entry(const struct df_record *r, struct df_arena *arena,
                                       size_t *ret_size, struct df_error *err)
{
        struct ad_command c;
        struct ad_asked_for *e;
        size_t ids, size;
        int rc = ad_wire_command_decode(r->value, arena, &c, err);

        if (rc < 0)
                return NULL;
        ids = c.kind == AD_COMMAND_CORRECTION ? c.correction.scope.event_id_count : 0;
        size = sizeof(*e) + ids * sizeof(struct df_bytes) + r->value.len;
        e = calloc(1, size);
        if (!e) {
                (void)df_fail(err, DF_ENOMEM, "commands");
                return NULL;
        }
        /* Decoded again, so that all texts lie in the entry's own bytes. */
        memcpy((uint8_t *)e + size - r->value.len, r->value.data, r->value.len);
        rc = ad_wire_command_decode(df_bytes((uint8_t *)e + size - r->value.len, r->value.len),
                                    arena, &e->command, err);
        df_check(rc == 0);
        if (ids) {
                struct df_bytes *own = (struct df_bytes *)(e + 1);

                memcpy(own, e->command.correction.scope.event_ids, ids * sizeof(*own));
                e->command.correction.scope.event_ids = own;
        }
        e->offset = r->offset;
        atomic_init(&e->cancelled, NULL);
        *ret_size = size;
        return e;
}

/* ---- the table by id ---- */

bool adi_same_id(const struct ad_command *c, struct df_bytes tenant_id, struct df_bytes id)
{
        return df_bytes_eq(c->tenant_id, tenant_id) && df_bytes_eq(c->id, id);
}

static uint32_t *slot_of(const struct adi_command_index *x, struct df_bytes tenant_id,
                         struct df_bytes id)
{
        size_t at = (size_t)ad_event_key(tenant_id, id).lo & (x->slot_count - 1);

        while (x->slots[at] && !adi_same_id(&x->list[x->slots[at] - 1]->command, tenant_id, id))
                at = (at + 1) & (x->slot_count - 1);
        return &x->slots[at];
}

/* Room for one more: the list, and a table that is at most half full. */
static int grow(struct adi_command_index *x, struct df_error *err)
{
        size_t cap = x->cap ? 2 * x->cap : 256;
        struct ad_asked_for **list;
        uint32_t *slots;

        if (x->count < x->cap)
                return 0;
        list = realloc(x->list, cap * sizeof(struct ad_asked_for *));
        if (list)
                x->list = list;
        slots = list ? calloc(2 * cap, sizeof(*slots)) : NULL;
        if (!slots)
                return df_fail(err, DF_ENOMEM, "commands");
        free(x->slots);
        x->slots = slots;
        x->slot_count = 2 * cap;
        x->cap = cap;
        for (size_t i = 0; i < x->count; i++)
                *slot_of(x, list[i]->command.tenant_id, list[i]->command.id) = (uint32_t)i + 1;
        return 0;
}

/* What is cancelled is its own tenant's, once. */
static void note_cancel(struct adi_command_index *x, const struct ad_asked_for *e)
{
        uint32_t slot = *slot_of(x, e->command.tenant_id, e->command.cancel);
        struct ad_asked_for *of = slot ? x->list[slot - 1] : NULL;

        if (of && !atomic_load(&of->cancelled))
                atomic_store(&of->cancelled, e);
}

static int insert(struct adi_command_index *x, struct ad_asked_for *e, size_t size,
                  struct df_error *err)
{
        uint32_t *slot;
        int rc = grow(x, err);

        if (rc < 0) {
                free(e);
                return rc;
        }
        slot = slot_of(x, e->command.tenant_id, e->command.id);
        if (*slot) {
                x->ignored++;
                df_trace(DF_DEBUG, "commands", "offset=%llu: its id is taken, it is ignored",
                         (unsigned long long)e->offset);
                free(e);
                return 0;
        }
        x->list[x->count++] = e;
        *slot = (uint32_t)x->count;
        x->bytes += size;
        if (e->command.kind == AD_COMMAND_CANCEL)
                note_cancel(x, e);
        return 0;
}

int adi_index_add(struct adi_command_index *x, const struct df_record *r, struct df_error *err)
{
        struct ad_asked_for *e;
        struct df_arena arena;
        size_t size = 0;
        int rc;

        df_arena_init(&arena, 0);
        err->code = 0;
        e = make_entry(r, &arena, &size, err);
        df_arena_release(&arena);
        pthread_rwlock_wrlock(&x->lock);
        if (e) {
                rc = insert(x, e, size, err);
        } else if (err->code == DF_ENOMEM) {
                rc = DF_ENOMEM;
        } else {
                x->damaged++;
                df_trace(DF_ERROR, "commands", "offset=%llu: %s: it is left out",
                         (unsigned long long)r->offset, err->text);
                rc = 0;
        }
        pthread_rwlock_unlock(&x->lock);
        return rc;
}

const struct ad_asked_for *adi_index_find(struct adi_command_index *x, struct df_bytes tenant_id,
                                          struct df_bytes id)
{
        const struct ad_asked_for *e = NULL;
        uint32_t slot;

        pthread_rwlock_rdlock(&x->lock);
        slot = x->count ? *slot_of(x, tenant_id, id) : 0;
        if (slot)
                e = x->list[slot - 1];
        pthread_rwlock_unlock(&x->lock);
        return e;
}

void adi_index_init(struct adi_command_index *x)
{
        *x = (struct adi_command_index){0};
        pthread_rwlock_init(&x->lock, NULL);
}

void adi_index_release(struct adi_command_index *x)
{
        for (size_t i = 0; i < x->count; i++)
                free(x->list[i]);
        free(x->list);
        free(x->slots);
        pthread_rwlock_destroy(&x->lock);
}

/* A repeated request comes later, perhaps with a newer tz database or another accounts file: what
 * it asks is the same. */
void adi_command_content(struct df_buf *b, const struct ad_command *c)
{
        struct ad_command same = *c;

        same.at_ms = 0;
        same.close.from_quarter = same.close.to_quarter = 0;
        same.close.zone = same.close.zone_version = df_bytes(NULL, 0);
        ad_wire_command(b, &same);
}
