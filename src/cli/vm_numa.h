/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest is told of where its memory lives.
 *
 * Each run of the space that is bound to one node of the cluster becomes a NUMA
 * node of the guest.  The guest's processors are all here, so one guest node
 * has them, together with the first run that is bound here; the others have
 * memory alone.  What is not bound goes to whoever touches it first, and that
 * is the guest, so it counts as bound here.
 *
 * The guest has one memory backend.  QEMU 7.2 takes a part of a file for a
 * backend only from its beginning (offset= came with 8.1), and only machine
 * types up to 5.0 may cut one backend into nodes by size (-numa node,mem=).
 * So --numa settles for such a type.
 *
 * Pure.
 */
#pragma once

#include <jansson.h>

#include "base/base.h"

#define VM_NODES_MAX 65u /* runs of a space, and one for the processors */

struct vm_node {
	uint64_t bytes; /* of the guest's memory, behind the node before */
	unsigned node;  /* of the cluster */
};

struct vm_nodes {
	struct vm_node v[VM_NODES_MAX];
	size_t n;
	size_t cpus; /* which of them has the processors */
};

/*
 * Tell the nodes of a guest of `ram_bytes` on this cluster's node `here`, whose
 * space is bound by `bind`: null, "interleave" or a list, as the coordinator
 * shows it.  An interleaved space has no runs: it becomes one node.  Returns 0,
 * or -EINVAL if there are too many runs, with a sentence in em.
 */
int vm_numa_read(const json_t *bind, uint64_t ram_bytes, unsigned here,
                 struct vm_nodes *ret, struct errmsg *em);

/* Whether the guest can be told how fast each node is (HMAT): Linux takes that
 * only if the processors' own node has memory. */
bool vm_numa_has_hmat(const struct vm_nodes *nodes);

/*
 * The machine type that --numa needs where the command line says `type`, ""
 * for nothing: *ret is a literal, or NULL if `type` will do as it is.  Returns
 * 0, or -EINVAL with a sentence in em if no such type is like it.
 */
int vm_numa_machine(const char *type, const char **ret, struct errmsg *em);
