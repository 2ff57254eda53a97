#include "jobs/api/books_follow.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/api/books_watch.h"
#include "jobs/common/settings.h"

#define POLL_MS 50
#define COMMIT_MS 100       /* at most so often, unless much waits */
#define COMMIT_IDLE_MS 5000 /* the position alone */
#define PENDING_MAX 20000   /* entries of a commit */
#define READ_RECORDS 64
#define COLLECT_BYTES_MAX (256u << 20)
#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 10000

struct ad_books_follow {
        char dir[PATH_MAX];
        struct df_log *log;
        pthread_t thread;
        bool started;
        atomic_bool stop, suspect;

        pthread_rwlock_t lock; /* of what follows: readers hold it while they use the store */
        struct ad_billing *books;
        bool ready; /* it has come to where the topic ended */
        char why[AD_BOOKS_WHY_MAX];

        /* The thread's own. */
        struct df_log_reader *reader;
        struct df_collector *collector;
        uint64_t position, wanted; /* of the next record; of the topic's end at opening */
        int64_t retry_ms, committed_ms;
        uint32_t failures;
        bool fresh; /* collections were applied since the commit */
        struct df_record records[READ_RECORDS];

        struct adi_books_watch watch;
        atomic_uint_least64_t read, damaged, repeated, rebuilt, lag;
        atomic_bool failed;
};

static void set_state(struct ad_books_follow *f, struct ad_billing *books, bool ready,
                      const char *why)
{
        pthread_rwlock_wrlock(&f->lock);
        f->books = books;
        f->ready = ready;
        if (why)
                (void)snprintf(f->why, sizeof(f->why), "%.*s", AD_BOOKS_WHY_MAX - 1, why);
        pthread_rwlock_unlock(&f->lock);
}

/* ---- opening ---- */

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct df_topic_info *found = arg;

        if (strcmp(info->name, AD_TOPIC_BILLING) == 0)
                *found = *info;
        return 0;
}

static int find_topic(struct ad_books_follow *f, struct df_topic_info *ret, struct df_error *err)
{
        int rc;

        memset(ret, 0, sizeof(*ret));
        rc = df_log_topic_list(f->log, AD_TOPIC_BILLING, on_topic, ret, err);
        if (rc == 0 && ret->partitions == 0)
                return df_fail(err, DF_ENOENT, "there is no topic %s", AD_TOPIC_BILLING);
        if (rc == 0 && ret->partitions != 1)
                return df_fail(err, DF_ESCHEMA, "topic %s has %u partitions, it must have one",
                               AD_TOPIC_BILLING, ret->partitions);
        return rc;
}

static int open_store(struct ad_books_follow *f, struct df_error *err)
{
        struct df_topic_info topic;
        struct ad_billing *books = NULL;
        char why[256];
        int rc = find_topic(f, &topic, err);

        if (rc == 0)
                rc = ad_billing_open(f->dir, topic.generation, &books, why, err);
        if (rc < 0)
                return rc;
        if (*why) {
                atomic_fetch_add(&f->rebuilt, 1);
                df_trace(DF_WARN, "books", "the view of the bill is built anew: %s", why);
        }
        /* A store that is begun says nothing until it holds what there is. */
        set_state(f, books, ad_billing_position(books) > 0,
                  "the view of the bill is being built: ask again in a moment");
        return 0;
}

static int on_source(void *arg, const struct df_source *source, uint64_t k, struct df_error *err)
{
        return df_collector_applied(arg, source, k, err);
}

static int open_reader(struct ad_books_follow *f, struct df_error *err)
{
        uint64_t from = ad_billing_position(f->books), first;
        int rc = df_log_bounds(f->log, AD_TOPIC_BILLING, 0, &first, &f->wanted, err);

        if (rc == 0 && from < first)
                rc = df_fail(err, DF_EOFFSET,
                             "offset %llu is needed and topic %s begins at %llu, although it is "
                             "kept for ever: restore it from a backup",
                             (unsigned long long)from, AD_TOPIC_BILLING, (unsigned long long)first);
        if (rc == 0)
                rc = df_collector_create(COLLECT_BYTES_MAX, &f->collector, err);
        if (rc == 0)
                rc = ad_billing_sources(f->books, on_source, f->collector, err);
        if (rc == 0)
                rc = df_log_reader_open(f->log, AD_TOPIC_BILLING, 0, from, NULL, &f->reader, err);
        f->position = from;
        return rc;
}

static void close_reader(struct ad_books_follow *f)
{
        df_log_reader_close(f->reader);
        df_collector_destroy(f->collector);
        f->reader = NULL;
        f->collector = NULL;
}

static void close_all(struct ad_books_follow *f, const char *why)
{
        struct ad_billing *books = f->books;

        close_reader(f);
        set_state(f, NULL, false, why);
        ad_billing_close(books); /* nobody holds it: readers keep the lock while they use it */
        f->fresh = false;
}

