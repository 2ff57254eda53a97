/* task.h - one partition's chain of operators, and the checkpoint protocol around it.
 *
 * df_task is the pure half: records in, state and outbox out. df_session drives it through the
 * ports (state directory, log) in the order of rules K1, K4, K7, K8. Both are deterministic: the
 * same records and calls give the same state, outbox and seals, byte for byte; they know no clock.
 *
 * Order of calls:  df_session_open (takeover), { poll | commit }*, close.
 * Thread:          one at a time a session; sessions share nothing but the log.
 * Errors:          every call; df_err_action says what to do: DF_RETRY the same call later;
 *                  DF_RESTART df_session_close and open again; DF_STOP refuse this partition,
 *                  others go on (K11).
 */
#ifndef DF_TASK_H
#define DF_TASK_H

#include "df/operator.h"
#include "df/profile.h"
#include "df/txn.h"

#define DF_OUTBOX_MAX (64u << 20) /* K6: payload bytes of one checkpoint */
#define DF_CUT_EARLY (32u << 20)  /* emitted bytes after which the task asks for a checkpoint */

/* What a source record is to the runtime. */
enum df_control {
        DF_CONTROL_NONE,  /* data */
        DF_CONTROL_BEGIN, /* first record of a generation (R6); also passed to the operators */
        DF_CONTROL_END,   /* last record of a generation: then watermark = DF_TIME_MAX (E1) */
};

struct df_output_config {
        const char *topic;   /* borrowed */
        bool spread;         /* an exchange: any partition may be emitted to, each gets a seal */
        uint32_t partitions; /* of the output topic */
};

/* A run over a part of a partition (R1): the records of [from, to). Where its reader has come to
 * `to` (on a log with holes a position, never a last record) the generation is over: the watermark
 * is DF_TIME_MAX, every window final, and the last seal `closed`. Unless it stays open: then there
 * is a checkpoint at `to`, with windows and watermark as they are, and the same state goes on with
 * a range whose `to` lies further. */
struct df_range {
        bool given; /* false: from the first record, without an end */
        bool open;
        uint64_t from, to;
};

struct df_task_config {
        struct df_source source; /* generation: of the topic; replaced by DF_CONTROL_BEGIN's */
        uint32_t partitions;     /* of the source topic */
        const struct df_operator_ops *const *chain;
        size_t chain_length;
        const void *params; /* handed to the operators */
        struct df_output_config outputs[DF_OUTPUTS_MAX];
        size_t output_count; /* published in this order: the topic that readers trust comes last */
        struct df_clock_rules rules;
        int64_t grace_ms; /* W4, W5 */
        uint64_t config;  /* digest of all that shapes a number; a change is refused (K14) */
        const char *binary_version;
        /* Pure. Optional: NULL = all data. *ret_generation is set for DF_CONTROL_BEGIN. */
        enum df_control (*control)(struct df_bytes value, uint64_t *ret_generation);
        /* Whoever sets it sees to it that a state directory is of one range alone. */
        struct df_range range;
        /* A monotonic clock in nanoseconds, for df_profile alone; NULL = none. */
        uint64_t (*ticks_ns)(void);
};

/* ---- the pure task ---- */
struct df_task;

struct df_collection_info { /* one output collection of a checkpoint, listed in its manifest (K4) */
        uint32_t output;
        uint32_t partition;
        uint32_t rows;
        struct df_hash128 digest;
};

/* store: empty (fresh) or that of a checkpoint: then everything is restored from it. DF_ESCHEMA
 * when its meta does not fit the configuration, naming what differs (K14). */
int df_task_create(const struct df_task_config *config, struct df_store *store,
                   struct df_task **ret, struct df_error *err);
/* Process records in offset order, starting at df_task_position. *ret_used <= count: after the last
 * record of a generation the task wants a checkpoint before it goes on. */
int df_task_process(struct df_task *t, const struct df_record *records, size_t count,
                    size_t *ret_used, struct df_error *err);
uint64_t df_task_position(const struct df_task *t); /* offset of the next record */
bool df_task_wants_cut(const struct df_task *t); /* outbox large, generation ended, rows remain */
bool df_task_dirty(const struct df_task *t);     /* anything processed since the last cut */
/* True when the next cut would make a window with rows final, i.e. has rows to send or final
 * windows to announce (K12: a partition with heartbeats only commits rarely). */
bool df_task_has_news(const struct df_task *t);
/* K1: state, outbox and meta of checkpoint k+1 into one batch, committed to the store. */
int df_task_cut(struct df_task *t, struct df_error *err);
uint64_t df_task_k(const struct df_task *t); /* of the last cut or restored checkpoint; 0 = none */
uint64_t df_task_events(const struct df_task *t); /* decoded since it was created */
/* A line for each operator, in the order of the chain; valid until the task is destroyed. */
const struct df_profile *df_task_profile(const struct df_task *t);
const struct df_clock *df_task_clock(const struct df_task *t);
const struct df_source *df_task_source(const struct df_task *t);
/* The collections of checkpoint k, empty ones too, in publishing order. */
const struct df_collection_info *df_task_collections(const struct df_task *t, size_t *ret_count);
/* Build the records of a collection (payloads, then its seal) under this epoch, from the store's
 * outbox. Valid until the next call. */
