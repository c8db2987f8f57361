/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence of libmemspan: what a process sees of a node that dies, stops,
 * comes back or ends it.  Each victim is a process of its own; the node is
 * fake_node.h's, and the test writes its lease.
 *
 * Pages are never born as zeros here, so any zero that is read is the kernel's
 * filling of a hole that nobody watches, the one thing that must not be.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "victim.h" /* includes cmocka.h, which wants much before it */

#include "client/client.h"
#include "fake_node.h"

#define PAGES   256u
#define SOON_NS (10 * NSEC_PER_SEC) /* only a bug takes as long */

static struct fake_node node;

/* Times are no promise where the machine is emulated. */
static bool is_slow(void)
{
	return getenv("MEMSPAN_TEST_SLOW") != NULL;
}

/* How long the end may take after the node is gone. */
static uint64_t within_ns(void)
{
	return is_slow() ? SOON_NS : NSEC_PER_SEC;
}

static int stop_node(void **state)
{
	(void)state;
	if (node.pid > 0)
		kill(node.pid, SIGCONT);
	fake_stop(&node);
	return 0;
}

static void start_node(bool markers)
{
	const struct fake_options opt = { .bytes = PAGES * PAGE_BYTES,
		                          .markers = markers };

	fake_start(&node, &opt);
}

static void stop(struct fake_node *n)
{
	int status;

	kill(n->pid, SIGSTOP);
	assert_int_equal(waitpid(n->pid, &status, WUNTRACED), n->pid);
	assert_true(WIFSTOPPED(status));
}

/* --- the node dies ----------------------------------------------------- */

struct toucher {
	struct memspan *m;
	struct scene *s;
	gpn_t page;
	pthread_t thread;
};

/* An access that must not come through; but if it does, let us see what. */
static void *touch(void *arg)
{
	struct toucher *t = arg;
	uint8_t byte = *byte_of(t->m, t->page);

	if (byte == 0)
		t->s->zeros++;
	t->s->survived++;
	return NULL;
}

/* read(2) into the space: the kernel faults for us. */
static void *fill_from_pipe(void *arg)
{
	struct toucher *t = arg;
	uint8_t *to = (uint8_t *)memspan_addr(t->m) + t->page * PAGE_BYTES;
	int p[2];

	if (pipe(p) < 0 || write(p[1], "xy", 2) != 2)
		return NULL;
	if (read(p[0], to + 1, 1) != 1 || to[0] == 0)
		t->s->zeros++;
	t->s->survived++;
	return NULL;
}

static void start_toucher(struct toucher *t, void *(*how)(void *),
                          struct memspan *m, struct scene *s, gpn_t page)
{
	*t = (struct toucher){ .m = m, .s = s, .page = page };
	if (pthread_create(&t->thread, NULL, how, t) != 0)
		s->complaint = "no thread";
}

/* Threads in a fault, in read(2), and such that touch when all is over. */
static const char *caught_in_every_way(struct scene *s, struct memspan *m)
{
	struct toucher t[2];

	for (gpn_t p = 0; p < 8; p++)
		if (*byte_of(m, p) != fake_byte(p))
			return "wrong bytes";
	s->step = 1;
	if (!reaches(&s->go, 1)) /* the node holds faults from now on */
		return "no word from the test";
	start_toucher(&t[0], touch, m, s, 10);
	start_toucher(&t[1], fill_from_pipe, m, s, 11);
	while (s->go < 2) /* bytes seen before stay right to the end */
		if (*byte_of(m, 3) != fake_byte(3))
			s->zeros++;
	for (gpn_t p = 20; p < PAGES; p++)
		if (*byte_of(m, p) != fake_byte(p)) {
			s->zeros++;
			break;
		}
	s->survived++;
	return "it survived the node";
}

static const char *a_bystander(struct scene *s)
{
	struct memspan *m = attach_to(&node);

	return m ? caught_in_every_way(s, m) : "attach";
}

/* As above, but all that a program may do to live longer, or to see zeros. */
static const char *a_careless_one(struct scene *s)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct memspan *m = attach_to(&node);

	if (!m)
		return "attach";
	sigaction(SIGBUS, &ignore, NULL);
	prctl(PR_SET_DUMPABLE, 0);
	/* After this the kernel fills holes with zeros once the node is dead,
	 * unless somebody else holds the userfaultfds [A13].  A poll that holds
	 * them must not have to start anew, so make it. */
	close_range(3, ~0u, 0);
	for (int i = 0; i < 1100; i++) {
		fake_lease(&node, 20 * NSEC_PER_MSEC);
		a_moment();
	}
	fake_lease(&node, 3600 * NSEC_PER_SEC);
	return caught_in_every_way(s, m);
}

