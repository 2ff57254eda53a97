#include "df/clock.h"

void df_clock_init(struct df_clock *c)
{
        c->max_append_ms = DF_TIME_MIN;
        c->max_receive_ms = DF_TIME_MIN;
        c->watermark_ms = DF_TIME_MIN;
}

static int64_t minus(int64_t a, int64_t b)
{
        int64_t r;

        if (__builtin_sub_overflow(a, b, &r))
                return b > 0 ? INT64_MIN : INT64_MAX;
        return r;
}

static int64_t larger(int64_t a, int64_t b)
{
        return a > b ? a : b;
}

void df_clock_record(struct df_clock *c, int64_t append_ms)
{
        c->max_append_ms = larger(c->max_append_ms, append_ms);
}

enum df_clock_verdict df_clock_judge(struct df_clock *c, const struct df_clock_rules *rules,
                                     int64_t receive_ms, int64_t event_ms)
{
        int64_t earlier = event_ms < receive_ms ? event_ms : receive_ms;

        if (rules->bounded)
                return DF_CLOCK_OK;
        if (minus(receive_ms, c->max_append_ms) > rules->receive_ahead_max_ms)
                return DF_CLOCK_AHEAD;
        if (c->max_receive_ms != DF_TIME_MIN &&
            minus(c->max_receive_ms, receive_ms) > rules->receive_behind_max_ms)
                return DF_CLOCK_STALE;
        if (minus(event_ms, receive_ms) > rules->future_max_ms)
                return DF_CLOCK_FUTURE;
        if (minus(receive_ms, event_ms) > rules->accepted_age_ms)
                return DF_CLOCK_OLD;
        c->max_receive_ms = larger(c->max_receive_ms, receive_ms);
        c->watermark_ms = larger(c->watermark_ms, minus(earlier, rules->out_of_orderness_ms));
        return DF_CLOCK_OK;
}

void df_clock_reset(struct df_clock *c)
{
        c->max_append_ms = DF_TIME_MIN;
        c->max_receive_ms = DF_TIME_MIN;
}

void df_clock_close(struct df_clock *c)
{
        c->watermark_ms = DF_TIME_MAX;
}
