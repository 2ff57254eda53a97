/* s3_list.c - names in an S3 bucket: ListObjectsV2, page by page. */
#include "objects_private.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 1024 /* bytes of a key in S3 */

struct page {
        const struct dfi_s3 *s;
        struct df_buf entries; /* u64 size, name, NUL: of each object of ours */
        char key[KEY_MAX + 1];
        bool has_key, has_size;
        uint64_t size;
        char last[KEY_MAX + 1]; /* the key before, of the pages before too */
        bool cut;
        struct df_buf token; /* of the next page */
};

static int corrupt(const struct page *p, const char *what, struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT, "%s: the list of objects: %s", p->s->place, what);
}

static int on_key(struct page *p, struct df_bytes text, struct df_error *err)
{
        if (text.len == 0 || text.len > KEY_MAX || memchr(text.data, 0, text.len))
                return corrupt(p, "a key that is none", err);
        memcpy(p->key, text.data, text.len);
        p->key[text.len] = '\0';
        p->has_key = true;
        return 0;
}

static int on_size(struct page *p, struct df_bytes text, struct df_error *err)
{
        p->size = 0;
        if (text.len == 0 || text.len > 18)
                return corrupt(p, "a size that is none", err);
        for (size_t i = 0; i < text.len; i++) {
                if (text.data[i] < '0' || text.data[i] > '9')
                        return corrupt(p, "a size that is none", err);
                p->size = p->size * 10 + (uint64_t)(text.data[i] - '0');
        }
        p->has_size = true;
        return 0;
}

static int on_object(struct page *p, struct df_error *err)
{
        size_t prefix = strlen(p->s->prefix);

        if (!p->has_key || !p->has_size)
                return corrupt(p, "an object without its key or size", err);
        p->has_key = p->has_size = false;
        if (strcmp(p->last, p->key) >= 0)
                return df_fail(err, DF_ESCHEMA,
                               "%s: the store does not list its keys in the order of their bytes "
                               "(\"%.80s\" after \"%.80s\"): use a general purpose bucket",
                               p->s->place, p->key, p->last);
        memcpy(p->last, p->key, sizeof(p->last));
        if (strncmp(p->key, p->s->prefix, prefix) != 0)
                return corrupt(p, "a key outside the prefix", err);
        if (!dfi_object_name_ok(p->key + prefix))
                return 0; /* not of this port */
        df_buf_append(&p->entries, &p->size, sizeof(p->size));
        df_buf_append(&p->entries, p->key + prefix, strlen(p->key + prefix) + 1);
        return df_buf_check(&p->entries, err);
}

static int on_element(void *arg, const char *path, struct df_bytes text, struct df_error *err)
{
        static const char top[] = "ListBucketResult";
        struct page *p = arg;

        if (strncmp(path, top, sizeof(top) - 1) != 0)
                return corrupt(p, "another answer than ListBucketResult", err);
        path += sizeof(top) - 1;
        if (strcmp(path, "/Contents/Key") == 0)
                return on_key(p, text, err);
        if (strcmp(path, "/Contents/Size") == 0)
                return on_size(p, text, err);
        if (strcmp(path, "/Contents") == 0)
                return on_object(p, err);
        if (strcmp(path, "/IsTruncated") == 0)
                p->cut = df_bytes_eq(text, df_bytes_str("true"));
        if (strcmp(path, "/NextContinuationToken") == 0) {
                df_buf_append(&p->token, text.data, text.len);
                df_buf_append(&p->token, "", 1);
                return df_buf_check(&p->token, err);
        }
        return 0;
}

/* Reads the page that p->token names, into p. */
static int read_page(struct dfi_s3 *s, const char *prefix, struct page *p, struct df_error *err)
{
        struct dfi_xml_handler h = {.end = on_element, .arg = p};
        struct df_buf query = {0};
        struct dfi_s3_call c = {.method = "GET", .answer_max = DFI_S3_LIST_MAX};
        int rc;

        if (p->token.len > 0) {
                df_buf_printf(&query, "continuation-token=");
                dfi_s3_encode(&query, (const char *)p->token.data, "");
                df_buf_printf(&query, "&");
        }
        df_buf_printf(&query, "list-type=2&max-keys=%u&prefix=", s->page);
        dfi_s3_encode(&query, s->prefix, "");
        dfi_s3_encode(&query, prefix, "");
        df_buf_append(&query, "", 1);
        df_buf_clear(&p->token);
        df_buf_clear(&p->entries);
        p->cut = false;
        rc = df_buf_check(&query, err);
        if (rc == 0) {
                c.query = (const char *)query.data;
                rc = dfi_s3_call(s, &c, err);
        }
        if (rc == 0 && c.status != 200)
                rc = dfi_s3_fail(s, &c, err);
        if (rc == 0)
                rc = dfi_xml_read(df_buf_bytes(&c.answer), &h, err);
        if (rc == 0 && p->cut && p->token.len <= 1)
                rc = corrupt(p, "more to come, and no token to ask for it", err);
        df_buf_release(&query);
        dfi_s3_release(&c);
        return rc;
}

static int tell(const struct page *p, df_objects_fn *fn, void *arg)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < p->entries.len;) {
                const char *name = (const char *)p->entries.data + i + sizeof(uint64_t);
                uint64_t size;

                memcpy(&size, p->entries.data + i, sizeof(size));
                rc = fn(arg, name, size);
                i += sizeof(size) + strlen(name) + 1;
        }
        return rc;
}

int dfi_s3_list(struct df_objects *o, const char *prefix, df_objects_fn *fn, void *arg,
                struct df_error *err)
{
        struct dfi_s3 *s = (struct dfi_s3 *)(void *)o;
        int rc = dfi_object_prefix(s->place, prefix, err);
        struct page *p;

        if (rc != 0)
                return rc;
        p = calloc(1, sizeof(*p));
        if (!p)
                return df_fail(err, DF_ENOMEM, "%s: a list", s->place);
        p->s = s;
        do {
                rc = read_page(s, prefix, p, err);
                if (rc == 0)
                        rc = tell(p, fn, arg);
        } while (rc == 0 && p->cut);
        df_buf_release(&p->entries);
        df_buf_release(&p->token);
        free(p);
        return rc;
}
