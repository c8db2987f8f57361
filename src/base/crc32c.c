/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table form: half a byte a step, so that the table is one cache line and
 * can be checked by eye.  It is the reference for ISA-L in the tests, and the
 * fallback where that is not installed: crc32c_isal.c or crc32c_absent.c,
 * whichever meson chose, says what crc32c_more() is made of.
 */

#include "base/crc32c.h"

/* table[n]: the four bits n divided by the reflected polynomial 0x82f63b78. */
static const uint32_t table[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, //
	0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d, //
	0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, //
	0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t crc32c_table_more(uint32_t crc, const void *p, size_t bytes)
{
	const uint8_t *b = p;

	crc = ~crc;
	for (size_t i = 0; i < bytes; i++) {
		crc ^= b[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

uint32_t crc32c(const void *p, size_t bytes)
{
	return crc32c_more(0, p, bytes);
}
