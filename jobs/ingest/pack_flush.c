/* pack_flush.c - the records of one append. */
#include "jobs/ingest/pack_private.h"

#include <stdlib.h>

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
        r->mark = MARK_NONE;
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

int adi_flush_event(struct ad_pack *p, const struct ad_event *ev, struct df_error *err)
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

int adi_flush_ticket(struct flush *f, void *ticket, uint64_t events, struct df_error *err)
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

/* Records that hold no event, one a partition, behind the flush's events. */
int adi_flush_marks(struct ad_pack *p, struct flush *f, enum mark mark, struct df_error *err)
{
        for (uint32_t i = 0; i < p->o.partitions; i++) {
                struct record *r = new_record(f, i);

                if (!r)
                        return df_fail(err, DF_ENOMEM, "heartbeats");
                r->mark = mark;
        }
        return 0;
}

/* Headers, now that the order in each partition is final. next: seq after the flush. */
static int put_headers(struct ad_pack *p, struct flush *f, uint64_t *next, struct df_error *err)
{
        uint32_t prices = p->o.price_version ? p->o.price_version(p->o.price_arg) : 0;

        for (size_t i = 0; i < f->record_count; i++) {
                struct record *r = &f->records[i];
                bool ended = r->mark == MARK_ENDED;
                uint64_t seq = ended ? p->ended.seq[r->partition] : next[r->partition];
                struct ad_batch h = {
                        .start_id = ended ? p->ended.start_id : p->start_id,
                        .first_seq = seq,
                        .price_version = prices,
                        .schema_version = AD_SCHEMA_VERSION,
                        .has_heartbeat = ended || r->mark == MARK_HEARTBEAT,
                        .heartbeat = ended ? p->ended.heartbeat : f->heartbeat,
                        .clock_reset = r->mark == MARK_CLOCK_RESET,
                };

                h.heartbeat.partition_accepted = seq;
                ad_wire_batch_header(&r->bytes, &h);
                if (r->bytes.failed)
                        return df_fail(err, DF_ENOMEM, "log records");
                next[r->partition] += r->events;
                f->appends[i] = (struct df_append){.partition = r->partition,
                                                   .value = df_buf_bytes(&r->bytes)};
        }
        return 0;
}

int adi_flush_finish(struct ad_pack *p, struct flush *f, uint64_t *next, struct df_error *err)
{
        if (f->append_cap < f->record_count) {
                free(f->appends);
                f->append_cap = f->record_cap;
                f->appends = calloc(f->append_cap, sizeof(*f->appends));
                if (!f->appends) {
                        f->append_cap = 0;
                        return df_fail(err, DF_ENOMEM, "log records");
                }
        }
        return put_headers(p, f, next, err);
}

void adi_flush_clear(struct ad_pack *p, struct flush *f)
{
        memset(f->open, 0, p->o.partitions * sizeof(*f->open));
        f->record_count = 0;
        f->ticket_count = 0;
        f->bytes = 0;
        f->since_us = 0;
        f->urgent = false;
        f->heartbeat = (struct ad_heartbeat){0};
        f->clock_reset_ms = 0;
}
