/* SPDX-License-Identifier: Apache-2.0 */
/* Several threads compute the parts of one step.  The leader goes through the
 * step and offers each piece of work in parts; whoever is there takes parts.  The
 * leader takes parts, too, and waits only for those that others have taken, so
 * a step ends also when no helper ever comes. */
#ifndef REF_TEAM_H
#define REF_TEAM_H

#include <stdbool.h>
#include <stdint.h>

enum { REF_MAX_THREADS = 64, REF_MAX_PARTS = 1 << 16 };

/* Parts are independent.  member: below the number of threads, 0 is the leader;
 * no two threads have the same at a time. */
typedef void ref_part_fn(void *arg, uint32_t part, uint32_t member);

struct ref_team {
    uint64_t ticket;            /* piece << 32 | parts << 16 | next part; atomic */
    uint32_t finished;          /* parts of this piece; atomic */
    uint32_t begun, ended;      /* numbers of steps; atomic */
    uint32_t members;           /* threads in this step, the leader too */
    ref_part_fn *fn;
    void *arg;
};

/* Leader: a step begins and ends; the first is 1, each has the next number. */
void ref_team_begin(struct ref_team *t, uint32_t step, uint32_t members);
void ref_team_end(struct ref_team *t);
/* Leader: runs fn for each part, at most REF_MAX_PARTS - 1; returns when all are done. */
void ref_team_run(struct ref_team *t, ref_part_fn *fn, void *arg, uint32_t parts);
/* Helper: takes parts until the step ends.  Returns when that has ended already,
 * or has not begun for about a millisecond. */
void ref_team_help(struct ref_team *t, uint32_t step, uint32_t member);

#endif
