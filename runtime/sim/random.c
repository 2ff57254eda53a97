/* random.c - xoshiro256** by Blackman and Vigna, seeded through splitmix64. */
#include "df/sim.h"

static uint64_t splitmix(uint64_t *x)
{
        uint64_t z = (*x += 0x9e3779b97f4a7c15u);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int k)
{
        return (x << k) | (x >> (64 - k));
}

void df_sim_random_init(struct df_sim_random *r, uint64_t seed)
{
        for (size_t i = 0; i < 4; i++)
                r->state[i] = splitmix(&seed);
}

uint64_t df_sim_random_u64(struct df_sim_random *r)
{
        uint64_t *s = r->state;
        const uint64_t result = rotl(s[1] * 5, 7) * 9;
        const uint64_t t = s[1] << 17;

        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = rotl(s[3], 45);
        return result;
}

uint64_t df_sim_random_below(struct df_sim_random *r, uint64_t n)
{
        df_check(n > 0);
        return df_sim_random_u64(r) % n; /* the bias does not matter here */
}

int64_t df_sim_random_between(struct df_sim_random *r, int64_t low, int64_t high)
{
        const uint64_t span = (uint64_t)high - (uint64_t)low;

        df_check(low <= high);
        if (span == UINT64_MAX)
                return (int64_t)df_sim_random_u64(r);
        return (int64_t)((uint64_t)low + df_sim_random_below(r, span + 1));
}

bool df_sim_random_chance(struct df_sim_random *r, uint32_t permille)
{
        return df_sim_random_below(r, 1000) < permille;
}
