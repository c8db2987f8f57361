/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One writer or many readers, by memory rights: if any client of a node may
 * write a page, no client of another node may touch it.  Looked at whenever
 * rights grow and at each access.
 */
#include "sim.h"

void check_swmr(struct sim *s, gpn_t page)
{
	node_id writer = NODE_NONE, other = NODE_NONE;

	for (uint32_t i = 0; i < s->nodes; i++) {
		enum rights r;

		if (s->node[i]->dead)
			continue;
		r = mem_rights(s->node[i], page);
		if (r == RIGHTS_WRITE && writer == NODE_NONE)
			writer = (node_id)i;
		else if (r != RIGHTS_NONE)
			other = (node_id)i;
	}
	if (writer != NODE_NONE && other != NODE_NONE)
		sim_fail(s, "check_swmr",
		         "node %u may write page %llu while node %u may %s it",
		         writer, (unsigned long long)page, other,
		         mem_rights(s->node[other], page) == RIGHTS_WRITE ?
		                 "write" :
		                 "read");
}

/* At rest homes and holders must agree, or rights were only lucky. */
void check_swmr_end(struct sim *s)
{
	for (gpn_t p = 0; p < s->cut.pages; p++) {
		const struct extent *x = &s->coord.extent[extent_of(p)];
		const struct node *home;

		if (x->home == 0)
			continue;
		home = s->node[x->home - 1];
		if (home->dead)
			continue;
		if (dir_state(&home->entry[p]) == DIR_BUSY)
			sim_fail(s, "check_live", "page %llu is busy for ever",
			         (unsigned long long)p);
		for (uint32_t i = 0; i < s->nodes; i++) {
			struct node *n = s->node[i];

			if (n->dead ||
			    page_held(&n->page[p]) == dir_holds(home->dir,
			                                        &home->entry[p],
			                                        (node_id)i))
				continue;
			sim_fail(s, "check_swmr",
			         "node %u and home %u disagree whether it "
			         "holds page %llu",
			         i, home->id, (unsigned long long)p);
		}
	}
}
