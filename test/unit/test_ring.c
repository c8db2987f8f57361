/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "net/ring.h"

static void what_passes_the_end_is_at_the_beginning(void **state)
{
	struct ring r;

	(void)state;
	assert_int_equal(ring_init(&r, 2 * PAGE_BYTES), 0);
	memcpy(ring_at(&r, 2 * PAGE_BYTES - 3), "abcdef", 6);
	assert_memory_equal(ring_at(&r, 0), "def", 3);
	/* Positions only grow. */
	assert_ptr_equal(ring_at(&r, 10 * PAGE_BYTES + 5), r.base + 5);
	/* Any piece up to the whole is contiguous. */
	memset(ring_at(&r, 2 * PAGE_BYTES - 1), 7, 2 * PAGE_BYTES);
	assert_int_equal(r.base[0], 7);
	assert_int_equal(r.base[2 * PAGE_BYTES - 1], 7);
	ring_done(&r);
	assert_null(r.base);
	ring_done(&r);
}

static void a_ring_is_empty_memory_at_first(void **state)
{
	unsigned char resident[256];
	struct ring r;

	(void)state;
	assert_int_equal(ring_init(&r, 256 * PAGE_BYTES), 0);
	assert_int_equal(mincore(r.base, 256 * PAGE_BYTES, resident), 0);
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(resident[i] & 1, 0);
	assert_int_equal(r.base[123456], 0);
	ring_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_passes_the_end_is_at_the_beginning),
		cmocka_unit_test(a_ring_is_empty_memory_at_first),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
