/* close_private.h - between the files of close.h. */
#ifndef ADI_CLOSE_PRIVATE_H
#define ADI_CLOSE_PRIVATE_H

#include <pthread.h>

#include "jobs/reconcile/close.h"
#include "jobs/runs/manifest.h"
#include "jobs/runs/rows.h"

/* What a run says of a period; the run may be gone. */
struct adi_draft {
        char run[AD_RUN_ID_MAX + 1], chain[AD_RUN_ID_MAX + 1], version[AD_MANIFEST_TEXT_MAX + 1];
        struct ad_replay_pin *pins; /* of the topics that have rows of it; `events` first */
        size_t pin_count;
        uint32_t price_version;
        uint64_t corrections_to;
        uint64_t cells; /* of the account in the period, by the books' count */
        struct ad_rows rows;
};

struct adi_pending {
        uint64_t offset; /* of its command */
        struct df_arena arena;
        struct ad_command command; /* in the arena */
        struct adi_draft *draft;   /* NULL: none */
        bool over;                 /* appended, or cancelled */
        enum ad_close_why why;
        char text[DF_ERROR_TEXT_MAX];
};

struct ad_closer {
        struct ad_closer_options o;
        struct df_log_reader *reader; /* of `commands` */
        struct adi_pending **list;    /* in the order of commands */
        size_t count, cap;
        char run[AD_RUN_ID_MAX + 1]; /* posted last; "" = none since the start */
        int64_t looked_ms;
        pthread_mutex_t lock; /* list and its states, for ad_closer_put */
};

/* close_commands.c */
int adi_close_follow(struct ad_closer *c, struct df_error *err);
/* Calls fn for each command before the offset; those that cannot be decoded with NULL. */
int adi_close_each_command(struct ad_closer *c, uint64_t to,
                           int (*fn)(void *arg, uint64_t offset, struct df_bytes bytes,
                                     const struct ad_command *command, struct df_error *err),
                           void *arg, struct df_error *err);
int adi_close_mark(struct ad_closer *c, struct adi_pending *p, struct df_error *err);

/* close_manifest.c: the signed close, as a RunRecord. DF_EAGAIN: it waits, *ret_why says for
 * what. */
int adi_close_record(struct ad_closer *c, const struct adi_pending *p, enum ad_close_why *ret_why,
                     struct df_buf *ret, struct df_error *err);

#endif
