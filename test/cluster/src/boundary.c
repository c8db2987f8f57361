/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: boundary SOCKET SPACE PAGE KIND MILLISECONDS
 *
 * Store across the boundary behind PAGE, again and again: KIND is "word", an
 * unaligned 8-byte store, or "movs", rep movsb of 64 bytes.  One instruction
 * needs both pages at once, so two nodes that do this take them from each
 * other.
 *
 * Begins at a line on stdin; prints the number of stores and the longest time
 * that one took, in ns.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "tool.h"

#define MOVS_BYTES 64u

static void store_word(uint8_t *boundary, uint64_t value)
{
	__asm__ volatile("movq %1, (%0)"
	                 :
	                 : "r"(boundary - 3), "r"(value)
	                 : "memory");
}

static void store_movs(uint8_t *boundary, uint64_t value)
{
	uint8_t from[MOVS_BYTES];
	const void *s = from;
	void *d = boundary - MOVS_BYTES / 2;
	size_t n = sizeof(from);

	memset(from, (int)(value & 0xff), sizeof(from));
	__asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
}

int main(int argc, char **argv)
{
	uint64_t stores = 0, longest = 0, until, before;
	struct memspan *m;
	uint8_t *at;
	bool movs;
	char line[16];

	if (argc != 6)
		tool_die("usage: boundary SOCKET SPACE PAGE KIND MILLISECONDS");
	m = tool_attach(argv[1], argv[2]);
	at = (uint8_t *)memspan_addr(m) +
	     (tool_number(argv[3]) + 1) * PAGE_BYTES;
	movs = strcmp(argv[4], "movs") == 0;
	tool_say("ready");
	(void)tool_line(line, sizeof(line));
	before = tool_now_ns();
	until = before + tool_number(argv[5]) * 1000000u;
	while (before < until) {
		uint64_t now;

		if (movs)
			store_movs(at, stores);
		else
			store_word(at, stores);
		stores++;
		now = tool_now_ns();
		if (now - before > longest)
			longest = now - before;
		before = now;
	}
	tool_say("%" PRIu64 " %" PRIu64, stores, longest);
	memspan_detach(m);
	return 0;
}
