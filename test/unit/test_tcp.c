/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP transport and those who connect to it: strangers, latecomers, liars.
 */

#include <sys/resource.h>

#include "raw_peer.h"

/* --- connecting -------------------------------------------------------- */

static bool has_down(void)
{
	return w.downs > 0;
}

/* Connect and be welcomed. */
static void raw_connect(struct raw *r, uint64_t applied)
{
	struct hello h = raw_hello;

	h.applied = applied;
	raw_dial(r);
	raw_say_hello(r, &h);
	w.who = r;
	until(raw_has_hello);
	w.who = &raw;
	assert_true(tp_connected(w.tp, 9, 1));
}

/* --- strangers --------------------------------------------------------- */

static void turned_away(const void *bytes, size_t n)
{
	uint64_t refused;
	struct tp_counters c;

	tp_counters(w.tp, &c);
	refused = c.refused;
	raw_dial(&raw);
	raw_send(&raw, bytes, n);
	until(raw_is_closed);
	tp_counters(w.tp, &c);
	assert_int_equal(c.refused, refused + 1);
	/* Not a word, and nobody was bothered. */
	assert_int_equal(raw.n, 0);
	assert_int_equal(w.ups + w.downs + w.brokens + w.messages, 0);
}

static void garbage_is_turned_away_quietly(void **state)
{
	static const char http[] = "GET / HTTP/1.0\r\n\r\n";
	uint8_t bytes[HELLO_BYTES] = { 0 };

	(void)state;
	turned_away(http, sizeof(http) - 1);
	turned_away(bytes, 1);
	turned_away(bytes, sizeof(bytes));
	raw_write_hello(&raw_hello, bytes);
	for (size_t bit = 0; bit < 8 * sizeof(bytes); bit += 3) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		turned_away(bytes, sizeof(bytes));
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static bool nobody_is_waiting(void)
{
	for (unsigned i = 0; i < TCP_GUESTS_MAX; i++)
		if (w.tp->guests[i].io.fd >= 0)
			return false;
	return w.tp->counters.refused > 0;
}

static void who_hangs_up_early_is_forgotten(void **state)
{
	uint8_t bytes[HELLO_BYTES];

	(void)state;
	raw_write_hello(&raw_hello, bytes);
	for (size_t n = 0; n < sizeof(bytes); n += 9) {
		w.tp->counters.refused = 0;
		raw_dial(&raw);
		raw_send(&raw, bytes, n);
		raw_close(&raw);
		until(nobody_is_waiting);
	}
	assert_int_equal(w.ups, 0);
}

static void hello_turned_away(const struct hello *h)
{
	uint8_t bytes[HELLO_BYTES];

	raw_write_hello(h, bytes);
	turned_away(bytes, sizeof(bytes));
}

static void hellos_for_others_are_turned_away(void **state)
{
	struct hello h;

	(void)state;
	h = raw_hello;
	h.cluster[15] = 1;
	hello_turned_away(&h);
	h = raw_hello;
	h.to_node = 6;
	hello_turned_away(&h);
	h = raw_hello;
	h.to_incarnation = 49;
	hello_turned_away(&h);
	h = raw_hello;
	h.to_shard = 2; /* we have two */
	hello_turned_away(&h);
}

static void hellos_of_strangers_are_turned_away(void **state)
{
	struct hello h;

	(void)state;
	h = raw_hello;
	h.node = 8;
	hello_turned_away(&h);
	h = raw_hello;
	h.incarnation = 91;
	hello_turned_away(&h);
	h = raw_hello;
	h.from_shard = 0;
	hello_turned_away(&h);
	/* A lower id is to be dialled, not to dial. */
	assert_int_equal(peer_known(1, 90, 1, "127.0.0.1:1"), 0);
	h = raw_hello;
	h.node = 1;
	hello_turned_away(&h);
}

static void a_latecomer_is_welcome_once_it_is_known(void **state)
{
	struct hello h = raw_hello;

	(void)state;
	h.incarnation = 91;
	hello_turned_away(&h);
	assert_int_equal(peer_known(9, 91, 1, ""), 0);
	raw_dial(&raw);
	raw_say_hello(&raw, &h);
	until(raw_has_hello);
	assert_int_equal(w.ups, 1);
}

static struct raw crowd[TCP_GUESTS_MAX];

static bool some_crowd_is_gone(void)
{
	return crowd[0].closed;
}

static void a_crowd_that_says_nothing_does_not_keep_others_out(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TCP_GUESTS_MAX; i++)
		raw_dial(&crowd[i]);
	raw_connect(&raw, 0);
	/* The oldest had to make room. */
	until(some_crowd_is_gone);
	for (unsigned i = 1; i < TCP_GUESTS_MAX; i++) {
		assert_false(crowd[i].closed);
		raw_close(&crowd[i]);
	}
}

