/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store by its contract, which any other backend would have to hold too.
 * Death and full disks are tested with real processes, in
 * test/cluster/test_coordinator_store.py.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "coord/store.h"

static char path[64];
static struct store *store;
static struct errmsg em;

static int set_up(void **state)
{
	(void)state;
	strcpy(path, "/tmp/memspan-store-XXXXXX");
	close(mkstemp(path));
	(void)unlink(path);
	return store_open(path, &store, &em);
}

static int tear_down(void **state)
{
	char beside[80];

	(void)state;
	store = store_free(store);
	(void)unlink(path);
	snprintf(beside, sizeof(beside), "%s-wal", path);
	(void)unlink(beside);
	return 0;
}

static void reopen(void)
{
	store = store_free(store);
	assert_int_equal(store_open(path, &store, &em), 0);
}

static int put(const char *key, const char *value)
{
	return store_put(store, key, value, strlen(value), &em);
}

/* "key=value@made/changed, ..." of all keys with this prefix. */
static char listing[4096];

static int list_one(const struct store_kv *kv, void *arg)
{
	size_t *at = arg;

	*at += (size_t)snprintf(listing + *at, sizeof(listing) - *at,
	                        "%s%s=%.*s@%d/%d", *at > 0 ? ", " : "", kv->key,
	                        (int)kv->bytes, (const char *)kv->value,
	                        (int)kv->create_revision,
	                        (int)kv->mod_revision);
	return 0;
}

static const char *list(const char *prefix)
{
	size_t at = 0;

	listing[0] = '\0';
	assert_int_equal(store_range(store, prefix, list_one, &at, &em), 0);
	return listing;
}

/* --- facts ------------------------------------------------------------- */

static void a_new_store_is_empty(void **state)
{
	(void)state;
	assert_int_equal(store_revision(store), 0);
	assert_string_equal(list("a"), "");
}

static void keys_remember_when_they_were_made_and_changed(void **state)
{
	(void)state;
	assert_int_equal(put("a", "1"), STORE_DONE);
	assert_int_equal(put("b", "2"), STORE_DONE);
	assert_int_equal(put("a", "3"), STORE_DONE);
	assert_string_equal(list("a"), "a=3@1/3");
	assert_string_equal(list("b"), "b=2@2/2");
	assert_int_equal(store_revision(store), 3);
}

static void a_range_has_the_prefix_and_the_order_of_bytes(void **state)
{
	(void)state;
	assert_int_equal(put("x/10", "c"), STORE_DONE);
	assert_int_equal(put("x/02", "b"), STORE_DONE);
	assert_int_equal(put("x", "no"), STORE_DONE);
	assert_int_equal(put("x0", "no"), STORE_DONE);
	assert_int_equal(put("x/", "a"), STORE_DONE);
	assert_string_equal(list("x/"), "x/=a@5/5, x/02=b@2/2, x/10=c@1/1");
}

static int stop_at_second(const struct store_kv *kv, void *arg)
{
	int *n = arg;

	(void)kv;
	return ++*n == 2 ? -ECANCELED : 0;
}

static void a_walk_ends_when_it_is_told_to(void **state)
{
	int n = 0;

	(void)state;
	assert_int_equal(put("a", "1"), STORE_DONE);
	assert_int_equal(put("b", "2"), STORE_DONE);
	assert_int_equal(put("c", "3"), STORE_DONE);
	assert_int_equal(store_range(store, "a", stop_at_second, &n, &em), 0);
	n = 0;
	assert_int_equal(put("aa", "2"), STORE_DONE);
	assert_int_equal(store_range(store, "a", stop_at_second, &n, &em),
	                 -ECANCELED);
}

static void a_transaction_changes_all_at_one_revision(void **state)
{
	struct store_op ops[] = {
		{ STORE_PUT, "a", "1", 1 },
		{ STORE_PUT, "b", "2", 1 },
		{ STORE_DELETE, "c", NULL, 0 },
	};
	struct store_txn txn = { .ops = ops, .n_ops = 3 };

	(void)state;
	assert_int_equal(put("c", "0"), STORE_DONE);
	assert_int_equal(store_txn(store, &txn, &em), STORE_DONE);
	assert_string_equal(list("a"), "a=1@2/2");
	assert_string_equal(list("b"), "b=2@2/2");
	assert_string_equal(list("c"), "");
	assert_int_equal(store_revision(store), 2);
}

static void a_compare_that_does_not_hold_changes_nothing(void **state)
{
	struct store_cmp cmp = { "a", 0 };
	struct store_op op = { STORE_PUT, "b", "x", 1 };
	struct store_txn txn = { &cmp, 1, &op, 1 };

	(void)state;
	assert_int_equal(put("a", "1"), STORE_DONE);
	assert_int_equal(store_txn(store, &txn, &em), STORE_CHANGED);
	cmp.mod_revision = 2;
	assert_int_equal(store_txn(store, &txn, &em), STORE_CHANGED);
	assert_string_equal(list("b"), "");
	assert_int_equal(store_revision(store), 1);
	cmp.mod_revision = 1;
	assert_int_equal(store_txn(store, &txn, &em), STORE_DONE);
	assert_string_equal(list("b"), "b=x@2/2");
	cmp = (struct store_cmp){ "absent", 0 };
	assert_int_equal(store_txn(store, &txn, &em), STORE_DONE);
}

