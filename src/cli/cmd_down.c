/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan down - stop the cluster of a run directory.  Manual: memspan-down(1).
 *
 * Nodes first, all at once, so that each can say good-bye to a coordinator that
 * is still there; then the coordinator.
 */

#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/daemon.h"
#include "cli/rundir.h"

static const char usage_text[] =
	"usage: memspan down [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Stop the nodes and the coordinator that run in a run directory, as\n"
	"'memspan up' started them.  The contents of their spaces are gone\n"
	"then.\n"
	"\n"
	"      --run-dir DIR      stop what runs there (default /run/memspan\n"
	"                         for root, $XDG_RUNTIME_DIR/memspan for others)\n"
	"      --coordinator URL  taken as everywhere; what is stopped is what\n"
	"                         the run directory says\n"
	"  -h, --help             show this text\n";

static const struct option options[] = { CLI_OPTIONS, { 0 } };

#define PATIENCE_MS 10000u

/* Stop v[0..n) and say who has gone.  Returns the number of those left. */
static unsigned stop(const struct cli *cli, struct daemon *v, size_t n)
{
	unsigned left = daemons_stop(cli, v, n, PATIENCE_MS);
	char name[DAEMON_NAME_BYTES];

	for (size_t i = 0; i < n; i++)
		if (v[i].pidfd < 0)
			printf("stopped %s (pid %d)\n",
			       daemon_name(&v[i], name), (int)v[i].pid);
	return left;
}

int cmd_down(int argc, char **argv)
{
	struct cli cli = { .name = "down", .usage = usage_text };
	char run_dir[RUN_DIR_BYTES];
	AUTO_CLOSE int lock = -1;
	struct daemons d;
	struct errmsg em;
	unsigned left;
	size_t nodes;
	int r, opt;

	while ((opt = cli_option(&cli, argc, argv, options)) >= 0)
		assert(opt < 0); /* it has no options of its own */
	if (opt == CLI_OVER)
		return cli.status;
	r = cli_no_more(&cli, argc, argv);
	if (r != 0)
		return r;
	if (cluster_run_dir(&cli, run_dir, &em) < 0)
		return cli_fail(&cli, "%s", em.text);
	lock = rundir_lock(run_dir, false, &em);
	/* Daemons that were started by hand have no lock; they end alike. */
	if ((lock < 0 && lock != -ENOENT) || daemons_find(run_dir, &d, &em) < 0)
		return cli_fail(&cli, "%s", em.text);
	if (d.n == 0)
		printf("nothing runs in %s\n", run_dir);
	for (nodes = 0; nodes < d.n; nodes++)
		if (d.v[nodes].id == DAEMON_COORDINATOR)
			break;
	left = stop(&cli, d.v, nodes);
	left += stop(&cli, d.v + nodes, d.n - nodes);
	daemons_clean(run_dir);
	daemons_done(&d);
	return cli_finish(&cli, left == 0 ? CLI_OK : CLI_FAILED);
}
