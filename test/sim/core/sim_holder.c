/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder side, as in node/holder.c: grants and orders of homes, carried out
 * as core/page says, one action after the other.  Between two actions the
 * node's threads may run: the order of actions is what core/page is about.
 */
#include "sim.h"

static void refused(struct node *n, gpn_t page, unsigned kind)
{
	sim_fail(n->sim, "rules", "node %u refuses event %u about page %llu",
	         n->id, kind, (unsigned long long)page);
}

/* --- threads that need two pages [B3] ---------------------------------- */

#define TAKEN_OTHERS 3u
#define WANTS_US     50000u

/* A page goes: was it taken from a thread that waits for another? */
static void thread_lost(struct node *n, gpn_t page, uint16_t hash)
{
	struct hints *h = &n->hints[hash];

	if (hash != 0 && h->waits > 0)
		h->taken = (page + 1) << 8;
}

/*
 * A thread faults, or got a page: is it the one that was taken?  To look when
 * it faults is the point.  Looking only when the page comes is too late: until
 * then the other page of the pair is taken, which overwrites the note, and two
 * such threads go on for ever where a round trip is longer than the residency.
 */
static void thread_match(struct node *n, gpn_t page, uint16_t hash, bool got)
{
	struct hints *h = &n->hints[hash];

	if (hash == 0 || h->taken == 0)
		return;
	if (h->taken >> 8 == page + 1)
		h->wants_us = now_us(n->sim);
	else if (got && (h->taken & 0xff) >= TAKEN_OTHERS)
		h->taken = 0;
	else if (got)
		h->taken++;
}

void holder_wants(struct node *n, gpn_t page, uint16_t hash)
{
	if (n->sim->opt.plant != PLANT_LATE_HINT)
		thread_match(n, page, hash, false);
}

struct hint {
	bool waits;
	uint32_t us;
};

static struct hint hint_of(struct node *n, gpn_t page)
{
	const struct hints *h = &n->hints[page_thread(&n->page[page])];
	uint32_t now = now_us(n->sim);

	if (h->wants_us == 0 || now - h->wants_us > WANTS_US)
		return (struct hint){ .us = now - PAGE_RESIDENCY_US };
	return (struct hint){ .waits = h->waits > 0, .us = h->us };
}

bool holder_ready(struct node *n, gpn_t page)
{
	struct hint h = hint_of(n, page);

	return page_ready(&n->page[page], h.waits, h.us, now_us(n->sim));
}

/* --- grants ------------------------------------------------------------ */

static enum page_event_kind event_of(enum kind kind)
{
	if (kind == M_GRANT_S)
		return PAGE_GRANT_S;
	if (kind == M_GRANT_X)
		return PAGE_GRANT_X;
	if (kind == M_UPGRADE)
		return PAGE_UPGRADE;
	return kind == M_GRANT_LOST ? PAGE_GRANT_LOST : PAGE_GRANT_ZERO;
}

static bool grant_one(struct node *n, gpn_t page, enum page_event_kind kind,
                      bool more, struct page_actions *out)
{
	struct thread *t = thread_first(n, page);
	struct page_event ev = {
		.kind = kind,
		.more = more,
		.now_us = now_us(n->sim),
		.thread = t == NULL ? 0 : t->hash,
		.cap = (uint8_t)sim_below(n->sim, 16),
	};

	thread_match(n, page, ev.thread, true);
	if (node_step(n, page, &ev, out) == 0)
		return true;
	refused(n, page, kind);
	return false;
}

/* `unmapped`: what nobody waits for stays so. */
static void install(struct node *n, gpn_t page, enum page_action_kind what,
                    uint64_t bytes, bool remote, bool unmapped)
{
	switch ((int)what) {
	case PAGE_INSTALL_S:
		/* The marker of a scan arrives, but stays unmapped. */
		if (thread_first(n, page) == NULL &&
		    (unmapped || (remote && sim_one_in(n->sim, 8))))
			mem_keep(n, page, bytes);
		else
			mem_install(n, page, bytes, RIGHTS_READ);
		break;
	case PAGE_INSTALL_M:
		mem_install(n, page, bytes, RIGHTS_WRITE);
		break;
	case PAGE_INSTALL_ZERO:
		mem_install(n, page, 0, RIGHTS_WRITE);
		break;
	case PAGE_UNPROTECT:
		mem_unprotect(n, page);
		break;
	case PAGE_POISON:
		check_copies_lost(n, page);
		mem_poison(n, page);
		break;
	case PAGE_KEEP_BYTES:
		mem_keep(n, page, bytes);
		break;
	default:
		abort(); /* core/page: no grant has another action */
	}
}

