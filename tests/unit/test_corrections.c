/* test_corrections.c - from the topic `commands` to the corrections of a run (jobs/common/
 * corrections.h): random commands against a naive list, prefix by prefix; and what is refused. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/sim.h"
#include "jobs/common/corrections.h"

#define COMMANDS 120

struct made { /* a command of the topic, and what becomes of it */
        enum ad_command_kind kind;
        char tenant[8], id[8], of[8]; /* of: what a cancel names */
        bool counts, cancelled;       /* as far as the model has come */
};
static struct made made[COMMANDS];

static void encode(struct df_buf *b, const struct made *m, size_t at)
{
        struct ad_command c = {.id = df_bytes_str(m->id),
                               .tenant_id = df_bytes_str(m->tenant),
                               .kind = m->kind,
                               .at_ms = (int64_t)at};

        if (m->kind == AD_COMMAND_CORRECTION)
                c.correction = (struct ad_correction){.scope = {.campaign_id = df_bytes_str(m->id)},
                                                      .action = AD_CORRECT_REPRICE,
                                                      .price_nanos = 1000 + (int64_t)at};
        if (m->kind == AD_COMMAND_CANCEL)
                c.cancel = df_bytes_str(m->of);
        df_buf_clear(b);
        ad_wire_command(b, &c);
        assert_false(b->failed);
}

static void write_topic(struct df_log *log, struct df_sim_random *x)
{
        static const enum ad_command_kind kinds[] = {AD_COMMAND_CORRECTION, AD_COMMAND_CORRECTION,
                                                     AD_COMMAND_CANCEL, AD_COMMAND_RUN,
                                                     AD_COMMAND_CLOSE};
        struct df_log_writer *w = NULL;
        struct df_error err = {0};
        struct df_buf b = {0};

        assert_int_equal(df_log_topic_create(log, "commands", 1, &err), 0);
        assert_int_equal(df_log_writer_open(log, "commands", &w, &err), 0);
        for (size_t i = 0; i < COMMANDS; i++) {
                struct df_append a = {0};

                made[i] = (struct made){.kind = kinds[df_sim_random_below(x, 5)]};
                (void)snprintf(made[i].tenant, 8, "t%d", (int)df_sim_random_below(x, 2));
                (void)snprintf(made[i].id, 8, "%d", (int)df_sim_random_below(x, 90));
                (void)snprintf(made[i].of, 8, "%d", (int)df_sim_random_below(x, 90));
                if (i > 0 && df_sim_random_chance(x, 500)) /* one that is there */
                        memcpy(made[i].of, made[df_sim_random_below(x, i)].id, 8);
                encode(&b, &made[i], i);
                a.value = df_buf_bytes(&b);
                assert_int_equal(df_log_append(w, &a, 1, &err), 0);
        }
        df_log_writer_close(w);
        df_buf_release(&b);
}

/* Command i comes to the model. True: it changes which corrections there are. */
static bool model_adds(size_t i)
{
        struct made *m = &made[i];

        for (size_t j = 0; j < i; j++)
                if (strcmp(made[j].id, m->id) == 0 && strcmp(made[j].tenant, m->tenant) == 0)
                        return false; /* the id is used */
        m->counts = m->kind == AD_COMMAND_CORRECTION;
        for (size_t j = 0; m->kind == AD_COMMAND_CANCEL && j < i; j++) {
                struct made *of = &made[j];

                if (!of->counts || of->cancelled || strcmp(of->id, m->of) != 0 ||
                    strcmp(of->tenant, m->tenant) != 0)
                        continue;
                of->cancelled = true;
                return true;
        }
        return m->counts;
}

struct look {
        size_t next, found;
        struct ad_correction_log *copy;
};

static int look_at(void *arg, uint64_t offset, struct df_bytes command, struct df_error *err)
{
        struct look *l = arg;
        struct df_buf b = {0};

        for (; l->next < offset; l->next++)
                assert_false(made[l->next].counts && !made[l->next].cancelled);
        l->next = offset + 1;
        l->found++;
        assert_true(made[offset].counts && !made[offset].cancelled);
        encode(&b, &made[offset], offset);
        assert_true(df_bytes_eq(command, df_buf_bytes(&b)));
        df_buf_release(&b);
        return ad_correction_log_add(l->copy, offset, command, err);
}

/* The last one that counts for a campaign says its price. */
static void check_set(const struct ad_corrections *set, size_t to)
{
        for (size_t i = 0; i < to; i++) {
                struct ad_event ev = {.tenant_id = df_bytes_str(made[i].tenant)};
                const struct ad_corrections_tenant *t = ad_corrections_tenant(set, ev.tenant_id);
                struct ad_effect e = {0};
                int64_t price = 0;

                ev.dims[AD_DIM_CAMPAIGN] = df_bytes_str(made[i].id);
                for (size_t j = 0; j < to; j++)
                        if (made[j].counts && !made[j].cancelled &&
                            strcmp(made[j].id, made[i].id) == 0 &&
                            strcmp(made[j].tenant, made[i].tenant) == 0)
                                price = 1000 + (int64_t)j;
                if (t && ad_corrections_find(set, t, &ev, &e))
                        assert_int_equal(e.price->price_nanos, price);
                else
                        assert_int_equal(price, 0);
        }
}

