/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of core/page, and what they mean for memory.
 *
 * A page needs a frame of the limit while it is in the space's memory, or while
 * a request for it is under way (page_counts()).  page_step() compares before
 * and after: what is not needed any more goes back to node.memory; what is
 * needed anew was taken by frames_take() before, so no step can exceed the
 * limit.
 *
 * The same comparison tells core/evict which pages come and go, and counts the
 * pages that are here for peers, or at peers for us.
 */

#include <errno.h>
#include <sys/mman.h>

#include "node/shard.h"

bool frames_take(struct shard *s, uint32_t n, enum memory_mark mark)
{
	if (!memory_take(&s->node->memory, n, mark))
		return false;
	s->taken += n;
	return true;
}

void frames_return(struct shard *s)
{
	if (s->taken > 0)
		memory_give(&s->node->memory, s->taken);
	s->taken = 0;
}

const uint8_t *page_bytes(const struct shard *s, const struct sspace *sp,
                          gpn_t page)
{
	const struct page_entry *p = &sp->space->pages[page];

	/* Never the alias of a page that we do not hold [A13]. */
	assert(page_held(p));
	return page_staged(p) ? frame_bytes(s->frames, p->frame) :
	                        space_mem_page(&sp->space->mem, page);
}

/* --- figures ------------------------------------------------------------- */

static void figure(_Atomic uint64_t *all, uint64_t *ours, bool up)
{
	if (up) {
		(*ours)++;
		(void)atomic_fetch_add_explicit(all, 1, memory_order_relaxed);
	} else {
		assert(*ours > 0);
		(*ours)--;
		(void)atomic_fetch_sub_explicit(all, 1, memory_order_relaxed);
	}
}

static void away_held(struct shard *s, struct sspace *sp, bool up)
{
	figure(&s->node->memory.lent_pages, &sp->away_held, up);
}

static void away_gone(struct shard *s, struct sspace *sp, bool up)
{
	figure(&s->node->memory.borrowed_pages, &sp->away_gone, up);
	if (up)
		(void)atomic_fetch_add_explicit(&sp->space->evicted, 1,
		                                memory_order_relaxed);
	else
		(void)atomic_fetch_sub_explicit(&sp->space->evicted, 1,
		                                memory_order_relaxed);
}

void frames_ours(struct shard *s, struct sspace *sp, struct page_entry *p)
{
	if (p->away == 0 || !page_held(p))
		return;
	p->away = 0;
	away_held(s, sp, false);
}

/* A page that was not held is, or the other way round. */
static void note_away(struct shard *s, struct sspace *sp, gpn_t page,
                      const struct page_entry *was, enum page_event_kind why)
{
	struct page_entry *p = &sp->space->pages[page];

	if (page_held(was) && page_held(p))
		return;
	if (was->away != 0)
		page_held(was) ? away_held(s, sp, false) :
				 away_gone(s, sp, false);
	p->away = 0;
	if (page_held(p))
		p->away =
			why == PAGE_KEEP || (was->flags & PAGE_F_STORING) != 0;
	else
		p->away = why == PAGE_DROP;
	if (p->away != 0)
		page_held(p) ? away_held(s, sp, true) : away_gone(s, sp, true);
}

/* --- core/evict ---------------------------------------------------------- */

/* Is it in the space's memory, where the policy may choose it? */
static bool resident(const struct page_entry *p)
{
	return page_held(p) && !page_staged(p);
}

static void note_policy(struct shard *s, struct sspace *sp, gpn_t page,
                        const struct page_entry *was)
{
	struct page_entry *p = &sp->space->pages[page];
	struct evict_page ep = { .mark = p->mark };
	uint32_t extent = extent_of(page);

	if (resident(p) && !page_held(was)) {
		ep.stamp = was->stamp;
		sp->used[extent / 64] |= 1ull << (extent % 64);
		evict_in(s->policy, evict_key(sp, page), &ep);
	} else if (resident(p) && page_staged(was)) {
		/* Of one whose turn had come nothing is staged any more. */
		if (evict_where(&ep) == EVICT_STAGING)
			evict_touched(s->policy, evict_key(sp, page), &ep);
		else
			evict_back(s->policy, evict_key(sp, page), &ep);
		leave_unstaged(s, was->frame);
	} else if (!page_held(p) && page_held(was)) {
		if (page_staged(was)) {
			ep.stamp = s->staged[was->frame].stamp;
			leave_unstaged(s, was->frame);
		}
		if (evict_where(&ep) != EVICT_NOWHERE)
			evict_gone(s->policy, &ep);
		p->stamp = ep.stamp;
	}
	p->mark = ep.mark & (EVICT_MARKS - 1);
}

