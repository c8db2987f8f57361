/* SPDX-License-Identifier: Apache-2.0 */

#include "net/credit.h"

#include <errno.h>

#include "wire/control.h"

static_assert(CREDIT_CONTROL_BYTES_MAX >=
                      2 * (WIRE_HDR_BYTES +
                           NODES_MAX * sizeof(struct wire_member)),
              "two whole memberships may be under way");
static_assert(RUN_PAGES <= TP_PAGE_CREDITS,
              "or the longest run could never be asked for");

/* What may be lacking: bits of credit.lacking. */
enum {
	LACK_PAGES = 1,
	LACK_RECALLS = 2,
	LACK_REQUEST_ROOM = 4,
	LACK_RECALL_ROOM = 8,
	LACK_FREE_ROOM = 16,
	LACK_CONTROL_ROOM = 32,
};

/* Would `n` more be too many?  Then it is remembered who waits for what. */
static bool lacks(struct credit *c, uint32_t count, uint32_t n, uint32_t limit,
                  uint32_t lack)
{
	if (count + n <= limit)
		return false;
	c->lacking |= lack;
	return true;
}

/* Our own counts: below zero they can go only by a bug of ours. */
static void give(struct credit *c, uint32_t *count, uint32_t n, uint32_t lack)
{
	assert(*count >= n);
	*count -= n;
	if (c->lacking & lack)
		c->back = true;
}

/* An answer moves what it answers from "asked" to "not acknowledged". */
static enum tp_sent answer(uint32_t *open, uint32_t *unacked, uint32_t n)
{
	if (n > *open)
		return TP_DOWN;
	*open -= n;
	*unacked += n;
	return TP_QUEUED;
}

static enum tp_sent send_request(struct credit *c, uint32_t n)
{
	if (lacks(c, c->pages_asked, n, TP_PAGE_CREDITS, LACK_PAGES) ||
	    lacks(c, c->requests, 1, CREDIT_REQUESTS_MAX, LACK_REQUEST_ROOM))
		return TP_FULL;
	c->pages_asked += n;
	c->requests++;
	return TP_QUEUED;
}

static enum tp_sent send_recall(struct credit *c)
{
	if (lacks(c, c->recalls_asked, 1, TP_RECALL_CREDITS, LACK_RECALLS) ||
	    lacks(c, c->recalls, 1, CREDIT_RECALLS_MAX, LACK_RECALL_ROOM))
		return TP_FULL;
	c->recalls_asked++;
	c->recalls++;
	return TP_QUEUED;
}

static enum tp_sent send_control(struct credit *c, uint32_t bytes)
{
	if (lacks(c, c->control_bytes, bytes, CREDIT_CONTROL_BYTES_MAX,
	          LACK_CONTROL_ROOM))
		return TP_FULL;
	c->control_bytes += bytes;
	return TP_QUEUED;
}

static uint32_t message_bytes(const struct msg *m)
{
	return (uint32_t)WIRE_HDR_BYTES + m->payload_bytes;
}

enum tp_sent credit_send(struct credit *c, const struct msg *m)
{
	switch (msg_class(m->type)) {
	case MSG_CLASS_REQUEST:
		return send_request(c, msg_credits(m));
	case MSG_CLASS_RECALL:
		return send_recall(c);
	case MSG_CLASS_ANSWER:
		return answer(&c->pages_open, &c->answer_pages, msg_credits(m));
	case MSG_CLASS_ACK:
		return answer(&c->recalls_open, &c->acks, 1);
	case MSG_CLASS_FREE:
		if (lacks(c, c->frees, 1, TP_FREE_MAX, LACK_FREE_ROOM))
			return TP_FULL;
		c->frees++;
		return TP_QUEUED;
	case MSG_CLASS_CONTROL:
		return send_control(c, message_bytes(m));
	case MSG_CLASS_NONE:
		break;
	}
	/* The transport's own messages are never queued. */
	assert(false);
	return TP_DOWN;
}

uint32_t credit_pages(struct credit *c)
{
	if (lacks(c, c->pages_asked, 1, TP_PAGE_CREDITS, LACK_PAGES) ||
	    lacks(c, c->requests, 1, CREDIT_REQUESTS_MAX, LACK_REQUEST_ROOM))
		return 0;
	/* Each page may be asked for by a request of its own. */
	return (uint32_t)min_u64(TP_PAGE_CREDITS - c->pages_asked,
	                         CREDIT_REQUESTS_MAX - c->requests);
}

void credit_acked(struct credit *c, const struct msg *m)
{
	switch (msg_class(m->type)) {
	case MSG_CLASS_REQUEST:
		give(c, &c->requests, 1, LACK_REQUEST_ROOM);
		return;
	case MSG_CLASS_RECALL:
		give(c, &c->recalls, 1, LACK_RECALL_ROOM);
		return;
	case MSG_CLASS_ANSWER:
		give(c, &c->answer_pages, msg_credits(m), 0);
		return;
	case MSG_CLASS_ACK:
		give(c, &c->acks, 1, 0);
		return;
	case MSG_CLASS_FREE:
		give(c, &c->frees, 1, LACK_FREE_ROOM);
		return;
	case MSG_CLASS_CONTROL:
		give(c, &c->control_bytes, message_bytes(m), LACK_CONTROL_ROOM);
		return;
	case MSG_CLASS_NONE:
		return;
	}
}

int credit_arrived(struct credit *c, const struct msg *m)
{
	uint32_t n = msg_credits(m);

	switch (msg_class(m->type)) {
	case MSG_CLASS_REQUEST:
		if (c->pages_open + c->answer_pages + n > TP_PAGE_CREDITS)
			return -EPROTO;
		c->pages_open += n;
		return 0;
	case MSG_CLASS_RECALL:
		if (c->recalls_open + c->acks + n > TP_RECALL_CREDITS)
			return -EPROTO;
		c->recalls_open += n;
		return 0;
	case MSG_CLASS_ANSWER:
		return n > c->pages_asked ? -EPROTO : 0;
	case MSG_CLASS_ACK:
		return n > c->recalls_asked ? -EPROTO : 0;
	case MSG_CLASS_FREE:
	case MSG_CLASS_CONTROL:
	case MSG_CLASS_NONE:
		return 0;
	}
	return 0;
}

void credit_applied(struct credit *c, const struct msg *m)
{
	switch (msg_class(m->type)) {
	case MSG_CLASS_ANSWER:
		give(c, &c->pages_asked, msg_credits(m), LACK_PAGES);
		return;
	case MSG_CLASS_ACK:
		give(c, &c->recalls_asked, 1, LACK_RECALLS);
		return;
	case MSG_CLASS_REQUEST:
	case MSG_CLASS_RECALL:
	case MSG_CLASS_FREE:
	case MSG_CLASS_CONTROL:
	case MSG_CLASS_NONE:
		return;
	}
}

bool credit_back(struct credit *c)
{
	if (!c->back)
		return false;
	c->back = false;
	c->lacking = 0;
	return true;
}
