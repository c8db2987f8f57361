/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In place of cmd_bench.c where the benchmark is not built.
 */

#include <stdio.h>

#include "cli/cli.h"

int cmd_bench(int argc, char **argv)
{
	(void)argc;
	fprintf(stderr, "%s: this build has no benchmark\n", argv[0]);
	return CLI_FAILED;
}
