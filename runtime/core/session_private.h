/* session_private.h - between session.c (the steps), session_txn.c (K3), session_settle.c (K8, K10)
 * and session_log.c (what the log says). */
#ifndef DFI_SESSION_PRIVATE_H
#define DFI_SESSION_PRIVATE_H

#include "core_private.h"

struct df_session {
        struct df_task_config config;
        struct df_session_ports ports;
        struct df_task *task;
        struct df_log_reader *reader;
        uint64_t epoch;
        struct df_error broken; /* code 0 = in order; else what every further call answers */
        struct df_record *records;
        bool paused;                   /* an open range is processed to its end */
        size_t record_cap, have, used; /* polled, and given to the task */
        size_t silent_bytes;           /* processed since the last silent checkpoint */
        /* A commit in progress: the next stage of it, and the next output of the stage append. */
        uint32_t stage;
        uint32_t next_output;
        struct dfi_records out;
        struct df_append *appends;
        size_t append_cap;
        /* For each collection: whether the log holds that of k, and from which offset a search for
         * that of k + 1 must begin. */
        bool *present;
        uint64_t *search_from;
        size_t collection_count;
        /* K3: the state's checkpoint (persisted last, or opened), and what the log says is
         * committed, as far as this owner knows. */
        struct df_ckpt_ref ref;
        struct df_committed committed;
        bool fenced;    /* committed was read */
        bool candidate; /* at open: the checkpoint was never committed */
        /* K10: what the clock must say when the replay has come to the last seal. */
        bool expect_clock;
        struct df_clock expected;
        struct dfi_meter meter; /* of the steps */
        struct df_profile steps;
};

struct dfi_seen { /* a complete collection of this task, by its seal */
        bool any;
        uint64_t k;
        struct df_source source;
        struct df_seal seal; /* without its note */
};

/* What the outputs hold of this task. */
struct dfi_readback {
        uint64_t first, end;   /* of the source partition */
        struct dfi_seen last;  /* newest k that the last output holds whole */
        struct dfi_seen ahead; /* newest k beyond it in any output */
        bool linked;           /* from our k to last, each seal names the one before it */
        /* Seals of the last output around the first offset that the source still holds: the last
         * one that ends there or before, and the first one that ends later. */
        struct dfi_seen before, after;
};

int dfi_session_step(struct df_session *s, const char *name, const char *topic,
                     struct df_error *err);

/* Append what the log lacks of checkpoint k, from s->next_output on; then k is committed. */
int dfi_append_all(struct df_session *s, struct df_error *err);

/* Of the output's collections that the log lacks: their records into s->out; these into s->appends,
 * from *n on; and, once they are in the log, what is known of them. */
int dfi_rebuild_output(struct df_session *s, uint32_t output, struct df_error *err);
int dfi_reserve_appends(struct df_session *s, size_t count, struct df_error *err);
void dfi_fill_appends(struct df_session *s, uint32_t output, size_t *n);
void dfi_note_appended(struct df_session *s, uint32_t output, size_t *n);

/* session_txn.c */
/* Fence, and read which checkpoint is committed. */
int dfi_txn_fence(struct df_session *s, struct df_ckpt_wanted *ret, struct df_error *err);
/* The opened checkpoint against what is committed (K8); t: what the state directory gave. */
int dfi_txn_check(struct df_session *s, const struct df_takeover *t, struct df_error *err);
/* A refusal of open stands, and is a person's matter, only while nobody else commits: an owner that
 * was replaced in the middle of its takeover has read things that do not fit each other. Returns
 * refusal, DF_ELOST, or why it cannot be told now. */
int dfi_txn_confirm(struct df_session *s, int refusal, struct df_error *err);
/* Number of the checkpoint that the committed metadata names; 0 = none, or not of this program. */
uint64_t dfi_txn_committed_k(const struct df_session *s);
/* All outputs of checkpoint k with its position, in one transaction; then k is committed. */
int dfi_transact(struct df_session *s, struct df_error *err);

/* session_settle.c */
/* Publish what CURRENT lists and the log lacks, or prepare the replay of what lies between, or
 * refuse. fresh: the directory has no checkpoint. */
int dfi_settle(struct df_session *s, bool fresh, struct df_error *err);

/* session_log.c */
/* The manifest's note: k, the meta's digest, every collection (K4) and where to search for it. */
int dfi_note_encode(const struct df_session *s, struct df_buf *ret, struct df_error *err);
/* Sets search_from. DF_ESCHEMA when the note and the state disagree (K8). */
int dfi_note_check(struct df_session *s, struct df_error *err);
/* Sets present and search_from. fresh: there is no checkpoint; everything is searched. */
int dfi_read_back(struct df_session *s, bool fresh, struct dfi_readback *ret, struct df_error *err);

#endif
