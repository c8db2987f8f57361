/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capacity, the evicting side: what a node may have, and what it wants to get
 * rid of, as in node/evict.c.
 *
 * Above its high mark a node stages pages until it is down to the low one.
 * Each staged page goes its way alone, though what goes the same way at the
 * same time is one message:
 *
 *	            .-- STAY, somebody untried --> STORE --> STORED --.
 *	NEW --> EVICT                                ^--- refused     |
 *	            '-- DROP: gone                         EVICT <----'
 *
 * A page in S is asked for at home first, for others may hold it; a page in M
 * goes to as many peers as must hold it.  Once all have refused (KEPT) only
 * pages in S are staged, until it is time to ask again.
 *
 * When no thread has work left nobody asks again and again: then all must come
 * to rest, for pages that go to and fro on their own would never.
 *
 * A page that must stay goes back when there is room for it.  Staged pages have
 * frames of their own, but few: if what must stay fills them, one that may go
 * is staged in its place, and in the same step the other goes back, so that no
 * fault takes the frame in between.
 */
#include "sim.h"

#define LOOK_NS       (20 * NSEC_PER_USEC)
#define TICK_NS       (100 * NSEC_PER_USEC)
#define BACKOFF_NS    (NSEC_PER_MSEC)
#define VERDICTS_MAX  4u /* STAY though enough hold it: not confirmed yet */
#define LIMITS_STREAM 0x6c696d697473ull

/* --- limits ------------------------------------------------------------ */

struct weights { /* of the nodes' memories, and how much is to be spread */
	uint64_t of[SIM_NODES_MAX], sum, need;
};

/* What the pages need that may exist, each as often as it must. */
static uint64_t pages_needed(const struct sim *s)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < s->works; i++)
		n += s->work[i]->pages(s);
	return n;
}

static uint64_t spread_over(const struct sim *s, uint64_t pages)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < s->nodes; i++)
		n += min_u64(s->node[i]->high, pages);
	return n;
}

static void node_limit(struct node *n, struct prng *r, uint64_t high)
{
	uint32_t reserve = 2 + n->threads * 2 + (uint32_t)prng_below(r, 8);

	n->high = (uint32_t)high;
	n->limit = n->high + reserve;
	n->low = n->high - (uint32_t)min_u64(reserve / 4, n->high - 1);
	n->fifo = prng_below(r, 2) == 0;
	if (n->frames < 4) {
		n->frames_free += 4 - n->frames;
		n->frames = 4;
	}
	n->staging_max = 1 + (uint32_t)prng_below(r, n->frames / 2);
	n->staging_max = (uint32_t)min_u64(n->staging_max, STAGING_MAX - 1);
}

/* Random parts of what all need together, or a little more. */
static void limits(struct sim *s, struct prng *r, uint64_t percent)
{
	uint64_t pages = pages_needed(s), need = pages * s->copies;
	struct weights w = { 0 };

	for (uint32_t i = 0; i < s->nodes; i++) {
		/* Memory servers: much memory, nobody who uses it. */
		if (s->nodes > 2 && prng_below(r, 6) == 0) {
			s->node[i]->threads = 0;
			w.of[i] = 12;
		}
		w.of[i] += 1 + prng_below(r, 6);
		w.sum += w.of[i];
	}
	need = need * percent / 100;
	for (uint32_t i = 0; i < s->nodes; i++)
		node_limit(s->node[i], r, max_u64(need * w.of[i] / w.sum, 4));
	while (spread_over(s, pages) < need) {
		struct node *n = s->node[prng_below(r, s->nodes)];

		if (n->high < pages) {
			n->high++;
			n->low++;
			n->limit++;
		}
		need = min_u64(need, pages * s->nodes);
	}
}

/* From a stream of its own: runs without limits are what they were. */
void evict_init(struct sim *s)
{
	int32_t percent = s->opt.limit_percent, replicas = s->opt.replicas;
	struct prng r;

	prng_init(&r, s->opt.seed ^ LIMITS_STREAM);
	if (percent < 0) {
		static const int32_t choice[] = { 0, 0, 102, 110, 130, 200 };

		percent = choice[prng_below(&r, ARRAY_SIZE(choice))];
	}
	if (replicas < 0)
		replicas = prng_below(&r, 3) == 0 ? 2 : 0;
	/* Where one is evicted from, so many others must be there. */
	if (s->nodes < 1u + (uint32_t)replicas)
		replicas = 0;
	s->limited = percent > 0 && s->opt.delay_us == 0;
	s->copies = s->limited && replicas > 1 ? (uint32_t)replicas : 1;
	for (uint32_t i = 0; i < s->nodes; i++) {
		struct node *n = s->node[i];

		n->limit = n->high = n->low = UINT32_MAX;
	}
	if (!s->limited)
		return;
	s->scan_pages = 8u << prng_below(&r, 4);
	limits(s, &r, (uint64_t)percent);
}

