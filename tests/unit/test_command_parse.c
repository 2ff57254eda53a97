/* Bodies of requests that become commands: what each field becomes, one beyond each limit, and each
 * refusal by its code and field. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "jobs/api/command_parse.h"

#define WHO "\"reason\":\"wrong price\",\"requested_by\":\"ann\",\"approved_by\":\"bob\""
#define SCOPE "\"scope\":{\"campaign_id\":\"c1\"}"

static struct df_error error;
static struct df_arena arena;
static struct ad_command command;
static struct ad_fault fault;

static int setup(void **state)
{
        df_arena_init(&arena, 0);
        return 0;
}

static int teardown(void **state)
{
        df_arena_release(&arena);
        return 0;
}

static int read_doc(const char *json, struct ad_doc *d)
{
        int rc = ad_doc_parse(df_bytes_str(json), AD_COMMAND_NODES_MAX, &arena, d, &error);

        memset(&command, 0, sizeof(command));
        memset(&fault, 0, sizeof(fault));
        return rc;
}

static int correction(const char *json)
{
        struct ad_doc d;

        if (read_doc(json, &d) < 0)
                fail_msg("%s: %s", error.text, json);
        return ad_parse_correction(&d, &arena, &command, &fault);
}

static void refused(const char *json, const char *code, const char *field)
{
        if (correction(json) == 0 || strcmp(fault.code, code) != 0 ||
            strcmp(fault.field, field) != 0 || fault.status / 100 != 4)
                fail_msg("%.300s: wanted %s %s, got %d %s %s", json, code, field, fault.status,
                         fault.code, fault.field);
}

static bool is(struct df_bytes b, const char *s)
{
        return df_bytes_eq(b, df_bytes_str(s));
}

static void test_fields(void **state)
{
        const struct ad_correction *c = &command.correction;

        assert_int_equal(
                correction("{\"id\":\"a.B_9-\"," WHO ",\"action\":\"void\",\"scope\":{"
                           "\"event_ids\":[\"e1\",\"e2\"],\"advertiser_id\":\"a\","
                           "\"campaign_id\":\"c\",\"publisher_id\":\"p\",\"label\":[\"bot\","
                           "\"test\"],\"from\":\"2026-04-01T02:00:00+02:00\","
                           "\"to\":\"2026-05-01T00:00:00Z\"}}"),
                0);
        assert_int_equal(command.kind, AD_COMMAND_CORRECTION);
        assert_true(is(command.id, "a.B_9-") && is(command.reason, "wrong price"));
        assert_true(is(command.requested_by, "ann") && is(command.approved_by, "bob"));
        assert_int_equal(c->action, AD_CORRECT_VOID);
        assert_int_equal(c->scope.event_id_count, 2);
        assert_true(is(c->scope.event_ids[1], "e2") && is(c->scope.advertiser_id, "a"));
        assert_true(is(c->scope.campaign_id, "c") && is(c->scope.publisher_id, "p"));
        assert_int_equal(c->scope.label, AD_LABEL_BOT | AD_LABEL_TEST);
        assert_true(c->scope.from_ms == 1775001600000 && c->scope.to_ms == 1777593600000);

        assert_int_equal(correction("{" WHO "," SCOPE ",\"action\":\"reprice\",\"values\":{"
                                    "\"price\":\"0.012500001\",\"currency\":\"EUR\"},\"id\":null}"),
                         0);
        assert_true(c->price_nanos == 12500001 && is(c->currency, "EUR") && command.id.len == 0);
        assert_int_equal(correction("{" WHO "," SCOPE ",\"action\":\"reprice\",\"values\":{"
                                    "\"price\":1000000000,\"currency\":\"JPY\"}}"),
                         0);
        assert_true(c->price_nanos == 1000000000000000000);
        assert_int_equal(correction("{" WHO "," SCOPE ",\"action\":\"remap\",\"values\":{"
                                    "\"publisher_id\":\"p2\"}}"),
                         0);
        assert_true(is(c->publisher_id, "p2") && c->campaign_id.len == 0);
        assert_int_equal(correction("{" WHO ",\"scope\":{\"label\":\"test\",\"from\":"
                                    "\"2026-04-01T00:00:00Z\",\"to\":\"2026-04-02T00:00:00Z\"},"
                                    "\"action\":\"label\",\"values\":{\"label\":\"bot\"}}"),
                         0);
        assert_true(c->label == AD_LABEL_BOT && c->scope.label == AD_LABEL_TEST);
}

static const struct {
        const char *json, *code, *field;
} bad[] = {
        {"[]", "bad_json", ""},
        {"{}", "missing_field", "reason"},
        {"{" WHO "}", "missing_field", "action"},
        {"{" WHO ",\"action\":\"void\"}", "missing_field", "scope"},
        {"{" WHO ",\"action\":\"void\"," SCOPE ",\"x\":1}", "unknown_field", "x"},
        {"{" WHO ",\"action\":\"refund\"," SCOPE "}", "bad_action", "action"},
        {"{" WHO ",\"action\":\"none\"," SCOPE "}", "bad_action", "action"},
        {"{" WHO ",\"action\":1," SCOPE "}", "bad_type", "action"},
        {"{" WHO ",\"action\":\"void\",\"scope\":\"c1\"}", "bad_type", "scope"},
        {"{" WHO ",\"action\":\"void\"," SCOPE ",\"id\":\"a b\"}", "bad_id", "id"},
        {"{" WHO ",\"action\":\"void\"," SCOPE ",\"values\":{\"price\":\"1\"}}", "unknown_field",
         "values.price"},
        /* people */
        {"{\"reason\":\"r\",\"requested_by\":\"ann\",\"action\":\"void\"," SCOPE "}",
         "approval_needed", "approved_by"},
        {"{\"reason\":\"r\",\"requested_by\":\"ann\",\"approved_by\":\" Ann \",\"action\":"
         "\"void\"," SCOPE "}",
         "approval_needed", "approved_by"},
        {"{\"reason\":\"r\",\"requested_by\":\"ann\",\"approved_by\":\"  \",\"action\":"
         "\"void\"," SCOPE "}",
         "approval_needed", "approved_by"},
        {"{\"reason\":\"\",\"requested_by\":\"ann\",\"approved_by\":\"bob\",\"action\":"
         "\"void\"," SCOPE "}",
         "missing_field", "reason"},
        /* scope */
        {"{" WHO ",\"action\":\"void\",\"scope\":{}}", "empty_scope", "scope"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"campaign_id\":\"\"}}", "empty_scope", "scope"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"event_ids\":[]}}", "empty_scope", "scope"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"from\":\"2026-04-01T00:00:00Z\",\"to\":"
         "\"2026-05-01T00:00:00Z\"}}",
         "empty_scope", "scope"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"label\":\"bot\",\"from\":"
         "\"2026-04-01T00:00:00Z\"}}",
         "empty_scope", "scope"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"label\":\"good\"}}", "bad_label",
         "scope.label"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"label\":[]}}", "bad_label", "scope.label"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"label\":[1]}}", "bad_label", "scope.label"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"campaign_id\":\"c\",\"from\":"
         "\"2026-04-01\"}}",
         "bad_time", "scope.from"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"campaign_id\":\"c\",\"from\":"
         "\"1970-01-01T00:00:00+01:00\"}}",
         "bad_time", "scope.from"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"campaign_id\":\"c\",\"from\":"
         "\"2026-04-01T00:00:00Z\",\"to\":\"2026-04-01T00:00:00Z\"}}",
         "empty_range", "scope.to"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"event_ids\":[1]}}", "bad_type",
         "scope.event_ids"},
        {"{" WHO ",\"action\":\"void\",\"scope\":{\"event_ids\":[\"\"]}}", "bad_type",
         "scope.event_ids"},
        /* values */
        {"{" WHO ",\"action\":\"reprice\"," SCOPE "}", "missing_field", "values.price"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE ",\"values\":{\"price\":\"1\"}}", "missing_field",
         "values.currency"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE
         ",\"values\":{\"price\":\"-0.01\",\"currency\":\"EUR\"}}",
         "negative_price", "values.price"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE
         ",\"values\":{\"price\":1e3,\"currency\":\"EUR\"}}",
         "bad_price", "values.price"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE
         ",\"values\":{\"price\":\"0.0000000001\",\"currency\":\"EUR\"}}",
         "bad_price", "values.price"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE
         ",\"values\":{\"price\":\"1000000000.000000001\",\"currency\":\"EUR\"}}",
         "out_of_range", "values.price"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE
         ",\"values\":{\"price\":\"1\",\"currency\":\"EUX\"}}",
         "bad_currency", "values.currency"},
        {"{" WHO ",\"action\":\"reprice\"," SCOPE
         ",\"values\":{\"price\":\"1\",\"currency\":\"XXX\"}}",
         "bad_currency", "values.currency"},
        {"{" WHO ",\"action\":\"remap\"," SCOPE "}", "missing_field", "values"},
        {"{" WHO ",\"action\":\"label\"," SCOPE "}", "missing_field", "values.label"},
};

