/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor's memory, in the process that measures.
 */

#include "cli/bench_floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "cli/bench_floor_wire.h"

/* /dev/userfaultfd's ioctl, where the kernel's headers lack it (Linux 6.1). */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

struct floor_map {
	int memfd;
	void *addr; /* MAP_FAILED: not mapped */
	uint64_t pages;
	unsigned n;
	int uffd[STRIPES_MAX];
};

/*
 * As libmemspan does: the device, which its owner opens to whom he wants, then
 * the system call.
 */
static int open_uffd(struct errmsg *em)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features =
			UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
			UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID,
	};
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = -1;

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
	}
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errmsg_set(em, -errno,
		                  "cannot open a userfaultfd "
		                  "(memspan doctor says more)");
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		int r = errmsg_set(em, -errno, "UFFDIO_API");

		close(fd);
		return r;
	}
	return fd;
}

static int watch(struct floor_map *m, unsigned i, uint64_t first,
                 uint64_t pages, struct errmsg *em)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)m->addr + first * PAGE_BYTES,
		           pages * PAGE_BYTES },
		.mode = UFFDIO_REGISTER_MODE_MISSING |
		        UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
	};

	m->uffd[i] = open_uffd(em);
	if (m->uffd[i] < 0)
		return m->uffd[i];
	m->n++;
	if (ioctl(m->uffd[i], UFFDIO_REGISTER, &reg) < 0)
		return errmsg_set(em, -errno, "UFFDIO_REGISTER");
	return 0;
}

/* Give the userfaultfds to the handler, and wait until it has them. */
static int hand_over(struct floor_map *m, int control,
                     const struct floor_watch *w, struct errmsg *em)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * STRIPES_MAX)];
	} ctl = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)w,
		             .iov_len = sizeof(*w) };
	struct msghdr msg = { .msg_iov = &iov,
		              .msg_iovlen = 1,
		              .msg_control = &ctl,
		              .msg_controllen =
		                      CMSG_SPACE(sizeof(int) * m->n) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t r;
	char ok;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * m->n);
	memcpy(CMSG_DATA(c), m->uffd, sizeof(int) * m->n);
	if (sendmsg(control, &msg, MSG_NOSIGNAL) < 0)
		return errmsg_set(em, -errno,
		                  "cannot reach the floor's handler");
	r = recv(control, &ok, 1, 0);
	if (r == 1)
		return 0;
	return errmsg_set(em, r < 0 ? -errno : -EPIPE,
	                  "the floor's handler gave no answer");
}

int floor_map_new(int control, uint64_t pages, unsigned uffds,
                  struct floor_map **ret, struct errmsg *em)
{
	AUTO(floor_map_free) struct floor_map *m = NULL;
	struct floor_watch w = { .n = uffds };
	int r;

	assert(uffds > 0 && uffds <= STRIPES_MAX && pages >= uffds);
	m = calloc(1, sizeof(*m));
	if (!m)
		return errmsg_set(em, -ENOMEM, "the floor's memory");
	m->pages = pages;
	m->addr = MAP_FAILED;
	m->memfd = memfd_create("memspan-floor", MFD_CLOEXEC);
	if (m->memfd < 0)
		return errmsg_set(em, -errno, "memfd_create");
	if (ftruncate(m->memfd, (off_t)(pages * PAGE_BYTES)) < 0)
		return errmsg_set(em, -errno,
		                  "ftruncate of the floor's memory");
	m->addr = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
	               MAP_SHARED, m->memfd, 0);
	if (m->addr == MAP_FAILED)
		return errmsg_set(em, -errno, "mmap of the floor's memory");
	/* One fault, one page: what is measured is not the size of pages. */
	(void)madvise(m->addr, pages * PAGE_BYTES, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < uffds; i++) {
		uint64_t from = pages * i / uffds, to = pages * (i + 1) / uffds;

		w.base[i] = (uintptr_t)m->addr + from * PAGE_BYTES;
		w.first[i] = from;
		r = watch(m, i, from, to - from, em);
		if (r < 0)
			return r;
	}
	r = hand_over(m, control, &w, em);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(m);
	return 0;
}

/*
 * Our own descriptors stay open until the memory is gone: were the handler to
 * die, the kernel would otherwise fill our pages with zeros, faster than any
 * floor.  So we wait, and the benchmark notices that the handler is gone.
 */
struct floor_map *floor_map_free(struct floor_map *m)
{
	if (!m)
		return NULL;
	if (m->addr != MAP_FAILED)
		munmap(m->addr, m->pages * PAGE_BYTES);
	for (unsigned i = 0; i < m->n; i++)
		close(m->uffd[i]);
	if (m->memfd >= 0)
		close(m->memfd);
	free(m);
	return NULL;
}

void *floor_map_addr(const struct floor_map *m)
{
	return m->addr;
}

uint64_t floor_map_pages(const struct floor_map *m)
{
	return m->pages;
}

int floor_map_clear(struct floor_map *m)
{
	if (fallocate(m->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
	              (off_t)(m->pages * PAGE_BYTES)) < 0)
		return -errno;
	return 0;
}
