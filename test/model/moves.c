/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves: all that can happen next, one at a time.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acts.h"
#include "core/mutant.h"

const char *const move_name[] = {
	[MOVE_READ] = "a thread faults to read",
	[MOVE_WRITE] = "a thread faults to write",
	[MOVE_STORE] = "a thread writes",
	[MOVE_PREFETCH_S] = "prefetches",
	[MOVE_PREFETCH_X] = "prefetches to write",
	[MOVE_DISCARD] = "discards",
	[MOVE_ACT] = "goes on",
	[MOVE_HEAR] = "hears",
	[MOVE_HOME] = "is heard by home",
	[MOVE_DUE] = "takes up what was put off",
	[MOVE_STAGE] = "stages the page",
	[MOVE_EVICT] = "evicts",
	[MOVE_HOLD] = "asks to hold what another evicts",
	[MOVE_DIE] = "dies, and comes back as somebody else",
};

static struct message take(struct queue *q)
{
	struct message m = q->v[0];

	q->n--;
	memmove(&q->v[0], &q->v[1], q->n * sizeof(m));
	q->v[q->n] = (struct message){ 0 };
	return m;
}

/* --- what could come next ---------------------------------------------- */

static bool may_ask_ahead(const struct member *m, bool write)
{
	if (page_asked(&m->page))
		return false;
	return m->page.state == PAGE_I || (m->page.state == PAGE_S && write);
}

/* Was node `i` granted a read that it has not applied yet? */
static bool on_its_way(const struct world *w, unsigned i)
{
	for (unsigned j = 0; j < w->down[i].n; j++)
		if (w->down[i].v[j].kind == M_GRANT_S)
			return true;
	for (unsigned j = 0; j < w->node[i].n_acts; j++)
		if (w->node[i].act[j] == PAGE_INSTALL_S ||
		    w->node[i].act[j] == PAGE_KEEP_BYTES)
			return true;
	return false;
}

static bool may_discard(const struct setup *s, const struct world *w,
                        unsigned i)
{
	unsigned n = 0;

	for (unsigned j = 0; j < s->nodes; j++)
		n += w->node[j].discards;
	return n < s->discards && !w->node[i].discards;
}

/* The ways in which node `i` may take the oldest message from home. */
static unsigned ways_to_hear(const struct setup *s, const struct world *w,
                             unsigned i)
{
	const struct member *m = &w->node[i];
	uint8_t kind = w->down[i].v[0].kind;

	if (m->n_acts > 0 || w->down[i].n == 0)
		return 0;
	if (kind != M_RECALL_S && kind != M_RECALL_X && kind != M_INVAL)
		return 1;
	/* A page that was kept was installed for nobody: it goes at once. */
	if ((s->with & WITH_RESIDENCY) == 0 ||
	    m->page.since_us != INSTALLED_US || !page_held(&m->page))
		return 1;
	return 1 | 1u << WAY_YOUNG;
}

/* What may differ when home takes this message: a set of WAY_*. */
static unsigned choices(const struct setup *s, const struct world *w,
                        const struct message *m)
{
	unsigned c = 0;

	if ((s->with & WITH_AGAIN) != 0 && !packed_dir_busy(&w->dir) &&
	    (m->kind == M_GET_S || m->kind == M_GET_X || m->kind == M_DISCARD))
		c |= WAY_NO_ROOM;
	if ((m->kind == M_GET_S || m->kind == M_GET_X) && m->flag &&
	    w->node[0].page.state == PAGE_M)
		c |= WAY_READY;
	if ((s->with & WITH_KEEP) != 0 && m->kind == M_ACK_DATA &&
	    page_may_keep(&w->node[0].page))
		c |= WAY_KEEP;
	/* Only then does the directory look at the time. */
	if (packed_dir_migratory(&w->dir))
		c |= WAY_YOUNG;
	return c;
}

