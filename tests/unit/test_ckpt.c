/* test_ckpt.c - checkpoints of a state directory: K2, K4, K7, K8, K11, K14. */
#include "ckpt_child.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

/* ---- helpers ---- */

struct owner {
        struct df_ckpt *c;
        struct df_takeover t;
};

static void take(struct owner *o, const char *dir)
{
        ok(df_rocksdb_ckpt_open(dir, &small, &o->c, err));
        ok(df_ckpt_takeover(o->c, &o->t, err));
}

/* A state directory with checkpoints 1 to k, the last two kept. */
static void build(const char *dir, uint64_t k)
{
        struct owner o;

        take(&o, dir);
        for (uint64_t i = o.t.k + 1; i <= k; i++) {
                ok(do_k(o.c, o.t.store, i, err));
                ok(df_ckpt_retire(o.c, err));
        }
        df_ckpt_close(o.c);
}

static void assert_refused(const char *dir, int code, const char *part)
{
        struct df_ckpt *c;
        struct df_takeover t;

        ok(df_rocksdb_ckpt_open(dir, &small, &c, err));
        refuses(code, part, df_ckpt_takeover(c, &t, err));
        if (code == DF_ECORRUPT || code == DF_ESCHEMA)
                refuses(code, "adtally recover --partition N --from checkpoint|log",
                        df_ckpt_takeover(c, &t, err));
        df_ckpt_close(c);
}

static void assert_holds(const char *dir, uint64_t k)
{
        struct owner o;

        take(&o, dir);
        assert_int_equal(o.t.k, k);
        ok(check_state(o.c, o.t.store, k, err));
        df_ckpt_close(o.c);
}

/* ---- the plain cycle ---- */

static void test_cycle(void **state)
{
        char dir[256], sub[300], name[300];
        struct owner o;
        struct df_bytes note;
        uint8_t zero[32] = {0};

        (void)snprintf(sub, sizeof(sub), "%s/a/b/partition-0", temp_dir(dir));
        take(&o, sub);
        assert_true(o.t.fresh);
        assert_int_equal(o.t.k, 0);
        assert_int_equal(o.t.epoch, 1);
        assert_memory_equal(o.t.digest, zero, 32);
        refuses(DF_ENOENT, "no checkpoint yet", df_ckpt_note(o.c, &note, err));
        refuses(DF_EINVAL, "no candidate", df_ckpt_publish(o.c, 1, err));
        ok(df_ckpt_retire(o.c, err));
        for (uint64_t k = 1; k <= 5; k++) {
                ok(do_k(o.c, o.t.store, k, err));
                ok(df_ckpt_retire(o.c, err));
                assert_int_equal(find_entry(sub, "ck-", name), k == 1 ? 1 : 2); /* K7: k, k-1 */
        }
        refuses(DF_EINVAL, "checkpoint 5 after 5", df_ckpt_persist(o.c, 5, df_bytes(NULL, 0), err));
        /* A candidate nobody publishes is not the state. */
        put_k(o.t.store, 6);
        ok(df_store_commit(o.t.store, err));
        ok(df_ckpt_persist(o.c, 6, df_bytes_str("x"), err));
        refuses(DF_EINVAL, "no candidate 7", df_ckpt_publish(o.c, 7, err));
        ok(df_ckpt_retire(o.c, err));
        assert_int_equal(find_entry(sub, "ck-", name), 3);
        df_ckpt_drop_live(o.c);
        assert_int_equal(find_entry(sub, "live-", name), 0);
        ok(df_ckpt_takeover(o.c, &o.t, err));
        assert_false(o.t.fresh);
        assert_int_equal(o.t.epoch, 2);
        assert_int_equal(o.t.k, 5);
        ok(check_state(o.c, o.t.store, 5, err));
        assert_int_equal(find_entry(sub, "ck-", name), 2);
        df_ckpt_close(o.c);
        assert_holds(sub, 5);
        remove_dir(dir);
}

