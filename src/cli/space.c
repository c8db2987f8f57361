/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/space.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/size.h"

#define DELETE_TRIES 100
#define DELETE_MS    100

bool space_name_valid(const char *name)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strlen(name);

	return len >= 1 && len <= 63 && strchr(first, name[0]) &&
	       strspn(name, rest) == len;
}

/* Read one end of a range, where an extent begins or ends. */
static int parse_end(const char *text, size_t len, uint64_t *ret,
                     struct errmsg *em)
{
	char buf[32];
	uint64_t bytes;
	int r;

	if (len >= sizeof(buf))
		return errmsg_say(em, -EINVAL, "'%.*s' is no SIZE", (int)len,
		                  text);
	memcpy(buf, text, len);
	buf[len] = '\0';
	r = size_parse(buf, &bytes, em);
	if (r < 0)
		return -EINVAL;
	if (bytes % EXTENT_BYTES != 0)
		return errmsg_say(em, -EINVAL,
		                  "%s is not where an extent ends; use "
		                  "multiples of 2 MiB",
		                  buf);
	*ret = bytes / EXTENT_BYTES;
	return 0;
}

int bind_parse(const char *text, struct bind *ret, struct errmsg *em)
{
	const char *equals = strchr(text, '='), *dash = strchr(text, '-');
	struct bind b = { .node = equals ? equals + 1 : text };
	uint64_t end;
	int r;

	if (!equals) {
		b.interleave = strcmp(text, "interleave") == 0;
		b.all = !b.interleave;
	} else if (!dash || dash > equals) {
		return errmsg_say(em, -EINVAL,
		                  "'%s' is no binding; write NODE, interleave "
		                  "or FIRST-LAST=NODE, for example 0-128M=0",
		                  text);
	} else {
		r = parse_end(text, (size_t)(dash - text), &b.first, em);
		if (r < 0)
			return r;
		r = parse_end(dash + 1, (size_t)(equals - dash - 1), &end, em);
		if (r < 0)
			return r;
		if (end <= b.first)
			return errmsg_say(em, -EINVAL,
			                  "the range in '%s' is empty", text);
		b.n = end - b.first;
	}
	if (b.node[0] == '\0')
		return errmsg_say(em, -EINVAL, "'%s' names no node", text);
	*ret = b;
	return 0;
}

/* The id of the node that people call `text`: its number, or its name. */
static int find_node(const json_t *nodes, const char *text, uint64_t *ret,
                     struct errmsg *em)
{
	const json_t *node;
	size_t i;

	json_array_foreach(nodes, i, node)
	{
		char id[24];

		snprintf(id, sizeof(id), "%llu",
		         (unsigned long long)field_u64(node, "id"));
		if (strcmp(text, id) == 0 ||
		    strcmp(text, field_text(node, "name")) == 0) {
			*ret = field_u64(node, "id");
			return 0;
		}
	}
	return errmsg_say(em, -ENOENT,
	                  "no node is called '%s'; 'memspan status' lists them",
	                  text);
}

static int by_first(const void *a, const void *b)
{
	const struct bind *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Check that sorted ranges neither overlap nor leave the space. */
static int check_ranges(const struct bind *v, size_t n, uint64_t extents,
                        struct errmsg *em)
{
	for (size_t i = 0; i < n; i++) {
		if (v[i].first + v[i].n > extents)
			return errmsg_say(em, -EINVAL,
			                  "a bound range ends behind the end "
			                  "of the space");
		if (i > 0 && v[i - 1].first + v[i - 1].n > v[i].first)
			return errmsg_say(em, -EINVAL,
			                  "two bound ranges overlap");
	}
	return 0;
}

static json_t *range_json(const struct bind *b, uint64_t size_bytes,
                          uint64_t node)
{
	uint64_t first = b->first * EXTENT_BYTES;
	uint64_t last = min_u64(first + b->n * EXTENT_BYTES, size_bytes);

	return json_pack("{s:I, s:I, s:I}", "first_bytes", (json_int_t)first,
	                 "last_bytes", (json_int_t)last, "node",
	                 (json_int_t)node);
}

int bind_json(const struct bind *v, size_t n, uint64_t size_bytes,
              const json_t *nodes, json_t **ret, struct errmsg *em)
{
	uint64_t extents = (size_bytes + EXTENT_BYTES - 1) / EXTENT_BYTES;
	AUTO(json_decref) json_t *list = NULL;
	AUTO_FREE struct bind *sorted = NULL;
	int r;

	if (n == 0 || v[0].interleave) {
		if (n > 1)
			return errmsg_say(em, -EINVAL,
			                  "interleave is for the whole space");
		*ret = n == 0 ? json_null() : json_string("interleave");
		return *ret ? 0 : errmsg_set(em, -ENOMEM, "cannot bind");
	}
	list = json_array();
	sorted = reallocarray(NULL, n, sizeof(*sorted));
	if (!list || !sorted)
		return errmsg_set(em, -ENOMEM, "cannot bind");
	for (size_t i = 0; i < n; i++) {
		sorted[i] = v[i];
		if (n > 1 && (v[i].all || v[i].interleave))
			return errmsg_say(em, -EINVAL,
			                  "several bindings need ranges: "
			                  "FIRST-LAST=NODE");
		if (v[i].all)
			sorted[i].n = extents;
	}
	qsort(sorted, n, sizeof(*sorted), by_first);
	r = check_ranges(sorted, n, extents, em);
	for (size_t i = 0; i < n && r == 0; i++) {
		uint64_t id = 0;

		r = find_node(nodes, sorted[i].node, &id, em);
		if (r == 0 &&
		    json_array_append_new(list, range_json(&sorted[i],
		                                           size_bytes, id)) < 0)
			r = errmsg_set(em, -ENOMEM, "cannot bind");
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(list);
	return 0;
}

int space_delete_left(struct http *http, const char *name, struct errmsg *em)
{
	struct errmsg why = { "" };
	int r = 0;

	for (int tries = 0; tries < DELETE_TRIES; tries++) {
		struct http_answer answer = { .status = 0 };
		char path[96];

		snprintf(path, sizeof(path), "/v1/spaces/%s", name);
		r = http_ask(http, "DELETE", path, NULL, &answer, &why);
		if (r >= 0)
			json_decref(answer.body);
		if (r == HTTP_OK || (r == HTTP_REFUSED && answer.status == 404))
			return 0;
		/* In use, or a node that may have clients of it is not heard:
		 * either passes, if only with that node's lease. */
		if (r < 0 || (answer.status != 409 && answer.status != 503))
			break;
		(void)poll(NULL, 0, DELETE_MS);
	}
	return errmsg_say(em, r < 0 ? r : -EBUSY,
	                  "space %s is left behind: %s; memspan space delete "
	                  "%s removes it",
	                  name, why.text, name);
}
