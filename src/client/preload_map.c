/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings of spaces: making, parting and ending them.
 *
 * A table has a row for each.  Hooks look at it without a lock, as nearly all
 * they are asked about is something else; who finds an address of a space
 * takes the lock and looks again.
 *
 * The order at the end [A10]: first nobody can touch the addresses any more
 * (mprotect), then the node lets go of them and says so, then they are given
 * up.  The kernel does not check whose userfaultfd it is: an ioctl of the node
 * that came late would work on whatever is there next.
 *
 * So of a mapping that is unmapped in part, no address is given up before all
 * of it is unmapped: until then the part stays reserved, without access, and
 * the node goes on serving it.  To anyone but a reader of /proc/self/maps that
 * is the same.  What would be another thing, to map something over a part of a
 * space, is refused.
 */

/* Declarations of mmap() and mmap64() as two functions. */
#undef _FILE_OFFSET_BITS

#include "client/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define SERVED_MAX 64u

/* Newer than the headers of Debian 12. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct served {
	/* What readers without the lock look at; 0, 0: a free row.  A reader
	 * that sees one of them old and one new takes the lock for nothing, or
	 * misses a mapping whose address nobody was told yet. */
	_Atomic uintptr_t start, end;
	/* Under the lock. */
	struct memspan *m;
	const struct shim_space *space;
	struct shim_parts unmapped;
};

static struct served table[SERVED_MAX];
static _Atomic unsigned rows; /* so many were ever used: what to look at */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- the table ----------------------------------------------------------- */

void shim_lock(struct shim_locked *l)
{
	sigset_t all;

	sigfillset(&all);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &l->cancel);
	pthread_sigmask(SIG_SETMASK, &all, &l->mask);
	pthread_mutex_lock(&lock);
	shim_inside = true;
}

void shim_unlock(const struct shim_locked *l)
{
	int error = errno;

	shim_inside = false;
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, &l->mask, NULL);
	pthread_setcancelstate(l->cancel, NULL);
	errno = error;
}

static bool overlaps(const struct served *v, uintptr_t start, uintptr_t end)
{
	return atomic_load_explicit(&v->start, memory_order_acquire) < end &&
	       start < atomic_load_explicit(&v->end, memory_order_acquire);
}

static uintptr_t page_up(uintptr_t n)
{
	return (n + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
}

/* The end of a range that a caller named; its start if it makes no sense. */
static uintptr_t end_of(const void *addr, size_t bytes)
{
	uintptr_t start = (uintptr_t)addr;

	if (bytes > UINTPTR_MAX - PAGE_BYTES - start)
		return start; /* the kernel will refuse it */
	return page_up(start + bytes);
}

/* Is anything of a space mapped there?  No lock. */
static bool touches(const void *addr, size_t bytes)
{
	uintptr_t end = end_of(addr, bytes);

	if (shim_inside)
		return false;
	for (unsigned i = 0, n = atomic_load(&rows); i < n; i++)
		if (overlaps(&table[i], (uintptr_t)addr, end))
			return true;
	return false;
}

/* The mapping with the lowest address in [start, end), or NULL. */
static struct served *first_in(uintptr_t start, uintptr_t end)
{
	struct served *first = NULL;

	for (unsigned i = 0; i < rows; i++)
		if (overlaps(&table[i], start, end) &&
		    (!first || table[i].start < first->start))
			first = &table[i];
	return first;
}

static struct served *free_row(void)
{
	for (unsigned i = 0; i < SERVED_MAX; i++)
		if (!table[i].m)
			return &table[i];
	return NULL;
}

const char *shim_any_mapped(void)
{
	for (unsigned i = 0; i < rows; i++)
		if (table[i].m)
			return table[i].space->name;
	return NULL;
}

/* --- the kernel's calls -------------------------------------------------- */

static void *raw_mmap(void *addr, size_t bytes, int prot, int flags, int fd,
                      off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, bytes, prot, flags, fd, offset);
}

static int raw_munmap(uintptr_t start, uintptr_t end)
{
	return (int)syscall(SYS_munmap, start, end - start);
}

/* --- ending -------------------------------------------------------------- */

/*
 * The node lets go of a mapping.  With `keep` its addresses stay mapped,
 * without access and unwatched, for the caller to replace; else they are given
 * up.  Returns 0, or -EBUSY if the node did not say that it let go: then the
 * addresses stay reserved for ever.
 */
