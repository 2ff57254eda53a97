/* books_drift.c - sums of the newest postings by quarter hour and currency, for each tenant and for
 * all: what drift is watched by, without reading cells. A posting takes what the cell was before
 * out of the sum, and adds what it is now. */
#include <stdlib.h>

#include "jobs/api/books_private.h"
#include "jobs/api/keys.h"

static int too_large(struct df_error *err)
{
        return df_fail(err, DF_ELIMIT, "a sum of the bill exceeds 128 bits");
}

/* ---- bytes: cause, cells and both sides, of the causes that have something ---- */

static void encode(const struct adi_drift *d, struct df_buf *b)
{
        df_buf_clear(b);
        for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++) {
                if (d->cells[c] == 0)
                        continue;
                df_put_u8(b, (uint8_t)c);
                df_put_varint(b, d->cells[c]);
                for (int side = 0; side < 2; side++) {
                        size_t at = b->len;

                        df_put_u8(b, 0); /* its length: a cell is below 128 bytes */
                        ad_cell_encode(b, side ? &d->causes[c].realtime : &d->causes[c].billed);
                        if (!b->failed)
                                b->data[at] = (uint8_t)(b->len - at - 1);
                }
        }
}

static bool decode(struct df_bytes bytes, struct adi_drift *ret)
{
        struct df_reader r = df_reader(bytes);

        *ret = (struct adi_drift){0};
        for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++)
                ret->causes[c].cause = c;
        while (!r.bad && df_reader_left(&r)) {
                uint32_t c = df_get_u8(&r);

                if (c >= AD_CAUSE_COUNT)
                        return false;
                ret->cells[c] = df_get_varint(&r);
                for (int side = 0; side < 2; side++) {
                        struct df_bytes cell = df_get_bytes(&r, df_get_u8(&r));

                        if (r.bad || !ad_cell_decode(cell, side ? &ret->causes[c].realtime
                                                                : &ret->causes[c].billed))
                                return false;
                }
        }
        return !r.bad;
}

/* ---- the writer ---- */

static int shift(struct adi_drift *d, const struct ad_target *t, bool add, struct df_error *err)
{
        bool (*move)(struct ad_cell *, const struct ad_cell *) =
                add ? ad_cell_add_signed : ad_cell_subtract;

        for (size_t i = 0; i < t->cause_count; i++) {
                const struct ad_cause_cell *c = &t->causes[i];

                if (ad_cell_is_zero(&c->billed) && ad_cell_is_zero(&c->realtime))
                        continue;
                d->cells[c->cause] += add ? 1 : -1ull;
                if (!move(&d->causes[c->cause].billed, &c->billed) ||
                    !move(&d->causes[c->cause].realtime, &c->realtime))
                        return too_large(err);
        }
        return 0;
}

/* The sums of b->key, read when this batch meets them first. */
static int find(struct ad_billing *b, struct adi_drift **ret, struct df_error *err)
{
        struct df_bytes value;
        bool fresh, found;
        int rc;

        *ret = b->key.failed ? NULL : ad_map_put(&b->sums, df_buf_bytes(&b->key), &fresh);
        if (!*ret)
                return df_fail(err, DF_ENOMEM, "the view of the bill");
        if (!fresh)
                return 0;
        rc = df_store_get(b->store, df_buf_bytes(&b->key), &value, &found, err);
        if (rc == 0 && !decode(found ? value : (struct df_bytes){0}, *ret))
                rc = adi_books_damaged(err);
        return rc;
}

int adi_books_drift_add(struct ad_billing *b, const struct ad_target *before,
                        const struct ad_target *now, struct df_error *err)
{
        const struct df_bytes whose[] = {now->tenant_id, {0}};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < 2; i++) {
                struct adi_drift *d;

                adi_books_quarter_key(&b->key, whose[i], now->quarter);
                ad_put_ordered(&b->key, now->currency);
                rc = find(b, &d, err);
                if (rc == 0 && before)
                        rc = shift(d, before, false, err);
                if (rc == 0)
                        rc = shift(d, now, true, err);
        }
        return rc;
}