static void test_refusals(void **state)
{
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                refused(bad[i].json, bad[i].code, bad[i].field);
}

/* ---- limits: the last that is taken, the first that is not ---- */

static char *filled(const char *before, const char *after, size_t count)
{
        char *text = malloc(strlen(before) + strlen(after) + count + 1);
        size_t at = strlen(before);

        memcpy(text, before, at);
        memset(text + at, 'x', count);
        memcpy(text + at + count, after, strlen(after) + 1);
        return text;
}

static void limit(const char *before, const char *after, size_t max, const char *field)
{
        char *most = filled(before, after, max), *beyond = filled(before, after, max + 1);

        if (correction(most) != 0)
                fail_msg("%s: %zu bytes refused: %s", field, max, fault.message);
        refused(beyond, "too_long", field);
        free(most);
        free(beyond);
}

#define VOID_END "\"}}"
#define VOID_SCOPE(field) "{" WHO ",\"action\":\"void\",\"scope\":{\"" field "\":\""
#define REMAP_TO(field) "{" WHO ",\"action\":\"remap\"," SCOPE ",\"values\":{\"" field "\":\""
#define PERSON_END "\",\"action\":\"void\"," SCOPE "}"

static void test_limits(void **state)
{
        struct df_buf b = {0};

        limit(VOID_SCOPE("advertiser_id"), VOID_END, AD_ID_MAX, "scope.advertiser_id");
        limit(VOID_SCOPE("campaign_id"), VOID_END, AD_ID_MAX, "scope.campaign_id");
        limit(VOID_SCOPE("publisher_id"), VOID_END, AD_ID_MAX, "scope.publisher_id");
        limit("{" WHO ",\"action\":\"void\",\"scope\":{\"event_ids\":[\"", "\"]}}", AD_EVENT_ID_MAX,
              "scope.event_ids");
        limit(REMAP_TO("advertiser_id"), VOID_END, AD_ID_MAX, "values.advertiser_id");
        limit(REMAP_TO("campaign_id"), VOID_END, AD_ID_MAX, "values.campaign_id");
        limit(REMAP_TO("publisher_id"), VOID_END, AD_ID_MAX, "values.publisher_id");
        limit("{" WHO ",\"id\":\"", PERSON_END, AD_COMMAND_ID_MAX, "id");
        limit("{\"requested_by\":\"a\",\"approved_by\":\"b\",\"reason\":\"", PERSON_END,
              AD_REASON_TEXT_MAX, "reason");
        limit("{\"reason\":\"r\",\"approved_by\":\"b\",\"requested_by\":\"", PERSON_END,
              AD_PERSON_MAX, "requested_by");
        limit("{\"reason\":\"r\",\"requested_by\":\"b\",\"approved_by\":\"", PERSON_END,
              AD_PERSON_MAX, "approved_by");
        for (size_t n = AD_SCOPE_EVENT_IDS_MAX; n <= AD_SCOPE_EVENT_IDS_MAX + 1; n++) {
                df_buf_clear(&b);
                df_buf_printf(&b, "{" WHO ",\"action\":\"void\",\"scope\":{\"event_ids\":[\"e\"");
                for (size_t i = 1; i < n; i++)
                        df_buf_printf(&b, ",\"e%zu\"", i);
                df_buf_printf(&b, "]}}%c", 0);
                if (n > AD_SCOPE_EVENT_IDS_MAX)
                        refused((char *)b.data, "too_many_event_ids", "scope.event_ids");
                else
                        assert_int_equal(correction((char *)b.data), 0);
        }
        df_buf_release(&b);
}

