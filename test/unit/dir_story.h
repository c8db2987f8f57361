/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the stories about the directory are told: a step's actions as text.
 *
 * Node 0 is the home.  Sets of nodes are in braces; *: with the event's bytes;
 * !: granted writable though only a read was asked; +: an UPGRADE will follow;
 * -: nothing to do.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/dir.h"

static const char *const action_name[] = {
	[DIR_SEND_GRANT_S] = "grant_s",   [DIR_SEND_GRANT_X] = "grant_x",
	[DIR_SEND_GRANT_ZERO] = "zero",   [DIR_SEND_UPGRADE] = "upgrade",
	[DIR_SEND_LOST] = "lost",         [DIR_SEND_REFUSED] = "refused",
	[DIR_SEND_AGAIN] = "again",       [DIR_SEND_DISCARDED] = "discarded",
	[DIR_SEND_RECALL_S] = "recall_s", [DIR_SEND_RECALL_X] = "recall_x",
	[DIR_SEND_INVAL] = "inval",       [DIR_KEEP] = "keep",
	[DIR_FORGET] = "forget",          [DIR_SEND_DROP] = "drop",
	[DIR_SEND_STAY] = "stay",
};

static _Alignas(64) uint8_t memory[64 << 10];
static struct dir *dir;
static struct dir_entry page;
static uint32_t now_us;

static inline void start_with(uint32_t n_txn, uint32_t n_set)
{
	struct dir_config cfg = { .self = 0, .n_txn = n_txn, .n_set = n_set };

	assert_true(dir_bytes(&cfg) <= sizeof(memory));
	dir = dir_init(&cfg, memory);
	page = (struct dir_entry){ 0 };
	now_us = 1000000;
}

static inline int start(void **state)
{
	(void)state;
	start_with(4, 2);
	return 0;
}

struct text {
	char s[512];
	size_t n;
};

static void say(struct text *t, const char *fmt, unsigned x)
{
	t->n += (size_t)snprintf(t->s + t->n, sizeof(t->s) - t->n, fmt, x);
	assert_true(t->n < sizeof(t->s));
}

static void say_nodes(struct text *t, const struct nodeset *s)
{
	const char *fmt = "{%u";

	NODESET_FOREACH(n, s)
	{
		say(t, fmt, n);
		fmt = " %u";
	}
	say(t, "}", 0);
}

static void say_action(struct text *t, const struct dir_actions *out,
                       const struct dir_action *a)
{
	say(t, t->n > 0 ? ", " : "", 0);
	say(t, action_name[a->kind], 0);
	say(t, a->event_bytes ? "*" : "", 0);
	say(t, a->migrate ? "!" : "", 0);
	say(t, a->more ? "+" : "", 0);
	say(t, " ", 0);
	if (a->node == NODE_NONE)
		say_nodes(t, &out->sets[a->set]);
	else
		say(t, "%u", a->node);
	if (a->kind == DIR_SEND_RECALL_X) {
		if (a->requester == NODE_NONE)
			say(t, " for nobody", 0);
		else
			say(t, " for %u", a->requester);
	}
	if (a->number != 0)
		say(t, " frame %u", (unsigned)a->number);
	if (a->kind == DIR_SEND_GRANT_X)
		say(t, " of %u", a->requester);
}

/* Feed one event; return the actions as "inval {1 3}", "-" or "EPROTO". */
static const char *feed(const struct dir_event *ev)
{
	static struct text t;
	struct dir_entry before = page;
	struct dir_actions out;

	t.n = 0;
	t.s[0] = '\0';
	if (dir_handle(dir, &page, ev, &out) < 0) {
		assert_int_equal(out.n, 0);
		assert_memory_equal(&before, &page, sizeof(page));
		return "EPROTO";
	}
	for (uint32_t i = 0; i < out.n; i++)
		say_action(&t, &out, &out.v[i]);
	return t.n > 0 ? t.s : "-";
}

static const char *step(enum dir_event_kind kind, node_id from)
{
	now_us += 1000; /* residencies are over, unless a test says so */
	return feed(&(struct dir_event){
		.kind = kind, .from = from, .now_us = now_us });
}

static const char *data(node_id from, uint64_t number)
{
	return feed(&(struct dir_event){ .kind = DIR_ACK_DATA,
	                                 .from = from,
	                                 .number = number,
	                                 .now_us = now_us });
}

static inline const char *data_kept(node_id from, uint64_t number)
{
	return feed(&(struct dir_event){ .kind = DIR_ACK_DATA,
	                                 .from = from,
	                                 .number = number,
	                                 .may_keep = true,
	                                 .now_us = now_us });
}

static inline const char *prefetch(enum dir_event_kind kind, node_id from,
                                   bool home_ready)
{
	now_us += 1000;
	return feed(&(struct dir_event){ .kind = kind,
	                                 .from = from,
	                                 .prefetch = true,
	                                 .home_ready = home_ready,
	                                 .now_us = now_us });
}

static inline const char *holders(void)
{
	static struct text t;
	struct nodeset s;

	t.n = 0;
	dir_holders(dir, &page, &s);
	if (nodeset_empty(&s))
		return "{}";
	say_nodes(&t, &s);
	return t.s;
}

#define STEP(kind, from, what) assert_string_equal(step(kind, from), what)
#define STATE(s, h)                                    \
	do {                                           \
		assert_int_equal(dir_state(&page), s); \
		assert_string_equal(holders(), h);     \
	} while (0)

/* 1 writes, 2 reads, and so on: {1 2} hold it, the home has no copy. */
static inline void shared_by_1_and_2(void)
{
	STEP(DIR_GET_S, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	assert_string_equal(data(1, 0), "grant_s* {2}");
	STATE(DIR_SHARED, "{1 2}");
}

/* {0 1 2} hold it. */
static inline void shared_with_home(void)
{
	STEP(DIR_GET_X, 1, "zero 1");
	STEP(DIR_GET_S, 2, "recall_s 1");
	assert_string_equal(data_kept(1, 0), "grant_s* {2}, keep 0");
	STATE(DIR_SHARED, "{0 1 2}");
}
