/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan vm - run QEMU with a guest whose memory is a space.  Manual:
 * memspan-vm(1).
 *
 * QEMU's arguments are read and judged first (vm_args.h), then the space is
 * found or made, then QEMU is run by what `memspan run` runs programs with.
 * The space's memory is one file backend for all of the guest's RAM.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/health.h"
#include "cli/http.h"
#include "cli/run.h"
#include "cli/space.h"
#include "cli/vm_args.h"
#include "cli/vm_line.h"
#include "cli/vm_numa.h"
#include "cli/vm_run.h"
#include "wire/local.h"

static const char usage_text[] =
	"usage: memspan vm [--space NAME | --memory SIZE] [--node NODE]\n"
	"                  [--numa] [--unsafe] [--print] [--qemu PROGRAM]\n"
	"                  [--run-dir DIR] [--coordinator URL]\n"
	"                  -- QEMU-ARGUMENT...\n"
	"\n"
	"Run QEMU with a guest whose memory is a space, on whichever nodes its\n"
	"pages are. QEMU-ARGUMENTs are those of qemu-system-x86_64, which -m\n"
	"included may stay as they are.\n"
	"\n"
	"      --space NAME       the guest's memory is this space, which stays\n"
	"      --memory SIZE      make a space for the guest, and delete it at\n"
	"                         the end; instead of -m\n"
	"      --node NODE        name or number of the node that serves it\n"
	"                         (default the only one that runs here)\n"
	"      --numa             tell the guest which of its memory is bound to\n"
	"                         which node; with --memory, bind equal parts\n"
	"      --unsafe           run it even with arguments that are refused\n"
	"      --print            print the command line, and run nothing\n"
	"      --qemu PROGRAM     this one (default $MEMSPAN_QEMU, or\n"
	"                         qemu-system-x86_64)\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one\n"
	"  -h, --help             show this text\n"
	"\n"
	"Exit status: that of QEMU; 126 it cannot be run, 127 there is none;\n"
	"1 failed before it came to that, 2 used wrongly or an argument refused.\n";

enum {
	OPT_SPACE = 1,
	OPT_MEMORY,
	OPT_NODE,
	OPT_NUMA,
	OPT_UNSAFE,
	OPT_PRINT,
	OPT_QEMU,
};

static const struct option options[] = {
	{ "space", required_argument, NULL, OPT_SPACE },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "node", required_argument, NULL, OPT_NODE },
	{ "numa", no_argument, NULL, OPT_NUMA },
	{ "unsafe", no_argument, NULL, OPT_UNSAFE },
	{ "print", no_argument, NULL, OPT_PRINT },
	{ "qemu", required_argument, NULL, OPT_QEMU },
	CLI_OPTIONS,
	{ 0 },
};

struct request {
	struct cli cli;
	const char *space; /* --space, or NULL */
	const char *node;  /* --node, or NULL */
	const char *qemu;
	uint64_t memory_bytes; /* --memory, or 0 */
	bool numa, unsafe, print;
	struct vm_args args;
	struct run run; /* which node */

	/* What comes of it. */
	char name[LOCAL_NAME_BYTES]; /* of the space */
	uint64_t ram_bytes;
	json_t *bind; /* of the space; owned */
	struct vm_nodes nodes;
	const char *machine; /* to use instead; NULL: the user's */
	struct http *http;   /* owned; NULL until the cluster is needed */
};

/* --- the command line ---------------------------------------------------- */

/* Read one option.  Returns 0 or CLI_USAGE. */
static int take_option(struct request *q, int opt)
{
	switch (opt) {
	case OPT_SPACE:
		if (!space_name_valid(optarg))
			return cli_misused(&q->cli, "--space: " SPACE_NAME_RULE,
			                   optarg);
		q->space = optarg;
		return 0;
	case OPT_MEMORY:
		return cli_size(&q->cli, "--memory", optarg, PAGE_BYTES,
		                SPACE_BYTES_MAX, &q->memory_bytes);
	case OPT_NODE:
		q->node = optarg;
		return 0;
	case OPT_NUMA:
		q->numa = true;
		return 0;
	case OPT_UNSAFE:
		q->unsafe = true;
		return 0;
	case OPT_PRINT:
		q->print = true;
		return 0;
	default: /* OPT_QEMU */
		q->qemu = optarg;
		return 0;
	}
}

