/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder side, step by step: see test_dir.c for how the stories are told.
 * One test per row of the table in core/page.c, one per way for a home to lie,
 * and the rule of residency.
 */

#include "page_story.h"

/* --- asking ------------------------------------------------------------ */

static void a_read_asks_for_a_copy(void **state)
{
	(void)state;
	hold_s();
	READS("map");
}

static void a_write_asks_to_write(void **state)
{
	(void)state;
	hold_m();
	READS("map");
	WRITES("map");
}

static void a_reader_that_writes_is_upgraded_in_place(void **state)
{
	(void)state;
	hold_s();
	WRITES("wait, get_x");
	READS("map"); /* meanwhile */
	STEP(PAGE_UPGRADE, "unprotect");
	assert_int_equal(page.state, PAGE_M);
}

static void one_request_at_a_time(void **state)
{
	(void)state;
	READS("wait, get_s");
	READS("wait");
	WRITES("wait"); /* once it may read it faults again */
	STEP(PAGE_PREFETCH, "-");
	STEP(PAGE_GRANT_S, "install_s");
	WRITES("wait, get_x");
	WRITES("wait");
	STEP(PAGE_PREFETCH, "-");
}

static void a_read_may_be_granted_writable(void **state)
{
	(void)state;
	READS("wait, get_s");
	STEP(PAGE_GRANT_X, "install_m");
	assert_int_equal(page.state, PAGE_M);
}

static void zeros_are_granted_writable(void **state)
{
	(void)state;
	READS("wait, get_s");
	STEP(PAGE_GRANT_ZERO, "install_zero");
	assert_int_equal(page.state, PAGE_M);
}

static void prefetch_asks_without_anybody_waiting(void **state)
{
	(void)state;
	STEP(PAGE_PREFETCH, "get_s");
	READS("wait");
	STEP(PAGE_GRANT_S, "install_s");
	STEP(PAGE_PREFETCH, "-");
	write_access = true;
	STEP(PAGE_PREFETCH, "get_x");
	STEP(PAGE_UPGRADE, "unprotect");
	STEP(PAGE_PREFETCH, "-");
}

static void a_refused_prefetch_is_touched_again(void **state)
{
	(void)state;
	STEP(PAGE_PREFETCH, "get_s");
	READS("wait");
	STEP(PAGE_REFUSED, "touch_again");
	READS("wait, get_s");
	STEP(PAGE_REFUSED, "EPROTO"); /* that was no prefetch */
}

static void a_void_request_is_asked_anew(void **state)
{
	(void)state;
	hold_s();
	WRITES("wait, get_x");
	STEP(PAGE_RETRY, "touch_again");
	assert_int_equal(page.state, PAGE_S);
	WRITES("wait, get_x");
}

static void a_lost_page_stays_poisoned_until_it_is_discarded(void **state)
{
	(void)state;
	get_lost();
	READS("poison");
	WRITES("poison");
	STEP(PAGE_PREFETCH, "-");
	STEP(PAGE_DISCARDED, "-");
	READS("wait, get_s");
	STEP(PAGE_GRANT_ZERO, "install_zero");
}

static void a_discard_that_is_done_takes_nothing_more(void **state)
{
	(void)state;
	hold_m();
	STEP(PAGE_DISCARDED, "-"); /* granted since, by the home's order */
	assert_int_equal(page.state, PAGE_M);
}

/* --- giving up --------------------------------------------------------- */

static void a_writer_that_others_read_stays_a_reader(void **state)
{
	(void)state;
	hold_m();
	STEP(PAGE_RECALL_S, "protect, ack_data");
	assert_int_equal(page.state, PAGE_S);
}

static void a_reader_may_be_asked_for_the_bytes(void **state)
{
	(void)state;
	hold_s();
	STEP(PAGE_RECALL_S, "ack_data");
	assert_int_equal(page.state, PAGE_S);
}

static void a_writer_that_gives_up_punches_before_it_says_so(void **state)
{
	(void)state;
	hold_m();
	STEP(PAGE_RECALL_X, "protect, freeze, punch, ack_data frozen");
	assert_int_equal(page.state, PAGE_I);
}

static void a_reader_that_gives_its_bytes_up_needs_no_protection(void **state)
{
	(void)state;
	hold_s();
	STEP(PAGE_RECALL_X, "freeze, punch, ack_data frozen");
	assert_int_equal(page.state, PAGE_I);
}

static void a_copy_that_is_not_wanted_is_punched(void **state)
{
	(void)state;
	hold_s();
	STEP(PAGE_INVAL, "punch, ack");
	hold_m();
	STEP(PAGE_INVAL, "protect, punch, ack");
	assert_int_equal(page.state, PAGE_I);
}

