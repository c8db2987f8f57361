/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd: every errno that a client or a race can cause, provoked by a client
 * process that does what causes it.
 */

#include "uffd_fixture.h"

#include <sys/stat.h>

/* --- what can go wrong ------------------------------------------------- */

static void a_page_present_in_the_middle_is_passed_over(void **state)
{
	struct fixture *f = *state;
	struct uffd_run all = run_of(0, 8), zero = run_of(8, 8);

	assert_copied(f, 3, 1, 0);
	assert_int_equal(quietly(f, cl_write, 3, 99), 0);
	assert_copied(f, 7, 2, 0);
	assert_int_equal(uffd_copy(f->u[0], &all, f->bytes, 0), UFFD_DONE);
	assert_int_equal(all.done, 8);
	assert_int_equal(all.found, 1u << 3 | 1u << 7);
	assert_int_equal(uffd_zero(f->u[0], &zero, 0), UFFD_DONE);
	assert_int_equal(zero.done, 8);
	assert_int_equal(zero.found, 1);
	assert_int_equal(quietly(f, cl_read, 0, 0), 1);
	assert_int_equal(quietly(f, cl_read, 3, 0), 99);
	assert_int_equal(quietly(f, cl_read, 6, 0), 7);
	assert_int_equal(quietly(f, cl_read, 7, 0), 1);
	assert_int_equal(quietly(f, cl_read, 8, 0), 2);
	assert_int_equal(quietly(f, cl_read, 15, 0), 0);
}

/* Two clients wait for a page; it is installed through one of them. */
static void a_waiter_whose_page_came_otherwise_is_woken(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 4);

	attach(f, 1, 0);
	(void)faults(f, 1, 1, cl_read, 2, 0);
	assert_copied(f, 0, 4, UFFD_WP);
	assert_int_equal(uffd_copy(f->u[1], &r, f->bytes, UFFD_WP), UFFD_DONE);
	assert_int_equal(r.done, 4);
	if (!f->markers) {
		struct uffd_fault got[UFFD_BATCH];

		client_await_fault(&f->c[1]);
		assert_int_equal(uffd_read(f->u[1], got), 1);
		assert_int_equal(got[0].kind, UFFD_FAULT_MINOR);
		assert_int_equal(uffd_continue(f->u[1], &r, 0), UFFD_DONE);
	}
	assert_int_equal(client_result(&f->c[1], 1), 3);
}

static void a_split_mapping_is_served_page_by_page(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 64), zero = run_of(64, 64);

	assert_int_equal(client_do(&f->c[0], 1, cl_split, 10, 1), 0);
	assert_int_equal(client_do(&f->c[0], 1, cl_split, 70, 3), 0);
	assert_copied(f, 0, 64, 0);
	assert_int_equal(uffd_zero(f->u[0], &zero, 0), UFFD_DONE);
	assert_int_equal(zero.done, 64);
	assert_int_equal(uffd_protect(f->u[0], &r), UFFD_DONE);
	for (long p = 9; p <= 11; p++) {
		assert_int_equal(quietly(f, cl_read, p, 0), p + 1);
		assert_int_equal(
			faults(f, 0, (unsigned)p - 8, cl_write, p, 1).kind,
			UFFD_FAULT_WP);
	}
	assert_int_equal(uffd_unprotect(f->u[0], &r, 0), UFFD_DONE);
	for (unsigned w = 1; w <= 3; w++)
		assert_int_equal(client_result(&f->c[0], w), 0);
	assert_int_equal(quietly(f, cl_read, 72, 0), 0);
}

static void a_split_mapping_is_continued_page_by_page(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 64);

	assert_int_equal(client_do(&f->c[0], 1, cl_split, 10, 1), 0);
	assert_int_equal(space_mem_write(&f->mem, 0, 64, f->bytes), 0);
	assert_int_equal(uffd_continue(f->u[0], &r, 0), UFFD_DONE);
	assert_int_equal(r.done, 64);
	assert_int_equal(quietly(f, cl_read, 10, 0), 11);
	assert_int_equal(quietly(f, cl_read, 63, 0), 64);
}

