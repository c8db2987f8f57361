/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages: to and from the peers' shards, and to ourselves.
 *
 * What this shard sends to its own node goes into a ring here, which
 * peer_drain() empties after every event.  Nothing else is looked at in
 * between, so for the core a local message arrives at once.
 *
 * Orders of our directory (RECALL, INVAL) may find no credit.  They then wait
 * in the peer's backlog, in order; one transaction has at most one order per
 * node outstanding, so TXNS_MAX places are enough.  Answers always find room
 * (net/transport.h).
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/shard.h"

int peer_init(struct shard *s, struct errmsg *em)
{
	s->member = calloc(NODES_MAX, sizeof(*s->member));
	s->local = calloc(LOCALS_MAX, sizeof(*s->local));
	if (s->member == NULL || s->local == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for message queues");
	return unacked_init(s, em);
}

bool peer_alive(const struct shard *s, node_id n)
{
	return n == s->node->id || (n < NODES_MAX && s->member[n].lane != NULL);
}

bool peer_over(const struct shard *s, node_id n)
{
	return !peer_alive(s, n) && n < NODES_MAX &&
	       (s->member[n].state == MEMBER_DEAD ||
	        s->member[n].state == MEMBER_DRAINED);
}

uint8_t peer_lane(const struct shard *s, const struct sspace *sp, node_id to,
                  gpn_t page)
{
	return cut_shard(cut_stripe_of_page(&sp->space->cut, page),
	                 s->member[to].shards);
}

struct speer *peer_lane_of(struct shard *s, node_id peer, uint8_t shard)
{
	struct smember *m = &s->member[peer];

	if (peer >= NODES_MAX || m->lane == NULL || shard >= m->shards)
		return NULL;
	return &m->lane[shard];
}

struct speer *peer_of_page(struct shard *s, const struct sspace *sp,
                           node_id peer, gpn_t page)
{
	if (peer >= NODES_MAX || s->member[peer].lane == NULL)
		return NULL;
	return peer_lane_of(s, peer, peer_lane(s, sp, peer, page));
}

uint32_t peer_credits(struct shard *s, struct sspace *sp, node_id home,
                      gpn_t page, struct parking **wait)
{
	struct speer *p;
	uint8_t lane;

	if (home == s->node->id)
		return UINT32_MAX;
	lane = peer_lane(s, sp, home, page);
	p = peer_lane_of(s, home, lane);
	*wait = &p->credit;
	return tp_page_credits(s->tp, home, lane);
}

/* --- sending ----------------------------------------------------------- */

static void send_local(struct shard *s, const struct msg *m,
                       const uint8_t *const *page, bool net)
{
	struct local_msg_entry *e;
	unsigned n = (unsigned)__builtin_popcountll(m->mask);

	assert(s->local_n < LOCALS_MAX);
	e = &s->local[(s->local_first + s->local_n++) % LOCALS_MAX];
	e->m = *m;
	e->net = net;
	if (page != NULL)
		memcpy(e->page, page, n * sizeof(e->page[0]));
	else
		e->page[0] = NULL;
}

/* Adjacent pages become one iovec. */
static int gather(const uint8_t *const *page, unsigned n,
                  struct iovec iov[RUN_PAGES])
{
	int n_iov = 0;

	for (unsigned i = 0; i < n; i++) {
		struct iovec *last = n_iov > 0 ? &iov[n_iov - 1] : NULL;

		if (last != NULL &&
		    (const uint8_t *)last->iov_base + last->iov_len ==
		            page[i]) {
			last->iov_len += PAGE_BYTES;
			continue;
		}
		/* iovec has no const; tp_send() only reads. */
		iov[n_iov].iov_base = (void *)(uintptr_t)page[i];
		iov[n_iov++].iov_len = PAGE_BYTES;
	}
	return n_iov;
}

enum tp_sent peer_send(struct shard *s, node_id to, struct sspace *sp,
                       struct msg *m, const uint8_t *const *page, bool net,
                       uint64_t *seq)
{
	struct iovec iov[RUN_PAGES];
	int n_iov = 0;

	if (to == s->node->id) {
		send_local(s, m, page, net);
		return TP_QUEUED;
	}
	if (peer_lane_of(s, to, 0) == NULL)
		return TP_DOWN;
	m->epoch = s->epoch;
	m->payload_bytes = msg_payload_pages(m) * PAGE_BYTES;
	if (m->payload_bytes > 0)
		n_iov = gather(page, msg_payload_pages(m), iov);
	return tp_send(s->tp, to, peer_lane(s, sp, to, m->page), m, iov, n_iov,
	               m->type == MSG_FORGET ? TP_LAZY : 0, seq);
}

void peer_recall(struct shard *s, node_id to, struct sspace *sp, struct msg *m)
{
	struct speer *p;
	struct backlog *b;

	if (to == s->node->id) {
		struct local_msg_entry *last =
			&s->local[(s->local_first + s->local_n - 1) %
		                  LOCALS_MAX];

		/* A scan recalls a run from us: one order for all of it. */
		if (s->local_n > 0 && m->type == MSG_RECALL_S &&
		    last->m.type == MSG_RECALL_S && last->m.space == m->space &&
		    m->page - last->m.page < RUN_PAGES &&
		    extent_of(m->page) == extent_of(last->m.page)) {
			last->m.mask |= 1ull << (m->page - last->m.page);
			return;
		}
		send_local(s, m, NULL, false);
		return;
	}
	p = peer_of_page(s, sp, to, m->page);
	if (p == NULL)
		return; /* dead: home_gone() comes for this entry */
	if (p->backlog_n == 0 &&
	    peer_send(s, to, sp, m, NULL, false, NULL) == TP_QUEUED)
		return;
	assert(p->backlog_n < TXNS_MAX);
	b = &p->backlog[(p->backlog_first + p->backlog_n++) % TXNS_MAX];
	*b = (struct backlog){ .type = m->type,
		               .requester = (node_id)m->arg,
		               .space = m->space,
		               .page = m->page };
}

static void backlog_send(struct shard *s, node_id peer, struct speer *p)
{
	while (p->backlog_n > 0) {
		const struct backlog *b = &p->backlog[p->backlog_first];
		struct sspace *sp = shard_space(s, b->space);
		struct msg m = { .type = b->type,
			         .space = b->space,
			         .page = b->page,
			         .mask = 1,
			         .arg = b->requester };

		if (sp != NULL &&
		    peer_send(s, peer, sp, &m, NULL, false, NULL) == TP_FULL)
			return;
		p->backlog_first = (p->backlog_first + 1) % TXNS_MAX;
		p->backlog_n--;
	}
}

static void backlog_drop(struct speer *p, space_id id)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < p->backlog_n; i++) {
		struct backlog b =
			p->backlog[(p->backlog_first + i) % TXNS_MAX];

		if (b.space != id)
			p->backlog[(p->backlog_first + kept++) % TXNS_MAX] = b;
	}
	p->backlog_n = kept;
}

