/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of control messages: there and back, and what is refused.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "wire/control.h"

static void a_claim_fits_its_argument(void **state)
{
	struct claim c = { .n_extents = 64, .n_open = 3 };
	struct claim out;

	(void)state;
	assert_int_equal(claim_arg(&c), 64 | 3 << 16);
	assert_int_equal(claim_decode(claim_arg(&c), &out), 0);
	assert_int_equal(out.n_extents, 64);
	assert_int_equal(out.n_open, 3);
	assert_false(out.ask);
	c = (struct claim){ .n_extents = 1, .ask = true };
	assert_int_equal(claim_arg(&c), 1ull << 32 | 1);
	assert_int_equal(claim_decode(claim_arg(&c), &out), 0);
	assert_true(out.ask);
}

static void claims_of_nothing_or_too_much_are_refused(void **state)
{
	struct claim c = { .n_extents = 99 };

	(void)state;
	assert_int_equal(claim_decode(0, &c), -EPROTO);
	assert_int_equal(claim_decode(65, &c), -EPROTO);
	assert_int_equal(claim_decode(2 | 3 << 16, &c), -EPROTO);
	assert_int_equal(claim_decode(1ull << 33 | 1, &c), -EPROTO);
	/* Who only asks opens nothing. */
	assert_int_equal(claim_decode(1ull << 32 | 1 << 16 | 1, &c), -EPROTO);
	assert_int_equal(c.n_extents, 99);
}

static void an_extent_goes_there_and_back(void **state)
{
	struct extent_info e = { .home = 5, .opened = true, .version = 7 };
	struct extent_info out;
	struct wire_extent wire;

	(void)state;
	extent_encode(&e, &wire);
	assert_int_equal(extent_decode(&wire, &out), 0);
	assert_int_equal(out.home, 5);
	assert_true(out.opened);
	assert_int_equal(out.version, 7);
	e = (struct extent_info){ .home = NODE_NONE };
	extent_encode(&e, &wire);
	assert_int_equal(extent_decode(&wire, &out), 0);
	assert_int_equal(out.home, NODE_NONE);
}

static void nonsense_of_extents_is_refused(void **state)
{
	struct wire_extent wire = { .home = le16_put(NODES_MAX) };
	struct extent_info out;

	(void)state;
	assert_int_equal(extent_decode(&wire, &out), -EPROTO);
	wire = (struct wire_extent){ .opened = 2 };
	assert_int_equal(extent_decode(&wire, &out), -EPROTO);
	wire = (struct wire_extent){ .reserved = 1 };
	assert_int_equal(extent_decode(&wire, &out), -EPROTO);
	wire = (struct wire_extent){ .home = le16_put(NODE_NONE), .opened = 1 };
	assert_int_equal(extent_decode(&wire, &out), -EPROTO);
}

static const struct member good = {
	.id = 1023,
	.state = MEMBER_FENCED,
	.shards = 16,
	.incarnation = 77,
	.limit_bytes = 1ull << 40,
	.free_bytes = 1ull << 39,
	.endpoint = "127.0.0.1:50051",
};

static void a_member_goes_there_and_back(void **state)
{
	struct wire_member wire;
	struct member m;

	(void)state;
	member_encode(&good, &wire);
	assert_int_equal(member_decode(&wire, &m), 0);
	assert_int_equal(m.id, 1023);
	assert_int_equal(m.state, MEMBER_FENCED);
	assert_int_equal(m.shards, 16);
	assert_int_equal(m.incarnation, 77);
	assert_int_equal(m.limit_bytes, 1ull << 40);
	assert_int_equal(m.free_bytes, 1ull << 39);
	assert_string_equal(m.endpoint, "127.0.0.1:50051");
}

static void what_lies_behind_an_endpoint_is_not_sent(void **state)
{
	struct member m = good;
	struct wire_member a, b;

	(void)state;
	memset(m.endpoint + sizeof("127.0.0.1:50051"), 'x', 20);
	member_encode(&m, &a);
	member_encode(&good, &b);
	assert_memory_equal(&a, &b, sizeof(a));
}

static void refused(size_t offset, uint8_t value)
{
	struct wire_member wire;
	struct member m = { .shards = 99 };

	member_encode(&good, &wire);
	((uint8_t *)&wire)[offset] = value;
	assert_int_equal(member_decode(&wire, &m), -EPROTO);
	assert_int_equal(m.shards, 99);
	assert_int_equal(members_check(&wire, sizeof(wire)), -EPROTO);
}

static void nonsense_of_members_is_refused(void **state)
{
	size_t endpoint = offsetof(struct wire_member, endpoint);

	(void)state;
	refused(offsetof(struct wire_member, id) + 1, 4); /* 1279 */
	refused(offsetof(struct wire_member, state), MEMBER_DRAINED + 1);
	refused(offsetof(struct wire_member, shards), 17);
	refused(offsetof(struct wire_member, reserved) + 3, 1);
	refused(endpoint, ' ');
	refused(endpoint + 3, '\n');
	refused(endpoint + 3, 0x80);
	refused(endpoint + 3, 0);  /* text behind its end */
	refused(endpoint + 63, 1); /* no end */
}

static void a_membership_is_checked_whole(void **state)
{
	struct wire_member wire[3];
	struct member m = good;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		m.id = (node_id)(2 * i);
		member_encode(&m, &wire[i]);
	}
	assert_int_equal(members_check(wire, sizeof(wire)), 3);
	assert_int_equal(members_check(wire, 0), 0);
	assert_int_equal(members_check(wire, sizeof(wire) - 1), -EPROTO);
	wire[2].id = wire[1].id;
	assert_int_equal(members_check(wire, sizeof(wire)), -EPROTO);
	wire[2].id = le16_put(1);
	assert_int_equal(members_check(wire, sizeof(wire)), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_claim_fits_its_argument),
		cmocka_unit_test(claims_of_nothing_or_too_much_are_refused),
		cmocka_unit_test(an_extent_goes_there_and_back),
		cmocka_unit_test(nonsense_of_extents_is_refused),
		cmocka_unit_test(a_member_goes_there_and_back),
		cmocka_unit_test(what_lies_behind_an_endpoint_is_not_sent),
		cmocka_unit_test(nonsense_of_members_is_refused),
		cmocka_unit_test(a_membership_is_checked_whole),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
