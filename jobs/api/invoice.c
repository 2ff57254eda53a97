#include "jobs/api/invoice.h"

#include <stdlib.h>

#include "jobs/api/map.h"

/* ---- sums: one map a side and list ---- */

enum list { USAGE, DELTA, BEFORE, DELTA_BEFORE, LISTS };

struct sum {
        struct df_bytes original, posted, party, currency;
        uint32_t cause;
        struct ad_cell cell;
};

struct ad_invoice {
        struct df_arena arena;
        struct ad_map sums[AD_INVOICE_SIDES][LISTS];
        struct ad_invoice_part parts[AD_INVOICE_SIDES];
        struct df_buf key;
        size_t lines_max;
        bool ledger;
};

int ad_invoice_create(bool ledger, size_t lines_max, struct ad_invoice **ret, struct df_error *err)
{
        struct ad_invoice *v = calloc(1, sizeof(*v));

        if (!v)
                return df_fail(err, DF_ENOMEM, "invoice");
        df_arena_init(&v->arena, 0);
        v->ledger = ledger;
        v->lines_max = lines_max;
        for (int side = 0; side < AD_INVOICE_SIDES; side++)
                for (int l = 0; l < LISTS; l++)
                        ad_map_init(&v->sums[side][l], &v->arena, sizeof(struct sum));
        *ret = v;
        return 0;
}

void ad_invoice_destroy(struct ad_invoice *v)
{
        if (!v)
                return;
        df_arena_release(&v->arena);
        df_buf_release(&v->key);
        free(v);
}

/* Copies of what the sum is of; false when out of memory. */
static bool name(struct ad_invoice *v, struct sum *s, const struct ad_invoice_delta *of,
                 struct df_bytes party)
{
        struct df_buf all = {0};
        struct df_bytes parts[] = {of->original, of->posted, party, of->of.currency}, copy;
        struct df_bytes *const to[] = {&s->original, &s->posted, &s->party, &s->currency};
        size_t at = 0;

        for (size_t i = 0; i < 4; i++)
                df_buf_append(&all, parts[i].data, parts[i].len);
        copy = df_arena_copy(&v->arena, df_buf_bytes(&all));
        for (size_t i = 0; i < 4 && copy.data; i++) {
                *to[i] = df_bytes(copy.data + at, parts[i].len);
                at += parts[i].len;
        }
        s->cause = of->cause;
        at = all.failed ? SIZE_MAX : all.len - at;
        df_buf_release(&all);
        return at == 0;
}

static int add_to(struct ad_invoice *v, enum ad_invoice_side side, enum list list,
                  const struct ad_invoice_delta *of, struct df_bytes party,
                  const struct ad_cell *cell, struct df_error *err)
{
        struct ad_map *m = &v->sums[side][list];
        struct sum *s;
        bool fresh;

        df_buf_clear(&v->key);
        df_put_lstr(&v->key, of->original);
        df_put_lstr(&v->key, of->posted);
        df_put_lstr(&v->key, party);
        df_put_lstr(&v->key, of->of.currency);
        df_put_u32be(&v->key, of->cause);
        s = v->key.failed ? NULL : ad_map_put(m, df_buf_bytes(&v->key), &fresh);
        if (!s || (fresh && !name(v, s, of, party)))
                return df_fail(err, DF_ENOMEM, "invoice");
        if (m->count > v->lines_max)
                return df_fail(err, DF_ELIMIT, "the invoice has more than %zu lines", v->lines_max);
        if (!ad_cell_add_signed(&s->cell, cell))
                return df_fail(err, DF_ELIMIT, "a sum of the invoice is beyond 128 bits");
        return 0;
}

static int add(struct ad_invoice *v, enum list list, const struct ad_invoice_delta *of,
               const struct ad_cell *cell, struct df_error *err)
{
        int rc = add_to(v, AD_CHARGES, list, of, of->of.campaign_id, cell, err);

        return rc < 0 ? rc : add_to(v, AD_PAYOUTS, list, of, of->of.publisher_id, cell, err);
}

