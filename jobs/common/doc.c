#include "jobs/common/doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <yajl/yajl_parse.h>

/* Enough for what it is used for; nodes of larger documents grow. */
#define NODES_FIRST 64

struct reader {
        struct df_arena *arena;
        struct ad_doc *doc;
        uint32_t cap, max;
        uint32_t open[AD_DOC_DEPTH_MAX]; /* containers that the next value lies in */
        uint32_t depth;
        struct df_bytes name;
        char why[160];
        int code;
};

static int stop(struct reader *r, int code, const char *why)
{
        r->code = code;
        (void)snprintf(r->why, sizeof(r->why), "%s", why);
        return 0; /* yajl: do not go on */
}

static struct ad_doc_node *add(struct reader *r, enum ad_doc_kind kind)
{
        struct ad_doc *d = r->doc;
        struct ad_doc_node *n;

        if (d->count == r->max) {
                char why[48];

                (void)snprintf(why, sizeof(why), "it has more than %u values", r->max);
                (void)stop(r, DF_ELIMIT, why);
                return NULL;
        }
        if (d->count == r->cap) {
                uint32_t cap = r->cap ? 2 * r->cap : NODES_FIRST;

                n = df_arena_alloc(r->arena, cap * sizeof(*n));
                if (!n) {
                        (void)stop(r, DF_ENOMEM, "out of memory");
                        return NULL;
                }
                if (d->count)
                        memcpy(n, d->nodes, d->count * sizeof(*n));
                d->nodes = n;
                r->cap = cap;
        }
        n = &d->nodes[d->count++];
        *n = (struct ad_doc_node){.kind = kind, .next = d->count, .name = r->name};
        r->name = df_bytes(NULL, 0);
        return n;
}

static int open_container(struct reader *r, enum ad_doc_kind kind)
{
        if (r->depth == AD_DOC_DEPTH_MAX)
                return stop(r, DF_EPARSE, "it is nested too deeply");
        if (!add(r, kind))
                return 0;
        r->open[r->depth++] = r->doc->count - 1;
        return 1;
}

static int close_container(void *arg)
{
        struct reader *r = arg;

        r->doc->nodes[r->open[--r->depth]].next = r->doc->count;
        return 1;
}

static int on_map(void *arg)
{
        return open_container(arg, AD_DOC_OBJECT);
}

static int on_array(void *arg)
{
        return open_container(arg, AD_DOC_ARRAY);
}

/* yajl lets surrogates through, in the bytes of a text as well as escaped. */
static bool holds_surrogate(const uint8_t *text, size_t len)
{
        for (size_t i = 0; i + 1 < len; i++)
                if (text[i] == 0xed && text[i + 1] >= 0xa0)
                        return true;
        return false;
}

static int copy(struct reader *r, const void *text, size_t len, struct df_bytes *ret)
{
        if (len && memchr(text, 0, len))
                return stop(r, DF_EPARSE, "a text holds the character 0");
        if (holds_surrogate(text, len))
                return stop(r, DF_EPARSE, "a text holds half a character");
        *ret = df_arena_copy(r->arena, df_bytes(text, len));
        return len == 0 || ret->data ? 1 : stop(r, DF_ENOMEM, "out of memory");
}

static int on_key(void *arg, const unsigned char *text, size_t len)
{
        struct reader *r = arg;
        const struct ad_doc *d = r->doc;
        uint32_t object = r->open[r->depth - 1];

        for (uint32_t i = object + 1; i < d->count; i = d->nodes[i].next)
                if (df_bytes_eq(d->nodes[i].name, df_bytes(text, len))) {
                        char why[120];

                        (void)snprintf(why, sizeof(why), "\"%.*s\" stands there twice",
                                       (int)(len < 64 ? len : 64), (const char *)text);
                        return stop(r, DF_EPARSE, why);
                }
        return copy(r, text, len, &r->name);
}

static int leaf(struct reader *r, enum ad_doc_kind kind, const void *text, size_t len)
{
        struct ad_doc_node *n = add(r, kind);

        return n ? copy(r, text, len, &n->text) : 0;
}

static int on_text(void *arg, const unsigned char *text, size_t len)
{
        return leaf(arg, AD_DOC_TEXT, text, len);
}

static int on_number(void *arg, const char *text, size_t len)
{
        return leaf(arg, AD_DOC_NUMBER, text, len);
}

static int on_bool(void *arg, int yes)
{
        struct ad_doc_node *n = add(arg, AD_DOC_BOOL);

        if (n)
                n->yes = yes != 0;
        return n != NULL;
}

static int on_null(void *arg)
{
        return add(arg, AD_DOC_NULL) != NULL;
}

static int failed(yajl_handle h, struct reader *r, struct df_error *err)
{
        size_t at = yajl_get_bytes_consumed(h);

        if (r->code)
                return df_fail(err, r->code, "%s, near byte %zu", r->why, at);
        return df_fail(err, DF_EPARSE, "it is not valid JSON, near byte %zu", at);
}

int ad_doc_parse(struct df_bytes json, uint32_t nodes_max, struct df_arena *arena,
                 struct ad_doc *ret, struct df_error *err)
{
        static const yajl_callbacks callbacks = {
                .yajl_null = on_null,
                .yajl_boolean = on_bool,
                .yajl_number = on_number,
                .yajl_string = on_text,
                .yajl_start_map = on_map,
                .yajl_map_key = on_key,
                .yajl_end_map = close_container,
                .yajl_start_array = on_array,
                .yajl_end_array = close_container,
        };
        struct reader r = {.arena = arena, .doc = ret, .max = nodes_max};
        yajl_handle h = yajl_alloc(&callbacks, NULL, &r);
        int rc = 0;

        *ret = (struct ad_doc){0};
        if (!h)
                return df_fail(err, DF_ENOMEM, "JSON");
        if (yajl_parse(h, json.data, json.len) != yajl_status_ok ||
            yajl_complete_parse(h) != yajl_status_ok)
                rc = failed(h, &r, err);
        else if (ret->count == 0)
                rc = df_fail(err, DF_EPARSE, "it is empty, not JSON");
        yajl_free(h);
        return rc;
}

const struct ad_doc_node *ad_doc_first(const struct ad_doc *d, const struct ad_doc_node *container)
{
        uint32_t at = (uint32_t)(container - d->nodes);

        return container->next > at + 1 ? container + 1 : NULL;
}

const struct ad_doc_node *ad_doc_after(const struct ad_doc *d, const struct ad_doc_node *container,
                                       const struct ad_doc_node *at)
{
        return at->next < container->next ? &d->nodes[at->next] : NULL;
}

const struct ad_doc_node *ad_doc_member(const struct ad_doc *d, const struct ad_doc_node *object,
                                        const char *name)
{
        const struct ad_doc_node *n;

        if (object->kind != AD_DOC_OBJECT)
                return NULL;
        for (n = ad_doc_first(d, object); n; n = ad_doc_after(d, object, n))
                if (df_bytes_eq(n->name, df_bytes_str(name)))
                        return n;
        return NULL;
}

const char *ad_doc_kind_name(enum ad_doc_kind kind)
{
        static const char *const names[] = {"an object", "a list", "a text",
                                            "a number",  "a bool", "null"};

        return names[kind];
}
