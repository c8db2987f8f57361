/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receiving half of a session: bytes in, whole messages out.
 *
 * A message is handed over where it lies: the buffer is mapped twice, so it is
 * contiguous wherever it begins, and nothing is ever moved.  An empty buffer
 * starts over at 0, where it is warm in the cache; then one recv() mostly
 * brings all there is, and if it brought less than there was room for, a second
 * one would only hear EAGAIN: the loop is level-triggered and calls again.
 */

#include <errno.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "net/tcp.h"

/* Of one wake-up, so that one busy peer cannot hold up the others: 2 MiB. */
#define READS_MAX 4

int tcp_read_hello(const uint8_t *bytes, struct hello *ret)
{
	const struct wire_hdr *hdr = (const void *)bytes;
	const struct wire_hello *wire = (const void *)(bytes + sizeof(*hdr));
	uint32_t crc;
	struct msg m;
	int r;

	r = wire_decode(hdr, &m, &crc);
	if (r < 0)
		return r;
	if (m.type != MSG_HELLO)
		return -EPROTO;
	if (crc32c(wire, sizeof(*wire)) != crc)
		return -EBADMSG;
	return hello_decode(wire, ret);
}

/* May this type come over a lane at all? */
static bool legal(const struct msg *m)
{
	if (msg_class(m->type) != MSG_CLASS_CONTROL)
		return true;
	return m->type == MSG_MEMBERS || m->type == MSG_PROMISE;
}

/*
 * A numbered message that is the next one: let it be applied.  Returns 0, or
 * -EPROTO with *why.
 */
static int apply(struct tcp_session *s, const struct msg *m,
                 const void *payload, const char **why)
{
	struct transport *tp = s->tp;
	int r;

	if (!legal(m)) {
		*why = "the peer sent a control message that nodes do not send";
		return -EPROTO;
	}
	r = credit_arrived(&s->credit, m);
	if (r < 0) {
		*why = "the peer overdrew its credits";
		return r;
	}
	s->delivering = true;
	r = tp->handlers.message(tp->arg, s->node, s->shard, m, payload);
	s->delivering = false;
	if (s->over)
		return 0; /* the handler forgot it */
	if (r < 0) {
		*why = "the peer sent what no correct node sends";
		return r;
	}
	s->applied = m->seq;
	s->ack_bytes += (uint32_t)WIRE_HDR_BYTES + m->payload_bytes;
	s->ack_messages++;
	credit_applied(&s->credit, m);
	tp->counters.msgs_in++;
	return 0;
}

/* Returns 0, or the -errno that ends the session, with *why. */
static int deliver(struct tcp_session *s, struct msg *m, const uint8_t *payload,
                   const char **why)
{
	if (m->type == MSG_HELLO) {
		*why = "the peer said hello twice";
		return -EPROTO;
	}
	if (tcp_acked(s, m->ack) < 0) {
		*why = "the peer acknowledged what was never sent";
		return -EPROTO;
	}
	if (s->over)
		return 0; /* acked() forgot it */
	if (m->type == MSG_PING)
		s->ack_now = true;
	if (msg_class(m->type) == MSG_CLASS_NONE)
		return 0;
	if (m->seq <= s->applied)
		return 0; /* came again after a reconnect */
	if (m->seq != s->applied + 1) {
		*why = "the peer left out a message";
		return -EPROTO;
	}
	/* A trace is carried by those who send one; we skip it. */
	if (m->flags & MSG_F_TRACE) {
		payload += WIRE_TRACE_BYTES;
		m->payload_bytes -= WIRE_TRACE_BYTES;
		m->flags &= (uint16_t)~MSG_F_TRACE;
	}
	return apply(s, m, payload, why);
}

/*
 * The message at the front of the buffer, if it is whole.  Returns its bytes,
 * 0 if some are missing, or the -errno that ends the session, with *why.
 */
