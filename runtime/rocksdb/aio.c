/* aio.c - reads and writes by threads of the C library (rocksdb_private.h). */
#include "rocksdb_private.h"

#include <errno.h>
#include <pthread.h>

static void few_threads(void)
{
        const struct aioinit few = {
                .aio_threads = DFI_AIO_THREADS, .aio_num = 64, .aio_idle_time = 1};

        aio_init(&few);
}

void dfi_aio_init(void)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        (void)pthread_once(&once, few_threads);
}

ssize_t dfi_aio_wait(struct aiocb *io)
{
        const struct aiocb *const list[] = {io};

        while (aio_error(io) == EINPROGRESS)
                (void)aio_suspend(list, 1, NULL); /* a signal ends it, too */
        return aio_return(io);
}
