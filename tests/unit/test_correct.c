/* test_correct.c - corrections in the bill (R5, correct.h), by a naive recount: every event is held
 * against every correction in turn. What realtime counts stays, however the bill is corrected, and
 * however the log is cut the sums are the same. */
#include "unit.h"

#include "operators/correct.h"
#include "tests/unit/bill_test.h"

#define EVENTS 1400
#define EVENTS_MAX (EVENTS + 16)
#define CORRECTIONS_MAX 40
#define IDS_MAX 6

/* ---- a random log, and random corrections of it ---- */

static struct ad_event sent[EVENTS_MAX];
static size_t sent_count;
static struct ad_correction_item items[CORRECTIONS_MAX];
static struct df_bytes ids[CORRECTIONS_MAX][IDS_MAX];
static size_t item_count;

static bool often(struct df_sim_random *x, uint32_t of_1000)
{
        return df_sim_random_chance(x, of_1000);
}

static struct ad_event random_event(struct df_sim_random *x, struct rig *r, int64_t now)
{
        struct ad_event ev = rig_event("", now);

        ev.event_id = pick(x, r, "id", 1200);
        ev.tenant_id = pick(x, r, "t", 3);
        ev.type = 1 + (uint32_t)df_sim_random_below(x, 3);
        ev.dims[AD_DIM_ADVERTISER] = pick(x, r, "a", 2);
        ev.dims[AD_DIM_CAMPAIGN] = pick(x, r, "c", 4);
        ev.dims[AD_DIM_PUBLISHER] = often(x, 200) ? (struct df_bytes){0} : pick(x, r, "p", 3);
        ev.receive_ms = now;
        ev.event_ms = now - df_sim_random_between(x, 0, 9000);
        if (often(x, 80)) /* late */
                ev.event_ms = now - df_sim_random_between(x, 200000, 40000000);
        if (often(x, 10)) /* refused by guard */
                ev.event_ms = now + 4000000;
        if (often(x, 500)) /* right at the bounds of scopes */
                ev.event_ms -= ev.event_ms % AD_QUARTER_MS;
        ev.flags = 0;
        ev.cost_nanos = 0;
        ev.currency = (struct df_bytes){0};
        if (often(x, 500)) {
                ev.flags |= AD_EV_HAS_COST;
                ev.cost_nanos = 123456789;
                ev.currency = often(x, 500) ? df_bytes_str("EUR") : df_bytes_str("USD");
        }
        if (often(x, 600)) {
                ev.flags |= AD_EV_HAS_PAYOUT;
                ev.payout_nanos = 1 + df_sim_random_between(x, 0, 1000000000);
        }
        if (ev.type == AD_CONVERSION) {
                ev.flags |= AD_EV_HAS_VALUE;
                ev.value_nanos = 5000000001;
                if (often(x, 500))
                        ev.value_currency = df_bytes_str("GBP");
        }
        if (often(x, 60))
                ev.labels = often(x, 500) ? AD_LABEL_BOT : AD_LABEL_TEST;
        ev.fingerprint = ad_event_fingerprint(&ev);
        return ev;
}

static void write_log(struct rig *r, struct df_sim_random *x)
{
        struct ad_batch b = {.start_id = 5, .price_version = 1};
        int64_t now = RIG_T0;

        sent_count = 0;
        while (sent_count < EVENTS) {
                size_t n = 1 + df_sim_random_below(x, 12);

                now += df_sim_random_between(x, 0, 2 * 600000);
                for (size_t j = 0; j < n; j++) {
                        struct ad_event *ev = &sent[sent_count + j];

                        *ev = random_event(x, r, now);
                        if (sent_count == 0 || !often(x, 80))
                                continue;
                        *ev = sent[df_sim_random_below(x, sent_count)]; /* a copy, stamped anew */
                        ev->event_ms = ev->receive_ms = now;
                        ev->fingerprint = ad_event_fingerprint(ev);
                }
                rig_log(r, &b, &sent[sent_count], n, now);
                b.first_seq += n;
                sent_count += n;
        }
}

