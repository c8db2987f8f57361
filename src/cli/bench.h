/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan bench: what page faults of a cluster cost, beside what they must cost
 * at least (the floor, bench_floor.h).
 *
 *	cmd_bench.c      options, nodes, the run from end to end
 *	bench_run.c      slices: the floor and memspan by turns
 *	bench_pattern.c  seven patterns, as orders to the crew
 *	bench_capacity.c the eighth: more memory than its node has
 *	bench_space.c    the spaces that they run in
 *	bench_place.c    which CPUs everybody runs on
 *	bench_json.c     the result for programs, and .hgrm files
 *	bench_text.c     the result for people
 *	bench_crew.h     the processes that measure, below all of this
 *
 * One thread.  It touches no page of a space: the clients do.
 */
#pragma once

#include <jansson.h>
#include <sched.h>

#include "base/base.h"
#include "base/hist.h"
#include "cli/bench_crew.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/http.h"

/* --- what is asked for --------------------------------------------------- */

enum bench_pattern {
	BENCH_SEQUENTIAL,
	BENCH_INTEGRITY, /* in sequential's space, so right behind it */
	BENCH_RANDOM,
	BENCH_STRIDE,
	BENCH_CONCURRENT,
	BENCH_SHARED,
	BENCH_INVALIDATE,
	BENCH_CAPACITY, /* fills the cluster */
	BENCH_FLOOR,    /* the floor alone; needs no cluster */
};
#define BENCH_PATTERNS 9u
#define BENCH_IN_ALL   BENCH_CAPACITY /* those below are in "all" */

extern const char *const bench_pattern_name[BENCH_PATTERNS];

enum bench_placement { BENCH_FREE, BENCH_NEAR, BENCH_FAR };

extern const char *const bench_placement_name[3];

struct bench_node { /* that takes part */
	uint32_t id;
	char name[64];
	char socket[RUN_PATH_BYTES];
	pid_t pid; /* on this machine; 0: not known */
	unsigned shards;
	uint64_t busy_poll_us;
	uint64_t capacity_bytes; /* of spaces, held for good; 0: not said */
};

/* --- what came of it ----------------------------------------------------- */

/* Figures of a pattern's first and second half, where it has two. */
enum { BENCH_OWN, BENCH_OTHERS, BENCH_HALVES };

struct bench_rate {
	uint64_t pages;
	nsec_t ns;
};
/* 0 if nothing was measured. */
double bench_per_s(const struct bench_rate *r);
void bench_rate_add(struct bench_rate *to, const struct bench_answer *a);

struct bench_figures {  /* one pattern, one node */
	uint64_t pages; /* of the space that this node was to touch */
	uint64_t accesses;
	uint64_t faulted[BENCH_CLASSES]; /* accesses, by class */
	uint64_t node_faults, installed_pages, prefetched_pages;
	struct bench_rate rate[BENCH_HALVES];
	struct hist *local, *remote; /* latencies by class */
	/* Of all classes, and of pages that were to leave: capacity alone. */
	struct hist *fault, *refault;
};

uint64_t bench_local_faults(const struct bench_figures *f);
uint64_t bench_remote_faults(const struct bench_figures *f);

#define BENCH_BATCHES 10u /* of 1, 2, 4 ... 512 pages a request */

struct bench_floor {     /* all copies together; rates are those of one copy */
	unsigned copies; /* that ran at once */
	struct hist *local, *remote;
	struct bench_rate stream[BENCH_BATCHES];
	struct bench_rate threads[BENCH_HALVES];
	struct bench_rate all_threads[BENCH_HALVES]; /* by the wall clock */
};

/* Bytes a second at the best size of request; 0: not measured. */
double bench_stream(const struct bench_floor *f);

struct bench_result { /* one pattern */
	bool ran;
	uint64_t size_bytes; /* of its space */
	unsigned threads;    /* in each client */
	struct bench_figures node[BENCH_NODES_MAX];
	struct bench_rate
		all[BENCH_HALVES]; /* of all nodes, by the wall clock */
	struct bench_floor floor;  /* between this pattern's slices */
};

