/* reconcile_print.c - what a reconcile run found (reconcile.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/adtally/reconcile.h"
#include "jobs/common/corrections.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

/* "12.345678900": exact, for people. */
static void amount(df_nanos v, char ret[DF_INT128_TEXT_MAX + 2])
{
        bool minus = v < 0;
        char digits[DF_INT128_TEXT_MAX];
        unsigned rest;

        if (minus)
                v = -v;
        rest = (unsigned)(v % DF_NANOS_PER_UNIT);
        (void)df_int128_text(v / DF_NANOS_PER_UNIT, digits);
        (void)snprintf(ret, DF_INT128_TEXT_MAX + 2, "%s%.30s.%09u", minus ? "-" : "", digits, rest);
}

static int64_t counted(const struct ad_cell *c)
{
        return (int64_t)(c->impressions + c->clicks + c->conversions + c->invalid[0] +
                         c->invalid[1] + c->invalid[2]);
}

static int by_cause(const void *x, const void *y)
{
        const struct ad_bill_total *a = x, *b = y;

        if (a->cause != b->cause)
                return a->cause < b->cause ? -1 : 1;
        return strcmp(a->currency, b->currency);
}

static void print_total(const struct ad_bill_total *t)
{
        char spend[DF_INT128_TEXT_MAX + 2], payout[DF_INT128_TEXT_MAX + 2];

        amount(t->billed.spend - t->realtime.spend, spend);
        amount(t->billed.payout - t->realtime.payout, payout);
        printf("%-18s %3s %14" PRId64 " %14" PRId64 " %22s %22s\n", ad_cause_code(t->cause),
               t->currency, counted(&t->billed), counted(&t->realtime), spend, payout);
}

static void print_text(const struct ad_replay *run, const struct ad_bill_result *r)
{
        const struct ad_correction_log *l = run->kind->corrections;

        printf("run %s: %" PRIu64 " rows (cell, cause), SHA-256 %s\n", run->id, r->rows, r->digest);
        if (ad_correction_log_to(l))
                printf("with %zu corrections, of the commands before %" PRIu64 "\n",
                       ad_corrections_count(ad_correction_log_set(l)), ad_correction_log_to(l));
        printf("%-18s %3s %14s %14s %22s %22s\n", "cause", "", "events billed", "realtime",
               "spend: difference", "payout: difference");
        for (size_t i = 0; i < r->total_count; i++)
                print_total(&r->totals[i]);
        printf("%" PRIu64 " minute cells compared with realtime's", r->compared);
        if (r->skipped)
                printf(", %" PRIu64 " not: their rows may have left the log", r->skipped);
        printf("\n");
        for (uint32_t i = 0; i < r->behind_count; i++)
                printf("partition %u: realtime has not come to the run's end\n", r->behind[i]);
        if (ad_bill_unexplained(r))
                printf("UNEXPLAINED: realtime's rows are not what its rules give; keep log and "
                       "archive, and see docs/RUNBOOK.md\n");
}

static void put_side(struct ad_json *j, const char *name, const struct ad_cell *c)
{
        ad_json_key(j, name);
        ad_json_open(j);
        ad_replay_put_cell(j, c);
        ad_json_close(j);
}

static void put_total(struct ad_json *j, const struct ad_bill_total *t)
{
        ad_json_open(j);
        ad_json_put_text(j, "cause", ad_cause_code(t->cause));
        ad_json_put_text(j, "currency", t->currency);
        ad_json_put_int(j, "cells", t->cells);
        put_side(j, "billed", &t->billed);
        put_side(j, "realtime", &t->realtime);
        ad_json_close(j);
}

static int print_json(const struct ad_replay *run, const struct ad_bill_result *r,
                      struct df_error *err)
{
        const struct ad_correction_log *l = run->kind->corrections;
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        ad_json_open(j);
        ad_json_put_text(j, "run", run->id);
        ad_json_key(j, "to");
        ad_json_open_array(j);
        for (uint32_t p = 0; p < run->pin.topic.partitions; p++)
                ad_json_int(j, run->pin.span[p].to);
        ad_json_close_array(j);
        ad_json_put_int(j, "corrections", ad_corrections_count(ad_correction_log_set(l)));
        ad_json_put_int(j, "corrections_to", ad_correction_log_to(l));
        ad_json_key(j, "causes");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->total_count; i++)
                put_total(j, &r->totals[i]);
        ad_json_close_array(j);
        ad_json_put_int(j, "rows", r->rows);
        ad_json_put_text(j, "sha256", r->digest);
        ad_json_put_int(j, "compared_cells", r->compared);
        ad_json_put_int(j, "not_compared_cells", r->skipped);
        ad_json_key(j, "partitions_behind");
        ad_json_open_array(j);
        for (uint32_t i = 0; i < r->behind_count; i++)
                ad_json_int(j, r->behind[i]);
        ad_json_close_array(j);
        ad_json_put_bool(j, "unexplained", ad_bill_unexplained(r));
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

int ad_bill_print(const struct ad_replay *run, const struct ad_bill_result *r, bool json,
                  struct df_error *err)
{
        struct ad_bill_result *sorted = malloc(sizeof(*sorted));
        int rc = 0;

        if (!sorted)
                return df_fail(err, DF_ENOMEM, "totals");
        *sorted = *r;
        qsort(sorted->totals, sorted->total_count, sizeof(sorted->totals[0]), by_cause);
        if (json)
                rc = print_json(run, sorted, err);
        else
                print_text(run, sorted);
        free(sorted);
        return rc;
}
