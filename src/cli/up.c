/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps, each of which may fail, and then what was started is stopped:
 *
 *	1  the run directory is made, locked, found unused, and cleaned
 *	2  the coordinator, on the first pair of free ports; it answers
 *	3  one node after the other, on the first free ports; each registers,
 *	   so that node0 has the id 0 if nothing else ever joined
 *	4  leases, sockets, connections of all
 *
 * A port that was free may be taken before the daemon has it.  Then the daemon
 * ends, the port is found taken, and the next one is tried.
 */

#include "cli/up.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/pidfile.h"
#include "cli/health.h"
#include "cli/port.h"
#include "cli/rundir.h"

#define ASK_MS        2000u
#define PATIENCE_MS   10000u /* without any progress */
#define PEEK_MS       20     /* between two looks, unless somebody ends */
#define STOP_MS       3000u  /* for what did not come up */
#define LOG_TAIL      12u
#define LEASE_DEFAULT 2000u

/* Set by a signal: give up, and leave nothing behind. */
static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

/* --- who failed ---------------------------------------------------------- */

/* Say that it did not come up, and why, by the end of its log. */
static int blame(const struct up *u, const struct daemon *d, const char *what)
{
	cli_fail(&u->cli, "%s; the end of %s:", what, d->log);
	daemon_log_tail(d, LOG_TAIL, stderr);
	return CLI_FAILED;
}

/* Has anybody ended, or does somebody want us to?  Returns 0 if not. */
static int look_around(struct up *u)
{
	char what[160], how[DAEMON_HOW_BYTES];

	if (interrupted)
		return cli_fail(&u->cli, "interrupted; nothing was started");
	if (u->coordinator.pidfd >= 0 && daemon_ended(&u->coordinator, how)) {
		snprintf(what, sizeof(what), "the coordinator ended, %s", how);
		return blame(u, &u->coordinator, what);
	}
	for (size_t i = 0; i < u->n_started; i++) {
		struct up_node *n = &u->node[i];

		if (!daemon_ended(&n->daemon, how))
			continue;
		snprintf(what, sizeof(what), "%s ended, %s", n->name, how);
		return blame(u, &n->daemon, what);
	}
	return 0;
}

/* Sleep until somebody ends, a signal comes or it is time to look again. */
static void rest(const struct up *u)
{
	struct daemon all[UP_NODES_MAX + 1];
	size_t n = 0;

	all[n++] = u->coordinator;
	for (size_t i = 0; i < u->n_started; i++)
		all[n++] = u->node[i].daemon;
	daemons_watch(all, n, PEEK_MS);
}

/* --- 1 the run directory ------------------------------------------------- */

