/* commands.c - the thread that appends commands and reads them back. */
#include <stdlib.h>
#include <time.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/api/commands_private.h"
#include "jobs/common/settings.h"

#define POLL_MS 200   /* until commands of another process are seen */
#define STEP_MS 5     /* between looks at a log that has not answered yet */
#define READ_MS 10000 /* for what was appended to be readable */
#define RETRY_MS 1000 /* after the log failed */
#define READ_RECORDS 64

struct request {
        struct request *next;
        struct df_buf value, content;
        struct ad_command command;
        struct df_arena arena; /* of command */
        ad_asked_fn *fn;
        void *arg;
        bool appended;
        uint64_t offset;
};

struct ad_api_commands {
        struct ad_api_commands_options o;
        struct adi_command_index index;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
        struct request *first, **last;
        size_t waiting;
        atomic_bool ready;

        /* The thread's own. */
        struct df_log_writer *writer;
        struct df_log_reader *reader;
        uint64_t position;
};

/* ---- reading ---- */

static int open_log(struct ad_api_commands *c, struct df_error *err)
{
        int rc = 0;

        if (!c->reader)
                rc = df_log_reader_open(c->o.log, AD_TOPIC_COMMANDS, 0, c->position, NULL,
                                        &c->reader, err);
        if (rc == 0 && !c->writer)
                rc = df_log_writer_open(c->o.log, AD_TOPIC_COMMANDS, &c->writer, err);
        return rc;
}

/* Whatever is there; *ret_more: there may be more at once. */
static int read_some(struct ad_api_commands *c, bool *ret_more, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        size_t n = 0;
        int rc = df_log_poll(c->reader, records, READ_RECORDS, &n, err);

        for (size_t i = 0; rc == 0 && i < n; i++) {
                rc = adi_index_add(&c->index, &records[i], err);
                if (rc == 0)
                        c->position = records[i].offset + 1;
        }
        if (rc == 0)
                c->position = df_log_position(c->reader);
        *ret_more = n > 0;
        return rc;
}

/* Until everything before `end` was read. */
static int read_to(struct ad_api_commands *c, uint64_t end, struct df_error *err)
{
        const struct timespec pause = {0, STEP_MS * 1000000L};
        int64_t until = df_monotonic_ms() + READ_MS;
        int rc = 0;

        while (rc == 0 && c->position < end) {
                bool more;

                rc = read_some(c, &more, err);
                if (rc == 0 && !more && c->position < end) {
                        if (df_monotonic_ms() > until)
                                return df_fail(err, DF_EAGAIN,
                                               "topic %s: offset %llu cannot be read yet",
                                               AD_TOPIC_COMMANDS, (unsigned long long)end);
                        (void)nanosleep(&pause, NULL); /* an early end is harmless */
                }
        }
        return rc;
}

/* All that is there now; afterwards the commands known are complete. */
static int catch_up(struct ad_api_commands *c, struct df_error *err)
{
        uint64_t first, end = 0;
        int rc = open_log(c, err);

        if (rc == 0)
                rc = df_log_bounds(c->o.log, AD_TOPIC_COMMANDS, 0, &first, &end, err);
        if (rc == 0)
                rc = read_to(c, end, err);
        if (rc == 0) {
                atomic_store(&c->ready, true);
                return 0;
        }
        df_log_reader_close(c->reader);
        c->reader = NULL;
        return rc;
}

/* ---- appending ---- */

static void answer(struct request *q, enum ad_asked what, const struct ad_asked_for *entry,
                   const struct df_error *err)
{
        q->fn(q->arg, what, entry, err);
        df_buf_release(&q->value);
        df_buf_release(&q->content);
        df_arena_release(&q->arena);
        free(q);
}

/* By what the log holds, whoever wrote it. */
static void settle(struct ad_api_commands *c, struct request *q)
{
        const struct ad_asked_for *e =
                adi_index_find(&c->index, q->command.tenant_id, q->command.id);
        struct df_error err = {0};
        struct df_buf content = {0};
        enum ad_asked what = AD_ASKED_OTHER;

        if (!e) { /* an append that succeeded was read back */
                (void)df_fail(&err, DF_EDOUBT, "topic %s does not show the command",
                              AD_TOPIC_COMMANDS);
                answer(q, AD_ASKED_FAILED, NULL, &err);
                return;
        }
        adi_command_content(&content, &e->command);
        if (q->appended && q->offset == e->offset)
                what = AD_ASKED_NEW;
        else if (!content.failed && df_bytes_eq(df_buf_bytes(&content), df_buf_bytes(&q->content)))
                what = AD_ASKED_BEFORE;
        df_buf_release(&content);
        answer(q, what, e, &err);
}

