/* runs.h - runs over raw events: a range of a topic processed again, apart from what is live (R1).
 *
 * `adtally replay`, `adtally reconcile` and the reconcile job make them. A run is pinned: the
 * topic's generation and, for each partition, the offsets [from, to). Its id is the hash of the
 * pin, of all settings that shape a number, and of the program's version: equal commands over
 * equal ranges are one run. Interrupted, it goes on from its last commit; finished, its result is
 * told again. What it owns bears its id and nothing else is written:
 *
 *   DATA/replay/<run>/RUN                 the pin, and whether it is done
 *   DATA/replay/<run>/LOCK                flock of the one process here that works on it
 *   DATA/replay/<run>/state/<partition>   state directories (df/store.h)
 *   replay-<run>-rollups|late|quarantine  topics of the log
 *   group replay-<run>, transactional.id replay-<run>-<topic>-<partition>   on Kafka
 *   consumer replay-<run>                 on the file log: retention waits for it (L2)
 *
 * Order of calls: ad_replay_begin | ad_replay_find, ad_replay_work, ad_replay_read |
 *                 ad_replay_drop, ad_replay_end.
 * Threads: one; ad_replay_work starts its workers.
 */
#ifndef AD_RUNS_H
#define AD_RUNS_H

#include "df/log.h"
#include "df/run.h"
#include "df/seal.h"
#include "jobs/common/settings.h"

/* ---- WHERE (where.c) ---- */
enum ad_where_kind { AD_WHERE_START, AD_WHERE_END, AD_WHERE_TIME, AD_WHERE_OFFSETS };
struct ad_where {
        enum ad_where_kind kind;
        int64_t append_ms;             /* AD_WHERE_TIME */
        bool every;                    /* AD_WHERE_OFFSETS: offset[0] holds for all */
        bool given[DF_PARTITIONS_MAX]; /* those not given are whole on that side */
        uint64_t offset[DF_PARTITIONS_MAX];
};
/* "start", "end", "offset:N", "offset:P=N,P=N", or an RFC 3339 time of appending. DF_EINVAL. */
int ad_where_parse(const char *text, struct ad_where *ret, struct df_error *err);

struct ad_replay_span {
        uint64_t first;    /* of the partition when it was pinned: were records before `from`? */
        uint64_t from, to; /* [from, to) */
        uint64_t k;        /* done: of the last checkpoint, whose collections are the last ones */
};
struct ad_replay_pin {
        struct df_topic_info topic;
        struct ad_replay_span span[DF_PARTITIONS_MAX];
};
/* `end` is the last stable offset now. DF_ENOENT: no such topic; DF_EINVAL: from behind to, or an
 * offset that the partition does not hold, or a partition that is not there. */
int ad_replay_pin_range(struct df_log *log, const char *topic, const struct ad_where *from,
                        const struct ad_where *to, struct ad_replay_pin *ret, struct df_error *err);

/* imports.c. Whether a topic is one of imports; of such a topic, cuts the pin to complete imports
 * (R6); fn for each. */
bool ad_topic_is_import(const char *topic);
int ad_replay_pin_imports(struct df_log *log, struct ad_replay_pin *pin, struct df_error *err);
int ad_bill_each_topic(struct df_log *log,
                       int (*fn)(void *arg, const struct df_topic_info *topic,
                                 struct df_error *err),
                       void *arg, struct df_error *err);

#define AD_REPLAY_ID_MAX 16 /* hex digits */
/* Pure. config: ad_config_digest. */
void ad_replay_id(const struct ad_replay_pin *pin, uint64_t config, const char *version,
                  char ret[AD_REPLAY_ID_MAX + 1]);

/* ---- runs on disk (runs.c) ---- */
#define AD_REPLAY_WORDS_MAX 4096 /* bytes of --from and of --to */

