/* up.h - between up.c (the supervisor) and up_admin.c (the admin endpoint beside it). */
#ifndef AD_UP_H
#define AD_UP_H

#include "df/net.h"
#include "df/supervise.h"
#include "jobs/adtally/command.h"

struct ad_up {
        const struct df_config *config;
        struct df_child children[DF_CHILDREN_MAX];
        const char *instances[DF_CHILDREN_MAX]; /* of realtime children; NULL: another job */
        size_t child_count;
        struct df_log *log; /* for the bytes held; no writer */
        struct df_http_server *admin;
};

/* Serve GET /metrics (Prometheus), /healthz and /readyz at --admin. */
int ad_up_admin_start(struct ad_up *up, struct df_error *err);

/* Why the product is not ready, one line each; empty: it is. Thread: any. */
int ad_up_not_ready(const struct ad_up *up, struct df_buf *ret, struct df_error *err);

#endif
