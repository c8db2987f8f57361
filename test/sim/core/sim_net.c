/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The net: a session in each direction between any two nodes.
 *
 * A session delivers each message once and in order, for that is what
 * net/transport.h promises: broken connections are resumed.  So what goes wrong
 * here is time: jitter, slow links, links that are cut and heal (the messages
 * wait).  Sessions overtake one another freely.
 */
#include <stdio.h>

#include "sim.h"

const char *const kind_name[] = {
	[M_GET_S] = "GET_S",
	[M_GET_X] = "GET_X",
	[M_DISCARD] = "DISCARD",
	[M_GRANT_S] = "GRANT_S",
	[M_GRANT_X] = "GRANT_X",
	[M_GRANT_ZERO] = "GRANT_ZERO",
	[M_UPGRADE] = "UPGRADE",
	[M_GRANT_LOST] = "GRANT_LOST",
	[M_DISCARDED] = "DISCARDED",
	[M_MOVED] = "MOVED",
	[M_AGAIN] = "AGAIN",
	[M_RECALL_S] = "RECALL_S",
	[M_RECALL_X] = "RECALL_X",
	[M_INVAL] = "INVAL",
	[M_ACK] = "ACK",
	[M_ACK_DATA] = "ACK_DATA",
	[M_NOT_HELD] = "NOT_HELD",
	[M_FORGET] = "FORGET",
	[M_EVICT] = "EVICT",
	[M_DROP] = "DROP",
	[M_STORE] = "STORE",
	[M_STORED] = "STORED",
	[M_APPLIED] = "APPLIED",
};

void queue_put(struct queue *q, const struct message *m)
{
	struct message *c = sim_alloc(1, sizeof(*c));

	*c = *m;
	c->next = NULL;
	if (q->tail != NULL)
		q->tail->next = c;
	else
		q->head = c;
	q->tail = c;
}

bool queue_take(struct queue *q, struct message *ret)
{
	struct message *m = q->head;

	if (m == NULL)
		return false;
	q->head = m->next;
	if (q->head == NULL)
		q->tail = NULL;
	*ret = *m;
	free(m);
	return true;
}

void queue_free(struct queue *q)
{
	struct message m;

	while (queue_take(q, &m))
		continue;
}

struct session *net_session(struct sim *s, node_id from, node_id to)
{
	return &s->net.session[(size_t)from * s->nodes + to];
}

void net_init(struct sim *s)
{
	struct net *n = &s->net;

	n->session =
		sim_alloc((size_t)s->nodes * s->nodes, sizeof(n->session[0]));
	n->base_ns = (5 + sim_below(s, 100)) * NSEC_PER_USEC;
	n->jitter_ns = 1 + sim_below(s, 2 * n->base_ns);
	if (s->opt.delay_us != 0) {
		n->base_ns = s->opt.delay_us * NSEC_PER_USEC;
		n->jitter_ns = 1;
	}
}

void net_free(struct sim *s)
{
	for (size_t i = 0; i < (size_t)s->nodes * s->nodes; i++)
		queue_free(&s->net.session[i].q);
	free(s->net.session);
}

/* When something sent now arrives: behind what was sent before. */
static nsec_t arrival(struct sim *s, struct session *x, nsec_t last)
{
	nsec_t at = s->now + s->net.base_ns + sim_below(s, s->net.jitter_ns);

	if (x->slow_ns > 0)
		at += x->slow_ns + sim_below(s, x->slow_ns);
	return max_u64(max_u64(at, x->cut_until), last);
}

bool net_send(struct node *from, node_id to, struct message *m, uint64_t *seq)
{
	struct sim *s = from->sim;
	struct session *x = net_session(s, from->id, to);

	if (!node_alive(from, to))
		return false;
	m->from = from->id;
	m->seq = ++x->sent;
	if (seq != NULL)
		*seq = m->seq;
	x->last = arrival(s, x, x->last);
	if (m->kind == M_GET_S || m->kind == M_GET_X)
		x->pages_open += (uint32_t)__builtin_popcountll(m->mask);
	queue_put(&x->q, m);
	clock_put(s, x->last - s->now,
	          (struct event){
			  .kind = EV_DELIVER, .node = to, .other = from->id });
	return true;
}

/* An answer gives back the credits of the pages that it names. */
static void credit_back(struct node *to, const struct message *m)
{
	struct session *x = net_session(to->sim, to->id, m->from);
	bool grant = m->kind == M_GRANT_S || m->kind == M_GRANT_X ||
	             m->kind == M_GRANT_ZERO;
	uint32_t n = (uint32_t)__builtin_popcountll(m->mask);

	if (!grant && m->kind != M_UPGRADE && m->kind != M_GRANT_LOST &&
	    m->kind != M_MOVED && m->kind != M_AGAIN)
		return;
	if (m->discard || m->more)
		return; /* its answer is still to come */
	if (grant)
		n += (uint32_t)__builtin_popcountll(m->arg);
	assert(x->pages_open >= n);
	x->pages_open -= n;
}

void net_deliver(struct node *to, node_id from)
{
	struct sim *s = to->sim;
	struct session *x = net_session(s, from, to->id);
	struct message m;

	if (to->member[from] == MEMBER_DEAD || x->q.head == NULL)
		return; /* the session was closed */
	if (to->member[from] == MEMBER_NOT_YET) {
		/* Nobody connects before the membership says who it is.  One
		 * event for each message, and the head goes first, so the
		 * order stays. */
		clock_put(s, 50 * NSEC_PER_USEC,
		          (struct event){ .kind = EV_DELIVER,
		                          .node = to->id,
		                          .other = from });
		return;
	}
	(void)queue_take(&x->q, &m);
	s->net.messages++;
	sim_trace(s, m.kind, (uint64_t)from << 16 | to->id, m.page,
	          m.mask ^ m.arg);
	if (s->opt.verbose)
		printf("%10.3f us  %u -> %u  %-10s page %llu mask %llx arg "
		       "%llx bytes %llx\n",
		       (double)s->now / 1000, from, to->id, kind_name[m.kind],
		       (unsigned long long)m.page, (unsigned long long)m.mask,
		       (unsigned long long)m.arg,
		       (unsigned long long)m.bytes[0]);
	credit_back(to, &m);
	node_dispatch(to, from, &m);
	node_drain(to);
	if ((m.kind == M_GRANT_X || (m.kind == M_GRANT_S && s->limited)) &&
	    !s->node[from]->dead) {
		/* Acknowledgements ride on other messages: any time. */
		x->ack_last = arrival(s, x, x->ack_last);
		clock_put(s, x->ack_last - s->now,
		          (struct event){ .kind = EV_ACKED,
		                          .node = from,
		                          .other = to->id,
		                          .arg = m.seq });
	}
}

void net_close(struct node *to, node_id from)
{
	queue_free(&net_session(to->sim, from, to->id)->q);
}

void net_cut(struct sim *s, node_id a, node_id b, nsec_t for_ns)
{
	struct session *x = net_session(s, a, b);

	x->cut_until = max_u64(x->cut_until, s->now + for_ns);
}
