/* books_sums.c - sums and differences of targets: counts are signed here (books.h). */
#include "proto/books.h"

enum sign { PLUS, MINUS };

static bool move_count(uint64_t *to, uint64_t v, enum sign sign)
{
        int64_t sum;
        bool over = sign == PLUS ? __builtin_add_overflow((int64_t)*to, (int64_t)v, &sum)
                                 : __builtin_sub_overflow((int64_t)*to, (int64_t)v, &sum);

        *to = (uint64_t)sum;
        return !over;
}

static bool move_money(df_nanos *to, df_nanos v, enum sign sign)
{
        return sign == PLUS ? !__builtin_add_overflow(*to, v, to)
                            : !__builtin_sub_overflow(*to, v, to);
}

static bool move(struct ad_cell *to, const struct ad_cell *v, enum sign sign)
{
        struct ad_cell s = *to;
        bool ok = move_count(&s.impressions, v->impressions, sign) &&
                  move_count(&s.clicks, v->clicks, sign) &&
                  move_count(&s.conversions, v->conversions, sign) &&
                  move_money(&s.spend, v->spend, sign) && move_money(&s.payout, v->payout, sign) &&
                  move_money(&s.value, v->value, sign);

        for (int i = 0; ok && i < 3; i++)
                ok = move_count(&s.invalid[i], v->invalid[i], sign);
        if (ok)
                *to = s;
        return ok;
}

bool ad_cell_add_signed(struct ad_cell *to, const struct ad_cell *v)
{
        return move(to, v, PLUS);
}

bool ad_cell_subtract(struct ad_cell *to, const struct ad_cell *v)
{
        return move(to, v, MINUS);
}

bool ad_cell_eq(const struct ad_cell *a, const struct ad_cell *b)
{
        return a->impressions == b->impressions && a->clicks == b->clicks &&
               a->conversions == b->conversions && a->invalid[0] == b->invalid[0] &&
               a->invalid[1] == b->invalid[1] && a->invalid[2] == b->invalid[2] &&
               a->spend == b->spend && a->payout == b->payout && a->value == b->value;
}

bool ad_target_sums(const struct ad_target *t, struct ad_cell *ret_billed,
                    struct ad_cell *ret_realtime)
{
        *ret_billed = *ret_realtime = (struct ad_cell){0};
        for (size_t i = 0; i < t->cause_count; i++)
                if (!ad_cell_add_signed(ret_billed, &t->causes[i].billed) ||
                    !ad_cell_add_signed(ret_realtime, &t->causes[i].realtime))
                        return false;
        return true;
}

/* The cells of this cause; zero where the target has none. *at walks along the ascending causes. */
static struct ad_cause_cell of_cause(const struct ad_target *t, size_t *at, uint32_t cause)
{
        struct ad_cause_cell none = {.cause = cause};

        if (!t || *at == t->cause_count || t->causes[*at].cause != cause)
                return none;
        return t->causes[(*at)++];
}

bool ad_target_same_cells(const struct ad_target *a, const struct ad_target *b)
{
        size_t i = 0, j = 0;

        for (uint32_t cause = 0; cause < AD_CAUSE_COUNT; cause++) {
                struct ad_cause_cell x = of_cause(a, &i, cause), y = of_cause(b, &j, cause);

                if (!ad_cell_eq(&x.billed, &y.billed) || !ad_cell_eq(&x.realtime, &y.realtime))
                        return false;
        }
        return true;
}

bool ad_target_delta(const struct ad_target *from, const struct ad_target *to,
                     struct ad_cause_cell *ret, size_t *ret_count)
{
        size_t i = 0, j = 0;

        *ret_count = 0;
        for (uint32_t cause = 0; cause < AD_CAUSE_COUNT; cause++) {
                struct ad_cause_cell x = of_cause(from, &i, cause), y = of_cause(to, &j, cause);

                if (!ad_cell_subtract(&y.billed, &x.billed))
                        return false;
                y.realtime = (struct ad_cell){0};
                if (!ad_cell_is_zero(&y.billed))
                        ret[(*ret_count)++] = y;
        }
        return true;
}