static void wait_longer(struct ad_books_follow *f)
{
        int64_t wait = RETRY_MIN_MS << (f->failures < 5 ? f->failures : 5);

        f->failures++;
        f->retry_ms = df_monotonic_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
        atomic_store(&f->failed, true);
}

/* The store cannot be used; what is damaged is no longer there when it is opened again. */
static void store_failed(struct ad_books_follow *f, const struct df_error *err)
{
        struct df_error own = {0};

        df_trace(DF_ERROR, "books", "view of the bill: code=%s: %s", df_err_code(err->code),
                 err->text);
        close_all(f, err->text);
        if (err->code == DF_ECORRUPT && ad_billing_discard(f->dir, &own) < 0)
                df_trace(DF_ERROR, "books", "view of the bill: %s", own.text);
        atomic_fetch_add(&f->rebuilt, err->code == DF_ECORRUPT);
        wait_longer(f);
}

/* ---- reading ---- */

static int commit(struct ad_books_follow *f, struct df_error *err)
{
        int rc = ad_billing_commit(f->books,
                                   f->reader ? df_collector_floor(f->collector, f->position)
                                             : ad_billing_position(f->books),
                                   err);

        f->committed_ms = df_monotonic_ms();
        if (rc == 0)
                rc = adi_books_watch_look(&f->watch, f->books, df_wall_ms(), err);
        f->fresh = false;
        return rc;
}

/* What was read and not committed is read again. */
static int reader_failed(struct ad_books_follow *f, const struct df_error *why,
                         struct df_error *err)
{
        int rc = f->fresh ? commit(f, err) : 0;

        df_trace(DF_ERROR, "books", "%s/0 code=%s: %s", AD_TOPIC_BILLING, df_err_code(why->code),
                 why->text);
        close_reader(f);
        wait_longer(f);
        return rc;
}

static int take(struct ad_books_follow *f, const struct df_record *r, struct df_error *err)
{
        struct df_collection c;
        enum df_collect what;
        int rc = df_collector_add(f->collector, r, &what, &c, err);

        f->position = r->offset + 1;
        atomic_fetch_add(&f->read, 1);
        if (rc == DF_EPARSE || rc == DF_ELIMIT)
                what = DF_COLLECT_DAMAGED; /* of its collection, too */
        else if (rc < 0)
                return rc;
        if (what == DF_COLLECT_DAMAGED) {
                atomic_fetch_add(&f->damaged, 1);
                df_trace(DF_ERROR, "books",
                         "%s/0 offset=%llu: damaged, or a collection that does not match its seal: "
                         "it was dropped, the bill that is shown lacks it",
                         AD_TOPIC_BILLING, (unsigned long long)r->offset);
                return 0;
        }
        if (what == DF_COLLECT_REPEATED)
                atomic_fetch_add(&f->repeated, 1);
        if (what != DF_COLLECT_COMPLETE)
                return 0;
        rc = ad_billing_add(f->books, &c, err);
        f->fresh |= rc == 0;
        return rc < 0 || ad_billing_pending(f->books) < PENDING_MAX ? rc : commit(f, err);
}

static int read_some(struct ad_books_follow *f, bool *ret_more, struct df_error *err)
{
        struct df_error own = {0};
        uint64_t end;
        size_t n = 0;
        int rc = 0;

        if (df_monotonic_ms() < f->retry_ms)
                return 0;
        if (!f->reader)
                rc = open_reader(f, &own);
        if (rc == 0)
                rc = df_log_poll(f->reader, f->records, READ_RECORDS, &n, &own);
        if (rc < 0)
                return reader_failed(f, &own, err);
        f->failures = 0;
        atomic_store(&f->failed, false);
        *ret_more = n > 0;
        for (size_t i = 0; rc == 0 && i < n; i++)
                rc = take(f, &f->records[i], err);
        if (rc < 0)
                return rc;
        f->position = df_log_position(f->reader);
        if (df_log_seen_end(f->reader, AD_TOPIC_BILLING, 0, &end, &own) == 0)
                atomic_store(&f->lag, end > f->position ? end - f->position : 0);
        return 0;
}

static int step(struct ad_books_follow *f, bool *ret_more, struct df_error *err)
{
        int64_t since;
        int rc = 0;

        if (atomic_exchange(&f->suspect, false))
                return df_fail(err, DF_ECORRUPT, "a question met damaged data");
        rc = read_some(f, ret_more, err);
        since = df_monotonic_ms() - f->committed_ms;
        if (rc == 0 && ((f->fresh && since >= COMMIT_MS) || since >= COMMIT_IDLE_MS))
                rc = commit(f, err);
        if (rc == 0 && !f->ready && f->reader && !f->fresh && f->position >= f->wanted)
                set_state(f, f->books, true, NULL);
        return rc;
}