static void an_unmapped_page_is_absent_and_the_rest_is_done(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 16), one = run_of(5, 1);
	enum uffd_outcome o;

	assert_int_equal(client_do(&f->c[0], 1, cl_unmap, 5, 1), 0);
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, 0), UFFD_ABSENT);
	assert_int_equal(r.done, 16);
	assert_int_equal(quietly(f, cl_read, 4, 0), 5);
	assert_int_equal(quietly(f, cl_read, 15, 0), 16);

	/* Newer kernels pass over the gap and say nothing of it. */
	o = uffd_protect(f->u[0], &r);
	assert_true(o == UFFD_ABSENT || o == UFFD_DONE);
	assert_int_equal(faults(f, 0, 1, cl_write, 4, 1).kind, UFFD_FAULT_WP);
	assert_int_equal(faults(f, 0, 2, cl_write, 6, 1).kind, UFFD_FAULT_WP);
	assert_int_equal(uffd_protect(f->u[0], &one), UFFD_ABSENT);
	assert_int_equal(uffd_zero(f->u[0], &one, 0), UFFD_ABSENT);
	assert_int_equal(uffd_unprotect(f->u[0], &one, 0), UFFD_ABSENT);
	assert_int_equal(one.done, 1);
}

static void who_waits_on_an_unmapped_page_is_woken(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(4, 4);

	(void)faults(f, 0, 1, cl_read, 5, 0);
	assert_int_equal(client_do(&f->c[0], 2, cl_unmap, 5, 1), 0);
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, 0), UFFD_ABSENT);
	assert_int_equal(client_result(&f->c[0], 1), CLIENT_SIGNAL(SIGSEGV));
}

/* Put other memory over page `page`: private if `bytes` is 0, else a file that
 * long; and watch it, though for MISSING alone if private. */
static long cl_map_other(struct client *c, long page, long bytes)
{
	struct uffdio_api api = { .api = UFFD_API,
		                  .features = UFFD_KERNEL_FEATURES };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)cl_at(c, page),
		           .len = 2 * PAGE_BYTES },
		.mode = bytes == 0 ? UFFDIO_REGISTER_MODE_MISSING :
		                     UFFD_KERNEL_MODE_MARKERS,
	};
	int fd = -1, other = probe_open_userfaultfd(NULL);
	int flags = MAP_FIXED |
	            (bytes == 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

	if (bytes != 0) {
		fd = memfd_create("other", MFD_CLOEXEC);
		if (ftruncate(fd, bytes) < 0)
			return -errno;
	}
	if (mmap(c->base + page * (long)PAGE_BYTES, 2 * PAGE_BYTES,
	         PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED ||
	    ioctl(other, UFFDIO_API, &api) < 0 ||
	    ioctl(other, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	return 0;
}

static void memory_of_another_kind_is_absent(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 16), one = run_of(5, 1);

	assert_int_equal(client_do(&f->c[0], 1, cl_map_other, 5, 0), 0);
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, UFFD_WP),
	                 UFFD_ABSENT);
	assert_int_equal(r.done, 16);
	assert_int_equal(quietly(f, cl_read, 7, 0), 8);
	assert_int_equal(uffd_continue(f->u[0], &one, 0), UFFD_ABSENT);
	assert_int_equal(uffd_protect(f->u[0], &one), UFFD_ABSENT);
}

static void a_page_behind_the_end_of_another_file_is_absent(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(6, 1);

	assert_int_equal(
		client_do(&f->c[0], 1, cl_map_other, 5, (long)PAGE_BYTES), 0);
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, 0), UFFD_ABSENT);
	assert_int_equal(uffd_zero(f->u[0], &r, 0), UFFD_ABSENT);
}

