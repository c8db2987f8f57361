/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One counter and one queue in a space, used by processes on several nodes at
 * once, to the exact result.
 *
 * It shows what a program needs that shares memory between nodes:
 *
 *   atomics    C11's work across nodes as within one: a page has one writer
 *              at a time, and an atomic operation runs while its page is here.
 *   spinning   Mutexes, semaphores and condition variables do not: they sleep
 *              in futex(2), and its wake-ups stay within one node.  So who
 *              waits looks again and again, ever less often, and not for ever.
 *   layout     What different processes write lies on different pages.  A page
 *              that two nodes write travels between them, some 100 us a time.
 *   zeros      A space starts as zeros, so everything here begins at zero, and
 *              the last one to leave makes it zeros again: memspan_discard().
 *
 * Build: make counter (uses pkg-config), or it is build/example-counter.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <memspan.h>

#define PAGE       4096
#define QUEUE_LEN  256     /* items: slots fill one page */
#define ITEMS_MAX  1048576 /* of all processes: one bit each */
#define PEERS_MAX  64
#define SPIN_TRIES 1000 /* before a waiter begins to sleep */

/* --- what lies in the space ---------------------------------------------- */

struct slot {
	/* 2 * round: empty, to be filled in that round; + 1: full.  Zero is the
	 * right start. */
	_Atomic uint64_t turn;
	uint64_t item;
};

struct shared {
	_Alignas(PAGE) _Atomic uint64_t arrived; /* counts of processes */
	_Atomic uint64_t done;
	_Atomic uint64_t left;
	_Alignas(PAGE) _Atomic uint64_t counter;
	_Alignas(PAGE) _Atomic uint64_t pushed; /* the queue's two ends */
	_Alignas(PAGE) _Atomic uint64_t popped;
	_Alignas(PAGE) struct slot slot[QUEUE_LEN];
	_Alignas(PAGE) _Atomic uint64_t taken; /* items out of the queue */
	_Atomic uint64_t twice;                /* of them, seen before */
	_Alignas(PAGE) _Atomic uint64_t seen[ITEMS_MAX / 64];
};

struct options {
	const char *node, *space;
	uint64_t increments, items, timeout_s;
	uint64_t who, of;
	bool reset;
};

static const char usage[] =
	"usage: example-counter [OPTIONS] WHO OF\n"
	"       example-counter [OPTIONS] --reset\n"
	"\n"
	"Run it OF times at once, on as many nodes as you like, with WHO = 0, 1,\n"
	"... OF - 1.  Together they increment one counter and pass items through\n"
	"one queue, both in the space; each then checks that not one was lost\n"
	"and none came twice.  In two terminals:\n"
	"\n"
	"  memspan up --nodes 2 && memspan space create demo --size 16M\n"
	"  example-counter --node /run/memspan/node-0.sock 0 2\n"
	"  example-counter --node /run/memspan/node-1.sock 1 2\n"
	"\n"
	"  --node SOCKET     the node to attach through (default: $MEMSPAN_NODE,\n"
	"                    or the only one there is)\n"
	"  --space NAME      the space, of 256 KiB at least (default: demo)\n"
	"  --increments N    of the counter, by each (default: 100000)\n"
	"  --items N         into the queue, by each (default: 10000)\n"
	"  --timeout SECONDS how long to wait for the others (default: 60)\n"
	"  --reset           make the space zeros, after a run that was broken off\n"
	"\n"
	"Exit status: 0 all exact, 1 not, 2 used wrongly.\n";

/* --- waiting without futexes --------------------------------------------- */

struct wait {
	unsigned tries;
	time_t until; /* CLOCK_MONOTONIC seconds */
};

static time_t now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static struct wait wait_start(const struct options *o)
{
	return (struct wait){ .until = now_s() + (time_t)o->timeout_s };
}

