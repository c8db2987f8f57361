/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd: one ioctl for a run in the ordinary case, and what to do in all others.
 *
 * The five operations that change a client's mapping (and poison, the sixth)
 * differ in one structure each, and share everything that can go wrong.  So
 * each is a `struct op`; op_ioctl() tries it on a range, op_run() tries the
 * whole run, and only when the kernel did not finish it does op_finish() look
 * at what was done and why the rest was not:
 *
 *	.copy > 0   that much is done (and woken); go on behind it.  The errno
 *	            is then EAGAIN, whatever it was that stopped the kernel.
 *	.copy <= 0  nothing is done, and errno speaks of the first page of the
 *	            range alone, except ENOENT, which may speak of any.
 *
 * Every round of op_finish() finishes a page at least, or is one of a bounded
 * number of repetitions, so it ends.
 *
 * The kernel wakes waiters only behind what it did itself.  A thread that waits
 * for a page which turns out to be there already, or which another thread of
 * the client has unmapped, would sleep for ever; so those are woken by hand,
 * and fault anew or go on, as it may be.
 *
 * Not one of these threads' accesses goes through us: we never touch the
 * client's memory, nor the alias.
 */

#include "fault/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "fault/uffd_kernel.h"

/*
 * A client whose mapping is changing keeps answering EAGAIN until its change is
 * through, which may need us to read a message first.  A few repetitions cover
 * the races inside the kernel; longer waits belong to a later turn of the loop.
 */
#define UFFD_EAGAIN_TRIES 4u

#define UFFD_SLOW_NS (10 * NSEC_PER_MSEC)

/* So that each caller's constant `op` leaves one ioctl and no switch. */
#define INLINE inline __attribute__((always_inline))

struct uffd {
	int fd;
	bool gone; /* an ioctl said ESRCH: read(2) itself never tells */
	struct uffd_features features;
	uint64_t base; /* client address of page `first` */
	gpn_t first;
	uint64_t pages;
	uint64_t slow; /* ioctls above UFFD_SLOW_NS */
};

enum op_kind {
	OP_COPY,
	OP_ZERO,
	OP_CONTINUE,
	OP_PROTECT,
	OP_UNPROTECT,
	OP_POISON,
};

struct op {
	enum op_kind kind;
	unsigned flags;     /* UFFD_WP, UFFD_DONTWAKE */
	const uint8_t *src; /* OP_COPY: bytes of the run's first page */
};

static const char *const op_name[] = {
	[OP_COPY] = "UFFDIO_COPY",
	[OP_ZERO] = "UFFDIO_ZEROPAGE",
	[OP_CONTINUE] = "UFFDIO_CONTINUE",
	[OP_PROTECT] = "UFFDIO_WRITEPROTECT",
	[OP_UNPROTECT] = "UFFDIO_WRITEPROTECT (clear)",
	[OP_POISON] = "UFFDIO_POISON",
};

/* --- set-up -------------------------------------------------------------- */

/*
 * The descriptor and the range come from a client: UFFDIO_WAKE, which has no
 * effect on a mapping that nobody touched yet, makes the kernel check both, so
 * that what it says later is not about them.
 */
int uffd_adopt(const struct uffd_config *cfg, struct uffd **ret,
               struct errmsg *em)
{
	struct uffdio_range all = { .start = cfg->base,
		                    .len = cfg->pages * PAGE_BYTES };
	AUTO_CLOSE int fd = cfg->fd;
	struct uffd *u;
	int flags;

	if (cfg->base % PAGE_BYTES != 0 || cfg->pages == 0 ||
	    cfg->pages > UINT64_MAX / PAGE_BYTES ||
	    cfg->first > UINT64_MAX - cfg->pages)
		return errmsg_set(em, -EINVAL,
		                  "a client's mapping is not made of pages");
	if (ioctl(fd, UFFDIO_WAKE, &all) < 0)
		return errmsg_set(em, -errno,
		                  "a client sent a descriptor that is no "
		                  "userfaultfd of its mapping");
	/* Whoever made it, our reads must not block. */
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return errmsg_set(em, -errno,
		                  "cannot set up a client's userfaultfd");

