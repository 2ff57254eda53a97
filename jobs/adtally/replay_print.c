/* replay_print.c - what a replay says: its pin before, its result after the work (replay.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/adtally/replay.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "proto/reason.h"

/* Records before the range: their ids are not known to the run (D1). */
static bool begins_inside(const struct ad_replay *r)
{
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++)
                if (r->pin.span[p].from > 0)
                        return true;
        return false;
}

void ad_replay_print_pin(const struct ad_replay *r)
{
        FILE *f = stderr;

        fprintf(f, "run %s: %s, generation %016" PRIx64 ", offsets", r->id, r->pin.topic.name,
                r->pin.topic.generation);
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++)
                fprintf(f, " %u:[%" PRIu64 ",%" PRIu64 ")", p, r->pin.span[p].from,
                        r->pin.span[p].to);
        fputc('\n', f);
        if (begins_inside(r))
                fprintf(f, "the range does not begin at the topic's first offset: ids seen before "
                           "it are unknown,\nso copies of earlier events count as new\n");
}

static void day_text(int64_t day, char ret[32])
{
        int64_t year;
        unsigned month, d;

        ad_civil_from_days(day, &year, &month, &d);
        (void)snprintf(ret, 32, "%04" PRId64 "-%02u-%02u", year, month, d);
}

static void print_text(const struct ad_replay *r, const struct ad_replay_result *s)
{
        const char *comma = "";

        printf("run %s: %" PRIu64 " records, %" PRIu64 " heartbeats, %" PRIu64 " events:", r->id,
               s->records, s->heartbeats, s->events);
        for (unsigned i = 0; i < DF_OUTCOMES_MAX; i++)
                if (s->outcomes[i]) {
                        printf("%s %" PRIu64 " %s", comma, s->outcomes[i], ad_reason_info(i)->code);
                        comma = ",";
                }
        printf("%s\n", *comma ? "" : " none");
        if (s->day_count)
                printf("%-10s %3s %12s %12s %12s %18s %18s\n", "day (UTC)", "", "impressions",
                       "clicks", "conversions", "spend", "payout");
        for (size_t i = 0; i < s->day_count; i++) {
                const struct ad_replay_day *d = &s->days[i];
                char day[32];

                day_text(d->day, day);
                printf("%-10s %3s %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %18.6f %18.6f\n", day,
                       d->currency, d->sum.impressions, d->sum.clicks, d->sum.conversions,
                       (double)df_nanos_to_micros(d->sum.spend) / 1e6,
                       (double)df_nanos_to_micros(d->sum.payout) / 1e6);
        }
        printf("%" PRIu64 " minute rows, SHA-256 %s\n", s->rows, s->digest);
}

static void put_range(struct ad_json *j, const struct ad_replay *r)
{
        ad_json_key(j, "partitions");
        ad_json_open_array(j);
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++) {
                ad_json_open(j);
                ad_json_put_int(j, "from", r->pin.span[p].from);
                ad_json_put_int(j, "to", r->pin.span[p].to);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static void put_day(struct ad_json *j, const struct ad_replay_day *d)
{
        char day[32];

        day_text(d->day, day);
        ad_json_open(j);
        ad_json_put_text(j, "day", day);
        ad_json_put_text(j, "currency", d->currency);
        ad_json_put_int(j, "impressions", d->sum.impressions);
        ad_json_put_int(j, "clicks", d->sum.clicks);
        ad_json_put_int(j, "conversions", d->sum.conversions);
        ad_json_put_int(j, "spend_micros", df_nanos_to_micros(d->sum.spend));
        ad_json_put_int(j, "payout_micros", df_nanos_to_micros(d->sum.payout));
        ad_json_put_int(j, "conversion_value_micros", df_nanos_to_micros(d->sum.value));
        ad_json_close(j);
}

static int print_json(const struct ad_replay *r, const struct ad_replay_result *s,
                      struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        char text[24];
        int rc;

        (void)snprintf(text, sizeof(text), "%016" PRIx64, r->pin.topic.generation);
        ad_json_open(j);
        ad_json_put_text(j, "run", r->id);
        ad_json_put_text(j, "topic", r->pin.topic.name);
        ad_json_put_text(j, "generation", text);
        put_range(j, r);
        ad_json_put_bool(j, "earlier_ids_known", !begins_inside(r));
        if (s) {
                ad_json_put_int(j, "records", s->records);
                ad_json_put_int(j, "heartbeats", s->heartbeats);
                ad_json_put_int(j, "events", s->events);
                ad_json_key(j, "outcomes");
                ad_json_open(j);
                for (unsigned i = 0; i < DF_OUTCOMES_MAX; i++)
                        if (s->outcomes[i])
                                ad_json_put_int(j, ad_reason_info(i)->code, s->outcomes[i]);
                ad_json_close(j);
                ad_json_key(j, "days");
                ad_json_open_array(j);
                for (size_t i = 0; i < s->day_count; i++)
                        put_day(j, &s->days[i]);
                ad_json_close_array(j);
                ad_json_put_int(j, "rows", s->rows);
                ad_json_put_text(j, "sha256", s->digest);
        }
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

int ad_replay_print(const struct ad_replay *r, const struct ad_replay_result *result, bool json,
                    struct df_error *err)
{
        if (json)
                return print_json(r, result, err);
        if (result)
                print_text(r, result);
        return 0;
}
