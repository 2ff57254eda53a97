/* test_http_wheel.c - the ring of deadlines: whatever the steps of time, a turn ends, nothing is
 * lost from the ring, and nothing stays in it beyond its place. */
#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "runtime/net/net_private.h"

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
}

static void init(struct dfi_loop *l, struct event_base *base)
{
        memset(l, 0, sizeof(*l));
        for (size_t i = 0; i < DFI_WHEEL_SLOTS; i++)
                LIST_INIT(&l->wheel[i]);
        l->tick_event = evtimer_new(base, on_tick, NULL);
        l->now_ms = 1000000;
}

/* A connection whose deadline is far away is placed again and again; when it is alone, the ring
 * begins anew under the turn that walks it. */
static void test_a_turn_ends_for_every_step(void **state)
{
        struct event_base *base = event_base_new();
        static struct dfi_loop l;
        static struct dfi_conn c[3];

        (void)alarm(60); /* a turn that does not end is the failure */
        for (int64_t step = 1; step < DFI_TICK_MS * (DFI_WHEEL_SLOTS + 3); step += 7) {
                init(&l, base);
                for (int n = 1; n <= 3; n++) {
                        memset(c, 0, sizeof(c));
                        for (int i = 0; i < n; i++) {
                                c[i].loop = &l;
                                c[i].deadline_ms = l.now_ms + 3600000000 + i;
                                dfi_wheel_place(&c[i]);
                        }
                        for (int turn = 0; turn < 50; turn++) {
                                l.now_ms += step;
                                dfi_wheel_turn(&l);
                                assert_int_equal(l.wheel_count, n);
                                for (int i = 0; i < n; i++)
                                        assert_true(c[i].placed_tick >= l.wheel_tick);
                        }
                        for (int i = 0; i < n; i++)
                                dfi_wheel_unplace(&c[i]);
                        assert_int_equal(l.wheel_count, 0);
                }
                event_free(l.tick_event);
        }
        (void)alarm(0);
        event_base_free(base);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_turn_ends_for_every_step)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
