/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan bench - measure page faults beside the least they must cost.  Manual:
 * memspan-bench(1).
 *
 * Parse, look who is there, start the processes, run the patterns, print; and
 * put everything back, whatever failed.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/pidfile.h"
#include "base/size.h"
#include "cli/bench.h"
#include "cli/health.h"
#include "cli/space.h"

static const char usage_text[] =
	"usage: memspan bench [--space NAME | --size SIZE] [--pattern LIST]\n"
	"                     [--nodes LIST] [--threads N]\n"
	"                     [--placement near|far|free] [--seed N]\n"
	"                     [--json] [--output FILE] [--hgrm DIR]\n"
	"                     [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Measure what page faults of a cluster cost, beside the floor: what they\n"
	"must cost at least on this machine.\n"
	"\n"
	"      --size SIZE        memory that each pattern touches (default 256M),\n"
	"                         in a fresh space of its own\n"
	"      --space NAME       use this space instead; its contents are lost\n"
	"      --pattern LIST     of sequential, integrity, random, stride,\n"
	"                         concurrent, shared, invalidate (default all);\n"
	"                         capacity: more memory than its node has; fills\n"
	"                         the cluster, so it is not in all;\n"
	"                         floor: the floor alone, needs no cluster\n"
	"      --nodes LIST       names or numbers (default all that can be\n"
	"                         reached from here)\n"
	"      --threads N        of each client in concurrent and shared, 1 to\n"
	"                         10000 (default 4)\n"
	"      --placement WHERE  near: all on one CPU; far: every wake-up goes\n"
	"                         to another; free (default): as it comes\n"
	"      --seed N           of contents and orders (default 1)\n"
	"      --json             one JSON object, for programs; its fields are\n"
	"                         stable, the other form's are not\n"
	"      --output FILE      write that object to FILE as well\n"
	"      --hgrm DIR         write latencies for HdrHistogram's plotters\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one\n"
	"  -h, --help             show this text\n"
	"\n"
	"Exit status: 0 done, 1 failed or a page was wrong, 2 used wrongly.\n";

enum {
	OPT_SIZE = 1,
	OPT_SPACE,
	OPT_PATTERN,
	OPT_NODES,
	OPT_THREADS,
	OPT_PLACEMENT,
	OPT_SEED,
	OPT_OUTPUT,
	OPT_HGRM
};

static const struct option options[] = {
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "space", required_argument, NULL, OPT_SPACE },
	{ "pattern", required_argument, NULL, OPT_PATTERN },
	{ "nodes", required_argument, NULL, OPT_NODES },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "placement", required_argument, NULL, OPT_PLACEMENT },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "output", required_argument, NULL, OPT_OUTPUT },
	{ "hgrm", required_argument, NULL, OPT_HGRM },
	CLI_OPTION_JSON,
	CLI_OPTIONS,
	{ 0 },
};

struct request {
	struct cli cli;
	struct bench_run *run;
	const char *nodes; /* --nodes, or NULL */
	const char *output, *hgrm;
};

/* --- options ------------------------------------------------------------- */

/*
 * Cut the next word off a list with commas.  Returns NULL at its end.
 */
static char *next_word(char **list)
{
	char *word;

	do {
		word = strsep(list, ",");
	} while (word && word[0] == '\0');
	return word;
}

static int take_patterns(struct request *q, const char *text)
{
	AUTO_FREE char *copy = strdup(text);
	char *rest = copy, *word;
	bool any = false;

	memset(q->run->wanted, 0, sizeof(q->run->wanted));
	while (copy && (word = next_word(&rest)) != NULL) {
		bool all = strcmp(word, "all") == 0, known = all;

		for (unsigned p = 0; p < BENCH_PATTERNS; p++) {
			if (all ? p < BENCH_IN_ALL :
			          strcmp(word, bench_pattern_name[p]) == 0) {
				q->run->wanted[p] = true;
				known = true;
			}
		}
		if (!known)
			return cli_misused(&q->cli,
			                   "--pattern: there is no '%s'", word);
		any = true;
	}
	return any ? 0 : cli_misused(&q->cli, "--pattern: the list is empty");
}

