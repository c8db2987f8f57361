/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction policy
 * ===============
 *
 * A node sees a page when it is fetched and, after that, never again: the
 * kernel hides accesses to what is mapped.  So the policy must not need to know
 * of each access, as LRU and CLOCK do.  It is S3-FIFO (Yang et al., SOSP 2023),
 * with its counter of accesses replaced by the one thing that can be seen: a
 * victim is *staged* first, that is taken from the clients into a frame that
 * nobody maps.  If it is touched there, a fault tells, and it goes back in
 * microseconds; if not until it is the oldest of the staging area, it goes to a
 * peer.
 *
 *	        ghost fresh
 *	in  ----------------------------.
 *	 |                              v
 *	 '--> [ small, 10 % ] --.   [  main  ] <-----------.
 *	                        v       |                  |
 *	                     [ staging, 1/16 ] -- touched -'
 *	                        |
 *	                        '--> out, leaves a ghost
 *
 * Most pages that are seen once are not seen again soon, those of a scan above
 * all.  They cross the small queue and are gone, and the main queue, where
 * pages are that were wanted twice, never hears of them.  A page that was
 * evicted too early comes back while its ghost is fresh, and goes to main at
 * once.  The ghost is a number in the page's own state: how many evictions
 * there had been when it went.  It is fresh while fewer came since than pages
 * are small or staged: with a small queue of twice the length the page would
 * still have been there.  While main is short that is a long time, and main
 * fills; later only what comes back soon is let in.  (S3-FIFO remembers as many
 * ghosts as main may hold pages.  With that more is fetched here, for main then
 * fills with what comes back seldom: docs/performance.md.)
 *
 * The victim is the head of the small queue while that has more than its share,
 * else the head of main.
 *
 * Entries that are left behind
 * ----------------------------
 *
 * A queue is a ring of keys.  A page that leaves from the middle (recalled,
 * discarded, touched) leaves its entry behind, for nobody knows where it is.
 * The page's mark says where the page is, and which rings have an *old* entry
 * of it:
 *
 *	bits 0-1  the queue in which it counts (enum evict_queue)
 *	bits 2-4  old entry in the ring of small, main, staging
 *
 * A page that enters a queue whose ring has an old entry of it adds no second
 * one.  The old one stands for it; the bit stays, and says that the entry is
 * older than it should be: at the head it is moved to the tail once.  So a ring
 * never has two entries of one page, and each entry is
 *
 *	                     page is in this queue      page is elsewhere
 *	bit not set          its turn                   -
 *	bit set              renew: to the tail         drop
 *
 * Old entries of a ring are bounded by a *sweep*: it starts when they are more
 * than half as many as true ones (and OLD_SPARE), and goes on SWEEP_STEP
 * entries with each entry that is added, from the head to the tail, moving true
 * ones down over old ones:
 *
 *	 head      keep    scan            tail
 *	  | swept   |  gap  |  to be seen   |
 *
 * With F frames, a sweep starts at 1.5 F entries at the latest, sees one for
 * each that is added and three more, and so ends before 0.5 F were added.  What
 * remains was true when it started (F at most) or was added (0.5 F at most):
 * 1.5 F again.  So 2 F slots, and some for rounding, always suffice.  A third
 * of what a sweep sees is old, each old entry was left by one departure, and no
 * step sees more than SWEEP_STEP: O(1) a call, on average and at worst.
 *
 * A ring uses as many of its slots as it needs, its window, so that memory for
 * pages that are not there is never touched.
 *
 * Invariants, asserted by evict_check() after every step but E4 and E5, which
 * need to see all entries (evict_check_all()):
 *
 *	E1  small, main and staged pages together are at most cfg.frames.
 *	E2  staged ones are at most cfg.staged.
 *	E3  a ring has at least as many entries as its queue has pages, and at
 *	    most as many as it has slots.
 *	E4  each entry's page is in that queue, or has the ring's old bit set.
 *	E5  as many entries are true as the queue has pages.
 *	E6  head <= keep <= scan <= tail; there is no gap at the head.
 *	E7  a round offers no more than there is.
 */

#include "core/evict.h"

#include <string.h>

#define OLD_SPARE  8u    /* old entries for which no sweep starts */
#define SWEEP_STEP 4u    /* entries seen with each one that is added */
#define SLOTS_MIN  1024u /* a window is no smaller: one page of memory */

static_assert(EVICT_STAGING == 3, "two bits, and one old bit for each ring");

