/* wire_books.c - books.proto as tables (wire_fields.h), in the order of the .proto file. */
#include "proto/books.h"
#include "proto/wire_fields.h"
#include "proto/wire_private.h"

#include "df/log.h"
#include "df/seal.h"

/* The fields of a table: F(struct, number, type, member) and its limit. */
#define F(s, n, t, m) .number = (n), .type = (t), .name = #m, .at = offsetof(struct s, m)
#define LIST(s, m, most) .count_at = offsetof(struct s, m), .count_max = (most)
#define CHOICE(s, n, m, value, d)                                                                  \
        {                                                                                          \
                F(s, n, DFI_F_CHOICE, m), .kind_at = offsetof(struct s, kind), .kind = (value),    \
                                          .of = (d)                                                \
        }
#define MESSAGE(var, text, type, table)                                                            \
        static const struct dfi_message var = {                                                    \
                .name = (text),                                                                    \
                .size = sizeof(type),                                                              \
                .fields = (table),                                                                 \
                .count = sizeof(table) / sizeof((table)[0]),                                       \
        }
#define CHECKED(var, text, type, table, fn)                                                        \
        static const struct dfi_message var = {                                                    \
                .name = (text),                                                                    \
                .size = sizeof(type),                                                              \
                .fields = (table),                                                                 \
                .count = sizeof(table) / sizeof((table)[0]),                                       \
                .check = (fn),                                                                     \
        }

/* ---- commands ---- */

static const struct dfi_field scope_fields[] = {
        {F(ad_scope, 1, DFI_F_STRINGS, event_ids), .max = AD_EVENT_ID_MAX,
         LIST(ad_scope, event_id_count, AD_SCOPE_EVENT_IDS_MAX)},
        {F(ad_scope, 2, DFI_F_STR, advertiser_id), .max = AD_ID_MAX},
        {F(ad_scope, 3, DFI_F_STR, campaign_id), .max = AD_ID_MAX},
        {F(ad_scope, 4, DFI_F_STR, publisher_id), .max = AD_ID_MAX},
        {F(ad_scope, 5, DFI_F_U32, label)},
        {F(ad_scope, 6, DFI_F_I64, from_ms)},
        {F(ad_scope, 7, DFI_F_I64, to_ms)},
};
MESSAGE(scope, "a scope", struct ad_scope, scope_fields);

static const struct dfi_field correction_fields[] = {
        {F(ad_correction, 1, DFI_F_MESSAGE, scope), .of = &scope},
        {F(ad_correction, 2, DFI_F_U32, action), .max = AD_CORRECT_COUNT - 1},
        {F(ad_correction, 3, DFI_F_I64, price_nanos)},
        {F(ad_correction, 4, DFI_F_STR, currency), .max = 3},
        {F(ad_correction, 5, DFI_F_STR, advertiser_id), .max = AD_ID_MAX},
        {F(ad_correction, 6, DFI_F_STR, campaign_id), .max = AD_ID_MAX},
        {F(ad_correction, 7, DFI_F_STR, publisher_id), .max = AD_ID_MAX},
        {F(ad_correction, 8, DFI_F_U32, label)},
};
MESSAGE(correction, "a correction", struct ad_correction, correction_fields);

static const struct dfi_field account_fields[] = {
        {F(ad_account, 1, DFI_F_STR, tenant_id), .max = AD_ID_MAX},
        {F(ad_account, 2, DFI_F_STR, advertiser_id), .max = AD_ID_MAX},
};
MESSAGE(account, "an account", struct ad_account, account_fields);

static const struct dfi_field close_request_fields[] = {
        {F(ad_close_request, 1, DFI_F_MESSAGE, account), .of = &account},
        {F(ad_close_request, 2, DFI_F_STR, period), .max = AD_PERIOD_MAX},
        {F(ad_close_request, 3, DFI_F_U64, from_quarter)},
        {F(ad_close_request, 4, DFI_F_U64, to_quarter)},
        {F(ad_close_request, 5, DFI_F_STR, zone), .max = AD_ZONE_MAX},
        {F(ad_close_request, 6, DFI_F_STR, zone_version), .max = AD_ZONE_MAX},
};
MESSAGE(close_request, "a request to close", struct ad_close_request, close_request_fields);

