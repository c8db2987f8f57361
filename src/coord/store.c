/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store on SQLite, in one file with a write-ahead log beside it.
 *
 *	kv(key TEXT PRIMARY KEY, value BLOB, made INTEGER, changed INTEGER,
 *	   crc INTEGER)
 *	meta(revision INTEGER)          one row
 *
 * application_id is "mspn", user_version the number of this layout.  crc is
 * CRC-32C of the key, a zero byte, the eight bytes of `changed` and the value:
 * SQLite itself does not notice when a disk gives back other bytes.
 *
 * locking_mode=EXCLUSIVE serves two ends.  The lock keeps a second coordinator
 * out for as long as this one lives, and the kernel drops it with the process.
 * And SQLite then keeps the index of the log in its own memory, not in a
 * mapped file beside it, which on a full file system would be SIGBUS.
 *
 * synchronous=FULL syncs the log at each commit: 0.1 to 0.4 ms.  Whoever has
 * many changes to make puts them into one transaction.
 */

#include "coord/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"

#define APPLICATION_ID 0x6d73706e /* "mspn" */
#define LAYOUT_VERSION 1

enum statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_REVISION,
	ST_LOOK,
	ST_PUT,
	ST_DELETE,
	ST_DELETE_RANGE,
	ST_RANGE,
	ST_END,
};

static const char *const statement_text[ST_END] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
	[ST_REVISION] = "UPDATE meta SET revision = ?1",
	[ST_LOOK] = "SELECT changed FROM kv WHERE key = ?1",
	[ST_PUT] = ("INSERT INTO kv(key, value, made, changed, crc) "
	            "VALUES(?1, ?2, ?3, ?3, ?4) ON CONFLICT(key) DO UPDATE SET "
	            "value = ?2, changed = ?3, crc = ?4"),
	[ST_DELETE] = "DELETE FROM kv WHERE key = ?1",
	[ST_DELETE_RANGE] = "DELETE FROM kv WHERE key >= ?1 AND key < ?2",
	[ST_RANGE] = ("SELECT key, value, made, changed, crc FROM kv "
	              "WHERE key >= ?1 AND key < ?2 ORDER BY key"),
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *st[ST_END];
	uint64_t revision;
	unsigned fail_in; /* transactions until they fail; 0: never */
	int fail_error;
};

/* --- errors -------------------------------------------------------------- */

/* What SQLite's last failure means to us, as -errno. */
static int store_errno(sqlite3 *db)
{
	int code = sqlite3_errcode(db) & 0xff;
	int os = sqlite3_system_errno(db);

	switch (code) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	case SQLITE_CANTOPEN:
		return os > 0 ? -os : -ENOENT;
	default:
		/* To an operator a quota or a size limit is a full disk. */
		if (os == ENOSPC || os == EDQUOT || os == EFBIG)
			return -ENOSPC;
		return -EIO;
	}
}

/* Say what SQLite says of its last failure; returns what that means to us. */
static int failed(struct store *s, struct errmsg *em, const char *what)
{
	int r = store_errno(s->db);

	return errmsg_say(em, r, "%s: %s", what, sqlite3_errmsg(s->db));
}

/* --- opening ------------------------------------------------------------- */

/* The process that holds SQLite's lock on the file, or 0 if that is hidden. */
static pid_t lock_holder(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	/* The bytes that SQLite locks: its file format, "locking". */
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = 0x40000000,
		.l_len = 512,
	};

	if (fd < 0 || fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
		return 0;
	return lock.l_pid;
}

/* Run statements that yield nothing. */
static int exec(struct store *s, const char *sql)
{
	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	return store_errno(s->db);
}

/* The one number that `sql` yields. */
static int number(struct store *s, const char *sql, int64_t *ret)
{
	sqlite3_stmt *st = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK)
		return store_errno(s->db);
	if (sqlite3_step(st) == SQLITE_ROW)
		*ret = sqlite3_column_int64(st, 0);
	else
		r = store_errno(s->db);
	(void)sqlite3_finalize(st); /* repeats the error of the step */
	return r;
}

static int open_failed(struct store *s, const char *path, int r,
                       struct errmsg *em)
{
	pid_t pid;

	if (r == -EBUSY) {
		pid = lock_holder(path);
		if (pid > 0)
			return errmsg_say(em, r,
			                  "store %s is in use by process %d; "
			                  "stop that coordinator, or name "
			                  "another --store",
			                  path, (int)pid);
		return errmsg_say(
			em, r, "store %s is in use by another process", path);
	}
	if (r == -EBADMSG)
		return errmsg_say(em, r,
		                  "%s is not a memspan store, or is damaged "
		                  "(%s); name another --store, or restore it "
		                  "from a copy",
		                  path, sqlite3_errmsg(s->db));
	return errmsg_set(em, r, "cannot open the store %s (%s)", path,
	                  sqlite3_errmsg(s->db));
}

