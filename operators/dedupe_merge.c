/* dedupe_merge.c - runs of an hour become fewer, in bounded steps.
 *
 * Eight neighbouring runs of a level become one of the next; a closed hour with more than eight
 * runs becomes one. A step is paid for by the events that pass. Output blocks go straight into the
 * open batch, or the output's files: nobody reads them before the snapshot that lists the finished
 * run instead of its inputs, and the commit that follows it. A merge that a crash cuts short leaves
 * blocks and files that no list names; restore deletes them.
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"

void adi_merge_abort(struct adi_dedupe *d)
{
        struct adi_merge *m = &d->merge;
        size_t written = m->written_bytes;
        bool look = m->look;

        if (m->bucket && m->out.in_files)
                adi_run_delete(d, m->bucket, &m->out);
        free(m->ids);
        adi_run_release(&m->out);
        memset(m, 0, sizeof(*m));
        m->written_bytes = written;
        m->look = look;
}

/* Inputs that are due: the oldest eight of a level, or the newest of a closed hour. The latest ones
 * of all, which are in memory for questions, are not yet. */
static uint32_t due(const struct adi_dedupe *d, const struct adi_bucket *b, uint32_t *ret_first)
{
        uint32_t n = 0, count = b->run_count;

        while (count > 0 && b->runs[count - 1].mem)
                count--;
        for (uint32_t i = 0; i < count; i++) {
                n = i > 0 && b->runs[i].level == b->runs[i - 1].level ? n + 1 : 1;
                if (n == ADI_FAN_IN) {
                        *ret_first = i + 1 - n;
                        return n;
                }
        }
        if (d->horizon_hours == 0 || adi_place_hour(b->hour) >= d->max_hour - 1 ||
            count <= ADI_FAN_IN)
                return 0;
        n = count < ADI_MERGE_RUNS_MAX ? count : ADI_MERGE_RUNS_MAX;
        *ret_first = count - n;
        return n;
}

static int fill(struct adi_dedupe *d, uint32_t input, struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        struct adi_cursor *c = &m->cursors[input];

        return adi_run_block(d, m->bucket, &m->bucket->runs[m->first + input], c->block, c->ids,
                             &c->count, err);
}

/* ---- which input is next ----
 *
 * A tournament: each id taken plays against as many others as the tree is high. To look at all
 * heads makes the processor guess wrong two or three times an id, since keys are random. */

static void set_head(struct adi_merge *m, uint32_t input)
{
        const struct adi_cursor *c = &m->cursors[input];

        m->heads[input] = ADI_NO_KEY;
        if (c->count)
                m->heads[input] = adi_key_number(c->ids[c->at].hi, c->ids[c->at].lo);
}

/* Of two inputs, b the newer one: the one whose head comes first. Of equal ids the newest. */
static uint32_t first_of(const struct adi_merge *m, uint32_t a, uint32_t b)
{
        if (m->heads[a] == m->heads[b])
                return m->cursors[b].count ? b : a; /* a key may be ADI_NO_KEY, too */
        return m->heads[a] < m->heads[b] ? a : b;
}

static void play(struct adi_merge *m, uint32_t input)
{
        for (uint32_t at = (ADI_MERGE_RUNS_MAX + input) / 2; at > 0; at /= 2)
                m->winners[at] = (uint8_t)first_of(m, m->winners[2 * at], m->winners[2 * at + 1]);
}

static void play_all(struct adi_merge *m)
{
        for (uint32_t i = 0; i < ADI_MERGE_RUNS_MAX; i++) {
                m->winners[ADI_MERGE_RUNS_MAX + i] = (uint8_t)i;
                set_head(m, i);
        }
        for (uint32_t i = 0; i < ADI_MERGE_RUNS_MAX; i += 2)
                play(m, i);
}

