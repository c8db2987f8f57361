/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "base/size.h"

/* --- words --------------------------------------------------------------- */

#define WORD_MAX 24u /* longer ones resemble nothing */

/*
 * How many letters must be added, dropped, changed or swapped with their
 * neighbour to make `b` of `a` (the optimal string alignment distance).
 */
static size_t distance(const char *a, const char *b)
{
	size_t d[WORD_MAX + 1][WORD_MAX + 1];
	size_t m = strlen(a), n = strlen(b);

	if (m > WORD_MAX || n > WORD_MAX)
		return SIZE_MAX;
	for (size_t i = 0; i <= m; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= n; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= m; i++) {
		for (size_t j = 1; j <= n; j++) {
			size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			best = min_u64(best, d[i - 1][j] + 1);
			best = min_u64(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				best = min_u64(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[m][n];
}

const char *cli_suggest(const char *word, const struct command *v, size_t n)
{
	const char *best = NULL;
	size_t least = 3; /* three slips and more are another word */

	for (size_t i = 0; i < n; i++) {
		size_t d = distance(word, v[i].name);

		/* The beginning of a name is no slip. */
		if (strlen(word) >= 2 &&
		    strncmp(word, v[i].name, strlen(word)) == 0)
			d = 0;
		/* A word that shares no letter is not meant either. */
		if (d < least && d < strlen(v[i].name)) {
			least = d;
			best = v[i].name;
		}
	}
	return best;
}

/* --- options ------------------------------------------------------------- */

int cli_option(struct cli *cli, int argc, char **argv,
               const struct option *options)
{
	for (;;) {
		int opt =
			getopt_long(argc, argv, cli->stop_at_word ? "+h" : "h",
		                    options, NULL);

		switch (opt) {
		case CLI_OPT_RUN_DIR:
			if (optarg[0] == '\0') {
				cli->status = cli_misused(
					cli, "--run-dir: the name is empty");
				return CLI_OVER;
			}
			cli->run_dir = optarg;
			break;
		case CLI_OPT_COORDINATOR:
			cli->coordinator = optarg;
			break;
		case CLI_OPT_JSON:
			cli->json = true;
			break;
		case 'h':
			fputs(cli->usage, stdout);
			cli->status = cli_finish(cli, CLI_OK);
			return CLI_OVER;
		case '?': /* getopt_long() has said what is wrong */
			cli->status = cli_misused(cli, NULL);
			return CLI_OVER;
		default: /* the command's own, or CLI_END */
			return opt;
		}
	}
}

int cli_number(const struct cli *cli, const char *option, const char *text,
               uint64_t min, uint64_t max, uint64_t *ret)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	/* strtoull() takes blanks and signs; a number here has neither. */
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 ||
	    n < min || n > max)
		return cli_misused(cli,
		                   "%s: '%s' is not a number from %llu to %llu",
		                   option, text, (unsigned long long)min,
		                   (unsigned long long)max);
	*ret = n;
	return 0;
}

int cli_size(const struct cli *cli, const char *option, const char *text,
             uint64_t min, uint64_t max, uint64_t *ret)
{
	char low[SIZE_TEXT_BYTES], high[SIZE_TEXT_BYTES];
	struct errmsg em;
	uint64_t n;

	if (size_parse(text, &n, &em) < 0)
		return cli_misused(cli, "%s: %s", option, em.text);
	if (n < min || n > max)
		return cli_misused(cli, "%s: %s is not from %s to %s", option,
		                   text, size_text(min, low),
		                   size_text(max, high));
	*ret = n;
	return 0;
}

int cli_no_more(const struct cli *cli, int argc, char **argv)
{
	if (optind == argc)
		return 0;
	return cli_misused(cli, "unexpected argument '%s'", argv[optind]);
}

/* --- messages ------------------------------------------------------------ */

static void say(const struct cli *cli, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

static void say(const struct cli *cli, const char *fmt, va_list args)
{
	/* What is on its way to a shared terminal or log comes first. */
	fflush(stdout);
	fprintf(stderr, "memspan %s: ", cli->name);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
}

int cli_fail(const struct cli *cli, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(cli, fmt, args);
	va_end(args);
	return CLI_FAILED;
}

int cli_misused(const struct cli *cli, const char *fmt, ...)
{
	const char *end = strstr(cli->usage, "\n\n");
	va_list args;

	if (fmt) {
		va_start(args, fmt);
		say(cli, fmt, args);
		va_end(args);
	}
	/* The synopsis alone: the message should still be on the screen. */
	fprintf(stderr, "%.*s\nmore: memspan help %s\n",
	        end ? (int)(end - cli->usage) : (int)strlen(cli->usage),
	        cli->usage, cli->name);
	return CLI_USAGE;
}

int cli_print_json(const struct cli *cli, json_t *object)
{
	int r = -1;

	if (!object)
		return cli_fail(cli, "cannot make the JSON: out of memory");
	r = json_dumpf(object, stdout, CLI_JSON_FLAGS);
	json_decref(object);
	if (r < 0)
		return cli_fail(cli, "cannot print: %s", strerror(errno));
	fputc('\n', stdout);
	return cli_finish(cli, CLI_OK);
}

int cli_finish(const struct cli *cli, int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	/* A full disk under `--json >file` must not look like success. */
	return cli_fail(cli, "cannot print: %s", strerror(errno));
}

nsec_t cli_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

/* --- tables -------------------------------------------------------------- */

struct table {
	const char *align; /* borrowed: a literal */
	size_t columns;
	char **cell; /* row by row; n of them */
	size_t n, room;
	bool lost; /* memory ran out for a cell */
};

struct table *table_new(const char *align)
{
	struct table *t = calloc(1, sizeof(*t));

	if (t) {
		t->align = align;
		t->columns = strlen(align);
	}
	return t;
}

struct table *table_free(struct table *t)
{
	if (!t)
		return NULL;
	for (size_t i = 0; i < t->n; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t);
	return NULL;
}

/* Room for one more cell.  Returns whether there is. */
static bool make_room(struct table *t)
{
	size_t room = t->room ? 2 * t->room : 64;
	char **cell;

	if (t->n < t->room)
		return true;
	cell = reallocarray(t->cell, room, sizeof(*cell));
	if (!cell)
		return false;
	t->cell = cell;
	t->room = room;
	return true;
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char *text = NULL;
	va_list args;
	int r;

	if (!t || t->lost)
		return;
	va_start(args, fmt);
	r = vasprintf(&text, fmt, args);
	va_end(args);
	if (r < 0 || !make_room(t)) {
		if (r >= 0)
			free(text);
		t->lost = true;
		return;
	}
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	t->cell[t->n++] = text;
}

void table_cell_size(struct table *t, uint64_t bytes)
{
	char buf[SIZE_TEXT_BYTES];

	table_cell(t, "%s", size_text(bytes, buf));
}

static int column_width(const struct table *t, size_t column)
{
	size_t width = 0;

	for (size_t i = column; i < t->n; i += t->columns)
		width = max_u64(width, strlen(t->cell[i]));
	return (int)width;
}

int table_print(const struct table *t, unsigned indent, FILE *f)
{
	if (!t || t->lost)
		return -ENOMEM;
	for (size_t i = 0; i < t->n; i++) {
		size_t column = i % t->columns;
		bool last = column + 1 == t->columns;
		int width = column_width(t, column);

		if (column == 0)
			fprintf(f, "%*s", (int)indent, "");
		/* No blanks at the end of a line. */
		if (t->align[column] == 'r')
			fprintf(f, "%*s%s", width, t->cell[i],
			        last ? "\n" : "  ");
		else if (last)
			fprintf(f, "%s\n", t->cell[i]);
		else
			fprintf(f, "%-*s  ", width, t->cell[i]);
	}
	return 0;
}
