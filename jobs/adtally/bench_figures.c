/* bench_figures.c - figures from elsewhere: of the broker's process, and what a job says of itself.
 * What is not there is left out. */
#include <ctype.h>
#include <dirent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "jobs/adtally/bench.h"

#define TCP_FILE_MAX (16u << 20)
#define TCP_LISTEN 0x0a
#define LINK_MAX_BYTES 1024

/* ---- the broker ---- */

/* An address that a socket can be bound to is this machine's. */
static bool is_here(const char *host)
{
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
        struct addrinfo *list = NULL;
        bool here = false;

        if (getaddrinfo(host, NULL, &hints, &list) != 0)
                return false;
        for (const struct addrinfo *a = list; a && !here; a = a->ai_next) {
                int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

                here = fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0;
                if (fd >= 0)
                        close(fd);
        }
        freeaddrinfo(list);
        return here;
}

/* The inode of the socket that listens at this port; 0: none. */
static unsigned long listening_inode(const char *file, unsigned port)
{
        struct df_buf b = {0};
        unsigned long inode = 0;

        if (df_read_file(file, TCP_FILE_MAX, &b, NULL) < 0)
                return 0;
        df_put_u8(&b, 0);
        for (const char *p = b.failed ? NULL : strchr((const char *)b.data, '\n'); p && !inode;
             p = strchr(p + 1, '\n')) {
                unsigned at, state;
                unsigned long found;

                if (sscanf(p, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*u %*d %lu", &at,
                           &state, &found) == 3 &&
                    at == port && state == TCP_LISTEN)
                        inode = found;
        }
        df_buf_release(&b);
        return inode;
}

/* What a descriptor of the process leads to and holds `part`: into ret, of LINK_MAX_BYTES. */
static bool find_link(int pid, const char *part, char *ret)
{
        char dir[64], path[340];
        struct dirent *e;
        bool found = false;
        DIR *d;

        (void)snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
        d = opendir(dir);
        while (d && !found && (e = readdir(d))) {
                ssize_t n;

                (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
                n = readlink(path, ret, LINK_MAX_BYTES - 1);
                ret[n > 0 ? n : 0] = '\0';
                found = strstr(ret, part) != NULL;
        }
        if (d)
                closedir(d);
        return found;
}

static int holder_of(unsigned long inode)
{
        DIR *d = inode ? opendir("/proc") : NULL;
        char want[48], link[LINK_MAX_BYTES];
        struct dirent *e;
        int pid = 0;

        (void)snprintf(want, sizeof(want), "socket:[%lu]", inode);
        while (d && !pid && (e = readdir(d)))
                if (isdigit((unsigned char)e->d_name[0]) &&
                    find_link((int)strtol(e->d_name, NULL, 10), want, link))
                        pid = (int)strtol(e->d_name, NULL, 10);
        if (d)
                closedir(d);
        return pid;
}

int ad_bench_broker(const struct ad_bench *b)
{
        const char *where = df_config_text(b->config, "log");
        const char *first = where ? where + strlen("kafka:") : "";
        size_t len = strcspn(first, ",");
        char host[256], *colon;
        unsigned long inode;
        unsigned port;

        if (!ad_bench_on_kafka(b) || len >= sizeof(host))
                return 0;
        (void)snprintf(host, sizeof(host), "%.*s", (int)len, first);
        colon = strrchr(host, ':');
        if (!colon)
                return 0;
        *colon = '\0';
        port = (unsigned)strtoul(colon + 1, NULL, 10);
        if (!is_here(host))
                return 0;
        inode = listening_inode("/proc/net/tcp", port);
        return holder_of(inode ? inode : listening_inode("/proc/net/tcp6", port));
}

/* Java keeps the jars open that it runs. */
void ad_bench_broker_version(int pid, char ret[AD_BENCH_VERSION_MAX])
{
        static const char jar[] = "/kafka-clients-", end[] = ".jar";
        char link[LINK_MAX_BYTES];
        const char *version, *last;

        ret[0] = '\0';
        if (pid <= 0 || !find_link(pid, jar, link))
                return;
        version = strstr(link, jar) + strlen(jar);
        last = strstr(version, end);
        if (last)
                (void)snprintf(ret, AD_BENCH_VERSION_MAX, "%.*s", (int)(last - version), version);
}

void ad_bench_broker_figures(struct ad_bench *b, uint64_t events, int pid,
                             const struct ad_bench_usage *before,
                             const struct ad_bench_usage *after)
{
        int64_t ns = after->user_ns + after->kernel_ns - before->user_ns - before->kernel_ns;

        if (pid > 0)
                ad_bench_figure(b, "broker_cpu_ns_per_event", (double)ns / (double)events);
}

/* ---- what a job says ---- */

static void commit_figure(struct ad_bench *b, const struct ad_sample *s)
{
        char quantile[16], name[AD_FIGURE_NAME_MAX];

        if (!ad_sample_label(s, "quantile", quantile, sizeof(quantile)))
                return;
        (void)snprintf(name, sizeof(name), "commit_p%g_ms", strtod(quantile, NULL) * 100);
        ad_bench_figure(b, name, s->value * 1000);
}

static void stage_figure(struct ad_bench *b, const struct ad_sample *s, const char *label,
                         const char *prefix)
{
        char value[24], name[AD_FIGURE_NAME_MAX];

        if (!ad_sample_label(s, label, value, sizeof(value)) ||
            b->figure_count >= AD_FIGURES_MAX / 2)
                return;
        (void)snprintf(name, sizeof(name), "%s%s", prefix, value);
        ad_bench_figure(b, name, s->value * 1e9 / (double)b->events);
}

void ad_bench_job_figures(struct ad_bench *b, const char *job)
{
        struct ad_samples s;

        if (ad_samples_read(b->dir, &s, NULL) < 0)
                return;
        for (size_t i = 0; i < s.count; i++) {
                const struct ad_sample *x = &s.list[i];

                if (strcmp(x->job, job) != 0)
                        continue;
                if (strcmp(x->name, "adtally_checkpoint_seconds") == 0)
                        commit_figure(b, x);
                else if (strcmp(x->name, "adtally_operator_seconds_total") == 0)
                        stage_figure(b, x, "operator", "ns_");
                else if (strcmp(x->name, "adtally_operator_cut_seconds_total") == 0)
                        stage_figure(b, x, "operator", "ns_cut_");
                else if (strcmp(x->name, "adtally_step_seconds_total") == 0)
                        stage_figure(b, x, "step", "ns_step_");
        }
        ad_samples_release(&s);
}
