/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who answers which request, and the cluster itself.
 *
 * A handler is called on the main thread with a whole request, and answers it:
 * at once, or from a round of questions to nodes.  What it changes is in the
 * store before it answers, and what it refuses it refuses with the next step
 * for whoever reads it.
 */

#include "coord/api.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coord/body.h"
#include "coord/render.h"

/* --- helpers ------------------------------------------------------------- */

struct node *api_node(struct coord *c, struct request *rq, const char *name)
{
	struct node *n = members_find(&c->members, name);

	if (!n)
		request_problem(rq, 404,
		                "no node has the id or name '%.64s'; GET "
		                "/v1/nodes lists them",
		                name);
	return n;
}

struct space *api_space(struct coord *c, struct request *rq, const char *name)
{
	struct space *sp = spaces_find(&c->spaces, name);

	if (!sp)
		request_problem(rq, 404,
		                "no space is called '%.64s'; GET /v1/spaces "
		                "lists them",
		                name);
	return sp;
}

bool api_store_ok(struct coord *c, struct request *rq, int r,
                  const struct errmsg *em)
{
	if (coord_store_ok(c, r, em))
		return true;
	request_problem(rq, coord_store_status(r),
	                "the coordinator cannot promise this, for its store "
	                "fails: %s; %s, then ask again",
	                em->text,
	                r == -ENOSPC ? "make room on its file system" :
	                               "see to its disk");
	return false;
}

bool api_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	if (text[0] < '0' || text[0] > '9' || strlen(text) > 19)
		return false;
	v = strtoull(text, &end, 10);
	if (*end != '\0' || v > max)
		return false;
	*ret = v;
	return true;
}

/* --- health and the cluster ---------------------------------------------- */

static void show_health(struct coord *c, struct request *rq, const char *name)
{
	json_t *reasons;

	(void)name;
	if (c->members.has_cluster && !c->store_failing) {
		request_answer(rq, 200,
		               json_pack("{s:s, s:I}", "status", "ok", "epoch",
		                         (json_int_t)c->members.epoch));
		return;
	}
	reasons = json_array();
	if (!c->members.has_cluster)
		(void)json_array_append_new(
			reasons, json_pack("{s:s, s:s}", "code", "NO_CLUSTER",
		                           "text", "there is no cluster"));
	if (c->store_failing)
		(void)json_array_append_new(
			reasons, json_pack("{s:s, s:s}", "code", "STORE_FAILS",
		                           "text", c->store_why));
	request_problem_with(rq, 503, json_pack("{s:o}", "reasons", reasons),
	                     "%s",
	                     c->store_failing ?
	                             c->store_why :
	                             "there is no cluster; POST /v1/cluster "
	                             "makes one");
}

static void show_cluster(struct coord *c, struct request *rq, const char *name)
{
	struct text t = { 0 };

	(void)name;
	render_cluster(&t, c);
	request_answer_text(rq, 200, text_take(&t));
}

static void make_cluster(struct coord *c, struct request *rq, const char *none)
{
	struct errmsg em = { "" };
	struct text t = { 0 };
	uint64_t lease_ms;
	const char *name;
	struct body b;
	int r;

	(void)none;
	body_read(&b, rq);
	name = body_text(&b, "name", BODY_NEEDED);
	lease_ms = body_number(&b, "lease_ms", BODY_MAY, c->lease_ms_default,
	                       LEASE_MS_MAX);
	if (name && !node_name_ok(name))
		body_wrong(&b, "name",
		           "must be 1 to 63 of A-Z a-z 0-9 . _ -, beginning "
		           "with a letter or digit and not a number");
	if (lease_ms < LEASE_MS_MIN)
		body_wrong(&b, "lease_ms", "must be at least %u", LEASE_MS_MIN);
	if (!body_done(&b))
		return;
	if (c->members.has_cluster) {
		request_problem(rq, 409,
		                "there is a cluster already, '%s'; a "
		                "coordinator keeps one",
		                c->members.cluster_name);
	} else {
		r = members_make_cluster(&c->members, name, lease_ms, &em);
		if (api_store_ok(c, rq, r, &em)) {
			log_info("made a cluster", "name=%s lease_ms=%llu",
			         name, (unsigned long long)lease_ms);
			render_cluster(&t, c);
			request_created(rq, "/v1/cluster", text_take(&t));
		}
	}
	body_free(&b);
}

static void delete_cluster(struct coord *c, struct request *rq,
                           const char *name)
{
	struct errmsg em = { "" };

	(void)name;
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		const struct node *n = c->members.node[i];

		if (n && (node_lives(n) || n->link)) {
			request_problem(rq, 409,
			                "node %u (%s) lives; stop the nodes "
			                "first",
			                n->id, n->name);
			return;
		}
	}
	if (c->spaces.n > 0) {
		request_problem(rq, 409,
		                "there are %u spaces, '%s' among them; delete "
		                "them first",
		                c->spaces.n, c->spaces.space[0]->name);
		return;
	}
	if (!api_store_ok(c, rq, members_drop_cluster(&c->members, &em), &em))
		return;
	log_info("the cluster was deleted");
	request_answer(rq, 204, NULL);
}

