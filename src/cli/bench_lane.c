/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/bench_lane.h"

#include "base/prng.h"

void bench_wrong_add(struct bench_wrongs *w, const struct bench_wrong *what)
{
	uint64_t i = atomic_fetch_add_explicit(&w->n, 1, memory_order_relaxed);

	if (i < BENCH_WRONG_KEPT)
		w->v[i] = *what;
}

static uint32_t note_of(const struct bench_lane *l)
{
	if (!l->note)
		return 0;
	return atomic_load_explicit(l->note, memory_order_relaxed);
}

/*
 * Account for an access that took `ns`, before which the note was `before`.  A
 * note that has not changed means no fault: the page was mapped.
 */
static inline void account(struct bench_lane *l, nsec_t ns, uint32_t before)
{
	uint32_t now = note_of(l);
	uint32_t class = now % BENCH_CLASSES;

	l->accesses++;
	if (l->note && now == before)
		return;
	l->faulted[class]++;
	if (l->n_samples < l->room)
		l->sample[l->n_samples++] = bench_sample(ns, class);
}

static struct bench_stamp stamp(const struct bench_lane *l, gpn_t page)
{
	return (struct bench_stamp){ .seed = l->seed,
		                     .page = l->alike ? page % l->alike : page,
		                     .version = l->version };
}

static void compare_word(const struct bench_lane *l, gpn_t page, uint64_t got)
{
	struct bench_stamp s = stamp(l, page);
	struct bench_wrong w = { .page = page,
		                 .got = got,
		                 .want = bench_word(&s) };

	if (got != w.want)
		bench_wrong_add(l->wrongs, &w);
}

/* The byte at `offset` of a page is wrong; PAGE_BYTES: none is. */
static void compared(const struct bench_lane *l, const struct bench_stamp *s,
                     gpn_t page, const char *p, unsigned offset)
{
	struct bench_wrong w = { .page = page, .whole = true };

	if (offset == PAGE_BYTES)
		return;
	w.offset = offset;
	w.got = (uint8_t)p[offset];
	w.want = bench_byte(s, offset);
	bench_wrong_add(l->wrongs, &w);
}

static void compare_page(const struct bench_lane *l, gpn_t page, const char *p)
{
	struct bench_stamp s = stamp(l, page);

	compared(l, &s, page, p, bench_check(p, &s));
}

static void compare_line(const struct bench_lane *l, gpn_t page, const char *p,
                         unsigned line)
{
	struct bench_stamp s = stamp(l, page);

	compared(l, &s, page, p, bench_check_line(p, &s, line));
}

void bench_lane_write(struct bench_lane *l)
{
	nsec_t from = bench_now(), to;

	for (uint64_t i = 0; i < l->n; i++) {
		struct bench_stamp s = stamp(l, l->page[i]);
		uint64_t word = bench_word(&s);
		uint32_t before = note_of(l);

		*(volatile uint64_t *)(l->base + l->page[i] * PAGE_BYTES) =
			word;
		to = bench_now();
		account(l, to - from, before);
		from = to;
	}
	l->end = from;
}

void bench_lane_read(struct bench_lane *l)
{
	nsec_t from = bench_now(), to;

	for (uint64_t i = 0; i < l->n; i++) {
		uint32_t before = note_of(l);
		uint64_t got = *(volatile uint64_t *)(l->base +
		                                      l->page[i] * PAGE_BYTES);

		to = bench_now();
		account(l, to - from, before);
		compare_word(l, l->page[i], got);
		from = to;
	}
	l->end = from;
}

void bench_lane_verify(struct bench_lane *l)
{
	nsec_t from = bench_now();

	for (uint64_t i = 0; i < l->n; i++) {
		const char *p = l->base + l->page[i] * PAGE_BYTES;
		uint32_t before = note_of(l);

		(void)*(const volatile uint64_t *)p;
		account(l, bench_now() - from, before);
		compare_page(l, l->page[i], p);
		/* Comparing takes its time, which is nobody's latency. */
		from = bench_now();
	}
	l->end = from;
}

void bench_lane_spot(struct bench_lane *l)
{
	nsec_t from = bench_now();

	for (uint64_t i = 0; i < l->n; i++) {
		const char *p = l->base + l->page[i] * PAGE_BYTES;
		unsigned line = (unsigned)(i % BENCH_PAGE_LINES);
		uint32_t before = note_of(l);

		(void)*((const volatile uint64_t *)p + line * BENCH_LINE_WORDS);
		account(l, bench_now() - from, before);
		if (i % BENCH_SPOT_WHOLE == 0)
			compare_page(l, l->page[i], p);
		else
			compare_line(l, l->page[i], p, line);
		from = bench_now();
	}
	l->end = from;
}

void bench_lane_fill(struct bench_lane *l)
{
	for (uint64_t i = 0; i < l->n; i++) {
		struct bench_stamp s = stamp(l, l->page[i]);

		bench_fill(l->base + l->page[i] * PAGE_BYTES, &s);
	}
	l->accesses = l->n;
	l->end = bench_now();
}

void bench_lane_count(struct bench_lane *l)
{
	nsec_t from = bench_now(), to;
	struct prng r;

	prng_init(&r, l->seed);
	while (from < l->until) {
		uint64_t draw = prng_next(&r);
		uint64_t page = draw % BENCH_SHARED_PAGES;
		uint64_t counter = (draw >> 32) % BENCH_SHARED_COUNTERS;
		_Atomic uint64_t *p =
			(_Atomic uint64_t *)(void *)(l->base +
		                                     page * PAGE_BYTES) +
			counter;
		uint32_t before = note_of(l);

		atomic_fetch_add(p, 1);
		to = bench_now();
		l->count[page]++;
		account(l, to - from, before);
		from = to;
	}
	l->end = from;
}
