/* test_ckpt_store.c - the checkpoint store (K2), and takeovers at what is committed (K8, K10, K11).
 *
 * Machines are directories: each has state of its own, all have the store. The committed offset is
 * played by the test: what it calls committed is what a takeover wants. */
#include "ckpt_child.h"

#include <pthread.h>

struct machine {
        char dir[300], store[300];
        struct df_ckpt *c;
        struct df_takeover t;
};

static char root[256];

static void open_machine(struct machine *m, const char *name, bool with_store)
{
        struct df_rocksdb_options o = small;

        (void)snprintf(m->dir, sizeof(m->dir), "%s/%s", root, name);
        (void)snprintf(m->store, sizeof(m->store), "%s/store", root);
        o.store_dir = with_store ? m->store : NULL;
        ok(df_rocksdb_ckpt_open(m->dir, &o, &m->c, err));
}

static struct df_ckpt_wanted wanted(const struct df_ckpt_ref *ref)
{
        struct df_ckpt_wanted w = {.any = ref != NULL};

        if (ref)
                w.ref = *ref;
        return w;
}

static void take(struct machine *m, const char *name, const struct df_ckpt_ref *ref)
{
        struct df_ckpt_wanted w = wanted(ref);

        open_machine(m, name, true);
        ok(df_ckpt_takeover_at(m->c, &w, &m->t, err));
}

static void assert_refused(const char *name, const struct df_ckpt_ref *ref, int code,
                           const char *part)
{
        struct df_ckpt_wanted w = wanted(ref);
        struct machine m;

        open_machine(&m, name, true);
        refuses(code, part, df_ckpt_takeover_at(m.c, &w, &m.t, err));
        df_ckpt_close(m.c);
}

/* The next checkpoint, uploaded; committed only if the test says so. */
static struct df_ckpt_ref persist(struct machine *m, uint64_t k)
{
        struct df_ckpt_ref ref;
        char note[32];

        put_k(m->t.store, k);
        ok(df_store_commit(m->t.store, err));
        ok(df_ckpt_persist(m->c, k, note_of(k, note), err));
        df_ckpt_candidate(m->c, &ref);
        return ref;
}

static void after_commit(struct machine *m, uint64_t k)
{
        ok(df_ckpt_publish(m->c, k, err));
        ok(df_ckpt_retire(m->c, err));
}

/* Machine "a" up to checkpoint k; ret: what is committed, and the one before. */
static void build(uint64_t k, struct df_ckpt_ref *ret, struct df_ckpt_ref *ret_before)
{
        struct machine a;

        take(&a, "a", NULL);
        assert_true(a.t.fresh);
        for (uint64_t i = 1; i <= k; i++) {
                *ret_before = *ret;
                *ret = persist(&a, i);
                after_commit(&a, i);
        }
        df_ckpt_close(a.c);
}

static int setup(void **state)
{
        (void)temp_dir(root);
        return 0;
}

static int teardown(void **state)
{
        remove_dir(root);
        return 0;
}

/* K2, K8: another machine has it from the store, and goes on; the first one comes back. */
static void test_another_machine(void **state)
{
        struct df_ckpt_ref committed = {0}, before = {0};
        char store[300], name[300];
        struct machine b, a;

        build(5, &committed, &before);
        (void)snprintf(store, sizeof(store), "%s/store", root);
        assert_int_equal(find_entry(store, "ck-", name), 2); /* K7: k and its parent */
        take(&b, "b", &committed);
        assert_int_equal(b.t.k, 5);
        assert_false(b.t.candidate);
        assert_true(b.t.fetched_bytes > 5 * 3000);
        assert_string_equal(b.t.name, committed.name);
        assert_memory_equal(b.t.digest, committed.digest, 32);
        ok(check_state(b.c, b.t.store, 5, err));
        for (uint64_t k = 6; k <= 8; k++) {
                committed = persist(&b, k);
                after_commit(&b, k);
        }
        df_ckpt_close(b.c);
        take(&a, "a", &committed); /* its own CURRENT is only a hint */
        assert_int_equal(a.t.k, 8);
        assert_true(a.t.fetched_bytes > 0);
        assert_true(a.t.epoch > b.t.epoch);
        ok(check_state(a.c, a.t.store, 8, err));
        df_ckpt_close(a.c);
        take(&a, "a", &committed);
        assert_int_equal(a.t.fetched_bytes, 0); /* now it is here */
        df_ckpt_close(a.c);
}

