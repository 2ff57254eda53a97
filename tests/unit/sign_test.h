/* sign_test.h - what the tests of keys share: a directory, files, PEM made by hand. */
#ifndef ADTALLY_TESTS_SIGN_H
#define ADTALLY_TESTS_SIGN_H

#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/crypto/crypto_private.h"

#define ok(call)                                                                                   \
        do {                                                                                       \
                struct df_error err = {0};                                                         \
                if ((call) < 0)                                                                    \
                        fail_msg("%s: %s", #call, err.text);                                       \
        } while (0)
/* The call fails with this code, and its text holds the word. */
#define fails(call, want, word)                                                                    \
        do {                                                                                       \
                struct df_error err = {0};                                                         \
                int rc_ = (call);                                                                  \
                if (rc_ != (want) || !strstr(err.text, (word)))                                    \
                        fail_msg("%s: %d \"%s\", not %s with \"%s\"", #call, rc_, err.text, #want, \
                                 (word));                                                          \
        } while (0)

static char root[200];

static int make_root(void **state)
{
        const char *dir = getenv("TMPDIR");

        (void)state;
        (void)snprintf(root, sizeof(root), "%s/test_sign.XXXXXX", dir ? dir : "/tmp");
        return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
        char command[300];

        (void)state;
        (void)snprintf(command, sizeof(command), "rm -rf '%s'", root);
        return system(command);
}

/* ROOT/name; one of four buffers, in turn. */
static inline const char *at(const char *name)
{
        static char paths[4][300];
        static int n;

        n = (n + 1) % 4;
        (void)snprintf(paths[n], sizeof(paths[n]), "%s/%s", root, name);
        return paths[n];
}

static inline void put_file(const char *path, const void *data, size_t len, mode_t mode)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, len), len);
        assert_int_equal(fchmod(fd, mode), 0);
        close(fd);
}

static inline size_t get_file(const char *path, char *ret, size_t size)
{
        int fd = open(path, O_RDONLY);
        ssize_t n;

        assert_true(fd >= 0);
        n = read(fd, ret, size - 1);
        assert_true(n >= 0);
        close(fd);
        ret[n] = '\0';
        return (size_t)n;
}

static inline size_t unhex(const char *hex, uint8_t *ret)
{
        size_t n = strlen(hex) / 2;

        for (size_t i = 0; i < n; i++) {
                unsigned v;

                assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
                ret[i] = (uint8_t)v;
        }
        return n;
}

/* RFC 4648, by hand. */
static inline void base64(const uint8_t *data, size_t len, char *ret)
{
        static const char digits[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

        for (size_t i = 0; i < len; i += 3) {
                uint32_t v = 0;

                for (size_t k = 0; k < 3; k++)
                        v = v << 8 | (i + k < len ? data[i + k] : 0);
                for (size_t k = 0; k < 4; k++)
                        *ret++ = (char)(i + k <= len ? digits[v >> (18 - 6 * k) & 63] : '=');
        }
        *ret = '\0';
}

/* RFC 8410 by hand: a header in hex and the 32 bytes behind it. */
#define PRIVATE_ED25519 "302e020100300506032b657004220420"
#define PRIVATE_X25519 "302e020100300506032b656e04220420"
#define PUBLIC_ED25519 "302a300506032b6570032100"
#define PUBLIC_X25519 "302a300506032b656e032100"
static inline size_t pem_of(const char *label, const char *header, const uint8_t raw[32], char *ret,
                            size_t size)
{
        char text[128];
        uint8_t der[64];
        size_t len = unhex(header, der);

        memcpy(der + len, raw, 32);
        base64(der, len + 32, text);
        return (size_t)snprintf(ret, size, "-----BEGIN %s-----\n%s\n-----END %s-----\n", label,
                                text, label);
}

#endif
