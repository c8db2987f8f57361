/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults: from the clients' userfaultfds to requests.
 *
 * A fault is remembered (pend.c), then its page is asked what it needs
 * (core/page).  If that is a request, core/place says who is home, and the
 * request takes pages along that will be wanted next.
 *
 * What will be wanted next is guessed per client and stripe, from up to STREAMS
 * scans that are followed at once:
 *
 *	first touch at home   runs of 1, 2, 4 ... 64 pages while the touches
 *	                      go on behind what was mapped: a scan costs a
 *	                      fault per 64 pages, a random touch maps one page
 *	pages of elsewhere    windows of 4 ... 64 pages.  The page at three
 *	                      quarters of a window arrives but stays unmapped,
 *	                      as the *marker*: the touch that reaches it orders
 *	                      the next window, so that a scan does not stall.
 *	                      A scan that catches up with what is on its way
 *	                      gets another window ahead
 *	strides               two equal distances in a row: every n-th page
 *
 * Prefetch never spends the last credits of a session: a fault must not wait
 * for a guess.  A space whose prefetches are refused (its pages are written
 * elsewhere) is guessed for more rarely.
 */

#include <sys/epoll.h>

#include "node/shard.h"

#define READS_MAX      4u /* batches of one userfaultfd in one wake-up */
#define WINDOW_FIRST   4u /* pages; a scan of pages from elsewhere */
#define WINDOW_MAX     RUN_PAGES
#define AHEAD_MAX      8u  /* windows */
#define STRIDE_MAX     32  /* pages */
#define CREDITS_KEPT   32u /* for faults */
#define REFUSED_ENOUGH 64u /* refusals in a row that make us doubt */
#define DOUBT_EVERY    16u /* ... and guess only every so many times */

/* --- what comes next --------------------------------------------------- */

static struct stream *stream_of(struct sstripe *st, gpn_t page)
{
	for (unsigned i = 0; i < STREAMS; i++)
		if (st->stream[i].window > 0 && (st->stream[i].next == page ||
		                                 st->stream[i].marker == page))
			return &st->stream[i];
	return NULL;
}

/* The stream unused for longest, for a scan that may begin here. */
static struct stream *stream_new(struct sstripe *st, gpn_t page, int32_t stride)
{
	struct stream *oldest = &st->stream[0];

	for (unsigned i = 1; i < STREAMS; i++)
		if (st->stream[i].used < oldest->used)
			oldest = &st->stream[i];
	*oldest = (struct stream){ .next = page + (gpn_t)stride,
		                   .marker = GPN_NONE,
		                   .window = 1,
		                   .ahead = 1,
		                   .stride = stride };
	return oldest;
}

/*
 * The stream that `page` continues: also one of the stripe before, where this
 * shard has both; it moves over, for there it has come to its end.
 */
static struct stream *stream_find(struct sstripe *st, gpn_t page)
{
	struct stream *m = stream_of(st, page);
	struct stream *here;

	if (m != NULL || st->index == 0 || st[-1].uffd == NULL)
		return m;
	m = stream_of(st - 1, page);
	if (m == NULL)
		return NULL;
	here = stream_new(st, page, m->stride);
	*here = *m;
	here->used = ++st->clock;
	*m = (struct stream){ .marker = GPN_NONE };
	return here;
}

/* The extent that `page` is in ends before this page. */
static gpn_t extent_end(const struct sspace *sp, gpn_t page)
{
	return min_u64((page / EXTENT_PAGES + 1) * EXTENT_PAGES,
	               sp->space->cut.pages);
}

/*
 * How many pages, `stride` apart from `page` on, to ask for with it: never
 * beyond its extent.  Moves the stream on.
 */
