/* SPDX-License-Identifier: Apache-2.0 */

#include "evict_shard.h"

/* --- the rows ------------------------------------------------------------ */

static void nothing_is_offered_by_an_empty_shard(void **state)
{
	(void)state;
	start(4, 1);
	evict_round(ev);
	assert_nothing_next();
	assert_nothing_staged();
	assert_counts(0, 0, 0);
}

static void a_new_page_is_small_and_the_first_in_is_first_out(void **state)
{
	(void)state;
	start(4, 2);
	in(1);
	in(2);
	in(3);
	assert_counts(3, 0, 0);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(1, 0, 2);
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	OUT(2, EVICT_TAKE, EVICT_TAKEN);
	assert_nothing_staged();
	assert_counts(1, 0, 0);
}

static void no_more_is_staged_than_the_area_holds(void **state)
{
	(void)state;
	start(4, 1);
	in(1);
	in(2);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	assert_nothing_next();
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 1);
}

static void a_staged_page_that_is_touched_goes_to_main(void **state)
{
	(void)state;
	start(4, 2);
	in(1);
	in(2);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	touched(1);
	assert_counts(1, 1, 0);
	/* Its entry in the staging area is old. */
	evict_round(ev);
	OUT(1, EVICT_TAKE, EVICT_SKIPPED);
	assert_nothing_staged();
	assert_counts(1, 1, 0);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 2);
}

static void a_page_that_comes_back_soon_goes_to_main(void **state)
{
	(void)state;
	start(4, 1);
	for (uint32_t k = 1; k <= 4; k++)
		in(k);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	in(1);
	assert_counts(3, 1, 0);
}

/* `others` pages are evicted after page 1, and three new ones remain. */
static void come_back_after(uint32_t others)
{
	start(8, 1);
	for (uint32_t k = 1; k <= 4; k++)
		in(k);
	for (uint32_t k = 1; k <= others + 1; k++) {
		evict_round(ev);
		TAKE(k, EVICT_TAKE, EVICT_TAKEN);
		OUT(k, EVICT_TAKE, EVICT_TAKEN);
		if (k <= others)
			in(k + 4);
	}
	assert_counts(3, 0, 0);
	in(1);
}

static void a_ghost_is_fresh_as_long_as_a_second_small_queue(void **state)
{
	(void)state;
	come_back_after(2);
	assert_int_equal(evict_where(&pages[1]), EVICT_MAIN);
	come_back_after(3);
	assert_int_equal(evict_where(&pages[1]), EVICT_SMALL);
}

static void staged_pages_keep_ghosts_fresh_and_main_does_not(void **state)
{
	(void)state;
	start(8, 2);
	for (uint32_t k = 1; k <= 5; k++)
		in(k);
	promote(1);
	promote(2);
	evict_round(ev);
	TAKE(3, EVICT_TAKE, EVICT_TAKEN);
	OUT(1, EVICT_TAKE, EVICT_SKIPPED);
	OUT(2, EVICT_TAKE, EVICT_SKIPPED);
	OUT(3, EVICT_TAKE, EVICT_TAKEN);
	TAKE(4, EVICT_TAKE, EVICT_TAKEN);
	TAKE(5, EVICT_TAKE, EVICT_TAKEN);
	OUT(4, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 2, 1);
	in(4); /* nothing went after it */
	assert_counts(0, 3, 1);
	in(3); /* 4 did */
	assert_counts(1, 3, 1);
}

static void a_page_that_left_otherwise_has_no_ghost(void **state)
{
	(void)state;
	start(4, 1);
	in(1);
	in(2);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	in(1);
	gone(1);
	in(1);
	assert_counts(2, 0, 0);
}

static void what_no_peer_takes_is_the_last_of_main(void **state)
{
	(void)state;
	start(4, 2);
	in(1);
	in(2);
	promote(1);
	evict_round(ev);
	OUT(1, EVICT_TAKE, EVICT_SKIPPED);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	OUT(2, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 1, 0);
	back(2);
	assert_counts(0, 2, 0);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
}

static void small_gives_while_it_is_above_its_share(void **state)
{
	(void)state;
	start(40, 40);
	for (uint32_t k = 0; k < 20; k++)
		in(k);
	for (uint32_t k = 0; k < 18; k++)
		promote(k);
	/* Two of twenty are its share, three of 21 are not. */
	evict_round(ev);
	TAKE(0, EVICT_NOT_NOW, EVICT_LATER);
	in(20);
	TAKE(18, EVICT_NOT_NOW, EVICT_LATER);
	assert_counts(3, 18, 0);
}

static void without_main_small_gives_below_its_share(void **state)
{
	(void)state;
	start(4, 3);
	cfg.small_percent = 100;
	ev = evict_init(&cfg, mem);
	in(1);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	touched(1);
	in(2);
	gone(1);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_SKIPPED);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 1);
}

