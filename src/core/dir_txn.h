/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a directory: its pools, and how an entry is laid out.  For
 * core/dir.c, and for test/model, which packs and unpacks it.
 *
 * The entry (8 bytes): flags; n inline holders in v.  More than three sharers
 * live in a pooled set whose number is in v[0..1].  Owned: v[0] is the owner,
 * v[1..2] the time in us.  Busy: v[0..1] is the transaction's number.  PAIR:
 * v[0] gave the page up as a writer so that v[1] could read; if v[1] is the one
 * who writes next, the page migrates.
 */
#pragma once

#include "core/dir.h"

enum { /* dir_entry.flags */
       DIR_F_OWNED = 1,
       DIR_F_LOST = 2,
       DIR_F_BUSY = 4,
       DIR_F_SET = 8,
       DIR_F_MIGRATORY = 16,
       DIR_F_PAIR = 32,
};

#define DIR_INLINE 3u /* holders that an entry has room for */

/* What those awaited were told. */
/* ... or, the last, what the one awaited was sent. */
enum asked {
	ASKED_INVAL = 1,
	ASKED_RECALL_S,
	ASKED_RECALL_X,
	ASKED_APPLIED,
};
enum { WAIT_S, WAIT_X, WAIT_D, WAITS };

/* A transaction that serves nobody: only to make do without a pooled set. */
enum { KIND_TRIM = 100 };

struct dir_txn {
	struct nodeset holders, awaiting, wait[WAITS];
	uint32_t since_us; /* owned: since when */
	uint32_t next;     /* free list */
	node_id req;       /* being served, or NODE_NONE */
	node_id served;    /* the one before: round-robin goes on behind it */
	node_id giver, reader; /* DIR_PAIR, or NODE_NONE */
	uint8_t kind;          /* what req wants: DIR_GET_S, ..., KIND_TRIM */
	uint8_t asked;         /* of those awaited */
	bool owned;            /* the one holder may write */
	bool store;            /* req reads for somebody who evicts */
	bool careful;          /* dir_event.careful */
};

struct dir_set {
	struct nodeset members;
	uint32_t next;
};

struct dir {
	struct dir_config cfg;
	struct dir_txn *txn; /* numbered from 1 */
	struct dir_set *set; /* numbered from 1 */
	uint32_t free_txn, free_set, n_free_txn;
};

static inline bool dir_busy(const struct dir_entry *e)
{
	return (e->flags & DIR_F_BUSY) != 0;
}

/* The transaction of an entry that is busy. */
struct dir_txn *dir_txn_of(const struct dir *d, const struct dir_entry *e);

/*
 * Give an entry that is not busy a transaction, which takes its holders over.
 * Returns NULL, with nothing changed, if there is none left.
 */
struct dir_txn *dir_txn_open(struct dir *d, struct dir_entry *e);

/*
 * Take a holder off an entry that is not busy.  If it was the last, the page is
 * lost.
 */
void dir_holder_gone(struct dir *d, struct dir_entry *e, node_id n);

/*
 * Put the holders back into the entry and free the transaction.  Returns false,
 * with nothing changed, if that needs a set and there is none left.
 */
bool dir_txn_close(struct dir *d, struct dir_entry *e, struct dir_txn *t);
