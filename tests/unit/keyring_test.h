/* keyring_test.h - what the tests of the ring share: rings, what is in one, a signature. */
#ifndef ADTALLY_TESTS_KEYRING_H
#define ADTALLY_TESTS_KEYRING_H

#include "sign_test.h"

#include <dirent.h>

#define DOMAIN "adtally test 1"

/* ROOT/<a new name>, not there yet; good until the next one. */
static inline const char *new_ring(void)
{
        static char path[300];
        static int n;

        (void)snprintf(path, sizeof(path), "%s/ring%d", root, n++);
        return path;
}

static inline const char *in(const char *ring, const char *name)
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
static inline struct files look(const char *ring)
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

static inline void assert_files(const char *ring, int publics, int privates)
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

static inline struct signature sign(const char *ring)
{
        struct df_sign_key *k = NULL;
        struct signature s;

        ok(df_keyring_open(ring, &k, &err));
        memcpy(s.id, df_sign_key_public(k)->id, sizeof(s.id));
        ok(df_sign(k, DOMAIN, df_bytes_str("a bill"), s.sig, &err));
        df_sign_key_release(k);
        return s;
}

static inline void assert_verifies(const char *ring, const struct signature *s)
{
        struct df_sign_public p;

        ok(df_keyring_find(ring, s->id, &p, &err));
        ok(df_sign_verify(&p, DOMAIN, df_bytes_str("a bill"), s->sig, &err));
}

#endif
