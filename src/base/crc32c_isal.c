/* SPDX-License-Identifier: Apache-2.0 */

#include <isa-l/crc.h>
#include <limits.h>

#include "base/crc32c.h"

uint32_t crc32c_more(uint32_t crc, const void *p, size_t bytes)
{
	/* ISA-L only reads, though its prototype has no const. */
	unsigned char *b = (unsigned char *)(uintptr_t)p;

	crc = ~crc;
	while (bytes > 0) {
		int n = bytes < INT_MAX ? (int)bytes : INT_MAX;

		crc = crc32_iscsi(b, n, crc);
		b += n;
		bytes -= (size_t)n;
	}
	return ~crc;
}