static void not_now_goes_to_the_tail(void **state)
{
	(void)state;
	start(4, 4);
	for (uint32_t k = 1; k <= 3; k++)
		in(k);
	evict_round(ev);
	TAKE(1, EVICT_NOT_NOW, EVICT_LATER);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	TAKE(3, EVICT_TAKE, EVICT_TAKEN);
	assert_nothing_next(); /* 1 had its turn in this round */
	OUT(2, EVICT_NOT_NOW, EVICT_LATER);
	OUT(3, EVICT_TAKE, EVICT_TAKEN);
	evict_round(ev);
	OUT(2, EVICT_TAKE, EVICT_TAKEN);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 1);
}

/* --- rounds -------------------------------------------------------------- */

static void a_round_of_staged_ones_lets_the_others_go_on(void **state)
{
	(void)state;
	start(4, 2);
	for (uint32_t k = 1; k <= 3; k++)
		in(k);
	evict_round(ev);
	TAKE(1, EVICT_NOT_NOW, EVICT_LATER);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	OUT(2, EVICT_NOT_NOW, EVICT_LATER);
	assert_nothing_staged();
	evict_round_staged(ev);
	OUT(2, EVICT_TAKE, EVICT_TAKEN);
	TAKE(3, EVICT_NOT_NOW, EVICT_LATER);
	assert_nothing_next(); /* 1 had its turn in this round */
	assert_counts(2, 0, 0);
}

static void a_round_sees_each_page_once_if_none_can_go(void **state)
{
	uint32_t key;
	unsigned seen[100] = { 0 };

	(void)state;
	start(100, 10);
	for (uint32_t k = 0; k < 100; k++)
		in(k);
	for (uint32_t k = 0; k < 60; k++)
		promote(k);
	evict_round(ev);
	for (unsigned n = 0; evict_next(ev, &key); n++) {
		assert_true(n < 100);
		assert_int_equal(answer(false, key, EVICT_NOT_NOW),
		                 EVICT_LATER);
		seen[key]++;
	}
	for (uint32_t k = 0; k < 100; k++)
		assert_int_equal(seen[k], 1);
	assert_counts(40, 60, 0);
}

/* Pages that leave and come, and so sweeps, do not stretch it. */
static void a_round_ends_whatever_happens_meanwhile(void **state)
{
	unsigned seen[KEYS] = { 0 };
	uint32_t key;

	(void)state;
	start(200, 10);
	for (uint32_t k = 0; k < 200; k++)
		in(k);
	for (uint32_t k = 1; k < 200; k += 2)
		gone(k);
	evict_round(ev);
	for (uint32_t n = 0; evict_next(ev, &key); n++) {
		assert_true(n < 200);
		if (answer(false, key, EVICT_NOT_NOW) == EVICT_LATER)
			seen[key]++;
		in(n + 200);
		evict_check_all(ev);
		gone(n + 200);
	}
	for (uint32_t k = 0; k < 200; k++)
		assert_int_equal(seen[k], k % 2 == 0);
	for (uint32_t k = 200; k < KEYS; k++)
		assert_int_equal(seen[k], 0);
}

static void staged_pages_that_cannot_go_end_the_round_too(void **state)
{
	uint32_t key;
	unsigned n = 0;

	(void)state;
	start(20, 8);
	for (uint32_t k = 0; k < 20; k++)
		in(k);
	evict_round(ev);
	while (evict_next(ev, &key))
		answer(false, key, EVICT_TAKE);
	for (; evict_oldest(ev, &key); n++)
		assert_int_equal(answer(true, key, EVICT_NOT_NOW), EVICT_LATER);
	assert_int_equal(n, 8);
	assert_counts(12, 0, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_offered_by_an_empty_shard),
		cmocka_unit_test(
			a_new_page_is_small_and_the_first_in_is_first_out),
		cmocka_unit_test(no_more_is_staged_than_the_area_holds),
		cmocka_unit_test(a_staged_page_that_is_touched_goes_to_main),
		cmocka_unit_test(a_page_that_comes_back_soon_goes_to_main),
		cmocka_unit_test(
			a_ghost_is_fresh_as_long_as_a_second_small_queue),
		cmocka_unit_test(
			staged_pages_keep_ghosts_fresh_and_main_does_not),
		cmocka_unit_test(a_page_that_left_otherwise_has_no_ghost),
		cmocka_unit_test(what_no_peer_takes_is_the_last_of_main),
		cmocka_unit_test(small_gives_while_it_is_above_its_share),
		cmocka_unit_test(without_main_small_gives_below_its_share),
		cmocka_unit_test(not_now_goes_to_the_tail),
		cmocka_unit_test(a_round_of_staged_ones_lets_the_others_go_on),
		cmocka_unit_test(a_round_sees_each_page_once_if_none_can_go),
		cmocka_unit_test(a_round_ends_whatever_happens_meanwhile),
		cmocka_unit_test(staged_pages_that_cannot_go_end_the_round_too),
	};

	return cmocka_run_group_tests(tests, NULL, finish);
}
