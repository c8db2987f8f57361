/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is built on the stack and written at once.
 *
 * Pairs are told apart before they are formatted, not after: the blanks of the
 * format become unit separators (0x1f), then printf runs, then the result is
 * cut at those.  So a value may hold blanks and equal signs.  A value that
 * holds 0x1f itself is cut there, and what follows is dropped unless it looks
 * like a pair: odd bytes of a peer can make a line strange, never invalid.
 */

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SEPARATOR  '\x1f'
#define FORMAT_MAX 512u  /* of the pairs' format: ours, so a bug if longer */
#define PAIRS_MAX  2048u /* of the pairs when formatted */
#define TAIL_BYTES 4u    /* kept free to end a cut line: quote, brace, \n, \0 */

/* Set by log_init() before there are threads; read-only from then on. */
static const char *component = "memspan";
static bool as_json;
static enum log_level shown = LOG_LEVEL_INFO;

void log_init(const char *name, bool json)
{
	component = name;
	as_json = json;
}

void log_set_level(enum log_level level)
{
	shown = level;
}

/* --- a line that cannot overflow ------------------------------------------ */

struct line {
	char *buf;
	size_t n;
	size_t limit; /* n never exceeds it */
	bool full;    /* something did not fit: nothing more is added */
};

/* All of it or nothing, so that no escape sequence is cut in two. */
static void put(struct line *l, const char *s, size_t n)
{
	if (l->full || n > l->limit - l->n) {
		l->full = true;
		return;
	}
	memcpy(l->buf + l->n, s, n);
	l->n += n;
}

