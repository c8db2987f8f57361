/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder side, step by step: pages that are to go, and writers of pages
 * with replicas.  See test_page.c.
 */

#include "page_story.h"

static const char *stages(uint32_t into)
{
	const char *what;

	frame = into;
	what = step(PAGE_STAGE);
	frame = 0;
	return what;
}

static void staged_s(void)
{
	hold_s();
	assert_string_equal(stages(7), "fill 7, punch");
	assert_true(page_staged(&page));
}

static void staged_m(void)
{
	hold_m();
	assert_string_equal(stages(7), "protect, fill 7, punch");
	assert_true(page_staged(&page));
}

static void evicting_s(void)
{
	staged_s();
	STEP(PAGE_EVICT, "evict");
}

static void evicting_m(void)
{
	staged_m();
	STEP(PAGE_EVICT, "evict");
}

/* Not held, and nothing of the way there is left. */
static void is_gone(void)
{
	assert_int_equal(page.state, PAGE_I);
	assert_int_equal(page.flags, 0);
	assert_int_equal(page.stamp, 0);
}

/* --- staging ----------------------------------------------------------- */

static void a_reader_is_staged_without_protection(void **state)
{
	(void)state;
	staged_s();
	assert_int_equal(page.state, PAGE_S);
	assert_int_equal(page.frame, 7);
}

static void a_writer_is_protected_before_it_is_copied(void **state)
{
	(void)state;
	staged_m();
	assert_int_equal(page.state, PAGE_M);
	assert_int_equal(page.frame, 7);
}

static void a_page_that_is_not_held_is_not_staged(void **state)
{
	(void)state;
	assert_string_equal(stages(7), "-");
	get_lost();
	assert_string_equal(stages(7), "-");
}

static void a_page_that_is_asked_for_is_not_staged(void **state)
{
	(void)state;
	READS("wait, get_s");
	assert_string_equal(stages(7), "-");
	STEP(PAGE_GRANT_S, "install_s");
	WRITES("wait, get_x");
	assert_string_equal(stages(7), "-");
}

static void a_staged_page_is_not_staged_twice(void **state)
{
	(void)state;
	staged_s();
	assert_string_equal(stages(8), "-");
	assert_int_equal(page.frame, 7);
}

static void a_page_with_a_recall_that_waits_is_not_staged(void **state)
{
	(void)state;
	hold_m();
	assert_string_equal(later(PAGE_RECALL_X, 10), "defer 40");
	assert_string_equal(stages(7), "-");
	assert_string_equal(again(PAGE_RECALL_X, 0),
	                    "protect, freeze, punch, ack_data frozen");
}

static void residency_keeps_a_page_from_being_staged(void **state)
{
	(void)state;
	thread = 7;
	hold_m();
	frame = 7;
	assert_string_equal(later(PAGE_STAGE, 49), "-");
	thread_waits = true;
	assert_string_equal(later(PAGE_STAGE, 1), "-");
	assert_string_equal(later(PAGE_STAGE, 1199), "-");
	assert_string_equal(later(PAGE_STAGE, 1), "protect, fill 7, punch");
}

static void a_staged_page_needs_no_frame_of_the_memfd(void **state)
{
	(void)state;
	assert_false(page_counts(&page));
	READS("wait, get_s");
	assert_true(page_counts(&page)); /* it was promised */
	STEP(PAGE_GRANT_S, "install_s");
	assert_true(page_counts(&page));
	assert_string_equal(stages(7), "fill 7, punch");
	assert_false(page_counts(&page));
	READS("install_back 7");
	assert_true(page_counts(&page));
	STEP(PAGE_INVAL, "punch, ack");
	assert_false(page_counts(&page));
}

/* --- a touch ----------------------------------------------------------- */

static void a_touch_brings_a_reader_back(void **state)
{
	(void)state;
	staged_s();
	READS("install_back 7");
	assert_int_equal(page.state, PAGE_S);
	assert_false(page_staged(&page));
	READS("map");
	WRITES("wait, get_x");
}

static void a_writer_of_a_staged_reader_faults_again(void **state)
{
	(void)state;
	staged_s();
	WRITES("install_back 7"); /* to read, as the state says */
	WRITES("wait, get_x");
}

static void a_touch_brings_a_writer_back(void **state)
{
	(void)state;
	staged_m();
	READS("install_back 7");
	assert_int_equal(page.state, PAGE_M);
	WRITES("map");
}

static void what_came_back_has_its_residency(void **state)
{
	(void)state;
	staged_m();
	WRITES("install_back 7");
	assert_string_equal(later(PAGE_RECALL_S, 20), "defer 30");
	assert_string_equal(again(PAGE_RECALL_S, 30), "protect, ack_data");
}