static bool listening_pauses(void)
{
	return w.tp->listen_again != 0;
}

static void out_of_descriptors_is_not_the_end(void **state)
{
	struct rlimit limit, few;
	int free_fd;

	(void)state;
	raw_dial(&raw);
	raw_say_hello(&raw, &raw_hello);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	free_fd = dup(0);
	assert_true(free_fd > 0);
	close(free_fd);
	few = limit;
	few.rlim_cur = (rlim_t)free_fd;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	until(listening_pauses);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	until(raw_has_hello);
	assert_int_equal(w.ups, 1);
}

/* --- hello ------------------------------------------------------------- */

static void a_hello_is_answered(void **state)
{
	struct hello h;

	(void)state;
	raw_connect(&raw, 0);
	h = heard_hello(&raw);
	assert_int_equal(h.node, 5);
	assert_int_equal(h.to_node, 9);
	assert_int_equal(h.incarnation, 50);
	assert_int_equal(h.to_incarnation, 90);
	assert_int_equal(h.from_shard, 0);
	assert_int_equal(h.to_shard, 1);
	assert_int_equal(h.shards, 2);
	assert_int_equal(h.applied, 0);
	assert_int_equal(h.refusal, HELLO_WELCOME);
	assert_memory_equal(h.cluster, raw_hello.cluster, 16);
}

static void another_version_is_told_why(void **state)
{
	struct hello h = raw_hello;

	(void)state;
	h.version_min = 2;
	h.version_max = 3;
	raw_dial(&raw);
	raw_say_hello(&raw, &h);
	until(raw_is_closed);
	h = heard_hello(&raw);
	assert_int_equal(h.refusal, HELLO_VERSION);
	assert_int_equal(h.version_max, WIRE_VERSION);
	assert_int_equal(w.brokens, 1);
	assert_int_equal(w.why, -EPROTONOSUPPORT);
	assert_non_null(strstr(w.text, "2 to 3"));
}

static void a_newer_node_that_speaks_ours_too_is_welcome(void **state)
{
	struct hello h = raw_hello;

	(void)state;
	h.version_max = 7;
	h.features = 0xffff;
	raw_dial(&raw);
	raw_say_hello(&raw, &h);
	until(raw_has_hello);
	assert_int_equal(w.ups, 1);
}

static void another_shard_gets_its_connection(void **state)
{
	struct tp_peer_config cfg = { .node = 9,
		                      .incarnation = 90,
		                      .shard = 1 };
	struct hello h = raw_hello;

	(void)state;
	h.to_shard = 1;
	assert_int_equal(tp_peer(w.tp1, &cfg), 0);
	raw_dial(&raw);
	raw_say_hello(&raw, &h);
	until(raw_has_hello);
	assert_int_equal(w.foreigns, 1);
	assert_int_equal(heard_hello(&raw).from_shard, 1);
	assert_true(tp_connected(w.tp1, 9, 1));
	assert_false(tp_connected(w.tp, 9, 1));
}

static bool both_are_there(void)
{
	return w.ups == 2;
}

static void a_second_connection_replaces_the_first(void **state)
{
	struct msg inval = { .type = MSG_INVAL, .space = 1, .mask = 1 };

	(void)state;
	raw_connect(&crowd[0], 0);
	raw_dial(&raw);
	raw_say_hello(&raw, &raw_hello);
	until(both_are_there);
	until(some_crowd_is_gone);
	assert_int_equal(w.downs, 1);
	raw.seq = 0;
	raw_say(&raw, inval, NULL);
	w.goal = 1;
	until(has_messages);
}

/* --- sessions ---------------------------------------------------------- */

static const struct msg forget = { .type = MSG_FORGET, .space = 1, .mask = 1 };
static const struct msg get_s = { .type = MSG_GET_S, .space = 1, .mask = 1 };

static void what_comes_again_is_dropped(void **state)
{
	(void)state;
	raw_connect(&raw, 0);
	raw.seq = 0;
	raw_say(&raw, forget, NULL);
	raw_say(&raw, forget, NULL);
	w.goal = 2;
	until(has_messages);
	raw_close(&raw);
	until(has_down);

	raw_connect(&raw, 0);
	assert_int_equal(heard_hello(&raw).applied, 2);
	raw.seq = 0;
	for (unsigned i = 0; i < 3; i++)
		raw_say(&raw, forget, NULL);
	w.goal = 3;
	until(has_messages);
	assert_int_equal(w.messages, 3);
	assert_int_equal(w.m.seq, 3);
}

