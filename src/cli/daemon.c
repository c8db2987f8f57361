/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/pidfile.h"

#define KILL_PATIENCE_MS 2000u /* SIGKILL is not refused, but may be late */
#define WATCHED_MAX      (NODES_MAX + 1u)

char *daemon_name(const struct daemon *d, char buf[DAEMON_NAME_BYTES])
{
	if (d->id == DAEMON_COORDINATOR)
		snprintf(buf, DAEMON_NAME_BYTES, "coordinator");
	else
		snprintf(buf, DAEMON_NAME_BYTES, "node %d", d->id);
	return buf;
}

void daemons_done(struct daemons *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->v[i].pidfd >= 0)
			close(d->v[i].pidfd);
	free(d->v);
	*d = (struct daemons){ 0 };
}

/* --- finding ------------------------------------------------------------- */

/*
 * Is `file` "coordinator.SUFFIX" or "node-ID.SUFFIX"?  Then *id is whose.
 */
static bool is_daemons(const char *file, const char *suffix, int *id)
{
	const char *dot = strrchr(file, '.');
	unsigned n;
	int end = 0;

	if (!dot || strcmp(dot + 1, suffix) != 0)
		return false;
	if (strncmp(file, "coordinator.", strlen("coordinator.")) == 0 &&
	    dot == file + strlen("coordinator")) {
		*id = DAEMON_COORDINATOR;
		return true;
	}
	if (sscanf(file, "node-%4u.%n", &n, &end) != 1 || n >= NODES_MAX ||
	    file + end != dot + 1)
		return false;
	*id = (int)n;
	return true;
}

/* Nodes come first, by number: they are stopped before the coordinator. */
static int by_rank(const void *a, const void *b)
{
	unsigned x = (unsigned)((const struct daemon *)a)->id;
	unsigned y = (unsigned)((const struct daemon *)b)->id;

	return x < y ? -1 : x > y;
}

