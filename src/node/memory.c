/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counter behind --memory; memory.h has the rules.
 *
 * The reserve is 1/64 of the limit and at least 256 frames [B2]; the low mark
 * is a quarter of that below the high one, so that evicting comes in batches.
 * On a node so small that its pools leave less than twice the reserve, half of
 * what there is.
 */

#include "node/memory.h"

#define RESERVE_PART 64u
#define RESERVE_MIN  256u

void memory_init(struct memory *m, uint64_t limit_bytes)
{
	*m = (struct memory){ .limit_pages = limit_bytes / PAGE_BYTES };
}

void memory_fix(struct memory *m, int64_t bytes)
{
	int64_t pages = bytes / (int64_t)PAGE_BYTES;

	(void)atomic_fetch_add_explicit(&m->fixed_pages, (uint64_t)pages,
	                                memory_order_relaxed);
}

uint64_t memory_budget(const struct memory *m)
{
	uint64_t fixed =
		atomic_load_explicit(&m->fixed_pages, memory_order_relaxed);

	return fixed < m->limit_pages ? m->limit_pages - fixed : 0;
}

static uint64_t reserve_of(const struct memory *m)
{
	uint64_t r = max_u64(m->limit_pages / RESERVE_PART, RESERVE_MIN);

	return min_u64(r, memory_budget(m) / 2);
}

uint64_t memory_high(const struct memory *m)
{
	return memory_budget(m) - reserve_of(m);
}

/* The mark for others: high, less what may have to come back. */
static uint64_t spare_of(const struct memory *m)
{
	uint64_t staged =
		atomic_load_explicit(&m->staged_pages, memory_order_relaxed);
	uint64_t high = memory_high(m);

	return staged < high ? high - staged : 0;
}

static uint64_t mark_of(const struct memory *m, enum memory_mark mark)
{
	switch (mark) {
	case MEMORY_SPARE:
		return spare_of(m);
	case MEMORY_HIGH:
		return memory_high(m);
	case MEMORY_BUDGET:
		break;
	}
	return memory_budget(m);
}

bool memory_take(struct memory *m, uint64_t pages, enum memory_mark mark)
{
	uint64_t top = mark_of(m, mark);
	uint64_t was =
		atomic_load_explicit(&m->used_pages, memory_order_relaxed);

	do {
		if (was + pages > top)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&m->used_pages, &was, was + pages, memory_order_relaxed,
		memory_order_relaxed));
	return true;
}

void memory_force(struct memory *m)
{
	(void)atomic_fetch_add_explicit(&m->used_pages, 1,
	                                memory_order_relaxed);
}

void memory_give(struct memory *m, uint64_t pages)
{
	uint64_t was = atomic_fetch_sub_explicit(&m->used_pages, pages,
	                                         memory_order_relaxed);

	assert(was >= pages);
}

void memory_staged(struct memory *m, bool is)
{
	uint64_t was;

	if (is) {
		(void)atomic_fetch_add_explicit(&m->staged_pages, 1,
		                                memory_order_relaxed);
		return;
	}
	was = atomic_fetch_sub_explicit(&m->staged_pages, 1,
	                                memory_order_relaxed);
	assert(was > 0);
}

uint64_t memory_used(const struct memory *m)
{
	return atomic_load_explicit(&m->used_pages, memory_order_relaxed);
}

uint64_t memory_excess(const struct memory *m)
{
	uint64_t used = memory_used(m);
	uint64_t high = memory_high(m);

	return used > high ? used - high + reserve_of(m) / 4 : 0;
}

uint64_t memory_room(const struct memory *m)
{
	uint64_t used = memory_used(m), top = spare_of(m);

	return used < top ? top - used : 0;
}
