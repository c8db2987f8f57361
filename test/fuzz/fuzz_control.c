/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A claim and an extent out of any 16 bytes: refused, or exactly what encoding
 * would have written.
 */

#include <string.h>

#include "wire/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_extent in, out;
	struct extent_info e;
	struct claim c;
	le64 arg;

	if (size < sizeof(arg) + sizeof(in))
		return 0;
	memcpy(&arg, data, sizeof(arg));
	memcpy(&in, data + sizeof(arg), sizeof(in));

	if (claim_decode(le64_get(arg), &c) == 0 &&
	    (claim_arg(&c) != le64_get(arg) || c.n_extents == 0 ||
	     c.n_extents > CLAIM_EXTENTS_MAX || c.n_open > c.n_extents))
		abort();
	if (extent_decode(&in, &e) < 0)
		return 0;
	extent_encode(&e, &out);
	if (memcmp(&in, &out, sizeof(in)) != 0)
		abort();
	return 0;
}
