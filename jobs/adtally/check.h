/* check.h - numbers by (window, start, campaign, currency): those of a truth file, those served,
 * and how they differ (`adtally check`).
 *
 * A truth file is one JSON document with one row a line (generate_truth.c), so that a file of any
 * size is read line by line.
 */
#ifndef AD_CHECK_H
#define AD_CHECK_H

#include "df/net.h"
#include "jobs/ingest/json.h"
#include "proto/wire.h"

enum ad_check_window { AD_CHECK_MINUTE, AD_CHECK_HOUR, AD_CHECK_DAY, AD_CHECK_WINDOWS };
extern const char *const ad_check_window_names[AD_CHECK_WINDOWS];
extern const int64_t ad_check_window_ms[AD_CHECK_WINDOWS];

enum { AD_CHECK_MEASURES = 6 };
extern const char *const ad_check_measures[AD_CHECK_MEASURES]; /* as in JSON */

struct ad_check_row {
        int64_t start_ms;
        char campaign[AD_ID_MAX + 1], currency[4];
        bool final; /* served rows */
        int64_t v[AD_CHECK_MEASURES];
};
struct ad_check_rows {
        struct ad_check_row *list;
        size_t count, cap;
};
int ad_check_rows_add(struct ad_check_rows *r, const struct ad_check_row *row,
                      struct df_error *err);
void ad_check_rows_sort(struct ad_check_rows *r);
void ad_check_rows_release(struct ad_check_rows *r);
/* Of one JSON object: the fields above; others are skipped. */
bool ad_check_row_read(const struct ad_json_node *n, uint32_t at, struct ad_check_row *ret);

struct ad_truth {
        struct ad_check_rows windows[AD_CHECK_WINDOWS]; /* sorted */
        bool exact;
        int64_t from_ms, to_ms; /* whole minutes around every accepted event */
        int64_t accepted, counted, duplicate, conflict, late, rejected, resent;
};
/* DF_EPARSE names the line. */
int ad_truth_read(const char *path, struct ad_truth *ret, struct df_error *err);
void ad_truth_release(struct ad_truth *t);

/* All served rows of a kind of window that meet [from, to), sorted. */
int ad_check_fetch(struct df_http_client *http, struct ad_json_parser *parser,
                   enum ad_check_window w, int64_t from_ms, int64_t to_ms,
                   struct ad_check_rows *ret, struct df_error *err);

#endif
