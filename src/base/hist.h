/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A histogram of durations in the layout of HdrHistogram: three significant
 * figures at every magnitude from 1 ns to 60 s.
 *
 * One thread records; others may merge or read once that has stopped.
 * hist_record() costs a few ns and never allocates.
 */
#pragma once

#include <stdio.h>

#include "base/base.h"

#define HIST_MAX_NS (60 * NSEC_PER_SEC)

struct hist;

/* Returns 0 and an empty histogram (216 KiB), or -ENOMEM. */
int hist_new(struct hist **ret);
struct hist *hist_free(struct hist *h); /* takes NULL; returns NULL */
DEFINE_AUTO(struct hist, hist_free)

/* Count one duration.  Less than 1 ns counts as 1, more than 60 s as 60 s. */
void hist_record(struct hist *h, nsec_t ns);

/* Add all that `from` has counted to `to`. */
void hist_merge(struct hist *to, const struct hist *from);

/* Forget everything. */
void hist_reset(struct hist *h);

uint64_t hist_count(const struct hist *h);

/* The smallest and the largest duration, exactly; 0 when empty. */
nsec_t hist_min(const struct hist *h);
nsec_t hist_max(const struct hist *h);

/* The average in ns, exactly; 0 when empty. */
double hist_mean(const struct hist *h);

/*
 * The duration that `percentile` percent (0 to 100) do not exceed, to three
 * significant figures, rounded up, but at most hist_max(); 0 when empty.
 */
nsec_t hist_percentile(const struct hist *h, double percentile);

/*
 * Write the distribution as HdrHistogram's .hgrm text, in microseconds, five
 * ticks per half distance, for its plotters.  Returns 0, or -EIO if `out` did
 * not take it.
 */
int hist_write_hgrm(const struct hist *h, FILE *out);
