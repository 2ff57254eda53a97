/* generate.c - `adtally generate`: options, and what is said at the end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/adtally/command.h"
#include "jobs/adtally/generate.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define SPAN_DEFAULT_MS 300000

static const char usage[] =
        "adtally generate: seeded traffic, and the exact numbers that must come out of it\n"
        "Usage: adtally generate --to URL | --out FILE [--events N] [--seed S] [--truth FILE] "
        "[OPTIONS]\n\n"
        "Equal options and times give equal events. Shares are of all events (0.05 or 5%).\n"
        "Without --live the event times begin at --start and end --span later; they must reach "
        "the\n"
        "server within its grace to be on time, so by default they end now. With --live each "
        "event\n"
        "carries the time of sending. The server's --grace, --out-of-orderness, --accepted-age "
        "and\n"
        "--currency must be told when they are not the defaults: the truth depends on them.\n"
        "A batch without an answer is sent again with the same event_ids.\n"
        "The truth (JSON) holds every minute, hour and day by campaign and currency, and the "
        "ledger;\n"
        "`adtally check` compares a server with it. Exit 1: the server answered otherwise than "
        "the\n"
        "plan says; 75: the run took too long for the truth to be exact.\n";
static const struct df_setting own[] = {
        {"to", DF_TEXT, NULL, .arg = "URL", .help = "post to this server"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
        {"out", DF_TEXT, NULL, .arg = "FILE", .help = "write NDJSON instead; - is stdout"},
        {"truth", DF_TEXT, NULL, .arg = "FILE", .help = "write the expected numbers"},
        {"events", DF_INTEGER, "10000", 1, INT64_MAX / 1000, .arg = "N", .help = "how many"},
        {"seed", DF_INTEGER, "1", 0, INT64_MAX, .arg = "S", .help = "of every choice"},
        {"rate", DF_INTEGER, "0", 0, 100000000, .arg = "N",
         .help = "events a second; 0 = as fast as it goes"},
        {"batch", DF_INTEGER, "500", 1, AD_GEN_BATCH_MAX, .arg = "N", .help = "events a request"},
        {"connections", DF_INTEGER, "4", 1, AD_GEN_CONNECTIONS_MAX, .arg = "N",
         .help = "requests at a time"},
        {"campaigns", DF_INTEGER, "100", 1, 1000000, .arg = "N", .help = "c1 to cN"},
        {"zipf", DF_TEXT, "1.0", .arg = "X", .help = "exponent of their popularity; 0 = all alike"},
        {"duplicates", DF_TEXT, "0.05", .arg = "SHARE", .help = "events sent twice"},
        {"conflicts", DF_TEXT, "0", .arg = "SHARE", .help = "ids sent again with other money"},
        {"out-of-order", DF_TEXT, "0.02", .arg = "SHARE", .help = "by seconds, still on time"},
        {"late", DF_TEXT, "0", .arg = "SHARE", .help = "behind the grace"},
        {"broken", DF_TEXT, "0", .arg = "SHARE", .help = "refused by ingest, in 19 ways"},
        {"currencies", DF_TEXT, "EUR,USD", .arg = "LIST", .help = "ISO 4217, at most 8"},
        {"live", DF_BOOL, "false", .help = "event time = time of sending"},
        {"start", DF_TEXT, NULL, .arg = "TIME", .help = "RFC 3339 (default: now - span)"},
        {"span", DF_DURATION, NULL, 0, INT64_MAX / 2,
         .help = "of event times (default: events / rate, else 5m)"},
        {"retry-for", DF_DURATION, "5m", 0, 86400000, .help = "how long a batch is tried"},
};
static const char *const shared[] = {
        "grace", "out-of-orderness", "accepted-age", "currency", "quiet", "json", NULL};

static int read_share(const struct df_config *c, const char *name, double *ret,
                      struct df_error *err)
{
        const char *text = df_config_text(c, name);
        char *end = NULL;

        *ret = strtod(text, &end);
        if (end != text && *end == '%') {
                *ret /= 100;
                end++;
        }
        if (end == text || *end || !(*ret >= 0 && *ret <= 1))
                return df_fail(err, DF_EINVAL, "--%s %s: a share is 0 to 1, or like 5%%", name,
                               text);
        return 0;
}

static int read_shares(const struct df_config *c, struct ad_gen_options *o, struct df_error *err)
{
        const struct {
                const char *name;
                double *to;
        } all[] = {{"duplicates", &o->duplicates},
                   {"conflicts", &o->conflicts},
                   {"out-of-order", &o->out_of_order},
                   {"late", &o->late},
                   {"broken", &o->broken}};
        const char *zipf = df_config_text(c, "zipf");
        char *end = NULL;
        double sum = 0;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < sizeof(all) / sizeof(all[0]); i++) {
                rc = read_share(c, all[i].name, all[i].to, err);
                sum += *all[i].to;
        }
        if (rc == 0 && sum > 0.9)
                return df_fail(err, DF_EINVAL, "the shares add up to %.3f; at most 0.9", sum);
        o->zipf = strtod(zipf, &end);
        if (rc == 0 && (end == zipf || *end || !(o->zipf >= 0 && o->zipf <= 10)))
                return df_fail(err, DF_EINVAL, "--zipf %s: expected 0 to 10", zipf);
        return rc;
}

static int read_currencies(const struct df_config *c, struct ad_gen_options *o,
                           struct df_error *err)
{
        const char *at = df_config_text(c, "currencies");

        (void)snprintf(o->default_currency, sizeof(o->default_currency), "%s",
                       df_config_text(c, "currency"));
        while (*at) {
                size_t len = strcspn(at, ",");

                if (len != 3 || !df_currency_known(df_bytes(at, len)) ||
                    strncmp(at, "XXX", 3) == 0 || o->currency_count == AD_GEN_CURRENCIES_MAX)
                        return df_fail(err, DF_EINVAL,
                                       "--currencies: \"%.*s\": expected up to %d ISO 4217 codes",
                                       (int)len, at, AD_GEN_CURRENCIES_MAX);
                memcpy(o->currencies[o->currency_count++], at, 3);
                at += len + (at[len] == ',');
        }
        return o->currency_count ? 0 : df_fail(err, DF_EINVAL, "--currencies is empty");
}

static int read_times(const struct df_config *c, struct ad_gen_options *o, struct df_error *err)
{
        const char *start = df_config_text(c, "start");

        o->live = df_config_bool(c, "live");
        o->began_ms = df_wall_ms();
        if (o->live && (start || df_config_value(c, "span")))
                return df_fail(err, DF_EINVAL, "--live goes without --start and --span");
        if (o->live && df_config_text(c, "out"))
                return df_fail(err, DF_EINVAL, "--live goes with --to: a file is sent later");
        o->span_ms = df_config_value(c, "span") ? df_config_ms(c, "span")
                     : o->rate > 0              ? (int64_t)((double)o->events * 1000 / o->rate)
                                                : SPAN_DEFAULT_MS;
        o->start_ms = o->began_ms - o->span_ms;
        if (start && !ad_time_parse(df_bytes_str(start), &o->start_ms))
                return df_fail(err, DF_EINVAL, "--start %s: not RFC 3339", start);
        return 0;
}

static int read_options(const struct df_config *c, struct ad_gen_options *o, struct df_error *err)
{
        int rc;

        *o = (struct ad_gen_options){
                .seed = (uint64_t)df_config_integer(c, "seed"),
                .events = (uint64_t)df_config_integer(c, "events"),
                .campaigns = (uint32_t)df_config_integer(c, "campaigns"),
                .batch = (uint32_t)df_config_integer(c, "batch"),
                .connections = (uint32_t)df_config_integer(c, "connections"),
                .rate = (double)df_config_integer(c, "rate"),
                .grace_ms = df_config_ms(c, "grace"),
                .out_of_orderness_ms = df_config_ms(c, "out-of-orderness"),
                .accepted_age_ms = df_config_ms(c, "accepted-age"),
        };
        if (!df_config_text(c, "to") == !df_config_text(c, "out"))
                return df_fail(err, DF_EINVAL, "say where to: either --to URL or --out FILE");
        rc = read_shares(c, o, err);
        if (rc == 0)
                rc = read_currencies(c, o, err);
        return rc < 0 ? rc : read_times(c, o, err);
}

/* ---- the summary ---- */

