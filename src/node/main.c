/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan-node: start and stop.  Manual: memspan-node(8).
 *
 * In order: options; what the kernel can do; a port for pages; join (HTTP); the
 * link (HELLO); the shards; the first lease; the pid file and the clients'
 * socket. Whoever finds the socket finds a node that can serve.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "fault/probe.h"
#include "node/config.h"

#define PORT_FIRST     50051u
#define PORT_LAST      50100u
#define FIRST_LEASE_NS (10 * NSEC_PER_SEC)

/* Userfaultfds are many: one per stripe and client. */
static void raise_limits(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* The page that tells clients until when we may serve them. */
static int make_lease_page(struct node *n, struct errmsg *em)
{
	AUTO_CLOSE int fd =
		memfd_create("memspan-lease", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0 || ftruncate(fd, PAGE_BYTES) < 0)
		return errmsg_set(em, -errno, "cannot make the lease page");
	p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return errmsg_set(em, -errno, "cannot map the lease page");
	n->lease = p;
	*n->lease = (struct local_lease){ .magic = LOCAL_MAGIC,
		                          .version = LOCAL_VERSION };
	if (fcntl(fd, F_ADD_SEALS,
	          F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE |
	                  F_SEAL_SEAL) < 0)
		return errmsg_set(em, -errno, "cannot seal the lease page");
	n->lease_fd = TAKE_FD(fd);
	return 0;
}

/*
 * Listen where peers will fetch pages.  The port is ours from here on: who
 * dials before the shards are there waits in the socket's backlog.
 */
static int listen_for_peers(struct node *n, struct errmsg *em)
{
	char address[sizeof(n->endpoint)];
	const char *colon = strrchr(n->cfg.listen, ':');
	int fd = -EADDRINUSE;

	if (strlen(n->cfg.listen) >= sizeof(address) - 8)
		return errmsg_say(em, -EINVAL, "--listen %s is too long",
		                  n->cfg.listen);
	if (colon != NULL && colon[1] != '\0' && colon[1] != ']' &&
	    strchr(colon, ']') == NULL) {
		fd = tp_bind(n->cfg.listen, n->endpoint, em);
		if (fd == -EADDRINUSE)
			return errmsg_say(
				em, fd,
				"cannot listen at %s: another process "
				"has that port; take another one with "
				"--listen",
				n->cfg.listen);
	} else {
		for (unsigned p = PORT_FIRST;
		     fd == -EADDRINUSE && p <= PORT_LAST; p++) {
			snprintf(address, sizeof(address), "%.50s:%u",
			         n->cfg.listen, p);
			fd = tp_bind(address, n->endpoint, em);
		}
		if (fd == -EADDRINUSE)
			return errmsg_say(
				em, fd,
				"all ports from %u to %u of %s are "
				"taken; name a free one with --listen",
				PORT_FIRST, PORT_LAST, n->cfg.listen);
	}
	if (fd < 0)
		return fd;
	n->listen_fd = fd;
	return 0;
}

/* What --memory does not count: our own memory, once everything is set up. */
static uint64_t anonymous_bytes(void)
{
	char line[128];
	unsigned long kb = 0;
	FILE *f = fopen("/proc/self/status", "re");

	if (f == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "RssAnon: %lu kB", &kb) == 1)
			break;
	fclose(f);
	return (uint64_t)kb << 10;
}

static int wait_for_lease(const struct node *n, struct errmsg *em)
{
	struct timespec nap = { .tv_nsec = (long)(5 * NSEC_PER_MSEC) };
	nsec_t until = boot_now() + FIRST_LEASE_NS;

	while (lease_over(n)) {
		if (boot_now() >= until)
			return errmsg_say(
				em, -ETIMEDOUT,
				"the coordinator gave no lease within "
				"10 s; its log says why");
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	}
	return 0;
}

static int start_shards(struct node *n, struct errmsg *em)
{
	int r = 0;

	for (uint8_t i = 0; r == 0 && i < n->cfg.shards; i++)
		r = shard_new(n, i, &n->shard[i], em);
	if (r == 0)
		r = shard_listen(n->shard[0], TAKE_FD(n->listen_fd), em);
	for (uint8_t i = 0; r == 0 && i < n->cfg.shards; i++)
		r = shard_start(n->shard[i], em);
	return r;
}

static int start(struct node *n, struct errmsg *em)
{
	char node_port[64];
	int r;

	if (mkdir(n->cfg.run_dir, 0755) < 0 && errno != EEXIST)
		return errmsg_set(em, -errno,
		                  "cannot make the run directory %s",
		                  n->cfg.run_dir);
	probe_features(&n->features);
	r = control_new(n, &n->control, em);
	if (r == 0)
		r = make_lease_page(n, em);
	if (r == 0)
		r = listen_for_peers(n, em);
	if (r == 0)
		r = link_register(n, node_port, em);
	if (r == 0)
		r = link_new(n, node_port, &n->link, em);
	if (r == 0)
		r = start_shards(n, em);
	if (r == 0) {
		atomic_store(&n->fixed_bytes, anonymous_bytes());
		r = link_start(n->link, em);
	}
	if (r == 0)
		r = wait_for_lease(n, em);
	if (r == 0)
		r = control_open(n->control, em);
	return r;
}

static void stop(struct node *n)
{
	atomic_store(&n->stopping, true);
	link_stop(n->link);
	for (unsigned i = 0; i < n->cfg.shards; i++)
		shard_stop(n->shard[i]);
	for (unsigned i = 0; i < n->cfg.shards; i++)
		n->shard[i] = shard_free(n->shard[i]);
	n->control = control_free(n->control);
	n->link = link_free(n->link);
}

int main(int argc, char **argv)
{
	static struct node node = { .lease_fd = -1, .listen_fd = -1 };
	struct errmsg em = { "" };
	int status = 1;

	switch (config_read(&node.cfg, argc, argv)) {
	case CONFIG_DONE:
		return 0;
	case CONFIG_USAGE:
		return 2;
	case CONFIG_RUN:
		break;
	}
	log_init("node", node.cfg.log_json);
	memory_init(&node.memory, node.cfg.memory_bytes);
	raise_limits();
	if (start(&node, &em) < 0) {
		log_err("cannot start", "why=\"%s\"", em.text);
	} else {
		log_info("serving",
		         "node=%u name=%s endpoint=%s memory_bytes=%llu "
		         "shards=%u overhead_bytes=%llu minor_wp=%d poison=%d",
		         node.id, node.cfg.name, node.endpoint,
		         (unsigned long long)node.cfg.memory_bytes,
		         node.cfg.shards,
		         (unsigned long long)atomic_load(&node.fixed_bytes),
		         node.features.minor_wp, node.features.poison);
		status = control_run(node.control);
	}
	stop(&node);
	return status;
}
