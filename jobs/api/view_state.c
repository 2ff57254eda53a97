/* view_state.c - sources, spans, ingest starts and the view's own description: bytes and
 * loading. */
#include <stdlib.h>

#include "jobs/api/view_private.h"

static void put_text(struct df_buf *b, const char *s)
{
        df_put_lstr(b, df_bytes_str(s));
}

static void get_text(struct df_reader *r, char *ret, size_t size)
{
        struct df_bytes s = df_get_lstr(r);

        if (s.len >= size) {
                r->bad = true;
                return;
        }
        if (s.len)
                memcpy(ret, s.data, s.len);
        ret[s.len] = '\0';
}

void adi_source_encode(const struct ad_source *s, struct df_buf *b)
{
        put_text(b, s->name.stream);
        df_put_u64be(b, s->name.generation);
        df_put_u32be(b, s->name.partition);
        df_put_u64be(b, s->first_k);
        df_put_u64be(b, s->k);
        df_put_u64be(b, s->epoch);
        df_put_u64be(b, s->from_offset);
        df_put_u64be(b, s->to_offset);
        df_put_u64be(b, (uint64_t)s->watermark_ms);
        df_put_u64be(b, (uint64_t)s->max_append_ms);
        df_put_u64be(b, (uint64_t)s->max_receive_ms);
        df_put_u64be(b, (uint64_t)s->final_through_ms);
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                df_put_varint(b, s->outcomes[i]);
        df_put_varint(b, s->records);
        df_put_varint(b, s->poison_records);
        df_put_varint(b, s->heartbeats);
        df_put_varint(b, s->events);
        df_put_varint(b, s->rows);
        df_put_varint(b, s->sequence_gaps);
        df_put_varint(b, s->chain_gaps);
        df_put_u64be(b, s->digest.lo);
        df_put_u64be(b, s->digest.hi);
        df_put_u64be(b, s->config);
        df_put_u32be(b, s->price_version);
        df_put_u32be(b, s->label_version);
        put_text(b, s->binary_version);
        df_put_u8(b, (uint8_t)(s->closed | s->is_import << 1 | s->aborted << 2 | s->voiding << 3));
        put_text(b, s->tenant);
        put_text(b, s->dataset);
        df_put_u64be(b, (uint64_t)s->import_from_ms);
        df_put_u64be(b, (uint64_t)s->import_to_ms);
        df_put_u64be(b, (uint64_t)s->import_receive_ms);
        df_put_u64be(b, (uint64_t)s->applied_ms);
}

bool adi_source_decode(struct df_bytes bytes, struct ad_source *s)
{
        struct df_reader r = df_reader(bytes);
        uint8_t flags;

        get_text(&r, s->name.stream, sizeof(s->name.stream));
        s->name.generation = df_get_u64be(&r);
        s->name.partition = df_get_u32be(&r);
        s->first_k = df_get_u64be(&r);
        s->k = df_get_u64be(&r);
        s->epoch = df_get_u64be(&r);
        s->from_offset = df_get_u64be(&r);
        s->to_offset = df_get_u64be(&r);
        s->watermark_ms = (int64_t)df_get_u64be(&r);
        s->max_append_ms = (int64_t)df_get_u64be(&r);
        s->max_receive_ms = (int64_t)df_get_u64be(&r);
        s->final_through_ms = (int64_t)df_get_u64be(&r);
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                s->outcomes[i] = df_get_varint(&r);
        s->records = df_get_varint(&r);
        s->poison_records = df_get_varint(&r);
        s->heartbeats = df_get_varint(&r);
        s->events = df_get_varint(&r);
        s->rows = df_get_varint(&r);
        s->sequence_gaps = df_get_varint(&r);
        s->chain_gaps = df_get_varint(&r);
        s->digest.lo = df_get_u64be(&r);
        s->digest.hi = df_get_u64be(&r);
        s->config = df_get_u64be(&r);
        s->price_version = df_get_u32be(&r);
        s->label_version = df_get_u32be(&r);
        get_text(&r, s->binary_version, sizeof(s->binary_version));
        flags = df_get_u8(&r);
        s->closed = flags & 1;
        s->is_import = flags & 2;
        s->aborted = flags & 4;
        s->voiding = flags & 8;
        get_text(&r, s->tenant, sizeof(s->tenant));
        get_text(&r, s->dataset, sizeof(s->dataset));
        s->import_from_ms = (int64_t)df_get_u64be(&r);
        s->import_to_ms = (int64_t)df_get_u64be(&r);
        s->import_receive_ms = (int64_t)df_get_u64be(&r);
        s->applied_ms = (int64_t)df_get_u64be(&r);
        s->rows_commit = UINT64_MAX;
        return !r.bad && df_reader_left(&r) == 0;
}

