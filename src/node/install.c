/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping pages into clients, and taking their rights away.
 *
 * A granted page is held from the moment its message is applied, mapped or not
 * [A11].  So a page that cannot be mapped now (its client unmaps, dies, is out
 * of memory) goes into the memfd by write(2); whoever waits is woken, faults
 * again and gets it mapped by the page's state.
 *
 * Two kinds of kernel [A3].  With `minor_wp` (Linux 6.4) an access to a page
 * that the memfd has, but the client has not mapped, is a MINOR fault, answered
 * by CONTINUE, write-protected if the page is S.  Without it no client
 * registers MINOR; instead every absent entry carries a write-protect marker
 * unless the page is M here: the kernel then maps by itself what the memfd has,
 * read-only, and a write is a WP fault.
 *
 * Order on every path: the threads' notes and records first, the ioctl that
 * wakes them last.
 */

#include <sched.h>
#include <string.h>

#include "base/log.h"
#include "node/shard.h"

static const uint8_t zero_page[PAGE_BYTES];

/* How often a write-protect that the kernel puts off is tried again. */
#define PROTECT_TRIES 100000u

static struct uffd *uffd_of(const struct sspace *sp, unsigned slot, gpn_t page)
{
	const struct client *c = sp->client[slot].client;

	return c == NULL ? NULL :
	                   c->stripe[cut_stripe_of_page(&sp->space->cut, page)];
}

void install_keep(struct shard *s, struct sspace *sp, gpn_t page,
                  const uint8_t *bytes)
{
	int r = space_mem_write(&sp->space->mem, page, 1, bytes);

	(void)s;
	/* These may be the only bytes: going on without them would lose them
	 * silently.  The host is out of memory for its own promise. */
	if (r < 0) {
		log_err("no memory for a page that was granted to this node",
		        "space=%s page=%llu errno=%d", sp->space->name,
		        (unsigned long long)page, -r);
		abort();
	}
}

static enum uffd_outcome try_run(struct uffd *u, struct uffd_run *run,
                                 const uint8_t *bytes, enum install how)
{
	if (how == INSTALL_ZERO)
		return uffd_zero(u, run, 0);
	return uffd_copy(u, run, bytes, how == INSTALL_S ? UFFD_WP : 0);
}

/*
 * Put a run whose bytes are contiguous into the memfd, mapped into the client
 * at `u` if possible.
 *
 * A page that was not held is a hole.  If it is found to be there, somebody has
 * mapped the memfd around memspan, and so filled it with zeros [A13]: they must
 * not be taken for the page.
 */
static void place_run(struct shard *s, struct sspace *sp, struct uffd *u,
                      gpn_t first, uint32_t n, const uint8_t *bytes,
                      enum install how)
{
	struct uffd_run run = { .first = first, .pages = n };
	uint64_t found;

	if (u != NULL && try_run(u, &run, bytes, how) == UFFD_DONE &&
	    run.found == 0)
		return;
	found = run.found;
	shard_count(&s->counters->breaches,
	            (uint64_t)__builtin_popcountll(found));
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *b = how == INSTALL_ZERO ? zero_page :
		                                         bytes + i * PAGE_BYTES;

		run = (struct uffd_run){ .first = first + i, .pages = 1 };
		/* A page that the first attempt placed says DONE again. */
		if (u != NULL && (found >> i & 1) == 0 &&
		    try_run(u, &run, b, how) == UFFD_DONE)
			continue;
		install_keep(s, sp, first + i, b);
		if (u != NULL)
			(void)uffd_wake(u, first + i, 1);
	}
}

/*
 * On an old kernel, for a client that sends MINOR faults all the same: its
 * fence has registered it anew when the lease lapsed, and that cannot be taken
 * back. A page to be read is then put in anew, for CONTINUE would map it
 * writable: out of all clients, and with COPY into this one.
 */
static enum uffd_outcome map_anew(struct shard *s, struct sspace *sp,
                                  struct uffd *u, gpn_t page, bool writable)
{
	struct uffd_run run = { .first = page, .pages = 1 };
	enum uffd_outcome o;

