#include "jobs/ingest/pace.h"

#include "df/err.h"

void ad_pace_added(struct ad_pace *p)
{
        if (++p->under_way > p->peak)
                p->peak = p->under_way;
}

void ad_pace_taken(struct ad_pace *p)
{
        p->peak = p->under_way;
}

void ad_pace_settled(struct ad_pace *p, size_t requests, int64_t took_us, int64_t now_us)
{
        df_check(requests <= p->under_way);
        p->under_way -= requests;
        p->last = requests;
        p->append_us = took_us;
        p->settled_us = now_us;
}

int64_t ad_pace_wait_us(const struct ad_pace *p, size_t requests, int64_t since_us, int64_t now_us)
{
        int64_t rests = (int64_t)(p->last < AD_PACE_REST_MAX ? p->last : AD_PACE_REST_MAX);
        int64_t due = since_us + p->delay_us, rested = p->settled_us + rests * p->append_us;

        if (requests > 0 && requests >= p->peak)
                return 0;
        if (requests > 0 && rested < due)
                due = rested;
        return due > now_us ? due - now_us : 0;
}
