/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of figures, from figures that we make up; and who runs where.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "cli/bench.h"

static struct bench_run *run;
static struct cli cli = { .name = "bench" };

static int start(void **state)
{
	struct errmsg em = { "" };

	(void)state;
	run = calloc(1, sizeof(*run));
	run->cli = &cli;
	run->n = 2;
	run->node[0] = (struct bench_node){ .id = 0, .shards = 1 };
	run->node[1] =
		(struct bench_node){ .id = 5, .shards = 4, .busy_poll_us = 20 };
	run->size_bytes = 1 << 24;
	run->threads = 4;
	run->seed = 9;
	run->placement = BENCH_NEAR;
	for (unsigned p = 0; p < BENCH_PATTERNS; p++)
		run->wanted[p] = true;
	return bench_results_new(run, &em);
}

static int end(void **state)
{
	(void)state;
	bench_results_done(run);
	free(run);
	return 0;
}

static void record(struct hist *h, unsigned n, nsec_t ns)
{
	while (n-- > 0)
		hist_record(h, ns);
}

/* random on node 0: 100 local faults of 10 us, 50 remote ones of 30 us. */
static void fill_in_random(void)
{
	struct bench_result *r = &run->result[BENCH_RANDOM];
	struct bench_figures *f = &r->node[0];

	r->ran = true;
	r->threads = 1;
	record(r->floor.local, 10, 8000);
	record(r->floor.remote, 10, 20000);
	f->pages = 200;
	f->accesses = 200;
	f->faulted[LOCAL_FIRST_TOUCH] = 100;
	f->faulted[LOCAL_REMOTE_READ] = 40;
	f->faulted[LOCAL_FIRST_REMOTE] = 10;
	f->faulted[LOCAL_REFAULT] = 3;
	f->node_faults = 150;
	f->installed_pages = 300;
	f->prefetched_pages = 7;
	record(f->local, 100, 10000);
	record(f->remote, 50, 30000);
	f->rate[BENCH_OWN] = (struct bench_rate){ 100, NSEC_PER_MSEC };
	f->rate[BENCH_OTHERS] = (struct bench_rate){ 100, 2 * NSEC_PER_MSEC };
}

static double real(const json_t *object, const char *a, const char *b)
{
	const json_t *v = json_object_get(object, a);

	return json_number_value(b ? json_object_get(v, b) : v);
}

static void assert_near(double got, double want)
{
	assert_true(got > want * 0.998 && got < want * 1.002);
}

static json_t *entry(const json_t *j, unsigned i)
{
	return json_array_get(json_object_get(j, "patterns"), i);
}

static void figures_become_json(void **state)
{
	json_t *j, *e;

	(void)state;
	fill_in_random();
	j = bench_json(run);
	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "schema")),
	                    "memspan.bench/1");
	assert_near(real(j, "placement", "shards"), 4);
	assert_near(real(j, "placement", "busy_poll_us"), 20);
	assert_near(real(j, "seed", NULL), 9);
	assert_int_equal(json_array_size(json_object_get(j, "patterns")), 2);
	e = entry(j, 0);
	assert_string_equal(json_string_value(json_object_get(e, "name")),
	                    "random");
	assert_near(real(e, "local_us", "p50"), 10);
	assert_near(real(e, "remote_us", "p99"), 30);
	assert_near(real(e, "remote_us", "n"), 50);
	assert_near(real(e, "local_faults", NULL), 100);
	assert_near(real(e, "remote_faults", NULL), 50);
	assert_near(real(e, "remote_miss_ratio", NULL), 0.25);
	assert_near(real(e, "pages_per_fault", NULL), 2);
	assert_near(real(e, "pages_per_s", NULL), 1e5);
	assert_near(real(e, "bytes_per_s", NULL), 4.096e8);
	assert_near(real(e, "remote_pages_per_s", NULL), 5e4);
	assert_near(real(e, "x_floor", "local_p50"), 1.25);
	assert_near(real(e, "x_floor", "remote_p50"), 1.5);
	/* It is random that the run's own floor comes from. */
	assert_near(real(json_object_get(j, "floor"), "local_us", "p50"), 8);
	json_decref(j);
}