static void check_prefix(struct df_log *log, size_t to, uint64_t moved, uint64_t *digest,
                         uint64_t seed)
{
        struct ad_correction_log *l = NULL;
        struct df_error err = {0};
        struct look look = {0};

        if (ad_correction_log_read(log, to, &l, &err) < 0)
                fail_msg("seed %llu, to %zu: %s", (unsigned long long)seed, to, err.text);
        assert_int_equal(ad_correction_log_to(l), moved);
        if (moved == to && to > 0)
                assert_int_not_equal(ad_correction_log_digest(l), *digest);
        else
                assert_int_equal(ad_correction_log_digest(l), *digest);
        *digest = ad_correction_log_digest(l);
        assert_int_equal(ad_correction_log_create(&look.copy, &err), 0);
        assert_int_equal(ad_correction_log_each(l, look_at, &look, &err), 0);
        assert_int_equal(ad_correction_log_finish(look.copy, &err), 0);
        for (; look.next < to; look.next++)
                assert_false(made[look.next].counts && !made[look.next].cancelled);
        assert_int_equal(ad_corrections_count(ad_correction_log_set(l)), look.found);
        check_set(ad_correction_log_set(l), to);
        check_set(ad_correction_log_set(look.copy), to);
        ad_correction_log_destroy(look.copy);
        ad_correction_log_destroy(l);
}

static void test_every_prefix(void **state)
{
        size_t cancelled = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= 8; seed++) {
                struct df_sim *sim = df_sim_create(seed);
                struct df_log *log = df_sim_log_open(sim, 0);
                uint64_t digest = 0, moved = 0;
                struct df_sim_random x;

                df_sim_random_init(&x, seed);
                check_prefix(log, 0, 0, &digest, seed); /* there is no topic */
                write_topic(log, &x);
                for (size_t to = 0; to <= COMMANDS; to++) {
                        if (to > 0 && model_adds(to - 1))
                                moved = to;
                        check_prefix(log, to, moved, &digest, seed);
                }
                for (size_t i = 0; i < COMMANDS; i++)
                        cancelled += made[i].cancelled;
                df_log_close(log);
                df_sim_destroy(sim);
        }
        if (cancelled < 20)
                fail_msg("only %zu corrections were cancelled", cancelled);
}

static int add(const struct ad_command *c, struct df_bytes bytes, char *ret_text, size_t size)
{
        struct ad_correction_log *l = NULL;
        struct df_error err = {0};
        struct df_buf b = {0};
        int rc;

        if (c) {
                ad_wire_command(&b, c);
                bytes = df_buf_bytes(&b);
        }
        assert_int_equal(ad_correction_log_create(&l, &err), 0);
        rc = ad_correction_log_add(l, 4711, bytes, &err);
        (void)snprintf(ret_text, size, "%s", err.text);
        ad_correction_log_destroy(l);
        df_buf_release(&b);
        return rc;
}

static void test_refused(void **state)
{
        struct ad_command c = {.id = df_bytes_str("x"),
                               .tenant_id = df_bytes_str("t1"),
                               .kind = AD_COMMAND_CORRECTION,
                               .correction = {.action = AD_CORRECT_REPRICE, .price_nanos = -5}};
        char text[DF_ERROR_TEXT_MAX];

        (void)state;
        assert_int_equal(add(&c, df_bytes_str(""), text, sizeof(text)), DF_EINVAL);
        assert_non_null(strstr(text, "offset 4711"));
        assert_non_null(strstr(text, "-5"));
        c.correction.action = AD_CORRECT_NONE;
        assert_int_equal(add(&c, df_bytes_str(""), text, sizeof(text)), DF_ESCHEMA);
        assert_non_null(strstr(text, "later version"));
        c.kind = AD_COMMAND_NONE;
        assert_int_equal(add(&c, df_bytes_str(""), text, sizeof(text)), DF_ESCHEMA);
        assert_int_equal(add(NULL, df_bytes_str("\xff\xff"), text, sizeof(text)), DF_EPARSE);
        assert_non_null(strstr(text, "offset 4711"));
}

static void test_the_topic_is_whole(void **state)
{
        struct df_sim *sim = df_sim_create(3);
        struct df_log *log = df_sim_log_open(sim, 0);
        struct ad_correction_log *l = NULL;
        struct df_error err = {0};
        struct df_sim_random x;

        (void)state;
        assert_int_equal(ad_correction_log_read(log, 1, &l, &err), DF_ENOENT); /* no topic */
        df_sim_random_init(&x, 3);
        write_topic(log, &x);
        assert_int_equal(ad_correction_log_read(log, COMMANDS + 1, &l, &err), DF_EOFFSET);
        assert_non_null(strstr(err.text, "ends at offset 120"));
        df_sim_log_trim(sim, "commands", 0, 7);
        assert_int_equal(ad_correction_log_read(log, AD_CORRECTIONS_ALL, &l, &err), DF_EOFFSET);
        assert_non_null(strstr(err.text, "begins at offset 7"));
        df_log_close(log);
        df_sim_destroy(sim);
        sim = df_sim_create(3);
        log = df_sim_log_open(sim, 0);
        assert_int_equal(df_log_topic_create(log, "commands", 2, &err), 0);
        assert_int_equal(ad_correction_log_read(log, AD_CORRECTIONS_ALL, &l, &err), DF_ESCHEMA);
        df_log_close(log);
        df_sim_destroy(sim);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_prefix),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_the_topic_is_whole),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
