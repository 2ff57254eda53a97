#include "jobs/common/prices.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/run.h"
#include "jobs/common/times.h"

#define FIELDS 8
static const char header[] =
        "tenant_id,advertiser_id,campaign_id,ad_id,model,price,currency,valid_from";

struct loaded {
        struct ad_price_table table;
        struct ad_price *lines;
        struct df_buf text; /* what the lines borrow */
        struct loaded *next;
};

struct ad_prices {
        char dir[PATH_MAX];
        pthread_mutex_t lock;
        struct loaded *tables;
};

static int parse_line(struct df_bytes f[FIELDS], struct ad_price *ret, struct df_error *err)
{
        static const char *const models[] = {"cpm", "cpc", "cpa"};
        df_nanos price;
        size_t m = 0;

        *ret = (struct ad_price){.tenant_id = f[0],
                                 .advertiser_id = f[1],
                                 .campaign_id = f[2],
                                 .ad_id = f[3],
                                 .currency = f[6],
                                 .valid_from_ms = INT64_MIN};
        for (int i = 0; i < 4; i++)
                if (f[i].len > AD_ID_MAX)
                        return df_fail(err, DF_EINVAL, "an id is longer than %d bytes", AD_ID_MAX);
        while (m < 3 && !df_bytes_eq(f[4], df_bytes_str(models[m])))
                m++;
        if (m == 3)
                return df_fail(err, DF_EINVAL, "model is not cpm, cpc or cpa");
        ret->model = (enum ad_price_model)m;
        if (!df_nanos_parse(f[5], &price) || price < 0 ||
            price > (df_nanos)AD_MONEY_MICROS_MAX * DF_NANOS_PER_MICRO)
                return df_fail(err, DF_EINVAL, "price is not an amount");
        ret->price_nanos = (int64_t)price;
        if (ret->model == AD_CPM && ret->price_nanos % 1000 != 0)
                return df_fail(err, DF_EINVAL, "a cpm price may have at most 6 decimals");
        if (!df_currency_known(f[6]))
                return df_fail(err, DF_EINVAL, "currency is not an ISO 4217 code");
        if (f[7].len && !ad_time_parse(f[7], &ret->valid_from_ms))
                return df_fail(err, DF_EINVAL, "valid_from is not an RFC 3339 time");
        return 0;
}

static bool next_field(struct df_reader *line, struct df_bytes *ret, bool last)
{
        const uint8_t *comma = memchr(line->p, ',', df_reader_left(line));

        if ((comma == NULL) != last)
                return false;
        *ret = df_bytes(line->p, (size_t)((comma ? comma : line->end) - line->p));
        line->p = comma ? comma + 1 : line->end;
        return true;
}

static int parse_table(struct loaded *t, struct df_error *err)
{
        struct df_reader r = df_reader(df_buf_bytes(&t->text));
        size_t number = 0;

        t->lines = calloc(AD_PRICE_LINES_MAX, sizeof(*t->lines));
        if (!t->lines)
                return df_fail(err, DF_ENOMEM, "price table");
        for (; r.p < r.end; number++) {
                const uint8_t *nl = memchr(r.p, '\n', df_reader_left(&r));
                struct df_bytes text = df_bytes(r.p, (size_t)((nl ? nl : r.end) - r.p));
                struct df_bytes f[FIELDS];
                struct df_reader line;
                bool ok = true;

                r.p = nl ? nl + 1 : r.end;
                if (text.len && text.data[text.len - 1] == '\r')
                        text.len--;
                if (number == 0 && !df_bytes_eq(text, df_bytes_str(header)))
                        return df_fail(err, DF_EPARSE, "line 1 is not \"%s\"", header);
                if (number == 0 || text.len == 0)
                        continue;
                line = df_reader(text);
                for (int i = 0; ok && i < FIELDS; i++)
                        ok = next_field(&line, &f[i], i == FIELDS - 1);
                if (!ok)
                        return df_fail(err, DF_EPARSE, "line %zu: not %d fields", number + 1,
                                       FIELDS);
                if (t->table.count == AD_PRICE_LINES_MAX)
                        return df_fail(err, DF_ELIMIT, "more than %d lines", AD_PRICE_LINES_MAX);
                if (parse_line(f, &t->lines[t->table.count], err) < 0)
                        return df_wrap(err, "line %zu", number + 1);
                t->table.count++;
        }
        t->table.prices = t->lines;
        return number ? 0 : df_fail(err, DF_EPARSE, "the file is empty");
}

