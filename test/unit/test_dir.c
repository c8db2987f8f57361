/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory, step by step: what honest nodes that live make it do.
 *
 * Each test tells one short story: the events on the left, on the right what
 * the directory must do, as text, so that a failure shows both at once.  One
 * test per row of the table in core/dir.c.  Deaths and lies are told in
 * test_dir_faults.c; interleavings are not: test/model visits all of them.
 */

#include "dir_story.h"

/* --- rows of the table ------------------------------------------------- */

static void first_reader_may_write_too(void **state)
{
	(void)state;
	STATE(DIR_UNTOUCHED, "{}");
	STEP(DIR_GET_S, 3, "zero 3");
	STATE(DIR_OWNED, "{3}");
}

static void first_writer_gets_zeros(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 3, "zero 3");
	STATE(DIR_OWNED, "{3}");
}

static void discard_of_an_untouched_page_is_nothing(void **state)
{
	(void)state;
	STEP(DIR_DISCARD, 3, "discarded 3");
	STATE(DIR_UNTOUCHED, "{}");
}

static void home_that_reads_grants_reads_at_once(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_S, 3, "grant_s {3}");
	STATE(DIR_SHARED, "{0 1 2 3}");
}

static void home_that_reads_grants_a_third_without_a_transaction(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 0, "zero 0");
	STEP(DIR_GET_S, 1, "recall_s 0");
	assert_string_equal(data(0, 0), "grant_s* {1}");
	assert_int_equal(dir_free_txns(dir), 4);
	STEP(DIR_GET_S, 2, "grant_s 2");
	STATE(DIR_SHARED, "{0 1 2}");
}

static void home_without_a_copy_asks_one_holder(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_S, 3, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {3}");
	STATE(DIR_SHARED, "{1 2 3}");
}

static void sole_reader_upgrades_without_data(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GONE, 1, "-");
	STEP(DIR_GET_X, 2, "upgrade 2");
	STATE(DIR_OWNED, "{2}");
}

static void reader_upgrades_when_the_others_gave_up(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_X, 2, "inval {0 1}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 0, "upgrade 2");
	STATE(DIR_OWNED, "{2}");
}

static void writer_without_a_copy_gets_the_last_ones_bytes(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_S, 4, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {4}");
	STEP(DIR_GET_X, 3, "inval {2 4}");
	STEP(DIR_ACK, 4, "-");
	STEP(DIR_ACK, 2, "recall_x 1 for 3");
	assert_string_equal(data(1, 7), "grant_x* 3 frame 7 of 1");
	STATE(DIR_OWNED, "{3}");
}

static void writer_without_a_copy_gets_homes_bytes_if_it_has_some(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_X, 3, "inval {1 2}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "recall_x 0 for 3");
	assert_string_equal(data(0, 9), "grant_x* 3 frame 9 of 0");
}

static void discard_takes_every_copy(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_DISCARD, 2, "inval {0 1 2}");
	STEP(DIR_ACK, 2, "-");
	STEP(DIR_ACK, 0, "-");
	STEP(DIR_ACK, 1, "discarded {2}");
	STATE(DIR_UNTOUCHED, "{}");
	STEP(DIR_GET_S, 1, "zero 1");
}

static void discard_takes_the_writers_copy(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_DISCARD, 2, "inval {1}");
	STEP(DIR_ACK, 1, "discarded {2}");
	STATE(DIR_UNTOUCHED, "{}");
}

static void reader_gets_what_the_writer_wrote(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STATE(DIR_BUSY, "{1}");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STATE(DIR_SHARED, "{1 2}");
}

static void writer_takes_from_writer(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	assert_string_equal(data(1, 5), "grant_x* 2 frame 5 of 1");
	STATE(DIR_OWNED, "{2}");
}