static void test_the_others(void **state)
{
        struct ad_doc d;
        unsigned month;
        int year;

        assert_int_equal(read_doc("{}", &d), 0);
        assert_int_equal(ad_parse_run(&d, &command, &fault), 0);
        assert_int_equal(command.kind, AD_COMMAND_RUN);
        assert_int_equal(ad_parse_close(&d, &command, &fault), -1);
        assert_string_equal(fault.code, "missing_field");
        assert_int_equal(read_doc("{" WHO ",\"advertiser_id\":\"a1\"}", &d), 0);
        assert_int_equal(ad_parse_close(&d, &command, &fault), 0);
        assert_true(is(command.close.account.advertiser_id, "a1"));
        assert_int_equal(read_doc("{" WHO "}", &d), 0);
        assert_int_equal(ad_parse_cancel(&d, &command, &fault), 0);
        assert_int_equal(command.kind, AD_COMMAND_CANCEL);
        assert_int_equal(read_doc("{\"reason\":\"r\",\"requested_by\":\"a\"}", &d), 0);
        assert_int_equal(ad_parse_cancel(&d, &command, &fault), -1);
        assert_string_equal(fault.code, "approval_needed");
        assert_true(ad_period_parse(df_bytes_str("2026-04"), &year, &month));
        assert_true(year == 2026 && month == 4);
        assert_false(ad_period_parse(df_bytes_str("2026-13"), &year, &month));
        assert_false(ad_period_parse(df_bytes_str("2026-00"), &year, &month));
        assert_false(ad_period_parse(df_bytes_str("2026-4"), &year, &month));
        assert_false(ad_period_parse(df_bytes_str("2026-041"), &year, &month));
        assert_false(ad_period_parse(df_bytes_str("1969-12"), &year, &month));
        assert_false(ad_period_parse(df_bytes_str("20x6-04"), &year, &month));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_fields, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_others, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
