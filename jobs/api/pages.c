#include "jobs/api/pages.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/random.h>

#define ID_BYTES 16
#define ID_TEXT (2 * ID_BYTES)

struct ad_page {
        TAILQ_ENTRY(ad_page) link; /* while kept: the least recently used first */
        struct ad_result *result;
        uint8_t id[ID_BYTES];
        size_t bytes;
        int64_t used_ms;
        uint32_t holders;
        bool kept;
};

struct ad_pages {
        pthread_mutex_t lock;
        TAILQ_HEAD(page_list, ad_page) list;
        size_t results_max, bytes_max;
        int64_t keep_ms;
        struct ad_pages_stats stats;
};

int ad_pages_create(size_t results_max, size_t bytes_max, int64_t keep_ms, struct ad_pages **ret,
                    struct df_error *err)
{
        struct ad_pages *p = calloc(1, sizeof(*p));

        if (!p)
                return df_fail(err, DF_ENOMEM, "pages of answers");
        pthread_mutex_init(&p->lock, NULL);
        TAILQ_INIT(&p->list);
        p->results_max = results_max ? results_max : AD_PAGES_MAX;
        p->bytes_max = bytes_max ? bytes_max : AD_PAGES_BYTES_MAX;
        p->keep_ms = keep_ms ? keep_ms : AD_PAGES_KEEP_MS;
        *ret = p;
        return 0;
}

static void page_free(struct ad_page *page)
{
        ad_result_destroy(page->result);
        free(page);
}

/* Under the lock. */
static void let_go(struct ad_pages *p, struct ad_page *page)
{
        TAILQ_REMOVE(&p->list, page, link);
        page->kept = false;
        p->stats.results--;
        p->stats.bytes -= page->bytes;
        if (page->holders == 0)
                page_free(page);
}

static void expire(struct ad_pages *p, int64_t now_ms)
{
        struct ad_page *first;

        while ((first = TAILQ_FIRST(&p->list)) && now_ms - first->used_ms >= p->keep_ms) {
                p->stats.expired++;
                let_go(p, first);
        }
}

int ad_pages_put(struct ad_pages *p, struct ad_result *r, int64_t now_ms, struct ad_page **ret,
                 struct df_error *err)
{
        struct ad_page *page = calloc(1, sizeof(*page)), *first;

        if (!page) {
                ad_result_destroy(r);
                return df_fail(err, DF_ENOMEM, "pages of an answer");
        }
        page->result = r;
        page->bytes = sizeof(*r) + r->arena.used;
        page->used_ms = now_ms;
        page->holders = 1;
        page->kept = true;
        if (getrandom(page->id, sizeof(page->id), 0) != (ssize_t)sizeof(page->id)) {
                page_free(page);
                return df_fail_errno(err, DF_EIO, "a random id for a cursor");
        }
        pthread_mutex_lock(&p->lock);
        expire(p, now_ms);
        while ((first = TAILQ_FIRST(&p->list)) && (p->stats.results >= p->results_max ||
                                                   p->stats.bytes + page->bytes > p->bytes_max)) {
                p->stats.evicted++;
                let_go(p, first);
        }
        TAILQ_INSERT_TAIL(&p->list, page, link);
        p->stats.results++;
        p->stats.bytes += page->bytes;
        pthread_mutex_unlock(&p->lock);
        *ret = page;
        return 0;
}

static int digit(uint8_t c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse(struct df_bytes t, uint8_t id[ID_BYTES], size_t *ret_first)
{
        size_t first = 0;

        if (t.len < ID_TEXT + 2 || t.len > ID_TEXT + 8 || t.data[ID_TEXT] != '.')
                return false;
        for (size_t i = 0; i < ID_BYTES; i++) {
                int hi = digit(t.data[2 * i]), lo = digit(t.data[2 * i + 1]);

                if (hi < 0 || lo < 0)
                        return false;
                id[i] = (uint8_t)(hi << 4 | lo);
        }
        for (size_t i = ID_TEXT + 1; i < t.len; i++) {
                if (t.data[i] < '0' || t.data[i] > '9')
                        return false;
                first = first * 10 + (size_t)(t.data[i] - '0');
        }
        *ret_first = first;
        return true;
}

/* A page that is there, and now held. Under the lock. */
static struct ad_page *find(struct ad_pages *p, const uint8_t id[ID_BYTES], struct df_bytes tenant,
                            int64_t now_ms)
{
        struct ad_page *page;

        TAILQ_FOREACH(page, &p->list, link)
        {
                if (memcmp(page->id, id, ID_BYTES) != 0 ||
                    !df_bytes_eq(page->result->tenant_id, tenant))
                        continue;
                page->used_ms = now_ms;
                page->holders++;
                TAILQ_REMOVE(&p->list, page, link);
                TAILQ_INSERT_TAIL(&p->list, page, link);
                return page;
        }
        return NULL;
}

int ad_pages_take(struct ad_pages *p, struct df_bytes cursor, struct df_bytes tenant,
                  int64_t now_ms, struct ad_page **ret, size_t *ret_first, struct ad_fault *f)
{
        static const char bad[] = "not a cursor: take next_cursor of an answer as it is";
        struct ad_page *page;
        uint8_t id[ID_BYTES];
        size_t first;

        if (!parse(cursor, id, &first))
                return ad_fault_set(f, 400, "bad_cursor", "cursor", bad);
        pthread_mutex_lock(&p->lock);
        expire(p, now_ms);
        page = find(p, id, tenant, now_ms);
        pthread_mutex_unlock(&p->lock);
        if (!page)
                return ad_fault_set(f, 410, "cursor_expired", "cursor",
                                    "this answer is no longer kept (%d minutes after its last "
                                    "page, or less under load): ask again without the cursor",
                                    AD_PAGES_KEEP_MS / 60000);
        if (first >= page->result->row_count) {
                ad_pages_give(p, page);
                return ad_fault_set(f, 400, "bad_cursor", "cursor", bad);
        }
        *ret = page;
        *ret_first = first;
        return 0;
}

void ad_pages_give(struct ad_pages *p, struct ad_page *page)
{
        bool last;

        pthread_mutex_lock(&p->lock);
        last = --page->holders == 0 && !page->kept;
        pthread_mutex_unlock(&p->lock);
        if (last)
                page_free(page);
}

const struct ad_result *ad_page_result(const struct ad_page *page)
{
        return page->result;
}

void ad_page_cursor(const struct ad_page *page, size_t first, char ret[AD_CURSOR_MAX])
{
        for (size_t i = 0; i < ID_BYTES; i++)
                (void)snprintf(ret + 2 * i, AD_CURSOR_MAX - 2 * i, "%02x", page->id[i]);
        (void)snprintf(ret + ID_TEXT, AD_CURSOR_MAX - ID_TEXT, ".%zu", first);
}

void ad_pages_stats(struct ad_pages *p, struct ad_pages_stats *ret)
{
        pthread_mutex_lock(&p->lock);
        *ret = p->stats;
        pthread_mutex_unlock(&p->lock);
}

void ad_pages_destroy(struct ad_pages *p)
{
        if (!p)
                return;
        while (!TAILQ_EMPTY(&p->list)) {
                df_check(TAILQ_FIRST(&p->list)->holders == 0);
                let_go(p, TAILQ_FIRST(&p->list));
        }
        pthread_mutex_destroy(&p->lock);
        free(p);
}
