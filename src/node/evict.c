/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making room: pages leave this node for peers when memory is short.
 *
 * At the end of a turn of the loop, if memory has passed its high mark:
 *
 *	1  stage    victims of core/evict, up to STAGE_BATCH: write-protected,
 *	            copied into frames of the pool, punched, in runs.  That
 *	            frees memory at once.  A touch brings such a page back.
 *	2  leave    when more than the staging area's share rests there, the
 *	            oldest:
 *
 *	     S: EVICT -> home -- DROP --> gone: others hold it anyway
 *	               |
 *	              STAY
 *	               v
 *	     M: STORE -> peer -- STORED --> EVICT -> home -- DROP --> gone
 *	            ^       |                          |
 *	            '-- refused: another one          STAY: again, later
 *
 * The peer that stores a page reads it from its home like any reader
 * (store.c), and home counts who holds it: so whatever happens in between (a
 * touch, a recall, a write, a death) is an ordinary case of the protocol, and
 * what is written here may be late or wrong without harm.
 *
 * When no peer has room the node is *tight* for a while: only pages in S are
 * staged, for others may hold them.  Nothing else can go: no page is dropped
 * that nobody else has.  Faults that need a frame wait (touch.c).
 *
 * Eviction must not be in the way of faults: batches are small, and its
 * requests leave half of a session's page credits to others.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "node/shard.h"

#define STAGE_BATCH  32u  /* pages a turn */
#define LOOKS_MAX    256u /* at pages that cannot go, a turn */
#define LEAVE_BATCH  32u
#define CREDITS_LEFT (TP_PAGE_CREDITS / 2) /* for faults */
#define TIGHT_NS     (100 * NSEC_PER_MSEC)
#define RETRY_NS     (1 * NSEC_PER_MSEC) /* doubled while nothing goes */
#define RETRY_NS_MAX (2 * NSEC_PER_SEC)
#define TRIM_PAGES   64u
#define TRIES_MAX    8u /* then it goes back */

/* --- keys ---------------------------------------------------------------- */

/*
 * core/evict names a page by 32 bits: the extent's number among those of all
 * spaces of this shard (a space has a range of them), and the page's in it.
 */
uint32_t evict_key(const struct sspace *sp, gpn_t page)
{
	return (sp->slot + extent_of(page)) * EXTENT_PAGES +
	       (uint32_t)(page % EXTENT_PAGES);
}

static struct sspace *space_of(struct shard *s, uint32_t key, gpn_t *page)
{
	uint32_t slot = key / EXTENT_PAGES;

	for (struct sspace *sp = s->spaces; sp != NULL; sp = sp->next) {
		if (slot - sp->slot >= sp->space->cut.extents)
			continue;
		*page = (gpn_t)(slot - sp->slot) * EXTENT_PAGES +
		        key % EXTENT_PAGES;
		return *page < sp->space->cut.pages ? sp : NULL;
	}
	return NULL;
}

/* The lowest range of numbers that is free. */
int evict_slots(struct shard *s, struct sspace *sp)
{
	uint32_t at = 0, n = sp->space->cut.extents;
	bool moved = true;

	while (moved) {
		moved = false;
		for (struct sspace *o = s->spaces; o != NULL; o = o->next) {
			uint32_t end = o->slot + o->space->cut.extents;

			if (o == sp || at >= end || at + n <= o->slot)
				continue;
			at = end;
			moved = true;
		}
	}
	if (n > SLOTS_MAX || at > SLOTS_MAX - n)
		return -ENOSPC;
	sp->slot = at;
	return 0;
}

static uint8_t mark_get(void *arg, uint32_t key)
{
	gpn_t page;
	struct sspace *sp = space_of(arg, key, &page);

	return sp == NULL ? 0 : sp->space->pages[page].mark;
}

static void mark_set(void *arg, uint32_t key, uint8_t mark)
{
	gpn_t page;
	struct sspace *sp = space_of(arg, key, &page);

	if (sp != NULL)
		sp->space->pages[page].mark = mark & (EVICT_MARKS - 1);
}

/* --- frames whose turn has come ------------------------------------------ */