static void random_scope(struct df_sim_random *x, struct rig *r, size_t at)
{
        struct ad_scope *s = &items[at].correction.scope;

        if (often(x, 400)) {
                s->event_ids = ids[at];
                s->event_id_count = 1 + df_sim_random_below(x, IDS_MAX);
                for (size_t i = 0; i < s->event_id_count; i++)
                        ids[at][i] = pick(x, r, "id", 1200);
        }
        if (often(x, 300))
                s->advertiser_id = pick(x, r, "a", 2);
        if (often(x, 600))
                s->campaign_id = pick(x, r, "c", 4);
        if (often(x, 200))
                s->publisher_id = pick(x, r, "p", 3);
        if (often(x, 100))
                s->label = 1u + (uint32_t)df_sim_random_below(x, 3);
        if (often(x, 500)) {
                s->from_ms =
                        (RIG_T0 / AD_QUARTER_MS + df_sim_random_between(x, 0, 70)) * AD_QUARTER_MS;
                s->to_ms = often(x, 800)
                                   ? s->from_ms + AD_QUARTER_MS * df_sim_random_between(x, 1, 40)
                                   : 0;
        }
}

static void random_correction(struct df_sim_random *x, struct rig *r, size_t at)
{
        struct ad_correction *c = &items[at].correction;

        items[at] = (struct ad_correction_item){.tenant_id = pick(x, r, "t", 2)}; /* t2: none */
        random_scope(x, r, at);
        c->action = (enum ad_correction_action)(
                often(x, 400) ? AD_CORRECT_REPRICE
                              : AD_CORRECT_VOID + (int)df_sim_random_below(x, 4));
        if (c->action == AD_CORRECT_REPRICE) { /* sometimes what it costs anyway, for one side */
                c->price_nanos = often(x, 500) ? 30000000 + 1000000 * df_sim_random_between(x, 0, 1)
                                               : df_sim_random_between(x, 0, 900000000);
                if (often(x, 800))
                        c->currency = often(x, 500) ? df_bytes_str("EUR") : df_bytes_str("USD");
        }
        if (c->action == AD_CORRECT_REMAP) {
                if (often(x, 400))
                        c->advertiser_id = pick(x, r, "a", 3);
                if (often(x, 500))
                        c->campaign_id = pick(x, r, "c", 5);
                if (often(x, 300))
                        c->publisher_id = pick(x, r, "p", 3);
        }
        if (c->action == AD_CORRECT_LABEL)
                c->label = AD_LABEL_BOT;
}

static void open_rig(struct rig *r, uint64_t seed, struct ad_corrections **ret_set)
{
        struct df_error err = {0};
        struct df_sim_random x;

        df_sim_random_init(&x, seed);
        rig_prepare(r, ad_chain_bill, ad_chain_bill_length);
        r->config.output_count = AD_OUT_BILL_COUNT;
        r->params.base.pricing = AD_PRICE_CLIENT_ELSE_TABLE;
        r->params.base.price_table = find_table;
        r->params.base.billing_price_version = 2;
        r->params.base.grace_ms = r->config.grace_ms = 120000;
        r->params.base.horizon_hours = 3;
        r->params.base.billing_horizon_hours = 200;
        item_count = df_sim_random_below(&x, CORRECTIONS_MAX + 1);
        for (size_t i = 0; i < item_count; i++)
                random_correction(&x, r, i);
        items[0] = (struct ad_correction_item){
                .tenant_id = df_bytes_str("t0"), /* back to what realtime says */
                .correction = {.scope = {.campaign_id = df_bytes_str("c0")},
                               .action = AD_CORRECT_REPRICE,
                               .price_nanos = 30000000}};
        if (ret_set) {
                if (ad_corrections_create(items, item_count, ret_set, &err) < 0)
                        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
                r->params.base.corrections = *ret_set;
        }
        rig_start(r);
        write_log(r, &x);
}

/* ---- the naive recount ---- */

static bool stated(struct df_bytes scope, struct df_bytes value)
{
        return scope.len == 0 || same(scope, value);
}

static bool applies(const struct ad_correction_item *item, const struct ad_event *ev)
{
        const struct ad_scope *s = &item->correction.scope;
        bool named = s->event_id_count == 0;

        for (size_t i = 0; i < s->event_id_count; i++)
                named |= same(s->event_ids[i], ev->event_id);
        return named && same(item->tenant_id, ev->tenant_id) &&
               stated(s->advertiser_id, ev->dims[AD_DIM_ADVERTISER]) &&
               stated(s->campaign_id, ev->dims[AD_DIM_CAMPAIGN]) &&
               stated(s->publisher_id, ev->dims[AD_DIM_PUBLISHER]) &&
               (s->label == 0 || (ev->labels & s->label) != 0) && ev->event_ms >= s->from_ms &&
               (s->to_ms == 0 || ev->event_ms < s->to_ms);
}

/* What one side says of an event. */
struct says {
        bool counts, invalid;
        struct ad_event ev;   /* its cell, payout and value in its currency */
        struct df_bytes cost; /* the currency of the cost */
};

