/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The home side: requests and answers about pages that are homed here, decided
 * by core/dir, carried out as messages.
 *
 * A GET names up to 64 pages.  What can be granted to its sender at once
 * gathers in s->answers and leaves as one message per kind when the local queue
 * has run empty (answers_flush): so a scan costs one message per window, and
 * when the pages are our own clients', one write-protect per run of pages.
 *
 * Payload pointers reach into the alias, into a frame or into a receive buffer;
 * all three stay what they are until the message that needs them was queued,
 * which copies.
 */

#include <errno.h>
#include <string.h>

#include "node/shard.h"

/* --- gathering --------------------------------------------------------- */

static bool gathers(const struct shard *s, const struct sspace *sp, node_id to,
                    gpn_t page)
{
	return s->answers.on && s->answers.to == to && s->answers.space == sp &&
	       page - s->answers.base < RUN_PAGES;
}

static void answers_send(struct shard *s, enum msg_type type, uint64_t mask,
                         uint64_t refused)
{
	const struct answers *a = &s->answers;
	const uint8_t *page[RUN_PAGES];
	struct msg m = { .type = type,
		         .space = a->space->space->id,
		         .page = a->base,
		         .mask = mask,
		         .arg = refused };
	unsigned n = 0;

	uint64_t seq = 0;

	if (type == MSG_GRANT_S)
		for (uint64_t rest = mask; rest != 0; rest &= rest - 1)
			page[n++] = a->page[__builtin_ctzll(rest)];
	if (peer_send(s, a->to, a->space, &m, n > 0 ? page : NULL, a->net,
	              &seq) == TP_QUEUED &&
	    n > 0)
		unacked_granted(s, a->to, a->space, a->base, mask, seq, false);
}

/* Send what has gathered: each page of the GET is named once. */
static void answers_flush(struct shard *s)
{
	struct answers *a = &s->answers;

	if (!a->on)
		return;
	a->on = false;
	if (a->s != 0)
		answers_send(s, MSG_GRANT_S, a->s, a->refused);
	if (a->zero != 0)
		answers_send(s, MSG_GRANT_ZERO, a->zero,
		             a->s != 0 ? 0 : a->refused);
	if (a->s == 0 && a->zero == 0 && a->refused != 0)
		answers_send(s, MSG_GRANT_S, 0, a->refused);
	if ((a->drop | a->stay) != 0)
		answers_send(s, MSG_DROP, a->drop, a->stay);
}

/* --- actions ----------------------------------------------------------- */

struct step { /* one page's step, being carried out */
	struct shard *s;
	struct sspace *sp;
	gpn_t page;
	const uint8_t *bytes; /* the event's, or NULL */
	bool net;
	bool discard; /* it is a request for zeros */
};

static void grant_s(const struct step *t, const struct dir_action *a,
                    node_id to)
{
	struct shard *s = t->s;
	const uint8_t *b = t->bytes;
	struct msg m = { .type = MSG_GRANT_S,
		         .flags = a->more ? MSG_F_MORE : 0,
		         .space = t->sp->space->id,
		         .page = t->page,
		         .mask = 1 };
	uint64_t seq = 0;

	if (!a->event_bytes)
		b = page_bytes(s, t->sp, t->page);
	if (!a->more && gathers(s, t->sp, to, t->page)) {
		uint64_t i = t->page - s->answers.base;

		s->answers.s |= 1ull << i;
		s->answers.page[i] = b;
		s->answers.net |= t->net;
		return;
	}
	if (peer_send(s, to, t->sp, &m, &b, t->net, &seq) == TP_QUEUED)
		unacked_granted(s, to, t->sp, t->page, 1, seq, a->more);
}

static void grant_x(const struct step *t, const struct dir_action *a)
{
	struct msg m = { .type = MSG_GRANT_X,
		         .flags = a->migrate ? MSG_F_MIGRATE : 0,
		         .space = t->sp->space->id,
		         .page = t->page,
		         .mask = 1 };
	uint64_t seq = 0;

	(void)peer_send(t->s, a->node, t->sp, &m, &t->bytes, t->net, &seq);
	if (a->node == t->s->node->id)
		/* Applied before anything that is sent now arrives. */
		unacked_forget(t->s, t->sp, t->page, a->requester, a->number);
	else
		unacked_forget_later(t->s, a->node, t->sp, t->page, seq,
		                     a->requester, a->number);
}

