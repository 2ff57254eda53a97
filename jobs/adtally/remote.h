/* remote.h - sub-commands that ask a running Adtally over its own HTTP interface, like any client.
 */
#ifndef AD_REMOTE_H
#define AD_REMOTE_H

#include "jobs/adtally/command.h"

/* Own settings of such a command. */
#define AD_REMOTE_SETTINGS                                                                         \
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},   \
        {                                                                                          \
                "key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true        \
        }

struct ad_remote_call {
        const char *method;   /* "GET", "POST", "DELETE" */
        const char *path;     /* "/v1/...", with its query, encoded */
        struct df_bytes body; /* JSON of a POST; data NULL: none */
        int64_t total_ms;
        int ret_status;
};
/* Appends the answer's body, whatever its status. DF_EAGAIN, DF_EDOUBT: there is no answer. */
int ad_remote_ask(const struct df_config *c, struct ad_remote_call *call, struct df_buf *ret_body,
                  struct df_error *err);
/* The same, and any status but 2xx is an error that holds the answer: DF_ENOENT for 404, DF_EAGAIN
 * from 500 on, else DF_EINVAL. what: for its text. */
int ad_remote_do(const struct df_config *c, const char *what, struct ad_remote_call *call,
                 struct df_buf *ret_body, struct df_error *err);
/* ad_remote_do of the path, with a zero at its end; the answer to standard output: exact, to the
 * byte, or as a line. */
int ad_remote_print(const struct df_config *c, const char *what, struct ad_remote_call *call,
                    const struct df_buf *path, bool exact, struct df_error *err);
/* Everything but letters, digits, - and _: one segment of a path, or the value of a parameter. */
void ad_remote_escape(struct df_buf *b, const char *text);
/* "?name=value" or "&name=value"; nothing for a value NULL. */
void ad_remote_param(struct df_buf *path, const char *name, const char *value);

#endif