void adi_meta_encode(const struct ad_view_options *o, struct df_buf *b)
{
        df_put_u32be(b, ADI_SCHEMA);
        df_put_u64be(b, o->rollups_generation);
        df_put_u64be(b, o->events_generation);
        df_put_u32be(b, o->partitions);
        df_put_u32be(b, o->groupings->version);
        df_put_u32be(b, o->groupings->count);
        for (uint32_t g = 0; g < o->groupings->count; g++)
                df_put_lstr(b,
                            df_bytes(o->groupings->list[g].dims, o->groupings->list[g].dim_count));
        put_text(b, ad_zone_is_utc(o->account_zone) ? "UTC" : ad_zone_name(o->account_zone));
        /* Other rules may give other days; a new tz database mostly leaves a zone as it was. */
        df_put_u64be(b, ad_zone_is_utc(o->account_zone) ? 0 : ad_zone_digest(o->account_zone));
}

static void encode_edge(const struct ad_edge *e, struct df_buf *b)
{
        df_put_u64be(b, e->start_id);
        df_put_u64be(b, (uint64_t)e->heartbeat_ms);
        df_put_varint(b, e->received);
        df_put_varint(b, e->accepted);
        df_put_varint(b, e->rejected);
        df_put_varint(b, e->unanswered);
        df_put_varint(b, e->partition_accepted);
        df_put_varint(b, e->partition_seen);
        df_put_u8(b, e->closing);
}

static void decode_edge(struct df_reader *r, struct ad_edge *e)
{
        e->start_id = df_get_u64be(r);
        e->heartbeat_ms = (int64_t)df_get_u64be(r);
        e->received = df_get_varint(r);
        e->accepted = df_get_varint(r);
        e->rejected = df_get_varint(r);
        e->unanswered = df_get_varint(r);
        e->partition_accepted = df_get_varint(r);
        e->partition_seen = df_get_varint(r);
        e->closing = df_get_u8(r) != 0;
}

static int grow_sources(struct ad_view *v, struct df_error *err)
{
        size_t cap = v->source_cap ? v->source_cap * 2 : 64;
        struct ad_source *s;
        bool *d;

        if (v->source_count < v->source_cap)
                return 0;
        s = realloc(v->sources, cap * sizeof(*s));
        if (s)
                v->sources = s;
        d = realloc(v->source_dirty, cap * sizeof(*d));
        if (d)
                v->source_dirty = d;
        if (!s || !d)
                return df_fail(err, DF_ENOMEM, "%zu sources", cap);
        v->source_cap = cap;
        return 0;
}

struct ad_source *adi_source_get(struct ad_view *v, const struct df_source *name,
                                 struct df_error *err)
{
        struct ad_source *s;

        for (size_t i = v->source_count; i > 0; i--) /* the newest are asked for most */
                if (df_source_eq(&v->sources[i - 1].name, name))
                        return &v->sources[i - 1];
        if (grow_sources(v, err) < 0)
                return NULL;
        s = &v->sources[v->source_count];
        *s = (struct ad_source){
                .id = (uint32_t)v->source_count,
                .name = *name,
                .watermark_ms = DF_TIME_MIN,
                .max_append_ms = DF_TIME_MIN,
                .max_receive_ms = DF_TIME_MIN,
                .final_through_ms = DF_TIME_MIN,
                .rows_commit = UINT64_MAX,
        };
        v->source_dirty[v->source_count++] = true;
        return s;
}

int adi_span_touch(struct ad_view *v, uint32_t source, struct df_bytes tenant, uint32_t minute,
                   struct df_error *err)
{
        struct adi_span *s;
        bool fresh;

        if (tenant.len > AD_ID_MAX)
                return df_fail(err, DF_EPARSE, "a tenant of %zu bytes", tenant.len);
        s = v->span; /* the one before, mostly */
        if (!s || s->span.source != source || !df_bytes_eq(df_bytes_str(s->span.tenant), tenant)) {
                df_buf_clear(&v->key);
                df_put_u8(&v->key, 't');
                df_put_u32be(&v->key, source);
                df_buf_append(&v->key, tenant.data, tenant.len);
                s = v->key.failed ? NULL : ad_map_put(&v->spans, df_buf_bytes(&v->key), &fresh);
                if (!s)
                        return df_fail(err, DF_ENOMEM, "tenants of the view");
                if (fresh) {
                        s->span = (struct ad_span){source, minute, minute, ""};
                        if (tenant.len)
                                memcpy(s->span.tenant, tenant.data, tenant.len);
                        s->dirty = true;
                }
                v->span = s;
        }
        if (minute < s->span.first_minute) {
                s->span.first_minute = minute;
                s->dirty = true;
        }
        if (minute > s->span.last_minute) {
                s->span.last_minute = minute;
                s->dirty = true;
        }
        return 0;
}

