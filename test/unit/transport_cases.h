/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What net/transport.h promises, as cases that any implementation must pass.
 *
 * Two transports, nodes 0 and 1 with one shard each, share one loop.  The test
 * program says in a struct tc_env how they reach one another and how their
 * connection is broken or held up, and calls tc_main().
 *
 * Nothing sleeps: tc_until() turns the loop until what is expected has
 * happened, and fails after TC_TURNS_MAX turns, or when nothing happens at all.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "net/transport.h"
#include "wire/control.h"

#define TC_TURNS_MAX 20000000u
#define TC_HANG      (30 * NSEC_PER_SEC)

struct tc;

/* How the two ends are joined. */
struct tc_env {
	/*
	 * Let `a`, which is node 0, be reached: `endpoint` (64 bytes) is what
	 * node 1 dials.
	 */
	void (*join)(struct loop *loop, struct transport *a, char *endpoint);
	/* Break the connection; what is under way is lost. */
	void (*cut)(void);
	/* Hold back all bytes (true), or let them go on (false). */
	void (*stall)(bool on);
	void (*part)(void); /* undo join() */
};

struct tc_end {
	struct tc *t;
	struct transport *tp;
	node_id peer;
	unsigned ups, downs, brokens, readies, messages;
	int broken_why;
	uint64_t acked;    /* the last acked() */
	struct msg m;      /* the last message */
	uint32_t sum;      /* of its payload: bytes added up */
	uint64_t acked_at; /* `acked` when it came */
	/* If set, called for each message. */
	int (*on_message)(struct tc_end *e, const struct msg *m,
	                  const void *payload);
};

struct tc {
	const struct tc_env *env;
	struct loop *loop;
	struct loop_hook hook;
	struct loop_timer hang;
	struct tc_end a, b;    /* nodes 0 and 1: b dials */
	struct transport *old; /* of a former incarnation of b */
	char endpoint[64];
	bool (*done)(struct tc *t);
	unsigned turns;
	bool ok;
	uint64_t goal; /* for `done` */
};

/* --- handlers ------------------------------------------------------------ */

static void tc_up(void *arg, node_id peer, uint8_t shard)
{
	struct tc_end *e = arg;

	assert_int_equal(peer, e->peer);
	assert_int_equal(shard, 0);
	assert_true(tp_connected(e->tp, peer, shard));
	e->ups++;
}

static void tc_down(void *arg, node_id peer, uint8_t shard, int why)
{
	struct tc_end *e = arg;

	assert_true(why < 0);
	assert_false(tp_connected(e->tp, peer, shard));
	e->downs++;
}

static int tc_message(void *arg, node_id peer, uint8_t shard,
                      const struct msg *m, const void *payload)
{
	struct tc_end *e = arg;

	assert_int_equal(peer, e->peer);
	assert_int_equal(shard, 0);
	e->messages++;
	e->m = *m;
	e->acked_at = e->acked;
	if (e->on_message)
		return e->on_message(e, m, payload);
	e->sum = 0;
	for (uint32_t i = 0; i < m->payload_bytes; i++)
		e->sum += ((const uint8_t *)payload)[i];
	return 0;
}

static void tc_acked(void *arg, node_id peer, uint8_t shard, uint64_t seq)
{
	struct tc_end *e = arg;

	(void)peer;
	(void)shard;
	assert_true(seq > e->acked);
	e->acked = seq;
}

static void tc_ready(void *arg, node_id peer, uint8_t shard)
{
	struct tc_end *e = arg;

	(void)peer;
	(void)shard;
	e->readies++;
}

static void tc_broken(void *arg, node_id peer, uint8_t shard, int why,
                      const char *text)
{
	struct tc_end *e = arg;

	assert_true(why < 0 && text[0] != '\0');
	assert_false(tp_connected(e->tp, peer, shard));
	e->brokens++;
	e->broken_why = why;
}