/* Without a store a machine says what is missing. */
static void test_without_a_store(void **state)
{
        struct df_ckpt_ref committed = {0}, before = {0};
        struct df_ckpt_wanted w;
        struct machine b;

        build(2, &committed, &before);
        w = wanted(&committed);
        open_machine(&b, "b", false);
        refuses(DF_ENOENT, "--checkpoint-store", df_ckpt_takeover_at(b.c, &w, &b.t, err));
        df_ckpt_close(b.c);
}

/* K8: a child of what is committed was persisted; wherever it is, it is opened first, of two
 * owners' the later one's. A damaged one is none. */
static void test_candidates(void **state)
{
        struct df_ckpt_ref committed = {0}, before = {0}, child;
        struct machine m;
        char path[900];

        build(3, &committed, &before);
        take(&m, "a", &committed);
        child = persist(&m, 4);
        df_ckpt_close(m.c);
        take(&m, "b", &committed);
        assert_true(m.t.candidate);
        assert_string_equal(m.t.name, child.name);
        ok(check_state(m.c, m.t.store, 4, err));
        df_ckpt_close(m.c);
        for (int i = 0; i < 2; i++) { /* in the store, and where it was fetched to */
                (void)snprintf(path, sizeof(path), "%s/%s/%s/MANIFEST.ck", root, i ? "store" : "b",
                               child.name);
                do_damage(path, FLIP);
        }
        take(&m, "b", &committed);
        assert_false(m.t.candidate);
        assert_int_equal(m.t.k, 3);
        ok(check_state(m.c, m.t.store, 3, err));
        df_ckpt_close(m.c);
}

/* K14: the group's offsets were deleted. A first candidate alone is no sign of that. */
static void test_offsets_deleted(void **state)
{
        struct df_ckpt_ref committed = {0}, before = {0};
        struct df_ckpt_wanted w = {.rebuild = true};
        struct machine m;

        take(&m, "a", NULL);
        (void)persist(&m, 1);
        df_ckpt_close(m.c);
        take(&m, "b", NULL);
        assert_true(m.t.fresh);
        df_ckpt_close(m.c);
        build(2, &committed, &before);
        assert_refused("a", NULL, DF_ESCHEMA, "the group's offsets were deleted");
        assert_refused("b", NULL, DF_ESCHEMA, "the group's offsets were deleted");
        /* K10: also of a store that was lost whole. */
        (void)snprintf(m.dir, sizeof(m.dir), "%s/no-store", root);
        ok(df_rocksdb_ckpt_set_aside(m.dir, committed.name, err));
        open_machine(&m, "b", true);
        ok(df_ckpt_takeover_at(m.c, &w, &m.t, err)); /* K10: told to */
        assert_true(m.t.fresh);
        df_ckpt_close(m.c);
}

/* K8: the owner was stopped, another machine took over and committed; then it goes on where it was,
 * at any of its steps. Nothing of the new owner's is touched. */
static void test_a_zombie_is_harmless(void **state)
{
        for (int at = 0; at < 3; at++) {
                struct df_ckpt_ref committed = {0}, last;
                struct machine zombie, owner, third;

                (void)setup(NULL);
                take(&zombie, "z", NULL);
                for (uint64_t k = 1; k <= 3; k++) {
                        committed = persist(&zombie, k);
                        if (k < 3 || at != 2) /* 2: stopped between the commit and what follows */
                                after_commit(&zombie, k);
                }
                if (at == 1) /* stopped in a commit that is then fenced */
                        (void)persist(&zombie, 4);
                take(&owner, "o", &committed);
                last = persist(&owner, owner.t.k + 1);
                if (at == 2)
                        after_commit(&zombie, 3);
                else if (at == 1)
                        ok(df_ckpt_retire(zombie.c, err));
                else
                        (void)persist(&zombie, 4);
                after_commit(&owner, owner.t.k + 1);
                ok(df_ckpt_retire(zombie.c, err));
                df_ckpt_drop_live(zombie.c);
                take(&third, "t", &last);
                assert_int_equal(third.t.k, owner.t.k + 1);
                ok(check_state(third.c, third.t.store, owner.t.k + 1, err));
                df_ckpt_close(third.c);
                df_ckpt_close(owner.c);
                df_ckpt_close(zombie.c);
                (void)teardown(NULL);
        }
        (void)setup(NULL);
}