static void a_killed_client_is_gone(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 16);
	struct uffd_fault got[UFFD_BATCH];

	assert_copied(f, 0, 1, 0);
	client_kill(&f->c[0]);
	assert_int_equal(uffd_read(f->u[0], got), 0); /* reading never tells */
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, 0), UFFD_GONE);
	assert_int_equal(uffd_zero(f->u[0], &r, 0), UFFD_GONE);
	assert_int_equal(uffd_continue(f->u[0], &r, 0), UFFD_GONE);
	assert_int_equal(uffd_protect(f->u[0], &r), UFFD_GONE);
	assert_int_equal(uffd_unprotect(f->u[0], &r, 0), UFFD_GONE);
	assert_int_equal(uffd_wake(f->u[0], 0, PAGES), UFFD_DONE);
	assert_int_equal(uffd_read(f->u[0], got), -ESRCH);
	/* Its pages stay. */
	assert_int_equal(space_mem_page(&f->mem, 0)[0], 1);
}

static void continue_of_a_hole_is_a_breach(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 8);

	assert_int_equal(space_mem_write(&f->mem, 0, 8, f->bytes), 0);
	assert_int_equal(space_mem_punch(&f->mem, 5, 1), 0);
	assert_int_equal(uffd_continue(f->u[0], &r, 0), UFFD_BREACH);
	assert_int_equal(r.done, 5);
	assert_int_equal(quietly(f, cl_read, 4, 0), 5);
}

/* A client that asked for events, as a hand-over from elsewhere may have, holds
 * everything up until its event is read. */
static void a_changing_mapping_is_for_later(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(16, 4);
	struct uffd_fault got[UFFD_BATCH];

	client_stop(&f->c[0]);
	f->u[0] = uffd_free(f->u[0]);
	attach(f, 0, UFFD_FEATURE_EVENT_REMOVE);
	client_call(&f->c[0], 1, cl_dontneed, 0, 1);
	client_await_fault(&f->c[0]);
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, 0), UFFD_AGAIN);
	assert_int_equal(r.done, 0);
	assert_int_equal(uffd_protect(f->u[0], &r), UFFD_AGAIN);
	assert_int_equal(uffd_read(f->u[0], got), 0);
	assert_int_equal(client_result(&f->c[0], 1), 0);
	assert_copied(f, 16, 4, 0);
	assert_int_equal(quietly(f, cl_read, 19, 0), 4);
}

static void poison_raises_sigbus_whatever_was_there(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(4, 1);

	if (!f->features.poison)
		skip(); /* before Linux 6.6: the next test */
	/* Never there. */
	assert_int_equal(uffd_poison(f->u[0], 2), UFFD_DONE);
	assert_int_equal(quietly(f, cl_read, 2, 0), CLIENT_SIGNAL(SIGBUS));
	/* Resident, then taken, then lost: with its marker, and somebody who
	 * waits [A15]. */
	assert_copied(f, 4, 1, 0);
	assert_int_equal(uffd_protect(f->u[0], &r), UFFD_DONE);
	assert_int_equal(space_mem_punch(&f->mem, 4, 1), 0);
	(void)faults(f, 0, 1, cl_write, 4, 1);
	assert_int_equal(uffd_poison(f->u[0], 4), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), CLIENT_SIGNAL(SIGBUS));
	/* Again, as each later fault does. */
	assert_int_equal(uffd_poison(f->u[0], 4), UFFD_DONE);
	assert_int_equal(quietly(f, cl_read, 4, 0), CLIENT_SIGNAL(SIGBUS));
	assert_int_equal(client_do(&f->c[0], 1, cl_dontneed, 4, 1), 0);
	(void)faults(f, 0, 1, cl_read, 4, 0);
	assert_int_equal(uffd_poison(f->u[0], 4), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), CLIENT_SIGNAL(SIGBUS));
	/* Not mapped: nobody can read anything there. */
	assert_int_equal(client_do(&f->c[0], 1, cl_unmap, 6, 1), 0);
	assert_int_equal(uffd_poison(f->u[0], 6), UFFD_DONE);
}

