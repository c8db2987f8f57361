/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a policy of eviction would have made of a trace: how often a page would
 * have been fetched back from a peer.
 */
#pragma once

#include "trace.h"

enum replay_policy {
	REPLAY_OPT,   /* Belady's: who is wanted last goes.  Knows the future;
	                 no other has fewer misses */
	REPLAY_LRU,   /* sees every visit */
	REPLAY_CLOCK, /* second chance: sees if a page was visited at all */
	REPLAY_FIFO,  /* sees misses alone */
	REPLAY_OURS, /* core/evict.h: sees misses and touches of staged pages */
};
#define REPLAY_POLICIES 5u

struct replay_options {
	uint32_t frames;        /* 1.. */
	uint32_t small_percent; /* ours: as in struct evict_config */
	uint32_t staged;        /* ours: 1..frames */
};

struct replay_counts {
	uint32_t fetches; /* visits of a page that had been evicted */
	uint32_t staging; /* ours: visits of a page that was staged */
};

/* What memspan-node uses. */
struct replay_options replay_defaults(uint32_t frames);

/* Returns 0, or -ENOMEM. */
int replay(const struct trace *t, enum replay_policy policy,
           const struct replay_options *o, struct replay_counts *ret);
