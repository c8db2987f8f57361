/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock: loop/loop.h in virtual time.
 *
 * Linked in place of src/loop: whoever uses timers and hooks runs here as it
 * is.  There are no descriptors and no threads.  One timer is run a turn, the
 * earliest, and of several for the same moment the one that was started first:
 * so a run depends on nothing but what was put into it.  A loop without timers
 * has nothing to wait for, and loop_run() returns.
 */

#include <errno.h>
#include <string.h>

#include "sim_net.h"

struct slot {
	nsec_t at;
	uint64_t order; /* of timer_start() */
	struct loop_timer *timer;
};

struct loop {
	nsec_t now;
	bool stop;
	uint64_t order, turns;
	struct slot *heap;
	uint32_t n, room;
	struct loop_hook *hooks;
	struct sim_net *net;
};

int loop_new(const struct loop_config *cfg, struct loop **ret,
             struct errmsg *em)
{
	struct loop *l = calloc(1, sizeof(*l));

	(void)cfg;
	if (l == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for a loop");
	l->now = NSEC_PER_SEC; /* 0 is nobody's time */
	*ret = l;
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (l == NULL)
		return NULL;
	sim_net_free(l->net);
	free(l->heap);
	free(l);
	return NULL;
}

struct sim_net *sim_clock_net(struct loop *l)
{
	if (l->net == NULL)
		l->net = sim_net_new(l);
	return l->net;
}

/* --- timers --------------------------------------------------------------- */

static bool earlier(const struct slot *a, const struct slot *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void set(struct loop *l, uint32_t i, struct slot s)
{
	l->heap[i] = s;
	s.timer->index = i + 1;
}

static void sift_up(struct loop *l, uint32_t i)
{
	struct slot s = l->heap[i];

	for (; i > 0 && earlier(&s, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
		set(l, i, l->heap[(i - 1) / 2]);
	set(l, i, s);
}

static void sift_down(struct loop *l, uint32_t i)
{
	struct slot s = l->heap[i];

	for (;;) {
		uint32_t c = 2 * i + 1;

		if (c >= l->n)
			break;
		if (c + 1 < l->n && earlier(&l->heap[c + 1], &l->heap[c]))
			c++;
		if (!earlier(&l->heap[c], &s))
			break;
		set(l, i, l->heap[c]);
		i = c;
	}
	set(l, i, s);
}

void timer_stop(struct loop *l, struct loop_timer *t)
{
	uint32_t i = t->index;

	if (i == 0)
		return;
	i--;
	t->index = 0;
	l->n--;
	if (i == l->n)
		return;
	set(l, i, l->heap[l->n]);
	sift_up(l, i);
	sift_down(l, l->heap[i].timer->index - 1);
}

void timer_start(struct loop *l, struct loop_timer *t, nsec_t at)
{
	timer_stop(l, t);
	if (l->n == l->room) {
		l->room = l->room == 0 ? 256 : 2 * l->room;
		l->heap = realloc(l->heap, l->room * sizeof(*l->heap));
		assert(l->heap != NULL);
	}
	t->at = at;
	l->heap[l->n] = (struct slot){ at, l->order++, t };
	t->index = l->n + 1;
	l->n++;
	sift_up(l, l->n - 1);
}

/* --- turning -------------------------------------------------------------- */

void loop_hook_add(struct loop *l, struct loop_hook *h)
{
	struct loop_hook **at = &l->hooks;

	while (*at != NULL)
		at = &(*at)->next;
	h->next = NULL;
	*at = h;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}

int loop_run(struct loop *l)
{
	l->stop = false;
	while (!l->stop && l->n > 0) {
		struct loop_timer *t = l->heap[0].timer;

		if (l->heap[0].at > l->now)
			l->now = l->heap[0].at;
		l->turns++;
		timer_stop(l, t);
		t->due(t);
		for (struct loop_hook *h = l->hooks; h != NULL; h = h->next)
			h->turn_end(h);
	}
	return 0;
}

nsec_t loop_now(const struct loop *l)
{
	return l->now;
}

nsec_t loop_now_fresh(struct loop *l)
{
	return l->now;
}

uint64_t loop_wakeups(const struct loop *l)
{
	return l->turns;
}
