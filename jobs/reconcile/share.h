/* share.h - one run shared out over the processes that stand by (R1, K2, K7, K8).
 *
 *   notice.c  what the leader works on: STORE/reconcile-work
 *   help.c    what a process does about it while another one leads
 *
 * The leader makes the run: it pins the vector, makes the topics, adds up, compares and posts. The
 * work between is that of (run, partition), and anybody's: all are members of the chain's group
 * (runs.h, AD_REPLAY_LEADS and AD_REPLAY_HELPS), the states of the partitions move by the
 * checkpoint store, and what the group has committed says how far it is.
 *
 * The notice is a hint and decides nothing: who acts on one that is old joins a group that has
 * nothing left to do, or whose topics are gone. So it is a file in the store, without which nobody
 * could help anyway, and no record in the log. It is there while there is work; one whose leader
 * died stays until the next one leads.
 *
 * Whoever would count differently (version, prices, settings) does not join, and says so.
 */
#ifndef AD_SHARE_H
#define AD_SHARE_H

#include "jobs/reconcile/job.h"

/* ---- the notice (notice.c) ---- */
struct ad_notice {
        char leader[AD_INSTANCE_MAX + 1];
        char run[AD_RUN_ID_MAX + 1];
        uint32_t price_version;  /* to say what differs; the digest of `work` covers it */
        uint64_t corrections_to; /* commands before it are billed with */
        struct ad_replay work;   /* of one topic: chain, pin, digest of the configuration */
};
/* Pure. */
void ad_notice_put(const struct ad_notice *n, struct df_buf *b);
/* text ends with a zero byte and is changed. DF_EPARSE: damaged, or of another program. end:
 * ad_replay_end(&ret->work), after an error too. */
int ad_notice_parse(char *text, struct ad_notice *ret, struct df_error *err);
/* DF_ESCHEMA: what differs here, and what to do. config: of this process, with the same
 * corrections. */
int ad_notice_check(const struct ad_notice *n, const char *version, uint32_t price_version,
                    uint64_t config, struct df_error *err);

/* Where it is, into ret of PATH_MAX bytes; "": the log is a file, or there is no
 * --checkpoint-store, and nothing is shared. */
int ad_notice_place(const struct df_config *c, const struct df_log *log, char *ret,
                    struct df_error *err);
/* The text, with a zero byte behind it. DF_ENOENT: there is no work. */
int ad_notice_read(const char *path, struct df_buf *ret, struct df_error *err);

/* Of the leader: clear, { begin, follow*, end }*. clear removes the notice of one that died. follow
 * comes often: it writes the notice, and each second again if another one wrote over it. A notice
 * that cannot be written costs the help of others alone: a log line. */
void ad_share_clear(const struct ad_share *s);
void ad_share_begin(struct ad_share *s, const struct ad_notice *n);
void ad_share_follow(struct ad_share *s, bool leads);
void ad_share_end(struct ad_share *s);

/* ---- while another one leads (help.c) ---- */
/* Until this one leads, or the process should stop. */
void ad_help_wait(struct ad_job *j);

#endif
