/* close_test.h - a reconcile job's closer over a fold's store, a topic `commands` and an archive
 * that the test writes. */
#ifndef CLOSE_TEST_H
#define CLOSE_TEST_H

#include "unit.h"

#include <stdio.h>

#include "df/filelog.h"
#include "df/sign.h"
#include "jobs/adtally/command.h"
#include "jobs/common/json.h"
#include "jobs/reconcile/close_private.h"
#include "jobs/runs/fold_private.h"

#include "dice.h"

#define FROM 1971648u /* quarters: 2026-03-26 and some days on */
#define TO (FROM + 400)
#define HOUR_MS 3600000

static struct rig {
        char dir[64];
        struct ad_command_line line;
        struct df_log *log;
        struct df_log_writer *commands;
        struct df_objects *objects;
        struct df_archive_part *archive[2];
        uint64_t next[2]; /* offset */
        struct ad_closer *closer;
        struct ad_replay *run, *import;
        struct ad_fold *fold;
        struct ad_job_part parts[2];
        int64_t final_ms[2];
        struct ad_posted posted;
        struct ad_run_begin begin;
        /* What was appended last. */
        struct df_buf record;
        struct df_arena arena;
        struct ad_run_record close;
        int appended, append_fails;
        uint64_t segments_listed;
} g;

static inline struct df_bytes s(const char *text)
{
        return df_bytes_str(text);
}

/* ---- the world around it ---- */

static inline int append(void *arg, struct df_bytes record, struct df_error *e)
{
        (void)arg;
        if (g.append_fails)
                return df_fail(e, DF_EAGAIN, "not now");
        df_buf_clear(&g.record);
        df_buf_append(&g.record, record.data, record.len);
        df_arena_reset(&g.arena);
        g.appended++;
        return ad_wire_run_record_decode(df_buf_bytes(&g.record), &g.arena, &g.close, e);
}

static inline void open_closer(void)
{
        struct ad_closer_options o = {.config = g.line.config,
                                      .log = g.log,
                                      .objects = g.objects,
                                      .append = append,
                                      .segments_listed = g.segments_listed};

        ad_closer_close(g.closer);
        ok(ad_closer_open(&o, &g.closer, &err));
}

static inline void open_archive(uint32_t partition)
{
        struct df_archive_options o = {.objects = g.objects, .limit = DF_SEGMENT_LIMIT_MIN};
        struct df_segment_id id = {"events", 0xbeef, partition};

        ok(df_archive_open(&o, &id, &g.archive[partition], &err));
}

/* A record an hour: a segment each, but for the last one, which is not archived yet. */
static inline void archive_to(uint32_t partition, uint64_t end)
{
        while (g.next[partition] <= end) {
                struct df_record r = {.offset = g.next[partition],
                                      .append_ms = (int64_t)(g.next[partition] + 1) * HOUR_MS,
                                      .value = s("record")};

                ok(df_archive_add(g.archive[partition], &r, &err));
                g.next[partition]++;
        }
        assert_int_equal(df_archive_end(g.archive[partition]), end);
}

static inline void open_fold(void)
{
        struct df_error none = {0};
        char path[128];

        if (g.fold)
                ad_fold_close(g.fold);
        (void)snprintf(path, sizeof(path), "%s/fold", g.dir);
        (void)df_remove_tree(path, &none);
        ok(ad_fold_open(g.run, path, &g.fold, &err));
}

static inline int set_up(void **state)
{
        static char data[80], quiet[] = "--quiet";
        char *args[] = {data, quiet}, path[128];
        struct df_filelog_options lo = {.segment_bytes = 1u << 20};
        struct df_objects_options oo = {.place = path};
        int code;

        (void)state;
        memset(&g, 0, sizeof(g));
        (void)snprintf(g.dir, sizeof(g.dir), "/tmp/adtally-close-XXXXXX");
        assert_non_null(mkdtemp(g.dir));
        (void)snprintf(data, sizeof(data), "--data=%s", g.dir);
        assert_true(ad_command_read(2, args, "", NULL, 0, NULL, &g.line, &code));
        (void)snprintf(path, sizeof(path), "%s/log", g.dir);
        ok(df_mkdirs(path, &err));
        ok(df_filelog_open(path, &lo, &g.log, &err));
        ok(df_log_topic_create(g.log, AD_TOPIC_COMMANDS, 1, &err));
        ok(df_log_writer_open(g.log, AD_TOPIC_COMMANDS, &g.commands, &err));
        (void)snprintf(path, sizeof(path), "dir:%s/archive", g.dir);
        ok(df_objects_open(&oo, &g.objects, &err));
        open_archive(0);
        open_archive(1);
        df_arena_init(&g.arena, 0);
        g.run = calloc(1, sizeof(*g.run));
        assert_non_null(g.run);
        g.posted = (struct ad_posted){.parts = g.parts, .part_count = 1, .begin = &g.begin};
        (void)snprintf(g.run->id, sizeof(g.run->id), "aaaaaaaaaaaaaaaa");
        (void)snprintf(g.run->pin.topic.name, sizeof(g.run->pin.topic.name), "events");
        g.run->pin.topic.generation = 0xbeef;
        g.run->pin.topic.partitions = 2;
        g.begin = (struct ad_run_begin){
                .chain = s("aaaaaaaaaaaaaaaa"), .binary_version = s("1.2.3"), .at_ms = 1};
        open_fold();
        open_closer();
        return 0;
}

