/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/bench_pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

void bench_futex_wait(_Atomic uint32_t *at, uint32_t value)
{
	/* Interrupted, or changed already: the caller looks again anyway. */
	(void)syscall(SYS_futex, at, FUTEX_WAIT, value, NULL, NULL, 0);
}

void bench_futex_wake(_Atomic uint32_t *at)
{
	(void)syscall(SYS_futex, at, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

const _Atomic uint32_t *bench_note(const struct local_notes *notes)
{
	return &notes->slot[(uint32_t)gettid() % LOCAL_NOTES];
}

/* One thread less at work; the last one wakes the owner. */
static void leave(struct bench_pool *p)
{
	if (atomic_fetch_sub(&p->left, 1) == 1)
		bench_futex_wake(&p->left);
}

static void wait_for_all(struct bench_pool *p)
{
	uint32_t left;

	while ((left = atomic_load(&p->left)) != 0)
		bench_futex_wait(&p->left, left);
}

struct ticket { /* on the owner's stack until the thread has read it */
	struct bench_pool *pool;
	unsigned index;
};

static void *thread_main(void *arg)
{
	struct bench_pool *p = ((struct ticket *)arg)->pool;
	struct bench_lane *lane = &p->lane[((struct ticket *)arg)->index];
	uint32_t seen = atomic_load(&p->go);

	leave(p);
	for (;;) {
		while (atomic_load(&p->go) == seen)
			bench_futex_wait(&p->go, seen);
		seen++;
		if (!p->run)
			return NULL;
		if (p->notes)
			lane->note = bench_note(p->notes);
		p->run(lane);
		leave(p);
	}
}

static int start_one(struct bench_pool *p, unsigned i, struct ticket *ticket)
{
	pthread_attr_t attr;
	int r;

	*ticket = (struct ticket){ .pool = p, .index = i };
	r = pthread_attr_init(&attr);
	if (r != 0)
		return -r;
	r = pthread_attr_setstack(&attr, p->stacks + i * BENCH_STACK_BYTES,
	                          BENCH_STACK_BYTES);
	if (r == 0)
		r = pthread_create(&p->thread[i], &attr, thread_main, ticket);
	(void)pthread_attr_destroy(&attr);
	return -r;
}

int bench_pool_start(struct bench_pool *pool, unsigned n, struct errmsg *em)
{
	AUTO_FREE struct ticket *tickets = calloc(n, sizeof(*tickets));
	int r = 0;

	pool->lane = calloc(n, sizeof(*pool->lane));
	pool->thread = calloc(n, sizeof(*pool->thread));
	/* One mapping for all: guard pages would cost two each, and a process
	 * may have 65,530. */
	pool->stacks = mmap(NULL, n * BENCH_STACK_BYTES, PROT_READ | PROT_WRITE,
	                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool->stacks == MAP_FAILED)
		pool->stacks = NULL;
	pool->n = n;
	if (!tickets || !pool->lane || !pool->thread || !pool->stacks) {
		bench_pool_stop(pool);
		return errmsg_set(em, -ENOMEM, "%u threads", n);
	}
	/* A small stack may lie beside another in one huge page: keep apart. */
	(void)madvise(pool->stacks, n * BENCH_STACK_BYTES, MADV_NOHUGEPAGE);
	atomic_store(&pool->left, n);
	for (unsigned i = 0; i < n && r == 0; i++) {
		r = start_one(pool, i, &tickets[i]);
		if (r == 0)
			pool->started++;
	}
	if (r == 0) {
		wait_for_all(pool);
		return 0;
	}
	(void)errmsg_set(em, r,
	                 "cannot start thread %u of %u (raise ulimit -u, "
	                 "kernel.pid_max or the cgroup's pids.max)",
	                 pool->started + 1, n);
	/* Those that were never started will not leave. */
	atomic_fetch_sub(&pool->left, n - pool->started);
	bench_pool_stop(pool);
	return r;
}

void bench_pool_stop(struct bench_pool *pool)
{
	if (pool->started > 0) {
		wait_for_all(pool);
		pool->run = NULL;
		atomic_fetch_add(&pool->go, 1);
		bench_futex_wake(&pool->go);
		for (unsigned i = 0; i < pool->started; i++)
			(void)pthread_join(pool->thread[i], NULL);
	}
	free(pool->lane);
	free(pool->thread);
	if (pool->stacks)
		munmap(pool->stacks, pool->n * BENCH_STACK_BYTES);
	memset(pool, 0, sizeof(*pool));
}

void bench_pool_run(struct bench_pool *pool, const struct local_notes *notes,
                    void (*run)(struct bench_lane *l))
{
	pool->notes = notes;
	pool->run = run;
	atomic_store(&pool->left, pool->started);
	atomic_fetch_add(&pool->go, 1);
	bench_futex_wake(&pool->go);
	wait_for_all(pool);
}
