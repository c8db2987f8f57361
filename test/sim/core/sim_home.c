/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The home side, as in node/home.c: core/dir decides, what one GET is granted
 * gathers and leaves as one message per kind when the local queue is empty.
 */
#include "sim.h"

struct step { /* one page's step, being carried out */
	struct node *n;
	gpn_t page;
	uint64_t bytes; /* the event's */
	bool discard;   /* the event is a DISCARD: so is what AGAIN refuses */
};

/* A core that refuses what a correct shell says is a core that is wrong. */
static void refused(struct node *n, node_id from, gpn_t page, unsigned kind)
{
	sim_fail(n->sim, "rules",
	         "home %u refuses event %u of node %u about page %llu", n->id,
	         kind, from, (unsigned long long)page);
}

/* --- gathering --------------------------------------------------------- */

static bool gathers(const struct node *n, node_id to, gpn_t page)
{
	return n->answers.on && n->answers.to == to &&
	       page - n->answers.base < RUN_PAGES;
}

/* Until `to` has applied message `seq`. */
static void await_applied(struct node *n, node_id to, struct granted g)
{
	struct granted **link = &n->granted[to];
	struct granted *own = sim_alloc(1, sizeof(*own));

	*own = g;
	while (*link != NULL)
		link = &(*link)->next;
	*link = own;
}

/* Reads that were granted: a copy on its way is not one to count on. */
static void await_reads(struct node *n, node_id to, const struct message *m,
                        uint64_t seq)
{
	if (!n->sim->limited || seq == 0)
		return;
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1)
		await_applied(n, to,
		              (struct granted){
				      .seq = seq,
				      .giver = NODE_NONE,
				      .more = m->more,
				      .page = m->page +
		                              (unsigned)__builtin_ctzll(rest),
			      });
}

static void answers_send(struct node *n, enum kind kind, uint64_t mask,
                         uint64_t not_granted)
{
	uint64_t seq = 0;
	struct message m = { .kind = kind,
		             .page = n->answers.base,
		             .mask = mask,
		             .arg = not_granted };

	for (unsigned i = 0; i < RUN_PAGES; i++)
		m.bytes[i] = kind == M_GRANT_S ? n->answers.bytes[i] : 0;
	node_send(n, n->answers.to, &m, &seq);
	if (kind == M_GRANT_S)
		await_reads(n, n->answers.to, &m, seq);
}

void home_flush(struct node *n)
{
	struct answers *a = &n->answers;

	if (!a->on)
		return;
	a->on = false;
	if (a->s != 0)
		answers_send(n, M_GRANT_S, a->s, a->refused);
	if (a->zero != 0)
		answers_send(n, M_GRANT_ZERO, a->zero,
		             a->s != 0 ? 0 : a->refused);
	if (a->s == 0 && a->zero == 0 && a->refused != 0)
		answers_send(n, M_GRANT_S, 0, a->refused);
}

/* --- frozen frames ----------------------------------------------------- */

void home_forget(struct node *n, gpn_t page, node_id giver, uint64_t number)
{
	struct message m = {
		.kind = M_FORGET, .page = page, .mask = 1, .arg = number
	};

	if (giver == NODE_NONE || number == 0 ||
	    sim_plant(n->sim, PLANT_LEAK, 32))
		return;
	if (giver == n->id)
		holder_forget(n, number);
	else
		node_send(n, giver, &m, NULL);
}

static void forget_later(struct node *n, node_id to, uint64_t seq, gpn_t page,
                         node_id giver, uint64_t number)
{
	if (giver == NODE_NONE || number == 0)
		return;
	await_applied(n, to,
	              (struct granted){ .seq = seq,
	                                .number = number,
	                                .giver = giver,
	                                .page = page });
}

void node_acked(struct node *n, node_id peer, uint64_t seq)
{
	struct granted *g;

	while ((g = n->granted[peer]) != NULL && g->seq <= seq) {
		n->granted[peer] = g->next;
		home_forget(n, g->page, g->giver, g->number);
		if (g->more && node_alive(n, peer))
			home_applied(n, peer, g->page);
		free(g);
	}
}

/* --- actions ----------------------------------------------------------- */

static void plain(const struct step *t, node_id to, enum kind kind)
{
	struct message m = { .kind = kind, .page = t->page, .mask = 1 };

	m.discard = kind == M_AGAIN && t->discard;
	node_send(t->n, to, &m, NULL);
}

static void grant_s(const struct step *t, node_id to,
                    const struct dir_action *a)
{
	struct node *n = t->n;
	struct message m = {
		.kind = M_GRANT_S, .page = t->page, .mask = 1, .more = a->more
	};
	struct message applied = { .kind = M_APPLIED,
		                   .page = t->page,
		                   .mask = 1 };
	uint64_t bytes = t->bytes, seq = 0;

	if (!a->event_bytes)
		bytes = mem_bytes(n, t->page);
	if (gathers(n, to, t->page) && !a->more) {
		n->answers.s |= 1ull << (t->page - n->answers.base);
		n->answers.bytes[t->page - n->answers.base] = bytes;
		return;
	}
	m.bytes[0] = bytes;
	node_send(n, to, &m, &seq);
	await_reads(n, to, &m, seq);
	if (to == n->id && a->more)
		node_send(n, to, &applied, NULL);
}

