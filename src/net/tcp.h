/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP transport: what its files share.  Not for anybody else: the contract is
 * net/transport.h.
 *
 *	tcp.c        the transport, its table of sessions, the end of a turn
 *	tcp_timer.c  acknowledgements that are late, and what is rare
 *	tcp_accept.c listening, and connections that have not said hello
 *	tcp_conn.c   a session's connection: dial, hello, resume, drop, break
 *	tcp_tx.c     sending: ring, acknowledgements
 *	tcp_rx.c     receiving: whole messages out of the buffer
 *
 * A session and its ring
 *
 *	0 . . tail . . . . . . . sent . . . . . . head
 *	      |  on their way,   |  not yet given |
 *	      |  or lost         |  to the socket |
 *
 * tp_send() writes header and payload at `head`, once.  At the end of the turn
 * one send() moves `sent`; an acknowledgement moves `tail`.  When a connection
 * is made anew, `sent` goes back to `tail`, which the peer's hello has moved to
 * what it has applied.  So the queue and the retained tail are one thing.  An
 * empty ring starts over at 0, where it is warm in the cache.
 *
 * The state of a session
 *
 *	IDLE     no connection; who dials has dial_at
 *	DIALLING connect() is under way
 *	HELLO    ours is said, the peer's awaited (only who dials)
 *	UP       messages flow
 *
 * and `over`: 0, or the reason why it ended for good.  An ended session stays
 * in the table, so that hellos of its incarnation are refused, until
 * tp_forget().
 * A session is freed at the end of a turn, so a handler may forget even the one
 * it is called for; every caller of a handler looks at `over` or `state` behind
 * it.
 */
#pragma once

#include "net/address.h"
#include "net/credit.h"
#include "net/ring.h"
#include "net/transport.h"

#define TCP_RING_BYTES (2u << 20)
#define TCP_RX_BYTES   (512u << 10)
static_assert(CREDIT_RING_BYTES <= TCP_RING_BYTES,
              "answers would meet a full ring");
static_assert(TCP_RING_BYTES + TCP_RX_BYTES <= TP_SESSION_BYTES,
              "a node counts on it");
static_assert(TCP_RX_BYTES >= WIRE_HDR_BYTES + WIRE_PAYLOAD_BYTES_MAX,
              "the longest message must fit, or its connection would stall");

#define TCP_HELLO_BYTES (WIRE_HDR_BYTES + sizeof(struct wire_hello))
#define TCP_HELLO_NS    (5 * NSEC_PER_SEC) /* to connect, and to say hello */
#define TCP_GUESTS_MAX  64u                /* accepted, hello not yet read */

/*
 * What is applied before an acknowledgement is sent at once: a quarter of what
 * the sender's ring holds, of bytes or of the smallest room.
 */
#define TCP_ACK_BYTES    (TCP_RING_BYTES / 4)
#define TCP_ACK_MESSAGES (TP_FREE_MAX / 4)

enum tcp_state {
	TCP_IDLE,
	TCP_DIALLING,
	TCP_HELLO,
	TCP_UP,
};

struct tcp_session {
	struct transport *tp;
	struct tcp_session *next_shard; /* of the same node */
	struct tcp_session *next;       /* of the transport */
	struct tcp_session *next_grave;
	struct tcp_session *next_dirty;
	struct tcp_session *next_owing;

	node_id node;
	uint8_t shard;
	bool dials; /* connecting is ours to do */
	uint64_t incarnation;
	struct address address; /* if we dial */

	enum tcp_state state;
	int over;          /* 0, or the -errno that ended the session */
	bool farewell;     /* over: the peer is yet to be told, by dialling */
	struct loop_io io; /* fd -1: none */
	nsec_t deadline;   /* DIALLING, HELLO: give up then */
	nsec_t dialled;    /* when connect() was called last */
	nsec_t dial_at;    /* IDLE and dials: the next attempt */
	nsec_t heard;      /* UP: when bytes came, or waiting began */
	bool was_up;       /* ever: the next time is a reconnect */

	/* Sending. */
	struct ring tx;
	uint64_t tail, sent, head;
	uint64_t newest;   /* where the newest message begins */
	uint64_t acked;    /* seq before `tail`: the peer has applied it */
	uint64_t next_seq; /* of the next message */
	uint8_t side[TCP_HELLO_BYTES]; /* a hello, or an ACKED: goes first */
	unsigned side_bytes, side_sent;
	bool dirty;   /* in tp->dirty: to be flushed at the end of the turn */
	bool blocked; /* the socket was full: EPOLLOUT is watched */

