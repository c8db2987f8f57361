/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder side: grants and orders of homes, carried out on our clients and
 * our memory as core/page says.
 *
 * Grants come in runs of up to 64 pages and are installed in runs.  Orders come
 * one page at a time from peers; from our own directory, when it serves a scan,
 * up to 64 at once, and then all of them are write-protected by a few ioctls
 * before the bytes of any are read.
 *
 * A recalled page may have to stay a little (core/page.c, residency): such
 * orders wait in a heap ordered by time.  So does one that finds no frame to
 * freeze its bytes in: frames come back with FORGETs, which never wait for us.
 */

#include <errno.h>
#include <string.h>

#include "node/shard.h"

/* --- the heap of orders that wait -------------------------------------- */

static void defer_swap(struct shard *s, uint32_t a, uint32_t b)
{
	struct defer d = s->defer[a];

	s->defer[a] = s->defer[b];
	s->defer[b] = d;
}

static void defer_push(struct shard *s, const struct defer *d)
{
	uint32_t i = s->n_defer;

	/* Each is one of our own transactions, or has a peer's credit. */
	assert(i < s->defers_max);
	s->defer[i] = *d;
	s->n_defer++;
	while (i > 0 && s->defer[(i - 1) / 2].at > s->defer[i].at) {
		defer_swap(s, i, (i - 1) / 2);
		i = (i - 1) / 2;
	}
	if (i == 0)
		timer_start(s->loop, &s->defer_timer, d->at);
}

static struct defer defer_pop(struct shard *s)
{
	struct defer top = s->defer[0];
	uint32_t i = 0;

	s->defer[0] = s->defer[--s->n_defer];
	for (;;) {
		uint32_t least = i;

		for (uint32_t c = 2 * i + 1; c <= 2 * i + 2; c++)
			if (c < s->n_defer &&
			    s->defer[c].at < s->defer[least].at)
				least = c;
		if (least == i)
			return top;
		defer_swap(s, i, least);
		i = least;
	}
}

void holder_void(struct shard *s, struct sspace *sp, node_id home)
{
	struct msg ans = { .type = MSG_NOT_HELD, .mask = 1 };
	uint32_t n = s->n_defer;

	s->n_defer = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct defer d = s->defer[i]; /* pushing stays below i */

		if (d.space != sp && d.home != home) {
			defer_push(s, &d);
		} else if (d.space == sp && d.home != s->node->id) {
			/* It has its credit back. */
			ans.space = d.m.space;
			ans.page = d.m.page;
			(void)peer_send(s, d.home, sp, &ans, NULL, false, NULL);
		}
	}
}

static void defer_one(struct shard *s, struct sspace *sp, node_id home,
                      const struct msg *m, gpn_t page, nsec_t at)
{
	struct defer d = { .at = at, .m = *m, .home = home, .space = sp };

	d.m.page = page;
	d.m.mask = 1;
	defer_push(s, &d);
}

void holder_defer_due(struct loop_timer *t)
{
	struct shard *s = container_of(t, struct shard, defer_timer);

	shard_gate(s);
	shard_now_us(s);
	while (s->n_defer > 0 && s->defer[0].at <= loop_now(s->loop)) {
		struct defer d = defer_pop(s);
		struct page_entry *p;

		p = &d.space->space->pages[d.m.page];
		(void)holder_recall(s, d.home, &d.m,
		                    (p->flags & PAGE_F_RECALLED) != 0);
		peer_drain(s);
	}
	if (s->n_defer > 0)
		timer_start(s->loop, &s->defer_timer, s->defer[0].at);
}

/* --- threads that need two pages [B3] ---------------------------------- */

/*
 * core/page holds a page on while its thread waits for another, for one
 * instruction may need both.  But most threads that wait for another page are
 * simply done with the first, and holding it would keep everybody else waiting
 * for up to 5 ms.  So the rule is applied where there is a reason: a page was
 * taken from the thread while it waited, and it wanted that page back after at
 * most TAKEN_OTHERS others.  The first round of such a pair is wasted, and no
 * more.
 */
#define TAKEN_OTHERS 3u
#define WANTS_US     50000u /* how long the reason holds */

