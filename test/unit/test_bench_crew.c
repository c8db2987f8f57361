/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crew's processes and the floor, for real: userfaultfds, TCP on loopback,
 * orders.  There is no cluster; what a client does with a space is shown by the
 * tests of whole clusters.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "cli/bench_crew.h"

#define ROOM    8192u
#define SEED    5u
#define PATIENT (30 * NSEC_PER_SEC)

static struct bench_crew crew;
static struct errmsg em;

static int start(void **state)
{
	struct bench_crew_config cfg = {
		.n = 2,
		.node_socket = { "/nonexistent/node-0.sock",
		                 "/nonexistent/node-4.sock" },
		.node = { 0, 4 },
		.room = ROOM,
		.seed = SEED,
	};

	(void)state;
	bench_stop = 0;
	em.text[0] = '\0';
	return bench_crew_start(&crew, &cfg, &em);
}

static int end(void **state)
{
	(void)state;
	bench_crew_end(&crew);
	return 0;
}

static const struct bench_answer *answer(unsigned i)
{
	return &crew.board->seat[i].answer;
}

static void map_floor(uint64_t pages, uint32_t uffds)
{
	for (unsigned i = 0; i < 2; i++) {
		struct bench_order *o =
			bench_crew_order(&crew, i, BENCH_FLOOR_MAP);

		o->floor_pages = pages;
		o->floor_uffds = uffds;
	}
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), 0);
}

/* Both clients: an order over the first `n` pages of the floor. */
static void floor_order(enum bench_verb verb, enum floor_kind kind,
                        unsigned batch, uint64_t n)
{
	for (unsigned i = 0; i < 2; i++) {
		struct floor_mode *m = &crew.board->seat[i].floor_mode;
		struct bench_order *o = bench_crew_order(&crew, i, verb);

		o->floor = true;
		o->clear = true;
		o->walk.places = n;
		o->walk.wrap = n;
		o->n = n;
		o->seed = SEED;
		o->version = FLOOR_VERSION;
		o->alike = FLOOR_PAGES;
		atomic_store(&m->kind, kind);
		atomic_store(&m->batch, batch);
		atomic_store(&m->overlap, 0);
	}
}

static void local_faults_are_served(void **state)
{
	(void)state;
	map_floor(1024, 1);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 1024);
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(answer(i)->accesses, 1024);
		assert_int_equal(answer(i)->n_samples, 1024);
		assert_true(answer(i)->end > answer(i)->start);
		for (unsigned k = 0; k < 1024; k++)
			assert_true(crew.member[i].sample[k] >> 4 > 100);
	}
}

static void remote_pages_come_with_their_bytes(void **state)
{
	(void)state;
	map_floor(FLOOR_PAGES + 512, 1);
	for (unsigned batch = 1; batch <= FLOOR_BATCH_MAX; batch *= 8) {
		/* Behind FLOOR_PAGES the peer's pages come again. */
		floor_order(BENCH_VERIFY, FLOOR_REMOTE, batch,
		            FLOOR_PAGES + 512);
		assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), 0);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(answer(i)->accesses,
			                 FLOOR_PAGES + 512);
			assert_int_equal(answer(i)->wrongs.n, 0);
		}
	}
}

/* Member 0's order over `n` pages that nobody serves; whether it was done. */
static int plain(enum bench_verb verb, uint64_t n)
{
	struct bench_order *o = bench_crew_order(&crew, 0, verb);

	o->plain = true;
	o->plain_pages = n;
	o->walk.places = n;
	o->walk.wrap = n;
	o->n = n;
	o->seed = SEED;
	o->version = 1;
	return bench_crew_do(&crew, 1, PATIENT, &em);
}

static void plain_memory_is_what_was_written(void **state)
{
	(void)state;
	assert_int_equal(plain(BENCH_PLAIN_MAP, 64), 0);
	assert_int_equal(plain(BENCH_FILL, 64), 0);
	assert_int_equal(plain(BENCH_SPOT, 64), 0);
	assert_int_equal(answer(0)->accesses, 64);
	assert_int_equal(answer(0)->wrongs.n, 0);
	/* Mapped anew it is zeros, and so wrong. */
	assert_int_equal(plain(BENCH_PLAIN_MAP, 64), 0);
	assert_int_equal(plain(BENCH_SPOT, 64), 0);
	assert_int_equal(answer(0)->wrongs.n, 64);
	assert_int_equal(plain(BENCH_PLAIN_MAP, 0), 0);
	assert_int_equal(plain(BENCH_SPOT, 64), -EINVAL);
}

static void wrong_bytes_are_reported(void **state)
{
	(void)state;
	map_floor(64, 1);
	floor_order(BENCH_VERIFY, FLOOR_REMOTE, 1, 64);
	/* Of another seed than the peer's: every page is wrong. */
	crew.board->seat[1].order.seed = SEED + 1;
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), 0);
	assert_int_equal(answer(0)->wrongs.n, 0);
	assert_int_equal(answer(1)->wrongs.n, 64);
	assert_int_equal(answer(1)->wrongs.v[0].page, 0);
}

