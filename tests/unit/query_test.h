/* query_test.h - single events, the view made from them, and questions to it. */
#ifndef QUERY_TEST_H
#define QUERY_TEST_H

#include "view_test.h"

#include <stdio.h>
#include <time.h>

#include "jobs/api/pages.h"
#include "jobs/api/query.h"
#include "jobs/common/times.h"

#define FACTS 3000
#define SOURCES 3

struct fact {
        int64_t minute;
        uint32_t source, type; /* 0 impression, 1 click, 2 conversion */
        const char *tenant, *dims[AD_DIM_COUNT], *currency;
        int64_t cost_nanos;
};

static struct fact facts[FACTS];
static struct vt_place place;
static struct ad_view *view;
static int64_t newest_ms;

static const char *const values[AD_DIM_COUNT][4] = {
        {"adv1", "adv2", "adv1", "adv1"}, {"c1", "c2", "c3", ""},    {"ad1", "ad2", "ad3", ""},
        {"pub1", "pub2", "", "pub1"},     {"pl1", "pl2", "", "pl1"}, {"DE", "NP", "RU", ""},
        {"mobile", "desktop", "", "tv"},
};

/* Around changes of the clock, month ends, and one common day. */
static const struct {
        int year, month, day, days;
} stretches[] = {{2024, 3, 29, 4}, {2024, 10, 25, 4}, {2024, 11, 1, 3}, {2024, 10, 4, 3},
                 {2024, 4, 6, 2},  {2024, 2, 28, 3},  {2024, 7, 15, 1}};

static inline int64_t utc_minute(int y, int m, int d)
{
        struct tm t = {.tm_year = y - 1900, .tm_mon = m - 1, .tm_mday = d};

        return (int64_t)timegm(&t) / 60;
}

static inline void make_facts(uint64_t seed)
{
        for (size_t i = 0; i < FACTS; i++) {
                struct fact *f = &facts[i];
                size_t s = below(&seed, sizeof(stretches) / sizeof(stretches[0]));

                f->minute = utc_minute(stretches[s].year, stretches[s].month, stretches[s].day) +
                            (int64_t)below(&seed, (uint64_t)stretches[s].days * 1440);
                f->source = (uint32_t)below(&seed, SOURCES);
                f->type = (uint32_t)below(&seed, 3);
                f->tenant = below(&seed, 10) ? "default" : "acme";
                for (int d = 0; d < AD_DIM_COUNT; d++)
                        f->dims[d] = values[d][below(&seed, 4)];
                f->currency = below(&seed, 3) ? "EUR" : "USD";
                f->cost_nanos = (int64_t)below(&seed, 3000000);
        }
}

static inline void add_fact(struct ad_cell *c, const struct fact *f)
{
        c->impressions += f->type == 0;
        c->clicks += f->type == 1;
        c->conversions += f->type == 2;
        c->spend += f->cost_nanos;
}

/* ---- into the view: one collection a source, its rows made by the naive grouping of the facts
 * ---- */

static inline bool same_row(const struct fact *a, const struct fact *b, const struct ad_grouping *g)
{
        bool same = a->source == b->source && a->minute == b->minute &&
                    strcmp(a->tenant, b->tenant) == 0 && strcmp(a->currency, b->currency) == 0;

        for (uint32_t d = 0; same && d < g->dim_count; d++)
                same = strcmp(a->dims[g->dims[d]], b->dims[g->dims[d]]) == 0;
        return same;
}

static inline void put_rows(struct vt_collection *c, uint32_t source, uint32_t grouping)
{
        const struct ad_grouping *g = &ad_groupings_default.list[grouping];
        bool *done = calloc(FACTS, sizeof(*done));

        assert_non_null(done);
        for (size_t i = 0; i < FACTS; i++) {
                struct ad_row row = {.grouping = grouping,
                                     .minute = (uint64_t)facts[i].minute,
                                     .tenant_id = df_bytes_str(facts[i].tenant),
                                     .currency = df_bytes_str(facts[i].currency),
                                     .dim_count = g->dim_count};

                if (done[i] || facts[i].source != source)
                        continue;
                for (uint32_t d = 0; d < g->dim_count; d++)
                        row.dims[d] = df_bytes_str(facts[i].dims[g->dims[d]]);
                for (size_t k = i; k < FACTS; k++)
                        if (!done[k] && same_row(&facts[i], &facts[k], g)) {
                                add_fact(&row.cell, &facts[k]);
                                done[k] = true;
                        }
                ad_wire_row(&c->payload, &row);
        }
        free(done);
}

