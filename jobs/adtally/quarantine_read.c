/* quarantine_read.c - the entries of the topic `quarantine` (quarantine.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/adtally/quarantine.h"
#include "jobs/common/collections.h"
#include "jobs/common/raw_scan.h"
#include "jobs/ingest/parse.h"

#define ARENA_BYTES (1u << 30)
#define NEAR_MS 60000 /* an entry is written after its event was appended */

struct reading {
        const struct ad_held_filter *f;
        bool heads;
        struct ad_held_list *l;
        uint64_t generation;
        const struct df_source *source; /* of the collection at hand */
};

static bool stopping(void *arg)
{
        (void)arg;
        return df_process_stopping();
}

static bool matches(const struct ad_held_filter *f, const struct ad_held *h)
{
        return h->append_ms >= f->from_ms && h->append_ms < f->to_ms &&
               (f->reason == AD_NONE || f->reason == h->reason) &&
               (f->partition < 0 || f->partition == h->partition) &&
               (!f->at || (f->offset == h->offset && h->live &&
                           (f->index < 0 || h->whole_record || f->index == h->index))) &&
               (f->tenant_id.len == 0 || df_bytes_eq(f->tenant_id, h->tenant_id)) &&
               (f->event_id.len == 0 || df_bytes_eq(f->event_id, h->event_id));
}

static int grow(struct ad_held_list *l, struct df_error *err)
{
        size_t cap = l->cap ? 2 * l->cap : 256;
        struct ad_held *grown;

        if (l->count == AD_HELD_MAX)
                return df_fail(err, DF_EINVAL,
                               "more than %d entries: ask for fewer with --from and --to",
                               AD_HELD_MAX);
        if (l->count < l->cap)
                return 0;
        grown = realloc(l->list, cap * sizeof(*grown));
        if (!grown)
                return df_fail(err, DF_ENOMEM, "%zu entries", cap);
        l->list = grown;
        l->cap = cap;
        return 0;
}

static bool keep(struct ad_held_list *l, struct df_bytes *s)
{
        if (s->len == 0)
                return true;
        *s = df_arena_copy(&l->arena, *s);
        return s->data != NULL;
}

static int on_entry(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        struct reading *x = arg;
        const struct df_source *s = x->source;
        struct ad_held *h;
        bool kept;
        int rc = grow(x->l, err);

        if (rc < 0)
                return rc;
        h = &x->l->list[x->l->count];
        *h = (struct ad_held){.partition = s->partition,
                              .index = q->index,
                              .reason = q->reason,
                              .offset = q->offset,
                              .live = strcmp(s->stream, AD_TOPIC_EVENTS) == 0 &&
                                      s->generation == x->generation,
                              .whole_record = q->whole_record,
                              .append_ms = q->append_ms,
                              .tenant_id = q->tenant_id,
                              .event_id = q->event_id,
                              .size = q->size,
                              .key = ad_event_key(q->tenant_id, q->event_id),
                              .released_offset = UINT64_MAX};
        h->selected = matches(x->f, h);
        kept = keep(x->l, &h->tenant_id) && keep(x->l, &h->event_id);
        if (!h->live) {
                h->stream = df_bytes_str(s->stream);
                kept = kept && keep(x->l, &h->stream);
        }
        if (h->selected && x->heads) {
                h->head = q->head;
                kept = kept && keep(x->l, &h->head);
        }
        if (!kept)
                return df_fail(err, DF_ENOMEM,
                               "entries of quarantine: ask for fewer with --from and --to");
        x->l->count++;
        x->l->selected += h->selected;
        return 0;
}

static int read_partition(struct reading *x, struct df_log *log, uint32_t p, bool near,
                          struct df_error *err)
{
        struct ad_collections *reader = NULL;
        const struct df_collection *c = NULL;
        uint64_t from = 0;
        int rc = 0;

        if (near && x->f->from_ms > NEAR_MS)
                rc = df_log_offset_at(log, AD_TOPIC_QUARANTINE, p, x->f->from_ms - NEAR_MS, &from,
                                      err);
        if (rc == 0)
                rc = ad_collections_open(log, AD_TOPIC_QUARANTINE, p, from, &reader, err);
        while (rc == 0) {
                rc = ad_collections_next(reader, stopping, NULL, &c, err);
                if (rc < 0 || !c)
                        break;
                x->source = &c->origin.source;
                for (size_t i = 0; rc == 0 && i < c->count; i++)
                        rc = ad_wire_quarantine_decode(c->payloads[i], on_entry, x, err);
        }
        if (reader)
                x->l->damaged += ad_collections_damaged(reader);
        ad_collections_close(reader);
        return rc;
}

static int order(const void *a, const void *b)
{
        const struct ad_held *x = a, *y = b;

        if (x->live != y->live)
                return x->live ? 1 : -1;
        if (x->partition != y->partition)
                return x->partition < y->partition ? -1 : 1;
        if (x->offset != y->offset)
                return x->offset < y->offset ? -1 : 1;
        return x->index == y->index ? 0 : x->index < y->index ? -1 : 1;
}

int ad_held_read(struct df_log *log, const struct ad_held_filter *f, bool near, bool heads,
                 struct ad_held_list *ret, struct df_error *err)
{
        struct reading x = {.f = f, .heads = heads, .l = ret};
        struct df_topic_info events, quarantine;
        int rc;

