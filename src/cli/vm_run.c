/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/vm_run.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>

/*
 * What the child does before it is QEMU.  It alone gets the space's memory: as
 * long as any process has that open the space counts as in use.
 */
static int become_qemu(const struct cli *cli, struct run *run,
                       const char *space, char *const argv[])
{
	struct errmsg em = { "" };
	int r = run_space(run, space, &em);

	if (r < 0)
		return cli_fail(cli, "%s", em.text);
	r = run_exec(run, argv, &em);
	(void)cli_fail(cli, "%s: %s", argv[0], em.text);
	return r;
}

/* Did the terminal send it, and so to QEMU too? */
static bool from_terminal(const siginfo_t *info)
{
	return info->si_code == SI_KERNEL &&
	       (info->si_signo == SIGINT || info->si_signo == SIGQUIT);
}

/* Pass signals on until the child has ended.  Returns its status. */
static int wait_for_end(pid_t child, const sigset_t *signals)
{
	siginfo_t info;
	int status;

	for (;;) {
		if (sigwaitinfo(signals, &info) < 0)
			continue; /* stopped, and continued */
		if (info.si_signo != SIGCHLD) {
			if (!from_terminal(&info))
				(void)kill(child, info.si_signo);
		} else if (waitpid(child, &status, WNOHANG) == child) {
			return WIFEXITED(status) ? WEXITSTATUS(status) :
			                           128 + WTERMSIG(status);
		}
	}
}

int vm_run(const struct cli *cli, struct run *run, const char *space,
           char *const argv[])
{
	static const int passed[] = { SIGTERM, SIGHUP, SIGINT, SIGQUIT };
	struct termios modes;
	bool terminal = tcgetattr(STDIN_FILENO, &modes) == 0;
	sigset_t signals, before;
	pid_t child;
	int status;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
		sigaddset(&signals, passed[i]);
	/* Who ignores its children, and had us inherit that, never hears of
	 * their end. */
	(void)signal(SIGCHLD, SIG_DFL);
	/* From here on, so that none is lost that comes before the wait. */
	sigprocmask(SIG_BLOCK, &signals, &before);
	fflush(stdout);
	child = fork();
	if (child < 0) {
		status = cli_fail(cli, "cannot start a process: %s",
		                  strerror(errno));
	} else if (child == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		_exit(become_qemu(cli, run, space, argv));
	} else {
		status = wait_for_end(child, &signals);
	}
	/* A guest that was killed has left the terminal raw.  From the
	 * background this would stop us. */
	if (terminal && tcgetpgrp(STDIN_FILENO) == getpgrp())
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &modes);
	return status;
}
