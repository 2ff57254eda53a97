/* test_manifest.c - the signed statement of a period: its bytes as docs/BILLING.md has them, read
 * back, refused in any other form, signed and forged (jobs/runs/manifest.h). */
#include "unit.h"

#include <stdio.h>

#include "df/sign.h"
#include "jobs/runs/manifest.h"

#include "dice.h"

#define ROUNDS 200
#define HASH "0101010101010101010101010101010101010101010101010101010101010101"

static struct df_bytes s(const char *text)
{
        return df_bytes_str(text);
}

/* ---- the documented form ---- */

static const char golden[] =
        "{\"adtally_period_manifest\":1,\"tenant_id\":\"default\",\"advertiser_id\":\"acme\","
        "\"period\":\"2026-04\",\"zone\":\"Europe/Berlin\",\"zone_version\":\"2026a\","
        "\"from\":\"2026-03-31T22:00:00Z\",\"to\":\"2026-04-30T22:00:00Z\","
        "\"closed_at\":\"2026-05-01T02:10:00.250Z\",\"asked_by\":\"close-1\","
        "\"run\":\"00112233aabbccdd\",\"chain\":\"ffeeddcc00112233\",\"version\":\"0.9.1\","
        "\"settings\":{\"grace\":\"15m\",\"out-of-orderness\":\"10s\",\"accepted-age\":\"30d\","
        "\"dedupe-horizon\":\"24\",\"billing-horizon\":\"768\",\"cell-cap\":\"100000\","
        "\"pricing\":\"table\",\"groupings\":1},"
        "\"prices\":{\"version\":2,\"tables\":[{\"version\":2,\"sha256\":\"" HASH "\"}]},"
        "\"corrections\":{\"to\":9,\"sha256\":\"" HASH "\","
        "\"commands\":[{\"offset\":3,\"bytes\":\"Zm9v\"}]},"
        "\"sources\":[{\"topic\":\"events\",\"generation\":\"00000000000000ab\",\"partitions\":["
        "{\"partition\":0,\"from\":0,\"to\":120,\"archived_to\":200,\"segments\":1,\"chain\":"
        "\"" HASH "\",\"listed\":[{\"from\":0,\"to\":200,\"sha256\":\"" HASH "\"}]},"
        "{\"partition\":1,\"from\":5,\"to\":5,\"archived_to\":5,\"segments\":0,\"chain\":\"" HASH
        "\",\"listed\":[]}]}],"
        "\"rows\":{\"count\":2,\"sha256\":\"" HASH "\"},"
        "\"totals\":[{\"currency\":\"EUR\",\"impressions\":7,\"clicks\":6,\"conversions\":5,"
        "\"spend_nanos\":\"170141183460469231731687303715884105727\",\"payout_nanos\":\"-12\","
        "\"conversion_value_nanos\":\"0\",\"invalid_impressions\":1,\"invalid_clicks\":2,"
        "\"invalid_conversions\":18446744073709551615}]}";

static void fill_golden(struct ad_manifest *m)
{
        static struct ad_manifest_price price = {.version = 2};
        static struct ad_manifest_command command;
        static struct ad_manifest_segment segment = {.to = 200};
        static struct ad_manifest_part parts[2];
        static struct ad_manifest_source source;
        static struct ad_currency_cell total;
        static const char *const settings[] = {"15m", "10s", "30d", "24", "768", "100000", "table"};

        memset(price.sha256, 1, 32);
        memset(segment.sha256, 1, 32);
        command = (struct ad_manifest_command){.offset = 3, .bytes = s("foo")};
        parts[0] = (struct ad_manifest_part){
                .to = 120, .archived_to = 200, .segments = 1, .listed = &segment};
        parts[1] = (struct ad_manifest_part){.from = 5, .to = 5, .archived_to = 5};
        memset(parts[0].chain, 1, 32);
        memset(parts[1].chain, 1, 32);
        total = (struct ad_currency_cell){
                .currency = s("EUR"),
                .billed = {.impressions = 7,
                           .clicks = 6,
                           .conversions = 5,
                           .spend = (df_nanos)(~(unsigned __int128)0 >> 1),
                           .payout = -12,
                           .invalid = {1, 2, UINT64_MAX}}};
        *m = (struct ad_manifest){
                .account = {s("default"), s("acme")},
                .period = s("2026-04"),
                .zone = s("Europe/Berlin"),
                .zone_version = s("2026a"),
                .from_quarter = 1774994400 / 900,
                .to_quarter = 1777586400 / 900,
                .at_ms = 1777601400250,
                .asked_by = s("close-1"),
                .run = s("00112233aabbccdd"),
                .chain = s("ffeeddcc00112233"),
                .version = s("0.9.1"),
                .groupings = 1,
                .price_version = 2,
                .prices = &price,
                .price_count = 1,
                .corrections_to = 9,
                .commands = &command,
                .command_count = 1,
                .sources = &source,
                .source_count = 1,
                .rows = 2,
                .totals = &total,
                .total_count = 1,
        };
        source = (struct ad_manifest_source){
                .topic = s("events"), .generation = 0xab, .parts = parts, .part_count = 2};
        memset(m->corrections, 1, 32);
        memset(m->rows_sha256, 1, 32);
        for (int i = 0; i < AD_MANIFEST_SETTINGS; i++)
                m->settings[i] = s(settings[i]);
}

