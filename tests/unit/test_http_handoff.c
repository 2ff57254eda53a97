/* Two processes behind one listening socket: each answers its own paths, and connections go to and
 * fro between them (df/net.h); one may be restarted meanwhile, because the parent holds both ends
 * of the pair. */
#include "http_test.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static struct df_error err;
static int listen_fd, pair[2];
static uint16_t port;

static void reply_text(struct df_http_request *r, const char *who)
{
        struct df_buf b = {0};

        df_buf_printf(&b, "%s %d %.*s %.*s", who, (int)getpid(), (int)r->path.len,
                      (const char *)r->path.data, (int)r->body.len, (const char *)r->body.data);
        df_http_reply(r, &(struct df_http_reply){.status = 200,
                                                 .content_type = "text/plain",
                                                 .body = df_buf_bytes(&b)});
        df_buf_release(&b);
}

static void handle_write(void *arg, struct df_http_request *r)
{
        reply_text(r, "writer");
}

static void handle_read(void *arg, struct df_http_request *r)
{
        reply_text(r, "reader");
}

static const struct df_http_route writer_routes[] = {
        {"/write", DF_HTTP_POST, 1 << 20, NULL, handle_write},
};
static const struct df_http_route reader_routes[] = {
        {"/read", DF_HTTP_GET | DF_HTTP_POST, 1 << 20, NULL, handle_read},
};

static struct df_http_options options_of(int which)
{
        return (struct df_http_options){
                .name = which == 0 ? "writer" : "reader",
                .listen_fd = listen_fd,
                .peer_fd = pair[which],
                .threads = 2,
                .routes = which == 0 ? writer_routes : reader_routes,
                .route_count = 1,
        };
}

/* A child that serves until SIGTERM. It is ready when it has closed its end of a pipe. */
static pid_t spawn(int which)
{
        struct df_http_options o = options_of(which);
        struct df_http_server *s = NULL;
        sigset_t term;
        int ready[2], sig;
        char c;
        pid_t pid;

        assert_int_equal(pipe(ready), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid > 0) {
                close(ready[1]);
                assert_int_equal(read(ready[0], &c, 1), 0);
                close(ready[0]);
                return pid;
        }
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nobody behind */
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        (void)sigprocmask(SIG_BLOCK, &term, NULL);
        if (df_http_server_start(&o, &s, &err) != 0) {
                (void)fprintf(stderr, "%s\n", err.text);
                _exit(1);
        }
        close(ready[0]);
        close(ready[1]);
        (void)sigwait(&term, &sig);
        df_http_server_stop(s, 1000);
        _exit(0);
}

static void end(pid_t pid, int signal_number)
{
        int status;

        assert_int_equal(kill(pid, signal_number), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (signal_number == SIGTERM)
                assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define READ "GET /read HTTP/1.1\r\n" HOST "\r\n"
#define WRITE "POST /write HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"

static int begin(void **state)
{
        return df_http_listen("127.0.0.1:0", &listen_fd, &port, &err) != 0 ||
               df_http_pair(pair, &err) != 0;
}

static int finish(void **state)
{
        close(listen_fd);
        close(pair[0]);
        close(pair[1]);
        return 0;
}

/* One keep-alive connection, the two paths in turn. */
static void test_alternating(void **state)
{
        pid_t writer = spawn(0), reader = spawn(1);
        struct client c;
        char who[32];

        for (int n = 0; n < 5; n++) { /* whichever process accepts */
                client_open(&c, port);
                for (int i = 0; i < 50; i++) {
                        client_say(&c, WRITE);
                        (void)snprintf(who, sizeof(who), "writer %d /write hello", (int)writer);
                        client_expect(&c, 200, who);
                        client_say(&c, READ);
                        (void)snprintf(who, sizeof(who), "reader %d /read ", (int)reader);
                        client_expect(&c, 200, who);
                }
                /* Nobody has this path; it goes over once and no further. */
                client_say(&c, "GET /nothing HTTP/1.1\r\n" HOST "\r\n");
                client_expect(&c, 404, "not_found");
                client_say(&c, WRITE READ);
                client_expect(&c, 200, "writer");
                client_expect(&c, 200, "reader");
                client_close(&c);
        }
        end(writer, SIGTERM);
        end(reader, SIGTERM);
}

/* Pipelined requests and bodies cut anywhere go with the connection. */
static void test_bytes_go_along(void **state)
{
        static char text[1 << 17];
        pid_t writer = spawn(0), reader = spawn(1);
        struct client c;
        size_t n = 0;

        for (int i = 0; i < 20; i++)
                n += (size_t)snprintf(text + n, sizeof(text) - n,
                                      "POST /%s HTTP/1.1\r\n" HOST
                                      "Transfer-Encoding: chunked\r\n\r\n3\r\n<%02d\r\n0\r\n\r\n",
                                      i % 3 ? "write" : "read", i);
        n += (size_t)snprintf(text + n, sizeof(text) - n,
                              "POST /read HTTP/1.1\r\n" HOST "Content-Length: 50000\r\n\r\n");
        memset(text + n, 'x', 50000);
        n += 50000;
        for (size_t step = 7; step < 2 * n; step *= 9) {
                client_open(&c, port);
                for (size_t at = 0; at < n; at += step)
                        client_send(&c, text + at, n - at < step ? n - at : step);
                for (int i = 0; i < 20; i++) {
                        char part[16];

                        (void)snprintf(part, sizeof(part), " <%02d", i);
                        client_expect(&c, 200, part);
                }
                client_expect(&c, 200, "xxxxxxxxxx");
                client_close(&c);
        }
        end(writer, SIGTERM);
        end(reader, SIGTERM);
}

#define WAITING 40

/* Requests for a process that is being restarted wait in the pair, and it answers them; the other
 * process's are not disturbed. */
static void test_restart(void **state)
{
        pid_t writer = spawn(0), reader = spawn(1);
        struct client c[WAITING], other;
        char who[32];

        for (int how = 0; how < 2; how++) {
                end(reader, how ? SIGTERM : SIGKILL);
                client_open(&other, port);
                for (int i = 0; i < WAITING; i++) {
                        client_open(&c[i], port);
                        client_say(&c[i], READ);
                        client_say(&other, WRITE);
                        client_expect(&other, 200, "writer");
                }
                assert_int_equal(client_more(&c[0], 50), -1);
                reader = spawn(1);
                (void)snprintf(who, sizeof(who), "reader %d ", (int)reader);
                for (int i = 0; i < WAITING; i++) {
                        client_expect(&c[i], 200, who);
                        client_say(&c[i], WRITE READ);
                        client_expect(&c[i], 200, "writer");
                        client_expect(&c[i], 200, who);
                        client_close(&c[i]);
                }
                client_close(&other);
        }
        end(writer, SIGTERM);
        end(reader, SIGTERM);
}

#define MANY 200

/* What the pair does not take is refused and may be tried again; the rest waits and is answered. */
static void test_pair_full(void **state)
{
        pid_t writer = spawn(0), reader;
        static struct client c[MANY];
        int refused = 0, small = 4096, before;
        socklen_t len = sizeof(before);

        assert_int_equal(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &before, &len), 0);
        assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        for (int i = 0; i < MANY; i++) {
                client_open(&c[i], port);
                client_say(&c[i], READ);
        }
        for (int64_t until = now_ms() + WAIT_MS; !refused && now_ms() < until;)
                for (int i = 0; i < MANY && !refused; i++)
                        refused = client_more(&c[i], 1) == 1;
        assert_true(refused);
        refused = 0;
        reader = spawn(1);
        for (int i = 0; i < MANY; i++) {
                struct answer a;

                assert_true(client_answer(&c[i], &a, true));
                if (a.status == 503) {
                        assert_non_null(strstr(a.body, "\"retryable\":true"));
                        refused++;
                } else {
                        assert_int_equal(a.status, 200);
                        assert_int_equal(strncmp(a.body, "reader", 6), 0);
                }
                free(a.body);
                client_close(&c[i]);
        }
        assert_true(refused < MANY);
        end(writer, SIGTERM);
        end(reader, SIGTERM);
        before /= 2; /* the kernel doubles what it is told */
        assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &before, sizeof(before)), 0);
}

