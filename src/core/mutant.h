/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutants: bugs planted on purpose, to prove that test/model would find them.
 *
 * MUTATE(n, good, bad) is `good`, except in a build with -DMUTANT=n, which only
 * test/model makes.  Each number names one bug, listed in test/model/mutants.c.
 */
#pragma once

#ifndef MUTANT
#define MUTANT 0
#endif

#define MUTATE(n, good, bad) ((MUTANT) == (n) ? (bad) : (good))
