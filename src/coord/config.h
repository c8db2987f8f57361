/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the coordinator was told: by its command line, then by a file, else the
 * defaults.
 */
#pragma once

#include "base/base.h"

#define LEASE_MS_DEFAULT 2000u
#define LEASE_MS_MIN     100u
#define LEASE_MS_MAX     3600000u
#define PATH_BYTES       4096u

struct address {
	char host[64]; /* numeric, without brackets */
	uint16_t port; /* 0: any free one */
};

struct config {
	struct address listen, node_listen;
	char store[PATH_BYTES];
	char run_dir[PATH_BYTES - 64];
	uint64_t lease_ms; /* 0: not said */
	uint64_t missing_grace_ms, link_patience_ms;
	bool log_json;
	bool insecure;
};

enum config_outcome {
	CONFIG_RUN = 0,
	CONFIG_DONE = 1,  /* --help or --version: exit 0 */
	CONFIG_USAGE = 2, /* used wrongly, and said so: exit 2 */
};

/*
 * Read the command line, and the file that it names.  Prints what --help asks
 * for, and what is wrong.  Returns an outcome.
 */
int config_read(struct config *cfg, int argc, char **argv);