static uint32_t stream_advance(struct sstripe *st, gpn_t page, bool local,
                               int32_t *stride)
{
	gpn_t left = extent_end(st->space, page) - page;
	int64_t delta = (int64_t)(page - st->last);
	struct stream *m = stream_find(st, page);
	uint32_t n;

	st->last = page;
	*stride = 1;
	if (m == NULL) {
		bool repeats =
			delta > 1 && delta <= STRIDE_MAX && delta == st->delta;

		st->delta = delta;
		m = stream_new(st, page, repeats ? (int32_t)delta : 1);
		m->used = ++st->clock;
		if (!repeats)
			return 1;
	}
	m->used = ++st->clock;
	*stride = m->stride;
	m->window = m->window < WINDOW_FIRST && !local ? WINDOW_FIRST :
	            m->window * 2 > WINDOW_MAX         ? WINDOW_MAX :
	                                                 m->window * 2;
	n = (uint32_t)min_u64(m->window,
	                      (RUN_PAGES - 1) / (uint32_t)m->stride + 1);
	n = (uint32_t)min_u64(n, (left - 1) / (uint32_t)m->stride + 1);
	m->next = page + (gpn_t)n * (gpn_t)m->stride;
	m->marker = !local && m->stride == 1 && n >= 8 ? page + n * 3 / 4 :
	                                                 GPN_NONE;
	return n;
}

/* The marker was reached: order the next windows. */
static void marker_touched(struct shard *s, struct sspace *sp,
                           struct sstripe *st, gpn_t page)
{
	struct stream *m = stream_find(st, page);
	gpn_t until;

	if (m == NULL || m->marker != page)
		return;
	m->used = ++st->clock;
	m->window = m->window * 2 > WINDOW_MAX ? WINDOW_MAX : m->window * 2;
	until = page + (gpn_t)m->window * (m->ahead + 1);
	while (m->next < until) {
		uint32_t n = touch_prefetch(s, sp, m->next, m->window, false);

		if (n == 0) {
			m->marker = GPN_NONE;
			return;
		}
		m->next += n;
	}
	m->marker =
		m->next - m->window / 4 - 1 - (gpn_t)(m->ahead - 1) * m->window;
	if (m->marker <= page)
		m->marker = m->next - 1;
}

/* A scan waited for what was on its way: look further ahead. */
static void caught_up(struct sstripe *st, gpn_t page)
{
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *m = &st->stream[i];

		if (m->window >= WINDOW_MAX && page < m->next &&
		    m->next - page <= (gpn_t)m->window * (AHEAD_MAX + 1) &&
		    m->ahead < AHEAD_MAX)
			m->ahead *= 2;
	}
}

/* --- asking ------------------------------------------------------------ */

/* Should this space be guessed for at all, now? */
static bool guesses(struct sspace *sp)
{
	return sp->refused < REFUSED_ENOUGH ||
	       ++sp->guess_clock % DOUBT_EVERY == 0;
}

/* Ask core/page for one page ahead of need: true if it is to be requested. */
static bool want_ahead(struct shard *s, struct sspace *sp, gpn_t page,
                       bool write)
{
	struct page_event ev = { .kind = PAGE_PREFETCH, .write = write };
	struct page_entry *p = &sp->space->pages[page];
	struct page_actions out;

	/* An upgrade is not worth asking for ahead: home would refuse it. */
	if (p->state != PAGE_I || page_asked(p))
		return false;
	/* Guesses give way first when memory is short [B2]. */
	if (!frames_take(s, 1, MEMORY_HIGH))
		return false;
	(void)page_step(s, sp, page, &ev, &out);
	frames_return(s);
	return out.n > 0;
}

/* The pages of [page + 1, ...) that go along with a request for `page`. */
static uint64_t go_along(struct shard *s, struct sspace *sp, gpn_t page,
                         uint32_t n, int32_t stride, bool write)
{
	gpn_t end = extent_end(sp, page);
	uint64_t mask = 1;

	for (uint32_t i = 1; i < n; i++) {
		gpn_t at = page + (gpn_t)i * (gpn_t)stride;

		if (at >= end || at - page >= RUN_PAGES)
			break;
		if (want_ahead(s, sp, at, write))
			mask |= 1ull << (at - page);
	}
	return mask;
}

static void get_send(struct shard *s, struct sspace *sp, node_id home,
                     gpn_t page, uint64_t mask, bool write)
{
	struct msg m = { .type = write ? MSG_GET_X : MSG_GET_S,
		         .space = sp->space->id,
		         .page = page,
		         .mask = mask };
	enum tp_sent sent = peer_send(s, home, sp, &m, NULL, false, NULL);

	assert(sent == TP_QUEUED); /* the credits were there */
}