static ssize_t next_message(struct tcp_session *s, struct msg *m,
                            const char **why)
{
	const uint8_t *at = ring_at(&s->rx, s->rx_tail);
	size_t have = s->rx_head - s->rx_tail;
	uint32_t crc;
	int r;

	if (have < WIRE_HDR_BYTES)
		return 0;
	/* A header whose payload is still on its way is decoded again next
	 * time: cheaper than remembering that it was good. */
	r = wire_decode((const void *)at, m, &crc);
	if (r < 0) {
		*why = r == -EPROTO  ? "the peer sent an illegal message" :
		       r == -EBADMSG ? "a message arrived damaged" :
		                       "the peer changed the wire version";
		return r;
	}
	if (have < WIRE_HDR_BYTES + m->payload_bytes)
		return 0;
	if (m->payload_bytes > 0 &&
	    crc32c(at + WIRE_HDR_BYTES, m->payload_bytes) != crc) {
		*why = "a payload arrived damaged";
		return -EBADMSG;
	}
	return (ssize_t)(WIRE_HDR_BYTES + m->payload_bytes);
}

/* Deliver whole messages.  Returns false if the connection is gone. */
static bool deliver_all(struct tcp_session *s)
{
	while (s->state == TCP_UP) {
		const uint8_t *at = ring_at(&s->rx, s->rx_tail);
		const char *why = "";
		struct msg m;
		ssize_t n = next_message(s, &m, &why);
		int r = n < 0 ? (int)n : 0;

		if (n == 0)
			break;
		if (n > 0)
			r = deliver(s, &m, at + WIRE_HDR_BYTES, &why);
		if (s->over)
			return false;
		if (r < 0) {
			tcp_break(s, r, why);
			return false;
		}
		s->rx_tail += (size_t)n;
		tcp_eager(s);
	}
	if (s->rx_tail == s->rx_head)
		s->rx_tail = s->rx_head = 0;
	return s->state == TCP_UP;
}

/*
 * The answer to our hello.  Until it is known whose it is, nothing that comes
 * can end the session: the port may have a new owner.
 */
static bool expect_hello(struct tcp_session *s)
{
	struct hello h;
	int r;

	if (s->rx_head < TCP_HELLO_BYTES)
		return true;
	r = tcp_read_hello(ring_at(&s->rx, 0), &h);
	if (r < 0) {
		tcp_drop(s, r);
		return false;
	}
	s->rx_tail = TCP_HELLO_BYTES;
	return tcp_answered(s, &h) == 0;
}

/* Have what was applied acknowledged: soon, or now if it is much. */
static void acknowledge(struct tcp_session *s)
{
	if (s->ack_now || s->ack_bytes >= TCP_ACK_BYTES ||
	    s->ack_messages >= TCP_ACK_MESSAGES)
		tcp_mark_dirty(s);
	else if (s->applied != s->ack_sent)
		tcp_owe(s);
}

void tcp_ready(struct tcp_session *s)
{
	struct transport *tp = s->tp;

	if (credit_back(&s->credit) && tp->handlers.ready)
		tp->handlers.ready(tp->arg, s->node, s->shard);
}

void tcp_receive(struct tcp_session *s)
{
	for (unsigned i = 0; i < READS_MAX; i++) {
		size_t room = s->rx.bytes - (s->rx_head - s->rx_tail);
		ssize_t n;

		assert(room > 0);
		n = recv(s->io.fd, ring_at(&s->rx, s->rx_head), room, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			tcp_drop(s, n < 0 ? -errno : -ECONNRESET);
			return;
		}
		s->rx_head += (size_t)n;
		s->heard = loop_now(s->tp->loop);
		s->tp->counters.bytes_in += (size_t)n;
		if (s->state == TCP_HELLO && !expect_hello(s))
			return;
		if (s->state == TCP_UP && !deliver_all(s))
			return;
		if ((size_t)n < room)
			break;
	}
	acknowledge(s);
	tcp_ready(s);
}
