/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any 56 bytes are either refused or what hello_encode() would have sent, and
 * a version agreed on lies in both ranges.
 */

#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hello ours = { .version_min = 2, .version_max = 5 };
	struct wire_hello in, out;
	struct errmsg em;
	struct hello h;
	int version;

	if (size < sizeof(in))
		return 0;
	memcpy(&in, data, sizeof(in));
	if (hello_decode(&in, &h) < 0)
		return 0;
	hello_encode(&h, &out);
	if (memcmp(&in, &out, sizeof(in)) != 0)
		abort();

	version = hello_agree(&ours, &h, &em);
	if (version > 0 && (version < 2 || version > 5 ||
	                    version < h.version_min || version > h.version_max))
		abort();
	return 0;
}