static unsigned ways_for_home(const struct setup *s, const struct world *w,
                              unsigned i)
{
	unsigned c, ways = 0;

	if (w->up[i].n == 0 || w->node[0].n_acts > 0 ||
	    (i != 0 && !act_idle(w, 0)))
		return 0;
	c = choices(s, w, &w->up[i].v[0]);
	for (unsigned way = 0; way < WAYS; way++)
		if ((way & ~c) == 0)
			ways |= 1u << way;
	return ways;
}

/* Frames are few here: those of the real thing are counted too. */
static bool may_stage(const struct world *w, unsigned i)
{
	const struct member *m = &w->node[i];

	return page_held(&m->page) && !page_staged(&m->page) &&
	       !page_asked(&m->page) && m->frames != (1u << FRAMES) - 1 &&
	       (m->page.flags & (PAGE_F_RECALLED | PAGE_F_EVICTING)) == 0;
}

/* Somebody else has staged the page, and may have asked this node. */
static bool may_hold(const struct setup *s, const struct world *w, unsigned i)
{
	if (page_held(&w->node[i].page) || page_asked(&w->node[i].page) ||
	    w->node[i].page.state == PAGE_LOST)
		return false;
	for (unsigned j = 0; j < s->nodes; j++)
		if (j != i && page_staged(&w->node[j].page))
			return true;
	return false;
}

unsigned world_ways(const struct setup *s, const struct world *w,
                    enum move_kind kind, unsigned i)
{
	const struct member *m = &w->node[i];

	switch (kind) {
	case MOVE_READ:
		return m->mapping == UNMAPPED && m->waits == RUNS &&
		       act_idle(w, i);
	case MOVE_WRITE:
		return (m->mapping == UNMAPPED || m->mapping == READ_ONLY) &&
		       m->waits == RUNS && act_idle(w, i);
	case MOVE_STORE:
		return m->mapping == WRITABLE;
	case MOVE_PREFETCH_S:
		return (s->with & WITH_PREFETCH) != 0 && act_idle(w, i) &&
		       may_ask_ahead(m, false);
	case MOVE_PREFETCH_X:
		return (s->with & WITH_PREFETCH) != 0 && act_idle(w, i) &&
		       may_ask_ahead(m, true);
	case MOVE_DISCARD:
		return act_idle(w, i) && may_discard(s, w, i);
	case MOVE_ACT:
		return m->n_acts > 0;
	case MOVE_HEAR:
		return ways_to_hear(s, w, i);
	case MOVE_HOME:
		return ways_for_home(s, w, i);
	case MOVE_DUE:
		return m->deferred != 0 && act_idle(w, i);
	case MOVE_STAGE:
		return (s->with & WITH_EVICT) != 0 && act_idle(w, i) &&
		       may_stage(w, i);
	case MOVE_EVICT:
		return act_idle(w, i) && page_staged(&m->page) &&
		       (m->page.flags & PAGE_F_EVICTING) == 0;
	case MOVE_HOLD:
		return (s->with & WITH_EVICT) != 0 && act_idle(w, i) &&
		       may_hold(s, w, i);
	case MOVE_DIE:
		return (s->with & WITH_DEATH) != 0 && !w->died && i != 0 &&
		       act_idle(w, 0);
	}
	abort();
}

/* --- taking them ------------------------------------------------------- */

static void store(struct world *w, unsigned i)
{
	act_age(w);
	w->node[i].memory = LAST;
	w->written = 1;
}

static void prefetch(const struct setup *s, struct world *w, unsigned i,
                     bool write)
{
	struct page_event ev = { .kind = PAGE_PREFETCH,
		                 .write = write,
		                 .now_us = LATE_US };

	act_step(s, w, i, &ev);
	act_go_on(s, w, i);
}

static void capacity(const struct setup *s, struct world *w, unsigned i,
                     enum move_kind kind)
{
	struct page_event ev = {
		.kind = kind == MOVE_STAGE ? PAGE_STAGE :
		        kind == MOVE_EVICT ? PAGE_EVICT :
		                             PAGE_PREFETCH,
		.store = kind == MOVE_HOLD,
		.frame = kind == MOVE_STAGE ? act_free_frame(&w->node[i]) : 0,
		.now_us = LATE_US,
	};

