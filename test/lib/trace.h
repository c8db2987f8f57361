/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces: which pages a program touches, in order.  Recorded by
 * tools/record-trace (test/traces/), or made up from a seed.
 */
#pragma once

#include "base/base.h"

struct trace {
	char name[32];
	bool recorded;
	uint32_t pages;  /* the footprint: they are numbered from 0 */
	uint32_t n;      /* visits */
	uint32_t *visit; /* n pages, each below `pages` */
};

/* Takes NULL.  Returns NULL. */
struct trace *trace_free(struct trace *t);
DEFINE_AUTO(struct trace, trace_free)

/*
 * Read what tools/record-trace wrote.  The caller owns *ret.  Returns 0,
 * -EPROTO if the text is none of its, or the errno of opening it.
 */
int trace_load(const char *path, struct trace **ret);

enum trace_kind {
	TRACE_ZIPF,     /* page k is as popular as 1 over k */
	TRACE_SCANNED,  /* the same; meanwhile scans of pages that only a later
	                   scan wants again */
	TRACE_LOOP,     /* all pages in order, again and again */
	TRACE_SHIFTING, /* zipf on a quarter of the pages, then on the next */
	TRACE_UNIFORM,  /* any page */
};
#define TRACE_KINDS 5u

/* Made from `seed`; the caller owns it.  NULL without memory. */
struct trace *trace_make(enum trace_kind kind, uint64_t seed);