/* The oldest listed start moves into one sum: an ingest that restarts every minute for years must
 * not grow the view. */
static void forget_oldest(struct ad_view *v)
{
        struct ad_edge newest = {.heartbeat_ms = INT64_MAX};
        uint64_t seen = 0;

        for (struct ad_map_entry *e = v->starts.first; e; e = e->next) {
                struct adi_start *s = (struct adi_start *)e->value;

                if (!s->gone && s->start.edge.heartbeat_ms < newest.heartbeat_ms)
                        newest = s->start.edge;
        }
        for (struct ad_map_entry *e = v->starts.first; e; e = e->next) {
                struct adi_start *s = (struct adi_start *)e->value;

                if (s->gone || s->start.edge.start_id != newest.start_id)
                        continue;
                if (s->start.edge.heartbeat_ms > newest.heartbeat_ms)
                        newest = s->start.edge;
                seen += s->start.edge.partition_seen;
                s->gone = s->dirty = true;
                v->start_count--;
        }
        v->forgotten.received += newest.received;
        v->forgotten.accepted += newest.accepted;
        v->forgotten.rejected += newest.rejected;
        v->forgotten.unanswered += newest.unanswered;
        v->forgotten.partition_seen += seen;
        v->forgotten_count++;
}

int adi_start_touch(struct ad_view *v, uint32_t source, const struct ad_edge *edge,
                    struct df_error *err)
{
        struct adi_start *s;
        bool fresh;

        df_buf_clear(&v->key);
        df_put_u8(&v->key, 'e');
        df_put_u64be(&v->key, edge->start_id);
        df_put_u32be(&v->key, source);
        s = v->key.failed ? NULL : ad_map_put(&v->starts, df_buf_bytes(&v->key), &fresh);
        if (!s)
                return df_fail(err, DF_ENOMEM, "ingest starts of the view");
        if (s->gone)
                return 0; /* summed up long ago */
        s->start = (struct ad_start){source, *edge};
        s->dirty = true;
        v->start_count += fresh;
        while (v->start_count > (uint64_t)ADI_STARTS_MAX * (v->options.partitions + 1))
                forget_oldest(v);
        return 0;
}

static void put_spans(struct ad_view *v)
{
        for (struct ad_map_entry *e = v->spans.first; e; e = e->next) {
                struct adi_span *s = (struct adi_span *)e->value;

                if (!s->dirty)
                        continue;
                df_buf_clear(&v->value);
                df_put_u32be(&v->value, s->span.first_minute);
                df_put_u32be(&v->value, s->span.last_minute);
                df_store_put(v->store, e->key, df_buf_bytes(&v->value));
                s->dirty = false;
        }
}

static void put_starts(struct ad_view *v)
{
        bool forgot = false;

        for (struct ad_map_entry *e = v->starts.first; e; e = e->next) {
                struct adi_start *s = (struct adi_start *)e->value;

                if (!s->dirty)
                        continue;
                s->dirty = false;
                df_buf_clear(&v->value);
                if (s->gone) {
                        forgot = true;
                        df_store_del(v->store, e->key);
                        continue;
                }
                encode_edge(&s->start.edge, &v->value);
                df_store_put(v->store, e->key, df_buf_bytes(&v->value));
        }
        if (!forgot)
                return;
        df_buf_clear(&v->value);
        encode_edge(&v->forgotten, &v->value);
        df_put_u64be(&v->value, v->forgotten_count);
        df_store_put(v->store, df_bytes("g", 1), df_buf_bytes(&v->value));
}

void adi_state_put(struct ad_view *v)
{
        for (size_t i = 0; i < v->source_count; i++) {
                if (!v->source_dirty[i])
                        continue;
                df_buf_clear(&v->key);
                df_buf_clear(&v->value);
                df_put_u8(&v->key, 's');
                df_put_u32be(&v->key, (uint32_t)i);
                adi_source_encode(&v->sources[i], &v->value);
                df_store_put(v->store, df_buf_bytes(&v->key), df_buf_bytes(&v->value));
                v->source_dirty[i] = false;
        }
        put_spans(v);
        put_starts(v);
}

static int damaged(struct df_error *err, const char *what)
{
        return df_fail(err, DF_ECORRUPT, "the view holds a damaged %s", what);
}

