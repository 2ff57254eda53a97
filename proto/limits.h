/* limits.h - the limits of events and requests. Each is in ARCHITECTURE.md's table and has a test
 * that goes one beyond it. */
#ifndef AD_LIMITS_H
#define AD_LIMITS_H

#define AD_EVENT_ID_MAX 128                    /* bytes */
#define AD_ID_MAX 64                           /* bytes: every other id, country, device */
#define AD_SEALED_ID_MAX (16 + AD_ID_MAX + 16) /* bytes: key id, ciphertext and tag of a user_id */
#define AD_DATASET_MAX 128                     /* bytes: name of an import's dataset */
#define AD_ATTRIBUTES_MAX 16                   /* a event */
#define AD_ATTRIBUTE_KEY_MAX 64                /* bytes */
#define AD_ATTRIBUTE_VALUE_MAX 256             /* bytes */
#define AD_MONEY_MICROS_MAX 1000000000000000LL /* 1e15 micros = 1e9 units an amount */
#define AD_EVENT_BYTES_MAX 8192   /* one encoded event, guaranteed by the limits above */
#define AD_BATCH_EVENTS_MAX 10000 /* events of one POST /events */
#define AD_BODY_BYTES_MAX (16u << 20)
#define AD_RECORD_EVENTS_MAX 1000 /* events of one log record (E3) */
#define AD_RECORD_EVENTS 100      /* where ingest closes a record */
#define AD_RECORD_BYTES 65536     /* likewise */
#define AD_QUARANTINE_HEAD_MAX 4096
#define AD_FUTURE_MAX_MS (5 * 60 * 1000)          /* T3: event_time after receive_time */
#define AD_RECEIVE_AHEAD_MAX_MS (10 * 1000)       /* T2 */
#define AD_RECEIVE_BEHIND_MAX_MS (60 * 60 * 1000) /* T2 */
#define AD_ACCEPTED_AGE_MS (7LL * 24 * 3600 * 1000)
#define AD_GRACE_MS (15 * 60 * 1000)
#define AD_OUT_OF_ORDERNESS_MS (10 * 1000)
#define AD_DEDUPE_HORIZON_HOURS 24
#define AD_CELL_CAP 100000 /* W7: keys per (tenant, minute, grouping, source) */

#endif
