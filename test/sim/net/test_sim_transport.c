/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated network keeps the promises of net/transport.h: the same cases
 * as those of TCP.
 */

#include "../../unit/transport_cases.h"
#include "sim_net.h"

static struct sim_net *net;

static void join(struct loop *loop, struct transport *a, char *endpoint)
{
	(void)a;
	net = sim_clock_net(loop);
	snprintf(endpoint, 64, "nowhere");
}

static void cut(void)
{
	sim_net_cut(net, 0, 1);
}

static void stall(bool on)
{
	sim_net_hold(net, 0, 1, on);
}

static void part(void)
{
	net = NULL;
}

int main(void)
{
	static const struct tc_env env = {
		.join = join,
		.cut = cut,
		.stall = stall,
		.part = part,
	};

	return tc_main("sim_transport", &env);
}