/* Take the lock, and make the tables in a file that is new. */
static int settle(struct store *s)
{
	int64_t id = 0, tables = 0;
	int r;

	r = exec(s, "PRAGMA locking_mode=EXCLUSIVE");
	/* What the file is comes first: only ours may be changed. */
	if (r == 0)
		r = number(s, "PRAGMA application_id", &id);
	if (r == 0)
		r = number(s, "SELECT count(*) FROM sqlite_master", &tables);
	if (r < 0)
		return r;
	if (id != APPLICATION_ID && (id != 0 || tables != 0))
		return -EBADMSG;
	r = exec(s, "PRAGMA journal_mode=WAL");
	if (r == 0)
		r = exec(s, "PRAGMA synchronous=FULL");
	/* A log that grew on one busy day need not stay so long for ever. */
	if (r == 0)
		r = exec(s, "PRAGMA journal_size_limit=16777216");
	if (r < 0)
		return r;
	if (id == 0)
		return exec(s,
		            "BEGIN EXCLUSIVE;"
		            "PRAGMA application_id=0x6d73706e;"
		            "PRAGMA user_version=1;"
		            "CREATE TABLE kv(key TEXT PRIMARY KEY, "
		            "value BLOB NOT NULL, made INTEGER NOT NULL, "
		            "changed INTEGER NOT NULL, crc INTEGER NOT NULL) "
		            "WITHOUT ROWID;"
		            "CREATE TABLE meta(revision INTEGER NOT NULL);"
		            "INSERT INTO meta VALUES(0);"
		            "COMMIT");
	return exec(s, "BEGIN EXCLUSIVE; COMMIT");
}

static int prepare(struct store *s)
{
	int64_t revision;
	int r;

	for (unsigned i = 0; i < ST_END; i++)
		if (sqlite3_prepare_v3(s->db, statement_text[i], -1,
		                       SQLITE_PREPARE_PERSISTENT, &s->st[i],
		                       NULL) != SQLITE_OK)
			return store_errno(s->db);
	r = number(s, "SELECT revision FROM meta", &revision);
	if (r < 0)
		return r;
	s->revision = (uint64_t)revision;
	return 0;
}

int store_open(const char *path, struct store **ret, struct errmsg *em)
{
	AUTO(store_free) struct store *s = calloc(1, sizeof(*s));
	int64_t layout = 0;
	int r;

	if (!s)
		return errmsg_set(em, -ENOMEM, "cannot open the store %s",
		                  path);
	if (sqlite3_open_v2(path, &s->db,
	                    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
	                            SQLITE_OPEN_NOMUTEX,
	                    NULL) != SQLITE_OK)
		return open_failed(s, path, store_errno(s->db), em);
	(void)sqlite3_extended_result_codes(s->db, 1);
	r = settle(s);
	if (r == 0)
		r = number(s, "PRAGMA user_version", &layout);
	if (r == 0 && layout > LAYOUT_VERSION)
		return errmsg_say(em, -EPROTONOSUPPORT,
		                  "store %s has layout %" PRId64
		                  ", this program knows %d; start the newer "
		                  "memspan-coordinator that made it",
		                  path, layout, LAYOUT_VERSION);
	if (r == 0)
		r = prepare(s);
	if (r < 0)
		return open_failed(s, path, r, em);
	*ret = TAKE_PTR(s);
	return 0;
}

struct store *store_free(struct store *s)
{
	if (!s)
		return NULL;
	for (unsigned i = 0; i < ST_END; i++)
		(void)sqlite3_finalize(s->st[i]);
	(void)sqlite3_close(s->db);
	free(s);
	return NULL;
}

/* --- reading ------------------------------------------------------------- */

static uint32_t row_crc(const char *key, uint64_t changed, const void *value,
                        size_t bytes)
{
	uint8_t number_bytes[8];
	uint32_t crc = crc32c(key, strlen(key) + 1);

	for (unsigned i = 0; i < 8; i++)
		number_bytes[i] = (uint8_t)(changed >> (8 * i));
	crc = crc32c_more(crc, number_bytes, sizeof(number_bytes));
	return crc32c_more(crc, value, bytes);
}

