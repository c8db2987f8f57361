/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct memspan *tool_attach(const char *socket, const char *space)
{
	struct memspan *m = NULL;
	char why[512] = "";
	int r = memspan_attach(socket, space, 0, &m, why, sizeof(why));

	if (r == 0)
		return m;
	fprintf(stderr, "attach: %s: %s\n", strerror(-r), why);
	exit(4);
}
