/* close.h - closing periods: from a CloseRequest (topic `commands`) to the PeriodClose in `runs`
 * that the books accept or refuse (proto/books.proto; docs/BILLING.md).
 *
 * A close waits, and says for what (enum ad_close_why), until a run that began after it was asked
 * (and so knows every correction before it) says that nothing can be added to the period, and that
 * nothing in it is unexplained.
 * Then its rows are counted and kept as a draft, with the run's vector. Once the archive holds all
 * events before that vector the manifest is signed and appended. The archive is mostly behind the
 * newest run; so a later run that finds the same rows leaves the draft as it is, and one that finds
 * others makes a new one.
 *
 * Exactly once: an appended close is noted in DATA/reconcile/closes (a file named by the command's
 * id); a crash in between appends it again, which the books know by asked_by.
 *
 * Order of calls: open; between runs, at least once before each, idle; after each run that was
 *                 posted, while its folds are open, posted; close.
 * Threads: one; ad_closer_put from any. Memory: the closes that wait, and a draft each.
 */
#ifndef AD_CLOSE_H
#define AD_CLOSE_H

#include "df/objects.h"
#include "jobs/reconcile/job.h"

/* Codes: shown in DATA/run/reconcile.json, explained in docs/BILLING.md. */
#define AD_CLOSE_WHY_MAP(X)                                                                        \
        X(RUN, "waits_for_run")             /* no run was posted since it was asked */             \
        X(EARLIER, "earlier_period")        /* of the account, which waits, too */                 \
        X(NOT_FINAL, "not_final")           /* events of the period may still come */              \
        X(UNEXPLAINED, "unexplained")       /* cells of the period: an alarm */                    \
        X(NO_ARCHIVE, "no_archive")         /* --archive none: nothing could be proved */          \
        X(ARCHIVE_BEHIND, "archive_behind") /* it does not hold all events yet */                  \
        X(NO_KEY, "no_key")                 /* there is nothing to sign with */                    \
        X(TOO_LARGE, "manifest_too_large")  /* corrections of the tenant */                        \
        X(FAILED, "failed")                 /* an error; it is tried again */
enum ad_close_why {
#define X(name, code) AD_CLOSE_##name,
        AD_CLOSE_WHY_MAP(X)
#undef X
};

struct ad_closer;
struct ad_closer_options {
        const struct df_config *config;
        struct df_log *log;         /* where `commands` is */
        struct df_objects *objects; /* the archive; NULL: there is none */
        /* A RunRecord into the topic `runs`: durable when it returns. */
        int (*append)(void *arg, struct df_bytes record, struct df_error *err);
        void *append_arg;
        uint64_t segments_listed; /* 0: AD_MANIFEST_SEGMENTS_LISTED */
};
/* Borrows what the options point to. */
int ad_closer_open(const struct ad_closer_options *options, struct ad_closer **ret,
                   struct df_error *err);
/* A failure of one close is its state, FAILED; what is returned is the log's. */
int ad_closer_posted(struct ad_closer *c, const struct ad_posted *posted, struct df_error *err);
int ad_closer_idle(struct ad_closer *c, struct df_error *err);
/* Whether a close waits for a run: asked since the last one. */
bool ad_closer_wants_run(struct ad_closer *c);
/* "closes": [...], into the object that is open. Thread: any. */
void ad_closer_put(struct ad_closer *c, struct ad_json *j);
void ad_closer_close(struct ad_closer *c);

#endif