/* Offsets count from the head. */
struct ring {
	uint32_t *slot;
	uint32_t slots;  /* that there are */
	uint32_t window; /* of them in use, from the first */
	uint32_t head;   /* slot of the entry at offset 0 */
	uint32_t used;   /* offset of the tail */
	uint32_t left;   /* entries before this offset are of this round */
	uint32_t keep;   /* sweep: true entries end here ... */
	uint32_t scan;   /* ... and these have not been seen.  Both 0: no sweep,
	                    or none has seen anything */
	bool sweeping;
};

struct evict {
	struct evict_config cfg;
	uint32_t clock;           /* evictions, wrapping; never 0 */
	uint32_t n[EVICT_QUEUES]; /* pages in each queue */
	enum evict_queue offered; /* an answer is due for its head */
	struct ring ring[EVICT_QUEUES];
};

static unsigned old_bit(enum evict_queue q)
{
	return 2u << q;
}

/* --- rings ------------------------------------------------------------- */

static uint32_t ring_slots(uint32_t pages)
{
	return 2 * pages + 2 * OLD_SPARE;
}

static uint32_t *ring_at(const struct ring *r, uint32_t offset)
{
	uint32_t i = r->head + offset;

	return &r->slot[i < r->window ? i : i - r->window];
}

/* A window as for an empty ring. */
static void ring_reset(struct ring *r)
{
	r->window = (uint32_t)min_u64(SLOTS_MIN, r->slots);
	r->head = r->used = r->left = r->keep = r->scan = 0;
	r->sweeping = false;
}

/* More slots, by a quarter; what is wrapped around its end moves with it. */
static void ring_widen(struct ring *r)
{
	uint32_t window =
		(uint32_t)min_u64(r->window + r->window / 4, r->slots);
	uint32_t at_end = r->window - r->head;

	assert(window > r->window);
	if (r->used > at_end) {
		memmove(&r->slot[window - at_end], &r->slot[r->head],
		        at_end * sizeof(*r->slot));
		r->head = window - at_end;
	}
	r->window = window;
}

static void ring_push(struct ring *r, uint32_t key)
{
	if (r->used == r->window)
		ring_widen(r);
	*ring_at(r, r->used++) = key;
}

static void ring_skip(struct ring *r, uint32_t n)
{
	r->head = (uint32_t)(ring_at(r, n) - r->slot);
	r->used -= n;
	r->left -= (uint32_t)min_u64(r->left, n);
}

/* No gap at the head, and none at the tail. */
static void ring_tidy(struct ring *r)
{
	if (r->keep == 0 && r->scan > 0) {
		ring_skip(r, r->scan);
		r->scan = 0;
	}
	if (r->sweeping && r->scan == r->used) {
		r->used = r->keep;
		r->left = (uint32_t)min_u64(r->left, r->used);
		r->keep = r->scan = 0;
		r->sweeping = false;
	}
	if (r->used == 0)
		ring_reset(r);
}

static void ring_pop(struct ring *r)
{
	assert(r->used > 0);
	ring_skip(r, 1);
	if (r->keep > 0) {
		r->keep--;
		r->scan--;
	}
	ring_tidy(r);
}

/* --- sweeping ---------------------------------------------------------- */

/*
 * Is the entry of `key` in ring `q` a true one?  If not it is about to be
 * dropped, and its page forgets it.  The caller's page is in its hands (`mine`,
 * `p`): its mark as cfg.mark knows it is out of date.
 */
static bool still_true(struct evict *ev, enum evict_queue q, uint32_t key,
                       uint32_t mine, struct evict_page *p)
{
	bool in_hand = p != NULL && key == mine;
	uint8_t mark = in_hand ? p->mark : ev->cfg.mark(ev->cfg.arg, key);

	if ((mark & 3u) == q)
		return true;
	mark &= (uint8_t)~old_bit(q);
	if (in_hand)
		p->mark = mark;
	else
		ev->cfg.set_mark(ev->cfg.arg, key, mark);
	return false;
}

/* See up to `n` entries of a sweep that is under way, or due. */
static void sweep(struct evict *ev, enum evict_queue q, uint32_t n,
                  uint32_t mine, struct evict_page *p)
{
	struct ring *r = &ev->ring[q];

	if (!r->sweeping && r->used > ev->n[q] + ev->n[q] / 2 + OLD_SPARE)
		r->sweeping = true;
	if (!r->sweeping)
		return;
	for (; n > 0 && r->scan < r->used; n--) {
		uint32_t key;

		/* What is not of this round must not move into it. */
		if (r->scan == r->left)
			r->left = r->keep;
		key = *ring_at(r, r->scan++);
		if (still_true(ev, q, key, mine, p))
			*ring_at(r, r->keep++) = key;
	}
	ring_tidy(r);
}