/* ---- damage ---- */

static void copy_all(const char *from, const char *to)
{
        static const char *const parts[] = {"a", "store"};
        char f[400], t[400];

        for (size_t i = 0; i < 2; i++) {
                (void)snprintf(f, sizeof(f), "%s/%s%s", root, from, parts[i]);
                (void)snprintf(t, sizeof(t), "%s/%s%s", root, to, parts[i]);
                copy_dir(f, t);
        }
}

/* Each file of the committed checkpoint flipped, cut and removed: here, it comes from the store; in
 * the store, the own one does; in both, it is refused by the file's name, and with --from
 * checkpoint the one before is opened, on any machine. */
static void test_each_file_damaged(void **state)
{
        struct df_ckpt_ref committed = {0}, before = {0};
        struct df_rocksdb_fallback f;
        char path[900];
        struct machine m;
        int files = 0;

        build(4, &committed, &before);
        copy_all("", "good-");
        (void)snprintf(path, sizeof(path), "%s/good-store/%s", root, committed.name);
        DIR *d = opendir(path);
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));) {
                if (e->d_name[0] == '.')
                        continue;
                files++;
                for (int how = 0; how < DAMAGES; how++) {
                        copy_all("good-", "");
                        (void)snprintf(path, sizeof(path), "%s/a/%s/%s", root, committed.name,
                                       e->d_name);
                        do_damage(path, (enum damage)how);
                        take(&m, "a", &committed);
                        assert_int_equal(m.t.k, 4);
                        assert_true(m.t.fetched_bytes > 0);
                        ok(check_state(m.c, m.t.store, 4, err));
                        df_ckpt_close(m.c);

                        copy_all("good-", "");
                        (void)snprintf(path, sizeof(path), "%s/store/%s/%s", root, committed.name,
                                       e->d_name);
                        do_damage(path, (enum damage)how);
                        assert_refused("other", &committed, DF_ECORRUPT, e->d_name);
                        refuses(DF_EEXIST, "nothing to recover",
                                df_rocksdb_ckpt_fallback_at(m.dir, m.store, &committed, false, &f,
                                                            err));
                        take(&m, "a", &committed);
                        assert_int_equal(m.t.k, 4);
                        df_ckpt_close(m.c);

                        (void)snprintf(path, sizeof(path), "%s/a/%s/%s", root, committed.name,
                                       e->d_name);
                        do_damage(path, (enum damage)how);
                        assert_refused("a", &committed, DF_ECORRUPT, e->d_name);
                        ok(df_rocksdb_ckpt_fallback_at(m.dir, m.store, &committed, true, &f, err));
                        ok(df_rocksdb_ckpt_fallback_at(m.dir, m.store, &committed, false, &f, err));
                        assert_string_equal(f.from, committed.name);
                        assert_string_equal(f.to, before.name);
                        for (int i = 0; i < 2; i++) {
                                take(&m, i ? "a" : "other", &committed);
                                assert_int_equal(m.t.k, 3);
                                ok(check_state(m.c, m.t.store, 3, err));
                                df_ckpt_close(m.c);
                        }
                }
        }
        (void)closedir(d);
        assert_true(files >= 5); /* MANIFEST.ck, CURRENT, MANIFEST-n, OPTIONS-n, SST files */
}

/* ---- epochs ---- */

#define RACERS 4
#define TAKEOVERS 40
static uint64_t epochs[RACERS][TAKEOVERS];

static void *race(void *arg)
{
        const size_t me = (size_t)(uintptr_t)arg;
        char name[16];

        (void)snprintf(name, sizeof(name), "racer-%zu", me);
        for (int i = 0; i < TAKEOVERS; i++) {
                struct machine m;

                take(&m, name, NULL);
                epochs[me][i] = m.t.epoch;
                df_ckpt_close(m.c);
        }
        return NULL;
}

