/* subjects.c - subjects in memory: looking up, sealing, and their keys to disk. */
#include "jobs/ingest/subjects.h"

#include <stdlib.h>
#include <string.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/ingest/subjects_private.h"

/* ---- in memory ---- */

static uint64_t hash_of(const struct ad_subjects *s, struct df_bytes tenant, struct df_bytes user)
{
        uint8_t text[sizeof(s->salt) + 1 + 2 * AD_ID_MAX];
        size_t n = sizeof(s->salt);

        df_check(tenant.len <= AD_ID_MAX && user.len <= AD_ID_MAX);
        memcpy(text, &s->salt, n);
        text[n++] = (uint8_t)tenant.len;
        if (tenant.len)
                memcpy(text + n, tenant.data, tenant.len);
        memcpy(text + n + tenant.len, user.data, user.len);
        return df_hash64(df_bytes(text, n + tenant.len + user.len));
}

static struct subject *lookup(struct ad_subjects *s, uint64_t hash, struct df_bytes tenant,
                              struct df_bytes user)
{
        struct subject *e = s->buckets[hash % BUCKETS];

        for (; e; e = e->next)
                if (e->hash == hash && df_bytes_eq(df_bytes(e->bytes, e->tenant_len), tenant) &&
                    df_bytes_eq(df_bytes(e->bytes + e->tenant_len, e->user_len), user))
                        return e;
        return NULL;
}

struct subject *adi_subject_lookup(struct ad_subjects *s, struct df_bytes tenant,
                                   struct df_bytes user)
{
        return lookup(s, hash_of(s, tenant, user), tenant, user);
}

static void release(struct ad_subjects *s, struct subject *e)
{
        struct subject **at = &s->buckets[e->hash % BUCKETS];

        while (*at != e)
                at = &(*at)->next;
        *at = e->next;
        if (e->fresh)
                explicit_bzero(e->fresh, sizeof(*e->fresh));
        free(e->fresh);
        explicit_bzero(e->bytes, (size_t)e->tenant_len + e->user_len + e->sealed_len);
        free(e);
}

/* A place for one more: behind the last, or that of one which was not used for a round. */
static uint32_t make_room(struct ad_subjects *s)
{
        if (s->slot_count < AD_SUBJECT_CACHE_MAX)
                return (uint32_t)s->slot_count++;
        for (;; s->hand = (s->hand + 1) % AD_SUBJECT_CACHE_MAX) {
                struct subject *e = s->slots[s->hand];

                if (!e->used) {
                        release(s, e);
                        return (uint32_t)s->hand;
                }
                e->used = false;
        }
}

static void cache(struct ad_subjects *s, struct subject *e)
{
        e->slot = make_room(s);
        s->slots[e->slot] = e;
}

void adi_subject_drop(struct ad_subjects *s, struct subject *e)
{
        struct pending *p = &s->pending;
        size_t i = 0;

        if (e->fresh) {
                while (p->list[i] != e)
                        i++;
                memmove(p->list + i, p->list + i + 1, (p->count - i - 1) * sizeof(*p->list));
                p->count--;
        } else {
                struct subject *last = s->slots[--s->slot_count];

                s->slots[e->slot] = last;
                last->slot = e->slot;
                s->hand = s->hand < s->slot_count ? s->hand : 0;
        }
        release(s, e);
}

/* ---- sealing ---- */