static void home_keeps_a_copy_if_it_has_room(void **state)
{
	(void)state;
	shared_with_home();
	/* Not twice. */
	STEP(DIR_GONE, 0, "-");
	STEP(DIR_GET_S, 3, "recall_s 1");
	assert_string_equal(data_kept(1, 0), "grant_s* {3}, keep 0");
	STATE(DIR_SHARED, "{0 1 2 3}");
}

static void home_does_not_keep_what_it_was_granted(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 0, "recall_s 1");
	assert_string_equal(data_kept(1, 0), "grant_s* {0}");
	STATE(DIR_SHARED, "{0 1}");
}

static void readers_that_wait_are_served_together(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_GET_S, 3, "-");
	STEP(DIR_GET_S, 900, "-");
	assert_string_equal(data(1, 0), "grant_s* {2 3 900}");
	STATE(DIR_SHARED, "{1 2 3 900}");
}

static void waiters_are_served_round_robin(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 2, "zero 2");
	STEP(DIR_GET_X, 3, "recall_x 2 for 3");
	STEP(DIR_GET_X, 1, "-");
	STEP(DIR_GET_X, 5, "-");
	assert_string_equal(data(2, 1),
	                    "grant_x* 3 frame 1 of 2, recall_x 3 for 5");
	/* 2 asks again, but 1 was before it. */
	STEP(DIR_GET_X, 2, "-");
	assert_string_equal(data(3, 2),
	                    "grant_x* 5 frame 2 of 3, recall_x 5 for 1");
	assert_string_equal(data(5, 3),
	                    "grant_x* 1 frame 3 of 5, recall_x 1 for 2");
	assert_string_equal(data(1, 4), "grant_x* 2 frame 4 of 1");
}

static void a_writer_that_waits_is_served_after_the_readers(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	STEP(DIR_GET_X, 3, "-");
	STEP(DIR_GET_S, 4, "-");
	assert_string_equal(data(1, 0), "grant_s* {2 4}, inval {2 4}");
	STEP(DIR_ACK, 2, "-");
	STEP(DIR_ACK, 4, "recall_x 1 for 3");
	assert_string_equal(data(1, 6), "grant_x* 3 frame 6 of 1");
}

static void an_upgrade_that_lost_the_race_gets_bytes(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_X, 1, "inval {2}");
	STEP(DIR_GET_X, 2, "-"); /* it crossed the INVAL */
	STEP(DIR_ACK, 2, "upgrade 1, recall_x 1 for 2");
	assert_string_equal(data(1, 3), "grant_x* 2 frame 3 of 1");
}

static void discards_that_wait_are_answered_together(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_DISCARD, 2, "inval {1}");
	STEP(DIR_DISCARD, 1, "-");
	STEP(DIR_GET_S, 3, "-");
	STEP(DIR_GET_X, 4, "-");
	STEP(DIR_ACK, 1, "discarded {1 2}, zero 3, recall_x 3 for 4");
	assert_string_equal(data(3, 1), "grant_x* 4 frame 1 of 3");
}

static void a_node_may_ask_and_discard_at_once(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_X, 2, "inval {1}");
	STEP(DIR_DISCARD, 2, "-");
	STEP(DIR_ACK, 1, "upgrade 2, inval {2}");
	STEP(DIR_ACK, 2, "discarded {2}");
	STATE(DIR_UNTOUCHED, "{}");
}

/* --- migration --------------------------------------------------------- */

/* 1 writes; 2 reads, then writes: the page moves from hand to hand. */
static void migrate(void)
{
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STEP(DIR_GET_X, 2, "inval {1}");
	STEP(DIR_ACK, 1, "upgrade 2");
}

static void a_page_that_migrates_is_granted_writable(void **state)
{
	(void)state;
	migrate();
	STEP(DIR_GET_S, 1, "recall_x 2 for 1");
	assert_string_equal(data(2, 8), "grant_x*! 1 frame 8 of 2");
	STATE(DIR_OWNED, "{1}");
	STEP(DIR_GET_S, 3, "recall_x 1 for 3");
	assert_string_equal(data(1, 9), "grant_x*! 3 frame 9 of 1");
}

