/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link from within: link.c is the connection, link_members.c the membership
 * and the promises, link_doc.c the documents, link_memory.c the figures of
 * memory in them.
 */
#pragma once

#include <jansson.h>
#include <pthread.h>

#include "node/node.h"
#include "node/promise.h"

/* A space as the link knows it, for the figures of a renewal. */
struct link_space {
	struct space *space;
	/* What its directories take, by the last whole look at them. */
	uint64_t directory_bytes;
	/* The look under way: pages seen, and what was found by then. */
	uint64_t at, found_bytes;
};

struct link_spaces {
	struct link_space *v;
	uint32_t n, room;
	uint32_t next; /* whose directories are looked at next */
};

struct link {
	struct node *node;
	struct loop *loop;
	struct loop_io io;
	struct loop_timer renew;
	pthread_t thread;
	bool running, connected, leaving;
	char address[64];

	uint64_t seq_out, seq_in;
	uint8_t *rx, *tx;
	size_t rx_bytes, tx_bytes;

	nsec_t asked_at; /* when the unanswered renewal was sent; 0: none */
	uint32_t epoch;  /* of the membership that was adopted */
	struct promise promise;
	struct loop_timer adopt; /* when our promises have run out */
	uint8_t *waiting;        /* the membership that waits for it, or NULL */
	uint32_t waiting_bytes, waiting_epoch;
	bool promised; /* the lease in force is the members', not the
	                  coordinator's */
	struct claim_letter *claims; /* unanswered, oldest first */
	bool claims_fail;            /* the last answer was an error */
	struct link_spaces spaces;
	bool room_wrong; /* an answer's document was, and it was said */
	struct {
		uint64_t number;
		unsigned left; /* shards that have not answered */
		json_t *answer;
		bool one_page;
	} question[64];
};

/* The connection is over; the thread dials again.  (link.c) */
void link_down(struct link *l, const char *why);

/* link_members.c */
void link_members_init(struct link *l);
void link_on_members(struct link *l, const struct msg *m,
                     const uint8_t *payload);
/* The coordinator is silent: ask the other members, if it is time. */
void link_ask_promises(struct link *l);

/* The LEASE document; NULL without memory. */
json_t *link_lease_doc(const struct node *n, const struct link_spaces *sp);
/* Fill `l` from a SPACE_ADD or SPACE_DROP document.  0 or -EPROTO. */
int link_space_doc(const void *payload, uint32_t bytes, struct space_letter *l);
/* Fill `q` from a QUERY document.  0 or -EPROTO. */
int link_query_doc(const void *payload, uint32_t bytes, struct query_letter *q);

/* link_memory.c: what a renewal says of memory. */

/* What --memory counts, as the kernel has it: memfds, pools, sessions. */
uint64_t link_resident(const struct node *n, const struct link_spaces *sp);
/* Look at the directories of the spaces, as far as one renewal may. */
void link_measure(struct link_spaces *sp);
/* What --memory does not count: the process at its start, and directories. */
uint64_t link_overhead(const struct node *n, const struct link_spaces *sp);
/*
 * Set n->peer_room as the document of a LEASE answer says.  Returns 0, or
 * -EPROTO with nothing changed.
 */
int link_room_doc(const void *payload, uint32_t bytes, struct node *n);
