#include "jobs/ingest/pack_private.h"

#include <stdlib.h>
#include <time.h>

#include "df/run.h"
#include "df/sha256.h"

uint64_t ad_pack_start_id(struct ad_pack *p)
{
        uint64_t id;

        pthread_mutex_lock(&p->lock);
        id = p->start_id;
        pthread_mutex_unlock(&p->lock);
        return id;
}

static bool flush_empty(const struct flush *f)
{
        return f->ticket_count == 0 && f->heartbeat.receive_ms == 0 && f->clock_reset_ms == 0;
}

static int64_t now_us(void)
{
        return df_monotonic_ns() / 1000;
}

static void touch(struct ad_pack *p, struct flush *f)
{
        bool first = f->since_us == 0;

        if (first)
                f->since_us = now_us();
        else if (f->urgent)
                return;
        if (f->bytes >= AD_FLUSH_BYTES || (f->ticket_count && f->ticket_count >= p->pace.peak))
                f->urgent = true;
        if (first || f->urgent)
                pthread_cond_signal(&p->wake);
}

void ad_pack_rejected(struct ad_pack *p, uint64_t count)
{
        pthread_mutex_lock(&p->lock);
        p->stats.edge.received += count;
        p->stats.edge.rejected += count;
        pthread_mutex_unlock(&p->lock);
}

int ad_pack_add(struct ad_pack *p, const struct ad_event *events, size_t count, uint64_t rejected,
                void *ticket, struct df_error *err)
{
        struct flush *f;
        int rc = 0;

        df_check(count > 0);
        pthread_mutex_lock(&p->lock);
        f = p->filling;
        if (p->stats.broken)
                rc = df_fail(err, p->stats.broken, "the log failed; the process is ending");
        else if (f->bytes > AD_FLUSH_BYTES_MAX)
                rc = df_fail(err, DF_EAGAIN, "%zu bytes wait to be written", f->bytes);
        /* The ticket first: it is all that can fail without leaving events behind. An event that
         * cannot be added for want of memory ends the process: the rest of its request may be in.
         */
        if (rc == 0)
                rc = adi_flush_ticket(f, ticket, count, err);
        for (size_t i = 0; rc == 0 && i < count; i++)
                df_check(adi_flush_event(p, &events[i], err) == 0);
        /* In the same section: between two, the start in whose ledger they stand might end. */
        p->stats.edge.received += count + rejected;
        p->stats.edge.rejected += rejected;
        if (rc == 0) {
                p->stats.edge.unanswered += count;
                ad_pace_added(&p->pace);
                touch(p, f);
        } else {
                p->stats.edge.rejected += count;
        }
        pthread_mutex_unlock(&p->lock);
        return rc;
}

void ad_pack_heartbeat(struct ad_pack *p, int64_t now_ms, bool closing)
{
        pthread_mutex_lock(&p->lock);
        p->filling->heartbeat.receive_ms = now_ms;
        p->filling->heartbeat.closing = closing;
        touch(p, p->filling);
        pthread_mutex_unlock(&p->lock);
}

void ad_pack_clock_reset(struct ad_pack *p, int64_t now_ms)
{
        pthread_mutex_lock(&p->lock);
        p->filling->clock_reset_ms = now_ms;
        touch(p, p->filling);
        pthread_mutex_unlock(&p->lock);
}

int64_t ad_pack_last_append_ms(struct ad_pack *p)
{
        int64_t ms;

        pthread_mutex_lock(&p->lock);
        ms = p->stats.last_append_ms;
        pthread_mutex_unlock(&p->lock);
        return ms;
}

static int compare_us(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return (x > y) - (x < y);
}

void ad_pack_stats(struct ad_pack *p, struct ad_pack_stats *ret)
{
        uint32_t sorted[LATENCIES];
        size_t n;

        pthread_mutex_lock(&p->lock);
        *ret = p->stats;
        for (int i = 0; i < 2; i++) {
                ret->waiting_requests += p->flushes[i].ticket_count;
                ret->waiting_bytes += p->flushes[i].bytes;
        }
        n = ret->flushes < LATENCIES ? (size_t)ret->flushes : LATENCIES;
        memcpy(sorted, p->latency_us, n * sizeof(*sorted));
        pthread_mutex_unlock(&p->lock);
        if (n == 0)
                return;
        qsort(sorted, n, sizeof(*sorted), compare_us);
        ret->append_p50_us = sorted[n / 2];
        ret->append_p99_us = sorted[n * 99 / 100];
}

