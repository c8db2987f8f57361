/* SPDX-License-Identifier: Apache-2.0 */

#include "base/prng.h"
#include "evict_shard.h"

/* --- entries left behind ------------------------------------------------- */

static void the_entry_of_a_page_that_is_gone_is_skipped(void **state)
{
	(void)state;
	start(4, 4);
	in(1);
	in(2);
	gone(1);
	assert_counts(1, 0, 0);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_SKIPPED);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	assert_nothing_next();
	gone(2);
	OUT(2, EVICT_TAKE, EVICT_SKIPPED);
	assert_nothing_staged();
	assert_counts(0, 0, 0);
	assert_int_equal(pages[1].mark, 0);
	assert_int_equal(pages[2].mark, 0);
}

static void a_page_that_came_back_is_as_young_as_it_is(void **state)
{
	(void)state;
	start(4, 4);
	in(1);
	in(2);
	gone(1);
	in(1);
	assert_counts(2, 0, 0);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_LATER); /* the entry is of its first life */
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 2);
}

static void a_page_staged_anew_is_as_young_as_it_is(void **state)
{
	(void)state;
	start(4, 4);
	in(1);
	in(2);
	promote(1);
	evict_round(ev);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	OUT(1, EVICT_TAKE, EVICT_LATER);
	OUT(2, EVICT_TAKE, EVICT_TAKEN);
	evict_round(ev);
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 0);
}

static void a_page_may_have_left_an_entry_in_every_ring(void **state)
{
	(void)state;
	start(4, 4);
	in(1);
	in(2);
	promote(1); /* staging */
	gone(1);    /* main */
	in(1);      /* small, behind 2 */
	gone(1);
	assert_int_equal(pages[1].mark, 4 + 8 + 16);
	assert_counts(1, 0, 0);
	evict_round(ev);
	TAKE(2, EVICT_NOT_NOW, EVICT_LATER);
	TAKE(1, EVICT_TAKE, EVICT_SKIPPED); /* small */
	TAKE(1, EVICT_TAKE, EVICT_SKIPPED); /* main */
	OUT(1, EVICT_TAKE, EVICT_SKIPPED);
	assert_int_equal(pages[1].mark, 0);
	assert_counts(1, 0, 0);
}

static void an_entry_of_small_does_not_evict_from_main(void **state)
{
	(void)state;
	start(4, 1);
	in(1);
	in(2);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	pages[1].stamp = 0;
	in(1);
	gone(1); /* an old entry in small */
	evict_round(ev);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	OUT(2, EVICT_TAKE, EVICT_TAKEN);
	back(2);
	pages[1].stamp = pages[2].stamp;
	in(3);
	in(1);
	assert_counts(1, 2, 0);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_SKIPPED);
	assert_counts(1, 2, 0);
	assert_int_equal(pages[1].mark, EVICT_MAIN);
}

static void a_key_of_nobody_is_skipped(void **state)
{
	uint32_t key;

	(void)state;
	start(4, 4);
	in(1);
	in(2);
	gone(1);
	evict_round(ev);
	assert_true(evict_next(ev, &key));
	assert_int_equal(evict_take(ev, key, NULL, EVICT_UNKNOWN),
	                 EVICT_SKIPPED);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
}

static void after_a_purge_keys_may_mean_other_pages(void **state)
{
	(void)state;
	start(8, 8);
	for (uint32_t k = 0; k < 6; k++)
		in(k);
	promote(0);
	evict_round(ev);
	TAKE(1, EVICT_TAKE, EVICT_TAKEN);
	TAKE(2, EVICT_TAKE, EVICT_TAKEN);
	for (uint32_t k = 0; k < 6; k += 2)
		gone(k);
	assert_counts(2, 0, 1);
	evict_purge(ev);
	for (uint32_t k = 0; k < 6; k += 2)
		assert_int_equal(pages[k].mark, 0);
	assert_counts(2, 0, 1);
	in(0);
	evict_round(ev);
	TAKE(3, EVICT_TAKE, EVICT_TAKEN);
	TAKE(5, EVICT_TAKE, EVICT_TAKEN);
	TAKE(0, EVICT_TAKE, EVICT_TAKEN);
	OUT(1, EVICT_TAKE, EVICT_TAKEN);
	OUT(3, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 2);
}

static void a_purge_finds_all_however_far_a_sweep_is(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 60; n++) {
		start(32, 1);
		for (uint32_t k = 0; k < 31; k++)
			in(k);
		for (uint32_t k = 31; k < 31 + n; k++) {
			in(k);
			gone(k);
		}
		gone(0);
		gone(30);
		evict_purge(ev);
		for (uint32_t k = 0; k < KEYS; k++)
			assert_int_equal(pages[k].mark,
			                 k >= 1 && k < 30 ? EVICT_SMALL : 0);
		assert_counts(29, 0, 0);
	}
}