static int load_source(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct ad_view *v = arg;
        struct df_reader r = df_reader(df_bytes(key.data + 1, key.len - 1));
        int rc = grow_sources(v, err);

        if (rc < 0)
                return rc;
        v->sources[v->source_count] = (struct ad_source){0};
        if (df_get_u32be(&r) != v->source_count || r.bad ||
            !adi_source_decode(value, &v->sources[v->source_count]))
                return damaged(err, "source");
        v->sources[v->source_count].id = (uint32_t)v->source_count;
        v->source_dirty[v->source_count++] = false;
        return 0;
}

static int load_span(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct ad_view *v = arg;
        struct df_reader r = df_reader(value), k = df_reader(key);
        struct adi_span *s;
        uint32_t source;
        bool fresh;

        (void)df_get_u8(&k);
        source = df_get_u32be(&k);
        if (k.bad || df_reader_left(&k) > AD_ID_MAX || source >= v->source_count)
                return damaged(err, "span");
        s = ad_map_put(&v->spans, key, &fresh);
        if (!s)
                return df_fail(err, DF_ENOMEM, "tenants of the view");
        s->span.source = source;
        s->span.first_minute = df_get_u32be(&r);
        s->span.last_minute = df_get_u32be(&r);
        memcpy(s->span.tenant, k.p, df_reader_left(&k));
        return r.bad ? damaged(err, "span") : 0;
}

static int load_start(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct ad_view *v = arg;
        struct df_reader r = df_reader(value), k = df_reader(key);
        struct adi_start *s;
        bool fresh;

        (void)df_get_bytes(&k, 9);
        s = ad_map_put(&v->starts, key, &fresh);
        if (!s)
                return df_fail(err, DF_ENOMEM, "ingest starts of the view");
        s->start.source = df_get_u32be(&k);
        decode_edge(&r, &s->start.edge);
        v->start_count++;
        return r.bad || k.bad ? damaged(err, "ingest start") : 0;
}

static int load_position(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct ad_view *v = arg;
        struct df_reader k = df_reader(key), r = df_reader(value);
        uint32_t p;

        (void)df_get_u8(&k);
        p = df_get_u32be(&k);
        if (k.bad || p >= DF_PARTITIONS_MAX)
                return damaged(err, "position");
        v->positions[p] = df_get_u64be(&r);
        return r.bad ? damaged(err, "position") : 0;
}

/* Only whether anything expired or folded into __other__: the first hit of each kind is enough. */
static int load_flag(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct ad_view *v = arg;
        struct df_reader k = df_reader(key), r = df_reader(value);
        uint8_t kind = df_get_u8(&k), level = df_get_u8(&k), grouping;

        (void)df_get_lstr(&k);
        grouping = df_get_u8(&k);
        if (k.bad || level >= AD_LEVEL_COUNT || grouping >= AD_GROUPINGS_MAX)
                return damaged(err, "bucket");
        if (kind == 'o')
                atomic_store(&v->other[grouping], true);
        (void)df_get_u64be(&r);
        if (kind == 'b' && df_get_u8(&r) != 0)
                atomic_store(&v->expired[level], true);
        return 0;
}

void adi_state_forget(struct ad_view *v)
{
        ad_map_clear(&v->spans);
        ad_map_clear(&v->starts);
        df_arena_reset(&v->memory);
        adi_marks_forget(v);
        v->span = NULL;
        v->source_count = 0;
        v->start_count = v->forgotten_count = 0;
        v->forgotten = (struct ad_edge){0};
        memset(v->positions, 0, sizeof(v->positions));
        for (int i = 0; i < AD_LEVEL_COUNT; i++)
                atomic_store(&v->expired[i], false);
        for (int i = 0; i < AD_GROUPINGS_MAX; i++)
                atomic_store(&v->other[i], false);
}

int adi_state_load(struct ad_view *v, struct df_error *err)
{
        static const struct {
                char prefix;
                int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *);
        } kinds[] = {{'s', load_source},   {'t', load_span}, {'e', load_start},
                     {'f', load_position}, {'b', load_flag}, {'o', load_flag}};
        struct df_bytes value;
        struct df_reader r;
        bool found;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
                rc = df_store_scan(v->store, df_bytes(&kinds[i].prefix, 1), kinds[i].fn, v, err);
        if (rc == 0)
                rc = df_store_get(v->store, df_bytes("g", 1), &value, &found, err);
        if (rc == 0 && found) {
                r = df_reader(value);
                decode_edge(&r, &v->forgotten);
                v->forgotten_count = df_get_u64be(&r);
                if (r.bad)
                        rc = damaged(err, "sum of starts");
        }
        return rc;
}