static void without_poison_the_caller_is_told(void **state)
{
	struct fixture *f = *state;
	struct uffd_config cfg = { .fd = dup(f->c[0].uffd),
		                   .base = (uintptr_t)f->c[0].base,
		                   .pages = PAGES };
	AUTO(uffd_free) struct uffd *u = NULL;

	assert_int_equal(uffd_adopt(&cfg, &u, NULL), 0);
	assert_int_equal(uffd_poison(u, 2), UFFD_ABSENT);
}

/* --- a client's memory control group ----------------------------------- */

static bool put_text(const char *dir, const char *file, const char *text)
{
	char path[256];
	bool ok;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

/*
 * A group of our own with a limit of 4 MiB, below whichever hierarchy has the
 * memory controller, and in it client 0, which must not be killed when the
 * group is full: then ENOMEM is all there is.  Returns the limit's file, or
 * NULL.
 */
static const char *cgroup_make(struct fixture *f)
{
	const char *root = "/sys/fs/cgroup/memory"; /* version 1 */
	const char *limit = "memory.limit_in_bytes";
	char text[64];

	if (access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) != 0) {
		root = "/sys/fs/cgroup";
		limit = "memory.max";
		(void)put_text(root, "cgroup.subtree_control", "+memory");
	}
	(void)snprintf(f->cgroup, sizeof(f->cgroup), "%s/memspan-test-%d", root,
	               getpid());
	if (mkdir(f->cgroup, 0755) < 0) {
		f->cgroup[0] = '\0';
		return NULL;
	}
	(void)snprintf(text, sizeof(text), "/proc/%d", f->c[0].pid);
	if (!put_text(f->cgroup, "memory.oom_control", "1") &&
	    !put_text(text, "oom_score_adj", "-1000"))
		return NULL;
	(void)snprintf(text, sizeof(text), "%d", f->c[0].pid);
	if (!put_text(f->cgroup, limit, "4194304") ||
	    !put_text(f->cgroup, "cgroup.procs", text))
		return NULL;
	return limit;
}

/* COPY charges the client's group, whoever calls it [A11]. */
static void a_full_cgroup_is_for_later(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, RUN_PAGES);
	enum uffd_outcome o = UFFD_DONE;
	const char *limit;

	limit = cgroup_make(f);
	if (limit == NULL)
		skip(); /* no memory controller here that we may use */
	while (o == UFFD_DONE && r.first < PAGES) {
		o = uffd_copy(f->u[0], &r, f->bytes, 0);
		r.first += o == UFFD_DONE ? RUN_PAGES : 0;
	}
	assert_int_equal(o, UFFD_NOMEM);
	assert_true(r.first > 0 && r.done < RUN_PAGES);
	/* What stood before it stays, and later it goes through. */
	assert_true(put_text(f->cgroup, limit, "67108864"));
	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, 0), UFFD_DONE);
	assert_int_equal(quietly(f, cl_read, (long)r.first, 0), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_page_present_in_the_middle_is_passed_over),
		BOTH(a_waiter_whose_page_came_otherwise_is_woken),
		BOTH(a_split_mapping_is_served_page_by_page),
		MINOR(a_split_mapping_is_continued_page_by_page),
		BOTH(an_unmapped_page_is_absent_and_the_rest_is_done),
		BOTH(who_waits_on_an_unmapped_page_is_woken),
		BOTH(memory_of_another_kind_is_absent),
		BOTH(a_page_behind_the_end_of_another_file_is_absent),
		BOTH(a_killed_client_is_gone),
		MINOR(continue_of_a_hole_is_a_breach),
		BOTH(a_changing_mapping_is_for_later),
		MINOR(poison_raises_sigbus_whatever_was_there),
		BOTH(without_poison_the_caller_is_told),
		MINOR(a_full_cgroup_is_for_later),
	};

	if (!client_possible()) {
		puts("1..0 # SKIP this user may not open a userfaultfd");
		return 0;
	}
	return cmocka_run_group_tests_name("uffd_errno", tests, NULL, NULL);
}
