/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sending half of a session: messages into the ring, the ring into the
 * socket, acknowledgements out of it.  The picture is in tcp.h.
 *
 * Acknowledging costs nothing while messages flow: the newest header of a flush
 * is stamped with what has been applied by then, which includes the request
 * that the turn has just answered.  Only an end that has nothing to say sends a
 * bare ACKED, and only when nothing of the ring waits to be sent, as it must
 * not cut a message in two.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "net/tcp.h"

/* Unsent bytes that are not kept until the end of the turn. */
#define TCP_EAGER_BYTES (128u << 10)

/* --- into the ring ------------------------------------------------------- */

/* Write the message at `head`.  Room was found by credit_send(). */
static void put(struct tcp_session *s, struct msg *m, const struct iovec *iov,
                int n_iov)
{
	uint8_t *at = ring_at(&s->tx, s->head);
	uint8_t *payload = at + WIRE_HDR_BYTES;
	size_t bytes = 0;

	assert(s->head - s->tail + WIRE_HDR_BYTES + m->payload_bytes <=
	       s->tx.bytes);
	for (int i = 0; i < n_iov; i++) {
		assert(bytes + iov[i].iov_len <= m->payload_bytes);
		memcpy(payload + bytes, iov[i].iov_base, iov[i].iov_len);
		bytes += iov[i].iov_len;
	}
	assert(bytes == m->payload_bytes);

	m->seq = s->next_seq++;
	m->ack = s->applied;
	m->epoch = s->tp->epoch;
	/* The sum is of the copy: that is what leaves. */
	wire_encode(m, crc32c(payload, bytes), (struct wire_hdr *)at);
	s->newest = s->head;
	s->head += WIRE_HDR_BYTES + bytes;
}

enum tp_sent tp_send(struct transport *tp, node_id peer, uint8_t shard,
                     const struct msg *m, const struct iovec *iov, int n_iov,
                     unsigned flags, uint64_t *ret_seq)
{
	struct tcp_session *s = tcp_find(tp, peer, shard);
	struct msg copy = *m;
	enum tp_sent sent;

	if (!s || s->over)
		return TP_DOWN;
	/* Nobody sends a trace: there is no room for it in the sums above. */
	assert(!(m->flags & MSG_F_TRACE));
	sent = credit_send(&s->credit, m);
	if (sent != TP_QUEUED)
		return sent;

	if (s->head == s->tail && s->state == TCP_UP) {
		s->heard = loop_now(tp->loop);
		tcp_chores_by(tp, s->heard + tp->cfg.silence_max);
	}
	put(s, &copy, iov, n_iov);
	if (flags & TP_LAZY)
		tcp_owe(s);
	else
		tcp_mark_dirty(s);
	tp->counters.msgs_out++;
	if (ret_seq)
		*ret_seq = copy.seq;
	return TP_QUEUED;
}

/* --- into the socket ----------------------------------------------------- */

/* Say what has been applied: in the newest message, else in a bare ACKED. */
static void stamp(struct tcp_session *s)
{
	struct wire_hdr *hdr = (void *)ring_at(&s->tx, s->newest);
	const struct msg m = { .type = MSG_ACKED,
		               .epoch = s->tp->epoch,
		               .ack = s->applied };

	if (s->applied == s->ack_sent && !s->ack_now)
		return;
	if (s->head == s->sent) {
		if (s->side_bytes > 0)
			return; /* one is on its way: this one's turn is next */
		wire_encode(&m, 0, (struct wire_hdr *)s->side);
		s->side_bytes = WIRE_HDR_BYTES;
	} else if (s->newest < s->sent) {
		return; /* half of it is gone: its successor says it */
	} else if (le64_get(hdr->ack) != s->applied) {
		hdr->ack = le64_put(s->applied);
		wire_seal(hdr);
	}
	s->ack_sent = s->applied;
	s->ack_bytes = 0;
	s->ack_messages = 0;
	s->ack_now = false;
}

/* Give the socket all there is.  Returns bytes taken, or -errno. */
static ssize_t give(struct tcp_session *s, size_t side, size_t ring)
{
	struct iovec iov[2] = {
		{ s->side + s->side_sent, side },
		{ ring_at(&s->tx, s->sent), ring },
	};
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	if (side == 0)
		n = send(s->io.fd, iov[1].iov_base, ring, MSG_NOSIGNAL);
	else
		n = sendmsg(s->io.fd, &mh, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
		return -errno;
	s->tp->counters.sends++;
	return n < 0 ? 0 : n;
}

/* Send what there is, as far as the socket takes it.  Returns 0 or -errno. */
static int push(struct tcp_session *s)
{
	size_t side, ring, taken, taken_side;
	ssize_t n;

	if (s->blocked || (s->state != TCP_HELLO && s->state != TCP_UP))
		return 0;
	if (s->state == TCP_UP)
		stamp(s);
	side = s->side_bytes - s->side_sent;
	ring = s->state == TCP_UP ? s->head - s->sent : 0;
	if (side + ring == 0)
		return 0;

	n = give(s, side, ring);
	if (n < 0)
		return (int)n;
	taken = (size_t)n;
	taken_side = taken < side ? taken : side;
	s->tp->counters.bytes_out += taken;
	s->side_sent += (unsigned)taken_side;
	s->sent += taken - taken_side;
	if (s->side_sent == s->side_bytes)
		s->side_sent = s->side_bytes = 0;
	if (taken < side + ring) {
		s->blocked = true;
		(void)loop_modify(s->tp->loop, &s->io, EPOLLIN | EPOLLOUT);
	}
	return 0;
}

void tcp_eager(struct tcp_session *s)
{
	/* An error is met again at the end of the turn. */
	if (s->head - s->sent >= TCP_EAGER_BYTES)
		(void)push(s);
}

void tcp_flush(struct tcp_session *s)
{
	int r;

	s->owing = false;
	r = push(s);
	if (r < 0)
		tcp_drop(s, r);
}

/* --- out of the ring ----------------------------------------------------- */

int tcp_acked(struct tcp_session *s, uint64_t seq)
{
	struct transport *tp = s->tp;

	if (seq <= s->acked)
		return 0;
	while (s->acked < seq) {
		const struct wire_hdr *hdr =
			(const void *)ring_at(&s->tx, s->tail);
		struct msg m;
		uint64_t end;

		if (s->tail == s->head)
			return -EPROTO;
		/* Our own words: only what is counted need be read. */
		m = (struct msg){
			.type = (enum msg_type)hdr->type,
			.flags = le16_get(hdr->flags),
			.mask = le64_get(hdr->mask),
			.arg = le64_get(hdr->arg),
			.payload_bytes = le32_get(hdr->payload_bytes),
		};
		end = s->tail + WIRE_HDR_BYTES + m.payload_bytes;
		if (end > s->sent)
			return -EPROTO;
		credit_acked(&s->credit, &m);
		s->tail = end;
		s->acked++;
	}
	if (s->tail == s->head)
		s->tail = s->sent = s->head = s->newest = 0;
	if (tp->handlers.acked)
		tp->handlers.acked(tp->arg, s->node, s->shard, seq);
	return 0;
}
