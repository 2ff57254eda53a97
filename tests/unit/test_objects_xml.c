/* The reader of S3's XML: what it takes, what it refuses, and that no cut or flipped byte does more
 * than fail. */
#include "objects_test.h"

struct seen {
        char text[1024]; /* "path=text;" in order of the ends */
        int stop_at;     /* the n-th end returns 4711 */
        int count;
};

static int on_end(void *arg, const char *path, struct df_bytes text, struct df_error *e)
{
        struct seen *s = arg;
        size_t used = strlen(s->text);

        (void)snprintf(s->text + used, sizeof(s->text) - used, "%s=%.*s;", path, (int)text.len,
                       text.data ? (const char *)text.data : "");
        return ++s->count == s->stop_at ? 4711 : 0;
}

static int read_xml(const char *xml, size_t len, struct seen *s)
{
        struct dfi_xml_handler h = {.end = on_end, .arg = s};
        char *exact = malloc(len ? len : 1); /* so that the sanitizer sees a byte too many */
        int rc;

        memcpy(exact, xml, len);
        rc = dfi_xml_read(df_bytes(exact, len), &h, &err);
        free(exact);
        return rc;
}

static void test_good(void **state)
{
        static const struct {
                const char *xml, *want;
        } cases[] = {
                {"<a/>", "a=;"},
                {"<a></a>", "a=;"},
                {"<a>x</a>", "a=x;"},
                {"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a><b>1</b><b>2</b></a>\n",
                 "a/b=1;a/b=2;a=;"},
                {"<a xmlns=\"http://x/?a>b\" c='\"'><b k = \"v\" /></a>", NULL},
                {"<a xmlns=\"http://x/?a>b\" c='\"'><b k=\"v\" /></a>", "a/b=;a=;"},
                {"<a>x<b>y</b>z</a>", "a/b=y;a=xz;"},
                {"<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x42;&#xe4;&#x20ac;&#x1F600;</a>",
                 "a=<>&\"'AB\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80;"},
                {"<a><b><c>1</c></b><d>2</d></a >", "a/b/c=1;a/b=;a/d=2;a=;"},
                {"\xef\xbb\xbf<a/>", "a=;"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct seen s = {0};
                size_t len = strlen(cases[i].xml);

                if (!cases[i].want) {
                        fails(read_xml(cases[i].xml, len, &s), DF_ECORRUPT, "without a value");
                        continue;
                }
                ok(read_xml(cases[i].xml, len, &s));
                assert_string_equal(s.text, cases[i].want);
        }
}

static void test_bad(void **state)
{
        static const char *const cases[] = {
                "",
                "   ",
                "x",
                "<",
                "<a",
                "<a>",
                "<a>x",
                "</a>",
                "<a></b>",
                "<a><b></a></b>",
                "<a></a><b/>",
                "<a/>x",
                "<a>&x;</a>",
                "<a>&amp</a>",
                "<a>&</a>",
                "<a>&#0;</a>",
                "<a>&#xd800;</a>",
                "<a>&#x110000;</a>",
                "<a>&#;</a>",
                "<a>&#x;</a>",
                "<a>&#12a;</a>",
                "<!DOCTYPE a []><a/>",
                "<a><![CDATA[x]]></a>",
                "<a><!-- x --></a>",
                "<a><?x?></a>",
                "<a b></a>",
                "<a b=c></a>",
                "<a b=\"c></a>",
                "<a b=\"<\"/>",
                "< a/>",
                "<a/ >",
                "<?xml <a/>",
                "<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/>",
                "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></"
                "a></a>"
                "</a></a></a></a></a></a></a></a>",
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct seen s = {0};
                int rc = read_xml(cases[i], strlen(cases[i]), &s);

                if (rc != DF_ECORRUPT)
                        fail_msg("%s: %d \"%s\"", cases[i], rc, s.text);
        }
        {
                struct seen s = {0};

                fails(read_xml("<a>x\0y</a>", 10, &s), DF_ECORRUPT, "a NUL");
        }
}

/* The limits themselves: 16 deep, names of 64. */
static void test_limits(void **state)
{
        char xml[8192] = "", name[DFI_XML_NAME_MAX + 1];
        struct seen s = {.stop_at = 0};

        memset(name, 'n', DFI_XML_NAME_MAX);
        name[DFI_XML_NAME_MAX] = '\0';
        for (int i = 0; i < DFI_XML_DEPTH_MAX; i++)
                (void)snprintf(xml + strlen(xml), sizeof(xml) - strlen(xml), "<%s>", name);
        for (int i = 0; i < DFI_XML_DEPTH_MAX; i++)
                (void)snprintf(xml + strlen(xml), sizeof(xml) - strlen(xml), "</%s>", name);
        ok(read_xml(xml, strlen(xml), &s));
        assert_int_equal(s.count, DFI_XML_DEPTH_MAX);
        s = (struct seen){.stop_at = 2};
        assert_int_equal(read_xml("<a><b/><c/></a>", 15, &s), 4711);
        assert_string_equal(s.text, "a/b=;a/c=;");
}

static void test_damaged(void **state)
{
        static const char whole[] =
                "<?xml version=\"1.0\"?><R xmlns=\"u\"><C><K>a&amp;b</K><S>12</S></C><T>t</T></R>";
        size_t len = strlen(whole);

        for (size_t n = 0; n < len; n++) {
                struct seen s = {0};

                assert_int_equal(read_xml(whole, n, &s), DF_ECORRUPT);
        }
        for (int i = 0; i < 20000; i++) {
                struct seen s = {0};
                char bytes[sizeof(whole)];
                int rc;

                memcpy(bytes, whole, sizeof(whole));
                for (uint64_t n = 1 + dice(3); n > 0; n--)
                        bytes[dice(len)] = (char)dice(256);
                rc = read_xml(bytes, len, &s);
                if (rc != 0 && rc != DF_ECORRUPT)
                        fail_msg("seed %" PRIu64 ": %d %s", dice_seed, rc, err.text);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_damaged),
        };

        roll_seed();
        return cmocka_run_group_tests_name("objects_xml", tests, NULL, NULL);
}