static void what_was_not_measured_is_null(void **state)
{
	json_t *j, *e;

	(void)state;
	fill_in_random();
	j = bench_json(run);
	e = entry(j, 1); /* node 5, which did nothing */
	assert_near(real(e, "node", NULL), 5);
	assert_true(json_is_null(json_object_get(e, "local_us")));
	assert_true(json_is_null(json_object_get(e, "remote_us")));
	assert_true(json_is_null(json_object_get(e, "pages_per_s")));
	assert_true(json_is_null(
		json_object_get(json_object_get(e, "x_floor"), "remote_p50")));
	e = json_object_get(j, "floor");
	assert_true(json_is_null(json_object_get(e, "stream_bytes_per_s")));
	assert_int_equal(json_array_size(json_object_get(e, "threads")), 0);
	json_decref(j);
}

static void streams_and_threads_are_rates(void **state)
{
	struct bench_result *s = &run->result[BENCH_INTEGRITY];
	struct bench_result *c = &run->result[BENCH_CONCURRENT];
	json_t *j;

	(void)state;
	s->ran = c->ran = true;
	s->floor.stream[0] = (struct bench_rate){ 10, NSEC_PER_MSEC };
	s->floor.stream[6] = (struct bench_rate){ 400, NSEC_PER_MSEC };
	s->floor.stream[9] = (struct bench_rate){ 300, NSEC_PER_MSEC };
	s->node[0].rate[BENCH_OTHERS] =
		(struct bench_rate){ 360, NSEC_PER_MSEC };
	c->threads = 4;
	c->floor.threads[BENCH_OWN] = (struct bench_rate){ 100, NSEC_PER_MSEC };
	c->node[0].rate[BENCH_OWN] = (struct bench_rate){ 80, NSEC_PER_MSEC };
	j = bench_json(run);
	/* The best size of request counts. */
	assert_near(real(json_object_get(j, "floor"), "stream_bytes_per_s",
	                 NULL),
	            4e5 * PAGE_BYTES);
	assert_near(real(entry(j, 0), "x_floor", "stream"), 0.9);
	assert_near(real(entry(j, 0), "bytes_per_s", NULL), 3.6e5 * PAGE_BYTES);
	assert_near(real(entry(j, 2), "x_floor", "threads"), 0.8);
	assert_near(real(entry(j, 2), "threads", NULL), 4);
	json_decref(j);
}

static void shared_has_no_local_figures(void **state)
{
	struct bench_result *r = &run->result[BENCH_SHARED];
	json_t *j;

	(void)state;
	r->ran = true;
	r->node[0].accesses = 1000;
	r->node[0].faulted[LOCAL_REMOTE_WRITE] = 20;
	r->node[0].rate[BENCH_OTHERS] =
		(struct bench_rate){ 1000, 10 * NSEC_PER_MSEC };
	record(r->node[0].local, 1, 5000);
	record(r->node[0].remote, 20, 100000);
	j = bench_json(run);
	assert_true(json_is_null(json_object_get(entry(j, 0), "local_us")));
	assert_near(real(entry(j, 0), "handovers_per_s", NULL), 2000);
	json_decref(j);
}

static void strides_gain_is_beside_random(void **state)
{
	struct bench_result *r = &run->result[BENCH_STRIDE];
	json_t *j;

	(void)state;
	fill_in_random();
	r->ran = true;
	run->result[BENCH_RANDOM].all[BENCH_OTHERS] =
		(struct bench_rate){ 100, NSEC_PER_MSEC };
	r->all[BENCH_OTHERS] = (struct bench_rate){ 250, NSEC_PER_MSEC };
	j = bench_json(run);
	assert_near(real(entry(j, 2), "predictor_gain", NULL), 2.5);
	json_decref(j);
}

/* The whole text, which the caller frees. */
static char *text(void)
{
	char *buf = NULL;
	size_t bytes;
	FILE *f = open_memstream(&buf, &bytes);

	assert_non_null(f);
	bench_text(run, f);
	assert_int_equal(fclose(f), 0);
	return buf;
}

static void text_has_the_ratio_beside_the_figure(void **state)
{
	char *t;

	(void)state;
	fill_in_random();
	t = text();
	assert_non_null(strstr(t, "random: (node 0): pages=200"));
	assert_non_null(strstr(t, "p50=10.00, 1.25x floor"));
	assert_non_null(strstr(t, "p50=30.00, 1.50x floor"));
	assert_non_null(strstr(t, "50.00th=[    10.00]  1.25x"));
	assert_non_null(strstr(t, "integrity errors: 0\n"));
	free(t);
}

