/* check.c - `adtally check`: do the served numbers equal the generator's truth? */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobs/adtally/check.h"
#include "jobs/adtally/command.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define SHOWN_MAX 20
#define LOOK_EVERY_MS 500
#define HTTP_TIMEOUT_MS 30000

static const char usage[] =
        "adtally check: compare served numbers with the truth of `adtally generate --truth`\n"
        "Usage: adtally check --truth FILE [--url URL] [--wait DURATION] [--final]\n\n"
        "Compares every minute, hour and day by campaign and currency, with none missing and none\n"
        "too many, and the ledger of GET /quality. The truth must be of everything that the data\n"
        "directory has seen. With --wait it looks again until all is equal (with --final: and "
        "every\n"
        "window final) or the time is over. Events that were sent again after a lost answer may "
        "be\n"
        "in the log twice: they widen only the expected duplicates. Exit 0: equal; 1: not equal.\n";
static const struct df_setting own[] = {
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
        {"truth", DF_TEXT, NULL, .arg = "FILE", .help = "what generate wrote"},
        {"wait", DF_DURATION, "0", 0, 86400000, .help = "look again for so long"},
        {"final", DF_BOOL, "false", .help = "also ask every window to be final"},
        {"killed", DF_BOOL, "false",
         .help = "ingest was killed meanwhile: what it rejected since its last heartbeat is not "
                 "known"},
};
static const char *const shared[] = {"listen", "quiet", "json", NULL};

struct checker {
        struct df_http_client *http;
        struct ad_json_parser *parser;
        const struct ad_truth *truth;
        bool must_be_final, killed;
        /* The last look. */
        struct df_buf report; /* lines, at most SHOWN_MAX */
        uint64_t differences, compared;
};

