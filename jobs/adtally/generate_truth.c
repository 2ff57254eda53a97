/* generate_truth.c - the plain recount behind `adtally generate --truth` (generate.h).
 *
 * Knows what an event is and how minutes, hours and days of UTC follow each other, and nothing
 * else: no operator, no wire format, no watermark. A row is (minute, campaign, currency).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/run.h"
#include "jobs/adtally/generate.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000
#define HOUR_MS 3600000LL
#define DAY_MS 86400000LL

struct row {
        bool used;
        char currency[4];
        uint32_t campaign;
        int64_t start_ms;
        uint64_t count[4]; /* by enum ad_type */
        int64_t spend, payout, value;
};

struct ad_gen_truth {
        const struct ad_gen_plan *plan;
        struct ad_gen_sums sums;
        int64_t first_ms, last_ms; /* event times of everything accepted */
        struct row *rows;          /* an open hash table */
        size_t cap, used;
};

int ad_gen_truth_create(const struct ad_gen_plan *p, struct ad_gen_truth **ret,
                        struct df_error *err)
{
        struct ad_gen_truth *t = calloc(1, sizeof(*t));

        if (t) {
                t->plan = p;
                t->first_ms = INT64_MAX;
                t->last_ms = INT64_MIN;
                t->cap = 1024;
                t->rows = calloc(t->cap, sizeof(*t->rows));
        }
        if (!t || !t->rows) {
                free(t);
                return df_fail(err, DF_ENOMEM, "truth");
        }
        *ret = t;
        return 0;
}

void ad_gen_truth_destroy(struct ad_gen_truth *t)
{
        if (t)
                free(t->rows);
        free(t);
}

const struct ad_gen_sums *ad_gen_truth_sums(const struct ad_gen_truth *t)
{
        return &t->sums;
}

static struct row *slot(struct row *rows, size_t cap, int64_t start_ms, uint32_t campaign,
                        const char *currency)
{
        uint64_t h = (uint64_t)(start_ms / MINUTE_MS) * 0x9e3779b97f4a7c15u ^
                     (uint64_t)campaign * 0xc2b2ae3d27d4eb4fu ^
                     (uint64_t)(currency[0] | currency[1] << 8 | currency[2] << 16) *
                             0x165667b19e3779f9u;

        for (size_t i = (h ^ h >> 29) & (cap - 1);; i = (i + 1) & (cap - 1)) {
                struct row *r = &rows[i];

                if (!r->used || (r->start_ms == start_ms && r->campaign == campaign &&
                                 strcmp(r->currency, currency) == 0))
                        return r;
        }
}

static int grow(struct ad_gen_truth *t, struct df_error *err)
{
        struct row *rows;

        if (t->used * 2 < t->cap)
                return 0;
        rows = calloc(t->cap * 2, sizeof(*rows));
        if (!rows)
                return df_fail(err, DF_ENOMEM, "%zu rows of truth", t->used);
        for (size_t i = 0; i < t->cap; i++)
                if (t->rows[i].used)
                        *slot(rows, t->cap * 2, t->rows[i].start_ms, t->rows[i].campaign,
                              t->rows[i].currency) = t->rows[i];
        free(t->rows);
        t->rows = rows;
        t->cap *= 2;
        return 0;
}

static struct row *row_of(struct ad_gen_truth *t, int64_t event_ms, uint32_t campaign,
                          const char *currency)
{
        int64_t start = event_ms / MINUTE_MS * MINUTE_MS;
        struct row *r = slot(t->rows, t->cap, start, campaign, currency);

        if (!r->used) {
                t->used++;
                r->used = true;
                r->start_ms = start;
                r->campaign = campaign;
                (void)snprintf(r->currency, sizeof(r->currency), "%s", currency);
        }
        return r;
}

static void count_event(struct ad_gen_truth *t, const struct ad_gen_item *it)
{
        const struct ad_gen_options *o = ad_gen_plan_options(t->plan);
        const char *currency = it->currency < 0 ? o->default_currency : o->currencies[it->currency];
        struct row *r = row_of(t, it->event_ms, it->campaign, currency);

        r->count[it->type]++;
        if (it->cost > 0)
                r->spend += it->cost;
        if (it->payout > 0)
                r->payout += it->payout;
        if (it->value_currency >= 0) /* amounts of different currencies are never added */
                r = row_of(t, it->event_ms, it->campaign, o->currencies[it->value_currency]);
        if (it->value > 0)
                r->value += it->value;
}

int ad_gen_truth_add(struct ad_gen_truth *t, const struct ad_gen_item *it, struct df_error *err)
{
        struct ad_gen_sums *s = &t->sums;
        int rc = grow(t, err);

        if (rc < 0)
                return rc;
        s->events++;
        if (it->kind == AD_GEN_BROKEN) {
                s->rejected++;
                s->rejected_by[it->rejected]++;
                return 0;
        }
        s->accepted++;
        if (it->event_ms < t->first_ms)
                t->first_ms = it->event_ms;
        if (it->event_ms > t->last_ms)
                t->last_ms = it->event_ms;
        if (it->kind == AD_GEN_DUPLICATE) {
                s->duplicate++;
        } else if (it->kind == AD_GEN_CONFLICT) {
                s->conflict++;
        } else if (it->kind == AD_GEN_LATE) {
                s->late++;
        } else {
                s->counted++;
                s->out_of_order += it->kind == AD_GEN_OUT_OF_ORDER;
                count_event(t, it);
        }
        return 0;
}

/* ---- the file ---- */