static void grant_x(const struct step *t, const struct dir_action *a)
{
	struct node *n = t->n;
	struct message m = { .kind = M_GRANT_X,
		             .page = t->page,
		             .mask = 1,
		             .bytes = { t->bytes } };
	uint64_t seq = 0;

	node_send(n, a->node, &m, &seq);
	/* To ourselves: applied before anything sent now arrives.  To a dead
	 * node: nobody has the bytes but the giver, and nobody asks it. */
	if (a->node == n->id || seq == 0)
		home_forget(n, t->page, a->requester, a->number);
	else
		forget_later(n, a->node, seq, t->page, a->requester, a->number);
}

static void grant_zero(const struct step *t, node_id to)
{
	struct answers *a = &t->n->answers;

	if (gathers(t->n, to, t->page))
		a->zero |= 1ull << (t->page - a->base);
	else
		plain(t, to, M_GRANT_ZERO);
}

static void order(const struct step *t, node_id to, enum kind kind,
                  node_id requester)
{
	struct node *n = t->n;
	struct message *last;
	struct message m = {
		.kind = kind, .page = t->page, .mask = 1, .arg = requester
	};

	/* What was granted leaves first: an INVAL that overtook the grant it is
	 * meant to undo would find no copy (a page that is shared by more than
	 * the pools have room for is granted and taken in one step). */
	if (gathers(n, to, t->page) && !sim_plant(n->sim, PLANT_OVERTAKE, 1)) {
		home_flush(n);
		n->answers.on = true;
		n->answers.s = n->answers.zero = n->answers.refused = 0;
	}
	last = n->local.tail;
	/* A scan recalls a run from us: one order for all of it. */
	if (to == n->id && last != NULL && kind == M_RECALL_S &&
	    last->kind == M_RECALL_S && t->page - last->page < RUN_PAGES) {
		last->mask |= 1ull << (t->page - last->page);
		return;
	}
	node_send(n, to, &m, NULL);
}

static void carry_out_one(const struct step *t, const struct dir_action *a,
                          node_id to)
{
	struct node *n = t->n;

	switch (a->kind) {
	case DIR_SEND_GRANT_S:
		grant_s(t, to, a);
		break;
	case DIR_SEND_GRANT_X:
		grant_x(t, a);
		break;
	case DIR_SEND_GRANT_ZERO:
		grant_zero(t, to);
		break;
	case DIR_SEND_UPGRADE:
		plain(t, to, M_UPGRADE);
		break;
	case DIR_SEND_LOST:
		plain(t, to, M_GRANT_LOST);
		break;
	case DIR_SEND_REFUSED:
		assert(gathers(n, to, t->page));
		n->answers.refused |= 1ull << (t->page - n->answers.base);
		break;
	case DIR_SEND_AGAIN:
		plain(t, to, M_AGAIN);
		break;
	case DIR_SEND_DISCARDED:
		check_value_zeroed(n->sim, t->page);
		plain(t, to, M_DISCARDED);
		break;
	case DIR_SEND_RECALL_S:
		order(t, to, M_RECALL_S, NODE_NONE);
		break;
	case DIR_SEND_RECALL_X:
		order(t, to, M_RECALL_X, a->requester);
		break;
	case DIR_SEND_INVAL:
		order(t, to, M_INVAL, NODE_NONE);
		break;
	case DIR_SEND_DROP:
	case DIR_SEND_STAY:
		abort(); /* home_evict() answers for many pages at once */
	case DIR_KEEP:
		holder_keep(n, t->page, t->bytes);
		break;
	case DIR_FORGET:
		home_forget(n, t->page, to, a->number);
		break;
	}
}

static void carry_out(const struct step *t, const struct dir_actions *out)
{
	for (uint32_t i = 0; i < out->n; i++) {
		const struct dir_action *a = &out->v[i];

		if (a->node != NODE_NONE) {
			carry_out_one(t, a, a->node);
			continue;
		}
		NODESET_FOREACH(to, &out->sets[a->set])
		carry_out_one(t, a, to);
	}
}

/* --- requests ---------------------------------------------------------- */

/* True: the extent is homed here and may be touched. */
static bool at_home(struct node *n, node_id from, const struct message *m)
{
	struct message ans = { .kind = M_AGAIN,
		               .discard = m->kind == M_DISCARD,
		               .page = m->page,
		               .mask = m->mask };
	uint32_t e = extent_of(m->page);
	struct place_claim claim;
	node_id home = NODE_NONE;

	if (from == n->id)
		return true; /* node_touch() asked core/place */
	switch (place_asked(&n->place, e, &home, &claim)) {
	case PLACE_HERE:
		return true;
	case PLACE_THERE:
		ans.kind = M_MOVED;
		ans.arg = n->place.extent[e].version;
		break;
	case PLACE_WAIT:
		coord_claim(n, &claim);
		break;
	}
	node_send(n, from, &ans, NULL);
	return false;
}

