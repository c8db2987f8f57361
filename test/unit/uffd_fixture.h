/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of uffd start from: a space and a client that has it mapped,
 * in one of two ways: with MINOR registered, as from Linux 6.4 on, and with
 * markers over the whole empty mapping instead, as before.
 *
 * The test is the node: it holds the memfd, its alias and the userfaultfd that
 * the client handed over.
 */
#pragma once

#include "client_process.h"

#include "fault/uffd.h"

/* A stripe of 8 MiB; most tests use a corner of it. */
#define PAGES 2048u

struct fixture {
	bool markers;
	struct uffd_features features;
	struct space_mem mem;
	struct client c[2];
	struct uffd *u[2];
	char cgroup[128]; /* "" or one to be removed at the end */
	uint8_t bytes[RUN_PAGES *
	              PAGE_BYTES]; /* to install: page i has i + 1 */
};

static const bool with_minor = false, with_markers = true;

static inline struct uffd_run run_of(gpn_t first, uint32_t pages)
{
	return (struct uffd_run){ .first = first, .pages = pages };
}

static inline void protect_all(struct uffd *u)
{
	for (gpn_t p = 0; p < PAGES; p += RUN_PAGES) {
		struct uffd_run r = run_of(p, RUN_PAGES);

		assert_int_equal(uffd_protect(u, &r), UFFD_DONE);
	}
}

/* Attach client `i`. */
static inline void attach(struct fixture *f, unsigned i, uint64_t features)
{
	struct client_options o = { .mode = f->markers ?
		                                    UFFD_KERNEL_MODE_MARKERS :
		                                    UFFD_KERNEL_MODE_MINOR,
		                    .features = features };
	struct uffd_config cfg = { .pages = PAGES, .features = f->features };
	struct errmsg em = { .text = "" };

	client_start(&f->c[i], &f->mem, &o);
	cfg.fd = dup(f->c[i].uffd);
	cfg.base = (uintptr_t)f->c[i].base;
	assert_int_equal(uffd_adopt(&cfg, &f->u[i], &em), 0);
	if (f->markers)
		protect_all(f->u[i]);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	uint64_t word;

	assert_non_null(f);
	f->markers = *(const bool *)*state;
	probe_features(&f->features);
	for (uint32_t i = 0; i < RUN_PAGES; i++) {
		word = i + 1;
		memcpy(f->bytes + i * PAGE_BYTES, &word, sizeof(word));
	}
	assert_int_equal(
		space_mem_init("test", PAGES * PAGE_BYTES, &f->mem, NULL), 0);
	attach(f, 0, 0);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++) {
		client_stop(&f->c[i]);
		uffd_free(f->u[i]);
	}
	space_mem_done(&f->mem);
	if (f->cgroup[0] != '\0')
		(void)rmdir(f->cgroup);
	free(f);
	return 0;
}

/* Start `fn` in a worker of client `i`, and wait for its fault. */
static inline struct uffd_fault faults(struct fixture *f, unsigned i,
                                       unsigned worker, client_fn fn, long a,
                                       long b)
{
	struct uffd_fault got[UFFD_BATCH];

	client_call(&f->c[i], worker, fn, a, b);
	client_await_fault(&f->c[i]);
	assert_int_equal(uffd_read(f->u[i], got), 1);
	assert_int_equal(got[0].page, a);
	return got[0];
}

/* Do `fn` in a worker of client 0: it must go through without a message. */
static inline long quietly(struct fixture *f, client_fn fn, long a, long b)
{
	struct uffd_fault got[UFFD_BATCH];
	long r = client_do(&f->c[0], 7, fn, a, b);

	assert_int_equal(uffd_read(f->u[0], got), 0);
	return r;
}

static inline void assert_copied(struct fixture *f, gpn_t first, uint32_t pages,
                                 unsigned flags)
{
	struct uffd_run r = run_of(first, pages);

	assert_int_equal(uffd_copy(f->u[0], &r, f->bytes, flags), UFFD_DONE);
	assert_int_equal(r.done, pages);
}

#define WITH(name_, test_, how_)                                        \
	{                                                               \
		.name = name_, .test_func = test_, .setup_func = setup, \
		.teardown_func = teardown,                              \
		.initial_state = (void *)(uintptr_t)&with_##how_,       \
	}
#define MINOR(test)   WITH(#test, test, minor)
#define MARKERS(test) WITH(#test, test, markers)
#define BOTH(test)                           \
	WITH(#test " (minor)", test, minor), \
		WITH(#test " (markers)", test, markers)
