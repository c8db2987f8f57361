/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coord/host.h"

static char host[HOST_BYTES];

static void on_loopback_only_loopback_is_ours(void **state)
{
	static const char *const ours[] = {
		"127.0.0.1",      "127.0.0.1:7070", "127.255.0.9", "localhost",
		"LocalHost:7070", "[::1]",          "[::1]:7070",  "localhost:",
	};
	static const char *const foreign[] = {
		"",
		"memspan.example",
		"localhost.example",
		"::1",
		"10.0.0.1",
		"127.0.0.1x",
		"127.1",
		"[::1",
		"[::2]:7070",
		"[]",
		"127.0.0.1:70a",
		"x@127.0.0.1",
		":7070",
		"[::1]x",
		"0.0.0.0",
		"localhost ",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		assert_true(host_ours(ours[i], false, host));
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		assert_false(host_ours(foreign[i], false, host));
}

static void beyond_it_addresses_and_our_name_are_ours(void **state)
{
	char name[HOST_BYTES] = "";

	(void)state;
	assert_true(host_ours("10.0.0.1:7070", true, host));
	assert_string_equal(host, "10.0.0.1");
	assert_true(host_ours("[fe80::1]:7070", true, host));
	assert_string_equal(host, "[fe80::1]");
	assert_int_equal(gethostname(name, sizeof(name) - 1), 0);
	assert_true(host_ours(name, true, host));
	assert_false(host_ours("memspan.example", true, host));
	assert_false(host_ours("10.0.0.1.example", true, host));
}

static void a_long_name_is_refused(void **state)
{
	char name[600];

	(void)state;
	memset(name, '1', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_false(host_ours(name, true, host));
	name[0] = '[';
	assert_false(host_ours(name, true, host));
}

static void a_page_of_ours_has_our_host_as_its_origin(void **state)
{
	(void)state;
	assert_true(origin_ours("http://127.0.0.1:7070", "127.0.0.1:7070"));
	assert_true(origin_ours("https://Localhost", "localhost"));
	assert_false(origin_ours("http://127.0.0.1:7071", "127.0.0.1:7070"));
	assert_false(origin_ours("http://127.0.0.1:7070/", "127.0.0.1:7070"));
	assert_false(origin_ours("null", "null"));
	assert_false(origin_ours("127.0.0.1:7070", "127.0.0.1:7070"));
	assert_false(origin_ours("http://memspan.example", "127.0.0.1"));
	assert_false(origin_ours("http://x", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_loopback_only_loopback_is_ours),
		cmocka_unit_test(beyond_it_addresses_and_our_name_are_ours),
		cmocka_unit_test(a_long_name_is_refused),
		cmocka_unit_test(a_page_of_ours_has_our_host_as_its_origin),
	};

	return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
