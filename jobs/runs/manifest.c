/* manifest.c - a manifest as canonical JSON (manifest.h): one order of keys, no white space. */
#include "jobs/runs/manifest.h"

#include <inttypes.h>
#include <stdio.h>

#include "jobs/common/base64.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "proto/bill.h"

const char *const ad_manifest_settings[AD_MANIFEST_SETTINGS] = {
        "grace",           "out-of-orderness", "accepted-age", "dedupe-horizon",
        "billing-horizon", "cell-cap",         "pricing"};

static void put_hash(struct ad_json *j, const char *name, const uint8_t *hash)
{
        char hex[DF_SHA256_HEX_SIZE];

        df_hex(hash, DF_SHA256_SIZE, hex);
        ad_json_put_text(j, name, hex);
}

static void put_time(struct ad_json *j, const char *name, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        (void)ad_time_text(ms, text);
        ad_json_put_text(j, name, text);
}

static void put_head(struct ad_json *j, const struct ad_manifest *m)
{
        ad_json_put_int(j, "adtally_period_manifest", AD_MANIFEST_VERSION);
        ad_json_put_bytes(j, "tenant_id", m->account.tenant_id);
        ad_json_put_bytes(j, "advertiser_id", m->account.advertiser_id);
        ad_json_put_bytes(j, "period", m->period);
        ad_json_put_bytes(j, "zone", m->zone);
        ad_json_put_bytes(j, "zone_version", m->zone_version);
        put_time(j, "from", (int64_t)m->from_quarter * AD_QUARTER_MS);
        put_time(j, "to", (int64_t)m->to_quarter * AD_QUARTER_MS);
        put_time(j, "closed_at", m->at_ms);
        ad_json_put_bytes(j, "asked_by", m->asked_by);
        ad_json_put_bytes(j, "run", m->run);
        ad_json_put_bytes(j, "chain", m->chain);
        ad_json_put_bytes(j, "version", m->version);
}

static void put_rules(struct ad_json *j, const struct ad_manifest *m)
{
        ad_json_key(j, "settings");
        ad_json_open(j);
        for (int i = 0; i < AD_MANIFEST_SETTINGS; i++)
                ad_json_put_bytes(j, ad_manifest_settings[i], m->settings[i]);
        ad_json_put_int(j, "groupings", m->groupings);
        ad_json_close(j);
        ad_json_key(j, "prices");
        ad_json_open(j);
        ad_json_put_int(j, "version", m->price_version);
        ad_json_key(j, "tables");
        ad_json_open_array(j);
        for (size_t i = 0; i < m->price_count; i++) {
                ad_json_open(j);
                ad_json_put_int(j, "version", m->prices[i].version);
                put_hash(j, "sha256", m->prices[i].sha256);
                ad_json_close(j);
        }
        ad_json_close_array(j);
        ad_json_close(j);
}

static void put_corrections(struct ad_json *j, const struct ad_manifest *m, struct df_buf *base64)
{
        ad_json_key(j, "corrections");
        ad_json_open(j);
        ad_json_put_int(j, "to", m->corrections_to);
        put_hash(j, "sha256", m->corrections);
        ad_json_key(j, "commands");
        ad_json_open_array(j);
        for (size_t i = 0; i < m->command_count; i++) {
                df_buf_clear(base64);
                ad_base64_put(base64, m->commands[i].bytes);
                ad_json_open(j);
                ad_json_put_int(j, "offset", m->commands[i].offset);
                ad_json_put_bytes(j, "bytes", df_buf_bytes(base64));
                ad_json_close(j);
        }
        ad_json_close_array(j);
        ad_json_close(j);
}

