/* SPDX-License-Identifier: Apache-2.0 */
/* The broken transport: windows of the owner, and what others make of their
 * blobs. */
#include "broken_transport.h"

struct pd_window_events broken_window_events;
struct pd_transport_window *broken_window;
uint64_t broken_address;

static uint64_t window_bytes;
static const struct pd_transport_window *silent;    /* said to be closed */
static uint8_t last_blob[PD_XP_WINDOW_BLOB_BYTES];

static void on_bytes(struct pd_transport_window *window, uint64_t total, void *arg)
{
    if (window != silent)
        broken_window_events.on_bytes(window, broken_fault == FAULT_EARLY ? window_bytes : total, arg);
}

pd_status broken_window_open(struct pd_transport *tp, const struct pd_window_desc *desc,
                             const struct pd_window_events *events, void *arg, struct pd_transport_window **out)
{
    static struct pd_window_events mine;
    pd_status st;

    if (events->on_bytes == NULL)
        return pd_xp_window_open(tp, desc, events, arg, out);
    broken_window_events = *events;
    mine = *events;
    mine.on_bytes = on_bytes;
    window_bytes = 0;
    for (uint32_t i = 0; i < desc->n_segments; i++)
        window_bytes += desc->segments[i].bytes;
    st = pd_xp_window_open(tp, desc, &mine, arg, out);
    if (st == PD_OK)
        broken_window = *out;
    if (st == PD_OK && broken_fault == FAULT_GENERATION) {
        (*out)->grant.generation = 0;
        memset((*out)->grant.token, 0, sizeof (*out)->grant.token);
    }
    return st;
}

pd_status broken_window_export(struct pd_transport_window *window, void *buf, size_t cap, size_t *len)
{
    const size_t more = broken_fault == FAULT_ADDRESS ? sizeof broken_address : 0;
    pd_status st = pd_xp_window_export(window, buf, cap < more ? 0 : cap - more, len);
    uint64_t address = window->memory->base == broken_base ? (uint64_t)(window->segs->v[0].p - broken_base) : 0;

    if (st == PD_OK)
        memcpy(last_blob, buf, sizeof last_blob);
    if (st == PD_OK && more > 0)
        memcpy((uint8_t *)buf + *len, &address, more);
    *len += more;
    return st;
}

static void on_close(struct pd_task *task, void *arg)
{
    struct pd_transport_window *window = arg;

    (void)task;
    window->events.on_closed(window, window->arg);
}

void broken_window_close(struct pd_transport_window *window)
{
    static struct pd_task task;

    if (broken_fault == FAULT_UNFENCED && window->events.on_bytes != NULL) {
        silent = window;
        pd_task_init(&task, "broken close", on_close, window);
        pd_loop_post(window->tp->loop, &task);
    } else if (broken_fault != FAULT_WORD || broken_posted > 0 || window->events.on_bytes == NULL) {
        pd_xp_window_close(window);
    }
}

pd_status broken_target_open(struct pd_transport_peer *peer, const void *blob, size_t len,
                             struct pd_transport_target **out)
{
    uint8_t other[PD_XP_WINDOW_BLOB_BYTES];
    struct pd_xp_grant g;

    if (broken_fault == FAULT_LENGTH && len < sizeof last_blob)     /* what is behind it is read */
        return pd_xp_target_open(peer, last_blob, sizeof last_blob, out);
    if (broken_fault == FAULT_ADDRESS && len == sizeof other + sizeof broken_address) {
        memcpy(&broken_address, (const uint8_t *)blob + sizeof other, sizeof broken_address);
        return pd_xp_target_open(peer, blob, sizeof other, out);
    }
    if (broken_fault == FAULT_EPOCH && pd_xp_grant_decode(blob, len, &g) == PD_OK) {
        if (memcmp(&g.owner.uuid, &peer->node.uuid, sizeof g.owner.uuid) == 0)
            g.owner.epoch = peer->node.epoch;
        if (memcmp(&g.peer.uuid, &peer->tp->self.uuid, sizeof g.peer.uuid) == 0)
            g.peer.epoch = peer->tp->self.epoch;
        pd_xp_grant_encode(&g, other);
        return pd_xp_target_open(peer, other, sizeof other, out);
    }
    return pd_xp_target_open(peer, blob, len, out);
}
