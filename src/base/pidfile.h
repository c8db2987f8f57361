/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pid files: which process serves here, such that nobody else is ever
 * signalled in its place.
 *
 * A pid file holds one line, "PID START", where START is field 22 of
 * /proc/PID/stat: the time, in clock ticks since boot, at which that process
 * began.  A pid that was used again for another process has another START, so
 * its file is *stale*: as good as none.
 *
 * Any thread.  Names are paths; nothing is kept between calls.
 */
#pragma once

#include <sys/types.h>

#include "base/base.h"

/*
 * Write a pid file for the calling process.  It appears complete or not at all,
 * and takes the place of a stale one.  Returns 0; -EEXIST if the file names a
 * living process, which may be the caller; else -errno.  After a failure the
 * file is as it was, and em (may be NULL) says why.
 */
int pidfile_write(const char *path, struct errmsg *em);

/*
 * Which living process does the file name?  Sets *pid, and *pidfd (may be NULL)
 * to a descriptor for pidfd_send_signal(2) and poll(2), which refers to that
 * very process for good and which the caller closes.  Returns 0; -ENOENT if
 * there is no file; -ESRCH if it is stale; -EINVAL if it is not a pid file;
 * else -errno.
 */
int pidfile_open(const char *path, pid_t *pid, int *pidfd);

/* Remove the file if it names the calling process; else leave it alone. */
void pidfile_remove(const char *path);