void holder_grant(struct node *n, const struct message *m)
{
	bool bits = m->kind == M_GRANT_S || m->kind == M_GRANT_X ||
	            m->kind == M_GRANT_ZERO;
	struct page_actions out;

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(rest);
		gpn_t page = m->page + bit;
		bool stored = (n->page[page].flags & PAGE_F_STORING) != 0;

		if (!grant_one(n, page, event_of(m->kind), m->more, &out))
			return;
		assert(out.n == 1);
		install(n, page, out.v[0].kind, m->bytes[bit], m->from != n->id,
		        stored);
		store_settled(n, page);
	}
	/* Whoever waits for a page that was not granted asks again. */
	for (uint64_t rest = bits ? m->arg : 0; rest != 0; rest &= rest - 1) {
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);

		if (!grant_one(n, page, PAGE_REFUSED, false, &out))
			return;
		store_settled(n, page);
		node_touch_page(n, page);
	}
}

void holder_keep(struct node *n, gpn_t page, uint64_t bytes)
{
	struct page_event ev = { .kind = PAGE_KEEP, .now_us = now_us(n->sim) };
	struct page_actions out;

	if (node_step(n, page, &ev, &out) < 0) {
		refused(n, page, PAGE_KEEP);
		return;
	}
	/* Rather more than the limit than a page that is lost. */
	if (n->used > n->limit)
		n->forced = (uint32_t)max_u64(n->forced, n->used - n->limit);
	mem_keep(n, page, bytes);
}

/* --- orders ------------------------------------------------------------ */

static void defer(struct node *n, node_id home, const struct message *m,
                  gpn_t page, nsec_t in_ns)
{
	struct message *d = sim_alloc(1, sizeof(*d));

	*d = *m;
	d->page = page;
	d->mask = 1;
	clock_put(n->sim, in_ns,
	          (struct event){ .kind = EV_DEFER,
	                          .node = n->id,
	                          .other = home,
	                          .p = d });
}

static uint32_t frame_take(struct node *n, node_id home, gpn_t page)
{
	uint32_t f = 1;

	while (n->frame_home[f] != NODE_NONE)
		f++;
	assert(f <= n->frames); /* the caller looked */
	n->frame_home[f] = home;
	n->frame_page[f] = page;
	n->frames_free--;
	return f;
}

static void frame_free(struct node *n, uint32_t f)
{
	assert(n->frame_home[f] != NODE_NONE);
	n->frame_home[f] = NODE_NONE;
	n->frames_free++;
}

static uint32_t freeze(struct node *n, node_id home, gpn_t page)
{
	uint32_t f = frame_take(n, home, page);

	n->frame[f] = mem_alias(n, page);
	if (n->mem.before[page] != n->frame[f] &&
	    sim_plant(n->sim, PLANT_LOST_WRITE, 8))
		n->frame[f] = n->mem.before[page];
	return f;
}

static void recall_carry_out(struct node *n, node_id home,
                             const struct message *m, gpn_t page,
                             const struct page_actions *out,
                             struct message *data)
{
	struct message ans = { .page = page, .mask = 1 };
	uint64_t frame = 0;

