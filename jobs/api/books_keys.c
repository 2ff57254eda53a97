/* books_keys.c - keys and small values of the view of the bill. */
#include "jobs/api/books_private.h"

void adi_books_key(struct df_buf *b, uint8_t kind, const struct df_bytes *parts, size_t count)
{
        df_buf_clear(b);
        df_put_u8(b, kind);
        for (size_t i = 0; i < count; i++)
                ad_put_ordered(b, parts[i]);
}

void adi_books_cell_key(struct df_buf *b, const struct ad_target *t)
{
        adi_books_key(b, 'r', (struct df_bytes[]){t->tenant_id, t->advertiser_id}, 2);
        df_put_u64be(b, t->quarter);
        ad_put_ordered(b, t->campaign_id);
        ad_put_ordered(b, t->publisher_id);
        ad_put_ordered(b, t->currency);
}

void adi_books_quarter_key(struct df_buf *b, struct df_bytes tenant, uint64_t quarter)
{
        adi_books_key(b, 'g', &tenant, 1);
        df_put_u64be(b, quarter);
}

void adi_books_after(const struct df_buf *b, struct df_buf *ret)
{
        df_buf_clear(ret);
        df_buf_append(ret, b->data, b->len);
        ret->failed |= b->failed;
        while (!ret->failed && ret->len > 1 && ret->data[ret->len - 1] == 0xff)
                ret->len--;
        if (!ret->failed)
                ret->data[ret->len - 1]++; /* the kind is never 0xff */
}

void adi_books_run_key(struct df_buf *b, uint64_t number)
{
        adi_books_key(b, 'o', NULL, 0);
        df_put_u64be(b, ~number);
}

void adi_books_counters_encode(struct df_buf *b, const struct adi_books_counters *c)
{
        df_buf_clear(b);
        df_put_u64be(b, c->position);
        df_put_u64be(b, c->seq);
        df_put_u64be(b, c->runs);
        df_put_u64be(b, c->run_seq);
        df_put_u64be(b, c->postings);
        df_put_u64be(b, c->adjustments);
        df_put_u64be(b, c->closes);
        df_put_u64be(b, c->gaps);
        df_put_u64be(b, (uint64_t)c->at_ms);
}

bool adi_books_counters_decode(struct df_bytes bytes, struct adi_books_counters *ret)
{
        struct df_reader r = df_reader(bytes);

        ret->position = df_get_u64be(&r);
        ret->seq = df_get_u64be(&r);
        ret->runs = df_get_u64be(&r);
        ret->run_seq = df_get_u64be(&r);
        ret->postings = df_get_u64be(&r);
        ret->adjustments = df_get_u64be(&r);
        ret->closes = df_get_u64be(&r);
        ret->gaps = df_get_u64be(&r);
        ret->at_ms = (int64_t)df_get_u64be(&r);
        return !r.bad && df_reader_left(&r) == 0;
}

int adi_books_damaged(struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT, "the view of the bill holds a damaged entry");
}

struct found {
        struct ad_books_entry entry;
        size_t count;
};

static int on_entry(void *arg, const struct ad_books_entry *e, struct df_error *err)
{
        struct found *f = arg;

        f->entry = *e;
        f->count++;
        return 0;
}

int adi_books_entry(struct df_bytes value, enum ad_books_kind kind, struct df_arena *arena,
                    struct ad_books_entry *ret, struct df_error *err)
{
        struct found f = {0};
        int rc = ad_wire_books_decode(value, arena, on_entry, &f, err);

        if (rc == DF_EPARSE || (rc == 0 && (f.count != 1 || f.entry.kind != kind)))
                return adi_books_damaged(err);
        *ret = f.entry;
        return rc;
}
