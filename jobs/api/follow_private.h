/* follow_private.h - between the files of the follower. */
#ifndef ADI_FOLLOW_PRIVATE_H
#define ADI_FOLLOW_PRIVATE_H

#include <limits.h>
#include <pthread.h>

#include "jobs/api/follow.h"

#define ADI_READ_RECORDS 256
#define ADI_COLLECT_BYTES_MAX (256u << 20) /* unsealed payload: K6 bounds each source to 64 MiB */
#define ADI_PENDING_ROWS_MAX 50000         /* some 10 MB; a commit of a tenth of a second */

struct adi_part { /* a partition of `rollups` */
        struct df_log_reader *reader;
        struct df_collector *collector;
        uint64_t position; /* of the next record */
        int64_t retry_ms;  /* monotonic: not before */
        uint32_t failures; /* in a row */
        atomic_bool failed;
};

struct adi_counts { /* since start */
        atomic_uint_least64_t collections, repeated, damaged, damaged_records, records, bytes;
        atomic_uint_least64_t reopened, snapshots, failed_snapshots, disk_bytes;
        atomic_int_least64_t snapshot_ms;  /* wall time of the last one; 0 = none yet */
        atomic_int_least64_t caught_up_us; /* how long the last one took from the view's opening */
};

struct ad_follow {
        struct ad_follow_options options;
        struct ad_view_options view_options;
        char view_dir[PATH_MAX], snapshot_dir[PATH_MAX], accept_path[PATH_MAX];
        uint32_t partitions;
        pthread_t thread;
        bool started;
        atomic_bool stop, suspect;

        pthread_rwlock_t lock; /* of view: readers hold it while they use it */
        struct ad_view *view;  /* changed by the thread alone */

        /* The thread's own. */
        enum ad_view_origin origin;
        int64_t reopen_ms, committed_ms, outside_ms, snapshot_ms, disk_ms, lease_ms;
        uint32_t failures;
        bool fresh;  /* collections were applied since the commit */
        bool behind; /* of what `rollups` held when the view was opened */
        int64_t opened_ns;
        uint64_t ends[DF_PARTITIONS_MAX]; /* of `rollups` then */
        bool accepted;                    /* AD_VIEW_ACCEPT_LOSS was followed */
        uint64_t snapshot_bytes,
                snapshot_commits; /* read since, and made before the last snapshot */
        uint64_t released[DF_PARTITIONS_MAX];
        struct ad_outside outside;
        struct df_record records[ADI_READ_RECORDS];
        struct adi_part parts[DF_PARTITIONS_MAX];
        struct adi_counts counts;
};

/* follow_read.c: read what is there, up to a bound. A failure is one of the view; what is wrong
 * with a partition of the log is logged and tried again later. *ret_more: ask again.
 */
int adi_read(struct ad_follow *f, uint32_t partition, bool *ret_more, struct df_error *err);
void adi_read_close(struct ad_follow *f);
/* Everything read so far, in one write with the positions. */
int adi_commit(struct ad_follow *f, struct df_error *err);

/* follow_outside.c */
void adi_look_outside(struct ad_follow *f, const struct ad_view *view);
uint64_t adi_dir_bytes(const char *dir);

/* follow_instances.c: what the status files of all realtime processes say of `events` (K11). */
struct adi_said {
        bool runs[DF_PARTITIONS_MAX], refuses[DF_PARTITIONS_MAX];
};
struct adi_instances {
        size_t count, alive_count;
        bool known[DF_PARTITIONS_MAX]; /* a file names it */
        struct adi_said alive, gone;   /* by processes that live; by the others, when they did */
        int64_t seen_ms;               /* the newest file's time */
};
/* One status file; alive: its process is. Pure. */
void adi_instances_add(struct adi_instances *s, struct df_bytes text, bool alive);
/* Missing is what a process refuses and none runs, and, of several processes, what none of them
 * runs. While none is alive their last words count. Pure. */
void adi_instances_missing(const struct adi_instances *s, struct ad_outside *ret);
/* Reads the files and fills the two fields of ret that are about them. */
void adi_look_instances(const char *data_dir, struct ad_outside *ret);

#endif
