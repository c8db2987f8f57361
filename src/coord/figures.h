/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures: what a node says of itself with each renewal of its lease.
 *
 * They are soft: kept in memory, a third of a lease old at most while the node
 * lives, and gone when the coordinator restarts until the next renewal.
 */
#pragma once

#include "base/base.h"

/* A pebibyte: more than a host has, and far from overflow in any sum. */
#define MEMORY_BYTES_MAX (1ull << 50)

struct space_figure {
	space_id id;
	uint64_t clients;
	uint64_t written_pages, evicted_pages, under_replicated_pages;
	uint64_t missing_pages, lost_pages;
};

struct figures {
	uint64_t pid; /* 0: not said yet */
	uint64_t resident_bytes, lent_bytes, borrowed_bytes, overhead_bytes;
	/* What of resident_bytes is no pages: buffers, while the node lives. */
	uint64_t fixed_bytes;
	bool has_capacity; /* the next two were said */
	uint64_t capacity_bytes, room_pages;
	/* Faults that wait for a frame; evictions that no peer took, ever. */
	uint64_t waiting, refused;
	struct {
		uint64_t first_touch, remote_read, remote_write, upgrade;
		uint64_t refault, prefetched;
	} faults;
	uint64_t wakeups, threads, clients;
	char metrics_url[128]; /* "": none */
	char *peers; /* [{"id","connected"}...] as HTTP shows it; NULL: none */
	struct space_figure *spaces;
	size_t n_spaces;
};

void figures_done(struct figures *f); /* leaves all zeros */

/*
 * Read a LEASE document (wire/control.h).  A field that is not there is 0, one
 * that we do not know is passed over: a newer node may say more.  Returns 0
 * with *f replaced, or -EPROTO, -ENOMEM with *f as it was.
 */
int figures_read(struct figures *f, const void *text, size_t bytes,
                 struct errmsg *em);
