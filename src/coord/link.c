/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node port's connections.
 *
 * A link reads into one buffer that begins small and grows only when a header
 * that is valid, from a node that was greeted, announces more.  So a stranger
 * costs 4 KiB, and nobody can make us take more than one message's size.
 *
 * A link ends in one of two ways.  Dropped: closed at once.  Ended: its queue
 * is sent, then the write side is shut, then what the peer still sends is read
 * and thrown away until it closes too, for to close a socket with unread bytes
 * would reset it, and the last word (why we end it) could be lost on the way.
 */

#include "coord/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/crc32c.h"

#define IN_BYTES_FIRST  4096u
#define IN_BYTES_MAX    (WIRE_HDR_BYTES + WIRE_PAYLOAD_BYTES_MAX)
#define OUT_BYTES_FIRST 4096u
#define ACCEPTS_A_TURN  32u
#define LINGER_NS       (2 * NSEC_PER_SEC)

/* --- ends ---------------------------------------------------------------- */

static void tell_ended(struct link *l, const char *why)
{
	assert(why);
	/* Once: whoever dropped it while it ended knows already. */
	if (l->ending)
		return;
	l->ending = true;
	l->owner->handlers->ended(l, why, l->owner->arg);
}

void link_drop(struct link *l, const char *why)
{
	if (l->io.fd < 0)
		return;
	timer_stop(l->owner->loop, &l->timer);
	loop_remove(l->owner->loop, &l->io);
	close(l->io.fd);
	l->io.fd = -1;
	tell_ended(l, why);
}

void link_end(struct link *l, const char *why)
{
	if (l->io.fd < 0)
		return;
	timer_start(l->owner->loop, &l->timer,
	            loop_now(l->owner->loop) + LINGER_NS);
	if (link_queued(l) == 0)
		(void)shutdown(l->io.fd, SHUT_WR); /* gone: no matter */
	tell_ended(l, why);
}

static void link_free(struct link *l)
{
	assert(l->timer.index == 0); /* or the loop would call a ghost */
	free(l->in);
	free(l->out);
	free(l);
}

static void out_of_patience(struct loop_timer *t)
{
	struct link *l = container_of(t, struct link, timer);

	link_drop(l, l->greeted ? "it does not read" : "it said no hello");
}

void link_greet(struct link *l)
{
	assert(!l->greeted);
	l->greeted = true;
	timer_stop(l->owner->loop, &l->timer);
}

/* --- sending ------------------------------------------------------------- */

/*
 * Room for `bytes` more behind what is queued: 0 or -ENOMEM, -ENOBUFS.  What
 * was sent is moved out of the way before the buffer grows.
 */
static int out_room(struct link *l, size_t bytes)
{
	size_t queued = l->out_bytes - l->out_at;
	size_t room = l->out_room > 0 ? l->out_room : OUT_BYTES_FIRST;
	uint8_t *p;

	if (bytes > LINK_QUEUE_MAX - queued)
		return -ENOBUFS;
	if (l->out_room - l->out_bytes >= bytes)
		return 0;
	if (l->out_at > 0) {
		memmove(l->out, l->out + l->out_at, queued);
		l->out_at = 0;
		l->out_bytes = queued;
	}
	assert(l->out_at == 0);
	while (room - queued < bytes)
		room *= 2;
	if (room == l->out_room)
		return 0;
	p = realloc(l->out, room);
	if (!p)
		return -ENOMEM;
	l->out = p;
	l->out_room = room;
	return 0;
}

void link_send(struct link *l, const struct msg *m, const void *payload)
{
	size_t bytes = WIRE_HDR_BYTES + m->payload_bytes;
	uint32_t crc = crc32c(payload, m->payload_bytes);
	struct msg numbered = *m;
	struct wire_hdr hdr;
	int r;

	if (l->ending)
		return;
	r = out_room(l, bytes);
	if (r < 0) {
		link_drop(l, r == -ENOBUFS ? "its queue is full" :
		                             "out of memory");
		return;
	}
	if (msg_class(m->type) != MSG_CLASS_NONE)
		numbered.seq = ++l->seq_out;
	if (m->type != MSG_HELLO)
		numbered.ack = l->seq_in;
	wire_encode(&numbered, crc, &hdr);
	memcpy(l->out + l->out_bytes, &hdr, sizeof(hdr));
	if (m->payload_bytes > 0)
		memcpy(l->out + l->out_bytes + sizeof(hdr), payload,
		       m->payload_bytes);
	l->out_bytes += bytes;
}

size_t link_queued(const struct link *l)
{
	return l->out_bytes - l->out_at;
}

static void watch(struct link *l, bool blocked)
{
	if (l->blocked == blocked)
		return;
	l->blocked = blocked;
	if (loop_modify(l->owner->loop, &l->io,
	                blocked ? EPOLLIN | EPOLLOUT : EPOLLIN) < 0)
		link_drop(l, "epoll fails");
}

