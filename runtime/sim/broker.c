/* broker.c - the model broker's network: requests that are lost, late, twice, answered in vain. */
#include "broker_private.h"

#include <stdio.h>
#include <stdlib.h>

struct dfi_broker *dfi_broker(struct df_sim *sim)
{
        struct dfi_broker *b = sim->broker;

        if (b)
                return b;
        b = dfi_sim_alloc(sizeof(*b));
        b->sim = sim;
        b->next_id = 1;
        df_sim_random_init(&b->random, df_sim_random_u64(&sim->random));
        sim->broker = b;
        return b;
}

static void request_release(struct dfi_request *q)
{
        for (size_t i = 0; i < q->value_count; i++)
                free((void *)(uintptr_t)q->values[i].data);
        free((void *)(uintptr_t)q->values);
}

void dfi_broker_free(struct dfi_broker *b)
{
        if (!b)
                return;
        for (size_t i = 0; i < b->topic_count; i++)
                dfi_ktopic_free(b->topics[i]);
        for (size_t i = 0; i < b->txn_count; i++)
                dfi_txn_free(b->txns[i]);
        for (size_t i = 0; i < b->group_count; i++)
                dfi_kgroup_free(b->groups[i]);
        for (size_t i = 0; i < b->travelling_count; i++)
                request_release(&b->travelling[i].request);
        free(b->topics);
        free(b->txns);
        free(b->groups);
        free(b->travelling);
        free(b->clients);
        dfi_sim_free(b, sizeof(*b));
}

void dfi_name_copy(char *to, size_t size, const char *from)
{
        df_check(strlen(from) < size);
        memcpy(to, from, strlen(from) + 1);
}

void df_sim_net_set(struct df_sim *sim, struct df_sim_net net)
{
        dfi_broker(sim)->net = net;
}

void df_sim_broker_down(struct df_sim *sim, bool down)
{
        dfi_broker(sim)->down = down;
}

void df_sim_kafka_reckless(struct df_sim *sim, bool reckless)
{
        dfi_broker(sim)->reckless = reckless;
}

uint64_t df_sim_net_troubled(struct df_sim *sim)
{
        return dfi_broker(sim)->troubled;
}

void df_sim_net_hook(struct df_sim *sim,
                     void (*fn)(void *arg, uint32_t process, const char *request), void *arg)
{
        struct dfi_broker *b = dfi_broker(sim);

        b->hook = fn;
        b->hook_arg = arg;
}

/* ---- what arrives ---- */

static void apply(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a)
{
        *a = (struct dfi_answer){0};
        switch (q->api) {
        case DFI_FETCH:
                break;
        case DFI_PRODUCE:
                dfi_do_produce(b, q, a);
                break;
        case DFI_INIT_PRODUCER_ID:
        case DFI_ADD_PARTITIONS:
        case DFI_ADD_OFFSETS:
        case DFI_END_TXN:
                dfi_do_txn(b, q, a);
                break;
        case DFI_TXN_OFFSET_COMMIT:
        case DFI_OFFSET_FETCH:
        case DFI_JOIN_GROUP:
        case DFI_HEARTBEAT:
                dfi_do_group(b, q, a);
                break;
        }
}

static void apply_in_vain(struct dfi_broker *b, const struct dfi_request *q)
{
        struct dfi_answer a;

        apply(b, q, &a);
        free(a.partitions);
}

static void send_off(struct dfi_broker *b, const struct dfi_request *q)
{
        struct df_bytes *values = dfi_sim_alloc((q->value_count + 1) * sizeof(*values));
        const int64_t max = b->net.delay_max_ms > 0 ? b->net.delay_max_ms : 1;
        struct dfi_travelling *t;

        for (size_t i = 0; i < q->value_count; i++)
                values[i] = df_bytes(dfi_sim_copy(q->values[i]), q->values[i].len);
        b->travelling = dfi_sim_grow(b->travelling, b->travelling_count, &b->travelling_cap,
                                     sizeof(*b->travelling));
        t = &b->travelling[b->travelling_count++];
        t->due_ms = b->clock_ms + df_sim_random_between(&b->random, 1, max);
        t->request = *q;
        t->request.values = values;
}