void evict_purge(struct evict *ev)
{
	for (enum evict_queue q = EVICT_SMALL; q <= EVICT_STAGING; q++) {
		/* To the end of the one that is under way, then all. */
		if (ev->ring[q].sweeping)
			sweep(ev, q, UINT32_MAX, 0, NULL);
		ev->ring[q].sweeping = true;
		sweep(ev, q, UINT32_MAX, 0, NULL);
	}
	ev->offered = EVICT_NOWHERE;
	evict_check(ev);
}

/* --- entering and leaving ---------------------------------------------- */

size_t evict_bytes(const struct evict_config *cfg)
{
	return sizeof(struct evict) +
	       sizeof(uint32_t) * (2 * (size_t)ring_slots(cfg->frames) +
	                           ring_slots(cfg->staged));
}

struct evict *evict_init(const struct evict_config *cfg, void *mem)
{
	struct evict *ev = mem;
	uint32_t *slot = (uint32_t *)(ev + 1);

	assert(cfg->frames > 0 && cfg->frames <= EVICT_FRAMES_MAX);
	assert(cfg->staged > 0 && cfg->staged <= cfg->frames);
	assert(cfg->small_percent <= 100);
	*ev = (struct evict){ .cfg = *cfg, .clock = 1 };
	for (enum evict_queue q = EVICT_SMALL; q <= EVICT_STAGING; q++) {
		struct ring *r = &ev->ring[q];

		r->slot = slot;
		r->slots = ring_slots(q == EVICT_STAGING ? cfg->staged :
		                                           cfg->frames);
		slot += r->slots;
		ring_reset(r);
	}
	return ev;
}

static void enter(struct evict *ev, enum evict_queue q, uint32_t key,
                  struct evict_page *p)
{
	assert(evict_where(p) == EVICT_NOWHERE);
	p->mark |= (uint8_t)q;
	ev->n[q]++;
	if ((p->mark & old_bit(q)) == 0)
		ring_push(&ev->ring[q], key);
	sweep(ev, q, SWEEP_STEP, key, p);
}

/* It leaves its queue, but its entry stays there. */
static void leave(struct evict *ev, struct evict_page *p)
{
	enum evict_queue q = evict_where(p);

	assert(q != EVICT_NOWHERE);
	p->mark = (uint8_t)((p->mark & ~3u) | old_bit(q));
	ev->n[q]--;
}

/* How many pages were evicted after it is the age of a ghost. */
static bool ghost_fresh(const struct evict *ev, const struct evict_page *p)
{
	uint32_t age = ev->clock - p->stamp - 1;

	return p->stamp != 0 && age < ev->n[EVICT_SMALL] + ev->n[EVICT_STAGING];
}

void evict_in(struct evict *ev, uint32_t key, struct evict_page *p)
{
	enter(ev, ghost_fresh(ev, p) ? EVICT_MAIN : EVICT_SMALL, key, p);
	evict_check(ev);
}

void evict_gone(struct evict *ev, struct evict_page *p)
{
	leave(ev, p);
	p->stamp = 0;
	evict_check(ev);
}

void evict_touched(struct evict *ev, uint32_t key, struct evict_page *p)
{
	assert(evict_where(p) == EVICT_STAGING);
	leave(ev, p);
	enter(ev, EVICT_MAIN, key, p);
	evict_check(ev);
}

void evict_back(struct evict *ev, uint32_t key, struct evict_page *p)
{
	enter(ev, EVICT_MAIN, key, p);
	evict_check(ev);
}

/* --- whose turn it is -------------------------------------------------- */

void evict_round(struct evict *ev)
{
	for (enum evict_queue q = EVICT_SMALL; q <= EVICT_STAGING; q++)
		ev->ring[q].left = ev->ring[q].used;
}

void evict_round_staged(struct evict *ev)
{
	struct ring *r = &ev->ring[EVICT_STAGING];

	r->left = r->used;
}

static bool can_offer(const struct evict *ev, enum evict_queue q)
{
	return ev->ring[q].left > 0;
}

static bool small_is_due(const struct evict *ev)
{
	return (uint64_t)ev->n[EVICT_SMALL] * 100 >
	       (uint64_t)evict_resident(ev) * ev->cfg.small_percent;
}

bool evict_next(struct evict *ev, uint32_t *key)
{
	enum evict_queue q = small_is_due(ev) ? EVICT_SMALL : EVICT_MAIN;

	ev->offered = EVICT_NOWHERE;
	if (ev->n[EVICT_STAGING] == ev->cfg.staged)
		return false;
	/* Also when nothing of that queue was good enough in this round. */
	if (!can_offer(ev, q))
		q = q == EVICT_SMALL ? EVICT_MAIN : EVICT_SMALL;
	if (!can_offer(ev, q))
		return false;
	ev->offered = q;
	*key = *ring_at(&ev->ring[q], 0);
	return true;
}

