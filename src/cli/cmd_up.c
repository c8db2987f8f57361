/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan up - start a cluster on this machine.  Manual: memspan-up(1).
 *
 * This file reads the command line and prints what came of it; up.c starts the
 * daemons and waits for them.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/size.h"
#include "cli/up.h"

static const char usage_text[] =
	"usage: memspan up [--nodes N] [--memory SIZE] [--shards N] [--lease MS]\n"
	"                  [--json] [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Start a coordinator and N nodes on this machine, and return when they\n"
	"have connected to one another.\n"
	"\n"
	"      --nodes N          how many, 1 to 16 (default 2)\n"
	"      --memory SIZE      what each of them lends (default 1G)\n"
	"      --shards N         threads that serve pages, of each node\n"
	"                         (default 1)\n"
	"      --lease MS         how long a node may act without hearing from the\n"
	"                         coordinator (default 2000)\n"
	"      --json             one JSON object, for programs; its fields are\n"
	"                         stable, the other form's are not\n"
	"      --run-dir DIR      where sockets, pid files and logs go (default\n"
	"                         /run/memspan for root, $XDG_RUNTIME_DIR/memspan\n"
	"                         for others)\n"
	"      --coordinator URL  let it listen there: http://127.0.0.1:PORT\n"
	"                         (default: 7070, or what is free next)\n"
	"  -h, --help             show this text\n";

static const struct option options[] = {
	{ "nodes", required_argument, NULL, 'n' },
	{ "memory", required_argument, NULL, 'm' },
	{ "shards", required_argument, NULL, 's' },
	{ "lease", required_argument, NULL, 'l' },
	CLI_OPTION_JSON,
	CLI_OPTIONS,
	{ 0 },
};

#define MEMORY_MIN   (64ull << 20) /* a node's least */
#define MEMORY_MAX   (1ull << 44)
#define LEASE_MS_MIN 100u
#define LEASE_MS_MAX 3600000u

static int take_option(struct up *u, int opt)
{
	switch (opt) {
	case 'n':
		return cli_number(&u->cli, "--nodes", optarg, 1, UP_NODES_MAX,
		                  &u->n_nodes);
	case 'm':
		return cli_size(&u->cli, "--memory", optarg, MEMORY_MIN,
		                MEMORY_MAX, &u->memory_bytes);
	case 's':
		return cli_number(&u->cli, "--shards", optarg, 1, SHARDS_MAX,
		                  &u->shards);
	default: /* 'l' */
		return cli_number(&u->cli, "--lease", optarg, LEASE_MS_MIN,
		                  LEASE_MS_MAX, &u->lease_ms);
	}
}

/* The port that --coordinator asks for by name; it must be of this machine. */
static int take_port(struct up *u)
{
	static const char *const hosts[] = { "127.0.0.1", "localhost" };
	const char *url = u->cli.coordinator;
	uint64_t port;

	if (!url)
		return 0;
	if (strncmp(url, "http://", strlen("http://")) == 0)
		url += strlen("http://");
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		size_t len = strlen(hosts[i]);

		if (strncmp(url, hosts[i], len) != 0 || url[len] != ':')
			continue;
		if (cli_number(&u->cli, "--coordinator, port", url + len + 1, 1,
		               65534, &port) != 0)
			return CLI_USAGE;
		u->port = (uint16_t)port;
		u->port_named = true;
		return 0;
	}
	return cli_misused(&u->cli,
	                   "--coordinator: 'up' starts one on this machine; "
	                   "write http://127.0.0.1:PORT");
}

/* --- what came of it ------------------------------------------------------ */

static void print_text(const struct up *u)
{
	char size[SIZE_TEXT_BYTES], path[RUN_PATH_BYTES], name[24];

	printf("cluster  %s   %s   epoch %" PRIu64 "\n", u->run_dir, u->url,
	       u->epoch);
	for (size_t i = 0; i < u->n_nodes; i++) {
		const struct up_node *n = &u->node[i];

		snprintf(name, sizeof(name), "node %d", n->daemon.id);
		printf("%-7s  %s   %s   %s   pid %d\n", name, n->endpoint,
		       size_text(u->memory_bytes, size),
		       run_path_node(u->run_dir, (unsigned)n->daemon.id, "sock",
		                     path),
		       (int)n->daemon.pid);
	}
	printf("next: memspan bench; memspan status; memspan down\n");
}

static json_t *up_json(const struct up *u)
{
	json_t *nodes = json_array();
	char path[RUN_PATH_BYTES];

	for (size_t i = 0; i < u->n_nodes; i++) {
		const struct up_node *n = &u->node[i];

		run_path_node(u->run_dir, (unsigned)n->daemon.id, "sock", path);
		if (json_array_append_new(
			    nodes,
			    json_pack("{s:i, s:s, s:s, s:I, s:s, s:i}", "id",
		                      n->daemon.id, "name", n->name, "endpoint",
		                      n->endpoint, "memory_bytes",
		                      (json_int_t)u->memory_bytes, "socket",
		                      path, "pid", (int)n->daemon.pid)) < 0) {
			json_decref(nodes);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s, s:{s:s, s:i}, s:I, s:o}", "schema",
	                 "memspan.up/1", "run_dir", u->run_dir, "coordinator",
	                 "url", u->url, "pid", (int)u->coordinator.pid, "epoch",
	                 (json_int_t)u->epoch, "nodes", nodes);
}

int cmd_up(int argc, char **argv)
{
	struct up u = {
		.cli = { .name = "up", .usage = usage_text },
		.n_nodes = 2,
		.memory_bytes = 1ull << 30,
		.shards = 1,
		.coordinator.pidfd = -1,
	};
	int status, opt;

	while ((opt = cli_option(&u.cli, argc, argv, options)) >= 0) {
		status = take_option(&u, opt);
		if (status != 0)
			return status;
	}
	if (opt == CLI_OVER)
		return u.cli.status;
	status = cli_no_more(&u.cli, argc, argv);
	if (status == 0)
		status = take_port(&u);
	if (status != 0)
		return status;
	status = up_start(&u);
	if (status == CLI_OK && u.cli.json) {
		status = cli_print_json(&u.cli, up_json(&u));
	} else if (status == CLI_OK) {
		print_text(&u);
		status = cli_finish(&u.cli, CLI_OK);
	}
	up_done(&u);
	return status;
}
