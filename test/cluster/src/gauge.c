/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: gauge PID ...
 *
 * Looks every 10 ms at what nodes keep of memory, and remembers the most: the
 * blocks of a process's memfds, each once, also of those that it only maps; and
 * with them its RssAnon.  (Its RSS would count the pages of a memfd that it
 * maps a second time; it is there to be shown beside.)
 *
 * On "begin" it begins anew, with the memfds that there are then, and says
 * "begun"; on "end" it says "SAMPLES MEMFDS TOGETHER RSS", in bytes, for each
 * process, all on one line.
 */

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

#define EVERY_NS      10000000u
#define PROCESSES_MAX 16
#define MEMFDS_MAX    1024
#define OURS          "/memfd:memspan-"

struct memfd {
	char path[64]; /* through which it can be looked at */
	uint64_t inode;
};

struct process {
	const char *pid;
	struct memfd memfd[MEMFDS_MAX];
	int memfds;
	uint64_t samples, blocks, together, rss; /* the most of each */
};

static void add_memfd(struct process *p, const char *path)
{
	char target[256];
	struct stat st;
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return;
	target[n] = '\0';
	if (strncmp(target, OURS, strlen(OURS)) != 0 || stat(path, &st) < 0)
		return;
	for (int i = 0; i < p->memfds; i++)
		if (p->memfd[i].inode == st.st_ino)
			return;
	if (p->memfds == MEMFDS_MAX)
		tool_die("more than %d memfds", MEMFDS_MAX);
	p->memfd[p->memfds].inode = st.st_ino;
	snprintf(p->memfd[p->memfds++].path, sizeof(p->memfd[0].path), "%s",
	         path);
}

/* Those that are open, and those that are only mapped. */
static void find_memfds(struct process *p)
{
	static const char *const where[] = { "fd", "map_files" };

	p->memfds = 0;
	for (int i = 0; i < 2; i++) {
		char dir_path[32], path[64];
		const struct dirent *e;
		DIR *dir;

		snprintf(dir_path, sizeof(dir_path), "/proc/%.10s/%s", p->pid,
		         where[i]);
		dir = opendir(dir_path);
		while (dir && (e = readdir(dir)) != NULL) {
			snprintf(path, sizeof(path), "%s/%.30s", dir_path,
			         e->d_name);
			add_memfd(p, path);
		}
		if (dir)
			closedir(dir);
	}
}

static uint64_t memfd_bytes(const struct process *p)
{
	uint64_t sum = 0;
	struct stat st;

	for (int i = 0; i < p->memfds; i++)
		if (stat(p->memfd[i].path, &st) == 0)
			sum += (uint64_t)st.st_blocks * 512;
	return sum;
}

/* A line of /proc/PID/status, in bytes. */
static uint64_t status_bytes(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

static void most(uint64_t *of, uint64_t now)
{
	if (now > *of)
		*of = now;
}

static void sample(struct process *p)
{
	char path[64], text[4096];
	uint64_t memfds = memfd_bytes(p);
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%s/status", p->pid);
	f = fopen(path, "r");
	if (!f)
		return; /* it has ended: no sample */
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p->samples++;
	most(&p->blocks, memfds);
	most(&p->together, memfds + status_bytes(text, "\nRssAnon:"));
	most(&p->rss, status_bytes(text, "\nVmRSS:"));
}

static void begin(struct process *p)
{
	find_memfds(p);
	p->samples = p->blocks = p->together = p->rss = 0;
}

static void report(const struct process *p, int n)
{
	char line[4096];
	int at = 0;

	for (int i = 0; i < n; i++)
		at += snprintf(line + at, sizeof(line) - (size_t)at,
		               "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
		               " ",
		               p[i].samples, p[i].blocks, p[i].together,
		               p[i].rss);
	tool_say("%s", line);
}

/* What stdin says, if it says something before the time has come. */
static bool order(char *line, size_t bytes, uint64_t until)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	uint64_t now = tool_now_ns();
	int ms = now < until ? (int)((until - now + 999999) / 1000000) : 0;

	if (poll(&in, 1, ms) <= 0)
		return false;
	if (tool_line(line, bytes) < 0)
		exit(0);
	return true;
}

int main(int argc, char **argv)
{
	static struct process process[PROCESSES_MAX];
	uint64_t next = tool_now_ns();
	int n = argc - 1;
	char line[64];

	if (n < 1 || n > PROCESSES_MAX)
		tool_die("usage: gauge PID ...");
	for (int i = 0; i < n; i++)
		process[i].pid = argv[i + 1];
	setvbuf(stdin, NULL, _IONBF, 0); /* poll() shall see what there is */
	for (;;) {
		if (order(line, sizeof(line), next)) {
			if (strcmp(line, "begin") == 0) {
				for (int i = 0; i < n; i++)
					begin(&process[i]);
				tool_say("begun");
			} else {
				report(process, n);
			}
			continue;
		}
		next = tool_now_ns() + EVERY_NS;
		for (int i = 0; i < n; i++)
			sample(&process[i]);
	}
}
