/* test_notice.c - what the leader of a shared run tells those who stand by (R1, K14; share.h): what
 * is read is what was written, whatever is damaged is refused, and whoever would count differently
 * is told why. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/sim.h"
#include "jobs/reconcile/share.h"

static struct df_error error, *const e = &error;

/* A chain as it is told: its id is the one that its pin gives, with an open end (runs.h). */
static void make(struct ad_notice *n, uint64_t seed)
{
        struct df_sim_random x;
        struct ad_replay_pin *open = malloc(sizeof(*open));
        struct ad_replay *r = &n->work;

        df_sim_random_init(&x, seed);
        *n = (struct ad_notice){
                .price_version = (uint32_t)df_sim_random_u64(&x),
                .corrections_to = df_sim_random_u64(&x),
                .work = {.kind = &ad_run_reconcile, .lock_fd = -1},
        };
        (void)snprintf(n->leader, sizeof(n->leader), "r%llu", (unsigned long long)seed);
        (void)snprintf(n->run, sizeof(n->run), "%016llx",
                       (unsigned long long)df_sim_random_u64(&x));
        (void)snprintf(r->pin.topic.name, sizeof(r->pin.topic.name), "%s",
                       seed % 2 ? "events" : "import.7");
        (void)snprintf(r->version, sizeof(r->version), "1.2.%u", (unsigned)seed);
        (void)snprintf(r->log, sizeof(r->log), "kafka adtally.");
        r->pin.topic.generation = df_sim_random_u64(&x);
        r->pin.topic.partitions = 1 + (uint32_t)df_sim_random_below(&x, DF_PARTITIONS_MAX);
        r->config = df_sim_random_u64(&x);
        r->from = strdup("start");
        r->to = strdup("end");
        assert_non_null(open);
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++) {
                struct ad_replay_span *s = &r->pin.span[p];

                s->first = df_sim_random_below(&x, 1000);
                s->from = s->first + df_sim_random_below(&x, 1000);
                s->to = s->from + (df_sim_random_u64(&x) >> 2);
        }
        *open = r->pin;
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++)
                open->span[p].to = UINT64_MAX;
        ad_replay_id(open, r->config, r->version, r->id);
        free(open);
}

static char *text_of(const struct ad_notice *n)
{
        struct df_buf b = {0};

        ad_notice_put(n, &b);
        df_put_u8(&b, 0);
        assert_false(b.failed);
        return (char *)b.data;
}

static void assert_same(const struct ad_notice *a, const struct ad_notice *b, uint64_t seed)
{
        const struct ad_replay *x = &a->work, *y = &b->work;
        bool same = strcmp(a->leader, b->leader) == 0 && strcmp(a->run, b->run) == 0 &&
                    a->price_version == b->price_version &&
                    a->corrections_to == b->corrections_to && strcmp(x->id, y->id) == 0 &&
                    strcmp(x->pin.topic.name, y->pin.topic.name) == 0 &&
                    x->pin.topic.generation == y->pin.topic.generation &&
                    x->pin.topic.partitions == y->pin.topic.partitions && x->config == y->config &&
                    strcmp(x->version, y->version) == 0 && strcmp(x->log, y->log) == 0 && !y->done;

        for (uint32_t p = 0; same && p < x->pin.topic.partitions; p++)
                same = memcmp(&x->pin.span[p], &y->pin.span[p], sizeof(x->pin.span[p])) == 0;
        if (!same)
                fail_msg("seed %llu: another notice was read", (unsigned long long)seed);
}

static void test_what_is_read_is_what_was_written(void **state)
{
        static struct ad_notice told, read;

        (void)state;
        for (uint64_t seed = 1; seed <= 200; seed++) {
                char *text;

                make(&told, seed);
                text = text_of(&told);
                if (ad_notice_parse(text, &read, e) < 0)
                        fail_msg("seed %llu: %s", (unsigned long long)seed, e->text);
                assert_same(&told, &read, seed);
                free(text);
                ad_replay_end(&read.work);
                ad_replay_end(&told.work);
        }
}

/* Cut off anywhere, or with another byte in what the chain's id covers. */
static void test_a_damaged_one_is_refused(void **state)
{
        static const char *const covered[] = {"\nchain ",   "\ntopic ",  "\ngeneration ",
                                              "\nversion ", "\nconfig ", "\npartitions "};
        static struct ad_notice told, read;
        char *text;
        size_t len;

        (void)state;
        make(&told, 11);
        text = text_of(&told);
        len = strlen(text);
        for (size_t cut = 0; cut < len; cut++) {
                char *part = strndup(text, cut);

                if (ad_notice_parse(part, &read, e) != DF_EPARSE)
                        fail_msg("%zu of %zu bytes were taken for all", cut, len);
                ad_replay_end(&read.work);
                free(part);
        }
        for (size_t i = 0; i < sizeof(covered) / sizeof(covered[0]); i++) {
                char *other = strdup(text), *at = strstr(other, covered[i]);

                assert_non_null(at);
                at += strlen(covered[i]);
                *at = *at == '1' ? '2' : '1';
                if (ad_notice_parse(other, &read, e) != DF_EPARSE)
                        fail_msg("another byte behind \"%s\" was not seen", covered[i] + 1);
                ad_replay_end(&read.work);
                free(other);
        }
        free(text);
        ad_replay_end(&told.work);
}

static void refuses(const struct ad_notice *n, const char *version, uint32_t prices,
                    uint64_t config, const char *says)
{
        assert_int_equal(ad_notice_check(n, version, prices, config, e), DF_ESCHEMA);
        assert_non_null(strstr(e->text, says));
        assert_non_null(strstr(e->text, n->leader));
}

/* K14: refused by name, with what to do. */
static void test_who_would_count_differently_is_told_why(void **state)
{
        static struct ad_notice n;

        (void)state;
        make(&n, 5);
        n.price_version = 3;
        assert_int_equal(ad_notice_check(&n, "1.2.5", 3, n.work.config, e), 0);
        refuses(&n, "1.2.6", 3, n.work.config, "install");
        refuses(&n, "1.2.5", 2, n.work.config, "config/prices");
        refuses(&n, "1.2.5", 4, n.work.config, "config/prices");
        refuses(&n, "1.2.5", 3, n.work.config + 1, "adtally config");
        ad_replay_end(&n.work);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_read_is_what_was_written),
                cmocka_unit_test(test_a_damaged_one_is_refused),
                cmocka_unit_test(test_who_would_count_differently_is_told_why),
        };

        return cmocka_run_group_tests_name("notice", tests, NULL, NULL);
}
