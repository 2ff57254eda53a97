/* explain.c - the seals behind a window (explain.h). */
#include "jobs/api/explain.h"

#include <stdio.h>

#include "jobs/common/collections.h"
#include "jobs/common/settings.h"

/* Reading begins earlier: a collection that began before is not handed out, nor needed then. */
#define SLACK_MS 120000

struct finding {
        const struct ad_explain_context *c;
        struct ad_explain *e;
        struct ad_fault *f;
        uint64_t seals;
        size_t listed;
};

static bool is_current(const struct ad_explain_context *c, const struct df_source *s,
                       uint32_t partition)
{
        return s->partition == partition && s->generation == c->status->generation &&
               strcmp(s->stream, AD_TOPIC_EVENTS) == 0;
}

/* ---- seals ---- */

struct walk {
        struct ad_explain_source *s;
        bool first;  /* reading began with the first seal that the log has */
        bool before; /* a seal before the window was met */
        uint64_t k;  /* of the last seal met */
        struct df_hash128 digest;
};

static void take_seal(struct finding *x, struct walk *w, const struct df_collection *c)
{
        const struct df_seal *seal = &c->seal;
        struct ad_explain_source *s = w->s;
        bool follows = w->k == 0 ||
                       (seal->parent_k == w->k && df_hash128_eq(seal->parent_digest, w->digest));

        w->k = c->origin.k;
        w->digest = seal->digest;
        if (seal->max_append_ms < x->e->from_ms - AD_EXPLAIN_AHEAD_MS) {
                w->before = true;
                return;
        }
        if (s->seals == 0) {
                s->first_k = c->origin.k;
                s->from_offset = seal->from_offset;
                s->parent_digest = seal->parent_digest;
                s->gone = w->first && !w->before && seal->parent_k != 0;
                s->chained = true;
        }
        s->chained &= follows;
        s->seals++;
        s->last_k = c->origin.k;
        s->to_offset = seal->to_offset;
        s->digest = seal->digest;
        s->watermark_ms = seal->watermark_ms;
        s->config = seal->config;
        memcpy(s->version, seal->binary_version, sizeof(s->version));
        s->complete = seal->watermark_ms >= x->e->to_ms + x->c->grace_ms;
}

static int too_large(struct finding *x, uint64_t max)
{
        return ad_fault_set(x->f, 400, "range_too_large", "from",
                            "more than %llu seals lie in it: ask for a shorter range",
                            (unsigned long long)max);
}

static int read_seals(struct finding *x, uint32_t partition, struct walk *w,
                      struct ad_collections *reader)
{
        uint64_t max = x->c->seals_max ? x->c->seals_max : AD_EXPLAIN_SEALS_MAX;
        const struct df_collection *c = NULL;
        struct df_error err = {0};
        int rc;

        while ((rc = ad_collections_next(reader, x->c->stop, x->c->stop_arg, &c, &err)) == 0 && c) {
                if (!is_current(x->c, &c->origin.source, partition))
                        continue;
                if (++x->seals > max)
                        return too_large(x, max);
                take_seal(x, w, c);
                if (w->s->seals && w->s->complete)
                        break;
        }
        x->e->damaged += ad_collections_damaged(reader);
        return rc < 0 ? ad_fault_log(x->f, &err) : 0;
}

static int find_seals(struct finding *x, uint32_t partition)
{
        struct walk w = {.s = &x->e->sources[partition]};
        struct ad_collections *reader = NULL;
        struct df_error err = {0};
        uint64_t offset = 0, first = 0, end = 0;
        int rc;

        *w.s = (struct ad_explain_source){
                .name = {.generation = x->c->status->generation, .partition = partition}};
        (void)snprintf(w.s->name.stream, sizeof(w.s->name.stream), "%s", AD_TOPIC_EVENTS);
        rc = df_log_offset_at(x->c->log, AD_TOPIC_LATE, partition,
                              x->e->from_ms - AD_EXPLAIN_AHEAD_MS - SLACK_MS, &offset, &err);
        if (rc == 0)
                rc = df_log_bounds(x->c->log, AD_TOPIC_LATE, partition, &first, &end, &err);
        w.first = offset <= first;
        if (rc == 0)
                rc = ad_collections_open(x->c->log, AD_TOPIC_LATE, partition, offset, &reader,
                                         &err);
        if (rc < 0)
                return ad_fault_log(x->f, &err);
        rc = read_seals(x, partition, &w, reader);
        ad_collections_close(reader);
        if (w.s->seals == 0)
                w.s->gone = w.first && !w.before && first > 0;
        return rc;
}

/* ---- all of it ---- */

static int find_source(struct finding *x, uint32_t partition)
{
        struct ad_explain_source *s = &x->e->sources[partition];
        struct df_error err = {0};
        int rc = find_seals(x, partition);

        if (rc < 0)
                return rc;
        if (s->gone)
                rc = adi_explain_raw(x->c, s, x->e->from_ms, x->e->to_ms, &err);
        if (rc == 0)
                rc = adi_explain_segments(x->c, s, INT64_MIN, &x->listed, &x->e->arena, &err);
        return rc < 0 ? ad_fault_log(x->f, &err) : 0;
}

int ad_explain_find(const struct ad_explain_context *c, int64_t from_ms, int64_t to_ms,
                    struct ad_explain *ret, struct ad_fault *f)
{
        struct finding x = {.c = c, .e = ret, .f = f};
        struct df_error err = {0};
        int rc = 0;

        *ret = (struct ad_explain){.from_ms = from_ms, .to_ms = to_ms};
        df_arena_init(&ret->arena, 0);
        ret->source_count = c->status->partitions;
        ret->sources = df_arena_zalloc(&ret->arena, (ret->source_count ? ret->source_count : 1) *
                                                            sizeof(*ret->sources));
        if (!ret->sources) {
                ret->source_count = 0;
                (void)df_fail(&err, DF_ENOMEM, "sources");
                return ad_fault_error(f, &err);
        }
        for (uint32_t p = 0; rc == 0 && p < ret->source_count; p++)
                rc = find_source(&x, p);
        return rc;
}

void ad_explain_release(struct ad_explain *e)
{
        df_arena_release(&e->arena);
        *e = (struct ad_explain){0};
}