static int take_placement(struct request *q, const char *text)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bench_placement_name); i++) {
		if (strcmp(text, bench_placement_name[i]) == 0) {
			q->run->placement = (enum bench_placement)i;
			return 0;
		}
	}
	return cli_misused(&q->cli,
	                   "--placement: '%s' is not near, far or free", text);
}

static int take_option(struct request *q, int opt)
{
	struct bench_run *run = q->run;
	uint64_t n = 0;
	int r = 0;

	switch (opt) {
	case OPT_SIZE:
		q->run->sized = true;
		/* Less than an extent for each node would not be dealt out. */
		return cli_size(&q->cli, "--size", optarg, EXTENT_BYTES,
		                SPACE_BYTES_MAX, &run->size_bytes);
	case OPT_SPACE:
		if (!space_name_valid(optarg))
			return cli_misused(&q->cli, "--space: " SPACE_NAME_RULE,
			                   optarg);
		run->space = optarg;
		return 0;
	case OPT_PATTERN:
		return take_patterns(q, optarg);
	case OPT_NODES:
		q->nodes = optarg;
		return 0;
	case OPT_THREADS:
		r = cli_number(&q->cli, "--threads", optarg, 1,
		               BENCH_THREADS_MAX, &n);
		run->threads = (unsigned)n;
		return r;
	case OPT_PLACEMENT:
		return take_placement(q, optarg);
	case OPT_SEED:
		return cli_number(&q->cli, "--seed", optarg, 0, INT64_MAX,
		                  &run->seed);
	case OPT_OUTPUT:
		q->output = optarg;
		return 0;
	default:
		q->hgrm = optarg;
		return 0;
	}
}

static int parse(struct request *q, int argc, char **argv)
{
	int opt, r;

	q->run->threads = 4;
	q->run->seed = 1;
	q->run->size_bytes = 256u << 20;
	for (unsigned p = 0; p < BENCH_IN_ALL; p++)
		q->run->wanted[p] = true;
	while ((opt = cli_option(&q->cli, argc, argv, options)) != CLI_END) {
		if (opt == CLI_OVER)
			return CLI_OVER;
		r = take_option(q, opt);
		if (r != 0) {
			q->cli.status = r;
			return CLI_OVER;
		}
	}
	q->cli.status = cli_no_more(&q->cli, argc, argv);
	if (q->cli.status == 0 && q->run->space && q->run->sized)
		q->cli.status = cli_misused(
			&q->cli, "--space and --size exclude one another");
	return q->cli.status == 0 ? 0 : CLI_OVER;
}

/* --- who takes part ------------------------------------------------------ */

/* Is the node named in `list`?  All are if there is none. */
static bool listed(const char *list, const json_t *node)
{
	AUTO_FREE char *copy = NULL;
	char id[24], *rest, *word;

	if (!list)
		return true;
	copy = strdup(list);
	rest = copy;
	snprintf(id, sizeof(id), "%llu",
	         (unsigned long long)field_u64(node, "id"));
	while (copy && (word = next_word(&rest)) != NULL)
		if (strcmp(word, id) == 0 ||
		    strcmp(word, field_text(node, "name")) == 0)
			return true;
	return false;
}

/* Every word of --nodes must be somebody. */
static int all_known(const struct request *q, const json_t *nodes,
                     struct errmsg *em)
{
	AUTO_FREE char *copy = q->nodes ? strdup(q->nodes) : NULL;
	char *rest = copy, *word;

	while (copy && (word = next_word(&rest)) != NULL) {
		const json_t *node;
		bool known = false;
		size_t i;

		json_array_foreach(nodes, i, node) known =
			known || listed(word, node);
		if (!known)
			return errmsg_say(em, -ENOENT,
			                  "--nodes: there is no node '%s'; "
			                  "memspan status lists them",
			                  word);
	}
	return 0;
}

