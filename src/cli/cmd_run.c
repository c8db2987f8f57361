/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan run - run a program with the memory of spaces.  Manual:
 * memspan-run(1).
 */

#include "cli/cli.h"
#include "cli/run.h"
#include "cli/space.h"

static const char usage_text[] =
	"usage: memspan run --space NAME [--space NAME]... [--node NODE]\n"
	"                   [--run-dir DIR] [--coordinator URL]\n"
	"                   [--] COMMAND [ARGUMENT]...\n"
	"\n"
	"Run a program that maps the memory of spaces, though it was not\n"
	"written for memspan. It finds the first space as the file\n"
	"/proc/self/fd/200, further ones as 201 and so on.\n"
	"\n"
	"      --space NAME       this space; up to 16\n"
	"      --node NODE        name or number of the node that serves it\n"
	"                         (default the only one that runs here)\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one which node is meant\n"
	"  -h, --help             show this text\n"
	"\n"
	"Exit status: that of COMMAND; 126 it cannot be run, 127 there is none;\n"
	"1 failed before it came to that, 2 used wrongly.\n";

enum { OPT_SPACE = 1, OPT_NODE };

static const struct option options[] = {
	{ "space", required_argument, NULL, OPT_SPACE },
	{ "node", required_argument, NULL, OPT_NODE },
	CLI_OPTIONS,
	{ 0 },
};

struct request {
	struct cli cli;
	const char *node; /* --node, or NULL */
	const char *space[RUN_SPACES_MAX];
	unsigned n;
};

/* Read one option.  Returns 0 or CLI_USAGE. */
static int take_option(struct request *q, int opt)
{
	if (opt == OPT_NODE) {
		q->node = optarg;
		return 0;
	}
	if (!space_name_valid(optarg))
		return cli_misused(&q->cli, "--space: " SPACE_NAME_RULE,
		                   optarg);
	if (q->n == RUN_SPACES_MAX)
		return cli_misused(&q->cli, "--space: at most %u times",
		                   RUN_SPACES_MAX);
	q->space[q->n++] = optarg;
	return 0;
}

int cmd_run(int argc, char **argv)
{
	struct request q = { .cli = { .name = "run",
		                      .usage = usage_text,
		                      .stop_at_word = true } };
	struct run run = { .n = 0 };
	struct errmsg em = { "" };
	int opt, r;

	while ((opt = cli_option(&q.cli, argc, argv, options)) >= 0) {
		r = take_option(&q, opt);
		if (r != 0)
			return r;
	}
	if (opt == CLI_OVER)
		return q.cli.status;
	if (q.n == 0)
		return cli_misused(&q.cli, "--space is missing: whose memory "
		                           "shall the program have?");
	if (optind == argc)
		return cli_misused(&q.cli, "which program? give a COMMAND");
	r = run_node(&q.cli, q.node, &run, &em);
	for (unsigned i = 0; r == 0 && i < q.n; i++)
		r = run_space(&run, q.space[i], &em);
	if (r < 0)
		return cli_fail(&q.cli, "%s", em.text);
	r = run_exec(&run, argv + optind, &em);
	(void)cli_fail(&q.cli, "%s: %s", argv[optind], em.text);
	return r;
}
