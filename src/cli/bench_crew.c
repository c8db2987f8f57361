/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/bench_crew.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "cli/bench_pool.h"

volatile sig_atomic_t bench_stop;

#define TICK_MS 500

/* --- processes ----------------------------------------------------------- */

/*
 * In a child: keep stdin, stdout, stderr and `fd[]`, which get new numbers, and
 * close all others: a socket whose end is meant to be noticed must not live on
 * in a brother.
 */
static void keep_only(int *fd, unsigned n)
{
	/* Out of the way first, for one's new number may be another's old. */
	for (unsigned i = 0; i < n; i++)
		fd[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, 16);
	for (unsigned i = 0; i < n; i++) {
		(void)dup3(fd[i], (int)(3 + i), O_CLOEXEC);
		fd[i] = (int)(3 + i);
	}
	(void)close_range(3 + n, ~0u, 0);
}

/*
 * fork(2) for a member of the crew: it dies with us, leaves ^C to us, and is
 * called `name` in ps(1).  Returns as fork(2).
 */
static pid_t fork_member(const char *name)
{
	pid_t conductor = getpid();
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid != 0)
		return pid;
	(void)prctl(PR_SET_NAME, name);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != conductor)
		_exit(1); /* it died before we asked to be told */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	return 0;
}

/* What one member's processes are given, and the conductor closes again. */
struct ends {
	int tcp[2];     /* handler, peer */
	int control[2]; /* client, handler */
	int orders[2];  /* conductor, client */
};

static int start_floor(struct bench_member *m, const struct ends *e,
                       const struct floor_config *floor)
{
	struct floor_config cfg = *floor;

	m->peer = fork_member("bench-peer");
	if (m->peer == 0) {
		keep_only((int[]){ e->tcp[1] }, 1);
		cfg.sock = 3;
		_exit(floor_peer(&cfg));
	}
	m->handler = fork_member("bench-handler");
	if (m->handler == 0) {
		keep_only((int[]){ e->tcp[0], e->control[1] }, 2);
		cfg.sock = 3;
		cfg.control = 4;
		_exit(floor_handler(&cfg));
	}
	return m->peer < 0 || m->handler < 0 ? -errno : 0;
}

static int start_client(struct bench_crew *crew, unsigned i,
                        const struct ends *e, uint64_t *sample)
{
	struct bench_member *m = &crew->member[i];

	m->client = fork_member("bench-client");
	if (m->client == 0) {
		keep_only((int[]){ e->orders[1], e->control[0] }, 2);
		_exit(bench_client(&(struct bench_client_config){
			.sock = 3,
			.control = 4,
			.board = crew->board,
			.index = i,
			.sample = sample,
			.room = crew->room,
			.node_socket = m->node_socket,
		}));
	}
	return m->client < 0 ? -errno : 0;
}

static void close_pair(int fd[2])
{
	for (unsigned i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static int start_member(struct bench_crew *crew, unsigned i,
                        const struct bench_crew_config *cfg, struct errmsg *em)
{
	struct ends e = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	struct bench_member *m = &crew->member[i];
	struct floor_config floor = {
		.mode = &crew->board->seat[i].floor_mode,
		.seed = cfg->seed,
		.busy_poll_ns = cfg->busy_poll_ns,
	};
	uint64_t *sample;
	int r;

	sample =
		mmap(NULL, crew->room * sizeof(*sample), PROT_READ | PROT_WRITE,
	             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sample == MAP_FAILED)
		return errmsg_set(em, -errno, "memory for samples");
	m->sample = sample;
	r = floor_tcp_pair(e.tcp, em);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, e.control) <
	            0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, e.orders) < 0)
		r = -errno;
	if (r == 0)
		r = start_floor(m, &e, &floor);
	if (r == 0)
		r = start_client(crew, i, &e, sample);
	m->sock = TAKE_FD(e.orders[0]);
	close_pair(e.tcp);
	close_pair(e.control);
	close_pair(e.orders);
	return r < 0 ? errmsg_set(em, r, "cannot start the processes") : 0;
}

