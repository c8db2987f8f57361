/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator: membership, spaces, who is home of what; never on the way of
 * a page.
 *
 *	   nodes                    memspan, curl
 *	     | messages                   | HTTP
 *	+----v-----+               +------v-------+
 *	| link.c   |               | http.c       |  libmicrohttpd's thread:
 *	| port.c   |<--.       .-->| api*.c body.c|  receives, sends
 *	+----+-----+   |       |   +------+-------+
 *	     |      round.c: questions    | letters (loop/loop.h's mail)
 *	     v      to several nodes      v
 *	+---------------------------------------------+
 *	| coord.c: claims in batches, deaths, MEMBERS |  main thread: one loop,
 *	| members.c    spaces.c chunks.c              |  all state
 *	+---------------------+-----------------------+
 *	                      v
 *	              store.c (SQLite), in sync before anybody is told
 *
 * Everything but libmicrohttpd's own work happens on the main thread, so there
 * is no lock.  A turn of the loop ends with coord's hook: claims that came in
 * this turn are committed together and answered, a changed membership is told,
 * and each link's queue leaves in one send(2).
 */
#pragma once

#include <jansson.h>

#include "coord/config.h"
#include "coord/link.h"
#include "coord/members.h"
#include "coord/round.h"
#include "coord/spaces.h"
#include "coord/store.h"
#include "loop/loop.h"

struct http;

/* How long a request waits for nodes before it is answered without them. */
#define NODES_ANSWER_NS (2 * NSEC_PER_SEC)

/* Claims to commit together; more in one turn make a second transaction. */
#define CLAIMS_A_BATCH 256u

struct waiting_claim {
	struct link *link;
	struct msg msg;
	struct extent_info out[CLAIM_EXTENTS_MAX];
	int r; /* of spaces_claim() */
};

struct coord {
	struct loop *loop;
	struct store *store;
	struct members members;
	struct spaces spaces;
	struct links links;
	struct http *http;
	struct loop_hook hook;

	char node_host[64]; /* of the node port; may be 0.0.0.0 */
	uint16_t node_port;
	uint64_t lease_ms_default; /* of a cluster that is made */
	bool stopping;

	/* Time. */
	struct loop_timer deadline; /* of the next lease or death */
	struct loop_timer members_timer;
	nsec_t members_sent_at;
	bool members_changed;          /* tell at the end of this turn */
	uint64_t room_told[NODES_MAX]; /* pages */
	char *room;                    /* members_room(), or NULL */
	nsec_t room_made_at;

	/* The store fails: nothing can be promised. */
	const char *store_path; /* borrowed */
	bool store_failing;
	char store_why[512];
	struct loop_timer probe;

	struct round *rounds;
	uint64_t last_question;

	struct waiting_claim *claims; /* CLAIMS_A_BATCH of them */
	unsigned n_claims;
};

/* --- coord.c ------------------------------------------------------------- */

/*
 * Begin, with the store open and the loop there; node_fd is a listening socket,
 * taken.  Makes a cluster `default` in a store that never had anything.
 */
int coord_start(struct coord *c, const struct config *cfg, int node_fd,
                struct errmsg *em);
void coord_done(struct coord *c);

/* The membership has changed: tell all, and look when the next lease ends. */
void coord_members_changed(struct coord *c);
/* The answer to a renewal's document; NULL: there is none to give. */
const char *coord_room(struct coord *c);
/* `n` renewed, with figures: tell all if its free memory is not what it was. */
void coord_figures_changed(struct coord *c, const struct node *n);
/* The life of `n` is over for us: why goes to it, and to the log. */
void coord_send_off(struct coord *c, struct node *n, int status,
                    const char *why);

/*
 * What came of a change in the store.  Returns true if all is well; else
 * remembers that it fails, until a try works.
 */
bool coord_store_ok(struct coord *c, int r, const struct errmsg *em);
/* The HTTP status for a failure of the store: 507 for a full disk, else 503. */
int coord_store_status(int r);

/* Answer at the end of the turn. */
void coord_claim(struct coord *c, struct link *l, const struct msg *m);

/* --- port.c: what nodes say ---------------------------------------------- */

extern const struct links_handlers port_handlers; /* arg: struct coord */

/* Queue `m` with `doc`, borrowed, as payload (NULL: none) and our epoch. */
void port_send(struct coord *c, struct link *l, const struct msg *m,
               const json_t *doc);
/* Answer `m` with REPLY|ERROR {"status","detail"}. */
void port_refuse(struct coord *c, struct link *l, const struct msg *m,
                 int status, const char *fmt, ...) PRINTF_LIKE(5, 6);
/* Tell the whole membership to one node. */
void port_members(struct coord *c, struct link *l);
/* Tell `l` the spaces that it was not told yet, as far as its queue goes. */
void port_spaces(struct coord *c, struct link *l);
