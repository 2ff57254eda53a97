/* close_manifest.c - from a draft to a signed PeriodClose (close.h, jobs/runs/manifest.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/archive.h"
#include "df/sign.h"
#include "jobs/common/prices.h"
#include "jobs/reconcile/close_private.h"

#define RING "keys" /* under DATA */

struct making {
        struct ad_closer *c;
        const struct adi_pending *p;
        const struct adi_draft *draft;
        enum ad_close_why *why;
        struct df_arena arena;
        struct ad_manifest m;
        /* Of the commands before corrections_to. */
        struct df_sha256_stream *sha;
        struct df_buf length;
        struct ad_manifest_command *commands;
        size_t command_cap;
};

static int wait_for(struct making *k, enum ad_close_why why, struct df_error *err)
{
        *k->why = why;
        if (err)
                err->code = DF_EAGAIN;
        return DF_EAGAIN;
}

/* ---- the archive ---- */

/* The archive's first segments that hold all before `to`. */
static int fill_part(struct making *k, const struct ad_replay_pin *pin, uint32_t partition,
                     struct ad_manifest_part *part, uint64_t *segments, struct df_error *err)
{
        const struct ad_replay_span *span = &pin->span[partition];
        struct df_segment_id id = {.generation = pin->topic.generation, .partition = partition};
        struct df_archive_manifest a = {0};
        struct ad_manifest_segment *listed = NULL;
        uint32_t n = 0;
        int rc;

        *part = (struct ad_manifest_part){
                .from = span->from, .to = span->to, .archived_to = span->to};
        if (span->to == span->from)
                return 0;
        memcpy(id.topic, pin->topic.name, sizeof(id.topic));
        rc = df_archive_manifest_read(k->c->o.objects, &id, &a, err);
        while (rc == 0 && n < a.count && a.entries[n].end < span->to)
                n++;
        if (rc == DF_ENOENT || (rc == 0 && n == a.count)) {
                (void)df_fail(err, DF_EAGAIN,
                              "%s/%u is archived up to offset %" PRIu64 ", and run %s has judged "
                              "up to %" PRIu64,
                              id.topic, partition, a.count ? a.entries[a.count - 1].end : 0,
                              k->draft->run, span->to);
                rc = wait_for(k, AD_CLOSE_ARCHIVE_BEHIND, err);
        }
        if (rc == 0)
                listed = df_arena_alloc(&k->arena, (n + 1) * sizeof(*listed));
        if (rc == 0 && !listed)
                rc = df_fail(err, DF_ENOMEM, "segments");
        for (uint32_t i = 0; rc == 0 && i <= n; i++) {
                listed[i] = (struct ad_manifest_segment){.from = a.entries[i].first,
                                                         .to = a.entries[i].end};
                memcpy(listed[i].sha256, a.entries[i].sha256, sizeof(listed[i].sha256));
        }
        if (rc == 0) {
                part->segments = n + 1;
                part->archived_to = a.entries[n].end;
                memcpy(part->chain, a.entries[n].chain, sizeof(part->chain));
                part->listed = listed;
                *segments += n + 1;
        }
        df_archive_manifest_release(&a);
        return rc;
}

static int fill_source(struct making *k, const struct ad_replay_pin *pin,
                       struct ad_manifest_source *source, uint64_t *segments, struct df_error *err)
{
        uint32_t count = pin->topic.partitions;
        struct ad_manifest_part *parts = df_arena_zalloc(&k->arena, count * sizeof(*parts));
        int rc = parts ? 0 : df_fail(err, DF_ENOMEM, "sources");

        *source = (struct ad_manifest_source){.topic = df_bytes_str(pin->topic.name),
                                              .generation = pin->topic.generation,
                                              .parts = parts,
                                              .part_count = count};
        for (uint32_t p = 0; rc == 0 && p < count; p++)
                rc = fill_part(k, pin, p, &parts[p], segments, err);
        return rc;
}

static void list_none(struct ad_manifest *m)
{
        for (size_t i = 0; i < m->source_count; i++)
                for (uint32_t p = 0; p < m->sources[i].part_count; p++)
                        ((struct ad_manifest_part *)m->sources[i].parts)[p].listed = NULL;
}

