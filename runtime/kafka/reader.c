/* reader.c - readers at explicit offsets: plain consumers, without a group.
 *
 * The consume call is rd_kafka_consume_batch_queue, without waiting, on a queue of the reader's
 * own; partitions are started by rd_kafka_consume_start_queue. librdkafka 2.0.2's batch calls can
 * lose messages across seek, pause and rebalance, when what lies in the queue becomes outdated:
 * nothing here seeks, pauses or rebalances, a reader that is to stand elsewhere is closed and
 * opened. A handle holds many readers, each partition once; a second reader of a partition gets
 * another handle.
 *
 * The end of the partition is told by an event whose offset lies behind transaction markers and
 * aborted records, so the position comes to the last stable offset. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_private.h"

#define BOUNDS_TIMEOUT_MS 5000
#define FIRST_WAIT_MS 10
#define BUSY_BYTES (1u << 20) /* taken between two pulses (pulse.c), ... */
#define BUSY_MESSAGES 1000    /* ... or so many: of the settings' queue, a tenth of either limit */

struct handle {
        struct handle *next;
        rd_kafka_t *rk;
};

struct reader {
        struct df_log_reader base;
        struct dfk_kafka *kafka;
        struct handle *handle;
        struct reader *next; /* of all readers */
        char topic[DFK_KAFKA_NAME_MAX + 1];
        uint32_t partition;
        rd_kafka_topic_t *rkt;
        rd_kafka_queue_t *queue;
        uint64_t position;
        uint64_t end; /* at open: until it is reached, poll waits a little for the broker */
        rd_kafka_message_t **given; /* lent to the caller until the next call */
        size_t given_count, given_cap;
        atomic_size_t taken, taken_count; /* bytes and messages since the last pulse */
        bool moved_known;
        uint64_t moved_end; /* below it records carry a file log's times (df/kafka_copy.h) */
        struct df_error failed;
};

struct dfk_readers {
        pthread_mutex_t lock;
        struct handle *handles;
        /* Asks for offsets, and fetches nothing: a broker answers a connection in order, so that a
         * question behind a fetch that waits for records would wait as long (fetch.wait.max.ms). */
        rd_kafka_t *asker;
        struct reader *readers;
        struct dfk_pulse *pulse; /* from the first handle on */
};

static struct reader *reader_of(struct df_log_reader *r)
{
        df_check(df_kafka_is(r->log));
        return (struct reader *)r;
}

int dfk_readers_open(struct dfk_kafka *k, struct df_error *err)
{
        k->readers = calloc(1, sizeof(*k->readers));
        if (!k->readers)
                return df_fail(err, DF_ENOMEM, "readers");
        pthread_mutex_init(&k->readers->lock, NULL);
        return 0;
}

void dfk_readers_close(struct dfk_kafka *k)
{
        if (!k->readers)
                return;
        df_check(!k->readers->readers); /* closed before the log */
        dfk_pulse_stop(k->readers->pulse);
        while (k->readers->handles) {
                struct handle *next = k->readers->handles->next;

                rd_kafka_destroy(k->readers->handles->rk);
                free(k->readers->handles);
                k->readers->handles = next;
        }
        if (k->readers->asker)
                rd_kafka_destroy(k->readers->asker);
        pthread_mutex_destroy(&k->readers->lock);
        free(k->readers);
}

static int add_handle(struct dfk_kafka *k, struct handle **ret, struct df_error *err)
{
        struct handle *h = calloc(1, sizeof(*h));
        int rc;

        if (!h)
                return df_fail(err, DF_ENOMEM, "Kafka consumer");
        rc = dfk_client_new(k, DFK_PLAIN_CONSUMER, NULL, NULL, NULL, &h->rk, err);
        if (rc < 0) {
                free(h);
                return rc;
        }
        if (!k->readers->pulse)
                rc = dfk_pulse_start(k, &k->readers->pulse, err);
        if (rc < 0) {
                rd_kafka_destroy(h->rk);
                free(h);
                return rc;
        }
        h->next = k->readers->handles;
        k->readers->handles = h;
        *ret = h;
        return 0;
}