static const struct tp_handlers tc_handlers = {
	.up = tc_up,
	.down = tc_down,
	.message = tc_message,
	.acked = tc_acked,
	.ready = tc_ready,
	.broken = tc_broken,
};

/* --- turning the loop ---------------------------------------------------- */

static void tc_turn_end(struct loop_hook *h)
{
	struct tc *t = container_of(h, struct tc, hook);

	if (!t->done)
		return;
	t->ok = t->done(t);
	if (t->ok || ++t->turns > TC_TURNS_MAX)
		loop_stop(t->loop);
}

static void tc_hang(struct loop_timer *timer)
{
	loop_stop(container_of(timer, struct tc, hang)->loop);
}

static void tc_until(struct tc *t, bool (*done)(struct tc *t))
{
	t->done = done;
	t->turns = 0;
	t->ok = done(t);
	timer_start(t->loop, &t->hang, loop_now_fresh(t->loop) + TC_HANG);
	if (!t->ok)
		assert_int_equal(loop_run(t->loop), 0);
	timer_stop(t->loop, &t->hang);
	t->done = NULL;
	assert_true(t->ok);
}

static bool tc_both_up(struct tc *t)
{
	return tp_connected(t->a.tp, 1, 0) && tp_connected(t->b.tp, 0, 0);
}

static bool tc_b_has_goal(struct tc *t)
{
	return t->b.messages >= t->goal;
}

static bool tc_a_has_goal(struct tc *t)
{
	return t->a.messages >= t->goal;
}

static bool tc_a_acked_goal(struct tc *t)
{
	return t->a.acked >= t->goal;
}

static bool tc_b_ready(struct tc *t)
{
	return t->b.readies >= t->goal;
}

static bool tc_a_ready(struct tc *t)
{
	return t->a.readies >= t->goal;
}

static bool tc_both_broken(struct tc *t)
{
	return t->a.brokens > 0 && t->b.brokens > 0;
}

/* --- life ---------------------------------------------------------------- */

static void tc_end_new(struct tc *t, struct tc_end *e, node_id self,
                       uint64_t incarnation)
{
	struct tp_config cfg = {
		.self = self,
		.incarnation = incarnation,
		.shard = 0,
		.shards = 1,
		.cluster = { 1, 2, 3 },
		.silence_max = 5 * NSEC_PER_SEC,
		.redial = NSEC_PER_MSEC,
		.ack_delay = 2 * NSEC_PER_MSEC,
	};
	struct errmsg em = { "" };

	*e = (struct tc_end){ .t = t, .peer = (node_id)!self };
	assert_int_equal(tp_new(t->loop, &cfg, &tc_handlers, e, &e->tp, &em),
	                 0);
	tp_set_epoch(e->tp, 40u + self);
}

static int tc_peer(struct tc_end *e, uint64_t incarnation)
{
	struct tp_peer_config cfg = { .node = e->peer,
		                      .incarnation = incarnation };

	memcpy(cfg.endpoint, e->t->endpoint, sizeof(cfg.endpoint));
	return tp_peer(e->tp, &cfg);
}

/* Both ends are there, and know one another, but have not turned yet. */
static int tc_setup(void **state)
{
	const struct loop_config lc = { .busy_poll_ns = 0 };
	const struct tc_env *env = *state;
	struct tc *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	t->env = env;
	t->hook.turn_end = tc_turn_end;
	t->hang.due = tc_hang;
	assert_int_equal(loop_new(&lc, &t->loop, NULL), 0);
	tc_end_new(t, &t->a, 0, 10);
	tc_end_new(t, &t->b, 1, 20);
	loop_hook_add(t->loop, &t->hook);
	env->join(t->loop, t->a.tp, t->endpoint);
	assert_int_equal(tc_peer(&t->a, 20), 0);
	assert_int_equal(tc_peer(&t->b, 10), 0);
	*state = t;
	return 0;
}

