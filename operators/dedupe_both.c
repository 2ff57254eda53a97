/* dedupe_both.c - realtime's verdict from the map of the billing horizon (dedupe_billing).
 *
 * Both rules record the same: every event that guard let pass, under (hour, id). Realtime's map is
 * therefore the part of the bill's that it has not forgotten, and as both ask for the occurrence
 * greatest by (hour, log order), with the same upper end, one answer serves both: where the
 * greatest of all lies within realtime's horizon it is realtime's too, and where it lies below,
 * realtime has none.
 *
 * What is left is a clock that is set back (T2): what realtime had forgotten stays forgotten,
 * though its hours come again. So an id that is recorded in an hour that realtime had ended already
 * begins an epoch. A bucket's place is (hour, epoch), ordered like (hour, log order), and for each
 * epoch it is known up to which hour realtime has forgotten since. Only where the greatest
 * occurrence is a forgotten one, the others are looked for, hour by hour.
 */
#include "operators/dedupe_private.h"

void adi_both_open(struct adi_dedupe *d, uint32_t realtime_hours)
{
        d->both.realtime_hours = realtime_hours;
        d->both.epoch = 0;
        d->both.ended[0] = INT64_MIN;
}

void adi_both_reach(struct adi_dedupe *d, int64_t hour)
{
        struct adi_both *t = &d->both;
        int64_t before = hour - 1 - t->realtime_hours;

        for (uint32_t e = 0; t->realtime_hours > 0 && e <= t->epoch; e++)
                if (t->ended[e] < before)
                        t->ended[e] = before;
}

int adi_both_place(struct adi_dedupe *d, int64_t hour, int64_t *ret, struct df_error *err)
{
        struct adi_both *t = &d->both;

        if (hour < t->ended[t->epoch]) {
                if (t->epoch + 1 == ADI_EPOCHS_MAX)
                        return df_fail(err, DF_ELIMIT,
                                       "dedupe_billing: the clock was set back more than %d times",
                                       ADI_EPOCHS_MAX - 1);
                t->ended[++t->epoch] = INT64_MIN;
                d->header_dirty = true;
        }
        *ret = adi_place(hour, t->epoch);
        return 0;
}

static bool is_known(const struct adi_both *t, int64_t place)
{
        return adi_place_hour(place) >= t->ended[place & (ADI_EPOCHS_MAX - 1)];
}

static int seek_place(struct adi_dedupe *d, struct df_hash128 key, const struct adi_hits *hits,
                      int64_t place, struct adi_seen *ret, struct df_error *err)
{
        adi_set_seek(&d->set, key, place, place, place, ret);
        return adi_runs_seek(d, key, hits, place, place, ret, err);
}

int adi_both_seek(struct adi_dedupe *d, struct df_hash128 key, const struct adi_hits *hits,
                  int64_t hour, const struct adi_seen *seen, struct adi_seen *ret,
                  struct df_error *err)
{
        const struct adi_both *t = &d->both;
        int64_t from = adi_place(hour - t->realtime_hours, 0);
        int rc = 0;

        *ret = *seen;
        if (seen->hour >= from && is_known(t, seen->hour))
                return 0;
        *ret = (struct adi_seen){0};
        for (int64_t place = seen->hour; rc == 0 && !ret->found && place >= from; place--)
                if ((place & (ADI_EPOCHS_MAX - 1)) <= t->epoch && is_known(t, place))
                        rc = seek_place(d, key, hits, place, ret, err);
        return rc;
}

void adi_both_put(const struct adi_dedupe *d, struct df_buf *b)
{
        const struct adi_both *t = &d->both;

        df_put_u32be(b, t->realtime_hours);
        df_put_u32be(b, t->epoch);
        for (uint32_t e = 0; e <= t->epoch; e++)
                df_put_u64be(b, (uint64_t)t->ended[e]);
}

bool adi_both_get(struct adi_dedupe *d, struct df_reader *r)
{
        struct adi_both *t = &d->both;

        if (df_get_u32be(r) != t->realtime_hours)
                return false;
        t->epoch = df_get_u32be(r);
        if (t->epoch >= ADI_EPOCHS_MAX)
                return false;
        for (uint32_t e = 0; e <= t->epoch; e++)
                t->ended[e] = (int64_t)df_get_u64be(r);
        return !r->bad;
}