/* Key id, ciphertext and tag of f's key into a new entry. */
static int add(struct ad_subjects *s, uint64_t hash, struct df_bytes tenant, struct df_bytes user,
               const struct fresh *f, struct subject **ret, struct df_error *err)
{
        size_t sealed_len = KEY_ID_SIZE + user.len + DF_CIPHER_TAG_SIZE;
        struct subject *e = malloc(sizeof(*e) + tenant.len + user.len + sealed_len);
        uint8_t *sealed;
        int rc;

        if (!e)
                return df_fail(err, DF_ENOMEM, "user ids");
        *e = (struct subject){.hash = hash,
                              .tenant_len = (uint8_t)tenant.len,
                              .user_len = (uint8_t)user.len,
                              .sealed_len = (uint8_t)sealed_len};
        if (tenant.len)
                memcpy(e->bytes, tenant.data, tenant.len);
        memcpy(e->bytes + tenant.len, user.data, user.len);
        sealed = e->bytes + tenant.len + user.len;
        memcpy(sealed, f->id, KEY_ID_SIZE);
        /* The one text that this key ever seals, so a fixed nonce is sound (df/cipher.h); bound to
         * the tenant, so that no other one's key opens it. */
        rc = df_cipher_seal(f->key, tenant, user, sealed + KEY_ID_SIZE, err);
        if (rc < 0) {
                free(e);
                return rc;
        }
        e->next = s->buckets[hash % BUCKETS];
        s->buckets[hash % BUCKETS] = e;
        *ret = e;
        return 0;
}

static int create(struct ad_subjects *s, uint64_t hash, struct df_bytes tenant,
                  struct df_bytes user, struct fresh *f, struct subject **ret, struct df_error *err)
{
        struct fresh *kept;
        int rc;

        if (s->pending.count + s->writing.count >= AD_SUBJECT_PENDING_MAX)
                return df_fail(err, DF_EAGAIN, "%zu new users wait to be written",
                               s->pending.count + s->writing.count);
        rc = df_random(f->id, sizeof(f->id), err);
        if (rc == 0)
                rc = df_random(f->key, sizeof(f->key), err);
        if (rc < 0)
                return rc;
        kept = malloc(sizeof(*kept));
        if (!kept)
                return df_fail(err, DF_ENOMEM, "user ids");
        *kept = *f;
        rc = add(s, hash, tenant, user, f, ret, err);
        if (rc < 0) {
                free(kept);
                return rc;
        }
        (*ret)->fresh = kept;
        s->pending.list[s->pending.count++] = *ret;
        s->created++;
        return 0;
}

/* Not in memory: from the store, or new. */
static int meet(struct ad_subjects *s, uint64_t hash, struct df_bytes tenant, struct df_bytes user,
                struct subject **ret, struct df_error *err)
{
        struct fresh f;
        bool found = false;
        int rc = adi_store_name(s, tenant, user, f.name, err);

        if (rc == 0)
                rc = adi_store_find(s, &f, &found, err);
        if (rc == 0 && !found)
                rc = create(s, hash, tenant, user, &f, ret, err);
        else if (rc == 0)
                rc = add(s, hash, tenant, user, &f, ret, err);
        if (rc == 0 && found)
                cache(s, *ret);
        explicit_bzero(&f, sizeof(f));
        return rc;
}

static int seal(struct ad_subjects *s, struct ad_event *ev, struct df_arena *arena,
                struct df_error *err)
{
        uint64_t hash = hash_of(s, ev->tenant_id, ev->user_id);
        struct subject *e = lookup(s, hash, ev->tenant_id, ev->user_id);
        struct df_bytes sealed;
        int rc = e ? 0 : meet(s, hash, ev->tenant_id, ev->user_id, &e, err);

        if (rc < 0)
                return rc;
        e->used = true;
        sealed = df_bytes(e->bytes + e->tenant_len + e->user_len, e->sealed_len);
        sealed = df_arena_copy(arena, sealed); /* the entry may go at any time */
        if (!sealed.data)
                return df_fail(err, DF_ENOMEM, "user ids");
        ev->user_id = sealed;
        ev->flags |= AD_EV_USER_SEALED;
        return 0;
}

int ad_subjects_seal(struct ad_subjects *s, struct ad_event *events, size_t count,
                     struct df_arena *arena, struct df_error *err)
{
        size_t i = 0;
        int rc = 0;

