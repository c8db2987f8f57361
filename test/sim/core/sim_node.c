/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node: faults of its threads become requests (as node/touch.c), messages to
 * itself go through a queue that is drained before the next event (as
 * node/peer.c), the membership comes and goes.
 */
#include <string.h>

#include "sim.h"

#define CREDITS_KEPT 8u /* for faults: a guess must not cost one its turn */

/* --- set-up ------------------------------------------------------------ */

void node_init(struct sim *s, node_id id)
{
	struct node *n = sim_alloc(1, sizeof(*n));
	/* Small pools, so that they run dry. */
	struct dir_config cfg = {
		.self = id,
		.n_txn = 2 + (uint32_t)sim_below(s, 64),
		.n_set = 1 + (uint32_t)sim_below(s, 8),
	};

	s->node[id] = n;
	n->sim = s;
	n->id = id;
	n->dir_memory = aligned_alloc(64, (dir_bytes(&cfg) + 63) & ~63ull);
	if (n->dir_memory == NULL)
		abort();
	n->dir = dir_init(&cfg, n->dir_memory);
	n->entry = sim_alloc(s->cut.pages, sizeof(n->entry[0]));
	n->page = sim_alloc(s->cut.pages, sizeof(n->page[0]));
	n->place = (struct place){
		.cut = s->cut,
		.self = id,
		.extent = sim_alloc(s->cut.extents, sizeof(struct extent)),
		.stripe = sim_alloc(s->cut.stripes, sizeof(struct claimant)),
		.whole = true,
	};
	n->hints = sim_alloc(PAGE_THREADS, sizeof(n->hints[0]));
	n->frames = n->frames_free =
		sim_one_in(s, 2) || s->opt.plant == PLANT_LEAK ||
				s->opt.plant == PLANT_LEAK_STAGED ?
			FRAMES_MAX :
			1 + (uint32_t)sim_below(s, 8);
	for (uint32_t f = 0; f <= FRAMES_MAX; f++)
		n->frame_home[f] = NODE_NONE;
	n->credits = 16 + (uint32_t)sim_below(s, 240);
	n->clients = 1 + (uint32_t)sim_below(s, CLIENTS_MAX);
	n->threads = n->clients + (uint32_t)sim_below(s, s->nodes > 16 ? 2 : 4);
	if (s->opt.delay_us != 0)
		n->clients = n->threads = 1;
	for (unsigned i = 0; i < n->threads; i++)
		thread_init(n, i);
	mem_init(n);
	/* It has been told once, wrongly: the old map of extents that moved. */
	for (uint32_t e = 0; e < s->cut.extents; e++)
		if (s->coord.extent[e].home != 0 &&
		    s->coord.extent[e].home != id + 1u && sim_one_in(s, 4))
			place_told(&n->place, e, (node_id)((id + 1) % s->nodes),
			           true, 0);
}

void node_free(struct node *n)
{
	for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
		while (n->granted[i] != NULL) {
			struct granted *g = n->granted[i];

			n->granted[i] = g->next;
			free(g);
		}
	}
	store_free(n);
	queue_free(&n->local);
	mem_free(n);
	free(n->dir_memory);
	free(n->entry);
	free(n->page);
	free(n->place.extent);
	free(n->place.stripe);
	free(n->hints);
	free(n);
}

uint32_t now_us(const struct sim *s)
{
	return (uint32_t)(s->now / NSEC_PER_USEC) + s->us_base;
}

bool node_alive(const struct node *n, node_id peer)
{
	return peer == n->id || n->member[peer] == MEMBER_UP;
}

int node_step(struct node *n, gpn_t page, const struct page_event *ev,
              struct page_actions *out)
{
	struct page_entry *p = &n->page[page];
	uint32_t was = page_counts(p);
	int r = page_handle(p, ev, out);

	n->used = n->used + page_counts(p) - was;
	if (n->used > n->high)
		evict_soon(n);
	return r;
}

/* --- faults ------------------------------------------------------------ */

void node_later(struct node *n)
{
	if (n->later)
		return;
	n->later = true;
	clock_put(n->sim, AGAIN_NS,
	          (struct event){ .kind = EV_LATER, .node = n->id });
}

static void park(struct node *n, struct thread *t, enum parked why)
{
	t->parked = why;
	if (why == PARKED_LATER)
		node_later(n);
}

static void unpark(struct node *n, enum parked why)
{
	for (uint32_t i = 0; i < n->threads; i++) {
		struct thread *t = &n->thread[i];

		if (t->parked != why)
			continue;
		t->parked = PARKED_NOT;
		if (t->state != THREAD_WAITS)
			continue;
		node_touch(n, t);
		node_drain(n);
	}
}

