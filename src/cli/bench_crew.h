/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crew: the processes of a benchmark, and how they are told what to do.
 *
 *	memspan bench ----+-- client of node 0 -- its floor's handler -- peer
 *	(conducts,        +-- client of node 1 -- its floor's handler -- peer
 *	 touches no page) :
 *
 * Each client is a process of its own that attaches spaces through its node,
 * and measures both memspan and the floor (bench_floor.h).  All are forked
 * before anything is measured, and end with the conductor, however it ends.
 *
 * An order takes three steps, so that all begin at once and nothing is prepared
 * while others measure:
 *
 *	conductor                        client
 *	fills in seat->order, 'o'  ->    prepares: lists pages, makes room
 *	                           <-    'r'eady, then waits on board->go
 *	has all 'r': raises go     ->    does it; fills in seat->answer
 *	                           <-    'd'one
 *
 * Orders, answers and samples lie in memory that conductor and clients share.
 * The conductor sleeps in poll(2) while clients measure.
 */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "base/base.h"
#include "cli/bench_floor.h"
#include "cli/bench_lane.h"
#include "cli/bench_page.h"

#define BENCH_NODES_MAX   64u
#define BENCH_THREADS_MAX 10000u

/* --- orders -------------------------------------------------------------- */

enum bench_verb {
	BENCH_ATTACH, /* order.space, through the seat's node */
	BENCH_DETACH,
	BENCH_FLOOR_MAP, /* new floor memory: order.floor_pages, .floor_uffds */
	BENCH_PLAIN_MAP, /* plain memory: order.plain_pages; 0: none */
	BENCH_POOL,      /* have order.threads threads from now on; 0: none */
	BENCH_WRITE,     /* lanes over order.walk; see bench_lane.h */
	BENCH_READ,
	BENCH_VERIFY,
	BENCH_SPOT,
	BENCH_FILL,
	BENCH_COUNT, /* shared counters, for order.duration */
	BENCH_CLEAR, /* shared counters: write zeros */
	BENCH_SUM,   /* shared counters: compare with order.expected */
};

struct bench_order {
	enum bench_verb verb;
	bool floor;    /* lanes: in the floor's memory, not the space */
	bool plain;    /* lanes: in memory that nobody serves */
	bool clear;    /* floor: make all of it untouched first */
	uint32_t pool; /* lanes: by so many threads of the pool; 0: by the
	                    client's main thread */
	struct bench_walk walk;
	uint64_t from, n; /* positions of the walk; with a pool each thread
	                     takes n / pool of them */
	uint64_t seed, version;
	uint64_t alike;                        /* see struct bench_lane */
	nsec_t duration;                       /* COUNT */
	uint64_t expected[BENCH_SHARED_PAGES]; /* SUM */
	uint32_t threads;                      /* POOL */
	uint64_t floor_pages;                  /* FLOOR_MAP */
	uint32_t floor_uffds;
	uint64_t plain_pages;         /* PLAIN_MAP */
	char space[LOCAL_NAME_BYTES]; /* ATTACH */
};

struct bench_answer {
	int32_t error; /* 0, or -errno with the reason in em */
	struct errmsg em;
	nsec_t start, end; /* of the lanes; CLOCK_MONOTONIC, alike in all */
	uint64_t accesses;
	uint64_t faulted[BENCH_CLASSES]; /* accesses that did, by class */
	uint64_t n_samples;
	/* What the node counted for this client meanwhile. */
	uint64_t node_faults, installed_pages, prefetched_pages;
	uint64_t count[BENCH_SHARED_PAGES]; /* COUNT */
	struct bench_wrongs wrongs;
};

struct bench_seat { /* in shared memory; one for each node taking part */
	struct floor_mode floor_mode;
	struct bench_order order;
	uint32_t round; /* go's value at which the order starts */
	struct bench_answer answer;
};

struct bench_board {         /* in shared memory */
	_Atomic uint32_t go; /* a futex */
	struct bench_seat seat[BENCH_NODES_MAX];
};

/* --- the conductor's side ------------------------------------------------ */

struct bench_member {
	pid_t client, handler, peer; /* 0: not started */
	int sock;                    /* to the client; -1: none */
	const uint64_t *sample;      /* answer.n_samples of them, shared */
	const char *node_socket;     /* borrowed */
	uint32_t node;               /* its number, for messages */
};

struct bench_crew {
	unsigned n;
	struct bench_member member[BENCH_NODES_MAX];
	struct bench_board *board;
	uint64_t room; /* accesses of one order at most */
	uint32_t round;
	bool broken; /* an order failed half-way: only bench_crew_end() helps */
	/* Called about once a second while waiting; may be NULL. */
	void (*tick)(void *arg);
	void *tick_arg;
};

struct bench_crew_config {
	unsigned n;
	const char *node_socket[BENCH_NODES_MAX];
	uint32_t node[BENCH_NODES_MAX];
	uint64_t room;
	uint64_t seed;
	nsec_t busy_poll_ns;
};

/*
 * Start all processes.  `crew` is all zeros.  Returns 0 or -errno with the
 * reason in em; then, too, bench_crew_end() must be called.
 */
int bench_crew_start(struct bench_crew *crew,
                     const struct bench_crew_config *cfg, struct errmsg *em);

/* The order for member `i`, zeroed but for what has a usual value. */
struct bench_order *bench_crew_order(struct bench_crew *crew, unsigned i,
                                     enum bench_verb verb);

/*
 * Have the members of `who` (bit i: member i) carry out the orders of their
 * seats at once.  Returns 0 when all did; -EINTR when a signal asked us to
 * stop; -ETIMEDOUT after `patience`; -ECHILD when a process died; or what a
 * member answered.  em says which and why.
 */
int bench_crew_do(struct bench_crew *crew, uint64_t who, nsec_t patience,
                  struct errmsg *em);

/* End all processes and wait for them. */
void bench_crew_end(struct bench_crew *crew);

/* Set by the handler of SIGINT, SIGTERM and SIGHUP. */
extern volatile sig_atomic_t bench_stop;

/* --- the client's side (bench_client.c) ---------------------------------- */

struct bench_client_config {
	int sock;    /* to the conductor */
	int control; /* to the floor's handler */
	struct bench_board *board;
	unsigned index;   /* of the seat */
	uint64_t *sample; /* `room` of them, shared */
	uint64_t room;
	const char *node_socket;
};

/* The client process.  Returns an exit status when the conductor is gone. */
int bench_client(const struct bench_client_config *cfg);
