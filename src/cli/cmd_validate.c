/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan validate - check a running cluster from end to end.  Manual:
 * memspan-validate(1).
 *
 * First what the coordinator says: is it well, are leases fresh, is everybody
 * connected.  Then what this machine can see by itself: what idle daemons use
 * of a CPU, and pages that really travel (validate_pages.c).
 */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "base/size.h"
#include "cli/health.h"
#include "cli/proc.h"
#include "cli/validate.h"

static const char usage_text[] =
	"usage: memspan validate [--json] [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Check a running cluster from end to end: coordinator, leases,\n"
	"connections, idle CPU, memory, and a page written on each node and read\n"
	"on each other one, in a space made and deleted for it.\n"
	"\n"
	"      --json             one JSON object, for programs; its fields are\n"
	"                         stable, the other form's are not\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one\n"
	"  -h, --help             show this text\n";

static const struct option options[] = { CLI_OPTION_JSON, CLI_OPTIONS, { 0 } };

#define HEALTH_ASKED     5u     /* times; the median counts */
#define HEALTH_MS_MAX    1000.0 /* a coordinator slower than that is stuck */
#define IDLE_WINDOW_MS   1000u
#define IDLE_PERCENT_MAX 5.0
/* What a node may use beside what it lends: an eighth, or this. */
#define OVERHEAD_BYTES_MIN (256ull << 20)

volatile sig_atomic_t validate_stop;

static void on_signal(int sig)
{
	validate_stop = sig;
}

struct check *validate_add(struct validate *v, const char *what,
                           const struct member_seen *m, const char *detail)
{
	char name[64];

	snprintf(name, sizeof(name), "%s-%" PRIu64, what, m->id);
	return check_add(&v->checks, name, "%s", detail);
}

/* --- what the coordinator says ------------------------------------------- */

