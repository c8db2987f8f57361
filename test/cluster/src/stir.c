/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: stir SOCKET SPACE SEED
 *
 * Takes pages away from whoever uses them, and changes nothing: adds zero to a
 * word of each, atomically, which needs the page writable here.  Says "ready";
 * for each line "pass N" does so with the next N pages, in an order of its own
 * that comes to each page once before it comes to one again, and says
 * "passed N".
 */

#include <stdatomic.h>
#include <string.h>

#include "tool.h"

int main(int argc, char **argv)
{
	/* A prime, and more than there are pages: it comes to each of them. */
	const uint64_t step = 0x9e3779b1u;
	uint64_t pages, at;
	struct memspan *m;
	uint8_t *base;
	char line[32];

	if (argc != 4)
		tool_die("usage: stir SOCKET SPACE SEED");
	m = tool_attach(argv[1], argv[2]);
	base = memspan_addr(m);
	pages = memspan_bytes(m) / PAGE_BYTES;
	at = tool_number(argv[3]) % pages;
	tool_say("ready");
	while (tool_line(line, sizeof(line)) == 0) {
		uint64_t n;

		if (strncmp(line, "pass ", 5) != 0)
			tool_die("'%s' is no order", line);
		n = tool_number(line + 5);
		for (uint64_t i = 0; i < n; i++) {
			atomic_fetch_add(
				(_Atomic uint64_t *)(void *)(base +
			                                     at * PAGE_BYTES),
				0);
			at = (at + step) % pages;
		}
		tool_say("passed %lu", (unsigned long)n);
	}
	memspan_detach(m);
	return 0;
}