	/* Receiving. */
	struct ring rx;
	uint64_t rx_head, rx_tail; /* bytes received, and delivered */
	uint64_t applied;          /* the peer's highest seq */
	uint64_t ack_sent;         /* what of that it was told */
	uint32_t ack_bytes;        /* applied since, and messages */
	uint32_t ack_messages;
	bool ack_now;    /* it asked (PING) */
	bool delivering; /* a handler may be running */

	/* Waiting for company: lazy messages, or an acknowledgement. */
	bool owing;
	bool owing_listed; /* in tp->owing, perhaps from before */
	nsec_t owing_since;

	struct credit credit;
};

/* An accepted connection of somebody who has not said hello. */
struct tcp_guest {
	struct transport *tp;
	struct loop_io io; /* fd -1: free */
	nsec_t since;
	unsigned got;
	uint8_t bytes[TCP_HELLO_BYTES];
};

/* One clock for all deadlines; UINT64_MAX: none. */
struct tcp_alarm {
	struct loop_io io; /* a timerfd */
	nsec_t at;         /* what it is set for: <= the two below */
	nsec_t nudge;      /* the first who owes is to be flushed */
	nsec_t chores;     /* dialling, deadlines, silence */
};

struct transport {
	struct loop *loop;
	struct tp_config cfg;
	struct tp_handlers handlers;
	void *arg;
	uint32_t epoch;
	struct tp_counters counters;

	struct loop_hook hook;
	struct loop_timer kick; /* makes a turn end when none would */
	struct tcp_alarm alarm;
	bool turn_over; /* the hook ran, and no callback of ours since */

	struct tcp_session *by_node[NODES_MAX];
	struct tcp_session *sessions;
	struct tcp_session
		*graves; /* forgotten in this turn, freed at its end */
	struct tcp_session *dirty;
	struct tcp_session *owing;

	struct loop_io listener; /* fd -1: none */
	nsec_t listen_again; /* out of descriptors: not before; 0: listens */
	struct tcp_guest guests[TCP_GUESTS_MAX];
};

/* --- tcp.c --------------------------------------------------------------- */

struct tcp_session *tcp_find(const struct transport *tp, node_id node,
                             uint8_t shard);
/* Flush `s` at the end of this turn. */
void tcp_mark_dirty(struct tcp_session *s);
/* A callback of ours runs: this turn's end is still to come. */
void tcp_turn(struct transport *tp);

/* --- tcp_timer.c --------------------------------------------------------- */

/* Returns 0 or -errno. */
int tcp_alarm_init(struct transport *tp);
void tcp_alarm_done(struct transport *tp);
/* Flush `s` ack_delay from now, unless that happens sooner. */
void tcp_owe(struct tcp_session *s);
/* Have the chores done at `at`, or earlier. */
void tcp_chores_by(struct transport *tp, nsec_t at);

/* --- tcp_accept.c -------------------------------------------------------- */

/* Close guests that are late, listen again: returns when to look again. */
nsec_t tcp_accept_chores(struct transport *tp, nsec_t now);
void tcp_accept_done(struct transport *tp);

/* --- tcp_conn.c ---------------------------------------------------------- */

/*
 * Take the connection `fd`, on which the peer said `h`; `fd` is closed if there
 * is no such session.
 */
void tcp_welcome(struct transport *tp, int fd, const struct hello *h);
/* The hello that answers ours.  Returns 0, or -errno: connection gone. */
int tcp_answered(struct tcp_session *s, const struct hello *h);
/* The connection is lost; the session goes on.  Calls down(). */
void tcp_drop(struct tcp_session *s, int why);
/* The session is over.  Calls broken(). */
void tcp_break(struct tcp_session *s, int why, const char *text);
/* Close the connection, call nobody. */
void tcp_close(struct tcp_session *s);
/* Dial if it is time, give up what is late; returns when to look again. */
nsec_t tcp_conn_chores(struct tcp_session *s, nsec_t now);

/* --- tcp_tx.c ------------------------------------------------------------ */

/*
 * If much waits to be sent, send it now: a run of pages is a send(2)'s worth by
 * itself, and the peer can work on it while this turn goes on.
 */
void tcp_eager(struct tcp_session *s);
void tcp_flush(struct tcp_session *s);
/*
 * The peer has applied everything up to `seq`.  Calls acked().  Returns 0, or
 * -EPROTO if it never was sent.
 */
int tcp_acked(struct tcp_session *s, uint64_t seq);

/* --- tcp_rx.c ------------------------------------------------------------ */

/* Read the hello message at `bytes`.  Returns 0 or -errno. */
int tcp_read_hello(const uint8_t *bytes, struct hello *ret);
void tcp_receive(struct tcp_session *s);
/* Tell who waits for room that some came back. */
void tcp_ready(struct tcp_session *s);