static int print_json(const struct ad_gen_sums *s, const struct ad_gen_result *r,
                      struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        ad_json_open(j);
        ad_json_put_int(j, "events", s->events);
        ad_json_put_int(j, "accepted", s->accepted);
        ad_json_put_int(j, "counted", s->counted);
        ad_json_put_int(j, "duplicate", s->duplicate);
        ad_json_put_int(j, "conflict", s->conflict);
        ad_json_put_int(j, "late", s->late);
        ad_json_put_int(j, "rejected", s->rejected);
        ad_json_put_int(j, "out_of_order", s->out_of_order);
        ad_json_put_int(j, "requests", r->requests);
        ad_json_put_int(j, "retries", r->retries);
        ad_json_put_int(j, "resent", r->resent);
        ad_json_put_int(j, "unsure", r->unsure);
        ad_json_put_int(j, "surprises", r->surprises);
        ad_json_put_int(j, "elapsed_ms", r->elapsed_ms);
        ad_json_put_int(j, "events_per_s",
                        r->elapsed_ms ? s->events * 1000 / (uint64_t)r->elapsed_ms : 0);
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

static void print_text(FILE *f, const struct ad_gen_sums *s, const struct ad_gen_result *r)
{
        fprintf(f, "%12" PRIu64 " events in %.1f s, %.0f a second\n", s->events,
                (double)r->elapsed_ms / 1000,
                r->elapsed_ms ? (double)s->events * 1000 / (double)r->elapsed_ms : 0);
        fprintf(f, "%12" PRIu64 " accepted, of which\n", s->accepted);
        fprintf(f, "%12" PRIu64 "   to be counted (%" PRIu64 " out of order)\n", s->counted,
                s->out_of_order);
        fprintf(f, "%12" PRIu64 "   duplicates\n", s->duplicate);
        fprintf(f, "%12" PRIu64 "   conflicts\n", s->conflict);
        fprintf(f, "%12" PRIu64 "   late\n", s->late);
        fprintf(f, "%12" PRIu64 " rejected\n", s->rejected);
        for (unsigned i = 0; i < 128; i++)
                if (s->rejected_by[i])
                        fprintf(f, "%12" PRIu64 "   %s\n", s->rejected_by[i],
                                ad_reason_info(i)->code);
        if (r->retries)
                fprintf(f,
                        "%12" PRIu64 " requests sent again (%" PRIu64
                        " events that may be in the log twice)\n",
                        r->retries, r->resent);
}

static int verdict(const struct ad_gen_result *r)
{
        if (r->surprises) {
                fprintf(stderr, "adtally generate: %" PRIu64 " answers not as planned; first: %s\n",
                        r->surprises, r->surprise);
                return DF_EXIT_FAILURE;
        }
        if (r->unsure) {
                fprintf(stderr,
                        "adtally generate: %" PRIu64
                        " events were acknowledged too late to be surely on time: the truth is not "
                        "exact.\nSend faster, use --live, or give the server (and this command) a "
                        "longer --grace.\n",
                        r->unsure);
                return DF_EXIT_TEMPFAIL;
        }
        return DF_EXIT_OK;
}

static int generate(const struct df_config *c, int *ret_exit, struct df_error *err)
{
        const char *to = df_config_text(c, "to"), *out = df_config_text(c, "out");
        const char *path = df_config_text(c, "truth");
        bool quiet = df_config_bool(c, "quiet");
        struct ad_gen_result r = {0};
        struct ad_gen_options o;
        struct ad_gen_plan *plan = NULL;
        struct ad_gen_truth *truth = NULL;
        int rc = read_options(c, &o, err);

        if (rc == 0)
                rc = ad_gen_plan_create(&o, &plan, err);
        if (rc == 0)
                rc = ad_gen_truth_create(plan, &truth, err);
        if (rc == 0)
                rc = to ? ad_gen_send(plan, truth, to, df_config_text(c, "key"),
                                      df_config_ms(c, "retry-for"), quiet, &r, err)
                        : ad_gen_write(plan, truth, out, quiet, &r, err);
        if (rc == 0 && path)
                rc = ad_gen_truth_write(truth, r.resent, r.unsure + r.surprises, path, err);
        if (rc == 0) {
                if (df_config_bool(c, "json"))
                        rc = print_json(ad_gen_truth_sums(truth), &r, err);
                else
                        print_text(out && strcmp(out, "-") == 0 ? stderr : stdout,
                                   ad_gen_truth_sums(truth), &r);
                *ret_exit = verdict(&r);
        }
        ad_gen_truth_destroy(truth);
        ad_gen_plan_destroy(plan);
        return rc;
}

int ad_command_generate(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        rc = l.arg_count ? df_fail(&err, DF_EINVAL, "it takes no arguments, only --options")
                         : df_process_start("generate", false, &err);
        if (rc == 0)
                rc = generate(l.config, &code, &err);
        ad_command_release(&l);
        return rc == DF_EINVAL ? ad_command_usage("generate", "%s", err.text)
               : rc < 0        ? ad_command_fail("generate", &err)
                               : code;
}