/* What a run is for. A replay counts a range to its end. A reconcile run (R1) goes on: its range is
 * open, it begins at the first record, and the same run takes each later end in turn, so that what
 * it knows of earlier ids is never read again (D4). */
struct ad_run_kind {
        const char *name; /* "replay": the command, the folder under DATA, before each topic */
        bool open;
        const struct df_operator_ops *const *chain;
        const size_t *chain_length;
        size_t outputs; /* of enum ad_output, and AD_OUT_BILL */
        /* What a reconcile run bills with (jobs/common/corrections.h); NULL: nothing. Whoever makes
         * a run sets it in a copy of the kind, which lives as long as the run. */
        const struct ad_correction_log *corrections;
        /* Digest of all that shapes its numbers. */
        uint64_t (*config)(const struct df_config *c, const struct ad_run_kind *kind);
        /* Fills in what its chain needs beyond the live one's parameters; NULL: nothing. */
        void (*params)(const struct df_config *c, const struct ad_run_kind *kind,
                       struct ad_params *ret);
};
extern const struct ad_run_kind ad_run_replay;

struct ad_replay {
        const struct ad_run_kind *kind;
        char id[AD_REPLAY_ID_MAX + 1];
        char data[512], dir[600]; /* DATA; DATA/replay/<id> */
        char store[600];          /* STORE/replay-<id>; "": there is no checkpoint store */
        struct ad_replay_pin pin;
        uint64_t config;
        char version[32];
        char log[240];   /* "file", or "kafka <prefix>" */
        char *from, *to; /* the words of the command; owned */
        bool done;
        bool resumed; /* its end was pinned by an earlier command, which was interrupted */
        bool locked;  /* ad_replay_list: some process works on it */
        int lock_fd;
};
/* The run of this command: an unfinished one of the same words (its pin holds, wherever the end is
 * by now), or the one of today's pin, made when it is new. Locked. DF_EFENCED: another process
 * works on it; DF_ESCHEMA: the topic was created again since an unfinished one began (K14).
 * pin_only: make nothing, lock nothing. */
int ad_replay_begin(const struct df_config *c, const struct ad_run_kind *kind, struct df_log *log,
                    bool pin_only, struct ad_replay *ret, struct df_error *err);
/* The same of a topic that is not the settings': reconcile runs are of `events`, or of imports. */
int ad_replay_begin_of(const struct df_config *c, const struct ad_run_kind *kind,
                       struct df_log *log, const char *topic, struct ad_replay *ret,
                       struct df_error *err);
/* The run of a pin that is known already, from the first record on. */
int ad_replay_begin_at(const struct df_config *c, const struct ad_run_kind *kind,
                       const struct ad_replay_pin *pin, struct ad_replay *ret,
                       struct df_error *err);
/* A run that another process leads, on another machine or this one: what it wrote by ad_replay_put,
 * read back (false: damaged, or not of this id; end releases it), and made one of this data
 * directory. Locked. DF_EINVAL: of another log; DF_EFENCED. */
void ad_replay_put(const struct ad_replay *r, struct df_buf *b);
bool ad_replay_parse(const struct ad_run_kind *kind, const char *id, char *text,
                     struct ad_replay *ret);
int ad_replay_join(const struct df_config *c, struct ad_replay *r, struct df_error *err);
/* A run by its id, locked. DF_ENOENT; DF_EINVAL: it is on another log than the settings say. */
int ad_replay_find(const struct df_config *c, const struct ad_run_kind *kind, const char *id,
                   struct ad_replay *ret, struct df_error *err);
int ad_replay_list(const struct df_config *c, const struct ad_run_kind *kind,
                   int (*fn)(void *arg, const struct ad_replay *run, struct df_error *err),
                   void *arg, struct df_error *err);
/* Whether the run is on the log of the settings, not on the one before `adtally migrate`. */
bool ad_replay_is_here(const struct df_config *c, const struct ad_replay *r);
/* What a run of this id would be on disk, whether or not it is there: for drop. */
int ad_replay_place(const struct df_config *c, const struct ad_run_kind *kind, const char *id,
                    struct ad_replay *ret, struct df_error *err);
