/* SPDX-License-Identifier: Apache-2.0 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void tool_die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(3);
}

uint64_t tool_word(uint64_t seed, uint64_t page, uint64_t i)
{
	uint64_t x = (seed << 48) ^ (page << 16) ^ (i + 1);

	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	return x | 1;
}

uint64_t tool_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void *tool_share(const char *path, size_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	void *p;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		tool_die("%s: %s", path, strerror(errno));
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		tool_die("%s: %s", path, strerror(errno));
	close(fd);
	return p;
}

void tool_say(const char *fmt, ...)
{
	char line[4096];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, args);
	va_end(args);
	if (n < 0 || n >= (int)sizeof(line) - 1)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	/* A pipe takes up to PIPE_BUF as a whole. */
	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		exit(3);
}

uint64_t tool_number(const char *text)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = text ? strtoull(text, &end, 0) : 0;
	if (!text || end == text || *end != '\0' || errno != 0)
		tool_die("'%s' is not a number", text ? text : "");
	return v;
}

int tool_line(char *line, size_t bytes)
{
	if (!fgets(line, (int)bytes, stdin))
		return -1;
	line[strcspn(line, "\n")] = '\0';
	return 0;
}

uint64_t tool_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x;
}
