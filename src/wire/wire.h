/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire format, version 1.  docs/protocol.md is normative; this file must
 * agree with it byte for byte, and test/unit/test_wire.c checks the examples
 * printed there against this code.
 *
 * Every message is this header, then payload_bytes bytes of payload:
 *
 *	offset  size  field
 *	     0     4  magic          "mspn"
 *	     4     1  version        1
 *	     5     1  type           enum msg_type
 *	     6     2  flags          MSG_F_*; unknown bits are refused
 *	     8     4  space          0 for messages that concern no space
 *	    12     4  epoch          the sender's; only shows who is behind
 *	    16     8  page           first page of the run
 *	    24     8  mask           bit i: page + i is meant; see each type
 *	    32     8  arg            per type
 *	    40     8  seq            number of the message in its session, from
 *	                             1; 0: not numbered (HELLO, PING, ACKED)
 *	    48     8  ack            the highest seq applied the other way
 *	    56     4  payload_bytes  fixed by type and mask, or a limit by type
 *	    60     4  payload_crc    CRC-32C of the payload; 0 if there is none
 *	    64     4  reserved       zero
 *	    68     4  crc            CRC-32C of bytes 0..67
 *
 * Integers are little-endian.  Numbers of types are never reused; a change
 * that an old node cannot ignore raises `version`, which is settled once per
 * connection in the hello exchange (docs/protocol.md, "Versions").
 *
 * With MSG_F_TRACE the payload begins with 24 bytes of trace context
 * (W3C trace id, parent id), which version 1 nodes do not send, and skip.
 */
#pragma once

#include <assert.h>

#include "base/base.h"

/*
 * Wire integers are bytes, not numbers: alignment 1, no padding, and no way to
 * use one without converting it.
 */
typedef struct {
	uint8_t b[2];
} le16;
typedef struct {
	uint8_t b[4];
} le32;
typedef struct {
	uint8_t b[8];
} le64;

le16 le16_put(uint16_t v);
le32 le32_put(uint32_t v);
le64 le64_put(uint64_t v);
uint16_t le16_get(le16 v);
uint32_t le32_get(le32 v);
uint64_t le64_get(le64 v);

struct wire_hdr {
	uint8_t magic[4];
	uint8_t version;
	uint8_t type;
	le16 flags;
	le32 space;
	le32 epoch;
	le64 page;
	le64 mask;
	le64 arg;
	le64 seq;
	le64 ack;
	le32 payload_bytes;
	le32 payload_crc;
	le32 reserved;
	le32 crc;
};

static_assert(sizeof(struct wire_hdr) == 72, "header is 72 bytes on the wire");
static_assert(_Alignof(struct wire_hdr) == 1, "may sit at any address");
static_assert(offsetof(struct wire_hdr, crc) == 68, "crc covers what precedes");

#define WIRE_VERSION   1u
#define WIRE_HDR_BYTES sizeof(struct wire_hdr)

/* Largest payloads: a run of pages; a control document (JSON or records). */
#define WIRE_PAGES_BYTES_MAX   (RUN_PAGES * PAGE_BYTES)
#define WIRE_CONTROL_BYTES_MAX (256u << 10)
#define WIRE_TRACE_BYTES       24u
#define WIRE_PAYLOAD_BYTES_MAX (WIRE_PAGES_BYTES_MAX + WIRE_TRACE_BYTES)
static_assert(WIRE_CONTROL_BYTES_MAX + WIRE_TRACE_BYTES <=
                      WIRE_PAYLOAD_BYTES_MAX,
              "one receive buffer fits every message");

/* No page number reaches this one (an exbibyte): sums cannot overflow. */
#define WIRE_PAGE_END (1ull << 48)

enum {
	MSG_F_TRACE = 1,   /* trace context precedes the payload */
	MSG_F_MIGRATE = 2, /* GRANT_X: given writable though only S was asked */
	MSG_F_REPLY = 4,   /* control documents: the answer to the same arg */
	MSG_F_ERROR = 8,   /* with F_REPLY: payload is {"status","detail"} */
	/* MOVED, AGAIN: the answer to a DISCARD, not to a GET for the same
	 * pages */
	MSG_F_DISCARD = 16,
	MSG_F_STORE = 32, /* GET_S: to hold it for a node that evicts it */
	MSG_F_MORE = 64, /* GRANT_S: what was asked to write; UPGRADE follows */
};

