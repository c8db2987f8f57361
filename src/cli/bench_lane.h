/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: the loops that measure.  A lane is what one thread does between the
 * starting signal and the end: a list of pages, one access to each.
 *
 * A latency is kept only if the node noted a fault of this thread meanwhile
 * (wire/local.h), and with the class that the node gave it; never by how long
 * it took.  On the floor every first touch faults, and all are kept.
 *
 * Nothing here allocates, locks or makes a system call but for the clock, which
 * the vdso reads in 24 ns.  Where accesses follow one another the end of one is
 * the beginning of the next: one reading each.
 */
#pragma once

#include <stdatomic.h>
#include <time.h>

#include "base/base.h"
#include "cli/bench_page.h"
#include "wire/local.h"

#define BENCH_CLASSES 16u /* enum local_class fits: 4 bits of a note */

static inline nsec_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

/* What a page held that it should not have. */
struct bench_wrong {
	gpn_t page;
	uint32_t offset; /* of the first wrong byte (whole: false: 0) */
	bool whole;      /* one byte was compared: got, want; else 8 */
	uint64_t got, want;
};

#define BENCH_WRONG_KEPT 16u

/* Wrong pages of all lanes of a client; in memory that its parent reads. */
struct bench_wrongs {
	_Atomic uint64_t n; /* all; the first BENCH_WRONG_KEPT are in v */
	struct bench_wrong v[BENCH_WRONG_KEPT];
};

void bench_wrong_add(struct bench_wrongs *w, const struct bench_wrong *what);

/* A sample: latency << 4 | class. */
static inline uint64_t bench_sample(nsec_t ns, uint32_t class)
{
	return ns << 4 | class;
}

struct bench_lane {
	/* Set before the start. */
	char *base;           /* of the space or the floor's memory */
	const uint64_t *page; /* n of them, in order */
	uint64_t n;
	const _Atomic uint32_t *note; /* the thread's; NULL: keep all (floor) */
	uint64_t seed, version;
	uint64_t alike; /* page p has the contents of p % alike; 0: its own */
	struct bench_wrongs *wrongs;
	uint64_t *sample;
	uint64_t room;   /* samples that are kept; what comes later is only
	                  counted */
	nsec_t until;    /* bench_lane_count(): when to stop */
	uint64_t *count; /* bench_lane_count(): BENCH_SHARED_PAGES of them */

	/* What came of it. */
	uint64_t accesses;
	uint64_t n_samples;
	uint64_t faulted
		[BENCH_CLASSES]; /* accesses, by the last fault's class */
	nsec_t end;
};

/* Write the first 8 bytes of each page. */
void bench_lane_write(struct bench_lane *l);
/* Read the first 8 bytes of each page, and compare them. */
void bench_lane_read(struct bench_lane *l);
/* Read and compare all of each page; the latency is that of the first word. */
void bench_lane_verify(struct bench_lane *l);
/*
 * Read and compare 64 bytes of each page, whose place in the page moves on from
 * access to access, and all of every BENCH_SPOT_WHOLE-th; the latency is that
 * of the first word read.
 */
#define BENCH_SPOT_WHOLE 16u
void bench_lane_spot(struct bench_lane *l);
/* Write all of each page.  Nothing is kept. */
void bench_lane_fill(struct bench_lane *l);

/* --- shared counters ----------------------------------------------------- */

#define BENCH_SHARED_PAGES    16u
#define BENCH_SHARED_COUNTERS 8u /* of 8 bytes, in the first line of a page */

/*
 * Add one to one counter of one page at a time, both drawn at random by `seed`,
 * until the clock shows `until`; count[] grows by how often in which page.
 */
void bench_lane_count(struct bench_lane *l);
