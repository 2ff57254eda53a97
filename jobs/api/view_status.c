/* view_status.c - freshness, and the copy of the state that readers see. */
#include <math.h>
#include <stdlib.h>

#include "jobs/api/view_private.h"

#define FRESH_STEPS 8
#define MINUTE_MS 60000LL

/* Four buckets an octave from 16 ms: within 19 %. */
static int bucket_of(int64_t ms)
{
        int i = ms < 16 ? 0 : 1 + (int)(4 * log2((double)ms / 16));

        return i < AD_FRESHNESS_BUCKETS ? i : AD_FRESHNESS_BUCKETS - 1;
}

/* A seal names the first and last receive time of its events: taken as spread evenly between. */
void adi_fresh_add(struct ad_view *v, const struct ad_note *note, uint64_t events, int64_t now_ms)
{
        int64_t minute = now_ms / MINUTE_MS, newest = now_ms - note->max_receive_ms;
        int64_t span = note->max_receive_ms - note->min_receive_ms;
        struct adi_fresh *f = &v->fresh[minute % ADI_FRESH_SLOTS];

        /* What was received before this process began tells of the restart, not of the path. */
        if (events == 0 || note->min_receive_ms == 0 || note->max_receive_ms < v->opened_ms ||
            span < 0 || newest < 0)
                return;
        if (f->minute != minute)
                *f = (struct adi_fresh){.minute = minute};
        for (int i = 0; i < FRESH_STEPS; i++)
                f->counts[bucket_of(newest + span * i / (FRESH_STEPS - 1))] +=
                        events; /* counts are of eighths of an event */
}

static int64_t percentile(const uint64_t *counts, uint64_t all, double share)
{
        uint64_t want = (uint64_t)ceil((double)all * share), sum = 0;

        for (int i = 0; i < AD_FRESHNESS_BUCKETS; i++) {
                sum += counts[i];
                if (sum >= want)
                        return (int64_t)(16 * exp2((double)i / 4)); /* the bucket's upper end */
        }
        return -1;
}

static struct ad_freshness freshness(const struct ad_view *v, int64_t now_ms)
{
        uint64_t counts[AD_FRESHNESS_BUCKETS] = {0};
        struct ad_freshness ret = {.p50_ms = -1, .p95_ms = -1};

        for (int s = 0; s < ADI_FRESH_SLOTS; s++) {
                if (v->fresh[s].minute <= now_ms / MINUTE_MS - ADI_FRESH_SLOTS)
                        continue;
                for (int i = 0; i < AD_FRESHNESS_BUCKETS; i++) {
                        counts[i] += v->fresh[s].counts[i];
                        ret.events += v->fresh[s].counts[i];
                }
        }
        if (ret.events > 0) {
                ret.p50_ms = percentile(counts, ret.events, 0.5);
                ret.p95_ms = percentile(counts, ret.events, 0.95);
                ret.events /= FRESH_STEPS;
        }
        return ret;
}

static size_t up16(size_t n)
{
        return (n + 15) & ~(size_t)15;
}

/* One allocation: the struct, then sources, spans and starts. */
static struct ad_status *copy(const struct ad_view *v)
{
        size_t sources = up16(sizeof(struct ad_status));
        size_t spans = sources + up16(v->source_count * sizeof(struct ad_source));
        size_t starts = spans + up16(v->spans.count * sizeof(struct ad_span));
        size_t all = starts + v->starts.count * sizeof(struct ad_start);
        struct ad_status *s = calloc(1, all);
        struct ad_start *start;
        struct ad_span *span;
        uint8_t *base = (uint8_t *)s;

        if (!s)
                return NULL;
        if (v->source_count)
                memcpy(base + sources, v->sources, v->source_count * sizeof(struct ad_source));
        s->sources = (struct ad_source *)(void *)(base + sources);
        s->source_count = v->source_count;
        s->spans = span = (struct ad_span *)(void *)(base + spans);
        for (struct ad_map_entry *e = v->spans.first; e; e = e->next)
                span[s->span_count++] = ((struct adi_span *)e->value)->span;
        s->starts = start = (struct ad_start *)(void *)(base + starts);
        for (struct ad_map_entry *e = v->starts.first; e; e = e->next)
                if (!((struct adi_start *)e->value)->gone)
                        start[s->start_count++] = ((struct adi_start *)e->value)->start;
        return s;
}

int adi_publish(struct ad_view *v, int64_t now_ms, struct df_error *err)
{
        struct ad_status *s = copy(v), *old;

        if (!s)
                return df_fail(err, DF_ENOMEM, "status of the view");
        atomic_init(&s->refs, 1);
        s->partitions = v->options.partitions;
        s->generation = v->options.events_generation;
        s->forgotten = v->forgotten;
        s->forgotten_count = v->forgotten_count;
        s->outside = v->outside;
        s->freshness = freshness(v, now_ms);
        s->commits = v->commits;
        s->refused_rows = v->refused_rows;
        s->committed_ms = now_ms;
        pthread_mutex_lock(&v->lock);
        old = v->status;
        v->status = s;
        pthread_mutex_unlock(&v->lock);
        ad_status_release(old);
        return 0;
}

struct ad_status *ad_view_status(struct ad_view *v)
{
        struct ad_status *s;

        pthread_mutex_lock(&v->lock);
        s = v->status;
        atomic_fetch_add(&s->refs, 1);
        pthread_mutex_unlock(&v->lock);
        return s;
}