/*
 * Send what is queued, in one call.  What does not fit waits for EPOLLOUT; a
 * peer that takes nothing at all for LINK_STALL_NS is given up.
 */
static void flush(struct link *l)
{
	ssize_t n;

	assert(l->out_at <= l->out_bytes);
	assert(l->out_bytes <= l->out_room);
	if (link_queued(l) == 0)
		return;
	n = send(l->io.fd, l->out + l->out_at, link_queued(l), MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		link_drop(l, strerrordesc_np(errno));
		return;
	}
	if (n > 0)
		l->out_at += (size_t)n;
	if (link_queued(l) == 0) {
		l->out_at = l->out_bytes = 0;
		if (l->ending)
			(void)shutdown(l->io.fd, SHUT_WR); /* gone: no matter */
		else if (l->greeted)
			timer_stop(l->owner->loop, &l->timer);
		watch(l, false);
		return;
	}
	/* Its patience begins anew with each byte that it takes. */
	if (!l->ending && l->greeted && (n > 0 || l->timer.index == 0))
		timer_start(l->owner->loop, &l->timer,
		            loop_now(l->owner->loop) + LINK_STALL_NS);
	watch(l, true);
}

/* --- receiving ----------------------------------------------------------- */

/* Why a message that is not right ends the link. */
static const char *fault_text(int r)
{
	switch (-r) {
	case EPROTONOSUPPORT:
		return "it speaks another version of the protocol";
	case EBADMSG:
		return "it sent what is no message, or damaged";
	default:
		return "it sent a message out of range";
	}
}

/* May this message come now? */
static const char *out_of_turn(struct link *l, const struct msg *m)
{
	if (m->type == MSG_HELLO)
		return l->greeted ? "it said hello twice" : NULL;
	if (!l->greeted)
		return "it did not begin with a hello";
	if (msg_class(m->type) == MSG_CLASS_NONE)
		return NULL;
	if (msg_class(m->type) != MSG_CLASS_CONTROL)
		return "it sent a message about pages";
	if (m->seq != l->seq_in + 1)
		return "a message is missing before one that it sent";
	l->seq_in = m->seq;
	return NULL;
}

/*
 * Take one message off the front of [at, in_bytes).  Returns its size, 0 if it
 * is not whole yet, or -errno when the link was ended.
 */
static ssize_t take(struct link *l, size_t at)
{
	size_t here = l->in_bytes - at, whole;
	const uint8_t *payload = l->in + at + WIRE_HDR_BYTES;
	const char *why;
	struct wire_hdr hdr;
	struct msg m;
	uint32_t crc;
	int r;

	if (here < WIRE_HDR_BYTES)
		return 0;
	memcpy(&hdr, l->in + at, sizeof(hdr));
	r = wire_decode(&hdr, &m, &crc);
	if (r < 0) {
		link_drop(l, fault_text(r));
		return -EPROTO;
	}
	whole = WIRE_HDR_BYTES + m.payload_bytes;
	if (whole > l->in_room && !l->greeted) {
		link_drop(l, "it did not begin with a hello");
		return -EPROTO;
	}
	if (here < whole)
		return 0;
	if (crc32c(payload, m.payload_bytes) != crc) {
		link_drop(l, fault_text(-EBADMSG));
		return -EPROTO;
	}
	why = out_of_turn(l, &m);
	if (why) {
		link_drop(l, why);
		return -EPROTO;
	}
	if (m.type == MSG_PING)
		link_send(l, &(struct msg){ .type = MSG_ACKED }, NULL);
	else if (m.type != MSG_ACKED)
		l->owner->handlers->message(l, &m, payload, l->owner->arg);
	return l->ending ? -ECANCELED : (ssize_t)whole;
}

/* Make room for the rest of the message whose beginning is in the buffer. */
static int in_room(struct link *l)
{
	size_t need = IN_BYTES_FIRST;
	struct wire_hdr hdr;
	uint8_t *p;

	if (l->in_bytes >= WIRE_HDR_BYTES) {
		/* take() has found this header to be valid. */
		memcpy(&hdr, l->in, sizeof(hdr));
		need = WIRE_HDR_BYTES + le32_get(hdr.payload_bytes);
	}
	if (need <= l->in_room)
		return 0;
	/* Only who was greeted gets so far: see take(). */
	assert(l->greeted);
	assert(need <= IN_BYTES_MAX);
	p = realloc(l->in, need);
	if (!p)
		return -ENOMEM;
	l->in = p;
	l->in_room = need;
	return 0;
}

/* Hand on all whole messages, and keep the rest at the buffer's beginning. */
static void take_all(struct link *l)
{
	size_t at = 0;
	ssize_t n;

	while ((n = take(l, at)) > 0)
		at += (size_t)n;
	if (n < 0)
		return;
	memmove(l->in, l->in + at, l->in_bytes - at);
	l->in_bytes -= at;
	if (in_room(l) < 0)
		link_drop(l, "out of memory");
}

