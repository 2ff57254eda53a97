/* runs.c - runs on disk: which one a command is, its lock, its end (runs.h). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "jobs/common/places.h"
#include "jobs/runs/runs_private.h"

#define PATH_SIZE ADI_RUN_PATH_MAX
#define PROBE_WAITS 5
#define PROBE_WAIT_US 20000

static const char *const output_names[AD_OUT_BILL_COUNT] = {
        [AD_OUT_LATE] = AD_TOPIC_LATE,
        [AD_OUT_QUARANTINE] = AD_TOPIC_QUARANTINE,
        [AD_OUT_ROLLUPS] = AD_TOPIC_ROLLUPS,
        [AD_OUT_BILL] = "bill",
};

static uint64_t settings_digest(const struct df_config *c, const struct ad_run_kind *kind)
{
        (void)kind;
        return ad_config_digest(c);
}

const struct ad_run_kind ad_run_replay = {
        .name = "replay",
        .chain = ad_chain_main,
        .chain_length = &ad_chain_main_length,
        .outputs = AD_OUT_COUNT,
        .config = settings_digest,
};

void ad_replay_names(const struct ad_replay *r, struct ad_replay_names *ret)
{
        for (size_t i = 0; i < r->kind->outputs; i++)
                (void)snprintf(ret->topic[i], sizeof(ret->topic[i]), "%s-%s-%s", r->kind->name,
                               r->id, output_names[i]);
        (void)snprintf(ret->group, sizeof(ret->group), "%s-%s", r->kind->name, r->id);
}

static int set_place(const struct df_config *c, const char *id, struct ad_replay *r,
                     struct df_error *err)
{
        const char *data = df_config_text(c, "data");
        char store[PATH_MAX];
        int rc;

        r->lock_fd = -1;
        if (strlen(data) >= sizeof(r->data))
                return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data);
        (void)snprintf(r->data, sizeof(r->data), "%s", data);
        (void)snprintf(r->id, sizeof(r->id), "%s", id);
        (void)snprintf(r->dir, sizeof(r->dir), "%s/%s/%s", data, r->kind->name, id);
        rc = ad_store(c, store, err);
        r->store[0] = '\0';
        if (rc == 0 && store[0] &&
            snprintf(r->store, sizeof(r->store), "%s/%s-%s", store, r->kind->name, id) >=
                    (int)sizeof(r->store))
                rc = df_fail(err, DF_EINVAL, "--checkpoint-store %s: the path is too long", store);
        return rc;
}

int ad_replay_place(const struct df_config *c, const struct ad_run_kind *kind, const char *id,
                    struct ad_replay *ret, struct df_error *err)
{
        *ret = (struct ad_replay){.kind = kind};
        return set_place(c, id, ret, err);
}

void ad_replay_end(struct ad_replay *r)
{
        free(r->from);
        free(r->to);
        r->from = r->to = NULL;
        if (r->lock_fd >= 0)
                close(r->lock_fd);
        r->lock_fd = -1;
}

/* Which log this is, whatever its address is today. */
static void name_log(const struct df_config *c, char *ret, size_t size)
{
        if (ad_log_is_file(c))
                (void)snprintf(ret, size, "file");
        else
                (void)snprintf(ret, size, "kafka %s", df_config_text(c, "kafka-prefix"));
}

bool ad_replay_is_here(const struct df_config *c, const struct ad_replay *r)
{
        char log[sizeof(r->log)];

        name_log(c, log, sizeof(log));
        return strcmp(log, r->log) == 0;
}

/* ---- its end, its lock ---- */

int ad_replay_mark_done(struct ad_replay *r, struct df_error *err)
{
        r->done = true;
        return adi_run_write(r, err);
}

static int take_lock(const char *path, bool wait, int *ret_fd, struct df_error *err)
{
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "open %s", path);
        if (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) == 0) {
                *ret_fd = fd;
                return 0;
        }
        close(fd);
        return df_fail(err, DF_EFENCED, "%s is locked", path);
}

static int lock_run(struct ad_replay *r, struct df_error *err)
{
        char path[PATH_SIZE], pid[16] = "";
        ssize_t n;
        int rc;

        (void)snprintf(path, sizeof(path), "%s/LOCK", r->dir);
        rc = take_lock(path, false, &r->lock_fd, err);
        for (int i = 0; rc == DF_EFENCED && i < PROBE_WAITS; i++) { /* somebody may only look */
                (void)usleep(PROBE_WAIT_US);
                rc = take_lock(path, false, &r->lock_fd, err);
        }
        if (rc == DF_EFENCED) {
                int fd = open(path, O_RDONLY | O_CLOEXEC);

                n = fd >= 0 ? read(fd, pid, sizeof(pid) - 1) : 0;
                if (fd >= 0)
                        close(fd);
                pid[n > 0 ? n : 0] = '\0';
                return df_fail(err, DF_EFENCED, "run %s is being worked on by another process (%s)",
                               r->id, n > 0 ? pid : "?");
        }
        if (rc < 0)
                return rc;
        n = snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
        if (ftruncate(r->lock_fd, 0) < 0 || pwrite(r->lock_fd, pid, (size_t)n, 0) != n)
                return df_fail_errno(err, DF_EIO, "write %s", path);
        return 0;
}

