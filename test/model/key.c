/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world as a string of bits, as short as it can be: tens of millions must fit
 * into memory.  One list of fields serves both directions, so that they agree.
 */

#include <assert.h>
#include <string.h>

#include "core/dir_txn.h"
#include "world.h"

struct bits {
	uint8_t *at;
	uint32_t n;    /* bytes so far */
	uint64_t acc;  /* bits that make no byte yet, lowest first */
	uint32_t have; /* how many */
	bool write;
};

static void field8(struct bits *b, uint8_t *v, unsigned width)
{
	if (b->write) {
		assert(*v < 1u << width);
		b->acc |= (uint64_t)*v << b->have;
		b->have += width;
		while (b->have >= 8) {
			b->at[b->n++] = (uint8_t)b->acc;
			b->acc >>= 8;
			b->have -= 8;
		}
		return;
	}
	if (b->have < width) {
		b->acc |= (uint64_t)b->at[b->n++] << b->have;
		b->have += 8;
	}
	*v = (uint8_t)(b->acc & ((1u << width) - 1));
	b->acc >>= width;
	b->have -= width;
}

/* A node, or NOBODY. */
static void node_field(struct bits *b, uint8_t *v)
{
	uint8_t x = *v == NOBODY ? 7 : *v;

	field8(b, &x, 3);
	*v = x == 7 ? NOBODY : x;
}

static void kind_field(struct bits *b, uint8_t *kind)
{
	uint8_t x = *kind == KIND_TRIM ? 3 : *kind;

	field8(b, &x, 2);
	*kind = x == 3 ? KIND_TRIM : x;
}

static void dir_fields(struct bits *b, struct packed_dir *d)
{
	field8(b, &d->flags, 6);
	if ((d->flags & DIR_F_SET) != 0)
		field8(b, &d->set, WORLD_NODES);
	if ((d->flags & DIR_F_BUSY) == 0) {
		field8(b, &d->n, 2);
		for (unsigned i = 0; i < d->n; i++)
			field8(b, &d->v[i], 2);
		return;
	}
	field8(b, &d->holders, WORLD_NODES);
	field8(b, &d->awaiting, WORLD_NODES);
	for (unsigned i = 0; i < WAITS; i++)
		field8(b, &d->wait[i], WORLD_NODES);
	node_field(b, &d->req);
	node_field(b, &d->served);
	node_field(b, &d->giver);
	node_field(b, &d->reader);
	kind_field(b, &d->kind);
	field8(b, &d->asked, 3);
	field8(b, &d->owned, 1);
	field8(b, &d->store, 1);
}

static void page_fields(struct bits *b, struct page_entry *p)
{
	uint8_t installed = p->since_us == 1000;
	uint8_t frame = (uint8_t)p->frame;
	uint8_t state = p->state;

	field8(b, &state, 2);
	p->state = state & 3u;
	field8(b, &p->flags, 7);
	if (page_staged(p)) {
		field8(b, &frame, 2);
		p->frame = frame;
	} else if (page_held(p)) {
		field8(b, &installed, 1);
		p->since_us = installed ? 1000 : 950;
	}
}

static void member_fields(struct bits *b, struct member *m)
{
	uint8_t busy = m->n_acts > 0 || m->frames != 0 || m->deferred != 0 ||
	               m->discards;

	page_fields(b, &m->page);
	if (page_staged(&m->page))
		field8(b, &m->staged, 2);
	field8(b, &m->memory, 2);
	field8(b, &m->mapping, 2);
	field8(b, &m->waits, 2);
	field8(b, &busy, 1);
	if (!busy)
		return;
	field8(b, &m->discards, 1);
	field8(b, &m->frames, FRAMES);
	field8(b, &m->deferred, 5);
	field8(b, &m->n_acts, 3);
	for (unsigned i = 0; i < m->n_acts; i++)
		field8(b, &m->act[i], 8);
	if (m->n_acts == 0)
		return;
	field8(b, &m->bytes, 2);
	field8(b, &m->number, 2);
	field8(b, &m->applied, 2);
	field8(b, &m->ahead, 1);
	field8(b, &m->staged, 2);
}

static void queue_fields(struct bits *b, struct queue *q)
{
	field8(b, &q->n, 3);
	for (unsigned i = 0; i < q->n; i++) {
		struct message *m = &q->v[i];

		field8(b, &m->kind, 5);
		field8(b, &m->value, 2);
		field8(b, &m->number, 2);
		field8(b, &m->flag, 2);
	}
}

static void fields(const struct setup *s, struct bits *b, struct world *w)
{
	dir_fields(b, &w->dir);
	for (unsigned i = 0; i < s->nodes; i++) {
		member_fields(b, &w->node[i]);
		queue_fields(b, &w->up[i]);
		queue_fields(b, &w->down[i]);
	}
	field8(b, &w->number, 2);
	if (w->number != 0) {
		field8(b, &w->grantee, 2);
		node_field(b, &w->giver);
	}
	field8(b, &w->written, 1);
	field8(b, &w->died, 2);
}

unsigned world_key(const struct setup *s, const struct world *w,
                   uint8_t key[KEY_BYTES_MAX])
{
	struct world copy = *w;
	struct bits b = { .at = key, .write = true };
	uint8_t zero = 0;

	fields(s, &b, &copy);
	if (b.have > 0)
		field8(&b, &zero, 8 - b.have);
	assert(b.n <= KEY_BYTES_MAX);
	return b.n;
}

void world_of_key(const struct setup *s, const uint8_t *key, unsigned n,
                  struct world *w)
{
	uint8_t copy[KEY_BYTES_MAX];
	struct bits b = { .at = copy };

	memcpy(copy, key, n);
	memset(w, 0, sizeof(*w));
	fields(s, &b, w);
}