/* --- full rings ---------------------------------------------------------- */

/* Every page that ever came left its entry; rings hold 2 x frames. */
static void pages_that_come_and_go_never_fill_a_ring(uint32_t frames)
{
	start(frames, frames);
	for (uint32_t n = 0; n < 40 * frames; n++) {
		uint32_t k = n % KEYS;

		if (n >= frames)
			gone((n - frames) % KEYS);
		in(k);
		assert_int_equal(evict_resident(ev), min_u64(n + 1, frames));
	}
	evict_check_all(ev);
}

/* All true entries are in front of the old ones, so a sweep frees nothing until
 * its end. */
static void a_page_behind_old_ones_may_come_and_go(uint32_t frames)
{
	start(frames, 1);
	for (uint32_t k = 0; k + 1 < frames; k++)
		in(k);
	for (uint32_t n = 0; n < 4 * frames; n++) {
		uint32_t k = frames + n % (KEYS - frames);

		in(k);
		gone(k);
	}
	evict_check_all(ev);
}

/* The worst for a sweep: all that it has seen leave, what it has not comes. */
static void pages_that_leave_behind_a_sweep_do_not_fill_it(uint32_t frames)
{
	uint32_t resident = 0, half = frames / 2;
	struct prng r;

	start(frames, 1);
	prng_init(&r, frames);
	for (uint32_t n = 0; n < 200 * frames; n++) {
		uint32_t k = (uint32_t)prng_below(&r, 3 * (uint64_t)frames);

		if (evict_where(&pages[k]) == EVICT_NOWHERE) {
			if (resident == frames)
				continue;
			in(k);
			resident++;
		}
		/* Now and then half of them, oldest or youngest first. */
		if (resident == frames && prng_below(&r, 4) == 0) {
			bool up = prng_below(&r, 2) == 0;

			for (uint32_t i = 0; i < 3 * frames; i++) {
				k = up ? i : 3 * frames - 1 - i;
				if (resident > half &&
				    evict_where(&pages[k]) != EVICT_NOWHERE) {
					gone(k);
					resident--;
				}
			}
		}
	}
	evict_check_all(ev);
}

static void a_ring_never_overflows(void **state)
{
	(void)state;
	for (uint32_t frames = 1; frames < 40; frames++) {
		pages_that_come_and_go_never_fill_a_ring(frames);
		pages_that_leave_behind_a_sweep_do_not_fill_it(frames);
		a_page_behind_old_ones_may_come_and_go(frames);
	}
	pages_that_come_and_go_never_fill_a_ring(1000);
	pages_that_leave_behind_a_sweep_do_not_fill_it(1200);
	a_page_behind_old_ones_may_come_and_go(1000);
}

/* Its window grows while entries are wrapped around the end. */
static void order_outlives_the_growth_of_a_ring(void **state)
{
	uint32_t next = 0, first = 0;

	(void)state;
	start(KEYS, KEYS);
	for (uint32_t n = 0; n < 700; n++)
		in(next++);
	for (; next < KEYS; next += 3) {
		evict_round(ev);
		TAKE(first, EVICT_TAKE, EVICT_TAKEN);
		first++;
		for (uint32_t k = next; k < next + 3 && k < KEYS; k++)
			in(k);
	}
	evict_check_all(ev);
	evict_round(ev);
	for (; first < KEYS; first++)
		TAKE(first, EVICT_TAKE, EVICT_TAKEN);
	for (uint32_t k = 0; k < KEYS; k++)
		OUT(k, EVICT_TAKE, EVICT_TAKEN);
	assert_counts(0, 0, 0);
}

static void memory_is_touched_as_far_as_there_are_pages(void **state)
{
	size_t touched_bytes = 0, bytes;
	uint8_t *m;

	(void)state;
	start(1u << 20, 1u << 16);
	for (uint32_t n = 0; n < 20 * KEYS; n++) {
		in(n % KEYS);
		gone(n % KEYS);
	}
	bytes = evict_bytes(&cfg);
	assert_true(bytes < 18u << 20);
	m = mem;
	for (size_t i = 0; i < bytes; i++)
		if (m[i] != 0xa5)
			touched_bytes++;
	assert_true(touched_bytes < 8192);
}

static void one_frame_is_enough(void **state)
{
	(void)state;
	start(1, 1);
	for (unsigned n = 0; n < 100; n++) {
		uint32_t k = n % 3;

		in(k);
		evict_round(ev);
		TAKE(k, EVICT_TAKE, EVICT_TAKEN);
		assert_nothing_next();
		if (n % 5 == 4) {
			touched(k);
			evict_round(ev);
			OUT(k, EVICT_TAKE, EVICT_SKIPPED);
			TAKE(k, EVICT_TAKE, EVICT_TAKEN);
		}
		OUT(k, EVICT_TAKE, EVICT_TAKEN);
		if (n % 7 == 6) {
			back(k);
			gone(k);
			evict_round(ev);
			TAKE(k, EVICT_TAKE, EVICT_SKIPPED);
		}
		assert_counts(0, 0, 0);
	}
}

