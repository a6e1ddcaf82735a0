/* SPDX-License-Identifier: Apache-2.0 */
/* The broken transport: ways to other nodes. */
#include "broken_transport.h"

struct pd_transport_peer_events broken_peer_events;

static uint32_t pending;

static bool is_self(const struct pd_node_id *node)
{
    return memcmp(&node->uuid, &broken_self.uuid, sizeof broken_self.uuid) == 0;
}

static void on_up(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    pending--;
    broken_peer_events.on_up(peer, broken_fault == FAULT_TRUST ? PD_OK : status, arg);
}

static void on_down(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    if (!broken_has_ended(peer))
        broken_peer_events.on_down(peer, broken_fault == FAULT_DOWN ? PD_OK : status, arg);
}

static void on_writable(struct pd_transport_peer *peer, void *arg)
{
    if (broken_fault != FAULT_MUTE)
        broken_peer_events.on_writable(peer, arg);
}

pd_status broken_connect(struct pd_transport *tp, const struct pd_transport_peer_desc *desc,
                         const struct pd_transport_peer_events *events, void *arg, struct pd_transport_peer **out)
{
    struct pd_transport_peer_events mine = *events, before = broken_peer_events;
    struct pd_transport_peer_desc to = *desc;
    int fd = broken_fault == FAULT_FDS || broken_fault == FAULT_WAYS ? dup(STDIN_FILENO) : -1;
    pd_status st;

    if (broken_fault == FAULT_GROWTH) {
        void *volatile lost = malloc(40);
        (void)lost;
    }
    if ((broken_fault == FAULT_CROSS && pending > 0) || (broken_fault == FAULT_SELF && is_self(&desc->node)))
        return PD_EBUSY;
    if (to.grant_len > PD_XP_WINDOW_BLOB_BYTES)     /* an address is behind it */
        to.grant_len = PD_XP_WINDOW_BLOB_BYTES;
    broken_peer_events = *events;
    mine.on_done = broken_on_done;
    mine.on_up = on_up;
    mine.on_down = on_down;
    mine.on_writable = on_writable;
    st = pd_xp_connect(tp, &to, &mine, arg, out);
    pending += st == PD_OK;
    if (st != PD_OK)
        broken_peer_events = before;
    if (st == PD_OK && broken_fault == FAULT_BUSY)
        pd_timer_start(&broken_ticks, PD_MS);
    if (st == PD_OK && fd >= 0 && broken_fault != FAULT_WAYS)
        close(fd);
    return st;
}

void broken_disconnect(struct pd_transport_peer *peer, uint32_t how)
{
    pd_timer_stop(&broken_ticks);
    if (broken_fault == FAULT_LATE && how == PD_DISCONNECT_FENCE)
        broken_end_early(peer);
    if (broken_fault == FAULT_LATE)
        how = PD_DISCONNECT_DRAIN;
    if (broken_fault == FAULT_ABORT)
        how = PD_DISCONNECT_FENCE;
    pd_xp_disconnect(peer, how);
}