static const struct dfi_message run_request = {.name = "a request for a run"};

static const struct dfi_field cancel_fields[] = {
        {.number = 1, .type = DFI_F_STR, .name = "id", .max = AD_COMMAND_ID_MAX},
};
MESSAGE(cancel, "a cancellation", struct df_bytes, cancel_fields);

static const struct dfi_field command_fields[] = {
        {F(ad_command, 1, DFI_F_STR, id), .max = AD_COMMAND_ID_MAX},
        {F(ad_command, 2, DFI_F_STR, tenant_id), .max = AD_ID_MAX},
        {F(ad_command, 3, DFI_F_I64, at_ms)},
        {F(ad_command, 4, DFI_F_STR, requested_by), .max = AD_PERSON_MAX},
        {F(ad_command, 5, DFI_F_STR, approved_by), .max = AD_PERSON_MAX},
        {F(ad_command, 6, DFI_F_STR, reason), .max = AD_REASON_TEXT_MAX},
        CHOICE(ad_command, 10, correction, AD_COMMAND_CORRECTION, &correction),
        CHOICE(ad_command, 11, close, AD_COMMAND_CLOSE, &close_request),
        CHOICE(ad_command, 12, cancel, AD_COMMAND_RUN, &run_request),
        CHOICE(ad_command, 13, cancel, AD_COMMAND_CANCEL, &cancel),
};
MESSAGE(command, "a command", struct ad_command, command_fields);

/* ---- runs ---- */

/* Source (log.proto), flat in ad_vector_part: everything before `to`. */
static const struct dfi_field part_source_fields[] = {
        {F(ad_vector_part, 1, DFI_F_STR, stream), .max = DF_TOPIC_NAME_MAX},
        {F(ad_vector_part, 2, DFI_F_FIXED64, generation)},
        {F(ad_vector_part, 3, DFI_F_U32, partition)},
};
static const struct dfi_message part_source = {
        .name = "a source",
        .size = offsetof(struct ad_vector_part, to),
        .fields = part_source_fields,
        .count = 3,
};
static const struct dfi_field part_fields[] = {
        {.number = 1, .type = DFI_F_MESSAGE, .name = "source", .of = &part_source},
        {F(ad_vector_part, 2, DFI_F_U64, to)},
};
MESSAGE(part, "a part of a vector", struct ad_vector_part, part_fields);

static const struct dfi_field begin_fields[] = {
        {F(ad_run_begin, 1, DFI_F_STR, run), .max = AD_RUN_ID_MAX},
        {F(ad_run_begin, 2, DFI_F_STR, chain), .max = AD_ID_MAX},
        {F(ad_run_begin, 3, DFI_F_BOOL, whole)},
        {F(ad_run_begin, 4, DFI_F_MESSAGES, vector), .of = &part,
         LIST(ad_run_begin, vector_count, AD_VECTOR_PARTS_MAX)},
        {F(ad_run_begin, 5, DFI_F_FIXED64, config)},
        {F(ad_run_begin, 6, DFI_F_U32, price_version)},
        {F(ad_run_begin, 7, DFI_F_U64, corrections_to)},
        {F(ad_run_begin, 8, DFI_F_I64, at_ms)},
        {F(ad_run_begin, 9, DFI_F_STR, binary_version), .max = DF_VERSION_MAX},
        {F(ad_run_begin, 10, DFI_F_STR, asked_by), .max = AD_COMMAND_ID_MAX},
};
MESSAGE(begin, "the begin of a run", struct ad_run_begin, begin_fields);

