/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must be true of every world.  Each property looks at memory and at what
 * clients can do to it, never at what the protocol believes.
 */

#include "world.h"

/* One writer or many readers: by what clients can do, not by states. */
static void check_rights(const struct setup *s, const struct world *w)
{
	unsigned writers = 0, readers = 0;

	for (unsigned i = 0; i < s->nodes; i++) {
		writers += w->node[i].mapping == WRITABLE;
		readers += w->node[i].mapping == READ_ONLY;
	}
	if (writers > 1)
		violated("two nodes can write");
	if (writers == 1 && readers > 0)
		violated("one node can write what another reads");
}

/* A read sees the last write. */
static void check_reads(const struct setup *s, const struct world *w)
{
	uint8_t last = w->written ? LAST : ZEROS;

	for (unsigned i = 0; i < s->nodes; i++) {
		const struct member *m = &w->node[i];

		if (m->mapping != READ_ONLY && m->mapping != WRITABLE)
			continue;
		if (m->memory == ABSENT)
			violated("a page is mapped that is not there");
		if (m->memory == ZEROS && last != ZEROS)
			violated("zeros are read in place of data");
		if (m->memory != last)
			violated("an old value is read");
	}
}

static bool queue_has(const struct queue *q, uint8_t value)
{
	for (unsigned i = 0; i < q->n; i++)
		if (q->v[i].value == value)
			return true;
	return false;
}

/* While nobody dies or discards, the last value written is somewhere. */
static void check_loss(const struct setup *s, const struct world *w)
{
	if (!w->written || w->died || packed_dir_discards(&w->dir))
		return;
	for (unsigned i = 0; i < s->nodes; i++)
		if (w->node[i].memory == LAST || w->node[i].bytes == LAST ||
		    w->node[i].staged == LAST || queue_has(&w->up[i], LAST) ||
		    queue_has(&w->down[i], LAST))
			return;
	violated("a write is lost");
}

static bool quiet(const struct setup *s, const struct world *w)
{
	for (unsigned i = 0; i < s->nodes; i++)
		if (w->up[i].n > 0 || w->down[i].n > 0 ||
		    w->node[i].n_acts > 0 || w->node[i].deferred != 0)
			return false;
	return true;
}

/* When nothing is under way, nobody waits and nothing is held back. */
static void check_quiet(const struct setup *s, const struct world *w)
{
	if (!quiet(s, w))
		return;
	if (packed_dir_busy(&w->dir))
		violated("home waits for ever");
	if (w->number != 0)
		violated("a grant is never acknowledged");
	for (unsigned i = 0; i < s->nodes; i++) {
		const struct member *m = &w->node[i];

		if (m->waits != RUNS)
			violated("a thread waits for ever");
		if (m->discards)
			violated("a discard is never answered");
		if (page_asked(&m->page))
			violated("a request is never answered");
		if ((m->page.flags & PAGE_F_EVICTING) != 0)
			violated("an EVICT is never answered");
		if (m->frames !=
		    (page_staged(&m->page) ? 1u << (m->page.frame - 1) : 0))
			violated("a frozen frame leaks");
	}
}

void world_check(const struct setup *s, const struct world *w)
{
	check_rights(s, w);
	check_reads(s, w);
	check_loss(s, w);
	check_quiet(s, w);
	packed_dir_check(s, &w->dir);
}
