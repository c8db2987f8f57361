/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's three spellings come out as the same pairs.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/vm_text.h"

/* The pairs of `text` as "key=value key=value", or "EINVAL". */
static const char *pairs(const char *text, const char *implied)
{
	static char result[8192];
	AUTO(vm_pairs_free) struct vm_pairs *p = vm_pairs_new();
	struct errmsg em = { .text = "" };
	size_t at = 0;

	assert_non_null(p);
	if (vm_text_read(text, implied, p, &em) < 0) {
		assert_true(em.text[0] != '\0');
		return "EINVAL";
	}
	result[0] = '\0';
	for (size_t i = 0; i < p->n; i++)
		at += (size_t)snprintf(result + at, sizeof(result) - at,
		                       "%s%s=%s", i > 0 ? " " : "", p->v[i].key,
		                       p->v[i].value);
	return result;
}

static void keys_and_values_are_divided_by_commas(void **state)
{
	(void)state;
	assert_string_equal(pairs("a=1,b.c=2", NULL), "a=1 b.c=2");
	assert_string_equal(pairs("", NULL), "");
	assert_string_equal(pairs("a=", NULL), "a=");
	assert_string_equal(pairs("a=1,", NULL), "a=1");
	assert_string_equal(pairs("a=b=c", NULL), "a=b=c");
}

static void two_commas_are_one_of_the_value(void **state)
{
	(void)state;
	assert_string_equal(pairs("a=x,,y,b=2", NULL), "a=x,y b=2");
	assert_string_equal(pairs("a=,,,,b", NULL), "a=,,b");
	assert_string_equal(pairs("a=x,,,b=2", NULL), "a=x, b=2");
	/* Of the implied key's value too. */
	assert_string_equal(pairs("x,,y,a=1", "k"), "k=x,y a=1");
}

static void a_word_alone_is_on_or_the_implied_value(void **state)
{
	(void)state;
	assert_string_equal(pairs("a,b=1", NULL), "a=on b=1");
	assert_string_equal(pairs("a", NULL), "a=on");
	assert_string_equal(pairs("=", NULL), "=");
	assert_string_equal(pairs("x,a", "k"), "k=x a=on");
	assert_string_equal(pairs("k=x,a", "k"), "k=x a=on");
	assert_string_equal(pairs("a=1,x", "k"), "a=1 x=on");
}

static void json_is_flattened(void **state)
{
	(void)state;
	assert_string_equal(
		pairs("{\"driver\":\"raw\",\"file\":{\"driver\":\"nvme\"}}",
	              "driver"),
		"driver=raw file.driver=nvme");
	assert_string_equal(pairs("{\"a\":true,\"b\":false,\"c\":null,\"d\":7,"
	                          "\"e\":1.5}",
	                          NULL),
	                    "a=on b=off c= d=7 e=1.5");
	assert_string_equal(pairs("{\"l\":[{\"a\":\"x\"},\"y\"],\"o\":{}}",
	                          NULL),
	                    "l.0.a=x l.1=y");
	/* In JSON a comma is a comma. */
	assert_string_equal(pairs("{\"f\":\"a,,b\"}", NULL), "f=a,,b");
}

static void json_in_a_value_is_read_too(void **state)
{
	(void)state;
	assert_string_equal(
		pairs("file=json:{\"driver\":\"nvme\",,\"n\":1},if=none", NULL),
		"file=json:{\"driver\":\"nvme\",\"n\":1} file.driver=nvme "
		"file.n=1 if=none");
	assert_string_equal(
		pairs("{\"file\":\"json:{\\\"cache\\\":{\\\"direct\\\":true}}"
	              "\"}",
	              NULL),
		"file=json:{\"cache\":{\"direct\":true}} "
		"file.cache.direct=on");
}

static void what_cannot_be_read_is_refused(void **state)
{
	char deep[600] = "{", wide[4096] = "", longest[1100];

	(void)state;
	assert_string_equal(pairs("{", NULL), "EINVAL");
	assert_string_equal(pairs("{}x", NULL), "EINVAL");
	/* QEMU takes single quotes; what is not read is not let through. */
	assert_string_equal(pairs("{'driver':'nvme'}", NULL), "EINVAL");
	assert_string_equal(pairs("{\"a\":1,\"a\":2}", NULL), "EINVAL");
	assert_string_equal(pairs("a=json:[1]", NULL), "EINVAL");
	assert_string_equal(pairs("a=json:x", NULL), "EINVAL");
	for (unsigned i = 0; i <= VM_TEXT_DEPTH_MAX; i++)
		strcat(deep, "\"a\":{");
	assert_string_equal(pairs(strcat(deep, "\"b\":1}"), NULL), "EINVAL");
	for (unsigned i = 0; i <= VM_PAIRS_MAX; i++)
		strcat(wide, "a,");
	assert_string_equal(pairs(wide, NULL), "EINVAL");
	memset(longest, 'a', sizeof(longest));
	strcpy(longest + sizeof(longest) - 3, "=1");
	assert_string_equal(pairs(longest, NULL), "EINVAL");
}