static void a_touch_waits_for_homes_word(void **state)
{
	(void)state;
	evicting_s();
	READS("wait");
	WRITES("wait");
	STEP(PAGE_STAY, "touch_again");
	READS("install_back 7");
}

static void nothing_is_asked_for_while_a_page_is_staged(void **state)
{
	(void)state;
	staged_s();
	STEP(PAGE_PREFETCH, "-");
	write_access = true;
	STEP(PAGE_PREFETCH, "-"); /* it would be written as it lies */
	start(NULL);
	staged_m();
	write_access = true;
	STEP(PAGE_PREFETCH, "-");
}

/* --- home's word ------------------------------------------------------- */

static void a_copy_that_may_go_frees_its_frame(void **state)
{
	(void)state;
	evicting_s();
	STEP(PAGE_DROP, "release 7, touch_again");
	is_gone();
	READS("wait, get_s");
}

static void a_copy_that_must_stay_is_staged_still(void **state)
{
	(void)state;
	evicting_s();
	STEP(PAGE_STAY, "touch_again");
	assert_true(page_staged(&page));
	STEP(PAGE_EVICT, "evict"); /* once more */
	STEP(PAGE_DROP, "release 7, touch_again");
	is_gone();
}

static void home_is_asked_once_at_a_time(void **state)
{
	(void)state;
	evicting_s();
	STEP(PAGE_EVICT, "-");
}

static void a_writer_must_stay(void **state)
{
	(void)state;
	evicting_m();
	STEP(PAGE_DROP, "EPROTO");
	STEP(PAGE_STAY, "touch_again");
	WRITES("install_back 7");
	assert_int_equal(page.state, PAGE_M);
}

static void words_that_nobody_asked_for_are_refused(void **state)
{
	(void)state;
	STEP(PAGE_DROP, "EPROTO");
	STEP(PAGE_STAY, "EPROTO");
	hold_s();
	STEP(PAGE_DROP, "EPROTO");
	STEP(PAGE_STAY, "EPROTO");
	start(NULL);
	staged_s();
	STEP(PAGE_DROP, "EPROTO");
	STEP(PAGE_STAY, "EPROTO");
	start(NULL);
	get_lost();
	STEP(PAGE_DROP, "EPROTO");
	STEP(PAGE_STAY, "EPROTO");
}

static void answers_about_a_staged_page_are_refused(void **state)
{
	static const enum page_event_kind answer[] = {
		PAGE_GRANT_S,    PAGE_GRANT_X, PAGE_GRANT_ZERO, PAGE_UPGRADE,
		PAGE_GRANT_LOST, PAGE_REFUSED, PAGE_RETRY,      PAGE_KEEP,
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(answer) / sizeof(answer[0]); i++) {
		start(NULL);
		staged_s();
		STEP(answer[i], "EPROTO");
		start(NULL);
		evicting_m();
		STEP(answer[i], "EPROTO");
	}
}

/* --- orders ------------------------------------------------------------ */

static void staged_bytes_are_sent_from_their_frame(void **state)
{
	(void)state;
	staged_s();
	STEP(PAGE_RECALL_S, "ack_data 7");
	assert_true(page_staged(&page));
	READS("install_back 7");
}

static void a_staged_writer_comes_back_as_a_reader(void **state)
{
	(void)state;
	staged_m();
	STEP(PAGE_RECALL_S, "ack_data 7");
	assert_int_equal(page.state, PAGE_S);
	assert_true(page_staged(&page));
	WRITES("install_back 7");
	assert_int_equal(page.state, PAGE_S);
}

static void a_staged_page_gives_its_frame_away(void **state)
{
	(void)state;
	staged_s();
	STEP(PAGE_RECALL_X, "freeze_frame 7, ack_data frozen");
	is_gone();
	staged_m();
	STEP(PAGE_RECALL_X, "freeze_frame 7, ack_data frozen");
	is_gone();
}

static void a_staged_page_that_is_not_wanted_frees_its_frame(void **state)
{
	(void)state;
	staged_s();
	STEP(PAGE_INVAL, "release 7, ack");
	is_gone();
	staged_m();
	STEP(PAGE_INVAL, "release 7, ack");
	is_gone();
}

static void orders_of_a_staged_page_wait_for_nobody(void **state)
{
	(void)state;
	thread = 7;
	staged_m();
	thread_waits = true;
	assert_true(page_ready(&page, true, now_us, now_us));
	assert_string_equal(later(PAGE_RECALL_X, 0),
	                    "freeze_frame 7, ack_data frozen");
}

static void an_order_that_waited_is_not_of_a_staged_page(void **state)
{
	(void)state;
	staged_s();
	assert_string_equal(again(PAGE_INVAL, 0), "EPROTO");
}