#define BENCH_ROWS 4u

/* `capacity`: so many percent of what is accessed fit the reading node. */
struct bench_row {
	unsigned percent;           /* 0: there is no such row */
	char skipped[256];          /* why it did not run; "": it did */
	struct bench_result result; /* of the first node */
	struct bench_rate plain;    /* the same accesses of plain memory */
	char no_plain[64];          /* why there are none; "": there are */
};

/* --- the run ------------------------------------------------------------- */

#define BENCH_ERRORS_KEPT 64u

struct bench_error { /* a page that was wrong */
	enum bench_pattern pattern;
	uint32_t node; /* whose client saw it */
	char space[LOCAL_NAME_BYTES];
	struct bench_wrong wrong;
};

struct bench_run {
	struct cli *cli;
	/* What is asked for. */
	bool wanted[BENCH_PATTERNS];
	const char *space;   /* --space; NULL: fresh ones */
	uint64_t size_bytes; /* with --space: that one's */
	bool sized;          /* either was given */
	unsigned threads;
	uint64_t seed;
	enum bench_placement placement;

	/* Who takes part. */
	struct cluster cluster;
	struct http *http; /* NULL: the floor alone */
	unsigned n;
	struct bench_node node[BENCH_NODES_MAX];
	struct bench_crew crew;
	char made[LOCAL_NAME_BYTES]; /* the space to be deleted; "": none */
	/* Of the space that is open: pages for each node, pages that are dealt
	 * at once. */
	uint64_t share, grain;

	/* What came of it. */
	/* That of `capacity` has what is beside its rows: reads of pages that
	 * are elsewhere, while there is room for them. */
	struct bench_result result[BENCH_PATTERNS];
	struct bench_row row[BENCH_ROWS];
	uint64_t errors; /* reads that found a page wrong */
	unsigned n_kept;
	struct bench_error error[BENCH_ERRORS_KEPT]; /* n_kept of them */

	/* Where we are. */
	enum bench_pattern now;
	struct bench_result *to; /* where the figures go */
	uint64_t floor_used;     /* pages touched since it was cleared */
	unsigned step, steps;    /* for the progress line */
	bool terminal;           /* stderr is one */
};

/* All members. */
uint64_t bench_everybody(const struct bench_run *run);

/* --- bench_run.c --------------------------------------------------------- */

/* Histograms for all results.  Returns 0 or -ENOMEM. */
int bench_results_new(struct bench_run *run, struct errmsg *em);
void bench_results_done(struct bench_run *run);

/*
 * Give orders that measure nothing.  `who` is a mask of members, whose orders
 * are in place.  Wrong pages are noted.  Returns as bench_crew_do().
 */
int bench_prepare(struct bench_run *run, uint64_t who, struct errmsg *em);

/* Likewise, and add what came of it to the figures of run->to. */
int bench_measure(struct bench_run *run, uint64_t who, int half,
                  struct errmsg *em);

#define BENCH_SLICE 1024u /* accesses between two turns of the floor */

/* New memory for the floor: `pages`, with so many userfaultfds. */
int bench_floor_memory(struct bench_run *run, uint64_t pages, unsigned uffds,
                       struct errmsg *em);
/* A slice of the floor: `n` faults of one page, BENCH_OWN: local, or remote. */
int bench_floor_slice(struct bench_run *run, uint64_t who, int half, uint64_t n,
                      struct errmsg *em);
/* A slice of streaming, at all sizes of request. */
int bench_floor_stream(struct bench_run *run, uint64_t who, struct errmsg *em);
/* As many threads as `concurrent` has, `n` pages of the floor in all. */
int bench_floor_threads(struct bench_run *run, uint64_t who, int half,
                        uint64_t n, struct errmsg *em);

/* Show how far it is, on a terminal. */
void bench_progress(struct bench_run *run, unsigned step, unsigned steps);
void bench_progress_end(struct bench_run *run);

