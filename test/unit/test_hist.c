/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/hist.h"
#include "base/prng.h"

static struct hist *h;

static int new_hist(void **state)
{
	(void)state;
	return hist_new(&h);
}

static int free_hist(void **state)
{
	(void)state;
	h = hist_free(h);
	return 0;
}

static void an_empty_histogram_says_zero(void **state)
{
	(void)state;
	assert_int_equal(hist_count(h), 0);
	assert_int_equal(hist_min(h), 0);
	assert_int_equal(hist_max(h), 0);
	assert_int_equal(hist_percentile(h, 50), 0);
	assert_true(hist_mean(h) == 0);
}

static void each_duration_keeps_three_figures(void **state)
{
	struct prng r;

	(void)state;
	prng_init(&r, 1);
	for (unsigned i = 0; i < 3000; i++) {
		nsec_t low = 1 + prng_below(&r, HIST_MAX_NS >> (i % 36)) / 2;
		nsec_t p;

		hist_reset(h);
		hist_record(h, low);
		hist_record(h, HIST_MAX_NS);
		p = hist_percentile(h, 50);
		assert_true(p >= low);
		assert_true(p - low <= low / 1000);
		assert_int_equal(hist_min(h), low);
	}
}

static void percentiles_of_a_known_set_are_right(void **state)
{
	(void)state;
	for (nsec_t ns = 1; ns <= 1000; ns++)
		hist_record(h, ns);
	assert_int_equal(hist_count(h), 1000);
	assert_int_equal(hist_percentile(h, 0), 1);
	assert_int_equal(hist_percentile(h, 50), 500);
	assert_int_equal(hist_percentile(h, 99), 990);
	assert_int_equal(hist_percentile(h, 99.9), 999);
	assert_int_equal(hist_percentile(h, 100), 1000);
	assert_int_equal(hist_min(h), 1);
	assert_int_equal(hist_max(h), 1000);
	assert_true(fabs(hist_mean(h) - 500.5) < 1e-9);
}

static void what_is_out_of_range_counts_at_its_end(void **state)
{
	(void)state;
	hist_record(h, 0);
	hist_record(h, UINT64_MAX);
	assert_int_equal(hist_count(h), 2);
	assert_int_equal(hist_min(h), 1);
	assert_int_equal(hist_max(h), HIST_MAX_NS);
	assert_int_equal(hist_percentile(h, 100), HIST_MAX_NS);
}

static void merging_equals_recording_in_one(void **state)
{
	AUTO(hist_free) struct hist *a = NULL;
	AUTO(hist_free) struct hist *b = NULL;
	AUTO(hist_free) struct hist *none = NULL;
	struct prng r;

	(void)state;
	assert_int_equal(hist_new(&a), 0);
	assert_int_equal(hist_new(&b), 0);
	assert_int_equal(hist_new(&none), 0);
	prng_init(&r, 2);
	for (unsigned i = 0; i < 10000; i++) {
		nsec_t ns = prng_below(&r, 1000000);

		hist_record(h, ns);
		hist_record(i % 3 == 0 ? a : b, ns);
	}
	hist_merge(none, a);
	hist_merge(none, b);
	assert_int_equal(hist_count(none), 10000);
	hist_merge(a, b);
	assert_int_equal(hist_count(a), hist_count(h));
	assert_int_equal(hist_min(a), hist_min(h));
	assert_int_equal(hist_max(a), hist_max(h));
	assert_true(hist_mean(a) == hist_mean(h));
	for (unsigned p = 0; p <= 100; p++)
		assert_int_equal(hist_percentile(a, p), hist_percentile(h, p));
}

/* The .hgrm text of `h`; freed by the caller. */
static char *hgrm(void)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	assert_int_equal(hist_write_hgrm(h, f), 0);
	assert_int_equal(fclose(f), 0);
	return text;
}

