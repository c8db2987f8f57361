/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan status - how a cluster is.  Manual: memspan-status(1).
 *
 * Two questions to the coordinator, whatever the number of nodes, so it
 * answers at once; and when nobody answers, it says so at once.
 */

#include <errno.h>
#include <string.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/health.h"
#include "cli/http.h"

static const char usage_text[] =
	"usage: memspan status [--json] [--run-dir DIR] [--coordinator URL]\n"
	"\n"
	"Show how a cluster is: health, nodes with their memory and faults,\n"
	"spaces.\n"
	"\n"
	"      --json             one JSON object, for programs; its fields are\n"
	"                         stable, the other form's are not\n"
	"      --run-dir DIR      the cluster that runs there\n"
	"      --coordinator URL  ask this one\n"
	"  -h, --help             show this text\n";

static const struct option options[] = { CLI_OPTION_JSON, CLI_OPTIONS, { 0 } };

struct answer {
	struct cluster cluster;
	bool ok;         /* the coordinator answered */
	double ms;       /* how fast */
	json_t *members; /* GET /v1/cluster; NULL if there was no answer */
	struct health_report report;
	struct errmsg em; /* why there was none */
};

/* /health says 503 with reasons, as a list or as one sentence. */
static void not_ready(struct answer *a, const struct http_answer *health,
                      const struct errmsg *em)
{
	const json_t *reasons = json_object_get(health->body, "reasons");
	const json_t *first = json_array_get(reasons, 0);
	const char *text = json_string_value(first);

	if (!text)
		text = field_text(first, "text");
	health_add(&a->report, HEALTH_WARN, "COORDINATOR_NOT_READY", "%s",
	           text[0] != '\0' ? text : em->text);
}

static void ask(struct http *http, struct answer *a)
{
	struct http_answer health;
	struct errmsg em = { "" };
	int r;

	r = http_ask(http, "GET", "/health", NULL, &health, &a->em);
	if (r < 0)
		return;
	em = a->em;
	a->ms = health.ms;
	if (r == HTTP_REFUSED)
		not_ready(a, &health, &em);
	json_decref(health.body);
	r = http_get(http, "/v1/cluster", &a->members, &a->em);
	a->ok = r == HTTP_OK;
	if (a->ok)
		health_judge(&a->report, a->members);
}

/* --- JSON ---------------------------------------------------------------- */

static json_t *reasons_json(const struct health_report *r)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < r->n; i++)
		if (json_array_append_new(list, json_pack("{s:s, s:s}", "code",
		                                          r->v[i].code, "text",
		                                          r->v[i].text)) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* The list `key` of the coordinator's answer as it is, or an empty one. */
static json_t *passed_on(const struct answer *a, const char *key)
{
	json_t *list = json_object_get(a->members, key);

	return list ? json_incref(list) : json_array();
}

static json_t *answer_json(const struct answer *a)
{
	json_t *epoch = a->ok ? json_integer((json_int_t)field_u64(a->members,
	                                                           "epoch")) :
	                        json_null();

	return json_pack("{s:s, s:s, s:o, s:{s:s, s:b, s:o}, s:o, s:o, s:o}",
	                 "schema", "memspan.status/1", "health",
	                 health_name(a->report.worst), "reasons",
	                 reasons_json(&a->report), "coordinator", "url",
	                 a->cluster.url, "ok", a->ok, "ms",
	                 a->ok ? json_real(a->ms) : json_null(), "epoch", epoch,
	                 "nodes", passed_on(a, "nodes"), "spaces",
	                 passed_on(a, "spaces"));
}

/* --- text ---------------------------------------------------------------- */

static int print_nodes(const struct answer *a)
{
	AUTO(table_free) struct table *t = table_new("rlllrrr");
	static const char *const heads[] = {
		"ID",        "NAME",    "STATE",  "ENDPOINT",
		"LEASE AGE", "CLIENTS", "FAULTS",
	};
	static const char *const kinds[] = {
		"first_touch", "remote_read", "remote_write",
		"upgrade",     "refault",
	};
	const json_t *node;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(heads); i++)
		table_cell(t, "%s", heads[i]);
	json_array_foreach(json_object_get(a->members, "nodes"), i, node)
	{
		const json_t *faults = json_object_get(node, "faults");
		uint64_t all = 0;

		for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
			all += field_u64(faults, kinds[k]);
		table_cell(t, "%llu",
		           (unsigned long long)field_u64(node, "id"));
		table_cell(t, "%s", field_text(node, "name"));
		table_cell(t, "%s", field_text(node, "state"));
		table_cell(t, "%s", field_text(node, "endpoint"));
		if (json_is_integer(json_object_get(node, "lease_age_ms")))
			table_cell(t, "%llu ms",
			           (unsigned long long)field_u64(
					   node, "lease_age_ms"));
		else
			table_cell(t, "-");
		table_cell(t, "%llu",
		           (unsigned long long)field_u64(node, "clients"));
		table_cell(t, "%llu", (unsigned long long)all);
	}
	printf("\nnodes\n");
	return table_print(t, 2, stdout);
}