        *ret = (struct ad_held_list){0};
        df_arena_init(&ret->arena, ARENA_BYTES);
        rc = ad_topic_find(log, AD_TOPIC_EVENTS, &events, err);
        if (rc == 0)
                rc = ad_topic_find(log, AD_TOPIC_QUARANTINE, &quarantine, err);
        if (rc == 0 && f->partition >= (int64_t)quarantine.partitions)
                rc = df_fail(err, DF_ENOENT, "there are partitions 0 to %u",
                             quarantine.partitions - 1);
        x.generation = events.generation;
        for (uint32_t p = 0; rc == 0 && p < quarantine.partitions; p++)
                if (f->partition < 0 || f->partition == p)
                        rc = read_partition(&x, log, p, near, err);
        if (rc == 0 && ret->count > 1)
                qsort(ret->list, ret->count, sizeof(*ret->list), order);
        return rc;
}

void ad_held_release_list(struct ad_held_list *l)
{
        free(l->list);
        df_arena_release(&l->arena);
        *l = (struct ad_held_list){0};
}

struct ad_held *ad_held_at(const struct ad_held_list *l, uint32_t partition, uint64_t offset,
                           uint32_t index)
{
        struct ad_held key = {
                .live = true, .partition = partition, .offset = offset, .index = index};

        return l->count ? bsearch(&key, l->list, l->count, sizeof(key), order) : NULL;
}

/* ---- what was released ---- */

struct looking {
        struct ad_held_list *l;
        struct df_progress progress;
        const struct ad_raw_scan *scan;
};

static bool number(struct df_bytes s, size_t *at, uint64_t *ret)
{
        size_t from = *at;

        *ret = 0;
        for (; *at < s.len && s.data[*at] >= '0' && s.data[*at] <= '9' && *at - from < 20; ++*at)
                *ret = 10 * *ret + (uint64_t)(s.data[*at] - '0');
        return *at > from;
}

static struct ad_held *entry_of(const struct ad_held_list *l, struct df_bytes source)
{
        size_t at = strlen(AD_SOURCE_RELEASE);
        uint64_t part[3];

        if (source.len < at || memcmp(source.data, AD_SOURCE_RELEASE, at) != 0)
                return NULL;
        for (int i = 0; i < 3; i++)
                if (!number(source, &at, &part[i]) ||
                    (i < 2 && (at >= source.len || source.data[at++] != '/')))
                        return NULL;
        if (at != source.len || part[0] > UINT32_MAX || part[2] > UINT32_MAX)
                return NULL;
        return ad_held_at(l, (uint32_t)part[0], part[1], (uint32_t)part[2]);
}

static int on_event(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct looking *x = arg;
        struct ad_held *h = entry_of(x->l, ev->source);

        (void)err;
        if (!h)
                return 0;
        h->released_offset = ev->offset;
        h->released_index = ev->index;
        h->released_ms = ev->receive_ms;
        return 0;
}

static bool looked(void *arg)
{
        struct looking *x = arg;

        df_progress_show(&x->progress, x->scan->ret_records);
        return df_process_stopping();
}

int ad_held_find_released(struct df_log *source, struct ad_held_list *l, bool quiet,
                          struct df_error *err)
{
        struct looking x = {.l = l};
        uint64_t to = 0, held = 0;
        size_t i = 0;
        int rc = 0;

        while (rc == 0 && i < l->count) {
                uint32_t p = l->list[i].partition;
                struct ad_raw_scan s = {.log = source,
                                        .topic = AD_TOPIC_EVENTS,
                                        .partition = p,
                                        .needle = df_bytes_str(AD_SOURCE_RELEASE),
                                        .stop = looked,
                                        .fn = on_event,
                                        .arg = &x};
                uint64_t first = UINT64_MAX;

                for (; i < l->count && l->list[i].partition == p; i++)
                        if (l->list[i].selected && l->list[i].live && l->list[i].offset < first)
                                first = l->list[i].offset;
                if (first == UINT64_MAX)
                        continue;
                rc = df_log_bounds(source, AD_TOPIC_EVENTS, p, &held, &to, err);
                s.from = first > held ? first : held;
                s.to = to;
                x.scan = &s;
                df_progress_start(&x.progress, "looking for releases", "records",
                                  to > s.from ? to - s.from : 0, quiet);
                if (rc == 0)
                        rc = ad_raw_scan(&s, err);
                df_progress_end(&x.progress, s.ret_records);
        }
        return rc;
}

/* ---- the event itself ---- */

struct fetch {
        struct ad_held_list *l;
        uint32_t index;
        struct df_bytes found;
};

static int on_fetched(void *arg, const struct ad_event *ev, struct df_error *err)
{
        struct fetch *x = arg;

        if (ev->index != x->index)
                return 0;
        x->found = df_arena_copy(&x->l->arena, ev->raw);
        return x->found.data ? 1 : df_fail(err, DF_ENOMEM, "an event");
}

int ad_held_bytes(struct df_log *source, struct ad_held_list *l, const struct ad_held *h,
                  struct df_bytes *ret, struct df_error *err)
{
        struct fetch x = {.l = l, .index = h->index};
        struct ad_raw_scan s = {.log = source,
                                .topic = AD_TOPIC_EVENTS,
                                .partition = h->partition,
                                .from = h->offset,
                                .to = h->offset + 1,
                                .fn = on_fetched,
                                .arg = &x};
        int rc;

        *ret = h->head;
        if (h->size == h->head.len)
                return 0;
        rc = h->live ? ad_raw_scan(&s, err) : 0;
        if (rc < 0 && rc != DF_EOFFSET)
                return rc;
        *ret = x.found;
        return x.found.data ? 0
                            : df_fail(err, DF_ENOENT,
                                      "the first %d bytes are in quarantine; offset %" PRIu64
                                      " of events/%u is neither in the log nor in the archive",
                                      AD_QUARANTINE_HEAD_MAX, h->offset, h->partition);
}
