/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a renewal says of memory: measured, not believed; and what its answer
 * says of the peers' (wire/control.h has the documents).
 *
 * Resident is what the kernel has given to the spaces' memfds, and beside it
 * what pools and sessions take of --memory for good.  The overhead is what
 * --memory does not count: what the process was at its start, and the
 * directories of spaces (page and directory entries, extents), which grow as
 * spaces are touched.  Those belong to the shards, so we do not read them, but
 * ask the kernel which of their pages are there.
 */

#include "node/link.h"

#include <errno.h>
#include <jansson.h>
#include <sys/mman.h>

/* Pages of a directory that one question covers: 8 GiB of a space. */
#define SLICE_PAGES 4096u
/*
 * Questions in one renewal, each of some microseconds: spaces of 1 TiB together
 * are measured each time, larger ones over several renewals.
 */
#define SLICES_MAX 256u

uint64_t link_resident(const struct node *n, const struct link_spaces *sp)
{
	uint64_t sum = atomic_load_explicit(&n->memory.fixed_pages,
	                                    memory_order_relaxed) *
	               PAGE_BYTES;

	for (uint32_t i = 0; i < sp->n; i++)
		sum += space_mem_resident(&sp->v[i].space->mem);
	return sum;
}

/* --- directories ------------------------------------------------------- */

/*
 * The part of `s`'s directories that begins at page `at`, as if its arrays lay
 * one behind the other: where it is, and how many pages, at most SLICE_PAGES.
 * 0: `at` is their end.
 */
static size_t slice(const struct space *s, uint64_t at, void **ret)
{
	const struct {
		void *at;
		uint64_t bytes;
	} array[] = {
		{ s->pages, s->cut.pages * sizeof(*s->pages) },
		{ s->dir, s->cut.pages * sizeof(*s->dir) },
		{ s->place.extent, s->cut.extents * sizeof(*s->place.extent) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(array); i++) {
		uint64_t pages = (array[i].bytes + PAGE_BYTES - 1) / PAGE_BYTES;

		if (at < pages) {
			*ret = (uint8_t *)array[i].at + at * PAGE_BYTES;
			return min_u64(pages - at, SLICE_PAGES);
		}
		at -= pages;
	}
	return 0;
}

/* Ask for one slice.  Returns whether that was the last of the space. */
static bool measure_slice(struct link_space *ls)
{
	unsigned char there[SLICE_PAGES];
	void *at = NULL;
	size_t n = slice(ls->space, ls->at, &at);

	if (n > 0 && mincore(at, n * PAGE_BYTES, there) == 0)
		for (size_t i = 0; i < n; i++)
			ls->found_bytes += (there[i] & 1) * PAGE_BYTES;
	ls->at += n;
	if (n > 0 && slice(ls->space, ls->at, &at) > 0)
		return false;
	ls->directory_bytes = ls->found_bytes;
	ls->at = ls->found_bytes = 0;
	return true;
}

void link_measure(struct link_spaces *sp)
{
	uint32_t whole = 0;

	for (uint32_t i = 0; i < SLICES_MAX && whole < sp->n; i++) {
		sp->next %= sp->n;
		if (measure_slice(&sp->v[sp->next])) {
			sp->next++;
			whole++;
		}
	}
}

uint64_t link_overhead(const struct node *n, const struct link_spaces *sp)
{
	uint64_t sum = atomic_load(&n->fixed_bytes);

	for (uint32_t i = 0; i < sp->n; i++)
		sum += sp->v[i].directory_bytes;
	return sum;
}

/* --- peers ------------------------------------------------------------- */

int link_room_doc(const void *payload, uint32_t bytes, struct node *n)
{
	json_t *doc = json_loadb(payload, bytes, JSON_REJECT_DUPLICATES, NULL);
	const json_t *list = json_object_get(doc, "room");
	uint32_t room[NODES_MAX] = { 0 };
	bool ok = json_is_array(list) && json_array_size(list) <= NODES_MAX;

	for (size_t i = 0; ok && i < json_array_size(list); i++) {
		json_int_t id, pages;

		ok = json_unpack(json_array_get(list, i), "[I, I!]", &id,
		                 &pages) == 0 &&
		     id >= 0 && id < (json_int_t)NODES_MAX && pages >= 0;
		if (ok)
			room[id] =
				(uint32_t)min_u64((uint64_t)pages, UINT32_MAX);
	}
	json_decref(doc);
	if (!ok)
		return -EPROTO;
	room[n->id] = 0; /* nobody stores with himself */
	for (unsigned i = 0; i < NODES_MAX; i++)
		atomic_store_explicit(&n->peer_room[i], room[i],
		                      memory_order_relaxed);
	return 0;
}
