/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmemspan against a node of its own making (fake_node.h), over real
 * userfaultfds: the memory, prefetch, discard, detach.  The ways for an attach
 * to fail are test_attach.c's, what happens when the node goes away is
 * test_fence.c's.
 *
 * Each test of the memory runs in both modes: with MINOR, and with markers, as
 * on kernels before Linux 6.4.
 */

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#include "victim.h" /* includes cmocka.h, which wants much before it */

#include "client/client.h"
#include "fake_node.h"

#define PAGES    64u
#define DISCARDS 100u /* more than CLIENT_WAITS: some take turns */

static struct fake_node node;

static int stop_node(void **state)
{
	(void)state;
	fake_stop(&node);
	return 0;
}

static void start_node(void)
{
	const struct fake_options opt = { .bytes = PAGES * PAGE_BYTES };

	fake_start(&node, &opt);
}

static void start_sized(uint64_t bytes, bool markers)
{
	const struct fake_options opt = { .bytes = bytes, .markers = markers };

	fake_start(&node, &opt);
}

/* --- the memory -------------------------------------------------------- */

static void reads_and_writes(bool markers)
{
	struct memspan *m;

	start_sized(PAGES * PAGE_BYTES, markers);
	m = attach_to(&node);
	assert_non_null(m);
	assert_int_equal(memspan_bytes(m), PAGES * PAGE_BYTES);
	assert_int_equal((uintptr_t)memspan_addr(m) % PAGE_BYTES, 0);
	assert_int_equal(memspan_node(m), FAKE_NODE);
	assert_int_equal(memspan_space(m), FAKE_ID);
	for (gpn_t p = 0; p < PAGES; p++)
		assert_int_equal(*byte_of(m, p), fake_byte(p));
	for (gpn_t p = 0; p < PAGES; p++)
		*byte_of(m, p) = (uint8_t)(200 - p);
	for (gpn_t p = 0; p < PAGES; p++)
		assert_int_equal(*byte_of(m, p), 200 - p);
	assert_int_equal(byte_of(m, 3)[PAGE_BYTES - 1], fake_byte(3));
	assert_int_equal(node.counts->missing, PAGES);
	assert_int_equal(node.counts->wp, PAGES);
	memspan_detach(m);
	assert_int_equal(node.counts->detached, 1);
}

static void a_space_is_memory(void **state)
{
	(void)state;
	reads_and_writes(false);
}

static void a_space_is_memory_with_markers(void **state)
{
	(void)state;
	reads_and_writes(true);
}

static void two_attachments_are_one_memory(bool markers)
{
	struct memspan *a, *b;

	if (!markers && !fake_can_minor())
		skip();
	start_sized(PAGES * PAGE_BYTES, markers);
	a = attach_to(&node);
	b = attach_to(&node);
	assert_ptr_not_equal(memspan_addr(a), memspan_addr(b));
	*byte_of(a, 1) = 111;
	assert_int_equal(*byte_of(b, 1), 111);
	assert_int_equal(*byte_of(a, 2), fake_byte(2)); /* read-only now */
	*byte_of(b, 2) = 112;
	assert_int_equal(*byte_of(a, 2), 112);
	memspan_detach(a);
	assert_int_equal(*byte_of(b, 1), 111);
	assert_int_equal(*byte_of(b, 9), fake_byte(9)); /* is still served */
	memspan_detach(b);
	assert_int_equal(node.counts->detached, 2);
}

static void a_space_attached_twice_is_one_memory(void **state)
{
	(void)state;
	two_attachments_are_one_memory(false);
}

static void a_space_attached_twice_is_one_memory_with_markers(void **state)
{
	(void)state;
	two_attachments_are_one_memory(true);
}

/* The fake refuses faults that come by the wrong stripe's descriptor. */
static void stripes_of_any_size_are_cut_as_the_node_cuts(void **state)
{
	static const uint64_t pages[] = {
		1, 511, 1023, 1024, 2563, 5000, 131329
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		uint64_t bytes = pages[i] * PAGE_BYTES;
		struct memspan *m;

		start_sized(bytes, false);
		m = attach_to(&node);
		assert_non_null(m);
		for (gpn_t p = 0; p < pages[i]; p++)
			/* Both sides of each border, and both ends. */
			if (p == 0 || p + 1 == pages[i] ||
			    fake_stripe(bytes, p) !=
			            fake_stripe(bytes, p - 1) ||
			    fake_stripe(bytes, p) != fake_stripe(bytes, p + 1))
				assert_int_equal(*byte_of(m, p), fake_byte(p));
		assert_int_equal(node.counts->wrong_stripe, 0);
		memspan_detach(m);
		fake_stop(&node);
	}
}

