/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spaces: what they are called, how big they are, and who is home of each of
 * their extents.
 *
 * What it promises
 *
 *   one home   An extent has at most one home, which is in the store before
 *              anybody is told; it changes only with a greater version.
 *   no zeros   An extent that a node had opened when it died is nobody's
 *              again: see HOME_LOST in wire/control.h.
 *   first come Claims are answered in their order, and are idempotent.
 *   admission  Spaces, times their replicas, fit what the living nodes can
 *              hold for good, and there are nodes enough for the replicas,
 *              unless whoever made one insisted.
 *
 * What it expects: one thread; the members outlive it, and it keeps their
 * homed_pages and opened_extents.
 *
 * Claims come in batches, for syncing the disk is what they cost:
 * spaces_claim() changes memory alone, then spaces_commit() writes what all
 * claims since the last one have changed, or takes it back.  Answers wait for
 * it.
 */
#pragma once

#include <jansson.h>

#include "coord/members.h"
#include "wire/control.h"

#define SPACE_NAME_MAX  63u
#define SPACE_BYTES_MAX (1ull << 44)
#define SPACES_MAX      4096u
/* As many as fit into a directory entry (core/dir_txn.h): a stored page costs
 * its home nothing more. */
#define REPLICAS_MAX    3u
#define BIND_RANGES_MAX 8192u
#define CHUNK_EXTENTS   64u
#define EXTENT_BYTES    ((uint64_t)EXTENT_PAGES * PAGE_BYTES)

enum bind_kind { BIND_NONE, BIND_INTERLEAVE, BIND_RANGES };

struct bind_range {
	uint32_t first, n; /* extents; 0, 0 when interleaving */
	node_id node;
};

struct chunk {
	struct extent_info extent[CHUNK_EXTENTS];
};

/* What api_spaces.c is about to do with it. */
enum space_state {
	SPACE_READY = 0,
	SPACE_MAKING,   /* nodes are told of it */
	SPACE_DROPPING, /* nodes are asked for its clients */
};

struct space {
	space_id id;
	char name[SPACE_NAME_MAX + 1];
	uint64_t size_bytes;
	uint32_t replicas;
	bool overcommit;
	enum bind_kind bind;
	struct bind_range *ranges; /* ascending; when interleaving: in turn */
	uint32_t n_ranges;

	uint32_t n_extents, n_chunks;
	struct chunk **chunk; /* NULL: as the bind says */
	uint32_t n_homed, n_lost;
	enum space_state state;
};

struct spaces {
	struct store *store;             /* borrowed */
	struct members *members;         /* borrowed */
	struct space *space[SPACES_MAX]; /* ascending ids, no gaps */
	uint32_t n;
	space_id next_id;
	uint32_t n_lost; /* extents, in all spaces */
	struct batch *batch;
};

int spaces_load(struct spaces *s, struct store *store, struct members *members,
                struct errmsg *em);
void spaces_done(struct spaces *s);

/* --- looking ------------------------------------------------------------- */

struct space *spaces_find(const struct spaces *s, const char *name);
struct space *spaces_at(const struct spaces *s, space_id id);
/* The first space whose id is greater than `id`, or NULL. */
struct space *spaces_after(const struct spaces *s, space_id id);

bool space_name_ok(const char *name);
struct extent_info space_extent(const struct space *sp, uint32_t extent);
/* Pages of one extent: the last may be short. */
uint32_t space_extent_pages(const struct space *sp, uint32_t extent);
/* Pages of opened extents whose home is dead, but may come back as a node. */
uint64_t space_missing_pages(const struct spaces *s, const struct space *sp);
/* Pages of extents whose home is HOME_LOST. */
uint64_t space_lost_pages(const struct space *sp);
/* The document that nodes get with SPACE_ADD (wire/control.h); NULL: memory. */
json_t *space_document(const struct space *sp);

/* --- making and dropping ------------------------------------------------- */

struct admission {
	uint64_t asked_bytes; /* size x replicas of the new one */
	uint64_t taken_bytes; /* of those there are */
	uint64_t total_bytes; /* what the nodes alive can hold for good */
	uint32_t n_nodes;
};

enum admit_outcome {
	ADMIT_FITS = 0,
	ADMIT_NO_ROOM = 1,
	/*
	 * An evicted page could not lie on as many nodes as ordered, for its
	 * evictor keeps no copy.  The one replica that is the default needs no
	 * second node: where there is none nothing is evicted.
	 */
	ADMIT_TOO_FEW_NODES = 2,
};
/* Whether it fits; *ret has the figures in any case. */
enum admit_outcome spaces_admit(const struct spaces *s, uint64_t size_bytes,
                                uint32_t replicas, struct admission *ret);

struct space_request {
	const char *name; /* checked by the caller, as all of these */
	uint64_t size_bytes;
	uint32_t replicas;
	bool overcommit;
	enum bind_kind bind;
	struct bind_range *ranges; /* borrowed; ascending, of living nodes */
	uint32_t n_ranges;
};

/* Returns 0, or -errno; -ENOBUFS: there are SPACES_MAX. */
int spaces_create(struct spaces *s, const struct space_request *rq,
                  struct space **ret, struct errmsg *em);
/* On success `sp` is freed. */
int spaces_drop(struct spaces *s, struct space *sp, struct errmsg *em);

/* --- claims -------------------------------------------------------------- */

/*
 * Node `n`, who must be ALIVE, is about to touch these extents: `out` gets one
 * record for each.  Returns 0, -ERANGE if the run is not in the space, or
 * -ENOMEM; then nothing was claimed.
 */
int spaces_claim(struct spaces *s, const struct node *n, struct space *sp,
                 uint32_t first, const struct claim *c,
                 struct extent_info *out);
/* Anything to commit? */
bool spaces_dirty(const struct spaces *s);
/* Take back all claims since the last commit. */
void spaces_undo(struct spaces *s);
/* Returns 0, or -errno: then all claims since the last commit are undone. */
int spaces_commit(struct spaces *s, struct errmsg *em);

/*
 * The life of node `id` is over and another may begin: what it had opened goes
 * to HOME_LOST.  Commits.  Returns the number of extents, or -errno.
 */
int64_t spaces_forget_home(struct spaces *s, node_id id, struct errmsg *em);
