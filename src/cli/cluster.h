/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which cluster is meant, and what of it lies on this machine.
 *
 * First found wins: --coordinator URL; coordinator.url in --run-dir;
 * $MEMSPAN_COORDINATOR; coordinator.url in the default run directory;
 * http://127.0.0.1:7070.
 */
#pragma once

#include "base/base.h"
#include "cli/cli.h"
#include "cli/http.h"

/* The longest name of a Unix socket is 107 bytes, "/node-1023.sock" is 15. */
#define RUN_DIR_BYTES     92u
#define CLUSTER_URL_BYTES 256u

#define CLUSTER_URL_DEFAULT "http://127.0.0.1:7070"

struct cluster {
	char run_dir[RUN_DIR_BYTES]; /* absolute; "" if there is none */
	char url[CLUSTER_URL_BYTES];
	const char *source; /* who named the URL: "--coordinator", ... */
};

/*
 * The run directory that `cli` means: --run-dir made absolute, or the default,
 * /run/memspan for root and $XDG_RUNTIME_DIR/memspan for others.  It need not
 * exist.  Returns 0; -ENOENT if others have no $XDG_RUNTIME_DIR;
 * -ENAMETOOLONG, since sockets must fit in it.
 */
int cluster_run_dir(const struct cli *cli, char ret[RUN_DIR_BYTES],
                    struct errmsg *em);

/* Settle which cluster `cli` means.  Returns 0, or as cluster_run_dir(). */
int cluster_find(const struct cli *cli, struct cluster *ret, struct errmsg *em);

/*
 * For commands that ask: settle which cluster, and make the client for it.
 * Returns 0, or the command's exit status with the message printed.
 */
int cluster_open(const struct cli *cli, struct cluster *ret,
                 struct http **http);

/* The path of FILE in a run directory. */
#define RUN_PATH_BYTES 128u
char *run_path(const char *run_dir, const char *file, char buf[RUN_PATH_BYTES]);
/* "node-ID.sock" and the like. */
char *run_path_node(const char *run_dir, unsigned id, const char *suffix,
                    char buf[RUN_PATH_BYTES]);
