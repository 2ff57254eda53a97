#include "jobs/api/accounts.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "df/money.h"
#include "df/run.h"

#define BY_ADVERTISER "advertiser"
#define BY_TENANT "tenant"

struct line {
        struct df_bytes tenant, advertiser; /* in the table's text; empty: of the tenant */
        struct ad_account_rule rule;
        uint32_t number;
};
struct table {
        struct df_buf text;
        struct line *list; /* sorted by tenant, advertiser */
        size_t count, cap;
};

struct ad_accounts {
        char *path;
        struct ad_zones *zones;
        const struct ad_zone *zone;
        pthread_rwlock_t lock; /* of table */
        pthread_mutex_t refreshing;
        struct table *table; /* NULL: no file */
        struct stat seen;
};

static void free_table(struct table *t)
{
        if (!t)
                return;
        df_buf_release(&t->text);
        free(t->list);
        free(t);
}

/* ---- a line ---- */

static struct df_bytes next_word(struct df_reader *line)
{
        const uint8_t *from;

        while (line->p < line->end && (*line->p == ' ' || *line->p == '\t'))
                line->p++;
        from = line->p;
        while (line->p < line->end && *line->p != ' ' && *line->p != '\t')
                line->p++;
        return df_bytes(from, (size_t)(line->p - from));
}

static bool begins(struct df_bytes word, const char *with)
{
        size_t len = strlen(with);

        return word.len >= len && memcmp(word.data, with, len) == 0;
}

static int read_kind(struct df_bytes word, struct line *l, struct df_error *err)
{
        l->rule.whole_tenant = df_bytes_eq(word, df_bytes_str(BY_TENANT));
        if (l->rule.whole_tenant || df_bytes_eq(word, df_bytes_str(BY_ADVERTISER)))
                return 0;
        if (!begins(word, BY_ADVERTISER "="))
                return df_fail(err, DF_EPARSE,
                               "the second word is not advertiser, advertiser=ID or tenant");
        l->advertiser =
                df_bytes(word.data + sizeof(BY_ADVERTISER), word.len - sizeof(BY_ADVERTISER));
        if (l->advertiser.len == 0 || l->advertiser.len > AD_ID_MAX)
                return df_fail(err, DF_EPARSE, "the advertiser is not 1 to %d bytes", AD_ID_MAX);
        return 0;
}

static int read_zone(struct ad_accounts *a, struct df_bytes word, struct line *l,
                     struct df_error *err)
{
        char name[AD_ZONE_NAME_MAX + 1];
        int rc;

        if (word.len == 0 || word.len > AD_ZONE_NAME_MAX)
                return df_fail(err, DF_EPARSE, "the zone is missing or too long");
        memcpy(name, word.data, word.len);
        name[word.len] = '\0';
        rc = ad_zones_get(a->zones, name, &l->rule.zone, err);
        if (rc < 0 && rc != DF_ENOMEM)
                err->code = rc = DF_EPARSE; /* the text says what is wrong with the name */
        return rc;
}

static int read_line(struct ad_accounts *a, struct df_bytes text, struct line *l,
                     struct df_error *err)
{
        struct df_reader r = df_reader(text);
        struct df_bytes currency;
        int rc;

        l->tenant = next_word(&r);
        if (l->tenant.len > AD_ID_MAX)
                return df_fail(err, DF_EPARSE, "the tenant is longer than %d bytes", AD_ID_MAX);
        rc = read_kind(next_word(&r), l, err);
        if (rc == 0)
                rc = read_zone(a, next_word(&r), l, err);
        if (rc < 0)
                return rc;
        currency = next_word(&r);
        if (currency.len) {
                if (!df_currency_known(currency) || df_bytes_eq(currency, df_bytes_str("XXX")))
                        return df_fail(err, DF_EPARSE, "the currency is not an ISO 4217 code");
                memcpy(l->rule.currency, currency.data, currency.len);
        }
        if (next_word(&r).len)
                return df_fail(err, DF_EPARSE, "there are more than four words");
        return 0;
}

/* ---- the file ---- */

static int by_name(const void *x, const void *y)
{
        const struct line *a = x, *b = y;
        int c = df_bytes_cmp(a->tenant, b->tenant);

        return c ? c : df_bytes_cmp(a->advertiser, b->advertiser);
}

static int add_line(struct ad_accounts *a, struct table *t, struct df_bytes text, uint32_t number,
                    struct df_error *err)
{
        if (t->count == AD_ACCOUNTS_MAX)
                return df_fail(err, DF_EPARSE, "more than %d accounts", AD_ACCOUNTS_MAX);
        if (t->count == t->cap) {
                size_t cap = t->cap ? 2 * t->cap : 16;
                struct line *grown = realloc(t->list, cap * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "accounts");
                t->list = grown;
                t->cap = cap;
        }
        t->list[t->count] = (struct line){.number = number};
        return read_line(a, text, &t->list[t->count++], err);
}

/* A tenant that closes as a whole has one zone. */
static int check_table(const struct table *t, struct df_error *err)
{
        const struct line *whole = NULL;

        for (size_t i = 0; i < t->count; i++) {
                const struct line *l = &t->list[i];

                if (i > 0 && by_name(&t->list[i - 1], l) == 0)
                        return df_fail(err, DF_EPARSE, "lines %u and %u are of the same account",
                                       t->list[i - 1].number, l->number);
                if (l->advertiser.len == 0)
                        whole = l->rule.whole_tenant ? l : NULL;
                else if (whole && df_bytes_eq(whole->tenant, l->tenant))
                        return df_fail(err, DF_EPARSE,
                                       "line %u: line %u says that this tenant closes as a whole",
                                       l->number, whole->number);
        }
        return 0;
}

