#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "filelog_private.h"

_Static_assert(offsetof(struct dfi_writer, base) == 0, "downcast");

static struct dfi_writer *writer_of(struct df_log_writer *w)
{
        (void)dfi_log_of(w->log); /* checks the adapter */
        return (struct dfi_writer *)w;
}

static int open_partitions(struct dfi_writer *w, struct df_error *err)
{
        int rc = 0;

        w->parts = calloc(w->topic.info.partitions, sizeof(*w->parts));
        w->raw = malloc(DFI_FRAME_RAW_MAX);
        w->stored = malloc(DFI_FRAME_HEADER + ZSTD_compressBound(DFI_FRAME_RAW_MAX));
        w->cctx = ZSTD_createCCtx();
        if (!w->parts || !w->raw || !w->stored || !w->cctx)
                return df_fail(err, DF_ENOMEM, "no memory for a writer of topic %s",
                               w->topic.info.name);
        if (ZSTD_isError(ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_compressionLevel,
                                                w->log->opt.zstd_level)))
                return df_fail(err, DF_EINVAL, "zstd has no level %d", w->log->opt.zstd_level);
        for (uint32_t i = 0; i < w->topic.info.partitions; i++)
                w->parts[i].fd = -1;
        for (uint32_t i = 0; i < w->topic.info.partitions && rc == 0; i++) {
                w->parts[i].part = (struct dfi_part){.topic = &w->topic, .index = i};
                rc = dfi_recover(w, &w->parts[i], err);
        }
        return rc;
}

int dfi_writer_open(struct df_log *base, const char *topic, struct df_log_writer **ret,
                    struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        char path[DFI_PATH_MAX];
        struct dfi_writer *w;
        int rc;

        w = calloc(1, sizeof(*w));
        if (!w)
                return df_fail(err, DF_ENOMEM, "no memory for a writer of topic %s", topic);
        w->base.log = base;
        w->log = log;
        w->lock_fd = -1;
        w->tail = &w->head;
        df_check(pthread_mutex_init(&w->mutex, NULL) == 0);
        df_check(pthread_cond_init(&w->cond, NULL) == 0);
        rc = dfi_topic_load(log, topic, &w->topic, err);
        if (rc == 0)
                rc = dfi_check_not_moved(log, err);
        if (rc == 0) {
                dfi_path(path, "%s/LOCK", w->topic.dir);
                rc = dfi_lock(path, false, &w->lock_fd, err);
        }
        if (rc == 0) {
                dfi_reserve_ensure(log);
                rc = open_partitions(w, err);
        }
        if (rc) {
                dfi_writer_close(&w->base);
                return rc;
        }
        *ret = &w->base;
        return 0;
}

void dfi_writer_close(struct df_log_writer *base)
{
        struct dfi_writer *w = writer_of(base);

        df_check(!w->busy);
        df_check(!w->head);
        for (uint32_t i = 0; w->parts && i < w->topic.info.partitions; i++) {
                struct dfi_wpart *p = &w->parts[i];

                dfi_end_close(&p->map);
                if (p->fd >= 0 && p->reserved > p->start_pos)
                        (void)!ftruncate(p->fd, (off_t)p->start_pos); /* gives blocks back */
                (void)dfi_close(p->fd);
        }
        free(w->parts);
        free(w->order);
        free(w->raw);
        free(w->stored);
        (void)ZSTD_freeCCtx(w->cctx);
        (void)pthread_cond_destroy(&w->cond);
        (void)pthread_mutex_destroy(&w->mutex);
        (void)dfi_close(w->lock_fd); /* last: the next writer may start */
        free(w);
}

void df_filelog_recovery(struct df_log_writer *w, struct df_filelog_recovery *ret)
{
        *ret = writer_of(w)->recovery;
}

int64_t df_filelog_last_append_ms(struct df_log_writer *base)
{
        struct dfi_writer *w = writer_of(base);
        int64_t ms;

        (void)pthread_mutex_lock(&w->mutex);
        ms = w->last_ms;
        (void)pthread_mutex_unlock(&w->mutex);
        return ms;
}

void df_filelog_clock_restart(struct df_log_writer *base)
{
        struct dfi_writer *w = writer_of(base);

        (void)pthread_mutex_lock(&w->mutex);
        w->restart_clock = true;
        (void)pthread_mutex_unlock(&w->mutex);
}

/* Refuse before anything is queued, so that a bad item harms only its own caller. */
static int check_items(const struct dfi_writer *w, const struct df_append *items, size_t count,
                       size_t *ret_bytes, struct df_error *err)
{
        size_t bytes = 0;

        for (size_t i = 0; i < count; i++) {
                if (items[i].partition >= w->topic.info.partitions)
                        return df_fail(
                                err, DF_EINVAL,
                                "topic %s has partitions 0 to %u, not %u; nothing was stored",
                                w->topic.info.name, w->topic.info.partitions - 1,
                                items[i].partition);
                if (items[i].value.len > DF_LOG_RECORD_MAX)
                        return df_fail(err, DF_ELIMIT,
                                       "a record of %zu bytes for topic %s exceeds %u; nothing was "
                                       "stored",
                                       items[i].value.len, w->topic.info.name, DF_LOG_RECORD_MAX);
                bytes += items[i].value.len;
        }
        *ret_bytes = bytes;
        return 0;
}

/* Called with the mutex held and busy set by us. Takes requests from the queue, oldest first. */
static void lead(struct dfi_writer *w)
{
        struct dfi_request *batch = w->head, *last = batch;
        size_t bytes = batch->bytes, count = batch->count;
        bool restart = w->restart_clock;
        struct df_error err = {0};
        int64_t last_ms;
        int rc;

        while (last->next && bytes + last->next->bytes <= DFI_GROUP_BYTES_MAX) {
                last = last->next;
                bytes += last->bytes;
                count += last->count;
        }
        w->head = last->next;
        if (!w->head)
                w->tail = &w->head;
        last->next = NULL;
        (void)pthread_mutex_unlock(&w->mutex);

        rc = dfi_commit(w, batch, count, restart, &err);
        last_ms = 0;
        for (uint32_t i = 0; rc == 0 && i < w->dirty_count; i++) {
                int64_t ms = w->parts[w->dirty[i]].end.append_ms;

                last_ms = ms > last_ms ? ms : last_ms;
        }

        (void)pthread_mutex_lock(&w->mutex);
        if (rc == 0) {
                if (restart || last_ms > w->last_ms)
                        w->last_ms = last_ms;
                if (restart)
                        w->restart_clock = false;
        }
        for (struct dfi_request *r = batch, *next; r; r = next) {
                next = r->next; /* a request dies once its caller sees done */
                r->code = rc;
                if (rc)
                        memcpy(r->text, err.text, sizeof(r->text));
                r->done = true;
        }
}

int dfi_append(struct df_log_writer *base, struct df_append *items, size_t count,
               struct df_error *err)
{
        struct dfi_writer *w = writer_of(base);
        struct dfi_request req = {.items = items, .count = count};
        int rc = check_items(w, items, count, &req.bytes, err);

        if (rc || count == 0)
                return rc;
        (void)pthread_mutex_lock(&w->mutex);
        *w->tail = &req;
        w->tail = &req.next;
        while (!req.done) {
                if (w->busy) {
                        (void)pthread_cond_wait(&w->cond, &w->mutex);
                        continue;
                }
                w->busy = true;
                lead(w);
                w->busy = false;
                (void)pthread_cond_broadcast(&w->cond);
        }
        (void)pthread_mutex_unlock(&w->mutex);
        if (req.code)
                return df_fail(err, req.code, "%s", req.text);
        return 0;
}