rd_kafka_t *dfk_readers_handle(struct dfk_kafka *k, size_t i)
{
        struct handle *h;

        pthread_mutex_lock(&k->readers->lock);
        h = k->readers->handles;
        while (h && i-- > 0)
                h = h->next;
        pthread_mutex_unlock(&k->readers->lock);
        return h ? h->rk : NULL;
}

void dfk_readers_busy(struct dfk_kafka *k, const rd_kafka_t *rk,
                      rd_kafka_topic_partition_list_t *list, int64_t offset)
{
        pthread_mutex_lock(&k->readers->lock);
        for (struct reader *r = k->readers->readers; r; r = r->next) {
                size_t bytes, messages;

                if (r->handle->rk != rk)
                        continue;
                bytes = atomic_exchange(&r->taken, 0);
                messages = atomic_exchange(&r->taken_count, 0);
                if (bytes >= BUSY_BYTES || messages >= BUSY_MESSAGES)
                        rd_kafka_topic_partition_list_add(list, r->topic, (int32_t)r->partition)
                                ->offset = offset;
        }
        pthread_mutex_unlock(&k->readers->lock);
}

static bool holds(const struct dfk_readers *all, const struct handle *h, const struct reader *r)
{
        for (const struct reader *o = all->readers; o; o = o->next)
                if (o->handle == h && o->partition == r->partition &&
                    strcmp(o->topic, r->topic) == 0)
                        return true;
        return false;
}

/* Under the lock. */
static int find_handle(struct dfk_kafka *k, struct reader *r, struct df_error *err)
{
        struct handle *h = k->readers->handles;
        int rc = 0;

        while (h && holds(k->readers, h, r))
                h = h->next;
        if (!h)
                rc = add_handle(k, &h, err);
        if (rc < 0)
                return rc;
        r->handle = h;
        r->next = k->readers->readers;
        k->readers->readers = r;
        return 0;
}

static void forget(struct reader *r)
{
        struct reader **at = &r->kafka->readers->readers;

        pthread_mutex_lock(&r->kafka->readers->lock);
        while (*at && *at != r)
                at = &(*at)->next;
        if (*at)
                *at = r->next;
        pthread_mutex_unlock(&r->kafka->readers->lock);
}

/* rd_kafka_query_watermark_offsets of librdkafka 2.0.2 waits without end for a leader that is down;
 * rd_kafka_offsets_for_times keeps to its time-out, and hands the times -2 and -1 of the protocol,
 * first and end, on as they are. With isolation.level=read_committed the end is the last stable
 * offset. */
enum { ASK_END = -1, ASK_FIRST = -2 };

/* One partition, one time; *ret < 0 when no record is so late. */
static rd_kafka_resp_err_t ask_once(rd_kafka_t *rk, const char *full, uint32_t partition,
                                    int64_t time, int64_t *ret)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_resp_err_t code;

        rd_kafka_topic_partition_list_add(list, full, (int32_t)partition)->offset = time;
        code = rd_kafka_offsets_for_times(rk, list, BOUNDS_TIMEOUT_MS);
        if (!code)
                code = list->elems[0].err;
        *ret = list->elems[0].offset;
        rd_kafka_topic_partition_list_destroy(list);
        return code;
}

/* What the client remembers of a topic made a moment ago may lack its partitions, and an answer
 * from memory is not asked again until it is old. */
static void look_again(rd_kafka_t *rk, const char *full)
{
        const struct rd_kafka_metadata *m = NULL;
        rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, full, NULL);

        if (!rkt)
                return;
        if (!rd_kafka_metadata(rk, 0, rkt, &m, BOUNDS_TIMEOUT_MS))
                rd_kafka_metadata_destroy(m);
        rd_kafka_topic_destroy(rkt);
}

