/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd: what each operation does to a real client process, and what it keeps
 * off.
 *
 * Most tests run twice, once for each way to register.  Errnos are in
 * test_uffd_errno.c, the kernel's own behaviour in test_kernel_facts.c, and
 * taking pages from clients that write meanwhile in test_take.c.
 */

#include "uffd_fixture.h"

#include <sys/resource.h>
#include <sys/timerfd.h>

/* --- what the operations do -------------------------------------------- */

static void a_fault_names_page_kind_and_thread(void **state)
{
	struct fixture *f = *state;
	long tid = client_do(&f->c[0], 3, cl_tid, 0, 0);
	struct uffd_fault got;

	got = faults(f, 0, 3, cl_read, 9, 0);
	assert_int_equal(got.kind, UFFD_FAULT_MISSING);
	assert_false(got.write);
	assert_int_equal(got.tid, tid);
	got = faults(f, 0, 4, cl_write, 10, 1);
	assert_int_equal(got.kind, UFFD_FAULT_MISSING);
	assert_true(got.write);
}

static void many_faults_are_read_at_once(void **state)
{
	struct fixture *f = *state;
	struct uffd_fault got[UFFD_BATCH];
	uint64_t seen = 0;
	int n = 0;

	for (unsigned w = 0; w < CLIENT_WORKERS; w++)
		client_call(&f->c[0], w, cl_read, (long)w, 0);
	while (n < (int)CLIENT_WORKERS) {
		int now;

		client_await_fault(&f->c[0]);
		now = uffd_read(f->u[0], got);
		for (int i = 0; i < now; i++)
			seen |= 1ull << got[i].page;
		n += now;
	}
	assert_int_equal(seen, (1u << CLIENT_WORKERS) - 1);
	assert_int_equal(uffd_read(f->u[0], got), 0);
}

static void copy_maps_writable_and_wakes(void **state)
{
	struct fixture *f = *state;

	/* With markers: over a marker, which gives way. */
	(void)faults(f, 0, 1, cl_read, 5, 0);
	assert_copied(f, 4, 8, 0);
	assert_int_equal(client_result(&f->c[0], 1), 2);
	assert_int_equal(quietly(f, cl_write, 5, 77), 0);
	assert_int_equal(space_mem_page(&f->mem, 5)[0], 77);
	assert_int_equal(quietly(f, cl_read, 11, 0), 8);
}

static void a_page_copied_read_only_faults_when_written(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 4);
	struct uffd_fault got;

	assert_copied(f, 0, 4, UFFD_WP);
	assert_int_equal(quietly(f, cl_read, 2, 0), 3);
	got = faults(f, 0, 1, cl_write, 2, 50);
	assert_int_equal(got.kind, UFFD_FAULT_WP);
	assert_true(got.write);
	assert_int_equal(space_mem_page(&f->mem, 2)[0], 3);
	assert_int_equal(uffd_unprotect(f->u[0], &r, 0), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), 0);
	assert_int_equal(space_mem_page(&f->mem, 2)[0], 50);
}

static void zeros_are_mapped_writable(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(16, 64);

	(void)faults(f, 0, 1, cl_write, 20, 9);
	assert_int_equal(uffd_zero(f->u[0], &r, 0), UFFD_DONE);
	assert_int_equal(r.done, 64);
	assert_int_equal(client_result(&f->c[0], 1), 0);
	assert_int_equal(quietly(f, cl_read, 79, 0), 0);
	assert_int_equal(quietly(f, cl_write, 79, 1), 0);
}

static void who_is_not_woken_waits_for_a_wake(void **state)
{
	struct fixture *f = *state;

	(void)faults(f, 0, 1, cl_read, 1, 0);
	assert_copied(f, 0, 4, UFFD_DONTWAKE);
	assert_false(client_through(&f->c[0], 1, 20));
	assert_int_equal(uffd_wake(f->u[0], 0, PAGES), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), 2);
}

