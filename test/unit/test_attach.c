/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching, and every way for it to fail: the code, a sentence that says what
 * to do, and nothing left behind.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "victim.h" /* includes cmocka.h, which wants much before it */

#include "client/client.h"
#include "fake_node.h"

#define PAGES  64u
#define NOBODY 65534

static struct fake_node node;

static int stop_node(void **state)
{
	(void)state;
	fake_stop(&node);
	return 0;
}

static void start_node(enum fake_oddity oddity)
{
	const struct fake_options opt = { .bytes = PAGES * PAGE_BYTES,
		                          .oddity = oddity };

	fake_start(&node, &opt);
}

static void start_sized(uint64_t bytes)
{
	const struct fake_options opt = { .bytes = bytes };

	fake_start(&node, &opt);
}

/* --- ways to fail ------------------------------------------------------ */

static void assert_refused(const char *path, const char *space, int error,
                           const char *says)
{
	struct memspan *untouched = (struct memspan *)&node, *m = untouched;
	unsigned fds = count_dir("/proc/self/fd");
	unsigned threads = count_dir("/proc/self/task");
	const struct client_options opt = {
		.node_socket = path,
		.space = space,
		.timeout_ns = 200 * NSEC_PER_MSEC,
	};
	struct errmsg em = { "" };
	int r;

	r = client_attach(&opt, &m, &em);
	if (r != error || !strstr(em.text, says))
		fail_msg("got %d (%s) instead of %d (%s)", r, em.text, error,
		         says);
	assert_ptr_equal(m, untouched);
	assert_int_equal(count_dir("/proc/self/fd"), fds);
	assert_true(dir_comes_to("/proc/self/task", threads));
}

