/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The result of a benchmark, for programs: "memspan.bench/1".
 *
 * "floor" is the floor of the run: `random`'s for one page, `integrity`'s for
 * streams, `concurrent`'s for threads, the patterns whose figures are held
 * against it.  The machine drifts during a run, so every entry of "patterns"
 * also has the "floor" that was measured between its own slices, and "x_floor"
 * is the ratio to that one.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "cli/bench.h"

/* --- the floor of the run ------------------------------------------------ */

static bool has(const struct hist *h)
{
	return h && hist_count(h) > 0;
}

/* Who defines it first, then whoever has measured one at all. */
static const struct hist *floor_hist(const struct bench_run *run, bool remote)
{
	static const enum bench_pattern order[] = {
		BENCH_RANDOM,     BENCH_FLOOR,  BENCH_STRIDE,
		BENCH_SEQUENTIAL, BENCH_SHARED, BENCH_INVALIDATE,
		BENCH_CAPACITY,
	};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		const struct bench_floor *f = &run->result[order[i]].floor;
		const struct hist *h = remote ? f->remote : f->local;

		if (run->result[order[i]].ran && has(h))
			return h;
	}
	return NULL;
}

struct bench_floor_view bench_floor_view(const struct bench_run *run)
{
	const struct bench_result *threads = &run->result[BENCH_CONCURRENT];
	const struct bench_result *stream = &run->result[BENCH_INTEGRITY];

	if (!stream->ran)
		stream = &run->result[BENCH_FLOOR];
	return (struct bench_floor_view){
		.local = floor_hist(run, false),
		.remote = floor_hist(run, true),
		.stream = bench_stream(&stream->floor),
		.threads = threads->ran ? threads :
		           run->result[BENCH_FLOOR].ran ?
		                          &run->result[BENCH_FLOOR] :
		                          NULL,
	};
}

double bench_ratio(double a, double b)
{
	return a > 0 && b > 0 ? a / b : 0;
}

/* --- pieces -------------------------------------------------------------- */

/* A figure that is 0 was not measured. */
static json_t *real_or_null(double v)
{
	return v > 0 ? json_real(v) : json_null();
}

static json_t *u64(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static double us(const struct hist *h, double percentile)
{
	return (double)hist_percentile(h, percentile) / NSEC_PER_USEC;
}

static json_t *floor_us(const struct hist *h)
{
	if (!has(h))
		return json_null();
	return json_pack("{s:f, s:f, s:f, s:f, s:o}", "p50", us(h, 50), "p99",
	                 us(h, 99), "p999", us(h, 99.9), "mean",
	                 hist_mean(h) / NSEC_PER_USEC, "n", u64(hist_count(h)));
}

static json_t *class_us(const struct hist *h)
{
	if (!has(h))
		return json_null();
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "p50",
	                 us(h, 50), "p99", us(h, 99), "p999", us(h, 99.9),
	                 "max", (double)hist_max(h) / NSEC_PER_USEC, "min",
	                 (double)hist_min(h) / NSEC_PER_USEC, "mean",
	                 hist_mean(h) / NSEC_PER_USEC, "n", u64(hist_count(h)));
}

static json_t *threads_json(const struct bench_result *r)
{
	if (!r)
		return json_array();
	return json_pack(
		"[{s:o, s:o, s:o}]", "threads", u64(r->threads), "pages_per_s",
		real_or_null(bench_per_s(&r->floor.threads[BENCH_OWN])),
		"remote_pages_per_s",
		real_or_null(bench_per_s(&r->floor.threads[BENCH_OTHERS])));
}

static json_t *own_floor_json(const struct bench_result *r)
{
	const struct bench_floor *f = &r->floor;
	bool threads = f->threads[BENCH_OWN].ns > 0;

	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "copies", u64(f->copies),
	                 "local_us", floor_us(f->local), "remote_us",
	                 floor_us(f->remote), "stream_bytes_per_s",
	                 real_or_null(bench_stream(f)), "threads",
	                 threads_json(threads ? r : NULL));
}

/* --- an entry of "patterns" ---------------------------------------------- */

static json_t *percentile_ratio(const struct hist *h, const struct hist *floor,
                                double percentile)
{
	if (!has(h) || !has(floor))
		return json_null();
	return json_real(bench_ratio(us(h, percentile), us(floor, percentile)));
}

/* Null if nobody asked for the local class: `shared` has no first touches. */
static const struct hist *local_hist(enum bench_pattern p,
                                     const struct bench_figures *f)
{
	return p == BENCH_SHARED ? NULL : f->local;
}