static bool is_locked(const struct ad_replay *r)
{
        char path[PATH_SIZE];
        int fd;
        bool locked;

        (void)snprintf(path, sizeof(path), "%s/LOCK", r->dir);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;
        if (fd >= 0)
                close(fd);
        return locked;
}

/* Held while a command finds out which run it is: two equal commands make one run. */
static int lock_all(const struct df_config *c, const struct ad_run_kind *kind, int *ret_fd,
                    struct df_error *err)
{
        char path[PATH_SIZE];
        int n = snprintf(path, sizeof(path), "%s/%s", df_config_text(c, "data"), kind->name);
        int rc = n < 600 ? df_mkdirs(path, err)
                         : df_fail(err, DF_EINVAL, "--data: the path is too long");

        if (rc < 0)
                return rc;
        (void)snprintf(path + n, sizeof(path) - (size_t)n, "/LOCK");
        return take_lock(path, true, ret_fd, err);
}

/* ---- which run ---- */

static bool is_id(const char *s)
{
        return strlen(s) == AD_REPLAY_ID_MAX && strspn(s, "0123456789abcdef") == AD_REPLAY_ID_MAX;
}

static int visit(const struct df_config *c, const struct ad_run_kind *kind, const char *id,
                 int (*fn)(void *arg, const struct ad_replay *run, struct df_error *err), void *arg,
                 struct df_error *err)
{
        struct ad_replay *r = calloc(1, sizeof(*r));
        int rc = r ? 0 : df_fail(err, DF_ENOMEM, "run %s", id);

        if (rc == 0) {
                r->kind = kind;
                rc = set_place(c, id, r, err);
        }
        if (rc == 0)
                rc = adi_run_read(r, err);
        if (rc == 0) {
                r->locked = is_locked(r);
                rc = fn(arg, r, err);
        } else if (rc == DF_ENOENT) { /* it was being made, or dropped */
                rc = 0;
        }
        if (r)
                ad_replay_end(r);
        free(r);
        return rc;
}

int ad_replay_list(const struct df_config *c, const struct ad_run_kind *kind,
                   int (*fn)(void *arg, const struct ad_replay *run, struct df_error *err),
                   void *arg, struct df_error *err)
{
        char path[PATH_SIZE];
        struct dirent **names = NULL;
        int n, rc = 0;

        (void)snprintf(path, sizeof(path), "%.600s/%s", df_config_text(c, "data"), kind->name);
        n = scandir(path, &names, NULL, alphasort);
        if (n < 0)
                return errno == ENOENT ? 0 : df_fail_errno(err, DF_EIO, "list %s", path);
        for (int i = 0; i < n; i++) {
                if (rc == 0 && is_id(names[i]->d_name))
                        rc = visit(c, kind, names[i]->d_name, fn, arg, err);
                free(names[i]);
        }
        free(names);
        return rc;
}

struct choice {
        const struct ad_replay *wanted; /* words, settings, today's topic */
        char id[AD_REPLAY_ID_MAX + 1];  /* "": none */
};

static int consider(void *arg, const struct ad_replay *run, struct df_error *err)
{
        struct choice *s = arg;
        const struct ad_replay *w = s->wanted;

        if (run->done || run->config != w->config || strcmp(run->version, w->version) != 0 ||
            strcmp(run->from, w->from) != 0 || strcmp(run->to, w->to) != 0 ||
            strcmp(run->pin.topic.name, w->pin.topic.name) != 0)
                return 0;
        if (run->pin.topic.generation != w->pin.topic.generation)
                return df_fail(err, DF_ESCHEMA,
                               "topic %s was created again since run %s began, which cannot go on: "
                               "`adtally %s --drop %s` (K14)",
                               w->pin.topic.name, run->id, run->kind->name, run->id);
        (void)snprintf(s->id, sizeof(s->id), "%s", run->id);
        return 0;
}

static bool holds_events(const char *topic)
{
        static const char *const others[] = {AD_TOPIC_ROLLUPS,  AD_TOPIC_LATE, AD_TOPIC_QUARANTINE,
                                             AD_TOPIC_COMMANDS, AD_TOPIC_RUNS, AD_TOPIC_BILLING};

        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
                if (strcmp(topic, others[i]) == 0)
                        return false;
        return strncmp(topic, AD_TOPIC_REPLAY_PREFIX, strlen(AD_TOPIC_REPLAY_PREFIX)) != 0 &&
               strncmp(topic, AD_TOPIC_RECONCILE_PREFIX, strlen(AD_TOPIC_RECONCILE_PREFIX)) != 0;
}

