/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening, and guests: accepted connections of which nobody knows yet who
 * speaks.
 *
 * Anybody may connect, so guests are few, cost a hundred bytes each, are given
 * five seconds, and are sent nothing.  Who is no peer of ours is let go quietly
 * and counted.  Exactly a hello is read: what follows belongs to the session,
 * perhaps of another shard, which gets the descriptor.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "net/tcp.h"

#define ACCEPTS_MAX 16 /* of one wake-up; the rest after everybody's turn */
#define BACKLOG     256
/* Out of descriptors, listening would wake us again and again. */
#define LISTEN_PAUSE (100 * NSEC_PER_MSEC)

static void dismiss(struct tcp_guest *g)
{
	loop_remove(g->tp->loop, &g->io);
	close(TAKE_FD(g->io.fd));
	g->tp->counters.refused++;
}

/* The hello is complete: pass the connection on, or close it. */
static void introduce(struct tcp_guest *g)
{
	struct transport *tp = g->tp;
	struct hello h;

	if (tcp_read_hello(g->bytes, &h) < 0) {
		dismiss(g);
		return;
	}
	loop_remove(tp->loop, &g->io);
	if (h.to_shard != tp->cfg.shard && h.to_shard < tp->cfg.shards &&
	    tp->handlers.foreign)
		tp->handlers.foreign(tp->arg, TAKE_FD(g->io.fd), &h);
	else
		tcp_welcome(tp, TAKE_FD(g->io.fd), &h);
}

static void guest_ready(struct loop_io *io, uint32_t events)
{
	struct tcp_guest *g = container_of(io, struct tcp_guest, io);
	ssize_t n;

	(void)events; /* EPOLLHUP and EPOLLERR show up as a failing read */
	tcp_turn(g->tp);
	n = recv(io->fd, g->bytes + g->got, sizeof(g->bytes) - g->got, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		dismiss(g);
		return;
	}
	g->got += (unsigned)n;
	/* Who does not even begin like us need not be waited for. */
	if (memcmp(g->bytes, "mspn", g->got < 4 ? g->got : 4) != 0)
		dismiss(g);
	else if (g->got == sizeof(g->bytes))
		introduce(g);
}

/* A free place, if need be that of the guest who has been silent longest. */
static struct tcp_guest *guest_place(struct transport *tp)
{
	struct tcp_guest *oldest = &tp->guests[0];

	for (unsigned i = 0; i < TCP_GUESTS_MAX; i++) {
		struct tcp_guest *g = &tp->guests[i];

		if (g->io.fd < 0)
			return g;
		if (g->since < oldest->since)
			oldest = g;
	}
	dismiss(oldest);
	return oldest;
}

static void guest_add(struct transport *tp, int fd)
{
	struct tcp_guest *g = guest_place(tp);

	*g = (struct tcp_guest){
		.tp = tp,
		.io = { .fd = fd, .ready = guest_ready },
		.since = loop_now(tp->loop),
	};
	if (loop_add(tp->loop, &g->io, EPOLLIN) < 0) {
		close(TAKE_FD(g->io.fd));
		return;
	}
	tcp_chores_by(tp, g->since + TCP_HELLO_NS);
}

static void listener_ready(struct loop_io *io, uint32_t events)
{
	struct transport *tp = container_of(io, struct transport, listener);

	(void)events;
	tcp_turn(tp);
	for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
		int fd = accept4(io->fd, NULL, NULL,
		                 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			guest_add(tp, fd);
		} else if (errno == EMFILE || errno == ENFILE ||
		           errno == ENOBUFS || errno == ENOMEM) {
			tp->listen_again = loop_now(tp->loop) + LISTEN_PAUSE;
			loop_remove(tp->loop, io);
			tcp_chores_by(tp, tp->listen_again);
			return;
		} else if (errno == EAGAIN) {
			return;
		}
		/* Else the one that waited is gone: on to the next. */
	}
}

nsec_t tcp_accept_chores(struct transport *tp, nsec_t now)
{
	nsec_t at = UINT64_MAX;

	for (unsigned i = 0; i < TCP_GUESTS_MAX; i++) {
		struct tcp_guest *g = &tp->guests[i];

		if (g->io.fd < 0)
			continue;
		if (g->since + TCP_HELLO_NS <= now)
			dismiss(g);
		else
			at = min_u64(at, g->since + TCP_HELLO_NS);
	}
	if (tp->listen_again == 0)
		return at;
	if (tp->listen_again > now)
		return min_u64(at, tp->listen_again);
	tp->listen_again = 0;
	if (loop_add(tp->loop, &tp->listener, EPOLLIN) < 0) {
		/* epoll is out of memory too: later. */
		tp->listen_again = now + LISTEN_PAUSE;
		at = min_u64(at, tp->listen_again);
	}
	return at;
}

static int listen_at(const struct address *a, int *ret)
{
	AUTO_CLOSE int fd = -1;
	int one = 1;

	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	            0);
	if (fd < 0)
		return -errno;
	/* Connections of a node that ran here before must not be in the way. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		return -errno;
	if (bind(fd, (const void *)&a->sa, a->bytes) < 0)
		return -errno;
	if (listen(fd, BACKLOG) < 0)
		return -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

int tp_bind(const char *address, char *bound, struct errmsg *em)
{
	struct address a;
	int fd = -1;
	int r;

	if (address_parse(address, &a) < 0)
		return errmsg_say(em, -EINVAL,
		                  "'%s' is no numeric HOST:PORT, such as "
		                  "127.0.0.1:50051 or [::1]:50051",
		                  address);
	r = listen_at(&a, &fd);
	if (r < 0)
		return errmsg_set(em, r, "cannot listen at %s", address);
	a.bytes = sizeof(a.sa);
	(void)getsockname(fd, (void *)&a.sa, &a.bytes); /* it is bound */
	address_print(&a, bound);
	return fd;
}

int tp_accept(struct transport *tp, int fd, struct errmsg *em)
{
	int r;

	assert(tp->listener.fd < 0);
	tp->listener = (struct loop_io){ .fd = fd, .ready = listener_ready };
	r = loop_add(tp->loop, &tp->listener, EPOLLIN);
	if (r < 0) {
		close(TAKE_FD(tp->listener.fd));
		return errmsg_set(em, r, "cannot watch a listening socket");
	}
	return 0;
}

int tp_listen(struct transport *tp, const char *address, char *bound,
              struct errmsg *em)
{
	int fd = tp_bind(address, bound, em);

	return fd < 0 ? fd : tp_accept(tp, fd, em);
}

void tcp_accept_done(struct transport *tp)
{
	for (unsigned i = 0; i < TCP_GUESTS_MAX; i++)
		if (tp->guests[i].io.fd >= 0)
			dismiss(&tp->guests[i]);
	if (tp->listener.fd >= 0) {
		loop_remove(tp->loop, &tp->listener);
		close(TAKE_FD(tp->listener.fd));
	}
}
