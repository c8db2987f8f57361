/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cli/cluster.h"

int rundir_make(const char *run_dir, struct errmsg *em)
{
	struct stat st;

	if (mkdir(run_dir, 0755) == 0) {
		/* Whatever the umask: clients of other users look in here. */
		if (chmod(run_dir, 0755) == 0)
			return 0;
		return errmsg_set(em, -errno, "cannot open %s to others",
		                  run_dir);
	}
	if (errno != EEXIST)
		return errmsg_set(em, -errno,
		                  "cannot make the run directory %s", run_dir);
	if (stat(run_dir, &st) < 0)
		return errmsg_set(em, -errno, "cannot use %s", run_dir);
	if (!S_ISDIR(st.st_mode))
		return errmsg_say(em, -ENOTDIR,
		                  "%s is no directory; name another with "
		                  "--run-dir DIR",
		                  run_dir);
	return 0;
}

int rundir_lock(const char *run_dir, bool make, struct errmsg *em)
{
	char path[RUN_PATH_BYTES];
	AUTO_CLOSE int fd =
		open(run_path(run_dir, ".lock", path),
	             O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600);

	if (fd < 0 && errno == ENOENT)
		return errmsg_set(em, -ENOENT, "cannot lock %s", path);
	if (fd < 0)
		return errmsg_set(em, -errno, "cannot write in %s", run_dir);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return TAKE_FD(fd);
	if (errno == EWOULDBLOCK)
		return errmsg_say(
			em, -EBUSY,
			"another 'memspan up' or 'memspan down' is at "
			"work in %s; wait for it",
			run_dir);
	return errmsg_set(em, -errno, "cannot lock %s", path);
}

int rundir_set_aside_store(const char *run_dir, struct errmsg *em)
{
	/*
	 * SQLite finds the log by the name of its file, so all of them move,
	 * those of before the last time first out of the way.
	 */
	static const char *const tails[] = { "", "-wal", "-shm" };
	char from[RUN_PATH_BYTES], to[RUN_PATH_BYTES], file[40];

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		snprintf(file, sizeof(file), "coordinator.db.old%s", tails[i]);
		(void)unlink(run_path(run_dir, file, to));
	}
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		snprintf(file, sizeof(file), "coordinator.db%s", tails[i]);
		run_path(run_dir, file, from);
		snprintf(file, sizeof(file), "coordinator.db.old%s", tails[i]);
		run_path(run_dir, file, to);
		if (rename(from, to) < 0 && errno != ENOENT)
			return errmsg_set(em, -errno,
			                  "cannot put %s aside; remove it",
			                  from);
	}
	return 0;
}
