/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credits, from both ends.  The last test lets two ends talk at random, with
 * acknowledgements as late as the rules allow, and holds the ring to its size.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "net/credit.h"

static struct msg message(enum msg_type type, unsigned pages)
{
	struct msg m = { .type = type, .space = 1, .seq = 1 };

	m.mask = pages == 64 ? UINT64_MAX : (1ull << pages) - 1;
	m.payload_bytes = msg_payload_pages(&m) * PAGE_BYTES;
	return m;
}

static const struct msg get1 = { .type = MSG_GET_S, .mask = 1 };
static const struct msg again1 = { .type = MSG_AGAIN, .mask = 1 };
static const struct msg inval = { .type = MSG_INVAL, .mask = 1 };
static const struct msg ack = { .type = MSG_ACK, .mask = 1 };

static void requests_spend_and_answers_give_back(void **state)
{
	struct msg get64 = message(MSG_GET_S, 64);
	struct credit c = { 0 };

	(void)state;
	for (unsigned i = 0; i < TP_PAGE_CREDITS / 64; i++)
		assert_int_equal(credit_send(&c, &get64), TP_QUEUED);
	assert_int_equal(credit_send(&c, &get1), TP_FULL);
	assert_false(credit_back(&c));
	assert_int_equal(credit_arrived(&c, &again1), 0);
	/* Arrived is not applied: nothing is back yet. */
	assert_false(credit_back(&c));
	assert_int_equal(credit_send(&c, &get1), TP_FULL);
	credit_applied(&c, &again1);
	assert_true(credit_back(&c));
	assert_false(credit_back(&c));
	assert_int_equal(credit_send(&c, &get1), TP_QUEUED);
	assert_int_equal(credit_send(&c, &get1), TP_FULL);
}

static void who_asks_and_hears_of_none_is_told_of_the_next(void **state)
{
	struct msg get64 = message(MSG_GET_S, 64);
	struct credit c = { 0 };

	(void)state;
	for (unsigned i = 0; i < TP_PAGE_CREDITS / 64; i++)
		assert_int_equal(credit_send(&c, &get64), TP_QUEUED);
	assert_int_equal(credit_arrived(&c, &again1), 0);
	credit_applied(&c, &again1);
	assert_false(credit_back(&c)); /* nobody has missed any */
	assert_int_equal(credit_pages(&c), 1);
	assert_int_equal(credit_send(&c, &get1), TP_QUEUED);
	assert_int_equal(credit_pages(&c), 0);
	assert_int_equal(credit_arrived(&c, &again1), 0);
	credit_applied(&c, &again1);
	assert_true(credit_back(&c));
	assert_false(credit_back(&c));
}

static void who_lacks_pages_is_not_called_for_something_else(void **state)
{
	struct msg get64 = message(MSG_GET_S, 64);
	struct credit c = { 0 };

	(void)state;
	assert_int_equal(credit_send(&c, &inval), TP_QUEUED);
	for (unsigned i = 0; i < TP_PAGE_CREDITS / 64; i++)
		assert_int_equal(credit_send(&c, &get64), TP_QUEUED);
	assert_int_equal(credit_send(&c, &get1), TP_FULL);
	credit_acked(&c, &inval);
	credit_acked(&c, &get64);
	assert_int_equal(credit_arrived(&c, &ack), 0);
	credit_applied(&c, &ack);
	assert_false(credit_back(&c));
}

static void unacknowledged_requests_have_an_end(void **state)
{
	struct credit c = { 0 };

	(void)state;
	/* A peer that answers, and never acknowledges. */
	for (unsigned i = 0; i < CREDIT_REQUESTS_MAX; i++) {
		assert_int_equal(credit_send(&c, &get1), TP_QUEUED);
		assert_int_equal(credit_arrived(&c, &again1), 0);
		credit_applied(&c, &again1);
	}
	assert_int_equal(credit_send(&c, &get1), TP_FULL);
	credit_acked(&c, &get1);
	assert_true(credit_back(&c));
	/* As many pages as could be asked for one by one. */
	assert_int_equal(credit_pages(&c), 1);
	assert_int_equal(credit_send(&c, &get1), TP_QUEUED);

	c = (struct credit){ 0 };
	for (unsigned i = 0; i < CREDIT_RECALLS_MAX; i++) {
		assert_int_equal(credit_send(&c, &inval), TP_QUEUED);
		assert_int_equal(credit_arrived(&c, &ack), 0);
		credit_applied(&c, &ack);
	}
	assert_int_equal(credit_send(&c, &inval), TP_FULL);
}