/* --- storm --------------------------------------------------------------- */

static enum evict_answer random_answer(struct prng *r)
{
	return prng_below(r, 4) == 0 ? EVICT_NOT_NOW : EVICT_TAKE;
}

/* Make room: some steps of a round. */
static void storm_evict(struct prng *r, uint32_t frames)
{
	uint32_t key, steps = (uint32_t)prng_below(r, 8);

	if (prng_below(r, 3) == 0)
		evict_round(ev);
	for (uint32_t i = 0; i < steps; i++) {
		if (prng_below(r, 3) > 0 && evict_next(ev, &key)) {
			answer(false, key, random_answer(r));
		} else if (evict_oldest(ev, &key)) {
			if (answer(true, key, random_answer(r)) ==
			            EVICT_TAKEN &&
			    prng_below(r, 4) == 0)
				back(key);
		}
	}
	assert_true(evict_resident(ev) <= frames);
}

/* After it no page knows of an entry that it left. */
static void storm_purge(uint32_t keys)
{
	evict_purge(ev);
	for (uint32_t k = 0; k < keys; k++)
		if (!reused(k))
			assert_true(pages[k].mark < EVICT_QUEUES);
		else
			assert_int_equal(pages[k].mark >> 2,
			                 1u << (evict_where(&pages[k]) - 1));
}

static void storm(uint64_t seed, uint32_t frames, uint32_t staged)
{
	uint32_t keys = 1 + 3 * frames, n[EVICT_QUEUES];
	struct prng r;

	prng_init(&r, seed);
	start(frames, staged);
	for (unsigned step = 0; step < 600; step++) {
		uint32_t k = (uint32_t)prng_below(&r, keys);

		switch (evict_where(&pages[k])) {
		case EVICT_NOWHERE:
			if (evict_resident(ev) < frames)
				in(k);
			break;
		case EVICT_STAGING:
			if (prng_below(&r, 2) == 0) {
				touched(k);
				break;
			}
			/* fall through */
		case EVICT_SMALL:
		case EVICT_MAIN:
			if (prng_below(&r, 3) == 0)
				gone(k);
			break;
		}
		storm_evict(&r, frames);
		if (prng_below(&r, 50) == 0)
			storm_purge(keys);
		evict_check_all(ev);
		memset(n, 0, sizeof(n));
		for (k = 0; k < keys; k++)
			n[evict_where(&pages[k])]++;
		assert_counts(n[EVICT_SMALL], n[EVICT_MAIN], n[EVICT_STAGING]);
	}
}

/* Nothing is lost: all that is resident can be got out. */
static void drain(void)
{
	uint32_t key, left = evict_resident(ev);

	for (unsigned rounds = 0; left > 0; rounds++) {
		assert_true(rounds < 100);
		evict_round(ev);
		while (evict_next(ev, &key))
			answer(false, key, EVICT_TAKE);
		while (evict_oldest(ev, &key))
			if (answer(true, key, EVICT_TAKE) == EVICT_TAKEN)
				left--;
	}
	assert_counts(0, 0, 0);
}

static void any_order_of_calls_keeps_the_invariants(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		uint32_t frames = 1 + (uint32_t)(seed * 7 % 40);

		storm(seed, frames, 1 + (uint32_t)(seed % frames));
		drain();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_entry_of_a_page_that_is_gone_is_skipped),
		cmocka_unit_test(a_page_that_came_back_is_as_young_as_it_is),
		cmocka_unit_test(a_page_staged_anew_is_as_young_as_it_is),
		cmocka_unit_test(a_page_may_have_left_an_entry_in_every_ring),
		cmocka_unit_test(an_entry_of_small_does_not_evict_from_main),
		cmocka_unit_test(a_key_of_nobody_is_skipped),
		cmocka_unit_test(after_a_purge_keys_may_mean_other_pages),
		cmocka_unit_test(a_purge_finds_all_however_far_a_sweep_is),
		cmocka_unit_test(a_ring_never_overflows),
		cmocka_unit_test(order_outlives_the_growth_of_a_ring),
		cmocka_unit_test(memory_is_touched_as_far_as_there_are_pages),
		cmocka_unit_test(one_frame_is_enough),
		cmocka_unit_test(any_order_of_calls_keeps_the_invariants),
	};

	return cmocka_run_group_tests(tests, NULL, finish);
}
