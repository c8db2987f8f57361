/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout.  Buckets of SUB slots: bucket b counts durations of up to
 * SUB << b ns, in slots 1 << b ns wide.  SUB is 2,048, so that in the upper
 * half of a bucket a slot is less than 1/1,000 of what it counts.  The lower
 * half of each bucket but the first is the one before it, and is left out:
 *
 *	slot   0 ......... 2047 | 2048 ....... 3071 | 3072 ....... 4095 | ...
 *	ns     0 ......... 2047 | 2048 ....... 4095 | 4096 ....... 8191 | ...
 *	width  1                | 2                 | 4                 | ...
 *
 * 60 s is below SUB << 25, so there are 26 buckets.
 */

#include "base/hist.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define SUB_BITS 11u
#define SUB      (1u << SUB_BITS)
#define HALF     (SUB / 2)
#define BUCKETS  26u
#define SLOTS    ((BUCKETS + 1) * HALF)

#define TICKS_PER_HALF 5

static_assert(HIST_MAX_NS < (uint64_t)SUB << (BUCKETS - 1),
              "the longest duration must have a slot");
static_assert(HALF >= 1000, "three significant figures need slots so narrow");

struct hist {
	uint64_t count;
	nsec_t sum; /* 60 s times 3 x 10^8: more than a run can record */
	nsec_t min, max;
	uint64_t slot[SLOTS];
};

/* Which slot counts `ns`, and, below, what are the slot's bounds? */
static uint32_t slot_of(nsec_t ns)
{
	unsigned bits = 64 - (unsigned)__builtin_clzll(ns | (SUB - 1));
	unsigned bucket = bits - SUB_BITS;

	return bucket * HALF + (uint32_t)(ns >> bucket);
}

static unsigned bucket_of(uint32_t slot)
{
	return slot < SUB ? 0 : slot / HALF - 1;
}

static nsec_t slot_first(uint32_t slot)
{
	unsigned bucket = bucket_of(slot);

	return (nsec_t)(slot - bucket * HALF) << bucket;
}

static nsec_t slot_last(uint32_t slot)
{
	return slot_first(slot) + ((nsec_t)1 << bucket_of(slot)) - 1;
}

int hist_new(struct hist **ret)
{
	struct hist *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	*ret = h;
	return 0;
}

struct hist *hist_free(struct hist *h)
{
	free(h);
	return NULL;
}

void hist_record(struct hist *h, nsec_t ns)
{
	ns = min_u64(max_u64(ns, 1), HIST_MAX_NS);
	h->slot[slot_of(ns)]++;
	h->sum += ns;
	h->min = h->count == 0 ? ns : min_u64(h->min, ns);
	h->max = max_u64(h->max, ns);
	h->count++;
}

void hist_merge(struct hist *to, const struct hist *from)
{
	if (from->count == 0)
		return;
	to->min = to->count == 0 ? from->min : min_u64(to->min, from->min);
	to->max = max_u64(to->max, from->max);
	to->count += from->count;
	to->sum += from->sum;
	for (uint32_t i = 0; i < SLOTS; i++)
		to->slot[i] += from->slot[i];
}

void hist_reset(struct hist *h)
{
	memset(h, 0, sizeof(*h));
}

uint64_t hist_count(const struct hist *h)
{
	return h->count;
}

nsec_t hist_min(const struct hist *h)
{
	return h->min;
}

nsec_t hist_max(const struct hist *h)
{
	return h->max;
}

double hist_mean(const struct hist *h)
{
	return h->count == 0 ? 0 : (double)h->sum / (double)h->count;
}

nsec_t hist_percentile(const struct hist *h, double percentile)
{
	uint64_t wanted, seen = 0;
	uint32_t slot;

	assert(percentile >= 0);
	assert(percentile <= 100);
	if (h->count == 0)
		return 0;
	wanted = (uint64_t)(percentile / 100 * (double)h->count + 0.5);
	wanted = min_u64(max_u64(wanted, 1), h->count);
	/* The slots' sum is the count, so the last slot is reached at most. */
	for (slot = 0; slot < SLOTS - 1; slot++) {
		seen += h->slot[slot];
		if (seen >= wanted)
			break;
	}
	return min_u64(slot_last(slot), h->max);
}

/* --- the .hgrm text ------------------------------------------------------ */

static double in_us(nsec_t ns)
{
	return (double)ns / NSEC_PER_USEC;
}

/*
 * HdrHistogram knows of each duration only its slot, and takes the middle.  Its
 * readers compare such files, so this does as well; hist_mean() is exact.
 */
static double slot_middle(uint32_t slot)
{
	return (double)(slot_first(slot) + ((nsec_t)1 << bucket_of(slot)) / 2);
}

static double middle_mean(const struct hist *h)
{
	double sum = 0;

	for (uint32_t i = 0; i < SLOTS; i++)
		sum += (double)h->slot[i] * slot_middle(i);
	return h->count == 0 ? 0 : sum / (double)h->count;
}

static double deviation(const struct hist *h, double mean)
{
	double sum = 0;

	for (uint32_t i = 0; i < SLOTS; i++) {
		double d = slot_middle(i) - mean;

		sum += (double)h->slot[i] * d * d;
	}
	return h->count == 0 ? 0 : sqrt(sum / (double)h->count);
}

/* The largest duration as its slot has it. */
static nsec_t top(const struct hist *h)
{
	return h->count == 0 ? 0 : slot_last(slot_of(h->max));
}

/*
 * The step from one row to the next: a tick is a fifth of the half distance to
 * 100 %, so rows lie closer together the nearer they come to it.
 */
static double next_level(double level)
{
	int halves = (int)(log(100 / (100 - level)) / log(2)) + 1;

	return level + 100 / (TICKS_PER_HALF * pow(2, halves));
}

/* One row each time the running count passes a level, and one for 100 %. */
static void write_rows(const struct hist *h, FILE *out)
{
	uint64_t seen = 0;
	double level = 0;

	for (uint32_t i = 0; i < SLOTS && seen < h->count; i++) {
		double value = in_us(slot_last(i));
		double reached;
		bool more = h->slot[i] > 0;

		seen += h->slot[i];
		reached = 100 * (double)seen / (double)h->count;
		while (more && level <= reached) {
			fprintf(out, "%12.3f %12f %12" PRIu64 " %12.2f\n",
			        value, level / 100, seen,
			        1 / (1 - level / 100));
			level = next_level(level);
			/* The last slot has one row, then that for 100 %. */
			more = seen < h->count;
		}
	}
	if (h->count > 0)
		fprintf(out, "%12.3f %12f %12" PRIu64 " %12s\n", in_us(top(h)),
		        1.0, h->count, "inf");
}

int hist_write_hgrm(const struct hist *h, FILE *out)
{
	double mean = middle_mean(h);

	fprintf(out, "%12s %12s %12s %12s\n\n", "Value", "Percentile",
	        "TotalCount", "1/(1-Percentile)");
	write_rows(h, out);
	fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n",
	        mean / NSEC_PER_USEC, deviation(h, mean) / NSEC_PER_USEC);
	fprintf(out, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n",
	        in_us(top(h)), h->count);
	fprintf(out, "#[Buckets = %12u, SubBuckets     = %12u]\n", BUCKETS,
	        SUB);
	return fflush(out) != 0 || ferror(out) ? -EIO : 0;
}
