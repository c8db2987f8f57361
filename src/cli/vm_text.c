/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/vm_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cli/http.h"

#define KEY_BYTES 512u /* of a key with all that it is nested in */

struct vm_pairs *vm_pairs_new(void)
{
	return calloc(1, sizeof(struct vm_pairs));
}

struct vm_pairs *vm_pairs_free(struct vm_pairs *p)
{
	if (!p)
		return NULL;
	for (size_t i = 0; i < p->n; i++) {
		free(p->v[i].key);
		free(p->v[i].value);
	}
	free(p);
	return NULL;
}

const char *vm_pairs_get(const struct vm_pairs *p, const char *key)
{
	const char *found = NULL;

	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->v[i].key, key) == 0)
			found = p->v[i].value;
	return found;
}

bool vm_key_ends(const char *key, const char *word)
{
	size_t n = strlen(key), w = strlen(word);

	return n >= w && strcmp(key + n - w, word) == 0 &&
	       (n == w || key[n - w - 1] == '.');
}

bool vm_value_off(const char *value)
{
	return strcmp(value, "off") == 0 || strcmp(value, "no") == 0 ||
	       strcmp(value, "false") == 0 || strcmp(value, "n") == 0;
}

int vm_bytes(const char *text, bool mib, uint64_t *ret)
{
	static const char units[] = "BKMGTPE";
	const char *unit;
	double n;
	char *end;

	/* strtod() takes blanks, signs, "inf" and hexadecimal; QEMU does not
	 * all of them, and nobody writes guest RAM so. */
	if (text[0] < '0' || text[0] > '9' || strpbrk(text, "xXpn"))
		return -EINVAL;
	n = strtod(text, &end);
	unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
	if (*end != '\0' && (!unit || end[1] != '\0'))
		return -EINVAL;
	for (ptrdiff_t i = unit ? unit - units : mib ? 2 : 0; i > 0; i--)
		n *= 1024;
	if (!(n < 9e18))
		return -EINVAL;
	*ret = (uint64_t)n;
	return 0;
}

/* --- one pair ------------------------------------------------------------ */

static int read_json(const char *text, const char *under, unsigned depth,
                     struct vm_pairs *ret, struct errmsg *em);

/* Append a pair; `value` need not end where its `len` bytes do. */
static int add(struct vm_pairs *ret, const char *key, const char *value,
               size_t len, unsigned depth, struct errmsg *em)
{
	struct vm_pair pair;

	if (ret->n == VM_PAIRS_MAX)
		return errmsg_say(em, -EINVAL, "it has more than %u parts",
		                  VM_PAIRS_MAX);
	pair.key = strdup(key);
	pair.value = strndup(value, len);
	if (!pair.key || !pair.value) {
		free(pair.key);
		free(pair.value);
		return errmsg_say(em, -ENOMEM, "out of memory");
	}
	ret->v[ret->n++] = pair;
	if (strncmp(pair.value, "json:", 5) == 0)
		return read_json(pair.value + 5, key, depth + 1, ret, em);
	return 0;
}

int vm_pairs_add(struct vm_pairs *p, const char *key, const char *value,
                 struct errmsg *em)
{
	return add(p, key, value, strlen(value), 0, em);
}

/* --- JSON ---------------------------------------------------------------- */

static int flatten(const json_t *json, const char *key, unsigned depth,
                   struct vm_pairs *ret, struct errmsg *em);

/* What is called `word` in what is called `key`. */
static int flatten_in(const json_t *json, const char *key, const char *word,
                      unsigned depth, struct vm_pairs *ret, struct errmsg *em)
{
	char path[KEY_BYTES];
	int n = snprintf(path, sizeof(path), "%s%s%s", key,
	                 key[0] != '\0' ? "." : "", word);

	if (n >= (int)sizeof(path))
		return errmsg_say(em, -EINVAL, "a key is too long");
	return flatten(json, path, depth + 1, ret, em);
}

static int flatten_list(const json_t *json, const char *key, unsigned depth,
                        struct vm_pairs *ret, struct errmsg *em)
{
	const json_t *item;
	size_t i;
	int r;

