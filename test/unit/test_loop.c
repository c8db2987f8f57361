/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#include "loop/loop.h"

/* What the callbacks of a test share; one loop, a fresh one for each test. */
static struct loop *loop;
static char log_text[256]; /* one letter for each thing that happened */

static void note(char c)
{
	size_t n = strlen(log_text);

	assert_true(n + 1 < sizeof(log_text));
	log_text[n] = c;
	log_text[n + 1] = '\0';
}

static void arg_is_note(void *arg)
{
	assert_ptr_equal(arg, log_text);
}

static int new_loop(void **state)
{
	const struct loop_config cfg = { .mail_arg = log_text };

	(void)state;
	log_text[0] = '\0';
	return loop_new(&cfg, &loop, NULL);
}

static int free_loop(void **state)
{
	(void)state;
	loop = loop_free(loop);
	return 0;
}

/* --- descriptors ------------------------------------------------------- */

struct reader {
	struct loop_io io;
	int out;              /* the pipe's other end */
	struct reader *kills; /* removed, closed and freed when we run */
	char name;
	unsigned stop_at; /* stop the loop after so many calls; 0: never */
	unsigned calls;
};

static void reader_free(struct reader *r)
{
	loop_remove(loop, &r->io);
	close(r->io.fd);
	close(r->out);
	free(r);
}

static void read_one(struct loop_io *io, uint32_t events)
{
	struct reader *r = container_of(io, struct reader, io);
	char c;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(io->fd, &c, 1), 1);
	note(r->name);
	if (r->kills) {
		reader_free(r->kills);
		r->kills = NULL;
	}
	if (++r->calls == r->stop_at)
		loop_stop(loop);
}

/* A pipe with `bytes` bytes in it, watched. */
static struct reader *reader_new(char name, unsigned bytes)
{
	struct reader *r = calloc(1, sizeof(*r));
	int fd[2];

	assert_non_null(r);
	assert_int_equal(pipe2(fd, O_CLOEXEC | O_NONBLOCK), 0);
	r->io = (struct loop_io){ .fd = fd[0], .ready = read_one };
	r->out = fd[1];
	r->name = name;
	for (unsigned i = 0; i < bytes; i++)
		assert_int_equal(write(r->out, "x", 1), 1);
	assert_int_equal(loop_add(loop, &r->io, EPOLLIN), 0);
	return r;
}

static void what_is_left_unread_calls_again_after_the_others(void **state)
{
	struct reader *a = reader_new('a', 3);
	struct reader *b = reader_new('b', 3);

	(void)state;
	b->stop_at = 3;
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "ababab");
	reader_free(a);
	reader_free(b);
}

static void a_callback_may_free_another_of_the_same_batch(void **state)
{
	struct reader *a = reader_new('a', 1);
	struct reader *b = reader_new('b', 1);

	(void)state;
	a->kills = b;
	a->stop_at = 1;
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "a");
	reader_free(a);
}

static void removing_what_was_never_added_does_nothing(void **state)
{
	struct loop_io none = { .fd = -1, .ready = read_one };
	struct reader *a = reader_new('a', 1);

	(void)state;
	loop_remove(loop, &none);
	loop_remove(loop, &a->io);
	loop_remove(loop, &a->io);
	loop_stop(loop);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "");
	reader_free(a);
}

static void a_modified_descriptor_is_watched_for_the_new_events(void **state)
{
	struct reader *a = reader_new('a', 1);

	(void)state;
	assert_int_equal(loop_modify(loop, &a->io, 0), 0);
	loop_stop(loop);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "");
	a->stop_at = 1;
	assert_int_equal(loop_modify(loop, &a->io, EPOLLIN), 0);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "a");
	reader_free(a);
}

static void errors_of_epoll_come_back(void **state)
{
	struct loop_io io = { .fd = -1, .ready = read_one };
	struct reader *a = reader_new('a', 0);

	(void)state;
	assert_int_equal(loop_add(loop, &io, EPOLLIN), -EBADF);
	assert_int_equal(loop_add(loop, &a->io, EPOLLIN), -EEXIST);
	io.fd = a->out;
	assert_int_equal(loop_modify(loop, &io, EPOLLIN), -ENOENT);
	reader_free(a);
}

/* --- timers and hooks -------------------------------------------------- */

struct named_timer {
	struct loop_timer t;
	char name;
	unsigned again; /* start anew, for a time that has passed */
	bool stops;
};

static void timer_due(struct loop_timer *t)
{
	struct named_timer *n = container_of(t, struct named_timer, t);

	assert_true(loop_now(loop) >= t->at);
	assert_int_equal(t->index, 0);
	note(n->name);
	if (n->again > 0) {
		n->again--;
		timer_start(loop, t, loop_now(loop));
	}
	if (n->stops)
		loop_stop(loop);
}

