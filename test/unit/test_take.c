/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages from clients that write to them meanwhile loses nothing.
 *
 * Two clients of one space hammer eight pages: threads that increment shared
 * counters atomically, a thread that checks that its own word is what it wrote,
 * one into whose page the kernel writes (read(2) from a pipe), and one that
 * drops its own mappings.  The test is a small node with no network: it takes
 * pages (protect in both clients, read the alias, punch), turns them read-only,
 * and gives them back when somebody faults.  In the end every counter must be
 * exact.
 *
 * Bounded by the number of takes ($MEMSPAN_TEST_TAKES), not by time.
 */

#include "uffd_fixture.h"

#include <time.h>

#define HAMMERED 8u
#define CLIENTS  2u

/* Work of a client, by worker. */
enum {
	WORK_ADD_0,
	WORK_ADD_1,
	WORK_ADD_2,
	WORK_OWN_WORD,
	WORK_KERNEL_WRITE,
	WORK_DROP,
	WORKERS,
};

/* Words of a page: 0 is the counter; each client has others to itself. */
#define WORD_OWN    64u
#define WORD_KERNEL 128u

/* Shared by test and clients, made before they are forked. */
struct take_shared {
	_Atomic bool stop;
	_Atomic uint64_t added[CLIENTS][3];
};

static struct take_shared *shared;

enum page_state { AWAY, READ_ONLY, WRITABLE };

struct taker {
	struct fixture *f;
	struct frame_pool *pool; /* a frame for each page that is away */
	uint32_t frame[HAMMERED];
	enum page_state state[HAMMERED];
	nsec_t installed[HAMMERED];
	uint32_t random;
	uint64_t takes, gives, upgrades;
};

static uint32_t next_random(uint32_t *r)
{
	*r = *r * 1103515245u + 12345u;
	return *r >> 16;
}

/* --- in the clients ---------------------------------------------------- */

static long cl_add(struct client *c, long id, long worker)
{
	uint32_t r = (uint32_t)(id * 3 + worker + 1);
	uint64_t n = 0;

	while (!shared->stop) {
		__atomic_fetch_add(cl_at(c, next_random(&r) % HAMMERED), 1,
		                   __ATOMIC_SEQ_CST);
		n++;
	}
	shared->added[id][worker] = n;
	return 0;
}

/* Returns how often the word was not what was written to it. */
static long cl_own_word(struct client *c, long id, long page)
{
	volatile uint64_t *word = cl_at(c, page) + WORD_OWN + id;
	uint64_t v = 0;
	long wrong = 0;

	while (!shared->stop) {
		*word = ++v;
		for (volatile int i = 0; i < 20; i++)
			;
		wrong += *word != v;
	}
	return wrong;
}

static long cl_kernel_write(struct client *c, long id, long page)
{
	volatile uint64_t *word = cl_at(c, page) + WORD_KERNEL + id;
	uint64_t v = 0;
	long wrong = 0;
	int fd[2];

	if (pipe(fd) < 0)
		return -1;
	while (!shared->stop) {
		v++;
		if (write(fd[1], &v, sizeof(v)) != (ssize_t)sizeof(v) ||
		    read(fd[0], (void *)(uintptr_t)word, sizeof(v)) !=
		            (ssize_t)sizeof(v))
			return -1;
		wrong += *word != v;
	}
	return wrong;
}

/* Drop a page and come back to it, which paces it. */
static long cl_drop(struct client *c, long id, long b)
{
	uint32_t r = (uint32_t)id;

	(void)b;
	while (!shared->stop) {
		const long page = next_random(&r) % HAMMERED;

		if (cl_dontneed(c, page, 1) < 0)
			return -errno;
		(void)cl_read(c, page, 0);
	}
	return 0;
}

/* --- the node ---------------------------------------------------------- */

static nsec_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

/* Take a page, or leave it with its readers. */
static void take(struct taker *t, gpn_t page, bool leave_readers)
{
	struct fixture *f = t->f;

	for (unsigned i = 0; i < CLIENTS; i++) {
		struct uffd_run r = run_of(page, 1);

		assert_int_equal(uffd_protect(f->u[i], &r), UFFD_DONE);
	}
	if (leave_readers) {
		t->state[page] = READ_ONLY;
		return;
	}
	t->frame[page] = frame_take(t->pool);
	assert_true(t->frame[page] != FRAME_NONE);
	memcpy(frame_bytes(t->pool, t->frame[page]),
	       space_mem_page(&f->mem, page), PAGE_BYTES);
	assert_int_equal(space_mem_punch(&f->mem, page, 1), 0);
	t->state[page] = AWAY;
	t->takes++;
}