/* K8: one owner; the other is told who it is, and nothing of the owner's is touched. */
static void test_two_owners(void **state)
{
        char dir[256], name[300];
        struct owner o;
        struct df_rocksdb_fallback f;
        uint64_t k = 0;

        take(&o, temp_dir(dir));
        ok(do_k(o.c, o.t.store, 1, err));
        assert_refused(dir, DF_EFENCED, "owns this state");
        refuses(DF_EFENCED, "owns", df_rocksdb_ckpt_fallback(dir, false, &f, err));
        refuses(DF_EFENCED, "owns", df_rocksdb_ckpt_reset(dir, false, NULL, err));
        assert_int_not_equal(run_self("--work", dir, 0, 1, &k), 0); /* another process */
        assert_int_equal(find_entry(dir, "live-1-", name), 1);
        ok(do_k(o.c, o.t.store, 2, err));
        df_ckpt_drop_live(o.c); /* the lock stays */
        assert_refused(dir, DF_EFENCED, "owns this state");
        df_ckpt_close(o.c);
        assert_holds(dir, 2);
        remove_dir(dir);
}

/* ---- crashes ---- */

/* Kill -9 at the n-th change of the file system, for n = 1, 2, ... until the work ends by itself;
 * after each, the state is exactly that of the last publish that returned, or the next (K4, K8). */
static void sweep_kills(bool fresh_each, uint64_t cycles)
{
        char dir[256], work[300], live[300], again[300];
        uint64_t at_least = 0;
        long n = 1;

        (void)snprintf(work, sizeof(work), "%s/p", temp_dir(dir));
        for (;; n++) {
                uint64_t said = at_least, k = 0;
                if (fresh_each) {
                        remove_dir(work);
                        said = 0;
                }
                const int status = run_self("--work", work, n, cycles, &said);
                const int old = access(work, F_OK) == 0 ? find_entry(work, "live-", live) : 0;
                /* The next life may not use what is in the live store. */
                if (WIFSIGNALED(status))
                        assert_int_equal(WTERMSIG(status), SIGKILL);
                else
                        assert_int_equal(status, 0);
                assert_int_equal(run_self("--work", work, 0, 0, &k), 0);
                if (k != said && k != said + 1)
                        fail_msg("killed at call %ld: said %" PRIu64 ", found %" PRIu64, n, said,
                                 k);
                assert_true(old <= 1);
                assert_int_equal(find_entry(work, "live-", again), 0);
                assert_true(find_entry(work, "ck-", again) <= 2);
                at_least = k;
                if (!WIFSIGNALED(status))
                        break;
        }
        assert_true(n > 40); /* it was a sweep */
        remove_dir(dir);
}

static void test_kill_at_each_call_k8(void **state)
{
        sweep_kills(true, 1);
        sweep_kills(false, 3);
}

/* An error at the n-th call instead of death: the caller sees it, takes over, and has k or k-1. */
static void test_error_at_each_call_k7(void **state)
{
        static const int numbers[] = {EIO, ENOSPC};
        char dir[256];
        struct owner o;
        struct df_error err;

        take(&o, temp_dir(dir));
        uint64_t k = 0;
        for (int i = 0; i < 2; i++) {
                bool failed = true;
                for (long n = 1; failed; n++) {
                        err = (struct df_error){0};
                        fault_errno = numbers[i];
                        fault_calls = 0;
                        fault_at = n;
                        int r = do_k(o.c, o.t.store, k + 1, &err);
                        if (r == 0)
                                r = df_ckpt_retire(o.c, &err);
                        failed = fault_calls >= n;
                        fault_at = 0;
                        fault_errno = 0;
                        if (r == 0) { /* RocksDB does without the call (link: it copies) */
                                k++;
                                continue;
                        }
                        /* A failure of RocksDB's own threads comes without its cause. */
                        if (numbers[i] == ENOSPC && r != DF_ENOSPC &&
                            !(r == DF_EIO && strstr(err.text, "background errors")))
                                fail_msg("call %ld: %d %s", n, r, err.text);
                        if (numbers[i] == EIO && r != DF_EIO && r != DF_ECORRUPT)
                                fail_msg("call %ld: %d %s", n, r, err.text);
                        assert_int_not_equal(df_ckpt_publish(o.c, k + 1, &err), 0);
                        df_ckpt_drop_live(o.c);
                        if (df_ckpt_takeover(o.c, &o.t, &err))
                                fail_msg("call %ld: takeover: %s", n, err.text);
                        if ((o.t.k != k && o.t.k != k + 1) ||
                            check_state(o.c, o.t.store, o.t.k, &err))
                                fail_msg("call %ld: k %" PRIu64 " after %" PRIu64 ": %s", n, o.t.k,
                                         k, err.text);
                        k = o.t.k;
                }
        }
        df_ckpt_close(o.c);
        remove_dir(dir);
}

