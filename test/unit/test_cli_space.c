/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and bindings of spaces, as typed, and as the coordinator takes them.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/http.h"
#include "cli/space.h"

static void names_are_of_few_letters(void **state)
{
	char longest[65];

	(void)state;
	assert_true(space_name_valid("a"));
	assert_true(space_name_valid("0.a_b-c"));
	assert_false(space_name_valid(""));
	assert_false(space_name_valid("-a"));
	assert_false(space_name_valid("A"));
	assert_false(space_name_valid("a/b"));
	assert_false(space_name_valid("a b"));
	memset(longest, 'a', sizeof(longest));
	longest[64] = '\0';
	assert_false(space_name_valid(longest));
	longest[63] = '\0';
	assert_true(space_name_valid(longest));
}

/*
 * What the bindings, divided by blanks, become for a space of 8,000,000 bytes:
 * four extents, of which the last is short.
 */
static const char *bound(const char *texts)
{
	static char result[256];
	AUTO(json_decref)
	json_t *nodes = json_pack("[{s:i, s:s}, {s:i, s:s}]", "id", 0, "name",
	                          "left", "id", 5, "name", "right");
	AUTO(json_decref) json_t *json = NULL;
	AUTO_FREE char *copy = strdup(texts);
	struct bind v[8];
	size_t n = 0;
	char *save = NULL;

	for (char *t = strtok_r(copy, " ", &save); t;
	     t = strtok_r(NULL, " ", &save))
		if (bind_parse(t, &v[n++], NULL) < 0)
			return "EINVAL";
	switch (bind_json(v, n, 8000000, nodes, &json, NULL)) {
	case -EINVAL:
		return "contradiction";
	case -ENOENT:
		return "ENOENT";
	case 0:
		break;
	default:
		return "?";
	}
	snprintf(result, sizeof(result), "null");
	if (json_is_string(json))
		snprintf(result, sizeof(result), "%s", json_string_value(json));
	for (size_t i = 0, at = 0; i < json_array_size(json); i++) {
		const json_t *range = json_array_get(json, i);

		at += (size_t)snprintf(
			result + at, sizeof(result) - at, "%s%llu-%llu=%llu",
			i > 0 ? " " : "",
			(unsigned long long)field_u64(range, "first_bytes"),
			(unsigned long long)field_u64(range, "last_bytes"),
			(unsigned long long)field_u64(range, "node"));
	}
	return result;
}

static void nothing_is_first_touch(void **state)
{
	(void)state;
	assert_string_equal(bound(""), "null");
}

static void the_whole_space_can_be_bound(void **state)
{
	(void)state;
	assert_string_equal(bound("interleave"), "interleave");
	assert_string_equal(bound("right"), "0-8000000=5");
	assert_string_equal(bound("5"), "0-8000000=5");
	assert_string_equal(bound("0"), "0-8000000=0");
}

static void ranges_are_sorted_and_end_with_the_space(void **state)
{
	(void)state;
	assert_string_equal(bound("4M-8M=right 0-2M=0"),
	                    "0-2097152=0 4194304-8000000=5");
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	assert_string_equal(bound("0-1M=0"), "EINVAL");
	assert_string_equal(bound("2M-2M=0"), "EINVAL");
	assert_string_equal(bound("4M-2M=0"), "EINVAL");
	assert_string_equal(bound("0-4M="), "EINVAL");
	assert_string_equal(bound("4M=0"), "EINVAL");
	assert_string_equal(bound("-4M=0"), "EINVAL");
	assert_string_equal(bound("0-=0"), "EINVAL");
}

static void contradictions_are_refused(void **state)
{
	(void)state;
	assert_string_equal(bound("0-4M=0 2M-8M=5"), "contradiction");
	assert_string_equal(bound("0-16M=0"), "contradiction");
	assert_string_equal(bound("0 5"), "contradiction");
	assert_string_equal(bound("interleave 5"), "contradiction");
	assert_string_equal(bound("5 interleave"), "contradiction");
}

static void nodes_must_exist(void **state)
{
	(void)state;
	assert_string_equal(bound("1"), "ENOENT");
	assert_string_equal(bound("0-2M=middle"), "ENOENT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_of_few_letters),
		cmocka_unit_test(nothing_is_first_touch),
		cmocka_unit_test(the_whole_space_can_be_bound),
		cmocka_unit_test(ranges_are_sorted_and_end_with_the_space),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(contradictions_are_refused),
		cmocka_unit_test(nodes_must_exist),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