static void who_has_no_copy_says_so(void **state)
{
	(void)state;
	STEP(PAGE_RECALL_S, "not_held");
	STEP(PAGE_RECALL_X, "not_held");
	STEP(PAGE_INVAL, "not_held");
}

static void an_upgrade_that_inval_crosses_is_answered_with_bytes(void **state)
{
	(void)state;
	hold_s();
	WRITES("wait, get_x");
	STEP(PAGE_INVAL, "punch, ack");
	READS("wait"); /* what was asked for will do */
	STEP(PAGE_UPGRADE, "EPROTO");
	STEP(PAGE_GRANT_X, "install_m");
}

static void
an_upgrade_that_a_recall_crosses_is_answered_with_bytes(void **state)
{
	(void)state;
	hold_s();
	WRITES("wait, get_x");
	STEP(PAGE_RECALL_S, "ack_data");
	STEP(PAGE_RECALL_X, "freeze, punch, ack_data frozen");
	STEP(PAGE_GRANT_X, "install_m");
}

static void home_may_keep_bytes_that_pass_by(void **state)
{
	(void)state;
	STEP(PAGE_KEEP, "keep_bytes");
	assert_int_equal(page.state, PAGE_S);
	READS("map");
	assert_string_equal(later(PAGE_INVAL, 0), "punch, ack");
	/* For nobody: it goes at once. */
	STEP(PAGE_KEEP, "keep_bytes");
	assert_string_equal(later(PAGE_INVAL, 0), "punch, ack");
}

static void a_dead_home_never_answers(void **state)
{
	(void)state;
	READS("wait, get_s");
	STEP(PAGE_UNREACHABLE, "poison");
	assert_int_equal(page.state, PAGE_LOST);
}

static void what_is_held_outlives_its_home(void **state)
{
	(void)state;
	hold_m();
	STEP(PAGE_UNREACHABLE, "-");
	assert_int_equal(page.state, PAGE_M);
	STEP(PAGE_RECALL_S, "protect, ack_data");
	STEP(PAGE_UNREACHABLE, "-");
	READS("map");
}

/* Nobody else can let it write: no wait without end. */
static void who_waits_for_a_dead_home_to_write_is_poisoned(void **state)
{
	(void)state;
	hold_s();
	WRITES("wait, get_x");
	STEP(PAGE_UNREACHABLE, "punch, poison");
	assert_int_equal(page.state, PAGE_LOST);
}

static void the_orders_of_a_dead_home_are_void(void **state)
{
	(void)state;
	hold_s();
	assert_string_equal(later(PAGE_INVAL, 10), "defer 40");
	STEP(PAGE_UNREACHABLE, "-");
	assert_int_equal(page.flags, 0);
	STEP(PAGE_INVAL, "punch, ack"); /* of its successor */
}

/* --- lies -------------------------------------------------------------- */

static void answers_that_nobody_asked_for_are_refused(void **state)
{
	static const enum page_event_kind answer[] = {
		PAGE_GRANT_S, PAGE_GRANT_X,    PAGE_GRANT_ZERO, PAGE_UPGRADE,
		PAGE_REFUSED, PAGE_GRANT_LOST, PAGE_RETRY,
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(answer); i++)
		STEP(answer[i], "EPROTO");
	hold_s();
	for (unsigned i = 0; i < ARRAY_SIZE(answer); i++)
		STEP(answer[i], "EPROTO");
	WRITES("wait, get_x");
	STEP(PAGE_UPGRADE, "unprotect");
	for (unsigned i = 0; i < ARRAY_SIZE(answer); i++)
		STEP(answer[i], "EPROTO");
	start(NULL);
	get_lost();
	for (unsigned i = 0; i < ARRAY_SIZE(answer); i++)
		STEP(answer[i], "EPROTO");
}

static void answers_that_do_not_fit_the_question_are_refused(void **state)
{
	(void)state;
	READS("wait, get_s");
	STEP(PAGE_UPGRADE, "EPROTO");
	STEP(PAGE_GRANT_S, "install_s");
	WRITES("wait, get_x");
	STEP(PAGE_GRANT_S, "EPROTO"); /* it has one */
	STEP(PAGE_GRANT_X, "EPROTO");
	STEP(PAGE_GRANT_ZERO, "EPROTO");
	STEP(PAGE_GRANT_LOST, "EPROTO");
	STEP(PAGE_INVAL, "punch, ack");
	STEP(PAGE_GRANT_S, "EPROTO"); /* it asked to write */
}

static void bytes_to_keep_are_for_a_page_that_is_not_held(void **state)
{
	(void)state;
	READS("wait, get_s");
	STEP(PAGE_KEEP, "EPROTO");
	STEP(PAGE_GRANT_S, "install_s");
	STEP(PAGE_KEEP, "EPROTO");
	WRITES("wait, get_x");
	STEP(PAGE_UPGRADE, "unprotect");
	STEP(PAGE_KEEP, "EPROTO");
}

