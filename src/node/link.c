/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link to the coordinator, and the lease: a thread of its own, which
 * touches no client's memory, so that no client can hold up the lease [B8].
 *
 * A renewal is asked for at every third of the lease and counts from the moment
 * the question was *sent*.  What the lease page says is thus never later than
 * what the coordinator grants.  While the link is down the thread dials again;
 * the coordinator tells everything anew after a HELLO.  Claims that were not
 * answered are kept and sent again: they are idempotent.
 */

#include "node/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/crc32c.h"
#include "base/log.h"

#define LINK_RX_BYTES (WIRE_HDR_BYTES + WIRE_PAYLOAD_BYTES_MAX + 65536u)
#define LINK_TX_BYTES (1u << 20)
#define REDIAL_NS     (100 * NSEC_PER_MSEC)
#define DIAL_MS       1000
#define LEAVE_WAIT_NS (500 * NSEC_PER_MSEC)

/* --- bytes ------------------------------------------------------------- */

static void link_flush(struct link *l)
{
	size_t done = 0;

	while (done < l->tx_bytes) {
		ssize_t n = send(l->io.fd, l->tx + done, l->tx_bytes - done,
		                 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			l->tx_bytes = 0;
			return; /* the failing read says it */
		}
		done += (size_t)n;
	}
	memmove(l->tx, l->tx + done, l->tx_bytes - done);
	l->tx_bytes -= done;
	(void)loop_modify(l->loop, &l->io,
	                  l->tx_bytes > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void say(struct link *l, struct msg *m, const void *payload)
{
	uint32_t crc =
		m->payload_bytes > 0 ? crc32c(payload, m->payload_bytes) : 0;
	size_t bytes = WIRE_HDR_BYTES + m->payload_bytes;
	struct wire_hdr h;

	if (!l->connected && m->type != MSG_HELLO)
		return;
	if (l->tx_bytes + bytes > LINK_TX_BYTES) {
		link_down(l, "it does not read");
		return;
	}
	m->epoch = l->epoch;
	m->seq = msg_class(m->type) == MSG_CLASS_NONE ? 0 : ++l->seq_out;
	m->ack = l->seq_in;
	wire_encode(m, crc, &h);
	memcpy(l->tx + l->tx_bytes, &h, sizeof(h));
	if (m->payload_bytes > 0)
		memcpy(l->tx + l->tx_bytes + sizeof(h), payload,
		       m->payload_bytes);
	l->tx_bytes += bytes;
	link_flush(l);
}

/*
 * What is too long for a message: a renewal with thousands of spaces, which
 * goes without them, for it must go; or an answer, which the asker may want in
 * parts.
 */
static char *shorter(struct msg *m, json_t *doc)
{
	if ((m->flags & MSG_F_REPLY) != 0) {
		m->flags |= MSG_F_ERROR;
		return strdup("{\"status\":413,\"detail\":\"the answer is too "
		              "long for a message\"}");
	}
	(void)json_object_del(doc, "spaces");
	return json_dumps(doc, JSON_COMPACT);
}

static void say_doc(struct link *l, struct msg *m, json_t *doc)
{
	AUTO_FREE char *text = json_dumps(doc, JSON_COMPACT);

	if (text != NULL && strlen(text) > WIRE_CONTROL_BYTES_MAX) {
		free(text);
		text = shorter(m, doc);
	}
	json_decref(doc);
	if (text == NULL)
		return;
	m->payload_bytes = (uint32_t)strlen(text);
	say(l, m, text);
}

/* --- the lease --------------------------------------------------------- */

static void renew_due(struct loop_timer *t);

/* A third of the lease; and figures must not be older than a second. */
static nsec_t renew_every(const struct link *l)
{
	return min_u64(l->node->lease_ns / 3, NSEC_PER_SEC);
}

static void ask_renewal(struct link *l)
{
	struct msg m = { .type = MSG_LEASE };
	json_t *doc;

	link_measure(&l->spaces);
	doc = link_lease_doc(l->node, &l->spaces);
	l->asked_at = boot_now();
	if (doc != NULL)
		say_doc(l, &m, doc);
}

/*
 * How much the peers can store, if the answer says it.  The lease counts
 * whatever becomes of this: without it we store where we stored before.
 */
static void learn_room(struct link *l, const struct msg *m,
                       const uint8_t *payload)
{
	if (m->payload_bytes == 0 ||
	    link_room_doc(payload, m->payload_bytes, l->node) == 0 ||
	    l->room_wrong)
		return;
	l->room_wrong = true;
	log_warn("the coordinator's figures of free memory are malformed; they "
	         "are passed over",
	         "bytes=%u", m->payload_bytes);
}

static void renewed(struct link *l, const struct msg *m, const uint8_t *payload)
{
	nsec_t end = l->asked_at + m->arg;

	if (l->asked_at == 0)
		return;
	l->asked_at = 0;
	if ((m->flags & MSG_F_ERROR) != 0)
		return; /* not prolonged: asked again, in time */
	l->node->lease_ns = m->arg;
	l->promised = false;
	atomic_store_explicit(&l->node->lease->end_ns, end,
	                      memory_order_release);
	learn_room(l, m, payload);
}

/* --- what the coordinator says ----------------------------------------- */

static void answer_claim(struct claim_letter *c, const struct msg *m,
                         const uint8_t *payload)
{
	const struct wire_extent *w = (const void *)payload;
	struct extents_letter *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return;
	e->space = c->space;
	e->first = c->claim.first;
	e->n = c->claim.n;
	e->failed = (m->flags & MSG_F_ERROR) != 0 ||
	            m->payload_bytes != e->n * sizeof(*w);
	for (uint32_t i = 0; !e->failed && i < e->n; i++)
		if (extent_decode(&w[i], &e->v[i]) < 0)
			e->failed = true;
	shard_extents(c->shard, e);
}

static void on_claim(struct link *l, const struct msg *m,
                     const uint8_t *payload)
{
	for (struct claim_letter **p = &l->claims; *p != NULL;
	     p = &(*p)->next) {
		struct claim_letter *c = *p;

		if (c->space != m->space ||
		    (gpn_t)c->claim.first * EXTENT_PAGES != m->page)
			continue;
		/* Once: it is asked again and again. */
		if ((m->flags & MSG_F_ERROR) != 0 && !l->claims_fail)
			log_warn("the coordinator does not answer a claim",
			         "space=%u extent=%u why=\"%.*s\"", c->space,
			         c->claim.first, (int)m->payload_bytes,
			         (const char *)payload);
		l->claims_fail = (m->flags & MSG_F_ERROR) != 0;
		answer_claim(c, m, payload);
		*p = c->next;
		free(c);
		return;
	}
}

static void send_claim(struct link *l, const struct claim_letter *c)
{
	struct claim w = { .n_extents = c->claim.n,
		           .n_open = c->claim.n_open,
		           .ask = c->claim.ask };
	struct msg m = { .type = MSG_CLAIM,
		         .space = c->space,
		         .page = (gpn_t)c->claim.first * EXTENT_PAGES,
		         .arg = claim_arg(&w) };

	say(l, &m, NULL);
}

void link_claim(struct link *l, struct claim_letter *c)
{
	struct claim_letter **p = &l->claims;

	while (*p != NULL)
		p = &(*p)->next;
	c->next = NULL;
	*p = c;
	if (l->connected)
		send_claim(l, c);
}

static void space_deliver(struct mail *mail, void *arg)
{
	struct space_letter *s = container_of(mail, struct space_letter, mail);

	(void)arg;
	control_space(s->node->control, s);
}

static void forget_space(struct link *l, space_id id)
{
	for (uint32_t i = 0; i < l->spaces.n; i++)
		if (l->spaces.v[i].space->id == id) {
			l->spaces.v[i] = l->spaces.v[--l->spaces.n];
			return;
		}
}

static void on_space(struct link *l, const struct msg *m,
                     const uint8_t *payload)
{
	struct space_letter *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return;
	s->node = l->node;
	s->drop = m->type == MSG_SPACE_DROP;
	s->number = m->arg;
	if (link_space_doc(payload, m->payload_bytes, s) < 0) {
		free(s);
		link_down(l, "its space document is malformed");
		return;
	}
	if (s->drop && s->commit)
		forget_space(l, s->id);
	s->mail.deliver = space_deliver;
	mbox_post(l->node->control_loop, &s->mail);
}

static void remember_space(struct link *l, struct space *sp)
{
	for (uint32_t i = 0; i < l->spaces.n; i++)
		if (l->spaces.v[i].space == sp)
			return;
	if (l->spaces.n == l->spaces.room) {
		uint32_t room = l->spaces.room * 2 + 16;
		void *v = realloc(l->spaces.v, room * sizeof(*l->spaces.v));

		if (v == NULL)
			return;
		l->spaces.v = v;
		l->spaces.room = room;
	}
	l->spaces.v[l->spaces.n++] = (struct link_space){ .space = sp };
}

static void space_answer(struct mail *mail, void *arg)
{
	struct space_letter *s = container_of(mail, struct space_letter, mail);
	struct link *l = arg;
	struct msg m = { .type = s->drop ? MSG_SPACE_DROP : MSG_SPACE_ADD,
		         .flags = MSG_F_REPLY,
		         .space = s->id,
		         .arg = s->number };
	json_t *doc;

	/* An answer to an earlier add may have come behind the drop's commit:
	 * so it is forgotten here, too, before it may be freed. */
	if (s->space != NULL && s->drop)
		forget_space(l, s->id);
	else if (s->space != NULL)
		remember_space(l, s->space);
	if (s->result < 0) {
		m.flags |= MSG_F_ERROR;
		doc = json_pack("{s:i, s:s}", "status", 507, "detail", s->why);
	} else if (s->drop) {
		doc = json_pack("{s:i}", "clients", (int)s->clients);
	} else {
		doc = json_object();
	}
	say_doc(l, &m, doc);
	if (s->space != NULL && s->drop)
		control_bury(l->node->control, s);
	else
		free(s);
}

void link_space_answer(struct link *l, struct space_letter *a)
{
	a->mail.deliver = space_answer;
	mbox_post(l->loop, &a->mail);
}

/* --- questions --------------------------------------------------------- */

static void answer_question(struct link *l, unsigned i)
{
	struct msg m = { .type = MSG_QUERY,
		         .flags = MSG_F_REPLY,
		         .arg = l->question[i].number };
	json_t *doc = l->question[i].answer;

	if (!l->question[i].one_page)
		doc = json_pack("{s:o}", "extents", doc);
	else if (doc == NULL)
		doc = json_pack("{s:s, s:[], s:i}", "state", "untouched",
		                "holders", "heat", 0);
	l->question[i].answer = NULL;
	l->question[i].left = 0;
	say_doc(l, &m, doc);
}

void link_query_answer(struct link *l, struct query_letter *q)
{
	for (unsigned i = 0; i < ARRAY_SIZE(l->question); i++) {
		if (l->question[i].left == 0 ||
		    l->question[i].number != q->number)
			continue;
		if (!q->one_page) {
			json_array_extend(l->question[i].answer, q->answer);
			json_decref(q->answer);
		} else if (q->answer != NULL) {
			l->question[i].answer = q->answer;
		}
		if (--l->question[i].left == 0)
			answer_question(l, i);
		free(q);
		return;
	}
	json_decref(q->answer);
	free(q);
}

static void on_query(struct link *l, const struct msg *m,
                     const uint8_t *payload)
{
	struct query_letter q = { .node = l->node, .number = m->arg };
	unsigned at = 0;

	while (at < ARRAY_SIZE(l->question) && l->question[at].left > 0)
		at++;
	if (at == ARRAY_SIZE(l->question) ||
	    link_query_doc(payload, m->payload_bytes, &q) < 0)
		return; /* the coordinator's question times out */
	l->question[at].number = m->arg;
	l->question[at].left = l->node->cfg.shards;
	l->question[at].one_page = q.one_page;
	l->question[at].answer = q.one_page ? NULL : json_array();
	for (uint8_t i = 0; i < l->node->cfg.shards; i++) {
		struct query_letter *c = malloc(sizeof(*c));

		if (c == NULL) {
			l->question[at].left--;
			continue;
		}
		*c = q;
		c->shard = l->node->shard[i];
		shard_query(c->shard, c);
	}
}

/* --- connection -------------------------------------------------------- */

static void link_heard(struct link *l, const struct msg *m,
                       const uint8_t *payload)
{
	bool reply = (m->flags & MSG_F_REPLY) != 0;

	if (m->type == MSG_MEMBERS)
		link_on_members(l, m, payload);
	else if (m->type == MSG_LEASE && reply)
		renewed(l, m, payload);
	else if (m->type == MSG_CLAIM && reply)
		on_claim(l, m, payload);
	else if ((m->type == MSG_SPACE_ADD || m->type == MSG_SPACE_DROP) &&
	         !reply)
		on_space(l, m, payload);
	else if (m->type == MSG_QUERY && !reply)
		on_query(l, m, payload);
	else if (m->type == MSG_LEAVE && (m->flags & MSG_F_ERROR) != 0)
		control_end(l->node->control, 1,
		            "the coordinator has declared this node dead: its "
		            "lease was over for too long");
	else if (m->type == MSG_LEAVE && l->leaving)
		loop_stop(l->loop);
}

/* One whole message at `at`?  Returns its length, 0 if not yet, or -errno. */
static ssize_t link_take(struct link *l, const uint8_t *at, size_t left,
                         bool *hello)
{
	const struct wire_hdr *h = (const void *)at;
	uint32_t crc;
	struct msg m;
	int r;

	if (left < WIRE_HDR_BYTES)
		return 0;
	r = wire_decode(h, &m, &crc);
	if (r < 0)
		return r;
	if (left < WIRE_HDR_BYTES + m.payload_bytes)
		return 0;
	if (m.payload_bytes > 0 &&
	    crc32c(at + WIRE_HDR_BYTES, m.payload_bytes) != crc)
		return -EBADMSG;
	if (m.seq != 0)
		l->seq_in = m.seq;
	if (m.type == MSG_HELLO) {
		const void *p = at + WIRE_HDR_BYTES;
		struct hello hi;

		if (hello_decode(p, &hi) < 0)
			return -EPROTO;
		memcpy(l->node->cluster, hi.cluster, sizeof(hi.cluster));
		*hello = true;
	} else {
		link_heard(l, &m, at + WIRE_HDR_BYTES);
	}
	return (ssize_t)(WIRE_HDR_BYTES + m.payload_bytes);
}

static void link_read(struct link *l)
{
	ssize_t n = recv(l->io.fd, l->rx + l->rx_bytes,
	                 LINK_RX_BYTES - l->rx_bytes, MSG_DONTWAIT);
	size_t done = 0;
	bool hello = false;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		link_down(l, "it closed the connection");
		return;
	}
	l->rx_bytes += (size_t)n;
	for (;;) {
		ssize_t k =
			link_take(l, l->rx + done, l->rx_bytes - done, &hello);

		if (l->io.fd < 0)
			return; /* a handler has closed it */
		if (k < 0) {
			link_down(l, "it does not speak our protocol");
			return;
		}
		if (k == 0)
			break;
		done += (size_t)k;
	}
	memmove(l->rx, l->rx + done, l->rx_bytes - done);
	l->rx_bytes -= done;
}

static void link_ready(struct loop_io *io, uint32_t events)
{
	struct link *l = container_of(io, struct link, io);

	if ((events & EPOLLOUT) != 0)
		link_flush(l);
	if (l->io.fd >= 0 && (events & ~(uint32_t)EPOLLOUT) != 0)
		link_read(l);
}

void link_down(struct link *l, const char *why)
{
	if (l->io.fd < 0)
		return;
	log_warn("the link to the coordinator is down", "why=\"%s\"", why);
	loop_remove(l->loop, &l->io);
	close(l->io.fd);
	l->io.fd = -1;
	l->connected = false;
	timer_start(l->loop, &l->renew, loop_now(l->loop) + REDIAL_NS);
}

static int dial(const char *address, struct errmsg *em)
{
	char host[64], *colon;
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM }, *ai = NULL;
	struct timeval limit = { .tv_sec = DIAL_MS / 1000 };
	AUTO_CLOSE int fd = -1;
	int one = 1, r;

	snprintf(host, sizeof(host), "%s", address);
	colon = strrchr(host, ':');
	if (colon == NULL)
		return errmsg_say(em, -EINVAL, "'%s' is not HOST:PORT",
		                  address);
	*colon = '\0';
	r = getaddrinfo(host, colon + 1, &hint, &ai);
	if (r != 0)
		return errmsg_say(em, -EINVAL, "cannot find %s: %s", host,
		                  gai_strerror(r));
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		freeaddrinfo(ai);
		return errmsg_set(em, -errno, "cannot make a socket");
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	r = connect(fd, ai->ai_addr, ai->ai_addrlen);
	r = r < 0 ? -errno : 0;
	freeaddrinfo(ai);
	if (r < 0)
		return errmsg_set(em, r,
		                  "cannot reach the coordinator's node port %s",
		                  address);
	return TAKE_FD(fd);
}

