/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Promises: how a lease is prolonged while the coordinator is silent [C1].
 *
 * Pure bookkeeping of the link thread; link.c sends, receives and keeps time.
 * All times are CLOCK_BOOTTIME.
 */
#pragma once

#include "core/nodeset.h"

struct promise {
	struct nodeset others;  /* members of the epoch, but ourselves */
	struct nodeset missing; /* who has not answered this round */
	uint64_t round;         /* number of our question; 0: none yet */
	nsec_t asked_at;        /* when it was sent */
	nsec_t given_until;     /* until then we adopt no newer epoch */
	bool newer;             /* we have heard of one, and wait to adopt it */
};

/*
 * Is it time to ask the others?  `end` is the end of our lease.  If so, a round
 * is opened: ask everybody in p->missing for p->round.
 */
bool promise_ask(struct promise *p, nsec_t now, nsec_t end, nsec_t lease_ns);

/*
 * A member promised.  Returns the new end of our lease if it was the last one
 * that was missing, else 0.
 */
nsec_t promise_heard(struct promise *p, node_id from, uint64_t round,
                     nsec_t lease_ns);

/* A member of `epoch` asks us; ours is `our_epoch`.  True: we promise. */
bool promise_give(struct promise *p, node_id from, uint32_t epoch,
                  uint32_t our_epoch, nsec_t now, nsec_t lease_ns);

/*
 * A newer epoch shows.  Returns 0 if it may be adopted now, else the time at
 * which our promises have run out; until then we give no more.
 */
nsec_t promise_newer(struct promise *p, nsec_t now);

/* The membership was adopted: these are the other members that count. */
void promise_adopted(struct promise *p, const struct nodeset *others);