static int prepare(struct up *u)
{
	char name[DAEMON_NAME_BYTES];
	struct daemons d;
	struct errmsg em;

	if (cluster_run_dir(&u->cli, u->run_dir, &em) < 0 ||
	    rundir_make(u->run_dir, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	u->lock = rundir_lock(u->run_dir, true, &em);
	if (u->lock < 0 || daemons_find(u->run_dir, &d, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	if (d.n > 0) {
		cli_fail(&u->cli,
		         "a cluster runs in %s already: %s has pid %d; stop it "
		         "with 'memspan down', or use another --run-dir DIR",
		         u->run_dir, daemon_name(&d.v[d.n - 1], name),
		         (int)d.v[d.n - 1].pid);
		daemons_done(&d);
		return CLI_FAILED;
	}
	daemons_clean(u->run_dir);
	if (rundir_set_aside_store(u->run_dir, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	return 0;
}

/* --- 2 the coordinator --------------------------------------------------- */

static int launch_coordinator(struct up *u, uint16_t port, uint16_t node_port)
{
	char program[PATH_MAX], log[RUN_PATH_BYTES];
	char listen[32], node_listen[32], lease[24];
	const char *argv[] = {
		program,     "--listen",
		listen,      "--node-listen",
		node_listen, "--run-dir",
		u->run_dir,  u->lease_ms ? "--lease" : NULL,
		lease,       NULL,
	};
	struct errmsg em;

	if (daemon_program("memspan-coordinator", program, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	snprintf(listen, sizeof(listen), "127.0.0.1:%u", port);
	snprintf(node_listen, sizeof(node_listen), "127.0.0.1:%u", node_port);
	snprintf(lease, sizeof(lease), "%" PRIu64, u->lease_ms);
	if (daemon_start(DAEMON_COORDINATOR, argv,
	                 run_path(u->run_dir, "coordinator.log", log),
	                 &u->coordinator, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	return 0;
}

/* Is it our coordinator that serves here?  Another's pid file says no. */
static bool serves(const struct up *u)
{
	char path[RUN_PATH_BYTES];
	pid_t pid;

	return pidfile_open(run_path(u->run_dir, "coordinator.pid", path), &pid,
	                    NULL) == 0 &&
	       pid == u->coordinator.pid;
}

enum wait_outcome { WAIT_DONE = 0, WAIT_FAILED, WAIT_PORT_TAKEN };

/* Wait until the coordinator answers on `port`. */
static enum wait_outcome wait_for_answer(struct up *u, uint16_t port,
                                         uint16_t node_port)
{
	nsec_t end = cli_now() + PATIENCE_MS * NSEC_PER_MSEC;
	char how[DAEMON_HOW_BYTES], what[128];
	struct http_answer answer;
	struct errmsg em;

	while (cli_now() < end && !interrupted) {
		if (daemon_ended(&u->coordinator, how)) {
			if (!port_free(port) || !port_free(node_port))
				return WAIT_PORT_TAKEN;
			snprintf(what, sizeof(what),
			         "the coordinator did not start: %s", how);
			blame(u, &u->coordinator, what);
			return WAIT_FAILED;
		}
		/* Any answer will do: without nodes it may not be healthy. */
		if (serves(u) && http_ask(u->http, "GET", "/health", NULL,
		                          &answer, &em) >= 0) {
			json_decref(answer.body);
			return WAIT_DONE;
		}
		rest(u);
	}
	if (interrupted)
		cli_fail(&u->cli, "interrupted; nothing was started");
	else
		blame(u, &u->coordinator, "the coordinator does not answer");
	return WAIT_FAILED;
}

/* Try one pair of ports. */
static enum wait_outcome try_ports(struct up *u, uint16_t port,
                                   uint16_t node_port)
{
	struct errmsg em;

	snprintf(u->url, sizeof(u->url), "http://127.0.0.1:%u", port);
	u->http = http_free(u->http);
	if (http_new(u->url, ASK_MS, &u->http, &em) < 0) {
		cli_fail(&u->cli, "%s", em.text);
		return WAIT_FAILED;
	}
	if (launch_coordinator(u, port, node_port) != 0)
		return WAIT_FAILED;
	return wait_for_answer(u, port, node_port);
}

static int port_taken(const struct up *u, uint16_t port)
{
	char owner[PORT_OWNER_BYTES];

	return cli_fail(&u->cli,
	                "port %u is taken by %s; stop that, or name another "
	                "port with --coordinator",
	                port, port_owner(port, owner));
}

/* The port beside it for nodes, or the first that is free. */
static uint16_t beside(uint16_t port)
{
	for (unsigned p = port + 1u; p <= min_u64(port + 100u, 65535); p++)
		if (port_free((uint16_t)p))
			return (uint16_t)p;
	return 0;
}

static int start_coordinator(struct up *u)
{
	if (u->port_named) {
		uint16_t node_port = beside(u->port);

		if (!port_free(u->port))
			return port_taken(u, u->port);
		switch (try_ports(u, u->port, node_port)) {
		case WAIT_DONE:
			return 0;
		case WAIT_PORT_TAKEN:
			return port_taken(u, port_free(u->port) ? node_port :
			                                          u->port);
		case WAIT_FAILED:
			return CLI_FAILED;
		}
	}
	for (unsigned p = UP_PORT_FIRST; p < UP_PORT_LAST; p += 2) {
		uint16_t port = (uint16_t)p, node_port = (uint16_t)(p + 1);

		if (!port_free(port) || !port_free(node_port))
			continue;
		switch (try_ports(u, port, node_port)) {
		case WAIT_DONE:
			return 0;
		case WAIT_PORT_TAKEN:
			continue;
		case WAIT_FAILED:
			return CLI_FAILED;
		}
	}
	return cli_fail(&u->cli,
	                "no pair of ports is free from %u to %u; name one with "
	                "--coordinator http://127.0.0.1:PORT",
	                UP_PORT_FIRST, UP_PORT_LAST);
}

/* --- 3 the nodes --------------------------------------------------------- */

static int launch_node(struct up *u, struct up_node *node)
{
	char program[PATH_MAX], log[RUN_PATH_BYTES], file[40];
	char memory[24], shards[24];
	const char *const argv[] = {
		program,
		"--name",
		node->name,
		/* HOST:PORT alone. */
		"--coordinator",
		u->url + strlen("http://"),
		"--run-dir",
		u->run_dir,
		"--listen",
		node->endpoint,
		"--memory",
		memory,
		"--shards",
		shards,
		NULL,
	};
	struct errmsg em;

	if (daemon_program("memspan-node", program, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	snprintf(memory, sizeof(memory), "%" PRIu64, u->memory_bytes);
	snprintf(shards, sizeof(shards), "%" PRIu64, u->shards);
	/* Its id, by which the log is called, comes with its registration. */
	snprintf(file, sizeof(file), "starting-%s.log", node->name);
	if (daemon_start(0, argv, run_path(u->run_dir, file, log),
	                 &node->daemon, &em) < 0)
		return cli_fail(&u->cli, "%s", em.text);
	return 0;
}

/* The node of that name in an answer to GET /v1/cluster, or NULL. */
static const json_t *find_node(const json_t *cluster, const char *name)
{
	const json_t *node;
	size_t i;

	json_array_foreach(json_object_get(cluster, "nodes"), i,
	                   node) if (strcmp(field_text(node, "name"), name) ==
	                             0) return node;
	return NULL;
}

/* It has registered: its log is called by its id from now on. */
static int name_log(struct up *u, struct up_node *node, uint64_t id)
{
	char path[RUN_PATH_BYTES];

	node->daemon.id = (int)id;
	run_path_node(u->run_dir, (unsigned)id, "log", path);
	if (rename(node->daemon.log, path) < 0)
		return cli_fail(&u->cli, "cannot rename %s: %s",
		                node->daemon.log, strerror(errno));
	strcpy(node->daemon.log, path);
	return 0;
}

static enum wait_outcome
wait_for_registration(struct up *u, struct up_node *node, uint16_t port)
{
	nsec_t end = cli_now() + PATIENCE_MS * NSEC_PER_MSEC;
	char how[DAEMON_HOW_BYTES], what[128];
	struct errmsg em;

	while (cli_now() < end) {
		AUTO(json_decref) json_t *cluster = NULL;
		const json_t *found = NULL;

		if (daemon_ended(&node->daemon, how)) {
			if (!port_free(port))
				return WAIT_PORT_TAKEN;
			snprintf(what, sizeof(what), "%s did not start: %s",
			         node->name, how);
			blame(u, &node->daemon, what);
			return WAIT_FAILED;
		}
		if (look_around(u) != 0)
			return WAIT_FAILED;
		if (http_get(u->http, "/v1/cluster", &cluster, &em) == HTTP_OK)
			found = find_node(cluster, node->name);
		if (found)
			return name_log(u, node, field_u64(found, "id")) == 0 ?
			               WAIT_DONE :
			               WAIT_FAILED;
		rest(u);
	}
	snprintf(what, sizeof(what), "%s does not register", node->name);
	blame(u, &node->daemon, what);
	return WAIT_FAILED;
}

static int start_node(struct up *u, size_t i)
{
	struct up_node *node = &u->node[i];

	snprintf(node->name, sizeof(node->name), "node%zu", i);
	for (; u->page_port <= UP_PAGE_PORT_LAST; u->page_port++) {
		uint16_t port = u->page_port;

		if (!port_free(port))
			continue;
		snprintf(node->endpoint, sizeof(node->endpoint), "127.0.0.1:%u",
		         port);
		if (launch_node(u, node) != 0)
			return CLI_FAILED;
		switch (wait_for_registration(u, node, port)) {
		case WAIT_DONE:
			u->n_started++;
			u->page_port++;
			return 0;
		case WAIT_PORT_TAKEN:
			continue;
		case WAIT_FAILED:
			/* It may still run: it is stopped with the others. */
			u->n_started++;
			return CLI_FAILED;
		}
	}
	return cli_fail(&u->cli,
	                "no port is free from %u to %u for the pages of %s; "
	                "stop what has them",
	                UP_PAGE_PORT_FIRST, UP_PAGE_PORT_LAST, node->name);
}

/* --- 4 all together ------------------------------------------------------ */

/* What one node still lacks, NULL if nothing; *done grows by what it has. */
static const char *lacks(const struct up *u, const struct up_node *node,
                         const json_t *cluster, unsigned *done)
{
	const json_t *seen = find_node(cluster, node->name);
	uint64_t lease = field_u64(cluster, "lease_ms");
	char path[RUN_PATH_BYTES];
	const char *what = NULL;
	pid_t pid;

	if (!seen || !node_fresh(seen, lease))
		return "has no lease";
	++*done;
	run_path_node(u->run_dir, (unsigned)node->daemon.id, "pid", path);
	if (pidfile_open(path, &pid, NULL) != 0 || pid != node->daemon.pid)
		return "has written no pid file";
	run_path_node(u->run_dir, (unsigned)node->daemon.id, "sock", path);
	if (access(path, F_OK) < 0)
		return "does not listen for clients";
	++*done;
	for (size_t i = 0; i < u->n_nodes; i++) {
		if (&u->node[i] == node)
			continue;
		if (node_connected(seen, (uint64_t)u->node[i].daemon.id))
			++*done;
		else
			what = "is not connected to all others";
	}
	return what;
}

/* Look once.  Returns who still lacks something, or NULL if all is there. */
static const struct daemon *behind(struct up *u, const char **what,
                                   const char **who, unsigned *done)
{
	AUTO(json_decref) json_t *cluster = NULL, *health = NULL;
	const struct daemon *slow = NULL;
	struct errmsg em;

	*done = 0;
	*what = "is not healthy";
	*who = "the coordinator";
	if (http_get(u->http, "/v1/cluster", &cluster, &em) != HTTP_OK)
		return &u->coordinator;
	for (size_t i = 0; i < u->n_nodes; i++) {
		const char *lack = lacks(u, &u->node[i], cluster, done);

		if (lack && !slow) {
			slow = &u->node[i].daemon;
			*what = lack;
			*who = u->node[i].name;
		}
	}
	if (slow)
		return slow;
	u->epoch = field_u64(cluster, "epoch");
	if (http_get(u->http, "/health", &health, &em) != HTTP_OK)
		return &u->coordinator;
	return NULL;
}

static int wait_for_all(struct up *u)
{
	uint64_t lease = u->lease_ms ? u->lease_ms : LEASE_DEFAULT;
	/* News of connections travels with renewals, at thirds of a lease. */
	nsec_t patience = (PATIENCE_MS + lease / 2) * NSEC_PER_MSEC;
	nsec_t end = cli_now() + patience;
	unsigned done, most = 0;
	const char *what, *who;
	char text[128];

	for (;;) {
		const struct daemon *slow = behind(u, &what, &who, &done);

		if (!slow)
			return 0;
		if (look_around(u) != 0)
			return CLI_FAILED;
		if (done > most) {
			most = done;
			end = cli_now() + patience;
		}
		if (cli_now() >= end) {
			snprintf(text, sizeof(text), "%s %s", who, what);
			return blame(u, slow, text);
		}
		rest(u);
	}
}

/* --- whole or not at all ------------------------------------------------- */

static int start_all(struct up *u)
{
	int status = start_coordinator(u);

	u->page_port = UP_PAGE_PORT_FIRST;
	for (size_t i = 0; i < u->n_nodes && status == 0; i++)
		status = start_node(u, i);
	return status == 0 ? wait_for_all(u) : status;
}

static void stop_all(struct up *u)
{
	struct daemon nodes[UP_NODES_MAX];

	for (size_t i = 0; i < u->n_started; i++)
		nodes[i] = u->node[i].daemon;
	(void)daemons_stop(&u->cli, nodes, u->n_started, STOP_MS);
	for (size_t i = 0; i < u->n_started; i++)
		u->node[i].daemon.pidfd = nodes[i].pidfd;
	(void)daemons_stop(&u->cli, &u->coordinator, 1, STOP_MS);
	daemons_clean(u->run_dir);
}

int up_start(struct up *u)
{
	struct sigaction act = { .sa_handler = on_signal };
	int status;

	u->lock = -1;
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
	status = prepare(u);
	if (status != 0)
		return status;
	status = start_all(u);
	if (status != 0)
		stop_all(u);
	return status;
}

void up_done(struct up *u)
{
	if (u->lock >= 0)
		close(u->lock);
	u->lock = -1;
	u->http = http_free(u->http);
	if (u->coordinator.pidfd >= 0)
		close(u->coordinator.pidfd);
	for (size_t i = 0; i < u->n_started; i++)
		if (u->node[i].daemon.pidfd >= 0)
			close(u->node[i].daemon.pidfd);
}
