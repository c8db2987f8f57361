/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define SCRIPTS_MAX 5u /* interpreters of interpreters, as Linux has it */
#define HEADERS_MAX 64u
#define FIRST_LINE  256u

/* The head of the program that runs here, by the linker. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

/* --- which file ---------------------------------------------------------- */

/* May it be run?  0, -ENOENT, or -EACCES. */
static int runnable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno == EACCES ? -EACCES : -ENOENT;
	return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : -EACCES;
}

/* Look through $PATH.  Returns as program_find(). */
static int find_in_path(const char *command, char path[PATH_MAX])
{
	const char *at = getenv("PATH");
	int r = -ENOENT;

	if (!at)
		at = "/usr/local/bin:/usr/bin:/bin";
	for (;;) {
		size_t n = strcspn(at, ":");
		int k = snprintf(path, PATH_MAX, "%.*s%s%s", (int)n, at,
		                 n > 0 ? "/" : "", command);
		int one = k > 0 && k < PATH_MAX ? runnable(path) : -ENOENT;

		if (one == 0)
			return 0;
		if (one == -EACCES)
			r = one;
		if (at[n] == '\0')
			return r;
		at += n + 1;
	}
}

int program_find(const char *command, char path[PATH_MAX], struct errmsg *em)
{
	int r;

	if (strlen(command) >= PATH_MAX)
		return errmsg_say(em, -ENOENT, "its name is too long");
	if (command[0] == '\0') {
		r = -ENOENT;
	} else if (strchr(command, '/')) {
		strcpy(path, command);
		r = runnable(path);
	} else {
		r = find_in_path(command, path);
	}
	if (r == -ENOENT)
		return errmsg_say(em, r, "there is no such program");
	if (r < 0)
		return errmsg_say(em, r, "it may not be executed");
	return 0;
}

/* --- what kind ----------------------------------------------------------- */

static int refuse(struct errmsg *em, const char *path, const char *what)
{
	return errmsg_say(
		em, -ENOTSUP,
		"%s %s: the library that serves the memory of spaces "
		"cannot be loaded into it, and without it the program "
		"would find zeros",
		path, what);
}

/*
 * The path behind "#!".  True if it is a script; then `line` is that path.
 */
static bool is_script(char line[FIRST_LINE], size_t n)
{
	char *at = line + 2;
	size_t len;

	if (n < 2 || line[0] != '#' || line[1] != '!')
		return false;
	line[min_u64(n, FIRST_LINE - 1)] = '\0';
	at += strspn(at, " \t");
	len = strcspn(at, " \t\n");
	memmove(line, at, len);
	line[len] = '\0';
	return true;
}

/* The loader that the program names; "" if it names none. */
static int read_loader(int fd, const ElfW(Ehdr) * e, char loader[PATH_MAX])
{
	ElfW(Phdr) h[HEADERS_MAX];
	size_t n = min_u64(e->e_phnum, HEADERS_MAX);

	loader[0] = '\0';
	if (e->e_phentsize != sizeof(h[0]) ||
	    pread(fd, h, n * sizeof(h[0]), (off_t)e->e_phoff) !=
	            (ssize_t)(n * sizeof(h[0])))
		return -ENOEXEC;
	for (size_t i = 0; i < n; i++) {
		size_t bytes = h[i].p_filesz;

		if (h[i].p_type != PT_INTERP)
			continue;
		if (bytes < 2 || bytes > PATH_MAX ||
		    pread(fd, loader, bytes, (off_t)h[i].p_offset) !=
		            (ssize_t)bytes)
			return -ENOEXEC;
		loader[bytes - 1] = '\0';
	}
	return 0;
}

static int check_elf(int fd, const char *path, const ElfW(Ehdr) * e,
                     struct errmsg *em)
{
	char loader[PATH_MAX];
	const char *name;
	struct stat st;
	int r;

	if (e->e_ident[EI_CLASS] != __ehdr_start.e_ident[EI_CLASS] ||
	    e->e_machine != __ehdr_start.e_machine)
		return refuse(em, path, "is for another kind of machine");
	r = read_loader(fd, e, loader);
	if (r < 0)
		return errmsg_say(em, r, "%s is damaged", path);
	if (loader[0] == '\0')
		return refuse(em, path, "is linked statically");
	name = strrchr(loader, '/');
	if (strncmp(name ? name + 1 : loader, "ld-linux", 8) != 0)
		return refuse(em, path, "uses a C library that is not glibc");
	if (fstat(fd, &st) < 0)
		return errmsg_set(em, -errno, "%s", path);
	if (st.st_mode & (S_ISUID | S_ISGID))
		return refuse(em, path, "has a setuid or setgid bit");
	if (fgetxattr(fd, "security.capability", NULL, 0) > 0)
		return refuse(em, path, "has file capabilities");
	return 0;
}

int program_check(const char *path, struct errmsg *em)
{
	char file[PATH_MAX], line[FIRST_LINE];
	ElfW(Ehdr) e;

	snprintf(file, sizeof(file), "%s", path);
	for (unsigned i = 0; i < SCRIPTS_MAX; i++) {
		AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : pread(fd, line, sizeof(line), 0);

		if (n < 0)
			return errmsg_set(em, -errno,
			                  "cannot look whether %s can be "
			                  "served",
			                  file);
		if (is_script(line, (size_t)n)) {
			snprintf(file, sizeof(file), "%s", line);
			continue;
		}
		if ((size_t)n < sizeof(e) || memcmp(line, ELFMAG, SELFMAG) != 0)
			return errmsg_say(em, -ENOEXEC, "%s is no program",
			                  file);
		memcpy(&e, line, sizeof(e));
		return check_elf(fd, file, &e, em);
	}
	return errmsg_say(em, -ELOOP, "%s: too many interpreters", path);
}