/* Of two rows one was skipped; a node with room took 30 us for a page. */
static void fill_in_capacity(void)
{
	struct bench_result *q = &run->result[BENCH_CAPACITY];
	struct bench_row *row = &run->row[0];
	struct bench_figures *f = &row->result.node[0];

	q->ran = true;
	q->node[0].pages = 512;
	record(q->node[0].remote, 512, 30000);
	row->percent = 50;
	row->result.ran = true;
	row->result.size_bytes = 64 << 20;
	record(row->result.floor.remote, 10, 25000);
	f->pages = 16384;
	f->accesses = 1000;
	f->faulted[LOCAL_REMOTE_READ] = 400;
	f->faulted[LOCAL_REFAULT] = 100;
	record(f->fault, 400, 60000);
	record(f->fault, 100, 10000);
	record(f->remote, 400, 60000);
	record(f->refault, 100, 10000);
	f->rate[BENCH_OTHERS] = (struct bench_rate){ 1000, 25 * NSEC_PER_MSEC };
	row->plain = (struct bench_rate){ 1000, NSEC_PER_MSEC };
	run->row[1].percent = 25;
	run->row[1].result.size_bytes = 128 << 20;
	strcpy(run->row[1].skipped, "it needs a space of 128 MiB: too much");
}

static void capacity_has_an_entry_for_each_row(void **state)
{
	json_t *j, *e;

	(void)state;
	fill_in_capacity();
	j = bench_json(run);
	assert_non_null(j);
	assert_int_equal(json_array_size(json_object_get(j, "patterns")), 2);
	e = entry(j, 0);
	assert_string_equal(json_string_value(json_object_get(e, "name")),
	                    "capacity");
	assert_near(real(e, "resident_percent", NULL), 50);
	assert_true(json_is_null(json_object_get(e, "skipped")));
	assert_near(real(e, "accesses_per_s", NULL), 40000);
	assert_near(real(e, "plain_accesses_per_s", NULL), 1e6);
	assert_near(real(e, "x_plain", NULL), 0.04);
	assert_near(real(e, "remote_miss_ratio", NULL), 0.4);
	assert_near(real(e, "refaults", NULL), 100);
	assert_near(real(e, "evicted_pages_per_s", NULL), 16000);
	assert_near(real(e, "fault_us", "n"), 500);
	assert_near(real(e, "refault_us", "p50"), 10);
	assert_near(real(e, "quiet_us", "p99"), 30);
	assert_near(real(e, "x_quiet", "p99"), 2);
	assert_near(real(e, "x_floor", "remote_p50"), 2.4);
	assert_near(real(e, "fault_x_floor_p50", NULL), 2.4);
	json_decref(j);
}

static void a_row_that_was_skipped_says_why(void **state)
{
	json_t *j, *e;
	char *t;

	(void)state;
	fill_in_capacity();
	j = bench_json(run);
	e = entry(j, 1);
	assert_near(real(e, "resident_percent", NULL), 25);
	assert_near(real(e, "space_bytes", NULL), 128 << 20);
	assert_string_equal(json_string_value(json_object_get(e, "skipped")),
	                    "it needs a space of 128 MiB: too much");
	assert_true(json_is_null(json_object_get(e, "accesses_per_s")));
	assert_true(json_is_null(json_object_get(e, "fault_us")));
	json_decref(j);
	t = text();
	assert_non_null(strstr(t, "capacity: (node 0): resident=50%, "
	                          "size=64 MiB, pages=16384"));
	assert_non_null(strstr(t, "fault lat (usec): min=10.00"));
	assert_non_null(strstr(t, "p99 2.00x that of a node with room"));
	assert_non_null(strstr(t, "resident=25%, size=128 MiB: skipped: it "
	                          "needs a space of 128 MiB: too much"));
	free(t);
}

static void wrong_pages_are_named(void **state)
{
	json_t *j, *e;
	char *t;

	(void)state;
	run->errors = run->n_kept = 1;
	run->error[0] = (struct bench_error){
		.pattern = BENCH_INTEGRITY,
		.node = 5,
		.space = "bench-1-sequential",
		.wrong = { .page = 77,
		           .offset = 5,
		           .whole = true,
		           .got = 1,
		           .want = 2 },
	};
	t = text();
	assert_non_null(strstr(t, "page 77 of bench-1-sequential, read on "
	                          "node 5: byte 5 is 0x01, should be 0x02"));
	free(t);
	j = bench_json(run);
	assert_near(real(j, "integrity_errors", NULL), 1);
	e = json_array_get(json_object_get(j, "errors"), 0);
	assert_near(real(e, "page", NULL), 77);
	assert_near(real(e, "byte", NULL), 5);
	json_decref(j);
}

