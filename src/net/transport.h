/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport: ordered, resumable delivery of messages between one shard of this
 * node and the shards of its peers.
 *
 * Implementations: net/tcp*.c (always built) and test/sim/net/sim_net.c (in
 * virtual time).  This header is the contract; test/unit/transport_cases.h
 * holds both to it.
 *
 * A *session* is the numbered stream between a lane's two ends, for as long as
 * both incarnations live.  A lane is (our shard, the peer's shard).
 *
 * What a transport promises
 *
 *   order      Messages of one session are delivered in the order they were
 *              sent.  Nothing is promised between sessions.  core/dir.c and
 *              core/page.c are correct only because of this line.
 *   once       Each message is delivered exactly once, however often the
 *              connection breaks, until tp_forget() ends the session.
 *   applied    A message is applied when the message() handler has returned;
 *              only then is it acknowledged.  acked() tells the sender.
 *   credits    Requests spend popcount(mask) page credits and RECALLs one
 *              recall credit of the session; TP_FULL when there are none.
 *              Answers and acks give them back and never meet TP_FULL: their
 *              room in the ring was reserved when the request was taken [B1].
 *              A credit is back when the answer's handler has returned.
 *   bounded    The ring of a session has a fixed size, allocated when the peer
 *              becomes known; nothing grows with traffic.
 *   reading    It never stops reading because it cannot write.
 *   prompt     No call blocks or calls back into the caller.  Handlers run only
 *              from the loop.  tp_send() gathers; the bytes go out at the end
 *              of the loop's turn, in one send() per peer.
 *
 * What it expects
 *
 *   one thread A transport belongs to the loop it was created on.
 *   patience   A handler may call anything here except tp_free().
 *   hooks      Hooks of the loop that send are added before tp_new(); what a
 *              later one sends costs a turn of its own.
 *   peers that keep the rules: a malformed or illegal message ends the session
 *              for good [B5]: broken(), and nothing is resumed.
 */
#pragma once

#include <sys/uio.h>

#include "base/base.h"
#include "loop/loop.h"
#include "wire/wire.h"

struct transport;

#define TP_PAGE_CREDITS   256u /* pages asked for and not answered, a session */
#define TP_RECALL_CREDITS 128u /* RECALL and INVAL not answered, a session */
/* The most that the ring and the receive buffer of a session can come to. */
#define TP_SESSION_BYTES (2560u << 10)
#define TP_FREE_MAX      512u /* FORGETs and MEMBERS waiting in a ring */

struct tp_config {
	node_id self;
	uint64_t incarnation;
	uint8_t shard;  /* ours: which end of the lanes this is */
	uint8_t shards; /* of this node */
	uint8_t cluster[16];
	nsec_t silence_max; /* a connection with unacknowledged bytes that is
	                          silent so long is broken and dialled anew */
	nsec_t redial;      /* between attempts to dial */
	nsec_t ack_delay;   /* how long a lazy message or a bare
	                          acknowledgement may wait for company */
};

struct tp_peer_config {
	node_id node;
	uint64_t incarnation;
	uint8_t shard;     /* the lane's other end */
	char endpoint[64]; /* "HOST:PORT"; used only by the end that dials: the
	                         higher node id */
};

struct tp_handlers {
	/* The session's connection is up (first time or again). */
	void (*up)(void *arg, node_id peer, uint8_t shard);
	/* It broke; the session goes on, messages wait.  `why` for the log. */
	void (*down)(void *arg, node_id peer, uint8_t shard, int why);
	/*
	 * One message.  `m` has passed wire_decode() and its payload the crc.
	 * Both are valid until the handler returns.  Returns 0, or -EPROTO if
	 * no correct peer could have sent it: then broken() follows.
	 */
	int (*message)(void *arg, node_id peer, uint8_t shard,
	               const struct msg *m, const void *payload);
	/* The peer has applied everything up to `seq` of what we sent. */
	void (*acked)(void *arg, node_id peer, uint8_t shard, uint64_t seq);
	/* Credits or room came back after TP_FULL. */
	void (*ready)(void *arg, node_id peer, uint8_t shard);
	/*
	 * The session ended for good: the peer broke a rule (-EPROTO,
	 * -EBADMSG, -EPROTONOSUPPORT), or says that we did (-ECONNREFUSED).
	 */
	void (*broken)(void *arg, node_id peer, uint8_t shard, int why,
	               const char *text);
	/*
	 * An accepted connection said a hello for another shard of this node.
	 * Takes `fd`: hand it to that shard's transport with tp_adopt().
	 */
	void (*foreign)(void *arg, int fd, const struct hello *h);
};

/* What became of a message given to tp_send(). */
enum tp_sent {
	TP_QUEUED = 0, /* accepted; will be delivered unless the peer dies */
	TP_FULL,       /* no credit or no room: ready() will say when */
	TP_DOWN,       /* no such peer, or its session is over; or `m` answers
	                  what was asked in an earlier session */
};

int tp_new(struct loop *loop, const struct tp_config *cfg,
           const struct tp_handlers *handlers, void *arg,
           struct transport **ret, struct errmsg *em);
/*
 * Closes all connections, without callbacks.  The loop must not run again.
 * Takes NULL; returns NULL.
 */
struct transport *tp_free(struct transport *tp);
DEFINE_AUTO(struct transport, tp_free)

/*
 * Accept connections at "HOST:PORT" (PORT 0: any free one).  Stores the bound
 * address in `bound` (64 bytes).  Returns 0 or -errno with the reason:
 * -EADDRINUSE, -EADDRNOTAVAIL, -EINVAL.
 */
int tp_listen(struct transport *tp, const char *address, char *bound,
              struct errmsg *em);

/*
 * The two halves of tp_listen(), for who must know its port before there is a
 * transport: bind and listen, which returns a descriptor or -errno as above;
 * and accept from it, which takes the descriptor.
 */
int tp_bind(const char *address, char *bound, struct errmsg *em);
int tp_accept(struct transport *tp, int fd, struct errmsg *em);

/*
 * Take an accepted, nonblocking connection whose hello was read elsewhere.
 * Closes it if the hello is of no known peer.
 */
void tp_adopt(struct transport *tp, int fd, const struct hello *h);

/*
 * Make a peer's lane known, and dial it if that is ours to do.  Allocates the
 * ring.  The same node with a newer incarnation replaces the session.  Returns
 * 0, -EEXIST for the same incarnation or an older one, -ENOMEM, -EINVAL for a
 * bad endpoint.
 */
int tp_peer(struct transport *tp, const struct tp_peer_config *cfg);

/* End the session: nothing is resumed, what was not sent is dropped. */
void tp_forget(struct transport *tp, node_id peer, uint8_t shard);

bool tp_connected(const struct transport *tp, node_id peer, uint8_t shard);

enum {
	TP_LAZY = 1, /* may wait ack_delay for company (FORGET) */
};

/*
 * Queue one message.  m->seq and m->ack are filled in.  The payload, gathered
 * from `iov` (n_iov may be 0), must be m->payload_bytes long; it is copied
 * before the call returns.
 *
 * Returns one of enum tp_sent; it does not fail otherwise.  `*ret_seq`, if not
 * NULL, is the message's number, for acked().
 */
enum tp_sent tp_send(struct transport *tp, node_id peer, uint8_t shard,
                     const struct msg *m, const struct iovec *iov, int n_iov,
                     unsigned flags, uint64_t *ret_seq);

/*
 * Page credits left of a session: how many pages a GET may name now.  After 0
 * ready() will come, as after TP_FULL.
 */
unsigned tp_page_credits(struct transport *tp, node_id peer, uint8_t shard);

/*
 * Acknowledge at the end of this turn what was applied of a session, although
 * there is nothing else to say: somebody waits for that.
 */
void tp_ack_soon(struct transport *tp, node_id peer, uint8_t shard);

/* The epoch that goes into headers. */
void tp_set_epoch(struct transport *tp, uint32_t epoch);

struct tp_counters {
	uint64_t msgs_out, msgs_in, bytes_out, bytes_in, sends, reconnects;
	uint64_t refused; /* connections closed before they were a session's */
};
void tp_counters(const struct transport *tp, struct tp_counters *ret);
/* Bytes of rings and receive buffers: part of the node's overhead. */
uint64_t tp_overhead_bytes(const struct transport *tp);