static void two_readers_within_one_residency_end_migration(void **state)
{
	struct dir_event ev = { .kind = DIR_GET_S, .from = 1 };

	(void)state;
	migrate();
	ev.now_us = now_us + 49; /* 2 got it 49 us ago */
	assert_string_equal(feed(&ev), "recall_s 2");
	assert_string_equal(data(2, 0), "grant_s* {1}");
	STATE(DIR_SHARED, "{1 2}");
}

static void a_reader_that_waits_ends_migration(void **state)
{
	(void)state;
	migrate();
	STEP(DIR_GET_S, 1, "recall_x 2 for 1");
	STEP(DIR_GET_S, 3, "-");
	assert_string_equal(data(2, 8), "grant_x*! 1 frame 8 of 2, recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {3}");
	STATE(DIR_SHARED, "{1 3}");
}

static void a_writer_that_only_took_turns_reading_does_not_migrate(void **state)
{
	(void)state;
	shared_by_1_and_2();
	STEP(DIR_GET_X, 1, "inval {2}"); /* the old writer, not the reader */
	STEP(DIR_ACK, 2, "upgrade 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
}

static void a_migrating_page_is_not_prefetched(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 0, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {0}");
	STEP(DIR_GET_X, 0, "inval {1}");
	STEP(DIR_ACK, 1, "upgrade 0");
	assert_string_equal(prefetch(DIR_GET_S, 1, true), "refused 1");
	STATE(DIR_OWNED, "{0}");
}

/* --- prefetch ---------------------------------------------------------- */

static void prefetch_of_an_untouched_page_is_granted(void **state)
{
	(void)state;
	assert_string_equal(prefetch(DIR_GET_S, 2, false), "zero 2");
}

static void prefetch_shares_what_home_reads(void **state)
{
	(void)state;
	shared_with_home();
	assert_string_equal(prefetch(DIR_GET_S, 3, false), "grant_s {3}");
}

static void prefetch_of_homes_own_page_recalls_it_if_it_is_ready(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 0, "zero 0");
	assert_string_equal(prefetch(DIR_GET_S, 2, false), "refused 2");
	assert_string_equal(prefetch(DIR_GET_S, 2, true), "recall_s 0");
	assert_string_equal(data(0, 0), "grant_s* {2}");
}

static void prefetch_waits_for_nobody(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	assert_string_equal(prefetch(DIR_GET_S, 2, true), "refused 2");
	assert_string_equal(prefetch(DIR_GET_X, 2, true), "refused 2");
	STATE(DIR_OWNED, "{1}");
	STEP(DIR_GET_S, 3, "recall_s 1");
	assert_string_equal(prefetch(DIR_GET_S, 2, true), "refused 2");
	assert_string_equal(data(1, 0), "grant_s* {3}");
	/* The home has no copy to give. */
	assert_string_equal(prefetch(DIR_GET_S, 2, true), "refused 2");
	STATE(DIR_SHARED, "{1 3}");
}

static void prefetch_to_write_takes_nothing_from_anybody(void **state)
{
	(void)state;
	shared_with_home();
	assert_string_equal(prefetch(DIR_GET_X, 2, true), "refused 2");
	assert_string_equal(prefetch(DIR_GET_X, 3, true), "refused 3");
	STATE(DIR_SHARED, "{0 1 2}");
}

/* --- pools ------------------------------------------------------------- */

static void more_sharers_than_an_entry_holds_use_a_set(void **state)
{
	(void)state;
	shared_with_home();
	for (node_id n = 3; n < 40; n++)
		assert_int_not_equal(step(DIR_GET_S, n)[0], 'E');
	assert_int_equal(dir_free_txns(dir), 4);
	STEP(DIR_GET_S, 20, "EPROTO");
	STEP(DIR_DISCARD, 2,
	     "inval {0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 "
	     "22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39}");
	for (node_id n = 0; n < 39; n++)
		STEP(DIR_ACK, n, "-");
	STEP(DIR_ACK, 39, "discarded {2}");
}

