/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No node is ever above its limit, by the pages that its memory has: whenever
 * one more comes, and all counted once more at the end.
 *
 * And: does the memory of those who live suffice for what there is?  Then
 * nobody may wait for ever.
 */
#include <stdio.h>

#include "sim.h"

void check_limit(struct node *n)
{
	struct sim *s = n->sim;

	if (n->forced > 0 && s->dead == 0)
		sim_fail(s, "check_limit",
		         "node %u exceeds its limit to save a page, and no "
		         "node has died",
		         n->id);
	if (n->mem.pages > n->limit + n->forced)
		sim_fail(s, "check_limit",
		         "node %u has %u pages, and its limit is %u", n->id,
		         n->mem.pages, n->limit);
}

void check_limit_end(struct sim *s)
{
	for (uint32_t i = 0; i < s->nodes; i++) {
		const struct node *n = s->node[i];
		uint32_t pages = 0, promised = 0;

		if (n->dead)
			continue;
		for (gpn_t p = 0; p < s->cut.pages; p++) {
			pages += n->mem.present[p];
			promised += page_asked(&n->page[p]);
		}
		if (pages != n->mem.pages || n->used != pages || promised != 0)
			sim_fail(s, "check_limit",
			         "node %u counts %u pages, has %u, and has "
			         "asked for %u",
			         i, n->used, pages, promised);
	}
}

/* Pages that cannot leave node `n`, for their home is dead. */
static uint32_t pinned(const struct sim *s, struct node *n)
{
	uint32_t ret = 0;

	for (gpn_t p = 0; p < s->cut.pages; p++) {
		const struct extent *x = &s->coord.extent[extent_of(p)];

		ret += x->home != 0 && s->node[x->home - 1]->dead &&
		       page_held(&n->page[p]);
	}
	return ret;
}

/* Pages that somebody may ask for, and somebody has. */
static uint32_t reachable(const struct sim *s)
{
	uint32_t ret = 0;

	for (gpn_t p = 0; p < s->cut.pages; p++) {
		const struct extent *x = &s->coord.extent[extent_of(p)];
		bool has = false;

		for (uint32_t i = 0; i < s->nodes; i++)
			has = has || page_held(&s->node[i]->page[p]);
		ret += has && x->home != 0 && !s->node[x->home - 1]->dead;
	}
	return ret;
}

bool check_limit_suffices(struct sim *s)
{
	uint32_t pages = reachable(s), alive = 0;
	uint64_t room = 0;

	for (uint32_t i = 0; i < s->nodes; i++) {
		struct node *n = s->node[i];
		uint32_t gone;

		if (n->dead)
			continue;
		alive++;
		gone = pinned(s, n);
		if (gone + 2 > n->high)
			return false;
		room += min_u64(n->high - gone, pages);
	}
	return alive > s->copies && room >= (uint64_t)pages * s->copies;
}

/* Who has what, for whoever looks into a wait without end. */
void check_limit_say(const struct sim *s)
{
	for (uint32_t i = 0; i < s->nodes; i++) {
		const struct node *n = s->node[i];
		uint32_t held[PAGE_LOST + 1] = { 0 }, sole = 0;

		for (gpn_t p = 0; p < s->cut.pages; p++) {
			bool others = false;

			held[n->page[p].state]++;
			for (uint32_t k = 0; k < s->nodes; k++)
				others = others ||
				         (k != i &&
				          page_held(&s->node[k]->page[p]));
			sole += n->page[p].state == PAGE_S && !others;
		}
		printf("node %u%s: %u pages of %u, high %u; S %u (alone %u), "
		       "M %u; staged %u of %u, frames %u of %u free\n",
		       i, n->dead ? " (dead)" : "", n->used, n->limit, n->high,
		       held[PAGE_S], sole, held[PAGE_M], n->staged,
		       n->staging_max, n->frames_free, n->frames);
		for (uint32_t k = 0; k < n->staged; k++)
			printf("\tstaged page %llu, state %u, phase %u, "
			       "stored %u, tried %llx\n",
			       (unsigned long long)n->staging[k].page,
			       n->page[n->staging[k].page].state,
			       n->staging[k].phase, n->staging[k].stored,
			       (unsigned long long)n->staging[k].tried);
	}
}
