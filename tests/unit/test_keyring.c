/* test_keyring.c - the ring of signing keys: a rotation keeps every public key and deletes the old
 * private one; a crash or a failure between any two steps leaves a key that signs and signatures
 * that verify. */
#include "sign_test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define DOMAIN "adtally test 1"

/* ROOT/<a new name>, not there yet; good until the next one. */
static const char *new_ring(void)
{
        static char path[300];
        static int n;

        (void)snprintf(path, sizeof(path), "%s/ring%d", root, n++);
        return path;
}

static const char *in(const char *ring, const char *name)
{
        static char paths[4][400];
        static int n;

        n = (n + 1) % 4;
        (void)snprintf(paths[n], sizeof(paths[n]), "%s/%s", ring, name);
        return paths[n];
}

struct files {
        int publics, privates, others;
};

/* What a directory holds, by content of the files, not by our code. */
static struct files look(const char *ring)
{
        struct files f = {0};
        DIR *d = opendir(ring);

        for (const struct dirent *e; d && (e = readdir(d));) {
                char text[DF_SIGN_FILE_MAX];

                if (e->d_name[0] == '.')
                        continue;
                get_file(in(ring, e->d_name), text, sizeof(text));
                if (strstr(text, "PRIVATE KEY"))
                        f.privates++;
                else if (strstr(text, "PUBLIC KEY") && strstr(e->d_name, ".pub"))
                        f.publics++;
                else
                        f.others++;
        }
        if (d)
                closedir(d);
        return f;
}

static void assert_files(const char *ring, int publics, int privates)
{
        struct files f = look(ring);

        if (f.publics != publics || f.privates != privates || f.others != 0)
                fail_msg("%s: %d public, %d private, %d other files, not %d, %d, 0", ring,
                         f.publics, f.privates, f.others, publics, privates);
}

struct signature {
        char id[DF_SIGN_ID_SIZE];
        uint8_t sig[DF_SIGN_SIZE];
};

static struct signature sign(const char *ring)
{
        struct df_sign_key *k = NULL;
        struct signature s;

        ok(df_keyring_open(ring, &k, &err));
        memcpy(s.id, df_sign_key_public(k)->id, sizeof(s.id));
        ok(df_sign(k, DOMAIN, df_bytes_str("a bill"), s.sig, &err));
        df_sign_key_release(k);
        return s;
}

static void assert_verifies(const char *ring, const struct signature *s)
{
        struct df_sign_public p;

        ok(df_keyring_find(ring, s->id, &p, &err));
        ok(df_sign_verify(&p, DOMAIN, df_bytes_str("a bill"), s->sig, &err));
}

