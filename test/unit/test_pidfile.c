/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/pidfile.h"

static char dir[64];
static char path[96];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/test_pidfile.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/node-0.pid", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	(void)unlink(path);
	/* Fails if anything else was left behind, and so does the test. */
	return rmdir(dir);
}

static void write_text(const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void the_writer_is_found_alive(void **state)
{
	struct pollfd p = { .events = POLLIN };
	pid_t pid = 0;

	(void)state;
	assert_int_equal(pidfile_write(path, NULL), 0);
	assert_int_equal(pidfile_open(path, &pid, &p.fd), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(poll(&p, 1, 0), 0); /* we have not ended */
	close(p.fd);
	pidfile_remove(path);
	assert_int_equal(pidfile_open(path, &pid, NULL), -ENOENT);
}

static void a_living_process_keeps_its_file(void **state)
{
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(pidfile_write(path, NULL), 0);
	assert_int_equal(pidfile_write(path, &em), -EEXIST);
	assert_non_null(strstr(em.text, "runs already"));
}

static void a_pid_used_again_is_stale(void **state)
{
	char text[64];
	pid_t pid = 77;
	int fd = 77;

	(void)state;
	/* Our pid, but another beginning than ours. */
	snprintf(text, sizeof(text), "%d 1\n", (int)getpid());
	write_text(text);
	assert_int_equal(pidfile_open(path, &pid, &fd), -ESRCH);
	assert_int_equal(pid, 77);
	assert_int_equal(fd, 77);
	pidfile_remove(path); /* not ours: stays */
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(pidfile_write(path, NULL), 0);
	assert_int_equal(pidfile_open(path, &pid, NULL), 0);
}

static void what_is_no_pid_file_is_left_alone(void **state)
{
	static const char *const texts[] = {
		"", "x", "12\n", "0 1\n", "-1 1\n", "1 2 3\n", "1 2\nmore\n",
	};
	pid_t pid;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
		write_text(texts[i]);
		assert_int_equal(pidfile_open(path, &pid, NULL), -EINVAL);
		assert_int_equal(pidfile_write(path, NULL), -EINVAL);
	}
}

static void a_missing_directory_is_an_error(void **state)
{
	struct errmsg em;

	(void)state;
	assert_int_equal(pidfile_write("/nonexistent/a.pid", &em), -ENOENT);
	assert_non_null(strstr(em.text, "/nonexistent/a.pid"));
}

/* A child that writes the file, says so, and waits to be killed. */
static pid_t child_with_file(void)
{
	int fd[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		c = pidfile_write(path, NULL) == 0 ? 'y' : 'n';
		if (write(fd[1], &c, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	assert_int_equal(read(fd[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	close(fd[0]);
	close(fd[1]);
	return pid;
}

static void the_descriptor_signals_and_sees_the_end(void **state)
{
	struct pollfd p = { .events = POLLIN };
	pid_t child = child_with_file();
	pid_t pid;

	(void)state;
	assert_int_equal(pidfile_write(path, NULL), -EEXIST);
	assert_int_equal(pidfile_open(path, &pid, &p.fd), 0);
	assert_int_equal(pid, child);
	assert_int_equal(pidfd_send_signal(p.fd, SIGKILL, NULL, 0), 0);
	assert_int_equal(poll(&p, 1, 10000), 1);
	/* Dead, though nobody has waited for it yet. */
	assert_int_equal(pidfile_open(path, &pid, NULL), -ESRCH);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(pidfile_open(path, &pid, NULL), -ESRCH);
	close(p.fd);
}

#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(the_writer_is_found_alive),
		IN_DIR(a_living_process_keeps_its_file),
		IN_DIR(a_pid_used_again_is_stale),
		IN_DIR(what_is_no_pid_file_is_left_alone),
		IN_DIR(a_missing_directory_is_an_error),
		IN_DIR(the_descriptor_signals_and_sees_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
