/* answer.h - what POST /events says. Rendering only: no request, no clock.
 *
 * Accepted, at least one event (202, "stored, not yet counted"):
 *   {"accepted":n,"rejected":[{"index","event_id","code","field","message","retryable"}],
 *    "warnings":[{"index","code"}]}
 * None accepted: the same with "error" in front, whose code is that of the first rejection. Status
 * 422, or the code's own status (proto/reason.h) when every event was refused for the same reason.
 * Anything else: {"error":{"code","message","field","retryable"}}.
 * Thread: pure functions. Memory: a failed buffer is what reports it (df_buf_check).
 */
#ifndef AD_ANSWER_H
#define AD_ANSWER_H

#include "jobs/ingest/parse.h"

/* In every 503 of ingest. */
#define AD_MAYBE_STORED "A 503 may have been stored: retry with the same event_id."

int ad_answer_status(const struct ad_parse_result *res); /* of a body that was not refused whole */
void ad_answer_result(struct df_buf *b, const struct ad_parse_result *res);
void ad_answer_error(struct df_buf *b, enum ad_reason reason, const char *field,
                     const char *message);
/* Header lines. origin empty: no CORS; retry_after_s 0: none. */
void ad_answer_headers(struct df_buf *b, struct df_bytes origin, int retry_after_s);

#endif
