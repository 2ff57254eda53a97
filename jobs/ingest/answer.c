#include "jobs/ingest/answer.h"

#include "jobs/common/json.h"

int ad_answer_status(const struct ad_parse_result *res)
{
        if (res->count > 0)
                return 202;
        for (size_t i = 1; i < res->rejected_count; i++)
                if (res->rejected[i].reason != res->rejected[0].reason)
                        return 422;
        df_check(res->rejected_count > 0);
        return ad_reason_info(res->rejected[0].reason)->http_status;
}

static void put_error(struct ad_json *j, enum ad_reason reason, const char *field,
                      const char *message)
{
        const struct ad_reason_info *info = ad_reason_info(reason);

        ad_json_key(j, "error");
        ad_json_open(j);
        ad_json_put_text(j, "code", info->code);
        ad_json_put_text(j, "message", message ? message : info->text);
        ad_json_put_text(j, "field", field);
        ad_json_put_bool(j, "retryable", info->retryable);
        ad_json_close(j);
}

static void put_rejection(struct ad_json *j, const struct ad_rejection *r)
{
        const struct ad_reason_info *info = ad_reason_info(r->reason);

        ad_json_open(j);
        ad_json_put_int(j, "index", r->index);
        ad_json_key(j, "event_id");
        if (r->event_id.len)
                ad_json_bytes(j, r->event_id);
        else
                ad_json_null(j);
        ad_json_put_text(j, "code", info->code);
        ad_json_put_text(j, "field", r->field);
        ad_json_put_text(j, "message", info->text);
        ad_json_put_bool(j, "retryable", info->retryable);
        ad_json_close(j);
}

/* {"index":7,"code":"time_missing"} */
static void put_warning(struct df_buf *b, const struct ad_rejection *w)
{
        const char *code = ad_reason_info(w->reason)->code;
        char digits[10];
        size_t at = sizeof(digits);
        uint32_t index = w->index;

        do {
                digits[--at] = (char)('0' + index % 10);
                index /= 10;
        } while (index);
        df_buf_append(b, "{\"index\":", 9);
        df_buf_append(b, digits + at, sizeof(digits) - at);
        df_buf_append(b, ",\"code\":\"", 9);
        df_buf_append(b, code, strlen(code));
        df_buf_append(b, "\"}", 2);
}

/* Nearly every answer. Without yajl, since a browser's batch has a warning an event; codes are
 * plain text. */
static void put_accepted(struct df_buf *b, const struct ad_parse_result *res)
{
        df_buf_printf(b, "{\"accepted\":%zu,\"rejected\":[],\"warnings\":[", res->count);
        for (size_t i = 0; i < res->warning_count; i++) {
                if (i)
                        df_put_u8(b, ',');
                put_warning(b, &res->warnings[i]);
        }
        df_buf_append(b, "]}", 2);
}

void ad_answer_result(struct df_buf *b, const struct ad_parse_result *res)
{
        struct ad_json *j;

        if (res->rejected_count == 0) {
                put_accepted(b, res);
                return;
        }
        j = ad_json_begin(b);
        ad_json_open(j);
        if (res->count == 0)
                put_error(j, res->rejected[0].reason, res->rejected[0].field, NULL);
        ad_json_put_int(j, "accepted", (__int128)res->count);
        ad_json_key(j, "rejected");
        ad_json_open_array(j);
        for (size_t i = 0; i < res->rejected_count; i++)
                put_rejection(j, &res->rejected[i]);
        ad_json_close_array(j);
        ad_json_key(j, "warnings");
        ad_json_open_array(j);
        for (size_t i = 0; i < res->warning_count; i++) {
                ad_json_open(j);
                ad_json_put_int(j, "index", res->warnings[i].index);
                ad_json_put_text(j, "code", ad_reason_info(res->warnings[i].reason)->code);
                ad_json_close(j);
        }
        ad_json_close_array(j);
        ad_json_close(j);
        if (ad_json_end(j, b, NULL) < 0)
                b->failed = true;
}

void ad_answer_error(struct df_buf *b, enum ad_reason reason, const char *field,
                     const char *message)
{
        struct ad_json *j = ad_json_begin(b);

        ad_json_open(j);
        put_error(j, reason, field, message);
        ad_json_close(j);
        if (ad_json_end(j, b, NULL) < 0)
                b->failed = true;
}

void ad_answer_headers(struct df_buf *b, struct df_bytes origin, int retry_after_s)
{
        if (retry_after_s)
                df_buf_printf(b, "Retry-After: %d\r\n", retry_after_s);
        if (origin.len) {
                df_buf_printf(b, "Vary: Origin\r\nAccess-Control-Allow-Origin: ");
                df_buf_append(b, origin.data, origin.len);
                df_buf_append(b, "\r\n", 2);
        }
}
