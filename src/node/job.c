/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What takes longer than one event: discards and prefetches that a client asked
 * for by range, and the coordinator's questions.
 *
 * A discard is done a window of up to 64 pages at a time, one window on its way
 * and one discard a space and shard at once: so a node never has two DISCARDs
 * of a page outstanding, which its home would refuse.
 */

#include <errno.h>
#include <jansson.h>

#include "node/shard.h"

/* --- discard ----------------------------------------------------------- */

static bool ours(const struct shard *s, const struct cut *cut, gpn_t page)
{
	return cut_shard(cut_stripe_of_page(cut, page), s->node->cfg.shards) ==
	       s->index;
}

static void discard_finish(struct shard *s, struct sspace *sp, int result)
{
	struct shard_letter *l = sp->discards;

	(void)s;
	sp->discards = l->next;
	sp->discard_told = GPN_NONE;
	l->result = result;
	mbox_post(l->reply_to, &l->mail);
}

/*
 * Send the window at l->first.  1: an answer is under way, or will be asked for
 * again.  0: nothing to do there (other shard, or nobody's).  -EHOSTUNREACH:
 * its home is dead.
 */
static int discard_window(struct shard *s, struct sspace *sp,
                          struct shard_letter *l)
{
	struct place *pl = &sp->space->place;
	gpn_t end = min_u64((l->first / EXTENT_PAGES + 1) * EXTENT_PAGES,
	                    l->first + l->pages);
	uint32_t n = (uint32_t)min_u64(end - l->first, RUN_PAGES);
	struct msg m = { .type = MSG_DISCARD,
		         .space = sp->space->id,
		         .page = l->first,
		         .mask = n == 64 ? ~0ull : (1ull << n) - 1 };
	uint32_t e = extent_of(l->first);
	struct place_claim claim;
	struct parking *wait;
	node_id home = s->node->id;

	if (!ours(s, &sp->space->cut, l->first))
		return 0;
	switch (place_asked(pl, e, &home, &claim)) {
	case PLACE_WAIT:
		/* The coordinator said that it is nobody's: zeros already. */
		if (sp->discard_told == e) {
			place_unanswered(pl, e, 1);
			return 0;
		}
		sp->discard_asked = true;
		shard_claim(s, sp, &claim);
		return 1;
	case PLACE_HERE:
		home = s->node->id;
		break;
	case PLACE_THERE:
		if (!peer_over(s, home))
			break;
		if (place_recheck(pl, e))
			return discard_window(s, sp, l);
		/* What was never opened is zeros already. */
		return pl->extent[e].opened ? -EHOSTUNREACH : 0;
	}
	sp->discard_home = home;
	sp->discard_base = l->first;
	if (!peer_alive(s, home) ||
	    peer_credits(s, sp, home, l->first, &wait) < n ||
	    peer_send(s, home, sp, &m, NULL, false, NULL) != TP_QUEUED) {
		timer_start(s->loop, &s->later_timer,
		            loop_now(s->loop) + AGAIN_NS);
		return 1;
	}
	sp->discard_mask = m.mask;
	return 1;
}

void job_discard(struct shard *s, struct sspace *sp)
{
	while (sp->discards != NULL && sp->discard_mask == 0) {
		struct shard_letter *l = sp->discards;
		gpn_t step;
		int r;

		/* What was sent has been answered: behind it. */
		if (sp->discard_sent) {
			sp->discard_sent = false;
			step = min_u64(sp->discard_n, l->pages);
			l->first += step;
			l->pages -= step;
		}
		if (l->pages == 0) {
			discard_finish(s, sp, 0);
			continue;
		}
		r = discard_window(s, sp, l);
		if (r < 0) {
			discard_finish(s, sp, r);
			continue;
		}
		if (r > 0) {
			if (sp->discard_mask == 0)
				return; /* waits for a word or a moment */
			sp->discard_sent = true;
			sp->discard_n = (uint32_t)__builtin_popcountll(
				sp->discard_mask);
			peer_drain(s);
			continue;
		}
		step = min_u64((l->first / EXTENT_PAGES + 1) * EXTENT_PAGES -
		                       l->first,
		               l->pages);
		l->first += step;
		l->pages -= step;
	}
}

