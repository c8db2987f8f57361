/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd: driving one userfaultfd of a client from outside its process.
 *
 * One userfaultfd watches one stripe of one client's mapping of a space, or
 * what the client has mapped of that stripe.  The client made and registered
 * it; we read its faults and install, protect and wake pages through it.  None
 * of this needs a privilege.
 *
 * What the operations promise: they work on runs, go on behind what the kernel
 * did (.copy, .mapped), and return only when every page of the run was dealt
 * with or explained, as design.md section 5 says [A4, B6, A11]:
 *
 *	EEXIST  that page is mapped already: woken by hand, go on behind it
 *	EAGAIN  with nothing done: the client's mapping is changing; after some
 *	        attempts UFFD_AGAIN: the caller retries in a later turn
 *	ENOENT  for a run: the client split its mapping: page by page.  For one
 *	        page: not mapped there (UFFD_ABSENT counts it; nobody waits)
 *	ESRCH   the client is gone: UFFD_GONE
 *	EINVAL  the client mapped memory of another kind there: as ENOENT; so
 *	        is EFAULT of COPY and ZEROPAGE (behind the end of its file)
 *	ENOMEM  the client's memory cgroup: UFFD_NOMEM; count it, retry later
 *	EFAULT  CONTINUE of a hole, EIO of a page whose memory has failed:
 *	        UFFD_BREACH [A13]
 *
 * Any other errno is a bug of ours or of the kernel: asserted, with the ioctl's
 * name in the message.
 *
 * Nothing here allocates after uffd_adopt(); nothing blocks longer than the
 * client holds its mmap_lock; uffd_stat_slow() counts ioctls above 10 ms [B8].
 */
#pragma once

#include <sys/types.h>

#include "base/base.h"

struct uffd;

/* What the kernel can do, probed by doing it (fault/probe.h). */
struct uffd_features {
	bool minor_wp; /* CONTINUE with MODE_WP: Linux 6.4 */
	bool poison;   /* UFFDIO_POISON: Linux 6.6 */
};

struct uffd_config {
	int fd;        /* taken: closed by uffd_free(), also on failure */
	uint64_t base; /* client address of the stripe's first mapped page */
	gpn_t first;   /* that page's number in the space */
	uint64_t pages;
	struct uffd_features features;
};

/* The worst that happened to a run. */
enum uffd_outcome {
	UFFD_DONE = 0, /* done, or the page was there already */
	UFFD_ABSENT,   /* some page is not mapped in the client, or lies
	                  outside of what the userfaultfd watches */
	UFFD_AGAIN,    /* some page could not be done now: retry later */
	UFFD_NOMEM,    /* the client's cgroup is full: retry later */
	UFFD_BREACH,   /* CONTINUE found a hole: end the space's clients */
	UFFD_GONE,     /* the client is gone: detach it */
};

/* The progress of a run: pages [first, first + done) need nothing more. */
struct uffd_run {
	gpn_t first;
	uint32_t pages; /* 1..RUN_PAGES */
	uint32_t done;  /* out */
	/* Out: bit i: first + i was there already, with bytes of its own. */
	uint64_t found;
};

int uffd_adopt(const struct uffd_config *cfg, struct uffd **ret,
               struct errmsg *em);
struct uffd *uffd_free(struct uffd *u); /* takes NULL; returns NULL */
DEFINE_AUTO(struct uffd, uffd_free)
int uffd_fd(const struct uffd *u);
gpn_t uffd_first(const struct uffd *u);
uint64_t uffd_pages(const struct uffd *u);

enum uffd_fault_kind { UFFD_FAULT_MISSING, UFFD_FAULT_MINOR, UFFD_FAULT_WP };

struct uffd_fault {
	gpn_t page;
	enum uffd_fault_kind kind;
	bool write;   /* it wants to write (WP faults always do) */
	uint32_t tid; /* the thread that faulted, as the client sees it */
};

#define UFFD_BATCH 64u

/*
 * Read up to UFFD_BATCH faults in one read(2).  Never blocks.  Returns their
 * number (0: none), or -ESRCH if the client is gone, as an operation before has
 * found: reading alone never tells.
 */
int uffd_read(struct uffd *u, struct uffd_fault faults[UFFD_BATCH]);

enum {
	UFFD_WP = 1,       /* map write-protected */
	UFFD_DONTWAKE = 2, /* the caller wakes by uffd_wake() */
};

/* Map `src` (run->pages pages) into the holes of the run. */
enum uffd_outcome uffd_copy(struct uffd *u, struct uffd_run *run,
                            const void *src, unsigned flags);
/* Map zeros, writable. */
enum uffd_outcome uffd_zero(struct uffd *u, struct uffd_run *run,
                            unsigned flags);
/* Map what the memfd has.  Needs features.minor_wp if flags has UFFD_WP. */
enum uffd_outcome uffd_continue(struct uffd *u, struct uffd_run *run,
                                unsigned flags);
/*
 * Write-protect the run (also entries that are absent: they get a marker).
 * When it returns UFFD_DONE or UFFD_ABSENT no thread of the client can write
 * there.
 */
enum uffd_outcome uffd_protect(struct uffd *u, struct uffd_run *run);
/* Make the run writable (and clear markers), waking unless UFFD_DONTWAKE. */
enum uffd_outcome uffd_unprotect(struct uffd *u, struct uffd_run *run,
                                 unsigned flags);
/*
 * Make each access to the page SIGBUS: un-protect, poison, wake [A15].  The
 * page must be punched already.  May be repeated.  Returns UFFD_ABSENT only
 * where the kernel lacks UFFDIO_POISON: then the client must be ended.
 */
enum uffd_outcome uffd_poison(struct uffd *u, gpn_t page);
/*
 * Wake whoever waits in the run; they fault anew if still needed.  The run lies
 * within what is watched, or nobody is woken: UFFD_ABSENT.
 */
enum uffd_outcome uffd_wake(struct uffd *u, gpn_t first, uint64_t pages);

uint64_t uffd_stat_slow(const struct uffd *u);
