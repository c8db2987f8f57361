/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Acts: what a node's shard does about what the core decides.
 *
 * A step of core/page.c gives a list of actions.  Other nodes and the node's
 * own clients go on between any two of them, so each is a move of its own, with
 * two exceptions that lose nothing: a step and its first action are one move
 * (until then the step has changed only what nobody else sees), and what only
 * sends or notes something is done at once (whoever receives it may take its
 * time).
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acts.h"
#include "core/mutant.h"

bool world_says;

const char *const message_name[M_KINDS] = {
	[M_GET_S] = "GET_S",         [M_GET_X] = "GET_X",
	[M_DISCARD] = "DISCARD",     [M_ACK] = "ACK",
	[M_ACK_DATA] = "ACK_DATA",   [M_NOT_HELD] = "NOT_HELD",
	[M_APPLIED] = "(applied)",   [M_GRANT_S] = "GRANT_S",
	[M_GRANT_X] = "GRANT_X",     [M_GRANT_ZERO] = "GRANT_ZERO",
	[M_UPGRADE] = "UPGRADE",     [M_LOST] = "GRANT_LOST",
	[M_REFUSED] = "REFUSED",     [M_AGAIN] = "AGAIN",
	[M_DISCARDED] = "DISCARDED", [M_RECALL_S] = "RECALL_S",
	[M_RECALL_X] = "RECALL_X",   [M_INVAL] = "INVAL",
	[M_FORGET] = "FORGET",       [M_EVICT] = "EVICT",
	[M_DROP] = "DROP",           [M_STAY] = "STAY",
};

const char *const value_name[] = { "", " zeros", " the last value",
	                           " an old value" };

static const char *const action_name[] = {
	[PAGE_INSTALL_S] = "installs to read",
	[PAGE_INSTALL_M] = "installs to write",
	[PAGE_INSTALL_ZERO] = "installs zeros",
	[PAGE_KEEP_BYTES] = "keeps the bytes",
	[PAGE_UNPROTECT] = "un-protects",
	[PAGE_MAP] = "maps",
	[PAGE_PROTECT] = "write-protects",
	[PAGE_FREEZE] = "freezes",
	[PAGE_PUNCH] = "punches",
	[PAGE_POISON] = "poisons",
	[PAGE_FILL] = "fills a frame",
	[PAGE_INSTALL_BACK] = "installs what was staged",
};

void act_put(struct queue *q, unsigned node, bool up, struct message m)
{
	assert(q->n < QUEUE_MAX);
	q->v[q->n++] = m;
	SAY("\t\t%u %s home: %s%s\n", node, up ? "->" : "<-",
	    message_name[m.kind], value_name[m.value]);
}

/* --- holders ----------------------------------------------------------- */

/* Frame `number` of node `i` is not needed any more. */
void act_forget(const struct setup *s, struct world *w, unsigned i,
                unsigned number)
{
	if ((s->with & WITH_SLOW_FORGET) != 0 && i != 0) {
		act_put(&w->down[i], i, false,
		        (struct message){ .kind = M_FORGET,
		                          .number = (uint8_t)number });
		return;
	}
	w->node[i].frames &= (uint8_t) ~(1u << (number - 1));
}

/* Node `i` has applied the grant that was made of its giver's frame. */
void act_applied(const struct setup *s, struct world *w, unsigned i)
{
	if (w->number == 0 || w->grantee != i)
		violated("a grant is acknowledged twice");
	if (MUTATE(20, w->giver != NOBODY, false))
		act_forget(s, w, w->giver, w->number);
	w->number = 0;
	w->grantee = w->giver = 0;
}

/* The lowest number of a frame that is not in use. */
uint8_t act_free_frame(const struct member *m)
{
	for (uint8_t n = 1; n <= FRAMES; n++)
		if ((m->frames & 1u << (n - 1)) == 0)
			return n;
	violated("frames pile up");
}

