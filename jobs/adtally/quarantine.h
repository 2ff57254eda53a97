/* quarantine.h - between the files of `adtally quarantine`: what the topic `quarantine` holds, and
 * sending it to ingest again.
 *
 * quarantine.c          options, list, show
 * quarantine_read.c     entries, by the seals of the tasks; which of them were released already
 * quarantine_release.c  which may go again, and their way to ingest
 * Thread: one. Ownership: an entry's strings are its list's.
 */
#ifndef AD_QUARANTINE_H
#define AD_QUARANTINE_H

#include "jobs/adtally/command.h"
#include "proto/wire.h"

#define AD_HELD_MAX 1000000 /* entries of one command; beyond: DF_EINVAL */

struct ad_held { /* an entry */
        uint32_t partition, index, reason;
        uint64_t offset;
        bool live;              /* of `events` as it is now; else of an import or of an older one */
        struct df_bytes stream; /* when not live */
        bool whole_record;
        bool selected; /* by the filter */
        int64_t append_ms;
        struct df_bytes tenant_id, event_id;
        struct df_bytes head; /* of selected ones, when heads are kept */
        uint64_t size;
        struct df_hash128 key;
        /* The newest event with the source release:PARTITION/OFFSET/INDEX; offset UINT64_MAX: none
         * was found. */
        uint64_t released_offset;
        uint32_t released_index;
        int64_t released_ms;
};

struct ad_held_list { /* sorted: live ones last, by partition, offset, index */
        struct ad_held *list;
        size_t count, cap;
        struct df_arena arena;
        size_t selected;
        uint64_t damaged; /* collections that did not match their seal */
};

struct ad_held_filter {
        int64_t from_ms, to_ms; /* append time of the event, [from, to) */
        uint32_t reason;        /* AD_NONE: any */
        int64_t partition;      /* -1: any */
        bool at;                /* this offset alone, and this index (-1: any) */
        uint64_t offset;
        int64_t index;
        struct df_bytes tenant_id, event_id; /* empty: any */
};

/* All that stands in the topic, or, with `near`, what may match the filter's times. */
int ad_held_read(struct df_log *log, const struct ad_held_filter *f, bool near, bool heads,
                 struct ad_held_list *ret, struct df_error *err);
/* Fills in released_*, reading `events` behind the selected entries. */
int ad_held_find_released(struct df_log *source, struct ad_held_list *l, bool quiet,
                          struct df_error *err);
/* The live entry at this place, or NULL. */
struct ad_held *ad_held_at(const struct ad_held_list *l, uint32_t partition, uint64_t offset,
                           uint32_t index);
void ad_held_release_list(struct ad_held_list *l);
/* The event's bytes: the entry's head, or what the log or the archive holds. Copied into the
 * list's arena. DF_ENOENT: neither has all of it. */
int ad_held_bytes(struct df_log *source, struct ad_held_list *l, const struct ad_held *h,
                  struct df_bytes *ret, struct df_error *err);

/* What to do about a code. Never NULL. */
const char *ad_quarantine_advice(uint32_t reason);
bool ad_quarantine_releasable(uint32_t reason);

/* Sends the selected entries, prints a line for each; *ret_refused: how many were not sent. */
struct ad_release_options {
        const struct df_config *config;
        struct df_log *source;
        bool dry_run, quiet;
};
int ad_quarantine_release(const struct ad_release_options *o, struct ad_held_list *l,
                          size_t *ret_refused, struct df_error *err);

#endif
