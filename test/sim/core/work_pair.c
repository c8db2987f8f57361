/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores across a page boundary: one instruction needs both pages at once [B3].
 * Some boundaries are between extents, so that the pages have two homes.
 *
 * In large clusters four nodes share a pair.  Residency breaks the tie of a few
 * writers, not of dozens: whoever has one page cannot wait out the queue for
 * the other.
 */
#include "sim.h"

#define PAIR_FIRST 64u
#define PAIRS      2u
#define CLUSTER    8u /* nodes that may all write one pair */

static void next(struct sim *s, struct thread *t, struct op *op)
{
	uint64_t e = sim_below(s, s->cut.extents - 1);
	gpn_t page = e * EXTENT_PAGES + PAIR_FIRST + 2 * sim_below(s, PAIRS);

	if (s->nodes > CLUSTER)
		page = e * EXTENT_PAGES + PAIR_FIRST + 2 * (t->node->id / 4);
	else if (sim_one_in(s, 3))
		page = (e + 1) * EXTENT_PAGES - 1;
	if (s->opt.delay_us != 0)
		page = EXTENT_PAGES - 1; /* the one pair of the B3 figure */
	op->kind =
		s->opt.delay_us == 0 && sim_one_in(s, 4) ? OP_READ : OP_WRITE;
	op->n = 2;
	op->page[0] = page;
	op->page[1] = page + 1;
}

static uint64_t pages(const struct sim *s)
{
	uint64_t pairs = s->nodes > CLUSTER ? s->nodes / 4 + 1 : PAIRS + 1;

	return (s->cut.extents - 1) * 2ull * pairs;
}

const struct work work_pair = { "pair", next, pages };