/* A frame is in the ring once at most: also while it is used anew. */
static void leaving_add(struct shard *s, uint32_t frame)
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

void evict_unstaged(struct shard *s, uint32_t frame)
{
	bool queued = s->staged[frame].queued;

	assert(s->staged[frame].phase != STAGED_NOT);
	s->staged[frame] = (struct staged){ .queued = queued };
	memory_staged(&s->node->memory, false);
}

/* --- staging ------------------------------------------------------------- */

struct batch {
	struct {
		struct sspace *space;
		gpn_t page;
		uint32_t frame;
		bool protect;
	} v[STAGE_BATCH];
	uint32_t n;
};

/* Ask core/page: true if the page can be staged now, and is, in the table. */
static bool stage_one(struct shard *s, struct batch *b, struct sspace *sp,
                      gpn_t page)
{
	struct page_entry *p = &sp->space->pages[page];
	struct page_event ev = { .kind = PAGE_STAGE, .now_us = s->now_us };
	struct page_actions out;
	uint32_t frame;
	uint32_t at = b->n;

	if (!page_held(p) || page_staged(p))
		return false;
	holder_hint(s, p, &ev);
	frame = frame_take(s->frames);
	if (frame == FRAME_NONE)
		return false;
	ev.frame = frame;
	(void)page_step(s, sp, page, &ev, &out);
	if (out.n == 0) { /* residency, or a request under way */
		frame_give(s->frames, frame);
		return false;
	}
	s->staged[frame] = (struct staged){ .space = sp,
		                            .page = page,
		                            .phase = STAGED_RESTS,
		                            .queued = s->staged[frame].queued };
	memory_staged(&s->node->memory, true);
	/* In order of pages, so that they make runs. */
	while (at > 0 && (b->v[at - 1].space == sp ? b->v[at - 1].page > page :
	                                             b->v[at - 1].space > sp)) {
		b->v[at] = b->v[at - 1];
		at--;
	}
	b->v[at].space = sp;
	b->v[at].page = page;
	b->v[at].frame = frame;
	b->v[at].protect = out.v[0].kind == PAGE_PROTECT;
	b->n++;
	return true;
}

/* How many pages from `i` on are neighbours in one stripe. */
static uint32_t run_of(const struct batch *b, uint32_t i)
{
	uint32_t n = 1;

	while (i + n < b->n && b->v[i + n].space == b->v[i].space &&
	       b->v[i + n].page == b->v[i].page + n &&
	       extent_of(b->v[i + n].page) == extent_of(b->v[i].page))
		n++;
	return n;
}

/* What core/page said, for all at once: protect, copy, punch [A6]. */
static void stage_carry_out(struct shard *s, const struct batch *b)
{
	uint32_t n;

	for (uint32_t i = 0; i < b->n; i += n) {
		n = 1;
		if (!b->v[i].protect)
			continue;
		while (n < run_of(b, i) && b->v[i + n].protect)
			n++;
		install_protect(s, b->v[i].space, b->v[i].page, n);
	}
	for (uint32_t i = 0; i < b->n; i++)
		memcpy(frame_bytes(s->frames, b->v[i].frame),
		       space_mem_page(&b->v[i].space->space->mem, b->v[i].page),
		       PAGE_BYTES);
	for (uint32_t i = 0; i < b->n; i += n) {
		n = run_of(b, i);
		install_punch(b->v[i].space, b->v[i].page, n);
	}
}

static bool tight(const struct shard *s)
{
	return loop_now(s->loop) < s->tight_until;
}

static node_id home_of(const struct sspace *sp, gpn_t page)
{
	/* NODE_NONE: it moved, and we have not heard where to. */
	return (node_id)(sp->space->place.extent[extent_of(page)].home - 1);
}

/* Can its home be asked, and will it know of the page? */
static bool home_knows(const struct shard *s, const struct sspace *sp,
                       gpn_t page)
{
	uint32_t extent = extent_of(page);

	return peer_alive(s, home_of(sp, page)) &&
	       (sp->orphan[extent / 64] >> (extent % 64) & 1) == 0;
}

/*
 * May the page be chosen?  When nobody has room only shared ones may; without
 * its home, none: it would only be in the way of others in the pool of frames.
 */
