/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session with a peer that says anything: each 72 bytes of input are a
 * header, given a good magic, version and checksum, mostly the right number,
 * and a payload of zeros.  Whatever comes, the transport delivers legal
 * messages in order, or ends the session; it never has more to answer than it
 * has room for.
 */

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "net/tcp.h"

#define MESSAGES_MAX 64
#define TURNS_MAX    256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
	struct loop *loop;
	struct loop_hook hook;
	struct transport *tp;
	uint64_t seq;  /* of the last message delivered */
	uint64_t sent; /* bytes given to the socket */
	unsigned turns;
	bool over;
};

static void must(bool claim)
{
	if (!claim)
		abort();
}

/* Answer requests and recalls, half of them at once. */
static int message(void *arg, node_id peer, uint8_t shard, const struct msg *m,
                   const void *payload)
{
	struct fuzz *f = arg;
	struct msg answer = { .space = m->space, .page = m->page, .mask = 1 };

	must(m->seq == f->seq + 1);
	f->seq = m->seq;
	must(m->payload_bytes == 0 || ((const uint8_t *)payload)[0] == 0);
	if (msg_class(m->type) == MSG_CLASS_REQUEST) {
		answer.type = MSG_AGAIN;
		answer.mask = m->mask;
	} else if (msg_class(m->type) == MSG_CLASS_RECALL) {
		answer.type = MSG_NOT_HELD;
	} else {
		return 0;
	}
	if (m->page % 2 == 0)
		must(tp_send(f->tp, peer, shard, &answer, NULL, 0, 0, NULL) ==
		     TP_QUEUED);
	return 0;
}

static void broken(void *arg, node_id peer, uint8_t shard, int why,
                   const char *text)
{
	struct fuzz *f = arg;

	(void)peer;
	(void)shard;
	must(!f->over && why < 0 && text[0] != '\0');
	f->over = true;
}

static void turn_end(struct loop_hook *h)
{
	struct fuzz *f = container_of(h, struct fuzz, hook);
	const struct tcp_session *s = tcp_find(f->tp, 1, 0);

	must(s->credit.pages_open + s->credit.answer_pages <= TP_PAGE_CREDITS);
	must(s->head - s->tail <= CREDIT_RING_BYTES);
	if (f->over || f->tp->counters.bytes_in >= f->sent ||
	    ++f->turns > TURNS_MAX)
		loop_stop(f->loop);
}

static void setup(struct fuzz *f)
{
	const struct tp_config cfg = { .shards = 1,
		                       .silence_max = NSEC_PER_SEC,
		                       .redial = NSEC_PER_SEC,
		                       .ack_delay = NSEC_PER_SEC };
	const struct tp_handlers handlers = { .message = message,
		                              .broken = broken };
	const struct tp_peer_config peer = { .node = 1, .incarnation = 1 };
	const struct loop_config lc = { .busy_poll_ns = 0 };
	const struct msg inval = { .type = MSG_INVAL, .space = 1, .mask = 1 };

	must(loop_new(&lc, &f->loop, NULL) == 0);
	must(tp_new(f->loop, &cfg, &handlers, f, &f->tp, NULL) == 0);
	must(tp_peer(f->tp, &peer) == 0);
	/* Something that may be answered, and acknowledged. */
	must(tp_send(f->tp, 1, 0, &inval, NULL, 0, 0, NULL) == TP_QUEUED);
	f->hook.turn_end = turn_end;
	loop_hook_add(f->loop, &f->hook);
}

/* Make of 72 bytes a message that gets past the checksums. */
static size_t forge(const uint8_t *data, uint64_t seq, uint8_t *out)
{
	struct wire_hdr *hdr = (void *)out;
	uint32_t bytes;

	memcpy(hdr, data, sizeof(*hdr));
	memcpy(hdr->magic, "mspn", sizeof(hdr->magic));
	hdr->version = WIRE_VERSION;
	hdr->reserved = le32_put(0);
	if (le64_get(hdr->seq) % 8 != 7)
		hdr->seq = le64_put(seq);
	bytes = le32_get(hdr->payload_bytes) % (2 * PAGE_BYTES + 1);
	hdr->payload_bytes = le32_put(bytes);
	memset(out + sizeof(*hdr), 0, bytes);
	hdr->payload_crc = le32_put(crc32c(out + sizeof(*hdr), bytes));
	wire_seal(hdr);
	return sizeof(*hdr) + bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[WIRE_HDR_BYTES + 2 * PAGE_BYTES];
	const struct hello h = { .version_min = 1,
		                 .version_max = 1,
		                 .node = 1,
		                 .shards = 1,
		                 .incarnation = 1 };
	struct fuzz f = { .seq = 0 };
	uint64_t seq = 0;
	int pair[2];

	setup(&f);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
	                pair) == 0);
	tp_adopt(f.tp, pair[0], &h);
	must(tp_connected(f.tp, 1, 0));
	for (size_t at = 0; at + WIRE_HDR_BYTES <= size && seq < MESSAGES_MAX;
	     at += WIRE_HDR_BYTES) {
		size_t n = forge(data + at, ++seq, bytes);
		ssize_t r = send(pair[1], bytes, n, MSG_NOSIGNAL);

		if (r > 0)
			f.sent += (size_t)r;
		if (r != (ssize_t)n)
			break; /* the socket is full: enough was said */
	}
	if (f.sent > 0)
		must(loop_run(f.loop) == 0);
	tp_free(f.tp);
	loop_free(f.loop);
	close(pair[1]);
	return 0;
}
