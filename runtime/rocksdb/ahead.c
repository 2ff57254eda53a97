/* ahead.c - a file read from its beginning, past the page cache and ahead of its reader
 * (rocksdb_private.h). */
#include "rocksdb_private.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define ALIGN ((size_t)4096)       /* of memory, places and lengths: no device asks for more */
#define PIECE ((size_t)128 << 10)  /* read at once */
#define ACROSS ((size_t)128 << 10) /* at most: of two pieces */

struct piece {
        struct aiocb io;
        uint8_t *data;
        uint64_t number; /* from PIECE * number on; NONE: nothing */
        size_t len;
        bool under_way;
};
#define NONE UINT64_MAX

struct dfi_ahead {
        int fd;
        uint64_t bytes;         /* of the file */
        struct piece pieces[2]; /* even ones and odd ones, side by side */
        uint8_t *across;        /* what begins in an odd one and ends in an even one */
};

static atomic_size_t in_use;

static size_t memory_bytes(void)
{
        return 2 * PIECE + ACROSS;
}

static void give_back(void)
{
        atomic_fetch_sub(&in_use, memory_bytes());
}

static bool may_have(void)
{
        if (atomic_fetch_add(&in_use, memory_bytes()) + memory_bytes() <= DFI_AHEAD_MAX)
                return true;
        give_back();
        return false;
}

struct dfi_ahead *dfi_ahead_open(const char *path, uint64_t bytes)
{
        struct dfi_ahead *a;
        uint8_t *memory = NULL;

        if (!may_have()) /* first: whoever is refused asks again at each block */
                return NULL;
        dfi_aio_init();
        a = calloc(1, sizeof(*a));
        if (!a) {
                give_back();
                return NULL;
        }
        a->bytes = bytes;
        a->fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
        if (a->fd >= 0)
                memory = aligned_alloc(ALIGN, memory_bytes());
        a->pieces[0] = (struct piece){.number = NONE, .data = memory};
        if (!memory) {
                dfi_ahead_close(a);
                return NULL;
        }
        a->pieces[1] = (struct piece){.number = NONE, .data = memory + PIECE};
        a->across = memory + 2 * PIECE;
        return a;
}

static bool wait_for(struct piece *p)
{
        p->under_way = false;
        return dfi_aio_wait(&p->io) == (ssize_t)p->len;
}

static bool begin(struct dfi_ahead *a, uint64_t number)
{
        struct piece *p = &a->pieces[number % 2];
        uint64_t left = a->bytes - number * PIECE;

        df_check(!p->under_way && number * PIECE < a->bytes);
        p->number = number;
        p->len = left < PIECE ? (size_t)left : PIECE;
        p->io = (struct aiocb){.aio_fildes = a->fd,
                               .aio_offset = (off_t)(number * PIECE),
                               .aio_buf = p->data,
                               .aio_nbytes = PIECE, /* to the end: what is there */
                               .aio_sigevent.sigev_notify = SIGEV_NONE};
        p->under_way = aio_read(&p->io) == 0;
        return p->under_way;
}

/* The piece is in memory. */
static bool have(struct dfi_ahead *a, uint64_t number)
{
        struct piece *p = &a->pieces[number % 2];

        if (p->under_way && !wait_for(p))
                return false;
        return p->number == number || (begin(a, number) && wait_for(p));
}

/* What comes after this piece is read meanwhile. */
static bool go_ahead(struct dfi_ahead *a, uint64_t number)
{
        struct piece *p = &a->pieces[(number + 1) % 2];

        if (p->number == number + 1 || (number + 1) * PIECE >= a->bytes)
                return true;
        return (!p->under_way || wait_for(p)) && begin(a, number + 1);
}

const uint8_t *dfi_ahead_read(struct dfi_ahead *a, uint64_t at, size_t len)
{
        uint64_t first = at / PIECE, last = (at + len - 1) / PIECE;
        const struct piece *p = &a->pieces[first % 2];
        size_t from = (size_t)(at - first * PIECE);

        df_check(len > 0 && len <= PIECE);
        if (at + len > a->bytes || !have(a, first) || !go_ahead(a, first))
                return NULL;
        if (first == last)
                return p->data + from;
        if (!have(a, last))
                return NULL;
        if (first % 2 == 0)
                return p->data + from; /* the other one follows */
        memcpy(a->across, p->data + from, PIECE - from);
        memcpy(a->across + PIECE - from, a->pieces[0].data, len - (PIECE - from));
        return a->across;
}

void dfi_ahead_close(struct dfi_ahead *a)
{
        if (!a)
                return;
        for (size_t i = 0; i < 2; i++)
                if (a->pieces[i].under_way)
                        (void)wait_for(&a->pieces[i]); /* it writes into our memory */
        free(a->pieces[0].data);
        give_back();
        if (a->fd >= 0)
                (void)close(a->fd); /* opened for reading */
        free(a);
}
