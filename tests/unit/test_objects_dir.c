/* What a directory store adds to the port's cases (test_objects.c): a full disk, writers who die,
 * several processes, and files that are nobody's object. */
#include "objects_test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static struct dfi_dir *dir_of(struct df_objects *o)
{
        return (struct dfi_dir *)(void *)o;
}

static struct df_objects *fresh(char place[200])
{
        fresh_place(false, "", place, 200);
        return open_place(place);
}

/* Files in the store's root that begin with prefix. */
static int count_files(struct df_objects *o, const char *prefix)
{
        DIR *dir = fdopendir(openat(dir_of(o)->root, ".", O_RDONLY | O_DIRECTORY));
        struct dirent *e;
        int n = 0;

        assert_non_null(dir);
        while ((e = readdir(dir)))
                n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
        (void)closedir(dir);
        return n;
}

/* ---- a full disk ---- */

static size_t room;

static ssize_t full_write(int fd, const void *data, size_t len)
{
        if (room == 0) {
                errno = ENOSPC;
                return -1;
        }
        len = len < room ? len : room;
        room -= len;
        return write(fd, data, len);
}

static void test_disk_full(void **state)
{
        char place[200];
        struct df_objects *o = fresh(place);
        struct df_object_version v;

        put_text(o, "head", "old");
        must_hold(o, "head", df_bytes_str("old"), &v);
        dir_of(o)->write = full_write;
        for (size_t n = 0; n < 5; n++) { /* at every byte */
                room = n;
                fails(df_objects_put_absent(o, "a/new", df_bytes_str("12345"), &err), DF_ENOSPC,
                      "a/new");
                room = n;
                fails(df_objects_put_match(o, "head", df_bytes_str("12345"), &v, NULL, &err),
                      DF_ENOSPC, "head");
                must_list(o, "", "head:3 ");
                assert_int_equal(count_files(o, DFI_DIR_TEMPORARY), 0);
        }
        holds_text(o, "head", "old");
        room = 5;
        put_text(o, "a/new", "12345");
        holds_text(o, "a/new", "12345");
        df_objects_close(o);
}

