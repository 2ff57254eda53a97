/* reader.c - following a partition up to its durable end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "filelog_private.h"

#define READ_CHUNK (256u << 10)
#define OUT_MIN (64u << 10) /* several small frames share one poll */
#define IDLE_CHECK_EVERY 64 /* empty polls between looks at whether END was replaced */

_Static_assert(offsetof(struct dfi_reader, base) == 0, "downcast");

struct dfi_reader *dfi_reader_of(struct df_log_reader *r)
{
        (void)dfi_log_of(r->log); /* checks the adapter */
        return (struct dfi_reader *)r;
}

int dfi_reader_open(struct df_log *base, const char *topic, uint32_t partition,
                    uint64_t from_offset, const char *consumer, struct df_log_reader **ret,
                    struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        struct dfi_reader *r;
        int rc;

        if (consumer && !dfi_name_ok(consumer))
                return df_fail(err, DF_EINVAL,
                               "consumer name \"%.80s\" is not [a-z0-9][a-z0-9._-]{0,%d}", consumer,
                               DF_TOPIC_NAME_MAX - 1);
        r = calloc(1, sizeof(*r));
        if (!r)
                return df_fail(err, DF_ENOMEM, "no memory for a reader of topic %s", topic);
        r->base.log = base;
        r->log = log;
        r->seg = (struct dfi_seg){.fd = -1, .chunk = READ_CHUNK};
        if (consumer)
                memcpy(r->consumer, consumer, strlen(consumer) + 1);
        rc = dfi_topic_load(log, topic, &r->topic, err);
        if (rc == 0)
                rc = dfi_topic_part(&r->topic, partition, &r->part, err);
        if (rc == 0)
                rc = dfi_end_open(&r->part, &r->map, err);
        if (rc == 0 && !dfi_end_read(&r->map, &r->end))
                rc = df_fail(err, DF_EAGAIN, "topic %s partition %u: END is not whole", topic,
                             partition);
        if (rc == 0) {
                r->want = from_offset == DF_OFFSET_END ? r->end.offset : from_offset;
                rc = consumer ? dfi_consumer_register(r, err) : dfi_reader_seek(r, err);
        }
        if (rc) {
                dfi_reader_close(&r->base);
                return rc;
        }
        *ret = &r->base;
        return 0;
}

void dfi_reader_close(struct df_log_reader *base)
{
        struct dfi_reader *r = dfi_reader_of(base);

        dfi_end_close(&r->map);
        dfi_seg_release(&r->seg);
        (void)ZSTD_freeDCtx(r->dctx);
        free(r->out);
        free(r);
}

/* Nothing new for a while: is this still the file that the writer writes? */
static int check_replaced(struct dfi_reader *r, struct df_error *err)
{
        struct dfi_end_map map;
        struct dfi_topic now;
        int rc;

        if (++r->idle_count % IDLE_CHECK_EVERY != 0 || !dfi_end_replaced(&r->part, &r->map))
                return 0;
        rc = dfi_topic_load(r->log, r->topic.info.name, &now, err);
        if (rc)
                return rc;
        if (now.info.generation != r->topic.info.generation)
                return df_fail(err, DF_ESCHEMA,
                               "topic %s was created anew (generation %016" PRIx64
                               ", was %016" PRIx64 ")",
                               now.info.name, now.info.generation, r->topic.info.generation);
        rc = dfi_end_open(&r->part, &map, err);
        if (rc == DF_EAGAIN)
                return 0; /* a writer's start makes it anew */
        if (rc)
                return rc;
        dfi_end_close(&r->map);
        r->map = map;
        return 0;
}

/* Find the segment and the byte up to which it may be read. *ret_ready: a frame is there. */
static int next_frame_place(struct dfi_reader *r, bool *ret_ready, struct df_error *err)
{
        *ret_ready = true;
        if (r->seg.fd >= 0 && r->seg.base == r->seg_base && r->pos < r->limit)
                return 0;
        if (!dfi_end_read(&r->map, &r->end))
                return df_fail(err, DF_EAGAIN, "topic %s partition %u: END is not whole",
                               r->topic.info.name, r->part.index);
        if (r->end.offset <= r->frame_offset) {
                *ret_ready = false;
                return check_replaced(r, err);
        }
        for (;;) {
                int rc = 0;

                if (r->seg.fd < 0 || r->seg.base != r->seg_base)
                        rc = dfi_seg_open(&r->seg, &r->part, r->seg_base, err);
                if (rc == DF_ENOENT) {
                        rc = dfi_reader_segment_gone(r, err);
                        if (rc)
                                return rc;
                        continue;
                }
                if (rc == 0)
                        rc = dfi_seg_size(&r->seg, &r->limit, err);
                if (rc)
                        return rc;
                if (r->seg_base == r->end.seg_base) {
                        r->limit = r->end.pos;
                        break;
                }
                if (r->pos != r->limit)
                        break;
                r->seg_base = r->frame_offset; /* this one is read to its end: the next */
                r->pos = 0;
        }
        if (r->pos < r->limit)
                return 0;
        return df_fail(err, DF_ECORRUPT,
                       "topic %s partition %u: END says offset %" PRIu64 " at byte %" PRIu64
                       " of segment %020" PRIu64 ".seg, where offset %" PRIu64 " begins",
                       r->topic.info.name, r->part.index, r->end.offset, r->end.pos,
                       r->end.seg_base, r->frame_offset);
}

