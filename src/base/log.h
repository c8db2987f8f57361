/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines for operators, on stderr.
 *
 *	log_info("joined the cluster", "node=%u epoch=%u", id, epoch);
 *	log_warn("no room for more clients");
 *
 * A sentence, then pairs.  As text:
 *
 *	2026-01-31T09:30:00.123456Z info node: joined the cluster node=2 epoch=7
 *
 * As JSON, one object a line, where pairs become members, numbers if they were
 * formatted as integers:
 *
 *	{"ts":"2026-01-31T09:30:00.123456Z","level":"info","component":"node",
 *	 "msg":"joined the cluster","node":2,"epoch":7}
 *
 * What it promises
 *
 *   one line   Each line is one write(2) of at most LOG_LINE_MAX bytes, so that
 *              lines of several threads and processes never mix.  What is
 *              longer is cut, and still parses.
 *   any bytes  Values may hold anything: it is quoted, escaped, made UTF-8.
 *
 * What it expects
 *
 *   programs   log, in the place that decides; libraries do not (debug
 *              excepted), and nothing on the way of a page does: write(2) may
 *              block.
 *   log_init() is called before there is a second thread.  The rest: any.
 */
#pragma once

#include "base/base.h"

#define LOG_LINE_MAX 4096u /* PIPE_BUF: what a pipe takes in one piece */

enum log_level {
	LOG_LEVEL_ERR,   /* something has ended or will not be done */
	LOG_LEVEL_WARN,  /* it goes on, but somebody should know */
	LOG_LEVEL_INFO,  /* rare: start, stop, members come and go */
	LOG_LEVEL_DEBUG, /* not shown unless log_set_level() says so */
};

/* `component` ("node", "coordinator") is borrowed for the program's life. */
void log_init(const char *component, bool json);

/* Show lines up to `level`; LOG_LEVEL_INFO until called. */
void log_set_level(enum log_level level);

#define log_err(sentence, ...)  log_line_(LOG_LEVEL_ERR, sentence, __VA_ARGS__)
#define log_warn(sentence, ...) log_line_(LOG_LEVEL_WARN, sentence, __VA_ARGS__)
#define log_info(sentence, ...) log_line_(LOG_LEVEL_INFO, sentence, __VA_ARGS__)
#define log_debug(sentence, ...) \
	log_line_(LOG_LEVEL_DEBUG, sentence, __VA_ARGS__)

/* The blank makes a format of "no pairs" too, and keeps the compiler's check. */
#define log_line_(level, sentence, ...) \
	log_line(level, sentence, " " __VA_ARGS__)

/*
 * What the macros above call.  `fmt` is printf's: pairs "key=%conversion" with
 * one conversion each, divided by one blank; a key is of [a-z0-9_].
 */
void log_line(enum log_level level, const char *sentence, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

/*
 * Write such a line into `buf`, with the newline.  Returns its length, at most
 * bytes - 1.  For tests, and for those whose log is not stderr.
 */
size_t log_format(char *buf, size_t bytes, enum log_level level, nsec_t when,
                  const char *sentence, const char *fmt, ...) PRINTF_LIKE(6, 7);
