/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* An answer takes microseconds; a coordinator that is stuck takes for ever. */
#define ASK_MS_MAX 5000u

/* The absolute name of `dir`, or of the default for NULL; as asprintf(). */
static int name_run_dir(const char *dir, char **ret, struct errmsg *em)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	AUTO_FREE char *here = NULL;
	int r;

	if (dir && dir[0] == '/') {
		r = asprintf(ret, "%s", dir);
	} else if (dir) {
		/* Daemons change to "/": a relative name would not hold. */
		here = getcwd(NULL, 0);
		if (!here)
			return errmsg_set(em, -errno,
			                  "cannot name the current directory");
		r = asprintf(ret, "%s/%s", here[1] != '\0' ? here : "", dir);
	} else if (geteuid() == 0) {
		r = asprintf(ret, "/run/memspan");
	} else if (runtime && runtime[0] == '/') {
		r = asprintf(ret, "%s/memspan", runtime);
	} else {
		return errmsg_say(em, -ENOENT,
		                  "no run directory: $XDG_RUNTIME_DIR is not "
		                  "set; name one with --run-dir DIR");
	}
	if (r < 0) {
		*ret = NULL;
		return errmsg_set(em, -ENOMEM, "cannot name the run directory");
	}
	return 0;
}

/* As cluster_run_dir(), for --run-dir `dir` or NULL. */
static int find_run_dir(const char *dir, char ret[RUN_DIR_BYTES],
                        struct errmsg *em)
{
	AUTO_FREE char *path = NULL;
	size_t len;
	int r;

	r = name_run_dir(dir, &path, em);
	if (r < 0)
		return r;
	for (len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
		path[len - 1] = '\0';
	if (len >= RUN_DIR_BYTES)
		return errmsg_say(em, -ENAMETOOLONG,
		                  "the run directory's name is %zu bytes long "
		                  "and sockets must fit in it; use one of at "
		                  "most %u with --run-dir DIR",
		                  len, RUN_DIR_BYTES - 1);
	memcpy(ret, path, len + 1);
	return 0;
}

int cluster_run_dir(const struct cli *cli, char ret[RUN_DIR_BYTES],
                    struct errmsg *em)
{
	return find_run_dir(cli->run_dir, ret, em);
}

char *run_path(const char *run_dir, const char *file, char buf[RUN_PATH_BYTES])
{
	int n = snprintf(buf, RUN_PATH_BYTES, "%s/%s", run_dir, file);

	/* A run directory is at most 91 bytes, and our names are short. */
	assert(n > 0 && n < (int)RUN_PATH_BYTES);
	return buf;
}

char *run_path_node(const char *run_dir, unsigned id, const char *suffix,
                    char buf[RUN_PATH_BYTES])
{
	char file[32];

	snprintf(file, sizeof(file), "node-%u.%s", id, suffix);
	return run_path(run_dir, file, buf);
}

/* Read the first line of `run_dir`/coordinator.url.  Returns if it has one. */
static bool read_url(const char *run_dir, char ret[CLUSTER_URL_BYTES])
{
	char path[RUN_PATH_BYTES], buf[CLUSTER_URL_BYTES];
	AUTO_CLOSE int fd = -1;
	ssize_t n;

	if (run_dir[0] == '\0')
		return false;
	fd = open(run_path(run_dir, "coordinator.url", path),
	          O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	if (buf[0] == '\0')
		return false;
	memcpy(ret, buf, sizeof(buf));
	return true;
}

int cluster_find(const struct cli *cli, struct cluster *ret, struct errmsg *em)
{
	const char *env = getenv("MEMSPAN_COORDINATOR");
	char standard[RUN_DIR_BYTES] = "";
	struct cluster c = { .source = "" };
	const char *given = NULL;
	int r;

	r = cluster_run_dir(cli, c.run_dir, em);
	/* Who names a coordinator needs no run directory. */
	if (r < 0 && (r != -ENOENT || cli->run_dir))
		return r;
	(void)find_run_dir(NULL, standard, NULL);
	if (cli->coordinator) {
		given = cli->coordinator;
		c.source = "--coordinator";
	} else if (cli->run_dir && read_url(c.run_dir, c.url)) {
		c.source = "--run-dir";
	} else if (env && env[0] != '\0') {
		given = env;
		c.source = "$MEMSPAN_COORDINATOR";
	} else if (read_url(standard, c.url)) {
		c.source = "the default run directory";
	} else {
		given = CLUSTER_URL_DEFAULT;
		c.source = "the default";
	}
	if (given && strlen(given) >= sizeof(c.url))
		return errmsg_say(em, -ENAMETOOLONG,
		                  "the URL in %s is too long", c.source);
	if (given)
		strcpy(c.url, given);
	*ret = c;
	return 0;
}

int cluster_open(const struct cli *cli, struct cluster *ret, struct http **http)
{
	struct errmsg em;
	int r = cluster_find(cli, ret, &em);

	if (r == 0)
		r = http_new(ret->url, ASK_MS_MAX, http, &em);
	if (r == -EINVAL && cli->coordinator)
		return cli_misused(cli, "--coordinator: %s", em.text);
	return r < 0 ? cli_fail(cli, "%s", em.text) : 0;
}
