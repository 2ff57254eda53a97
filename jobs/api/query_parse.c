/* query_parse.c - the parameters of GET /metrics. Each is checked, none is ignored. */
#include <stdarg.h>
#include <stdio.h>

#include "jobs/api/query_private.h"

int ad_fault_set(struct ad_fault *f, int status, const char *code, const char *field,
                 const char *fmt, ...)
{
        va_list ap;

        memset(f, 0, sizeof(*f));
        f->status = status;
        (void)snprintf(f->code, sizeof(f->code), "%s", code);
        (void)snprintf(f->field, sizeof(f->field), "%s", field ? field : "");
        va_start(ap, fmt);
        (void)vsnprintf(f->message, sizeof(f->message), fmt, ap);
        va_end(ap);
        f->retryable = status == 503;
        return -1;
}

int ad_fault_error(struct ad_fault *f, const struct df_error *err)
{
        bool passing = err->code == DF_ENOMEM || err->code == DF_EAGAIN || err->code == DF_EIO;

        (void)ad_fault_set(f, passing ? 503 : 500, passing ? "unavailable" : "internal_error", NULL,
                           "%s", err->text);
        f->damaged = err->code == DF_ECORRUPT;
        return -1;
}

int ad_fault_log(struct ad_fault *f, const struct df_error *err)
{
        (void)ad_fault_error(f, err);
        if (f->damaged)
                (void)ad_fault_set(f, 500, "log_damaged", NULL,
                                   "%.300s: `adtally log verify` and `adtally archive verify` name "
                                   "all that is damaged; see RUNBOOK, Damage in the log",
                                   err->text);
        else if (err->code == DF_EAGAIN)
                (void)ad_fault_set(f, 503, "unavailable", NULL, "%s: ask again in a moment",
                                   err->text);
        else if (err->code == DF_EOFFSET)
                (void)ad_fault_set(f, 503, "unavailable", NULL,
                                   "%s: records left the log meanwhile, ask again", err->text);
        return -1;
}

enum {
        P_FROM,
        P_TO,
        P_WINDOW,
        P_TZ,
        P_GROUP_BY,
        P_ORDER_BY,
        P_FILL,
        P_VIEW,
        P_AS_OF,
        P_FORMAT,
        P_LIMIT,
        P_CURSOR,
        P_TENANT,
        P_COUNT
};
static const char *const names[P_COUNT] = {"from",     "to",     "window", "tz",    "group_by",
                                           "order_by", "fill",   "view",   "as_of", "format",
                                           "limit",    "cursor", "tenant"};

struct given {
        struct df_bytes v[P_COUNT];
        bool has[P_COUNT];
        struct df_bytes dims[AD_DIM_COUNT];
        bool has_dim[AD_DIM_COUNT];
};

static bool is(struct df_bytes v, const char *s)
{
        return df_bytes_eq(v, df_bytes_str(s));
}

/* For messages: at most 40 bytes, printable. */
static const char *shown(struct df_bytes v, char ret[48])
{
        size_t n = v.len < 40 ? v.len : 40;

        for (size_t i = 0; i < n; i++)
                ret[i] = v.data[i] >= 0x20 && v.data[i] < 0x7f ? (char)v.data[i] : '?';
        (void)snprintf(ret + n, 48 - n, "%s", v.len > n ? "..." : "");
        return ret;
}

static int dim_by_name(struct df_bytes name)
{
        for (int d = 0; d < AD_DIM_COUNT; d++)
                if (is(name, ad_dim_names[d]))
                        return d;
        return -1;
}

/* Edit distance, for suggestions; a is cut to 40 bytes. */
static size_t distance(struct df_bytes a, const char *b)
{
        size_t n = a.len < 40 ? a.len : 40, row[48], m = strlen(b);

        df_check(m < 48);
        for (size_t k = 0; k <= m; k++)
                row[k] = k;
        for (size_t i = 1; i <= n; i++) {
                size_t left_up = row[0];

                row[0] = i;
                for (size_t k = 1; k <= m; k++) {
                        size_t up = row[k], best = left_up + (a.data[i - 1] != (uint8_t)b[k - 1]);

                        best = up + 1 < best ? up + 1 : best;
                        row[k] = row[k - 1] + 1 < best ? row[k - 1] + 1 : best;
                        left_up = up;
                }
        }
        return row[m];
}

/* The known name that is most like it. */
static const char *nearest(struct df_bytes name, bool dims_only)
{
        const char *best = ad_dim_names[0];

        for (int d = 1; d < AD_DIM_COUNT; d++)
                if (distance(name, ad_dim_names[d]) < distance(name, best))
                        best = ad_dim_names[d];
        for (int p = 0; p < P_COUNT && !dims_only; p++)
                if (distance(name, names[p]) < distance(name, best))
                        best = names[p];
        return best;
}

