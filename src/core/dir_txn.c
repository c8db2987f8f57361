/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of the directory, and looking into it; core/dir.c has the protocol.
 */

#include "core/dir_txn.h"

/* --- pools ------------------------------------------------------------- */

size_t dir_bytes(const struct dir_config *cfg)
{
	return sizeof(struct dir) + (cfg->n_txn + 1) * sizeof(struct dir_txn) +
	       (cfg->n_set + 1) * sizeof(struct dir_set);
}

struct dir *dir_init(const struct dir_config *cfg, void *mem)
{
	struct dir *d = mem;

	assert(cfg->self < NODES_MAX);
	assert(cfg->n_txn > 0);
	memset(mem, 0, dir_bytes(cfg));
	d->cfg = *cfg;
	d->txn = (struct dir_txn *)(d + 1);
	d->set = (struct dir_set *)(d->txn + cfg->n_txn + 1);
	for (uint32_t i = cfg->n_txn; i > 0; i--) {
		d->txn[i].next = d->free_txn;
		d->free_txn = i;
	}
	for (uint32_t i = cfg->n_set; i > 0; i--) {
		d->set[i].next = d->free_set;
		d->free_set = i;
	}
	d->n_free_txn = cfg->n_txn;
	return d;
}

static uint32_t handle_get(const struct dir_entry *e)
{
	return e->v[0] | (uint32_t)e->v[1] << 16;
}

static void handle_put(struct dir_entry *e, uint32_t h)
{
	e->v[0] = (uint16_t)h;
	e->v[1] = (uint16_t)(h >> 16);
}

struct dir_txn *dir_txn_of(const struct dir *d, const struct dir_entry *e)
{
	assert(dir_busy(e));
	return &d->txn[handle_get(e)];
}

/* The holders of an entry that is not busy. */
static void idle_holders(const struct dir *d, const struct dir_entry *e,
                         struct nodeset *ret)
{
	if ((e->flags & DIR_F_SET) != 0) {
		*ret = d->set[handle_get(e)].members;
		return;
	}
	nodeset_clear(ret);
	for (unsigned i = 0; i < e->n; i++)
		nodeset_add(ret, e->v[i]);
}

struct dir_txn *dir_txn_open(struct dir *d, struct dir_entry *e)
{
	uint32_t i = d->free_txn;
	struct dir_txn *t = &d->txn[i];

	assert(!dir_busy(e));
	if (i == 0)
		return NULL;
	d->free_txn = t->next;
	d->n_free_txn--;

	*t = (struct dir_txn){
		.req = NODE_NONE,
		.served = NODE_NONE,
		.giver = NODE_NONE,
		.reader = NODE_NONE,
		.owned = (e->flags & DIR_F_OWNED) != 0,
	};
	idle_holders(d, e, &t->holders);
	if (t->owned)
		t->since_us = e->v[1] | (uint32_t)e->v[2] << 16;
	if ((e->flags & DIR_F_PAIR) != 0) {
		t->giver = e->v[0];
		t->reader = e->v[1];
	}
	if ((e->flags & DIR_F_SET) != 0) {
		d->set[handle_get(e)].next = d->free_set;
		d->free_set = handle_get(e);
	}
	e->flags = (uint8_t)(DIR_F_BUSY |
	                     (e->flags & (DIR_F_LOST | DIR_F_MIGRATORY)));
	e->n = 0;
	e->v[2] = 0;
	handle_put(e, i);
	return t;
}

bool dir_txn_close(struct dir *d, struct dir_entry *e, struct dir_txn *t)
{
	unsigned n = nodeset_count(&t->holders);
	uint32_t i = handle_get(e);

	if (n > DIR_INLINE && d->free_set == 0)
		return false;
	e->flags &= DIR_F_LOST | DIR_F_MIGRATORY;
	e->n = 0;
	memset(e->v, 0, sizeof(e->v));
	if (n > DIR_INLINE) {
		uint32_t s = d->free_set;

		d->free_set = d->set[s].next;
		d->set[s].members = t->holders;
		e->flags |= DIR_F_SET;
		handle_put(e, s);
	} else if (t->owned) {
		assert(n == 1);
		e->flags |= DIR_F_OWNED;
		e->n = 1;
		e->v[0] = nodeset_next(&t->holders, 0);
		e->v[1] = (uint16_t)t->since_us;
		e->v[2] = (uint16_t)(t->since_us >> 16);
	} else {
		if (n >= 2 && t->giver != NODE_NONE &&
		    nodeset_has(&t->holders, t->giver) &&
		    nodeset_has(&t->holders, t->reader)) {
			e->flags |= DIR_F_PAIR;
			e->v[e->n++] = t->giver;
			e->v[e->n++] = t->reader;
			nodeset_remove(&t->holders, t->giver);
			nodeset_remove(&t->holders, t->reader);
		}
		NODESET_FOREACH(h, &t->holders)
		e->v[e->n++] = h;
	}
	t->next = d->free_txn;
	d->free_txn = i;
	d->n_free_txn++;
	return true;
}