static void nesting_has_an_end(void **state)
{
	char text[600] = "", close[40] = "";

	(void)state;
	for (unsigned i = 0; i <= VM_TEXT_DEPTH_MAX + 1; i++) {
		strcat(text, i > 0 ? "\"a\":{" : "{");
		strcat(close, "}");
	}
	strcat(text, "\"b\":1");
	assert_string_equal(pairs(strcat(text, close), NULL), "EINVAL");
}

static void as_many_pairs_as_there_is_room_for(void **state)
{
	char wide[4096] = "";
	AUTO(vm_pairs_free) struct vm_pairs *p = vm_pairs_new();

	(void)state;
	for (unsigned i = 0; i < VM_PAIRS_MAX; i++)
		strcat(wide, "a,");
	assert_int_equal(vm_text_read(wide, NULL, p, NULL), 0);
	assert_int_equal(p->n, VM_PAIRS_MAX);
	assert_int_equal(vm_pairs_add(p, "b", "1", NULL), -EINVAL);
}

static void the_last_of_several_counts(void **state)
{
	AUTO(vm_pairs_free) struct vm_pairs *p = vm_pairs_new();

	(void)state;
	assert_int_equal(vm_text_read("a=1,b=2,a=3", NULL, p, NULL), 0);
	assert_string_equal(vm_pairs_get(p, "a"), "3");
	assert_null(vm_pairs_get(p, "c"));
}

static void a_key_ends_at_a_dot(void **state)
{
	(void)state;
	assert_true(vm_key_ends("direct", "direct"));
	assert_true(vm_key_ends("file.cache.direct", "direct"));
	assert_false(vm_key_ends("indirect", "direct"));
	assert_false(vm_key_ends("rect", "direct"));
	assert_false(vm_key_ends("direct.x", "direct"));
}

static void only_what_qemu_reads_as_false_is_off(void **state)
{
	(void)state;
	assert_true(vm_value_off("off"));
	assert_true(vm_value_off("no"));
	assert_true(vm_value_off("false"));
	assert_true(vm_value_off("n"));
	assert_false(vm_value_off("on"));
	assert_false(vm_value_off(""));
	assert_false(vm_value_off("0"));
	assert_false(vm_value_off("OFF"));
}

static void sizes_are_of_mib_where_qemu_says_so(void **state)
{
	uint64_t n = 7;

	(void)state;
	assert_int_equal(vm_bytes("128", true, &n), 0);
	assert_int_equal(n, 128 << 20);
	assert_int_equal(vm_bytes("128", false, &n), 0);
	assert_int_equal(n, 128);
	assert_int_equal(vm_bytes("2g", true, &n), 0);
	assert_int_equal(n, 2ll << 30);
	assert_int_equal(vm_bytes("1.5G", true, &n), 0);
	assert_int_equal(n, 3ll << 29);
	assert_int_equal(vm_bytes("4096B", true, &n), 0);
	assert_int_equal(n, 4096);
	n = 7;
	assert_int_equal(vm_bytes("", true, &n), -EINVAL);
	assert_int_equal(vm_bytes("x", true, &n), -EINVAL);
	assert_int_equal(vm_bytes("-1", true, &n), -EINVAL);
	assert_int_equal(vm_bytes("0x10", true, &n), -EINVAL);
	assert_int_equal(vm_bytes("1GiB", true, &n), -EINVAL);
	assert_int_equal(vm_bytes("9E", true, &n), -EINVAL);
	assert_int_equal(vm_bytes("1 G", true, &n), -EINVAL);
	assert_int_equal(n, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_and_values_are_divided_by_commas),
		cmocka_unit_test(two_commas_are_one_of_the_value),
		cmocka_unit_test(a_word_alone_is_on_or_the_implied_value),
		cmocka_unit_test(json_is_flattened),
		cmocka_unit_test(json_in_a_value_is_read_too),
		cmocka_unit_test(what_cannot_be_read_is_refused),
		cmocka_unit_test(nesting_has_an_end),
		cmocka_unit_test(as_many_pairs_as_there_is_room_for),
		cmocka_unit_test(the_last_of_several_counts),
		cmocka_unit_test(a_key_ends_at_a_dot),
		cmocka_unit_test(only_what_qemu_reads_as_false_is_off),
		cmocka_unit_test(sizes_are_of_mib_where_qemu_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
