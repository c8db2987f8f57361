/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which CPUs everybody runs on.
 *
 * A wake-up of a thread on another CPU costs several times one on the same, and
 * threads that are not pinned flip between the two; so floor and memspan are
 * only comparable if both are pinned, and alike.
 *
 *	near    all on one CPU: no wake-up crosses
 *	far     two CPUs; client i and node i+1 on one, node i on the other, so
 *	        that every wake-up of a remote fault crosses, as between hosts:
 *
 *	              CPU a              CPU b
 *	        client 0, node 1   client 1, node 0
 *
 *	        and so on by turns; from three nodes on, nodes 0 and 2 share one
 *	free    as the kernel likes it
 *
 * The floor's handler is placed as the node is, its peer as the node's peer.
 */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"

/* --- what a node's process says ------------------------------------------ */

/* The value of `option` among `bytes` of NUL-separated words, or NULL. */
static const char *option_of(const char *words, size_t bytes,
                             const char *option)
{
	size_t len = strlen(option);

	for (const char *w = words; w < words + bytes; w += strlen(w) + 1) {
		if (strncmp(w, option, len) != 0)
			continue;
		if (w[len] == '=')
			return w + len + 1;
		if (w[len] == '\0' && w + len + 1 < words + bytes)
			return w + len + 1;
	}
	return NULL;
}

void bench_place_look(struct bench_node *node, pid_t pid)
{
	char path[64], words[4096];
	AUTO_CLOSE int fd = -1;
	const char *text;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, words, sizeof(words) - 1);
	if (n <= 0)
		return;
	words[n] = '\0';
	/* A number of another host's process may be anybody's here. */
	if (!strstr(words, "memspan-node"))
		return;
	node->pid = pid;
	text = option_of(words, (size_t)n, "--shards");
	if (text)
		node->shards = (unsigned)strtoul(text, NULL, 10);
	text = option_of(words, (size_t)n, "--busy-poll");
	if (text)
		node->busy_poll_us = strtoull(text, NULL, 10);
}

/* --- threads ------------------------------------------------------------- */

static int save(struct bench_place *p, pid_t pid, pid_t tid)
{
	struct bench_saved *s;

	if (p->n == p->room) {
		size_t room = p->room ? 2 * p->room : 64;

		s = reallocarray(p->v, room, sizeof(*s));
		if (!s)
			return -ENOMEM;
		p->v = s;
		p->room = room;
	}
	s = &p->v[p->n];
	s->pid = pid;
	s->tid = tid;
	if (sched_getaffinity(tid, sizeof(s->cpus), &s->cpus) < 0)
		return -errno;
	p->n++;
	return 0;
}

/*
 * Call fn for each thread that `pid` has right now, until it fails.  A thread
 * that ends meanwhile is no failure.
 */
static int each_thread(pid_t pid, int (*fn)(pid_t pid, pid_t tid, void *arg),
                       void *arg)
{
	char path[64];
	struct dirent *d;
	DIR *dir;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (r == 0 && (d = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		r = fn(pid, (pid_t)strtol(d->d_name, NULL, 10), arg);
		if (r == -ESRCH)
			r = 0;
	}
	closedir(dir);
	return r;
}

struct put {
	struct bench_place *keep; /* NULL: what was before does not matter */
	cpu_set_t cpus;
};

static int put_thread(pid_t pid, pid_t tid, void *arg)
{
	const struct put *p = arg;
	int r = p->keep ? save(p->keep, pid, tid) : 0;

	if (r == 0 && sched_setaffinity(tid, sizeof(p->cpus), &p->cpus) < 0)
		r = -errno;
	return r;
}

/* Put all threads of a process on `cpu`. */
static int put(struct bench_place *keep, pid_t pid, unsigned cpu)
{
	struct put p = { .keep = keep };

	CPU_ZERO(&p.cpus);
	CPU_SET(cpu, &p.cpus);
	return each_thread(pid, put_thread, &p);
}

/* What the thread had, or, if it is younger, what the process's first had. */
static int restore_thread(pid_t pid, pid_t tid, void *arg)
{
	const struct bench_place *place = arg;
	const struct bench_saved *s = NULL;

	for (size_t i = 0; i < place->n; i++)
		if (place->v[i].tid == tid || (!s && place->v[i].pid == pid))
			s = &place->v[i];
	if (s)
		(void)sched_setaffinity(tid, sizeof(s->cpus), &s->cpus);
	return 0;
}

void bench_place_restore(struct bench_place *place)
{
	for (size_t i = 0; i < place->n; i++)
		if (i == 0 || place->v[i].pid != place->v[i - 1].pid)
			(void)each_thread(place->v[i].pid, restore_thread,
			                  place);
	free(place->v);
	memset(place, 0, sizeof(*place));
}

/* --- placements ---------------------------------------------------------- */

/* The first two CPUs that we may use.  Returns how many there are. */
static int first_cpus(unsigned cpu[2])
{
	cpu_set_t mine;
	int n = 0;

	if (sched_getaffinity(0, sizeof(mine), &mine) < 0)
		return 0;
	for (unsigned i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &mine))
			cpu[n++] = i;
	return n;
}

static int put_member(struct bench_place *place, const struct bench_run *run,
                      unsigned i, const unsigned cpu[2])
{
	const struct bench_member *m = &run->crew.member[i];
	/* near: both are the same. */
	unsigned here = cpu[i % 2], there = cpu[(i + 1) % 2];
	int r;

	r = put(NULL, m->client, here);
	if (r == 0)
		r = put(NULL, m->peer, here);
	if (r == 0)
		r = put(NULL, m->handler, there);
	if (r == 0 && run->node[i].pid > 0)
		r = put(place, run->node[i].pid, there);
	return r;
}

int bench_place_set(struct bench_place *place, const struct bench_run *run,
                    struct errmsg *em)
{
	const char *name = bench_placement_name[run->placement];
	unsigned cpu[2] = { 0, 0 };
	int n, r;

	if (run->placement == BENCH_FREE)
		return 0;
	n = first_cpus(cpu);
	if (run->placement == BENCH_NEAR)
		cpu[1] = cpu[0];
	else if (n < 2)
		return errmsg_say(em, -ENODEV,
		                  "--placement far: needs two CPUs, and we may "
		                  "use one; use --placement near");
	for (unsigned i = 0; i < run->n; i++) {
		if (run->http && run->node[i].pid == 0) {
			r = errmsg_say(
				em, -ESRCH,
				"--placement %s: the process of node %u "
				"is not on this machine; use --placement "
				"free",
				name, run->node[i].id);
			goto out;
		}
		r = put_member(place, run, i, cpu);
		if (r < 0) {
			(void)errmsg_set(em, r,
			                 "--placement %s: cannot set "
			                 "the affinity of node %u's "
			                 "threads",
			                 name, run->node[i].id);
			goto out;
		}
	}
	return 0;
out:
	bench_place_restore(place);
	return r;
}
