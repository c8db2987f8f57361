/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The patterns, as orders to the crew.
 *
 * A pattern is a few passes.  In a pass each client visits its own share of the
 * space, or all but that, once; it is cut into slices between which the floor
 * is measured, unless a pass is one slice because pauses would change what it
 * measures: prefetch goes on in a pause, and would be had for nothing.
 *
 * Shares are whole extents, as many for each node, for an extent is what has a
 * home.  Where a pattern speaks of pages at home or elsewhere the space is
 * bound so; `sequential` alone leaves homes to first touch, since claiming
 * extents is part of what it measures.
 */

#include "cli/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "core/place.h"

/*
 * integrity's slices: at the end of one up to 8 windows of 64 pages may be
 * under way, which the next one finds in place; of so many pages they are 3 %.
 */
#define STREAM_SLICE 16384u

#define STRIDE 16u /* pages */

#define THREAD_PAGES 4u /* at least, for each thread of `concurrent` */

#define SHARED_THREADS_MAX 16u /* more would only queue at the same pages */
#define SHARED_NS          (100 * NSEC_PER_MSEC) /* of one slice */

/* What pages hold: written first, and written again by `invalidate`. */
enum { VERSION_ONE = 1, VERSION_TWO };

/* --- sizes --------------------------------------------------------------- */

static uint64_t whole_extents(uint64_t pages)
{
	return (pages + EXTENT_PAGES - 1) / EXTENT_PAGES * EXTENT_PAGES;
}

uint64_t bench_share(const struct bench_run *run)
{
	return whole_extents((run->size_bytes / PAGE_BYTES + run->n - 1) /
	                     run->n);
}

static uint64_t threads_share(const struct bench_run *run)
{
	uint64_t pages =
		max_u64(bench_share(run),
	                whole_extents(run->threads * (uint64_t)THREAD_PAGES));
	uint64_t grain =
		bench_grain(pages / EXTENT_PAGES, run->n) * EXTENT_PAGES;

	return (pages + grain - 1) / grain * grain;
}

uint64_t bench_room(const struct bench_run *run)
{
	uint64_t room = max_u64(FLOOR_PAGES, STREAM_SLICE);

	if (!run->http)
		return max_u64(room, run->threads * (uint64_t)THREAD_PAGES);
	room = max_u64(room, bench_share(run));
	if (run->wanted[BENCH_CONCURRENT])
		room = max_u64(room, threads_share(run));
	if (run->wanted[BENCH_CAPACITY])
		room = max_u64(room, BENCH_CAPACITY_SLICE);
	/* `shared`: room for the faults of a slice, however many threads. */
	return max_u64(room, 1u << 16);
}

/* --- passes -------------------------------------------------------------- */

enum which {
	OWN,    /* each its own share */
	OTHERS, /* each all but its own, from the next node's on, round */
	NEXT,   /* each the next node's */
	ALL,    /* a space that is one share */
};

struct pass {
	enum bench_verb verb;
	enum which which;
	int half; /* of the figures: BENCH_OWN, BENCH_OTHERS */
	uint64_t share;
	uint64_t only; /* so many pages of it; 0: all */
	uint64_t step; /* every so many pages */
	uint64_t version;
	bool shuffled;
	bool dealt;    /* shares are dealt out by extents, not blocks */
	unsigned pool; /* threads; 0: one */
};

static uint64_t places(const struct bench_run *run, const struct pass *p)
{
	uint64_t each = p->only > 0 ? p->only : p->share;

	return (p->which == OTHERS ? each * (run->n - 1) : each) / p->step;
}

static struct bench_order *pass_order(struct bench_run *run, unsigned i,
                                      const struct pass *p)
{
	struct bench_order *o = bench_crew_order(&run->crew, i, p->verb);
	unsigned whose = p->which == OWN ? i :
	                 p->which == ALL ? 0 :
	                                   (i + 1) % run->n;

	o->walk.places = places(run, p);
	o->walk.step = p->step;
	o->walk.shuffled = p->shuffled;
	o->walk.seed = run->seed + i;
	o->walk.wrap = p->share;
	if (p->dealt) {
		o->walk.deal = run->n;
		o->walk.dealt = whose;
		o->walk.grain = run->grain;
	} else if (p->which != ALL) {
		o->walk.first = whose * p->share;
		o->walk.wrap = run->n * p->share;
	}
	o->seed = run->seed;
	o->version = p->version;
	o->pool = p->pool;
	return o;
}

