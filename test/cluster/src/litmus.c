/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: litmus SOCKET SPACE SHAPE ROLE ITERATIONS SHARED X Y PAIRS STEP SEED
 *
 * One thread of a litmus test, in a process of its own.  All roles meet before
 * each iteration at a barrier in the file SHARED (plain memory, not the space),
 * wait a few hundred random turns, and make their accesses to x and y: word 0
 * of pages X + k * STEP and Y + k * STEP, where k runs over PAIRS.  What they
 * store grows with each iteration, and with SEED; a load that gives less than
 * it is "old", 0, else "new", 1.
 *
 *	     role 0        role 1        role 2        role 3
 *	SB   x=1; r=y      y=1; r=x      with a fence between the two
 *	SBTSO the same without the fence: TSO allows all four outcomes
 *	MP   x=1; y=1      r=y; s=x
 *	LB   r=x; y=1      r=y; x=1
 *	IRIW x=1           y=1           r=x; s=y      r=y; s=x
 *	CoRR x=1           r=x; s=x
 *	2+2W x=1; y=2      y=1; x=2      and afterwards both are read
 *
 * Role 0 prints how often each outcome came, "01=17 11=3 ...": all loads, in
 * the order above.
 */

#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

#define ITERATIONS_MAX 20000u
#define ROLES_MAX      4u
#define LOADS_MAX      2u
#define TURNS          256u

struct shared {
	_Atomic uint32_t arrived;
	_Atomic uint32_t round;
	uint8_t load[ITERATIONS_MAX][ROLES_MAX][LOADS_MAX];
};

struct run {
	struct shared *sh;
	uint8_t *base;
	uint64_t x, y, pairs, step, seed;
	uint64_t before; /* no run before this one stored more */
	unsigned roles;
	/* of the iteration */
	volatile _Atomic uint64_t *px, *py;
	uint64_t one;
	uint8_t *load;
};

/* Plain moves: what TSO and the pages allow, not what the compiler does. */
static void store(volatile _Atomic uint64_t *at, uint64_t v)
{
	atomic_store_explicit(at, v, memory_order_release);
}

static bool load(const struct run *r, volatile _Atomic uint64_t *at)
{
	return atomic_load_explicit(at, memory_order_acquire) >= r->one;
}

static void fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

/* --- the shapes -------------------------------------------------------- */

static void sb(struct run *r, unsigned role, bool fenced)
{
	store(role == 0 ? r->px : r->py, r->one);
	if (fenced)
		fence();
	r->load[0] = load(r, role == 0 ? r->py : r->px);
}

static void sb_fenced(struct run *r, unsigned role)
{
	sb(r, role, true);
}

static void sb_tso(struct run *r, unsigned role)
{
	sb(r, role, false);
}

static void mp(struct run *r, unsigned role)
{
	if (role == 0) {
		store(r->px, r->one);
		store(r->py, r->one);
	} else {
		r->load[0] = load(r, r->py);
		r->load[1] = load(r, r->px);
	}
}

static void lb(struct run *r, unsigned role)
{
	r->load[0] = load(r, role == 0 ? r->px : r->py);
	store(role == 0 ? r->py : r->px, r->one);
}

static void iriw(struct run *r, unsigned role)
{
	if (role < 2) {
		store(role == 0 ? r->px : r->py, r->one);
	} else {
		r->load[0] = load(r, role == 2 ? r->px : r->py);
		r->load[1] = load(r, role == 2 ? r->py : r->px);
	}
}

static void corr(struct run *r, unsigned role)
{
	if (role == 0) {
		store(r->px, r->one);
	} else {
		r->load[0] = load(r, r->px);
		r->load[1] = load(r, r->px);
	}
}

static void ww(struct run *r, unsigned role)
{
	store(role == 0 ? r->px : r->py, r->one);
	store(role == 0 ? r->py : r->px, r->one + 1);
}

