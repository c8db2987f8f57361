/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* 1,024 nodes with 1,024 peers each are 40 MB of JSON. */
#define ANSWER_BYTES_MAX (64u << 20)
#define URL_BYTES_MAX    512u
#define CONNECT_MS_MAX   2000u

struct http {
	CURL *curl;
	struct curl_slist *headers; /* for requests with a body */
	unsigned timeout_ms;
	char url[URL_BYTES_MAX]; /* no '/' at the end */
	/* The answer to the request under way. */
	char *text;
	size_t bytes;
	bool too_long;
};

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct http *h = arg;
	char *text;

	assert(size == 1); /* libcurl says so */
	if (h->bytes + n > ANSWER_BYTES_MAX) {
		h->too_long = true;
		return 0;
	}
	text = realloc(h->text, h->bytes + n + 1);
	if (!text)
		return 0;
	h->text = text;
	memcpy(h->text + h->bytes, data, n);
	h->bytes += n;
	h->text[h->bytes] = '\0';
	return n;
}

static int set_url(struct http *h, const char *url, struct errmsg *em)
{
	const char *scheme = strstr(url, "://") ? "" : "http://";
	int n = snprintf(h->url, sizeof(h->url), "%s%s", scheme, url);

	if (n < 0 || (size_t)n >= sizeof(h->url) || url[0] == '\0' ||
	    strpbrk(url, " \t\r\n") ||
	    strncmp(h->url, "http://", strlen("http://")) != 0)
		return errmsg_say(em, -EINVAL,
		                  "'%.100s' is no coordinator's URL; write "
		                  "for example http://127.0.0.1:7070",
		                  url);
	while (n > 0 && h->url[n - 1] == '/')
		h->url[--n] = '\0';
	return 0;
}

int http_new(const char *url, unsigned timeout_ms, struct http **ret,
             struct errmsg *em)
{
	AUTO(http_free) struct http *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return errmsg_set(em, -ENOMEM, "cannot make an HTTP client");
	h->timeout_ms = timeout_ms;
	r = set_url(h, url, em);
	if (r < 0)
		return r;
	h->headers = curl_slist_append(NULL, "Content-Type: application/json");
	h->curl = curl_easy_init();
	if (!h->curl || !h->headers)
		return errmsg_set(em, -ENOMEM, "cannot make an HTTP client");
	*ret = TAKE_PTR(h);
	return 0;
}

struct http *http_free(struct http *h)
{
	if (!h)
		return NULL;
	curl_easy_cleanup(h->curl);
	curl_slist_free_all(h->headers);
	free(h->text);
	free(h);
	return NULL;
}

/* --- one request --------------------------------------------------------- */

static void prepare(struct http *h, const char *method, const char *url,
                    const char *body)
{
	CURL *c = h->curl;

	free(h->text);
	h->text = NULL;
	h->bytes = 0;
	h->too_long = false;
	curl_easy_reset(c); /* keeps the connection */
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	/* No SIGALRM for name look-ups: signals belong to the commands. */
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)h->timeout_ms);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
	                 (long)min_u64(h->timeout_ms, CONNECT_MS_MAX));
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
	if (body) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(c, CURLOPT_HTTPHEADER, h->headers);
	}
}

