/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hello: there and back, what is refused, and which version is spoken.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "wire/wire.h"

static const struct hello good = {
	.version_min = 1,
	.version_max = 3,
	.features = 0x80000001,
	.node = 1,
	.to_node = 0,
	.from_shard = 1,
	.to_shard = 15,
	.shards = 2,
	.refusal = HELLO_ENDED,
	.incarnation = 0x1122334455667788,
	.to_incarnation = 4,
	.applied = 17,
	.cluster = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
};

static void what_was_said_is_heard(void **state)
{
	struct wire_hello wire;
	struct hello h;

	(void)state;
	hello_encode(&good, &wire);
	assert_int_equal(hello_decode(&wire, &h), 0);
	assert_int_equal(h.version_min, 1);
	assert_int_equal(h.version_max, 3);
	assert_int_equal(h.features, 0x80000001);
	assert_int_equal(h.node, 1);
	assert_int_equal(h.to_node, 0);
	assert_int_equal(h.from_shard, 1);
	assert_int_equal(h.to_shard, 15);
	assert_int_equal(h.shards, 2);
	assert_int_equal(h.refusal, HELLO_ENDED);
	assert_int_equal(h.incarnation, 0x1122334455667788);
	assert_int_equal(h.to_incarnation, 4);
	assert_int_equal(h.applied, 17);
	assert_memory_equal(h.cluster, good.cluster, 16);
}

static void a_coordinator_says_hello_without_shards(void **state)
{
	struct hello h = good, out;
	struct wire_hello wire;

	(void)state;
	h.node = NODE_NONE;
	h.from_shard = 0;
	h.shards = 0;
	hello_encode(&h, &wire);
	assert_int_equal(hello_decode(&wire, &out), 0);
	assert_int_equal(out.node, NODE_NONE);
}

/* `good`, with the byte at `offset` set to `value`, is refused. */
static void refused(size_t offset, uint8_t value)
{
	struct hello h = { .node = 99 };
	struct wire_hello wire;

	hello_encode(&good, &wire);
	((uint8_t *)&wire)[offset] = value;
	assert_int_equal(hello_decode(&wire, &h), -EPROTO);
	assert_int_equal(h.node, 99);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	refused(offsetof(struct wire_hello, version_min), 0);
	refused(offsetof(struct wire_hello, version_min), 4);
	refused(offsetof(struct wire_hello, node) + 1, 4);    /* node 1025 */
	refused(offsetof(struct wire_hello, to_node) + 1, 4); /* node 1024 */
	refused(offsetof(struct wire_hello, to_node), 1);     /* itself */
	refused(offsetof(struct wire_hello, from_shard), 2);
	refused(offsetof(struct wire_hello, to_shard), SHARDS_MAX);
	refused(offsetof(struct wire_hello, shards), 0);
	refused(offsetof(struct wire_hello, shards), SHARDS_MAX + 1);
	refused(offsetof(struct wire_hello, refusal), HELLO_REFUSAL_END);
}

static int agree(uint16_t our_min, uint16_t our_max, uint16_t their_min,
                 uint16_t their_max, struct errmsg *em)
{
	struct hello ours = good, theirs = good;

	ours.version_min = our_min;
	ours.version_max = our_max;
	theirs.version_min = their_min;
	theirs.version_max = their_max;
	return hello_agree(&ours, &theirs, em);
}

static void the_newest_common_version_is_spoken(void **state)
{
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(agree(1, 1, 1, 1, &em), 1);
	assert_int_equal(agree(1, 2, 1, 3, &em), 2);
	assert_int_equal(agree(2, 4, 1, 3, &em), 3);
	assert_int_equal(agree(2, 3, 3, 9, &em), 3);
	assert_string_equal(em.text, "");
}

static void no_common_version_is_said_with_both_ranges(void **state)
{
	struct errmsg em;

	(void)state;
	assert_int_equal(agree(1, 2, 3, 4, &em), -EPROTONOSUPPORT);
	assert_string_equal(em.text,
	                    "we speak wire versions 1 to 2, the peer 3 to 4; "
	                    "run the same release on both");
	assert_int_equal(agree(5, 6, 3, 4, &em), -EPROTONOSUPPORT);
	assert_int_equal(agree(5, 6, 3, 4, NULL), -EPROTONOSUPPORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_said_is_heard),
		cmocka_unit_test(a_coordinator_says_hello_without_shards),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(the_newest_common_version_is_spoken),
		cmocka_unit_test(no_common_version_is_said_with_both_ranges),
	};

	return cmocka_run_group_tests_name("hello", tests, NULL, NULL);
}
