/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli), the checksum of messages and files.
 *
 * The finalised, reflected form of RFC 3720 and of the SSE4.2 instruction:
 * crc32c("123456789") is 0xe3069283, and of no bytes 0.
 *
 * Any thread; nothing is allocated, nothing can fail.
 */
#pragma once

#include "base/base.h"

/* The sum of `bytes` bytes at `p` (may be NULL when bytes is 0). */
uint32_t crc32c(const void *p, size_t bytes);

/*
 * The sum of what `crc` is the sum of, followed by these bytes, so that
 * crc32c_more(crc32c(a), b) is the sum of a and b in one piece.
 */
uint32_t crc32c_more(uint32_t crc, const void *p, size_t bytes);

/* As crc32c_more(), by a table: what is used where ISA-L is not installed. */
uint32_t crc32c_table_more(uint32_t crc, const void *p, size_t bytes);