/* Home is busy when the EVICT arrives: it says STAY. */
static void an_order_that_crosses_an_evict_is_answered(void **state)
{
	(void)state;
	evicting_s();
	STEP(PAGE_RECALL_S, "ack_data 7");
	STEP(PAGE_STAY, "touch_again");
	start(NULL);
	evicting_s();
	STEP(PAGE_INVAL, "release 7, ack, touch_again");
	READS("wait, get_s"); /* before the word that is still to come */
	STEP(PAGE_DROP, "EPROTO");
	STEP(PAGE_STAY, "touch_again");
	STEP(PAGE_GRANT_S, "install_s");
	start(NULL);
	evicting_m();
	STEP(PAGE_RECALL_X, "freeze_frame 7, ack_data frozen, touch_again");
	STEP(PAGE_STAY, "touch_again");
	is_gone();
}

static void a_page_is_not_staged_before_the_word_about_the_last(void **state)
{
	(void)state;
	evicting_s();
	STEP(PAGE_INVAL, "release 7, ack, touch_again");
	READS("wait, get_s");
	STEP(PAGE_GRANT_S, "install_s");
	assert_string_equal(stages(8), "-");
	STEP(PAGE_STAY, "touch_again");
	assert_string_equal(stages(8), "fill 8, punch");
}

/* --- a home that died -------------------------------------------------- */

static void a_staged_page_outlives_its_home(void **state)
{
	(void)state;
	staged_s();
	STEP(PAGE_UNREACHABLE, "-");
	READS("install_back 7");
}

static void the_word_of_a_dead_home_is_not_waited_for(void **state)
{
	(void)state;
	evicting_s();
	READS("wait");
	STEP(PAGE_UNREACHABLE, "touch_again");
	READS("install_back 7");
	start(NULL);
	evicting_s();
	STEP(PAGE_INVAL, "release 7, ack, touch_again");
	STEP(PAGE_UNREACHABLE, "poison, touch_again");
	READS("poison");
}

/* --- held for others --------------------------------------------------- */

static void a_store_is_a_prefetch_that_says_so(void **state)
{
	(void)state;
	store = true;
	STEP(PAGE_PREFETCH, "get_s");
	assert_true((page.flags & PAGE_F_STORING) != 0);
	READS("wait");
	STEP(PAGE_PREFETCH, "-");
	STEP(PAGE_GRANT_S, "install_s");
	assert_int_equal(page.flags, 0);
	STEP(PAGE_PREFETCH, "-"); /* it is held */
}

static void a_store_ends_with_every_answer(void **state)
{
	static const enum page_event_kind answer[] = {
		PAGE_GRANT_X, PAGE_GRANT_ZERO, PAGE_GRANT_LOST,
		PAGE_REFUSED, PAGE_RETRY,      PAGE_UNREACHABLE,
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(answer) / sizeof(answer[0]); i++) {
		start(NULL);
		store = true;
		STEP(PAGE_PREFETCH, "get_s");
		(void)step(answer[i]);
		assert_int_equal(page.flags, 0);
	}
}

/* --- a page with replicas ---------------------------------------------- */

static void a_writer_may_be_granted_a_read_first(void **state)
{
	(void)state;
	WRITES("wait, get_x");
	more = true;
	STEP(PAGE_GRANT_S, "keep_bytes"); /* who waits wants to write */
	more = false;
	assert_int_equal(page.state, PAGE_S);
	WRITES("wait"); /* UPGRADE will come */
	STEP(PAGE_UPGRADE, "unprotect");
	assert_int_equal(page.state, PAGE_M);
}

static void a_read_ahead_is_used_and_may_be_recalled(void **state)
{
	(void)state;
	WRITES("wait, get_x");
	more = true;
	STEP(PAGE_GRANT_S, "keep_bytes");
	more = false;
	READS("map");
	assert_string_equal(stages(7), "-");
	STEP(PAGE_RECALL_S, "ack_data");
	STEP(PAGE_INVAL, "punch, ack");
	STEP(PAGE_UPGRADE, "EPROTO");
	STEP(PAGE_GRANT_X, "install_m");
}

static void a_read_ahead_that_nobody_asked_for_is_refused(void **state)
{
	(void)state;
	more = true;
	STEP(PAGE_GRANT_S, "EPROTO");
	READS("wait, get_s");
	STEP(PAGE_GRANT_S, "EPROTO"); /* a reader wants no more */
	more = false;
	STEP(PAGE_GRANT_S, "install_s");
	WRITES("wait, get_x");
	more = true;
	STEP(PAGE_GRANT_S, "EPROTO"); /* it has the bytes */
}

static void a_read_ahead_is_lost_with_its_home(void **state)
{
	(void)state;
	WRITES("wait, get_x");
	more = true;
	STEP(PAGE_GRANT_S, "keep_bytes");
	STEP(PAGE_UNREACHABLE, "punch, poison");
	assert_int_equal(page.state, PAGE_LOST);
}

