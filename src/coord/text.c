/* SPDX-License-Identifier: Apache-2.0 */

#include "coord/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES_FIRST 4096u

static bool grow(struct text *t, size_t bytes)
{
	size_t room = t->room == 0 ? TEXT_BYTES_FIRST : t->room;
	char *p;

	while (room - t->n < bytes)
		room *= 2;
	if (room == t->room)
		return true;
	p = realloc(t->p, room);
	if (!p) {
		t->failed = true;
		return false;
	}
	t->p = p;
	t->room = room;
	return true;
}

void text_add(struct text *t, const char *fmt, ...)
{
	va_list args, again;
	int n;

	if (t->failed || !grow(t, 1))
		return;
	va_start(args, fmt);
	va_copy(again, args);
	n = vsnprintf(t->p + t->n, t->room - t->n, fmt, args);
	if (n < 0)
		t->failed = true;
	else if ((size_t)n < t->room - t->n)
		t->n += (size_t)n;
	else if (grow(t, (size_t)n + 1))
		t->n += (size_t)vsnprintf(t->p + t->n, t->room - t->n, fmt,
		                          again);
	va_end(again);
	va_end(args);
}

void text_quote(struct text *t, const char *s)
{
	if (!s) {
		text_add(t, "null");
		return;
	}
	text_add(t, "\"");
	while (*s != '\0') {
		size_t plain = strcspn(s, "\"\\");

		/* What is below a blank has no name of its own here. */
		for (size_t i = 0; i < plain; i++)
			if ((unsigned char)s[i] < ' ')
				plain = i;
		text_add(t, "%.*s", (int)plain, s);
		s += plain;
		if (*s == '\0')
			break;
		if (*s == '"' || *s == '\\')
			text_add(t, "\\%c", *s);
		else
			text_add(t, "\\u%04x", (unsigned char)*s);
		s++;
	}
	text_add(t, "\"");
}

void text_comma(struct text *t)
{
	if (t->n > 0 && !strchr("[{", t->p[t->n - 1]))
		text_add(t, ",");
}

char *text_take(struct text *t)
{
	char *p = t->p;

	if (t->failed) {
		free(p);
		p = NULL;
	}
	*t = (struct text){ 0 };
	return p;
}