/* --- who answers what ---------------------------------------------------- */

enum {
	CLUSTERLESS = 1, /* may be asked while there is no cluster */
	ARGS = 2,        /* has parameters, and judges them itself */
};

struct route {
	const char *method;
	const char *pattern; /* "{}" stands for one part of a path */
	api_handler *handler;
	unsigned flags;
};

static const struct route routes[] = {
	{ "GET", "/health", show_health, CLUSTERLESS },
	{ "GET", "/v1/cluster", show_cluster, 0 },
	{ "POST", "/v1/cluster", make_cluster, CLUSTERLESS },
	{ "DELETE", "/v1/cluster", delete_cluster, 0 },
	{ "GET", "/v1/nodes", api_nodes_list, 0 },
	{ "POST", "/v1/nodes", api_node_register, 0 },
	{ "GET", "/v1/nodes/{}", api_node_show, 0 },
	{ "DELETE", "/v1/nodes/{}", api_node_delete, 0 },
	{ "GET", "/v1/nodes/{}/endpoint", api_endpoint_show, 0 },
	{ "POST", "/v1/nodes/{}/endpoint", api_endpoint_set, 0 },
	{ "GET", "/v1/endpoints", api_endpoints_list, 0 },
	{ "GET", "/v1/spaces", api_spaces_list, 0 },
	{ "POST", "/v1/spaces", api_space_create, 0 },
	{ "GET", "/v1/spaces/{}", api_space_show, 0 },
	{ "DELETE", "/v1/spaces/{}", api_space_delete, 0 },
	{ "GET", "/v1/spaces/{}/map", api_map_show, ARGS },
	/* GET /v1/spaces/{}/pages/{} is told apart below: it has two parts. */
	{ "GET", "/v1/spaces/{}/pages", NULL, 0 },
};

/* Copy the part of `path` that stands for "{}" in the pattern. */
static bool matches(const char *pattern, const char *path, char part[256])
{
	const char *open = strstr(pattern, "{}");
	size_t before = open ? (size_t)(open - pattern) : 0, n;

	if (!open)
		return strcmp(pattern, path) == 0;
	if (strncmp(pattern, path, before) != 0)
		return false;
	n = strcspn(path + before, "/");
	if (n == 0 || n >= 256 || strcmp(open + 2, path + before + n) != 0)
		return false;
	memcpy(part, path + before, n);
	part[n] = '\0';
	return true;
}

/* Cut "/NUMBER" off "/v1/spaces/NAME/pages/NUMBER", if it is that. */
static const char *split_page(const char *path, char rest[1024])
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;

	if (n < 6 || n >= 1024 || strncmp(slash - 6, "/pages", 6) != 0)
		return NULL;
	memcpy(rest, path, n);
	rest[n] = '\0';
	return slash + 1;
}

/* May this be answered now?  Else it was. */
static bool ready(struct coord *c, struct request *rq, unsigned flags)
{
	if (c->stopping) {
		request_problem(rq, 503, "the coordinator is stopping");
		return false;
	}
	if (!c->members.has_cluster && !(flags & CLUSTERLESS)) {
		request_problem(rq, 404,
		                "there is no cluster; POST /v1/cluster makes "
		                "one");
		return false;
	}
	if (rq->n_args > 0 && !(flags & ARGS)) {
		request_problem(rq, 400,
		                "%.64s is no parameter of this request",
		                rq->arg[0].key);
		return false;
	}
	return true;
}

void api_handle(struct request *rq, void *arg)
{
	char part[256], rest[1024], allow[64] = "";
	const char *gpn = split_page(rq->path, rest);
	struct coord *c = arg;

	for (unsigned i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct route *t = &routes[i];
		size_t n = strlen(allow);

		if (!matches(t->pattern, gpn ? rest : rq->path, part) ||
		    (t->handler == NULL) != (gpn != NULL))
			continue;
		if (strcmp(t->method, rq->method) != 0) {
			snprintf(allow + n, sizeof(allow) - n, "%s%s",
			         n > 0 ? ", " : "", t->method);
			continue;
		}
		if (!ready(c, rq, t->flags))
			return;
		if (t->handler)
			t->handler(c, rq, part);
		else
			api_page_show(c, rq, part, gpn);
		return;
	}
	if (allow[0] != '\0')
		request_not_allowed(rq, allow);
	else
		request_problem(rq, 404,
		                "there is nothing at %.256s; docs/openapi.yaml "
		                "lists what there is",
		                rq->path);
}
