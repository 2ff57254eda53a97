/* task.c - the pure task: create and restore it, records in (E1, K1, K10). */
#include <stdlib.h>

#include "core_private.h"

#define STEP_RECORDS 256
#define STEP_BYTES (4u << 20)

/* ---- create, restore, destroy ---- */

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
                .resend_all = &t->resend_all,
        };
        return ops->open(op, err);
}

/* The counts of the next checkpoint start from here. */
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

static int restore(struct df_task *t, bool *ret_found, struct df_error *err)
{
        uint8_t key = DFI_KEY_META;
        struct df_bytes value;
        int rc = df_store_get(t->store, df_bytes(&key, 1), &value, ret_found, err);

        if (rc < 0 || !*ret_found)
                return rc;
        rc = dfi_meta_decode(value, &t->config, &t->last, err);
        if (rc < 0)
                return rc;
        t->last_digest = df_hash128(value);
        t->config.source.generation = t->last.source.generation;
        t->clock = t->last.clock;
        t->closed = t->last.closed;
        t->begun = true;
        t->position = t->last.to_offset;
        t->watermark_seen_ms = t->clock.watermark_ms;
        t->uncommitted = true;
        return 0;
}

int df_task_create(const struct df_task_config *config, struct df_store *store,
                   struct df_task **ret, struct df_error *err)
{
        struct df_task *t = calloc(1, sizeof(*t));
        bool found = false;
        int rc;

        df_check(config->chain_length > 0);
        df_check(config->chain_length <= DF_CHAIN_MAX);
        df_check(config->output_count <= DF_OUTPUTS_MAX);
        if (!t)
                return df_fail(err, DF_ENOMEM, "task");
        t->config = *config;
        t->store = store;
        t->next_news_ms = DF_TIME_MAX;
        t->watermark_seen_ms = DF_TIME_MIN;
        t->last.final_through_ms = DF_TIME_MIN;
        df_arena_init(&t->arena, 0);
        df_clock_init(&t->clock);
        rc = make_boxes(t, err);
        if (rc == 0)
                rc = restore(t, &found, err);
        for (size_t i = 0; rc == 0 && i < config->chain_length; i++)
                rc = open_operator(t, i, err);
        for (size_t i = 0; rc == 0 && found && i < config->chain_length; i++)
                if (config->chain[i]->restore)
                        rc = config->chain[i]->restore(t->ops[i], err);
        df_arena_reset(&t->arena);
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
        df_buf_release(&t->published);
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
                int rc = op->ops->on_watermark
                                 ? op->ops->on_watermark(op, t->watermark_seen_ms, err)
                                 : 0;

                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* One batch of data records down the chain. */
static int step(struct df_task *t, const struct df_record *records, size_t count,
                struct df_error *err)
{
        struct df_batch batch = {DF_KIND_RECORDS, (void *)(uintptr_t)records, count};
        struct df_out out = {.task = t, .next = 0};
        int rc;

        if (count == 0)
                return 0;
        df_check(records[0].offset >= t->position);
        rc = df_out_forward(&(struct df_out){.task = t, .next = out.next}, &batch, err);
        df_arena_reset(&t->arena);
        if (rc < 0)
                return rc;
        t->begun = true;
        t->now.records += count;
        t->position = records[count - 1].offset + 1;
        return tell_watermark(t, err);
}

/* E1, R6: everything of the generation is final now; it is sealed as closed by the next cut. */
static int end_generation(struct df_task *t, struct df_error *err)
{
        df_clock_close(&t->clock);
        t->ended = true;
        t->closed = true;
        return tell_watermark(t, err);
}

static void begin_generation(struct df_task *t, uint64_t generation)
{
        t->config.source.generation = generation;
        df_clock_init(&t->clock);
        t->watermark_seen_ms = DF_TIME_MIN;
        t->last.final_through_ms = DF_TIME_MIN;
        t->closed = false;
}

/* K10: from here on outputs are sent again. The interval begins where the last seal ended. */
static void end_suppression(struct df_task *t)
{
        t->suppress_until = 0;
        t->resend_all = true;
        t->more = true;
        dfi_begin_interval(t);
}

/* How many of the records go into one step: up to a control record, a limit, or the end of K10. */
static size_t step_length(const struct df_task *t, const struct df_record *records, size_t count,
                          enum df_control *ret_control, uint64_t *ret_generation)
{
        size_t n = 0, bytes = 0;

