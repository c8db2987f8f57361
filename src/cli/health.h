/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a cluster well?  Judged from what the coordinator says of it, without
 * asking anybody: the health word and the coded reasons of `memspan status`.
 *
 * Codes are for programs and stay as they are:
 *
 *	COORDINATOR_DOWN       err   nobody answers at its URL
 *	COORDINATOR_NOT_READY  warn  it answers, but /health does not say ok
 *	NO_NODES               warn  nobody lends memory
 *	NODE_DEAD              err   declared dead: what it alone held is gone
 *	NODE_FENCED            err   its lease ended: it serves nobody
 *	NODE_JOINING           warn  registered, and has no lease yet
 *	LEASE_LATE             warn  alive, but the last renewal is a lease old
 *	PEERS_APART            warn  two living nodes have no connection
 *	MEMORY_OVER_LIMIT      warn  a node holds more than its --memory
 *	MEMORY_FULL            warn  what a node would evict no peer takes
 *	CAPACITY_SHORT         err   the nodes that live cannot hold the spaces
 *	PAGES_LOST             err   contents that nobody has any more
 *	PAGES_MISSING          warn  pages that wait for a node to come back
 *	UNDER_REPLICATED       warn  pages with fewer copies than ordered
 */
#pragma once

#include <jansson.h>

#include "base/base.h"

enum health { HEALTH_OK, HEALTH_WARN, HEALTH_ERR };

struct reason {
	enum health level;
	const char *code; /* a literal */
	char text[320];   /* a sentence, cut where it is too long */
};

#define REASONS_MAX 16u /* each code at most once, and there are 14 */

struct health_report {
	enum health worst;
	unsigned n;
	struct reason v[REASONS_MAX];
};

/* "HEALTH_OK", ... */
const char *health_name(enum health h);

void health_add(struct health_report *r, enum health level, const char *code,
                const char *fmt, ...) PRINTF_LIKE(4, 5);

/* Add what `cluster`, the answer to GET /v1/cluster, gives reason to say. */
void health_judge(struct health_report *r, const json_t *cluster);

/* Is the node, an element of "nodes", in that state? */
bool node_in_state(const json_t *node, const char *state);
/* Alive, and renewed within the lease. */
bool node_fresh(const json_t *node, uint64_t lease_ms);
/* Does `node` say that it has a connection to the node with id `peer`? */
bool node_connected(const json_t *node, uint64_t peer);
