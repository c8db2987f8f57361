/* SPDX-License-Identifier: Apache-2.0 */
/* Sequential scans, which make windows of prefetch: mostly reads. */
#include "sim.h"

static void next(struct sim *s, struct thread *t, struct op *op)
{
	gpn_t in = t->scan % EXTENT_PAGES;

	if (t->scan == 0 || in + 1 >= SCAN_FIRST + s->scan_pages ||
	    sim_one_in(s, 200))
		t->scan = sim_below(s, s->cut.extents) * EXTENT_PAGES +
		          SCAN_FIRST +
		          (sim_one_in(s, 2) ? 0 : sim_below(s, s->scan_pages));
	else
		t->scan++;
	op->kind = sim_one_in(s, 12) ? OP_WRITE : OP_READ;
	op->page[0] = t->scan;
}

static uint64_t pages(const struct sim *s)
{
	return (uint64_t)s->cut.extents * s->scan_pages;
}

const struct work work_scan = { "scan", next, pages };