/* Where mmap(2) was told to put it, and with the access that it was told. */
static void a_part_of_a_space_is_mapped_where_it_shall_be(void **state)
{
	const uint64_t space = 24u << 20, page = 769, pages = 1500;
	struct client_part part = { .offset = page * PAGE_BYTES,
		                    .bytes = pages * PAGE_BYTES,
		                    .flags = MAP_FIXED,
		                    .prot = PROT_READ };
	const struct client_options opt = { .node_socket = node.path,
		                            .space = FAKE_SPACE,
		                            .part = &part };
	struct memspan *m = NULL;
	struct errmsg em;
	struct stat st;

	(void)state;
	start_sized(space, false);
	assert_int_equal(fstat(node.memory, &st), 0);
	part.dev = st.st_dev;
	part.ino = st.st_ino;
	part.addr = mmap(NULL, part.bytes, PROT_NONE,
	                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(part.addr, MAP_FAILED);
	assert_int_equal(client_attach(&opt, &m, &em), 0);
	assert_ptr_equal(memspan_addr(m), part.addr);
	assert_int_equal(memspan_bytes(m), part.bytes);
	assert_int_equal(m->stripes, 3); /* of six, 1024 pages each */
	for (gpn_t p = 0; p < pages; p += 37)
		assert_int_equal(*byte_of(m, p), fake_byte(page + p));
	assert_int_equal(*byte_of(m, pages - 1), fake_byte(page + pages - 1));
	assert_int_equal(node.counts->wrong_stripe, 0);
	assert_int_equal(
		client_discard(m, part.offset + PAGE_BYTES, PAGE_BYTES), 0);
	assert_int_equal(*byte_of(m, 1), 0);
	memspan_detach(m);
	assert_int_equal(node.counts->detached, 1);
}

static void a_part_of_another_memory_is_refused(void **state)
{
	struct client_part part = { .bytes = PAGE_BYTES, .prot = PROT_READ };
	const struct client_options opt = { .node_socket = node.path,
		                            .space = FAKE_SPACE,
		                            .part = &part };
	struct memspan *m = NULL;
	struct errmsg em;
	struct stat st;

	(void)state;
	start_node();
	assert_int_equal(client_attach(&opt, &m, &em), -ESTALE);
	assert_non_null(strstr(em.text, "made anew"));
	assert_int_equal(fstat(node.memory, &st), 0);
	part.dev = st.st_dev;
	part.ino = st.st_ino;
	part.offset = PAGES * PAGE_BYTES;
	assert_int_equal(client_attach(&opt, &m, &em), -EINVAL);
	assert_non_null(strstr(em.text, "beyond the end"));
	assert_int_equal(node.counts->mapped, 0);
}

static void who_opens_a_space_gets_its_memory(void **state)
{
	struct client_opened got = { .memory = -1 };
	struct stat own, theirs;
	struct errmsg em;

	(void)state;
	start_node();
	assert_int_equal(client_open(node.path, FAKE_SPACE, &got, &em), 0);
	assert_int_equal(got.bytes, PAGES * PAGE_BYTES);
	assert_int_equal(fstat(node.memory, &own), 0);
	assert_int_equal(fstat(got.memory, &theirs), 0);
	assert_int_equal(own.st_ino, theirs.st_ino);
	assert_int_equal(node.counts->hung_up, 0);
	close(got.memory);
	close(got.sock);
	assert_true(reaches(&node.counts->hung_up, 1));
}

static void notes_of_the_node_are_there_to_read(void **state)
{
	struct memspan *m;

	(void)state;
	start_node();
	m = attach_to(&node);
	node.notes->slot[(uint32_t)gettid() % LOCAL_NOTES] = 0x23;
	assert_int_equal(memspan_note(m), 0x23);
	assert_int_equal(memspan_notes(m)->total[0][1], 0);
	assert_true(memspan_lease(m)->end_ns > now_ns());
	memspan_detach(m);
}

/* --- prefetch and discard ---------------------------------------------- */

static void prefetch_is_checked_and_sent_in_whole_pages(void **state)
{
	struct memspan *m;
	int r;

	(void)state;
	start_node();
	m = attach_to(&node);
	assert_int_equal(memspan_prefetch(m, PAGES * PAGE_BYTES, 1), -EINVAL);
	assert_int_equal(memspan_prefetch(m, 1, SIZE_MAX), -EINVAL);
	assert_int_equal(memspan_prefetch(m, SIZE_MAX, 1), -EINVAL);
	assert_int_equal(memspan_prefetch(m, PAGES * PAGE_BYTES, 0), 0);
	assert_int_equal(memspan_prefetch(m, PAGE_BYTES + 1, PAGE_BYTES), 0);
	assert_true(reaches(&node.counts->prefetches, 1));
	assert_int_equal(node.counts->offset, PAGE_BYTES);
	assert_int_equal(node.counts->bytes, 2 * PAGE_BYTES);
	/* A node that does not read fills the queue. */
	kill(node.pid, SIGSTOP);
	waitpid(node.pid, NULL, WUNTRACED);
	do
		r = memspan_prefetch(m, 0, 1);
	while (r == 0);
	assert_int_equal(r, -EAGAIN);
	kill(node.pid, SIGCONT);
	memspan_detach(m);
}

static void discard_makes_zeros(bool markers)
{
	struct memspan *m;

	start_sized(PAGES * PAGE_BYTES, markers);
	m = attach_to(&node);
	for (gpn_t p = 0; p < PAGES; p++)
		*byte_of(m, p) = 99;
	assert_int_equal(memspan_discard(m, PAGE_BYTES, 2 * PAGE_BYTES), 0);
	assert_int_equal(*byte_of(m, 0), 99);
	assert_int_equal(*byte_of(m, 1), 0);
	assert_int_equal(*byte_of(m, 2), 0);
	assert_int_equal(*byte_of(m, 3), 99);
	*byte_of(m, 1) = 98;
	assert_int_equal(*byte_of(m, 1), 98);
	assert_int_equal(memspan_discard(m, 1, PAGE_BYTES), -EINVAL);
	assert_int_equal(memspan_discard(m, 0, 1), -EINVAL);
	assert_int_equal(memspan_discard(m, 0, (PAGES + 1) * PAGE_BYTES),
	                 -EINVAL);
	assert_int_equal(memspan_discard(m, (size_t)0 - PAGE_BYTES,
	                                 2 * PAGE_BYTES),
	                 -EINVAL);
	assert_int_equal(memspan_discard(m, 0, 0), 0);
	assert_int_equal(node.counts->discards, 1);
	memspan_detach(m);
}

static void discarded_pages_are_zeros(void **state)
{
	(void)state;
	discard_makes_zeros(false);
}

static void discarded_pages_are_zeros_with_markers(void **state)
{
	(void)state;
	discard_makes_zeros(true);
}

static void *discard_one(void *arg)
{
	static _Atomic uint32_t next;
	size_t page = atomic_fetch_add(&next, 1) % PAGES;

	return (void *)(intptr_t)memspan_discard(arg, page * PAGE_BYTES,
	                                         PAGE_BYTES);
}

static void each_discard_gets_its_own_answer(void **state)
{
	pthread_t t[DISCARDS];
	struct memspan *m;

	(void)state;
	start_node();
	m = attach_to(&node);
	kill(node.pid, SIGSTOP); /* so that all are under way at once */
	waitpid(node.pid, NULL, WUNTRACED);
	for (unsigned i = 0; i < DISCARDS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, discard_one, m),
		                 0);
	while (m->waits[CLIENT_WAITS - 1].state != WAIT_SENT)
		a_moment();
	kill(node.pid, SIGCONT);
	for (unsigned i = 0; i < DISCARDS; i++) {
		void *r = &t;

		assert_int_equal(pthread_join(t[i], &r), 0);
		assert_null(r);
	}
	assert_int_equal(node.counts->discards, DISCARDS);
	memspan_detach(m);
}

