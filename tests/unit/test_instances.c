/* Several realtime processes of one data directory, as `status` and the admin endpoint read them
 * (K11). */
#include "unit.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "jobs/adtally/command.h"

#define OF(p) "{stream=\"events\",partition=\"" p "\"} "
#define TASK(p, running, epoch)                                                                    \
        "adtally_task_running" OF(p) running "\nadtally_task_epoch" OF(p) epoch "\n"

struct place {
        char dir[64];
};

static void begin(struct place *p)
{
        char run[80];

        (void)snprintf(p->dir, sizeof(p->dir), "/tmp/adtally-instances-XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        (void)snprintf(run, sizeof(run), "%s/run", p->dir);
        assert_int_equal(df_mkdirs(run, NULL), 0);
}

static void end(const struct place *p)
{
        assert_int_equal(df_remove_tree(p->dir, NULL), 0);
}

/* age_ms: since the process last wrote; the process is this one. */
static void put(const struct place *p, const char *file, int64_t age_ms, const char *lines)
{
        struct df_buf b = {0};
        char path[PATH_MAX];

        (void)snprintf(path, sizeof(path), "%s/run/%s", p->dir, file);
        df_buf_printf(&b, "# adtally realtime pid=%d started_ms=1 written_ms=%lld\n%s",
                      (int)getpid(), (long long)(df_wall_ms() - age_ms), lines);
        assert_int_equal(df_write_file(path, df_buf_bytes(&b), false, NULL), 0);
        df_buf_release(&b);
}

/* The instances whose word on the partition counts, and the value, as "main=1 r2=0 ". */
static void expect(const struct ad_samples *s, const char *metric, const char *partition,
                   const char *want)
{
        char got[256] = "", name[16];

        for (size_t i = 0; i < s->count; i++) {
                const struct ad_sample *m = &s->list[i];

                if (strcmp(m->name, metric) == 0 &&
                    ad_sample_label(m, "partition", name, sizeof(name)) &&
                    strcmp(name, partition) == 0 && ad_sample_counts(s, m))
                        (void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s=%.0f ",
                                       m->instance, m->value);
        }
        assert_string_equal(got, want);
}

static void test_one_stays_as_it_was(void **state)
{
        struct ad_samples s;
        struct df_buf b = {0};
        struct place p;

        (void)state;
        begin(&p);
        put(&p, "realtime.prom", 0, TASK("0", "1", "7"));
        assert_int_equal(ad_samples_read(p.dir, &s, NULL), 0);
        ad_samples_render(&s, &b);
        df_put_u8(&b, 0);
        assert_null(strstr((const char *)b.data, "instance="));
        assert_non_null(
                strstr((const char *)b.data, "adtally_task_running{job=\"realtime\",stream="));
        df_buf_release(&b);
        ad_samples_release(&s);
        end(&p);
}

static void test_whose_word_counts(void **state)
{
        struct ad_samples s;
        struct df_buf b = {0};
        struct place p;

        (void)state;
        begin(&p);
        put(&p, "realtime.prom", 0,
            TASK("0", "1", "7") TASK("1", "1", "3") TASK("2", "0", "9") TASK("3", "0", "1"));
        put(&p, "realtime-r2.prom", 0,
            TASK("1", "1", "4") TASK("2", "1", "5") "adtally_partition_refused{stream=\"events\","
                                                    "partition=\"0\",code=\"io\"} 1\n"
                                                    "adtally_partition_refused{stream=\"events\","
                                                    "partition=\"3\",code=\"io\"} 1\n");
        put(&p, "realtime-gone.prom", 60000, TASK("0", "1", "99"));
        put(&p, "realtime-.prom", 0, TASK("0", "1", "99"));   /* no instance's */
        put(&p, "realtime-R2.prom", 0, TASK("0", "1", "99")); /* nor this */
        assert_int_equal(ad_samples_read(p.dir, &s, NULL), 0);
        assert_int_equal(s.job_count, 3);
        assert_string_equal(s.jobs[0].instance, "main");
        assert_string_equal(s.jobs[1].instance, "gone");
        expect(&s, "adtally_task_running", "0", "main=1 ");
        expect(&s, "adtally_task_running", "1", "r2=1 "); /* taken over later */
        expect(&s, "adtally_task_running", "2", "r2=1 "); /* the other does not run it */
        expect(&s, "adtally_partition_refused", "0", "");
        expect(&s, "adtally_partition_refused", "3", "r2=1 ");
        ad_samples_render(&s, &b);
        df_put_u8(&b, 0);
        assert_non_null(
                strstr((const char *)b.data, "{job=\"realtime\",instance=\"main\",stream="));
        assert_non_null(strstr((const char *)b.data, "{job=\"realtime\",instance=\"r2\",stream="));
        assert_null(strstr((const char *)b.data, "gone"));
        df_buf_release(&b);
        ad_samples_release(&s);
        end(&p);
}

/* The last words of all, when nobody lives: what was refused still is. */
static void test_none_alive(void **state)
{
        struct ad_samples s;
        struct place p;

        (void)state;
        begin(&p);
        put(&p, "realtime.prom", 60000, TASK("0", "1", "7"));
        put(&p, "realtime-r2.prom", 60000, TASK("1", "1", "7"));
        assert_int_equal(ad_samples_read(p.dir, &s, NULL), 0);
        assert_false(ad_job_any_alive(&s, "realtime", df_wall_ms()));
        expect(&s, "adtally_task_running", "1", "r2=1 ");
        ad_samples_release(&s);
        end(&p);
}

static void test_too_many(void **state)
{
        struct ad_samples s;
        struct df_error err = {0};
        struct place p;

        (void)state;
        begin(&p);
        for (int i = 0; i <= AD_INSTANCES_MAX; i++) {
                char file[32];

                (void)snprintf(file, sizeof(file), "realtime-i%d.prom", i);
                put(&p, file, 0, "");
        }
        assert_int_equal(ad_samples_read(p.dir, &s, &err), DF_ELIMIT);
        assert_non_null(strstr(err.text, "more than 32 realtime processes"));
        end(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_stays_as_it_was),
                cmocka_unit_test(test_whose_word_counts),
                cmocka_unit_test(test_none_alive),
                cmocka_unit_test(test_too_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
