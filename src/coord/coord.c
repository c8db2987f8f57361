/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What binds the parts together: the end of a turn, deaths, MEMBERS, and what
 * is done while the store fails.
 *
 * Deaths.  One timer stands at the next end of a lease or of a margin.  When it
 * runs late, this process (or its whole machine) did not run: then messages
 * that would have renewed leases may wait in our sockets, unread.  So a late
 * timer declares nobody dead, but gives everybody a lease and the margin anew,
 * as after a start [C1].
 *
 * A store that fails.  What would need it is refused, with a sentence, and
 * what does not goes on: leases of members, claims of what is theirs already,
 * all questions.  Once a second a small write tries whether it works again.
 */

#include "coord/coord.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define PROBE_NS          NSEC_PER_SEC
#define MEMBERS_PERIOD_NS NSEC_PER_SEC
/* Made for one answer, good for others: 1,024 nodes renew 1,500 times a second,
 * and what each says is up to a second old. */
#define ROOM_PERIOD_NS (50 * NSEC_PER_MSEC)

/* --- the store ----------------------------------------------------------- */

int coord_store_status(int r)
{
	return r == -ENOSPC ? 507 : 503;
}

bool coord_store_ok(struct coord *c, int r, const struct errmsg *em)
{
	if (r >= 0) {
		if (c->store_failing)
			log_info("the store works again", "path=%s",
			         c->store_path);
		c->store_failing = false;
		timer_stop(c->loop, &c->probe);
		return true;
	}
	if (!c->store_failing)
		log_err("the store fails: nothing new can be promised",
		        "path=%s why=%s", c->store_path, em->text);
	c->store_failing = true;
	snprintf(c->store_why, sizeof(c->store_why), "%s", em->text);
	if (c->probe.index == 0)
		timer_start(c->loop, &c->probe, loop_now(c->loop) + PROBE_NS);
	return false;
}

static void probe_store(struct loop_timer *t)
{
	struct coord *c = container_of(t, struct coord, probe);
	/* As long as a chunk, so that its success means something. */
	static const char filler[512];
	struct errmsg em = { "" };
	int r = store_put(c->store, "probe", filler, sizeof(filler), &em);

	(void)coord_store_ok(c, r, &em);
}

/* --- membership ---------------------------------------------------------- */

static void set_deadline(struct coord *c)
{
	nsec_t at = members_deadline(&c->members);

	/* A death that cannot be written down waits for the next probe. */
	if (c->store_failing && at != UINT64_MAX)
		at = max_u64(at, c->probe.at + 1);
	if (at == UINT64_MAX)
		timer_stop(c->loop, &c->deadline);
	else
		timer_start(c->loop, &c->deadline, at);
}

void coord_members_changed(struct coord *c)
{
	c->members_changed = true;
}

void coord_figures_changed(struct coord *c, const struct node *n)
{
	uint64_t now = node_room_pages(n), told = c->room_told[n->id];
	uint64_t change = now > told ? now - told : told - now;

	/* The record is for people and tests; nodes hear it with each lease. */
	if (change <= n->limit_bytes / PAGE_BYTES / 16 ||
	    c->members_timer.index != 0)
		return;
	timer_start(c->loop, &c->members_timer,
	            max_u64(c->members_sent_at + MEMBERS_PERIOD_NS,
	                    loop_now(c->loop)));
}

const char *coord_room(struct coord *c)
{
	nsec_t now = loop_now(c->loop);

	if (c->room && now - c->room_made_at < ROOM_PERIOD_NS)
		return c->room;
	free(c->room);
	c->room = members_room(&c->members);
	c->room_made_at = now;
	return c->room;
}

static void members_due_again(struct loop_timer *t)
{
	struct coord *c = container_of(t, struct coord, members_timer);

	c->members_changed = true;
}

/* All of it to everybody: a record is complete in itself. */
static void tell_members(struct coord *c)
{
	c->members_changed = false;
	c->members_sent_at = loop_now(c->loop);
	timer_stop(c->loop, &c->members_timer);
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		struct node *n = members_at(&c->members, i);

		if (!n)
			continue;
		c->room_told[i] = node_room_pages(n);
		if (n->link)
			port_members(c, n->link);
	}
}

void coord_send_off(struct coord *c, struct node *n, int status,
                    const char *why)
{
	struct link *l = n->link;

	if (!l)
		return;
	port_refuse(c, l, &(struct msg){ .type = MSG_LEAVE }, status, "%s",
	            why);
	link_end(l, why);
}