/* --- bench_pattern.c ----------------------------------------------------- */

/* Pages of each node's share, in a space of the size asked for. */
uint64_t bench_share(const struct bench_run *run);
/* Accesses of one order at most, in any pattern that is wanted. */
uint64_t bench_room(const struct bench_run *run);

/* Run all that is wanted.  Returns 0 or -errno with the reason in em. */
int bench_patterns(struct bench_run *run, struct errmsg *em);

/* --- bench_capacity.c ---------------------------------------------------- */

/* Accesses of one order at most, and pages that are written in one. */
#define BENCH_CAPACITY_SLICE (1u << 18)

/*
 * The pattern: rows whose space the cluster has no room for say so, and are no
 * failure.  Returns 0 or -errno with the reason in em.
 */
int bench_capacity(struct bench_run *run, struct errmsg *em);

/*
 * Pages that left the reading node while it was read: as many as came in, for
 * it is full.  0: not measured.
 */
double bench_evicted_per_s(const struct bench_row *row);

/* --- bench_space.c ------------------------------------------------------- */

enum bench_homes {
	BENCH_FIRST_TOUCH,
	BENCH_BLOCKS,   /* node i is home of the i-th n-th part */
	BENCH_DEALT,    /* of extent e, node e % n is */
	BENCH_AT_FIRST, /* the first node is home of all */
	BENCH_ALONE,    /* as FIRST_TOUCH, and only the first node attaches */
};

/* Extents to be dealt at once, so that the list of homes is not too long. */
uint64_t bench_grain(uint64_t extents_each, unsigned nodes);

/*
 * Make the space of run->now, or take the one that was named, and attach it
 * everywhere.  *ret_pages is what of it to use: as much for each node, in whole
 * extents; of AT_FIRST and ALONE all of it.  Returns 0; -ENOSPC if the cluster
 * has no room for it, and then nothing is left behind; or -errno, with the
 * reason in em.
 */
int bench_space_open(struct bench_run *run, uint64_t pages,
                     enum bench_homes homes, uint64_t *ret_pages,
                     struct errmsg *em);
/* Detach it everywhere, and delete it if we made it. */
int bench_space_close(struct bench_run *run, struct errmsg *em);
/* Delete what is left behind when something failed. */
void bench_space_abandon(struct bench_run *run);

/* --- bench_place.c ------------------------------------------------------- */

struct bench_saved { /* one thread's affinity before we changed it */
	pid_t pid, tid;
	cpu_set_t cpus;
};

struct bench_place {
	struct bench_saved *v;
	size_t n, room;
};

/*
 * Set the affinity of the crew and of the nodes on this machine as
 * run->placement says.  `place` is all zeros.  Returns 0, or -errno with the
 * reason in em and nothing changed.
 */
int bench_place_set(struct bench_place *place, const struct bench_run *run,
                    struct errmsg *em);
/* Give the nodes back what they had. */
void bench_place_restore(struct bench_place *place);

/* What a node's command line says of it, if its process is on this machine. */
void bench_place_look(struct bench_node *node, pid_t pid);

/* --- bench_json.c, bench_text.c ------------------------------------------ */

/* The floor of the whole run: that beside the patterns which define it. */
struct bench_floor_view {
	const struct hist *local, *remote; /* NULL: not measured */
	double stream;                     /* bytes a second; 0: not measured */
	const struct bench_result *threads; /* concurrent's, or NULL */
};
struct bench_floor_view bench_floor_view(const struct bench_run *run);

/* a / b, or 0 if either was not measured. */
double bench_ratio(double a, double b);

json_t *bench_json(const struct bench_run *run); /* NULL: no memory */
void bench_text(const struct bench_run *run, FILE *f);
/* Write PATTERN-NODE-CLASS.hgrm files.  Returns 0 or -errno, reason in em. */
int bench_hgrm(const struct bench_run *run, const char *dir, struct errmsg *em);
