/* core_private.h - between the files of the core. */
#ifndef DFI_CORE_PRIVATE_H
#define DFI_CORE_PRIVATE_H

#include "df/profile.h"
#include "df/task.h"

#define DFI_KEY_META 0x00
#define DFI_KEY_OUTBOX 0x01
#define DFI_KEY_OPERATOR 0x10 /* + position in the chain */
#define DFI_NOTE_MAX (16u << 10)
#define DFI_PAYLOAD_MAX (DF_LOG_RECORD_MAX - 1024)
#define DFI_CHUNK (1u << 20) /* outbox bytes of one store key */

/* What a checkpoint is, apart from the operators' state. Its canonical bytes are stored under
 * DFI_KEY_META; their digest names the checkpoint in the chain of seals (K6), unless one was
 * adopted.
 */
struct dfi_meta {
        uint64_t k, parent_k;
        struct df_hash128 parent_digest;
        uint64_t from_offset, to_offset;
        struct df_source source;
        bool closed;
        struct df_clock clock;
        int64_t final_through_ms;
        uint64_t outcomes[DF_OUTCOMES_MAX];
        uint64_t records, poison_records, heartbeats, events;
        uint32_t price_version, label_version;
        char binary_version[DF_VERSION_MAX + 1]; /* of the program that cut it */
        /* K10: the digest under which an output holds this checkpoint already: it is the same one,
         * cut again. {0, 0}: the digest of the meta's bytes. */
        struct df_hash128 adopted;
        struct df_buf note;
        struct df_collection_info *collections; /* owned */
        size_t collection_count;
};

void dfi_meta_encode(const struct dfi_meta *m, const struct df_task_config *config,
                     struct df_buf *b);
/* config->source.generation is that of the topic, also when a control record has changed the
 * source's. DF_ESCHEMA names what differs from the configuration (K14). */
int dfi_meta_decode(struct df_bytes bytes, const struct df_task_config *config,
                    struct dfi_meta *ret, struct df_error *err);
/* What names it in the chain. */
struct df_hash128 dfi_meta_digest(const struct dfi_meta *m, struct df_bytes encoded);
void dfi_meta_release(struct dfi_meta *m);
/* A digest as a message; bad is set when the bytes are none, and left alone otherwise. */
void dfi_put_hash(struct df_buf *b, uint32_t field, struct df_hash128 h);
struct df_hash128 dfi_get_hash(struct df_bytes bytes, bool *bad);

/* One collection while it is filled. */
struct dfi_box {
        struct df_collection_info info;
        struct df_buf payloads; /* each: u32le length, bytes */
        uint32_t chunks;        /* store keys that the last cut wrote */
};

/* Records of one or several collections, one behind the other. */
struct dfi_records {
        struct df_buf bytes;
        size_t *ends; /* of each record in bytes */
        size_t count, cap;
};

/* What the time is charged to now; NULL = to nothing. */
struct dfi_meter {
        uint64_t (*ticks_ns)(void);
        uint64_t *charged;
        uint64_t since_ns;
        uint64_t steps;
        uint32_t weight; /* what a nanosecond counts for: 0 = this step is not timed */
};
#define DFI_TIMED_STEP 4 /* every so many steps one is timed, and counts for all of them */
/* From now on; returns what it was charged to. */
uint64_t *dfi_charge(struct dfi_meter *m, uint64_t *to);
/* A step begins, and the one before it ends. NULL: it ends. name: static. */
void dfi_charge_step(struct dfi_meter *m, struct df_profile *p, const char *name);

struct df_out {
        struct df_task *task;
        size_t next; /* position in the chain of the operator that df_out_forward calls */
};

