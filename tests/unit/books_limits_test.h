/* books_limits_test.h - the view of the bill written by hand, and a server over it that is asked
 * until it answers. */
#ifndef ADTALLY_TESTS_BOOKS_LIMITS_TEST_H
#define ADTALLY_TESTS_BOOKS_LIMITS_TEST_H

#include "books_api_test.h"

#define PERIOD "2026-10"

static struct ad_billing *view;
static struct df_buf payload;
static uint64_t batches, seq;

/* ---- the books ---- */

static inline void open_books(void)
{
        open_log();
        view = open_billing();
        batches = seq = 0;
}

static inline void commit(void)
{
        struct df_bytes payloads[1] = {df_buf_bytes(&payload)};
        struct df_source source = {.stream = "runs", .generation = 7};
        struct df_collection c = {
                .origin = {.source = source, .k = ++batches}, .payloads = payloads, .count = 1};

        ok(ad_billing_add(view, &c, err));
        ok(ad_billing_commit(view, 0, err));
        df_buf_clear(&payload);
}

/* ---- the server ---- */

static inline void start_api(void)
{
        ad_billing_close(view);
        serve_books(NULL, 60000);
}

static inline void end(void)
{
        end_books();
        df_buf_release(&payload);
}

/* The view is opened by a thread: asked again until it is there. ret ends with a zero byte. */
static inline int fetch(const char *path, struct df_buf *ret)
{
        int got = 503;

        for (int i = 0; i < 400 && got == 503; i++) {
                if (i > 0)
                        (void)usleep(25000);
                df_buf_clear(ret);
                ok(df_http_fetch(client, path, NULL, df_bytes(NULL, 0), &got, ret, err));
        }
        df_put_u8(ret, 0);
        return got;
}

static inline void says(const char *path, int status, const char *part)
{
        struct df_buf b = {0};
        int got = fetch(path, &b);

        if (got != status || !strstr((char *)b.data, part))
                fail_msg("%s: %d, wanted %d %s: %.300s", path, got, status, part, b.data);
        df_buf_release(&b);
}

#endif
