/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"

static uint8_t data[70000];

static int fill(void **state)
{
	uint32_t x = 1;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++) {
		x = x * 1664525u + 1013904223u;
		data[i] = (uint8_t)(x >> 24);
	}
	return 0;
}

static void the_published_check_value_comes_out(void **state)
{
	static const uint8_t zeros[32];

	(void)state;
	assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
	/* RFC 3720, B.4: 32 bytes of zeros. */
	assert_int_equal(crc32c(zeros, sizeof(zeros)), 0x8a9136aau);
	assert_int_equal(crc32c(NULL, 0), 0);
}

static void both_forms_agree_at_every_length_and_alignment(void **state)
{
	(void)state;
	for (size_t at = 0; at < 9; at++)
		for (size_t n = 0; n < 300; n++)
			assert_int_equal(crc32c(data + at, n),
			                 crc32c_table_more(0, data + at, n));
	assert_int_equal(crc32c(data, sizeof(data)),
	                 crc32c_table_more(0, data, sizeof(data)));
}

static void a_sum_can_be_taken_in_pieces(void **state)
{
	uint32_t whole = crc32c(data, 5000);

	(void)state;
	for (size_t cut = 0; cut <= 5000; cut += 7) {
		uint32_t crc = crc32c(data, cut);

		assert_int_equal(crc32c_more(crc, data + cut, 5000 - cut),
		                 whole);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_published_check_value_comes_out),
		cmocka_unit_test(
			both_forms_agree_at_every_length_and_alignment),
		cmocka_unit_test(a_sum_can_be_taken_in_pieces),
	};

	return cmocka_run_group_tests(tests, fill, NULL);
}
