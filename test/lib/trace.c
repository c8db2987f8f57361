/* SPDX-License-Identifier: Apache-2.0 */

#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/prng.h"

#define PAGES      2000u
#define VISITS     60000u
#define VISITS_MAX 1000000u
#define SETS       4u  /* of TRACE_SHIFTING: one is wanted at a time */
#define PHASES     10u /* so often it changes */
#define SCANS      12u /* of TRACE_SCANNED: all that are scanned, twice */
#define SCAN_PAGES 250u

struct trace *trace_free(struct trace *t)
{
	if (t)
		free(t->visit);
	free(t);
	return NULL;
}

static struct trace *trace_new(const char *name, uint32_t pages, uint32_t n)
{
	AUTO(trace_free) struct trace *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->visit = calloc(n, sizeof(*t->visit));
	if (!t->visit)
		return NULL;
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->pages = pages;
	t->n = n;
	return TAKE_PTR(t);
}

/* --- recorded ---------------------------------------------------------- */

static int digit(int c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c > 0 ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -EPROTO;
}

/* One base64 VLQ: see tools/record-trace. */
static int read_number(FILE *f, int64_t *ret)
{
	int64_t n = 0;
	int d;

	for (unsigned shift = 0; shift < 40; shift += 5) {
		int c;

		do {
			c = fgetc(f);
		} while (c == '\n');
		d = digit(c);
		if (d < 0)
			return d;
		n |= (int64_t)(d & 31) << shift;
		if ((d & 32) == 0) {
			*ret = n & 1 ? -(n >> 1) : n >> 1;
			return 0;
		}
	}
	return -EPROTO;
}

static int read_visits(FILE *f, struct trace *t)
{
	int64_t page = 0, step;

	for (uint32_t i = 0; i < t->n; i++) {
		int r = read_number(f, &step);

		if (r < 0)
			return r;
		page += step;
		if (page < 0 || page >= t->pages)
			return -EPROTO;
		t->visit[i] = (uint32_t)page;
	}
	return 0;
}

int trace_load(const char *path, struct trace **ret)
{
	AUTO(trace_free) struct trace *t = NULL;
	const char *name = strrchr(path, '/');
	char line[4096];
	unsigned pages, n;
	FILE *f = fopen(path, "re");
	int r = -EPROTO;

	if (!f)
		return -errno;
	do {
		if (!fgets(line, sizeof(line), f))
			goto out;
	} while (line[0] == '#');
	if (sscanf(line, "%u %u", &pages, &n) != 2 || pages == 0 || n == 0 ||
	    n > VISITS_MAX)
		goto out;
	t = trace_new(name ? name + 1 : path, pages, n);
	if (t)
		t->name[strcspn(t->name, ".")] = '\0';
	r = t ? read_visits(f, t) : -ENOMEM;
	if (r == 0) {
		t->recorded = true;
		*ret = TAKE_PTR(t);
	}
out:
	fclose(f);
	return r;
}

/* --- made up ----------------------------------------------------------- */

/* Popularity by rank, and which page has which rank. */
struct zipf {
	double sum[PAGES]; /* of ranks up to this one */
	uint32_t page[PAGES];
	uint32_t n;
};

static void shuffle(struct prng *r, uint32_t *v, uint32_t n)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = (uint32_t)prng_below(r, i);
		uint32_t x = v[i - 1];

		v[i - 1] = v[j];
		v[j] = x;
	}
}

static void zipf_init(struct zipf *z, struct prng *r, uint32_t first,
                      uint32_t n)
{
	double sum = 0;

	z->n = n;
	for (uint32_t i = 0; i < n; i++) {
		sum += 1.0 / (i + 1);
		z->sum[i] = sum;
		z->page[i] = first + i;
	}
	shuffle(r, z->page, n);
}

static uint32_t zipf_draw(const struct zipf *z, struct prng *r)
{
	double x = (double)(prng_next(r) >> 11) / (double)(1ull << 53) *
	           z->sum[z->n - 1];
	uint32_t from = 0, to = z->n - 1;

	while (from < to) {
		uint32_t mid = (from + to) / 2;

		if (z->sum[mid] < x)
			from = mid + 1;
		else
			to = mid;
	}
	return z->page[from];
}

static void make_zipf(struct trace *t, struct prng *r, struct zipf *z)
{
	zipf_init(z, r, 0, t->pages);
	for (uint32_t i = 0; i < t->n; i++)
		t->visit[i] = zipf_draw(z, r);
}

static void make_scanned(struct trace *t, struct prng *r, struct zipf *z)
{
	uint32_t wanted = t->pages - SCANS / 2 * SCAN_PAGES;
	uint32_t every = t->n / SCANS;

	zipf_init(z, r, 0, wanted);
	for (uint32_t i = 0; i < t->n; i++) {
		uint32_t scan = i / every, at = i % every;

		/* Others go on meanwhile. */
		if (at < 2 * SCAN_PAGES && at % 2 == 0)
			t->visit[i] = wanted + scan % (SCANS / 2) * SCAN_PAGES +
			              at / 2;
		else
			t->visit[i] = zipf_draw(z, r);
	}
}

static void make_shifting(struct trace *t, struct prng *r, struct zipf *z)
{
	uint32_t set = t->pages / SETS, phase = t->n / PHASES;

	for (uint32_t i = 0; i < t->n; i++) {
		if (i % phase == 0)
			zipf_init(z, r, i / phase % SETS * set, set);
		t->visit[i] = zipf_draw(z, r);
	}
}

struct trace *trace_make(enum trace_kind kind, uint64_t seed)
{
	static const char *const name[TRACE_KINDS] = { "zipf", "zipf+scan",
		                                       "loop", "shifting",
		                                       "uniform" };
	struct trace *t = trace_new(name[kind], PAGES, VISITS);
	AUTO_FREE struct zipf *z = malloc(sizeof(*z));
	struct prng r;

	if (!t || !z)
		return trace_free(t);
	prng_init(&r, seed);
	switch (kind) {
	case TRACE_ZIPF:
		make_zipf(t, &r, z);
		break;
	case TRACE_SCANNED:
		make_scanned(t, &r, z);
		break;
	case TRACE_LOOP:
		for (uint32_t i = 0; i < t->n; i++)
			t->visit[i] = i % t->pages;
		break;
	case TRACE_SHIFTING:
		make_shifting(t, &r, z);
		break;
	case TRACE_UNIFORM:
		for (uint32_t i = 0; i < t->n; i++)
			t->visit[i] = (uint32_t)prng_below(&r, t->pages);
		break;
	}
	return t;
}
