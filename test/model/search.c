/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Search: every world that can be reached, breadth first.
 *
 *	model [--golden FILE] [SETUP ...]
 *
 * Starting from a page that nobody ever touched, take every move that could
 * come next, check the world that it leads to, and go on from there, until
 * there is none that was not seen before.  Prints the number of worlds of each
 * setup, which must be the one in the golden file: a change of the protocol
 * shows there. What it finds wrong is printed with a shortest way to get
 * there.  Exit status 1: something is wrong; 2: the search itself failed.
 *
 * Worlds are kept as keys (key.c), one behind the other, each with the one that
 * it was first reached from and the move; a hash table finds them again.
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "world.h"

/* Each goes to the end of what it is about; together they have everything. */
static const struct setup setups[] = {
	{ "three", 3, 1, 1,
	  WITH_PREFETCH | WITH_RESIDENCY | WITH_KEEP | WITH_AGAIN },
	{ "three-discards", 3, 1, 3, 0 },
	{ "three-death", 3, 1, 0,
	  WITH_PREFETCH | WITH_RESIDENCY | WITH_KEEP | WITH_AGAIN |
	          WITH_SLOW_FORGET | WITH_DEATH },
	{ "three-death-discard", 3, 1, 1,
	  WITH_KEEP | WITH_SLOW_FORGET | WITH_DEATH },
	{ "four", 4, 1, 0,
	  WITH_RESIDENCY | WITH_KEEP | WITH_AGAIN | WITH_SLOW_FORGET },
	{ "four-ahead", 4, 1, 0, WITH_PREFETCH | WITH_RESIDENCY },
	{ "four-discard", 4, 1, 1, 0 },
	{ "four-trim", 4, 0, 0, WITH_RESIDENCY | WITH_KEEP | WITH_DEATH },
	{ "three-evict", 3, 1, 0, WITH_EVICT | WITH_KEEP | WITH_AGAIN },
	{ "three-evict-death", 3, 1, 0,
	  WITH_EVICT | WITH_SLOW_FORGET | WITH_DEATH },
	{ "three-evict-discard", 3, 1, 1, WITH_EVICT },
	{ "three-evict-ahead", 3, 1, 0, WITH_EVICT | WITH_PREFETCH },
	{ "three-replicas", 3, 1, 0,
	  WITH_EVICT | WITH_REPLICAS | WITH_KEEP | WITH_DEATH },
};

/* A world that was seen; its key follows. */
struct record {
	uint32_t parent; /* in units of UNIT; 0: none */
	uint8_t kind;    /* of the move */
	uint8_t node;
	uint8_t way;
	uint8_t n; /* bytes of key */
	uint8_t key[];
};

enum { UNIT = 8 };

static uint8_t *arena;       /* records, each at a multiple of UNIT */
static uint64_t arena_end;   /* in units; the first is left out */
static uint32_t *table;      /* hash -> unit, or 0 */
static uint64_t table_slots; /* a power of two */
static uint64_t n_states;

#define ARENA_UNITS ((1ull << 32) - 1)

static const struct setup *setup;
/* Where the search is: for whoever finds something wrong. */
static uint32_t at;
static struct record now;
static bool reporting;

static struct record *record_at(uint32_t unit)
{
	return (struct record *)(void *)(arena + (uint64_t)unit * UNIT);
}

static void *map(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("model: mmap");
		exit(2);
	}
	madvise(p, bytes, MADV_HUGEPAGE); /* advice: a third of the time */
	return p;
}

/* --- what went wrong --------------------------------------------------- */

static void say_move(unsigned step, const struct record *r)
{
	fprintf(stderr, "\t%2u  node %u %s\n", step, r->node,
	        move_name[r->kind]);
}

/* Take the moves that lead to `unit` once more, and say what each does. */
static unsigned replay(uint32_t unit, struct world *w)
{
	const struct record *r = record_at(unit);
	unsigned step;

	if (r->parent == 0) {
		world_of_key(setup, r->key, r->n, w);
		return 1;
	}
	step = replay(r->parent, w);
	say_move(step, r);
	world_move(setup, w, (enum move_kind)r->kind, r->node, r->way);
	return step + 1;
}

static _Noreturn void report(const char *what)
{
	struct world w;
	unsigned step;

	if (reporting) /* the last move went wrong again, of course */
		_exit(1);
	reporting = true;
	printf("%s: violated after %" PRIu64 " states: %s\n", setup->name,
	       n_states, what);
	fflush(stdout);
	fprintf(stderr, "%s: %s, after:\n", setup->name, what);
	world_says = true;
	step = replay(at, &w);
	if (now.kind != 0) {
		say_move(step, &now);
		world_move(setup, &w, (enum move_kind)now.kind, now.node,
		           now.way);
	}
	_exit(1);
}

void violated(const char *what)
{
	report(what);
}

/* An assertion of the core: raised by this very thread, so all is at rest. */
static void aborted(int sig)
{
	(void)sig;
	report("an assertion of the core");
}

/* --- the worlds that were seen ----------------------------------------- */