/* Why there is no answer, in words that help. */
static int no_answer(const struct http *h, CURLcode code, struct errmsg *em)
{
	/* Most codes cannot happen here; the last line is for them. */
	if (code == CURLE_COULDNT_CONNECT)
		return errmsg_say(em, -ECONNREFUSED,
		                  "no coordinator answers at %s; start a "
		                  "cluster with 'memspan up', or name another "
		                  "with --coordinator URL",
		                  h->url);
	if (code == CURLE_COULDNT_RESOLVE_HOST)
		return errmsg_say(em, -ECONNREFUSED,
		                  "the coordinator's host name in %s is "
		                  "unknown; check --coordinator URL",
		                  h->url);
	if (code == CURLE_OPERATION_TIMEDOUT)
		return errmsg_say(em, -ETIMEDOUT,
		                  "the coordinator at %s did not answer in %u "
		                  "ms; see its log, or 'memspan down' and "
		                  "'memspan up'",
		                  h->url, h->timeout_ms);
	if (h->too_long)
		return errmsg_say(em, -EFBIG,
		                  "%s answered with more than %u MiB; is it a "
		                  "coordinator?",
		                  h->url, ANSWER_BYTES_MAX >> 20);
	if (code == CURLE_OUT_OF_MEMORY)
		return errmsg_set(em, -ENOMEM, "cannot ask %s", h->url);
	if (code == CURLE_URL_MALFORMAT)
		return errmsg_say(em, -EINVAL,
		                  "%s is no coordinator's URL; write for "
		                  "example http://127.0.0.1:7070",
		                  h->url);
	return errmsg_say(em, -EIO, "cannot ask the coordinator at %s: %s",
	                  h->url, curl_easy_strerror(code));
}

/* Refused: RFC 9457's "detail" if it is there, else the status alone. */
static void explain(const struct http *h, unsigned status, const json_t *body,
                    struct errmsg *em)
{
	const char *detail = field_text(body, "detail");

	if (detail[0] == '\0')
		detail = field_text(body, "title");
	if (detail[0] != '\0')
		(void)errmsg_say(em, 0, "%s", detail);
	else
		(void)errmsg_say(em, 0, "%s answered with HTTP status %u",
		                 h->url, status);
}

int http_ask(struct http *h, const char *method, const char *path,
             const json_t *body, struct http_answer *ret, struct errmsg *em)
{
	AUTO(json_decref) json_t *answer = NULL;
	AUTO_FREE char *text = NULL;
	char url[URL_BYTES_MAX + 256];
	curl_off_t us = 0;
	long status = 0;
	CURLcode code;

	if (body) {
		text = json_dumps(body, JSON_COMPACT);
		if (!text)
			return errmsg_set(em, -ENOMEM, "cannot ask %s", h->url);
	}
	if (snprintf(url, sizeof(url), "%s%s", h->url, path) >=
	    (int)sizeof(url))
		return errmsg_say(em, -EINVAL, "the name is too long");
	prepare(h, method, url, text);
	code = curl_easy_perform(h->curl);
	if (code != CURLE_OK)
		return no_answer(h, code, em);
	curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(h->curl, CURLINFO_TOTAL_TIME_T, &us);
	if (h->bytes > 0)
		answer = json_loadb(h->text, h->bytes, 0, NULL);
	if (status >= 200 && status < 300 && h->bytes > 0 && !answer)
		return errmsg_say(em, -EPROTO,
		                  "%s answers, but not as a coordinator does; "
		                  "check --coordinator URL",
		                  h->url);
	if (status < 200 || status >= 300)
		explain(h, (unsigned)status, answer, em);
	ret->status = (unsigned)status;
	ret->body = TAKE_PTR(answer);
	ret->ms = (double)us / 1000.0;
	return status >= 200 && status < 300 ? HTTP_OK : HTTP_REFUSED;
}

int http_get(struct http *h, const char *path, json_t **ret, struct errmsg *em)
{
	struct http_answer answer;
	int r = http_ask(h, "GET", path, NULL, &answer, em);

	if (r < 0)
		return r;
	if (r == HTTP_OK && json_is_object(answer.body)) {
		*ret = answer.body;
		return HTTP_OK;
	}
	json_decref(answer.body);
	if (r == HTTP_OK)
		return errmsg_say(em, -EPROTO,
		                  "%s answers, but not as a coordinator does; "
		                  "check --coordinator URL",
		                  h->url);
	return r;
}

/* --- fields -------------------------------------------------------------- */

uint64_t field_u64(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return 0;
	return (uint64_t)json_integer_value(v);
}

const char *field_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

bool field_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}