/*
 * Between two looks at something that another process will change: first at
 * once, as it may be about to, then after 50 us of sleep each, so that waiting
 * neither burns a CPU nor keeps pulling the page away from who is to write it.
 * False: it has taken too long.
 */
static bool wait_more(struct wait *w)
{
	const struct timespec nap = { .tv_nsec = 50000 };

	if (++w->tries < SPIN_TRIES)
		return true;
	nanosleep(&nap, NULL);
	return now_s() < w->until;
}

static bool wait_for(const _Atomic uint64_t *count, uint64_t n,
                     const struct options *o)
{
	struct wait w = wait_start(o);

	while (atomic_load(count) < n)
		if (!wait_more(&w))
			return false;
	return true;
}

/* --- the queue ----------------------------------------------------------- */

/*
 * Any number of processes push and pop.  A slot's turn says whose it is, so the
 * two ends are only tickets: who draws one by compare-and-swap owns that slot
 * until he moves its turn on.  False: full.
 */
static bool push(struct shared *s, uint64_t item)
{
	uint64_t at = atomic_load(&s->pushed);

	for (;;) {
		struct slot *slot = &s->slot[at % QUEUE_LEN];
		uint64_t turn = atomic_load(&slot->turn);

		if (turn == 2 * (at / QUEUE_LEN)) {
			if (!atomic_compare_exchange_weak(&s->pushed, &at,
			                                  at + 1))
				continue;
			slot->item = item;
			atomic_store(&slot->turn, turn + 1);
			return true;
		}
		if (turn < 2 * (at / QUEUE_LEN))
			return false;
		at = atomic_load(&s->pushed); /* others were faster */
	}
}

/* False: empty. */
static bool pop(struct shared *s, uint64_t *ret)
{
	uint64_t at = atomic_load(&s->popped);

	for (;;) {
		struct slot *slot = &s->slot[at % QUEUE_LEN];
		uint64_t turn = atomic_load(&slot->turn);

		if (turn == 2 * (at / QUEUE_LEN) + 1) {
			if (!atomic_compare_exchange_weak(&s->popped, &at,
			                                  at + 1))
				continue;
			*ret = slot->item;
			atomic_store(&slot->turn, turn + 1);
			return true;
		}
		if (turn < 2 * (at / QUEUE_LEN) + 1)
			return false;
		at = atomic_load(&s->popped);
	}
}

static void take(struct shared *s, uint64_t item)
{
	uint64_t bit = (uint64_t)1 << item % 64;

	if (item >= ITEMS_MAX ||
	    atomic_fetch_or(&s->seen[item / 64], bit) & bit)
		atomic_fetch_add(&s->twice, 1);
	atomic_fetch_add(&s->taken, 1);
}

/* Push our items and take whosever there are, until all are through. */
static bool exchange(struct shared *s, const struct options *o)
{
	uint64_t next = o->who * o->items, end = next + o->items, item;
	struct wait w = wait_start(o);

	while (next < end || atomic_load(&s->taken) < o->of * o->items) {
		bool moved = false;

		while (next < end && push(s, next)) {
			next++;
			moved = true;
		}
		while (pop(s, &item)) {
			take(s, item);
			moved = true;
		}
		if (moved)
			w = wait_start(o);
		else if (!wait_more(&w))
			return false;
	}
	return true;
}

/* --- the run ------------------------------------------------------------- */

static int too_late(const char *what)
{
	fprintf(stderr,
	        "example-counter: waited too long for the others to %s; run "
	        "one for each WHO at the same time; if an earlier run was "
	        "broken off, first --reset\n",
	        what);
	return 1;
}

static bool exact(const char *what, uint64_t have, uint64_t want)
{
	printf("%-24s %" PRIu64 " of %" PRIu64 "%s\n", what, have, want,
	       have == want ? "" : "   WRONG");
	return have == want;
}

static uint64_t count_seen(struct shared *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < ITEMS_MAX / 64; i++)
		for (uint64_t v = atomic_load(&s->seen[i]); v; v &= v - 1)
			n++;
	return n;
}