static int tc_teardown(void **state)
{
	struct tc *t = *state;

	tp_free(t->a.tp);
	tp_free(t->b.tp);
	tp_free(t->old);
	t->env->part();
	loop_free(t->loop);
	free(t);
	return 0;
}

/* --- messages ------------------------------------------------------------ */

static uint8_t tc_bytes[RUN_PAGES * PAGE_BYTES];

static enum tp_sent tc_send(struct tc_end *e, enum msg_type type, gpn_t page,
                            uint64_t mask, uint64_t arg, uint64_t *ret_seq)
{
	struct msg m = {
		.type = type, .space = 3, .page = page, .mask = mask, .arg = arg
	};
	struct iovec iov;

	m.payload_bytes = msg_payload_pages(&m) * PAGE_BYTES;
	iov = (struct iovec){ tc_bytes, m.payload_bytes };
	return tp_send(e->tp, e->peer, 0, &m, &iov, m.payload_bytes > 0, 0,
	               ret_seq);
}

#define TC_QUEUED(...) assert_int_equal(tc_send(__VA_ARGS__), TP_QUEUED)

/* Node 1 asks node 0 for `n` pages, and node 0 has the question. */
static void tc_asked(struct tc *t, unsigned n)
{
	unsigned had = t->a.messages;

	for (; n >= RUN_PAGES; n -= RUN_PAGES, had++)
		TC_QUEUED(&t->b, MSG_GET_S, 0, UINT64_MAX, 0, NULL);
	for (; n > 0; n--, had++)
		TC_QUEUED(&t->b, MSG_GET_S, 0, 1, 0, NULL);
	t->goal = had;
	tc_until(t, tc_a_has_goal);
}

/* --- cases: delivery ----------------------------------------------------- */

static void both_ends_come_up(void **state)
{
	struct tc *t = *state;

	assert_false(tp_connected(t->a.tp, 1, 0));
	tc_until(t, tc_both_up);
	assert_int_equal(t->a.ups, 1);
	assert_int_equal(t->b.ups, 1);
	assert_int_equal(tc_peer(&t->a, 20), -EEXIST);
	assert_int_equal(tc_peer(&t->a, 19), -EEXIST);
	assert_true(tp_overhead_bytes(t->a.tp) > 0);
}

static void what_was_sent_before_is_delivered(void **state)
{
	struct tc *t = *state;
	uint64_t seq = 0;

	TC_QUEUED(&t->b, MSG_GET_X, 77, 0x5, 0, &seq);
	assert_int_equal(seq, 1);
	TC_QUEUED(&t->b, MSG_GET_S, 78, 0x1, 0, &seq);
	assert_int_equal(seq, 2);
	t->goal = 2;
	tc_until(t, tc_a_has_goal);
	assert_int_equal(t->a.m.type, MSG_GET_S);
	assert_int_equal(t->a.m.space, 3);
	assert_int_equal(t->a.m.page, 78);
	assert_int_equal(t->a.m.epoch, 41);
	assert_int_equal(t->a.m.seq, 2);
}

static void a_payload_is_gathered_and_arrives(void **state)
{
	struct msg m = { .type = MSG_GRANT_S,
		         .space = 1,
		         .mask = 3,
		         .payload_bytes = 2 * PAGE_BYTES };
	struct iovec iov[3] = { { tc_bytes, 100 },
		                { tc_bytes + 5000, 4000 },
		                { tc_bytes + 9000, 4092 } };
	struct tc *t = *state;

	memset(tc_bytes, 0, sizeof(tc_bytes));
	tc_bytes[99] = 1;
	tc_bytes[5000] = 2;
	tc_bytes[9000 + 4091] = 4;
	tc_asked(t, 2);
	assert_int_equal(tp_send(t->a.tp, 1, 0, &m, iov, 3, 0, NULL),
	                 TP_QUEUED);
	/* It was copied: what happens to it now is nobody's business. */
	memset(tc_bytes, 0xff, sizeof(tc_bytes));
	t->goal = 1;
	tc_until(t, tc_b_has_goal);
	assert_int_equal(t->b.m.payload_bytes, 2 * PAGE_BYTES);
	assert_int_equal(t->b.sum, 7);
	memset(tc_bytes, 0, sizeof(tc_bytes));
}

