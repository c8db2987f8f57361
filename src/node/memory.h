/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: what --memory counts, and who may take of it [C4].
 *
 * The limit is a number of frames.  Off it go, for good, the shards' pools of
 * frames (staged, frozen and provisional pages) and the buffers of the
 * sessions with peers (retained payloads).  The rest, the *budget*, is for
 * pages in the spaces' memfds: each is taken before the request is sent that
 * may bring it, and given back when the page is punched, or was not granted.
 * So the limit holds at every moment, not on average.
 *
 *	0 ............ low ....... high .............. budget
 *	               |           |                   |
 *	 evicting ends +           + evicting begins    + faults wait here
 *	                           + nobody else's pages beyond: stores, copies
 *	                             kept at home, prefetch
 *
 * From high to budget is the exchange reserve [B2]: without it full nodes could
 * not swap pages.  Stores alone never make a node evict, and what it has staged
 * itself, and may have to take back, is no room for others: else two full nodes
 * would push the same pages to and fro for ever.
 *
 * One counter for all shards: relaxed atomics, no lock.
 */
#pragma once

#include <stdatomic.h>

#include "base/base.h"

struct memory {
	uint64_t limit_pages; /* --memory; set at start */
	/* Pools and sessions: grows when a peer joins.  Main thread at start,
	 * then any shard. */
	_Atomic uint64_t fixed_pages;
	/* Pages in memfds, or promised to a request.  Any shard. */
	_Atomic uint64_t used_pages;
	/* Pages staged: in pools now, but they may come back.  Any shard. */
	_Atomic uint64_t staged_pages;
	/* Pages held only because a peer stored them here.  Any shard. */
	_Atomic uint64_t lent_pages;
	/* Pages that were evicted from here and have not been taken back. */
	_Atomic uint64_t borrowed_pages;
	/* Faults that wait for a frame now, and for which nobody has room: the
	 * operator is told.  Each shard adds and takes off its own. */
	_Atomic uint64_t waiting;
	/* Evictions that every peer refused, since the start. */
	_Atomic uint64_t refused;
};

/* How far one may go. */
enum memory_mark {
	MEMORY_SPARE,  /* for others: stores, copies kept at home */
	MEMORY_HIGH,   /* for what can be done without: prefetch */
	MEMORY_BUDGET, /* for what a thread waits for */
};

void memory_init(struct memory *m, uint64_t limit_bytes);
/* Pools or buffers of `bytes` more (or, negative, fewer) count for good. */
void memory_fix(struct memory *m, int64_t bytes);

/*
 * Take `pages` frames if the mark allows.  Returns false, with nothing taken,
 * if it does not.
 */
bool memory_take(struct memory *m, uint64_t pages, enum memory_mark mark);
/* Take one beyond every mark: bytes that would be lost otherwise. */
void memory_force(struct memory *m);
void memory_give(struct memory *m, uint64_t pages);
/* A page was staged, or is staged no longer. */
void memory_staged(struct memory *m, bool is);

/* Pages above the low mark, if memory has passed the high one; else 0. */
uint64_t memory_excess(const struct memory *m);
/* Pages that peers may store here now. */
uint64_t memory_room(const struct memory *m);
uint64_t memory_used(const struct memory *m);
/* The marks, in pages. */
uint64_t memory_budget(const struct memory *m);
uint64_t memory_high(const struct memory *m);