static const struct dfi_field cause_fields[] = {
        {F(ad_cause_cell, 1, DFI_F_U32, cause), .max = AD_CAUSE_COUNT - 1},
        {F(ad_cause_cell, 2, DFI_F_CELL, billed)},
        {F(ad_cause_cell, 3, DFI_F_CELL_UNLESS, realtime),
         .kind_at = offsetof(struct ad_cause_cell, cause), .kind = AD_CAUSE_NONE},
};
static bool fill_realtime(void *m)
{
        struct ad_cause_cell *c = m;

        if (c->cause == AD_CAUSE_NONE)
                c->realtime = c->billed;
        return true;
}
CHECKED(cause, "a cause's cell", struct ad_cause_cell, cause_fields, fill_realtime);
/* Of an adjustment: the billed side alone. */
static const struct dfi_message delta = {
        .name = "a cause's difference",
        .size = sizeof(struct ad_cause_cell),
        .fields = cause_fields,
        .count = 2,
};

static bool ascend(const struct ad_cause_cell *c, size_t count)
{
        for (size_t i = 1; i < count; i++)
                if (c[i - 1].cause >= c[i].cause)
                        return false;
        return true;
}

static const struct dfi_field target_fields[] = {
        {F(ad_target, 1, DFI_F_U64, quarter)},
        {F(ad_target, 2, DFI_F_STR, tenant_id), .max = AD_ID_MAX},
        {F(ad_target, 3, DFI_F_STR, advertiser_id), .max = AD_ID_MAX},
        {F(ad_target, 4, DFI_F_STR, campaign_id), .max = AD_ID_MAX},
        {F(ad_target, 5, DFI_F_STR, publisher_id), .max = AD_ID_MAX},
        {F(ad_target, 6, DFI_F_STR, currency), .max = 3},
        {F(ad_target, 7, DFI_F_MESSAGES, causes), .of = &cause,
         LIST(ad_target, cause_count, AD_CAUSE_COUNT)},
};
static bool check_target(void *m)
{
        const struct ad_target *t = m;

        return ascend(t->causes, t->cause_count);
}
CHECKED(target, "a target", struct ad_target, target_fields, check_target);

static const struct dfi_field targets_fields[] = {
        {F(ad_target_batch, 1, DFI_F_STR, run), .max = AD_RUN_ID_MAX},
        {F(ad_target_batch, 2, DFI_F_MESSAGES, targets), .of = &target,
         LIST(ad_target_batch, count, AD_TARGETS_MAX)},
};
MESSAGE(targets, "a batch of targets", struct ad_target_batch, targets_fields);

static const struct dfi_field end_fields[] = {
        {F(ad_run_end, 1, DFI_F_STR, run), .max = AD_RUN_ID_MAX},
        {F(ad_run_end, 2, DFI_F_U64, targets)},
        {F(ad_run_end, 3, DFI_F_STR, digest), .max = 32},
        {F(ad_run_end, 4, DFI_F_U64, rows)},
        {F(ad_run_end, 5, DFI_F_U64, unexplained)},
        {F(ad_run_end, 6, DFI_F_U64, pending)},
};
MESSAGE(end, "the end of a run", struct ad_run_end, end_fields);

static const struct dfi_field total_fields[] = {
        {F(ad_currency_cell, 1, DFI_F_STR, currency), .max = 3},
        {F(ad_currency_cell, 2, DFI_F_CELL, billed)},
};
MESSAGE(total, "a total", struct ad_currency_cell, total_fields);

static const struct dfi_field close_fields[] = {
        {F(ad_period_close, 1, DFI_F_STR, run), .max = AD_RUN_ID_MAX},
        {F(ad_period_close, 2, DFI_F_STR, asked_by), .max = AD_COMMAND_ID_MAX},
        {F(ad_period_close, 3, DFI_F_MESSAGE, account), .of = &account},
        {F(ad_period_close, 4, DFI_F_STR, period), .max = AD_PERIOD_MAX},
        {F(ad_period_close, 5, DFI_F_U64, from_quarter)},
        {F(ad_period_close, 6, DFI_F_U64, to_quarter)},
        {F(ad_period_close, 7, DFI_F_STR, zone), .max = AD_ZONE_MAX},
        {F(ad_period_close, 8, DFI_F_STR, zone_version), .max = AD_ZONE_MAX},
        {F(ad_period_close, 9, DFI_F_U64, rows)},
        {F(ad_period_close, 10, DFI_F_MESSAGES, totals), .of = &total,
         LIST(ad_period_close, total_count, AD_CURRENCIES_MAX)},
        {F(ad_period_close, 11, DFI_F_STR, manifest), .max = AD_MANIFEST_MAX},
        {F(ad_period_close, 12, DFI_F_STR, signature), .max = AD_SIGNATURE_MAX},
        {F(ad_period_close, 13, DFI_F_I64, at_ms)},
};
static bool check_close(void *m)
{
        const struct ad_period_close *c = m;

        for (size_t i = 1; i < c->total_count; i++)
                if (df_bytes_cmp(c->totals[i - 1].currency, c->totals[i].currency) >= 0)
                        return false;
        return true;
}
CHECKED(close, "the close of a period", struct ad_period_close, close_fields, check_close);

