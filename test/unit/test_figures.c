/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nodes say with a renewal: each field is read, what is not said is 0, and
 * what is wrong leaves the figures as they were.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "coord/figures.h"

static struct figures f;
static struct errmsg em;

static int tear_down(void **state)
{
	(void)state;
	figures_done(&f);
	return 0;
}

static int read_text(const char *text)
{
	return figures_read(&f, text, strlen(text), &em);
}

static void each_figure_of_memory_is_read(void **state)
{
	(void)state;
	assert_int_equal(
		read_text("{\"pid\":1,\"limit_bytes\":2,\"resident_bytes\":3,"
	                  "\"lent_bytes\":4,\"borrowed_bytes\":5,"
	                  "\"overhead_bytes\":6,\"fixed_bytes\":7,"
	                  "\"capacity_bytes\":8,\"room_pages\":9,"
	                  "\"waiting\":10,\"refused\":11}"),
		0);
	assert_int_equal(f.pid, 1);
	assert_int_equal(f.resident_bytes, 3);
	assert_int_equal(f.lent_bytes, 4);
	assert_int_equal(f.borrowed_bytes, 5);
	assert_int_equal(f.overhead_bytes, 6);
	assert_int_equal(f.fixed_bytes, 7);
	assert_true(f.has_capacity);
	assert_int_equal(f.capacity_bytes, 8);
	assert_int_equal(f.room_pages, 9);
	assert_int_equal(f.waiting, 10);
	assert_int_equal(f.refused, 11);
}

static void each_figure_of_a_space_is_read(void **state)
{
	(void)state;
	assert_int_equal(read_text("{\"spaces\":[{\"id\":3,\"clients\":1,"
	                           "\"written_pages\":2,\"evicted_pages\":4,"
	                           "\"under_replicated_pages\":5,"
	                           "\"missing_pages\":6,\"lost_pages\":7}]}"),
	                 0);
	assert_int_equal(f.n_spaces, 1);
	assert_int_equal(f.spaces[0].id, 3);
	assert_int_equal(f.spaces[0].clients, 1);
	assert_int_equal(f.spaces[0].written_pages, 2);
	assert_int_equal(f.spaces[0].evicted_pages, 4);
	assert_int_equal(f.spaces[0].under_replicated_pages, 5);
	assert_int_equal(f.spaces[0].missing_pages, 6);
	assert_int_equal(f.spaces[0].lost_pages, 7);
}

static void what_is_not_said_is_nothing(void **state)
{
	(void)state;
	assert_int_equal(read_text("{\"capacity_bytes\":8,\"pid\":1}"), 0);
	assert_int_equal(read_text("{\"waiting\":null,\"newer\":[1]}"), 0);
	assert_int_equal(f.pid, 0);
	/* A capacity of 0 is one that was said; this was not. */
	assert_false(f.has_capacity);
	assert_int_equal(f.waiting, 0);
	assert_int_equal(read_text("{\"capacity_bytes\":0}"), 0);
	assert_true(f.has_capacity);
}

static void what_is_wrong_changes_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{\"capacity_bytes\":-1}",
		"{\"capacity_bytes\":\"8\"}",
		"{\"capacity_bytes\":1125899906842625}",
		"{\"room_pages\":274877906945}",
		"{\"room_pages\":1.5}",
		"{\"waiting\":-1}",
		"{\"refused\":[]}",
		"{\"fixed_bytes\":true}",
		"{\"spaces\":[{\"id\":1,\"evicted_pages\":-1}]}",
		"{\"spaces\":[{\"id\":1,\"under_replicated_pages\":\"x\"}]}",
		"{\"spaces\":[{\"evicted_pages\":1}]}",
	};

	(void)state;
	assert_int_equal(read_text("{\"room_pages\":77,\"capacity_bytes\":1}"),
	                 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(read_text(bad[i]), -EPROTO);
		assert_int_equal(f.room_pages, 77);
	}
	/* To the last byte and page it is right. */
	assert_int_equal(read_text("{\"capacity_bytes\":1125899906842624,"
	                           "\"room_pages\":274877906944}"),
	                 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(each_figure_of_memory_is_read,
		                          tear_down),
		cmocka_unit_test_teardown(each_figure_of_a_space_is_read,
		                          tear_down),
		cmocka_unit_test_teardown(what_is_not_said_is_nothing,
		                          tear_down),
		cmocka_unit_test_teardown(what_is_wrong_changes_nothing,
		                          tear_down),
	};

	return cmocka_run_group_tests_name("figures", tests, NULL, NULL);
}
