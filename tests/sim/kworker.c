#include "tests/sim/kworker.h"

#include <inttypes.h>

#include "tests/sim/job.h"

#define TRIES_MAX 1000  /* failures of a task in a row */
#define ROUNDS_MAX 5000 /* of kworld_finish */
#define DEPTH_MAX 2     /* interruptions within each other */
#define DELAY_MAX_MS 40000

static uint64_t pick(struct kworld *k, uint64_t n)
{
        return df_sim_random_below(&k->random, n);
}

static bool chance(struct kworld *k, uint32_t permille)
{
        return df_sim_random_chance(&k->random, permille);
}

static void say(const struct kworker *w, const char *what, uint32_t partition,
                const struct df_error *err)
{
        if (w->world->to)
                (void)fprintf(w->world->to, "  -- w%u %s %u%s%s%s%s\n", w->process, what, partition,
                              err ? ": " : "", err ? df_err_code(err->code) : "", err ? ": " : "",
                              err ? err->text : "");
}

/* ---- slots ---- */

static void dir_of(const struct kworld *k, uint32_t task, char ret[DF_TOPIC_NAME_MAX + 16])
{
        const struct df_source *source = &k->tasks[task].source;

        (void)snprintf(ret, DF_TOPIC_NAME_MAX + 16, "%s-%u", source->stream, source->partition);
}

static void close_slot(struct kslot *s)
{
        df_session_close(s->session);
        df_txn_close(s->txn);
        df_ckpt_close(s->ckpt);
        s->session = NULL;
        s->txn = NULL;
        s->ckpt = NULL;
}

/* The process goes on elsewhere: what it had on its disk is not there (K2). */
static void lose_disk(struct kworker *w)
{
        char of_task[DF_TOPIC_NAME_MAX + 16], dir[DF_TOPIC_NAME_MAX + 32];

        for (uint32_t p = 0; p < w->world->task_count; p++) {
                dir_of(w->world, p, of_task);
                (void)snprintf(dir, sizeof(dir), "%s@%u", of_task, w->process);
                df_sim_ckpt_lose(w->world->sim, dir, false);
        }
        w->world->counts->disks++;
        say(w, "loses its disk", 0, NULL);
}

static void end_process(struct kworker *w, uint32_t away)
{
        for (uint32_t p = 0; p < KTASKS_MAX; p++) {
                close_slot(&w->slots[p]);
                w->slots[p].state = KSLOT_AWAY;
        }
        df_group_close(w->group);
        df_log_close(w->log);
        w->group = NULL;
        w->log = NULL;
        w->rejoin = false;
        w->away = away;
}

/* Of a session or of its opening: worker_loop.c's dfi_slot_fail. */
static void fail_slot(struct kworker *w, uint32_t p, const char *call, const struct df_error *err)
{
        struct kworld *k = w->world;
        struct kslot *s = &w->slots[p];

        say(w, call, p, err);
        close_slot(s);
        s->state = KSLOT_CLOSED;
        if (err->code == DF_ECRASH)
                return;
        if (df_err_action(err->code) == DF_STOP && k->reckless) {
                k->refused = true;
                return;
        }
        if (df_err_action(err->code) == DF_STOP)
                sim_fail(k->seed, "%s of task %u by worker %u is refused: %s: %s", call, p,
                         w->process, df_err_code(err->code), err->text);
        if (++s->failures > TRIES_MAX)
                sim_fail(k->seed, "%s of task %u by worker %u never succeeds: %s: %s", call, p,
                         w->process, df_err_code(err->code), err->text);
        if (err->code != DF_ELOST)
                return;
        k->counts->lost++;
        s->state = KSLOT_WAITING;
        w->rejoin = true;
}

static int on_step(void *arg, const char *name, struct df_error *err);

