/* writer.c - the idempotent producer that writers of a process share.
 *
 * A producer that failed a record has a gap in its sequence, or is fatal; it is not mended but
 * replaced, once the calls that wait for it have their answer: nobody waits for ever, and a restart
 * is never needed. What it may still have stored is DF_EDOUBT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/trace.h"
#include "kafka_private.h"

#define POLL_MS 100

struct producer {
        rd_kafka_t *rk;
        pthread_t thread;
        bool started;
        atomic_bool stop;
};

struct dfk_writers {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        struct producer *producer; /* NULL: made by the next append */
        bool bad;                  /* to be replaced when nobody waits for it */
        size_t waiting;            /* calls */
};

struct writer {
        struct df_log_writer base;
        char topic[DFK_KAFKA_NAME_MAX + 1];
        bool carry_times;
};

struct call { /* one append; its messages point to it */
        struct dfk_writers *w;
        size_t left, stored, doubt;
        rd_kafka_resp_err_t first;
};

struct message {
        struct call *call;
        struct df_append *item;
};

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
        struct message *of = m->_private;
        struct call *c = of->call;
        rd_kafka_timestamp_type_t type;

        (void)rk;
        (void)opaque;
        pthread_mutex_lock(&c->w->lock);
        if (!m->err) {
                of->item->ret_offset = (uint64_t)m->offset;
                of->item->ret_append_ms = rd_kafka_message_timestamp(m, &type);
                c->stored++;
        } else {
                if (!c->first)
                        c->first = m->err;
                if (rd_kafka_message_status(m) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED)
                        c->doubt++;
                c->w->bad = true;
        }
        if (--c->left == 0)
                pthread_cond_broadcast(&c->w->changed);
        pthread_mutex_unlock(&c->w->lock);
}

static void *serve(void *arg)
{
        struct producer *p = arg;

        while (!atomic_load(&p->stop))
                (void)rd_kafka_poll(p->rk, POLL_MS);
        return NULL;
}

static int tune(rd_kafka_conf_t *conf, void *arg, struct df_error *err)
{
        const struct dfk_kafka *k = arg;
        char ms[16];

        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
        (void)snprintf(ms, sizeof(ms), "%d", (int)k->options.produce_timeout_ms);
        return dfk_conf_set(conf, "message.timeout.ms", ms, err);
}

static void drop_producer(struct producer *p)
{
        if (!p)
                return;
        atomic_store(&p->stop, true);
        if (p->started)
                (void)pthread_join(p->thread, NULL);
        if (p->rk)
                rd_kafka_destroy(p->rk);
        free(p);
}

static int make_producer(struct dfk_kafka *k, struct producer **ret, struct df_error *err)
{
        struct producer *p = calloc(1, sizeof(*p));
        int rc = p ? dfk_client_new(k, DFK_PRODUCER, tune, k, NULL, &p->rk, err)
                   : df_fail(err, DF_ENOMEM, "Kafka producer");

        if (rc == 0 && pthread_create(&p->thread, NULL, serve, p) != 0)
                rc = df_fail(err, DF_EAGAIN, "the producer's thread");
        if (rc < 0) {
                drop_producer(p);
                return rc;
        }
        p->started = true;
        *ret = p;
        return 0;
}

/* Under the lock: a producer that is in order, kept until leave. */
static int enter(struct dfk_kafka *k, struct df_error *err)
{
        struct dfk_writers *w = k->writers;

        while (w->bad && w->waiting > 0)
                pthread_cond_wait(&w->changed, &w->lock);
        if (w->bad) {
                drop_producer(w->producer);
                w->producer = NULL;
                w->bad = false;
                atomic_fetch_add(&k->counts.producers_replaced, 1);
                df_trace(DF_WARN, "kafka", "the producer is replaced");
        }
        if (!w->producer) {
                int rc = make_producer(k, &w->producer, err);

                if (rc < 0)
                        return rc;
        }
        w->waiting++;
        return 0;
}

static void leave(struct dfk_writers *w)
{
        w->waiting--;
        pthread_cond_broadcast(&w->changed);
}

static rd_kafka_resp_err_t send_one(struct producer *p, const struct writer *w, struct message *m)
{
        return rd_kafka_producev(
                p->rk, RD_KAFKA_V_TOPIC(w->topic),
                RD_KAFKA_V_PARTITION((int32_t)m->item->partition),
                RD_KAFKA_V_VALUE((void *)(uintptr_t)m->item->value.data, m->item->value.len),
                RD_KAFKA_V_TIMESTAMP(w->carry_times ? m->item->ret_append_ms : 0),
                RD_KAFKA_V_OPAQUE(m), RD_KAFKA_V_END);
}