	for (uint32_t i = 0; i < out->n; i++) {
		thread_race(n, page);
		switch ((int)out->v[i].kind) {
		case PAGE_PROTECT:
			break; /* done already */
		case PAGE_FREEZE:
			frame = freeze(n, home, page);
			break;
		case PAGE_FREEZE_FRAME:
			frame = out->v[i].frame;
			n->frame_home[frame] = home;
			evict_left(n, page);
			break;
		case PAGE_RELEASE:
			frame_free(n, out->v[i].frame);
			evict_left(n, page);
			break;
		case PAGE_TOUCH_AGAIN:
			node_touch_page(n, page);
			break;
		case PAGE_PUNCH:
			thread_lost(n, page, page_thread(&n->page[page]));
			mem_punch(n, page);
			break;
		case PAGE_SEND_ACK_DATA:
			if (!out->v[i].frozen) {
				data->mask |= 1ull << (page - data->page);
				data->bytes[page - data->page] =
					mem_bytes(n, page);
				break;
			}
			ans.kind = M_ACK_DATA;
			ans.arg = frame;
			ans.bytes[0] = n->frame[frame];
			node_send(n, home, &ans, NULL);
			break;
		case PAGE_SEND_ACK:
		case PAGE_SEND_NOT_HELD:
			ans.kind = out->v[i].kind == PAGE_SEND_ACK ? M_ACK :
			                                             M_NOT_HELD;
			node_send(n, home, &ans, NULL);
			break;
		case PAGE_DEFER:
			defer(n, home, m, page,
			      (uint32_t)(out->v[i].until_us - now_us(n->sim)) *
			              NSEC_PER_USEC);
			break;
		default:
			abort(); /* core/page: no order has another action */
		}
	}
}

static bool recall_one(struct node *n, gpn_t page, const struct message *m,
                       bool deferred, struct page_actions *out)
{
	struct hint h = hint_of(n, page);
	struct page_event ev = {
		.kind = m->kind == M_RECALL_S ? PAGE_RECALL_S :
		        m->kind == M_RECALL_X ? PAGE_RECALL_X :
		                                PAGE_INVAL,
		.deferred = deferred,
		.thread_waits = h.waits,
		.thread_us = h.us,
		.now_us = now_us(n->sim),
	};

	if (node_step(n, page, &ev, out) == 0)
		return true;
	refused(n, page, ev.kind);
	return false;
}

void holder_recall(struct node *n, node_id home, const struct message *m,
                   bool deferred)
{
	struct message data = { .kind = M_ACK_DATA, .page = m->page };
	struct page_actions out[RUN_PAGES];
	uint32_t k = 0;

	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1) {
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);
		struct page_actions *o = &out[k++];

		if (m->kind == M_RECALL_X && n->frames_free == 0 &&
		    !page_staged(&n->page[page])) {
			defer(n, home, m, page, AGAIN_NS);
			o->n = 0;
			continue;
		}
		if (!recall_one(n, page, m, deferred, o))
			return;
		/* All of an order are write-protected before any is read. */
		thread_race(n, page);
		for (uint32_t i = 0; i < o->n; i++)
			if (o->v[i].kind == PAGE_PROTECT)
				mem_protect(n, page);
	}
	k = 0;
	for (uint64_t rest = m->mask; rest != 0; rest &= rest - 1)
		recall_carry_out(n, home, m,
		                 m->page + (unsigned)__builtin_ctzll(rest),
		                 &out[k++], &data);
	if (data.mask != 0)
		node_send(n, home, &data, NULL);
}

void holder_forget(struct node *n, uint64_t number)
{
	if (number == 0 || number > n->frames ||
	    n->frame_home[number] == NODE_NONE)
		return;
	frame_free(n, (uint32_t)number);
}

/* --- capacity ---------------------------------------------------------- */

bool holder_stage(struct node *n, gpn_t page)
{
	struct page_entry *p = &n->page[page];
	uint16_t hash = page_thread(p);
	struct hint h = hint_of(n, page);
	struct page_event ev = { .kind = PAGE_STAGE,
		                 .thread_waits = h.waits,
		                 .thread_us = h.us,
		                 .now_us = now_us(n->sim),
		                 .frame = frame_take(n, NODE_STAGED, page) };
	struct page_actions out;

	(void)node_step(n, page, &ev, &out);
	if (out.n == 0) {
		frame_free(n, ev.frame);
		return false;
	}
	for (uint32_t i = 0; i < out.n; i++) {
		thread_race(n, page);
		if (out.v[i].kind == PAGE_PROTECT) {
			mem_protect(n, page);
		} else if (out.v[i].kind == PAGE_FILL) {
			n->frame[out.v[i].frame] = mem_alias(n, page);
		} else {
			thread_lost(n, page, hash);
			mem_punch(n, page);
		}
	}
	return true;
}

