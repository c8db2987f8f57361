/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the stories about the holder side are told: a step's actions as text.
 *
 * With the number of a frame where one is named; `frozen`: the bytes are those
 * of the frame that was frozen.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/page.h"

static const char *const action_name[] = {
	[PAGE_SEND_GET_S] = "get_s",
	[PAGE_SEND_GET_X] = "get_x",
	[PAGE_SEND_ACK] = "ack",
	[PAGE_SEND_ACK_DATA] = "ack_data",
	[PAGE_SEND_NOT_HELD] = "not_held",
	[PAGE_INSTALL_S] = "install_s",
	[PAGE_INSTALL_M] = "install_m",
	[PAGE_INSTALL_ZERO] = "install_zero",
	[PAGE_KEEP_BYTES] = "keep_bytes",
	[PAGE_UNPROTECT] = "unprotect",
	[PAGE_MAP] = "map",
	[PAGE_WAIT] = "wait",
	[PAGE_PROTECT] = "protect",
	[PAGE_FREEZE] = "freeze",
	[PAGE_PUNCH] = "punch",
	[PAGE_DEFER] = "defer",
	[PAGE_POISON] = "poison",
	[PAGE_TOUCH_AGAIN] = "touch_again",
	[PAGE_SEND_EVICT] = "evict",
	[PAGE_FILL] = "fill",
	[PAGE_INSTALL_BACK] = "install_back",
	[PAGE_FREEZE_FRAME] = "freeze_frame",
	[PAGE_RELEASE] = "release",
};

static struct page_entry page;
static uint32_t now_us;
static bool write_access, thread_waits, more, store;
static uint32_t frame;
static uint32_t thread_us;
static uint16_t thread;
static uint8_t cap;

static inline int start(void **state)
{
	(void)state;
	page = (struct page_entry){ 0 };
	now_us = 1000000;
	write_access = thread_waits = more = store = false;
	frame = 0;
	thread_us = 0;
	thread = 0;
	cap = 0;
	return 0;
}

/* Feed one event, now; return the actions as "protect, freeze", or "EPROTO". */
static const char *feed(enum page_event_kind kind, bool deferred)
{
	static char text[256];
	struct page_event ev = { .kind = kind,
		                 .write = write_access,
		                 .store = store,
		                 .more = more,
		                 .deferred = deferred,
		                 .thread_waits = thread_waits,
		                 .thread_us = thread_us,
		                 .now_us = now_us,
		                 .frame = frame,
		                 .thread = thread,
		                 .cap = cap };
	struct page_entry before = page;
	struct page_actions out;
	size_t at = 0;

	if (page_handle(&page, &ev, &out) < 0) {
		assert_int_equal(out.n, 0);
		assert_memory_equal(&before, &page, sizeof(page));
		return "EPROTO";
	}
	if (out.n == 0)
		return "-";
	for (uint32_t i = 0; i < out.n; i++) {
		const struct page_action *a = &out.v[i];

		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s",
		                       i > 0 ? ", " : "", action_name[a->kind],
		                       a->frozen ? " frozen" : "");
		if (a->frame != 0)
			at += (size_t)snprintf(text + at, sizeof(text) - at,
			                       " %u", a->frame);
		if (a->kind == PAGE_DEFER)
			at += (size_t)snprintf(text + at, sizeof(text) - at,
			                       " %u", a->until_us - now_us);
		assert_true(at < sizeof(text));
	}
	return text;
}

static inline const char *step(enum page_event_kind kind)
{
	now_us += 10000; /* residencies are over */
	return feed(kind, false);
}

static inline const char *later(enum page_event_kind kind, uint32_t us)
{
	now_us += us;
	return feed(kind, false);
}

static inline const char *again(enum page_event_kind kind, uint32_t us)
{
	now_us += us;
	return feed(kind, true);
}

static inline const char *reads(void)
{
	write_access = false;
	return step(PAGE_TOUCH);
}

static inline const char *writes(void)
{
	write_access = true;
	return step(PAGE_TOUCH);
}

#define STEP(kind, what) assert_string_equal(step(kind), what)
#define READS(what)      assert_string_equal(reads(), what)
#define WRITES(what)     assert_string_equal(writes(), what)

static inline void hold_s(void)
{
	READS("wait, get_s");
	STEP(PAGE_GRANT_S, "install_s");
	assert_int_equal(page.state, PAGE_S);
}

static inline void hold_m(void)
{
	WRITES("wait, get_x");
	STEP(PAGE_GRANT_X, "install_m");
	assert_int_equal(page.state, PAGE_M);
}

static inline void get_lost(void)
{
	READS("wait, get_s");
	STEP(PAGE_GRANT_LOST, "poison");
	assert_int_equal(page.state, PAGE_LOST);
}