static void free_loaded(struct loaded *t)
{
        if (!t)
                return;
        df_buf_release(&t->text);
        free(t->lines);
        free(t);
}

static int read_table(const char *path, struct loaded **ret, struct df_error *err)
{
        struct loaded *t = calloc(1, sizeof(*t));
        int rc;

        if (!t)
                return df_fail(err, DF_ENOMEM, "price table");
        rc = df_read_file(path, AD_PRICE_FILE_MAX, &t->text, err);
        if (rc == 0 && (rc = parse_table(t, err)) < 0)
                (void)df_wrap(err, "%s", path);
        if (rc < 0)
                free_loaded(t);
        else
                *ret = t;
        return rc;
}

int ad_prices_open(const char *data_dir, struct ad_prices **ret, struct df_error *err)
{
        struct ad_prices *p = calloc(1, sizeof(*p));
        int rc;

        if (!p)
                return df_fail(err, DF_ENOMEM, "price tables");
        if (snprintf(p->dir, sizeof(p->dir), "%s/config/prices", data_dir) >= (int)sizeof(p->dir))
                rc = df_fail(err, DF_EINVAL, "path %s is too long", data_dir);
        else
                rc = df_mkdirs(p->dir, err);
        if (rc < 0) {
                free(p);
                return rc;
        }
        pthread_mutex_init(&p->lock, NULL);
        *ret = p;
        return 0;
}

const struct ad_price_table *ad_prices_get(void *arg, uint32_t version)
{
        struct ad_prices *p = arg;
        struct loaded *t;

        pthread_mutex_lock(&p->lock);
        for (t = p->tables; t && t->table.version != version; t = t->next)
                ;
        if (!t) {
                char path[PATH_MAX + 32];

                (void)snprintf(path, sizeof(path), "%s/%" PRIu32 ".csv", p->dir, version);
                if (read_table(path, &t, NULL) == 0) {
                        t->table.version = version;
                        t->next = p->tables;
                        p->tables = t;
                }
        }
        pthread_mutex_unlock(&p->lock);
        return t ? &t->table : NULL;
}

uint32_t ad_prices_newest(const struct ad_prices *p)
{
        uint32_t newest = 0;
        DIR *d = opendir(p->dir);

        for (struct dirent *e; d && (e = readdir(d));) {
                char *end;
                unsigned long v = strtoul(e->d_name, &end, 10);

                if (end != e->d_name && strcmp(end, ".csv") == 0 && v <= UINT32_MAX && v > newest)
                        newest = (uint32_t)v;
        }
        if (d)
                closedir(d);
        return newest;
}

int ad_prices_load(struct ad_prices *p, const char *path, uint32_t *ret_version,
                   struct df_error *err)
{
        uint32_t version = ad_prices_newest(p) + 1;
        char to[PATH_MAX + 32];
        struct loaded *t = NULL;
        int rc = read_table(path, &t, err);

        if (rc < 0)
                return rc;
        (void)snprintf(to, sizeof(to), "%s/%" PRIu32 ".csv", p->dir, version);
        rc = df_write_file(to, df_buf_bytes(&t->text), true, err);
        free_loaded(t);
        if (rc == 0)
                *ret_version = version;
        return rc;
}

void ad_prices_close(struct ad_prices *p)
{
        if (!p)
                return;
        while (p->tables) {
                struct loaded *next = p->tables->next;

                free_loaded(p->tables);
                p->tables = next;
        }
        pthread_mutex_destroy(&p->lock);
        free(p);
}