        while (i < count && events[i].user_id.len == 0)
                i++;
        if (i == count)
                return 0; /* without the lock */
        pthread_mutex_lock(&s->lock);
        for (; rc == 0 && i < count; i++)
                if (events[i].user_id.len && !(events[i].flags & AD_EV_USER_SEALED))
                        rc = seal(s, &events[i], arena, err);
        pthread_mutex_unlock(&s->lock);
        return rc;
}

/* ---- to disk ---- */

static void take_pending(struct ad_subjects *s)
{
        struct pending none = s->writing;

        s->writing = s->pending;
        s->pending = none;
}

/* What was written is an entry of the cache like others; what was not waits again, first. */
static void settle(struct ad_subjects *s, int rc)
{
        struct pending *w = &s->writing, *p = &s->pending;

        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; rc == 0 && i < w->count; i++) {
                struct subject *e = w->list[i];

                explicit_bzero(e->fresh, sizeof(*e->fresh));
                free(e->fresh);
                e->fresh = NULL;
                cache(s, e);
        }
        if (rc < 0) {
                memmove(p->list + w->count, p->list, p->count * sizeof(*p->list));
                memcpy(p->list, w->list, w->count * sizeof(*p->list));
                p->count += w->count;
        }
        w->count = 0;
        pthread_mutex_unlock(&s->lock);
}

static int write_keys(struct ad_subjects *s, struct df_error *err)
{
        int rc = 0;

        if (!s->kv) {
                pthread_mutex_lock(&s->lock);
                rc = adi_store_closed(s, err);
                pthread_mutex_unlock(&s->lock);
                return rc;
        }
        rc = df_failpoint("subjects", "before_keys", err);
        for (size_t i = 0; rc == 0 && i < s->writing.count; i++)
                adi_store_put(s, s->writing.list[i]->fresh);
        if (rc == 0)
                rc = df_store_commit(df_kv_store(s->kv), err);
        if (rc < 0)
                return adi_store_failed(s, rc);
        return df_failpoint("subjects", "after_keys", err);
}

int ad_subjects_commit(struct ad_subjects *s, struct df_error *err)
{
        bool none;
        int rc = 0;

        pthread_mutex_lock(&s->write);
        pthread_mutex_lock(&s->lock);
        none = s->pending.count == 0;
        if (!none)
                take_pending(s);
        pthread_mutex_unlock(&s->lock);
        if (!none) {
                /* Entries of `writing` stay where they are: only who holds `write` drops them. */
                rc = write_keys(s, err);
                settle(s, rc);
        }
        pthread_mutex_unlock(&s->write);
        return rc < 0 ? df_wrap(err, "keys of user ids") : 0;
}

void ad_subjects_tick(struct ad_subjects *s)
{
        struct df_error err = {0};
        bool again;

        if (pthread_mutex_trylock(&s->write) != 0)
                return;
        pthread_mutex_lock(&s->lock);
        if (s->closed && s->kv && !s->forgetting) { /* it failed while files were rewritten */
                df_kv_close(s->kv);
                s->kv = NULL;
        }
        again = !s->kv && adi_store_open(s, &err) == 0;
        pthread_mutex_unlock(&s->lock);
        pthread_mutex_unlock(&s->write);
        if (again)
                df_trace(DF_INFO, "subjects", "the store of user ids' keys is open again");
}

/* ---- reading ---- */

int ad_subjects_find(struct ad_subjects *s, struct df_bytes tenant_id, struct df_bytes user_id,
                     bool *ret_found, struct df_error *err)
{
        struct fresh f;
        int rc = 0;

        pthread_mutex_lock(&s->lock);
        *ret_found = adi_subject_lookup(s, tenant_id, user_id) != NULL;
        if (!*ret_found)
                rc = adi_store_name(s, tenant_id, user_id, f.name, err);
        if (rc == 0 && !*ret_found)
                rc = adi_store_find(s, &f, ret_found, err);
        pthread_mutex_unlock(&s->lock);
        explicit_bzero(&f, sizeof(f));
        return rc;
}

