/* ckpt_child.h - the other process of test_ckpt: it works on a state directory and dies, or fails,
 * at its n-th call that changes the file system. The calls are taken over by name, so those of
 * RocksDB count too. */
#ifndef CKPT_CHILD_H
#define CKPT_CHILD_H

#include "state_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

static const struct df_rocksdb_options small = {.write_buffer_bytes = 64 << 10,
                                                .block_cache_bytes = 1 << 20};

/* ---- faults ---- */

static long fault_at;   /* 0 = none */
static int fault_errno; /* 0 = kill -9 before the call */
static long fault_calls;

static bool fault(void)
{
        long n = __atomic_add_fetch(&fault_calls, 1, __ATOMIC_SEQ_CST);

        if (fault_at == 0 || n != fault_at)
                return false;
        if (fault_errno == 0) {
                (void)kill(getpid(), SIGKILL);
                (void)pause();
        }
        errno = fault_errno;
        return true;
}

int rename(const char *from, const char *to)
{
        return fault() ? -1 : (int)syscall(SYS_rename, from, to);
}
int fsync(int fd)
{
        return fault() ? -1 : (int)syscall(SYS_fsync, fd);
}
int fdatasync(int fd)
{
        return fault() ? -1 : (int)syscall(SYS_fdatasync, fd);
}
int link(const char *from, const char *to)
{
        return fault() ? -1 : (int)syscall(SYS_link, from, to);
}
int mkdir(const char *path, mode_t mode)
{
        return fault() ? -1 : (int)syscall(SYS_mkdir, path, mode);
}
int unlink(const char *path)
{
        /* Removal is retried by nobody who would notice; it is a place to die at. */
        return fault_errno == 0 && fault() ? -1 : (int)syscall(SYS_unlink, path);
}
int rmdir(const char *path)
{
        return fault_errno == 0 && fault() ? -1 : (int)syscall(SYS_rmdir, path);
}

/* ---- the work: checkpoint k holds data-1 .. data-k, "k", "hot", and the last three runs ---- */

#define RUN_BLOCK 700

static struct df_bytes run_key(uint64_t k, char ret[32])
{
        return df_bytes(ret, (size_t)snprintf(ret, 32, "run-%06" PRIu64, k));
}

/* Of k % 3 + 1 blocks, the last one short. */
static struct df_bytes run_block(uint64_t k, uint64_t i, uint8_t ret[RUN_BLOCK])
{
        size_t len = i < k % 3 ? RUN_BLOCK : 300;

        make_value(1000 * k + i, len, ret);
        return df_bytes(ret, len);
}

static void put_run(struct df_store *s, uint64_t k)
{
        uint8_t block[RUN_BLOCK];
        char key[32];

        for (uint64_t i = 0; i <= k % 3; i++)
                df_store_run_append(s, run_key(k, key), run_block(k, i, block));
        df_store_run_end(s, run_key(k, key));
        if (k > 3)
                df_store_run_del(s, run_key(k - 3, key));
        df_store_run_append(s, df_bytes_str("never-ends"), df_bytes(block, RUN_BLOCK));
}

static int count_run(void *arg, struct df_bytes key, struct df_error *err)
{
        (void)key;
        (void)err;
        ++*(uint64_t *)arg;
        return 0;
}

/* An independent recount of the runs of checkpoint k. */
static int check_runs(struct df_store *s, uint64_t k, struct df_error *err)
{
        uint64_t from = k > 3 ? k - 2 : 1, n = 0;
        uint8_t want[RUN_BLOCK];
        struct df_bytes got;
        char key[32];
        bool found;
        int r = df_store_run_scan(s, df_bytes(NULL, 0), count_run, &n, err);

        if (r == 0 && n != (k < 3 ? k : 3))
                return df_fail(err, DF_EPARSE, "k %" PRIu64 ": %" PRIu64 " runs", k, n);
        for (uint64_t run = from; r == 0 && run <= k; run++)
                for (uint64_t i = 0; r == 0 && i <= run % 3 + 1; i++) {
                        r = df_store_run_read(s, run_key(run, key), (uint32_t)i, &got, &found, err);
                        if (r == 0 && (found != (i <= run % 3) ||
                                       (found && !df_bytes_eq(got, run_block(run, i, want)))))
                                return df_fail(err, DF_EPARSE,
                                               "block %" PRIu64 " of run %" PRIu64 " is wrong", i,
                                               run);
                }
        return r;
}