static rd_kafka_resp_err_t ask_offset(rd_kafka_t *rk, const char *full, uint32_t partition,
                                      int64_t time, int64_t *ret)
{
        rd_kafka_resp_err_t code = ask_once(rk, full, partition, time, ret);

        if (code != RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION &&
            code != RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC &&
            code != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
                return code;
        look_again(rk, full);
        return ask_once(rk, full, partition, time, ret);
}

static int ask_bound(rd_kafka_t *rk, const char *full, uint32_t partition, int64_t which,
                     uint64_t *ret, struct df_error *err)
{
        int64_t offset;
        rd_kafka_resp_err_t code = ask_offset(rk, full, partition, which, &offset);

        if (!code && offset < 0)
                code = RD_KAFKA_RESP_ERR__TIMED_OUT;
        if (code)
                return dfk_fail(err, code, "offsets of %s/%u", full, partition);
        *ret = (uint64_t)offset;
        return 0;
}

static int asker_of(struct dfk_kafka *k, rd_kafka_t **ret, struct df_error *err)
{
        int rc = 0;

        pthread_mutex_lock(&k->readers->lock);
        if (!k->readers->asker)
                rc = dfk_client_new(k, DFK_PLAIN_CONSUMER, NULL, NULL, NULL, &k->readers->asker,
                                    err);
        *ret = k->readers->asker;
        pthread_mutex_unlock(&k->readers->lock);
        return rc;
}

int dfk_bounds(struct df_log *log, const char *topic, uint32_t partition, uint64_t *ret_first,
               uint64_t *ret_end, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full[DFK_KAFKA_NAME_MAX + 1];
        rd_kafka_t *rk = NULL;
        int rc = dfk_full_name(k, topic, full, err);

        if (rc == 0)
                rc = asker_of(k, &rk, err);
        if (rc == 0)
                rc = ask_bound(rk, full, partition, ASK_FIRST, ret_first, err);
        return rc < 0 ? rc : ask_bound(rk, full, partition, ASK_END, ret_end, err);
}

int dfk_offset_at(struct df_log *log, const char *topic, uint32_t partition, int64_t append_ms,
                  uint64_t *ret_offset, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full[DFK_KAFKA_NAME_MAX + 1];
        rd_kafka_resp_err_t code;
        rd_kafka_t *rk = NULL;
        uint64_t first, end;
        int64_t found;
        int rc = dfk_full_name(k, topic, full, err);

        if (rc == 0)
                rc = dfk_bounds(log, topic, partition, &first, &end, err);
        if (rc == 0)
                rc = asker_of(k, &rk, err);
        if (rc < 0)
                return rc;
        /* The broker takes no time before 1970; a negative one means another thing. */
        code = ask_offset(rk, full, partition, append_ms > 0 ? append_ms : 0, &found);
        if (code)
                return dfk_fail(err, code, "offset of a time in %s/%u", full, partition);
        /* Negative: no record is so late. What lies behind the stable end is not to be read yet. */
        *ret_offset = found < 0 || (uint64_t)found > end ? end : (uint64_t)found;
        return 0;
}

static int start(struct reader *r, struct df_error *err)
{
        int rc;

        r->rkt = rd_kafka_topic_new(r->handle->rk, r->topic, NULL);
        r->queue = rd_kafka_queue_new(r->handle->rk);
        if (!r->rkt || !r->queue)
                return df_fail(err, DF_ENOMEM, "reader of %s/%u", r->topic, r->partition);
        rc = rd_kafka_consume_start_queue(r->rkt, (int32_t)r->partition, (int64_t)r->position,
                                          r->queue);
        if (rc == 0)
                return 0;
        rc = dfk_fail(err, rd_kafka_last_error(), "reader of %s/%u", r->topic, r->partition);
        rd_kafka_topic_destroy(r->rkt);
        r->rkt = NULL;
        return rc;
}

int dfk_reader_open(struct df_log *log, const char *topic, uint32_t partition, uint64_t from_offset,
                    const char *consumer, struct df_log_reader **ret, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        struct reader *r = calloc(1, sizeof(*r));
        uint64_t first = 0, end = 0;
        int rc;

        (void)consumer; /* retention is the topic's */
        if (!r)
                return df_fail(err, DF_ENOMEM, "reader of %s/%u", topic, partition);
        r->base.log = log;
        r->kafka = k;
        r->partition = partition;
        rc = dfk_full_name(k, topic, r->topic, err);
        if (rc == 0)
                rc = dfk_bounds(log, topic, partition, &first, &end, err);
        if (rc < 0) {
                free(r);
                return rc;
        }
        r->position = from_offset == DF_OFFSET_END ? end : from_offset;
        r->end = end;
        if (r->position > INT64_MAX)
                rc = df_fail(err, DF_EINVAL, "%s/%u: no such offset", r->topic, r->partition);
        if (rc == 0 && r->position < first)
                rc = df_fail(err, DF_EOFFSET,
                             "%s/%u begins at offset %" PRIu64 ", wanted is %" PRIu64, r->topic,
                             partition, first, r->position);
        if (rc < 0) {
                free(r);
                return rc;
        }
        pthread_mutex_lock(&k->readers->lock);
        rc = find_handle(k, r, err);
        pthread_mutex_unlock(&k->readers->lock);
        if (rc < 0) {
                free(r);
                return rc;
        }
        rc = start(r, err);
        if (rc < 0) {
                dfk_reader_close(&r->base);
                return rc;
        }
        *ret = &r->base;
        return 0;
}

static void take_back(struct reader *r)
{
        while (r->given_count > 0)
                rd_kafka_message_destroy(r->given[--r->given_count]);
}

static int reserve(struct reader *r, size_t max, struct df_error *err)
{
        rd_kafka_message_t **grown;

        if (max <= r->given_cap)
                return 0;
        grown = realloc(r->given, max * sizeof(*grown));
        if (!grown)
                return df_fail(err, DF_ENOMEM, "%zu records", max);
        r->given = grown;
        r->given_cap = max;
        return 0;
}

/* An event that is no record. What heals by itself is none of the caller's business. */
static int on_event(struct reader *r, const rd_kafka_message_t *m, struct df_error *err)
{
        int rc;

        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
                if (m->offset >= 0 && (uint64_t)m->offset > r->position)
                        r->position = (uint64_t)m->offset;
                return 0;
        }
        rc = dfk_fail(err, m->err, "%s/%u at offset %" PRIu64, r->topic, r->partition, r->position);
        if (rc == DF_EAGAIN || m->err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)
                return 0;
        r->failed.code = rc; /* the consumer of this partition stands still from now on */
        (void)df_fail(&r->failed, rc, "%s/%u at offset %" PRIu64 ": %s", r->topic, r->partition,
                      r->position, rd_kafka_err2str(m->err));
        return rc;
}