void peer_dropped(struct shard *s, space_id id)
{
	for (uint32_t i = 0; i < NODES_MAX; i++) {
		struct smember *m = &s->member[i];

		for (uint8_t k = 0; m->lane != NULL && k < m->shards; k++)
			backlog_drop(&m->lane[k], id);
	}
}

/* --- receiving --------------------------------------------------------- */

static int on_void(struct shard *s, struct sspace *sp, const struct msg *m)
{
	bool discard = (m->flags & MSG_F_DISCARD) != 0;

	if (m->type == MSG_MOVED)
		place_moved(&sp->space->place, extent_of(m->page),
		            (uint32_t)(m->arg >> 16));
	if (discard)
		return holder_discarded(s, sp, m);
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);
		struct page_event ev = { .kind = PAGE_RETRY };
		bool store =
			(sp->space->pages[page].flags & PAGE_F_STORING) != 0;
		struct page_actions out;

		if (page_step(s, sp, page, &ev, &out) < 0)
			return -EPROTO;
		if (store)
			store_result(s, sp, page, false);
		for (uint32_t i = pend_first(s, sp, page); i != 0;
		     i = pend_next(s, i))
			park_later(s, i);
	}
	return 0;
}

/* A message of a space that this node does not know (yet, or any more). */
static int stranger(struct shard *s, node_id from, uint8_t lane,
                    const struct msg *m)
{
	struct msg ans = { .space = m->space,
		           .page = m->page,
		           .mask = m->mask,
		           .epoch = s->epoch };

	if (m->type == MSG_STORE || m->type == MSG_EVICT) {
		ans.type = m->type == MSG_STORE ? MSG_STORED : MSG_DROP;
		ans.arg = m->mask;
		ans.mask = 0;
	} else if (msg_class(m->type) == MSG_CLASS_REQUEST) {
		ans.type = MSG_AGAIN;
		ans.flags = m->type == MSG_DISCARD ? MSG_F_DISCARD : 0;
	} else if (msg_class(m->type) == MSG_CLASS_RECALL) {
		ans.type = MSG_NOT_HELD;
	} else {
		return 0;
	}
	(void)tp_send(s->tp, from, lane, &ans, NULL, 0, 0, NULL);
	return 0;
}

