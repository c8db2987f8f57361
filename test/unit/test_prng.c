/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"

static void the_published_sequence_comes_out(void **state)
{
	/* splitmix64 from 0, as its authors print it. */
	static const uint64_t seeded[4] = {
		0xe220a8397b1dcdafull,
		0x6e789e6aa1b965f4ull,
		0x06c45d188009454full,
		0xf88bb8a8724c81ecull,
	};
	/* xoshiro256** from the state 1, 2, 3, 4. */
	static const uint64_t drawn[4] = {
		11520ull,
		0ull,
		1509978240ull,
		1215971899390074240ull,
	};
	struct prng r;

	(void)state;
	prng_init(&r, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(r.s[i], seeded[i]);
	r = (struct prng){ .s = { 1, 2, 3, 4 } };
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(prng_next(&r), drawn[i]);
}

static void the_same_seed_gives_the_same_stream(void **state)
{
	struct prng a, b, c;
	unsigned same = 0;

	(void)state;
	prng_init(&a, 7);
	prng_init(&b, 7);
	prng_init(&c, 8);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t x = prng_next(&a);

		assert_int_equal(x, prng_next(&b));
		same += x == prng_next(&c);
	}
	assert_int_equal(same, 0);
}

static void below_stays_below_and_is_even(void **state)
{
	unsigned count[7] = { 0 };
	struct prng r;

	(void)state;
	prng_init(&r, 3);
	for (unsigned i = 0; i < 70000; i++) {
		uint64_t x = prng_below(&r, 7);

		assert_true(x < 7);
		count[x]++;
	}
	/* 10,000 expected, standard deviation 93: this is beyond ten. */
	for (unsigned i = 0; i < 7; i++)
		assert_in_range(count[i], 9000, 11000);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(prng_below(&r, 1), 0);
}

static void below_works_where_most_draws_do_not_fit(void **state)
{
	struct prng r;

	(void)state;
	prng_init(&r, 4);
	for (unsigned i = 0; i < 1000; i++)
		assert_true(prng_below(&r, (1ull << 63) + 1) <= 1ull << 63);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_published_sequence_comes_out),
		cmocka_unit_test(the_same_seed_gives_the_same_stream),
		cmocka_unit_test(below_stays_below_and_is_even),
		cmocka_unit_test(below_works_where_most_draws_do_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