	act_step(s, w, i, &ev);
	act_go_on(s, w, i);
}

static void discard(struct world *w, unsigned i)
{
	w->node[i].discards = 1;
	act_put(&w->up[i], i, true, (struct message){ .kind = M_DISCARD });
}

static void hear_answer(const struct setup *s, struct world *w, unsigned i,
                        const struct message *m)
{
	static const uint8_t event[M_KINDS] = {
		[M_GRANT_S] = PAGE_GRANT_S,
		[M_GRANT_X] = PAGE_GRANT_X,
		[M_GRANT_ZERO] = PAGE_GRANT_ZERO,
		[M_UPGRADE] = PAGE_UPGRADE,
		[M_LOST] = PAGE_GRANT_LOST,
		[M_REFUSED] = PAGE_REFUSED,
		[M_AGAIN] = PAGE_RETRY,
		[M_DISCARDED] = PAGE_DISCARDED,
		[M_DROP] = PAGE_DROP,
		[M_STAY] = PAGE_STAY,
	};
	struct page_event ev = { .kind = event[m->kind],
		                 .more = m->kind == M_GRANT_S && m->flag,
		                 .now_us = INSTALLED_US };
	struct member *me = &w->node[i];

	if (m->kind == M_AGAIN && m->flag) {
		act_put(&w->up[i], i, true,
		        (struct message){ .kind = M_DISCARD });
		return;
	}
	if (m->kind == M_DISCARDED) {
		if (!me->discards)
			violated("a discard is answered twice");
		me->discards = 0;
		/* The client maps the range anew: see memspan_discard(). */
		if (me->mapping == POISONED)
			me->mapping = UNMAPPED;
	}
	me->bytes = m->value;
	me->applied = m->kind == M_GRANT_X ? m->number : 0;
	me->ahead = ev.more;
	act_step(s, w, i, &ev);
	act_go_on(s, w, i);
}

static void hear(const struct setup *s, struct world *w, unsigned i,
                 unsigned way)
{
	struct message m = take(&w->down[i]);

	SAY("\t\t%s%s\n", message_name[m.kind], value_name[m.value]);
	if (m.kind == M_RECALL_S || m.kind == M_RECALL_X || m.kind == M_INVAL)
		act_recalled(s, w, i, m.kind, false, (way & WAY_YOUNG) != 0);
	else if (m.kind == M_FORGET)
		w->node[i].frames &= (uint8_t) ~(1u << (m.number - 1));
	else
		hear_answer(s, w, i, &m);
}

/* The nodes that were granted a read and have not applied it. */
static struct nodeset granted_reads(const struct setup *s,
                                    const struct world *w)
{
	struct nodeset ret = { 0 };

	for (unsigned i = 0; i < s->nodes; i++)
		if (on_its_way(w, i))
			nodeset_add(&ret, (node_id)i);
	return ret;
}

static void home(const struct setup *s, struct world *w, unsigned i,
                 unsigned way)
{
	static const uint8_t event[M_KINDS] = {
		[M_GET_S] = DIR_GET_S,       [M_GET_X] = DIR_GET_X,
		[M_DISCARD] = DIR_DISCARD,   [M_ACK] = DIR_ACK,
		[M_ACK_DATA] = DIR_ACK_DATA, [M_NOT_HELD] = DIR_NOT_HELD,
		[M_EVICT] = DIR_EVICT,       [M_APPLIED] = DIR_APPLIED,
	};
	struct message m = take(&w->up[i]);
	struct nodeset unconfirmed = granted_reads(s, w);
	struct dir_event ev = {
		.kind = event[m.kind],
		.from = (node_id)i,
		.prefetch = m.flag == FLAG_PREFETCH,
		.store = m.flag == FLAG_STORE,
		.careful = (s->with & WITH_REPLICAS) != 0,
		.need = (s->with & WITH_REPLICAS) != 0 ? 2 : 1,
		.unconfirmed = &unconfirmed,
		.home_ready = (way & WAY_READY) != 0,
		.may_keep = (way & WAY_KEEP) != 0,
		.can_keep = page_may_keep(&w->node[0].page),
		.number = m.number,
		.now_us = (way & WAY_YOUNG) != 0 ? 0 : LATE_US,
	};

	SAY("\t\t%s%s%s\n", message_name[m.kind], value_name[m.value],
	    (way & WAY_NO_ROOM) != 0 ? ", no transaction is free" : "");
	if (m.kind == M_APPLIED && m.number != 0)
		act_applied(s, w, i);
	else
		act_home(s, w, (way & WAY_NO_ROOM) != 0, &ev, m.value);
}

