/* correct_set.c - the set of corrections, its two indexes, and what of it applies (correct.h). */
#include <stdlib.h>

#include "operators/correct.h"

#define SCOPES 8 /* combinations of advertiser, campaign and publisher that a scope may state */

/* Which corrections a key leads to: entries of equal keys stand together, a slot knows where. */
struct entry {
        struct df_hash128 key;
        uint32_t item;
};
struct slot {
        struct df_hash128 key;
        uint32_t first, count; /* of entries; count 0 = empty */
};
struct index {
        struct entry *entries;
        size_t count;
        struct slot *slots;
        uint64_t mask;
};

struct ad_corrections_tenant {
        struct df_bytes id;
        bool has_ids;
        bool scopes[SCOPES];    /* that its corrections without ids use */
        int64_t from_ms, to_ms; /* of all its corrections together */
};
struct ad_corrections {
        struct ad_correction_item *items;
        size_t count;
        struct ad_corrections_tenant *tenants; /* by id */
        size_t tenant_count;
        struct index by_id, by_scope;
};

/* ---- keys ---- */

static const struct df_bytes *scope_dim(const struct ad_scope *s, int i)
{
        return i == 0 ? &s->advertiser_id : i == 1 ? &s->campaign_id : &s->publisher_id;
}

static const enum ad_dim event_dims[3] = {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN, AD_DIM_PUBLISHER};

static unsigned scope_of(const struct ad_scope *s)
{
        unsigned scope = 0;

        for (int i = 0; i < 3; i++)
                scope |= (scope_dim(s, i)->len > 0 ? 1u : 0u) << i;
        return scope;
}

/* Of the tenant, and of those of the three dimensions that the scope states. False: one of them is
 * longer than any event's. */
static bool scope_key(const struct ad_corrections_tenant *t, unsigned scope,
                      const struct df_bytes dims[3], struct df_hash128 *ret)
{
        uint8_t room[1 + 4 * (1 + AD_ID_MAX)] = {(uint8_t)scope};
        size_t len = 1;

        for (int i = 0; i < 4; i++) {
                struct df_bytes s = i < 3 ? dims[i] : t->id;

                if (i < 3 && !(scope >> i & 1))
                        continue;
                if (s.len > AD_ID_MAX)
                        return false;
                room[len++] = (uint8_t)s.len;
                if (s.len)
                        memcpy(room + len, s.data, s.len);
                len += s.len;
        }
        *ret = df_hash128(df_bytes(room, len));
        return true;
}

/* ---- indexes ---- */

static int by_key(const void *x, const void *y)
{
        const struct entry *a = x, *b = y;

        if (a->key.hi != b->key.hi)
                return a->key.hi < b->key.hi ? -1 : 1;
        if (a->key.lo != b->key.lo)
                return a->key.lo < b->key.lo ? -1 : 1;
        return (a->item > b->item) - (a->item < b->item);
}

static void add_slot(struct index *x, size_t first, size_t count)
{
        struct df_hash128 key = x->entries[first].key;
        uint64_t at = key.lo & x->mask;

        while (x->slots[at].count)
                at = (at + 1) & x->mask;
        x->slots[at] = (struct slot){key, (uint32_t)first, (uint32_t)count};
}

static int index_finish(struct index *x, struct df_error *err)
{
        size_t slots = 2;

        if (x->count == 0)
                return 0;
        while (slots < 2 * x->count)
                slots *= 2;
        x->slots = calloc(slots, sizeof(*x->slots));
        if (!x->slots)
                return df_fail(err, DF_ENOMEM, "corrections");
        x->mask = slots - 1;
        qsort(x->entries, x->count, sizeof(*x->entries), by_key);
        for (size_t i = 0, end; i < x->count; i = end) {
                for (end = i + 1; end < x->count; end++)
                        if (!df_hash128_eq(x->entries[end].key, x->entries[i].key))
                                break;
                add_slot(x, i, end - i);
        }
        return 0;
}

static const struct slot *index_find(const struct index *x, struct df_hash128 key)
{
        uint64_t at = key.lo & x->mask;

        if (x->count == 0)
                return NULL;
        for (; x->slots[at].count; at = (at + 1) & x->mask)
                if (df_hash128_eq(x->slots[at].key, key))
                        return &x->slots[at];
        return NULL;
}

/* ---- making a set ---- */

