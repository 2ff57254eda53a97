/* Limits of the api's answers about runs, at each and one beyond: runs of a list, the file that
 * tells what the job does, questions that wait. The counts are of what the test wrote. */
#include "books_limits_test.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#include "jobs/api/progress.h"

#define LISTED 50 /* as docs/API.md says */

/* ---- runs of a list ---- */

static void put_run(int number)
{
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};
        char id[AD_RUN_ID_MAX + 1];

        (void)snprintf(id, sizeof(id), "%016d", number);
        e.applied.begin.run = df_bytes_str(id);
        e.applied.begin.at_ms = 1000 + number;
        ad_wire_books_entry(&payload, &e);
}

/* Takes the runs of a page off `left`, the newest first; returns next_before, 0: null. */
static unsigned long long page(unsigned long long before, int *left, int most)
{
        char path[64], want[32];
        struct df_buf b = {0};
        const char *at, *next;
        int count = 0;

        (void)snprintf(path, sizeof(path), before ? "/v1/reconcile?before=%llu" : "/v1/reconcile",
                       before);
        assert_int_equal(fetch(path, &b), 200);
        at = (const char *)b.data;
        while ((at = strstr(at, "{\"run\":"))) {
                (void)snprintf(want, sizeof(want), "{\"run\":\"%016d\"", (*left)--);
                assert_memory_equal(at, want, strlen(want));
                count++;
                at++;
        }
        assert_true(count <= most);
        next = strstr((const char *)b.data, "\"next_before\":");
        assert_non_null(next);
        before = strtoull(next + strlen("\"next_before\":"), NULL, 10);
        assert_true(before || strncmp(next + strlen("\"next_before\":"), "null", 4) == 0);
        df_buf_release(&b);
        return before;
}

static void test_runs_of_a_list(void **state)
{
        for (int runs = LISTED - 1; runs <= LISTED + 1; runs++) {
                unsigned long long next;
                int left = runs;

                open_books();
                for (int i = 1; i <= runs; i++)
                        put_run(i);
                commit();
                start_api();
                next = page(0, &left, LISTED);
                assert_int_equal(left, runs > LISTED ? 1 : 0);
                assert_int_equal(next != 0, runs > LISTED);
                if (next)
                        assert_int_equal(page(next, &left, LISTED), 0);
                assert_int_equal(left, 0);
                says("/v1/reconcile?before=0", 400, "bad_number");
                end();
        }
}

/* ---- what the job does ---- */

static void write_progress(const struct df_buf *b)
{
        char path[300];

        (void)snprintf(path, sizeof(path), "%s/run", dir);
        ok(df_mkdirs(path, err));
        (void)snprintf(path, sizeof(path), "%s/run/reconcile.json", dir);
        ok(df_write_file(path, df_buf_bytes(b), false, err));
}

/* A file of so many bytes, whose JSON has so many values. */
static void make_progress(size_t bytes, size_t values)
{
        struct df_buf b = {0};

        df_buf_printf(&b, "{\"state\":\"comparing\",\"run\":\"00000000000000aa\",\"closes\":[1");
        for (size_t i = 5; i < values; i++)
                df_buf_printf(&b, ",1");
        df_buf_printf(&b, "]");
        while (b.len + 1 < bytes)
                df_put_u8(&b, ' ');
        df_buf_printf(&b, "}");
        assert_true(bytes == 0 || b.len == bytes);
        write_progress(&b);
        df_buf_release(&b);
}

static void test_progress(void **state)
{
        static const char told[] =
                "\"progress\":{\"step\":\"comparing\",\"run\":\"00000000000000aa\"";

        struct df_buf b = {0};
        int status = 0;

        open_books();
        commit();
        start_api();
        says("/v1/reconcile", 200, "\"progress\":null"); /* there is no job */
        make_progress(ADI_PROGRESS_BYTES_MAX, 5);
        says("/v1/reconcile", 200, told);
        make_progress(ADI_PROGRESS_BYTES_MAX + 1, 5);
        says("/v1/reconcile", 200, "\"unread\":\"");
        says("/v1/reconcile", 200, "reconcile.json is larger than 4194304 bytes");
        ok(df_http_fetch(client, "/v1/reconcile", "application/json",
                         df_bytes_str("{\"id\":\"k1\"}"), &status, &b, err));
        assert_int_equal(status, 202);
        says("/v1/reconcile/k1", 200, "\"state\":\"waiting\",\"progress\":{\"step\":null,");
        make_progress(0, ADI_PROGRESS_VALUES_MAX);
        says("/v1/reconcile", 200, told);
        make_progress(0, ADI_PROGRESS_VALUES_MAX + 1);
        says("/v1/reconcile", 200, "\"unread\":\"run/reconcile.json: ");
        says("/v1/reconcile", 200, "more than 100000 values");
        end();
        df_buf_release(&b);
}

/* ---- questions that wait ---- */

static sem_t held, go;

static void hold(void *arg)
{
        (void)sem_post(&held);
        while (sem_wait(&go) < 0)
                ;
}

static void *ask_for_runs(void *arg)
{
        struct df_http_client *own = arg;
        struct df_buf b = {0};
        struct df_error e = {0};
        int status = 0;

        if (df_http_fetch(own, "/v1/reconcile", NULL, df_bytes(NULL, 0), &status, &b, &e) < 0)
                status = -1;
        df_buf_release(&b);
        return (void *)(intptr_t)status;
}

/* The last that has room waits and is answered; the next is refused at once. */
static void test_questions_that_wait(void **state)
{
        struct df_http_client *other = NULL;
        struct df_buf b = {0};
        pthread_t asker;
        void *status;
        char base[64];
        int got = 0;

        open_books();
        start_api();
        says("/v1/reconcile", 200, "\"runs\":[]");
        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", ad_api_port(api));
        ok(df_http_client_create(base, NULL, 60000, &other, err));
        (void)sem_init(&held, 0, 0);
        (void)sem_init(&go, 0, 0);
        for (int i = 0; i < AD_API_THREADS; i++)
                assert_true(ad_pool_put(api->pool, hold, NULL));
        for (int i = 0; i < AD_API_THREADS; i++)
                while (sem_wait(&held) < 0)
                        ;
        for (int i = 0; i < AD_API_QUEUE_MAX - 1; i++)
                assert_true(ad_pool_put(api->pool, hold, NULL));
        assert_int_equal(pthread_create(&asker, NULL, ask_for_runs, other), 0);
        while (ad_pool_waiting(api->pool) < AD_API_QUEUE_MAX)
                (void)usleep(1000);
        ok(df_http_fetch(client, "/v1/reconcile", NULL, df_bytes(NULL, 0), &got, &b, err));
        df_put_u8(&b, 0);
        assert_int_equal(got, 503);
        assert_non_null(strstr((char *)b.data, "\"code\":\"overloaded\""));
        assert_non_null(strstr((char *)b.data, "128 long questions wait already"));
        for (int i = 0; i < AD_API_THREADS + AD_API_QUEUE_MAX - 1; i++)
                (void)sem_post(&go);
        assert_int_equal(pthread_join(asker, &status), 0);
        assert_int_equal((intptr_t)status, 200);
        says("/v1/reconcile", 200, "\"runs\":[]");
        df_http_client_destroy(other);
        df_buf_release(&b);
        end();
        (void)sem_destroy(&held);
        (void)sem_destroy(&go);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_runs_of_a_list),
                cmocka_unit_test(test_progress),
                cmocka_unit_test(test_questions_that_wait),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