/*
 * Grants and orders come from the home of a page, which we know from having
 * asked it; whoever else sends one would make us map or punch what is not his.
 */
static bool from_home(const struct shard *s, const struct sspace *sp,
                      node_id from, gpn_t page)
{
	return from == s->node->id ||
	       sp->space->place.extent[extent_of(page)].home == from + 1u;
}

/*
 * The last page that the message names.  It lies in the extent of the first: so
 * all of them are of this shard, and of one userfaultfd in each client.
 */
static gpn_t last_page(const struct msg *m)
{
	uint64_t all = m->mask;

	if (msg_has_refused(m->type))
		all |= m->arg;
	return all == 0 ? m->page :
	                  m->page + 63 - (unsigned)__builtin_clzll(all);
}

/* A grant.  Home may wait to hear that a read has been applied. */
static int granted(struct shard *s, node_id from, uint8_t lane,
                   struct sspace *sp, const struct msg *m,
                   const uint8_t *const *page, bool net)
{
	int r = holder_grant(s, sp, m, page, net);

	if (r < 0 || (m->flags & MSG_F_MORE) == 0)
		return r;
	if (from == s->node->id)
		home_applied(s, sp, m->page, from);
	else
		tp_ack_soon(s->tp, from, lane);
	return 0;
}

static int dispatch(struct shard *s, node_id from, uint8_t lane,
                    const struct msg *m, const uint8_t *const *page, bool net)
{
	struct sspace *sp = shard_space(s, m->space);

	if (sp == NULL)
		return stranger(s, from, lane, m);
	if (last_page(m) >= sp->space->cut.pages ||
	    extent_of(last_page(m)) != extent_of(m->page) ||
	    cut_shard(cut_stripe_of_page(&sp->space->cut, m->page),
	              s->node->cfg.shards) != s->index)
		return -EPROTO;
	switch (msg_class(m->type)) {
	case MSG_CLASS_REQUEST:
		if (m->type == MSG_STORE)
			return store_request(s, from, lane, m);
		return home_request(s, from, lane, m, net);
	case MSG_CLASS_ANSWER:
		if (m->type == MSG_MOVED || m->type == MSG_AGAIN)
			return on_void(s, sp, m);
		if (m->type == MSG_STORED)
			return leave_stored(s, from, sp, m);
		if (!from_home(s, sp, from, m->page))
			return -EPROTO;
		if (m->type == MSG_DISCARDED)
			return holder_discarded(s, sp, m);
		if (m->type == MSG_DROP)
			return leave_answer(s, sp, m);
		return granted(s, from, lane, sp, m, page, net);
	case MSG_CLASS_RECALL:
		if (!from_home(s, sp, from, m->page))
			return -EPROTO;
		return holder_recall(s, from, m, false);
	case MSG_CLASS_ACK:
		return home_answer(s, from, m, page, net);
	case MSG_CLASS_FREE:
		if (m->arg > s->n_frames || s->frozen[m->arg].home != from ||
		    s->frozen[m->arg].space != m->space)
			return -EPROTO;
		holder_forget(s, m->arg);
		return 0;
	case MSG_CLASS_NONE:
	case MSG_CLASS_CONTROL:
		return 0;
	}
	return -EPROTO;
}