static void timers_run_in_order_of_their_time(void **state)
{
	struct named_timer a = { .t.due = timer_due, .name = 'a' };
	struct named_timer b = { .t.due = timer_due, .name = 'b' };
	struct named_timer c = { .t.due = timer_due, .name = 'c' };
	struct named_timer d = { .t.due = timer_due, .name = 'd' };
	nsec_t now = loop_now_fresh(loop);

	(void)state;
	c.stops = true;
	timer_start(loop, &c.t, now + 3 * NSEC_PER_MSEC);
	timer_start(loop, &a.t, now + 9 * NSEC_PER_MSEC);
	timer_start(loop, &b.t, now + 2 * NSEC_PER_MSEC);
	timer_start(loop, &d.t, now + 1);
	timer_start(loop, &a.t, now + 1 * NSEC_PER_MSEC); /* moved */
	timer_stop(loop, &d.t);
	timer_stop(loop, &d.t); /* idempotent */
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "abc");
	assert_true(loop_now(loop) >= now + 3 * NSEC_PER_MSEC);
}

static void a_timer_that_is_always_due_starves_nobody(void **state)
{
	struct named_timer t = { .t.due = timer_due,
		                 .name = 't',
		                 .again = 100 };
	struct reader *a = reader_new('a', 3);

	(void)state;
	a->stop_at = 3;
	timer_start(loop, &t.t, 0);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "atatat");
	timer_stop(loop, &t.t);
	reader_free(a);
}

static void hook_one(struct loop_hook *h)
{
	(void)h;
	note('1');
}

static void hook_two(struct loop_hook *h)
{
	(void)h;
	note('2');
}

static void hooks_run_in_order_at_the_end_of_each_turn(void **state)
{
	struct loop_hook one = { .turn_end = hook_one };
	struct loop_hook two = { .turn_end = hook_two };
	struct named_timer t = { .t.due = timer_due, .name = 't' };
	struct reader *a = reader_new('a', 2);

	(void)state;
	a->stop_at = 2;
	loop_hook_add(loop, &one);
	loop_hook_add(loop, &two);
	timer_start(loop, &t.t, 0);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "at12a12");
	reader_free(a);
}

/* --- mailbox and stop -------------------------------------------------- */

struct letter {
	struct mail m;
	char name;
	unsigned posts_on; /* post itself so many times more */
	bool stops;
};

static void letter_deliver(struct mail *m, void *arg)
{
	struct letter *l = container_of(m, struct letter, m);

	arg_is_note(arg);
	note(l->name);
	if (l->posts_on > 0) {
		l->posts_on--;
		mbox_post(loop, m);
	} else if (l->stops) {
		loop_stop(loop);
	}
}

static void letters_come_in_order_and_wake_once(void **state)
{
	struct letter l[5];

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		l[i] = (struct letter){ .m.deliver = letter_deliver,
			                .name = (char)('a' + i),
			                .stops = i == 4 };
		mbox_post(loop, &l[i].m);
	}
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "abcde");
	assert_int_equal(loop_wakeups(loop), 1);
}

static void a_letter_posted_on_waits_for_the_next_turn(void **state)
{
	struct letter l = { .m.deliver = letter_deliver,
		            .name = 'l',
		            .posts_on = 2,
		            .stops = true };
	struct loop_hook one = { .turn_end = hook_one };

	(void)state;
	loop_hook_add(loop, &one);
	mbox_post(loop, &l.m);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "l1l1l1");
}

static void what_is_posted_before_a_stop_is_delivered(void **state)
{
	struct letter l = { .m.deliver = letter_deliver, .name = 'l' };
	struct reader *a = reader_new('a', 1);

	(void)state;
	loop_stop(loop);
	mbox_post(loop, &l.m);
	assert_int_equal(loop_run(loop), 0);
	assert_non_null(strchr(log_text, 'l'));
	reader_free(a);
}

static void a_stopped_loop_can_be_run_again(void **state)
{
	struct letter l = { .m.deliver = letter_deliver,
		            .name = 'l',
		            .stops = true };

	(void)state;
	loop_stop(loop);
	assert_int_equal(loop_run(loop), 0);
	mbox_post(loop, &l.m);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "l");
}

#define SENDERS      4u
#define LETTERS_EACH 20000u

struct numbered {
	struct mail m;
	unsigned sender, number;
};

struct sender {
	pthread_t thread;
	unsigned id;
	struct numbered letters[LETTERS_EACH];
};

/* Written by the loop's thread; read after it has stopped. */
static unsigned arrived[SENDERS];
static unsigned out_of_order;

