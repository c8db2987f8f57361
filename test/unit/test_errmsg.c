/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

static void the_reason_follows_the_sentence(void **state)
{
	struct errmsg em;

	(void)state;
	assert_int_equal(errmsg_set(&em, -EACCES, "cannot open %s", "/x"),
	                 -EACCES);
	assert_string_equal(em.text, "cannot open /x: Permission denied");
}

static void without_an_error_the_sentence_stands_alone(void **state)
{
	struct errmsg em;

	(void)state;
	assert_int_equal(errmsg_set(&em, 0, "size %d", 3), 0);
	assert_string_equal(em.text, "size 3");
	assert_int_equal(errmsg_say(&em, -EINVAL, "no unit %s", "Q"), -EINVAL);
	assert_string_equal(em.text, "no unit Q");
}

static void nobody_listening_still_passes_the_code_on(void **state)
{
	(void)state;
	assert_int_equal(errmsg_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(errmsg_say(NULL, -EIO, "x"), -EIO);
}

static void a_long_sentence_is_cut_and_ended(void **state)
{
	struct errmsg em;
	char name[1000];

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(errmsg_set(&em, -EIO, "%s", name), -EIO);
	assert_int_equal(strlen(em.text), sizeof(em.text) - 1);
	assert_int_equal(errmsg_say(&em, -EIO, "%s", name), -EIO);
	assert_int_equal(strlen(em.text), sizeof(em.text) - 1);
}

static void the_text_is_one_line(void **state)
{
	struct errmsg em;

	(void)state;
	(void)errmsg_say(&em, 0, "a%sb", "\n\t");
	assert_string_equal(em.text, "a  b");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reason_follows_the_sentence),
		cmocka_unit_test(without_an_error_the_sentence_stands_alone),
		cmocka_unit_test(nobody_listening_still_passes_the_code_on),
		cmocka_unit_test(a_long_sentence_is_cut_and_ended),
		cmocka_unit_test(the_text_is_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