static void put_k(struct df_store *s, uint64_t k)
{
        char key[32];
        uint8_t value[3000];
        int n = snprintf(key, sizeof(key), "data-%06" PRIu64, k);

        make_value(k, sizeof(value), value);
        df_store_put(s, df_bytes(key, (size_t)n), df_bytes(value, sizeof(value)));
        df_store_put(s, df_bytes_str("hot"), df_bytes(value, 100));
        df_store_put(s, df_bytes_str("k"), df_bytes(&k, sizeof(k)));
        put_run(s, k);
}

static struct df_bytes note_of(uint64_t k, char ret[32])
{
        return df_bytes(ret, (size_t)snprintf(ret, 32, "note \n%" PRIu64, k));
}

static inline int do_k(struct df_ckpt *c, struct df_store *s, uint64_t k, struct df_error *err)
{
        char note[32];
        int r;

        put_k(s, k);
        if ((r = df_store_commit(s, err)) || (r = df_ckpt_persist(c, k, note_of(k, note), err)) ||
            (r = df_ckpt_publish(c, k, err)))
                return r;
        return 0;
}

static int check_data(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        uint64_t *n = arg;
        char want[32];

        (*n)++;
        (void)snprintf(want, sizeof(want), "data-%06" PRIu64, *n);
        if (!df_bytes_eq(key, df_bytes_str(want)) || !value_is(value, *n, 3000))
                return df_fail(err, DF_EPARSE, "%s is wrong", want);
        return 0;
}

/* The store holds exactly checkpoint k: an independent recount. */
static inline int check_state(struct df_ckpt *c, struct df_store *s, uint64_t k,
                              struct df_error *err)
{
        struct df_bytes v = {0}, note;
        uint64_t n = 0, stored = 0;
        char want[32];
        bool found = false;

        int r = df_store_scan(s, df_bytes_str("data-"), check_data, &n, err);
        if (r)
                return r;
        if ((r = df_store_get(s, df_bytes_str("k"), &v, &found, err)))
                return r;
        if (found && v.len == sizeof(stored))
                memcpy(&stored, v.data, sizeof(stored));
        if (n != k || stored != k || found != (k > 0))
                return df_fail(err, DF_EPARSE, "k %" PRIu64 ": %" PRIu64 " rows, says %" PRIu64, k,
                               n, stored);
        if ((r = df_store_get(s, df_bytes_str("lost"), &v, &found, err)))
                return r;
        if (found)
                return df_fail(err, DF_EPARSE, "a write that no checkpoint holds is there");
        if ((r = check_runs(s, k, err)) || k == 0)
                return r;
        if ((r = df_ckpt_note(c, &note, err)))
                return r;
        if (!df_bytes_eq(note, note_of(k, want)))
                return df_fail(err, DF_EPARSE, "the note of %" PRIu64 " is another", k);
        return 0;
}

/* Prints "t<k>" after the takeover, "p<k>" after each publish. */
static inline int child_work(const char *dir, uint64_t cycles)
{
        struct df_ckpt *c = NULL;
        struct df_takeover t;
        struct df_error err = {0};

        int r = df_rocksdb_ckpt_open(dir, &small, &c, &err);
        if (r == 0)
                r = df_ckpt_takeover(c, &t, &err);
        if (r == 0)
                r = check_state(c, t.store, t.k, &err);
        if (r == 0) {
                printf("t%" PRIu64 "\n", t.k);
                (void)fflush(stdout);
        }
        for (uint64_t i = 1; r == 0 && i <= cycles; i++) {
                if ((r = do_k(c, t.store, t.k + i, &err)))
                        break;
                printf("p%" PRIu64 "\n", t.k + i);
                (void)fflush(stdout);
                r = df_ckpt_retire(c, &err);
                /* Committed, in no checkpoint: must be gone afterwards. */
                df_store_put(t.store, df_bytes_str("lost"), df_bytes_str("x"));
                if (r == 0)
                        r = df_store_commit(t.store, &err);
                df_store_del(t.store, df_bytes_str("lost"));
                if (r == 0 && i < cycles)
                        r = df_store_commit(t.store, &err);
        }
        if (r)
                (void)fprintf(stderr, "child: %d %s\n", r, err.text);
        df_ckpt_close(c);
        return r ? 1 : 0;
}