/* Without the lock; *ret_code: why sending stopped. Returns how many were sent. */
static size_t send_all(struct producer *p, const struct writer *w, struct message *messages,
                       size_t count, rd_kafka_resp_err_t *ret_code)
{
        size_t n = 0;

        *ret_code = RD_KAFKA_RESP_ERR_NO_ERROR;
        while (n < count) {
                rd_kafka_resp_err_t code = send_one(p, w, &messages[n]);

                if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL && n > 0) {
                        dfk_pause(5); /* the poll thread empties it */
                        continue;
                }
                if (code) {
                        *ret_code = code;
                        break;
                }
                n++;
        }
        return n;
}

static int judge(const struct call *c, size_t sent, size_t count, rd_kafka_resp_err_t refused,
                 const char *topic, struct df_error *err)
{
        rd_kafka_resp_err_t why = c->first ? c->first : refused;
        int rc;

        if (sent == count && c->stored == count)
                return 0;
        rc = dfk_fail(err, why, "%zu of %zu records to %s", count - c->stored, count, topic);
        if (c->stored == 0 && c->doubt == 0)
                return rc;
        return df_fail(err, DF_EDOUBT, "%zu of %zu records to %s are stored, %zu perhaps: %s",
                       c->stored, count, topic, c->doubt, rd_kafka_err2str(why));
}

/* All of them first: what is refused in the middle would leave its predecessors stored. */
static int check_items(const struct df_append *items, size_t count, const char *topic,
                       struct df_error *err)
{
        for (size_t i = 0; i < count; i++) {
                if (items[i].value.len > DF_LOG_RECORD_MAX)
                        return df_fail(err, DF_ELIMIT, "a record of %zu bytes to %s; at most %u",
                                       items[i].value.len, topic, DF_LOG_RECORD_MAX);
                if (items[i].partition >= DF_PARTITIONS_MAX)
                        return df_fail(err, DF_EINVAL, "partition %u of %s", items[i].partition,
                                       topic);
        }
        return 0;
}

int dfk_append(struct df_log_writer *base, struct df_append *items, size_t count,
               struct df_error *err)
{
        struct writer *writer = (struct writer *)base;
        struct dfk_kafka *k = dfk_kafka_of(base->log);
        struct dfk_writers *w = k->writers;
        struct message *messages;
        struct call c = {.w = w, .left = count};
        rd_kafka_resp_err_t refused;
        size_t sent;
        int rc = check_items(items, count, writer->topic, err);

        if (rc < 0)
                return rc;
        messages = calloc(count + 1, sizeof(*messages));
        if (!messages)
                return df_fail(err, DF_ENOMEM, "%zu records", count);
        for (size_t i = 0; i < count; i++)
                messages[i] = (struct message){&c, &items[i]};
        pthread_mutex_lock(&w->lock);
        rc = enter(k, err);
        pthread_mutex_unlock(&w->lock);
        if (rc < 0) {
                free(messages);
                return rc;
        }
        sent = send_all(w->producer, writer, messages, count, &refused);
        pthread_mutex_lock(&w->lock);
        c.left -= count - sent;
        w->bad |= rd_kafka_fatal_error(w->producer->rk, NULL, 0) != 0;
        while (c.left > 0) /* message.timeout.ms ends it */
                pthread_cond_wait(&w->changed, &w->lock);
        leave(w);
        pthread_mutex_unlock(&w->lock);
        free(messages);
        return judge(&c, sent, count, refused, writer->topic, err);
}

int dfk_writers_open(struct dfk_kafka *k, struct df_error *err)
{
        k->writers = calloc(1, sizeof(*k->writers));
        if (!k->writers)
                return df_fail(err, DF_ENOMEM, "writers");
        pthread_mutex_init(&k->writers->lock, NULL);
        pthread_cond_init(&k->writers->changed, NULL);
        return 0;
}

void dfk_writers_close(struct dfk_kafka *k)
{
        if (!k->writers)
                return;
        drop_producer(k->writers->producer);
        pthread_mutex_destroy(&k->writers->lock);
        pthread_cond_destroy(&k->writers->changed);
        free(k->writers);
}

int dfk_writer_open(struct df_log *log, const char *topic, struct df_log_writer **ret,
                    struct df_error *err)
{
        struct writer *w = calloc(1, sizeof(*w));
        int rc;

        if (!w)
                return df_fail(err, DF_ENOMEM, "writer of %s", topic);
        w->base.log = log;
        rc = dfk_full_name(dfk_kafka_of(log), topic, w->topic, err);
        if (rc < 0) {
                free(w);
                return rc;
        }
        *ret = &w->base;
        return 0;
}

void dfk_writer_close(struct df_log_writer *w)
{
        free(w);
}

void dfk_writer_carry_times(struct df_log_writer *w)
{
        ((struct writer *)w)->carry_times = true;
}