int ad_subjects_open_id(struct ad_subjects *s, struct df_bytes tenant_id, struct df_bytes sealed,
                        uint8_t *ret, size_t *ret_len, struct df_error *err)
{
        const size_t around = KEY_ID_SIZE + DF_CIPHER_TAG_SIZE;
        uint8_t key[DF_CIPHER_KEY_SIZE];
        bool found = false;
        int rc;

        if (sealed.len <= around || sealed.len > AD_SEALED_ID_MAX)
                return df_fail(err, DF_EPARSE, "a sealed user id has %zu to %d bytes, not %zu",
                               around + 1, AD_SEALED_ID_MAX, sealed.len);
        pthread_mutex_lock(&s->lock);
        rc = adi_store_key(s, sealed.data, key, &found, err);
        pthread_mutex_unlock(&s->lock);
        if (rc == 0 && !found)
                rc = df_fail(err, DF_ENOENT,
                             "its key is not here: it was destroyed, or another machine made it");
        if (rc == 0) {
                sealed = df_bytes(sealed.data + KEY_ID_SIZE, sealed.len - KEY_ID_SIZE);
                rc = df_cipher_open(key, tenant_id, sealed, ret, err);
                if (rc == DF_ECORRUPT)
                        rc = df_fail(err, DF_EPARSE, "no sealed user id of this tenant");
        }
        *ret_len = rc == 0 ? sealed.len - DF_CIPHER_TAG_SIZE : 0;
        explicit_bzero(key, sizeof(key));
        return rc;
}

void ad_subjects_stats(struct ad_subjects *s, struct ad_subjects_stats *ret)
{
        pthread_mutex_lock(&s->lock);
        *ret = (struct ad_subjects_stats){
                .created = s->created,
                .deleted = s->deleted,
                .cached = s->slot_count,
                .pending = s->pending.count + s->writing.count,
                .open = s->kv != NULL && !s->closed,
        };
        pthread_mutex_unlock(&s->lock);
}

/* ---- life ---- */

int ad_subjects_open(const char *data_dir, struct ad_subjects **ret, struct df_error *err)
{
        struct ad_subjects *s = calloc(1, sizeof(*s));
        int rc;

        if (!s)
                return df_fail(err, DF_ENOMEM, "user ids");
        pthread_mutex_init(&s->write, NULL);
        pthread_mutex_init(&s->lock, NULL);
        s->buckets = calloc(BUCKETS, sizeof(struct subject *));
        s->slots = calloc(AD_SUBJECT_CACHE_MAX, sizeof(struct subject *));
        s->pending.list = calloc(AD_SUBJECT_PENDING_MAX, sizeof(struct subject *));
        s->writing.list = calloc(AD_SUBJECT_PENDING_MAX, sizeof(struct subject *));
        rc = s->buckets && s->slots && s->pending.list && s->writing.list
                     ? df_random(&s->salt, sizeof(s->salt), err)
                     : df_fail(err, DF_ENOMEM, "user ids");
        if (rc == 0)
                rc = adi_store_secret(s, data_dir, err);
        if (rc == 0) {
                rc = adi_store_open(s, err);
                if (rc == DF_ENOSPC) { /* until the disk has room: refused with that code */
                        df_trace(DF_WARN, "subjects", "code=%s: %s", df_err_code(rc), err->text);
                        rc = 0;
                }
        }
        if (rc < 0) {
                ad_subjects_close(s);
                return rc;
        }
        *ret = s;
        return 0;
}

void ad_subjects_close(struct ad_subjects *s)
{
        if (!s)
                return;
        df_kv_close(s->kv);
        for (size_t i = 0; s->buckets && i < BUCKETS; i++)
                while (s->buckets[i])
                        release(s, s->buckets[i]);
        df_buf_release(&s->value);
        free(s->buckets);
        free(s->slots);
        free(s->pending.list);
        free(s->writing.list);
        pthread_mutex_destroy(&s->write);
        pthread_mutex_destroy(&s->lock);
        explicit_bzero(s->secret, sizeof(s->secret));
        free(s);
}
