/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which cluster is meant.  The five places are taken away one by one, from the
 * strongest; the default run directory of a root user cannot be moved, so
 * those tests look at it only where it is empty.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cli/cluster.h"

static char dir[] = "/tmp/test_cli_cluster.XXXXXX";

static void write_url(const char *text)
{
	char path[RUN_PATH_BYTES];
	FILE *f = fopen(run_path(dir, "coordinator.url", path), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	char path[RUN_PATH_BYTES];

	(void)state;
	(void)unlink(run_path(dir, "coordinator.url", path));
	return rmdir(dir);
}

static void the_option_wins(void **state)
{
	struct cli cli = { .run_dir = dir, .coordinator = "http://a:1" };
	struct cluster c;

	(void)state;
	write_url("http://b:2\n");
	setenv("MEMSPAN_COORDINATOR", "http://c:3", 1);
	assert_int_equal(cluster_find(&cli, &c, NULL), 0);
	assert_string_equal(c.url, "http://a:1");
	assert_string_equal(c.source, "--coordinator");
	assert_string_equal(c.run_dir, dir);
}

static void then_the_named_run_directory(void **state)
{
	struct cli cli = { .run_dir = dir };
	struct cluster c;

	(void)state;
	write_url("http://b:2\n");
	setenv("MEMSPAN_COORDINATOR", "http://c:3", 1);
	assert_int_equal(cluster_find(&cli, &c, NULL), 0);
	assert_string_equal(c.url, "http://b:2");
}

static void then_the_environment(void **state)
{
	struct cli cli = { .run_dir = dir }, bare = { 0 };
	struct cluster c;

	(void)state;
	write_url("");
	setenv("MEMSPAN_COORDINATOR", "http://c:3", 1);
	assert_int_equal(cluster_find(&cli, &c, NULL), 0);
	assert_string_equal(c.url, "http://c:3");
	assert_int_equal(cluster_find(&bare, &c, NULL), 0);
	assert_string_equal(c.url, "http://c:3");
}

static void then_the_default_directory_and_the_default(void **state)
{
	struct cli cli = { 0 };
	struct cluster c;

	(void)state;
	unsetenv("MEMSPAN_COORDINATOR");
	if (access("/run/memspan/coordinator.url", F_OK) == 0)
		skip();
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	assert_int_equal(cluster_find(&cli, &c, NULL), 0);
	assert_string_equal(c.url, CLUSTER_URL_DEFAULT);
	assert_string_equal(c.source, "the default");
}

static void run_directories_become_absolute_and_short(void **state)
{
	struct cli cli = { .run_dir = "here/" };
	char ret[RUN_DIR_BYTES], here[256], longest[RUN_DIR_BYTES + 1];
	struct errmsg em;

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(chdir("/tmp"), 0);
	assert_int_equal(cluster_run_dir(&cli, ret, &em), 0);
	assert_string_equal(ret, "/tmp/here");
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(cluster_run_dir(&cli, ret, &em), 0);
	assert_string_equal(ret, "/here");
	assert_int_equal(chdir(here), 0);

	memset(longest, 'a', sizeof(longest));
	longest[0] = '/';
	longest[RUN_DIR_BYTES] = '\0';
	cli.run_dir = longest;
	assert_int_equal(cluster_run_dir(&cli, ret, &em), -ENAMETOOLONG);
	longest[RUN_DIR_BYTES - 1] = '\0';
	assert_int_equal(cluster_run_dir(&cli, ret, &em), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_option_wins),
		cmocka_unit_test(then_the_named_run_directory),
		cmocka_unit_test(then_the_environment),
		cmocka_unit_test(then_the_default_directory_and_the_default),
		cmocka_unit_test(run_directories_become_absolute_and_short),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