/* What was sent to a home that died will not be answered. */
void job_unreachable(struct shard *s, struct sspace *sp, node_id home)
{
	if (sp->discard_mask == 0 || sp->discard_home != home)
		return;
	sp->discard_mask = 0;
	sp->discard_sent = sp->discard_again = false;
	job_discard(s, sp);
}

/* --- questions --------------------------------------------------------- */

static json_t *holders_json(const struct nodeset *set)
{
	json_t *a = json_array();

	NODESET_FOREACH(n, set)
	json_array_append_new(a, json_integer(n));
	return a;
}

static json_t *extent_json(struct shard *s, struct sspace *sp, uint32_t e)
{
	gpn_t first = (gpn_t)e * EXTENT_PAGES;
	gpn_t end = min_u64(first + EXTENT_PAGES, sp->space->cut.pages);
	struct nodeset all, one;
	json_int_t held = 0, stored = 0, lost = 0;

	nodeset_clear(&all);
	for (gpn_t at = first; at < end; at++) {
		const struct dir_entry *d = &sp->space->dir[at];
		enum dir_state st = dir_state(d);

		if (st == DIR_UNTOUCHED)
			continue;
		if (st == DIR_LOST) {
			lost++;
			continue;
		}
		held++;
		dir_holders(s->dir, d, &one);
		for (unsigned i = 0; i < NODESET_WORDS; i++)
			all.w[i] |= one.w[i];
		/* Nobody writes it, and we, its home, have no copy: evicted
		 * pages are like that. */
		if (st == DIR_SHARED && !nodeset_has(&one, s->node->id))
			stored++;
	}
	return json_pack("{s:i, s:{s:I, s:I, s:i, s:I}, s:o}", "extent", (int)e,
	                 "pages", "held", held, "stored", stored, "missing", 0,
	                 "lost", lost, "holders", holders_json(&all));
}

static json_t *page_json(struct shard *s, struct sspace *sp, gpn_t page)
{
	static const char *const name[] = {
		[DIR_UNTOUCHED] = "untouched", [DIR_SHARED] = "shared",
		[DIR_OWNED] = "owned",         [DIR_BUSY] = "owned",
		[DIR_LOST] = "lost",
	};
	const struct dir_entry *d = &sp->space->dir[page];
	enum dir_state st = dir_state(d);
	struct nodeset set;

	dir_holders(s->dir, d, &set);
	if (st == DIR_BUSY && nodeset_count(&set) > 1)
		st = DIR_SHARED;
	return json_pack("{s:s, s:o, s:i}", "state", name[st], "holders",
	                 holders_json(&set), "heat", 0);
}

static void query_deliver(struct mail *mail, void *arg)
{
	struct query_letter *q = container_of(mail, struct query_letter, mail);

	(void)arg;
	link_query_answer(q->node->link, q);
}

static void query_answer(struct shard *s, struct query_letter *q)
{
	struct sspace *sp = shard_space(s, q->space);
	const struct cut *cut;

	if (sp == NULL)
		return;
	cut = &sp->space->cut;
	if (q->one_page) {
		if (q->page < cut->pages && ours(s, cut, q->page))
			q->answer = page_json(s, sp, q->page);
		return;
	}
	q->answer = json_array();
	for (uint32_t e = q->from; e < q->from + q->n && e < cut->extents;
	     e++) {
		if (cut_shard(cut_stripe_of(cut, e), s->node->cfg.shards) !=
		            s->index ||
		    sp->space->place.extent[e].home != s->node->id + 1u)
			continue;
		json_array_append_new(q->answer, extent_json(s, sp, e));
	}
}

static void query_run(struct mail *mail, void *arg)
{
	struct query_letter *q = container_of(mail, struct query_letter, mail);

	query_answer(arg, q);
	q->mail.deliver = query_deliver;
	mbox_post(q->node->link_loop, &q->mail);
}

void shard_query(struct shard *s, struct query_letter *q)
{
	q->mail.deliver = query_run;
	mbox_post(shard_loop(s), &q->mail);
}