static int answer_with_pages(struct tc_end *e, const struct msg *m,
                             const void *payload)
{
	(void)payload;
	if (m->type == MSG_GET_S)
		TC_QUEUED(e, MSG_GRANT_S, m->page, m->mask, 0, NULL);
	return 0;
}

static void a_handler_may_answer_at_once(void **state)
{
	struct tc *t = *state;

	t->a.on_message = answer_with_pages;
	memset(tc_bytes, 1, sizeof(tc_bytes));
	tc_asked(t, TP_PAGE_CREDITS);
	t->goal = TP_PAGE_CREDITS / RUN_PAGES;
	tc_until(t, tc_b_has_goal);
	assert_int_equal(t->b.sum, RUN_PAGES * PAGE_BYTES);
	assert_int_equal(tp_page_credits(t->b.tp, 0, 0), TP_PAGE_CREDITS);
	/* The answer carried the acknowledgement of its question. */
	assert_int_equal(t->b.acked_at, TP_PAGE_CREDITS / RUN_PAGES);
	memset(tc_bytes, 0, sizeof(tc_bytes));
}

static void the_sender_hears_what_was_applied(void **state)
{
	struct tc *t = *state;
	uint64_t seq;

	TC_QUEUED(&t->a, MSG_INVAL, 5, 1, 0, NULL);
	TC_QUEUED(&t->a, MSG_INVAL, 6, 1, 0, &seq);
	t->goal = seq;
	/* Node 1 has nothing to say, and acknowledges all the same. */
	tc_until(t, tc_a_acked_goal);
	assert_int_equal(t->a.acked, 2);
	assert_int_equal(t->b.messages, 2);
}

static void a_lazy_message_arrives_too(void **state)
{
	struct msg m = { .type = MSG_FORGET, .space = 1, .mask = 1, .arg = 9 };
	struct tc *t = *state;

	tc_until(t, tc_both_up);
	assert_int_equal(tp_send(t->a.tp, 1, 0, &m, NULL, 0, TP_LAZY, NULL),
	                 TP_QUEUED);
	t->goal = 1;
	tc_until(t, tc_b_has_goal);
	assert_int_equal(t->b.m.arg, 9);
}

static void a_whole_membership_fits(void **state)
{
	static uint8_t members[NODES_MAX * sizeof(struct wire_member)];
	struct msg m = { .type = MSG_MEMBERS,
		         .payload_bytes = sizeof(members) };
	struct iovec iov = { members, sizeof(members) };
	struct tc *t = *state;

	memset(members, 1, sizeof(members));
	assert_int_equal(tp_send(t->a.tp, 1, 0, &m, &iov, 1, 0, NULL),
	                 TP_QUEUED);
	assert_int_equal(tp_send(t->a.tp, 1, 0, &m, &iov, 1, 0, NULL),
	                 TP_QUEUED);
	assert_int_equal(tp_send(t->a.tp, 1, 0, &m, &iov, 1, 0, NULL), TP_FULL);
	t->goal = 1;
	tc_until(t, tc_a_ready);
	t->goal = 2;
	tc_until(t, tc_b_has_goal);
	assert_int_equal(t->b.sum, sizeof(members));
}

/* --- cases: credits ------------------------------------------------------ */

