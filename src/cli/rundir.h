/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run directory as `up` and `down` use it: made, locked, emptied of what an
 * earlier cluster left.
 */
#pragma once

#include "base/base.h"

/* Make it, 0755, unless it is there; that its parent is there is expected. */
int rundir_make(const char *run_dir, struct errmsg *em);

/*
 * Be the only `up` or `down` at work in it.  Returns a descriptor, whose
 * closing ends that; -EBUSY if another is at work; -ENOENT if there is no such
 * directory or, unless `make`, no `up` was ever at work there; else -errno.
 *
 * The daemons lock the directory itself for a moment each while they write
 * their pid files, so ours is a file of its own.
 */
int rundir_lock(const char *run_dir, bool make, struct errmsg *em);

/*
 * Put the store of an earlier coordinator aside, as coordinator.db.old: the
 * contents of the spaces it knows were lost with their nodes, so a new cluster
 * starts with none.
 */
int rundir_set_aside_store(const char *run_dir, struct errmsg *em);