static void kill_under(story_fn story, bool markers)
{
	struct victim v;

	start_node(markers || !fake_can_minor());
	victim_start(&v, story, &node);
	victim_reaches(&v, 1);
	node.counts->hold = 1;
	v.scene->go = 1;
	assert_true(reaches(&node.counts->held, 2));
	fake_kill(&node);
	v.scene->go = 2;
	victim_dies_by(&v, SIGBUS, within_ns());
	victim_done(&v);
}

static void a_dead_node_ends_who_waits_who_reads_and_who_touches(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		kill_under(a_bystander, i % 2);
		fake_stop(&node);
	}
}

static void closing_all_descriptors_shows_no_zeros(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		kill_under(a_careless_one, i % 2);
		fake_stop(&node);
	}
}

static void on_sigbus(int sig)
{
	(void)sig;
	_exit(0);
}

static const char *with_a_handler(struct scene *s)
{
	struct sigaction handler = { .sa_handler = on_sigbus };
	struct memspan *m = attach_to(&node);

	if (!m)
		return "attach";
	sigaction(SIGBUS, &handler, NULL);
	return caught_in_every_way(s, m);
}

static void a_handler_of_the_program_changes_nothing(void **state)
{
	(void)state;
	kill_under(with_a_handler, false);
}

/* The first process of a pid namespace ignores signals that are sent to it. */
static const char *as_init(struct scene *s)
{
	int status;
	pid_t pid;

	if (unshare(CLONE_NEWPID) < 0) {
		s->step = 99; /* not allowed here */
		return NULL;
	}
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		s->complaint = a_bystander(s);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGBUS)
		return "it did not end by SIGBUS";
	return NULL;
}

static void the_init_of_a_container_ends_too(void **state)
{
	struct victim v;

	(void)state;
	start_node(false);
	victim_start(&v, as_init, &node);
	victim_reaches(&v, 1);
	if (v.scene->step == 1) {
		node.counts->hold = 1;
		v.scene->go = 1;
		assert_true(reaches(&node.counts->held, 2));
		fake_kill(&node);
		v.scene->go = 2;
	}
	victim_ends_well(&v);
}

/* --- what it says ------------------------------------------------------ */

static const char *waits_for_its_end(struct scene *s)
{
	struct memspan *m = attach_to(&node);

	if (!m)
		return "attach";
	s->step = 1;
	for (;;)
		a_moment();
}

static void the_last_line_says_what_why_and_what_to_do(void **state)
{
	struct victim v;
	const char *words;

	(void)state;
	start_node(false);
	victim_start(&v, waits_for_its_end, &node);
	victim_reaches(&v, 1);
	node.counts->end = 1;
	victim_dies_by(&v, SIGBUS, SOON_NS);
	words = victim_words(&v);
	assert_ptr_equal(strstr(words, "memspan: space demo: "), words);
	assert_non_null(strstr(words, "the moon is in the wrong phase"));
	assert_non_null(strstr(words, "SIGBUS"));
	assert_non_null(strstr(words, "memspan status"));
	assert_ptr_equal(strchr(words, '\n'), words + strlen(words) - 1);
	victim_done(&v);
}

static const char *with_stderr_elsewhere(struct scene *s)
{
	int p[2];

	if (!attach_to(&node) || pipe(p) < 0)
		return "attach";
	dup2(p[1], 2); /* since the attach, so the old one is at its end */
	close(p[1]);
	s->step = 1;
	if (!reaches(&s->go, 1))
		return "no word from the test";
	/* A pipe that is full and never read: the line is lost, no more. */
	fcntl(2, F_SETFL, O_NONBLOCK);
	while (write(2, "full", 4) == 4)
		;
	fcntl(2, F_SETFL, 0);
	s->step = 2;
	for (;;)
		a_moment();
}

static void descriptors_of_the_program_are_not_held(void **state)
{
	struct victim v;
	char byte;

	(void)state;
	start_node(false);
	victim_start(&v, with_stderr_elsewhere, &node);
	victim_reaches(&v, 1);
	/* Nobody has the other end of this pipe any more. */
	assert_int_equal(read(v.err, &byte, 1), 0);
	v.scene->go = 1;
	victim_reaches(&v, 2);
	fake_kill(&node);
	victim_dies_by(&v, SIGBUS, within_ns());
	victim_done(&v);
}

/* --- the lease ends ---------------------------------------------------- */

