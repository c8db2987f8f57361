/* SPDX-License-Identifier: Apache-2.0 */

#include "loop/heap.h"

static void set(struct timer_heap *h, uint32_t i, struct loop_timer *t)
{
	h->slot[i] = t;
	t->index = i + 1;
}

static void sift_up(struct timer_heap *h, uint32_t i, struct loop_timer *t)
{
	while (i > 0) {
		uint32_t parent = (i - 1) / 2;

		if (h->slot[parent]->at <= t->at)
			break;
		set(h, i, h->slot[parent]);
		i = parent;
	}
	set(h, i, t);
}

static void sift_down(struct timer_heap *h, uint32_t i, struct loop_timer *t)
{
	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child + 1 < h->n &&
		    h->slot[child + 1]->at < h->slot[child]->at)
			child++;
		if (child >= h->n || t->at <= h->slot[child]->at)
			break;
		set(h, i, h->slot[child]);
		i = child;
	}
	set(h, i, t);
}

void heap_put(struct timer_heap *h, struct loop_timer *t)
{
	assert(t->index == 0);
	assert(h->n < LOOP_TIMERS_MAX);
	sift_up(h, h->n++, t);
}

void heap_take(struct timer_heap *h, struct loop_timer *t)
{
	uint32_t i = t->index - 1;
	struct loop_timer *last;

	assert(t->index > 0);
	assert(i < h->n);
	assert(h->slot[i] == t);
	t->index = 0;
	last = h->slot[--h->n];
	if (last == t)
		return;
	/* The last one fills the gap, and may belong above or below it. */
	if (i > 0 && last->at < h->slot[(i - 1) / 2]->at)
		sift_up(h, i, last);
	else
		sift_down(h, i, last);
}

struct loop_timer *heap_first(const struct timer_heap *h)
{
	return h->n > 0 ? h->slot[0] : NULL;
}
