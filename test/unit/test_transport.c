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

int main(void)
{
	static const struct tc_env env = {
		.join = join,
		.cut = proxy_cut,
		.stall = proxy_stall,
		.part = proxy_stop,
	};

	return tc_main("transport", &env);
}
