/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pattern `capacity`: random reads of more memory than the node has.
 *
 * The first node that takes part reads; what does not fit there lies at others,
 * whose clients have nothing to do with it.  Its own word is taken for what
 * fits (capacity_bytes), and the space made so large that 100, 75, 50 and 25 %
 * of it do, one after the other:
 *
 *	space, at first touch    written, all 4,096 bytes of every page: the
 *	                         more the smaller the share, the more goes
 *	reads                    pages drawn at random, each as likely, so that
 *	                         the hit ratio is at most the share
 *	plain memory             the same reads of anonymous memory, when the
 *	                         space is gone: they do not compete for frames
 *
 * Reads are in few long slices: while the floor is measured between them the
 * node makes room, which no program grants it.
 *
 * Beside the rows, and before them: reads of pages that are elsewhere, at a
 * node with room for them.  What a fault takes longer in a row, eviction costs.
 */

#include "cli/bench.h"

#include <errno.h>
#include <stdio.h>

#include "base/size.h"
#include "cli/proc.h"
#include "cli/space.h"

#define READER 1u /* masks of members */
#define LENDER 2u

#define FILL_SLICE   (1u << 16)
#define ACCESSES_MIN 100000u
#define SLICES       8u
#define ACCESSES_MAX ((uint64_t)SLICES * BENCH_CAPACITY_SLICE)

/* Of the reads beside the rows. */
#define QUIET_BYTES ((uint64_t)64 << 20)
#define QUIET_PART  4u /* of what fits, at most */

#define VERSION 1u

static const unsigned shares[BENCH_ROWS] = { 100, 75, 50, 25 };

/* --- passes -------------------------------------------------------------- */

static struct bench_order *order(struct bench_run *run, unsigned i,
                                 enum bench_verb verb, uint64_t pages)
{
	struct bench_order *o = bench_crew_order(&run->crew, i, verb);

	o->walk.places = pages;
	o->walk.wrap = pages;
	o->walk.seed = run->seed;
	o->seed = run->seed;
	o->version = VERSION;
	return o;
}

/* Member `i` writes all pages; `rate`: how fast. */
static int fill(struct bench_run *run, unsigned i, uint64_t pages, bool plain,
                struct bench_rate *rate, struct errmsg *em)
{
	int r = 0;

	for (uint64_t from = 0; from < pages && r == 0; from += FILL_SLICE) {
		struct bench_order *o = order(run, i, BENCH_FILL, pages);

		o->plain = plain;
		o->from = from;
		o->n = min_u64(FILL_SLICE, pages - from);
		r = bench_prepare(run, 1ull << i, em);
		bench_rate_add(rate, &run->crew.board->seat[i].answer);
		bench_progress(run, run->step, run->steps);
	}
	return r;
}

static uint64_t accesses_of(uint64_t pages)
{
	return max_u64(ACCESSES_MIN, min_u64(ACCESSES_MAX, 2 * pages));
}

/* The draws of one slice, of the space or of plain memory. */
static void draw(struct bench_run *run, uint64_t pages, unsigned slice,
                 bool plain)
{
	uint64_t all = accesses_of(pages), each = all / SLICES;
	struct bench_order *o = order(run, 0, BENCH_SPOT, pages);

	o->walk.drawn = true;
	o->plain = plain;
	o->from = slice * each;
	o->n = slice == SLICES - 1 ? all - o->from : each;
}

static int read_space(struct bench_run *run, uint64_t pages, struct errmsg *em)
{
	int r = 0;

	for (unsigned i = 0; i < SLICES && r == 0; i++) {
		bench_progress(run, run->step + 1, run->steps);
		r = bench_floor_slice(run, READER, BENCH_OTHERS, BENCH_SLICE,
		                      em);
		if (r < 0)
			return r;
		draw(run, pages, i, false);
		r = bench_measure(run, READER, BENCH_OTHERS, em);
	}
	return r;
}

/* --- plain memory -------------------------------------------------------- */

static int map_plain(struct bench_run *run, uint64_t pages, struct errmsg *em)
{
	struct bench_order *o =
		bench_crew_order(&run->crew, 0, BENCH_PLAIN_MAP);

	o->plain_pages = pages;
	return bench_prepare(run, READER, em);
}