static uint64_t taken_hash(const struct sspace *sp, gpn_t page)
{
	return ((page ^ (uint64_t)sp->space->id << 40) *
	        0x9e3779b97f4a7c15ull) >>
	       8;
}

static void thread_lost(struct shard *s, struct sspace *sp, gpn_t page)
{
	uint16_t t = page_thread(&sp->space->pages[page]);

	if (t != 0 && atomic_load_explicit(&s->node->thread_waits[t],
	                                   memory_order_relaxed) > 0)
		atomic_store_explicit(&s->node->thread_taken[t],
		                      taken_hash(sp, page) << 8,
		                      memory_order_relaxed);
}

/*
 * Looked at when the thread faults, too: by the time the page comes, the note
 * may be of the other page of the pair, taken meanwhile.
 */
void holder_touched(struct shard *s, struct sspace *sp, gpn_t page, uint16_t t)
{
	uint64_t taken = atomic_load_explicit(&s->node->thread_taken[t],
	                                      memory_order_relaxed);

	if (taken != 0 && taken >> 8 == (taken_hash(sp, page) & ~0ull >> 8))
		atomic_store_explicit(&s->node->thread_wants_us[t], s->now_us,
		                      memory_order_relaxed);
}

static void thread_got(struct shard *s, struct sspace *sp, gpn_t page,
                       uint16_t t)
{
	uint64_t taken = atomic_load_explicit(&s->node->thread_taken[t],
	                                      memory_order_relaxed);

	if (t == 0 || taken == 0)
		return;
	if (taken >> 8 == (taken_hash(sp, page) & ~0ull >> 8))
		atomic_store_explicit(&s->node->thread_wants_us[t], s->now_us,
		                      memory_order_relaxed);
	else if ((taken & 0xff) >= TAKEN_OTHERS)
		taken = 0;
	else
		taken++;
	atomic_store_explicit(&s->node->thread_taken[t], taken,
	                      memory_order_relaxed);
}

struct hint {
	bool waits;
	uint32_t us;
};

static struct hint thread_hint(struct shard *s, const struct page_entry *p)
{
	struct node *n = s->node;
	uint16_t t = page_thread(p);
	uint32_t wants = atomic_load_explicit(&n->thread_wants_us[t],
	                                      memory_order_relaxed);

	if (wants == 0 || s->now_us - wants > WANTS_US)
		return (struct hint){ .us = s->now_us - PAGE_RESIDENCY_US };
	return (struct hint){
		.waits = atomic_load_explicit(&n->thread_waits[t],
		                              memory_order_relaxed) > 0,
		.us = atomic_load_explicit(&n->thread_us[t],
		                           memory_order_relaxed),
	};
}

/* --- grants ------------------------------------------------------------ */

static enum local_class class_of(enum msg_type type, bool net)
{
	if (type == MSG_GRANT_ZERO)
		return net ? LOCAL_FIRST_REMOTE : LOCAL_FIRST_TOUCH;
	if (type == MSG_GRANT_S)
		return net ? LOCAL_REMOTE_READ : LOCAL_REFAULT;
	if (type == MSG_UPGRADE)
		return net ? LOCAL_REMOTE_WRITE : LOCAL_UPGRADE;
	return net ? LOCAL_REMOTE_WRITE : LOCAL_REFAULT;
}

static enum page_event_kind event_of(enum msg_type type)
{
	if (type == MSG_GRANT_S)
		return PAGE_GRANT_S;
	if (type == MSG_GRANT_X)
		return PAGE_GRANT_X;
	if (type == MSG_UPGRADE)
		return PAGE_UPGRADE;
	if (type == MSG_GRANT_LOST)
		return PAGE_GRANT_LOST;
	assert(type == MSG_GRANT_ZERO);
	return PAGE_GRANT_ZERO;
}

/*
 * Pages of [base, base + 64) that are markers of a scan: they stay unmapped, so
 * that the touch that reaches them orders the next window.  Only a kernel with
 * MINOR faults tells us of that touch.
 */