/* Declare `n` dead.  Returns false if that cannot be written down. */
static bool bury(struct coord *c, struct node *n)
{
	bool member = node_lives(n);
	struct errmsg em = { "" };
	int r = members_bury(&c->members, n, &em);

	if (!coord_store_ok(c, r, &em))
		return false;
	if (member)
		log_warn("a node is dead: its lease and the margin are over",
		         "node=%u name=%s epoch=%u opened_extents=%llu", n->id,
		         n->name, c->members.epoch,
		         (unsigned long long)n->opened_extents);
	else
		log_warn("a node that registered never took a lease",
		         "node=%u name=%s", n->id, n->name);
	coord_send_off(c, n, 409, "you were declared dead; register anew");
	coord_members_changed(c);
	return true;
}

static void deadline(struct loop_timer *t)
{
	struct coord *c = container_of(t, struct coord, deadline);
	nsec_t now = loop_now(c->loop);
	struct node *n;
	bool fenced;

	if (now - t->at > members_margin_ns(&c->members)) {
		log_warn("this process did not run for a while: everybody gets "
		         "a lease anew",
		         "late_ms=%llu",
		         (unsigned long long)((now - t->at) / NSEC_PER_MSEC));
		members_excuse(&c->members, now);
	}
	while ((n = members_due(&c->members, now, &fenced)) != NULL) {
		if (!bury(c, n))
			break;
	}
	if (fenced)
		coord_members_changed(c);
}

/* --- claims -------------------------------------------------------------- */

static void answer_claim(struct coord *c, const struct waiting_claim *w,
                         uint32_t n)
{
	struct wire_extent records[CLAIM_EXTENTS_MAX];

	for (uint32_t i = 0; i < n; i++)
		extent_encode(&w->out[i], &records[i]);
	link_send(w->link,
	          &(struct msg){ .type = MSG_CLAIM,
	                         .flags = MSG_F_REPLY,
	                         .space = w->msg.space,
	                         .epoch = c->members.epoch,
	                         .page = w->msg.page,
	                         .arg = w->msg.arg,
	                         .payload_bytes =
	                                 (uint32_t)(n * sizeof(records[0])) },
	          records);
}

/* In memory alone: 0, or why not. */
static int try_claim(struct coord *c, struct waiting_claim *w,
                     const struct claim *claim)
{
	struct space *sp = spaces_at(&c->spaces, w->msg.space);
	uint64_t first = w->msg.page / EXTENT_PAGES;
	const struct node *n = w->link->node;

	if (!n || n->state != MEMBER_ALIVE)
		return -EPERM;
	if (!sp)
		return -ENOENT;
	if (first > UINT32_MAX)
		return -ERANGE;
	return spaces_claim(&c->spaces, n, sp, (uint32_t)first, claim, w->out);
}

/* All that can come of a claim, as its node hears it. */
static void finish_claim(struct coord *c, const struct waiting_claim *w,
                         const struct claim *claim, const char *store_why)
{
	const struct msg *m = &w->msg;

	switch (-w->r) {
	case 0:
		answer_claim(c, w, claim->n_extents);
		break;
	case EPERM:
		port_refuse(c, w->link, m, 409,
		            "you have no lease; renew it, then claim");
		break;
	case ENOENT:
		port_refuse(c, w->link, m, 404, "no space has number %u",
		            m->space);
		break;
	case ERANGE:
		port_refuse(c, w->link, m, 400,
		            "extents %llu to %llu are not all in the space",
		            (unsigned long long)(m->page / EXTENT_PAGES),
		            (unsigned long long)(m->page / EXTENT_PAGES +
		                                 claim->n_extents - 1));
		break;
	default:
		port_refuse(c, w->link, m, coord_store_status(w->r),
		            "the claim cannot be written down: %s; claim "
		            "again later",
		            store_why);
		break;
	}
}

/*
 * After a failed commit nothing of the batch holds: find which of its claims
 * ask only for what was so before, and may be answered.
 */
static void sort_claims(struct coord *c, int r)
{
	for (unsigned i = 0; i < c->n_claims; i++) {
		struct waiting_claim *w = &c->claims[i];
		struct claim claim;

		if (w->r != 0 || claim_decode(w->msg.arg, &claim) < 0)
			continue;
		w->r = try_claim(c, w, &claim);
		if (spaces_dirty(&c->spaces)) {
			spaces_undo(&c->spaces);
			w->r = r;
		}
	}
}

