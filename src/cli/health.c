/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/health.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cli/http.h"

/* How long a refused eviction is worth a warning. */
#define REFUSED_MS 10000u

#define MIB (1ull << 20)

const char *health_name(enum health h)
{
	switch (h) {
	case HEALTH_OK:
		return "HEALTH_OK";
	case HEALTH_WARN:
		return "HEALTH_WARN";
	case HEALTH_ERR:
		return "HEALTH_ERR";
	}
	return "HEALTH_ERR";
}

void health_add(struct health_report *r, enum health level, const char *code,
                const char *fmt, ...)
{
	struct reason *reason = &r->v[r->n];
	va_list args;

	assert(r->n < REASONS_MAX);
	reason->level = level;
	reason->code = code;
	va_start(args, fmt);
	vsnprintf(reason->text, sizeof(reason->text), fmt, args);
	va_end(args);
	r->n++;
	if (level > r->worst)
		r->worst = level;
}

bool node_in_state(const json_t *node, const char *state)
{
	return strcmp(field_text(node, "state"), state) == 0;
}

bool node_fresh(const json_t *node, uint64_t lease_ms)
{
	return node_in_state(node, "alive") &&
	       field_u64(node, "lease_age_ms") <= lease_ms;
}

bool node_connected(const json_t *node, uint64_t peer)
{
	const json_t *p;
	size_t i;

	json_array_foreach(json_object_get(node, "peers"), i,
	                   p) if (json_is_integer(json_object_get(p, "id")) &&
	                          field_u64(p, "id") ==
	                                  peer) return field_true(p,
	                                                          "connected");
	return false;
}

/* --- rules about one node ------------------------------------------------ */

static bool is_dead(const json_t *node, const json_t *cluster)
{
	(void)cluster;
	return node_in_state(node, "dead");
}

static bool is_fenced(const json_t *node, const json_t *cluster)
{
	(void)cluster;
	return node_in_state(node, "fenced");
}

static bool is_joining(const json_t *node, const json_t *cluster)
{
	(void)cluster;
	return node_in_state(node, "joining");
}

static bool is_late(const json_t *node, const json_t *cluster)
{
	return node_in_state(node, "alive") &&
	       !node_fresh(node, field_u64(cluster, "lease_ms"));
}

static bool is_apart(const json_t *node, const json_t *cluster)
{
	uint64_t id = field_u64(node, "id");
	const json_t *other;
	size_t i;

	if (!node_in_state(node, "alive"))
		return false;
	json_array_foreach(
		json_object_get(cluster, "nodes"), i,
		other) if (node_in_state(other, "alive") &&
	                   field_u64(other, "id") != id &&
	                   !node_connected(node,
	                                   field_u64(other, "id"))) return true;
	return false;
}

static bool is_over_limit(const json_t *node, const json_t *cluster)
{
	const json_t *memory = json_object_get(node, "memory");

	(void)cluster;
	return field_u64(memory, "resident_bytes") >
	       field_u64(memory, "limit_bytes");
}

/*
 * Somebody waits, or no peer took what it would evict: a refusal is over as
 * soon as there is room, so the last one counts for a while.
 */
static bool is_full(const json_t *node, const json_t *cluster)
{
	const json_t *memory = json_object_get(node, "memory");

	(void)cluster;
	if (!node_in_state(node, "alive"))
		return false;
	return field_u64(memory, "waiting") > 0 ||
	       (json_is_integer(json_object_get(memory, "refused_age_ms")) &&
	        field_u64(memory, "refused_age_ms") <= REFUSED_MS);
}

static const struct rule {
	const char *code;
	enum health level;
	bool (*applies)(const json_t *node, const json_t *cluster);
	const char *text;   /* after "1 of 3 nodes " */
	const char *remedy; /* after their numbers; may be NULL */
} rules[] = {
	{ "NODE_DEAD", HEALTH_ERR, is_dead,
	  "declared dead, what they alone held is gone", NULL },
	{ "NODE_FENCED", HEALTH_ERR, is_fenced,
	  "without a lease, they serve nobody", NULL },
	{ "NODE_JOINING", HEALTH_WARN, is_joining,
	  "registered but not yet here", NULL },
	{ "LEASE_LATE", HEALTH_WARN, is_late, "late to renew their lease",
	  NULL },
	{ "PEERS_APART", HEALTH_WARN, is_apart,
	  "without a connection to some other node", NULL },
	{ "MEMORY_OVER_LIMIT", HEALTH_WARN, is_over_limit,
	  "hold more than their --memory", NULL },
	{ "MEMORY_FULL", HEALTH_WARN, is_full,
	  "full, and no peer has room for what they evict",
	  "; add a node, or raise --memory" },
};

