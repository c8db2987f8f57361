/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers: the examples of docs/protocol.md byte for byte, and what is refused.
 *
 * The examples are the golden bytes.  Each ```hex block begins with the message
 * in words; the bytes follow.  Here the words are encoded and the bytes
 * decoded, and both must agree, so neither document nor code can drift alone.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "wire/wire.h"

#define EXAMPLE_BYTES_MAX (WIRE_HDR_BYTES + 65536)

static FILE *open_document(void)
{
	static const char name[] = "docs/protocol.md";
	char path[4096];
	const char *end = strstr(__FILE__, "test/unit/");
	FILE *f;

	/* __FILE__ is relative to the build directory, where tests run. */
	assert_non_null(end);
	snprintf(path, sizeof(path), "%.*s%s", (int)(end - __FILE__), __FILE__,
	         name);
	f = fopen(path, "re");
	if (!f)
		f = fopen(name, "re");
	if (!f)
		fail_msg("neither %s nor %s can be opened", path, name);
	return f;
}

static enum msg_type type_by_name(const char *name)
{
	for (unsigned t = 1; t < MSG_TYPE_END; t++)
		if (strcmp(msg_name((enum msg_type)t), name) == 0)
			return (enum msg_type)t;
	fail_msg("the document has a type that we lack: %s", name);
	return MSG_TYPE_END;
}

/* "get_s space=3 page=0x1234 mask=7": a message in words. */
static struct msg parse_words(char *line)
{
	char *save, *word = strtok_r(line, " \n", &save);
	struct msg m = { .type = type_by_name(word) };

	while ((word = strtok_r(NULL, " \n", &save))) {
		char *eq = strchr(word, '=');
		uint64_t v;

		assert_non_null(eq);
		*eq = '\0';
		v = strtoull(eq + 1, NULL, 0);
		if (strcmp(word, "flags") == 0)
			m.flags = (uint16_t)v;
		else if (strcmp(word, "space") == 0)
			m.space = (space_id)v;
		else if (strcmp(word, "epoch") == 0)
			m.epoch = (uint32_t)v;
		else if (strcmp(word, "page") == 0)
			m.page = v;
		else if (strcmp(word, "mask") == 0)
			m.mask = v;
		else if (strcmp(word, "arg") == 0)
			m.arg = v;
		else if (strcmp(word, "seq") == 0)
			m.seq = v;
		else if (strcmp(word, "ack") == 0)
			m.ack = v;
		else if (strcmp(word, "payload_bytes") == 0)
			m.payload_bytes = (uint32_t)v;
		else
			fail_msg("unknown field %s", word);
	}
	return m;
}

/* Append "6d 73  4096*11 ; comment" to the bytes. */
static size_t parse_bytes(char *line, uint8_t *bytes, size_t n)
{
	char *save, *word;

	line[strcspn(line, ";")] = '\0';
	for (word = strtok_r(line, " \n", &save); word;
	     word = strtok_r(NULL, " \n", &save)) {
		char *star = strchr(word, '*');
		unsigned long times = star ? strtoul(word, NULL, 10) : 1;
		unsigned long v = strtoul(star ? star + 1 : word, NULL, 16);

		assert_true(v <= 0xff && n + times <= EXAMPLE_BYTES_MAX);
		memset(bytes + n, (int)v, times);
		n += times;
	}
	return n;
}

static void assert_msg_equal(const struct msg *a, const struct msg *b)
{
	assert_string_equal(msg_name(a->type), msg_name(b->type));
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->space, b->space);
	assert_int_equal(a->epoch, b->epoch);
	assert_int_equal(a->page, b->page);
	assert_int_equal(a->mask, b->mask);
	assert_int_equal(a->arg, b->arg);
	assert_int_equal(a->seq, b->seq);
	assert_int_equal(a->ack, b->ack);
	assert_int_equal(a->payload_bytes, b->payload_bytes);
}

static void check_example(const struct msg *words, const uint8_t *bytes,
                          size_t n)
{
	const struct wire_hdr *hdr = (const void *)bytes;
	const uint8_t *payload = bytes + sizeof(*hdr);
	uint32_t crc, payload_crc;
	struct wire_hdr out;
	struct msg m;

	assert_int_equal(n, sizeof(*hdr) + words->payload_bytes);
	crc = crc32c(payload, words->payload_bytes);
	assert_int_equal(wire_decode(hdr, &m, &payload_crc), 0);
	assert_msg_equal(&m, words);
	assert_int_equal(payload_crc, crc);
	wire_encode(words, crc, &out);
	assert_memory_equal(&out, hdr, sizeof(out));
}

static void the_document_and_the_code_agree(void **state)
{
	uint8_t *bytes = malloc(EXAMPLE_BYTES_MAX);
	FILE *f = open_document();
	bool seen[MSG_TYPE_END] = { false };
	char line[1024];

	(void)state;
	assert_non_null(bytes);
	while (fgets(line, sizeof(line), f)) {
		struct msg words;
		size_t n = 0;

		if (strcmp(line, "```hex\n") != 0)
			continue;
		assert_non_null(fgets(line, sizeof(line), f));
		words = parse_words(line);
		while (fgets(line, sizeof(line), f) && line[0] != '`')
			n = parse_bytes(line, bytes, n);
		check_example(&words, bytes, n);
		seen[words.type] = true;
	}
	(void)fclose(f);
	free(bytes);

	for (unsigned t = 1; t < MSG_TYPE_END; t++) {
		enum msg_type type = (enum msg_type)t;

		/* Taken numbers have a name and no class, as nobody sends
		 * them; hello, ping and acked have no class either. */
		if (strcmp(msg_name(type), "unknown") == 0)
			continue;
		if (msg_class(type) == MSG_CLASS_NONE && type > MSG_ACKED)
			continue;
		if (!seen[t])
			fail_msg("no example of %s", msg_name(type));
	}
}