static inline void fill_view(void)
{
        struct ad_note none = {0};
        uint64_t positions[SOURCES] = {1, 1, 1};

        for (uint32_t s = 0; s < SOURCES; s++) {
                struct df_source source = vt_source("events", VT_EVENTS_GENERATION, s);
                struct vt_collection c;

                vt_begin(&c, &source, NULL);
                for (uint32_t g = 0; g < ad_groupings_default.count; g++)
                        put_rows(&c, s, g);
                c.seal.watermark_ms = c.seal.final_through_ms =
                        utc_minute(2024, 10, 26) * VT_MINUTE + s * VT_MINUTE;
                c.seal.events = c.seal.outcomes[AD_COUNTED] = FACTS;
                vt_end(&c, &none);
                ok(vt_add(view, &c, newest_ms, err));
                vt_release(&c);
        }
        ok(ad_view_commit(view, positions, SOURCES, newest_ms, err));
}

static inline int setup(void **state)
{
        newest_ms = utc_minute(2024, 11, 6) * VT_MINUTE;
        make_facts(20240501);
        vt_place_init(&place, "Europe/Berlin", SOURCES);
        view = vt_open(&place, AD_VIEW_EMPTY);
        fill_view();
        return 0;
}

static inline int teardown(void **state)
{
        ad_view_close(view);
        vt_place_release(&place);
        return 0;
}

/* ---- asking ---- */

struct asked {
        struct ad_param params[24];
        char text[24][2][220];
        size_t count;
};

static inline void with(struct asked *a, const char *name, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
static inline void with(struct asked *a, const char *name, const char *fmt, ...)
{
        va_list ap;

        assert_true(a->count < 24);
        va_start(ap, fmt);
        (void)snprintf(a->text[a->count][0], 220, "%s", name);
        (void)vsnprintf(a->text[a->count][1], 220, fmt, ap);
        va_end(ap);
        a->params[a->count] = (struct ad_param){df_bytes_str(a->text[a->count][0]),
                                                df_bytes_str(a->text[a->count][1])};
        a->count++;
}

static inline struct ad_query_context context(void)
{
        return (struct ad_query_context){.view = view,
                                         .zones = place.zones,
                                         .now_ms = newest_ms,
                                         .tenant_id = df_bytes_str("default"),
                                         .any_tenant = true};
}

static inline struct ad_result *run(const struct asked *a, struct ad_query *q)
{
        struct ad_query_context c = context();
        struct ad_result *r = NULL;
        struct ad_fault f;

        if (ad_query_parse(&c, a->params, a->count, q, &f) < 0 || ad_query_run(&c, q, &r, &f) < 0)
                fail_msg("%s=%s ...: %d %s %s", a->text[0][0], a->text[0][1], f.status, f.code,
                         f.message);
        return r;
}

static inline struct ad_result *ask(struct ad_query *q, const char *names_and_values)
{
        struct asked a = {.count = 0};
        char copy[600], *save = NULL;

        (void)snprintf(copy, sizeof(copy), "%s", names_and_values);
        for (char *p = strtok_r(copy, "&", &save); p; p = strtok_r(NULL, "&", &save)) {
                char *eq = strchr(p, '=');

                assert_non_null(eq);
                *eq = '\0';
                with(&a, p, "%s", eq + 1);
        }
        return run(&a, q);
}

static inline void refused(const char *question, int status, const char *code, bool any_tenant)
{
        struct ad_query_context c = context();
        struct asked a = {.count = 0};
        struct ad_result *r = NULL;
        struct ad_query q;
        struct ad_fault f;
        char copy[500], *save = NULL;

        c.any_tenant = any_tenant;
        (void)snprintf(copy, sizeof(copy), "%s", question);
        for (char *p = strtok_r(copy, "&", &save); p; p = strtok_r(NULL, "&", &save)) {
                char *eq = strchr(p, '=');

                *eq = '\0';
                with(&a, p, "%s", eq + 1);
        }
        if (ad_query_parse(&c, a.params, a.count, &q, &f) == 0 && ad_query_run(&c, &q, &r, &f) == 0)
                fail_msg("%s was answered", question);
        if (f.status != status || strcmp(f.code, code) != 0)
                fail_msg("%s: %d %s: %s", question, f.status, f.code, f.message);
}

#endif
