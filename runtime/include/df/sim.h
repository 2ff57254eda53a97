/* sim.h - the ports in memory, with faults: a whole world that is decided by a seed.
 *
 * A world holds what survives a crash (topics, state directories) and a fault plan. It is used by
 * numbered processes: each opens the log and state directories for itself, and may crash alone.
 *
 * Crash:   the process ends between, before or in the middle of port calls. From then on every call
 *          through its handles returns DF_ECRASH; its locks are free at once; its handles must
 *          still be closed. df_sim_restart begins its next life. What survives is what the headers
 *          of the ports promise, and nothing more:
 *            append   midway: of each partition any prefix of its records, whole records
 *            commit   the live store never outlives its process
 *            persist  midway: an unpublished candidate, which the next takeover removes
 *            (takeover_at:
 *                     takes if it is whole); in a checkpoint store nothing, or all of it
 *            publish  either CURRENT is the new one or the old one
 *            retire   midway: some of the old checkpoints are gone
 *            takeover midway: the epoch was counted
 * Errors:  DF_EIO and DF_ENOSPC of the fault plan strike in the same places. After DF_EIO a writer
 *          is broken until it is opened again (L1); DF_ENOSPC from append stored nothing. A store
 *          is unusable after either; so is a state directory whose publish failed, until drop_live
 *          and takeover (df/rocksdb.h).
 * Memory:  what a call hands out is overwritten with 0xdb and freed when the header of the port
 *          says that it ends: using it longer is seen, at the latest under AddressSanitizer.
 * Time:    append time is what df_sim_set_now_ms says, never less than the partition's last one.
 * Thread:  one. No clock, no files, no library but libc. Out of memory ends the program (df_check).
 */
#ifndef DF_SIM_H
#define DF_SIM_H

#include "df/group.h"
#include "df/log.h"
#include "df/store.h"
#include "df/txn.h"

#define DF_SIM_PROCESSES_MAX 16

/* ---- random numbers: the same seed, the same numbers, on every machine ---- */
struct df_sim_random {
        uint64_t state[4];
};
void df_sim_random_init(struct df_sim_random *r, uint64_t seed);
uint64_t df_sim_random_u64(struct df_sim_random *r);
uint64_t df_sim_random_below(struct df_sim_random *r, uint64_t n); /* 0 <= x < n; n > 0 */
int64_t df_sim_random_between(struct df_sim_random *r, int64_t low, int64_t high); /* inclusive */
bool df_sim_random_chance(struct df_sim_random *r, uint32_t permille);

/* ---- the world ---- */
struct df_sim;

struct df_sim *df_sim_create(uint64_t seed);
void df_sim_destroy(struct df_sim *sim); /* every handle was closed before; NULL is fine */
void df_sim_set_now_ms(struct df_sim *sim, int64_t now_ms); /* T2; 0 at first */
/* `adtally recover --clock`: the next append of each partition takes now_ms as it is, even back. */
void df_sim_clock_restart(struct df_sim *sim);
/* One line for each port call that can fail: "p0 publish events-0 k=2" and, when a fault struck,
 * " -> crash after". Borrowed until the call returns. fn NULL = none. */
void df_sim_set_trace(struct df_sim *sim, void (*fn)(void *arg, const char *line), void *arg);

/* Handles of a process. Closing them is the port's close. */
struct df_log *df_sim_log_open(struct df_sim *sim, uint32_t process);
struct df_ckpt *df_sim_ckpt_open(struct df_sim *sim, uint32_t process, const char *dir);
/* The same with a checkpoint store that all processes see (K2): what this process has itself is the
 * directory "<dir>@<process>", the store is "<dir>@store"; the functions below take these names. */
struct df_ckpt *df_sim_ckpt_open_shared(struct df_sim *sim, uint32_t process, const char *dir);

/* ---- Kafka in memory: a model broker ----
 *
 * A world that uses one of these has a broker beside (or in place of) the topics of
 * df_sim_log_open: partitions with transaction markers and a last stable offset, transaction and
 * group coordinators. Between it and each process is a network: a request may be lost, come late
 * (also after its sender gave up, or has crashed), come twice, or be answered in vain. The ports
 * behave as those of df/kafka.h do with a real cluster, retries and time-outs included.
 *
 * Time:    the broker has a clock of its own, for sessions, time-outs and requests under way. It
 *          goes by df_sim_broker_advance, and by itself while a call waits. Members of the group
 *          send their heartbeats as it goes, unless their process is paused or has crashed.
 * Faults:  a crash of the fault plan strikes at requests too; any other fault of the plan, and the
 *          permilles of df_sim_net_set, are trouble on the network. df_sim_faults_pause holds for
 *          the network, too.
 * Threads: one; other processes may be made to act in df_sim_net_hook's function.
 */
#define DF_SIM_SESSION_MS 10000     /* a member that is silent for longer is out of the group */
#define DF_SIM_TRANSACTION_MS 30000 /* an open transaction is aborted then; calls give up, too */

struct df_log *df_sim_kafka_log_open(struct df_sim *sim, uint32_t process);
/* As df_kafka_group_open and df_kafka_txn_open: log is one of df_sim_kafka_log_open. */
int df_sim_kafka_group_open(struct df_log *log, const char *group, const char *instance,
                            struct df_group **ret, struct df_error *err);
int df_sim_kafka_txn_open(struct df_log *log, struct df_group *group, const char *topic,
                          uint32_t partition, struct df_txn **ret, struct df_error *err);