void home_request(struct node *n, node_id from, const struct message *m)
{
	struct dir_event ev = { .kind = m->kind == M_GET_S   ? DIR_GET_S :
		                        m->kind == M_DISCARD ? DIR_DISCARD :
		                                               DIR_GET_X,
		                .from = from,
		                .store = m->store,
		                .careful = n->sim->copies > 1 &&
		                           n->sim->opt.plant != PLANT_CARELESS,
		                .now_us = now_us(n->sim) };

	if (!at_home(n, from, m))
		return;
	home_flush(n);
	n->answers =
		(struct answers){ .on = true, .to = from, .base = m->page };
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		struct step t = { .n = n,
			          .page = m->page + bit,
			          .discard = m->kind == M_DISCARD };
		struct dir_actions out;

		ev.prefetch = bit > 0 && m->kind != M_DISCARD && !m->store;
		ev.home_ready = ev.prefetch && holder_ready(n, t.page);
		if (dir_handle(n->dir, &n->entry[t.page], &ev, &out) < 0) {
			refused(n, from, t.page, ev.kind);
			return;
		}
		carry_out(&t, &out);
	}
}

/* --- answers ----------------------------------------------------------- */

void home_answer(struct node *n, node_id from, const struct message *m)
{
	struct dir_event ev = {
		.kind = m->kind == M_ACK      ? DIR_ACK :
		        m->kind == M_ACK_DATA ? DIR_ACK_DATA :
		                                DIR_NOT_HELD,
		.from = from,
		.number = m->kind == M_ACK_DATA ? m->arg : 0,
		.now_us = now_us(n->sim),
	};

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		struct step t = { .n = n,
			          .page = m->page + bit,
			          .bytes = m->bytes[bit] };
		struct dir_actions out;

		ev.can_keep = page_may_keep(&n->page[t.page]);
		ev.may_keep = from != n->id && ev.can_keep &&
		              evict_room(n, MARK_HIGH) &&
		              !sim_one_in(n->sim, 4);
		if (dir_handle(n->dir, &n->entry[t.page], &ev, &out) < 0) {
			refused(n, from, t.page, ev.kind);
			return;
		}
		carry_out(&t, &out);
	}
}

void home_applied(struct node *n, node_id from, gpn_t page)
{
	struct dir_event ev = { .kind = DIR_APPLIED,
		                .from = from,
		                .now_us = now_us(n->sim) };
	struct step t = { .n = n, .page = page };
	struct dir_actions out;

	if (dir_handle(n->dir, &n->entry[page], &ev, &out) < 0)
		refused(n, from, page, ev.kind);
	else
		carry_out(&t, &out);
}

/* --- may it go? -------------------------------------------------------- */

/* Nodes that were granted a read and may not have it yet. */
static struct nodeset unconfirmed(struct node *n, gpn_t page)
{
	struct nodeset ret = { 0 };

	if (n->sim->opt.plant == PLANT_UNCONFIRMED)
		return ret;
	for (uint32_t i = 0; i < n->sim->nodes; i++)
		for (struct granted *g = n->granted[i]; g != NULL; g = g->next)
			if (g->page == page && g->number == 0)
				nodeset_add(&ret, (node_id)i);
	/* ... nor what is still being gathered. */
	if (gathers(n, n->answers.to, page) &&
	    (n->answers.s >> (page - n->answers.base) & 1) != 0)
		nodeset_add(&ret, n->answers.to);
	return ret;
}

void home_evict(struct node *n, node_id from, const struct message *m)
{
	struct message ans = { .kind = M_DROP, .page = m->page };

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		uint64_t bit = rest & -rest;
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);
		struct nodeset not_yet = unconfirmed(n, page);
		struct dir_event ev = { .kind = DIR_EVICT,
			                .from = from,
			                .need = (uint8_t)n->sim->copies,
			                .unconfirmed = &not_yet,
			                .now_us = now_us(n->sim) };
		struct dir_actions out;

		if (n->sim->opt.plant == PLANT_ONE_COPY)
			ev.need = 1;
		if (dir_handle(n->dir, &n->entry[page], &ev, &out) < 0) {
			refused(n, from, page, ev.kind);
			return;
		}
		assert(out.n == 1);
		if (out.v[0].kind == DIR_SEND_DROP) {
			check_copies_drop(n, page, from);
			n->sim->evictions++;
			ans.mask |= bit;
		} else {
			ans.arg |= bit;
		}
	}
	node_send(n, from, &ans, NULL);
}

/* --- death of a peer --------------------------------------------------- */

void home_gone(struct node *n, node_id peer)
{
	for (gpn_t at = 0; at < n->sim->cut.pages; at++) {
		struct dir_event ev = { .kind = DIR_GONE,
			                .from = peer,
			                .now_us = now_us(n->sim) };
		struct step t = { .n = n, .page = at };
		struct dir_actions out;

		if (dir_state(&n->entry[at]) == DIR_UNTOUCHED)
			continue;
		(void)dir_handle(n->dir, &n->entry[at], &ev, &out);
		carry_out(&t, &out);
		node_drain(n);
	}
}
