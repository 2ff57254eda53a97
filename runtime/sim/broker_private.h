/* broker_private.h - the model broker: what it stores (broker_log.c), its coordinators
 * (broker_txn.c, broker_group.c), and the network between it and its clients (broker.c). The ports
 * are kafka_log.c, kafka_txn.c and kafka_group.c. */
#ifndef DFI_BROKER_PRIVATE_H
#define DFI_BROKER_PRIVATE_H

#include "sim_private.h"

/* What a broker answers. */
enum dfi_answer_code {
        DFI_K_OK,
        DFI_K_CONCURRENT,         /* the transaction before is not finished: later */
        DFI_K_FENCED,             /* another producer has this transactional id */
        DFI_K_INVALID_STATE,      /* no such transaction */
        DFI_K_OUT_OF_ORDER,       /* a record before this one is missing */
        DFI_K_UNSTABLE,           /* an offset is pending: later */
        DFI_K_ILLEGAL_GENERATION, /* the group went on */
        DFI_K_UNKNOWN_MEMBER,     /* the session expired, or it left */
        DFI_K_FENCED_INSTANCE,    /* another member has this instance's name */
        DFI_K_REBALANCE,          /* join again */
        DFI_K_WAIT,               /* others have to join first */
};

/* ---- stored ---- */
enum dfi_entry_state { DFI_ENTRY_OPEN, DFI_ENTRY_COMMITTED, DFI_ENTRY_ABORTED, DFI_ENTRY_MARKER };
struct dfi_entry { /* one offset */
        enum dfi_entry_state state;
        uint64_t pid; /* 0 = outside of transactions */
        int64_t append_ms;
        struct df_bytes value; /* owned */
};
struct dfi_sequence { /* of a producer in a partition */
        uint64_t pid;
        uint32_t epoch;
        uint64_t next, last; /* sequence numbers: the next one, the first of the last batch */
        uint64_t last_offset;
        int64_t last_append_ms;
};
struct dfi_kpartition {
        struct dfi_entry *entries; /* by offset */
        size_t count, cap;
        size_t stable; /* last stable offset */
        int64_t last_append_ms;
        struct dfi_sequence *sequences;
        size_t sequence_count, sequence_cap;
        struct df_record *seen; /* lent by df_sim_records */
        size_t seen_cap;
};
struct dfi_ktopic {
        struct df_topic_info info;
        struct dfi_kpartition *partitions;
};

/* ---- transactions ---- */
enum dfi_txn_state {
        DFI_TXN_EMPTY,
        DFI_TXN_ONGOING,
        DFI_TXN_PREPARE_COMMIT, /* decided; markers are being written */
        DFI_TXN_PREPARE_ABORT,
        DFI_TXN_COMMITTED,
        DFI_TXN_ABORTED,
};
struct dfi_txn_part {
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
};
struct dfi_txn {
        char id[DFI_SIM_NAME_MAX];
        uint64_t pid;
        uint32_t epoch;
        enum dfi_txn_state state;
        struct dfi_txn_part *parts; /* those without a marker yet */
        size_t part_count, part_cap;
        struct dfi_kgroup *group; /* its offsets are pending there */
        int64_t begun_ms, due_ms; /* due: when all markers are written */
};

/* ---- groups ---- */
struct dfi_offset {
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
        uint64_t pid; /* of a pending one; 0 = committed */
        uint64_t offset;
        char metadata[DF_TXN_METADATA_MAX + 1];
};
#define DFI_TOPICS_MAX 8
struct dfi_topics {
        char names[DFI_TOPICS_MAX][DF_TOPIC_NAME_MAX + 1];
        size_t count;
};
struct dfi_member {
        char instance[DFI_SIM_NAME_MAX];
        uint64_t id;
        struct dfi_topics topics;
        int64_t seen_ms;
        bool joined;
};
struct dfi_kgroup {
        char name[DFI_SIM_NAME_MAX];
        uint64_t generation;
        bool preparing;             /* a rebalance waits for members to join */
        int64_t due_ms;             /* then it waits no longer */
        struct dfi_member *members; /* sorted by instance */
        size_t member_count, member_cap;
        struct dfi_offset *offsets;
        size_t offset_count, offset_cap;
};

/* ---- requests ---- */
enum dfi_api {
        DFI_INIT_PRODUCER_ID,
        DFI_ADD_PARTITIONS,
        DFI_PRODUCE,
        DFI_ADD_OFFSETS,
        DFI_TXN_OFFSET_COMMIT,
        DFI_END_TXN,
        DFI_OFFSET_FETCH,
        DFI_JOIN_GROUP,
        DFI_HEARTBEAT,
        DFI_FETCH, /* what only reads: no effect, no answer */
};
struct dfi_request {
        enum dfi_api api;
        char id[DFI_SIM_NAME_MAX]; /* transactional id; "": a producer without one */
        uint64_t pid;
        uint32_t epoch;
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
        const struct df_bytes *values; /* borrowed; owned by a request that is under way */
        size_t value_count;
        uint64_t sequence;
        char group[DFI_SIM_NAME_MAX], instance[DFI_SIM_NAME_MAX];
        uint64_t member, generation;
        struct dfi_topics topics;
        uint64_t offset;
        char metadata[DF_TXN_METADATA_MAX + 1];
        bool commit;
};
struct dfi_answer {
        enum dfi_answer_code code;
        uint64_t pid, offset, member, generation;
        uint32_t epoch;
        int64_t append_ms;
        struct df_committed committed;
        struct df_partition *partitions; /* owned by the caller */
        size_t partition_count;
};
struct dfi_travelling {
        int64_t due_ms;
        struct dfi_request request;
};