/* Dial and say HELLO; on success the descriptor is l->io.fd. */
static int link_connect(struct link *l, struct errmsg *em)
{
	const struct node *n = l->node;
	struct hello h = { .version_min = WIRE_VERSION,
		           .version_max = WIRE_VERSION,
		           .node = n->id,
		           .to_node = NODE_NONE,
		           .shards = n->cfg.shards,
		           .incarnation = n->incarnation };
	struct msg m = { .type = MSG_HELLO,
		         .payload_bytes = sizeof(struct wire_hello) };
	struct wire_hello w;
	int fd = dial(l->address, em);

	if (fd < 0)
		return fd;
	l->io.fd = fd;
	l->seq_in = l->seq_out = 0;
	l->rx_bytes = l->tx_bytes = 0;
	l->asked_at = 0;
	memcpy(h.cluster, n->cluster, sizeof(h.cluster));
	hello_encode(&h, &w);
	say(l, &m, &w);
	return 0;
}

static void link_up(struct link *l)
{
	l->connected = true;
	(void)loop_add(l->loop, &l->io, EPOLLIN);
	link_flush(l);
	for (struct claim_letter *c = l->claims; c != NULL; c = c->next)
		send_claim(l, c);
	ask_renewal(l);
}

static void renew_due(struct loop_timer *t)
{
	struct link *l = container_of(t, struct link, renew);
	struct errmsg em;

	timer_start(l->loop, t,
	            loop_now(l->loop) +
	                    (l->io.fd < 0 ? REDIAL_NS : renew_every(l)));
	if (l->leaving)
		return;
	if (l->io.fd >= 0) {
		/* Unanswered for a whole lease: the link is as good as cut. */
		if (l->asked_at != 0 &&
		    boot_now() - l->asked_at > l->node->lease_ns)
			link_down(l, "it does not answer");
		else if (l->asked_at == 0)
			ask_renewal(l);
	}
	link_ask_promises(l);
	if (l->io.fd >= 0)
		return;
	if (link_connect(l, &em) == 0) {
		log_info("the link to the coordinator is up again", "epoch=%u",
		         l->epoch);
		link_up(l);
		timer_start(l->loop, t, loop_now(l->loop) + renew_every(l));
	}
}

