/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/place.h"

#define MIB            (1ull << 20)
#define EXTENTS_ENOUGH 4096u

static struct extent extents[EXTENTS_ENOUGH];
static struct claimant stripes[STRIPES_MAX];
static struct place place;

/* A space of so many bytes, on node 3. */
static void start_with(uint64_t bytes)
{
	memset(extents, 0, sizeof(extents));
	memset(stripes, 0, sizeof(stripes));
	place = (struct place){ .self = 3,
		                .extent = extents,
		                .stripe = stripes };
	cut_init(&place.cut, bytes);
	assert_true(place.cut.extents <= EXTENTS_ENOUGH);
}

static const char *answer(enum place_answer a, node_id home,
                          const struct place_claim *c)
{
	static char text[128];
	size_t at = 0;

	switch (a) {
	case PLACE_HERE:
		at = (size_t)snprintf(text, sizeof(text), "here");
		break;
	case PLACE_THERE:
		at = (size_t)snprintf(text, sizeof(text), "at %u", home);
		break;
	case PLACE_WAIT:
		at = (size_t)snprintf(text, sizeof(text), "wait");
		break;
	}
	if (c->n > 0 && c->ask)
		snprintf(text + at, sizeof(text) - at, ", ask %u+%u", c->first,
		         c->n);
	else if (c->n > 0)
		snprintf(text + at, sizeof(text) - at, ", claim %u+%u open %u",
		         c->first, c->n, c->n_open);
	return text;
}

static struct place_claim claim;

static const char *touch(uint32_t extent)
{
	node_id home = NODE_NONE;
	enum place_answer a = place_touch(&place, extent, &home, &claim);

	return answer(a, home, &claim);
}

static const char *asked(uint32_t extent)
{
	node_id home = NODE_NONE;
	enum place_answer a = place_asked(&place, extent, &home, &claim);

	return answer(a, home, &claim);
}

/* The coordinator grants the last claim. */
static void granted(void)
{
	for (uint32_t i = 0; i < claim.n; i++)
		place_told(&place, claim.first + i, 3, i < claim.n_open, 1);
}

#define TOUCH(extent, what) assert_string_equal(touch(extent), what)
#define ASKED(extent, what) assert_string_equal(asked(extent), what)

/* --- cutting ----------------------------------------------------------- */

static void check_cut(uint64_t bytes)
{
	struct cut c;
	gpn_t next = 0;

	cut_init(&c, bytes);
	assert_int_equal(c.pages, bytes / PAGE_BYTES);
	assert_in_range(c.stripes, 1, STRIPES_MAX);
	for (uint32_t s = 0; s < c.stripes; s++) {
		uint32_t first = cut_stripe_extent(&c, s);
		uint32_t end = cut_stripe_extent(&c, s + 1);

		assert_true(first < end);
		assert_int_equal(cut_stripe_first(&c, s), next);
		assert_int_equal(next % EXTENT_PAGES, 0);
		next = cut_stripe_end(&c, s);
		for (uint32_t e = first; e < end; e++)
			assert_int_equal(cut_stripe_of(&c, e), s);
		assert_int_equal(cut_stripe_of_page(&c, next - 1), s);
	}
	assert_int_equal(next, c.pages);
	assert_int_equal(cut_stripe_extent(&c, c.stripes), c.extents);
}

static void every_page_is_in_one_stripe(void **state)
{
	(void)state;
	for (uint64_t mib = 1; mib < 600; mib++)
		check_cut(mib * MIB);
	for (uint64_t pages = 1; pages < 5000; pages += 7)
		check_cut(pages * PAGE_BYTES);
	check_cut(1ull << 40);
	check_cut((1ull << 40) + 37 * PAGE_BYTES);
	check_cut(STRIPES_MAX * 4 * MIB - PAGE_BYTES);
}

static void stripes_are_one_per_4_mib_up_to_64(void **state)
{
	struct cut c;

	(void)state;
	cut_init(&c, PAGE_BYTES);
	assert_int_equal(c.stripes, 1);
	cut_init(&c, 8 * MIB - PAGE_BYTES);
	assert_int_equal(c.stripes, 1);
	cut_init(&c, 8 * MIB);
	assert_int_equal(c.stripes, 2);
	cut_init(&c, 256 * MIB);
	assert_int_equal(c.stripes, 64);
	cut_init(&c, 1ull << 40);
	assert_int_equal(c.stripes, 64);
}

static void stripes_are_dealt_to_the_shards_in_turn(void **state)
{
	(void)state;
	assert_int_equal(cut_shard(0, 4), 0);
	assert_int_equal(cut_shard(5, 4), 1);
	assert_int_equal(cut_shard(63, 1), 0);
}

/* --- claiming ---------------------------------------------------------- */

