/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The result of a benchmark, for people: shaped like fio's, with the ratio to
 * the floor beside each figure.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/size.h"
#include "cli/bench.h"

/* --- numbers ------------------------------------------------------------- */

#define NUMBER_BYTES 32u

/* 98123 as "98.1k", as fio does. */
static char *thousands(double v, char buf[NUMBER_BYTES])
{
	if (v >= 1e6)
		snprintf(buf, NUMBER_BYTES, "%.2fM", v / 1e6);
	else if (v >= 1e4)
		snprintf(buf, NUMBER_BYTES, "%.1fk", v / 1e3);
	else
		snprintf(buf, NUMBER_BYTES, "%.0f", v);
	return buf;
}

/* ", 1.08x floor", or nothing if one of the two was not measured. */
static char *beside(double a, double b, char buf[NUMBER_BYTES])
{
	double ratio = bench_ratio(a, b);

	buf[0] = '\0';
	if (ratio > 0)
		snprintf(buf, NUMBER_BYTES, ", %.2fx floor", ratio);
	return buf;
}

static double us(const struct hist *h, double percentile)
{
	return (double)hist_percentile(h, percentile) / NSEC_PER_USEC;
}

/* --- lines --------------------------------------------------------------- */

/* "  write: IOPS=98.1k, BW=383MiB/s (402MB/s)(128MiB/334msec), 0.95x floor" */
static void print_rate(FILE *f, const char *what, const struct bench_rate *r,
                       double floor_per_s)
{
	char iops[NUMBER_BYTES], ratio[NUMBER_BYTES];
	double per_s = bench_per_s(r);

	if (r->ns == 0)
		return;
	fprintf(f,
	        "  %-6s: IOPS=%s, BW=%.0fMiB/s (%.0fMB/s)(%.0fMiB/%.0fmsec)"
	        "%s\n",
	        what, thousands(per_s, iops), per_s * PAGE_BYTES / (1 << 20),
	        per_s * PAGE_BYTES / 1e6,
	        (double)r->pages * PAGE_BYTES / (1 << 20),
	        (double)r->ns / NSEC_PER_MSEC,
	        beside(per_s, floor_per_s, ratio));
}

/* The percentiles that fio shows, three in a line, each with its ratio. */
static void print_percentiles(FILE *f, const struct hist *h,
                              const struct hist *floor)
{
	static const double shown[] = { 1,  5,    10,   20,    30,   40,
		                        50, 60,   70,   80,    90,   95,
		                        99, 99.5, 99.9, 99.95, 99.99 };
	bool compare = floor && hist_count(floor) > 0;

	fprintf(f, "     percentiles (usec)%s:\n",
	        compare ? ", each beside the floor's" : "");
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
		double v = us(h, shown[i]);

		fprintf(f, "%s%5.2fth=[%9.2f]", i % 3 == 0 ? "     | " : ", ",
		        shown[i], v);
		if (compare)
			fprintf(f, " %5.2fx",
			        bench_ratio(v, us(floor, shown[i])));
		if (i % 3 == 2 || i + 1 == ARRAY_SIZE(shown))
			fputc('\n', f);
	}
}

static void print_class(FILE *f, const char *what, const struct hist *h,
                        const struct hist *floor)
{
	char p50[NUMBER_BYTES], p99[NUMBER_BYTES];
	bool compare = floor && hist_count(floor) > 0;

	if (!h || hist_count(h) == 0)
		return;
	fprintf(f,
	        "   %s lat (usec): min=%.2f, max=%.2f, avg=%.2f, n=%" PRIu64
	        "\n",
	        what, (double)hist_min(h) / NSEC_PER_USEC,
	        (double)hist_max(h) / NSEC_PER_USEC,
	        hist_mean(h) / NSEC_PER_USEC, hist_count(h));
	fprintf(f, "     p50=%.2f%s; p99=%.2f%s\n", us(h, 50),
	        beside(us(h, 50), compare ? us(floor, 50) : 0, p50), us(h, 99),
	        beside(us(h, 99), compare ? us(floor, 99) : 0, p99));
	print_percentiles(f, h, floor);
}

