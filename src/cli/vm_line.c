/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/vm_line.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/*
 * What a guest's kernel is told of a node: distances relative to 10, and HMAT's
 * nanoseconds and bytes per second.  Those of other nodes are what `memspan
 * bench` gives for remote reads on one machine (docs/performance.md), rounded;
 * a guest needs their order, not their digits.
 */
#define DISTANCE_HERE   10
#define DISTANCE_BESIDE 11 /* another run on the same node; Linux wants > 10 */
#define DISTANCE_AWAY   40 /* beyond 30 Linux counts a node as far */
#define LATENCY_HERE    100
#define LATENCY_AWAY    60000
#define BANDWIDTH_HERE  "10G"
#define BANDWIDTH_AWAY  "400M"

/* The arguments of ours for each node: itself, two of HMAT, all distances. */
#define OURS_MAX (16u + VM_NODES_MAX * (2u + 4u + 2u * VM_NODES_MAX))

struct builder {
	char **v;
	size_t n, room;
	bool lost; /* memory ran out for an argument */
};

static void add(struct builder *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct builder *b, const char *fmt, ...)
{
	char *text = NULL;
	va_list list;

	assert(b->n + 1 < b->room);
	va_start(list, fmt);
	if (vasprintf(&text, fmt, list) < 0)
		text = NULL;
	va_end(list);
	if (text)
		b->v[b->n++] = text;
	else
		b->lost = true;
}

static void add_hmat(struct builder *b, const struct vm_nodes *nodes, size_t i)
{
	bool here = nodes->v[i].node == nodes->v[nodes->cpus].node;

	/* A target without memory would make Linux drop the table. */
	if (nodes->v[i].bytes == 0)
		return;
	add(b, "-numa");
	add(b,
	    "hmat-lb,initiator=%zu,target=%zu,hierarchy=memory,"
	    "data-type=access-latency,latency=%d",
	    nodes->cpus, i, here ? LATENCY_HERE : LATENCY_AWAY);
	add(b, "-numa");
	add(b,
	    "hmat-lb,initiator=%zu,target=%zu,hierarchy=memory,"
	    "data-type=access-bandwidth,bandwidth=%s",
	    nodes->cpus, i, here ? BANDWIDTH_HERE : BANDWIDTH_AWAY);
}

static void add_nodes(struct builder *b, const struct vm_plan *plan)
{
	const struct vm_nodes *nodes = plan->nodes;
	bool hmat = vm_numa_has_hmat(nodes);

	for (size_t i = 0; i < nodes->n; i++) {
		char cpus[32] = "", initiator[32] = "";

		if (i == nodes->cpus)
			snprintf(cpus, sizeof(cpus), ",cpus=0-%u",
			         plan->cpus - 1);
		if (hmat)
			snprintf(initiator, sizeof(initiator), ",initiator=%zu",
			         nodes->cpus);
		add(b, "-numa");
		add(b, "node,nodeid=%zu,mem=%" PRIu64 "B%s%s", i,
		    nodes->v[i].bytes, cpus, initiator);
	}
	for (size_t i = 0; i < nodes->n; i++) {
		for (size_t j = 0; j < nodes->n; j++) {
			if (i == j)
				continue;
			add(b, "-numa");
			add(b, "dist,src=%zu,dst=%zu,val=%d", i, j,
			    nodes->v[i].node == nodes->v[j].node ?
			            DISTANCE_BESIDE :
			            DISTANCE_AWAY);
		}
	}
	for (size_t i = 0; hmat && i < nodes->n; i++)
		add_hmat(b, nodes, i);
}

char **vm_line_new(const struct vm_plan *plan, int n, char *const *v)
{
	struct builder b = { .room = (size_t)n + OURS_MAX };

	b.v = calloc(b.room, sizeof(*b.v));
	if (!b.v)
		return NULL;
	add(&b, "%s", plan->qemu);
	/* The host's own configuration would go unchecked. */
	add(&b, "-no-user-config");
	add(&b, "-object");
	/* Not prealloc, which would touch, and so fetch, every page; merge=off:
	 * KSM has nothing to find in a shared file. */
	add(&b,
	    "memory-backend-file,id=" VM_BACKEND ",mem-path=" VM_SPACE_PATH
	    ",share=on,size=%" PRIu64 ",prealloc=off,merge=off,dump=off",
	    plan->ram_bytes);
	add(&b, "-machine");
	add(&b, "memory-backend=" VM_BACKEND "%s",
	    plan->nodes && vm_numa_has_hmat(plan->nodes) ? ",hmat=on" : "");
	if (!plan->says_memory) {
		add(&b, "-m");
		add(&b, "%" PRIu64 "B", plan->ram_bytes);
	}
	if (plan->nodes)
		add_nodes(&b, plan);
	for (int i = 0; i < n; i++)
		add(&b, "%s", v[i]);
	/* Of several -machine the last one's type counts. */
	if (plan->machine) {
		add(&b, "-machine");
		add(&b, "%s", plan->machine);
	}
	if (b.lost)
		return vm_line_free(b.v);
	return b.v;
}

char **vm_line_free(char **line)
{
	for (size_t i = 0; line && line[i]; i++)
		free(line[i]);
	free(line);
	return NULL;
}

void vm_line_quote(const char *argument, FILE *f)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"0123456789_-+=.,:/@%";

	if (argument[0] != '\0' && argument[strspn(argument, plain)] == '\0') {
		fputs(argument, f);
		return;
	}
	fputc('\'', f);
	for (; *argument != '\0'; argument++) {
		if (*argument == '\'')
			fputs("'\\''", f);
		else
			fputc(*argument, f);
	}
	fputc('\'', f);
}