int ad_invoice_add_usage(struct ad_invoice *v, const struct ad_invoice_cell *of,
                         const struct ad_cell *billed, struct df_error *err)
{
        const struct ad_invoice_delta d = {.of = *of};

        return add(v, USAGE, &d, billed, err);
}

int ad_invoice_add_delta(struct ad_invoice *v, const struct ad_invoice_delta *of,
                         const struct ad_cell *delta, struct df_error *err)
{
        struct ad_invoice_delta d = *of;

        d.posted = df_bytes(NULL, 0); /* this one */
        return add(v, DELTA, &d, delta, err);
}

int ad_invoice_add_before(struct ad_invoice *v, struct df_bytes original,
                          const struct ad_invoice_cell *of, const struct ad_cell *billed,
                          struct df_error *err)
{
        const struct ad_invoice_delta d = {.original = original, .of = *of};

        return v->ledger ? add(v, BEFORE, &d, billed, err) : 0;
}

int ad_invoice_add_delta_before(struct ad_invoice *v, const struct ad_invoice_delta *of,
                                const struct ad_cell *delta, struct df_error *err)
{
        return v->ledger ? add(v, DELTA_BEFORE, of, delta, err) : 0;
}

/* ---- lines ---- */

static df_nanos money(enum ad_invoice_side side, const struct ad_cell *c)
{
        return side == AD_CHARGES ? c->spend : c->payout;
}

static struct ad_invoice_line line_of(enum ad_invoice_side side, enum ad_line_kind kind,
                                      const struct sum *s)
{
        struct ad_invoice_line l = {
                .kind = kind,
                .original = s->original,
                .party = s->party,
                .currency = s->currency,
                .cause = s->cause,
                .cell = s->cell,
                .digits = df_currency_digits(s->currency),
        };

        l.amount = df_nanos_round(money(side, &s->cell), l.digits);
        return l;
}

/* Nothing of it was ever billed or owed: a cell that went to zero. Payouts say money alone. */
static bool says_nothing(enum ad_invoice_side side, const struct ad_cell *c)
{
        return side == AD_CHARGES ? ad_cell_is_zero(c) : c->payout == 0;
}

static int by_place(const void *x, const void *y)
{
        const struct ad_invoice_line *a = x, *b = y;
        int c = (a->kind != AD_LINE_USAGE) - (b->kind != AD_LINE_USAGE);

        if (c == 0)
                c = df_bytes_cmp(a->original, b->original);
        if (c == 0)
                c = df_bytes_cmp(a->party, b->party);
        if (c == 0)
                c = df_bytes_cmp(a->currency, b->currency);
        if (c == 0)
                c = (int)a->kind - (int)b->kind;
        return c ? c : (a->cause > b->cause) - (a->cause < b->cause);
}

struct lines {
        struct ad_invoice_line *list;
        size_t count;
};

static void add_lines(struct lines *to, const struct ad_map *m, enum ad_invoice_side side,
                      enum ad_line_kind kind)
{
        for (const struct ad_map_entry *e = m->first; e; e = e->next) {
                const struct sum *s = (const struct sum *)e->value;

                if (!says_nothing(side, &s->cell))
                        to->list[to->count++] = line_of(side, kind, s);
        }
}

/* ---- the ledger form ---- */

/* What invoices before this one said: each of their lines rounded as it was. */
struct before {
        struct ad_cell cell;
        __int128 amount;
};

static int sum_before(struct ad_invoice *v, enum ad_invoice_side side, enum list list,
                      struct ad_map *ret, struct df_error *err)
{
        for (const struct ad_map_entry *e = v->sums[side][list].first; e; e = e->next) {
                const struct sum *s = (const struct sum *)e->value;
                struct before *b;
                bool fresh;

                df_buf_clear(&v->key);
                df_put_lstr(&v->key, s->original);
                df_put_lstr(&v->key, s->party);
                df_put_lstr(&v->key, s->currency);
                b = v->key.failed ? NULL : ad_map_put(ret, df_buf_bytes(&v->key), &fresh);
                if (!b)
                        return df_fail(err, DF_ENOMEM, "invoice");
                b->amount += df_nanos_round(money(side, &s->cell), df_currency_digits(s->currency));
                if (!ad_cell_add_signed(&b->cell, &s->cell))
                        return df_fail(err, DF_ELIMIT, "a sum of the invoice is beyond 128 bits");
        }
        return 0;
}