/* Without a peer an unknown path is 404; with a peer that is gone for good it is 503. */
static void test_no_peer(void **state)
{
        struct df_http_options o = options_of(0);
        struct df_http_server *s = NULL;
        struct client c;
        uint16_t own;
        int fd, fds[2];

        for (int gone = 0; gone < 2; gone++) {
                assert_int_equal(df_http_listen("127.0.0.1:0", &fd, &own, &err), 0);
                assert_int_equal(df_http_pair(fds, &err), 0);
                o.listen_fd = fd;
                o.peer_fd = gone ? fds[0] : -1;
                assert_int_equal(df_http_server_start(&o, &s, &err), 0);
                assert_int_equal(df_http_server_port(s), own);
                close(fds[1]);
                client_open(&c, own);
                client_say(&c, READ);
                client_expect(&c, gone ? 503 : 404, gone ? "\"retryable\":true" : "not_found");
                client_close(&c);
                df_http_server_stop(s, 1000);
                close(fds[0]);
        }
}

/* Garbage in the pair harms nobody, and a descriptor that came with it is closed. */
static void test_foreign_message(void **state)
{
        struct df_http_options o = options_of(1);
        struct df_http_server *s = NULL;
        struct client c;
        uint16_t own;
        int fd, fds[2], pipe_fds[2];
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {.space = {0}};
        struct iovec iov = {(void *)"garbage", 7};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control.space)};
        struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);

        assert_int_equal(df_http_listen("127.0.0.1:0", &fd, &own, &err), 0);
        assert_int_equal(df_http_pair(fds, &err), 0);
        assert_int_equal(pipe(pipe_fds), 0);
        o.listen_fd = fd;
        o.peer_fd = fds[0];
        assert_int_equal(df_http_server_start(&o, &s, &err), 0);
        assert_int_equal(send(fds[1], "x", 1, 0), 1);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &pipe_fds[1], sizeof(int));
        assert_int_equal(sendmsg(fds[1], &msg, 0), 7);
        close(pipe_fds[1]);
        assert_int_equal(read(pipe_fds[0], &own, 1), 0); /* the server closed its copy */
        client_open(&c, df_http_server_port(s));
        client_say(&c, READ);
        client_expect(&c, 200, "reader");
        client_close(&c);
        df_http_server_stop(s, 1000);
        close(pipe_fds[0]);
        close(fds[0]);
        close(fds[1]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_alternating), cmocka_unit_test(test_bytes_go_along),
                cmocka_unit_test(test_restart),     cmocka_unit_test(test_pair_full),
                cmocka_unit_test(test_no_peer),     cmocka_unit_test(test_foreign_message),
        };

        return cmocka_run_group_tests(tests, begin, finish);
}