/*
 * The page's home is dead.  That somebody waits for it has to be in the page
 * first: a page that is held to read is lost only to whoever wants to write.
 */
static void nobody_home(struct node *n, const struct thread *t)
{
	struct page_event ev = { .kind = PAGE_TOUCH, .write = t->write };
	struct page_actions out;

	(void)node_step(n, t->page, &ev, &out);
	holder_unreachable_page(n, t->page);
}

/* Who is home, and may we ask it now?  If not, the waiter is parked. */
static bool home_of(struct node *n, struct thread *t, node_id *home,
                    uint32_t *credits)
{
	struct place_claim claim;
	enum place_answer a;

	*home = n->id;
	*credits = UINT32_MAX;
	a = place_touch(&n->place, extent_of(t->page), home, &claim);
	coord_claim(n, &claim);
	if (a == PLACE_WAIT) {
		park(n, t, PARKED_UNKNOWN);
		return false;
	}
	if (!node_alive(n, *home)) {
		if (n->member[*home] == MEMBER_DEAD)
			nobody_home(n, t);
		else
			park(n, t, PARKED_LATER);
		return false;
	}
	if (*home == n->id)
		return true;
	*credits = n->credits;
	*credits -= net_session(n->sim, n->id, *home)->pages_open;
	if (*credits == 0)
		park(n, t, PARKED_LATER);
	return *credits > 0;
}

/* With limits no page may come to be that nobody meant to touch. */
static gpn_t window_max(const struct sim *s, gpn_t page)
{
	gpn_t in = page % EXTENT_PAGES - SCAN_FIRST;

	if (!s->limited)
		return min_u64((extent_of(page) + 1ull) * EXTENT_PAGES,
		               s->cut.pages) -
		       page;
	return in < s->scan_pages ? s->scan_pages - in : 1;
}

/* How many pages to ask for with this one: twice as many as a scan goes on. */
static uint32_t window_of(struct node *n, const struct thread *t,
                          uint32_t credits)
{
	uint32_t *w = &n->window[t->client];
	gpn_t left = window_max(n->sim, t->page);

	if (t->page == n->scan_next[t->client])
		*w = (uint32_t)min_u64(*w * 2ull, RUN_PAGES);
	else
		*w = 1;
	if (*w > left)
		*w = (uint32_t)left;
	if (credits != UINT32_MAX && *w > 1 &&
	    (credits < CREDITS_KEPT || *w > credits - CREDITS_KEPT + 1))
		*w = 1;
	n->scan_next[t->client] = t->page + *w;
	return *w;
}

static void request(struct node *n, struct thread *t)
{
	struct message m = { .page = t->page, .mask = 1 };
	struct page_event ev = { .kind = PAGE_TOUCH, .write = t->write };
	struct page_actions out;
	uint32_t credits, w;
	node_id home;

	if (!home_of(n, t, &home, &credits))
		return;
	if (!page_counts(&n->page[t->page]) && !evict_room(n, MARK_LIMIT) &&
	    !sim_plant(n->sim, PLANT_UNCOUNTED, 8)) {
		if (!sim_plant(n->sim, PLANT_NO_ROOM, 8))
			park(n, t, PARKED_LATER);
		evict_soon(n);
		return;
	}
	m.kind = t->write ? M_GET_X : M_GET_S;
	(void)node_step(n, t->page, &ev, &out);
	w = window_of(n, t, credits);
	ev.kind = PAGE_PREFETCH;
	for (uint32_t i = 1; i < w; i++) {
		struct page_entry *p = &n->page[t->page + i];

		if (p->state != PAGE_I || !evict_room(n, MARK_HIGH))
			continue;
		(void)node_step(n, t->page + i, &ev, &out);
		if (out.n > 0)
			m.mask |= 1ull << i;
	}
	node_send(n, home, &m, NULL);
}

void node_touch(struct node *n, struct thread *t)
{
	struct page_entry *e = &n->page[t->page];
	gpn_t page = t->page;

	if (page_staged(e)) {
		if ((e->flags & PAGE_F_EVICTING) == 0 &&
		    !evict_room(n, MARK_LIMIT))
			park(n, t, PARKED_LATER);
		else
			holder_touch_staged(n, page, t);
		return;
	}
	if (e->state == PAGE_LOST) {
		mem_poison(n, page);
		return;
	}
	if (e->state == PAGE_M || (e->state == PAGE_S && !t->write)) {
		unsigned clients = thread_wake(n, page);

		for (unsigned c = 0; c < n->clients; c++)
			if ((clients >> c & 1) != 0)
				mem_map(n, page, c);
		return;
	}
	if (!page_asked(e))
		request(n, t);
}