/* Its home is dead: whoever waits must not wait for ever. */
static void touch_unreachable(struct shard *s, const struct pend *p)
{
	struct page_event ev = { .kind = PAGE_TOUCH, .write = p->write };
	struct sspace *sp = p->space;
	struct page_actions out;
	gpn_t page = p->page;

	/* As if it had been asked: a page that may be read, and that somebody
	 * wants to write, is lost like one that is not held. */
	(void)page_step(s, sp, page, &ev, &out);
	holder_unreachable_page(s, sp, page);
}

/* Who is home, and may we ask it now?  If not, the waiter is parked. */
static bool home_of(struct shard *s, uint32_t i, node_id *home,
                    uint32_t *credits)
{
	const struct pend *p = &s->pend[i];
	struct sspace *sp = p->space;
	struct parking *wait = NULL;
	struct place_claim claim;
	enum place_answer a;

	*home = s->node->id;
	a = place_touch(&sp->space->place, extent_of(p->page), home, &claim);
	if (claim.n > 0)
		shard_claim(s, sp, &claim);
	if (a == PLACE_WAIT) {
		park(s, &sp->unknown, i);
		return false;
	}
	if (!peer_alive(s, *home)) {
		/* A member that we have not heard of yet will come.  A dead
		 * one took the page along, if it ever opened its extent. */
		if (!peer_over(s, *home))
			park_later(s, i);
		else if (place_recheck(&sp->space->place, extent_of(p->page)))
			return home_of(s, i, home, credits);
		else
			touch_unreachable(s, p);
		return false;
	}
	*credits = peer_credits(s, sp, *home, p->page, &wait);
	if (*credits == 0) {
		park(s, wait, i);
		return false;
	}
	return true;
}

static void request(struct shard *s, uint32_t i, struct sstripe *st)
{
	const struct pend *p = &s->pend[i];
	struct page_event ev = { .kind = PAGE_TOUCH, .write = p->write };
	struct sspace *sp = p->space;
	struct page_actions out;
	gpn_t page = p->page;
	bool write = p->write;
	uint32_t credits, n;
	int32_t stride = 1;
	node_id home;

	if (!home_of(s, i, &home, &credits))
		return;
	if (!page_held(&sp->space->pages[page]) &&
	    !frames_take(s, 1, MEMORY_BUDGET)) {
		park(s, &s->no_frame, i); /* evict_turn() goes on with it */
		return;
	}
	(void)page_step(s, sp, page, &ev, &out);
	n = stream_advance(st, page, home == s->node->id, &stride);
	if (n > 1 && home != s->node->id) {
		if (!guesses(sp) || credits < CREDITS_KEPT)
			n = 1;
		else if (n > credits - CREDITS_KEPT + 1)
			n = credits - CREDITS_KEPT + 1;
	}
	get_send(s, sp, home, page, go_along(s, sp, page, n, stride, write),
	         write);
}

/* It was taken from the clients to be evicted: back with it, if it is here
 * still. */
static void touch_staged(struct shard *s, uint32_t i)
{
	const struct pend *p = &s->pend[i];
	struct page_event ev = { .kind = PAGE_TOUCH,
		                 .write = p->write,
		                 .thread = p->hash,
		                 .cap = (uint8_t)prng_below(&s->random, 16),
		                 .now_us = s->now_us };
	struct sspace *sp = p->space;
	uint32_t frame = sp->space->pages[p->page].frame;
	struct page_actions out;
	gpn_t page = p->page;

	if (!frames_take(s, 1, MEMORY_BUDGET)) {
		park(s, &s->no_frame, i);
		return;
	}
	(void)page_step(s, sp, page, &ev, &out);
	frames_return(s);
	if (out.v[0].kind == PAGE_INSTALL_BACK)
		holder_back(s, sp, page, frame);
}

void touch_pend(struct shard *s, uint32_t i)
{
	struct pend *p = &s->pend[i];
	struct sspace *sp = p->space;
	struct sstripe *st =
		&sp->client[p->slot]
			 .stripe[cut_stripe_of_page(&sp->space->cut, p->page)];
	struct page_entry *e = &sp->space->pages[p->page];
	gpn_t page = p->page;

	if (e->state == PAGE_LOST) {
		install_poison(s, sp, page);
		return;
	}
	frames_ours(s, sp, e);
	if (page_staged(e)) {
		touch_staged(s, i);
		return;
	}
	if (e->state == PAGE_M || (e->state == PAGE_S && !p->write)) {
		install_map(s, i);
		marker_touched(s, sp, st, page);
		return;
	}
	if (page_asked(e)) {
		if ((e->flags & PAGE_F_PREFETCH) != 0) {
			p->ahead = true;
			caught_up(st, page);
		}
		marker_touched(s, sp, st, page);
		return; /* an answer is under way */
	}
	request(s, i, st);
}

