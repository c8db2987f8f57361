/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network: net/transport.h between nodes of one process, in virtual time.
 *
 * What a transport promises is kept: each message once, in order, credits,
 * acknowledgement when applied.  What it does not promise is random: how long
 * messages take, and so how those of different peers are mixed.  On top of that
 * connections break, are held up, and cannot be made, and nodes stand still, as
 * said here.  Nodes have one shard.
 *
 * Whoever uses net/transport.h and loop/loop.h can be run on it as it is: link
 * this and sim_clock.c in place of src/net and src/loop.  test/sim/core has a
 * smaller network of its own, which knows no transport.
 */
#pragma once

#include "net/transport.h"

struct sim_net;

/* Made by the first tp_new() on a loop; freed with it. */
struct sim_net *sim_net_new(struct loop *loop);
void sim_net_free(struct sim_net *net);
struct sim_net *sim_clock_net(struct loop *loop); /* sim_clock.c */

void sim_net_seed(struct sim_net *net, uint64_t seed);
/* A message takes from `least` to `most` one way. */
void sim_net_delay(struct sim_net *net, nsec_t least, nsec_t most);
/* ... and `n` times as long to and from a slow node. */
void sim_net_slow(struct sim_net *net, node_id node, uint32_t n);

/* Break the connection between two nodes; it is dialled again. */
void sim_net_cut(struct sim_net *net, node_id a, node_id b);
/* While a pair is held, what is under way between them does not arrive. */
void sim_net_hold(struct sim_net *net, node_id a, node_id b, bool on);
/* While a pair is apart, they cannot be connected; what they were is broken. */
void sim_net_part(struct sim_net *net, node_id a, node_id b, bool on);
/* All pairs can be connected, nothing is held. */
void sim_net_heal(struct sim_net *net);
/* Nothing arrives at a node before then. */
void sim_net_pause(struct sim_net *net, node_id node, nsec_t until);

/* Messages delivered so far. */
uint64_t sim_net_messages(const struct sim_net *net);