/* Reads and writes its pages, on and on; `step` counts the rounds. */
static const char *goes_on(struct scene *s, struct memspan *m)
{
	for (gpn_t p = 0; p < 8; p += 2)
		*byte_of(m, p) = (uint8_t)(100 + p); /* 1, 3, 5 stay readers */
	while (s->go < 9) {
		for (gpn_t p = 0; p < 8; p++) {
			uint8_t want =
				p % 2 ? fake_byte(p) : (uint8_t)(100 + p);

			if (*byte_of(m, p) != want)
				s->zeros++;
		}
		s->step++;
	}
	memspan_detach(m);
	return NULL;
}

static const char *an_ordinary_one(struct scene *s)
{
	struct memspan *m = attach_to(&node);

	return m ? goes_on(s, m) : "attach";
}

static const char *a_locked_one(struct scene *s)
{
	struct memspan *m;

	(void)mlockall(MCL_FUTURE); /* or not, where it is not allowed */
	m = attach_to(&node);
	return m ? goes_on(s, m) : "attach";
}

static void a_round(struct victim *v)
{
	victim_reaches(v, v->scene->step + 2);
}

/*
 * No access comes through: the rounds stand still, for longer than a busy
 * machine leaves a process that can run without a CPU.
 */
static void assert_waits(struct victim *v)
{
	uint64_t until = now_ns() + SOON_NS;
	uint32_t step;

	do {
		step = v->scene->step;
		for (int i = 0; i < 200; i++)
			a_moment();
	} while (v->scene->step != step && now_ns() < until);
	assert_int_equal(v->scene->step, step);
}

static void lapse_and_renew(story_fn story, bool markers)
{
	struct victim v;

	if (!markers && !fake_can_minor())
		skip();
	start_node(markers);
	victim_start(&v, story, &node);
	a_round(&v);
	for (int i = 0; i < 3; i++) {
		uint32_t minor = node.counts->minor;

		stop(&node);
		fake_lease(&node, 20 * NSEC_PER_MSEC);
		assert_waits(&v);
		fake_lease(&node, 3600 * NSEC_PER_SEC);
		kill(node.pid, SIGCONT);
		a_round(&v);
		assert_true(node.counts->minor > minor);
	}
	v.scene->go = 9;
	assert_int_equal(victim_wait(&v, SOON_NS), 0);
	assert_int_equal(v.scene->zeros, 0);
	victim_done(&v);
}

static void a_renewed_lease_goes_on_with_the_old_bytes(void **state)
{
	(void)state;
	lapse_and_renew(an_ordinary_one, false);
}

static void a_renewed_lease_goes_on_with_markers(void **state)
{
	(void)state;
	lapse_and_renew(an_ordinary_one, true);
}

static void a_locked_mapping_is_fenced_too(void **state)
{
	(void)state;
	lapse_and_renew(a_locked_one, true);
	fake_stop(&node);
	lapse_and_renew(a_locked_one, false);
}

static void a_stop_shorter_than_the_lease_is_not_noticed(void **state)
{
	struct victim v;
	uint32_t minor;

	(void)state;
	start_node(false);
	victim_start(&v, an_ordinary_one, &node);
	a_round(&v);
	minor = node.counts->minor;
	fake_lease(&node, 300 * NSEC_PER_MSEC);
	stop(&node);
	a_round(&v); /* held pages need no node */
	fake_lease(&node, 3600 * NSEC_PER_SEC);
	kill(node.pid, SIGCONT);
	a_round(&v);
	assert_int_equal(node.counts->minor, minor);
	v.scene->go = 9;
	assert_int_equal(victim_wait(&v, SOON_NS), 0);
	victim_done(&v);
}

static void stopped_for_good(bool markers)
{
	struct victim v;
	uint64_t end;

	start_node(markers);
	fake_lease(&node, 1500 * NSEC_PER_MSEC);
	end = node.lease->end_ns;
	victim_start(&v, an_ordinary_one, &node);
	a_round(&v);
	stop(&node);
	victim_dies_by(&v, SIGBUS, SOON_NS);
	assert_true(now_ns() >= end + NSEC_PER_SEC);
	assert_true(is_slow() || now_ns() < end + 2 * NSEC_PER_SEC);
	assert_non_null(strstr(victim_words(&v), "over for a second"));
	victim_done(&v);
}

static void a_lease_that_stays_over_ends_the_process(void **state)
{
	(void)state;
	stopped_for_good(false);
}

static void a_lease_that_stays_over_ends_it_with_markers(void **state)
{
	(void)state;
	stopped_for_good(true);
}

