/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/bench_page.h"

static uint64_t page[BENCH_PAGE_WORDS];

static void what_was_filled_in_is_found_right(void **state)
{
	(void)state;
	for (gpn_t p = 0; p < 100; p++) {
		struct bench_stamp s = { .seed = 7, .page = p, .version = 1 };

		bench_fill(page, &s);
		assert_int_equal(bench_check(page, &s), PAGE_BYTES);
		assert_int_equal(page[0], bench_word(&s));
	}
}

static void each_flipped_byte_is_named(void **state)
{
	struct bench_stamp s = { .seed = 7, .page = 12, .version = 1 };
	uint8_t *bytes = (uint8_t *)page;

	(void)state;
	bench_fill(page, &s);
	for (unsigned i = 0; i < PAGE_BYTES; i++) {
		assert_int_equal(bytes[i], bench_byte(&s, i));
		bytes[i] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(bench_check(page, &s), i);
		bytes[i] ^= (uint8_t)(1u << i % 8);
	}
}

static void a_line_knows_its_own_bytes_alone(void **state)
{
	struct bench_stamp s = { .seed = 7, .page = 12, .version = 1 };
	uint8_t *bytes = (uint8_t *)page;

	(void)state;
	bench_fill(page, &s);
	bytes[64 * 5 + 63] ^= 1;
	for (unsigned line = 0; line < BENCH_PAGE_LINES; line++)
		assert_int_equal(bench_check_line(page, &s, line),
		                 line == 5 ? 64 * 5 + 63 : PAGE_BYTES);
}

static void another_page_version_or_seed_is_wrong(void **state)
{
	const struct bench_stamp s = { .seed = 7, .page = 12, .version = 1 };
	const struct bench_stamp others[] = {
		{ .seed = 7, .page = 13, .version = 1 },
		{ .seed = 7, .page = 12, .version = 2 },
		{ .seed = 8, .page = 12, .version = 1 },
		/* Sums and products of the three would mistake these. */
		{ .seed = 12, .page = 7, .version = 1 },
		{ .seed = 7, .page = 1, .version = 12 },
		{ .seed = 6, .page = 13, .version = 1 },
	};

	(void)state;
	bench_fill(page, &s);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_int_not_equal(bench_check(page, &others[i]), PAGE_BYTES);
	memset(page, 0, sizeof(page));
	assert_int_not_equal(bench_check(page, &s), PAGE_BYTES);
}

static void a_shuffle_takes_each_number_once(void **state)
{
	static const uint64_t sizes[] = { 1,  2,  3,    4,    5,
		                          16, 17, 1000, 4096, 4097 };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		bool seen[4097] = { false };

		for (uint64_t i = 0; i < sizes[k]; i++) {
			uint64_t at = bench_shuffle(i, sizes[k], 3);

			assert_true(at < sizes[k]);
			assert_false(seen[at]);
			seen[at] = true;
		}
	}
}

/* A predictor of runs must find none: next neighbours are rare. */
static void a_shuffle_has_no_runs(void **state)
{
	unsigned neighbours = 0;

	(void)state;
	for (uint64_t i = 0; i + 1 < 10000; i++)
		if (bench_shuffle(i, 10000, 1) + 1 ==
		    bench_shuffle(i + 1, 10000, 1))
			neighbours++;
	assert_true(neighbours < 20);
}

/* How often each of `n` pages is visited by the walk. */
static void visit(const struct bench_walk *w, unsigned *times, uint64_t n)
{
	for (uint64_t i = 0; i < w->places; i++) {
		gpn_t p = bench_walk_page(w, i);

		assert_true(p < n);
		times[p]++;
	}
}

static void own_share_and_the_others_make_the_space(void **state)
{
	enum { NODES = 3, SHARE = 1024, ALL = NODES * SHARE };
	static unsigned times[ALL];

	(void)state;
	for (unsigned shuffled = 0; shuffled < 2; shuffled++)
		for (unsigned i = 0; i < NODES; i++) {
			struct bench_walk w = { .first = i * SHARE,
				                .places = SHARE,
				                .step = 1,
				                .wrap = ALL,
				                .deal = 1,
				                .grain = 1,
				                .shuffled = shuffled != 0,
				                .seed = i };

			memset(times, 0, sizeof(times));
			visit(&w, times, ALL);
			w.first = (i + 1) % NODES * SHARE;
			w.places = ALL - SHARE;
			visit(&w, times, ALL);
			for (unsigned p = 0; p < ALL; p++)
				assert_int_equal(times[p], 1);
		}
}

static void dealt_shares_make_the_space(void **state)
{
	enum { NODES = 3, SHARE = 2 * EXTENT_PAGES, ALL = NODES * SHARE };
	static unsigned times[ALL];

	(void)state;
	memset(times, 0, sizeof(times));
	for (uint32_t i = 0; i < NODES; i++) {
		struct bench_walk w = { .places = SHARE,
			                .step = 1,
			                .wrap = SHARE,
			                .deal = NODES,
			                .dealt = i,
			                .grain = EXTENT_PAGES };

		/* Extents by turns: node i has extents i, i + 3. */
		assert_int_equal(bench_walk_page(&w, 0), i * EXTENT_PAGES);
		assert_int_equal(bench_walk_page(&w, EXTENT_PAGES),
		                 (i + NODES) * EXTENT_PAGES);
		visit(&w, times, ALL);
	}
	for (unsigned p = 0; p < ALL; p++)
		assert_int_equal(times[p], 1);
}

static void a_stride_visits_every_so_many(void **state)
{
	struct bench_walk w = { .first = 96,
		                .places = 8,
		                .step = 16,
		                .wrap = 128,
		                .deal = 1,
		                .grain = 1 };
	static const gpn_t pages[] = { 96, 112, 0, 16, 32, 48, 64, 80 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(pages); i++)
		assert_int_equal(bench_walk_page(&w, i), pages[i]);
}

/* Each position draws for itself: none is left out, none has more than luck. */
static void draws_are_even_and_go_on_without_end(void **state)
{
	enum { ALL = 100, EACH = 1000 };
	struct bench_walk w = { .places = ALL,
		                .step = 1,
		                .wrap = ALL,
		                .deal = 1,
		                .grain = 1,
		                .drawn = true,
		                .seed = 4 };
	unsigned times[ALL] = { 0 }, again = 0;

	(void)state;
	for (uint64_t i = 0; i < (uint64_t)ALL * EACH; i++) {
		gpn_t p = bench_walk_page(&w, i);

		assert_true(p < ALL);
		times[p]++;
		again += i > 0 && p == bench_walk_page(&w, i - 1);
	}
	/* Six standard deviations: it fails for one seed of a million. */
	for (unsigned p = 0; p < ALL; p++)
		assert_in_range(times[p], EACH - 190, EACH + 190);
	assert_in_range(again, EACH - 190, EACH + 190);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_filled_in_is_found_right),
		cmocka_unit_test(each_flipped_byte_is_named),
		cmocka_unit_test(a_line_knows_its_own_bytes_alone),
		cmocka_unit_test(another_page_version_or_seed_is_wrong),
		cmocka_unit_test(a_shuffle_takes_each_number_once),
		cmocka_unit_test(a_shuffle_has_no_runs),
		cmocka_unit_test(own_share_and_the_others_make_the_space),
		cmocka_unit_test(dealt_shares_make_the_space),
		cmocka_unit_test(a_stride_visits_every_so_many),
		cmocka_unit_test(draws_are_even_and_go_on_without_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
