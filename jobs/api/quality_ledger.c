/* quality_ledger.c - the arithmetic of both ledgers. */
#include "jobs/api/quality.h"

#include <stdlib.h>

#define MINUTE_MS 60000LL

static uint64_t apart(uint64_t a, uint64_t b)
{
        return a > b ? a - b : b - a;
}

static uint64_t outcomes(const struct ad_source *s)
{
        uint64_t sum = 0;

        for (unsigned o = 1; o < AD_OUTCOME_MAX; o++)
                sum += s->outcomes[o];
        return sum;
}

uint64_t ad_source_imbalance(const struct ad_status *s, size_t source)
{
        const struct ad_source *o = &s->sources[source];
        uint64_t lost = 0;

        for (size_t i = 0; i < s->start_count; i++) {
                const struct ad_start *e = &s->starts[i];

                if (e->source == source && e->edge.partition_accepted > e->edge.partition_seen)
                        lost += e->edge.partition_accepted - e->edge.partition_seen;
        }
        return apart(o->events, outcomes(o)) + o->sequence_gaps + o->chain_gaps + lost;
}

void ad_source_ledger(const struct ad_source *s, uint64_t pending, struct ad_ledger *ret)
{
        *ret = (struct ad_ledger){
                .accepted = s->events + pending,
                .counted = ad_source_class(s, AD_CLASS_COUNTED),
                .duplicate = ad_source_class(s, AD_CLASS_DUPLICATE),
                .conflict = ad_source_class(s, AD_CLASS_CONFLICT),
                .late = ad_source_class(s, AD_CLASS_LATE),
                .quarantined = ad_source_class(s, AD_CLASS_QUARANTINED),
                .pending = pending,
                .imported = s->is_import ? s->events : 0,
        };
}

bool ad_start_balanced(const struct ad_start_ledger *l)
{
        return l->edge.received == l->edge.accepted + l->edge.rejected + l->edge.unanswered &&
               l->lost == 0;
}

static void add_edge(struct ad_start_ledger *l, const struct ad_edge *e)
{
        if (e->heartbeat_ms >= l->edge.heartbeat_ms)
                l->edge = *e;
        l->stored += e->partition_accepted;
        l->seen += e->partition_seen;
        if (e->partition_accepted > e->partition_seen)
                l->lost += e->partition_accepted - e->partition_seen;
}

static int by_id(const void *a, const void *b)
{
        uint64_t x = ((const struct ad_start *)a)->edge.start_id;
        uint64_t y = ((const struct ad_start *)b)->edge.start_id;

        return (x > y) - (x < y);
}

static int newest_first(const void *a, const void *b)
{
        const struct ad_start_ledger *x = a, *y = b;

        if (x->edge.heartbeat_ms != y->edge.heartbeat_ms)
                return x->edge.heartbeat_ms < y->edge.heartbeat_ms ? 1 : -1;
        return (x->start_id > y->start_id) - (x->start_id < y->start_id);
}

/* Its counts are newer; what the partitions have stored and seen is known from seals alone. */
static void add_tail(struct ad_start_ledger *all, size_t *count, const struct ad_edge *e)
{
        size_t i = 0;

        while (i < *count && all[i].start_id != e->start_id)
                i++;
        if (i == *count)
                all[(*count)++] = (struct ad_start_ledger){.start_id = e->start_id, .edge = *e};
        else if (e->heartbeat_ms >= all[i].edge.heartbeat_ms)
                all[i].edge = *e;
}

int ad_start_ledgers(const struct ad_status *s, const struct ad_tail *tail,
                     struct ad_start_ledger **ret, size_t *ret_count, struct df_error *err)
{
        size_t n = 0, most = s->start_count + tail->edge_count + 1;
        struct ad_start *sorted = calloc(most, sizeof(*sorted));
        struct ad_start_ledger *all = calloc(most, sizeof(*all));