/* The earliest that is due by now; false: none. */
static bool arrive_one(struct dfi_broker *b)
{
        size_t first = b->travelling_count;
        struct dfi_travelling t;

        for (size_t i = 0; i < b->travelling_count; i++)
                if (b->travelling[i].due_ms <= b->clock_ms &&
                    (first == b->travelling_count ||
                     b->travelling[i].due_ms < b->travelling[first].due_ms))
                        first = i;
        if (first == b->travelling_count)
                return false;
        t = b->travelling[first];
        b->travelling[first] = b->travelling[--b->travelling_count];
        apply_in_vain(b, &t.request);
        request_release(&t.request);
        return true;
}

#define SLICE_MS 500 /* no time-out passes unseen by what would have prevented it */

void df_sim_broker_advance(struct df_sim *sim, int64_t ms)
{
        struct dfi_broker *b = dfi_broker(sim);

        df_check(ms >= 0);
        while (ms > 0) {
                const int64_t step = ms < SLICE_MS ? ms : SLICE_MS;

                b->clock_ms += step;
                ms -= step;
                if (b->down)
                        continue;
                while (arrive_one(b))
                        ;
                dfi_clients_beat(b);
                dfi_txns_tick(b);
                dfi_groups_tick(b);
        }
}

/* ---- what is sent ---- */

enum fate { ARRIVES, NEVER_SENT, LOST, LATE, UNANSWERED };

static enum fate fate_of(struct dfi_broker *b, const struct dfi_sim_strike *s)
{
        static const enum fate struck[] = {
                [DF_SIM_BEFORE] = LOST, [DF_SIM_MIDWAY] = LATE, [DF_SIM_AFTER] = UNANSWERED};
        const struct df_sim_net *n = &b->net;

        if (s->code != 0)
                return struck[s->moment];
        if (b->down)
                return df_sim_random_chance(&b->random, 700) ? NEVER_SENT : LOST;
        if (b->sim->net_paused)
                return ARRIVES;
        if (df_sim_random_chance(&b->random, n->lose_request))
                return LOST;
        if (df_sim_random_chance(&b->random, n->lose_answer))
                return UNANSWERED;
        return df_sim_random_chance(&b->random, n->delay) ? LATE : ARRIVES;
}

static void describe(const struct dfi_request *q, char *ret, size_t size)
{
        static const char *const names[] = {
                [DFI_INIT_PRODUCER_ID] = "InitProducerId",
                [DFI_ADD_PARTITIONS] = "AddPartitions",
                [DFI_PRODUCE] = "Produce",
                [DFI_ADD_OFFSETS] = "AddOffsets",
                [DFI_TXN_OFFSET_COMMIT] = "TxnOffsetCommit",
                [DFI_END_TXN] = "EndTxn",
                [DFI_OFFSET_FETCH] = "OffsetFetch",
                [DFI_JOIN_GROUP] = "JoinGroup",
                [DFI_HEARTBEAT] = "Heartbeat",
                [DFI_FETCH] = "Fetch",
        };

        if (q->api == DFI_END_TXN)
                (void)snprintf(ret, size, "EndTxn %.60s %s", q->id, q->commit ? "commit" : "abort");
        else if (q->api == DFI_JOIN_GROUP)
                (void)snprintf(ret, size, "%s %.60s", names[q->api], q->instance);
        else if (q->topic[0])
                (void)snprintf(ret, size, "%s %.60s/%u", names[q->api], q->topic, q->partition);
        else
                (void)snprintf(ret, size, "%s %.60s", names[q->api], q->id);
}

static void trace_fate(const struct dfi_broker *b, enum fate fate, const char *what)
{
        static const char *const names[] = {[NEVER_SENT] = "never sent",
                                            [LOST] = "lost",
                                            [LATE] = "comes late",
                                            [UNANSWERED] = "its answer is lost"};
        char line[256];

        if (!b->sim->trace)
                return;
        (void)snprintf(line, sizeof(line), "   %s: %s", what, names[fate]);
        b->sim->trace(b->sim->trace_arg, line);
}

static int travel(struct dfi_broker *b, enum fate fate, const struct dfi_request *q,
                  struct dfi_answer *a, const char *what, struct df_error *err)
{
        if (fate != ARRIVES) {
                b->troubled++;
                trace_fate(b, fate, what);
        }
        switch (fate) {
        case NEVER_SENT:
                return df_fail(err, DF_EAGAIN, "no broker answers: %s", what);
        case LOST:
                break;
        case LATE:
                send_off(b, q);
                break;
        case UNANSWERED:
                if (!b->down)
                        apply_in_vain(b, q);
                break;
        case ARRIVES:
                if (!b->sim->net_paused && df_sim_random_chance(&b->random, b->net.duplicate))
                        apply_in_vain(b, q);
                apply(b, q, a);
                return 0;
        }
        return df_fail(err, DF_EDOUBT, "no answer: %s", what);
}

