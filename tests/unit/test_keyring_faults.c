/* test_keyring_faults.c - a crash or a failure between any two steps of a change of the ring, and
 * several changes at once: there is a key that signs, and every signature verifies. */
#include "keyring_test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

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
        char name[DF_SIGN_ID_SIZE + 4];
        struct stat before, after;
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
        /* A copy of the current key by that name: its .pub is not touched. */
        s = sign(ring);
        (void)snprintf(name, sizeof(name), "%s.pub", s.id);
        assert_int_equal(stat(in(ring, name), &before), 0);
        assert_int_equal(link(in(ring, "signing.key"), in(ring, "signing.key.new")), 0);
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        assert_int_equal(stat(in(ring, name), &after), 0);
        assert_int_equal(before.st_ctim.tv_sec, after.st_ctim.tv_sec);
        assert_int_equal(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec);
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

static int write_on_a_full_disk(const char *ring)
{
        struct rlimit most = {.rlim_cur = 50, .rlim_max = 50};
        struct df_sign_key *k = NULL;
        int rc = df_sign_key_make(&k, NULL);

        (void)signal(SIGXFSZ, SIG_IGN);
        if (rc < 0 || setrlimit(RLIMIT_FSIZE, &most) < 0)
                return 99;
        rc = df_sign_key_write(k, in(ring, "another.key"), NULL);
        df_sign_key_release(k);
        return -rc;
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
        assert_int_equal(as_child(write_on_a_full_disk, ring), -DF_EIO);
        assert_files(ring, 1, 1);
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

/* ---- several at once ---- */

static int rotate_five_times(const char *ring)
{
        int failed = 0;

        for (int i = 0; i < 5; i++) {
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
                        _exit(rotate_five_times(ring));
        }
        for (int i = 0; i < 4; i++) {
                int status;

                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(status, 0);
        }
        assert_files(ring, 21, 1);
        (void)sign(ring);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_first_key_survives_a_crash),
                cmocka_unit_test(a_rotation_survives_two_crashes),
                cmocka_unit_test(what_a_power_failure_tears),
                cmocka_unit_test(a_failed_rotation_changes_nothing),
                cmocka_unit_test(a_file_put_there_meanwhile_stays),
                cmocka_unit_test(a_disk_that_refuses),
                cmocka_unit_test(several_at_once),
        };

        return cmocka_run_group_tests(tests, make_root, remove_root);
}
