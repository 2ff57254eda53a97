/* import_read.c - rows of a CSV (RFC 4180) or NDJSON file, streaming (import.h). */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "jobs/adtally/import.h"

#define DOUBLE_DIGITS 15 /* that many survive a round trip through a double */
#define NESTING_MAX 8

struct ad_import_reader {
        FILE *f;
        enum ad_import_format format;
        uint64_t size, bytes, line, row_line;
        struct ad_json_parser *json;
        char *text; /* NDJSON: the line */
        size_t text_cap;
        struct df_bytes columns[AD_IMPORT_COLUMNS_MAX]; /* data is owned */
        size_t column_count;
        struct df_buf row;                  /* the cells' bytes, one after the other */
        size_t ends[AD_IMPORT_COLUMNS_MAX]; /* of each in row */
        struct df_bytes cells[AD_IMPORT_COLUMNS_MAX];
};

static struct df_bytes trim(struct df_bytes b)
{
        while (b.len > 0 && (b.data[0] == ' ' || b.data[0] == '\t')) {
                b.data++;
                b.len--;
        }
        while (b.len > 0 && (b.data[b.len - 1] == ' ' || b.data[b.len - 1] == '\t'))
                b.len--;
        return b;
}

static int add_column(struct ad_import_reader *r, struct df_bytes name, struct df_error *err)
{
        uint8_t *copy;

        if (r->column_count == AD_IMPORT_COLUMNS_MAX)
                return df_fail(err, DF_ELIMIT, "more than %d columns", AD_IMPORT_COLUMNS_MAX);
        copy = malloc(name.len + 1);
        if (!copy)
                return df_fail(err, DF_ENOMEM, "columns");
        if (name.len)
                memcpy(copy, name.data, name.len);
        r->columns[r->column_count++] = df_bytes(copy, name.len);
        return 0;
}

static ssize_t find_column(const struct ad_import_reader *r, struct df_bytes name)
{
        for (size_t i = 0; i < r->column_count; i++)
                if (df_bytes_eq(r->columns[i], name))
                        return (ssize_t)i;
        return -1;
}

/* ---- CSV ---- */

static int next_char(struct ad_import_reader *r)
{
        int c = getc_unlocked(r->f);

        r->bytes += c != EOF;
        r->line += c == '\n';
        return c;
}

static void unread(struct ad_import_reader *r, int c)
{
        if (c == EOF)
                return;
        (void)ungetc(c, r->f);
        r->bytes--;
        r->line -= c == '\n';
}

/* CRLF and LF end a line; a CR that nothing follows is content. */
static bool ends_line(struct ad_import_reader *r, int c)
{
        int after;

        if (c == '\n' || c == EOF)
                return true;
        if (c != '\r')
                return false;
        after = next_char(r);
        if (after == '\n' || after == EOF)
                return true;
        unread(r, after);
        return false;
}

static int csv_bad(struct ad_import_reader *r, struct df_error *err, const char *why)
{
        for (int c = next_char(r); !ends_line(r, c);) /* the next row begins behind this line */
                c = next_char(r);
        return df_fail(err, DF_EPARSE, "%s", why);
}

/* One cell; *ret_end: it was the row's last. */
static int csv_cell(struct ad_import_reader *r, bool *ret_end, struct df_error *err)
{
        size_t start = r->row.len;
        int c = next_char(r);
        bool quoted = c == '"';

        if (quoted)
                c = next_char(r);
        for (;; c = next_char(r)) {
                if (r->row.len - start > AD_IMPORT_CELL_MAX)
                        return df_fail(err, DF_ELIMIT,
                                       "line %llu: a cell of more than %u bytes (a quote that is "
                                       "not closed?)",
                                       (unsigned long long)r->row_line, AD_IMPORT_CELL_MAX);
                if (quoted) {
                        if (c == EOF)
                                return df_fail(err, DF_EPARSE, "a quote is not closed");
                        if (c == '"' && (c = next_char(r)) != '"')
                                break;
                        df_put_u8(&r->row, (uint8_t)c);
                        continue;
                }
                if (c == ',' || ends_line(r, c))
                        break;
                if (c == '"')
                        return csv_bad(r, err,
                                       "a quote inside a cell that does not begin with one");
                df_put_u8(&r->row, (uint8_t)c);
        }
        *ret_end = c != ',';
        if (quoted && c != ',' && !ends_line(r, c)) {
                unread(r, c);
                return csv_bad(r, err, "text behind the closing quote of a cell");
        }
        return df_buf_check(&r->row, err);
}

