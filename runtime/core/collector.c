/* collector.c - the reader's half of K5: a collection counts only with its seal, and once.
 *
 * Open collections are kept by (source, k, epoch), so that what a dead owner left unsealed and what
 * its successor writes do not mix, however their records interleave. One is dropped when it is
 * sealed, when its k of its source was applied, or when it does not fit any more; of a k that was
 * applied nothing is kept at all.
 */
#include <stdlib.h>

#include "df/seal.h"

#define SPARE_BYTES (1u << 20) /* larger buffers are not kept for the next collection */

struct gathering { /* the records of one (source, k, epoch) so far */
        struct gathering *next;
        uint64_t k, epoch, first_offset;
        bool broken; /* a record is missing, or it did not fit: its seal cannot match */
        struct df_hash128 digest;
        struct df_buf bytes; /* payloads, one behind the other */
        size_t *ends;
        size_t count, cap;
};

struct known {
        struct df_source source;
        uint64_t applied; /* highest k that was complete; 0 = none */
        struct gathering *open;
};

struct df_collector {
        size_t max_bytes, held_bytes;
        struct known **sources;
        size_t source_count, source_cap;
        struct known *recent;   /* most records belong to the source of the one before */
        struct df_bytes *views; /* of the collection given out last */
        size_t view_cap;
        struct df_buf note;      /* what the seal given out last borrows */
        struct gathering *given; /* whose payloads were given out by the last add */
        struct gathering *spare;
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

/* ---- sources ---- */

static struct known *find_source(const struct df_collector *c, const struct df_source *source)
{
        if (c->recent && df_source_eq(&c->recent->source, source))
                return c->recent;
        for (size_t i = c->source_count; i > 0; i--) /* the newest write most */
                if (df_source_eq(&c->sources[i - 1]->source, source))
                        return c->sources[i - 1];
        return NULL;
}

static int get_source(struct df_collector *c, const struct df_source *source, struct known **ret,
                      struct df_error *err)
{
        struct known *s = find_source(c, source);

        if (!s && c->source_count == c->source_cap) {
                size_t cap = c->source_cap ? 2 * c->source_cap : 16;
                struct known **grown = realloc(c->sources, cap * sizeof(struct known *));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "collector: %zu sources", cap);
                c->sources = grown;
                c->source_cap = cap;
        }
        if (!s) {
                s = calloc(1, sizeof(*s));
                if (!s)
                        return df_fail(err, DF_ENOMEM, "collector: a source");
                s->source = *source;
                c->sources[c->source_count++] = s;
        }
        c->recent = s;
        *ret = s;
        return 0;
}

int df_collector_applied(struct df_collector *c, const struct df_source *source, uint64_t k,
                         struct df_error *err)
{
        struct known *s = NULL;
        int rc = get_source(c, source, &s, err);

        if (rc == 0 && k > s->applied)
                s->applied = k;
        return rc;
}

/* ---- gatherings ---- */

static void destroy_gathering(struct gathering *g)
{
        if (!g)
                return;
        df_buf_release(&g->bytes);
        free(g->ends);
        free(g);
}

/* Its memory is used again, when it is not large. */
static void put_away(struct df_collector *c, struct gathering *g)
{
        if (!g)
                return;
        c->held_bytes -= g->bytes.len;
        if (c->spare || g->bytes.cap > SPARE_BYTES) {
                destroy_gathering(g);
                return;
        }
        df_buf_clear(&g->bytes);
        c->spare = g;
}

static struct gathering **find_gathering(struct known *s, uint64_t k, uint64_t epoch)
{
        struct gathering **at = &s->open;

        while (*at && ((*at)->k != k || (*at)->epoch != epoch))
                at = &(*at)->next;
        return at;
}

static struct gathering *take_out(struct gathering **at)
{
        struct gathering *g = *at;

        if (g)
                *at = g->next;
        return g;
}

