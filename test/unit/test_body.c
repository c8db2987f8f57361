/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies: what is read, and the words for what is wrong.  The answers by HTTP
 * are tested in test/cluster/test_coordinator.py.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "coord/body.h"

static struct body b;
static struct request rq;
static const char *name;
static uint64_t size;
static bool loud;

/* Read `text` as {"name", "size", "loud"}; returns what is wrong with it. */
static const char *read_body(const char *text)
{
	static char wrong[sizeof(b.wrong)];
	/* On the heap to its byte, so that a sanitizer sees who reads on. */
	size_t n = strlen(text);
	char *exact = malloc(n > 0 ? n : 1);

	memcpy(exact, text, n);
	rq = (struct request){ .body = exact, .body_bytes = n };
	body_read(&b, &rq);
	name = body_text(&b, "name", BODY_NEEDED);
	size = body_number(&b, "size", BODY_MAY, 7, 100);
	loud = body_bool(&b, "loud");
	(void)body_check(&b);
	strcpy(wrong, b.wrong);
	free(exact);
	return wrong;
}

static void a_good_body_is_read(void **state)
{
	(void)state;
	assert_string_equal(
		read_body("{\"name\":\"x\",\"size\":100,\"loud\":true}"), "");
	assert_string_equal(name, "x");
	assert_int_equal(size, 100);
	assert_true(loud);
	body_free(&b);
	assert_string_equal(read_body(" { \"name\" : \"\" } "), "");
	assert_string_equal(name, "");
	assert_int_equal(size, 7);
	assert_false(loud);
	body_free(&b);
}

static void what_is_wrong_is_said_with_its_place(void **state)
{
	static const struct {
		const char *text, *wrong;
	} row[] = {
		{ "", "the body is empty; it must be a JSON object" },
		{ "[]", "the body must be a JSON object" },
		{ "{}", "'name' is missing in the body" },
		{ "{\"name\":1}",
		  "'name' must be a string, at line 1, column 2 of the body" },
		{ "{\"name\":\"x\",\n\n \"size\":101}",
		  "'size' must be from 0 to 100, at line 3, column 2 of the "
		  "body" },
		{ "{\"name\":\"x\",\"size\":1e2}",
		  "'size' must be an integer, at line 1, column 13 of the "
		  "body" },
		{ "{\"name\":\"x\",\"loud\":null}",
		  "'loud' must be true or false, at line 1, column 13 of the "
		  "body" },
		{ "{\"name\":\"more\",\n\"more\" :1}",
		  "'more' is not a field of this request, at line 2, column 1 "
		  "of the body" },
		/* A string that looks like a name is none. */
		{ "{\"name\":\"\\\"more\\\":\",\"more\":1}",
		  "'more' is not a field of this request, at line 1, column "
		  "21 of the body" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		assert_string_equal(read_body(row[i].text), row[i].wrong);
		body_free(&b);
	}
}

static void the_first_thing_that_is_wrong_is_told(void **state)
{
	(void)state;
	assert_string_equal(
		read_body("{\"size\":\"x\",\"name\":2,\"more\":1}"),
		"'name' must be a string, at line 1, column 13 of the body");
	body_free(&b);
}

static void a_name_with_escapes_is_found_at_the_beginning(void **state)
{
	(void)state;
	assert_string_equal(read_body("{\"name\":\"x\",\"m\\u006fre\":1}"),
	                    "'more' is not a field of this request, at line 1, "
	                    "column 1 of the body");
	body_free(&b);
}

/* Whatever is cut off, or changed in one byte, is read within its bounds. */
static void broken_bodies_are_read_within_their_bounds(void **state)
{
	static const char good[] =
		"{\"name\":\"a\\\"b\\\\\",\"size\":12,\"loud\":false}";
	char text[sizeof(good)];

	(void)state;
	for (size_t n = 0; n < sizeof(good); n++) {
		memcpy(text, good, n);
		text[n] = '\0';
		(void)read_body(text);
		body_free(&b);
	}
	for (size_t at = 0; at < sizeof(good) - 1; at++) {
		for (unsigned c = 1; c < 256; c++) {
			memcpy(text, good, sizeof(good));
			text[at] = (char)c;
			(void)read_body(text);
			body_free(&b);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_body_is_read),
		cmocka_unit_test(what_is_wrong_is_said_with_its_place),
		cmocka_unit_test(the_first_thing_that_is_wrong_is_told),
		cmocka_unit_test(a_name_with_escapes_is_found_at_the_beginning),
		cmocka_unit_test(broken_bodies_are_read_within_their_bounds),
	};

	return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