static void many_threads_are_served(void **state)
{
	(void)state;
	map_floor(4096, STRIPES_MAX);
	for (unsigned i = 0; i < 2; i++)
		bench_crew_order(&crew, i, BENCH_POOL)->threads = 512;
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), 0);
	for (unsigned kind = FLOOR_LOCAL; kind <= FLOOR_REMOTE; kind++) {
		floor_order(kind == FLOOR_LOCAL ? BENCH_WRITE : BENCH_READ,
		            (enum floor_kind)kind, 1, 4096);
		for (unsigned i = 0; i < 2; i++) {
			crew.board->seat[i].order.pool = 512;
			crew.board->seat[i].order.walk.shuffled = true;
			atomic_store(&crew.board->seat[i].floor_mode.overlap,
			             1);
		}
		assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), 0);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(answer(i)->accesses, 4096);
			assert_int_equal(answer(i)->n_samples, 4096);
			assert_int_equal(answer(i)->wrongs.n, 0);
		}
	}
}

static void one_may_work_while_the_other_rests(void **state)
{
	(void)state;
	map_floor(64, 1);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	assert_int_equal(bench_crew_do(&crew, 2, PATIENT, &em), 0);
	assert_int_equal(answer(1)->accesses, 64);
	assert_int_equal(answer(0)->accesses, 0);
}

static void an_attach_that_fails_says_where_and_why(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		strcpy(bench_crew_order(&crew, i, BENCH_ATTACH)->space, "demo");
	assert_int_equal(bench_crew_do(&crew, 2, PATIENT, &em), -ECONNREFUSED);
	assert_non_null(strstr(em.text, "node 4"));
	/* That breaks nothing. */
	map_floor(64, 1);
}

static void orders_that_cannot_be_are_refused(void **state)
{
	(void)state;
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	assert_int_equal(bench_crew_do(&crew, 1, PATIENT, &em), -EINVAL);
	map_floor(64, 1);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 65);
	assert_int_equal(bench_crew_do(&crew, 1, PATIENT, &em), -EINVAL);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, ROOM + 1);
	assert_int_equal(bench_crew_do(&crew, 1, PATIENT, &em), -EINVAL);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	crew.board->seat[0].order.pool = 3;
	assert_int_equal(bench_crew_do(&crew, 1, PATIENT, &em), -EINVAL);
}

static void who_dies_is_named(void **state)
{
	(void)state;
	map_floor(64, 1);
	assert_int_equal(kill(crew.member[1].client, SIGKILL), 0);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), -ECHILD);
	assert_non_null(strstr(em.text, "client of node 4"));
	assert_non_null(strstr(em.text, "signal 9"));
	assert_int_equal(bench_crew_do(&crew, 1, PATIENT, &em), -EPIPE);
}

/* Without its handler a client waits; it does not read zeros. */
static void a_dead_handler_is_noticed(void **state)
{
	(void)state;
	map_floor(64, 1);
	assert_int_equal(kill(crew.member[0].handler, SIGKILL), 0);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), -ECHILD);
	assert_non_null(strstr(em.text, "handler"));
	assert_non_null(strstr(em.text, "node 0"));
}

static void a_stop_is_heeded(void **state)
{
	(void)state;
	bench_stop = 1;
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	assert_int_equal(bench_crew_do(&crew, 3, PATIENT, &em), -EINTR);
}

static void nobody_waits_longer_than_told(void **state)
{
	(void)state;
	map_floor(64, 1);
	assert_int_equal(kill(crew.member[0].handler, SIGSTOP), 0);
	floor_order(BENCH_WRITE, FLOOR_LOCAL, 1, 64);
	assert_int_equal(bench_crew_do(&crew, 3, NSEC_PER_SEC, &em),
	                 -ETIMEDOUT);
	assert_non_null(strstr(em.text, "node 0 is stuck"));
}

static void the_end_leaves_no_process(void **state)
{
	pid_t pid[6];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		pid[3 * i] = crew.member[i].client;
		pid[3 * i + 1] = crew.member[i].handler;
		pid[3 * i + 2] = crew.member[i].peer;
	}
	bench_crew_end(&crew);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(kill(pid[i], 0), -1);
		assert_int_equal(errno, ESRCH);
	}
}

/* May we make userfaultfds? */
static bool allowed(void)
{
	int fd = (int)syscall(SYS_userfaultfd, 0);

	if (fd < 0)
		return access("/dev/userfaultfd", R_OK | W_OK) == 0;
	close(fd);
	return true;
}

#define CREW_TEST(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CREW_TEST(local_faults_are_served),
		CREW_TEST(remote_pages_come_with_their_bytes),
		CREW_TEST(plain_memory_is_what_was_written),
		CREW_TEST(wrong_bytes_are_reported),
		CREW_TEST(many_threads_are_served),
		CREW_TEST(one_may_work_while_the_other_rests),
		CREW_TEST(an_attach_that_fails_says_where_and_why),
		CREW_TEST(orders_that_cannot_be_are_refused),
		CREW_TEST(who_dies_is_named),
		CREW_TEST(a_dead_handler_is_noticed),
		CREW_TEST(a_stop_is_heeded),
		CREW_TEST(nobody_waits_longer_than_told),
		CREW_TEST(the_end_leaves_no_process),
	};

	if (!allowed()) {
		puts("1..0 # SKIP no userfaultfd for this user");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
