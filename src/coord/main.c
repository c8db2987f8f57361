/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan-coordinator: start, signals, stop.  Manual: memspan-coordinator(8).
 *
 * Start: options, run directory and pid file, store, ports, state, HTTP; last
 * the file coordinator.url, so that whoever finds it finds us ready.
 *
 * Stop, on SIGTERM or SIGINT: the URL goes, new requests are refused, those
 * that wait for nodes are answered now, and when all are the loop ends.  Nodes
 * see their links close; their leases run on.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/pidfile.h"
#include "coord/api.h"
#include "coord/coord.h"
#include "coord/listen.h"

#define STOP_POLL_NS (5 * NSEC_PER_MSEC)
#define STOP_WAIT_NS NSEC_PER_SEC

struct program {
	struct config cfg;
	struct coord coord;
	struct loop_io signals;
	struct loop_timer stop_poll;
	nsec_t stop_by;
	char pid_path[PATH_BYTES], url_path[PATH_BYTES];
	char url[128];
	bool has_pid;
	uint16_t http_port;
	int http_fd, node_fd; /* -1 once given away */
};

/* --- the run directory --------------------------------------------------- */

static int make_run_dir(struct program *p, struct errmsg *em)
{
	const char *dir = p->cfg.run_dir;
	struct stat st;

	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return errmsg_set(em, -errno,
		                  "cannot make the run directory %s", dir);
	if (stat(dir, &st) < 0)
		return errmsg_set(em, -errno, "cannot use %s", dir);
	if (!S_ISDIR(st.st_mode))
		return errmsg_say(em, -ENOTDIR,
		                  "%s is not a directory; say --run-dir", dir);
	snprintf(p->pid_path, sizeof(p->pid_path), "%s/coordinator.pid", dir);
	snprintf(p->url_path, sizeof(p->url_path), "%s/coordinator.url", dir);
	return 0;
}

static int take_pid_file(struct program *p, struct errmsg *em)
{
	struct errmsg why;
	int r = pidfile_write(p->pid_path, &why);
	pid_t pid = 0;

	if (r == -EEXIST && pidfile_open(p->pid_path, &pid, NULL) == 0)
		return errmsg_say(
			em, r,
			"a coordinator runs in %s already, as process "
			"%d; stop it, or say another --run-dir",
			p->cfg.run_dir, (int)pid);
	if (r < 0)
		return errmsg_say(em, r, "%s", why.text);
	p->has_pid = true;
	/* Of one that was killed; nobody is to knock there before we serve. */
	(void)unlink(p->url_path);
	return 0;
}

/* Complete or not at all: others may be waiting for it. */
static int write_url(struct program *p, struct errmsg *em)
{
	char path[PATH_BYTES + 8];
	FILE *f;

	snprintf(path, sizeof(path), "%s.new", p->url_path);
	f = fopen(path, "we");
	if (!f)
		return errmsg_set(em, -errno, "cannot write %s", path);
	if (fprintf(f, "%s\n", p->url) < 0 || fflush(f) != 0) {
		fclose(f);
		(void)unlink(path);
		return errmsg_set(em, -EIO, "cannot write %s", path);
	}
	fclose(f);
	if (rename(path, p->url_path) < 0)
		return errmsg_set(em, -errno, "cannot write %s", p->url_path);
	return 0;
}

/* --- signals ------------------------------------------------------------- */

static void stop_poll(struct loop_timer *t)
{
	struct program *p = container_of(t, struct program, stop_poll);

	bool late = loop_now(p->coord.loop) > p->stop_by;

	/* A client that does not read must not hold us up. */
	if (http_idle(p->coord.http) && (http_drained(p->coord.http) || late))
		loop_stop(p->coord.loop);
	else
		timer_start(p->coord.loop, t,
		            loop_now(p->coord.loop) + STOP_POLL_NS);
}

static void signalled(struct loop_io *io, uint32_t events)
{
	struct program *p = container_of(io, struct program, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(io->fd, &info, sizeof(info)) != (ssize_t)sizeof(info) ||
	    p->coord.stopping)
		return;
	log_info("stopping", "signal=%u from_pid=%u", info.ssi_signo,
	         info.ssi_pid);
	(void)unlink(p->url_path);
	p->coord.stopping = true;
	p->stop_by = loop_now(p->coord.loop) + STOP_WAIT_NS;
	http_stop(p->coord.http);
	rounds_end(&p->coord);
	timer_start(p->coord.loop, &p->stop_poll, loop_now(p->coord.loop));
}

