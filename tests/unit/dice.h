/* dice.h - seeded tests: TEST_SEED repeats a run, and each failure says its seed. Before the first
 * dice: roll_seed. Included last: its `err` shadows what headers call so. */
#ifndef ADTALLY_TESTS_DICE_H
#define ADTALLY_TESTS_DICE_H

#include "unit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "df/err.h"

static struct df_error err;
static uint64_t dice_seed, dice_state;

/* The call must succeed; otherwise its error text is shown. */
#define ok(call)                                                                                   \
        do {                                                                                       \
                err = (struct df_error){0};                                                        \
                if ((call) != 0)                                                                   \
                        fail_msg("seed %" PRIu64 ": %s: %s %s", dice_seed, #call,                  \
                                 df_err_code(err.code), err.text);                                 \
        } while (0)

/* The call must fail with code and a text that contains part. */
#define fails(call, want, part)                                                                    \
        do {                                                                                       \
                int rc_;                                                                           \
                                                                                                   \
                err = (struct df_error){0};                                                        \
                rc_ = (call);                                                                      \
                if (rc_ != (want) || err.code != (want) || !strstr(err.text, part))                \
                        fail_msg("seed %" PRIu64 ": %s: %d %s \"%s\", wanted %s \"...%s...\"",     \
                                 dice_seed, #call, rc_, df_err_code(err.code), err.text,           \
                                 df_err_code(want), part);                                         \
        } while (0)

/* TEST_SEED repeats a run. */
static inline void roll_seed(void)
{
        const char *given = getenv("TEST_SEED");
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        dice_seed = given ? strtoull(given, NULL, 10)
                          : (uint64_t)(getpid() ^ now.tv_nsec ^ now.tv_sec << 20);
        dice_state = dice_seed * 0x9e3779b97f4a7c15ull + 1;
        print_message("seed %" PRIu64 "\n", dice_seed);
}

static inline uint64_t next_of(uint64_t *state)
{
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static inline uint64_t dice(uint64_t below)
{
        return next_of(&dice_state) % below;
}

#endif