void link_breach(struct link *l, struct breach_letter *b)
{
	/* The log line was written where it happened; the coordinator learns
	 * of it by the pair that is not connected any more. */
	(void)l;
	free(b);
}

/* --- life -------------------------------------------------------------- */

int link_new(struct node *n, const char *node_port, struct link **ret,
             struct errmsg *em)
{
	AUTO(link_free) struct link *l = calloc(1, sizeof(*l));
	struct loop_config lc = { .mail_arg = l };
	uint8_t head[WIRE_HDR_BYTES + sizeof(struct wire_hello)];
	bool hello = false;
	int r;

	if (l == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for the link");
	l->node = n;
	l->io.fd = -1;
	l->io.ready = link_ready;
	l->renew.due = renew_due;
	link_members_init(l);
	l->rx = malloc(LINK_RX_BYTES);
	l->tx = malloc(LINK_TX_BYTES);
	if (l->rx == NULL || l->tx == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for the link");
	snprintf(l->address, sizeof(l->address), "%s", node_port);
	r = loop_new(&lc, &l->loop, em);
	if (r == 0)
		r = link_connect(l, em);
	if (r < 0)
		return r;
	/* The answer, before there are threads: the cluster's id is needed to
	 * make the shards.  Exactly one HELLO; what follows is the loop's. */
	if (recv(l->io.fd, head, sizeof(head), MSG_WAITALL) !=
	            (ssize_t)sizeof(head) ||
	    link_take(l, head, sizeof(head), &hello) < 0 || !hello)
		return errmsg_say(em, -EPROTO,
		                  "the coordinator's node port %s does not "
		                  "speak protocol version %u: are both ends of "
		                  "the same release?",
		                  node_port, WIRE_VERSION);
	n->link_loop = l->loop;
	*ret = TAKE_PTR(l);
	return 0;
}

static void *link_main(void *arg)
{
	struct link *l = arg;

	(void)loop_run(l->loop);
	return NULL;
}

int link_start(struct link *l, struct errmsg *em)
{
	int r;

	loop_now_fresh(l->loop);
	link_up(l);
	timer_start(l->loop, &l->renew, loop_now(l->loop) + renew_every(l));
	r = pthread_create(&l->thread, NULL, link_main, l);
	if (r != 0)
		return errmsg_set(em, -r, "cannot start a thread");
	(void)pthread_setname_np(l->thread, "link");
	l->running = true;
	return 0;
}

struct leave_letter {
	struct mail mail;
	struct loop_timer timer;
	struct link *link;
};

static void leave_late(struct loop_timer *t)
{
	loop_stop(container_of(t, struct leave_letter, timer)->link->loop);
}

static void leave(struct mail *mail, void *arg)
{
	struct leave_letter *ll = container_of(mail, struct leave_letter, mail);
	struct link *l = arg;
	struct msg m = { .type = MSG_LEAVE };

	l->leaving = true;
	if (!l->connected) {
		loop_stop(l->loop);
		return;
	}
	say(l, &m, NULL);
	timer_start(l->loop, &ll->timer, loop_now(l->loop) + LEAVE_WAIT_NS);
}

void link_stop(struct link *l)
{
	struct leave_letter ll = { .mail.deliver = leave,
		                   .timer.due = leave_late,
		                   .link = l };

	if (l == NULL || !l->running)
		return;
	mbox_post(l->loop, &ll.mail);
	pthread_join(l->thread, NULL);
	l->running = false;
}

struct link *link_free(struct link *l)
{
	if (l == NULL)
		return NULL;
	link_stop(l);
	while (l->claims != NULL) {
		struct claim_letter *c = l->claims;

		l->claims = c->next;
		free(c);
	}
	if (l->io.fd >= 0)
		close(l->io.fd);
	for (unsigned i = 0; i < ARRAY_SIZE(l->question); i++)
		json_decref(l->question[i].answer);
	loop_free(l->loop);
	free(l->waiting);
	free(l->spaces.v);
	free(l->rx);
	free(l->tx);
	free(l);
	return NULL;
}
