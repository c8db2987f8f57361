/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was sent to a peer, and what is to happen when the peer has applied it.
 *
 * FORGETs: bytes that were given up stay with their giver until whoever was
 * granted them has applied the grant [A7].  The list per requester is ordered
 * by sequence number, so an acknowledgement takes records off its head.
 *
 * Reads granted: home counts a copy that is still on its way as a holder, but
 * not as one that another copy may be dropped for [A16].  A ring for each lane
 * has what was granted, by sequence number, and a table of counts by hash of
 * the page says at once if something of a page is in it (or of another page of
 * the same hash: then a copy stays a moment longer than it must).  A session
 * has no more pages under way than page credits, so neither can overflow.
 */

#include <errno.h>

#include "node/shard.h"

/* --- FORGET ------------------------------------------------------------ */

static void forget_append(struct shard *s, uint32_t *head, uint32_t *tail,
                          uint32_t i)
{
	s->forget[i].next = 0;
	if (*tail != 0)
		s->forget[*tail].next = i;
	else
		*head = i;
	*tail = i;
}

/* Tell the giver.  False: there is no room for it now. */
static bool forget_tell(struct shard *s, const struct forget *f)
{
	struct sspace *sp = shard_space(s, f->space);
	struct msg m = { .type = MSG_FORGET,
		         .space = f->space,
		         .page = f->page,
		         .mask = 1,
		         .arg = f->number };

	if (f->giver == s->node->id)
		holder_forget(s, f->number);
	else if (f->giver != NODE_NONE && sp != NULL)
		return peer_send(s, f->giver, sp, &m, NULL, false, NULL) !=
		       TP_FULL;
	/* Else it died, and its frames with it; or they went with the space. */
	return true;
}

static void forget_unsent(struct shard *s, uint32_t i)
{
	const struct forget *f = &s->forget[i];
	struct sspace *sp = shard_space(s, f->space);
	struct speer *p = peer_of_page(s, sp, f->giver, f->page);

	forget_append(s, &p->unsent_head, &p->unsent_tail, i);
}

static void forget_send(struct shard *s, uint32_t i)
{
	if (!forget_tell(s, &s->forget[i])) {
		forget_unsent(s, i);
		return;
	}
	s->forget[i].next = s->free_forget;
	s->free_forget = i;
}

/* A record of `f`, or 0 if there is none left. */
static uint32_t forget_record(struct shard *s, const struct forget *f)
{
	uint32_t i = s->free_forget;

	if (i == 0)
		return 0;
	s->free_forget = s->forget[i].next;
	s->forget[i] = *f;
	return i;
}

void unacked_forget(struct shard *s, struct sspace *sp, gpn_t page,
                    node_id giver, uint64_t number)
{
	struct forget f = { .number = number,
		            .giver = giver,
		            .space = sp->space->id,
		            .page = page };
	uint32_t i;

	if (giver == NODE_NONE || number == 0 || forget_tell(s, &f))
		return;
	i = forget_record(s, &f);
	if (i != 0)
		forget_unsent(s, i);
	/* Else the giver keeps it for as long as there is the space: with
	 * 8,192 under way a frame is better lost than a node. */
}

void unacked_forget_later(struct shard *s, node_id to, struct sspace *sp,
                          gpn_t page, uint64_t seq, node_id giver,
                          uint64_t number)
{
	struct forget f = { .seq = seq,
		            .number = number,
		            .giver = giver,
		            .space = sp->space->id,
		            .page = page };
	struct speer *p = peer_of_page(s, sp, to, page);
	uint32_t i;

	if (giver == NODE_NONE || number == 0)
		return;
	/* If the requester died nobody has the bytes but the giver, and
	 * recovery is not there to use them. */
	i = p != NULL ? forget_record(s, &f) : 0;
	if (i == 0) {
		unacked_forget(s, sp, page, giver, number);
		return;
	}
	forget_append(s, &p->forget_head, &p->forget_tail, i);
}

/* --- reads granted ------------------------------------------------------ */

static uint32_t slot_of(space_id space, gpn_t page)
{
	uint64_t h = (page ^ (uint64_t)space << 40) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 48) % GRANTED_SLOTS;
}