static uint64_t hash(const uint8_t *key, unsigned n)
{
	uint64_t h = n * 0x9e3779b97f4a7c15ull, x = 0;
	unsigned i = 0;

	for (; i + 8 <= n; i += 8) {
		memcpy(&x, key + i, 8);
		h = (h ^ x) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	x = 0;
	memcpy(&x, key + i, n - i);
	h = (h ^ x) * 0xff51afd7ed558ccdull;
	h ^= h >> 29;
	h *= 0xc4ceb9fe1a85ec53ull;
	return h ^ h >> 32;
}

/* The slot of `key`: 0 in it if that world is new. */
static uint32_t *slot_of(const uint8_t *key, unsigned n)
{
	for (uint64_t h = hash(key, n);; h++) {
		uint32_t *slot = &table[h & (table_slots - 1)];
		const struct record *r;

		if (*slot == 0)
			return slot;
		r = record_at(*slot);
		if (r->n == n && memcmp(r->key, key, n) == 0)
			return slot;
	}
}

static void grow(void)
{
	uint32_t *old = table;
	uint64_t n = table_slots;

	table_slots = n * 4;
	table = map(table_slots * sizeof(*table));
	for (uint64_t i = 0; i < n; i++) {
		if (old[i] != 0) {
			const struct record *r = record_at(old[i]);

			*slot_of(r->key, r->n) = old[i];
		}
	}
	munmap(old, n * sizeof(*old));
}

static uint32_t record_units(unsigned n)
{
	return (uint32_t)((sizeof(struct record) + n + UNIT - 1) / UNIT);
}

/* Add `w` unless it was seen before, and check it. */
static void visit(const struct world *w)
{
	uint8_t key[KEY_BYTES_MAX];
	unsigned n = world_key(setup, w, key);
	uint32_t *slot = slot_of(key, n);
	struct record *r;

	if (*slot != 0)
		return;
	world_check(setup, w);
	if (arena_end + record_units(n) > ARENA_UNITS) {
		fprintf(stderr, "model: %s: more than %" PRIu64 " states\n",
		        setup->name, n_states);
		exit(2);
	}
	*slot = (uint32_t)arena_end;
	r = record_at(*slot);
	*r = now;
	r->parent = at;
	r->n = (uint8_t)n;
	memcpy(r->key, key, n);
	arena_end += record_units(n);
	n_states++;
	if (n_states * 2 > table_slots)
		grow();
}

/* --- the search -------------------------------------------------------- */

static void visit_next(const struct world *w, enum move_kind kind,
                       unsigned node)
{
	unsigned ways = world_ways(setup, w, kind, node);

	for (unsigned way = 0; ways != 0; way++, ways >>= 1) {
		struct world next;

		if ((ways & 1) == 0)
			continue;
		next = *w;
		now = (struct record){ .kind = (uint8_t)kind,
			               .node = (uint8_t)node,
			               .way = (uint8_t)way };
		world_move(setup, &next, kind, node, way);
		visit(&next);
	}
}

static void search(const struct setup *s)
{
	struct world w = { 0 };

	setup = s;
	arena_end = 1;
	n_states = 0;
	table_slots = 1u << 20;
	table = map(table_slots * sizeof(*table));
	at = 0;
	now = (struct record){ 0 };
	for (unsigned i = 0; i < WORLD_NODES; i++)
		w.node[i].page.since_us = 950;
	visit(&w);
	at = 1;
	while (at < arena_end) {
		const struct record *r = record_at(at);

		world_of_key(s, r->key, r->n, &w);
		for (unsigned i = 0; i < s->nodes; i++)
			for (unsigned k = MOVE_READ; k <= MOVE_DIE; k++)
				visit_next(&w, (enum move_kind)k, i);
		at += record_units(r->n);
	}
	munmap(table, table_slots * sizeof(*table));
	madvise(arena, arena_end * UNIT, MADV_DONTNEED);
}

/* Is that the number in the golden file (lines "SETUP STATES")? */
static bool golden(const char *file, const char *name)
{
	FILE *f = fopen(file, "re");
	char line[128], in_file[64];
	uint64_t n;
	bool right = false;

	if (f == NULL) {
		perror(file);
		exit(2);
	}
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "%63s %" SCNu64, in_file, &n) == 2 &&
		    strcmp(in_file, name) == 0)
			right = n == n_states;
	fclose(f);
	if (!right)
		printf("%s: %" PRIu64 " states is not what %s says\n", name,
		       n_states, file);
	return right;
}

static bool wanted(const char *name, char **names)
{
	if (*names == NULL)
		return true;
	for (; *names != NULL; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	int r = 0;

	(void)argc;
	argv++;
	if (*argv != NULL && strcmp(*argv, "--golden") == 0) {
		file = argv[1];
		argv += 2;
	}
	signal(SIGABRT, aborted);
	arena = map(ARENA_UNITS * UNIT);
	for (unsigned i = 0; i < ARRAY_SIZE(setups); i++) {
		const char *name = setups[i].name;

		if (!wanted(name, argv))
			continue;
		search(&setups[i]);
		printf("%s: %" PRIu64 " states in %" PRIu64 " MiB\n", name,
		       n_states, arena_end * UNIT >> 20);
		fflush(stdout);
		if (file != NULL && !golden(file, name))
			r = 1;
	}
	return r;
}
