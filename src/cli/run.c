/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "cli/daemon.h"
#include "cli/health.h"
#include "cli/program.h"
#include "client/client.h"

#define SHIM "libmemspan-preload.so"

/* --- which node ---------------------------------------------------------- */

static int set_socket(struct run *run, const char *path, struct errmsg *em)
{
	if (strlen(path) >= sizeof(run->socket))
		return errmsg_say(
			em, -ENAMETOOLONG,
			"the path of the node's socket is too long: %s", path);
	strcpy(run->socket, path);
	return 0;
}

/* The only node that runs in `run_dir`. */
static int only_node(const char *run_dir, struct run *run, struct errmsg *em)
{
	struct daemons d = { 0 };
	char list[128] = "";
	unsigned n = 0, id = 0;
	int r = daemons_find(run_dir, &d, em);

	for (size_t i = 0; r == 0 && i < d.n; i++) {
		size_t at = strlen(list);

		if (d.v[i].id == DAEMON_COORDINATOR)
			continue;
		id = (unsigned)d.v[i].id;
		snprintf(list + at, sizeof(list) - at, "%s%u",
		         n > 0 ? ", " : "", id);
		n++;
	}
	daemons_done(&d);
	if (r < 0)
		return r;
	if (n == 0)
		return errmsg_say(
			em, -ECONNREFUSED,
			"no node runs in %s; start a cluster with "
			"'memspan up', or name a node's run directory "
			"with --run-dir, or its socket in $MEMSPAN_NODE",
			run_dir);
	if (n > 1)
		return errmsg_say(em, -EINVAL,
		                  "%u nodes run in %s; choose one with --node: "
		                  "%s",
		                  n, run_dir, list);
	(void)run_path_node(run_dir, id, "sock", run->socket);
	return 0;
}

/* The node that people call `node`. */
static int named_node(const struct cli *cli, const char *node, struct run *run,
                      struct errmsg *em)
{
	AUTO(json_decref) json_t *cluster = NULL;
	AUTO(http_free) struct http *http = NULL;
	const json_t *one, *found = NULL;
	struct cluster c;
	char id[24];
	size_t i;
	int r;

	r = cluster_find(cli, &c, em);
	if (r == 0)
		r = http_new(c.url, 5000, &http, em);
	if (r == 0)
		r = http_get(http, "/v1/cluster", &cluster, em);
	if (r != 0)
		return r < 0 ? r : -EPROTO;
	json_array_foreach(json_object_get(cluster, "nodes"), i, one)
	{
		snprintf(id, sizeof(id), "%llu",
		         (unsigned long long)field_u64(one, "id"));
		if (strcmp(id, node) == 0 ||
		    strcmp(field_text(one, "name"), node) == 0)
			found = one;
	}
	if (!found)
		return errmsg_say(em, -ENOENT,
		                  "there is no node '%s'; memspan status lists "
		                  "them",
		                  node);
	if (!node_in_state(found, "alive"))
		return errmsg_say(em, -ECONNREFUSED, "node %s is %s", node,
		                  field_text(found, "state"));
	(void)run_path_node(c.run_dir, (unsigned)field_u64(found, "id"), "sock",
	                    run->socket);
	if (access(run->socket, F_OK) == 0)
		return 0;
	return errmsg_say(
		em, -EHOSTUNREACH,
		"the programs of node %s run on its own host, %s: run "
		"this there; if that is here, name its run directory "
		"with --run-dir",
		node, field_text(found, "endpoint"));
}

int run_node(const struct cli *cli, const char *node, struct run *run,
             struct errmsg *em)
{
	const char *env = getenv("MEMSPAN_NODE");
	char run_dir[RUN_DIR_BYTES];
	int r;

	if (node)
		return named_node(cli, node, run, em);
	if (!cli->run_dir && env && env[0] != '\0')
		return set_socket(run, env, em);
	r = cluster_run_dir(cli, run_dir, em);
	return r < 0 ? r : only_node(run_dir, run, em);
}

/* --- spaces -------------------------------------------------------------- */

/* Give *fd the number `to`, open in the program. */
static int place(int *fd, int to, struct errmsg *em)
{
	if (dup2(*fd, to) < 0)
		return errmsg_say(em, -EMFILE,
		                  "descriptor %d cannot be had (%s); raise "
		                  "ulimit -n to 256 or more",
		                  to, strerrordesc_np(errno));
	close(TAKE_FD(*fd));
	return 0;
}

