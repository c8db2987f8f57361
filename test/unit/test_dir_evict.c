/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory, step by step: copies that are to go, reads for those who evict
 * them, and writers of pages with replicas.  See test_dir.c.
 */

#include "dir_story.h"

static const struct nodeset *set_of(node_id n)
{
	static struct nodeset s;

	nodeset_clear(&s);
	nodeset_add(&s, n);
	return &s;
}

static const char *evict(node_id from, uint8_t need, node_id unconfirmed)
{
	return feed(&(struct dir_event){
		.kind = DIR_EVICT,
		.from = from,
		.need = need,
		.unconfirmed =
			unconfirmed == NODE_NONE ? NULL : set_of(unconfirmed),
		.now_us = now_us });
}

static const char *stores(node_id from)
{
	now_us += 1000;
	return feed(&(struct dir_event){ .kind = DIR_GET_S,
	                                 .from = from,
	                                 .store = true,
	                                 .now_us = now_us });
}

/* A request for a page of a space with replicas. */
static const char *careful(enum dir_event_kind kind, node_id from)
{
	now_us += 1000;
	return feed(&(struct dir_event){ .kind = kind,
	                                 .from = from,
	                                 .careful = true,
	                                 .now_us = now_us });
}

#define EVICT(from, need, what) \
	assert_string_equal(evict(from, need, NODE_NONE), what)
#define STORES(from, what)        assert_string_equal(stores(from), what)
#define CAREFUL(kind, from, what) assert_string_equal(careful(kind, from), what)

/* 4 is to write what {1 2} hold, and has been granted a read. */
static void granted_ahead(void)
{
	shared_by_1_and_2();
	CAREFUL(DIR_GET_X, 4, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s*+ 4");
	STATE(DIR_BUSY, "{1 2 4}");
}

/* --- may it go? -------------------------------------------------------- */

static void a_copy_that_another_has_may_go(void **state)
{
	(void)state;
	shared_by_1_and_2();
	EVICT(1, 1, "drop 1");
	STATE(DIR_SHARED, "{2}");
}

static void the_last_copy_must_stay(void **state)
{
	(void)state;
	shared_by_1_and_2();
	EVICT(1, 1, "drop 1");
	EVICT(2, 1, "stay 2");
	STATE(DIR_SHARED, "{2}");
}

static void as_many_must_remain_as_there_are_replicas(void **state)
{
	(void)state;
	shared_with_home();
	EVICT(1, 3, "stay 1");
	EVICT(1, 2, "drop 1");
	EVICT(2, 2, "stay 2");
	EVICT(2, 1, "drop 2");
	STATE(DIR_SHARED, "{0}");
}

static void a_copy_on_its_way_does_not_count(void **state)
{
	(void)state;
	shared_by_1_and_2();
	assert_string_equal(evict(1, 1, 2), "stay 1");
	assert_string_equal(evict(2, 1, 2), "drop 2"); /* its own is its own */
	STATE(DIR_SHARED, "{1}");
}

static void homes_own_copy_may_go_like_any(void **state)
{
	(void)state;
	shared_with_home();
	EVICT(0, 2, "drop 0");
	STATE(DIR_SHARED, "{1 2}");
	STEP(DIR_GET_S, 3, "recall_s 1"); /* it has none to grant */
}

static void an_owner_must_stay(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	EVICT(1, 1, "stay 1");
	STATE(DIR_OWNED, "{1}");
}

static void a_busy_page_must_stay(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_X, 3, "inval {1 2}");
	EVICT(0, 1, "stay 0");
	EVICT(1, 1, "stay 1"); /* it will answer the order */
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "recall_x 0 for 3");
	EVICT(0, 1, "stay 0");
	STATE(DIR_BUSY, "{0}");
}

static void a_set_shrinks_until_it_fits_the_entry(void **state)
{
	(void)state;
	shared_with_home();
	STEP(DIR_GET_S, 3, "grant_s {3}");
	STEP(DIR_GET_S, 4, "grant_s {4}");
	EVICT(0, 1, "drop 0");
	EVICT(3, 1, "drop 3");
	STATE(DIR_SHARED, "{1 2 4}");
	EVICT(1, 1, "drop 1");
	EVICT(4, 1, "drop 4");
	STATE(DIR_SHARED, "{2}");
	assert_int_equal(dir_free_txns(dir), 4);
}

