/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory protocol
 * ==================
 *
 * Each page has a home node.  The home keeps one dir_entry per page and is the
 * only one to decide who may read or write it: at any time either any number of
 * nodes hold a read-only copy, or exactly one holds a writable one.  The home's
 * own copy is a holder like any other and is told to give way like any other;
 * only, when the home holds a page to read, it grants further reads at once.
 *
 * A request that conflicts with current holders makes the entry busy: a pooled
 * transaction takes the holders over, the home orders those in the way to give
 * up, and waits for each answer.  Requests that arrive meanwhile wait in the
 * transaction.  Where each state goes:
 *
 *	           GET_S                  GET_X                   DISCARD
 *	untouched  GRANT_ZERO -> owned    GRANT_ZERO -> owned     DISCARDED
 *	shared     home holds it?         asker holds it?         INVAL all
 *	             GRANT_S -> shared      sole: UPGRADE           -> busy,
 *	           else RECALL_S one          -> owned            then DISCARDED
 *	             -> busy                else INVAL others       -> untouched
 *	                                      -> busy
 *	                                  else INVAL all but one,
 *	                                    then RECALL_X it
 *	                                      -> busy
 *	owned      RECALL_S -> busy       RECALL_X -> busy        as shared
 *	           (migratory: RECALL_X)
 *	lost       LOST                   LOST                    DISCARDED
 *	                                                            -> untouched
 *	busy       wait                   wait                    wait
 *
 *	busy, INVAL under way:    ACK        off the holders; the last goes on
 *	                          NOT_HELD   the same
 *	busy, RECALL_S under way: ACK_DATA   GRANT_S to the asker and to all who
 *	                                     wait to read -> shared
 *	busy, RECALL_X under way: ACK_DATA   GRANT_X -> owned
 *	busy, RECALL under way:   NOT_HELD   off the holders; was it the last:
 *	                                     lost, for somebody broke a rule,
 *	                                     and the home does not guess [A8]
 *	busy, GRANT_S under way:  APPLIED    INVAL all others, then UPGRADE
 *	any:                      GONE       off holders and waiters; if the
 *	                                     only bytes went with it: lost
 *	shared:                   EVICT      enough confirmed holders without
 *	                                     the asker: off the holders, DROP;
 *	                                     else STAY
 *	untouched, owned, busy:   EVICT      STAY
 *	all other combinations               -EPROTO
 *
 * A read of a page that nobody has written gives the right to write, for the
 * write that usually follows must not fault again.  A page that *migrates*
 * (read, then written, by each node in turn) is handed on writable when it is
 * asked for to read, until two readers come within one residency.
 *
 * The bytes of a page that changes hands travel giver -> home -> asker.  When
 * several holders are in the way and the asker has no copy, the one whose bytes
 * are wanted is asked last, when all others have given up: so the bytes need no
 * place to wait in, and a copy outlives every step but the last [A7].
 *
 * Capacity.  A node that wants a page out of its memory asks with EVICT, when
 * nothing of its own maps the page any more.  It may go if enough others hold
 * it; so before that it has others read it (GET_S with `store`), and a stored
 * copy is a holder that came the way of every other.  DROP counts *confirmed*
 * holders: a copy that is still on its way may never arrive [A16].  Whoever
 * comes while the entry is busy is told to STAY, and so the EVICT that crosses
 * an order to the same node is void: that node answers the order.
 *
 * A page with replicas is not left with one copy that could die with its
 * holder before the bytes have arrived elsewhere [A7]: a writer that lacks it
 * is granted a read first, and only when that has been applied the others are
 * told to give up.
 *
 * Invariants, asserted after every step by dir_check():
 *
 *	I1  owned implies exactly one holder, while nobody is being recalled.
 *	I2  only holders are awaited, and a busy entry awaits somebody.
 *	I3  nodes wait only behind a busy entry, to read or to write but not
 *	    both, and never the node being served.
 *	I4  who waits to read, or is served reading, is no holder.
 *	I5  the node being served is not awaited, unless it discards, or is to
 *	    say that it has applied what it was granted.
 *
 * What this relies on:
 *
 *	- Messages between two nodes arrive in order (net/transport.h).  Without
 *	  it an INVAL could overtake the GRANT that it is meant to undo.
 *	- A node has one GET and one DISCARD outstanding per page at most.
 *	- A holder keeps its copy until told to give it up.
 *
 * Fairness: waiters are served round-robin by node number, starting after the
 * node served last; readers are served together.  A node waits for at most as
 * many turns as there are other nodes.
 */

