/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection of a session: dialling, the two hellos, resuming, and how it
 * ends, for a while (drop) or for good (break).
 *
 *	dialler                         acceptor
 *	connect()
 *	hello, `applied`         ->     tcp_welcome(): a connection it had is
 *	                                dropped first, so that its own `applied`
 *	                                is final
 *	tcp_answered()           <-     hello, `applied`; then what of its ring
 *	what of its ring                the dialler has not applied
 *	the acceptor has not     ->
 *
 * Both `applied` are final when they are said: neither end reads another
 * connection of the session any more.  So what follows continues the numbers
 * exactly.  A hello that was delayed so long that its sender has dialled anew
 * shows an `applied` below what was acknowledged since, or finds its connection
 * closed: it can cost a reconnect, but no message.
 *
 * After a broken rule the acceptor answers hellos by refusing; the dialler,
 * when it was the one that noticed, dials until it could say one hello that
 * refuses (`farewell`).  So both ends learn that the session is over, and the
 * message that did it is not sent again for ever [B5].
 */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "net/tcp.h"

/* The kernel's own probes find a dead host behind an idle connection, at the
 * cost of no wake-up of ours. */
#define KEEPALIVE_IDLE_S     10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES     3

static void set_option(int fd, int level, int name, int value)
{
	/* A connection that lacks one is slower or dies later: no reason to
	 * do without it. */
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

static void set_options(const struct transport *tp, int fd)
{
	nsec_t timeout_ms = tp->cfg.silence_max / NSEC_PER_MSEC;

	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
	           (int)min_u64(max_u64(timeout_ms, 1), INT32_MAX));
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

/* --- hello --------------------------------------------------------------- */

static struct hello our_hello(const struct tcp_session *s,
                              enum hello_refusal refusal)
{
	const struct tp_config *cfg = &s->tp->cfg;
	struct hello h = {
		.version_min = WIRE_VERSION,
		.version_max = WIRE_VERSION,
		.node = cfg->self,
		.to_node = s->node,
		.from_shard = cfg->shard,
		.to_shard = s->shard,
		.shards = cfg->shards,
		.refusal = refusal,
		.incarnation = cfg->incarnation,
		.to_incarnation = s->incarnation,
		.applied = s->applied,
	};

	memcpy(h.cluster, cfg->cluster, sizeof(h.cluster));
	return h;
}

static void write_hello(const struct tcp_session *s, enum hello_refusal refusal,
                        uint8_t bytes[TCP_HELLO_BYTES])
{
	const struct hello h = our_hello(s, refusal);
	const struct msg m = {
		.type = MSG_HELLO,
		.epoch = s->tp->epoch,
		.payload_bytes = sizeof(struct wire_hello),
	};
	struct wire_hello wire;
	struct wire_hdr hdr;

	hello_encode(&h, &wire);
	wire_encode(&m, crc32c(&wire, sizeof(wire)), &hdr);
	memcpy(bytes, &hdr, sizeof(hdr));
	memcpy(bytes + sizeof(hdr), &wire, sizeof(wire));
}

static void say_hello(struct tcp_session *s)
{
	write_hello(s, HELLO_WELCOME, s->side);
	s->side_bytes = TCP_HELLO_BYTES;
	s->side_sent = 0;
	s->ack_sent = s->applied;
	s->ack_bytes = 0;
	s->ack_messages = 0;
}

/* The last word on `fd`, which is new, so that it has room for it. */
static void say_refusal(const struct tcp_session *s, int fd,
                        enum hello_refusal refusal)
{
	uint8_t bytes[TCP_HELLO_BYTES];

	write_hello(s, refusal, bytes);
	/* If it gets lost the peer comes again and hears it then. */
	(void)send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
}

/* Does it speak to this incarnation of this node, and to this shard? */
static bool meant_for_us(const struct transport *tp, const struct hello *h)
{
	return memcmp(h->cluster, tp->cfg.cluster, sizeof(h->cluster)) == 0 &&
	       h->to_node == tp->cfg.self &&
	       h->to_incarnation == tp->cfg.incarnation &&
	       h->to_shard == tp->cfg.shard;
}

/* --- closing ------------------------------------------------------------- */

void tcp_close(struct tcp_session *s)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	if (s->io.fd >= 0) {
		loop_remove(s->tp->loop, &s->io);
		/* A hello that was given up must not arrive later. */
		if (s->state == TCP_HELLO)
			(void)setsockopt(s->io.fd, SOL_SOCKET, SO_LINGER,
			                 &reset, sizeof(reset));
		close(TAKE_FD(s->io.fd));
	}
	s->state = TCP_IDLE;
	s->side_bytes = 0;
	s->side_sent = 0;
	s->blocked = false;
	s->owing = false;
	s->ack_now = false;
	s->rx_head = 0;
	s->rx_tail = 0;
}