/*
 * Types.  `mask` of page messages: bit i names page + i; bit 0 is always set
 * but in answers that have a second mask in `arg`.
 */
enum msg_type {
	/* Both ends of a connection; not numbered. */
	MSG_HELLO = 1, /* payload: struct wire_hello */
	MSG_PING = 2,  /* keep-alive: answered by ACKED */
	MSG_ACKED = 3, /* only `ack` counts */

	/* Requests, node -> home.  Spend popcount(mask) page credits. */
	MSG_GET_S = 8,    /* let me read page; the other bits are prefetch */
	MSG_GET_X = 9,    /* let me write page; the other bits are prefetch */
	MSG_DISCARD = 10, /* the pages become zeros, everywhere */

	/*
	 * Answers, home -> node.  Each page of a request's mask is named in
	 * exactly one answer, and that gives its credit back.  Pages of `mask`
	 * are granted, in GRANT_S and GRANT_X with their bytes in the payload
	 * in order; pages of `arg` (a second mask relative to page) were
	 * prefetch that is refused.  mask and arg are disjoint and not both 0.
	 */
	MSG_GRANT_S = 16,
	MSG_GRANT_X = 17,
	MSG_GRANT_ZERO = 18, /* writable, all zeros, no payload; arg as above */
	MSG_UPGRADE = 19,    /* mask 1: write the copy you have */
	MSG_GRANT_LOST = 20, /* mask 1: its contents are lost */
	MSG_DISCARDED = 21,  /* mask: done */
	/* mask: I am not the home; arg: home | version << 16, home NODE_NONE:
	 * I do not know either */
	MSG_MOVED = 22,
	MSG_AGAIN = 23, /* mask: no room or not ready, ask again later */

	/* Home -> holder, one page each (mask 1).  Spend a recall credit. */
	MSG_RECALL_S = 32, /* send the bytes, stay or become a reader */
	MSG_RECALL_X = 33, /* give it up, send the bytes; arg: requester's id */
	MSG_INVAL = 34,    /* give it up */

	/* Holder -> home, the answers to those; give the recall credit back. */
	MSG_ACK = 40, /* given up (INVAL) */
	/* payload: the page; arg: number of the frozen frame (after RECALL_X),
	 * 0 after RECALL_S */
	MSG_ACK_DATA = 41,
	MSG_NOT_HELD = 42, /* I have no such page */

	/* Home -> giver: arg names ACK_DATA's frozen frame, which may go. */
	MSG_FORGET = 48,

	/*
	 * Capacity.  EVICT (node -> home) and STORE (node -> peer) are
	 * requests, DROP and STORED their answers: each page is named once, in
	 * `mask` (yes) or in `arg` (no).
	 */
	MSG_EVICT = 56, /* may my copy go? */
	MSG_DROP = 58,  /* mask: it may, and is not counted any more; arg: no */
	MSG_STORE = 59, /* hold these for me: get them from their home */
	MSG_STORED = 60, /* mask: I hold them; arg: I do not */

	/* Node <-> coordinator (wire/control.h); MEMBERS also between nodes. */
	MSG_LEASE = 80, /* node: JSON counters; answer: arg = lease in ns */
	/* page: first of the first extent; arg: claim_arg(); answer: records */
	MSG_CLAIM = 81,
	MSG_MEMBERS = 82,   /* payload: struct wire_member[] */
	MSG_SPACE_ADD = 83, /* JSON; answered: I have it */
	/* JSON {"id","commit"}; answered with JSON {"clients"} */
	MSG_SPACE_DROP = 84,
	MSG_QUERY = 85,   /* JSON question to a node; answered with JSON */
	MSG_LEAVE = 86,   /* node: I stop in order; answered */
	MSG_PROMISE = 87, /* node <-> node: prolong me / I do */
	MSG_REPORT = 88,  /* recovery; the number is taken */
	MSG_TYPE_END,     /* one past the last: not a type */
};

/* A message in host form: what the rest of the program works with. */
struct msg {
	enum msg_type type;
	uint16_t flags;
	space_id space;
	uint32_t epoch;
	gpn_t page;
	uint64_t mask;
	uint64_t arg;
	uint64_t seq; /* set by the transport */
	uint64_t ack; /* set by the transport */
	uint32_t payload_bytes;
};

