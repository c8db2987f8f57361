/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network
 * ===========
 *
 * A session end keeps what it sent until it is acknowledged (`kept`), and a
 * queue of what is on the wire (`wire`): when it arrives at the other end, what
 * it acknowledges, and which message it is, if any.  Arrivals of one wire are
 * in order, each a random time after it was sent; nothing else is certain.
 *
 * When the connection breaks the wire is emptied.  When it is up again both
 * ends learn what the other has applied, forget that, and put the rest on the
 * wire anew.
 *
 * Credits are counted by net/credit.c, like those of every transport.
 */

#include <errno.h>
#include <string.h>

#include "base/prng.h"
#include "net/credit.h"
#include "sim_net.h"

struct kept { /* a message, from tp_send() until it is acknowledged */
	struct kept *next;
	struct msg m;
	uint8_t payload[];
};

struct flight { /* on the wire */
	struct flight *next;
	nsec_t arrives;
	uint64_t ack;
	struct kept *message; /* NULL: only the acknowledgement */
};

struct session { /* one end */
	struct transport *tp;
	node_id peer;
	uint64_t incarnation; /* the peer's */
	bool ended, up, dirty, was_up;
	struct credit credit;
	uint64_t seq;     /* of the last message sent */
	uint64_t applied; /* of the peer's messages */
	uint64_t told;    /* the last acknowledgement sent */
	struct kept *kept, **kept_end;
	struct kept *unsent; /* the first that is not on the wire */
	struct flight *wire, **wire_end;
	nsec_t wire_until; /* the last arrival */
	struct loop_timer arrive, ack, dial, refused;
	struct session *next_dirty;
};

struct transport {
	struct sim_net *net;
	struct tp_config cfg;
	struct tp_handlers on;
	void *arg;
	uint32_t epoch;
	struct session *peer[NODES_MAX];
	struct tp_counters counters;
};

struct sim_net {
	struct loop *loop;
	struct loop_timer flush; /* ends the turn in which something was sent */
	struct prng random;
	nsec_t least, most;
	struct transport *tp[NODES_MAX]; /* the newest of each node */
	uint32_t slow[NODES_MAX];
	nsec_t pause[NODES_MAX];
	uint8_t (*pair)[NODES_MAX]; /* lower id first: HELD, APART */
	struct session *dirty;
	uint64_t messages;
};

enum { HELD = 1, APART = 2 };

static nsec_t now(const struct sim_net *net)
{
	return loop_now(net->loop);
}

static uint8_t *pair_of(struct sim_net *net, node_id a, node_id b)
{
	return a < b ? &net->pair[a][b] : &net->pair[b][a];
}

static nsec_t delay(struct sim_net *net, node_id a, node_id b)
{
	nsec_t d = net->least;

	if (net->most > net->least)
		d += prng_below(&net->random, net->most - net->least);
	return d * max_u64(max_u64(net->slow[a], net->slow[b]), 1);
}

/* The other end, if both mean one another's present incarnation. */
static struct session *other(const struct session *s)
{
	struct transport *tp = s->tp->net->tp[s->peer];
	struct session *o = tp == NULL ? NULL : tp->peer[s->tp->cfg.self];

	if (o == NULL || o->ended || tp->cfg.incarnation != s->incarnation ||
	    o->incarnation != s->tp->cfg.incarnation)
		return NULL;
	return o;
}

/* --- what a session keeps ------------------------------------------------- */

static void wire_clear(struct session *s)
{
	while (s->wire != NULL) {
		struct flight *f = s->wire;

		s->wire = f->next;
		free(f);
	}
	s->wire_end = &s->wire;
	s->wire_until = 0;
	timer_stop(s->tp->net->loop, &s->arrive);
}

static void session_clear(struct session *s)
{
	struct loop *loop = s->tp->net->loop;

	wire_clear(s);
	while (s->kept != NULL) {
		struct kept *k = s->kept;

		s->kept = k->next;
		free(k);
	}
	s->kept_end = &s->kept;
	s->unsent = NULL;
	s->up = false;
	timer_stop(loop, &s->ack);
	timer_stop(loop, &s->dial);
	timer_stop(loop, &s->refused);
}