static bool eligible(const struct shard *s, const struct sspace *sp, gpn_t page,
                     bool shared_only)
{
	const struct page_entry *p = &sp->space->pages[page];

	if (!page_held(p) || page_asked(p) || !home_knows(s, sp, page))
		return false;
	return p->state == PAGE_S || (!shared_only && !tight(s));
}

/* Up to `most` pages, as long as more than `spare` frames are free. */
static uint32_t stage(struct shard *s, uint32_t most, uint32_t spare,
                      bool shared_only)
{
	struct batch b = { .n = 0 };
	uint32_t key, looks = 0;

	most = (uint32_t)min_u64(most, STAGE_BATCH);
	/* A round goes on in the next turn: or, where most pages cannot go,
	 * those behind the first LOOKS_MAX would never be looked at. */
	if (s->round_over)
		evict_round(s->policy);
	s->round_over = false;
	while (b.n < most && looks++ < LOOKS_MAX &&
	       frame_free_count(s->frames) > spare) {
		gpn_t page = 0;
		struct sspace *sp;
		struct page_entry *p;
		struct evict_page ep = { 0 };

		if (!evict_next(s->policy, &key)) {
			s->round_over = true;
			break;
		}
		sp = space_of(s, key, &page);
		if (sp == NULL) {
			(void)evict_take(s->policy, key, &ep, EVICT_UNKNOWN);
			continue;
		}
		p = &sp->space->pages[page];
		ep.mark = p->mark;
		if (!eligible(s, sp, page, shared_only)) {
			(void)evict_take(s->policy, key, &ep, EVICT_NOT_NOW);
			p->mark = ep.mark & (EVICT_MARKS - 1);
			continue;
		}
		if (evict_take(s->policy, key, &ep, EVICT_TAKE) ==
		    EVICT_TAKEN) {
			p->mark = ep.mark & (EVICT_MARKS - 1);
			if (stage_one(s, &b, sp, page))
				continue;
			evict_touched(s->policy, key, &ep);
		}
		p->mark = ep.mark & (EVICT_MARKS - 1);
	}
	s->looks_spent = looks > LOOKS_MAX;
	stage_carry_out(s, &b);
	return b.n;
}

/* --- leaving ------------------------------------------------------------- */

/* The oldest that rest, or of those the shared ones: their turn has come. */
static void send_oldest(struct shard *s, uint32_t n, bool shared_only)
{
	uint32_t key;

	evict_round_staged(s->policy);
	while (n > 0 && evict_oldest(s->policy, &key)) {
		gpn_t page = 0;
		struct sspace *sp = space_of(s, key, &page);
		struct evict_page ep = { 0 };
		enum evict_answer answer = EVICT_TAKE;
		struct page_entry *p;

		if (sp == NULL) {
			(void)evict_out(s->policy, key, &ep, EVICT_UNKNOWN);
			continue;
		}
		p = &sp->space->pages[page];
		ep.mark = p->mark;
		if (shared_only && p->state != PAGE_S)
			answer = EVICT_NOT_NOW;
		if (evict_out(s->policy, key, &ep, answer) == EVICT_TAKEN) {
			s->staged[p->frame].stamp = ep.stamp;
			s->staged[p->frame].trim = shared_only;
			leaving_add(s, p->frame);
			n--;
		}
		p->mark = ep.mark & (EVICT_MARKS - 1);
	}
}

/*
 * Take a frame of the limit for a page that comes back.  If there is none,
 * another page is staged for it: what cannot go must not fill the pool, or
 * nothing else could go either.
 */
static bool take_for_back(struct shard *s)
{
	return frames_take(s, 1, MEMORY_BUDGET) ||
	       (stage(s, 1, s->n_frames / 8, false) > 0 &&
	        frames_take(s, 1, MEMORY_BUDGET));
}

