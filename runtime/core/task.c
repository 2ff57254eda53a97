/* task.c - the pure task: create and restore it, records in (E1, K1, K10). */
#include <stdlib.h>

#include "core_private.h"

/* A step is what operators see as one batch. Its size bounds what a step can emit beyond
 * DF_CUT_EARLY; it never shows in the result. Few bytes, so that the decoded events of one step,
 * some four times as large, stay in a core's cache for the next one (4 MiB cost 10 % more). */
#define STEP_RECORDS 256
#define STEP_BYTES (64u << 10)

/* ---- create, restore, destroy ---- */

static int check_config(const struct df_task_config *c, struct df_error *err)
{
        if (c->chain_length == 0 || c->chain_length > DF_CHAIN_MAX)
                return df_fail(err, DF_ELIMIT, "a chain of %zu operators: 1 to %d", c->chain_length,
                               DF_CHAIN_MAX);
        if (c->output_count > DF_OUTPUTS_MAX)
                return df_fail(err, DF_ELIMIT, "%zu outputs: at most %d", c->output_count,
                               DF_OUTPUTS_MAX);
        if (c->partitions > DF_PARTITIONS_MAX || c->source.partition >= c->partitions)
                return df_fail(err, DF_EINVAL, "partition %u of %u of %s", c->source.partition,
                               c->partitions, c->source.stream);
        if (strlen(c->binary_version) > DF_VERSION_MAX)
                return df_fail(err, DF_ELIMIT, "the version \"%s\" has more than %d bytes",
                               c->binary_version, DF_VERSION_MAX);
        for (size_t i = 0; i < c->output_count; i++) {
                const struct df_output_config *o = &c->outputs[i];

                if (o->partitions == 0 || o->partitions > DF_PARTITIONS_MAX ||
                    (!o->spread && c->source.partition >= o->partitions))
                        return df_fail(
                                err, DF_EINVAL, "output %s of %u partitions for partition %u of %s",
                                o->topic, o->partitions, c->source.partition, c->source.stream);
        }
        return 0;
}

static int make_boxes(struct df_task *t, struct df_error *err)
{
        const struct df_task_config *c = &t->config;

        for (size_t o = 0; o < c->output_count; o++) {
                t->box_start[o] = t->box_count;
                t->box_count += c->outputs[o].spread ? c->outputs[o].partitions : 1;
        }
        t->boxes = calloc(t->box_count ? t->box_count : 1, sizeof(*t->boxes));
        if (!t->boxes)
                return df_fail(err, DF_ENOMEM, "%zu output collections", t->box_count);
        for (size_t o = 0, i = 0; o < c->output_count; o++) {
                uint32_t n = c->outputs[o].spread ? c->outputs[o].partitions : 1;

                for (uint32_t p = 0; p < n; p++, i++) {
                        t->boxes[i].info.output = (uint32_t)o;
                        t->boxes[i].info.partition = c->outputs[o].spread ? p : c->source.partition;
                }
        }
        return 0;
}

static int open_operator(struct df_task *t, size_t at, struct df_error *err)
{
        const struct df_operator_ops *ops = t->config.chain[at];
        struct df_operator *op = calloc(1, ops->size);

        df_check(ops->size >= sizeof(*op));
        if (!op)
                return df_fail(err, DF_ENOMEM, "operator %s", ops->name);
        t->ops[at] = op;
        op->magic = DF_OPERATOR_MAGIC;
        op->ops = ops;
        op->ctx = (struct df_ctx){
                .store = t->store,
                .ns = (uint8_t)(DFI_KEY_OPERATOR + at),
                .arena = &t->arena,
                .clock = &t->clock,
                .rules = &t->config.rules,
                .partition = t->config.source.partition,
                .partitions = t->config.partitions,
                .params = t->config.params,
                .next_news_ms = &t->next_news_ms,
                .more = &t->more,
                .resend_all = &t->resend_all,
        };
        return ops->open(op, err);
}

void dfi_begin_interval(struct df_task *t)
{
        struct df_buf note = t->now.note;

        df_buf_clear(&note);
        memset(&t->now, 0, sizeof(t->now));
        t->now.note = note;
        t->now.from_offset = t->position;
        t->now.price_version = t->last.price_version;
        t->now.label_version = t->last.label_version;
}

/* The outbox in the store belongs to the outputs that were configured when it was written. */
static int check_collections(const struct df_task *t, struct df_error *err)
{
        bool same = t->last.collection_count == t->box_count;

        for (size_t i = 0; same && i < t->box_count; i++)
                same = t->last.collections[i].output == t->boxes[i].info.output &&
                       t->last.collections[i].partition == t->boxes[i].info.partition;
        if (same)
                return 0;
        return df_fail(err, DF_ESCHEMA,
                       "state was written for %zu output collections, this program has %zu or in "
                       "another order (K14)",
                       t->last.collection_count, t->box_count);
}

