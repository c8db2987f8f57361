/* SPDX-License-Identifier: Apache-2.0 */
/* The options of memspan-node: memspan-node(8). */
#pragma once

#include "node/node.h"

enum config_outcome {
	CONFIG_RUN = 0,
	CONFIG_DONE = 1,  /* --help or --version: exit 0 */
	CONFIG_USAGE = 2, /* used wrongly, and said so: exit 2 */
};

/*
 * Read the command line, and the file that it names.  Prints what --help asks
 * for, and what is wrong.  Returns an outcome.
 */
enum config_outcome config_read(struct node_config *cfg, int argc, char **argv);
