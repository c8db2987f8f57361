/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe: what it says on this kernel, with features hidden, without privileges,
 * and on hosts set up in ways that the operator should hear about.
 *
 * What it says about a machine must not depend on which machine runs the test:
 * so each test that changes something does it in a fork, to itself alone.
 */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fault/probe.h"

#define DEVICE "/dev/userfaultfd"

static const struct probe_check *find(const struct probe *p, const char *name)
{
	for (unsigned i = 0; i < p->n; i++)
		if (strcmp(p->v[i].name, name) == 0)
			return &p->v[i];
	return NULL;
}

static bool passed(const struct probe *p, const char *name)
{
	const struct probe_check *c = find(p, name);

	return c != NULL && c->ok;
}

static bool may_open_userfaultfd(void)
{
	int fd = probe_open_userfaultfd(NULL);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void every_check_is_a_sentence_with_a_remedy(void **state)
{
	struct probe p;

	(void)state;
	probe_run(&p);
	assert_in_range(p.n, 5, PROBE_CHECKS_MAX);
	for (unsigned i = 0; i < p.n; i++) {
		const struct probe_check *c = &p.v[i];

		print_message("# %s: %s: %s\n", c->name,
		              c->ok ? "ok" : "failed", c->detail);
		assert_true(strlen(c->detail) > 0);
		assert_true(strlen(c->detail) < sizeof(c->detail) - 1);
		assert_true(strlen(c->remedy) < sizeof(c->remedy) - 1);
		assert_int_equal(c->ok, c->remedy[0] == '\0');
		assert_ptr_equal(find(&p, c->name), c); /* named once */
	}
}

static void a_kernel_that_runs_memspan_passes(void **state)
{
	static const char *const needed[] = {
		"userfaultfd",   "uffd_features", "memfd_seals",
		"uffd_register", "wp_shmem",      "uffd_copy",
		"uffd_copy_wp",  "uffd_zeropage", "uffd_continue",
		"page_life",
	};
	struct probe p;

	(void)state;
	if (!may_open_userfaultfd())
		skip();
	probe_run(&p);
	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
		if (!passed(&p, needed[i]))
			fail_msg("%s: %s", needed[i],
			         find(&p, needed[i])->detail);
	assert_int_equal(p.features.minor_wp, passed(&p, "uffd_continue_wp"));
	assert_int_equal(p.features.poison, passed(&p, "uffd_poison"));
}

static void the_short_probe_finds_the_same_features(void **state)
{
	struct uffd_features f;
	struct probe p;

	(void)state;
	probe_run(&p);
	probe_features(&f);
	assert_int_equal(f.minor_wp, p.features.minor_wp);
	assert_int_equal(f.poison, p.features.poison);
}

static void features_can_be_hidden(void **state)
{
	struct uffd_features f, all;
	struct probe p;

	(void)state;
	probe_features(&all);
	assert_int_equal(setenv("MEMSPAN_MASK_FEATURES", "minor_wp,poison", 1),
	                 0);
	probe_features(&f);
	probe_run(&p);
	assert_false(f.minor_wp || f.poison);
	assert_false(p.features.minor_wp || p.features.poison);
	assert_false(passed(&p, "uffd_continue_wp"));
	assert_false(find(&p, "uffd_poison")->needed);

	/* Whole words only, one or many. */
	(void)setenv("MEMSPAN_MASK_FEATURES", "poison", 1);
	probe_features(&f);
	assert_int_equal(f.minor_wp, all.minor_wp);
	assert_false(f.poison);
	(void)setenv("MEMSPAN_MASK_FEATURES", "pois,poisons,,minor", 1);
	probe_features(&f);
	assert_int_equal(f.minor_wp, all.minor_wp);
	assert_int_equal(f.poison, all.poison);
	(void)unsetenv("MEMSPAN_MASK_FEATURES");
}

static void the_call_serves_where_the_device_is_hidden(void **state)
{
	struct probe p;

	(void)state;
	if (geteuid() != 0)
		skip();
	(void)setenv("MEMSPAN_MASK_FEATURES", "dev", 1);
	probe_run(&p);
	(void)unsetenv("MEMSPAN_MASK_FEATURES");
	assert_true(passed(&p, "userfaultfd"));
	assert_non_null(
		strstr(find(&p, "userfaultfd")->detail, "userfaultfd(2)"));
}

/* --- on other machines ------------------------------------------------- */

/* Run `fn` in a fork.  Returns its exit status: 0, or which check was wrong. */
static int elsewhere(int (*fn)(void))
{
	int status = 0;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static bool become_nobody(void)
{
	return setresgid(65534, 65534, 65534) == 0 &&
	       setresuid(65534, 65534, 65534) == 0;
}

static int as_nobody(void)
{
	const struct probe_check *c;
	struct errmsg em = { .text = "" };
	struct uffd_features before, after;
	struct probe p;
	int r;

	probe_features(&before);
	if (!become_nobody())
		return 1;
	r = probe_open_userfaultfd(&em);
	if (r >= 0)
		return 77; /* this host lets everybody */
	if ((r != -EPERM && r != -EACCES) ||
	    strstr(em.text, "vm.unprivileged_userfaultfd=1") == NULL)
		return 2;
	probe_run(&p);
	c = find(&p, "userfaultfd");
	if (c == NULL || c->ok || !c->needed)
		return 3;
	if (strstr(c->remedy, "sysctl vm.unprivileged_userfaultfd=1") == NULL ||
	    strstr(c->remedy, "MODE=\"0660\"") == NULL ||
	    strstr(c->remedy, "cap_sys_ptrace") == NULL)
		return 4;
	/* All else is found all the same, as a node without a right needs. */
	if (!passed(&p, "page_life") || !passed(&p, "uffd_copy_wp"))
		return 5;
	probe_features(&after);
	if (after.minor_wp != before.minor_wp || after.poison != before.poison)
		return 6;
	return 0;
}

static void without_a_right_the_remedies_are_named(void **state)
{
	int r;

	(void)state;
	if (geteuid() != 0)
		skip();
	r = elsewhere(as_nobody);
	if (r == 77)
		skip();
	assert_int_equal(r, 0);
}

/* What a udev rule does: the device belongs to a group that we are in. */
static int with_the_device(void)
{
	const struct probe_check *c;
	struct probe p;
	struct stat st;
	int fd;

	if (access(DEVICE, F_OK) < 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0)
		return 77;
	/* A copy of the node over the node, so that the real one stays as it
	 * is. */
	if (stat(DEVICE, &st) < 0 ||
	    mknod("/tmp/node", S_IFCHR | 0600, st.st_rdev) < 0 ||
	    chown("/tmp/node", 0, 65534) < 0 || chmod("/tmp/node", 0660) < 0 ||
	    mount("/tmp/node", DEVICE, NULL, MS_BIND, NULL) < 0)
		return 77;
	if (!become_nobody())
		return 1;
	fd = probe_open_userfaultfd(NULL);
	if (fd < 0)
		return fd == -EACCES ? 77 : 2; /* mounted nodev */
	probe_run(&p);
	c = find(&p, "userfaultfd");
	return c != NULL && c->ok && strstr(c->detail, DEVICE) != NULL ? 0 : 3;
}

static void a_device_for_a_group_is_enough(void **state)
{
	int r;

	(void)state;
	if (geteuid() != 0)
		skip();
	r = elsewhere(with_the_device);
	if (r == 77)
		skip(); /* no device (before Linux 6.1), or may not mount */
	assert_int_equal(r, 0);
}

static int with_few_files(void)
{
	struct rlimit lim = { 128, 128 };
	const struct probe_check *c;
	struct probe p;

	if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 1;
	probe_run(&p);
	c = find(&p, "nofile");
	if (c == NULL || c->ok || !c->needed)
		return 2;
	return strstr(c->remedy, "LimitNOFILE") != NULL ? 0 : 3;
}

static int with_no_locked_memory(void)
{
	struct rlimit lim = { 65536, 65536 };
	const struct probe_check *c;
	struct probe p;

	if (setrlimit(RLIMIT_MEMLOCK, &lim) < 0 ||
	    (geteuid() == 0 && !become_nobody()))
		return 1;
	probe_run(&p);
	c = find(&p, "memlock");
	if (c == NULL || c->ok || c->needed)
		return 2;
	return strstr(c->detail, "64 KiB") != NULL &&
	                       strstr(c->remedy, "LimitMEMLOCK") != NULL ?
	               0 :
	               3;
}

static void low_limits_are_told(void **state)
{
	(void)state;
	assert_int_equal(elsewhere(with_few_files), 0);
	assert_int_equal(elsewhere(with_no_locked_memory), 0);
}

/* Swap that is not there, by a file over /proc/swaps that nobody else sees. */
static int with_swap(void)
{
	static const char text[] = "Filename\tType\tSize\tUsed\tPriority\n"
				   "/dev/sda2\tpartition\t1048572\t0\t-2\n";
	const struct probe_check *c;
	char path[] = "/tmp/memspan-swaps-XXXXXX";
	struct probe p;
	int fd = mkstemp(path), r;

	if (fd < 0 ||
	    write(fd, text, sizeof(text) - 1) != (ssize_t)sizeof(text) - 1)
		return 1;
	r = unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(path, "/proc/swaps", NULL, MS_BIND, NULL) < 0;
	(void)unlink(path);
	if (r)
		return 77;
	probe_run(&p);
	c = find(&p, "swap");
	if (c == NULL || c->ok || c->needed)
		return 2;
	return strstr(c->remedy, "swapoff") != NULL ? 0 : 3;
}

static void swap_is_told(void **state)
{
	int r = elsewhere(with_swap);

	(void)state;
	if (r == 77)
		skip(); /* may not mount */
	assert_int_equal(r, 0);
}

/* Without a descriptor left nothing can be tried, and that is what is said. */
static int with_no_files_at_all(void)
{
	struct rlimit lim = { 0, 0 };
	struct uffd_features f = { true, true };
	struct probe p;

	if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 1;
	probe_features(&f);
	if (f.minor_wp || f.poison)
		return 2;
	probe_run(&p);
	if (find(&p, "userfaultfd")->ok || find(&p, "uffd_copy") != NULL)
		return 3;
	return find(&p, "memfd_small_pages")->ok ? 4 : 0;
}

static void one_cause_is_one_failed_check(void **state)
{
	(void)state;
	assert_int_equal(elsewhere(with_no_files_at_all), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_check_is_a_sentence_with_a_remedy),
		cmocka_unit_test(a_kernel_that_runs_memspan_passes),
		cmocka_unit_test(the_short_probe_finds_the_same_features),
		cmocka_unit_test(features_can_be_hidden),
		cmocka_unit_test(the_call_serves_where_the_device_is_hidden),
		cmocka_unit_test(without_a_right_the_remedies_are_named),
		cmocka_unit_test(a_device_for_a_group_is_enough),
		cmocka_unit_test(low_limits_are_told),
		cmocka_unit_test(swap_is_told),
		cmocka_unit_test(one_cause_is_one_failed_check),
	};

	return cmocka_run_group_tests_name("probe", tests, NULL, NULL);
}
