/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What --memory counts: where the marks lie, who may take up to which, and that
 * several threads together never take more than there is.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/prng.h"
#include "node/memory.h"

#define MIB      (1ull << 20)
#define THREADS  4u
#define STEPS    20000u
#define HOLD_MAX 16u

static void take(struct memory *m, uint64_t pages)
{
	assert_true(memory_take(m, pages, MEMORY_BUDGET));
}

static uint64_t used(struct memory *m)
{
	return atomic_load(&m->used_pages);
}

/* --- marks ------------------------------------------------------------- */

static void the_reserve_is_a_64th_and_at_least_256_frames(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 1024 * MIB);
	assert_int_equal(memory_budget(&m), 262144);
	assert_int_equal(memory_high(&m), 262144 - 4096);
	memory_init(&m, 64 * MIB);
	assert_int_equal(memory_budget(&m), 16384);
	assert_int_equal(memory_high(&m), 16384 - 256);
	memory_init(&m, 32 * MIB);
	assert_int_equal(memory_high(&m), 8192 - 256);
}

static void pools_and_sessions_come_off_for_good(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	memory_fix(&m, 8 * MIB);
	assert_int_equal(memory_budget(&m), 14336);
	assert_int_equal(memory_high(&m), 14336 - 256);
	/* A peer that left gives back what its session took. */
	memory_fix(&m, 12345);
	memory_fix(&m, -12345);
	assert_int_equal(memory_budget(&m), 14336);
	memory_fix(&m, -(int64_t)(8 * MIB));
	assert_int_equal(memory_budget(&m), 16384);
}

static void what_is_tiny_is_halved(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	memory_fix(&m, 63 * MIB);
	assert_int_equal(memory_budget(&m), 256);
	assert_int_equal(memory_high(&m), 128);
	memory_fix(&m, MIB - PAGE_BYTES);
	assert_int_equal(memory_budget(&m), 1);
	assert_int_equal(memory_high(&m), 1);
}

static void pools_beyond_the_limit_leave_nothing(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	memory_fix(&m, 65 * MIB);
	assert_int_equal(memory_budget(&m), 0);
	assert_int_equal(memory_high(&m), 0);
	assert_int_equal(memory_room(&m), 0);
	assert_false(memory_take(&m, 1, MEMORY_BUDGET));
	/* What would be lost otherwise is taken all the same. */
	memory_force(&m);
	assert_int_equal(memory_excess(&m), 1);
	memory_give(&m, 1);
	assert_int_equal(memory_excess(&m), 0);
}

/* --- taking ------------------------------------------------------------ */

static void what_can_be_done_without_stops_at_the_high_mark(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	assert_true(memory_take(&m, memory_high(&m), MEMORY_HIGH));
	assert_false(memory_take(&m, 1, MEMORY_HIGH));
	assert_true(memory_take(&m, 256, MEMORY_BUDGET));
	assert_false(memory_take(&m, 1, MEMORY_BUDGET));
	assert_int_equal(used(&m), 16384);
	memory_give(&m, 257);
	assert_true(memory_take(&m, 1, MEMORY_HIGH));
	assert_false(memory_take(&m, 1, MEMORY_HIGH));
}

static void a_run_is_taken_whole_or_not_at_all(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	take(&m, 16384 - 63);
	assert_false(memory_take(&m, 64, MEMORY_BUDGET));
	assert_int_equal(used(&m), 16384 - 63);
	take(&m, 63);
}

static void force_passes_every_mark(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	take(&m, 16384);
	memory_force(&m);
	assert_int_equal(used(&m), 16385);
	assert_false(memory_take(&m, 1, MEMORY_BUDGET));
	assert_int_equal(memory_room(&m), 0);
}

/* --- what is told of it ------------------------------------------------ */

static void evicting_comes_in_batches(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	take(&m, memory_high(&m));
	assert_int_equal(memory_excess(&m), 0);
	/* One page too many, and a quarter of the reserve has to go. */
	take(&m, 1);
	assert_int_equal(memory_excess(&m), 1 + 64);
	take(&m, 255);
	assert_int_equal(memory_excess(&m), 256 + 64);
}

static void room_ends_where_stores_are_refused(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	assert_int_equal(memory_room(&m), 16128);
	take(&m, 16000);
	assert_int_equal(memory_room(&m), 128);
	assert_true(memory_take(&m, memory_room(&m), MEMORY_HIGH));
	assert_int_equal(memory_room(&m), 0);
	assert_int_equal(memory_excess(&m), 0);
	take(&m, 100);
	assert_int_equal(memory_room(&m), 0);
}

static void a_session_more_may_leave_too_little(void **state)
{
	struct memory m;

	(void)state;
	memory_init(&m, 64 * MIB);
	take(&m, 16128);
	assert_int_equal(memory_excess(&m), 0);
	/* The limit counts the session from now on: pages have to go. */
	memory_fix(&m, MIB);
	assert_int_equal(memory_excess(&m), 256 + 64);
	assert_false(memory_take(&m, 1, MEMORY_BUDGET));
}

/* --- threads ----------------------------------------------------------- */

struct worker {
	pthread_t thread;
	struct memory *m;
	uint64_t seed;
	uint64_t above; /* times that it saw more in use than there is */
	uint64_t taken, refused;
};

/* Take and give runs as a shard does, never more than HOLD_MAX of them. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t run[HOLD_MAX] = { 0 };
	struct prng rng;

	prng_init(&rng, w->seed);
	for (unsigned i = 0; i < STEPS; i++) {
		uint64_t *r = &run[prng_below(&rng, HOLD_MAX)];
		enum memory_mark mark =
			prng_below(&rng, 2) == 0 ? MEMORY_HIGH : MEMORY_BUDGET;

		if (*r > 0) {
			memory_give(w->m, *r);
			*r = 0;
			continue;
		}
		*r = 1 + prng_below(&rng, 64);
		if (memory_take(w->m, *r, mark)) {
			w->taken++;
		} else {
			w->refused++;
			*r = 0;
		}
		w->above += used(w->m) > memory_budget(w->m);
	}
	for (unsigned i = 0; i < HOLD_MAX; i++)
		memory_give(w->m, run[i]);
	return NULL;
}

static void threads_together_never_take_more_than_there_is(void **state)
{
	struct worker w[THREADS] = { 0 };
	uint64_t taken = 0, refused = 0;
	struct memory m;

	(void)state;
	/* So little that what the threads want at once does not fit. */
	memory_init(&m, MIB);
	for (unsigned i = 0; i < THREADS; i++) {
		w[i].m = &m;
		w[i].seed = i;
		assert_int_equal(
			pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
		assert_int_equal(w[i].above, 0);
		taken += w[i].taken;
		refused += w[i].refused;
	}
	assert_int_equal(used(&m), 0);
	assert_true(taken > 0);
	assert_true(refused > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reserve_is_a_64th_and_at_least_256_frames),
		cmocka_unit_test(pools_and_sessions_come_off_for_good),
		cmocka_unit_test(what_is_tiny_is_halved),
		cmocka_unit_test(pools_beyond_the_limit_leave_nothing),
		cmocka_unit_test(
			what_can_be_done_without_stops_at_the_high_mark),
		cmocka_unit_test(a_run_is_taken_whole_or_not_at_all),
		cmocka_unit_test(force_passes_every_mark),
		cmocka_unit_test(evicting_comes_in_batches),
		cmocka_unit_test(room_ends_where_stores_are_refused),
		cmocka_unit_test(a_session_more_may_leave_too_little),
		cmocka_unit_test(
			threads_together_never_take_more_than_there_is),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