static void a_prefix_is_deleted_with_all_behind_it(void **state)
{
	struct store_op op = { STORE_DELETE_PREFIX, "x/1/", NULL, 0 };
	struct store_txn txn = { .ops = &op, .n_ops = 1 };

	(void)state;
	assert_int_equal(put("x/1/a", "1"), STORE_DONE);
	assert_int_equal(put("x/1/b", "1"), STORE_DONE);
	assert_int_equal(put("x/2/a", "1"), STORE_DONE);
	assert_int_equal(put("x/1", "1"), STORE_DONE);
	assert_int_equal(store_txn(store, &txn, &em), STORE_DONE);
	assert_string_equal(list("x"), "x/1=1@4/4, x/2/a=1@3/3");
}

static void values_may_hold_any_bytes(void **state)
{
	static const char value[] = "a\0b\xff";
	size_t at = 0;

	(void)state;
	assert_int_equal(store_put(store, "k", value, 4, &em), STORE_DONE);
	assert_int_equal(store_put(store, "l", "", 0, &em), STORE_DONE);
	reopen();
	assert_int_equal(store_range(store, "k", list_one, &at, &em), 0);
	assert_memory_equal(listing, "k=a", 3);
	assert_string_equal(list("l"), "l=@2/2");
}

static void what_was_done_is_there_after_opening_again(void **state)
{
	(void)state;
	assert_int_equal(put("a", "1"), STORE_DONE);
	assert_int_equal(put("a", "2"), STORE_DONE);
	reopen();
	assert_string_equal(list("a"), "a=2@1/2");
	assert_int_equal(store_revision(store), 2);
	/* Deleting is a revision too, and is not given twice. */
	assert_int_equal(
		store_txn(store,
	                  &(struct store_txn){
				  .ops = &(struct store_op){ STORE_DELETE, "a",
	                                                     NULL, 0 },
				  .n_ops = 1 },
	                  &em),
		STORE_DONE);
	reopen();
	assert_int_equal(store_revision(store), 3);
}

static void a_second_process_is_refused_and_told_who(void **state)
{
	char expected[32];
	int status;
	pid_t pid;

	(void)state;
	snprintf(expected, sizeof(expected), "in use by process %d",
	         (int)getpid());
	pid = fork();
	if (pid == 0) {
		struct store *other = NULL;
		int r = store_open(path, &other, &em);

		_exit(r == -EBUSY && strstr(em.text, expected) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void what_is_no_store_is_refused_and_left_alone(void **state)
{
	static const char text[] = "no database at all, and long enough to be "
				   "one, so that somebody must look inside";
	char buf[sizeof(text)];
	struct store *other = NULL;
	FILE *f;

	(void)state;
	store = store_free(store);
	f = fopen(path, "w");
	assert_int_equal(fwrite(text, sizeof(text), 1, f), 1);
	fclose(f);
	assert_int_equal(store_open(path, &other, &em), -EBADMSG);
	assert_null(other);
	assert_non_null(strstr(em.text, "not a memspan store"));
	f = fopen(path, "r");
	assert_int_equal(fread(buf, sizeof(buf), 1, f), 1);
	fclose(f);
	assert_memory_equal(buf, text, sizeof(text));
}

static void a_failure_changes_nothing_and_passes(void **state)
{
	(void)state;
	assert_int_equal(put("a", "1"), STORE_DONE);
	store_fail_from(store, 2, -ENOSPC);
	assert_int_equal(put("b", "1"), STORE_DONE);
	assert_int_equal(put("a", "2"), -ENOSPC);
	assert_int_equal(put("c", "2"), -ENOSPC);
	assert_string_equal(em.text,
	                    "cannot write to the store: No space left on "
	                    "device");
	store_fail_from(store, 0, 0);
	assert_string_equal(list("a"), "a=1@1/1");
	assert_int_equal(store_revision(store), 2);
	assert_int_equal(put("a", "2"), STORE_DONE);
}

#define fact(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fact(a_new_store_is_empty),
		fact(keys_remember_when_they_were_made_and_changed),
		fact(a_range_has_the_prefix_and_the_order_of_bytes),
		fact(a_walk_ends_when_it_is_told_to),
		fact(a_transaction_changes_all_at_one_revision),
		fact(a_compare_that_does_not_hold_changes_nothing),
		fact(a_prefix_is_deleted_with_all_behind_it),
		fact(values_may_hold_any_bytes),
		fact(what_was_done_is_there_after_opening_again),
		fact(a_second_process_is_refused_and_told_who),
		fact(what_is_no_store_is_refused_and_left_alone),
		fact(a_failure_changes_nothing_and_passes),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