#include "core/dir.h"

#include <errno.h>

#include "core/dir_txn.h"
#include "core/mutant.h"
#include "core/page.h"

/* --- actions ----------------------------------------------------------- */

static struct dir_action *emit(struct dir_actions *out,
                               enum dir_action_kind kind, node_id node)
{
	struct dir_action *a = &out->v[out->n];

	assert(out->n < DIR_ACTIONS_MAX);
	*a = (struct dir_action){ .kind = kind,
		                  .node = node,
		                  .requester = NODE_NONE };
	out->n++;
	return a;
}

static struct dir_action *emit_set(struct dir_actions *out,
                                   enum dir_action_kind kind,
                                   const struct nodeset *set)
{
	struct dir_action *a = emit(out, kind, NODE_NONE);

	assert(out->n_sets < DIR_SETS_MAX);
	a->set = (uint8_t)out->n_sets;
	out->sets[out->n_sets++] = *set;
	return a;
}

/* Tell `whom` to give up, and wait for each. */
static void order_inval(struct dir_txn *t, const struct nodeset *whom,
                        struct dir_actions *out)
{
	t->awaiting = *whom;
	t->asked = ASKED_INVAL;
	emit_set(out, DIR_SEND_INVAL, whom);
}

static void order_recall(struct dir_txn *t, enum asked asked, node_id holder,
                         struct dir_actions *out)
{
	struct dir_action *a;

	nodeset_clear(&t->awaiting);
	nodeset_add(&t->awaiting, holder);
	t->asked = (uint8_t)asked;
	a = emit(out,
	         asked == ASKED_RECALL_S ? DIR_SEND_RECALL_S :
	                                   DIR_SEND_RECALL_X,
	         holder);
	a->requester = t->req;
}

/* --- serving ----------------------------------------------------------- */

static void own(struct dir_txn *t, node_id n, uint32_t now_us)
{
	nodeset_clear(&t->holders);
	nodeset_add(&t->holders, n);
	t->owned = true;
	t->since_us = now_us;
	t->giver = t->reader = NODE_NONE;
}

/* Grant a read to the node served and to all who wait to read. */
static void grant_readers(struct dir_txn *t, bool event_bytes,
                          struct dir_actions *out)
{
	struct nodeset to = MUTATE(15, t->wait[WAIT_S], (struct nodeset){ 0 });

	if (t->req != NODE_NONE)
		nodeset_add(&to, t->req);
	emit_set(out, DIR_SEND_GRANT_S, &to)->event_bytes = event_bytes;
	for (unsigned i = 0; i < NODESET_WORDS; i++)
		t->holders.w[i] |= to.w[i];
	nodeset_clear(&t->wait[WAIT_S]);
}

/* Grant a read to a writer that lacks the page, and await that it has it. */
static void grant_ahead(struct dir_txn *t, struct dir_actions *out)
{
	struct dir_action *a = emit(out, DIR_SEND_GRANT_S, t->req);

	a->event_bytes = true;
	a->more = true;
	nodeset_add(&t->holders, t->req);
	nodeset_clear(&t->awaiting);
	nodeset_add(&t->awaiting, t->req);
	t->asked = ASKED_APPLIED;
}

/* Two readers within one residency end a page's migration. */
static bool migrates(struct dir_entry *e, const struct dir_txn *t,
                     const struct dir_event *ev)
{
	if ((e->flags & DIR_F_MIGRATORY) == 0 || t->store)
		return false;
	if (nodeset_empty(&t->wait[WAIT_S]) &&
	    ev->now_us - t->since_us >= PAGE_RESIDENCY_US)
		return true;
	e->flags &= (uint8_t)~DIR_F_MIGRATORY;
	return false;
}