static void open_slot(struct kworker *w, uint32_t p)
{
        struct kworld *k = w->world;
        struct kslot *s = &w->slots[p];
        struct df_error err = {0};
        char dir[DF_TOPIC_NAME_MAX + 16];
        struct df_session_ports ports = {.log = w->log, .step = on_step, .step_arg = w};
        int rc;

        dir_of(k, p, dir);
        s->ckpt = df_sim_ckpt_open_shared(k->sim, w->process, dir);
        rc = df_sim_kafka_txn_open(w->log, w->group, k->tasks[p].source.stream,
                                   k->tasks[p].source.partition, &s->txn, &err);
        ports.ckpt = s->ckpt;
        ports.txn = s->txn;
        ports.recover_from_log = k->recover[p];
        if (rc == 0)
                rc = df_session_open(&k->tasks[p], &ports, &s->session, &err);
        if (rc < 0) {
                s->session = NULL;
                fail_slot(w, p, "open", &err);
                return;
        }
        say(w, "has taken over", p, NULL);
        k->counts->takeovers++;
        s->state = KSLOT_OPEN;
}

static int commit_slot(struct kworker *w, uint32_t p, struct df_error *err)
{
        int rc = df_session_commit(w->slots[p].session, err);

        if (rc < 0)
                return rc;
        w->world->counts->commits++;
        w->slots[p].failures = 0;
        return 0;
}

/* An error after which the session is in order leaves it open for the same call. */
static void handle(struct kworker *w, uint32_t p, const char *call, const struct df_error *err)
{
        if (df_err_action(err->code) == DF_RETRY && w->slots[p].failures < TRIES_MAX) {
                w->slots[p].failures++;
                say(w, call, p, err);
                return;
        }
        fail_slot(w, p, call, err);
}

static bool poll_slot(struct kworker *w, uint32_t p, size_t max, size_t *ret_count)
{
        struct kslot *s = &w->slots[p];
        struct df_error err = {0};

        *ret_count = 0;
        if (df_session_poll(s->session, max, ret_count, &err) < 0) {
                handle(w, p, "poll", &err);
                return false;
        }
        if (!df_task_wants_cut(df_session_task(s->session)))
                return true;
        if (commit_slot(w, p, &err) == 0)
                return true;
        handle(w, p, "commit", &err);
        return false;
}

/* ---- membership ---- */

static bool assigned(const struct kworld *k, const struct df_group_event *e, uint32_t task)
{
        const struct df_source *source = &k->tasks[task].source;

        for (size_t i = 0; i < e->count; i++)
                if (e->partitions[i].partition == source->partition &&
                    strcmp(e->partitions[i].topic, source->stream) == 0)
                        return true;
        return false;
}

static void take(struct kworker *w, uint32_t p)
{
        struct kslot *s = &w->slots[p];
        struct df_error err = {0};

        if (s->session && df_session_keep(s->session, &err) == 0) {
                say(w, "keeps", p, NULL);
                w->world->counts->kept++;
                s->state = KSLOT_OPEN;
                return;
        }
        if (s->session)
                say(w, "does not keep", p, &err);
        close_slot(s);
        s->state = KSLOT_CLOSED;
}

static void follow_assign(struct kworker *w, const struct df_group_event *e)
{
        w->world->counts->rebalances++;
        for (uint32_t p = 0; p < w->world->task_count; p++)
                if (!assigned(w->world, e, p)) {
                        close_slot(&w->slots[p]);
                        w->slots[p].state = KSLOT_AWAY;
                }
        for (uint32_t p = 0; p < w->world->task_count; p++)
                if (assigned(w->world, e, p) && !df_sim_crashed(w->world->sim, w->process))
                        take(w, p);
}

static void follow_revoke(struct kworker *w)
{
        for (uint32_t p = 0; p < w->world->task_count; p++) {
                struct kslot *s = &w->slots[p];
                struct df_error err = {0};
                int rc = 0;

                if (s->state != KSLOT_OPEN)
                        continue;
                if (df_task_dirty(df_session_task(s->session)))
                        rc = commit_slot(w, p, &err);
                if (rc == 0 || df_err_action(rc) == DF_RETRY) {
                        s->state = KSLOT_PARKED;
                        continue;
                }
                fail_slot(w, p, "commit at revoke", &err);
                s->state = KSLOT_WAITING;
        }
        w->rejoin = false; /* it is on its way */
}

static void follow_lost(struct kworker *w)
{
        for (uint32_t p = 0; p < w->world->task_count; p++) {
                if (w->slots[p].state == KSLOT_AWAY)
                        continue;
                close_slot(&w->slots[p]);
                w->slots[p].state = KSLOT_WAITING;
        }
}