static int on_any_key(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        (void)key;
        (void)value;
        (void)err;
        *(bool *)arg = true;
        return 1;
}

static int restore(struct df_task *t, bool *ret_found, struct df_error *err)
{
        uint8_t key = DFI_KEY_META;
        struct df_bytes value;
        bool any = false;
        int rc = df_store_get(t->store, df_bytes(&key, 1), &value, ret_found, err);

        if (rc == 0 && !*ret_found) {
                rc = df_store_scan(t->store, df_bytes(NULL, 0), on_any_key, &any, err);
                if (rc == 0 && any)
                        rc = df_fail(err, DF_ECORRUPT,
                                     "the state does not say which checkpoint it "
                                     "is: `adtally recover` (K8)");
                return rc;
        }
        if (rc < 0)
                return rc;
        rc = dfi_meta_decode(value, &t->config, &t->last, err);
        if (rc == 0)
                rc = check_collections(t, err);
        if (rc < 0)
                return rc;
        t->last_digest = dfi_meta_digest(&t->last, value);
        t->source = t->last.source;
        t->clock = t->last.clock;
        t->closed = t->last.closed;
        t->begun = true;
        t->position = t->last.to_offset;
        t->watermark_seen_ms = t->clock.watermark_ms;
        t->uncommitted = true;
        return 0;
}

static int start(struct df_task *t, struct df_error *err)
{
        bool found = false;
        int rc = make_boxes(t, err);

        if (rc == 0)
                rc = restore(t, &found, err);
        t->profile.count = t->config.chain_length;
        for (size_t i = 0; rc == 0 && i < t->config.chain_length; i++) {
                t->profile.lines[i].name = t->config.chain[i]->name;
                rc = open_operator(t, i, err);
                if (rc == 0 && found && t->config.chain[i]->restore)
                        rc = t->config.chain[i]->restore(t->ops[i], err);
                if (rc < 0)
                        (void)df_wrap(err, "operator %s", t->config.chain[i]->name);
        }
        df_arena_reset(&t->arena);
        return rc;
}

int df_task_create(const struct df_task_config *config, struct df_store *store,
                   struct df_task **ret, struct df_error *err)
{
        int rc = check_config(config, err);
        struct df_task *t;

        if (rc < 0)
                return rc;
        t = calloc(1, sizeof(*t));
        if (!t)
                return df_fail(err, DF_ENOMEM, "task");
        t->config = *config;
        t->source = config->source;
        t->store = store;
        t->meter.ticks_ns = config->ticks_ns;
        t->meter.weight = 1;
        t->next_news_ms = DF_TIME_MAX;
        t->watermark_seen_ms = DF_TIME_MIN;
        df_arena_init(&t->arena, 0);
        df_clock_init(&t->clock);
        rc = start(t, err);
        if (rc < 0) {
                df_task_destroy(t);
                return rc;
        }
        dfi_begin_interval(t);
        *ret = t;
        return 0;
}

void df_task_destroy(struct df_task *t)
{
        if (!t)
                return;
        for (size_t i = DF_CHAIN_MAX; i-- > 0;) {
                if (!t->ops[i])
                        continue;
                t->ops[i]->ops->close(t->ops[i]);
                t->ops[i]->magic = 0;
                free(t->ops[i]);
        }
        for (size_t i = 0; t->boxes && i < t->box_count; i++)
                df_buf_release(&t->boxes[i].payloads);
        free(t->boxes);
        dfi_meta_release(&t->now);
        dfi_meta_release(&t->last);
        dfi_records_release(&t->published);
        free(t->views);
        df_arena_release(&t->arena);
        free(t);
}

/* ---- process ---- */