static void dial_later(struct tcp_session *s)
{
	nsec_t now = loop_now(s->tp->loop);

	if (!s->dials || (s->over && !s->farewell))
		return;
	s->dial_at = max_u64(now, s->dialled + s->tp->cfg.redial);
	tcp_chores_by(s->tp, s->dial_at);
}

void tcp_drop(struct tcp_session *s, int why)
{
	struct transport *tp = s->tp;
	bool was_up = s->state == TCP_UP;

	tcp_close(s);
	dial_later(s);
	if (was_up && tp->handlers.down)
		tp->handlers.down(tp->arg, s->node, s->shard, why);
}

void tcp_break(struct tcp_session *s, int why, const char *text)
{
	struct transport *tp = s->tp;

	assert(why < 0 && s->over == 0);
	tcp_close(s);
	s->over = why;
	s->tail = s->sent = s->head = 0;
	/* Who refused us knows. */
	s->farewell = s->dials && why != -ECONNREFUSED;
	dial_later(s);
	if (tp->handlers.broken)
		tp->handlers.broken(tp->arg, s->node, s->shard, why, text);
}

static void refused_by(struct tcp_session *s, enum hello_refusal refusal)
{
	if (refusal == HELLO_VERSION)
		tcp_break(s, -ECONNREFUSED,
		          "the peer speaks no wire version that we do");
	else
		tcp_break(s, -ECONNREFUSED,
		          "the peer says that we broke a rule of the protocol");
}

/* --- the two ways to become connected ------------------------------------ */

/* Both hellos are known: go on where the peer says that it stands. */
static void resume(struct tcp_session *s, uint64_t peer_applied)
{
	struct transport *tp = s->tp;
	int r = tcp_acked(s, peer_applied);

	if (s->over)
		return; /* acked() forgot it */
	if (r < 0) {
		tcp_break(s, r, "the peer has applied what was never sent");
		return;
	}
	s->sent = s->tail;
	s->state = TCP_UP;
	s->heard = loop_now(tp->loop);
	if (s->head != s->tail)
		tcp_chores_by(tp, s->heard + tp->cfg.silence_max);
	if (s->was_up)
		tp->counters.reconnects++;
	s->was_up = true;
	tcp_mark_dirty(s);
	if (tp->handlers.up)
		tp->handlers.up(tp->arg, s->node, s->shard);
	if (!s->over)
		tcp_ready(s);
}

static void session_ready(struct loop_io *io, uint32_t events);

/* The session that a hello is for, or NULL: a stranger, or not yet known. */
static struct tcp_session *session_of(struct transport *tp,
                                      const struct hello *h)
{
	struct tcp_session *s;

	if (!meant_for_us(tp, h))
		return NULL;
	s = tcp_find(tp, h->node, h->from_shard);
	if (!s || s->incarnation != h->incarnation || s->dials)
		return NULL;
	return s;
}

/*
 * May the session go on over this connection?  If not, the peer has been told
 * why, where there is something to tell.
 */
static bool admit(struct tcp_session *s, int fd, const struct hello *h)
{
	struct hello ours = our_hello(s, HELLO_WELCOME);
	struct errmsg em = { "" };

	if (s->over) {
		if (h->refusal == HELLO_WELCOME)
			say_refusal(s, fd, HELLO_ENDED);
		return false;
	}
	if (h->refusal != HELLO_WELCOME) {
		refused_by(s, h->refusal);
		return false;
	}
	if (hello_agree(&ours, h, &em) < 0) {
		say_refusal(s, fd, HELLO_VERSION);
		/* A session that works is not ended by a stray hello. */
		if (s->state != TCP_UP)
			tcp_break(s, -EPROTONOSUPPORT, em.text);
		return false;
	}
	/* Out of date; see the top of this file. */
	return h->applied >= s->acked && !s->delivering;
}

void tcp_welcome(struct transport *tp, int fd, const struct hello *h)
{
	AUTO_CLOSE int owned = fd;
	struct tcp_session *s = session_of(tp, h);

	if (!s || !admit(s, fd, h)) {
		tp->counters.refused++;
		return;
	}
	if (s->state == TCP_UP)
		tcp_drop(s, -ECONNABORTED);
	if (s->over)
		return; /* down() forgot it */
	set_options(tp, fd);
	s->io = (struct loop_io){ .fd = fd, .ready = session_ready };
	if (loop_add(tp->loop, &s->io, EPOLLIN) < 0) {
		s->io.fd = -1; /* out of memory: it will come again */
		return;
	}
	(void)TAKE_FD(owned);
	say_hello(s);
	resume(s, h->applied);
}

