/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs of test/cluster share.  They are clients like any user's:
 * nothing but include/memspan.h and libc.
 *
 * Their life is steered by pytest over stdin and stdout, a line at a time, so
 * no test has to guess when something has happened.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "memspan.h"

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / 8)

/* Print to stderr and exit 3: the test's own trouble, not what it looks for. */
__attribute__((noreturn, format(printf, 1, 2))) void tool_die(const char *fmt,
                                                              ...);

/* Attach, or say why not and exit 4.  In a file of its own: tool_attach.c. */
struct memspan *tool_attach(const char *socket, const char *space);

/* Word `i` of a page in the pattern `seed`: never zero. */
uint64_t tool_word(uint64_t seed, uint64_t page, uint64_t i);

/* CLOCK_MONOTONIC. */
uint64_t tool_now_ns(void);

/* A file that several processes map: plain memory, not a space. */
void *tool_share(const char *path, size_t bytes);

/* One line to stdout, at once, whole even among threads. */
__attribute__((format(printf, 1, 2))) void tool_say(const char *fmt, ...);

/* A number of the command line, or exit 3. */
uint64_t tool_number(const char *text);

/* Wait for a line on stdin.  Returns 0, or -1 at its end. */
int tool_line(char *line, size_t bytes);

/* xorshift: enough to scatter accesses. */
uint64_t tool_random(uint64_t *state);
