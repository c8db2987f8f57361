/* SPDX-License-Identifier: Apache-2.0 */

#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Write the sentence, and return how many bytes of em->text it takes. */
static size_t say(struct errmsg *em, const char *fmt, va_list args)
{
	int n = vsnprintf(em->text, sizeof(em->text), fmt, args);

	/* A malformed multibyte argument: better no reason than half a one. */
	if (n < 0)
		n = 0;
	if ((size_t)n >= sizeof(em->text))
		return sizeof(em->text) - 1;
	return (size_t)n;
}

/*
 * The text goes to logs and terminals as one line.  Names that people chose
 * may hold anything, so what would break the line becomes a space.
 */
static void one_line(struct errmsg *em)
{
	for (char *p = em->text; *p != '\0'; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

int errmsg_set(struct errmsg *em, int r, const char *fmt, ...)
{
	va_list args;
	size_t n;

	if (!em)
		return r;
	va_start(args, fmt);
	n = say(em, fmt, args);
	va_end(args);
	/* strerror_r() of GNU returns a string that no thread overwrites. */
	if (r < 0) {
		char buf[128];

		snprintf(em->text + n, sizeof(em->text) - n, ": %s",
		         strerror_r(-r, buf, sizeof(buf)));
	}
	one_line(em);
	return r;
}

int errmsg_say(struct errmsg *em, int r, const char *fmt, ...)
{
	va_list args;

	if (!em)
		return r;
	va_start(args, fmt);
	(void)say(em, fmt, args);
	va_end(args);
	one_line(em);
	return r;
}