static void what_was_not_applied_is_sent_again(void **state)
{
	struct msg inval = { .type = MSG_INVAL, .space = 1, .mask = 1 };
	uint8_t first[3 * WIRE_HDR_BYTES];

	(void)state;
	raw_connect(&raw, 0);
	for (unsigned i = 0; i < 3; i++, inval.page++)
		assert_int_equal(tp_send(w.tp, 9, 1, &inval, NULL, 0, 0, NULL),
		                 TP_QUEUED);
	w.goal = HELLO_BYTES + sizeof(first);
	until(raw_has_goal);
	memcpy(first, raw.bytes + HELLO_BYTES, sizeof(first));
	raw_close(&raw);
	until(has_down);

	raw_connect(&raw, 1);
	assert_int_equal(w.acked, 1);
	w.goal = HELLO_BYTES + 2 * WIRE_HDR_BYTES;
	until(raw_has_goal);
	assert_int_equal(raw.n, w.goal);
	assert_memory_equal(raw.bytes + HELLO_BYTES, first + WIRE_HDR_BYTES,
	                    2 * WIRE_HDR_BYTES);
}

static bool crowd_has_message(void)
{
	return crowd[0].n >= HELLO_BYTES + WIRE_HDR_BYTES;
}

static void a_hello_of_long_ago_changes_nothing(void **state)
{
	struct msg inval = { .type = MSG_INVAL, .space = 1, .mask = 1 };
	struct msg acked = { .type = MSG_ACKED, .ack = 1 };

	(void)state;
	raw_connect(&crowd[0], 0);
	assert_int_equal(tp_send(w.tp, 9, 1, &inval, NULL, 0, 0, NULL),
	                 TP_QUEUED);
	until(crowd_has_message);
	raw_say(&crowd[0], acked, NULL);
	raw_dial(&raw);
	raw_say_hello(&raw, &raw_hello); /* applied: 0 */
	until(raw_is_closed);
	assert_int_equal(raw.n, 0);
	assert_int_equal(w.downs + w.brokens, 0);
	assert_true(tp_connected(w.tp, 9, 1));
	raw_close(&crowd[0]);
}

static bool the_cut_has_come(void)
{
	return w.tp->counters.bytes_in >= w.goal;
}

static void a_message_may_be_cut_anywhere(void **state)
{
	static uint8_t bytes[WIRE_HDR_BYTES + 96];
	static const uint8_t member[96] = "payload";
	struct msg m = { .type = MSG_MEMBERS, .payload_bytes = sizeof(member) };

	(void)state;
	raw_connect(&raw, 0);
	raw.seq = 0;
	for (size_t cut = 1; cut < sizeof(bytes); cut++) {
		unsigned had = w.messages;
		size_t n = raw_write(&raw, m, member, bytes);

		raw_send(&raw, bytes, cut);
		w.goal = w.tp->counters.bytes_in + cut;
		until(the_cut_has_come);
		assert_int_equal(w.messages, had);
		raw_send(&raw, bytes + cut, n - cut);
		w.goal = had + 1;
		until(has_messages);
	}
}

static void a_ping_is_answered(void **state)
{
	struct msg ping = { .type = MSG_PING }, m;
	uint32_t crc;

	(void)state;
	raw_connect(&raw, 0);
	raw.seq = 0;
	raw_say(&raw, forget, NULL);
	raw_say(&raw, ping, NULL);
	w.goal = HELLO_BYTES + WIRE_HDR_BYTES;
	until(raw_has_goal);
	assert_int_equal(
		wire_decode((void *)(raw.bytes + HELLO_BYTES), &m, &crc), 0);
	assert_int_equal(m.type, MSG_ACKED);
	assert_int_equal(m.ack, 1);
}

static void a_trace_is_skipped(void **state)
{
	struct msg m = get_s;
	uint8_t trace[WIRE_TRACE_BYTES] = { 1 };

	(void)state;
	raw_connect(&raw, 0);
	raw.seq = 0;
	m.flags = MSG_F_TRACE;
	m.payload_bytes = sizeof(trace);
	raw_say(&raw, m, trace);
	w.goal = 1;
	until(has_messages);
	assert_int_equal(w.m.flags, 0);
	assert_int_equal(w.m.payload_bytes, 0);
}