struct df_sim_net { /* permille of requests */
        uint32_t lose_request, lose_answer, duplicate;
        uint32_t delay;   /* its sender gives up before; it arrives within delay_max_ms */
        uint32_t markers; /* of transactions: their markers are written late, one by one */
        int64_t delay_max_ms;
};
void df_sim_net_set(struct df_sim *sim, struct df_sim_net net);
/* Called before each request of a process, "EndTxn events-0 commit": other processes may act in it,
 * the clock may go on, and this process may be paused and resumed, or crash. */
void df_sim_net_hook(struct df_sim *sim,
                     void (*fn)(void *arg, uint32_t process, const char *request), void *arg);
uint64_t df_sim_net_troubled(struct df_sim *sim);       /* requests that got no answer */
void df_sim_broker_down(struct df_sim *sim, bool down); /* nothing arrives */
void df_sim_broker_advance(struct df_sim *sim, int64_t ms);
/* A seeded bug: a commit without an answer is taken for aborted, and nothing is fenced (K13). */
void df_sim_kafka_reckless(struct df_sim *sim, bool reckless);
/* The process stands still: no heartbeats. It must make no call until it is resumed. */
void df_sim_pause(struct df_sim *sim, uint32_t process);
void df_sim_resume(struct df_sim *sim, uint32_t process);
bool df_sim_paused(const struct df_sim *sim, uint32_t process);
/* Looking in: what the group's offset of the partition is, without a request. False: a transaction
 * holds another one pending. */
bool df_sim_kafka_committed(struct df_sim *sim, const char *group, const char *topic,
                            uint32_t partition, struct df_committed *ret);
/* No transaction is open or half written: what readers see is all that there is. */
bool df_sim_kafka_settled(const struct df_sim *sim);

/* ---- faults ---- */
enum df_sim_fault_kind { DF_SIM_CRASH, DF_SIM_EIO, DF_SIM_ENOSPC, DF_SIM_FAULT_KINDS };
enum df_sim_moment { DF_SIM_BEFORE, DF_SIM_MIDWAY, DF_SIM_AFTER }; /* the effect of the call */

struct df_sim_fault {
        int64_t countdown; /* port calls to let pass; negative = off */
        uint32_t n;        /* so many calls in a row then fail */
        bool paused;
        bool writes_only; /* only calls that write count; DF_SIM_ENOSPC: always so */
        enum df_sim_moment moment;
};
void df_sim_fault_set(struct df_sim *sim, enum df_sim_fault_kind kind, struct df_sim_fault fault);
void df_sim_faults_pause(struct df_sim *sim, bool paused); /* all kinds */
void df_sim_faults_clear(struct df_sim *sim);
uint64_t df_sim_calls(const struct df_sim *sim); /* port calls so far */
/* Faults that struck since df_sim_create, by kind; explicit crashes are not among them. */
uint64_t df_sim_struck(const struct df_sim *sim, enum df_sim_fault_kind kind);

/* The process stops here; returns DF_ECRASH with err filled in. */
int df_sim_crash(struct df_sim *sim, uint32_t process, struct df_error *err);
bool df_sim_crashed(const struct df_sim *sim, uint32_t process);
void df_sim_restart(struct df_sim *sim, uint32_t process); /* old handles stay dead */

/* ---- what happens to disks ---- */
/* Flip a byte of CURRENT's checkpoint: the next takeover is DF_ECORRUPT. False when there is none.
 */
bool df_sim_ckpt_damage(struct df_sim *sim, const char *dir);
/* The directory is gone; keep_epoch: all but the count of takeovers (`adtally recover --from log`:
 * takeover_at is fresh until something else is committed). Of a shared directory "d": what all
 * processes have of it, "d@0" what one has; never the store. Nobody alive may own it. */
void df_sim_ckpt_lose(struct df_sim *sim, const char *dir, bool keep_epoch);
/* CURRENT names its parent again (`adtally recover --from checkpoint`), and takeover_at opens that
 * when what CURRENT named is wanted. False: there is none. */
bool df_sim_ckpt_fallback(struct df_sim *sim, const char *dir);
uint64_t df_sim_ckpt_k(struct df_sim *sim, const char *dir);     /* of CURRENT; 0 = none */
uint64_t df_sim_ckpt_count(struct df_sim *sim, const char *dir); /* checkpoints on disk (K7) */
/* Deletion by retention: records before offset are gone (DF_EOFFSET). */
void df_sim_log_trim(struct df_sim *sim, const char *topic, uint32_t partition, uint64_t offset);

/* ---- looking in, without a port call ---- */
/* Records of a partition, from the first held; borrowed until the next append. Of the broker: what
 * read_committed sees. */
const struct df_record *df_sim_records(struct df_sim *sim, const char *topic, uint32_t partition,
                                       size_t *ret_count);
uint64_t df_sim_generation(struct df_sim *sim, const char *topic);
/* Position that this consumer released; false when it is not registered. */
bool df_sim_consumer(struct df_sim *sim, const char *topic, uint32_t partition, const char *name,
                     uint64_t *ret_offset);

/* ---- a store alone, for tests of operators ----
 * sim: whose faults apply (as process 0), or NULL. The clone holds the committed contents. */
struct df_store *df_sim_store_create(struct df_sim *sim);
struct df_store *df_sim_store_clone(struct df_store *s);
void df_sim_store_destroy(struct df_store *s); /* NULL is fine */
/* Committed contents in key order, each key and value length-prefixed: equal bytes, equal stores.
 */
void df_sim_store_dump(struct df_store *s, struct df_buf *ret);
size_t df_sim_store_keys(struct df_store *s);

#endif
