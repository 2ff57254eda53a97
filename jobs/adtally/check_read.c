/* check_read.c - rows from a truth file and from GET /metrics (check.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/adtally/check.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000LL
#define HOUR_MS 3600000LL
#define DAY_MS 86400000LL
#define PAGE_ROWS 5000
#define SLICE_MINUTES 60 /* windows of one question: the answer stays well below its limits */
#define SLICE_WINDOWS 500

const char *const ad_check_window_names[AD_CHECK_WINDOWS] = {"minute", "hour", "day"};
const int64_t ad_check_window_ms[AD_CHECK_WINDOWS] = {MINUTE_MS, HOUR_MS, DAY_MS};
const char *const ad_check_measures[AD_CHECK_MEASURES] = {
        "impressions",  "clicks",        "conversions",
        "spend_micros", "payout_micros", "conversion_value_micros",
};

int ad_check_rows_add(struct ad_check_rows *r, const struct ad_check_row *row, struct df_error *err)
{
        if (r->count == r->cap) {
                size_t cap = r->cap ? r->cap * 2 : 256;
                struct ad_check_row *list = realloc(r->list, cap * sizeof(*list));

                if (!list)
                        return df_fail(err, DF_ENOMEM, "%zu rows", cap);
                r->list = list;
                r->cap = cap;
        }
        r->list[r->count++] = *row;
        return 0;
}

static int by_key(const void *x, const void *y)
{
        const struct ad_check_row *a = x, *b = y;
        int c = strcmp(a->campaign, b->campaign);

        if (a->start_ms != b->start_ms)
                return a->start_ms < b->start_ms ? -1 : 1;
        return c ? c : strcmp(a->currency, b->currency);
}

void ad_check_rows_sort(struct ad_check_rows *r)
{
        if (r->count)
                qsort(r->list, r->count, sizeof(*r->list), by_key);
}

void ad_check_rows_release(struct ad_check_rows *r)
{
        free(r->list);
        *r = (struct ad_check_rows){0};
}

static bool is(const struct ad_json_node *n, const char *key)
{
        return df_bytes_eq(n->key, df_bytes_str(key));
}

static bool copy(struct df_bytes from, char *to, size_t size)
{
        if (from.len >= size)
                return false;
        if (from.len)
                memcpy(to, from.data, from.len);
        to[from.len] = '\0';
        return true;
}

bool ad_check_row_read(const struct ad_json_node *n, uint32_t at, struct ad_check_row *ret)
{
        bool ok = n[at].kind == AD_JSON_OBJECT;
        unsigned seen = 0;

        memset(ret, 0, sizeof(*ret));
        for (uint32_t i = at + 1; ok && i < n[at].next; i = n[i].next) {
                if (is(&n[i], "window_start"))
                        ok = ad_time_parse(n[i].text, &ret->start_ms);
                else if (is(&n[i], "campaign_id"))
                        ok = copy(n[i].text, ret->campaign, sizeof(ret->campaign));
                else if (is(&n[i], "currency"))
                        ok = copy(n[i].text, ret->currency, sizeof(ret->currency));
                else if (is(&n[i], "final"))
                        ret->final = n[i].kind == AD_JSON_BOOL && n[i].i;
                for (unsigned m = 0; m < AD_CHECK_MEASURES; m++)
                        if (is(&n[i], ad_check_measures[m]) && n[i].kind == AD_JSON_INT) {
                                ret->v[m] = n[i].i;
                                seen |= 1u << m;
                        }
        }
        return ok && seen == (1u << AD_CHECK_MEASURES) - 1 && ret->currency[0];
}

/* ---- the truth file ---- */

