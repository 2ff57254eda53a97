/* test_correct_limits.c - what a set of corrections refuses, and the bounds of a scope
 * (correct.h). */
#include "unit.h"

#include <stdlib.h>

#include "operators/correct.h"
#include "proto/limits.h"

static void check_refused(const struct ad_correction *c, int code, const char *text)
{
        struct ad_correction_item item = {.tenant_id = df_bytes_str("t"), .correction = *c};
        struct ad_corrections *set = NULL;
        struct df_error err = {0};

        assert_int_equal(ad_corrections_create(&item, 1, &set, &err), code);
        assert_non_null(strstr(err.text, text));
        assert_null(set);
}

static void test_limits_and_bounds(void **state)
{
        static const char long_name[AD_ID_MAX + 2] =
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        struct ad_correction c = {.action = AD_CORRECT_REMAP,
                                  .campaign_id = df_bytes_str(long_name)};
        struct ad_corrections *set = NULL;
        struct df_error err = {0};
        struct df_bytes *many = calloc(AD_CORRECTION_IDS_MAX + 1, sizeof(*many));

        (void)state;
        check_refused(&c, DF_EINVAL, "at most 64 bytes");
        check_refused(&(struct ad_correction){.action = AD_CORRECT_NONE}, DF_EINVAL,
                      "is not known");
        check_refused(&(struct ad_correction){.action = AD_CORRECT_COUNT}, DF_EINVAL,
                      "is not known");
        check_refused(&(struct ad_correction){.action = AD_CORRECT_REPRICE, .price_nanos = -1},
                      DF_EINVAL, "price");
        check_refused(&(struct ad_correction){.action = AD_CORRECT_REPRICE,
                                              .price_nanos = AD_MONEY_MICROS_MAX * 1000 + 1000},
                      DF_EINVAL, "price");
        check_refused(&(struct ad_correction){.action = AD_CORRECT_REPRICE,
                                              .currency = df_bytes_str("EURO")},
                      DF_EINVAL, "three letters");
        assert_non_null(many);
        c = (struct ad_correction){
                .action = AD_CORRECT_VOID,
                .scope = {.event_ids = many, .event_id_count = AD_CORRECTION_IDS_MAX + 1}};
        check_refused(&c, DF_ELIMIT, "1000001 event ids");
        /* A scope that names more than any event can bear applies to nothing. */
        c = (struct ad_correction){.action = AD_CORRECT_VOID,
                                   .scope = {.campaign_id = df_bytes_str(long_name)}};
        assert_int_equal(ad_corrections_create(&(struct ad_correction_item){df_bytes_str("t1"), c},
                                               1, &set, &err),
                         0);
        assert_false(ad_corrections_find(set, ad_corrections_tenant(set, df_bytes_str("t1")),
                                         &(struct ad_event){.tenant_id = df_bytes_str("t1")},
                                         &(struct ad_effect){0}));
        ad_corrections_destroy(set);
        c.scope = (struct ad_scope){.from_ms = 1000, .to_ms = 2000};
        assert_int_equal(ad_corrections_create(&(struct ad_correction_item){df_bytes_str("t1"), c},
                                               1, &set, &err),
                         0);
        for (int64_t ms = 998; ms < 2003; ms++)
                assert_int_equal(
                        ad_corrections_find(
                                set, ad_corrections_tenant(set, df_bytes_str("t1")),
                                &(struct ad_event){.tenant_id = df_bytes_str("t1"), .event_ms = ms},
                                &(struct ad_effect){0}),
                        ms >= 1000 && ms < 2000);
        ad_corrections_destroy(set);
        assert_int_equal(ad_corrections_create(NULL, 0, &set, &err), 0);
        assert_null(ad_corrections_tenant(set, df_bytes_str("t1")));
        ad_corrections_destroy(set);
        free(many);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_limits_and_bounds),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
