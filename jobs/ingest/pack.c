#include "jobs/ingest/pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "df/run.h"
#include "df/sha256.h"

#define LATENCIES 1024

struct record {
        struct df_buf bytes; /* entries; the header is added when it is written */
        uint32_t partition;
        uint32_t events;
        bool heartbeat;
        bool clock_reset;
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
        int64_t since_ms; /* monotonic time of the first thing in it */
        bool urgent;
        struct ad_heartbeat heartbeat; /* receive_ms 0 = none */
        int64_t clock_reset_ms;        /* 0 = none */
};

struct ad_pack {
        struct ad_pack_options o;
        uint64_t start_id;
        uint64_t *seq; /* events of this start in each partition */
        pthread_t thread;
        bool started;
        pthread_mutex_t lock;
        pthread_cond_t wake; /* the committer */
        pthread_cond_t idle; /* ad_pack_flush */
        bool stop;
        struct flush flushes[2];
        struct flush *filling;
        uint64_t taken, settled;  /* flushes that the committer took, and finished */
        size_t expected_requests; /* as many were answered by the last flush that had any */
        struct ad_pack_stats stats;
        uint32_t latency_us[LATENCIES]; /* ring */
        struct df_buf scratch;          /* one encoded event; under the lock */
};

uint64_t ad_pack_start_id(const struct ad_pack *p)
{
        return p->start_id;
}

static bool flush_empty(const struct flush *f)
{
        return f->ticket_count == 0 && f->heartbeat.receive_ms == 0 && f->clock_reset_ms == 0;
}

static struct record *new_record(struct flush *f, uint32_t partition)
{
        struct record *r;

        if (f->record_count == f->record_cap) {
                size_t cap = f->record_cap ? 2 * f->record_cap : 64;
                struct record *grown = realloc(f->records, cap * sizeof(*grown));

                if (!grown)
                        return NULL;
                memset(grown + f->record_cap, 0, (cap - f->record_cap) * sizeof(*grown));
                f->records = grown;
                f->record_cap = cap;
        }
        r = &f->records[f->record_count++];
        df_buf_clear(&r->bytes);
        r->partition = partition;
        r->events = 0;
        r->heartbeat = false;
        r->clock_reset = false;
        return r;
}

static struct record *open_record(struct flush *f, uint32_t partition)
{
        struct record *r = f->open[partition] ? &f->records[f->open[partition] - 1] : NULL;

        if (r && r->events < AD_RECORD_EVENTS && r->bytes.len < AD_RECORD_BYTES)
                return r;
        r = new_record(f, partition);
        if (r)
                f->open[partition] = f->record_count;
        return r;
}

static int add_event(struct ad_pack *p, const struct ad_event *ev, struct df_error *err)
{
        struct df_hash128 key = ad_event_key(ev->tenant_id, ev->event_id);
        uint32_t partition = ad_event_partition(key, p->o.partitions);
        struct record *r = open_record(p->filling, partition);
        size_t before;

        if (!r)
                return df_fail(err, DF_ENOMEM, "log records");
        df_buf_clear(&p->scratch);
        ad_wire_event(&p->scratch, ev);
        before = r->bytes.len;
        ad_wire_batch_entry(&r->bytes, df_buf_bytes(&p->scratch));
        if (p->scratch.failed || r->bytes.failed)
                return df_fail(err, DF_ENOMEM, "log records");
        r->events++;
        p->filling->bytes += r->bytes.len - before;
        return 0;
}

static int add_ticket(struct flush *f, void *ticket, uint64_t events, struct df_error *err)
{
        if (f->ticket_count == f->ticket_cap) {
                size_t cap = f->ticket_cap ? 2 * f->ticket_cap : 256;
                struct ticket *grown = realloc(f->tickets, cap * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "requests");
                f->tickets = grown;
                f->ticket_cap = cap;
        }
        f->tickets[f->ticket_count++] = (struct ticket){ticket, events};
        return 0;
}

static bool all_back(const struct ad_pack *p, const struct flush *f)
{
        return f->ticket_count > 0 && f->ticket_count >= p->expected_requests;
}