static void dirty(struct session *s)
{
	struct sim_net *net = s->tp->net;

	if (s->dirty)
		return;
	if (net->dirty == NULL)
		timer_start(net->loop, &net->flush, now(net));
	s->dirty = true;
	s->next_dirty = net->dirty;
	net->dirty = s;
}

static void undirty(struct session *s)
{
	struct session **at = &s->tp->net->dirty;

	if (!s->dirty)
		return;
	while (*at != s)
		at = &(*at)->next_dirty;
	*at = s->next_dirty;
	s->dirty = false;
}

static void session_free(struct session *s)
{
	if (s == NULL)
		return;
	undirty(s);
	session_clear(s);
	free(s);
}

/* The peer has applied everything up to `ack`.  True if that is news. */
static bool take_ack(struct session *s, uint64_t ack)
{
	bool news = false;

	while (s->kept != NULL && s->kept->m.seq <= ack) {
		struct kept *k = s->kept;

		if (s->unsent == k)
			s->unsent = k->next;
		credit_acked(&s->credit, &k->m);
		s->kept = k->next;
		if (s->kept == NULL)
			s->kept_end = &s->kept;
		free(k);
		news = true;
	}
	return news;
}

/* --- the wire ------------------------------------------------------------- */

static void arm(struct session *s)
{
	if (s->wire != NULL)
		timer_start(s->tp->net->loop, &s->arrive, s->wire->arrives);
}

static void fly(struct session *s, struct kept *k, nsec_t arrives)
{
	struct flight *f = calloc(1, sizeof(*f));

	assert(f != NULL);
	f->arrives = arrives;
	f->ack = s->applied;
	f->message = k;
	*s->wire_end = f;
	s->wire_end = &f->next;
}

/* One send: what was gathered travels and arrives together. */
static void send(struct session *s)
{
	struct sim_net *net = s->tp->net;
	bool first = s->wire == NULL;

	s->wire_until = max_u64(now(net) + delay(net, s->tp->cfg.self, s->peer),
	                        s->wire_until);
	if (s->unsent == NULL)
		fly(s, NULL, s->wire_until);
	for (; s->unsent != NULL; s->unsent = s->unsent->next)
		fly(s, s->unsent, s->wire_until);
	s->told = s->applied;
	s->tp->counters.sends++;
	timer_stop(net->loop, &s->ack);
	if (first)
		arm(s);
}

static void flush(struct loop_timer *t)
{
	struct sim_net *net = container_of(t, struct sim_net, flush);

	while (net->dirty != NULL) {
		struct session *s = net->dirty;

		net->dirty = s->next_dirty;
		s->dirty = false;
		if (s->up && s->unsent != NULL)
			send(s);
	}
}

/* The connection breaks. */
static void disconnect(struct session *s, int why)
{
	if (!s->up)
		return;
	s->up = false;
	wire_clear(s);
	timer_stop(s->tp->net->loop, &s->ack);
	s->unsent = s->kept;
	if (s->tp->cfg.self > s->peer)
		timer_start(s->tp->net->loop, &s->dial,
		            now(s->tp->net) + s->tp->cfg.redial);
	s->tp->on.down(s->tp->arg, s->peer, 0, why);
}

static void break_rule(struct session *s)
{
	struct session *o = other(s);

	s->ended = true;
	session_clear(s);
	if (o != NULL) {
		wire_clear(o);
		timer_start(s->tp->net->loop, &o->refused,
		            now(s->tp->net) + delay(s->tp->net, s->peer,
		                                    s->tp->cfg.self));
	}
	s->tp->on.broken(s->tp->arg, s->peer, 0, -EPROTO,
	                 "a message that no correct peer sends");
}

