/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No frame leaks: when all is at rest, nothing is frozen, and what is staged is
 * some page's.
 */
#include "sim.h"

static uint32_t staged(const struct node *n)
{
	uint32_t ret = 0;

	for (gpn_t p = 0; p < n->sim->cut.pages; p++)
		ret += page_staged(&n->page[p]);
	return ret;
}

void check_frames_end(struct sim *s)
{
	for (uint32_t i = 0; i < s->nodes; i++) {
		const struct node *n = s->node[i];

		if (n->dead || n->frames_free + staged(n) == n->frames)
			continue;
		sim_fail(s, "check_frames",
		         "node %u keeps %u of %u frames that nobody will ask "
		         "for",
		         i, n->frames - n->frames_free - staged(n), n->frames);
	}
}