static void plain(const struct step *t, node_id to, enum msg_type type)
{
	bool again = type == MSG_AGAIN && t->discard;
	struct msg m = { .type = type,
		         .flags = again ? MSG_F_DISCARD : 0,
		         .space = t->sp->space->id,
		         .page = t->page,
		         .mask = 1 };

	if (type == MSG_GRANT_ZERO && gathers(t->s, t->sp, to, t->page)) {
		t->s->answers.zero |= 1ull << (t->page - t->s->answers.base);
		t->s->answers.net |= t->net;
		return;
	}
	(void)peer_send(t->s, to, t->sp, &m, NULL, t->net, NULL);
}

static void order(const struct step *t, node_id to, enum msg_type type,
                  node_id requester)
{
	struct msg m = { .type = type,
		         .space = t->sp->space->id,
		         .page = t->page,
		         .mask = 1,
		         .arg = type == MSG_RECALL_X && requester != NODE_NONE ?
		                        requester :
		                        0 };

	struct answers *a = &t->s->answers;

	/* An order must not overtake a grant of the same page that has only
	 * gathered: its node would say that it holds nothing, and then hold. */
	if (gathers(t->s, t->sp, to, t->page) &&
	    ((a->s | a->zero) >> (t->page - a->base) & 1) != 0) {
		answers_flush(t->s);
		a->on = true;
		a->s = a->zero = a->refused = a->drop = a->stay = 0;
	}
	peer_recall(t->s, to, t->sp, &m);
}

static void carry_out_one(const struct step *t, const struct dir_action *a,
                          node_id to)
{
	struct shard *s = t->s;

	switch (a->kind) {
	case DIR_SEND_GRANT_S:
		grant_s(t, a, to);
		break;
	case DIR_SEND_GRANT_X:
		grant_x(t, a);
		break;
	case DIR_SEND_GRANT_ZERO:
		plain(t, to, MSG_GRANT_ZERO);
		break;
	case DIR_SEND_UPGRADE:
		plain(t, to, MSG_UPGRADE);
		break;
	case DIR_SEND_LOST:
		plain(t, to, MSG_GRANT_LOST);
		break;
	case DIR_SEND_REFUSED:
		assert(gathers(s, t->sp, to, t->page));
		s->answers.refused |= 1ull << (t->page - s->answers.base);
		break;
	case DIR_SEND_AGAIN:
		plain(t, to, MSG_AGAIN);
		break;
	case DIR_SEND_DISCARDED:
		plain(t, to, MSG_DISCARDED);
		break;
	case DIR_SEND_RECALL_S:
		order(t, to, MSG_RECALL_S, NODE_NONE);
		break;
	case DIR_SEND_RECALL_X:
		order(t, to, MSG_RECALL_X, a->requester);
		break;
	case DIR_SEND_INVAL:
		order(t, to, MSG_INVAL, NODE_NONE);
		break;
	case DIR_SEND_DROP:
		assert(gathers(s, t->sp, to, t->page));
		s->answers.drop |= 1ull << (t->page - s->answers.base);
		break;
	case DIR_SEND_STAY:
		assert(gathers(s, t->sp, to, t->page));
		s->answers.stay |= 1ull << (t->page - s->answers.base);
		break;
	case DIR_KEEP:
		holder_keep(s, t->sp, t->page, t->bytes);
		break;
	case DIR_FORGET:
		unacked_forget(s, t->sp, t->page, to, a->number);
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
		NODESET_FOREACH(n, &out->sets[a->set])
		carry_out_one(t, a, n);
	}
}

/* What is counted of a page's state. */
struct view {
	enum dir_state state;
	bool scarce; /* nobody writes it, and fewer hold it than should */
};

static struct view view(const struct step *t)
{
	const struct dir_entry *e = &t->sp->space->dir[t->page];
	struct view v = { .state = dir_state(e) };
	struct nodeset holders;

	if (t->sp->space->replicas > 1 && v.state == DIR_SHARED) {
		dir_holders(t->s->dir, e, &holders);
		v.scarce = nodeset_count(&holders) < t->sp->space->replicas;
	}
	return v;
}

/* Keep the space's figures: pages that exist, and that are lost. */
static void count(const struct step *t, struct view was, struct view is)
{
	struct space *sp = t->sp->space;
	const struct {
		_Atomic uint64_t *pages;
		bool was, is;
	} figure[] = {
		{ &sp->written, was.state != DIR_UNTOUCHED,
		  is.state != DIR_UNTOUCHED },
		{ &sp->lost, was.state == DIR_LOST, is.state == DIR_LOST },
		{ &sp->under_replicated, was.scarce, is.scarce },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(figure); i++) {
		if (figure[i].was && !figure[i].is)
			atomic_fetch_sub_explicit(figure[i].pages, 1,
			                          memory_order_relaxed);
		if (!figure[i].was && figure[i].is)
			atomic_fetch_add_explicit(figure[i].pages, 1,
			                          memory_order_relaxed);
	}
}

