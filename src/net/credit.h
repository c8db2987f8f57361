/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credits of one session: what we may ask, what the peer has asked, and what
 * may lie in the ring unacknowledged.  Pure counting; every transport keeps one
 * of these for each session, so that all have the same limits.
 *
 * Why answers never wait for room [B1].  Let
 *
 *	open      pages the peer asked for and we have not answered
 *	unacked   pages in answers of ours that it has not acknowledged
 *
 * The peer spends a credit with each page that it asks for, and has it back
 * only when it has *applied* the answer.  A request sent after that carries an
 * acknowledgement that covers the answer.  So once a request's acknowledgement
 * has been taken, open + unacked <= TP_PAGE_CREDITS, or the peer cheats; and a
 * ring with room for TP_PAGE_CREDITS pages has room for all answers.  The same
 * holds of recalls.  Other classes have a room of their own, which may run out.
 */
#pragma once

#include "net/transport.h"

/*
 * Messages of a class in the ring, not acknowledged.  More requests than
 * credits, as an answer may overtake the acknowledgement of its request.
 */
#define CREDIT_REQUESTS_MAX      1024u
#define CREDIT_RECALLS_MAX       512u
#define CREDIT_CONTROL_BYTES_MAX (2u * (WIRE_HDR_BYTES + NODES_MAX * 96u))

/* The most that one session can have in its ring. */
#define CREDIT_RING_BYTES                                           \
	((TP_PAGE_CREDITS + TP_RECALL_CREDITS) *                    \
	         (WIRE_HDR_BYTES + PAGE_BYTES) +                    \
	 (CREDIT_REQUESTS_MAX + CREDIT_RECALLS_MAX + TP_FREE_MAX) * \
	         WIRE_HDR_BYTES +                                   \
	 CREDIT_CONTROL_BYTES_MAX)

struct credit { /* all zero at the start of a session */
	/* What we asked and the peer has not answered. */
	uint32_t pages_asked;   /* 0..TP_PAGE_CREDITS */
	uint32_t recalls_asked; /* 0..TP_RECALL_CREDITS */
	/* What the peer asked and we have not answered. */
	uint32_t pages_open;
	uint32_t recalls_open;
	/* Sent, and not acknowledged. */
	uint32_t answer_pages;  /* with pages_open 0..TP_PAGE_CREDITS */
	uint32_t acks;          /* with recalls_open 0..TP_RECALL_CREDITS */
	uint32_t requests;      /* 0..CREDIT_REQUESTS_MAX */
	uint32_t recalls;       /* 0..CREDIT_RECALLS_MAX */
	uint32_t frees;         /* 0..TP_FREE_MAX */
	uint32_t control_bytes; /* 0..CREDIT_CONTROL_BYTES_MAX */
	/* Counts that said TP_FULL, one bit each, and: one of them fell. */
	uint32_t lacking;
	bool back;
};

/*
 * May `m` be sent?  TP_QUEUED: yes, and it is counted.  TP_FULL: not now.
 * TP_DOWN: it answers what this session never asked, as after the peer's
 * incarnation changed.
 */
enum tp_sent credit_send(struct credit *c, const struct msg *m);

/* How many pages a request may name now.  0 counts as TP_FULL. */
uint32_t credit_pages(struct credit *c);

/* `m`, sent earlier, was acknowledged. */
void credit_acked(struct credit *c, const struct msg *m);

/*
 * `m` has arrived, and its acknowledgement has been taken.  Returns 0, or
 * -EPROTO if the peer overdraws, or answers what was not asked.
 */
int credit_arrived(struct credit *c, const struct msg *m);

/* `m` was applied. */
void credit_applied(struct credit *c, const struct msg *m);

/*
 * Has some of what credit_send() or credit_pages() lacked come back?  Says so
 * once: then ready() is due.
 */
bool credit_back(struct credit *c);