/* By hand: one price a campaign and type. */
static struct says priced(int version, const struct ad_event *ev)
{
        struct says s = {.counts = true, .invalid = ev->labels != 0, .ev = *ev};
        char campaign = (char)ev->dims[AD_DIM_CAMPAIGN].data[1];

        if (!(ev->flags & AD_EV_HAS_COST)) {
                s.counts = campaign == '0' || campaign == '1' || (campaign == '2' && version == 2);
                s.ev.cost_nanos = campaign == '0' && ev->type == AD_CLICK
                                          ? (version == 1 ? 30000000 : 31000000)
                                  : campaign == '1' && ev->type == AD_IMPRESSION ? 5000
                                  : campaign == '2' && ev->type == AD_CONVERSION ? 7000000
                                                                                 : 0;
                if (s.counts)
                        s.ev.currency = campaign == '2' ? df_bytes_str("USD") : df_bytes_str("EUR");
        }
        s.cost = s.ev.currency;
        return s;
}

/* In order, one after the other. */
static struct says correct_by_hand(struct says s, const struct ad_event *ev, bool *ret_voided)
{
        static const enum ad_dim dims[3] = {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN, AD_DIM_PUBLISHER};

        *ret_voided = false;
        for (size_t i = 0; i < item_count; i++) {
                const struct ad_correction *c = &items[i].correction;
                const struct df_bytes to[3] = {c->advertiser_id, c->campaign_id, c->publisher_id};

                if (!applies(&items[i], ev))
                        continue;
                *ret_voided |= c->action == AD_CORRECT_VOID;
                s.invalid |= c->action == AD_CORRECT_LABEL;
                if (c->action == AD_CORRECT_REPRICE) {
                        s.counts = true;
                        s.ev.cost_nanos = c->price_nanos;
                        s.cost = c->currency.len ? c->currency : s.ev.currency;
                }
                for (int d = 0; c->action == AD_CORRECT_REMAP && d < 3; d++)
                        if (to[d].len)
                                s.ev.dims[dims[d]] = to[d];
        }
        return s;
}

static bool alike(const struct says *a, const struct says *b)
{
        return a->counts == b->counts && a->invalid == b->invalid && same(a->cost, b->cost) &&
               same(a->ev.currency, b->ev.currency) &&
               same(a->ev.dims[AD_DIM_ADVERTISER], b->ev.dims[AD_DIM_ADVERTISER]) &&
               same(a->ev.dims[AD_DIM_CAMPAIGN], b->ev.dims[AD_DIM_CAMPAIGN]) &&
               same(a->ev.dims[AD_DIM_PUBLISHER], b->ev.dims[AD_DIM_PUBLISHER]) &&
               (a->invalid || a->ev.cost_nanos == b->ev.cost_nanos);
}

/* A number of events, or money, in one cell. */
static void put(struct sums *s, const struct says *v, struct df_bytes currency, uint32_t cause,
                bool billed, struct ad_cell amount)
{
        struct cell *c =
                cell_of(s, (uint64_t)v->ev.event_ms / AD_QUARTER_MS, &v->ev, currency, cause);

        assert_true(ad_cell_add(billed ? &c->billed : &c->realtime, &amount));
}

static void count(struct sums *s, const struct says *v, uint32_t cause, bool billed)
{
        struct ad_cell one = {0};

        if (v->invalid) {
                one.invalid[v->ev.type - 1] = 1;
                put(s, v, v->cost, cause, billed, one);
                return;
        }
        one.impressions = v->ev.type == AD_IMPRESSION;
        one.clicks = v->ev.type == AD_CLICK;
        one.conversions = v->ev.type == AD_CONVERSION;
        one.spend = v->ev.cost_nanos;
        put(s, v, v->cost, cause, billed, one);
        if (v->ev.payout_nanos)
                put(s, v, v->ev.currency, cause, billed,
                    (struct ad_cell){.payout = v->ev.payout_nanos});
        if (v->ev.value_nanos)
                put(s, v, v->ev.value_currency.len ? v->ev.value_currency : v->ev.currency, cause,
                    billed, (struct ad_cell){.value = v->ev.value_nanos});
}

enum kind { VOIDED, VOIDED_LATE, NO_EFFECT, BACK, OTHER_CURRENCY, PRICED_AT_ALL, KINDS };

struct tally {
        uint64_t cause[AD_CAUSE_COUNT], kind[KINDS];
};

static void recount_first(struct sums *s, const struct rig_event *e, const struct ad_event *ev,
                          struct tally *t)
{
        bool counted = e->outcome == AD_COUNTED, late = e->outcome == AD_LATE, voided;
        struct says real = priced(1, ev), plain = priced(2, ev);
        struct says v = correct_by_hand(plain, ev, &voided);
        bool any = !alike(&v, &plain);
        uint32_t cause = late ? AD_CAUSE_LATE : AD_CAUSE_PRICE;

