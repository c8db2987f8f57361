/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "core/nodeset.h"

static void all_zeros_is_the_empty_set(void **state)
{
	struct nodeset s = { { 0 } };

	(void)state;
	assert_true(nodeset_empty(&s));
	assert_int_equal(nodeset_count(&s), 0);
	assert_int_equal(nodeset_next(&s, 0), NODE_NONE);
	NODESET_FOREACH(n, &s)
	fail_msg("%u in the empty set", n);
}

static void holds_the_nodes_at_the_ends_of_words(void **state)
{
	static const node_id ends[] = { 0, 63, 64, 127, 960, NODES_MAX - 1 };
	struct nodeset s;

	(void)state;
	nodeset_clear(&s);
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		assert_false(nodeset_has(&s, ends[i]));
		nodeset_add(&s, ends[i]);
		assert_true(nodeset_has(&s, ends[i]));
		assert_int_equal(nodeset_count(&s), i + 1);
	}
	assert_int_equal(nodeset_next(&s, 0), 0);
	assert_int_equal(nodeset_next(&s, 1), 63);
	assert_int_equal(nodeset_next(&s, 64), 64);
	assert_int_equal(nodeset_next(&s, 65), 127);
	assert_int_equal(nodeset_next(&s, 128), 960);
	assert_int_equal(nodeset_next(&s, 961), NODES_MAX - 1);
}

static void a_search_from_behind_the_last_node_finds_nobody(void **state)
{
	struct nodeset s = { { 0 } };

	(void)state;
	nodeset_add(&s, NODES_MAX - 1);
	assert_int_equal(nodeset_next(&s, NODES_MAX), NODE_NONE);
}

static void adding_and_removing_twice_is_once(void **state)
{
	struct nodeset s = { { 0 } };

	(void)state;
	nodeset_add(&s, 5);
	nodeset_add(&s, 5);
	assert_int_equal(nodeset_count(&s), 1);
	nodeset_remove(&s, 5);
	nodeset_remove(&s, 5);
	assert_true(nodeset_empty(&s));
}

static void foreach_visits_each_member_once_in_order(void **state)
{
	struct prng r;
	bool in[NODES_MAX] = { false };
	struct nodeset s = { { 0 } };
	unsigned members = 0, seen = 0;
	int last = -1;

	(void)state;
	prng_init(&r, 7);
	for (unsigned i = 0; i < 300; i++) {
		node_id n = (node_id)prng_below(&r, NODES_MAX);

		members += !in[n];
		in[n] = true;
		nodeset_add(&s, n);
	}
	assert_int_equal(nodeset_count(&s), members);
	NODESET_FOREACH(n, &s)
	{
		assert_true(n > last);
		assert_true(in[n]);
		last = n;
		seen++;
	}
	assert_int_equal(seen, members);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_zeros_is_the_empty_set),
		cmocka_unit_test(holds_the_nodes_at_the_ends_of_words),
		cmocka_unit_test(
			a_search_from_behind_the_last_node_finds_nobody),
		cmocka_unit_test(adding_and_removing_twice_is_once),
		cmocka_unit_test(foreach_visits_each_member_once_in_order),
	};

	return cmocka_run_group_tests_name("nodeset", tests, NULL, NULL);
}