static void a_refused_discard_says_what_the_node_says(void **state)
{
	const struct fake_options opt = { .bytes = PAGES * PAGE_BYTES,
		                          .discard_error = -EAGAIN };
	struct memspan *m;

	(void)state;
	fake_start(&node, &opt);
	m = attach_to(&node);
	assert_int_equal(memspan_discard(m, 0, PAGE_BYTES), -EAGAIN);
	memspan_detach(m);
}

/* --- what a process does around it ------------------------------------- */

static void detach_leaves_nothing_behind(void **state)
{
	unsigned fds = count_dir("/proc/self/fd");
	unsigned threads = count_dir("/proc/self/task");
	struct memspan *m;

	(void)state;
	start_sized(16 << 20, !fake_can_minor());
	fds += 1; /* the fake's memfd, which we keep */
	for (int i = 0; i < 20; i++) {
		m = attach_to(&node);
		assert_non_null(m);
		assert_int_equal(*byte_of(m, 5), fake_byte(5));
		assert_true(count_dir("/proc/self/fd") > fds);
		memspan_detach(m);
		assert_int_equal(count_dir("/proc/self/fd"), fds);
		assert_true(dir_comes_to("/proc/self/task", threads));
	}
	memspan_detach(NULL);
	assert_true(reaches(&node.counts->hung_up, 20));
}

