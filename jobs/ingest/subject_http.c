/* subject_http.c - /subjects: whether a user has a key, what a sealed id says, and deletion, on a
 * thread of its own, since it rewrites files. Requests that wait together are done together. */
#include <stdlib.h>

#include "df/sha256.h"
#include "df/trace.h"
#include "jobs/common/json.h"
#include "jobs/ingest/serve_private.h"

#define WAITING_MAX 1000

struct erasure { /* a DELETE that waits */
        struct erasure *next;
        struct df_http_request *http; /* its tail is the user_id */
        char tenant[AD_ID_MAX + 1];
};

struct dfi_eraser {
        struct ad_subjects *subjects;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
        struct erasure *first, **last;
        size_t waiting;
};

/* ---- answers ---- */

static void answer(struct df_http_request *r, const char *name, struct df_bytes text, bool flag)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        struct df_http_reply a = {.status = 200, .content_type = "application/json"};

        ad_json_open(j);
        if (text.data)
                ad_json_put_bytes(j, name, text);
        else
                ad_json_put_bool(j, name, flag);
        ad_json_close(j);
        if (ad_json_end(j, &b, NULL) < 0) {
                df_http_fail(r, 503, "unavailable", NULL, true, 1, "out of memory");
        } else {
                a.body = df_buf_bytes(&b);
                df_http_reply(r, &a);
        }
        df_buf_release(&b);
}

static void refuse(struct df_http_request *r, const struct df_error *err)
{
        if (err->code == DF_ENOENT)
                df_http_fail(r, 404, "subject_deleted", NULL, false, 0, "%s", err->text);
        else if (err->code == DF_EPARSE)
                df_http_fail(r, 400, "bad_sealed_id", "sealed", false, 0, "%s", err->text);
        else
                df_http_fail(r, 503, err->code == DF_ENOSPC ? "disk_full" : "unavailable", NULL,
                             true, 1, "%s", err->text);
}

/* ---- deletion ---- */

static void erase(struct dfi_eraser *e, struct erasure *list)
{
        struct ad_subject subjects[AD_SUBJECT_DELETE_MAX];
        struct df_error err = {0};
        size_t n = 0;
        int rc;

        for (struct erasure *w = list; w; w = w->next)
                subjects[n++] = (struct ad_subject){.tenant_id = df_bytes_str(w->tenant),
                                                    .user_id = w->http->tail};
        rc = ad_subjects_delete(e->subjects, subjects, n, &err);
        if (rc < 0)
                df_trace(DF_ERROR, "subjects", "code=%s: %s", df_err_code(rc), err.text);
        for (size_t i = 0; list; i++) {
                struct erasure *w = list;

                list = w->next;
                if (rc < 0)
                        refuse(w->http, &err);
                else
                        answer(w->http, "deleted", df_bytes(NULL, 0), subjects[i].ret_deleted);
                free(w);
        }
}

/* At most AD_SUBJECT_DELETE_MAX that wait; NULL: none, and none will come. */
static struct erasure *next_list(struct dfi_eraser *e)
{
        struct erasure *list, **end;
        size_t n = 0;

        pthread_mutex_lock(&e->lock);
        while (!e->first && !e->stop)
                pthread_cond_wait(&e->wake, &e->lock);
        list = e->first;
        for (end = &list; *end && n < AD_SUBJECT_DELETE_MAX; n++)
                end = &(*end)->next;
        e->first = *end;
        *end = NULL;
        if (!e->first)
                e->last = &e->first;
        e->waiting -= n;
        pthread_mutex_unlock(&e->lock);
        return list;
}

static void *eraser(void *arg)
{
        struct dfi_eraser *e = arg;
        struct erasure *list;

        erase(e, NULL); /* ends a deletion that a crash cut short */
        while ((list = next_list(e)))
                erase(e, list);
        return NULL;
}

int dfi_eraser_start(struct ad_subjects *subjects, struct dfi_eraser **ret, struct df_error *err)
{
        struct dfi_eraser *e = calloc(1, sizeof(*e));

        if (!e)
                return df_fail(err, DF_ENOMEM, "deletion of user ids");
        e->subjects = subjects;
        e->last = &e->first;
        pthread_mutex_init(&e->lock, NULL);
        pthread_cond_init(&e->wake, NULL);
        if (pthread_create(&e->thread, NULL, eraser, e) != 0) {
                pthread_mutex_destroy(&e->lock);
                pthread_cond_destroy(&e->wake);
                free(e);
                return df_fail(err, DF_EAGAIN, "thread for deletions");
        }
        *ret = e;
        return 0;
}