static int start(struct adi_dedupe *d, struct adi_bucket *b, uint32_t first, uint32_t n,
                 struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        uint64_t total = 0;
        int rc = 0;

        m->bucket = b;
        m->first = first;
        m->count = n;
        m->out = (struct adi_run){.first_seq = b->runs[first].first_seq,
                                  .last_seq = b->runs[first + n - 1].last_seq};
        for (uint32_t i = 0; i < n; i++) {
                total += b->runs[first + i].count;
                if (b->runs[first + i].level >= m->out.level)
                        m->out.level = b->runs[first + i].level + 1;
        }
        m->out.in_files = adi_run_is_long(d, total);
        m->ids = malloc((size_t)(n + 1) * ADI_BLOCK_IDS * sizeof(*m->ids));
        if (!m->ids)
                return df_fail(err, DF_ENOMEM, "dedupe: a merge of %u runs", n);
        rc = adi_index_open(d, &m->out, total / d->block_ids + 1, err);
        for (uint32_t i = 0; rc == 0 && i < n; i++) {
                m->cursors[i].ids = m->ids + (size_t)(i + 1) * ADI_BLOCK_IDS;
                rc = fill(d, i, err);
        }
        if (rc == 0)
                play_all(m);
        return rc;
}

static int put_block(struct adi_dedupe *d, struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        int rc;

        if (m->out_ids == 0)
                return 0;
        rc = adi_run_put_block(d, m->bucket, &m->out, m->out.blocks, m->ids, m->out_ids, err);
        if (rc < 0)
                return rc;
        m->bucket->stored = true; /* so that expiry deletes these blocks too */
        adi_index_note(d, &m->out, m->out.blocks++, m->ids, m->out_ids);
        m->out.count += m->out_ids;
        m->written_bytes += (size_t)m->out_ids * ADI_ID_BYTES;
        m->out_ids = 0;
        return 0;
}

static int advance(struct adi_dedupe *d, uint32_t input, struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        struct adi_cursor *c = &m->cursors[input];
        int rc = 0;

        if (++c->at == c->count) {
                c->at = 0;
                c->count = 0;
                if (++c->block < adi_run_blocks(d, &m->bucket->runs[m->first + input]))
                        rc = fill(d, input, err);
        }
        set_head(m, input);
        play(m, input);
        return rc;
}

static int end_merge(struct adi_dedupe *d, struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        int rc = put_block(d, err);

        if (rc == 0)
                adi_run_put_end(d, m->bucket, &m->out, m->out.blocks);
        m->done = true;
        return rc;
}

/* Append the smallest id of all inputs; of equal ones the newest run's comes first, and the others
 * are passed over. */
static int take(struct adi_dedupe *d, struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        uint32_t input = m->winners[1];
        const struct adi_cursor *c = &m->cursors[input];
        int rc;

        if (c->count == 0)
                return end_merge(d, err);
        if (!m->any || m->last != m->heads[input])
                m->ids[m->out_ids++] = c->ids[c->at];
        m->any = true;
        m->last = m->heads[input];
        rc = advance(d, input, err);
        if (rc == 0 && m->out_ids == d->block_ids)
                rc = put_block(d, err);
        return rc;
}

int adi_merge_step(struct adi_dedupe *d, uint64_t ids, struct df_error *err)
{
        struct adi_merge *m = &d->merge;
        int rc = 0;

        for (size_t i = m->look ? d->bucket_count : 0; !m->bucket && i-- > 0;) {
                uint32_t first, n = due(d, d->buckets[i], &first);

                if (n > 0)
                        rc = start(d, d->buckets[i], first, n, err);
                if (rc < 0)
                        return rc;
        }
        m->look = m->bucket != NULL;
        if (!m->bucket || m->done)
                return 0;
        while (rc == 0 && ids-- > 0 && !m->done && m->written_bytes < ADI_MERGE_BYTES_MAX)
                rc = take(d, err);
        return rc;
}

void adi_merge_settle(struct adi_dedupe *d)
{
        struct adi_merge *m = &d->merge;
        struct adi_bucket *b = m->bucket;

        m->written_bytes = 0;
        if (!b || !m->done)
                return;
        for (uint32_t i = 0; i < m->count; i++) {
                adi_run_delete(d, b, &b->runs[m->first + i]);
                adi_run_release(&b->runs[m->first + i]);
        }
        b->runs[m->first] = m->out;
        m->out = (struct adi_run){0};
        memmove(&b->runs[m->first + 1], &b->runs[m->first + m->count],
                (b->run_count - m->first - m->count) * sizeof(*b->runs));
        b->run_count -= m->count - 1;
        b->list_dirty = true;
        adi_merge_abort(d);
}