static void add_node(struct bench_run *run, const json_t *node)
{
	struct bench_node *n = &run->node[run->n];
	char path[RUN_PATH_BYTES];
	pid_t pid;

	n->id = (uint32_t)field_u64(node, "id");
	snprintf(n->name, sizeof(n->name), "%s", field_text(node, "name"));
	run_path_node(run->cluster.run_dir, n->id, "sock", n->socket);
	n->capacity_bytes =
		field_u64(json_object_get(node, "memory"), "capacity_bytes");
	n->shards = 1;
	if (pidfile_open(run_path_node(run->cluster.run_dir, n->id, "pid",
	                               path),
	                 &pid, NULL) != 0)
		pid = (pid_t)field_u64(node, "pid");
	if (pid > 0)
		bench_place_look(n, pid);
	run->n++;
}

/* Those that are alive and whose socket we may open; the others are named. */
static int choose_nodes(struct request *q, const json_t *nodes,
                        struct errmsg *em)
{
	struct bench_run *run = q->run;
	char path[RUN_PATH_BYTES];
	const json_t *node;
	size_t i;
	int r;

	r = all_known(q, nodes, em);
	if (r < 0)
		return r;
	json_array_foreach(nodes, i, node)
	{
		unsigned id = (unsigned)field_u64(node, "id");
		const char *why = NULL;

		if (!listed(q->nodes, node))
			continue;
		run_path_node(run->cluster.run_dir, id, "sock", path);
		if (!node_in_state(node, "alive"))
			why = field_text(node, "state");
		else if (access(path, R_OK | W_OK) < 0)
			why = "its client socket is not on this machine";
		else if (run->n == BENCH_NODES_MAX)
			why = "64 take part already";
		if (!why)
			add_node(run, node);
		else
			fprintf(stderr,
			        "memspan bench: node %u is skipped: %s\n", id,
			        why);
	}
	if (run->n == 0)
		return errmsg_say(em, -ENOENT,
		                  "no node whose clients can run here: no "
		                  "living node has its socket in %s; name its "
		                  "run directory with --run-dir",
		                  run->cluster.run_dir);
	return 0;
}

static int look_at_space(struct bench_run *run, struct errmsg *em)
{
	AUTO(json_decref) json_t *space = NULL;
	char path[96];
	int r;

	if (!run->space)
		return 0;
	snprintf(path, sizeof(path), "/v1/spaces/%s", run->space);
	r = http_get(run->http, path, &space, em);
	if (r != HTTP_OK)
		return r < 0 ? r : -ENOENT;
	run->size_bytes = field_u64(space, "size_bytes");
	run->sized = true;
	return 0;
}

static int find_cluster(struct request *q, struct errmsg *em)
{
	AUTO(json_decref) json_t *cluster = NULL;
	struct bench_run *run = q->run;
	int r;

	/* It has said what is wrong. */
	if (cluster_open(&q->cli, &run->cluster, &run->http) != 0)
		return -ECONNREFUSED;
	r = http_get(run->http, "/v1/cluster", &cluster, em);
	if (r != HTTP_OK)
		return r < 0 ? r : -EPROTO;
	r = choose_nodes(q, json_object_get(cluster, "nodes"), em);
	return r < 0 ? r : look_at_space(run, em);
}

/* Two copies of the floor, as a cluster of two nodes would have. */
static void imagine_nodes(struct bench_run *run)
{
	run->n = 2;
	for (unsigned i = 0; i < run->n; i++)
		run->node[i].id = i;
}

/* --- the run ------------------------------------------------------------- */

static void on_signal(int sig)
{
	(void)sig;
	bench_stop = 1;
}

/* Not SA_RESTART: what waits shall notice. */
static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)sigaction(SIGHUP, &sa, NULL);
}