static void test_its_bytes_are_the_documented_ones(void **state)
{
        struct df_buf b = {0};
        struct ad_manifest m;

        (void)state;
        fill_golden(&m);
        ok(ad_manifest_write(&m, &b, &err));
        df_put_u8(&b, 0);
        assert_string_equal((const char *)b.data, golden);
        df_buf_release(&b);
}

/* ---- there and back ---- */

static struct df_bytes roll_text(struct df_arena *a, size_t max)
{
        static const char *const pieces[] = {"a", "Z",  "7",    "\"",       "\\",
                                             "/", "\n", "\x01", "\xc3\xa9", " "};
        uint8_t room[80];
        size_t len = 0, want = dice(max + 1);

        while (len < want) {
                const char *p = pieces[dice(10)];

                if (len + strlen(p) > want)
                        p = "x";
                memcpy(room + len, p, strlen(p));
                len += strlen(p);
        }
        return df_arena_copy(a, df_bytes(room, len));
}

static void roll_hash(uint8_t *ret)
{
        for (int i = 0; i < 32; i++)
                ret[i] = (uint8_t)dice(256);
}

static df_nanos roll_nanos(void)
{
        unsigned __int128 v = (unsigned __int128)dice(UINT64_MAX) << 64 | dice(UINT64_MAX);

        return (df_nanos)(v >> dice(128)) * (dice(2) ? 1 : -1);
}

static void roll_source(struct df_arena *a, struct ad_manifest_source *m)
{
        struct ad_manifest_part *parts;

        m->topic = roll_text(a, 64);
        m->generation = dice(UINT64_MAX);
        m->part_count = 1 + (uint32_t)dice(4);
        m->parts = parts = df_arena_zalloc(a, m->part_count * sizeof(*parts));
        for (uint32_t p = 0; p < m->part_count; p++) {
                struct ad_manifest_segment *l;
                uint64_t at;

                parts[p].from = at = dice(1000);
                parts[p].segments = (uint32_t)dice(5);
                l = df_arena_zalloc(a, 5 * sizeof(*l));
                for (uint32_t i = 0; i < parts[p].segments; i++) {
                        l[i].from = at;
                        l[i].to = at += dice(1u << 30);
                        roll_hash(l[i].sha256);
                }
                parts[p].archived_to = at;
                parts[p].to = parts[p].from + dice(at - parts[p].from + 1);
                parts[p].listed = dice(3) && parts[p].segments ? l : NULL;
                roll_hash(parts[p].chain);
        }
}

