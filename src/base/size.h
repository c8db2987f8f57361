/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIZE as people write it: "4096", "256M", "1GiB".
 *
 * An integer with K, M, G, T or KiB, MiB, GiB, TiB (powers of 1,024, either
 * case), or B or nothing for bytes; no space, no sign, no fraction.
 *
 * Any thread; nothing is allocated.
 */
#pragma once

#include "base/base.h"

#define SIZE_TEXT_BYTES 32u /* room for any size_text() */

/*
 * Read all of `text` as a SIZE.  Returns 0 and sets *ret; -EINVAL if it is
 * none, -ERANGE if it does not fit 64 bits, with *ret untouched and em (may
 * be NULL) saying what is wrong with it.
 */
int size_parse(const char *text, uint64_t *ret, struct errmsg *em);

/*
 * Write `bytes` for people into `buf`, which is returned: "4 KiB", "1.5 GiB",
 * "100 B".  Exact sizes look exact; others have one decimal, rounded down, so
 * that what is shown as free is there.
 */
char *size_text(uint64_t bytes, char buf[SIZE_TEXT_BYTES]);