static int by_place(const void *x, const void *y)
{
        const struct row *a = x, *b = y;

        if (a->start_ms != b->start_ms)
                return a->start_ms < b->start_ms ? -1 : 1;
        if (a->campaign != b->campaign)
                return a->campaign < b->campaign ? -1 : 1;
        return strcmp(a->currency, b->currency);
}

static void add_row(struct row *to, const struct row *from)
{
        for (int i = 0; i < 4; i++)
                to->count[i] += from->count[i];
        to->spend += from->spend;
        to->payout += from->payout;
        to->value += from->value;
}

/* Rows of windows of that width, in order; in place over a copy of the minutes. */
static size_t fold(struct row *rows, size_t count, int64_t width_ms)
{
        size_t n = 0;

        for (size_t i = 0; i < count; i++)
                rows[i].start_ms = rows[i].start_ms / width_ms * width_ms;
        qsort(rows, count, sizeof(*rows), by_place);
        for (size_t i = 0; i < count; i++) {
                if (n > 0 && by_place(&rows[n - 1], &rows[i]) == 0)
                        add_row(&rows[n - 1], &rows[i]);
                else
                        rows[n++] = rows[i];
        }
        return n;
}

static void put_measures(struct df_buf *b, const struct row *r)
{
        df_buf_printf(b,
                      "\"currency\":\"%s\",\"impressions\":%" PRIu64 ",\"clicks\":%" PRIu64
                      ",\"conversions\":%" PRIu64 ",\"spend_micros\":%" PRId64
                      ",\"payout_micros\":%" PRId64 ",\"conversion_value_micros\":%" PRId64 "}",
                      r->currency, r->count[AD_IMPRESSION], r->count[AD_CLICK],
                      r->count[AD_CONVERSION], r->spend, r->payout, r->value);
}

static void put_window(struct df_buf *b, const char *name, struct row *rows, size_t *count,
                       int64_t width_ms)
{
        char text[AD_TIME_TEXT_MAX];

        *count = fold(rows, *count, width_ms);
        df_buf_printf(b, ",\n\"%s\":[", name);
        for (size_t i = 0; i < *count; i++) {
                (void)ad_time_text(rows[i].start_ms, text);
                df_buf_printf(b, "%s\n{\"window_start\":\"%s\",\"campaign_id\":\"c%u\",",
                              i ? "," : "", text, rows[i].campaign + 1);
                put_measures(b, &rows[i]);
        }
        df_buf_append(b, "\n]", 2);
}

static void put_totals(struct df_buf *b, struct row *rows, size_t count)
{
        size_t n;

        for (size_t i = 0; i < count; i++) {
                rows[i].campaign = 0;
                rows[i].start_ms = 0;
        }
        n = fold(rows, count, DAY_MS);
        df_buf_printf(b, ",\n\"totals\":[");
        for (size_t i = 0; i < n; i++) {
                df_buf_printf(b, "%s\n{", i ? "," : "");
                put_measures(b, &rows[i]);
        }
        df_buf_append(b, "\n]", 2);
}

static void put_head(const struct ad_gen_truth *t, uint64_t resent, uint64_t unsure,
                     struct df_buf *b)
{
        const struct ad_gen_sums *s = &t->sums;
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];
        bool any = s->accepted > 0;

        (void)ad_time_text(any ? t->first_ms / MINUTE_MS * MINUTE_MS : 0, from);
        (void)ad_time_text(any ? (t->last_ms / MINUTE_MS + 1) * MINUTE_MS : MINUTE_MS, to);
        df_buf_printf(b,
                      "{\"truth\":{\"version\":1,\"exact\":%s,\"seed\":%" PRIu64
                      ",\"from\":\"%s\",\"to\":\"%s\",\"events\":%" PRIu64 ",\"accepted\":%" PRIu64
                      ",\"counted\":%" PRIu64 ",\"duplicate\":%" PRIu64 ",\"conflict\":%" PRIu64
                      ",\"late\":%" PRIu64 ",\"rejected\":%" PRIu64 ",\"out_of_order\":%" PRIu64
                      ",\"resent\":%" PRIu64 ",\"unsure\":%" PRIu64 "},\n\"rejected_by_code\":{",
                      unsure ? "false" : "true", ad_gen_plan_options(t->plan)->seed, from, to,
                      s->events, s->accepted, s->counted, s->duplicate, s->conflict, s->late,
                      s->rejected, s->out_of_order, resent, unsure);
        any = false;
        for (unsigned i = 0; i < 128; i++) {
                if (!s->rejected_by[i])
                        continue;
                df_buf_printf(b, "%s\"%s\":%" PRIu64, any ? "," : "", ad_reason_info(i)->code,
                              s->rejected_by[i]);
                any = true;
        }
        df_buf_append(b, "}", 1);
}

int ad_gen_truth_write(const struct ad_gen_truth *t, uint64_t resent, uint64_t unsure,
                       const char *path, struct df_error *err)
{
        struct row *rows = calloc(t->used + 1, sizeof(*rows));
        struct df_buf b = {0};
        size_t n = 0;
        int rc;

        if (!rows)
                return df_fail(err, DF_ENOMEM, "%zu rows of truth", t->used);
        for (size_t i = 0; i < t->cap; i++)
                if (t->rows[i].used)
                        rows[n++] = t->rows[i];
        put_head(t, resent, unsure, &b);
        put_window(&b, "minute", rows, &n, MINUTE_MS); /* each folds what the one before left */
        put_window(&b, "hour", rows, &n, HOUR_MS);
        put_window(&b, "day", rows, &n, DAY_MS);
        put_totals(&b, rows, n);
        df_buf_append(&b, "}\n", 2);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_write_file(path, df_buf_bytes(&b), false, err);
        df_buf_release(&b);
        free(rows);
        return rc;
}