/* What a type is, for credits and room: see net/transport.h. */
enum msg_class {
	MSG_CLASS_NONE,    /* HELLO, PING, ACKED: not numbered, never queued */
	MSG_CLASS_REQUEST, /* spends page credits */
	MSG_CLASS_ANSWER,  /* gives page credits back */
	MSG_CLASS_RECALL,  /* spends a recall credit */
	MSG_CLASS_ACK,     /* gives it back */
	MSG_CLASS_FREE,    /* FORGET: room of its own, at most frozen frames */
	MSG_CLASS_CONTROL, /* coordinator link, MEMBERS, PROMISE */
};
enum msg_class msg_class(enum msg_type type);

/* The type's name in lower case ("get_s"), or "unknown". */
const char *msg_name(enum msg_type type);

/*
 * Credits that the message spends or gives back: pages of a request, pages that
 * an answer names (granted or refused), 1 for a recall and its answer, else 0.
 */
unsigned msg_credits(const struct msg *m);

/* Is `arg` a second mask: of what the answer says no to? */
bool msg_has_refused(enum msg_type type);

/* Pages that the payload carries: popcount(mask) for GRANT_S, GRANT_X, ... */
unsigned msg_payload_pages(const struct msg *m);

/*
 * Write the header of `m` with `payload_crc` (0 without payload).  Cannot fail:
 * `m` is ours, and asserted valid.
 */
void wire_encode(const struct msg *m, uint32_t payload_crc,
                 struct wire_hdr *out);

/* Make hdr->crc right again, after a field was changed. */
void wire_seal(struct wire_hdr *hdr);

/*
 * Read and check a header sent by a peer, who may be broken or hostile.  On
 * success every field of *ret is in range for its type: callers need not look
 * again.  *payload_crc is what the payload must have.
 *
 * Returns 0, or with *ret untouched -EBADMSG (magic or crc), -EPROTONOSUPPORT
 * (version) or -EPROTO (a field out of range).  The caller's answer to each is
 * to drop the peer.
 */
int wire_decode(const struct wire_hdr *in, struct msg *ret,
                uint32_t *payload_crc);

/* --- hello ------------------------------------------------------------- */

/*
 * The first message on every connection, from both ends, the dialler first.
 *
 *	offset  size  field
 *	     0     2  version_min    the oldest version the sender speaks
 *	     2     2  version_max    the newest; both ends use the smaller max
 *	     4     4  features       bits both ends have are in force; none yet
 *	     8     2  node           the sender's id; NODE_NONE: a coordinator
 *	    10     2  to_node        whom it wants to reach
 *	    12     1  from_shard     the lane's end at the sender
 *	    13     1  to_shard       the lane's end at the receiver
 *	    14     1  shards         of the sender
 *	    15     1  refusal        enum hello_refusal
 *	    16     8  incarnation    of the sender
 *	    24     8  to_incarnation of the receiver, as the sender knows it
 *	    32     8  applied        highest seq of the receiver it has applied
 *	    40    16  cluster        id of the cluster (bytes of a UUID)
 */
struct wire_hello {
	le16 version_min, version_max;
	le32 features;
	le16 node, to_node;
	uint8_t from_shard, to_shard, shards, refusal;
	le64 incarnation, to_incarnation;
	le64 applied;
	uint8_t cluster[16];
};
static_assert(sizeof(struct wire_hello) == 56, "docs/protocol.md");

/*
 * Numbers are on the wire.  A hello that refuses is the last message of its
 * connection, and of its session.
 */
enum hello_refusal {
	HELLO_WELCOME = 0,
	HELLO_ENDED = 1,   /* you broke a rule: this session is over */
	HELLO_VERSION = 2, /* no version that both speak */
	HELLO_REFUSAL_END, /* one past the last */
};

struct hello {
	uint16_t version_min, version_max;
	uint32_t features;
	node_id node, to_node;
	uint8_t from_shard, to_shard, shards;
	enum hello_refusal refusal;
	uint64_t incarnation, to_incarnation;
	uint64_t applied;
	uint8_t cluster[16];
};

void hello_encode(const struct hello *h, struct wire_hello *out);
/* Returns 0, or -EPROTO; versions are judged by hello_agree(). */
int hello_decode(const struct wire_hello *in, struct hello *ret);
/*
 * The version both speak.  Returns it (> 0), or -EPROTONOSUPPORT with a
 * sentence in `em` that names both ranges.
 */
int hello_agree(const struct hello *ours, const struct hello *theirs,
                struct errmsg *em);
