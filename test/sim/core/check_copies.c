/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No copy goes that somebody must keep, by what the nodes' memories have:
 *
 * When home lets a copy go, as many others as the space has replicas have the
 * page's last value, in memory or staged.  When a node lets it go, it is
 * somewhere at least.  And where a space has replicas, the death of one node
 * loses nothing that another had, unless it had just asked for the page.
 */
#include "sim.h"

/* Has node `n` the last value, where it may be asked for it? */
static bool has_copy(const struct sim *s, const struct node *n, gpn_t page)
{
	if (n->mem.present[page])
		return n->mem.bytes[page] == s->truth[page].value;
	for (uint32_t f = 1; f <= n->frames; f++)
		if (n->frame_home[f] == NODE_STAGED &&
		    n->frame_page[f] == page &&
		    n->frame[f] == s->truth[page].value)
			return true;
	return false;
}

/* ... or in a frame that is frozen: it was given away. */
static bool has_bytes(const struct sim *s, const struct node *n, gpn_t page)
{
	for (uint32_t f = 1; f <= n->frames; f++)
		if (n->frame_home[f] != NODE_NONE && n->frame_page[f] == page &&
		    n->frame[f] == s->truth[page].value)
			return true;
	return has_copy(s, n, page);
}

/* Somebody wants zeros there: then there may be no copy for a while. */
static bool discarded(const struct sim *s, gpn_t page)
{
	for (uint32_t i = 0; i < s->nodes; i++) {
		const struct discard *d = &s->node[i]->discard;

		if (d->on && page - d->base < RUN_PAGES &&
		    ((d->mask | d->left) >> (page - d->base) & 1) != 0)
			return true;
	}
	return false;
}

void check_copies_drop(struct node *home, gpn_t page, node_id evictor)
{
	struct sim *s = home->sim;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->nodes; i++)
		n += i != evictor && has_copy(s, s->node[i], page);
	if (n < s->copies && !s->truth[page].maybe_zeros)
		sim_fail(s, "check_copies",
		         "home %u lets node %u drop page %llu, which %u others "
		         "have, not %u",
		         home->id, evictor, (unsigned long long)page, n,
		         s->copies);
}

void check_copies_released(struct node *n, gpn_t page)
{
	struct sim *s = n->sim;

	for (uint32_t i = 0; i < s->nodes; i++)
		if (i != n->id && has_bytes(s, s->node[i], page))
			return;
	if (s->truth[page].value != 0 && s->dead == 0 && !discarded(s, page))
		sim_fail(s, "check_copies",
		         "node %u drops page %llu, and nobody else has it",
		         n->id, (unsigned long long)page);
}

/* Just before its death: which pages are no business of it? */
void check_copies_died(struct node *n)
{
	struct sim *s = n->sim;

	for (gpn_t p = 0; p < s->cut.pages; p++) {
		bool safe = s->copies > 1 && s->dead == 0 &&
		            !page_asked(&n->page[p]);
		bool has = false;

		for (uint32_t i = 0; i < s->nodes; i++)
			has = has || (i != n->id && has_copy(s, s->node[i], p));
		s->truth[p].safe = safe && has;
	}
}

void check_copies_lost(struct node *n, gpn_t page)
{
	struct sim *s = n->sim;
	const struct extent *x = &s->coord.extent[extent_of(page)];

	if (s->truth[page].safe && s->dead == 1 && x->home != 0 &&
	    !s->node[x->home - 1]->dead)
		sim_fail(s, "check_copies",
		         "page %llu is lost at node %u, though another than "
		         "the dead had it",
		         (unsigned long long)page, n->id);
}