static int fill_sources(struct making *k, struct df_error *err)
{
        size_t count = k->draft->pin_count;
        struct ad_manifest_source *sources = df_arena_zalloc(&k->arena, count * sizeof(*sources));
        uint64_t segments = 0;
        int rc = 0;

        if (!sources)
                return df_fail(err, DF_ENOMEM, "sources");
        if (!k->c->o.objects) {
                (void)df_fail(err, DF_EAGAIN,
                              "--archive none: without the raw events nobody can verify a period");
                return wait_for(k, AD_CLOSE_NO_ARCHIVE, err);
        }
        for (size_t i = 0; rc == 0 && i < count; i++)
                rc = fill_source(k, &k->draft->pins[i], &sources[i], &segments, err);
        k->m.sources = sources;
        k->m.source_count = count;
        if (rc == 0 && segments > (k->c->o.segments_listed ? k->c->o.segments_listed
                                                           : AD_MANIFEST_SEGMENTS_LISTED))
                list_none(&k->m);
        return rc;
}

/* ---- rules ---- */

static int fill_prices(struct making *k, struct df_error *err)
{
        const struct df_config *config = k->c->o.config;
        uint32_t newest = k->draft->price_version;
        struct ad_manifest_price *prices;
        int rc = 0;

        k->m.price_version = newest;
        if (strcmp(df_config_text(config, "pricing"), "client") == 0 || newest == 0)
                return 0;
        k->m.prices = prices = df_arena_zalloc(&k->arena, newest * sizeof(*prices));
        if (!prices)
                return df_fail(err, DF_ENOMEM, "prices");
        for (uint32_t v = 1; rc == 0 && v <= newest; v++) {
                struct ad_manifest_price *p = &prices[k->m.price_count];
                char path[4096];
                uint64_t size;
                int n = snprintf(path, sizeof(path), "%s/config/prices/%u.csv",
                                 df_config_text(config, "data"), v);

                p->version = v;
                rc = n < (int)sizeof(path) ? df_sha256_file(path, p->sha256, &size, err)
                                           : df_fail(err, DF_EINVAL, "--data: too long");
                if (rc == 0)
                        k->m.price_count++;
                else if (rc == DF_ENOENT) /* never used: its task would have been refused */
                        rc = 0;
        }
        return rc;
}

static int add_command(struct making *k, uint64_t offset, struct df_bytes bytes,
                       struct df_error *err)
{
        struct df_bytes copy = df_arena_copy(&k->arena, bytes);

        if (copy.data && k->m.command_count == k->command_cap) {
                size_t cap = k->command_cap ? 2 * k->command_cap : 16;
                struct ad_manifest_command *list = realloc(k->commands, cap * sizeof(*list));

                if (list) {
                        k->commands = list;
                        k->command_cap = cap;
                }
        }
        if (!copy.data || k->m.command_count == k->command_cap)
                return df_fail(err, DF_ENOMEM, "corrections");
        k->commands[k->m.command_count++] =
                (struct ad_manifest_command){.offset = offset, .bytes = copy};
        return 0;
}

static int on_command(void *arg, uint64_t offset, struct df_bytes bytes,
                      const struct ad_command *command, struct df_error *err)
{
        struct making *k = arg;
        int rc;

        df_buf_clear(&k->length);
        df_put_varint(&k->length, bytes.len);
        rc = df_buf_check(&k->length, err);
        if (rc == 0)
                rc = df_sha256_add(k->sha, df_buf_bytes(&k->length), err);
        if (rc == 0)
                rc = df_sha256_add(k->sha, bytes, err);
        if (rc == 0 && command &&
            (command->kind == AD_COMMAND_CORRECTION || command->kind == AD_COMMAND_CANCEL) &&
            df_bytes_eq(command->tenant_id, k->m.account.tenant_id))
                rc = add_command(k, offset, bytes, err);
        return rc;
}

static int fill_corrections(struct making *k, struct df_error *err)
{
        int rc;

        k->sha = df_sha256_new(err);
        if (!k->sha)
                return DF_ENOMEM;
        k->m.corrections_to = k->draft->corrections_to;
        rc = adi_close_each_command(k->c, k->m.corrections_to, on_command, k, err);
        k->m.commands = k->commands;
        if (rc < 0)
                return rc;
        rc = df_sha256_end(k->sha, k->m.corrections, err);
        k->sha = NULL;
        return rc;
}