/* It cannot go: it is resident again, mapped when it is touched. */
static void put_back(struct shard *s, uint32_t frame)
{
	struct sspace *sp = s->staged[frame].space;
	gpn_t page = s->staged[frame].page;
	struct page_event ev = { .kind = PAGE_TOUCH, .now_us = s->now_us };
	struct page_actions out;

	if (!take_for_back(s)) {
		leaving_add(s, frame); /* later */
		return;
	}
	(void)page_step(s, sp, page, &ev, &out);
	frames_return(s);
	assert(out.n == 1 && out.v[0].kind == PAGE_INSTALL_BACK);
	holder_back(s, sp, page, frame);
}

static uint8_t need_of(const struct sspace *sp)
{
	return (uint8_t)min_u64(max_u64(1, sp->space->replicas), REPLICAS_MAX);
}

static bool holds_it(const struct staged *t, node_id n)
{
	for (uint8_t i = 0; i < t->n_at; i++)
		if (t->at[i] == n)
			return true;
	return false;
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
			uint64_t room = atomic_load_explicit(
				&s->node->peer_room[n], memory_order_relaxed);

			if (n == s->node->id || !peer_alive(s, n) ||
			    holds_it(t, n))
				continue;
			room = (room >> 4) * (n == home ? 4 : 1);
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

	if (!home_knows(s, t->space,
	                t->page)) { /* recovery's, when there is one */
		put_back(s, frame);
		return true;
	}
	if (t->n_at >= need_of(t->space) ||
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
		(void)atomic_fetch_add_explicit(&s->node->memory.refused, 1,
		                                memory_order_relaxed);
		put_back(s, frame);
		return true;
	}
	if (!order_add(s, o, MSG_STORE, to, t->space, t->page))
		return false;
	t->phase = STAGED_STORING;
	t->asked = to;
	return true;
}

static void leave(struct shard *s)
{
	struct order o = { .mask = 0 };
	uint32_t n = s->leaving_n;

	/* Each that is there now once: who cannot go yet comes again. */
	for (uint32_t i = 0; i < n; i++) {
		uint32_t frame = leaving_take(s);

		if (s->staged[frame].phase != STAGED_LEAVES)
			continue; /* touched, or recalled, meanwhile */
		if (!leave_one(s, &o, frame))
			leaving_add(s, frame);
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
	} else if (frame != FRAME_NONE &&
	           s->staged[frame].phase == STAGED_ASKING) {
		struct staged *t = &s->staged[frame];

		/* Not enough others have it; or one of them has not applied
		 * it yet, or home is busy with it. */
		if (++t->tries >= TRIES_MAX)
			t->n_at = 0; /* who held it may not any more */
		leaving_add(s, frame);
	}
	touch_page(s, sp, page);
	return 0;
}

int evict_answer(struct shard *s, struct sspace *sp, const struct msg *m)
{
	for (uint64_t rest = m->mask | m->arg; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);

		if (verdict(s, sp, m->page + bit, (m->mask >> bit & 1) != 0) <
		    0)
			return -EPROTO;
	}
	return 0;
}

int evict_stored(struct shard *s, node_id from, struct sspace *sp,
                 const struct msg *m)
{
	_Atomic uint32_t *room = &s->node->peer_room[from];

	/* It had no room, or the page is in use: believe half of it. */
	if (m->arg != 0)
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
		leaving_add(s, p->frame);
	}
	return 0;
}

void evict_peer_gone(struct shard *s, node_id peer)
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
			leaving_add(s, f);
	}
	atomic_store_explicit(&s->node->peer_room[peer], 0,
	                      memory_order_relaxed);
}

/* --- turns --------------------------------------------------------------- */

void evict_trim(struct shard *s)
{
	s->trim = TRIM_PAGES;
	s->evict_after = 0;
}

/* Faults that wait for a frame are told of, and try again. */
static void feed(struct shard *s)
{
	struct memory *m = &s->node->memory;

	if (s->no_frame.n > 0 && memory_used(m) < memory_budget(m)) {
		unpark_all(s, &s->no_frame);
		peer_drain(s);
	}
	if (s->told_waiting == s->no_frame.n)
		return;
	(void)atomic_fetch_add_explicit(
		&m->waiting, (uint64_t)s->no_frame.n - s->told_waiting,
		memory_order_relaxed);
	s->told_waiting = s->no_frame.n;
}