/* Run this program again with arguments; ret_k is the last number it printed. */
static inline int run_self(const char *mode, const char *dir, long n, uint64_t cycles,
                           uint64_t *ret_k)
{
        /* Its path means nothing once the program has a mount namespace of its own. */
        static char self[] = "/proc/self/exe";
        char at[24], count[24], out[4096] = "";
        posix_spawn_file_actions_t actions;
        size_t len = 0;
        int fds[2], status;
        pid_t pid;

        (void)snprintf(at, sizeof(at), "%ld", n);
        (void)snprintf(count, sizeof(count), "%" PRIu64, cycles);
        char *argv[] = {self, (char *)(uintptr_t)mode, (char *)(uintptr_t)dir, at, count, NULL};
        assert_int_equal(pipe(fds), 0);
        (void)posix_spawn_file_actions_init(&actions);
        (void)posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
        (void)posix_spawn_file_actions_addclose(&actions, fds[0]);
        (void)posix_spawn_file_actions_addclose(&actions, fds[1]);
        assert_int_equal(posix_spawn(&pid, self, &actions, NULL, argv, environ), 0);
        (void)posix_spawn_file_actions_destroy(&actions);
        (void)close(fds[1]);
        for (ssize_t got; (got = read(fds[0], out + len, sizeof(out) - 1 - len)) > 0;)
                len += (size_t)got;
        (void)close(fds[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        const char *last = NULL;
        for (const char *p = out; *p; p++)
                if (*p == 't' || *p == 'p')
                        last = p + 1;
        if (last)
                *ret_k = strtoull(last, NULL, 10);
        return status;
}

/* ---- files ---- */

__attribute__((format(printf, 1, 2))) static inline void run(const char *fmt, ...)
{
        char command[9000];
        va_list args;

        va_start(args, fmt);
        (void)vsnprintf(command, sizeof(command), fmt, args);
        va_end(args);
        assert_int_equal(system(command), 0);
}

/* A deep copy: hard links would carry the damage over. */
static inline void copy_dir(const char *from, const char *to)
{
        remove_dir(to);
        run("cp -r --no-preserve=links '%s' '%s'", from, to);
}

/* Name of the directory entry that starts with prefix (the last one); count of such entries. */
static inline int find_entry(const char *dir, const char *prefix, char ret[300])
{
        DIR *d = opendir(dir);
        int n = 0;

        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));)
                if (strncmp(e->d_name, prefix, strlen(prefix)) == 0) {
                        n++;
                        (void)snprintf(ret, 300, "%s", e->d_name);
                }
        (void)closedir(d);
        return n;
}

enum damage { FLIP, TRUNCATE, REMOVE, DAMAGES };

static inline void do_damage(const char *path, enum damage d)
{
        struct stat st;
        char c;

        assert_int_equal(stat(path, &st), 0);
        if (d == REMOVE) {
                assert_int_equal(unlink(path), 0);
        } else if (d == TRUNCATE) {
                assert_int_equal(truncate(path, st.st_size - 1), 0);
        } else {
                int fd = open(path, O_RDWR);
                assert_true(fd >= 0);
                assert_int_equal(pread(fd, &c, 1, st.st_size / 2), 1);
                c ^= 1;
                assert_int_equal(pwrite(fd, &c, 1, st.st_size / 2), 1);
                (void)close(fd);
        }
}

#endif
