/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP transport and those it dials: here the peer by hand is node 1, to
 * which node 5 connects, and listens.
 */

#include "raw_peer.h"

static struct loop_io door; /* where the peer listens; fd -1: not yet */
static struct sockaddr_in door_address;
static unsigned visits;

/* Each visitor takes the place of the one before. */
static void door_ready(struct loop_io *io, uint32_t events)
{
	int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return; /* gone again */
	raw_close(&raw);
	raw_take(&raw, fd);
	visits++;
}

static void door_open(void)
{
	assert_int_equal(listen(door.fd, 16), 0);
	assert_int_equal(loop_add(w.loop, &door, EPOLLIN), 0);
}

static int setup_door(void **state)
{
	socklen_t bytes = sizeof(door_address);
	char endpoint[64];
	int r = setup(state);

	visits = 0;
	door_address = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	door = (struct loop_io){
		.fd = socket(AF_INET,
		             SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
		.ready = door_ready,
	};
	assert_true(door.fd >= 0);
	assert_int_equal(bind(door.fd, (void *)&door_address, bytes), 0);
	assert_int_equal(getsockname(door.fd, (void *)&door_address, &bytes),
	                 0);
	snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u",
	         ntohs(door_address.sin_port));
	assert_int_equal(peer_known(1, 10, 0, endpoint), 0);
	return r;
}

static int teardown_door(void **state)
{
	loop_remove(w.loop, &door);
	close(door.fd);
	return teardown(state);
}

/* Node 1's answer to the hello of node 5. */
static const struct hello answer = {
	.version_min = WIRE_VERSION,
	.version_max = WIRE_VERSION,
	.node = 1,
	.to_node = 5,
	.from_shard = 0,
	.to_shard = 0,
	.shards = 1,
	.incarnation = 10,
	.to_incarnation = 50,
	.cluster = { 'c' },
};

static bool somebody_is_there(void)
{
	return visits >= w.goal && raw.n >= HELLO_BYTES;
}

static bool is_up(void)
{
	return tp_connected(w.tp, 1, 0);
}

/* Wait for visit number `n`, whose hello is then in raw.bytes. */
static struct hello visit(unsigned n)
{
	w.goal = n;
	until(somebody_is_there);
	return heard_hello(&raw);
}

static void a_peer_is_dialled_until_it_is_there(void **state)
{
	struct msg forget = { .type = MSG_FORGET, .space = 1, .mask = 1 };
	struct hello h;

	(void)state;
	/* Bound and not listening: the first calls are refused. */
	assert_int_equal(tp_send(w.tp, 1, 0, &forget, NULL, 0, 0, NULL),
	                 TP_QUEUED);
	door_open();
	h = visit(1);
	assert_int_equal(h.node, 5);
	assert_int_equal(h.to_node, 1);
	assert_int_equal(h.to_incarnation, 10);
	/* Nothing follows a hello before it is answered. */
	assert_int_equal(raw.n, HELLO_BYTES);
	raw_say_hello(&raw, &answer);
	until(is_up);
	w.goal = HELLO_BYTES + WIRE_HDR_BYTES;
	until(raw_has_goal);
}

static void the_answer_may_come_in_pieces_and_in_company(void **state)
{
	uint8_t bytes[HELLO_BYTES + WIRE_HDR_BYTES];
	struct msg forget = { .type = MSG_FORGET, .space = 1, .mask = 1 };

	(void)state;
	door_open();
	visit(1);
	raw.seq = 0;
	raw_write_hello(&answer, bytes);
	raw_write(&raw, forget, NULL, bytes + HELLO_BYTES);
	raw_send(&raw, bytes, 100);
	raw_send(&raw, bytes + 100, sizeof(bytes) - 100);
	w.goal = 1;
	until(has_messages);
	assert_int_equal(w.ups, 1);
}

/* Whoever answers so is not our peer; the next one to listen there may be. */
static void not_our_peer(const struct hello *h)
{
	unsigned before = visits;

	raw_say_hello(&raw, h);
	visit(before + 1);
	assert_int_equal(w.ups + w.downs + w.brokens, 0);
}

static void somebody_else_s_answer_is_no_answer(void **state)
{
	uint8_t zeros[HELLO_BYTES] = { 0 };
	struct hello h;

	(void)state;
	door_open();
	visit(1);
	raw_send(&raw, zeros, sizeof(zeros));
	visit(2);
	h = answer;
	h.node = 2;
	not_our_peer(&h);
	h = answer;
	h.incarnation = 9;
	not_our_peer(&h);
	h = answer;
	h.to_incarnation = 49;
	not_our_peer(&h);
	h = answer;
	h.cluster[0] = 'd';
	not_our_peer(&h);
	h = answer;
	h.to_shard = 1;
	not_our_peer(&h);
	/* Not even if it says that all is over. */
	h = answer;
	h.node = 2;
	h.refusal = HELLO_ENDED;
	not_our_peer(&h);
	raw_say_hello(&raw, &answer);
	until(is_up);
}

/* The session is over, and there is nobody left to be told. */
static bool nothing_to_do(void)
{
	const struct tcp_session *s = tcp_find(w.tp, 1, 0);

	return s->over && !s->farewell && s->state == TCP_IDLE;
}

