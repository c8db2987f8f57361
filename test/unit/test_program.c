/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file a command is, and whether the shim can get into it.  Real programs
 * of each kind are in test/cluster/test_run.py; here are the odd ones.
 */

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cli/program.h"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/memspan-program-XXXXXX");
	return mkdtemp(dir) ? 0 : 1;
}

static int remove_dir(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command);
}

static const char *write_file(const char *name, const void *bytes, size_t n,
                              mode_t mode)
{
	static char path[128];
	AUTO_CLOSE int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	assert_int_equal(fchmod(fd, mode), 0);
	return path;
}

static const char *write_text(const char *name, const char *text)
{
	return write_file(name, text, strlen(text), 0755);
}

static void assert_checked(const char *path, int want, const char *says)
{
	struct errmsg em = { "" };
	int r = program_check(path, &em);

	if (r != want || !strstr(em.text, says))
		fail_msg("%s: %d (%s), not %d (%s)", path, r, em.text, want,
		         says);
}

/* --- which file -------------------------------------------------------- */

static void a_command_is_looked_for_in_the_path(void **state)
{
	char path[PATH_MAX], value[256], *old = strdup(getenv("PATH"));
	struct errmsg em;

	(void)state;
	snprintf(value, sizeof(value), "/nowhere:%s:/bin", dir);
	setenv("PATH", value, 1);
	assert_int_equal(program_find("sh", path, &em), 0);
	assert_string_equal(path, "/bin/sh");
	write_file("sh", "x", 1, 0644); /* may not be run: look further */
	assert_int_equal(program_find("sh", path, &em), 0);
	assert_string_equal(path, "/bin/sh");
	write_file("only", "x", 1, 0644);
	assert_int_equal(program_find("only", path, &em), -EACCES);
	assert_int_equal(program_find("nobody-has-this", path, &em), -ENOENT);
	assert_int_equal(program_find("", path, &em), -ENOENT);
	setenv("PATH", old, 1);
	free(old);
}

static void a_command_with_a_slash_is_a_path(void **state)
{
	char path[PATH_MAX], name[PATH_MAX + 8];
	struct errmsg em;

	(void)state;
	assert_int_equal(program_find("/bin/sh", path, &em), 0);
	assert_string_equal(path, "/bin/sh");
	assert_int_equal(program_find("./nobody-has-this", path, &em), -ENOENT);
	assert_int_equal(program_find("/", path, &em), -EACCES);
	memset(name, '/', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(program_find(name, path, &em), -ENOENT);
}

/* --- what kind --------------------------------------------------------- */

static void an_ordinary_program_can_be_served(void **state)
{
	(void)state;
	assert_checked("/proc/self/exe", 0, "");
	assert_checked("/bin/sh", 0, "");
}

static void scripts_are_followed_to_their_interpreter(void **state)
{
	char text[256], path[128];

	(void)state;
	assert_checked(write_text("a", "#!/bin/sh\n"), 0, "");
	assert_checked(write_text("b", "#! \t/bin/sh -e\necho\n"), 0, "");
	assert_checked(write_text("c", "#!/bin/sh"), 0, "");
	assert_checked(write_text("d", "#!/nowhere/at/all\n"), -ENOENT,
	               "/nowhere/at/all");
	snprintf(path, sizeof(path), "%s", write_text("loop", ""));
	snprintf(text, sizeof(text), "#!%s\n", path);
	assert_checked(write_text("loop", text), -ELOOP, "too many");
	memset(text, 'x', sizeof(text));
	memcpy(text, "#!/", 3);
	assert_checked(write_file("long", text, sizeof(text), 0755), -ENOENT,
	               "/xxx");
}

static void what_is_no_program_is_enoexec(void **state)
{
	(void)state;
	assert_checked(write_text("empty", ""), -ENOEXEC, "is no program");
	assert_checked(write_text("one", "#"), -ENOEXEC, "is no program");
	assert_checked(write_text("text", "echo\n"), -ENOEXEC, "is no program");
	assert_checked(write_text("short", "\177ELF"), -ENOEXEC,
	               "is no program");
}

/* A program's head, and one program header that names `loader`. */
static const char *write_elf(const char *loader, unsigned phentsize,
                             uint64_t offset)
{
	struct {
		ElfW(Ehdr) e;
		ElfW(Phdr) p;
		char text[64];
	} f = { .e = { .e_phoff = sizeof(f.e),
		       .e_phnum = 1,
		       .e_phentsize = (uint16_t)phentsize },
		.p = { .p_type = loader ? PT_INTERP : PT_LOAD,
		       .p_offset = offset } };
	AUTO_CLOSE int own = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ElfW(Ehdr) head;

	assert_int_equal(pread(own, &head, sizeof(head), 0), sizeof(head));
	memcpy(f.e.e_ident, head.e_ident, sizeof(head.e_ident));
	f.e.e_machine = head.e_machine;
	if (loader) {
		snprintf(f.text, sizeof(f.text), "%s", loader);
		f.p.p_filesz = strlen(loader) + 1;
		if (offset == 0)
			f.p.p_offset = offsetof(typeof(f), text);
	}
	return write_file("elf", &f, sizeof(f), 0755);
}

static void a_program_for_which_the_shim_is_not_made_is_enotsup(void **state)
{
	const unsigned size = sizeof(ElfW(Phdr));

	(void)state;
	assert_checked(write_elf("/lib64/ld-linux-x86-64.so.2", size, 0), 0,
	               "");
	assert_checked(write_elf(NULL, size, 0), -ENOTSUP, "statically");
	assert_checked(write_elf("/lib/ld-musl-x86_64.so.1", size, 0), -ENOTSUP,
	               "not glibc");
	assert_checked(write_elf("/lib64/ld-linux-x86-64.so.2", size, 1 << 20),
	               -ENOEXEC, "damaged");
	assert_checked(write_elf("/lib64/ld-linux-x86-64.so.2", size - 1, 0),
	               -ENOEXEC, "damaged");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command_is_looked_for_in_the_path),
		cmocka_unit_test(a_command_with_a_slash_is_a_path),
		cmocka_unit_test(an_ordinary_program_can_be_served),
		cmocka_unit_test(scripts_are_followed_to_their_interpreter),
		cmocka_unit_test(what_is_no_program_is_enoexec),
		cmocka_unit_test(
			a_program_for_which_the_shim_is_not_made_is_enotsup),
	};

	return cmocka_run_group_tests_name("program", tests, make_dir,
	                                   remove_dir);
}
