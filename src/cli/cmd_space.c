/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan space - make, list, show and delete spaces.  Manual:
 * memspan-space(1).
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
	"usage: memspan space create NAME --size SIZE [--replicas N]\n"
	"                            [--overcommit] [--bind WHERE]...\n"
	"       memspan space list\n"
	"       memspan space show NAME\n"
	"       memspan space delete NAME\n"
	"       each with [--json] [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Make, list, show or delete spaces, the named ranges of memory that\n"
	"clients attach to.\n"
	"\n"
	"      --size SIZE        bytes, or with K, M, G or T\n"
	"      --replicas N       copies of each evicted page on other nodes\n"
	"                         (default 1)\n"
	"      --overcommit       make it even if the nodes' memory is less, or\n"
	"                         they are too few for the replicas\n"
	"      --bind WHERE       who is home of its pages, instead of who\n"
	"                         touches them first: a NODE (number or name),\n"
	"                         'interleave', or FIRST-LAST=NODE for a part,\n"
	"                         any number of times\n"
	"      --json             one JSON object, for programs; its fields are\n"
	"                         stable, the other form's are not\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one\n"
	"  -h, --help             show this text\n";

static const struct option options[] = {
	{ "size", required_argument, NULL, 's' },
	{ "replicas", required_argument, NULL, 'r' },
	{ "overcommit", no_argument, NULL, 'o' },
	{ "bind", required_argument, NULL, 'b' },
	CLI_OPTION_JSON,
	CLI_OPTIONS,
	{ 0 },
};

#define BINDS_MAX    64u
#define REPLICAS_MAX 3u

struct request {
	struct cli cli;
	const char *name; /* of the space */
	uint64_t size_bytes;
	uint64_t replicas;
	bool overcommit;
	struct bind bind[BINDS_MAX];
	size_t n_binds;
	bool for_create; /* an option that only `create` takes was given */
};

/* --- showing ------------------------------------------------------------- */

static void bind_text(const json_t *bind, char *buf, size_t bytes)
{
	const json_t *range;
	size_t i, at = 0;

	snprintf(buf, bytes, "%s",
	         json_is_string(bind) ? json_string_value(bind) :
	                                "first touch");
	json_array_foreach(bind, i, range)
	{
		char first[SIZE_TEXT_BYTES], end[SIZE_TEXT_BYTES];

		if (at >= bytes)
			return;
		at += (size_t)snprintf(
			buf + at, bytes - at, "%s%s - %s on node %" PRIu64,
			i > 0 ? ", " : "",
			size_text(field_u64(range, "first_bytes"), first),
			size_text(field_u64(range, "last_bytes"), end),
			field_u64(range, "node"));
	}
}

static void print_space(const json_t *space)
{
	const json_t *extents = json_object_get(space, "extents");
	const json_t *pages = json_object_get(space, "pages");
	char size[SIZE_TEXT_BYTES], bind[400];

	bind_text(json_object_get(space, "bind"), bind, sizeof(bind));
	printf("space %s\n", field_text(space, "name"));
	printf("  size      %s\n",
	       size_text(field_u64(space, "size_bytes"), size));
	printf("  replicas  %" PRIu64 "\n", field_u64(space, "replicas"));
	printf("  homes     %s\n", bind);
	printf("  extents   %" PRIu64 " of %" PRIu64 " have a home\n",
	       field_u64(extents, "homed"), field_u64(extents, "total"));
	printf("  pages     %" PRIu64 " written, %" PRIu64 " evicted, %" PRIu64
	       " under-replicated, %" PRIu64 " missing, %" PRIu64 " lost\n",
	       field_u64(pages, "written"), field_u64(pages, "evicted"),
	       field_u64(pages, "under_replicated"),
	       field_u64(pages, "missing"), field_u64(pages, "lost"));
	printf("  clients   %" PRIu64 "\n", field_u64(space, "clients"));
	/* The path is of use inside `memspan run` alone: the manual says so. */
	printf("  path      %s\n", field_text(space, "path"));
}

