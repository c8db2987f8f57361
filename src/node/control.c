/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread: signals, spaces, the end.
 *
 * A space comes from the coordinator by way of the link thread.  It is made
 * here, announced to every shard, and only then acknowledged: so when the
 * coordinator has everybody's word, a request about the space finds it wherever
 * it goes.  It goes the same way back.
 */

#include "node/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/pidfile.h"

/* --- spaces ------------------------------------------------------------ */

struct space *control_find(struct control *c, const char *name)
{
	struct space *sp = c->spaces;

	while (sp != NULL && strcmp(sp->name, name) != 0)
		sp = sp->next;
	return sp;
}

static struct space *space_by_id(struct control *c, space_id id)
{
	struct space *sp = c->spaces;

	while (sp != NULL && sp->id != id)
		sp = sp->next;
	return sp;
}

static void *map_array(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void unmap_array(void *p, size_t bytes)
{
	if (p != NULL)
		munmap(p, bytes);
}

static struct space *space_free(struct space *sp)
{
	if (sp == NULL)
		return NULL;
	space_mem_done(&sp->mem);
	unmap_array(sp->pages, sp->cut.pages * sizeof(*sp->pages));
	unmap_array(sp->dir, sp->cut.pages * sizeof(*sp->dir));
	unmap_array(sp->place.extent,
	            sp->cut.extents * sizeof(*sp->place.extent));
	free(sp->place.stripe);
	free(sp);
	return NULL;
}
DEFINE_AUTO(struct space, space_free)

static int space_new(const struct space_letter *l, const struct node *n,
                     struct space **ret, struct errmsg *em)
{
	AUTO(space_free) struct space *sp = calloc(1, sizeof(*sp));
	int r;

	if (sp == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for a space");
	sp->mem.fd = -1;
	sp->id = l->id;
	sp->bytes = l->bytes;
	sp->replicas = l->replicas;
	snprintf(sp->name, sizeof(sp->name), "%s", l->name);
	cut_init(&sp->cut, l->bytes);
	r = space_mem_init(l->name, l->bytes, &sp->mem, em);
	if (r < 0)
		return r;
	sp->pages = map_array(sp->cut.pages * sizeof(*sp->pages));
	sp->dir = map_array(sp->cut.pages * sizeof(*sp->dir));
	sp->place.extent =
		map_array(sp->cut.extents * sizeof(*sp->place.extent));
	sp->place.stripe = calloc(sp->cut.stripes, sizeof(*sp->place.stripe));
	if (sp->pages == NULL || sp->dir == NULL || sp->place.extent == NULL ||
	    sp->place.stripe == NULL)
		return errmsg_set(em, -ENOMEM,
		                  "no address space for space %s of %llu bytes",
		                  l->name, (unsigned long long)l->bytes);
	sp->place.cut = sp->cut;
	sp->place.self = n->id;
	sp->place.whole = n->cfg.shards == 1;
	*ret = TAKE_PTR(sp);
	return 0;
}

/* A space being announced to the shards, or taken from them. */
struct space_job {
	struct control *control;
	struct space_letter *answer;
	struct space *space;
	unsigned left;
	struct shard_letter letter[SHARDS_MAX];
};

static void space_job_done(struct shard_letter *sl)
{
	struct space_job *j = sl->owner;
	struct control *c = j->control;

	if (sl->result < 0)
		j->answer->result = sl->result;
	if (--j->left > 0)
		return;
	j->answer->space = j->space;
	link_space_answer(c->node->link, j->answer);
	free(j);
}

static void bury(struct mail *mail, void *arg)
{
	struct space_letter *l = container_of(mail, struct space_letter, mail);
	struct control *c = arg;
	struct space **p = &c->spaces;
	uint64_t pages = atomic_load(&l->space->counted);

	while (*p != l->space)
		p = &(*p)->next;
	*p = l->space->next;
	space_free(l->space);
	memory_give(&c->node->memory, pages);
	free(l);
}

void control_bury(struct control *c, struct space_letter *l)
{
	l->mail.deliver = bury;
	mbox_post(c->loop, &l->mail);
}

static int space_job_start(struct control *c, struct space *sp,
                           struct space_letter *l,
                           void (*send)(struct shard *, struct shard_letter *))
{
	struct space_job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		return -ENOMEM;
	*j = (struct space_job){ .control = c,
		                 .answer = l,
		                 .space = sp,
		                 .left = c->node->cfg.shards };
	for (unsigned i = 0; i < c->node->cfg.shards; i++) {
		j->letter[i] = (struct shard_letter){ .owner = j,
			                              .node = c->node,
			                              .space = sp,
			                              .done = space_job_done,
			                              .reply_to = c->loop };
		send(c->node->shard[i], &j->letter[i]);
	}
	return 0;
}

static void space_add(struct control *c, struct space_letter *l)
{
	struct space *sp = space_by_id(c, l->id);
	struct errmsg em = { "" };

	if (sp != NULL) { /* told again after the link broke */
		/* A deletion that its coordinator did not live to decide. */
		sp->dropping = false;
		l->space = sp->shards_left > 0 ? NULL : sp;
		link_space_answer(c->node->link, l);
		return;
	}
	l->result = space_new(l, c->node, &sp, &em);
	if (l->result < 0) {
		log_err("cannot make a space", "space=%s why=\"%s\"", l->name,
		        em.text);
		snprintf(l->why, sizeof(l->why), "%s", em.text);
		link_space_answer(c->node->link, l);
		return;
	}
	sp->next = c->spaces;
	c->spaces = sp;
	l->result = space_job_start(c, sp, l, shard_add_space);
	if (l->result < 0)
		link_space_answer(c->node->link, l);
}

static void space_drop(struct control *c, struct space_letter *l)
{
	struct space *sp = space_by_id(c, l->id);

	/* The coordinator may tell twice, when a renewal crosses the first. */
	if (sp == NULL || sp->shards_left > 0) {
		link_space_answer(c->node->link, l);
		return;
	}
	l->clients = sp->n_clients + sp->n_opened;
	sp->dropping = !l->cancel && (l->commit || l->clients == 0);
	if (!l->commit || l->clients > 0) {
		link_space_answer(c->node->link, l);
		return;
	}
	l->result = space_job_start(c, sp, l, shard_drop_space);
	if (l->result < 0)
		link_space_answer(c->node->link, l);
	else
		sp->shards_left = c->node->cfg.shards;
}

void control_space(struct control *c, struct space_letter *l)
{
	if (l->drop)
		space_drop(c, l);
	else
		space_add(c, l);
}

/* --- the end ----------------------------------------------------------- */

struct end_letter {
	struct mail mail;
	int status;
	char why[200];
};

static void end_deliver(struct mail *mail, void *arg)
{
	struct end_letter *e = container_of(mail, struct end_letter, mail);
	struct control *c = arg;

	if (!atomic_load(&c->node->stopping)) {
		atomic_store(&c->node->stopping, true);
		c->status = e->status;
		snprintf(c->why, sizeof(c->why), "%s", e->why);
		if (e->status != 0)
			log_err("this node ends", "why=\"%s\"", e->why);
		else
			log_info("stopping", "why=\"%s\"", e->why);
		clients_end_all(c, e->why);
		loop_stop(c->loop);
	}
	free(e);
}

void control_end(struct control *c, int status, const char *why)
{
	struct end_letter *e = calloc(1, sizeof(*e));

	if (e == NULL)
		abort(); /* ending is all that is left, and not even that */
	e->status = status;
	snprintf(e->why, sizeof(e->why), "%s", why);
	e->mail.deliver = end_deliver;
	mbox_post(c->loop, &e->mail);
}

static void on_signal(struct loop_io *io, uint32_t events)
{
	struct control *c = container_of(io, struct control, signals);
	struct signalfd_siginfo si;
	char why[64];

	(void)events;
	if (read(io->fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	snprintf(why, sizeof(why), "memspan-node was stopped (%s)",
	         si.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
	control_end(c, 0, why);
}

/* --- life -------------------------------------------------------------- */

int control_new(struct node *n, struct control **ret, struct errmsg *em)
{
	AUTO(control_free) struct control *c = calloc(1, sizeof(*c));
	struct loop_config lc = { .mail_arg = c };
	sigset_t set;
	int r;

	if (c == NULL)
		return errmsg_set(em, -ENOMEM, "no memory");
	c->node = n;
	c->signals.fd = c->listener.fd = -1;
	r = loop_new(&lc, &c->loop, em);
	if (r < 0)
		return r;
	/* Blocked before there are threads, so that all of them inherit it. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	c->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signals.fd < 0)
		return errmsg_set(em, -errno, "cannot watch signals");
	c->signals.ready = on_signal;
	r = loop_add(c->loop, &c->signals, EPOLLIN);
	if (r < 0)
		return errmsg_set(em, r, "cannot watch signals");
	n->control_loop = c->loop;
	*ret = TAKE_PTR(c);
	return 0;
}

int control_open(struct control *c, struct errmsg *em)
{
	struct node *n = c->node;
	int r;

	if (n->cfg.socket[0] != '\0')
		snprintf(c->socket_path, sizeof(c->socket_path), "%s",
		         n->cfg.socket);
	else if (snprintf(c->socket_path, sizeof(c->socket_path),
	                  "%s/node-%u.sock", n->cfg.run_dir,
	                  n->id) >= (int)sizeof(c->socket_path))
		return errmsg_say(em, -ENAMETOOLONG,
		                  "the path of the client socket is too long; "
		                  "take a shorter --run-dir");
	snprintf(c->pid_path, sizeof(c->pid_path), "%s/node-%u.pid",
	         n->cfg.run_dir, n->id);
	r = pidfile_write(c->pid_path, em);
	if (r < 0)
		return r;
	c->have_pid = true;
	return clients_listen(c, em);
}

int control_run(struct control *c)
{
	int r = loop_run(c->loop);

	return r < 0 ? 1 : c->status;
}

struct control *control_free(struct control *c)
{
	if (c == NULL)
		return NULL;
	clients_close(c);
	if (c->have_socket)
		(void)unlink(c->socket_path);
	if (c->have_pid)
		pidfile_remove(c->pid_path);
	while (c->spaces != NULL) {
		struct space *sp = c->spaces;

		c->spaces = sp->next;
		space_free(sp);
	}
	if (c->signals.fd >= 0)
		close(c->signals.fd);
	loop_free(c->loop);
	free(c);
	return NULL;
}
