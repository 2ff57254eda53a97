/* sim_private.h - between sim.c, log.c, store.c, ckpt.c and dirs.c; the broker has
 * broker_private.h. */
#ifndef DFI_SIM_PRIVATE_H
#define DFI_SIM_PRIVATE_H

#include "df/sim.h"

#define DFI_SIM_POISON 0xdb
#define DFI_SIM_NAME_MAX 96

/* ---- memory: out of memory ends the program ---- */
void *dfi_sim_alloc(size_t size); /* cleared */
void *dfi_sim_grow(void *p, size_t count, size_t *cap, size_t size);
uint8_t *dfi_sim_copy(struct df_bytes b); /* of at least one byte, so never NULL */
void dfi_sim_free(void *p, size_t size);  /* poisons first */

/* ---- topics ---- */
struct dfi_sim_consumer {
        char name[DFI_SIM_NAME_MAX];
        uint64_t offset;
};
struct dfi_sim_partition {
        struct df_record *records; /* values owned; offsets from first */
        size_t count, cap;
        uint64_t first;
        int64_t last_append_ms;
        struct dfi_sim_consumer *consumers;
        size_t consumer_count, consumer_cap;
};
struct dfi_sim_topic {
        struct df_topic_info info;
        struct dfi_sim_partition *partitions;
        struct dfi_sim_writer *writer; /* who has the lock; may be dead */
};

/* ---- contents of a store ---- */
struct dfi_sim_entry {
        struct df_bytes key, value; /* owned */
};
struct dfi_sim_table { /* sorted by key */
        struct dfi_sim_entry *entries;
        size_t count, cap;
};
void dfi_sim_table_copy(struct dfi_sim_table *to, const struct dfi_sim_table *from);
void dfi_sim_table_release(struct dfi_sim_table *t);
void dfi_sim_table_dump(const struct dfi_sim_table *t, struct df_buf *ret);

/* ---- state directories (dirs.c) ---- */
struct dfi_sim_checkpoint {
        uint64_t k, epoch, id; /* id: of the world; the same in a directory and in its store */
        uint64_t parent_id;
        uint8_t digest[32]; /* of k, epoch, parent, note and contents, when it was written */
        struct dfi_sim_table table;
        struct df_buf note;
};
struct dfi_sim_dir {
        char name[DFI_SIM_NAME_MAX];
        uint64_t epoch;
        uint64_t current; /* id of CURRENT's; 0 = none. Store: of what was published last */
        struct dfi_sim_checkpoint *checkpoints;
        size_t count, cap;
        struct dfi_sim_ckpt *owner;               /* who has the lock; may be dead */
        struct dfi_sim_dir *store;                /* the checkpoint store of it; NULL = none */
        char fallback_from[DF_CKPT_NAME_MAX + 1]; /* takeover_at opens .._to in its place */
        uint64_t fallback_to;                     /* 0 = none */
        bool reset;                               /* takeover_at is fresh */
        char reset_for[DF_CKPT_NAME_MAX + 1];     /* when this is wanted; "" = not bound yet */
};
struct dfi_sim_dir *dfi_sim_dir_find(struct df_sim *sim, const char *name); /* makes it, too */
void dfi_sim_dir_free(struct dfi_sim_dir *d);
struct dfi_sim_checkpoint *dfi_sim_checkpoint_find(struct dfi_sim_dir *d, uint64_t id);
struct dfi_sim_checkpoint *dfi_sim_checkpoint_add(struct dfi_sim_dir *d);
/* A copy of a checkpoint, as it is, in the place of what d has under this id. */
struct dfi_sim_checkpoint *dfi_sim_checkpoint_put(struct dfi_sim_dir *d,
                                                  const struct dfi_sim_checkpoint *p);
