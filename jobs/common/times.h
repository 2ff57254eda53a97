/* times.h - times as text: RFC 3339 and milliseconds. Pure. */
#ifndef AD_TIMES_H
#define AD_TIMES_H

#include "df/bytes.h"

#define AD_TIME_TEXT_MAX 32

/* RFC 3339 with Z or an offset ("2026-11-24T10:00:00.123+03:00"; T or t or a space; fractions are
 * cut to milliseconds; a leap second 60 counts as the next second). Years 1970 to 9999. */
bool ad_time_parse(struct df_bytes text, int64_t *ret_ms);
/* Days since 1970-01-01 of a Gregorian date, and back. */
int64_t ad_days_from_civil(int64_t year, unsigned month, unsigned day);
void ad_civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day);
/* "2026-11-24T10:00:00Z", with milliseconds when there are any. Returns the length. */
int ad_time_text(int64_t ms, char ret[AD_TIME_TEXT_MAX]);

#endif