/* ---- the committer ---- */

/* Whether a failed append left nothing behind, so that the next one may be tried. */
static bool stored_nothing(int rc)
{
        return rc == DF_ENOSPC || rc == DF_EAGAIN || rc == DF_ENOMEM;
}

static int append(struct ad_pack *p, struct flush *f, struct df_error *err)
{
        uint64_t next[DF_PARTITIONS_MAX];
        struct ad_pack_append done = {.append_min_ms = INT64_MAX};
        int rc;

        memcpy(next, p->seq, p->o.partitions * sizeof(*next));
        rc = adi_flush_finish(p, f, next, err);
        done.send_ms = df_wall_ms();
        if (rc == 0)
                rc = df_log_append(p->o.writer, f->appends, f->record_count, err);
        if (rc < 0)
                return rc;
        done.ack_ms = df_wall_ms();
        memcpy(p->seq, next, p->o.partitions * sizeof(*next));
        for (size_t i = 0; i < f->record_count; i++) {
                int64_t ms = f->appends[i].ret_append_ms;

                done.append_min_ms = ms < done.append_min_ms ? ms : done.append_min_ms;
                done.append_max_ms = ms > done.append_max_ms ? ms : done.append_max_ms;
        }
        if (p->o.appended)
                p->o.appended(p->o.arg, &done);
        pthread_mutex_lock(&p->lock);
        if (done.append_max_ms > p->stats.last_append_ms)
                p->stats.last_append_ms = done.append_max_ms;
        if (f->heartbeat.receive_ms)
                p->stats.heartbeat_ms = f->heartbeat.receive_ms;
        pthread_mutex_unlock(&p->lock);
        return 0;
}

/* The last heartbeat of the start that ended, and the first of this one (T4), in an append of their
 * own: while they cannot be written no event is tried, so nothing more comes in doubt, and however
 * long the log is away there is one such start. In doubt again, they are written again: what they
 * say stays true. Their time is one that was allowed (T2) before the events that wait now. */
static int part_starts(struct ad_pack *p, const struct ad_heartbeat *counts, struct df_error *err)
{
        struct flush *b = &p->between;
        struct df_error why = {0};
        int rc;

        b->record_count = 0;
        b->heartbeat = *counts;
        b->heartbeat.receive_ms = p->ended.heartbeat.receive_ms = p->heard_ms;
        b->heartbeat.closing = false;
        rc = adi_flush_marks(p, b, MARK_ENDED, &why);
        if (rc == 0)
                rc = adi_flush_marks(p, b, MARK_HEARTBEAT, &why);
        if (rc == 0)
                rc = append(p, b, &why);
        p->ended.due = rc < 0;
        if (rc == DF_EDOUBT)
                rc = DF_EAGAIN; /* of the events that wait nothing is stored */
        return rc < 0 ? df_fail(err, rc, "after an append in doubt: %s", why.text) : 0;
}

static int write_flush(struct ad_pack *p, struct flush *f, struct df_error *err)
{
        int rc = p->stats.broken; /* written by this thread alone */

        if (rc < 0)
                return df_fail(err, rc, "an earlier append failed");
        if (p->ended.due)
                rc = part_starts(p, &f->heartbeat, err);
        if (rc < 0)
                return rc;
        /* D1: a look-back of H + 3 h is exact only if no record is much younger than its events. */
        if ((now_us() - f->since_us) / 1000 > p->o.give_up_ms)
                return df_fail(err, DF_EAGAIN, "events waited more than %lld ms for the disk",
                               (long long)p->o.give_up_ms);
        if (f->ticket_count && p->o.before)
                rc = p->o.before(p->o.arg, err);
        if (rc == 0 && f->clock_reset_ms)
                rc = adi_flush_marks(p, f, MARK_CLOCK_RESET, err);
        if (rc == 0 && f->heartbeat.receive_ms)
                rc = adi_flush_marks(p, f, MARK_HEARTBEAT, err);
        return rc < 0 ? rc : append(p, f, err);
}