/* One page, one event: decide, and carry it out.  0 or -EPROTO. */
static int take_step(const struct step *t, const struct dir_event *ev)
{
	struct dir_entry *e = &t->sp->space->dir[t->page];
	struct view was = view(t), is;
	struct dir_actions out;
	int r = dir_handle(t->s->dir, e, ev, &out);

	if (r < 0)
		return r;
	is = view(t);
	if (is.state != was.state || is.scarce != was.scarce)
		count(t, was, is);
	carry_out(t, &out);
	return 0;
}

/* --- requests ---------------------------------------------------------- */

/* We are not the home, or do not know yet: say so for the whole request. */
static void turn_away(struct shard *s, node_id from, struct sspace *sp,
                      const struct msg *m, enum msg_type type, uint64_t arg)
{
	struct msg ans = { .type = type,
		           .flags = m->type == MSG_DISCARD ? MSG_F_DISCARD : 0,
		           .space = m->space,
		           .page = m->page,
		           .mask = m->mask,
		           .arg = arg };

	if (m->type == MSG_EVICT) {
		/* The copy stays; it may be asked about again. */
		ans.type = MSG_DROP;
		ans.arg = m->mask;
		ans.mask = 0;
	}
	(void)peer_send(s, from, sp, &ans, NULL, false, NULL);
}

/* True: the extent is homed here and may be touched. */
static bool at_home(struct shard *s, node_id from, struct sspace *sp,
                    const struct msg *m)
{
	struct place *pl = &sp->space->place;
	uint32_t e = extent_of(m->page);
	struct place_claim claim;
	node_id home = NODE_NONE;

	if (from == s->node->id)
		return true; /* touch.c asked core/place before it sent */
	switch (place_asked(pl, e, &home, &claim)) {
	case PLACE_HERE:
		return true;
	case PLACE_THERE:
		/* Who asks may know better: it may be ours by now. */
		if (peer_over(s, home) && place_recheck(pl, e))
			return at_home(s, from, sp, m);
		turn_away(s, from, sp, m, MSG_MOVED,
		          home | (uint64_t)pl->extent[e].version << 16);
		return false;
	case PLACE_WAIT:
		shard_claim(s, sp, &claim);
		turn_away(s, from, sp, m, MSG_AGAIN, 0);
		return false;
	}
	return false;
}

static enum dir_event_kind request_kind(enum msg_type type)
{
	if (type == MSG_GET_S)
		return DIR_GET_S;
	if (type == MSG_DISCARD)
		return DIR_DISCARD;
	if (type == MSG_EVICT)
		return DIR_EVICT;
	assert(type == MSG_GET_X);
	return DIR_GET_X;
}

/* Who of a page's holders may not have applied what it was granted. */
static void unconfirmed(const struct step *t, struct nodeset *ret)
{
	dir_holders(t->s->dir, &t->sp->space->dir[t->page], ret);
	unacked_only(t->s, t->sp, t->page, ret);
}

int home_request(struct shard *s, node_id from, uint8_t lane,
                 const struct msg *m, bool net)
{
	struct sspace *sp = shard_space(s, m->space);
	struct nodeset unsure;
	struct dir_event ev = {
		.kind = request_kind(m->type),
		.from = from,
		.store = (m->flags & MSG_F_STORE) != 0,
		.careful = sp->space->replicas > 1,
		.need = (uint8_t)max_u64(1, sp->space->replicas),
		.now_us = s->now_us,
	};
	const bool get = m->type == MSG_GET_S || m->type == MSG_GET_X;

	(void)lane;
	if (!at_home(s, from, sp, m))
		return 0;

	answers_flush(s);
	s->answers = (struct answers){
		.on = true, .to = from, .space = sp, .base = m->page
	};
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		struct step t = { .s = s,
			          .sp = sp,
			          .page = m->page + bit,
			          .net = net && from == s->node->id,
			          .discard = m->type == MSG_DISCARD };

		ev.prefetch = bit > 0 && get;
		if (m->type == MSG_EVICT) {
			unconfirmed(&t, &unsure);
			ev.unconfirmed = &unsure;
		}
		ev.home_ready = ev.prefetch &&
		                holder_ready(s, &sp->space->pages[t.page]);
		if (take_step(&t, &ev) < 0)
			return -EPROTO;
	}
	return 0;
}

/* --- answers ----------------------------------------------------------- */