void dfi_eraser_stop(struct dfi_eraser *e)
{
        if (!e)
                return;
        pthread_mutex_lock(&e->lock);
        e->stop = true;
        pthread_cond_signal(&e->wake);
        pthread_mutex_unlock(&e->lock);
        (void)pthread_join(e->thread, NULL);
        pthread_mutex_destroy(&e->lock);
        pthread_cond_destroy(&e->wake);
        free(e);
}

static void queue(struct dfi_eraser *e, struct df_http_request *r, const char *tenant)
{
        struct erasure *w = calloc(1, sizeof(*w));
        bool full;

        pthread_mutex_lock(&e->lock);
        full = !w || e->waiting >= WAITING_MAX;
        if (!full) {
                w->http = r;
                memcpy(w->tenant, tenant, strlen(tenant) + 1);
                *e->last = w;
                e->last = &w->next;
                e->waiting++;
                pthread_cond_signal(&e->wake);
        }
        pthread_mutex_unlock(&e->lock);
        if (!full)
                return;
        free(w);
        df_http_fail(r, 503, "overloaded", NULL, true, 2, "%d deletions wait", WAITING_MAX);
}

/* ---- requests ---- */

/* NULL: there is none. */
static const struct df_bytes *sealed_param(const struct df_http_request *r)
{
        for (size_t i = 0; i < r->param_count; i++)
                if (df_bytes_eq(r->params[i].name, df_bytes_str("sealed")))
                        return &r->params[i].value;
        return NULL;
}

static int digit(uint8_t c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes, or none: then *hex is no sealed id either. */
static size_t from_hex(struct df_bytes hex, uint8_t ret[AD_SEALED_ID_MAX])
{
        if (hex.len % 2 || hex.len > (size_t)2 * AD_SEALED_ID_MAX)
                return 0;
        for (size_t i = 0; i < hex.len / 2; i++) {
                int high = digit(hex.data[2 * i]), low = digit(hex.data[2 * i + 1]);

                if (high < 0 || low < 0)
                        return 0;
                ret[i] = (uint8_t)(high << 4 | low);
        }
        return hex.len / 2;
}

static void open_id(struct ad_serve *s, struct df_http_request *r, const char *tenant,
                    struct df_bytes hex)
{
        uint8_t sealed[AD_SEALED_ID_MAX], user[AD_ID_MAX];
        struct df_error err = {0};
        size_t len = from_hex(hex, sealed), user_len = 0;

        if (len == 0)
                df_http_fail(r, 400, "bad_sealed_id", "sealed", false, 0,
                             "sealed is user_id_sealed of an event, in lower-case hexadecimal");
        else if (!s->o.subjects)
                df_http_fail(r, 404, "subject_deleted", NULL, false, 0,
                             "this machine has no keys of user ids");
        else if (ad_subjects_open_id(s->o.subjects, df_bytes_str(tenant), df_bytes(sealed, len),
                                     user, &user_len, &err) < 0)
                refuse(r, &err);
        else
                answer(r, "user_id", df_bytes(user, user_len), false);
}

static void show(struct ad_serve *s, struct df_http_request *r, const char *tenant)
{
        struct df_error err = {0};
        bool found = false;

        if (s->o.subjects &&
            ad_subjects_find(s->o.subjects, df_bytes_str(tenant), r->tail, &found, &err) < 0)
                refuse(r, &err);
        else
                answer(r, "key", df_bytes(NULL, 0), found);
}

void dfi_subject_handle(void *arg, struct df_http_request *r)
{
        struct ad_serve *s = arg;
        const struct df_bytes *sealed = sealed_param(r);
        struct ad_identity id;
        struct ad_denial denial;

        if (!ad_access_check(s->o.access, r, AD_MAY_ADMIN, &id, &denial))
                ad_access_deny(r, &denial);
        else if (r->tail.len > AD_ID_MAX)
                df_http_fail(r, 400, "too_long", "user_id", false, 0,
                             "a user_id has at most %d bytes", AD_ID_MAX);
        else if (r->method == DF_HTTP_DELETE && s->eraser)
                queue(s->eraser, r, id.tenant);
        else if (r->method == DF_HTTP_DELETE)
                answer(r, "deleted", df_bytes(NULL, 0), false);
        else if (sealed && df_bytes_eq(r->tail, df_bytes_str("open")))
                open_id(s, r, id.tenant, *sealed);
        else
                show(s, r, id.tenant);
}