void peer_drain(struct shard *s)
{
	if (s->draining)
		return; /* whoever drains goes on with what was added */
	s->draining = true;
	for (;;) {
		struct local_msg_entry e;
		int r;

		if (s->local_n == 0) {
			home_flush(s);
			if (s->local_n == 0)
				break;
		}
		e = s->local[s->local_first];
		s->local_n--;
		/* Begin anew where it was begun before: the ring is megabytes,
		 * of which a few entries are ever in use. */
		s->local_first =
			s->local_n == 0 ? 0 : (s->local_first + 1) % LOCALS_MAX;
		r = dispatch(s, s->node->id, s->index, &e.m,
		             e.page[0] == NULL ? NULL : e.page, e.net);
		assert(r == 0); /* we keep our own rules */
	}
	s->draining = false;
}

/* --- promises: passed on between the link thread and its like ---------- */

static void promise_deliver(struct mail *mail, void *arg)
{
	struct promise_letter *p =
		container_of(mail, struct promise_letter, mail);

	(void)arg;
	link_promise(p->node->link, p);
}

static void promise_came(struct shard *s, node_id peer, const struct msg *m)
{
	struct promise_letter *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return; /* the asker asks again */
	*p = (struct promise_letter){ .mail.deliver = promise_deliver,
		                      .node = s->node,
		                      .peer = peer,
		                      .reply = (m->flags & MSG_F_REPLY) != 0,
		                      .epoch = m->epoch,
		                      .round = m->arg };
	mbox_post(s->node->link_loop, &p->mail);
}

static void promise_leave(struct mail *mail, void *arg)
{
	struct promise_letter *p =
		container_of(mail, struct promise_letter, mail);
	struct shard *s = arg;
	struct msg m = { .type = MSG_PROMISE,
		         .flags = p->reply ? MSG_F_REPLY : 0,
		         .epoch = s->epoch,
		         .arg = p->round };

	(void)tp_send(s->tp, p->peer, 0, &m, NULL, 0, 0, NULL);
	free(p);
}

void shard_promise(struct shard *s, struct promise_letter *p)
{
	p->mail.deliver = promise_leave;
	mbox_post(s->loop, &p->mail);
}

static int on_message(void *arg, node_id peer, uint8_t shard,
                      const struct msg *m, const void *payload)
{
	struct shard *s = arg;
	const uint8_t *page[RUN_PAGES];
	const uint8_t *at = payload;
	unsigned n = msg_payload_pages(m);
	int r;

	if (m->type == MSG_PROMISE) {
		promise_came(s, peer, m);
		return 0;
	}
	shard_gate(s);
	shard_now_us(s);
	for (unsigned i = 0; i < n; i++)
		page[i] = at + (size_t)i * PAGE_BYTES;
	r = dispatch(s, peer, shard, m, n > 0 ? page : NULL, true);
	peer_drain(s);
	return r;
}

static void on_acked(void *arg, node_id peer, uint8_t shard, uint64_t seq)
{
	struct shard *s = arg;
	struct speer *p = peer_lane_of(s, peer, shard);

	if (p == NULL)
		return;
	shard_gate(s);
	shard_now_us(s);
	unacked_acked(s, p, peer, seq);
}

static void on_ready(void *arg, node_id peer, uint8_t shard)
{
	struct shard *s = arg;
	struct speer *p = peer_lane_of(s, peer, shard);

	if (p == NULL)
		return;
	backlog_send(s, peer, p);
	unacked_ready(s, p);
	unpark_all(s, &p->credit);
	for (struct sspace *sp = s->spaces; sp != NULL; sp = sp->next)
		if (sp->discards != NULL)
			job_discard(s, sp);
	peer_drain(s);
}