int home_answer(struct shard *s, node_id from, const struct msg *m,
                const uint8_t *const *page, bool net)
{
	struct sspace *sp = shard_space(s, m->space);
	struct dir_event ev = {
		.kind = m->type == MSG_ACK      ? DIR_ACK :
		        m->type == MSG_ACK_DATA ? DIR_ACK_DATA :
		                                  DIR_NOT_HELD,
		.from = from,
		.number = m->type == MSG_ACK_DATA ? m->arg : 0,
		.now_us = s->now_us,
	};
	unsigned n = 0;

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		struct step t = {
			.s = s,
			.sp = sp,
			.page = m->page + (unsigned)__builtin_ctzll(rest),
			.bytes = page == NULL ? NULL : page[n++],
			.net = net,
		};
		const struct page_entry *p;

		p = &sp->space->pages[t.page];
		ev.can_keep = page_may_keep(p);
		ev.may_keep = from != s->node->id && ev.can_keep &&
		              frames_take(s, 1, MEMORY_SPARE);
		if (take_step(&t, &ev) < 0) {
			frames_return(s);
			return -EPROTO;
		}
		frames_return(s);
	}
	return 0;
}

void home_applied(struct shard *s, struct sspace *sp, gpn_t page, node_id from)
{
	struct step t = { .s = s, .sp = sp, .page = page, .net = true };
	struct dir_event ev = { .kind = DIR_APPLIED,
		                .from = from,
		                .now_us = s->now_us };

	/* Not awaited any more: whoever was to write has died meanwhile. */
	(void)take_step(&t, &ev);
}

void home_flush(struct shard *s)
{
	answers_flush(s);
}

/* --- death of a peer --------------------------------------------------- */

static bool homed_in_shard(const struct shard *s, const struct sspace *sp,
                           uint32_t extent)
{
	const struct extent *x = &sp->space->place.extent[extent];

	return cut_shard(cut_stripe_of(&sp->space->cut, extent),
	                 s->node->cfg.shards) == s->index &&
	       x->home == s->node->id + 1u && x->opened != 0;
}

static void gone_extent(struct shard *s, struct sspace *sp, uint32_t extent,
                        node_id peer)
{
	gpn_t first = (gpn_t)extent * EXTENT_PAGES;
	gpn_t end = min_u64(first + EXTENT_PAGES, sp->space->cut.pages);

	for (gpn_t at = first; at < end; at++) {
		struct dir_event ev = { .kind = DIR_GONE,
			                .from = peer,
			                .now_us = s->now_us };
		struct step t = { .s = s, .sp = sp, .page = at, .net = true };

		if (dir_state(&sp->space->dir[at]) == DIR_UNTOUCHED)
			continue;
		(void)take_step(&t, &ev); /* no rule forbids to die */
		peer_drain(s);
	}
}

/* Who still waits for a page has its credits back. */
static void drop_waiters(struct shard *s, struct sspace *sp, gpn_t page)
{
	struct step t = { .s = s, .sp = sp, .page = page };
	struct dir_view v;

	dir_view(s->dir, &sp->space->dir[page], &v);
	if (v.served != NODE_NONE)
		nodeset_add(v.kind == DIR_DISCARD ? &v.wait_d : &v.wait_s,
		            v.served);
	for (unsigned i = 0; i < NODESET_WORDS; i++)
		v.wait_s.w[i] |= v.wait_x.w[i];
	nodeset_remove(&v.wait_s, s->node->id);
	nodeset_remove(&v.wait_d, s->node->id);
	NODESET_FOREACH(n, &v.wait_s)
	plain(&t, n, MSG_AGAIN);
	t.discard = true;
	NODESET_FOREACH(n, &v.wait_d)
	plain(&t, n, MSG_AGAIN);
}

void home_dropped(struct shard *s, struct sspace *sp)
{
	const struct cut *cut = &sp->space->cut;

	for (uint32_t e = 0; e < cut->extents; e++) {
		gpn_t at = (gpn_t)e * EXTENT_PAGES;
		gpn_t end = min_u64(at + EXTENT_PAGES, cut->pages);

		if (!homed_in_shard(s, sp, e))
			continue;
		for (; at < end; at++) {
			if (dir_state(&sp->space->dir[at]) == DIR_BUSY)
				drop_waiters(s, sp, at);
			dir_drop(s->dir, &sp->space->dir[at]);
		}
	}
}

void home_gone(struct shard *s, node_id peer)
{
	for (struct sspace *sp = s->spaces; sp != NULL; sp = sp->next) {
		const struct cut *cut = &sp->space->cut;

		for (uint32_t e = 0; e < cut->extents; e++)
			if (homed_in_shard(s, sp, e))
				gone_extent(s, sp, e, peer);
	}
}
