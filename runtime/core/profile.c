/* profile.c - where the time goes (df/profile.h). One pointer says what the time is charged to; who
 * calls the next operator points it there and back. */
#include "core_private.h"

static struct df_profile_line *line_of(struct df_profile *p, const char *name, bool step)
{
        struct df_profile_line *l;

        for (size_t i = 0; i < p->count; i++)
                if (p->lines[i].step == step && strcmp(p->lines[i].name, name) == 0)
                        return &p->lines[i];
        if (p->count == DF_PROFILE_MAX)
                return NULL;
        l = &p->lines[p->count++];
        *l = (struct df_profile_line){.name = name, .step = step};
        return l;
}

void df_profile_add(struct df_profile *sum, const struct df_profile *v)
{
        for (size_t i = 0; i < v->count; i++) {
                const struct df_profile_line *from = &v->lines[i];
                struct df_profile_line *to = line_of(sum, from->name, from->step);

                if (!to)
                        continue;
                to->calls += from->calls;
                to->items += from->items;
                to->process_ns += from->process_ns;
                to->cut_ns += from->cut_ns;
        }
}

uint64_t *dfi_charge(struct dfi_meter *m, uint64_t *to)
{
        uint64_t *before = m->charged, now;

        m->charged = to;
        if (!m->ticks_ns || m->weight == 0)
                return before;
        now = m->ticks_ns();
        if (before)
                *before += (now - m->since_ns) * m->weight;
        m->since_ns = now;
        return before;
}

void dfi_charge_step(struct dfi_meter *m, struct df_profile *p, const char *name)
{
        struct df_profile_line *l = name ? line_of(p, name, true) : NULL;

        if (l)
                l->calls++;
        (void)dfi_charge(m, l ? &l->process_ns : NULL);
}