static int start_crew(struct bench_run *run, struct errmsg *em)
{
	struct bench_crew_config cfg = { .n = run->n,
		                         .room = bench_room(run),
		                         .seed = run->seed };

	for (unsigned i = 0; i < run->n; i++) {
		cfg.node_socket[i] = run->node[i].socket;
		cfg.node[i] = run->node[i].id;
		/* The floor polls as the nodes do, or it would not be one. */
		cfg.busy_poll_ns =
			max_u64(cfg.busy_poll_ns,
		                run->node[i].busy_poll_us * NSEC_PER_USEC);
	}
	return bench_crew_start(&run->crew, &cfg, em);
}

/* Everything between the first process and the last. */
static int measure(struct bench_run *run, struct errmsg *em)
{
	struct bench_place place = { 0 };
	int r;

	catch_signals();
	r = start_crew(run, em);
	if (r == 0)
		r = bench_place_set(&place, run, em);
	if (r == 0)
		r = bench_patterns(run, em);
	/* First the affinity: cleaning up may take a while. */
	bench_place_restore(&place);
	bench_progress_end(run);
	bench_space_abandon(run);
	return r;
}

static int write_output(const struct request *q, const json_t *object)
{
	FILE *f = fopen(q->output, "we");
	int r = -1;

	if (!f)
		return cli_fail(&q->cli, "--output: %s: %s", q->output,
		                strerror(errno));
	if (object)
		r = json_dumpf(object, f, CLI_JSON_FLAGS);
	if (r == 0 && fputc('\n', f) == EOF)
		r = -1;
	if (fclose(f) != 0 || r < 0)
		return cli_fail(&q->cli, "--output: %s: cannot be written",
		                q->output);
	return CLI_OK;
}

/* Who reads JSON, or nothing but stderr, shall see them too. */
static int name_wrong_pages(const struct request *q)
{
	const struct bench_run *run = q->run;

	for (unsigned i = 0; i < run->n_kept; i++) {
		const struct bench_error *e = &run->error[i];

		(void)cli_fail(&q->cli,
		               "page %llu of %s, read on node %u, is wrong",
		               (unsigned long long)e->wrong.page, e->space,
		               e->node);
	}
	return cli_fail(&q->cli,
	                "%llu integrity errors: the memory of this cluster is "
	                "not to be trusted; report it with the logs",
	                (unsigned long long)run->errors);
}

static int report(struct request *q)
{
	AUTO(json_decref) json_t *object = bench_json(q->run);
	struct errmsg em = { "" };
	int status = CLI_OK;

	if (!object)
		return cli_fail(&q->cli, "cannot make the JSON: out of memory");
	if (q->cli.json)
		status = cli_print_json(&q->cli, json_incref(object));
	else
		bench_text(q->run, stdout);
	if (q->output && write_output(q, object) != CLI_OK)
		status = CLI_FAILED;
	if (q->hgrm && bench_hgrm(q->run, q->hgrm, &em) < 0)
		status = cli_fail(&q->cli, "%s", em.text);
	if (q->run->errors > 0)
		status = name_wrong_pages(q);
	return cli_finish(&q->cli, status);
}

static int bench(struct request *q)
{
	struct bench_run *run = q->run;
	struct errmsg em = { "" };
	bool cluster = false;
	int r = 0;

	for (unsigned p = 0; p < BENCH_FLOOR; p++)
		cluster = cluster || run->wanted[p];
	run->terminal = isatty(STDERR_FILENO) == 1;
	if (cluster)
		r = find_cluster(q, &em);
	else
		imagine_nodes(run);
	if (r == 0)
		r = bench_results_new(run, &em);
	if (r == 0)
		r = measure(run, &em);
	if (r < 0)
		return em.text[0] ? cli_fail(&q->cli, "%s", em.text) :
		                    CLI_FAILED;
	return report(q);
}

int cmd_bench(int argc, char **argv)
{
	struct request q = { .cli = { .name = "bench", .usage = usage_text } };
	int status;

	q.run = calloc(1, sizeof(*q.run));
	if (!q.run)
		return cli_fail(&q.cli, "out of memory");
	q.run->cli = &q.cli;
	status = parse(&q, argc, argv) == 0 ? bench(&q) : q.cli.status;
	bench_results_done(q.run);
	http_free(q.run->http);
	free(q.run);
	return status;
}