/* All claims that wait: one transaction, then all answers. */
static void run_claims(struct coord *c)
{
	struct errmsg em = { "" };
	struct claim claim;
	bool wrote;
	int r;

	if (c->n_claims == 0)
		return;
	for (unsigned i = 0; i < c->n_claims; i++) {
		struct waiting_claim *w = &c->claims[i];

		/* wire_decode() has let only good ones through. */
		w->r = claim_decode(w->msg.arg, &claim);
		if (w->r == 0)
			w->r = try_claim(c, w, &claim);
	}
	wrote = spaces_dirty(&c->spaces);
	r = spaces_commit(&c->spaces, &em);
	if (wrote && !coord_store_ok(c, r, &em))
		sort_claims(c, r);
	for (unsigned i = 0; i < c->n_claims; i++)
		if (claim_decode(c->claims[i].msg.arg, &claim) == 0 &&
		    !c->claims[i].link->ending)
			finish_claim(c, &c->claims[i], &claim, em.text);
	c->n_claims = 0;
}

void coord_claim(struct coord *c, struct link *l, const struct msg *m)
{
	struct waiting_claim *w = &c->claims[c->n_claims];

	assert(c->n_claims < CLAIMS_A_BATCH);
	assert(!l->ending); /* it stays until links_flush(), after us */
	w->link = l;
	w->msg = *m;
	if (++c->n_claims == CLAIMS_A_BATCH)
		run_claims(c);
}

/* --- life ---------------------------------------------------------------- */

/*
 * What a turn has gathered goes out.  Answers before membership, so that a node
 * hears of its own claim before others hear of it; spaces last, as far as there
 * is room in the queues.
 */
static void turn_end(struct loop_hook *h)
{
	struct coord *c = container_of(h, struct coord, hook);

	run_claims(c);
	if (c->members_changed)
		tell_members(c);
	links_flush(&c->links);
	for (struct link *l = c->links.first; l; l = l->next)
		if (l->node)
			port_spaces(c, l);
	links_flush(&c->links);
	if (!c->stopping)
		set_deadline(c);
}

/* What the store has, or a first cluster where it has nothing. */
static int load(struct coord *c, const struct config *cfg, struct errmsg *em)
{
	nsec_t now = loop_now_fresh(c->loop);
	int r = members_load(&c->members, c->store, now, em);

	if (r < 0)
		return r;
	r = spaces_load(&c->spaces, c->store, &c->members, em);
	if (r < 0)
		return r;
	if (store_revision(c->store) == 0) {
		r = members_make_cluster(&c->members, "default",
		                         c->lease_ms_default, em);
		if (r == 0)
			log_info("made a cluster", "name=default lease_ms=%llu",
			         (unsigned long long)c->lease_ms_default);
		return r;
	}
	/* What the store has stands, unless the command says otherwise. */
	if (c->members.has_cluster && cfg->lease_ms != 0 &&
	    cfg->lease_ms != c->members.lease_ms)
		r = members_set_lease(&c->members, cfg->lease_ms, now, em);
	return r;
}

int coord_start(struct coord *c, const struct config *cfg, int node_fd,
                struct errmsg *em)
{
	int r;

	c->store_path = cfg->store;
	c->lease_ms_default =
		cfg->lease_ms != 0 ? cfg->lease_ms : LEASE_MS_DEFAULT;
	c->deadline.due = deadline;
	c->members_timer.due = members_due_again;
	c->probe.due = probe_store;
	c->hook.turn_end = turn_end;
	c->claims = calloc(CLAIMS_A_BATCH, sizeof(c->claims[0]));
	if (!c->claims) {
		close(node_fd);
		return errmsg_set(em, -ENOMEM, "cannot start");
	}
	r = links_start(&c->links, c->loop, node_fd, &port_handlers, c, em);
	if (r < 0)
		return r;
	r = load(c, cfg, em);
	if (r < 0)
		return r;
	loop_hook_add(c->loop, &c->hook);
	set_deadline(c);
	return 0;
}

void coord_done(struct coord *c)
{
	for (uint32_t i = 0; i < NODES_MAX; i++)
		if (c->members.node[i])
			c->members.node[i]->link = NULL;
	links_done(&c->links);
	spaces_done(&c->spaces);
	members_done(&c->members);
	free(c->claims);
	c->claims = NULL;
	free(TAKE_PTR(c->room));
}