struct df_task {
        struct df_task_config config; /* source.generation: of the topic */
        struct df_source source;      /* generation: the current one (E1) */
        struct df_store *store;
        struct df_arena arena;
        struct df_clock clock;
        struct df_operator *ops[DF_CHAIN_MAX];
        struct dfi_box *boxes; /* every collection of the configuration, publishing order */
        size_t box_count;
        size_t box_start[DF_OUTPUTS_MAX]; /* of an output's first box */
        size_t emitted_bytes;             /* in the boxes */
        bool failed;                      /* in the middle of something: only destroy is left */
        bool cutting;                     /* on_cut runs: note, hold and more are allowed */
        bool noted;                       /* an operator has given its note */
        bool more;         /* df_out_more since the last cut, or rows to be sent again */
        bool ended;        /* the generation ended since the last cut: nothing goes on before it */
        bool closed;       /* it has ended, and no other has begun */
        bool begun;        /* a record of this generation was processed */
        bool uncommitted;  /* the last cut is not yet known to be published */
        bool outbox_known; /* boxes[].chunks says which keys the outbox in the store has */
        uint64_t position;
        uint64_t events; /* of all intervals */
        int64_t hold_ms;
        int64_t next_news_ms;
        int64_t watermark_seen_ms; /* last one given to on_watermark */
        bool resend_all;
        bool suppressed; /* K10: emissions are dropped until suppress_until */
        uint64_t suppress_until;
        int64_t suppress_final_ms; /* what the last seal said is final */
        bool cut_is_fixed;         /* K10: the next checkpoint ends at cut_at, no other place */
        uint64_t cut_at;
        struct df_hash128 cut_digest;
        struct dfi_meta now;  /* counts since the last cut */
        struct dfi_meta last; /* the last cut or restored checkpoint */
        struct df_hash128 last_digest;
        struct dfi_meter meter;
        struct df_profile profile;    /* a line for each operator of the chain, in its order */
        struct dfi_records published; /* df_task_publish's */
        struct df_bytes *views;
        size_t view_cap;
};

/* task.c */
/* The counts of the next checkpoint start at the task's position. */
void dfi_begin_interval(struct df_task *t);
/* The meta's digest of k, as kept in the checkpoint's manifest too (K8: they must agree). */
struct df_hash128 dfi_task_digest(const struct df_task *t);
/* A fresh task: where to begin, with what clock, in which generation. begun: of its records. */
void dfi_task_start(struct df_task *t, uint64_t offset, const struct df_clock *clock,
                    uint64_t generation, bool begun);
/* R1: the range is processed; `to` is behind the position, records that lay between are none. */
int dfi_task_end(struct df_task *t, uint64_t to, struct df_error *err);
/* An open range has come to its end: a checkpoint there, unless there is one. */
int dfi_task_pause(struct df_task *t, uint64_t to, struct df_error *err);
/* K10: an output holds a collection of the next checkpoint, which ends there: so must ours, or the
 * reader of that output would miss what lies between (it applies each k once). */
void dfi_task_fix_cut(struct df_task *t, uint64_t offset, struct df_hash128 digest);
/* No checkpoint can be cut here: suppressed, or before the fixed place. */
bool dfi_task_held(const struct df_task *t);
/* More checkpoints must follow before the next record (K6, E1, K10). */
bool dfi_task_owes_cut(const struct df_task *t);

/* cut.c */
/* on_cut of every operator with its emissions dropped: rows that the log has need not be kept.
 * through_ms: windows that end later are not forgotten. */
int dfi_task_forget(struct df_task *t, int64_t through_ms, struct df_error *err);
/* Append the records of a collection of k, its seal last, to *records. */
int dfi_task_rebuild(struct df_task *t, const struct df_collection_info *c, uint64_t epoch,
                     struct dfi_records *records, struct df_error *err);
void dfi_records_clear(struct dfi_records *r); /* keeps the memory, unless it is a lot */
void dfi_records_release(struct dfi_records *r);
static inline struct df_bytes dfi_record_at(const struct dfi_records *r, size_t i)
{
        size_t begin = i ? r->ends[i - 1] : 0;

        return df_bytes(r->bytes.data + begin, r->ends[i] - begin);
}

#endif