/* Stage what memory lacks; returns how many pages have their turn now. */
static uint32_t make_room(struct shard *s, uint64_t excess)
{
	uint32_t n = (uint32_t)min_u64(max_u64(excess, s->trim), STAGE_BATCH);
	uint32_t done = stage(s, n, s->n_frames / 4, excess == 0);
	uint32_t rests = evict_count(s->policy, EVICT_STAGING);
	uint32_t leaves = s->leaving_n;

	if (excess == 0) {
		send_oldest(s, done, true);
		s->trim -= (uint32_t)min_u64(s->trim, max_u64(done, 8));
	} else if (rests > s->staged_max / 2) {
		send_oldest(s,
		            (uint32_t)min_u64(rests - s->staged_max / 2,
		                              LEAVE_BATCH),
		            tight(s));
	}
	return done + s->leaving_n - leaves;
}

/*
 * Come again soon while it gets us anywhere, ever more rarely when not: a full
 * cluster must not keep its nodes awake.
 */
static void come_again(struct shard *s, bool progress)
{
	if (s->leaving_n == 0 && s->no_frame.n == 0 && s->trim == 0 &&
	    memory_excess(&s->node->memory) == 0)
		return;
	if (progress || s->no_frame.n > 0)
		s->evict_wait = RETRY_NS;
	else if (!s->looks_spent)
		s->evict_wait = min_u64(s->evict_wait * 2, RETRY_NS_MAX);
	s->evict_after = loop_now(s->loop) + (progress ? 0 : s->evict_wait);
	timer_start(s->loop, &s->evict_timer,
	            loop_now(s->loop) + s->evict_wait);
}

void evict_turn(struct shard *s)
{
	uint64_t excess = memory_excess(&s->node->memory);
	uint32_t done = 0;

	if (excess == 0 && s->leaving_n == 0 && s->no_frame.n == 0 &&
	    s->told_waiting == 0 && s->trim == 0)
		return;
	if (loop_now(s->loop) < s->evict_after) {
		feed(s);
		return;
	}
	if (excess > 0)
		shard_nudge_others(s);
	if (excess > 0 || s->trim > 0)
		done = make_room(s, excess);
	if (s->leaving_n > 0) {
		uint32_t n = s->leaving_n;

		leave(s);
		done += n - (uint32_t)min_u64(n, s->leaving_n);
	}
	feed(s);
	come_again(s, done > 0);
}

static void evict_due(struct loop_timer *t)
{
	struct shard *s = container_of(t, struct shard, evict_timer);

	/* The end of this turn does the rest. */
	shard_gate(s);
	shard_now_us(s);
	s->evict_after = 0;
}

/* --- life ---------------------------------------------------------------- */

int evict_start(struct shard *s, struct errmsg *em)
{
	uint64_t pages = s->node->memory.limit_pages;
	struct evict_config cfg = {
		.frames = (uint32_t)min_u64(pages, EVICT_FRAMES_MAX),
		.small_percent = EVICT_SMALL_PERCENT,
		.mark = mark_get,
		.set_mark = mark_set,
		.arg = s,
	};

	s->staged_max = s->n_frames / 2;
	cfg.staged = s->staged_max;
	s->policy_bytes = evict_bytes(&cfg);
	s->policy_mem =
		mmap(NULL, s->policy_bytes, PROT_READ | PROT_WRITE,
	             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->policy_mem == MAP_FAILED) {
		s->policy_mem = NULL;
		return errmsg_set(em, -ENOMEM,
		                  "no memory for %llu pages' queues",
		                  (unsigned long long)pages);
	}
	s->policy = evict_init(&cfg, s->policy_mem);
	s->staged = calloc(s->n_frames + 1, sizeof(*s->staged));
	s->leaving = calloc(s->n_frames, sizeof(*s->leaving));
	if (s->staged == NULL || s->leaving == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for eviction");
	s->evict_timer.due = evict_due;
	s->evict_wait = RETRY_NS;
	s->round_over = true;
	return 0;
}

void evict_stop(struct shard *s)
{
	if (s->policy_mem != NULL)
		(void)munmap(s->policy_mem, s->policy_bytes);
	free(s->staged);
	free(s->leaving);
}
