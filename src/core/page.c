/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page protocol, the holder side
 * ==============================
 *
 * What a node knows of one page: does it hold it (to read: S; to write: M), and
 * has it asked for it.  The home (core/dir.c) decides; here its answers and
 * orders are turned into what happens to the clients' mappings.
 *
 *	           I                      S                      M
 *	TOUCH r    GET_S, wait            map                    map
 *	TOUCH w    GET_X, wait            GET_X, wait            map
 *	PREFETCH   GET_S / GET_X          write: GET_X           -
 *	GRANT_S    install -> S           EPROTO                 EPROTO
 *	GRANT_X    install -> M           EPROTO                 EPROTO
 *	GRANT_ZERO zeros -> M             EPROTO                 EPROTO
 *	UPGRADE    EPROTO                 un-protect -> M        EPROTO
 *	LOST       poison -> LOST         EPROTO                 EPROTO
 *	RECALL_S   NOT_HELD               ACK_DATA               protect,
 *	                                                         ACK_DATA -> S
 *	RECALL_X   NOT_HELD               freeze, punch,         protect, then
 *	                                  ACK_DATA -> I          as S
 *	INVAL      NOT_HELD               punch, ACK -> I        protect, then
 *	                                                         as S
 *	KEEP       keep bytes -> S        EPROTO                 EPROTO
 *	UNREACHABLE
 *	           poison -> LOST         asked to write: punch, -
 *	                                  poison -> LOST
 *	STAGE      -                      fill a frame, punch    protect, as S,
 *	                                  -> staged S            -> staged M
 *
 * A *staged* page is held, in a frame that no client maps:
 *
 *	           staged S               staged M
 *	TOUCH      install back -> S      install back -> M
 *	EVICT      EVICT, evicting        EVICT, evicting
 *	DROP       release -> I           EPROTO
 *	STAY       touch again            touch again
 *	RECALL_S   ACK_DATA               ACK_DATA -> staged S
 *	RECALL_X   freeze, ACK_DATA -> I  the same
 *	INVAL      release, ACK -> I      the same
 *	UPGRADE    EPROTO                 EPROTO
 *
 * While an EVICT is under way a touch waits, for home may have let the page go
 * already [hazards A6].  An order that crosses the EVICT is answered like any
 * other, and the EVICT by STAY: home is busy when it arrives.  A page that is
 * asked for, or whose residency lasts, is not staged.
 *
 *	With a request under way TOUCH and PREFETCH ask for nothing more;
 *	answers without one are EPROTO.  REFUSED and RETRY end the request: who
 *	waits touches again.  An upgrade that INVAL or RECALL_X crosses stays
 *	asked: the home answers it with bytes.  LOST is left only by DISCARDED,
 *	which made the page zeros: until then a touch of a lost page is poisoned
 *	again.
 *
 * A writer of a page with replicas may be granted a read first (GRANT_S with
 * `more`): then it is S with the request still under way.
 *
 * The order of actions is the point [hazards A6, A7]: a page is first made
 * read-only in every client, then its bytes are copied, then the hole is
 * punched, which unmaps it everywhere, and only then does a message say so.  A
 * page in S is read-only everywhere already.
 *
 * Residency [hazards B3]: one instruction may need two pages, and a page that
 * is taken before its thread ran was moved for nothing.  So a page stays at
 * least PAGE_RESIDENCY_US from its install; while the thread that it was
 * installed for waits for another page it stays too, up to a cap drawn at its
 * install; and when that thread got the other page, the residency starts anew.
 * A recall waits at most cap + PAGE_RESIDENCY_US.  The cap is random to break
 * the tie of two nodes that hold one page each.
 *
 * Invariants:
 *
 *	P1  at most one request is under way, and none that asks for less than
 *	    what is held.
 *	P2  a deferred recall exists only for a page that is held, and not
 *	    staged.
 *	P3  a staged page is held, has a frame, and nothing of it is asked for.
 */

#include "core/page.h"

#include <errno.h>

#include "core/mutant.h"

#define WANT (PAGE_F_WANT_S | PAGE_F_WANT_X)

static struct page_action *emit(struct page_actions *out,
                                enum page_action_kind kind)
{
	struct page_action *a = &out->v[out->n];

	assert(out->n < PAGE_ACTIONS_MAX);
	*a = (struct page_action){ .kind = kind };
	out->n++;
	return a;
}

/* --- requests ---------------------------------------------------------- */

static void ask(struct page_entry *p, bool write, unsigned prefetch,
                struct page_actions *out)
{
	p->flags |=
		(uint8_t)((write ? PAGE_F_WANT_X : PAGE_F_WANT_S) | prefetch);
	emit(out, write ? PAGE_SEND_GET_X : PAGE_SEND_GET_S);
}