static void freeze(struct member *m)
{
	if (m->memory == ABSENT)
		violated("a page is copied that is not there");
	m->number = act_free_frame(m);
	m->frames |= (uint8_t)(1u << (m->number - 1));
	m->bytes = m->memory;
}

static void fill(struct member *m)
{
	if (m->memory == ABSENT || m->staged != ABSENT)
		violated("a page is staged that is not there");
	m->frames |= (uint8_t)(1u << (m->page.frame - 1));
	m->staged = m->memory;
}

/* The frame of the page that was staged has no use any more. */
static void release(struct member *m)
{
	if ((m->frames & 1u << (m->number - 1)) == 0)
		violated("a frame is free that was not in use");
	m->frames &= (uint8_t) ~(1u << (m->number - 1));
	m->staged = ABSENT;
}

static void install(struct member *m, uint8_t value, uint8_t mapping)
{
	if (value == ABSENT)
		violated("a page is installed without bytes");
	if (m->memory != ABSENT || m->staged != ABSENT)
		violated("a page is installed over another");
	m->memory = value;
	m->mapping = mapping;
}

static void install_back(struct member *m)
{
	uint8_t value = m->staged;

	release(m);
	install(m, value, m->page.state == PAGE_M ? WRITABLE : READ_ONLY);
	m->waits = RUNS;
}

static void send_data(struct world *w, unsigned i, bool frozen)
{
	struct member *m = &w->node[i];
	uint8_t value = frozen                ? m->bytes :
	                page_staged(&m->page) ? m->staged :
	                                        m->memory;

	if (value == ABSENT)
		violated("a page is sent that is not there");
	act_put(&w->up[i], i, true,
	        (struct message){ .kind = M_ACK_DATA,
	                          .value = value,
	                          .number = frozen ? m->number : 0 });
}

enum { ACT_FROZEN = 0x80 };

/* Only notes or sends: see the top. */
static bool silent(uint8_t act)
{
	switch ((enum page_action_kind)(act & ~ACT_FROZEN)) {
	case PAGE_SEND_GET_S:
	case PAGE_SEND_GET_X:
	case PAGE_SEND_ACK:
	case PAGE_SEND_ACK_DATA:
	case PAGE_SEND_NOT_HELD:
	case PAGE_WAIT:
	case PAGE_DEFER:
	case PAGE_TOUCH_AGAIN:
	case PAGE_SEND_EVICT:
	case PAGE_FREEZE_FRAME:
	case PAGE_RELEASE:
		return true;
	case PAGE_INSTALL_S:
	case PAGE_INSTALL_M:
	case PAGE_INSTALL_ZERO:
	case PAGE_KEEP_BYTES:
	case PAGE_UNPROTECT:
	case PAGE_MAP:
	case PAGE_PROTECT:
	case PAGE_FREEZE:
	case PAGE_PUNCH:
	case PAGE_POISON:
	case PAGE_FILL:
	case PAGE_INSTALL_BACK:
		return false;
	}
	abort();
}

static void do_silent(const struct setup *s, struct world *w, unsigned i,
                      uint8_t act)
{
	struct member *m = &w->node[i];
	struct message up = { 0 };

	switch ((enum page_action_kind)(act & ~ACT_FROZEN)) {
	case PAGE_SEND_GET_S:
		up.kind = M_GET_S;
		up.flag =
			(m->page.flags & PAGE_F_STORING) != 0  ? FLAG_STORE :
			(m->page.flags & PAGE_F_PREFETCH) != 0 ? FLAG_PREFETCH :
								 0;
		act_put(&w->up[i], i, true, up);
		return;
	case PAGE_SEND_GET_X:
		up.kind = M_GET_X;
		up.flag = (m->page.flags & PAGE_F_PREFETCH) != 0;
		act_put(&w->up[i], i, true, up);
		return;
	case PAGE_SEND_ACK:
		up.kind = M_ACK;
		act_put(&w->up[i], i, true, up);
		return;
	case PAGE_SEND_ACK_DATA:
		send_data(w, i, (act & ACT_FROZEN) != 0);
		return;
	case PAGE_SEND_EVICT:
		up.kind = M_EVICT;
		act_put(&w->up[i], i, true, up);
		return;
	case PAGE_FREEZE_FRAME:
		m->bytes = m->staged;
		m->staged = ABSENT;
		return;
	case PAGE_RELEASE:
		release(m);
		return;
	case PAGE_SEND_NOT_HELD:
		violated("a node is told to give up what it never had");
	case PAGE_TOUCH_AGAIN:
		if (m->waits != RUNS)
			act_touch(s, w, i, m->waits == WAITS_TO_WRITE);
		return;
	case PAGE_WAIT:
	case PAGE_DEFER:
	case PAGE_INSTALL_S:
	case PAGE_INSTALL_M:
	case PAGE_INSTALL_ZERO:
	case PAGE_KEEP_BYTES:
	case PAGE_UNPROTECT:
	case PAGE_MAP:
	case PAGE_PROTECT:
	case PAGE_FREEZE:
	case PAGE_PUNCH:
	case PAGE_POISON:
	case PAGE_FILL:
	case PAGE_INSTALL_BACK:
		return;
	}
}

