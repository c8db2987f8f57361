/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client process, for the tests of fault/: it maps a space's memfd as a
 * client does, watches it with one userfaultfd, hands that over by SCM_RIGHTS,
 * and then does what the test says, in threads that may block in a fault.
 *
 *	client_start(&c, &mem, &opts);          fork, map, register, hand over
 *	client_call(&c, 1, cl_write, 7, 42);    worker 1 starts; may block
 *	... serve the fault on c.uffd ...
 *	client_result(&c, 1)                    waits for worker 1 to be through
 *	client_stop(&c);
 *
 * The process is a fork of the test, so what a worker is to do is sent as the
 * address of a function.  A signal that the function's access raises becomes
 * its result.  Nothing here sleeps: one waits for a message or for a result,
 * and for so long that only a bug makes it end.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fault/frame.h"
#include "fault/probe.h"
#include "fault/uffd_kernel.h"

#define CLIENT_WORKERS 8u
#define CLIENT_WAIT_MS 60000 /* an emulated machine is slow */

/* What an access that raises a signal returns. */
#define CLIENT_SIGNAL(sig) (-1000l - (sig))

struct client {
	pid_t pid;
	int uffd;                 /* the test's copy; client_stop() closes it */
	int sock[CLIENT_WORKERS]; /* to the workers */
	uint8_t *base;            /* in the client */
	uint64_t pages;
	int memfd;
	int own_uffd;          /* in the client: its copy */
	_Atomic unsigned turn; /* in the client */
};

struct client_options {
	uint64_t mode;        /* of UFFDIO_REGISTER */
	uint64_t features;    /* beyond UFFD_KERNEL_FEATURES */
	bool leave_unwatched; /* hand the userfaultfd over unregistered */
};

typedef long (*client_fn)(struct client *c, long a, long b);

struct client_order {
	client_fn fn;
	long a, b;
};

/* --- in the client ------------------------------------------------------- */

static _Thread_local sigjmp_buf client_jump;

static void client_on_signal(int sig)
{
	siglongjmp(client_jump, sig);
}

struct client_worker {
	struct client *c;
	int sock;
};

static void *client_worker_main(void *arg)
{
	struct client_worker w = *(struct client_worker *)arg;
	struct client_order o;

	while (recv(w.sock, &o, sizeof(o), 0) == (ssize_t)sizeof(o)) {
		int sig = sigsetjmp(client_jump, 1);
		long r;

		/* The test orders what workers do one after the other; this
		 * lets ThreadSanitizer see it. */
		w.c->turn++;
		r = sig != 0 ? CLIENT_SIGNAL(sig) : o.fn(w.c, o.a, o.b);
		w.c->turn++;
		if (send(w.sock, &r, sizeof(r), 0) < 0)
			break;
	}
	return NULL;
}

static int client_register(struct client *c, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)c->base,
		           .len = c->pages * PAGE_BYTES },
		.mode = mode,
	};

	return ioctl(c->own_uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

/* In the order of an attach [A12].  Returns 0 or a negative line number. */
static int client_map(struct client *c, const struct client_options *o)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_KERNEL_FEATURES | o->features,
	};
	const size_t bytes = c->pages * PAGE_BYTES;

	c->base = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, c->memfd, 0);
	if (c->base == MAP_FAILED)
		return -__LINE__;
	(void)madvise(c->base, bytes, MADV_DONTFORK);
	(void)madvise(c->base, bytes, MADV_DONTDUMP);
	(void)madvise(c->base, bytes, MADV_NOHUGEPAGE);
	c->own_uffd = probe_open_userfaultfd(NULL);
	if (c->own_uffd < 0 || ioctl(c->own_uffd, UFFDIO_API, &api) < 0)
		return -__LINE__;
	if (!o->leave_unwatched && client_register(c, o->mode) < 0)
		return -__LINE__;
	if (mprotect(c->base, bytes, PROT_READ | PROT_WRITE) < 0)
		return -__LINE__;
	return 0;
}

/* Tell the test where we mapped, and give it our userfaultfd. */
static void client_hand_over(struct client *c, int sock, int error)
{
	struct {
		uint8_t *base;
		int error;
	} text = { c->base, error };
	struct iovec iov = { .iov_base = &text, .iov_len = sizeof(text) };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .bytes = { 0 } };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (error == 0) {
		struct cmsghdr *h;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &c->own_uffd, sizeof(int));
	}
	(void)sendmsg(sock, &msg, 0);
}

static _Noreturn void client_main(struct client *c,
                                  const struct client_options *o,
                                  const int sock[CLIENT_WORKERS])
{
	struct sigaction act = { .sa_handler = client_on_signal };
	struct client_worker w[CLIENT_WORKERS];
	pthread_t t[CLIENT_WORKERS];

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)sigaction(SIGSEGV, &act, NULL);
	(void)sigaction(SIGBUS, &act, NULL);
	client_hand_over(c, sock[0], client_map(c, o));
	for (unsigned i = 0; i < CLIENT_WORKERS; i++) {
		w[i] = (struct client_worker){ c, sock[i] };
		if (pthread_create(&t[i], NULL, client_worker_main, &w[i]) != 0)
			_exit(3);
	}
	for (unsigned i = 0; i < CLIENT_WORKERS; i++)
		(void)pthread_join(t[i], NULL);
	_exit(0);
}

