/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of control messages, to bytes and back: claims of extents, and the
 * membership.  As in wire.c there is one way to write each, and decoding leaves
 * nothing to check.
 */

#include "wire/control.h"

#include <errno.h>
#include <string.h>

/*
 * arg of CLAIM: bits 0-15 number of extents, 16-31 how many of them to open,
 * 32 only ask.
 */
#define CLAIM_OPEN_SHIFT 16
#define CLAIM_ASK        (1ull << 32)

static bool claim_good(const struct claim *c)
{
	if (c->n_extents == 0 || c->n_extents > CLAIM_EXTENTS_MAX)
		return false;
	/* Who only asks takes nothing, so there is nothing to open. */
	return c->n_open <= (c->ask ? 0 : c->n_extents);
}

uint64_t claim_arg(const struct claim *c)
{
	assert(claim_good(c));
	return c->n_extents | (uint64_t)c->n_open << CLAIM_OPEN_SHIFT |
	       (c->ask ? CLAIM_ASK : 0);
}

int claim_decode(uint64_t arg, struct claim *ret)
{
	struct claim c = {
		.n_extents = arg & 0xffff,
		.n_open = arg >> CLAIM_OPEN_SHIFT & 0xffff,
		.ask = (arg & CLAIM_ASK) != 0,
	};

	if (arg >> 33 != 0 || !claim_good(&c))
		return -EPROTO;
	*ret = c;
	return 0;
}

static bool extent_good(const struct extent_info *e)
{
	/* Nobody's extent cannot have been opened. */
	if (e->home == NODE_NONE)
		return !e->opened;
	return e->home < NODES_MAX;
}

void extent_encode(const struct extent_info *e, struct wire_extent *out)
{
	assert(extent_good(e));
	*out = (struct wire_extent){
		.home = le16_put(e->home),
		.opened = e->opened,
		.version = le32_put(e->version),
	};
}

int extent_decode(const struct wire_extent *in, struct extent_info *ret)
{
	struct extent_info e = {
		.home = le16_get(in->home),
		.opened = in->opened == 1,
		.version = le32_get(in->version),
	};

	if (in->opened > 1 || in->reserved != 0 || !extent_good(&e))
		return -EPROTO;
	*ret = e;
	return 0;
}

/*
 * "HOST:PORT" in visible ASCII, NUL-padded to the end: text that can be printed
 * and compared, however it got here.
 */
static bool endpoint_good(const char *endpoint, size_t bytes)
{
	size_t n = 0;

	while (n < bytes && endpoint[n] > ' ' && endpoint[n] < 0x7f)
		n++;
	if (n == bytes)
		return false;
	while (n < bytes && endpoint[n] == '\0')
		n++;
	return n == bytes;
}

static bool member_good(const struct member *m)
{
	return m->id < NODES_MAX && (unsigned)m->state <= MEMBER_DRAINED &&
	       m->shards <= SHARDS_MAX &&
	       endpoint_good(m->endpoint, sizeof(m->endpoint));
}

void member_encode(const struct member *m, struct wire_member *out)
{
	struct member clean = *m;

	/* What lies behind the text in a char array is anything. */
	memset(clean.endpoint, 0, sizeof(clean.endpoint));
	memcpy(clean.endpoint, m->endpoint,
	       strnlen(m->endpoint, sizeof(m->endpoint)));
	assert(member_good(&clean));

	*out = (struct wire_member){
		.id = le16_put(m->id),
		.state = (uint8_t)m->state,
		.shards = m->shards,
		.incarnation = le64_put(m->incarnation),
		.limit_bytes = le64_put(m->limit_bytes),
		.free_bytes = le64_put(m->free_bytes),
	};
	memcpy(out->endpoint, clean.endpoint, sizeof(out->endpoint));
}

int member_decode(const struct wire_member *in, struct member *ret)
{
	struct member m = {
		.id = le16_get(in->id),
		.state = (enum member_state)in->state,
		.shards = in->shards,
		.incarnation = le64_get(in->incarnation),
		.limit_bytes = le64_get(in->limit_bytes),
		.free_bytes = le64_get(in->free_bytes),
	};

	static_assert(sizeof(m.endpoint) == sizeof(in->endpoint),
	              "copied as it is");
	memcpy(m.endpoint, in->endpoint, sizeof(m.endpoint));
	if (le32_get(in->reserved) != 0 || !member_good(&m))
		return -EPROTO;
	*ret = m;
	return 0;
}

int members_check(const void *payload, uint32_t payload_bytes)
{
	const struct wire_member *records = payload;
	uint32_t n = payload_bytes / sizeof(*records);
	int last = -1;

	if (payload_bytes % sizeof(*records) != 0 || n > NODES_MAX)
		return -EPROTO;
	for (uint32_t i = 0; i < n; i++) {
		struct member m;

		if (member_decode(&records[i], &m) < 0)
			return -EPROTO;
		/* Ascending, so that no node is in it twice. */
		if ((int)m.id <= last)
			return -EPROTO;
		last = m.id;
	}
	return (int)n;
}