static int collect(const struct ad_param *params, size_t count, struct given *g, struct ad_fault *f)
{
        char text[48];

        for (size_t i = 0; i < count; i++) {
                int p = 0, d = dim_by_name(params[i].name);
                struct df_bytes *v;
                bool *has;

                while (p < P_COUNT && !is(params[i].name, names[p]))
                        p++;
                if (p == P_COUNT && d < 0)
                        return ad_fault_set(f, 400, "unknown_parameter",
                                            shown(params[i].name, text),
                                            "there is no parameter %s; the nearest is %s; known "
                                            "are from, to, window, tz, group_by, order_by, fill, "
                                            "view, as_of, format, limit, cursor, tenant and the "
                                            "dimensions",
                                            text, nearest(params[i].name, false));
                v = p < P_COUNT ? &g->v[p] : &g->dims[d];
                has = p < P_COUNT ? &g->has[p] : &g->has_dim[d];
                if (*has)
                        return ad_fault_set(f, 400, "repeated_parameter",
                                            p < P_COUNT ? names[p] : ad_dim_names[d],
                                            "a parameter stands once; separate values by commas");
                *has = true;
                *v = params[i].value;
        }
        return 0;
}

/* Everything that shapes the rows, in one order whatever the order of the parameters. */
static int identify(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        struct df_buf b = {0};
        struct df_error err;
        bool any = false;

        for (int p = 0; p < P_COUNT; p++) {
                if (!g->has[p] || p == P_FORMAT || p == P_LIMIT || p == P_CURSOR || p == P_TENANT)
                        continue;
                df_put_u8(&b, (uint8_t)p);
                df_put_lstr(&b, g->v[p]);
                any = true;
        }
        for (int d = 0; d < AD_DIM_COUNT; d++) {
                if (!g->has_dim[d])
                        continue;
                df_put_u8(&b, (uint8_t)(100 + d));
                df_put_lstr(&b, g->dims[d]);
                any = true;
        }
        if (df_buf_check(&b, &err) < 0) {
                df_buf_release(&b);
                return ad_fault_error(f, &err);
        }
        q->identity = any ? df_hash64(df_buf_bytes(&b)) | 1 : 0;
        df_buf_release(&b);
        return 0;
}

/* Which of a list of words, or -1. */
static int choice(struct df_bytes v, const char *const *words)
{
        for (int i = 0; words[i]; i++)
                if (is(v, words[i]))
                        return i;
        return -1;
}

static int parse_page(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        static const char *const formats[] = {"json", "csv", NULL};
        int i = g->has[P_FORMAT] ? choice(g->v[P_FORMAT], formats) : 0;
        struct df_bytes l = g->v[P_LIMIT];
        uint32_t n = 0;

        if (i < 0)
                return ad_fault_set(f, 400, "bad_format", "format", "format is json or csv");
        q->csv = i == 1;
        q->limit = AD_LIMIT_DEFAULT;
        if (g->has[P_LIMIT]) {
                for (size_t k = 0; k < l.len; k++) {
                        if (l.data[k] < '0' || l.data[k] > '9' || l.len > 5)
                                n = AD_LIMIT_MAX + 1;
                        else
                                n = n * 10 + (uint32_t)(l.data[k] - '0');
                        if (n > AD_LIMIT_MAX)
                                break;
                }
                if (n < 1 || n > AD_LIMIT_MAX)
                        return ad_fault_set(f, 400, "bad_limit", "limit", "limit is 1 to %d",
                                            AD_LIMIT_MAX);
                q->limit = n;
        }
        return 0;
}

static int parse_tenant(const struct ad_query_context *c, const struct given *g, struct ad_query *q,
                        struct ad_fault *f)
{
        q->tenant_id = c->tenant_id;
        if (!g->has[P_TENANT])
                return 0;
        if (!c->any_tenant && !df_bytes_eq(g->v[P_TENANT], c->tenant_id))
                return ad_fault_set(f, 403, "forbidden", "tenant",
                                    "this key asks for its own tenant only");
        if (g->v[P_TENANT].len == 0 || g->v[P_TENANT].len > AD_ID_MAX)
                return ad_fault_set(f, 400, "bad_tenant", "tenant", "a tenant is 1 to %d bytes",
                                    AD_ID_MAX);
        q->tenant_id = g->v[P_TENANT];
        return 0;
}

static int parse_view(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        static const char *const views[] = {"realtime", "billing", "both", NULL};
        int i = g->has[P_VIEW] ? choice(g->v[P_VIEW], views) : 0;

        if (i < 0)
                return ad_fault_set(f, 400, "bad_view", "view",
                                    "view is realtime, billing or both");
        q->view = (enum ad_metrics_view)i;
        if (q->view == AD_METRICS_REALTIME && g->has[P_AS_OF])
                return ad_fault_set(f, 400, "as_of_not_kept", "as_of",
                                    "the realtime view keeps no older versions of its rows; "
                                    "view=billing does");
        return 0;
}

