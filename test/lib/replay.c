/* SPDX-License-Identifier: Apache-2.0 */

#include "replay.h"

#include <errno.h>
#include <string.h>

#include "core/evict.h"

#define NEVER UINT32_MAX

struct page {
	bool resident, evicted, visited;
	uint32_t due; /* OPT: visit at which it is wanted next.  LRU: of its
	                 last one, which is UINT32_MAX - due */
	struct evict_page mark; /* ours */
};

struct heap_entry {
	uint32_t due, page;
};

struct world {
	const struct trace *t;
	const struct replay_options *o;
	struct page *page;
	uint32_t *next;          /* OPT: visit i's page is wanted then again */
	struct heap_entry *heap; /* OPT, LRU: greatest `due` first.  Entries
	                            whose page has another `due` by now are
	                            dropped when met */
	uint32_t *ring;          /* FIFO, CLOCK: of all frames */
	uint32_t n_heap, hand, n_resident;
	void *mem; /* ours */
	struct evict *ev;
	struct replay_counts counts;
};

static void world_done(struct world *w)
{
	free(w->page);
	free(w->next);
	free(w->heap);
	free(w->ring);
	free(w->mem);
}

/* --- OPT and LRU ------------------------------------------------------- */

static void heap_push(struct world *w, uint32_t due, uint32_t page)
{
	uint32_t i = w->n_heap++;

	for (; i > 0 && w->heap[(i - 1) / 2].due < due; i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = (struct heap_entry){ due, page };
}

static struct heap_entry heap_pop(struct world *w)
{
	struct heap_entry top = w->heap[0], last = w->heap[--w->n_heap];
	uint32_t i = 0;

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child + 1 < w->n_heap &&
		    w->heap[child + 1].due > w->heap[child].due)
			child++;
		if (child >= w->n_heap || w->heap[child].due <= last.due)
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return top;
}

static uint32_t heap_victim(struct world *w)
{
	struct heap_entry e;

	do {
		e = heap_pop(w);
	} while (!w->page[e.page].resident || w->page[e.page].due != e.due);
	return e.page;
}

/* --- ours -------------------------------------------------------------- */

static uint8_t get_mark(void *arg, uint32_t key)
{
	struct world *w = arg;

	return w->page[key].mark.mark;
}

static void set_mark(void *arg, uint32_t key, uint8_t mark)
{
	struct world *w = arg;

	w->page[key].mark.mark = mark;
}

static int ours_init(struct world *w)
{
	struct evict_config cfg = { .frames = w->o->frames,
		                    .staged = w->o->staged,
		                    .small_percent = w->o->small_percent,
		                    .mark = get_mark,
		                    .set_mark = set_mark,
		                    .arg = w };

	w->mem = malloc(evict_bytes(&cfg));
	if (!w->mem)
		return -ENOMEM;
	w->ev = evict_init(&cfg, w->mem);
	return 0;
}

/* Stage as long as there is room for it, then send the oldest away. */
static uint32_t ours_victim(struct world *w)
{
	uint32_t key;

	evict_round(w->ev);
	for (;;) {
		if (evict_next(w->ev, &key)) {
			(void)evict_take(w->ev, key, &w->page[key].mark,
			                 EVICT_TAKE);
			continue;
		}
		if (!evict_oldest(w->ev, &key)) {
			evict_round(w->ev);
			continue;
		}
		if (evict_out(w->ev, key, &w->page[key].mark, EVICT_TAKE) ==
		    EVICT_TAKEN)
			return key;
	}
}

/* --- any --------------------------------------------------------------- */

static uint32_t victim(struct world *w, enum replay_policy policy)
{
	switch (policy) {
	case REPLAY_OPT:
	case REPLAY_LRU:
		return heap_victim(w);
	case REPLAY_CLOCK:
		while (w->page[w->ring[w->hand]].visited) {
			w->page[w->ring[w->hand]].visited = false;
			w->hand = (w->hand + 1) % w->o->frames;
		}
		return w->ring[w->hand];
	case REPLAY_FIFO:
		return w->ring[w->hand];
	case REPLAY_OURS:
		return ours_victim(w);
	}
	return NEVER;
}

static void miss(struct world *w, enum replay_policy policy, uint32_t page)
{
	struct page *p = &w->page[page];

	if (w->n_resident == w->o->frames) {
		uint32_t out = victim(w, policy);

		assert(w->page[out].resident);
		w->page[out].resident = false;
		w->page[out].evicted = true;
		w->n_resident--;
	}
	w->counts.fetches += p->evicted;
	p->resident = true;
	/* CLOCK and FIFO: the victim was at the hand, or the ring not full. */
	w->ring[w->hand] = page;
	w->hand = (w->hand + 1) % w->o->frames;
	w->n_resident++;
	if (policy == REPLAY_OURS)
		evict_in(w->ev, page, &p->mark);
}

static void visit(struct world *w, enum replay_policy policy, uint32_t i)
{
	uint32_t page = w->t->visit[i];
	struct page *p = &w->page[page];

	if (!p->resident)
		miss(w, policy, page);
	else if (evict_where(&p->mark) == EVICT_STAGING) {
		w->counts.staging++;
		evict_touched(w->ev, page, &p->mark);
	} else {
		p->visited = true;
	}
	p->due = policy == REPLAY_OPT ? w->next[i] : NEVER - i;
	if (policy == REPLAY_OPT || policy == REPLAY_LRU)
		heap_push(w, p->due, page);
}

static void look_ahead(struct world *w)
{
	for (uint32_t p = 0; p < w->t->pages; p++)
		w->page[p].due = NEVER;
	for (uint32_t i = w->t->n; i > 0; i--) {
		w->next[i - 1] = w->page[w->t->visit[i - 1]].due;
		w->page[w->t->visit[i - 1]].due = i - 1;
	}
}

struct replay_options replay_defaults(uint32_t frames)
{
	return (struct replay_options){
		.frames = frames,
		.small_percent = EVICT_SMALL_PERCENT,
		.staged = frames < EVICT_STAGED_PART ?
		                  1 :
		                  frames / EVICT_STAGED_PART,
	};
}

int replay(const struct trace *t, enum replay_policy policy,
           const struct replay_options *o, struct replay_counts *ret)
{
	struct world w = { .t = t, .o = o };
	int r = -ENOMEM;

	w.page = calloc(t->pages, sizeof(*w.page));
	w.next = calloc(t->n, sizeof(*w.next));
	w.heap = calloc(t->n, sizeof(*w.heap));
	w.ring = calloc(o->frames, sizeof(*w.ring));
	if (w.page && w.next && w.heap && w.ring)
		r = ours_init(&w);
	if (r == 0) {
		look_ahead(&w);
		for (uint32_t i = 0; i < t->n; i++)
			visit(&w, policy, i);
		*ret = w.counts;
	}
	world_done(&w);
	return r;
}
