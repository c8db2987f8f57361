/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding copies for peers that are short of memory.
 *
 * A peer names pages that it wants to be rid of (STORE).  If there is room for
 * them below the high mark, we read them from their home as any reader does
 * (GET_S, marked so that home takes it for nothing more), and say which we hold
 * (STORED).  From then on they are pages like others: home counts us among
 * their holders, and when we are short of memory ourselves they may be the
 * first to go.
 *
 * What cannot be had at once is refused, without a second try: the peer knows
 * of others.
 */

#include <errno.h>

#include "node/shard.h"

static void stored(struct shard *s, node_id to, struct sspace *sp,
                   const struct store *st)
{
	struct msg m = { .type = MSG_STORED,
		         .space = st->space,
		         .page = st->page,
		         .mask = st->held,
		         .arg = st->mask & ~st->held };

	(void)peer_send(s, to, sp, &m, NULL, false, NULL);
}

/* Ask home for one page; true: an answer will come. */
static bool ask(struct sspace *sp, struct shard *s, gpn_t page)
{
	struct page_event ev = { .kind = PAGE_PREFETCH, .store = true };
	struct page_actions out;

	if (!frames_take(s, 1, MEMORY_SPARE)) {
		evict_trim(s); /* shared pages may make room */
		return false;
	}
	(void)page_step(s, sp, page, &ev, &out);
	frames_return(s);
	return out.n > 0;
}

/* Send what was asked for in one GET: its first page is not refused. */
static void get(struct shard *s, struct sspace *sp, node_id home, gpn_t base,
                uint64_t mask)
{
	unsigned first = (unsigned)__builtin_ctzll(mask);
	struct msg m = { .type = MSG_GET_S,
		         .flags = MSG_F_STORE,
		         .space = sp->space->id,
		         .page = base + first,
		         .mask = mask >> first };
	enum tp_sent sent = peer_send(s, home, sp, &m, NULL, false, NULL);

	assert(sent == TP_QUEUED); /* the credits were there */
}

/*
 * Pages of which home has no copy of its own are not granted as prefetch, so
 * each is asked for by itself, unless the one who evicts them is their home.
 */
static void get_all(struct shard *s, struct sspace *sp, node_id home,
                    gpn_t base, uint64_t mask, bool together)
{
	if (together && mask != 0) {
		get(s, sp, home, base, mask);
		return;
	}
	for (; mask != 0; mask &= mask - 1)
		get(s, sp, home, base, mask & -mask);
}

/* The home of the pages, if it can be asked now; else NODE_NONE. */
static node_id home_of(struct shard *s, struct sspace *sp, gpn_t page,
                       uint32_t n)
{
	struct place *pl = &sp->space->place;
	struct place_claim claim;
	struct parking *wait;
	node_id home = s->node->id;

	switch (place_asked(pl, extent_of(page), &home, &claim)) {
	case PLACE_HERE:
		return s->node->id;
	case PLACE_THERE:
		break;
	case PLACE_WAIT:
		shard_claim(s, sp, &claim);
		return NODE_NONE;
	}
	if (!peer_alive(s, home) ||
	    peer_credits(s, sp, home, page, &wait) < n + TP_PAGE_CREDITS / 4)
		return NODE_NONE;
	return home;
}

static struct store *store_free(struct speer *p)
{
	for (uint32_t i = 0; i < STORES_MAX; i++)
		if (p->store[i].space == 0)
			return &p->store[i];
	abort(); /* each has spent a page credit at least */
}

int store_request(struct shard *s, node_id from, uint8_t lane,
                  const struct msg *m)
{
	struct sspace *sp = shard_space(s, m->space);
	struct speer *p = peer_lane_of(s, from, lane);
	struct store st = { .space = m->space,
		            .page = m->page,
		            .mask = m->mask };
	node_id home;

	struct place *pl = &sp->space->place;

	if (p == NULL)
		return -EPROTO; /* nobody stores at himself */
	home = (node_id)(m->arg & 0xffff);
	/* For a home that never comes our clients would wait for ever. */
	if (pl->extent[extent_of(m->page)].home == 0 && home != s->node->id &&
	    peer_alive(s, home))
		place_told(pl, extent_of(m->page), home, true,
		           (uint32_t)(m->arg >> 16));
	home = home_of(s, sp, m->page, (uint32_t)__builtin_popcountll(m->mask));
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		const struct page_entry *e = &sp->space->pages[m->page + bit];

		if (page_held(e))
			st.held |= 1ull << bit;
		else if (home != NODE_NONE && !page_asked(e) &&
		         ask(sp, s, m->page + bit))
			st.pending |= 1ull << bit;
	}
	if (st.pending == 0) {
		stored(s, from, sp, &st);
		return 0;
	}
	*store_free(p) = st;
	p->n_store++;
	get_all(s, sp, home, m->page, st.pending, home == from);
	return 0;
}

/* Is the page one of those?  Then it is answered. */
static bool settle(struct store *st, space_id space, gpn_t page, bool held)
{
	uint64_t bit;

	if (st->space != space || page - st->page >= RUN_PAGES)
		return false;
	bit = 1ull << (page - st->page);
	if ((st->pending & bit) == 0)
		return false;
	st->pending &= ~bit;
	if (held)
		st->held |= bit;
	return true;
}

static void settle_lane(struct shard *s, node_id peer, struct speer *p,
                        struct sspace *sp, gpn_t page, bool held)
{
	uint32_t left = p->n_store;

	for (uint32_t i = 0; left > 0 && i < STORES_MAX; i++) {
		struct store *st = &p->store[i];

		left -= st->space != 0;
		if (!settle(st, sp->space->id, page, held) || st->pending != 0)
			continue;
		stored(s, peer, sp, st);
		*st = (struct store){ 0 };
		p->n_store--;
	}
}

void store_result(struct shard *s, struct sspace *sp, gpn_t page, bool held)
{
	for (node_id n = 0; n < s->n_members; n++) {
		struct speer *p = peer_of_page(s, sp, n, page);

		if (p != NULL && p->n_store > 0)
			settle_lane(s, n, p, sp, page, held);
	}
	/* Home must know that we have it before it lets another copy go. */
	if (held) {
		node_id home =
			(node_id)(sp->space->place.extent[extent_of(page)]
		                          .home -
		                  1);

		if (home != s->node->id && peer_alive(s, home))
			tp_ack_soon(s->tp, home, peer_lane(s, sp, home, page));
	}
}

void store_dropped(struct shard *s, space_id id)
{
	struct sspace *sp = shard_space(s, id);

	for (node_id n = 0; n < s->n_members; n++) {
		struct smember *m = &s->member[n];

		for (uint8_t k = 0; m->lane != NULL && k < m->shards; k++) {
			struct speer *p = &m->lane[k];

			for (uint32_t i = 0; p->n_store > 0 && i < STORES_MAX;
			     i++) {
				if (p->store[i].space != id)
					continue;
				stored(s, n, sp, &p->store[i]);
				p->store[i] = (struct store){ 0 };
				p->n_store--;
			}
		}
	}
}