static void hgrm_files_are_written_for_what_was_measured(void **state)
{
	char dir[] = "/tmp/memspan-hgrm-XXXXXX", path[128], line[128];
	struct errmsg em = { "" };
	FILE *f;

	(void)state;
	fill_in_random();
	assert_non_null(mkdtemp(dir));
	assert_int_equal(bench_hgrm(run, dir, &em), 0);
	snprintf(path, sizeof(path), "%s/random-5-local.hgrm", dir);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/random-0-remote.hgrm", dir);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_non_null(strstr(line, "Percentile"));
	fclose(f);
	snprintf(path, sizeof(path), "rm -r %s", dir);
	assert_int_equal(system(path), 0);
	assert_int_equal(bench_hgrm(run, "/proc/nowhere", &em), -ENOENT);
}

/* --- who runs where ---------------------------------------------------- */

/* A process that looks like a node's and waits until *end is closed. */
static pid_t imposter(int *end)
{
	int in[2], out[2];
	char ready[2];
	pid_t pid;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl("/bin/sh", "memspan-node", "-c", "echo; read line",
		      "--shards", "4", "--busy-poll=20", (char *)NULL);
		_exit(1);
	}
	assert_true(pid > 0);
	close(in[0]);
	close(out[1]);
	/* From its first word on it is no copy of ourselves any more. */
	assert_int_equal(read(out[0], ready, sizeof(ready)), 1);
	close(out[0]);
	*end = in[1];
	return pid;
}

static void a_nodes_command_line_is_read(void **state)
{
	struct bench_node n = { .id = 3, .shards = 1 };
	pid_t pid;
	int end;

	(void)state;
	bench_place_look(&n, getpid());
	assert_int_equal(n.pid, 0); /* we are no node */
	pid = imposter(&end);
	bench_place_look(&n, pid);
	assert_int_equal(n.pid, pid);
	assert_int_equal(n.shards, 4);
	assert_int_equal(n.busy_poll_us, 20);
	close(end);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void cpus(pid_t pid, cpu_set_t *ret)
{
	CPU_ZERO(ret);
	assert_int_equal(sched_getaffinity(pid, sizeof(*ret), ret), 0);
}

static void affinity_is_set_and_given_back(void **state)
{
	struct bench_place place = { 0 };
	struct errmsg em = { "" };
	cpu_set_t before, during, after;
	int end[8];
	pid_t pid[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		pid[i] = imposter(&end[i]);
	for (unsigned i = 0; i < 2; i++) {
		run->crew.member[i].client = pid[4 * i];
		run->crew.member[i].handler = pid[4 * i + 1];
		run->crew.member[i].peer = pid[4 * i + 2];
		run->node[i].pid = pid[4 * i + 3];
	}
	cpus(pid[3], &before);
	assert_int_equal(bench_place_set(&place, run, &em), 0);
	for (unsigned i = 0; i < 8; i++) {
		cpus(pid[i], &during);
		assert_int_equal(CPU_COUNT(&during), 1);
	}
	bench_place_restore(&place);
	cpus(pid[3], &after);
	assert_true(CPU_EQUAL(&before, &after));
	for (unsigned i = 0; i < 8; i++)
		close(end[i]);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(waitpid(pid[i], NULL, 0), pid[i]);
}

static void a_node_elsewhere_cannot_be_placed(void **state)
{
	struct bench_place place = { 0 };
	struct errmsg em = { "" };

	(void)state;
	/* Any address will do: it is only asked if there is a cluster. */
	run->http = (struct http *)(void *)run;
	assert_int_equal(bench_place_set(&place, run, &em), -ESRCH);
	assert_non_null(strstr(em.text, "node 0 is not on this machine"));
	run->placement = BENCH_FREE;
	assert_int_equal(bench_place_set(&place, run, &em), 0);
	run->http = NULL;
}

#define REPORT_TEST(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		REPORT_TEST(figures_become_json),
		REPORT_TEST(what_was_not_measured_is_null),
		REPORT_TEST(streams_and_threads_are_rates),
		REPORT_TEST(shared_has_no_local_figures),
		REPORT_TEST(strides_gain_is_beside_random),
		REPORT_TEST(text_has_the_ratio_beside_the_figure),
		REPORT_TEST(capacity_has_an_entry_for_each_row),
		REPORT_TEST(a_row_that_was_skipped_says_why),
		REPORT_TEST(wrong_pages_are_named),
		REPORT_TEST(hgrm_files_are_written_for_what_was_measured),
		REPORT_TEST(a_nodes_command_line_is_read),
		REPORT_TEST(affinity_is_set_and_given_back),
		REPORT_TEST(a_node_elsewhere_cannot_be_placed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
