/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A read returns the last write, in the order of simulated time.
 *
 * That is more than sequential consistency asks for, but what a protocol that
 * takes all copies away before it grants a write gives, and it needs no search
 * for an order.  Counters are counted besides, and at the end the bytes that
 * the holders have are compared.
 */
#include "sim.h"

static void wrong(struct sim *s, node_id node, gpn_t page, uint64_t value)
{
	uint64_t want = s->truth[page].value;

	if (value == 0 && s->truth[page].maybe_zeros) {
		s->truth[page].value = 0;
		return;
	}
	sim_fail(s, "check_value",
	         "node %u reads %s in page %llu: %llx, last written %llx", node,
	         value == 0 && want != 0 ? "zeros for data" : "old data",
	         (unsigned long long)page, (unsigned long long)value,
	         (unsigned long long)want);
}

void check_value_read(struct thread *t, gpn_t page, uint64_t value)
{
	struct sim *s = t->node->sim;

	if (value != s->truth[page].value)
		wrong(s, t->node->id, page, value);
}

void check_value_write(struct thread *t, gpn_t page, uint64_t value, bool add)
{
	struct truth *x = &t->node->sim->truth[page];

	x->value = value;
	x->adds = add ? x->adds + 1 : 0;
	x->added_only = add && (x->adds == 1 || x->added_only);
}

/* The home says that nobody has it: zeros from here on. */
void check_value_zeroed(struct sim *s, gpn_t page)
{
	s->truth[page] =
		(struct truth){ .maybe_zeros = s->truth[page].maybe_zeros };
	for (uint32_t i = 0; i < s->nodes; i++)
		if (!s->node[i]->dead &&
		    mem_rights(s->node[i], page) != RIGHTS_NONE)
			sim_fail(s, "check_value",
			         "page %llu was discarded, and node %u still "
			         "maps it",
			         (unsigned long long)page, i);
}

/* What it had asked to discard may become zeros, now or later, or not. */
void check_value_died(struct node *n)
{
	const struct discard *d = &n->discard;

	for (unsigned i = 0; d->on && i < RUN_PAGES; i++)
		if (((d->mask | d->left) >> i & 1) != 0)
			n->sim->truth[d->base + i].maybe_zeros = true;
}

/* A page may be lost, but only with a node. */
void check_value_lost(struct thread *t, gpn_t page)
{
	struct sim *s = t->node->sim;

	s->lost_seen++;
	if (s->dead == 0)
		sim_fail(s, "check_value",
		         "page %llu is lost, and no node has died",
		         (unsigned long long)page);
}

void check_value_end(struct sim *s)
{
	for (gpn_t p = 0; p < s->cut.pages; p++) {
		const struct truth *x = &s->truth[p];
		bool held = false;

		for (uint32_t i = 0; i < s->nodes; i++) {
			struct node *n = s->node[i];

			if (n->dead || !page_held(&n->page[p]))
				continue;
			held = true;
			if (mem_bytes(n, p) != x->value)
				wrong(s, n->id, p, mem_bytes(n, p));
		}
		if (!held && x->value != 0 && s->dead == 0)
			sim_fail(s, "check_value", "nobody has page %llu",
			         (unsigned long long)p);
		if (x->added_only && x->value != x->adds)
			sim_fail(s, "check_value",
			         "page %llu counts %llu of %llu increments",
			         (unsigned long long)p,
			         (unsigned long long)x->value,
			         (unsigned long long)x->adds);
	}
}