static json_t *x_floor_json(enum bench_pattern p, const struct bench_result *r,
                            const struct bench_figures *f)
{
	const struct bench_floor *fl = &r->floor;
	double threads[BENCH_HALVES], all[BENCH_HALVES];

	for (int half = 0; half < BENCH_HALVES; half++) {
		threads[half] = bench_ratio(bench_per_s(&f->rate[half]),
		                            bench_per_s(&fl->threads[half]));
		all[half] = bench_ratio(bench_per_s(&r->all[half]),
		                        bench_per_s(&fl->all_threads[half]));
	}
	return json_pack(
		"{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "local_p50",
		percentile_ratio(local_hist(p, f), fl->local, 50), "local_p99",
		percentile_ratio(local_hist(p, f), fl->local, 99), "remote_p50",
		percentile_ratio(f->remote, fl->remote, 50), "remote_p99",
		percentile_ratio(f->remote, fl->remote, 99), "stream",
		real_or_null(bench_ratio(bench_per_s(&f->rate[BENCH_OTHERS]) *
	                                         PAGE_BYTES,
	                                 bench_stream(fl))),
		"threads", real_or_null(threads[BENCH_OWN]), "remote_threads",
		real_or_null(threads[BENCH_OTHERS]), "all_threads",
		real_or_null(all[BENCH_OWN]), "all_remote_threads",
		real_or_null(all[BENCH_OTHERS]));
}

/*
 * The one figure that "pages_per_s" stands for: first touches, but where the
 * others' pages are the matter.
 */
static int main_half(enum bench_pattern p, const struct bench_figures *f)
{
	if (p == BENCH_INVALIDATE)
		return BENCH_OTHERS;
	return p == BENCH_INTEGRITY && f->rate[BENCH_OTHERS].ns > 0 ?
	               BENCH_OTHERS :
	               BENCH_OWN;
}

static json_t *rates_json(const struct bench_run *run, enum bench_pattern p,
                          const struct bench_result *r,
                          const struct bench_figures *f)
{
	int half = main_half(p, f);
	double pages = bench_per_s(&f->rate[half]);
	double seconds = (double)f->rate[BENCH_OTHERS].ns / NSEC_PER_SEC;
	double handovers = 0, gain = 0;

	if (p == BENCH_SHARED && seconds > 0)
		handovers = (double)bench_remote_faults(f) / seconds;
	if (p == BENCH_STRIDE && run->result[BENCH_RANDOM].ran)
		gain = bench_ratio(
			bench_per_s(&r->all[BENCH_OTHERS]),
			bench_per_s(
				&run->result[BENCH_RANDOM].all[BENCH_OTHERS]));
	return json_pack(
		"{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "pages_per_s",
		real_or_null(pages), "bytes_per_s",
		real_or_null(pages * PAGE_BYTES), "all_pages_per_s",
		real_or_null(bench_per_s(&r->all[half])), "remote_pages_per_s",
		real_or_null(p == BENCH_SHARED ?
	                             0 :
	                             bench_per_s(&f->rate[BENCH_OTHERS])),
		"all_remote_pages_per_s",
		real_or_null(p == BENCH_SHARED ?
	                             0 :
	                             bench_per_s(&r->all[BENCH_OTHERS])),
		"handovers_per_s", real_or_null(handovers), "predictor_gain",
		real_or_null(gain));
}

static json_t *counts_json(const struct bench_figures *f)
{
	uint64_t remote = bench_remote_faults(f);
	double ratio =
		f->accesses == 0 ? 0 : (double)remote / (double)f->accesses;
	double per_fault = f->node_faults == 0 ? 0 :
	                                         (double)f->installed_pages /
	                                                 (double)f->node_faults;

	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f}",
	                 "pages", u64(f->pages), "accesses", u64(f->accesses),
	                 "local_faults", u64(bench_local_faults(f)),
	                 "remote_faults", u64(remote), "upgrades",
	                 u64(f->faulted[LOCAL_UPGRADE]), "refaults",
	                 u64(f->faulted[LOCAL_REFAULT]), "prefetched_faults",
	                 u64(f->faulted[LOCAL_PREFETCHED]), "prefetched_pages",
	                 u64(f->prefetched_pages), "pages_per_fault",
	                 real_or_null(per_fault), "remote_miss_ratio", ratio);
}

