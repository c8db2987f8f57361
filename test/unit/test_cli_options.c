/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words, options, numbers and tables.  What the commands print for them is
 * tested with the program itself, in test/cluster/test_cli.py.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"

static int nothing(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return CLI_OK;
}

static const struct command commands[] = {
	{ "up", nothing, "" },       { "down", nothing, "" },
	{ "status", nothing, "" },   { "space", nothing, "" },
	{ "validate", nothing, "" },
};

static const char *suggest(const char *word)
{
	return cli_suggest(word, commands, ARRAY_SIZE(commands));
}

static void slips_are_recognised(void **state)
{
	(void)state;
	assert_string_equal(suggest("statsu"), "status");
	assert_string_equal(suggest("staus"), "status");
	assert_string_equal(suggest("spaces"), "space");
	assert_string_equal(suggest("dwon"), "down");
	assert_string_equal(suggest("pu"), "up");
}

static void beginnings_are_recognised(void **state)
{
	(void)state;
	assert_string_equal(suggest("valid"), "validate");
	assert_string_equal(suggest("stat"), "status");
}

static void other_words_are_not(void **state)
{
	(void)state;
	assert_null(suggest("frobnicate"));
	assert_null(suggest("x"));
	assert_null(suggest(""));
	assert_null(suggest("a-word-longer-than-any-command-ever-was"));
}

/* --- options ----------------------------------------------------------- */

static const struct option options[] = {
	{ "nodes", required_argument, NULL, 'n' },
	CLI_OPTION_JSON,
	CLI_OPTIONS,
	{ 0 },
};

static void common_options_are_taken_and_others_given_back(void **state)
{
	char a0[] = "memspan x", a1[] = "--json", a2[] = "--nodes", a3[] = "3";
	char a4[] = "--run-dir=/tmp/r", a5[] = "rest";
	char *argv[] = { a0, a1, a5, a2, a3, a4, NULL };
	struct cli cli = { .name = "x", .usage = "usage: x\n\nmore\n" };

	(void)state;
	optind = 0;
	assert_int_equal(cli_option(&cli, 6, argv, options), 'n');
	assert_string_equal(optarg, "3");
	assert_int_equal(cli_option(&cli, 6, argv, options), CLI_END);
	assert_true(cli.json);
	assert_string_equal(cli.run_dir, "/tmp/r");
	assert_null(cli.coordinator);
	assert_string_equal(argv[optind], "rest");
	assert_int_equal(cli_no_more(&cli, 6, argv), CLI_USAGE);
}

static void a_wrong_option_ends_it(void **state)
{
	char a0[] = "memspan x", a1[] = "--nodez";
	char *argv[] = { a0, a1, NULL };
	struct cli cli = { .name = "x", .usage = "usage: x\n" };

	(void)state;
	optind = 0;
	assert_int_equal(cli_option(&cli, 2, argv, options), CLI_OVER);
	assert_int_equal(cli.status, CLI_USAGE);
}

static void numbers_have_bounds_and_nothing_else_in_them(void **state)
{
	static const char *const wrong[] = {
		"",
		"0",
		"17",
		"-1",
		" 3",
		"3 ",
		"3x",
		"+3",
		"0x3a",
		"x",
		"99999999999999999999999",
	};
	struct cli cli = { .name = "x", .usage = "usage: x\n" };
	uint64_t n = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(cli_number(&cli, "--n", wrong[i], 1, 16, &n),
		                 CLI_USAGE);
		assert_int_equal(n, 7);
	}
	assert_int_equal(cli_number(&cli, "--n", "16", 1, 16, &n), 0);
	assert_int_equal(n, 16);
	assert_int_equal(cli_size(&cli, "--s", "1K", 1, 1024, &n), 0);
	assert_int_equal(n, 1024);
	assert_int_equal(cli_size(&cli, "--s", "2K", 1, 1024, &n), CLI_USAGE);
	assert_int_equal(cli_size(&cli, "--s", "K", 1, 1024, &n), CLI_USAGE);
	assert_int_equal(n, 1024);
}

/* --- tables ------------------------------------------------------------ */

static void columns_fit_their_widest_cell(void **state)
{
	AUTO(table_free) struct table *t = table_new("lrl");
	AUTO_FREE char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	(void)state;
	table_cell(t, "NAME");
	table_cell(t, "N");
	table_cell(t, "WHAT");
	table_cell(t, "a\033[1m");
	table_cell(t, "%d", 100);
	table_cell_size(t, 4096);
	assert_int_equal(table_print(t, 1, f), 0);
	fclose(f);
	assert_string_equal(text, " NAME     N  WHAT\n"
	                          " a?[1m  100  4 KiB\n");
}

static void a_table_without_memory_says_so(void **state)
{
	(void)state;
	table_cell(NULL, "x");
	assert_int_equal(table_print(NULL, 0, stdout), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slips_are_recognised),
		cmocka_unit_test(beginnings_are_recognised),
		cmocka_unit_test(other_words_are_not),
		cmocka_unit_test(
			common_options_are_taken_and_others_given_back),
		cmocka_unit_test(a_wrong_option_ends_it),
		cmocka_unit_test(numbers_have_bounds_and_nothing_else_in_them),
		cmocka_unit_test(columns_fit_their_widest_cell),
		cmocka_unit_test(a_table_without_memory_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
