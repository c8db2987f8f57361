/* SPDX-License-Identifier: Apache-2.0 */

#include "base/crc32c.h"

uint32_t crc32c_more(uint32_t crc, const void *p, size_t bytes)
{
	return crc32c_table_more(crc, p, bytes);
}