static void installed(struct page_entry *p, const struct page_event *ev)
{
	assert(ev->thread < PAGE_THREADS);
	assert(ev->cap < 16);
	p->thread = (uint16_t)(ev->thread << 4 | ev->cap);
	p->since_us = ev->now_us;
}

/* A touch of a page that no client maps: it is in use after all. */
static void touch_staged(struct page_entry *p, const struct page_event *ev,
                         struct page_actions *out)
{
	if (MUTATE(30, (p->flags & PAGE_F_EVICTING) != 0, false)) {
		emit(out, PAGE_WAIT);
		return;
	}
	emit(out, PAGE_INSTALL_BACK)->frame = p->frame;
	p->flags &= (uint8_t)~PAGE_F_STAGED;
	installed(p, ev);
}

static int on_touch(struct page_entry *p, const struct page_event *ev,
                    struct page_actions *out)
{
	if (page_staged(p)) {
		touch_staged(p, ev, out);
		return 0;
	}
	if (p->state == PAGE_LOST) {
		emit(out, PAGE_POISON);
		return 0;
	}
	if (p->state == PAGE_M || (p->state == PAGE_S && !ev->write)) {
		emit(out, PAGE_MAP);
		return 0;
	}
	emit(out, PAGE_WAIT);
	if (!page_asked(p))
		ask(p, ev->write, 0, out);
	return 0;
}

static int on_prefetch(struct page_entry *p, const struct page_event *ev,
                       struct page_actions *out)
{
	if (page_asked(p) || page_staged(p) || p->state == PAGE_LOST ||
	    p->state == PAGE_M)
		return 0;
	if (p->state == PAGE_S && !ev->write)
		return 0;
	ask(p, ev->write, PAGE_F_PREFETCH | (ev->store ? PAGE_F_STORING : 0),
	    out);
	return 0;
}

/* --- answers ----------------------------------------------------------- */

/* The request has been answered. */
static void answered(struct page_entry *p)
{
	p->flags &= (uint8_t) ~(WANT | PAGE_F_PREFETCH | PAGE_F_STORING);
}

/* Bytes, or zeros, for a page that is not held. */
static int on_grant(struct page_entry *p, const struct page_event *ev,
                    struct page_actions *out)
{
	if (!page_asked(p) || page_held(p))
		return -EPROTO;
	if (ev->kind == PAGE_GRANT_S && ev->more) {
		if ((p->flags & PAGE_F_WANT_X) == 0)
			return -EPROTO;
		/* Whoever waits wants to write: there is nobody to wake. */
		emit(out, PAGE_KEEP_BYTES);
		p->state = PAGE_S;
		installed(p, ev);
		return 0;
	}
	if (ev->kind == PAGE_GRANT_S && (p->flags & PAGE_F_WANT_S) == 0)
		return -EPROTO;
	if (ev->kind == PAGE_GRANT_S) {
		emit(out, PAGE_INSTALL_S);
		p->state = MUTATE(4, PAGE_S, PAGE_M);
	} else {
		emit(out, ev->kind == PAGE_GRANT_X ? PAGE_INSTALL_M :
		                                     PAGE_INSTALL_ZERO);
		p->state = PAGE_M;
	}
	answered(p);
	installed(p, ev);
	return 0;
}

static int on_upgrade(struct page_entry *p, const struct page_event *ev,
                      struct page_actions *out)
{
	if (MUTATE(5, p->state != PAGE_S, p->state == PAGE_M) ||
	    (p->flags & PAGE_F_WANT_X) == 0)
		return -EPROTO;
	emit(out, PAGE_UNPROTECT);
	p->state = PAGE_M;
	answered(p);
	installed(p, ev);
	return 0;
}

static int on_lost(struct page_entry *p, struct page_actions *out)
{
	if (!page_asked(p) || page_held(p))
		return -EPROTO;
	answered(p);
	p->state = PAGE_LOST;
	emit(out, PAGE_POISON);
	return 0;
}

/* The request is void: whoever waits asks anew. */
static int on_void(struct page_entry *p, const struct page_event *ev,
                   struct page_actions *out)
{
	if (!page_asked(p))
		return -EPROTO;
	if (ev->kind == PAGE_REFUSED && (p->flags & PAGE_F_PREFETCH) == 0)
		return -EPROTO;
	answered(p);
	if (MUTATE(13, true, false))
		emit(out, PAGE_TOUCH_AGAIN);
	return 0;
}

/*
 * Its home is dead.  What is held stays readable; but who waits for what only
 * the home could give must not wait for ever.
 */
