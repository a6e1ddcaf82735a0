/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves a call.
 *
 * Credits: each end may send as many bytes as the other end's window, and gets
 * more as the other end consumes.  A frame costs its payload and its header, so
 * that empty messages are not free.  Not counted are the first message and the
 * end; they have limits of their own.  A breach ends the link.
 *
 * A message goes straight into the link's queue when nothing waits before it,
 * the credit suffices and the link has room; then nothing is allocated.
 * Otherwise it waits in `out` and the pump sends it in fragments, call by call. */
#include "peer/call_int.h"

#include "base/compiler.h"
#include "base/str.h"

#define RECORD_HEADER 8u     /* of what waits to be sent: length, kind */

size_t pd_call_iov_bytes(const struct pd_iov *iov, uint32_t n)
{
    size_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += iov[i].len;
    return sum;
}

struct pd_frame pd_call_frame(const struct pd_call *call, uint8_t type, size_t length)
{
    struct pd_frame f = { .type = type, .call = call->id, .length = (uint32_t)length };
    if (call->side == PD_SIDE_OPENED)
        f.flags = PD_FRAME_OPENER;
    return f;
}

void pd_call_send_end(struct pd_call *call, pd_status status, struct pd_str bytes)
{
    uint8_t head[4];
    struct pd_iov iov[2] = { { head, 4 }, { (void *)(uintptr_t)bytes.p, bytes.n } };
    struct pd_frame f = pd_call_frame(call, PD_FRAME_END, 4 + bytes.n);
    pd_wire_put_u32(head, (uint32_t)status);
    (void)pd_link_send(call->link, &f, iov, 2);
}

void pd_call_want_to_send(struct pd_call *call)
{
    if (pd_list_is_empty(&call->sender)) {
        pd_list_append(&call->link->senders, &call->sender);
        pd_link_kick(call->link);
    }
}

bool pd_call_has_waiting(const struct pd_call *call)
{
    return call->in_record || call->out.n > 0;
}

pd_status pd_call_queue(struct pd_call *call, uint32_t kind, const struct pd_iov *iov, uint32_t n)
{
    uint8_t head[RECORD_HEADER];
    size_t bytes = pd_call_iov_bytes(iov, n);
    pd_status st = pd_buf_reserve(&call->out, RECORD_HEADER + bytes);
    if (st != PD_OK)
        return st;
    pd_wire_put_u32(head, (uint32_t)bytes);
    pd_wire_put_u32(head + 4, kind);
    (void)pd_buf_append(&call->out, head, sizeof head);
    for (uint32_t i = 0; i < n; i++)
        (void)pd_buf_append(&call->out, iov[i].base, iov[i].len);
    pd_call_want_to_send(call);
    return PD_OK;
}

/* Sends one fragment; false when the call has to wait for credit or has
 * nothing more. */
static bool send_fragment(struct pd_call *call)
{
    if (!call->in_record) {
        if (call->out.n == 0)
            return false;
        call->cur_left = pd_wire_get_u32(call->out.p);
        call->cur_kind = pd_wire_get_u32(call->out.p + 4);
        call->in_record = true;
        pd_buf_consume(&call->out, RECORD_HEADER);
    }
    bool first = (call->cur_kind & PD_CALL_KIND_OPEN) != 0;
    bool is_free = first || !call->is_open_sent;
    uint32_t n = PD_MIN(call->cur_left, PD_CALL_FRAGMENT);
    if (call->cur_kind == PD_CALL_KIND_END) {
        struct pd_str bytes = { call->out.p + 4, call->cur_left - 4 };
        pd_call_send_end(call, (pd_status)pd_wire_get_u32(call->out.p), bytes);
        pd_buf_clear(&call->out);
        call->in_record = false;
        return false;
    }
    if (!is_free) {
        uint32_t least = PD_MIN(n, 4096u);
        if (call->credit < least + PD_CALL_CHARGE)
            return false;
        n = PD_MIN(n, call->credit - PD_CALL_CHARGE);
        call->credit -= n + PD_CALL_CHARGE;
    }
    struct pd_frame f = pd_call_frame(call, PD_FRAME_MESSAGE, n);
    struct pd_iov iov[2] = { { NULL, 0 }, { call->out.p, n } };
    uint8_t service[2];
    f.kind = (uint16_t)(call->cur_kind & 0xff);
    if (first) {
        pd_wire_put_u16(service, call->service);
        iov[0] = (struct pd_iov){ service, 2 };
        f.type = PD_FRAME_OPEN;
        f.length += 2;
        call->cur_kind &= ~PD_CALL_KIND_OPEN;
    }
    if (n < call->cur_left)
        f.flags |= PD_FRAME_MORE;
    (void)pd_link_send(call->link, &f, iov, 2);
    pd_buf_consume(&call->out, n);
    call->cur_left -= n;
    if (call->cur_left == 0) {
        call->in_record = false;
        call->is_open_sent = true;
    }
    return true;
}

/* The first message is on its way, whole or in part. */
bool pd_call_is_known_there(const struct pd_call *call)
{
    return call->is_open_sent || (call->in_record && (call->cur_kind & PD_CALL_KIND_OPEN) == 0);
}

void pd_calls_pump(struct pd_link *link)
{
    struct pd_list *l;
    while (pd_link_may_send(link) && (l = pd_list_pop(&link->senders)) != NULL) {
        struct pd_call *call = PD_LIST_ENTRY(l, struct pd_call, sender);
        if (send_fragment(call)) {
            if (pd_call_has_waiting(call))
                pd_list_append(&link->senders, &call->sender);
        }
        if (call->is_gone && !pd_call_has_waiting(call)) {
            pd_call_drop(call);
            continue;
        }
        if (call->wants_writable && !call->is_gone &&
            call->out.n <= link->peers->conf.call_queue / 2) {
            call->wants_writable = false;
            if (call->events->on_writable != NULL) {
                pd_call_enter(call);
                call->events->on_writable(call, call->arg);
                pd_call_leave(call);
            }
        }
    }
}

pd_status pd_call_send(struct pd_call *call, uint32_t type, const struct pd_iov *iov, uint32_t n)
{
    struct pd_link *link = call->link;
    const struct pd_peers_conf *conf = &link->peers->conf;
    size_t bytes = pd_call_iov_bytes(iov, n);
    if (type > 255 || call->is_gone)
        return PD_EINVAL;
    if (link->state != PD_LINK_UP || !call->is_linked)
        return PD_EPEER;
    if (bytes > link->theirs.max_message || bytes > conf->max_message)
        return PD_ELIMIT;
    if (!pd_call_has_waiting(call) && pd_link_may_send(link) && bytes <= PD_CALL_FRAGMENT &&
        call->credit >= bytes + PD_CALL_CHARGE) {
        struct pd_frame f = pd_call_frame(call, PD_FRAME_MESSAGE, bytes);
        f.kind = (uint16_t)type;
        pd_status st = pd_link_send(link, &f, iov, n);
        if (st == PD_OK)
            call->credit -= (uint32_t)bytes + PD_CALL_CHARGE;
        return st;
    }
    if (call->out.n > 0 && call->out.n + bytes > conf->call_queue) {
        call->wants_writable = true;
        return PD_EAGAIN;
    }
    return pd_call_queue(call, type, iov, n);
}

uint64_t pd_call_pending(const struct pd_call *call)
{
    return call->out.n;
}