static int begin_gathering(struct df_collector *c, struct gathering **at, const struct df_origin *o,
                           uint64_t offset, struct df_error *err)
{
        struct gathering *g = c->spare ? c->spare : calloc(1, sizeof(*g));

        if (!g)
                return df_fail(err, DF_ENOMEM, "collector: a collection");
        c->spare = NULL;
        g->next = NULL;
        g->k = o->k;
        g->epoch = o->epoch;
        g->first_offset = offset;
        g->broken = false;
        g->digest = (struct df_hash128){0, 0};
        g->count = 0;
        *at = g;
        return 0;
}

/* Of no use any more, as the source has gone on: a later owner writes the same k again (K7), and
 * all of k was written before anything of k + 1 (K4). */
static bool superseded(const struct known *s, const struct gathering *g)
{
        for (const struct gathering *o = s->open; o; o = o->next)
                if (o->k > g->k || (o->k == g->k && o->epoch > g->epoch))
                        return true;
        return false;
}

static void drop_superseded(struct df_collector *c)
{
        for (size_t i = 0; i < c->source_count; i++)
                for (struct gathering **at = &c->sources[i]->open; *at;) {
                        if (superseded(c->sources[i], *at))
                                put_away(c, take_out(at));
                        else
                                at = &(*at)->next;
                }
}

static void break_off(struct df_collector *c, struct gathering *g)
{
        c->held_bytes -= g->bytes.len;
        df_buf_release(&g->bytes);
        g->count = 0;
        g->broken = true;
}

static int keep(struct df_collector *c, struct gathering *g, struct df_bytes payload,
                struct df_error *err)
{
        if (g->count == g->cap) {
                size_t cap = g->cap ? 2 * g->cap : 64;
                size_t *ends = realloc(g->ends, cap * sizeof(*ends));

                if (!ends)
                        return df_fail(err, DF_ENOMEM, "collector: %zu payloads", cap);
                g->ends = ends;
                g->cap = cap;
        }
        df_buf_append(&g->bytes, payload.data, payload.len);
        if (g->bytes.failed) {
                g->bytes.failed = false;
                return df_fail(err, DF_ENOMEM, "collector: %zu bytes of a collection",
                               g->bytes.len + payload.len);
        }
        c->held_bytes += payload.len;
        g->ends[g->count++] = g->bytes.len;
        g->digest = df_digest_add(g->digest, payload);
        return 0;
}

static int add_payload(struct df_collector *c, struct known *s, const struct df_output *out,
                       uint64_t offset, struct df_error *err)
{
        struct gathering **at = find_gathering(s, out->origin.k, out->origin.epoch);
        struct gathering *g;
        int rc = *at ? 0 : begin_gathering(c, at, &out->origin, offset, err);

        if (rc < 0)
                return rc;
        g = *at;
        if (g->broken || out->origin.n < g->count)
                return 0; /* lost already; or appended twice */
        if (out->origin.n > g->count) {
                break_off(c, g);
                return 0;
        }
        if (c->held_bytes + out->payload.len > c->max_bytes)
                drop_superseded(c); /* g itself may go */
        at = find_gathering(s, out->origin.k, out->origin.epoch);
        if (!*at)
                return 0;
        if (c->held_bytes + out->payload.len <= c->max_bytes)
                return keep(c, g, out->payload, err);
        rc = df_fail(err, DF_ELIMIT,
                     "unsealed output of %zu bytes, %zu of them of %s/%u checkpoint %llu: at most "
                     "%zu are collected (K6)",
                     c->held_bytes + out->payload.len, g->bytes.len + out->payload.len,
                     out->origin.source.stream, out->origin.source.partition,
                     (unsigned long long)g->k, c->max_bytes);
        break_off(c, g);
        return rc;
}

/* ---- seals ---- */

static int give(struct df_collector *c, const struct gathering *g, const struct df_output *out,
                struct df_collection *ret, struct df_error *err)
{
        size_t begin = 0, count = g ? g->count : 0;

