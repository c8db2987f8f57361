/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops that measure, over ordinary memory.  For a note we lend them a word
 * that a lane itself changes: the first of a page that it writes.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/bench_lane.h"
#include "cli/bench_pool.h"

#define PAGES 8u

static uint64_t memory[PAGES][BENCH_PAGE_WORDS];
static uint64_t list[PAGES], sample[PAGES];
static struct bench_wrongs wrongs;

static struct bench_lane lane(void)
{
	memset(&wrongs, 0, sizeof(wrongs));
	for (unsigned i = 0; i < PAGES; i++)
		list[i] = i;
	return (struct bench_lane){ .base = (char *)memory,
		                    .page = list,
		                    .n = PAGES,
		                    .seed = 3,
		                    .version = 1,
		                    .wrongs = &wrongs,
		                    .sample = sample,
		                    .room = PAGES };
}

static void on_the_floor_every_access_is_kept(void **state)
{
	struct bench_lane l = lane();

	(void)state;
	bench_lane_write(&l);
	assert_int_equal(l.accesses, PAGES);
	assert_int_equal(l.n_samples, PAGES);
	assert_true(l.end > 0);
}

static void without_a_note_of_a_fault_nothing_is_kept(void **state)
{
	static const _Atomic uint32_t note = 5 << 4 | LOCAL_REMOTE_READ;
	struct bench_lane l = lane();

	(void)state;
	l.note = &note;
	bench_lane_write(&l);
	assert_int_equal(l.accesses, PAGES);
	assert_int_equal(l.n_samples, 0);
	for (unsigned k = 0; k < BENCH_CLASSES; k++)
		assert_int_equal(l.faulted[k], 0);
}

static void a_note_that_changes_gives_the_class(void **state)
{
	struct bench_stamp s = { .seed = 3, .page = 5, .version = 1 };
	struct bench_lane l = lane();
	uint32_t class;

	(void)state;
	/* The node's part is played by the write to page 5 itself. */
	memset(memory, 0, sizeof(memory));
	l.note = (const _Atomic uint32_t *)(const void *)memory[5];
	class = (uint32_t)bench_word(&s) % BENCH_CLASSES;
	bench_lane_write(&l);
	assert_int_equal(l.n_samples, 1);
	assert_int_equal(sample[0] % BENCH_CLASSES, class);
	assert_int_equal(l.faulted[class], 1);
}

static void what_does_not_fit_is_counted_all_the_same(void **state)
{
	struct bench_lane l = lane();

	(void)state;
	l.room = 3;
	bench_lane_write(&l);
	assert_int_equal(l.n_samples, 3);
	assert_int_equal(l.faulted[0], PAGES);
}

static void reading_finds_wrong_words(void **state)
{
	struct bench_lane l = lane();

	(void)state;
	bench_lane_write(&l);
	l = lane();
	bench_lane_read(&l);
	assert_int_equal(wrongs.n, 0);
	memory[6][0]++;
	l = lane();
	bench_lane_read(&l);
	assert_int_equal(wrongs.n, 1);
	assert_int_equal(wrongs.v[0].page, 6);
	assert_int_equal(wrongs.v[0].got, wrongs.v[0].want + 1);
	/* A word alone says nothing about the rest of the page. */
	l = lane();
	bench_lane_verify(&l);
	assert_int_equal(wrongs.n, PAGES);
}

static void verifying_finds_wrong_bytes(void **state)
{
	struct bench_lane l = lane();

	(void)state;
	bench_lane_fill(&l);
	l = lane();
	bench_lane_verify(&l);
	assert_int_equal(wrongs.n, 0);
	((uint8_t *)memory[2])[4095] ^= 0x10;
	l = lane();
	bench_lane_verify(&l);
	assert_int_equal(wrongs.n, 1);
	assert_int_equal(wrongs.v[0].page, 2);
	assert_int_equal(wrongs.v[0].offset, 4095);
	assert_int_equal(wrongs.v[0].got, wrongs.v[0].want ^ 0x10);
}