static int end_mapping(struct served *v, bool keep)
{
	struct memspan *m = v->m;
	int r;

	(void)mprotect(m->addr, m->bytes, PROT_NONE);
	client_leave(m);
	r = m->handed ? -EBUSY : 0;
	if (r == 0 && keep)
		m->addr = NULL; /* client_free() leaves it alone then */
	v->m = client_free(m);
	v->space = NULL;
	v->unmapped.n = 0;
	atomic_store(&v->start, 0);
	atomic_store(&v->end, 0);
	return r;
}

/* Unmap what [start, end) has of it.  Returns 0 or -ENOMEM. */
static int unmap_part(struct served *v, uintptr_t start, uintptr_t end)
{
	uintptr_t from = max_u64(start, v->start);
	uintptr_t to = min_u64(end, v->end);

	if (parts_add(&v->unmapped, from, to) < 0) {
		shim_say("space %s: too many parts of one mapping were "
		         "unmapped; unmap all of it",
		         v->space->name);
		return -ENOMEM;
	}
	if (parts_cover(&v->unmapped, v->start, v->end)) {
		(void)end_mapping(v, false);
		return 0;
	}
	return mprotect((void *)from, to - from, PROT_NONE) < 0 ? -errno : 0;
}

/* munmap(2) of a range with spaces in it.  Returns 0 or -errno. */
static int unmap(uintptr_t at, uintptr_t end)
{
	while (at < end) {
		struct served *v = first_in(at, end);
		uintptr_t from = v ? max_u64(v->start, at) : end;
		uintptr_t to = v ? min_u64(v->end, end) : end;
		int r = 0;

		if (from > at && raw_munmap(at, from) < 0)
			return -errno;
		if (v)
			r = unmap_part(v, from, to);
		if (r < 0)
			return r;
		at = to;
	}
	return 0;
}

/*
 * Something shall be mapped over [start, end): end all that is mapped there, if
 * nothing would be left of it.  Returns 0 with the addresses still mapped, or
 * -errno with errno said.
 */
static int clear_for(uintptr_t start, uintptr_t end)
{
	struct served *v;

	for (unsigned i = 0; i < rows; i++) {
		struct shim_parts gone = table[i].unmapped;

		v = &table[i];
		if (!overlaps(v, start, end))
			continue;
		if (parts_add(&gone, start, end) == 0 &&
		    parts_cover(&gone, v->start, v->end))
			continue;
		return shim_refuse(SHIM_OVER,
		                   "space %s: mapping something over a part of "
		                   "its mapping is refused; unmap all of it "
		                   "first, or map over all of it",
		                   v->space->name);
	}
	while ((v = first_in(start, end)) != NULL) {
		uintptr_t from = v->start, to = v->end;
		const char *name = v->space->name;
		int r = end_mapping(v, true);

		if (r < 0) {
			shim_say("space %s: its node did not let go of a "
			         "mapping, so nothing can be mapped over it",
			         name);
			return r;
		}
		/* What was unmapped of it before and is not replaced now. */
		if (from < start)
			(void)raw_munmap(from, start);
		if (to > end)
			(void)raw_munmap(end, to);
	}
	return 0;
}

/* --- making -------------------------------------------------------------- */

/* How mmap(2) was called. */
struct call {
	void *addr;
	size_t bytes;
	int prot, flags, fd;
	off_t offset;
};

/* What the kernel would refuse, or must not do, with a space. */
static int check_call(const struct call *c, const struct shim_space *sp)
{
	int type = c->flags & MAP_TYPE;
	int access = fcntl(c->fd, F_GETFL) & O_ACCMODE;

	if (type == MAP_PRIVATE)
		return shim_refuse(
			SHIM_PRIVATE,
			"space %s: a MAP_PRIVATE mapping is refused, "
			"as its holes would read as zeros; map it "
			"MAP_SHARED",
			sp->name);
	if (c->bytes == 0 || c->offset < 0 || c->offset % PAGE_BYTES != 0 ||
	    ((c->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) &&
	     (uintptr_t)c->addr % PAGE_BYTES != 0))
		return -EINVAL;
	if (access == O_WRONLY ||
	    (access == O_RDONLY && (c->prot & PROT_WRITE)))
		return -EACCES;
	if (type == MAP_SHARED_VALIDATE && (c->flags & MAP_SYNC))
		return -EOPNOTSUPP;
	if (c->bytes <= sp->bytes &&
	    (uint64_t)c->offset <= sp->bytes - page_up(c->bytes))
		return 0;
	shim_say(
		"space %s cannot be mapped: it has %llu bytes, and the mapping "
		"would reach beyond",
		sp->name, (unsigned long long)sp->bytes);
	return -EINVAL;
}

