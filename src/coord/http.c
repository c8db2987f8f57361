/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a request:
 *
 *	libmicrohttpd's thread               the loop's thread
 *	headers: judged (Host, length)
 *	body: collected
 *	connection suspended, letter --->    handle()
 *	                                     request_answer(): text made,
 *	connection resumed           <---    connection resumed
 *	response queued, sent
 *	request freed
 *
 * From the letter to the answer the request is the loop's; before and after it
 * is libmicrohttpd's.  `answered` hands it back (release, acquire).
 *
 * What is refused before the body was read is remembered and said when the body
 * is over: to answer at once and close would reset the connection under a
 * client that still sends, who would then never see why.  Bodies that are too
 * long are read and thrown away to that end, up to BODY_SWALLOW_MAX.
 *
 * `asked` counts the requests between letter and answer.  It is raised before
 * `stopping` is looked at, and looked at after `stopping` is set, so that who
 * stops sees each request that was let through.  `unsent` counts those whose
 * answers have not left yet.
 */

#include "coord/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "coord/host.h"

#define BODY_SWALLOW_MAX (16u << 20)

struct http {
	struct http_config cfg;
	struct MHD_Daemon *daemon;
	atomic_bool stopping;
	atomic_uint asked, unsent;
};

struct pending {
	struct request rq; /* first: what the world sees */
	struct mail mail;
	struct http *http;
	struct MHD_Connection *connection;
	char *path, *body;
	char host[HOST_BYTES];
	size_t body_room, body_seen;

	/* The answer. */
	bool handed_on;
	atomic_bool answered;
	int status; /* 0: none yet */
	char *text; /* NULL: no body, or no memory for it */
	bool problem;
	const char *allow;
	char location[128];
};

/* --- answers ------------------------------------------------------------- */

static const char *title(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 409:
		return "Conflict";
	case 413:
		return "Payload Too Large";
	case 503:
		return "Service Unavailable";
	case 507:
		return "Insufficient Storage";
	default:
		return "Internal Server Error";
	}
}

/* Set the answer; whoever's turn it is to send it does so. */
static void set_answer(struct pending *p, int status, json_t *doc)
{
	assert(p->status == 0); /* a request is answered once */
	assert(status >= 200 && status <= 599);
	p->status = status;
	p->text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	/* Without memory for a body the status must not promise one. */
	if (doc && !p->text)
		p->status = 503;
	json_decref(doc);
}

static void set_problem(struct pending *p, int status, json_t *more,
                        const char *detail)
{
	json_t *doc = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank",
	                        "title", title(status), "status", status,
	                        "detail", detail);

	/* The words of others, a name say, may be no UTF-8. */
	if (!doc)
		doc = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank",
		                "title", title(status), "status", status,
		                "detail", "the request is not UTF-8");
	if (doc && more)
		(void)json_object_update_missing(doc, more);
	json_decref(more);
	p->problem = true;
	set_answer(p, status, doc);
}

/* Back to libmicrohttpd's thread. */
static void give_back(struct pending *p)
{
	struct http *h = p->http;

	assert(p->handed_on);
	assert(p->status != 0);
	atomic_store_explicit(&p->answered, true, memory_order_release);
	MHD_resume_connection(p->connection);
	/* Last: whoever stops frees us when this is 0. */
	atomic_fetch_sub(&h->asked, 1);
}

static struct pending *pending_of(struct request *rq)
{
	return container_of(rq, struct pending, rq);
}

void request_answer(struct request *rq, int status, json_t *doc)
{
	set_answer(pending_of(rq), status, doc);
	give_back(pending_of(rq));
}

void request_answer_text(struct request *rq, int status, char *text)
{
	struct pending *p = pending_of(rq);

	p->status = text ? status : 503;
	p->text = text;
	give_back(p);
}

void request_created(struct request *rq, const char *location, char *text)
{
	struct pending *p = pending_of(rq);

	snprintf(p->location, sizeof(p->location), "%s", location);
	request_answer_text(rq, MHD_HTTP_CREATED, text);
}