static void differ(struct checker *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void differ(struct checker *c, const char *fmt, ...)
{
        char text[300];
        va_list ap;

        if (c->differences++ >= SHOWN_MAX)
                return;
        va_start(ap, fmt);
        (void)vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        df_buf_printf(&c->report, "  %s\n", text);
}

/* ---- the ledger ---- */

struct ledger {
        int64_t accepted, counted, duplicate, conflict, late, rejected, quarantined, pending;
        bool balanced;
};

static void read_ledger(const struct ad_json_node *n, struct ledger *l)
{
        const struct {
                const char *key;
                int64_t *to;
        } numbers[] = {{"accepted", &l->accepted},
                       {"counted", &l->counted},
                       {"duplicate", &l->duplicate},
                       {"conflict", &l->conflict},
                       {"late", &l->late},
                       {"rejected", &l->rejected},
                       {"quarantined", &l->quarantined},
                       {"pending", &l->pending}};

        for (uint32_t i = 1; i < n[0].next; i = n[i].next) {
                if (df_bytes_eq(n[i].key, df_bytes_str("balanced")))
                        l->balanced = n[i].kind == AD_JSON_BOOL && n[i].i;
                if (!df_bytes_eq(n[i].key, df_bytes_str("ledger")))
                        continue;
                for (uint32_t m = i + 1; m < n[i].next; m = n[m].next)
                        for (size_t k = 0; k < sizeof(numbers) / sizeof(numbers[0]); k++)
                                if (df_bytes_eq(n[m].key, df_bytes_str(numbers[k].key)))
                                        *numbers[k].to = n[m].i;
        }
}

static void compare_number(struct checker *c, const char *name, int64_t expected, int64_t more,
                           int64_t got)
{
        c->compared++;
        if (got >= expected && got <= expected + more)
                return;
        if (more)
                differ(c, "ledger %s: expected %" PRId64 " to %" PRId64 ", served %" PRId64, name,
                       expected, expected + more, got);
        else
                differ(c, "ledger %s: expected %" PRId64 ", served %" PRId64, name, expected, got);
}

static int compare_ledger(struct checker *c, struct df_error *err)
{
        const struct ad_truth *t = c->truth;
        struct ledger l = {.pending = -1};
        const struct ad_json_node *n;
        struct df_buf body = {0};
        const char *why = "";
        size_t nodes;
        int status = 0;
        int rc =
                df_http_fetch(c->http, "/v1/quality", NULL, df_bytes(NULL, 0), &status, &body, err);

        if (rc == 0 && status != 200)
                rc = df_fail(err, status == 503 ? DF_EAGAIN : DF_EINVAL, "GET /quality answers %d",
                             status);
        if (rc == 0 &&
            (ad_json_parse(c->parser, df_buf_bytes(&body), &n, &nodes, &why) != AD_JSON_OK ||
             nodes == 0))
                rc = df_fail(err, DF_EPARSE, "GET /quality answers no JSON: %s", why);
        if (rc == 0) {
                read_ledger(n, &l);
                compare_number(c, "pending", 0, 0, l.pending);
                compare_number(c, "counted", t->counted, 0, l.counted);
                compare_number(c, "duplicate", t->duplicate, t->resent, l.duplicate);
                compare_number(c, "conflict", t->conflict, 0, l.conflict);
                compare_number(c, "late", t->late, 0, l.late);
                compare_number(c, "quarantined", 0, 0, l.quarantined);
                compare_number(c, "accepted", t->accepted, t->resent, l.accepted);
                if (t->resent == 0 && !c->killed)
                        compare_number(c, "rejected", t->rejected, 0, l.rejected);
                compare_number(c, "balanced", 1, 0, l.balanced);
        }
        df_buf_release(&body);
        return rc;
}

/* ---- rows ---- */

static int order(const struct ad_check_row *a, const struct ad_check_row *b)
{
        int c;

        if (!a || !b)
                return a ? -1 : 1;
        if (a->start_ms != b->start_ms)
                return a->start_ms < b->start_ms ? -1 : 1;
        c = strcmp(a->campaign, b->campaign);
        return c ? c : strcmp(a->currency, b->currency);
}

static void compare_row(struct checker *c, enum ad_check_window w, const struct ad_check_row *t,
                        const struct ad_check_row *s)
{
        const struct ad_check_row *any = t ? t : s;
        char start[AD_TIME_TEXT_MAX];

        (void)ad_time_text(any->start_ms, start);
        for (int m = 0; m < AD_CHECK_MEASURES; m++) {
                int64_t expected = t ? t->v[m] : 0, got = s ? s->v[m] : 0;

                c->compared++;
                if (expected != got)
                        differ(c, "%-6s %s %s %s %s: expected %" PRId64 ", served %" PRId64,
                               ad_check_window_names[w], start, any->campaign, any->currency,
                               ad_check_measures[m], expected, got);
        }
}

static int compare_window(struct checker *c, enum ad_check_window w, struct df_error *err)
{
        const struct ad_check_rows *t = &c->truth->windows[w];
        struct ad_check_rows served = {0};
        size_t i = 0, k = 0;
        int rc = ad_check_fetch(c->http, c->parser, w, c->truth->from_ms, c->truth->to_ms, &served,
                                err);

        while (rc == 0 && (i < t->count || k < served.count)) {
                const struct ad_check_row *a = i < t->count ? &t->list[i] : NULL;
                const struct ad_check_row *b = k < served.count ? &served.list[k] : NULL;
                int o = order(a, b);

                compare_row(c, w, o <= 0 ? a : NULL, o >= 0 ? b : NULL);
                i += o <= 0;
                k += o >= 0;
        }
        ad_check_rows_release(&served);
        return rc;
}

/* One look at everything. */
static int look(struct checker *c, struct df_error *err)
{
        int rc;

        c->differences = c->compared = 0;
        df_buf_clear(&c->report);
        rc = compare_ledger(c, err);
        for (int w = 0; rc == 0 && w < AD_CHECK_WINDOWS; w++)
                rc = compare_window(c, w, err);
        return rc;
}

/* Minutes alone: an hour or day is final only after its end. */
static int minutes_final(struct checker *c, bool *ret, struct df_error *err)
{
        struct ad_check_rows served = {0};
        int rc = ad_check_fetch(c->http, c->parser, AD_CHECK_MINUTE, c->truth->from_ms,
                                c->truth->to_ms, &served, err);

        *ret = true;
        for (size_t i = 0; i < served.count; i++)
                *ret = *ret && served.list[i].final;
        ad_check_rows_release(&served);
        return rc;
}

static int look_until(struct checker *c, int64_t wait_ms, bool *ret_equal, bool *ret_final,
                      struct df_error *err)
{
        int64_t until = df_monotonic_ms() + wait_ms;
        int rc;

        for (;;) {
                *ret_equal = *ret_final = false;
                rc = look(c, err);
                if (rc == 0)
                        *ret_equal = c->differences == 0;
                if (rc == 0 && *ret_equal)
                        rc = c->must_be_final ? minutes_final(c, ret_final, err) : 0;
                if (rc < 0 && rc != DF_EAGAIN)
                        return rc;
                if (rc == 0 && *ret_equal && (*ret_final || !c->must_be_final))
                        return 0;
                if (df_monotonic_ms() >= until || df_process_stopping())
                        return rc;
                (void)usleep(LOOK_EVERY_MS * 1000);
        }
}

/* ---- the report ---- */

static void print_text(const struct checker *c, bool same, bool final)
{
        const struct ad_truth *t = c->truth;

        printf("compared %" PRIu64
               " numbers: %zu minute, %zu hour and %zu day rows by campaign and "
               "currency, and the ledger\n",
               c->compared, t->windows[AD_CHECK_MINUTE].count, t->windows[AD_CHECK_HOUR].count,
               t->windows[AD_CHECK_DAY].count);
        printf("  %-12s %12" PRId64 "\n  %-12s %12" PRId64 "%s\n  %-12s %12" PRId64
               "\n  %-12s %12" PRId64 "\n  %-12s %12" PRId64 "\n",
               "counted", t->counted, "duplicate", t->duplicate,
               t->resent ? " or more (lost answers)" : "", "conflict", t->conflict, "late", t->late,
               "rejected", t->rejected);
        if (same && (final || !c->must_be_final)) {
                printf("EQUAL: every number is the truth%s\n",
                       final ? ", every minute is final" : "");
                return;
        }
        if (same) {
                printf("NOT FINAL: every number is the truth, but not every minute is final yet\n");
                return;
        }
        printf("NOT EQUAL: %" PRIu64 " differences\n%.*s", c->differences, (int)c->report.len,
               (const char *)c->report.data);
        if (c->differences > SHOWN_MAX)
                printf("  ... and %" PRIu64 " more\n", c->differences - SHOWN_MAX);
}

static int print_json(const struct checker *c, bool same, bool final, struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        ad_json_open(j);
        ad_json_put_bool(j, "equal", same);
        ad_json_put_bool(j, "final", final);
        ad_json_put_int(j, "compared", c->compared);
        ad_json_put_int(j, "differences", c->differences);
        ad_json_put_bytes(j, "report", df_buf_bytes(&c->report));
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

static int check(const struct df_config *cfg, int *ret_exit, struct df_error *err)
{
        const char *path = df_config_text(cfg, "truth"), *url = df_config_text(cfg, "url");
        struct ad_truth truth = {0};
        struct checker c = {
                .truth = &truth,
                .must_be_final = df_config_bool(cfg, "final"),
                .killed = df_config_bool(cfg, "killed"),
        };
        char base[300];
        bool same = false, final = false;
        int rc;

        if (!path)
                return df_fail(err, DF_EINVAL, "--truth FILE is missing");
        (void)snprintf(base, sizeof(base), "http://%s", df_config_text(cfg, "listen"));
        c.parser = ad_json_create();
        rc = c.parser ? ad_truth_read(path, &truth, err) : df_fail(err, DF_ENOMEM, "JSON parser");
        if (rc == 0 && !truth.exact)
                rc = df_fail(err, DF_EPARSE,
                             "%s says of itself that it is not exact: generate again", path);
        if (rc == 0)
                rc = df_http_client_create(url ? url : base, df_config_text(cfg, "key"),
                                           HTTP_TIMEOUT_MS, &c.http, err);
        if (rc == 0)
                rc = look_until(&c, df_config_ms(cfg, "wait"), &same, &final, err);
        if (rc == 0) {
                if (df_config_bool(cfg, "json"))
                        rc = print_json(&c, same, final, err);
                else
                        print_text(&c, same, final);
                *ret_exit = same && (final || !c.must_be_final) ? DF_EXIT_OK : DF_EXIT_FAILURE;
        }
        df_http_client_destroy(c.http);
        ad_json_destroy(c.parser);
        df_buf_release(&c.report);
        ad_truth_release(&truth);
        return rc;
}

int ad_command_check(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        rc = l.arg_count ? df_fail(&err, DF_EINVAL, "it takes no arguments, only --options")
                         : df_process_start("check", false, &err);
        if (rc == 0)
                rc = check(l.config, &code, &err);
        ad_command_release(&l);
        return rc == DF_EINVAL ? ad_command_usage("check", "%s", err.text)
               : rc < 0        ? ad_command_fail("check", &err)
                               : code;
}
