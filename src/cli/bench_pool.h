/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Up to 10,000 threads that start at once, each with a lane.
 *
 * They are made before anything is measured, and have touched their stacks when
 * bench_pool_start() returns.  One word wakes them all, so how they get their
 * turns is the kernel's affair, alike for memspan and the floor.
 */
#pragma once

#include <pthread.h>

#include "base/base.h"
#include "cli/bench_lane.h"

/* Four times what the C library insists on, of which 12 KiB are ever used. */
#define BENCH_STACK_BYTES ((size_t)64 << 10)

struct bench_pool {
	unsigned n;
	struct bench_lane *lane; /* n of them; set by the owner before a run */
	/* The rest is bench_pool.c's. */
	pthread_t *thread;
	char *stacks;
	unsigned started;
	_Atomic uint32_t go;   /* a futex: grows by one for each run */
	_Atomic uint32_t left; /* a futex: threads still at work */
	void (*run)(struct bench_lane *l); /* NULL: end */
	const struct local_notes *notes;
};

/*
 * Start `n` threads.  `pool` is all zeros.  Returns 0, or -errno with the
 * reason in em and no thread left.
 */
int bench_pool_start(struct bench_pool *pool, unsigned n, struct errmsg *em);
void bench_pool_stop(struct bench_pool *pool); /* also if never started */

/*
 * Have every thread run its lane, whose `note` becomes the thread's slot of
 * `notes` unless that is NULL.  Returns when all have ended.
 */
void bench_pool_run(struct bench_pool *pool, const struct local_notes *notes,
                    void (*run)(struct bench_lane *l));

/* The calling thread's slot. */
const _Atomic uint32_t *bench_note(const struct local_notes *notes);

/* Sleep while *at is `value`, and wake who does so, also in other processes. */
void bench_futex_wait(_Atomic uint32_t *at, uint32_t value);
void bench_futex_wake(_Atomic uint32_t *at);
