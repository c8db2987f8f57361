/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction: which resident page of a shard is the next to go to a peer.  See
 * evict.c for the policy and why it is this one.
 *
 * Pure, like core/dir.h: the caller has the pages, takes them from the clients,
 * sends them, and says here what happened.  A page is known by a key of its
 * own; what is remembered of it (struct evict_page) lives with the caller, and
 * the queues are rings of keys in memory that the caller gives.
 *
 * The life of a page, as its caller tells it:
 *
 *	evict_in() -> small or main -> evict_take() -> staged -> evict_out()
 *	                        ^                        |           |
 *	                        |----- evict_touched() --'           |
 *	                        '----- evict_back(): no peer had room'
 *	anywhere -> evict_gone(): recalled, discarded
 *
 * To make room, first evict_round(), then, as often as it takes, one of
 *
 *	evict_next(), look the page up, evict_take(): it is to be staged
 *	evict_oldest(), look the page up, evict_out(): it is to be sent away
 *
 * The staging area is most worth when it is full, for a page that stays there
 * longer has a better chance to be touched: so take while evict_next() has
 * something to offer, and send the oldest away when it has not.
 *
 * A struct evict belongs to one thread.  A call may change the mark of a page
 * that it was not called for, through cfg.set_mark: so keep no copy of another
 * page's mark over a call.
 */
#pragma once

#include "base/base.h"

struct evict;

/* What is remembered of a page.  All zeros: never seen. */
struct evict_page {
	uint8_t mark;   /* below EVICT_MARKS: where it is, and which rings have
	                   an entry of it that it left behind */
	uint32_t stamp; /* the ghost: when it was evicted.  Read by evict_in(),
	                   written by evict_out() and evict_gone(); free for
	                   other use while the page is resident */
};
#define EVICT_MARKS 32u

enum evict_queue {
	EVICT_NOWHERE = 0, /* not resident */
	EVICT_SMALL,       /* resident, new */
	EVICT_MAIN,        /* resident, was wanted more than once */
	EVICT_STAGING,     /* resident, taken from the clients */
};
#define EVICT_QUEUES 4u

struct evict_config {
	uint32_t frames;        /* pages resident at most, staged ones and those
	                           between evict_out() and its answer included;
	                           1..EVICT_FRAMES_MAX */
	uint32_t staged;        /* of them, staged at most; 1..frames */
	uint32_t small_percent; /* the small queue's share of resident pages */
	/* The mark of a page by its key; 0 if there is no such page any more,
	 * for which set_mark does nothing. */
	uint8_t (*mark)(void *arg, uint32_t key);
	void (*set_mark)(void *arg, uint32_t key, uint8_t mark);
	void *arg;
};

#define EVICT_FRAMES_MAX (1u << 29)
/* What to choose, by docs/performance.md, "Which page goes". */
#define EVICT_SMALL_PERCENT 10u
#define EVICT_STAGED_PART   16u /* cfg.staged is frames over this */

/*
 * Bytes of memory that evict_init() wants, aligned to 64: about 17 a frame.  It
 * need not be zeroed, and is touched only as far as there are pages: about 10
 * bytes for each one that was resident at once.
 */
size_t evict_bytes(const struct evict_config *cfg);
struct evict *evict_init(const struct evict_config *cfg, void *mem);

static inline enum evict_queue evict_where(const struct evict_page *p)
{
	return (enum evict_queue)(p->mark & 3u);
}

/* --- what happens to a page -------------------------------------------- */

/* It became resident: fetched, or touched for the first time. */
void evict_in(struct evict *ev, uint32_t key, struct evict_page *p);

/*
 * It left for another reason than eviction.  Its entry stays behind, and is
 * told from a true one when it is met.  Must be called for every resident page
 * of a space that goes, and evict_purge() before a key is given to another page
 * than before.
 */
void evict_gone(struct evict *ev, struct evict_page *p);

/*
 * It was touched while staged, or could not be taken from the clients after
 * all: it is in the main queue again.
 */
void evict_touched(struct evict *ev, uint32_t key, struct evict_page *p);

/* No peer took it after evict_out(): it is in the main queue again. */
void evict_back(struct evict *ev, uint32_t key, struct evict_page *p);

/* --- whose turn it is -------------------------------------------------- */

/*
 * Begin a round: evict_next() will offer what is in the queues now, each page
 * once at most, and evict_oldest() what is staged now or in this round.  So a
 * caller to whom no page is good enough ("not now" to all) comes to an end.
 * Costs nothing; to be called whenever one begins to make room.
 */
void evict_round(struct evict *ev);
/* The same for evict_oldest() alone: evict_next() goes on where it was. */
void evict_round_staged(struct evict *ev);

/*
 * The key of the page that should be staged next.  The caller must answer with
 * evict_take() before it calls anything else here.
 *
 * Returns false, and leaves *key alone, if the staging area is full, the round
 * is over or the queues are empty.
 */
bool evict_next(struct evict *ev, uint32_t *key);

/* The caller's answer to an offer. */
enum evict_answer {
	EVICT_TAKE = 0,
	EVICT_NOT_NOW, /* a request under way, residency, not of the kind that
	                  can go: to the tail */
	EVICT_UNKNOWN, /* there is no page of this key any more; `p` is not
	                  looked at */
};

enum evict_outcome {
	EVICT_TAKEN = 0, /* it is staged, or out: do it now */
	EVICT_LATER,     /* it stays, at the tail */
	EVICT_SKIPPED,   /* the entry was left behind by a page that is
	                    elsewhere or gone; that page is as it was */
};

/*
 * Answer evict_next().  On EVICT_TAKEN the page counts as staged, and the
 * caller takes it from the clients; if it cannot, it calls evict_touched().
 */
enum evict_outcome evict_take(struct evict *ev, uint32_t key,
                              struct evict_page *p, enum evict_answer answer);

/*
 * The key of the page that is staged longest, as evict_next().  Returns false
 * if none is, or all were offered in this round.  The caller must answer with
 * evict_out().
 */
bool evict_oldest(struct evict *ev, uint32_t *key);

/*
 * Answer evict_oldest().  On EVICT_TAKEN the page is not resident any more; its
 * stamp says when it went.  The caller sends it to a peer, and calls
 * evict_back() if none takes it.
 */
enum evict_outcome evict_out(struct evict *ev, uint32_t key,
                             struct evict_page *p, enum evict_answer answer);

/*
 * Drop all entries that were left behind.  Takes time in proportion to the
 * pages that are resident: for when a space goes.
 */
void evict_purge(struct evict *ev);

/* --- looking ----------------------------------------------------------- */

/* Pages in a queue now. */
uint32_t evict_count(const struct evict *ev, enum evict_queue q);
/* Resident pages: small, main and staged. */
uint32_t evict_resident(const struct evict *ev);

/* Abort unless the invariants of evict.c hold, as far as a look at the counts
 * can tell; every call ends with it. */
void evict_check(const struct evict *ev);
/* The same for every entry of every ring.  For tests: it looks at all pages. */
void evict_check_all(const struct evict *ev);