static void requests_stop_at_the_credits(void **state)
{
	struct tc *t = *state;

	assert_int_equal(tp_page_credits(t->b.tp, 0, 0), TP_PAGE_CREDITS);
	tc_asked(t, TP_PAGE_CREDITS - 1);
	assert_int_equal(tp_page_credits(t->b.tp, 0, 0), 1);
	assert_int_equal(tc_send(&t->b, MSG_GET_S, 0, 3, 0, NULL), TP_FULL);
	tc_asked(t, 1);
	assert_int_equal(tc_send(&t->b, MSG_DISCARD, 0, 1, 0, NULL), TP_FULL);
	assert_int_equal(t->b.readies, 0);

	/* Half granted, half refused: both come back. */
	TC_QUEUED(&t->a, MSG_GRANT_S, 0, 0xff, 0xff00, NULL);
	t->goal = 1;
	tc_until(t, tc_b_ready);
	assert_int_equal(tp_page_credits(t->b.tp, 0, 0), 16);
	TC_QUEUED(&t->b, MSG_GET_S, 0, 0xffff, 0, NULL);
	assert_int_equal(tc_send(&t->b, MSG_GET_S, 0, 1, 0, NULL), TP_FULL);
	/* Recalls are another matter. */
	TC_QUEUED(&t->b, MSG_INVAL, 0, 1, 0, NULL);
}

static void recalls_stop_at_their_credits(void **state)
{
	struct tc *t = *state;

	for (unsigned i = 0; i < TP_RECALL_CREDITS; i++)
		TC_QUEUED(&t->a, MSG_RECALL_X, i, 1, 1, NULL);
	assert_int_equal(tc_send(&t->a, MSG_INVAL, 0, 1, 0, NULL), TP_FULL);
	t->goal = TP_RECALL_CREDITS;
	tc_until(t, tc_b_has_goal);
	TC_QUEUED(&t->b, MSG_ACK_DATA, 0, 1, 1, NULL);
	t->goal = 1;
	tc_until(t, tc_a_ready);
	TC_QUEUED(&t->a, MSG_INVAL, 0, 1, 0, NULL);
	assert_int_equal(tc_send(&t->a, MSG_INVAL, 0, 1, 0, NULL), TP_FULL);
}

static void answers_always_have_room(void **state)
{
	struct tc *t = *state;

	/* The most that can be owed, one page a message, to who reads nothing,
	 * with all other rooms filled first. */
	for (unsigned i = 0; i < TP_RECALL_CREDITS; i++)
		TC_QUEUED(&t->b, MSG_RECALL_X, i, 1, 1, NULL);
	tc_asked(t, TP_PAGE_CREDITS);
	t->env->stall(true);
	for (unsigned i = 0; i < TP_FREE_MAX; i++)
		TC_QUEUED(&t->a, MSG_FORGET, i, 1, i, NULL);
	assert_int_equal(tc_send(&t->a, MSG_FORGET, 0, 1, 0, NULL), TP_FULL);
	while (tc_send(&t->a, MSG_GET_S, 0, 1, 0, NULL) == TP_QUEUED)
		continue;
	while (tc_send(&t->a, MSG_RECALL_S, 0, 1, 0, NULL) == TP_QUEUED)
		continue;
	for (unsigned i = 0; i < TP_PAGE_CREDITS; i++)
		TC_QUEUED(&t->a, MSG_GRANT_X, i, 1, 0, NULL);
	for (unsigned i = 0; i < TP_RECALL_CREDITS; i++)
		TC_QUEUED(&t->a, MSG_ACK_DATA, i, 1, i, NULL);

	t->env->stall(false);
	t->goal = TP_FREE_MAX + 2 * TP_PAGE_CREDITS + 2 * TP_RECALL_CREDITS;
	tc_until(t, tc_b_has_goal);
	assert_int_equal(t->b.m.type, MSG_ACK_DATA);
	assert_int_equal(t->b.m.seq, t->goal);
	assert_int_equal(t->b.brokens, 0);
}