static uint64_t markers(const struct shard *s, const struct sspace *sp,
                        gpn_t base)
{
	uint32_t stripe = cut_stripe_of_page(&sp->space->cut, base);
	uint64_t mask = 0;

	if (!s->node->features.minor_wp)
		return 0;
	for (uint64_t c = sp->slots; c != 0; c &= c - 1) {
		const struct sstripe *st =
			&sp->client[__builtin_ctzll(c)].stripe[stripe];

		/* A client may have mapped a part without this stripe. */
		for (unsigned i = 0; i < STREAMS && st->uffd != NULL; i++)
			if (st->stream[i].marker - base < RUN_PAGES)
				mask |= 1ull << (st->stream[i].marker - base);
	}
	return mask;
}

/* One page: decide.  Returns the action, or -EPROTO. */
static int grant_one(struct shard *s, struct sspace *sp, gpn_t page,
                     enum page_event_kind kind, bool more,
                     struct page_actions *out)
{
	uint32_t waits = pend_first(s, sp, page);
	struct page_event ev = {
		.kind = kind,
		.more = more,
		.now_us = s->now_us,
		.thread = waits != 0 ? s->pend[waits].hash : 0,
		.cap = (uint8_t)prng_below(&s->random, 16),
	};

	thread_got(s, sp, page, ev.thread);
	return page_step(s, sp, page, &ev, out);
}

/* Carry out what one page alone needs; true if it is to be installed. */
static bool grant_other(struct shard *s, struct sspace *sp, gpn_t page,
                        enum page_action_kind what, enum local_class class)
{
	if (what == PAGE_UNPROTECT)
		install_unprotect(s, sp, page, class);
	else if (what == PAGE_POISON)
		install_poison(s, sp, page);
	else
		return true;
	return false;
}

/* Whoever waits for pages of `mask` that were not granted asks again. */
static int grant_refused(struct shard *s, struct sspace *sp, gpn_t base,
                         uint64_t mask)
{
	for (; mask != 0; mask &= mask - 1) {
		gpn_t page = base + (unsigned)__builtin_ctzll(mask);
		struct page_actions out;

		bool store =
			(sp->space->pages[page].flags & PAGE_F_STORING) != 0;

		if (grant_one(s, sp, page, PAGE_REFUSED, false, &out) < 0)
			return -EPROTO;
		if (store)
			store_result(s, sp, page, false);
		else
			sp->refused++;
		touch_page(s, sp, page);
	}
	return 0;
}

int holder_grant(struct shard *s, struct sspace *sp, const struct msg *m,
                 const uint8_t *const *page, bool net)
{
	const uint8_t *bytes[RUN_PAGES];
	enum local_class class = class_of(m->type, net);
	uint64_t keep =
		m->type == MSG_GRANT_S && net ? markers(s, sp, m->page) : 0;
	enum install how = m->type == MSG_GRANT_S    ? INSTALL_S :
	                   m->type == MSG_GRANT_ZERO ? INSTALL_ZERO :
	                                               INSTALL_M;
	uint64_t stored = 0;
	uint32_t n = 0, k = 0;
	gpn_t first = 0;

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		gpn_t at = m->page + (unsigned)__builtin_ctzll(rest);
		const uint8_t *b = page == NULL ? NULL : page[k++];
		bool store = (sp->space->pages[at].flags & PAGE_F_STORING) != 0;
		struct page_actions out;

		if (grant_one(s, sp, at, event_of(m->type),
		              (m->flags & MSG_F_MORE) != 0, &out) < 0)
			return -EPROTO;
		assert(out.n == 1);
		if (store)
			stored |= 1ull << (at - m->page);
		if (!grant_other(s, sp, at, out.v[0].kind, class))
			continue;
		/* What is held for a peer is nobody's here: not mapped, so
		 * that a touch tells, and not charged to a client. */
		if (store && m->type == MSG_GRANT_S)
			keep |= 1ull << (at - m->page);
		if (out.v[0].kind == PAGE_KEEP_BYTES ||
		    ((keep >> (at - m->page) & 1) != 0 &&
		     pend_first(s, sp, at) == 0)) {
			install_keep(s, sp, at, b);
			continue;
		}
		if (n > 0 && at != first + n) {
			install_run(s, sp, first, n, bytes, how, class);
			n = 0;
		}
		if (n == 0)
			first = at;
		bytes[n++] = b;
	}
	if (n > 0)
		install_run(s, sp, first, n, bytes, how, class);
	for (; stored != 0; stored &= stored - 1)
		store_result(s, sp, m->page + (unsigned)__builtin_ctzll(stored),
		             m->type != MSG_GRANT_LOST);
	if ((m->mask & (m->mask - 1)) != 0)
		sp->refused = 0; /* guesses are granted here */
	if (m->type == MSG_GRANT_S || m->type == MSG_GRANT_X ||
	    m->type == MSG_GRANT_ZERO)
		return grant_refused(s, sp, m->page, m->arg);
	return 0;
}

