/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's pages, and each call of core/evict.h as a shell would make it: with
 * a copy of the page.  What a call says is held against what must be true of
 * the pages then.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/evict.h"

#define KEYS 4096u

static struct evict_page pages[KEYS];
static uint64_t seq[KEYS]; /* when it came to the tail of its queue */
static uint64_t n_seq;
static struct evict_config cfg;
static struct evict *ev;
static void *mem;

static uint8_t get_mark(void *arg, uint32_t key)
{
	(void)arg;
	return key < KEYS ? pages[key].mark : 0;
}

static void set_mark(void *arg, uint32_t key, uint8_t mark)
{
	(void)arg;
	assert_true(mark < EVICT_MARKS);
	if (key < KEYS)
		pages[key].mark = mark;
}

static inline void start(uint32_t frames, uint32_t staged)
{
	cfg = (struct evict_config){ .frames = frames,
		                     .staged = staged,
		                     .small_percent = EVICT_SMALL_PERCENT,
		                     .mark = get_mark,
		                     .set_mark = set_mark };
	memset(pages, 0, sizeof(pages));
	n_seq = 0;
	free(mem);
	mem = malloc(evict_bytes(&cfg));
	assert_non_null(mem);
	/* What was there before must not matter. */
	memset(mem, 0xa5, evict_bytes(&cfg));
	ev = evict_init(&cfg, mem);
}

static inline int finish(void **state)
{
	(void)state;
	free(mem);
	mem = NULL;
	return 0;
}

static inline void in(uint32_t key)
{
	struct evict_page p = pages[key];

	evict_in(ev, key, &p);
	pages[key] = p;
	seq[key] = ++n_seq;
}

static inline void gone(uint32_t key)
{
	evict_gone(ev, &pages[key]);
	assert_int_equal(evict_where(&pages[key]), EVICT_NOWHERE);
}

static inline void touched(uint32_t key)
{
	struct evict_page p = pages[key];

	evict_touched(ev, key, &p);
	pages[key] = p;
	seq[key] = ++n_seq;
}

static inline void back(uint32_t key)
{
	struct evict_page p = pages[key];

	evict_back(ev, key, &p);
	pages[key] = p;
	seq[key] = ++n_seq;
}

static inline bool reused(uint32_t key)
{
	unsigned q = evict_where(&pages[key]);

	return (pages[key].mark & 2u << q) != 0;
}

/* Who came to this queue before `key` did must have gone before it. */
static inline void assert_first_of(enum evict_queue q, uint32_t key)
{
	for (uint32_t k = 0; k < KEYS; k++)
		if (evict_where(&pages[k]) == q && !reused(k))
			assert_true(seq[k] >= seq[key]);
}

static inline enum evict_outcome answer(bool out, uint32_t key,
                                        enum evict_answer a)
{
	struct evict_page p = pages[key];
	enum evict_queue q = evict_where(&p);
	bool was_reused = reused(key);
	enum evict_outcome outcome;

	outcome = out ? evict_out(ev, key, &p, a) : evict_take(ev, key, &p, a);
	if (outcome == EVICT_TAKEN) {
		assert_false(was_reused);
		assert_first_of(q, key);
		assert_int_equal(evict_where(&p),
		                 out ? EVICT_NOWHERE : EVICT_STAGING);
	} else if (a != EVICT_UNKNOWN && outcome == EVICT_SKIPPED) {
		assert_int_equal(evict_where(&p), q);
	}
	pages[key] = p;
	if (outcome != EVICT_SKIPPED)
		seq[key] = ++n_seq;
	return outcome;
}

static inline enum evict_outcome take(uint32_t key, enum evict_answer a)
{
	uint32_t head = KEYS;

	assert_true(evict_next(ev, &head));
	assert_int_equal(head, key);
	return answer(false, key, a);
}

static inline enum evict_outcome out(uint32_t key, enum evict_answer a)
{
	uint32_t head = KEYS;

	assert_true(evict_oldest(ev, &head));
	assert_int_equal(head, key);
	return answer(true, key, a);
}

#define TAKE(key, a, outcome) assert_int_equal(take(key, a), outcome)
#define OUT(key, a, outcome)  assert_int_equal(out(key, a), outcome)

static inline void assert_nothing_next(void)
{
	uint32_t key = 77;

	assert_false(evict_next(ev, &key));
	assert_int_equal(key, 77);
}

static inline void assert_nothing_staged(void)
{
	uint32_t key = 77;

	assert_false(evict_oldest(ev, &key));
	assert_int_equal(key, 77);
}

static inline void assert_counts(uint32_t small, uint32_t main, uint32_t staged)
{
	assert_int_equal(evict_count(ev, EVICT_SMALL), small);
	assert_int_equal(evict_count(ev, EVICT_MAIN), main);
	assert_int_equal(evict_count(ev, EVICT_STAGING), staged);
	assert_int_equal(evict_resident(ev), small + main + staged);
	evict_check_all(ev);
}

/* `key`, the head, is staged and touched: a way into main. */
static inline void promote(uint32_t key)
{
	evict_round(ev);
	TAKE(key, EVICT_TAKE, EVICT_TAKEN);
	touched(key);
	assert_int_equal(evict_where(&pages[key]), EVICT_MAIN);
}