static bool same_account(const struct ad_invoice_line *a, const struct ad_invoice_line *b)
{
        return df_bytes_eq(a->original, b->original) && df_bytes_eq(a->party, b->party) &&
               df_bytes_eq(a->currency, b->currency);
}

/* Sorted delta lines [0, count) of one (period, party, currency) become two. */
static int reverse(struct ad_invoice *v, const struct ad_map *before,
                   const struct ad_invoice_line *of, size_t count, struct lines *to,
                   struct df_error *err)
{
        struct ad_invoice_line charge = of[0], reversal = of[0];
        const struct before *b;

        df_buf_clear(&v->key);
        df_put_lstr(&v->key, of->original);
        df_put_lstr(&v->key, of->party);
        df_put_lstr(&v->key, of->currency);
        if (v->key.failed)
                return df_fail(err, DF_ENOMEM, "invoice");
        b = ad_map_find(before, df_buf_bytes(&v->key));
        charge.kind = AD_LINE_CHARGE;
        charge.cause = count == 1 ? of->cause : AD_CAUSE_COUNT;
        for (size_t i = 1; i < count; i++) {
                charge.amount += of[i].amount;
                if (!ad_cell_add_signed(&charge.cell, &of[i].cell))
                        return df_fail(err, DF_ELIMIT, "a sum of the invoice is beyond 128 bits");
        }
        if (b && (b->amount != 0 || !ad_cell_is_zero(&b->cell))) {
                reversal.kind = AD_LINE_REVERSAL;
                reversal.cause = AD_CAUSE_COUNT;
                reversal.amount = -b->amount;
                reversal.cell = (struct ad_cell){0};
                charge.amount += b->amount;
                if (!ad_cell_subtract(&reversal.cell, &b->cell) ||
                    !ad_cell_add_signed(&charge.cell, &b->cell))
                        return df_fail(err, DF_ELIMIT, "a sum of the invoice is beyond 128 bits");
                to->list[to->count++] = reversal;
        }
        to->list[to->count++] = charge;
        return 0;
}

static int to_ledger(struct ad_invoice *v, enum ad_invoice_side side, struct lines *all,
                     struct df_error *err)
{
        struct lines to = {0};
        struct ad_map before;
        size_t i = 0;
        int rc;

        ad_map_init(&before, &v->arena, sizeof(struct before));
        rc = sum_before(v, side, BEFORE, &before, err);
        if (rc == 0)
                rc = sum_before(v, side, DELTA_BEFORE, &before, err);
        to.list = df_arena_alloc(&v->arena, (2 * all->count + 1) * sizeof(*to.list));
        if (rc == 0 && !to.list)
                rc = df_fail(err, DF_ENOMEM, "invoice");
        while (rc == 0 && i < all->count) {
                size_t n = 1;

                if (all->list[i].kind == AD_LINE_USAGE) {
                        to.list[to.count++] = all->list[i++];
                        continue;
                }
                while (i + n < all->count && same_account(&all->list[i], &all->list[i + n]))
                        n++;
                rc = reverse(v, &before, &all->list[i], n, &to, err);
                i += n;
        }
        *all = to;
        return rc;
}

/* ---- totals ---- */

static int by_currency(const void *x, const void *y)
{
        const struct ad_invoice_total *a = x, *b = y;

        return df_bytes_cmp(a->currency, b->currency);
}

