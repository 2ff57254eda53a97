/* latency.c - how long questions took, over the last minutes. */
#include <math.h>

#include "jobs/api/serve_private.h"

#define MINUTE_MS 60000LL

void adi_latency_init(struct adi_latency *l)
{
        memset(l, 0, sizeof(*l));
        pthread_mutex_init(&l->lock, NULL);
}

void adi_latency_add(struct adi_latency *l, int64_t ns, int64_t now_ms)
{
        double us = (double)ns / 1000;
        int i = us < 16 ? 0 : 1 + (int)(4 * log2(us / 16));
        int64_t minute = now_ms / MINUTE_MS;

        i = i < ADI_LATENCY_BUCKETS ? i : ADI_LATENCY_BUCKETS - 1;
        pthread_mutex_lock(&l->lock);
        if (l->slots[minute % ADI_LATENCY_SLOTS].minute != minute) {
                memset(&l->slots[minute % ADI_LATENCY_SLOTS], 0, sizeof(l->slots[0]));
                l->slots[minute % ADI_LATENCY_SLOTS].minute = minute;
        }
        l->slots[minute % ADI_LATENCY_SLOTS].counts[i]++;
        pthread_mutex_unlock(&l->lock);
}

static int64_t percentile(const uint64_t *counts, uint64_t all, double share)
{
        uint64_t want = (uint64_t)ceil((double)all * share), sum = 0;

        for (int i = 0; all > 0 && i < ADI_LATENCY_BUCKETS; i++) {
                sum += counts[i];
                if (sum >= want)
                        return (int64_t)(16 * exp2((double)i / 4)); /* the bucket's upper end */
        }
        return -1;
}

void adi_latency_read(struct adi_latency *l, int64_t now_ms, int64_t *ret_p50_us,
                      int64_t *ret_p95_us)
{
        uint64_t counts[ADI_LATENCY_BUCKETS] = {0}, all = 0;

        pthread_mutex_lock(&l->lock);
        for (int s = 0; s < ADI_LATENCY_SLOTS; s++) {
                if (l->slots[s].minute <= now_ms / MINUTE_MS - ADI_LATENCY_SLOTS)
                        continue;
                for (int i = 0; i < ADI_LATENCY_BUCKETS; i++) {
                        counts[i] += l->slots[s].counts[i];
                        all += l->slots[s].counts[i];
                }
        }
        pthread_mutex_unlock(&l->lock);
        *ret_p50_us = percentile(counts, all, 0.5);
        *ret_p95_us = percentile(counts, all, 0.95);
}

void adi_latency_release(struct adi_latency *l)
{
        pthread_mutex_destroy(&l->lock);
}