/* *ret_count cells; 0 at the end of the file. Blank lines are skipped. */
static int csv_row(struct ad_import_reader *r, size_t *ret_count, struct df_error *err)
{
        bool end = false;
        size_t n = 0;
        int c;

        *ret_count = 0;
        do {
                c = next_char(r);
        } while (c != EOF && ends_line(r, c));
        if (c == EOF)
                return ferror(r->f) ? df_fail_errno(err, DF_EIO, "read the file") : 0;
        unread(r, c);
        r->row_line = r->line + 1;
        df_buf_clear(&r->row);
        while (!end) {
                int rc = csv_cell(r, &end, err);

                if (rc < 0)
                        return rc;
                if (n == AD_IMPORT_COLUMNS_MAX)
                        return end ? df_fail(err, DF_EPARSE, "too many cells")
                                   : csv_bad(r, err, "too many cells");
                r->ends[n++] = r->row.len;
        }
        for (size_t i = 0, at = 0; i < n; at = r->ends[i++])
                r->cells[i] = trim(df_bytes(r->row.data + at, r->ends[i] - at));
        *ret_count = n;
        return 0;
}

static int csv_header(struct ad_import_reader *r, struct df_error *err)
{
        size_t n;
        int rc = csv_row(r, &n, err);

        if (rc == 0 && n == 0)
                rc = df_fail(err, DF_EPARSE, "the file is empty");
        for (size_t i = 0; rc == 0 && i < n; i++) {
                if (r->cells[i].len && find_column(r, r->cells[i]) >= 0)
                        rc = df_fail(err, DF_EPARSE, "the header has the column \"%.*s\" twice",
                                     (int)r->cells[i].len, (const char *)r->cells[i].data);
                else
                        rc = add_column(r, r->cells[i], err);
        }
        return rc;
}

/* ---- NDJSON ---- */

/* The shortest decimal that reads back as d; false when the file's own digits may be lost. */
static bool put_double(struct df_buf *b, double d)
{
        char text[64];

        for (int decimals = 1; decimals <= 9; decimals++) {
                int digits = 0;

                if (fabs(d) >= 1e15)
                        return false;
                (void)snprintf(text, sizeof(text), "%.*f", decimals, d);
                if (strtod(text, NULL) != d)
                        continue;
                for (const char *p = text; *p; p++)
                        digits += *p >= '0' && *p <= '9';
                df_buf_append(b, text, strlen(text));
                return digits <= DOUBLE_DIGITS;
        }
        return false;
}

struct json_row {
        struct ad_import_reader *r;
        const struct ad_json_node *n;
        struct df_buf path; /* "a.b" of nested objects */
        size_t starts[AD_IMPORT_COLUMNS_MAX];
        bool present[AD_IMPORT_COLUMNS_MAX];
};

static int json_value(struct json_row *j, uint32_t at, struct df_error *err)
{
        const struct ad_json_node *n = &j->n[at];
        struct df_bytes name = df_buf_bytes(&j->path);
        struct df_buf *row = &j->r->row;
        ssize_t c = find_column(j->r, name);

        if (n->kind == AD_JSON_NULL || n->kind == AD_JSON_ARRAY)
                return 0; /* absent */
        if (c < 0) {
                int rc = add_column(j->r, name, err);

                if (rc < 0)
                        return rc;
                c = (ssize_t)j->r->column_count - 1;
                j->present[c] = false;
        }
        if (j->present[c])
                return df_fail(err, DF_EPARSE, "the key \"%.*s\" stands twice", (int)name.len,
                               (const char *)name.data);
        j->present[c] = true;
        j->starts[c] = row->len;
        if (n->kind == AD_JSON_STRING)
                df_buf_append(row, n->text.data, n->text.len);
        else if (n->kind == AD_JSON_INT)
                df_buf_printf(row, "%lld", (long long)n->i);
        else if (n->kind == AD_JSON_UINT)
                df_buf_printf(row, "%llu", (unsigned long long)n->u);
        else if (n->kind == AD_JSON_BOOL)
                df_buf_printf(row, "%s", n->i ? "true" : "false");
        else if (!put_double(row, n->d))
                return df_fail(err, DF_EPARSE,
                               "\"%.*s\": a number of more digits than JSON readers keep: write it "
                               "as a string",
                               (int)name.len, (const char *)name.data);
        j->r->ends[c] = row->len;
        return 0;
}

static int json_object(struct json_row *j, uint32_t at, int depth, struct df_error *err)
{
        size_t mark = j->path.len;
        int rc = 0;

        if (depth > NESTING_MAX)
                return df_fail(err, DF_EPARSE, "objects nested deeper than %d", NESTING_MAX);
        for (uint32_t i = at + 1; rc == 0 && i < j->n[at].next; i = j->n[i].next) {
                j->path.len = mark;
                if (mark)
                        df_put_u8(&j->path, '.');
                df_buf_append(&j->path, j->n[i].key.data, j->n[i].key.len);
                rc = df_buf_check(&j->path, err);
                if (rc == 0)
                        rc = j->n[i].kind == AD_JSON_OBJECT ? json_object(j, i, depth + 1, err)
                                                            : json_value(j, i, err);
        }
        j->path.len = mark;
        return rc;
}

