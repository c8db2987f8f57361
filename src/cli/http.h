/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the coordinator's HTTP interface (docs/openapi.yaml).
 *
 * One request at a time, on one connection that is kept; each takes at most
 * the time given to http_new(), so a command always ends.  Proxies of the
 * environment are not used: a cluster is never behind one.
 *
 * Belongs to one thread.  After a fork the child must not use it.
 */
#pragma once

#include <jansson.h>

#include "base/base.h"

struct http;

/*
 * `url` is the coordinator's, "http://HOST:PORT" ("HOST:PORT" will do).
 * Nothing is sent yet.  Returns 0; -EINVAL if the URL is none; -ENOMEM.
 */
int http_new(const char *url, unsigned timeout_ms, struct http **ret,
             struct errmsg *em);
struct http *http_free(struct http *h); /* takes NULL; returns NULL */
DEFINE_AUTO(struct http, http_free)

enum http_outcome {
	HTTP_OK = 0,  /* 2xx */
	HTTP_REFUSED, /* any other status; em has the coordinator's reason */
};

struct http_answer {
	unsigned status; /* 200 ... */
	json_t *body;    /* the caller's; NULL if there is none */
	double ms;       /* from the first byte sent to the last received */
};

/*
 * Ask `method` of `path` (which begins with '/'), with `body` as JSON unless
 * it is NULL.  Returns an http_outcome with *ret filled in (a body that is not
 * JSON is dropped if the request was refused); or with *ret untouched and a
 * whole sentence in em, what to do included, -errno: -ECONNREFUSED nobody
 * answers there, -ETIMEDOUT, -EPROTO the answer is not one of a coordinator,
 * -EFBIG, -ENOMEM, -EIO anything else.
 */
int http_ask(struct http *h, const char *method, const char *path,
             const json_t *body, struct http_answer *ret, struct errmsg *em);

/* GET `path`; on success *ret is the body, an object.  Returns as http_ask(),
 * HTTP_REFUSED with *ret untouched. */
int http_get(struct http *h, const char *path, json_t **ret, struct errmsg *em);

/* --- fields of answers --------------------------------------------------- */

/*
 * A field, or what stands for nothing if it is absent or of another type, so
 * that an older coordinator's answer is still shown.  `object` may be NULL.
 */
uint64_t field_u64(const json_t *object, const char *key);
const char *field_text(const json_t *object, const char *key); /* "" */
bool field_true(const json_t *object, const char *key);

DEFINE_AUTO(json_t, json_decref)