	json_array_foreach(json, i, item)
	{
		char word[24];

		snprintf(word, sizeof(word), "%zu", i);
		r = flatten_in(item, key, word, depth, ret, em);
		if (r < 0)
			return r;
	}
	return 0;
}

static int flatten_object(const json_t *json, const char *key, unsigned depth,
                          struct vm_pairs *ret, struct errmsg *em)
{
	void *it = json_object_iter((json_t *)(uintptr_t)json);
	int r;

	for (; it; it = json_object_iter_next((json_t *)(uintptr_t)json, it)) {
		r = flatten_in(json_object_iter_value(it), key,
		               json_object_iter_key(it), depth, ret, em);
		if (r < 0)
			return r;
	}
	return 0;
}

static int flatten(const json_t *json, const char *key, unsigned depth,
                   struct vm_pairs *ret, struct errmsg *em)
{
	char number[32];

	if (depth > VM_TEXT_DEPTH_MAX)
		return errmsg_say(em, -EINVAL, "it is nested too deeply");
	switch (json_typeof(json)) {
	case JSON_OBJECT:
		return flatten_object(json, key, depth, ret, em);
	case JSON_ARRAY:
		return flatten_list(json, key, depth, ret, em);
	case JSON_STRING:
		return add(ret, key, json_string_value(json),
		           json_string_length(json), depth, em);
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%lld",
		         (long long)json_integer_value(json));
		return add(ret, key, number, strlen(number), depth, em);
	case JSON_REAL:
		snprintf(number, sizeof(number), "%.15g",
		         json_real_value(json));
		return add(ret, key, number, strlen(number), depth, em);
	case JSON_TRUE:
		return add(ret, key, "on", 2, depth, em);
	case JSON_FALSE:
		return add(ret, key, "off", 3, depth, em);
	case JSON_NULL:
		break;
	}
	return add(ret, key, "", 0, depth, em);
}

/* Read JSON whose keys are below `under`. */
static int read_json(const char *text, const char *under, unsigned depth,
                     struct vm_pairs *ret, struct errmsg *em)
{
	AUTO(json_decref) json_t *json = NULL;
	json_error_t error;

	if (depth > VM_TEXT_DEPTH_MAX)
		return errmsg_say(em, -EINVAL, "it is nested too deeply");
	/* QEMU refuses a key given twice; what takes the last would differ. */
	json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		return errmsg_say(em, -EINVAL, "it cannot be read as JSON (%s)",
		                  error.text);
	if (!json_is_object(json))
		return errmsg_say(em, -EINVAL, "its JSON is no object");
	return flatten(json, under, depth, ret, em);
}

/* --- KEY=VALUE,... ------------------------------------------------------- */

/*
 * Copy a value up to a single comma into `buf`, which has room for all of
 * `text`; ",," is a comma.  Returns what is behind the value: its comma, or the
 * end.
 */
static const char *take_value(const char *text, char *buf, size_t *len)
{
	*len = 0;
	for (; *text != '\0'; text++) {
		if (*text == ',' && *++text != ',')
			return text - 1;
		buf[(*len)++] = *text;
	}
	return text;
}

int vm_text_read(const char *text, const char *implied, struct vm_pairs *ret,
                 struct errmsg *em)
{
	AUTO_FREE char *buf = NULL;
	bool first = true;

	if (text[0] == '{')
		return read_json(text, "", 0, ret, em);
	buf = malloc(strlen(text) + 1);
	if (!buf)
		return errmsg_say(em, -ENOMEM, "out of memory");
	for (; *text != '\0'; first = false) {
		size_t word = strcspn(text, "=,"), len = 2;
		const char *value = "on"; /* of a word alone */
		char key[KEY_BYTES];
		int r;

		if (text[word] != '=' && first && implied) {
			snprintf(key, sizeof(key), "%s", implied);
			text = take_value(text, buf, &len);
			value = buf;
		} else {
			if (word >= sizeof(key))
				return errmsg_say(em, -EINVAL,
				                  "a key is too long");
			snprintf(key, sizeof(key), "%.*s", (int)word, text);
			text += word;
			if (*text == '=') {
				text = take_value(text + 1, buf, &len);
				value = buf;
			}
		}
		r = add(ret, key, value, len, 0, em);
		if (r < 0)
			return r;
		if (*text == ',')
			text++;
	}
	return 0;
}
