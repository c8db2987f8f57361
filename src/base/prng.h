/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generator of pseudo-random numbers whose seed says all that follows.
 *
 * For simulations, benchmarks and jitter, where a run must be repeatable; not
 * for ids or secrets, which are getrandom(2)'s.  xoshiro256**, seeded through
 * splitmix64, so that neighbouring seeds give unrelated streams.
 *
 * A struct prng belongs to one thread.
 */
#pragma once

#include "base/base.h"

struct prng {
	uint64_t s[4]; /* never all zero */
};

void prng_init(struct prng *r, uint64_t seed);

/* 64 bits, each as likely as the other. */
uint64_t prng_next(struct prng *r);

/* A number from 0 to n - 1, all equally likely; n > 0. */
uint64_t prng_below(struct prng *r, uint64_t n);