static uint16_t *unapplied(struct speer *p, space_id space, gpn_t page)
{
	return &p->unapplied[slot_of(space, page)];
}

void unacked_granted(struct shard *s, node_id to, struct sspace *sp, gpn_t page,
                     uint64_t mask, uint64_t seq, bool more)
{
	struct speer *p = peer_of_page(s, sp, to, page);
	struct granted *g;

	if (p == NULL)
		return; /* ourselves, or a peer that just died */
	assert(p->granted_n < GRANTED_MAX);
	g = &p->granted[(p->granted_first + p->granted_n++) % GRANTED_MAX];
	*g = (struct granted){ .seq = seq,
		               .space = sp->space->id,
		               .page = page,
		               .mask = mask,
		               .more = more };
	for (; mask != 0; mask &= mask - 1)
		++*unapplied(p, g->space,
		             page + (unsigned)__builtin_ctzll(mask));
}

void unacked_only(struct shard *s, struct sspace *sp, gpn_t page,
                  struct nodeset *set)
{
	struct nodeset all = *set;

	NODESET_FOREACH(n, &all)
	{
		const struct speer *p = peer_of_page(s, sp, n, page);

		/* What was granted when the session was over never left. */
		if (n == s->node->id ||
		    (p != NULL && !p->over &&
		     p->unapplied[slot_of(sp->space->id, page)] == 0))
			nodeset_remove(set, n);
	}
}

static void applied(struct shard *s, struct speer *p, node_id peer)
{
	struct granted g = p->granted[p->granted_first];
	struct sspace *sp = shard_space(s, g.space);

	p->granted_first = (p->granted_first + 1) % GRANTED_MAX;
	p->granted_n--;
	for (uint64_t m = g.mask; m != 0; m &= m - 1)
		--*unapplied(p, g.space, g.page + (unsigned)__builtin_ctzll(m));
	if (g.more && sp != NULL)
		home_applied(s, sp, g.page, peer);
}

/* --- what became of it --------------------------------------------------- */

void unacked_acked(struct shard *s, struct speer *p, node_id peer, uint64_t seq)
{
	while (p->forget_head != 0 && s->forget[p->forget_head].seq <= seq) {
		uint32_t i = p->forget_head;

		p->forget_head = s->forget[i].next;
		if (p->forget_head == 0)
			p->forget_tail = 0;
		forget_send(s, i);
	}
	while (p->granted_n > 0 && p->granted[p->granted_first].seq <= seq)
		applied(s, p, peer);
	peer_drain(s);
}

static void forget_list(struct shard *s, uint32_t head)
{
	while (head != 0) {
		uint32_t next = s->forget[head].next;

		forget_send(s, head);
		head = next;
	}
}

void unacked_ready(struct shard *s, struct speer *p)
{
	uint32_t i = p->unsent_head;

	p->unsent_head = p->unsent_tail = 0;
	forget_list(s, i);
}

void unacked_gone(struct shard *s, node_id peer)
{
	/* Its next life has frames of the same numbers. */
	for (uint32_t i = 1; i <= FORGETS_MAX; i++)
		if (s->forget[i].giver == peer)
			s->forget[i].giver = NODE_NONE;
}

void unacked_lane_gone(struct shard *s, struct speer *p)
{
	/* What it was granted and may not have got is lost, before there is
	 * recovery; so nobody needs to keep it. */
	forget_list(s, p->forget_head);
	forget_list(s, p->unsent_head);
}

/* --- life ---------------------------------------------------------------- */

int unacked_init(struct shard *s, struct errmsg *em)
{
	s->forget = calloc(FORGETS_MAX + 1, sizeof(*s->forget));
	if (s->forget == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for %u FORGETs",
		                  FORGETS_MAX);
	for (uint32_t i = FORGETS_MAX; i > 0; i--) {
		s->forget[i].next = s->free_forget;
		s->free_forget = i;
	}
	return 0;
}

int unacked_lane(struct speer *p)
{
	p->granted = calloc(GRANTED_MAX, sizeof(*p->granted));
	return p->granted == NULL ? -ENOMEM : 0;
}

void unacked_lane_done(struct speer *p)
{
	free(p->granted);
	p->granted = NULL;
}