static int read_plain(struct bench_run *run, struct bench_row *row,
                      uint64_t pages, struct errmsg *em)
{
	struct bench_rate written = { 0 };
	char size[SIZE_TEXT_BYTES];
	uint64_t kib;
	int r;

	/* Swapped, or killed for it, we would measure something else. */
	if (proc_number("/proc/meminfo", "MemAvailable:", &kib) &&
	    kib * 1024 < pages * PAGE_BYTES) {
		snprintf(row->no_plain, sizeof(row->no_plain),
		         "only %s are available", size_text(kib * 1024, size));
		return 0;
	}
	r = map_plain(run, pages, em);
	if (r == 0)
		r = fill(run, 0, pages, true, &written, em);
	for (unsigned i = 0; i < SLICES && r == 0; i++) {
		draw(run, pages, i, true);
		r = bench_prepare(run, READER, em);
		bench_rate_add(&row->plain, &run->crew.board->seat[0].answer);
	}
	return r < 0 ? r : map_plain(run, 0, em);
}

/* --- rows ---------------------------------------------------------------- */

static int one_row(struct bench_run *run, struct bench_row *row, uint64_t bytes,
                   struct errmsg *em)
{
	struct bench_figures *f = &row->result.node[0];
	uint64_t pages = bytes / EXTENT_BYTES * EXTENT_PAGES;
	int r;

	run->to = &row->result;
	row->result.threads = 1;
	row->result.size_bytes = pages * PAGE_BYTES;
	r = bench_space_open(run, pages, BENCH_ALONE, &pages, em);
	if (r == -ENOSPC && run->made[0] == '\0' && !run->space) {
		snprintf(row->skipped, sizeof(row->skipped), "%.255s",
		         em->text);
		em->text[0] = '\0';
		return 0;
	}
	f->pages = pages;
	if (r == 0)
		r = fill(run, 0, pages, false, &f->rate[BENCH_OWN], em);
	if (r == 0)
		r = read_space(run, pages, em);
	if (r == 0)
		r = bench_space_close(run, em);
	if (r == 0)
		r = read_plain(run, row, pages, em);
	row->result.ran = r == 0;
	return r;
}

/* Remote reads, one page a fault, of a node that has room for all of them. */
static int quiet(struct bench_run *run, struct errmsg *em)
{
	uint64_t fits = min_u64(run->node[0].capacity_bytes,
	                        run->node[1].capacity_bytes);
	uint64_t bytes = min_u64(QUIET_BYTES, fits / QUIET_PART);
	struct bench_rate written = { 0 };
	uint64_t pages;
	int r;

	pages = max_u64(1, bytes / EXTENT_BYTES / run->n) * EXTENT_PAGES;
	r = bench_space_open(run, pages, BENCH_FIRST_TOUCH, &pages, em);
	if (r < 0)
		return r;
	pages *= run->n;
	r = fill(run, 1, pages, false, &written, em);
	for (uint64_t from = 0; from < pages && r == 0; from += BENCH_SLICE) {
		struct bench_order *o;

		r = bench_floor_slice(run, READER, BENCH_OTHERS, BENCH_SLICE,
		                      em);
		if (r < 0)
			return r;
		o = order(run, 0, BENCH_SPOT, pages);
		o->walk.shuffled = true;
		o->from = from;
		o->n = min_u64(BENCH_SLICE, pages - from);
		r = bench_measure(run, READER, BENCH_OTHERS, em);
	}
	run->to->node[0].pages = pages;
	return r < 0 ? r : bench_space_close(run, em);
}

int bench_capacity(struct bench_run *run, struct errmsg *em)
{
	uint64_t fits = run->node[0].capacity_bytes;
	int r = 0;

	if (fits < EXTENT_BYTES)
		return errmsg_say(em, -EAGAIN,
		                  "node %u has not said yet how much it can "
		                  "hold; memspan status shows it when it has",
		                  run->node[0].id);
	if (run->n > 1 && !run->space)
		r = quiet(run, em);
	run->steps = SLICES * (run->sized ? 1 : BENCH_ROWS);
	for (unsigned i = 0; i < BENCH_ROWS && r == 0; i++) {
		struct bench_row *row = &run->row[i];
		uint64_t bytes = run->size_bytes;

		row->percent = shares[i];
		if (!run->sized)
			bytes = fits / shares[i] * 100;
		else if (i > 0)
			row->percent = 0;
		else
			row->percent = (unsigned)max_u64(
				1, min_u64(100, fits / (bytes / 100)));
		if (row->percent > 0)
			r = one_row(run, row, bytes, em);
	}
	run->to = &run->result[BENCH_CAPACITY];
	return r;
}

double bench_evicted_per_s(const struct bench_row *row)
{
	const struct bench_figures *f = &row->result.node[0];
	struct bench_rate in = { .ns = f->rate[BENCH_OTHERS].ns };

	in.pages = bench_remote_faults(f) + f->faulted[LOCAL_PREFETCHED];
	return bench_per_s(&in);
}
