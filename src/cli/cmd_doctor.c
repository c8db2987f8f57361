/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan doctor - can this machine run it?  Manual: memspan-doctor(1).
 *
 * The kernel is asked by doing (fault/probe.h); the rest is what `memspan up`
 * would trip over.  Nothing is changed, nothing is left behind.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/size.h"
#include "cli/check.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/daemon.h"
#include "cli/port.h"
#include "cli/proc.h"
#include "cli/up.h"
#include "fault/probe.h"

static const char usage_text[] =
	"usage: memspan doctor [--json] [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Check whether this machine, and this user on it, can run memspan, and\n"
	"say what to do about each thing that is missing.\n"
	"\n"
	"      --json             one JSON object, for programs; its fields are\n"
	"                         stable, the other form's are not\n"
	"      --run-dir DIR      look at this run directory\n"
	"      --coordinator URL  taken as everywhere; nobody is asked\n"
	"  -h, --help             show this text\n";

static const struct option options[] = { CLI_OPTION_JSON, CLI_OPTIONS, { 0 } };

/* What `memspan up` lends unless told otherwise: 2 nodes of 1 GiB. */
#define UP_BYTES (2ull << 30)

/* --- the machine --------------------------------------------------------- */

static void check_platform(struct checks *c)
{
	long page = sysconf(_SC_PAGESIZE);
	struct utsname u;
	struct check *k;

	if (uname(&u) == 0)
		check_add(c, "kernel", "%s %s on %s", u.sysname, u.release,
		          u.machine);
	k = check_add(c, "page_size", "pages have %ld bytes", page);
	check_measure(k, (double)page, -1, "bytes");
	if (page != PAGE_BYTES)
		check_fail(k, "use a kernel with pages of 4096 bytes");
}

static void check_kernel(struct checks *c)
{
	struct probe probe;

	probe_run(&probe);
	for (unsigned i = 0; i < probe.n; i++) {
		const struct probe_check *p = &probe.v[i];
		struct check *k = check_add(c, p->name, "%s", p->detail);

		if (!p->ok)
			check_fail(k, p->remedy);
		k->optional = !p->needed;
	}
}

static void check_memory(struct checks *c)
{
	char text[SIZE_TEXT_BYTES];
	struct check *k;
	uint64_t kib;

	if (!proc_number("/proc/meminfo", "MemAvailable:", &kib))
		return;
	k = check_add(c, "memory", "%s available", size_text(kib * 1024, text));
	check_measure(k, (double)(kib * 1024), (double)UP_BYTES, "bytes");
	k->optional = true;
	if (kib * 1024 < UP_BYTES)
		check_fail(k, "'memspan up' lends 2 GiB; ask for less, for "
		              "example memspan up --memory 256M");
}

/* The kernel charges a page to whoever's fault brought it, not to us [A11]. */
#define CLIENTS_CHARGED                                                    \
	"pages that a program's faults bring count against the cgroup of " \
	"that program"

/*
 * The lowest memory.max of our cgroup and those above it (version 2; where it
 * is not mounted, nothing is found).  Returns whether there is a limit.
 */
static bool cgroup_limit(uint64_t *ret)
{
	char own[PATH_MAX] = "", path[PATH_MAX + 64];
	FILE *f = fopen("/proc/self/cgroup", "re");
	uint64_t least = UINT64_MAX, n;
	char *slash;

	if (!f)
		return false;
	while (fgets(own, sizeof(own), f) && strncmp(own, "0::", 3) != 0)
		own[0] = '\0';
	fclose(f);
	own[strcspn(own, "\n")] = '\0';
	if (own[0] == '\0')
		return false;
	do {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max",
		         own + 3);
		if (proc_number(path, "", &n)) /* "max" is no number */
			least = min_u64(least, n);
		slash = strrchr(own + 3, '/');
		if (slash)
			*slash = '\0';
	} while (slash);
	*ret = least;
	return least != UINT64_MAX;
}

static void check_cgroup(struct checks *c)
{
	char text[SIZE_TEXT_BYTES];
	struct check *k;
	uint64_t limit;

	if (!cgroup_limit(&limit)) {
		check_add(c, "cgroup", "no memory limit is set; %s",
		          CLIENTS_CHARGED);
		return;
	}
	k = check_add(c, "cgroup",
	              "limited to %s; what nodes lend counts against it; "
	              "%s",
	              size_text(limit, text), CLIENTS_CHARGED);
	check_measure(k, (double)limit, (double)UP_BYTES, "bytes");
	k->optional = true;
	if (limit < UP_BYTES)
		check_fail(k, "raise memory.max (a program's must hold what "
		              "it touches of spaces), or give nodes less: "
		              "memspan up --memory 256M");
}