void holder_keep(struct shard *s, struct sspace *sp, gpn_t page,
                 const uint8_t *bytes)
{
	struct page_event ev = { .kind = PAGE_KEEP, .now_us = s->now_us };
	struct page_actions out;
	int r = page_step(s, sp, page, &ev, &out);

	assert(r == 0); /* home_answer() looked */
	install_keep(s, sp, page, bytes);
}

void holder_back(struct shard *s, struct sspace *sp, gpn_t page, uint32_t frame)
{
	const uint8_t *bytes = frame_bytes(s->frames, frame);

	if (pend_first(s, sp, page) != 0)
		install_run(s, sp, page, 1, &bytes,
		            sp->space->pages[page].state == PAGE_M ? INSTALL_M :
		                                                     INSTALL_S,
		            LOCAL_REFAULT);
	else
		install_keep(s, sp, page, bytes);
	frame_give(s->frames, frame);
}

/* --- orders ------------------------------------------------------------ */

bool holder_ready(struct shard *s, const struct page_entry *p)
{
	struct hint h = thread_hint(s, p);

	return page_ready(p, h.waits, h.us, s->now_us);
}

void holder_hint(struct shard *s, const struct page_entry *p,
                 struct page_event *ev)
{
	struct hint h = thread_hint(s, p);

	ev->thread_waits = h.waits;
	ev->thread_us = h.us;
}

static int recall_one(struct shard *s, struct sspace *sp, gpn_t page,
                      const struct msg *m, bool deferred,
                      struct page_actions *out)
{
	struct page_event ev = {
		.kind = m->type == MSG_RECALL_S ? PAGE_RECALL_S :
		        m->type == MSG_RECALL_X ? PAGE_RECALL_X :
		                                  PAGE_INVAL,
		.deferred = deferred,
		.now_us = s->now_us,
	};

	holder_hint(s, &sp->space->pages[page], &ev);
	return page_step(s, sp, page, &ev, out);
}

/* Protect the pages of `mask` in runs. */
static void protect_mask(struct shard *s, struct sspace *sp, gpn_t base,
                         uint64_t mask)
{
	while (mask != 0) {
		unsigned at = (unsigned)__builtin_ctzll(mask);
		uint64_t ones = ~(mask >> at);
		unsigned n =
			ones == 0 ? 64 - at : (unsigned)__builtin_ctzll(ones);

		install_protect(s, sp, base + at, n);
		mask &= n == 64 ? 0 : ~(((1ull << n) - 1) << at);
	}
}

static void freeze(struct shard *s, uint32_t frame, node_id home, space_id id)
{
	s->frozen[frame] = (struct frozen){ .home = home, .space = id };
	shard_count(&s->counters->frozen_frames, 1);
}

struct reply {         /* what goes back, gathered over the pages of an order */
	uint64_t data; /* ACK_DATA of pages we still read */
	const uint8_t *page[RUN_PAGES];
	uint32_t n;
};