/* All that the pin does not say. */
static int describe(const struct df_config *c, const char *from, const char *to,
                    struct ad_replay *r, struct df_error *err)
{
        r->config = r->kind->config(c, r->kind);
        (void)snprintf(r->version, sizeof(r->version), "%s", ADTALLY_VERSION);
        name_log(c, r->log, sizeof(r->log));
        r->from = strdup(from);
        r->to = strdup(to);
        return r->from && r->to ? 0 : df_fail(err, DF_ENOMEM, "range");
}

/* What the command asks for, pinned now. */
static int pin_now(const struct df_config *c, struct df_log *log, const char *topic,
                   struct ad_replay *r, struct df_error *err)
{
        bool open = r->kind->open;
        const char *words[2] = {open ? "start" : df_config_text(c, "from"),
                                open ? "end" : df_config_text(c, "to")};
        struct ad_where *w = calloc(2, sizeof(*w));
        int rc = w ? 0 : df_fail(err, DF_ENOMEM, "range");

        if (rc == 0 && (!holds_events(topic) || (!open && ad_topic_is_import(topic))))
                rc = df_fail(err, DF_EINVAL,
                             "topic %s holds no live events (an import is counted by rules of its "
                             "own)",
                             topic);
        for (int i = 0; rc == 0 && i < 2; i++) {
                if (strlen(words[i]) > AD_REPLAY_WORDS_MAX || strchr(words[i], '\n'))
                        rc = df_fail(err, DF_EINVAL, "more than %d bytes, or not one line",
                                     AD_REPLAY_WORDS_MAX);
                if (rc == 0)
                        rc = ad_where_parse(words[i], &w[i], err);
                if (rc < 0)
                        (void)df_wrap(err, "--%s", i ? "to" : "from");
        }
        if (rc == 0)
                rc = ad_replay_pin_range(log, topic, &w[0], &w[1], &r->pin, err);
        if (rc == 0 && ad_topic_is_import(topic))
                rc = ad_replay_pin_imports(log, &r->pin, err);
        free(w);
        return rc == 0 ? describe(c, words[0], words[1], r, err) : rc;
}

/* It is there. An open run that is done takes the end of now; one that is not comes to its own
 * first. */
static int take_up(struct ad_replay *r, bool pin_only, struct df_error *err)
{
        struct ad_replay_pin *now = malloc(sizeof(*now));
        int rc;

        if (!now)
                return df_fail(err, DF_ENOMEM, "run %s", r->id);
        *now = r->pin;
        ad_replay_end(r);
        rc = adi_run_read(r, err);
        if (rc == 0 && !pin_only)
                rc = lock_run(r, err);
        r->resumed = !r->done;
        if (rc == 0 && r->kind->open && r->done)
                for (uint32_t p = 0; p < now->topic.partitions; p++)
                        if (now->span[p].to > r->pin.span[p].to) {
                                r->pin.span[p].to = now->span[p].to;
                                r->done = false;
                        }
        free(now);
        return rc == 0 && !pin_only && !r->done ? adi_run_write(r, err) : rc;
}

static int choose(const struct df_config *c, bool pin_only, struct ad_replay *r,
                  struct df_error *err)
{
        struct choice s = {.wanted = r};
        char id[AD_REPLAY_ID_MAX + 1], path[PATH_SIZE];
        int rc = ad_replay_list(c, r->kind, consider, &s, err);

        if (rc < 0)
                return rc;
        adi_run_own_id(r, id);
        rc = set_place(c, s.id[0] ? s.id : id, r, err);
        if (rc < 0)
                return rc;
        (void)snprintf(path, sizeof(path), "%s/RUN", r->dir);
        if (access(path, F_OK) == 0)
                return take_up(r, pin_only, err);
        if (pin_only)
                return 0;
        rc = df_mkdirs(r->dir, err);
        if (rc == 0)
                rc = lock_run(r, err);
        return rc == 0 ? adi_run_write(r, err) : rc;
}

static int begin(const struct df_config *c, const struct ad_run_kind *kind, struct df_log *log,
                 const char *topic, bool pin_only, struct ad_replay *ret, struct df_error *err)
{
        int all = -1, rc;

        *ret = (struct ad_replay){.kind = kind, .lock_fd = -1};
        rc = pin_only ? 0 : lock_all(c, kind, &all, err);
        if (rc == 0)
                rc = pin_now(c, log, topic, ret, err);
        if (rc == 0)
                rc = choose(c, pin_only, ret, err);
        if (all >= 0)
                close(all);
        if (rc < 0)
                ad_replay_end(ret);
        return rc;
}