static void put_listed(struct ad_json *j, const struct ad_manifest_part *p)
{
        ad_json_key(j, "listed");
        ad_json_open_array(j);
        for (uint32_t i = 0; p->listed && i < p->segments; i++) {
                ad_json_open(j);
                ad_json_put_int(j, "from", p->listed[i].from);
                ad_json_put_int(j, "to", p->listed[i].to);
                put_hash(j, "sha256", p->listed[i].sha256);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static void put_source(struct ad_json *j, const struct ad_manifest_source *s)
{
        char generation[17];

        (void)snprintf(generation, sizeof(generation), "%016" PRIx64, s->generation);
        ad_json_open(j);
        ad_json_put_bytes(j, "topic", s->topic);
        ad_json_put_text(j, "generation", generation);
        ad_json_key(j, "partitions");
        ad_json_open_array(j);
        for (uint32_t p = 0; p < s->part_count; p++) {
                const struct ad_manifest_part *part = &s->parts[p];

                ad_json_open(j);
                ad_json_put_int(j, "partition", p);
                ad_json_put_int(j, "from", part->from);
                ad_json_put_int(j, "to", part->to);
                ad_json_put_int(j, "archived_to", part->archived_to);
                ad_json_put_int(j, "segments", part->segments);
                put_hash(j, "chain", part->chain);
                put_listed(j, part);
                ad_json_close(j);
        }
        ad_json_close_array(j);
        ad_json_close(j);
}

static void put_sources(struct ad_json *j, const struct ad_manifest *m)
{
        ad_json_key(j, "sources");
        ad_json_open_array(j);
        for (size_t i = 0; i < m->source_count; i++)
                put_source(j, &m->sources[i]);
        ad_json_close_array(j);
}

/* Sums may be beyond the 64 bits that readers of JSON keep: they are text. */
static void put_nanos(struct ad_json *j, const char *name, df_nanos v)
{
        char text[DF_INT128_TEXT_MAX];

        (void)df_int128_text(v, text);
        ad_json_put_text(j, name, text);
}

static void put_result(struct ad_json *j, const struct ad_manifest *m)
{
        ad_json_key(j, "rows");
        ad_json_open(j);
        ad_json_put_int(j, "count", m->rows);
        put_hash(j, "sha256", m->rows_sha256);
        ad_json_close(j);
        ad_json_key(j, "totals");
        ad_json_open_array(j);
        for (size_t i = 0; i < m->total_count; i++) {
                const struct ad_cell *c = &m->totals[i].billed;

                ad_json_open(j);
                ad_json_put_bytes(j, "currency", m->totals[i].currency);
                ad_json_put_int(j, "impressions", c->impressions);
                ad_json_put_int(j, "clicks", c->clicks);
                ad_json_put_int(j, "conversions", c->conversions);
                put_nanos(j, "spend_nanos", c->spend);
                put_nanos(j, "payout_nanos", c->payout);
                put_nanos(j, "conversion_value_nanos", c->value);
                ad_json_put_int(j, "invalid_impressions", c->invalid[0]);
                ad_json_put_int(j, "invalid_clicks", c->invalid[1]);
                ad_json_put_int(j, "invalid_conversions", c->invalid[2]);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

int ad_manifest_write(const struct ad_manifest *m, struct df_buf *ret, struct df_error *err)
{
        struct df_buf base64 = {0};
        size_t before = ret->len;
        struct ad_json *j = ad_json_begin(ret);
        int rc;

        ad_json_open(j);
        put_head(j, m);
        put_rules(j, m);
        put_corrections(j, m, &base64);
        put_sources(j, m);
        put_result(j, m);
        ad_json_close(j);
        rc = ad_json_end(j, ret, err);
        if (rc == 0)
                rc = df_buf_check(&base64, err);
        df_buf_release(&base64);
        if (rc == 0 && ret->len - before > AD_MANIFEST_MAX)
                rc = df_fail(err, DF_ELIMIT,
                             "the manifest would be %zu bytes long, at most %u are kept: it names "
                             "%zu corrections of the tenant",
                             ret->len - before, AD_MANIFEST_MAX, m->command_count);
        return rc;
}