/* For tests that wait until the transport has lost its patience. */
static int setup_impatient(void **state)
{
	return setup_silent(state, 100 * NSEC_PER_MSEC);
}

static bool nothing_is_planned(void)
{
	return w.tp->alarm.at == UINT64_MAX && w.tp->kick.index == 0;
}

static void an_idle_session_wakes_nobody(void **state)
{
	struct msg inval = { .type = MSG_INVAL, .space = 1, .mask = 1 };
	struct msg ack = { .type = MSG_ACK, .space = 1, .mask = 1, .ack = 1 };

	(void)state;
	raw_connect(&raw, 0);
	raw.seq = 0;
	assert_int_equal(tp_send(w.tp, 9, 1, &inval, NULL, 0, 0, NULL),
	                 TP_QUEUED);
	w.goal = HELLO_BYTES + WIRE_HDR_BYTES;
	until(raw_has_goal);
	raw_say(&raw, ack, NULL);
	w.goal = 1;
	until(has_messages);
	/* Once all is acknowledged the timers run out, and that is that. */
	until(nothing_is_planned);
	assert_true(tp_connected(w.tp, 9, 1));
}

static void who_acknowledges_nothing_is_dialled_anew(void **state)
{
	struct msg inval = { .type = MSG_INVAL, .space = 1, .mask = 1 };

	(void)state;
	raw_connect(&raw, 0);
	assert_int_equal(tp_send(w.tp, 9, 1, &inval, NULL, 0, 0, NULL),
	                 TP_QUEUED);
	until(has_down);
	assert_int_equal(w.why, -ETIMEDOUT);
	until(raw_is_closed);
	/* Only the connection is gone. */
	raw_connect(&raw, 1);
	assert_int_equal(w.acked, 1);
}

/* --- liars ------------------------------------------------------------- */

/* What was said so far ends the session, and it stays ended. */
static void session_is_over(int why, const char *text)
{
	until(has_broken);
	assert_int_equal(w.brokens, 1);
	assert_int_equal(w.why, why);
	assert_string_equal(w.text, text);
	assert_int_equal(w.downs, 0);
	until(raw_is_closed);
	assert_false(tp_connected(w.tp, 9, 1));

	raw_dial(&raw);
	raw_say_hello(&raw, &raw_hello);
	until(raw_is_closed);
	assert_int_equal(raw.n, HELLO_BYTES);
	assert_int_equal(heard_hello(&raw).refusal, HELLO_ENDED);
	assert_int_equal(w.brokens, 1);
	assert_int_equal(peer_known(9, 90, 1, ""), -EEXIST);
	/* With a new incarnation all is well again. */
	assert_int_equal(peer_known(9, 91, 1, ""), 0);
}

static void liar(void)
{
	raw_connect(&raw, 0);
	raw.seq = 0;
}

static void a_damaged_header_ends_the_session(void **state)
{
	uint8_t bytes[WIRE_HDR_BYTES];

	(void)state;
	liar();
	raw_write(&raw, get_s, NULL, bytes);
	bytes[20] ^= 1;
	raw_send(&raw, bytes, sizeof(bytes));
	session_is_over(-EBADMSG, "a message arrived damaged");
}

static void a_damaged_payload_ends_the_session(void **state)
{
	static uint8_t bytes[WIRE_HDR_BYTES + 96], member[96];
	struct msg m = { .type = MSG_MEMBERS, .payload_bytes = sizeof(member) };

	(void)state;
	liar();
	raw_write(&raw, m, member, bytes);
	bytes[sizeof(bytes) - 1] ^= 0x80;
	raw_send(&raw, bytes, sizeof(bytes));
	session_is_over(-EBADMSG, "a payload arrived damaged");
	assert_int_equal(w.messages, 0);
}

static void an_illegal_message_ends_the_session(void **state)
{
	uint8_t bytes[WIRE_HDR_BYTES];
	struct wire_hdr *hdr = (void *)bytes;

	(void)state;
	liar();
	raw_write(&raw, get_s, NULL, bytes);
	hdr->type = MSG_REPORT;
	wire_seal(hdr);
	raw_send(&raw, bytes, sizeof(bytes));
	session_is_over(-EPROTO, "the peer sent an illegal message");
}

static void another_version_later_ends_the_session(void **state)
{
	uint8_t bytes[WIRE_HDR_BYTES];
	struct wire_hdr *hdr = (void *)bytes;

	(void)state;
	liar();
	raw_write(&raw, get_s, NULL, bytes);
	hdr->version = 2;
	wire_seal(hdr);
	raw_send(&raw, bytes, sizeof(bytes));
	session_is_over(-EPROTONOSUPPORT, "the peer changed the wire version");
}

