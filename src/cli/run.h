/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a program that was not written for memspan with the memory of spaces:
 * what `memspan run` and its like have in common.
 *
 *	struct run run = { 0 };
 *	run_node(&cli, node, &run, &em);       which node serves it
 *	run_space(&run, "demo", &em);          descriptor 200, 201 ...
 *	status = run_exec(&run, argv, &em);    returns only if it cannot
 *
 * The program finds each space's memory as an open descriptor, whose path is
 * /proc/self/fd/200, and the shim preloaded, which serves what is mapped of it
 * (client/preload.h).  Beside each stands the connection through which the
 * memory was got: while a process of the program's has it open, the space is in
 * use and cannot be deleted.
 */
#pragma once

#include <limits.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/cluster.h"

#define RUN_FD         200 /* of the first space */
#define RUN_SPACES_MAX 16u
/* The connection of space i has the descriptor RUN_FD + RUN_SPACES_MAX + i. */

/* Exit statuses, as a shell has them. */
enum { RUN_CANNOT = 126, RUN_NOT_FOUND = 127 };

struct run {
	char socket[RUN_PATH_BYTES]; /* of the node */
	unsigned n;                  /* spaces */
	struct run_space {
		const char *name; /* borrowed */
		uint64_t bytes;
	} space[RUN_SPACES_MAX];
};

/*
 * Find the node: `node`, a name or number, or else $MEMSPAN_NODE (unless
 * --run-dir is given), or else the only one that runs in the run directory.
 * Returns 0 with run->socket, or -errno with what to do.
 */
int run_node(const struct cli *cli, const char *node, struct run *run,
             struct errmsg *em);

/*
 * Get one more space's memory, under the next descriptor.  Returns 0;
 * -EINVAL if there are too many or it is named twice; else -errno.
 */
int run_space(struct run *run, const char *name, struct errmsg *em);

/*
 * Become the program argv[0], NULL at the end, with what run_space() got.
 * Returns only if that fails: RUN_NOT_FOUND or RUN_CANNOT, with why.
 */
int run_exec(const struct run *run, char *const argv[], struct errmsg *em);
