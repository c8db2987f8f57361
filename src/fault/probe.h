/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probe: what the running kernel can do, found out by doing it on a small memfd
 * of our own, never by its version.
 *
 * $MEMSPAN_MASK_FEATURES (comma-separated: "minor_wp,poison,dev") hides
 * features, so that the paths for old kernels are tested on new ones.
 */
#pragma once

#include "base/base.h"
#include "fault/uffd.h"

struct probe_check {
	const char *name; /* "userfaultfd", "wp_shmem", "memfd_small_pages" */
	bool needed;      /* without it memspan cannot run here */
	bool ok;
	char detail[160]; /* what was tried, what came back */
	char remedy[200]; /* what to do if not ok; "" if ok */
};

#define PROBE_CHECKS_MAX 24u

struct probe {
	struct uffd_features features;
	unsigned n;
	struct probe_check v[PROBE_CHECKS_MAX];
};

/*
 * Probe everything: creating a userfaultfd (/dev/userfaultfd first, then the
 * system call; which one worked is in the detail), its API features, register
 * MISSING|MINOR|WP on a memfd, COPY, COPY with WP, ZEROPAGE, WRITEPROTECT,
 * CONTINUE with and without WP, PUNCH_HOLE and the next fault, POISON, one
 * small page per write(2) (shmem_enabled), seals, swap, RLIMIT_NOFILE,
 * RLIMIT_MEMLOCK.
 */
void probe_run(struct probe *ret);

/*
 * Only what a node needs at start: the features, found without privilege where
 * possible.  A node that may not create a userfaultfd itself assumes what
 * UFFD_USER_MODE_ONLY shows it.
 */
void probe_features(struct uffd_features *ret);

/* Open a userfaultfd: the device, then the call.  Returns an fd or -errno. */
int probe_open_userfaultfd(struct errmsg *em);
