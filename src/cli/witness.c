/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/witness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "cli/bench_page.h"
#include "memspan.h"

enum verb { VERB_ATTACH, VERB_WRITE, VERB_READ };

struct order {
	enum verb verb;
	struct bench_stamp stamp; /* WRITE, READ */
};

struct answer {
	int error; /* 0, or -errno with the reason in em */
	struct errmsg em;
};

/* --- the witness's side -------------------------------------------------- */

static void do_write(struct memspan *m, const struct bench_stamp *s)
{
	bench_fill((char *)memspan_addr(m) + s->page * PAGE_BYTES, s);
}

static int do_read(struct memspan *m, const struct bench_stamp *s,
                   struct errmsg *em)
{
	const char *page = (char *)memspan_addr(m) + s->page * PAGE_BYTES;
	unsigned wrong = bench_check(page, s);

	if (wrong == PAGE_BYTES)
		return 0;
	return errmsg_say(em, -EBADMSG,
	                  "byte %u of page %llu is 0x%02x and should be 0x%02x",
	                  wrong, (unsigned long long)s->page,
	                  (unsigned char)page[wrong], bench_byte(s, wrong));
}

/* Serve orders until the other end closes. */
static int serve(int sock, const char *node_socket, const char *space)
{
	struct memspan *m = NULL;
	struct order o;

	while (recv(sock, &o, sizeof(o), 0) == sizeof(o)) {
		struct answer a = { .error = 0 };

		switch (o.verb) {
		case VERB_ATTACH:
			a.error = memspan_attach(node_socket, space, 0, &m,
			                         a.em.text, sizeof(a.em.text));
			break;
		case VERB_WRITE:
			do_write(m, &o.stamp);
			break;
		case VERB_READ:
			a.error = do_read(m, &o.stamp, &a.em);
			break;
		}
		if (send(sock, &a, sizeof(a), MSG_NOSIGNAL) != sizeof(a))
			break;
		if (o.verb == VERB_ATTACH && a.error != 0)
			break;
	}
	memspan_detach(m);
	return 0;
}

/* --- the side of whoever gives orders ------------------------------------ */

/* How the witness ended, when its socket closed without an answer. */
static enum witness_outcome gone(struct witness *w, struct errmsg *em)
{
	int status = 0;

	if (waitpid(w->pid, &status, 0) == w->pid && WIFSIGNALED(status))
		(void)errmsg_say(em, 0, "the client died of signal %d (%s)",
		                 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		(void)errmsg_say(em, 0, "the client ended with status %d",
		                 WEXITSTATUS(status));
	w->pid = 0;
	return WITNESS_FAILED;
}

static enum witness_outcome give(struct witness *w, const struct order *o,
                                 unsigned patience_ms, struct answer *a,
                                 struct errmsg *em)
{
	struct pollfd p = { .fd = w->sock, .events = POLLIN };
	ssize_t n;
	int r;

	if (w->pid == 0) {
		(void)errmsg_say(em, 0, "the client is gone");
		return WITNESS_FAILED;
	}
	if (send(w->sock, o, sizeof(*o), MSG_NOSIGNAL) < 0)
		return gone(w, em);
	r = poll(&p, 1, (int)patience_ms);
	if (r == 0) {
		(void)errmsg_say(em, 0, "no answer within %u ms", patience_ms);
		return WITNESS_FAILED;
	}
	if (r < 0) { /* a signal: somebody wants us to end */
		(void)errmsg_say(em, 0, "interrupted");
		return WITNESS_FAILED;
	}
	n = recv(w->sock, a, sizeof(*a), 0);
	if (n != (ssize_t)sizeof(*a))
		return gone(w, em);
	if (a->error == 0)
		return WITNESS_OK;
	(void)errmsg_say(em, 0, "%s", a->em.text);
	return WITNESS_FAILED;
}

enum witness_outcome witness_start(struct witness *w, const char *node_socket,
                                   const char *space, unsigned patience_ms,
                                   struct errmsg *em)
{
	struct order o = { .verb = VERB_ATTACH };
	struct answer a = { .error = 0 };
	enum witness_outcome r;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		(void)errmsg_set(em, -errno, "cannot make a socket pair");
		return WITNESS_FAILED;
	}
	fflush(NULL);
	w->pid = fork();
	if (w->pid == 0) {
		/* Not even a parent that is killed leaves one behind. */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_IGN);
		close(pair[0]);
		_exit(serve(pair[1], node_socket, space));
	}
	close(pair[1]);
	w->sock = pair[0];
	if (w->pid < 0) {
		w->pid = 0;
		(void)errmsg_set(em, -errno, "cannot start a client");
		witness_stop(w);
		return WITNESS_FAILED;
	}
	r = give(w, &o, patience_ms, &a, em);
	if (r != WITNESS_OK)
		witness_stop(w);
	return a.error == -EACCES ? WITNESS_BARRED : r;
}

static enum witness_outcome on_page(struct witness *w, enum verb verb,
                                    gpn_t page, uint64_t seed,
                                    unsigned patience_ms, struct errmsg *em)
{
	struct order o = {
		.verb = verb,
		.stamp = { .seed = seed, .page = page, .version = 1 },
	};
	struct answer a;

	return give(w, &o, patience_ms, &a, em);
}

enum witness_outcome witness_write(struct witness *w, gpn_t page, uint64_t seed,
                                   unsigned patience_ms, struct errmsg *em)
{
	return on_page(w, VERB_WRITE, page, seed, patience_ms, em);
}

enum witness_outcome witness_read(struct witness *w, gpn_t page, uint64_t seed,
                                  unsigned patience_ms, struct errmsg *em)
{
	return on_page(w, VERB_READ, page, seed, patience_ms, em);
}

void witness_stop(struct witness *w)
{
	/* One that waits in a fault does not see that its socket closes. */
	const unsigned patience_ms = 2000;
	siginfo_t info = { .si_pid = 0 };
	struct pollfd p = { .fd = w->sock, .events = POLLIN };

	if (w->sock >= 0) {
		shutdown(w->sock, SHUT_WR);
		if (w->pid > 0)
			(void)poll(&p, 1, (int)patience_ms);
		close(w->sock);
		w->sock = -1;
	}
	if (w->pid > 0) {
		/* Whether it has ended is known without a race: it is ours. */
		if (waitid(P_PID, (id_t)w->pid, &info,
		           WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    info.si_pid == 0)
			(void)kill(w->pid, SIGKILL);
		(void)waitpid(w->pid, NULL, 0);
		w->pid = 0;
	}
}
