/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What core/evict.h makes of whole programs: traces of test/traces/ and made-up
 * ones, beside policies that know more.  bench/evict.c prints the figures.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/replay.h"

static const uint32_t memory_percent[] = { 25, 50, 75 };
static const char *const recorded[] = { "cc1", "json", "sort", "sqlite" };

#define RECORDED ARRAY_SIZE(recorded)
#define TRACES   (RECORDED + TRACE_KINDS)

static struct trace *trace[TRACES];

static const char *path_of(const char *name)
{
	static char path[4096];
	const char *end = strstr(__FILE__, "test/unit/");

	/* __FILE__ is relative to the build directory, where tests run. */
	assert_non_null(end);
	snprintf(path, sizeof(path), "%.*stest/traces/%s.trace",
	         (int)(end - __FILE__), __FILE__, name);
	return path;
}

static int load_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < RECORDED; i++)
		assert_int_equal(trace_load(path_of(recorded[i]), &trace[i]),
		                 0);
	for (enum trace_kind k = 0; k < TRACE_KINDS; k++) {
		trace[RECORDED + k] = trace_make(k, 1);
		assert_non_null(trace[RECORDED + k]);
	}
	return 0;
}

static int free_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TRACES; i++)
		trace[i] = trace_free(trace[i]);
	return 0;
}

static struct replay_counts run(const struct trace *t,
                                enum replay_policy policy, uint32_t frames)
{
	struct replay_options o = replay_defaults(frames);
	struct replay_counts c = { 0 };

	assert_int_equal(replay(t, policy, &o, &c), 0);
	return c;
}

static uint32_t fetches(const struct trace *t, enum replay_policy policy,
                        unsigned memory)
{
	return run(t, policy, t->pages * memory_percent[memory] / 100).fetches;
}

/* `n` is at most so many percent of `of`. */
static void assert_below(uint32_t n, uint32_t percent, uint32_t of)
{
	if ((uint64_t)n * 100 > (uint64_t)of * percent)
		fail_msg("%u is more than %u %% of %u", n, percent, of);
}

/* --- the replay itself --------------------------------------------------- */

/* Belady's own example: FIFO has more misses with more memory. */
static void the_policies_are_what_they_are_called(void **state)
{
	static uint32_t visit[] = { 0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3, 4 };
	struct trace t = { .pages = 5, .n = ARRAY_SIZE(visit), .visit = visit };

	(void)state;
	assert_int_equal(run(&t, REPLAY_OPT, 3).fetches, 7 - 5);
	assert_int_equal(run(&t, REPLAY_LRU, 3).fetches, 10 - 5);
	assert_int_equal(run(&t, REPLAY_FIFO, 3).fetches, 9 - 5);
	assert_int_equal(run(&t, REPLAY_OPT, 4).fetches, 6 - 5);
	assert_int_equal(run(&t, REPLAY_LRU, 4).fetches, 8 - 5);
	assert_int_equal(run(&t, REPLAY_FIFO, 4).fetches, 10 - 5);
}

static void clock_spares_what_was_visited(void **state)
{
	static uint32_t visit[] = { 0, 1, 2, 0, 3, 0, 1, 3 };
	struct trace t = { .pages = 4, .n = ARRAY_SIZE(visit), .visit = visit };

	(void)state;
	/* 3 takes the place of 1, then 1 that of 2. */
	assert_int_equal(run(&t, REPLAY_CLOCK, 3).fetches, 1);
	/* 3 takes the place of 0, 0 that of 1, 1 that of 2. */
	assert_int_equal(run(&t, REPLAY_FIFO, 3).fetches, 2);
}

static int load_text(const char *text)
{
	static const char name[] = "trace-of-a-test";
	AUTO(trace_free) struct trace *t = NULL;
	FILE *f = fopen(name, "we");
	int r;

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	r = trace_load(name, &t);
	assert_int_equal(unlink(name), 0);
	if (r < 0)
		assert_null(t);
	else
		assert_int_equal(t->visit[t->n - 1], t->pages - 1);
	return r;
}

static void what_is_no_trace_is_refused(void **state)
{
	AUTO(trace_free) struct trace *t = NULL;

	(void)state;
	assert_int_equal(trace_load("there-is-no-such-file", &t), -ENOENT);
	/* 0, 40, 39, 40: +40 is two digits. */
	assert_int_equal(load_text("# by hand\n41 4\nAwC\nDC\n"), 0);
	assert_int_equal(load_text(""), -EPROTO);
	assert_int_equal(load_text("# nothing\n"), -EPROTO);
	assert_int_equal(load_text("0 0\n"), -EPROTO);
	assert_int_equal(load_text("41\nAwCDC\n"), -EPROTO);
	assert_int_equal(load_text("41 5\nAwCDC\n"), -EPROTO);
	assert_int_equal(load_text("40 4\nAwCDC\n"), -EPROTO);
	assert_int_equal(load_text("4 4\nADDD\n"), -EPROTO);
	assert_int_equal(load_text("2 3\nA?C\n"), -EPROTO);
	assert_int_equal(load_text("2 2\nwwwwwwwwwwwwwwwA\n"), -EPROTO);
	assert_int_equal(load_text("2 2000000\nAC\n"), -EPROTO);
}

