/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory-check - write nearly all memory of this machine, and read it back.
 *
 * usage: memory-check SEED [LEAVE-MIB] [ROUNDS]
 *
 * Takes what the kernel calls available but for LEAVE-MIB (default 24), in
 * pages of this process.  Each word of it is a function of the seed, the round
 * and its place, so a page that is lost, stale, torn or another's is known by
 * any of its words.  Each round
 *
 *	writes all pages in order,
 *	reads them in reverse, so that the last to come are the first to go,
 *	writes every third anew,
 *	reads all in an order without a pattern.
 *
 * Prints one line, "memory-check ok pages=N errors=0", or "failed" with the
 * number of wrong pages, and before it the first few of them.  Exit status: 0,
 * 1 if something was wrong, 2 if it cannot run.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define SHOWN_MAX  8u /* wrong pages that are named */

struct check {
	uint64_t *memory;
	uint64_t pages;
	uint64_t seed;
	uint64_t errors; /* pages that were wrong when they were read */
};

/* Spreads every bit of `x` over all bits (the finalizer of splitmix64). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* What the i-th word of a page is in a generation of it. */
static uint64_t word(const struct check *c, uint64_t page, unsigned generation,
                     size_t i)
{
	return mix(mix(c->seed + generation) + page * PAGE_WORDS + i);
}

static void write_page(struct check *c, uint64_t page, unsigned generation)
{
	uint64_t *p = c->memory + page * PAGE_WORDS;

	for (size_t i = 0; i < PAGE_WORDS; i++)
		p[i] = word(c, page, generation, i);
}

static void read_page(struct check *c, uint64_t page, unsigned generation)
{
	const uint64_t *p = c->memory + page * PAGE_WORDS;

	for (size_t i = 0; i < PAGE_WORDS; i++) {
		uint64_t want = word(c, page, generation, i);

		if (p[i] == want)
			continue;
		if (c->errors++ < SHOWN_MAX)
			printf("page %" PRIu64 " word %zu: is %016" PRIx64
			       ", should be %016" PRIx64 "\n",
			       page, i, p[i], want);
		return;
	}
}

/* Every third page is of the round's second generation in the end. */
static unsigned generation(unsigned round, uint64_t page, bool late)
{
	return 2 * round + (late && page % 3 == 0);
}

static void check_round(struct check *c, unsigned round)
{
	/* A prime, and more than there are pages: it visits each once. */
	const uint64_t step = 0x9e3779b1u;
	uint64_t at = c->seed % c->pages;

	for (uint64_t p = 0; p < c->pages; p++)
		write_page(c, p, generation(round, p, false));
	for (uint64_t p = c->pages; p > 0; p--)
		read_page(c, p - 1, generation(round, p - 1, false));
	for (uint64_t p = 0; p < c->pages; p += 3)
		write_page(c, p, generation(round, p, true));
	for (uint64_t n = 0; n < c->pages; n++) {
		read_page(c, at, generation(round, at, true));
		at = (at + step) % c->pages;
	}
}

/* What the kernel says is to be had without swapping. */
static uint64_t available_bytes(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f) &&
	       sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
		;
	fclose(f);
	return kib * 1024;
}

int main(int argc, char **argv)
{
	struct check c = { .errors = 0 };
	uint64_t leave, available = available_bytes();
	unsigned rounds;

	if (argc < 2 || argc > 4) {
		fputs("usage: memory-check SEED [LEAVE-MIB] [ROUNDS]\n",
		      stderr);
		return 2;
	}
	c.seed = strtoull(argv[1], NULL, 0);
	leave = (argc > 2 ? strtoull(argv[2], NULL, 0) : 24) << 20;
	rounds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 1;
	if (available <= leave) {
		fprintf(stderr, "memory-check: only %" PRIu64 " MiB are free\n",
		        available >> 20);
		return 2;
	}
	c.pages = (available - leave) / PAGE_BYTES;
	c.memory = mmap(NULL, c.pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c.memory == MAP_FAILED) {
		perror("memory-check: mmap");
		return 2;
	}
	for (unsigned round = 0; round < rounds; round++)
		check_round(&c, round);
	printf("memory-check %s pages=%" PRIu64 " errors=%" PRIu64 "\n",
	       c.errors == 0 ? "ok" : "failed", c.pages, c.errors);
	return c.errors == 0 ? 0 : 1;
}