int run_space(struct run *run, const char *name, struct errmsg *em)
{
	struct client_opened got = { .memory = -1, .sock = -1 };
	int at = RUN_FD + (int)run->n, r;

	if (run->n == RUN_SPACES_MAX)
		return errmsg_say(em, -EINVAL, "at most %u spaces",
		                  RUN_SPACES_MAX);
	for (unsigned i = 0; i < run->n; i++)
		if (strcmp(run->space[i].name, name) == 0)
			return errmsg_say(em, -EINVAL,
			                  "space %s is named twice", name);
	r = client_open(run->socket, name, &got, em);
	if (r < 0)
		return r;
	r = place(&got.memory, at, em);
	if (r == 0)
		r = place(&got.sock, at + (int)RUN_SPACES_MAX, em);
	if (r < 0) {
		auto_close(&got.memory);
		auto_close(&got.sock);
		return r;
	}
	run->space[run->n++] =
		(struct run_space){ .name = name, .bytes = got.bytes };
	return 0;
}

/* --- the program --------------------------------------------------------- */

/* Where the shim lies: beside this program, or where both are installed. */
static int find_shim(char path[PATH_MAX], struct errmsg *em)
{
	static const char *const places[] = { "", MEMSPAN_LIBDIR "/" };
	char own[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);

	if (n < 0)
		return errmsg_set(em, -errno, "cannot find out where I am");
	own[n] = '\0';
	own[strrchr(own, '/') + 1 - own] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const char *dir = places[i][0] == '/' ? "" : own;
		AUTO_FREE char *real = NULL;
		char one[PATH_MAX];

		if (snprintf(one, sizeof(one), "%s%s%s", dir, places[i],
		             SHIM) >= PATH_MAX)
			continue;
		real = realpath(one, NULL);
		if (!real)
			continue;
		/* What separates entries of LD_PRELOAD cannot be in one. */
		if (strpbrk(real, ": "))
			return errmsg_say(
				em, -EINVAL,
				"%s cannot be preloaded, as its path "
				"has a blank or a colon in it; install "
				"memspan elsewhere",
				real);
		strcpy(path, real);
		return 0;
	}
	return errmsg_say(em, -ENOENT,
	                  SHIM " is neither in %s nor where it is installed; "
	                       "build or install it",
	                  own);
}

/* In front of what is preloaded already: the first one's mmap() counts. */
static int set_preload(const char *shim)
{
	const char *old = getenv("LD_PRELOAD");
	AUTO_FREE char *value = NULL;

	if (asprintf(&value, "%s%s%s", shim, old && old[0] ? ":" : "",
	             old ? old : "") < 0) {
		value = NULL;
		return -ENOMEM;
	}
	return setenv("LD_PRELOAD", value, 1) < 0 ? -errno : 0;
}

static int set_environment(const struct run *run, const char *shim)
{
	char spaces[RUN_SPACES_MAX * (LOCAL_NAME_BYTES + 8)] = "";
	int r = set_preload(shim);

	for (unsigned i = 0; i < run->n; i++) {
		size_t at = strlen(spaces);

		snprintf(spaces + at, sizeof(spaces) - at, "%s%s=%d",
		         i > 0 ? "," : "", run->space[i].name, RUN_FD + (int)i);
	}
	if (r == 0 && (setenv("MEMSPAN_SPACES", spaces, 1) < 0 ||
	               setenv("MEMSPAN_NODE", run->socket, 1) < 0))
		r = -errno;
	return r;
}

int run_exec(const struct run *run, char *const argv[], struct errmsg *em)
{
	char path[PATH_MAX], shim[PATH_MAX];
	int r = program_find(argv[0], path, em);

	if (r < 0)
		return r == -ENOENT ? RUN_NOT_FOUND : RUN_CANNOT;
	r = program_check(path, em);
	if (r == 0)
		r = find_shim(shim, em);
	if (r == 0) {
		r = set_environment(run, shim);
		if (r < 0)
			(void)errmsg_set(em, r, "cannot set its environment");
	}
	if (r < 0)
		return RUN_CANNOT;
	fflush(stdout);
	(void)signal(SIGPIPE, SIG_DFL); /* main() ignores it */
	execv(path, argv);
	(void)errmsg_set(em, -errno, "cannot run %s", path);
	return RUN_CANNOT;
}