static void without_a_lease_the_client_waits_for_one(void **state)
{
	struct victim v;

	(void)state;
	start_node(false);
	node.lease->end_ns = UINT64_MAX;
	victim_start(&v, an_ordinary_one, &node);
	a_round(&v);
	stop(&node);
	fake_lease(&node, 1100 * NSEC_PER_MSEC);
	victim_dies_by(&v, SIGBUS, SOON_NS); /* so it saw the first one */
	victim_done(&v);
}

/* --- detach, and what a program may do beside -------------------------- */

static const char *closes_everything(struct scene *s)
{
	struct memspan *m = attach_to(&node);
	int other[200], n = 0, more;
	struct stat st;

	(void)s;
	if (!m || *byte_of(m, 0) != fake_byte(0))
		return "attach";
	more = m->sock + 70;
	close_range(3, ~0u, 0);
	/* Now other files have the numbers. */
	while (n < (int)ARRAY_SIZE(other)) {
		int fd = fcntl(0, F_DUPFD_CLOEXEC, m->sock - 70);

		if (fd < 0 || fd > more)
			break;
		other[n++] = fd;
	}
	if (memspan_discard(m, 0, PAGE_BYTES) != -ENOTCONN ||
	    memspan_prefetch(m, 0, 1) != -ENOTCONN)
		return "it talks through a stranger's descriptor";
	if (*byte_of(m, 1) != fake_byte(1))
		return "faults are not served";
	fake_lease(&node, 20 * NSEC_PER_MSEC); /* wake the fence, soon */
	while (node.lease->end_ns > now_ns() + 10 * NSEC_PER_MSEC)
		a_moment();
	fake_lease(&node, 20 * NSEC_PER_MSEC);
	memspan_detach(m);
	while (n > 0)
		if (fstat(other[--n], &st) < 0)
			return "detach closed what is not its own";
	return NULL;
}

static void detach_works_without_descriptors(void **state)
{
	(void)state;
	start_node(false);
	victim_runs(closes_everything, &node);
	assert_int_equal(node.counts->detached, 1);
}

static const char *detaches_from_a_dying_node(struct scene *s)
{
	struct memspan *m = attach_to(&node);
	uint8_t *addr;
	void *p;

	(void)s;
	if (!m || *byte_of(m, 0) != fake_byte(0))
		return "attach";
	addr = memspan_addr(m);
	memspan_detach(m);
	p = mmap(addr, PAGE_BYTES, PROT_NONE,
	         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (p != MAP_FAILED)
		return "addresses were given up that the node may still use";
	return NULL;
}

static void without_an_answer_the_addresses_stay_reserved(void **state)
{
	const struct fake_options opt = { .bytes = PAGES * PAGE_BYTES,
		                          .oddity = FAKE_MUTE_DETACH };
	struct victim v;

	(void)state;
	fake_start(&node, &opt);
	victim_start(&v, detaches_from_a_dying_node, &node);
	assert_true(reaches(&node.counts->detached, 1));
	fake_kill(&node);
	victim_ends_well(&v);
}

static const char *changes_its_user(struct scene *s)
{
	struct memspan *m = attach_to(&node);

	(void)s;
	/* glibc signals every thread and waits for each. */
	if (!m || setgid(getgid()) < 0)
		return "setgid";
	memspan_detach(m);
	return NULL;
}

static void the_fence_does_not_hold_up_setgid(void **state)
{
	(void)state;
	start_node(false);
	victim_runs(changes_its_user, &node);
}

#define TEST(f) cmocka_unit_test_teardown(f, stop_node)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_dead_node_ends_who_waits_who_reads_and_who_touches),
		TEST(closing_all_descriptors_shows_no_zeros),
		TEST(a_handler_of_the_program_changes_nothing),
		TEST(the_init_of_a_container_ends_too),
		TEST(the_last_line_says_what_why_and_what_to_do),
		TEST(descriptors_of_the_program_are_not_held),
		TEST(a_renewed_lease_goes_on_with_the_old_bytes),
		TEST(a_renewed_lease_goes_on_with_markers),
		TEST(a_locked_mapping_is_fenced_too),
		TEST(a_stop_shorter_than_the_lease_is_not_noticed),
		TEST(a_lease_that_stays_over_ends_the_process),
		TEST(a_lease_that_stays_over_ends_it_with_markers),
		TEST(without_a_lease_the_client_waits_for_one),
		TEST(detach_works_without_descriptors),
		TEST(without_an_answer_the_addresses_stay_reserved),
		TEST(the_fence_does_not_hold_up_setgid),
	};

	return cmocka_run_group_tests_name("fence", tests, NULL, NULL);
}