/* A header with the fields as given and a good crc, however illegal. */
static struct wire_hdr raw(const struct msg *m)
{
	struct wire_hdr hdr = {
		.magic = { 'm', 's', 'p', 'n' },
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
	};

	wire_seal(&hdr);
	return hdr;
}

static int decode(const struct msg *m)
{
	struct wire_hdr hdr = raw(m);
	uint32_t crc;
	struct msg out;

	return wire_decode(&hdr, &out, &crc);
}

static const struct msg get_s = {
	.type = MSG_GET_S, .space = 1, .page = 7, .mask = 1, .seq = 1
};
static const struct msg grant_s = { .type = MSG_GRANT_S,
	                            .space = 1,
	                            .page = 7,
	                            .mask = 5,
	                            .arg = 2,
	                            .seq = 1,
	                            .payload_bytes = 2 * PAGE_BYTES };
static const struct msg lease = { .type = MSG_LEASE, .seq = 1 };

static void every_flipped_bit_of_a_header_is_refused(void **state)
{
	struct wire_hdr hdr = raw(&get_s);
	uint8_t *bytes = (uint8_t *)&hdr;

	(void)state;
	for (unsigned bit = 0; bit < 8 * sizeof(hdr); bit++) {
		struct msg m = { .type = MSG_TYPE_END };
		uint32_t crc = 1;

		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(wire_decode(&hdr, &m, &crc) < 0);
		/* Nothing was stored. */
		assert_int_equal(m.type, MSG_TYPE_END);
		assert_int_equal(crc, 1);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(decode(&get_s), 0);
}

static void foreign_and_damaged_are_told_apart(void **state)
{
	struct wire_hdr hdr = raw(&get_s);
	uint32_t crc;
	struct msg m;

	(void)state;
	hdr.version = 2;
	assert_int_equal(wire_decode(&hdr, &m, &crc), -EPROTONOSUPPORT);
	hdr.magic[0] = 'M';
	assert_int_equal(wire_decode(&hdr, &m, &crc), -EBADMSG);
	hdr = raw(&get_s);
	hdr.space = le32_put(2);
	assert_int_equal(wire_decode(&hdr, &m, &crc), -EBADMSG);
	wire_seal(&hdr);
	assert_int_equal(wire_decode(&hdr, &m, &crc), 0);
	assert_int_equal(m.space, 2);
	hdr.reserved = le32_put(1);
	wire_seal(&hdr);
	assert_int_equal(wire_decode(&hdr, &m, &crc), -EPROTO);
}

static void unknown_and_taken_types_are_refused(void **state)
{
	(void)state;
	for (unsigned t = 0; t < 256; t++) {
		struct msg m = get_s;
		bool known;

		m.type = (enum msg_type)t;
		known = t < MSG_TYPE_END &&
		        (msg_class(m.type) != MSG_CLASS_NONE ||
		         t == MSG_HELLO || t == MSG_PING || t == MSG_ACKED);
		if (!known)
			assert_int_equal(decode(&m), -EPROTO);
	}
	assert_string_equal(msg_name(MSG_EVICT), "evict");
	assert_string_equal(msg_name((enum msg_type)4), "unknown");
	assert_string_equal(msg_name(MSG_TYPE_END), "unknown");
}

/* Refused with one field of `base` set to `value`. */
#define REFUSED(base, field, value)                     \
	do {                                            \
		struct msg m_ = (base);                 \
		assert_int_equal(decode(&m_), 0);       \
		m_.field = (value);                     \
		assert_int_equal(decode(&m_), -EPROTO); \
	} while (0)

static void fields_out_of_range_are_refused(void **state)
{
	struct msg m;

	(void)state;
	REFUSED(get_s, space, 0);
	REFUSED(get_s, mask, 0);
	REFUSED(get_s, mask, 2);
	REFUSED(get_s, page, WIRE_PAGE_END);
	REFUSED(get_s, arg, 1);
	REFUSED(get_s, seq, 0);
	REFUSED(get_s, payload_bytes, 1);
	REFUSED(get_s, flags, MSG_F_MIGRATE);
	REFUSED(get_s, flags, MSG_F_REPLY);
	REFUSED(get_s, flags, MSG_F_DISCARD);
	REFUSED(get_s, flags, MSG_F_MORE);
	REFUSED(grant_s, flags, MSG_F_STORE);
	REFUSED(grant_s, flags, MSG_F_MORE); /* of several pages */
	REFUSED(get_s, flags, 0x80);
	REFUSED(get_s, flags, MSG_F_TRACE); /* without its 24 bytes */
	REFUSED(grant_s, arg, 1);           /* granted and refused */
	REFUSED(grant_s, payload_bytes, PAGE_BYTES);
	REFUSED(grant_s, payload_bytes, 0);
	REFUSED(grant_s, mask, UINT64_MAX);
	m = (struct msg){
		.type = MSG_RECALL_X, .space = 1, .mask = 1, .seq = 1
	};
	REFUSED(m, arg, NODES_MAX);
	REFUSED(m, mask, 3);
	m.type = MSG_MOVED;
	REFUSED(m, arg, NODES_MAX);
	REFUSED(m, arg, 1ull << 48);
	m.arg = NODE_NONE;
	assert_int_equal(decode(&m), 0);
	m = (struct msg){
		.type = MSG_GRANT_ZERO, .space = 1, .mask = 1, .seq = 1
	};
	REFUSED(m, mask, 0);
}

static void control_fields_out_of_range_are_refused(void **state)
{
	struct msg m = lease;

	(void)state;
	REFUSED(lease, page, 1);
	REFUSED(lease, mask, 1);
	REFUSED(lease, space, 1);
	REFUSED(lease, flags, MSG_F_ERROR); /* of no question */
	REFUSED(lease, payload_bytes, WIRE_CONTROL_BYTES_MAX + 1);
	m.payload_bytes = WIRE_CONTROL_BYTES_MAX;
	assert_int_equal(decode(&m), 0);
	m = (struct msg){ .type = MSG_MEMBERS, .seq = 1 };
	REFUSED(m, payload_bytes, 95);
	REFUSED(m, payload_bytes, (NODES_MAX + 1) * 96);
	m = (struct msg){ .type = MSG_CLAIM, .space = 1, .arg = 2, .seq = 1 };
	REFUSED(m, page, 1);
	REFUSED(m, arg, 0);
	REFUSED(m, payload_bytes, 16); /* a question has no records */
	m.flags = MSG_F_REPLY;
	m.payload_bytes = 16;
	REFUSED(m, payload_bytes, 8);
	m = (struct msg){ .type = MSG_HELLO, .payload_bytes = 56 };
	REFUSED(m, arg, 1);
	REFUSED(m, payload_bytes, 57);
	REFUSED(m, seq, 1);
	m = (struct msg){ .type = MSG_ACKED };
	REFUSED(m, seq, 1);
	REFUSED(m, flags, MSG_F_TRACE);
}

static void a_payload_crc_without_payload_is_refused(void **state)
{
	struct wire_hdr hdr = raw(&get_s);
	uint32_t crc;
	struct msg m;

	(void)state;
	hdr.payload_crc = le32_put(1);
	wire_seal(&hdr);
	assert_int_equal(wire_decode(&hdr, &m, &crc), -EPROTO);
}

static void errors_carry_any_document(void **state)
{
	struct msg m = { .type = MSG_CLAIM,
		         .space = 1,
		         .arg = 2,
		         .seq = 1,
		         .flags = MSG_F_REPLY | MSG_F_ERROR,
		         .payload_bytes = 77 };

	(void)state;
	assert_int_equal(decode(&m), 0);
	m.flags |= MSG_F_TRACE;
	assert_int_equal(decode(&m), 0);
	m.payload_bytes = 23;
	assert_int_equal(decode(&m), -EPROTO);
}

static unsigned credits(enum msg_type type, uint64_t mask, uint64_t arg)
{
	struct msg m = { .type = type, .mask = mask, .arg = arg };

	return msg_credits(&m);
}

static void answers_give_back_what_requests_spend(void **state)
{
	(void)state;
	assert_int_equal(credits(MSG_GET_S, 0x7, 0), 3);
	assert_int_equal(credits(MSG_GET_X, UINT64_MAX, 0), 64);
	assert_int_equal(credits(MSG_GRANT_S, 0x3, 0x4), 3);
	assert_int_equal(credits(MSG_GRANT_X, 0x0, 0x4), 1);
	assert_int_equal(credits(MSG_GRANT_ZERO, 0x1, 0x6), 3);
	/* arg is no mask here. */
	assert_int_equal(credits(MSG_MOVED, 0x3, 0xff), 2);
	assert_int_equal(credits(MSG_AGAIN, 0x1, 0), 1);
	assert_int_equal(credits(MSG_UPGRADE, 0x1, 0), 1);
	assert_int_equal(credits(MSG_RECALL_X, 0x1, 3), 1);
	assert_int_equal(credits(MSG_ACK_DATA, 0x1, 99), 1);
	assert_int_equal(credits(MSG_FORGET, 0x1, 99), 0);
	assert_int_equal(credits(MSG_MEMBERS, 0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_document_and_the_code_agree),
		cmocka_unit_test(every_flipped_bit_of_a_header_is_refused),
		cmocka_unit_test(foreign_and_damaged_are_told_apart),
		cmocka_unit_test(unknown_and_taken_types_are_refused),
		cmocka_unit_test(fields_out_of_range_are_refused),
		cmocka_unit_test(control_fields_out_of_range_are_refused),
		cmocka_unit_test(a_payload_crc_without_payload_is_refused),
		cmocka_unit_test(errors_carry_any_document),
		cmocka_unit_test(answers_give_back_what_requests_spend),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