/* Positions [from, from + n) of the pass, by all of `who`. */
static int slice(struct bench_run *run, uint64_t who, const struct pass *p,
                 uint64_t from, uint64_t n, struct errmsg *em)
{
	for (unsigned i = 0; i < run->n; i++) {
		struct bench_order *o;

		if (!(who >> i & 1))
			continue;
		o = pass_order(run, i, p);
		o->from = from;
		o->n = n;
		run->to->node[i].pages += n;
	}
	return bench_measure(run, who, p->half, em);
}

/* The whole pass, without figures. */
static int pass_unmeasured(struct bench_run *run, uint64_t who,
                           const struct pass *p, struct errmsg *em)
{
	for (unsigned i = 0; i < run->n; i++)
		if (who >> i & 1) {
			struct bench_order *o = pass_order(run, i, p);

			o->n = o->walk.places;
		}
	return bench_prepare(run, who, em);
}

/*
 * The whole pass, in slices of `each` with one of the floor before every one
 * and behind the last.
 */
static int pass_measured(struct bench_run *run, uint64_t who,
                         const struct pass *p, uint64_t each, struct errmsg *em)
{
	uint64_t all = places(run, p);
	uint64_t floor = min_u64(BENCH_SLICE, max_u64(each, 64));
	int r = 0;

	for (uint64_t from = 0; from < all && r == 0; from += each) {
		bench_progress(run, run->step + 1, run->steps);
		r = bench_floor_slice(run, who, p->half, floor, em);
		if (r == 0)
			r = slice(run, who, p, from, min_u64(each, all - from),
			          em);
	}
	return r < 0 ? r : bench_floor_slice(run, who, p->half, floor, em);
}

/* For the progress line: slices of a pass in slices of `each`. */
static unsigned slices(const struct bench_run *run, const struct pass *p,
                       uint64_t each)
{
	return (unsigned)((places(run, p) + each - 1) / each);
}

/* --- sequential, integrity ----------------------------------------------- */

static int sequential(struct bench_run *run, struct errmsg *em)
{
	uint64_t who = bench_everybody(run);
	struct pass p = { .verb = BENCH_WRITE,
		          .step = 1,
		          .version = VERSION_ONE };
	int r;

	r = bench_space_open(run, bench_share(run), BENCH_FIRST_TOUCH, &p.share,
	                     em);
	if (r < 0)
		return r;
	/* One slice: with pauses it would not be one scan. */
	if (run->wanted[BENCH_SEQUENTIAL])
		r = pass_measured(run, who, &p, places(run, &p), em);
	/* The timed pass wrote 8 bytes a page; `integrity` wants them all. */
	if (r == 0 && run->wanted[BENCH_INTEGRITY]) {
		p.verb = BENCH_FILL;
		r = pass_unmeasured(run, who, &p, em);
	}
	return r;
}

/*
 * For tests: a command to be run between the writing and the verifying, with
 * the space's name in its environment.  One that changes a byte behind
 * memspan's back finds out if the benchmark notices.
 */
