/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP transport keeps the promises of net/transport.h, through a proxy that
 * loses connections and holds up bytes.  What strangers and liars can do to it
 * is in test_tcp.c.
 */

#include "proxy.h"
#include "transport_cases.h"

static void join(struct loop *loop, struct transport *a, char *endpoint)
{
	char bound[64];

	assert_int_equal(tp_listen(a, "127.0.0.1:0", bound, NULL), 0);
	proxy_start(loop, bound, endpoint);
}

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

int main(void)
{
	static const struct tc_env env = {
		.join = join,
		.cut = proxy_cut,
		.stall = proxy_stall,
		.part = proxy_stop,
	};
	struct CMUnitTest tests[] = {
		TC_TEST(a_read_with_more_to_come_gives_nothing_back),
	};

	tests[0].initial_state = (void *)(uintptr_t)&env;
	return tc_main("transport", &env) +
	       cmocka_run_group_tests_name("transport_tcp", tests, NULL, NULL);
}
