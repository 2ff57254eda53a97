#include "jobs/api/status.h"

#include <stdlib.h>

void ad_status_release(struct ad_status *s)
{
        if (s && atomic_fetch_sub(&s->refs, 1) == 1)
                free(s);
}

static bool is_events(const struct ad_source *s)
{
        return strcmp(s->name.stream, "events") == 0;
}

static struct ad_live *add(struct ad_live *ret, size_t *count)
{
        struct ad_live *l = &ret[*count < AD_LIVE_MAX ? (*count)++ : AD_LIVE_MAX - 1];

        *l = (struct ad_live){.watermark_ms = DF_TIME_MIN, .final_through_ms = DF_TIME_MIN};
        return l;
}

static void add_partitions(const struct ad_status *s, struct ad_live *ret, size_t *count)
{
        for (uint32_t p = 0; p < s->partitions; p++) {
                struct ad_live *l = add(ret, count);

                l->everywhere = true;
                for (size_t i = 0; i < s->source_count; i++) {
                        const struct ad_source *o = &s->sources[i];

                        if (!is_events(o) || o->name.generation != s->generation ||
                            o->name.partition != p)
                                continue;
                        l->watermark_ms = o->watermark_ms;
                        l->final_through_ms = o->final_through_ms;
                }
        }
}

/* All partitions of an import generation as one: it holds its range until each has ended. */
static void add_import(const struct ad_status *s, size_t first, struct ad_live *ret, size_t *count)
{
        const struct ad_source *f = &s->sources[first];
        int64_t watermark = DF_TIME_MAX, final = DF_TIME_MAX;
        uint32_t seen = 0;
        struct ad_live *l;

        for (size_t i = 0; i < s->source_count; i++) {
                const struct ad_source *o = &s->sources[i];

                if (!o->is_import || o->name.generation != f->name.generation ||
                    strcmp(o->name.stream, f->name.stream) != 0)
                        continue;
                if (i < first)
                        return; /* counted with an earlier partition */
                seen++;
                watermark = o->watermark_ms < watermark ? o->watermark_ms : watermark;
                if (!o->closed || o->voiding)
                        final = o->final_through_ms < final ? o->final_through_ms : final;
                if (o->voiding)
                        final = DF_TIME_MIN;
        }
        if (seen < s->partitions)
                watermark = final = DF_TIME_MIN;
        if (final == DF_TIME_MAX)
                return;
        l = add(ret, count);
        l->watermark_ms = watermark;
        l->final_through_ms = final;
        l->from_ms = f->import_from_ms;
        l->to_ms = f->import_to_ms;
}

size_t ad_status_live(const struct ad_status *s, struct df_bytes tenant, int64_t from_ms,
                      int64_t to_ms, struct ad_live ret[AD_LIVE_MAX])
{
        size_t count = 0;

        add_partitions(s, ret, &count);
        for (size_t i = 0; i < s->source_count; i++) {
                const struct ad_source *o = &s->sources[i];

                if (is_events(o) && o->name.generation != s->generation && !o->closed) {
                        struct ad_live *l = add(ret, &count);

                        l->everywhere = true;
                        l->watermark_ms = o->watermark_ms;
                        l->final_through_ms = o->final_through_ms;
                }
                if (o->is_import && df_bytes_eq(df_bytes_str(o->tenant), tenant) &&
                    o->import_from_ms < to_ms && o->import_to_ms > from_ms)
                        add_import(s, i, ret, &count);
        }
        return count;
}

bool ad_live_final(const struct ad_live *live, size_t count, int64_t start_ms, int64_t end_ms)
{
        for (size_t i = 0; i < count; i++)
                if ((live[i].everywhere ||
                     (live[i].from_ms < end_ms && live[i].to_ms > start_ms)) &&
                    live[i].final_through_ms < end_ms)
                        return false;
        return true;
}

int64_t ad_live_watermark(const struct ad_live *live, size_t count)
{
        int64_t least = DF_TIME_MAX;

        for (size_t i = 0; i < count; i++)
                if (live[i].everywhere && live[i].watermark_ms < least)
                        least = live[i].watermark_ms;
        return least == DF_TIME_MAX && count == 0 ? DF_TIME_MIN : least;
}

/* Windows whose end is at or before t. */
static size_t passed(const int64_t *bounds, size_t count, int64_t t)
{
        size_t lo = 0, hi = count;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (bounds[mid + 1] <= t)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo;
}

double ad_live_completeness(const struct ad_live *live, size_t live_count, const int64_t *bounds,
                            size_t count)
{
        double done = 0;

        if (live_count == 0 || count == 0)
                return 1;
        for (size_t i = 0; i < live_count; i++)
                done += (double)passed(bounds, count, live[i].watermark_ms);
        return done / ((double)live_count * (double)count);
}

bool ad_status_is_current(const struct ad_status *s, const struct ad_source *o)
{
        return is_events(o) && o->name.generation == s->generation &&
               o->name.partition < s->partitions;
}

uint64_t ad_source_class(const struct ad_source *s, enum ad_outcome_class cls)
{
        uint64_t sum = 0;

        for (unsigned o = 1; o < AD_OUTCOME_MAX; o++) /* 0 is no outcome */
                if (s->outcomes[o] && ad_reason_info(o)->cls == cls)
                        sum += s->outcomes[o];
        return sum;
}

double ad_status_late_share(const struct ad_status *s)
{
        uint64_t late = 0, all = 0;

        for (size_t i = 0; i < s->source_count; i++) {
                if (!is_events(&s->sources[i]))
                        continue;
                late += s->sources[i].outcomes[AD_LATE];
                all += s->sources[i].outcomes[AD_LATE] + s->sources[i].outcomes[AD_COUNTED];
        }
        return all < AD_LATE_HISTORY ? 0 : (double)late / (double)all;
}
