/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts of a mapping were unmapped: a small set of ranges, in no order.
 */

#include <errno.h>

#include "client/preload.h"

int parts_add(struct shim_parts *p, uintptr_t start, uintptr_t end)
{
	struct shim_parts left = { .n = 0 };

	/* Those that overlap or touch the new one become part of it. */
	for (unsigned i = 0; i < p->n; i++) {
		if (p->v[i].start > end || p->v[i].end < start) {
			left.v[left.n++] = p->v[i];
			continue;
		}
		start = min_u64(start, p->v[i].start);
		end = max_u64(end, p->v[i].end);
	}
	if (left.n == SHIM_PARTS_MAX)
		return -ENOSPC;
	left.v[left.n].start = start;
	left.v[left.n].end = end;
	left.n++;
	*p = left;
	return 0;
}

bool parts_cover(const struct shim_parts *p, uintptr_t start, uintptr_t end)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->v[i].start <= start && end <= p->v[i].end)
			return true;
	return false;
}
