/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capacity, the side that is asked to hold a page for somebody else: it reads
 * it from its home, like every other reader, and says so once it has it.
 *
 * Only below the high mark: what is beyond is for who waits.  Whoever must
 * refuse tries to let go what others hold too; it never pushes pages on, or two
 * full nodes would push the same ones to and fro.
 */
#include "sim.h"

/* How many pages may we ask the home of an extent for?  Fills *home. */
static uint32_t may_ask(struct node *n, gpn_t page, node_id *home)
{
	struct place_claim claim;

	*home = n->id;
	if (place_asked(&n->place, extent_of(page), home, &claim) ==
	    PLACE_WAIT) {
		coord_claim(n, &claim);
		return 0;
	}
	if (*home == n->id)
		return RUN_PAGES;
	if (!node_alive(n, *home))
		return 0;
	return n->credits - net_session(n->sim, n->id, *home)->pages_open;
}

/* Ask for a page; false: no. */
static bool take(struct node *n, gpn_t page)
{
	struct page_event ev = { .kind = PAGE_PREFETCH,
		                 .store = true,
		                 .now_us = now_us(n->sim) };
	struct page_actions out;

	if (n->page[page].state != PAGE_I)
		return false;
	if (!evict_room(n, MARK_HIGH)) {
		n->squeezed++;
		return false;
	}
	(void)node_step(n, page, &ev, &out);
	assert(out.n == 1);
	return true;
}

/* True: nothing more will come of it. */
static bool settle(const struct node *n, struct held *h, gpn_t page)
{
	const struct page_entry *p = &n->page[page];
	uint64_t bit = 1ull << (page - h->base);
	bool has = page_held(p) && !page_staged(p);

	if (!has && page_asked(p))
		return false;
	h->left &= ~bit;
	if (has)
		h->ok |= bit;
	else
		h->refused |= bit;
	return true;
}

static void answer(struct node *n, const struct held *h)
{
	struct message m = { .kind = M_STORED,
		             .page = h->base,
		             .mask = h->ok,
		             .arg = h->refused };

	node_send(n, h->from, &m, NULL);
}

void store_asked(struct node *n, node_id from, const struct message *m)
{
	struct held h = { .from = from, .base = m->page, .left = m->mask };
	struct message get = { .kind = M_GET_S,
		               .store = true,
		               .page = m->page };
	struct held *own;
	node_id home;
	uint32_t credits = may_ask(n, m->page, &home);

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		uint64_t bit = rest & -rest;
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);

		if (!page_held(&n->page[page]) && !page_asked(&n->page[page]) &&
		    credits > 0 && take(n, page)) {
			get.mask |= bit;
			credits--;
		}
		(void)settle(n, &h, page);
	}
	if (n->squeezed > 0)
		evict_soon(n);
	if (get.mask != 0)
		node_send(n, home, &get, NULL);
	if (h.left == 0) {
		answer(n, &h);
		return;
	}
	own = sim_alloc(1, sizeof(*own));
	*own = h;
	own->next = n->held;
	n->held = own;
}

void store_settled(struct node *n, gpn_t page)
{
	struct held **link = &n->held;

	while (*link != NULL) {
		struct held *h = *link;

		if (page - h->base < RUN_PAGES &&
		    (h->left >> (page - h->base) & 1) != 0 &&
		    settle(n, h, page) && h->left == 0) {
			*link = h->next;
			answer(n, h);
			free(h);
			continue;
		}
		link = &h->next;
	}
}

void store_free(struct node *n)
{
	while (n->held != NULL) {
		struct held *h = n->held;

		n->held = h->next;
		free(h);
	}
}
