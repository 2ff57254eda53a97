/* books_follow.h - the thread that brings the topic `billing` into the view of the bill.
 *
 * It reads the one partition through a collector (K5) and commits complete collections with the
 * position to read on from. A store that is damaged is thrown away and built again from the topic,
 * which is kept for ever; nothing is answered from it until it has come to where the topic ended.
 * A topic that is missing or cannot be read is tried again; what was read before is still answered.
 *
 * Thread: start and stop in one thread; the rest in any. A reader takes the store, asks, and gives
 * it back soon: it is not closed while anybody has it.
 */
#ifndef AD_BOOKS_FOLLOW_H
#define AD_BOOKS_FOLLOW_H

#include "jobs/api/books.h"

struct ad_books_follow;
/* DATA/view-billing. data_dir and log are borrowed. every_ms: how often a run is due. */
int ad_books_follow_start(const char *data_dir, struct df_log *log, int64_t every_ms,
                          struct ad_books_follow **ret, struct df_error *err);
void ad_books_follow_stop(struct ad_books_follow *f); /* NULL-safe */

/* NULL: there is nothing to ask yet; ret_why says what is missing. f may be NULL. */
#define AD_BOOKS_WHY_MAX 256
struct ad_billing *ad_books_take(struct ad_books_follow *f, char ret_why[AD_BOOKS_WHY_MAX]);
void ad_books_give(struct ad_books_follow *f);
/* A reader met damaged data: the store is built anew. */
void ad_books_suspect(struct ad_books_follow *f);
/* How often a run is due; 0: nobody knows. f may be NULL. */
int64_t ad_books_every_ms(const struct ad_books_follow *f);
/* Collections that did not match their seal, since start: numbers are missing, an alarm. */
uint64_t ad_books_damaged(const struct ad_books_follow *f);
void ad_books_render(struct ad_books_follow *f, struct df_buf *b); /* Prometheus lines */

#endif
