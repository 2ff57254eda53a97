/* pool.h - a few threads for work that would keep an event loop from its other connections.
 *
 * Thread: any for put and waiting. Order of calls: create, put*, destroy (which does all that was
 * put).
 */
#ifndef AD_POOL_H
#define AD_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "df/err.h"

struct ad_pool;
int ad_pool_create(uint32_t threads, uint32_t queue_max, struct ad_pool **ret,
                   struct df_error *err);
/* fn(arg) on one of the threads, in order. False: the queue is full, nothing was put. */
bool ad_pool_put(struct ad_pool *p, void (*fn)(void *arg), void *arg);
uint32_t ad_pool_waiting(struct ad_pool *p);
void ad_pool_destroy(struct ad_pool *p); /* NULL-safe */

#endif