static int start(struct kworker *w, struct df_error *err)
{
        const struct kworld *k = w->world;
        const char *topics[KTASKS_MAX];
        size_t count = 0;
        int rc;

        if (w->log)
                return 0;
        for (uint32_t i = 0; i < k->task_count; i++)
                if (i == 0 || strcmp(k->tasks[i].source.stream, topics[count - 1]) != 0)
                        topics[count++] = k->tasks[i].source.stream;
        df_sim_restart(k->sim, w->process);
        say(w, "starts", 0, NULL);
        w->log = df_sim_kafka_log_open(k->sim, w->process);
        rc = df_sim_kafka_group_open(w->log, KGROUP, w->instance, &w->group, err);
        return rc < 0 ? rc : df_group_subscribe(w->group, topics, count, err);
}

static void follow(struct kworker *w)
{
        static const char *const names[] = {"none", "is assigned", "is revoked", "lost all"};
        struct df_group_event e;
        struct df_error err = {0};
        int rc = start(w, &err);

        if (rc == 0 && w->rejoin)
                df_group_rejoin(w->group);
        w->rejoin = false;
        if (rc == 0)
                rc = df_group_poll(w->group, 0, &e, &err);
        if (rc == DF_ECRASH)
                return;
        if (rc == DF_EFENCED) { /* the process ends, and its supervisor starts it again */
                say(w, "is fenced", 0, &err);
                w->world->counts->fenced++;
                (void)df_sim_crash(w->world->sim, w->process, NULL);
                return;
        }
        if (rc < 0)
                sim_fail(w->world->seed, "worker %u: group: %s", w->process, err.text);
        if (e.change == DF_GROUP_NONE)
                return;
        say(w, names[e.change], (uint32_t)e.count, NULL);
        if (e.change == DF_GROUP_ASSIGN)
                follow_assign(w, &e);
        else if (e.change == DF_GROUP_REVOKE)
                follow_revoke(w);
        else
                follow_lost(w);
        df_group_done(w->group);
}

/* ---- turns ---- */

static void work(struct kworker *w, uint32_t p)
{
        struct kworld *k = w->world;
        struct kslot *s = &w->slots[p];
        struct df_error err = {0};
        size_t n;

        if (s->state == KSLOT_CLOSED)
                open_slot(w, p);
        else if (s->state == KSLOT_OPEN && chance(k, 650))
                (void)poll_slot(w, p, 1 + pick(k, 6), &n);
        else if (s->state == KSLOT_OPEN && commit_slot(w, p, &err) < 0)
                handle(w, p, "commit", &err);
}

static void drain(struct kworker *w)
{
        follow_revoke(w);
        say(w, "stops", 0, NULL);
        end_process(w, (uint32_t)pick(w->world, 60));
}

static void turn(struct kworker *w)
{
        struct kworld *k = w->world;
        const uint64_t x = pick(k, 1000);

        if (w->busy || k->refused)
                return;
        if (!w->log && w->away > 0) {
                w->away--;
                return;
        }
        w->busy = true;
        follow(w);
        if (x < 8)
                (void)df_sim_crash(k->sim, w->process, NULL);
        else if (x < 14 && !df_sim_crashed(k->sim, w->process))
                drain(w);
        for (uint32_t i = 0; w->log && i < k->task_count; i++)
                if (!df_sim_crashed(k->sim, w->process) && chance(k, 700))
                        work(w, i);
        if (w->log && df_sim_crashed(k->sim, w->process)) {
                k->counts->crashes++;
                say(w, "has crashed", 0, NULL);
                end_process(w, chance(k, 300) ? (uint32_t)pick(k, 60) : 0);
                if (chance(k, 200))
                        lose_disk(w);
        }
        w->busy = false;
}

static void let_others_act(struct kworld *k, uint64_t turns, int64_t each_ms)
{
        k->depth++;
        for (uint64_t i = 0; i < turns; i++) {
                turn(&k->workers[pick(k, k->worker_count)]);
                df_sim_broker_advance(k->sim, df_sim_random_between(&k->random, 0, each_ms));
        }
        k->depth--;
}