static const struct shape {
	const char *name;
	unsigned roles;
	uint8_t loads[ROLES_MAX]; /* of each role */
	void (*run)(struct run *, unsigned);
} shapes[] = {
	{ "SB", 2, { 1, 1 }, sb_fenced },    { "SBTSO", 2, { 1, 1 }, sb_tso },
	{ "MP", 2, { 0, 2 }, mp },           { "LB", 2, { 1, 1 }, lb },
	{ "IRIW", 4, { 0, 0, 2, 2 }, iriw }, { "CoRR", 2, { 0, 2 }, corr },
	{ "2+2W", 2, { 2, 0 }, ww },
};

/* --- iterations -------------------------------------------------------- */

static void meet(struct run *r)
{
	struct shared *sh = r->sh;
	uint32_t round = atomic_load(&sh->round);

	if (atomic_fetch_add(&sh->arrived, 1) + 1 == r->roles) {
		atomic_store(&sh->arrived, 0);
		atomic_store(&sh->round, round + 1);
		return;
	}
	/* There are more roles than processors. */
	while (atomic_load(&sh->round) == round)
		sched_yield();
}

static void iterate(struct run *r, const struct shape *s, unsigned role,
                    uint64_t i)
{
	uint64_t k = i % r->pairs * r->step;

	r->px = (void *)(r->base + (r->x + k) * PAGE_BYTES);
	r->py = (void *)(r->base + (r->y + k) * PAGE_BYTES);
	r->one = r->before + 2 * (i + 1);
	r->load = r->sh->load[i][role];
	meet(r);
	for (uint64_t n = tool_random(&r->seed) % TURNS; n > 0; n--)
		__asm__ volatile("pause");
	s->run(r, role);
	if (s->run != ww)
		return;
	meet(r); /* both have stored: which value stayed? */
	if (role == 0) {
		r->load[0] = atomic_load(r->px) == r->one + 1;
		r->load[1] = atomic_load(r->py) == r->one + 1;
	}
}

static void print_outcomes(const struct run *r, const struct shape *s,
                           uint64_t iterations)
{
	unsigned count[1u << (ROLES_MAX * LOADS_MAX)] = { 0 };
	unsigned loads = 0;
	char line[1024] = "";
	size_t at = 0;

	for (uint64_t i = 0; i < iterations; i++) {
		unsigned v = 0;

		loads = 0;
		for (unsigned role = 0; role < s->roles; role++)
			for (unsigned k = 0; k < s->loads[role]; k++, loads++)
				v = v << 1 | r->sh->load[i][role][k];
		count[v]++;
	}
	for (unsigned v = 0; v < 1u << loads; v++) {
		if (count[v] == 0)
			continue;
		for (unsigned k = loads; k > 0; k--)
			line[at++] = (char)('0' + (v >> (k - 1) & 1));
		at += (size_t)snprintf(line + at, sizeof(line) - at, "=%u ",
		                       count[v]);
	}
	tool_say("%s", line);
}

int main(int argc, char **argv)
{
	const struct shape *s = NULL;
	struct run r = { 0 };
	struct memspan *m;
	uint64_t iterations;
	unsigned role;

	if (argc != 12)
		tool_die("usage: litmus SOCKET SPACE SHAPE ROLE ITERATIONS "
		         "SHARED X Y PAIRS STEP SEED");
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (strcmp(argv[3], shapes[i].name) == 0)
			s = &shapes[i];
	role = (unsigned)tool_number(argv[4]);
	iterations = tool_number(argv[5]);
	if (!s || role >= s->roles || iterations > ITERATIONS_MAX)
		tool_die("no such shape or role, or too many iterations");
	r.roles = s->roles;
	r.sh = tool_share(argv[6], sizeof(*r.sh));
	r.x = tool_number(argv[7]);
	r.y = tool_number(argv[8]);
	r.pairs = tool_number(argv[9]);
	r.step = tool_number(argv[10]);
	r.before = tool_number(argv[11]) * (2 * ITERATIONS_MAX + 2);
	r.seed = r.before + role + 1;
	m = tool_attach(argv[1], argv[2]);
	r.base = memspan_addr(m);
	for (uint64_t i = 0; i < iterations; i++)
		iterate(&r, s, role, i);
	meet(&r);
	if (role == 0)
		print_outcomes(&r, s, iterations);
	memspan_detach(m);
	return 0;
}
