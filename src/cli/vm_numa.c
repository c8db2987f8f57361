/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/vm_numa.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/http.h"

/* Append a run, or lengthen the last one if it is of the same node. */
static int add_run(struct vm_nodes *nodes, uint64_t bytes, unsigned node,
                   struct errmsg *em)
{
	if (bytes == 0)
		return 0;
	if (nodes->n > 0 && nodes->v[nodes->n - 1].node == node) {
		nodes->v[nodes->n - 1].bytes += bytes;
		return 0;
	}
	if (nodes->n == VM_NODES_MAX - 1)
		return errmsg_say(em, -EINVAL,
		                  "the space is bound in more than %u runs",
		                  VM_NODES_MAX - 1);
	nodes->v[nodes->n++] = (struct vm_node){ bytes, node };
	return 0;
}

int vm_numa_read(const json_t *bind, uint64_t ram_bytes, unsigned here,
                 struct vm_nodes *ret, struct errmsg *em)
{
	struct vm_nodes nodes = { .n = 0 };
	const json_t *range;
	uint64_t at = 0;
	size_t i;
	int r;

	/* Ascending, and apart, as the coordinator has checked. */
	json_array_foreach(bind, i, range)
	{
		uint64_t first =
			min_u64(field_u64(range, "first_bytes"), ram_bytes);
		uint64_t last =
			min_u64(field_u64(range, "last_bytes"), ram_bytes);

		if (first < at || last < first)
			return errmsg_say(em, -EINVAL,
			                  "the space's ranges overlap");
		r = add_run(&nodes, first - at, here, em);
		if (r == 0)
			r = add_run(&nodes, last - first,
			            (unsigned)field_u64(range, "node"), em);
		if (r < 0)
			return r;
		at = last;
	}
	r = add_run(&nodes, ram_bytes - at, here, em);
	if (r < 0)
		return r;
	while (nodes.cpus < nodes.n && nodes.v[nodes.cpus].node != here)
		nodes.cpus++;
	if (nodes.cpus == nodes.n)
		nodes.v[nodes.n++] = (struct vm_node){ 0, here };
	*ret = nodes;
	return 0;
}

bool vm_numa_has_hmat(const struct vm_nodes *nodes)
{
	return nodes->n > 1 && nodes->v[nodes->cpus].bytes > 0;
}

int vm_numa_machine(const char *type, const char **ret, struct errmsg *em)
{
	static const struct {
		const char *type, *old;
	} known[] = {
		{ "", "pc-i440fx-5.0" },
		{ "pc", "pc-i440fx-5.0" },
		{ "q35", "pc-q35-5.0" },
	};
	unsigned major, minor;
	int end = 0;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(type, known[i].type) != 0)
			continue;
		*ret = known[i].old;
		return 0;
	}
	if ((sscanf(type, "pc-i440fx-%u.%u%n", &major, &minor, &end) == 2 ||
	     sscanf(type, "pc-q35-%u.%u%n", &major, &minor, &end) == 2) &&
	    type[end] == '\0' && (major < 5 || (major == 5 && minor == 0))) {
		*ret = NULL;
		return 0;
	}
	return errmsg_say(em, -EINVAL,
	                  "--numa: machine type '%s' cannot divide one memory "
	                  "backend into nodes; use pc or q35, or a type of "
	                  "version 5.0 at most",
	                  type);
}