static int run(struct memspan *m, const struct options *o)
{
	struct shared *s = memspan_addr(m);
	bool ok;
	int r;

	if (atomic_fetch_add(&s->arrived, 1) >= o->of) {
		fprintf(stderr, "example-counter: the space is in use, or was "
		                "left behind by a run that was broken off; "
		                "use --reset when nothing else runs\n");
		return 1;
	}
	if (!wait_for(&s->arrived, o->of, o))
		return too_late("arrive");
	for (uint64_t i = 0; i < o->increments; i++)
		atomic_fetch_add(&s->counter, 1);
	if (!exchange(s, o))
		return too_late("move items");
	atomic_fetch_add(&s->done, 1);
	if (!wait_for(&s->done, o->of, o))
		return too_late("finish");

	ok = exact("counter", atomic_load(&s->counter), o->of * o->increments);
	ok &= exact("items through the queue", count_seen(s), o->of * o->items);
	ok &= exact("items that came twice", atomic_load(&s->twice), 0);

	/* Who is last has the space to himself, and leaves it as it was. */
	if (atomic_fetch_add(&s->left, 1) + 1 < o->of)
		return ok ? 0 : 1;
	r = memspan_discard(m, 0, sizeof(*s));
	if (r < 0)
		fprintf(stderr, "example-counter: cannot clear the space: %s\n",
		        strerror(-r));
	return ok && r == 0 ? 0 : 1;
}

/* --- the command line ---------------------------------------------------- */

static bool number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end = NULL;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *text != '-' &&
	       *ret <= max;
}

static bool parse_option(int c, struct options *o)
{
	switch (c) {
	case 'n':
		o->node = optarg;
		return true;
	case 's':
		o->space = optarg;
		return true;
	case 'c':
		return number(optarg, UINT32_MAX, &o->increments);
	case 'i':
		return number(optarg, ITEMS_MAX, &o->items);
	case 't':
		return number(optarg, 86400, &o->timeout_s);
	case 'r':
		o->reset = true;
		return true;
	default:
		return false;
	}
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "node", required_argument, NULL, 'n' },
		{ "space", required_argument, NULL, 's' },
		{ "increments", required_argument, NULL, 'c' },
		{ "items", required_argument, NULL, 'i' },
		{ "timeout", required_argument, NULL, 't' },
		{ "reset", no_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		if (c == 'h') {
			fputs(usage, stdout);
			exit(0);
		}
		if (!parse_option(c, o))
			return false;
	}
	if (o->reset)
		return optind == argc;
	return argc - optind == 2 && number(argv[optind], PEERS_MAX, &o->who) &&
	       number(argv[optind + 1], PEERS_MAX, &o->of) && o->who < o->of &&
	       o->of * o->items <= ITEMS_MAX;
}

int main(int argc, char **argv)
{
	struct options o = {
		.space = "demo",
		.increments = 100000,
		.items = 10000,
		.timeout_s = 60,
	};
	struct memspan *m = NULL;
	char why[300] = "";
	int r;

	if (!parse(argc, argv, &o)) {
		fputs(usage, stderr);
		return 2;
	}
	r = memspan_attach(o.node, o.space, 0, &m, why, sizeof(why));
	if (r < 0) {
		fprintf(stderr, "example-counter: cannot attach space %s: %s\n",
		        o.space, why);
		return 1;
	}
	if (memspan_bytes(m) < sizeof(struct shared)) {
		fprintf(stderr,
		        "example-counter: space %s has %zu bytes; it needs %zu\n",
		        o.space, memspan_bytes(m), sizeof(struct shared));
		r = 1;
	} else if (o.reset) {
		r = memspan_discard(m, 0, sizeof(struct shared)) < 0 ? 1 : 0;
	} else {
		r = run(m, &o);
	}
	memspan_detach(m);
	return r;
}
