/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says of a process.
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
