/* pages.h - answers with more rows than one page, kept until the reader has come through them.
 *
 * The next page must continue the same answer, whatever was counted meanwhile: so the whole result
 * is kept under a random id. A cursor is "<id>.<first row of the page>". Results leave five minutes
 * after they were last asked for, or when room is needed, the least recently used first; then the
 * cursor is expired (410) and the reader asks anew. Thread: any. A page taken stays valid until it
 * is given back, even if its result has left.
 */
#ifndef AD_PAGES_H
#define AD_PAGES_H

#include "jobs/api/query.h"

#define AD_PAGES_MAX 256                /* results kept */
#define AD_PAGES_BYTES_MAX (256u << 20) /* of all results kept */
#define AD_PAGES_KEEP_MS (5 * 60 * 1000)
#define AD_CURSOR_MAX 48 /* bytes of a cursor's text, with the final NUL */

struct ad_pages;
struct ad_page; /* one result, held */

/* 0 takes the limit above. */
int ad_pages_create(size_t results_max, size_t bytes_max, int64_t keep_ms, struct ad_pages **ret,
                    struct df_error *err);
void ad_pages_destroy(struct ad_pages *p); /* after every page was given back; NULL-safe */

/* Keep the result, which is taken also on failure. now_ms: monotonic, like below. */
int ad_pages_put(struct ad_pages *p, struct ad_result *r, int64_t now_ms, struct ad_page **ret,
                 struct df_error *err);
/* The page that a cursor names, or -1 with *fault: 400 bad_cursor, 410 cursor_expired. Only the
 * tenant that asked for a result finds it. */
int ad_pages_take(struct ad_pages *p, struct df_bytes cursor, struct df_bytes tenant,
                  int64_t now_ms, struct ad_page **ret, size_t *ret_first, struct ad_fault *fault);
void ad_pages_give(struct ad_pages *p, struct ad_page *page);

const struct ad_result *ad_page_result(const struct ad_page *page);
void ad_page_cursor(const struct ad_page *page, size_t first, char ret[AD_CURSOR_MAX]);

struct ad_pages_stats {
        uint64_t results, bytes, evicted, expired;
};
void ad_pages_stats(struct ad_pages *p, struct ad_pages_stats *ret);

#endif
