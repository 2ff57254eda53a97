/* generate_plan.c - which event has which index (generate.h). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/adtally/generate.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000
#define DAY_MS 86400000LL
#define LATE_SPREAD_MS (30 * MINUTE_MS)
#define DISORDER_MAX_MS 30000
#define CONFLICT_BATCHES 16 /* how far behind its original a conflict is sent */
#define DUPLICATE_TRIES 16
#define ADVERTISER_CAMPAIGNS 10

const char *const ad_gen_kind_names[AD_GEN_KINDS] = {
        "plain", "out_of_order", "late", "duplicate", "conflict", "broken",
};

struct ad_gen_plan {
        struct ad_gen_options o;
        double *campaign_cdf;
        uint64_t conflict_distance;
        int64_t disorder_ms;
};

/* ---- random numbers: a generator of its own for each index ---- */

struct draws {
        uint64_t state;
};

static uint64_t next(struct draws *d)
{
        uint64_t z = d->state += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static struct draws draws_of(const struct ad_gen_plan *p, uint64_t index)
{
        struct draws d = {.state = p->o.seed * 0xd1342543de82ef95u + 1};

        d.state = next(&d) ^ (index * 0x2545f4914f6cdd1du);
        (void)next(&d);
        return d;
}

static uint64_t below(struct draws *d, uint64_t n)
{
        return n ? next(d) % n : 0;
}

static double unit(struct draws *d)
{
        return (double)(next(d) >> 11) * 0x1p-53;
}

/* ---- the plan ---- */

static double *zipf_cdf(uint32_t n, double exponent)
{
        double *cdf = calloc(n, sizeof(*cdf)), sum = 0;

        for (uint32_t i = 0; cdf && i < n; i++)
                cdf[i] = sum += 1 / pow(i + 1, exponent);
        for (uint32_t i = 0; cdf && i < n; i++)
                cdf[i] /= sum;
        return cdf;
}

int ad_gen_plan_create(const struct ad_gen_options *o, struct ad_gen_plan **ret,
                       struct df_error *err)
{
        struct ad_gen_plan *p = calloc(1, sizeof(*p));
        uint64_t quarter = o->events / 4;

        df_check(o->campaigns > 0 && o->batch > 0 && o->currency_count > 0);
        if (p) {
                p->o = *o;
                p->campaign_cdf = zipf_cdf(o->campaigns, o->zipf);
                p->conflict_distance = (uint64_t)CONFLICT_BATCHES * o->batch;
                if (p->conflict_distance > quarter)
                        p->conflict_distance = quarter;
                p->conflict_distance++;
                p->disorder_ms = (o->grace_ms + o->out_of_orderness_ms) / 2;
                if (p->disorder_ms > DISORDER_MAX_MS)
                        p->disorder_ms = DISORDER_MAX_MS;
        }
        if (!p || !p->campaign_cdf) {
                ad_gen_plan_destroy(p);
                return df_fail(err, DF_ENOMEM, "%u campaigns", o->campaigns);
        }
        *ret = p;
        return 0;
}

void ad_gen_plan_destroy(struct ad_gen_plan *p)
{
        if (p)
                free(p->campaign_cdf);
        free(p);
}

const struct ad_gen_options *ad_gen_plan_options(const struct ad_gen_plan *p)
{
        return &p->o;
}

/* The kind that the first draw says, before it is known whether there is an event to repeat. */
static enum ad_gen_kind drawn_kind(const struct ad_gen_plan *p, struct draws *d)
{
        const struct ad_gen_options *o = &p->o;
        double u = unit(d);

        if ((u -= o->broken) < 0)
                return AD_GEN_BROKEN;
        if ((u -= o->conflicts) < 0)
                return AD_GEN_CONFLICT;
        if ((u -= o->duplicates) < 0)
                return AD_GEN_DUPLICATE;
        if ((u -= o->late) < 0)
                return AD_GEN_LATE;
        return u - o->out_of_order < 0 ? AD_GEN_OUT_OF_ORDER : AD_GEN_PLAIN;
}

static enum ad_gen_kind kind_at(const struct ad_gen_plan *p, uint64_t index)
{
        struct draws d = draws_of(p, index);

        return drawn_kind(p, &d);
}

static bool on_time(enum ad_gen_kind k)
{
        return k == AD_GEN_PLAIN || k == AD_GEN_OUT_OF_ORDER;
}

/* The event that index repeats; index itself when there is none that may be repeated. */
static uint64_t duplicate_of(const struct ad_gen_plan *p, uint64_t index, struct draws *d)
{
        uint64_t reach = (uint64_t)CONFLICT_BATCHES * p->o.batch;
        uint64_t back = below(d, 2) ? 50 : reach, at;

        if (back > reach)
                back = reach;
        if (back > index)
                back = index;
        at = index - (back ? 1 + below(d, back) : 0);
        for (int i = 0; i < DUPLICATE_TRIES && index - at <= back && at < index; i++, at--) {
                enum ad_gen_kind k = kind_at(p, at);

                /* A third copy after the conflicting one would conflict with that (D1). */
                if ((on_time(k) || k == AD_GEN_LATE) &&
                    kind_at(p, at + p->conflict_distance) != AD_GEN_CONFLICT)
                        return at;
                if (at == 0)
                        break;
        }
        return index;
}

static void resolve(const struct ad_gen_plan *p, struct draws *d, struct ad_gen_item *it)
{
        it->kind = drawn_kind(p, d);
        it->origin = it->index;
        if (it->kind == AD_GEN_DUPLICATE)
                it->origin = duplicate_of(p, it->index, d);
        if (it->kind == AD_GEN_CONFLICT && it->index >= p->conflict_distance &&
            on_time(kind_at(p, it->index - p->conflict_distance)))
                it->origin = it->index - p->conflict_distance;
        if ((it->kind == AD_GEN_DUPLICATE || it->kind == AD_GEN_CONFLICT) &&
            it->origin == it->index)
                it->kind = AD_GEN_PLAIN;
}

static uint32_t pick_campaign(const struct ad_gen_plan *p, struct draws *d)
{
        double u = unit(d);
        uint32_t low = 0, high = p->o.campaigns - 1;

        while (low < high) {
                uint32_t mid = (low + high) / 2;

                if (p->campaign_cdf[mid] < u)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

static void pick_money(const struct ad_gen_plan *p, struct draws *d, struct ad_gen_item *it)
{
        uint32_t n = p->o.currency_count;
        uint64_t states = below(d, 100);

        it->cost = it->payout = it->value = -1;
        it->currency = it->value_currency = -1;
        if (states < 3)
                return; /* no money: the tenant's default currency */
        it->currency = (int)below(d, n);
        it->cost = it->type == AD_IMPRESSION ? (int64_t)(1 + below(d, 5000))
                                             : (int64_t)(10000 + below(d, 890000));
        if (below(d, 2))
                it->payout = it->cost * (int64_t)(40 + below(d, 41)) / 100;
        if (it->type != AD_CONVERSION)
                return;
        it->value = (int64_t)(1000000 + below(d, 199000000));
        if (below(d, 5) == 0)
                it->value_currency = (int)below(d, n);
}

static int64_t pick_time(const struct ad_gen_plan *p, struct draws *d, enum ad_gen_kind kind,
                         int64_t base, int64_t late_base)
{
        const struct ad_gen_options *o = &p->o;
        uint64_t back = below(d, LATE_SPREAD_MS), disorder = below(d, (uint64_t)p->disorder_ms + 1);

        if (kind == AD_GEN_LATE)
                return late_base - o->grace_ms - o->out_of_orderness_ms - MINUTE_MS -
                       AD_GEN_MARGIN_MS - (int64_t)back;
        return kind == AD_GEN_OUT_OF_ORDER ? base - (int64_t)disorder : base;
}

static void fill(const struct ad_gen_plan *p, uint64_t index, int64_t base, int64_t late_base,
                 struct ad_gen_item *it)
{
        struct draws d = draws_of(p, index);
        uint64_t type;

        it->index = index;
        resolve(p, &d, it);
        d = draws_of(p, ~index); /* the content, whatever the kind drew */
        type = below(&d, 100);
        it->type = type < 85 ? AD_IMPRESSION : type < 97 ? AD_CLICK : AD_CONVERSION;
        it->campaign = pick_campaign(p, &d);
        pick_money(p, &d, it);
        it->event_ms = pick_time(p, &d, it->kind, base, late_base);
        it->broken = (uint32_t)below(&d, UINT32_MAX);
        it->rejected = AD_NONE;
}

static int64_t base_of(const struct ad_gen_plan *p, uint64_t index,
                       int64_t (*base_ms)(void *arg, uint64_t batch), void *arg)
{
        const struct ad_gen_options *o = &p->o;

        if (o->live)
                return base_ms(arg, index / o->batch);
        return o->start_ms + (int64_t)((__int128)o->span_ms * (__int128)index /
                                       (__int128)(o->events ? o->events : 1));
}

static int64_t late_base_of(const struct ad_gen_plan *p, int64_t base)
{
        int64_t first = p->o.start_ms < p->o.began_ms ? p->o.start_ms : p->o.began_ms;

        return p->o.live ? base : first;
}

/* ---- broken events, and the code that each is answered with ---- */

static const struct broken {
        enum ad_reason reason;
        const char *line; /* %s: the event id */
} broken[] = {
        {AD_MISSING_FIELD, "{\"event_id\":\"%s\",\"type\":\"click\"}"},
        {AD_MISSING_FIELD, "{\"type\":\"click\",\"campaign_id\":\"%s\"}"},
        {AD_WRONG_TYPE, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                        "\"cost_micros\":\"5\",\"currency\":\"EUR\"}"},
        {AD_WRONG_TYPE, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":7}"},
        {AD_NEGATIVE, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                      "\"cost_micros\":-1,\"currency\":\"EUR\"}"},
        {AD_OUT_OF_RANGE, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                          "\"cost_micros\":9223372036854775808,\"currency\":\"EUR\"}"},
        {AD_UNKNOWN_TYPE, "{\"event_id\":\"%s\",\"type\":\"hover\",\"campaign_id\":\"c1\"}"},
        {AD_UNKNOWN_CURRENCY, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                              "\"cost_micros\":5,\"currency\":\"ZZZ\"}"},
        {AD_MISSING_CURRENCY, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                              "\"cost_micros\":5}"},
        {AD_BAD_TIME, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                      "\"event_time\":\"yesterday\"}"},
        {AD_UNKNOWN_FIELD, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                           "\"campain\":\"c1\"}"},
        {AD_DUPLICATE_KEY, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\","
                           "\"type\":\"click\"}"},
        {AD_BAD_CHARACTER,
         "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"a\\u0000b\"}"},
        {AD_TOO_LONG, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"ccccccccccccccccc"
                      "cccccccccccccccccccccccccccccccccccccccccccccccc\"}"},
        {AD_BAD_UTF8, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"\xff\"}"},
        {AD_BAD_JSON, "{\"event_id\":\"%s\",\"type\":"},
        {AD_NOT_AN_EVENT, "[\"%s\"]"},
        {AD_EVENT_TIME_FUTURE, NULL},
        {AD_EVENT_TIME_OLD, NULL},
};

void ad_gen_item(const struct ad_gen_plan *p, uint64_t index,
                 int64_t (*base_ms)(void *arg, uint64_t batch), void *arg, struct ad_gen_item *ret)
{
        int64_t base = base_of(p, index, base_ms, arg);
        struct ad_gen_item origin;

        fill(p, index, base, late_base_of(p, base), ret);
        if (ret->kind == AD_GEN_BROKEN) {
                ret->broken %= sizeof(broken) / sizeof(broken[0]);
                ret->rejected = broken[ret->broken].reason;
                if (ret->rejected == AD_EVENT_TIME_FUTURE)
                        ret->event_ms =
                                (ret->event_ms > p->o.began_ms ? ret->event_ms : p->o.began_ms) +
                                DAY_MS;
                if (ret->rejected == AD_EVENT_TIME_OLD)
                        ret->event_ms = p->o.began_ms - p->o.accepted_age_ms - DAY_MS;
        }
        if (ret->origin == index)
                return;
        base = base_of(p, ret->origin, base_ms, arg);
        fill(p, ret->origin, base, late_base_of(p, base), &origin);
        origin.index = index;
        origin.origin = ret->origin;
        origin.kind = ret->kind;
        if (ret->kind == AD_GEN_CONFLICT) { /* other money, so another fingerprint */
                origin.cost = origin.cost < 0 ? 1 : origin.cost + 1;
                origin.currency = origin.currency < 0 ? 0 : origin.currency;
        }
        *ret = origin;
}

/* ---- JSON ---- */

static void put_time(struct df_buf *b, uint64_t index, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        if (index % 8 == 3) { /* both forms of a time, the same for all copies */
                (void)ad_time_text(ms, text);
                df_buf_printf(b, ",\"event_time\":\"%s\"", text);
        } else {
                df_buf_printf(b, ",\"event_time\":%" PRId64, ms);
        }
}

static void put_broken(const struct ad_gen_plan *p, const struct ad_gen_item *it, struct df_buf *b)
{
        const struct broken *k = &broken[it->broken];
        char id[AD_GEN_NAME_MAX];
        const char *at;

        (void)snprintf(id, sizeof(id), "g%" PRIx64 "-%" PRIu64, p->o.seed, it->index);
        if (!k->line) {
                df_buf_printf(b, "{\"event_id\":\"%s\",\"type\":\"click\",\"campaign_id\":\"c1\"",
                              id);
                put_time(b, it->index, it->event_ms);
                df_buf_append(b, "}\n", 2);
                return;
        }
        at = strstr(k->line, "%s");
        df_buf_append(b, k->line, (size_t)(at - k->line));
        df_buf_append(b, id, strlen(id));
        df_buf_append(b, at + 2, strlen(at + 2));
        df_buf_append(b, "\n", 1);
}

static void put_dimensions(const struct ad_gen_plan *p, const struct ad_gen_item *it,
                           struct df_buf *b)
{
        static const char *const countries[] = {"DE", "FR", "US", "BR", "IN", "JP"};
        static const char *const devices[] = {"ios", "android", "web"};
        struct draws d = draws_of(p, it->origin ^ 0xa5a5a5a5a5a5a5a5u);
        uint64_t user = below(&d, 100000);

        df_buf_printf(b, ",\"ad_id\":\"c%u-a%" PRIu64 "\"", it->campaign + 1, below(&d, 5) + 1);
        df_buf_printf(b, ",\"publisher_id\":\"p%" PRIu64 "\"", below(&d, 20) + 1);
        df_buf_printf(b, ",\"placement_id\":\"top%" PRIu64 "\"", below(&d, 3) + 1);
        df_buf_printf(b, ",\"country\":\"%s\",\"device\":\"%s\"", countries[below(&d, 6)],
                      devices[below(&d, 3)]);
        df_buf_printf(b, ",\"user_id\":\"u%" PRIu64 "\"", user);
        if (it->type != AD_IMPRESSION)
                df_buf_printf(b, ",\"click_id\":\"k%" PRIu64 "\"", below(&d, 1000000));
}

static void put_money(const struct ad_gen_plan *p, const struct ad_gen_item *it, struct df_buf *b)
{
        if (it->cost >= 0)
                df_buf_printf(b, ",\"cost_micros\":%" PRId64, it->cost);
        if (it->payout >= 0)
                df_buf_printf(b, ",\"payout_micros\":%" PRId64, it->payout);
        if (it->value >= 0)
                df_buf_printf(b, ",\"conversion_value_micros\":%" PRId64, it->value);
        if (it->currency >= 0)
                df_buf_printf(b, ",\"currency\":\"%s\"", p->o.currencies[it->currency]);
        if (it->value_currency >= 0)
                df_buf_printf(b, ",\"conversion_value_currency\":\"%s\"",
                              p->o.currencies[it->value_currency]);
}

void ad_gen_line(const struct ad_gen_plan *p, const struct ad_gen_item *it, struct df_buf *b)
{
        static const char *const types[] = {"", "impression", "click", "conversion"};

        if (it->kind == AD_GEN_BROKEN) {
                put_broken(p, it, b);
                return;
        }
        df_buf_printf(b, "{\"event_id\":\"g%" PRIx64 "-%" PRIu64 "\",\"type\":\"%s\"", p->o.seed,
                      it->origin, types[it->type]);
        put_time(b, it->origin, it->event_ms);
        df_buf_printf(b, ",\"advertiser_id\":\"adv%u\",\"campaign_id\":\"c%u\"",
                      it->campaign / ADVERTISER_CAMPAIGNS + 1, it->campaign + 1);
        put_dimensions(p, it, b);
        put_money(p, it, b);
        df_buf_append(b, "}\n", 2);
}
