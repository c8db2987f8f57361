/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: crowd SOCKET SPACE FIRST THREADS SEED
 *
 * THREADS threads, each of which touches one page of its own, all at once, and
 * checks what it finds there against the pattern SEED.  Says "ready" when all
 * exist, waits for a line, and prints how many pages were right and wrong.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tool.h"

#define STACK_BYTES (16u << 10)

static const uint8_t *base;
static uint64_t first, seed;
static pthread_barrier_t begin;
static _Atomic unsigned right, wrong;

static void *touch(void *data)
{
	uint64_t page = first + (uintptr_t)data;
	const volatile uint64_t *word =
		(const volatile uint64_t *)(base + page * PAGE_BYTES);
	unsigned bad = 0;

	pthread_barrier_wait(&begin);
	for (uint64_t i = 0; i < PAGE_WORDS; i++)
		bad += word[i] != tool_word(seed, page, i);
	if (bad > 0)
		atomic_fetch_add(&wrong, 1);
	else
		atomic_fetch_add(&right, 1);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t threads;
	struct memspan *m;
	pthread_attr_t attr;
	pthread_t *thread;
	uint8_t *stacks;
	char line[16];

	if (argc != 6)
		tool_die("usage: crowd SOCKET SPACE FIRST THREADS SEED");
	m = tool_attach(argv[1], argv[2]);
	base = memspan_addr(m);
	first = tool_number(argv[3]);
	threads = tool_number(argv[4]);
	seed = tool_number(argv[5]);
	thread = calloc(threads, sizeof(*thread));
	/* One mapping for all stacks: a thread each would meet
	 * vm.max_map_count. */
	stacks = mmap(NULL, threads * STACK_BYTES, PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!thread || stacks == MAP_FAILED)
		tool_die("no memory");
	pthread_attr_init(&attr);
	pthread_barrier_init(&begin, NULL, (unsigned)threads + 1);
	for (uint64_t i = 0; i < threads; i++) {
		pthread_attr_setstack(&attr, stacks + i * STACK_BYTES,
		                      STACK_BYTES);
		if (pthread_create(&thread[i], &attr, touch,
		                   (void *)(uintptr_t)i) != 0)
			tool_die("no more than %lu threads", (unsigned long)i);
	}
	tool_say("ready");
	(void)tool_line(line, sizeof(line));
	pthread_barrier_wait(&begin);
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	tool_say("%u %u", atomic_load(&right), atomic_load(&wrong));
	memspan_detach(m);
	free(thread);
	return 0;
}
