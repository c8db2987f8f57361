/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: puppet [SOCKET SPACE]
 *
 * A client that does what it is told, line by line:
 *
 *	[@TAG] COMMAND ARGUMENTS ...
 *
 * and answers "TAG RESULT"; without a tag, "- RESULT".  A command with a tag
 * runs on a thread of its own and says "TAG started TID" first: so it may block
 * in a fault, and others go on.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

#define WORDS_MAX 8

static struct memspan *space;
static uint8_t *base;

struct order {
	char line[512]; /* cut into words */
	char *word[WORDS_MAX];
	char tag[32];
};

static volatile _Atomic uint64_t *page_at(uint64_t page)
{
	if (!base || (page + 1) * PAGE_BYTES > memspan_bytes(space))
		tool_die("page %" PRIu64 " is not there", page);
	return (volatile _Atomic uint64_t *)(base + page * PAGE_BYTES);
}

static uint64_t arg(const struct order *o, int i)
{
	return tool_number(o->word[i]);
}

/* --- contents ---------------------------------------------------------- */

static void do_fill(const struct order *o)
{
	uint64_t first = arg(o, 1), n = arg(o, 2), seed = arg(o, 3);

	for (uint64_t p = first; p < first + n; p++)
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			page_at(p)[i] = tool_word(seed, p, i);
	tool_say("%s ok", o->tag);
}

/* Seed 0: zeros are expected. */
static void do_check(const struct order *o)
{
	uint64_t first = arg(o, 1), n = arg(o, 2), seed = arg(o, 3);

	for (uint64_t p = first; p < first + n; p++)
		for (uint64_t i = 0; i < PAGE_WORDS; i++) {
			uint64_t want = seed ? tool_word(seed, p, i) : 0;
			uint64_t got = page_at(p)[i];

			if (got == want)
				continue;
			tool_say("%s bad page %" PRIu64 " word %" PRIu64
			         ": %#" PRIx64 " for %#" PRIx64,
			         o->tag, p, i, got, want);
			return;
		}
	tool_say("%s ok", o->tag);
}

static void do_add(const struct order *o)
{
	uint64_t n = arg(o, 2), last = 0;

	for (uint64_t i = 0; i < n; i++)
		last = atomic_fetch_add(page_at(arg(o, 1)), 1) + 1;
	tool_say("%s %" PRIu64, o->tag, last);
}

static void do_peek(const struct order *o)
{
	tool_say("%s %" PRIu64, o->tag, (uint64_t)*page_at(arg(o, 1)));
}

static void do_poke(const struct order *o)
{
	*page_at(arg(o, 1)) = arg(o, 2);
	tool_say("%s ok", o->tag);
}

/* Write each page, and change nothing: it exists, and is ours. */
static void do_touch(const struct order *o)
{
	uint64_t first = arg(o, 1), n = arg(o, 2);

	for (uint64_t p = first; p < first + n; p++)
		atomic_fetch_or(page_at(p), 0);
	tool_say("%s ok", o->tag);
}

/* --- pages that may be lost -------------------------------------------- */

static __thread sigjmp_buf out_of_bus;
static __thread volatile sig_atomic_t guarded;

static void on_bus(int sig)
{
	if (guarded)
		siglongjmp(out_of_bus, 1);
	signal(sig, SIG_DFL); /* the access is repeated and ends us */
}

/* What reading each page gives: counts as written, zeros, else, SIGBUS. */
static void do_probe(const struct order *o)
{
	uint64_t first = arg(o, 1), n = arg(o, 2), seed = arg(o, 3);
	volatile unsigned good = 0, zero = 0, other = 0, bus = 0;
	struct sigaction sa = { .sa_handler = on_bus };

	sigaction(SIGBUS, &sa, NULL);
	for (volatile uint64_t p = first; p < first + n; p++) {
		uint64_t got;

		guarded = 1;
		if (sigsetjmp(out_of_bus, 1) != 0) {
			bus++;
			continue;
		}
		got = page_at(p)[PAGE_WORDS - 1];
		if (got == tool_word(seed, p, PAGE_WORDS - 1))
			good++;
		else if (got == 0)
			zero++;
		else
			other++;
	}
	guarded = 0;
	tool_say("%s %u %u %u %u", o->tag, good, zero, other, bus);
}

/* --- through the kernel ------------------------------------------------ */

