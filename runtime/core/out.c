/* out.c - what operators do through struct df_out: forward, emit, count, note. */
#include "core_private.h"

int df_out_forward(struct df_out *out, struct df_batch *batch, struct df_error *err)
{
        struct df_task *t = out->task;
        struct df_out further = {.task = t, .next = out->next + 1};
        struct df_profile_line *line;
        struct df_operator *op;
        uint64_t *before;
        int rc;

        if (batch->count == 0 || out->next >= t->config.chain_length)
                return 0;
        op = t->ops[out->next];
        line = &t->profile.lines[out->next];
        line->calls++;
        line->items += batch->count;
        before = dfi_charge(&t->meter, &line->process_ns);
        rc = op->ops->process(op, batch, &further, err);
        (void)dfi_charge(&t->meter, before);
        return rc;
}

static struct dfi_box *find_box(struct df_task *t, uint32_t output, uint32_t partition)
{
        const struct df_output_config *c = &t->config.outputs[output];
        uint32_t index;

        df_check(output < t->config.output_count);
        df_check(c->spread ? partition < c->partitions : partition == t->source.partition);
        index = c->spread ? partition : 0;
        return &t->boxes[t->box_start[output] + index];
}

int df_out_emit(struct df_out *out, uint32_t output, uint32_t partition, struct df_bytes payload,
                struct df_error *err)
{
        struct df_task *t = out->task;
        struct dfi_box *box = find_box(t, output, partition);

        if (payload.len > DFI_PAYLOAD_MAX)
                return df_fail(err, DF_ELIMIT, "a payload of %zu bytes for %s: at most %u",
                               payload.len, t->config.outputs[output].topic, DFI_PAYLOAD_MAX);
        if (t->suppressed)
                return 0; /* K10: it was sent before */
        if (t->emitted_bytes + payload.len > DF_OUTBOX_MAX)
                return df_fail(err, DF_ELIMIT, "the outbox exceeds %u bytes (K6)", DF_OUTBOX_MAX);
        df_put_u32le(&box->payloads, (uint32_t)payload.len);
        df_buf_append(&box->payloads, payload.data, payload.len);
        if (box->payloads.failed)
                return df_fail(err, DF_ENOMEM, "outbox of %s", t->config.outputs[output].topic);
        box->info.rows++;
        box->info.digest = df_digest_add(box->info.digest, payload);
        t->emitted_bytes += payload.len;
        return 0;
}

size_t df_out_room(const struct df_out *out)
{
        return DF_OUTBOX_MAX - out->task->emitted_bytes;
}

void df_out_more(struct df_out *out)
{
        df_check(out->task->cutting);
        out->task->more = true;
}

void df_out_count(struct df_out *out, uint32_t outcome, uint64_t n)
{
        df_check(outcome < DF_OUTCOMES_MAX);
        out->task->now.outcomes[outcome] += n;
}

void df_out_count_records(struct df_out *out, uint64_t events, uint64_t poison, uint64_t heartbeats)
{
        struct dfi_meta *now = &out->task->now;

        now->events += events;
        out->task->events += events;
        now->poison_records += poison;
        now->heartbeats += heartbeats;
}

void df_out_versions(struct df_out *out, uint32_t price_version, uint32_t label_version)
{
        out->task->now.price_version = price_version;
        out->task->now.label_version = label_version;
}

int df_out_note(struct df_out *out, struct df_bytes note, struct df_error *err)
{
        struct df_task *t = out->task;

        df_check(t->cutting);
        df_check(!t->noted);
        t->noted = true;
        if (note.len > DFI_NOTE_MAX)
                return df_fail(err, DF_ELIMIT, "a seal's note of %zu bytes: at most %u", note.len,
                               DFI_NOTE_MAX);
        df_buf_append(&t->now.note, note.data, note.len);
        return df_buf_check(&t->now.note, err);
}

void df_out_hold(struct df_out *out, int64_t start_ms)
{
        df_check(out->task->cutting);
        if (start_ms < out->task->hold_ms)
                out->task->hold_ms = start_ms;
}
