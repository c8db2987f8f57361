/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement
 * =========
 *
 * An extent that nobody has touched has no home.  The first node that faults on
 * it claims it from the coordinator, which records the claim durably before it
 * answers; then a first touch is a local affair.  Claims come in runs that
 * double while a node keeps touching new memory in order (1, 2, 4 ...
 * CLAIM_RUN_MAX extents), and the next run is claimed when half of what is open
 * is used up, so that a steady scan waits for the coordinator only at its
 * start.
 *
 * A claim opens the first half of its run: claimed but not opened means zeros,
 * whoever died [C3], so no more is opened than a scan is about to touch.
 *
 *	opened                claimed       unknown
 *	|--------------------|-------------|-------
 *	          ^ touched: half of what the last claim opened is used up
 *	            -> open on, and claim beyond
 *
 * A scan through pages of another node goes the same way, for it has to learn
 * whose they are.
 *
 * Each stripe has a claimant of its own, for a stripe is one shard's.  Where
 * one shard has them all, a run goes on into the next stripes, whose claimants
 * take over from the one before.
 */

#include "core/place.h"

#define STRIPE_BYTES (4ull << 20)

void cut_init(struct cut *c, uint64_t bytes)
{
	uint64_t stripes = bytes / STRIPE_BYTES;

	assert(bytes > 0);
	assert(bytes % PAGE_BYTES == 0);
	c->pages = bytes / PAGE_BYTES;
	c->extents = (uint32_t)((c->pages + EXTENT_PAGES - 1) / EXTENT_PAGES);
	if (stripes < 1)
		stripes = 1;
	if (stripes > STRIPES_MAX)
		stripes = STRIPES_MAX;
	c->stripes = (uint32_t)stripes;
	assert(c->stripes <= c->extents);
}

uint32_t cut_stripe_extent(const struct cut *c, uint32_t s)
{
	assert(s <= c->stripes);
	return (uint32_t)((uint64_t)s * c->extents / c->stripes);
}

/*
 * The largest s with s * extents / stripes <= extent, in integers:
 * s * extents < (extent + 1) * stripes.
 */
uint32_t cut_stripe_of(const struct cut *c, uint32_t extent)
{
	assert(extent < c->extents);
	return (uint32_t)((((uint64_t)extent + 1) * c->stripes - 1) /
	                  c->extents);
}

gpn_t cut_stripe_first(const struct cut *c, uint32_t s)
{
	return (gpn_t)cut_stripe_extent(c, s) * EXTENT_PAGES;
}

gpn_t cut_stripe_end(const struct cut *c, uint32_t s)
{
	return min_u64(cut_stripe_first(c, s + 1), c->pages);
}

/* Where a run that begins at `extent` has to end. */
static uint32_t run_end(const struct place *p, uint32_t extent)
{
	if (p->whole)
		return p->cut.extents;
	return cut_stripe_extent(&p->cut, cut_stripe_of(&p->cut, extent) + 1);
}

/* The claimant that watches `extent`, as its predecessor left off. */
static struct claimant *claimant_of(struct place *p, uint32_t extent)
{
	uint32_t s = cut_stripe_of(&p->cut, extent);
	struct claimant *c = &p->stripe[s];

	if (p->whole && s > 0 && c->run == 0 && c[-1].run > 0 &&
	    c[-1].next >= cut_stripe_extent(&p->cut, s))
		*c = c[-1];
	return c;
}

/*
 * Ask for [first, first + n), less what was asked or told already, and to open
 * the first half.  The claimant goes on behind what will be open.
 */
static void claim_run(struct place *p, struct claimant *c, uint32_t first,
                      uint32_t n, struct place_claim *claim)
{
	uint32_t end = run_end(p, first), n_open = (n + 1) / 2;

	if (n > end - first)
		n = end - first;
	for (uint32_t i = 0; i < n; i++) {
		struct extent *e = &p->extent[first + i];

		/* A run stops at what somebody has, or what is asked. */
		if ((e->asked & PLACE_F_ASKED) != 0 ||
		    (e->home != 0 &&
		     (e->home != p->self + 1u || e->opened != 0))) {
			n = i;
			break;
		}
	}
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		p->extent[first + i].asked |= PLACE_F_ASKED;
	claim->first = first;
	claim->n = n;
	claim->n_open = n_open < n ? n_open : n;
	claim->ask = false;
	c->next = first + claim->n_open;
}

/* A scan has come to `extent`: is it time for the next run? */
static void claim_ahead(struct place *p, struct claimant *c, uint32_t extent,
                        struct place_claim *claim)
{
	/* Only a scan that works through what its last run opened gets more;
	 * that was half of the run. */
	if (c->run == 0 || extent >= c->next ||
	    c->next - extent > (c->run + 3) / 4 ||
	    c->next >= run_end(p, extent))
		return;
	c->run = (uint32_t)min_u64(c->run * 2, CLAIM_RUN_MAX);
	claim_run(p, c, c->next, c->run, claim);
}

enum place_answer place_touch(struct place *p, uint32_t extent, node_id *home,
                              struct place_claim *claim)
{
	struct extent *e = &p->extent[extent];
	struct claimant *c = claimant_of(p, extent);

	claim->n = 0;
	if (e->home != 0 && (e->home != p->self + 1u || e->opened != 0)) {
		claim_ahead(p, c, extent, claim);
		*home = (node_id)(e->home - 1);
		return e->home == p->self + 1u ? PLACE_HERE : PLACE_THERE;
	}
	if ((e->asked & PLACE_F_ASKED) == 0) {
		c->run = extent == c->next && c->run > 0 ?
		                 (uint32_t)min_u64(c->run * 2, CLAIM_RUN_MAX) :
		                 1;
		claim_run(p, c, extent, c->run, claim);
	}
	return PLACE_WAIT;
}

enum place_answer place_asked(struct place *p, uint32_t extent, node_id *home,
                              struct place_claim *claim)
{
	struct extent *e = &p->extent[extent];

	claim->n = 0;
	if (e->home == p->self + 1u && e->opened != 0)
		return PLACE_HERE;
	if (e->home != 0 && e->home != p->self + 1u) {
		*home = (node_id)(e->home - 1);
		return PLACE_THERE;
	}
	if ((e->asked & PLACE_F_ASKED) == 0) {
		e->asked |= PLACE_F_ASKED;
		claim->first = extent;
		claim->n = 1;
		/* Ours but not opened: the peer is about to touch it. */
		claim->ask = e->home == 0;
		claim->n_open = claim->ask ? 0 : 1;
	}
	return PLACE_WAIT;
}

void place_told(struct place *p, uint32_t extent, node_id home, bool opened,
                uint32_t version)
{
	struct extent *e = &p->extent[extent];

	e->asked &= (uint8_t)~PLACE_F_ASKED;
	if (home == NODE_NONE || version < e->version)
		return;
	if (version > e->version)
		e->asked = 0; /* another home: not asked about yet */
	e->home = (uint16_t)(home + 1u);
	e->opened = opened;
	e->version = version;
}

void place_unanswered(struct place *p, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		p->extent[first + i].asked &= (uint8_t)~PLACE_F_ASKED;
}

bool place_recheck(struct place *p, uint32_t extent)
{
	struct extent *e = &p->extent[extent];

	if ((e->asked & PLACE_F_RECHECKED) != 0)
		return false;
	e->asked |= PLACE_F_RECHECKED;
	e->home = 0;
	return true;
}

void place_moved(struct place *p, uint32_t extent, uint32_t version)
{
	struct extent *e = &p->extent[extent];

	if (e->home == p->self + 1u || version < e->version)
		return;
	e->home = 0;
}