/* Before a request of w, or between two steps of one of its sessions. */
static void interrupt(struct kworld *k, struct kworker *w, uint32_t zombie_permille)
{
        const uint64_t x = pick(k, 1000);

        if (k->calm || k->depth >= DEPTH_MAX)
                return;
        if (chance(k, zombie_permille)) {
                say(w, "stands still", 0, NULL);
                k->counts->zombies++;
                df_sim_pause(k->sim, w->process);
                let_others_act(k, 1 + pick(k, 40), 2500);
                df_sim_resume(k->sim, w->process);
                say(w, "goes on", 0, NULL);
        } else if (x < 30) {
                let_others_act(k, 1 + pick(k, 3), 300);
        } else if (x < 33) {
                (void)df_sim_crash(k->sim, w->process, NULL);
        } else if (x < 36 || (k->down && x < 130)) {
                k->down = !k->down;
                df_sim_broker_down(k->sim, k->down);
        }
}

static struct kworker *worker_of(struct kworld *k, uint32_t process)
{
        return process < k->worker_count ? &k->workers[process] : NULL;
}

static void on_request(void *arg, uint32_t process, const char *request)
{
        struct kworld *k = arg;
        struct kworker *w = worker_of(k, process);
        const bool decides = strncmp(request, "InitProducerId", 14) == 0 ||
                             strncmp(request, "TxnOffsetCommit", 15) == 0 ||
                             strncmp(request, "EndTxn", 6) == 0;

        if (w)
                interrupt(k, w, decides ? 50 : 5);
}

static int on_step(void *arg, const char *name, struct df_error *err)
{
        struct kworker *w = arg;
        struct kworld *k = w->world;

        interrupt(k, w, 5);
        if (df_sim_crashed(k->sim, w->process))
                return df_fail(err, DF_ECRASH, "process %u crashed", w->process);
        if (k->calm || k->step_countdown < 0 || k->step_countdown-- > 0)
                return 0;
        if (k->step_code == DF_ECRASH)
                return df_sim_crash(k->sim, w->process, err);
        return df_fail(err, k->step_code, "injected at step %s", name);
}

static void plan_fault(struct kworld *k)
{
        static const int codes[] = {DF_ECRASH, DF_ECRASH, DF_EIO, DF_ENOSPC};
        const struct df_sim_fault fault = {
                .countdown = (int64_t)pick(k, 60),
                .n = 1 + (uint32_t)pick(k, 2),
                .moment = (enum df_sim_moment)pick(k, 3),
        };

        if (chance(k, 400)) {
                k->step_countdown = (int64_t)pick(k, 30);
                k->step_code = codes[pick(k, 4)];
                return;
        }
        df_sim_fault_set(k->sim, (enum df_sim_fault_kind)pick(k, DF_SIM_FAULT_KINDS), fault);
}

/* K10: an operator gives up the checkpoints of a task, in the store too or not, and has its state
 * rebuilt from the log. Nobody is in the middle of a call. */
static void recover(struct kworld *k)
{
        const uint32_t task = (uint32_t)pick(k, k->task_count);
        const bool store_too = chance(k, 500);
        char of_task[DF_TOPIC_NAME_MAX + 16], dir[DF_TOPIC_NAME_MAX + 32];

        dir_of(k, task, of_task);
        for (uint32_t i = 0; i < k->worker_count; i++) {
                struct kslot *s = &k->workers[i].slots[task];

                close_slot(s);
                if (s->state == KSLOT_OPEN || s->state == KSLOT_PARKED)
                        s->state = s->state == KSLOT_OPEN ? KSLOT_CLOSED : KSLOT_WAITING;
                (void)snprintf(dir, sizeof(dir), "%s@%u", of_task, i);
                df_sim_ckpt_lose(k->sim, dir, true);
        }
        (void)snprintf(dir, sizeof(dir), "%s@store", of_task);
        if (store_too)
                df_sim_ckpt_lose(k->sim, dir, true);
        k->recover[task] = true;
        k->counts->recovered++;
        if (k->to)
                (void)fprintf(k->to, "  -- recover %s from log\n", of_task);
}

void kworld_act(struct kworld *k)
{
        if (chance(k, 60))
                plan_fault(k);
        if (chance(k, 3))
                recover(k);
        if (k->down && chance(k, 300)) {
                k->down = false;
                df_sim_broker_down(k->sim, false);
        }
        turn(&k->workers[pick(k, k->worker_count)]);
        df_sim_broker_advance(k->sim, df_sim_random_between(&k->random, 0, 600));
}

