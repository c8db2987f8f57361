/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wire headers, to bytes and back.  The layout is in wire.h; what each type may
 * say is the table `rules` below, one line a type, as in docs/protocol.md.
 *
 * Encoding and decoding hold a message to the same table: decoding because the
 * peer may be broken or hostile, encoding (by assertion) because what we send
 * wrongly would end the session at the other end.  There is exactly one way to
 * write a message, so whatever decodes is what encoding would have written.
 */

#include "wire/wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "wire/control.h"

static const uint8_t wire_magic[4] = { 'm', 's', 'p', 'n' };

/* What `space` may be. */
enum space_rule {
	SPACE_NONE, /* zero */
	SPACE_ONE,  /* the id of a space: not zero */
	SPACE_ANY,  /* either: the document says what it is about */
};

/* What `page` and `mask` may be. */
enum run_rule {
	RUN_NONE,   /* both zero */
	RUN_ONE,    /* one page: mask is 1 */
	RUN_SOME,   /* a run that begins with a page that is meant */
	RUN_GRANT,  /* mask and arg disjoint, not both empty */
	RUN_EXTENT, /* the first page of an extent; mask zero */
};

/* What `arg` may be. */
enum arg_rule {
	ARG_NONE,  /* zero */
	ARG_ANY,   /* a number of the sender's */
	ARG_MASK,  /* a second mask: RUN_GRANT looks at it */
	ARG_NODE,  /* a node id */
	ARG_HOME,  /* a node id or NODE_NONE, and a version of 32 bits */
	ARG_CLAIM, /* claim_decode() */
};

/* How long the payload may be. */
enum payload_rule {
	PAYLOAD_NONE,
	PAYLOAD_PAGES,   /* a page for each bit of mask */
	PAYLOAD_HELLO,   /* struct wire_hello */
	PAYLOAD_DOC,     /* up to WIRE_CONTROL_BYTES_MAX; may be empty */
	PAYLOAD_MEMBERS, /* struct wire_member[], at most NODES_MAX */
	PAYLOAD_RECORDS, /* a reply: struct wire_extent[], as arg says */
};

struct rule {
	const char *name; /* NULL: no such type */
	enum msg_class class;
	uint16_t flags; /* that may be set */
	bool reserved;  /* the number is taken, but nobody may send it yet */
	enum space_rule space;
	enum run_rule run;
	enum arg_rule arg;
	enum payload_rule payload;
};

#define PAGE_FLAGS    MSG_F_TRACE
#define MIGRATE_FLAGS (MSG_F_TRACE | MSG_F_MIGRATE)
#define STORE_FLAGS   (MSG_F_TRACE | MSG_F_STORE)
#define MORE_FLAGS    (MSG_F_TRACE | MSG_F_MORE)
#define DISCARD_FLAGS (MSG_F_TRACE | MSG_F_DISCARD)
#define CONTROL_FLAGS (MSG_F_TRACE | MSG_F_REPLY | MSG_F_ERROR)