static inline int tear_down(void **state)
{
        (void)state;
        ad_closer_close(g.closer);
        ad_fold_close(g.fold);
        df_archive_close(g.archive[0]);
        df_archive_close(g.archive[1]);
        df_objects_close(g.objects);
        df_log_writer_close(g.commands);
        df_log_close(g.log);
        ad_command_release(&g.line);
        df_arena_release(&g.arena);
        df_buf_release(&g.record);
        free(g.run);
        return df_remove_tree(g.dir, &err);
}

static inline void make_key(void)
{
        struct df_sign_public key;
        char path[128];

        (void)snprintf(path, sizeof(path), "%s/keys", g.dir);
        ok(df_keyring_create(path, false, &key, NULL, &err));
}

/* ---- what people ask ---- */

static inline void send(const struct ad_command *c)
{
        struct df_buf b = {0};
        struct df_append a = {0};

        ad_wire_command(&b, c);
        a.value = df_buf_bytes(&b);
        ok(df_log_append(g.commands, &a, 1, &err));
        df_buf_release(&b);
}

static inline struct ad_command asked(const char *id, enum ad_command_kind kind)
{
        return (struct ad_command){.id = s(id),
                                   .tenant_id = s("shop"),
                                   .at_ms = 5,
                                   .requested_by = s("ann"),
                                   .approved_by = s("bob"),
                                   .kind = kind};
}

static inline void ask_close(const char *id, const char *period, uint64_t from, uint64_t to)
{
        struct ad_command c = asked(id, AD_COMMAND_CLOSE);

        c.close = (struct ad_close_request){.account = {s("shop"), s("acme")},
                                            .period = s(period),
                                            .from_quarter = from,
                                            .to_quarter = to,
                                            .zone = s("UTC"),
                                            .zone_version = s("2026a")};
        send(&c);
}

static inline void ask_correction(const char *id, const char *tenant)
{
        struct ad_command c = asked(id, AD_COMMAND_CORRECTION);

        c.tenant_id = s(tenant);
        c.correction.scope.advertiser_id = s("acme");
        c.correction.action = AD_CORRECT_VOID;
        send(&c);
}

/* ---- what a run found ---- */

static inline void put_row(char kind, uint64_t quarter, const char *advertiser,
                           const char *campaign, uint32_t cause, int64_t clicks, int64_t spend)
{
        struct ad_bill_row row = {.quarter = quarter,
                                  .tenant_id = s("shop"),
                                  .advertiser_id = s(advertiser),
                                  .campaign_id = s(campaign),
                                  .publisher_id = s("p"),
                                  .currency = s("EUR"),
                                  .cause = cause};

        if (kind == 'c')
                row.billed = (struct ad_cell){.clicks = (uint64_t)clicks, .spend = spend};
        else
                row.realtime = (struct ad_cell){.clicks = (uint64_t)clicks, .spend = spend};
        adi_put_cell_key(&g.fold->key, kind, &row);
        df_put_u8(&g.fold->key, (uint8_t)cause);
        for (int i = 0; kind == 'c' && i < ADI_PLACE_BYTES; i++)
                df_put_u8(&g.fold->key, (uint8_t)dice(256));
        df_buf_clear(&g.fold->value);
        ad_wire_bill_row(&g.fold->value, &row);
        ok(adi_fold_put(g.fold, &err));
        ok(df_store_commit(df_kv_store(g.fold->kv), &err));
}

/* Two rows of one cell, cells of others around it. */
static inline void put_usual_rows(void)
{
        put_row('c', FROM - 1, "acme", "early", AD_CAUSE_NONE, 1, 1);
        put_row('c', FROM, "acme", "c1", AD_CAUSE_NONE, 2, 20);
        put_row('c', FROM, "acme", "c1", AD_CAUSE_LATE, 3, 30);
        put_row('c', FROM, "acme", "gone", AD_CAUSE_DUPLICATE, 0, 0);
        put_row('c', FROM, "zoo", "c1", AD_CAUSE_NONE, 9, 90);
        put_row('c', TO - 1, "acme", "c2", AD_CAUSE_NONE, 4, 40);
        put_row('c', TO, "acme", "after", AD_CAUSE_NONE, 1, 1);
        put_row('o', FROM + 1, "acme", "c3", AD_CAUSE_PENDING, -7, -70);
        put_row('o', FROM, "acme", "c1", AD_CAUSE_PENDING, -1, -1);
}

