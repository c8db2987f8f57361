/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring memory: a buffer that is mapped twice, back to back, so that any piece
 * of it up to its whole size is contiguous, wherever it begins.
 *
 * Positions are the owner's: bytes since some start, of which ring_at() takes
 * the remainder.
 */
#pragma once

#include "base/base.h"

struct ring {
	uint8_t *base; /* NULL: not mapped */
	size_t bytes;  /* a power of two, and a multiple of PAGE_BYTES */
};

/*
 * Map a ring.  Its pages are zero, and taken by the kernel when first touched.
 * Returns 0, or -errno with *ret untouched: -ENOMEM, -EMFILE, -ENFILE.
 */
int ring_init(struct ring *ret, size_t bytes);

/* Unmap.  Does nothing to a ring that is not mapped. */
void ring_done(struct ring *ring);

static inline uint8_t *ring_at(const struct ring *ring, uint64_t position)
{
	return ring->base + (position & (ring->bytes - 1));
}