static void refused(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, refused);

	s->ended = true;
	session_clear(s);
	s->tp->on.broken(s->tp->arg, s->peer, 0, -ECONNREFUSED,
	                 "the peer says that we broke a rule");
}

/* Is this still what tp->peer[] has?  A handler may have forgotten it. */
static bool alive(const struct transport *tp, node_id peer,
                  const struct session *s)
{
	return tp->peer[peer] == s && !s->ended;
}

static void ready(struct session *s)
{
	struct transport *tp = s->tp;

	if (credit_back(&s->credit) && tp->on.ready != NULL)
		tp->on.ready(tp->arg, s->peer, 0);
}

/* `o` takes a message off the wire; it is freed when it is acknowledged. */
static void apply(struct session *o, struct kept *k)
{
	struct transport *tp = o->tp;
	struct msg m = k->m;
	node_id peer = o->peer;
	uint8_t none = 0;
	int r;

	assert(m.seq == o->applied + 1);
	if (credit_arrived(&o->credit, &m) < 0) {
		break_rule(o);
		return;
	}
	tp->net->messages++;
	tp->counters.msgs_in++;
	tp->counters.bytes_in += WIRE_HDR_BYTES + m.payload_bytes;
	r = tp->on.message(tp->arg, peer, 0, &m,
	                   m.payload_bytes > 0 ? k->payload : &none);
	if (!alive(tp, peer, o))
		return;
	if (r < 0) {
		break_rule(o);
		return;
	}
	o->applied = m.seq;
	credit_applied(&o->credit, &m);
	if (o->ack.index == 0 && o->unsent == NULL)
		timer_start(tp->net->loop, &o->ack,
		            now(tp->net) + tp->cfg.ack_delay);
}

/* The other end takes the first on the wire. */
static void arrive_one(struct session *s, struct session *o)
{
	struct transport *to = o->tp;
	struct flight *f = s->wire;
	struct kept *k = f->message;
	uint64_t ack = f->ack;
	node_id peer = o->peer;

	s->wire = f->next;
	if (s->wire == NULL)
		s->wire_end = &s->wire;
	free(f);
	if (take_ack(o, ack) && to->on.acked != NULL)
		to->on.acked(to->arg, peer, 0, ack);
	if (k != NULL && alive(to, peer, o))
		apply(o, k);
	if (alive(to, peer, o))
		ready(o);
}

static void arrive(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, arrive);
	struct transport *tp = s->tp;
	struct sim_net *net = tp->net;
	node_id peer = s->peer;

	if (net->pause[peer] > now(net)) {
		timer_start(net->loop, &s->arrive, net->pause[peer]);
		return;
	}
	if ((*pair_of(net, tp->cfg.self, peer) & HELD) != 0)
		return; /* sim_net_hold() goes on */
	while (alive(tp, peer, s) && s->wire != NULL &&
	       s->wire->arrives <= now(net)) {
		struct session *o = other(s);

		if (o == NULL || !o->up) {
			wire_clear(s); /* the other end is gone */
			return;
		}
		arrive_one(s, o);
	}
	if (alive(tp, peer, s))
		arm(s);
}

static void bare_ack(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, ack);

	if (s->up && s->told < s->applied)
		send(s);
}

static void connect_end(struct session *s, const struct session *o)
{
	s->up = true;
	s->wire_until = 0;
	s->told = s->applied;
	s->tp->counters.reconnects += s->was_up;
	s->was_up = true;
	if (take_ack(s, o->applied) && s->tp->on.acked != NULL)
		s->tp->on.acked(s->tp->arg, s->peer, 0, o->applied);
	s->unsent = s->kept;
	dirty(s);
}