/* What clients and memory see. */
static void do_visible(struct member *m, uint8_t act)
{
	switch ((enum page_action_kind)act) {
	case PAGE_INSTALL_S:
		install(m, m->bytes, READ_ONLY);
		m->waits = RUNS;
		return;
	case PAGE_INSTALL_M:
		install(m, m->bytes, WRITABLE);
		m->waits = RUNS;
		return;
	case PAGE_INSTALL_ZERO:
		install(m, ZEROS, WRITABLE);
		m->waits = RUNS;
		return;
	case PAGE_KEEP_BYTES:
		install(m, m->bytes, UNMAPPED);
		return;
	case PAGE_UNPROTECT:
		if (m->memory == ABSENT)
			violated("an upgrade of a page that is not there");
		if (m->mapping == READ_ONLY)
			m->mapping = WRITABLE;
		m->waits = RUNS;
		return;
	case PAGE_MAP:
		if (m->memory == ABSENT)
			violated("a page is mapped that is not there");
		m->mapping = m->page.state == PAGE_M ? WRITABLE : READ_ONLY;
		m->waits = RUNS;
		return;
	case PAGE_PROTECT:
		if (m->mapping == WRITABLE)
			m->mapping = READ_ONLY;
		return;
	case PAGE_FREEZE:
		freeze(m);
		return;
	case PAGE_PUNCH:
		m->memory = ABSENT;
		m->mapping = UNMAPPED;
		return;
	case PAGE_FILL:
		fill(m);
		return;
	case PAGE_INSTALL_BACK:
		install_back(m);
		return;
	case PAGE_POISON:
		if (m->memory != ABSENT)
			violated("a page is poisoned that is there");
		m->mapping = POISONED;
		m->waits = RUNS;
		return;
	case PAGE_SEND_GET_S:
	case PAGE_SEND_GET_X:
	case PAGE_SEND_ACK:
	case PAGE_SEND_ACK_DATA:
	case PAGE_SEND_NOT_HELD:
	case PAGE_WAIT:
	case PAGE_DEFER:
	case PAGE_TOUCH_AGAIN:
	case PAGE_SEND_EVICT:
	case PAGE_FREEZE_FRAME:
	case PAGE_RELEASE:
		break;
	}
	abort();
}

static uint8_t next_act(struct member *m)
{
	uint8_t act = m->act[0];

	m->n_acts--;
	memmove(&m->act[0], &m->act[1], m->n_acts);
	m->act[m->n_acts] = 0;
	return act;
}