/* --- what must hold of any policy ---------------------------------------- */

static void nobody_beats_the_one_who_knows_the_future(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TRACES; i++) {
		for (unsigned m = 0; m < ARRAY_SIZE(memory_percent); m++) {
			uint32_t opt = fetches(trace[i], REPLAY_OPT, m);

			for (enum replay_policy p = 0; p < REPLAY_POLICIES; p++)
				assert_true(fetches(trace[i], p, m) >= opt);
		}
	}
}

static void with_memory_for_all_nothing_is_fetched(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TRACES; i++) {
		for (enum replay_policy p = 0; p < REPLAY_POLICIES; p++) {
			struct replay_counts c =
				run(trace[i], p, trace[i]->pages);

			assert_int_equal(c.fetches, 0);
			assert_int_equal(c.staging, 0);
		}
	}
}

/* --- what ours is chosen for --------------------------------------------- */

static const struct trace *made(enum trace_kind k)
{
	return trace[RECORDED + k];
}

/* FIFO sees as much as ours does, but for the touches of staged pages. */
static void ours_fetches_less_than_fifo(void **state)
{
	(void)state;
	for (unsigned m = 0; m < ARRAY_SIZE(memory_percent); m++) {
		assert_below(fetches(made(TRACE_ZIPF), REPLAY_OURS, m), 85,
		             fetches(made(TRACE_ZIPF), REPLAY_FIFO, m));
		assert_below(fetches(made(TRACE_SCANNED), REPLAY_OURS, m), 80,
		             fetches(made(TRACE_SCANNED), REPLAY_FIFO, m));
	}
}

/* Some programs have no order that ours could see; FIFO's luck is theirs. */
static void ours_fetches_little_more_than_fifo_at_worst(void **state)
{
	(void)state;
	for (unsigned m = 0; m < ARRAY_SIZE(memory_percent); m++)
		for (unsigned i = 0; i < RECORDED; i++)
			assert_below(fetches(trace[i], REPLAY_OURS, m), 115,
			             fetches(trace[i], REPLAY_FIFO, m));
}

/* LRU sees every visit, ours next to none. */
static void ours_is_near_lru_on_programs(void **state)
{
	(void)state;
	for (unsigned m = 0; m < ARRAY_SIZE(memory_percent); m++) {
		for (unsigned i = 0; i < RECORDED; i++) {
			uint32_t lru = fetches(trace[i], REPLAY_LRU, m);

			assert_below(fetches(trace[i], REPLAY_OURS, m), 130,
			             lru + 12 * trace[i]->n / 1000);
		}
	}
}

static void a_scan_does_not_drive_out_what_is_wanted(void **state)
{
	(void)state;
	assert_below(fetches(made(TRACE_SCANNED), REPLAY_OURS, 0), 70,
	             fetches(made(TRACE_SCANNED), REPLAY_LRU, 0));
}

static void touches_of_staged_pages_are_few(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TRACES; i++) {
		for (unsigned m = 0; m < ARRAY_SIZE(memory_percent); m++) {
			uint32_t frames =
				trace[i]->pages * memory_percent[m] / 100;

			assert_below(run(trace[i], REPLAY_OURS, frames).staging,
			             6, trace[i]->n);
		}
	}
}

/* With one staged page there is next to no time to be touched in. */
static void touches_of_staged_pages_save_fetches(void **state)
{
	const struct trace *t = trace[0];

	(void)state;
	assert_string_equal(t->name, "cc1");
	for (unsigned m = 0; m < ARRAY_SIZE(memory_percent); m++) {
		struct replay_options o =
			replay_defaults(t->pages * memory_percent[m] / 100);
		struct replay_counts c;

		o.staged = 1;
		assert_int_equal(replay(t, REPLAY_OURS, &o, &c), 0);
		assert_below(fetches(t, REPLAY_OURS, m), 88, c.fetches);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_policies_are_what_they_are_called),
		cmocka_unit_test(clock_spares_what_was_visited),
		cmocka_unit_test(what_is_no_trace_is_refused),
		cmocka_unit_test(nobody_beats_the_one_who_knows_the_future),
		cmocka_unit_test(with_memory_for_all_nothing_is_fetched),
		cmocka_unit_test(ours_fetches_less_than_fifo),
		cmocka_unit_test(ours_fetches_little_more_than_fifo_at_worst),
		cmocka_unit_test(ours_is_near_lru_on_programs),
		cmocka_unit_test(a_scan_does_not_drive_out_what_is_wanted),
		cmocka_unit_test(touches_of_staged_pages_are_few),
		cmocka_unit_test(touches_of_staged_pages_save_fetches),
	};

	return cmocka_run_group_tests(tests, load_all, free_all);
}
