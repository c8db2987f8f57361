/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapping of a space and its userfaultfds, on the client's side.
 *
 * Order is everything here [A12]: the memfd has holes where pages live
 * elsewhere, and whoever touches a hole that is not watched fills it with zeros
 * for all clients of the node.  So the mapping gives no access until the node
 * has the userfaultfds and said so: mlockall(MCL_FUTURE), which populates each
 * new mapping, finds nothing it may touch; a fork in between copies nothing,
 * because MADV_DONTFORK is set before there is any access.
 *
 * None of the UFFD_FEATURE_EVENT_* is asked for: an event that the node has not
 * read, as when it is stopped, makes madvise() wait for it before it drops the
 * entries, and the fence would hang with the program still writing [A2].
 */

#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define EXTENT_BYTES ((uint64_t)EXTENT_PAGES * PAGE_BYTES)

/*
 * Reads of absent pages and writes to read-only ones reach the node, for memfd
 * memory too, with the number of the thread: Linux 5.19.  MINOR is asked for
 * in every mode, because the fence needs it.
 */
#define WATCH_FEATURES                               \
	((uint64_t)UFFD_FEATURE_MISSING_SHMEM |      \
	 (uint64_t)UFFD_FEATURE_MINOR_SHMEM |        \
	 (uint64_t)UFFD_FEATURE_PAGEFAULT_FLAG_WP |  \
	 (uint64_t)UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
	 (uint64_t)UFFD_FEATURE_THREAD_ID)

int watch_map(struct memspan *m, int memfd, void *addr, int flags,
              struct errmsg *em)
{
	static const int advice[] = { MADV_DONTFORK, MADV_DONTDUMP,
		                      MADV_NOHUGEPAGE };
	void *p;

	p = mmap(addr, m->bytes, PROT_NONE, MAP_SHARED | flags, memfd,
	         (off_t)m->offset);
	if (p == MAP_FAILED && errno == EEXIST) /* MAP_FIXED_NOREPLACE */
		return errmsg_say(em, -EEXIST,
		                  "something else is mapped where space %s "
		                  "shall be",
		                  m->name);
	if (p == MAP_FAILED)
		return errmsg_say(em, -ENOMEM,
		                  "cannot map the %llu bytes of space %s (%s); "
		                  "see ulimit -v and ulimit -l",
		                  (unsigned long long)m->bytes, m->name,
		                  strerrordesc_np(errno));
	m->addr = p;
	for (size_t i = 0; i < ARRAY_SIZE(advice); i++)
		/* EINVAL: a kernel built without huge pages. */
		if (madvise(p, m->bytes, advice[i]) < 0 &&
		    !(advice[i] == MADV_NOHUGEPAGE && errno == EINVAL))
			return errmsg_say(em, -ENOMEM,
			                  "cannot set space %s apart from fork "
			                  "and core dumps (%s)",
			                  m->name, strerrordesc_np(errno));
	return 0;
}

/* --- stripes ------------------------------------------------------------- */

/*
 * Stripe s covers the extents [s * n / cut, (s + 1) * n / cut) of the n that
 * the space has, the last of which may be cut short.  core/place.h has the same
 * rule for the node; client may not use core.
 */
static uint64_t stripe_start(const struct memspan *m, uint32_t s)
{
	uint64_t n = (m->space_bytes + EXTENT_BYTES - 1) / EXTENT_BYTES;

	return min_u64(s * n / m->cut * EXTENT_BYTES, m->space_bytes);
}

void watch_cut(struct memspan *m)
{
	uint32_t end;

	while (stripe_start(m, m->first + 1) <= m->offset)
		m->first++;
	end = m->first + 1;
	while (stripe_start(m, end) < m->offset + m->bytes)
		end++;
	m->stripes = end - m->first;
}

/* What is mapped of stripe m->first + i. */
static struct uffdio_range stripe_range(const struct memspan *m, uint32_t i)
{
	uint64_t from = max_u64(stripe_start(m, m->first + i), m->offset);
	uint64_t to = min_u64(stripe_start(m, m->first + i + 1),
	                      m->offset + m->bytes);

	return (struct uffdio_range){
		.start = (uintptr_t)m->addr + (from - m->offset),
		.len = to - from,
	};
}