static int grow_out(struct dfi_reader *r, size_t need, struct df_error *err)
{
        size_t cap = r->out_cap ? r->out_cap : OUT_MIN;
        uint8_t *out;

        while (cap < need)
                cap *= 2;
        out = malloc(cap);
        if (!out)
                return df_fail(err, DF_ENOMEM, "no memory for a frame of %zu bytes", need);
        free(r->out);
        r->out = out;
        r->out_cap = cap;
        return 0;
}

/* Load the next frame behind what out holds. *ret_loaded is false at the durable end, and when
 * there is no room behind records that the caller already has (first = false). */
static int load_frame(struct dfi_reader *r, bool first, bool *ret_loaded, struct df_error *err)
{
        struct dfi_seg_at at;
        const uint8_t *payload;
        struct dfi_frame f;
        const char *why;
        bool ready;
        int rc = next_frame_place(r, &ready, err);

        *ret_loaded = false;
        if (rc || !ready)
                return rc;
        at = (struct dfi_seg_at){.pos = r->pos, .limit = r->limit, .offset = r->frame_offset};
        if (at.pos > at.limit)
                at.limit = at.pos;
        rc = dfi_seg_frame(&r->seg, &r->part, &at, &f, &payload, &why, err);
        if (rc)
                return rc;
        if (why)
                return dfi_corrupt(&r->part, &r->seg, &at, why, err);
        if (first)
                r->out_len = 0;
        if (f.raw_len > r->out_cap - r->out_len) {
                if (!first)
                        return 0;
                rc = grow_out(r, f.raw_len, err);
                if (rc)
                        return rc;
        }
        if (!r->dctx && f.codec == DFI_CODEC_ZSTD && !(r->dctx = ZSTD_createDCtx()))
                return df_fail(err, DF_ENOMEM, "no memory for decompression");
        if (!dfi_frame_inflate(r->dctx, &f, payload, r->out + r->out_len))
                return dfi_corrupt(&r->part, &r->seg, &at, "a frame cannot be decompressed", err);
        r->cur = r->out + r->out_len;
        r->cur_end = r->cur + f.raw_len;
        r->cur_left = f.count;
        r->cur_offset = f.base;
        r->cur_ms = f.append_ms;
        r->out_len += f.raw_len;
        r->pos += DFI_FRAME_HEADER + f.stored_len;
        r->frame_offset = f.base + f.count;
        *ret_loaded = true;
        return 0;
}

/* Hand out records of the current frame; -1 when its bytes make no sense. */
static int take(struct dfi_reader *r, struct df_record *records, size_t max, size_t *n)
{
        while (r->cur_left && *n < max) {
                struct df_bytes value;

                if (!dfi_record_next(&r->cur, r->cur_end, &value))
                        return -1;
                if (r->cur_offset >= r->want)
                        records[(*n)++] = (struct df_record){
                                .offset = r->cur_offset, .append_ms = r->cur_ms, .value = value};
                r->cur_offset++;
                r->cur_left--;
        }
        return r->cur_left == 0 && r->cur != r->cur_end ? -1 : 0;
}

int dfi_poll(struct df_log_reader *base, struct df_record *records, size_t max, size_t *ret_count,
             struct df_error *err)
{
        struct dfi_reader *r = dfi_reader_of(base);
        size_t n = 0;

        while (n < max) {
                bool loaded;
                int rc = 0;

                if (r->cur_left == 0)
                        rc = load_frame(r, n == 0, &loaded, err);
                else
                        loaded = true;
                if (rc && n == 0)
                        return rc;
                if (rc || !loaded)
                        break; /* an error is met again by the next call */
                if (take(r, records, max, &n) != 0)
                        return df_fail(err, DF_ECORRUPT,
                                       "topic %s partition %u: the records of the frame before "
                                       "offset %" PRIu64 " do not fill it",
                                       r->topic.info.name, r->part.index, r->frame_offset);
        }
        *ret_count = n;
        return 0;
}

uint64_t dfi_position(struct df_log_reader *base)
{
        const struct dfi_reader *r = dfi_reader_of(base);
        uint64_t at = r->cur_left ? r->cur_offset : r->frame_offset;

        return at < r->want ? r->want : at;
}
