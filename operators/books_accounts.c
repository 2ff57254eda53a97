/* books_accounts.c - which periods are closed. An account is an advertiser or a whole tenant, never
 * both ways in one tenant; its periods follow each other without a hole.
 *
 * State: 'A' and the account: its periods. All are in memory: some 90 bytes a closed period. */
#include <stdio.h>
#include <stdlib.h>

#include "operators/books_private.h"

void adi_accounts_release(struct adi_accounts *a)
{
        for (size_t i = 0; i < a->count; i++) {
                free(a->list[i]->periods);
                free(a->list[i]);
        }
        free(a->list);
}

static struct df_bytes tenant_of(const struct adi_account *a)
{
        return df_bytes(a->tenant, a->tenant_len);
}

static int compare(const struct adi_account *a, struct ad_account key)
{
        int c = df_bytes_cmp(tenant_of(a), key.tenant_id);

        return c ? c : df_bytes_cmp(df_bytes(a->advertiser, a->advertiser_len), key.advertiser_id);
}

/* Position of the first one that is not below the key. */
static size_t lower_bound(const struct adi_accounts *a, struct ad_account key)
{
        size_t low = 0, high = a->count;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (compare(a->list[mid], key) < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

struct adi_account *adi_accounts_find(const struct adi_accounts *a, struct ad_account key)
{
        size_t i = lower_bound(a, key);

        return i < a->count && compare(a->list[i], key) == 0 ? a->list[i] : NULL;
}

struct adi_account *adi_accounts_of_row(const struct adi_accounts *a, struct df_bytes tenant,
                                        struct df_bytes advertiser)
{
        struct ad_account key = {.tenant_id = tenant};
        struct adi_account *whole = adi_accounts_find(a, key);

        key.advertiser_id = advertiser;
        return whole ? whole : adi_accounts_find(a, key);
}

bool adi_accounts_mixed(const struct adi_accounts *a, struct ad_account key)
{
        size_t i = lower_bound(a, (struct ad_account){.tenant_id = key.tenant_id});

        if (i == a->count || !df_bytes_eq(tenant_of(a->list[i]), key.tenant_id))
                return false;
        return (a->list[i]->advertiser_len == 0) != (key.advertiser_id.len == 0);
}

bool adi_account_closed(const struct adi_account *a, uint64_t quarter)
{
        return quarter < a->periods[a->count - 1].to;
}

const char *adi_account_period(const struct adi_account *a, uint64_t quarter)
{
        for (size_t i = a->count; i-- > 0;)
                if (quarter >= a->periods[i].from)
                        return quarter < a->periods[i].to ? a->periods[i].name : "";
        return "";
}

bool adi_period_next(struct df_bytes name, char ret[AD_PERIOD_MAX + 1])
{
        unsigned year = 0, month = 0;

        if (name.len != AD_PERIOD_MAX || name.data[4] != '-')
                return false;
        for (size_t i = 0; i < name.len; i++) {
                unsigned digit = name.data[i] - (unsigned)'0';

                if (i == 4)
                        continue;
                if (digit > 9)
                        return false;
                if (i < 4)
                        year = 10 * year + digit;
                else
                        month = 10 * month + digit;
        }
        if (month < 1 || month > 12 || year > 9998)
                return false;
        year += month == 12;
        month = month % 12 + 1;
        (void)snprintf(ret, AD_PERIOD_MAX + 1, "%04u-%02u", year % 10000, month % 100);
        return true;
}

static void copy(char *to, struct df_bytes from)
{
        if (from.len > 0)
                memcpy(to, from.data, from.len);
        to[from.len] = '\0';
}

static int insert(struct adi_accounts *a, struct ad_account key, struct adi_account **ret,
                  struct df_error *err)
{
        size_t i = lower_bound(a, key);
        struct adi_account *account = calloc(1, sizeof(*account));
        struct adi_account **list = realloc(a->list, (a->count + 1) * sizeof(struct adi_account *));

        if (list)
                a->list = list;
        if (!account || !list) {
                free(account);
                return df_fail(err, DF_ENOMEM, "books: %zu accounts", a->count + 1);
        }
        if (key.tenant_id.len > 0)
                memcpy(account->tenant, key.tenant_id.data, key.tenant_id.len);
        account->tenant_len = key.tenant_id.len;
        if (key.advertiser_id.len > 0)
                memcpy(account->advertiser, key.advertiser_id.data, key.advertiser_id.len);
        account->advertiser_len = key.advertiser_id.len;
        memmove(a->list + i + 1, a->list + i, (a->count - i) * sizeof(struct adi_account *));
        a->list[i] = account;
        a->count++;
        *ret = account;
        return 0;
}

static int add_period(struct adi_account *a, struct df_bytes name, uint64_t from, uint64_t to,
                      struct df_bytes asked_by, struct df_error *err)
{
        struct adi_period *list = realloc(a->periods, (a->count + 1) * sizeof(*list)), *p;

        if (!list)
                return df_fail(err, DF_ENOMEM, "books: %zu closed periods", a->count + 1);
        a->periods = list;
        p = &list[a->count++];
        copy(p->name, name);
        copy(p->asked_by, asked_by);
        p->from = from;
        p->to = to;
        return adi_period_next(name, a->open)
                       ? 0
                       : df_fail(err, DF_ECORRUPT, "books: a period of the state has no name");
}

int adi_accounts_close(struct adi_accounts *a, const struct ad_period_close *c,
                       struct df_error *err)
{
        struct adi_account *account = adi_accounts_find(a, c->account);
        int rc = account ? 0 : insert(a, c->account, &account, err);

        if (rc < 0)
                return rc;
        account->dirty = true;
        return add_period(account, c->period, c->from_quarter, c->to_quarter, c->asked_by, err);
}

/* ---- state ---- */

int adi_accounts_snapshot(struct adi_accounts *a, struct df_store *store, uint8_t ns,
                          struct df_error *err)
{
        struct df_buf key = {0}, value = {0};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < a->count; i++) {
                struct adi_account *account = a->list[i];

                if (!account->dirty)
                        continue;
                df_buf_clear(&key);
                df_buf_clear(&value);
                df_put_u8(&key, ns);
                df_put_u8(&key, 'A');
                ad_put_ordered(&key, tenant_of(account));
                ad_put_ordered(&key, df_bytes(account->advertiser, account->advertiser_len));
                for (size_t p = 0; p < account->count; p++) {
                        df_put_lstr(&value, df_bytes_str(account->periods[p].name));
                        df_put_lstr(&value, df_bytes_str(account->periods[p].asked_by));
                        df_put_varint(&value, account->periods[p].from);
                        df_put_varint(&value, account->periods[p].to);
                }
                rc = df_buf_check(&key, err);
                if (rc == 0)
                        rc = df_buf_check(&value, err);
                if (rc == 0)
                        df_store_put(store, df_buf_bytes(&key), df_buf_bytes(&value));
                account->dirty = false;
        }
        df_buf_release(&key);
        df_buf_release(&value);
        return rc;
}

static int restore_account(void *arg, struct df_bytes key, struct df_bytes value,
                           struct df_error *err)
{
        struct df_reader k = df_reader(df_bytes(key.data + 2, key.len - 2)), v = df_reader(value);
        uint8_t room[2][AD_ID_MAX];
        struct adi_account *account;
        struct ad_account id;
        int rc;

        if (!ad_get_ordered(&k, room[0], AD_ID_MAX, &id.tenant_id) ||
            !ad_get_ordered(&k, room[1], AD_ID_MAX, &id.advertiser_id))
                return df_fail(err, DF_ECORRUPT, "books: an account's key is damaged");
        rc = insert(arg, id, &account, err);
        while (rc == 0 && df_reader_left(&v) > 0) {
                struct df_bytes name = df_get_lstr(&v), asked_by = df_get_lstr(&v);
                uint64_t from = df_get_varint(&v), to = df_get_varint(&v);

                if (v.bad || name.len > AD_PERIOD_MAX || asked_by.len > AD_COMMAND_ID_MAX)
                        return df_fail(err, DF_ECORRUPT, "books: an account is damaged");
                rc = add_period(account, name, from, to, asked_by, err);
        }
        if (rc == 0 && account->count == 0)
                rc = df_fail(err, DF_ECORRUPT, "books: an account has no closed period");
        return rc;
}

int adi_accounts_restore(struct adi_accounts *a, struct df_store *store, uint8_t ns,
                         struct df_error *err)
{
        uint8_t prefix[2] = {ns, 'A'};

        return df_store_scan(store, df_bytes(prefix, sizeof(prefix)), restore_account, a, err);
}
