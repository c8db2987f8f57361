/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving: staged pages whose turn has come are held by peers, and go.
 *
 *	S: EVICT -> home -- DROP --> gone: others hold it anyway
 *	          |
 *	         STAY
 *	          v
 *	M: STORE -> peer -- STORED --> EVICT -> home -- DROP --> gone
 *	       ^       |                          |
 *	       '-- refused: another one          STAY: again, later
 *
 * The peer that stores a page reads it from its home like any reader
 * (store.c), and home counts who holds it: so whatever happens in between (a
 * touch, a recall, a write, a death) is an ordinary case of the protocol, and
 * what is written here may be late or wrong without harm.
 *
 * When no peer has room the node is *tight* for a while: only pages in S are
 * staged, for others may hold them.  Nothing else can go: no page is dropped
 * that nobody else has.
 */

#include <errno.h>

#include "node/shard.h"

#define CREDITS_LEFT (TP_PAGE_CREDITS / 2) /* for faults */
#define TIGHT_NS     (100 * NSEC_PER_MSEC)
#define RETRY_NS     (1 * NSEC_PER_MSEC) /* doubled with each STAY */
#define TRIES_MAX    8u                  /* then it goes back */

/* --- frames whose turn has come ------------------------------------------ */

/* A frame is in the ring once at most: also while it is used anew. */
void leave_add(struct shard *s, uint32_t frame)
{
	struct staged *t = &s->staged[frame];

	t->phase = STAGED_LEAVES;
	if (t->queued)
		return;
	t->queued = true;
	assert(s->leaving_n < s->n_frames);
	s->leaving[(s->leaving_first + s->leaving_n++) % s->n_frames] = frame;
}

static uint32_t leaving_take(struct shard *s)
{
	uint32_t frame = s->leaving[s->leaving_first];

	s->leaving_first = (s->leaving_first + 1) % s->n_frames;
	s->leaving_n--;
	s->staged[frame].queued = false;
	return frame;
}

void leave_unstaged(struct shard *s, uint32_t frame)
{
	bool queued = s->staged[frame].queued;

	assert(s->staged[frame].phase != STAGED_NOT);
	s->staged[frame] = (struct staged){ .queued = queued };
	memory_staged(&s->node->memory, false);
}

/* How many others are to hold a page before it goes from here. */
uint8_t leave_need(const struct sspace *sp)
{
	return (uint8_t)min_u64(max_u64(1, sp->space->replicas), REPLICAS_MAX);
}

static node_id home_of(const struct sspace *sp, gpn_t page)
{
	/* NODE_NONE: it moved, and we have not heard where to. */
	return (node_id)(sp->space->place.extent[extent_of(page)].home - 1);
}
/* Can its home be asked, and will it know of the page? */
bool leave_home_knows(const struct shard *s, const struct sspace *sp,
                      gpn_t page)
{
	uint32_t extent = extent_of(page);

	return peer_alive(s, home_of(sp, page)) &&
	       (sp->orphan[extent / 64] >> (extent % 64) & 1) == 0;
}
/* It cannot go: it is resident again, mapped when it is touched. */
static void put_back(struct shard *s, uint32_t frame)
{
	struct sspace *sp = s->staged[frame].space;
	gpn_t page = s->staged[frame].page;
	struct page_event ev = { .kind = PAGE_TOUCH, .now_us = s->now_us };
	struct page_actions out;

	if (!evict_for_back(s)) {
		leave_add(s, frame); /* later */
		return;
	}
	(void)page_step(s, sp, page, &ev, &out);
	frames_return(s);
	assert(out.n == 1 && out.v[0].kind == PAGE_INSTALL_BACK);
	holder_back(s, sp, page, frame);
	s->put_back++;
}

static bool holds_it(const struct staged *t, node_id n)
{
	for (uint8_t i = 0; i < t->n_at; i++)
		if (t->at[i] == n)
			return true;
	return false;
}

/* What a peer is worth to us: none, if it has not room for a batch or so. */
static uint64_t room_of(const struct shard *s, node_id n)
{
	if (n == s->node->id || !peer_alive(s, n))
		return 0;
	return atomic_load_explicit(&s->node->peer_room[n],
	                            memory_order_relaxed) >>
	       4;
}