        if (voided || !(v.counts || plain.counts)) {
                if (counted)
                        count(s, &real, voided ? AD_CAUSE_CORRECTION : AD_CAUSE_PRICE, false);
                t->kind[late ? VOIDED_LATE : VOIDED] += voided;
                return;
        }
        if (counted && any && alike(&v, &real)) {
                t->kind[BACK]++; /* back to what realtime says */
                count(s, &v, AD_CAUSE_NONE, true);
                return;
        }
        if (any)
                cause = v.invalid && !plain.invalid ? AD_CAUSE_LABEL : AD_CAUSE_CORRECTION;
        else if (counted && real.ev.cost_nanos == plain.ev.cost_nanos &&
                 same(real.ev.currency, plain.ev.currency))
                cause = AD_CAUSE_NONE;
        t->cause[cause]++;
        t->kind[OTHER_CURRENCY] += any && !same(v.cost, v.ev.currency) && !v.invalid;
        t->kind[PRICED_AT_ALL] += any && !plain.counts;
        count(s, &v, cause, true);
        if (counted && cause != AD_CAUSE_NONE)
                count(s, &real, cause, false);
}

static void recount(struct rig *r, struct sums *ret, struct tally *t)
{
        size_t at = 0;

        ret->count = 0;
        for (size_t i = 0; i < r->seen_count; i++) {
                const struct rig_event *e = &r->seen[i];
                const struct ad_event *ev = &sent[at];
                bool voided;

                if (e->outcome == AD_SKIP) /* the mark of a record */
                        continue;
                at++;
                if (e->outcome != AD_COUNTED && e->outcome != AD_LATE &&
                    e->outcome != AD_PRICE_MISSING)
                        continue; /* refused, or a copy for realtime too */
                if (e->bill_outcome == AD_NONE) {
                        recount_first(ret, e, ev, t);
                } else if (e->outcome == AD_COUNTED) { /* a copy: whatever corrections say */
                        struct says real = priced(1, ev);
                        uint32_t cause = e->bill_outcome == AD_DUPLICATE ? AD_CAUSE_DUPLICATE
                                                                         : AD_CAUSE_CONFLICT;

                        t->kind[NO_EFFECT] += !alike(
                                &real, &(struct says){.ev = correct_by_hand(real, ev, &voided).ev});
                        count(ret, &real, cause, false);
                        t->cause[cause]++;
                }
        }
        assert_int_equal(at, sent_count);
        qsort(ret->list, ret->count, sizeof(ret->list[0]), by_key);
}

/* Billed on `none` is realtime's side too. */
static void fill_none(struct sums *s)
{
        for (size_t i = 0; i < s->count; i++)
                if (s->list[i].cause == AD_CAUSE_NONE)
                        s->list[i].realtime = s->list[i].billed;
}

/* ---- the tests ---- */

static struct sums want;

static void run_cut(struct rig *r, uint64_t seed, size_t every, bool restart,
                    struct ad_corrections **set)
{
        struct df_error err = {0};

        open_rig(r, seed, set);
        while (df_task_position(r->task) < r->record_count) {
                size_t at = (size_t)df_task_position(r->task), used = 0;
                size_t n = r->record_count - at < every ? r->record_count - at : every;

                if (df_task_process(r->task, r->records + at, n, &used, &err) < 0)
                        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
                rig_cut(r);
                if (restart)
                        rig_restart(r);
        }
}

static void check_realtime_is_the_same(uint64_t seed, struct rig *with)
{
        struct rig without;

        open_rig(&without, seed, NULL);
        rig_run(&without, 50);
        rig_cut(&without);
        for (int o = 0; o < AD_OUT_BILL; o++)
                if (with->emitted[o].len != without.emitted[o].len ||
                    memcmp(with->emitted[o].data, without.emitted[o].data, with->emitted[o].len))
                        fail_msg("seed %llu: corrections change output %d",
                                 (unsigned long long)seed, o);
        assert_memory_equal(with->outcomes, without.outcomes, sizeof(without.outcomes));
        rig_close(&without);
}