/* ---- damage ---- */

static int current_name(void *arg, const struct df_rocksdb_ckpt_info *info, struct df_error *err)
{
        if (info->is_current)
                (void)snprintf(arg, 300, "%s", info->name);
        return 0;
}

static void assert_fallback(const char *dir, const char *from, uint64_t k)
{
        struct df_rocksdb_fallback f, again;
        char kept[300];

        ok(df_rocksdb_ckpt_fallback(dir, true, &f, err));
        assert_refused(dir, DF_ECORRUPT, ""); /* dry run: nothing changed */
        ok(df_rocksdb_ckpt_fallback(dir, false, &again, err));
        assert_string_equal(f.to, again.to);
        assert_string_equal(again.from, from);
        assert_int_equal(again.k, k);
        assert_true(again.problem[0] != '\0');
        assert_holds(dir, k);
        if (from[0])
                assert_int_equal(find_entry(dir, "damaged-", kept), 1);
        refuses(DF_EEXIST, "nothing to recover", df_rocksdb_ckpt_fallback(dir, false, &f, err));
}

/* K8, K11: each file of CURRENT's checkpoint in turn is damaged in each way: refused by its name,
 * and the fallback goes to k-1. */
static void test_each_file_damaged(void **state)
{
        char dir[256], good[300], bad[300], current[300], path[900];
        int files = 0;

        (void)temp_dir(dir);
        (void)snprintf(good, sizeof(good), "%s/good", dir);
        (void)snprintf(bad, sizeof(bad), "%s/bad", dir);
        build(good, 4);
        ok(df_rocksdb_ckpt_list(good, true, current_name, current, err));
        (void)snprintf(path, sizeof(path), "%s/%s", good, current);
        DIR *d = opendir(path);
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));) {
                if (e->d_name[0] == '.')
                        continue;
                files++;
                for (int how = 0; how < DAMAGES; how++) {
                        copy_dir(good, bad);
                        (void)snprintf(path, sizeof(path), "%s/%s/%s", bad, current, e->d_name);
                        do_damage(path, (enum damage)how);
                        assert_refused(bad, DF_ECORRUPT, e->d_name);
                        assert_fallback(bad, current, 3);
                }
        }
        (void)closedir(d);
        assert_true(files >= 5); /* MANIFEST.ck, CURRENT, MANIFEST-n, OPTIONS-n, SST files */
        /* One file too many, and the whole directory lost. */
        copy_dir(good, bad);
        (void)snprintf(path, sizeof(path), "%s/%s/000999.sst", bad, current);
        overwrite(path, "x", 1);
        assert_refused(bad, DF_ECORRUPT, "000999.sst is not a file of this checkpoint");
        copy_dir(good, bad);
        (void)snprintf(path, sizeof(path), "%s/%s", bad, current);
        remove_dir(path);
        assert_refused(bad, DF_ECORRUPT, "MANIFEST.ck is missing");
        remove_dir(dir);
}