static bool read_head(const struct ad_json_node *n, struct ad_truth *t)
{
        const struct {
                const char *key;
                int64_t *to;
        } numbers[] = {{"accepted", &t->accepted},   {"counted", &t->counted},
                       {"duplicate", &t->duplicate}, {"conflict", &t->conflict},
                       {"late", &t->late},           {"rejected", &t->rejected},
                       {"resent", &t->resent}};
        bool from = false, to = false;
        size_t found = 0;

        if (n[0].kind != AD_JSON_OBJECT || n[0].next < 2 || !is(&n[1], "truth"))
                return false;
        for (uint32_t i = 2; i < n[1].next; i = n[i].next) {
                if (is(&n[i], "exact"))
                        t->exact = n[i].kind == AD_JSON_BOOL && n[i].i;
                if (is(&n[i], "from"))
                        from = ad_time_parse(n[i].text, &t->from_ms);
                if (is(&n[i], "to"))
                        to = ad_time_parse(n[i].text, &t->to_ms);
                for (size_t k = 0; k < sizeof(numbers) / sizeof(numbers[0]); k++)
                        if (is(&n[i], numbers[k].key) && n[i].kind == AD_JSON_INT) {
                                *numbers[k].to = n[i].i;
                                found++;
                        }
        }
        return from && to && found == sizeof(numbers) / sizeof(numbers[0]);
}

/* The window whose rows begin here; AD_CHECK_WINDOWS: another member. */
static bool begins_rows(const char *line, int *ret_window)
{
        char begin[32];

        if (line[0] != '"')
                return false;
        *ret_window = AD_CHECK_WINDOWS;
        for (int w = 0; w < AD_CHECK_WINDOWS; w++) {
                (void)snprintf(begin, sizeof(begin), "\"%s\":[", ad_check_window_names[w]);
                if (strncmp(line, begin, strlen(begin)) == 0)
                        *ret_window = w;
        }
        return true;
}

static int read_line(struct ad_truth *t, struct ad_json_parser *p, char *line, size_t len,
                     unsigned number, int *window, struct df_error *err)
{
        const struct ad_json_node *n;
        struct ad_check_row row;
        const char *why = "";
        size_t nodes;
        bool ok;

        if (begins_rows(line, window) || line[0] != '{')
                return 0;
        if (*window == AD_CHECK_WINDOWS && number > 1)
                return 0; /* rows of another kind: totals */
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == ','))
                len--;
        if (number == 1) /* the head's closing brace stands at the end of the file */
                line[len++] = '}';
        ok = ad_json_parse(p, df_bytes(line, len), &n, &nodes, &why) == AD_JSON_OK;
        if (ok && number == 1)
                ok = read_head(n, t);
        else if (ok)
                ok = ad_check_row_read(n, 0, &row);
        if (!ok)
                return df_fail(err, DF_EPARSE, "line %u is not of a truth file %s", number, why);
        return number == 1 ? 0 : ad_check_rows_add(&t->windows[*window], &row, err);
}

int ad_truth_read(const char *path, struct ad_truth *ret, struct df_error *err)
{
        struct ad_json_parser *p = ad_json_create();
        FILE *f = fopen(path, "re");
        char *line = NULL;
        size_t cap = 0;
        ssize_t len;
        unsigned number = 0;
        int window = AD_CHECK_WINDOWS, rc = 0;

        memset(ret, 0, sizeof(*ret));
        if (!f)
                rc = df_fail_errno(err, DF_ENOENT, "open %s", path);
        else if (!p)
                rc = df_fail(err, DF_ENOMEM, "JSON parser");
        while (rc == 0 && (len = getline(&line, &cap, f)) > 0)
                rc = read_line(ret, p, line, (size_t)len, ++number, &window, err);
        if (rc == 0 && number < 2)
                rc = df_fail(err, DF_EPARSE, "not a truth file");
        if (rc < 0 && f)
                (void)df_wrap(err, "%s", path);
        for (int w = 0; w < AD_CHECK_WINDOWS; w++)
                ad_check_rows_sort(&ret->windows[w]);
        if (f)
                (void)fclose(f);
        free(line);
        ad_json_destroy(p);
        return rc;
}

void ad_truth_release(struct ad_truth *t)
{
        for (int w = 0; w < AD_CHECK_WINDOWS; w++)
                ad_check_rows_release(&t->windows[w]);
}

/* ---- GET /metrics ---- */

