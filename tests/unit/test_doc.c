/* The strict JSON reader of commands: what it gives, and what it refuses. */
#include "unit.h"

#include "jobs/common/doc.h"

static struct df_error error, *const err = &error;
static struct df_arena arena;

static int parse(const char *json, struct ad_doc *d)
{
        return ad_doc_parse(df_bytes_str(json), 20, &arena, d, err);
}

static void text_is(const struct ad_doc_node *n, enum ad_doc_kind kind, const char *text)
{
        assert_non_null(n);
        assert_int_equal(n->kind, kind);
        assert_true(df_bytes_eq(n->text, df_bytes_str(text)));
}

static void test_values(void **state)
{
        const struct ad_doc_node *n;
        struct ad_doc d;

        df_arena_init(&arena, 0);
        assert_int_equal(
                parse("{\"a\": [1.50, {\"b\": \"x\\u00e9\\n\"}, []], \"c\": true, \"d\": {},"
                      " \"e\": null, \"\": -0}",
                      &d),
                0);
        assert_null(ad_doc_member(&d, d.nodes, "b")); /* not of this object */
        n = ad_doc_member(&d, d.nodes, "a");
        text_is(ad_doc_first(&d, n), AD_DOC_NUMBER, "1.50");
        n = ad_doc_after(&d, n, ad_doc_first(&d, n));
        text_is(ad_doc_member(&d, n, "b"), AD_DOC_TEXT, "x\xc3\xa9\n");
        n = ad_doc_after(&d, ad_doc_member(&d, d.nodes, "a"), n);
        assert_int_equal(n->kind, AD_DOC_ARRAY);
        assert_null(ad_doc_first(&d, n));
        assert_null(ad_doc_after(&d, ad_doc_member(&d, d.nodes, "a"), n));
        assert_true(ad_doc_member(&d, d.nodes, "c")->yes);
        assert_null(ad_doc_first(&d, ad_doc_member(&d, d.nodes, "d")));
        assert_int_equal(ad_doc_member(&d, d.nodes, "e")->kind, AD_DOC_NULL);
        text_is(ad_doc_member(&d, d.nodes, ""), AD_DOC_NUMBER, "-0");
        df_arena_release(&arena);
}

static void test_refusals(void **state)
{
        static const char *const bad[] = {"",
                                          " ",
                                          "{",
                                          "[1,]",
                                          "{\"a\":1,\"a\":2}",
                                          "{} {}",
                                          "{\"a\":1}x",
                                          "\"\\u0000\"",
                                          "{\"\\u0000\":1}",
                                          "01",
                                          "+1",
                                          "nan",
                                          "{a:1}",
                                          "\"\xff\"",
                                          "\"\xed\xa0\x80\"",
                                          "/* */ 1",
                                          "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]"};
        struct ad_doc d;

        df_arena_init(&arena, 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                if (parse(bad[i], &d) != DF_EPARSE)
                        fail_msg("taken: %s", bad[i]);
        assert_int_equal(parse("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", &d), 0); /* 16 levels */
        assert_int_equal(parse("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]", &d), 0);
        assert_int_equal(parse("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]", &d),
                         DF_ELIMIT);
        assert_non_null(strstr(error.text, "more than 20 values"));
        df_arena_release(&arena);
}

/* Every prefix of a document, and the document itself, in memory of exactly its size. */
static void test_truncated(void **state)
{
        static const char json[] = "{\"a\": [1.5e3, {\"b\": \"x\\u00e9\"}], \"c\": false}";
        struct ad_doc d;

        for (size_t len = 0; len < sizeof(json); len++) {
                char *copy = test_malloc(len ? len : 1);

                memcpy(copy, json, len);
                df_arena_init(&arena, 0);
                assert_int_equal(ad_doc_parse(df_bytes(copy, len), 20, &arena, &d, err),
                                 len == sizeof(json) - 1 ? 0 : DF_EPARSE);
                df_arena_release(&arena);
                test_free(copy);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_truncated),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