/* --- patterns ------------------------------------------------------------ */

/* What the first and the second half of a pattern's accesses are. */
static const char *const half_name[BENCH_PATTERNS][BENCH_HALVES] = {
	[BENCH_SEQUENTIAL] = { "write", "" },
	[BENCH_INTEGRITY] = { "own", "stream" },
	[BENCH_RANDOM] = { "write", "read" },
	[BENCH_STRIDE] = { "write", "read" },
	[BENCH_CONCURRENT] = { "write", "read" },
	[BENCH_SHARED] = { "", "add" },
	[BENCH_INVALIDATE] = { "", "write" },
	[BENCH_CAPACITY] = { "write", "read" },
	[BENCH_FLOOR] = { "", "" },
};

static void print_counts(FILE *f, const struct bench_figures *g)
{
	fprintf(f,
	        "   accesses=%" PRIu64 ", faults: local=%" PRIu64
	        ", remote=%" PRIu64 ", prefetched=%" PRIu64 ", refault=%" PRIu64
	        ", upgrade=%" PRIu64 "\n",
	        g->accesses, bench_local_faults(g), bench_remote_faults(g),
	        g->faulted[LOCAL_PREFETCHED], g->faulted[LOCAL_REFAULT],
	        g->faulted[LOCAL_UPGRADE]);
	fprintf(f, "   ");
	if (g->node_faults > 0)
		fprintf(f, "pages/fault=%.2f, ",
		        (double)g->installed_pages / (double)g->node_faults);
	fprintf(f, "prefetched pages=%" PRIu64 ", remote miss ratio=%.4f\n",
	        g->prefetched_pages,
	        (double)bench_remote_faults(g) / (double)g->accesses);
}

static void print_node(FILE *f, const struct bench_run *run,
                       enum bench_pattern p, unsigned i)
{
	const struct bench_result *r = &run->result[p];
	const struct bench_figures *g = &r->node[i];
	const struct bench_rate *others = &g->rate[BENCH_OTHERS];
	double floor[BENCH_HALVES];

	if (g->accesses == 0)
		return;
	fprintf(f, "%s: (node %u): pages=%" PRIu64 ", threads=%u\n",
	        bench_pattern_name[p], run->node[i].id, g->pages, r->threads);
	floor[BENCH_OWN] = bench_per_s(&r->floor.threads[BENCH_OWN]);
	floor[BENCH_OTHERS] = bench_per_s(&r->floor.threads[BENCH_OTHERS]);
	if (p == BENCH_INTEGRITY)
		floor[BENCH_OTHERS] = bench_stream(&r->floor) / PAGE_BYTES;
	print_rate(f, half_name[p][BENCH_OWN], &g->rate[BENCH_OWN],
	           floor[BENCH_OWN]);
	/* Additions are no pages: bytes a second would say nothing. */
	if (p != BENCH_SHARED)
		print_rate(f, half_name[p][BENCH_OTHERS], others,
		           floor[BENCH_OTHERS]);
	else if (others->ns > 0)
		fprintf(f, "  add   : %.0f/s, handovers %.0f/s\n",
		        bench_per_s(others),
		        (double)bench_remote_faults(g) * 1e9 /
		                (double)others->ns);
	print_counts(f, g);
	if (p != BENCH_SHARED)
		print_class(f, "local", g->local, r->floor.local);
	print_class(f, "remote", g->remote, r->floor.remote);
}

/* All nodes together, by the wall clock. */
static void print_all(FILE *f, const struct bench_run *run,
                      enum bench_pattern p)
{
	const struct bench_result *r = &run->result[p];