static void descriptors_are_out_of_the_programs_way(void **state)
{
	struct memspan *m;
	int before = dup(0), after;

	(void)state;
	start_node();
	m = attach_to(&node);
	close(before);
	after = dup(0);
	assert_int_equal(after, before);
	assert_true(m->sock > 100 && m->uffd[0] > 100);
	close(after);
	memspan_detach(m);
}

static const char *locked_in_advance(struct scene *s)
{
	struct memspan *m;

	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		return NULL; /* not allowed here */
	m = attach_to(&node);
	if (!m)
		return "cannot attach under mlockall";
	if (fake_resident(s->node) != 0)
		return "attaching made pages that nobody ordered";
	if (*byte_of(m, 4) != fake_byte(4))
		return "the page was not served";
	memspan_detach(m);
	return NULL;
}

static void mlockall_before_the_attach_makes_no_pages(void **state)
{
	(void)state;
	start_node();
	victim_runs(locked_in_advance, &node);
}

static const char *parent_and_child(struct scene *s)
{
	struct memspan *m = attach_to(&node);
	int status = 0;
	pid_t pid;

	if (!m || *byte_of(m, 0) != fake_byte(0))
		return "attach";
	pid = fork();
	if (pid == 0) {
		if (memspan_discard(m, 0, PAGE_BYTES) != -ENOTCONN ||
		    memspan_prefetch(m, 0, 1) != -ENOTCONN)
			_exit(1);
		s->step = 1;
		signal(SIGSEGV, SIG_DFL); /* a sanitizer may catch it */
		s->survived = *byte_of(m, 0);
		_exit(2);
	}
	waitpid(pid, &status, 0);
	if (s->step != 1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
		return "a child touched the space";
	pid = fork();
	if (pid == 0) {
		memspan_detach(m);
		exit(0); /* with atexit() and all */
	}
	waitpid(pid, &status, 0);
	if (status != 0)
		return "a child could not detach";
	if (*byte_of(m, 1) != fake_byte(1) ||
	    memspan_discard(m, 0, PAGE_BYTES) != 0)
		return "the parent lost the space by it";
	memspan_detach(m);
	return NULL;
}

static void a_forked_child_has_no_part_in_it(void **state)
{
	(void)state;
	start_node();
	victim_runs(parent_and_child, &node);
	assert_int_equal(node.counts->detached, 1);
	assert_int_equal(node.counts->prefetches, 0);
}

#define TEST(f) cmocka_unit_test_teardown(f, stop_node)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_space_is_memory),
		TEST(a_space_is_memory_with_markers),
		TEST(a_space_attached_twice_is_one_memory),
		TEST(a_space_attached_twice_is_one_memory_with_markers),
		TEST(stripes_of_any_size_are_cut_as_the_node_cuts),
		TEST(a_part_of_a_space_is_mapped_where_it_shall_be),
		TEST(a_part_of_another_memory_is_refused),
		TEST(who_opens_a_space_gets_its_memory),
		TEST(notes_of_the_node_are_there_to_read),
		TEST(prefetch_is_checked_and_sent_in_whole_pages),
		TEST(discarded_pages_are_zeros),
		TEST(discarded_pages_are_zeros_with_markers),
		TEST(each_discard_gets_its_own_answer),
		TEST(a_refused_discard_says_what_the_node_says),
		TEST(detach_leaves_nothing_behind),
		TEST(descriptors_are_out_of_the_programs_way),
		TEST(mlockall_before_the_attach_makes_no_pages),
		TEST(a_forked_child_has_no_part_in_it),
	};

	start_first_thread();
	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