static bool id_among(const struct request *list, const struct request *until)
{
        for (; list != until; list = list->next)
                if (list->appended &&
                    adi_same_id(&list->command, until->command.tenant_id, until->command.id))
                        return true;
        return false;
}

static bool full(struct ad_api_commands *c, size_t more, size_t more_bytes)
{
        return c->index.count + more >= c->o.count_max ||
               c->index.bytes + more_bytes >= c->o.bytes_max;
}

/* Those whose id nobody has; what cannot be stored is answered and leaves the list. */
static size_t choose(struct ad_api_commands *c, struct request **list,
                     struct df_append items[AD_COMMANDS_WAITING_MAX])
{
        size_t n = 0, bytes = 0;

        for (struct request **at = list; *at;) {
                struct request *q = *at;

                if (adi_index_find(&c->index, q->command.tenant_id, q->command.id) ||
                    id_among(*list, q)) {
                        at = &q->next;
                        continue;
                }
                if (full(c, n, bytes)) {
                        *at = q->next;
                        answer(q, AD_ASKED_FULL, NULL, NULL);
                        continue;
                }
                q->appended = true;
                bytes += q->value.len;
                items[n++] = (struct df_append){.value = df_buf_bytes(&q->value)};
                at = &q->next;
        }
        return n;
}

static void fail_all(struct request *list, const struct df_error *err)
{
        df_trace(DF_ERROR, "commands", "code=%s: %s", df_err_code(err->code), err->text);
        while (list) {
                struct request *q = list;

                list = q->next;
                answer(q, AD_ASKED_FAILED, NULL, err);
        }
}

static int store(struct ad_api_commands *c, struct request **list, struct df_error *err)
{
        struct df_append items[AD_COMMANDS_WAITING_MAX] = {0};
        size_t n = choose(c, list, items), at = 0;
        uint64_t end = 0;
        int rc = n ? df_log_append(c->writer, items, n, err) : 0;

        if (rc < 0)
                return rc;
        for (struct request *q = *list; q; q = q->next)
                if (q->appended) {
                        q->offset = items[at++].ret_offset;
                        end = q->offset + 1 > end ? q->offset + 1 : end;
                }
        rc = read_to(c, end, err);
        if (rc < 0) {
                err->code = DF_EDOUBT; /* it is stored, and not known whether it came first */
                df_log_reader_close(c->reader);
                c->reader = NULL;
        }
        return rc;
}

static void handle(struct ad_api_commands *c, struct request *list)
{
        struct df_error err = {0};
        int rc = catch_up(c, &err);

        if (rc == 0)
                rc = store(c, &list, &err);
        if (rc < 0) {
                fail_all(list, &err);
                return;
        }
        while (list) {
                struct request *q = list;

                list = q->next;
                settle(c, q);
        }
}

/* ---- the thread ---- */

static struct timespec after_ms(int64_t ms)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += ms / 1000;
        t.tv_nsec += ms % 1000 * 1000000;
        if (t.tv_nsec >= 1000000000) {
                t.tv_sec++;
                t.tv_nsec -= 1000000000;
        }
        return t;
}

/* What waits; NULL after wait_ms, or (*ret_stop) when the end has come. */
static struct request *take(struct ad_api_commands *c, int64_t wait_ms, bool *ret_stop)
{
        struct timespec until = after_ms(wait_ms);
        struct request *list;

        pthread_mutex_lock(&c->lock);
        while (!c->first && !c->stop && pthread_cond_timedwait(&c->wake, &c->lock, &until) == 0)
                ;
        list = c->first;
        c->first = NULL;
        c->last = &c->first;
        c->waiting = 0;
        *ret_stop = c->stop && !list;
        pthread_mutex_unlock(&c->lock);
        return list;
}

static void *ledger(void *arg)
{
        struct ad_api_commands *c = arg;
        int64_t wait = 0;
        bool stop = false, failed = false;

        while (!stop) {
                struct request *list = take(c, wait, &stop);
                struct df_error err = {0};

                wait = POLL_MS;
                if (list) {
                        handle(c, list);
                } else if (!stop && catch_up(c, &err) < 0) {
                        if (!failed)
                                df_trace(DF_ERROR, "commands", "code=%s: %s", df_err_code(err.code),
                                         err.text);
                        failed = true;
                        wait = RETRY_MS;
                        continue;
                }
                failed = false;
        }
        return NULL;
}