static int json_cells(struct ad_import_reader *r, struct df_bytes line, struct df_error *err)
{
        struct json_row j = {.r = r};
        const char *why = "";
        size_t nodes;
        int rc;

        df_buf_clear(&r->row);
        rc = ad_json_parse(r->json, line, &j.n, &nodes, &why);
        if (rc == AD_JSON_NO_MEMORY)
                return df_fail(err, DF_ENOMEM, "a line");
        if (rc != AD_JSON_OK)
                return df_fail(err, DF_EPARSE, "not JSON: %s", why);
        if (j.n[0].kind != AD_JSON_OBJECT)
                return df_fail(err, DF_EPARSE, "not a JSON object");
        rc = json_object(&j, 0, 0, err);
        df_buf_release(&j.path);
        if (rc == 0)
                rc = df_buf_check(&r->row, err);
        for (size_t i = 0; rc == 0 && i < r->column_count; i++)
                r->cells[i] = j.present[i] ? trim(df_bytes(r->row.data + j.starts[i],
                                                           r->ends[i] - j.starts[i]))
                                           : (struct df_bytes){0};
        return rc;
}

static int json_next(struct ad_import_reader *r, bool *ret_more, struct df_error *err)
{
        for (;;) {
                ssize_t n = getline(&r->text, &r->text_cap, r->f);
                struct df_bytes line;

                *ret_more = n > 0;
                if (n <= 0)
                        return ferror(r->f) ? df_fail_errno(err, DF_EIO, "read the file") : 0;
                r->bytes += (uint64_t)n;
                r->row_line = ++r->line;
                while (n > 0 && (r->text[n - 1] == '\n' || r->text[n - 1] == '\r'))
                        n--;
                line = trim(df_bytes(r->text, (size_t)n));
                if (line.len)
                        return json_cells(r, line, err);
        }
}

/* ---- both ---- */

static int begin(struct ad_import_reader *r, struct df_error *err)
{
        int c = next_char(r);

        if (c == 0xef) { /* a byte order mark */
                if (next_char(r) != 0xbb || next_char(r) != 0xbf)
                        return df_fail(err, DF_EPARSE, "the file is not UTF-8");
                c = next_char(r);
        }
        unread(r, c);
        r->format = c == '{' ? AD_IMPORT_NDJSON : AD_IMPORT_CSV;
        return r->format == AD_IMPORT_CSV ? csv_header(r, err) : 0;
}

int ad_import_reader_open(const char *path, struct ad_import_reader **ret, struct df_error *err)
{
        struct ad_import_reader *r = calloc(1, sizeof(*r));
        struct stat st;
        int rc = 0;

        if (!r)
                return df_fail(err, DF_ENOMEM, "a reader");
        r->json = ad_json_create();
        r->f = fopen(path, "re");
        if (!r->f)
                rc = df_fail_errno(err, DF_ENOENT, "open %s", path);
        else if (fstat(fileno(r->f), &st) < 0 || !S_ISREG(st.st_mode))
                rc = df_fail(err, DF_EINVAL, "%s is no file (it is read twice: no pipe)", path);
        else if (!r->json)
                rc = df_fail(err, DF_ENOMEM, "a reader");
        if (rc == 0) {
                r->size = (uint64_t)st.st_size;
                (void)posix_fadvise(fileno(r->f), 0, 0, POSIX_FADV_SEQUENTIAL);
                rc = begin(r, err);
                if (rc < 0)
                        (void)df_wrap(err, "%s", path);
        }
        if (rc < 0) {
                ad_import_reader_close(r);
                return rc;
        }
        *ret = r;
        return 0;
}

int ad_import_reader_next(struct ad_import_reader *r, const struct df_bytes **ret_cells,
                          size_t *ret_count, bool *ret_more, struct df_error *err)
{
        size_t n = 0;
        int rc;

        *ret_cells = r->cells;
        *ret_more = true;
        if (r->format == AD_IMPORT_NDJSON) {
                rc = json_next(r, ret_more, err);
                *ret_count = r->column_count;
                return rc;
        }
        rc = csv_row(r, &n, err);
        *ret_more = rc < 0 || n > 0;
        *ret_count = n;
        if (rc == 0 && n > 0 && n != r->column_count)
                return df_fail(err, DF_EPARSE, "%zu cells, the header has %zu", n, r->column_count);
        return rc;
}

enum ad_import_format ad_import_reader_format(const struct ad_import_reader *r)
{
        return r->format;
}

size_t ad_import_reader_columns(const struct ad_import_reader *r, const struct df_bytes **ret_names)
{
        *ret_names = r->columns;
        return r->column_count;
}

uint64_t ad_import_reader_line(const struct ad_import_reader *r)
{
        return r->row_line;
}

uint64_t ad_import_reader_bytes(const struct ad_import_reader *r)
{
        return r->bytes;
}

uint64_t ad_import_reader_size(const struct ad_import_reader *r)
{
        return r->size;
}

void ad_import_reader_close(struct ad_import_reader *r)
{
        if (!r)
                return;
        if (r->f)
                (void)fclose(r->f);
        for (size_t i = 0; i < r->column_count; i++)
                free((void *)(uintptr_t)r->columns[i].data);
        ad_json_destroy(r->json);
        free(r->text);
        df_buf_release(&r->row);
        free(r);
}
