/* base64.h - RFC 4648 base64 with padding, the one form of each text. Pure; thread: any. */
#ifndef AD_BASE64_H
#define AD_BASE64_H

#include "df/bytes.h"

void ad_base64_put(struct df_buf *b, struct df_bytes bytes); /* appends */
/* Appends what the text stands for. False, *ret as it was: not exactly what ad_base64_put writes
 * (or out of memory: ret->failed). */
bool ad_base64_get(struct df_bytes text, struct df_buf *ret);

#endif
