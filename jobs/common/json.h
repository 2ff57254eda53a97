/* json.h - JSON output: a thin writer over yajl_gen into a df_buf (with doc.c the only
 * user of yajl).
 *
 * Call in document order: ad_json_open, { ad_json_key, a value }*, ad_json_close. A wrong order is
 * a bug and checked. Nothing can fail but memory, which is asked for once, by ad_json_end.
 * Strings that are not valid UTF-8 are written with U+FFFD in place of each bad byte, so the output
 * is always valid JSON. Integers of any size are written as JSON numbers, never as strings.
 * Thread: a writer belongs to one thread. Ownership: the buffer is the caller's and outlives it.
 */
#ifndef AD_JSON_OUT_H
#define AD_JSON_OUT_H

#include "df/bytes.h"

struct ad_json;

/* Appends to b. NULL when out of memory (every other call takes NULL and does nothing). */
struct ad_json *ad_json_begin(struct df_buf *b);
/* Frees the writer; DF_ENOMEM when anything was lost. The document must be complete. */
int ad_json_end(struct ad_json *j, struct df_buf *b, struct df_error *err);

void ad_json_open(struct ad_json *j);
void ad_json_close(struct ad_json *j);
void ad_json_open_array(struct ad_json *j);
void ad_json_close_array(struct ad_json *j);
void ad_json_key(struct ad_json *j, const char *key);

void ad_json_bytes(struct ad_json *j, struct df_bytes s);
void ad_json_text(struct ad_json *j, const char *s); /* NULL writes null */
void ad_json_int(struct ad_json *j, __int128 v);
void ad_json_bool(struct ad_json *j, bool v);
void ad_json_null(struct ad_json *j);
void ad_json_raw(struct ad_json *j, struct df_bytes json); /* a value that is JSON already */
/* six significant digits; null when it is not a finite number */
void ad_json_double(struct ad_json *j, double v);
/* num / den; null when den is 0 */
void ad_json_ratio(struct ad_json *j, uint64_t num, uint64_t den);

/* key and value in one call */
void ad_json_put_text(struct ad_json *j, const char *key, const char *s);
void ad_json_put_bytes(struct ad_json *j, const char *key, struct df_bytes s);
void ad_json_put_int(struct ad_json *j, const char *key, __int128 v);
void ad_json_put_bool(struct ad_json *j, const char *key, bool v);
void ad_json_put_null(struct ad_json *j, const char *key);

#endif