static json_t *entry_json(const struct bench_run *run, enum bench_pattern p,
                          const struct bench_result *r, unsigned i)
{
	const struct bench_figures *f = &r->node[i];
	AUTO(json_decref) json_t *counts = counts_json(f);
	AUTO(json_decref) json_t *rates = rates_json(run, p, r, f);
	json_t *entry;

	entry = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
	                  bench_pattern_name[p], "node", u64(run->node[i].id),
	                  "threads", u64(r->threads), "space_bytes",
	                  u64(r->size_bytes), "local_us",
	                  class_us(local_hist(p, f)), "remote_us",
	                  class_us(f->remote), "x_floor", x_floor_json(p, r, f),
	                  "floor", own_floor_json(r));
	if (!entry || !counts || !rates ||
	    json_object_update(entry, counts) < 0 ||
	    json_object_update(entry, rates) < 0) {
		json_decref(entry);
		return NULL;
	}
	return entry;
}

/* --- rows of `capacity` -------------------------------------------------- */

/* Ratios of a row's remote reads to those of a node with room. */
static json_t *x_quiet_json(const struct hist *h, const struct hist *quiet)
{
	return json_pack("{s:o, s:o}", "p50", percentile_ratio(h, quiet, 50),
	                 "p99", percentile_ratio(h, quiet, 99));
}

static json_t *text_or_null(const char *text)
{
	return text[0] == '\0' ? json_null() : json_string(text);
}

/* What a row has beside the fields of every entry. */
static json_t *more_json(const struct bench_run *run,
                         const struct bench_row *row)
{
	const struct bench_figures *f = &row->result.node[0];
	const struct hist *quiet = run->result[BENCH_CAPACITY].node[0].remote;
	double reads = bench_per_s(&f->rate[BENCH_OTHERS]);
	double plain = bench_per_s(&row->plain);

	return json_pack(
		"{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"resident_percent", u64(row->percent), "skipped",
		text_or_null(row->skipped), "accesses_per_s",
		real_or_null(reads), "plain_accesses_per_s",
		real_or_null(plain), "plain_skipped",
		text_or_null(row->no_plain), "x_plain",
		real_or_null(bench_ratio(reads, plain)), "fault_us",
		class_us(f->fault), "refault_us", class_us(f->refault),
		"fault_x_floor_p50",
		percentile_ratio(f->fault, row->result.floor.remote, 50),
		"evicted_pages_per_s", real_or_null(bench_evicted_per_s(row)),
		"quiet_us", class_us(quiet), "x_quiet",
		x_quiet_json(f->remote, quiet));
}

static json_t *row_json(const struct bench_run *run,
                        const struct bench_row *row)
{
	AUTO(json_decref) json_t *more = more_json(run, row);
	json_t *entry = entry_json(run, BENCH_CAPACITY, &row->result, 0);

	if (!entry || !more || json_object_update(entry, more) < 0) {
		json_decref(entry);
		return NULL;
	}
	return entry;
}

/* --- all entries --------------------------------------------------------- */

static int add_pattern(json_t *list, const struct bench_run *run,
                       enum bench_pattern p)
{
	const struct bench_result *r = &run->result[p];
	int e = 0;

	if (!r->ran || p == BENCH_FLOOR)
		return 0;
	if (p == BENCH_CAPACITY) {
		for (unsigned i = 0; i < BENCH_ROWS && e == 0; i++)
			if (run->row[i].percent > 0)
				e = json_array_append_new(
					list, row_json(run, &run->row[i]));
		return e;
	}
	for (unsigned i = 0; i < run->n && e == 0; i++)
		e = json_array_append_new(list, entry_json(run, p, r, i));
	return e;
}

static json_t *patterns_json(const struct bench_run *run)
{
	json_t *list = json_array();
	int r = 0;

	for (unsigned p = 0; p < BENCH_PATTERNS && r == 0; p++)
		r = add_pattern(list, run, (enum bench_pattern)p);
	if (r == 0)
		return list;
	json_decref(list);
	return NULL;
}

/* --- the whole ----------------------------------------------------------- */

static json_t *placement_json(const struct bench_run *run)
{
	uint64_t shards = 0, busy = 0;

	for (unsigned i = 0; i < run->n; i++) {
		shards = max_u64(shards, run->node[i].shards);
		busy = max_u64(busy, run->node[i].busy_poll_us);
	}
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "name",
	                 bench_placement_name[run->placement], "nodes",
	                 u64(run->n), "clients", u64(run->n), "threads",
	                 u64(run->threads), "shards", u64(shards),
	                 "busy_poll_us", u64(busy));
}

