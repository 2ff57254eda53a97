#include "jobs/api/progress.h"

#include <limits.h>
#include <stdio.h>

#include "df/run.h"

#define FILE_NAME "run/reconcile.json"

static const struct ad_doc_node *member(const struct adi_progress *p, const char *name)
{
        return p->doc.count ? ad_doc_member(&p->doc, p->doc.nodes, name) : NULL;
}

bool adi_progress_read(const char *data_dir, struct df_arena *arena, struct adi_progress *ret)
{
        struct df_buf text = {0};
        struct df_error err = {0};
        struct df_bytes own;
        char path[PATH_MAX];
        int rc;

        *ret = (struct adi_progress){0};
        if (snprintf(path, sizeof(path), "%s/%s", data_dir, FILE_NAME) >= PATH_MAX)
                return false;
        rc = df_read_file(path, ADI_PROGRESS_BYTES_MAX, &text, &err);
        own = df_arena_copy(arena, df_buf_bytes(&text));
        if (rc == 0) {
                rc = ad_doc_parse(own, ADI_PROGRESS_VALUES_MAX, arena, &ret->doc, &err);
                if (rc < 0)
                        (void)df_wrap(&err, "%s", FILE_NAME);
        }
        df_buf_release(&text);
        if (rc < 0)
                ret->doc.count = 0;
        if (rc < 0 && rc != DF_ENOENT)
                ret->unread = df_arena_copy(arena, df_bytes_str(err.text));
        ret->run = member(ret, "run");
        ret->asked_by = member(ret, "asked_by");
        return rc != DF_ENOENT;
}

struct df_bytes adi_progress_error(const char *data_dir, struct df_arena *arena)
{
        struct adi_progress p;
        const struct ad_doc_node *n =
                adi_progress_read(data_dir, arena, &p) ? member(&p, "error") : NULL;

        return n && n->kind == AD_DOC_TEXT ? n->text : (struct df_bytes){0};
}

bool adi_progress_says(const struct ad_doc_node *n, struct df_bytes text)
{
        return n && n->kind == AD_DOC_TEXT && text.len && df_bytes_eq(n->text, text);
}

static void put_node(struct ad_json *j, const char *key, const struct ad_doc_node *n)
{
        ad_json_key(j, key);
        if (n && n->kind == AD_DOC_TEXT)
                ad_json_bytes(j, n->text);
        else if (n && n->kind == AD_DOC_NUMBER)
                ad_json_raw(j, n->text);
        else if (n && n->kind == AD_DOC_BOOL)
                ad_json_bool(j, n->yes);
        else
                ad_json_null(j);
}

void adi_progress_json(struct ad_json *j, const struct adi_progress *p)
{
        static const char *const same[] = {"run",   "asked_by", "done",      "total",
                                           "eta_s", "since",    "gives_way", "error"};

        ad_json_key(j, "progress");
        ad_json_open(j);
        put_node(j, "step", member(p, "state"));
        for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
                put_node(j, same[i], member(p, same[i]));
        if (p->unread.len)
                ad_json_put_bytes(j, "unread", p->unread);
        ad_json_close(j);
}

void adi_progress_close_json(struct ad_json *j, const struct adi_progress *p,
                             struct df_bytes tenant_id, struct df_bytes id)
{
        const struct ad_doc_node *closes = member(p, "closes"), *c;

        if (p->unread.len) {
                ad_json_key(j, "waits_for");
                ad_json_open(j);
                ad_json_put_text(j, "code", "unread");
                ad_json_put_bytes(j, "text", p->unread);
                ad_json_close(j);
        }
        if (!closes || closes->kind != AD_DOC_ARRAY)
                return;
        for (c = ad_doc_first(&p->doc, closes); c; c = ad_doc_after(&p->doc, closes, c)) {
                if (!adi_progress_says(ad_doc_member(&p->doc, c, "id"), id) ||
                    !adi_progress_says(ad_doc_member(&p->doc, c, "tenant_id"), tenant_id))
                        continue;
                ad_json_key(j, "waits_for");
                ad_json_open(j);
                put_node(j, "code", ad_doc_member(&p->doc, c, "why"));
                put_node(j, "text", ad_doc_member(&p->doc, c, "text"));
                ad_json_close(j);
                return;
        }
}
