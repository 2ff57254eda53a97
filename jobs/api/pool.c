#include "jobs/api/pool.h"

#include <pthread.h>
#include <stdlib.h>

struct work {
        void (*fn)(void *arg);
        void *arg;
};

struct ad_pool {
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
        struct work *ring;
        uint32_t cap, first, count;
        pthread_t *threads;
        uint32_t thread_count; /* started */
};

static void *pool_main(void *arg)
{
        struct ad_pool *p = arg;

        for (;;) {
                struct work w;

                pthread_mutex_lock(&p->lock);
                while (p->count == 0 && !p->stop)
                        pthread_cond_wait(&p->wake, &p->lock);
                if (p->count == 0) {
                        pthread_mutex_unlock(&p->lock);
                        return NULL;
                }
                w = p->ring[p->first];
                p->first = (p->first + 1) % p->cap;
                p->count--;
                pthread_mutex_unlock(&p->lock);
                w.fn(w.arg);
        }
}

int ad_pool_create(uint32_t threads, uint32_t queue_max, struct ad_pool **ret, struct df_error *err)
{
        struct ad_pool *p = calloc(1, sizeof(*p));

        df_check(threads > 0);
        df_check(queue_max > 0);
        if (!p)
                return df_fail(err, DF_ENOMEM, "pool");
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->wake, NULL);
        p->cap = queue_max;
        p->ring = calloc(queue_max, sizeof(*p->ring));
        p->threads = calloc(threads, sizeof(*p->threads));
        if (!p->ring || !p->threads) {
                ad_pool_destroy(p);
                return df_fail(err, DF_ENOMEM, "pool of %u threads", threads);
        }
        while (p->thread_count < threads) {
                if (pthread_create(&p->threads[p->thread_count], NULL, pool_main, p) != 0) {
                        ad_pool_destroy(p);
                        return df_fail(err, DF_EAGAIN, "a thread of a pool");
                }
                p->thread_count++;
        }
        *ret = p;
        return 0;
}

bool ad_pool_put(struct ad_pool *p, void (*fn)(void *arg), void *arg)
{
        bool room;

        pthread_mutex_lock(&p->lock);
        room = p->count < p->cap;
        if (room) {
                p->ring[(p->first + p->count) % p->cap] = (struct work){fn, arg};
                p->count++;
                pthread_cond_signal(&p->wake);
        }
        pthread_mutex_unlock(&p->lock);
        return room;
}

uint32_t ad_pool_waiting(struct ad_pool *p)
{
        uint32_t n;

        pthread_mutex_lock(&p->lock);
        n = p->count;
        pthread_mutex_unlock(&p->lock);
        return n;
}

void ad_pool_destroy(struct ad_pool *p)
{
        if (!p)
                return;
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        for (uint32_t i = 0; i < p->thread_count; i++)
                (void)pthread_join(p->threads[i], NULL);
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->wake);
        free(p->ring);
        free(p->threads);
        free(p);
}
