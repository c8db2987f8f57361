/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What <linux/userfaultfd.h> of Debian 12 (Linux 6.1) lacks, and the sets of
 * features and modes that all of memspan asks for.
 *
 * The names are ours, not the kernel's, so that a newer header that brings the
 * real ones does not collide.  Each value is part of the kernel's ABI and
 * cannot change; whether the running kernel has it is found out by
 * fault/probe.h.
 */
#pragma once

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "base/base.h"

/* Linux 6.4: CONTINUE maps a page that is present, write-protected. */
#define UFFD_KERNEL_CONTINUE_WP (1ull << 1)

/* Linux 6.6: each access to a page of the range ends in SIGBUS. */
struct uffd_poison_arg {
	struct uffdio_range range;
	uint64_t mode;   /* bit 0: do not wake */
	int64_t updated; /* out: bytes, or -errno */
};
#define UFFD_KERNEL_POISON          _IOWR(UFFDIO, 0x08, struct uffd_poison_arg)
#define UFFD_KERNEL_POISON_DONTWAKE (1ull << 0)
#define UFFD_KERNEL_FEATURE_POISON  (1ull << 14)

static_assert(sizeof(struct uffd_poison_arg) == 32,
              "the size is part of the ioctl's number");

/*
 * Reads of absent pages and writes to read-only ones must both reach us, for
 * memfd memory too: Linux 5.19.  No UFFD_FEATURE_EVENT_*: an unread event makes
 * COPY fail and lets the client's madvise() hang without effect [A2, B6].  The
 * thread id tells whose progress a page serves [B3].
 */
#define UFFD_KERNEL_FEATURES                                                \
	((uint64_t)(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | \
	            UFFD_FEATURE_PAGEFAULT_FLAG_WP |                        \
	            UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID))

/* How a client registers, from Linux 6.4 on and before it [A3]. */
#define UFFD_KERNEL_MODE_MINOR                                       \
	(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | \
	 UFFDIO_REGISTER_MODE_WP)
#define UFFD_KERNEL_MODE_MARKERS \
	(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)