void request_problem(struct request *rq, int status, const char *fmt, ...)
{
	char detail[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	set_problem(pending_of(rq), status, NULL, detail);
	give_back(pending_of(rq));
}

void request_problem_with(struct request *rq, int status, json_t *more,
                          const char *fmt, ...)
{
	char detail[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	set_problem(pending_of(rq), status, more, detail);
	give_back(pending_of(rq));
}

void request_not_allowed(struct request *rq, const char *allow)
{
	struct pending *p = pending_of(rq);

	p->allow = allow;
	request_problem(rq, MHD_HTTP_METHOD_NOT_ALLOWED, "%s takes %s, not %s",
	                rq->path, allow, rq->method);
}

/* On libmicrohttpd's thread: make the response of what was answered. */
static enum MHD_Result queue(struct pending *p)
{
	size_t bytes = p->text ? strlen(p->text) : 0;
	struct MHD_Response *response = MHD_create_response_from_buffer(
		bytes, p->text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result r = MHD_YES;

	if (!response)
		return MHD_NO; /* the connection is closed */
	p->text = NULL;        /* the response's from here on */
	if (bytes > 0)
		r = MHD_add_response_header(response,
		                            MHD_HTTP_HEADER_CONTENT_TYPE,
		                            p->problem ?
		                                    "application/problem+json" :
		                                    "application/json");
	if (r == MHD_YES)
		r = MHD_add_response_header(
			response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (r == MHD_YES && p->allow)
		r = MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW,
		                            p->allow);
	if (r == MHD_YES && p->location[0] != '\0')
		r = MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION,
		                            p->location);
	if (r == MHD_YES)
		r = MHD_queue_response(p->connection, (unsigned)p->status,
		                       response);
	MHD_destroy_response(response);
	return r;
}

/* --- requests ------------------------------------------------------------ */

static void deliver(struct mail *m, void *arg)
{
	struct pending *p = container_of(m, struct pending, mail);

	(void)arg;
	p->http->cfg.handle(&p->rq, p->http->cfg.arg);
}

static void pending_free(struct pending *p)
{
	free(p->path);
	free(p->body);
	free(p->text);
	free(p);
}

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

/* The headers are here: is this request one that we take? */
static void judge(struct pending *p, const char *version)
{
	const char *length = header(p->connection, "Content-Length");
	const char *host = header(p->connection, "Host");
	const char *origin = header(p->connection, "Origin");

	if (!host && strcmp(version, "HTTP/1.0") != 0) {
		set_problem(p, 400, NULL, "the request has no Host header");
	} else if (host && !host_ours(host, p->http->cfg.anywhere, p->host)) {
		set_problem(p, 403, NULL,
		            "the Host header names somebody else, as when a "
		            "page in a browser was made to ask here; call the "
		            "coordinator by its address or localhost");
	} else if (origin && !origin_ours(origin, host)) {
		set_problem(p, 403, NULL,
		            "the Origin header is another site's: pages of "
		            "other sites may not command this cluster");
	} else if (length && strtoull(length, NULL, 10) > HTTP_BODY_MAX) {
		set_problem(p, 413, NULL,
		            "the body is longer than 65536 bytes");
	}
}

/* The method and the URL live as long as the connection's request does. */
static struct pending *pending_new(struct http *h, struct MHD_Connection *c,
                                   const char *url, const char *method)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->http = h;
	p->connection = c;
	p->mail.deliver = deliver;
	p->path = strdup(url);
	if (!p->path) {
		pending_free(p);
		return NULL;
	}
	/* libmicrohttpd leaves the body of an answer to HEAD away itself. */
	p->rq.method = strcmp(method, "HEAD") == 0 ? "GET" : method;
	p->rq.path = p->path;
	return p;
}

static enum MHD_Result take_arg(void *cls, enum MHD_ValueKind kind,
                                const char *key, const char *value)
{
	struct pending *p = cls;
	struct request *rq = &p->rq;

	(void)kind;
	if (rq->n_args == HTTP_ARGS_MAX) {
		set_problem(p, 400, NULL, "the URL has too many parameters");
		return MHD_NO;
	}
	rq->arg[rq->n_args].key = key;
	rq->arg[rq->n_args].value = value ? value : "";
	rq->n_args++;
	return MHD_YES;
}

static enum MHD_Result take_body(struct pending *p, const char *data,
                                 size_t *bytes)
{
	size_t n = *bytes;

	*bytes = 0;
	p->body_seen += n;
	if (p->body_seen > BODY_SWALLOW_MAX)
		return MHD_NO; /* enough: the connection is closed */
	if (p->status != 0)
		return MHD_YES; /* refused already */
	if (p->body_seen > HTTP_BODY_MAX) {
		set_problem(p, 413, NULL,
		            "the body is longer than 65536 bytes");
		return MHD_YES;
	}
	if (p->body_seen > p->body_room) {
		size_t room = p->body_room == 0 ? 1024 : p->body_room;
		char *body;

		while (room < p->body_seen)
			room *= 2;
		body = realloc(p->body, room);
		if (!body)
			return MHD_NO;
		p->body = body;
		p->body_room = room;
	}
	memcpy(p->body + p->body_seen - n, data, n);
	return MHD_YES;
}

/* All of it is here: hand it on, or answer what was refused. */
static enum MHD_Result hand_on(struct pending *p)
{
	struct http *h = p->http;

	if (p->status == 0)
		(void)MHD_get_connection_values(
			p->connection, MHD_GET_ARGUMENT_KIND, take_arg, p);
	if (p->status != 0)
		return queue(p);
	atomic_fetch_add(&h->asked, 1);
	if (atomic_load(&h->stopping)) {
		atomic_fetch_sub(&h->asked, 1);
		set_problem(p, 503, NULL, "the coordinator is stopping");
		return queue(p);
	}
	p->rq.host = p->host;
	p->rq.body = p->body ? p->body : "";
	p->rq.body_bytes = p->body_seen;
	assert(!p->handed_on);
	p->handed_on = true;
	atomic_fetch_add(&h->unsent, 1);
	/* Suspended before it is posted: the answer may come at once. */
	MHD_suspend_connection(p->connection);
	mbox_post(h->cfg.loop, &p->mail);
	return MHD_YES;
}

/* libmicrohttpd's: called for the headers, each piece of body, and the end. */
static enum MHD_Result access_handler(void *cls, struct MHD_Connection *c,
                                      const char *url, const char *method,
                                      const char *version, const char *data,
                                      size_t *data_bytes, void **state)
{
	struct http *h = cls;
	struct pending *p = *state;

	if (!p) {
		p = pending_new(h, c, url, method);
		if (!p)
			return MHD_NO;
		*state = p;
		judge(p, version);
		return MHD_YES;
	}
	if (atomic_load_explicit(&p->answered, memory_order_acquire))
		return queue(p);
	if (*data_bytes > 0)
		return take_body(p, data, data_bytes);
	return hand_on(p);
}

static void completed(void *cls, struct MHD_Connection *c, void **state,
                      enum MHD_RequestTerminationCode why)
{
	struct pending *p = *state;
	struct http *h = cls;

	(void)c;
	(void)why;
	if (!p)
		return;
	if (p->handed_on)
		atomic_fetch_sub(&h->unsent, 1);
	pending_free(p);
	*state = NULL;
}

/* --- life ---------------------------------------------------------------- */

int http_start(const struct http_config *cfg, struct http **ret,
               struct errmsg *em)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h) {
		close(cfg->fd);
		return errmsg_set(em, -ENOMEM, "cannot start HTTP");
	}
	h->cfg = *cfg;
	h->daemon = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0,
		NULL, NULL, access_handler, h, MHD_OPTION_LISTEN_SOCKET,
		cfg->fd, MHD_OPTION_NOTIFY_COMPLETED, completed, h,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_SECONDS,
		MHD_OPTION_END);
	if (!h->daemon) {
		close(cfg->fd);
		free(h);
		return errmsg_say(em, -EIO, "cannot start HTTP");
	}
	*ret = h;
	return 0;
}

void http_stop(struct http *h)
{
	atomic_store(&h->stopping, true);
}

bool http_idle(const struct http *h)
{
	return atomic_load(&h->asked) == 0;
}

bool http_drained(const struct http *h)
{
	return atomic_load(&h->unsent) == 0;
}

struct http *http_free(struct http *h)
{
	if (!h)
		return NULL;
	assert(http_idle(h));
	MHD_stop_daemon(
		h->daemon); /* closes the socket, waits for its thread */
	free(h);
	return NULL;
}