/* Byte for byte what HdrHistogram_c prints for 1,000, 2,000 ... 10,000 ns. */
static const char ten_values[] =
	"       Value   Percentile   TotalCount 1/(1-Percentile)\n"
	"\n"
	"       1.000     0.000000            1         1.00\n"
	"       1.000     0.100000            1         1.11\n"
	"       2.000     0.200000            2         1.25\n"
	"       3.001     0.300000            3         1.43\n"
	"       4.001     0.400000            4         1.67\n"
	"       5.003     0.500000            5         2.00\n"
	"       6.003     0.550000            6         2.22\n"
	"       6.003     0.600000            6         2.50\n"
	"       7.003     0.650000            7         2.86\n"
	"       7.003     0.700000            7         3.33\n"
	"       8.003     0.750000            8         4.00\n"
	"       8.003     0.775000            8         4.44\n"
	"       8.003     0.800000            8         5.00\n"
	"       9.007     0.825000            9         5.71\n"
	"       9.007     0.850000            9         6.67\n"
	"       9.007     0.875000            9         8.00\n"
	"       9.007     0.887500            9         8.89\n"
	"       9.007     0.900000            9        10.00\n"
	"      10.007     0.912500           10        11.43\n"
	"      10.007     1.000000           10          inf\n"
	"#[Mean    =        5.502, StdDeviation   =        2.874]\n"
	"#[Max     =       10.007, Total count    =           10]\n"
	"#[Buckets =           26, SubBuckets     =         2048]\n";

static void the_hgrm_text_is_what_plotters_read(void **state)
{
	AUTO_FREE char *text = NULL;

	(void)state;
	for (nsec_t ns = 1000; ns <= 10000; ns += 1000)
		hist_record(h, ns);
	text = hgrm();
	assert_string_equal(text, ten_values);
}

static void an_empty_hgrm_has_no_rows(void **state)
{
	AUTO_FREE char *text = hgrm();

	(void)state;
	assert_non_null(strstr(text, "1/(1-Percentile)\n\n#[Mean"));
	assert_null(strstr(text, "nan"));
}

static void hgrm_rows_never_fall_and_end_at_the_count(void **state)
{
	AUTO_FREE char *text = NULL;
	double value = 0, level = 0;
	unsigned rows = 0;
	unsigned long long total = 0;
	struct prng r;

	(void)state;
	prng_init(&r, 3);
	for (unsigned i = 0; i < 100000; i++)
		hist_record(h, 1 + prng_below(&r, 1u << prng_below(&r, 30)));
	text = hgrm();
	for (char *line = strchr(text, '\n') + 2; line[0] != '#';
	     line = strchr(line, '\n') + 1) {
		double v, p;

		assert_int_equal(sscanf(line, "%lf %lf %llu", &v, &p, &total),
		                 3);
		assert_true(v >= value);
		assert_true(p >= level);
		value = v;
		level = p;
		rows++;
	}
	assert_int_equal(total, 100000);
	assert_true(level == 1.0);
	/* Five a halving, and 100,000 is less than 17 halvings. */
	assert_in_range(rows, 60, 90);
}

static void a_full_disk_is_noticed(void **state)
{
	FILE *f = fopen("/dev/full", "we");

	(void)state;
	assert_non_null(f);
	assert_int_equal(hist_write_hgrm(h, f), -EIO);
	(void)fclose(f); /* fails again, as it should */
}

#define WITH_HIST(f) cmocka_unit_test_setup_teardown(f, new_hist, free_hist)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_HIST(an_empty_histogram_says_zero),
		WITH_HIST(each_duration_keeps_three_figures),
		WITH_HIST(percentiles_of_a_known_set_are_right),
		WITH_HIST(what_is_out_of_range_counts_at_its_end),
		WITH_HIST(merging_equals_recording_in_one),
		WITH_HIST(the_hgrm_text_is_what_plotters_read),
		WITH_HIST(an_empty_hgrm_has_no_rows),
		WITH_HIST(hgrm_rows_never_fall_and_end_at_the_count),
		WITH_HIST(a_full_disk_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