        if (count > c->view_cap) {
                struct df_bytes *views = realloc(c->views, count * sizeof(*views));

                if (!views)
                        return df_fail(err, DF_ENOMEM, "collector: %zu payloads", count);
                c->views = views;
                c->view_cap = count;
        }
        for (size_t i = 0; i < count; i++) {
                c->views[i] = df_bytes(g->bytes.data + begin, g->ends[i] - begin);
                begin = g->ends[i];
        }
        df_buf_clear(&c->note);
        df_buf_append(&c->note, out->seal.note.data, out->seal.note.len);
        *ret = (struct df_collection){
                .origin = out->origin, .seal = out->seal, .payloads = c->views, .count = count};
        ret->seal.note = df_buf_bytes(&c->note);
        return df_buf_check(&c->note, err);
}

static bool complete(const struct gathering *g, const struct df_output *out)
{
        const struct df_hash128 none = {0, 0};

        if (!g)
                return out->seal.rows == 0 && out->origin.n == 0 &&
                       df_hash128_eq(none, out->seal.rows_digest);
        return !g->broken && g->count == out->origin.n && g->count == out->seal.rows &&
               df_hash128_eq(g->digest, out->seal.rows_digest);
}

static int add_seal(struct df_collector *c, struct known *s, const struct df_output *out,
                    enum df_collect *ret_what, struct df_collection *ret, struct df_error *err)
{
        struct gathering *g = *find_gathering(s, out->origin.k, out->origin.epoch);
        int rc;

        if (!complete(g, out)) {
                *ret_what = DF_COLLECT_DAMAGED;
                if (g)
                        put_away(c, take_out(find_gathering(s, g->k, g->epoch)));
                return 0;
        }
        rc = give(c, g, out, ret, err);
        if (rc < 0)
                return rc;
        *ret_what = DF_COLLECT_COMPLETE;
        s->applied = out->origin.k;
        if (g)
                c->given = take_out(find_gathering(s, g->k, g->epoch));
        for (struct gathering **at = &s->open; *at;) {
                if ((*at)->k <= s->applied)
                        put_away(c, take_out(at));
                else
                        at = &(*at)->next;
        }
        return 0;
}

int df_collector_add(struct df_collector *c, const struct df_record *record,
                     enum df_collect *ret_what, struct df_collection *ret, struct df_error *err)
{
        struct known *s = NULL;
        struct df_output out;
        int rc = df_output_decode(record->value, &out, err);

        put_away(c, c->given);
        c->given = NULL;
        *ret_what = DF_COLLECT_MORE;
        if (rc == 0)
                rc = get_source(c, &out.origin.source, &s, err);
        if (rc < 0)
                return rc;
        if (out.origin.k <= s->applied) { /* whatever it holds: that k was applied whole */
                if (out.is_seal)
                        *ret_what = DF_COLLECT_REPEATED;
                return 0;
        }
        if (!out.is_seal)
                return add_payload(c, s, &out, record->offset, err);
        return add_seal(c, s, &out, ret_what, ret, err);
}

uint64_t df_collector_floor(const struct df_collector *c, uint64_t position)
{
        uint64_t floor = position;

        for (size_t i = 0; i < c->source_count; i++)
                for (const struct gathering *g = c->sources[i]->open; g; g = g->next)
                        if (g->first_offset < floor)
                                floor = g->first_offset;
        return floor;
}

void df_collector_destroy(struct df_collector *c)
{
        if (!c)
                return;
        for (size_t i = 0; i < c->source_count; i++) {
                while (c->sources[i]->open)
                        destroy_gathering(take_out(&c->sources[i]->open));
                free(c->sources[i]);
        }
        free(c->sources);
        free(c->views);
        df_buf_release(&c->note);
        destroy_gathering(c->given);
        destroy_gathering(c->spare);
        free(c);
}
