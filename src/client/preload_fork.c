/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork(2) and its kin, refused while a space is mapped.
 *
 * A child does not have the mapping (MADV_DONTFORK): what it inherits is a
 * pointer whose touch is SIGSEGV, at a place that says nothing of the reason.
 * And a fork copies the page tables of the parent with its mmap_lock held, for
 * which the node's ioctls wait, and every other client of the pages with them
 * [B8].  Who only wants to start another program has vfork(2), posix_spawn(3),
 * system(3), popen(3), which are not touched.
 *
 * The lock is held over the fork: no mapping is half made in the child.
 */

#include <errno.h>
#include <pty.h>
#include <sys/syscall.h>

#include "client/preload.h"

/* Returns 0 with the lock held, or -errno without it. */
static int fork_begin(struct shim_locked *l, const char *what)
{
	const char *space;

	shim_lock(l);
	space = shim_any_mapped();
	if (!space)
		return 0;
	shim_unlock(l);
	return shim_refuse(SHIM_FORK,
	                   "%s is refused while space %s is mapped, as the "
	                   "child would not have it: fork before mapping, or "
	                   "use threads (fio: --thread); to start a program, "
	                   "use posix_spawn(3) or vfork(2)",
	                   what, space);
}

/* Without the handlers of pthread_atfork(3), and where libc is not found. */
static pid_t bare_fork(void)
{
	return libc.fork_bare ? libc.fork_bare() :
	                        (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

SHIM_API pid_t fork(void)
{
	struct shim_locked l;
	pid_t pid;
	int r = fork_begin(&l, "fork(2)");

	if (r < 0)
		return shim_posix(r);
	pid = libc.fork ? libc.fork() : bare_fork();
	shim_unlock(&l);
	return pid;
}

SHIM_API pid_t _Fork(void)
{
	struct shim_locked l;
	pid_t pid;
	int r = fork_begin(&l, "_Fork(3)");

	if (r < 0)
		return shim_posix(r);
	pid = bare_fork();
	shim_unlock(&l);
	return pid;
}

SHIM_API int forkpty(int *primary, char *name, const struct termios *termp,
                     const struct winsize *winp)
{
	struct shim_locked l;
	int r, pid;

	r = fork_begin(&l, "forkpty(3)");
	if (r < 0)
		return shim_posix(r);
	if (!libc.forkpty)
		shim_find_libc();
	pid = libc.forkpty(primary, name, termp, winp);
	shim_unlock(&l);
	return pid;
}

SHIM_API int daemon(int no_chdir, int no_close)
{
	struct shim_locked l;
	int r;

	r = fork_begin(&l, "daemon(3)");
	if (r < 0)
		return shim_posix(r);
	if (!libc.daemon)
		shim_find_libc();
	r = libc.daemon(no_chdir, no_close);
	shim_unlock(&l);
	return r;
}