static void a_protected_page_is_read_but_not_written(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(0, 64);

	assert_copied(f, 0, 8, 0);
	assert_int_equal(quietly(f, cl_write, 3, 30), 0);
	assert_int_equal(uffd_protect(f->u[0], &r), UFFD_DONE);
	assert_int_equal(quietly(f, cl_read, 3, 0), 30);
	assert_int_equal(faults(f, 0, 1, cl_write, 3, 31).kind, UFFD_FAULT_WP);
	assert_int_equal(uffd_unprotect(f->u[0], &r, UFFD_DONTWAKE), UFFD_DONE);
	assert_false(client_through(&f->c[0], 1, 20));
	assert_int_equal(uffd_wake(f->u[0], 3, 1), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), 0);
}

static void continue_maps_what_the_memfd_has(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(8, 16);

	assert_int_equal(space_mem_write(&f->mem, 8, 16, f->bytes), 0);
	assert_int_equal(faults(f, 0, 1, cl_read, 9, 0).kind, UFFD_FAULT_MINOR);
	assert_int_equal(uffd_continue(f->u[0], &r, 0), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), 2);
	assert_int_equal(quietly(f, cl_write, 23, 5), 0);
}

static void continue_maps_read_only(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(8, 16);

	if (!f->features.minor_wp)
		skip(); /* before Linux 6.4 there is no such thing */
	assert_int_equal(space_mem_write(&f->mem, 8, 16, f->bytes), 0);
	assert_int_equal(uffd_continue(f->u[0], &r, UFFD_WP), UFFD_DONE);
	assert_int_equal(quietly(f, cl_read, 9, 0), 2);
	assert_int_equal(faults(f, 0, 1, cl_write, 9, 0).kind, UFFD_FAULT_WP);
}

static void markers_show_what_is_written_read_only(void **state)
{
	struct fixture *f = *state;
	struct uffd_run r = run_of(7, 1);

	assert_int_equal(space_mem_write(&f->mem, 7, 2, f->bytes), 0);
	assert_int_equal(quietly(f, cl_read, 7, 0), 1);
	assert_int_equal(faults(f, 0, 1, cl_write, 7, 4).kind, UFFD_FAULT_WP);
	/* Also where nobody has read before. */
	assert_int_equal(faults(f, 0, 2, cl_write, 8, 4).kind, UFFD_FAULT_WP);
	assert_int_equal(uffd_unprotect(f->u[0], &r, 0), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 1), 0);
	/* A page away is away: a marker alone invents nothing. */
	assert_int_equal(faults(f, 0, 3, cl_read, 9, 0).kind,
	                 UFFD_FAULT_MISSING);
}

/* --- what is not ours -------------------------------------------------- */

static void assert_refused(int fd, uint64_t base, uint64_t pages, int why)
{
	struct uffd_config cfg = { .fd = fd, .base = base, .pages = pages };
	struct errmsg em = { .text = "" };
	struct uffd *u = NULL;

	assert_true(fd >= 0);
	assert_int_equal(uffd_adopt(&cfg, &u, &em), why);
	assert_null(u);
	assert_true(em.text[0] != '\0');
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken all the same */
}

static void adopt_refuses_what_is_no_userfaultfd_of_pages(void **state)
{
	struct fixture *f = *state;
	const uint64_t base = (uintptr_t)f->c[0].base;
	int fd = f->c[0].uffd;

	assert_refused(open("/dev/null", O_RDWR | O_CLOEXEC), base, 1, -ENOTTY);
	assert_refused(probe_open_userfaultfd(NULL), base, 1, -EINVAL);
	assert_refused(dup(fd), base + 1, 1, -EINVAL);
	assert_refused(dup(fd), base, 0, -EINVAL);
	assert_refused(dup(fd), base, UINT64_MAX / PAGE_BYTES, -EINVAL);
	assert_refused(dup(fd), base, UINT64_MAX, -EINVAL);
	assert_refused(dup(fd), 1ull << 63, 1, -EINVAL);
}

