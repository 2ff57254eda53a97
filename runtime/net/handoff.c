/* handoff.c - connections change the process: descriptor and unread bytes in one datagram.
 *
 * The bytes are all that this process has read of the connection and not answered; the receiver
 * goes on as if it had read them. A datagram is taken whole or not at all, and it waits in the
 * socket pair, which the parent holds, while the receiver restarts.
 */
#include <errno.h>
#include <unistd.h>

#include "net_private.h"

#define MAGIC 0x48464431u /* "1DFH": another layout gets another number */
#define RECEIVE_TURN 64
#define PAIR_BUFFER_BYTES 1048576 /* the kernel may cap it; each way */

struct message {
        uint32_t magic;
        uint32_t len;      /* bytes that follow */
        uint64_t requests; /* answered on this connection */
};

union control {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
};

int df_http_pair(int ret_fds[2], struct df_error *err)
{
        int fds[2], size = PAIR_BUFFER_BYTES;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return df_fail_errno(err, DF_EIO, "a socket pair");
        for (int i = 0; i < 2; i++)
                (void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* a wish */
        memcpy(ret_fds, fds, sizeof(fds));
        return 0;
}

bool dfi_handoff_send(struct dfi_conn *c)
{
        struct message m = {.magic = MAGIC, .len = (uint32_t)c->in.len, .requests = c->requests};
        struct iovec iov[2] = {{&m, sizeof(m)}, {(void *)(uintptr_t)c->in.data, c->in.len}};
        union control control = {.space = {0}};
        struct msghdr msg = {.msg_iov = iov,
                             .msg_iovlen = 2,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control.space)};
        struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
        ssize_t n;

        df_check(c->in.len <= DFI_INPUT_MAX);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &c->fd, sizeof(int));
        (void)dfi_conn_watch(c, false); /* from now on the receiver reads */
        do
                n = sendmsg(c->loop->server->o.peer_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n >= 0; /* else it is watched again at the end of the run */
}

/* The descriptor that came along, or -1. */
static int received_fd(struct msghdr *msg)
{
        struct cmsghdr *cm = CMSG_FIRSTHDR(msg);
        int fd = -1;

        if (cm && cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS &&
            cm->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
        return fd;
}

static void go_on(struct dfi_loop *l, int fd, const struct message *m, const uint8_t *data)
{
        struct dfi_conn *c = dfi_welcome(l, fd);

        if (!c)
                return;
        dfi_count(&l->stats.handed_in);
        c->handed = true;
        c->requests = m->requests;
        if (!dfi_conn_keep(c, df_bytes(data, m->len))) {
                dfi_conn_destroy(c);
                return;
        }
        dfi_conn_run(c);
}

void dfi_handoff_receive(struct dfi_loop *l)
{
        dfi_loop_time(l);
        for (int i = 0; i < RECEIVE_TURN; i++) {
                struct message m;
                uint8_t data[DFI_INPUT_MAX];
                struct iovec iov[2] = {{&m, sizeof(m)}, {data, sizeof(data)}};
                union control control;
                struct msghdr msg = {.msg_iov = iov,
                                     .msg_iovlen = 2,
                                     .msg_control = &control,
                                     .msg_controllen = sizeof(control.space)};
                ssize_t n = recvmsg(l->server->o.peer_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                int fd = n >= 0 ? received_fd(&msg) : -1;

                if (n == 0 && fd < 0) /* all other ends are closed: nothing can come any more */
                        (void)event_del(l->peer_event);
                if (n <= 0 && fd < 0 && (n == 0 || errno != EINTR))
                        return;
                if (fd < 0)
                        continue;
                if (n < (ssize_t)sizeof(m) || m.magic != MAGIC || (msg.msg_flags & MSG_TRUNC) ||
                    (size_t)n != sizeof(m) + m.len)
                        close(fd);
                else
                        go_on(l, fd, &m, data);
        }
}