static bool serve_read(struct dir *d, struct dir_entry *e, struct dir_txn *t,
                       const struct dir_event *ev, struct dir_actions *out)
{
	if (t->owned) {
		node_id owner = nodeset_next(&t->holders, 0);

		if (migrates(e, t, ev))
			order_recall(t, ASKED_RECALL_X, owner, out);
		else
			order_recall(t, ASKED_RECALL_S, owner, out);
		return false;
	}
	t->giver = t->reader = NODE_NONE;
	if (MUTATE(23, nodeset_has(&t->holders, d->cfg.self), true)) {
		grant_readers(t, false, out);
		return true;
	}
	order_recall(t, ASKED_RECALL_S, nodeset_next(&t->holders, 0), out);
	return false;
}

static bool serve_write(struct dir *d, struct dir_entry *e, struct dir_txn *t,
                        const struct dir_event *ev, struct dir_actions *out)
{
	struct nodeset others = t->holders;
	node_id last = t->req;

	if (MUTATE(14, !nodeset_has(&t->holders, t->req), false)) {
		last = nodeset_has(&t->holders, d->cfg.self) ?
		               d->cfg.self :
		               nodeset_next(&t->holders, 0);
	}
	nodeset_remove(&others, last);
	if (last != t->req && MUTATE(29, t->careful, false) &&
	    !nodeset_empty(&others)) {
		/* Home, too, is asked: its own grant may be under way. */
		order_recall(t, ASKED_RECALL_S, last, out);
		return false;
	}
	if (MUTATE(1, !nodeset_empty(&others), false)) {
		order_inval(t, &others, out);
		return false;
	}
	if (last != t->req) {
		order_recall(t, ASKED_RECALL_X, last, out);
		return false;
	}
	if (t->reader == t->req && t->reader != NODE_NONE)
		e->flags |= DIR_F_MIGRATORY;
	emit(out, DIR_SEND_UPGRADE, t->req);
	own(t, t->req, ev->now_us);
	return true;
}

/* Nobody has the page, or its contents: no one to wait for. */
static void serve_nobody(struct dir_entry *e, struct dir_txn *t,
                         const struct dir_event *ev, struct dir_actions *out)
{
	if (t->kind == DIR_DISCARD) {
		nodeset_add(&t->wait[WAIT_D], t->req);
		emit_set(out, DIR_SEND_DISCARDED, &t->wait[WAIT_D]);
		nodeset_clear(&t->wait[WAIT_D]);
		e->flags &= (uint8_t) ~(DIR_F_LOST | DIR_F_MIGRATORY);
		return;
	}
	if ((e->flags & DIR_F_LOST) != 0) {
		struct nodeset all = t->wait[WAIT_S];

		for (unsigned i = 0; i < NODESET_WORDS; i++)
			all.w[i] |= t->wait[WAIT_X].w[i];
		nodeset_add(&all, t->req);
		emit_set(out, DIR_SEND_LOST, &all);
		nodeset_clear(&t->wait[WAIT_S]);
		nodeset_clear(&t->wait[WAIT_X]);
		return;
	}
	emit(out, DIR_SEND_GRANT_ZERO, t->req);
	own(t, t->req, ev->now_us);
}

/* Serve t->req.  True: done.  False: holders were told to give way. */
static bool serve(struct dir *d, struct dir_entry *e, struct dir_txn *t,
                  const struct dir_event *ev, struct dir_actions *out)
{
	if (nodeset_empty(&t->holders) ||
	    MUTATE(18, false, t->kind == DIR_DISCARD)) {
		serve_nobody(e, t, ev, out);
		return true;
	}
	switch (t->kind) {
	case DIR_GET_S:
		return serve_read(d, e, t, ev, out);
	case DIR_GET_X:
		return serve_write(d, e, t, ev, out);
	default:
		assert(t->kind == DIR_DISCARD);
		order_inval(t, &t->holders, out);
		return false;
	}
}