static void a_refusal_is_final(void **state)
{
	struct hello h = answer;

	(void)state;
	door_open();
	visit(1);
	h.refusal = HELLO_ENDED;
	raw_say_hello(&raw, &h);
	until(has_broken);
	assert_int_equal(w.why, -ECONNREFUSED);
	/* It is not dialled again. */
	until(nothing_to_do);
	assert_int_equal(visits, 1);
	assert_int_equal(w.ups, 0);
}

static void a_peer_without_our_version_is_final_too(void **state)
{
	struct hello h = answer;

	(void)state;
	door_open();
	visit(1);
	h.version_min = 8;
	h.version_max = 9;
	h.refusal = HELLO_VERSION;
	raw_say_hello(&raw, &h);
	until(has_broken);
	assert_int_equal(w.why, -ECONNREFUSED);
	assert_non_null(strstr(w.text, "version"));
}

static void who_lied_to_us_is_told_so(void **state)
{
	struct msg again = { .type = MSG_AGAIN, .space = 1, .mask = 1 };
	struct hello h;

	(void)state;
	door_open();
	visit(1);
	raw_say_hello(&raw, &answer);
	until(is_up);
	raw.seq = 0;
	raw_say(&raw, again, NULL);
	until(has_broken);
	assert_int_equal(w.why, -EPROTO);
	h = visit(2);
	assert_int_equal(h.refusal, HELLO_ENDED);
	until(raw_is_closed);
	until(nothing_to_do);
	assert_int_equal(visits, 2);
	assert_int_equal(w.brokens, 1);
}

static void a_peer_that_hangs_up_is_dialled_again(void **state)
{
	struct msg forget = { .type = MSG_FORGET, .space = 1, .mask = 1 };
	struct hello h = answer;

	(void)state;
	door_open();
	visit(1);
	raw_say_hello(&raw, &h);
	until(is_up);
	raw.seq = 0;
	raw_say(&raw, forget, NULL);
	w.goal = 1;
	until(has_messages);
	raw_close(&raw);
	h = visit(2);
	assert_int_equal(h.applied, 1);
	assert_int_equal(w.downs, 1);
	/* A peer that forgot what it was told is not believed. */
	assert_int_equal(h.refusal, HELLO_WELCOME);
	raw_say_hello(&raw, &answer);
	until(is_up);
	assert_int_equal(w.ups, 2);
}

static void a_place_to_dial_must_be_one(void **state)
{
	(void)state;
	assert_int_equal(peer_known(2, 10, 0, "somewhere:1"), -EINVAL);
	assert_int_equal(peer_known(2, 10, 0, ""), -EINVAL);
	assert_int_equal(peer_known(5, 10, 0, "127.0.0.1:1"), -EINVAL);
	assert_int_equal(peer_known(1024, 10, 0, ""), -EINVAL);
	assert_int_equal(peer_known(7, 10, SHARDS_MAX, ""), -EINVAL);
	/* Who dials us need not say where it is. */
	assert_int_equal(peer_known(7, 10, 0, ""), 0);
}

static void a_place_to_listen_must_be_free(void **state)
{
	struct errmsg em;
	char bound[64];

	(void)state;
	assert_int_equal(tp_listen(w.tp1, w.bound, bound, &em), -EADDRINUSE);
	assert_non_null(strstr(em.text, w.bound));
	assert_int_equal(tp_listen(w.tp1, "localhost:0", bound, &em), -EINVAL);
	assert_non_null(strstr(em.text, "localhost:0"));
	assert_int_equal(tp_listen(w.tp1, "192.0.2.1:0", bound, &em),
	                 -EADDRNOTAVAIL);
	assert_int_equal(tp_listen(w.tp1, "127.0.0.1:0", bound, &em), 0);
}

static void a_transport_needs_sensible_numbers(void **state)
{
	struct tp_config cfg = raw_config(0);
	const struct tp_handlers none = { .up = NULL };
	struct transport *tp = NULL;
	struct errmsg em;

	(void)state;
	cfg.shard = 2;
	assert_int_equal(tp_new(w.loop, &cfg, &none, NULL, &tp, &em), -EINVAL);
	cfg = raw_config(0);
	cfg.redial = 0;
	assert_int_equal(tp_new(w.loop, &cfg, &none, NULL, &tp, &em), -EINVAL);
	cfg = raw_config(0);
	cfg.self = NODE_NONE;
	assert_int_equal(tp_new(w.loop, &cfg, &none, NULL, &tp, &em), -EINVAL);
	assert_null(tp);
	assert_null(tp_free(NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup_door, teardown_door)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_peer_is_dialled_until_it_is_there),
		T(the_answer_may_come_in_pieces_and_in_company),
		T(somebody_else_s_answer_is_no_answer),
		T(a_refusal_is_final),
		T(a_peer_without_our_version_is_final_too),
		T(who_lied_to_us_is_told_so),
		T(a_peer_that_hangs_up_is_dialled_again),
		T(a_place_to_dial_must_be_one),
		T(a_place_to_listen_must_be_free),
		T(a_transport_needs_sensible_numbers),
	};

	return cmocka_run_group_tests_name("tcp_dial", tests, NULL, NULL);
}