static void put_text(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

/*
 * How many bytes the UTF-8 character at `s` takes, or 0 if it is none (RFC
 * 3629: neither overlong, nor a surrogate, nor beyond U+10FFFF).
 */
static size_t utf8_bytes(const char *s)
{
	const unsigned char *b = (const unsigned char *)s;
	size_t n;

	if (b[0] < 0x80)
		return 1;
	if (b[0] < 0xc2 || b[0] > 0xf4)
		return 0;
	n = b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
	for (size_t i = 1; i < n; i++)
		if ((b[i] & 0xc0) != 0x80)
			return 0;
	if (b[0] == 0xe0 && b[1] < 0xa0)
		return 0;
	if (b[0] == 0xed && b[1] > 0x9f)
		return 0;
	if (b[0] == 0xf0 && b[1] < 0x90)
		return 0;
	if (b[0] == 0xf4 && b[1] > 0x8f)
		return 0;
	return n;
}

/* As inside a JSON string; text lines use the same escapes. */
static void put_escaped(struct line *l, const char *s)
{
	while (*s != '\0' && !l->full) {
		size_t n = utf8_bytes(s);
		char u[8];

		if (n == 0) {
			put_text(l, "\xef\xbf\xbd"); /* U+FFFD */
			s++;
			continue;
		}
		if (*s == '"' || *s == '\\') {
			u[0] = '\\';
			u[1] = *s;
			put(l, u, 2);
		} else if ((unsigned char)*s < ' ' || *s == '\x7f') {
			snprintf(u, sizeof(u), "\\u%04x", (unsigned)*s);
			put(l, u, 6);
		} else {
			put(l, s, n);
		}
		s += n;
	}
}

static void put_quoted(struct line *l, const char *s)
{
	put_text(l, "\"");
	put_escaped(l, s);
	/* The quote has its place in the tail, so a cut value ends too. */
	l->buf[l->n++] = '"';
	if (l->n > l->limit)
		l->full = true;
}

/* --- pairs --------------------------------------------------------------- */

/* What stands before '=' in a pair; 0 if it is no pair. */
static size_t key_bytes(const char *pair)
{
	size_t n = strspn(pair, "abcdefghijklmnopqrstuvwxyz0123456789_");

	return pair[n] == '=' ? n : 0;
}

static bool is_integer(const char *s)
{
	size_t digits;

	if (*s == '-')
		s++;
	digits = strspn(s, "0123456789");
	/* JSON knows no leading zeros; readers keep 53 bits of a number. */
	return digits > 0 && digits <= 15 && s[digits] == '\0' &&
	       (s[0] != '0' || digits == 1);
}

static bool needs_quotes(const char *s)
{
	if (*s == '\0')
		return true;
	for (; *s != '\0'; s++)
		if (*s <= ' ' || *s == '"' || *s == '=' || *s == '\\' ||
		    *s == '\x7f')
			return true;
	return false;
}

/* `integer`: the format said so, not merely the looks of the value. */
static void put_pair(struct line *l, const char *pair, bool integer)
{
	size_t n = key_bytes(pair);
	const char *value = pair + n + 1;
	size_t before = l->n;

	if (n == 0 || l->full)
		return;
	put_text(l, as_json ? ",\"" : " ");
	put(l, pair, n);
	put_text(l, as_json ? "\":" : "=");
	/* A key without room for any value is taken back. */
	if (l->limit - l->n < 24) {
		l->n = before;
		l->full = true;
		return;
	}
	if (as_json ? !(integer && is_integer(value)) : needs_quotes(value))
		put_quoted(l, value);
	else
		put_text(l, value);
}

/* Does the conversion of this "key=%..." give an integer in decimal? */
static bool is_integer_format(const char *pair)
{
	const char *p = strchr(pair, '%');

	if (!p)
		return false;
	p += 1 + strspn(p + 1, "-+ #0123456789.hlzjt");
	return (*p == 'd' || *p == 'u' || *p == 'i') && p[1] == '\0';
}

/*
 * Cut `s` at its first separator.  Returns what follows, NULL if nothing does.
 */
static char *next_piece(char *s)
{
	char *end = strchr(s, SEPARATOR);

	if (!end)
		return NULL;
	*end = '\0';
	return end + 1;
}

static void put_pairs(struct line *l, const char *fmt, va_list args)
{
	char format[FORMAT_MAX], pairs[PAIRS_MAX];
	char *f = format;
	char *p = pairs;
	size_t n;

	fmt += *fmt == ' ' ? 1 : 0;
	n = strlen(fmt);
	assert(n < sizeof(format));
	for (size_t i = 0; i <= n; i++)
		format[i] = fmt[i] == ' ' ? SEPARATOR : fmt[i];
	if (n == 0 || vsnprintf(pairs, sizeof(pairs), format, args) < 0)
		return;
	while (p) {
		char *next_p = next_piece(p);
		char *next_f = f ? next_piece(f) : NULL;

		put_pair(l, p, f && is_integer_format(f));
		p = next_p;
		f = next_f;
	}
}

/* --- lines --------------------------------------------------------------- */

/* RFC 3339, in UTC, to the microsecond. */
static void put_time(struct line *l, nsec_t when)
{
	time_t s = (time_t)(when / NSEC_PER_SEC);
	char date[32], all[48];
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(all, sizeof(all), "%s.%06uZ", date,
	         (unsigned)(when % NSEC_PER_SEC / NSEC_PER_USEC));
	put_text(l, all);
}

static size_t format_line(char *buf, size_t bytes, enum log_level level,
                          nsec_t when, const char *sentence, const char *fmt,
                          va_list args)
{
	static const char *const names[] = { "err", "warn", "info", "debug" };
	struct line l = { .buf = buf, .limit = bytes - TAIL_BYTES };

	if (as_json)
		put_text(&l, "{\"ts\":\"");
	put_time(&l, when);
	put_text(&l, as_json ? "\",\"level\":\"" : " ");
	put_text(&l, names[level]);
	put_text(&l, as_json ? "\",\"component\":\"" : " ");
	put_text(&l, component);
	put_text(&l, as_json ? "\",\"msg\":" : ": ");
	if (as_json)
		put_quoted(&l, sentence);
	else
		put_escaped(&l, sentence);
	put_pairs(&l, fmt, args);
	if (as_json)
		buf[l.n++] = '}';
	buf[l.n++] = '\n';
	buf[l.n] = '\0';
	return l.n;
}

size_t log_format(char *buf, size_t bytes, enum log_level level, nsec_t when,
                  const char *sentence, const char *fmt, ...)
{
	va_list args;
	size_t n;

	assert(bytes >= 256); /* room for all that stands before the sentence */
	va_start(args, fmt);
	n = format_line(buf, bytes, level, when, sentence, fmt, args);
	va_end(args);
	return n;
}

void log_line(enum log_level level, const char *sentence, const char *fmt, ...)
{
	char buf[LOG_LINE_MAX];
	struct timespec now;
	va_list args;
	size_t n;
	int saved = errno;

	if (level > shown)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	va_start(args, fmt);
	n = format_line(buf, sizeof(buf), level,
	                (nsec_t)now.tv_sec * NSEC_PER_SEC + (nsec_t)now.tv_nsec,
	                sentence, fmt, args);
	va_end(args);
	/* Whoever cannot write its log has nobody left to tell. */
	if (write(STDERR_FILENO, buf, n) < 0)
		errno = saved;
	errno = saved;
}