/* Does a module of the kernel's KVM let guests have guests? */
static bool nested(const char *module)
{
	char path[64];
	FILE *f;
	int c;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/nested",
	         module);
	f = fopen(path, "re");
	c = f ? fgetc(f) : 'N';
	if (f)
		(void)fclose(f); /* read only: nothing to lose */
	return c == 'Y' || c == '1';
}

/* Say what is refused.  Returns 0 if QEMU may be run all the same. */
static int judge(struct request *q)
{
	size_t n = min_u64(q->args.n_refusals, VM_REFUSALS_MAX);
	bool stop = false;

	for (size_t i = 0; i < n; i++) {
		const struct vm_refusal *r = &q->args.refusal[i];
		bool insisted = q->unsafe && !r->always;

		(void)cli_fail(
			&q->cli, "%s%s: %s%s%s%s", insisted ? "warning: " : "",
			r->what, r->why, r->instead ? "; use " : "",
			r->instead ? r->instead : "",
			insisted || r->always ? "" : " (--unsafe insists)");
		stop |= !insisted;
	}
	if (q->args.n_refusals > n)
		(void)cli_fail(&q->cli, "and %zu more", q->args.n_refusals - n);
	return stop ? CLI_USAGE : 0;
}

/* Read QEMU's arguments.  Returns 0, or the exit status. */
static int take_arguments(struct request *q, int n, char *const *v)
{
	const struct vm_host host = {
		.vmx_nested = nested("kvm_intel"),
		.svm_nested = nested("kvm_amd"),
	};
	struct errmsg em;
	int r = vm_args_read(n, v, &host, &q->args, &em);

	if (r == -EINVAL)
		return cli_misused(&q->cli, "%s", em.text);
	if (r < 0)
		return cli_fail(&q->cli, "%s", em.text);
	r = judge(q);
	if (r != 0)
		return r;
	if (q->space && q->memory_bytes > 0)
		return cli_misused(&q->cli, "--space or --memory, not both");
	if (q->memory_bytes > 0 && q->args.ram_bytes > 0 &&
	    q->memory_bytes != q->args.ram_bytes)
		return cli_misused(&q->cli, "--memory and -m are not the same");
	q->ram_bytes = max_u64(q->memory_bytes, q->args.ram_bytes);
	if (!q->space && q->ram_bytes == 0)
		return cli_misused(&q->cli, "how much memory? give --memory "
		                            "SIZE, -m or --space NAME");
	if (q->ram_bytes % PAGE_BYTES != 0)
		return cli_misused(&q->cli, "the guest's memory is no multiple "
		                            "of a page, 4K");
	if (q->numa && vm_numa_machine(q->args.machine, &q->machine, &em) < 0)
		return cli_misused(&q->cli, "%s", em.text);
	return 0;
}

/* --- the space ----------------------------------------------------------- */

/* What there is to know of --space.  Returns 0, or the exit status. */
static int look_at_space(struct request *q)
{
	AUTO(json_decref) json_t *space = NULL;
	char path[96], size[SIZE_TEXT_BYTES];
	struct errmsg em = { "" };
	uint64_t bytes;

	snprintf(path, sizeof(path), "/v1/spaces/%s", q->space);
	if (http_get(q->http, path, &space, &em) != HTTP_OK)
		return cli_fail(&q->cli, "%s", em.text);
	bytes = field_u64(space, "size_bytes");
	if (q->ram_bytes > bytes)
		return cli_fail(&q->cli,
		                "space %s has only %s; use a smaller -m or a "
		                "larger space",
		                q->space, size_text(bytes, size));
	if (q->ram_bytes == 0)
		q->ram_bytes = bytes;
	snprintf(q->name, sizeof(q->name), "%s", q->space);
	q->bind = json_incref(json_object_get(space, "bind"));
	return 0;
}

/*
 * The number of the node that serves us: of --node, or of the socket's name.
 * Returns 0, or the exit status.
 */