/* T2: the log stamped it, or the file log did that the topic was moved from. */
static int check_stamp(struct reader *r, const rd_kafka_message_t *m,
                       rd_kafka_timestamp_type_t type, struct df_error *err)
{
        if (type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)
                return 0;
        if (!r->moved_known && !dfk_is_control(r->topic + strlen(r->kafka->options.prefix))) {
                struct dfk_topic t;

                /* The message is taken from the queue: only another reader finds it again. */
                if (dfk_topic_known(r->kafka, r->topic + strlen(r->kafka->options.prefix), &t,
                                    &r->failed) < 0) {
                        r->failed.code = DF_EIO;
                        return df_fail(err, DF_EIO, "%s", r->failed.text);
                }
                r->moved_known = true;
                r->moved_end = r->partition < t.moved_count ? t.moved[r->partition] : 0;
        }
        if (type == RD_KAFKA_TIMESTAMP_CREATE_TIME && (uint64_t)m->offset < r->moved_end)
                return 0;
        (void)df_fail(&r->failed, DF_ESCHEMA,
                      "%s/%u offset %lld was not stamped by the log: set "
                      "message.timestamp.type=LogAppendTime on the topic (T2)",
                      r->topic, r->partition, (long long)m->offset);
        return df_fail(err, DF_ESCHEMA, "%s", r->failed.text);
}