static void a_second_order_while_one_is_deferred_is_refused(void **state)
{
	(void)state;
	hold_s();
	assert_string_equal(later(PAGE_INVAL, 10), "defer 40");
	assert_string_equal(later(PAGE_INVAL, 10), "EPROTO");
	assert_string_equal(later(PAGE_RECALL_X, 100), "EPROTO");
	assert_string_equal(again(PAGE_INVAL, 0), "punch, ack");
	assert_string_equal(again(PAGE_INVAL, 0), "EPROTO");
}

/* --- residency --------------------------------------------------------- */

static void a_page_stays_50_us_from_its_install(void **state)
{
	(void)state;
	hold_m();
	assert_string_equal(later(PAGE_RECALL_X, 0), "defer 50");
	assert_string_equal(again(PAGE_RECALL_X, 49), "defer 1");
	assert_string_equal(again(PAGE_RECALL_X, 1),
	                    "protect, freeze, punch, ack_data frozen");
	hold_s();
	WRITES("wait, get_x");
	STEP(PAGE_UPGRADE, "unprotect"); /* counts as an install */
	assert_string_equal(later(PAGE_RECALL_S, 20), "defer 30");
}

static void a_deferred_page_is_used_and_may_ask_meanwhile(void **state)
{
	(void)state;
	hold_s();
	assert_string_equal(later(PAGE_INVAL, 0), "defer 50");
	write_access = false;
	assert_string_equal(later(PAGE_TOUCH, 1), "map");
	write_access = true;
	assert_string_equal(later(PAGE_TOUCH, 1), "wait, get_x");
	assert_string_equal(again(PAGE_INVAL, 48), "punch, ack");
	STEP(PAGE_GRANT_X, "install_m");
}

static void a_page_waits_for_its_thread_up_to_the_cap(void **state)
{
	(void)state;
	thread = 7;
	cap = 3; /* 2,000 us */
	hold_m();
	assert_int_equal(page_thread(&page), 7);
	thread_waits = true;
	thread_us = now_us;
	assert_string_equal(later(PAGE_RECALL_X, 60), "defer 1940");
	assert_string_equal(again(PAGE_RECALL_X, 1939), "defer 1");
	assert_string_equal(again(PAGE_RECALL_X, 1),
	                    "protect, freeze, punch, ack_data frozen");
}

static void residency_starts_anew_with_the_other_page(void **state)
{
	(void)state;
	thread = 7;
	hold_m();
	thread_waits = true;
	thread_us = now_us;
	assert_string_equal(later(PAGE_RECALL_X, 60), "defer 1190");
	now_us += 400;
	thread_waits = false;
	thread_us = now_us;
	assert_string_equal(again(PAGE_RECALL_X, 10), "defer 40");
	assert_string_equal(again(PAGE_RECALL_X, 40),
	                    "protect, freeze, punch, ack_data frozen");
}

static void a_page_for_no_thread_waits_for_none(void **state)
{
	(void)state;
	hold_m();
	thread_waits = true;
	thread_us = now_us + 50;
	assert_string_equal(later(PAGE_RECALL_X, 50),
	                    "protect, freeze, punch, ack_data frozen");
}

static void no_recall_waits_longer_than_the_longest_cap(void **state)
{
	(void)state;
	thread = 7;
	cap = 15;
	hold_m();
	thread_waits = true;
	assert_string_equal(later(PAGE_RECALL_X, 60), "defer 4940");
	thread_us = now_us + 4940; /* again and again */
	assert_string_equal(again(PAGE_RECALL_X, 4940), "defer 50");
	thread_us = now_us + 49;
	assert_string_equal(again(PAGE_RECALL_X, 50),
	                    "protect, freeze, punch, ack_data frozen");
}

static void times_wrap(void **state)
{
	(void)state;
	thread = 7;
	now_us = UINT32_MAX - 10020; /* hold_m() takes two steps of 10,000 */
	hold_m();
	thread_us = now_us;
	assert_string_equal(later(PAGE_RECALL_X, 30), "defer 20");
	assert_string_equal(again(PAGE_RECALL_X, 20),
	                    "protect, freeze, punch, ack_data frozen");
}

/* Whatever the age, a recall never waits longer than the longest cap. */
static void a_page_of_long_ago_goes_at_once(void **state)
{
	(void)state;
	for (unsigned i = 1; i < 64; i++) {
		uint32_t age = (uint32_t)((uint64_t)i << 26); /* 67 s each */

		start(NULL);
		thread = i % 2 != 0 ? 7 : 0;
		hold_m();
		thread_us = now_us;
		thread_waits = i % 4 < 2;
		assert_string_equal(later(PAGE_RECALL_X, age),
		                    "protect, freeze, punch, ack_data frozen");
	}
}

