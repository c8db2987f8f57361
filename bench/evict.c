/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evict: how often a page would be fetched back from a peer, by policy.
 *
 *	evict [--choices] [TRACE...]
 *
 * Replays the traces (as tools/record-trace writes them; test/traces/ has some)
 * and made-up ones with memory for 25, 50 and 75 % of the pages.  Prints
 * fetches for 1,000 visits, first visits not counted, of each policy; for ours
 * also the visits of pages that were staged, which cost less.
 *
 * With --choices: ours alone, with other sizes of its queues.  Prints how much
 * LRU's fetches are exceeded, as the geometric mean over all of it: by fetches,
 * and by what they and the touches of staged pages cost together.
 *
 * docs/performance.md says what followed from it.
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/evict.h"
#include "replay.h"

#define SEED       1u
#define TRACES_MAX 32u

/* A fault that is served here, over one that is served by a peer. */
#define STAGING_COST 0.4

static const uint32_t memory_percent[] = { 25, 50, 75 };

#define MEMORIES ARRAY_SIZE(memory_percent)

static struct trace *trace[TRACES_MAX];
static unsigned n_traces;

static uint32_t frames_of(const struct trace *t, unsigned memory)
{
	return t->pages * memory_percent[memory] / 100;
}

static struct replay_counts run(const struct trace *t,
                                enum replay_policy policy,
                                const struct replay_options *o)
{
	struct replay_counts c;

	if (replay(t, policy, o, &c) < 0) {
		fprintf(stderr, "evict: no memory\n");
		exit(1);
	}
	return c;
}

static void print_cell(const uint32_t n[MEMORIES], const struct trace *t)
{
	const char *between = " ";

	for (unsigned m = 0; m < MEMORIES; m++) {
		double v = 1000.0 * n[m] / t->n;

		printf("%s%.*f", between, v < 10 ? 1 : 0, v);
		between = ", ";
	}
	printf(" |");
}

static void compare_policies(const struct trace *t)
{
	uint32_t fetches[MEMORIES], staging[MEMORIES];

	printf("| %s, %u pages |", t->name, t->pages);
	for (enum replay_policy p = 0; p < REPLAY_POLICIES; p++) {
		for (unsigned m = 0; m < MEMORIES; m++) {
			struct replay_options o =
				replay_defaults(frames_of(t, m));
			struct replay_counts c = run(t, p, &o);

			fetches[m] = c.fetches;
			staging[m] = c.staging;
		}
		print_cell(fetches, t);
	}
	print_cell(staging, t);
	printf("\n");
}

/* One row; the sizes mean something to ours alone. */
static void compare_to_lru(const char *name, enum replay_policy policy,
                           uint32_t small_percent, uint32_t staged_part)
{
	double by_fetches = 0, by_cost = 0, n = n_traces * MEMORIES;

	for (unsigned i = 0; i < n_traces * MEMORIES; i++) {
		const struct trace *t = trace[i / MEMORIES];
		uint32_t frames = frames_of(t, i % MEMORIES);
		struct replay_options o = { .frames = frames,
			                    .small_percent = small_percent,
			                    .staged = frames / staged_part };
		struct replay_counts c = run(t, policy, &o);
		double lru = run(t, REPLAY_LRU, &o).fetches;

		by_fetches += log(c.fetches / lru);
		by_cost += log((c.fetches + STAGING_COST * c.staging) / lru);
	}
	printf("| %s | %.2f | %.2f |\n", name, exp(by_fetches / n),
	       exp(by_cost / n));
}

static void compare_choices(void)
{
	static const uint32_t percent[] = { 5, 10, 20 };
	static const uint32_t part[] = { 32, 16, 8 };
	char name[64];

	printf("| small, staged | fetches | cost |\n|---|---|---|\n");
	for (unsigned i = 0; i < ARRAY_SIZE(percent); i++) {
		for (unsigned j = 0; j < ARRAY_SIZE(part); j++) {
			snprintf(name, sizeof(name), "%u %%, 1/%u", percent[i],
			         part[j]);
			compare_to_lru(name, REPLAY_OURS, percent[i], part[j]);
		}
	}
	compare_to_lru("CLOCK", REPLAY_CLOCK, 0, 1);
	compare_to_lru("FIFO", REPLAY_FIFO, 0, 1);
}

static void load_traces(int n, char *const path[])
{
	for (; n_traces < (unsigned)n && n_traces < TRACES_MAX; n_traces++) {
		if (trace_load(path[n_traces], &trace[n_traces]) < 0) {
			fprintf(stderr, "evict: %s is no trace\n",
			        path[n_traces]);
			exit(1);
		}
	}
	for (enum trace_kind k = 0; k < TRACE_KINDS && n_traces < TRACES_MAX;
	     k++) {
		trace[n_traces] = trace_make(k, SEED);
		if (!trace[n_traces])
			exit(1);
		n_traces++;
	}
}

int main(int argc, char **argv)
{
	bool choices = argc > 1 && strcmp(argv[1], "--choices") == 0;

	load_traces(argc - 1 - choices, argv + 1 + choices);
	if (choices) {
		compare_choices();
	} else {
		printf("| trace | OPT | LRU | CLOCK | FIFO | ours | staging |\n"
		       "|---|---|---|---|---|---|---|\n");
		for (unsigned i = 0; i < n_traces; i++)
			compare_policies(trace[i]);
	}
	for (unsigned i = 0; i < n_traces; i++)
		trace_free(trace[i]);
	return 0;
}
