/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that people name: which file is meant, and can the shim get into it?
 *
 * The loader reads LD_PRELOAD in programs that it loads, and leaves it out
 * where the kernel says that the program has more rights than its caller.  A
 * program where it has no say would run with the spaces' memory unserved, so
 * these are found beforehand.
 */
#pragma once

#include <limits.h>

#include "base/base.h"

/*
 * The file that a shell would run for `command`: itself if it has a slash, else
 * the first in $PATH that may be executed.  Returns 0; -ENOENT if there is
 * none; -EACCES if there is, but none that may be executed.
 */
int program_find(const char *command, char path[PATH_MAX], struct errmsg *em);

/*
 * Can the shim be preloaded into it?  Scripts are followed to their
 * interpreter.  Returns 0; -ENOTSUP with the reason if it cannot: it is linked
 * statically, has a setuid or setgid bit or file capabilities, is for another
 * kind of machine or for another C library; -ENOEXEC if it is no program;
 * else -errno.
 */
int program_check(const char *path, struct errmsg *em);