static void ready_is_what_a_recall_would_not_defer(void **state)
{
	(void)state;
	thread = 7;
	hold_m();
	assert_false(page_ready(&page, false, 0, now_us));
	assert_false(page_ready(&page, false, 0, now_us + 49));
	assert_true(page_ready(&page, false, 0, now_us + 50));
	assert_false(page_ready(&page, true, 0, now_us + 1249));
	assert_true(page_ready(&page, true, 0, now_us + 1250));
	assert_false(page_ready(&page, false, now_us + 60, now_us + 70));
	/* Another shard's clock may be a little ahead. */
	assert_false(page_ready(&page, false, now_us + 75, now_us + 70));
}

static void only_home_pages_that_nobody_asked_for_are_kept(void **state)
{
	(void)state;
	assert_true(page_may_keep(&page));
	READS("wait, get_s");
	assert_false(page_may_keep(&page));
	STEP(PAGE_GRANT_S, "install_s");
	assert_false(page_may_keep(&page));
	start(NULL);
	get_lost();
	assert_false(page_may_keep(&page));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_read_asks_for_a_copy, start),
		cmocka_unit_test_setup(a_write_asks_to_write, start),
		cmocka_unit_test_setup(
			a_reader_that_writes_is_upgraded_in_place, start),
		cmocka_unit_test_setup(one_request_at_a_time, start),
		cmocka_unit_test_setup(a_read_may_be_granted_writable, start),
		cmocka_unit_test_setup(zeros_are_granted_writable, start),
		cmocka_unit_test_setup(prefetch_asks_without_anybody_waiting,
		                       start),
		cmocka_unit_test_setup(a_refused_prefetch_is_touched_again,
		                       start),
		cmocka_unit_test_setup(a_void_request_is_asked_anew, start),
		cmocka_unit_test_setup(
			a_lost_page_stays_poisoned_until_it_is_discarded,
			start),
		cmocka_unit_test_setup(
			a_discard_that_is_done_takes_nothing_more, start),
		cmocka_unit_test_setup(a_writer_that_others_read_stays_a_reader,
		                       start),
		cmocka_unit_test_setup(a_reader_may_be_asked_for_the_bytes,
		                       start),
		cmocka_unit_test_setup(
			a_writer_that_gives_up_punches_before_it_says_so,
			start),
		cmocka_unit_test_setup(
			a_reader_that_gives_its_bytes_up_needs_no_protection,
			start),
		cmocka_unit_test_setup(a_copy_that_is_not_wanted_is_punched,
		                       start),
		cmocka_unit_test_setup(who_has_no_copy_says_so, start),
		cmocka_unit_test_setup(
			an_upgrade_that_inval_crosses_is_answered_with_bytes,
			start),
		cmocka_unit_test_setup(
			an_upgrade_that_a_recall_crosses_is_answered_with_bytes,
			start),
		cmocka_unit_test_setup(home_may_keep_bytes_that_pass_by, start),
		cmocka_unit_test_setup(a_dead_home_never_answers, start),
		cmocka_unit_test_setup(what_is_held_outlives_its_home, start),
		cmocka_unit_test_setup(
			who_waits_for_a_dead_home_to_write_is_poisoned, start),
		cmocka_unit_test_setup(the_orders_of_a_dead_home_are_void,
		                       start),
		cmocka_unit_test_setup(
			answers_that_nobody_asked_for_are_refused, start),
		cmocka_unit_test_setup(
			answers_that_do_not_fit_the_question_are_refused,
			start),
		cmocka_unit_test_setup(
			bytes_to_keep_are_for_a_page_that_is_not_held, start),
		cmocka_unit_test_setup(
			a_second_order_while_one_is_deferred_is_refused, start),
		cmocka_unit_test_setup(a_page_stays_50_us_from_its_install,
		                       start),
		cmocka_unit_test_setup(
			a_deferred_page_is_used_and_may_ask_meanwhile, start),
		cmocka_unit_test_setup(
			a_page_waits_for_its_thread_up_to_the_cap, start),
		cmocka_unit_test_setup(
			residency_starts_anew_with_the_other_page, start),
		cmocka_unit_test_setup(a_page_for_no_thread_waits_for_none,
		                       start),
		cmocka_unit_test_setup(
			no_recall_waits_longer_than_the_longest_cap, start),
		cmocka_unit_test_setup(times_wrap, start),
		cmocka_unit_test_setup(a_page_of_long_ago_goes_at_once, start),
		cmocka_unit_test_setup(ready_is_what_a_recall_would_not_defer,
		                       start),
		cmocka_unit_test_setup(
			only_home_pages_that_nobody_asked_for_are_kept, start),
	};

	return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