struct dfi_broker {
        struct df_sim *sim;
        struct df_sim_random random; /* of the network */
        int64_t clock_ms;
        bool down, reckless;
        struct df_sim_net net;
        void (*hook)(void *arg, uint32_t process, const char *request);
        void *hook_arg;
        struct dfi_ktopic **topics; /* sorted by name */
        size_t topic_count, topic_cap;
        struct dfi_txn **txns;
        size_t txn_count, txn_cap;
        struct dfi_kgroup **groups;
        size_t group_count, group_cap;
        struct dfi_travelling *travelling;
        size_t travelling_count, travelling_cap;
        struct dfi_client **clients; /* members, as their processes see it (kafka_group.c) */
        size_t client_count, client_cap;
        uint64_t next_id;  /* of producers and members */
        uint64_t troubled; /* requests without an answer */
};

struct dfi_broker *dfi_broker(struct df_sim *sim); /* made at its first use */
void dfi_broker_free(struct dfi_broker *b);
void dfi_name_copy(char *to, size_t size, const char *from); /* df_check: it fits */

/* One request. 0: a is the answer; DF_EAGAIN: it was never sent; DF_EDOUBT: no answer came, it may
 * have arrived or may still do; DF_ECRASH. */
int dfi_net_call(const struct dfi_sim_at *at, const struct dfi_request *q, struct dfi_answer *a,
                 struct df_error *err);
/* The same until the answer is definite, or DF_SIM_TRANSACTION_MS have passed: DF_EAGAIN (it was
 * never sent, or refused each time) or DF_EDOUBT. *ret_again is set when once was not enough,
 * and left alone otherwise. */
int dfi_net_until(const struct dfi_sim_at *at, const struct dfi_request *q, struct dfi_answer *a,
                  bool *ret_again, struct df_error *err);
/* One that a background thread of a client sends. False: no answer. */
bool dfi_net_background(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a);
/* The same as dfi_net_call for what only reads: 0, DF_EAGAIN, DF_ECRASH. */
int dfi_net_read(const struct dfi_sim_at *at, const char *what, const char *topic,
                 uint32_t partition, struct df_error *err);

/* broker_log.c */
struct dfi_ktopic *dfi_ktopic_find(struct dfi_broker *b, const char *name);
struct dfi_ktopic *dfi_ktopic_create(struct dfi_broker *b, const char *name, uint32_t partitions);
void dfi_ktopic_free(struct dfi_ktopic *t);
uint64_t dfi_store_entry(struct dfi_broker *b, struct dfi_kpartition *p, enum dfi_entry_state state,
                         uint64_t pid, struct df_bytes value, int64_t *ret_append_ms);
void dfi_store_marker(struct dfi_broker *b, struct dfi_kpartition *p, uint64_t pid, bool commit);
void dfi_do_produce(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a);
void dfi_broker_clock_restart(struct dfi_broker *b);
const struct df_record *dfi_broker_records(struct dfi_broker *b, const char *topic,
                                           uint32_t partition, size_t *ret_count);

/* broker_txn.c */
void dfi_do_txn(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a);
/* OK when this producer's transaction is open and holds the partition (topic "": the group). */
enum dfi_answer_code dfi_txn_verify(struct dfi_broker *b, const struct dfi_request *q,
                                    const char *topic, uint32_t partition);
void dfi_txns_tick(struct dfi_broker *b);
void dfi_txn_free(struct dfi_txn *t);

/* broker_group.c */
struct dfi_kgroup *dfi_kgroup_get(struct dfi_broker *b, const char *name);
void dfi_do_group(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a);
void dfi_group_settle(struct dfi_kgroup *g, uint64_t pid, bool commit);
void dfi_groups_tick(struct dfi_broker *b);
void dfi_kgroup_free(struct dfi_kgroup *g);

/* kafka_log.c */
struct dfi_sim_at dfi_kafka_at(struct df_log *log); /* checks that it is one */

/* kafka_group.c */
void dfi_clients_beat(struct dfi_broker *b); /* the heartbeats that are due */
/* What a commit says of its member; captured at the assignment (K13). False: there is none. */
bool dfi_client_metadata(struct df_group *g, struct dfi_request *ret);
/* False when the member knows that it lost its assignment. */
bool dfi_client_holds(struct df_group *g);
/* What is committed for the partition, stable: 0, DF_EAGAIN, DF_ELOST (it left), DF_ECRASH. */
int dfi_client_committed(struct df_group *g, const char *topic, uint32_t partition,
                         struct df_committed *ret, struct df_error *err);

#endif