/* MANIFEST.ck cut at each line, and each line left out, is refused, also without CURRENT's digest
 * (the list looks at the seal). */
static int expect_unverified(void *arg, const struct df_rocksdb_ckpt_info *info,
                             struct df_error *err)
{
        if (strcmp(info->name, arg) == 0 &&
            (info->verified || !strstr(info->problem, "MANIFEST.ck")))
                return df_fail(err, DF_EPARSE, "%s verifies: %s", info->name, info->problem);
        return 0;
}

static void test_manifest_cut(void **state)
{
        static char text[1 << 16], cut[1 << 16];
        char dir[256], current[300], file[800], current_file[300], saved[300];

        build(temp_dir(dir), 3);
        ok(df_rocksdb_ckpt_list(dir, false, current_name, current, err));
        (void)snprintf(file, sizeof(file), "%s/%s/MANIFEST.ck", dir, current);
        (void)snprintf(current_file, sizeof(current_file), "%s/CURRENT", dir);
        size_t len = slurp(file, text, sizeof(text));
        size_t saved_len = slurp(current_file, saved, sizeof(saved));
        assert_true(len > 200);
        int lines = 0;
        for (size_t start = 0, end; start < len; start = end, lines++) {
                end = start +
                      (size_t)((char *)memchr(text + start, '\n', len - start) - (text + start)) +
                      1;
                overwrite(file, text, start); /* cut before this line */
                assert_refused(dir, DF_ECORRUPT, "MANIFEST.ck");
                overwrite(current_file, "", 0);
                ok(df_rocksdb_ckpt_list(dir, false, expect_unverified, current, err));
                overwrite(current_file, saved, saved_len);
                memcpy(cut, text, start); /* without this line */
                memcpy(cut + start, text + end, len - end);
                overwrite(file, cut, len - (end - start));
                assert_refused(dir, DF_ECORRUPT, "MANIFEST.ck");
        }
        assert_true(lines > 8);
        overwrite(file, text, len);
        assert_holds(dir, 3);
        remove_dir(dir);
}

/* CURRENT empty, garbage, cut, or gone: never a fresh start; back to what was surely published. */
static void test_current_damaged(void **state)
{
        static const char *const contents[] = {
                "",
                "\n",
                "garbage",
                "ck-1-1-0123456789abcdef\n",
                "ck-1-1-0123456789abcdef 00\n",
                "../../etc 0000000000000000000000000000000000000000000000000000000000000000\n",
                NULL,
        };
        char dir[256], file[400], good[300], bad[300], saved[300];

        (void)temp_dir(dir);
        (void)snprintf(good, sizeof(good), "%s/good", dir);
        (void)snprintf(bad, sizeof(bad), "%s/bad", dir);
        (void)snprintf(file, sizeof(file), "%s/CURRENT", bad);
        build(good, 3);
        for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
                copy_dir(good, bad);
                if (contents[i])
                        overwrite(file, contents[i], strlen(contents[i]));
                else
                        assert_int_equal(unlink(file), 0);
                assert_refused(bad, DF_ECORRUPT, "CURRENT");
                assert_fallback(bad, "", 2);
        }
        copy_dir(good, bad);
        size_t len = slurp(file, saved, sizeof(saved));
        for (size_t n = 0; n < len; n += 7) {
                overwrite(file, saved, n);
                assert_refused(bad, DF_ECORRUPT, "CURRENT");
        }
        remove_dir(dir);
}