	u = calloc(1, sizeof(*u));
	if (u == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for a userfaultfd");
	*u = (struct uffd){
		.fd = TAKE_FD(fd),
		.features = cfg->features,
		.base = cfg->base,
		.first = cfg->first,
		.pages = cfg->pages,
	};
	*ret = u;
	return 0;
}

struct uffd *uffd_free(struct uffd *u)
{
	if (u == NULL)
		return NULL;
	/* The client keeps its own copy open: nothing is unregistered. */
	close(u->fd);
	free(u);
	return NULL;
}

int uffd_fd(const struct uffd *u)
{
	return u->fd;
}

gpn_t uffd_first(const struct uffd *u)
{
	return u->first;
}

uint64_t uffd_pages(const struct uffd *u)
{
	return u->pages;
}

uint64_t uffd_stat_slow(const struct uffd *u)
{
	return u->slow;
}

/* --- ioctls -------------------------------------------------------------- */

/* Never for what a client or a race can cause: those have outcomes. */
static _Noreturn void unexpected(const char *what, int e)
{
	errno = e;
	perror(what);
	abort();
}

/* The coarse clock is a tick off at most and costs a fifth of the fine one. */
static nsec_t coarse_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

/* Returns 0 or the errno (positive: it goes no further than this file). */
static int timed_ioctl(struct uffd *u, unsigned long cmd, void *arg)
{
	const nsec_t before = coarse_now();
	const int e = ioctl(u->fd, cmd, arg) < 0 ? errno : 0;

	if (__builtin_expect(coarse_now() - before > UFFD_SLOW_NS, 0))
		u->slow++;
	return e;
}

static struct uffdio_range range_of(const struct uffd *u, gpn_t first,
                                    uint64_t pages)
{
	assert(first >= u->first && pages > 0);
	assert(first - u->first + pages <= u->pages);
	return (struct uffdio_range){
		.start = u->base + (first - u->first) * PAGE_BYTES,
		.len = pages * PAGE_BYTES,
	};
}

/* COPY and CONTINUE agree on the bits, which are ours with the order turned. */
static uint64_t kernel_mode(unsigned flags)
{
	static_assert(UFFDIO_COPY_MODE_WP == UFFD_WP << 1 &&
	                      UFFDIO_COPY_MODE_DONTWAKE == UFFD_DONTWAKE >> 1,
	              "bits are turned by shifting");
	static_assert(UFFD_KERNEL_CONTINUE_WP == UFFDIO_COPY_MODE_WP &&
	                      UFFDIO_CONTINUE_MODE_DONTWAKE ==
	                              UFFDIO_COPY_MODE_DONTWAKE,
	              "one mapping serves both");
	return (flags & UFFD_WP) << 1 | (flags & UFFD_DONTWAKE) >> 1;
}

static uint32_t pages_of(int64_t bytes)
{
	return bytes > 0 ? (uint32_t)((uint64_t)bytes / PAGE_BYTES) : 0;
}

/*
 * Try `op` on `pages` pages from `at`; `skip` is how far that is behind the
 * run's first page.  *did: so many were done, also on failure.
 */
static INLINE int op_ioctl(struct uffd *u, const struct op *op, gpn_t at,
                           uint32_t pages, uint32_t skip, uint32_t *did)
{
	const struct uffdio_range range = range_of(u, at, pages);
	int e = 0;

	switch (op->kind) {
	case OP_COPY: {
		struct uffdio_copy copy = {
			.dst = range.start,
			.src = (uintptr_t)op->src + (uint64_t)skip * PAGE_BYTES,
			.len = range.len,
			.mode = kernel_mode(op->flags),
		};

		e = timed_ioctl(u, UFFDIO_COPY, &copy);
		*did = pages_of(copy.copy);
		break;
	}
	case OP_ZERO: {
		struct uffdio_zeropage zero = {
			.range = range,
			.mode = kernel_mode(op->flags),
		};

		e = timed_ioctl(u, UFFDIO_ZEROPAGE, &zero);
		*did = pages_of(zero.zeropage);
		break;
	}
	case OP_CONTINUE: {
		struct uffdio_continue cont = {
			.range = range,
			.mode = kernel_mode(op->flags),
		};

		e = timed_ioctl(u, UFFDIO_CONTINUE, &cont);
		*did = pages_of(cont.mapped);
		break;
	}
	case OP_PROTECT:
	case OP_UNPROTECT: {
		struct uffdio_writeprotect wp = { .range = range };

		/* The kernel refuses DONTWAKE where nothing would be woken. */
		if (op->kind == OP_PROTECT)
			wp.mode = UFFDIO_WRITEPROTECT_MODE_WP;
		else if (op->flags & UFFD_DONTWAKE)
			wp.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
		e = timed_ioctl(u, UFFDIO_WRITEPROTECT, &wp);
		*did = e == 0 ? pages : 0; /* no word of partial work */
		break;
	}
	case OP_POISON: {
		struct uffd_poison_arg poison = {
			.range = range,
			.mode = kernel_mode(op->flags),
		};

		e = timed_ioctl(u, UFFD_KERNEL_POISON, &poison);
		*did = pages_of(poison.updated);
		break;
	}
	}
	return e;
}

/* --- runs ---------------------------------------------------------------- */

static void wake_page(struct uffd *u, const struct op *op, gpn_t page)
{
	if (!(op->flags & UFFD_DONTWAKE))
		(void)uffd_wake(u, page, 1);
}

/*
 * Why the first page of what is left of a run was not done.  UFFD_DONE and
 * UFFD_ABSENT: there is nothing more to do about it.
 */
static enum uffd_outcome op_explain(struct uffd *u, const struct op *op, int e)
{
	switch (e) {
	case EEXIST:
		/* Mapped, or not mapped here but in the memfd (COPY through
		 * another client): the waiter's next fault will be a MINOR one,
		 * or find it. */
		return UFFD_DONE;
	case EAGAIN:
		return UFFD_AGAIN;
	case ENOENT:
		return UFFD_ABSENT;
	case EINVAL:
		/* Range and modes are right (uffd_adopt(), op_ioctl()), so the
		 * client mapped memory of another kind there. */
		return UFFD_ABSENT;
	case ESRCH:
		u->gone = true;
		return UFFD_GONE;
	case ENOMEM:
		return UFFD_NOMEM;
	case EIO: /* the page's memory has failed: its bytes are gone */
		if (op->kind == OP_CONTINUE)
			return UFFD_BREACH;
		break;
	case EFAULT:
		if (op->kind == OP_CONTINUE)
			return UFFD_BREACH;
		/* Behind the end of a shorter file that the client mapped over
		 * the space.  Our own source is checked where such a page goes
		 * next: space_mem_write(). */
		if (op->kind == OP_COPY || op->kind == OP_ZERO)
			return UFFD_ABSENT;
		break;
	default:
		break;
	}
	unexpected(op_name[op->kind], e);
}

/*
 * The first ioctl for the whole run failed with `e` after `did` pages.  Bring
 * the run to an end, one obstacle at a time.
 */
static enum uffd_outcome op_finish(struct uffd *u, const struct op *op,
                                   struct uffd_run *run, int e, uint32_t did)
{
	enum uffd_outcome worst = UFFD_DONE;
	bool alone = false; /* page by page */
	unsigned tries = 0;