static const struct dfi_field record_fields[] = {
        CHOICE(ad_run_record, 1, begin, AD_RUN_BEGIN, &begin),
        CHOICE(ad_run_record, 2, targets, AD_RUN_TARGETS, &targets),
        CHOICE(ad_run_record, 3, end, AD_RUN_END, &end),
        CHOICE(ad_run_record, 4, close, AD_RUN_CLOSE, &close),
};
MESSAGE(run_record, "a record of runs", struct ad_run_record, record_fields);

/* ---- billing ---- */

static const struct dfi_field posting_fields[] = {
        {F(ad_posting, 1, DFI_F_U64, seq)},
        {F(ad_posting, 2, DFI_F_STR, run), .max = AD_RUN_ID_MAX},
        {F(ad_posting, 3, DFI_F_I64, at_ms)},
        {F(ad_posting, 4, DFI_F_MESSAGE, target), .of = &target},
        {F(ad_posting, 5, DFI_F_STR, closed_period), .max = AD_PERIOD_MAX},
        {F(ad_posting, 6, DFI_F_STR, posted_period), .max = AD_PERIOD_MAX},
        {F(ad_posting, 7, DFI_F_MESSAGES, delta), .of = &delta,
         LIST(ad_posting, delta_count, AD_CAUSE_COUNT)},
};
static bool check_posting(void *m)
{
        const struct ad_posting *p = m;

        return ascend(p->delta, p->delta_count);
}
CHECKED(posting, "a posting", struct ad_posting, posting_fields, check_posting);

static const struct dfi_field applied_fields[] = {
        {F(ad_applied, 1, DFI_F_STR, begin.run), .max = AD_RUN_ID_MAX},
        {F(ad_applied, 2, DFI_F_STR, begin.chain), .max = AD_ID_MAX},
        {F(ad_applied, 3, DFI_F_BOOL, begin.whole)},
        {F(ad_applied, 4, DFI_F_MESSAGES, begin.vector), .of = &part,
         LIST(ad_applied, begin.vector_count, AD_VECTOR_PARTS_MAX)},
        {F(ad_applied, 5, DFI_F_FIXED64, begin.config)},
        {F(ad_applied, 6, DFI_F_U32, begin.price_version)},
        {F(ad_applied, 7, DFI_F_U64, begin.corrections_to)},
        {F(ad_applied, 8, DFI_F_I64, begin.at_ms)},
        {F(ad_applied, 9, DFI_F_STR, begin.binary_version), .max = DF_VERSION_MAX},
        {F(ad_applied, 10, DFI_F_STR, begin.asked_by), .max = AD_COMMAND_ID_MAX},
        {F(ad_applied, 11, DFI_F_U64, posted)},
        {F(ad_applied, 12, DFI_F_U64, adjusted)},
        {F(ad_applied, 13, DFI_F_U64, superseded)},
        {F(ad_applied, 14, DFI_F_STR, end.digest), .max = 32},
        {F(ad_applied, 15, DFI_F_U64, end.rows)},
        {F(ad_applied, 16, DFI_F_U64, end.unexplained)},
        {F(ad_applied, 17, DFI_F_U64, end.pending)},
        {F(ad_applied, 18, DFI_F_STR, why), .max = AD_REASON_TEXT_MAX},
};
static bool same_run(void *m)
{
        struct ad_applied *a = m;

        a->end.run = a->begin.run;
        return true;
}
CHECKED(applied, "an applied run", struct ad_applied, applied_fields, same_run);

