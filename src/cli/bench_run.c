/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices: short stretches of measuring, of the floor and of memspan by turns,
 * so that whatever the machine does meanwhile happens to both.
 *
 * A slice is one order to the crew (bench_crew.h).  Its samples lie in memory
 * that we share with the clients; between slices they go into histograms here,
 * so that the clients touch none while they measure.
 */

#include "cli/bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const bench_pattern_name[BENCH_PATTERNS] = {
	[BENCH_SEQUENTIAL] = "sequential", [BENCH_INTEGRITY] = "integrity",
	[BENCH_RANDOM] = "random",         [BENCH_STRIDE] = "stride",
	[BENCH_CONCURRENT] = "concurrent", [BENCH_SHARED] = "shared",
	[BENCH_INVALIDATE] = "invalidate", [BENCH_CAPACITY] = "capacity",
	[BENCH_FLOOR] = "floor",
};

const char *const bench_placement_name[3] = {
	[BENCH_FREE] = "free",
	[BENCH_NEAR] = "near",
	[BENCH_FAR] = "far",
};

/* An access that takes longer than this on average will never end. */
#define PATIENCE_NS      (60 * NSEC_PER_SEC)
#define PATIENCE_EACH_NS (2 * NSEC_PER_MSEC)

uint64_t bench_everybody(const struct bench_run *run)
{
	return run->n == 64 ? ~0ull : (1ull << run->n) - 1;
}

/* --- figures ------------------------------------------------------------- */

/* Histograms for one pattern, or row, of `n` nodes. */
static int result_new(struct bench_result *r, unsigned n, struct errmsg *em)
{
	if (hist_new(&r->floor.local) < 0 || hist_new(&r->floor.remote) < 0)
		return errmsg_set(em, -ENOMEM, "histograms");
	for (unsigned i = 0; i < n; i++)
		if (hist_new(&r->node[i].local) < 0 ||
		    hist_new(&r->node[i].remote) < 0)
			return errmsg_set(em, -ENOMEM, "histograms");
	return 0;
}

static void result_done(struct bench_result *r, unsigned n)
{
	r->floor.local = hist_free(r->floor.local);
	r->floor.remote = hist_free(r->floor.remote);
	for (unsigned i = 0; i < n; i++) {
		struct bench_figures *f = &r->node[i];

		f->local = hist_free(f->local);
		f->remote = hist_free(f->remote);
		f->fault = hist_free(f->fault);
		f->refault = hist_free(f->refault);
	}
}

static int row_new(struct bench_row *row, struct errmsg *em)
{
	struct bench_figures *f = &row->result.node[0];

	if (hist_new(&f->fault) < 0 || hist_new(&f->refault) < 0)
		return errmsg_set(em, -ENOMEM, "histograms");
	return result_new(&row->result, 1, em);
}

int bench_results_new(struct bench_run *run, struct errmsg *em)
{
	int r = 0;

	for (unsigned p = 0; p < BENCH_PATTERNS && r == 0; p++)
		if (run->wanted[p])
			r = result_new(&run->result[p], run->n, em);
	for (unsigned i = 0; i < BENCH_ROWS && r == 0; i++)
		if (run->wanted[BENCH_CAPACITY])
			r = row_new(&run->row[i], em);
	return r;
}

void bench_results_done(struct bench_run *run)
{
	for (unsigned p = 0; p < BENCH_PATTERNS; p++)
		result_done(&run->result[p], run->n);
	for (unsigned i = 0; i < BENCH_ROWS; i++)
		result_done(&run->row[i].result, 1);
}

double bench_per_s(const struct bench_rate *r)
{
	return r->ns == 0 ?
	               0 :
	               (double)r->pages * (double)NSEC_PER_SEC / (double)r->ns;
}

uint64_t bench_local_faults(const struct bench_figures *f)
{
	return f->faulted[LOCAL_FIRST_TOUCH];
}

uint64_t bench_remote_faults(const struct bench_figures *f)
{
	return f->faulted[LOCAL_REMOTE_READ] + f->faulted[LOCAL_REMOTE_WRITE] +
	       f->faulted[LOCAL_FIRST_REMOTE];
}

double bench_stream(const struct bench_floor *f)
{
	double best = 0;

	for (unsigned i = 0; i < BENCH_BATCHES; i++) {
		double rate = bench_per_s(&f->stream[i]) * PAGE_BYTES;

		best = rate > best ? rate : best;
	}
	return best;
}

void bench_rate_add(struct bench_rate *to, const struct bench_answer *a)
{
	to->pages += a->accesses;
	to->ns += a->end - a->start;
}

/* Which histogram a fault of that class belongs to; NULL: counted apart. */
static struct hist *hist_of(const struct bench_figures *f, uint32_t class)
{
	switch ((enum local_class) class) {
	case LOCAL_FIRST_TOUCH:
		return f->local;
	case LOCAL_REMOTE_READ:
	case LOCAL_REMOTE_WRITE:
	case LOCAL_FIRST_REMOTE:
		return f->remote;
	case LOCAL_REFAULT:
		return f->refault;
	case LOCAL_UPGRADE:
	case LOCAL_PREFETCHED:
		return NULL;
	}
	return NULL; /* a class that a newer node may have */
}

