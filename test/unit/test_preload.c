/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's reckoning: which spaces the environment names, and what of a
 * mapping was unmapped.  Its hooks are in test/cluster/test_run.py.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "client/preload.h"

/* --- $MEMSPAN_SPACES --------------------------------------------------- */

static void spaces_are_named_with_their_descriptors(void **state)
{
	struct shim_spaces s;
	struct errmsg em;

	(void)state;
	assert_int_equal(spaces_parse("demo=200,a-b.c_9=201", &s, &em), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.v[0].name, "demo");
	assert_int_equal(s.v[0].fd, 200);
	assert_string_equal(s.v[1].name, "a-b.c_9");
	assert_int_equal(s.v[1].fd, 201);
	assert_false(s.v[0].here);
}

static void what_names_no_space_is_refused_whole(void **state)
{
	static const char *const bad[] = {
		"",           "demo",
		"demo=",      "=200",
		"demo=200,",  ",demo=200",
		"demo=200;",  "demo=-1",
		"demo= 1",    "Demo=200",
		"-demo=200",  "demo=2147483648",
		"de mo=1",    "demo=0x10",
		"a=1,b=2,c=", "a=99999999999999999999",
	};
	char name[LOCAL_NAME_BYTES + 8], many[16 * 8 + 8] = "";
	struct shim_spaces s = { .n = 7 };
	struct errmsg em = { "" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(spaces_parse(bad[i], &s, &em), -EINVAL);
		assert_non_null(strstr(em.text, "NAME=DESCRIPTOR"));
	}
	memset(name, 'n', LOCAL_NAME_BYTES);
	strcpy(name + LOCAL_NAME_BYTES, "=1");
	assert_int_equal(spaces_parse(name, &s, &em), -EINVAL);
	assert_int_equal(spaces_parse(name + 1, &s, &em), 0);
	for (unsigned i = 0; i < SHIM_SPACES_MAX; i++)
		strcat(many, i > 0 ? ",a=1" : "a=1");
	assert_int_equal(spaces_parse(many, &s, &em), 0);
	assert_int_equal(s.n, SHIM_SPACES_MAX);
	strcat(many, ",b=1");
	assert_int_equal(spaces_parse(many, &s, &em), -EINVAL);
	assert_non_null(strstr(em.text, "more than 16"));
	assert_int_equal(s.n, SHIM_SPACES_MAX); /* untouched */
}

/* A memfd as nodes make them. */
static int sealed(uint64_t bytes)
{
	int fd = memfd_create("space", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS,
	                       F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
	                 0);
	return fd;
}

static void a_space_is_known_by_its_file(void **state)
{
	AUTO_CLOSE int fd = sealed(8192), other = sealed(8192);
	AUTO_CLOSE int copy = dup(fd), pair = open("/dev/null", O_RDONLY);
	struct shim_spaces s = { .n = 2,
		                 .v = { { .name = "a", .fd = fd },
		                        { .name = "b", .fd = 999 } } };
	struct errmsg em;
	char path[40];

	(void)state;
	assert_int_equal(spaces_look(&s, &em), 0);
	assert_true(s.v[0].here);
	assert_int_equal(s.v[0].bytes, 8192);
	assert_false(s.v[1].here); /* nobody gave us that descriptor */
	assert_ptr_equal(spaces_find(&s, fd), &s.v[0]);
	assert_ptr_equal(spaces_find(&s, copy), &s.v[0]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	close(copy);
	copy = open(path, O_RDONLY);
	assert_ptr_equal(spaces_find(&s, copy), &s.v[0]);
	errno = 77;
	assert_null(spaces_find(&s, other));
	assert_null(spaces_find(&s, pair));
	assert_null(spaces_find(&s, 999));
	assert_null(spaces_find(&s, -1));
	assert_int_equal(errno, 77);
}

static void what_is_no_spaces_memory_is_refused(void **state)
{
	AUTO_CLOSE int plain = memfd_create("plain", MFD_CLOEXEC);
	AUTO_CLOSE int null = open("/dev/null", O_RDONLY);
	struct shim_spaces s = { .n = 1, .v = { { .name = "a", .fd = null } } };
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(spaces_look(&s, &em), -EINVAL);
	assert_non_null(strstr(em.text, "named for space a"));
	assert_int_equal(ftruncate(plain, 8192), 0);
	s.v[0].fd = plain; /* not sealed: anybody could cut it short */
	assert_int_equal(spaces_look(&s, &em), -EINVAL);
}

/* --- parts ------------------------------------------------------------- */

static void parts_that_meet_become_one(void **state)
{
	struct shim_parts p = { .n = 0 };

	(void)state;
	assert_int_equal(parts_add(&p, 100, 200), 0);
	assert_int_equal(parts_add(&p, 300, 400), 0);
	assert_int_equal(p.n, 2);
	assert_true(parts_cover(&p, 100, 200));
	assert_true(parts_cover(&p, 350, 360));
	assert_false(parts_cover(&p, 100, 201));
	assert_false(parts_cover(&p, 150, 350));
	assert_int_equal(parts_add(&p, 200, 300), 0); /* between them */
	assert_int_equal(p.n, 1);
	assert_true(parts_cover(&p, 100, 400));
	assert_int_equal(parts_add(&p, 50, 500), 0); /* around it */
	assert_int_equal(p.n, 1);
	assert_int_equal(parts_add(&p, 100, 120), 0); /* within it */
	assert_int_equal(p.n, 1);
	assert_true(parts_cover(&p, 50, 500));
	assert_false(parts_cover(&p, 49, 500));
}

static void too_many_parts_change_nothing(void **state)
{
	struct shim_parts p = { .n = 0 };

	(void)state;
	for (uintptr_t i = 0; i < SHIM_PARTS_MAX; i++)
		assert_int_equal(parts_add(&p, 10 * i + 1, 10 * i + 5), 0);
	assert_int_equal(p.n, SHIM_PARTS_MAX);
	assert_int_equal(parts_add(&p, 1000, 1001), -ENOSPC);
	assert_int_equal(p.n, SHIM_PARTS_MAX);
	assert_true(parts_cover(&p, 1, 5));
	assert_int_equal(parts_add(&p, 3, 14), 0); /* two become one */
	assert_int_equal(parts_add(&p, 1000, 1001), 0);
	assert_true(parts_cover(&p, 1, 15));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spaces_are_named_with_their_descriptors),
		cmocka_unit_test(what_names_no_space_is_refused_whole),
		cmocka_unit_test(a_space_is_known_by_its_file),
		cmocka_unit_test(what_is_no_spaces_memory_is_refused),
		cmocka_unit_test(parts_that_meet_become_one),
		cmocka_unit_test(too_many_parts_change_nothing),
	};

	return cmocka_run_group_tests_name("preload", tests, NULL, NULL);
}