/* read(2) from a file into the space: the kernel's copy faults. */
static void do_read(const struct order *o)
{
	int fd = open(o->word[1], O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		tool_die("%s: %s", o->word[1], strerror(errno));
	n = read(fd, (void *)(uintptr_t)page_at(arg(o, 2)), (size_t)arg(o, 3));
	tool_say("%s %zd %s", o->tag, n, n < 0 ? strerrorname_np(errno) : "");
	close(fd);
}

/* write(2) from the space to a file. */
static void do_write(const struct order *o)
{
	int fd = open(o->word[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ssize_t n;

	if (fd < 0)
		tool_die("%s: %s", o->word[1], strerror(errno));
	n = write(fd, (void *)(uintptr_t)page_at(arg(o, 2)), (size_t)arg(o, 3));
	tool_say("%s %zd %s", o->tag, n, n < 0 ? strerrorname_np(errno) : "");
	close(fd);
}

/* --- the library ------------------------------------------------------- */

static void say_result(const struct order *o, int r)
{
	tool_say("%s %s", o->tag, r == 0 ? "ok" : strerrorname_np(-r));
}

static void do_discard(const struct order *o)
{
	say_result(o, memspan_discard(space, arg(o, 1) * PAGE_BYTES,
	                              arg(o, 2) * PAGE_BYTES));
}

static void do_prefetch(const struct order *o)
{
	say_result(o, memspan_prefetch(space, arg(o, 1) * PAGE_BYTES,
	                               arg(o, 2) * PAGE_BYTES));
}

static void do_attach(const struct order *o)
{
	char why[512] = "";
	int r = memspan_attach(o->word[1], o->word[2] ? o->word[2] : "", 0,
	                       &space, why, sizeof(why));

	if (r == 0)
		base = memspan_addr(space);
	tool_say("%s %s %s", o->tag, r == 0 ? "ok" : strerrorname_np(-r), why);
}

static void do_detach(const struct order *o)
{
	memspan_detach(space);
	space = NULL;
	base = NULL;
	say_result(o, 0);
}

/* Attach, add one to a page, detach; N times. */
static void do_loop(const struct order *o)
{
	uint64_t n = arg(o, 1), page = arg(o, 4);

	for (uint64_t i = 0; i < n; i++) {
		struct memspan *m = tool_attach(o->word[2], o->word[3]);
		volatile _Atomic uint64_t *at = memspan_addr(m);

		atomic_fetch_add(&at[page * PAGE_WORDS], 1);
		memspan_detach(m);
	}
	say_result(o, 0);
}

/* --- orders ------------------------------------------------------------ */

static const struct {
	const char *name;
	int words;
	void (*run)(const struct order *);
} commands[] = {
	{ "fill", 4, do_fill },       { "check", 4, do_check },
	{ "add", 3, do_add },         { "peek", 2, do_peek },
	{ "poke", 3, do_poke },       { "probe", 4, do_probe },
	{ "read", 4, do_read },       { "write", 4, do_write },
	{ "discard", 3, do_discard }, { "prefetch", 3, do_prefetch },
	{ "attach", 3, do_attach },   { "detach", 1, do_detach },
	{ "loop", 5, do_loop },       { "touch", 3, do_touch },
};

static void obey(const struct order *o)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(o->word[0], commands[i].name) == 0) {
			if (!o->word[commands[i].words - 1])
				tool_die("%s: too few words", o->word[0]);
			commands[i].run(o);
			return;
		}
	tool_die("no such command: %s", o->word[0]);
}

static void *obey_apart(void *data)
{
	struct order *o = data;

	tool_say("%s started %d", o->tag, gettid());
	obey(o);
	free(o);
	return NULL;
}

static void order_read(struct order *o)
{
	char *save = NULL, *word = strtok_r(o->line, " ", &save);
	int n = 0;

	strcpy(o->tag, "-");
	if (word && word[0] == '@') {
		snprintf(o->tag, sizeof(o->tag), "%s", word + 1);
		word = strtok_r(NULL, " ", &save);
	}
	for (; word && n < WORDS_MAX; word = strtok_r(NULL, " ", &save))
		o->word[n++] = word;
	if (n == 0)
		tool_die("an empty order");
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		space = tool_attach(argv[1], argv[2]);
		base = memspan_addr(space);
	} else if (argc != 1) {
		tool_die("usage: puppet [SOCKET SPACE]");
	}
	tool_say("- ready");
	for (;;) {
		struct order *o = calloc(1, sizeof(*o));
		pthread_t thread;

		if (!o || tool_line(o->line, sizeof(o->line)) < 0) {
			free(o);
			return 0;
		}
		order_read(o);
		if (strcmp(o->tag, "-") == 0) {
			obey(o);
			free(o);
		} else if (pthread_create(&thread, NULL, obey_apart, o) != 0) {
			tool_die("no thread");
		} else {
			pthread_detach(thread);
		}
	}
}
