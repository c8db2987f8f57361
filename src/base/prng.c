/* SPDX-License-Identifier: Apache-2.0 */

#include "base/prng.h"

/* Vigna's splitmix64: any seed, zero too, becomes four good words. */
static uint64_t splitmix64(uint64_t *x)
{
	uint64_t z = *x += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t rotl(uint64_t x, unsigned k)
{
	return x << k | x >> (64 - k);
}

void prng_init(struct prng *r, uint64_t seed)
{
	for (unsigned i = 0; i < ARRAY_SIZE(r->s); i++)
		r->s[i] = splitmix64(&seed);
}

/* Blackman and Vigna's xoshiro256**. */
uint64_t prng_next(struct prng *r)
{
	uint64_t *s = r->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

/*
 * A plain remainder would favour small numbers.  The 2^64 % n smallest draws
 * are thrown away, so that what is left divides evenly; fewer than half are,
 * for any n, so the loop ends after two draws on average at worst.
 */
uint64_t prng_below(struct prng *r, uint64_t n)
{
	uint64_t uneven = (0 - n) % n;
	uint64_t x;

	assert(n > 0);
	do {
		x = prng_next(r);
	} while (x < uneven);
	return x % n;
}
