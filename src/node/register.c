/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining: POST /v1/nodes on the coordinator's HTTP port.  Happens once, before
 * there is a second thread, so it may block.
 *
 * A coordinator that is not there yet, or that still believes in our
 * predecessor of the same name (409 until its lease has run out), is asked
 * again for a while.
 */

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "node/node.h"

#define REGISTER_WAIT_NS (10 * NSEC_PER_SEC)
#define REGISTER_NAP_NS  (200 * NSEC_PER_MSEC)
#define ANSWER_BYTES_MAX 65536u

struct answer {
	char text[ANSWER_BYTES_MAX];
	size_t bytes;
};

static size_t take(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;
	size_t bytes = size * n;

	if (bytes > sizeof(a->text) - 1 - a->bytes)
		return 0;
	memcpy(a->text + a->bytes, data, bytes);
	a->bytes += bytes;
	a->text[a->bytes] = '\0';
	return bytes;
}

/* Returns the HTTP status, or -errno with the reason. */
static long post(const char *url, const char *body, struct answer *a,
                 struct errmsg *em)
{
	struct curl_slist *headers =
		curl_slist_append(NULL, "Content-Type: application/json");
	CURL *c = curl_easy_init();
	long status = 0;
	CURLcode r = CURLE_OUT_OF_MEMORY;

	a->bytes = 0;
	a->text[0] = '\0';
	if (c != NULL && headers != NULL) {
		curl_easy_setopt(c, CURLOPT_URL, url);
		curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
		curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
		curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 5000L);
		curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(c, CURLOPT_PROXY, "");
		r = curl_easy_perform(c);
		curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	}
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	if (r != CURLE_OK)
		return errmsg_say(em, -ECONNREFUSED,
		                  "no coordinator answers at %s (%s): start "
		                  "memspan-coordinator there, or give its "
		                  "address with --coordinator",
		                  url, curl_easy_strerror(r));
	return status;
}

static int accepted(struct node *n, const struct answer *a, char node_port[64],
                    struct errmsg *em)
{
	json_error_t at;
	json_t *doc = json_loads(a->text, JSON_REJECT_DUPLICATES, &at);
	json_int_t id, incarnation, lease_ms;
	const char *port = NULL;
	int r;

	r = json_unpack_ex(doc, &at, 0, "{s:I, s:I, s:s, s:I}", "id", &id,
	                   "incarnation", &incarnation, "node_port", &port,
	                   "lease_ms", &lease_ms);
	if (r == 0 && (id < 0 || id >= NODES_MAX || lease_ms <= 0))
		r = -1;
	if (r == 0) {
		n->id = (node_id)id;
		n->incarnation = (uint64_t)incarnation;
		n->lease_ns = (nsec_t)lease_ms * NSEC_PER_MSEC;
		snprintf(node_port, 64, "%s", port);
	}
	json_decref(doc);
	return r == 0 ? 0 :
	                errmsg_say(em, -EPROTO,
	                           "the coordinator's answer to joining makes "
	                           "no sense (%s): is it another version?",
	                           at.text);
}

/* The problem's `detail`, or the whole answer. */
static void explain(long status, const struct answer *a, struct errmsg *em)
{
	json_t *doc = json_loads(a->text, 0, NULL);
	const char *detail = json_string_value(json_object_get(doc, "detail"));

	(void)errmsg_say(em, 0, "the coordinator refuses this node (%ld): %s",
	                 status, detail != NULL ? detail : a->text);
	json_decref(doc);
}

int link_register(struct node *n, char node_port[64], struct errmsg *em)
{
	static struct answer a;
	struct timespec nap = { .tv_nsec = (long)REGISTER_NAP_NS };
	nsec_t until = boot_now() + REGISTER_WAIT_NS;
	char url[192];
	json_t *doc;
	char *body;
	long status;

	snprintf(url, sizeof(url), "http://%s/v1/nodes", n->cfg.coordinator);
	doc = json_pack("{s:s, s:I, s:s, s:i}", "name", n->cfg.name,
	                "memory_bytes", (json_int_t)n->cfg.memory_bytes,
	                "endpoint", n->endpoint, "protocol", WIRE_VERSION);
	body = json_dumps(doc, JSON_COMPACT);
	json_decref(doc);
	if (body == NULL)
		return errmsg_set(em, -ENOMEM, "no memory to join");
	for (;;) {
		status = post(url, body, &a, em);
		if (status == 201 ||
		    (status > 0 && status != 409 && status != 503))
			break;
		if (boot_now() >= until ||
		    (status == 409 && strstr(a.text, "protocol") != NULL))
			break;
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	}
	free(body);
	if (status < 0)
		return (int)status;
	if (status != 201) {
		explain(status, &a, em);
		return -EACCES;
	}
	return accepted(n, &a, node_port, em);
}
