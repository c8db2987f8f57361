/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement: how a space is cut into extents and stripes, which node is home of
 * an extent, and when to claim and open extents ahead of need.
 *
 * Pure, like core/dir.h.  The stripes of a shard are touched by that shard
 * alone, so the extents of one space may be used by all its shards at once.
 */
#pragma once

#include "base/base.h"

/* --- cutting: the same on every node, for every client ----------------- */

struct cut {
	uint64_t pages;   /* of the space, > 0 */
	uint32_t extents; /* the last may be partial */
	uint32_t stripes; /* 1..STRIPES_MAX: one per 4 MiB; runs of extents */
};

void cut_init(struct cut *c, uint64_t bytes);
/* The first extent of stripe `s`; of stripe c->stripes: one past the last. */
uint32_t cut_stripe_extent(const struct cut *c, uint32_t s);
uint32_t cut_stripe_of(const struct cut *c, uint32_t extent);
/* The pages [first, end) of stripe `s`. */
gpn_t cut_stripe_first(const struct cut *c, uint32_t s);
gpn_t cut_stripe_end(const struct cut *c, uint32_t s);

static inline uint32_t extent_of(gpn_t page)
{
	return (uint32_t)(page / EXTENT_PAGES);
}

static inline uint32_t cut_stripe_of_page(const struct cut *c, gpn_t page)
{
	return cut_stripe_of(c, extent_of(page));
}

/* The shard that owns stripe `s`, on a node with `shards` of them. */
static inline uint8_t cut_shard(uint32_t s, uint8_t shards)
{
	return (uint8_t)(s % shards);
}

/* --- extents ----------------------------------------------------------- */

/* What this node knows of an extent.  All zeros: nothing. */
struct extent {
	uint16_t home;    /* node + 1; 0: unknown */
	uint8_t opened;   /* homed here: it may be touched */
	uint8_t asked;    /* PLACE_F_*: what the coordinator was asked */
	uint32_t version; /* grows when the home changes */
};
static_assert(sizeof(struct extent) == 8, "one cache line holds eight");

enum {
	PLACE_F_ASKED = 1,     /* it has not answered yet */
	PLACE_F_RECHECKED = 2, /* the home that we know is dead, and it was
	                          asked if it has another one by now */
};

#define CLAIM_RUN_MAX 64u

/* The claimant of one stripe: guesses how much will be touched next. */
struct claimant {
	uint32_t next; /* extent behind what the last claim opened */
	uint32_t run;  /* extents to claim at once, doubling */
};

struct place {
	struct cut cut;
	node_id self;
	struct extent *extent;   /* cut.extents of them */
	struct claimant *stripe; /* cut.stripes of them */
	bool whole; /* one shard has all stripes: claims may cross them */
};

struct place_claim {
	uint32_t first, n; /* n == 0: nothing to ask */
	uint32_t n_open;   /* of them, the first so many are to be opened */
	bool ask;          /* only ask who is home, claim nothing */
};

enum place_answer {
	PLACE_HERE = 0, /* homed here and opened */
	PLACE_THERE,    /* *home is the home */
	PLACE_WAIT,     /* the coordinator must answer first */
};

/*
 * Whose is `extent`, which a client of this node touches?  Fills *claim with
 * what to ask the coordinator (also ahead of need, with PLACE_HERE), each
 * extent once; the caller sends it and later calls place_told().
 */
enum place_answer place_touch(struct place *p, uint32_t extent, node_id *home,
                              struct place_claim *claim);

/*
 * Whose is `extent`, for which a peer asks us?  As place_touch(), but nothing
 * is claimed; what we do not know we ask for [B7].
 */
enum place_answer place_asked(struct place *p, uint32_t extent, node_id *home,
                              struct place_claim *claim);

/* The coordinator says: this extent's home, whether opened, its version. */
void place_told(struct place *p, uint32_t extent, node_id home, bool opened,
                uint32_t version);
/* The coordinator did not answer (link down, refused): may be asked anew. */
void place_unanswered(struct place *p, uint32_t first, uint32_t n);
/*
 * The home of `extent` is dead.  True: what we know was forgotten, so that the
 * next touch asks the coordinator, who gives an extent that was never opened to
 * whoever wants it.  False: it has been asked since, and there is no other
 * home.
 */
bool place_recheck(struct place *p, uint32_t extent);
/* A peer says MOVED: forget what we know if `version` is not older. */
void place_moved(struct place *p, uint32_t extent, uint32_t version);
