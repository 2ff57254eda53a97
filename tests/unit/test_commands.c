/* The topic `commands` over a real file log: one writer, ids that count once, limits, restarts. */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/run.h"
#include "jobs/api/commands.h"
#include "jobs/common/settings.h"
#include "state_test.h"

static char dir[256];
static struct df_log *log_;
static struct ad_api_commands *commands;

struct outcome {
        pthread_mutex_t lock;
        bool done;
        enum ad_asked what;
        uint64_t offset;
        int code;
};

static void on_asked(void *arg, enum ad_asked what, const struct ad_asked_for *entry,
                     const struct df_error *error)
{
        struct outcome *o = arg;

        pthread_mutex_lock(&o->lock);
        o->done = true;
        o->what = what;
        o->offset = entry ? entry->offset : UINT64_MAX;
        o->code = error ? error->code : 0;
        pthread_mutex_unlock(&o->lock);
}

static bool is_done(struct outcome *o)
{
        bool done;

        pthread_mutex_lock(&o->lock);
        done = o->done;
        pthread_mutex_unlock(&o->lock);
        return done;
}

static void wait_for(struct outcome *o)
{
        for (int i = 0; i < 10000 && !is_done(o); i++)
                (void)usleep(1000);
        assert_true(is_done(o));
}

static struct ad_command run_request(const char *id, const char *tenant)
{
        return (struct ad_command){.id = df_bytes_str(id),
                                   .tenant_id = df_bytes_str(tenant),
                                   .requested_by = df_bytes_str("ann"),
                                   .kind = AD_COMMAND_RUN};
}

static void ask(struct outcome *o, const struct ad_command *c)
{
        memset(o, 0, sizeof(*o));
        pthread_mutex_init(&o->lock, NULL);
        assert_true(ad_api_commands_put(commands, c, on_asked, o));
}

static enum ad_asked asked(const struct ad_command *c, uint64_t *ret_offset)
{
        struct outcome o;

        ask(&o, c);
        wait_for(&o);
        *ret_offset = o.offset;
        return o.what;
}

static void open_all(size_t count_max, size_t bytes_max)
{
        struct df_filelog_options o = {
                .segment_bytes = 1 << 20, .reserve_bytes = 4096, .min_free_bytes = 1};
        struct ad_api_commands_options c = {.count_max = count_max, .bytes_max = bytes_max};

        ok(df_filelog_open(dir, &o, &log_, err));
        ok(ad_create_topics(log_, 2, err));
        c.log = log_;
        ok(ad_api_commands_start(&c, &commands, err));
}

static void close_all(void)
{
        ad_api_commands_stop(commands);
        df_log_close(log_);
}

static int setup(void **state)
{
        (void)temp_dir(dir);
        open_all(0, 0);
        return 0;
}

static int teardown(void **state)
{
        close_all();
        remove_dir(dir);
        return 0;
}

/* New, repeated, with other content; the same after a restart. */
static void test_ids_count_once(void **state)
{
        struct ad_command a = run_request("a", "t1"), b = run_request("b", "t1"), other = a;
        uint64_t first, again;

        other.reason = df_bytes_str("why");
        assert_int_equal(asked(&a, &first), AD_ASKED_NEW);
        assert_int_equal(asked(&b, &again), AD_ASKED_NEW);
        assert_true(again > first);
        for (int round = 0; round < 2; round++) {
                assert_int_equal(asked(&a, &again), AD_ASKED_BEFORE);
                assert_int_equal(again, first);
                assert_int_equal(asked(&other, &again), AD_ASKED_OTHER);
                assert_int_equal(again, first);
                a.tenant_id = df_bytes_str("t2"); /* ids are a tenant's own */
                assert_int_equal(asked(&a, &again), round ? AD_ASKED_BEFORE : AD_ASKED_NEW);
                assert_true(again > first);
                a.tenant_id = df_bytes_str("t1");
                close_all();
                open_all(0, 0);
        }
        assert_int_equal(asked(&a, &again), AD_ASKED_BEFORE);
        assert_null(ad_api_commands_find(commands, df_bytes_str("t1"), df_bytes_str("c")));
}

/* All at once, every id three times, one of them with other content: each id is one record. */
static void test_at_once(void **state)
{
        enum { IDS = 30, COPIES = 3 };
        static struct outcome o[IDS][COPIES];
        char id[16];

        for (int c = 0; c < COPIES; c++)
                for (int i = 0; i < IDS; i++) {
                        struct ad_command r;

                        (void)snprintf(id, sizeof(id), "n%d", i);
                        r = run_request(id, "t1");
                        r.reason = df_bytes_str(c == 2 ? "other" : "");
                        ask(&o[i][c], &r);
                }
        for (int i = 0; i < IDS; i++) {
                int found[4] = {0};

                for (int c = 0; c < COPIES; c++) {
                        wait_for(&o[i][c]);
                        found[o[i][c].what]++;
                        assert_int_equal(o[i][c].offset, o[i][0].offset);
                }
                assert_int_equal(found[AD_ASKED_NEW], 1);
                assert_int_equal(found[AD_ASKED_BEFORE], 1);
                assert_int_equal(found[AD_ASKED_OTHER], 1);
        }
}