/* The actions of one recalled page, but PROTECT, which is done already. */
static void recall_carry_out(struct shard *s, struct sspace *sp, node_id home,
                             const struct msg *m, gpn_t page,
                             const struct page_actions *out, struct reply *re)
{
	struct msg ans = { .space = m->space, .page = page, .mask = 1 };
	const uint8_t *bytes = space_mem_page(&sp->space->mem, page);
	uint32_t frame = FRAME_NONE;
	bool again = false;

	for (uint32_t i = 0; i < out->n; i++) {
		switch ((int)out->v[i].kind) {
		case PAGE_PROTECT:
			break;
		case PAGE_FREEZE:
			frame = frame_take(s->frames);
			assert(frame !=
			       FRAME_NONE); /* holder_recall() looked */
			memcpy(frame_bytes(s->frames, frame), bytes,
			       PAGE_BYTES);
			freeze(s, frame, home, m->space);
			break;
		case PAGE_FREEZE_FRAME:
			frame = out->v[i].frame;
			freeze(s, frame, home, m->space);
			break;
		case PAGE_RELEASE:
			frame_give(s->frames, out->v[i].frame);
			break;
		case PAGE_TOUCH_AGAIN:
			again = true;
			break;
		case PAGE_PUNCH:
			thread_lost(s, sp, page);
			install_punch(sp, page, 1);
			break;
		case PAGE_SEND_ACK_DATA:
			if (out->v[i].frame != 0)
				bytes = frame_bytes(s->frames, out->v[i].frame);
			if (!out->v[i].frozen) {
				re->data |= 1ull << (page - m->page);
				re->page[re->n++] = bytes;
				break;
			}
			ans.type = MSG_ACK_DATA;
			ans.arg = frame;
			bytes = frame_bytes(s->frames, frame);
			(void)peer_send(s, home, sp, &ans, &bytes, false, NULL);
			break;
		case PAGE_SEND_ACK:
		case PAGE_SEND_NOT_HELD:
			ans.type = out->v[i].kind == PAGE_SEND_ACK ?
			                   MSG_ACK :
			                   MSG_NOT_HELD;
			(void)peer_send(s, home, sp, &ans, NULL, false, NULL);
			break;
		case PAGE_DEFER:
			defer_one(s, sp, home, m, page,
			          loop_now(s->loop) +
			                  (uint32_t)(out->v[i].until_us -
			                             s->now_us) *
			                          NSEC_PER_USEC);
			break;
		default:
			abort(); /* core/page: no recall has another action */
		}
	}
	if (again)
		touch_page(s, sp, page);
}

int holder_recall(struct shard *s, node_id home, const struct msg *m,
                  bool deferred)
{
	struct sspace *sp = shard_space(s, m->space);
	struct page_actions out[RUN_PAGES];
	struct reply re = { 0 };
	uint64_t protect = 0;
	unsigned n = 0;

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		struct page_entry *p = &sp->space->pages[m->page + bit];

		if (m->type == MSG_RECALL_X && !page_staged(p) &&
		    frame_free_count(s->frames) == 0) {
			defer_one(s, sp, home, m, m->page + bit,
			          loop_now(s->loop) + AGAIN_NS);
			out[n++].n = 0;
			continue;
		}
		if (recall_one(s, sp, m->page + bit, m, deferred, &out[n]) < 0)
			return -EPROTO;
		for (uint32_t i = 0; i < out[n].n; i++)
			if (out[n].v[i].kind == PAGE_PROTECT)
				protect |= 1ull << bit;
		n++;
	}
	protect_mask(s, sp, m->page, protect);
	n = 0;
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1)
		recall_carry_out(s, sp, home, m,
		                 m->page + (unsigned)__builtin_ctzll(rest),
		                 &out[n++], &re);
	if (re.data != 0) {
		struct msg ans = { .type = MSG_ACK_DATA,
			           .space = m->space,
			           .page = m->page,
			           .mask = re.data };

		(void)peer_send(s, home, sp, &ans, re.page, false, NULL);
	}
	return 0;
}

void holder_forget(struct shard *s, uint64_t number)
{
	if (number == FRAME_NONE || number > s->n_frames ||
	    s->frozen[number].home == NODE_NONE)
		return;
	s->frozen[number].home = NODE_NONE;
	frame_give(s->frames, (uint32_t)number);
	atomic_fetch_sub_explicit(&s->counters->frozen_frames, 1,
	                          memory_order_relaxed);
}