static void who_overdraws_is_found_out(void **state)
{
	struct msg get64 = message(MSG_GET_X, 64);
	struct msg grant64 = message(MSG_GRANT_ZERO, 64);
	struct credit c = { 0 };

	(void)state;
	for (unsigned i = 0; i < TP_PAGE_CREDITS / 64; i++)
		assert_int_equal(credit_arrived(&c, &get64), 0);
	assert_int_equal(credit_arrived(&c, &get1), -EPROTO);
	/* Answered, but the peer cannot know that yet. */
	assert_int_equal(credit_send(&c, &grant64), TP_QUEUED);
	assert_int_equal(credit_arrived(&c, &get1), -EPROTO);
	credit_acked(&c, &grant64);
	assert_int_equal(credit_arrived(&c, &get64), 0);
	assert_int_equal(credit_arrived(&c, &get1), -EPROTO);

	for (unsigned i = 0; i < TP_RECALL_CREDITS; i++)
		assert_int_equal(credit_arrived(&c, &inval), 0);
	assert_int_equal(credit_arrived(&c, &inval), -EPROTO);
	assert_int_equal(credit_send(&c, &ack), TP_QUEUED);
	assert_int_equal(credit_arrived(&c, &inval), -EPROTO);
	credit_acked(&c, &ack);
	assert_int_equal(credit_arrived(&c, &inval), 0);
}

static void who_answers_what_was_not_asked_is_found_out(void **state)
{
	struct msg two = message(MSG_AGAIN, 2);
	struct credit c = { 0 };

	(void)state;
	assert_int_equal(credit_arrived(&c, &again1), -EPROTO);
	assert_int_equal(credit_arrived(&c, &ack), -EPROTO);
	assert_int_equal(credit_send(&c, &get1), TP_QUEUED);
	assert_int_equal(credit_arrived(&c, &two), -EPROTO);
	assert_int_equal(credit_arrived(&c, &again1), 0);
	/* And so are we. */
	assert_int_equal(credit_send(&c, &again1), TP_DOWN);
	assert_int_equal(credit_send(&c, &ack), TP_DOWN);
}

/* --- two ends at random ------------------------------------------------ */

#define QUEUE 4096

struct end {
	struct credit credit;
	struct msg queue[QUEUE]; /* sent: [acked, sent), applied by the other */
	uint64_t acks[QUEUE];    /* what each of them acknowledges */
	uint64_t sent, acked, applied;
	uint64_t ring_bytes;
};

static bool end_send(struct end *e, struct msg m)
{
	if (credit_send(&e->credit, &m) != TP_QUEUED)
		return false;
	assert_true(e->sent - e->acked < QUEUE);
	e->queue[e->sent % QUEUE] = m;
	e->acks[e->sent % QUEUE] = e->applied;
	e->sent++;
	e->ring_bytes += WIRE_HDR_BYTES + m.payload_bytes;
	assert_true(e->ring_bytes <= CREDIT_RING_BYTES);
	return true;
}

static void end_acked(struct end *e, uint64_t upto)
{
	for (; e->acked < upto; e->acked++) {
		const struct msg *m = &e->queue[e->acked % QUEUE];

		credit_acked(&e->credit, m);
		e->ring_bytes -= WIRE_HDR_BYTES + m->payload_bytes;
	}
}

/* Apply the next message of `from`: both keep the rules, so it is legal. */
static void end_receive(struct end *to, struct end *from)
{
	const struct msg *m = &from->queue[to->applied % QUEUE];

	if (to->applied == from->sent)
		return;
	end_acked(to, from->acks[to->applied % QUEUE]);
	assert_int_equal(credit_arrived(&to->credit, m), 0);
	to->applied++;
	credit_applied(&to->credit, m);
}

static void end_say(struct end *e, struct prng *r)
{
	unsigned pages = 1 + (unsigned)prng_below(r, 64);

	switch (prng_below(r, 6)) {
	case 0:
		(void)end_send(e, message(MSG_GET_S, pages));
		break;
	case 1:
		(void)end_send(e, message(MSG_RECALL_X, 1));
		break;
	case 2:
		(void)end_send(e, message(MSG_GRANT_S, pages));
		break;
	case 3:
		(void)end_send(e, message(MSG_GRANT_S, 1));
		break;
	case 4:
		(void)end_send(e, message(MSG_ACK_DATA, 1));
		break;
	default:
		(void)end_send(e, message(MSG_FORGET, 1));
		break;
	}
}

static void two_honest_ends_never_overflow_nor_accuse(void **state)
{
	static struct end ends[2];

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct prng r;
		uint64_t lag;

		prng_init(&r, seed);
		lag = 1 + prng_below(&r, 40); /* how rarely messages arrive */
		memset(ends, 0, sizeof(ends));
		for (unsigned i = 0; i < 20000; i++) {
			struct end *e = &ends[prng_below(&r, 2)];
			struct end *other = e == ends ? ends + 1 : ends;

			end_say(e, &r);
			if (prng_below(&r, lag) == 0)
				for (unsigned k = 0; k < lag; k++)
					end_receive(e, other);
		}
		assert_true(ends[0].sent > 1000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_spend_and_answers_give_back),
		cmocka_unit_test(
			who_asks_and_hears_of_none_is_told_of_the_next),
		cmocka_unit_test(
			who_lacks_pages_is_not_called_for_something_else),
		cmocka_unit_test(unacknowledged_requests_have_an_end),
		cmocka_unit_test(who_overdraws_is_found_out),
		cmocka_unit_test(who_answers_what_was_not_asked_is_found_out),
		cmocka_unit_test(two_honest_ends_never_overflow_nor_accuse),
	};

	return cmocka_run_group_tests_name("credit", tests, NULL, NULL);
}
