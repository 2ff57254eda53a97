/* kcheck.c - what the model broker holds at the end. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/job.h"
#include "tests/sim/kworker.h"

#define MANY_SEEDS 200

struct chain {         /* of a task, in one partition of an output */
        uint64_t k, n; /* what must come next */
        uint64_t to_offset;
};

/* False: *ret_wrong says what is wrong. */
static bool follow(const struct kworld *k, const struct df_source *task, const char *topic,
                   uint32_t partition, struct chain *c, char *ret_wrong, size_t size)
{
        size_t count;
        const struct df_record *r = df_sim_records(k->sim, topic, partition, &count);

        *c = (struct chain){.k = 1};
        for (size_t i = 0; i < count; i++) {
                struct df_output o;

                if (df_output_decode(r[i].value, &o, NULL) < 0)
                        sim_fail(k->seed, "%s/%u offset %" PRIu64 " cannot be decoded", topic,
                                 partition, r[i].offset);
                if (!df_source_eq(&o.origin.source, task))
                        continue;
                if (o.origin.k != c->k || o.origin.n != c->n ||
                    (o.is_seal && o.seal.rows != c->n)) {
                        (void)snprintf(ret_wrong, size,
                                       "%s/%u offset %" PRIu64 ": checkpoint %" PRIu64
                                       " item %u stands where %" PRIu64 " item %" PRIu64
                                       " must: whoever adds up what is committed counts wrong (K3)",
                                       topic, partition, r[i].offset, o.origin.k, o.origin.n, c->k,
                                       c->n);
                        return false;
                }
                c->n = o.is_seal ? 0 : c->n + 1;
                c->k += o.is_seal;
                if (o.is_seal)
                        c->to_offset = o.seal.to_offset;
        }
        if (c->n > 0)
                (void)snprintf(ret_wrong, size, "%s/%u: checkpoint %" PRIu64 " has no seal (K3)",
                               topic, partition, c->k);
        return c->n == 0;
}

static void check_committed(const struct kworld *k, const struct df_source *task,
                            const struct chain *c)
{
        struct df_committed is;
        char want[40];

        if (!df_sim_kafka_committed(k->sim, KGROUP, task->stream, task->partition, &is))
                sim_fail(k->seed, "%s/%u: an offset is pending at the end", task->stream,
                         task->partition);
        if (is.any != (c->k > 1))
                sim_fail(k->seed, "%s/%u: an offset without a seal, or the reverse (K3)",
                         task->stream, task->partition);
        if (!is.any)
                return;
        (void)snprintf(want, sizeof(want), "adtally1 ck-%" PRIu64 "-", c->k - 1);
        if (is.offset != c->to_offset || strncmp(is.metadata, want, strlen(want)) != 0)
                sim_fail(k->seed,
                         "%s/%u: committed is offset %" PRIu64
                         " with \"%s\", sealed checkpoint %" PRIu64 " up to %" PRIu64 " (K3)",
                         task->stream, task->partition, is.offset, is.metadata, c->k - 1,
                         c->to_offset);
}

static bool check_task(const struct kworld *k, const struct df_task_config *t, char *ret_wrong,
                       size_t size)
{
        uint64_t next_k = 0;
        struct chain c = {.k = 1};

        for (size_t o = 0; o < t->output_count; o++) {
                const struct df_output_config *out = &t->outputs[o];

                for (uint32_t i = 0; i < (out->spread ? out->partitions : 1); i++) {
                        const uint32_t p = out->spread ? i : t->source.partition;

                        if (!follow(k, &t->source, out->topic, p, &c, ret_wrong, size))
                                return false;
                        if (next_k && c.k != next_k && !k->refused)
                                sim_fail(k->seed,
                                         "%s/%u ends with checkpoint %" PRIu64
                                         ", an output before it with %" PRIu64 " (K3)",
                                         out->topic, p, c.k - 1, next_k - 1);
                        next_k = c.k;
                }
        }
        if (!k->refused)
                check_committed(k, &t->source, &c);
        return true;
}

bool kworld_check(const struct kworld *k)
{
        char wrong[256];

        for (uint32_t i = 0; i < k->task_count; i++) {
                if (check_task(k, &k->tasks[i], wrong, sizeof(wrong)))
                        continue;
                if (!k->reckless)
                        sim_fail(k->seed, "%s", wrong);
                printf("seed %" PRIu64 ": %s\n", k->seed, wrong);
                return false;
        }
        return true;
}

void kcounts_print(const struct kcounts *c)
{
        printf("%" PRIu64 " seeds: %" PRIu64 " takeovers, %" PRIu64 " kept, %" PRIu64
               " assignments, %" PRIu64 " commits, %" PRIu64 " crashes, %" PRIu64
               " workers stood still, %" PRIu64 " partitions lost, %" PRIu64
               " members fenced, %" PRIu64 " disks lost, %" PRIu64 " states rebuilt, %" PRIu64
               " requests without an answer\n",
               c->seeds, c->takeovers, c->kept, c->rebalances, c->commits, c->crashes, c->zombies,
               c->lost, c->fenced, c->disks, c->recovered, c->troubled);
}

int kcounts_check(const struct kcounts *c)
{
        if (c->seeds < MANY_SEEDS || (c->kept && c->zombies && c->lost && c->fenced && c->disks &&
                                      c->recovered && c->rebalances > c->kept && c->troubled))
                return 0;
        (void)fputs("these seeds left something out: see the counts\n", stderr);
        return 1;
}