static void the_first_touch_claims_and_waits(void **state)
{
	(void)state;
	start_with(4 * MIB * 2);
	TOUCH(0, "wait, claim 0+1 open 1");
	granted();
	TOUCH(0, "here, claim 1+1 open 1");
	TOUCH(0, "here");
}

static void an_extent_is_claimed_once(void **state)
{
	(void)state;
	start_with(4 * MIB * 2);
	TOUCH(0, "wait, claim 0+1 open 1");
	TOUCH(0, "wait");
	TOUCH(1, "wait, claim 1+1 open 1");
	place_told(&place, 0, 3, true, 1);
	TOUCH(0, "here");
}

static void a_scan_claims_runs_that_double_ahead_of_itself(void **state)
{
	uint32_t waits = 0, claims = 0, largest = 0;

	(void)state;
	start_with(8192 * MIB); /* 64 extents a stripe */
	for (uint32_t e = 0; e < 64; e++) {
		const char *what = touch(e);

		if (what[0] == 'w') {
			waits++;
			assert_true(claim.n > 0);
			granted();
			(void)touch(e);
		}
		if (claim.n > 0) {
			claims++;
			if (claim.n > largest)
				largest = claim.n;
			granted();
		}
		TOUCH(e, "here");
	}
	assert_int_equal(waits, 1);
	assert_true(claims <= 8);
	assert_true(largest >= 16);
}

static void a_claim_never_crosses_a_stripe(void **state)
{
	(void)state;
	start_with(16 * MIB); /* 2 extents a stripe */
	TOUCH(0, "wait, claim 0+1 open 1");
	granted();
	TOUCH(0, "here, claim 1+1 open 1");
	granted();
	TOUCH(1, "here");
	TOUCH(2, "wait, claim 2+1 open 1");
}

static void a_claim_crosses_stripes_where_one_shard_has_all(void **state)
{
	uint32_t waits = 0, largest = 0;

	(void)state;
	start_with(256 * MIB); /* 2 extents a stripe */
	place.whole = true;
	for (uint32_t e = 0; e < place.cut.extents; e++) {
		waits += touch(e)[0] == 'w';
		if (claim.n > largest)
			largest = claim.n;
		granted();
		(void)touch(e);
		granted();
		TOUCH(e, "here");
	}
	assert_int_equal(waits, 1);
	assert_true(largest >= 16);
}

static void a_claim_opens_the_first_half_of_its_run(void **state)
{
	(void)state;
	start_with(8192 * MIB);
	TOUCH(0, "wait, claim 0+1 open 1");
	granted();
	TOUCH(0, "here, claim 1+2 open 1");
	granted();
	TOUCH(1, "here, claim 2+4 open 2");
	granted();
	TOUCH(4, "wait, claim 4+8 open 4"); /* claimed, and not open yet */
}

static void a_scan_of_anothers_pages_asks_ahead(void **state)
{
	(void)state;
	start_with(8192 * MIB);
	TOUCH(0, "wait, claim 0+1 open 1");
	place_told(&place, 0, 7, true, 1);
	TOUCH(0, "at 7, claim 1+2 open 1");
	place_told(&place, 1, 7, true, 1);
	place_told(&place, 2, 7, true, 1);
	TOUCH(1, "at 7");
}

static void random_touches_claim_no_more_than_they_touch(void **state)
{
	(void)state;
	start_with(512 * MIB);
	TOUCH(2, "wait, claim 2+1 open 1");
	TOUCH(0, "wait, claim 0+1 open 1");
	TOUCH(3, "wait, claim 3+1 open 1");
}

static void a_claim_leaves_out_what_others_have(void **state)
{
	(void)state;
	start_with(8192 * MIB);
	TOUCH(0, "wait, claim 0+1 open 1");
	granted();
	place_told(&place, 2, 7, true, 1);
	TOUCH(0, "here, claim 1+1 open 1");
	granted();
	TOUCH(1, "here");
	TOUCH(2, "at 7");
	TOUCH(3, "wait, claim 3+1 open 1");
}

static void a_claim_that_came_too_late_names_the_home(void **state)
{
	(void)state;
	start_with(8 * MIB);
	TOUCH(1, "wait, claim 1+1 open 1");
	place_told(&place, 1, 7, true, 1);
	TOUCH(1, "at 7");
}

static void an_extent_of_ours_is_opened_before_it_is_touched(void **state)
{
	(void)state;
	start_with(8 * MIB);
	place_told(&place, 1, 3, false, 1);
	TOUCH(1, "wait, claim 1+1 open 1");
	granted();
	TOUCH(1, "here");
}