        if (!sorted || !all) {
                free(sorted);
                free(all);
                return df_fail(err, DF_ENOMEM, "%zu ingest starts", most);
        }
        if (s->start_count)
                memcpy(sorted, s->starts, s->start_count * sizeof(*sorted));
        qsort(sorted, s->start_count, sizeof(*sorted), by_id);
        for (size_t i = 0; i < s->start_count; i++) {
                const struct ad_edge *e = &sorted[i].edge;

                if (n == 0 || all[n - 1].start_id != e->start_id)
                        all[n++] = (struct ad_start_ledger){.start_id = e->start_id,
                                                            .edge.heartbeat_ms = INT64_MIN};
                add_edge(&all[n - 1], e);
        }
        free(sorted);
        for (size_t i = 0; i < tail->edge_count; i++)
                add_tail(all, &n, &tail->edges[i]);
        qsort(all, n, sizeof(*all), newest_first);
        *ret = all;
        *ret_count = n;
        return 0;
}

static void add_source(const struct ad_status *s, size_t i, const uint64_t *pending,
                       struct ad_ledger *sum)
{
        const struct ad_source *o = &s->sources[i];
        struct ad_ledger l;

        ad_source_ledger(o, ad_status_is_current(s, o) ? pending[o->name.partition] : 0, &l);
        sum->accepted += l.accepted;
        sum->counted += l.counted;
        sum->duplicate += l.duplicate;
        sum->conflict += l.conflict;
        sum->late += l.late;
        sum->quarantined += l.quarantined;
        sum->pending += l.pending;
        sum->imported += l.imported;
}

void ad_whole_ledger(const struct ad_status *s, const uint64_t *pending,
                     const struct ad_start_ledger *starts, size_t start_count,
                     struct ad_ledger *ret, bool *ret_balanced)
{
        struct ad_ledger sum = {
                .received = s->forgotten.received,
                .rejected = s->forgotten.rejected,
                .unanswered = s->forgotten.unanswered,
                .accepted_at_edge = s->forgotten.accepted,
        };
        bool sealed[DF_PARTITIONS_MAX] = {false}, balanced = true;

        for (size_t i = 0; i < s->source_count; i++) {
                add_source(s, i, pending, &sum);
                balanced &= ad_source_imbalance(s, i) == 0;
                if (ad_status_is_current(s, &s->sources[i]))
                        sealed[s->sources[i].name.partition] = true;
        }
        for (uint32_t p = 0; p < s->partitions; p++) /* without any seal yet: all of it waits */
                if (!sealed[p]) {
                        sum.accepted += pending[p];
                        sum.pending += pending[p];
                }
        for (size_t i = 0; i < start_count; i++) {
                const struct ad_edge *e = &starts[i].edge;

                balanced &= ad_start_balanced(&starts[i]);
                sum.received += e->received;
                sum.rejected += e->rejected;
                sum.unanswered += e->unanswered;
                sum.accepted_at_edge += e->accepted;
        }
        balanced &= sum.received == sum.accepted_at_edge + sum.rejected + sum.unanswered;
        balanced &= sum.accepted == sum.counted + sum.duplicate + sum.conflict + sum.late +
                                            sum.quarantined + sum.pending;
        *ret = sum;
        *ret_balanced = balanced;
}

int64_t ad_oldest_open(const struct ad_status *s, size_t source)
{
        const struct ad_source *o = &s->sources[source];
        int64_t oldest = INT64_MAX;

        for (size_t i = 0; i < s->span_count; i++) {
                const struct ad_span *p = &s->spans[i];
                int64_t first = p->first_minute * MINUTE_MS;

                if (p->source != source ||
                    (p->last_minute + 1LL) * MINUTE_MS <= o->final_through_ms)
                        continue;
                if ((p->first_minute + 1LL) * MINUTE_MS <= o->final_through_ms)
                        first = o->final_through_ms / MINUTE_MS * MINUTE_MS;
                oldest = first < oldest ? first : oldest;
        }
        return oldest == INT64_MAX ? DF_TIME_MIN : oldest;
}
