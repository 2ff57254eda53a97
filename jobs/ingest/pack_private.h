/* pack_private.h - what pack.c (the committer, the ledger) and pack_flush.c (the records of one
 * append) share. */
#ifndef AD_PACK_PRIVATE_H
#define AD_PACK_PRIVATE_H

#include <pthread.h>

#include "jobs/ingest/pace.h"
#include "jobs/ingest/pack.h"

#define LATENCIES 1024

enum mark {
        MARK_NONE,
        MARK_HEARTBEAT,
        MARK_CLOCK_RESET,
        MARK_ENDED, /* the last heartbeat of the start before */
};

struct record {
        struct df_buf bytes; /* entries; the header is added when it is written */
        uint32_t partition;
        uint32_t events;
        enum mark mark; /* not MARK_NONE: it holds no event */
};

struct ticket {
        void *ticket;
        uint64_t events;
};

/* Everything that one append will write. */
struct flush {
        struct record *records;
        size_t record_count, record_cap;
        size_t *open; /* a partition -> index + 1 of its open record; 0 = none */
        struct ticket *tickets;
        size_t ticket_count, ticket_cap;
        struct df_append *appends;
        size_t append_cap;
        size_t bytes;
        int64_t since_us; /* monotonic time of the first thing in it */
        bool urgent;
        struct ad_heartbeat heartbeat; /* receive_ms 0 = none */
        int64_t clock_reset_ms;        /* 0 = none */
};

/* The start that an append in doubt ended, until its last heartbeat is in the log. */
struct ended {
        bool due;
        uint64_t start_id;
        uint64_t *seq; /* what is known to be in each partition */
        struct ad_heartbeat heartbeat;
};

struct ad_pack {
        struct ad_pack_options o;
        uint64_t start_id; /* written by the committer, under the lock */
        uint64_t *seq;     /* events of this start in each partition */
        pthread_t thread;
        bool started;
        pthread_mutex_t lock;
        pthread_cond_t wake; /* the committer */
        pthread_cond_t idle; /* ad_pack_flush */
        bool stop;
        struct flush flushes[2];
        struct flush *filling;
        struct ended ended;      /* the committer's, like the next two */
        struct flush between;    /* what parts it from this start */
        int64_t heard_ms;        /* receive_ms of the newest heartbeat tried; 0 = none */
        uint64_t taken, settled; /* flushes that the committer took, and finished */
        struct ad_pace pace;
        struct ad_pack_stats stats;
        uint32_t latency_us[LATENCIES]; /* ring */
        struct df_buf scratch;          /* one encoded event; under the lock */
};

/* Under the lock. DF_ENOMEM: it is not in. */
int adi_flush_event(struct ad_pack *p, const struct ad_event *ev, struct df_error *err);
int adi_flush_ticket(struct flush *f, void *ticket, uint64_t events, struct df_error *err);

/* By the committer: one mark a partition, behind what is there. */
int adi_flush_marks(struct ad_pack *p, struct flush *f, enum mark mark, struct df_error *err);
/* Fills in f->appends. next: the partitions' seq, then as it is behind the flush. */
int adi_flush_finish(struct ad_pack *p, struct flush *f, uint64_t *next, struct df_error *err);
void adi_flush_clear(struct ad_pack *p, struct flush *f);

#endif
