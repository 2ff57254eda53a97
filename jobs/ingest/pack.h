/* pack.h - accepted events into log records, and the group commit behind the 202.
 *
 * Events of many requests are gathered per partition into records of about 100 events (E3); one
 * committer thread appends everything gathered in one call, durable when it returns, and then
 * reports each request's ticket. While it writes, the next flush fills. A flush is due when enough
 * bytes wait in it, or as pace.h says: one client alone never waits, a busy log waits for more, at
 * most --batch-delay.
 * Each record carries this start's id and the number of its events written to the partition before
 * (first_seq): a lost or repeated record shows in the ledger.
 *
 * The edge ledger (DESIGN section 3) lives here: received = accepted + rejected + unanswered, a
 * request's events all in one section of the lock; heartbeats carry it to every partition (T4).
 * Thread: any; the callbacks run on the committer thread.
 * Errors: when an append stores nothing (disk full, out of memory or descriptors, given up), its
 *         tickets are reported with the code, and the next flush tries anew. DF_EDOUBT (some may be
 *         stored): likewise, under a new start id, as after a restart; the old one gets a last
 *         heartbeat (in_doubt) with the doubtful events as unanswered, and until that is in the
 *         log every flush is refused with DF_EAGAIN, untried. A client that sends doubtful events
 *         again repeats their ids: dedupe counts them once (D1). After any other failure (L1: a
 *         failed sync) nothing is appended any more: this flush's and all later tickets are
 *         reported with the code, and the process must end. failed() is told in all cases.
 */
#ifndef AD_PACK_H
#define AD_PACK_H

#include "df/log.h"
#include "proto/wire.h"

#define AD_FLUSH_BYTES (1u << 20)      /* write at once when so much waits */
#define AD_GIVE_UP_MS (5 * 60 * 1000)  /* D1: what waited longer is refused, not written */
#define AD_FLUSH_BYTES_MAX (64u << 20) /* refuse (DF_EAGAIN) when so much waits */

/* One append that succeeded, for the clock guard (T2). */
struct ad_pack_append {
        int64_t send_ms, ack_ms;              /* wall time just before and after */
        int64_t append_min_ms, append_max_ms; /* stamped by the log */
};

struct ad_pack_options {
        struct df_log_writer *writer; /* of `events`; borrowed */
        uint32_t partitions;
        int64_t delay_ms;
        int64_t give_up_ms;                                          /* 0 = AD_GIVE_UP_MS */
        void (*done)(void *arg, void *ticket, int rc);               /* rc: 0, or an enum df_err */
        void (*appended)(void *arg, const struct ad_pack_append *a); /* NULL = none */
        void (*failed)(void *arg,
                       const struct df_error *err); /* every failed append; NULL = none */
        void *arg;
        /* By the committer, before each append that holds events: what must be durable before them.
         * Not 0: nothing was appended, and the code is the append's. NULL = none */
        int (*before)(void *arg, struct df_error *err);
        uint32_t (*price_version)(void *arg); /* in force now (W6); NULL = 0 */
        void *price_arg;
};

struct ad_edge_counts {
        uint64_t received, accepted, rejected, unanswered;
};

struct ad_pack_stats {
        struct ad_edge_counts edge;
        uint64_t flushes, records, failures; /* appends, records in them, appends that failed */
        size_t waiting_requests, waiting_bytes;
        int64_t append_p50_us, append_p99_us; /* of the last 1,024 appends; 0 = none yet */
        int64_t heartbeat_ms;   /* receive_ms of the last durable heartbeat; 0 = none (T4) */
        int64_t last_append_ms; /* newest append_ms; 0 = none yet */
        int broken;             /* enum df_err of the failure that ended all appends */
};

struct ad_pack;
int ad_pack_create(const struct ad_pack_options *o, struct ad_pack **ret, struct df_error *err);
uint64_t ad_pack_start_id(struct ad_pack *p); /* of what is added now; changes with DF_EDOUBT */
/* Count the events of a request of which none is taken. */
void ad_pack_rejected(struct ad_pack *p, uint64_t count);
/* Copies the events, at least one; the ticket is reported exactly once. rejected: further events of
 * the request, which were refused. On failure nothing was taken (they count as rejected) and the
 * ticket is not reported. DF_EAGAIN: too much waits. */
int ad_pack_add(struct ad_pack *p, const struct ad_event *events, size_t count, uint64_t rejected,
                void *ticket, struct df_error *err);
/* Write a heartbeat to every partition with the next flush, behind its events. */
void ad_pack_heartbeat(struct ad_pack *p, int64_t now_ms, bool closing);
/* T2: a record from which the maxima of append and receive time restart. */
void ad_pack_clock_reset(struct ad_pack *p, int64_t now_ms);
/* Wait until everything given so far is durable or refused. */
void ad_pack_flush(struct ad_pack *p);
void ad_pack_stats(struct ad_pack *p, struct ad_pack_stats *ret);
int64_t ad_pack_last_append_ms(struct ad_pack *p); /* of the stats, alone */
void ad_pack_destroy(struct ad_pack *p);           /* flushes first */

#endif
