/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator: members, epochs, and whose extent is whose.
 *
 * What it records is durable before it is told.  It may be slow, and it may
 * crash between recording and telling: then whoever asked hears that the link
 * broke, and asks again; claims are idempotent.
 */
#include <string.h>

#include "sim.h"

#define LINK_BROKE_NS (2 * NSEC_PER_MSEC)

void coord_init(struct sim *s)
{
	struct coord *c = &s->coord;
	uint32_t first = 2 + (uint32_t)sim_below(s, s->nodes - 1);

	c->extent = sim_alloc(s->cut.extents, sizeof(c->extent[0]));
	c->slow_ns = (20 + sim_below(s, 400)) * NSEC_PER_USEC;
	c->epoch = 1;
	if (s->opt.delay_us != 0)
		first = s->nodes;
	/* Some nodes are there from the start, the others join. */
	for (uint32_t i = 0; i < s->nodes; i++)
		clock_put(s, i < first ? 0 : sim_below(s, 10 * NSEC_PER_MSEC),
		          (struct event){ .kind = EV_JOIN,
		                          .node = (node_id)i });
	/* Some extents are bound to a node at creation of the space. */
	for (uint32_t e = 0; e < s->cut.extents; e++)
		if (sim_one_in(s, 4)) {
			c->extent[e].home = (uint16_t)(1 + sim_below(s, first));
			c->extent[e].version = 1;
		}
}

void coord_free(struct sim *s)
{
	free(s->coord.extent);
}

/* Everybody hears of the membership, each at its own time. */
static void broadcast(struct sim *s)
{
	struct coord *c = &s->coord;

	for (uint32_t i = 0; i < s->nodes; i++) {
		struct members *m;

		if (c->member[i] != MEMBER_UP)
			continue;
		m = sim_alloc(1, sizeof(*m));
		m->epoch = c->epoch;
		memcpy(m->state, c->member, sizeof(m->state));
		clock_put(s, c->slow_ns + sim_below(s, 4 * c->slow_ns),
		          (struct event){ .kind = EV_MEMBERS,
		                          .node = (node_id)i,
		                          .p = m });
	}
}

static void change(struct sim *s, node_id node, enum member state)
{
	struct coord *c = &s->coord;
	uint32_t old = c->epoch;

	c->member[node] = (uint8_t)state;
	c->epoch++;
	check_epoch_coord(s, old, c->epoch);
	broadcast(s);
}

void coord_claim(struct node *n, const struct place_claim *what)
{
	struct sim *s = n->sim;
	struct claim *c;

	if (what->n == 0)
		return;
	c = sim_alloc(1, sizeof(*c));
	c->node = n->id;
	c->what = *what;
	clock_put(s, s->coord.slow_ns + sim_below(s, s->coord.slow_ns),
	          (struct event){ .kind = EV_CLAIM, .node = n->id, .p = c });
}

static void answer(struct sim *s, struct claim *c, nsec_t in_ns)
{
	clock_put(
		s, in_ns,
		(struct event){ .kind = EV_EXTENTS, .node = c->node, .p = c });
}

/* Record; it is told once that is durable, if we live as long. */
static void claim_record(struct sim *s, struct claim *c)
{
	struct coord *co = &s->coord;
	uint16_t self = (uint16_t)(c->node + 1);

	c->failed = co->down;
	if (co->down) {
		answer(s, c, LINK_BROKE_NS);
		return;
	}
	for (uint32_t i = 0; i < c->what.n; i++) {
		struct extent *e = &co->extent[c->what.first + i];

		if (e->home == 0 && !c->what.ask) {
			e->home = self;
			e->version = 1;
		}
		if (e->home == self && i < c->what.n_open)
			e->opened = 1;
		c->info[i] = *e;
	}
	c->life = co->life;
	clock_put(
		s, co->slow_ns / 2 + sim_below(s, co->slow_ns),
		(struct event){ .kind = EV_CLAIMED, .node = c->node, .p = c });
}

void coord_crash(struct sim *s, nsec_t for_ns)
{
	if (s->coord.down)
		return;
	s->coord.down = true;
	s->coord.life++;
	clock_put(s, for_ns, (struct event){ .kind = EV_UP });
}

static void come_up(struct sim *s)
{
	uint32_t old = s->coord.epoch;

	s->coord.down = false;
	if (sim_plant(s, PLANT_EPOCH_BACK, 1))
		s->coord.epoch -= 1;
	check_epoch_coord(s, old, s->coord.epoch);
	broadcast(s);
}

void coord_event(struct sim *s, struct event *e)
{
	struct coord *c = &s->coord;
	struct claim *claim = e->p;

	switch ((int)e->kind) {
	case EV_JOIN:
	case EV_DEAD:
		if (c->down) {
			clock_put(s, NSEC_PER_MSEC,
			          (struct event){ .kind = e->kind,
			                          .node = e->node });
			break;
		}
		change(s, e->node,
		       e->kind == EV_JOIN ? MEMBER_UP : MEMBER_DEAD);
		break;
	case EV_CLAIM:
		e->p = NULL; /* goes along */
		claim_record(s, claim);
		break;
	case EV_CLAIMED:
		e->p = NULL;
		claim->failed = claim->life != c->life;
		answer(s, claim,
		       claim->failed ? LINK_BROKE_NS :
		                       sim_below(s, c->slow_ns));
		break;
	case EV_UP:
		come_up(s);
		break;
	default:
		abort();
	}
}
