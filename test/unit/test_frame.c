/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame: the memory of a space, and the pool.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fault/frame.h"

#define PAGES 128u

static int setup(void **state)
{
	struct space_mem *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	*state = m;
	return space_mem_init("test", PAGES * PAGE_BYTES, m, NULL);
}

static int teardown(void **state)
{
	space_mem_done(*state);
	free(*state);
	return 0;
}

static void fill(uint8_t *bytes, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		memset(bytes + i * PAGE_BYTES, (int)(i + 1), PAGE_BYTES);
}

/* Run `fn` in a fork; returns the status of waitpid(2). */
static int in_a_fork(void (*fn)(const struct space_mem *),
                     const struct space_mem *m)
{
	int status = 0;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		(void)setrlimit(RLIMIT_CORE, &none);
		(void)signal(SIGSEGV, SIG_DFL);
		(void)signal(SIGABRT, SIG_DFL);
		(void)close(STDERR_FILENO); /* an assert is expected */
		fn(m);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* --- a space's memory -------------------------------------------------- */

static void a_new_space_takes_no_memory(void **state)
{
	struct space_mem *m = *state;
	struct stat st;

	assert_int_equal(fstat(m->fd, &st), 0);
	assert_int_equal(st.st_size, PAGES * PAGE_BYTES);
	assert_int_equal(space_mem_resident(m), 0);
}

static void nobody_can_change_its_size(void **state)
{
	struct space_mem *m = *state;

	assert_int_equal(ftruncate(m->fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(m->fd, 1 << 30), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fcntl(m->fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fcntl(m->fd, F_GET_SEALS),
	                 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

static void what_is_written_shows_in_the_alias(void **state)
{
	static uint8_t bytes[64 * PAGE_BYTES];
	struct space_mem *m = *state;

	fill(bytes, 64);
	assert_int_equal(space_mem_write(m, 10, 64, bytes), 0);
	assert_int_equal(space_mem_resident(m), sizeof(bytes));
	assert_memory_equal(space_mem_page(m, 10), bytes, sizeof(bytes));
	assert_int_equal(space_mem_write(m, PAGES - 1, 1, bytes), 0);
	assert_int_equal(space_mem_page(m, PAGES - 1)[0], 1);
}

static void punching_gives_memory_back_and_leaves_the_rest(void **state)
{
	static uint8_t bytes[16 * PAGE_BYTES];
	struct space_mem *m = *state;

	fill(bytes, 16);
	assert_int_equal(space_mem_write(m, 0, 16, bytes), 0);
	assert_int_equal(space_mem_punch(m, 4, 8), 0);
	assert_int_equal(space_mem_resident(m), 8 * PAGE_BYTES);
	assert_int_equal(space_mem_page(m, 3)[0], 4);
	assert_int_equal(space_mem_page(m, 12)[0], 13);
	assert_int_equal(space_mem_resident(m), 8 * PAGE_BYTES);
	assert_int_equal(space_mem_punch(m, 4, 8), 0); /* holes already */
}

/* A limit on file sizes is the one way to have a write(2) cut short. */
static void write_beyond_the_file_limit(const struct space_mem *m)
{
	static uint8_t bytes[8 * PAGE_BYTES];
	struct rlimit lim = { 5 * PAGE_BYTES, 5 * PAGE_BYTES };

	(void)signal(SIGXFSZ, SIG_IGN);
	fill(bytes, 8);
	if (setrlimit(RLIMIT_FSIZE, &lim) < 0)
		_exit(2);
	_exit(space_mem_write(m, 0, 8, bytes) == -EFBIG &&
	                      space_mem_write(m, 0, 5, bytes) == 0 ?
	              0 :
	              1);
}

static void a_write_cut_short_goes_on_or_says_why(void **state)
{
	struct space_mem *m = *state;

	assert_int_equal(in_a_fork(write_beyond_the_file_limit, m), 0);
	assert_int_equal(space_mem_resident(m), 5 * PAGE_BYTES);
	assert_int_equal(space_mem_page(m, 4)[0], 5);
}

static void touch_alias(const struct space_mem *m)
{
	*(volatile uint8_t *)space_mem_page(m, 0) = 1;
}

static void a_child_does_not_have_the_alias(void **state)
{
	struct space_mem *m = *state;
	int status = in_a_fork(touch_alias, m);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	assert_int_equal(space_mem_resident(m), 0);
}

static void write_outside(const struct space_mem *m)
{
	static uint8_t bytes[2 * PAGE_BYTES];

	(void)space_mem_write(m, PAGES - 1, 2, bytes);
}

static void punch_outside(const struct space_mem *m)
{
	(void)space_mem_punch(m, PAGES, 1);
}

static void a_run_outside_is_a_bug_of_ours(void **state)
{
	int status = in_a_fork(write_outside, *state);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	status = in_a_fork(punch_outside, *state);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void sizes_are_whole_pages(void **state)
{
	struct space_mem m = { .fd = -1 };
	struct errmsg em;

	(void)state;
	assert_int_equal(space_mem_init("x", 0, &m, &em), -EINVAL);
	assert_int_equal(space_mem_init("x", 100, &m, &em), -EINVAL);
	assert_int_equal(space_mem_init("x", 1ull << 63, &m, &em), -EINVAL);
	assert_non_null(strstr(em.text, "space x"));
	assert_int_equal(m.fd, -1);
	space_mem_done(&m);
}

static void too_large_is_refused_with_a_reason(void **state)
{
	struct space_mem m = { .fd = -1 };
	struct errmsg em = { .text = "" };

	(void)state;
	/* More than an address space holds. */
	assert_true(space_mem_init("x", 1ull << 62, &m, &em) < 0);
	assert_true(em.text[0] != '\0');
	assert_int_equal(m.fd, -1);
}

/* --- the pool ---------------------------------------------------------- */

static void frames_are_taken_until_there_are_none(void **state)
{
	AUTO(frame_pool_free) struct frame_pool *p = NULL;
	uint8_t seen[5] = { 0 };

	(void)state;
	assert_int_equal(frame_pool_new(4, &p, NULL), 0);
	assert_int_equal(frame_free_count(p), 4);
	for (int i = 0; i < 4; i++) {
		uint32_t frame = frame_take(p);

		assert_in_range(frame, 1, 4);
		assert_int_equal(seen[frame]++, 0);
	}
	assert_int_equal(frame_take(p), FRAME_NONE);
	assert_int_equal(frame_free_count(p), 0);
	frame_give(p, 3);
	assert_int_equal(frame_free_count(p), 1);
	assert_int_equal(frame_take(p), 3);
	assert_int_equal(frame_take(p), FRAME_NONE);
}

static void frames_do_not_overlap(void **state)
{
	AUTO(frame_pool_free) struct frame_pool *p = NULL;

	(void)state;
	assert_int_equal(frame_pool_new(64, &p, NULL), 0);
	for (uint32_t i = 1; i <= 64; i++)
		memset(frame_bytes(p, i), (int)i, PAGE_BYTES);
	for (uint32_t i = 1; i <= 64; i++) {
		assert_int_equal(frame_bytes(p, i)[0], i);
		assert_int_equal(frame_bytes(p, i)[PAGE_BYTES - 1], i);
	}
}

static void the_pool_is_there_from_the_start(void **state)
{
	AUTO(frame_pool_free) struct frame_pool *p = NULL;
	unsigned char in[300];
	struct stat st;

	(void)state;
	assert_int_equal(frame_pool_new(300, &p, NULL), 0);
	assert_int_equal(fstat(frame_pool_fd(p), &st), 0);
	assert_int_equal(st.st_blocks * 512, 300 * PAGE_BYTES);
	assert_int_equal(mincore(frame_bytes(p, 1), 300 * PAGE_BYTES, in), 0);
	for (int i = 0; i < 300; i++)
		assert_int_equal(in[i] & 1, 1);
	assert_int_equal(ftruncate(frame_pool_fd(p), 0), -1);
}

static void give_twice(const struct space_mem *m)
{
	struct frame_pool *p = NULL;
	uint32_t frame;

	(void)m;
	if (frame_pool_new(2, &p, NULL) < 0)
		_exit(0);
	frame = frame_take(p);
	frame_give(p, frame);
	frame_give(p, frame);
}

static void give_untaken(const struct space_mem *m)
{
	struct frame_pool *p = NULL;

	(void)m;
	if (frame_pool_new(2, &p, NULL) == 0)
		frame_give(p, 1);
}

static void giving_what_was_not_taken_is_a_bug_of_ours(void **state)
{
	int status = in_a_fork(give_twice, NULL);

	(void)state;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	status = in_a_fork(give_untaken, NULL);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void pool_without_a_right_to_lock(const struct space_mem *m)
{
	struct rlimit none = { 0, 0 };
	struct frame_pool *p = NULL;

	(void)m;
	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 ||
	    (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
		_exit(2);
	if (mlock(&none, 1) == 0)
		_exit(77);
	if (frame_pool_new(8, &p, NULL) < 0)
		_exit(3);
	memset(frame_bytes(p, frame_take(p)), 1, PAGE_BYTES);
	_exit(frame_pool_locked(p) ? 1 : 0);
}

static void without_a_right_to_lock_it_works_and_says_so(void **state)
{
	int status = in_a_fork(pool_without_a_right_to_lock, NULL);
	AUTO(frame_pool_free) struct frame_pool *p = NULL;

	(void)state;
	assert_true(WIFEXITED(status));
	/* AddressSanitizer makes mlock(2) do nothing, and succeed. */
	assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
	assert_int_equal(frame_pool_new(8, &p, NULL), 0);
	assert_true(frame_pool_locked(p)); /* 8 pages: any limit allows it */
}

static void an_empty_or_endless_pool_is_refused(void **state)
{
	struct frame_pool *p = NULL;
	struct errmsg em = { .text = "" };

	(void)state;
	assert_int_equal(frame_pool_new(0, &p, &em), -EINVAL);
	assert_null(p);
	assert_true(em.text[0] != '\0');
	assert_null(frame_pool_free(NULL));
}

#define WITH_SPACE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SPACE(a_new_space_takes_no_memory),
		WITH_SPACE(nobody_can_change_its_size),
		WITH_SPACE(what_is_written_shows_in_the_alias),
		WITH_SPACE(punching_gives_memory_back_and_leaves_the_rest),
		WITH_SPACE(a_write_cut_short_goes_on_or_says_why),
		WITH_SPACE(a_child_does_not_have_the_alias),
		WITH_SPACE(a_run_outside_is_a_bug_of_ours),
		cmocka_unit_test(sizes_are_whole_pages),
		cmocka_unit_test(too_large_is_refused_with_a_reason),
		cmocka_unit_test(frames_are_taken_until_there_are_none),
		cmocka_unit_test(frames_do_not_overlap),
		cmocka_unit_test(the_pool_is_there_from_the_start),
		cmocka_unit_test(giving_what_was_not_taken_is_a_bug_of_ours),
		cmocka_unit_test(without_a_right_to_lock_it_works_and_says_so),
		cmocka_unit_test(an_empty_or_endless_pool_is_refused),
	};

	return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