static void dial(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, dial);
	struct sim_net *net = s->tp->net;
	struct session *o = other(s);
	nsec_t pause =
		max_u64(net->pause[s->peer], net->pause[s->tp->cfg.self]);

	if (o == NULL || pause > now(net) ||
	    *pair_of(net, s->tp->cfg.self, s->peer) != 0) {
		timer_start(net->loop, &s->dial,
		            max_u64(now(net) + s->tp->cfg.redial, pause));
		return;
	}
	connect_end(s, o);
	connect_end(o, s);
	s->tp->on.up(s->tp->arg, s->peer, 0);
	o = other(s);
	if (o != NULL && o->up)
		o->tp->on.up(o->tp->arg, o->peer, 0);
	if (s->up)
		ready(s);
	if (o != NULL && o->up)
		ready(o);
}

/* --- transport.h ---------------------------------------------------------- */

int tp_new(struct loop *loop, const struct tp_config *cfg,
           const struct tp_handlers *handlers, void *arg,
           struct transport **ret, struct errmsg *em)
{
	struct transport *tp = calloc(1, sizeof(*tp));

	if (tp == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for a transport");
	tp->net = sim_clock_net(loop);
	tp->cfg = *cfg;
	tp->on = *handlers;
	tp->arg = arg;
	tp->net->tp[cfg->self] = tp;
	*ret = tp;
	return 0;
}

struct transport *tp_free(struct transport *tp)
{
	if (tp == NULL)
		return NULL;
	for (unsigned i = 0; i < NODES_MAX; i++)
		session_free(tp->peer[i]);
	if (tp->net->tp[tp->cfg.self] == tp)
		tp->net->tp[tp->cfg.self] = NULL;
	free(tp);
	return NULL;
}

int tp_peer(struct transport *tp, const struct tp_peer_config *cfg)
{
	struct session *s = tp->peer[cfg->node];

	if (cfg->node >= NODES_MAX || cfg->node == tp->cfg.self)
		return -EINVAL;
	if (s != NULL && s->incarnation >= cfg->incarnation)
		return -EEXIST;
	session_free(s);
	tp->peer[cfg->node] = NULL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	s->tp = tp;
	s->peer = cfg->node;
	s->incarnation = cfg->incarnation;
	s->kept_end = &s->kept;
	s->wire_end = &s->wire;
	s->arrive.due = arrive;
	s->ack.due = bare_ack;
	s->dial.due = dial;
	s->refused.due = refused;
	tp->peer[cfg->node] = s;
	if (tp->cfg.self > cfg->node)
		timer_start(tp->net->loop, &s->dial,
		            now(tp->net) +
		                    2 * delay(tp->net, tp->cfg.self, s->peer));
	return 0;
}

static struct session *session_of(const struct transport *tp, node_id peer,
                                  uint8_t shard)
{
	struct session *s = peer < NODES_MAX ? tp->peer[peer] : NULL;

	return s == NULL || s->ended || shard != 0 ? NULL : s;
}

void tp_forget(struct transport *tp, node_id peer, uint8_t shard)
{
	struct session *s = session_of(tp, peer, shard);
	struct session *o = s == NULL ? NULL : other(s);

	if (s == NULL)
		return;
	tp->peer[peer] = NULL;
	session_free(s);
	if (o != NULL)
		disconnect(o, -ECONNRESET);
}

bool tp_connected(const struct transport *tp, node_id peer, uint8_t shard)
{
	const struct session *s = session_of(tp, peer, shard);

	return s != NULL && s->up;
}

enum tp_sent tp_send(struct transport *tp, node_id peer, uint8_t shard,
                     const struct msg *m, const struct iovec *iov, int n_iov,
                     unsigned flags, uint64_t *ret_seq)
{
	struct session *s = session_of(tp, peer, shard);
	enum tp_sent sent;
	struct kept *k;
	size_t at = 0;

	(void)flags;
	if (s == NULL)
		return TP_DOWN;
	sent = credit_send(&s->credit, m);
	if (sent != TP_QUEUED)
		return sent;
	k = malloc(sizeof(*k) + m->payload_bytes);
	assert(k != NULL);
	k->next = NULL;
	k->m = *m;
	k->m.epoch = tp->epoch;
	k->m.seq = ++s->seq;
	for (int i = 0; i < n_iov; at += iov[i++].iov_len)
		memcpy(k->payload + at, iov[i].iov_base, iov[i].iov_len);
	assert(at == m->payload_bytes);
	*s->kept_end = k;
	s->kept_end = &k->next;
	if (s->unsent == NULL)
		s->unsent = k;
	dirty(s);
	tp->counters.msgs_out++;
	tp->counters.bytes_out += WIRE_HDR_BYTES + m->payload_bytes;
	if (ret_seq != NULL)
		*ret_seq = k->m.seq;
	return TP_QUEUED;
}

unsigned tp_page_credits(struct transport *tp, node_id peer, uint8_t shard)
{
	struct session *s = session_of(tp, peer, shard);

	return s == NULL ? 0 : credit_pages(&s->credit);
}

void tp_ack_soon(struct transport *tp, node_id peer, uint8_t shard)
{
	struct session *s = session_of(tp, peer, shard);

	if (s != NULL)
		dirty(s);
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

	for (unsigned i = 0; i < NODES_MAX; i++)
		bytes += tp->peer[i] != NULL ? sizeof(struct session) : 0;
	return bytes;
}

/* --- sim_net.h ------------------------------------------------------------ */

struct sim_net *sim_net_new(struct loop *loop)
{
	struct sim_net *net = calloc(1, sizeof(*net));

