/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: hammer SOCKET SPACE TALLY FIRST PAGES THREADS SLOT SEED
 *
 * Threads add to counters in the same pages, as others do, on all nodes, until
 * stdin says "stop" or ends.  Word 0 of a page is everybody's, added to
 * atomically; word 8 + slot is one thread's alone (this process has SLOT ..
 * SLOT + THREADS - 1), added to by a plain store.
 *
 * What each thread did is in the file TALLY, plain shared memory that outlives
 * it: so the sums can be checked exactly even for a client that was killed.
 * Each thread checks besides, at every access, that its own word is what it
 * left there, and that the common one never goes back.  A lost page that read
 * as zeros, a lost write, a stale copy: all of them show there at once.
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

#define PAGES_MAX  64
#define SLOTS_MAX  64
#define SLOT_WORD  8 /* first word of the slots */
#define READ_EVERY 4 /* one access in so many only reads */

/* Of one thread: in the file, read by the tests (cluster.py). */
struct tally {
	_Atomic uint64_t begun, done, errors, reads;
	uint64_t bad_page, bad_got, bad_want, reserved;
	_Atomic uint64_t page[PAGES_MAX]; /* additions done */
};

struct worker {
	pthread_t thread;
	unsigned slot;
	uint64_t seed;
	struct tally *tally;
	uint64_t seen[PAGES_MAX]; /* the highest common count that it saw */
};

static uint8_t *base;
static uint64_t first, pages;
static _Atomic bool stopping;

static void wrong(struct tally *t, uint64_t page, uint64_t got, uint64_t want)
{
	if (atomic_fetch_add(&t->errors, 1) > 0)
		return;
	t->bad_page = page;
	t->bad_got = got;
	t->bad_want = want;
}

static void add(struct worker *w, uint64_t i)
{
	volatile _Atomic uint64_t *word =
		(volatile _Atomic uint64_t *)(base + (first + i) * PAGE_BYTES);
	volatile _Atomic uint64_t *own = &word[SLOT_WORD + w->slot];
	struct tally *t = w->tally;
	uint64_t mine = atomic_load(&t->page[i]), got;

	atomic_fetch_add(&t->begun, 1);
	got = atomic_fetch_add(word, 1);
	if (got < w->seen[i])
		wrong(t, first + i, got, w->seen[i]);
	w->seen[i] = got + 1;
	got = atomic_load(own);
	if (got != mine)
		wrong(t, first + i, got, mine);
	atomic_store_explicit(own, mine + 1, memory_order_relaxed);
	atomic_store(&t->page[i], mine + 1);
	atomic_fetch_add(&t->done, 1);
}

static void look(struct worker *w, uint64_t i)
{
	volatile _Atomic uint64_t *word =
		(volatile _Atomic uint64_t *)(base + (first + i) * PAGE_BYTES);
	struct tally *t = w->tally;
	uint64_t got = atomic_load(word);
	uint64_t mine = atomic_load(&t->page[i]);

	if (got < w->seen[i])
		wrong(t, first + i, got, w->seen[i]);
	w->seen[i] = got;
	got = word[SLOT_WORD + w->slot];
	if (got != mine)
		wrong(t, first + i, got, mine);
	atomic_fetch_add(&t->reads, 1);
}

static void *work(void *data)
{
	struct worker *w = data;

	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
		uint64_t r = tool_random(&w->seed);

		if (r >> 32 & (READ_EVERY - 1))
			add(w, r % pages);
		else
			look(w, r % pages);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct worker worker[SLOTS_MAX];
	struct memspan *m;
	struct tally *tally;
	uint64_t threads, slot, seed;
	char line[64];

	if (argc != 9)
		tool_die("usage: hammer SOCKET SPACE TALLY FIRST PAGES "
		         "THREADS SLOT SEED");
	first = tool_number(argv[4]);
	pages = tool_number(argv[5]);
	threads = tool_number(argv[6]);
	slot = tool_number(argv[7]);
	seed = tool_number(argv[8]);
	if (pages > PAGES_MAX || slot + threads > SLOTS_MAX)
		tool_die("at most %d pages and %d slots", PAGES_MAX, SLOTS_MAX);
	tally = tool_share(argv[3], SLOTS_MAX * sizeof(*tally));
	m = tool_attach(argv[1], argv[2]);
	base = memspan_addr(m);
	tool_say("ready");
	if (tool_line(line, sizeof(line)) < 0)
		return 0; /* never told to begin */
	memset(worker, 0, sizeof(worker));
	for (uint64_t i = 0; i < threads; i++) {
		struct worker *w = &worker[i];

		w->slot = (unsigned)(slot + i);
		w->tally = &tally[w->slot];
		w->seed = seed * 0x9e3779b97f4a7c15ull + i + 1;
		if (pthread_create(&w->thread, NULL, work, w) != 0)
			tool_die("no thread");
	}
	(void)tool_line(line, sizeof(line)); /* "stop", or the end */
	atomic_store(&stopping, true);
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(worker[i].thread, NULL);
	memspan_detach(m);
	tool_say("stopped");
	return 0;
}
