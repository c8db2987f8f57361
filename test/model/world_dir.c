/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real directory, fed from and turned back into a few bytes.
 *
 * Times are left out: what is owned is owned since 0, and an event that comes
 * within a residency comes at 0 too.
 */

#include <stdlib.h>
#include <string.h>

#include "core/dir_txn.h"
#include "world.h"

static _Alignas(64) uint8_t memory[4096];

static uint8_t pack_node(node_id n)
{
	return n == NODE_NONE ? NOBODY : (uint8_t)n;
}

static node_id unpack_node(uint8_t n)
{
	return n == NOBODY ? NODE_NONE : n;
}

static uint8_t pack_set(const struct nodeset *s)
{
	for (unsigned i = 1; i < NODESET_WORDS; i++)
		assert(s->w[i] == 0);
	return (uint8_t)s->w[0];
}

static struct nodeset unpack_set(uint8_t bits)
{
	return (struct nodeset){ { bits } };
}

bool packed_dir_busy(const struct packed_dir *p)
{
	return (p->flags & DIR_F_BUSY) != 0;
}

bool packed_dir_discards(const struct packed_dir *p)
{
	return packed_dir_busy(p) && p->kind == DIR_DISCARD;
}

bool packed_dir_migratory(const struct packed_dir *p)
{
	return (p->flags & DIR_F_MIGRATORY) != 0;
}

uint8_t packed_dir_writer(const struct packed_dir *p)
{
	return packed_dir_busy(p) && p->kind == DIR_GET_X ? p->req : NOBODY;
}

static void unpack_txn(const struct setup *s, struct dir *d,
                       const struct packed_dir *p)
{
	struct dir_txn *t = &d->txn[1];

	d->free_txn = t->next;
	d->n_free_txn--;
	t->holders = unpack_set(p->holders);
	t->awaiting = unpack_set(p->awaiting);
	for (unsigned i = 0; i < WAITS; i++)
		t->wait[i] = unpack_set(p->wait[i]);
	t->req = unpack_node(p->req);
	t->served = unpack_node(p->served);
	t->giver = unpack_node(p->giver);
	t->reader = unpack_node(p->reader);
	t->kind = p->kind;
	t->asked = p->asked;
	t->owned = p->owned != 0;
	t->store = p->store != 0;
	t->careful = (s->with & WITH_REPLICAS) != 0;
}

static struct dir *unpack(const struct setup *s, const struct packed_dir *p,
                          struct dir_entry *e)
{
	struct dir_config cfg = { .self = 0, .n_txn = 1, .n_set = s->sets };
	struct dir *d;

	assert(dir_bytes(&cfg) <= sizeof(memory));
	d = dir_init(&cfg, memory);
	*e = (struct dir_entry){ .flags = p->flags, .n = p->n };
	for (unsigned i = 0; i < 3; i++)
		e->v[i] = p->v[i];
	if ((p->flags & DIR_F_BUSY) != 0) {
		unpack_txn(s, d, p);
		e->v[0] = 1;
	}
	if ((p->flags & DIR_F_SET) != 0) {
		d->free_set = d->set[1].next;
		d->set[1].members = unpack_set(p->set);
		e->v[0] = 1;
	}
	return d;
}

static void pack(const struct dir *d, const struct dir_entry *e,
                 struct packed_dir *p)
{
	const struct dir_txn *t = &d->txn[1];

	*p = (struct packed_dir){ .flags = e->flags, .n = e->n };
	if ((e->flags & DIR_F_SET) != 0) {
		p->set = pack_set(&d->set[e->v[0]].members);
		return;
	}
	if (!dir_busy(e)) {
		for (unsigned i = 0; i < e->n; i++)
			p->v[i] = (uint8_t)e->v[i];
		return;
	}
	p->holders = pack_set(&t->holders);
	p->awaiting = pack_set(&t->awaiting);
	for (unsigned i = 0; i < WAITS; i++)
		p->wait[i] = pack_set(&t->wait[i]);
	p->req = pack_node(t->req);
	p->served = pack_node(t->served);
	p->giver = pack_node(t->giver);
	p->reader = pack_node(t->reader);
	p->kind = t->kind;
	p->asked = t->asked;
	p->owned = t->owned;
	p->store = t->store;
}

int packed_dir_handle(const struct setup *s, struct packed_dir *p, bool no_room,
                      const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_entry e;
	struct dir *d = unpack(s, p, &e);
	bool none = no_room && !dir_busy(&e);
	int r;

	if (none)
		d->free_txn = 0;
	r = dir_handle(d, &e, ev, out);
	if (none) {
		d->free_txn = 1;
		assert(!dir_busy(&e));
	}
	assert(d->n_free_txn == (dir_busy(&e) ? 0 : 1));
	if (r == 0)
		pack(d, &e, p);
	return r;
}

bool packed_dir_holds(const struct setup *s, const struct packed_dir *p,
                      node_id node)
{
	struct dir_entry e;
	struct dir *d = unpack(s, p, &e);

	return dir_holds(d, &e, node);
}

void packed_dir_check(const struct setup *s, const struct packed_dir *p)
{
	struct dir_entry e;
	struct dir *d = unpack(s, p, &e);

	dir_check(d, &e);
}