/* Take the next waiter, round-robin, as the one to serve. */
static bool next_waiter(struct dir_txn *t)
{
	static const uint8_t kind[WAITS] = { DIR_GET_S, DIR_GET_X,
		                             DIR_DISCARD };
	struct nodeset all = t->wait[WAIT_S];
	unsigned from = t->served == NODE_NONE ? 0 : t->served + 1u;
	node_id n;

	for (unsigned i = 0; i < NODESET_WORDS; i++)
		all.w[i] |= t->wait[WAIT_X].w[i] | t->wait[WAIT_D].w[i];
	n = nodeset_next(&all, from);
	if (n == NODE_NONE)
		n = nodeset_next(&all, 0);
	if (n == NODE_NONE)
		return false;
	for (unsigned w = 0; w < WAITS; w++) {
		if (!nodeset_has(&t->wait[w], n))
			continue;
		nodeset_remove(&t->wait[w], n);
		t->kind = kind[w];
		t->req = n;
		t->store = false; /* who stores does not wait: see on_request */
		break;
	}
	return true;
}

/* Nobody is awaited: serve who is to be served, then who waits, then close. */
static void go_on(struct dir *d, struct dir_entry *e, struct dir_txn *t,
                  const struct dir_event *ev, struct dir_actions *out)
{
	t->asked = 0;
	for (;;) {
		if (t->req != NODE_NONE) {
			if (!serve(d, e, t, ev, out))
				return;
			t->served = t->req;
			t->req = NODE_NONE;
		}
		if (next_waiter(t))
			continue;
		if (dir_txn_close(d, e, t))
			return;

		/* More sharers than an entry holds, and no set is free: let
		 * some go, until the rest fits [hazards D]. */
		struct nodeset drop = t->holders;

		for (unsigned i = 0; i < DIR_INLINE; i++)
			nodeset_remove(&drop, nodeset_next(&drop, 0));
		if (MUTATE(21, false, true)) {
			NODESET_FOREACH(n, &drop)
			nodeset_remove(&t->holders, n);
			continue;
		}
		t->kind = KIND_TRIM;
		order_inval(t, &drop, out);
		return;
	}
}

/* --- requests ---------------------------------------------------------- */

/* Could a correct node ask for this now? */
static bool may_ask(const struct dir *d, const struct dir_entry *e,
                    const struct dir_event *ev)
{
	bool holds = dir_holds(d, e, ev->from);
	const struct dir_txn *t;

	if (!dir_busy(e)) {
		if (ev->kind == DIR_GET_S)
			return !holds;
		return ev->kind != DIR_GET_X || !holds ||
		       (e->flags & DIR_F_OWNED) == 0;
	}
	t = dir_txn_of(d, e);
	if (ev->kind == DIR_DISCARD)
		return !nodeset_has(&t->wait[WAIT_D], ev->from) &&
		       !(t->req == ev->from && t->kind == DIR_DISCARD);
	if (nodeset_has(&t->wait[WAIT_S], ev->from) ||
	    nodeset_has(&t->wait[WAIT_X], ev->from) ||
	    (t->req == ev->from && t->kind != DIR_DISCARD))
		return false;
	return ev->kind == DIR_GET_S ? !holds :
	                               !(holds && MUTATE(24, t->owned, true));
}

/* Can a prefetch be granted without waiting for anybody but ourselves? */
static bool prefetch_ready(const struct dir *d, const struct dir_entry *e,
                           const struct dir_event *ev)
{
	if (dir_busy(e) || (e->flags & DIR_F_LOST) != 0)
		return false;
	if (e->flags == 0 && e->n == 0)
		return true;
	if (ev->kind != DIR_GET_S || !dir_holds(d, e, d->cfg.self))
		return false;
	if ((e->flags & DIR_F_OWNED) != 0)
		return ev->home_ready && (e->flags & DIR_F_MIGRATORY) == 0;
	return true;
}