	if (p == BENCH_SHARED || p == BENCH_INVALIDATE)
		return;
	fprintf(f, "%s: (all %u nodes)\n", bench_pattern_name[p], run->n);
	for (int half = 0; half < BENCH_HALVES; half++)
		print_rate(f, half_name[p][half], &r->all[half],
		           bench_per_s(&r->floor.all_threads[half]));
	if (p == BENCH_STRIDE && run->result[BENCH_RANDOM].ran) {
		double gain = bench_ratio(
			bench_per_s(&r->all[BENCH_OTHERS]),
			bench_per_s(
				&run->result[BENCH_RANDOM].all[BENCH_OTHERS]));

		if (gain > 0)
			fprintf(f, "   predictor's gain: %.2fx random\n", gain);
	}
}

static void print_pattern(FILE *f, const struct bench_run *run,
                          enum bench_pattern p)
{
	fputc('\n', f);
	for (unsigned i = 0; i < run->n; i++)
		print_node(f, run, p, i);
	if (run->n > 1)
		print_all(f, run, p);
}

/* --- rows of `capacity` -------------------------------------------------- */

static void print_row(FILE *f, const struct bench_run *run,
                      const struct bench_row *row)
{
	const struct hist *quiet = run->result[BENCH_CAPACITY].node[0].remote;
	const struct bench_result *r = &row->result;
	const struct bench_figures *g = &r->node[0];
	char size[SIZE_TEXT_BYTES], buf[NUMBER_BYTES];
	double reads = bench_per_s(&g->rate[BENCH_OTHERS]);
	double plain = bench_per_s(&row->plain);

	fprintf(f, "capacity: (node %u): resident=%u%%, size=%s",
	        run->node[0].id, row->percent, size_text(r->size_bytes, size));
	if (row->skipped[0] != '\0') {
		fprintf(f, ": skipped: %s\n", row->skipped);
		return;
	}
	fprintf(f, ", pages=%" PRIu64 ", threads=%u\n", g->pages, r->threads);
	print_rate(f, half_name[BENCH_CAPACITY][BENCH_OWN], &g->rate[BENCH_OWN],
	           0);
	print_rate(f, half_name[BENCH_CAPACITY][BENCH_OTHERS],
	           &g->rate[BENCH_OTHERS], 0);
	if (plain > 0)
		fprintf(f, "  plain : IOPS=%s, of which that is %.4fx\n",
		        thousands(plain, buf), bench_ratio(reads, plain));
	else
		fprintf(f, "  plain : skipped: %s\n", row->no_plain);
	print_counts(f, g);
	fprintf(f, "   evicted pages: %s/s\n",
	        thousands(bench_evicted_per_s(row), buf));
	print_class(f, "fault", g->fault, r->floor.remote);
	print_class(f, "remote", g->remote, r->floor.remote);
	print_class(f, "refault", g->refault, NULL);
	if (hist_count(g->remote) > 0 && hist_count(quiet) > 0)
		fprintf(f,
		        "   remote p50 %.2fx, p99 %.2fx that of a node with "
		        "room\n",
		        bench_ratio(us(g->remote, 50), us(quiet, 50)),
		        bench_ratio(us(g->remote, 99), us(quiet, 99)));
}

static void print_capacity(FILE *f, const struct bench_run *run)
{
	const struct bench_result *r = &run->result[BENCH_CAPACITY];

	fputc('\n', f);
	if (hist_count(r->node[0].remote) > 0)
		fprintf(f,
		        "capacity: (node %u): pages=%" PRIu64
		        ", elsewhere, and room for all\n",
		        run->node[0].id, r->node[0].pages);
	print_class(f, "remote", r->node[0].remote, r->floor.remote);
	for (unsigned i = 0; i < BENCH_ROWS; i++)
		if (run->row[i].percent > 0)
			print_row(f, run, &run->row[i]);
}

/* --- head, floor, errors ------------------------------------------------- */