static int parse(struct ad_accounts *a, struct table *t, struct df_error *err)
{
        struct df_reader r = df_reader(df_buf_bytes(&t->text));

        for (uint32_t number = 1; r.p < r.end; number++) {
                const uint8_t *nl = memchr(r.p, '\n', df_reader_left(&r)), *end = nl ? nl : r.end;
                const uint8_t *hash = memchr(r.p, '#', (size_t)(end - r.p));
                struct df_bytes text = df_bytes(r.p, (size_t)((hash ? hash : end) - r.p));
                struct df_reader blank;
                int rc;

                r.p = nl ? nl + 1 : r.end;
                if (text.len && text.data[text.len - 1] == '\r')
                        text.len--;
                blank = df_reader(text);
                if (next_word(&blank).len == 0)
                        continue;
                rc = add_line(a, t, text, number, err);
                if (rc < 0) {
                        (void)df_wrap(err, "line %u", number);
                        return rc;
                }
        }
        if (t->count)
                qsort(t->list, t->count, sizeof(*t->list), by_name);
        return check_table(t, err);
}

static int read_table(struct ad_accounts *a, struct table **ret, struct df_error *err)
{
        struct table *t = calloc(1, sizeof(*t));
        int rc;

        if (!t)
                return df_fail(err, DF_ENOMEM, "accounts");
        rc = df_read_file(a->path, AD_ACCOUNTS_FILE_MAX, &t->text, err);
        if (rc == 0 && (rc = parse(a, t, err)) < 0)
                (void)df_wrap(err, "accounts file %s", a->path);
        if (rc < 0)
                free_table(t);
        else
                *ret = t;
        return rc;
}

static bool changed(struct ad_accounts *a)
{
        struct stat now = {0};
        bool differs;

        (void)stat(a->path, &now); /* one that is gone differs too */
        differs = now.st_mtim.tv_sec != a->seen.st_mtim.tv_sec ||
                  now.st_mtim.tv_nsec != a->seen.st_mtim.tv_nsec ||
                  now.st_size != a->seen.st_size || now.st_ino != a->seen.st_ino;
        a->seen = now;
        return differs;
}

int ad_accounts_refresh(struct ad_accounts *a, struct df_error *err)
{
        struct table *t = NULL, *old = NULL;
        int rc = 0;

        if (!a->path)
                return 0;
        (void)pthread_mutex_lock(&a->refreshing);
        if (changed(a)) /* looked at before it is read: a change in between shows the next time */
                rc = read_table(a, &t, err);
        if (t) {
                (void)pthread_rwlock_wrlock(&a->lock);
                old = a->table;
                a->table = t;
                (void)pthread_rwlock_unlock(&a->lock);
        }
        (void)pthread_mutex_unlock(&a->refreshing);
        free_table(old);
        return rc;
}

int ad_accounts_open(const char *path, struct ad_zones *zones, const struct ad_zone *zone,
                     struct ad_accounts **ret, struct df_error *err)
{
        struct ad_accounts *a = calloc(1, sizeof(*a));
        int rc = 0;

        if (!a)
                return df_fail(err, DF_ENOMEM, "accounts");
        a->zones = zones;
        a->zone = zone;
        (void)pthread_rwlock_init(&a->lock, NULL);
        (void)pthread_mutex_init(&a->refreshing, NULL);
        if (path) {
                a->path = strdup(path);
                rc = a->path ? ad_accounts_refresh(a, err) : df_fail(err, DF_ENOMEM, "accounts");
        }
        if (rc == 0 && path && !a->table) /* never there: refresh saw no change */
                rc = read_table(a, &a->table, err);
        if (rc < 0) {
                ad_accounts_close(a);
                return rc;
        }
        *ret = a;
        return 0;
}

static const struct line *find(const struct table *t, struct df_bytes tenant,
                               struct df_bytes advertiser)
{
        const struct line want = {.tenant = tenant, .advertiser = advertiser};

        return t && t->count ? bsearch(&want, t->list, t->count, sizeof(want), by_name) : NULL;
}

void ad_accounts_find(struct ad_accounts *a, struct df_bytes tenant_id,
                      struct df_bytes advertiser_id, struct ad_account_rule *ret)
{
        const struct line *tenant, *own;

        *ret = (struct ad_account_rule){.zone = a->zone};
        (void)pthread_rwlock_rdlock(&a->lock);
        tenant = find(a->table, tenant_id, df_bytes(NULL, 0));
        own = advertiser_id.len ? find(a->table, tenant_id, advertiser_id) : NULL;
        if (tenant)
                *ret = tenant->rule;
        if (own) {
                ret->zone = own->rule.zone;
                if (own->rule.currency[0])
                        memcpy(ret->currency, own->rule.currency, sizeof(ret->currency));
        }
        (void)pthread_rwlock_unlock(&a->lock);
}

void ad_accounts_close(struct ad_accounts *a)
{
        if (!a)
                return;
        free_table(a->table);
        (void)pthread_rwlock_destroy(&a->lock);
        (void)pthread_mutex_destroy(&a->refreshing);
        free(a->path);
        free(a);
}