static void frees_wait_when_their_room_is_full(void **state)
{
	struct tc *t = *state;

	for (unsigned i = 0; i < TP_FREE_MAX; i++)
		TC_QUEUED(&t->a, MSG_FORGET, i, 1, i, NULL);
	assert_int_equal(tc_send(&t->a, MSG_FORGET, 0, 1, 0, NULL), TP_FULL);
	t->goal = 1;
	tc_until(t, tc_a_ready);
	TC_QUEUED(&t->a, MSG_FORGET, 0, 1, 0, NULL);
}

static void nobody_answers_what_was_not_asked(void **state)
{
	struct tc *t = *state;

	tc_asked(t, 1);
	assert_int_equal(tc_send(&t->a, MSG_GRANT_S, 0, 3, 0, NULL), TP_DOWN);
	assert_int_equal(tc_send(&t->a, MSG_ACK, 0, 1, 0, NULL), TP_DOWN);
	TC_QUEUED(&t->a, MSG_AGAIN, 0, 1, 0, NULL);
	assert_int_equal(tc_send(&t->a, MSG_AGAIN, 0, 1, 0, NULL), TP_DOWN);
}

/* --- cases: ends --------------------------------------------------------- */

static void strangers_cannot_be_sent_to(void **state)
{
	struct tc *t = *state;
	struct msg m = { .type = MSG_INVAL, .space = 1, .mask = 1 };

	assert_int_equal(tp_send(t->a.tp, 7, 0, &m, NULL, 0, 0, NULL), TP_DOWN);
	assert_int_equal(tp_send(t->a.tp, 1, 1, &m, NULL, 0, 0, NULL), TP_DOWN);
	assert_int_equal(tp_page_credits(t->a.tp, 7, 0), 0);
	tc_until(t, tc_both_up);
	tp_forget(t->a.tp, 1, 0);
	tp_forget(t->a.tp, 1, 0);
	assert_false(tp_connected(t->a.tp, 1, 0));
	assert_int_equal(tc_send(&t->a, MSG_INVAL, 0, 1, 0, NULL), TP_DOWN);
	assert_int_equal(t->a.downs, 0);
}

static int refuse_it(struct tc_end *e, const struct msg *m, const void *payload)
{
	(void)e;
	(void)m;
	(void)payload;
	return -EPROTO;
}

static void a_broken_rule_ends_the_session_for_both(void **state)
{
	struct tc *t = *state;

	t->a.on_message = refuse_it;
	TC_QUEUED(&t->b, MSG_INVAL, 0, 1, 0, NULL);
	tc_until(t, tc_both_broken);
	assert_int_equal(t->a.broken_why, -EPROTO);
	assert_int_equal(t->b.broken_why, -ECONNREFUSED);
	assert_int_equal(t->a.messages, 1);
	assert_int_equal(tc_send(&t->b, MSG_INVAL, 0, 1, 0, NULL), TP_DOWN);
	assert_int_equal(tc_send(&t->a, MSG_INVAL, 0, 1, 0, NULL), TP_DOWN);
	assert_int_equal(tc_peer(&t->a, 20), -EEXIST);
}

static void the_dialler_tells_of_a_broken_rule_too(void **state)
{
	struct tc *t = *state;

	t->b.on_message = refuse_it;
	TC_QUEUED(&t->a, MSG_INVAL, 0, 1, 0, NULL);
	tc_until(t, tc_both_broken);
	assert_int_equal(t->b.broken_why, -EPROTO);
	assert_int_equal(t->a.broken_why, -ECONNREFUSED);
}

static int forget_it(struct tc_end *e, const struct msg *m, const void *payload)
{
	(void)m;
	(void)payload;
	tp_forget(e->tp, e->peer, 0);
	return 0;
}

static void a_handler_may_forget_its_own_session(void **state)
{
	struct tc *t = *state;

	t->a.on_message = forget_it;
	TC_QUEUED(&t->b, MSG_INVAL, 0, 1, 0, NULL);
	TC_QUEUED(&t->b, MSG_INVAL, 0, 1, 0, NULL);
	t->goal = 1;
	tc_until(t, tc_a_has_goal);
	assert_int_equal(t->a.messages, 1);
	assert_int_equal(t->a.brokens, 0);
}

