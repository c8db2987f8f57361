/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: roam SOCKET SPACE FIRST PAGES THREADS SEED
 *
 * Threads that wander over more pages than their node keeps, as others do on
 * all nodes.  Word 0 of a page is a lock; word 1 its version, 0 for a page that
 * nobody has written; all other words follow from page and version.  Whoever
 * has the lock checks the whole page, and three times of four writes the next
 * version.  So the sum of all versions is the number of writes by everybody: a
 * page that is lost, old or torn shows at once, or in the sum.
 *
 * Every other thread goes through the pages in order, the rest at random.
 * Orders on stdin, and what is said of each:
 *
 *	go       "going"
 *	done     "WRITES READS ERRORS" so far, of this process
 *	stop     the same, when all threads have ended
 *	sum      "VERSIONS ERRORS" of all pages, by one thread
 */

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

#define THREADS_MAX 16u
#define LOCK        0 /* words of a page */
#define VERSION     1
#define CONTENTS    2
#define READ_EVERY  4

struct roamer {
	pthread_t thread;
	uint64_t seed;
	uint64_t at; /* the page that comes next; in order */
	bool in_order;
};

static uint8_t *base;
static uint64_t first, pages;
static _Atomic bool stopping;
static _Atomic uint64_t writes, reads, errors;

static volatile _Atomic uint64_t *page_at(uint64_t page)
{
	return (volatile _Atomic uint64_t *)(base + page * PAGE_BYTES);
}

static uint64_t load(volatile _Atomic uint64_t *at)
{
	return atomic_load_explicit(at, memory_order_relaxed);
}

static void store(volatile _Atomic uint64_t *at, uint64_t v)
{
	atomic_store_explicit(at, v, memory_order_relaxed);
}

/* The holder may be a thread of another node, whom spinning would only slow. */
static void take_lock(volatile _Atomic uint64_t *p)
{
	uint64_t free = 0;

	while (!atomic_compare_exchange_weak(&p[LOCK], &free, 1)) {
		free = 0;
		sched_yield();
	}
}

static void give_lock(volatile _Atomic uint64_t *p)
{
	atomic_store_explicit(&p[LOCK], 0, memory_order_release);
}

static uint64_t word_of(uint64_t version, uint64_t page, uint64_t i)
{
	return version == 0 ? 0 : tool_word(version, page, i);
}

/* All of a page, whose version is returned. */
static uint64_t check(uint64_t page)
{
	volatile _Atomic uint64_t *p = page_at(page);
	uint64_t version = load(&p[VERSION]);

	for (uint64_t i = CONTENTS; i < PAGE_WORDS; i++) {
		uint64_t want = word_of(version, page, i), got = load(&p[i]);

		if (got == want)
			continue;
		if (atomic_fetch_add(&errors, 1) == 0)
			fprintf(stderr,
			        "page %" PRIu64 " version %" PRIu64
			        " word %" PRIu64 ": %#" PRIx64 " for %#" PRIx64
			        "\n",
			        page, version, i, got, want);
		break;
	}
	return version;
}

static void write_next(uint64_t page, uint64_t version)
{
	volatile _Atomic uint64_t *p = page_at(page);

	store(&p[VERSION], version);
	for (uint64_t i = CONTENTS; i < PAGE_WORDS; i++)
		store(&p[i], word_of(version, page, i));
}

static void visit(uint64_t page, bool write)
{
	volatile _Atomic uint64_t *p = page_at(page);
	uint64_t version;

	take_lock(p);
	version = check(page);
	if (write)
		write_next(page, version + 1);
	give_lock(p);
	atomic_fetch_add(write ? &writes : &reads, 1);
}

static void *roam(void *data)
{
	struct roamer *r = data;

	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
		uint64_t n = tool_random(&r->seed);
		uint64_t at = r->in_order ? r->at++ : n;

		visit(first + at % pages, (n >> 32) % READ_EVERY != 0);
	}
	return NULL;
}

static void go(struct roamer *r, uint64_t threads, uint64_t seed)
{
	atomic_store(&stopping, false);
	for (uint64_t i = 0; i < threads; i++) {
		r[i].seed = seed * 0x9e3779b97f4a7c15ull + i + 1;
		r[i].at = tool_random(&r[i].seed) % pages;
		r[i].in_order = i % 2 == 1;
		if (pthread_create(&r[i].thread, NULL, roam, &r[i]) != 0)
			tool_die("no thread");
	}
	tool_say("going");
}

static void say_done(void)
{
	tool_say("%" PRIu64 " %" PRIu64 " %" PRIu64, atomic_load(&writes),
	         atomic_load(&reads), atomic_load(&errors));
}

static void stop(struct roamer *r, uint64_t threads)
{
	atomic_store(&stopping, true);
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(r[i].thread, NULL);
	say_done();
}

static void sum(void)
{
	uint64_t versions = 0, before = atomic_load(&errors);

	for (uint64_t i = 0; i < pages; i++)
		versions += check(first + i);
	tool_say("%" PRIu64 " %" PRIu64, versions,
	         atomic_load(&errors) - before);
}

int main(int argc, char **argv)
{
	struct roamer roamer[THREADS_MAX] = { 0 };
	uint64_t threads, seed;
	struct memspan *m;
	char line[64];

	if (argc != 7)
		tool_die("usage: roam SOCKET SPACE FIRST PAGES THREADS SEED");
	first = tool_number(argv[3]);
	pages = tool_number(argv[4]);
	threads = tool_number(argv[5]);
	seed = tool_number(argv[6]);
	if (pages == 0 || threads > THREADS_MAX)
		tool_die("no pages, or more than %u threads", THREADS_MAX);
	m = tool_attach(argv[1], argv[2]);
	base = memspan_addr(m);
	if ((first + pages) * PAGE_BYTES > memspan_bytes(m))
		tool_die("the space ends before");
	tool_say("ready");
	while (tool_line(line, sizeof(line)) == 0) {
		if (strcmp(line, "go") == 0)
			go(roamer, threads, seed);
		else if (strcmp(line, "done") == 0)
			say_done();
		else if (strcmp(line, "stop") == 0)
			stop(roamer, threads);
		else if (strcmp(line, "sum") == 0)
			sum();
		else
			tool_die("no such order: %s", line);
	}
	return 0;
}