/* One descriptor may watch more than the stripe we were told of. */
static void faults_outside_the_stripe_are_dropped(void **state)
{
	struct fixture *f = *state;
	struct uffd_config cfg = { .fd = dup(f->c[0].uffd),
		                   .base = (uintptr_t)f->c[0].base +
		                           32 * PAGE_BYTES,
		                   .first = 1032,
		                   .pages = 16 };
	AUTO(uffd_free) struct uffd *u = NULL;
	struct uffd_run r = run_of(1040, 2);
	struct uffd_fault got[UFFD_BATCH];

	assert_int_equal(uffd_adopt(&cfg, &u, NULL), 0);
	assert_int_equal(uffd_first(u), 1032);
	assert_int_equal(uffd_pages(u), 16);
	client_call(&f->c[0], 1, cl_read, 31, 0);
	client_await_fault(&f->c[0]);
	assert_int_equal(uffd_read(u, got), 0);
	client_call(&f->c[0], 2, cl_read, 48, 0);
	client_await_fault(&f->c[0]);
	assert_int_equal(uffd_read(u, got), 0);
	client_call(&f->c[0], 3, cl_read, 41, 0);
	client_await_fault(&f->c[0]);
	assert_int_equal(uffd_read(u, got), 1);
	assert_int_equal(got[0].page, 1041);
	assert_int_equal(uffd_copy(u, &r, f->bytes, 0), UFFD_DONE);
	assert_int_equal(client_result(&f->c[0], 3), 2);
}

/* --- what we watch ourselves ------------------------------------------- */

struct slow_page {
	int fd;
	uint8_t *at;
};

static void *slow_page_main(void *arg)
{
	struct slow_page *s = arg;
	struct uffdio_zeropage zero = {
		.range = { .start = (uintptr_t)s->at, .len = PAGE_BYTES },
	};
	struct itimerspec late = { .it_value.tv_nsec = 50 * 1000 * 1000 };
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	AUTO_CLOSE int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t n;

	(void)timerfd_settime(timer, 0, &late, NULL);
	if (poll(&p, 1, CLIENT_WAIT_MS) == 1 &&
	    read(timer, &n, sizeof(n)) == (ssize_t)sizeof(n))
		(void)ioctl(s->fd, UFFDIO_ZEROPAGE, &zero);
	return NULL;
}

/* The source of a COPY comes late: as long a wait as the client's lock is. */
/* A client that has mapped pages [8, 24) of the stripe. */
static void what_lies_outside_of_a_mapped_part_is_absent(void **state)
{
	struct fixture *f = *state;
	struct uffd_config cfg = {
		.fd = dup(f->c[0].uffd),
		.base = (uintptr_t)f->c[0].base + 8 * PAGE_BYTES,
		.first = 8,
		.pages = 16,
		.features = f->features,
	};
	struct uffd_run r = run_of(0, 32);
	AUTO(uffd_free) struct uffd *part = NULL;

	assert_int_equal(uffd_adopt(&cfg, &part, NULL), 0);
	assert_int_equal(uffd_copy(part, &r, f->bytes, 0), UFFD_ABSENT);
	assert_int_equal(r.done, 32);
	assert_int_equal(r.found, 0);
	assert_int_equal(quietly(f, cl_read, 8, 0), 9);
	assert_int_equal(quietly(f, cl_read, 23, 0), 24);
	(void)faults(f, 0, 1, cl_read, 7, 0);
	(void)faults(f, 0, 2, cl_read, 24, 0);
	r.done = 0;
	assert_int_equal(uffd_copy(part, &r, f->bytes, 0), UFFD_ABSENT);
	assert_int_equal(r.done, 32);
	assert_int_equal(r.found, 0xffff00);
	r = run_of(24, 8);
	assert_int_equal(uffd_protect(part, &r), UFFD_ABSENT);
	assert_int_equal(r.done, 8);
	assert_int_equal(uffd_wake(part, 0, 8), UFFD_ABSENT);
	assert_int_equal(uffd_wake(part, 8, 16), UFFD_DONE);
}