static void touch(struct ad_pack *p, struct flush *f)
{
        if (f->since_ms == 0) {
                f->since_ms = df_monotonic_ms();
                pthread_cond_signal(&p->wake);
        } else if (!f->urgent && (f->bytes >= AD_FLUSH_BYTES || all_back(p, f))) {
                f->urgent = true;
                pthread_cond_signal(&p->wake);
        }
}

void ad_pack_received(struct ad_pack *p, uint64_t received, uint64_t rejected)
{
        pthread_mutex_lock(&p->lock);
        p->stats.edge.received += received;
        p->stats.edge.rejected += rejected;
        p->stats.edge.unanswered += received - rejected;
        pthread_mutex_unlock(&p->lock);
}

int ad_pack_add(struct ad_pack *p, const struct ad_event *events, size_t count, void *ticket,
                struct df_error *err)
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
                rc = add_ticket(f, ticket, count, err);
        for (size_t i = 0; rc == 0 && i < count; i++)
                df_check(add_event(p, &events[i], err) == 0);
        if (rc == 0) {
                touch(p, f);
        } else {
                p->stats.edge.rejected += count;
                p->stats.edge.unanswered -= count;
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

/* Records that hold no event, one a partition, behind the flush's events. */
static int add_marks(struct ad_pack *p, struct flush *f, bool heartbeat, struct df_error *err)
{
        for (uint32_t i = 0; i < p->o.partitions; i++) {
                struct record *r = new_record(f, i);

                if (!r)
                        return df_fail(err, DF_ENOMEM, "heartbeats");
                r->heartbeat = heartbeat;
                r->clock_reset = !heartbeat;
        }
        return 0;
}

/* Headers, now that the order in each partition is final. next: seq after the flush. */
static int finish_records(struct ad_pack *p, struct flush *f, uint64_t *next, struct df_error *err)
{
        uint32_t prices = p->o.price_version ? p->o.price_version(p->o.price_arg) : 0;

        for (size_t i = 0; i < f->record_count; i++) {
                struct record *r = &f->records[i];
                struct ad_batch h = {
                        .start_id = p->start_id,
                        .first_seq = next[r->partition],
                        .price_version = prices,
                        .schema_version = AD_SCHEMA_VERSION,
                        .has_heartbeat = r->heartbeat,
                        .heartbeat = f->heartbeat,
                        .clock_reset = r->clock_reset,
                };

                h.heartbeat.partition_accepted = next[r->partition];
                ad_wire_batch_header(&r->bytes, &h);
                if (r->bytes.failed)
                        return df_fail(err, DF_ENOMEM, "log records");
                next[r->partition] += r->events;
                f->appends[i] = (struct df_append){.partition = r->partition,
                                                   .value = df_buf_bytes(&r->bytes)};
        }
        return 0;
}

/* Whether a failed append left nothing behind, so that the next one may be tried. */
static bool stored_nothing(int rc)
{
        return rc == DF_ENOSPC || rc == DF_EAGAIN || rc == DF_ENOMEM;
}

static int prepare(struct ad_pack *p, struct flush *f, uint64_t *next, struct df_error *err)
{
        int rc = 0;

        if (f->clock_reset_ms)
                rc = add_marks(p, f, false, err);
        if (rc == 0 && f->heartbeat.receive_ms)
                rc = add_marks(p, f, true, err);
        if (rc == 0 && f->append_cap < f->record_count) {
                free(f->appends);
                f->append_cap = f->record_cap;
                f->appends = calloc(f->append_cap, sizeof(*f->appends));
                if (!f->appends) {
                        f->append_cap = 0;
                        rc = df_fail(err, DF_ENOMEM, "log records");
                }
        }
        return rc < 0 ? rc : finish_records(p, f, next, err);
}

static int write_flush(struct ad_pack *p, struct flush *f, struct df_error *err)
{
        uint64_t next[DF_PARTITIONS_MAX];
        struct ad_pack_append done = {.append_min_ms = INT64_MAX};
        int rc = p->stats.broken; /* written by this thread alone */

        if (rc < 0)
                return df_fail(err, rc, "an earlier append failed");
        /* D1: a look-back of H + 3 h is exact only if no record is much younger than its events. */
        if (df_monotonic_ms() - f->since_ms > p->o.give_up_ms)
                return df_fail(err, DF_EAGAIN, "events waited more than %lld ms for the disk",
                               (long long)p->o.give_up_ms);
        memcpy(next, p->seq, p->o.partitions * sizeof(*next));
        rc = prepare(p, f, next, err);
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

static void clear_flush(struct ad_pack *p, struct flush *f)
{
        memset(f->open, 0, p->o.partitions * sizeof(*f->open));
        f->record_count = 0;
        f->ticket_count = 0;
        f->bytes = 0;
        f->since_ms = 0;
        f->urgent = false;
        f->heartbeat = (struct ad_heartbeat){0};
        f->clock_reset_ms = 0;
}

/* DF_EDOUBT: nobody knows which numbers of this start are in the log. As after a restart, the rest
 * gets a new start id; what is in doubt stays unanswered in the old one's ledger for ever. Under
 * the lock. */
static int begin_anew(struct ad_pack *p)
{
        uint64_t waiting = 0, id;
        int rc = df_random(&id, sizeof(id), NULL);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < p->filling->ticket_count; i++)
                waiting += p->filling->tickets[i].events;
        p->start_id = id | 1; /* 0 means none */
        memset(p->seq, 0, p->o.partitions * sizeof(*p->seq));
        p->stats.edge = (struct ad_edge_counts){.received = waiting, .unanswered = waiting};
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
        if (f->ticket_count)
                p->expected_requests = f->ticket_count;
        pthread_mutex_unlock(&p->lock);
        for (size_t i = 0; i < f->ticket_count; i++)
                p->o.done(p->o.arg, f->tickets[i].ticket, rc);
}

/* Under the lock: wait until the filling flush is due. False: stop, and nothing is left. */
static bool wait_due(struct ad_pack *p)
{
        for (;;) {
                struct flush *f = p->filling;
                int64_t left;
                struct timespec until;

                if (flush_empty(f)) {
                        if (p->stop)
                                return false;
                        pthread_cond_wait(&p->wake, &p->lock);
                        continue;
                }
                left = f->since_ms + p->o.delay_ms - df_monotonic_ms();
                if (left <= 0 || f->urgent || p->stop || all_back(p, f))
                        return true;
                clock_gettime(CLOCK_MONOTONIC, &until);
                until.tv_nsec += left * 1000000;
                until.tv_sec += until.tv_nsec / 1000000000;
                until.tv_nsec %= 1000000000;
                (void)pthread_cond_timedwait(&p->wake, &p->lock, &until); /* looks again */
        }
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
                f->heartbeat.received = p->stats.edge.received;
                f->heartbeat.accepted = p->stats.edge.accepted;
                f->heartbeat.rejected = p->stats.edge.rejected;
                f->heartbeat.unanswered = p->stats.edge.unanswered;
                pthread_mutex_unlock(&p->lock);
                began = df_monotonic_ns();
                rc = write_flush(p, f, &err);
                if (rc < 0 && p->o.failed)
                        p->o.failed(p->o.arg, &err);
                settle(p, f, (df_monotonic_ns() - began) / 1000, rc);
                pthread_mutex_lock(&p->lock);
                clear_flush(p, f);
                p->settled++;
                pthread_cond_broadcast(&p->idle);
        }
        pthread_mutex_unlock(&p->lock);
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
        pthread_mutex_init(&p->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&p->wake, &attr);
        pthread_cond_init(&p->idle, NULL);
        pthread_condattr_destroy(&attr);
        p->seq = calloc(o->partitions, sizeof(*p->seq));
        p->flushes[0].open = calloc(o->partitions, sizeof(size_t));
        p->flushes[1].open = calloc(o->partitions, sizeof(size_t));
        if (!p->seq || !p->flushes[0].open || !p->flushes[1].open)
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
        for (int i = 0; i < 2; i++) {
                struct flush *f = &p->flushes[i];

                for (size_t r = 0; r < f->record_cap; r++)
                        df_buf_release(&f->records[r].bytes);
                free(f->records);
                free(f->open);
                free(f->tickets);
                free(f->appends);
        }
        free(p->seq);
        df_buf_release(&p->scratch);
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->wake);
        pthread_cond_destroy(&p->idle);
        free(p);
}