/* --- steps --------------------------------------------------------------- */

static void note_frames(struct shard *s, struct sspace *sp, bool was, bool is)
{
	if (was && !is) {
		sp->counted--;
		memory_give(&s->node->memory, 1);
	} else if (!was && is) {
		sp->counted++;
		if (s->taken > 0)
			s->taken--;
		else
			memory_force(&s->node->memory);
	}
}

int page_step(struct shard *s, struct sspace *sp, gpn_t page,
              const struct page_event *ev, struct page_actions *out)
{
	struct page_entry *p = &sp->space->pages[page];
	struct page_entry was = *p;
	int r = page_handle(p, ev, out);

	if (r < 0)
		return r;
	note_frames(s, sp, page_counts(&was), page_counts(p));
	/* What is lost, or zeros again, is nowhere. */
	if (page_held(&was) != page_held(p) || p->state == PAGE_LOST ||
	    ev->kind == PAGE_DISCARDED)
		note_away(s, sp, page, &was, ev->kind);
	if (resident(&was) != resident(p) || page_held(&was) != page_held(p))
		note_policy(s, sp, page, &was);
	return 0;
}

/* --- spaces -------------------------------------------------------------- */

static size_t words(const struct sspace *sp)
{
	return (size_t)sp->space->cut.extents / 64 + 1;
}

/* Of `used` and `orphan`, behind it. */
static size_t used_bytes(const struct sspace *sp)
{
	return 2 * words(sp) * sizeof(uint64_t);
}

int frames_add_space(struct shard *s, struct sspace *sp)
{
	void *at = mmap(NULL, used_bytes(sp), PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	if (at == MAP_FAILED)
		return -ENOMEM;
	sp->used = at;
	sp->orphan = sp->used + words(sp);
	r = evict_slots(s, sp);
	if (r < 0)
		(void)munmap(at, used_bytes(sp));
	return r;
}

static void drop_extent(struct shard *s, struct sspace *sp, uint32_t extent)
{
	gpn_t first = (gpn_t)extent * EXTENT_PAGES;
	gpn_t end = min_u64(first + EXTENT_PAGES, sp->space->cut.pages);

	for (gpn_t at = first; at < end; at++) {
		struct page_entry *p = &sp->space->pages[at];
		struct evict_page ep = { .mark = p->mark };

		if (page_staged(p)) {
			leave_unstaged(s, p->frame);
			frame_give(s->frames, p->frame);
		}
		if (evict_where(&ep) != EVICT_NOWHERE)
			evict_gone(s->policy, &ep);
		p->mark = ep.mark & (EVICT_MARKS - 1);
		p->flags = 0;
		p->state = PAGE_I;
	}
}

void frames_drop_space(struct shard *s, struct sspace *sp)
{
	struct space *space = sp->space;

	for (uint32_t i = 0; i <= space->cut.extents / 64; i++)
		for (uint64_t m = sp->used[i]; m != 0; m &= m - 1)
			drop_extent(s, sp,
			            i * 64 + (uint32_t)__builtin_ctzll(m));
	while (sp->away_held > 0)
		away_held(s, sp, false);
	while (sp->away_gone > 0)
		away_gone(s, sp, false);
	/* Its memory goes when every shard has let go of it. */
	(void)atomic_fetch_add_explicit(&space->counted, sp->counted,
	                                memory_order_relaxed);
	sp->counted = 0;
	evict_purge(s->policy);
	(void)munmap(sp->used, used_bytes(sp));
	sp->used = sp->orphan = NULL;
}