/*
 * May the page be lost if node `i` dies?  Only it has the bytes, or is about to
 * be the writer.  A page without replicas is also lost with the holder that was
 * to be asked last, the others having been told already.
 */
static bool may_lose(const struct setup *s, const struct world *w, unsigned i)
{
	if (!packed_dir_holds(s, &w->dir, (node_id)i))
		return false;
	if (packed_dir_writer(&w->dir) == i && w->node[i].memory != ABSENT)
		return true;
	if ((s->with & WITH_REPLICAS) == 0 && packed_dir_busy(&w->dir))
		return true;
	if (on_its_way(w, i))
		return false;
	if ((s->with & WITH_REPLICAS) == 0)
		return true;
	for (unsigned j = 0; j < s->nodes; j++)
		if (j != i && packed_dir_holds(s, &w->dir, (node_id)j) &&
		    (w->node[j].memory != ABSENT ||
		     w->node[j].staged != ABSENT))
			return false;
	return true;
}

/*
 * Its sessions end: what they carried and was not applied is dropped.  Another
 * incarnation of the node, which knows nothing, takes its place.
 */
static void die(const struct setup *s, struct world *w, unsigned i)
{
	struct dir_event ev = { .kind = DIR_GONE,
		                .from = (node_id)i,
		                .now_us = LATE_US };

	w->died = may_lose(s, w, i) ? DIED_HOLDING : DIED;
	w->node[i] = (struct member){ 0 };
	w->down[i] = (struct queue){ 0 };
	if (MUTATE(19, true, false))
		w->up[i] = (struct queue){ 0 };
	if (w->number != 0 && w->giver == i)
		w->giver = NOBODY;
	if (w->number != 0 && w->grantee == i) {
		if (w->giver != NOBODY)
			act_forget(s, w, w->giver, w->number);
		w->number = w->grantee = w->giver = 0;
	}
	act_home(s, w, false, &ev, ABSENT);
}

void world_move(const struct setup *s, struct world *w, enum move_kind kind,
                unsigned i, unsigned way)
{
	switch (kind) {
	case MOVE_READ:
	case MOVE_WRITE:
		act_touch(s, w, i, kind == MOVE_WRITE);
		act_go_on(s, w, i);
		return;
	case MOVE_STORE:
		store(w, i);
		return;
	case MOVE_PREFETCH_S:
	case MOVE_PREFETCH_X:
		prefetch(s, w, i, kind == MOVE_PREFETCH_X);
		return;
	case MOVE_DISCARD:
		discard(w, i);
		return;
	case MOVE_ACT:
		act_go_on(s, w, i);
		return;
	case MOVE_HEAR:
		hear(s, w, i, way);
		return;
	case MOVE_HOME:
		home(s, w, i, way);
		return;
	case MOVE_DUE:
		SAY("\t\t%s\n", message_name[w->node[i].deferred]);
		act_recalled(s, w, i, w->node[i].deferred, true, false);
		return;
	case MOVE_STAGE:
	case MOVE_EVICT:
	case MOVE_HOLD:
		capacity(s, w, i, kind);
		return;
	case MOVE_DIE:
		die(s, w, i);
		return;
	}
}