/*
 * The ordinary cases, which need no transaction.  True: answered.
 */
static bool answer_at_once(struct dir *d, struct dir_entry *e,
                           const struct dir_event *ev, struct dir_actions *out)
{
	const unsigned special = DIR_F_SET | DIR_F_OWNED | DIR_F_LOST;

	if (dir_busy(e))
		return false;
	if (e->n == 0 && (e->flags & (DIR_F_SET | DIR_F_LOST)) == 0) {
		if (ev->kind == DIR_DISCARD) {
			emit(out, DIR_SEND_DISCARDED, ev->from);
			return true;
		}
		emit(out, DIR_SEND_GRANT_ZERO, ev->from);
		e->flags = DIR_F_OWNED;
		e->n = 1;
		e->v[0] = ev->from;
		e->v[1] = (uint16_t)ev->now_us;
		e->v[2] = (uint16_t)(ev->now_us >> 16);
		return true;
	}
	if (ev->kind == DIR_GET_S && (e->flags & special) == 0 &&
	    e->n < DIR_INLINE && dir_holds(d, e, d->cfg.self)) {
		emit(out, DIR_SEND_GRANT_S, ev->from);
		e->flags &= (uint8_t)~DIR_F_PAIR;
		e->v[e->n++] = ev->from;
		return true;
	}
	if (MUTATE(2, false,
	           ev->prefetch && (e->flags & DIR_F_OWNED) != 0 &&
	                   e->v[0] == d->cfg.self)) {
		emit(out, DIR_SEND_GRANT_S, ev->from);
		e->flags = 0;
		e->v[1] = ev->from;
		e->n = 2;
		return true;
	}
	return false;
}

static int on_request(struct dir *d, struct dir_entry *e,
                      const struct dir_event *ev, struct dir_actions *out)
{
	static const uint8_t wait[] = { [DIR_GET_S] = WAIT_S,
		                        [DIR_GET_X] = WAIT_X,
		                        [DIR_DISCARD] = WAIT_D };
	struct dir_txn *t;

	if (!may_ask(d, e, ev))
		return -EPROTO;
	if (ev->prefetch && MUTATE(2, !prefetch_ready(d, e, ev), dir_busy(e))) {
		emit(out, DIR_SEND_REFUSED, ev->from);
		return 0;
	}
	if (answer_at_once(d, e, ev, out))
		return 0;
	if (dir_busy(e) && ev->store) {
		/* The page is in use: whoever evicts it is late. */
		emit(out, DIR_SEND_AGAIN, ev->from);
		return 0;
	}
	if (dir_busy(e)) {
		t = dir_txn_of(d, e);
		nodeset_add(&t->wait[wait[ev->kind]], ev->from);
		return 0;
	}
	t = dir_txn_open(d, e);
	if (t == NULL) {
		emit(out, ev->prefetch ? DIR_SEND_REFUSED : DIR_SEND_AGAIN,
		     ev->from);
		return 0;
	}
	t->req = ev->from;
	t->kind = (uint8_t)ev->kind;
	t->store = ev->store;
	t->careful = ev->careful;
	go_on(d, e, t, ev, out);
	return 0;
}

/* --- evicting ---------------------------------------------------------- */

static int on_evict(struct dir *d, struct dir_entry *e,
                    const struct dir_event *ev, struct dir_actions *out)
{
	struct nodeset stay;

	if (!dir_holds(d, e, ev->from))
		return -EPROTO;
	dir_holders(d, e, &stay);
	nodeset_remove(&stay, ev->from);
	for (unsigned i = 0; ev->unconfirmed != NULL && i < NODESET_WORDS; i++)
		stay.w[i] &= MUTATE(27, ~ev->unconfirmed->w[i], ~0ull);
	assert(ev->need > 0);
	if (MUTATE(28, dir_busy(e), false) ||
	    nodeset_count(&stay) < MUTATE(26, ev->need, 0)) {
		emit(out, DIR_SEND_STAY, ev->from);
		return 0;
	}
	dir_holder_gone(d, e, ev->from);
	emit(out, DIR_SEND_DROP, ev->from);
	return 0;
}