        *ret_control = DF_CONTROL_NONE;
        while (n < count && n < STEP_RECORDS && bytes < STEP_BYTES) {
                if (t->suppress_until && records[n].offset >= t->suppress_until)
                        break;
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
        int rc;

        *ret_taken = false;
        /* A generation that was left open ends where the next one begins, in a cut of its own. */
        if (control == DF_CONTROL_BEGIN && t->begun && !t->closed &&
            generation != t->config.source.generation)
                return end_generation(t, err);
        *ret_taken = true;
        if (control == DF_CONTROL_BEGIN && generation != t->config.source.generation)
                begin_generation(t, generation);
        rc = step(t, record, 1, err);
        return rc == 0 && control == DF_CONTROL_END ? end_generation(t, err) : rc;
}

int df_task_process(struct df_task *t, const struct df_record *records, size_t count,
                    size_t *ret_used, struct df_error *err)
{
        size_t used = 0;
        int rc = 0;

        df_check(!t->uncommitted);
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
                if (rc == 0 && t->suppress_until &&
                    (t->position >= t->suppress_until ||
                     (used < count && records[used].offset >= t->suppress_until)))
                        end_suppression(t);
                else if (rc == 0 && t->suppress_until && t->ended)
                        rc = df_task_checkpoint_silently(t, err); /* its seal is in the log */
        }
        *ret_used = used;
        return rc;
}

/* ---- what a driver asks ---- */

uint64_t df_task_position(const struct df_task *t)
{
        return t->position;
}

bool df_task_wants_cut(const struct df_task *t)
{
        return t->emitted_bytes >= DF_CUT_EARLY || t->ended || t->more;
}

bool df_task_dirty(const struct df_task *t)
{
        return t->now.records > 0 || t->more || t->ended;
}

bool df_task_has_news(const struct df_task *t)
{
        return t->now.events > 0 || t->now.poison_records > 0 || t->emitted_bytes > 0 || t->more ||
               t->ended || t->clock.watermark_ms >= t->next_news_ms;
}

uint64_t df_task_k(const struct df_task *t)
{
        return t->last.k;
}

const struct df_clock *df_task_clock(const struct df_task *t)
{
        return &t->clock;
}

const struct df_source *df_task_source(const struct df_task *t)
{
        return &t->config.source;
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

void dfi_task_start_at(struct df_task *t, uint64_t offset)
{
        df_check(t->last.k == 0 && !t->begun);
        t->position = offset;
        t->now.from_offset = offset;
}

/* ---- K10 ---- */

void df_task_suppress(struct df_task *t, uint64_t k, const struct df_seal *seal,
                      const struct df_clock *start_clock, uint64_t start_offset)
{
        t->last.k = k;
        t->last_digest = seal->digest;
        t->last.to_offset = seal->to_offset;
        t->last.final_through_ms = seal->final_through_ms;
        t->last.price_version = seal->price_version;
        t->last.label_version = seal->label_version;
        t->clock = *start_clock;
        t->watermark_seen_ms = start_clock->watermark_ms;
        t->position = start_offset;
        t->suppress_until = seal->to_offset;
        t->suppress_final_ms = seal->final_through_ms;
        t->uncommitted = false;
        dfi_begin_interval(t);
        if (t->position >= t->suppress_until)
                end_suppression(t);
}

bool df_task_suppressed(const struct df_task *t)
{
        return t->suppress_until != 0;
}