	run->done = 0;
	run->found = 0;
	for (;;) {
		const bool tail = !alone && run->pages - run->done > 1;
		enum uffd_outcome o = UFFD_DONE;

		if (did > 0) {
			run->done += did;
			tries = 0;
		} else {
			o = op_explain(u, op, e);
		}

		if (did > 0) {
			; /* go on behind it */
		} else if (o == UFFD_ABSENT && tail) {
			/* A run that is not one mapping is refused, or was done
			 * in part: which page is to blame shows one by one. */
			alone = true;
		} else if (o == UFFD_DONE || o == UFFD_ABSENT) {
			if (o == UFFD_DONE)
				run->found |= 1ull << run->done;
			wake_page(u, op, run->first + run->done);
			run->done++;
			if (o > worst)
				worst = o;
		} else if (o == UFFD_AGAIN && ++tries < UFFD_EAGAIN_TRIES) {
			(void)sched_yield();
		} else {
			return o;
		}

		if (run->done == run->pages)
			return worst;
		e = op_ioctl(u, op, run->first + run->done,
		             alone ? 1 : run->pages - run->done, run->done,
		             &did);
	}
}

static INLINE enum uffd_outcome op_whole(struct uffd *u, const struct op *op,
                                         struct uffd_run *run)
{
	uint32_t did = 0;
	int e;

