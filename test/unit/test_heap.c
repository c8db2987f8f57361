/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "loop/heap.h"

static struct timer_heap heap;
static struct loop_timer timers[LOOP_TIMERS_MAX];

static int empty_heap(void **state)
{
	(void)state;
	heap.n = 0;
	for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++)
		timers[i] = (struct loop_timer){ .at = 0 };
	return 0;
}

static void check_order(void)
{
	for (uint32_t i = 0; i < heap.n; i++) {
		assert_int_equal(heap.slot[i]->index, i + 1);
		if (i > 0)
			assert_true(heap.slot[(i - 1) / 2]->at <=
			            heap.slot[i]->at);
	}
}

static void an_empty_heap_has_no_first(void **state)
{
	(void)state;
	assert_null(heap_first(&heap));
}

static void a_full_heap_gives_its_timers_in_order(void **state)
{
	struct prng r;
	nsec_t last = 0;

	(void)state;
	prng_init(&r, 1);
	for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++) {
		timers[i].at = prng_below(&r, 1000);
		heap_put(&heap, &timers[i]);
	}
	check_order();
	for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++) {
		struct loop_timer *t = heap_first(&heap);

		assert_true(t->at >= last);
		last = t->at;
		heap_take(&heap, t);
		assert_int_equal(t->index, 0);
	}
	assert_null(heap_first(&heap));
}

static void any_timer_can_be_taken_from_the_middle(void **state)
{
	struct prng r;

	(void)state;
	prng_init(&r, 2);
	for (unsigned i = 0; i < 20000; i++) {
		struct loop_timer *t = &timers[prng_below(&r, 100)];

		if (t->index > 0) {
			heap_take(&heap, t);
			assert_int_equal(t->index, 0);
		} else {
			t->at = prng_below(&r, 50);
			heap_put(&heap, t);
		}
		check_order();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_empty_heap_has_no_first, empty_heap),
		cmocka_unit_test_setup(a_full_heap_gives_its_timers_in_order,
		                       empty_heap),
		cmocka_unit_test_setup(any_timer_can_be_taken_from_the_middle,
		                       empty_heap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