/* Asking for what was let go is an ordinary request. */
static void who_evicted_may_ask_again(void **state)
{
	(void)state;
	shared_by_1_and_2();
	EVICT(1, 1, "drop 1");
	STEP(DIR_GET_X, 1, "recall_x 2 for 1");
	assert_string_equal(data(2, 9), "grant_x* 1 frame 9 of 2");
}

static void evicting_what_one_does_not_hold_is_refused(void **state)
{
	(void)state;
	EVICT(1, 1, "EPROTO"); /* untouched */
	shared_by_1_and_2();
	EVICT(3, 1, "EPROTO");
	EVICT(1, 1, "drop 1");
	EVICT(1, 1, "EPROTO");
	STEP(DIR_GET_X, 3, "recall_x 2 for 3");
	EVICT(3, 1, "EPROTO"); /* busy, and not a holder yet */
	STEP(DIR_GONE, 2, "lost {3}");
	EVICT(2, 1, "EPROTO"); /* lost */
}

/* --- reads for those who evict ----------------------------------------- */

static void a_store_reads_like_any(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(2, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STATE(DIR_SHARED, "{1 2}");
	EVICT(1, 1, "drop 1");
	STATE(DIR_SHARED, "{2}");
}

static void a_store_of_what_home_has_is_granted_at_once(void **state)
{
	(void)state;
	shared_with_home();
	STORES(3, "grant_s {3}");
	STATE(DIR_SHARED, "{0 1 2 3}");
}

static void a_store_of_an_untouched_page_is_granted_zeros(void **state)
{
	(void)state;
	STORES(2, "zero 2"); /* discarded since */
	STATE(DIR_OWNED, "{2}");
}

static void a_store_of_a_lost_page_hears_so(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GONE, 1, "-");
	STORES(2, "lost {2}");
}

static void a_store_does_not_wait(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 3, "recall_x 1 for 3");
	STORES(2, "again 2");
	assert_string_equal(data(1, 5), "grant_x* 3 frame 5 of 1");
	STATE(DIR_OWNED, "{3}");
}

static void a_store_without_a_transaction_is_asked_again(void **state)
{
	struct dir_entry other = { 0 }, first;

	(void)state;
	start_with(1, 1);
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_X, 2, "recall_x 1 for 2");
	first = page;
	page = other;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(3, "again 3");
	page = first;
	assert_string_equal(data(1, 5), "grant_x* 2 frame 5 of 1");
}

/* Others wait behind it, as behind any. */
static void a_store_that_is_served_makes_others_wait(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(2, "recall_s 1");
	STEP(DIR_GET_S, 3, "-");
	STEP(DIR_GET_X, 4, "-");
	assert_string_equal(data(1, 0), "grant_s* {2 3}, inval {2 3}");
	STEP(DIR_ACK, 2, "-");
	STEP(DIR_ACK, 3, "recall_x 1 for 4");
}

static void what_is_stored_elsewhere_is_not_kept_at_home(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(2, "recall_s 1");
	assert_string_equal(data_kept(1, 0), "grant_s* {2}");
	STATE(DIR_SHARED, "{1 2}");
}