static void install_back(struct node *n, gpn_t page, uint32_t frame)
{
	bool writable = n->page[page].state == PAGE_M ||
	                sim_plant(n->sim, PLANT_STAGED_WRITABLE, 1);

	if (thread_first(n, page) == NULL)
		mem_keep(n, page, n->frame[frame]);
	else
		mem_install(n, page, n->frame[frame],
		            writable ? RIGHTS_WRITE : RIGHTS_READ);
	frame_free(n, frame);
}

void holder_touch_staged(struct node *n, gpn_t page, struct thread *t)
{
	struct page_event ev = {
		.kind = PAGE_TOUCH,
		.write = t != NULL && t->write,
		.now_us = now_us(n->sim),
		.thread = t == NULL ? 0 : t->hash,
		.cap = (uint8_t)sim_below(n->sim, 16),
	};
	struct page_actions out;

	thread_match(n, page, ev.thread, true);
	(void)node_step(n, page, &ev, &out);
	assert(out.n == 1);
	if (out.v[0].kind != PAGE_INSTALL_BACK)
		return; /* it waits for home's word */
	evict_left(n, page);
	install_back(n, page, out.v[0].frame);
}

void holder_evict(struct node *n, gpn_t page)
{
	struct page_event ev = { .kind = PAGE_EVICT };
	struct page_actions out;

	(void)node_step(n, page, &ev, &out);
	assert(out.n == 1); /* the caller gathers what it sends */
}

static void verdict_one(struct node *n, gpn_t page, enum page_event_kind kind)
{
	struct page_event ev = { .kind = kind };
	struct page_actions out;

	if (node_step(n, page, &ev, &out) < 0) {
		refused(n, page, kind);
		return;
	}
	if (kind == PAGE_STAY)
		evict_stay(n, page);
	for (uint32_t i = 0; i < out.n; i++) {
		if (out.v[i].kind == PAGE_RELEASE) {
			if (!sim_plant(n->sim, PLANT_LEAK_STAGED, 64))
				frame_free(n, out.v[i].frame);
			evict_left(n, page);
			check_copies_released(n, page);
		} else {
			node_touch_page(n, page);
		}
	}
}

void holder_verdict(struct node *n, const struct message *m)
{
	for (uint64_t rest = m->mask | m->arg; rest != 0; rest &= rest - 1) {
		gpn_t page = m->page + (unsigned)__builtin_ctzll(rest);
		bool drop = (m->mask & rest & -rest) != 0;

		/* Planted: nobody has room, so it goes without a copy. */
		if (!drop && n->no_room_until > n->sim->now &&
		    page_staged(&n->page[page]) &&
		    n->page[page].state == PAGE_S &&
		    sim_plant(n->sim, PLANT_SOLE_COPY, 1))
			drop = true;
		verdict_one(n, page, drop ? PAGE_DROP : PAGE_STAY);
	}
}

/* --- a home that died -------------------------------------------------- */

void holder_unreachable_page(struct node *n, gpn_t page)
{
	struct page_event ev = { .kind = PAGE_UNREACHABLE };
	struct page_actions out;

	(void)node_step(n, page, &ev, &out);
	for (uint32_t i = 0; i < out.n; i++) {
		if (out.v[i].kind == PAGE_PUNCH)
			mem_punch(n, page);
		else if (out.v[i].kind == PAGE_POISON)
			mem_poison(n, page);
		else
			node_touch_page(n, page);
	}
	store_settled(n, page);
}

void holder_unreachable(struct node *n, node_id home)
{
	for (gpn_t at = 0; at < n->sim->cut.pages; at++) {
		const struct page_entry *p = &n->page[at];

		if (n->place.extent[extent_of(at)].home == home + 1u &&
		    (page_asked(p) ||
		     (p->flags & (PAGE_F_RECALLED | PAGE_F_EVICTING)) != 0))
			holder_unreachable_page(n, at);
	}
	for (uint32_t f = 1; f <= n->frames; f++)
		if (n->frame_home[f] == home)
			holder_forget(n, f);
}
