/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hooks: what the shim costs calls that it lets pass.
 *
 *	hooks                                     as they are
 *	memspan run --space NAME --node N hooks   with the shim
 *
 * Prints nanoseconds of CPU time for each call, the median of ROUNDS rounds.
 * The cheapest calls that there are show it most: a byte of /dev/zero, advice
 * without effect, a page that is mapped and unmapped untouched.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "base/base.h"

#define ROUNDS 9u
#define CALLS  100000u

static nsec_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

static int smaller(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int zero, null;
static void *memory;

static bool read_byte(void)
{
	char c;

	return read(zero, &c, 1) == 1;
}

static bool read_page(void)
{
	char page[PAGE_BYTES];

	return read(zero, page, sizeof(page)) == (ssize_t)sizeof(page);
}

static bool write_byte(void)
{
	return write(null, "", 1) == 1;
}

static bool advise(void)
{
	return madvise(memory, PAGE_BYTES, MADV_NORMAL) == 0;
}

static bool map_and_unmap(void)
{
	void *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p != MAP_FAILED && munmap(p, PAGE_BYTES) == 0;
}

static bool map_a_file(void)
{
	void *p = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, zero, 0);

	return p != MAP_FAILED && munmap(p, PAGE_BYTES) == 0;
}

static const struct {
	const char *name;
	bool (*call)(void);
} calls[] = {
	{ "read, 1 byte", read_byte },
	{ "read, 4 KiB", read_page },
	{ "write, 1 byte", write_byte },
	{ "madvise", advise },
	{ "mmap and munmap, anonymous", map_and_unmap },
	{ "mmap and munmap, a file", map_a_file },
};

/* Nanoseconds for a call; negative if it failed. */
static double measure(bool (*call)(void))
{
	double round[ROUNDS];

	for (unsigned r = 0; r < ROUNDS; r++) {
		nsec_t start = now();

		for (unsigned i = 0; i < CALLS; i++)
			if (!call())
				return -1;
		round[r] = (double)(now() - start) / CALLS;
	}
	qsort(round, ROUNDS, sizeof(round[0]), smaller);
	return round[ROUNDS / 2];
}

int main(void)
{
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	memory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (zero < 0 || null < 0 || memory == MAP_FAILED) {
		perror("hooks");
		return 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		printf("%-28s %6.0f ns\n", calls[i].name,
		       measure(calls[i].call));
	return 0;
}
