/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links: the connections of the node port, as whole messages.
 *
 * What it promises
 *
 *   whole      A message is handed on when its header and payload are here and
 *              match their checksums; whatever else arrives ends the link.
 *   numbered   Messages are counted in both directions (the header's seq and
 *              ack); a gap ends the link.
 *   hello      The first message is a HELLO, or the link ends; who has not sent
 *              a whole one after LINK_HELLO_NS is dropped.
 *   bounded    A link's queue takes LINK_QUEUE_MAX bytes.  Who does not read
 *              for LINK_STALL_NS, or lets the queue fill, is dropped.
 *   batched    What a turn of the loop says to a node leaves in one send(2), at
 *              links_flush().
 *
 * A link cannot be resumed: after a break the node says HELLO again.
 *
 * What it expects: the loop's thread alone.  A link is freed in links_flush(),
 * never before, so that callbacks may end any link at any time.
 */
#pragma once

#include "loop/loop.h"
#include "wire/wire.h"

#define LINKS_MAX      (NODES_MAX + 256u)
#define LINK_QUEUE_MAX (4u << 20)
#define LINK_HELLO_NS  (5 * NSEC_PER_SEC)
#define LINK_STALL_NS  (10 * NSEC_PER_SEC)

struct node;

struct link {
	struct loop_io io; /* fd -1: ended, waits to be freed */
	struct links *owner;
	struct link *next;
	char peer[64]; /* its address, for logs */

	bool greeted;      /* link_greet() was called */
	struct node *node; /* the handlers': who it is */
	space_id told;     /* the handlers': spaces up to this one were told */

	/* Private. */
	struct loop_timer timer; /* until the hello; while the queue stands */
	bool ending;             /* nothing more is read or queued */
	bool blocked;            /* the socket is full: wait for EPOLLOUT */
	uint64_t seq_in, seq_out;
	uint8_t *in;
	size_t in_bytes, in_room;
	uint8_t *out;
	size_t out_at, out_bytes, out_room;
};

struct links_handlers {
	/*
	 * A message came; the payload is borrowed.  Before link_greet() it is
	 * the HELLO, checked to be one.
	 */
	void (*message)(struct link *l, const struct msg *m,
	                const void *payload, void *arg);
	/* The link is over; it says nothing more.  `why` is for the log. */
	void (*ended)(struct link *l, const char *why, void *arg);
};

struct links {
	struct loop *loop;
	const struct links_handlers *handlers;
	void *arg;
	struct loop_io listener;
	struct loop_timer rest; /* out of descriptors: accept again later */
	struct link *first;
	unsigned n;
};

/*
 * Serve the listening socket `fd`, which it takes.  `ls` is in place and must
 * not move.  Returns 0, or -errno with `em` set.
 */
int links_start(struct links *ls, struct loop *loop, int fd,
                const struct links_handlers *handlers, void *arg,
                struct errmsg *em);
/* End everything; handlers are not called. */
void links_done(struct links *ls);

/* Send what was queued, free what has ended.  At the end of each turn. */
void links_flush(struct links *ls);

/* From now on all messages are taken, and whoever sent HELLO may be slow. */
void link_greet(struct link *l);

/*
 * Queue a message; seq and ack are set here.  A link that cannot take it is
 * ended, so there is nothing to check: its node will say HELLO again.
 */
void link_send(struct link *l, const struct msg *m, const void *payload);
/* Bytes that wait to be sent. */
size_t link_queued(const struct link *l);

/* Send what is queued, then close: for a last word.  Calls `ended` now. */
void link_end(struct link *l, const char *why);
/* Close at once.  Calls `ended` now, unless it was. */
void link_drop(struct link *l, const char *why);