static int attach(const struct call *c, const struct shim_space *sp,
                  struct served *v)
{
	/* Not what would touch pages before the node serves them, or lock
	 * them: MAP_POPULATE, MAP_LOCKED [A12]. */
	const int flags = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_NORESERVE |
#ifdef MAP_32BIT
	                  MAP_32BIT |
#endif
	                  MAP_STACK;
	const struct client_part part = {
		.offset = (uint64_t)c->offset,
		.bytes = page_up(c->bytes),
		.addr = c->addr,
		.flags = c->flags & flags,
		.prot = c->prot,
		.dev = sp->dev,
		.ino = sp->ino,
	};
	const struct client_options opt = { .node_socket = shim.node,
		                            .space = sp->name,
		                            .part = &part };
	struct errmsg em = { "" };
	int r;

	r = client_attach(&opt, &v->m, &em);
	if (r < 0) {
		shim_say("space %s cannot be mapped: %s", sp->name, em.text);
		return r;
	}
	v->space = sp;
	atomic_store(&rows, (unsigned)max_u64(rows, (uint64_t)(v - table) + 1));
	atomic_store(&v->end, (uintptr_t)v->m->addr + v->m->bytes);
	atomic_store(&v->start, (uintptr_t)v->m->addr);
	return 0;
}

/* mmap(2) of a space, under the lock.  Returns 0 with *ret, or -errno. */
static int map_space(const struct call *c, const struct shim_space *sp,
                     void **ret)
{
	uintptr_t end = end_of(c->addr, c->bytes);
	struct served *v;
	int r = check_call(c, sp);

	if (r == 0 && (c->flags & MAP_FIXED))
		r = clear_for((uintptr_t)c->addr, end);
	if (r < 0)
		return r;
	v = free_row();
	if (!v) {
		shim_say("space %s cannot be mapped: this program has %u "
		         "mappings of spaces, and there may not be more",
		         sp->name, SERVED_MAX);
		return -ENOMEM;
	}
	r = attach(c, sp, v);
	if (r < 0)
		return r;
	*ret = v->m->addr;
	return 0;
}

/* mmap(2) of something else over a space, under the lock. */
static int map_over(const struct call *c, void **ret)
{
	uintptr_t start = (uintptr_t)c->addr, end = end_of(c->addr, c->bytes);
	int r = clear_for(start, end);

	if (r < 0)
		return r;
	*ret = raw_mmap(c->addr, c->bytes, c->prot, c->flags, c->fd, c->offset);
	if (*ret != MAP_FAILED)
		return 0;
	r = -errno;
	(void)raw_munmap(start, end); /* what clear_for() has left there */
	return r;
}

SHIM_API void *mmap(void *addr, size_t bytes, int prot, int flags, int fd,
                    off_t offset)
{
	const struct call c = { addr, bytes, prot, flags, fd, offset };
	const struct shim_space *sp =
		flags & MAP_ANONYMOUS ? NULL : shim_space_of(fd);
	struct shim_locked l;
	void *p = MAP_FAILED;
	int r;

	if (!sp && (!(flags & MAP_FIXED) || !touches(addr, bytes)))
		return raw_mmap(addr, bytes, prot, flags, fd, offset);
	shim_lock(&l);
	r = sp ? map_space(&c, sp, &p) : map_over(&c, &p);
	shim_unlock(&l);
	(void)shim_posix(r);
	return p;
}

SHIM_API void *mmap64(void *addr, size_t bytes, int prot, int flags, int fd,
                      off_t offset) __attribute__((alias("mmap")));

