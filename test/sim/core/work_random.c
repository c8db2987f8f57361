/* SPDX-License-Identifier: Apache-2.0 */
/* Random touches of a few hot pages, in all extents: reads and writes. */
#include "sim.h"

#define HOT_FIRST 128u
#define HOT_PAGES 3u

static void next(struct sim *s, struct thread *t, struct op *op)
{
	uint64_t e = sim_below(s, s->cut.extents);

	(void)t;
	op->kind = sim_one_in(s, 3) ? OP_WRITE : OP_READ;
	op->page[0] = e * EXTENT_PAGES + HOT_FIRST + sim_below(s, HOT_PAGES);
}

static uint64_t pages(const struct sim *s)
{
	return s->cut.extents * HOT_PAGES;
}

const struct work work_random = { "random", next, pages };
