/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A membership of any bytes: refused, or records of different nodes, each of
 * which encoding would have written, with an endpoint that can be printed.
 */

#include <string.h>

#include "wire/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct wire_member *in = (const void *)data;
	int n;

	if (size > UINT32_MAX)
		return 0;
	n = members_check(data, (uint32_t)size);
	if (n < 0)
		return 0;
	if ((size_t)n * sizeof(*in) != size || (unsigned)n > NODES_MAX)
		abort();
	for (int i = 0; i < n; i++) {
		struct wire_member out;
		struct member m;

		if (member_decode(&in[i], &m) < 0)
			abort();
		if (strnlen(m.endpoint, sizeof(m.endpoint)) ==
		    sizeof(m.endpoint))
			abort();
		member_encode(&m, &out);
		if (memcmp(&in[i], &out, sizeof(out)) != 0)
			abort();
	}
	return 0;
}