/*
 * What is staged may have to come back.  So it counts against what can be done
 * without, or two full nodes would push pages to and fro for ever: each finds
 * room for the other's where its own have just been staged.
 */
bool evict_room(const struct node *n, enum mark mark)
{
	if (mark == MARK_HIGH)
		return n->used + n->staged < n->high;
	return n->used < n->limit;
}

static void look(struct node *n, nsec_t in_ns)
{
	if (n->evict_due || !n->sim->limited)
		return;
	n->evict_due = true;
	clock_put(n->sim, in_ns,
	          (struct event){ .kind = EV_EVICT, .node = n->id });
}

void evict_soon(struct node *n)
{
	look(n, LOOK_NS);
}

/* --- what is staged ---------------------------------------------------- */

static struct staged *staged_of(struct node *n, gpn_t page)
{
	for (uint32_t i = 0; i < n->staged; i++)
		if (n->staging[i].page == page)
			return &n->staging[i];
	return NULL;
}

void evict_left(struct node *n, gpn_t page)
{
	struct staged *x = staged_of(n, page);

	assert(x != NULL);
	*x = n->staging[--n->staged];
}

static struct node *home_of(const struct node *n, gpn_t page)
{
	uint16_t home = n->place.extent[extent_of(page)].home;

	return home == 0 ? NULL : n->sim->node[home - 1];
}

static bool home_alive(const struct node *n, gpn_t page)
{
	const struct node *home = home_of(n, page);

	return home != NULL && node_alive(n, home->id);
}

static bool stage_one(struct node *n, gpn_t page, bool light)
{
	if (!home_alive(n, page) || !holder_stage(n, page))
		return false;
	n->staging[n->staged++] = (struct staged){
		.page = page,
		.light = light,
		.ask_home = n->page[page].state == PAGE_S,
	};
	return true;
}

/* Stage up to `want` pages, of those that may be: in S only, if `only_s`. */
static void stage(struct node *n, uint32_t want, bool only_s, bool light,
                  uint32_t max)
{
	gpn_t pages = n->sim->cut.pages;

	/* The last frame is for a page that is given away. */
	for (gpn_t i = 0; i < pages && want > 0 && n->frames_free > 1; i++) {
		gpn_t page = n->hand;
		const struct page_entry *p = &n->page[page];

		n->hand = (n->hand + 1) % pages;
		if (!page_held(p) || page_staged(p) ||
		    (only_s && p->state == PAGE_M) ||
		    (!n->fifo && sim_one_in(n->sim, 2)))
			continue;
		/* One place is for a page that others may hold already. */
		if (n->staged >= max - (p->state == PAGE_M && max > 1))
			return;
		want -= stage_one(n, page, light);
	}
}

static bool frame_waited_for(const struct node *n)
{
	for (uint32_t i = 0; i < n->threads; i++)
		if (n->thread[i].state == THREAD_WAITS &&
		    n->thread[i].parked == PARKED_LATER)
			return true;
	return false;
}

/* What must stay goes back, or is asked for anew when its time has come. */
static void put_back(struct node *n)
{
	uint32_t kept = 0;

	for (uint32_t i = n->staged; i-- > 0;) {
		struct staged *x = &n->staging[i];

		if (x->phase != STAGED_KEPT)
			continue;
		if (!home_alive(n, x->page)) {
			if (evict_room(n, MARK_LIMIT) && !frame_waited_for(n))
				holder_touch_staged(n, x->page, NULL);
			else
				kept++;
			continue;
		}
		if (n->used < n->high ||
		    (x->light && evict_room(n, MARK_LIMIT))) {
			n->sim->put_back++;
			holder_touch_staged(n, x->page, NULL);
		} else if (x->again <= n->sim->now && n->sim->at_work) {
			*x = (struct staged){
				.page = x->page,
				.ask_home = n->page[x->page].state == PAGE_S,
			};
		} else {
			kept++;
		}
	}
	if (kept == 0 || n->staged < n->staging_max || !n->sim->at_work)
		return;
	/* Something else, in exchange for one of them. */
	stage(n, 1, true, false, n->staged + 1);
	for (uint32_t i = 0; i < n->staged; i++) {
		if (n->staged <= n->staging_max ||
		    n->staging[i].phase != STAGED_KEPT ||
		    !evict_room(n, MARK_LIMIT))
			continue;
		n->sim->put_back++;
		holder_touch_staged(n, n->staging[i].page, NULL);
		return;
	}
}

/* --- asking ------------------------------------------------------------ */