void node_touch_page(struct node *n, gpn_t page)
{
	struct thread *t = thread_first(n, page);

	if (t != NULL)
		node_touch(n, t);
}

/* --- discards: one window at a time, as node/job.c --------------------- */

static void discard_finish(struct node *n)
{
	n->discard.on = false;
	thread_discarded(n, n->discard.thread);
}

/* Send the window, unless it is on its way. */
void node_discard(struct node *n)
{
	struct discard *d = &n->discard;
	struct message m = { .kind = M_DISCARD };
	struct place_claim claim;

	if (!d->on || d->sent)
		return;
	d->home = n->id;
	if (place_asked(&n->place, extent_of(d->base), &d->home, &claim) ==
	    PLACE_WAIT) {
		coord_claim(n, &claim);
		node_later(n);
		return;
	}
	if (n->member[d->home] == MEMBER_DEAD) {
		discard_finish(n); /* nobody can make it zeros */
		return;
	}
	if (!node_alive(n, d->home)) {
		node_later(n);
		return;
	}
	d->left = d->mask;
	d->sent = true;
	m.page = d->base + (unsigned)__builtin_ctzll(d->mask);
	m.mask = d->mask >> __builtin_ctzll(d->mask);
	node_send(n, d->home, &m, NULL);
}

/* All pages of the window are answered: go on with those that heard AGAIN. */
static void discard_goes_on(struct node *n)
{
	struct discard *d = &n->discard;

	if (d->left != 0)
		return;
	if (d->again == 0) {
		discard_finish(n);
		return;
	}
	d->mask = d->again;
	d->again = 0;
	d->sent = false;
	node_later(n);
}

static void discarded(struct node *n, const struct message *m)
{
	struct discard *d = &n->discard;
	struct page_event ev = { .kind = PAGE_DISCARDED };
	struct page_actions out;
	uint64_t bit = 1ull << (m->page - d->base);

	if (!d->on || !d->sent || m->mask != 1 || (d->left & bit) == 0) {
		sim_fail(n->sim, "rules", "node %u: DISCARDED out of the blue",
		         n->id);
		return;
	}
	d->left &= ~bit;
	(void)node_step(n, m->page, &ev, &out);
	n->mem.poisoned[m->page] = false;
	discard_goes_on(n);
}

/* --- messages ---------------------------------------------------------- */

void node_send(struct node *n, node_id to, struct message *m, uint64_t *seq)
{
	if (to != n->id) {
		(void)net_send(n, to, m, seq);
		return;
	}
	m->from = n->id;
	n->sim->net.local++;
	queue_put(&n->local, m);
}

void node_drain(struct node *n)
{
	struct message m;

	if (n->draining)
		return; /* whoever drains goes on with what was added */
	n->draining = true;
	while (n->sim->failed_by[0] == '\0') {
		if (n->local.head == NULL)
			home_flush(n);
		if (!queue_take(&n->local, &m))
			break;
		node_dispatch(n, n->id, &m);
	}
	n->draining = false;
}

/* AGAIN or MOVED: the request is void, whoever waits asks anew. */
static void on_void(struct node *n, const struct message *m)
{
	if (m->kind == M_MOVED)
		place_moved(&n->place, extent_of(m->page), (uint32_t)m->arg);
	if (m->discard) {
		uint64_t mask = m->mask << (m->page - n->discard.base);

		n->discard.left &= ~mask;
		n->discard.again |= mask;
		discard_goes_on(n);
		return;
	}
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);
		struct page_event ev = { .kind = PAGE_RETRY };
		struct page_actions out;

		if (node_step(n, page, &ev, &out) < 0)
			sim_fail(n->sim, "rules", "node %u: AGAIN unasked",
			         n->id);
		store_settled(n, page);
		for (uint32_t i = 0; i < n->threads; i++)
			if (n->thread[i].state == THREAD_WAITS &&
			    n->thread[i].page == page)
				park(n, &n->thread[i], PARKED_LATER);
	}
}