static int run_hook(const struct bench_run *run, struct errmsg *em)
{
	const char *hook = getenv("MEMSPAN_BENCH_HOOK");
	int status;

	if (!hook || hook[0] == '\0')
		return 0;
	if (setenv("MEMSPAN_BENCH_SPACE", run->space ? run->space : run->made,
	           1) < 0)
		return errmsg_set(em, -errno, "setenv");
	fflush(NULL);
	status = system(hook);
	if (status != 0)
		return errmsg_say(em, -EIO, "$MEMSPAN_BENCH_HOOK ended with %d",
		                  WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return 0;
}

static int integrity(struct bench_run *run, struct errmsg *em)
{
	uint64_t who = bench_everybody(run);
	struct pass p = { .verb = BENCH_VERIFY,
		          .which = OTHERS,
		          .half = BENCH_OTHERS,
		          .share = run->share,
		          .step = 1,
		          .version = VERSION_ONE };
	uint64_t all, each;
	int r;

	r = run_hook(run, em);
	if (r < 0)
		return r;
	all = places(run, &p);
	each = all;
	if (all > STREAM_SLICE) /* alike, so that none is a short one */
		each = (all + all / STREAM_SLICE) / (all / STREAM_SLICE + 1);
	for (uint64_t from = 0; from < all && r == 0; from += each) {
		bench_progress(run, (unsigned)(from / each),
		               (unsigned)(all / each + 1));
		r = bench_floor_stream(run, who, em);
		if (r == 0)
			r = slice(run, who, &p, from, min_u64(each, all - from),
			          em);
	}
	if (r == 0 && all > 0)
		r = bench_floor_stream(run, who, em);
	if (r < 0)
		return r;
	/* What is mapped already comes last: it is read at memory's speed. */
	p.which = OWN;
	p.half = BENCH_OWN;
	return slice(run, who, &p, 0, places(run, &p), em);
}

/* --- random, stride ------------------------------------------------------ */

/* Write one's own pages, then read the others', every `step`-th. */
static int own_then_others(struct bench_run *run, struct pass *p, uint64_t each,
                           struct errmsg *em)
{
	uint64_t who = bench_everybody(run);
	struct pass own, others;
	int r;

	r = bench_space_open(run, bench_share(run), BENCH_BLOCKS, &p->share,
	                     em);
	if (r < 0)
		return r;
	p->version = VERSION_ONE;
	own = *p;
	own.verb = BENCH_WRITE;
	own.which = OWN;
	own.half = BENCH_OWN;
	others = *p;
	others.verb = BENCH_READ;
	others.which = OTHERS;
	others.half = BENCH_OTHERS;
	bench_progress(run, 0,
	               slices(run, &own, each) + slices(run, &others, each));
	r = pass_measured(run, who, &own, each, em);
	if (r == 0 && run->n > 1)
		r = pass_measured(run, who, &others, each, em);
	return r;
}

static int random_order(struct bench_run *run, struct errmsg *em)
{
	struct pass p = { .step = 1, .shuffled = true };

	return own_then_others(run, &p, BENCH_SLICE, em);
}

static int stride(struct bench_run *run, struct errmsg *em)
{
	struct pass p = { .step = STRIDE };

	/* One slice a pass: a pause would help the predictor. */
	return own_then_others(run, &p, UINT32_MAX, em);
}

/* --- concurrent ---------------------------------------------------------- */

static int have_pool(struct bench_run *run, unsigned threads, struct errmsg *em)
{
	for (unsigned i = 0; i < run->n; i++)
		bench_crew_order(&run->crew, i, BENCH_POOL)->threads = threads;
	return bench_prepare(run, bench_everybody(run), em);
}

/* All threads once over `n` pages, between two turns of the floor. */
static int threads_pass(struct bench_run *run, const struct pass *p, uint64_t n,
                        struct errmsg *em)
{
	uint64_t who = bench_everybody(run);
	int r;

	r = bench_floor_threads(run, who, p->half, n, em);
	if (r == 0)
		r = slice(run, who, p, 0, n, em);
	if (r == 0)
		r = bench_floor_threads(run, who, p->half, n, em);
	bench_progress(run, run->step + 1, run->steps);
	return r;
}

static int concurrent(struct bench_run *run, struct errmsg *em)
{
	/* Dealt out, so that every thread and stripe has its part of the work;
	 * shuffled, so that it is one page a fault as on the floor. */
	struct pass p = { .verb = BENCH_WRITE,
		          .step = 1,
		          .dealt = true,
		          .shuffled = true,
		          .version = VERSION_ONE,
		          .pool = run->threads };
	struct cut cut;
	uint64_t n;
	int r;

	run->result[run->now].threads = run->threads;
	r = bench_space_open(run, threads_share(run), BENCH_DEALT, &p.share,
	                     em);
	if (r < 0)
		return r;
	if (p.share < run->threads * (uint64_t)THREAD_PAGES)
		return errmsg_say(em, -ENOSPC,
		                  "the space is too small for %u threads with "
		                  "%u pages each; use fewer, or no --space",
		                  run->threads, THREAD_PAGES);
	/* As many pages for each thread: what is left over nobody touches. */
	n = p.only = p.share / run->threads * run->threads;
	cut_init(&cut, p.share * run->n * PAGE_BYTES);
	bench_progress(run, 0, 2);
	r = bench_floor_memory(run, max_u64(n, STRIPES_MAX), cut.stripes, em);
	if (r == 0)
		r = have_pool(run, run->threads, em);
	if (r == 0)
		r = threads_pass(run, &p, n, em);
	if (r == 0 && run->n > 1) {
		p.verb = BENCH_READ;
		p.which = NEXT;
		p.half = BENCH_OTHERS;
		r = threads_pass(run, &p, n, em);
	}
	if (r == 0)
		r = have_pool(run, 0, em);
	if (r == 0)
		r = bench_floor_memory(run, FLOOR_PAGES, 1, em);
	return r;
}

/* --- shared -------------------------------------------------------------- */

/* All compare the sums with what was added; the first time they are zero. */
static int sums(struct bench_run *run, const uint64_t *expected,
                struct errmsg *em)
{
	for (unsigned i = 0; i < run->n; i++)
		memcpy(bench_crew_order(&run->crew, i, BENCH_SUM)->expected,
		       expected, sizeof(uint64_t) * BENCH_SHARED_PAGES);
	return bench_prepare(run, bench_everybody(run), em);
}

static int count_slice(struct bench_run *run, unsigned turn, uint64_t *expected,
                       struct errmsg *em)
{
	int r;

	for (unsigned i = 0; i < run->n; i++) {
		struct bench_order *o =
			bench_crew_order(&run->crew, i, BENCH_COUNT);

		o->pool = run->result[run->now].threads;
		o->duration = SHARED_NS;
		/* Another seed for each thread of each client and turn. */
		o->seed = run->seed + (uint64_t)turn * 1000003 +
		          (uint64_t)i * SHARED_THREADS_MAX;
	}
	r = bench_measure(run, bench_everybody(run), BENCH_OTHERS, em);
	for (unsigned i = 0; r == 0 && i < run->n; i++)
		for (unsigned p = 0; p < BENCH_SHARED_PAGES; p++)
			expected[p] += run->crew.board->seat[i].answer.count[p];
	return r;
}

static int shared(struct bench_run *run, struct errmsg *em)
{
	struct bench_result *res = &run->result[run->now];
	uint64_t expected[BENCH_SHARED_PAGES] = { 0 };
	/* A second in all, less for small sizes. */
	unsigned turns =
		(unsigned)max_u64(3, min_u64(10, run->size_bytes >> 24));
	uint64_t share;
	int r;

	res->threads = (unsigned)min_u64(run->threads, SHARED_THREADS_MAX);
	r = bench_space_open(run, EXTENT_PAGES, BENCH_BLOCKS, &share, em);
	if (r < 0)
		return r;
	(void)bench_crew_order(&run->crew, 0, BENCH_CLEAR);
	r = bench_prepare(run, 1, em);
	if (r == 0)
		r = have_pool(run, res->threads, em);
	if (r == 0)
		r = sums(run, expected, em);
	for (unsigned turn = 0; turn < turns && r == 0; turn++) {
		bench_progress(run, turn, turns);
		r = bench_floor_slice(run, bench_everybody(run), BENCH_OTHERS,
		                      BENCH_SLICE, em);
		if (r == 0)
			r = count_slice(run, turn, expected, em);
	}
	if (r == 0)
		r = sums(run, expected, em);
	for (unsigned i = 0; i < run->n; i++)
		res->node[i].pages = BENCH_SHARED_PAGES;
	return r < 0 ? r : have_pool(run, 0, em);
}

/* --- invalidate ---------------------------------------------------------- */

static int invalidate(struct bench_run *run, struct errmsg *em)
{
	/* The first node is home and wrote the pages, the second has read them;
	 * whose writes are measured is the first, or of three the third. */
	uint64_t home = 1, reader = 2, writer = run->n > 2 ? 4 : 1;
	struct pass p = { .verb = BENCH_WRITE,
		          .which = ALL,
		          .half = BENCH_OTHERS,
		          .step = 1,
		          .version = VERSION_ONE };
	struct pass write;
	int r;

	r = bench_space_open(run, bench_share(run), BENCH_AT_FIRST, &p.share,
	                     em);
	if (r < 0)
		return r;
	r = pass_unmeasured(run, home, &p, em);
	p.verb = BENCH_READ;
	if (r == 0)
		r = pass_unmeasured(run, reader, &p, em);
	write = p;
	write.verb = BENCH_WRITE;
	write.shuffled = true;
	write.version = VERSION_TWO;
	bench_progress(run, 0, slices(run, &write, BENCH_SLICE));
	if (r == 0)
		r = pass_measured(run, writer, &write, BENCH_SLICE, em);
	/* What the reader had was taken away: it must see the new version. */
	p.version = VERSION_TWO;
	return r < 0 ? r : pass_unmeasured(run, reader, &p, em);
}

/* --- all ----------------------------------------------------------------- */

static int floor_of_threads(struct bench_run *run, struct errmsg *em)
{
	uint64_t n = run->threads *
	             max_u64(THREAD_PAGES, FLOOR_PAGES / run->threads);
	int r;

	run->result[run->now].threads = run->threads;
	r = bench_floor_memory(run, max_u64(n, STRIPES_MAX), STRIPES_MAX, em);
	if (r == 0)
		r = have_pool(run, run->threads, em);
	for (int half = 0; half < BENCH_HALVES && r == 0; half++)
		r = bench_floor_threads(run, bench_everybody(run), half, n, em);
	return r;
}

/* The floor's figures, without a cluster. */
static int floor_alone(struct bench_run *run, struct errmsg *em)
{
	uint64_t who = bench_everybody(run);
	int r = 0;

	for (unsigned turn = 0; turn < 16 && r == 0; turn++) {
		bench_progress(run, turn, 16);
		r = bench_floor_slice(run, who, BENCH_OWN, BENCH_SLICE, em);
		if (r == 0)
			r = bench_floor_slice(run, who, BENCH_OTHERS,
			                      BENCH_SLICE, em);
		if (r == 0 && turn % 4 == 3)
			r = bench_floor_stream(run, who, em);
	}
	return r < 0 ? r : floor_of_threads(run, em);
}

static int one_pattern(struct bench_run *run, enum bench_pattern now,
                       struct errmsg *em)
{
	static int (*const how[BENCH_PATTERNS])(struct bench_run * run,
	                                        struct errmsg * em) = {
		[BENCH_SEQUENTIAL] = sequential,
		[BENCH_INTEGRITY] = integrity,
		[BENCH_RANDOM] = random_order,
		[BENCH_STRIDE] = stride,
		[BENCH_CONCURRENT] = concurrent,
		[BENCH_SHARED] = shared,
		[BENCH_INVALIDATE] = invalidate,
		[BENCH_CAPACITY] = bench_capacity,
		[BENCH_FLOOR] = floor_alone,
	};
	int r;

	run->now = now;
	run->to = &run->result[now];
	run->step = 0;
	/* Who takes part may be others than before: all begin anew. */
	run->floor_used = FLOOR_PAGES;
	run->result[now].threads = 1;
	bench_progress(run, 0, 0);
	r = how[now](run, em);
	if (r < 0) {
		struct errmsg why = *em;

		return errmsg_say(em, r, "%s: %s", bench_pattern_name[now],
		                  why.text);
	}
	run->result[now].ran = run->wanted[now];
	/* integrity reads what sequential leaves behind; the others left have
	 * no space, or had several. */
	if (now == BENCH_FLOOR || now == BENCH_CAPACITY ||
	    (now == BENCH_SEQUENTIAL && run->wanted[BENCH_INTEGRITY]))
		return 0;
	return bench_space_close(run, em);
}

int bench_patterns(struct bench_run *run, struct errmsg *em)
{
	int r;

	r = bench_floor_memory(run, FLOOR_PAGES, 1, em);
	for (unsigned p = 0; p < BENCH_PATTERNS && r == 0; p++) {
		bool wanted = run->wanted[p];

		/* Alone, integrity needs the pages written all the same. */
		if (p == BENCH_SEQUENTIAL)
			wanted = wanted || run->wanted[BENCH_INTEGRITY];
		/* With one node nobody is there to share with. */
		if (wanted && run->n < 2 &&
		    (p == BENCH_SHARED || p == BENCH_INVALIDATE)) {
			fprintf(stderr,
			        "memspan bench: %s is left out: it needs two "
			        "nodes\n",
			        bench_pattern_name[p]);
			wanted = false;
		}
		if (wanted)
			r = one_pattern(run, (enum bench_pattern)p, em);
	}
	bench_progress_end(run);
	return r;
}