/* A peer that was not asked yet, or NODE_NONE. */
static node_id somebody(struct node *n, uint64_t tried)
{
	node_id first = (node_id)sim_below(n->sim, n->sim->nodes);

	for (uint32_t i = 0; i < n->sim->nodes; i++) {
		node_id peer = (node_id)((first + i) % n->sim->nodes);

		if (peer != n->id && n->member[peer] == MEMBER_UP &&
		    (tried >> peer & 1) == 0)
			return peer;
	}
	return NODE_NONE;
}

/* Nobody is left to ask: not now. */
static void keep(struct node *n, struct staged *x)
{
	x->phase = STAGED_KEPT;
	x->again = n->sim->now + BACKOFF_NS;
	if (!x->light && x->stored < n->sim->copies &&
	    n->used + n->staged > n->low) {
		n->no_room_until = x->again;
		n->sim->refusals++;
	}
}

static bool to_ask(const struct node *n, const struct staged *x)
{
	return x->phase == STAGED_NEW && x->again <= n->sim->now;
}

/* Ask about a page, and about what goes the same way with it. */
static void ask(struct node *n, uint32_t i)
{
	struct staged *first = &n->staging[i];
	bool home = first->ask_home;
	node_id to =
		home ? home_of(n, first->page)->id : somebody(n, first->tried);
	struct message m = { .kind = home ? M_EVICT : M_STORE,
		             .page = first->page & ~(RUN_PAGES - 1ull) };

	/* Nobody is asked for what may as well stay. */
	if (to == NODE_NONE ||
	    (!home && (first->light || n->used + n->staged <= n->low))) {
		keep(n, first);
		return;
	}
	for (; i < n->staged; i++) {
		struct staged *x = &n->staging[i];

		if (x->page - m.page >= RUN_PAGES || !to_ask(n, x) ||
		    x->ask_home != home || (x->light && !home) ||
		    (!home && (x->tried >> to & 1) != 0))
			continue;
		m.mask |= 1ull << (x->page - m.page);
		x->phase = home ? STAGED_EVICTING : STAGED_STORING;
		x->at = to;
		if (home)
			holder_evict(n, x->page);
		else
			x->tried |= 1ull << to;
	}
	node_send(n, to, &m, NULL);
}

static void ask_all(struct node *n)
{
	for (uint32_t i = 0; i < n->staged; i++) {
		struct staged *x = &n->staging[i];

		if (!to_ask(n, x))
			continue;
		if (home_alive(n, x->page))
			ask(n, i);
		else
			x->phase = STAGED_KEPT;
	}
}

void evict_run(struct node *n)
{
	bool no_room = n->no_room_until > n->sim->now;

	if (n->used > n->high)
		n->over = true;
	if (n->used <= n->low)
		n->over = false;
	put_back(n);
	if (n->over)
		stage(n, n->used - n->low, no_room, false, n->staging_max);
	else if (n->squeezed > 0 && n->sim->at_work)
		stage(n, n->squeezed, true, true, n->staging_max);
	n->squeezed = 0;
	ask_all(n);
	n->evict_due = false; /* not before: what we staged is no news */
	if ((n->over || n->staged > 0) && n->sim->at_work)
		look(n, TICK_NS);
}

/* --- answers ----------------------------------------------------------- */

void evict_stored(struct node *n, node_id from, const struct message *m)
{
	for (uint32_t i = 0; i < n->staged; i++) {
		struct staged *x = &n->staging[i];
		gpn_t bit = x->page - m->page;

		if (x->phase != STAGED_STORING || x->at != from ||
		    bit >= RUN_PAGES || ((m->mask | m->arg) >> bit & 1) == 0)
			continue;
		x->phase = STAGED_NEW;
		if ((m->mask >> bit & 1) == 0)
			continue;
		x->stored++;
		/* In S others hold it too, maybe: home knows. */
		x->ask_home = x->verdicts > 0 || x->stored >= n->sim->copies;
	}
	evict_soon(n);
}

void evict_stay(struct node *n, gpn_t page)
{
	struct staged *x = staged_of(n, page);

	evict_soon(n);
	if (x == NULL || x->phase != STAGED_EVICTING)
		return;
	x->phase = STAGED_NEW;
	x->ask_home = false;
	/* Enough hold it, but home does not know yet. */
	if (x->stored >= n->sim->copies && x->verdicts < VERDICTS_MAX) {
		x->ask_home = true;
		x->again = n->sim->now + AGAIN_NS;
	}
	x->verdicts++;
}

void evict_peer_gone(struct node *n, node_id peer)
{
	for (uint32_t i = 0; i < n->staged; i++) {
		struct staged *x = &n->staging[i];

		if (x->phase == STAGED_STORING && x->at == peer)
			x->phase = STAGED_NEW;
		if (x->phase == STAGED_EVICTING && x->at == peer)
			x->phase = STAGED_KEPT;
		/* What it held for us is gone. */
		x->stored = 0;
	}
	evict_soon(n);
}
