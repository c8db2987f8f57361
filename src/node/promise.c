/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Promises
 * ========
 *
 * A lease says that nobody will be given our pages.  That is the coordinator's
 * to say; but if it is dead, nobody can be given anything either: a new owner
 * needs a newer epoch, and a newer epoch is nothing before members adopt it.
 * So while the coordinator is silent, a lease holds for as long as *all* other
 * members of the epoch promise to adopt no newer one:
 *
 *	we                              each other member
 *	ask, round k, at time t   ->    same epoch, none newer heard of?
 *	                                promise: adopt none for one lease
 *	                          <-    round k
 *	all have answered: our lease ends at t + lease
 *
 * A member's promise is at least as long as what we take from it, for it counts
 * from when our question arrived, and we from when it was sent.  A member that
 * hears of a newer epoch stops promising and adopts it when its promises have
 * run out; by then whoever relied on them is fenced.  One silent member is
 * enough to be fenced.  A node without others cannot prolong itself: there
 * would be nobody to hear of its death.
 */

#include "node/promise.h"

bool promise_ask(struct promise *p, nsec_t now, nsec_t end, nsec_t lease_ns)
{
	/*
	 * Renewals are asked for at every third, so while more than a half is
	 * left the coordinator is just slow.  And promises are not for free:
	 * those who gave one adopt the next epoch a lease later.
	 */
	if (now >= end || end - now > lease_ns / 2)
		return false;
	if (nodeset_empty(&p->others) || p->newer)
		return false;
	/* Not more often than a sixth of a lease: answers take a moment. */
	if (p->round != 0 && now - p->asked_at < lease_ns / 6)
		return false;
	p->missing = p->others;
	p->asked_at = now;
	p->round++;
	return true;
}

nsec_t promise_heard(struct promise *p, node_id from, uint64_t round,
                     nsec_t lease_ns)
{
	if (round != p->round || from >= NODES_MAX ||
	    !nodeset_has(&p->missing, from))
		return 0;
	nodeset_remove(&p->missing, from);
	return nodeset_empty(&p->missing) ? p->asked_at + lease_ns : 0;
}

bool promise_give(struct promise *p, node_id from, uint32_t epoch,
                  uint32_t our_epoch, nsec_t now, nsec_t lease_ns)
{
	if (p->newer || epoch != our_epoch || from >= NODES_MAX ||
	    !nodeset_has(&p->others, from))
		return false;
	p->given_until = max_u64(p->given_until, now + lease_ns);
	return true;
}

nsec_t promise_newer(struct promise *p, nsec_t now)
{
	if (now >= p->given_until)
		return 0;
	p->newer = true;
	return p->given_until;
}

void promise_adopted(struct promise *p, const struct nodeset *others)
{
	p->others = *others;
	nodeset_clear(&p->missing);
	p->newer = false;
	/* What was asked in the epoch before counts no more. */
	p->round++;
}