/* A limit of the kernel in place of the hook: a write that is cut, then refused. */
static void test_file_size_limit(void **state)
{
        char place[200];
        struct df_objects *o = fresh(place);
        struct rlimit was, now;
        static char bytes[100000];
        int rc;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
        (void)signal(SIGXFSZ, SIG_IGN);
        now = (struct rlimit){.rlim_cur = 50000, .rlim_max = was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
        rc = df_objects_put_absent(o, "large", df_bytes(bytes, sizeof(bytes)), &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(rc, DF_EIO);
        assert_non_null(strstr(err.text, "File too large"));
        must_list(o, "", "");
        assert_int_equal(count_files(o, DFI_DIR_TEMPORARY), 0);
        df_objects_close(o);
}

/* ---- what is durable when ---- */

static struct dfi_dir *synced_store;
static char synced[200]; /* "file " for the object's own, else the directory's place in the store */
static int fail_sync_at; /* the n-th, from 1; 0: none */

static int note_sync(int fd)
{
        static const char *const places[] = {".", "a", "a/b"};
        struct stat is, dir;
        const char *what = "?";

        (void)fstat(fd, &is);
        if (S_ISREG(is.st_mode)) /* no name yet: nobody sees it before it is durable */
                what = faccessat(synced_store->root, "a/b/c", F_OK, 0) == 0 ? "file-late" : "file";
        for (int i = 0; i < 3 && S_ISDIR(is.st_mode); i++)
                if (fstatat(synced_store->root, places[i], &dir, 0) == 0 && dir.st_ino == is.st_ino)
                        what = places[i];
        (void)snprintf(synced + strlen(synced), sizeof(synced) - strlen(synced), "%s ", what);
        errno = EIO;
        return fail_sync_at > 0 && --fail_sync_at == 0 ? -1 : 0;
}

/* The file before it has its name; then each directory up to the root, also for an object that
 * another writer has just named, and may not have made durable. */
static void test_durable(void **state)
{
        char place[200];
        struct df_objects *o = fresh(place);
        struct df_object_version v;

        synced_store = dir_of(o);
        dir_of(o)->sync = note_sync;
        synced[0] = '\0';
        fail_sync_at = 1;
        fails(df_objects_put_absent(o, "a/b/c", df_bytes_str("x"), &err), DF_EIO, "a/b/c");
        must_list(o, "", "");
        assert_int_equal(count_files(o, DFI_DIR_TEMPORARY), 0);
        synced[0] = '\0';
        put_text(o, "a/b/c", "x");
        assert_string_equal(synced, "file a/b a . ");
        synced[0] = '\0';
        fails(df_objects_put_absent(o, "a/b/c", df_bytes_str("x"), &err), DF_EEXIST, "");
        assert_string_equal(synced, "a/b a . ");
        must_hold(o, "a/b/c", df_bytes_str("x"), &v);
        synced[0] = '\0';
        ok(df_objects_put_match(o, "a/b/c", df_bytes_str("y"), &v, &v, &err));
        assert_string_equal(synced, "file-late a/b a . "); /* the old one is there */
        synced[0] = '\0';
        ok(df_objects_remove(o, "a/b/c", &err));
        assert_string_equal(synced, "a/b a . ");
        for (int n = 2; n <= 4; n++) {
                fail_sync_at = n;
                fails(df_objects_put_absent(o, "a/b/c", df_bytes_str("x"), &err), DF_EDOUBT,
                      "ask with get");
                fail_sync_at = 0;
                ok(df_objects_remove(o, "a/b/c", &err));
        }
        df_objects_close(o);
}

/* ---- writers who die ---- */

static ssize_t die_in_write(int fd, const void *data, size_t len)
{
        (void)!write(fd, data, len / 2);
        _exit(9);
}

static void test_left_over(void **state)
{
        char place[200];
        struct df_objects *o = fresh(place);
        struct timespec old[2], young[2];
        pid_t child = fork();
        int fd;

        if (child == 0) {
                dir_of(o)->write = die_in_write;
                (void)df_objects_put_absent(o, "a/b", df_bytes_str("12345"), NULL);
                _exit(0);
        }
        assert_int_equal(waitpid(child, &fd, 0), child);
        assert_int_equal(WEXITSTATUS(fd), 9);
        assert_int_equal(count_files(o, DFI_DIR_TEMPORARY), 1);
        must_list(o, "", "");
        /* Two more: one just too old, one not. */
        (void)clock_gettime(CLOCK_REALTIME, &old[0]);
        old[0].tv_sec -= DFI_DIR_TEMPORARY_MAX_S + 60;
        young[0] = old[0];
        young[0].tv_sec += 120;
        old[1] = old[0];
        young[1] = young[0];
        for (int i = 0; i < 2; i++) {
                fd = openat(dir_of(o)->root, i ? ".tmp-old" : ".tmp-young", O_CREAT | O_WRONLY,
                            0600);
                assert_true(fd >= 0);
                assert_int_equal(futimens(fd, i ? old : young), 0);
                (void)close(fd);
        }
        df_objects_close(o);
        o = open_place(place);
        assert_int_equal(count_files(o, ".tmp-old"), 0);
        assert_int_equal(count_files(o, DFI_DIR_TEMPORARY), 2);
        put_text(o, "a/b", "12345");
        must_list(o, "", "a/b:5 ");
        df_objects_close(o);
}

/* ---- several processes (A1: two archivers on one store) ---- */

#define PROCESSES 3
#define ROUNDS 30

static void count_up(const char *place)
{
        struct df_objects_options options = options_of(place);
        struct df_objects *o = NULL;
        int done = 0, rc = df_objects_open(&options, &o, NULL);

        while (rc == 0 && done < ROUNDS) {
                struct df_object_version was;
                struct df_buf got = {0};
                char text[32];

                rc = df_objects_get(o, "counter", &got, &was, NULL);
                df_buf_append(&got, "", 1);
                (void)snprintf(text, sizeof(text), "%ld",
                               strtol((const char *)got.data, NULL, 10) + 1);
                df_buf_release(&got);
                if (rc == 0)
                        rc = df_objects_put_match(o, "counter", df_bytes_str(text), &was, NULL,
                                                  NULL);
                done += rc == 0;
                rc = rc == DF_EEXIST ? 0 : rc;
        }
        _exit(rc == 0 ? 0 : 1);
}

static void test_processes(void **state)
{
        char place[200], want[16];
        struct df_objects *o = fresh(place);
        pid_t children[PROCESSES];

        put_text(o, "counter", "0");
        for (int i = 0; i < PROCESSES; i++) {
                children[i] = fork();
                if (children[i] == 0)
                        count_up(place);
        }
        for (int i = 0; i < PROCESSES; i++) {
                int status;

                assert_int_equal(waitpid(children[i], &status, 0), children[i]);
                assert_int_equal(status, 0);
        }
        (void)snprintf(want, sizeof(want), "%d", PROCESSES * ROUNDS);
        holds_text(o, "counter", want);
        df_objects_close(o);
}

/* ---- names and files ---- */

static void test_object_or_folder(void **state)
{
        char place[200];
        struct df_objects *o = fresh(place);
        struct df_buf none = {0};

        put_text(o, "a/b", "x");
        fails(df_objects_put_absent(o, "a", df_bytes_str("y"), &err), DF_EINVAL, "never both");
        fails(df_objects_put_absent(o, "a/b/c", df_bytes_str("y"), &err), DF_EINVAL, "never both");
        fails(df_objects_put_absent(o, "a/b/c/d", df_bytes_str("y"), &err), DF_EINVAL,
              "never both");
        fails(df_objects_get(o, "a", &none, NULL, &err), DF_ENOENT, "no object");
        fails(df_objects_get(o, "a/b/c", &none, NULL, &err), DF_ENOENT, "a/b/c");
        ok(df_objects_remove(o, "a", &err));
        must_list(o, "", "a/b:1 ");
        assert_int_equal(count_files(o, DFI_DIR_TEMPORARY), 0);
        df_objects_close(o);
}

/* What people and backups leave in a directory is no object. */
static void test_foreign_files(void **state)
{
        static const char *const names[] = {"README", ".hidden", "a b", "lost+found"};
        char place[200];
        struct df_objects *o = fresh(place);

        put_text(o, "a/b", "x");
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                (void)close(openat(dir_of(o)->root, names[i], O_CREAT | O_WRONLY, 0600));
        assert_int_equal(mkdirat(dir_of(o)->root, "a/.snapshot", 0700), 0);
        (void)close(openat(dir_of(o)->root, "a/.snapshot/c", O_CREAT | O_WRONLY, 0600));
        assert_int_equal(mkfifoat(dir_of(o)->root, "pipe", 0600), 0);
        must_list(o, "", "a/b:1 ");
        fails(df_objects_get(o, "pipe", &(struct df_buf){0}, NULL, &err), DF_ENOENT, "no object");
        df_objects_close(o);
}

static void test_open(void **state)
{
        char place[200], file[100];
        struct df_objects *o = NULL;
        struct df_objects_options options = options_of("dir:relative");

        fails(df_objects_open(&options, &o, &err), DF_EINVAL, "absolute");
        options.place = "dir:/";
        fails(df_objects_open(&options, &o, &err), DF_EINVAL, "absolute");
        (void)snprintf(place, sizeof(place), "dir:%s/none/below", test_root);
        options.place = place;
        fails(df_objects_open(&options, &o, &err), DF_EIO, "the one above it must exist");
        (void)snprintf(file, sizeof(file), "%s/file", test_root);
        (void)close(open(file, O_CREAT | O_WRONLY, 0600));
        (void)snprintf(place, sizeof(place), "dir:%s", file);
        fails(df_objects_open(&options, &o, &err), DF_EIO, "Not a directory");
}

/* A store that is open goes on in its directory, whatever is put in its place. */
static void test_moved_away(void **state)
{
        char place[200], elsewhere[220];
        struct df_objects *o = fresh(place), *new_one;

        put_text(o, "a", "x");
        (void)snprintf(elsewhere, sizeof(elsewhere), "%s-moved", place + 4);
        assert_int_equal(rename(place + 4, elsewhere), 0);
        new_one = open_place(place);
        fails(df_objects_put_absent(o, "a", df_bytes_str("y"), &err), DF_EEXIST, "a");
        put_text(new_one, "a", "y");
        holds_text(o, "a", "x");
        df_objects_close(new_one);
        df_objects_close(o);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_disk_full),     cmocka_unit_test(test_file_size_limit),
                cmocka_unit_test(test_left_over),     cmocka_unit_test(test_durable),
                cmocka_unit_test(test_processes),     cmocka_unit_test(test_object_or_folder),
                cmocka_unit_test(test_foreign_files), cmocka_unit_test(test_open),
                cmocka_unit_test(test_moved_away),
        };
        int rc;

        roll_seed();
        make_test_root();
        rc = cmocka_run_group_tests_name("objects_dir", tests, NULL, NULL);
        remove_test_root();
        return rc;
}