/* Epochs never repeat: readers tell collections apart by them (K5). */
static void test_epoch_damaged(void **state)
{
        static const char *const contents[] = {"", "x\n", "01 new\n", "1 published\n", NULL};
        char dir[256], file[300];
        struct df_rocksdb_fallback f;
        struct owner o;

        build(temp_dir(dir), 2);
        build(dir, 3); /* the second takeover */
        uint64_t last = 2;
        (void)snprintf(file, sizeof(file), "%s/EPOCH", dir);
        for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
                if (contents[i])
                        overwrite(file, contents[i], strlen(contents[i]));
                else
                        assert_int_equal(unlink(file), 0);
                assert_refused(dir, DF_ECORRUPT, "EPOCH");
                ok(df_rocksdb_ckpt_fallback(dir, false, &f, err));
                assert_string_equal(f.from, f.to); /* CURRENT was well */
                take(&o, dir);
                assert_true(o.t.epoch > last);
                assert_int_equal(o.t.k, 3 + i);
                last = o.t.epoch;
                ok(do_k(o.c, o.t.store, 4 + i, err));
                df_ckpt_close(o.c);
        }
        remove_dir(dir);
}

/* Hard links share damage: no local checkpoint is left, only the log. K11, K14. */
static void test_shared_damage_then_reset(void **state)
{
        char dir[256], work[300], current[300], sst[300], path[5000], moved[4096], dry[4096];
        struct df_rocksdb_fallback f;
        struct owner o;

        (void)snprintf(work, sizeof(work), "%s/p", temp_dir(dir));
        refuses(DF_EIO, "LOCK", df_rocksdb_ckpt_reset(work, false, NULL, err));
        build(work, 3);
        ok(df_rocksdb_ckpt_list(work, false, current_name, current, err));
        (void)snprintf(path, sizeof(path), "%s/%s", work, current);
        run("cd '%s' && ls *.sst | head -1 | tr -d '\\n' > '%s.name'", path, work);
        (void)snprintf(path, sizeof(path), "%s.name", work);
        sst[slurp(path, sst, sizeof(sst) - 1)] = '\0';
        (void)snprintf(path, sizeof(path), "%s/%s/%s", work, current, sst);
        do_damage(path, FLIP);
        assert_refused(work, DF_ECORRUPT, sst);
        refuses(DF_ENOENT, "--from log", df_rocksdb_ckpt_fallback(work, false, &f, err));
        ok(df_rocksdb_ckpt_reset(work, true, dry, err));
        assert_refused(work, DF_ECORRUPT, sst);
        ok(df_rocksdb_ckpt_reset(work, false, moved, err));
        assert_string_equal(dry, moved);
        (void)snprintf(path, sizeof(path), "%s/%s/%s", moved, current, sst);
        assert_int_equal(access(path, F_OK), 0); /* aside, not deleted */
        take(&o, work);
        assert_true(o.t.fresh);
        assert_true(o.t.epoch > 3); /* goes on */
        ok(do_k(o.c, o.t.store, 1, err));
        df_ckpt_close(o.c);
        assert_holds(work, 1);
        remove_dir(dir);
}

static void test_newer_formats_refused(void **state)
{
        static char text[1 << 16];
        char dir[256], current[300], file[800];

        build(temp_dir(dir), 1);
        ok(df_rocksdb_ckpt_list(dir, false, current_name, current, err));
        (void)snprintf(file, sizeof(file), "%s/%s/MANIFEST.ck", dir, current);
        size_t len = slurp(file, text, sizeof(text));
        /* With a fitting seal and a fitting CURRENT, made by other tools. */
        text[len] = '\0';
        run("cd '%s' && f=%s/MANIFEST.ck && sed -i 's/^rocksdb .*/rocksdb 99.1.0/;/^seal/d' $f && "
            "s=$(sha256sum < $f | cut -c1-64) && echo \"seal $s\" >> $f && "
            "echo \"$(dirname $f) $(sha256sum < $f | cut -c1-64)\" > CURRENT",
            dir, current);
        assert_refused(dir, DF_ESCHEMA, "RocksDB 99.1.0");
        run("cd '%s' && f=%s/MANIFEST.ck && sed -i 's/^adtally-checkpoint 1/adtally-checkpoint 2/' "
            "$f && echo \"$(dirname $f) $(sha256sum < $f | cut -c1-64)\" > CURRENT",
            dir, current);
        assert_refused(dir, DF_ESCHEMA, "format 2");
        remove_dir(dir);
}

