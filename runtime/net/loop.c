/* loop.c - an event loop thread: its events, the queue of answers from other threads, its end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "net_private.h"

static _Thread_local const struct dfi_loop *current;

int64_t dfi_now_ms(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void dfi_loop_time(struct dfi_loop *l)
{
        struct timespec t;

        l->now_ms = dfi_now_ms();
        (void)clock_gettime(CLOCK_REALTIME, &t);
        l->wall_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool dfi_loop_is_mine(const struct dfi_loop *l)
{
        return current == l;
}

void dfi_loop_pause_accept(struct dfi_loop *l)
{
        const struct timeval tick = {.tv_usec = DFI_TICK_MS * 1000};

        (void)event_del(l->listen_event);
        l->accept_paused = true;
        (void)evtimer_add(l->tick_event, &tick);
}

/* ---- the end ---- */

/* Without an event to wait for the loop returns. */
static void check_end(struct dfi_loop *l)
{
        struct dfi_conn *c;
        bool over = LIST_EMPTY(&l->conns) && l->pending == 0;

        if (!over && l->now_ms < atomic_load(&l->drain_until_ms))
                return;
        while ((c = LIST_FIRST(&l->conns)))
                dfi_conn_destroy(c);
        (void)event_del(l->wake_event);
        (void)event_del(l->tick_event);
}

static void begin_drain(struct dfi_loop *l)
{
        struct dfi_conn *c, *next;

        l->draining = true;
        (void)event_del(l->listen_event);
        if (l->peer_event)
                (void)event_del(l->peer_event);
        for (c = LIST_FIRST(&l->conns); c; c = next) {
                next = LIST_NEXT(c, all);
                if (dfi_conn_idle(c))
                        dfi_conn_destroy(c);
        }
}

static void wake(struct dfi_loop *l)
{
        static const uint64_t one = 1;

        (void)!write(l->wake_fd, &one, sizeof(one)); /* cannot fail but by being awake already */
}

void dfi_loop_stop(struct dfi_loop *l, int64_t until_ms)
{
        atomic_store(&l->drain_until_ms, until_ms);
        wake(l);
}

/* ---- answers from other threads ---- */

void dfi_loop_answered(struct dfi_request *r)
{
        struct dfi_loop *l = r->loop;
        bool first, last = false;

        pthread_mutex_lock(&l->lock);
        if (l->closed) {
                last = --l->orphans == 0;
                pthread_mutex_unlock(&l->lock);
                dfi_request_free(r);
                if (last) {
                        pthread_mutex_destroy(&l->lock);
                        free(l);
                }
                return;
        }
        first = STAILQ_EMPTY(&l->answered);
        STAILQ_INSERT_TAIL(&l->answered, r, link);
        if (first) /* under the lock: the loop cannot end in between and close wake_fd */
                wake(l);
        pthread_mutex_unlock(&l->lock);
}

static void take_answers(struct dfi_loop *l)
{
        struct dfi_requests list = STAILQ_HEAD_INITIALIZER(list);
        struct dfi_request *r;

        pthread_mutex_lock(&l->lock);
        STAILQ_CONCAT(&list, &l->answered);
        pthread_mutex_unlock(&l->lock);
        while ((r = STAILQ_FIRST(&list))) {
                STAILQ_REMOVE_HEAD(&list, link);
                if (r->conn) {
                        dfi_conn_answer(r->conn, r);
                } else {
                        l->pending--;
                        dfi_request_recycle(r);
                }
        }
}

/* ---- events ---- */

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
        struct dfi_loop *l = arg;
        uint64_t n;

        (void)!read(fd, &n, sizeof(n)); /* cannot fail but by being empty */
        dfi_loop_time(l);
        take_answers(l);
        if (atomic_load(&l->drain_until_ms) != 0) {
                if (!l->draining)
                        begin_drain(l);
                dfi_wheel_turn(l);
                check_end(l);
        }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
        struct dfi_loop *l = arg;

        dfi_loop_time(l);
        if (l->accept_paused && !l->draining) {
                l->accept_paused = false;
                (void)event_add(l->listen_event, NULL);
        }
        dfi_wheel_turn(l);
        if (l->draining)
                check_end(l);
}

static void on_listen(evutil_socket_t fd, short what, void *arg)
{
        dfi_accept(arg);
}

