/* pack.h - accepted events into log records, and the group commit behind the 202.
 *
 * Events of many requests are gathered per partition into records of about 100 events (E3), for at
 * most --batch-delay or until enough bytes wait; one committer thread appends everything gathered in
 * one call, durable when it returns, and then reports each request's ticket. While it writes, the
 * next flush fills. Each record carries this start's id and the number of its events written to the
 * partition before (first_seq): a lost or repeated record shows in the ledger.
 *
 * The edge ledger (DESIGN section 3) lives here: received = accepted + rejected + unanswered, each
 * counted where it happens, under one lock; heartbeats carry it to every partition (T4).
 * Thread: any; `done` is called on the committer thread. A failed append stores nothing (DF_ENOSPC)
 * or ends the process (a failed sync, L1); its tickets are reported with the error.
 */
#ifndef AD_PACK_H
#define AD_PACK_H

#include "df/log.h"
#include "proto/wire.h"

#define AD_FLUSH_BYTES (1u << 20)        /* write at once when so much waits */
#define AD_FLUSH_BYTES_MAX (64u << 20)   /* refuse (DF_EAGAIN) when so much waits */

struct ad_pack_options {
        struct df_log_writer *writer; /* of `events`; borrowed */
        uint32_t partitions;
        int64_t delay_ms;
        void (*done)(void *arg, void *ticket, int rc); /* rc: 0, or why nothing was stored */
        void *arg;
        uint32_t (*price_version)(void *arg); /* in force now (W6); NULL = 0 */
        void *price_arg;
};

struct ad_edge_counts {
        uint64_t received, accepted, rejected, unanswered;
};

struct ad_pack;
int ad_pack_create(const struct ad_pack_options *o, struct ad_pack **ret, struct df_error *err);
uint64_t ad_pack_start_id(const struct ad_pack *p);
/* Count a request's events as they are judged; add() then takes the accepted ones. */
void ad_pack_received(struct ad_pack *p, uint64_t received, uint64_t rejected);
/* Copies the events. DF_EAGAIN: too much waits; nothing was taken (they count as rejected). */
int ad_pack_add(struct ad_pack *p, const struct ad_event *events, size_t count, void *ticket,
                struct df_error *err);
/* Write a heartbeat to every partition with the next flush. */
void ad_pack_heartbeat(struct ad_pack *p, int64_t now_ms, bool closing);
/* T2: a record from which the maxima of append and receive time restart. */
void ad_pack_clock_reset(struct ad_pack *p, int64_t now_ms);
/* Wait until everything given so far is durable or refused. */
void ad_pack_flush(struct ad_pack *p);
void ad_pack_counts(struct ad_pack *p, struct ad_edge_counts *ret);
/* Newest append_ms seen in any partition; 0 = none yet. */
int64_t ad_pack_last_append_ms(struct ad_pack *p);
void ad_pack_destroy(struct ad_pack *p); /* flushes first */

#endif
