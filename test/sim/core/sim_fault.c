/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong, until the run's heal_at: links are cut, slow down, nodes
 * pause (their clients run on), clients die, the coordinator crashes, and in
 * some runs a node dies for good.
 */
#include "sim.h"

#define LEASE_AND_MARGIN_NS (20 * NSEC_PER_MSEC)

void fault_init(struct sim *s)
{
	if (s->mishaps)
		clock_put(s, sim_below(s, 2 * NSEC_PER_MSEC),
		          (struct event){ .kind = EV_MISHAP });
}

static node_id some_node(struct sim *s)
{
	return (node_id)sim_below(s, s->nodes);
}

/* How long, in 3 of 4 cases shorter than what people notice. */
static nsec_t some_time(struct sim *s)
{
	nsec_t t = sim_below(s, sim_one_in(s, 4) ? 20 * NSEC_PER_MSEC :
	                                           2 * NSEC_PER_MSEC);

	return min_u64(t + 1, s->heal_at - s->now);
}

static void cut(struct sim *s)
{
	node_id a = some_node(s), b = some_node(s);
	nsec_t t = some_time(s);

	net_cut(s, a, b, t);
	if (sim_one_in(s, 2))
		net_cut(s, b, a, t);
	if (!sim_one_in(s, 4))
		return;
	/* From all others: it is alone. */
	for (uint32_t i = 0; i < s->nodes; i++) {
		net_cut(s, a, (node_id)i, t);
		net_cut(s, (node_id)i, a, t);
	}
}

static void slow(struct sim *s)
{
	struct session *x = net_session(s, some_node(s), some_node(s));

	x->slow_ns = sim_one_in(s, 2) ? 0 : sim_below(s, NSEC_PER_MSEC);
}

static void kill_node(struct sim *s, struct node *n)
{
	if (!s->deaths || s->dead + 2 >= s->nodes ||
	    s->coord.member[n->id] != MEMBER_UP)
		return;
	check_copies_died(n);
	n->dead = true;
	check_value_died(n);
	s->dead++;
	for (uint32_t i = 0; i < n->threads; i++)
		n->thread[i].state = THREAD_DONE;
	/* For the core it is harder to hear of it at once: then most of what
	 * the dead asked for is still under way. */
	clock_put(s, sim_one_in(s, 2) ? LEASE_AND_MARGIN_NS : 0,
	          (struct event){ .kind = EV_DEAD, .node = n->id });
}

void fault_mishap(struct sim *s)
{
	struct node *n = s->node[some_node(s)];
	nsec_t t;

	if (s->now >= s->heal_at) {
		for (size_t i = 0; i < (size_t)s->nodes * s->nodes; i++)
			s->net.session[i].slow_ns = 0;
		return;
	}
	switch (sim_below(s, 16)) {
	case 0 ... 4:
		cut(s);
		break;
	case 5 ... 7:
		slow(s);
		break;
	case 8 ... 10:
		n->paused_until =
			max_u64(n->paused_until, s->now + some_time(s));
		break;
	case 11 ... 12:
		t = some_time(s);
		if (n->dead || n->epoch == 0)
			break;
		thread_client_dies(n, (unsigned)sim_below(s, n->clients));
		clock_put(s, t,
		          (struct event){ .kind = EV_REVIVE, .node = n->id });
		break;
	case 13:
		coord_crash(s, some_time(s));
		break;
	case 14:
		s->coord.slow_ns = (20 + sim_below(s, 2000)) * NSEC_PER_USEC;
		break;
	default:
		if (sim_one_in(s, 2))
			kill_node(s, n);
		break;
	}
	clock_put(s, sim_below(s, 4 * NSEC_PER_MSEC),
	          (struct event){ .kind = EV_MISHAP });
}