static void a_store_makes_no_page_migrate(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(2, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STEP(DIR_GET_X, 2, "inval {1}"); /* it wants it after all */
	STEP(DIR_ACK, 1, "upgrade 2");
	STEP(DIR_GET_S, 1, "recall_s 2");
}

static void a_store_does_not_take_a_page_that_migrates(void **state)
{
	(void)state;
	/* Read, then written, by each in turn. */
	shared_by_1_and_2();
	STEP(DIR_GET_X, 2, "inval {1}");
	STEP(DIR_ACK, 1, "upgrade 2");
	STORES(3, "recall_s 2");
	assert_string_equal(data(2, 0), "grant_s* {3}");
	/* ... and that says nothing of who uses it. */
	STEP(DIR_GET_X, 2, "inval {3}");
	STEP(DIR_ACK, 3, "upgrade 2");
	STEP(DIR_GET_S, 1, "recall_x 2 for 1");
}

static void the_store_dies_before_the_bytes_come(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(2, "recall_s 1");
	STEP(DIR_GONE, 2, "-");
	assert_string_equal(data(1, 0), "-");
	STATE(DIR_SHARED, "{1}");
	EVICT(1, 1, "stay 1");
}

static void who_evicts_dies_before_the_bytes_come(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	STORES(2, "recall_s 1");
	STEP(DIR_GONE, 1, "lost {2}");
	STATE(DIR_LOST, "{}");
}

static void who_stored_a_page_dies(void **state)
{
	(void)state;
	shared_with_home();
	EVICT(1, 2, "drop 1");
	STEP(DIR_GONE, 2, "-");
	EVICT(0, 1, "stay 0");
	STEP(DIR_GET_S, 1, "grant_s 1");
}

/* --- a page with replicas ---------------------------------------------- */

static void the_copies_go_after_the_writer_has_the_bytes(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_APPLIED, 4, "inval {1 2}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "upgrade 4");
	STATE(DIR_OWNED, "{4}");
}

static void homes_own_copy_is_asked_for_too(void **state)
{
	(void)state;
	shared_with_home();
	CAREFUL(DIR_GET_X, 4, "recall_s 0");
	assert_string_equal(data(0, 0), "grant_s*+ 4");
	STEP(DIR_APPLIED, 4, "inval {0 1 2}");
}

static void a_single_copy_moves_as_ever(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	CAREFUL(DIR_GET_X, 2, "recall_x 1 for 2");
	assert_string_equal(data(1, 3), "grant_x* 2 frame 3 of 1");
}

static void a_reader_that_writes_needs_no_bytes(void **state)
{
	(void)state;
	shared_by_1_and_2();
	CAREFUL(DIR_GET_X, 1, "inval {2}");
	STEP(DIR_ACK, 2, "upgrade 1");
}

static void who_waits_comes_after_the_careful_writer(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_GET_S, 3, "-");
	STEP(DIR_GET_X, 5, "-");
	STORES(6, "again 6");
	EVICT(1, 1, "stay 1");
	EVICT(4, 1, "stay 4");
	STEP(DIR_APPLIED, 4, "inval {1 2}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "upgrade 4, recall_x 4 for 5");
}

static void a_read_ahead_makes_no_page_migrate(void **state)
{
	(void)state;
	STEP(DIR_GET_X, 1, "zero 1");
	CAREFUL(DIR_GET_S, 2, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	CAREFUL(DIR_GET_X, 3, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s*+ 3");
	STEP(DIR_APPLIED, 3, "inval {1 2}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_ACK, 2, "upgrade 3");
	STEP(DIR_GET_S, 1, "recall_s 3"); /* not recall_x */
}

static void the_careful_writer_dies_before_the_bytes_come(void **state)
{
	(void)state;
	shared_by_1_and_2();
	CAREFUL(DIR_GET_X, 4, "recall_s 1");
	STEP(DIR_GONE, 4, "-");
	assert_string_equal(data(1, 0), "-");
	STATE(DIR_SHARED, "{1 2}");
}

static void the_careful_writer_dies_before_it_applied_them(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_GONE, 4, "-");
	STATE(DIR_SHARED, "{1 2}");
	STEP(DIR_APPLIED, 4, "EPROTO");
}

static void the_careful_writer_dies_while_the_copies_go(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_APPLIED, 4, "inval {1 2}");
	STEP(DIR_ACK, 1, "-");
	STEP(DIR_GONE, 4, "-");
	STEP(DIR_ACK, 2, "-"); /* it was told to: it is the writer's death */
	STATE(DIR_LOST, "{}");
}

static void the_holder_asked_dies_before_it_answers(void **state)
{
	(void)state;
	shared_with_home();
	EVICT(0, 1, "drop 0");
	CAREFUL(DIR_GET_X, 4, "recall_s 1");
	STEP(DIR_GONE, 1, "recall_x 2 for 4"); /* it is the last */
	assert_string_equal(data(2, 3), "grant_x* 4 frame 3 of 2");
}

static void holders_die_before_the_bytes_are_applied(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_GONE, 1, "-");
	STEP(DIR_GONE, 2, "-");
	STATE(DIR_BUSY, "{4}");
	STEP(DIR_APPLIED, 4, "upgrade 4");
	STATE(DIR_OWNED, "{4}");
}

static void holders_die_while_they_give_up(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_APPLIED, 4, "inval {1 2}");
	STEP(DIR_GONE, 1, "-");
	STEP(DIR_GONE, 2, "upgrade 4");
}

