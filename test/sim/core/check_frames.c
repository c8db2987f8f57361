/* SPDX-License-Identifier: Apache-2.0 */
/* No frame leaks: when all is at rest, nothing is frozen. */
#include "sim.h"

void check_frames_end(struct sim *s)
{
	for (uint32_t i = 0; i < s->nodes; i++) {
		const struct node *n = s->node[i];

		if (n->dead || n->frames_free == n->frames)
			continue;
		sim_fail(s, "check_frames",
		         "node %u keeps %u of %u frames that nobody will ask "
		         "for",
		         i, n->frames - n->frames_free, n->frames);
	}
}