static void without_a_set_some_sharers_must_go(void **state)
{
	(void)state;
	start_with(4, 0);
	shared_with_home();
	STEP(DIR_GET_S, 3, "grant_s {3}, inval {3}");
	STEP(DIR_GET_X, 1, "-");
	STEP(DIR_ACK, 3, "inval {0 2}");
	STEP(DIR_GET_S, 3, "-"); /* it may ask again */
	STEP(DIR_ACK, 0, "-");
	STEP(DIR_ACK, 2, "upgrade 1, recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {3}");
	STATE(DIR_SHARED, "{1 3}");
}

static void a_set_is_given_back(void **state)
{
	(void)state;
	start_with(4, 1);
	for (unsigned round = 0; round < 3; round++) {
		shared_with_home();
		STEP(DIR_GET_S, 3, "grant_s {3}");
		STEP(DIR_DISCARD, 1, "inval {0 1 2 3}");
		for (node_id n = 0; n < 3; n++)
			STEP(DIR_ACK, n, "-");
		STEP(DIR_ACK, 3, "discarded {1}");
	}
}

static void without_a_transaction_a_holder_may_die(void **state)
{
	struct dir_entry first;

	(void)state;
	start_with(1, 1);
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	first = page;
	page = (struct dir_entry){ 0 };
	STEP(DIR_GET_S, 3, "zero 3");
	STEP(DIR_GONE, 3, "-");
	STATE(DIR_LOST, "{}");
	page = first;
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(data_kept(1, 1), "keep 0, forget 1 frame 1");
	/* And from a set, which it leaves when the rest fits inline. */
	for (node_id n = 1; n < 6; n++)
		assert_int_not_equal(step(DIR_GET_S, n)[0], 'E');
	STEP(DIR_GONE, 2, "-");
	STEP(DIR_GONE, 4, "-");
	STATE(DIR_SHARED, "{0 1 3 5}");
	STEP(DIR_GONE, 0, "-");
	STATE(DIR_SHARED, "{1 3 5}");
	STEP(DIR_GONE, 3, "-");
	STEP(DIR_GONE, 1, "-");
	STEP(DIR_GONE, 5, "-");
	STATE(DIR_LOST, "{}");
}

static void a_page_that_is_dropped_gives_back_what_it_has(void **state)
{
	(void)state;
	start_with(1, 1);
	for (unsigned round = 0; round < 3; round++) {
		shared_with_home();
		STEP(DIR_GET_S, 3, "grant_s {3}");
		dir_drop(dir, &page);
		STATE(DIR_UNTOUCHED, "{}");
		shared_with_home();
		STEP(DIR_DISCARD, 2, "inval {0 1 2}");
		assert_int_equal(dir_free_txns(dir), 0);
		dir_drop(dir, &page);
		assert_int_equal(dir_free_txns(dir), 1);
	}
}

static void without_a_transaction_ask_again_later(void **state)
{
	struct dir_entry first;

	(void)state;
	start_with(1, 0);
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	first = page;
	page = (struct dir_entry){ 0 };
	STEP(DIR_GET_S, 3, "zero 3"); /* needs none */
	STEP(DIR_GET_S, 4, "again 4");
	STEP(DIR_DISCARD, 4, "again 4");
	STATE(DIR_OWNED, "{3}");
	page = first;
	assert_string_equal(data(1, 1), "grant_x* 2 frame 1 of 1");
	assert_int_equal(dir_free_txns(dir), 1);
}

