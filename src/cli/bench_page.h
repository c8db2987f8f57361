/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark writes into pages, and in which order it visits them.
 *
 * Contents: all 4,096 bytes of a page follow from the run's seed, the page's
 * number and a version, so that a page that is stale, in the wrong place, torn
 * or full of zeros is told from the right one.  The words of a page form an
 * arithmetic progression whose start and step are drawn from those three: to
 * check a page costs 0.3 us, little beside the 2 us that a streamed page takes.
 *
 * Orders are functions from a position to a page, not lists: nothing has to be
 * stored, and the same seed gives the same order everywhere.
 *
 * Everything here is pure; any thread.
 */
#pragma once

#include "base/base.h"

#define BENCH_PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define BENCH_LINE_WORDS 8u
#define BENCH_PAGE_LINES (BENCH_PAGE_WORDS / BENCH_LINE_WORDS)

struct bench_stamp { /* what a page's contents follow from */
	uint64_t seed;
	gpn_t page;
	uint64_t version;
};

/* The page's first 8 bytes: what a timed access writes or expects. */
uint64_t bench_word(const struct bench_stamp *s);

/* Write all of a page; the word of bench_word() last. */
void bench_fill(void *page, const struct bench_stamp *s);

/*
 * Compare all of a page.  Returns the offset of the first byte that is wrong,
 * PAGE_BYTES if none is.
 */
unsigned bench_check(const void *page, const struct bench_stamp *s);

/*
 * The same for the 64 bytes, a line of the cache, that begin at line * 64; line
 * is below BENCH_PAGE_LINES.
 */
unsigned bench_check_line(const void *page, const struct bench_stamp *s,
                          unsigned line);

/* The byte that belongs at `offset`, for messages. */
uint8_t bench_byte(const struct bench_stamp *s, unsigned offset);

/* --- orders -------------------------------------------------------------- */

/*
 * Positions 0 .. places - 1 name the pages first, first + step, ... of a set of
 * `wrap` pages, behind whose end it goes on at page 0; shuffled or in order.
 * Or each position draws one of them, all alike likely, whatever others have
 * drawn: then there are positions without end.
 * The set is a space, or what one of `deal` nodes gets when the space is dealt
 * out in pieces of `grain` pages by turns, so that every node has some in every
 * stripe: number `dealt` gets pieces dealt, dealt + deal, ...
 */
struct bench_walk {
	gpn_t first;
	uint64_t places;
	uint64_t step;        /* at least 1 */
	uint64_t wrap;        /* pages of the set; first < wrap */
	uint32_t deal, dealt; /* 1 and 0: the set is the space */
	uint64_t grain;       /* at least 1 */
	bool shuffled;
	bool drawn;    /* wins over shuffled */
	uint64_t seed; /* of the shuffle, or the draws */
};

/* The page at position `i`, which is < places unless they are drawn. */
gpn_t bench_walk_page(const struct bench_walk *w, uint64_t i);

/*
 * A number from 0 to n - 1 for each i from 0 to n - 1, each taken once, in an
 * order that `seed` decides; n > 0.
 */
uint64_t bench_shuffle(uint64_t i, uint64_t n, uint64_t seed);