void touch_page(struct shard *s, struct sspace *sp, gpn_t page)
{
	const struct page_entry *e = &sp->space->pages[page];

	/* One asks for all, or wakes them all.  But if it can only be parked,
	 * so are the others: its client may be gone when it is unparked. */
	while (!page_asked(e) && (e->flags & PAGE_F_EVICTING) == 0) {
		uint32_t i = pend_first(s, sp, page);

		while (i != 0 && s->pend[i].is_parked)
			i = pend_next(s, i);
		if (i == 0)
			return;
		touch_pend(s, i);
	}
}

uint32_t touch_prefetch(struct shard *s, struct sspace *sp, gpn_t first,
                        uint32_t n, bool write)
{
	const struct cut *cut = &sp->space->cut;
	gpn_t end = extent_end(sp, first);
	const struct extent *x;
	struct parking *wait;
	uint64_t mask = 0;
	gpn_t base = 0;
	node_id home;

	if (first >= cut->pages || cut_shard(cut_stripe_of_page(cut, first),
	                                     s->node->cfg.shards) != s->index)
		return 0;
	x = &sp->space->place.extent[extent_of(first)];
	home = (node_id)(x->home - 1);
	if (x->home == 0 || home == s->node->id || !peer_alive(s, home) ||
	    !guesses(sp))
		return 0;
	n = (uint32_t)min_u64(min_u64(n, RUN_PAGES), end - first);
	if (peer_credits(s, sp, home, first, &wait) < n + CREDITS_KEPT)
		return 0;
	for (gpn_t at = first; at < first + n; at++) {
		if (!want_ahead(s, sp, at, write))
			continue;
		if (mask == 0)
			base = at;
		mask |= 1ull << (at - base);
	}
	if (mask != 0)
		get_send(s, sp, home, base, mask, write);
	return n;
}

/* --- reading faults ---------------------------------------------------- */

static void pause_stripe(struct sstripe *st)
{
	if (!st->paused)
		(void)loop_modify(st->shard->loop, &st->io, 0);
	st->paused = true;
	st->shard->starved = true;
}

void touch_resume(struct shard *s)
{
	if (!s->starved || s->n_free_pend < PENDS_MAX / 4)
		return;
	s->starved = false;
	for (struct sspace *sp = s->spaces; sp != NULL; sp = sp->next) {
		for (uint64_t m = sp->slots; m != 0; m &= m - 1) {
			struct sclient *c = &sp->client[__builtin_ctzll(m)];

			for (uint32_t i = 0; i < sp->space->cut.stripes; i++) {
				struct sstripe *st = &c->stripe[i];

				if (st->uffd == NULL || !st->paused)
					continue;
				st->paused = false;
				(void)loop_modify(s->loop, &st->io, EPOLLIN);
			}
		}
	}
}

void touch_ready(struct loop_io *io, uint32_t events)
{
	struct sstripe *st = container_of(io, struct sstripe, io);
	struct shard *s = st->shard;
	uint8_t slot = st->client->slot;
	struct uffd_fault f[UFFD_BATCH];

	(void)events;
	shard_gate(s);
	shard_now_us(s);
	for (unsigned k = 0; k < READS_MAX; k++) {
		int n;

		if (s->n_free_pend < UFFD_BATCH) {
			pause_stripe(st);
			return;
		}
		n = uffd_read(st->uffd, f);
		if (n < 0) {
			/* The process is gone: its socket says so too. */
			loop_remove(s->loop, io);
			return;
		}
		for (int i = 0; i < n; i++) {
			uint32_t p;

			if (f[i].page >= st->space->space->cut.pages)
				continue;
			st->space->client[slot].minor |=
				f[i].kind == UFFD_FAULT_MINOR;
			p = pend_add(s, st->space, f[i].page, &f[i], slot);
			holder_touched(s, st->space, f[i].page,
			               s->pend[p].hash);
			touch_pend(s, p);
			peer_drain(s);
		}
		if (n < (int)UFFD_BATCH)
			return;
	}
}
