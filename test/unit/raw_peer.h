/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One transport, and a peer made by hand: a socket over which the test says
 * what no correct node would.
 *
 * The transport is node 5, incarnation 50, shard 0 of 2.  The peer by hand is
 * node 9, incarnation 90, shard 1 (it dials), unless a test says otherwise.
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

#include "base/crc32c.h"
#include "net/tcp.h"

#define HELLO_BYTES 128u
#define HANG        (30 * NSEC_PER_SEC)

/* A connection as its far end sees it. */
struct raw {
	struct loop_io io; /* fd -1: closed */
	uint8_t bytes[2u << 20];
	size_t n;     /* received */
	bool closed;  /* by the transport */
	uint64_t seq; /* of the last message sent */
};

static struct world {
	struct loop *loop;
	struct loop_hook hook;
	struct loop_timer hang;
	struct transport *tp, *tp1; /* shards 0 and 1 */
	char bound[64];
	bool (*done)(void);
	bool ok;
	/* What was heard. */
	unsigned ups, downs, brokens, readies, foreigns, messages;
	int why;
	char text[256];
	uint64_t acked;
	struct msg m;
	uint8_t payload[8];
	uint64_t goal;
	nsec_t silence_max;
	struct raw *who; /* raw_has_hello() looks at */
} w;

static struct raw raw;

/* --- handlers ------------------------------------------------------------ */

static void w_up(void *arg, node_id peer, uint8_t shard)
{
	(void)arg;
	(void)peer;
	(void)shard;
	w.ups++;
}

static void w_down(void *arg, node_id peer, uint8_t shard, int why)
{
	(void)arg;
	(void)peer;
	(void)shard;
	w.downs++;
	w.why = why;
}

static int w_message(void *arg, node_id peer, uint8_t shard,
                     const struct msg *m, const void *payload)
{
	(void)arg;
	(void)peer;
	(void)shard;
	w.messages++;
	w.m = *m;
	if (m->payload_bytes >= sizeof(w.payload))
		memcpy(w.payload, payload, sizeof(w.payload));
	return 0;
}

static void w_acked(void *arg, node_id peer, uint8_t shard, uint64_t seq)
{
	(void)arg;
	(void)peer;
	(void)shard;
	w.acked = seq;
}

static void w_broken(void *arg, node_id peer, uint8_t shard, int why,
                     const char *text)
{
	(void)arg;
	(void)peer;
	(void)shard;
	w.brokens++;
	w.why = why;
	snprintf(w.text, sizeof(w.text), "%s", text);
}

static void w_foreign(void *arg, int fd, const struct hello *h)
{
	(void)arg;
	w.foreigns++;
	tp_adopt(w.tp1, fd, h);
}

/* --- turning the loop ---------------------------------------------------- */

static void w_turn_end(struct loop_hook *h)
{
	(void)h;
	if (w.done && w.done()) {
		w.ok = true;
		loop_stop(w.loop);
	}
}

static void w_hang(struct loop_timer *t)
{
	(void)t;
	loop_stop(w.loop);
}

static void until(bool (*done)(void))
{
	w.done = done;
	w.ok = done();
	timer_start(w.loop, &w.hang, loop_now_fresh(w.loop) + HANG);
	if (!w.ok)
		assert_int_equal(loop_run(w.loop), 0);
	timer_stop(w.loop, &w.hang);
	w.done = NULL;
	assert_true(w.ok);
}

static struct tp_config raw_config(uint8_t shard)
{
	return (struct tp_config){
		.self = 5,
		.incarnation = 50,
		.shard = shard,
		.shards = 2,
		.cluster = { 'c' },
		.silence_max = w.silence_max,
		.redial = NSEC_PER_MSEC,
		.ack_delay = NSEC_PER_MSEC,
	};
}

static int peer_known(node_id node, uint64_t incarnation, uint8_t shard,
                      const char *endpoint)
{
	struct tp_peer_config cfg = { .node = node,
		                      .incarnation = incarnation,
		                      .shard = shard };

	snprintf(cfg.endpoint, sizeof(cfg.endpoint), "%s", endpoint);
	return tp_peer(w.tp, &cfg);
}

static int setup_silent(void **state, nsec_t silence_max)
{
	static const struct tp_handlers handlers = {
		.up = w_up,
		.down = w_down,
		.message = w_message,
		.acked = w_acked,
		.broken = w_broken,
		.foreign = w_foreign,
	};
	const struct loop_config lc = { .busy_poll_ns = 0 };
	struct tp_config cfg, cfg1;

	(void)state;
	memset(&w, 0, sizeof(w));
	w.silence_max = silence_max;
	cfg = raw_config(0);
	cfg1 = raw_config(1);
	raw.io.fd = -1;
	w.who = &raw;
	w.hook.turn_end = w_turn_end;
	w.hang.due = w_hang;
	assert_int_equal(loop_new(&lc, &w.loop, NULL), 0);
	assert_int_equal(tp_new(w.loop, &cfg, &handlers, NULL, &w.tp, NULL), 0);
	assert_int_equal(tp_new(w.loop, &cfg1, &handlers, NULL, &w.tp1, NULL),
	                 0);
	loop_hook_add(w.loop, &w.hook);
	assert_int_equal(tp_listen(w.tp, "127.0.0.1:0", w.bound, NULL), 0);
	assert_int_equal(peer_known(9, 90, 1, ""), 0);
	return 0;
}

