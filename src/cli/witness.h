/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Witnesses: processes that attach a space, each through another node, and
 * write and read pages when told.
 *
 * What a client of memspan must expect can happen to them alone: a fault that
 * nobody answers, SIGBUS when their node is gone.  Whoever gives the orders
 * touches no page and waits for nothing without an end.
 */
#pragma once

#include <sys/types.h>

#include "base/base.h"

struct witness {
	pid_t pid; /* 0: not started, or gone */
	int sock;  /* -1: none */
};

#define WITNESS_NONE                 \
	{                            \
		.pid = 0, .sock = -1 \
	}

enum witness_outcome {
	WITNESS_OK = 0,
	WITNESS_FAILED, /* em says how; the witness may be gone */
	WITNESS_BARRED, /* starting: this user may not use that node; em says
	                   why */
};

/*
 * Start a witness that attaches `space` through `node_socket`.  `patience_ms`
 * is for each order as well.  On anything but WITNESS_OK, it is stopped.
 */
enum witness_outcome witness_start(struct witness *w, const char *node_socket,
                                   const char *space, unsigned patience_ms,
                                   struct errmsg *em);

/* Have it write all of page `page`, with contents that follow from `seed`. */
enum witness_outcome witness_write(struct witness *w, gpn_t page, uint64_t seed,
                                   unsigned patience_ms, struct errmsg *em);

/* Have it read all of the page and compare it with what was written so. */
enum witness_outcome witness_read(struct witness *w, gpn_t page, uint64_t seed,
                                  unsigned patience_ms, struct errmsg *em);

/* End it, and wait until it has.  Nothing if it was never started. */
void witness_stop(struct witness *w);