static void on_unreachable(struct page_entry *p, struct page_actions *out)
{
	bool held = page_held(p);

	if (!held || page_asked(p)) {
		if (held)
			emit(out, PAGE_PUNCH);
		emit(out, PAGE_POISON);
		p->state = PAGE_LOST;
	}
	/* Its orders are void too, and who waits for its word touches again. */
	if ((p->flags & PAGE_F_EVICTING) != 0)
		emit(out, PAGE_TOUCH_AGAIN);
	answered(p);
	p->flags &= (uint8_t) ~(PAGE_F_RECALLED | PAGE_F_EVICTING);
}

static int on_keep(struct page_entry *p, const struct page_event *ev,
                   struct page_actions *out)
{
	if (p->state != PAGE_I || page_asked(p))
		return -EPROTO;
	emit(out, PAGE_KEEP_BYTES);
	p->state = PAGE_S;
	p->thread = 0;
	p->since_us = ev->now_us - PAGE_RESIDENCY_US; /* for nobody: none */
	return 0;
}

/* --- orders ------------------------------------------------------------ */

/*
 * Is `at` still to come?  It is never more than max_us ahead, and times wrap
 * after 71 minutes: what seems to be further ahead is long past.
 */
static bool ahead(uint32_t at_us, uint32_t now_us, uint32_t max_us)
{
	return at_us - now_us - 1 < max_us;
}

/* When the page may be recalled: `now` means at once. */
static uint32_t ready_at(const struct page_entry *p, bool thread_waits,
                         uint32_t thread_us, uint32_t now_us)
{
	uint32_t cap_us =
		PAGE_CAP_MIN_US + (p->thread & 15u) * PAGE_CAP_STEP_US;
	uint32_t at = p->since_us + PAGE_RESIDENCY_US;
	uint32_t age_us = now_us - p->since_us;

	if (page_staged(p))
		return now_us;
	if (ahead(at, now_us, PAGE_RESIDENCY_US))
		return at;
	/* A page of long ago is nobody's first half of an instruction (and its
	 * time may have wrapped: then it stays up to a cap longer, once). */
	if (page_thread(p) == 0 || age_us >= cap_us + PAGE_RESIDENCY_US)
		return now_us;
	if (thread_waits && age_us < cap_us)
		return p->since_us + cap_us;
	/* Twice: the thread's time may be another shard's, a little ahead. */
	at = thread_us + PAGE_RESIDENCY_US;
	return ahead(at, now_us, 2 * PAGE_RESIDENCY_US) ? at : now_us;
}

bool page_ready(const struct page_entry *p, bool thread_waits,
                uint32_t thread_us, uint32_t now_us)
{
	return ready_at(p, thread_waits, thread_us, now_us) == now_us;
}

/* True: the recall waits for the residency. */
static bool defer(struct page_entry *p, const struct page_event *ev,
                  struct page_actions *out)
{
	uint32_t at = ready_at(p, ev->thread_waits, ev->thread_us, ev->now_us);

	if (MUTATE(6, at == ev->now_us, true)) {
		p->flags &= (uint8_t)~PAGE_F_RECALLED;
		return false;
	}
	p->flags |= MUTATE(22, PAGE_F_RECALLED, 0);
	emit(out, PAGE_DEFER)->until_us = at;
	return true;
}

/* No client maps it, so nothing is to be protected or punched. */
static void recall_staged(struct page_entry *p, const struct page_event *ev,
                          struct page_actions *out)
{
	if (ev->kind == PAGE_RECALL_S) {
		emit(out, PAGE_SEND_ACK_DATA)->frame = p->frame;
		p->state = MUTATE(31, PAGE_S, p->state);
		return;
	}
	if (ev->kind == PAGE_INVAL) {
		emit(out, PAGE_RELEASE)->frame = p->frame;
		emit(out, PAGE_SEND_ACK);
	} else {
		emit(out, PAGE_FREEZE_FRAME)->frame = p->frame;
		emit(out, PAGE_SEND_ACK_DATA)->frozen = true;
	}
	p->state = PAGE_I;
	p->flags &= (uint8_t)~PAGE_F_STAGED;
	if ((p->flags & PAGE_F_EVICTING) != 0)
		emit(out, PAGE_TOUCH_AGAIN);
	p->stamp = 0;
}

static int on_recall(struct page_entry *p, const struct page_event *ev,
                     struct page_actions *out)
{
	bool owner = p->state == PAGE_M;