/* Where pages lie, a line for each node that has any to tell of. */
static int print_memory(const struct answer *a)
{
	AUTO(table_free) struct table *t = table_new("rlrrrrrrr");
	static const char *const heads[] = {
		"ID",       "NAME", "LIMIT",    "HELD",    "LENT",
		"BORROWED", "ROOM", "OVERHEAD", "WAITING",
	};
	static const char *const sizes[] = {
		"limit_bytes",    "resident_bytes", "lent_bytes",
		"borrowed_bytes", "room_bytes",     "overhead_bytes",
	};
	const json_t *node;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(heads); i++)
		table_cell(t, "%s", heads[i]);
	json_array_foreach(json_object_get(a->members, "nodes"), i, node)
	{
		const json_t *memory = json_object_get(node, "memory");

		if (!node_in_state(node, "alive") &&
		    !node_in_state(node, "fenced"))
			continue;
		table_cell(t, "%llu",
		           (unsigned long long)field_u64(node, "id"));
		table_cell(t, "%s", field_text(node, "name"));
		for (size_t k = 0; k < ARRAY_SIZE(sizes); k++)
			table_cell_size(t, field_u64(memory, sizes[k]));
		table_cell(t, "%llu",
		           (unsigned long long)field_u64(memory, "waiting"));
	}
	printf("\nmemory\n");
	return table_print(t, 2, stdout);
}

static int print_spaces(const struct answer *a)
{
	AUTO(table_free) struct table *t = table_new("lrrrrrrrrr");
	static const char *const heads[] = {
		"NAME",    "SIZE",       "REPLICAS", "HOMED", "WRITTEN",
		"EVICTED", "UNDER-REPL", "MISSING",  "LOST",  "CLIENTS",
	};
	/* These are rather none, or so many that one wants the number. */
	static const char *const counts[] = { "under_replicated", "missing",
		                              "lost" };
	const json_t *spaces = json_object_get(a->members, "spaces");
	const json_t *space;
	size_t i;

	if (json_array_size(spaces) == 0) {
		printf("\nno spaces; 'memspan space create NAME --size SIZE' "
		       "makes one\n");
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(heads); i++)
		table_cell(t, "%s", heads[i]);
	json_array_foreach(spaces, i, space)
	{
		const json_t *extents = json_object_get(space, "extents");
		const json_t *pages = json_object_get(space, "pages");

		table_cell(t, "%s", field_text(space, "name"));
		table_cell_size(t, field_u64(space, "size_bytes"));
		table_cell(t, "%llu",
		           (unsigned long long)field_u64(space, "replicas"));
		table_cell(t, "%llu/%llu",
		           (unsigned long long)field_u64(extents, "homed"),
		           (unsigned long long)field_u64(extents, "total"));
		table_cell_size(t, field_u64(pages, "written") * PAGE_BYTES);
		table_cell_size(t, field_u64(pages, "evicted") * PAGE_BYTES);
		for (size_t k = 0; k < ARRAY_SIZE(counts); k++)
			table_cell(t, "%llu",
			           (unsigned long long)field_u64(pages,
			                                         counts[k]));
		table_cell(t, "%llu",
		           (unsigned long long)field_u64(space, "clients"));
	}
	printf("\nspaces\n");
	return table_print(t, 2, stdout);
}

static int print_text(const struct cli *cli, const struct answer *a)
{
	printf("%s\n", health_name(a->report.worst));
	for (unsigned i = 0; i < a->report.n; i++)
		printf("  %s: %s\n", a->report.v[i].code, a->report.v[i].text);
	if (a->ok) {
		printf("cluster %s  %s  epoch %llu  answered in %.1f ms\n",
		       field_text(a->members, "name"), a->cluster.url,
		       (unsigned long long)field_u64(a->members, "epoch"),
		       a->ms);
		if (print_nodes(a) < 0 || print_memory(a) < 0 ||
		    print_spaces(a) < 0)
			return cli_fail(cli, "cannot print: out of memory");
	}
	return cli_finish(cli, a->ok ? CLI_OK : CLI_FAILED);
}

int cmd_status(int argc, char **argv)
{
	struct cli cli = { .name = "status", .usage = usage_text };
	AUTO(http_free) struct http *http = NULL;
	struct answer a = { .ok = false };
	int r, opt;

	while ((opt = cli_option(&cli, argc, argv, options)) >= 0)
		assert(opt < 0); /* it has no options of its own */
	if (opt == CLI_OVER)
		return cli.status;
	r = cli_no_more(&cli, argc, argv);
	if (r != 0)
		return r;
	r = cluster_open(&cli, &a.cluster, &http);
	if (r != 0)
		return r;
	ask(http, &a);
	if (!a.ok)
		health_add(&a.report, HEALTH_ERR, "COORDINATOR_DOWN",
		           "no cluster answers at %s, which is named by %s",
		           a.cluster.url, a.cluster.source);
	if (cli.json)
		r = cli_print_json(&cli, answer_json(&a));
	else
		r = print_text(&cli, &a);
	json_decref(a.members);
	/* What to do about it is no part of the report. */
	if (!a.ok)
		return cli_fail(&cli, "%s", a.em.text);
	return r;
}
