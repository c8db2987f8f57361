/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hello: who speaks, to whom, in which versions, and what was applied.
 *
 * Its layout is the same in every version, for it is where the version is
 * settled.  Feature bits that the reader does not know are no error: in force
 * is what both ends have.
 */

#include <errno.h>
#include <string.h>

#include "wire/wire.h"

static bool node_good(node_id node)
{
	return node < NODES_MAX || node == NODE_NONE;
}

static bool hello_good(const struct hello *h)
{
	if (h->version_min == 0 || h->version_min > h->version_max)
		return false;
	if (!node_good(h->node) || !node_good(h->to_node))
		return false;
	/* Nobody calls itself, and no coordinator another one. */
	if (h->node == h->to_node)
		return false;
	if ((unsigned)h->refusal >= HELLO_REFUSAL_END)
		return false;
	if (h->shards > SHARDS_MAX || h->to_shard >= SHARDS_MAX)
		return false;
	/* A coordinator has no shards; its end is called 0. */
	if (h->node == NODE_NONE)
		return h->from_shard == 0;
	return h->from_shard < h->shards;
}

void hello_encode(const struct hello *h, struct wire_hello *out)
{
	assert(hello_good(h));
	*out = (struct wire_hello){
		.version_min = le16_put(h->version_min),
		.version_max = le16_put(h->version_max),
		.features = le32_put(h->features),
		.node = le16_put(h->node),
		.to_node = le16_put(h->to_node),
		.from_shard = h->from_shard,
		.to_shard = h->to_shard,
		.shards = h->shards,
		.refusal = (uint8_t)h->refusal,
		.incarnation = le64_put(h->incarnation),
		.to_incarnation = le64_put(h->to_incarnation),
		.applied = le64_put(h->applied),
	};
	memcpy(out->cluster, h->cluster, sizeof(out->cluster));
}

int hello_decode(const struct wire_hello *in, struct hello *ret)
{
	struct hello h = {
		.version_min = le16_get(in->version_min),
		.version_max = le16_get(in->version_max),
		.features = le32_get(in->features),
		.node = le16_get(in->node),
		.to_node = le16_get(in->to_node),
		.from_shard = in->from_shard,
		.to_shard = in->to_shard,
		.shards = in->shards,
		.refusal = (enum hello_refusal)in->refusal,
		.incarnation = le64_get(in->incarnation),
		.to_incarnation = le64_get(in->to_incarnation),
		.applied = le64_get(in->applied),
	};

	if (!hello_good(&h))
		return -EPROTO;
	memcpy(h.cluster, in->cluster, sizeof(h.cluster));
	*ret = h;
	return 0;
}

int hello_agree(const struct hello *ours, const struct hello *theirs,
                struct errmsg *em)
{
	uint16_t max = ours->version_max < theirs->version_max ?
	                       ours->version_max :
	                       theirs->version_max;

	/* The smaller maximum is spoken by both, unless it lies below the
	 * other's range: then nothing is. */
	if (max < ours->version_min || max < theirs->version_min)
		return errmsg_say(em, -EPROTONOSUPPORT,
		                  "we speak wire versions %u to %u, the peer "
		                  "%u to %u; run the same release on both",
		                  ours->version_min, ours->version_max,
		                  theirs->version_min, theirs->version_max);
	return max;
}