/* DISCARDED; or AGAIN or MOVED, which answer a DISCARD as well. */
int holder_discarded(struct shard *s, struct sspace *sp, const struct msg *m)
{
	struct page_event ev = { .kind = PAGE_DISCARDED };
	struct page_actions out;

	if (sp->discards == NULL || m->page < sp->discard_base ||
	    m->page - sp->discard_base >= RUN_PAGES)
		return -EPROTO;
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);
		uint64_t bit = 1ull << (page - sp->discard_base);

		if (page - sp->discard_base >= RUN_PAGES ||
		    (sp->discard_mask & bit) == 0)
			return -EPROTO;
		sp->discard_mask &= ~bit;
		if (m->type == MSG_DISCARDED)
			(void)page_step(s, sp, page, &ev, &out);
		else
			sp->discard_again = true;
	}
	if (sp->discard_mask == 0 && sp->discard_again) {
		/* All are answered, so the whole window may be asked anew. */
		sp->discard_again = false;
		sp->discard_sent = false;
		timer_start(s->loop, &s->later_timer,
		            loop_now(s->loop) + AGAIN_NS);
		return 0;
	}
	job_discard(s, sp);
	return 0;
}

/* --- a home that died -------------------------------------------------- */

void holder_unreachable_page(struct shard *s, struct sspace *sp, gpn_t page)
{
	struct page_event ev = { .kind = PAGE_UNREACHABLE };
	bool store = (sp->space->pages[page].flags & PAGE_F_STORING) != 0;
	struct page_actions out;

	(void)page_step(s, sp, page, &ev, &out);
	for (uint32_t i = 0; i < out.n; i++) {
		if (out.v[i].kind == PAGE_PUNCH)
			install_punch(sp, page, 1);
		else if (out.v[i].kind == PAGE_POISON)
			install_poison(s, sp, page);
		else
			touch_page(s, sp, page);
	}
	if (store)
		store_result(s, sp, page, false);
}

/*
 * What we asked it for will never come.  Who waits for a page that is not held
 * touches it again, for the extent may have another home: a dead node may have
 * claimed it and never opened it.
 */
static void unreachable_extent(struct shard *s, struct sspace *sp,
                               uint32_t extent)
{
	gpn_t first = (gpn_t)extent * EXTENT_PAGES;
	gpn_t end = min_u64(first + EXTENT_PAGES, sp->space->cut.pages);

	for (gpn_t at = first; at < end; at++) {
		struct page_event ev = { .kind = PAGE_RETRY };
		struct page_entry *p = &sp->space->pages[at];
		struct page_actions out;

		if (page_held(p))
			sp->orphan[extent / 64] |= 1ull << (extent % 64);
		if (page_asked(p) && !page_held(p)) {
			bool store = (p->flags & PAGE_F_STORING) != 0;

			(void)page_step(s, sp, at, &ev, &out);
			if (store)
				store_result(s, sp, at, false);
			touch_page(s, sp, at);
			peer_drain(s);
		} else if (page_asked(p) || (p->flags & PAGE_F_RECALLED) != 0 ||
		           (p->flags & PAGE_F_EVICTING) != 0) {
			holder_unreachable_page(s, sp, at);
		}
	}
}

void holder_unreachable(struct shard *s, node_id home)
{
	holder_void(s, NULL, home); /* its next life knows nothing of them */
	for (struct sspace *sp = s->spaces; sp != NULL; sp = sp->next) {
		const struct cut *cut = &sp->space->cut;

		for (uint32_t e = 0; e < cut->extents; e++) {
			uint32_t stripe = cut_stripe_of(cut, e);

			if (cut_shard(stripe, s->node->cfg.shards) ==
			            s->index &&
			    sp->space->place.extent[e].home == home + 1u)
				unreachable_extent(s, sp, e);
		}
		job_unreachable(s, sp, home);
	}
	for (uint32_t f = 1; f <= s->n_frames; f++)
		if (s->frozen[f].home == home)
			holder_forget(s, f);
}

void holder_dropped(struct shard *s, struct sspace *sp)
{
	holder_void(s, sp, NODE_NONE);
	for (uint32_t f = 1; f <= s->n_frames; f++)
		if (s->frozen[f].space == sp->space->id)
			holder_forget(s, f); /* FORGETs find no space now */
	store_dropped(s, sp->space->id);
	frames_drop_space(s, sp);
}
