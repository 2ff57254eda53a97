#include "jobs/ingest/serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/filelog.h"
#include "df/run.h"
#include "df/trace.h"
#include "jobs/common/settings.h"
#include "jobs/ingest/serve_private.h"

#define WARN_EVERY_MS 10000
#define SECOND_MS 1000

/* ---- the clock (T2) ---- */

enum ad_guard_state dfi_look(struct ad_serve *s, int64_t *ret_wall_ms, int64_t *ret_off_ms)
{
        enum ad_guard_state state;
        int64_t wall_ms, mono_ms;

        pthread_mutex_lock(&s->clock_lock);
        wall_ms = df_wall_ms();
        mono_ms = df_boottime_ms();
        state = ad_guard_look(&s->guard, wall_ms, mono_ms);
        *ret_wall_ms = wall_ms;
        *ret_off_ms = s->guard.off_ms;
        pthread_mutex_unlock(&s->clock_lock);
        return state;
}

static void appended(void *arg, const struct ad_pack_append *a)
{
        struct ad_serve *s = arg;

        pthread_mutex_lock(&s->clock_lock);
        ad_guard_append(&s->guard, a->send_ms, a->ack_ms, a->append_min_ms, a->append_max_ms);
        pthread_mutex_unlock(&s->clock_lock);
}

static void tell_clock(struct ad_serve *s, enum ad_guard_state state, int64_t off_ms)
{
        if (state == s->told)
                return;
        if (state == AD_GUARD_GOOD)
                df_trace(DF_INFO, "clock", "right again: events are taken");
        else
                df_trace(DF_ERROR, "clock",
                         "code=clock_jump state=%s off_ms=%" PRId64
                         ": events are refused until it is right. If it is right now, restart this "
                         "job; if the log is ahead of it, stop and run `adtally recover --clock`",
                         ad_guard_state_name(state), off_ms);
        s->told = state;
}

/* ---- the log ---- */

static bool stays_failed(const struct df_error *err)
{
        return err->code != DF_ENOSPC && err->code != DF_EAGAIN && err->code != DF_ENOMEM &&
               err->code != DF_EDOUBT;
}

/* On any thread. L1: after a failed sync only a restart helps. */
void dfi_append_failed(void *arg, const struct df_error *err)
{
        struct ad_serve *s = arg;
        int64_t now = df_monotonic_ms(), warned = atomic_load(&s->warned_ms);

        atomic_store(&s->append_failure, err->code);
        if (stays_failed(err)) {
                bool first;

                pthread_mutex_lock(&s->failed_lock);
                first = s->failed.code == 0;
                if (first)
                        s->failed = *err;
                pthread_mutex_unlock(&s->failed_lock);
                if (first)
                        df_process_stop();
                return;
        }
        if (warned && now - warned < WARN_EVERY_MS)
                return;
        atomic_store(&s->warned_ms, now);
        df_trace(DF_WARN, "log", "code=%s: %s", df_err_code(err->code), err->text);
}

int ad_serve_failed(struct ad_serve *s, struct df_error *err)
{
        int code;

        pthread_mutex_lock(&s->failed_lock);
        code = s->failed.code;
        if (code && err)
                *err = s->failed;
        pthread_mutex_unlock(&s->failed_lock);
        return code;
}

static uint32_t price_version(void *arg)
{
        return atomic_load_explicit(&((struct ad_serve *)arg)->price_version, memory_order_relaxed);
}

static int write_keys(void *arg, struct df_error *err)
{
        return ad_subjects_commit(((struct ad_serve *)arg)->o.subjects, err);
}

/* ---- life ---- */

static int create_parsers(struct ad_serve *s, uint32_t count, struct df_error *err)
{
        df_check(count > 0 && count <= DFI_PARSERS_MAX);
        for (; s->parser_count < count; s->parser_count++) {
                int rc = ad_parser_create(&s->parsers[s->parser_count], err);

                if (rc < 0)
                        return rc;
        }
        s->parsers_free = count;
        return 0;
}

static void beat(struct ad_serve *s, bool closing)
{
        int64_t wall_ms, off_ms;
        enum ad_guard_state state = dfi_look(s, &wall_ms, &off_ms);
        bool allowed = state == AD_GUARD_GOOD;

        if (!allowed) {
                pthread_mutex_lock(&s->clock_lock);
                allowed = ad_guard_heartbeat_allowed(&s->guard);
                pthread_mutex_unlock(&s->clock_lock);
        }
        if (allowed)
                ad_pack_heartbeat(s->pack, wall_ms, closing);
}

static bool durable_heartbeat(struct ad_serve *s)
{
        struct ad_pack_stats stats;

        ad_pack_stats(s->pack, &stats);
        return stats.heartbeat_ms != 0;
}

