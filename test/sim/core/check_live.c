/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nobody waits for ever once the net has healed, if there is memory for what
 * there is: deaths may take too much of that away, or pin what is left.
 */
#include "sim.h"

#define WATCH_NS (100 * NSEC_PER_MSEC)
#define LIMIT_NS (2 * NSEC_PER_SEC)

static const char *const state_name[] = {
	[THREAD_OFF] = "is off",          [THREAD_READY] = "was woken",
	[THREAD_FAULTED] = "has faulted", [THREAD_WAITS] = "waits",
	[THREAD_DISCARDS] = "discards",   [THREAD_DONE] = "is done",
};

void check_live_waited(struct thread *t)
{
	struct sim *s = t->node->sim;

	s->wait_max = max_u64(s->wait_max, s->now - t->since);
}

static void stuck(struct thread *t)
{
	if (t->node->sim->limited && t->node->sim->dead > 0 &&
	    !check_limit_suffices(t->node->sim)) {
		thread_starves(t);
		return;
	}
	if (t->node->sim->opt.verbose)
		check_limit_say(t->node->sim);
	sim_fail(t->node->sim, "check_live",
	         "thread %u of node %u %s for %llu ms: page %llu to %s",
	         t->index, t->node->id, state_name[t->state],
	         (unsigned long long)((t->node->sim->now - t->since) /
	                              NSEC_PER_MSEC),
	         (unsigned long long)t->page, t->write ? "write" : "read");
}

static bool at_work(const struct thread *t)
{
	return t->state != THREAD_DONE && !t->node->dead;
}

void check_live(struct sim *s)
{
	bool any = false;

	for (uint32_t i = 0; i < s->nodes; i++) {
		for (uint32_t k = 0; k < s->node[i]->threads; k++) {
			struct thread *t = &s->node[i]->thread[k];

			any |= at_work(t);
			if (at_work(t) && t->waiting &&
			    s->now > max_u64(t->since, s->heal_at) + LIMIT_NS)
				stuck(t);
		}
	}
	s->at_work = any;
	if (any)
		clock_put(s, WATCH_NS, (struct event){ .kind = EV_WATCH });
}

void check_live_end(struct sim *s)
{
	for (uint32_t i = 0; i < s->nodes; i++)
		for (uint32_t k = 0; k < s->node[i]->threads; k++)
			if (at_work(&s->node[i]->thread[k]))
				stuck(&s->node[i]->thread[k]);
}
