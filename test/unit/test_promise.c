/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Promises: who may act while the coordinator is silent.  The last test runs
 * three members through every short history of questions, answers and a newer
 * epoch, and checks the one thing that matters: nobody adopts a newer epoch
 * while somebody acts on a promise made in the older one.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "node/promise.h"

#define LEASE 1200u

static struct promise with_others(node_id a, node_id b)
{
	struct promise p = { 0 };
	struct nodeset others = { 0 };

	if (a != NODE_NONE)
		nodeset_add(&others, a);
	if (b != NODE_NONE)
		nodeset_add(&others, b);
	promise_adopted(&p, &others);
	return p;
}

static void nobody_is_asked_while_the_lease_is_fresh(void **state)
{
	struct promise p = with_others(1, 2);

	(void)state;
	assert_false(promise_ask(&p, 100, 100 + LEASE, LEASE));
	assert_true(promise_ask(&p, 100 + LEASE / 2, 100 + LEASE, LEASE));
}

static void all_others_must_promise(void **state)
{
	struct promise p = with_others(1, 2);

	(void)state;
	assert_true(promise_ask(&p, 600, LEASE, LEASE));
	assert_int_equal(promise_heard(&p, 1, p.round, LEASE), 0);
	assert_int_equal(promise_heard(&p, 1, p.round, LEASE), 0);
	assert_int_equal(promise_heard(&p, 2, p.round - 1, LEASE), 0);
	assert_int_equal(promise_heard(&p, 2, p.round, LEASE), 600 + LEASE);
}

static void a_lease_that_is_over_is_not_prolonged(void **state)
{
	struct promise p = with_others(1, 2);

	(void)state;
	assert_false(promise_ask(&p, LEASE, LEASE, LEASE));
}

static void a_node_without_others_cannot_prolong_itself(void **state)
{
	struct promise p = with_others(NODE_NONE, NODE_NONE);

	(void)state;
	assert_false(promise_ask(&p, 600, LEASE, LEASE));
}

static void questions_take_their_time(void **state)
{
	struct promise p = with_others(1, 2);

	(void)state;
	assert_true(promise_ask(&p, 600, LEASE, LEASE));
	assert_false(promise_ask(&p, 601, LEASE, LEASE));
	assert_true(promise_ask(&p, 600 + LEASE / 6, LEASE, LEASE));
}

static void only_members_of_the_same_epoch_get_a_promise(void **state)
{
	struct promise p = with_others(1, 2);

	(void)state;
	assert_false(promise_give(&p, 1, 6, 7, 0, LEASE));
	assert_false(promise_give(&p, 3, 7, 7, 0, LEASE));
	assert_false(promise_give(&p, NODE_NONE, 7, 7, 0, LEASE));
	assert_true(promise_give(&p, 1, 7, 7, 0, LEASE));
}

static void a_newer_epoch_waits_for_what_was_promised(void **state)
{
	struct promise p = with_others(1, 2);
	const struct nodeset none = { 0 };

	(void)state;
	assert_true(promise_give(&p, 1, 7, 7, 500, LEASE));
	assert_int_equal(promise_newer(&p, 600), 500 + LEASE);
	assert_false(promise_give(&p, 2, 7, 7, 700, LEASE)); /* no more */
	assert_false(promise_ask(&p, 700, 800, LEASE));
	assert_int_equal(promise_newer(&p, 500 + LEASE), 0);
	promise_adopted(&p, &none);
	assert_false(p.newer);
}

static void answers_to_the_epoch_before_do_not_count(void **state)
{
	struct promise p = with_others(1, NODE_NONE);
	struct nodeset others = p.others;
	uint64_t round;

	(void)state;
	assert_true(promise_ask(&p, 600, LEASE, LEASE));
	round = p.round;
	promise_adopted(&p, &others);
	assert_int_equal(promise_heard(&p, 1, round, LEASE), 0);
}

/* --- every short history ----------------------------------------------- */

enum { STEPS = 8, TICK = LEASE / 6 };

struct history {
	struct promise asker, giver[2];
	uint32_t epoch[2]; /* of the givers */
	nsec_t now, end;   /* of the asker's lease */
	nsec_t adopts[2];  /* when a giver adopts the newer epoch; 0: not yet */
	bool newer;        /* the coordinator has declared the asker dead */
	uint64_t asked[2], answered[2]; /* rounds on their way, 0: none */
};

static uint64_t histories;

static void check_history(const struct history *h)
{
	for (int i = 0; i < 2; i++)
		if (h->epoch[i] != 7)
			assert_true(h->now >= h->end); /* it is fenced */
}

static void go(struct history h, int left);

static void giver_moves(struct history h, int i, int left)
{
	const struct nodeset none = { 0 };
	struct history next = h;

	if (h.asked[i] != 0) { /* the question arrives */
		next.asked[i] = 0;
		if (promise_give(&next.giver[i], 0, 7, next.epoch[i], next.now,
		                 LEASE))
			next.answered[i] = h.asked[i];
		go(next, left);
	}
	next = h;
	if (h.answered[i] != 0) { /* the answer arrives */
		nsec_t end;

		next.answered[i] = 0;
		end = promise_heard(&next.asker, (node_id)(i + 1),
		                    h.answered[i], LEASE);
		if (end > next.end && next.now < next.end)
			next.end = end;
		go(next, left);
	}
	next = h;
	if (h.newer && h.epoch[i] == 7 && h.adopts[i] <= h.now) {
		next.adopts[i] = promise_newer(&next.giver[i], h.now);
		if (next.adopts[i] == 0) {
			next.epoch[i] = 8;
			promise_adopted(&next.giver[i], &none);
		}
		go(next, left);
	}
}

static void go(struct history h, int left)
{
	struct history next = h;

	histories++;
	check_history(&h);
	if (left == 0)
		return;
	for (int i = 0; i < 2; i++)
		giver_moves(h, i, left - 1);
	next.now += TICK;
	if (promise_ask(&next.asker, next.now, next.end, LEASE))
		next.asked[0] = next.asked[1] = next.asker.round;
	go(next, left - 1);
	/* Only a lease that the coordinator gave must be over for that. */
	if (!h.newer && h.now >= LEASE) {
		next = h;
		next.newer = true;
		go(next, left - 1);
	}
}

static void nobody_acts_on_a_promise_that_is_over(void **state)
{
	struct history h = { .asker = with_others(1, 2),
		             .giver = { with_others(0, 2), with_others(0, 1) },
		             .epoch = { 7, 7 },
		             .now = LEASE / 2,
		             .end = LEASE };

	(void)state;
	assert_true(promise_ask(&h.asker, h.now, h.end, LEASE));
	h.asked[0] = h.asked[1] = h.asker.round;
	go(h, STEPS + 4);
	assert_true(histories > 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_is_asked_while_the_lease_is_fresh),
		cmocka_unit_test(all_others_must_promise),
		cmocka_unit_test(a_lease_that_is_over_is_not_prolonged),
		cmocka_unit_test(a_node_without_others_cannot_prolong_itself),
		cmocka_unit_test(questions_take_their_time),
		cmocka_unit_test(only_members_of_the_same_epoch_get_a_promise),
		cmocka_unit_test(a_newer_epoch_waits_for_what_was_promised),
		cmocka_unit_test(answers_to_the_epoch_before_do_not_count),
		cmocka_unit_test(nobody_acts_on_a_promise_that_is_over),
	};

	return cmocka_run_group_tests_name("promise", tests, NULL, NULL);
}
