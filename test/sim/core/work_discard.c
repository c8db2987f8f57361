/* SPDX-License-Identifier: Apache-2.0 */
/* Discards of short runs, and touches of the pages that are discarded. */
#include "sim.h"

#define DISCARD_FIRST 448u
#define DISCARD_PAGES 8u

static void next(struct sim *s, struct thread *t, struct op *op)
{
	uint64_t e = sim_below(s, min_u64(s->cut.extents, 3));
	uint64_t at = sim_below(s, DISCARD_PAGES);

	(void)t;
	op->page[0] = e * EXTENT_PAGES + DISCARD_FIRST + at;
	op->pages = 1 + (uint32_t)sim_below(s, DISCARD_PAGES - at);
	op->kind = sim_one_in(s, 5) ? OP_DISCARD :
	           sim_one_in(s, 2) ? OP_WRITE :
	                              OP_READ;
}

static uint64_t pages(const struct sim *s)
{
	return min_u64(s->cut.extents, 3) * DISCARD_PAGES;
}

const struct work work_discard = { "discard", next, pages };