int ad_serve_create(const struct ad_serve_options *o, struct ad_serve **ret, struct df_error *err)
{
        struct ad_serve *s = calloc(1, sizeof(*s));
        const struct df_config *c = o->config;
        struct ad_pack_options pack = {
                .writer = o->writer,
                .partitions = o->partitions,
                .delay_ms = df_config_ms(c, "batch-delay"),
                .done = dfi_request_done,
                .appended = appended,
                .failed = dfi_append_failed,
                .before = o->subjects ? write_keys : NULL,
                .arg = s,
                .price_version = price_version,
                .price_arg = s,
        };
        int rc;

        if (!s)
                return df_fail(err, DF_ENOMEM, "ingest");
        s->o = *o;
        s->currency = df_bytes_str(df_config_text(c, "currency"));
        s->seals = o->subjects && df_config_bool(c, "seal-user-ids");
        s->accepted_age_ms = df_config_ms(c, "accepted-age");
        s->late_after_ms = df_config_ms(c, "grace") + df_config_ms(c, "out-of-orderness");
        s->heartbeat_every_ms = df_config_ms(c, "heartbeat");
        pthread_mutex_init(&s->clock_lock, NULL);
        pthread_mutex_init(&s->parsers_lock, NULL);
        pthread_mutex_init(&s->failed_lock, NULL);
        atomic_store(&s->price_version, ad_prices_newest(o->prices));
        ad_guard_init(&s->guard, df_wall_ms(), df_boottime_ms(),
                      ad_log_is_file(c) ? df_filelog_last_append_ms(o->writer) : 0);
        rc = create_parsers(s, (uint32_t)df_config_integer(c, "http-threads"), err);
        if (rc == 0)
                rc = ad_pack_create(&pack, &s->pack, err);
        if (rc == 0 && o->subjects)
                rc = dfi_eraser_start(o->subjects, &s->eraser, err);
        if (rc == 0) {
                s->heartbeat_ms = df_monotonic_ms();
                beat(s, false);
                ad_pack_flush(s->pack);
                atomic_store(&s->introduced, durable_heartbeat(s));
                rc = ad_serve_failed(s, err);
        }
        if (rc < 0) {
                ad_serve_destroy(s);
                return rc;
        }
        *ret = s;
        return 0;
}

int ad_serve_listen(struct ad_serve *s, struct df_error *err)
{
        const struct df_config *c = s->o.config;
        struct df_http_options o = {
                .name = "ingest",
                .listen_fd = (int)df_config_integer(c, "listen-fd"),
                .address = df_config_text(c, "listen"),
                .peer_fd = (int)df_config_integer(c, "peer-fd"),
                .threads = s->parser_count,
                .routes = s->routes,
                .route_count = DFI_ROUTES,
                .arg = s,
                .connections_max = (uint32_t)df_config_integer(c, "connections-max"),
                .connections_per_address =
                        (uint32_t)df_config_integer(c, "connections-per-address"),
                .in_flight_max = df_config_bytes(c, "in-flight-max"),
        };

        for (size_t i = 0; i < DFI_ROUTES; i++) {
                s->routes[i] = dfi_routes[i];
                if (s->routes[i].methods & DF_HTTP_POST)
                        s->routes[i].body_max = df_config_bytes(c, "body-max");
        }
        return df_http_server_start(&o, &s->server, err);
}

uint16_t ad_serve_port(const struct ad_serve *s)
{
        return df_http_server_port(s->server);
}

void ad_serve_tick(struct ad_serve *s)
{
        int64_t now = df_monotonic_ms(), wall_ms, off_ms;
        enum ad_guard_state state = dfi_look(s, &wall_ms, &off_ms);
        struct df_error err = {0};

        tell_clock(s, state, off_ms);
        if (now - s->heartbeat_ms >= s->heartbeat_every_ms) {
                s->heartbeat_ms = now;
                beat(s, false);
        }
        if (!atomic_load_explicit(&s->introduced, memory_order_relaxed) && durable_heartbeat(s)) {
                atomic_store_explicit(&s->introduced, true, memory_order_release);
                df_trace(DF_INFO, "serve", "the log takes heartbeats: events are taken");
        }
        if (now - s->second_ms < SECOND_MS)
                return;
        s->second_ms = now;
        atomic_store_explicit(&s->price_version, ad_prices_newest(s->o.prices),
                              memory_order_relaxed);
        if (s->o.subjects)
                ad_subjects_tick(s->o.subjects);
        if (ad_access_refresh(s->o.access, &err) < 0)
                df_trace(DF_ERROR, "keys", "code=%s: %s; the keys read before stay in force",
                         df_err_code(err.code), err.text);
}

int ad_serve_stop(struct ad_serve *s, int64_t drain_ms, struct df_error *err)
{
        size_t waiting;

        df_http_server_stop(s->server, drain_ms);
        s->server = NULL;
        waiting = atomic_load_explicit(&s->waiting, memory_order_acquire);
        if (waiting)
                return df_fail(err, DF_EAGAIN, "%zu requests still wait for the disk", waiting);
        if (ad_serve_failed(s, err))
                return err ? err->code : DF_EIO;
        ad_pack_flush(s->pack);
        beat(s, true);
        ad_pack_flush(s->pack);
        return ad_serve_failed(s, err);
}