SHIM_API int munmap(void *addr, size_t bytes)
{
	struct shim_locked l;
	int r;

	if (!touches(addr, bytes) || (uintptr_t)addr % PAGE_BYTES != 0)
		return (int)syscall(SYS_munmap, addr, bytes);
	shim_lock(&l);
	r = unmap((uintptr_t)addr, end_of(addr, bytes));
	shim_unlock(&l);
	return shim_posix(r);
}

/* --- changing ------------------------------------------------------------ */

SHIM_API void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...)
{
	void *to = NULL;
	va_list args;

	if (flags & MREMAP_FIXED) {
		va_start(args, flags);
		to = va_arg(args, void *);
		va_end(args);
	}
	/* A moved mapping would not be watched [A13], nor a second one, which
	 * is what old_bytes == 0 makes of a shared one. */
	if (!touches(old, max_u64(old_bytes, 1)) &&
	    (!to || !touches(to, bytes)))
		return (void *)syscall(SYS_mremap, old, old_bytes, bytes, flags,
		                       to);
	(void)shim_posix(shim_refuse(SHIM_MREMAP,
	                             "mremap(2) of a space's mapping, or over "
	                             "one, is refused; map it anew"));
	return MAP_FAILED;
}

SHIM_API int remap_file_pages(void *addr, size_t bytes, int prot, size_t page,
                              int flags)
{
	if (!touches(addr, bytes))
		return (int)syscall(SYS_remap_file_pages, addr, bytes, prot,
		                    page, flags);
	return shim_posix(shim_refuse(
		SHIM_MREMAP, "remap_file_pages(2) of a space's mapping "
			     "is refused; map it anew"));
}

/* MADV_REMOVE, under the lock. */
static int remove_range(uintptr_t start, uintptr_t end)
{
	const struct served *v = first_in(start, end);

	if (!v || start < v->start || end > v->end || start % PAGE_BYTES != 0)
		return -EINVAL; /* not one mapping */
	return client_discard(v->m, v->m->offset + (start - v->start),
	                      end - start);
}

SHIM_API int madvise(void *addr, size_t bytes, int advice)
{
	struct shim_locked l;
	int r;

	if (!touches(addr, bytes))
		return (int)syscall(SYS_madvise, addr, bytes, advice);
	switch (advice) {
	case MADV_REMOVE:
		shim_lock(&l);
		r = remove_range((uintptr_t)addr, end_of(addr, bytes));
		shim_unlock(&l);
		return shim_posix(r);
	case MADV_HUGEPAGE: /* advice that cannot be followed here: a page is */
	case MADV_DODUMP:   /* 4 KiB, and a dump would fetch all of them */
		return 0;
	case MADV_DOFORK:
	case MADV_COLLAPSE:
		return shim_posix(shim_refuse(
			SHIM_ADVICE,
			"madvise(2): a space's mapping goes to no child of "
			"fork(2), and has no huge pages"));
	default: /* DONTNEED too: it drops entries, and changes no contents */
		return (int)syscall(SYS_madvise, addr, bytes, advice);
	}
}

/* --- discard ------------------------------------------------------------- */

static struct served *mapped_of(const struct shim_space *sp)
{
	for (unsigned i = 0; i < rows; i++)
		if (table[i].m && table[i].space == sp)
			return &table[i];
	return NULL;
}

/* Of a space that is not mapped now: attach it for as long as this takes. */
static int discard_unmapped(const struct shim_space *sp, uint64_t offset,
                            uint64_t bytes)
{
	const struct client_part part = { .offset = offset,
		                          .bytes = bytes,
		                          .prot = PROT_NONE,
		                          .dev = sp->dev,
		                          .ino = sp->ino };
	const struct client_options opt = { .node_socket = shim.node,
		                            .space = sp->name,
		                            .part = &part };
	struct memspan *m = NULL;
	struct errmsg em = { "" };
	int r;

	r = client_attach(&opt, &m, &em);
	if (r < 0) {
		shim_say("space %s: %s", sp->name, em.text);
		return r;
	}
	r = client_discard(m, offset, bytes);
	memspan_detach(m);
	return r;
}

int shim_discard(const struct shim_space *sp, uint64_t offset, uint64_t bytes)
{
	const struct served *v;
	struct shim_locked l;
	int r;

	shim_lock(&l);
	v = mapped_of(sp);
	r = v ? client_discard(v->m, offset, bytes) :
	        discard_unmapped(sp, offset, bytes);
	shim_unlock(&l);
	return r;
}