int df_task_publish(struct df_task *t, const struct df_collection_info *c, uint64_t epoch,
                    const struct df_bytes **ret_records, size_t *ret_count, struct df_error *err);
/* ---- K10: rebuild from the log ----
 * A fresh task that is told the last seal it once published: emissions are dropped until the
 * position reaches seal->to_offset, which ends a process call; after df_task_recovered the next cut
 * is k + 1 in the same chain and sends every live row again. start_clock: the maxima before the
 * first record that will be processed. */
void df_task_suppress(struct df_task *t, uint64_t k, const struct df_seal *seal,
                      const struct df_clock *start_clock, uint64_t start_offset);
bool df_task_suppressed(const struct df_task *t);
/* State so far into the store, nothing published: bounds memory in a long recovery. */
int df_task_checkpoint_silently(struct df_task *t, struct df_error *err);

/* Every collection of k is durable: the next cut drops the outbox (K7). */
void df_task_committed(struct df_task *t);
void df_task_destroy(struct df_task *t);

/* ---- the session: takeover and commit through the ports ---- */
struct df_session;

struct df_session_ports {
        struct df_log *log;   /* borrowed */
        struct df_ckpt *ckpt; /* borrowed; one task's state directory */
        /* A log with transactions: outputs and position leave through it (K3), what it says is
         * committed decides which checkpoint is opened (K8), and writers are not used. Borrowed;
         * NULL = none: CURRENT decides and outputs are appended (K4). */
        struct df_txn *txn;
        /* One writer an output, shared by the sessions of a process; borrowed. */
        struct df_log_writer *writers[DF_OUTPUTS_MAX];
        const char *consumer; /* name registered for retention, or NULL */
        /* K10: the state directory was lost or set aside: when it is fresh although seals of this
         * source exist, rebuild from the log instead of refusing. (An older checkpoint that the
         * seals continue needs no leave: what is missing is processed again.) */
        bool recover_from_log;
        /* With transactions: recover_from_log holds only while this is what is committed,
         * "<offset> <metadata>" (df_committed_text); NULL or "" = whatever is. Borrowed until
         * df_session_open returns. */
        const char *recover_of;
        /* Called between the numbered steps of the protocol: fail points. NULL = none. A negative
         * result is returned as if the step after it had failed. */
        int (*step)(void *arg, const char *name, struct df_error *err);
        void *step_arg;
};

/* K8: fence earlier owners, take over the state directory, verify, restore, publish what the
 * checkpoint lists and the log lacks (whole, under the new epoch), read from its offset. */
int df_session_open(const struct df_task_config *config, const struct df_session_ports *ports,
                    struct df_session **ret, struct df_error *err);
/* Read and process up to max_records. *ret_processed 0 = at the durable end. */
int df_session_poll(struct df_session *s, size_t max_records, size_t *ret_processed,
                    struct df_error *err);
/* One checkpoint, all steps, and drain checkpoints (from = to) while rows remain dirty. After
 * success everything up to position is durable, published, and named by CURRENT. */
int df_session_commit(struct df_session *s, struct df_error *err);
/* K9: the partition was assigned again to the owner that has it. 0: nobody else committed in
 * between, the session goes on with the group's present generation; DF_ELOST: close and open. */
int df_session_keep(struct df_session *s, struct df_error *err);
/* What a committed offset's metadata names; false: it is not of this program (K3). */
bool df_committed_ref(const struct df_committed *c, struct df_ckpt_ref *ret);
/* Whether it says that a range up to `to` is processed and all its rows left, as df_session_done
 * says of a session; *ret_k: the checkpoint's number, 0 = none. */
bool df_committed_done(const struct df_committed *c, uint64_t to, uint64_t *ret_k);
/* "<offset> <metadata>", or "none", for recover_of. */
#define DF_COMMITTED_TEXT_MAX (DF_TXN_METADATA_MAX + 24)
void df_committed_text(const struct df_committed *c, char ret[DF_COMMITTED_TEXT_MAX]);
/* The operators' lines and those of the steps, added to *sum. */
void df_session_profile(const struct df_session *s, struct df_profile *sum);
struct df_task *df_session_task(struct df_session *s);
uint64_t df_session_epoch(const struct df_session *s);
/* Offsets between position and the durable end, or the end of its range; does not wait
 * (df_log_seen_end). */
#define DF_LAG_UNKNOWN UINT64_MAX
uint64_t df_session_lag(struct df_session *s);
/* The whole range is processed and committed; polls do nothing more. */
bool df_session_done(const struct df_session *s);
/* The metadata of a committed offset that names the checkpoint which was opened (K3); false: there
 * is none, the state began anew. Right after df_session_open. */
bool df_session_metadata(const struct df_session *s, char ret[DF_TXN_METADATA_MAX + 1]);
void df_session_close(struct df_session *s); /* drops the live store; no commit */

#endif