static void ready(struct loop_io *io, uint32_t events)
{
	struct link *l = container_of(io, struct link, io);
	ssize_t n;

	if (events & EPOLLOUT)
		flush(l);
	if (l->io.fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (l->ending)
		l->in_bytes = 0; /* thrown away */
	/* in_room() has left room for at least the rest of one message. */
	assert(l->in_bytes < l->in_room);
	n = recv(l->io.fd, l->in + l->in_bytes, l->in_room - l->in_bytes, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		link_drop(l, n == 0 ? "it closed the connection" :
		                      strerrordesc_np(errno));
		return;
	}
	l->in_bytes += (size_t)n;
	if (!l->ending)
		take_all(l);
}

/* --- connections --------------------------------------------------------- */

static void peer_text(const struct sockaddr_storage *a, char *buf, size_t bytes)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)a;

		(void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(buf, bytes, "%s:%u", host, ntohs(in->sin_port));
	} else {
		const struct sockaddr_in6 *in6 = (const void *)a;

		(void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(buf, bytes, "[%s]:%u", host, ntohs(in6->sin6_port));
	}
}

static int link_new(struct links *ls, int fd, const struct sockaddr_storage *a)
{
	struct link *l = calloc(1, sizeof(*l));
	int one = 1, r;

	if (!l)
		return -ENOMEM;
	l->in = malloc(IN_BYTES_FIRST);
	if (!l->in) {
		link_free(l);
		return -ENOMEM;
	}
	l->in_room = IN_BYTES_FIRST;
	l->owner = ls;
	l->io = (struct loop_io){ .fd = fd, .ready = ready };
	l->timer.due = out_of_patience;
	peer_text(a, l->peer, sizeof(l->peer));
	/* Leases are small and urgent; without it they may wait 40 ms. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	r = loop_add(ls->loop, &l->io, EPOLLIN);
	if (r < 0) {
		link_free(l);
		return r;
	}
	timer_start(ls->loop, &l->timer, loop_now(ls->loop) + LINK_HELLO_NS);
	l->next = ls->first;
	ls->first = l;
	ls->n++;
	return 0;
}

static void accept_ready(struct loop_io *io, uint32_t events)
{
	struct links *ls = container_of(io, struct links, listener);

	(void)events;
	for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
		struct sockaddr_storage a;
		socklen_t bytes = sizeof(a);
		int fd = accept4(io->fd, (struct sockaddr *)&a, &bytes,
		                 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE ||
		               errno == ENOMEM || errno == ENOBUFS)) {
			/* It stays readable: without a rest this would spin. */
			loop_remove(ls->loop, io);
			timer_start(ls->loop, &ls->rest,
			            loop_now(ls->loop) + NSEC_PER_SEC);
			return;
		}
		if (fd < 0)
			return;
		if (ls->n >= LINKS_MAX || link_new(ls, fd, &a) < 0)
			close(fd);
	}
}

static void rested(struct loop_timer *t)
{
	struct links *ls = container_of(t, struct links, rest);

	if (loop_add(ls->loop, &ls->listener, EPOLLIN) < 0)
		timer_start(ls->loop, &ls->rest,
		            loop_now(ls->loop) + NSEC_PER_SEC);
}

int links_start(struct links *ls, struct loop *loop, int fd,
                const struct links_handlers *handlers, void *arg,
                struct errmsg *em)
{
	int r;

	*ls = (struct links){
		.loop = loop,
		.handlers = handlers,
		.arg = arg,
		.listener = { .fd = fd, .ready = accept_ready },
		.rest = { .due = rested },
	};
	r = loop_add(loop, &ls->listener, EPOLLIN);
	if (r < 0) {
		close(fd);
		ls->listener.fd = -1;
		return errmsg_set(em, r, "cannot watch the node port");
	}
	return 0;
}

void links_flush(struct links *ls)
{
	struct link **at = &ls->first;
	bool again = true;

	/*
	 * A drop in here may queue something to the others.  Each pass leaves a
	 * link empty, blocked or dropped, so passes come to an end.
	 */
	while (again) {
		again = false;
		for (struct link *l = ls->first; l; l = l->next) {
			if (l->io.fd < 0 || l->blocked || link_queued(l) == 0)
				continue;
			flush(l);
			again = true;
		}
	}
	while (*at) {
		struct link *l = *at;

		if (l->io.fd >= 0) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		ls->n--;
		link_free(l);
	}
}

void links_done(struct links *ls)
{
	if (!ls->loop)
		return;
	for (struct link *l = ls->first; l; l = l->next)
		l->ending = true; /* nobody is told */
	for (struct link *l = ls->first; l; l = l->next)
		link_drop(l, "");
	links_flush(ls);
	timer_stop(ls->loop, &ls->rest);
	loop_remove(ls->loop, &ls->listener);
	if (ls->listener.fd >= 0)
		close(ls->listener.fd);
	ls->loop = NULL;
}