/* A page may be wrong in a slice that measures and in one that does not. */
static void note_wrongs(struct bench_run *run, unsigned i)
{
	const struct bench_seat *s = &run->crew.board->seat[i];
	uint64_t n = s->answer.wrongs.n;

	for (uint64_t k = 0; k < n && k < BENCH_WRONG_KEPT; k++) {
		struct bench_error *e;

		if (run->n_kept == BENCH_ERRORS_KEPT)
			break;
		e = &run->error[run->n_kept++];
		e->pattern = run->now;
		e->node = run->node[i].id;
		e->wrong = s->answer.wrongs.v[k];
		snprintf(e->space, sizeof(e->space), "%s",
		         s->order.floor ? "the floor" :
		         run->space     ? run->space :
		                          run->made);
	}
	run->errors += n;
}

/*
 * Give the orders that lie in the seats of `who`.  Patience grows with the
 * pages: an access of 10,000 threads may take a second, a million of them do
 * not take a million seconds.
 */
static int do_orders(struct bench_run *run, uint64_t who, struct errmsg *em)
{
	uint64_t n = 0;
	int r;

	for (unsigned i = 0; i < run->n; i++)
		if (who >> i & 1)
			n += run->crew.board->seat[i].order.n;
	r = bench_crew_do(&run->crew, who, PATIENCE_NS + n * PATIENCE_EACH_NS,
	                  em);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < run->n; i++)
		if (who >> i & 1)
			note_wrongs(run, i);
	return 0;
}

/* What all of `who` did, from the first's start to the last's end. */
static void add_wall(const struct bench_run *run, uint64_t who,
                     struct bench_rate *to)
{
	nsec_t start = UINT64_MAX, end = 0;

	for (unsigned i = 0; i < run->n; i++) {
		const struct bench_answer *a = &run->crew.board->seat[i].answer;

		if (!(who >> i & 1))
			continue;
		start = min_u64(start, a->start);
		end = max_u64(end, a->end);
		to->pages += a->accesses;
	}
	to->ns += end - start;
}

int bench_prepare(struct bench_run *run, uint64_t who, struct errmsg *em)
{
	return do_orders(run, who, em);
}

/*
 * What one client answered.  Of the samples, those whose class belongs to no
 * histogram were counted by class already.
 */
static void add_figures(struct bench_figures *f, const struct bench_answer *a,
                        const uint64_t *sample, int half)
{
	f->accesses += a->accesses;
	for (unsigned k = 0; k < BENCH_CLASSES; k++)
		f->faulted[k] += a->faulted[k];
	f->node_faults += a->node_faults;
	f->installed_pages += a->installed_pages;
	f->prefetched_pages += a->prefetched_pages;
	bench_rate_add(&f->rate[half], a);
	for (uint64_t i = 0; i < a->n_samples; i++) {
		struct hist *h = hist_of(f, sample[i] % BENCH_CLASSES);

		if (h)
			hist_record(h, sample[i] / BENCH_CLASSES);
		if (f->fault)
			hist_record(f->fault, sample[i] / BENCH_CLASSES);
	}
}

int bench_measure(struct bench_run *run, uint64_t who, int half,
                  struct errmsg *em)
{
	struct bench_result *r = run->to;
	int e;

	e = do_orders(run, who, em);
	if (e < 0)
		return e;
	for (unsigned i = 0; i < run->n; i++)
		if (who >> i & 1)
			add_figures(&r->node[i],
			            &run->crew.board->seat[i].answer,
			            run->crew.member[i].sample, half);
	add_wall(run, who, &r->all[half]);
	return 0;
}

/* --- the floor ----------------------------------------------------------- */

/* Usual values of an order to touch `n` pages of the floor's memory. */
static struct bench_order *floor_order(struct bench_run *run, unsigned i,
                                       enum bench_verb verb, uint64_t n)
{
	struct bench_order *o = bench_crew_order(&run->crew, i, verb);

	o->floor = true;
	o->walk.places = FLOOR_PAGES;
	o->walk.wrap = FLOOR_PAGES;
	o->n = n;
	o->seed = run->seed;
	o->version = FLOOR_VERSION;
	o->alike = FLOOR_PAGES;
	return o;
}

/* Nobody faults between two orders, so the handler may be told another. */
static void floor_mode(struct bench_run *run, unsigned i, enum floor_kind kind,
                       unsigned batch, bool overlap)
{
	struct floor_mode *m = &run->crew.board->seat[i].floor_mode;

	atomic_store(&m->kind, kind);
	atomic_store(&m->batch, batch);
	atomic_store(&m->overlap, overlap);
}

static unsigned count_bits(uint64_t mask)
{
	return (unsigned)__builtin_popcountll(mask);
}

int bench_floor_memory(struct bench_run *run, uint64_t pages, unsigned uffds,
                       struct errmsg *em)
{
	for (unsigned i = 0; i < run->n; i++) {
		struct bench_order *o =
			bench_crew_order(&run->crew, i, BENCH_FLOOR_MAP);

		o->floor_pages = pages;
		o->floor_uffds = uffds;
	}
	run->floor_used = 0;
	return bench_prepare(run, bench_everybody(run), em);
}