/* DF_EDOUBT: nobody knows which numbers of this start are in the log. As after a restart, the rest
 * gets a new start id; what is in doubt stays unanswered in the old one's ledger for ever, what
 * waits moves to the new one's. Under the lock. */
static int begin_anew(struct ad_pack *p)
{
        struct ad_edge_counts *e = &p->stats.edge;
        uint64_t waiting = 0, id, *seq = p->ended.seq;
        int rc = df_random(&id, sizeof(id), NULL);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < p->filling->ticket_count; i++)
                waiting += p->filling->tickets[i].events;
        /* A start without any heartbeat (T4: it had no event) is in nobody's ledger. */
        p->ended = (struct ended){.due = p->heard_ms != 0, .start_id = p->start_id, .seq = p->seq};
        p->ended.heartbeat = (struct ad_heartbeat){.received = e->received - waiting,
                                                   .accepted = e->accepted,
                                                   .rejected = e->rejected,
                                                   .unanswered = e->unanswered - waiting,
                                                   .in_doubt = true};
        p->start_id = id | 1; /* 0 means none */
        p->seq = memset(seq, 0, p->o.partitions * sizeof(*seq));
        *e = (struct ad_edge_counts){.received = waiting, .unanswered = waiting};
        return 0;
}

static void settle(struct ad_pack *p, struct flush *f, int64_t took_us, int rc)
{
        pthread_mutex_lock(&p->lock);
        for (size_t i = 0; i < f->ticket_count; i++) {
                /* After a failed sync nobody knows whether they are stored: unanswered for ever. */
                if (rc < 0 && !stored_nothing(rc))
                        continue;
                p->stats.edge.unanswered -= f->tickets[i].events;
                if (rc == 0)
                        p->stats.edge.accepted += f->tickets[i].events;
                else
                        p->stats.edge.rejected += f->tickets[i].events;
        }
        if (rc == 0) {
                p->latency_us[p->stats.flushes++ % LATENCIES] = (uint32_t)took_us;
                p->stats.records += f->record_count;
        } else {
                p->stats.failures++;
                if (rc == DF_EDOUBT)
                        p->stats.broken = begin_anew(p);
                else if (!stored_nothing(rc))
                        p->stats.broken = rc;
        }
        ad_pace_settled(&p->pace, f->ticket_count, took_us, now_us());
        pthread_mutex_unlock(&p->lock);
        for (size_t i = 0; i < f->ticket_count; i++)
                p->o.done(p->o.arg, f->tickets[i].ticket, rc);
}

/* Under the lock: wait until the filling flush is due. False: stop, and nothing is left. */
static bool wait_due(struct ad_pack *p)
{
        for (;;) {
                struct flush *f = p->filling;
                int64_t now, left;
                struct timespec until;

                if (flush_empty(f)) {
                        if (p->stop)
                                return false;
                        pthread_cond_wait(&p->wake, &p->lock);
                        continue;
                }
                now = now_us();
                left = ad_pace_wait_us(&p->pace, f->ticket_count, f->since_us, now);
                if (left == 0 || f->urgent || p->stop)
                        return true;
                until = (struct timespec){(now + left) / 1000000, (now + left) % 1000000 * 1000};
                (void)pthread_cond_timedwait(&p->wake, &p->lock, &until); /* looks again */
        }
}

/* The end of the process: once more, for the sake of a start that ended with the last append. */
static void last_word(struct ad_pack *p)
{
        struct df_error err = {0};

        if (!p->stats.broken && p->ended.due &&
            part_starts(p, &(struct ad_heartbeat){0}, &err) < 0 && p->o.failed)
                p->o.failed(p->o.arg, &err);
}