static bool tc_b_is_up_twice(struct tc *t)
{
	return t->b.ups == 2 && tc_both_up(t);
}

static void a_new_incarnation_starts_a_new_session(void **state)
{
	struct tc *t = *state;
	uint64_t seq;

	tc_asked(t, 3);
	tp_forget(t->b.tp, 0, 0);
	t->old = t->b.tp;
	tc_end_new(t, &t->b, 1, 21);
	assert_int_equal(tc_peer(&t->b, 10), 0);
	assert_int_equal(tc_peer(&t->a, 21), 0);
	/* What the old one asked is nobody's question. */
	assert_int_equal(tc_send(&t->a, MSG_AGAIN, 0, 1, 0, NULL), TP_DOWN);
	tc_asked(t, 1);
	assert_int_equal(t->a.m.seq, 1);
	TC_QUEUED(&t->a, MSG_AGAIN, 0, 1, 0, &seq);
	assert_int_equal(seq, 1);
}

/* --- cases: resumption --------------------------------------------------- */

static void a_session_outlives_its_connection(void **state)
{
	struct tc *t = *state;

	tc_asked(t, 3);
	t->env->cut();
	TC_QUEUED(&t->a, MSG_AGAIN, 0, 1, 0, NULL);
	TC_QUEUED(&t->a, MSG_AGAIN, 1, 1, 0, NULL);
	tc_until(t, tc_b_is_up_twice);
	t->goal = 2;
	tc_until(t, tc_b_has_goal);
	assert_int_equal(t->b.m.page, 1);
	assert_int_equal(t->b.downs, 1);
	assert_int_equal(t->a.downs, 1);
	assert_int_equal(t->a.ups, 2);
	assert_int_equal(t->a.messages, 3);
}

/* Numbered streams of every class, both ways, through random cuts. */
struct storm {
	struct prng random;
	uint64_t asked, answered, recalled, acked, freed; /* sent */
	uint64_t got_asked, got_answered, got_recalled, got_acked, got_freed;
};
static struct storm tc_storm[2];

/* Of each class and direction: 2 x 5 x 100,000 is a million. */
#define TC_STORM 100000u

static int storm_message(struct tc_end *e, const struct msg *m,
                         const void *payload)
{
	struct storm *s = &tc_storm[!e->peer];

	if (m->payload_bytes > 0)
		assert_int_equal(((const uint8_t *)payload)[PAGE_BYTES - 1],
		                 m->page & 0xff);
	switch (msg_class(m->type)) {
	case MSG_CLASS_REQUEST:
		assert_int_equal(m->page, s->got_asked++);
		memset(tc_bytes, (int)(s->answered & 0xff), PAGE_BYTES);
		TC_QUEUED(e, s->answered % 64 ? MSG_AGAIN : MSG_GRANT_S,
		          s->answered, 1, 0, NULL);
		s->answered++;
		break;
	case MSG_CLASS_ANSWER:
		assert_int_equal(m->page, s->got_answered++);
		break;
	case MSG_CLASS_RECALL:
		assert_int_equal(m->page, s->got_recalled++);
		memset(tc_bytes, (int)(s->acked & 0xff), PAGE_BYTES);
		TC_QUEUED(e, s->acked % 64 ? MSG_ACK : MSG_ACK_DATA, s->acked,
		          1, 0, NULL);
		s->acked++;
		break;
	case MSG_CLASS_ACK:
		assert_int_equal(m->page, s->got_acked++);
		break;
	case MSG_CLASS_FREE:
		assert_int_equal(m->page, s->got_freed++);
		break;
	case MSG_CLASS_NONE:
	case MSG_CLASS_CONTROL:
		fail_msg("nobody sent %s", msg_name(m->type));
	}
	return 0;
}

