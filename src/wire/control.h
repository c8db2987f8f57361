/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages: the coordinator's link, and the membership record.
 *
 * Over the node port a node and the coordinator exchange wire messages of class
 * CONTROL.  Flow, after POST /v1/nodes gave the node its id and incarnation:
 *
 *	node                                coordinator
 *	HELLO (node, incarnation, shards)->
 *	                                  <-HELLO (node = NODE_NONE, cluster)
 *	                                  <-MEMBERS (whenever the epoch grows)
 *	                                  <-SPACE_ADD (each, then new ones)
 *	SPACE_ADD+REPLY ------------------>
 *	LEASE (JSON counters) ------------>   every third of the lease
 *	                                  <-LEASE+REPLY (arg: lease in ns; JSON)
 *	CLAIM ---------------------------->   (space, page; arg: claim_arg())
 *	                                  <-CLAIM+REPLY (page, arg; records)
 *	                                  <-QUERY (arg: number of the question)
 *	QUERY+REPLY ---------------------->   (same arg)
 *	LEAVE ---------------------------->   SIGTERM
 *	                                  <-LEAVE+REPLY
 *
 * `seq` counts messages of a connection; the link is not resumable: after a
 * break the node says HELLO again and everything is told anew.  A HELLO whose
 * incarnation is not the newest, or was declared dead, is answered by closing
 * the connection after a LEAVE+REPLY+ERROR that says why.
 *
 * A LEASE answer says: from the moment you *sent* the question your lease runs
 * for arg ns.  Its document, if it has one, says how many pages each node that
 * lives takes for its peers now; who is not named takes none.  Without one, or
 * with one that makes no sense, what was said before stands, and the lease
 * counts all the same.
 *
 * JSON documents (all objects):
 *   LEASE        {"pid","state","limit_bytes","capacity_bytes",
 *                 "resident_bytes","fixed_bytes","room_pages","lent_bytes",
 *                 "borrowed_bytes","overhead_bytes","waiting","refused",
 *                 "shards","faults":{"first_touch","remote_read",
 *                 "remote_write","upgrade","refault","prefetched"},
 *                 "wakeups","threads","clients","peers":[{"id","connected"}],
 *                 "spaces":[{"id","clients","written_pages","evicted_pages",
 *                 "under_replicated_pages","lost_pages"}]}; answer
 *                 {"room":[[id,pages],...]}
 *   SPACE_ADD    {"id","name","size_bytes","replicas","overcommit",
 *                 "bind":BIND}    BIND: null, "interleave", or
 *                 [[first_extent,n_extents,node],...]
 *   SPACE_DROP   {"id","commit":bool}; answer {"clients":N}.  commit false:
 *                 accept no new client; true: forget the space; with
 *                 {"id","cancel":true}: accept clients again
 *   QUERY        {"op":"map","space","from","n"} extents; answer
 *                 {"extents":[{"extent","pages":{"held","stored","missing",
 *                 "lost"},"holders":[id]}]} for those homed here; stored: of
 *                 held, read-only copies of which the home has none
 *                 {"op":"page","space","gpn"}; answer {"state","holders",
 *                 "heat"}
 */
#pragma once

#include "wire/wire.h"

/* --- CLAIM ------------------------------------------------------------- */

/*
 * A claim says: I am about to touch extents [e, e + n); make those of them that
 * nobody has mine, and open the first `open` of those that are mine.  It is
 * idempotent.  The answer has n records, in order.
 *
 * An extent that a node had opened in a life that is over is, as soon as a next
 * life may begin, at home at HOME_LOST for good: a number that no node ever
 * has, and that MEMBERS then lists as dead.  So its pages are lost for
 * everybody, and never look untouched to the node's next life, which knows
 * nothing of them.
 */
#define HOME_LOST         ((node_id)(NODES_MAX - 1))
#define CLAIM_EXTENTS_MAX 64u

struct claim {
	uint32_t n_extents; /* 1..CLAIM_EXTENTS_MAX */
	uint32_t n_open;    /* 0..n_extents; 0: only tell me who is home */
	bool ask;           /* do not claim anything, only tell */
};
uint64_t claim_arg(const struct claim *c);
/* Returns 0, or -EPROTO. */
int claim_decode(uint64_t arg, struct claim *ret);

struct wire_extent {    /* 8 bytes a record */
	le16 home;      /* NODE_NONE: nobody */
	uint8_t opened; /* 0 or 1 */
	uint8_t reserved;
	le32 version; /* grows when the home changes */
};
static_assert(sizeof(struct wire_extent) == 8, "docs/protocol.md");

struct extent_info {
	node_id home;
	bool opened;
	uint32_t version;
};
void extent_encode(const struct extent_info *e, struct wire_extent *out);
int extent_decode(const struct wire_extent *in, struct extent_info *ret);

/* --- MEMBERS ----------------------------------------------------------- */

/* Numbers are on the wire. */
enum member_state {
	MEMBER_JOINING = 0,
	MEMBER_ALIVE = 1,
	MEMBER_FENCED = 2,
	MEMBER_DEAD = 3,
	MEMBER_DRAINED = 4,
};

/*
 * One record of the membership: 96 bytes.  A MEMBERS message carries all nodes
 * of its epoch (the header's) and is complete in itself.
 */
struct wire_member {
	le16 id;
	uint8_t state;
	uint8_t shards; /* 0 until the node has said HELLO */
	le32 reserved;
	le64 incarnation;
	le64 limit_bytes;
	le64 free_bytes;
	uint8_t endpoint[64]; /* "HOST:PORT", NUL-padded, NUL at the end */
};
static_assert(sizeof(struct wire_member) == 96, "docs/protocol.md");

struct member {
	node_id id;
	enum member_state state;
	uint8_t shards;
	uint64_t incarnation;
	uint64_t limit_bytes, free_bytes;
	char endpoint[64];
};
void member_encode(const struct member *m, struct wire_member *out);
int member_decode(const struct wire_member *in, struct member *ret);
/*
 * Check a whole MEMBERS payload: length, each record, ids ascending.  Returns
 * the number of members, or -EPROTO.
 */
int members_check(const void *payload, uint32_t payload_bytes);