static int parse_window(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        static const char *const windows[] = {"minute", "hour", "day", "month", "total", NULL};
        int i = choice(g->v[P_WINDOW], windows);

        if (!g->has[P_WINDOW])
                i = q->view == AD_METRICS_REALTIME ? AD_WINDOW_MINUTE : AD_WINDOW_HOUR;
        if (i < 0)
                return ad_fault_set(f, 400, "bad_window", "window",
                                    "window is minute, hour, day, month or total");
        q->window = (enum ad_window)i;
        return 0;
}

static int parse_as_of(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        q->has_as_of = g->has[P_AS_OF];
        return q->has_as_of ? ad_query_instant(q, g->v[P_AS_OF], "as_of", &q->as_of_ms, f) : 0;
}

static int parse_order(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        static const char *const orders[] = {"window_start",
                                             "impressions",
                                             "clicks",
                                             "conversions",
                                             "spend_micros",
                                             "payout_micros",
                                             "conversion_value_micros",
                                             "ctr",
                                             "cvr",
                                             "drift",
                                             NULL};
        static const char *const fills[] = {"none", "zero", NULL};
        struct df_bytes o = g->v[P_ORDER_BY];
        int i;

        if (g->has[P_ORDER_BY]) {
                q->descending = o.len > 0 && o.data[0] == '-';
                if (q->descending)
                        o = df_bytes(o.data + 1, o.len - 1);
                i = choice(o, orders);
                if (i < 0 || (i == AD_ORDER_DRIFT && q->view != AD_METRICS_BOTH))
                        return ad_fault_set(
                                f, 400, "bad_order", "order_by",
                                "order_by is window_start, impressions, clicks, "
                                "conversions, spend_micros, payout_micros, "
                                "conversion_value_micros, ctr or cvr, of view=both also "
                                "drift; with - in front the greatest comes first");
                q->order = (enum ad_order)i;
        }
        i = g->has[P_FILL] ? choice(g->v[P_FILL], fills) : 0;
        if (i < 0)
                return ad_fault_set(f, 400, "bad_fill", "fill", "fill is none or zero");
        q->fill_zero = i == 1;
        return 0;
}

/* The part before the next comma; *rest is what follows. False at the end. */
static bool next_value(struct df_bytes *rest, bool *more, struct df_bytes *ret)
{
        const uint8_t *comma;

        if (!*more)
                return false;
        comma = rest->len ? memchr(rest->data, ',', rest->len) : NULL;
        *more = comma != NULL;
        *ret = df_bytes(rest->data, comma ? (size_t)(comma - rest->data) : rest->len);
        if (comma)
                *rest = df_bytes(comma + 1, rest->len - ret->len - 1);
        return true;
}

static bool holds(const struct ad_filter *f, struct df_bytes v)
{
        size_t i = 0;

        while (i < f->count && !df_bytes_eq(f->values[i], v))
                i++;
        return i < f->count;
}

static int parse_filters(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        for (int d = 0; d < AD_DIM_COUNT; d++) {
                struct df_bytes rest = g->dims[d], v;
                bool more = g->has_dim[d];

                while (next_value(&rest, &more, &v)) {
                        if (v.len > AD_ID_MAX)
                                return ad_fault_set(f, 400, "too_long", ad_dim_names[d],
                                                    "a value is at most %d bytes", AD_ID_MAX);
                        if (holds(&q->filters[d], v))
                                continue; /* a value given twice counts once */
                        if (q->filters[d].count == AD_QUERY_VALUES_MAX)
                                return ad_fault_set(f, 400, "too_many_values", ad_dim_names[d],
                                                    "a filter holds at most %d values",
                                                    AD_QUERY_VALUES_MAX);
                        q->filters[d].values[q->filters[d].count++] = v;
                }
        }
        return 0;
}

static int parse_group_by(const struct given *g, struct ad_query *q, struct ad_fault *f)
{
        struct df_bytes rest = g->v[P_GROUP_BY], v;
        bool more = true, taken[AD_DIM_COUNT] = {false};
        char text[48];

        if (!g->has[P_GROUP_BY]) {
                q->group_by[q->group_count++] = AD_DIM_CAMPAIGN;
                return 0;
        }
        if (rest.len == 0 || is(rest, "none"))
                return 0;
        while (next_value(&rest, &more, &v)) {
                int d = dim_by_name(v);

                if (d < 0)
                        return ad_fault_set(f, 400, "unknown_dimension", "group_by",
                                            "there is no dimension %s; the nearest is %s; known "
                                            "are advertiser_id, campaign_id, ad_id, publisher_id, "
                                            "placement_id, country, device, or none",
                                            shown(v, text), nearest(v, true));
                if (!taken[d])
                        q->group_by[q->group_count++] = (uint8_t)d;
                taken[d] = true;
        }
        return 0;
}

