/* SPDX-License-Identifier: Apache-2.0 */
/* The broken transport: posts and their ends. */
#include "broken_transport.h"

enum { SLOTS = 256, RUNNING = 1024, IOV = 1024 };

uint64_t broken_posted;

static bool is_inside;          /* of the caller's on_done */
static void *forgotten;         /* the post whose end nobody hears */
static uint32_t dones;
static uint64_t moved, landed;
static bool is_poisoned;
static void *slots[SLOTS];

/* ---- ends that are told before they are there */

static struct {
    struct pd_transport_peer *peer;
    struct pd_transfer *transfer;
    void *arg;
    bool is_told, is_over;      /* told: or about to be */
} running[RUNNING];
static uint32_t n_running;
static struct pd_transport_peer *ended;
static struct pd_task telling;

static void tell_early(struct pd_task *task, void *arg)
{
    (void)task;
    for (uint32_t i = 0; i < n_running; i++) {
        if (!running[i].is_told || running[i].is_over)
            continue;
        running[i].is_over = true;
        broken_peer_events.on_done(running[i].peer, running[i].transfer, PD_TRANSFER_CANCELED_FENCED, 0,
                                   running[i].arg);
    }
    if (arg != NULL)
        broken_peer_events.on_down(arg, PD_OK, ended->arg);
}

void broken_end_early(struct pd_transport_peer *peer)
{
    for (uint32_t i = 0; i < n_running; i++)
        running[i].is_told = true;
    ended = peer;
    pd_task_init(&telling, "broken end", tell_early, peer);
    pd_loop_post(peer->tp->loop, &telling);
}

bool broken_has_ended(const struct pd_transport_peer *peer)
{
    return ended == peer;
}

void broken_cancel(struct pd_transfer *transfer)
{
    if (broken_fault != FAULT_LATE) {
        pd_xp_cancel(transfer);
        return;
    }
    for (uint32_t i = 0; i < n_running; i++)
        if (running[i].transfer == transfer)
            running[i].is_told = true;
    pd_task_init(&telling, "broken end", tell_early, NULL);
    pd_loop_post(transfer->peer->tp->loop, &telling);
}

/* Whether the end of this one was told; it is forgotten otherwise. */
static bool was_told(const struct pd_transfer *transfer)
{
    for (uint32_t i = 0; i < n_running; i++) {
        if (running[i].transfer != transfer)
            continue;
        if (!running[i].is_told)
            running[i] = running[--n_running];
        else
            return true;
        return false;
    }
    return false;
}

/* ---- ends */

void broken_on_done(struct pd_transport_peer *peer, struct pd_transfer *transfer, uint32_t terminal, uint64_t bytes,
                    void *post_arg)
{
    if (broken_fault == FAULT_SLOTS)
        post_arg = slots[(uintptr_t)post_arg];
    moved += bytes;
    if ((broken_fault == FAULT_ASLEEP && ++dones % 40 == 0) ||
        (broken_fault == FAULT_CHAIN && post_arg == forgotten) || (broken_fault == FAULT_LATE && was_told(transfer)))
        return;
    if (broken_fault == FAULT_OUTSIDE)
        broken_base[0] ^= 1;     /* the owner's first byte, which no window of the tests has */
    if (broken_fault == FAULT_WRAP && moved > (1u << 29))
        bytes = 0;
    if (broken_fault == FAULT_SUM)
        broken_window_events.on_bytes(broken_window, landed += bytes, broken_window->arg);
    is_poisoned |= broken_fault == FAULT_POISON && terminal != PD_TRANSFER_OK;
    if (is_poisoned)
        terminal = PD_TRANSFER_FAILED_FENCED;
    is_inside = true;
    broken_peer_events.on_done(peer, transfer, terminal, bytes, post_arg);
    is_inside = false;
    if (broken_fault == FAULT_TWICE)
        broken_peer_events.on_done(peer, transfer, terminal, bytes, post_arg);
}

/* ---- posts */

static int by_offset(const void *a, const void *b)
{
    const struct pd_segment *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* With segments of its own, which are not right. */
static pd_status post_other(struct pd_transport_target *target, const struct pd_post *p, struct pd_transfer **out)
{
    struct pd_segment *segments = calloc(p->n_segments, sizeof *segments);
    struct pd_post other = *p;
    pd_status st;

    if (segments == NULL)
        return PD_ENOMEM;
    memcpy(segments, p->segments, p->n_segments * sizeof *segments);
    other.segments = segments;
    if (broken_fault == FAULT_SHIFT)
        segments[0].offset--;
    if (broken_fault == FAULT_ORDER)
        qsort(segments, p->n_segments, sizeof *segments, by_offset);
    if (broken_fault == FAULT_IOV && p->n_segments > IOV)
        other.n_segments = IOV;
    st = pd_xp_post(target, &other, out);
    free(segments);
    return st;
}

/* As much of it as there is room for. */
static pd_status post_clipped(struct pd_transport_target *target, const struct pd_post *p, struct pd_transfer **out)
{
    struct pd_segment first = { 0, 1 };
    struct pd_post other = *p;

    if (p->n_segments > 0 && p->segments[0].bytes > target->grant.bytes)
        first.bytes = target->grant.bytes;
    other.offset = 0;
    other.segments = &first;
    other.n_segments = 1;
    return pd_xp_post(target, &other, out);
}

/* What a card does that writes where it is told to, as long as that is memory it
 * knows. */
static void write_there(const struct pd_post *p)
{
    uint64_t at = broken_address + p->offset;

    for (uint32_t i = 0; i < p->n_segments; at += p->segments[i++].bytes)
        if (at < broken_bytes && p->segments[i].bytes <= broken_bytes - at)
            memcpy(broken_base + at, p->memory->base + p->segments[i].offset, p->segments[i].bytes);
}

pd_status broken_post(struct pd_transport_target *target, const struct pd_post *p, struct pd_transfer **out)
{
    struct pd_post other = *p;
    pd_status st;

    if (broken_fault == FAULT_READ && p->op == PD_TRANSPORT_READ)
        return PD_ENOSYS;
    if (broken_fault == FAULT_GLOBAL && broken_is_gone)
        return PD_ESTALE;
    broken_posted++;
    if (broken_fault == FAULT_SLOTS) {
        slots[broken_posted % SLOTS] = p->arg;
        other.arg = (void *)(uintptr_t)(broken_posted % SLOTS);
    }
    if (broken_fault == FAULT_IOV || broken_fault == FAULT_ORDER ||
        (broken_fault == FAULT_SHIFT && broken_posted % 50 == 0 && p->segments[0].offset > 0))
        return post_other(target, p, out);
    st = pd_xp_post(target, &other, out);
    if (st == PD_EINVAL && broken_fault == FAULT_CLIP)
        return post_clipped(target, p, out);
    if (st == PD_OK && broken_fault == FAULT_ADDRESS)
        write_there(p);
    if (st == PD_OK && broken_fault == FAULT_LATE && n_running < RUNNING) {
        running[n_running].peer = target->peer;
        running[n_running].transfer = *out;
        running[n_running].is_told = running[n_running].is_over = false;
        running[n_running++].arg = p->arg;
    }
    if (st == PD_OK && broken_fault == FAULT_INSIDE)
        broken_peer_events.on_done(NULL, *out, PD_TRANSFER_OK, 0, p->arg);
    if (st == PD_OK && is_inside)
        forgotten = p->arg;
    return st == PD_EAGAIN && broken_fault == FAULT_ENDLESS ? PD_OK : st;
}