/* Of page 0 all bytes, of page 3 the line whose turn it is. */
static void a_spot_check_reads_one_line_and_some_pages_whole(void **state)
{
	struct bench_lane l = lane();

	(void)state;
	bench_lane_fill(&l);
	((uint8_t *)memory[3])[3 * 64 + 1] ^= 0x10;
	((uint8_t *)memory[5])[4 * 64] ^= 0x10; /* another line's byte */
	((uint8_t *)memory[0])[4095] ^= 0x10;
	l = lane();
	bench_lane_spot(&l);
	assert_int_equal(l.accesses, PAGES);
	assert_int_equal(wrongs.n, 2);
	assert_int_equal(wrongs.v[0].page, 0);
	assert_int_equal(wrongs.v[0].offset, 4095);
	assert_int_equal(wrongs.v[1].page, 3);
	assert_int_equal(wrongs.v[1].offset, 3 * 64 + 1);
}

static void wrong_pages_beyond_what_is_kept_are_counted(void **state)
{
	struct bench_wrong w = { .page = 1 };

	(void)state;
	memset(&wrongs, 0, sizeof(wrongs));
	for (unsigned i = 0; i < 2 * BENCH_WRONG_KEPT; i++)
		bench_wrong_add(&wrongs, &w);
	assert_int_equal(wrongs.n, 2 * BENCH_WRONG_KEPT);
}

static uint64_t sum_of(const uint64_t *v, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += v[i];
	return sum;
}

/* --- threads ----------------------------------------------------------- */

#define THREADS 32u

static uint64_t shared[BENCH_SHARED_PAGES][BENCH_PAGE_WORDS];

static void threads_lose_no_increment(void **state)
{
	static uint64_t count[THREADS][BENCH_SHARED_PAGES];
	struct bench_pool pool = { 0 };
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(bench_pool_start(&pool, THREADS, &em), 0);
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < THREADS; i++)
			pool.lane[i] = (struct bench_lane){
				.base = (char *)shared,
				.seed = turn * THREADS + i,
				.count = count[i],
				.until = bench_now() + 20 * NSEC_PER_MSEC,
			};
		bench_pool_run(&pool, NULL, bench_lane_count);
	}
	bench_pool_stop(&pool);
	assert_true(sum_of(&count[0][0], THREADS * BENCH_SHARED_PAGES) > 0);
	for (unsigned p = 0; p < BENCH_SHARED_PAGES; p++) {
		uint64_t want = 0;

		for (unsigned i = 0; i < THREADS; i++)
			want += count[i][p];
		assert_int_equal(sum_of(shared[p], BENCH_PAGE_WORDS), want);
	}
}

static void a_pool_may_be_started_again(void **state)
{
	struct bench_pool pool = { 0 };
	struct errmsg em = { "" };

	(void)state;
	for (unsigned turn = 0; turn < 3; turn++) {
		assert_int_equal(bench_pool_start(&pool, 5, &em), 0);
		bench_pool_stop(&pool);
	}
	bench_pool_stop(&pool); /* none there: nothing to do */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_the_floor_every_access_is_kept),
		cmocka_unit_test(without_a_note_of_a_fault_nothing_is_kept),
		cmocka_unit_test(a_note_that_changes_gives_the_class),
		cmocka_unit_test(what_does_not_fit_is_counted_all_the_same),
		cmocka_unit_test(reading_finds_wrong_words),
		cmocka_unit_test(verifying_finds_wrong_bytes),
		cmocka_unit_test(
			a_spot_check_reads_one_line_and_some_pages_whole),
		cmocka_unit_test(wrong_pages_beyond_what_is_kept_are_counted),
		cmocka_unit_test(threads_lose_no_increment),
		cmocka_unit_test(a_pool_may_be_started_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