int ad_replay_mark_done(struct ad_replay *r, struct df_error *err);
/* Offsets, registration, topics, directory, what the store has of it. May be called again after an
 * error. DF_EAGAIN: members of its group work on it; nothing was deleted. */
int ad_replay_drop(struct ad_replay *r, struct df_log *log, struct df_error *err);
void ad_replay_end(struct ad_replay *r); /* lets go of the lock */
/* Names of the outputs, in the order of enum ad_output, and of group and consumer. */
struct ad_replay_names {
        char topic[AD_OUT_BILL_COUNT][DF_TOPIC_NAME_MAX + 1]; /* kind->outputs of them */
        char group[DF_TOPIC_NAME_MAX + 1];
};
void ad_replay_names(const struct ad_replay *r, struct ad_replay_names *ret);

/* ---- the work (work.c) ---- */
/* Shared: whoever works on the run is a member of its group on Kafka, and the group says which
 * partitions are whose; their states move by the run's `store`. One leads, which makes the outputs
 * and knows the end; any number help. */
enum ad_replay_share { AD_REPLAY_ALONE, AD_REPLAY_LEADS, AD_REPLAY_HELPS };

struct ad_replay_progress {
        uint64_t done, all;  /* offsets; shared: of all who work on it */
        uint32_t partitions; /* that are here now */
        uint64_t events;     /* decoded here */
};
enum ad_replay_watch {
        AD_REPLAY_GO_ON,
        AD_REPLAY_HOLD, /* until the next call */
        AD_REPLAY_LEAVE /* commit and end: DF_EAGAIN */
};
struct ad_replay_logs {
        struct df_log *source; /* what is read: the log, or the archive and the log as one */
        struct df_log *log;    /* where the outputs go */
        uint32_t threads;      /* 0: --workers */
        /* Called some ten times a second, first when the outputs are there. NULL: none. */
        enum ad_replay_watch (*watch)(void *arg, const struct ad_replay_progress *p);
        void *watch_arg;
        bool stored; /* the state of each partition is in the run's `store`, too (K2) */
        enum ad_replay_share share; /* not ALONE: on Kafka, and stored */
};
/* Until every partition is processed and committed, by whomever; who helps goes on until it is told
 * to leave. DF_EAGAIN: it was asked to stop; the same command goes on. Any refusal of a partition
 * here (K11) ends it by name. */
int ad_replay_work(const struct df_config *c, const struct ad_replay_logs *logs,
                   struct ad_replay *r, struct df_error *err);

/* ---- what it wrote (read.c) ---- */
/* How far a partition of an output was read. */
struct ad_replay_mark {
        uint64_t k;       /* of the last collection; 0: none */
        uint64_t covered; /* by seals, of the source */
        uint64_t offset;  /* of the output: where the next collection begins at the earliest */
        bool closed;
        uint64_t generation;      /* of the last one's source: an import has several (R6) */
        int64_t final_through_ms; /* windows before it are final (W4) */
};
void ad_replay_mark_start(const struct ad_replay *r, uint32_t partition,
                          struct ad_replay_mark *ret);
/* The collections of an output of the run behind the mark, in the order of k; their seals cover the
 * range without a gap: DF_ECORRUPT otherwise. The mark moves before each call of take, so that
 * take can keep it together with what it makes of the collection. */
int ad_replay_read(struct df_log *log, const struct ad_replay *r, const char *topic,
                   uint32_t partition, struct ad_replay_mark *mark,
                   int (*take)(void *arg, const struct df_collection *c, struct df_error *err),
                   void *arg, struct df_error *err);
struct ad_json;
/* The members of a cell, into the object that is open. */
void ad_replay_put_cell(struct ad_json *j, const struct ad_cell *c);

#endif