static int register_stripe(const struct memspan *m, uint32_t i, bool minor)
{
	struct uffdio_register reg = {
		.range = stripe_range(m, i),
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP |
		        (minor ? UFFDIO_REGISTER_MODE_MINOR : 0),
	};

	return ioctl(m->uffd[i], UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

/*
 * The device first: who may open it needs no privilege beside.  If that does
 * not work, for whatever reason, the system call says what stands in the way.
 */
static int open_userfaultfd(int device, int *ret)
{
	int fd = -1;

	if (device >= 0)
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	talk_raise(&fd);
	*ret = fd;
	return 0;
}

static int open_failed(int r, struct errmsg *em)
{
	switch (-r) {
	case EPERM:
	case EACCES:
		return errmsg_say(
			em, -EACCES,
			"this process may not make a userfaultfd; let "
			"its user read and write /dev/userfaultfd, or "
			"give it CAP_SYS_PTRACE, or set sysctl "
			"vm.unprivileged_userfaultfd=1");
	case EMFILE:
	case ENFILE:
		return errmsg_say(em, -EMFILE,
		                  "a space needs a userfaultfd for each 4 MiB, "
		                  "up to 64, and RLIMIT_NOFILE leaves too few; "
		                  "raise ulimit -n");
	case ENOSYS:
		return errmsg_say(em, -ENOSYS,
		                  "this kernel is built without userfaultfd; "
		                  "memspan needs Linux 6.1 with "
		                  "CONFIG_USERFAULTFD");
	default:
		return errmsg_set(em, -ENOMEM, "cannot make a userfaultfd");
	}
}

static int watch_stripe(struct memspan *m, uint32_t i, int device,
                        struct errmsg *em)
{
	struct uffdio_api api = { .api = UFFD_API, .features = WATCH_FEATURES };
	int r;

	r = open_userfaultfd(device, &m->uffd[i]);
	if (r < 0)
		return open_failed(r, em);
	if (ioctl(m->uffd[i], UFFDIO_API, &api) < 0)
		return errmsg_say(em, -ENOSYS,
		                  "this kernel's userfaultfd cannot "
		                  "write-protect shared memory; memspan needs "
		                  "Linux 6.1");
	r = register_stripe(m, i, m->mode & LOCAL_MODE_MINOR);
	if (r == -EINVAL)
		return errmsg_say(
			em, -ENOSYS,
			"this kernel's userfaultfd cannot watch a "
			"memfd as memspan needs; run 'memspan doctor'");
	if (r < 0)
		return errmsg_set(em, -ENOMEM, "cannot watch stripe %u of %s",
		                  i, m->name);
	return 0;
}

int watch_register(struct memspan *m, struct errmsg *em)
{
	AUTO_CLOSE int device = -1;
	int r;

	/* Absent before Linux 6.1, closed to most users by default. */
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	for (uint32_t i = 0; i < m->stripes; i++) {
		r = watch_stripe(m, i, device, em);
		if (r < 0)
			return r;
	}
	return 0;
}

int watch_open(struct memspan *m, int prot, struct errmsg *em)
{
	if (mprotect(m->addr, m->bytes, prot) < 0)
		return errmsg_set(em, -ENOMEM, "cannot give access to space %s",
		                  m->name);
	return 0;
}

/* --- the fence's part ---------------------------------------------------- */

int watch_fence(struct memspan *m)
{
	int r = 0;

	if (m->mode & LOCAL_MODE_MINOR)
		return 0;
	for (uint32_t i = 0; i < m->stripes && r == 0; i++)
		r = register_stripe(m, i, true);
	return r;
}

int watch_drop(struct memspan *m)
{
	/* _LOCKED: else refused where the program called mlockall(). */
	if (madvise(m->addr, m->bytes, MADV_DONTNEED_LOCKED) == 0)
		return 0;
	/* The program unmapped a part of it; the rest was dropped. */
	return errno == ENOMEM ? 0 : -errno;
}

/* --- the end ------------------------------------------------------------- */

void watch_unmap(struct memspan *m)
{
	void *p;

	if (!m->addr)
		return;
	if (!m->handed) {
		munmap(m->addr, m->bytes);
		m->addr = NULL;
		return;
	}
	/* The kernel does not check whose userfaultfd it is: an ioctl of the
	 * node that comes late would work on whatever is mapped here next,
	 * another space say.  So nothing may be, ever [A10]. */
	p = mmap(m->addr, m->bytes, PROT_NONE,
	         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
	         0);
	if (p == MAP_FAILED) /* out of mappings, or of lockable memory */
		(void)mprotect(m->addr, m->bytes, PROT_NONE);
	m->addr = NULL;
}