	assert(run->pages <= RUN_PAGES);

	e = op_ioctl(u, op, run->first, run->pages, 0, &did);
	if (__builtin_expect(e != 0, 0))
		return op_finish(u, op, run, e, did);
	run->done = run->pages;
	run->found = 0;
	return UFFD_DONE;
}

static bool covers(const struct uffd *u, gpn_t first, uint64_t pages)
{
	return first >= u->first && first - u->first + pages <= u->pages;
}

/*
 * The client has mapped a part of the stripe, and the end of it cuts the run in
 * two, or the run lies outside: there nothing is mapped.
 */
static enum uffd_outcome op_part(struct uffd *u, const struct op *op,
                                 struct uffd_run *run)
{
	gpn_t first = max_u64(run->first, u->first);
	gpn_t end = min_u64(run->first + run->pages, u->first + u->pages);
	struct uffd_run inner = { .first = first };
	uint32_t skip = (uint32_t)(first - run->first);
	struct op inner_op = *op;
	enum uffd_outcome o;

	run->done = run->pages;
	run->found = 0;
	if (first >= end)
		return UFFD_ABSENT;
	inner.pages = (uint32_t)(end - first);
	if (op->kind == OP_COPY)
		inner_op.src += (size_t)skip * PAGE_BYTES;
	o = op_whole(u, &inner_op, &inner);
	if (inner.done < inner.pages)
		run->done = skip + inner.done;
	run->found = inner.found << skip;
	return o > UFFD_ABSENT ? o : UFFD_ABSENT;
}

static INLINE enum uffd_outcome op_run(struct uffd *u, const struct op *op,
                                       struct uffd_run *run)
{
	if (__builtin_expect(covers(u, run->first, run->pages), 1))
		return op_whole(u, op, run);
	return op_part(u, op, run);
}

enum uffd_outcome uffd_copy(struct uffd *u, struct uffd_run *run,
                            const void *src, unsigned flags)
{
	const struct op op = { .kind = OP_COPY, .flags = flags, .src = src };

	return op_run(u, &op, run);
}

enum uffd_outcome uffd_zero(struct uffd *u, struct uffd_run *run,
                            unsigned flags)
{
	const struct op op = { .kind = OP_ZERO, .flags = flags };

	assert(!(flags & UFFD_WP)); /* the kernel has no such mode */
	return op_run(u, &op, run);
}

enum uffd_outcome uffd_continue(struct uffd *u, struct uffd_run *run,
                                unsigned flags)
{
	const struct op op = { .kind = OP_CONTINUE, .flags = flags };

	assert(!(flags & UFFD_WP) || u->features.minor_wp);
	return op_run(u, &op, run);
}

enum uffd_outcome uffd_protect(struct uffd *u, struct uffd_run *run)
{
	/* Whoever waits, waits for something else: DONTWAKE. */
	const struct op op = { .kind = OP_PROTECT, .flags = UFFD_DONTWAKE };

