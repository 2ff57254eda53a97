/* stats.c - what the outside sees. */
#include <inttypes.h>

#include "net_private.h"

static const char *const causes[DFI_CAUSES] = {
#define X(name, cause, status, code, retryable) [DFI_CAUSE_##name] = cause,
        DFI_CAUSE_MAP(X)
#undef X
};

/* Sum one counter over the loops; where: its place in struct dfi_stats. */
static uint64_t sum(const struct df_http_server *s, size_t where)
{
        uint64_t total = 0;

        for (uint32_t i = 0; i < s->loop_count; i++) {
                const char *stats = (const char *)&s->loops[i]->stats;

                total += atomic_load_explicit(
                        (const atomic_uint_fast64_t *)(const void *)(stats + where),
                        memory_order_relaxed);
        }
        return total;
}

void df_http_server_render(struct df_http_server *s, struct df_buf *b)
{
        for (size_t i = 2; i < 6; i++)
                df_buf_printf(
                        b, "adtally_http_requests_total{name=\"%s\",class=\"%zuxx\"} %" PRIu64 "\n",
                        s->name, i,
                        sum(s, offsetof(struct dfi_stats, by_class) +
                                       i * sizeof(atomic_uint_fast64_t)));
        for (size_t i = 0; i < DFI_CAUSES; i++)
                df_buf_printf(b,
                              "adtally_http_refused_total{name=\"%s\",cause=\"%s\"} %" PRIu64 "\n",
                              s->name, causes[i],
                              sum(s, offsetof(struct dfi_stats, refused) +
                                             i * sizeof(atomic_uint_fast64_t)));
        df_buf_printf(b, "adtally_http_connections_total{name=\"%s\"} %" PRIu64 "\n", s->name,
                      sum(s, offsetof(struct dfi_stats, accepted)));
        df_buf_printf(b, "adtally_http_handed_total{name=\"%s\",direction=\"out\"} %" PRIu64 "\n",
                      s->name, sum(s, offsetof(struct dfi_stats, handed_out)));
        df_buf_printf(b, "adtally_http_handed_total{name=\"%s\",direction=\"in\"} %" PRIu64 "\n",
                      s->name, sum(s, offsetof(struct dfi_stats, handed_in)));
        df_buf_printf(b, "adtally_http_connections{name=\"%s\"} %" PRIu64 "\n", s->name,
                      (uint64_t)atomic_load(&s->connections));
        df_buf_printf(b, "adtally_http_in_flight_bytes{name=\"%s\"} %" PRIu64 "\n", s->name,
                      (uint64_t)atomic_load(&s->in_flight));
}
