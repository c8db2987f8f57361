/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP: libmicrohttpd's thread in front, the main loop behind.
 *
 * What it promises
 *
 *   whole      A request is handed on when its body is here, as a letter to the
 *              loop; its connection sleeps until it is answered.
 *   bounded    Bodies up to HTTP_BODY_MAX, HTTP_CONNECTIONS_MAX connections,
 *              and nobody may idle for longer than HTTP_IDLE_SECONDS.
 *   ours only  A Host or Origin header that names somebody else is refused, so
 *              that a page in a browser cannot command the cluster.
 *
 * What it expects: each request handed on is answered exactly once, at once or
 * later, from the loop's thread.
 */
#pragma once

#include <jansson.h>

#include "loop/loop.h"

#define HTTP_BODY_MAX        65536u
#define HTTP_CONNECTIONS_MAX 512
#define HTTP_IDLE_SECONDS    30u
#define HTTP_ARGS_MAX        8u

struct http;

struct request {
	const char *method; /* "GET" also for HEAD */
	const char *path;   /* unescaped */
	const char *host;   /* of the Host header, without port; "" if none */
	struct {
		const char *key, *value; /* value "" if there is none */
	} arg[HTTP_ARGS_MAX];
	unsigned n_args;
	const char *body;
	size_t body_bytes;
};

struct http_config {
	struct loop *loop;
	int fd;        /* listening; taken */
	bool anywhere; /* it listens beyond loopback */
	void (*handle)(struct request *rq,
	               void *arg); /* on the loop's thread */
	void *arg;
};

/* Returns 0, or -errno with `em` set. */
int http_start(const struct http_config *cfg, struct http **ret,
               struct errmsg *em);
/*
 * Take no more requests.  Those that were handed on are still to be answered:
 * http_idle() tells when all are.
 */
void http_stop(struct http *h);
bool http_idle(const struct http *h);
/* Whether the answers have left, too: worth a moment's wait. */
bool http_drained(const struct http *h);
/* Only when idle.  Takes NULL; returns NULL. */
struct http *http_free(struct http *h);

/*
 * Answer with `doc` (taken; NULL: no body).  The request is gone then.
 */
void request_answer(struct request *rq, int status, json_t *doc);
/* The same with a text of JSON (taken; NULL: there was no memory, 503). */
void request_answer_text(struct request *rq, int status, char *text);
/* 201, with a Location header. */
void request_created(struct request *rq, const char *location, char *text);
/*
 * Answer with application/problem+json: what, why, what to do, as one or more
 * sentences.  The title follows from the status.
 */
void request_problem(struct request *rq, int status, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* As that, with further members, of `more` (taken). */
void request_problem_with(struct request *rq, int status, json_t *more,
                          const char *fmt, ...) PRINTF_LIKE(4, 5);
/* 405, which must say what is allowed: "GET, POST". */
void request_not_allowed(struct request *rq, const char *allow);
