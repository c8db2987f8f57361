/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that take a descriptor.
 *
 * A space's descriptor is there to be mapped.  read(2) of it would give zeros
 * for every page that is elsewhere, and write(2) would make pages behind the
 * node's back [A13]: both are refused, with all their kin.  The kernel has no
 * way to forbid them and still allow a writable mapping.
 *
 * What has a meaning is kept: fallocate(2) to punch a hole is a discard, by
 * which the contents become zeros everywhere [C6]; and memfd_create(2) by the
 * name that QEMU's memory-backend-memfd uses gives the space.
 *
 * stdio reads by calls inside of libc which nobody can hook, so there it is the
 * opening that is refused.
 */

/* Declarations of fallocate() and fallocate64() as two functions. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

#include "client/preload.h"

static_assert(sizeof(off_t) == 8, "one function serves both spellings");

/* 0, or -ENOTSUP if `fd` is a space's. */
static int check_io(int fd, const char *what)
{
	const struct shim_space *sp = shim_space_of(fd);

	if (!sp)
		return 0;
	return shim_refuse(SHIM_IO,
	                   "%s on space %s is refused: it would read zeros for "
	                   "what is elsewhere; map it MAP_SHARED and use the "
	                   "memory",
	                   what, sp->name);
}

/* --- reading and writing ------------------------------------------------- */