static void applying_what_was_not_granted_is_refused(void **state)
{
	(void)state;
	STEP(DIR_APPLIED, 1, "EPROTO"); /* untouched */
	shared_by_1_and_2();
	STEP(DIR_APPLIED, 1, "EPROTO");
	STEP(DIR_GET_X, 1, "inval {2}");
	STEP(DIR_APPLIED, 2, "EPROTO"); /* it has an order to answer */
	STEP(DIR_ACK, 2, "upgrade 1");
	STEP(DIR_APPLIED, 1, "EPROTO");
	STEP(DIR_GONE, 1, "-");
	STEP(DIR_APPLIED, 2, "EPROTO"); /* lost */
}

static void answers_while_a_read_ahead_is_under_way_are_refused(void **state)
{
	(void)state;
	granted_ahead();
	STEP(DIR_APPLIED, 1, "EPROTO");
	STEP(DIR_ACK, 4, "EPROTO");
	STEP(DIR_NOT_HELD, 4, "EPROTO");
	assert_string_equal(data(4, 0), "EPROTO");
	assert_string_equal(data(4, 3), "EPROTO");
	STEP(DIR_ACK, 1, "EPROTO");
	STEP(DIR_GET_X, 4, "EPROTO"); /* it has asked */
	STEP(DIR_APPLIED, 4, "inval {1 2}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_copy_that_another_has_may_go, start),
		cmocka_unit_test_setup(the_last_copy_must_stay, start),
		cmocka_unit_test_setup(
			as_many_must_remain_as_there_are_replicas, start),
		cmocka_unit_test_setup(a_copy_on_its_way_does_not_count, start),
		cmocka_unit_test_setup(homes_own_copy_may_go_like_any, start),
		cmocka_unit_test_setup(an_owner_must_stay, start),
		cmocka_unit_test_setup(a_busy_page_must_stay, start),
		cmocka_unit_test_setup(a_set_shrinks_until_it_fits_the_entry,
		                       start),
		cmocka_unit_test_setup(who_evicted_may_ask_again, start),
		cmocka_unit_test_setup(
			evicting_what_one_does_not_hold_is_refused, start),
		cmocka_unit_test_setup(a_store_reads_like_any, start),
		cmocka_unit_test_setup(
			a_store_of_what_home_has_is_granted_at_once, start),
		cmocka_unit_test_setup(
			a_store_of_an_untouched_page_is_granted_zeros, start),
		cmocka_unit_test_setup(a_store_of_a_lost_page_hears_so, start),
		cmocka_unit_test_setup(a_store_does_not_wait, start),
		cmocka_unit_test_setup(
			a_store_without_a_transaction_is_asked_again, start),
		cmocka_unit_test_setup(a_store_that_is_served_makes_others_wait,
		                       start),
		cmocka_unit_test_setup(
			what_is_stored_elsewhere_is_not_kept_at_home, start),
		cmocka_unit_test_setup(a_store_makes_no_page_migrate, start),
		cmocka_unit_test_setup(
			a_store_does_not_take_a_page_that_migrates, start),
		cmocka_unit_test_setup(the_store_dies_before_the_bytes_come,
		                       start),
		cmocka_unit_test_setup(who_evicts_dies_before_the_bytes_come,
		                       start),
		cmocka_unit_test_setup(who_stored_a_page_dies, start),
		cmocka_unit_test_setup(
			the_copies_go_after_the_writer_has_the_bytes, start),
		cmocka_unit_test_setup(homes_own_copy_is_asked_for_too, start),
		cmocka_unit_test_setup(a_single_copy_moves_as_ever, start),
		cmocka_unit_test_setup(a_reader_that_writes_needs_no_bytes,
		                       start),
		cmocka_unit_test_setup(who_waits_comes_after_the_careful_writer,
		                       start),
		cmocka_unit_test_setup(a_read_ahead_makes_no_page_migrate,
		                       start),
		cmocka_unit_test_setup(
			the_careful_writer_dies_before_the_bytes_come, start),
		cmocka_unit_test_setup(
			the_careful_writer_dies_before_it_applied_them, start),
		cmocka_unit_test_setup(
			the_careful_writer_dies_while_the_copies_go, start),
		cmocka_unit_test_setup(the_holder_asked_dies_before_it_answers,
		                       start),
		cmocka_unit_test_setup(holders_die_before_the_bytes_are_applied,
		                       start),
		cmocka_unit_test_setup(holders_die_while_they_give_up, start),
		cmocka_unit_test_setup(applying_what_was_not_granted_is_refused,
		                       start),
		cmocka_unit_test_setup(
			answers_while_a_read_ahead_is_under_way_are_refused,
			start),
	};

	return cmocka_run_group_tests_name("dir_evict", tests, NULL, NULL);
}
