/* SPDX-License-Identifier: Apache-2.0 */
/* Atomic increments; check_value.c counts how many there were. */
#include "sim.h"

#define COUNTER_FIRST 8u
#define COUNTERS      2u

static void next(struct sim *s, struct thread *t, struct op *op)
{
	uint64_t e = sim_below(s, min_u64(s->cut.extents, 2));

	(void)t;
	op->kind = OP_ADD;
	op->page[0] = e * EXTENT_PAGES + COUNTER_FIRST + sim_below(s, COUNTERS);
}

static uint64_t pages(const struct sim *s)
{
	return min_u64(s->cut.extents, 2) * COUNTERS;
}

const struct work work_counter = { "counter", next, pages };