static void without_a_transaction_prefetch_is_refused(void **state)
{
	struct dir_entry first;

	(void)state;
	start_with(1, 0);
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	first = page;
	page = (struct dir_entry){ 0 };
	STEP(DIR_GET_S, 0, "zero 0");
	assert_string_equal(prefetch(DIR_GET_S, 4, true), "refused 4");
	page = first;
	assert_string_equal(data(1, 1), "grant_x* 2 frame 1 of 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(first_reader_may_write_too, start),
		cmocka_unit_test_setup(first_writer_gets_zeros, start),
		cmocka_unit_test_setup(discard_of_an_untouched_page_is_nothing,
		                       start),
		cmocka_unit_test_setup(home_that_reads_grants_reads_at_once,
		                       start),
		cmocka_unit_test_setup(
			home_that_reads_grants_a_third_without_a_transaction,
			start),
		cmocka_unit_test_setup(home_without_a_copy_asks_one_holder,
		                       start),
		cmocka_unit_test_setup(sole_reader_upgrades_without_data,
		                       start),
		cmocka_unit_test_setup(reader_upgrades_when_the_others_gave_up,
		                       start),
		cmocka_unit_test_setup(
			writer_without_a_copy_gets_the_last_ones_bytes, start),
		cmocka_unit_test_setup(
			writer_without_a_copy_gets_homes_bytes_if_it_has_some,
			start),
		cmocka_unit_test_setup(discard_takes_every_copy, start),
		cmocka_unit_test_setup(discard_takes_the_writers_copy, start),
		cmocka_unit_test_setup(reader_gets_what_the_writer_wrote,
		                       start),
		cmocka_unit_test_setup(writer_takes_from_writer, start),
		cmocka_unit_test_setup(home_keeps_a_copy_if_it_has_room, start),
		cmocka_unit_test_setup(home_does_not_keep_what_it_was_granted,
		                       start),
		cmocka_unit_test_setup(readers_that_wait_are_served_together,
		                       start),
		cmocka_unit_test_setup(waiters_are_served_round_robin, start),
		cmocka_unit_test_setup(
			a_writer_that_waits_is_served_after_the_readers, start),
		cmocka_unit_test_setup(an_upgrade_that_lost_the_race_gets_bytes,
		                       start),
		cmocka_unit_test_setup(discards_that_wait_are_answered_together,
		                       start),
		cmocka_unit_test_setup(a_node_may_ask_and_discard_at_once,
		                       start),
		cmocka_unit_test_setup(a_page_that_migrates_is_granted_writable,
		                       start),
		cmocka_unit_test_setup(
			two_readers_within_one_residency_end_migration, start),
		cmocka_unit_test_setup(a_reader_that_waits_ends_migration,
		                       start),
		cmocka_unit_test_setup(
			a_writer_that_only_took_turns_reading_does_not_migrate,
			start),
		cmocka_unit_test_setup(a_migrating_page_is_not_prefetched,
		                       start),
		cmocka_unit_test_setup(prefetch_of_an_untouched_page_is_granted,
		                       start),
		cmocka_unit_test_setup(prefetch_shares_what_home_reads, start),
		cmocka_unit_test_setup(
			prefetch_of_homes_own_page_recalls_it_if_it_is_ready,
			start),
		cmocka_unit_test_setup(prefetch_waits_for_nobody, start),
		cmocka_unit_test_setup(
			prefetch_to_write_takes_nothing_from_anybody, start),
		cmocka_unit_test_setup(
			more_sharers_than_an_entry_holds_use_a_set, start),
		cmocka_unit_test_setup(without_a_set_some_sharers_must_go,
		                       start),
		cmocka_unit_test_setup(a_set_is_given_back, start),
		cmocka_unit_test_setup(without_a_transaction_a_holder_may_die,
		                       start),
		cmocka_unit_test_setup(
			a_page_that_is_dropped_gives_back_what_it_has, start),
		cmocka_unit_test_setup(without_a_transaction_ask_again_later,
		                       start),
		cmocka_unit_test_setup(
			without_a_transaction_prefetch_is_refused, start),
	};

	return cmocka_run_group_tests_name("dir", tests, NULL, NULL);
}
