/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any 72 bytes are either refused or exactly what wire_encode() would have
 * sent: there is one way to write each message, and nothing slips through.
 */

#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_hdr in, out;
	uint32_t payload_crc;
	struct msg m;

	if (size < sizeof(in))
		return 0;
	memcpy(&in, data, sizeof(in));

	/* Make the checksum good, or the fuzzer would never get past it. */
	wire_seal(&in);

	if (wire_decode(&in, &m, &payload_crc) < 0)
		return 0;
	wire_encode(&m, payload_crc, &out);
	if (memcmp(&in, &out, sizeof(in)) != 0)
		abort();

	/* What readers rely on. */
	if (m.payload_bytes > WIRE_PAYLOAD_BYTES_MAX ||
	    m.page >= WIRE_PAGE_END || msg_credits(&m) > RUN_PAGES ||
	    msg_payload_pages(&m) * PAGE_BYTES > m.payload_bytes)
		abort();
	return 0;
}