int ad_api_commands_start(const struct ad_api_commands_options *o, struct ad_api_commands **ret,
                          struct df_error *err)
{
        struct ad_api_commands *c = calloc(1, sizeof(*c));
        pthread_condattr_t a;

        if (!c)
                return df_fail(err, DF_ENOMEM, "commands");
        c->o = *o;
        c->o.count_max = o->count_max ? o->count_max : AD_COMMANDS_MAX;
        c->o.bytes_max = o->bytes_max ? o->bytes_max : AD_COMMANDS_BYTES_MAX;
        c->last = &c->first;
        adi_index_init(&c->index);
        pthread_mutex_init(&c->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&c->wake, &a);
        pthread_condattr_destroy(&a);
        if (pthread_create(&c->thread, NULL, ledger, c) != 0) {
                adi_index_release(&c->index);
                free(c);
                return df_fail(err, DF_EAGAIN, "the thread of commands");
        }
        *ret = c;
        return 0;
}

void ad_api_commands_stop(struct ad_api_commands *c)
{
        if (!c)
                return;
        pthread_mutex_lock(&c->lock);
        c->stop = true;
        pthread_cond_signal(&c->wake);
        pthread_mutex_unlock(&c->lock);
        (void)pthread_join(c->thread, NULL);
        df_log_reader_close(c->reader);
        df_log_writer_close(c->writer);
        adi_index_release(&c->index);
        pthread_mutex_destroy(&c->lock);
        pthread_cond_destroy(&c->wake);
        free(c);
}

/* ---- from any thread ---- */

static struct request *make_request(const struct ad_command *command)
{
        struct request *q = calloc(1, sizeof(*q));
        struct ad_command c = *command;
        int rc;

        if (!q)
                return NULL;
        df_arena_init(&q->arena, 0);
        c.at_ms = df_wall_ms();
        ad_wire_command(&q->value, &c);
        adi_command_content(&q->content, &c);
        if (!q->value.failed && !q->content.failed) {
                rc = ad_wire_command_decode(df_buf_bytes(&q->value), &q->arena, &q->command, NULL);
                df_check(rc == 0); /* the caller checked every limit */
                return q;
        }
        df_buf_release(&q->value);
        df_buf_release(&q->content);
        free(q);
        return NULL;
}

bool ad_api_commands_put(struct ad_api_commands *c, const struct ad_command *command,
                         ad_asked_fn *fn, void *arg)
{
        struct request *q = make_request(command);
        bool room = false;

        if (!q)
                return false;
        q->fn = fn;
        q->arg = arg;
        pthread_mutex_lock(&c->lock);
        if (c->waiting < AD_COMMANDS_WAITING_MAX && !c->stop) {
                *c->last = q;
                c->last = &q->next;
                c->waiting++;
                room = true;
                pthread_cond_signal(&c->wake);
        }
        pthread_mutex_unlock(&c->lock);
        if (!room) {
                df_buf_release(&q->value);
                df_buf_release(&q->content);
                df_arena_release(&q->arena);
                free(q);
        }
        return room;
}

bool ad_api_commands_ready(struct ad_api_commands *c)
{
        return atomic_load(&c->ready);
}

const struct ad_asked_for *ad_api_commands_find(struct ad_api_commands *c,
                                                struct df_bytes tenant_id, struct df_bytes id)
{
        return adi_index_find(&c->index, tenant_id, id);
}

void ad_api_commands_list(struct ad_api_commands *c, uint64_t below,
                          bool (*fn)(void *arg, const struct ad_asked_for *entry), void *arg)
{
        struct adi_command_index *x = &c->index;
        bool more = true;

        pthread_rwlock_rdlock(&x->lock);
        for (size_t i = x->count; more && i-- > 0;)
                if (x->list[i]->offset < below)
                        more = fn(arg, x->list[i]);
        pthread_rwlock_unlock(&x->lock);
}

void ad_api_commands_render(struct ad_api_commands *c, struct df_buf *b)
{
        struct adi_command_index *x = &c->index;

        pthread_rwlock_rdlock(&x->lock);
        df_metric(b, "adtally_commands", "", (double)x->count);
        df_metric(b, "adtally_commands_bytes", "", (double)x->bytes);
        df_metric(b, "adtally_commands_ignored", "", (double)x->ignored);
        df_metric(b, "adtally_commands_damaged", "", (double)x->damaged);
        pthread_rwlock_unlock(&x->lock);
}