static void fill_head(struct making *k)
{
        const struct ad_close_request *close = &k->p->command.close;
        const struct adi_draft *d = k->draft;

        k->m.account = close->account;
        k->m.period = close->period;
        k->m.zone = close->zone;
        k->m.zone_version = close->zone_version;
        k->m.from_quarter = close->from_quarter;
        k->m.to_quarter = close->to_quarter;
        k->m.at_ms = df_wall_ms();
        k->m.asked_by = k->p->command.id;
        k->m.run = df_bytes_str(d->run);
        k->m.chain = df_bytes_str(d->chain);
        k->m.version = df_bytes_str(d->version);
        for (int i = 0; i < AD_MANIFEST_SETTINGS; i++)
                k->m.settings[i] =
                        df_bytes_str(df_config_value(k->c->o.config, ad_manifest_settings[i]));
        k->m.groupings = ad_groupings_default.version;
        k->m.rows = d->rows.count;
        memcpy(k->m.rows_sha256, d->rows.digest, sizeof(k->m.rows_sha256));
        k->m.totals = d->rows.totals;
        k->m.total_count = d->rows.total_count;
}

/* ---- the record ---- */

static int sign(struct making *k, struct df_bytes manifest, uint8_t ret[DF_SIGN_SIZE],
                struct df_error *err)
{
        struct df_sign_key *key = NULL;
        char ring[4096];
        int rc = ad_data_path(k->c->o.config, RING, ring, err);

        if (rc == 0)
                rc = df_keyring_open(ring, &key, err);
        if (rc == DF_ENOENT) {
                (void)df_fail(err, DF_EAGAIN,
                              "there is no key to sign the period with: `adtally key create "
                              "--signing --data %.200s`; keep its public key elsewhere, too",
                              df_config_text(k->c->o.config, "data"));
                return wait_for(k, AD_CLOSE_NO_KEY, err);
        }
        if (rc == 0)
                rc = df_sign(key, AD_MANIFEST_DOMAIN, manifest, ret, err);
        df_sign_key_release(key);
        return rc;
}

static int make_record(struct making *k, struct df_buf *ret, struct df_error *err)
{
        struct ad_run_record record = {.kind = AD_RUN_CLOSE};
        uint8_t signature[DF_SIGN_SIZE];
        struct df_buf text = {0};
        int rc = ad_manifest_write(&k->m, &text, err);

        if (rc == DF_ELIMIT)
                rc = wait_for(k, AD_CLOSE_TOO_LARGE, err);
        if (rc == 0)
                rc = sign(k, df_buf_bytes(&text), signature, err);
        record.close = (struct ad_period_close){
                .run = df_bytes_str(k->c->run),
                .asked_by = k->m.asked_by,
                .account = k->m.account,
                .period = k->m.period,
                .zone = k->m.zone,
                .zone_version = k->m.zone_version,
                .from_quarter = k->m.from_quarter,
                .to_quarter = k->m.to_quarter,
                .rows = k->draft->cells,
                .totals = k->m.totals,
                .total_count = k->m.total_count,
                .manifest = df_buf_bytes(&text),
                .signature = df_bytes(signature, sizeof(signature)),
                .at_ms = k->m.at_ms,
        };
        if (rc == 0) {
                ad_wire_run_record(ret, &record);
                rc = df_buf_check(ret, err);
        }
        df_buf_release(&text);
        return rc;
}

int adi_close_record(struct ad_closer *c, const struct adi_pending *p, enum ad_close_why *ret_why,
                     struct df_buf *ret, struct df_error *err)
{
        struct making *k = calloc(1, sizeof(*k));
        int rc;

        if (!k)
                return df_fail(err, DF_ENOMEM, "manifest");
        k->c = c;
        k->p = p;
        k->draft = p->draft;
        k->why = ret_why;
        df_arena_init(&k->arena, 0);
        fill_head(k);
        rc = fill_sources(k, err);
        if (rc == 0)
                rc = fill_prices(k, err);
        if (rc == 0)
                rc = fill_corrections(k, err);
        if (rc == 0)
                rc = make_record(k, ret, err);
        (void)df_sha256_end(k->sha, NULL, NULL);
        df_buf_release(&k->length);
        free(k->commands);
        df_arena_release(&k->arena);
        free(k);
        return rc;
}
