/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: stranger
 *
 * A program that knows nothing of memspan: files, mappings and libc.  It does
 * what it is told, a line at a time, and answers with a line: "ok", a value, or
 * the name of an errno.  Addresses and sizes are numbers; HOW is letters: r, w
 * access, s shared, p private, f fixed, n fixed but not over anything, P
 * populate.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tool.h"

#define WORDS_MAX 8

extern char **environ;

static char *word[WORDS_MAX];

static uint64_t arg(int i)
{
	return tool_number(word[i]);
}

static int fd_arg(int i)
{
	return (int)arg(i);
}

static void *addr_arg(int i)
{
	return (void *)(uintptr_t)arg(i);
}

/* For functions that return -1 and set errno. */
static void say_result(int r)
{
	tool_say("%s", r < 0 ? strerrorname_np(errno) : "ok");
}

static void say_number(long r)
{
	if (r < 0)
		tool_say("%s", strerrorname_np(errno));
	else
		tool_say("%ld", r);
}

static void say_address(const void *p)
{
	if (p == MAP_FAILED)
		tool_say("%s", strerrorname_np(errno));
	else
		tool_say("%" PRIuPTR, (uintptr_t)p);
}

/* --- mappings ---------------------------------------------------------- */

static int prot_of(const char *how)
{
	return (strchr(how, 'r') ? PROT_READ : 0) |
	       (strchr(how, 'w') ? PROT_WRITE : 0);
}

static int flags_of(const char *how)
{
	return (strchr(how, 's') ? MAP_SHARED : 0) |
	       (strchr(how, 'p') ? MAP_PRIVATE : 0) |
	       (strchr(how, 'f') ? MAP_FIXED : 0) |
	       (strchr(how, 'n') ? MAP_FIXED_NOREPLACE : 0) |
	       (strchr(how, 'P') ? MAP_POPULATE : 0);
}

/* map FD OFFSET BYTES HOW ADDRESS */
static void do_map(void)
{
	say_address(mmap(addr_arg(5), (size_t)arg(3), prot_of(word[4]),
	                 flags_of(word[4]), fd_arg(1), (off_t)arg(2)));
}

/* anon BYTES HOW ADDRESS */
static void do_anon(void)
{
	say_address(mmap(addr_arg(3), (size_t)arg(1), prot_of(word[2]),
	                 flags_of(word[2]) | MAP_ANONYMOUS, -1, 0));
}

static void do_unmap(void)
{
	say_result(munmap(addr_arg(1), (size_t)arg(2)));
}

/* remap ADDRESS BYTES BYTES */
static void do_remap(void)
{
	say_address(mremap(addr_arg(1), (size_t)arg(2), (size_t)arg(3),
	                   MREMAP_MAYMOVE));
}

/* over ADDRESS BYTES: a page of ours is moved there */
static void do_over(void)
{
	void *own = mmap(NULL, (size_t)arg(2), PROT_READ | PROT_WRITE,
	                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	say_address(mremap(own, (size_t)arg(2), (size_t)arg(2),
	                   MREMAP_MAYMOVE | MREMAP_FIXED, addr_arg(1)));
}

static void do_advise(void)
{
	say_result(madvise(addr_arg(1), (size_t)arg(2), (int)arg(3)));
}

static void do_protect(void)
{
	say_result(mprotect(addr_arg(1), (size_t)arg(2), prot_of(word[3])));
}

/* --- contents ---------------------------------------------------------- */

/* fill ADDRESS PAGES SEED PAGE: the first is page PAGE of its space */
static void do_fill(void)
{
	volatile uint64_t *at = addr_arg(1);

	for (uint64_t p = 0; p < arg(2); p++)
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			*at++ = tool_word(arg(3), arg(4) + p, i);
	tool_say("ok");
}

/* Seed 0: zeros are expected. */
static void do_check(void)
{
	const volatile uint64_t *at = addr_arg(1);
	uint64_t seed = arg(3);

	for (uint64_t p = 0; p < arg(2); p++)
		for (uint64_t i = 0; i < PAGE_WORDS; i++) {
			uint64_t want =
				seed ? tool_word(seed, arg(4) + p, i) : 0;
			uint64_t got = *at++;

			if (got == want)
				continue;
			tool_say("bad page %" PRIu64 " word %" PRIu64
			         ": %#" PRIx64,
			         p, i, got);
			return;
		}
	tool_say("ok");
}

/* peek ADDRESS: the first word there */
static void do_peek(void)
{
	tool_say("%" PRIu64, *(const volatile uint64_t *)addr_arg(1));
}

static sigjmp_buf out_of_access;

static void on_signal(int sig)
{
	siglongjmp(out_of_access, sig);
}

/* touch ADDRESS: what reading a byte there does */
static void do_touch(void)
{
	struct sigaction old[2], sa = { .sa_handler = on_signal };
	const volatile uint8_t *at = addr_arg(1);
	int sig;

	sigaction(SIGSEGV, &sa, &old[0]);
	sigaction(SIGBUS, &sa, &old[1]);
	sig = sigsetjmp(out_of_access, 1);
	if (sig == 0)
		(void)*at;
	sigaction(SIGSEGV, &old[0], NULL);
	sigaction(SIGBUS, &old[1], NULL);
	tool_say("%s", sig == 0 ? "ok" : sigabbrev_np(sig));
}

/* --- files ------------------------------------------------------------- */

static void do_open(void)
{
	say_number(open(word[1], strcmp(word[2], "r") == 0 ? O_RDONLY :
	                         strcmp(word[2], "w") == 0 ? O_WRONLY :
	                                                     O_RDWR));
}

static void do_close_all(void)
{
	say_result(close_range(3, ~0u, 0));
}

static void do_read(void)
{
	char buf[64];

	say_number(read(fd_arg(1), buf, sizeof(buf)));
}

static void do_pread(void)
{
	char buf[64];

	say_number(pread(fd_arg(1), buf, sizeof(buf), 0));
}

static void do_readv(void)
{
	char buf[64];
	const struct iovec v = { buf, sizeof(buf) };

	say_number(preadv2(fd_arg(1), &v, 1, 0, 0));
}

static void do_write(void)
{
	say_number(write(fd_arg(1), "x", 1));
}

static void do_sendfile(void)
{
	say_number(sendfile(STDOUT_FILENO, fd_arg(1), NULL, 1));
}

static void do_stdio(void)
{
	FILE *f = fopen(word[1], "r");

	say_result(f ? 0 : -1);
	if (f)
		(void)fclose(f);
}

static void do_punch(void)
{
	say_result(fallocate(fd_arg(1),
	                     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                     (off_t)arg(2), (off_t)arg(3)));
}

static void do_allocate(void)
{
	int e = posix_fallocate(fd_arg(1), 0, (off_t)arg(2));

	tool_say("%s", e ? strerrorname_np(e) : "ok");
}

/* As QEMU makes the memory of a guest: name, size, seals. */
static void do_memfd(void)
{
	int fd = memfd_create(word[1], MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)arg(2)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) <
	            0)
		fd = -1;
	say_number(fd);
}