void tp_adopt(struct transport *tp, int fd, const struct hello *h)
{
	tcp_welcome(tp, fd, h);
}

int tcp_answered(struct tcp_session *s, const struct hello *h)
{
	struct hello ours = our_hello(s, HELLO_WELCOME);
	struct errmsg em = { "" };
	int r;

	/* Somebody else has that port now. */
	if (!meant_for_us(s->tp, h) || h->node != s->node ||
	    h->from_shard != s->shard || h->incarnation != s->incarnation) {
		tcp_drop(s, -EHOSTUNREACH);
		return -EHOSTUNREACH;
	}
	if (h->refusal != HELLO_WELCOME) {
		refused_by(s, h->refusal);
		return -ECONNREFUSED;
	}
	r = hello_agree(&ours, h, &em);
	if (r < 0) {
		tcp_break(s, r, em.text);
		return r;
	}
	if (h->applied < s->acked) {
		tcp_drop(s, -ESTALE);
		return -ESTALE;
	}
	resume(s, h->applied);
	return s->state == TCP_UP ? 0 : -ESHUTDOWN;
}

/* --- dialling ------------------------------------------------------------ */

static void dial(struct tcp_session *s, nsec_t now)
{
	struct transport *tp = s->tp;
	AUTO_CLOSE int fd = -1;

	s->dialled = now;
	s->dial_at = now + tp->cfg.redial;
	fd = socket(s->address.sa.ss_family,
	            SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	set_options(tp, fd);
	if (connect(fd, (const void *)&s->address.sa, s->address.bytes) < 0 &&
	    errno != EINPROGRESS)
		return;
	s->io = (struct loop_io){ .fd = fd, .ready = session_ready };
	if (loop_add(tp->loop, &s->io, EPOLLOUT) < 0) {
		s->io.fd = -1;
		return;
	}
	(void)TAKE_FD(fd);
	s->state = TCP_DIALLING;
	s->deadline = now + TCP_HELLO_NS;
}

/* connect() has come to an end, one way or the other. */
static void dialled(struct tcp_session *s)
{
	socklen_t bytes = sizeof(int);
	int error = 0;

	if (getsockopt(s->io.fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
		error = errno;
	if (error == 0 && loop_modify(s->tp->loop, &s->io, EPOLLIN) < 0)
		error = ENOMEM;
	if (error != 0) {
		tcp_drop(s, -error);
		return;
	}
	if (s->over) {
		say_refusal(s, s->io.fd, HELLO_ENDED);
		s->farewell = false;
		tcp_close(s);
		return;
	}
	s->state = TCP_HELLO;
	say_hello(s);
	tcp_mark_dirty(s);
}

static void session_ready(struct loop_io *io, uint32_t events)
{
	struct tcp_session *s = container_of(io, struct tcp_session, io);

	tcp_turn(s->tp);
	if (s->state == TCP_DIALLING) {
		dialled(s);
		return;
	}
	if (events & EPOLLOUT) {
		s->blocked = false;
		/* Can only fail for a descriptor that is not watched. */
		(void)loop_modify(s->tp->loop, io, EPOLLIN);
		tcp_mark_dirty(s);
	}
	/* EPOLLHUP and EPOLLERR show up as a failing read. */
	if (events & ~(uint32_t)EPOLLOUT)
		tcp_receive(s);
}

nsec_t tcp_conn_chores(struct tcp_session *s, nsec_t now)
{
	nsec_t silent = s->heard + s->tp->cfg.silence_max;

	if (s->state == TCP_UP && s->head != s->tail && silent <= now)
		tcp_drop(s, -ETIMEDOUT);
	if ((s->state == TCP_DIALLING || s->state == TCP_HELLO) &&
	    s->deadline <= now)
		tcp_drop(s, -ETIMEDOUT);
	if (s->state == TCP_IDLE && s->dials && (!s->over || s->farewell) &&
	    s->dial_at <= now)
		dial(s, now);

	switch (s->state) {
	case TCP_IDLE:
		return s->dials && (!s->over || s->farewell) ? s->dial_at :
		                                               UINT64_MAX;
	case TCP_DIALLING:
	case TCP_HELLO:
		return s->deadline;
	case TCP_UP:
		return s->head != s->tail ? silent : UINT64_MAX;
	}
	return UINT64_MAX;
}
