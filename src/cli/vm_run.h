/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running QEMU, and staying beside it: the space that was made for a guest is
 * to be deleted when the guest ends, however that is.
 */
#pragma once

#include "base/base.h"
#include "cli/cli.h"
#include "cli/run.h"

/*
 * Run argv[0] (NULL at the end) with the memory of `space`, served by
 * run->socket, and wait for its end.  SIGTERM, SIGHUP, SIGINT and SIGQUIT that
 * come meanwhile are passed on, except for those that the terminal has given
 * to all of its foreground anyway.  The terminal's modes, which QEMU changes
 * for a guest's console, are put back.
 *
 * Returns the exit status as a shell has it: QEMU's, 128 + n if signal n ended
 * it, 126 or 127 if it cannot be run, CLI_FAILED if the space's memory cannot
 * be had; for the last three the child has said why.
 */
int vm_run(const struct cli *cli, struct run *run, const char *space,
           char *const argv[]);