/* Answer a fault of client `i` by the table, and by nothing else [A3]. */
static void give(struct taker *t, unsigned i, const struct uffd_fault *fault)
{
	struct fixture *f = t->f;
	struct uffd_run r = run_of(fault->page, 1);
	const gpn_t p = fault->page;

	assert_true(p < HAMMERED);
	t->gives++;
	if (t->state[p] == AWAY) {
		const bool reader =
			!fault->write && next_random(&t->random) % 2 == 0;

		assert_int_equal(uffd_copy(f->u[i], &r,
		                           frame_bytes(t->pool, t->frame[p]),
		                           reader ? UFFD_WP : 0),
		                 UFFD_DONE);
		frame_give(t->pool, t->frame[p]);
		t->state[p] = reader ? READ_ONLY : WRITABLE;
		t->installed[p] = now();
		return;
	}
	if (t->state[p] == READ_ONLY && fault->write) {
		t->state[p] = WRITABLE;
		t->upgrades++;
	}
	if (!f->markers)
		assert_int_equal(
			uffd_continue(f->u[i], &r,
		                      t->state[p] == READ_ONLY ? UFFD_WP : 0),
			UFFD_DONE);
	if (t->state[p] == WRITABLE)
		assert_int_equal(uffd_unprotect(f->u[i], &r, 0), UFFD_DONE);
	assert_int_equal(uffd_wake(f->u[i], p, 1), UFFD_DONE);
}

static void serve(struct taker *t)
{
	struct uffd_fault got[UFFD_BATCH];

	for (unsigned i = 0; i < CLIENTS; i++) {
		int n = uffd_read(t->f->u[i], got);

		assert_true(n >= 0);
		for (int k = 0; k < n; k++)
			give(t, i, &got[k]);
	}
}

static void take_one(struct taker *t)
{
	const uint32_t r = next_random(&t->random);
	const gpn_t page = r % HAMMERED;
	const nsec_t residency = 60 * NSEC_PER_USEC;

	if (t->state[page] != AWAY && now() - t->installed[page] > residency)
		take(t, page, (r >> 8) % 4 == 0);
}

static void start_hammering(struct fixture *f)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &f->c[i];

		client_call(c, WORK_ADD_0, cl_add, (long)i, 0);
		client_call(c, WORK_ADD_1, cl_add, (long)i, 1);
		client_call(c, WORK_ADD_2, cl_add, (long)i, 2);
		client_call(c, WORK_OWN_WORD, cl_own_word, (long)i, 4);
		client_call(c, WORK_KERNEL_WRITE, cl_kernel_write, (long)i, 2);
		client_call(c, WORK_DROP, cl_drop, (long)i, 0);
	}
}

/* Go on serving until every worker is through; none may report a loss. */
static void stop_hammering(struct taker *t)
{
	unsigned left = 0;

	shared->stop = true;
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned w = 0; w < WORKERS; w++) {
			while (!client_through(&t->f->c[i], w, 0))
				serve(t);
			assert_int_equal(client_result(&t->f->c[i], w), 0);
			left++;
		}
	assert_int_equal(left, CLIENTS * WORKERS);
}

static void assert_exact(struct taker *t)
{
	uint64_t want = 0, have = 0;

	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned w = 0; w < 3; w++)
			want += shared->added[i][w];
	for (gpn_t p = 0; p < HAMMERED; p++) {
		uint64_t word;

		memcpy(&word,
		       t->state[p] == AWAY ? frame_bytes(t->pool, t->frame[p]) :
		                             space_mem_page(&t->f->mem, p),
		       sizeof(word));
		have += word;
	}
	print_message("# %llu increments, %llu takes, %llu faults, "
	              "%llu upgrades\n",
	              (unsigned long long)want, (unsigned long long)t->takes,
	              (unsigned long long)t->gives,
	              (unsigned long long)t->upgrades);
	assert_true(want > 0);
	assert_int_equal(have, want);
}

static uint64_t takes_wanted(void)
{
	const char *text = getenv("MEMSPAN_TEST_TAKES");

	return text != NULL ? strtoull(text, NULL, 10) : 3000;
}

static void no_write_is_lost_when_pages_are_taken(void **state)
{
	struct fixture *f = *state;
	struct taker t = { .f = f, .random = 1 };
	const uint64_t wanted = takes_wanted();

	if (!f->markers && !f->features.minor_wp)
		skip(); /* such a kernel is driven by markers alone */
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
	              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	assert_int_equal(frame_pool_new(HAMMERED, &t.pool, NULL), 0);
	for (gpn_t p = 0; p < HAMMERED; p++) { /* at first: zeros, away */
		t.frame[p] = frame_take(t.pool);
		memset(frame_bytes(t.pool, t.frame[p]), 0, PAGE_BYTES);
	}
	client_stop(&f->c[0]); /* it was forked before there was `shared` */
	f->u[0] = uffd_free(f->u[0]);
	attach(f, 0, 0);
	attach(f, 1, 0);

	start_hammering(f);
	while (t.takes < wanted) {
		serve(&t);
		take_one(&t);
	}
	stop_hammering(&t);
	assert_exact(&t);
	frame_pool_free(t.pool);
	(void)munmap(shared, sizeof(*shared));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(no_write_is_lost_when_pages_are_taken),
	};

	if (!client_possible()) {
		puts("1..0 # SKIP this user may not open a userfaultfd");
		return 0;
	}
	return cmocka_run_group_tests_name("take", tests, NULL, NULL);
}
