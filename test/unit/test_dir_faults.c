/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory, step by step: nodes that die, and one way for a peer to lie after
 * the other.  See test_dir.c.
 */

#include "dir_story.h"

/* The only holders die or lie: LOST, seen by `asker`, who waits. */
static void lose_it(void)
{
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GONE, 1, "-");
	STATE(DIR_LOST, "{}");
}

/* --- death ------------------------------------------------------------- */

static void a_page_whose_only_holder_died_is_lost(void **state)
{
	(void)state;
	lose_it();
	STEP(DIR_GET_S, 2, "lost {2}");
	STEP(DIR_GET_X, 3, "lost {3}");
	assert_string_equal(prefetch(DIR_GET_S, 2, true), "refused 2");
	STEP(DIR_DISCARD, 2, "discarded {2}");
	STATE(DIR_UNTOUCHED, "{}");
	STEP(DIR_GET_S, 2, "zero 2");
}

static void who_waits_for_the_dead_writer_hears_that_it_is_lost(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_GET_X, 3, "-");
	STEP(DIR_GET_S, 4, "-");
	STEP(DIR_DISCARD, 5, "-");
	STEP(DIR_GONE, 1, "lost {2 3 4}, discarded {5}");
	STATE(DIR_UNTOUCHED, "{}");
}

static void death_of_one_reader_changes_nothing_for_the_others(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GONE, 2, "-");
	STEP(DIR_GONE, 2, "-"); /* told twice */
	STATE(DIR_SHARED, "{0 1}");
	STEP(DIR_GET_S, 2, "grant_s 2");
}

static void death_counts_as_the_answer(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_X, 0, "inval {1 2}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_GONE, 2, "upgrade 0");
	STATE(DIR_OWNED, "{0}");
}

static void death_of_the_holder_asked_asks_the_next(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_S, 3, "recall_s 1");
	STEP(DIR_GONE, 1, "recall_s 2");
	assert_string_equal(data(2, 0), "grant_s* {3}");
}

static void bytes_for_a_dead_asker_go_to_who_waits(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	STEP(DIR_GET_S, 3, "-");
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(data(1, 4), "grant_x*! 3 frame 4 of 1");
}

static void bytes_for_a_dead_asker_are_kept_at_home(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(data_kept(1, 4), "keep 0, forget 1 frame 4");
	STATE(DIR_SHARED, "{0}");
}

static void bytes_for_a_dead_asker_are_kept_over_the_limit(void **state)
{
	struct dir_event ev = {
		.kind = DIR_ACK_DATA, .from = 0, .number = 4, .can_keep = true
	};

	(void)state;
	/* The home has given its own copy up for it. */
	STEP(DIR_GET_X, 0, "zero 0");
	STEP(DIR_GET_X, 2, "recall_x 0 for 2");
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(feed(&ev), "keep 0, forget 0 frame 4");
	STATE(DIR_SHARED, "{0}");
}

static void bytes_for_a_dead_asker_without_a_frame_are_lost(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(data(1, 4), "forget 1 frame 4");
	STATE(DIR_LOST, "{}");
}

static void bytes_for_a_dead_asker_are_nothing_to_a_discard(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	STEP(DIR_DISCARD, 3, "-");
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(data_kept(1, 4), "forget 1 frame 4, discarded {3}");
	STATE(DIR_UNTOUCHED, "{}");
}

static void a_discard_outlives_who_asked_for_it(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_DISCARD, 3, "inval {1 2}");
	STEP(DIR_GONE, 3, "-");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "-");
	STATE(DIR_UNTOUCHED, "{}");
}

/*
 * The one holder that was to keep its bytes dies while the others, told to give
 * theirs up, still answer.  Nobody has the page then: it was zeros once.
 */
static void the_last_copy_dies_while_the_others_give_up(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_X, 3, "inval {1 2}"); /* then 0's bytes */
	STEP(DIR_GONE, 0, "-");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "lost {3}");
	STATE(DIR_LOST, "{}");
}

static void an_upgrader_dies_while_the_others_give_up(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_X, 2, "inval {0 1}");
	STEP(DIR_GONE, 2, "-");
	STEP(DIR_ACK, 0, "-");
	STEP(DIR_GET_S, 3, "-");
	STEP(DIR_ACK, 1, "lost {3}");
	STATE(DIR_LOST, "{}");
}

static void who_stays_dies_while_a_set_is_trimmed(void **state)
{
	(void)state;
	start_with(4, 0);
	shared_with_home();
	STEP(DIR_GET_S, 3, "grant_s {3}, inval {3}");
	for (node_id n = 0; n < 3; n++)
		STEP(DIR_GONE, n, "-");
	STEP(DIR_ACK, 3, "-");
	STATE(DIR_LOST, "{}");
}

/* --- lies -------------------------------------------------------------- */

static void answers_that_nobody_asked_for_are_refused(void **state)
{
	(void)state;
	STEP(DIR_ACK, 1, "EPROTO");
	STEP(DIR_NOT_HELD, 1, "EPROTO");
	assert_string_equal(data(1, 0), "EPROTO");
	assert_string_equal(data(1, 1), "EPROTO");
	shared_by_1_and_2();
	STEP(DIR_ACK, 1, "EPROTO");
	STEP(DIR_NOT_HELD, 1, "EPROTO");
	assert_string_equal(data(1, 0), "EPROTO");
}

