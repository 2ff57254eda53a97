/* follow_outside.c - what the rollups cannot say: refused partitions, ends of the log, disk, the
 * tail of events that no seal covers. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/api/follow_private.h"
#include "jobs/common/settings.h"

#define DISK_EVERY_MS 10000
#define TAIL_RECORDS_MAX 2048
#define TAIL_BYTES_MAX (4u << 20)
#define TAIL_IDLE_MAX 20 /* polls in a row that bring nothing */

uint64_t adi_dir_bytes(const char *dir)
{
        DIR *d = opendir(dir);
        uint64_t sum = 0;
        struct dirent *e;
        struct stat st;

        if (!d)
                return 0;
        while ((e = readdir(d)))
                if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                    S_ISREG(st.st_mode))
                        sum += (uint64_t)st.st_size;
        (void)closedir(d); /* only read */
        return sum;
}

/* What a partition of `rollups` holds beyond damage is as missing as what was never written. */
static void add_unreadable(const struct ad_follow *f, struct ad_outside *ret)
{
        for (uint32_t p = 0; p < f->partitions; p++) {
                size_t at = 0;

                if (!atomic_load(&f->parts[p].failed))
                        continue;
                while (at < ret->missing_count && ret->missing[at] < p)
                        at++;
                if (at < ret->missing_count && ret->missing[at] == p)
                        continue;
                memmove(&ret->missing[at + 1], &ret->missing[at],
                        (ret->missing_count - at) * sizeof(ret->missing[0]));
                ret->missing[at] = p;
                ret->missing_count++;
        }
}

void adi_look_outside(struct ad_follow *f, const struct ad_view *view)
{
        struct ad_outside *o = &f->outside;
        struct df_error err = {0};
        uint64_t first;

        adi_look_instances(f->options.data_dir, o);
        add_unreadable(f, o);
        for (uint32_t p = 0; p < f->partitions; p++) {
                (void)df_log_bounds(f->options.log, AD_TOPIC_EVENTS, p, &first, &o->events_end[p],
                                    &err); /* the old end stays: reading reports what is wrong */
                (void)df_log_bounds(f->options.log, AD_TOPIC_ROLLUPS, p, &first, &o->rollups_end[p],
                                    &err); /* likewise */
                o->rollups_read[p] =
                        f->parts[p].reader ? f->parts[p].position : ad_view_position(view, p);
        }
        o->damaged_collections =
                atomic_load(&f->counts.damaged) + atomic_load(&f->counts.damaged_records);
        if (df_monotonic_ms() >= f->disk_ms) {
                f->disk_ms = df_monotonic_ms() + DISK_EVERY_MS;
                atomic_store(&f->counts.disk_bytes, adi_dir_bytes(f->view_dir));
        }
}

/* ---- the tail ---- */

struct tail {               /* of one partition */
        uint64_t from, end; /* records */
        double average;     /* events of a record, as far as is known */
        uint64_t events;
        struct ad_tail *all;
};

static void note_heartbeat(struct ad_tail *all, const struct ad_batch *b)
{
        const struct ad_heartbeat *h = &b->heartbeat;
        struct ad_edge edge = {.start_id = b->start_id,
                               .heartbeat_ms = h->receive_ms,
                               .received = h->received,
                               .accepted = h->accepted,
                               .rejected = h->rejected,
                               .unanswered = h->unanswered,
                               .closing = h->closing};
        size_t i = 0;

        while (i < all->edge_count && all->edges[i].start_id != b->start_id)
                i++;
        if (i == AD_TAIL_EDGES_MAX)
                return;
        if (i == all->edge_count)
                all->edges[all->edge_count++] = edge;
        else if (edge.heartbeat_ms >= all->edges[i].heartbeat_ms)
                all->edges[i] = edge;
}

static int count_tail(struct df_log *log, uint32_t partition, struct tail *t, struct df_error *err)
{
        struct df_log_reader *r = NULL;
        struct df_record records[64];
        uint64_t at = t->from, bytes = 0;
        uint32_t idle = 0;
        size_t n = 0;
        int rc = 0;

        t->events = 0;
        if (t->end - t->from <= TAIL_RECORDS_MAX && t->end > t->from)
                rc = df_log_reader_open(log, AD_TOPIC_EVENTS, partition, t->from, NULL, &r, err);
        while (rc == 0 && r && idle < TAIL_IDLE_MAX && at < t->end && bytes < TAIL_BYTES_MAX) {
                rc = df_log_poll(r, records, 64, &n, err);
                idle = n > 0 ? 0 : idle + 1;
                for (size_t i = 0; rc == 0 && i < n && records[i].offset < t->end; i++) {
                        struct ad_batch b;
                        struct df_error poison;

                        /* A record that cannot be read has no events (E2). */
                        if (ad_wire_batch_peek(records[i].value, &b, &poison) == 0) {
                                t->events += b.count;
                                if (b.has_heartbeat)
                                        note_heartbeat(t->all, &b);
                        }
                        bytes += records[i].value.len;
                        at = records[i].offset + 1;
                }
                if (rc == 0 && df_log_position(r) > at)
                        at = df_log_position(r); /* Kafka: what holds no record */
        }
        df_log_reader_close(r);
        if (at < t->end) {
                t->all->exact = false;
                t->events += (uint64_t)((double)(t->end - at) * t->average);
        }
        return rc == DF_EOFFSET ? 0 : rc;
}

int ad_follow_tail(struct ad_follow *f, const struct ad_status *s, struct ad_tail *ret,
                   struct df_error *err)
{
        *ret = (struct ad_tail){.exact = true};
        for (uint32_t p = 0; p < s->partitions; p++) {
                struct tail t = {.all = ret};
                uint64_t first;
                int rc = df_log_bounds(f->options.log, AD_TOPIC_EVENTS, p, &first, &t.end, err);

                for (size_t i = 0; i < s->source_count; i++) {
                        const struct ad_source *o = &s->sources[i];

                        if (!ad_status_is_current(s, o) || o->name.partition != p)
                                continue;
                        t.from = o->to_offset;
                        t.average = o->records ? (double)o->events / (double)o->records : 0;
                }
                if (rc == 0)
                        rc = count_tail(f->options.log, p, &t, err);
                if (rc < 0)
                        return rc;
                ret->events[p] = t.events;
        }
        return 0;
}
