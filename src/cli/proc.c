/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* Read a small file of /proc/PID.  Returns whether there was anything. */
static bool read_proc(pid_t pid, const char *file, char *buf, size_t bytes)
{
	AUTO_CLOSE int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, bytes - 1);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	return true;
}

char *proc_name(pid_t pid, char buf[PROC_NAME_BYTES])
{
	if (!read_proc(pid, "comm", buf, PROC_NAME_BYTES))
		strcpy(buf, "?");
	buf[strcspn(buf, "\n")] = '\0';
	return buf;
}

int proc_cpu_ns(pid_t pid, nsec_t *ret)
{
	unsigned long user, system;
	char buf[1024], *p;

	if (!read_proc(pid, "stat", buf, sizeof(buf)))
		return -ESRCH;
	/* The name may hold blanks and brackets; it ends at the last one. */
	p = strrchr(buf, ')');
	if (!p || sscanf(p + 1,
	                 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
	                 &user, &system) != 2)
		return -ESRCH;
	*ret = (user + system) * (NSEC_PER_SEC / (nsec_t)sysconf(_SC_CLK_TCK));
	return 0;
}
