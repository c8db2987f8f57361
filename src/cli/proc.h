/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says of a process, or of itself.
 */
#pragma once

#include <sys/types.h>

#include "base/base.h"

#define PROC_NAME_BYTES 20u /* the kernel keeps 15 */

/* What the process is called; "?" if it is gone. */
char *proc_name(pid_t pid, char buf[PROC_NAME_BYTES]);

/*
 * CPU time that all its threads have used so far.  Returns 0, or -ESRCH if it
 * is gone.
 */
int proc_cpu_ns(pid_t pid, nsec_t *ret);

/*
 * Read the first number that follows `key`, at the beginning of a line of the
 * file: proc_number("/proc/meminfo", "MemAvailable:", &kib).  Returns if there
 * is one; else *ret is untouched.
 */
bool proc_number(const char *path, const char *key, uint64_t *ret);