/* One action that is seen, and what follows it unseen. */
void act_go_on(const struct setup *s, struct world *w, unsigned i)
{
	struct member *m = &w->node[i];

	if (m->n_acts > 0 && !silent(m->act[0])) {
		uint8_t act = next_act(m);

		SAY("\t\t%u %s\n", i, action_name[act]);
		do_visible(m, act);
	}
	while (m->n_acts > 0 && silent(m->act[0]))
		do_silent(s, w, i, next_act(m));
	if (m->n_acts > 0)
		return;
	m->bytes = m->number = 0;
	if (m->ahead) {
		m->ahead = 0;
		act_put(&w->up[i], i, true,
		        (struct message){ .kind = M_APPLIED });
	}
	if (m->applied == 0)
		return;
	if ((s->with & WITH_SLOW_FORGET) != 0 && i != 0)
		act_put(&w->up[i], i, true,
		        (struct message){ .kind = M_APPLIED,
		                          .number = m->applied });
	else
		act_applied(s, w, i);
	m->applied = 0;
}

/* Give core/page an event; its actions follow what is under way. */
void act_step(const struct setup *s, struct world *w, unsigned i,
              const struct page_event *ev)
{
	struct member *m = &w->node[i];
	struct page_actions out;

	if (page_handle(&m->page, ev, &out) < 0)
		violated("an honest home is refused");
	for (uint32_t a = 0; a < out.n; a++) {
		assert(m->n_acts < ACTS_MAX);
		m->act[m->n_acts++] =
			(uint8_t)((unsigned)out.v[a].kind |
		                  (out.v[a].frozen ? ACT_FROZEN : 0u));
		if (out.v[a].frame != 0)
			m->number = (uint8_t)out.v[a].frame;
		if (out.v[a].kind == PAGE_WAIT)
			m->waits = ev->write ? WAITS_TO_WRITE : WAITS_TO_READ;
	}
	(void)s;
}

void act_touch(const struct setup *s, struct world *w, unsigned i, bool write)
{
	struct page_event ev = { .kind = PAGE_TOUCH,
		                 .write = write,
		                 .now_us = LATE_US };

	act_step(s, w, i, &ev);
}

/* Does the shard of node `i` look for the next event? */
bool act_idle(const struct world *w, unsigned i)
{
	if (w->node[i].n_acts > 0)
		return false;
	return i != 0 || (w->up[0].n == 0 && w->down[0].n == 0);
}

void act_recalled(const struct setup *s, struct world *w, unsigned i,
                  uint8_t kind, bool deferred, bool young)
{
	struct member *m = &w->node[i];
	struct page_event ev = {
		.kind = kind == M_RECALL_S ? PAGE_RECALL_S :
		        kind == M_RECALL_X ? PAGE_RECALL_X :
		                             PAGE_INVAL,
		.deferred = deferred,
		.now_us = young ? INSTALLED_US : LATE_US,
	};
	bool put_off;

	m->deferred = 0;
	act_step(s, w, i, &ev);
	put_off = m->n_acts == 1 && m->act[0] == PAGE_DEFER;
	if (young && !put_off)
		violated("a page is taken before its thread could run");
	if (put_off)
		m->deferred = kind;
	act_go_on(s, w, i);
}

/* --- the home ---------------------------------------------------------- */

/* All copies of the last value are old ones now. */
void act_age(struct world *w)
{
	for (unsigned i = 0; i < WORLD_NODES; i++) {
		struct member *m = &w->node[i];
		struct queue *q[] = { &w->up[i], &w->down[i] };

		if (m->memory == LAST)
			m->memory = OLD;
		if (m->staged == LAST)
			m->staged = OLD;
		if (m->bytes == LAST)
			m->bytes = OLD;
		for (unsigned c = 0; c < 2; c++)
			for (unsigned j = 0; j < q[c]->n; j++)
				if (q[c]->v[j].value == LAST)
					q[c]->v[j].value = OLD;
	}
}

static void keep(const struct setup *s, struct world *w, uint8_t value)
{
	struct page_event ev = { .kind = PAGE_KEEP, .now_us = INSTALLED_US };

	w->node[0].bytes = value;
	act_step(s, w, 0, &ev);
	act_go_on(s, w, 0);
}