static int setup(void **state)
{
	return setup_silent(state, 20 * NSEC_PER_SEC);
}

/* --- the peer's socket --------------------------------------------------- */

static void raw_ready(struct loop_io *io, uint32_t events)
{
	struct raw *r = container_of(io, struct raw, io);
	ssize_t n;

	(void)events;
	assert_true(r->n < sizeof(r->bytes));
	n = recv(io->fd, r->bytes + r->n, sizeof(r->bytes) - r->n,
	         MSG_DONTWAIT);
	if (n > 0) {
		r->n += (size_t)n;
	} else if (n == 0 || errno != EAGAIN) {
		r->closed = true;
		loop_remove(w.loop, io);
		close(io->fd);
		io->fd = -1;
	}
}

static void raw_close(struct raw *r)
{
	if (r->io.fd < 0)
		return;
	loop_remove(w.loop, &r->io);
	close(r->io.fd);
	r->io.fd = -1;
}

static int teardown(void **state)
{
	(void)state;
	raw_close(&raw);
	tp_free(w.tp);
	tp_free(w.tp1);
	loop_free(w.loop);
	return 0;
}

/* Take over `fd`, one end of a connection with the transport. */
static void raw_take(struct raw *r, int fd)
{
	r->io = (struct loop_io){ .fd = fd, .ready = raw_ready };
	r->n = 0;
	r->closed = false;
	assert_int_equal(loop_add(w.loop, &r->io, EPOLLIN), 0);
}

static inline void raw_dial(struct raw *r)
{
	struct address a;
	int fd;

	assert_int_equal(address_parse(w.bound, &a), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	/* The backlog takes it: nobody need accept for this to return. */
	assert_int_equal(connect(fd, (void *)&a.sa, a.bytes), 0);
	raw_take(r, fd);
}

static void raw_send(struct raw *r, const void *bytes, size_t n)
{
	assert_int_equal(send(r->io.fd, bytes, n, MSG_NOSIGNAL), n);
}

/* --- what it says -------------------------------------------------------- */

static const struct hello raw_hello = {
	.version_min = WIRE_VERSION,
	.version_max = WIRE_VERSION,
	.node = 9,
	.to_node = 5,
	.from_shard = 1,
	.to_shard = 0,
	.shards = 2,
	.incarnation = 90,
	.to_incarnation = 50,
	.cluster = { 'c' },
};

static void raw_write_hello(const struct hello *h, uint8_t bytes[HELLO_BYTES])
{
	struct msg m = { .type = MSG_HELLO,
		         .payload_bytes = sizeof(struct wire_hello) };
	struct wire_hello wire;
	struct wire_hdr hdr;

	hello_encode(h, &wire);
	wire_encode(&m, crc32c(&wire, sizeof(wire)), &hdr);
	memcpy(bytes, &hdr, sizeof(hdr));
	memcpy(bytes + sizeof(hdr), &wire, sizeof(wire));
}

static void raw_say_hello(struct raw *r, const struct hello *h)
{
	uint8_t bytes[HELLO_BYTES];

	raw_write_hello(h, bytes);
	raw_send(r, bytes, sizeof(bytes));
}

/* Numbered, with its payload's sum; returns its bytes in `out`. */
static size_t raw_write(struct raw *r, struct msg m, const void *payload,
                        uint8_t *out)
{
	if (m.seq == 0 && msg_class(m.type) != MSG_CLASS_NONE)
		m.seq = ++r->seq;
	wire_encode(&m, crc32c(payload, m.payload_bytes),
	            (struct wire_hdr *)out);
	if (payload)
		memcpy(out + WIRE_HDR_BYTES, payload, m.payload_bytes);
	return WIRE_HDR_BYTES + m.payload_bytes;
}

static void raw_say(struct raw *r, struct msg m, const void *payload)
{
	static uint8_t bytes[WIRE_HDR_BYTES + WIRE_PAYLOAD_BYTES_MAX];

	raw_send(r, bytes, raw_write(r, m, payload, bytes));
}

/* --- conditions ---------------------------------------------------------- */

static bool raw_is_closed(void)
{
	return raw.closed;
}

static inline bool raw_has_hello(void)
{
	return w.who->n >= HELLO_BYTES;
}

static bool raw_has_goal(void)
{
	return raw.n >= w.goal;
}

static bool has_messages(void)
{
	return w.messages >= w.goal;
}

static bool has_broken(void)
{
	return w.brokens > 0;
}

/* The hello that the transport sent first. */
static struct hello heard_hello(const struct raw *r)
{
	struct hello h;

	assert_int_equal(tcp_read_hello(r->bytes, &h), 0);
	return h;
}