void ad_serve_destroy(struct ad_serve *s)
{
        if (!s)
                return;
        df_check(!s->server);
        dfi_eraser_stop(s->eraser);
        ad_pack_destroy(s->pack);
        for (uint32_t i = 0; i < s->parser_count; i++)
                ad_parser_destroy(s->parsers[i]);
        pthread_mutex_destroy(&s->clock_lock);
        pthread_mutex_destroy(&s->parsers_lock);
        pthread_mutex_destroy(&s->failed_lock);
        free(s);
}

/* ---- metrics ---- */

static void render_codes(struct df_buf *b, const char *name, atomic_uint_fast64_t *counts)
{
        for (unsigned i = 0; i < DFI_REASONS; i++) {
                uint64_t n = atomic_load_explicit(&counts[i], memory_order_relaxed);
                char label[64];

                if (n == 0)
                        continue;
                (void)snprintf(label, sizeof(label), "code=\"%s\"", ad_reason_info(i)->code);
                df_metric(b, name, label, (double)n);
        }
}

static void render_pack(struct df_buf *b, const struct ad_pack_stats *p)
{
        const struct ad_edge_counts *e = &p->edge;

        df_metric(b, "adtally_ingest_events_total", "outcome=\"received\"", (double)e->received);
        df_metric(b, "adtally_ingest_events_total", "outcome=\"accepted\"", (double)e->accepted);
        df_metric(b, "adtally_ingest_events_total", "outcome=\"rejected\"", (double)e->rejected);
        df_metric(b, "adtally_ingest_unanswered_events", "", (double)e->unanswered);
        df_metric(b, "adtally_ingest_ledger_imbalance", "",
                  (double)(int64_t)(e->received - e->accepted - e->rejected - e->unanswered));
        df_metric(b, "adtally_ingest_waiting_requests", "", (double)p->waiting_requests);
        df_metric(b, "adtally_ingest_waiting_bytes", "", (double)p->waiting_bytes);
        df_metric(b, "adtally_ingest_appends_total", "", (double)p->flushes);
        df_metric(b, "adtally_ingest_append_failures_total", "", (double)p->failures);
        df_metric(b, "adtally_ingest_records_total", "", (double)p->records);
        df_metric(b, "adtally_ingest_append_seconds", "quantile=\"0.5\"",
                  (double)p->append_p50_us / 1e6);
        df_metric(b, "adtally_ingest_append_seconds", "quantile=\"0.99\"",
                  (double)p->append_p99_us / 1e6);
        if (p->heartbeat_ms)
                df_metric(b, "adtally_ingest_heartbeat_age_seconds", "",
                          (double)(df_wall_ms() - p->heartbeat_ms) / 1e3);
}

static void render_subjects(struct df_buf *b, struct ad_subjects *subjects)
{
        struct ad_subjects_stats u;

        ad_subjects_stats(subjects, &u);
        df_metric(b, "adtally_ingest_subject_keys_total", "change=\"created\"", (double)u.created);
        df_metric(b, "adtally_ingest_subject_keys_total", "change=\"deleted\"", (double)u.deleted);
        df_metric(b, "adtally_ingest_subject_cache_entries", "", (double)u.cached);
        df_metric(b, "adtally_ingest_subject_keys_pending", "", (double)u.pending);
        df_metric(b, "adtally_ingest_subject_store_open", "", u.open);
}

void ad_serve_render(void *arg, struct df_buf *b)
{
        struct ad_serve *s = arg;
        struct ad_pack_stats stats;
        int64_t wall_ms, off_ms, skew_ms;
        enum ad_guard_state state = dfi_look(s, &wall_ms, &off_ms);
        char label[64];

        pthread_mutex_lock(&s->clock_lock);
        skew_ms = s->guard.skew_ms;
        pthread_mutex_unlock(&s->clock_lock);
        ad_pack_stats(s->pack, &stats);
        render_pack(b, &stats);
        render_codes(b, "adtally_ingest_rejected_events_total", s->refused_events);
        render_codes(b, "adtally_ingest_refused_requests_total", s->refused_requests);
        (void)snprintf(label, sizeof(label), "state=\"%s\"", ad_guard_state_name(state));
        df_metric(b, "adtally_ingest_clock_state", label, 1);
        df_metric(b, "adtally_ingest_clock_off_seconds", "", (double)off_ms / 1e3);
        df_metric(b, "adtally_ingest_append_skew_seconds", "", (double)skew_ms / 1e3);
        df_metric(b, "adtally_ingest_ready", "",
                  state == AD_GUARD_GOOD && atomic_load(&s->introduced) && !stats.broken);
        df_metric(b, "adtally_ingest_price_version", "", (double)atomic_load(&s->price_version));
        if (s->o.subjects)
                render_subjects(b, s->o.subjects);
        if (s->server)
                df_http_server_render(s->server, b);
}