int ad_replay_begin(const struct df_config *c, const struct ad_run_kind *kind, struct df_log *log,
                    bool pin_only, struct ad_replay *ret, struct df_error *err)
{
        const char *topic = kind->open ? AD_TOPIC_EVENTS : df_config_text(c, "topic");

        return begin(c, kind, log, topic, pin_only, ret, err);
}

int ad_replay_begin_of(const struct df_config *c, const struct ad_run_kind *kind,
                       struct df_log *log, const char *topic, struct ad_replay *ret,
                       struct df_error *err)
{
        return begin(c, kind, log, topic, false, ret, err);
}

int ad_replay_begin_at(const struct df_config *c, const struct ad_run_kind *kind,
                       const struct ad_replay_pin *pin, struct ad_replay *ret, struct df_error *err)
{
        int all = -1, rc;

        *ret = (struct ad_replay){.kind = kind, .pin = *pin, .lock_fd = -1};
        rc = lock_all(c, kind, &all, err);
        if (rc == 0)
                rc = describe(c, "start", "end", ret, err);
        if (rc == 0)
                rc = choose(c, false, ret, err);
        if (all >= 0)
                close(all);
        if (rc < 0)
                ad_replay_end(ret);
        return rc;
}

/* As one that has come nowhere and was left in order: whoever makes this run here goes on with what
 * is committed, to an end of its own. */
static int write_joined(const struct ad_replay *r, struct df_error *err)
{
        struct ad_replay *own = malloc(sizeof(*own));
        int rc;

        if (!own)
                return df_fail(err, DF_ENOMEM, "run %s", r->id);
        *own = *r;
        own->done = true;
        for (uint32_t p = 0; p < own->pin.topic.partitions; p++)
                own->pin.span[p].to = own->pin.span[p].from;
        rc = adi_run_write(own, err);
        free(own);
        return rc;
}

int ad_replay_join(const struct df_config *c, struct ad_replay *r, struct df_error *err)
{
        char id[AD_REPLAY_ID_MAX + 1];
        int rc;

        if (!ad_replay_is_here(c, r))
                return df_fail(err, DF_EINVAL, "run %s is on another log (%s)", r->id, r->log);
        memcpy(id, r->id, sizeof(id));
        rc = set_place(c, id, r, err);
        if (rc == 0)
                rc = df_mkdirs(r->dir, err);
        if (rc == 0)
                rc = lock_run(r, err);
        return rc == 0 ? write_joined(r, err) : rc;
}

int ad_replay_find(const struct df_config *c, const struct ad_run_kind *kind, const char *id,
                   struct ad_replay *ret, struct df_error *err)
{
        struct df_error damaged = {0};
        char log[sizeof(ret->log)];
        int rc;

        name_log(c, log, sizeof(log));
        *ret = (struct ad_replay){.kind = kind, .lock_fd = -1};
        if (!is_id(id))
                return df_fail(err, DF_EINVAL, "\"%.40s\" is not the id of a run (%d hex digits)",
                               id, AD_REPLAY_ID_MAX);
        rc = set_place(c, id, ret, err);
        if (rc == 0 && access(ret->dir, F_OK) < 0)
                return df_fail(err, DF_ENOENT, "there is no run %s; see `adtally %s --list`", id,
                               kind->name);
        /* A damaged one can still be dropped. */
        if (rc == 0 && adi_run_read(ret, &damaged) == 0 && strcmp(ret->log, log) != 0)
                rc = df_fail(err, DF_EINVAL,
                             "run %s is on another log (%s), not on this one (%s): give its --log",
                             id, ret->log, log);
        if (rc == 0)
                rc = lock_run(ret, err);
        if (rc < 0)
                ad_replay_end(ret);
        return rc;
}

int ad_replay_drop(struct ad_replay *r, struct df_log *log, struct df_error *err)
{
        struct ad_replay_names names;
        int rc = 0;

        ad_replay_names(r, &names);
        if (df_kafka_is(log)) /* first: while somebody works on it nothing is deleted */
                rc = df_kafka_group_delete(log, names.group, err);
        else if (r->pin.topic.name[0])
                rc = df_filelog_consumer_drop(log, r->pin.topic.name, names.group, err);
        if (rc == DF_ENOENT) /* it never read anything, or ended by itself */
                rc = 0;
        for (size_t i = 0; rc == 0 && i < r->kind->outputs; i++)
                rc = df_log_topic_delete(log, names.topic[i], err);
        if (rc == 0 && r->store[0])
                rc = df_remove_tree(r->store, err);
        return rc == 0 ? df_remove_tree(r->dir, err) : rc;
}