static void slow_ioctls_are_counted(void **state)
{
	struct fixture *f = *state;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffd_run r = run_of(0, 1);
	struct slow_page s = { .fd = probe_open_userfaultfd(NULL) };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	pthread_t t;

	s.at = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
	            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(s.at != MAP_FAILED);
	reg.range = (struct uffdio_range){ .start = (uintptr_t)s.at,
		                           .len = PAGE_BYTES };
	assert_int_equal(ioctl(s.fd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(s.fd, UFFDIO_REGISTER, &reg), 0);
	assert_int_equal(uffd_stat_slow(f->u[0]), 0);
	assert_int_equal(pthread_create(&t, NULL, slow_page_main, &s), 0);
	assert_int_equal(uffd_copy(f->u[0], &r, s.at, 0), UFFD_DONE);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(uffd_stat_slow(f->u[0]), 1);
	(void)munmap(s.at, PAGE_BYTES);
	close(s.fd);
}

/* Run `fn` in a fork of the test, with what it says on stderr in `said`. */
static int in_a_fork(struct fixture *f, void (*fn)(struct fixture *),
                     char *said, size_t bytes)
{
	int pair[2], status = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(pair), 0);
	(void)fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		(void)setrlimit(RLIMIT_CORE, &none);
		(void)dup2(pair[1], STDERR_FILENO);
		(void)signal(SIGABRT, SIG_DFL);
		fn(f);
		_exit(0);
	}
	close(pair[1]);
	n = read(pair[0], said, bytes - 1);
	said[n > 0 ? n : 0] = '\0';
	close(pair[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void copy_through_a_closed_descriptor(struct fixture *f)
{
	struct uffd_run r = run_of(0, 1);

	close(uffd_fd(f->u[0]));
	(void)uffd_copy(f->u[0], &r, f->bytes, 0);
}

static void an_errno_that_nothing_explains_ends_the_program(void **state)
{
	char said[256];
	int status = in_a_fork(*state, copy_through_a_closed_descriptor, said,
	                       sizeof(said));

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_non_null(strstr(said, "UFFDIO_COPY: Bad file descriptor"));
}

static void drive_as_nobody(struct fixture *f)
{
	struct uffd_run r = run_of(0, 4);
	bool ok;

	if (setresgid(65534, 65534, 65534) < 0 ||
	    setresuid(65534, 65534, 65534) < 0)
		_exit(2);
	ok = uffd_copy(f->u[0], &r, f->bytes, 0) == UFFD_DONE &&
	     uffd_protect(f->u[0], &r) == UFFD_DONE &&
	     space_mem_punch(&f->mem, 0, 4) == 0 &&
	     uffd_zero(f->u[0], &r, 0) == UFFD_DONE &&
	     uffd_protect(f->u[0], &r) == UFFD_DONE &&
	     uffd_unprotect(f->u[0], &r, 0) == UFFD_DONE;
	_exit(ok ? 0 : 1);
}

static void driving_a_client_needs_no_privilege(void **state)
{
	char said[256];

	if (geteuid() != 0)
		skip(); /* then every test here has shown it */
	assert_int_equal(in_a_fork(*state, drive_as_nobody, said, sizeof(said)),
	                 0);
	assert_int_equal(quietly(*state, cl_read, 3, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_fault_names_page_kind_and_thread),
		BOTH(many_faults_are_read_at_once),
		BOTH(copy_maps_writable_and_wakes),
		BOTH(a_page_copied_read_only_faults_when_written),
		BOTH(zeros_are_mapped_writable),
		BOTH(who_is_not_woken_waits_for_a_wake),
		BOTH(a_protected_page_is_read_but_not_written),
		MINOR(continue_maps_what_the_memfd_has),
		MINOR(continue_maps_read_only),
		MARKERS(markers_show_what_is_written_read_only),
		MINOR(adopt_refuses_what_is_no_userfaultfd_of_pages),
		BOTH(faults_outside_the_stripe_are_dropped),
		BOTH(what_lies_outside_of_a_mapped_part_is_absent),
		MINOR(slow_ioctls_are_counted),
		MINOR(an_errno_that_nothing_explains_ends_the_program),
		BOTH(driving_a_client_needs_no_privilege),
	};

	if (!client_possible()) {
		puts("1..0 # SKIP this user may not open a userfaultfd");
		return 0;
	}
	return cmocka_run_group_tests_name("uffd", tests, NULL, NULL);
}