/* --- the entry --------------------------------------------------------- */

static void what_is_the_callers_is_left_alone(void **state)
{
	(void)state;
	page.away = 1;
	page.mark = 21;
	evicting_s();
	STEP(PAGE_STAY, "touch_again");
	READS("install_back 7");
	STEP(PAGE_RECALL_S, "ack_data");
	STEP(PAGE_INVAL, "punch, ack");
	assert_int_equal(page.away, 1);
	assert_int_equal(page.mark, 21);
}

static void a_stamp_is_the_callers_until_the_page_comes(void **state)
{
	(void)state;
	evicting_s();
	STEP(PAGE_DROP, "release 7, touch_again");
	page.stamp = 4711;
	READS("wait, get_s");
	assert_int_equal(page.stamp, 4711);
	STEP(PAGE_RETRY, "touch_again");
	assert_int_equal(page.stamp, 4711);
	READS("wait, get_s");
	STEP(PAGE_GRANT_S, "install_s");
	assert_int_equal(page.since_us, now_us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_reader_is_staged_without_protection,
		                       start),
		cmocka_unit_test_setup(
			a_writer_is_protected_before_it_is_copied, start),
		cmocka_unit_test_setup(a_page_that_is_not_held_is_not_staged,
		                       start),
		cmocka_unit_test_setup(a_page_that_is_asked_for_is_not_staged,
		                       start),
		cmocka_unit_test_setup(a_staged_page_is_not_staged_twice,
		                       start),
		cmocka_unit_test_setup(
			a_page_with_a_recall_that_waits_is_not_staged, start),
		cmocka_unit_test_setup(residency_keeps_a_page_from_being_staged,
		                       start),
		cmocka_unit_test_setup(
			a_staged_page_needs_no_frame_of_the_memfd, start),
		cmocka_unit_test_setup(a_touch_brings_a_reader_back, start),
		cmocka_unit_test_setup(a_writer_of_a_staged_reader_faults_again,
		                       start),
		cmocka_unit_test_setup(a_touch_brings_a_writer_back, start),
		cmocka_unit_test_setup(what_came_back_has_its_residency, start),
		cmocka_unit_test_setup(a_touch_waits_for_homes_word, start),
		cmocka_unit_test_setup(
			nothing_is_asked_for_while_a_page_is_staged, start),
		cmocka_unit_test_setup(a_copy_that_may_go_frees_its_frame,
		                       start),
		cmocka_unit_test_setup(a_copy_that_must_stay_is_staged_still,
		                       start),
		cmocka_unit_test_setup(home_is_asked_once_at_a_time, start),
		cmocka_unit_test_setup(a_writer_must_stay, start),
		cmocka_unit_test_setup(words_that_nobody_asked_for_are_refused,
		                       start),
		cmocka_unit_test_setup(answers_about_a_staged_page_are_refused,
		                       start),
		cmocka_unit_test_setup(staged_bytes_are_sent_from_their_frame,
		                       start),
		cmocka_unit_test_setup(a_staged_writer_comes_back_as_a_reader,
		                       start),
		cmocka_unit_test_setup(a_staged_page_gives_its_frame_away,
		                       start),
		cmocka_unit_test_setup(
			a_staged_page_that_is_not_wanted_frees_its_frame,
			start),
		cmocka_unit_test_setup(orders_of_a_staged_page_wait_for_nobody,
		                       start),
		cmocka_unit_test_setup(
			an_order_that_waited_is_not_of_a_staged_page, start),
		cmocka_unit_test_setup(
			an_order_that_crosses_an_evict_is_answered, start),
		cmocka_unit_test_setup(
			a_page_is_not_staged_before_the_word_about_the_last,
			start),
		cmocka_unit_test_setup(a_staged_page_outlives_its_home, start),
		cmocka_unit_test_setup(
			the_word_of_a_dead_home_is_not_waited_for, start),
		cmocka_unit_test_setup(a_store_is_a_prefetch_that_says_so,
		                       start),
		cmocka_unit_test_setup(a_store_ends_with_every_answer, start),
		cmocka_unit_test_setup(a_writer_may_be_granted_a_read_first,
		                       start),
		cmocka_unit_test_setup(a_read_ahead_is_used_and_may_be_recalled,
		                       start),
		cmocka_unit_test_setup(
			a_read_ahead_that_nobody_asked_for_is_refused, start),
		cmocka_unit_test_setup(a_read_ahead_is_lost_with_its_home,
		                       start),
		cmocka_unit_test_setup(what_is_the_callers_is_left_alone,
		                       start),
		cmocka_unit_test_setup(
			a_stamp_is_the_callers_until_the_page_comes, start),
	};

	return cmocka_run_group_tests_name("page_evict", tests, NULL, NULL);
}