static int call(const struct dfi_sim_at *at, const struct dfi_request *q, const char *what,
                struct dfi_answer *a, struct df_error *err)
{
        struct dfi_broker *b = dfi_broker(at->sim);
        const bool writes = q->api != DFI_FETCH && q->api != DFI_OFFSET_FETCH;
        struct dfi_sim_strike s;
        int rc;

        df_check(!df_sim_paused(at->sim, at->process));
        *a = (struct dfi_answer){0};
        if (b->hook && dfi_sim_alive(at))
                b->hook(b->hook_arg, at->process, what);
        rc = dfi_sim_enter(at, writes, &s, err, "%s", what);
        if (rc == DF_ECRASH)
                return rc;
        b->clock_ms++;
        if (!b->down) {
                dfi_txns_tick(b);
                while (arrive_one(b))
                        ;
        }
        rc = travel(b, fate_of(b, &s), q, a, what, err);
        if (s.code == DF_ECRASH) {
                free(a->partitions);
                *a = (struct dfi_answer){0};
                return dfi_sim_leave(at, &s, err);
        }
        return rc;
}

int dfi_net_call(const struct dfi_sim_at *at, const struct dfi_request *q, struct dfi_answer *a,
                 struct df_error *err)
{
        char what[DFI_SIM_NAME_MAX];

        describe(q, what, sizeof(what));
        return call(at, q, what, a, err);
}

static bool not_yet(enum dfi_answer_code code)
{
        return code == DFI_K_CONCURRENT || code == DFI_K_UNSTABLE;
}

int dfi_net_until(const struct dfi_sim_at *at, const struct dfi_request *q, struct dfi_answer *a,
                  bool *ret_again, struct df_error *err)
{
        struct dfi_broker *b = dfi_broker(at->sim);
        const int64_t until_ms = b->clock_ms + DF_SIM_TRANSACTION_MS;
        bool doubt = false;

        for (;;) {
                int rc = dfi_net_call(at, q, a, err);

                if ((rc == 0 && !not_yet(a->code)) || rc == DF_ECRASH)
                        return rc;
                *ret_again = true;
                doubt |= rc == DF_EDOUBT;
                if (b->clock_ms >= until_ms)
                        return df_fail(err, doubt ? DF_EDOUBT : DF_EAGAIN,
                                       "no definite answer in %d ms", DF_SIM_TRANSACTION_MS);
                df_sim_broker_advance(at->sim, df_sim_random_between(&b->random, 20, 1500));
        }
}

bool dfi_net_background(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a)
{
        const bool trouble = !b->sim->net_paused;

        if (b->down || (trouble && df_sim_random_chance(&b->random, b->net.lose_request)))
                return false;
        apply(b, q, a);
        return !trouble || !df_sim_random_chance(&b->random, b->net.lose_answer);
}

int dfi_net_read(const struct dfi_sim_at *at, const char *what, const char *topic,
                 uint32_t partition, struct df_error *err)
{
        const struct dfi_request q = {.api = DFI_FETCH};
        char text[DFI_SIM_NAME_MAX];
        struct dfi_answer a;
        int rc;

        (void)snprintf(text, sizeof(text), "%s %.60s/%u", what, topic, partition);
        rc = call(at, &q, text, &a, err);
        return rc == DF_EDOUBT ? df_fail(err, DF_EAGAIN, "no answer: %s", text) : rc;
}

/* ---- processes that stand still ---- */

void df_sim_pause(struct df_sim *sim, uint32_t process)
{
        df_check(process < DF_SIM_PROCESSES_MAX);
        sim->processes[process].paused = true;
}

void df_sim_resume(struct df_sim *sim, uint32_t process)
{
        df_check(process < DF_SIM_PROCESSES_MAX);
        sim->processes[process].paused = false;
}

bool df_sim_paused(const struct df_sim *sim, uint32_t process)
{
        df_check(process < DF_SIM_PROCESSES_MAX);
        return sim->processes[process].paused;
}