	assert(net != NULL);
	net->pair = calloc(NODES_MAX, sizeof(*net->pair));
	assert(net->pair != NULL);
	net->loop = loop;
	sim_net_seed(net, 1);
	net->least = 10 * NSEC_PER_USEC;
	net->most = 20 * NSEC_PER_USEC;
	net->flush.due = flush;
	return net;
}

void sim_net_free(struct sim_net *net)
{
	if (net == NULL)
		return;
	free(net->pair);
	free(net);
}

void sim_net_seed(struct sim_net *net, uint64_t seed)
{
	prng_init(&net->random, seed);
}

void sim_net_delay(struct sim_net *net, nsec_t least, nsec_t most)
{
	net->least = least;
	net->most = most;
}

void sim_net_slow(struct sim_net *net, node_id node, uint32_t n)
{
	net->slow[node] = n;
}

static struct session *end_of(struct sim_net *net, node_id a, node_id b)
{
	return net->tp[a] == NULL ? NULL : net->tp[a]->peer[b];
}

void sim_net_cut(struct sim_net *net, node_id a, node_id b)
{
	struct session *s = end_of(net, a, b);
	struct session *o = end_of(net, b, a);

	if (s != NULL)
		disconnect(s, -ECONNRESET);
	if (o != NULL)
		disconnect(o, -ECONNRESET);
}

void sim_net_hold(struct sim_net *net, node_id a, node_id b, bool on)
{
	struct session *s = end_of(net, a, b);
	struct session *o = end_of(net, b, a);
	uint8_t *p = pair_of(net, a, b);

	*p = (uint8_t)(on ? *p | HELD : *p & ~HELD);
	if (!on && s != NULL)
		arm(s);
	if (!on && o != NULL)
		arm(o);
}

void sim_net_part(struct sim_net *net, node_id a, node_id b, bool on)
{
	uint8_t *p = pair_of(net, a, b);

	*p = (uint8_t)(on ? *p | APART : *p & ~APART);
	if (on)
		sim_net_cut(net, a, b);
}

void sim_net_heal(struct sim_net *net)
{
	for (node_id a = 0; a < NODES_MAX; a++) {
		net->pause[a] = 0;
		for (node_id b = (node_id)(a + 1); b < NODES_MAX; b++) {
			if (net->pair[a][b] == 0)
				continue;
			sim_net_part(net, a, b, false);
			sim_net_hold(net, a, b, false);
		}
	}
}

void sim_net_pause(struct sim_net *net, node_id node, nsec_t until)
{
	net->pause[node] = until;
}

uint64_t sim_net_messages(const struct sim_net *net)
{
	return net->messages;
}
