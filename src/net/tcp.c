/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP transport: its table of sessions, and the end of a turn.
 *
 * tp_send() only marks a session dirty; the hook at the end of the turn flushes
 * each dirty session with one send().  A hook of somebody else that runs after
 * ours may still send: then `turn_over` is set, and a timer that is due at once
 * gives us another turn.
 */

#include "net/tcp.h"

#include <errno.h>
#include <string.h>

struct tcp_session *tcp_find(const struct transport *tp, node_id node,
                             uint8_t shard)
{
	struct tcp_session *s;

	if (node >= NODES_MAX)
		return NULL;
	s = tp->by_node[node];
	while (s && s->shard != shard)
		s = s->next_shard;
	return s;
}

/* --- the end of a turn --------------------------------------------------- */

void tcp_turn(struct transport *tp)
{
	tp->turn_over = false;
}

void tcp_mark_dirty(struct tcp_session *s)
{
	struct transport *tp = s->tp;

	if (s->dirty)
		return;
	if (tp->turn_over && !tp->dirty)
		timer_start(tp->loop, &tp->kick, loop_now(tp->loop));
	s->dirty = true;
	s->next_dirty = tp->dirty;
	tp->dirty = s;
}

/* The hook does the work: that this ran is all that was wanted. */
static void kick_due(struct loop_timer *t)
{
	tcp_turn(container_of(t, struct transport, kick));
}

static void session_free(struct tcp_session *s)
{
	struct tcp_session **at = &s->tp->owing;

	while (*at && *at != s)
		at = &(*at)->next_owing;
	if (*at)
		*at = s->next_owing;
	ring_done(&s->tx);
	ring_done(&s->rx);
	free(s);
}

static void turn_end(struct loop_hook *h)
{
	struct transport *tp = container_of(h, struct transport, hook);

	/*
	 * Flushing may find a connection broken and call down(), whose handler
	 * may send to others; each such round takes a connection away.
	 */
	while (tp->dirty) {
		struct tcp_session *s = tp->dirty;

		tp->dirty = s->next_dirty;
		s->dirty = false;
		tcp_flush(s);
	}
	while (tp->graves) {
		struct tcp_session *s = tp->graves;

		tp->graves = s->next_grave;
		session_free(s);
	}
	/* This was the end that the kick was to bring about. */
	timer_stop(tp->loop, &tp->kick);
	tp->turn_over = true;
}

/* --- sessions ------------------------------------------------------------ */

/* Take `s` out of all look-ups, for good. */
static void bury(struct tcp_session *s)
{
	struct transport *tp = s->tp;
	struct tcp_session **at;

	for (at = &tp->by_node[s->node]; *at != s; at = &(*at)->next_shard)
		assert(*at);
	*at = s->next_shard;
	for (at = &tp->sessions; *at != s; at = &(*at)->next)
		assert(*at);
	*at = s->next;

	tcp_close(s);
	s->over = -ESHUTDOWN;
	s->farewell = false;
	s->next_grave = tp->graves;
	tp->graves = s;
	/* The turn that frees it must come, even if nothing else happens. */
	timer_start(tp->loop, &tp->kick, loop_now(tp->loop));
}

static int session_new(struct transport *tp, const struct tp_peer_config *cfg,
                       struct tcp_session **ret)
{
	struct tcp_session *s = calloc(1, sizeof(*s));
	bool dials = tp->cfg.self > cfg->node;
	int r;

	if (!s)
		return -ENOMEM;
	s->tp = tp;
	s->node = cfg->node;
	s->shard = cfg->shard;
	s->incarnation = cfg->incarnation;
	s->dials = dials;
	s->io.fd = -1;
	s->next_seq = 1;
	r = dials ? address_parse(cfg->endpoint, &s->address) : 0;
	if (r == 0)
		r = ring_init(&s->tx, TCP_RING_BYTES);
	if (r == 0)
		r = ring_init(&s->rx, TCP_RX_BYTES);
	if (r < 0) {
		session_free(s);
		return r == -EINVAL ? r : -ENOMEM;
	}
	*ret = s;
	return 0;
}