SHIM_API ssize_t read(int fd, void *buf, size_t n)
{
	int r = check_io(fd, "read(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.read ? libc.read(fd, buf, n) :
	                   syscall(SYS_read, fd, buf, n);
}

SHIM_API ssize_t write(int fd, const void *buf, size_t n)
{
	int r = check_io(fd, "write(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.write ? libc.write(fd, buf, n) :
	                    syscall(SYS_write, fd, buf, n);
}

SHIM_API ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	int r = check_io(fd, "pread(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.pread ? libc.pread(fd, buf, n, offset) :
	                    syscall(SYS_pread64, fd, buf, n, offset);
}

SHIM_API ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	int r = check_io(fd, "pwrite(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.pwrite ? libc.pwrite(fd, buf, n, offset) :
	                     syscall(SYS_pwrite64, fd, buf, n, offset);
}

SHIM_API ssize_t readv(int fd, const struct iovec *iov, int n)
{
	int r = check_io(fd, "readv(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.readv ? libc.readv(fd, iov, n) :
	                    syscall(SYS_readv, fd, iov, n);
}

SHIM_API ssize_t writev(int fd, const struct iovec *iov, int n)
{
	int r = check_io(fd, "writev(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.writev ? libc.writev(fd, iov, n) :
	                     syscall(SYS_writev, fd, iov, n);
}

SHIM_API ssize_t preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
	int r = check_io(fd, "preadv(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.preadv ? libc.preadv(fd, iov, n, offset) :
	                     syscall(SYS_preadv, fd, iov, n, offset, 0l);
}

SHIM_API ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	int r = check_io(fd, "pwritev(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.pwritev ? libc.pwritev(fd, iov, n, offset) :
	                      syscall(SYS_pwritev, fd, iov, n, offset, 0l);
}

SHIM_API ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset,
                         int flags)
{
	int r = check_io(fd, "preadv2(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.preadv2 ?
	               libc.preadv2(fd, iov, n, offset, flags) :
	               syscall(SYS_preadv2, fd, iov, n, offset, 0l, flags);
}

SHIM_API ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset,
                          int flags)
{
	int r = check_io(fd, "pwritev2(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.pwritev2 ?
	               libc.pwritev2(fd, iov, n, offset, flags) :
	               syscall(SYS_pwritev2, fd, iov, n, offset, 0l, flags);
}

/* What gcc makes of read() and pread() where it checks sizes; no header of
 * glibc declares them to others. */
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t n, off_t offset, size_t room);

SHIM_API ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
	int r = check_io(fd, "read(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.read_chk ? libc.read_chk(fd, buf, n, room) :
	                       syscall(SYS_read, fd, buf, min_u64(n, room));
}

SHIM_API ssize_t __pread_chk(int fd, void *buf, size_t n, off_t offset,
                             size_t room)
{
	int r = check_io(fd, "pread(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.pread_chk ?
	               libc.pread_chk(fd, buf, n, offset, room) :
	               syscall(SYS_pread64, fd, buf, min_u64(n, room), offset);
}

SHIM_API ssize_t pread64(int fd, void *buf, size_t n, off64_t offset)
	__attribute__((alias("pread")));
SHIM_API ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
	__attribute__((alias("pwrite")));
SHIM_API ssize_t preadv64(int fd, const struct iovec *iov, int n,
                          off64_t offset) __attribute__((alias("preadv")));
SHIM_API ssize_t pwritev64(int fd, const struct iovec *iov, int n,
                           off64_t offset) __attribute__((alias("pwritev")));
SHIM_API ssize_t preadv64v2(int fd, const struct iovec *iov, int n,
                            off64_t offset, int flags)
	__attribute__((alias("preadv2")));
SHIM_API ssize_t pwritev64v2(int fd, const struct iovec *iov, int n,
                             off64_t offset, int flags)
	__attribute__((alias("pwritev2")));
SHIM_API ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t offset,
                               size_t room)
	__attribute__((alias("__pread_chk")));

/* --- from one descriptor to another -------------------------------------- */

static int check_both(int out, int in, const char *what)
{
	int r = check_io(in, what);

	return r < 0 ? r : check_io(out, what);
}

SHIM_API ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
	int r = check_both(out, in, "sendfile(2)");

	return r < 0 ? shim_posix(r) :
	               syscall(SYS_sendfile, out, in, offset, n);
}

SHIM_API ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
	__attribute__((alias("sendfile")));

SHIM_API ssize_t copy_file_range(int in, off64_t *in_at, int out,
                                 off64_t *out_at, size_t n, unsigned flags)
{
	int r = check_both(out, in, "copy_file_range(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.copy_file_range ?
	               libc.copy_file_range(in, in_at, out, out_at, n, flags) :
	               syscall(SYS_copy_file_range, in, in_at, out, out_at, n,
	                       flags);
}

SHIM_API ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at,
                        size_t n, unsigned flags)
{
	int r = check_both(out, in, "splice(2)");

	if (r < 0)
		return shim_posix(r);
	return libc.splice ?
	               libc.splice(in, in_at, out, out_at, n, flags) :
	               syscall(SYS_splice, in, in_at, out, out_at, n, flags);
}

/* --- streams ------------------------------------------------------------- */

/* `f`, unless it reads a space: then it is closed, and NULL. */
static FILE *check_stream(FILE *f, const char *what)
{
	const struct shim_space *sp = f ? shim_space_of(fileno(f)) : NULL;

	if (!sp)
		return f;
	(void)fclose(f);
	(void)shim_posix(shim_refuse(SHIM_STDIO,
	                             "%s of space %s is refused: it would read "
	                             "zeros for what is elsewhere; map it "
	                             "MAP_SHARED and use the memory",
	                             what, sp->name));
	return NULL;
}

SHIM_API FILE *fopen(const char *path, const char *mode)
{
	if (!libc.fopen)
		shim_find_libc();
	return check_stream(libc.fopen(path, mode), "fopen(3)");
}

SHIM_API FILE *fopen64(const char *path, const char *mode)
	__attribute__((alias("fopen")));

SHIM_API FILE *freopen(const char *path, const char *mode, FILE *f)
{
	if (!libc.freopen)
		shim_find_libc();
	return check_stream(libc.freopen(path, mode, f), "freopen(3)");
}

SHIM_API FILE *freopen64(const char *path, const char *mode, FILE *f)
	__attribute__((alias("freopen")));

SHIM_API FILE *fdopen(int fd, const char *mode)
{
	int r = check_io(fd, "fdopen(3)");

	if (!libc.fdopen)
		shim_find_libc();
	if (r == 0)
		return libc.fdopen(fd, mode);
	(void)shim_posix(r);
	return NULL;
}

/* --- holes, names, seals ------------------------------------------------- */

static int punch(const struct shim_space *sp, int mode, off_t offset,
                 off_t bytes)
{
	if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return shim_refuse(
			SHIM_FALLOCATE,
			"fallocate(2) on space %s is refused, but to "
			"punch a hole: its pages are made when they "
			"are touched",
			sp->name);
	if (offset < 0 || bytes <= 0)
		return -EINVAL;
	if (offset % PAGE_BYTES != 0 || bytes % PAGE_BYTES != 0) {
		(void)shim_refuse(SHIM_FALLOCATE,
		                  "a hole in space %s must be of whole pages",
		                  sp->name);
		return -EINVAL;
	}
	if ((uint64_t)offset >= sp->bytes)
		return 0;
	return shim_discard(sp, (uint64_t)offset,
	                    min_u64((uint64_t)bytes,
	                            sp->bytes - (uint64_t)offset));
}

SHIM_API int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	const struct shim_space *sp = shim_space_of(fd);

	if (sp)
		return shim_posix(punch(sp, mode, offset, bytes));
	return libc.fallocate ?
	               libc.fallocate(fd, mode, offset, bytes) :
	               (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

SHIM_API int fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
	__attribute__((alias("fallocate")));

/* Returns an errno, as posix_fallocate(3) does: libc's would write zeros. */
SHIM_API int posix_fallocate(int fd, off_t offset, off_t bytes)
{
	const struct shim_space *sp = shim_space_of(fd);

	if (sp)
		return -punch(sp, 0, offset, bytes);
	if (!libc.posix_fallocate)
		shim_find_libc();
	return libc.posix_fallocate(fd, offset, bytes);
}

SHIM_API int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
	__attribute__((alias("posix_fallocate")));

/* The first space, for whoever makes a memfd by the name that stands for it. */
static int give_space(const struct shim_space *sp, unsigned flags)
{
	int fd;

	if (flags & MFD_HUGETLB)
		return shim_refuse(
			SHIM_MEMFD,
			"memfd_create(2) of %s: space %s has no huge "
			"pages; leave hugetlb out",
			shim.memfd, sp->name);
	/* The number may be another file's by now, and that is not the space's
	 * memory. */
	if (shim_space_of(sp->fd) != sp) {
		(void)shim_refuse(
			SHIM_MEMFD,
			"memfd_create(2) of %s: descriptor %d of space "
			"%s was closed before; leave it open",
			shim.memfd, sp->fd, sp->name);
		return -EBADF;
	}
	fd = (int)syscall(SYS_fcntl, sp->fd,
	                  flags & MFD_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 3);
	return fd < 0 ? -errno : fd;
}

SHIM_API int memfd_create(const char *name, unsigned flags)
{
	const struct shim_spaces *s = shim_spaces();

	if (!shim_inside && s->n > 0 && name && strcmp(name, shim.memfd) == 0)
		return shim_posix(give_space(&s->v[0], flags));
	return (int)syscall(SYS_memfd_create, name, flags);
}

/* Who asks for seals that a space has anyway, as QEMU does, has them. */
SHIM_API int fcntl(int fd, int cmd, ...)
{
	const long have = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
	va_list args;
	long arg;

	va_start(args, cmd);
	arg = va_arg(args, long);
	va_end(args);
	if (cmd == F_ADD_SEALS && (arg & ~have) == 0 && shim_space_of(fd))
		return 0;
	return libc.fcntl ? libc.fcntl(fd, cmd, arg) :
	                    (int)syscall(SYS_fcntl, fd, cmd, arg);
}

SHIM_API int fcntl64(int fd, int cmd, ...) __attribute__((alias("fcntl")));