	if (writable) {
		o = uffd_unprotect(u, &run, UFFD_DONTWAKE);
		run.done = 0;
		return o == UFFD_GONE ? o : uffd_continue(u, &run, 0);
	}
	memcpy(s->bounce, space_mem_page(&sp->space->mem, page), PAGE_BYTES);
	install_protect(s, sp, page, 1);
	install_punch(sp, page, 1);
	place_run(s, sp, u, page, 1, s->bounce, INSTALL_S);
	return UFFD_DONE;
}

/* The page is held, and its bytes are in the memfd: map it for one client. */
static void map_held(struct shard *s, struct sspace *sp, unsigned slot,
                     gpn_t page)
{
	struct uffd_run run = { .first = page, .pages = 1 };
	bool writable = sp->space->pages[page].state == PAGE_M;
	struct uffd *u = uffd_of(sp, slot, page);
	enum uffd_outcome o;

	if (u == NULL)
		return;
	if (!s->node->features.minor_wp && sp->client[slot].minor) {
		o = map_anew(s, sp, u, page, writable);
	} else if (!s->node->features.minor_wp) {
		o = writable ? uffd_unprotect(u, &run, 0) :
		               uffd_wake(u, page, 1);
	} else if (writable) {
		/* Mapped read-only, or not at all: either is possible. */
		o = uffd_unprotect(u, &run, UFFD_DONTWAKE);
		run.done = 0;
		if (o != UFFD_GONE)
			o = uffd_continue(u, &run, 0);
	} else {
		o = uffd_continue(u, &run, UFFD_WP);
	}
	switch (o) {
	case UFFD_DONE:
	case UFFD_ABSENT: /* unmapped meanwhile: nobody waits */
	case UFFD_GONE:   /* the main thread will hear it from the socket */
		break;
	case UFFD_NOMEM:
		shard_count(&s->counters->nomem, 1);
		(void)uffd_wake(u, page, 1);
		break;
	case UFFD_AGAIN:
		(void)uffd_wake(u, page, 1); /* fault again, and so try again */
		break;
	case UFFD_BREACH:
		shard_count(&s->counters->breaches, 1);
		shard_end_clients(s, sp,
		                  "a page that this node holds is not in the "
		                  "space's memory: a client punched it or "
		                  "wrote around memspan; the space's clients "
		                  "end, so that none reads wrong bytes");
		break;
	}
}

void install_punch(struct sspace *sp, gpn_t first, uint32_t n)
{
	int r = space_mem_punch(&sp->space->mem, first, n);

	/* Old bytes must not be there when the page comes back. */
	if (r < 0) {
		log_err("cannot take a page out of a space's memory",
		        "space=%s page=%llu errno=%d", sp->space->name,
		        (unsigned long long)first, -r);
		abort();
	}
}

/* Wakes are by the kernel, behind what it did.  Where it did nothing, for now,
 * the threads fault again, and so it is tried again. */
static void wake_if_undone(struct uffd *u, gpn_t page, enum uffd_outcome o)
{
	if (o == UFFD_AGAIN || o == UFFD_NOMEM)
		(void)uffd_wake(u, page, 1);
}

static void map_for(struct shard *s, struct sspace *sp, uint64_t slots,
                    gpn_t page)
{
	for (; slots != 0; slots &= slots - 1)
		map_held(s, sp, (unsigned)__builtin_ctzll(slots), page);
}

/* The client through which a run is installed: one that waits, else any. */
static unsigned target(const struct sspace *sp, const uint64_t *slots,
                       uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (slots[i] != 0)
			return (unsigned)__builtin_ctzll(slots[i]);
	return sp->slots == 0 ? CLIENTS_PER_SPACE :
	                        (unsigned)__builtin_ctzll(sp->slots);
}

void install_run(struct shard *s, struct sspace *sp, gpn_t first, uint32_t n,
                 const uint8_t *const *page, enum install how,
                 enum local_class class)
{
	uint64_t slots[RUN_PAGES];
	uint32_t waited = 0, at = 0;
	struct uffd *u = NULL;
	unsigned slot;

