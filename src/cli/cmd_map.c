/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan map - who is home of a space's extents, and who holds pages of them.
 * Manual: memspan-map(1).
 *
 * The coordinator knows the homes and asks the home nodes for the rest, so the
 * answer comes in pieces; for eyes, neighbours that differ in nothing but
 * their pages are folded into one line.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/http.h"
#include "cli/space.h"

static const char usage_text[] =
	"usage: memspan map NAME [--json] [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Show, by extent of 2 MiB, which node is home of the pages of space NAME\n"
	"and which nodes hold some of them.\n"
	"\n"
	"      --json             one JSON object, for programs: every extent by\n"
	"                         itself; its fields are stable\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one\n"
	"  -h, --help             show this text\n";

static const struct option options[] = { CLI_OPTION_JSON, CLI_OPTIONS, { 0 } };

/* One question's worth: 1,024 extents are 2 GiB. */
#define EXTENTS_ASKED 1024u

/* A space has at most 2^40 bytes times 16; see SPACE_BYTES_MAX. */
#define QUESTIONS_MAX (SPACE_BYTES_MAX / EXTENT_BYTES / EXTENTS_ASKED + 1)

/* Ask for the whole map.  On success *ret is an array of extents. */
static int fetch(struct http *http, const char *name, json_t **ret,
                 struct errmsg *em)
{
	AUTO(json_decref) json_t *all = json_array();
	uint64_t from = 0;

	for (uint64_t i = 0; i < QUESTIONS_MAX; i++) {
		AUTO(json_decref) json_t *piece = NULL;
		const json_t *next;
		char path[160];
		int r;

		snprintf(path, sizeof(path),
		         "/v1/spaces/%s/map?from=%" PRIu64 "&n=%u", name, from,
		         EXTENTS_ASKED);
		r = http_get(http, path, &piece, em);
		if (r != HTTP_OK)
			return r;
		if (json_array_extend(all, json_object_get(piece, "extents")))
			return errmsg_say(em, -EPROTO,
			                  "the coordinator's answer has no "
			                  "extents; is it of another version?");
		next = json_object_get(piece, "next");
		if (!json_is_integer(next)) {
			*ret = TAKE_PTR(all);
			return HTTP_OK;
		}
		/* A "next" that stands still would be asked for ever. */
		if (field_u64(piece, "next") <= from)
			break;
		from = field_u64(piece, "next");
	}
	return errmsg_say(em, -EPROTO,
	                  "the coordinator's map does not end; see its log");
}

/* --- text ---------------------------------------------------------------- */

struct run {
	uint64_t first, last; /* extents */
	const json_t *home, *holders;
	uint64_t held, stored, missing, lost; /* pages */
};

static void run_add(struct run *run, const json_t *extent)
{
	const json_t *pages = json_object_get(extent, "pages");

	run->last = field_u64(extent, "extent");
	run->held += field_u64(pages, "held");
	run->stored += field_u64(pages, "stored");
	run->missing += field_u64(pages, "missing");
	run->lost += field_u64(pages, "lost");
}

static bool run_goes_on(const struct run *run, const json_t *extent)
{
	return field_u64(extent, "extent") == run->last + 1 &&
	       json_equal(run->home, json_object_get(extent, "home")) &&
	       json_equal(run->holders, json_object_get(extent, "holders"));
}

/* "0 1 3", or "-" for nobody. */
static void holders_text(const json_t *holders, char *buf, size_t bytes)
{
	const json_t *id;
	size_t i, at = 0;

	snprintf(buf, bytes, "-");
	json_array_foreach(holders, i, id) if (at < bytes) at +=
		(size_t)snprintf(buf + at, bytes - at, "%s%" PRIu64,
	                         i > 0 ? " " : "",
	                         (uint64_t)json_integer_value(id));
}

static void run_print(const struct run *run, struct table *t)
{
	char first[SIZE_TEXT_BYTES], end[SIZE_TEXT_BYTES];
	char holders[80];

	table_cell(t, "%" PRIu64 "-%" PRIu64, run->first, run->last);
	table_cell(t, "%s - %s", size_text(run->first * EXTENT_BYTES, first),
	           size_text((run->last + 1) * EXTENT_BYTES, end));
	if (json_is_integer(run->home))
		table_cell(t, "node %" PRIu64,
		           (uint64_t)json_integer_value(run->home));
	else
		table_cell(t, "untouched");
	table_cell(t, "%" PRIu64, run->held);
	table_cell(t, "%" PRIu64, run->stored);
	table_cell(t, "%" PRIu64, run->missing);
	table_cell(t, "%" PRIu64, run->lost);
	holders_text(run->holders, holders, sizeof(holders));
	table_cell(t, "%s", holders);
}

static int print_text(const struct cli *cli, const char *name,
                      const json_t *extents)
{
	AUTO(table_free) struct table *t = table_new("llrrrrrl");
	static const char *const heads[] = {
		"EXTENTS", "BYTES",   "HOME", "HELD",
		"STORED",  "MISSING", "LOST", "HOLDERS",
	};
	struct run run = { 0 };
	const json_t *extent;
	bool open = false;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(heads); i++)
		table_cell(t, "%s", heads[i]);
	json_array_foreach(extents, i, extent)
	{
		if (open && !run_goes_on(&run, extent))
			run_print(&run, t);
		if (!open || !run_goes_on(&run, extent)) {
			run = (struct run){
				.first = field_u64(extent, "extent"),
				.home = json_object_get(extent, "home"),
				.holders = json_object_get(extent, "holders"),
			};
			open = true;
		}
		run_add(&run, extent);
	}
	if (open)
		run_print(&run, t);
	printf("space %s: %zu extents of 2 MiB\n", name,
	       json_array_size(extents));
	if (table_print(t, 2, stdout) < 0)
		return cli_fail(cli, "cannot print: out of memory");
	return cli_finish(cli, CLI_OK);
}

int cmd_map(int argc, char **argv)
{
	struct cli cli = { .name = "map", .usage = usage_text };
	AUTO(json_decref) json_t *extents = NULL;
	AUTO(http_free) struct http *http = NULL;
	struct cluster cluster;
	struct errmsg em;
	const char *name;
	int r, opt;

	while ((opt = cli_option(&cli, argc, argv, options)) >= 0)
		assert(opt < 0); /* it has no options of its own */
	if (opt == CLI_OVER)
		return cli.status;
	if (optind == argc)
		return cli_misused(&cli, "which space? give its NAME");
	name = argv[optind++];
	r = cli_no_more(&cli, argc, argv);
	if (r != 0)
		return r;
	if (!space_name_valid(name))
		return cli_misused(&cli, SPACE_NAME_RULE, name);
	r = cluster_open(&cli, &cluster, &http);
	if (r != 0)
		return r;
	if (fetch(http, name, &extents, &em) != HTTP_OK)
		return cli_fail(&cli, "%s", em.text);
	if (cli.json)
		return cli_print_json(
			&cli, json_pack("{s:s, s:s, s:i, s:O}", "schema",
		                        "memspan.map/1", "space", name,
		                        "extent_bytes", (int)EXTENT_BYTES,
		                        "extents", extents));
	return print_text(&cli, name, extents);
}