static const char usual_lines[] =
        "{\"window_start\":\"2026-03-26T00:00:00Z\",\"tenant_id\":\"shop\",\"advertiser_id\":"
        "\"acme\",\"campaign_id\":\"c1\",\"publisher_id\":\"p\",\"currency\":\"EUR\","
        "\"impressions\":0,\"clicks\":5,\"conversions\":0,\"spend_nanos\":50,\"payout_nanos\":0,"
        "\"conversion_value_nanos\":0,\"invalid_impressions\":0,\"invalid_clicks\":0,"
        "\"invalid_conversions\":0}\n"
        "{\"window_start\":\"2026-03-30T03:45:00Z\",\"tenant_id\":\"shop\",\"advertiser_id\":"
        "\"acme\",\"campaign_id\":\"c2\",\"publisher_id\":\"p\",\"currency\":\"EUR\","
        "\"impressions\":0,\"clicks\":4,\"conversions\":0,\"spend_nanos\":40,\"payout_nanos\":0,"
        "\"conversion_value_nanos\":0,\"invalid_impressions\":0,\"invalid_clicks\":0,"
        "\"invalid_conversions\":0}\n";

static inline int try_posted(const char *run, uint64_t to0, uint64_t to1, uint64_t final_to)
{
        g.begin.run = s(run);
        g.run->pin.span[0].to = to0;
        g.run->pin.span[1].to = to1;
        g.final_ms[0] = (int64_t)TO * 2 * AD_QUARTER_MS;
        g.final_ms[1] = (int64_t)final_to * AD_QUARTER_MS;
        g.parts[0] =
                (struct ad_job_part){.run = g.run, .fold = g.fold, .final_through_ms = g.final_ms};
        return ad_closer_posted(g.closer, &g.posted, &err);
}

static inline void posted(const char *run, uint64_t to0, uint64_t to1, uint64_t final_to)
{
        g.closer->looked_ms = df_monotonic_ms(); /* only what was asked is taken in */
        ok(ad_closer_idle(g.closer, &err));
        ok(try_posted(run, to0, to1, final_to));
}

static inline void idle(void)
{
        g.closer->looked_ms = -1000000;
        ok(ad_closer_idle(g.closer, &err));
}

static inline void waits(const char *part)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);

        ad_json_open(j);
        ad_closer_put(g.closer, j);
        ad_json_close(j);
        ok(ad_json_end(j, &b, &err));
        df_put_u8(&b, 0);
        if (!strstr((const char *)b.data, part))
                fail_msg("%s instead of %s", (const char *)b.data, part);
        df_buf_release(&b);
}

static inline void check_manifest(const char *run, uint64_t to0, uint64_t archived0)
{
        const struct ad_period_close *c = &g.close.close;
        uint8_t digest[DF_SHA256_SIZE], sig[DF_SIGN_SIZE];
        struct df_sign_key *key = NULL;
        struct ad_manifest m;
        char path[128];

        assert_int_equal(g.close.kind, AD_RUN_CLOSE);
        ok(ad_manifest_read(c->manifest, &g.arena, &m, &err));
        assert_true(df_bytes_eq(m.run, s(run)));
        assert_int_equal(m.source_count, 1);
        assert_int_equal(m.sources[0].part_count, 2);
        assert_int_equal(m.sources[0].parts[0].to, to0);
        assert_int_equal(m.sources[0].parts[0].archived_to, archived0);
        assert_int_equal(m.sources[0].parts[0].segments, archived0);
        assert_non_null(m.sources[0].parts[0].listed);
        assert_int_equal(m.rows, 2);
        ok(df_sha256(s(usual_lines), digest, &err));
        assert_memory_equal(digest, m.rows_sha256, sizeof(digest));
        assert_int_equal(m.total_count, 1);
        assert_int_equal(m.totals[0].billed.spend, 90);
        assert_int_equal(c->totals[0].billed.clicks, 9);
        /* The books count cells, also those with nothing billed; c3 is one that realtime has not
         * come to, `gone` is all zero. */
        assert_int_equal(c->rows, 3);
        assert_true(df_bytes_eq(c->asked_by, s("close-1")));
        (void)snprintf(path, sizeof(path), "%s/keys", g.dir);
        ok(df_keyring_open(path, &key, &err));
        assert_int_equal(c->signature.len, DF_SIGN_SIZE);
        memcpy(sig, c->signature.data, sizeof(sig));
        ok(df_sign_verify(df_sign_key_public(key), AD_MANIFEST_DOMAIN, c->manifest, sig, &err));
        df_sign_key_release(key);
}

#endif
