/* SPDX-License-Identifier: Apache-2.0 */

#include "base/size.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char units[] = "KMGT";

/* How far the unit shifts, or -EINVAL if `unit` is none. */
static int unit_shift(const char *unit)
{
	if (unit[0] == '\0' || strcasecmp(unit, "B") == 0)
		return 0;
	for (unsigned i = 0; units[i] != '\0'; i++) {
		const char brief[] = { units[i], '\0' };
		const char full[] = { units[i], 'i', 'B', '\0' };

		if (strcasecmp(unit, brief) == 0 || strcasecmp(unit, full) == 0)
			return 10 * (int)(i + 1);
	}
	return -EINVAL;
}

int size_parse(const char *text, uint64_t *ret, struct errmsg *em)
{
	const char *p = text;
	uint64_t n = 0;
	int shift;

	if (*p < '0' || *p > '9')
		return errmsg_say(em, -EINVAL,
		                  "size '%s' does not begin with a digit; "
		                  "write for example 256M",
		                  text);
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (unsigned)(*p - '0'), &n))
			return errmsg_say(em, -ERANGE, "size '%s' is too large",
			                  text);
	shift = unit_shift(p);
	if (shift < 0)
		return errmsg_say(em, -EINVAL,
		                  "size '%s' has the unknown unit '%s'; "
		                  "use K, M, G, T or KiB, MiB, GiB, TiB",
		                  text, p);
	if (n > UINT64_MAX >> shift)
		return errmsg_say(em, -ERANGE, "size '%s' is too large", text);
	*ret = n << shift;
	return 0;
}

char *size_text(uint64_t bytes, char buf[SIZE_TEXT_BYTES])
{
	unsigned unit = 0;
	uint64_t one = 1;

	/* Tenths of the next unit never overflow: T is 2^40. */
	while (unit < strlen(units) && bytes >= one * 1024) {
		one *= 1024;
		unit++;
	}
	if (unit == 0)
		snprintf(buf, SIZE_TEXT_BYTES, "%u B", (unsigned)bytes);
	else if (bytes % one == 0)
		snprintf(buf, SIZE_TEXT_BYTES, "%llu %ciB",
		         (unsigned long long)(bytes / one), units[unit - 1]);
	else
		snprintf(buf, SIZE_TEXT_BYTES, "%llu.%u %ciB",
		         (unsigned long long)(bytes / one),
		         (unsigned)(bytes % one * 10 / one), units[unit - 1]);
	return buf;
}
