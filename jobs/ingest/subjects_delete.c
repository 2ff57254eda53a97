/* subjects_delete.c - keys destroyed: out of memory, out of the store, out of its files. */
#include <stdlib.h>
#include <string.h>

#include "df/run.h"
#include "jobs/ingest/subjects_private.h"

#define UNFINISHED "S" /* the key that says: deleted keys may still be in files */

struct erased {
        struct store_key keys[2 * AD_SUBJECT_DELETE_MAX];
        struct df_bytes list[2 * AD_SUBJECT_DELETE_MAX];
        size_t count;
};

/* One subject, into the open batch; out of memory once the batch is written. Under both locks. */
static int take(struct ad_subjects *s, struct ad_subject *subject, struct erased *e,
                struct df_error *err)
{
        struct fresh f;
        bool found = false;
        int rc = adi_store_name(s, subject->tenant_id, subject->user_id, f.name, err);

        if (rc == 0)
                rc = adi_store_find(s, &f, &found, err);
        if (rc == 0 && found) {
                adi_store_del(s, &f);
                adi_store_keys(&f, &e->keys[e->count]);
                e->count += 2;
        }
        subject->ret_deleted |= found;
        explicit_bzero(&f, sizeof(f));
        return rc;
}

static int unfinished(struct ad_subjects *s, bool *ret, struct df_error *err)
{
        return df_kv_get(s->kv, NULL, df_bytes_str(UNFINISHED), &s->value, ret, err);
}

/* Readers wait, so that none finds the old key after it left the memory. *ret_before: an earlier
 * deletion was cut short, of keys that nobody knows any more. */
static int delete_keys(struct ad_subjects *s, struct ad_subject *list, size_t count,
                       struct erased *e, bool *ret_before, struct df_error *err)
{
        struct df_store *store = df_kv_store(s->kv);
        int rc = unfinished(s, ret_before, err);

        for (size_t i = 0; rc == 0 && i < count; i++)
                rc = take(s, &list[i], e, err);
        if (rc == 0 && e->count && !*ret_before)
                df_store_put(store, df_bytes_str(UNFINISHED), df_bytes_str("1"));
        if (rc < 0) {
                df_store_rollback(store);
                return rc;
        }
        rc = df_store_commit(store, err);
        for (size_t i = 0; rc == 0 && i < count; i++) {
                struct subject *m = adi_subject_lookup(s, list[i].tenant_id, list[i].user_id);

                list[i].ret_deleted |= m != NULL;
                s->deleted += list[i].ret_deleted;
                if (m) /* its key may be of memory alone: what it sealed is on its way */
                        adi_subject_drop(s, m);
        }
        return rc;
}

/* Beside writers and readers. The flush at the end also begins a MANIFEST that has never heard of
 * the files which held the keys. */
static int clean_files(struct ad_subjects *s, struct erased *e, bool all, struct df_error *err)
{
        int rc = df_failpoint("subjects", "before_forget", err);

        for (size_t i = 0; i < e->count; i++)
                e->list[i] = df_bytes(e->keys[i].data, e->keys[i].len);
        if (rc == 0)
                rc = df_kv_forget(s->kv, e->list, all ? 0 : e->count, err);
        if (rc < 0)
                return rc;
        pthread_mutex_lock(&s->write);
        df_store_del(df_kv_store(s->kv), df_bytes_str(UNFINISHED));
        rc = df_store_commit(df_kv_store(s->kv), err);
        pthread_mutex_unlock(&s->write);
        return rc < 0 ? rc : df_kv_flush(s->kv, err);
}

int ad_subjects_delete(struct ad_subjects *s, struct ad_subject *list, size_t count,
                       struct df_error *err)
{
        struct erased *e = calloc(1, sizeof(*e));
        bool before = false;
        int rc = 0;

        df_check(count <= AD_SUBJECT_DELETE_MAX);
        if (!e)
                return df_fail(err, DF_ENOMEM, "deletion of user ids");
        pthread_mutex_lock(&s->write);
        pthread_mutex_lock(&s->lock);
        if (!s->kv || s->closed)
                rc = adi_store_closed(s, err);
        else
                rc = delete_keys(s, list, count, e, &before, err);
        s->forgetting = rc == 0 && (e->count || before);
        pthread_mutex_unlock(&s->lock);
        if (rc < 0 && s->kv && rc != DF_EAGAIN)
                (void)adi_store_failed(s, rc);
        pthread_mutex_unlock(&s->write);
        if (s->forgetting) {
                rc = clean_files(s, e, before, err);
                pthread_mutex_lock(&s->write);
                s->forgetting = false;
                if (rc < 0)
                        (void)adi_store_failed(s, rc);
                pthread_mutex_unlock(&s->write);
        }
        explicit_bzero(e, sizeof(*e));
        free(e);
        return rc < 0 ? df_wrap(err, "deletion of user ids") : 0;
}
