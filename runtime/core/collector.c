/* collector.c - the reader's half of K5: a collection counts only with its seal, and once. */
#include <stdlib.h>

#include "df/seal.h"

/* The one collection of a source that may still be completed: owners are fenced, so a record of
 * another (k, epoch) says that whoever wrote the open one is gone. */
struct gathering {
        struct df_source source;
        uint64_t applied; /* highest k that was complete; 0 = none */
        bool open;
        bool broken; /* a record is missing or does not follow */
        uint64_t k, epoch, first_offset;
        struct df_hash128 digest;
        struct df_buf bytes; /* payloads, one behind the other */
        size_t *ends;
        size_t count, cap;
};

struct df_collector {
        size_t max_bytes, held_bytes;
        struct gathering **sources;
        size_t source_count, source_cap;
        struct df_bytes *views; /* of the collection given out last */
        size_t view_cap;
        struct df_buf note;      /* what the seal given out last borrows */
        struct gathering *given; /* whose payloads were given out by the last add */
};

int df_collector_create(size_t max_bytes, struct df_collector **ret, struct df_error *err)
{
        struct df_collector *c = calloc(1, sizeof(*c));

        if (!c)
                return df_fail(err, DF_ENOMEM, "collector");
        c->max_bytes = max_bytes;
        *ret = c;
        return 0;
}

static struct gathering *find(const struct df_collector *c, const struct df_source *source)
{
        for (size_t i = c->source_count; i > 0; i--) /* the newest write most */
                if (df_source_eq(&c->sources[i - 1]->source, source))
                        return c->sources[i - 1];
        return NULL;
}

static struct gathering *get(struct df_collector *c, const struct df_source *source,
                             struct df_error *err)
{
        struct gathering *g = find(c, source);

        if (g)
                return g;
        if (c->source_count == c->source_cap) {
                size_t cap = c->source_cap ? 2 * c->source_cap : 16;
                struct gathering **grown = realloc(c->sources, cap * sizeof(struct gathering *));

                if (grown) {
                        c->sources = grown;
                        c->source_cap = cap;
                }
        }
        if (c->source_count < c->source_cap)
                g = calloc(1, sizeof(*g));
        if (!g) {
                (void)df_fail(err, DF_ENOMEM, "%zu sources", c->source_count + 1);
                return NULL;
        }
        g->source = *source;
        c->sources[c->source_count++] = g;
        return g;
}

int df_collector_applied(struct df_collector *c, const struct df_source *source, uint64_t k,
                         struct df_error *err)
{
        struct gathering *g = get(c, source, err);

        if (!g)
                return DF_ENOMEM;
        g->applied = k;
        return 0;
}

static void forget(struct df_collector *c, struct gathering *g)
{
        c->held_bytes -= g->bytes.len;
        df_buf_clear(&g->bytes);
        if (g->bytes.cap > (1u << 20)) /* many sources, and large ones are rare */
                df_buf_release(&g->bytes);
        g->count = 0;
        g->open = false;
}

static void place(struct df_collector *c, struct gathering *g, const struct df_origin *o,
                  uint64_t offset)
{
        if (g->open && (o->k != g->k || o->epoch != g->epoch))
                forget(c, g);
        if (g->open)
                return;
        g->open = true;
        g->broken = false;
        g->k = o->k;
        g->epoch = o->epoch;
        g->first_offset = offset;
        g->digest = (struct df_hash128){0, 0};
}

static int keep(struct df_collector *c, struct gathering *g, struct df_bytes payload,
                struct df_error *err)
{
        if (c->held_bytes + payload.len > c->max_bytes)
                return df_fail(err, DF_ELIMIT,
                               "unsealed output of %zu bytes: at most %zu are collected (K6)",
                               c->held_bytes + payload.len, c->max_bytes);
        if (g->count == g->cap) {
                size_t cap = g->cap ? 2 * g->cap : 64;
                size_t *ends = realloc(g->ends, cap * sizeof(*ends));

                if (!ends)
                        return df_fail(err, DF_ENOMEM, "%zu payloads", cap);
                g->ends = ends;
                g->cap = cap;
        }
        df_buf_append(&g->bytes, payload.data, payload.len);
        if (g->bytes.failed)
                return df_fail(err, DF_ENOMEM, "unsealed output");
        c->held_bytes += payload.len;
        g->ends[g->count++] = g->bytes.len;
        g->digest = df_digest_add(g->digest, payload);
        return 0;
}

static int give(struct df_collector *c, struct gathering *g, const struct df_output *out,
                struct df_collection *ret, struct df_error *err)
{
        size_t begin = 0;

        if (g->count > c->view_cap) {
                struct df_bytes *views = realloc(c->views, g->count * sizeof(*views));

                if (!views)
                        return df_fail(err, DF_ENOMEM, "%zu payloads", g->count);
                c->views = views;
                c->view_cap = g->count;
        }
        for (size_t i = 0; i < g->count; i++) {
                c->views[i] = df_bytes(g->bytes.data + begin, g->ends[i] - begin);
                begin = g->ends[i];
        }
        df_buf_clear(&c->note);
        df_buf_append(&c->note, out->seal.note.data, out->seal.note.len);
        *ret = (struct df_collection){
                .origin = out->origin,
                .seal = out->seal,
                .payloads = c->views,
                .count = g->count,
        };
        ret->seal.note = df_buf_bytes(&c->note);
        return df_buf_check(&c->note, err);
}

static bool complete(const struct gathering *g, const struct df_output *out)
{
        return !g->broken && g->count == out->origin.n && g->count == out->seal.rows &&
               df_hash128_eq(g->digest, out->seal.rows_digest);
}

int df_collector_add(struct df_collector *c, const struct df_record *record,
                     enum df_collect *ret_what, struct df_collection *ret, struct df_error *err)
{
        struct df_output out;
        struct gathering *g;
        int rc = 0;

        *ret_what = DF_COLLECT_MORE;
        if (df_output_decode(record->value, &out, NULL) < 0) {
                *ret_what = DF_COLLECT_DAMAGED;
                return 0;
        }
        if (c->given)
                forget(c, c->given);
        c->given = NULL;
        g = get(c, &out.origin.source, err);
        if (!g)
                return DF_ENOMEM;
        place(c, g, &out.origin, record->offset);
        if (!out.is_seal) {
                if (out.origin.n != g->count)
                        g->broken = true;
                return g->broken ? 0 : keep(c, g, out.payload, err);
        }
        if (!complete(g, &out)) {
                *ret_what = DF_COLLECT_DAMAGED;
                forget(c, g);
                return 0;
        }
        *ret_what = out.origin.k > g->applied ? DF_COLLECT_COMPLETE : DF_COLLECT_REPEATED;
        rc = give(c, g, &out, ret, err);
        if (out.origin.k > g->applied)
                g->applied = out.origin.k;
        g->open = false;
        c->given = g;
        return rc;
}

uint64_t df_collector_floor(const struct df_collector *c, uint64_t position)
{
        uint64_t floor = position;

        for (size_t i = 0; i < c->source_count; i++)
                if (c->sources[i]->open && c->sources[i]->first_offset < floor)
                        floor = c->sources[i]->first_offset;
        return floor;
}

void df_collector_destroy(struct df_collector *c)
{
        if (!c)
                return;
        for (size_t i = 0; i < c->source_count; i++) {
                df_buf_release(&c->sources[i]->bytes);
                free(c->sources[i]->ends);
                free(c->sources[i]);
        }
        free(c->sources);
        free(c->views);
        df_buf_release(&c->note);
        free(c);
}
