/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemons of one run directory: start them, find them, stop them.
 *
 * Whoever serves there has a pid file there, written by itself: coordinator.pid
 * or node-ID.pid.  A process is signalled only through a pidfd taken while its
 * pid file was proven to name it, so never a stranger with the same number.
 */
#pragma once

#include <limits.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/base.h"
#include "cli/cluster.h"

#define DAEMON_COORDINATOR (-1)

struct daemon {
	int id; /* of the node, or DAEMON_COORDINATOR */
	pid_t pid;
	int pidfd;                /* -1: none, or no longer running */
	char log[RUN_PATH_BYTES]; /* "" where we did not start it */
};

struct daemons {
	struct daemon *v; /* nodes by id, the coordinator last */
	size_t n, room;
};

/* "node 3" or "coordinator". */
#define DAEMON_NAME_BYTES 24u
char *daemon_name(const struct daemon *d, char buf[DAEMON_NAME_BYTES]);

void daemons_done(struct daemons *d);

/*
 * Find who runs in `run_dir`.  Returns 0, also if there is no such directory;
 * -EACCES if it may not be read; -ENOMEM.
 */
int daemons_find(const char *run_dir, struct daemons *ret, struct errmsg *em);

/*
 * Remove what the dead have left in `run_dir`: pid files, sockets nobody
 * answers on and, if no coordinator runs, coordinator.url.  Logs and the store
 * stay.
 */
void daemons_clean(const char *run_dir);

/* --- starting ------------------------------------------------------------ */

/*
 * Where program `name` lies: beside this one, or where both are installed.
 * Returns 0, or -ENOENT with what to do in em.
 */
int daemon_program(const char *name, char path[PATH_MAX], struct errmsg *em);

/*
 * Run `argv`, argv[0] being a path, as a daemon: a session of its own, no
 * stdin, what it prints in the file `log`, which is emptied first, no
 * descriptor or signal setting of ours.  `id` is noted.  Returns 0 or -errno;
 * that the program cannot be run shows as its end, with the reason in its log.
 */
int daemon_start(int id, const char *const argv[], const char *log,
                 struct daemon *ret, struct errmsg *em);

/*
 * Has it ended?  If it was started by us, how is said in `how` ("exit status
 * 1", "signal 9 (Killed)").  pidfd is closed then.
 */
#define DAEMON_HOW_BYTES 48u
bool daemon_ended(struct daemon *d, char how[DAEMON_HOW_BYTES]);

/* Print the last `lines` lines of its log, indented; nothing if it is empty. */
void daemon_log_tail(const struct daemon *d, unsigned lines, FILE *f);

/* --- stopping ------------------------------------------------------------ */

/*
 * Ask `n` daemons to stop, all at once, and wait until they have; after
 * `patience_ms` kill those left, with a message of `cli` for each.  Returns 0,
 * or the number of those that may not be signalled or did not even die.
 */
unsigned daemons_stop(const struct cli *cli, struct daemon *v, size_t n,
                      unsigned patience_ms);

/* Wait until one of them ends, `ms` have passed or a signal comes. */
void daemons_watch(const struct daemon *v, size_t n, int ms);
