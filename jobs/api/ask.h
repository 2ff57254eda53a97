/* ask.h - requests about commands, runs and periods, receipts and explanations: key, tenant and
 * parameters checked, then done on the threads for long work, since they read the books, wait for
 * the log or read it.
 */
#ifndef ADI_ASK_H
#define ADI_ASK_H

#include "jobs/api/books_follow.h"
#include "jobs/api/command_parse.h"
#include "jobs/api/serve_private.h"

struct adi_ask {
        struct ad_api *api;
        struct df_http_request *request;
        struct ad_identity identity;
        struct df_bytes tenant; /* whose: the key's, or the one an admin names */
        struct df_arena arena;
        struct ad_fault fault;
        struct ad_billing *billing;
        struct ad_billing_read *books; /* after adi_ask_books */
        bool of_books; /* it has asked for them: what is damaged then is their view */
        int (*fn)(struct adi_ask *q);
};

/* fn runs on the pool. 0: it has replied, or what it began will, and q is gone; -1: q->fault says
 * why not. */
void adi_ask(struct ad_api *a, struct df_http_request *r, enum ad_permission want,
             int (*fn)(struct adi_ask *q));

/* A question that reads the log, for a key that may read: on the one thread for these, which keeps
 * nobody from the numbers. fn as above. */
void adi_ask_log(struct ad_api *a, struct df_http_request *r, int (*fn)(struct adi_ask *q));
/* The `stop` of what reads the log; arg is the struct ad_api. */
bool adi_ask_stopped(void *api);
/* Realtime's view, to be given back with ad_follow_give; NULL with q->fault. */
struct ad_view *adi_ask_view(struct adi_ask *q);

/* Parameters beside `tenant` that may stand there, NULL-terminated, each at most once; and tenant
 * is set. */
int adi_ask_params(struct adi_ask *q, const char *const *names);
/* data NULL: it was not given. */
struct df_bytes adi_ask_param(const struct adi_ask *q, const char *name);
/* Of a parameter that is a whole number in [min, max]. */
int adi_ask_number(struct adi_ask *q, const char *name, uint64_t min, uint64_t max,
                   uint64_t otherwise, uint64_t *ret);
/* Opens q->books: one state of the bill for this request. */
int adi_ask_books(struct adi_ask *q);
/* 503 while the topic of commands is still being read. */
int adi_ask_commands(struct adi_ask *q);
/* The body as JSON; an empty one as an object without fields. */
int adi_ask_body(struct adi_ask *q, struct ad_doc *ret);
/* Reply with what `fill` writes as one JSON object. Always 0. */
int adi_ask_json(struct adi_ask *q, int status, void (*fill)(struct ad_json *j, void *arg),
                 void *arg);
/* Reply with a body; b is released. Always 0. headers: complete lines, or NULL. */
int adi_ask_reply(struct adi_ask *q, int status, const char *type, const char *headers,
                  struct df_buf *b);
/* Complete the command (tenant; id of Idempotency-Key, the body, or a new one) and append it:
 * replies 202, 200 when it was there, 409 `id_reused`, ... The answer says where to look on:
 * /v1/<where>/<of>; of empty: the command's id. */
int adi_ask_command(struct adi_ask *q, struct ad_command *c, const char *where, struct df_bytes of);

void adi_json_time(struct ad_json *j, const char *key, int64_t ms); /* RFC 3339; null for 0 */

/* ---- handlers of routes; arg is the struct ad_api ---- */
void adi_on_corrections(void *arg, struct df_http_request *r); /* GET, POST */
void adi_on_correction(void *arg, struct df_http_request *r);  /* GET one */
void adi_on_cancel(void *arg, struct df_http_request *r);
void adi_on_runs(void *arg, struct df_http_request *r); /* GET, POST */
void adi_on_run(void *arg, struct df_http_request *r);
void adi_on_periods(void *arg, struct df_http_request *r);
void adi_on_close(void *arg, struct df_http_request *r);
void adi_on_close_cancel(void *arg, struct df_http_request *r);
void adi_on_invoice(void *arg, struct df_http_request *r);
void adi_on_manifest(void *arg, struct df_http_request *r);
void adi_on_adjustments(void *arg, struct df_http_request *r);
void adi_on_receipt(void *arg, struct df_http_request *r);
void adi_on_explain(void *arg, struct df_http_request *r);

#endif
