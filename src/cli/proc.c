/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

char *proc_name(pid_t pid, char buf[PROC_NAME_BYTES])
{
	AUTO_CLOSE int fd = -1;
	ssize_t n = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, buf, PROC_NAME_BYTES - 1);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	if (buf[0] == '\0')
		strcpy(buf, "?");
	return buf;
}

int proc_cpu_ns(pid_t pid, nsec_t *ret)
{
	struct timespec t;
	clockid_t clock;

	/* In ns; what /proc/PID/stat shows is rounded to ticks of 10 ms. */
	if (clock_getcpuclockid(pid, &clock) != 0 ||
	    clock_gettime(clock, &t) < 0)
		return -ESRCH;
	*ret = (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
	return 0;
}

bool proc_number(const char *path, const char *key, uint64_t *ret)
{
	FILE *f = fopen(path, "re");
	char line[256];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		unsigned long long n;

		found = strncmp(line, key, strlen(key)) == 0 &&
		        sscanf(line + strlen(key), " %llu", &n) == 1;
		if (found)
			*ret = n;
	}
	fclose(f);
	return found;
}