/* The space object with the schema in front, and what else it has. */
static json_t *space_json(json_t *space)
{
	json_t *object = json_pack("{s:s}", "schema", "memspan.space/1");

	if (object && json_object_update(object, space) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static int print_list(const struct cli *cli, const json_t *spaces)
{
	AUTO(table_free) struct table *t = table_new("lrrrrr");
	static const char *const heads[] = {
		"NAME", "SIZE", "REPLICAS", "HOMED", "WRITTEN", "CLIENTS",
	};
	const json_t *space;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(heads); i++)
		table_cell(t, "%s", heads[i]);
	json_array_foreach(spaces, i, space)
	{
		const json_t *extents = json_object_get(space, "extents");

		table_cell(t, "%s", field_text(space, "name"));
		table_cell_size(t, field_u64(space, "size_bytes"));
		table_cell(t, "%" PRIu64, field_u64(space, "replicas"));
		table_cell(t, "%" PRIu64 "/%" PRIu64,
		           field_u64(extents, "homed"),
		           field_u64(extents, "total"));
		table_cell_size(t, field_u64(json_object_get(space, "pages"),
		                             "written") *
		                           PAGE_BYTES);
		table_cell(t, "%" PRIu64, field_u64(space, "clients"));
	}
	if (table_print(t, 0, stdout) < 0)
		return cli_fail(cli, "cannot print: out of memory");
	return cli_finish(cli, CLI_OK);
}

/* --- the four verbs ------------------------------------------------------ */

static int do_list(struct request *q, struct http *http, struct errmsg *em)
{
	AUTO(json_decref) json_t *spaces = NULL;
	struct http_answer answer;
	int r;

	r = http_ask(http, "GET", "/v1/spaces", NULL, &answer, em);
	if (r < 0)
		return cli_fail(&q->cli, "%s", em->text);
	/* A list, or an object that has it. */
	spaces = json_is_array(answer.body) ?
	                 json_incref(answer.body) :
	                 json_incref(json_object_get(answer.body, "spaces"));
	json_decref(answer.body);
	if (r != HTTP_OK)
		return cli_fail(&q->cli, "%s", em->text);
	if (!q->cli.json)
		return print_list(&q->cli, spaces);
	return cli_print_json(&q->cli,
	                      json_pack("{s:s, s:O}", "schema",
	                                "memspan.space/1", "spaces", spaces));
}

static int do_show(struct request *q, struct http *http, struct errmsg *em)
{
	AUTO(json_decref) json_t *space = NULL;
	char path[96];

	snprintf(path, sizeof(path), "/v1/spaces/%s", q->name);
	if (http_get(http, path, &space, em) != HTTP_OK)
		return cli_fail(&q->cli, "%s", em->text);
	if (q->cli.json)
		return cli_print_json(&q->cli, space_json(space));
	print_space(space);
	return cli_finish(&q->cli, CLI_OK);
}

/* The nodes that --bind may name; an empty list where it names none. */
static int fetch_nodes(const struct request *q, struct http *http, json_t **ret,
                       struct errmsg *em)
{
	AUTO(json_decref) json_t *cluster = NULL;
	int r;

	if (q->n_binds == 0 || q->bind[0].interleave) {
		*ret = json_array();
		return 0;
	}
	r = http_get(http, "/v1/cluster", &cluster, em);
	if (r < 0)
		return r;
	if (r == HTTP_REFUSED)
		return -EPROTO;
	*ret = json_incref(json_object_get(cluster, "nodes"));
	return 0;
}

static int do_create(struct request *q, struct http *http, struct errmsg *em)
{
	AUTO(json_decref) json_t *nodes = NULL, *bind = NULL, *body = NULL;
	char size[SIZE_TEXT_BYTES];
	struct http_answer answer;
	int r;

	if (fetch_nodes(q, http, &nodes, em) < 0)
		return cli_fail(&q->cli, "%s", em->text);
	r = bind_json(q->bind, q->n_binds, q->size_bytes, nodes, &bind, em);
	if (r == -EINVAL)
		return cli_misused(&q->cli, "--bind: %s", em->text);
	if (r < 0)
		return cli_fail(&q->cli, "%s", em->text);
	body = json_pack("{s:s, s:I, s:I, s:O, s:b}", "name", q->name,
	                 "size_bytes", (json_int_t)q->size_bytes, "replicas",
	                 (json_int_t)q->replicas, "bind", bind, "overcommit",
	                 q->overcommit);
	if (!body)
		return cli_fail(&q->cli, "out of memory");
	r = http_ask(http, "POST", "/v1/spaces", body, &answer, em);
	if (r < 0)
		return cli_fail(&q->cli, "%s", em->text);
	if (r == HTTP_REFUSED)
		r = cli_fail(&q->cli, "%s", em->text);
	else if (q->cli.json)
		r = cli_print_json(&q->cli, space_json(answer.body));
	else {
		printf("space %s   %s   created\n", q->name,
		       size_text(q->size_bytes, size));
		r = cli_finish(&q->cli, CLI_OK);
	}
	json_decref(answer.body);
	return r;
}

static int do_delete(struct request *q, struct http *http, struct errmsg *em)
{
	struct http_answer answer;
	char path[96];
	int r;

	snprintf(path, sizeof(path), "/v1/spaces/%s", q->name);
	r = http_ask(http, "DELETE", path, NULL, &answer, em);
	if (r >= 0)
		json_decref(answer.body);
	if (r != HTTP_OK)
		return cli_fail(&q->cli, "%s", em->text);
	if (q->cli.json)
		return cli_print_json(&q->cli, json_pack("{s:s, s:s}", "schema",
		                                         "memspan.space/1",
		                                         "deleted", q->name));
	printf("space %s   deleted\n", q->name);
	return cli_finish(&q->cli, CLI_OK);
}

static const struct verb {
	const char *name;
	bool takes_name, creates;
	int (*run)(struct request *q, struct http *http, struct errmsg *em);
} verbs[] = {
	{ "create", true, true, do_create },
	{ "list", false, false, do_list },
	{ "show", true, false, do_show },
	{ "delete", true, false, do_delete },
};

/* --- the command line ---------------------------------------------------- */

/* Read one option.  Returns 0 or CLI_USAGE. */
static int take_option(struct request *q, int opt)
{
	struct errmsg em;

	q->for_create = true;
	switch (opt) {
	case 's':
		if (cli_size(&q->cli, "--size", optarg, PAGE_BYTES,
		             SPACE_BYTES_MAX, &q->size_bytes) != 0)
			return CLI_USAGE;
		if (q->size_bytes % PAGE_BYTES == 0)
			return 0;
		return cli_misused(&q->cli,
		                   "--size: '%s' is no multiple of a page, 4K",
		                   optarg);
	case 'r':
		return cli_number(&q->cli, "--replicas", optarg, 1,
		                  REPLICAS_MAX, &q->replicas);
	case 'o':
		q->overcommit = true;
		return 0;
	default: /* 'b' */
		if (q->n_binds == BINDS_MAX)
			return cli_misused(&q->cli, "--bind: at most %u times",
			                   BINDS_MAX);
		if (bind_parse(optarg, &q->bind[q->n_binds], &em) < 0)
			return cli_misused(&q->cli, "--bind: %s", em.text);
		q->n_binds++;
		return 0;
	}
}

/* Read the arguments.  Returns the verb; NULL with *status to return. */
static const struct verb *take_arguments(struct request *q, int argc,
                                         char **argv, int *status)
{
	const struct verb *verb = NULL;

	*status = CLI_USAGE;
	if (optind == argc) {
		cli_misused(&q->cli, "create, list, show or delete?");
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[optind], verbs[i].name) == 0)
			verb = &verbs[i];
	if (!verb) {
		cli_misused(&q->cli,
		            "'%s' is not one of create, list, show and delete",
		            argv[optind]);
		return NULL;
	}
	optind++;
	if (verb->takes_name) {
		if (optind == argc) {
			cli_misused(&q->cli, "%s which space? give its NAME",
			            verb->name);
			return NULL;
		}
		q->name = argv[optind++];
		if (!space_name_valid(q->name)) {
			cli_misused(&q->cli, SPACE_NAME_RULE, q->name);
			return NULL;
		}
	}
	if (cli_no_more(&q->cli, argc, argv) != 0)
		return NULL;
	if (q->for_create && !verb->creates) {
		cli_misused(&q->cli,
		            "--size, --replicas, --overcommit and --bind are "
		            "for 'create'");
		return NULL;
	}
	if (verb->creates && q->size_bytes == 0) {
		cli_misused(&q->cli, "--size is missing; for example "
		                     "--size 256M");
		return NULL;
	}
	return verb;
}

int cmd_space(int argc, char **argv)
{
	struct request q = {
		.cli = { .name = "space", .usage = usage_text },
		.replicas = 1,
	};
	AUTO(http_free) struct http *http = NULL;
	const struct verb *verb;
	struct cluster cluster;
	struct errmsg em;
	int status, opt;

	while ((opt = cli_option(&q.cli, argc, argv, options)) >= 0) {
		status = take_option(&q, opt);
		if (status != 0)
			return status;
	}
	if (opt == CLI_OVER)
		return q.cli.status;
	verb = take_arguments(&q, argc, argv, &status);
	if (!verb)
		return status;
	status = cluster_open(&q.cli, &cluster, &http);
	if (status != 0)
		return status;
	return verb->run(&q, http, &em);
}