int ad_correction_check(const struct ad_correction *c, struct df_error *err)
{
        if (c->action <= AD_CORRECT_NONE || c->action >= AD_CORRECT_COUNT)
                return df_fail(err, DF_EINVAL, "action %d is not known", (int)c->action);
        if (c->price_nanos < 0 || c->price_nanos / 1000 > AD_MONEY_MICROS_MAX)
                return df_fail(err, DF_EINVAL, "a price of %lld nanos cannot be billed",
                               (long long)c->price_nanos);
        if (c->currency.len != 0 && c->currency.len != 3)
                return df_fail(err, DF_EINVAL, "a currency has three letters");
        if (c->advertiser_id.len > AD_ID_MAX || c->campaign_id.len > AD_ID_MAX ||
            c->publisher_id.len > AD_ID_MAX)
                return df_fail(err, DF_EINVAL, "an id has at most %d bytes", AD_ID_MAX);
        return 0;
}

static int check(const struct ad_correction_item *items, size_t count, size_t *ret_ids,
                 struct df_error *err)
{
        int rc = 0;

        *ret_ids = 0;
        if (count > AD_CORRECTIONS_MAX)
                return df_fail(err, DF_ELIMIT,
                               "%zu corrections apply at once, %d are possible: cancel some that "
                               "are not needed",
                               count, AD_CORRECTIONS_MAX);
        for (size_t i = 0; rc == 0 && i < count; i++) {
                rc = ad_correction_check(&items[i].correction, err);
                *ret_ids += items[i].correction.scope.event_id_count;
        }
        if (rc == 0 && *ret_ids > AD_CORRECTION_IDS_MAX)
                rc = df_fail(err, DF_ELIMIT,
                             "the corrections name %zu event ids, %u are possible: cancel some "
                             "that are not needed",
                             *ret_ids, AD_CORRECTION_IDS_MAX);
        return rc;
}

static int by_tenant(const void *x, const void *y)
{
        const struct ad_corrections_tenant *a = x, *b = y;

        return df_bytes_cmp(a->id, b->id);
}

static int64_t end_of(const struct ad_scope *s)
{
        return s->to_ms ? s->to_ms : INT64_MAX;
}

/* One entry each tenant, with what its corrections have in common. */
static void gather_tenants(struct ad_corrections *s)
{
        size_t kept = 0;

        for (size_t i = 0; i < s->count; i++) {
                const struct ad_scope *scope = &s->items[i].correction.scope;
                struct ad_corrections_tenant *t = &s->tenants[i];

                *t = (struct ad_corrections_tenant){.id = s->items[i].tenant_id,
                                                    .has_ids = scope->event_id_count > 0,
                                                    .from_ms = scope->from_ms,
                                                    .to_ms = end_of(scope)};
                t->scopes[scope_of(scope)] = scope->event_id_count == 0;
        }
        qsort(s->tenants, s->count, sizeof(*s->tenants), by_tenant);
        for (size_t i = 0; i < s->count; i++) {
                struct ad_corrections_tenant *to = &s->tenants[kept ? kept - 1 : 0];
                const struct ad_corrections_tenant *t = &s->tenants[i];

                if (kept == 0 || !df_bytes_eq(to->id, t->id)) {
                        s->tenants[kept++] = *t;
                        continue;
                }
                to->has_ids |= t->has_ids;
                for (int k = 0; k < SCOPES; k++)
                        to->scopes[k] |= t->scopes[k];
                to->from_ms = t->from_ms < to->from_ms ? t->from_ms : to->from_ms;
                to->to_ms = t->to_ms > to->to_ms ? t->to_ms : to->to_ms;
        }
        s->tenant_count = kept;
}

static void add_item(struct ad_corrections *s, size_t i)
{
        const struct ad_correction_item *item = &s->items[i];
        const struct ad_scope *scope = &item->correction.scope;
        const struct df_bytes dims[3] = {scope->advertiser_id, scope->campaign_id,
                                         scope->publisher_id};
        struct index *x = scope->event_id_count ? &s->by_id : &s->by_scope;
        struct df_hash128 key;

        for (size_t k = 0; k < scope->event_id_count; k++)
                x->entries[x->count++] = (struct entry){
                        ad_event_key(item->tenant_id, scope->event_ids[k]), (uint32_t)i};
        if (scope->event_id_count == 0 &&
            scope_key(ad_corrections_tenant(s, item->tenant_id), scope_of(scope), dims, &key))
                x->entries[x->count++] = (struct entry){key, (uint32_t)i};
}

static int fill(struct ad_corrections *s, const struct ad_correction_item *items, size_t ids,
                struct df_error *err)
{
        int rc;

        s->items = malloc(s->count * sizeof(*s->items));
        s->tenants = malloc(s->count * sizeof(*s->tenants));
        s->by_scope.entries = malloc(s->count * sizeof(*s->by_scope.entries));
        s->by_id.entries = malloc((ids ? ids : 1) * sizeof(*s->by_id.entries));
        if (!s->items || !s->tenants || !s->by_scope.entries || !s->by_id.entries)
                return df_fail(err, DF_ENOMEM, "%zu corrections", s->count);
        memcpy(s->items, items, s->count * sizeof(*items));
        gather_tenants(s);
        for (size_t i = 0; i < s->count; i++)
                add_item(s, i);
        rc = index_finish(&s->by_id, err);
        return rc == 0 ? index_finish(&s->by_scope, err) : rc;
}