int adi_books_drift_put(struct ad_billing *b, struct df_error *err)
{
        for (struct ad_map_entry *e = b->sums.first; e; e = e->next) {
                encode((const struct adi_drift *)e->value, &b->value);
                if (b->value.failed)
                        return df_buf_check(&b->value, err);
                if (b->value.len)
                        df_store_put(b->store, e->key, df_buf_bytes(&b->value));
                else
                        df_store_del(b->store, e->key);
        }
        return 0;
}

/* ---- readers ---- */

struct sums {
        struct df_arena *arena;
        struct ad_map by_currency; /* -> struct adi_drift */
        size_t skip;               /* bytes of a key before the currency */
};

static int on_sum(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct sums *s = arg;
        struct df_bytes currency;
        struct adi_drift one, *sum;
        bool fresh;

        if (key.len < s->skip + 2 || !decode(value, &one))
                return adi_books_damaged(err);
        currency = df_bytes(key.data + s->skip, key.len - s->skip - 2); /* without its end */
        sum = ad_map_put(&s->by_currency, currency, &fresh);
        if (!sum)
                return df_fail(err, DF_ENOMEM, "the drift");
        for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++) {
                sum->causes[c].cause = c;
                sum->cells[c] += one.cells[c];
                if (!ad_cell_add_signed(&sum->causes[c].billed, &one.causes[c].billed) ||
                    !ad_cell_add_signed(&sum->causes[c].realtime, &one.causes[c].realtime))
                        return too_large(err);
        }
        return 0;
}

int ad_billing_drifts(struct ad_billing_read *r, struct df_bytes tenant_id, uint64_t from_quarter,
                      uint64_t to_quarter, struct df_arena *arena, struct ad_billing_drift **ret,
                      size_t *ret_count, struct df_error *err)
{
        struct sums s = {.arena = arena};
        struct ad_map_entry **sorted;
        int rc = 0;

        ad_map_init(&s.by_currency, arena, sizeof(struct adi_drift));
        adi_books_quarter_key(&r->from, tenant_id, from_quarter);
        adi_books_quarter_key(&r->to, tenant_id, to_quarter);
        s.skip = r->from.len;
        rc = df_buf_check(&r->from, err);
        if (rc == 0)
                rc = df_buf_check(&r->to, err);
        if (rc == 0 && from_quarter < to_quarter)
                rc = df_kv_range(r->kv, r->snapshot, df_buf_bytes(&r->from), df_buf_bytes(&r->to),
                                 on_sum, &s, err);
        if (rc < 0)
                return rc;
        sorted = ad_map_sorted(&s.by_currency);
        *ret_count = s.by_currency.count;
        *ret = df_arena_zalloc(arena, (*ret_count + 1) * sizeof(**ret));
        if (!sorted || !*ret)
                return df_fail(err, DF_ENOMEM, "the drift");
        for (size_t i = 0; i < *ret_count; i++) {
                const struct adi_drift *d = (const struct adi_drift *)sorted[i]->value;

                (*ret)[i].currency = sorted[i]->key;
                memcpy((*ret)[i].causes, d->causes, sizeof(d->causes));
                memcpy((*ret)[i].cells, d->cells, sizeof(d->cells));
        }
        return 0;
}

void ad_drift_spend(const struct ad_billing_drift *d, df_nanos *ret_billed, df_nanos *ret_realtime)
{
        *ret_billed = *ret_realtime = 0;
        for (int c = 0; c < AD_CAUSE_COUNT; c++) {
                *ret_billed += d->causes[c].billed.spend;
                *ret_realtime += d->causes[c].realtime.spend;
        }
}

bool ad_drift(df_nanos billed, df_nanos realtime, double *ret)
{
        double b = (double)billed, d = (double)realtime - b;
        df_nanos exact;

        /* Equal amounts must give 0, near ones no rounding error of their size. */
        if (!__builtin_sub_overflow(realtime, billed, &exact))
                d = (double)exact;
        if (billed == 0) {
                *ret = realtime == 0 ? 0 : 1;
                return realtime != 0;
        }
        d = d < 0 ? -d : d;
        b = b < 0 ? -b : b;
        *ret = d / b;
        return true;
}

bool ad_bill_is_overdue(int64_t age_ms, int64_t every_ms)
{
        return every_ms > 0 && age_ms > AD_BILL_OVERDUE_TIMES * every_ms + AD_BILL_OVERDUE_SLACK_MS;
}