/* --- the place ----------------------------------------------------------- */

static void check_programs(struct checks *c)
{
	static const char *const names[] = { "memspan-node",
		                             "memspan-coordinator" };
	char path[PATH_MAX];
	struct errmsg em;
	struct check *k;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (daemon_program(names[i], path, &em) == 0) {
			check_add(c, names[i], "%s", path);
			continue;
		}
		k = check_add(c, names[i], "not found beside this program");
		check_fail(k, "build it ('make build') or install it");
	}
}

static void check_run_dir(struct checks *c, const struct cli *cli,
                          char run_dir[RUN_DIR_BYTES])
{
	struct errmsg em;
	struct check *k;
	struct stat st;
	char *slash;

	run_dir[0] = '\0';
	if (cluster_run_dir(cli, run_dir, &em) < 0) {
		k = check_add(c, "run_dir", "%s", em.text);
		check_fail(k, "export XDG_RUNTIME_DIR=/run/user/$(id -u), or "
		              "use --run-dir DIR");
		return;
	}
	if (stat(run_dir, &st) == 0) {
		k = check_add(c, "run_dir", "%s", run_dir);
		if (!S_ISDIR(st.st_mode))
			check_fail(k, "it is no directory; remove it, or use "
			              "--run-dir DIR");
		else if (access(run_dir, W_OK | X_OK) < 0)
			check_fail(k, "it belongs to somebody else; use "
			              "--run-dir DIR");
		return;
	}
	/* It will be made: may it be? */
	k = check_add(c, "run_dir", "%s can be made", run_dir);
	slash = strrchr(run_dir, '/');
	*slash = '\0';
	if (access(run_dir[0] != '\0' ? run_dir : "/", W_OK | X_OK) < 0) {
		*slash = '/';
		snprintf(k->detail, sizeof(k->detail), "%s cannot be made: %s",
		         run_dir, strerror(errno));
		check_fail(k, "make it, or use --run-dir DIR");
	}
	*slash = '/';
}

static void check_ports(struct checks *c, const char *run_dir)
{
	struct daemons d = { 0 };
	unsigned pair = 0, pages = 0;
	char owner[PORT_OWNER_BYTES];
	struct check *k;

	/* Who runs there has its ports, and needs no others. */
	if (run_dir[0] != '\0' && daemons_find(run_dir, &d, NULL) == 0 &&
	    d.n > 0) {
		check_add(c, "ports", "a cluster runs in %s already", run_dir);
		daemons_done(&d);
		return;
	}
	daemons_done(&d);
	for (unsigned p = UP_PORT_FIRST; p < UP_PORT_LAST && !pair; p += 2)
		if (port_free((uint16_t)p) && port_free((uint16_t)(p + 1)))
			pair = p;
	for (unsigned p = UP_PAGE_PORT_FIRST; p <= UP_PAGE_PORT_LAST; p++)
		pages += port_free((uint16_t)p);
	k = check_add(c, "ports",
	              "%u and %u for the coordinator, %u of %u-%u for nodes",
	              pair, pair + 1, pages, UP_PAGE_PORT_FIRST,
	              UP_PAGE_PORT_LAST);
	if (pair && pages >= 2)
		return;
	snprintf(k->detail, sizeof(k->detail),
	         "%s; %u of %u-%u are free; %u has %s",
	         pair ? "a pair is free for the coordinator" :
	                "no pair is free for the coordinator",
	         pages, UP_PAGE_PORT_FIRST, UP_PAGE_PORT_LAST,
	         pair ? UP_PAGE_PORT_FIRST : UP_PORT_FIRST,
	         port_owner((uint16_t)(pair ? UP_PAGE_PORT_FIRST :
	                                      UP_PORT_FIRST),
	                    owner));
	check_fail(k, "stop who has them, or name another with "
	              "memspan up --coordinator http://127.0.0.1:PORT");
}

int cmd_doctor(int argc, char **argv)
{
	struct cli cli = { .name = "doctor", .usage = usage_text };
	char run_dir[RUN_DIR_BYTES];
	struct checks c = { 0 };
	int r, opt;

	while ((opt = cli_option(&cli, argc, argv, options)) >= 0)
		assert(opt < 0); /* it has no options of its own */
	if (opt == CLI_OVER)
		return cli.status;
	r = cli_no_more(&cli, argc, argv);
	if (r != 0)
		return r;
	check_platform(&c);
	check_kernel(&c);
	check_memory(&c);
	check_cgroup(&c);
	check_programs(&c);
	check_run_dir(&c, &cli, run_dir);
	check_ports(&c, run_dir);
	r = checks_print(&c, &cli);
	checks_done(&c);
	return r;
}
