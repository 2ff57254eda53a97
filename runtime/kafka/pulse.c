/* pulse.c - fetching goes on as soon as there is room again.
 *
 * Once a partition's queue is full (queued.max.messages.kbytes), librdkafka 2.0 looks at it again
 * only when something else wakes the thread of that broker, after a second at the latest (from 2.2
 * on: fetch.queue.backoff.ms). Whoever drains the queue in a fifth of that would stand still for
 * the rest, and a queue for a whole second is memory that no cache holds. So while readers take
 * much, a thread asks their leaders for an offset, every 10 ms: the question wakes the thread, the
 * answer is not needed. Readers that take little never fill their queue, and are not asked for.
 */
#include <stdlib.h>
#include <time.h>

#include "kafka_private.h"

#define PULSE_MS 10
#define ANSWER_MS 500 /* a leader that is down: its readers have nothing to wait for */
#define ASK_END (-1)

struct dfk_pulse {
        struct dfk_kafka *kafka;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
};

static bool wait_for_next(struct dfk_pulse *p)
{
        struct timespec until;
        bool go_on;

        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += PULSE_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&p->lock);
        if (!p->stop)
                (void)pthread_cond_timedwait(&p->wake, &p->lock, &until);
        go_on = !p->stop;
        pthread_mutex_unlock(&p->lock);
        return go_on;
}

static void *run(void *arg)
{
        struct dfk_pulse *p = arg;

        while (wait_for_next(p)) {
                rd_kafka_t *rk;

                for (size_t i = 0; (rk = dfk_readers_handle(p->kafka, i)); i++) {
                        rd_kafka_topic_partition_list_t *busy =
                                rd_kafka_topic_partition_list_new(8);

                        dfk_readers_busy(p->kafka, rk, busy, ASK_END);
                        if (busy->cnt > 0)
                                (void)rd_kafka_offsets_for_times(rk, busy, ANSWER_MS);
                        rd_kafka_topic_partition_list_destroy(busy);
                }
        }
        return NULL;
}

int dfk_pulse_start(struct dfk_kafka *k, struct dfk_pulse **ret, struct df_error *err)
{
        struct dfk_pulse *p = calloc(1, sizeof(*p));
        pthread_condattr_t attr;

        if (!p)
                return df_fail(err, DF_ENOMEM, "Kafka readers");
        p->kafka = k;
        pthread_mutex_init(&p->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&p->wake, &attr);
        pthread_condattr_destroy(&attr);
        if (pthread_create(&p->thread, NULL, run, p) != 0) {
                pthread_mutex_destroy(&p->lock);
                pthread_cond_destroy(&p->wake);
                free(p);
                return df_fail(err, DF_EAGAIN, "a thread for Kafka readers");
        }
        *ret = p;
        return 0;
}

void dfk_pulse_stop(struct dfk_pulse *p)
{
        if (!p)
                return;
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_signal(&p->wake);
        pthread_mutex_unlock(&p->lock);
        (void)pthread_join(p->thread, NULL);
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->wake);
        free(p);
}
