/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock: a heap of events.  Those of one time come in the order in which
 * they were put, so that a run has one order only.
 */
#include "sim.h"

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->n < b->n;
}

static void swap(struct clock *c, size_t a, size_t b)
{
	struct event e = c->heap[a];

	c->heap[a] = c->heap[b];
	c->heap[b] = e;
}

void clock_put(struct sim *s, nsec_t in_ns, struct event e)
{
	struct clock *c = &s->clock;
	size_t i = c->n;

	if (c->n == c->room) {
		c->room = c->room == 0 ? 256 : c->room * 2;
		c->heap = realloc(c->heap, c->room * sizeof(c->heap[0]));
		if (c->heap == NULL)
			abort();
	}
	e.at = s->now + in_ns;
	e.n = c->count++;
	c->heap[c->n++] = e;
	while (i > 0 && before(&c->heap[i], &c->heap[(i - 1) / 2])) {
		swap(c, i, (i - 1) / 2);
		i = (i - 1) / 2;
	}
}

bool clock_take(struct sim *s, struct event *ret)
{
	struct clock *c = &s->clock;
	size_t i = 0;

	if (c->n == 0)
		return false;
	*ret = c->heap[0];
	c->heap[0] = c->heap[--c->n];
	for (;;) {
		size_t least = i;

		for (size_t k = 2 * i + 1; k <= 2 * i + 2; k++)
			if (k < c->n && before(&c->heap[k], &c->heap[least]))
				least = k;
		if (least == i)
			break;
		swap(c, i, least);
		i = least;
	}
	assert(ret->at >= s->now);
	s->now = ret->at;
	return true;
}

void clock_free(struct clock *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->heap[i].p);
	free(c->heap);
	*c = (struct clock){ 0 };
}