int ad_corrections_create(const struct ad_correction_item *items, size_t count,
                          struct ad_corrections **ret, struct df_error *err)
{
        struct ad_corrections *s;
        size_t ids;
        int rc = check(items, count, &ids, err);

        if (rc < 0)
                return rc;
        s = calloc(1, sizeof(*s));
        if (!s)
                return df_fail(err, DF_ENOMEM, "corrections");
        s->count = count;
        rc = count ? fill(s, items, ids, err) : 0;
        if (rc < 0)
                ad_corrections_destroy(s);
        else
                *ret = s;
        return rc;
}

void ad_corrections_destroy(struct ad_corrections *s)
{
        if (!s)
                return;
        free(s->items);
        free(s->tenants);
        free(s->by_id.entries);
        free(s->by_id.slots);
        free(s->by_scope.entries);
        free(s->by_scope.slots);
        free(s);
}

size_t ad_corrections_count(const struct ad_corrections *s)
{
        return s->count;
}

/* ---- asking it ---- */

const struct ad_corrections_tenant *ad_corrections_tenant(const struct ad_corrections *s,
                                                          struct df_bytes tenant_id)
{
        struct ad_corrections_tenant key = {.id = tenant_id};

        return s->tenant_count ? bsearch(&key, s->tenants, s->tenant_count, sizeof(key), by_tenant)
                               : NULL;
}

/* All that the scope states but its ids, which led here. */
static bool fits(const struct ad_correction_item *item, const struct ad_event *ev)
{
        const struct ad_scope *s = &item->correction.scope;

        for (int i = 0; i < 3; i++)
                if (scope_dim(s, i)->len && !df_bytes_eq(*scope_dim(s, i), ev->dims[event_dims[i]]))
                        return false;
        return ev->event_ms >= s->from_ms && ev->event_ms < end_of(s) &&
               (s->label == 0 || (s->label & ev->labels)) &&
               df_bytes_eq(item->tenant_id, ev->tenant_id);
}

/* Items are in order, so the later of two is the one behind. */
static void keep_later(const struct ad_correction **of, const struct ad_correction *c)
{
        if (!*of || c > *of)
                *of = c;
}

static void apply(const struct ad_correction *c, struct ad_effect *e)
{
        const struct df_bytes dims[3] = {c->advertiser_id, c->campaign_id, c->publisher_id};

        switch (c->action) {
        case AD_CORRECT_VOID:
                e->voided = true;
                break;
        case AD_CORRECT_REPRICE:
                keep_later(&e->price, c);
                break;
        case AD_CORRECT_REMAP:
                for (int i = 0; i < 3; i++)
                        if (dims[i].len)
                                keep_later(&e->dim[i], c);
                break;
        case AD_CORRECT_LABEL:
                e->labelled = true;
                break;
        case AD_CORRECT_NONE:
        case AD_CORRECT_COUNT: /* create refuses them */
                break;
        }
}

static bool apply_slot(const struct ad_corrections *s, const struct index *x, struct df_hash128 key,
                       const struct ad_event *ev, struct ad_effect *e)
{
        const struct slot *slot = index_find(x, key);
        bool any = false;

        for (uint32_t i = 0; slot && i < slot->count; i++) {
                const struct ad_correction_item *item = &s->items[x->entries[slot->first + i].item];

                if (!fits(item, ev))
                        continue;
                apply(&item->correction, e);
                any = true;
        }
        return any;
}

bool ad_corrections_find(const struct ad_corrections *s, const struct ad_corrections_tenant *t,
                         const struct ad_event *ev, struct ad_effect *ret)
{
        const struct df_bytes dims[3] = {ev->dims[AD_DIM_ADVERTISER], ev->dims[AD_DIM_CAMPAIGN],
                                         ev->dims[AD_DIM_PUBLISHER]};
        bool any = false;

        *ret = (struct ad_effect){0};
        if (ev->event_ms < t->from_ms || ev->event_ms >= t->to_ms)
                return false;
        if (t->has_ids)
                any = apply_slot(s, &s->by_id, ev->key, ev, ret);
        for (unsigned scope = 0; scope < SCOPES; scope++) {
                struct df_hash128 key;

                if (t->scopes[scope] && scope_key(t, scope, dims, &key))
                        any |= apply_slot(s, &s->by_scope, key, ev, ret);
        }
        return any;
}