	if (ev->deferred != ((p->flags & PAGE_F_RECALLED) != 0))
		return -EPROTO;
	if (!page_held(p)) {
		emit(out, PAGE_SEND_NOT_HELD);
		return 0;
	}
	if (page_staged(p)) {
		recall_staged(p, ev, out);
		return 0;
	}
	if (defer(p, ev, out))
		return 0;
	if (owner && MUTATE(7, true, false))
		emit(out, PAGE_PROTECT);
	if (ev->kind == PAGE_RECALL_S) {
		p->state = MUTATE(8, PAGE_S, owner ? PAGE_M : PAGE_S);
		emit(out, PAGE_SEND_ACK_DATA);
		return 0;
	}
	p->state = PAGE_I;
	p->stamp = 0;
	if (ev->kind == PAGE_INVAL) {
		if (MUTATE(9, false, true))
			emit(out, PAGE_SEND_ACK);
		emit(out, PAGE_PUNCH);
		if (MUTATE(9, true, false))
			emit(out, PAGE_SEND_ACK);
		return 0;
	}
	if (MUTATE(10, true, false))
		emit(out, PAGE_FREEZE);
	emit(out, PAGE_PUNCH);
	if (MUTATE(10, false, true))
		emit(out, PAGE_FREEZE);
	emit(out, PAGE_SEND_ACK_DATA)->frozen = true;
	return 0;
}

/* --- capacity ---------------------------------------------------------- */

static void on_stage(struct page_entry *p, const struct page_event *ev,
                     struct page_actions *out)
{
	if (!page_held(p) || page_staged(p) || page_asked(p) ||
	    (p->flags & (PAGE_F_RECALLED | PAGE_F_EVICTING)) != 0 ||
	    !page_ready(p, ev->thread_waits, ev->thread_us, ev->now_us))
		return;
	assert(ev->frame != 0);
	if (p->state == PAGE_M && MUTATE(32, true, false))
		emit(out, PAGE_PROTECT);
	emit(out, PAGE_FILL)->frame = ev->frame;
	emit(out, PAGE_PUNCH);
	p->flags |= PAGE_F_STAGED;
	p->thread = 0;
	p->frame = ev->frame;
}

static void on_evict(struct page_entry *p, struct page_actions *out)
{
	assert(page_staged(p));
	if ((p->flags & PAGE_F_EVICTING) != 0)
		return;
	emit(out, PAGE_SEND_EVICT);
	p->flags |= PAGE_F_EVICTING;
}

/* Home's word about a copy that we would rather not have. */
static int on_verdict(struct page_entry *p, const struct page_event *ev,
                      struct page_actions *out)
{
	if ((p->flags & PAGE_F_EVICTING) == 0)
		return -EPROTO;
	if (ev->kind == PAGE_DROP) {
		if (!page_staged(p) || p->state != PAGE_S)
			return -EPROTO;
		emit(out, PAGE_RELEASE)->frame = p->frame;
		p->state = PAGE_I;
		p->flags &= (uint8_t)~PAGE_F_STAGED;
		p->stamp = 0;
	}
	p->flags &= (uint8_t)~PAGE_F_EVICTING;
	emit(out, PAGE_TOUCH_AGAIN);
	return 0;
}

int page_handle(struct page_entry *p, const struct page_event *ev,
                struct page_actions *out)
{
	int r = 0;

	out->n = 0;
	switch (ev->kind) {
	case PAGE_TOUCH:
		r = on_touch(p, ev, out);
		break;
	case PAGE_PREFETCH:
		r = on_prefetch(p, ev, out);
		break;
	case PAGE_GRANT_S:
	case PAGE_GRANT_X:
	case PAGE_GRANT_ZERO:
		r = on_grant(p, ev, out);
		break;
	case PAGE_UPGRADE:
		r = on_upgrade(p, ev, out);
		break;
	case PAGE_GRANT_LOST:
		r = on_lost(p, out);
		break;
	case PAGE_REFUSED:
	case PAGE_RETRY:
		r = on_void(p, ev, out);
		break;
	case PAGE_RECALL_S:
	case PAGE_RECALL_X:
	case PAGE_INVAL:
		r = on_recall(p, ev, out);
		break;
	case PAGE_KEEP:
		r = on_keep(p, ev, out);
		break;
	case PAGE_STAGE:
		on_stage(p, ev, out);
		break;
	case PAGE_EVICT:
		on_evict(p, out);
		break;
	case PAGE_DROP:
	case PAGE_STAY:
		r = on_verdict(p, ev, out);
		break;
	case PAGE_UNREACHABLE:
		on_unreachable(p, out);
		break;
	case PAGE_DISCARDED:
		if (p->state == PAGE_LOST)
			p->state = PAGE_I;
		break;
	}
	page_check(p);
	return r;
}

void page_check(const struct page_entry *p)
{
	unsigned want = p->flags & WANT;

	assert(want != WANT); /* P1 */
	if (p->state == PAGE_M)
		assert(want == 0); /* P1 */
	if (p->state == PAGE_S)
		assert(want != PAGE_F_WANT_S); /* P1 */
	if ((p->flags & PAGE_F_RECALLED) != 0) {
		assert(page_held(p));    /* P2 */
		assert(!page_staged(p)); /* P2 */
	}
	if (page_staged(p)) {
		assert(page_held(p));  /* P3 */
		assert(p->frame != 0); /* P3 */
		assert(want == 0);     /* P3 */
	}
}
