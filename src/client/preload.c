/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of the shim: what the environment says is checked and kept, libc's
 * functions are found.  A program with values that make no sense does not go
 * on, for it would run unserved.
 *
 * The constructors of other libraries come before ours, and may open files and
 * map them.  So the environment is read when it is first needed, which takes
 * no memory; until libc's functions are found, hooks make do with system calls.
 * (-z initfirst would bring us to the front, before ThreadSanitizer's start,
 * which does not survive it.)
 */

#include "client/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>

static struct shim_spaces spaces;
struct shim shim;
struct shim_libc libc;
SHIM_THREAD bool shim_inside;

static _Atomic bool started;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static _Atomic bool said[SHIM_TOPICS];

/* --- messages ------------------------------------------------------------ */

static void say(const char *fmt, va_list args)
	__attribute__((format(printf, 1, 0)));

static void say(const char *fmt, va_list args)
{
	char line[1024] = "memspan: ";
	size_t at = strlen(line);
	int n = vsnprintf(line + at, sizeof(line) - at - 1, fmt, args);

	at = min_u64(at + (size_t)(n > 0 ? n : 0), sizeof(line) - 2);
	line[at++] = '\n';
	(void)syscall(SYS_write, STDERR_FILENO, line, at);
}

void shim_say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
}

int shim_refuse(enum shim_topic topic, const char *fmt, ...)
{
	va_list args;

	if (!atomic_exchange(&said[topic], true)) {
		va_start(args, fmt);
		say(fmt, args);
		va_end(args);
	}
	return -ENOTSUP;
}

int shim_posix(int r)
{
	if (r < 0)
		errno = -r;
	return r < 0 ? -1 : r;
}

/* --- the start ----------------------------------------------------------- */

static void find(const char *name, void *at)
{
	void *f = dlsym(RTLD_NEXT, name);

	/* A pointer to a function is one to an object here: POSIX. */
	memcpy(at, &f, sizeof(f));
}

void shim_find_libc(void)
{
	find("read", &libc.read);
	find("write", &libc.write);
	find("pread64", &libc.pread);
	find("pwrite64", &libc.pwrite);
	find("readv", &libc.readv);
	find("writev", &libc.writev);
	find("preadv64", &libc.preadv);
	find("pwritev64", &libc.pwritev);
	find("preadv64v2", &libc.preadv2);
	find("pwritev64v2", &libc.pwritev2);
	find("__read_chk", &libc.read_chk);
	find("__pread64_chk", &libc.pread_chk);
	find("copy_file_range", &libc.copy_file_range);
	find("splice", &libc.splice);
	find("fcntl64", &libc.fcntl);
	find("fallocate64", &libc.fallocate);
	find("posix_fallocate64", &libc.posix_fallocate);
	find("fopen64", &libc.fopen);
	find("fdopen", &libc.fdopen);
	find("freopen64", &libc.freopen);
	find("fork", &libc.fork);
	find("_Fork", &libc.fork_bare);
	find("forkpty", &libc.forkpty);
	find("daemon", &libc.daemon);
}

static const char *look_up(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* Keep a variable of the environment, or `standard` if it is not there. */
static int keep(char *const *env, const char *name, const char *standard,
                char *ret, size_t bytes, struct errmsg *em)
{
	const char *value = look_up(env, name);

	if (!value || value[0] == '\0')
		value = standard;
	if (!value)
		return errmsg_say(em, -EINVAL, "%s is not set", name);
	if (strlen(value) >= bytes)
		return errmsg_say(em, -EINVAL, "%s is longer than %zu bytes",
		                  name, bytes - 1);
	strcpy(ret, value);
	return 0;
}

static int take_environment(char *const *env, struct errmsg *em)
{
	const char *named = look_up(env, "MEMSPAN_SPACES");
	struct errmsg why = { "" };
	int r;

	if (!named)
		return 0; /* nothing to serve: nobody gave us a space */
	r = spaces_parse(named, &spaces, &why);
	if (r == 0)
		r = spaces_look(&spaces, &why);
	if (r < 0)
		return errmsg_say(em, r, "MEMSPAN_SPACES: %s", why.text);
	r = keep(env, "MEMSPAN_NODE", NULL, shim.node, sizeof(shim.node), em);
	if (r == 0)
		r = keep(env, "MEMSPAN_MEMFD", "memory-backend-memfd",
		         shim.memfd, sizeof(shim.memfd), em);
	if (r == 0 && shim.node[0] != '/')
		return errmsg_say(em, -EINVAL,
		                  "MEMSPAN_NODE is no absolute path: %s",
		                  shim.node);
	return r;
}

static void start(void)
{
	struct errmsg em = { "" };

	if (take_environment(environ, &em) == 0) {
		atomic_store(&started, true);
		return;
	}
	shim_say("%s; this program would run without the memory of its spaces, "
	         "so it does not start: run it by 'memspan run'",
	         em.text);
	_exit(SHIM_FAILED);
}

const struct shim_spaces *shim_spaces(void)
{
	if (!atomic_load_explicit(&started, memory_order_acquire))
		pthread_once(&once, start);
	return &spaces;
}

const struct shim_space *shim_space_of(int fd)
{
	return shim_inside ? NULL : spaces_find(shim_spaces(), fd);
}

__attribute__((constructor)) static void shim_start(void)
{
	(void)shim_spaces();
	shim_find_libc();
}