static void answers_of_others_are_refused(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_X, 1, "inval {2}");
	STEP(DIR_ACK, 1, "EPROTO");
	STEP(DIR_ACK, 3, "EPROTO");
	STEP(DIR_NOT_HELD, 3, "EPROTO");
	assert_string_equal(data(3, 0), "EPROTO");
	STEP(DIR_ACK, 2, "upgrade 1");
	STEP(DIR_ACK, 2, "EPROTO"); /* twice */
}

static void the_wrong_answer_is_refused(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_X, 1, "inval {2}");
	assert_string_equal(data(2, 0), "EPROTO"); /* INVAL: no bytes */
	assert_string_equal(data(2, 1), "EPROTO");
	STEP(DIR_ACK, 2, "upgrade 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_ACK, 1, "EPROTO");                /* RECALL: bytes */
	assert_string_equal(data(1, 1), "EPROTO"); /* it stays, not frozen */
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STEP(DIR_GET_X, 3, "inval {2}");
	STEP(DIR_ACK, 2, "recall_x 1 for 3");
	STEP(DIR_ACK, 1, "EPROTO");
	assert_string_equal(data(1, 0), "EPROTO"); /* it must be frozen */
	assert_string_equal(data(1, 1), "grant_x* 3 frame 1 of 1");
}

static void asking_for_what_one_has_is_refused(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 1, "EPROTO");
	STEP(DIR_GET_S, 1, "EPROTO");
	assert_string_equal(prefetch(DIR_GET_S, 1, true), "EPROTO");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_GET_X, 1, "EPROTO"); /* still the owner */
	STEP(DIR_GET_S, 1, "EPROTO");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STEP(DIR_GET_S, 1, "EPROTO");
	STEP(DIR_GET_S, 2, "EPROTO");
}

static void asking_twice_is_refused(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_GET_S, 2, "EPROTO"); /* being served */
	STEP(DIR_GET_X, 2, "EPROTO");
	assert_string_equal(prefetch(DIR_GET_S, 2, true), "EPROTO");
	STEP(DIR_GET_X, 3, "-");
	STEP(DIR_GET_X, 3, "EPROTO"); /* waiting */
	STEP(DIR_GET_S, 3, "EPROTO");
	STEP(DIR_DISCARD, 4, "-");
	STEP(DIR_DISCARD, 4, "EPROTO");
	assert_string_equal(data(1, 0), "grant_s* {2}, inval {2}");
	STEP(DIR_ACK, 2, "recall_x 1 for 3");
	assert_string_equal(data(1, 1), "grant_x* 3 frame 1 of 1, inval {3}");
	STEP(DIR_DISCARD, 4, "EPROTO"); /* being served */
	STEP(DIR_ACK, 3, "discarded {4}");
}

static void an_owner_without_its_page_loses_it(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_NOT_HELD, 1, "lost {2}");
	STATE(DIR_LOST, "{}");
}

static void a_reader_without_its_page_leaves_it_to_the_others(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_S, 3, "recall_s 1");
	STEP(DIR_NOT_HELD, 1, "recall_s 2");
	assert_string_equal(data(2, 0), "grant_s* {3}");
	STATE(DIR_SHARED, "{2 3}");
}

static void a_reader_without_its_page_has_given_it_up(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_X, 1, "inval {2}");
	STEP(DIR_NOT_HELD, 2, "upgrade 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_page_whose_only_holder_died_is_lost,
		                       start),
		cmocka_unit_test_setup(
			who_waits_for_the_dead_writer_hears_that_it_is_lost,
			start),
		cmocka_unit_test_setup(
			death_of_one_reader_changes_nothing_for_the_others,
			start),
		cmocka_unit_test_setup(death_counts_as_the_answer, start),
		cmocka_unit_test_setup(death_of_the_holder_asked_asks_the_next,
		                       start),
		cmocka_unit_test_setup(bytes_for_a_dead_asker_go_to_who_waits,
		                       start),
		cmocka_unit_test_setup(bytes_for_a_dead_asker_are_kept_at_home,
		                       start),
		cmocka_unit_test_setup(
			bytes_for_a_dead_asker_are_kept_over_the_limit, start),
		cmocka_unit_test_setup(
			bytes_for_a_dead_asker_without_a_frame_are_lost, start),
		cmocka_unit_test_setup(
			bytes_for_a_dead_asker_are_nothing_to_a_discard, start),
		cmocka_unit_test_setup(a_discard_outlives_who_asked_for_it,
		                       start),
		cmocka_unit_test_setup(
			the_last_copy_dies_while_the_others_give_up, start),
		cmocka_unit_test_setup(
			an_upgrader_dies_while_the_others_give_up, start),
		cmocka_unit_test_setup(who_stays_dies_while_a_set_is_trimmed,
		                       start),
		cmocka_unit_test_setup(
			answers_that_nobody_asked_for_are_refused, start),
		cmocka_unit_test_setup(answers_of_others_are_refused, start),
		cmocka_unit_test_setup(the_wrong_answer_is_refused, start),
		cmocka_unit_test_setup(asking_for_what_one_has_is_refused,
		                       start),
		cmocka_unit_test_setup(asking_twice_is_refused, start),
		cmocka_unit_test_setup(an_owner_without_its_page_loses_it,
		                       start),
		cmocka_unit_test_setup(
			a_reader_without_its_page_leaves_it_to_the_others,
			start),
		cmocka_unit_test_setup(
			a_reader_without_its_page_has_given_it_up, start),
	};

	return cmocka_run_group_tests_name("dir_faults", tests, NULL, NULL);
}