static void wrong_arguments_are_einval(void **state)
{
	struct memspan *m = NULL;
	char why[300] = "", name[LOCAL_NAME_BYTES + 1], tiny[8] = "";
	char path[200];

	(void)state;
	start_node(FAKE_SANE);
	memset(name, 'n', LOCAL_NAME_BYTES);
	name[LOCAL_NAME_BYTES] = '\0';
	memset(path, '/', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(memspan_attach(node.path, FAKE_SPACE, 1, &m, why,
	                                sizeof(why)),
	                 -EINVAL);
	assert_non_null(strstr(why, "flags"));
	assert_int_equal(memspan_attach(node.path, FAKE_SPACE, 0, NULL, why,
	                                sizeof(why)),
	                 -EINVAL);
	assert_int_equal(memspan_attach(node.path, "", 0, &m, tiny,
	                                sizeof(tiny)),
	                 -EINVAL);
	assert_string_equal(tiny, "the spa"); /* cut, and ended */
	assert_int_equal(memspan_attach(node.path, NULL, 0, &m, NULL, 0),
	                 -EINVAL);
	assert_refused(node.path, name, -EINVAL, "at most 63 bytes");
	assert_refused(path, FAKE_SPACE, -EINVAL, "longer than 107 bytes");
	assert_null(m);
}

static void an_unknown_space_is_enoent_in_the_nodes_words(void **state)
{
	(void)state;
	start_node(FAKE_SANE);
	assert_refused(node.path, "other", -ENOENT, "memspan space list");
}

static void no_node_is_econnrefused(void **state)
{
	char missing[128];
	int fd;

	(void)state;
	start_node(FAKE_SANE);
	snprintf(missing, sizeof(missing), "%s.not", node.path);
	assert_refused(missing, FAKE_SPACE, -ECONNREFUSED, "No such file");
	assert_refused("/dev/null/x", FAKE_SPACE, -ECONNREFUSED, "/dev/null/x");
	fd = open(missing, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_refused(missing, FAKE_SPACE, -ECONNREFUSED, "status");
	unlink(missing);
	fake_kill(&node); /* its socket file is still there */
	assert_refused(node.path, FAKE_SPACE, -ECONNREFUSED, "refused");
}

static void a_node_that_hangs_up_is_econnrefused(void **state)
{
	(void)state;
	start_node(FAKE_HANG_UP);
	assert_refused(node.path, FAKE_SPACE, -ECONNREFUSED, "see its log");
}

static void a_silent_node_is_etimedout(void **state)
{
	(void)state;
	start_node(FAKE_MUTE_ATTACH);
	assert_refused(node.path, FAKE_SPACE, -ETIMEDOUT, "ATTACH");
	fake_stop(&node);
	start_node(FAKE_MUTE_MAPPED);
	assert_refused(node.path, FAKE_SPACE, -ETIMEDOUT, "MAPPED");
}

static void a_stopped_node_with_a_full_backlog_is_etimedout(void **state)
{
	int fd[64], n = 0;

	(void)state;
	start_node(FAKE_SANE);
	kill(node.pid, SIGSTOP);
	waitpid(node.pid, NULL, WUNTRACED);
	do
		fd[n] = talk_connect(node.path, 1, NULL);
	while (fd[n] >= 0 && ++n < (int)ARRAY_SIZE(fd));
	assert_int_equal(fd[n], -ETIMEDOUT);
	assert_refused(node.path, FAKE_SPACE, -ETIMEDOUT, "no connection");
	while (n > 0)
		close(fd[--n]);
	fake_kill(&node);
}

static void a_node_of_another_version_is_eprotonosupport(void **state)
{
	static const enum fake_oddity odd[] = {
		FAKE_OLD_VERSION, FAKE_SHORT_PACKET, FAKE_NO_NOTES,
		FAKE_ODD_SIZE,    FAKE_MANY_STRIPES,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		start_node(odd[i]);
		assert_refused(node.path, FAKE_SPACE, -EPROTONOSUPPORT,
		               "same version");
		fake_stop(&node);
	}
}

static void what_else_the_node_refuses_with_is_passed_on(void **state)
{
	(void)state;
	start_node(FAKE_REFUSE_MAPPED);
	assert_refused(node.path, FAKE_SPACE, -EBUSY, "not today");
}

/* One more each time, until it works: each call that can fail has failed. */
static const char *with_few_descriptors(struct scene *s)
{
	unsigned fds = count_dir("/proc/self/fd");

	for (rlim_t n = 4; n < 64; n++) {
		struct rlimit few = { n, 64 };
		struct memspan *m = NULL;
		char why[300] = "";
		int r;

		setrlimit(RLIMIT_NOFILE, &few);
		r = memspan_attach(node.path, FAKE_SPACE, 0, &m, why,
		                   sizeof(why));
		if (r == 0) {
			memspan_detach(m);
			return s->step > 16 ? NULL : "it hardly ever failed";
		}
		if (r != -EMFILE || !strstr(why, "ulimit -n"))
			return "another error than -EMFILE";
		few.rlim_cur = 64; /* to look into the folder */
		setrlimit(RLIMIT_NOFILE, &few);
		if (count_dir("/proc/self/fd") != fds)
			return "a descriptor leaked";
		s->step++;
	}
	return "it never worked";
}

static void too_few_descriptors_are_emfile(void **state)
{
	(void)state;
	start_sized(64ull << 20); /* 16 stripes */
	victim_runs(with_few_descriptors, &node);
}

static const char *with_little_memory(struct scene *s)
{
	FILE *statm = fopen("/proc/self/statm", "r");
	struct rlimit little = { 0, RLIM_INFINITY };
	struct memspan *m = NULL;
	char why[300] = "";
	unsigned long long pages = 0;

	(void)s;
	if (!statm || fscanf(statm, "%llu", &pages) != 1)
		return "no /proc/self/statm";
	fclose(statm);
	little.rlim_cur = pages * PAGE_BYTES + (1u << 30);
	setrlimit(RLIMIT_AS, &little);
	if (memspan_attach(node.path, FAKE_SPACE, 0, &m, why, sizeof(why)) !=
	            -ENOMEM ||
	    !strstr(why, "ulimit -v"))
		return "no -ENOMEM";
	return NULL;
}

static void no_room_for_the_mapping_is_enomem(void **state)
{
	(void)state;
	start_sized(2ull << 30);
	victim_runs(with_little_memory, &node);
}

static bool become_nobody(void)
{
	return setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 &&
	       setuid(NOBODY) == 0;
}

static const char *as_nobody(struct scene *s)
{
	struct memspan *m = NULL;
	char why[300] = "";
	int r;

	(void)s;
	chmod(node.dir, 0755);
	chmod(node.path, 0600);
	if (!become_nobody())
		return NULL; /* an ordinary user runs the tests */
	r = memspan_attach(node.path, FAKE_SPACE, 0, &m, why, sizeof(why));
	if (r != -EACCES || !strstr(why, "socket"))
		return "a socket of others was opened";
	return NULL;
}

static void a_socket_of_others_is_eacces(void **state)
{
	(void)state;
	start_node(FAKE_SANE);
	victim_runs(as_nobody, &node);
}

/* Make one system call fail, as a container's filter or an old kernel does. */
static bool forbid(long nr, uint32_t error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
		         offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog prog = { .len = ARRAY_SIZE(code),
		                         .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static const char *expect_without(long nr, uint32_t error, int want,
                                  const char *says)
{
	struct memspan *m = NULL;
	char why[300] = "";
	int r;

	if (!forbid(nr, error))
		return "no seccomp";
	r = memspan_attach(node.path, FAKE_SPACE, 0, &m, why, sizeof(why));
	if (r == 0 && access("/dev/userfaultfd", R_OK | W_OK) == 0)
		return NULL; /* the device was open to nobody: fine too */
	return r == want && strstr(why, says) ? NULL : "another error";
}

static const char *without_privilege(struct scene *s)
{
	(void)s;
	chmod(node.dir, 0755);
	chmod(node.path, 0666);
	if (geteuid() == 0 && !become_nobody())
		return "cannot become nobody";
	return expect_without(SYS_userfaultfd, EPERM, -EACCES,
	                      "vm.unprivileged_userfaultfd");
}

static const char *without_userfaultfd(struct scene *s)
{
	(void)s;
	chmod(node.dir, 0755);
	chmod(node.path, 0666);
	if (geteuid() == 0 && !become_nobody())
		return "cannot become nobody";
	return expect_without(SYS_userfaultfd, ENOSYS, -ENOSYS, "Linux 6.1");
}

static const char *without_close_range(struct scene *s)
{
	(void)s;
	return expect_without(SYS_close_range, EPERM, -ENOSYS, "seccomp");
}

static void no_right_to_a_userfaultfd_is_eacces_with_the_remedy(void **state)
{
	(void)state;
	start_node(FAKE_SANE);
	victim_runs(without_privilege, &node);
}

static void a_kernel_that_lacks_something_is_enosys(void **state)
{
	(void)state;
	start_node(FAKE_SANE);
	victim_runs(without_userfaultfd, &node);
	if (access("/dev/userfaultfd", R_OK | W_OK) != 0)
		victim_runs(without_close_range, &node);
}

/* --- which node -------------------------------------------------------- */

static const char *choosing(struct scene *s)
{
	char dir[128], other[160], path[160], why[512] = "";
	struct memspan *m = NULL;
	int fd;

	(void)s;
	setenv("MEMSPAN_NODE", node.path, 1);
	if (memspan_attach(NULL, FAKE_SPACE, 0, &m, why, sizeof(why)) != 0)
		return "MEMSPAN_NODE was not used";
	memspan_detach(m);
	unsetenv("MEMSPAN_NODE");
	/* root's directory is nobody's business: the rest is for others. */
	chmod(node.dir, 0777);
	if (geteuid() == 0 && !become_nobody())
		return "cannot become nobody";
	unsetenv("XDG_RUNTIME_DIR");
	if (memspan_attach(NULL, FAKE_SPACE, 0, &m, why, sizeof(why)) !=
	            -ECONNREFUSED ||
	    !strstr(why, "XDG_RUNTIME_DIR"))
		return "no directory, another answer";
	setenv("XDG_RUNTIME_DIR", node.dir, 1);
	if (memspan_attach(NULL, FAKE_SPACE, 0, &m, why, sizeof(why)) !=
	            -ECONNREFUSED ||
	    !strstr(why, "memspan up"))
		return "nothing there, another answer";
	snprintf(dir, sizeof(dir), "%s/memspan", node.dir);
	snprintf(other, sizeof(other), "%s/node-12.sock", dir);
	if (mkdir(dir, 0755) < 0)
		return "mkdir";
	fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	if (talk_default_socket(path, sizeof(path), NULL) != 0 ||
	    strcmp(path, other) != 0)
		return "the only one was not found";
	snprintf(path, sizeof(path), "%s/node-2.sock", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	if (memspan_attach(NULL, FAKE_SPACE, 0, &m, why, sizeof(why)) !=
	            -EINVAL ||
	    !strstr(why, "node-2.sock, node-12.sock") ||
	    !strstr(why, "MEMSPAN_NODE="))
		return "several, and they are not listed";
	unlink(path);
	unlink(other);
	rmdir(dir);
	return NULL;
}

static void without_a_path_the_only_socket_is_taken(void **state)
{
	(void)state;
	start_node(FAKE_SANE);
	victim_runs(choosing, &node);
}

#define TEST(f) cmocka_unit_test_teardown(f, stop_node)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(wrong_arguments_are_einval),
		TEST(an_unknown_space_is_enoent_in_the_nodes_words),
		TEST(no_node_is_econnrefused),
		TEST(a_node_that_hangs_up_is_econnrefused),
		TEST(a_silent_node_is_etimedout),
		TEST(a_stopped_node_with_a_full_backlog_is_etimedout),
		TEST(a_node_of_another_version_is_eprotonosupport),
		TEST(what_else_the_node_refuses_with_is_passed_on),
		TEST(too_few_descriptors_are_emfile),
		TEST(no_room_for_the_mapping_is_enomem),
		TEST(a_socket_of_others_is_eacces),
		TEST(no_right_to_a_userfaultfd_is_eacces_with_the_remedy),
		TEST(a_kernel_that_lacks_something_is_enosys),
		TEST(without_a_path_the_only_socket_is_taken),
	};

	start_first_thread();
	return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