/* Bind the keys that begin with `prefix`: from it to the first behind them. */
static void bind_prefix(sqlite3_stmt *st, const char *prefix,
                        char end[STORE_KEY_MAX + 1])
{
	size_t n = strlen(prefix);

	assert(n > 0 && n <= STORE_KEY_MAX);
	/* Keys are ASCII, so the last byte always has a successor. */
	memcpy(end, prefix, n + 1);
	end[n - 1]++;
	(void)sqlite3_bind_text(st, 1, prefix, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(st, 2, end, -1, SQLITE_STATIC);
}

int store_range(struct store *s, const char *prefix,
                int (*fn)(const struct store_kv *kv, void *arg), void *arg,
                struct errmsg *em)
{
	sqlite3_stmt *st = s->st[ST_RANGE];
	char end[STORE_KEY_MAX + 1];
	int r = 0, step;

	bind_prefix(st, prefix, end);
	while (r >= 0 && (step = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_kv kv = {
			.key = (const char *)sqlite3_column_text(st, 0),
			.value = sqlite3_column_blob(st, 1),
			.bytes = (size_t)sqlite3_column_bytes(st, 1),
			.create_revision =
				(uint64_t)sqlite3_column_int64(st, 2),
			.mod_revision = (uint64_t)sqlite3_column_int64(st, 3),
		};

		if (!kv.key ||
		    row_crc(kv.key, kv.mod_revision, kv.value, kv.bytes) !=
		            (uint32_t)sqlite3_column_int64(st, 4))
			r = errmsg_say(em, -EBADMSG,
			               "the store's value of %s does not match "
			               "its checksum: the disk gave back other "
			               "bytes; restore the store from a copy",
			               kv.key ? kv.key : "a key");
		else
			r = fn(&kv, arg);
	}
	if (r >= 0 && step != SQLITE_DONE)
		r = failed(s, em, "cannot read the store");
	(void)sqlite3_reset(st); /* repeats the error of the step */
	return r;
}

uint64_t store_revision(const struct store *s)
{
	return s->revision;
}

/* --- changing ------------------------------------------------------------ */

/* Run a statement that yields no row. */
static bool run(sqlite3_stmt *st)
{
	int step = sqlite3_step(st);

	(void)sqlite3_reset(st);
	return step == SQLITE_DONE;
}

/* Whether `c` holds: an outcome, or -errno. */
static int compare(struct store *s, const struct store_cmp *c)
{
	sqlite3_stmt *st = s->st[ST_LOOK];
	uint64_t now = 0;
	int step;

	(void)sqlite3_bind_text(st, 1, c->key, -1, SQLITE_STATIC);
	step = sqlite3_step(st);
	if (step == SQLITE_ROW)
		now = (uint64_t)sqlite3_column_int64(st, 0);
	(void)sqlite3_reset(st);
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return store_errno(s->db);
	return now == c->mod_revision ? STORE_DONE : STORE_CHANGED;
}

static bool apply(struct store *s, const struct store_op *op, uint64_t revision)
{
	char end[STORE_KEY_MAX + 1];
	sqlite3_stmt *st;

	switch (op->kind) {
	case STORE_PUT:
		st = s->st[ST_PUT];
		assert(strlen(op->key) > 0 && strlen(op->key) <= STORE_KEY_MAX);
		(void)sqlite3_bind_text(st, 1, op->key, -1, SQLITE_STATIC);
		(void)sqlite3_bind_blob64(st, 2, op->value, op->bytes,
		                          SQLITE_STATIC);
		(void)sqlite3_bind_int64(st, 3, (int64_t)revision);
		(void)sqlite3_bind_int64(st, 4,
		                         row_crc(op->key, revision, op->value,
		                                 op->bytes));
		return run(st);
	case STORE_DELETE:
		assert(strlen(op->key) > 0 && strlen(op->key) <= STORE_KEY_MAX);
		st = s->st[ST_DELETE];
		(void)sqlite3_bind_text(st, 1, op->key, -1, SQLITE_STATIC);
		return run(st);
	case STORE_DELETE_PREFIX:
		st = s->st[ST_DELETE_RANGE];
		bind_prefix(st, op->key, end);
		return run(st);
	}
	return false;
}

/* Compare, change, commit: an outcome, or -errno; may leave a txn open. */
static int attempt(struct store *s, const struct store_txn *txn)
{
	uint64_t revision = s->revision + 1;

	assert(sqlite3_get_autocommit(s->db)); /* nothing was left open */
	if (!run(s->st[ST_BEGIN]))
		return store_errno(s->db);
	for (size_t i = 0; i < txn->n_cmps; i++) {
		int r = compare(s, &txn->cmps[i]);

		if (r != STORE_DONE)
			return r;
	}
	for (size_t i = 0; i < txn->n_ops; i++)
		if (!apply(s, &txn->ops[i], revision))
			return store_errno(s->db);
	(void)sqlite3_bind_int64(s->st[ST_REVISION], 1, (int64_t)revision);
	if (!run(s->st[ST_REVISION]) || !run(s->st[ST_COMMIT]))
		return store_errno(s->db);
	s->revision = revision;
	return STORE_DONE;
}

static bool fails_now(struct store *s)
{
	if (s->fail_in > 1)
		s->fail_in--;
	else if (s->fail_in == 1)
		return true;
	return false;
}

int store_txn(struct store *s, const struct store_txn *txn, struct errmsg *em)
{
	int r;

	if (fails_now(s))
		return errmsg_set(em, s->fail_error,
		                  "cannot write to the store");
	r = attempt(s, txn);
	if (r < 0)
		(void)failed(s, em, "cannot write to the store");
	/* After some failures SQLite has rolled back already. */
	if (!sqlite3_get_autocommit(s->db))
		(void)run(s->st[ST_ROLLBACK]);
	assert(sqlite3_get_autocommit(s->db));
	return r;
}

int store_put(struct store *s, const char *key, const void *value, size_t bytes,
              struct errmsg *em)
{
	struct store_op op = { STORE_PUT, key, value, bytes };
	struct store_txn txn = { .ops = &op, .n_ops = 1 };

	return store_txn(s, &txn, em);
}

void store_fail_from(struct store *s, unsigned nth, int error)
{
	s->fail_in = error == 0 ? 0 : nth;
	s->fail_error = error;
}
