/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all commands of `memspan` have in common: options, messages, exit
 * statuses, tables.
 *
 * A command parses, asks, prints, and returns its exit status; it never calls
 * exit().  What is wrong goes to stderr as
 *
 *	memspan COMMAND: what: why; what to do
 *
 * and data to stdout: as text for eyes, or with --json as one object whose
 * "schema" is "memspan.COMMAND/1" and whose fields are only ever added to.
 *
 * One thread; nothing here is called from another.
 */
#pragma once

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>

#include "base/base.h"

enum {
	CLI_OK = 0,
	CLI_FAILED = 1, /* tried, and it did not work, or something is wrong */
	CLI_USAGE = 2,  /* used wrongly; nothing was tried */
};

/* One word of the command line: `memspan NAME ...`. */
struct command {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0]: "memspan NAME" */
	const char *help;                  /* one line */
};

int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_validate(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_space(int argc, char **argv);
int cmd_map(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_vm(int argc, char **argv);

/*
 * The command whose name `word` most probably was meant to be, or NULL if it
 * resembles none.  `n` commands at `v`.
 */
const char *cli_suggest(const char *word, const struct command *v, size_t n);

/* --- options ------------------------------------------------------------- */

enum {
	/* Above every character: those are the commands' own. */
	CLI_OPT_RUN_DIR = 1000,
	CLI_OPT_COORDINATOR,
	CLI_OPT_JSON,
};

/* clang-format off */
/* Every command's table of options ends with these, then { 0 }. */
#define CLI_OPTIONS                                                      \
	{ "run-dir", required_argument, NULL, CLI_OPT_RUN_DIR },         \
	{ "coordinator", required_argument, NULL, CLI_OPT_COORDINATOR }, \
	{ "help", no_argument, NULL, 'h' }
/* ... and, where it prints data, this. */
#define CLI_OPTION_JSON { "json", no_argument, NULL, CLI_OPT_JSON }
/* clang-format on */

struct cli {
	/* Set by the command. */
	const char *name;  /* of the command, "status" */
	const char *usage; /* its help; the first paragraph is the synopsis */
	bool stop_at_word; /* what follows the first argument is no option of
	                      ours: it is the command line of another program */
	/* Set by cli_option(). */
	const char *run_dir;     /* --run-dir, or NULL */
	const char *coordinator; /* --coordinator, or NULL */
	bool json;               /* --json */
	int status;              /* to return, after CLI_OVER */
};

enum {
	CLI_END = -1,  /* no more options; arguments are at argv[optind] */
	CLI_OVER = -2, /* help was shown, or an error: return cli->status */
};

/*
 * The next option that is the command's own (its `val`, with optarg), after
 * having dealt with those of CLI_OPTIONS; or CLI_END; or CLI_OVER.
 */
int cli_option(struct cli *cli, int argc, char **argv,
               const struct option *options);

/*
 * Read an option's value as a whole number from min to max.  Returns 0, or
 * CLI_USAGE with the message printed.
 */
int cli_number(const struct cli *cli, const char *option, const char *text,
               uint64_t min, uint64_t max, uint64_t *ret);

/* As cli_number(), for a SIZE. */
int cli_size(const struct cli *cli, const char *option, const char *text,
             uint64_t min, uint64_t max, uint64_t *ret);

/* Say that no arguments are left over.  Returns 0, or CLI_USAGE. */
int cli_no_more(const struct cli *cli, int argc, char **argv);

/* --- messages ------------------------------------------------------------ */

/* Print "memspan COMMAND: ..." to stderr.  Returns CLI_FAILED. */
int cli_fail(const struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* As cli_fail(), and the synopsis after it.  Returns CLI_USAGE. */
int cli_misused(const struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);

/*
 * Print one object to stdout, for --json, and drop the reference to it.  NULL
 * (memory ran out while it was made) is a failure, as is a closed stdout.
 * Returns CLI_OK or CLI_FAILED.
 */
int cli_print_json(const struct cli *cli, json_t *object);

/* Flush stdout.  Returns `status`; CLI_FAILED if what was printed is lost. */
int cli_finish(const struct cli *cli, int status);

/* CLOCK_MONOTONIC. */
nsec_t cli_now(void);

/* How: 15 digits of a real, so that 0.1 is not 0.10000000000000001. */
#define CLI_JSON_FLAGS (JSON_INDENT(2) | JSON_REAL_PRECISION(15))

/* --- tables -------------------------------------------------------------- */

/*
 * Columns as wide as their widest cell, two blanks between them.  `align` has
 * one letter for each column: 'l' or 'r'.  Cells are added row by row; control
 * characters in them become '?', for names come from other machines.
 */
struct table;

struct table *table_new(const char *align); /* NULL: no memory */
struct table *table_free(struct table *t);  /* takes NULL; returns NULL */
DEFINE_AUTO(struct table, table_free)
/* `t` may be NULL: then nothing is kept, and table_print() says so. */
void table_cell(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A cell with a SIZE for people. */
void table_cell_size(struct table *t, uint64_t bytes);
/*
 * Print all rows, each behind `indent` blanks.  Returns 0, or -ENOMEM if a
 * cell was lost; then nothing was printed.
 */
int table_print(const struct table *t, unsigned indent, FILE *f);