static const struct dfi_field closed_fields[] = {
        {F(ad_closed, 1, DFI_F_MESSAGE, close), .of = &close},
        {F(ad_closed, 2, DFI_F_BOOL, refused)},
        {F(ad_closed, 3, DFI_F_STR, why), .max = AD_REASON_TEXT_MAX},
        {F(ad_closed, 4, DFI_F_U64, seq)},
        {F(ad_closed, 5, DFI_F_STR, open_period), .max = AD_PERIOD_MAX},
};
MESSAGE(closed, "a closed period", struct ad_closed, closed_fields);

static const struct dfi_field entry_fields[] = {
        CHOICE(ad_books_entry, 1, posting, AD_BOOKS_POSTING, &posting),
        CHOICE(ad_books_entry, 2, applied, AD_BOOKS_APPLIED, &applied),
        CHOICE(ad_books_entry, 3, closed, AD_BOOKS_CLOSED, &closed),
};
MESSAGE(entry, "an entry of the books", struct ad_books_entry, entry_fields);

/* ---- messages ---- */

void ad_wire_command(struct df_buf *b, const struct ad_command *c)
{
        dfi_put_message(b, &command, c);
}

int ad_wire_command_decode(struct df_bytes bytes, struct df_arena *arena, struct ad_command *ret,
                           struct df_error *err)
{
        return dfi_get_message(bytes, &command, arena, ret, err);
}

void ad_wire_run_record(struct df_buf *b, const struct ad_run_record *r)
{
        dfi_put_message(b, &run_record, r);
}

int ad_wire_run_record_decode(struct df_bytes bytes, struct df_arena *arena,
                              struct ad_run_record *ret, struct df_error *err)
{
        return dfi_get_message(bytes, &run_record, arena, ret, err);
}

size_t ad_wire_targets_begin(struct df_buf *b, struct df_bytes run)
{
        size_t m = df_pb_begin(b, 2);

        df_pb_bytes(b, 1, run);
        return m;
}

void ad_wire_target(struct df_buf *b, const struct ad_target *t)
{
        size_t m = df_pb_begin(b, 2);

        dfi_put_message(b, &target, t);
        df_pb_end(b, m);
}

void ad_wire_targets_end(struct df_buf *b, size_t begun)
{
        df_pb_end(b, begun);
}

void ad_wire_target_value(struct df_buf *b, const struct ad_target *t)
{
        dfi_put_message(b, &target, t);
}

int ad_wire_target_decode(struct df_bytes bytes, struct df_arena *arena, struct ad_target *ret,
                          struct df_error *err)
{
        return dfi_get_message(bytes, &target, arena, ret, err);
}

void ad_wire_books_entry(struct df_buf *b, const struct ad_books_entry *e)
{
        size_t m = df_pb_begin(b, 1);

        dfi_put_message(b, &entry, e);
        df_pb_end(b, m);
}

int ad_wire_books_decode(struct df_bytes payload, struct df_arena *arena,
                         int (*fn)(void *arg, const struct ad_books_entry *e, struct df_error *err),
                         void *arg, struct df_error *err)
{
        struct df_reader r = df_reader(payload);
        struct ad_books_entry e;
        struct df_pb_field f;
        int rc = 0;

        while (rc >= 0 && df_pb_next(&r, &f)) {
                if (f.number != 1)
                        continue;
                if (f.wire != DFI_BYTES)
                        return df_fail(err, DF_EPARSE, "a batch of the books is damaged");
                rc = dfi_get_message(f.bytes, &entry, arena, &e, err);
                if (rc == 0)
                        rc = fn(arg, &e, err);
        }
        if (rc < 0)
                return rc;
        return r.bad ? df_fail(err, DF_EPARSE, "a batch of the books is damaged") : 0;
}
