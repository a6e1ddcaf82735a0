/* SPDX-License-Identifier: Apache-2.0 */
/* Slots and cells: who may be computed.  Invariant: the cells set aside for all
 * sequences with a slot are never more than the context has, so a step always
 * finds room.  A slot that was given back keeps its cells until the next step
 * begins, which clears it first. */
#include "engine_in.h"

void ll_slot_drop(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    if (seq->slot < 0)
        return;
    e->slot[seq->slot] = NULL;
    e->dirty[seq->slot] = true;
    e->cells_free += seq->cells;
    e->running--;
    seq->slot = -1;
    seq->cells = seq->loaded = 0;
}

static void preempt(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    pd_log_debug(e->log, "sequence of %u tokens gives its slot back; %u tokens of it will be loaded again, the rest "
                 "computed again", seq->n, seq->stored);
    ll_slot_drop(seq);
    e->preemptions++;
}

/* The last in the queue that has a slot; there is one. */
static struct pd_seq *last_holder(const struct pd_engine *e)
{
    struct pd_seq *seq = e->tail;

    while (seq->slot < 0)
        seq = seq->prev;
    return seq;
}

static int32_t free_slot(const struct pd_engine *e)
{
    for (uint32_t i = 0; i < e->conf->max_running; i++)
        if (e->slot[i] == NULL)
            return (int32_t)i;
    return -1;
}

/* One more cell for each token that came since. */
static bool grow(struct pd_seq *seq)
{
    struct pd_engine *e = seq->e;

    while (seq->cells < seq->n) {
        if (e->cells_free > 0) {
            e->cells_free--;
            seq->cells++;
            continue;
        }
        struct pd_seq *victim = last_holder(e);
        preempt(victim);
        if (victim == seq)
            return false;
    }
    return true;
}

bool ll_slot_take(struct pd_seq *seq, uint32_t spare, bool *tight)
{
    struct pd_engine *e = seq->e;
    int32_t slot;

    if (seq->slot >= 0)
        return grow(seq);
    if (*tight)
        return false;
    /* those before it need room to grow, or they would throw it out again at once */
    while ((slot = free_slot(e)) < 0 || e->cells_free < (uint64_t)seq->n + spare) {
        struct pd_seq *victim = e->running > 0 ? last_holder(e) : NULL;
        if (victim == NULL || victim->priority >= seq->priority) {
            *tight = true;
            return false;
        }
        preempt(victim);
    }
    e->slot[slot] = seq;
    e->running++;
    e->cells_free -= seq->n;
    seq->slot = slot;
    seq->cells = seq->n;
    seq->loaded = 0;
    return true;
}
