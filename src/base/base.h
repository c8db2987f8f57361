/* SPDX-License-Identifier: Apache-2.0 */
/*
 * House primitives: quantities, ownership of locals, errors with a reason.
 * Everything else in the tree may include this file; it includes nothing of
 * ours.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* --- quantities: the name carries the unit, the typedef carries the name -- */

typedef uint16_t node_id;  /* the coordinator's number for a node, from 0 */
typedef uint32_t space_id; /* the coordinator's number for a space, from 1 */
typedef uint64_t gpn_t;    /* page number within a space, counts PAGE_BYTES */
typedef uint64_t nsec_t;   /* CLOCK_MONOTONIC nanoseconds, or a duration */

#define NODES_MAX    1024u
#define NODE_NONE    ((node_id)0xffff)
#define PAGE_BYTES   4096u
#define EXTENT_PAGES 512u /* pages of an extent, the unit of placement */
#define RUN_PAGES    64u  /* pages that one message may name: bits of a mask */
#define STRIPES_MAX  64u  /* userfaultfds of one client and space */
#define SHARDS_MAX   16u

#define NSEC_PER_USEC 1000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC  1000000000ull

/* --- ownership of locals ------------------------------------------------- */

/*
 * A local marked AUTO*() is released when it leaves scope.  Hand it to someone
 * else with TAKE_*(), which leaves the "nothing" value behind, so a reader sees
 * the transfer where it happens.  `return -errno;` is safe: the value is read
 * before any cleanup runs.
 *
 * For a type with a destructor, its header says DEFINE_AUTO(struct x, x_free),
 * and a function that builds one says AUTO(x_free) struct x *x = NULL; which
 * is why every destructor takes NULL and half-built objects.
 */
#define AUTO_CLOSE       __attribute__((cleanup(auto_close)))
#define AUTO_FREE        __attribute__((cleanup(auto_free)))
#define AUTO(destructor) __attribute__((cleanup(auto_##destructor)))

#define DEFINE_AUTO(type, destructor)                  \
	static inline void auto_##destructor(type **p) \
	{                                              \
		destructor(*p);                        \
	}

#define TAKE_FD(fd)                \
	({                         \
		int taken_ = (fd); \
		(fd) = -1;         \
		taken_;            \
	})
#define TAKE_PTR(p)                     \
	({                              \
		typeof(p) taken_ = (p); \
		(p) = NULL;             \
		taken_;                 \
	})

static inline void auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void auto_free(void *pp)
{
	free(*(void **)pp);
}

/* --- errors -------------------------------------------------------------- */

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/*
 * Why something failed, in words, for the human who started the program.
 * Only set-up paths fill one in; the data path returns bare codes.
 */
struct errmsg {
	char text[512]; /* NUL-terminated, no newline; "" means nothing said */
};

/*
 * Say why, and return `r` unchanged, so that a failure is one statement:
 *
 *	return errmsg_set(em, -errno, "cannot open %s", path);
 *
 * The text becomes "cannot open /dev/kvm: Permission denied".  With r == 0 the
 * text stands alone.  `em` may be NULL: then nobody is listening and only `r`
 * is passed on.
 */
int errmsg_set(struct errmsg *em, int r, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

/* As errmsg_set(), but the text stands alone: `r` is not spelt out. */
int errmsg_say(struct errmsg *em, int r, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}