/* --- what workers do ----------------------------------------------------- */

static inline volatile uint64_t *cl_at(struct client *c, long page)
{
	return (volatile uint64_t *)(void *)(c->base + page * (long)PAGE_BYTES);
}

/*
 * An access to a space is not instrumented: one worker's may wait for the other
 * side of the test while another's goes on, on the same word and on purpose.
 */
#define CLIENT_ACCESS __attribute__((no_sanitize("thread"))) static inline

CLIENT_ACCESS long cl_read(struct client *c, long page, long word)
{
	return (long)cl_at(c, page)[word];
}

CLIENT_ACCESS long cl_write(struct client *c, long page, long value)
{
	*cl_at(c, page) = (uint64_t)value;
	return 0;
}

static inline long cl_tid(struct client *c, long a, long b)
{
	(void)c, (void)a, (void)b;
	return syscall(SYS_gettid);
}

/* Split the mapping at a page, as mprotect(), mlock() or mbind() do. */
static inline long cl_split(struct client *c, long page, long pages)
{
	return madvise(c->base + page * (long)PAGE_BYTES,
	               (size_t)pages * PAGE_BYTES, MADV_DODUMP);
}

static inline long cl_unmap(struct client *c, long page, long pages)
{
	return munmap(c->base + page * (long)PAGE_BYTES,
	              (size_t)pages * PAGE_BYTES);
}

static inline long cl_dontneed(struct client *c, long page, long pages)
{
	return madvise(c->base + page * (long)PAGE_BYTES,
	               (size_t)pages * PAGE_BYTES, MADV_DONTNEED);
}

/* --- in the test --------------------------------------------------------- */

static void client_start(struct client *c, const struct space_mem *m,
                         const struct client_options *o)
{
	int theirs[CLIENT_WORKERS], pair[2];
	struct {
		uint8_t *base;
		int error;
	} text = { NULL, 0 };
	struct iovec iov = { .iov_base = &text, .iov_len = sizeof(text) };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = { .msg_iov = &iov,
		              .msg_iovlen = 1,
		              .msg_control = &control,
		              .msg_controllen = sizeof(control) };
	struct cmsghdr *h;

	*c = (struct client){ .uffd = -1,
		              .own_uffd = -1,
		              .memfd = m->fd,
		              .pages = m->bytes / PAGE_BYTES };
	for (unsigned i = 0; i < CLIENT_WORKERS; i++) {
		assert_int_equal(socketpair(AF_UNIX,
		                            SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
		                            pair),
		                 0);
		c->sock[i] = pair[0];
		theirs[i] = pair[1];
	}
	(void)fflush(stdout);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		for (unsigned i = 0; i < CLIENT_WORKERS; i++)
			close(c->sock[i]);
		client_main(c, o, theirs);
	}
	for (unsigned i = 0; i < CLIENT_WORKERS; i++)
		close(theirs[i]);
	assert_int_equal(recvmsg(c->sock[0], &msg, MSG_CMSG_CLOEXEC),
	                 sizeof(text));
	assert_int_equal(text.error, 0); /* a line of client_map() */
	h = CMSG_FIRSTHDR(&msg);
	assert_non_null(h);
	memcpy(&c->uffd, CMSG_DATA(h), sizeof(int));
	c->base = text.base;
}

static inline void client_kill(struct client *c)
{
	if (c->pid > 0) {
		(void)kill(c->pid, SIGKILL);
		(void)waitpid(c->pid, NULL, 0);
	}
	c->pid = 0;
}

/* May be called again, and for a client that was never started (all zero). */
static inline void client_stop(struct client *c)
{
	if (c->pages == 0)
		return;
	client_kill(c);
	if (c->uffd >= 0)
		close(c->uffd);
	for (unsigned i = 0; i < CLIENT_WORKERS; i++)
		close(c->sock[i]);
	*c = (struct client){ .pages = 0 };
}

static inline void client_call(struct client *c, unsigned worker, client_fn fn,
                               long a, long b)
{
	struct client_order o = { fn, a, b };

	assert_int_equal(send(c->sock[worker], &o, sizeof(o), 0), sizeof(o));
}

/* Is the worker through within `ms`? */
static inline bool client_through(struct client *c, unsigned worker, int ms)
{
	struct pollfd p = { .fd = c->sock[worker], .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

static inline long client_result(struct client *c, unsigned worker)
{
	long r = 0;

	if (!client_through(c, worker, CLIENT_WAIT_MS))
		fail_msg("worker %u is stuck", worker);
	assert_int_equal(recv(c->sock[worker], &r, sizeof(r), 0), sizeof(r));
	return r;
}

static inline long client_do(struct client *c, unsigned worker, client_fn fn,
                             long a, long b)
{
	client_call(c, worker, fn, a, b);
	return client_result(c, worker);
}

/* Wait until there is a message on the client's userfaultfd. */
static inline void client_await_fault(const struct client *c)
{
	struct pollfd p = { .fd = c->uffd, .events = POLLIN };

	if (poll(&p, 1, CLIENT_WAIT_MS) != 1)
		fail_msg("no message came");
}

/* Tests without a userfaultfd cannot be: the harness counts them as skipped. */
static inline bool client_possible(void)
{
	int fd = probe_open_userfaultfd(NULL);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}
