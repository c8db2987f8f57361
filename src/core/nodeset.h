/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of nodes: one bit each, room for NODES_MAX.  128 bytes; lives in pooled
 * transactions and in actions, never in a directory entry.
 */
#pragma once

#include <string.h>

#include "base/base.h"

#define NODESET_WORDS (NODES_MAX / 64)

struct nodeset {
	uint64_t w[NODESET_WORDS];
};

static inline bool nodeset_has(const struct nodeset *s, node_id n)
{
	assert(n < NODES_MAX);
	return (s->w[n / 64] >> (n % 64) & 1) != 0;
}

static inline void nodeset_add(struct nodeset *s, node_id n)
{
	assert(n < NODES_MAX);
	s->w[n / 64] |= 1ull << (n % 64);
}

static inline void nodeset_remove(struct nodeset *s, node_id n)
{
	assert(n < NODES_MAX);
	s->w[n / 64] &= ~(1ull << (n % 64));
}

static inline void nodeset_clear(struct nodeset *s)
{
	memset(s, 0, sizeof(*s));
}

static inline bool nodeset_empty(const struct nodeset *s)
{
	for (unsigned i = 0; i < NODESET_WORDS; i++)
		if (s->w[i] != 0)
			return false;
	return true;
}

static inline unsigned nodeset_count(const struct nodeset *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NODESET_WORDS; i++)
		n += (unsigned)__builtin_popcountll(s->w[i]);
	return n;
}

/* The first member at or after `from`, or NODE_NONE. */
static inline node_id nodeset_next(const struct nodeset *s, unsigned from)
{
	for (unsigned i = from / 64; i < NODESET_WORDS; i++) {
		uint64_t w = s->w[i];

		if (i == from / 64)
			w &= ~0ull << (from % 64);
		if (w != 0)
			return (node_id)(i * 64 + (unsigned)__builtin_ctzll(w));
	}
	return NODE_NONE;
}

/* for (node_id n = first; n != NODE_NONE; ...) over every member of `s`. */
#define NODESET_FOREACH(n, s)                                  \
	for (node_id n = nodeset_next((s), 0); n != NODE_NONE; \
	     n = nodeset_next((s), n + 1u))
