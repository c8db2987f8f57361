/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spaces as people name and bind them on the command line.
 */
#pragma once

#include <jansson.h>

#include "base/base.h"
#include "cli/http.h"

#define EXTENT_BYTES    ((uint64_t)EXTENT_PAGES * PAGE_BYTES)
#define SPACE_BYTES_MAX (1ull << 44) /* of the command line: 16 TiB */

/* [a-z0-9][a-z0-9._-]{0,62} */
bool space_name_valid(const char *name);
/* What to say of one that is not; the format takes the name. */
#define SPACE_NAME_RULE                                                    \
	"'%s' is no name of a space: 1 to 63 of a-z, 0-9, '.', '_', '-', " \
	"a letter or digit first"

/* One --bind of the command line, before nodes are looked up. */
struct bind {
	bool interleave;
	bool all;          /* the whole space, to `node` */
	uint64_t first, n; /* extents, unless all or interleave */
	const char *node;  /* name or id; borrowed from the text */
};

/*
 * Read NODE, "interleave" or FIRST-LAST=NODE; FIRST and LAST are SIZEs where
 * extents begin and end, LAST excluded.  Returns 0 or -EINVAL.
 */
int bind_parse(const char *text, struct bind *ret, struct errmsg *em);

/*
 * What POST /v1/spaces takes as "bind" for these, of a space of `size_bytes`:
 * null for none, "interleave", or a list of {"first_bytes","last_bytes","node"}
 * in ascending order, "node" being an id.  `nodes` is the list of GET /v1/nodes.  Returns 0 with *ret
 * the caller's; -EINVAL if they contradict one another or leave the space;
 * -ENOENT if there is no such node; -ENOMEM.
 */
int bind_json(const struct bind *v, size_t n, uint64_t size_bytes,
              const json_t *nodes, json_t **ret, struct errmsg *em);

/*
 * Delete a space that its last client has left, or is about to: a node notices
 * that within moments and tells the coordinator within a third of a lease, so
 * for some seconds an answer that it is in use is asked anew.  Returns 0, also
 * if there is no such space; -EBUSY, or as http_ask(), with what to do.
 */
int space_delete_left(struct http *http, const char *name, struct errmsg *em);