/* clang-format off */
static const struct rule rules[MSG_TYPE_END] = {
#define R(type, name, class, flags, space, run, arg, payload)               \
	[MSG_##type] = { name, MSG_CLASS_##class, flags, false,             \
	                 SPACE_##space, RUN_##run, ARG_##arg,               \
	                 PAYLOAD_##payload }
#define TAKEN(type, text) \
	[MSG_##type] = { .name = text, .reserved = true }

R(HELLO,      "hello",      NONE,    0,             NONE, NONE,   NONE,    HELLO),
R(PING,       "ping",       NONE,    0,             NONE, NONE,   NONE,    NONE),
R(ACKED,      "acked",      NONE,    0,             NONE, NONE,   NONE,    NONE),

R(GET_S,      "get_s",      REQUEST, STORE_FLAGS,   ONE,  SOME,   NONE,    NONE),
R(GET_X,      "get_x",      REQUEST, PAGE_FLAGS,    ONE,  SOME,   NONE,    NONE),
R(DISCARD,    "discard",    REQUEST, PAGE_FLAGS,    ONE,  SOME,   NONE,    NONE),

R(GRANT_S,    "grant_s",    ANSWER,  MORE_FLAGS,    ONE,  GRANT,  MASK,    PAGES),
R(GRANT_X,    "grant_x",    ANSWER,  MIGRATE_FLAGS, ONE,  GRANT,  MASK,    PAGES),
R(GRANT_ZERO, "grant_zero", ANSWER,  PAGE_FLAGS,    ONE,  GRANT,  MASK,    NONE),
R(UPGRADE,    "upgrade",    ANSWER,  PAGE_FLAGS,    ONE,  ONE,    NONE,    NONE),
R(GRANT_LOST, "grant_lost", ANSWER,  PAGE_FLAGS,    ONE,  ONE,    NONE,    NONE),
R(DISCARDED,  "discarded",  ANSWER,  PAGE_FLAGS,    ONE,  SOME,   NONE,    NONE),
R(MOVED,      "moved",      ANSWER,  DISCARD_FLAGS, ONE,  SOME,   HOME,    NONE),
R(AGAIN,      "again",      ANSWER,  DISCARD_FLAGS, ONE,  SOME,   NONE,    NONE),

R(RECALL_S,   "recall_s",   RECALL,  PAGE_FLAGS,    ONE,  ONE,    NONE,    NONE),
R(RECALL_X,   "recall_x",   RECALL,  PAGE_FLAGS,    ONE,  ONE,    NODE,    NONE),
R(INVAL,      "inval",      RECALL,  PAGE_FLAGS,    ONE,  ONE,    NONE,    NONE),

R(ACK,        "ack",        ACK,     PAGE_FLAGS,    ONE,  ONE,    NONE,    NONE),
R(ACK_DATA,   "ack_data",   ACK,     PAGE_FLAGS,    ONE,  ONE,    ANY,     PAGES),
R(NOT_HELD,   "not_held",   ACK,     PAGE_FLAGS,    ONE,  ONE,    NONE,    NONE),

R(FORGET,     "forget",     FREE,    PAGE_FLAGS,    ONE,  ONE,    ANY,     NONE),

R(EVICT,      "evict",      REQUEST, PAGE_FLAGS,    ONE,  SOME,   NONE,    NONE),
R(DROP,       "drop",       ANSWER,  PAGE_FLAGS,    ONE,  GRANT,  MASK,    NONE),
R(STORE,      "store",      REQUEST, PAGE_FLAGS,    ONE,  SOME,   HOME,    NONE),
R(STORED,     "stored",     ANSWER,  PAGE_FLAGS,    ONE,  GRANT,  MASK,    NONE),

R(LEASE,      "lease",      CONTROL, CONTROL_FLAGS, NONE, NONE,   ANY,     DOC),
R(CLAIM,      "claim",      CONTROL, CONTROL_FLAGS, ONE,  EXTENT, CLAIM,   RECORDS),
R(MEMBERS,    "members",    CONTROL, CONTROL_FLAGS, NONE, NONE,   ANY,     MEMBERS),
R(SPACE_ADD,  "space_add",  CONTROL, CONTROL_FLAGS, ANY,  NONE,   ANY,     DOC),
R(SPACE_DROP, "space_drop", CONTROL, CONTROL_FLAGS, ANY,  NONE,   ANY,     DOC),
R(QUERY,      "query",      CONTROL, CONTROL_FLAGS, ANY,  NONE,   ANY,     DOC),
R(LEAVE,      "leave",      CONTROL, CONTROL_FLAGS, NONE, NONE,   ANY,     DOC),
R(PROMISE,    "promise",    CONTROL, CONTROL_FLAGS, NONE, NONE,   ANY,     NONE),
TAKEN(REPORT, "report"),
#undef R
#undef TAKEN
};
/* clang-format on */

/* Integers: the compiler makes one load or store of each on x86 and arm64. */

le16 le16_put(uint16_t v)
{
	le16 r;

	v = htole16(v);
	memcpy(r.b, &v, sizeof(r.b));
	return r;
}

le32 le32_put(uint32_t v)
{
	le32 r;

	v = htole32(v);
	memcpy(r.b, &v, sizeof(r.b));
	return r;
}

le64 le64_put(uint64_t v)
{
	le64 r;

	v = htole64(v);
	memcpy(r.b, &v, sizeof(r.b));
	return r;
}

uint16_t le16_get(le16 v)
{
	uint16_t r;

	memcpy(&r, v.b, sizeof(r));
	return le16toh(r);
}

uint32_t le32_get(le32 v)
{
	uint32_t r;

	memcpy(&r, v.b, sizeof(r));
	return le32toh(r);
}

uint64_t le64_get(le64 v)
{
	uint64_t r;

	memcpy(&r, v.b, sizeof(r));
	return le64toh(r);
}

enum msg_class msg_class(enum msg_type type)
{
	assert(type < MSG_TYPE_END);
	return rules[type].class;
}

const char *msg_name(enum msg_type type)
{
	if (type >= MSG_TYPE_END || rules[type].name == NULL)
		return "unknown";
	return rules[type].name;
}

bool msg_has_refused(enum msg_type type)
{
	assert(type < MSG_TYPE_END);
	return rules[type].run == RUN_GRANT;
}

unsigned msg_payload_pages(const struct msg *m)
{
	if (rules[m->type].payload != PAYLOAD_PAGES)
		return 0;
	return (unsigned)__builtin_popcountll(m->mask);
}

unsigned msg_credits(const struct msg *m)
{
	uint64_t pages = m->mask;

	switch (rules[m->type].class) {
	case MSG_CLASS_ANSWER:
		/* The UPGRADE behind it answers. */
		if ((m->flags & MSG_F_MORE) != 0)
			return 0;
		/* Prefetch that is refused is answered too [B4]. */
		if (rules[m->type].run == RUN_GRANT)
			pages |= m->arg;
		return (unsigned)__builtin_popcountll(pages);
	case MSG_CLASS_REQUEST:
		return (unsigned)__builtin_popcountll(pages);
	case MSG_CLASS_RECALL:
	case MSG_CLASS_ACK:
		return 1;
	case MSG_CLASS_NONE:
	case MSG_CLASS_FREE:
	case MSG_CLASS_CONTROL:
		return 0;
	}
	return 0;
}

static bool space_good(const struct msg *m, enum space_rule rule)
{
	switch (rule) {
	case SPACE_NONE:
		return m->space == 0;
	case SPACE_ONE:
		return m->space != 0;
	case SPACE_ANY:
		return true;
	}
	return false;
}

static bool run_good(const struct msg *m, enum run_rule rule)
{
	/* Far from overflow, whatever a reader adds to it. */
	if (m->page >= WIRE_PAGE_END)
		return false;

	switch (rule) {
	case RUN_NONE:
		return m->page == 0 && m->mask == 0;
	case RUN_ONE:
		return m->mask == 1;
	case RUN_SOME:
		return (m->mask & 1) != 0;
	case RUN_GRANT:
		return (m->mask & m->arg) == 0 && (m->mask | m->arg) != 0;
	case RUN_EXTENT:
		return m->page % EXTENT_PAGES == 0 && m->mask == 0;
	}
	return false;
}

static bool arg_good(const struct msg *m, enum arg_rule rule)
{
	struct claim claim;
	uint64_t home;

	switch (rule) {
	case ARG_NONE:
		return m->arg == 0;
	case ARG_ANY:
	case ARG_MASK:
		return true;
	case ARG_NODE:
		return m->arg < NODES_MAX;
	case ARG_HOME:
		home = m->arg & 0xffff;
		return m->arg >> 48 == 0 &&
		       (home < NODES_MAX || home == NODE_NONE);
	case ARG_CLAIM:
		return claim_decode(m->arg, &claim) == 0;
	}
	return false;
}

static bool payload_good(const struct msg *m, enum payload_rule rule)
{
	uint32_t bytes = m->payload_bytes;
	struct claim claim;

	if (m->flags & MSG_F_TRACE) {
		if (bytes < WIRE_TRACE_BYTES)
			return false;
		bytes -= WIRE_TRACE_BYTES;
	}
	if (m->flags & MSG_F_ERROR)
		return bytes <= WIRE_CONTROL_BYTES_MAX;

	switch (rule) {
	case PAYLOAD_NONE:
		return bytes == 0;
	case PAYLOAD_PAGES:
		return bytes == msg_payload_pages(m) * PAGE_BYTES;
	case PAYLOAD_HELLO:
		return bytes == sizeof(struct wire_hello);
	case PAYLOAD_DOC:
		return bytes <= WIRE_CONTROL_BYTES_MAX;
	case PAYLOAD_MEMBERS:
		return bytes % sizeof(struct wire_member) == 0 &&
		       bytes <= NODES_MAX * sizeof(struct wire_member);
	case PAYLOAD_RECORDS:
		if (!(m->flags & MSG_F_REPLY))
			return bytes == 0;
		return claim_decode(m->arg, &claim) == 0 &&
		       bytes == claim.n_extents * sizeof(struct wire_extent);
	}
	return false;
}

/* Is every field in range for the type?  Both directions ask. */
static bool msg_good(const struct msg *m)
{
	const struct rule *rule;

	if ((unsigned)m->type >= MSG_TYPE_END)
		return false;
	rule = &rules[m->type];
	if (rule->name == NULL || rule->reserved)
		return false;
	if ((m->flags & ~rule->flags) != 0)
		return false;
	if ((m->flags & MSG_F_ERROR) && !(m->flags & MSG_F_REPLY))
		return false;
	if ((m->flags & MSG_F_MORE) && (m->mask != 1 || m->arg != 0))
		return false;
	if ((m->seq == 0) != (rule->class == MSG_CLASS_NONE))
		return false;
	return space_good(m, rule->space) && run_good(m, rule->run) &&
	       arg_good(m, rule->arg) && payload_good(m, rule->payload);
}

void wire_encode(const struct msg *m, uint32_t payload_crc,
                 struct wire_hdr *out)
{
	assert(msg_good(m));
	assert(m->payload_bytes > 0 || payload_crc == 0);

	*out = (struct wire_hdr){
		.version = WIRE_VERSION,
		.type = (uint8_t)m->type,
		.flags = le16_put(m->flags),
		.space = le32_put(m->space),
		.epoch = le32_put(m->epoch),
		.page = le64_put(m->page),
		.mask = le64_put(m->mask),
		.arg = le64_put(m->arg),
		.seq = le64_put(m->seq),
		.ack = le64_put(m->ack),
		.payload_bytes = le32_put(m->payload_bytes),
		.payload_crc = le32_put(payload_crc),
	};
	memcpy(out->magic, wire_magic, sizeof(out->magic));
	wire_seal(out);
}

void wire_seal(struct wire_hdr *hdr)
{
	hdr->crc = le32_put(crc32c(hdr, offsetof(struct wire_hdr, crc)));
}

int wire_decode(const struct wire_hdr *in, struct msg *ret,
                uint32_t *payload_crc)
{
	uint32_t crc;
	struct msg m;

	/*
	 * Magic and version first: they stay where they are in every version,
	 * so a foreign peer is told apart from a damaged message.
	 */
	if (memcmp(in->magic, wire_magic, sizeof(wire_magic)) != 0)
		return -EBADMSG;
	if (in->version != WIRE_VERSION)
		return -EPROTONOSUPPORT;
	if (le32_get(in->crc) != crc32c(in, offsetof(struct wire_hdr, crc)))
		return -EBADMSG;

	m = (struct msg){
		.type = (enum msg_type)in->type,
		.flags = le16_get(in->flags),
		.space = le32_get(in->space),
		.epoch = le32_get(in->epoch),
		.page = le64_get(in->page),
		.mask = le64_get(in->mask),
		.arg = le64_get(in->arg),
		.seq = le64_get(in->seq),
		.ack = le64_get(in->ack),
		.payload_bytes = le32_get(in->payload_bytes),
	};
	crc = le32_get(in->payload_crc);
	if (le32_get(in->reserved) != 0 || !msg_good(&m))
		return -EPROTO;
	if (m.payload_bytes == 0 && crc != 0)
		return -EPROTO;

	*ret = m;
	*payload_crc = crc;
	return 0;
}