static int read_page(struct ad_json_parser *parser, struct df_bytes body, struct ad_check_rows *ret,
                     struct df_buf *cursor, struct df_error *err)
{
        const struct ad_json_node *n;
        struct ad_check_row row;
        const char *why = "";
        size_t nodes;
        int rc = 0;

        df_buf_clear(cursor);
        if (ad_json_parse(parser, body, &n, &nodes, &why) != AD_JSON_OK || nodes == 0)
                return df_fail(err, DF_EPARSE, "GET /metrics answers no JSON: %s", why);
        for (uint32_t i = 1; rc == 0 && i < n[0].next; i = n[i].next) {
                if (is(&n[i], "next_cursor") && n[i].kind == AD_JSON_STRING)
                        df_buf_append(cursor, n[i].text.data, n[i].text.len);
                if (!is(&n[i], "rows"))
                        continue;
                for (uint32_t r = i + 1; rc == 0 && r < n[i].next; r = n[r].next)
                        rc = ad_check_row_read(n, r, &row)
                                     ? ad_check_rows_add(ret, &row, err)
                                     : df_fail(err, DF_EPARSE, "GET /metrics: a row is odd");
        }
        return rc;
}

static int get(struct df_http_client *http, const char *path, struct df_buf *body,
               struct df_error *err)
{
        int status = 0, rc;

        df_buf_clear(body);
        rc = df_http_fetch(http, path, NULL, df_bytes(NULL, 0), &status, body, err);
        if (rc == 0 && (status == 503 || status == 410))
                return df_fail(err, DF_EAGAIN, "GET %.100s answers %d", path, status);
        if (rc == 0 && status != 200)
                return df_fail(err, DF_EINVAL, "GET %.100s answers %d: %.*s", path, status,
                               (int)(body->len < 300 ? body->len : 300), (const char *)body->data);
        return rc;
}

static int fetch_slice(struct df_http_client *http, struct ad_json_parser *parser,
                       enum ad_check_window w, int64_t from_ms, int64_t to_ms,
                       struct ad_check_rows *ret, struct df_error *err)
{
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];
        struct df_buf path = {0}, body = {0}, cursor = {0};
        int rc;

        (void)ad_time_text(from_ms, from);
        (void)ad_time_text(to_ms, to);
        df_buf_printf(&path,
                      "/v1/metrics?window=%s&tz=UTC&from=%s&to=%s&group_by=campaign_id&limit=%d",
                      ad_check_window_names[w], from, to, PAGE_ROWS);
        do {
                df_put_u8(&path, 0);
                rc = df_buf_check(&path, err);
                if (rc == 0)
                        rc = get(http, (const char *)path.data, &body, err);
                if (rc == 0)
                        rc = read_page(parser, df_buf_bytes(&body), ret, &cursor, err);
                df_buf_clear(&path);
                df_buf_printf(&path, "/v1/metrics?limit=%d&cursor=%.*s", PAGE_ROWS, (int)cursor.len,
                              cursor.data ? (const char *)cursor.data : "");
        } while (rc == 0 && cursor.len > 0);
        df_buf_release(&path);
        df_buf_release(&body);
        df_buf_release(&cursor);
        return rc;
}

int ad_check_fetch(struct df_http_client *http, struct ad_json_parser *parser,
                   enum ad_check_window w, int64_t from_ms, int64_t to_ms,
                   struct ad_check_rows *ret, struct df_error *err)
{
        int64_t width = ad_check_window_ms[w];
        int64_t slice = width * (w == AD_CHECK_MINUTE ? SLICE_MINUTES : SLICE_WINDOWS);
        int rc = 0;

        from_ms = from_ms / width * width;
        to_ms = (to_ms + width - 1) / width * width;
        for (int64_t at = from_ms; rc == 0 && at < to_ms; at += slice)
                rc = fetch_slice(http, parser, w, at, at + slice < to_ms ? at + slice : to_ms, ret,
                                 err);
        ad_check_rows_sort(ret);
        return rc;
}
