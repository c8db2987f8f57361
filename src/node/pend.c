/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that wait: one record per fault message that is not resolved yet,
 * hashed by page, from a pool that is made at start.
 *
 * A record whose page was asked for just waits in its bucket.  One that waits
 * for something else (the coordinator's word, a credit, a moment) is *parked*
 * in one list besides; when that comes, it is touched again as if it had just
 * faulted. When a page is installed, all its records go, parked or not: the
 * kernel wakes the threads.
 */

#include <errno.h>
#include <string.h>

#include "node/shard.h"

static uint32_t bucket_of(const struct sspace *sp, gpn_t page)
{
	uint64_t h =
		(page ^ (uint64_t)sp->space->id << 44) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 50) % PEND_BUCKETS;
}

/* 1 .. PAGE_THREADS - 1: 0 is nobody. */
static uint16_t thread_hash(uint32_t tid)
{
	return (uint16_t)(1 + (tid * 2654435761u >> 8) % (PAGE_THREADS - 1));
}

int pend_init(struct shard *s, struct errmsg *em)
{
	s->pend = calloc(PENDS_MAX + 1, sizeof(*s->pend));
	s->bucket = calloc(PEND_BUCKETS, sizeof(*s->bucket));
	if (s->pend == NULL || s->bucket == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for %u waiters",
		                  PENDS_MAX);
	for (uint32_t i = PENDS_MAX; i > 0; i--) {
		s->pend[i].next = s->free_pend;
		s->free_pend = i;
	}
	s->n_free_pend = PENDS_MAX;
	return 0;
}

uint32_t pend_add(struct shard *s, struct sspace *sp, gpn_t page,
                  const struct uffd_fault *f, uint8_t slot)
{
	uint32_t *bucket = &s->bucket[bucket_of(sp, page)];
	uint32_t i = s->free_pend;
	struct pend *p = &s->pend[i];

	if (i == 0)
		return 0;
	s->free_pend = p->next;
	s->n_free_pend--;
	*p = (struct pend){
		.space = sp,
		.page = page,
		.tid = f->tid,
		.slot = slot,
		.write = f->write,
		.hash = thread_hash(f->tid),
		.next = *bucket,
	};
	*bucket = i;
	atomic_fetch_add_explicit(&s->node->thread_waits[p->hash], 1,
	                          memory_order_relaxed);
	return i;
}

static uint32_t match(struct shard *s, uint32_t i, const struct sspace *sp,
                      gpn_t page)
{
	while (i != 0 && (s->pend[i].page != page || s->pend[i].space != sp))
		i = s->pend[i].next;
	return i;
}

uint32_t pend_first(struct shard *s, struct sspace *sp, gpn_t page)
{
	return match(s, s->bucket[bucket_of(sp, page)], sp, page);
}

uint32_t pend_next(struct shard *s, uint32_t i)
{
	const struct pend *p = &s->pend[i];

	return match(s, p->next, p->space, p->page);
}

static void pend_free(struct shard *s, uint32_t i)
{
	struct pend *p = &s->pend[i];

	atomic_fetch_sub_explicit(&s->node->thread_waits[p->hash], 1,
	                          memory_order_relaxed);
	/* A parked record stays on its list, empty; unpark skips it. */
	p->space = NULL;
	if (p->is_parked)
		return;
	p->next = s->free_pend;
	s->free_pend = i;
	s->n_free_pend++;
}

/* What the thread finds in its note when it runs again. */
static void note(struct shard *s, const struct pend *p, enum local_class class)
{
	struct client *c = p->space->client[p->slot].client;
	_Atomic uint32_t *slot = &c->notes->slot[p->tid % LOCAL_NOTES];
	uint32_t old = atomic_load_explicit(slot, memory_order_relaxed);

	if (p->ahead && class != LOCAL_UPGRADE)
		class = LOCAL_PREFETCHED;
	atomic_store_explicit(slot, ((old >> 4) + 1) << 4 | (uint32_t) class,
	                      memory_order_release);
	shard_count(&c->notes->total[s->index][class], 1);
	shard_count(&c->notes->faults[s->index], 1);
	shard_count(&s->counters->faults[class], 1);
	atomic_store_explicit(&s->node->thread_us[p->hash], s->now_us,
	                      memory_order_relaxed);
}

uint64_t pend_resolve(struct shard *s, struct sspace *sp, gpn_t page,
                      enum local_class class)
{
	uint32_t *link = &s->bucket[bucket_of(sp, page)];
	uint64_t slots = 0;

	while (*link != 0) {
		uint32_t i = *link;
		struct pend *p = &s->pend[i];

		if (p->page != page || p->space != sp) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		slots |= 1ull << p->slot;
		note(s, p, class);
		pend_free(s, i);
	}
	return slots;
}

/*
 * Who has gone waits no more.  On other lists the empty records are met soon;
 * but a frame may not come for as long as the cluster is full, and till then
 * they would be counted, and looked for one for.
 */
static void park_purge(struct shard *s, struct parking *k)
{
	uint32_t i = k->head;

	*k = (struct parking){ 0 };
	while (i != 0) {
		struct pend *p = &s->pend[i];
		uint32_t next = p->parked;

		p->is_parked = false;
		if (p->space == NULL) {
			p->next = s->free_pend;
			s->free_pend = i;
			s->n_free_pend++;
		} else {
			park(s, k, i);
		}
		i = next;
	}
}

void pend_drop_client(struct shard *s, struct sspace *sp, uint8_t slot)
{
	for (uint32_t b = 0; b < PEND_BUCKETS; b++) {
		uint32_t *link = &s->bucket[b];

		while (*link != 0) {
			uint32_t i = *link;
			struct pend *p = &s->pend[i];

			if (p->space != sp || p->slot != slot) {
				link = &p->next;
				continue;
			}
			*link = p->next;
			pend_free(s, i);
		}
	}
	park_purge(s, &s->no_frame);
}

void park(struct shard *s, struct parking *k, uint32_t i)
{
	struct pend *p = &s->pend[i];

	if (p->is_parked)
		return;
	p->is_parked = true;
	p->parked = 0;
	if (k->tail != 0)
		s->pend[k->tail].parked = i;
	else
		k->head = i;
	k->tail = i;
	k->n++;
}

void unpark_some(struct shard *s, struct parking *k, uint32_t most)
{
	struct parking rest = *k, again;

	/* Whoever must park again goes to a fresh list, so this ends; and
	 * behind those who were not touched, so each has its turn. */
	*k = (struct parking){ 0 };
	while (rest.head != 0 && most-- > 0) {
		uint32_t i = rest.head;
		struct pend *p = &s->pend[i];

		rest.head = p->parked;
		rest.n--;
		p->is_parked = false;
		if (p->space == NULL) {
			p->next = s->free_pend;
			s->free_pend = i;
			s->n_free_pend++;
		} else {
			touch_pend(s, i);
			peer_drain(s);
		}
	}
	if (rest.head == 0)
		return;
	again = *k;
	*k = rest;
	if (again.head == 0)
		return;
	s->pend[k->tail].parked = again.head;
	k->tail = again.tail;
	k->n += again.n;
}

void unpark_all(struct shard *s, struct parking *k)
{
	unpark_some(s, k, PENDS_MAX);
}

void park_later(struct shard *s, uint32_t i)
{
	if (s->later.n == 0)
		timer_start(s->loop, &s->later_timer,
		            loop_now(s->loop) + AGAIN_NS);
	park(s, &s->later, i);
}
