/* sim.c - the world: processes, the fault plan, memory. */
#include "broker_private.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const moment_names[] = {"before", "midway", "after"};

void *dfi_sim_alloc(size_t size)
{
        void *p = calloc(1, size ? size : 1);

        df_check(p != NULL);
        return p;
}

void *dfi_sim_grow(void *p, size_t count, size_t *cap, size_t size)
{
        if (count < *cap)
                return p;
        *cap = *cap ? *cap * 2 : 8;
        p = realloc(p, *cap * size);
        df_check(p != NULL);
        return p;
}

uint8_t *dfi_sim_copy(struct df_bytes b)
{
        uint8_t *p = dfi_sim_alloc(b.len);

        if (b.len)
                memcpy(p, b.data, b.len);
        return p;
}

void dfi_sim_free(void *p, size_t size)
{
        if (!p)
                return;
        memset(p, DFI_SIM_POISON, size);
        __asm__ volatile("" : : "r"(p) : "memory"); /* the compiler must not drop the poison */
        free(p);
}

struct df_sim *df_sim_create(uint64_t seed)
{
        struct df_sim *sim = dfi_sim_alloc(sizeof(*sim));

        df_sim_random_init(&sim->random, seed);
        df_sim_faults_clear(sim);
        return sim;
}

void df_sim_destroy(struct df_sim *sim)
{
        if (!sim)
                return;
        df_check(sim->handles == 0);
        dfi_broker_free(sim->broker);
        for (size_t i = 0; i < sim->topic_count; i++)
                dfi_sim_topic_free(sim->topics[i]);
        for (size_t i = 0; i < sim->dir_count; i++)
                dfi_sim_dir_free(sim->dirs[i]);
        free(sim->topics);
        free(sim->dirs);
        dfi_sim_free(sim, sizeof(*sim));
}

void df_sim_set_now_ms(struct df_sim *sim, int64_t now_ms)
{
        sim->now_ms = now_ms;
}

void df_sim_set_trace(struct df_sim *sim, void (*fn)(void *arg, const char *line), void *arg)
{
        sim->trace = fn;
        sim->trace_arg = arg;
}

void df_sim_fault_set(struct df_sim *sim, enum df_sim_fault_kind kind, struct df_sim_fault fault)
{
        df_check(kind < DF_SIM_FAULT_KINDS);
        sim->faults[kind] = fault;
}

void df_sim_faults_pause(struct df_sim *sim, bool paused)
{
        sim->net_paused = paused;
        for (size_t i = 0; i < DF_SIM_FAULT_KINDS; i++)
                sim->faults[i].paused = paused;
}

void df_sim_faults_clear(struct df_sim *sim)
{
        sim->net_paused = false;
        for (size_t i = 0; i < DF_SIM_FAULT_KINDS; i++)
                sim->faults[i] = (struct df_sim_fault){.countdown = -1};
}

uint64_t df_sim_calls(const struct df_sim *sim)
{
        return sim->calls;
}

uint64_t df_sim_struck(const struct df_sim *sim, enum df_sim_fault_kind kind)
{
        df_check(kind < DF_SIM_FAULT_KINDS);
        return sim->struck[kind];
}

static struct dfi_sim_process *process_of(struct df_sim *sim, uint32_t process)
{
        df_check(process < DF_SIM_PROCESSES_MAX);
        return &sim->processes[process];
}

int df_sim_crash(struct df_sim *sim, uint32_t process, struct df_error *err)
{
        process_of(sim, process)->crashed = true;
        return df_fail(err, DF_ECRASH, "process %u crashed", process);
}

bool df_sim_crashed(const struct df_sim *sim, uint32_t process)
{
        df_check(process < DF_SIM_PROCESSES_MAX);
        return sim->processes[process].crashed;
}

void df_sim_restart(struct df_sim *sim, uint32_t process)
{
        struct dfi_sim_process *p = process_of(sim, process);

        p->crashed = p->paused = false;
        p->life++;
}

struct dfi_sim_at dfi_sim_here(struct df_sim *sim, uint32_t process)
{
        struct dfi_sim_at at = {.sim = sim, .process = process};

        if (sim)
                at.life = process_of(sim, process)->life;
        return at;
}

bool dfi_sim_alive(const struct dfi_sim_at *at)
{
        const struct dfi_sim_process *p;

        if (!at->sim)
                return true;
        p = &at->sim->processes[at->process];
        return !p->crashed && p->life == at->life;
}

static int code_of(enum df_sim_fault_kind kind)
{
        static const int codes[DF_SIM_FAULT_KINDS] = {
                [DF_SIM_CRASH] = DF_ECRASH, [DF_SIM_EIO] = DF_EIO, [DF_SIM_ENOSPC] = DF_ENOSPC};

        return codes[kind];
}

/* Every kind counts each call; the first kind that strikes wins. */
static void draw(struct df_sim *sim, bool writes, struct dfi_sim_strike *s)
{
        for (size_t i = 0; i < DF_SIM_FAULT_KINDS; i++) {
                struct df_sim_fault *f = &sim->faults[i];

                if (f->paused || f->countdown < 0 ||
                    (!writes && (f->writes_only || i == DF_SIM_ENOSPC)))
                        continue;
                if (f->countdown > 0) {
                        f->countdown--;
                        continue;
                }
                if (f->n == 0 || s->code != 0)
                        continue;
                if (--f->n == 0)
                        f->countdown = -1;
                sim->struck[i]++;
                s->code = code_of((enum df_sim_fault_kind)i);
                s->moment = f->moment;
        }
}

static void trace(const struct dfi_sim_at *at, const struct dfi_sim_strike *s)
{
        struct df_sim *sim = at->sim;
        char line[256];
        int n;

        if (!sim->trace)
                return;
        n = snprintf(line, sizeof(line), "p%u %s", at->process, s->what);
        if (s->code && n > 0 && (size_t)n < sizeof(line))
                (void)snprintf(line + n, sizeof(line) - (size_t)n, " -> %s %s",
                               s->code == DF_ECRASH ? "crash" : df_err_code(s->code),
                               moment_names[s->moment]);
        sim->trace(sim->trace_arg, line);
}

static int strike(const struct dfi_sim_at *at, const struct dfi_sim_strike *s, struct df_error *err)
{
        if (s->code == DF_ECRASH)
                process_of(at->sim, at->process)->crashed = true;
        return df_fail(err, s->code, "injected %s its effect: %s", moment_names[s->moment],
                       s->what);
}

int dfi_sim_enter(const struct dfi_sim_at *at, bool writes, struct dfi_sim_strike *ret,
                  struct df_error *err, const char *fmt, ...)
{
        va_list args;

        *ret = (struct dfi_sim_strike){0};
        if (!at->sim)
                return 0;
        if (!dfi_sim_alive(at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", at->process);
        va_start(args, fmt);
        (void)vsnprintf(ret->what, sizeof(ret->what), fmt, args);
        va_end(args);
        at->sim->calls++;
        draw(at->sim, writes, ret);
        trace(at, ret);
        if (ret->code && ret->moment == DF_SIM_BEFORE)
                return strike(at, ret, err);
        return 0;
}

int dfi_sim_leave(const struct dfi_sim_at *at, const struct dfi_sim_strike *s, struct df_error *err)
{
        return s->code ? strike(at, s, err) : 0;
}