static int find_here(struct request *q, const json_t *nodes, unsigned *ret)
{
	const char *base = strrchr(q->run.socket, '/');
	const json_t *node;
	unsigned id = 0;
	bool known;
	size_t i;

	known = sscanf(base ? base + 1 : q->run.socket, "node-%u.sock", &id) ==
	        1;
	json_array_foreach(nodes, i, node)
	{
		if (q->node && strcmp(field_text(node, "name"), q->node) == 0) {
			id = (unsigned)field_u64(node, "id");
			known = true;
		}
	}
	if (!known)
		return cli_fail(&q->cli,
		                "--numa: which node is at %s? say so with "
		                "--node",
		                q->run.socket);
	*ret = id;
	return 0;
}

/* Equal parts, ours first, the others in the order of their numbers. */
static json_t *equal_parts(uint64_t bytes, const json_t *nodes, unsigned here)
{
	uint64_t extents = (bytes + EXTENT_BYTES - 1) / EXTENT_BYTES;
	uint64_t alive = 1, at = 0, part = 0;
	json_t *list = json_array();
	const json_t *node;
	size_t i;
	int r = 0;

	json_array_foreach(nodes, i, node) alive +=
		node_in_state(node, "alive") && field_u64(node, "id") != here;
	for (i = 0; i <= json_array_size(nodes) && r == 0; i++) {
		uint64_t id = here, end;

		node = i == 0 ? NULL : json_array_get(nodes, i - 1);
		if (node) {
			id = field_u64(node, "id");
			if (id == here || !node_in_state(node, "alive"))
				continue;
		}
		end = extents * ++part / alive;
		if (end > at)
			r = json_array_append_new(
				list,
				json_pack("{s:I, s:I, s:I}", "first_bytes",
			                  (json_int_t)(at * EXTENT_BYTES),
			                  "last_bytes",
			                  (json_int_t)min_u64(
						  end * EXTENT_BYTES, bytes),
			                  "node", (json_int_t)id));
		at = end;
	}
	if (r == 0)
		return list;
	json_decref(list);
	return NULL;
}

/* Settle what the guest is told of nodes.  Returns 0, or the exit status. */
static int settle_nodes(struct request *q)
{
	AUTO(json_decref) json_t *cluster = NULL;
	struct errmsg em = { "" };
	const json_t *nodes;
	unsigned here = 0;
	int r;

	if (!q->numa)
		return 0;
	if (http_get(q->http, "/v1/cluster", &cluster, &em) != HTTP_OK)
		return cli_fail(&q->cli, "%s", em.text);
	nodes = json_object_get(cluster, "nodes");
	r = find_here(q, nodes, &here);
	if (r != 0)
		return r;
	if (!q->space) {
		json_decref(q->bind);
		q->bind = equal_parts(q->ram_bytes, nodes, here);
		if (!q->bind)
			return cli_fail(&q->cli, "out of memory");
	}
	if (json_is_string(q->bind))
		(void)cli_fail(&q->cli,
		               "note: the space is interleaved, so no part of "
		               "it is one node's: the guest sees one node");
	r = vm_numa_read(q->bind, q->ram_bytes, here, &q->nodes, &em);
	return r < 0 ? cli_fail(&q->cli, "--numa: %s", em.text) : 0;
}

static int make_space(struct request *q)
{
	AUTO(json_decref)
	json_t *body = json_pack("{s:s, s:I, s:i, s:O}", "name", q->name,
	                         "size_bytes", (json_int_t)q->ram_bytes,
	                         "replicas", 1, "bind", q->bind);
	struct http_answer answer = { .status = 0 };
	struct errmsg em = { "" };
	int r;

	if (!body)
		return cli_fail(&q->cli, "out of memory");
	r = http_ask(q->http, "POST", "/v1/spaces", body, &answer, &em);
	if (r >= 0)
		json_decref(answer.body);
	return r == HTTP_OK ? 0 : cli_fail(&q->cli, "%s", em.text);
}

/* --- doing it ------------------------------------------------------------ */

static void print_option(const char *name, const char *value)
{
	if (!value)
		return;
	printf(" %s ", name);
	vm_line_quote(value, stdout);
}

static void print_cluster(const struct request *q)
{
	print_option("--run-dir", q->cli.run_dir);
	print_option("--coordinator", q->cli.coordinator);
}

