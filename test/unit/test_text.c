/* SPDX-License-Identifier: Apache-2.0 */

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "coord/text.h"

static void pieces_follow_one_another(void **state)
{
	struct text t = { 0 };
	char *p;

	(void)state;
	text_add(&t, "[");
	for (int i = 0; i < 3; i++) {
		text_comma(&t);
		text_add(&t, "%d", i);
	}
	text_add(&t, "]");
	p = text_take(&t);
	assert_string_equal(p, "[0,1,2]");
	free(p);
	assert_null(text_take(&t));
}

static void a_text_grows_as_far_as_it_must(void **state)
{
	struct text t = { 0 };
	char *p;

	(void)state;
	for (unsigned i = 0; i < 20000; i++)
		text_add(&t, "%u ", i % 10);
	text_add(&t, "%0100000d", 7);
	p = text_take(&t);
	assert_int_equal(strlen(p), 140000);
	free(p);
}

/* jansson is the judge: what it reads back is what was written. */
static void strings_are_what_a_reader_gets(void **state)
{
	static const char *const strings[] = {
		"",       "plain", "\"quoted\"", "back\\slash", "\x01\x1f\n\t",
		"\\\"\n", "end\\", "\xc3\xa4",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		struct text t = { 0 };
		json_t *doc;
		char *p;

		text_add(&t, "[");
		text_quote(&t, strings[i]);
		text_comma(&t);
		text_quote(&t, NULL);
		text_add(&t, "]");
		p = text_take(&t);
		doc = json_loads(p, 0, NULL);
		assert_non_null(doc);
		assert_string_equal(json_string_value(json_array_get(doc, 0)),
		                    strings[i]);
		assert_true(json_is_null(json_array_get(doc, 1)));
		json_decref(doc);
		free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_follow_one_another),
		cmocka_unit_test(a_text_grows_as_far_as_it_must),
		cmocka_unit_test(strings_are_what_a_reader_gets),
	};

	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
