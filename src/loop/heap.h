/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The started timers of one loop, the earliest first: a binary heap of borrowed
 * pointers.  Each timer knows its place (index), so that moving and stopping
 * one needs no search.  Private to loop/.
 */
#pragma once

#include "loop/loop.h"

struct timer_heap {
	uint32_t n;
	struct loop_timer *slot[LOOP_TIMERS_MAX]; /* slot[i]->index == i + 1 */
};

/* Put `t`, which is not in the heap, where t->at says; t->index becomes set. */
void heap_put(struct timer_heap *h, struct loop_timer *t);

/* Take `t`, which is in the heap, out; t->index becomes 0. */
void heap_take(struct timer_heap *h, struct loop_timer *t);

/* The timer with the smallest `at`, or NULL. */
struct loop_timer *heap_first(const struct timer_heap *h);