static int tell_watermark(struct df_task *t, struct df_error *err)
{
        if (t->clock.watermark_ms == t->watermark_seen_ms)
                return 0;
        df_check(t->clock.watermark_ms > t->watermark_seen_ms);
        t->watermark_seen_ms = t->clock.watermark_ms;
        for (size_t i = 0; i < t->config.chain_length; i++) {
                struct df_operator *op = t->ops[i];
                int rc;

                if (!op->ops->on_watermark)
                        continue;
                (void)dfi_charge(&t->meter, &t->profile.lines[i].process_ns);
                rc = op->ops->on_watermark(op, t->watermark_seen_ms, err);
                (void)dfi_charge(&t->meter, NULL);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* One batch of records down the chain. */
static int step(struct df_task *t, const struct df_record *records, size_t count,
                struct df_error *err)
{
        struct df_batch batch = {DF_KIND_RECORDS, (void *)(uintptr_t)records, count};
        struct df_out out = {.task = t, .next = 0};
        int rc;

        if (count == 0)
                return 0;
        df_check(records[0].offset >= t->position);
        t->meter.weight = t->meter.steps++ % DFI_TIMED_STEP ? 0 : DFI_TIMED_STEP;
        rc = df_out_forward(&out, &batch, err);
        t->meter.weight = 1;
        if (rc == 0) {
                t->begun = true;
                t->now.records += count;
                t->position = records[count - 1].offset + 1;
                rc = tell_watermark(t, err);
        }
        df_arena_reset(&t->arena);
        return rc;
}

/* E1, R6: everything of the generation is final now; it is sealed as closed by the next cut. In
 * K10 that seal is in the log already, unless it is the last one there. */
static int end_generation(struct df_task *t, struct df_error *err)
{
        int rc;

        df_clock_close(&t->clock);
        t->closed = true;
        t->ended = true;
        rc = tell_watermark(t, err);
        if (rc == 0 && t->suppressed && t->position < t->suppress_until) {
                t->ended = false;
                rc = dfi_task_forget(t, DF_TIME_MAX, err);
        }
        return rc;
}

/* K10: from here on outputs are sent again. The interval begins where the last seal ended, and
 * what operators would have said of the time before is dropped with the rows. */
static int end_suppression(struct df_task *t, struct df_error *err)
{
        int rc = dfi_task_forget(t, t->suppress_final_ms, err);

        if (rc < 0)
                return rc;
        t->suppressed = false;
        t->resend_all = true;
        t->more = true;
        if (t->position < t->suppress_until)
                t->position = t->suppress_until; /* a hole */
        t->last.source = t->source;
        dfi_begin_interval(t);
        return 0;
}

int dfi_task_end(struct df_task *t, uint64_t to, struct df_error *err)
{
        int rc = 0;

        df_check(to >= t->position);
        df_check(!t->uncommitted);
        t->position = to;
        if (t->suppressed)
                rc = end_suppression(t, err);
        if (rc == 0)
                rc = end_generation(t, err);
        df_arena_reset(&t->arena);
        t->failed = rc < 0;
        return rc;
}

int dfi_task_pause(struct df_task *t, uint64_t to, struct df_error *err)
{
        int rc = 0;

        df_check(to >= t->position);
        df_check(!t->uncommitted);
        t->position = to;
        if (t->suppressed)
                rc = end_suppression(t, err);
        if (t->last.k == 0 || t->last.to_offset != to)
                t->more = true;
        t->failed = rc < 0;
        return rc;
}

/* Where a step must not go beyond: the end of K10, or the only place for a cut. */
static uint64_t barrier(const struct df_task *t)
{
        if (t->suppressed)
                return t->suppress_until;
        return t->cut_is_fixed ? t->cut_at : UINT64_MAX;
}

/* How many of the records go into one step: up to a control record, a limit, or the barrier. */
static size_t step_length(const struct df_task *t, const struct df_record *records, size_t count,
                          enum df_control *ret_control, uint64_t *ret_generation)
{
        uint64_t stop = barrier(t);
        size_t n = 0, bytes = 0;

        *ret_control = DF_CONTROL_NONE;
        while (n < count && n < STEP_RECORDS && bytes < STEP_BYTES && records[n].offset < stop) {
                if (t->config.control)
                        *ret_control = t->config.control(records[n].value, ret_generation);
                if (*ret_control != DF_CONTROL_NONE)
                        break;
                bytes += records[n++].value.len;
        }
        return n;
}

static int take_control(struct df_task *t, enum df_control control, uint64_t generation,
                        const struct df_record *record, bool *ret_taken, struct df_error *err)
{
        bool begin = control == DF_CONTROL_BEGIN && generation != t->source.generation;
        int rc;

        *ret_taken = false;
        /* A generation that was left open ends where the next one begins, in a cut of its own. */
        if (begin && t->begun && !t->closed)
                return end_generation(t, err);
        if (begin && t->now.records > 0 && !t->suppressed) {
                t->ended = true; /* records behind its end: a seal is of one generation */
                return 0;
        }
        if (begin) {
                t->source.generation = generation;
                df_clock_init(&t->clock);
                t->watermark_seen_ms = DF_TIME_MIN;
                t->closed = false;
        }
        *ret_taken = true;
        rc = step(t, record, 1, err);
        return rc == 0 && control == DF_CONTROL_END ? end_generation(t, err) : rc;
}

int df_task_process(struct df_task *t, const struct df_record *records, size_t count,
                    size_t *ret_used, struct df_error *err)
{
        size_t used = 0;
        int rc = 0;

        df_check(!t->uncommitted);
        if (t->failed)
                return df_fail(err, DF_ECLOSED, "the task failed before");
        while (rc == 0 && used < count && !df_task_wants_cut(t)) {
                enum df_control control;
                uint64_t generation = 0;
                size_t n = step_length(t, records + used, count - used, &control, &generation);
                bool taken = false;

                rc = step(t, records + used, n, err);
                used += n;
                if (rc == 0 && control != DF_CONTROL_NONE) {
                        rc = take_control(t, control, generation, &records[used], &taken, err);
                        used += taken;
                }
                if (rc == 0 && t->suppressed &&
                    (t->position >= t->suppress_until ||
                     (used < count && records[used].offset >= t->suppress_until))) {
                        rc = end_suppression(t, err);
                        break;
                }
                if (t->cut_is_fixed && t->position < t->cut_at && used < count &&
                    records[used].offset >= t->cut_at && !t->suppressed)
                        t->position = t->cut_at; /* a hole */
        }
        t->failed = rc < 0;
        if (rc == 0)
                *ret_used = used;
        return rc;
}

/* ---- what a driver asks ---- */

uint64_t df_task_position(const struct df_task *t)
{
        return t->position;
}

bool dfi_task_held(const struct df_task *t)
{
        return t->suppressed || (t->cut_is_fixed && t->position < t->cut_at);
}

bool dfi_task_owes_cut(const struct df_task *t)
{
        return !dfi_task_held(t) && (t->ended || t->more || t->cut_is_fixed);
}

bool df_task_wants_cut(const struct df_task *t)
{
        return t->uncommitted || dfi_task_owes_cut(t) ||
               (!dfi_task_held(t) && t->emitted_bytes >= DF_CUT_EARLY);
}

bool df_task_dirty(const struct df_task *t)
{
        return t->uncommitted || dfi_task_owes_cut(t) || (!dfi_task_held(t) && t->now.records > 0);
}

bool df_task_has_news(const struct df_task *t)
{
        if (dfi_task_held(t))
                return false;
        return t->now.events > 0 || t->now.poison_records > 0 || t->emitted_bytes > 0 ||
               dfi_task_owes_cut(t) ||
               (t->next_news_ms != DF_TIME_MAX && t->clock.watermark_ms >= t->next_news_ms);
}

uint64_t df_task_k(const struct df_task *t)
{
        return t->last.k;
}

uint64_t df_task_events(const struct df_task *t)
{
        return t->events;
}

const struct df_profile *df_task_profile(const struct df_task *t)
{
        return &t->profile;
}

const struct df_clock *df_task_clock(const struct df_task *t)
{
        return &t->clock;
}

const struct df_source *df_task_source(const struct df_task *t)
{
        return &t->source;
}

const struct df_collection_info *df_task_collections(const struct df_task *t, size_t *ret_count)
{
        *ret_count = t->last.collection_count;
        return t->last.collections;
}

struct df_hash128 dfi_task_digest(const struct df_task *t)
{
        return t->last_digest;
}

/* ---- K10 ---- */

void dfi_task_start(struct df_task *t, uint64_t offset, const struct df_clock *clock,
                    uint64_t generation, bool begun)
{
        df_check(t->last.k == 0);
        df_check(!t->begun);
        t->position = offset;
        t->clock = *clock;
        t->watermark_seen_ms = clock->watermark_ms;
        t->source.generation = generation;
        t->begun = begun;
        t->closed = clock->watermark_ms == DF_TIME_MAX;
        dfi_begin_interval(t);
}

void dfi_task_fix_cut(struct df_task *t, uint64_t offset, struct df_hash128 digest)
{
        df_check(offset >= t->position);
        t->cut_is_fixed = true;
        t->cut_at = offset;
        t->cut_digest = digest;
}

void df_task_suppress(struct df_task *t, uint64_t k, const struct df_seal *seal,
                      const struct df_clock *start_clock, uint64_t start_offset)
{
        t->last.k = k;
        t->last_digest = seal->digest;
        t->last.to_offset = seal->to_offset;
        t->last.final_through_ms = seal->final_through_ms;
        t->last.price_version = seal->price_version;
        t->last.label_version = seal->label_version;
        t->last.source = t->source;
        t->clock = *start_clock;
        t->watermark_seen_ms = start_clock->watermark_ms;
        t->position = start_offset;
        t->suppressed = start_offset < seal->to_offset;
        t->suppress_until = seal->to_offset;
        t->suppress_final_ms = seal->final_through_ms;
        t->uncommitted = false;
        t->outbox_known = false; /* k's would be another's */
        t->resend_all = t->more = !t->suppressed;
        dfi_begin_interval(t);
}

bool df_task_suppressed(const struct df_task *t)
{
        return t->suppressed;
}
