/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Epochs never go back, neither at a node nor at a coordinator that has
 * crashed; and whoever takes an extent for its own has it in the durable
 * record.
 */
#include "sim.h"

void check_epoch_adopt(struct node *n, uint32_t old, uint32_t epoch)
{
	if (epoch < old)
		sim_fail(n->sim, "check_epoch",
		         "node %u goes back from epoch %u to %u", n->id, old,
		         epoch);
}

void check_epoch_coord(struct sim *s, uint32_t old, uint32_t epoch)
{
	if (epoch < old)
		sim_fail(s, "check_epoch",
		         "the coordinator goes back from epoch %u to %u", old,
		         epoch);
}

void check_epoch_home(struct node *n, uint32_t extent)
{
	const struct extent *mine = &n->place.extent[extent];
	const struct extent *truth = &n->sim->coord.extent[extent];

	if (mine->home == n->id + 1u && mine->opened != 0 &&
	    (truth->home != mine->home || truth->opened == 0))
		sim_fail(n->sim, "check_epoch",
		         "node %u takes extent %u for its own, which it is not",
		         n->id, extent);
}