void node_dispatch(struct node *n, node_id from, const struct message *m)
{
	switch (m->kind) {
	case M_GET_S:
	case M_GET_X:
	case M_DISCARD:
		home_request(n, from, m);
		break;
	case M_GRANT_S:
	case M_GRANT_X:
	case M_GRANT_ZERO:
	case M_UPGRADE:
	case M_GRANT_LOST:
		holder_grant(n, m);
		break;
	case M_DISCARDED:
		discarded(n, m);
		break;
	case M_MOVED:
	case M_AGAIN:
		on_void(n, m);
		break;
	case M_RECALL_S:
	case M_RECALL_X:
	case M_INVAL:
		holder_recall(n, from, m, false);
		break;
	case M_ACK:
	case M_ACK_DATA:
	case M_NOT_HELD:
		home_answer(n, from, m);
		break;
	case M_FORGET:
		if (m->arg > n->frames || n->frame_home[m->arg] != from)
			sim_fail(n->sim, "rules",
			         "node %u: FORGET of a frame it did not give",
			         n->id);
		holder_forget(n, m->arg);
		break;
	case M_EVICT:
		home_evict(n, from, m);
		break;
	case M_DROP:
		holder_verdict(n, m);
		break;
	case M_STORE:
		store_asked(n, from, m);
		break;
	case M_STORED:
		evict_stored(n, from, m);
		break;
	case M_APPLIED:
		home_applied(n, from, m->page);
		break;
	}
}

/* --- the coordinator's words ------------------------------------------- */

static void told(struct node *n, const struct claim *c)
{
	struct discard *d = &n->discard;

	if (c->failed)
		place_unanswered(&n->place, c->what.first, c->what.n);
	for (uint32_t i = 0; !c->failed && i < c->what.n; i++) {
		const struct extent *e = &c->info[i];
		uint32_t extent = c->what.first + i;

		place_told(&n->place, extent,
		           e->home == 0 ? NODE_NONE : (node_id)(e->home - 1),
		           e->opened != 0, e->version);
		check_epoch_home(n, extent);
		/* An extent that is nobody's is zeros already. */
		if (e->home == 0 && d->on && !d->sent &&
		    extent_of(d->base) == extent)
			discard_finish(n);
	}
	unpark(n, PARKED_UNKNOWN);
	node_discard(n);
}

/* The peer's incarnation is over. */
static void member_gone(struct node *n, node_id peer)
{
	net_close(n, peer);
	home_gone(n, peer);
	holder_unreachable(n, peer);
	evict_peer_gone(n, peer);
	/* Grants that it will never apply: their bytes are nobody's. */
	node_acked(n, peer, UINT64_MAX);
	if (n->discard.on && n->discard.sent && n->discard.home == peer)
		discard_finish(n);
}

static void adopt(struct node *n, const struct members *m)
{
	bool fresh = n->epoch == 0;

	if (m->epoch < n->epoch && n->sim->opt.plant != PLANT_EPOCH_BACK)
		return;
	check_epoch_adopt(n, n->epoch, m->epoch);
	n->epoch = m->epoch;
	for (uint32_t i = 0; i < n->sim->nodes; i++) {
		bool over =
			m->state[i] == MEMBER_DEAD && n->member[i] == MEMBER_UP;

		n->member[i] = m->state[i];
		if (over)
			member_gone(n, (node_id)i);
	}
	for (uint32_t i = 0; fresh && i < n->threads; i++)
		thread_start(&n->thread[i]);
}

/* --- events ------------------------------------------------------------ */

static void later(struct node *n)
{
	n->later = false;
	unpark(n, PARKED_LATER);
	node_discard(n);
}

static void deferred(struct node *n, node_id home, const struct message *m)
{
	if (node_alive(n, home))
		holder_recall(n, home, m,
		              (n->page[m->page].flags & PAGE_F_RECALLED) != 0);
}

void node_event(struct node *n, struct event *e)
{
	struct event again = *e;

	if (n->dead)
		return;
	if (n->paused_until > n->sim->now) {
		e->p = NULL; /* goes along */
		clock_put(n->sim, n->paused_until - n->sim->now, again);
		return;
	}
	switch ((int)e->kind) {
	case EV_DELIVER:
		net_deliver(n, e->other);
		break;
	case EV_ACKED:
		node_acked(n, e->other, e->arg);
		break;
	case EV_FAULT:
		thread_fault(&n->thread[e->other], e->arg);
		break;
	case EV_DEFER:
		deferred(n, e->other, e->p);
		break;
	case EV_LATER:
		later(n);
		break;
	case EV_EVICT:
		evict_run(n);
		break;
	case EV_EXTENTS:
		told(n, e->p);
		break;
	case EV_MEMBERS:
		adopt(n, e->p);
		break;
	default:
		abort();
	}
	node_drain(n);
}
