/* commands.h - what people asked for: corrections, closes, runs, cancellations (topic `commands`).
 *
 * The api job is the only one that writes the topic, and follows it from its first record: all
 * commands are kept in memory. A command is asked for under an id, which names it for ever within
 * its tenant: the first record of the topic with it counts, any later one is ignored, by every
 * reader. So a request can be repeated, also after a crash, and when several api processes append
 * to a Kafka topic at once.
 *
 * Order of calls: ad_api_commands_start, { put, find, list }*, ad_api_commands_stop.
 * Thread: any. Appending and reading back wait for the log, on a thread of this module's own.
 * Ownership: entries live until stop and never change, but for `cancelled`.
 * Limits: AD_COMMANDS_MAX commands, AD_COMMANDS_BYTES_MAX of memory; looked at before an append, so
 *         that several processes may go over it by what is on the way. AD_COMMANDS_WAITING_MAX
 *         wait.
 */
#ifndef AD_API_COMMANDS_H
#define AD_API_COMMANDS_H

#include <stdatomic.h>

#include "df/log.h"
#include "proto/books.h"

#define AD_COMMANDS_MAX 100000
#define AD_COMMANDS_BYTES_MAX (256u << 20)
#define AD_COMMANDS_WAITING_MAX 256

struct ad_api_commands_options { /* 0 = the limits above */
        struct df_log *log;
        size_t count_max, bytes_max;
};

struct ad_asked_for { /* a command of the topic */
        uint64_t offset;
        struct ad_command command;
        _Atomic(const struct ad_asked_for *) cancelled; /* by the first cancellation of it */
};

enum ad_asked {
        AD_ASKED_NEW,    /* it is in the topic now */
        AD_ASKED_BEFORE, /* it was there already: the same content under the same id */
        AD_ASKED_OTHER,  /* the id stands for something else */
        AD_ASKED_FULL,   /* a limit; nothing was stored */
        AD_ASKED_FAILED, /* see the error; DF_EDOUBT: it may be stored, ask again with this id */
};
/* entry: of the id, whoever asked; NULL when FULL or FAILED. On the module's thread. */
typedef void ad_asked_fn(void *arg, enum ad_asked what, const struct ad_asked_for *entry,
                         const struct df_error *err);

struct ad_api_commands;
int ad_api_commands_start(const struct ad_api_commands_options *o, struct ad_api_commands **ret,
                          struct df_error *err);
/* What waits is done first. NULL-safe. */
void ad_api_commands_stop(struct ad_api_commands *c);

/* Append unless its id is there; fn is called exactly once. at_ms is set here. False: too many
 * wait, fn is not called. command is copied. */
bool ad_api_commands_put(struct ad_api_commands *c, const struct ad_command *command,
                         ad_asked_fn *fn, void *arg);
/* False until everything that stood in the topic at start was read. */
bool ad_api_commands_ready(struct ad_api_commands *c);
const struct ad_asked_for *ad_api_commands_find(struct ad_api_commands *c,
                                                struct df_bytes tenant_id,
                                                struct df_bytes id); /* or NULL */
/* Those before the offset, the newest first, until fn returns false. */
void ad_api_commands_list(struct ad_api_commands *c, uint64_t below,
                          bool (*fn)(void *arg, const struct ad_asked_for *entry), void *arg);
/* Prometheus lines. */
void ad_api_commands_render(struct ad_api_commands *c, struct df_buf *b);

#endif