bool leave_tight(const struct shard *s)
{
	if (loop_now(s->loop) < s->tight_until)
		return true;
	if (s->no_frame.n > 0 || atomic_load_explicit(&s->node->memory.waiting,
	                                              memory_order_relaxed) > 0)
		return false;
	for (node_id n = 0; n < s->n_members; n++)
		if (room_of(s, n) > 0)
			return false;
	return true;
}

void leave_refused(struct shard *s)
{
	(void)atomic_fetch_add_explicit(&s->node->memory.refused, 1,
	                                memory_order_relaxed);
}

/*
 * Who is to hold the page?  One of those with room, the likelier the more; its
 * home before others, for then the bytes travel once.
 */
static node_id choose_peer(struct shard *s, const struct staged *t,
                           node_id home)
{
	uint64_t sum = 0, pick;

	for (unsigned pass = 0; pass < 2; pass++) {
		if (pass == 1 && sum == 0)
			return NODE_NONE;
		pick = pass == 1 ? prng_below(&s->random, (uint32_t)sum) : 0;
		for (node_id n = 0; n < s->n_members; n++) {
			uint64_t room = room_of(s, n);

			if (holds_it(t, n))
				continue;
			room *= n == home ? 4 : 1;
			if (pass == 0)
				sum += room;
			else if (pick < room)
				return n;
			else
				pick -= room;
		}
		sum = min_u64(sum, UINT32_MAX);
	}
	return NODE_NONE;
}

/* What goes to one node about pages of one window. */
struct order {
	enum msg_type type;
	node_id to;
	struct sspace *space;
	gpn_t base;
	uint64_t mask;
	uint32_t room; /* credits that may still be spent */
};

static void order_send(struct shard *s, struct order *o)
{
	struct msg m = { .type = o->type, .page = o->base, .mask = o->mask };
	enum tp_sent sent;

	if (o->mask == 0)
		return;
	m.space = o->space->space->id;
	if (o->type == MSG_STORE) {
		const struct extent *x =
			&o->space->space->place.extent[extent_of(o->base)];

		/* The peer need not ask whose they are. */
		m.arg = (uint64_t)(x->home - 1u) | (uint64_t)x->version << 16;
	}
	sent = peer_send(s, o->to, o->space, &m, NULL, false, NULL);
	assert(sent == TP_QUEUED); /* the credits were there */
	o->mask = 0;
}

/* Add a page; false: its request cannot be sent now. */
static bool order_add(struct shard *s, struct order *o, enum msg_type type,
                      node_id to, struct sspace *sp, gpn_t page)
{
	struct parking *wait;

	if (o->mask != 0 && (o->type != type || o->to != to || o->space != sp ||
	                     page < o->base || page - o->base >= RUN_PAGES ||
	                     extent_of(page) != extent_of(o->base)))
		order_send(s, o);
	if (o->mask == 0) {
		*o = (struct order){
			.type = type, .to = to, .space = sp, .base = page
		};
		o->room = peer_credits(s, sp, to, page, &wait);
	}
	if (to != s->node->id && o->room <= CREDITS_LEFT)
		return false;
	o->room--;
	o->mask |= 1ull << (page - o->base);
	return true;
}

/* Ask home if the page may go. */
static bool ask_home(struct shard *s, struct order *o, struct staged *t,
                     node_id home)
{
	struct page_event ev = { .kind = PAGE_EVICT };
	struct page_actions out;

	if (!order_add(s, o, MSG_EVICT, home, t->space, t->page))
		return false;
	(void)page_step(s, t->space, t->page, &ev, &out);
	t->phase = STAGED_ASKING;
	return true;
}

/* False: not now, for want of credits.  Nobody has room: it is put back. */
static bool leave_one(struct shard *s, struct order *o, uint32_t frame)
{
	struct staged *t = &s->staged[frame];
	struct page_entry *p = &t->space->space->pages[t->page];
	node_id home = home_of(t->space, t->page), to;

	if (!leave_home_knows(s, t->space,
	                      t->page)) { /* recovery's, when there is one */
		put_back(s, frame);
		return true;
	}
	if (t->n_at >= leave_need(t->space) ||
	    (p->state == PAGE_S && !t->shared)) {
		t->shared = true;
		return ask_home(s, o, t, home);
	}
	if (t->trim || t->tries >= TRIES_MAX) {
		put_back(s, frame);
		return true;
	}
	to = choose_peer(s, t, home);
	if (to == NODE_NONE) {
		s->tight_until = loop_now(s->loop) + TIGHT_NS;
		leave_refused(s);
		put_back(s, frame);
		return true;
	}
	if (!order_add(s, o, MSG_STORE, to, t->space, t->page))
		return false;
	t->phase = STAGED_STORING;
	t->asked = to;
	return true;
}