static void what_was_not_answered_is_asked_anew(void **state)
{
	(void)state;
	start_with(8 * MIB);
	TOUCH(1, "wait, claim 1+1 open 1");
	place_unanswered(&place, 1, 1);
	TOUCH(1, "wait, claim 1+1 open 1");
	place_told(&place, 1, NODE_NONE, false, 0);
	TOUCH(1, "wait, claim 1+1 open 1");
}

/* --- being asked ------------------------------------------------------- */

static void a_peer_that_asks_makes_us_ask(void **state)
{
	(void)state;
	start_with(8 * MIB);
	ASKED(1, "wait, ask 1+1");
	ASKED(1, "wait");
	place_told(&place, 1, 3, true, 1); /* ours: we never heard [B7] */
	ASKED(1, "here");
}

static void a_peer_opens_what_we_only_claimed(void **state)
{
	(void)state;
	start_with(8 * MIB);
	place_told(&place, 1, 3, false, 1);
	ASKED(1, "wait, claim 1+1 open 1");
	granted();
	ASKED(1, "here");
}

static void a_peer_that_asks_the_wrong_node_hears_who_is_home(void **state)
{
	(void)state;
	start_with(8 * MIB);
	place_told(&place, 1, 7, true, 1);
	ASKED(1, "at 7");
}

/* An answer to a question, not to a claim: then it is still to be claimed. */
static void what_a_peer_made_us_ask_can_be_claimed(void **state)
{
	(void)state;
	start_with(8 * MIB);
	ASKED(1, "wait, ask 1+1");
	TOUCH(1, "wait"); /* the answer is on its way */
	place_told(&place, 1, NODE_NONE, false, 0);
	TOUCH(1, "wait, claim 1+1 open 1");
}

/* --- homes that move --------------------------------------------------- */

static void a_home_that_moved_is_looked_up_anew(void **state)
{
	(void)state;
	start_with(8 * MIB);
	place_told(&place, 1, 7, true, 4);
	place_moved(&place, 1, 3); /* older than what we know */
	TOUCH(1, "at 7");
	place_moved(&place, 1, 4);
	TOUCH(1, "wait, claim 1+1 open 1");
	place_told(&place, 1, 8, true, 3); /* old news */
	TOUCH(1, "wait, claim 1+1 open 1");
	place_told(&place, 1, 8, true, 5);
	TOUCH(1, "at 8");
}

static void a_dead_home_is_asked_about_once(void **state)
{
	(void)state;
	start_with(8 * MIB);
	place_told(&place, 1, 7, true, 4);
	assert_true(place_recheck(&place, 1));
	TOUCH(1, "wait, claim 1+1 open 1");
	place_told(&place, 1, 7, true, 4); /* nobody else has it */
	assert_false(place_recheck(&place, 1));
	place_told(&place, 1, 8, true, 5); /* another home, which dies too */
	assert_true(place_recheck(&place, 1));
}

static void nobody_talks_us_out_of_being_home(void **state)
{
	(void)state;
	start_with(8 * MIB);
	place_told(&place, 1, 3, true, 1);
	place_moved(&place, 1, 9);
	TOUCH(1, "here");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_page_is_in_one_stripe),
		cmocka_unit_test(stripes_are_one_per_4_mib_up_to_64),
		cmocka_unit_test(stripes_are_dealt_to_the_shards_in_turn),
		cmocka_unit_test(the_first_touch_claims_and_waits),
		cmocka_unit_test(an_extent_is_claimed_once),
		cmocka_unit_test(
			a_scan_claims_runs_that_double_ahead_of_itself),
		cmocka_unit_test(a_claim_never_crosses_a_stripe),
		cmocka_unit_test(
			a_claim_crosses_stripes_where_one_shard_has_all),
		cmocka_unit_test(a_claim_opens_the_first_half_of_its_run),
		cmocka_unit_test(a_scan_of_anothers_pages_asks_ahead),
		cmocka_unit_test(random_touches_claim_no_more_than_they_touch),
		cmocka_unit_test(a_claim_leaves_out_what_others_have),
		cmocka_unit_test(a_claim_that_came_too_late_names_the_home),
		cmocka_unit_test(
			an_extent_of_ours_is_opened_before_it_is_touched),
		cmocka_unit_test(what_was_not_answered_is_asked_anew),
		cmocka_unit_test(a_peer_that_asks_makes_us_ask),
		cmocka_unit_test(a_peer_opens_what_we_only_claimed),
		cmocka_unit_test(
			a_peer_that_asks_the_wrong_node_hears_who_is_home),
		cmocka_unit_test(what_a_peer_made_us_ask_can_be_claimed),
		cmocka_unit_test(a_home_that_moved_is_looked_up_anew),
		cmocka_unit_test(a_dead_home_is_asked_about_once),
		cmocka_unit_test(nobody_talks_us_out_of_being_home),
	};

	return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
