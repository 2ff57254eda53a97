/* raw_scan.h - the events of a range of the raw log, a partition at a time, for whoever looks for
 * some of them.
 *
 * The log may be the live one or archive and log as one (df/archive.h). Records that cannot be
 * decoded have no events (E2) and are passed over. Thread: one a scan. Memory: a record's events.
 */
#ifndef AD_RAW_SCAN_H
#define AD_RAW_SCAN_H

#include "df/log.h"
#include "proto/wire.h"

struct ad_raw_scan {
        struct df_log *log;
        const char *topic;
        uint32_t partition;
        uint64_t from, to; /* offsets [from, to) */
        /* Records that do not hold these bytes are not decoded, which is ten times faster. Strings
         * of events stand in records as they are. Empty: all are. */
        struct df_bytes needle;
        bool (*stop)(void *arg); /* asked now and then: true ends it with DF_EAGAIN; may be NULL */
        /* Instead of fn: each record as it is, whatever the needle. */
        int (*record)(void *arg, const struct df_record *r, struct df_error *err);
        /* An event, with offset, index, append_ms and price_version set; valid until it returns.
         * Other than 0 ends the scan, which returns it. */
        int (*fn)(void *arg, const struct ad_event *ev, struct df_error *err);
        void *arg;

        /* Filled in. */
        uint64_t ret_records;
        int64_t ret_first_append_ms; /* of the first record read; 0 = none was */
};
/* 0, or what fn returned, or an error: DF_EOFFSET: from is not held any more; DF_EAGAIN: stopped,
 * or the log did not answer for a minute. */
int ad_raw_scan(struct ad_raw_scan *s, struct df_error *err);

/* The generation and partitions of this topic. DF_ENOENT. */
int ad_topic_find(struct df_log *log, const char *topic, struct df_topic_info *ret,
                  struct df_error *err);

#endif