/* --- answers ----------------------------------------------------------- */

/* The transaction that waits for `from`, or NULL: then it is a lie. */
static struct dir_txn *awaited(struct dir *d, const struct dir_entry *e,
                               node_id from)
{
	struct dir_txn *t;

	if (!dir_busy(e))
		return NULL;
	t = dir_txn_of(d, e);
	return nodeset_has(&t->awaiting, from) ? t : NULL;
}

/* Nobody has its bytes any more. */
static void lose(struct dir_entry *e, struct dir_txn *t)
{
	nodeset_clear(&t->holders);
	nodeset_clear(&t->awaiting);
	t->owned = false;
	e->flags |= DIR_F_LOST;
}

static int on_ack(struct dir *d, struct dir_entry *e,
                  const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_txn *t = awaited(d, e, ev->from);

	if (t == NULL || t->asked != ASKED_INVAL)
		return -EPROTO;
	nodeset_remove(&t->awaiting, ev->from);
	nodeset_remove(&t->holders, ev->from);
	t->owned = false;
	/* Whose copy was to stay may have died meanwhile. */
	if (MUTATE(12, nodeset_empty(&t->holders), false) &&
	    t->kind != DIR_DISCARD)
		lose(e, t);
	if (MUTATE(3, nodeset_empty(&t->awaiting), true)) {
		nodeset_clear(&t->awaiting);
		go_on(d, e, t, ev, out);
	}
	return 0;
}

/* The bytes came, to be shared. */
static void shared_bytes(struct dir *d, struct dir_txn *t,
                         const struct dir_event *ev, struct dir_actions *out)
{
	bool ahead = t->req != NODE_NONE && t->kind == DIR_GET_X;
	bool store = t->req != NODE_NONE && t->store;
	bool pair = t->owned && t->req != NODE_NONE && !store && !ahead &&
	            nodeset_empty(&t->wait[WAIT_S]);

	t->owned = false;
	t->giver = pair ? ev->from : NODE_NONE;
	t->reader = pair ? t->req : NODE_NONE;
	if (ahead) {
		grant_ahead(t, out);
		return;
	}
	if (t->req != NODE_NONE || !nodeset_empty(&t->wait[WAIT_S]))
		grant_readers(t, true, out);
	if (ev->may_keep && !store && !nodeset_has(&t->holders, d->cfg.self)) {
		emit(out, DIR_KEEP, d->cfg.self);
		if (MUTATE(16, true, false))
			nodeset_add(&t->holders, d->cfg.self);
	}
}

/* The bytes came, given up for good: for the node served. */
static void moved_bytes(struct dir *d, struct dir_entry *e, struct dir_txn *t,
                        const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_action *a;

	nodeset_remove(&t->holders, ev->from);
	t->owned = false;
	if (t->req == NODE_NONE)
		(void)next_waiter(t); /* the asker died: who else? */
	if (t->req != NODE_NONE && t->kind != DIR_DISCARD) {
		a = emit(out, MUTATE(5, DIR_SEND_GRANT_X, DIR_SEND_UPGRADE),
		         t->req);
		a->event_bytes = true;
		a->migrate = t->kind == DIR_GET_S;
		a->requester = ev->from;
		a->number = ev->number;
		own(t, t->req, ev->now_us);
		return;
	}
	if (t->req == NODE_NONE) {
		/* Nobody wants it any more, but these are the only bytes. */
		if (ev->may_keep || MUTATE(25, ev->can_keep, false)) {
			emit(out, DIR_KEEP, d->cfg.self);
			nodeset_add(&t->holders, d->cfg.self);
		} else {
			e->flags |= DIR_F_LOST;
		}
	}
	if (MUTATE(17, true, false))
		emit(out, DIR_FORGET, ev->from)->number = ev->number;
}

