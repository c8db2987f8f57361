/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "base/prng.h"

/* 2026-01-31T09:30:00.123456789Z */
#define WHEN (1769851800ull * NSEC_PER_SEC + 123456789ull)

static char buf[LOG_LINE_MAX];

/* The line as JSON.  The oracle: jansson reads every line we make. */
static json_t *parsed(size_t n)
{
	json_error_t e;
	json_t *j;

	assert_int_equal(n, strlen(buf));
	assert_int_equal(buf[n - 1], '\n');
	assert_ptr_equal(strchr(buf, '\n'), buf + n - 1);
	j = json_loadb(buf, n - 1, JSON_REJECT_DUPLICATES, &e);
	if (!j)
		fail_msg("%s: %s", e.text, buf);
	return j;
}

static const char *text_of(const json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

static void text_is_a_sentence_with_pairs(void **state)
{
	(void)state;
	log_init("node", false);
	log_format(buf, sizeof(buf), LOG_LEVEL_INFO, WHEN, "joined the cluster",
	           "node=%u epoch=%d name=%s", 2u, 7, "b");
	assert_string_equal(buf, "2026-01-31T09:30:00.123456Z info node: "
	                         "joined the cluster node=2 epoch=7 name=b\n");
	log_format(buf, sizeof(buf), LOG_LEVEL_ERR, WHEN, "no pairs", " ");
	assert_string_equal(buf,
	                    "2026-01-31T09:30:00.123456Z err node: no pairs\n");
}

static void values_with_blanks_are_quoted_in_text(void **state)
{
	(void)state;
	log_init("node", false);
	log_format(buf, sizeof(buf), LOG_LEVEL_WARN, WHEN, "s",
	           " why=%s to=%s empty=%s", "no such file", "a=b\n", "");
	assert_non_null(strstr(
		buf, "s why=\"no such file\" to=\"a=b\\u000a\" empty=\"\"\n"));
}

static void json_has_numbers_where_the_format_has(void **state)
{
	json_t *j;

	(void)state;
	log_init("coordinator", true);
	j = parsed(log_format(buf, sizeof(buf), LOG_LEVEL_WARN, WHEN, "went",
	                      " node=%u delta=%lld name=%s ratio=%.2f", 3u,
	                      -5ll, "17", 0.5));
	assert_string_equal(text_of(j, "ts"), "2026-01-31T09:30:00.123456Z");
	assert_string_equal(text_of(j, "level"), "warn");
	assert_string_equal(text_of(j, "component"), "coordinator");
	assert_string_equal(text_of(j, "msg"), "went");
	assert_int_equal(json_integer_value(json_object_get(j, "node")), 3);
	assert_int_equal(json_integer_value(json_object_get(j, "delta")), -5);
	assert_string_equal(text_of(j, "name"), "17");
	assert_string_equal(text_of(j, "ratio"), "0.50");
	json_decref(j);
}

static void a_value_cannot_pass_for_another_pair(void **state)
{
	json_t *j;

	(void)state;
	log_init("node", true);
	j = parsed(log_format(buf, sizeof(buf), LOG_LEVEL_INFO, WHEN, "s",
	                      " name=%s node=%u", "x node=9\",\"level\":\"err",
	                      1u));
	assert_string_equal(text_of(j, "name"), "x node=9\",\"level\":\"err");
	assert_int_equal(json_integer_value(json_object_get(j, "node")), 1);
	json_decref(j);
}

static void any_bytes_make_a_line_that_parses(void **state)
{
	struct prng r;

	(void)state;
	log_init("node", true);
	prng_init(&r, 1);
	for (unsigned i = 0; i < 20000; i++) {
		char value[64];
		size_t n = (size_t)prng_below(&r, sizeof(value));
		json_t *j;

		for (size_t k = 0; k < n; k++)
			value[k] = (char)(1 + prng_below(&r, 255));
		value[n] = '\0';
		/* A separator would end the value; that is documented. */
		for (size_t k = 0; k < n; k++)
			if (value[k] == '\x1f')
				value[k] = 'x';
		j = parsed(log_format(buf, sizeof(buf), LOG_LEVEL_INFO, WHEN,
		                      value, " v=%s end=%u", value, i));
		assert_int_equal(json_integer_value(json_object_get(j, "end")),
		                 i);
		json_decref(j);
	}
}

static void utf8_is_kept_and_what_is_none_replaced(void **state)
{
	json_t *j;

	(void)state;
	log_init("node", true);
	j = parsed(log_format(buf, sizeof(buf), LOG_LEVEL_INFO, WHEN, "s",
	                      " a=%s b=%s c=%s", "\xc3\xa9\xe2\x82\xac",
	                      "\xed\xa0\x80", "\xc0\xaf"));
	assert_string_equal(text_of(j, "a"), "\xc3\xa9\xe2\x82\xac");
	assert_string_equal(text_of(j, "b"),
	                    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	assert_string_equal(text_of(j, "c"), "\xef\xbf\xbd\xef\xbf\xbd");
	json_decref(j);
}

static void a_long_line_is_cut_and_still_parses(void **state)
{
	char value[3000];

	(void)state;
	/* Each length, so that each place where a cut can fall is met. */
	for (size_t n = 0; n < sizeof(value); n++) {
		log_init("node", true);
		memset(value, n % 2 == 0 ? '\n' : 'v', n);
		value[n] = '\0';
		json_decref(parsed(log_format(buf, 256, LOG_LEVEL_INFO, WHEN,
		                              "s", " v=%s w=%s", value, "w")));
		json_decref(parsed(log_format(buf, 256, LOG_LEVEL_INFO, WHEN,
		                              value, " v=%u", 1u)));
		json_decref(parsed(log_format(buf, sizeof(buf), LOG_LEVEL_INFO,
		                              WHEN, value, " v=%s w=%d", value,
		                              1)));
		log_init("node", false);
		assert_true(log_format(buf, 256, LOG_LEVEL_INFO, WHEN, value,
		                       " v=%s", value) < 256);
		assert_int_equal(buf[strlen(buf) - 1], '\n');
	}
}

/* Make a line on a pipe in place of stderr.  Returns what was written. */
static size_t line_written(char *out, size_t bytes, enum log_level shown)
{
	int fd[2];
	int err = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(fd), 0);
	assert_true(dup2(fd[1], STDERR_FILENO) >= 0);
	log_set_level(shown);
	log_debug("hidden unless asked for");
	log_info("one line", "n=%d", 1);
	assert_true(dup2(err, STDERR_FILENO) >= 0);
	close(err);
	close(fd[1]);
	n = read(fd[0], out, bytes - 1);
	assert_true(n >= 0);
	out[n] = '\0';
	close(fd[0]);
	return (size_t)n;
}

static void lines_go_to_stderr_if_their_level_is_shown(void **state)
{
	char out[512];

	(void)state;
	log_init("node", false);
	assert_int_equal(line_written(out, sizeof(out), LOG_LEVEL_ERR), 0);
	line_written(out, sizeof(out), LOG_LEVEL_INFO);
	assert_non_null(strstr(out, " info node: one line n=1\n"));
	assert_null(strstr(out, "hidden"));
	line_written(out, sizeof(out), LOG_LEVEL_DEBUG);
	assert_non_null(strstr(out, " debug node: hidden unless asked for\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_is_a_sentence_with_pairs),
		cmocka_unit_test(values_with_blanks_are_quoted_in_text),
		cmocka_unit_test(json_has_numbers_where_the_format_has),
		cmocka_unit_test(a_value_cannot_pass_for_another_pair),
		cmocka_unit_test(any_bytes_make_a_line_that_parses),
		cmocka_unit_test(utf8_is_kept_and_what_is_none_replaced),
		cmocka_unit_test(a_long_line_is_cut_and_still_parses),
		cmocka_unit_test(lines_go_to_stderr_if_their_level_is_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
