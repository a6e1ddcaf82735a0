/* SPDX-License-Identifier: Apache-2.0 */
/* The ticket names the piece, how many parts it has and the next one that is
 * free: whoever raises the last number owns that part, and only then looks at
 * fn and arg, which stay until all parts are finished. */
#include "team.h"

#include <sched.h>

enum {
    SPINS = 2000,               /* some 20 us: longer than a piece of a large model waits */
    WAIT_BEGIN = 50 * SPINS     /* that a helper waits for the leader */
};

static void rest(uint32_t *spins)
{
    if (++*spins < SPINS) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    } else {
        *spins = 0;
        sched_yield();          /* more threads than processors: let the others finish */
    }
}

/* Takes a part and computes it; false when none is free. */
static bool take(struct ref_team *t, uint32_t member)
{
    uint64_t ticket = __atomic_load_n(&t->ticket, __ATOMIC_ACQUIRE);
    uint32_t part, parts;
    do {
        part = (uint32_t)ticket & 0xffff;
        parts = (uint32_t)(ticket >> 16) & 0xffff;
        if (part >= parts)
            return false;
    } while (!__atomic_compare_exchange_n(&t->ticket, &ticket, ticket + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    t->fn(t->arg, part, member);
    __atomic_fetch_add(&t->finished, 1, __ATOMIC_RELEASE);
    return true;
}

void ref_team_begin(struct ref_team *t, uint32_t step, uint32_t members)
{
    t->members = members;
    __atomic_store_n(&t->begun, step, __ATOMIC_RELEASE);
}

void ref_team_end(struct ref_team *t)
{
    __atomic_store_n(&t->ended, t->begun, __ATOMIC_RELEASE);
}

void ref_team_run(struct ref_team *t, ref_part_fn *fn, void *arg, uint32_t parts)
{
    uint32_t spins = 0;
    if (t == NULL || t->members <= 1 || parts == 1) {
        for (uint32_t i = 0; i < parts; i++)
            fn(arg, i, 0);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    __atomic_store_n(&t->finished, 0, __ATOMIC_RELAXED);
    uint64_t piece = (__atomic_load_n(&t->ticket, __ATOMIC_RELAXED) >> 32) + 1;
    __atomic_store_n(&t->ticket, piece << 32 | (uint64_t)parts << 16, __ATOMIC_RELEASE);
    while (take(t, 0))
        ;
    while (__atomic_load_n(&t->finished, __ATOMIC_ACQUIRE) != parts)
        rest(&spins);
}

/* Whether step a comes before b; the numbers may wrap. */
static bool is_before(const uint32_t *a, uint32_t b)
{
    return (int32_t)(__atomic_load_n(a, __ATOMIC_ACQUIRE) - b) < 0;
}

void ref_team_help(struct ref_team *t, uint32_t step, uint32_t member)
{
    uint32_t spins = 0;
    for (uint32_t i = 0; is_before(&t->begun, step); i++) {
        if (i == WAIT_BEGIN)
            return;
        rest(&spins);
    }
    spins = 0;
    while (is_before(&t->ended, step)) {
        if (take(t, member))
            spins = 0;
        else
            rest(&spins);
    }
}