static void mark_connected(struct shard *s, node_id peer)
{
	const struct smember *m = &s->member[peer];
	bool all = m->lane != NULL;

	for (uint8_t i = 0; all && i < m->shards; i++)
		all = tp_connected(s->tp, peer, i);
	if (all)
		atomic_fetch_or_explicit(&s->counters->connected[peer / 64],
		                         1ull << (peer % 64),
		                         memory_order_relaxed);
	else
		atomic_fetch_and_explicit(&s->counters->connected[peer / 64],
		                          ~(1ull << (peer % 64)),
		                          memory_order_relaxed);
}

static void on_up(void *arg, node_id peer, uint8_t shard)
{
	(void)shard;
	mark_connected(arg, peer);
}

static void on_down(void *arg, node_id peer, uint8_t shard, int why)
{
	(void)shard;
	(void)why;
	mark_connected(arg, peer);
}

static void on_broken(void *arg, node_id peer, uint8_t shard, int why,
                      const char *text)
{
	struct shard *s = arg;
	struct speer *p = peer_lane_of(s, peer, shard);
	struct breach_letter *b;
	char ends[160];

	if (p != NULL)
		p->over = true;
	mark_connected(s, peer);
	/*
	 * Whoever is told that he broke a rule is of no use to that peer any
	 * more, and his faults there would wait without end: this life is over
	 * [B5], and whoever starts the node again gives it another.
	 */
	if (why == -ECONNREFUSED) {
		snprintf(ends, sizeof(ends),
		         "node %u has ended its session with this node for "
		         "good: %s; start this node again",
		         peer, text);
		control_end(s->node->control, 1, ends);
		return;
	}
	log_err("a peer broke the protocol, its session is over",
	        "peer=%u lane=%u errno=%d why=\"%s\"", peer, shard, -why, text);
	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return;
	b->node = s->node;
	b->peer = peer;
	snprintf(b->text, sizeof(b->text), "%s", text);
	link_breach(s->node->link, b);
}

static void on_foreign(void *arg, int fd, const struct hello *h)
{
	struct shard *s = arg;

	if (h->to_shard < s->node->cfg.shards)
		shard_adopt(s->node->shard[h->to_shard], fd, h);
	else
		close(fd);
}

static const struct tp_handlers handlers = {
	.up = on_up,
	.down = on_down,
	.message = on_message,
	.acked = on_acked,
	.ready = on_ready,
	.broken = on_broken,
	.foreign = on_foreign,
};

const struct tp_handlers *peer_handlers(void)
{
	return &handlers;
}

/* --- membership -------------------------------------------------------- */

static void lane_done(struct speer *p)
{
	free(p->backlog);
	free(p->store);
	unacked_lane_done(p);
}

void peer_free(struct shard *s)
{
	for (uint32_t i = 0; s->member != NULL && i < NODES_MAX; i++) {
		struct speer *lane = s->member[i].lane;

		for (uint8_t k = 0; lane != NULL && k < s->member[i].shards;
		     k++)
			lane_done(&lane[k]);
		free(lane);
	}
	free(s->member);
	free(s->forget);
	free(s->local);
}

/*
 * What the buffers of the lanes to a peer may come to: those lanes on which a
 * stripe of both lies [C4].
 */
static int64_t lanes_bytes(const struct shard *s, uint8_t theirs)
{
	unsigned a = s->node->cfg.shards, b = theirs, lanes = 0;

	while (b != 0) { /* a: the greatest common divisor */
		unsigned rest = a % b;

		a = b;
		b = rest;
	}
	for (unsigned i = 0; i < theirs; i++)
		lanes += i % a == s->index % a;
	return (int64_t)lanes * (int64_t)TP_SESSION_BYTES;
}