/* A second writer (as on Kafka) and damage: the first record of an id counts, the rest goes on. */
static void test_what_others_wrote(void **state)
{
        struct ad_command a = run_request("a", "t1"), b = run_request("b", "t1");
        struct df_buf first = {0}, second = {0}, metrics = {0};
        struct df_append items[4] = {0};
        struct df_log_writer *w;
        uint64_t offset;

        close_all();
        {
                struct df_filelog_options o = {
                        .segment_bytes = 1 << 20, .reserve_bytes = 4096, .min_free_bytes = 1};

                ok(df_filelog_open(dir, &o, &log_, err));
                ok(df_log_writer_open(log_, "commands", &w, err));
                ad_wire_command(&first, &a);
                a.reason = df_bytes_str("later");
                ad_wire_command(&second, &a);
                items[0].value = df_buf_bytes(&first);
                items[1].value = df_buf_bytes(&second);
                items[2].value = df_bytes("\xff\xff\xff", 3);
                ok(df_log_append(w, items, 3, err));
                df_log_writer_close(w);
                df_log_close(log_);
        }
        open_all(0, 0);
        assert_int_equal(asked(&a, &offset), AD_ASKED_OTHER);
        a.reason = df_bytes(NULL, 0);
        assert_int_equal(asked(&a, &offset), AD_ASKED_BEFORE);
        assert_int_equal(offset, 0);
        assert_int_equal(asked(&b, &offset), AD_ASKED_NEW);
        assert_int_equal(offset, 3);
        ad_api_commands_render(commands, &metrics);
        df_put_u8(&metrics, 0);
        assert_non_null(strstr((char *)metrics.data, "adtally_commands 2\n"));
        assert_non_null(strstr((char *)metrics.data, "adtally_commands_ignored 1\n"));
        assert_non_null(strstr((char *)metrics.data, "adtally_commands_damaged 1\n"));
        df_buf_release(&first);
        df_buf_release(&second);
        df_buf_release(&metrics);
}

static bool count_ids(void *arg, const struct ad_asked_for *e)
{
        struct df_buf *b = arg;

        df_buf_append(b, e->command.id.data, e->command.id.len);
        return b->len < 4;
}

/* A correction keeps its event ids; a cancellation is of its own tenant, and the first counts. */
static void test_corrections(void **state)
{
        struct df_bytes ids[3] = {df_bytes_str("e1"), df_bytes_str("e2"), df_bytes_str("e3")};
        struct ad_command c = run_request("c", "t1"), x = run_request("x", "t2"), y, z;
        const struct ad_asked_for *e;
        struct df_buf list = {0};
        uint64_t offset;

        c.kind = AD_COMMAND_CORRECTION;
        c.correction.action = AD_CORRECT_VOID;
        c.correction.scope.event_ids = ids;
        c.correction.scope.event_id_count = 3;
        x.kind = AD_COMMAND_CANCEL;
        x.cancel = df_bytes_str("c");
        y = z = x;
        y.id = df_bytes_str("y");
        z.id = df_bytes_str("z");
        y.tenant_id = z.tenant_id = df_bytes_str("t1");
        assert_int_equal(asked(&c, &offset), AD_ASKED_NEW);
        e = ad_api_commands_find(commands, df_bytes_str("t1"), df_bytes_str("c"));
        assert_int_equal(e->command.correction.scope.event_id_count, 3);
        assert_true(df_bytes_eq(e->command.correction.scope.event_ids[2], ids[2]));
        assert_int_equal(asked(&x, &offset), AD_ASKED_NEW);
        assert_null(atomic_load(&e->cancelled));
        assert_int_equal(asked(&y, &offset), AD_ASKED_NEW);
        assert_int_equal(asked(&z, &offset), AD_ASKED_NEW);
        assert_true(df_bytes_eq(atomic_load(&e->cancelled)->command.id, df_bytes_str("y")));
        ad_api_commands_list(commands, UINT64_MAX, count_ids, &list);
        assert_true(df_bytes_eq(df_buf_bytes(&list), df_bytes_str("zyxc")));
        df_buf_clear(&list);
        ad_api_commands_list(commands, offset, count_ids, &list);
        assert_true(df_bytes_eq(df_buf_bytes(&list), df_bytes_str("yxc")));
        df_buf_release(&list);
}

/* One beyond each limit; what is there is still answered. */
static void test_limits(void **state)
{
        struct ad_command c;
        uint64_t offset;
        char id[16];

        close_all();
        open_all(5, 0);
        for (int i = 0; i < 6; i++) {
                (void)snprintf(id, sizeof(id), "n%d", i);
                c = run_request(id, "t1");
                assert_int_equal(asked(&c, &offset), i < 5 ? AD_ASKED_NEW : AD_ASKED_FULL);
        }
        c = run_request("n3", "t1");
        assert_int_equal(asked(&c, &offset), AD_ASKED_BEFORE);
        close_all();
        open_all(0, 1);
        c = run_request("n9", "t1");
        assert_int_equal(asked(&c, &offset), AD_ASKED_FULL);
}

/* On the module's thread, which takes nothing meanwhile: so many wait, and no more. */
static void fill_queue(void *arg, enum ad_asked what, const struct ad_asked_for *entry,
                       const struct df_error *error)
{
        static struct outcome rest[AD_COMMANDS_WAITING_MAX];
        struct ad_command c = run_request("again", "t1");

        for (int i = 0; i < AD_COMMANDS_WAITING_MAX; i++)
                ask(&rest[i], &c);
        assert_false(ad_api_commands_put(commands, &c, on_asked, &rest[0]));
        on_asked(arg, what, entry, error);
}

static void test_waiting_max(void **state)
{
        struct ad_command c = run_request("first", "t1");
        struct outcome o = {.lock = PTHREAD_MUTEX_INITIALIZER};

        assert_true(ad_api_commands_put(commands, &c, fill_queue, &o));
        wait_for(&o);
        assert_int_equal(o.what, AD_ASKED_NEW);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_ids_count_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_what_others_wrote, setup, teardown),
                cmocka_unit_test_setup_teardown(test_corrections, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_waiting_max, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
