/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link's documents and its registration: link.c is the connection.
 */
#pragma once

#include <jansson.h>

#include "node/node.h"

/* Spaces as the link knows them, for the counters of a renewal. */
struct link_spaces {
	struct space **v;
	uint32_t n, room;
};

/* The LEASE document; NULL without memory. */
json_t *link_lease_doc(const struct node *n, const struct link_spaces *sp);
/* Fill `l` from a SPACE_ADD or SPACE_DROP document.  0 or -EPROTO. */
int link_space_doc(const void *payload, uint32_t bytes, struct space_letter *l);
/* Fill `q` from a QUERY document.  0 or -EPROTO. */
int link_query_doc(const void *payload, uint32_t bytes, struct query_letter *q);
/* What a node's memory holds for spaces now, frozen frames included. */
uint64_t link_resident(const struct node *n, const struct link_spaces *sp);