int bench_crew_start(struct bench_crew *crew,
                     const struct bench_crew_config *cfg, struct errmsg *em)
{
	assert(cfg->n > 0 && cfg->n <= BENCH_NODES_MAX);
	for (unsigned i = 0; i < cfg->n; i++) {
		crew->member[i].sock = -1;
		crew->member[i].node_socket = cfg->node_socket[i];
		crew->member[i].node = cfg->node[i];
	}
	crew->n = cfg->n;
	crew->room = cfg->room;
	crew->board = mmap(NULL, sizeof(*crew->board), PROT_READ | PROT_WRITE,
	                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (crew->board == MAP_FAILED) {
		crew->board = NULL;
		return errmsg_set(em, -errno, "memory for the crew");
	}
	for (unsigned i = 0; i < cfg->n; i++) {
		int r = start_member(crew, i, cfg, em);

		if (r < 0)
			return r;
	}
	return 0;
}

static void end_process(pid_t *pid)
{
	if (*pid > 0) {
		(void)kill(*pid, SIGKILL);
		(void)waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

void bench_crew_end(struct bench_crew *crew)
{
	for (unsigned i = 0; i < crew->n; i++) {
		struct bench_member *m = &crew->member[i];

		end_process(&m->client);
		end_process(&m->handler);
		end_process(&m->peer);
		if (m->sock >= 0)
			close(m->sock);
		if (m->sample)
			munmap((void *)(uintptr_t)m->sample,
			       crew->room * sizeof(*m->sample));
	}
	if (crew->board)
		munmap(crew->board, sizeof(*crew->board));
	memset(crew, 0, sizeof(*crew));
}

/* --- orders -------------------------------------------------------------- */

struct bench_order *bench_crew_order(struct bench_crew *crew, unsigned i,
                                     enum bench_verb verb)
{
	struct bench_order *o = &crew->board->seat[i].order;

	memset(o, 0, sizeof(*o));
	o->verb = verb;
	o->walk.step = 1;
	o->walk.deal = 1;
	o->walk.grain = 1;
	return o;
}

/* Has *pid ended?  Then it is no more, and em says who and how. */
static bool has_ended(pid_t *pid, const char *who, uint32_t node,
                      struct errmsg *em)
{
	int status;

	if (*pid <= 0 || waitpid(*pid, &status, WNOHANG) != *pid)
		return false;
	*pid = 0;
	(void)errmsg_say(em, 0,
	                 "%s of node %u ended with %s %d; what it said is "
	                 "above, and memspan status shows the nodes",
	                 who, node, WIFSIGNALED(status) ? "signal" : "status",
	                 WIFSIGNALED(status) ? WTERMSIG(status) :
	                                       WEXITSTATUS(status));
	return true;
}

/* Has a process of the crew ended?  None should while there are orders. */
static int look_for_dead(struct bench_crew *crew, struct errmsg *em)
{
	for (unsigned i = 0; i < crew->n; i++) {
		struct bench_member *m = &crew->member[i];

		if (has_ended(&m->client, "the client", m->node, em) ||
		    has_ended(&m->handler, "the floor's handler beside that",
		              m->node, em) ||
		    has_ended(&m->peer, "the floor's peer beside that", m->node,
		              em))
			return -ECHILD;
	}
	return 0;
}

#define DYING_MS 10000 /* taking its memory apart may take a while */

/* A client that has closed its socket is dying. */
static int wait_for_dead(struct bench_crew *crew, unsigned i, struct errmsg *em)
{
	struct bench_member *m = &crew->member[i];

	for (int ms = 0; ms < DYING_MS; ms += 10) {
		if (has_ended(&m->client, "the client", m->node, em))
			return -ECHILD;
		(void)poll(NULL, 0, 10);
	}
	return errmsg_say(em, -ECHILD, "the client of node %u is silent",
	                  m->node);
}

/* One word from member i.  Returns 0, or -errno if it is not `word`. */
static int hear(struct bench_crew *crew, unsigned i, char word,
                struct errmsg *em)
{
	char got;
	ssize_t r = recv(crew->member[i].sock, &got, 1, MSG_DONTWAIT);

	if (r == 1 && got == word)
		return 0;
	return wait_for_dead(crew, i, em);
}

/* Wait until all of `who` have said `word`. */
static int hear_all(struct bench_crew *crew, uint64_t who, char word,
                    nsec_t until, struct errmsg *em)
{
	while (who != 0) {
		struct pollfd p[BENCH_NODES_MAX];
		int r;

		for (unsigned i = 0; i < crew->n; i++)
			p[i] = (struct pollfd){
				.fd = who >> i & 1 ? crew->member[i].sock : -1,
				.events = POLLIN,
			};
		r = poll(p, crew->n, TICK_MS);
		if (bench_stop)
			return errmsg_say(em, -EINTR, "interrupted");
		if (r < 0 && errno != EINTR)
			return errmsg_set(em, -errno, "poll");
		if (crew->tick)
			crew->tick(crew->tick_arg);
		for (unsigned i = 0; r > 0 && i < crew->n; i++) {
			if (p[i].fd < 0 || p[i].revents == 0)
				continue;
			if (hear(crew, i, word, em) < 0)
				return -ECHILD;
			who &= ~(1ull << i);
		}
		if (r == 0 && look_for_dead(crew, em) < 0)
			return -ECHILD;
		if (who != 0 && bench_now() >= until)
			return errmsg_say(
				em, -ETIMEDOUT,
				"the client of node %u is stuck, perhaps in a "
				"page fault; memspan status shows the nodes",
				crew->member[__builtin_ctzll(who)].node);
	}
	return 0;
}

static int do_orders(struct bench_crew *crew, uint64_t who, nsec_t patience,
                     struct errmsg *em)
{
	nsec_t until = bench_now() + patience;
	int r;

	crew->round++;
	for (unsigned i = 0; i < crew->n; i++) {
		if (!(who >> i & 1))
			continue;
		crew->board->seat[i].round = crew->round;
		if (send(crew->member[i].sock, "o", 1, MSG_NOSIGNAL) != 1)
			return wait_for_dead(crew, i, em);
	}
	r = hear_all(crew, who, 'r', until, em);
	if (r < 0)
		return r;
	atomic_store(&crew->board->go, crew->round);
	bench_futex_wake(&crew->board->go);
	return hear_all(crew, who, 'd', until, em);
}

int bench_crew_do(struct bench_crew *crew, uint64_t who, nsec_t patience,
                  struct errmsg *em)
{
	int r;

	if (crew->broken)
		return errmsg_say(em, -EPIPE, "the clients have ended");
	r = do_orders(crew, who, patience, em);
	if (r < 0) {
		crew->broken = true;
		return r;
	}
	for (unsigned i = 0; i < crew->n; i++) {
		const struct bench_answer *a = &crew->board->seat[i].answer;

		if (who >> i & 1 && a->error < 0)
			return errmsg_say(em, a->error, "node %u: %s",
			                  crew->member[i].node,
			                  a->em.text[0] ? a->em.text :
			                                  strerror(-a->error));
	}
	return 0;
}
