/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: the memory behind a space on this node, and the pool of single pages
 * that no client maps.
 *
 * A space's memory is one memfd, sealed SHRINK, GROW and SEAL before anyone
 * gets it [A13], and our plain mapping of it, the *alias*.  The alias is read
 * only where the page table says that we hold the page: reading a hole would
 * allocate a zero page that clients then map.  It is never mlocked [A12].
 *
 * The pool lies in a memfd of its own (the state memfd): frozen and, later,
 * staged and provisional pages.  It is touched when it is made, so that taking
 * a frame cannot fail for want of memory.
 */
#pragma once

#include "base/base.h"

/* --- a space's memory ---------------------------------------------------- */

struct space_mem {
	int fd; /* sealed memfd */
	uint8_t *alias;
	uint64_t bytes;
};

int space_mem_init(const char *name, uint64_t bytes, struct space_mem *ret,
                   struct errmsg *em);
void space_mem_done(struct space_mem *m);

/* The bytes of a page that is held.  Do not call for a page that is not. */
static inline uint8_t *space_mem_page(const struct space_mem *m, gpn_t page)
{
	return m->alias + page * PAGE_BYTES;
}

/*
 * Fill a hole with `src` by one write(2) for the run, never through the alias:
 * a half-filled page would be visible to clients on old kernels [A3, A11].
 * Returns 0 or -errno (-ENOSPC, -ENOMEM): some pages of the run may be filled
 * then, the others are holes still.
 */
int space_mem_write(const struct space_mem *m, gpn_t first, uint32_t pages,
                    const void *src);
/* Free the run's memory.  Every client was write-protected before. */
int space_mem_punch(const struct space_mem *m, gpn_t first, uint32_t pages);
/* Bytes of memory behind the space now: st_blocks * 512. */
uint64_t space_mem_resident(const struct space_mem *m);

/* --- the pool ------------------------------------------------------------ */

struct frame_pool;

int frame_pool_new(uint32_t frames, struct frame_pool **ret, struct errmsg *em);
struct frame_pool *frame_pool_free(struct frame_pool *p);
DEFINE_AUTO(struct frame_pool, frame_pool_free)
#define FRAME_NONE 0u
/* A frame's number (> 0), or FRAME_NONE when all are taken. */
uint32_t frame_take(struct frame_pool *p);
void frame_give(struct frame_pool *p, uint32_t frame);
uint8_t *frame_bytes(const struct frame_pool *p, uint32_t frame);
uint32_t frame_free_count(const struct frame_pool *p);
int frame_pool_fd(const struct frame_pool *p);
/* False if RLIMIT_MEMLOCK forbids it: worth a warning to the operator. */
bool frame_pool_locked(const struct frame_pool *p);