static void roll(struct df_arena *a, struct ad_manifest *m)
{
        struct ad_manifest_price *prices = df_arena_zalloc(a, 5 * sizeof(*prices));
        struct ad_manifest_command *commands = df_arena_zalloc(a, 5 * sizeof(*commands));
        struct ad_currency_cell *totals = df_arena_zalloc(a, 5 * sizeof(*totals));
        struct ad_manifest_source *sources = df_arena_zalloc(a, 3 * sizeof(*sources));

        *m = (struct ad_manifest){.account = {roll_text(a, 64), roll_text(a, 64)},
                                  .period = roll_text(a, 7),
                                  .zone = roll_text(a, 64),
                                  .zone_version = roll_text(a, 64),
                                  .from_quarter = dice(4000000),
                                  .to_quarter = dice(4000000),
                                  .at_ms = (int64_t)dice(4000000000000),
                                  .asked_by = roll_text(a, 64),
                                  .run = roll_text(a, 16),
                                  .chain = roll_text(a, 16),
                                  .version = roll_text(a, 64),
                                  .groupings = (uint32_t)dice(9),
                                  .price_version = (uint32_t)dice(9),
                                  .prices = prices,
                                  .price_count = dice(5),
                                  .corrections_to = dice(INT64_MAX),
                                  .commands = commands,
                                  .command_count = dice(5),
                                  .sources = sources,
                                  .source_count = 1 + dice(3),
                                  .rows = dice(UINT64_MAX),
                                  .totals = totals,
                                  .total_count = dice(5)};
        for (int i = 0; i < AD_MANIFEST_SETTINGS; i++)
                m->settings[i] = roll_text(a, 64);
        for (int i = 0; i < 5; i++) {
                prices[i].version = (uint32_t)dice(UINT32_MAX);
                roll_hash(prices[i].sha256);
                commands[i].offset = dice(INT64_MAX);
                commands[i].bytes = df_arena_copy(a, df_bytes(golden, 1 + dice(900)));
                totals[i].currency = roll_text(a, 3);
                totals[i].billed = (struct ad_cell){.impressions = dice(UINT64_MAX),
                                                    .clicks = dice(99),
                                                    .spend = roll_nanos(),
                                                    .payout = roll_nanos(),
                                                    .value = roll_nanos()};
        }
        roll_hash(m->corrections);
        roll_hash(m->rows_sha256);
        for (size_t i = 0; i < m->source_count; i++)
                roll_source(a, &sources[i]);
}

static void compare(const struct ad_manifest *a, const struct ad_manifest *b)
{
        bool same = df_bytes_eq(a->account.tenant_id, b->account.tenant_id) &&
                    df_bytes_eq(a->account.advertiser_id, b->account.advertiser_id) &&
                    df_bytes_eq(a->period, b->period) && df_bytes_eq(a->zone, b->zone) &&
                    a->from_quarter == b->from_quarter && a->to_quarter == b->to_quarter &&
                    a->at_ms == b->at_ms && df_bytes_eq(a->run, b->run) &&
                    a->price_version == b->price_version && a->price_count == b->price_count &&
                    a->corrections_to == b->corrections_to &&
                    a->command_count == b->command_count && a->source_count == b->source_count &&
                    a->rows == b->rows && a->total_count == b->total_count &&
                    memcmp(a->rows_sha256, b->rows_sha256, 32) == 0;

        for (size_t i = 0; same && i < a->source_count; i++) {
                const struct ad_manifest_source *x = &a->sources[i], *y = &b->sources[i];

                same = df_bytes_eq(x->topic, y->topic) && x->generation == y->generation &&
                       x->part_count == y->part_count;
                for (uint32_t p = 0; same && p < x->part_count; p++)
                        same = x->parts[p].to == y->parts[p].to &&
                               x->parts[p].segments == y->parts[p].segments &&
                               !x->parts[p].listed == !y->parts[p].listed &&
                               memcmp(x->parts[p].chain, y->parts[p].chain, 32) == 0;
        }
        for (size_t i = 0; same && i < a->command_count; i++)
                same = df_bytes_eq(a->commands[i].bytes, b->commands[i].bytes);
        for (size_t i = 0; same && i < a->total_count; i++)
                same = a->totals[i].billed.spend == b->totals[i].billed.spend &&
                       df_bytes_eq(a->totals[i].currency, b->totals[i].currency);
        if (!same)
                fail_msg("seed %" PRIu64 ": what was read is not what was written", dice_seed);
}

static void test_written_and_read_it_is_the_same(void **state)
{
        struct df_arena a;

        (void)state;
        df_arena_init(&a, 0);
        for (int i = 0; i < ROUNDS; i++) {
                struct df_buf b = {0}, again = {0};
                struct ad_manifest m, back;

                df_arena_reset(&a);
                roll(&a, &m);
                ok(ad_manifest_write(&m, &b, &err));
                ok(ad_manifest_read(df_buf_bytes(&b), &a, &back, &err));
                compare(&m, &back);
                ok(ad_manifest_write(&back, &again, &err));
                assert_true(df_bytes_eq(df_buf_bytes(&b), df_buf_bytes(&again)));
                df_buf_release(&b);
                df_buf_release(&again);
        }
        df_arena_release(&a);
}

