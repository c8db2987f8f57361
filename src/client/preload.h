/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim, libmemspan-preload.so: a program that was not written for memspan
 * maps a space's descriptor, and the mapping is served.
 *
 *	preload.c         the start, messages, libc's own functions
 *	preload_spaces.c  which spaces there are, and is this descriptor one?
 *	preload_map.c     mmap(2), munmap(2), madvise(2) and the like
 *	preload_file.c    everything else that takes a descriptor
 *	preload_fork.c    fork(3) and its kin
 *	preload_parts.c   which parts of a mapping were unmapped
 *
 * What it promises
 *
 *   served     Every MAP_SHARED mapping of a space that is made by libc's
 *              mmap(3) is served by the node, or refused: never a mapping whose
 *              holes read as zeros.  It does not matter how the program came by
 *              the descriptor: a file is known by st_dev and st_ino.
 *   refused    What cannot be served fails with ENOTSUP and says so on stderr,
 *              once for each kind.
 *   the rest   passes on, as it came: in one comparison where an address or a
 *              flag tells, in one fcntl(2) or fstat(2) where only the
 *              descriptor does.
 *
 * What it expects: the environment that `memspan run` makes (memspan-run(1)),
 * glibc, and a program that uses glibc's functions.
 *
 * How.  Each mapping is an attachment of its own (client/client.h), with its
 * connection and its fence thread.  Hooks make raw system calls, or call what
 * dlsym(3) found before main(): a hook that an allocator may call must not call
 * dlsym(), which may need that allocator.  What our own code calls comes by the
 * hooks too; shim_inside lets it pass.
 *
 * No policy: what a space is, and where its pages are, the node decides.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <termios.h>

#include "base/base.h"
#include "client/client.h"

#define SHIM_API __attribute__((visibility("default")))
/* No allocation at the first use in a thread, as the general model has it. */
#define SHIM_THREAD _Thread_local __attribute__((tls_model("initial-exec")))

#define SHIM_SPACES_MAX 16u
#define SHIM_FAILED     127 /* exit status if it cannot even start */

/* --- preload_spaces.c ---------------------------------------------------- */

struct shim_space {
	char name[LOCAL_NAME_BYTES];
	int fd;    /* as $MEMSPAN_SPACES names it */
	bool here; /* it is open here, and what follows is filled in */
	dev_t dev;
	ino_t ino;
	uint64_t bytes;
};

struct shim_spaces {
	struct shim_space v[SHIM_SPACES_MAX];
	unsigned n;
};

/*
 * Read NAME=FD,...  Returns 0, or -EINVAL with *ret untouched.  Asks the kernel
 * nothing: `here` is false.
 */
int spaces_parse(const char *text, struct shim_spaces *ret, struct errmsg *em);
/*
 * Look at each descriptor.  One that is closed is no failure: a program may
 * have started this one without it, and nothing can be mapped by it then.
 * Returns 0, or -EINVAL if one is open and no space's memory.
 */
int spaces_look(struct shim_spaces *s, struct errmsg *em);
/* The space whose memory `fd` is, or NULL. */
const struct shim_space *spaces_find(const struct shim_spaces *s, int fd);

/* --- preload_parts.c ----------------------------------------------------- */

#define SHIM_PARTS_MAX 32u

/* Addresses, as a set of ranges [start, end) that neither overlap nor touch. */
struct shim_parts {
	struct {
		uintptr_t start, end;
	} v[SHIM_PARTS_MAX];
	unsigned n;
};

/* Add a range.  Returns 0, or -ENOSPC if there are too many, with no change. */
int parts_add(struct shim_parts *p, uintptr_t start, uintptr_t end);
/* Is all of [start, end) in it? */
bool parts_cover(const struct shim_parts *p, uintptr_t start, uintptr_t end);

/* --- preload.c ----------------------------------------------------------- */

/* The spaces of this process, read from the environment the first time. */
const struct shim_spaces *shim_spaces(void);

/* What else it says.  Valid after shim_spaces(), constant from then on. */
struct shim {
	char node[108];  /* path of the node's socket */
	char memfd[256]; /* memfd_create() of this name is the first space */
};
extern struct shim shim;

/* This thread is in our own code: hooks pass on what it calls. */
extern SHIM_THREAD bool shim_inside;

/* The space whose memory `fd` is, or NULL; NULL while shim_inside. */
const struct shim_space *shim_space_of(int fd);

/* What is said once in a process. */
enum shim_topic {
	SHIM_PRIVATE,
	SHIM_MREMAP,
	SHIM_OVER,
	SHIM_ADVICE,
	SHIM_IO,
	SHIM_STDIO,
	SHIM_FALLOCATE,
	SHIM_MEMFD,
	SHIM_FORK,
	SHIM_TOPICS,
};

/* Refuse: say why, the first time for that topic.  Returns -ENOTSUP. */
int shim_refuse(enum shim_topic topic, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* From our convention to libc's: r, or -1 with errno if it is negative. */
int shim_posix(int r);
/* Say a line on stderr, "memspan: ...", by one write(2). */
void shim_say(const char *fmt, ...) PRINTF_LIKE(1, 2);

/*
 * libc's own.  NULL before our constructor has found them: then a hook calls
 * the kernel, or, where there is no such call, shim_find_libc(), which may
 * allocate.
 */
void shim_find_libc(void);
struct shim_libc {
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*pread)(int, void *, size_t, off_t);
	ssize_t (*pwrite)(int, const void *, size_t, off_t);
	ssize_t (*readv)(int, const struct iovec *, int);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*preadv)(int, const struct iovec *, int, off_t);
	ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
	ssize_t (*preadv2)(int, const struct iovec *, int, off_t, int);
	ssize_t (*pwritev2)(int, const struct iovec *, int, off_t, int);
	ssize_t (*read_chk)(int, void *, size_t, size_t);
	ssize_t (*pread_chk)(int, void *, size_t, off_t, size_t);
	ssize_t (*copy_file_range)(int, off_t *, int, off_t *, size_t,
	                           unsigned);
	ssize_t (*splice)(int, off_t *, int, off_t *, size_t, unsigned);
	int (*fcntl)(int, int, ...);
	int (*fallocate)(int, int, off_t, off_t);
	int (*posix_fallocate)(int, off_t, off_t);
	FILE *(*fopen)(const char *, const char *);
	FILE *(*fdopen)(int, const char *);
	FILE *(*freopen)(const char *, const char *, FILE *);
	pid_t (*fork)(void);
	pid_t (*fork_bare)(void); /* _Fork(3) */
	pid_t (*forkpty)(int *, char *, const struct termios *,
	                 const struct winsize *);
	int (*daemon)(int, int);
};
extern struct shim_libc libc;

/* --- preload_map.c ------------------------------------------------------- */

/* What shim_lock() changed in this thread, for shim_unlock(). */
struct shim_locked {
	sigset_t mask;
	int cancel;
};

/*
 * The one lock, over the table of mappings (docs/threads.md).  While a thread
 * has it, no signal comes and no cancellation: a handler that maps a space
 * would wait for itself.
 */
void shim_lock(struct shim_locked *l);
void shim_unlock(const struct shim_locked *l);

/* Name of a space that is mapped here now, or NULL.  Under the lock. */
const char *shim_any_mapped(void);

/*
 * Have pages [offset, offset + bytes) of `sp` be zeros everywhere.  Whole
 * pages, inside the space.  Returns 0 or -errno; what is wrong with the node is
 * said.
 */
int shim_discard(const struct shim_space *sp, uint64_t offset, uint64_t bytes);