/* Apply one rule to all nodes: one reason that names them. */
static void judge_nodes(struct health_report *r, const struct rule *rule,
                        const json_t *cluster)
{
	const json_t *nodes = json_object_get(cluster, "nodes");
	const json_t *node;
	char names[120] = "";
	size_t i, at = 0;
	unsigned n = 0;

	json_array_foreach(nodes, i, node)
	{
		if (!rule->applies(node, cluster))
			continue;
		n++;
		/* Names that do not fit are left off; the number is right. */
		if (at < sizeof(names))
			at += (size_t)snprintf(
				names + at, sizeof(names) - at, "%s%llu",
				n > 1 ? ", " : "",
				(unsigned long long)field_u64(node, "id"));
	}
	if (n > 0)
		health_add(r, rule->level, rule->code,
		           "%u of %zu nodes %s: node %s%s", n,
		           json_array_size(nodes), rule->text, names,
		           rule->remedy ? rule->remedy : "");
}

/* --- rules about memory -------------------------------------------------- */

/*
 * Can those that live hold the spaces that were admitted?  Who insisted with
 * --overcommit has heard that they cannot.
 */
static void judge_capacity(struct health_report *r, const json_t *cluster)
{
	char have_text[SIZE_TEXT_BYTES], need_text[SIZE_TEXT_BYTES],
		add_text[SIZE_TEXT_BYTES];
	uint64_t have = 0, need = 0;
	const json_t *v;
	size_t i;

	json_array_foreach(json_object_get(cluster, "nodes"), i, v)
	{
		const json_t *memory = json_object_get(v, "memory");

		if (!node_in_state(v, "alive") && !node_in_state(v, "fenced"))
			continue;
		if (!json_is_integer(json_object_get(memory, "capacity_bytes")))
			return; /* a coordinator that does not know it */
		have += field_u64(memory, "capacity_bytes");
	}
	json_array_foreach(json_object_get(cluster, "spaces"), i, v)
	{
		if (!field_true(v, "overcommit"))
			need += field_u64(v, "size_bytes") *
			        field_u64(v, "replicas");
	}
	if (need > have)
		health_add(r, HEALTH_ERR, "CAPACITY_SHORT",
		           "capacity too small: the living nodes can hold %s, "
		           "the spaces need %s; add at least %s, by a node or "
		           "by --memory",
		           size_text(have, have_text),
		           size_text(need, need_text),
		           size_text((need - have + MIB - 1) / MIB * MIB,
		                     add_text));
}

/* --- rules about pages --------------------------------------------------- */

static void judge_pages(struct health_report *r, const json_t *cluster,
                        const char *key, enum health level, const char *code,
                        const char *text)
{
	const char *first = NULL;
	const json_t *space;
	uint64_t pages = 0;
	unsigned n = 0;
	size_t i;

	json_array_foreach(json_object_get(cluster, "spaces"), i, space)
	{
		uint64_t here = field_u64(json_object_get(space, "pages"), key);

		if (here == 0)
			continue;
		if (n++ == 0)
			first = field_text(space, "name");
		pages += here;
	}
	if (n == 1)
		health_add(r, level, code, "%llu pages of space %s %s",
		           (unsigned long long)pages, first, text);
	else if (n > 1)
		health_add(r, level, code,
		           "%llu pages of %u spaces (%s and others) %s",
		           (unsigned long long)pages, n, first, text);
}

void health_judge(struct health_report *r, const json_t *cluster)
{
	if (json_array_size(json_object_get(cluster, "nodes")) == 0)
		health_add(r, HEALTH_WARN, "NO_NODES",
		           "no node has joined; start one with memspan-node");
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		judge_nodes(r, &rules[i], cluster);
	judge_capacity(r, cluster);
	judge_pages(r, cluster, "lost", HEALTH_ERR, "PAGES_LOST",
	            "are lost: accesses end with SIGBUS");
	judge_pages(r, cluster, "missing", HEALTH_WARN, "PAGES_MISSING",
	            "wait for their node to come back");
	judge_pages(r, cluster, "under_replicated", HEALTH_WARN,
	            "UNDER_REPLICATED", "have fewer copies than ordered");
}