static void on_peer(evutil_socket_t fd, short what, void *arg)
{
        dfi_handoff_receive(arg);
}

static void *loop_main(void *arg)
{
        struct dfi_loop *l = arg;

        current = l;
        (void)event_base_dispatch(l->base);
        return NULL;
}

/* ---- life ---- */

static int create_events(struct dfi_loop *l, struct df_error *err)
{
        const struct df_http_options *o = &l->server->o;
        struct event_config *config = event_config_new();

        if (config) {
                (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
                l->base = event_base_new_with_config(config);
                event_config_free(config);
        }
        if (!l->base)
                return df_fail_errno(err, DF_ENOMEM, "an event loop");
        l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (l->wake_fd < 0)
                return df_fail_errno(err, DF_EIO, "eventfd");
        l->listen_event = event_new(l->base, o->listen_fd, EV_READ | EV_PERSIST, on_listen, l);
        l->wake_event = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
        l->tick_event = evtimer_new(l->base, on_tick, l);
        if (o->peer_fd >= 0)
                l->peer_event = event_new(l->base, o->peer_fd, EV_READ | EV_PERSIST, on_peer, l);
        if (!l->listen_event || !l->wake_event || !l->tick_event ||
            (o->peer_fd >= 0 && !l->peer_event))
                return df_fail(err, DF_ENOMEM, "an event");
        if (event_add(l->listen_event, NULL) < 0 || event_add(l->wake_event, NULL) < 0 ||
            (l->peer_event && event_add(l->peer_event, NULL) < 0))
                return df_fail_errno(err, DF_EIO,
                                     "watch the listening socket (%d) and the peer's (%d)",
                                     o->listen_fd, o->peer_fd);
        return 0;
}

int dfi_loop_create(struct df_http_server *s, struct dfi_loop **ret, struct df_error *err)
{
        struct dfi_loop *l = calloc(1, sizeof(*l));
        int rc;

        if (!l)
                return df_fail(err, DF_ENOMEM, "an event loop");
        l->server = s;
        l->wake_fd = -1;
        pthread_mutex_init(&l->lock, NULL);
        STAILQ_INIT(&l->answered);
        STAILQ_INIT(&l->spare);
        LIST_INIT(&l->conns);
        dfi_loop_time(l);
        rc = create_events(l, err);
        if (rc < 0) {
                dfi_loop_destroy(l);
                return rc;
        }
        *ret = l;
        return 0;
}

int dfi_loop_start(struct dfi_loop *l, uint32_t index, struct df_error *err)
{
        sigset_t all, old;
        char name[16];
        int rc;

        /* Signals are for the main thread; a broken pipe is an error code here. */
        sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = pthread_create(&l->thread, NULL, loop_main, l);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (rc != 0)
                return df_fail(err, DF_EAGAIN, "start event loop thread %u: %s", index + 1,
                               strerror(rc));
        l->started = true;
        (void)snprintf(name, sizeof(name), "http-%u", index % 1000);
        (void)pthread_setname_np(l->thread, name);
        return 0;
}

static void free_requests(struct dfi_requests *list)
{
        struct dfi_request *r;

        while ((r = STAILQ_FIRST(list))) {
                STAILQ_REMOVE_HEAD(list, link);
                dfi_request_free(r);
        }
}

static void free_event(struct event *e)
{
        if (e)
                event_free(e);
}

void dfi_loop_destroy(struct dfi_loop *l)
{
        struct dfi_request *r;
        bool last;

        if (!l)
                return;
        if (l->started)
                (void)pthread_join(l->thread, NULL);
        free_event(l->listen_event);
        free_event(l->wake_event);
        free_event(l->tick_event);
        free_event(l->peer_event);
        if (l->base)
                event_base_free(l->base);
        free_requests(&l->spare);
        df_buf_release(&l->out);
        pthread_mutex_lock(&l->lock);
        l->closed = true;
        STAILQ_FOREACH(r, &l->answered, link)
        l->pending--;
        free_requests(&l->answered);
        l->orphans = l->pending;
        last = l->orphans == 0;
        if (l->wake_fd >= 0)
                close(l->wake_fd);
        pthread_mutex_unlock(&l->lock);
        if (last) {
                pthread_mutex_destroy(&l->lock);
                free(l);
        }
}