void dfi_sim_checkpoint_release(struct dfi_sim_checkpoint *p);
void dfi_sim_checkpoint_digest(const struct dfi_sim_checkpoint *p, uint8_t ret[32]);
bool dfi_sim_checkpoint_whole(const struct dfi_sim_checkpoint *p); /* as it was written */
void dfi_sim_checkpoint_name(const struct dfi_sim_checkpoint *p, char ret[DF_CKPT_NAME_MAX + 1]);
/* Delete all checkpoints but these three; with chance: each of them only perhaps. */
void dfi_sim_checkpoints_drop(struct dfi_sim_dir *d, uint64_t a, uint64_t b, uint64_t c,
                              struct df_sim_random *chance);

/* ---- the world ---- */
struct dfi_broker;
struct dfi_sim_process {
        uint64_t life;
        bool crashed, paused;
};
struct df_sim {
        struct df_sim_random random; /* of the world itself: prefixes, generations */
        int64_t now_ms;
        struct dfi_sim_topic **topics;
        size_t topic_count, topic_cap;
        struct dfi_sim_dir **dirs;
        size_t dir_count, dir_cap;
        struct dfi_sim_process processes[DF_SIM_PROCESSES_MAX];
        struct df_sim_fault faults[DF_SIM_FAULT_KINDS];
        struct dfi_broker *broker; /* NULL = none */
        bool net_paused;
        uint64_t struck[DF_SIM_FAULT_KINDS];
        uint64_t calls;
        uint64_t last_checkpoint_id;
        size_t handles; /* open */
        void (*trace)(void *arg, const char *line);
        void *trace_arg;
};

/* Who makes a call. sim NULL: a store alone, without faults. */
struct dfi_sim_at {
        struct df_sim *sim;
        uint32_t process;
        uint64_t life;
};
struct dfi_sim_at dfi_sim_here(struct df_sim *sim, uint32_t process);
bool dfi_sim_alive(const struct dfi_sim_at *at);

/* A fault that strikes this call; code 0 = none. */
struct dfi_sim_strike {
        int code;
        enum df_sim_moment moment;
        char what[DFI_SIM_NAME_MAX];
};
/* A port call begins. Fails when the process is dead or the fault strikes before the effect. */
int dfi_sim_enter(const struct dfi_sim_at *at, bool writes, struct dfi_sim_strike *ret,
                  struct df_error *err, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The effect (all of it, or what `moment` leaves of it) is done: 0, or the strike's error. */
int dfi_sim_leave(const struct dfi_sim_at *at, const struct dfi_sim_strike *s,
                  struct df_error *err);
static inline bool dfi_sim_midway(const struct dfi_sim_strike *s)
{
        return s->code != 0 && s->moment == DF_SIM_MIDWAY;
}

/* ---- a live store ---- */
struct dfi_sim_store;
struct dfi_sim_store *dfi_sim_store_open(struct dfi_sim_at at, const struct dfi_sim_table *table);
struct df_store *dfi_sim_store_base(struct dfi_sim_store *s);
const struct dfi_sim_table *dfi_sim_store_table(const struct dfi_sim_store *s);
int dfi_sim_store_alive(struct dfi_sim_store *s, struct df_error *err);
int dfi_sim_store_kill(struct dfi_sim_store *s, int code); /* unusable from now on; returns code */
void dfi_sim_store_close(struct dfi_sim_store *s);

/* ---- a handle of a state directory (ckpt.c) ---- */
struct dfi_sim_ckpt {
        struct df_ckpt base;
        struct dfi_sim_at at;
        struct dfi_sim_dir *dir;
        struct dfi_sim_store *live; /* NULL = not the owner */
        uint64_t epoch;
        uint64_t opened;    /* id of the checkpoint that the live store goes on from; 0 = none */
        uint64_t candidate; /* id; 0 = none */
        struct df_ckpt_ref made; /* by the last persist */
        bool doubt;              /* a publish failed: CURRENT may be either */
        struct df_bytes lent;
};

void dfi_sim_topic_free(struct dfi_sim_topic *t);
bool dfi_sim_topic_name_ok(const char *name);

#endif