	return op_run(u, &op, run);
}

enum uffd_outcome uffd_unprotect(struct uffd *u, struct uffd_run *run,
                                 unsigned flags)
{
	const struct op op = { .kind = OP_UNPROTECT, .flags = flags };

	assert(!(flags & UFFD_WP));
	return op_run(u, &op, run);
}

/*
 * The kernel poisons only entries that are empty, and a page that was ever
 * taken has left a write-protect marker in its own: so that goes first [A15].
 * In between the entry is empty and the memfd has a hole: an access faults as
 * MISSING, and the answer to that fault is to poison.
 */
enum uffd_outcome uffd_poison(struct uffd *u, gpn_t page)
{
	const struct op op = { .kind = OP_POISON };
	struct uffd_run run = { .first = page, .pages = 1 };
	enum uffd_outcome o;

	if (!u->features.poison)
		return UFFD_ABSENT;
	o = uffd_unprotect(u, &run, UFFD_DONTWAKE);
	if (o == UFFD_DONE)
		o = op_run(u, &op, &run);
	/* Not mapped there: nobody can read zeros. */
	return o == UFFD_ABSENT ? UFFD_DONE : o;
}

enum uffd_outcome uffd_wake(struct uffd *u, gpn_t first, uint64_t pages)
{
	struct uffdio_range range;
	int e;

	if (!covers(u, first, pages))
		return UFFD_ABSENT;
	range = range_of(u, first, pages);
	e = timed_ioctl(u, UFFDIO_WAKE, &range);
	/* It looks at the waiters alone, not at the client's mapping. */
	if (e != 0)
		unexpected("UFFDIO_WAKE", e);
	return UFFD_DONE;
}

/* --- faults -------------------------------------------------------------- */

/*
 * What stands in a message is the kernel's word, but the client made the
 * userfaultfd: it may have asked for events, or watch more with it than it told
 * us.  Neither concerns a page of ours.
 */
static bool fault_of(const struct uffd *u, const struct uffd_msg *m,
                     struct uffd_fault *ret)
{
	const uint64_t flags = m->arg.pagefault.flags;
	const uint64_t page = (m->arg.pagefault.address - u->base) / PAGE_BYTES;

	if (m->event != UFFD_EVENT_PAGEFAULT || page >= u->pages)
		return false;
	*ret = (struct uffd_fault){
		.page = u->first + page,
		.kind = flags & UFFD_PAGEFAULT_FLAG_WP    ? UFFD_FAULT_WP :
		        flags & UFFD_PAGEFAULT_FLAG_MINOR ? UFFD_FAULT_MINOR :
		                                            UFFD_FAULT_MISSING,
		.write = (flags & (UFFD_PAGEFAULT_FLAG_WRITE |
		                   UFFD_PAGEFAULT_FLAG_WP)) != 0,
		.tid = m->arg.pagefault.feat.ptid,
	};
	return true;
}

int uffd_read(struct uffd *u, struct uffd_fault faults[UFFD_BATCH])
{
	struct uffd_msg batch[UFFD_BATCH];
	int found = 0;
	ssize_t n;

	if (u->gone)
		return -ESRCH;
	n = read(u->fd, batch, sizeof(batch));
	if (n < 0) {
		/* EAGAIN: another operation resolved it before we looked. */
		if (errno != EAGAIN && errno != EINTR)
			unexpected("read of a userfaultfd", errno);
		return 0;
	}
	assert((size_t)n % sizeof(batch[0]) == 0);
	for (size_t i = 0; i < (size_t)n / sizeof(batch[0]); i++)
		found += fault_of(u, &batch[i], &faults[found]);
	return found;
}
