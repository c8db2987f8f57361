/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's thread: its memory, its letters, its life.  What it does with pages
 * is in the files that shard.h lists.
 */

#include "node/shard.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "base/log.h"

nsec_t boot_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

void shard_count(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer: a plain add, made visible to the readers. */
	atomic_store_explicit(
		counter,
		atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

uint32_t shard_now_us(struct shard *s)
{
	s->now_us = (uint32_t)(loop_now(s->loop) / NSEC_PER_USEC);
	return s->now_us;
}

/*
 * A node without a lease answers no peer and resolves no fault: its shards
 * stand still here, in front of the next event.  The link thread goes on
 * renewing; when it succeeds under the same incarnation, nobody was given our
 * pages meanwhile, and we go on where we were.  If the coordinator has declared
 * us dead, the main thread ends the process.
 */
void shard_gate(struct shard *s)
{
	struct timespec nap = { .tv_nsec = 2 * (long)NSEC_PER_MSEC };

	if (!lease_over(s->node))
		return;
	log_warn("the lease is over: this shard stands still", "shard=%u",
	         s->index);
	while (lease_over(s->node) &&
	       !atomic_load_explicit(&s->quit, memory_order_relaxed))
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	loop_now_fresh(s->loop);
	if (!lease_over(s->node))
		log_info("the lease was renewed: this shard goes on",
		         "shard=%u", s->index);
}

struct sspace *shard_space(struct shard *s, space_id id)
{
	struct sspace *sp = s->last_space;

	if (sp != NULL && sp->space->id == id)
		return sp;
	for (sp = s->spaces; sp != NULL; sp = sp->next) {
		if (sp->space->id == id) {
			s->last_space = sp;
			return sp;
		}
	}
	return NULL;
}

void shard_end_clients(struct shard *s, struct sspace *sp, const char *why)
{
	for (uint64_t m = sp->slots; m != 0; m &= m - 1)
		control_end_client(s->node->control,
		                   sp->client[__builtin_ctzll(m)].client, why);
}

/* --- memory that is short ---------------------------------------------- */

#define NUDGE_NS (10 * NSEC_PER_MSEC)

void shard_nudge_others(struct shard *s)
{
	struct node *n = s->node;

	if (loop_now(s->loop) < s->nudge_after)
		return;
	s->nudge_after = loop_now(s->loop) + NUDGE_NS;
	for (unsigned i = 0; i < n->cfg.shards; i++) {
		struct shard *o = n->shard[i];

		if (o != s && !atomic_exchange_explicit(&o->nudged, true,
		                                        memory_order_relaxed))
			mbox_post(o->loop, &o->nudge);
	}
}

/* The end of this turn does the rest. */
static void nudged(struct mail *mail, void *arg)
{
	struct shard *s = arg;

	(void)mail;
	atomic_store_explicit(&s->nudged, false, memory_order_relaxed);
	shard_gate(s);
	shard_now_us(s);
}

/* --- claims ------------------------------------------------------------ */

static void claim_deliver(struct mail *mail, void *arg)
{
	struct claim_letter *c = container_of(mail, struct claim_letter, mail);

	(void)arg;
	link_claim(c->node->link, c);
}

void shard_claim(struct shard *s, struct sspace *sp,
                 const struct place_claim *claim)
{
	struct claim_letter *c;

	if (claim->n == 0)
		return;
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		/* Whoever waits asks again at the next touch or timer. */
		place_unanswered(&sp->space->place, claim->first, claim->n);
		return;
	}
	*c = (struct claim_letter){ .mail.deliver = claim_deliver,
		                    .node = s->node,
		                    .shard = s,
		                    .space = sp->space->id,
		                    .claim = *claim };
	mbox_post(s->node->link_loop, &c->mail);
}

static void extents_deliver(struct mail *mail, void *arg)
{
	struct extents_letter *l =
		container_of(mail, struct extents_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = shard_space(s, l->space);

	if (sp != NULL && l->failed)
		place_unanswered(&sp->space->place, l->first, l->n);
	for (uint32_t i = 0; sp != NULL && !l->failed && i < l->n; i++) {
		const struct extent_info *v = &l->v[i];

		place_told(&sp->space->place, l->first + i, v->home, v->opened,
		           v->version);
		if (v->home == NODE_NONE && sp->discard_asked) {
			sp->discard_told = l->first + i;
			sp->discard_asked = false;
		}
	}
	if (sp != NULL) {
		shard_gate(s);
		shard_now_us(s);
		if (l->failed) {
			/* Not at once: the coordinator is in trouble. */
			struct parking k = sp->unknown;

			sp->unknown = (struct parking){ 0 };
			while (k.head != 0) {
				uint32_t i = k.head;

				k.head = s->pend[i].parked;
				s->pend[i].is_parked = false;
				park_later(s, i);
			}
			timer_start(s->loop, &s->later_timer,
			            loop_now(s->loop) + CLAIM_AGAIN_NS);
		} else {
			unpark_all(s, &sp->unknown);
			job_discard(s, sp);
		}
		peer_drain(s);
	}
	free(l);
}

void shard_extents(struct shard *s, struct extents_letter *l)
{
	l->mail.deliver = extents_deliver;
	mbox_post(s->loop, &l->mail);
}

static void members_deliver(struct mail *mail, void *arg)
{
	struct members_letter *l =
		container_of(mail, struct members_letter, mail);

	shard_now_us(arg);
	peer_members(arg, l);
	free(l);
}

void shard_members(struct shard *s, struct members_letter *l)
{
	l->mail.deliver = members_deliver;
	mbox_post(s->loop, &l->mail);
}

/* --- letters of the main thread ---------------------------------------- */

static void letter_done(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);

	(void)arg;
	l->done(l);
}

static void reply(struct shard_letter *l, int result)
{
	l->result = result;
	l->mail.deliver = letter_done;
	mbox_post(l->reply_to, &l->mail);
}

static void send_letter(struct shard *s, struct shard_letter *l,
                        void (*deliver)(struct mail *, void *))
{
	l->shard = s;
	l->mail.deliver = deliver;
	mbox_post(s->loop, &l->mail);
}

static void add_space(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = calloc(1, sizeof(*sp));
	int r;

	if (sp == NULL) {
		reply(l, -ENOMEM);
		return;
	}
	sp->space = l->space;
	sp->discard_told = GPN_NONE;
	r = frames_add_space(s, sp);
	if (r < 0) {
		free(sp);
		reply(l, r);
		return;
	}
	sp->next = s->spaces;
	s->spaces = sp;
	reply(l, 0);
}

void shard_add_space(struct shard *s, struct shard_letter *l)
{
	send_letter(s, l, add_space);
}

static void drop_space(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = shard_space(s, l->space->id);

	if (sp != NULL) {
		struct sspace **p = &s->spaces;

		assert(sp->n_clients == 0);
		assert(sp->discards == NULL);
		/* Without clients nobody waits: these are free records. */
		unpark_all(s, &sp->unknown);
		holder_dropped(s, sp);
		home_dropped(s, sp);
		peer_dropped(s, sp->space->id);
		while (*p != sp)
			p = &(*p)->next;
		*p = sp->next;
		s->last_space = NULL;
		free(sp);
	}
	reply(l, 0);
}

void shard_drop_space(struct shard *s, struct shard_letter *l)
{
	send_letter(s, l, drop_space);
}

/*
 * On kernels without MINOR mappings: markers on every absent entry [A3].  A
 * client that lacks one would write where others read.  Returns 0 or -ENOMEM.
 */
static int lay_markers(struct shard *s, struct sspace *sp, struct sstripe *st)
{
	gpn_t first = uffd_first(st->uffd);
	gpn_t end = first + uffd_pages(st->uffd);

	if (s->node->features.minor_wp)
		return 0;
	while (first < end) {
		struct uffd_run run = { .first = first };
		enum uffd_outcome o;

		run.pages = (uint32_t)min_u64(end - first, RUN_PAGES);
		o = uffd_protect(st->uffd, &run);
		if (o == UFFD_GONE)
			return 0;
		if (o == UFFD_NOMEM || o == UFFD_AGAIN)
			return -ENOMEM;
		/* Pages that are M here carry none, unless they are staged:
		 * then they may come back as S. */
		for (uint32_t i = 0; i < run.pages; i++) {
			const struct page_entry *p =
				&sp->space->pages[first + i];
			struct uffd_run one = { .first = first + i,
				                .pages = 1 };

			if (p->state == PAGE_M && !page_staged(p))
				(void)uffd_unprotect(st->uffd, &one, 0);
		}
		first += run.pages;
	}
	return 0;
}

static void detach_client(struct shard *s, struct sspace *sp, uint8_t slot)
{
	struct sclient *c = &sp->client[slot];

	for (uint32_t i = 0; c->client != NULL && i < sp->space->cut.stripes;
	     i++) {
		struct sstripe *st = &c->stripe[i];

		if (st->uffd == NULL)
			continue;
		loop_remove(s->loop, &st->io);
		c->client->stripe[i] = uffd_free(st->uffd);
		st->uffd = NULL;
		s->n_fds--;
	}
	pend_drop_client(s, sp, slot);
	sp->slots &= ~(1ull << slot);
	sp->n_clients -= c->client != NULL;
	c->client = NULL;
	free(c->stripe);
	c->stripe = NULL;
}

static int attach_client(struct shard *s, struct sspace *sp, struct client *cl)
{
	struct sclient *c = &sp->client[cl->slot];

	assert(c->client == NULL);
	c->stripe = calloc(sp->space->cut.stripes, sizeof(*c->stripe));
	if (c->stripe == NULL)
		return -ENOMEM;
	c->client = cl;
	c->minor = false;
	sp->n_clients++;
	for (uint32_t i = 0; i < sp->space->cut.stripes; i++) {
		struct sstripe *st = &c->stripe[i];
		int r;

		if (cut_shard(i, s->node->cfg.shards) != s->index ||
		    cl->stripe[i] == NULL)
			continue;
		*st = (struct sstripe){ .shard = s,
			                .space = sp,
			                .client = cl,
			                .uffd = cl->stripe[i],
			                .index = i,
			                .last = GPN_NONE };
		for (unsigned k = 0; k < STREAMS; k++)
			st->stream[k].marker = GPN_NONE;
		st->io.fd = uffd_fd(st->uffd);
		st->io.ready = touch_ready;
		r = loop_add(s->loop, &st->io, EPOLLIN);
		if (r < 0)
			return r;
		s->n_fds++;
		r = lay_markers(s, sp, st);
		if (r < 0)
			return r;
	}
	sp->slots |= 1ull << cl->slot;
	return 0;
}

static void attach(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = shard_space(s, l->client->space->id);
	int r = sp == NULL ? -ENOENT : attach_client(s, sp, l->client);

	if (r < 0 && sp != NULL)
		detach_client(s, sp, l->client->slot);
	reply(l, r);
}

void shard_attach(struct shard *s, struct shard_letter *l)
{
	send_letter(s, l, attach);
}

static void detach(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = shard_space(s, l->client->space->id);

	if (sp != NULL && sp->client[l->client->slot].client == l->client) {
		detach_client(s, sp, l->client->slot);
		touch_resume(s);
	}
	reply(l, 0);
}

void shard_detach(struct shard *s, struct shard_letter *l)
{
	send_letter(s, l, detach);
}

static void discard(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = shard_space(s, l->space->id);
	struct shard_letter **last;

	l->mail.deliver = letter_done; /* job.c posts it when it is done */
	if (sp == NULL) {
		reply(l, -ENOENT);
		return;
	}
	for (last = &sp->discards; *last != NULL; last = &(*last)->next)
		;
	l->next = NULL;
	*last = l;
	shard_gate(s);
	shard_now_us(s);
	job_discard(s, sp);
	peer_drain(s);
}

void shard_discard(struct shard *s, struct shard_letter *l)
{
	send_letter(s, l, discard);
}

static void prefetch(struct mail *mail, void *arg)
{
	struct shard_letter *l = container_of(mail, struct shard_letter, mail);
	struct shard *s = arg;
	struct sspace *sp = shard_space(s, l->space->id);
	gpn_t at = l->first, end = l->first + l->pages;

	shard_gate(s);
	shard_now_us(s);
	while (sp != NULL && at < end) {
		gpn_t stop =
			min_u64((at / EXTENT_PAGES + 1) * EXTENT_PAGES, end);
		uint32_t n = (uint32_t)min_u64(stop - at, RUN_PAGES);

		/* Advice: what cannot be asked for now is left out, and with it
		 * the rest of its extent, which is another shard's, or at home
		 * here, or there are no credits left. */
		at = touch_prefetch(s, sp, at, n, false) > 0 ? at + n : stop;
	}
	peer_drain(s);
	reply(l, 0);
}

void shard_prefetch(struct shard *s, struct shard_letter *l)
{
	send_letter(s, l, prefetch);
}

/* --- timers and turns -------------------------------------------------- */

static void later_due(struct loop_timer *t)
{
	struct shard *s = container_of(t, struct shard, later_timer);

	shard_gate(s);
	shard_now_us(s);
	unpark_all(s, &s->later);
	for (struct sspace *sp = s->spaces; sp != NULL; sp = sp->next)
		if (sp->discards != NULL)
			job_discard(s, sp);
	peer_drain(s);
}

/* Before the transport's hook sends what the turn has gathered. */
static void turn_end(struct loop_hook *h)
{
	struct shard *s = container_of(h, struct shard, hook);

	touch_resume(s);
	evict_turn(s);
	atomic_store_explicit(&s->counters->pending, PENDS_MAX - s->n_free_pend,
	                      memory_order_relaxed);
	atomic_store_explicit(&s->counters->wakeups, loop_wakeups(s->loop),
	                      memory_order_relaxed);
}

/* --- life -------------------------------------------------------------- */

struct adopt_letter {
	struct mail mail;
	int fd;
	struct hello hello;
};

static void adopt(struct mail *mail, void *arg)
{
	struct adopt_letter *a = container_of(mail, struct adopt_letter, mail);
	struct shard *s = arg;

	tp_adopt(s->tp, a->fd, &a->hello);
	free(a);
}

void shard_adopt(struct shard *s, int fd, const struct hello *h)
{
	struct adopt_letter *a = malloc(sizeof(*a));

	if (a == NULL) {
		close(fd); /* the peer dials again */
		return;
	}
	*a = (struct adopt_letter){ .mail.deliver = adopt,
		                    .fd = fd,
		                    .hello = *h };
	mbox_post(s->loop, &a->mail);
}

static int make_pools(struct shard *s, struct errmsg *em)
{
	struct dir_config dc = { .self = s->node->id,
		                 .n_txn = TXNS_MAX,
		                 .n_set = SETS_MAX };
	size_t bytes = (dir_bytes(&dc) + 63) & ~(size_t)63;
	void *mem = aligned_alloc(64, bytes);
	uint64_t seed;
	int r;

	if (mem == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for the directory");
	s->dir = dir_init(&dc, mem);
	s->defers_max = TXNS_MAX;
	s->defer = calloc(s->defers_max, sizeof(*s->defer));
	s->n_frames = (uint32_t)min_u64(
		FRAMES_MAX,
		max_u64(FRAMES_MIN, s->node->memory.limit_pages / 16 /
	                                    s->node->cfg.shards));
	s->frozen = calloc(s->n_frames + 1, sizeof(*s->frozen));
	if (s->defer == NULL || s->frozen == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for the shard");
	for (uint32_t i = 0; i <= s->n_frames; i++)
		s->frozen[i].home = NODE_NONE;
	if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		seed = boot_now();
	prng_init(&s->random, seed);
	r = frame_pool_new(s->n_frames, &s->frames, em);
	if (r == 0)
		memory_fix(&s->node->memory, (int64_t)s->n_frames * PAGE_BYTES);
	if (r == 0)
		r = evict_start(s, em);
	if (r == 0)
		r = pend_init(s, em);
	if (r == 0)
		r = peer_init(s, em);
	return r;
}

int shard_new(struct node *n, uint8_t index, struct shard **ret,
              struct errmsg *em)
{
	AUTO(shard_free) struct shard *s = calloc(1, sizeof(*s));
	struct tp_config tc = { .self = n->id,
		                .incarnation = n->incarnation,
		                .shard = index,
		                .shards = n->cfg.shards,
		                .silence_max = 5 * NSEC_PER_SEC,
		                .redial = 100 * NSEC_PER_MSEC,
		                .ack_delay = 2 * NSEC_PER_MSEC };
	struct loop_config lc = { .busy_poll_ns = n->cfg.busy_poll_ns,
		                  .mail_arg = s };
	int r;

	if (s == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for a shard");
	s->node = n;
	s->index = index;
	s->counters = &n->counters[index];
	r = loop_new(&lc, &s->loop, em);
	if (r == 0)
		r = make_pools(s, em);
	if (r < 0)
		return r;
	s->nudge.deliver = nudged;
	s->later_timer.due = later_due;
	s->defer_timer.due = holder_defer_due;
	s->hook.turn_end = turn_end;
	loop_hook_add(s->loop, &s->hook);
	memcpy(tc.cluster, n->cluster, sizeof(tc.cluster));
	r = tp_new(s->loop, &tc, peer_handlers(), s, &s->tp, em);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

struct loop *shard_loop(struct shard *s)
{
	return s->loop;
}

int shard_listen(struct shard *s, int fd, struct errmsg *em)
{
	return tp_accept(s->tp, fd, em);
}

static void *shard_main(void *arg)
{
	struct shard *s = arg;
	int r = loop_run(s->loop);

	if (r < 0)
		control_end(s->node->control, 1, "a shard's event loop failed");
	return NULL;
}

int shard_start(struct shard *s, struct errmsg *em)
{
	char name[16];
	int r = pthread_create(&s->thread, NULL, shard_main, s);

	if (r != 0)
		return errmsg_set(em, -r, "cannot start a thread");
	s->running = true;
	snprintf(name, sizeof(name), "shard-%u", s->index);
	(void)pthread_setname_np(s->thread, name);
	return 0;
}

void shard_stop(struct shard *s)
{
	if (s == NULL || !s->running)
		return;
	atomic_store_explicit(&s->quit, true, memory_order_relaxed);
	loop_stop(s->loop);
	pthread_join(s->thread, NULL);
	s->running = false;
}

struct shard *shard_free(struct shard *s)
{
	if (s == NULL)
		return NULL;
	shard_stop(s);
	tp_free(s->tp);
	while (s->spaces != NULL) {
		struct sspace *sp = s->spaces;

		s->spaces = sp->next;
		for (unsigned i = 0; i < CLIENTS_PER_SPACE; i++)
			free(sp->client[i].stripe);
		free(sp);
	}
	frame_pool_free(s->frames);
	free(s->dir);
	free(s->defer);
	free(s->frozen);
	free(s->pend);
	free(s->bucket);
	peer_free(s);
	evict_stop(s);
	loop_free(s->loop);
	free(s);
	return NULL;
}
