/* zone.h - time zones from TZif files (RFC 8536), and the windows of a zone (W1).
 *
 * Nothing here uses the C library's zone: a zone is an immutable object, so any thread may ask any
 * zone at the same time. Times are milliseconds since the epoch; boundaries are instants.
 *   hour   begins on the local hour; a change of the offset begins a new one, so no hour is longer
 *          than 60 minutes and a repeated hour is two hours
 *   day    begins at the first instant whose local date is that day or later: 23- and 25-hour days,
 *          midnights that do not exist, and skipped dates come out right
 *   month  begins with its first day
 * Windows are composed from 15-minute UTC cells, so ad_zone_supported refuses a zone whose offset
 * within the range is not a multiple of 15 minutes.
 */
#ifndef AD_ZONE_H
#define AD_ZONE_H

#include "df/bytes.h"

#define AD_ZONE_NAME_MAX 64
#define AD_ZONE_FILE_MAX (256u << 10)
#define AD_TZ_VERSION_MAX 31

enum ad_window {
        AD_WINDOW_MINUTE,
        AD_WINDOW_HOUR,
        AD_WINDOW_DAY,
        AD_WINDOW_MONTH,
        AD_WINDOW_TOTAL
};

struct ad_zone;

/* A name as in the tz database: letters, digits, + - _ /, no empty or dotted segment. */
bool ad_zone_name_valid(const char *name);
/* Pure. DF_EPARSE: not a TZif file of version 2 or later, or damaged. */
int ad_zone_parse(const char *name, struct df_bytes tzif, struct ad_zone **ret,
                  struct df_error *err);
void ad_zone_destroy(struct ad_zone *z);

/* Zones of one directory, loaded once and kept. Thread: any. */
struct ad_zones;
/* dir NULL = /usr/share/zoneinfo. Never fails because of the directory: UTC needs no file. */
int ad_zones_create(const char *dir, struct ad_zones **ret, struct df_error *err);
/* DF_EINVAL: bad name; DF_ENOENT: no such zone; DF_EPARSE: damaged. *ret lives as long as zones. */
int ad_zones_get(struct ad_zones *zones, const char *name, const struct ad_zone **ret,
                 struct df_error *err);
const char *ad_zones_version(const struct ad_zones *zones); /* "2025b", or "unknown" */
void ad_zones_destroy(struct ad_zones *zones);

const char *ad_zone_name(const struct ad_zone *z);
uint64_t ad_zone_digest(const struct ad_zone *z); /* of its rules: all offsets and changes */
bool ad_zone_is_utc(const struct ad_zone *z);     /* by name: UTC, Etc/UTC, Z... */
int32_t ad_zone_offset_s(const struct ad_zone *z, int64_t ms);
/* First instant after ms at which the offset changes; INT64_MAX when there is none. */
int64_t ad_zone_next_change(const struct ad_zone *z, int64_t ms);
/* W1: every offset in [from, to] is a multiple of 15 minutes; else *ret_ms is where it is not. */
bool ad_zone_supported(const struct ad_zone *z, int64_t from_ms, int64_t to_ms, int64_t *ret_ms);

int64_t ad_zone_local_day(const struct ad_zone *z, int64_t ms); /* days since 1970-01-01 */
/* The day window that contains ms, as a local date: the local date, except that after a midnight
 * which comes twice it is the later one. */
int64_t ad_zone_day_of(const struct ad_zone *z, int64_t ms);
int64_t ad_zone_day_start(const struct ad_zone *z, int64_t local_day);
/* local_ms: the local wall time as if it were UTC. The first instant that shows it; false when no
 * instant does (skipped by a change). */
bool ad_zone_from_local(const struct ad_zone *z, int64_t local_ms, int64_t *ret_ms);

/* Start of the window that contains ms, and the start of the next one (> ms). TOTAL: ms itself, and
 * INT64_MAX. */
int64_t ad_zone_floor(const struct ad_zone *z, enum ad_window w, int64_t ms);
int64_t ad_zone_next(const struct ad_zone *z, enum ad_window w, int64_t ms);

/* "2026-11-24T10:00:00Z" or "...+03:00", by the offset at that instant. Returns the length. */
#define AD_ZONE_TEXT_MAX 48
int ad_zone_text(const struct ad_zone *z, int64_t ms, char ret[AD_ZONE_TEXT_MAX]);

#endif
