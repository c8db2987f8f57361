/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks: the homes of extents, 64 together, in memory and in the store.  A
 * part of spaces.h that only spaces.c and chunks.c know.
 */
#pragma once

#include "coord/draft.h"
#include "coord/spaces.h"

/* What claims have changed since the last commit, and how it was before. */
struct batch;
struct batch *batch_new(void);
struct batch *batch_free(struct batch *b); /* takes NULL; returns NULL */

/* Read the chunks of all spaces, which are there. */
int chunks_load(struct spaces *s, struct errmsg *em);
/* The keys of a space's chunks begin with this. */
void chunks_prefix(space_id id, char prefix[DRAFT_KEY_BYTES]);

/*
 * Count what the bind alone says, and what differs from it in the chunks, in
 * the figures of spaces and nodes.  A space counts its bind when it is added
 * (by 1) and, when its chunks were cleared, takes that back (by -1).
 */
void chunks_count_bind(struct spaces *s, struct space *sp, int by);
void chunks_clear(struct spaces *s, struct space *sp);
