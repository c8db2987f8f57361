/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim: a process of its own for a test of libmemspan that it may not
 * survive, or that changes what belongs to a whole process.
 *
 *	victim_start(&v, story, &scene);         fork; the child runs story()
 *	victim_reaches(&v, 1);                   until it said v.scene->step = 1
 *	victim_dies_by(&v, SIGBUS, NSEC_PER_SEC);
 *
 * A story returns NULL if all went well, else what did not; the test then fails
 * with that text.  Nothing sleeps but between two looks at what is waited for.
 */
#pragma once

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "base/base.h"
#include "fake_node.h"
#include "memspan.h"

#define VICTIM_PATIENCE_NS (60 * NSEC_PER_SEC) /* only a bug makes it end */

/* What the victim and the test share. */
struct scene {
	_Atomic uint32_t step; /* how far the victim is */
	_Atomic uint32_t go;   /* how far it may go */
	_Atomic uint32_t
		survived;       /* accesses that must not have come through */
	_Atomic uint32_t zeros; /* bytes read as 0 that never were */
	_Atomic(const char *) complaint; /* of the story; valid in both */
	const struct fake_node *node;
};

struct victim {
	pid_t pid;
	int err; /* what it says on stderr */
	struct scene *scene;
};

typedef const char *(*story_fn)(struct scene *);

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static inline void a_moment(void)
{
	(void)poll(NULL, 0, 1);
}

/* Wait until a shared counter is at least `n`; false: it never was. */
static inline bool reaches(const _Atomic uint32_t *counter, uint32_t n)
{
	uint64_t until = now_ns() + VICTIM_PATIENCE_NS;

	while (atomic_load(counter) < n) {
		if (now_ns() > until)
			return false;
		a_moment();
	}
	return true;
}

static inline void victim_start(struct victim *v, story_fn story,
                                const struct fake_node *node)
{
	int err[2];

	v->scene = mmap(NULL, sizeof(*v->scene), PROT_READ | PROT_WRITE,
	                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(v->scene, MAP_FAILED);
	v->scene->node = node;
	assert_int_equal(pipe(err), 0);
	fflush(NULL);
	v->pid = fork();
	assert_true(v->pid >= 0);
	if (v->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(err[1], 2);
		close(err[0]);
		close(err[1]);
		v->scene->complaint = story(v->scene);
		_exit(v->scene->complaint ? 1 : 0);
	}
	close(err[1]);
	v->err = err[0];
}

static inline void victim_reaches(struct victim *v, uint32_t step)
{
	assert_true(reaches(&v->scene->step, step));
}

/* Wait for its end; returns the status, or -1 if it still lives. */
static inline int victim_wait(struct victim *v, uint64_t limit_ns)
{
	struct pollfd p = { .fd = pidfd_open(v->pid, 0), .events = POLLIN };
	int status = -1;

	assert_true(p.fd >= 0);
	if (poll(&p, 1, (int)(limit_ns / NSEC_PER_MSEC)) == 1)
		assert_int_equal(waitpid(v->pid, &status, 0), v->pid);
	close(p.fd);
	return status;
}

static inline void victim_done(struct victim *v)
{
	close(v->err);
	munmap(v->scene, sizeof(*v->scene));
}

static inline void victim_dies_by(struct victim *v, int sig, uint64_t limit_ns)
{
	int status = victim_wait(v, limit_ns);

	if (status == -1) {
		kill(v->pid, SIGKILL);
		waitpid(v->pid, NULL, 0);
		fail_msg("still alive after %llu ms",
		         (unsigned long long)(limit_ns / NSEC_PER_MSEC));
	}
	if (v->scene->complaint)
		fail_msg("%s", (const char *)v->scene->complaint);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), sig);
	assert_int_equal(v->scene->zeros, 0);
	assert_int_equal(v->scene->survived, 0);
}

static inline void victim_ends_well(struct victim *v)
{
	int status = victim_wait(v, VICTIM_PATIENCE_NS);

	if (v->scene->complaint)
		fail_msg("%s", (const char *)v->scene->complaint);
	assert_int_equal(status, 0);
	victim_done(v);
}

/* Run a whole story that ends well. */
static inline void victim_runs(story_fn story, const struct fake_node *node)
{
	struct victim v;

	victim_start(&v, story, node);
	victim_ends_well(&v);
}

/* All it said on stderr; call when it is dead. */
static inline const char *victim_words(struct victim *v)
{
	static char text[4096];
	ssize_t n = 0, k;

	while ((size_t)n < sizeof(text) - 1 &&
	       (k = read(v->err, text + n, sizeof(text) - 1 - (size_t)n)) > 0)
		n += k;
	text[n] = '\0';
	return text;
}

/* --- shorthands ---------------------------------------------------------- */

/* NULL, and words on stderr, if it fails. */
static inline struct memspan *attach_to(const struct fake_node *n)
{
	struct memspan *m = NULL;
	char why[300] = "";

	if (memspan_attach(n->path, FAKE_SPACE, 0, &m, why, sizeof(why)) < 0)
		fprintf(stderr, "attach: %s\n", why);
	return m;
}

static inline volatile uint8_t *byte_of(struct memspan *m, gpn_t page)
{
	return (volatile uint8_t *)memspan_addr(m) + page * PAGE_BYTES;
}

/* Entries of a folder, such as /proc/self/fd with its own descriptor. */
static inline unsigned count_dir(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* A thread that was joined is in /proc for a moment more. */
static inline bool dir_comes_to(const char *path, unsigned n)
{
	uint64_t until = now_ns() + VICTIM_PATIENCE_NS;

	while (count_dir(path) != n) {
		if (now_ns() > until)
			return false;
		a_moment();
	}
	return true;
}

static inline void *return_arg(void *arg)
{
	return arg;
}

/* Before threads are counted: a sanitizer adds one of its own to the first. */
static inline void start_first_thread(void)
{
	pthread_t t;

	if (pthread_create(&t, NULL, return_arg, NULL) == 0)
		pthread_join(t, NULL);
}