bool evict_oldest(struct evict *ev, uint32_t *key)
{
	ev->offered = EVICT_NOWHERE;
	if (!can_offer(ev, EVICT_STAGING))
		return false;
	ev->offered = EVICT_STAGING;
	*key = *ring_at(&ev->ring[EVICT_STAGING], 0);
	return true;
}

/*
 * The entry at the head of `q` has its turn, and leaves the head.  On
 * EVICT_TAKEN its page is in no queue.
 */
static enum evict_outcome serve(struct evict *ev, enum evict_queue q,
                                uint32_t key, struct evict_page *p,
                                enum evict_answer answer)
{
	struct ring *r = &ev->ring[q];
	bool old;

	assert(*ring_at(r, 0) == key);
	ev->offered = EVICT_NOWHERE;
	ring_pop(r);
	if (answer == EVICT_UNKNOWN)
		return EVICT_SKIPPED;
	old = (p->mark & old_bit(q)) != 0;
	p->mark &= (uint8_t)~old_bit(q);
	if (evict_where(p) != q) {
		assert(old);
		return EVICT_SKIPPED;
	}
	if (old || answer == EVICT_NOT_NOW) {
		ring_push(r, key);
		sweep(ev, q, SWEEP_STEP, key, p);
		return EVICT_LATER;
	}
	p->mark &= (uint8_t)~3u;
	ev->n[q]--;
	return EVICT_TAKEN;
}

enum evict_outcome evict_take(struct evict *ev, uint32_t key,
                              struct evict_page *p, enum evict_answer answer)
{
	struct ring *staging = &ev->ring[EVICT_STAGING];
	enum evict_queue q = ev->offered;
	enum evict_outcome outcome;

	assert(q == EVICT_SMALL || q == EVICT_MAIN);
	outcome = serve(ev, q, key, p, answer);
	if (outcome == EVICT_TAKEN) {
		enter(ev, EVICT_STAGING, key, p);
		/* So that one round can stage a page and send it away. */
		if (staging->left < staging->used)
			staging->left++;
	}
	evict_check(ev);
	return outcome;
}

enum evict_outcome evict_out(struct evict *ev, uint32_t key,
                             struct evict_page *p, enum evict_answer answer)
{
	enum evict_outcome outcome;

	assert(ev->offered == EVICT_STAGING);
	outcome = serve(ev, EVICT_STAGING, key, p, answer);
	if (outcome == EVICT_TAKEN) {
		p->stamp = ev->clock++;
		/* A stamp of 0 is no ghost. */
		if (ev->clock == 0)
			ev->clock = 1;
	}
	evict_check(ev);
	return outcome;
}

/* --- looking ----------------------------------------------------------- */

uint32_t evict_count(const struct evict *ev, enum evict_queue q)
{
	return ev->n[q];
}

uint32_t evict_resident(const struct evict *ev)
{
	return ev->n[EVICT_SMALL] + ev->n[EVICT_MAIN] + ev->n[EVICT_STAGING];
}

void evict_check(const struct evict *ev)
{
	assert(evict_resident(ev) <= ev->cfg.frames);   /* E1 */
	assert(ev->n[EVICT_STAGING] <= ev->cfg.staged); /* E2 */
	for (enum evict_queue q = EVICT_SMALL; q <= EVICT_STAGING; q++) {
		const struct ring *r = &ev->ring[q];

		assert(r->used - (r->scan - r->keep) >= ev->n[q]); /* E3 */
		assert(r->used <= r->window);                      /* E3 */
		assert(r->window <= r->slots);                     /* E3 */
		assert(r->left <= r->used);                        /* E7 */
		assert(r->keep <= r->scan);                        /* E6 */
		assert(r->scan <= r->used);                        /* E6 */
		assert(r->keep > 0 || r->scan == 0);               /* E6 */
	}
}

void evict_check_all(const struct evict *ev)
{
	evict_check(ev);
	for (enum evict_queue q = EVICT_SMALL; q <= EVICT_STAGING; q++) {
		const struct ring *r = &ev->ring[q];
		uint32_t n_true = 0;

		for (uint32_t i = 0; i < r->used; i++) {
			uint8_t mark;

			if (i >= r->keep && i < r->scan)
				continue;
			mark = ev->cfg.mark(ev->cfg.arg, *ring_at(r, i));
			if ((mark & 3u) == q)
				n_true++;
			else
				assert((mark & old_bit(q)) != 0); /* E4 */
		}
		assert(n_true == ev->n[q]); /* E5 */
	}
}
