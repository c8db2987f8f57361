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
 *	            oldest go (leave.c)
 *
 * Faults that find no frame of the limit wait here (touch.c parks them), and
 * try again whenever one comes free.
 *
 * Eviction must not be in the way of faults: batches are small, and its
 * requests leave half of a session's page credits to others.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "node/shard.h"

#define STAGE_BATCH  32u   /* pages a turn */
#define STAGE_LEAST  16u   /* so many while there is no haste */
#define LOOKS_MAX    256u  /* at pages that cannot go, a turn */
#define SEARCH_LOOKS 4096u /* the same, while only shared ones may */
#define LEAVE_BATCH  32u
#define RETRY_NS     (1 * NSEC_PER_MSEC) /* doubled while nothing goes */
#define RETRY_NS_MAX (2 * NSEC_PER_SEC)
#define TRIM_PAGES   64u

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

/*
 * May the page be chosen?  When nobody has room only shared ones may; without
 * its home, or as many peers as are to hold it, none: it would only be in the
 * way of others in the pool of frames.
 */
static bool eligible(const struct shard *s, const struct sspace *sp, gpn_t page,
                     bool shared_only)
{
	const struct page_entry *p = &sp->space->pages[page];

	if (!page_held(p) || page_asked(p) || !leave_home_knows(s, sp, page) ||
	    s->n_peers < leave_need(sp))
		return false;
	return p->state == PAGE_S || !shared_only;
}

/* Up to `most` pages, as long as more than `spare` frames are free. */
static uint32_t stage(struct shard *s, uint32_t most, uint32_t spare,
                      bool shared_only)
{
	struct batch b = { .n = 0 };
	uint32_t key, looks = 0, looks_max;

	shared_only = shared_only || leave_tight(s);
	looks_max = shared_only ? SEARCH_LOOKS : LOOKS_MAX;
	most = (uint32_t)min_u64(most, STAGE_BATCH);
	/* A round goes on in the next turn: or, where most pages cannot go,
	 * those behind the first that a turn looks at would never be. */
	if (s->round_over)
		evict_round(s->policy);
	s->round_over = false;
	while (b.n < most && looks++ < looks_max &&
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
	s->looks_spent = looks > looks_max;
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
			leave_add(s, p->frame);
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
bool evict_for_back(struct shard *s)
{
	if (frames_take(s, 1, MEMORY_BUDGET))
		return true;
	if (s->stuck) /* nothing was found a moment ago */
		return false;
	s->stuck = stage(s, 1, s->n_frames / 8, false) == 0;
	return !s->stuck && frames_take(s, 1, MEMORY_BUDGET);
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
	uint64_t used = memory_used(m), budget = memory_budget(m);

	if (s->no_frame.n > 0 && used < budget) {
		unpark_some(s, &s->no_frame,
		            (uint32_t)min_u64(budget - used, PENDS_MAX));
		peer_drain(s);
	}
	if (s->told_waiting == s->no_frame.n)
		return;
	(void)atomic_fetch_add_explicit(
		&m->waiting, (uint64_t)s->no_frame.n - s->told_waiting,
		memory_order_relaxed);
	s->told_waiting = s->no_frame.n;
}

/*
 * Pages to be staged in one turn: few, for a fault that comes meanwhile waits
 * until they are staged and sent, but more where faults take frames faster.
 */
static uint32_t batch_of(const struct shard *s, uint64_t excess)
{
	uint64_t used = memory_used(&s->node->memory);
	uint64_t high = memory_high(&s->node->memory);
	uint64_t over = used > high ? used - high : 0;

	if (excess == 0)
		return (uint32_t)min_u64(s->trim, STAGE_BATCH);
	return (uint32_t)min_u64(excess, min_u64(max_u64(over, STAGE_LEAST),
	                                         STAGE_BATCH));
}

/* Stage what memory lacks; returns how many pages were. */
static uint32_t make_room(struct shard *s, uint64_t excess)
{
	uint32_t done =
		stage(s, batch_of(s, excess), s->n_frames / 4, excess == 0);
	uint32_t rests = evict_count(s->policy, EVICT_STAGING);

	if (excess > 0 && done == 0 && leave_tight(s))
		leave_refused(s);
	if (excess == 0) {
		send_oldest(s, done, true);
		s->trim -= (uint32_t)min_u64(s->trim, max_u64(done, 8));
	} else if (rests > s->staged_max / 2) {
		send_oldest(s,
		            (uint32_t)min_u64(rests - s->staged_max / 2,
		                              LEAVE_BATCH),
		            leave_tight(s));
	}
	return done;
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
	uint64_t gone = s->gone;
	uint32_t done = 0;

	if (excess == 0 && s->leaving_n == 0 && s->no_frame.n == 0 &&
	    s->told_waiting == 0 && s->trim == 0)
		return;
	/* Nothing went a while ago; but somebody waits who did not then. */
	if (s->no_frame.n > s->told_waiting)
		s->evict_after = 0;
	if (loop_now(s->loop) < s->evict_after) {
		feed(s);
		return;
	}
	s->stuck = false;
	s->put_back = 0;
	if (excess > 0)
		shard_nudge_others(s);
	if (excess > 0 || s->trim > 0)
		done = make_room(s, excess);
	if (s->leaving_n > 0)
		leave_turn(s);
	feed(s);
	/* What was staged only to be put back got us nowhere. */
	come_again(s, s->gone != gone || done > s->put_back);
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