/* The peer's incarnation is over. */
static void member_gone(struct shard *s, node_id id)
{
	struct smember *m = &s->member[id];
	struct speer *lane = m->lane;

	if (lane == NULL)
		return;
	for (uint8_t i = 0; i < m->shards; i++)
		tp_forget(s->tp, id, i);
	m->lane = NULL;
	s->n_peers--;
	memory_fix(&s->node->memory, -lanes_bytes(s, m->shards));
	mark_connected(s, id);
	unacked_gone(s, id);
	home_gone(s, id);
	holder_unreachable(s, id);
	leave_peer_gone(s, id);
	for (uint8_t i = 0; i < m->shards; i++) {
		unacked_lane_gone(s, &lane[i]);
		lane_done(&lane[i]);
		/* Their home is dead now: touching them again says so. */
		unpark_all(s, &lane[i].credit);
	}
	free(lane);
	peer_drain(s);
}

/* Room for the orders of every lane that there is, and of `lanes` more. */
static bool defers_grow(struct shard *s, uint32_t lanes)
{
	struct defer *more;
	uint32_t max;

	for (uint32_t i = 0; i < NODES_MAX; i++)
		if (s->member[i].lane != NULL)
			lanes += s->member[i].shards;
	max = TXNS_MAX + lanes * TP_RECALL_CREDITS;
	if (max <= s->defers_max)
		return true;
	more = reallocarray(s->defer, max, sizeof(*more));
	if (more == NULL)
		return false;
	s->defer = more;
	s->defers_max = max;
	return true;
}

static void member_comes(struct shard *s, const struct member *v)
{
	struct smember *m = &s->member[v->id];
	struct speer *lane = calloc(v->shards, sizeof(*lane));
	bool ok = lane != NULL && defers_grow(s, v->shards);

	for (uint8_t i = 0; ok && i < v->shards; i++) {
		struct tp_peer_config cfg = { .node = v->id,
			                      .incarnation = v->incarnation,
			                      .shard = i };

		lane[i].shard = i;
		lane[i].backlog = calloc(TXNS_MAX, sizeof(struct backlog));
		snprintf(cfg.endpoint, sizeof(cfg.endpoint), "%s", v->endpoint);
		lane[i].store = calloc(STORES_MAX, sizeof(*lane[i].store));
		ok = lane[i].backlog != NULL && lane[i].store != NULL &&
		     unacked_lane(&lane[i]) == 0 && tp_peer(s->tp, &cfg) == 0;
	}
	if (!ok) {
		/* Faults on its pages wait until the next membership. */
		log_err("cannot take up a member: no memory, or a bad endpoint",
		        "node=%u endpoint=\"%s\"", v->id, v->endpoint);
		for (uint8_t i = 0; lane != NULL && i < v->shards; i++)
			lane_done(&lane[i]);
		free(lane);
		return;
	}
	m->shards = v->shards;
	m->incarnation = v->incarnation;
	m->lane = lane;
	s->n_peers++;
	memory_fix(&s->node->memory, lanes_bytes(s, v->shards));
	if (memory_budget(&s->node->memory) < s->node->memory.limit_pages / 4)
		log_warn("buffers for peers take most of --memory, little is "
		         "left for pages: raise it, or use fewer --shards",
		         "node=%u left_bytes=%llu", v->id,
		         (unsigned long long)memory_budget(&s->node->memory) *
		                 PAGE_BYTES);
}

void peer_members(struct shard *s, const struct members_letter *l)
{
	if (l->epoch < s->epoch)
		return;
	s->epoch = l->epoch;
	tp_set_epoch(s->tp, l->epoch);
	for (uint32_t i = 0; i < l->n; i++) {
		const struct member *v = &l->v[i];
		struct smember *m = &s->member[v->id];
		bool over =
			v->state == MEMBER_DEAD || v->state == MEMBER_DRAINED;

		m->state = v->state;
		if (v->id >= s->n_members)
			s->n_members = (node_id)(v->id + 1);
		if (v->id == s->node->id)
			continue;
		if (m->lane != NULL &&
		    (over || m->incarnation != v->incarnation))
			member_gone(s, v->id);
		if (m->lane == NULL && !over && v->shards > 0 &&
		    v->state != MEMBER_JOINING)
			member_comes(s, v);
	}
	unpark_all(s, &s->later);
	peer_drain(s);
	atomic_store_explicit(&s->counters->overhead_bytes,
	                      tp_overhead_bytes(s->tp), memory_order_relaxed);
}