static int by_ms(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static bool check_coordinator(struct validate *v)
{
	double ms[HEALTH_ASKED];
	struct errmsg em;
	struct check *k;

	for (unsigned i = 0; i < HEALTH_ASKED; i++) {
		struct http_answer a;
		int r = http_ask(v->http, "GET", "/health", NULL, &a, &em);

		if (r == HTTP_OK) {
			json_decref(a.body);
			ms[i] = a.ms;
			continue;
		}
		k = check_add(&v->checks, "coordinator", "%s", em.text);
		check_fail(k, r < 0 ? "start it, or look into its log" :
		                      "see 'memspan status'");
		if (r < 0)
			return false;
		json_decref(a.body);
		return true;
	}
	qsort(ms, HEALTH_ASKED, sizeof(*ms), by_ms);
	k = check_add(&v->checks, "coordinator",
	              "healthy, answers in %.1f ms (median of %u)",
	              ms[HEALTH_ASKED / 2], HEALTH_ASKED);
	check_measure(k, ms[HEALTH_ASKED / 2], HEALTH_MS_MAX, "ms");
	if (ms[HEALTH_ASKED / 2] > HEALTH_MS_MAX)
		check_fail(k, "the machine is overloaded, or its disk is slow");
	return true;
}

/* Note who is a member.  Those that left in order are none. */
static bool check_nodes(struct validate *v)
{
	const json_t *nodes, *node;
	struct errmsg em;
	struct check *k;
	size_t i;

	if (http_get(v->http, "/v1/cluster", &v->cluster_json, &em) !=
	    HTTP_OK) {
		k = check_add(&v->checks, "nodes", "%s", em.text);
		check_fail(k, "look into the coordinator's log");
		return false;
	}
	nodes = json_object_get(v->cluster_json, "nodes");
	v->lease_ms = field_u64(v->cluster_json, "lease_ms");
	v->member = calloc(json_array_size(nodes) + 1, sizeof(*v->member));
	if (!v->member) {
		check_fail(check_add(&v->checks, "nodes", "out of memory"), "");
		return false;
	}
	json_array_foreach(nodes, i, node)
	{
		if (node_in_state(node, "drained"))
			continue;
		v->member[v->n].json = node;
		v->member[v->n].id = field_u64(node, "id");
		v->n++;
	}
	k = check_add(&v->checks, "nodes", "%zu registered", v->n);
	check_measure(k, (double)v->n, -1, "nodes");
	if (v->n == 0)
		check_fail(k, "start one: memspan up, or memspan-node");
	return v->n > 0;
}

static void check_lease(struct validate *v, const struct member_seen *m)
{
	uint64_t age = field_u64(m->json, "lease_age_ms");
	const char *state = field_text(m->json, "state");
	char detail[160];
	struct check *k;

	snprintf(detail, sizeof(detail), "%s is %s, renewed %" PRIu64 " ms ago",
	         field_text(m->json, "name"), state, age);
	k = validate_add(v, "lease", m, detail);
	check_measure(k, (double)age, (double)v->lease_ms, "ms");
	if (!node_fresh(m->json, v->lease_ms))
		check_fail(k, "see the node's log; start it again if it is "
		              "gone, or forget it: curl -X DELETE "
		              "URL/v1/nodes/ID");
}

/* Both must say so: each knows of its own end. */
static void check_peers(struct validate *v, const struct member_seen *m)
{
	size_t others = 0, connected = 0, at = 0;
	char detail[200], apart[80] = "";
	struct check *k;

	for (size_t i = 0; i < v->n; i++) {
		const struct member_seen *o = &v->member[i];

		if (o == m)
			continue;
		others++;
		if (node_connected(m->json, o->id) &&
		    node_connected(o->json, m->id))
			connected++;
		else if (at < sizeof(apart))
			at += (size_t)snprintf(apart + at, sizeof(apart) - at,
			                       " %" PRIu64, o->id);
	}
	snprintf(detail, sizeof(detail),
	         "connected to %zu of %zu other nodes, both ways%s%s",
	         connected, others, connected < others ? "; not to" : "",
	         apart);
	k = validate_add(v, "peers", m, detail);
	check_measure(k, (double)connected, (double)others, "nodes");
	if (connected < others)
		check_fail(k, "see the nodes' logs; is the port of each one's "
		              "endpoint open to the others?");
}

static void check_memory(struct validate *v, const struct member_seen *m)
{
	const json_t *memory = json_object_get(m->json, "memory");
	uint64_t limit = field_u64(memory, "limit_bytes");
	uint64_t overhead = field_u64(memory, "overhead_bytes");
	uint64_t allowed = max_u64(limit / 8, OVERHEAD_BYTES_MIN);
	char detail[160], a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES];
	struct check *k;

	snprintf(detail, sizeof(detail), "uses %s beside the %s that it lends",
	         size_text(overhead, a), size_text(limit, b));
	k = validate_add(v, "memory", m, detail);
	check_measure(k, (double)overhead, (double)allowed, "bytes");
	if (overhead > allowed)
		check_fail(k, "start the node with fewer --shards, or with "
		              "more --memory");
}

/* --- idle CPU ------------------------------------------------------------ */

struct idle { /* one daemon of this machine */
	char name[64];
	pid_t pid;
	nsec_t before;
};

static size_t idle_list(const struct validate *v, struct idle *idle)
{
	size_t n = 0;

	for (size_t i = 0; i < v->daemons.n; i++) {
		const struct daemon *d = &v->daemons.v[i];
		struct idle *one = &idle[n];

		if (d->id == DAEMON_COORDINATOR)
			snprintf(one->name, sizeof(one->name),
			         "idle-cpu-coordinator");
		else
			snprintf(one->name, sizeof(one->name), "idle-cpu-%d",
			         d->id);
		one->pid = d->pid;
		n += proc_cpu_ns(d->pid, &one->before) == 0;
	}
	return n;
}

