/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the floor's processes say to one another, in host byte order: they are
 * forks of one program.
 */
#pragma once

#include "base/base.h"

/* Client to handler, with `n` userfaultfds; answered by one byte. */
struct floor_watch {
	uint32_t n;
	uint32_t reserved;
	uint64_t base[STRIPES_MAX]; /* address of each one's first page */
	gpn_t first[STRIPES_MAX];   /* that page's number */
};

/*
 * Handler to peer, and back before the pages' bytes.  32 bytes is what one can
 * do with (which pages of what, and a number to tell answers apart); memspan's
 * header has 72.
 */
struct floor_request {
	uint64_t address; /* of the first page in the client */
	uint32_t uffd;    /* index of its userfaultfd */
	uint32_t pages;
	gpn_t page;
	uint64_t reserved;
};
static_assert(sizeof(struct floor_request) == 32, "32 bytes to 4,128");
