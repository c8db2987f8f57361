/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/size.h"

static void each_way_of_writing_a_size_is_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "4096B", 4096 },
		{ "4K", 4096 },
		{ "4k", 4096 },
		{ "4KiB", 4096 },
		{ "4kib", 4096 },
		{ "256M", 256ull << 20 },
		{ "256MiB", 256ull << 20 },
		{ "1G", 1ull << 30 },
		{ "1GiB", 1ull << 30 },
		{ "3T", 3ull << 40 },
		{ "3TiB", 3ull << 40 },
		{ "18446744073709551615", UINT64_MAX },
		{ "16777215T", 16777215ull << 40 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t n = 1;

		assert_int_equal(size_parse(cases[i].text, &n, NULL), 0);
		assert_int_equal(n, cases[i].bytes);
	}
}

static void what_is_no_size_is_refused_with_a_reason(void **state)
{
	static const char *const cases[] = {
		"",   "M",   " 1",  "-1",    "+1",   "1.5G", "1 G",
		"1Q", "1GB", "1Ki", "1KiBs", "0x10", "1G ",  "1MM",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct errmsg em = { "" };
		uint64_t n = 77;

		assert_int_equal(size_parse(cases[i], &n, &em), -EINVAL);
		assert_int_equal(n, 77);
		assert_true(em.text[0] != '\0');
	}
}

static void what_does_not_fit_is_refused(void **state)
{
	static const char *const cases[] = {
		"18446744073709551616",
		"99999999999999999999999",
		"16777216T",
		"18014398509481984K",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t n = 77;

		assert_int_equal(size_parse(cases[i], &n, NULL), -ERANGE);
		assert_int_equal(n, 77);
	}
}

static void sizes_are_shown_in_the_largest_unit_that_fits(void **state)
{
	char buf[SIZE_TEXT_BYTES];

	(void)state;
	assert_string_equal(size_text(0, buf), "0 B");
	assert_string_equal(size_text(1023, buf), "1023 B");
	assert_string_equal(size_text(1024, buf), "1 KiB");
	assert_string_equal(size_text(1536, buf), "1.5 KiB");
	assert_string_equal(size_text(256ull << 20, buf), "256 MiB");
	assert_string_equal(size_text((1ull << 30) - 1, buf), "1023.9 MiB");
	assert_string_equal(size_text(1ull << 30, buf), "1 GiB");
	assert_string_equal(size_text(5ull << 40, buf), "5 TiB");
	assert_string_equal(size_text(UINT64_MAX, buf), "16777215.9 TiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_way_of_writing_a_size_is_read),
		cmocka_unit_test(what_is_no_size_is_refused_with_a_reason),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(sizes_are_shown_in_the_largest_unit_that_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