/* ---- begin and end ---- */

void kworld_open(struct kworld *k)
{
        static const uint32_t rates[] = {0, 5, 20, 60};
        const struct df_sim_net net = {
                .lose_request = rates[pick(k, 4)],
                .lose_answer = rates[pick(k, 4)],
                .duplicate = rates[pick(k, 4)],
                .delay = rates[pick(k, 4)],
                .markers = 100 * (uint32_t)pick(k, 6),
                .delay_max_ms = 1 + (int64_t)pick(k, chance(k, 300) ? DELAY_MAX_MS : 3000),
        };

        k->step_countdown = -1;
        k->worker_count = 2 + (uint32_t)pick(k, KWORKERS_MAX - 1);
        for (uint32_t i = 0; i < k->worker_count; i++) {
                k->workers[i] = (struct kworker){
                        .world = k, .process = i, .away = (uint32_t)(i ? pick(k, 40) : 0)};
                (void)snprintf(k->workers[i].instance, sizeof(k->workers[i].instance), "worker-%u",
                               i);
        }
        df_sim_net_set(k->sim, net);
        df_sim_net_hook(k->sim, on_request, k);
        df_sim_kafka_reckless(k->sim, k->reckless);
}

/* Nobody waits for anybody any more. */
static void heal(struct kworld *k)
{
        k->calm = true;
        k->down = false;
        df_sim_faults_clear(k->sim);
        df_sim_net_set(k->sim, (struct df_sim_net){0});
        df_sim_broker_down(k->sim, false);
        df_sim_broker_advance(k->sim, DELAY_MAX_MS); /* what is under way arrives */
        for (uint32_t i = 0; i < k->worker_count; i++)
                k->workers[i].away = 0;
}

static bool is_finished(const struct kworld *k, uint32_t task)
{
        for (uint32_t i = 0; i < k->worker_count; i++)
                if (k->workers[i].slots[task].finished)
                        return true;
        return false;
}

/* Those that write what this one reads have come to their end, and no transaction of an owner that
 * has lost hides it. */
static bool earlier_finished(const struct kworld *k, uint32_t task)
{
        if (!df_sim_kafka_settled(k->sim))
                return false;
        for (uint32_t i = 0; i < task; i++)
                if (strcmp(k->tasks[i].source.stream, k->tasks[task].source.stream) != 0 &&
                    !is_finished(k, i))
                        return false;
        return true;
}

static void finish_slot(struct kworker *w, uint32_t p)
{
        struct kslot *s = &w->slots[p];
        const bool earlier = earlier_finished(w->world, p);
        struct df_error err = {0};
        size_t n = 1;

        if (s->state == KSLOT_CLOSED)
                open_slot(w, p);
        while (s->state == KSLOT_OPEN && n > 0)
                if (!poll_slot(w, p, 1 + pick(w->world, 40), &n))
                        return;
        if (s->state != KSLOT_OPEN || df_session_lag(s->session) > 0)
                return;
        if (commit_slot(w, p, &err) < 0)
                handle(w, p, "commit", &err);
        else
                s->finished = earlier;
}

static bool all_finished(const struct kworld *k)
{
        for (uint32_t i = 0; i < k->task_count; i++)
                if (!is_finished(k, i))
                        return false;
        return true;
}

void kworld_finish(struct kworld *k)
{
        heal(k);
        for (uint32_t round = 0; !all_finished(k) && !k->refused; round++) {
                if (round > ROUNDS_MAX)
                        sim_fail(k->seed, "the workers do not come to the end");
                for (uint32_t i = 0; i < k->worker_count; i++) {
                        struct kworker *w = &k->workers[i];

                        follow(w);
                        for (uint32_t p = 0; p < k->task_count; p++)
                                finish_slot(w, p);
                        if (df_sim_crashed(k->sim, w->process))
                                end_process(w, 0);
                }
                df_sim_broker_advance(k->sim, 400);
        }
}

void kworld_close(struct kworld *k)
{
        k->calm = true;
        for (uint32_t i = 0; i < k->worker_count; i++)
                end_process(&k->workers[i], 0);
        k->counts->troubled += df_sim_net_troubled(k->sim);
}
