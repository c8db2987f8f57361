/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/bench_page.h"

#include <string.h>

/* splitmix64's output function: every bit of x changes half of the result. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* --- contents ------------------------------------------------------------ */

/* Word i of the page is start + i * step. */
struct progression {
	uint64_t start;
	uint64_t step; /* odd, so that the words of a page all differ */
};

static struct progression progression(const struct bench_stamp *s)
{
	uint64_t key = mix(s->seed ^ mix(s->page ^ mix(s->version)));

	return (struct progression){ .start = key, .step = mix(key) | 1 };
}

uint64_t bench_word(const struct bench_stamp *s)
{
	return progression(s).start;
}

void bench_fill(void *page, const struct bench_stamp *s)
{
	struct progression p = progression(s);
	uint64_t *w = page;

	/*
	 * The first word last: who finds it in place before the others were
	 * written would take a half-filled page for a whole one.
	 */
	for (unsigned i = 1; i < BENCH_PAGE_WORDS; i++)
		w[i] = p.start + i * p.step;
	__atomic_store_n(&w[0], p.start, __ATOMIC_RELEASE);
}

/* Words [from, from + n) of the page; inlined, for n is known there. */
static inline unsigned check_words(const void *page,
                                   const struct bench_stamp *s, unsigned from,
                                   unsigned n)
{
	struct progression p = progression(s);
	const uint64_t *w = page;
	uint64_t differ = 0;

	/* No branch in the loop, so that the compiler makes vectors of it. */
	for (unsigned i = from; i < from + n; i++)
		differ |= w[i] ^ (p.start + i * p.step);
	if (differ == 0)
		return PAGE_BYTES;
	for (unsigned i = from * 8; i < (from + n) * 8; i++)
		if (((const uint8_t *)page)[i] != bench_byte(s, i))
			return i;
	/*
	 * Wrong a moment ago and right now: somebody writes while we read.
	 * That is an error as well; which byte it was nobody can say any more.
	 */
	return from * 8;
}

unsigned bench_check(const void *page, const struct bench_stamp *s)
{
	return check_words(page, s, 0, BENCH_PAGE_WORDS);
}

unsigned bench_check_line(const void *page, const struct bench_stamp *s,
                          unsigned line)
{
	assert(line < BENCH_PAGE_LINES);
	return check_words(page, s, line * BENCH_LINE_WORDS, BENCH_LINE_WORDS);
}

uint8_t bench_byte(const struct bench_stamp *s, unsigned offset)
{
	struct progression p = progression(s);
	uint64_t word = p.start + offset / sizeof(uint64_t) * p.step;
	uint8_t bytes[sizeof(word)];

	assert(offset < PAGE_BYTES);
	memcpy(bytes, &word, sizeof(word));
	return bytes[offset % sizeof(word)];
}

/* --- orders -------------------------------------------------------------- */

/*
 * A Feistel network over the smallest power of four that holds n, walked again
 * while it leads outside of n ("cycle walking"): it permutes the larger range,
 * so the first number below n on each cycle permutes the smaller one.  Fewer
 * than four rounds through it on average, for the larger range is less than
 * four times n.
 */
uint64_t bench_shuffle(uint64_t i, uint64_t n, uint64_t seed)
{
	unsigned half = 1;
	uint64_t mask;

	assert(i < n && n < 1ull << 62);
	while (1ull << 2 * half < n)
		half++;
	mask = (1ull << half) - 1;
	do {
		uint64_t left = i >> half, right = i & mask;

		for (uint64_t round = 0; round < 4; round++) {
			uint64_t was = right;

			right = left ^ (mix(right ^ mix(seed + round)) & mask);
			left = was;
		}
		i = left << half | right;
	} while (i >= n);
	return i;
}

gpn_t bench_walk_page(const struct bench_walk *w, uint64_t i)
{
	uint64_t at;

	assert(w->first < w->wrap && w->dealt < w->deal);
	if (w->drawn)
		i = mix(w->seed ^ mix(i)) % w->places;
	assert(i < w->places);
	if (w->shuffled && !w->drawn)
		i = bench_shuffle(i, w->places, w->seed);
	at = (w->first + i * w->step) % w->wrap;
	return (at / w->grain * w->deal + w->dealt) * w->grain + at % w->grain;
}