/* ---- what is refused ---- */

static void refused(const char *text, size_t len, const char *part)
{
        struct ad_manifest m;
        struct df_arena a;
        int rc;

        df_arena_init(&a, 0);
        err = (struct df_error){0};
        rc = ad_manifest_read(df_bytes(text, len), &a, &m, &err);
        if (rc == 0 || !strstr(err.text, part))
                fail_msg("%d \"%s\" instead of \"%s\" for %.200s", rc, err.text, part, text);
        df_arena_release(&a);
}

/* golden with one piece replaced. */
static void replaced(const char *old, const char *by, const char *part)
{
        const char *at = strstr(golden, old);
        struct df_buf b = {0};

        assert_non_null(at);
        df_buf_append(&b, golden, (size_t)(at - golden));
        df_buf_append(&b, by, strlen(by));
        df_buf_append(&b, at + strlen(old), strlen(at + strlen(old)) + 1);
        refused((const char *)b.data, b.len - 1, part);
        df_buf_release(&b);
}

static void test_another_form_is_refused(void **state)
{
        (void)state;
        for (size_t len = 0; len < sizeof(golden) - 1; len++)
                refused(golden, len, "");
        replaced("manifest\":1,", "manifest\":2,", "a manifest of version 2");
        replaced("\"period\":\"2026-04\",", "", "\"period\" is missing");
        replaced(",\"totals\"", ", \"totals\"", "canonical");
        replaced("\"totals\":[", "\"more\":1,\"totals\":[", "\"totals\" is missing, out of order");
        replaced("\"invalid_clicks\":2,\"invalid_conversions\":18446744073709551615}",
                 "\"invalid_clicks\":2,\"invalid_conversions\":18446744073709551615,\"x\":1}",
                 "canonical");
        replaced("\"groupings\":1}", "\"groupings\":1,\"x\":1}", "\"prices\" is missing");
        replaced("\"payout_nanos\":\"-12\"", "\"payout_nanos\":\"-012\"", "canonical");
        replaced("\"payout_nanos\":\"-12\"", "\"payout_nanos\":\"-\"",
                 "\"payout_nanos\" is no number");
        replaced("303715884105727", "303715884105728", "\"spend_nanos\" is no number of 128 bits");
        replaced("\"rows\":{\"count\":2", "\"rows\":{\"count\":-2", "\"count\" is out of range");
        replaced("\"sha256\":\"01", "\"sha256\":\"g1", "\"sha256\" is no SHA-256");
        replaced("\"sha256\":\"01", "\"sha256\":\"1", "\"sha256\" is no SHA-256");
        replaced("\"bytes\":\"Zm9v\"", "\"bytes\":\"Zm9\"", "\"bytes\" is not base64");
        replaced("\"from\":\"2026-03-31T22:00:00Z\"", "\"from\":\"2026-03-31T22:00:01Z\"",
                 "\"from\" is no full quarter hour");
        replaced("\"from\":\"2026-03-31T22:00:00Z\"", "\"from\":\"2026-03-31T23:00:00+01:00\"",
                 "canonical");
        replaced("\"generation\":\"00000000000000ab\"", "\"generation\":\"00000000000000AB\"",
                 "canonical");
        replaced("\"segments\":1,", "\"segments\":2,", "\"listed\" is not as long");
        replaced("\"to\":120,", "\"to\":201,", "\"archived_to\" is behind");
        replaced("\"partition\":1,", "\"partition\":0,", "\"partition\" is out of order");
        replaced("\"period\":\"2026-04\"", "\"period\":\"2026-004\"", "\"period\" is too long");
}

