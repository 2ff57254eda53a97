/* wheel.c - deadlines: a ring of lists, one a tick.
 *
 * A connection is moved only when its deadline comes earlier than its place; one that moved on is
 * found out when its slot comes up. So a busy connection costs nothing, a silent one a look every
 * turn of the wheel.
 */
#include "net_private.h"

static int64_t tick_of(int64_t ms)
{
        return ms / DFI_TICK_MS;
}

static void arm(struct dfi_loop *l)
{
        const struct timeval tick = {.tv_usec = DFI_TICK_MS * 1000};

        if (!evtimer_pending(l->tick_event, NULL))
                (void)evtimer_add(l->tick_event, &tick); /* fails only without memory: next time */
}

void dfi_wheel_place(struct dfi_conn *c)
{
        struct dfi_loop *l = c->loop;
        int64_t tick = c->deadline_ms == INT64_MAX ? INT64_MAX : tick_of(c->deadline_ms);
        int64_t last = l->wheel_tick + DFI_WHEEL_SLOTS - 2;

        if (tick == INT64_MAX || (c->placed_tick && c->placed_tick <= tick))
                return;
        dfi_wheel_unplace(c);
        if (l->wheel_count == 0) {
                l->wheel_tick = tick_of(l->now_ms);
                last = l->wheel_tick + DFI_WHEEL_SLOTS - 2;
        }
        if (tick > last)
                tick = last;
        if (tick < l->wheel_tick)
                tick = l->wheel_tick;
        c->placed_tick = tick;
        LIST_INSERT_HEAD(&l->wheel[tick % DFI_WHEEL_SLOTS], c, wheel);
        l->wheel_count++;
        arm(l);
}

void dfi_wheel_unplace(struct dfi_conn *c)
{
        if (!c->placed_tick)
                return;
        LIST_REMOVE(c, wheel);
        c->placed_tick = 0;
        c->loop->wheel_count--;
}

static void take_slot(struct dfi_conns *slot, struct dfi_conns *to)
{
        to->lh_first = slot->lh_first;
        if (to->lh_first)
                to->lh_first->wheel.le_prev = &to->lh_first;
        LIST_INIT(slot);
}

void dfi_wheel_turn(struct dfi_loop *l)
{
        int64_t now = tick_of(l->now_ms);

        if (now - l->wheel_tick > DFI_WHEEL_SLOTS) /* the loop was stuck: one full turn does */
                l->wheel_tick = now - DFI_WHEEL_SLOTS;
        while (l->wheel_count > 0 && l->wheel_tick < now) {
                struct dfi_conns due = LIST_HEAD_INITIALIZER(due);
                struct dfi_conn *c;

                /* Taken off first: when the last one is placed again, the wheel begins anew at this
                 * tick, and its furthest slot may be the very one that is looked at. */
                take_slot(&l->wheel[l->wheel_tick++ % DFI_WHEEL_SLOTS], &due);
                while ((c = LIST_FIRST(&due))) {
                        dfi_wheel_unplace(c);
                        if (c->deadline_ms <= l->now_ms)
                                dfi_conn_expired(c);
                        else
                                dfi_wheel_place(c);
                }
        }
        if (l->wheel_count > 0 || l->draining || l->accept_paused)
                arm(l);
}
