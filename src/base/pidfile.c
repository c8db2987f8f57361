/* SPDX-License-Identifier: Apache-2.0 */

#include "base/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>

#define STAT_BYTES 1024 /* field 22 comes within the first 500 */

struct identity {
	pid_t pid;
	unsigned long long start; /* clock ticks since boot */
};

/* Read a small file whole.  Returns its length, or -errno. */
static ssize_t slurp(const char *path, char *buf, size_t bytes)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, bytes - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return n;
}

/* When did process `pid` begin?  Returns 0, or -ESRCH if there is none. */
static int start_of(pid_t pid, unsigned long long *start)
{
	char path[64], stat[STAT_BYTES];
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (slurp(path, stat, sizeof(stat)) < 0)
		return -ESRCH;
	/* Field 2 is the program's name and may hold blanks and brackets. */
	p = strrchr(stat, ')');
	if (!p)
		return -ESRCH;
	/* A zombie serves nobody; only its parent has not asked yet. */
	if (p[1] != '\0' && (p[2] == 'Z' || p[2] == 'X'))
		return -ESRCH;
	if (sscanf(p + 1,
	           " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s"
	           " %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
	           start) != 1)
		return -ESRCH;
	return 0;
}

static int read_identity(const char *path, struct identity *id)
{
	char text[64];
	ssize_t n = slurp(path, text, sizeof(text));
	int pid, end;

	if (n < 0)
		return (int)n;
	if (sscanf(text, "%d %llu\n%n", &pid, &id->start, &end) != 2 ||
	    pid <= 0 || end != n)
		return -EINVAL;
	id->pid = pid;
	return 0;
}

int pidfile_open(const char *path, pid_t *pid, int *pidfd)
{
	AUTO_CLOSE int fd = -1;
	struct identity id;
	unsigned long long start;
	int r;

	r = read_identity(path, &id);
	if (r < 0)
		return r;
	/*
	 * First the descriptor, then the check: from here on the pid may be
	 * used again, but not for what the descriptor refers to.
	 */
	fd = pidfd_open(id.pid, 0);
	if (fd < 0)
		return -errno;
	r = start_of(id.pid, &start);
	if (r < 0)
		return r;
	if (start != id.start)
		return -ESRCH;
	*pid = id.pid;
	if (pidfd)
		*pidfd = TAKE_FD(fd);
	return 0;
}

/* Write our line into a new file at `path`, which nobody else knows of. */
static int write_own(const char *path)
{
	AUTO_CLOSE int fd = -1;
	unsigned long long start;
	char text[64];
	int n, r;

	r = start_of(getpid(), &start);
	if (r < 0)
		return r;
	n = snprintf(text, sizeof(text), "%d %llu\n", (int)getpid(), start);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)n) == n)
		return 0;
	(void)unlink(path);
	return -ENOSPC;
}

/*
 * The directory's lock is held from the look at the old file until the new one
 * is in its place, so of two that find the same stale file one comes second,
 * and finds the other alive.
 */
static int lock_directory(const char *path)
{
	AUTO_CLOSE int fd = -1;
	char copy[PATH_MAX];

	if (strlen(path) >= sizeof(copy))
		return -ENAMETOOLONG;
	strcpy(copy, path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int pidfile_write(const char *path, struct errmsg *em)
{
	AUTO_CLOSE int lock = lock_directory(path);
	char fresh[PATH_MAX + 8];
	pid_t pid;
	int r;

	if (lock < 0)
		return errmsg_set(em, lock, "cannot lock the directory of %s",
		                  path);
	r = pidfile_open(path, &pid, NULL);
	if (r == 0)
		return errmsg_say(em, -EEXIST,
		                  "process %d, named in %s, runs already",
		                  (int)pid, path);
	/* What is no pid file was not written by us: leave it be. */
	if (r != -ENOENT && r != -ESRCH)
		return errmsg_set(em, r, "cannot use %s as a pid file", path);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	r = write_own(fresh);
	if (r < 0)
		return errmsg_set(em, r, "cannot write %s", fresh);
	if (rename(fresh, path) < 0) {
		r = -errno;
		(void)unlink(fresh);
		return errmsg_set(em, r, "cannot write %s", path);
	}
	return 0;
}

void pidfile_remove(const char *path)
{
	pid_t pid;

	if (pidfile_open(path, &pid, NULL) == 0 && pid == getpid())
		(void)unlink(path);
}