/* K5: source, k and epoch name a collection, so no two owners may have an epoch in common. */
static void test_epochs_are_unique(void **state)
{
        static uint64_t seen[RACERS * TAKEOVERS];
        pthread_t threads[RACERS];
        size_t n = 0;

        for (uintptr_t i = 0; i < RACERS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, race, (void *)i), 0);
        for (int i = 0; i < RACERS; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
        for (int i = 0; i < RACERS; i++)
                for (int j = 0; j < TAKEOVERS; j++) {
                        assert_true(j == 0 || epochs[i][j] > epochs[i][j - 1]);
                        for (size_t k = 0; k < n; k++)
                                assert_true(seen[k] != epochs[i][j]);
                        seen[n++] = epochs[i][j];
                }
}

/* ---- crashes and full disks ---- */

/* Another process, for RocksDB's threads do not outlive a fork: root, name, digest, call, errno. */
static int child(char **arg)
{
        struct df_ckpt_wanted w = {.any = true};
        struct machine m;
        char note[32];
        struct df_error err = {0};
        long at = strtol(arg[3], NULL, 10);
        bool whole;
        int r;

        (void)snprintf(root, sizeof(root), "%s", arg[0]);
        (void)snprintf(w.ref.name, sizeof(w.ref.name), "%s", arg[1]);
        for (size_t i = 0; i < 32; i++) {
                char hex[3] = {arg[2][2 * i], arg[2][2 * i + 1], '\0'};

                w.ref.digest[i] = (uint8_t)strtoul(hex, NULL, 16);
        }
        open_machine(&m, "a", true);
        fault_errno = (int)strtol(arg[4], NULL, 10);
        fault_at = at;
        r = df_ckpt_takeover_at(m.c, &w, &m.t, &err);
        if (r == 0) {
                put_k(m.t.store, m.t.k + 1);
                r = df_store_commit(m.t.store, &err);
        }
        if (r == 0)
                r = df_ckpt_persist(m.c, m.t.k + 1, note_of(m.t.k + 1, note), &err);
        whole = fault_calls < at;
        fault_at = 0;
        df_ckpt_close(m.c);
        return r == 0 && whole ? 1 : 0;
}

static bool survived(const struct df_ckpt_ref *committed, long at, int number)
{
        static char self[] = "/proc/self/exe", mode[] = "--child";
        char digest[65], call[24], errno_text[24];
        char *argv[] = {self,   mode, root,       (char *)(uintptr_t)committed->name,
                        digest, call, errno_text, NULL};
        int status = 0;
        pid_t pid;

        for (size_t i = 0; i < 32; i++)
                (void)snprintf(digest + 2 * i, 3, "%02x", committed->digest[i]);
        (void)snprintf(call, sizeof(call), "%ld", at);
        (void)snprintf(errno_text, sizeof(errno_text), "%d", number);
        assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) || WTERMSIG(status) == SIGKILL);
        return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/* Killed, or an error, at each change of a file system in a takeover and an upload: another machine
 * finds what is committed, or its whole child, and nothing in between. */
static void test_killed_at_each_call(void **state)
{
        static const int numbers[] = {0, ENOSPC};
        struct df_ckpt_ref committed = {0}, before = {0};
        long n = 1, points = 0;

        build(3, &committed, &before);
        for (size_t i = 0; i < 2; i++) {
                bool whole = false;

                for (n = 1; !whole; n++) {
                        struct machine b;

                        whole = survived(&committed, n, numbers[i]);
                        take(&b, "b", &committed);
                        if (b.t.k != 3 + (uint64_t)b.t.candidate)
                                fail_msg("call %ld, errno %d: k %llu", n, numbers[i],
                                         (unsigned long long)b.t.k);
                        ok(check_state(b.c, b.t.store, b.t.k, err));
                        df_ckpt_close(b.c);
                }
                points += n;
        }
        assert_true(points > 40);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_another_machine, setup, teardown),
                cmocka_unit_test_setup_teardown(test_without_a_store, setup, teardown),
                cmocka_unit_test_setup_teardown(test_candidates, setup, teardown),
                cmocka_unit_test_setup_teardown(test_offsets_deleted, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_zombie_is_harmless, setup, teardown),
                cmocka_unit_test_setup_teardown(test_each_file_damaged, setup, teardown),
                cmocka_unit_test_setup_teardown(test_epochs_are_unique, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_at_each_call, setup, teardown),
        };

        if (argc == 7 && strcmp(argv[1], "--child") == 0)
                return child(argv + 2);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