static void *follow_main(void *arg)
{
        const struct timespec pause = {0, POLL_MS * 1000000L};
        struct ad_books_follow *f = arg;

        while (!atomic_load(&f->stop)) {
                struct df_error err = {0};
                bool more = false;

                if (!f->books && df_monotonic_ms() >= f->retry_ms && open_store(f, &err) < 0) {
                        if (err.code != DF_ENOENT)
                                df_trace(DF_ERROR, "books", "code=%s: %s", df_err_code(err.code),
                                         err.text);
                        set_state(f, NULL, false, err.text);
                        wait_longer(f);
                }
                if (f->books && step(f, &more, &err) < 0)
                        store_failed(f, &err);
                if (!more)
                        (void)nanosleep(&pause, NULL); /* an early end is harmless */
        }
        if (f->books) {
                struct df_error err = {0};

                if (commit(f, &err) < 0)
                        df_trace(DF_WARN, "books", "last commit: %s", err.text);
        }
        return NULL;
}

/* ---- start, stop, asking ---- */

int ad_books_follow_start(const char *data_dir, struct df_log *log, int64_t every_ms,
                          struct ad_books_follow **ret, struct df_error *err)
{
        struct ad_books_follow *f = calloc(1, sizeof(*f));
        pthread_rwlockattr_t a;
        int rc = 0;

        if (!f)
                return df_fail(err, DF_ENOMEM, "follower of the bill");
        f->log = log;
        pthread_rwlockattr_init(&a);
        /* Questions come without end; the thread must get its turn. */
        pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&f->lock, &a);
        pthread_rwlockattr_destroy(&a);
        adi_books_watch_init(&f->watch, every_ms);
        (void)snprintf(f->why, sizeof(f->why), "the view of the bill is being opened");
        if (snprintf(f->dir, sizeof(f->dir), "%s/view-billing", data_dir) >=
            (int)sizeof(f->dir) - 16)
                rc = df_fail(err, DF_EINVAL, "%s: the path is too long", data_dir);
        if (rc == 0 && pthread_create(&f->thread, NULL, follow_main, f) != 0)
                rc = df_fail(err, DF_EAGAIN, "the thread of the follower of the bill");
        f->started = rc == 0;
        if (rc < 0) {
                ad_books_follow_stop(f);
                return rc;
        }
        *ret = f;
        return 0;
}

void ad_books_follow_stop(struct ad_books_follow *f)
{
        if (!f)
                return;
        atomic_store(&f->stop, true);
        if (f->started)
                (void)pthread_join(f->thread, NULL);
        close_all(f, "the server stops");
        adi_books_watch_release(&f->watch);
        pthread_rwlock_destroy(&f->lock);
        free(f);
}

struct ad_billing *ad_books_take(struct ad_books_follow *f, char ret_why[AD_BOOKS_WHY_MAX])
{
        (void)snprintf(ret_why, AD_BOOKS_WHY_MAX, "this server does not follow the bill");
        if (!f)
                return NULL;
        pthread_rwlock_rdlock(&f->lock);
        if (f->books && f->ready)
                return f->books;
        (void)snprintf(ret_why, AD_BOOKS_WHY_MAX, "%s", f->why);
        pthread_rwlock_unlock(&f->lock);
        return NULL;
}

void ad_books_give(struct ad_books_follow *f)
{
        pthread_rwlock_unlock(&f->lock);
}

void ad_books_suspect(struct ad_books_follow *f)
{
        atomic_store(&f->suspect, true);
}

int64_t ad_books_every_ms(const struct ad_books_follow *f)
{
        return f ? f->watch.every_ms : 0;
}

uint64_t ad_books_damaged(const struct ad_books_follow *f)
{
        return f ? atomic_load(&f->damaged) : 0;
}

void ad_books_render(struct ad_books_follow *f, struct df_buf *b)
{
        char why[AD_BOOKS_WHY_MAX];
        bool ready = ad_books_take(f, why) != NULL;

        if (ready)
                ad_books_give(f);
        df_metric(b, "adtally_billing_ready", "", ready);
        df_metric(b, "adtally_billing_failed", "", atomic_load(&f->failed));
        df_metric(b, "adtally_billing_lag_records", "", (double)atomic_load(&f->lag));
        df_metric(b, "adtally_billing_damaged_collections_total", "",
                  (double)atomic_load(&f->damaged));
        df_metric(b, "adtally_billing_repeated_collections_total", "",
                  (double)atomic_load(&f->repeated));
        df_metric(b, "adtally_billing_read_records_total", "", (double)atomic_load(&f->read));
        df_metric(b, "adtally_billing_rebuilt_total", "", (double)atomic_load(&f->rebuilt));
        adi_books_watch_render(&f->watch, df_wall_ms(), b);
}