void leave_turn(struct shard *s)
{
	struct order o = { .mask = 0 };
	uint32_t n = s->leaving_n;

	/* Each that is there now once: who cannot go yet comes again. */
	for (uint32_t i = 0; i < n; i++) {
		uint32_t frame = leaving_take(s);

		if (s->staged[frame].phase != STAGED_LEAVES)
			continue; /* touched, or recalled, meanwhile */
		if (loop_now(s->loop) < s->staged[frame].after ||
		    !leave_one(s, &o, frame))
			leave_add(s, frame);
	}
	order_send(s, &o);
	peer_drain(s);
}

/* --- answers ------------------------------------------------------------- */

/* Home's word about one page. */
static int verdict(struct shard *s, struct sspace *sp, gpn_t page, bool drop)
{
	struct page_event ev = { .kind = drop ? PAGE_DROP : PAGE_STAY };
	struct page_entry *p = &sp->space->pages[page];
	struct page_actions out;
	uint32_t frame = page_staged(p) ? p->frame : FRAME_NONE;

	if (page_step(s, sp, page, &ev, &out) < 0)
		return -EPROTO;
	if (drop) {
		frame_give(s->frames, frame);
		shard_count(&s->counters->evicted, 1);
		s->gone++;
		s->evict_after = 0;
	} else if (frame != FRAME_NONE &&
	           s->staged[frame].phase == STAGED_ASKING) {
		struct staged *t = &s->staged[frame];

		/* Not enough others have it; or one of them has not applied
		 * it yet, or home is busy with it. */
		if (t->n_at >= leave_need(sp))
			t->after = loop_now(s->loop) + (RETRY_NS << t->tries);
		if (++t->tries >= TRIES_MAX)
			t->n_at = 0; /* who held it may not any more */
		leave_add(s, frame);
	}
	touch_page(s, sp, page);
	return 0;
}

int leave_answer(struct shard *s, struct sspace *sp, const struct msg *m)
{
	for (uint64_t rest = m->mask | m->arg; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);

		if (verdict(s, sp, m->page + bit, (m->mask >> bit & 1) != 0) <
		    0)
			return -EPROTO;
	}
	return 0;
}

int leave_stored(struct shard *s, node_id from, struct sspace *sp,
                 const struct msg *m)
{
	_Atomic uint32_t *room = &s->node->peer_room[from];

	/* It seems to have no room: believe half of it. */
	if (m->mask == 0)
		atomic_store_explicit(
			room,
			atomic_load_explicit(room, memory_order_relaxed) / 2,
			memory_order_relaxed);
	for (uint64_t rest = m->mask | m->arg; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		struct page_entry *p = &sp->space->pages[m->page + bit];
		struct staged *t;

		if (!page_staged(p))
			continue; /* it was touched, or recalled */
		t = &s->staged[p->frame];
		if (t->phase != STAGED_STORING || t->asked != from)
			continue;
		if ((m->mask >> bit & 1) == 0)
			t->tries++;
		else if (t->n_at < REPLICAS_MAX)
			t->at[t->n_at++] = from;
		leave_add(s, p->frame);
	}
	s->evict_after = 0;
	return 0;
}

void leave_peer_gone(struct shard *s, node_id peer)
{
	for (uint32_t f = 1; f <= s->n_frames; f++) {
		struct staged *t = &s->staged[f];
		const struct page_entry *p;

		if (t->phase == STAGED_NOT)
			continue;
		p = &t->space->space->pages[t->page];
		for (uint8_t i = 0; i < t->n_at; i++)
			if (t->at[i] == peer)
				t->at[i--] = t->at[--t->n_at];
		/* What its home will not answer any more is not asked. */
		if ((t->phase == STAGED_STORING && t->asked == peer) ||
		    (t->phase == STAGED_ASKING &&
		     (p->flags & PAGE_F_EVICTING) == 0))
			leave_add(s, f);
	}
	atomic_store_explicit(&s->node->peer_room[peer], 0,
	                      memory_order_relaxed);
}
