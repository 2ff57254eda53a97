/* core_private.h - between task.c, out.c and meta.c. */
#ifndef DFI_CORE_PRIVATE_H
#define DFI_CORE_PRIVATE_H

#include "df/task.h"

#define DFI_KEY_META 0x00
#define DFI_KEY_OUTBOX 0x01
#define DFI_KEY_OPERATOR 0x10 /* + position in the chain */
#define DFI_NOTE_MAX (16u << 10)
#define DFI_PAYLOAD_MAX (DF_LOG_RECORD_MAX - 1024)
#define DFI_CHUNK (1u << 20) /* outbox bytes of one store key */

/* What a checkpoint is, apart from the operators' state. Its canonical bytes are stored under
 * DFI_KEY_META; their digest names the checkpoint in the chain of seals (K6). */
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
        struct df_buf note;
        struct df_collection_info *collections; /* owned */
        size_t collection_count;
};

void dfi_meta_encode(const struct dfi_meta *m, const struct df_task_config *config,
                     struct df_buf *b);
/* DF_ESCHEMA names what differs from the configuration (K14). */
int dfi_meta_decode(struct df_bytes bytes, const struct df_task_config *config,
                    struct dfi_meta *ret, struct df_error *err);
void dfi_meta_release(struct dfi_meta *m);

/* One collection while it is filled. */
struct dfi_box {
        struct df_collection_info info;
        struct df_buf payloads; /* each: u32le length, bytes */
};

struct df_out {
        struct df_task *task;
        size_t next; /* position in the chain of the operator that df_out_forward calls */
};

struct df_task {
        struct df_task_config config;
        struct df_store *store;
        struct df_arena arena;
        struct df_clock clock;
        struct df_operator *ops[DF_CHAIN_MAX];
        struct dfi_box *boxes; /* every collection of the configuration, publishing order */
        size_t box_count;
        size_t box_start[DF_OUTPUTS_MAX]; /* of an output's first box */
        size_t emitted_bytes;             /* in the boxes */
        bool cutting;     /* on_cut runs: note, hold and more are allowed */
        bool more;        /* df_out_more since the last cut, or rows to be sent again */
        bool ended;       /* the generation ended since the last cut */
        bool closed;      /* it has ended, and no other has begun */
        bool begun;       /* a record of this generation was processed */
        bool uncommitted; /* the last cut is not yet known to be published */
        uint64_t position;
        int64_t hold_ms;
        int64_t next_news_ms;
        int64_t watermark_seen_ms; /* last one given to on_watermark */
        bool resend_all;
        uint64_t suppress_until;   /* K10; 0 = not suppressed */
        int64_t suppress_final_ms; /* what the last seal said is final */
        struct dfi_meta now;     /* counts since the last cut */
        struct dfi_meta last;    /* the last cut or restored checkpoint */
        struct df_hash128 last_digest;
        struct df_buf published; /* df_task_publish's records, one behind the other */
        struct df_bytes *views;
        size_t view_cap;
};

/* The counts of the next checkpoint start at the task's position. */
void dfi_begin_interval(struct df_task *t);
/* The meta's digest of k, as kept in the checkpoint's manifest too (K8: they must agree). */
struct df_hash128 dfi_task_digest(const struct df_task *t);
/* Only for a fresh task: where the log begins. */
void dfi_task_start_at(struct df_task *t, uint64_t offset);

#endif