static void count_letter(struct mail *m, void *arg)
{
	const struct numbered *l = container_of(m, struct numbered, m);
	unsigned all = 0;

	(void)arg;
	out_of_order += l->number != arrived[l->sender];
	arrived[l->sender]++;
	for (unsigned i = 0; i < SENDERS; i++)
		all += arrived[i];
	if (all == SENDERS * LETTERS_EACH)
		loop_stop(loop);
}

static void *send_all(void *arg)
{
	struct sender *s = arg;

	for (unsigned i = 0; i < LETTERS_EACH; i++) {
		s->letters[i] = (struct numbered){ .m.deliver = count_letter,
			                           .sender = s->id,
			                           .number = i };
		mbox_post(loop, &s->letters[i].m);
	}
	return NULL;
}

static void send_from_many_threads(void)
{
	AUTO_FREE struct sender *s = calloc(SENDERS, sizeof(*s));

	assert_non_null(s);
	memset(arrived, 0, sizeof(arrived));
	out_of_order = 0;
	for (unsigned i = 0; i < SENDERS; i++) {
		s[i].id = i;
		assert_int_equal(
			pthread_create(&s[i].thread, NULL, send_all, &s[i]), 0);
	}
	assert_int_equal(loop_run(loop), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(s[i].thread, NULL);
		assert_int_equal(arrived[i], LETTERS_EACH);
	}
	assert_int_equal(out_of_order, 0);
}

static void many_threads_lose_no_letter_and_keep_their_order(void **state)
{
	(void)state;
	send_from_many_threads();
}

static void a_polling_loop_loses_no_letter_either(void **state)
{
	const struct loop_config cfg = { .busy_poll_ns = NSEC_PER_SEC };

	(void)state;
	loop = loop_free(loop);
	assert_int_equal(loop_new(&cfg, &loop, NULL), 0);
	send_from_many_threads();
}

static void a_loop_with_nothing_to_do_sleeps(void **state)
{
	struct named_timer t = { .t.due = timer_due, .name = 't' };

	(void)state;
	t.stops = true;
	timer_start(loop, &t.t, loop_now_fresh(loop) + 20 * NSEC_PER_MSEC);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "t");
	/* A signal may interrupt once; polling would count thousands. */
	assert_in_range(loop_wakeups(loop), 1, 3);
}

static void busy_polling_ends_after_its_time(void **state)
{
	const struct loop_config cfg = { .busy_poll_ns = NSEC_PER_MSEC,
		                         .mail_arg = log_text };
	struct letter l = { .m.deliver = letter_deliver, .name = 'l' };
	struct named_timer t = { .t.due = timer_due, .name = 't' };

	(void)state;
	loop = loop_free(loop);
	assert_int_equal(loop_new(&cfg, &loop, NULL), 0);
	t.stops = true;
	timer_start(loop, &t.t, loop_now_fresh(loop) + 20 * NSEC_PER_MSEC);
	mbox_post(loop, &l.m);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(log_text, "lt");
	/* One for the letter, one for the timer; the polls count as none. */
	assert_in_range(loop_wakeups(loop), 1, 4);
}

static void freeing_nothing_is_allowed(void **state)
{
	(void)state;
	assert_null(loop_free(NULL));
}

#define ON_FRESH_LOOP(f) cmocka_unit_test_setup_teardown(f, new_loop, free_loop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_FRESH_LOOP(what_is_left_unread_calls_again_after_the_others),
		ON_FRESH_LOOP(a_callback_may_free_another_of_the_same_batch),
		ON_FRESH_LOOP(removing_what_was_never_added_does_nothing),
		ON_FRESH_LOOP(
			a_modified_descriptor_is_watched_for_the_new_events),
		ON_FRESH_LOOP(errors_of_epoll_come_back),
		ON_FRESH_LOOP(timers_run_in_order_of_their_time),
		ON_FRESH_LOOP(a_timer_that_is_always_due_starves_nobody),
		ON_FRESH_LOOP(hooks_run_in_order_at_the_end_of_each_turn),
		ON_FRESH_LOOP(letters_come_in_order_and_wake_once),
		ON_FRESH_LOOP(a_letter_posted_on_waits_for_the_next_turn),
		ON_FRESH_LOOP(what_is_posted_before_a_stop_is_delivered),
		ON_FRESH_LOOP(a_stopped_loop_can_be_run_again),
		ON_FRESH_LOOP(many_threads_lose_no_letter_and_keep_their_order),
		ON_FRESH_LOOP(a_polling_loop_loses_no_letter_either),
		ON_FRESH_LOOP(a_loop_with_nothing_to_do_sleeps),
		ON_FRESH_LOOP(busy_polling_ends_after_its_time),
		ON_FRESH_LOOP(freeing_nothing_is_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