static json_t *floor_json(const struct bench_run *run)
{
	struct bench_floor_view v = bench_floor_view(run);

	return json_pack("{s:o, s:o, s:o, s:o}", "local_us", floor_us(v.local),
	                 "remote_us", floor_us(v.remote), "stream_bytes_per_s",
	                 real_or_null(v.stream), "threads",
	                 threads_json(v.threads));
}

static json_t *errors_json(const struct bench_run *run)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < run->n_kept; i++) {
		const struct bench_error *e = &run->error[i];

		if (json_array_append_new(
			    list,
			    json_pack("{s:s, s:s, s:o, s:o, s:i}", "name",
		                      bench_pattern_name[e->pattern], "space",
		                      e->space, "node", u64(e->node), "page",
		                      u64(e->wrong.page), "byte",
		                      (int)e->wrong.offset)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

json_t *bench_json(const struct bench_run *run)
{
	struct utsname u = { .release = "" };

	(void)uname(&u);
	return json_pack("{s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, "
	                 "s:o, s:o}",
	                 "schema", "memspan.bench/1", "version",
	                 MEMSPAN_VERSION, "kernel", u.release, "cpus",
	                 u64((uint64_t)sysconf(_SC_NPROCESSORS_ONLN)), "clock",
	                 "CLOCK_MONOTONIC", "seed", u64(run->seed), "placement",
	                 placement_json(run), "size_bytes",
	                 u64(run->size_bytes), "floor", floor_json(run),
	                 "integrity_errors", u64(run->errors), "errors",
	                 errors_json(run), "patterns", patterns_json(run));
}

/* --- .hgrm --------------------------------------------------------------- */

static int write_hist(const char *dir, const char *name, const struct hist *h,
                      struct errmsg *em)
{
	char path[4096];
	FILE *f;
	int r;

	if (!has(h))
		return 0;
	snprintf(path, sizeof(path), "%s/%s.hgrm", dir, name);
	f = fopen(path, "we");
	if (!f)
		return errmsg_set(em, -errno, "--hgrm: %s", path);
	r = hist_write_hgrm(h, f);
	if (fclose(f) != 0)
		r = -EIO;
	return r < 0 ? errmsg_set(em, r, "--hgrm: %s", path) : 0;
}

static int write_pattern(const struct bench_run *run, enum bench_pattern p,
                         const char *dir, struct errmsg *em)
{
	const struct bench_result *r = &run->result[p];
	const char *name = bench_pattern_name[p];
	char file[128];
	int e;

	snprintf(file, sizeof(file), "%s-floor-local", name);
	e = write_hist(dir, file, r->floor.local, em);
	snprintf(file, sizeof(file), "%s-floor-remote", name);
	if (e == 0)
		e = write_hist(dir, file, r->floor.remote, em);
	for (unsigned i = 0; i < run->n && e == 0; i++) {
		snprintf(file, sizeof(file), "%s-%u-local", name,
		         run->node[i].id);
		e = write_hist(dir, file, local_hist(p, &r->node[i]), em);
		snprintf(file, sizeof(file), "%s-%u-remote", name,
		         run->node[i].id);
		if (e == 0)
			e = write_hist(dir, file, r->node[i].remote, em);
	}
	return e;
}

/* capacity-75-0-fault.hgrm and the like. */
static int write_row(const struct bench_run *run, const struct bench_row *row,
                     const char *dir, struct errmsg *em)
{
	const struct bench_figures *f = &row->result.node[0];
	const struct {
		const char *class;
		const struct hist *h;
	} what[] = { { "fault", f->fault },
		     { "remote", f->remote },
		     { "refault", f->refault } };
	char file[128];
	int e = 0;

	for (size_t k = 0; k < ARRAY_SIZE(what) && e == 0; k++) {
		snprintf(file, sizeof(file), "%s-%u-%u-%s",
		         bench_pattern_name[BENCH_CAPACITY], row->percent,
		         run->node[0].id, what[k].class);
		e = write_hist(dir, file, what[k].h, em);
	}
	return e;
}

int bench_hgrm(const struct bench_run *run, const char *dir, struct errmsg *em)
{
	int r = 0;

	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		return errmsg_set(em, -errno, "--hgrm: %s", dir);
	for (unsigned p = 0; p < BENCH_PATTERNS && r == 0; p++)
		if (run->result[p].ran)
			r = write_pattern(run, (enum bench_pattern)p, dir, em);
	for (unsigned i = 0; i < BENCH_ROWS && r == 0; i++)
		r = write_row(run, &run->row[i], dir, em);
	return r;
}
