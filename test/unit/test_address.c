/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/address.h"

static void there_and_back(const char *text)
{
	char out[ADDRESS_TEXT_BYTES];
	struct address a;

	assert_int_equal(address_parse(text, &a), 0);
	address_print(&a, out);
	assert_string_equal(out, text);
}

static void numeric_addresses_go_there_and_back(void **state)
{
	(void)state;
	there_and_back("127.0.0.1:50051");
	there_and_back("0.0.0.0:0");
	there_and_back("255.255.255.255:65535");
	there_and_back("[::1]:7070");
	there_and_back("[fe80::1:2:3:4]:1");
}

static void what_is_no_address_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		"127.0.0.1",
		"127.0.0.1:",
		":50051",
		"localhost:1",
		"127.0.0.1:x",
		"127.0.0.1:65536",
		"1.2.3:4",
		"::1:7070",
		"[::1]",
		"[::1]:",
		"[]:1",
		"[::1:2",
		"::1]:2",
		"127.0.0.1:-1",
		"1.2.3.4:1 ",
		"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0]:1",
		"127.0.0.1:000000000000000001",
	};
	struct address a = { .bytes = 99 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (address_parse(bad[i], &a) != -EINVAL || a.bytes != 99)
			fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numeric_addresses_go_there_and_back),
		cmocka_unit_test(what_is_no_address_is_refused),
	};

	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