static void a_gap_ends_the_session(void **state)
{
	(void)state;
	liar();
	raw.seq = 1;
	raw_say(&raw, get_s, NULL);
	session_is_over(-EPROTO, "the peer left out a message");
}

static void acknowledging_the_future_ends_the_session(void **state)
{
	struct msg m = { .type = MSG_ACKED, .ack = 1 };

	(void)state;
	liar();
	raw_say(&raw, m, NULL);
	session_is_over(-EPROTO, "the peer acknowledged what was never sent");
}

static void having_applied_the_future_ends_the_session(void **state)
{
	struct hello h = raw_hello;

	(void)state;
	h.applied = 1;
	raw_dial(&raw);
	raw_say_hello(&raw, &h);
	session_is_over(-EPROTO, "the peer has applied what was never sent");
}

static void overdrawing_ends_the_session(void **state)
{
	struct msg m = get_s;

	(void)state;
	liar();
	m.mask = UINT64_MAX;
	for (unsigned i = 0; i < TP_PAGE_CREDITS / RUN_PAGES; i++)
		raw_say(&raw, m, NULL);
	raw_say(&raw, get_s, NULL);
	session_is_over(-EPROTO, "the peer overdrew its credits");
	assert_int_equal(w.messages, TP_PAGE_CREDITS / RUN_PAGES);
}

static void answering_unasked_ends_the_session(void **state)
{
	struct msg m = { .type = MSG_AGAIN, .space = 1, .mask = 1 };

	(void)state;
	liar();
	raw_say(&raw, m, NULL);
	session_is_over(-EPROTO, "the peer overdrew its credits");
	assert_int_equal(w.messages, 0);
}

static void hello_twice_ends_the_session(void **state)
{
	(void)state;
	liar();
	raw_say_hello(&raw, &raw_hello);
	session_is_over(-EPROTO, "the peer said hello twice");
}

static void a_coordinator_s_message_ends_the_session(void **state)
{
	struct msg m = { .type = MSG_LEASE };

	(void)state;
	liar();
	raw_say(&raw, m, NULL);
	session_is_over(-EPROTO,
	                "the peer sent a control message that nodes do not "
	                "send");
}

static void a_refusal_ends_the_session(void **state)
{
	struct hello h = raw_hello;

	(void)state;
	h.refusal = HELLO_ENDED;
	raw_dial(&raw);
	raw_say_hello(&raw, &h);
	session_is_over(-ECONNREFUSED,
	                "the peer says that we broke a rule of the protocol");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T_IMPATIENT(f) \
	cmocka_unit_test_setup_teardown(f, setup_impatient, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(garbage_is_turned_away_quietly),
		T(who_hangs_up_early_is_forgotten),
		T(hellos_for_others_are_turned_away),
		T(hellos_of_strangers_are_turned_away),
		T(a_latecomer_is_welcome_once_it_is_known),
		T(a_crowd_that_says_nothing_does_not_keep_others_out),
		T(out_of_descriptors_is_not_the_end),
		T(a_hello_is_answered),
		T(another_version_is_told_why),
		T(a_newer_node_that_speaks_ours_too_is_welcome),
		T(another_shard_gets_its_connection),
		T(a_second_connection_replaces_the_first),
		T(what_comes_again_is_dropped),
		T(what_was_not_applied_is_sent_again),
		T(a_hello_of_long_ago_changes_nothing),
		T(a_message_may_be_cut_anywhere),
		T(a_ping_is_answered),
		T(a_trace_is_skipped),
		T_IMPATIENT(an_idle_session_wakes_nobody),
		T_IMPATIENT(who_acknowledges_nothing_is_dialled_anew),
		T(a_damaged_header_ends_the_session),
		T(a_damaged_payload_ends_the_session),
		T(an_illegal_message_ends_the_session),
		T(another_version_later_ends_the_session),
		T(a_gap_ends_the_session),
		T(acknowledging_the_future_ends_the_session),
		T(having_applied_the_future_ends_the_session),
		T(overdrawing_ends_the_session),
		T(answering_unasked_ends_the_session),
		T(hello_twice_ends_the_session),
		T(a_coordinator_s_message_ends_the_session),
		T(a_refusal_ends_the_session),
	};

	return cmocka_run_group_tests_name("tcp", tests, NULL, NULL);
}