static void print_head(FILE *f, const struct bench_run *run)
{
	struct utsname u = { .release = "" };
	char size[SIZE_TEXT_BYTES];
	uint64_t busy = 0;
	unsigned shards = 0;

	for (unsigned i = 0; i < run->n; i++) {
		shards = (unsigned)max_u64(shards, run->node[i].shards);
		busy = max_u64(busy, run->node[i].busy_poll_us);
	}
	(void)uname(&u);
	fprintf(f,
	        "memspan bench %s: nodes=%u, size=%s, threads=%u, seed=%llu\n",
	        MEMSPAN_VERSION, run->n, size_text(run->size_bytes, size),
	        run->threads, (unsigned long long)run->seed);
	fprintf(f,
	        "placement=%s, shards=%u, busy-poll=%llu usec, cpus=%ld, "
	        "kernel=%s, clock=CLOCK_MONOTONIC\n",
	        bench_placement_name[run->placement], shards,
	        (unsigned long long)busy, sysconf(_SC_NPROCESSORS_ONLN),
	        u.release);
	if (run->placement == BENCH_FREE)
		fputs("(threads are free to move: p50 says mostly where they "
		      "ran; --placement near or far pins them)\n",
		      f);
}

static void print_floor(FILE *f, const struct bench_run *run)
{
	struct bench_floor_view v = bench_floor_view(run);
	char buf[NUMBER_BYTES];

	fprintf(f,
	        "\nfloor: the least a fault costs here; %u at once, as many as "
	        "nodes\n",
	        run->n);
	if (v.local)
		fprintf(f,
		        "  local : p50=%.2f, p99=%.2f usec (n=%" PRIu64 ")\n",
		        us(v.local, 50), us(v.local, 99), hist_count(v.local));
	if (v.remote)
		fprintf(f,
		        "  remote: p50=%.2f, p99=%.2f usec (n=%" PRIu64 ")\n",
		        us(v.remote, 50), us(v.remote, 99),
		        hist_count(v.remote));
	if (v.stream > 0)
		fprintf(f, "  stream: BW=%.0fMiB/s (%.0fMB/s)\n",
		        v.stream / (1 << 20), v.stream / 1e6);
	if (!v.threads)
		return;
	for (int half = 0; half < BENCH_HALVES; half++) {
		double rate = bench_per_s(&v.threads->floor.threads[half]);

		if (rate > 0)
			fprintf(f, "  %u threads, %s: IOPS=%s\n",
			        v.threads->threads,
			        half == BENCH_OWN ? "local" : "remote",
			        thousands(rate, buf));
	}
}

static void print_errors(FILE *f, const struct bench_run *run)
{
	fprintf(f, "\nintegrity errors: %" PRIu64 "\n", run->errors);
	for (unsigned i = 0; i < run->n_kept; i++) {
		const struct bench_error *e = &run->error[i];
		const struct bench_wrong *w = &e->wrong;

		fprintf(f,
		        "  page %" PRIu64 " of %s, read on node %u: ", w->page,
		        e->space, e->node);
		if (w->whole)
			fprintf(f,
			        "byte %u is 0x%02" PRIx64
			        ", should be 0x%02" PRIx64 "\n",
			        w->offset, w->got, w->want);
		else
			fprintf(f,
			        "got 0x%" PRIx64 ", should be 0x%" PRIx64 "\n",
			        w->got, w->want);
	}
	if (run->errors > run->n_kept)
		fprintf(f, "  and %" PRIu64 " more\n",
		        run->errors - run->n_kept);
}

void bench_text(const struct bench_run *run, FILE *f)
{
	print_head(f, run);
	print_floor(f, run);
	for (unsigned p = 0; p < BENCH_PATTERNS; p++)
		if (run->result[p].ran && p < BENCH_CAPACITY)
			print_pattern(f, run, (enum bench_pattern)p);
	if (run->result[BENCH_CAPACITY].ran)
		print_capacity(f, run);
	print_errors(f, run);
}