static void test_a_naive_recount_agrees(void **state)
{
        struct tally t = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= 16; seed++) {
                struct ad_corrections *set;
                struct rig r;

                open_rig(&r, seed, &set);
                rig_run(&r, 50);
                rig_cut(&r);
                recount(&r, &want, &t);
                fill_none(&want);
                check_sums(&r, &want, seed, "whole");
                check_realtime_is_the_same(seed, &r);
                rig_close(&r);
                ad_corrections_destroy(set);
                run_cut(&r, seed, 1 + seed % 7, false, &set);
                check_sums(&r, &want, seed, "cut");
                rig_close(&r);
                ad_corrections_destroy(set);
                run_cut(&r, seed, 31, true, &set);
                check_sums(&r, &want, seed, "taken over");
                rig_close(&r);
                ad_corrections_destroy(set);
        }
        for (size_t i = 0; i < KINDS; i++) /* the worlds hold each */
                if (t.kind[i] < 20)
                        fail_msg("only %llu events of kind %zu", (unsigned long long)t.kind[i], i);
        for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++)
                if (c != AD_CAUSE_UNFOLDED && c != AD_CAUSE_PENDING && c != AD_CAUSE_UNEXPLAINED &&
                    t.cause[c] < 20)
                        fail_msg("only %llu events of cause %s", (unsigned long long)t.cause[c],
                                 ad_cause_code(c));
}

/* As many corrections as there may be, found by their hash, are those that a look at each finds. */
static void test_many(void **state)
{
        struct ad_correction_item *all = calloc(AD_CORRECTIONS_MAX + 1, sizeof(*all));
        struct ad_corrections *set = NULL;
        struct df_error err = {0};
        struct df_sim_random x;
        struct rig r;
        size_t found = 0;

        (void)state;
        assert_non_null(all);
        df_sim_random_init(&x, 77);
        rig_prepare(&r, ad_chain_bill, ad_chain_bill_length);
        for (size_t i = 0; i <= AD_CORRECTIONS_MAX; i++) {
                random_correction(&x, &r, i % CORRECTIONS_MAX);
                all[i] = items[i % CORRECTIONS_MAX];
                all[i].correction.scope.campaign_id = pick(&x, &r, "c", 20000);
                all[i].correction.scope.event_id_count = 0;
                if (i % 2) {
                        struct df_bytes *id = df_arena_alloc(&r.memory, sizeof(*id));

                        *id = pick(&x, &r, "id", 30000);
                        all[i].correction.scope.event_ids = id;
                        all[i].correction.scope.event_id_count = 1;
                        all[i].correction.scope.campaign_id.len = 0;
                }
        }
        assert_int_equal(ad_corrections_create(all, AD_CORRECTIONS_MAX + 1, &set, &err), DF_ELIMIT);
        assert_non_null(strstr(err.text, "100001 corrections"));
        assert_int_equal(ad_corrections_create(all, AD_CORRECTIONS_MAX, &set, &err), 0);
        assert_int_equal(ad_corrections_count(set), AD_CORRECTIONS_MAX);
        for (int i = 0; i < 300; i++) {
                struct ad_event ev = random_event(&x, &r, RIG_T0 + i * 100000);
                const struct ad_corrections_tenant *t;
                struct ad_effect e = {0};
                const struct ad_correction *price = NULL, *campaign = NULL;
                bool voided = false, any = false;

                ev.event_id = pick(&x, &r, "id", 30000);
                ev.dims[AD_DIM_CAMPAIGN] = pick(&x, &r, "c", 20000);
                ev.key = ad_event_key(ev.tenant_id, ev.event_id);
                for (size_t k = 0; k < AD_CORRECTIONS_MAX; k++) {
                        const struct ad_correction *c = &all[k].correction;

                        if (!applies(&all[k], &ev))
                                continue;
                        any = true;
                        voided |= c->action == AD_CORRECT_VOID;
                        if (c->action == AD_CORRECT_REPRICE)
                                price = c;
                        if (c->action == AD_CORRECT_REMAP && c->campaign_id.len)
                                campaign = c;
                }
                t = ad_corrections_tenant(set, ev.tenant_id);
                assert_int_equal(t && ad_corrections_find(set, t, &ev, &e), any);
                assert_int_equal(e.voided, voided);
                assert_int_equal(e.price != NULL, price != NULL);
                if (price)
                        assert_true(e.price->price_nanos == price->price_nanos &&
                                    same(e.price->currency, price->currency));
                assert_int_equal(e.dim[1] != NULL, campaign != NULL);
                if (campaign)
                        assert_true(same(e.dim[1]->campaign_id, campaign->campaign_id));
                found += any;
        }
        if (found < 100)
                fail_msg("seed 77: only %zu events have a correction", found);
        ad_corrections_destroy(set);
        rig_close(&r);
        free(all);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_naive_recount_agrees),
                cmocka_unit_test(test_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