static int take(struct reader *r, rd_kafka_message_t *m, struct df_record *ret,
                struct df_error *err)
{
        rd_kafka_timestamp_type_t type;
        int64_t ms = rd_kafka_message_timestamp(m, &type);

        int rc = check_stamp(r, m, type, err);

        if (rc < 0)
                return rc;
        *ret = (struct df_record){.offset = (uint64_t)m->offset,
                                  .append_ms = ms,
                                  .value = df_bytes(m->payload, m->len)};
        r->position = (uint64_t)m->offset + 1;
        return 0;
}

/* Up to max messages into r->given; the first call waits a little for the broker. */
static size_t drain(struct reader *r, size_t max)
{
        ssize_t n = rd_kafka_consume_batch_queue(r->queue, 0, r->given, max);
        rd_kafka_message_t *m;

        if (n > 0)
                return (size_t)n;
        m = r->position < r->end ? rd_kafka_consume_queue(r->queue, FIRST_WAIT_MS) : NULL;
        if (m)
                r->given[0] = m;
        return m != NULL;
}

int dfk_poll(struct df_log_reader *base, struct df_record *records, size_t max, size_t *ret_count,
             struct df_error *err)
{
        struct reader *r = reader_of(base);
        size_t bytes = 0, n;
        int rc;

        *ret_count = 0;
        take_back(r);
        if (r->failed.code)
                return df_fail(err, r->failed.code, "%s", r->failed.text);
        rc = reserve(r, max, err);
        if (rc < 0)
                return rc;
        n = drain(r, max);
        for (size_t i = 0; i < n; i++) {
                rd_kafka_message_t *m = r->given[i];

                if (rc == 0 && m->err)
                        rc = on_event(r, m, err);
                else if (rc == 0)
                        rc = take(r, m, &records[r->given_count], err);
                bytes += m->len;
                if (rc == 0 && !m->err)
                        r->given[r->given_count++] = m;
                else /* after a failure the reader stands still, and these are read again */
                        rd_kafka_message_destroy(m);
        }
        if (rc < 0 && r->given_count > 0 && r->failed.code)
                rc = 0; /* first what came before; the next call says it */
        if (rc == 0)
                *ret_count = r->given_count;
        atomic_fetch_add_explicit(&r->taken, bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->taken_count, n, memory_order_relaxed);
        return rc;
}

int dfk_release(struct df_log_reader *r, uint64_t offset, struct df_error *err)
{
        (void)r;
        (void)offset;
        (void)err;
        return 0; /* retention is the topic's */
}

uint64_t dfk_position(struct df_log_reader *r)
{
        return reader_of(r)->position;
}

/* The end that came with the last answer to a fetch. One leader that cannot be reached must not
 * hold up a worker's other partitions (K11), so nobody is asked. */
int dfk_seen_end(struct df_log_reader *base, uint64_t *ret_end, struct df_error *err)
{
        struct reader *r = reader_of(base);
        int64_t low, high;
        rd_kafka_resp_err_t code = rd_kafka_get_watermark_offsets(
                r->handle->rk, r->topic, (int32_t)r->partition, &low, &high);

        if (code || high < 0)
                return df_fail(err, DF_EAGAIN, "%s/%u: the broker has not said its end yet",
                               r->topic, r->partition);
        *ret_end = (uint64_t)high > r->position ? (uint64_t)high : r->position;
        return 0;
}

void dfk_reader_close(struct df_log_reader *base)
{
        struct reader *r = reader_of(base);

        take_back(r);
        if (r->rkt) {
                (void)rd_kafka_consume_stop(r->rkt, (int32_t)r->partition);
                rd_kafka_topic_destroy(r->rkt);
        }
        if (r->queue)
                rd_kafka_queue_destroy(r->queue);
        forget(r);
        free(r->given);
        free(r);
}