/* Ask as much as may be asked; where it stops is up to the credits. */
static void storm_send(struct tc_end *e)
{
	struct storm *s = &tc_storm[!e->peer];

	while (s->asked < TC_STORM &&
	       tc_send(e, MSG_GET_S, s->asked, 1, 0, NULL) == TP_QUEUED)
		s->asked++;
	while (s->recalled < TC_STORM &&
	       tc_send(e, MSG_INVAL, s->recalled, 1, 0, NULL) == TP_QUEUED)
		s->recalled++;
	while (s->freed < TC_STORM &&
	       tc_send(e, MSG_FORGET, s->freed, 1, 0, NULL) == TP_QUEUED)
		s->freed++;
}

static bool storm_over(const struct storm *s)
{
	return s->got_asked == TC_STORM && s->got_answered == TC_STORM &&
	       s->got_recalled == TC_STORM && s->got_acked == TC_STORM &&
	       s->got_freed == TC_STORM;
}

static bool tc_storm_over(struct tc *t)
{
	storm_send(&t->a);
	storm_send(&t->b);
	if (prng_below(&tc_storm[0].random, 50) == 0)
		t->env->cut();
	return storm_over(&tc_storm[0]) && storm_over(&tc_storm[1]);
}

static void a_million_messages_arrive_once_and_in_order(void **state)
{
	struct tc *t = *state;
	struct tp_counters a;

	memset(tc_storm, 0, sizeof(tc_storm));
	prng_init(&tc_storm[0].random, 1);
	t->a.on_message = storm_message;
	t->b.on_message = storm_message;
	tc_until(t, tc_storm_over);
	assert_int_equal(t->a.brokens + t->b.brokens, 0);
	tp_counters(t->a.tp, &a);
	assert_int_equal(a.msgs_out, 5 * TC_STORM);
	assert_int_equal(a.msgs_in, 5 * TC_STORM);
	/* It was a storm: the connection did break, again and again. */
	assert_true(a.reconnects > 20);
	print_message("# %u turns, %llu reconnects\n", t->turns,
	              (unsigned long long)a.reconnects);
}

#define TC_TEST(f) cmocka_unit_test_setup_teardown(f, tc_setup, tc_teardown)

#include "transport_ahead.h"

/* Run all cases over `env`.  Returns what main() returns. */
static int tc_main(const char *name, const struct tc_env *env)
{
	struct CMUnitTest tests[] = {
		TC_TEST(both_ends_come_up),
		TC_TEST(what_was_sent_before_is_delivered),
		TC_TEST(a_payload_is_gathered_and_arrives),
		TC_TEST(a_handler_may_answer_at_once),
		TC_TEST(the_sender_hears_what_was_applied),
		TC_TEST(a_lazy_message_arrives_too),
		TC_TEST(a_whole_membership_fits),
		TC_TEST(requests_stop_at_the_credits),
		TC_TEST(recalls_stop_at_their_credits),
		TC_TEST(answers_always_have_room),
		TC_TEST(a_read_with_more_to_come_gives_nothing_back),
		TC_TEST(frees_wait_when_their_room_is_full),
		TC_TEST(nobody_answers_what_was_not_asked),
		TC_TEST(strangers_cannot_be_sent_to),
		TC_TEST(a_broken_rule_ends_the_session_for_both),
		TC_TEST(the_dialler_tells_of_a_broken_rule_too),
		TC_TEST(a_handler_may_forget_its_own_session),
		TC_TEST(a_new_incarnation_starts_a_new_session),
		TC_TEST(a_session_outlives_its_connection),
		TC_TEST(a_million_messages_arrive_once_and_in_order),
	};

	/* cmocka hands this to each setup as *state. */
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tests[i].initial_state = (void *)(uintptr_t)env;
	return _cmocka_run_group_tests(name, tests, ARRAY_SIZE(tests), NULL,
	                               NULL);
}