static void check_idle(struct validate *v)
{
	struct idle *idle = calloc(v->daemons.n + 1, sizeof(*idle));
	nsec_t start = cli_now(), window;
	uint64_t clients = 0;
	size_t n;

	for (size_t i = 0; i < v->n; i++)
		clients += field_u64(v->member[i].json, "clients");
	if (!idle || clients > 0 || v->daemons.n == 0) {
		check_skip(check_add(
			&v->checks, "idle-cpu", "%s",
			clients > 0 ? "clients are attached: it is not idle" :
				      "no daemon of this cluster is in the run "
				      "directory"));
		free(idle);
		return;
	}
	n = idle_list(v, idle);
	(void)poll(NULL, 0, IDLE_WINDOW_MS);
	window = cli_now() - start;
	for (size_t i = 0; i < n; i++) {
		double percent;
		nsec_t after;
		struct check *k;

		if (proc_cpu_ns(idle[i].pid, &after) < 0)
			continue; /* gone: its lease will tell */
		percent = 100.0 * (double)(after - idle[i].before) /
		          (double)window;
		k = check_add(&v->checks, idle[i].name,
		              "%.2f %% of a CPU in %.1f s", percent,
		              (double)window / (double)NSEC_PER_SEC);
		check_measure(k, percent, IDLE_PERCENT_MAX, "%");
		if (percent > IDLE_PERCENT_MAX)
			check_fail(k, "is it started with --busy-poll? if not, "
			              "see its log");
	}
	free(idle);
}

/* --- the command --------------------------------------------------------- */

/*
 * The daemons of the run directory, if they are of this cluster: its nodes
 * there have the pids that the coordinator knows of.
 */
static void find_daemons(struct validate *v)
{
	size_t kept = 0;
	bool ours = false;

	if (v->cluster.run_dir[0] == '\0' ||
	    daemons_find(v->cluster.run_dir, &v->daemons, NULL) < 0)
		return;
	for (size_t i = 0; i < v->daemons.n; i++) {
		struct daemon *d = &v->daemons.v[i];
		bool keep = d->id == DAEMON_COORDINATOR && ours;

		for (size_t j = 0; j < v->n && d->id >= 0; j++) {
			struct member_seen *m = &v->member[j];

			if (m->id != (uint64_t)d->id ||
			    field_u64(m->json, "pid") != (uint64_t)d->pid)
				continue;
			keep = ours = m->here = true;
		}
		if (keep)
			v->daemons.v[kept++] = *d;
		else
			close(d->pidfd);
	}
	v->daemons.n = kept;
}

static void skip(struct validate *v, const char *name)
{
	check_skip(
		check_add(&v->checks, name, "%s", "an earlier check failed"));
}

static void run(struct validate *v)
{
	if (!check_coordinator(v)) {
		skip(v, "nodes");
		skip(v, "idle-cpu");
		skip(v, "pages");
		return;
	}
	if (!check_nodes(v)) {
		skip(v, "idle-cpu");
		skip(v, "pages");
		return;
	}
	find_daemons(v);
	for (size_t i = 0; i < v->n; i++)
		check_lease(v, &v->member[i]);
	for (size_t i = 0; i < v->n; i++)
		check_peers(v, &v->member[i]);
	for (size_t i = 0; i < v->n; i++)
		check_memory(v, &v->member[i]);
	check_idle(v);
	validate_pages(v);
}

int cmd_validate(int argc, char **argv)
{
	struct cli cli = { .name = "validate", .usage = usage_text };
	struct sigaction act = { .sa_handler = on_signal };
	struct validate v = { .n = 0 };
	int r, opt;

	while ((opt = cli_option(&cli, argc, argv, options)) >= 0)
		assert(opt < 0); /* it has no options of its own */
	if (opt == CLI_OVER)
		return cli.status;
	r = cli_no_more(&cli, argc, argv);
	if (r == 0)
		r = cluster_open(&cli, &v.cluster, &v.http);
	if (r != 0)
		return r;
	/* Whoever interrupts it does not want the space left behind. */
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	run(&v);
	r = checks_print(&v.checks, &cli);
	checks_done(&v.checks);
	daemons_done(&v.daemons);
	free(v.member);
	json_decref(v.cluster_json);
	http_free(v.http);
	return r;
}
