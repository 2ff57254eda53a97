/* schedule.c - when a run is due (job.h). */
#include "jobs/reconcile/job.h"

#define MINUTE_MS 60000LL
#define DAY_MS 86400000LL
#define RETRY_MIN_MS 5000
#define RETRY_MAX_MS 300000

static bool two_digits(const char *s, int below, int *ret)
{
        if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9')
                return false;
        *ret = (s[0] - '0') * 10 + s[1] - '0';
        return *ret < below;
}

int ad_schedule_nightly(const char *text, int64_t *ret_ms, struct df_error *err)
{
        int hour, minute;

        *ret_ms = -1;
        if (strcmp(text, "off") == 0)
                return 0;
        if (strlen(text) != 5 || text[2] != ':' || !two_digits(text, 24, &hour) ||
            !two_digits(text + 3, 60, &minute))
                return df_fail(err, DF_EINVAL,
                               "--reconcile-nightly %.20s: HH:MM (UTC) or off is wanted", text);
        *ret_ms = (hour * 60 + minute) * MINUTE_MS;
        return 0;
}

enum ad_due ad_schedule_due(const struct ad_schedule *s, int64_t now, int64_t ran, int64_t compared)
{
        int64_t night = now - now % DAY_MS + s->nightly_ms;

        if (now < s->first_ms)
                return AD_DUE_NOT;
        if (night > now)
                night -= DAY_MS;
        if (s->nightly_ms >= 0 && compared < night)
                return AD_DUE_WHOLE;
        /* A clock that was put back must not stop the bill. */
        return now - ran >= s->every_ms || ran > now ? AD_DUE_RUN : AD_DUE_NOT;
}

int64_t ad_schedule_retry_ms(uint32_t failures)
{
        int64_t wait = (int64_t)RETRY_MIN_MS << (failures < 8 ? failures : 8);

        return wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS;
}