static void a_key_is_made_once(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, again;
        struct df_sign_key *k = NULL;
        char before[500], after[500];
        struct stat st;

        (void)state;
        fails(df_keyring_open(ring, &k, &err), DF_ENOENT, "key create --signing");
        fails(df_keyring_create(ring, true, &made, NULL, &err), DF_ENOENT, "nothing to rotate");
        fails(df_keyring_open(ring, &k, &err), DF_ENOENT, "key create --signing");
        ok(df_keyring_create(ring, false, &made, &again, &err));
        assert_string_equal(again.id, "");
        assert_int_equal(stat(in(ring, "signing.key"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        get_file(in(ring, "signing.key"), before, sizeof(before));
        fails(df_keyring_create(ring, false, &again, NULL, &err), DF_EEXIST, "--rotate");
        get_file(in(ring, "signing.key"), after, sizeof(after));
        assert_string_equal(before, after);
        assert_files(ring, 1, 1);
        assert_string_equal(sign(ring).id, made.id);
        assert_null(k);
}

static void a_rotation_keeps_old_signatures(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, old;
        struct signature s[5];
        struct df_keyring_entry *keys = NULL;
        size_t count = 0;

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        for (int i = 0; i < 5; i++) {
                struct timespec times[2] = {{.tv_sec = 2000 - i}, {.tv_sec = 2000 - i}};
                char name[DF_SIGN_ID_SIZE + 4];

                s[i] = sign(ring);
                assert_string_equal(s[i].id, made.id);
                (void)snprintf(name, sizeof(name), "%s.pub", made.id);
                assert_int_equal(utimensat(AT_FDCWD, in(ring, name), times, 0), 0);
                if (i == 4)
                        break;
                ok(df_keyring_create(ring, true, &made, &old, &err));
                assert_string_equal(old.id, s[i].id);
                assert_files(ring, i + 2, 1);
        }
        for (int i = 0; i < 5; i++)
                assert_verifies(ring, &s[i]);
        ok(df_keyring_list(ring, &keys, &count, &err)); /* the files say: the last one is oldest */
        assert_int_equal(count, 5);
        for (int i = 0; i < 5; i++) {
                assert_string_equal(keys[i].key.id, s[4 - i].id);
                assert_int_equal(keys[i].created_ms, (1996 + i) * 1000);
                assert_int_equal(keys[i].current, i == 0);
        }
        free(keys);
        assert_int_equal(unlink(in(ring, "signing.key")), 0); /* a verifier's copy */
        ok(df_keyring_list(ring, &keys, &count, &err));
        for (size_t i = 0; i < count; i++)
                assert_false(keys[i].current);
        free(keys);
        assert_verifies(ring, &s[0]);
        ok(df_keyring_list(at("no-ring"), &keys, &count, &err));
        assert_int_equal(count, 0);
}

/* ---- a crash before each step ---- */

static void die_at(void *left)
{
        if (--*(int *)left == 0)
                _exit(9);
}

/* Whether the change, in a process of its own, died before it was done. */
static bool crash(const char *ring, bool rotate, int at_step)
{
        struct df_sign_public made;
        int status, left = at_step;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(dfi_keyring_change(ring, rotate, die_at, &left, &made, NULL, NULL) ? 1 : 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        return WEXITSTATUS(status) == 9;
}

static void a_first_key_survives_a_crash(void **state)
{
        int step = 1;

        (void)state;
        for (bool died = true; died; step++) {
                const char *ring = new_ring();
                struct df_sign_public made;
                struct df_sign_key *k = NULL;
                bool was_made;

                died = crash(ring, false, step);
                was_made = df_keyring_open(ring, &k, NULL) == 0;
                df_sign_key_release(k);
                assert_true(was_made || died);
                if (was_made) {
                        struct signature s = sign(ring);

                        fails(df_keyring_create(ring, false, &made, NULL, &err), DF_EEXIST, "");
                        ok(df_keyring_create(ring, true, &made, NULL, &err));
                        assert_verifies(ring, &s);
                        assert_files(ring, 2, 1);
                } else { /* the next one is alone: nothing that was left ever signed */
                        ok(df_keyring_create(ring, false, &made, NULL, &err));
                        assert_files(ring, 1, 1);
                }
                assert_string_equal(sign(ring).id, made.id);
        }
        assert_true(step > 6); /* remove twice, private, public twice, place, sync */
}

static void a_rotation_survives_two_crashes(void **state)
{
        bool died = true;

        (void)state;
        for (int first = 1; died; first++)
                for (int second = 1 + first % 2; second < 12; second += 2) {
                        const char *ring = new_ring();
                        struct df_sign_public made;
                        struct signature s[3];
                        int used = 1;

                        ok(df_keyring_create(ring, false, &made, NULL, &err));
                        s[0] = sign(ring);
                        died = crash(ring, true, first);
                        s[1] = sign(ring); /* with the old key or the new one */
                        used += strcmp(s[1].id, s[0].id) != 0;
                        (void)crash(ring, true, second);
                        s[2] = sign(ring);
                        used += strcmp(s[2].id, s[1].id) != 0;
                        ok(df_keyring_create(ring, true, &made, NULL, &err));
                        for (int i = 0; i < 3; i++)
                                assert_verifies(ring, &s[i]);
                        assert_files(ring, used + 1, 1); /* those that signed, and the new one */
                        assert_string_equal(sign(ring).id, made.id);
                }
}

static void what_a_power_failure_tears(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made;
        struct signature s;

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        s = sign(ring);
        put_file(in(ring, "signing.key.new"), "-----BEGIN PRIV", 15, 0600);
        put_file(in(ring, "public.new"), "", 0, 0644);
        assert_string_equal(sign(ring).id, s.id);
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        assert_verifies(ring, &s);
        assert_files(ring, 2, 1);
        /* A copy of the current key by that name: its .pub stays. */
        s = sign(ring);
        assert_int_equal(link(in(ring, "signing.key"), in(ring, "signing.key.new")), 0);
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        assert_verifies(ring, &s);
        assert_files(ring, 3, 1);
}

/* ---- failures ---- */

struct spoil {
        const char *ring;
        int at; /* the step before which the file goes */
        const char *name;
};

static void remove_at(void *arg)
{
        struct spoil *s = arg;

        if (--s->at == 0)
                (void)unlink(in(s->ring, s->name));
}

static void a_failed_rotation_changes_nothing(void **state)
{
        static const char *const names[] = {"signing.key.new", "public.new"};
        const char *ring = new_ring();
        struct df_sign_public made, old;
        int failures = 0;

        (void)state;
        ok(df_keyring_create(ring, false, &old, NULL, &err));
        for (size_t i = 0; i < 2; i++)
                for (int step = 1; step < 10; step++) {
                        struct spoil s = {.ring = ring, .at = step, .name = names[i]};
                        struct files before = look(ring);
                        int rc = dfi_keyring_change(ring, true, remove_at, &s, &made, &old, NULL);

                        if (rc < 0) {
                                failures++;
                                assert_string_equal(sign(ring).id, old.id);
                                assert_int_equal(look(ring).privates, 1);
                                assert_int_equal(look(ring).others, 0);
                                /* Without the file that names it, its .pub cannot be told. */
                                assert_true(look(ring).publics - before.publics <= (i == 0));
                        } else {
                                old = made;
                        }
                }
        assert_true(failures >= 2);
}

static void place_at(void *arg)
{
        struct spoil *s = arg;

        if (--s->at == 0)
                put_file(in(s->ring, "signing.key"), "by hand", 7, 0600);
}

static void a_file_put_there_meanwhile_stays(void **state)
{
        (void)state;
        for (int step = 1; step <= 6; step++) {
                struct spoil s = {.at = step};
                struct df_sign_public made;
                const char *ring = new_ring();
                char text[100];

                s.ring = ring;
                fails(dfi_keyring_change(ring, false, place_at, &s, &made, NULL, &err), DF_EEXIST,
                      "signing.key");
                get_file(in(ring, "signing.key"), text, sizeof(text));
                assert_string_equal(text, "by hand");
                assert_int_equal(look(ring).privates + look(ring).publics, 0);
        }
}

static int as_child(int (*run)(const char *ring), const char *ring)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(run(ring));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int rotate_on_a_full_disk(const char *ring)
{
        struct rlimit most = {.rlim_cur = 50, .rlim_max = 50}; /* part of a key */
        struct df_sign_public made;

        (void)signal(SIGXFSZ, SIG_IGN);
        return setrlimit(RLIMIT_FSIZE, &most) == 0
                       ? -df_keyring_create(ring, true, &made, NULL, NULL)
                       : 99;
}

static int rotate_as_nobody(const char *ring)
{
        struct df_sign_public made;

        if (getuid() == 0 && setresuid(65534, 65534, 65534) < 0)
                return 99;
        return -df_keyring_create(ring, true, &made, NULL, NULL);
}

static void a_disk_that_refuses(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made;
        struct signature s;

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        s = sign(ring);
        assert_int_equal(as_child(rotate_on_a_full_disk, ring), -DF_EIO);
        assert_files(ring, 1, 1);
        assert_string_equal(sign(ring).id, s.id);
        /* A directory in which nobody may write; root may anywhere, so it is another user. */
        assert_int_equal(chmod(root, 0755), 0);
        assert_int_equal(chmod(ring, 0555), 0);
        if (getuid() == 0)
                assert_int_equal(chown(in(ring, "signing.key"), 65534, 65534), 0);
        assert_int_equal(as_child(rotate_as_nobody, ring), -DF_EIO);
        assert_int_equal(chmod(ring, 0755), 0);
        assert_files(ring, 1, 1);
        assert_string_equal(sign(ring).id, s.id);
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        assert_verifies(ring, &s);
}

/* ---- what people do to it ---- */

static void keys_put_there_by_hand(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, old;
        struct df_keyring_entry *keys = NULL;
        struct df_sign_key *k = NULL;
        size_t count = 0;

        (void)state;
        ok(df_sign_key_make(&k, &err));
        assert_int_equal(mkdir(ring, 0700), 0);
        ok(df_sign_key_write(k, in(ring, "signing.key"), &err));
        df_sign_key_release(k);
        k = NULL;
        fails(df_keyring_open(ring, &k, &err), DF_ENOENT, "openssl pkey -in");
        fails(df_keyring_list(ring, &keys, &count, &err), DF_ENOENT, "openssl pkey -in");
        ok(df_keyring_create(ring, true, &made, &old, &err)); /* keeps the .pub it lacked */
        ok(df_keyring_find(ring, old.id, &old, &err));
        assert_files(ring, 2, 1);
        assert_int_equal(chmod(in(ring, "signing.key"), 0640), 0);
        fails(df_keyring_open(ring, &k, &err), DF_EINVAL, "chmod 600");
        fails(df_keyring_create(ring, true, &made, NULL, &err), DF_EINVAL, "chmod 600");
        assert_int_equal(chmod(in(ring, "signing.key"), 0600), 0);
        assert_int_equal(rename(in(ring, "signing.key"), in(ring, "elsewhere")), 0);
        assert_int_equal(symlink("elsewhere", in(ring, "signing.key")), 0);
        assert_string_equal(sign(ring).id, made.id);
        fails(df_keyring_create(ring, true, &made, NULL, &err), DF_EINVAL, "is a link");
        assert_files(ring, 2, 2); /* one file by two names */
        put_file(in(ring, "elsewhere"), "-----BEGIN PRIVATE KEY-----\n", 28, 0600);
        fails(df_keyring_open(ring, &k, &err), DF_EPARSE, "move it away");
        assert_null(k);
}

static void damage_is_named(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, p;
        struct df_keyring_entry *keys = NULL;
        size_t count = 0;
        char name[DF_SIGN_ID_SIZE + 4], pem[300];
        struct df_sign_key *other = NULL;
        size_t len;

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        put_file(in(ring, "notes.pub"), "ignored", 7, 0644);
        put_file(in(ring, "0123456789ABCDEF.pub"), "ignored", 7, 0644);
        ok(df_keyring_list(ring, &keys, &count, &err));
        assert_int_equal(count, 1);
        free(keys);
        keys = NULL;
        fails(df_keyring_find(ring, "0123456789abcdef", &p, &err), DF_ENOENT, "0123456789abcdef");
        fails(df_keyring_find(ring, "../signing.key00", &p, &err), DF_EINVAL, "no key id");
        fails(df_keyring_find(ring, "0123456789abcde", &p, &err), DF_EINVAL, "no key id");
        fails(df_keyring_find(ring, "0123456789abcdef0", &p, &err), DF_EINVAL, "no key id");
        (void)snprintf(name, sizeof(name), "%s.pub", made.id);
        len = get_file(in(ring, name), pem, sizeof(pem));
        put_file(in(ring, name), pem, len / 2, 0644);
        fails(df_keyring_list(ring, &keys, &count, &err), DF_EPARSE, made.id);
        fails(df_keyring_find(ring, made.id, &p, &err), DF_EPARSE, made.id);
        ok(df_sign_key_make(&other, &err)); /* somebody's own key by the name of ours */
        assert_int_equal(unlink(in(ring, name)), 0);
        ok(df_sign_public_write(df_sign_key_public(other), in(ring, name), &err));
        fails(df_keyring_list(ring, &keys, &count, &err), DF_ECORRUPT, made.id);
        fails(df_keyring_find(ring, made.id, &p, &err), DF_ECORRUPT, made.id);
        df_sign_key_release(other);
        other = NULL;
        fails(df_keyring_open(ring, &other, &err), DF_ECORRUPT, made.id);
        fails(df_keyring_create(ring, true, &p, NULL, &err), DF_ECORRUPT, made.id);
        assert_null(keys);
}

static void a_damaged_old_key_stops_no_rotation(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public first, made;
        char name[DF_SIGN_ID_SIZE + 4];

        (void)state;
        ok(df_keyring_create(ring, false, &first, NULL, &err));
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        (void)snprintf(name, sizeof(name), "%s.pub", first.id);
        put_file(in(ring, name), "torn", 4, 0644);
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        assert_string_equal(sign(ring).id, made.id);
}

static void one_key_too_many(void **state)
{
        const char *ring = new_ring();
        struct df_keyring_entry *keys = NULL;
        struct df_sign_public made;
        size_t count = 0;

        (void)state;
        assert_int_equal(mkdir(ring, 0755), 0);
        for (uint32_t i = 0; i <= DF_KEYRING_KEYS_MAX; i++) {
                uint8_t raw[32] = {(uint8_t)i, (uint8_t)(i >> 8)};
                char pem[300], name[DF_SIGN_ID_SIZE + 4];
                struct df_sign_public p;
                size_t len = pem_of("PUBLIC KEY", PUBLIC_ED25519, raw, pem, sizeof(pem));

                if (i == DF_KEYRING_KEYS_MAX) {
                        ok(df_keyring_list(ring, &keys, &count, &err));
                        assert_int_equal(count, DF_KEYRING_KEYS_MAX);
                        free(keys);
                        fails(df_keyring_create(ring, false, &made, NULL, &err), DF_ELIMIT, "1024");
                }
                ok(df_sign_public_parse(df_bytes(pem, len), &p, &err));
                (void)snprintf(name, sizeof(name), "%s.pub", p.id);
                put_file(in(ring, name), pem, len, 0644);
        }
        fails(df_keyring_list(ring, &keys, &count, &err), DF_ELIMIT, "1024");
        assert_int_equal(look(ring).privates, 0);
}

static int rotate_ten_times(const char *ring)
{
        int failed = 0;

        for (int i = 0; i < 10; i++) {
                struct df_sign_public made;
                struct df_sign_key *k = NULL;

                failed += df_keyring_create(ring, true, &made, NULL, NULL) != 0;
                failed += df_keyring_open(ring, &k, NULL) != 0;
                df_sign_key_release(k);
        }
        return failed;
}

static void several_at_once(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made;
        pid_t pids[4];

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        for (int i = 0; i < 4; i++) {
                pids[i] = fork();
                assert_true(pids[i] >= 0);
                if (pids[i] == 0)
                        _exit(rotate_ten_times(ring));
        }
        for (int i = 0; i < 4; i++) {
                int status;

                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(status, 0);
        }
        assert_files(ring, 41, 1);
        (void)sign(ring);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_key_is_made_once),
                cmocka_unit_test(a_rotation_keeps_old_signatures),
                cmocka_unit_test(a_first_key_survives_a_crash),
                cmocka_unit_test(a_rotation_survives_two_crashes),
                cmocka_unit_test(what_a_power_failure_tears),
                cmocka_unit_test(a_failed_rotation_changes_nothing),
                cmocka_unit_test(a_file_put_there_meanwhile_stays),
                cmocka_unit_test(a_disk_that_refuses),
                cmocka_unit_test(keys_put_there_by_hand),
                cmocka_unit_test(damage_is_named),
                cmocka_unit_test(a_damaged_old_key_stops_no_rotation),
                cmocka_unit_test(one_key_too_many),
                cmocka_unit_test(several_at_once),
        };

        return cmocka_run_group_tests(tests, make_root, remove_root);
}