int tp_peer(struct transport *tp, const struct tp_peer_config *cfg)
{
	struct tcp_session *old, *s;
	int r;

	if (cfg->node >= NODES_MAX || cfg->node == tp->cfg.self ||
	    cfg->shard >= SHARDS_MAX ||
	    strnlen(cfg->endpoint, sizeof(cfg->endpoint)) ==
	            sizeof(cfg->endpoint))
		return -EINVAL;
	old = tcp_find(tp, cfg->node, cfg->shard);
	if (old && cfg->incarnation <= old->incarnation)
		return -EEXIST;
	r = session_new(tp, cfg, &s);
	if (r < 0)
		return r;
	if (old)
		bury(old);

	s->next_shard = tp->by_node[s->node];
	tp->by_node[s->node] = s;
	s->next = tp->sessions;
	tp->sessions = s;
	if (s->dials)
		tcp_chores_by(tp, loop_now(tp->loop));
	return 0;
}

void tp_forget(struct transport *tp, node_id peer, uint8_t shard)
{
	struct tcp_session *s = tcp_find(tp, peer, shard);

	if (s)
		bury(s);
}

bool tp_connected(const struct transport *tp, node_id peer, uint8_t shard)
{
	const struct tcp_session *s = tcp_find(tp, peer, shard);

	return s && s->state == TCP_UP;
}

unsigned tp_page_credits(struct transport *tp, node_id peer, uint8_t shard)
{
	struct tcp_session *s = tcp_find(tp, peer, shard);

	return !s || s->over ? 0 : credit_pages(&s->credit);
}

void tp_ack_soon(struct transport *tp, node_id peer, uint8_t shard)
{
	struct tcp_session *s = tcp_find(tp, peer, shard);

	if (s == NULL || s->state != TCP_UP)
		return; /* the next hello says what was applied */
	s->ack_now = true;
	tcp_mark_dirty(s);
}

void tp_set_epoch(struct transport *tp, uint32_t epoch)
{
	tp->epoch = epoch;
}

void tp_counters(const struct transport *tp, struct tp_counters *ret)
{
	*ret = tp->counters;
}

uint64_t tp_overhead_bytes(const struct transport *tp)
{
	uint64_t bytes = sizeof(*tp);

	for (const struct tcp_session *s = tp->sessions; s; s = s->next)
		bytes += sizeof(*s) + s->tx.bytes + s->rx.bytes;
	return bytes;
}

/* --- life ---------------------------------------------------------------- */

int tp_new(struct loop *loop, const struct tp_config *cfg,
           const struct tp_handlers *handlers, void *arg,
           struct transport **ret, struct errmsg *em)
{
	struct transport *tp;
	int r;

	if (cfg->self >= NODES_MAX || cfg->shards > SHARDS_MAX ||
	    cfg->shard >= cfg->shards || cfg->silence_max == 0 ||
	    cfg->redial == 0)
		return errmsg_say(em, -EINVAL,
		                  "a transport needs a node id, a shard, and "
		                  "times that are not zero");
	tp = calloc(1, sizeof(*tp));
	if (!tp)
		return errmsg_set(em, -ENOMEM, "no memory for a transport");
	tp->loop = loop;
	tp->cfg = *cfg;
	tp->handlers = *handlers;
	tp->arg = arg;
	tp->listener.fd = -1;
	for (unsigned i = 0; i < TCP_GUESTS_MAX; i++)
		tp->guests[i].io.fd = -1;
	r = tcp_alarm_init(tp);
	if (r < 0) {
		free(tp);
		return errmsg_set(em, r, "cannot make a timer");
	}
	tp->kick.due = kick_due;
	tp->hook.turn_end = turn_end;
	tp->turn_over = true;
	loop_hook_add(loop, &tp->hook);
	*ret = tp;
	return 0;
}

struct transport *tp_free(struct transport *tp)
{
	if (!tp)
		return NULL;
	while (tp->sessions)
		bury(tp->sessions);
	while (tp->graves) {
		struct tcp_session *s = tp->graves;

		tp->graves = s->next_grave;
		session_free(s);
	}
	tcp_accept_done(tp);
	tcp_alarm_done(tp);
	timer_stop(tp->loop, &tp->kick);
	free(tp);
	return NULL;
}
