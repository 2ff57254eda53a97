/* subjects.h - keys of subjects: user ids sealed at ingest, and made unreadable on request
 * (docs/PRIVACY.md).
 *
 * A subject is a (tenant, user_id). When it is first seen it gets a random key and a random key id;
 * the key seals one text, this user_id, so that a sealed id has the same bytes for the life of the
 * key (df/cipher.h). The keys are in DATA/subjects, found by HMAC-SHA256(secret of the store,
 * tenant and user_id), so that the store holds no user id, and by key id, for opening.
 *
 *   'H' HMAC (32 bytes)   -> key id (16 bytes), key (32 bytes)
 *   'K' key id            -> key
 *   'S'                   -> there while deleted keys may still be in the store's files
 *
 * New keys are made in memory and are durable before the record that needs them: ad_subjects_commit
 * before each append. What a crash leaves in between is a key that nothing was sealed with.
 * Order of calls: open, { seal, commit, delete, ... }*, close.
 * Thread: any; commit by the committer alone, delete by one thread at a time.
 * Errors: DF_ENOSPC, DF_EAGAIN, DF_ENOMEM: nothing was done, try again. After a failed write the
 *         store is closed and opened again by ad_subjects_tick; until then what needs it is refused
 *         with the code. DF_ECORRUPT, DF_EIO: the process should end.
 * Limits: below. Beyond AD_SUBJECT_PENDING_MAX: DF_EAGAIN.
 */
#ifndef AD_SUBJECTS_H
#define AD_SUBJECTS_H

#include "df/arena.h"
#include "proto/wire.h"

#define AD_SUBJECT_CACHE_MAX 65536 /* sealed ids in memory, about 250 bytes each; others are read */
#define AD_SUBJECT_PENDING_MAX 131072 /* new subjects whose keys are not durable yet */
#define AD_SUBJECT_DELETE_MAX 64      /* of one ad_subjects_delete */

struct ad_subjects;
/* In data_dir/subjects, with the secret beside it; made when missing. A full disk only delays it:
 * see ad_subjects_tick. DF_ESCHEMA: keys are there and their secret is not. */
int ad_subjects_open(const char *data_dir, struct ad_subjects **ret, struct df_error *err);
bool ad_subjects_exist(const char *data_dir);
/* Puts a sealed id in the place of each user_id that is none yet; bytes go to the arena. After a
 * failure some are sealed: the events must not be stored. */
int ad_subjects_seal(struct ad_subjects *s, struct ad_event *events, size_t count,
                     struct df_arena *arena, struct df_error *err);
/* The keys of every subject that was sealed so far are durable when it returns 0. */
int ad_subjects_commit(struct ad_subjects *s, struct df_error *err);

struct ad_subject {
        struct df_bytes tenant_id, user_id; /* at most AD_ID_MAX bytes each */
        bool ret_deleted;                   /* there was a key */
};
/* Destroys the keys of up to AD_SUBJECT_DELETE_MAX subjects. When it returns 0 they are in no file
 * of the store and not in its memory. Slow. An event on its way may have made a new key. After a
 * failure call it again; what was cut short is also ended by the next call of any list, an empty
 * one too. */
int ad_subjects_delete(struct ad_subjects *s, struct ad_subject *list, size_t count,
                       struct df_error *err);
/* Whether the subject has a key. */
int ad_subjects_find(struct ad_subjects *s, struct df_bytes tenant_id, struct df_bytes user_id,
                     bool *ret_found, struct df_error *err);
/* The user_id; ret holds AD_ID_MAX bytes. DF_ENOENT: its key is not here (destroyed, or another
 * machine's); DF_EPARSE: no sealed id of this tenant. */
int ad_subjects_open_id(struct ad_subjects *s, struct df_bytes tenant_id, struct df_bytes sealed,
                        uint8_t *ret, size_t *ret_len, struct df_error *err);
void ad_subjects_tick(struct ad_subjects *s); /* about once a second */

struct ad_subjects_stats {
        uint64_t created, deleted; /* since the start */
        size_t cached, pending;
        bool open; /* false: the store is closed after a failure, or its disk is full */
};
void ad_subjects_stats(struct ad_subjects *s, struct ad_subjects_stats *ret);
void ad_subjects_close(struct ad_subjects *s); /* NULL-safe */

#endif