static void list_dims(uint32_t mask, char *ret, size_t size)
{
        size_t n = 0;

        ret[0] = '\0';
        for (int d = 0; d < AD_DIM_COUNT && n < size; d++)
                if (mask & (1u << d))
                        n += (size_t)snprintf(ret + n, size - n, "%s%s", n ? ", " : "",
                                              ad_dim_names[d]);
}

/* The smallest kept grouping that contains every dimension asked for. */
static int choose_grouping(const struct ad_groupings *all, struct ad_query *q, struct ad_fault *f)
{
        uint32_t want = 0, best = UINT32_MAX, nearest_mask = 0, nearest_hits = 0;
        char wanted[160], kept[160];

        for (int d = 0; d < AD_DIM_COUNT; d++)
                want |= q->filters[d].count ? 1u << d : 0;
        for (uint32_t i = 0; i < q->group_count; i++)
                want |= 1u << q->group_by[i];
        for (uint32_t i = 0; i < all->count; i++) {
                uint32_t mask = 0, hits;

                for (uint32_t k = 0; k < all->list[i].dim_count; k++)
                        mask |= 1u << all->list[i].dims[k];
                if ((mask & want) == want &&
                    (best == UINT32_MAX || all->list[i].dim_count < all->list[best].dim_count))
                        best = i;
                hits = (uint32_t)__builtin_popcount(mask & want);
                if (i == 0 || hits > nearest_hits) {
                        nearest_hits = hits;
                        nearest_mask = mask;
                }
        }
        if (best != UINT32_MAX) {
                q->grouping = best;
                return 0;
        }
        list_dims(want, wanted, sizeof(wanted));
        list_dims(nearest_mask, kept, sizeof(kept));
        return ad_fault_set(f, 400, "grouping_not_kept", "group_by",
                            "no kept grouping holds %s together; the nearest one holds %s", wanted,
                            kept);
}

static int parse_zone(const struct ad_query_context *c, const struct given *g, struct ad_query *q,
                      struct ad_fault *f)
{
        char name[AD_ZONE_NAME_MAX + 2] = "?";
        struct df_error err;

        q->zone = ad_view_settings(c->view)->account_zone;
        if (!g->has[P_TZ])
                return 0;
        if (g->v[P_TZ].len <= AD_ZONE_NAME_MAX && g->v[P_TZ].len > 0 &&
            !memchr(g->v[P_TZ].data, 0, g->v[P_TZ].len)) {
                memcpy(name, g->v[P_TZ].data, g->v[P_TZ].len);
                name[g->v[P_TZ].len] = '\0';
        }
        if (ad_zones_get(c->zones, name, &q->zone, &err) == 0)
                return 0;
        if (err.code == DF_EINVAL || err.code == DF_ENOENT || err.code == DF_EPARSE)
                return ad_fault_set(f, 400, "unknown_time_zone", "tz",
                                    "%s; names are those of the tz database, like Europe/Berlin",
                                    err.text);
        return ad_fault_error(f, &err);
}

int ad_query_parse(const struct ad_query_context *c, const struct ad_param *params, size_t count,
                   struct ad_query *ret, struct ad_fault *f)
{
        struct given g = {0};

        memset(ret, 0, sizeof(*ret));
        if (collect(params, count, &g, f) < 0 || parse_page(&g, ret, f) < 0 ||
            parse_tenant(c, &g, ret, f) < 0 || identify(&g, ret, f) < 0)
                return -1;
        if (g.has[P_CURSOR]) {
                if (g.v[P_CURSOR].len == 0)
                        return ad_fault_set(f, 400, "bad_cursor", "cursor", "the cursor is empty");
                ret->cursor = g.v[P_CURSOR];
                return 0;
        }
        if (parse_view(&g, ret, f) < 0 || parse_window(&g, ret, f) < 0 ||
            parse_order(&g, ret, f) < 0 || parse_filters(&g, ret, f) < 0 ||
            parse_group_by(&g, ret, f) < 0 || parse_zone(c, &g, ret, f) < 0 ||
            parse_as_of(&g, ret, f) < 0)
                return -1;
        if (ret->view != AD_METRICS_REALTIME && adi_bill_check(ret, f) < 0)
                return -1;
        if (ret->view == AD_METRICS_REALTIME &&
            choose_grouping(ad_view_settings(c->view)->groupings, ret, f) < 0)
                return -1;
        return ad_query_range(ret, g.v[P_FROM], g.v[P_TO], c->now_ms, f);
}