static int on_ack_data(struct dir *d, struct dir_entry *e,
                       const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_txn *t = awaited(d, e, ev->from);

	if (t == NULL || t->asked == ASKED_INVAL || t->asked == ASKED_APPLIED)
		return -EPROTO;
	if ((ev->number != 0) != (t->asked == ASKED_RECALL_X))
		return -EPROTO;
	nodeset_clear(&t->awaiting);
	if (t->asked == ASKED_RECALL_S) {
		shared_bytes(d, t, ev, out);
		if (t->asked == ASKED_APPLIED)
			return 0;
	} else {
		moved_bytes(d, e, t, ev, out);
		if (t->req != NODE_NONE && t->kind == DIR_DISCARD) {
			go_on(d, e, t, ev, out);
			return 0;
		}
	}
	if (t->req != NODE_NONE)
		t->served = t->req;
	t->req = NODE_NONE;
	go_on(d, e, t, ev, out);
	return 0;
}

static int on_not_held(struct dir *d, struct dir_entry *e,
                       const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_txn *t = awaited(d, e, ev->from);

	if (t == NULL || t->asked == ASKED_APPLIED)
		return -EPROTO;
	if (t->asked == ASKED_INVAL)
		return on_ack(d, e, ev, out); /* its bytes were not wanted */
	nodeset_remove(&t->awaiting, ev->from);
	nodeset_remove(&t->holders, ev->from);
	if (nodeset_empty(&t->holders))
		lose(e, t);
	go_on(d, e, t, ev, out);
	return 0;
}

/* The writer has a copy: now the others may give theirs up. */
static int on_applied(struct dir *d, struct dir_entry *e,
                      const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_txn *t = awaited(d, e, ev->from);

	if (t == NULL || t->asked != ASKED_APPLIED)
		return -EPROTO;
	nodeset_clear(&t->awaiting);
	go_on(d, e, t, ev, out);
	return 0;
}

static void on_gone(struct dir *d, struct dir_entry *e,
                    const struct dir_event *ev, struct dir_actions *out)
{
	struct dir_txn *t;
	bool held;

	if (!dir_busy(e)) {
		/* Without a transaction: there may be none left. */
		if (dir_holds(d, e, ev->from))
			dir_holder_gone(d, e, ev->from);
		return;
	}
	t = dir_txn_of(d, e);
	for (unsigned w = 0; w < WAITS; w++)
		nodeset_remove(&t->wait[w], ev->from);
	held = nodeset_has(&t->holders, ev->from);
	nodeset_remove(&t->holders, ev->from);
	if (t->req == ev->from)
		t->req = NODE_NONE;
	if (held && nodeset_empty(&t->holders))
		lose(e, t);
	if (!nodeset_has(&t->awaiting, ev->from)) {
		/* Nobody waits for it; an idle entry closes again. */
		if (nodeset_empty(&t->awaiting))
			go_on(d, e, t, ev, out);
		return;
	}
	if (MUTATE(11, true, false))
		nodeset_remove(&t->awaiting, ev->from);
	if (nodeset_empty(&t->awaiting))
		go_on(d, e, t, ev, out);
}

int dir_handle(struct dir *d, struct dir_entry *e, const struct dir_event *ev,
               struct dir_actions *out)
{
	int r = 0;

	assert(ev->from < NODES_MAX);
	out->n = 0;
	out->n_sets = 0;
	switch (ev->kind) {
	case DIR_GET_S:
	case DIR_GET_X:
	case DIR_DISCARD:
		r = on_request(d, e, ev, out);
		break;
	case DIR_ACK:
		r = on_ack(d, e, ev, out);
		break;
	case DIR_ACK_DATA:
		r = on_ack_data(d, e, ev, out);
		break;
	case DIR_NOT_HELD:
		r = on_not_held(d, e, ev, out);
		break;
	case DIR_EVICT:
		r = on_evict(d, e, ev, out);
		break;
	case DIR_APPLIED:
		r = on_applied(d, e, ev, out);
		break;
	case DIR_GONE:
		on_gone(d, e, ev, out);
		break;
	}
	dir_check(d, e);
	return r;
}