	assert(n > 0 && n <= RUN_PAGES);
	for (uint32_t i = 0; i < n; i++) {
		slots[i] = pend_resolve(s, sp, first + i, class);
		waited += slots[i] != 0;
	}
	slot = target(sp, slots, n);
	if (slot < CLIENTS_PER_SPACE)
		u = uffd_of(sp, slot, first);
	if (u != NULL) {
		struct local_notes *notes = sp->client[slot].client->notes;

		shard_count(&notes->pages_installed[s->index], n);
		shard_count(&notes->prefetched_pages[s->index], n - waited);
	}
	shard_count(&s->counters->prefetched, n - waited);

	while (at < n) {
		uint32_t k = 1;

		/* As far as the bytes are contiguous; zeros always are.  A
		 * long run of zeros is split, so that the thread that waits
		 * at its head runs while the rest is mapped. */
		while (at + k < n &&
		       (how == INSTALL_ZERO ||
		        page[at + k] == page[at] + (size_t)k * PAGE_BYTES))
			k++;
		if (how == INSTALL_ZERO && at == 0 && k >= 8)
			k /= 4;
		place_run(s, sp, u, first + at, k,
		          how == INSTALL_ZERO ? NULL : page[at], how);
		at += k;
	}
	for (uint32_t i = 0; i < n; i++)
		map_for(s, sp, slots[i] & ~(u == NULL ? 0 : 1ull << slot),
		        first + i);
}

void install_map(struct shard *s, uint32_t pend)
{
	struct sspace *sp = s->pend[pend].space;
	gpn_t page = s->pend[pend].page;

	map_for(s, sp, pend_resolve(s, sp, page, LOCAL_REFAULT), page);
}

void install_unprotect(struct shard *s, struct sspace *sp, gpn_t page,
                       enum local_class class)
{
	struct uffd_run run = { .first = page, .pages = 1 };

	(void)pend_resolve(s, sp, page, class);
	for (uint64_t m = sp->slots; m != 0; m &= m - 1) {
		struct uffd *u =
			uffd_of(sp, (unsigned)__builtin_ctzll(m), page);

		run.done = 0;
		if (u != NULL)
			wake_if_undone(u, page, uffd_unprotect(u, &run, 0));
	}
}

void install_protect(struct shard *s, struct sspace *sp, gpn_t first,
                     uint32_t n)
{
	for (uint64_t m = sp->slots; m != 0; m &= m - 1) {
		struct uffd *u =
			uffd_of(sp, (unsigned)__builtin_ctzll(m), first);
		struct uffd_run run = { .first = first, .pages = n };
		enum uffd_outcome o;
		uint32_t tries = 0;

		if (u == NULL)
			continue;
		/* Until the kernel has done it there may be a writer, so there
		 * is no going on without [A4]. */
		do {
			run.done = 0;
			o = uffd_protect(u, &run);
			if (o == UFFD_AGAIN || o == UFFD_NOMEM)
				sched_yield();
		} while ((o == UFFD_AGAIN || o == UFFD_NOMEM) &&
		         ++tries < PROTECT_TRIES);
		assert(o != UFFD_AGAIN);
		assert(o != UFFD_NOMEM);
	}
	(void)s;
}

void install_poison(struct shard *s, struct sspace *sp, gpn_t page)
{
	shard_count(&s->counters->lost_pages, 1);
	(void)pend_resolve(s, sp, page, LOCAL_REFAULT);
	if (!s->node->features.poison) {
		shard_end_clients(
			s, sp,
			"a page of the space is lost, and this kernel "
			"cannot mark it (UFFDIO_POISON, Linux 6.6): "
			"the space's clients end, so that none reads "
			"zeros in its place");
		return;
	}
	for (uint64_t m = sp->slots; m != 0; m &= m - 1) {
		struct uffd *u =
			uffd_of(sp, (unsigned)__builtin_ctzll(m), page);

		if (u != NULL)
			wake_if_undone(u, page, uffd_poison(u, page));
	}
}