static void send_down(const struct setup *s, struct world *w,
                      const struct dir_action *a, node_id to, uint8_t value,
                      const struct dir_event *ev)
{
	static const uint8_t kind[] = {
		[DIR_SEND_GRANT_S] = M_GRANT_S,
		[DIR_SEND_GRANT_X] = M_GRANT_X,
		[DIR_SEND_GRANT_ZERO] = M_GRANT_ZERO,
		[DIR_SEND_UPGRADE] = M_UPGRADE,
		[DIR_SEND_LOST] = M_LOST,
		[DIR_SEND_REFUSED] = M_REFUSED,
		[DIR_SEND_AGAIN] = M_AGAIN,
		[DIR_SEND_DISCARDED] = M_DISCARDED,
		[DIR_SEND_RECALL_S] = M_RECALL_S,
		[DIR_SEND_RECALL_X] = M_RECALL_X,
		[DIR_SEND_INVAL] = M_INVAL,
		[DIR_SEND_DROP] = M_DROP,
		[DIR_SEND_STAY] = M_STAY,
	};
	const struct member *home = &w->node[0];
	struct message m = { .kind = kind[a->kind], .flag = a->more };

	if (to >= s->nodes)
		violated("home sends to nobody");
	if (a->kind == DIR_SEND_GRANT_S || a->kind == DIR_SEND_GRANT_X) {
		m.value = a->event_bytes           ? value :
		          page_staged(&home->page) ? home->staged :
		                                     home->memory;
		if (m.value == ABSENT)
			violated("home grants bytes that it does not have");
	}
	if (a->kind == DIR_SEND_GRANT_X && a->requester != NODE_NONE) {
		if (w->number != 0)
			violated("two grants of one page are under way");
		w->grantee = (uint8_t)to;
		w->giver = (uint8_t)a->requester;
		m.number = w->number = (uint8_t)a->number;
	}
	if (a->kind == DIR_SEND_AGAIN)
		m.flag = ev->kind == DIR_DISCARD;
	act_put(&w->down[to], to, false, m);
}

/* Every member has given its copy up, the contents are zeros: from now on. */
static void discarded(struct world *w)
{
	w->written = 0;
	act_age(w);
}

static void dir_act(const struct setup *s, struct world *w,
                    const struct dir_actions *out, const struct dir_action *a,
                    uint8_t value, const struct dir_event *ev)
{
	switch (a->kind) {
	case DIR_SEND_DISCARDED:
		discarded(w);
		break;
	case DIR_SEND_LOST:
		if (w->died != DIED_HOLDING)
			violated("a page is lost, and no holder died");
		break;
	case DIR_KEEP:
		SAY("\t\thome keeps a copy\n");
		keep(s, w, value);
		return;
	case DIR_FORGET:
		act_forget(s, w, a->node, (unsigned)a->number);
		return;
	case DIR_SEND_GRANT_S:
	case DIR_SEND_GRANT_X:
	case DIR_SEND_GRANT_ZERO:
	case DIR_SEND_UPGRADE:
	case DIR_SEND_REFUSED:
	case DIR_SEND_AGAIN:
	case DIR_SEND_RECALL_S:
	case DIR_SEND_RECALL_X:
	case DIR_SEND_INVAL:
	case DIR_SEND_DROP:
	case DIR_SEND_STAY:
		break;
	}
	if (a->node != NODE_NONE) {
		send_down(s, w, a, a->node, value, ev);
		return;
	}
	NODESET_FOREACH(n, &out->sets[a->set])
	send_down(s, w, a, n, value, ev);
}

void act_home(const struct setup *s, struct world *w, bool no_room,
              const struct dir_event *ev, uint8_t value)
{
	struct dir_actions out;

	/* Who asked for the discard may have died: it is done all the same. */
	if (ev->kind == DIR_ACK && packed_dir_discards(&w->dir) &&
	    w->dir.awaiting == 1u << ev->from)
		discarded(w);
	if (packed_dir_handle(s, &w->dir, no_room, ev, &out) < 0)
		violated("an honest node is refused");
	for (uint32_t a = 0; a < out.n; a++)
		dir_act(s, w, &out, &out.v[a], value, ev);
}