static void test_limits(void **state)
{
        struct df_buf big = {0}, b = {0};
        static struct ad_manifest_source sources[AD_MANIFEST_SOURCES_MAX + 1];
        static const char zone[] =
                "Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
        struct ad_manifest_part part = {0};
        struct ad_manifest_command command = {0};
        struct ad_manifest m, back;
        struct df_arena a;

        (void)state;
        df_arena_init(&a, 0);
        fill_golden(&m);
        ok(ad_manifest_write(&m, &b, &err));
        /* The largest that fits: base64 grows by 4 for each 3 bytes. */
        for (size_t n = 3 + (AD_MANIFEST_MAX - b.len) / 4 * 3; big.len < n;)
                df_put_u8(&big, 'c');
        command.bytes = df_buf_bytes(&big);
        m.commands = &command;
        m.command_count = 1;
        df_buf_clear(&b);
        ok(ad_manifest_write(&m, &b, &err));
        assert_in_range(b.len, AD_MANIFEST_MAX - 3, AD_MANIFEST_MAX);
        ok(ad_manifest_read(df_buf_bytes(&b), &a, &m, &err));
        df_buf_append(&b, "    ", 4);
        fails(ad_manifest_read(df_buf_bytes(&b), &a, &m, &err), DF_ELIMIT, "at most");
        fill_golden(&m);
        m.sources = sources;
        for (int i = 0; i <= AD_MANIFEST_SOURCES_MAX; i++)
                sources[i] = (struct ad_manifest_source){
                        .topic = s("t"), .parts = &part, .part_count = 1};
        for (m.source_count = AD_MANIFEST_SOURCES_MAX;
             m.source_count <= AD_MANIFEST_SOURCES_MAX + 1; m.source_count++) {
                df_buf_clear(&b);
                ok(ad_manifest_write(&m, &b, &err));
                if (m.source_count == AD_MANIFEST_SOURCES_MAX)
                        ok(ad_manifest_read(df_buf_bytes(&b), &a, &back, &err));
                else
                        fails(ad_manifest_read(df_buf_bytes(&b), &a, &back, &err), DF_EPARSE,
                              "\"sources\" is not of 1 to 1024");
        }
        fill_golden(&m);
        for (m.zone = s(zone); m.zone.len >= AD_MANIFEST_TEXT_MAX; m.zone.len--) {
                df_buf_clear(&b);
                ok(ad_manifest_write(&m, &b, &err));
                if (m.zone.len == AD_MANIFEST_TEXT_MAX)
                        ok(ad_manifest_read(df_buf_bytes(&b), &a, &back, &err));
                else
                        fails(ad_manifest_read(df_buf_bytes(&b), &a, &back, &err), DF_EPARSE,
                              "\"zone\" is too long");
        }
        fill_golden(&m);
        df_put_u8(&big, 'c');
        command.bytes = df_buf_bytes(&big);
        m.commands = &command;
        fails(ad_manifest_write(&m, &b, &err), DF_ELIMIT, "1 corrections of the tenant");
        df_buf_release(&big);
        df_buf_release(&b);
        df_arena_release(&a);
}

/* Whatever byte is changed: the signature is for another text. */
static void test_a_forged_one_has_no_signature(void **state)
{
        struct df_sign_key *k = NULL;
        uint8_t sig[DF_SIGN_SIZE];
        struct df_buf b = {0};

        (void)state;
        ok(df_sign_key_make(&k, &err));
        df_buf_append(&b, golden, sizeof(golden) - 1);
        ok(df_sign(k, AD_MANIFEST_DOMAIN, df_buf_bytes(&b), sig, &err));
        ok(df_sign_verify(df_sign_key_public(k), AD_MANIFEST_DOMAIN, df_buf_bytes(&b), sig, &err));
        fails(df_sign_verify(df_sign_key_public(k), "adtally-period-2", df_buf_bytes(&b), sig,
                             &err),
              DF_ECORRUPT, "");
        for (size_t i = 0; i < b.len; i += 1 + dice(40)) {
                b.data[i] ^= 1;
                fails(df_sign_verify(df_sign_key_public(k), AD_MANIFEST_DOMAIN, df_buf_bytes(&b),
                                     sig, &err),
                      DF_ECORRUPT, "");
                b.data[i] ^= 1;
        }
        df_sign_key_release(k);
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_its_bytes_are_the_documented_ones),
                cmocka_unit_test(test_written_and_read_it_is_the_same),
                cmocka_unit_test(test_another_form_is_refused),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_a_forged_one_has_no_signature),
        };

        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
