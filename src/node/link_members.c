/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The membership, as the link thread hears of it, and the promises that keep it
 * in force while the coordinator is silent (promise.c says why).
 *
 * PROMISE travels between nodes, on the lanes of shard 0: the shard passes it
 * on to this thread and back, and decides nothing.
 */

#include <string.h>

#include "base/log.h"
#include "node/link.h"

/* Everybody's shards learn it; the record is complete in itself. */
static void adopt(struct link *l, uint32_t epoch, const uint8_t *payload,
                  uint32_t bytes)
{
	const struct wire_member *w = (const void *)payload;
	uint32_t n = bytes / (uint32_t)sizeof(*w);
	struct nodeset others = { 0 };
	struct member m;

	for (uint32_t k = 0; k < n; k++) {
		(void)member_decode(&w[k], &m);
		if (m.id != l->node->id &&
		    (m.state == MEMBER_ALIVE || m.state == MEMBER_FENCED))
			nodeset_add(&others, m.id);
	}
	for (uint8_t i = 0; i < l->node->cfg.shards; i++) {
		struct members_letter *ml =
			calloc(1, sizeof(*ml) + (size_t)n * sizeof(ml->v[0]));

		if (ml == NULL)
			return; /* the next one tells it all again */
		ml->epoch = epoch;
		ml->n = n;
		for (uint32_t k = 0; k < n; k++)
			(void)member_decode(&w[k], &ml->v[k]);
		shard_members(l->node->shard[i], ml);
	}
	l->epoch = epoch;
	promise_adopted(&l->promise, &others);
}

static void adopt_due(struct loop_timer *t)
{
	struct link *l = container_of(t, struct link, adopt);

	if (l->waiting == NULL)
		return;
	adopt(l, l->waiting_epoch, l->waiting, l->waiting_bytes);
	free(TAKE_PTR(l->waiting));
}

void link_on_members(struct link *l, const struct msg *m,
                     const uint8_t *payload)
{
	nsec_t now = boot_now(), until;

	if (members_check(payload, m->payload_bytes) < 0) {
		link_down(l, "its membership record is malformed");
		return;
	}
	until = m->epoch > l->epoch ? promise_newer(&l->promise, now) : 0;
	if (until == 0) {
		free(TAKE_PTR(l->waiting));
		adopt(l, m->epoch, payload, m->payload_bytes);
		return;
	}
	free(l->waiting);
	l->waiting = malloc(m->payload_bytes);
	if (l->waiting == NULL) {
		link_down(l, "there is no memory for a membership");
		return;
	}
	memcpy(l->waiting, payload, m->payload_bytes);
	l->waiting_bytes = m->payload_bytes;
	l->waiting_epoch = m->epoch;
	timer_start(l->loop, &l->adopt,
	            loop_now_fresh(l->loop) + (until - now));
}

/* --- promises ---------------------------------------------------------- */

static void promise_send(struct link *l, node_id to, bool reply, uint64_t round)
{
	struct promise_letter *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return; /* as good as lost on the way: it is asked again */
	p->node = l->node;
	p->peer = to;
	p->reply = reply;
	p->round = round;
	shard_promise(l->node->shard[0], p);
}

void link_ask_promises(struct link *l)
{
	nsec_t end = atomic_load_explicit(&l->node->lease->end_ns,
	                                  memory_order_relaxed);

	if (!promise_ask(&l->promise, boot_now(), end, l->node->lease_ns))
		return;
	NODESET_FOREACH(n, &l->promise.missing)
	promise_send(l, n, false, l->promise.round);
}

static void promise_prolong(struct link *l, nsec_t end)
{
	if (end <=
	    atomic_load_explicit(&l->node->lease->end_ns, memory_order_relaxed))
		return;
	if (!l->promised)
		log_warn("the coordinator is silent: the other members prolong "
		         "the lease",
		         "epoch=%u", l->epoch);
	l->promised = true;
	atomic_store_explicit(&l->node->lease->end_ns, end,
	                      memory_order_release);
}

void link_promise(struct link *l, struct promise_letter *p)
{
	nsec_t now = boot_now(), lease_ns = l->node->lease_ns, end;

	if (p->reply) {
		end = promise_heard(&l->promise, p->peer, p->round, lease_ns);
		if (end > now)
			promise_prolong(l, end);
	} else if (promise_give(&l->promise, p->peer, p->epoch, l->epoch, now,
	                        lease_ns)) {
		promise_send(l, p->peer, true, p->round);
	}
	free(p);
}

void link_members_init(struct link *l)
{
	l->adopt.due = adopt_due;
}