static int add(struct daemons *d, const struct daemon *one)
{
	size_t room = d->room ? 2 * d->room : 16;

	if (d->n == d->room) {
		struct daemon *v = reallocarray(d->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		d->v = v;
		d->room = room;
	}
	d->v[d->n++] = *one;
	return 0;
}

int daemons_find(const char *run_dir, struct daemons *ret, struct errmsg *em)
{
	struct daemons found = { 0 };
	struct dirent *e;
	DIR *dir = opendir(run_dir);
	int r = 0;

	if (!dir && errno == ENOENT) {
		*ret = found;
		return 0;
	}
	if (!dir)
		return errmsg_set(em, -errno, "cannot read %s", run_dir);
	while (r == 0 && (e = readdir(dir))) {
		struct daemon d = { .pidfd = -1 };
		char path[RUN_PATH_BYTES];

		if (!is_daemons(e->d_name, "pid", &d.id))
			continue;
		if (pidfile_open(run_path(run_dir, e->d_name, path), &d.pid,
		                 &d.pidfd) < 0)
			continue; /* stale: nobody runs */
		r = add(&found, &d);
		if (r < 0)
			close(d.pidfd);
	}
	closedir(dir);
	if (r < 0) {
		daemons_done(&found);
		return errmsg_set(em, r, "cannot list %s", run_dir);
	}
	if (found.n > 0)
		qsort(found.v, found.n, sizeof(*found.v), by_rank);
	*ret = found;
	return 0;
}

/* Does nobody listen on this Unix socket?  Not knowing is no. */
static bool socket_dead(const char *path)
{
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	if (fd < 0 || strlen(path) >= sizeof(at.sun_path))
		return false;
	strcpy(at.sun_path, path);
	return connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0 &&
	       errno == ECONNREFUSED;
}

void daemons_clean(const char *run_dir)
{
	char path[RUN_PATH_BYTES];
	struct dirent *e;
	DIR *dir = opendir(run_dir);
	int id;

	if (!dir)
		return;
	while ((e = readdir(dir))) {
		pid_t pid;

		if (is_daemons(e->d_name, "pid", &id)) {
			run_path(run_dir, e->d_name, path);
			if (pidfile_open(path, &pid, NULL) == -ESRCH)
				(void)unlink(path);
		} else if (is_daemons(e->d_name, "sock", &id)) {
			run_path(run_dir, e->d_name, path);
			if (socket_dead(path))
				(void)unlink(path);
		}
	}
	closedir(dir);
	if (access(run_path(run_dir, "coordinator.pid", path), F_OK) < 0)
		(void)unlink(run_path(run_dir, "coordinator.url", path));
}

/* --- starting ------------------------------------------------------------ */

int daemon_program(const char *name, char path[PATH_MAX], struct errmsg *em)
{
	/* bin and sbin are neighbours wherever both are installed. */
	static const char *const places[] = { "", "../sbin/", "../bin/" };
	char own[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
	char *slash;

	if (n < 0)
		return errmsg_set(em, -errno, "cannot find out where I am");
	own[n] = '\0';
	slash = strrchr(own, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (snprintf(path, PATH_MAX, "%s%s%s", own, places[i], name) <
		            PATH_MAX &&
		    access(path, X_OK) == 0)
			return 0;
	}
	return errmsg_say(em, -ENOENT,
	                  "the program %s is neither in %s nor where it is "
	                  "installed; build or install it",
	                  name, own);
}

/* In the child: become a daemon and run.  Whatever fails ends it. */
static void __attribute__((noreturn)) become(const char *const argv[], int log)
{
	int null = open("/dev/null", O_RDONLY);
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	setsid();
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	/* Locks, sockets and pidfds of ours are no business of a daemon. */
	(void)close_range(STDERR_FILENO + 1, ~0u, 0);
	for (int s = 1; s < NSIG; s++)
		(void)sigaction(s, &dfl, NULL); /* KILL and STOP refuse */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* It must not keep a file system from being unmounted. */
	if (chdir("/") < 0)
		_exit(127);
	/* execv() changes no argument, whatever its type says. */
	execv(argv[0], (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

int daemon_start(int id, const char *const argv[], const char *log,
                 struct daemon *ret, struct errmsg *em)
{
	struct daemon d = { .id = id, .pidfd = -1 };
	AUTO_CLOSE int fd = open(
		log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0)
		return errmsg_set(em, -errno, "cannot write %s", log);
	snprintf(d.log, sizeof(d.log), "%s", log);
	fflush(NULL);
	d.pid = fork();
	if (d.pid < 0)
		return errmsg_set(em, -errno, "cannot start %s", argv[0]);
	if (d.pid == 0)
		become(argv, fd);
	d.pidfd = pidfd_open(d.pid, 0);
	if (d.pidfd < 0) {
		int r = -errno;

		/* Our own child, not waited for yet: the pid is still its. */
		(void)kill(d.pid, SIGKILL);
		return errmsg_set(em, r, "cannot watch %s", argv[0]);
	}
	*ret = d;
	return 0;
}

bool daemon_ended(struct daemon *d, char how[DAEMON_HOW_BYTES])
{
	struct pollfd p = { .fd = d->pidfd, .events = POLLIN };
	siginfo_t info = { .si_pid = 0 };

	if (d->pidfd >= 0 && poll(&p, 1, 0) <= 0)
		return false;
	snprintf(how, DAEMON_HOW_BYTES, "ended");
	/* Only our own children can be asked how they ended. */
	if (d->pidfd >= 0 &&
	    waitid(P_PIDFD, (id_t)d->pidfd, &info, WEXITED | WNOHANG) == 0 &&
	    info.si_pid != 0) {
		if (info.si_code == CLD_EXITED)
			snprintf(how, DAEMON_HOW_BYTES, "exit status %d",
			         info.si_status);
		else
			snprintf(how, DAEMON_HOW_BYTES, "signal %d (%s)",
			         info.si_status, strsignal(info.si_status));
	}
	if (d->pidfd >= 0)
		close(d->pidfd);
	d->pidfd = -1;
	return true;
}

void daemon_log_tail(const struct daemon *d, unsigned lines, FILE *f)
{
	AUTO_CLOSE int fd = open(d->log, O_RDONLY | O_CLOEXEC);
	char buf[8192];
	struct stat st;
	ssize_t n;
	char *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	n = pread(fd, buf, sizeof(buf) - 1,
	          st.st_size > (off_t)sizeof(buf) - 1 ?
	                  st.st_size - (off_t)sizeof(buf) + 1 :
	                  0);
	if (n <= 0)
		return;
	buf[n] = '\0';
	/* Back over `lines` line ends, not counting that of the last line. */
	for (p = buf + n - 1; p > buf; p--)
		if (p[-1] == '\n' && --lines == 0)
			break;
	for (char *line = strtok(p, "\n"); line; line = strtok(NULL, "\n"))
		fprintf(f, "  %s\n", line);
}

/* --- stopping ------------------------------------------------------------ */

void daemons_watch(const struct daemon *v, size_t n, int ms)
{
	struct pollfd p[WATCHED_MAX];

	assert(n <= WATCHED_MAX);
	for (size_t i = 0; i < n; i++)
		p[i] = (struct pollfd){ .fd = v[i].pidfd, .events = POLLIN };
	(void)poll(p, n, ms);
}

/* Wait until all have ended, at most that long.  Returns how many have not. */
static unsigned wait_for_all(struct daemon *v, size_t n, unsigned ms)
{
	nsec_t end = cli_now() + ms * NSEC_PER_MSEC;

	for (;;) {
		char how[DAEMON_HOW_BYTES];
		unsigned left = 0;
		nsec_t t = cli_now();

		for (size_t i = 0; i < n; i++)
			if (v[i].pidfd >= 0 && !daemon_ended(&v[i], how))
				left++;
		if (left == 0 || t >= end)
			return left;
		daemons_watch(v, n, (int)((end - t) / NSEC_PER_MSEC) + 1);
	}
}

static void signal_all(const struct cli *cli, struct daemon *v, size_t n,
                       int sig)
{
	char name[DAEMON_NAME_BYTES];

	for (size_t i = 0; i < n; i++) {
		if (v[i].pidfd < 0)
			continue;
		if (sig == SIGKILL)
			cli_fail(cli, "%s (pid %d) does not stop: killing it",
			         daemon_name(&v[i], name), (int)v[i].pid);
		if (pidfd_send_signal(v[i].pidfd, sig, NULL, 0) < 0 &&
		    errno != ESRCH)
			cli_fail(cli,
			         "cannot stop %s (pid %d): %s; run as the user "
			         "who started it",
			         daemon_name(&v[i], name), (int)v[i].pid,
			         strerror(errno));
	}
}

unsigned daemons_stop(const struct cli *cli, struct daemon *v, size_t n,
                      unsigned patience_ms)
{
	signal_all(cli, v, n, SIGTERM);
	if (wait_for_all(v, n, patience_ms) == 0)
		return 0;
	signal_all(cli, v, n, SIGKILL);
	return wait_for_all(v, n, KILL_PATIENCE_MS);
}
