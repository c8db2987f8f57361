/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spaces that this process was given, as `memspan run` names them.
 *
 * A space's memory is a memfd that the node has sealed against growing and
 * shrinking before anyone got it [A13].  So F_GET_SEALS, which takes no lock
 * and looks at no path, sorts out nearly every other descriptor for the price
 * of a system call that does nothing.
 */

#include "client/preload.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)

static bool is_name(const char *text, size_t n)
{
	if (n == 0 || n >= LOCAL_NAME_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!islower((unsigned char)text[i]) &&
		    !isdigit((unsigned char)text[i]) &&
		    (i == 0 || !strchr("._-", text[i])))
			return false;
	return true;
}

/* One NAME=FD, of which `n` bytes are ours. */
static bool parse_one(const char *text, size_t n, struct shim_space *ret)
{
	const char *sign = memchr(text, '=', n);
	const char *end = text + n;
	long fd = 0;

	if (!sign || !is_name(text, (size_t)(sign - text)) || sign + 1 == end)
		return false;
	for (const char *p = sign + 1; p < end; p++) {
		if (!isdigit((unsigned char)*p))
			return false;
		fd = fd * 10 + (*p - '0');
		if (fd > INT_MAX)
			return false;
	}
	*ret = (struct shim_space){ .fd = (int)fd };
	memcpy(ret->name, text, (size_t)(sign - text));
	return true;
}

int spaces_parse(const char *text, struct shim_spaces *ret, struct errmsg *em)
{
	struct shim_spaces s = { .n = 0 };
	const char *at = text;

	for (;;) {
		size_t n = strcspn(at, ",");

		if (s.n == SHIM_SPACES_MAX)
			return errmsg_say(em, -EINVAL,
			                  "it names more than %u spaces",
			                  SHIM_SPACES_MAX);
		if (!parse_one(at, n, &s.v[s.n]))
			return errmsg_say(em, -EINVAL,
			                  "'%.*s' is not NAME=DESCRIPTOR",
			                  (int)min_u64(n, 100), at);
		s.n++;
		if (at[n] == '\0')
			break;
		at += n + 1;
	}
	*ret = s;
	return 0;
}

/* Raw, for fcntl(3) is hooked, and there is nothing to it here. */
static bool is_sealed(int fd)
{
	long seals = syscall(SYS_fcntl, fd, F_GET_SEALS);

	return seals >= 0 && (seals & SEALS) == SEALS;
}

int spaces_look(struct shim_spaces *s, struct errmsg *em)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct shim_space *sp = &s->v[i];
		struct stat st;

		if (fstat(sp->fd, &st) < 0)
			continue;
		if (!is_sealed(sp->fd) || st.st_size <= 0)
			return errmsg_say(
				em, -EINVAL,
				"descriptor %d, named for space %s, is "
				"no space's memory",
				sp->fd, sp->name);
		sp->dev = st.st_dev;
		sp->ino = st.st_ino;
		sp->bytes = (uint64_t)st.st_size;
		sp->here = true;
	}
	return 0;
}

const struct shim_space *spaces_find(const struct shim_spaces *s, int fd)
{
	const struct shim_space *found = NULL;
	int error = errno;
	struct stat st;

	if (s->n == 0 || fd < 0)
		return NULL;
	if (is_sealed(fd) && fstat(fd, &st) == 0)
		for (unsigned i = 0; i < s->n && !found; i++)
			if (s->v[i].here && s->v[i].dev == st.st_dev &&
			    s->v[i].ino == st.st_ino)
				found = &s->v[i];
	errno = error; /* whoever asked did nothing wrong */
	return found;
}