static struct ad_invoice_total *total_of(struct ad_invoice_total *list, size_t *count,
                                         struct df_bytes currency)
{
        for (size_t i = 0; i < *count; i++)
                if (df_bytes_eq(list[i].currency, currency))
                        return &list[i];
        if (*count == AD_CURRENCIES_MAX)
                return NULL;
        list[*count] = (struct ad_invoice_total){.currency = currency,
                                                 .digits = df_currency_digits(currency)};
        return &list[(*count)++];
}

static int make_totals(struct ad_invoice *v, const struct lines *all, struct df_bytes currency,
                       struct ad_invoice_part *part, struct df_error *err)
{
        struct ad_invoice_total *list =
                df_arena_alloc(&v->arena, AD_CURRENCIES_MAX * sizeof(*list));
        size_t count = 0;

        if (!list)
                return df_fail(err, DF_ENOMEM, "invoice");
        if (currency.len)
                (void)total_of(list, &count, currency);
        for (size_t i = 0; i < all->count; i++) {
                const struct ad_invoice_line *l = &all->list[i];
                struct ad_invoice_total *t = total_of(list, &count, l->currency);
                __int128 *sum;

                if (!t)
                        return df_fail(err, DF_ELIMIT, "more than %d currencies",
                                       AD_CURRENCIES_MAX);
                sum = l->kind == AD_LINE_USAGE ? &t->usage : &t->adjustments;
                if (__builtin_add_overflow(*sum, l->amount, sum))
                        return df_fail(err, DF_ELIMIT, "a sum of the invoice is beyond 128 bits");
        }
        qsort(list, count, sizeof(*list), by_currency);
        *part = (struct ad_invoice_part){all->list, all->count, list, count};
        return 0;
}

int ad_invoice_finish(struct ad_invoice *v, struct df_bytes currency, struct df_error *err)
{
        int rc = 0;

        currency = df_arena_copy(&v->arena, currency);
        for (int side = 0; rc == 0 && side < AD_INVOICE_SIDES; side++) {
                const struct ad_map *usage = &v->sums[side][USAGE], *delta = &v->sums[side][DELTA];
                struct lines all = {0};

                all.list = df_arena_alloc(&v->arena,
                                          (usage->count + delta->count + 1) * sizeof(*all.list));
                if (!all.list)
                        return df_fail(err, DF_ENOMEM, "invoice");
                add_lines(&all, usage, (enum ad_invoice_side)side, AD_LINE_USAGE);
                add_lines(&all, delta, (enum ad_invoice_side)side, AD_LINE_ADJUSTMENT);
                if (all.count)
                        qsort(all.list, all.count, sizeof(*all.list), by_place);
                if (v->ledger)
                        rc = to_ledger(v, (enum ad_invoice_side)side, &all, err);
                if (rc == 0)
                        rc = make_totals(v, &all, currency, &v->parts[side], err);
        }
        return rc;
}

const struct ad_invoice_part *ad_invoice_part(const struct ad_invoice *v, enum ad_invoice_side side)
{
        return &v->parts[side];
}

static int by_bytes(const void *x, const void *y)
{
        return df_bytes_cmp(*(const struct df_bytes *)x, *(const struct df_bytes *)y);
}

int ad_invoice_originals(struct ad_invoice *v, struct df_bytes **ret, size_t *ret_count,
                         struct df_error *err)
{
        const struct ad_map *m = &v->sums[AD_CHARGES][DELTA];
        struct df_bytes *list = df_arena_alloc(&v->arena, (m->count + 1) * sizeof(*list));
        size_t n = 0;

        if (!list)
                return df_fail(err, DF_ENOMEM, "invoice");
        for (const struct ad_map_entry *e = m->first; e; e = e->next) {
                const struct sum *s = (const struct sum *)e->value;
                size_t i = 0;

                while (i < n && !df_bytes_eq(list[i], s->original))
                        i++;
                if (i == n)
                        list[n++] = s->original;
        }
        if (n)
                qsort(list, n, sizeof(*list), by_bytes);
        *ret = list;
        *ret_count = n;
        return 0;
}
