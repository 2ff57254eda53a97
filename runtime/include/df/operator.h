/* operator.h - the interface that every operator implements.
 *
 * A task is a chain of operators over one partition. Batches flow down the chain; anything an
 * operator emits to a topic leaves with the checkpoint that contains it.
 *
 * Calls:   open, [restore], { process | on_watermark | on_cut, snapshot }*, close.
 *          One thread at a time per instance; no call re-enters the instance.
 * Time:    event time, milliseconds since the Unix epoch, from ctx->clock. Never a machine's clock.
 * Errors:  0, or a negative df_err with *err filled in; the batch is then half applied, so the
 *          runtime goes back to the last checkpoint. A bad record is no error: count it with its
 *          reason and emit it to quarantine.
 * Memory:  what a call receives belongs to the runtime and dies when the call returns. Copy what
 *          you keep: for good into the store (in snapshot), until the step ends into ctx->arena.
 * Law:     what is emitted, counted and kept may depend on the records and their order alone, never
 *          on how they were cut into batches or where checkpoints fell, except that *provisional*
 *          rows may be emitted at each cut (W6). tests/unit/test_operators_law.c holds every
 *          operator of operators/table.c to it.
 */
#ifndef DF_OPERATOR_H
#define DF_OPERATOR_H

#include "df/arena.h"
#include "df/clock.h"
#include "df/seal.h"
#include "df/store.h"

#define DF_OPERATOR_MAGIC 0x6f70e7a1u
#define DF_CHAIN_MAX 16
#define DF_OUTPUTS_MAX 8

/* What flows: an array of items of one kind. The first operator receives DF_KIND_RECORDS. Items may
 * be changed in place (e.g. marked with an outcome) and passed on. */
enum {
        DF_KIND_RECORDS = 1 /* struct df_record */,
        DF_KIND_USER = 16 /* kinds of an application */
};
struct df_batch {
        uint32_t kind;
        void *items;
        size_t count;
};

struct df_out; /* where an operator sends things; see the functions below */

struct df_ctx {
        struct df_store *store; /* shared by the chain: keys begin with the byte ns */
        uint8_t ns;             /* this operator's key prefix, 16 + position in the chain */
        struct df_arena *arena; /* reset after each step */
        struct df_clock *clock; /* moved by one operator alone (guard) */
        const struct df_clock_rules *rules;
        uint32_t partition;
        uint32_t partitions;
        const void *params; /* the application's configuration, the same for the chain */
        /* Set by the operator that keeps windows: the smallest watermark at which a cut would have
         * rows to send or a window to announce as final (K12); DF_TIME_MAX = none. */
        int64_t *next_news_ms;
        /* Only in restore: rows wait that the outbox had no room for when the checkpoint was made,
         * so another one must follow, as after df_out_more. */
        bool *more;
        /* K10: the state was rebuilt; at the next cut every live row counts as unsent. */
        const bool *resend_all;
};

struct df_operator {
        uint32_t magic; /* DF_OPERATOR_MAGIC from open until close */
        const struct df_operator_ops *ops;
        struct df_ctx ctx;
};

struct df_operator_ops {
        const char *name;       /* [a-z0-9_]{1,31}, unique; kept in checkpoints (K14) */
        uint32_t state_version; /* raise it when stored bytes change meaning */
        size_t size;            /* bytes of the instance; its first member is struct df_operator */

        /* Acquire resources. After a failure the runtime still calls close. */
        int (*open)(struct df_operator *op, struct df_error *err);
        /* Load what snapshots wrote, by scanning the store under ns. At most once, before the first
         * process. Optional. */
        int (*restore)(struct df_operator *op, struct df_error *err);
        /* Consume the whole batch; forward, emit and count through out. */
        int (*process)(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                       struct df_error *err);
        /* The task's watermark has grown to watermark_ms (after a batch). DF_TIME_MAX = end of the
         * generation. Must not emit. Optional. */
        int (*on_watermark)(struct df_operator *op, int64_t watermark_ms, struct df_error *err);
        /* A checkpoint begins: the last chance to emit into it. Optional. */
        int (*on_cut)(struct df_operator *op, struct df_out *out, struct df_error *err);
        /* Put all state changed since the last snapshot into the store's open batch, under ns. k is
         * the checkpoint's number. Must not emit or change what is computed. Optional. */
        int (*snapshot)(struct df_operator *op, uint64_t k, struct df_error *err);
        /* Release everything. Cannot fail, cannot emit; accepts a half-opened instance. */
        void (*close)(struct df_operator *op);
};

/* ---- what an operator may do with out (implemented in runtime/core) ---- */

/* Hand the batch to the next operator of the chain; at the end of the chain it is dropped. */
int df_out_forward(struct df_out *out, struct df_batch *batch, struct df_error *err);
/* Emit a payload to output number `output` of the task's configuration. partition: of the output
 * topic; an output that does not spread accepts only the task's own. Copied. At most
 * DF_LOG_RECORD_MAX minus 1 KiB bytes. */
int df_out_emit(struct df_out *out, uint32_t output, uint32_t partition, struct df_bytes payload,
                struct df_error *err);
/* Room left in this checkpoint's outbox (K6: 64 MiB); 0 when full. on_cut stops emitting then,
 * keeps the rest dirty and calls df_out_more. */
size_t df_out_room(const struct df_out *out);
void df_out_more(struct df_out *out); /* another checkpoint with from = to must follow */
/* n events ended with this outcome (< DF_OUTCOMES_MAX). */
void df_out_count(struct df_out *out, uint32_t outcome, uint64_t n);
/* What the seal says of the records themselves; called by the decoding operator. */
void df_out_count_records(struct df_out *out, uint64_t events, uint64_t poison,
                          uint64_t heartbeats);
void df_out_versions(struct df_out *out, uint32_t price_version, uint32_t label_version);
/* Only in on_cut: the seal's note. At most 16 KiB; one operator of a chain. */
int df_out_note(struct df_out *out, struct df_bytes note, struct df_error *err);
/* Only in on_cut: rows of windows from start_ms on are not all sent (W4); the smallest counts. */
void df_out_hold(struct df_out *out, int64_t start_ms);

#endif
