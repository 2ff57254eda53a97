/* bench_operators.c - the chain of operators alone: one task, records from memory, checkpoints of
 * its state into RocksDB, nothing read from or written to a log. One core. */
#include <stdlib.h>
#include <string.h>

#include "df/rocksdb.h"
#include "jobs/adtally/bench.h"

#define CUT_EVERY 1000000 /* events */
#define STEP 512          /* records a call */

struct input {
        struct df_buf bytes;
        size_t *ends;
        size_t count, cap;
};

static int keep(void *arg, uint32_t partition, struct df_bytes record, struct df_error *err)
{
        struct input *in = arg;

        (void)partition;
        if (in->count == in->cap) {
                size_t cap = in->cap ? 2 * in->cap : 4096;
                size_t *ends = realloc(in->ends, cap * sizeof(*ends));

                if (!ends)
                        return df_fail(err, DF_ENOMEM, "%zu records", cap);
                in->ends = ends;
                in->cap = cap;
        }
        df_buf_append(&in->bytes, record.data, record.len);
        in->ends[in->count++] = in->bytes.len;
        return df_buf_check(&in->bytes, err);
}

static void fill_config(const struct ad_bench *b, const struct ad_params *params,
                        struct df_task_config *ret)
{
        static const char *const topics[AD_OUT_COUNT] = {
                [AD_OUT_LATE] = AD_TOPIC_LATE,
                [AD_OUT_QUARANTINE] = AD_TOPIC_QUARANTINE,
                [AD_OUT_ROLLUPS] = AD_TOPIC_ROLLUPS,
        };

        *ret = (struct df_task_config){
                .partitions = 1,
                .chain = ad_chain_main,
                .chain_length = ad_chain_main_length,
                .params = params,
                .output_count = AD_OUT_COUNT,
                .grace_ms = params->grace_ms,
                .config = ad_config_digest(b->config),
                .binary_version = ADTALLY_VERSION,
                .ticks_ns = df_ticks_ns,
        };
        (void)snprintf(ret->source.stream, sizeof(ret->source.stream), AD_TOPIC_EVENTS);
        ret->source.generation = 1;
        ad_fill_rules(b->config, &ret->rules);
        for (size_t i = 0; i < AD_OUT_COUNT; i++)
                ret->outputs[i] = (struct df_output_config){.topic = topics[i], .partitions = 1};
}

static int cut(struct df_task *t, struct df_error *err)
{
        int rc;

        do {
                rc = df_task_cut(t, err);
                if (rc == 0)
                        df_task_committed(t);
        } while (rc == 0 && df_task_wants_cut(t));
        return rc;
}

static int process(struct ad_bench *b, struct df_task *t, const struct input *in, int64_t now_ms,
                   struct df_error *err)
{
        struct df_record records[STEP];
        struct df_progress progress;
        size_t at = 0, since_cut = 0;
        size_t per_record = (size_t)df_config_integer(b->config, "per-record");
        int rc = 0;

        df_progress_start(&progress, "operators", "events", b->events, b->quiet);
        while (rc == 0 && at < in->count) {
                size_t n = in->count - at < STEP ? in->count - at : STEP, used = 0;

                for (size_t i = 0; i < n; i++) {
                        size_t begin = at + i ? in->ends[at + i - 1] : 0;

                        records[i] =
                                (struct df_record){.offset = at + i,
                                                   .append_ms = now_ms,
                                                   .value = df_bytes(in->bytes.data + begin,
                                                                     in->ends[at + i] - begin)};
                }
                rc = df_task_process(t, records, n, &used, err);
                at += used;
                since_cut += used;
                if (rc == 0 && (since_cut * per_record >= CUT_EVERY || df_task_wants_cut(t))) {
                        rc = cut(t, err);
                        since_cut = 0;
                }
                if (rc == 0)
                        rc = ad_bench_stopped(err);
                df_progress_show(&progress, at * per_record);
        }
        if (rc == 0)
                rc = cut(t, err);
        df_progress_end(&progress, b->events);
        return rc;
}

static void put_stages(struct ad_bench *b, const struct df_profile *v)
{
        for (size_t i = 0; i < v->count; i++) {
                const struct df_profile_line *l = &v->lines[i];
                char name[AD_FIGURE_NAME_MAX];

                (void)snprintf(name, sizeof(name), "ns_%s%.20s", l->step ? "step_" : "", l->name);
                ad_bench_figure(b, name, (double)l->process_ns / (double)b->events);
                (void)snprintf(name, sizeof(name), "ns_cut_%.20s", l->name);
                if (!l->step)
                        ad_bench_figure(b, name, (double)l->cut_ns / (double)b->events);
        }
}

int ad_bench_operators(struct ad_bench *b, struct df_error *err)
{
        struct input in = {0};
        struct ad_bench_input make;
        struct ad_params params;
        struct df_task_config config;
        struct df_ckpt *ckpt = NULL;
        struct df_takeover state;
        struct df_task *task = NULL;
        uint64_t duplicates = 0;
        int64_t began, cpu;
        int rc;

        ad_bench_input_of(b, &make);
        make.per_record = (uint32_t)df_config_integer(b->config, "per-record");
        make.partitions = 1;
        make.emit = keep;
        make.arg = &in;
        rc = ad_bench_make(&make, &duplicates, err);
        ad_fill_params(b->config, &params);
        params.pricing = AD_PRICE_CLIENT;
        fill_config(b, &params, &config);
        if (rc == 0)
                rc = df_rocksdb_ckpt_open(b->dir, NULL, &ckpt, err);
        if (rc == 0)
                rc = df_ckpt_takeover(ckpt, &state, err);
        if (rc == 0)
                rc = df_task_create(&config, state.store, &task, err);
        began = df_monotonic_ns();
        cpu = df_cpu_ns();
        if (rc == 0)
                rc = process(b, task, &in, df_wall_ms(), err);
        if (rc == 0) {
                ad_bench_main_figures(b, b->events, df_monotonic_ns() - began, df_cpu_ns() - cpu,
                                      df_peak_rss_bytes() - in.bytes.len);
                ad_bench_figure(b, "duplicates", (double)duplicates);
                ad_bench_figure(b, "bytes_per_event", (double)in.bytes.len / (double)b->events);
                put_stages(b, df_task_profile(task));
        }
        df_task_destroy(task);
        if (ckpt)
                df_ckpt_drop_live(ckpt);
        df_ckpt_close(ckpt);
        df_buf_release(&in.bytes);
        free(in.ends);
        return rc;
}