/* Signals come as messages, to this thread; libmicrohttpd's inherits that. */
static int take_signals(struct program *p, struct errmsg *em)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return errmsg_set(em, -errno, "cannot block signals");
	/* A store at its size limit is an error to report, not an end. */
	if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR ||
	    signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return errmsg_set(em, -errno, "cannot ignore signals");
	p->signals.ready = signalled;
	p->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (p->signals.fd < 0)
		return errmsg_set(em, -errno, "cannot take signals");
	return 0;
}

/* Links and HTTP connections together are more than the usual 1,024. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_warn("cannot raise the limit of descriptors", "errno=%d",
		         errno);
}

/* --- start and stop ------------------------------------------------------ */

static int open_ports(struct program *p, struct errmsg *em)
{
	const struct config *cfg = &p->cfg;
	bool any = strcmp(cfg->listen.host, "0.0.0.0") == 0;
	char text[80];
	int r;

	r = listen_at(&cfg->listen, &p->http_fd, &p->http_port, em);
	if (r < 0)
		return r;
	r = listen_at(&cfg->node_listen, &p->node_fd, &p->coord.node_port, em);
	if (r < 0)
		return r;
	strcpy(p->coord.node_host, cfg->node_listen.host);
	address_text(any                                 ? "127.0.0.1" :
	             strcmp(cfg->listen.host, "::") == 0 ? "::1" :
	                                                   cfg->listen.host,
	             p->http_port, text, sizeof(text));
	snprintf(p->url, sizeof(p->url), "http://%s", text);
	return 0;
}

static int start_http(struct program *p, struct errmsg *em)
{
	const char *host = p->cfg.listen.host;
	struct http_config cfg = {
		.loop = p->coord.loop,
		.fd = TAKE_FD(p->http_fd),
		.anywhere = strncmp(host, "127.", 4) != 0 &&
		            strcmp(host, "::1") != 0,
		.handle = api_handle,
		.arg = &p->coord,
	};

	return http_start(&cfg, &p->coord.http, em);
}

static int start(struct program *p, struct errmsg *em)
{
	struct loop_config loop_cfg = { .mail_arg = &p->coord };
	int r;

	raise_descriptors();
	r = take_signals(p, em);
	if (r == 0)
		r = make_run_dir(p, em);
	if (r == 0)
		r = take_pid_file(p, em);
	if (r == 0)
		r = store_open(p->cfg.store, &p->coord.store, em);
	if (r == 0)
		r = open_ports(p, em);
	if (r == 0)
		r = loop_new(&loop_cfg, &p->coord.loop, em);
	if (r == 0)
		r = coord_start(&p->coord, &p->cfg, TAKE_FD(p->node_fd), em);
	if (r == 0)
		r = loop_add(p->coord.loop, &p->signals, EPOLLIN);
	if (r == 0)
		r = start_http(p, em);
	if (r == 0)
		r = write_url(p, em);
	return r;
}

/* Takes what start() has built, whole or half. */
static void finish(struct program *p)
{
	p->coord.http = http_free(p->coord.http);
	coord_done(&p->coord);
	p->coord.loop = loop_free(p->coord.loop);
	p->coord.store = store_free(p->coord.store);
	if (p->http_fd >= 0)
		close(p->http_fd);
	if (p->node_fd >= 0)
		close(p->node_fd);
	if (p->signals.fd >= 0)
		close(p->signals.fd);
	if (p->has_pid) {
		(void)unlink(p->url_path);
		pidfile_remove(p->pid_path);
	}
}

static int run(struct program *p)
{
	struct errmsg em = { "" };
	char node_port[80];
	int r = start(p, &em);

	if (r < 0) {
		log_err(em.text);
		return EXIT_FAILURE;
	}
	address_text(p->coord.node_host, p->coord.node_port, node_port,
	             sizeof(node_port));
	log_info("ready", "url=%s node_port=%s store=%s epoch=%u", p->url,
	         node_port, p->cfg.store, p->coord.members.epoch);
	r = loop_run(p->coord.loop);
	if (r < 0) {
		log_err("the event loop failed", "errno=%d", -r);
		return EXIT_FAILURE;
	}
	log_info("stopped");
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct program *p = calloc(1, sizeof(*p));
	int r;

	if (!p) {
		fputs("memspan-coordinator: out of memory\n", stderr);
		return EXIT_FAILURE;
	}
	r = config_read(&p->cfg, argc, argv);
	if (r != CONFIG_RUN) {
		free(p);
		return r == CONFIG_DONE ? EXIT_SUCCESS : 2;
	}
	log_init("coordinator", p->cfg.log_json);
	p->http_fd = p->node_fd = p->signals.fd = -1;
	p->stop_poll.due = stop_poll;
	r = run(p);
	finish(p);
	free(p);
	return r;
}