/* ---- a full disk ---- */

static void fill_disk(const char *path)
{
        static const char zeros[4096];
        int fd = open(path, O_WRONLY | O_CREAT, 0600);

        assert_true(fd >= 0);
        while (write(fd, zeros, sizeof(zeros)) == (ssize_t)sizeof(zeros))
                ;
        (void)close(fd);
}

static void test_full_disk_k7(void **state)
{
        char dir[256], filler[300], work[300];
        struct owner o;
        struct df_bytes v;
        bool found;

        (void)temp_dir(dir);
        if (mount("adtally-test", dir, "tmpfs", 0, "size=8m") < 0) {
                print_message("no right to mount a small tmpfs: skipped\n");
                remove_dir(dir);
                skip();
        }
        (void)snprintf(filler, sizeof(filler), "%s/filler", dir);
        (void)snprintf(work, sizeof(work), "%s/p", dir);
        take(&o, work);
        ok(do_k(o.c, o.t.store, 1, err));
        fill_disk(filler);
        df_store_put(o.t.store, df_bytes_str("k"), df_bytes_str("v"));
        ok(df_store_commit(o.t.store, err)); /* memory */
        refuses(DF_ENOSPC, "", df_ckpt_persist(o.c, 2, df_bytes(NULL, 0), err));
        assert_int_equal(unlink(filler), 0);
        /* Space alone does not bring it back. */
        refuses(DF_ENOSPC, "unusable", df_ckpt_persist(o.c, 2, df_bytes(NULL, 0), err));
        refuses(DF_ENOSPC, "unusable", df_store_commit(o.t.store, err));
        refuses(DF_ENOSPC, "unusable", df_store_get(o.t.store, df_bytes_str("k"), &v, &found, err));
        df_ckpt_drop_live(o.c);
        fill_disk(filler);
        refuses(DF_ENOSPC, "", df_ckpt_takeover(o.c, &o.t, err));
        assert_int_equal(unlink(filler), 0);
        ok(df_ckpt_takeover(o.c, &o.t, err));
        assert_int_equal(o.t.k, 1);
        ok(check_state(o.c, o.t.store, 1, err));
        /* A run is written before its commit, which says that it could not be. */
        fill_disk(filler);
        put_k(o.t.store, 2);
        refuses(DF_ENOSPC, ".run", df_store_commit(o.t.store, err));
        refuses(DF_ENOSPC, "unusable", df_ckpt_persist(o.c, 2, df_bytes(NULL, 0), err));
        assert_int_equal(unlink(filler), 0);
        df_ckpt_drop_live(o.c);
        ok(df_ckpt_takeover(o.c, &o.t, err));
        ok(check_state(o.c, o.t.store, 1, err));
        ok(do_k(o.c, o.t.store, 2, err));
        df_ckpt_close(o.c);
        assert_holds(work, 2);
        assert_int_equal(umount(dir), 0);
        remove_dir(dir);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_cycle),
                cmocka_unit_test(test_two_owners),
                cmocka_unit_test(test_kill_at_each_call_k8),
                cmocka_unit_test(test_error_at_each_call_k7),
                cmocka_unit_test(test_each_file_damaged),
                cmocka_unit_test(test_manifest_cut),
                cmocka_unit_test(test_current_damaged),
                cmocka_unit_test(test_epoch_damaged),
                cmocka_unit_test(test_shared_damage_then_reset),
                cmocka_unit_test(test_newer_formats_refused),
                cmocka_unit_test(test_full_disk_k7),
        };

        if (argc == 5 && strcmp(argv[1], "--work") == 0) {
                fault_at = strtol(argv[3], NULL, 10);
                return child_work(argv[2], strtoull(argv[4], NULL, 10));
        }
        /* Where allowed, an own mount namespace, before any thread: mounts go with the process. */
        if (unshare(CLONE_NEWNS) == 0)
                (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
