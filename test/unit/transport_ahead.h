/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of transport_cases.h, which includes it: an answer of two messages.
 */
#pragma once

#include "transport_cases.h"

/*
 * Who asked to write is sent a read first; what answers is the UPGRADE.  What
 * is counted when that read is acknowledged is read off the ring again.
 */
static void a_read_with_more_to_come_gives_nothing_back(void **state)
{
	struct msg m = { .type = MSG_GRANT_S,
		         .flags = MSG_F_MORE,
		         .space = 3,
		         .mask = 1,
		         .payload_bytes = PAGE_BYTES };
	struct iovec iov = { tc_bytes, PAGE_BYTES };
	struct tc *t = *state;

	tc_asked(t, TP_PAGE_CREDITS);
	assert_int_equal(tp_send(t->a.tp, 1, 0, &m, &iov, 1, 0, &t->goal),
	                 TP_QUEUED);
	tc_until(t, tc_a_acked_goal);
	assert_int_equal(tp_page_credits(t->b.tp, 0, 0), 0);
	TC_QUEUED(&t->a, MSG_UPGRADE, 0, 1, 0, &t->goal);
	tc_until(t, tc_a_acked_goal);
	assert_int_equal(tp_page_credits(t->b.tp, 0, 0), 1);
}