/* --bind of `space create` for each range of a binding. */
static void print_bind(const json_t *bind)
{
	const json_t *range;
	size_t i;

	json_array_foreach(bind, i, range)
	{
		uint64_t last = field_u64(range, "last_bytes");

		/* Where extents end; the space's end lies within the last. */
		last = (last + EXTENT_BYTES - 1) / EXTENT_BYTES * EXTENT_BYTES;
		printf(" --bind %" PRIu64 "-%" PRIu64 "=%" PRIu64,
		       field_u64(range, "first_bytes"), last,
		       field_u64(range, "node"));
	}
}

/* Print what a shell would do instead of us, a command a line. */
static int print_commands(const struct request *q, char *const *line)
{
	if (!q->space) {
		printf("memspan space create %s --size %" PRIu64, q->name,
		       q->ram_bytes);
		print_bind(q->bind);
		print_cluster(q);
		putchar('\n');
	}
	printf("memspan run --space %s", q->name);
	print_option("--node", q->node);
	print_cluster(q);
	printf(" --");
	for (size_t i = 0; line[i]; i++) {
		putchar(' ');
		vm_line_quote(line[i], stdout);
	}
	putchar('\n');
	if (!q->space) {
		printf("memspan space delete %s", q->name);
		print_cluster(q);
		putchar('\n');
	}
	return cli_finish(&q->cli, CLI_OK);
}

/* Make the space if it is ours, run QEMU, and delete the space again. */
static int run_guest(struct request *q, char *const *line)
{
	struct errmsg em = { "" };
	int status = q->space ? 0 : make_space(q);

	if (status != 0)
		return status;
	status = vm_run(&q->cli, &q->run, q->name, line);
	if (!q->space && space_delete_left(q->http, q->name, &em) < 0)
		(void)cli_fail(&q->cli, "%s", em.text);
	return status;
}

static int settle(struct request *q)
{
	struct cluster cluster;
	struct errmsg em = { "" };
	int r;

	/* The name of a space that is printed and not made is as good. */
	snprintf(q->name, sizeof(q->name), "vm-%d", (int)getpid());
	if (q->print && !q->space && !q->numa)
		return 0;
	r = cluster_open(&q->cli, &cluster, &q->http);
	if (r == 0 && q->space)
		r = look_at_space(q);
	if (r != 0)
		return r;
	if ((!q->print || q->numa) &&
	    run_node(&q->cli, q->node, &q->run, &em) < 0)
		return cli_fail(&q->cli, "%s", em.text);
	return settle_nodes(q);
}

static int vm(struct request *q, int argc, char **argv)
{
	AUTO(vm_line_free) char **line = NULL;
	struct vm_plan plan;
	int r;

	r = take_arguments(q, argc, argv);
	if (r == 0)
		r = settle(q);
	if (r != 0)
		return r;
	plan = (struct vm_plan){
		.qemu = q->qemu,
		.ram_bytes = q->ram_bytes,
		.says_memory = q->args.ram_bytes > 0,
		.cpus = q->args.cpus,
	};
	/* One node is what a guest has anyway. */
	if (q->nodes.n > 1) {
		plan.nodes = &q->nodes;
		plan.machine = q->machine;
	}
	line = vm_line_new(&plan, argc, argv);
	if (!line)
		return cli_fail(&q->cli, "out of memory");
	return q->print ? print_commands(q, line) : run_guest(q, line);
}

int cmd_vm(int argc, char **argv)
{
	struct request q = { .cli = { .name = "vm",
		                      .usage = usage_text,
		                      .stop_at_word = true },
		             .qemu = getenv("MEMSPAN_QEMU"),
		             .bind = json_null() };
	int opt, r;

	if (!q.qemu || q.qemu[0] == '\0')
		q.qemu = "qemu-system-x86_64";
	while ((opt = cli_option(&q.cli, argc, argv, options)) >= 0) {
		r = take_option(&q, opt);
		if (r != 0)
			return r;
	}
	if (opt == CLI_OVER)
		return q.cli.status;
	r = vm(&q, argc - optind, argv + optind);
	json_decref(q.bind);
	http_free(q.http);
	return r;
}
