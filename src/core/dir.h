/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory: who may read or write one page.  The home side; see dir.c for the
 * protocol, core/page.h for the other side.
 *
 * Pure: no I/O, no clock, no allocation, no globals.  A step reads an entry and
 * an event, changes the entry, and lists what the caller must do.  That is what
 * lets test/sim replay it from a seed and test/model visit its every state.
 *
 * A directory serves the pages of one shard.  Its entries are 8 bytes and live
 * wherever the caller likes (all zero: untouched); what a busy page needs lives
 * in pools of the directory, in memory that the caller gives.
 */
#pragma once

#include "base/base.h"
#include "core/nodeset.h"

/* One page, at its home.  All zeros: nobody ever touched it. */
struct dir_entry {
	uint8_t flags; /* DIR_F_* of dir_txn.h */
	uint8_t n;     /* inline holders */
	uint16_t v[3]; /* holders, a handle, or owner and time: dir_txn.h */
};
static_assert(sizeof(struct dir_entry) == 8, "with core/page.h 16 a page");

struct dir;

struct dir_config {
	node_id self;   /* the home: this node */
	uint32_t n_txn; /* pages that may be busy at once */
	uint32_t n_set; /* pages that may have more than three sharers */
};

/* Bytes of memory that dir_init() wants, aligned to 64. */
size_t dir_bytes(const struct dir_config *cfg);
struct dir *dir_init(const struct dir_config *cfg, void *mem);

enum dir_event_kind {
	DIR_GET_S,    /* `from` asks for a copy to read */
	DIR_GET_X,    /* `from` asks to write */
	DIR_DISCARD,  /* `from` asks for zeros, everywhere */
	DIR_ACK,      /* `from` gave its copy up (INVAL) */
	DIR_ACK_DATA, /* `from` answers RECALL_*; the event has the bytes */
	DIR_NOT_HELD, /* `from` says it has no copy: a broken rule somewhere */
	DIR_EVICT,    /* `from` asks if its copy may go */
	DIR_APPLIED, /* `from` has applied the GRANT_S that was marked `more` */
	DIR_GONE,    /* `from` is dead; its incarnation is over */
};

struct dir_event {
	enum dir_event_kind kind;
	node_id from;
	bool prefetch;   /* GET: answer now, or refuse; never wait */
	bool home_ready; /* prefetch: home's own copy may be recalled at once */
	bool may_keep;   /* ACK_DATA: home has a frame to spare for a copy, and
	                    no request of its own for this page under way */
	bool can_keep;   /* ACK_DATA: it has no request under way, and would
	                    rather exceed its limit than lose the page */
	bool store;      /* GET_S: to hold it for a node that wants to evict it;
	                    such a read says nothing of who uses the page */
	bool careful;    /* the space has replicas: while a page has two copies,
	                    no step may leave it with one that is on its way */
	uint8_t need;    /* EVICT: confirmed holders that must remain, from 1 */
	/* EVICT: holders that may not have applied what they were granted yet;
	 * NULL: none. */
	const struct nodeset *unconfirmed;
	uint64_t number; /* ACK_DATA: of the giver's frozen frame, 0 if none */
	uint32_t now_us; /* CLOCK_MONOTONIC in us, wrapping */
};

enum dir_action_kind {
	DIR_SEND_GRANT_S,    /* the bytes, to read */
	DIR_SEND_GRANT_X,    /* the bytes, to write */
	DIR_SEND_GRANT_ZERO, /* zeros, to write */
	DIR_SEND_UPGRADE,    /* write the copy you have */
	DIR_SEND_LOST,       /* the contents are lost */
	DIR_SEND_REFUSED,    /* this prefetch is not granted */
	DIR_SEND_AGAIN,      /* no room for a transaction: ask again later */
	DIR_SEND_DISCARDED,  /* done */
	DIR_SEND_RECALL_S,   /* send me the bytes, stay a reader */
	DIR_SEND_RECALL_X,   /* give it up, send the bytes; for `requester` */
	DIR_SEND_INVAL,      /* give it up */
	DIR_SEND_DROP,       /* your copy may go: you hold it no longer */
	DIR_SEND_STAY,       /* your copy must stay */
	DIR_KEEP,            /* home: keep the event's bytes as a reader */
	DIR_FORGET,          /* tell `node`, or once nobody needs it, to free
	                        frozen frame `number`: nobody was granted it */
};

struct dir_action {
	enum dir_action_kind kind;
	node_id node; /* to whom; NODE_NONE: to all of sets[set] */
	uint8_t set;
	bool event_bytes;  /* GRANT: the event's bytes, else home's own */
	bool migrate;      /* GRANT_X: only a read was asked */
	bool more;         /* GRANT_S: it asked to write, an UPGRADE will follow
	                      once it has said DIR_APPLIED */
	node_id requester; /* RECALL_X: for whom.  GRANT_X: the giver, who keeps
	                      frame `number` until this grant is applied, or
	                      NODE_NONE */
	uint64_t number;
};

#define DIR_ACTIONS_MAX 16u
#define DIR_SETS_MAX    4u

/* To be carried out in order, before the next event of any page. */
struct dir_actions {
	uint32_t n, n_sets;
	struct dir_action v[DIR_ACTIONS_MAX];
	struct nodeset sets[DIR_SETS_MAX];
};

/*
 * Take one event.  Fills `out` from the start.
 *
 * Returns 0, or -EPROTO if no correct node could have sent this event now; then
 * the entry is unchanged, `out` is empty, and the sender ends there [B5].
 */
int dir_handle(struct dir *d, struct dir_entry *e, const struct dir_event *ev,
               struct dir_actions *out);

/* Its page is gone for good: give back what `e` has of the pools. */
void dir_drop(struct dir *d, struct dir_entry *e);

/* Abort unless `e` satisfies the invariants of dir.c. */
void dir_check(const struct dir *d, const struct dir_entry *e);

/* --- looking ----------------------------------------------------------- */

enum dir_state {
	DIR_UNTOUCHED,
	DIR_SHARED,
	DIR_OWNED,
	DIR_BUSY,
	DIR_LOST,
};
enum dir_state dir_state(const struct dir_entry *e);
/* Who holds the page, also while it is busy. */
void dir_holders(const struct dir *d, const struct dir_entry *e,
                 struct nodeset *ret);
/* Does `node` hold it?  As dir_holders(), for one. */
bool dir_holds(const struct dir *d, const struct dir_entry *e, node_id node);
/* While busy: whom the home waits for, who is served and who waits. */
struct dir_view {
	struct nodeset awaiting, wait_s, wait_x, wait_d;
	node_id served; /* NODE_NONE: nobody */
	uint8_t kind, asked;
};
void dir_view(const struct dir *d, const struct dir_entry *e,
              struct dir_view *ret);
uint32_t dir_free_txns(const struct dir *d);
