/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: stir SOCKET SPACE SEED
 *
 * Takes pages away from whoever uses them, and changes nothing: adds zero to a
 * word of each, atomically, which needs the page writable here.  Says "ready";
 * for each line "pass" touches all pages once, in an order of its own, and says
 * "passed PAGES".
 */

#include <stdatomic.h>
#include <string.h>

#include "tool.h"

int main(int argc, char **argv)
{
	uint64_t pages, seed, at;
	struct memspan *m;
	uint8_t *base;
	char line[16];

	if (argc != 4)
		tool_die("usage: stir SOCKET SPACE SEED");
	m = tool_attach(argv[1], argv[2]);
	base = memspan_addr(m);
	pages = memspan_bytes(m) / PAGE_BYTES;
	seed = tool_number(argv[3]) | 1;
	tool_say("ready");
	while (tool_line(line, sizeof(line)) == 0) {
		/* A prime, and more than there are pages: each comes once. */
		const uint64_t step = 0x9e3779b1u;

		if (strcmp(line, "pass") != 0)
			tool_die("'%s' is no order", line);
		at = tool_random(&seed) % pages;
		for (uint64_t n = 0; n < pages; n++) {
			atomic_fetch_add(
				(_Atomic uint64_t *)(void *)(base +
			                                     at * PAGE_BYTES),
				0);
			at = (at + step) % pages;
		}
		tool_say("passed %lu", (unsigned long)pages);
	}
	memspan_detach(m);
	return 0;
}