/* All latencies of a slice of the floor. */
static void add_floor(struct bench_run *run, uint64_t who, int half)
{
	struct bench_floor *f = &run->to->floor;
	struct hist *h = half == BENCH_OWN ? f->local : f->remote;

	f->copies = count_bits(who);
	for (unsigned i = 0; i < run->n; i++) {
		const struct bench_answer *a = &run->crew.board->seat[i].answer;

		for (uint64_t k = 0; who >> i & 1 && k < a->n_samples; k++)
			hist_record(h, run->crew.member[i].sample[k] /
			                       BENCH_CLASSES);
	}
}

int bench_floor_slice(struct bench_run *run, uint64_t who, int half, uint64_t n,
                      struct errmsg *em)
{
	bool clear;
	int r;

	n = min_u64(n, FLOOR_PAGES);
	/* A page faults once.  Clearing all of them takes milliseconds, so it
	 * is done only when too few are left, and before anybody measures. */
	clear = run->floor_used + n > FLOOR_PAGES;
	if (clear)
		run->floor_used = 0;
	for (unsigned i = 0; i < run->n; i++) {
		struct bench_order *o;

		if (!(who >> i & 1))
			continue;
		o = floor_order(run, i,
		                half == BENCH_OWN ? BENCH_WRITE : BENCH_READ,
		                n);
		o->clear = clear;
		o->from = run->floor_used;
		o->walk.shuffled = true;
		o->walk.seed = run->seed;
		floor_mode(run, i,
		           half == BENCH_OWN ? FLOOR_LOCAL : FLOOR_REMOTE, 1,
		           false);
	}
	r = do_orders(run, who, em);
	if (r < 0)
		return r;
	run->floor_used += n;
	add_floor(run, who, half);
	return 0;
}

/* Small requests are slow and never the best: a few of them will do. */
static uint64_t stream_pages(unsigned batch)
{
	if (batch < 16)
		return 128;
	return min_u64(batch * 32, FLOOR_PAGES);
}

int bench_floor_stream(struct bench_run *run, uint64_t who, struct errmsg *em)
{
	struct bench_floor *f = &run->to->floor;

	f->copies = count_bits(who);
	for (unsigned b = 0; b < BENCH_BATCHES; b++) {
		int r;

		for (unsigned i = 0; i < run->n; i++) {
			struct bench_order *o;

			if (!(who >> i & 1))
				continue;
			o = floor_order(run, i, BENCH_VERIFY,
			                stream_pages(1u << b));
			o->clear = true;
			floor_mode(run, i, FLOOR_REMOTE, 1u << b, false);
		}
		/* What is read ahead of the last request is not told: the
		 * next slice begins with all of it cleared. */
		run->floor_used = FLOOR_PAGES;
		r = do_orders(run, who, em);
		if (r < 0)
			return r;
		for (unsigned i = 0; i < run->n; i++)
			if (who >> i & 1)
				bench_rate_add(
					&f->stream[b],
					&run->crew.board->seat[i].answer);
	}
	return 0;
}

int bench_floor_threads(struct bench_run *run, uint64_t who, int half,
                        uint64_t n, struct errmsg *em)
{
	struct bench_result *res = run->to;
	int r;

	for (unsigned i = 0; i < run->n; i++) {
		struct bench_order *o;

		if (!(who >> i & 1))
			continue;
		o = floor_order(run, i,
		                half == BENCH_OWN ? BENCH_WRITE : BENCH_READ,
		                n);
		o->clear = true;
		o->pool = res->threads;
		o->walk.places = n;
		o->walk.wrap = n;
		o->walk.shuffled = true;
		o->walk.seed = run->seed;
		floor_mode(run, i,
		           half == BENCH_OWN ? FLOOR_LOCAL : FLOOR_REMOTE, 1,
		           res->threads > 1);
	}
	run->floor_used = FLOOR_PAGES;
	r = do_orders(run, who, em);
	if (r < 0)
		return r;
	/* The floor alone has these beside those of one thread: apart. */
	if (run->now == BENCH_CONCURRENT)
		add_floor(run, who, half);
	res->floor.copies = count_bits(who);
	add_wall(run, who, &res->floor.all_threads[half]);
	for (unsigned i = 0; i < run->n; i++)
		if (who >> i & 1)
			bench_rate_add(&res->floor.threads[half],
			               &run->crew.board->seat[i].answer);
	return 0;
}

/* --- progress ------------------------------------------------------------ */

void bench_progress(struct bench_run *run, unsigned step, unsigned steps)
{
	run->step = step;
	run->steps = steps;
	if (!run->terminal)
		return;
	fprintf(stderr, "\r%-11s %3u %% \033[K", bench_pattern_name[run->now],
	        steps == 0 ? 0 : 100 * step / steps);
	fflush(stderr);
}

void bench_progress_end(struct bench_run *run)
{
	if (run->terminal)
		fputs("\r\033[K", stderr);
}
