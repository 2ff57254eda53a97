/* test_period_limits.c - lists of periods, corrections and adjustments at their documented limits
 * and one beyond (docs/API.md): 1,000 accounts, whatever they are known by, rows of a page, and
 * 1,000,000 adjustments looked at for an answer (in the slow suite). The counts are of what the
 * test wrote. */
#include "books_limits_test.h"

#define ACCOUNTS 1000 /* as docs/API.md says, as the next one */
#define ADJUSTMENTS 1000000
#define A_BATCH 20000 /* entries of one commit */

/* ---- the books ---- */

static void put_posting(const char *tenant, const char *advertiser, bool adjusts)
{
        struct ad_cause_cell one = {.cause = AD_CAUSE_NONE, .billed = {.clicks = 1}};
        struct ad_books_entry e = {
                .kind = AD_BOOKS_POSTING,
                .posting = {.seq = ++seq,
                            .run = df_bytes_str("00000000000000aa"),
                            .at_ms = 1000,
                            .target = {.quarter = (uint64_t)(df_wall_ms() / AD_QUARTER_MS),
                                       .tenant_id = df_bytes_str(tenant),
                                       .advertiser_id = df_bytes_str(advertiser),
                                       .campaign_id = df_bytes_str("c1"),
                                       .currency = df_bytes_str("EUR"),
                                       .causes = &one,
                                       .cause_count = 1}},
        };

        if (adjusts) {
                e.posting.posted_period = df_bytes_str(PERIOD);
                e.posting.delta = &one;
                e.posting.delta_count = 1;
        }
        ad_wire_books_entry(&payload, &e);
}

/* A close that was refused is all there is of its account. */
static void put_close(const char *tenant, const char *advertiser)
{
        struct ad_books_entry e = {
                .kind = AD_BOOKS_CLOSED,
                .closed = {.refused = true,
                           .why = df_bytes_str("run_not_last"),
                           .open_period = df_bytes_str(PERIOD),
                           .close = {.account = {df_bytes_str(tenant), df_bytes_str(advertiser)},
                                     .asked_by = df_bytes_str(advertiser),
                                     .period = df_bytes_str(PERIOD),
                                     .at_ms = 1000}},
        };

        ad_wire_books_entry(&payload, &e);
}

/* ---- tests ---- */

/* Accounts are known by cells, by closes, or some by this and some by that. */
static void test_accounts(void **state)
{
        char name[16];

        open_books();
        for (int i = 0; i <= ACCOUNTS; i++) {
                (void)snprintf(name, sizeof(name), "a%04d", i);
                if (i < ACCOUNTS) {
                        put_posting("full", name, false);
                        put_close("full-closes", name);
                }
                put_posting("cells", name, false);
                put_close("closes", name);
                if (i % 2)
                        put_posting("both", name, false);
                else
                        put_close("both", name);
        }
        commit();
        start_api();
        says("/v1/periods?tenant=full", 200, "\"advertiser_id\":\"a0999\"");
        says("/v1/periods?tenant=full-closes", 200, "\"advertiser_id\":\"a0999\"");
        says("/v1/periods?tenant=cells", 400, "too_many_accounts");
        says("/v1/periods?tenant=both", 400, "too_many_accounts");
        says("/v1/periods?tenant=closes", 400, "too_many_accounts");
        says("/v1/periods?tenant=cells&advertiser_id=a1000", 200, "\"advertiser_id\":\"a1000\"");
        says("/v1/periods?tenant=closes&advertiser_id=a1000", 200, "\"state\":\"refused\"");
        end();
}

static void test_page_sizes(void **state)
{
        open_books();
        start_api();
        says("/v1/corrections?limit=1000", 200, "\"corrections\":[]");
        says("/v1/corrections?limit=1001", 400, "bad_number");
        says("/v1/corrections?limit=0", 400, "bad_number");
        says("/v1/adjustments?limit=10000", 200, "\"adjustments\":[]");
        says("/v1/adjustments?limit=10001", 400, "bad_number");
        says("/v1/adjustments?limit=0", 400, "bad_number");
        end();
}

static void test_adjustments(void **state)
{
        open_books();
        for (int i = 0; i <= ADJUSTMENTS; i++) {
                put_posting("default", "a1", true);
                if (i % A_BATCH == 0)
                        commit();
        }
        commit();
        start_api();
        says("/v1/adjustments?limit=1", 400, "range_too_large");
        says("/v1/adjustments?limit=1&after=1", 200, "\"seq\":2,");
        end();
}

int main(int argc, char **argv)
{
        const struct CMUnitTest quick[] = {cmocka_unit_test(test_accounts),
                                           cmocka_unit_test(test_page_sizes)};
        const struct CMUnitTest slow[] = {cmocka_unit_test(test_adjustments)};

        if (argc > 1 && strcmp(argv[1], "long") == 0)
                return cmocka_run_group_tests(slow, NULL, NULL);
        return cmocka_run_group_tests(quick, NULL, NULL);
}
