/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP proxy on the test's own loop: between two transports, it can lose the
 * connection in the middle of a message, or hold bytes back.
 */
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "loop/loop.h"

#define PROXY_PIPES 8 /* connections at once; older ones are cut */

/* One direction of one connection. */
struct proxy_half {
	struct loop_io io; /* we read here */
	struct proxy_pipe *pipe;
	struct proxy_half *to;
	uint8_t bytes[16384]; /* read, not yet written to `to` */
	size_t n;
	uint32_t watched; /* EPOLL* bits */
};

struct proxy_pipe {
	struct proxy_half half[2]; /* 0: the dialler's side */
	bool open;
};

struct proxy {
	struct loop *loop;
	struct loop_io listener;
	struct sockaddr_in target;
	struct proxy_pipe pipes[PROXY_PIPES];
	unsigned next;
	bool stalled;
};

static struct proxy proxy;

static void proxy_close(struct proxy_pipe *p)
{
	for (unsigned i = 0; i < 2 && p->open; i++) {
		loop_remove(proxy.loop, &p->half[i].io);
		close(p->half[i].io.fd);
	}
	p->open = false;
}

static void proxy_cut(void)
{
	for (unsigned i = 0; i < PROXY_PIPES; i++)
		proxy_close(&proxy.pipes[i]);
}

/* Read if there is room, write if there is something to. */
static void proxy_watch(struct proxy_half *h)
{
	uint32_t want = 0;

	if (h->n == 0 && !proxy.stalled)
		want |= EPOLLIN;
	if (h->to->n > 0 && !proxy.stalled)
		want |= EPOLLOUT;
	if (want != h->watched) {
		h->watched = want;
		assert_int_equal(loop_modify(proxy.loop, &h->io, want), 0);
	}
}

/* Returns false if the pipe is closed now. */
static bool proxy_write(struct proxy_half *h)
{
	ssize_t n =
		send(h->to->io.fd, h->bytes, h->n, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != ENOTCONN) {
		proxy_close(h->pipe);
		return false;
	}
	if (n > 0) {
		memmove(h->bytes, h->bytes + n, h->n - (size_t)n);
		h->n -= (size_t)n;
	}
	return true;
}

static void proxy_ready(struct loop_io *io, uint32_t events)
{
	struct proxy_half *h = container_of(io, struct proxy_half, io);

	if ((events & EPOLLOUT) && h->to->n > 0 && !proxy_write(h->to))
		return;
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && h->n == 0) {
		ssize_t n =
			recv(io->fd, h->bytes, sizeof(h->bytes), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			proxy_close(h->pipe);
			return;
		}
		h->n = n < 0 ? 0 : (size_t)n;
		if (h->n > 0 && !proxy_write(h))
			return;
	}
	proxy_watch(h);
	proxy_watch(h->to);
}

static void proxy_stall(bool on)
{
	proxy.stalled = on;
	for (unsigned i = 0; i < PROXY_PIPES; i++)
		for (unsigned k = 0; k < 2 && proxy.pipes[i].open; k++)
			proxy_watch(&proxy.pipes[i].half[k]);
}

static void proxy_accept(struct loop_io *io, uint32_t events)
{
	struct proxy_pipe *p = &proxy.pipes[proxy.next++ % PROXY_PIPES];
	int in = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int out =
		socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int fds[2] = { in, out };

	(void)events;
	assert_true(in >= 0 && out >= 0);
	assert_true(connect(out, (void *)&proxy.target, sizeof(proxy.target)) ==
	                    0 ||
	            errno == EINPROGRESS);
	proxy_close(p);
	for (unsigned i = 0; i < 2; i++) {
		struct proxy_half *h = &p->half[i];

		h->io = (struct loop_io){ .fd = fds[i], .ready = proxy_ready };
		h->pipe = p;
		h->to = &p->half[!i];
		h->n = 0;
		h->watched = EPOLLIN;
		assert_int_equal(loop_add(proxy.loop, &h->io, EPOLLIN), 0);
	}
	p->open = true;
}

/* Forward to `target` ("127.0.0.1:PORT"); `endpoint` is where we listen. */
static void proxy_start(struct loop *loop, const char *target, char *endpoint)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(a);
	unsigned port;

	assert_int_equal(sscanf(target, "127.0.0.1:%u", &port), 1);
	memset(&proxy, 0, sizeof(proxy));
	proxy.loop = loop;
	proxy.target = a;
	proxy.target.sin_port = htons((uint16_t)port);
	proxy.listener = (struct loop_io){
		.fd = socket(AF_INET,
		             SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
		.ready = proxy_accept,
	};
	assert_true(proxy.listener.fd >= 0);
	assert_int_equal(bind(proxy.listener.fd, (void *)&a, sizeof(a)), 0);
	assert_int_equal(listen(proxy.listener.fd, 16), 0);
	assert_int_equal(getsockname(proxy.listener.fd, (void *)&a, &bytes), 0);
	snprintf(endpoint, 64, "127.0.0.1:%u", ntohs(a.sin_port));
	assert_int_equal(loop_add(loop, &proxy.listener, EPOLLIN), 0);
}

static void proxy_stop(void)
{
	proxy_cut();
	loop_remove(proxy.loop, &proxy.listener);
	close(proxy.listener.fd);
}