void dir_holder_gone(struct dir *d, struct dir_entry *e, node_id n)
{
	struct dir_entry was = *e;
	struct nodeset left;

	assert(dir_holds(d, e, n));
	idle_holders(d, e, &left);
	nodeset_remove(&left, n);
	if ((was.flags & DIR_F_SET) != 0) {
		d->set[handle_get(&was)].members = left;
		if (nodeset_count(&left) > DIR_INLINE)
			return;
		d->set[handle_get(&was)].next = d->free_set;
		d->free_set = handle_get(&was);
	}
	*e = (struct dir_entry){ .flags = was.flags & DIR_F_MIGRATORY };
	if ((was.flags & DIR_F_PAIR) != 0 && was.v[0] != n && was.v[1] != n) {
		e->flags |= DIR_F_PAIR;
		for (unsigned i = 0; i < 2; i++) {
			nodeset_remove(&left, was.v[i]);
			e->v[e->n++] = was.v[i];
		}
	}
	NODESET_FOREACH(h, &left)
	e->v[e->n++] = h;
	if (e->n == 0)
		e->flags |= DIR_F_LOST;
}

void dir_drop(struct dir *d, struct dir_entry *e)
{
	uint32_t i = handle_get(e);

	if (dir_busy(e)) {
		d->txn[i].next = d->free_txn;
		d->free_txn = i;
		d->n_free_txn++;
	} else if ((e->flags & DIR_F_SET) != 0) {
		d->set[i].next = d->free_set;
		d->free_set = i;
	}
	*e = (struct dir_entry){ 0 };
}

/* --- looking ----------------------------------------------------------- */

void dir_check(const struct dir *d, const struct dir_entry *e)
{
	const struct dir_txn *t;

	if (!dir_busy(e)) {
		if ((e->flags & DIR_F_OWNED) != 0)
			assert(e->n == 1); /* I1 */
		if ((e->flags & DIR_F_SET) != 0)
			assert(e->n == 0);
		assert(e->n <= DIR_INLINE);
		return;
	}
	t = dir_txn_of(d, e);
	if (t->owned)
		assert(nodeset_count(&t->holders) == 1); /* I1 */
	assert(!nodeset_empty(&t->awaiting));            /* I2 */
	for (unsigned i = 0; i < NODESET_WORDS; i++) {
		assert((t->awaiting.w[i] & ~t->holders.w[i]) == 0); /* I2 */
		assert((t->wait[WAIT_S].w[i] & t->wait[WAIT_X].w[i]) == 0);
		assert((t->wait[WAIT_S].w[i] & t->holders.w[i]) == 0); /* I4 */
	}
	if (t->req == NODE_NONE || t->kind == KIND_TRIM)
		return;
	if (t->kind != DIR_DISCARD) {
		assert(!nodeset_has(&t->wait[WAIT_S], t->req)); /* I3 */
		assert(!nodeset_has(&t->wait[WAIT_X], t->req)); /* I3 */
		if (t->asked != ASKED_APPLIED)
			assert(!nodeset_has(&t->awaiting, t->req)); /* I5 */
	}
	if (t->kind == DIR_GET_S)
		assert(!nodeset_has(&t->holders, t->req)); /* I4 */
}

enum dir_state dir_state(const struct dir_entry *e)
{
	if (dir_busy(e))
		return DIR_BUSY;
	if ((e->flags & DIR_F_LOST) != 0)
		return DIR_LOST;
	if ((e->flags & DIR_F_OWNED) != 0)
		return DIR_OWNED;
	if ((e->flags & DIR_F_SET) != 0 || e->n > 0)
		return DIR_SHARED;
	return DIR_UNTOUCHED;
}

void dir_holders(const struct dir *d, const struct dir_entry *e,
                 struct nodeset *ret)
{
	if (dir_busy(e))
		*ret = dir_txn_of(d, e)->holders;
	else
		idle_holders(d, e, ret);
}

bool dir_holds(const struct dir *d, const struct dir_entry *e, node_id node)
{
	if (dir_busy(e))
		return nodeset_has(&dir_txn_of(d, e)->holders, node);
	if ((e->flags & DIR_F_SET) != 0)
		return nodeset_has(&d->set[handle_get(e)].members, node);
	for (unsigned i = 0; i < e->n; i++)
		if (e->v[i] == node)
			return true;
	return false;
}

void dir_view(const struct dir *d, const struct dir_entry *e,
              struct dir_view *ret)
{
	const struct dir_txn *t;

	memset(ret, 0, sizeof(*ret));
	ret->served = NODE_NONE;
	if (!dir_busy(e))
		return;
	t = dir_txn_of(d, e);
	ret->awaiting = t->awaiting;
	ret->wait_s = t->wait[WAIT_S];
	ret->wait_x = t->wait[WAIT_X];
	ret->wait_d = t->wait[WAIT_D];
	ret->served = t->req;
	ret->kind = t->kind;
	ret->asked = t->asked;
}

uint32_t dir_free_txns(const struct dir *d)
{
	return d->n_free_txn;
}
