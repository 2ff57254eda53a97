#include "jobs/common/access.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include "df/sha256.h"
#include "jobs/common/access_private.h"
#include "jobs/common/json.h"

#define DEFAULT_TENANT "default"

struct file_state { /* whether the file changed since it was read */
        struct timespec mtime;
        off_t size;
        ino_t inode;
        bool there;
};

struct ad_access {
        char *path; /* NULL: no keys file */
        pthread_rwlock_t lock;
        struct dfi_keys *keys;
        struct file_state seen; /* under `refreshing` */
        pthread_mutex_t refreshing;
};

/* ---- names of this machine ---- */

/* host: "localhost", "127.1.2.3" or, in brackets or not, "::1". */
static bool loopback_host(struct df_bytes host)
{
        char text[INET6_ADDRSTRLEN];
        struct in_addr v4;
        struct in6_addr v6;

        if (host.len > 1 && host.data[0] == '[' && host.data[host.len - 1] == ']') {
                host.data++;
                host.len -= 2;
        }
        if (host.len == 0 || host.len >= sizeof(text))
                return false;
        memcpy(text, host.data, host.len);
        text[host.len] = '\0';
        if (strlen(text) != host.len)
                return false;
        if (strcasecmp(text, "localhost") == 0)
                return true;
        if (inet_pton(AF_INET, text, &v4) == 1)
                return ntohl(v4.s_addr) >> 24 == 127;
        return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* "name", "name:port", "[v6]", "[v6]:port". */
static bool loopback_authority(struct df_bytes a)
{
        const uint8_t *from = a.data, *colon;

        if (a.len && a.data[0] == '[') {
                from = memchr(a.data, ']', a.len);
                if (!from)
                        return false;
        }
        colon = a.len ? memchr(from, ':', a.len - (size_t)(from - a.data)) : NULL;
        for (const uint8_t *p = colon ? colon + 1 : NULL; p && p < a.data + a.len; p++)
                if (*p < '0' || *p > '9')
                        return false;
        return loopback_host(colon ? df_bytes(a.data, (size_t)(colon - a.data)) : a);
}

bool ad_access_listen_loopback(const char *listen)
{
        const char *colon = strrchr(listen, ':');

        return loopback_host(df_bytes(listen, colon ? (size_t)(colon - listen) : strlen(listen)));
}

static bool loopback_origin(struct df_bytes o)
{
        size_t skip = o.len > 8 && memcmp(o.data, "https://", 8) == 0  ? 8
                      : o.len > 7 && memcmp(o.data, "http://", 7) == 0 ? 7
                                                                       : 0;

        return skip && loopback_authority(df_bytes(o.data + skip, o.len - skip));
}

static bool forwarding(struct df_bytes name)
{
        static const char *const names[] = {"forwarded", "x-real-ip", "via"};

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (df_bytes_eq(name, df_bytes_str(names[i])))
                        return true;
        return name.len >= 12 && memcmp(name.data, "x-forwarded-", 12) == 0;
}

/* ---- a request ---- */

static bool deny(struct ad_denial *d, int status, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
static bool deny(struct ad_denial *d, int status, const char *fmt, ...)
{
        va_list ap;

        d->status = status;
        d->code = status == 401 ? "unauthorized" : "forbidden";
        va_start(ap, fmt);
        (void)vsnprintf(d->message, sizeof(d->message), fmt, ap);
        va_end(ap);
        return false;
}

#define START_WITH_KEYS "start the server with --keys FILE and send \"Authorization: Bearer KEY\""

static bool check_loopback(const struct df_http_request *r, struct ad_denial *d)
{
        struct df_bytes origin = df_http_header(r, "origin");

        if (!r->peer_loopback)
                return deny(d, 403,
                            "without a keys file only this machine is served; to serve "
                            "others, " START_WITH_KEYS);
        if (!loopback_authority(df_http_header(r, "host")))
                return deny(d, 403,
                            "without a keys file the server answers to localhost, 127.0.0.1 and "
                            "[::1] only; for another Host, " START_WITH_KEYS);
        for (size_t i = 0; i < r->header_count; i++)
                if (forwarding(r->headers[i].name))
                        return deny(d, 403,
                                    "the request was forwarded (%.*s); behind a "
                                    "proxy, " START_WITH_KEYS,
                                    (int)r->headers[i].name.len,
                                    (const char *)r->headers[i].name.data);
        if (origin.data && !loopback_origin(origin))
                return deny(d, 403,
                            "without a keys file pages of other sites may not call the server "
                            "(Origin); " START_WITH_KEYS);
        return true;
}

static bool may(enum ad_key_class c, enum ad_permission want)
{
        switch (want) {
        case AD_MAY_INGEST:
                return c == AD_KEY_PUBLIC || c == AD_KEY_SERVER || c == AD_KEY_ADMIN;
        case AD_MAY_READ:
                return c == AD_KEY_READ || c == AD_KEY_FINANCE || c == AD_KEY_ADMIN;
        case AD_MAY_FINANCE:
                return c == AD_KEY_FINANCE || c == AD_KEY_ADMIN;
        case AD_MAY_ADMIN:
                break;
        }
        return c == AD_KEY_ADMIN;
}

/* "Bearer ID.SECRET" */
static bool split_token(struct df_bytes header, struct df_bytes *ret_id,
                        struct df_bytes *ret_secret)
{
        const uint8_t *p = header.data, *end = header.data + header.len, *dot;

        if (header.len < 7 || strncasecmp((const char *)p, "Bearer ", 7) != 0)
                return false;
        for (p += 7; p < end && *p == ' '; p++)
                ;
        dot = memchr(p, '.', (size_t)(end - p));
        if (!dot)
                return false;
        *ret_id = df_bytes(p, (size_t)(dot - p));
        *ret_secret = df_bytes(dot + 1, (size_t)(end - dot - 1));
        return ret_secret->len > 0 && ret_secret->len <= AD_KEY_SECRET_MAX;
}

/* An unknown id costs as much as a wrong secret. */
static bool secret_fits(const struct dfi_key *key, struct df_bytes secret)
{
        static const uint8_t nobody[DF_SHA256_SIZE];
        uint8_t hash[DF_SHA256_SIZE];
        bool same;

        if (df_sha256(secret, hash, NULL) < 0)
                return false;
        same = df_equal_secret(df_bytes(hash, sizeof(hash)),
                               df_bytes(key ? key->hash : nobody, sizeof(hash)));
        return same && key;
}

static bool check_key(const struct dfi_key *key, const struct df_http_request *r,
                      enum ad_permission want, struct ad_identity *ret, struct ad_denial *d)
{
        struct df_bytes origin = df_http_header(r, "origin");

        if (!may(key->key_class, want))
                return deny(d, 403, "key %s is of class %s, which may not do this", key->id,
                            ad_key_class_name(key->key_class));
        if (key->key_class == AD_KEY_PUBLIC && !dfi_key_lists_origin(key, origin))
                return deny(d, 403,
                            "key %s is not for this origin; add it to the key's origins= in the "
                            "keys file",
                            key->id);
        *ret = (struct ad_identity){.key_class = key->key_class,
                                    .money_allowed = key->key_class != AD_KEY_PUBLIC};
        memcpy(ret->tenant, key->tenant, sizeof(ret->tenant));
        memcpy(ret->key_id, key->id, sizeof(ret->key_id));
        if (key->key_class == AD_KEY_PUBLIC)
                ret->origin = origin;
        return true;
}

bool ad_access_check(struct ad_access *a, const struct df_http_request *r, enum ad_permission want,
                     struct ad_identity *ret, struct ad_denial *ret_denial)
{
        struct df_bytes id, secret;
        const struct dfi_key *key;
        bool ok;

        if (!a->path) {
                if (!check_loopback(r, ret_denial))
                        return false;
                *ret = (struct ad_identity){.key_class = AD_KEY_ADMIN,
                                            .money_allowed = true,
                                            .tenant = DEFAULT_TENANT,
                                            .origin = df_http_header(r, "origin")};
                return true;
        }
        if (!split_token(df_http_header(r, "authorization"), &id, &secret))
                return deny(ret_denial, 401,
                            "send \"Authorization: Bearer KEY\"; a key is an id, a dot "
                            "and a secret");
        (void)pthread_rwlock_rdlock(&a->lock);
        key = dfi_keys_find(a->keys, id);
        if (secret_fits(key, secret))
                ok = check_key(key, r, want, ret, ret_denial);
        else
                ok = deny(ret_denial, 401,
                          "the key is not known; the keys file has no line with this id "
                          "and secret");
        (void)pthread_rwlock_unlock(&a->lock);
        return ok;
}

void ad_access_deny(struct df_http_request *r, const struct ad_denial *denial)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        struct df_http_reply reply = {
                .status = denial->status,
                .content_type = "application/json",
                .headers = denial->status == 401 ? "WWW-Authenticate: Bearer\r\n" : NULL,
        };

        ad_json_open(j);
        ad_json_key(j, "error");
        ad_json_open(j);
        ad_json_put_text(j, "code", denial->code);
        ad_json_put_text(j, "message", denial->message);
        ad_json_put_null(j, "field");
        ad_json_put_bool(j, "retryable", false);
        ad_json_close(j);
        ad_json_close(j);
        if (ad_json_end(j, &b, NULL) == 0)
                reply.body = df_buf_bytes(&b);
        df_http_reply(r, &reply);
        df_buf_release(&b);
}

bool ad_access_origin_listed(struct ad_access *a, struct df_bytes origin)
{
        bool listed = false;

        if (!a->path)
                return loopback_origin(origin);
        (void)pthread_rwlock_rdlock(&a->lock);
        for (size_t i = 0; !listed && i < a->keys->count; i++)
                listed = a->keys->list[i].key_class == AD_KEY_PUBLIC &&
                         dfi_key_lists_origin(&a->keys->list[i], origin);
        (void)pthread_rwlock_unlock(&a->lock);
        return listed;
}

/* A debt that runs off at the key's rate: a key waits while it owes more than the burst. So a batch
 * larger than the burst passes too, and pays afterwards. */
int64_t ad_access_charge(struct ad_access *a, const struct ad_identity *id, uint64_t events,
                         int64_t mono_ms)
{
        const struct dfi_key *found;
        int64_t wait_ms = 0;

        if (!a->path)
                return 0;
        (void)pthread_rwlock_rdlock(&a->lock);
        found = dfi_keys_find(a->keys, df_bytes_str(id->key_id));
        if (found && found->rate) {
                struct dfi_key *key = &a->keys->list[found - a->keys->list];
                int64_t cost_us = (int64_t)((__int128)events * 1000000 / key->rate);
                int64_t now_us = mono_ms * 1000, due = atomic_load(&key->due_us), next;

                do {
                        next = due > now_us ? due : now_us;
                        wait_ms = (next - now_us) / 1000 - AD_KEY_BURST_MS;
                        next += cost_us;
                } while (wait_ms <= 0 && events &&
                         !atomic_compare_exchange_weak(&key->due_us, &due, next));
        }
        (void)pthread_rwlock_unlock(&a->lock);
        return wait_ms > 0 ? wait_ms : 0;
}

/* ---- the file ---- */

/* A key's debt outlives a change of the file. */
static void carry_over(struct dfi_keys *keys, const struct dfi_keys *old)
{
        for (size_t i = 0; i < keys->count; i++) {
                const struct dfi_key *was = dfi_keys_find(old, df_bytes_str(keys->list[i].id));

                if (was)
                        atomic_store(&keys->list[i].due_us, atomic_load(&was->due_us));
        }
}

static struct file_state look(const char *path)
{
        struct stat st;

        if (stat(path, &st) != 0)
                return (struct file_state){0};
        return (struct file_state){
                .mtime = st.st_mtim, .size = st.st_size, .inode = st.st_ino, .there = true};
}

static bool same_state(const struct file_state *a, const struct file_state *b)
{
        return a->there == b->there && a->size == b->size && a->inode == b->inode &&
               a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec;
}

int ad_access_refresh(struct ad_access *a, struct df_error *err)
{
        struct dfi_keys *keys = NULL, *old = NULL;
        struct file_state now;
        int rc = 0;

        if (!a->path)
                return 0;
        (void)pthread_mutex_lock(&a->refreshing);
        /* Looked at before it is read: a change in between shows the next time. */
        now = look(a->path);
        if (!same_state(&now, &a->seen)) {
                a->seen = now;
                rc = dfi_keys_read(a->path, &keys, err);
        }
        if (keys) {
                (void)pthread_rwlock_wrlock(&a->lock);
                old = a->keys;
                if (old)
                        carry_over(keys, old);
                a->keys = keys;
                (void)pthread_rwlock_unlock(&a->lock);
        }
        (void)pthread_mutex_unlock(&a->refreshing);
        dfi_keys_free(old);
        return rc;
}

int ad_access_open(const char *keys, const char *listen, struct ad_access **ret,
                   struct df_error *err)
{
        struct ad_access *a;
        int rc = 0;

        if (!keys && !ad_access_listen_loopback(listen))
                return df_fail(
                        err, DF_EINVAL,
                        "--listen %s is reachable from other machines, but there is no --keys "
                        "FILE: anybody could send events and read numbers. Give --keys FILE, or "
                        "listen on 127.0.0.1",
                        listen);
        a = calloc(1, sizeof(*a));
        if (!a)
                return df_fail(err, DF_ENOMEM, "access");
        (void)pthread_rwlock_init(&a->lock, NULL);
        (void)pthread_mutex_init(&a->refreshing, NULL);
        if (keys) {
                a->path = strdup(keys);
                rc = a->path ? ad_access_refresh(a, err) : df_fail(err, DF_ENOMEM, "access");
        }
        if (rc == 0 && keys && !a->keys) /* never there: refresh saw no change */
                rc = dfi_keys_read(keys, &a->keys, err);
        if (rc < 0) {
                ad_access_close(a);
                return rc;
        }
        *ret = a;
        return 0;
}

void ad_access_close(struct ad_access *a)
{
        if (!a)
                return;
        dfi_keys_free(a->keys);
        (void)pthread_rwlock_destroy(&a->lock);
        (void)pthread_mutex_destroy(&a->refreshing);
        free(a->path);
        free(a);
}