static void *committer(void *arg)
{
        struct ad_pack *p = arg;

        pthread_mutex_lock(&p->lock);
        while (wait_due(p)) {
                struct flush *f = p->filling;
                struct df_error err = {0};
                int64_t began;
                int rc;

                p->filling = f == &p->flushes[0] ? &p->flushes[1] : &p->flushes[0];
                p->taken++;
                ad_pace_taken(&p->pace);
                f->heartbeat.received = p->stats.edge.received;
                f->heartbeat.accepted = p->stats.edge.accepted;
                f->heartbeat.rejected = p->stats.edge.rejected;
                f->heartbeat.unanswered = p->stats.edge.unanswered;
                pthread_mutex_unlock(&p->lock);
                began = df_monotonic_ns();
                rc = write_flush(p, f, &err);
                if (rc < 0 && p->o.failed)
                        p->o.failed(p->o.arg, &err);
                if (f->heartbeat.receive_ms)
                        p->heard_ms = f->heartbeat.receive_ms;
                settle(p, f, (df_monotonic_ns() - began) / 1000, rc);
                pthread_mutex_lock(&p->lock);
                adi_flush_clear(p, f);
                p->settled++;
                pthread_cond_broadcast(&p->idle);
        }
        pthread_mutex_unlock(&p->lock);
        last_word(p);
        return NULL;
}

void ad_pack_flush(struct ad_pack *p)
{
        uint64_t target;

        pthread_mutex_lock(&p->lock);
        target = p->taken + !flush_empty(p->filling);
        while (p->settled < target) {
                if (p->taken < target)
                        p->filling->urgent = true;
                pthread_cond_signal(&p->wake);
                pthread_cond_wait(&p->idle, &p->lock);
        }
        pthread_mutex_unlock(&p->lock);
}

int ad_pack_create(const struct ad_pack_options *o, struct ad_pack **ret, struct df_error *err)
{
        struct ad_pack *p = calloc(1, sizeof(*p));
        pthread_condattr_t attr;
        int rc;

        df_check(o->partitions > 0 && o->partitions <= DF_PARTITIONS_MAX);
        if (!p)
                return df_fail(err, DF_ENOMEM, "ingest buffers");
        p->o = *o;
        if (p->o.give_up_ms == 0)
                p->o.give_up_ms = AD_GIVE_UP_MS;
        p->filling = &p->flushes[0];
        p->pace.delay_us = o->delay_ms * 1000;
        pthread_mutex_init(&p->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&p->wake, &attr);
        pthread_cond_init(&p->idle, NULL);
        pthread_condattr_destroy(&attr);
        p->seq = calloc(o->partitions, sizeof(*p->seq));
        p->ended.seq = calloc(o->partitions, sizeof(*p->seq));
        p->flushes[0].open = calloc(o->partitions, sizeof(size_t));
        p->flushes[1].open = calloc(o->partitions, sizeof(size_t));
        if (!p->seq || !p->ended.seq || !p->flushes[0].open || !p->flushes[1].open)
                rc = df_fail(err, DF_ENOMEM, "ingest buffers");
        else
                rc = df_random(&p->start_id, sizeof(p->start_id), err);
        p->start_id |= 1; /* 0 means none */
        if (rc == 0 && pthread_create(&p->thread, NULL, committer, p) != 0)
                rc = df_fail(err, DF_EAGAIN, "committer thread");
        p->started = rc == 0;
        if (rc < 0) {
                ad_pack_destroy(p);
                return rc;
        }
        *ret = p;
        return 0;
}

void ad_pack_destroy(struct ad_pack *p)
{
        if (!p)
                return;
        if (p->started) {
                pthread_mutex_lock(&p->lock);
                p->stop = true;
                pthread_cond_signal(&p->wake);
                pthread_mutex_unlock(&p->lock);
                (void)pthread_join(p->thread, NULL);
        }
        for (int i = 0; i < 3; i++) {
                struct flush *f = i < 2 ? &p->flushes[i] : &p->between;

                for (size_t r = 0; r < f->record_cap; r++)
                        df_buf_release(&f->records[r].bytes);
                free(f->records);
                free(f->open);
                free(f->tickets);
                free(f->appends);
        }
        free(p->seq);
        free(p->ended.seq);
        df_buf_release(&p->scratch);
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->wake);
        pthread_cond_destroy(&p->idle);
        free(p);
}
