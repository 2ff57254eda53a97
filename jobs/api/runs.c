/* runs.c - /reconcile: ask for a run, see what became of it, and the last ones. Runs are of the
 * whole pipeline, not of one tenant. */
#include <stdio.h>

#include "df/sha256.h"
#include "jobs/api/progress.h"

#define LIST_MAX 50       /* runs of one answer; `before` asks for those before them */
#define CLOCKS_MS 3600000 /* that clocks of two machines may differ */

/* ---- an applied run ---- */

static void put_digest(struct ad_json *j, struct df_bytes digest)
{
        char hex[DF_SHA256_HEX_SIZE];

        ad_json_key(j, "digest");
        if (digest.len != DF_SHA256_SIZE) {
                ad_json_null(j);
                return;
        }
        df_hex(digest.data, digest.len, hex);
        ad_json_text(j, hex);
}

static void put_vector(struct ad_json *j, const struct ad_run_begin *b)
{
        char generation[17];

        ad_json_key(j, "vector");
        ad_json_open_array(j);
        for (size_t i = 0; i < b->vector_count; i++) {
                const struct ad_vector_part *p = &b->vector[i];

                ad_json_open(j);
                ad_json_put_bytes(j, "stream", p->stream);
                (void)snprintf(generation, sizeof(generation), "%016llx",
                               (unsigned long long)p->generation);
                ad_json_put_text(j, "generation", generation);
                ad_json_put_int(j, "partition", p->partition);
                ad_json_put_int(j, "to", (__int128)p->to);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static void put_run(struct ad_json *j, const struct ad_billing_run *r, bool all)
{
        const struct ad_applied *a = &r->applied;
        char config[17];

        ad_json_put_bytes(j, "run", a->begin.run);
        ad_json_put_text(j, "state", a->why.len ? "refused" : "applied");
        if (a->why.len)
                ad_json_put_bytes(j, "why", a->why);
        adi_json_time(j, "at", a->begin.at_ms);
        ad_json_put_bytes(j, "chain", a->begin.chain);
        ad_json_put_bool(j, "whole", a->begin.whole);
        ad_json_put_bytes(j, "asked_by", a->begin.asked_by);
        ad_json_put_int(j, "posted", (__int128)a->posted);
        ad_json_put_int(j, "adjusted", (__int128)a->adjusted);
        ad_json_put_int(j, "superseded", (__int128)a->superseded);
        ad_json_put_int(j, "rows", (__int128)a->end.rows);
        put_digest(j, a->end.digest);
        ad_json_put_int(j, "unexplained", (__int128)a->end.unexplained);
        ad_json_put_int(j, "pending", (__int128)a->end.pending);
        ad_json_put_int(j, "corrections_to", (__int128)a->begin.corrections_to);
        ad_json_put_int(j, "price_version", a->begin.price_version);
        (void)snprintf(config, sizeof(config), "%016llx", (unsigned long long)a->begin.config);
        ad_json_put_text(j, "config", config);
        ad_json_put_bytes(j, "binary_version", a->begin.binary_version);
        if (all)
                put_vector(j, &a->begin);
}

/* ---- GET /reconcile/{id} ---- */

struct search { /* the run that answers a request */
        struct adi_ask *q;
        const struct ad_command *command;
        struct ad_billing_run run;
        bool found, failed;
};

/* Any run whose vector was pinned after the request has what it asked for; the oldest such one was
 * first. Newest first, until runs that began before: one that names the request may seem to have,
 * by another machine's clock. */
static int on_run(void *arg, const struct ad_billing_run *run, struct df_error *err)
{
        struct search *s = arg;
        const struct ad_run_begin *b = &run->applied.begin;

        if (run->applied.why.len)
                return 0; /* refused: the next one may do it */
        if (b->at_ms < s->command->at_ms - CLOCKS_MS)
                return 1;
        if (b->at_ms < s->command->at_ms && !df_bytes_eq(b->asked_by, s->command->id))
                return 0;
        s->run.number = run->number;
        s->found = true;
        return 0;
}

/* Again by its number: what the scan gave died with the call. */
static int on_number(void *arg, const struct ad_billing_run *run, struct df_error *err)
{
        struct search *s = arg;
        struct df_bytes id = df_arena_copy(&s->q->arena, run->applied.begin.run);

        s->failed = !id.data;
        s->run.applied.begin.run = id;
        return 1;
}

static int find_answer(struct adi_ask *q, const struct ad_command *c, struct ad_billing_run *ret,
                       bool *ret_found)
{
        struct search s = {.q = q, .command = c};
        struct df_error err = {0};
        int rc = ad_billing_runs(q->books, 0, on_run, &s, &err);

        *ret_found = false;
        if (rc >= 0 && s.found)
                rc = ad_billing_runs(q->books, s.run.number + 1, on_number, &s, &err);
        if (rc >= 0 && s.found && !s.failed)
                rc = ad_billing_find_run(q->books, s.run.applied.begin.run, &q->arena, ret,
                                         ret_found, &err);
        return rc < 0 ? ad_fault_error(&q->fault, &err) : 0;
}

struct shown {
        struct adi_ask *q;
        const struct ad_command *command; /* NULL: asked for by a run's own id */
        struct ad_billing_run run;
        bool found, working;
        struct adi_progress progress;
};

static void fill_run(struct ad_json *j, void *arg)
{
        struct shown *x = arg;

        if (x->command) {
                ad_json_put_bytes(j, "id", x->command->id);
                adi_json_time(j, "requested_at", x->command->at_ms);
                ad_json_put_bytes(j, "requested_by", x->command->requested_by);
                ad_json_put_bytes(j, "reason", x->command->reason);
        } else {
                ad_json_put_null(j, "id");
        }
        if (x->found) {
                put_run(j, &x->run, true);
                return;
        }
        ad_json_put_text(j, "state", x->working ? "working" : "waiting");
        if (x->working || x->progress.unread.len) /* it may work all the same */
                adi_progress_json(j, &x->progress);
}

static const struct ad_command *find_request(struct adi_ask *q)
{
        const struct ad_asked_for *e =
                ad_api_commands_find(q->api->options.commands, q->tenant, q->request->tail);

        return e && e->command.kind == AD_COMMAND_RUN ? &e->command : NULL;
}

static int show(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        struct shown x = {.q = q};
        struct df_bytes id = q->request->tail;
        struct df_error err = {0};
        bool doing;

        if (adi_ask_params(q, names) < 0 || adi_ask_books(q) < 0)
                return -1;
        x.command = find_request(q);
        doing = adi_progress_read(q->api->options.data_dir, &q->arena, &x.progress);
        if (x.command) {
                if (find_answer(q, x.command, &x.run, &x.found) < 0)
                        return -1;
                x.working = doing && adi_progress_says(x.progress.asked_by, id);
                return adi_ask_json(q, 200, fill_run, &x);
        }
        if (id.len <= AD_RUN_ID_MAX &&
            ad_billing_find_run(q->books, id, &q->arena, &x.run, &x.found, &err) < 0)
                return ad_fault_error(&q->fault, &err);
        x.working = !x.found && doing && adi_progress_says(x.progress.run, id);
        if (x.found || x.working)
                return adi_ask_json(q, 200, fill_run, &x);
        if (adi_ask_commands(q) < 0)
                return -1;
        return ad_fault_set(&q->fault, 404, "no_such_run", NULL,
                            "neither a request of this tenant nor a run has this id");
}

/* ---- GET and POST /reconcile ---- */

struct list {
        struct adi_ask *q;
        struct ad_json *j;
        size_t count;
        uint64_t before, last; /* numbers of runs: not asked for from here on; the last one told */
        bool more;
        struct df_error err;
        bool doing;
        struct adi_progress progress;
};

static int on_listed(void *arg, const struct ad_billing_run *run, struct df_error *err)
{
        struct list *l = arg;

        if (l->count == LIST_MAX) {
                l->more = true;
                return 1;
        }
        l->count++;
        l->last = run->number;
        ad_json_open(l->j);
        put_run(l->j, run, false);
        ad_json_close(l->j);
        return 0;
}

static void fill_list(struct ad_json *j, void *arg)
{
        struct list *l = arg;

        l->j = j;
        ad_json_key(j, "runs");
        ad_json_open_array(j);
        (void)ad_billing_runs(l->q->books, l->before, on_listed, l, &l->err);
        ad_json_close_array(j);
        if (l->more)
                ad_json_put_int(j, "next_before", (__int128)l->last);
        else
                ad_json_put_null(j, "next_before");
        if (l->doing)
                adi_progress_json(j, &l->progress);
        else
                ad_json_put_null(j, "progress");
}

static int list(struct adi_ask *q)
{
        static const char *const names[] = {"before", NULL};
        struct list l = {.q = q};
        struct df_buf b = {0};
        struct ad_json *j;

        if (adi_ask_params(q, names) < 0 ||
            adi_ask_number(q, "before", 1, UINT64_MAX, 0, &l.before) < 0 || adi_ask_books(q) < 0)
                return -1;
        l.doing = adi_progress_read(q->api->options.data_dir, &q->arena, &l.progress);
        j = ad_json_begin(&b);
        ad_json_open(j);
        fill_list(j, &l);
        ad_json_close(j);
        (void)ad_json_end(j, &b, NULL); /* b says so */
        if (l.err.code == 0)
                return adi_ask_reply(q, 200, "application/json", NULL, &b);
        df_buf_release(&b);
        return ad_fault_error(&q->fault, &l.err);
}

static int ask_for(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        struct ad_command c = {0};
        struct ad_doc d;

        if (adi_ask_params(q, names) < 0 || adi_ask_body(q, &d) < 0 ||
            ad_parse_run(&d, &c, &q->fault) < 0)
                return -1;
        if (c.requested_by.len == 0)
                c.requested_by = df_bytes_str(q->identity.key_id);
        return adi_ask_command(q, &c, "reconcile", df_bytes(NULL, 0));
}

void adi_on_runs(void *arg, struct df_http_request *r)
{
        if (r->method == DF_HTTP_POST)
                adi_ask(arg, r, AD_MAY_FINANCE, ask_for);
        else
                adi_ask(arg, r, AD_MAY_READ, list);
}

void adi_on_run(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_READ, show);
}