static void do_size(void)
{
	say_result(ftruncate(fd_arg(1), (off_t)arg(2)));
}

/* --- processes --------------------------------------------------------- */

static void do_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	say_result(pid < 0 ? -1 : waitpid(pid, NULL, 0));
}

static void do_spawn(void)
{
	char name[] = "/bin/true";
	char *argv[] = { name, NULL };
	int status = -1;
	pid_t pid;

	if (posix_spawn(&pid, name, NULL, NULL, argv, environ) == 0)
		(void)waitpid(pid, &status, 0);
	tool_say("%d %d", status, system("exit 7") >> 8);
}

/* --- many at once ------------------------------------------------------ */

struct stormer {
	pthread_t thread;
	int fd;
	uint64_t rounds, first, pages; /* its own part of the space */
	unsigned errors;
};

/* Map a part, see what the round before left there, write, unmap; again. */
static void *storm(void *arg)
{
	struct stormer *s = arg;
	size_t bytes = (size_t)s->pages * PAGE_BYTES;

	for (uint64_t r = 0; r < s->rounds; r++) {
		volatile uint64_t *at =
			mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		             s->fd, (off_t)(s->first * PAGE_BYTES));

		if (at == MAP_FAILED)
			tool_die("mmap: %s", strerror(errno));
		for (uint64_t p = 0; p < s->pages; p++) {
			s->errors += at[p * PAGE_WORDS] != r;
			at[p * PAGE_WORDS] = r + 1;
		}
		/* Half of it first: the rest is still there. */
		munmap((void *)(uintptr_t)at, bytes / 2);
		s->errors += at[(s->pages - 1) * PAGE_WORDS] != r + 1;
		munmap((void *)(uintptr_t)at, bytes);
	}
	return NULL;
}

/* storm FD THREADS ROUNDS PAGES: of pages that are zeros */
static void do_storm(void)
{
	struct stormer s[16];
	uint64_t n = arg(2);
	unsigned errors = 0;

	if (n > sizeof(s) / sizeof(s[0]))
		tool_die("too many threads");
	for (uint64_t i = 0; i < n; i++) {
		s[i] = (struct stormer){ .fd = fd_arg(1),
			                 .rounds = arg(3),
			                 .first = i * arg(4),
			                 .pages = arg(4) };
		if (pthread_create(&s[i].thread, NULL, storm, &s[i]) != 0)
			tool_die("no thread");
	}
	for (uint64_t i = 0; i < n; i++) {
		pthread_join(s[i].thread, NULL);
		errors += s[i].errors;
	}
	tool_say("%u", errors);
}

/* --- orders ------------------------------------------------------------ */

static const struct {
	const char *name;
	int words;
	void (*run)(void);
} commands[] = {
	{ "map", 6, do_map },           { "anon", 4, do_anon },
	{ "unmap", 3, do_unmap },       { "remap", 4, do_remap },
	{ "over", 3, do_over },         { "advise", 4, do_advise },
	{ "protect", 4, do_protect },   { "fill", 5, do_fill },
	{ "check", 5, do_check },       { "touch", 2, do_touch },
	{ "open", 3, do_open },         { "close-all", 1, do_close_all },
	{ "read", 2, do_read },         { "pread", 2, do_pread },
	{ "readv", 2, do_readv },       { "write", 2, do_write },
	{ "sendfile", 2, do_sendfile }, { "stdio", 2, do_stdio },
	{ "punch", 4, do_punch },       { "allocate", 3, do_allocate },
	{ "memfd", 3, do_memfd },       { "size", 3, do_size },
	{ "peek", 2, do_peek },         { "storm", 5, do_storm },
	{ "fork", 1, do_fork },         { "spawn", 1, do_spawn },
};

static void obey(void)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(word[0], commands[i].name) == 0) {
			if (!word[commands[i].words - 1])
				tool_die("%s: too few words", word[0]);
			commands[i].run();
			return;
		}
	tool_die("no such command: %s", word[0]);
}

int main(void)
{
	char line[512];

	tool_say("ready");
	while (tool_line(line, sizeof(line)) == 0) {
		char *save = NULL, *w = strtok_r(line, " ", &save);

		memset(word, 0, sizeof(word));
		for (int n = 0; w && n < WORDS_MAX;
		     w = strtok_r(NULL, " ", &save))
			word[n++] = w;
		if (!word[0])
			tool_die("an empty order");
		obey();
	}
	return 0;
}
